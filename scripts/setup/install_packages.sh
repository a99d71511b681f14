# shellcheck shell=bash
# How the pinned packages get into .venv: uv, else pip, and what to say when neither can.
# Sourced by setup_environment.sh, which owns the variables: project_root, venv, venv_python,
# setup_log, flavour, and the functions say and refuse.
# shellcheck disable=SC2154

readonly uv_pin="uv==0.13.8"
# Sums of the wheels that the pins bring on Linux x86-64 with Python 3.11, and of their files.
readonly cpu_size="0.45 GB to download, 1.7 GB on disk"
readonly gpu_size="3.0 GB to download, 5.5 GB on disk"
install_size="$cpu_size"
uv="" # the uv that installs; empty where there is none

announce_install() {
  local what="no NVIDIA GPU seen: installing torch for the CPU"
  if [[ $flavour == gpu* ]]; then
    what="NVIDIA GPU seen: installing torch with CUDA, and unsloth" install_size="$gpu_size"
  fi
  say "$what"
  say "  about $install_size, less where a package was downloaded before; $(
    df -Pk "$project_root" | awk 'NR == 2 { printf "%.1f GB", $4 / 1048576 }'
  ) are free here"
}

# Runs a module of ours that needs nothing installed. -P: a csv.py of the user's is not ours.
run_module() {
  local python="$1"
  shift
  PYTHONPATH="$project_root/code" "$python" -P -m "$@"
}

# Sets uv, and hands it what pip is configured with, because it reads none of that itself.
find_uv() {
  local settings own_sources=""
  settings="$(run_module "$venv_python" dialsum.batch.pip_settings)" ||
    refuse "pip's settings cannot be read"
  eval "$settings"
  if uv pip install --help 2>/dev/null | grep -e --torch-backend >/dev/null; then
    uv="$(command -v uv)"
  elif run_logged "$venv_python" -m pip install --retries 2 "$uv_pin"; then
    uv="$venv/bin/uv"
  else
    if [[ $(failure_kind) != other ]]; then explain_failure; fi
    say "uv cannot be had here; installing with pip, which takes longer"
    return
  fi
  if [[ -n $own_sources ]]; then own_sources=", with this machine's own package sources"; fi
  say "installing with $("$uv" --version | cut -d' ' -f1-2)$own_sources"
}

# Runs a command with its output in the log; a line every half minute says that it lives.
run_logged() {
  local status=0
  { printf '\n$ %s\n' "$*" >>"$setup_log"; } 2>/dev/null || true # a full disk is found out below
  log_start="$(wc -l <"$setup_log")"
  keep_saying_so 8>&- 9>&- &
  heartbeat=$!
  (cd "$project_root" && "$@") >>"$setup_log" 2>&1 || status=$?
  stop_heartbeat
  return "$status"
}

keep_saying_so() {
  local seconds=0
  # Short sleeps: after a kill -9 of this script, its pipes are held open no longer than one.
  while sleep 3 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    seconds=$((seconds + 3))
    if ((seconds % 30 == 0)); then say "  still working, $seconds s so far"; fi
  done
}

stop_heartbeat() {
  if [[ -n ${heartbeat:-} ]]; then
    kill "$heartbeat" 2>/dev/null || true
    wait "$heartbeat" 2>/dev/null || true
    heartbeat=""
  fi
}

# On a terminal the installer shows its own progress. If that fails, a second try fills the log.
run_shown() {
  if [[ -t 2 && -z ${CI:-} ]]; then
    if (cd "$project_root" && "$@") >&2; then return; fi
    say "that failed; trying once more"
  fi
  run_logged "$@"
}

last_output() { tail -n "+$((log_start + 1))" "$setup_log"; }

# On a disk that is full to the last byte even the log stays empty.
room_is_left() {
  local status=0
  head -c 1048576 /dev/zero 2>/dev/null >"$venv/.room" || status=1
  rm -f "$venv/.room"
  return "$status"
}

readonly disk_words='no space left|os error 28|errno 28|disk quota'
readonly network_words='dns error|failed to (fetch|download|lookup)|error sending request|'\
'timed out|connection (refused|reset|aborted|broken)|newconnectionerror|max retries|'\
'name resolution|tunnel error|network is unreachable|certificate'

# What the last logged command failed of: disk, network or other.
failure_kind() {
  if ! room_is_left || last_output | grep -iE "$disk_words" >/dev/null; then
    printf 'disk'
  elif last_output | grep -iE "$network_words" >/dev/null; then
    printf 'network'
  else
    printf 'other'
  fi
}

