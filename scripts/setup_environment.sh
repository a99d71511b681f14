#!/usr/bin/env bash
# Makes .venv, the environment that everything here runs in, and keeps it equal to the pins.
#
#   bash scripts/setup_environment.sh            make it, or see that it is whole
#   bash scripts/setup_environment.sh --repair   put every pin back, whatever was installed since
#   bash scripts/setup_environment.sh --dev      with the tools of the tests
#
# The scripts of the root source this file and call start_batch or ensure_environment.
# It needs bash 3.2 (macOS has that) and Python. Its words go to stderr; its failures end with 2.
#
#   .venv/.dialsum, .dialsum-use       locks (code/dialsum/packages.py); made first: it is ours
#   .venv/.dialsum-main, .dialsum-dev  written last: what was installed, word for word

root="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
venv="$root/.venv" venv_python="$root/.venv/bin/python" setup_log="$root/.venv/setup.log"

say() { printf '%s\n' "$*" >&2; }
refuse() { say "error: $*" && exit 2; }

# These would put something in the place of .venv's packages, or stop Python itself; the programs
# name what they find in DIALSUM_KEPT_OUT (code/dialsum/environment_variables.py).
for name in PYTHONHOME PYTHONPATH PYTHONPLATLIBDIR PYTHONWARNINGS PYTHONINSPECT; do
  if [[ -n ${!name+set} ]]; then
    export DIALSUM_KEPT_OUT="${DIALSUM_KEPT_OUT:+$DIALSUM_KEPT_OUT,}$name"
    unset "$name"
  fi
done
# Where bytecode may not be kept, each experiment compiles all libraries, for 9 of its first 15 s.
unset name PYTHONDONTWRITEBYTECODE

# Python takes a colon, in PYTHONPATH and in the PATH of an environment, for the end of a folder.
if [[ $root == *:* ]]; then
  refuse "no environment can be made in $root: its name has a colon. Rename that folder."
fi

gpu_is_seen() { nvidia-smi -L 2>/dev/null | grep '^GPU ' >/dev/null; }

# Runs a module of ours that needs no package, with the Python $1. -P: a csv.py of the user's folder
# is not ours.
run_module() { PYTHONPATH="$root/code" "$1" -P -m "${@:2}"; }

