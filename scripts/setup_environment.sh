#!/usr/bin/env bash
# Makes .venv, the environment that everything here runs in, and keeps it equal to the pins.
#
#   bash scripts/setup_environment.sh            make it, or see that it is whole
#   bash scripts/setup_environment.sh --repair   put every pin back, whatever was installed since
#   bash scripts/setup_environment.sh --dev      with the tools of the tests
#
# run_main_7_experiments.sh and run_tests.sh source this file and call ensure_environment.
# It needs bash 3.2 (macOS has that) and Python. Its words go to stderr; its failures end with 2.
#
#   .venv/.dialsum              made first: this environment is ours. Also the lock of its making
#   .venv/.dialsum-ready        written last: what was installed, word for word. Missing: half-made
#   .venv/.dialsum-dev-ready    the same for the tools of the tests
#   .venv/.dialsum-use          the lock that every run shares: nothing is changed under a run

project_root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$project_root/.venv"
venv_python="$venv/bin/python"
setup_log="$venv/setup.log"
made_mark="$venv/.dialsum"
ready_stamp="$venv/.dialsum-ready"
dev_ready_stamp="$venv/.dialsum-dev-ready"
use_lock="$venv/.dialsum-use"

# These would put something in the place of .venv's packages, or stop Python itself; the programs
# name what they find in DIALSUM_KEPT_OUT (code/dialsum/environment_variables.py).
for name in PYTHONHOME PYTHONPATH PYTHONPLATLIBDIR PYTHONWARNINGS PYTHONINSPECT; do
  if [[ -n ${!name+set} ]]; then
    export DIALSUM_KEPT_OUT="${DIALSUM_KEPT_OUT:+$DIALSUM_KEPT_OUT,}$name"
    unset "$name"
  fi
done
unset name

say() { printf '%s\n' "$*" >&2; }

refuse() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Python takes a colon in PYTHONPATH, and in the PATH of an environment, for the end of a folder.
if [[ $project_root == *:* ]]; then
  refuse "no environment can be made in $project_root: its name has a colon. Rename that folder."
fi

# shellcheck source=scripts/setup/find_python.sh
source "$project_root/scripts/setup/find_python.sh"
# shellcheck source=scripts/setup/install_packages.sh
source "$project_root/scripts/setup/install_packages.sh"
# shellcheck source=scripts/setup/in_use.sh
source "$project_root/scripts/setup/in_use.sh"

gpu_is_seen() {
  command -v nvidia-smi >/dev/null || return 1
  local limit=()
  if command -v timeout >/dev/null; then limit=(timeout 30); fi
  ${limit[@]+"${limit[@]}"} nvidia-smi -L 2>/dev/null | grep '^GPU ' >/dev/null
}

# What a stamp says: $1 python version, $2 flavour, $3 torch build, the rest files, word for word.
stamp_text() {
  local file
  printf 'flavour %s\ntorch %s\npython %s\nplatform %s\nroot %s\n' \
    "$2" "$3" "$1" "$OSTYPE $HOSTTYPE" "$project_root"
  shift 3
  for file in "$@"; do printf -- '--- %s\n%s\n' "$file" "$(<"$project_root/$file")"; done
}

main_stamp_text() { stamp_text "$@" pyproject.toml requirements.txt requirements-gpu.txt; }
dev_stamp_text() { stamp_text "$@" requirements-dev.txt; }

# Sets stamped (the whole text, empty where none stands), stamped_flavour and stamped_torch.
read_stamp() {
  stamped="" stamped_flavour="" stamped_torch=""
  if [[ -f $ready_stamp ]]; then
    stamped="$(<"$ready_stamp")"
    stamped_flavour="${stamped%%$'\n'*}" stamped_torch="${stamped#*$'\n'torch }"
    stamped_flavour="${stamped_flavour#flavour }" stamped_torch="${stamped_torch%%$'\n'*}"
  fi
}

