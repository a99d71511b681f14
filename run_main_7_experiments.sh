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

arguments=(--started-as "$0" "${configs[@]}" "$@")

# Before anything is made: the options stand in code/dialsum/cli.py, which any Python can read.
for argument in "$@"; do
  case $argument in
    -h | --help)
      find_python
      run_module "$python" dialsum.batch.first_look "${arguments[@]}"
      exit
      ;;
  esac
done

# A misspelt option, missing data, no card: all that is said before anything is downloaded. Where
# nothing has to be, the runner says it, together with what is wrong in the configuration.
if ! environment_is_whole main; then
  python="$venv_python"
  if ! base_is_right; then find_python; fi
  run_module "$python" dialsum.batch.first_look "${arguments[@]}"
  ensure_environment main
fi
# exec: Ctrl-C, kill and the exit status reach the runner and come from it, with no shell between.
exec "$venv_python" "$root/code/auto_experiment_runner.py" "${arguments[@]}"