explain_failure() {
  local said
  said="$(last_output | grep -vE '^ *$|already satisfied|WARNING: Location|hardlink|link-mode' |
    tail -n 5 | cut -c 1-240 | sed 's/^/    /')" || true
  case $(failure_kind) in
    disk) refuse "no space left on the disk; the environment is not finished.
$said
  Free space ($install_size; df -h shows what there is), or put this folder, or uv's cache
  (export UV_CACHE_DIR=DIR), on a larger disk. Then start again." ;;
    network) refuse "the package index could not be reached; the environment is not finished.
$said
  Check the connection. Behind a proxy: export HTTPS_PROXY=http://HOST:PORT
  With an index or certificate of your own: pip config set global.index-url URL (global.cert FILE)
  Then start again: what was fetched is kept." ;;
    *) refuse "the packages could not be installed; the environment is not finished.
$said
  The whole output is in $setup_log. Start again when that is mended." ;;
  esac
}

uv_install() { run_shown "$uv" pip install --python "$venv_python" "$@"; }

# uv from the index, then from its own cache alone where the index cannot be reached.
uv_install_or_cached() {
  if uv_install "$@"; then return; fi
  if [[ $(failure_kind) != network ]]; then return 1; fi
  # Not logged: if this fails too, the user wants to read why the index did not answer.
  (cd "$project_root" && "$uv" pip install -q --offline --python "$venv_python" "$@") 2>/dev/null ||
    return 1
  say "the package index cannot be reached; uv's cache held everything"
}

# Succeeds where a CPU build of torch has to be asked for: not on macOS, where there is no other,
# nor where the user names a build, or names wheels to pip: those hold the build that is wanted.
cpu_build_is_needed() {
  local place wheel tag
  if [[ $flavour != cpu || $OSTYPE != linux* ]]; then return 1; fi
  if [[ -n ${UV_NO_INDEX:-}${UV_TORCH_BACKEND:-} ]]; then return 1; fi
  tag="$("$venv_python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')"
  while IFS= read -r place; do
    if [[ $place == *://* ]]; then return 1; fi
    for wheel in "$place"/torch-*"-$tag-"*.whl; do
      if [[ -e $wheel ]]; then return 1; fi
    done
  done < <(tr ',' '\n' <<<"${UV_FIND_LINKS:-}")
}

# Installs requirements files ("$@" is -r FILE …), by uv if there is one, else by pip.
install_files() {
  if [[ -n $uv ]]; then
    if cpu_build_is_needed; then
      if uv_install_or_cached --torch-backend cpu "$@"; then return; fi
      if [[ $(failure_kind) == disk ]]; then return 1; fi
      say "the CPU build of torch cannot be had; taking the general one ($gpu_size)"
    fi
    if uv_install_or_cached "$@"; then return; fi
    if [[ $(failure_kind) != other ]]; then return 1; fi
    say "uv failed ($setup_log says why); trying pip"
  elif cpu_build_is_needed; then
    say "pip cannot ask for torch's CPU build; this brings the general one ($gpu_size)"
  fi
  run_shown "$venv_python" -m pip install "$@"
}

# The project itself, editable. setuptools is among the pins: nothing is fetched to build it.
install_project() {
  local how=(--no-deps --no-build-isolation -e .)
  if [[ -n $uv ]]; then
    if run_logged "$uv" pip install --python "$venv_python" "${how[@]}"; then return; fi
  fi
  run_logged "$venv_python" -m pip install "${how[@]}"
}

# $1: "dev" adds the test tools. Refuses where something cannot be installed.
install_everything() {
  local with_tools=() checked=("$project_root/requirements.txt")
  if [[ $1 == dev ]]; then
    with_tools=(-r requirements-dev.txt) checked+=("$project_root/requirements-dev.txt")
  fi
  # Bash before 4.4 takes an empty "${list[@]}" for an unset variable.
  if [[ $flavour == gpu ]]; then
    if ! install_files -r requirements-gpu.txt ${with_tools[@]+"${with_tools[@]}"}; then
      if [[ $(failure_kind) != other ]]; then explain_failure; fi
      say "unsloth cannot be installed here ($setup_log says why);"
      say "going on without it: PEFT and bitsandbytes do its work, slower"
      flavour=gpu-without-unsloth
    fi
  fi
  if [[ $flavour != gpu ]]; then
    install_files -r requirements.txt ${with_tools[@]+"${with_tools[@]}"} || explain_failure
  fi
  install_project || explain_failure
  run_logged run_module "$venv_python" dialsum.batch.versions "${checked[@]}" || explain_failure
}
