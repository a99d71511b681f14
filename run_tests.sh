#!/usr/bin/env bash
# Every test but those of long trainings, in the same environment as the experiments.
#
#   bash run_tests.sh            unit tests in parallel, then those that train small models
#   bash run_tests.sh --fast     unit tests only
#   bash run_tests.sh --long     the slow ones too
#   bash run_tests.sh --lint     ruff, mypy and shellcheck instead of tests
#
# All other arguments go to pytest: bash run_tests.sh --fast -k score
set -euo pipefail

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=scripts/setup_environment.sh
source "$root/scripts/setup_environment.sh"

mode=usual arguments=() marked=""
for argument in "$@"; do
  case $argument in
    --fast | --long | --lint) mode="${argument#--}" ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *)
      if [[ $argument == -m* ]]; then marked=yes; fi
      arguments+=("$argument")
      ;;
  esac
done

ensure_environment dev
cd "$root"

run_pytest() {
  local status=0
  "$venv_python" -m pytest "$@" ${arguments[@]+"${arguments[@]}"} || status=$?
  # pytest's status for arguments that it cannot use, and for nothing else that a test does.
  if ((status == 4)); then
    say "pytest could not use these arguments (see above) and no test was run;" \
      "the options of run_tests.sh itself are --fast, --long, --lint"
    exit 2
  fi
  return "$status"
}

# Four processes at most; those that train share the processors, so that none waits for a thread of
# another. A file's tests stay together: they share what one of them trained.
run_units() { run_pytest -n auto --maxprocesses 4 -m "$1"; }
run_training() {
  local processors workers
  processors="$(getconf _NPROCESSORS_ONLN)"
  workers=$((processors > 4 ? 4 : processors))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((processors / workers))}"
  run_pytest -n "$workers" --dist loadfile -m "$1"
}

check_style() {
  "$venv_python" -m ruff check .
  "$venv_python" -m ruff format --check .
  "$venv_python" -m mypy
  "$venv/bin/shellcheck" -x ./*.sh scripts/*.sh .ci/run
}

# Status 5 is pytest's for "nothing was selected": the arguments named tests of the other kind.
run_in_turn() {
  local units="$1" training="$2" status=0 first
  run_units "$units" || status=$?
  if ((status != 0 && status != 5)); then
    say "unit tests failed; the tests that train were not run"
    return "$status"
  fi
  first=$status status=0
  run_training "$training" || status=$?
  if ((status == 5)); then return "$first"; fi
  return "$status"
}

if [[ -n $marked && $mode != lint ]]; then
  run_pytest
  exit
fi
# Tests for a GPU would only skip themselves elsewhere.
here=""
if ! gpu_is_seen; then here=" and not gpu"; fi
case $mode in
  lint) check_style ;;
  fast) run_units "not training and not slow$here" ;;
  usual) run_in_turn "not training and not slow$here" "training and not slow$here" ;;
  long) run_in_turn "not training$here" "training$here" ;;
esac
