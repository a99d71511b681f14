# shellcheck shell=bash
# Which Python makes the environment. Sourced by setup_environment.sh, which owns the variable venv
# and the functions say and refuse, and uses found_python and found_version.
# shellcheck disable=SC2034,SC2154

# python-mecab-ko has wheels up to 3.12 and builds only beside a mecab of its own.
readonly oldest_python=11 newest_python=12

# Prints an interpreter's version; fails where it cannot run (a pyenv shim without its Python).
version_of() { "$1" -c 'import sys; print("%d.%d.%d" % tuple(sys.version_info[:3]))' 2>/dev/null; }

python_fits() {
  local minor="${1#3.}"
  [[ $1 == 3.* ]] && ((${minor%%.*} >= oldest_python && ${minor%%.*} <= newest_python))
}

# Prints every interpreter that could do, best first, one a line.
list_pythons() {
  if [[ -n ${PYTHON:-} ]]; then
    type -aP "$PYTHON" || true
    return
  fi
  local name
  for name in python3.11 python3.12 python3 python python3.13 python3.14 python3.10; do
    type -aP "$name" || true
  done
  # Where uv and pip put programs for one user, a folder that is often not on the PATH.
  for name in python3.11 python3.12; do type -aP "${HOME:-/nowhere}/.local/bin/$name" || true; done
  if command -v uv >/dev/null; then
    name=">=3.$oldest_python,<3.$((newest_python + 1))"
    uv python find --no-python-downloads "$name" 2>/dev/null || true
  fi
}

# Sets found_python and found_version, or refuses and says how to get a Python.
find_python() {
  local candidate version seen=""
  while IFS= read -r candidate; do
    # An activated .venv comes first on the PATH, and may be about to be made anew.
    if [[ $candidate == "$venv"/* ]]; then continue; fi
    version="$(version_of "$candidate" </dev/null)" || continue
    if python_fits "$version"; then
      found_python="$candidate" found_version="$version"
      return
    fi
    if [[ $seen != *"$version"* ]]; then seen+="${seen:+, }$candidate is $version"; fi
  done < <(list_pythons)
  refuse "$(explain_no_python "$seen")"
}

explain_no_python() {
  local seen="$1" need="Python 3.$oldest_python or 3.$newest_python is needed"
  if [[ -n ${PYTHON:-} ]]; then
    printf '%s, but PYTHON names another: %s.\n' "$need" "${seen:-$PYTHON cannot be run}"
    return
  fi
  printf '%s, and none is on the PATH%s.\n' "$need" "${seen:+ ($seen)}"
  if [[ $seen == *" 3.1"[3-9]* ]]; then
    printf '  A newer one will not do: python-mecab-ko, which makes the scores, has no wheel.\n'
  fi
  printf '  Install one, then start again:\n'
  print_install_lines "$seen"
}

print_install_lines() {
  local like="" key value
  if command -v uv >/dev/null; then
    printf '    uv python install 3.%s\n' "$newest_python"
    return
  fi
  if [[ -r /etc/os-release ]]; then
    while IFS='=' read -r key value; do
      case $key in ID | ID_LIKE) like+=" ${value//\"/}" ;; esac
    done </etc/os-release
  fi
  case "$OSTYPE $like" in
    darwin*) printf '    brew install python@3.%s\n' "$newest_python" ;;
    *debian* | *ubuntu*)
      printf '    sudo apt install python3.11 python3.11-venv\n'
      printf '    sudo apt install python3.12 python3.12-venv   (Ubuntu 24.04)\n'
      ;;
    *fedora* | *rhel* | *centos*) printf '    sudo dnf install python3.%s\n' "$newest_python" ;;
    *suse*) printf '    sudo zypper install python3%s\n' "$newest_python" ;;
  esac
  printf '  or, for you alone and on any system, with uv:\n'
  if [[ -n $1 ]]; then
    printf '    python3 -m pip install --user uv\n'
    printf '    python3 -m uv python install 3.%s\n' "$newest_python"
  else
    printf '    uv python install 3.%s   (how to get uv stands on its home page)\n' "$newest_python"
  fi
}
