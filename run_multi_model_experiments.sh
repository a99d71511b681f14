#!/usr/bin/env bash
# The models of config/model_configs, one after another: makes the environment, then hands over to
# the runner. Runs in outputs/NAME/, logs in logs/multi_model_experiments/; a quick test's elsewhere.
set -euo pipefail

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"

# shellcheck source=scripts/setup_environment.sh
source "$root/scripts/setup_environment.sh"

experiments=(
  bart_base
  bart_large
  t5_small
  t5_base
  t5_large
  mt5_small
  mt5_base
  flan_t5_base
  flan_t5_large
  gpt2
  gpt2_medium
  gpt2_large
  kogpt2
  llama_3_2_1b
  llama_3_2_korean_3b
  qwen2_5_3b
  qwen3_4b
  gemma_3_270m
  kobart_rdrop
  solar_10_7b
)
configs=()
for name in "${experiments[@]}"; do configs+=("--config=$root/config/model_configs/$name.yaml"); done

places=(--output-dir="$root/outputs/multi_model" --log-dir="$root/logs/multi_model_experiments")
runs=(--runs-dir="$root/outputs")
for argument in "$@"; do
  case $argument in -1 | --one-epoch | --demo | --rehearse) runs=() ;; esac
done
start_batch "$0" "${configs[@]}" "${places[@]}" ${runs[@]+"${runs[@]}"} "$@"