# Succeeds where the finished environment stands on this Python, at this place, in the right build.
base_is_right() {
  local version="$1"
  [[ $stamped == *$'\n'"python $version"$'\n'*$'\n'"root $project_root"$'\n'* ]] || return 1
  if [[ -n ${PYTHON:-} && $(version_of "$PYTHON") != "$version" ]]; then return 1; fi
  if [[ -n ${UV_TORCH_BACKEND:-} && $stamped_torch != "$UV_TORCH_BACKEND" ]]; then return 1; fi
  # A card may have come since; one that has gone does no harm.
  if [[ $stamped_flavour == cpu && -z ${UV_TORCH_BACKEND:-} ]] && gpu_is_seen; then return 1; fi
}

# Succeeds where .venv holds all that is wanted; $1 "dev": the test tools too.
environment_is_whole() {
  local version base
  [[ -x $venv_python && -f $ready_stamp ]] || return 1
  version="$(version_of "$venv_python")" || return 1
  read_stamp
  base=("$version" "$stamped_flavour" "$stamped_torch")
  [[ $stamped == "$(main_stamp_text "${base[@]}")" ]] || return 1
  if [[ $1 == dev ]]; then
    [[ -f $dev_ready_stamp ]] || return 1
    [[ $(<"$dev_ready_stamp") == "$(dev_stamp_text "${base[@]}")" ]] || return 1
  fi
  base_is_right "$version"
}

refuse_foreign_venv() {
  if [[ -e $venv && ! -d $venv ]]; then
    refuse "$venv is not a folder; move it away and start again."
  fi
  if [[ -d $venv && ! -e $made_mark && -n $(ls -A "$venv") ]]; then
    refuse "$venv was not made by this project; changing it could break what it was made for.
  Move it away and start again: mv '$venv' '$venv.old'"
  fi
}

# One set-up at a time: a second start waits here for the first. Descriptor 9 holds the lock.
take_lock() {
  if ! { mkdir -p "$venv" && : >>"$made_mark"; } 2>/dev/null; then
    refuse "$venv cannot be written. Give yourself the right to write in
  $project_root, or clone the project elsewhere."
  fi
  if command -v flock >/dev/null; then
    exec 9>>"$made_mark"
    if flock -n 9; then return; fi
    say "another start is setting up this environment; waiting for it to end"
    flock 9
    return
  fi
  wait_for_lock_folder
}

# Where there is no flock (macOS): a folder, which only one can make, with the maker's process id.
wait_for_lock_folder() {
  local holder said="" nameless=0
  until mkdir "$venv/.dialsum-lock" 2>/dev/null; do
    holder="$(cat "$venv/.dialsum-lock/pid" 2>/dev/null || true)"
    if [[ -z $holder ]]; then nameless=$((nameless + 1)); fi
    # Its maker is gone, or was killed before it could write its number.
    if ((nameless > 5)) || { [[ -n $holder ]] && ! kill -0 "$holder" 2>/dev/null; }; then
      rm -rf "$venv/.dialsum-lock"
      nameless=0
      continue
    fi
    if [[ -z $said ]]; then
      said="another start (process ${holder:-unknown}) is setting up this environment"
      say "$said; waiting for it to end"
    fi
    sleep 1
  done
  printf '%s\n' "$$" >"$venv/.dialsum-lock/pid"
}

release_lock() {
  exec 9>&-
  rm -rf "$venv/.dialsum-lock"
}

# Empties our .venv and makes it anew; its mark and lock stay, so that nobody steps in between.
make_venv() {
  local name="python${found_version%.*}" folder
  # Where .venv is a link to another disk, venv wants the folder itself.
  folder="$(cd "$venv" && pwd -P)"
  find "$venv/" -mindepth 1 -maxdepth 1 ! -name .dialsum ! -name .dialsum-lock \
    ! -name .dialsum-use -exec rm -rf -- {} +
  say "making .venv with Python $found_version ($found_python)"
  if run_logged "$found_python" -m venv "$folder"; then return; fi
  # Debian and Ubuntu keep what venv needs in a package of its own; others can do without it.
  if command -v uv >/dev/null &&
    run_logged uv venv --seed --allow-existing --python "$found_python" "$folder"; then return; fi
  if run_logged "$found_python" -m virtualenv "$folder"; then return; fi
  if [[ $(failure_kind) == disk ]]; then explain_failure; fi
  refuse "$found_python cannot make an environment ($setup_log says why). On Debian and Ubuntu:
    sudo apt install $name-venv
  elsewhere:
    $found_python -m pip install --user virtualenv
  Then start again."
}

