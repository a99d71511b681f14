# shellcheck shell=bash
# Whether a program runs in .venv: its packages are not changed under its feet.
# Sourced by setup_environment.sh, which owns the variables: venv, venv_python, use_lock, and the
# function refuse.
# shellcheck disable=SC2154

# Takes descriptor 8, the lock that every run shares (code/dialsum/batch/in_use.py), for us alone;
# refuses where something runs. Nobody starts in .venv until release_environment.
claim_environment() {
  if ! { : >>"$use_lock"; } 2>/dev/null; then
    refuse "$use_lock cannot be written; give yourself the right to, then start again."
  fi
  exec 8>>"$use_lock"
  if command -v flock >/dev/null; then
    if flock -n 8; then return; fi
  # Where there is no flock (macOS), Python locks the descriptor that it inherits: it stays locked.
  elif ! "$venv_python" -c 'import fcntl' 2>/dev/null ||
    "$venv_python" -c 'import fcntl; fcntl.flock(8, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null
  then return; fi
  refuse ".venv is in use; its packages cannot be changed while this runs in it:
$(list_users)
  Wait for its end, or stop it, then start again. Nothing was changed."
}

release_environment() { exec 8>&-; }

# One line for each program that said that it runs in .venv, and still does.
list_users() {
  local pid words found=""
  while IFS= read -r pid; do
    if [[ ! $pid =~ ^[0-9]+$ ]]; then continue; fi
    if [[ -r /proc/$pid/cmdline ]]; then
      words="$(tr '\0' ' ' <"/proc/$pid/cmdline")" || continue
    else
      words="$(ps -o args= -p "$pid" 2>/dev/null)" || continue
    fi
    # A number that has gone to another program since is no user of .venv.
    if [[ $words != *trainer.py* && $words != *auto_experiment_runner.py* ]]; then continue; fi
    found=yes
    printf '    process %s: %s\n' "$pid" "${words:0:160}"
  done < <(sort -un "$use_lock")
  if [[ -z $found ]]; then printf '    a process that did not leave its number'; fi
}