# Sets python to one that can make the environment, and version.
find_python() {
  local name seen="" names=(python3.11 python3.12 python3 python ~/.local/bin/python3.1{1,2})
  if [[ -n ${PYTHON:-} ]]; then names=("$PYTHON"); fi
  for name in "${names[@]}"; do
    while IFS= read -r python; do
      # An activated .venv comes first on the PATH, and may be about to be made anew.
      if [[ $python == "$venv"/* ]]; then continue; fi
      # The shim of a Python that is not there fails.
      version="$("$python" -V 2>&1 </dev/null)" || continue
      if [[ $version =~ ^Python\ 3\.1[12]\. ]]; then return; fi
      seen+="${seen:+, }$python is $version"
    done < <(type -aP "$name")
  done
  if [[ -n ${PYTHON:-} ]]; then
    refuse "Python 3.11 or 3.12 is needed, but PYTHON names another: ${seen:-$PYTHON cannot be run}."
  fi
  refuse "Python 3.11 or 3.12 is needed, and none is on the PATH${seen:+ ($seen)}.
  (A newer one will not do: python-mecab-ko, which makes the scores, has no wheel for it.)
  Install one, then start again:
    sudo apt install python3.12 python3.12-venv   (Debian 12: python3.11 python3.11-venv)
    brew install python@3.12                      (macOS)
    uv python install 3.12                        (any system, for you alone; pip install uv)"
}

# What is installed where all went well. $1: main or dev.
stamp() {
  local file files=(pyproject.toml requirements.txt requirements-gpu.txt)
  if [[ $1 == dev ]]; then files=(requirements-dev.txt requirements-ray.txt); fi
  printf '%s\n' "$build" "$("$venv_python" -V 2>&1)" "$root"
  for file in "${files[@]}"; do printf -- '--- %s\n%s\n' "$file" "$(<"$root/$file")"; done
}

# Sets build, of torch. Succeeds where a finished environment stands here, with a Python and a build
# that are still wanted.
base_is_right() {
  local version place
  { read -r build && read -r version && read -r place; } 2>/dev/null <"$venv/.dialsum-main" &&
    [[ $place == "$root" && $version == "$("$venv_python" -V 2>&1)" ]] &&
    [[ -z ${PYTHON:-} || $version == "$("$PYTHON" -V 2>&1)" ]] &&
    [[ $build == "${UV_TORCH_BACKEND:-$build}" ]] &&
    # A card may have come since; one that has gone does no harm.
    { [[ $build != cpu || -n ${UV_TORCH_BACKEND:-} ]] || ! gpu_is_seen ||
      [[ $(run_module "$venv_python" dialsum.batch.first_look) == cpu ]]; }
}

# Succeeds where .venv holds all that is wanted. $1: main, or dev for the tools of the tests too.
environment_is_whole() {
  local set
  base_is_right || return 1
  for set in main ${1#main}; do
    [[ $(cat "$venv/.dialsum-$set" 2>/dev/null) == "$(stamp "$set")" ]] || return 1
  done
}

# Says pip's settings in uv's words, which reads none of them, where the user has not done so. As
# with pip, its variables win over [install], and that over [global].
hand_on_pip_settings() {
  local settings section key value
  give() { if [[ -z ${!1:-} ]]; then export "$1=$2"; fi; }
  settings="$("$venv_python" -m pip config list)"
  for section in :env: install global; do
    while IFS='=' read -r key value; do
      # It stands in quotes, and may be a list with one item a line.
      value="${value:1:${#value}-2}" value="${value//\\n/ }" value="${value# }"
      case ${key#"$section".} in
        index-url) give UV_DEFAULT_INDEX "$value" ;;
        # pip takes the best version of all indexes; uv stops at the first that knows the name.
        extra-index-url) give UV_INDEX "$value" && give UV_INDEX_STRATEGY unsafe-best-match ;;
        find-links) give UV_FIND_LINKS "${value// /,}" ;;
        no-index) give UV_NO_INDEX "$value" ;;
        trusted-host) give UV_INSECURE_HOST "$value" ;;
        proxy) give ALL_PROXY "$value" ;;
        cert) give SSL_CERT_FILE "$value" ;;
      esac
    done <<<"$settings"
  done
  # pip trusts the system's certificates, a company's own among them; uv has to be told.
  if [[ -z ${SSL_CERT_FILE:-} ]]; then give UV_SYSTEM_CERTS 1; fi
}

# Runs an installer; on a terminal it shows its progress. Sets failure, in one word.
logged() {
  if [[ -t 2 && -z ${CI:-} ]]; then
    if "$@" >&2; then return; fi
    say "that failed; trying once more"
  fi
  if "$@" 2>&1 | tee "$setup_log" >&2; then return; fi
  failure=other
  if grep -qiE 'dns error|failed to (fetch|download|lookup)|sending request|timed out|max retries|'\
'connection (refused|reset|aborted|broken|error)|name resolution|unreachable|tunnel|certificate' \
    "$setup_log"; then failure=network; fi
  # On a disk that is full to the last byte even the log stays empty.
  if ! { head -c 1048576 /dev/zero >"$venv/.room"; } 2>/dev/null ||
    grep -qiE 'no space left|disk quota' "$setup_log"; then failure=disk; fi
  rm -f "$venv/.room"
  return 1
}

stop_unfinished() {
  case $failure in
    disk) say "error: no space left on the disk. Free some, or put this folder, or uv's cache
  (export UV_CACHE_DIR=DIR), on a larger one." ;;
    network) say "error: the package index could not be reached. Check the connection.
  Behind a proxy: export HTTPS_PROXY=http://HOST:PORT
  With an index or certificate of your own: pip config set global.index-url URL (global.cert FILE)" ;;
    *) say "error: the packages could not be installed; what the installer said stands above." ;;
  esac
  say "  The environment is not finished. Start again to go on: what was fetched is kept."
  exit 2
}

# Installs what "$@" names, in the build of torch that fits. PyPI has the one for CUDA 13, and
# macOS's only one; where the user names wheels of his own, those hold the build that is wanted.
install() {
  if [[ ${installer[0]} == */uv && $OSTYPE == linux* && $build != cu130 ]] &&
    [[ -z ${UV_TORCH_BACKEND:-}${UV_FIND_LINKS:-}${UV_NO_INDEX:-} ]]; then
    if UV_TORCH_BACKEND="$build" logged "${installer[@]}" "$@"; then return; fi
    if [[ $failure == disk ]]; then return 1; fi
    say "torch's build for $build cannot be had; taking the general one (3 GB)"
  fi
  logged "${installer[@]}" "$@"
}

