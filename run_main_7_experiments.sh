#!/usr/bin/env bash
# The seven experiments: makes the environment, then hands over to the runner.
set -euo pipefail

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"

# shellcheck source=scripts/setup_environment.sh
source "$root/scripts/setup_environment.sh"

experiments=(
  01_mt5_xlsum_optimized_v2
  01_mt5_xlsum_korean_adapted
  01_mt5_xlsum_ultimate
  02_eenzeenee_t5_rtx3090
  01_baseline_kobart_rtx3090
  03_high_learning_rate_rtx3090
  04_batch_optimization_rtx3090
)
configs=()
for name in "${experiments[@]}"; do configs+=("--config=$root/config/experiments/$name.yaml"); done

start_batch "$0" "${configs[@]}" "$@"
