"""Tells a user who started a script with an interpreter that lacks the packages which one to use.

Standard library only, in words that old Pythons understand too: it must run where nothing is
installed. Must not know what the packages are for.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent
OLDEST_PYTHON = (3, 11)
NEEDED = ("pydantic", "yaml", "rapidfuzz", "pynvml", "numpy")
"""Import names that the scripts need at once; whoever has these has run the set-up."""


def require_packages(script: str) -> None:
    """Return if this interpreter can run the project; else say which one can and exit with 2.

    Args:
        script: path of the script that was started (`__file__`), named in the command that works.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if sys.version_info[:2] < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:2]))
        found = f"is Python {version}, and {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed"
    elif missing:
        found = f"lacks packages of this project ({', '.join(missing)})"
    else:
        return
    sys.stderr.write(f"error: {sys.executable} {found}.\n{_find_way_out(Path(script).resolve())}\n")
    sys.exit(2)


def _find_way_out(script: Path) -> str:
    command = " ".join([_shown(script), *sys.argv[1:]])
    environment = PROJECT_ROOT / ".venv"
    interpreter = _shown(environment / "bin" / "python")
    set_up = _shown(PROJECT_ROOT / "run_main_7_experiments.sh")
    if not (environment / "bin" / "python").exists():
        return f"  make the environment: bash {set_up} --demo\n  then run: {interpreter} {command}"
    if Path(sys.prefix) == environment:
        return f"  complete the environment: bash {set_up} --demo"
    return f"  run: {interpreter} {command}"


def _shown(path: Path) -> str:
    relative = os.path.relpath(str(path))
    return str(path) if relative.startswith(os.pardir) else relative
