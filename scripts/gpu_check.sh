#!/usr/bin/env bash
# What the experiments need of an NVIDIA GPU and what they make of it, in one table; docs/gpu.md.
set -euo pipefail

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"

show_help() {
  cat <<'HELP'
Check the experiments on this machine's NVIDIA GPU: tests, speed, memory. Downloads no model.

  bash scripts/gpu_check.sh                  in .venv, which it makes where it is missing
  bash scripts/gpu_check.sh --python EXE     with an interpreter that has torch, transformers, peft
                                             and requirements.txt's small packages (no network)
  bash scripts/gpu_check.sh --device cpu --tiny --steps 4   try the way of the check without a GPU

  --python EXE       the interpreter; also by the variable GPU_CHECK_PYTHON
  --device cpu       instead of cuda; figures then mean nothing
  --tiny             tiny versions of the architectures
  --steps N          optimizer steps of each measurement (20; the first 4 are not timed)
  --eval-rows N      rows to write summaries for (16)
  --cap-gib GIB      memory that the seven are held to (23.7, an RTX 3090's; 0: all there is)
  --parts A,B        of tests,experiments,comparisons,decoder (all)
  --per-process N    measurements that share a process (1)
  --minutes N        longest time of a measurement (15)
  --output-dir DIR   instead of outputs/gpu_check
  --work-dir DIR     where 5 GB of checkpoints are kept meanwhile
  -h, --help         this text

Exit status: 0 all that could run did; 1 something failed; 2 no NVIDIA GPU, or nothing to run with.
HELP
}

python="${GPU_CHECK_PYTHON:-}" device=cuda options=()
while (($#)); do
  case $1 in
    -h | --help) show_help && exit 0 ;;
    --python=*) python="${1#*=}" ;;
    --python)
      python="${2:-}"
      if [[ -z $python ]]; then
        printf 'error: --python needs an interpreter\n' >&2
        exit 2
      fi
      shift
      ;;
    --device=*) device="${1#*=}" options+=("$1") ;;
    --device)
      device="${2:-}" options+=("$1")
      if (($# > 1)); then options+=("$2") && shift; fi
      ;;
    *) options+=("$1") ;;
  esac
  shift
done

# shellcheck source=scripts/setup_environment.sh
source "$root/scripts/setup_environment.sh"

offer_other_python() {
  local status=$?
  if ((status == 2)); then
    say "  Or name an interpreter that has the packages: bash scripts/gpu_check.sh --python EXE"
  fi
}

if [[ -z $python ]]; then
  # Before anything is downloaded. An interpreter of the user's may see a card without nvidia-smi.
  if [[ $device == cuda ]] && ! gpu_is_seen; then
    refuse "nvidia-smi shows no NVIDIA GPU; nothing was installed or measured.
  Start this on a machine that has one, or try the way of the check here:
    bash scripts/gpu_check.sh --device cpu --tiny --steps 4"
  fi
  trap offer_other_python EXIT
  ensure_environment dev
  trap - EXIT
  python="$venv_python"
elif ! command -v "$python" >/dev/null; then
  refuse "--python $python: there is no such program"
fi
exec "$python" "$root/benchmarks/gpu/check.py" ${options[@]+"${options[@]}"}