write_stamps() {
  local version
  version="$(version_of "$venv_python")"
  if [[ $1 == dev ]]; then
    dev_stamp_text "$version" "$flavour" "$torch_build" >"$dev_ready_stamp.tmp"
    mv -f "$dev_ready_stamp.tmp" "$dev_ready_stamp"
  fi
  main_stamp_text "$version" "$flavour" "$torch_build" >"$ready_stamp.tmp"
  mv -f "$ready_stamp.tmp" "$ready_stamp"
}

installed_torch() {
  local folder
  for folder in "$venv"/lib/python3.*/site-packages/torch-*.dist-info; do
    folder="${folder##*/torch-}"
    printf '%s' "${folder%.dist-info}"
  done
}

# Decides what has to be redone, and does it. The lock is held.
build_environment() {
  local wanted="$1" mode="$2" started=$SECONDS version main_is_right="" had_tools=""
  read_stamp
  if [[ -f $dev_ready_stamp ]]; then had_tools=yes; fi
  rm -f "$ready_stamp" "$dev_ready_stamp"
  version="$(version_of "$venv_python")" || version=none
  if base_is_right "$version"; then
    flavour="$stamped_flavour" torch_build="$stamped_torch"
    if [[ $torch_build != default ]]; then export UV_TORCH_BACKEND="$torch_build"; fi
    if [[ $stamped == "$(main_stamp_text "$version" "$flavour" "$torch_build")" ]]; then
      main_is_right=yes
    fi
    if [[ $mode == repair ]]; then
      say "reinstalling every package at the version that requirements.txt names"
    elif [[ $main_is_right && -z $had_tools ]]; then
      say "adding the tools of the tests (requirements-dev.txt) to .venv"
    else
      say "updating .venv: the list of packages to install has changed"
    fi
  else
    if [[ -n $stamped ]]; then
      say ".venv was made for another folder, Python or build of torch; making a new one"
    elif [[ -e $venv/pyvenv.cfg ]]; then
      say ".venv was left half-made by an earlier start; making a new one"
    fi
    find_python
    flavour=cpu torch_build="${UV_TORCH_BACKEND:-default}"
    if gpu_is_seen; then flavour=gpu; fi
    announce_install
    make_venv
  fi
  find_uv
  install_everything "$wanted"
  write_stamps "$wanted"
  say "environment ready in $((SECONDS - started)) s, with torch $(installed_torch)"
}

# Makes .venv fit: $1 "main" or "dev" (the test tools too); $2 "repair" mends a whole one as well.
ensure_environment() {
  local wanted="${1:-main}" mode="${2:-}"
  # Each experiment is a process that loads the same libraries. Where their bytecode may not be kept,
  # every one of them compiles it anew, for 9 of its first 15 seconds.
  unset PYTHONDONTWRITEBYTECODE
  if [[ $mode != repair ]] && environment_is_whole "$wanted"; then return; fi
  export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
  refuse_foreign_venv
  take_lock
  # Whoever held the lock before may have done the work.
  if [[ $mode == repair ]] || ! environment_is_whole "$wanted"; then
    claim_environment
    # In a shell of its own: what the installers are told is not for the program that comes after.
    (
      trap stop_heartbeat EXIT
      trap 'say "interrupted; start again to go on"; exit 130' INT TERM
      : >"$setup_log"
      build_environment "$wanted" "$mode"
    )
    release_environment
  fi
  release_lock
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  case ${1:-} in
    "") ensure_environment main ;;
    --repair) ensure_environment main repair ;;
    --dev) ensure_environment dev ;;
    -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0" ;;
    *) refuse "unknown argument $1; there are --repair, --dev and --help" ;;
  esac
fi