# Empties our .venv and makes it anew; its locks stay, so that nobody steps in between.
make_venv() {
  local size="3.0 GB to download, 5.5 GB on disk" folder version="" failure
  find_python
  build="${UV_TORCH_BACKEND:-$(run_module "$python" dialsum.batch.first_look)}"
  if [[ $build == cpu ]]; then size="0.45 GB to download, 1.7 GB on disk"; fi
  say "making .venv with $version ($python) and torch for $build; about $size,"
  say "  less where a package was downloaded before"
  find "$venv/" -mindepth 1 -maxdepth 1 ! -name .dialsum ! -name .dialsum-use -exec rm -rf -- {} +
  # Where .venv is a link to another disk, venv wants the folder itself.
  folder="$(cd "$venv" && pwd -P)"
  # Debian and Ubuntu keep what venv needs in a package of its own; uv can do without it.
  if logged "$python" -m venv "$folder"; then return; fi
  if [[ $failure == disk ]]; then stop_unfinished; fi
  if uv venv --seed --allow-existing --python "$python" "$folder" 2>/dev/null; then return; fi
  version="${version#Python }"
  refuse "$python cannot make an environment (see above). On Debian and Ubuntu:
    sudo apt install python${version%.*}-venv
  elsewhere, in its place: pip install --user uv
  Then start again."
}

# Does what has to be done anew. $1: main or dev, $2: repair or empty. The locks are held.
build_environment() {
  local set started=$SECONDS installer=() options=() failure
  cd "$root"
  if base_is_right; then say "updating .venv to the packages that are pinned"; else make_venv; fi
  rm -f "$venv"/.dialsum-{main,dev}
  hand_on_pip_settings
  installer=("$venv_python" -m pip install)
  if logged "${installer[@]}" -q uv==0.13.8; then
    installer=("$venv/bin/uv" pip install --python "$venv_python")
  elif [[ $failure == other ]]; then
    say "uv cannot be had here; installing with pip, which takes longer"
  else
    stop_unfinished
  fi
  if [[ $1 == dev ]]; then options=(-r requirements-dev.txt); fi
  if [[ $2 == repair ]]; then options+=(--force-reinstall); fi
  # Bash before 4.4 takes an empty "${list[@]}" for an unset variable.
  if [[ $build == cpu ]] || ! install -r requirements-gpu.txt ${options[@]+"${options[@]}"}; then
    if [[ $build != cpu ]]; then
      if [[ $failure != other ]]; then stop_unfinished; fi
      say "unsloth cannot be installed here; PEFT and bitsandbytes do its work, slower"
    fi
    install -r requirements.txt ${options[@]+"${options[@]}"} || stop_unfinished
  fi
  # The project itself. setuptools is among the pins: nothing is fetched to build it.
  logged "${installer[@]}" -q --no-deps --no-build-isolation -e . || stop_unfinished
  for set in "$1" main; do
    stamp "$set" >"$venv/.stamp"
    mv -f "$venv/.stamp" "$venv/.dialsum-$set"
  done
  say "environment ready in $((SECONDS - started)) s"
}

# Makes .venv fit: $1 main (or nothing), or dev; $2 repair: also where it looks whole.
ensure_environment() {
  local wanted="${1:-main}" repair="${2:-}" python="$venv_python" version build
  if [[ -z $repair ]] && environment_is_whole "$wanted"; then return; fi
  if [[ -e $venv && ! -e $venv/.dialsum ]] && [[ ! -d $venv || -n $(ls -A "$venv") ]]; then
    refuse "$venv was not made by this project; changing it could break what it was made for.
  Move it away and start again: mv '$venv' '$venv.old'"
  fi
  if ! base_is_right; then find_python; fi
  if ! { mkdir -p "$venv" && : >>"$venv/.dialsum" && : >>"$venv/.dialsum-use"; } 2>/dev/null; then
    refuse "$venv cannot be written. Give yourself the right to write in
  $root, or clone the project elsewhere."
  fi
  exec 8<>"$venv/.dialsum-use" 9<>"$venv/.dialsum"
  run_module "$python" dialsum.packages wait 9
  # Whoever held the lock before may have done the work.
  if [[ -n $repair ]] || ! environment_is_whole "$wanted"; then
    run_module "$python" dialsum.packages claim 8
    # In a shell of its own: what the installers are told is not for the program that comes after.
    (
      trap 'say "interrupted; start again to go on"; exit 130' INT TERM
      export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1
      build_environment "$wanted" "$repair"
    )
  fi
  exec 8>&- 9>&-
}

# Starts the runner as a script that names the experiments itself; $1 is that script.
start_batch() {
  local argument python arguments=(--started-as "$@")
  # Before anything is made: the options stand in code/dialsum/cli.py, which any Python can read.
  for argument in "${@:2}"; do
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
  # exec: Ctrl-C, kill and the exit status reach the runner and come from it, no shell between.
  exec "$venv_python" "$root/code/auto_experiment_runner.py" "${arguments[@]}"
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
