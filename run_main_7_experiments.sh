#!/usr/bin/env bash
# The seven experiments: makes the environment, then hands over to the runner.
set -euo pipefail

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"

show_help() {
  cat <<'HELP'
Run the seven experiments, one after another on a GPU, and end in one table.

  bash run_main_7_experiments.sh --demo   tiny models of the same kinds, sample data, any CPU
  bash run_main_7_experiments.sh          the real checkpoints on data/*.csv, one NVIDIA GPU

The first start makes .venv with everything it needs (minutes, said before); later starts find it.

  -1, --one-epoch          one epoch each, as a quick test, in outputs/quick_test
  --demo                   start from tiny checkpoints, in outputs/demo (with --one-epoch in
                           outputs/demo_quick_test)
  --data-dir DIR           the folder of train.csv, dev.csv and test.csv (a demo on it goes to
                           outputs/demo_own_data)
  --dry-run                check everything that can be known now, print the plan, write nothing
  --explain                print every value with where it comes from, and stop
  --only 1,4               these experiments only
  --stop-on-error          do not go on after a failed experiment
  --output-dir DIR         instead of outputs/
  --runs-dir DIR           instead of OUTPUT/auto_experiments and its like
  --log-dir DIR            instead of logs/
  --set SECTION.KEY=VALUE  another value in all of them, e.g. --set training.learning_rate=3e-5
  --seed N                 another seed
  -h, --help               this text

Exit status: 0 all succeeded; 1 at least one failed; 2 nothing was started; 130 interrupted.
HELP
}

for argument in "$@"; do
  case $argument in -h | --help) show_help && exit 0 ;; esac
done

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
