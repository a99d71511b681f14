"""Command lines: their mistakes are said in words, and so is an interpreter without the packages.

Standard library only, in words that old Pythons understand too: it runs before anything is
installed.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dialsum.errors import UnfitError

NEAR_ENOUGH = 0.6
"""Least similarity, 0 to 1, of a word that is offered in place of a misspelt one."""
WAY_OUT = "\n  --help shows every option."


class CommandLine(argparse.ArgumentParser):
    """A parser that refuses what it does not know by name; options are never guessed from a part.

    Args:
        prog: the command as the user types it; it stands in every refusal.
        hidden: options that are real but not for this command's users, never offered to them.
    """

    def __init__(self, *, prog: str, hidden: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(prog=prog, allow_abbrev=False, **settings)
        self._hidden = frozenset(hidden)
        self.register("type", Path, read_path)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse every word.

        Raises:
            UnfitError: a word that is no option, or an option with a value that it cannot have.
        """
        words = list(sys.argv[1:] if args is None else args)
        for word in words:
            if not _is_text(word):
                raise UnfitError(
                    f"{self.prog}: {ascii(word)[:80]} holds bytes that are no UTF-8; rename the "
                    f"file or folder, or write the value in UTF-8.{WAY_OUT}"
                )
        # Before argparse looks: it would say that an option is missing, not that it is misspelt.
        end = words.index("--") if "--" in words else len(words)
        unknown = [word for word in words[:end] if self._is_unknown(word)]
        if unknown:
            raise UnfitError(self._refuse(unknown))
        found, unknown = self.parse_known_intermixed_args(words, namespace)
        if unknown:
            raise UnfitError(self._refuse(unknown))
        return found

    def _is_unknown(self, word: str) -> bool:
        name = word.partition("=")[0]
        is_option = len(name) > 2 and name.startswith("--") and " " not in name
        return is_option and name not in self._option_string_actions

    def error(self, message: str) -> NoReturn:
        """Refuse what argparse itself found wrong."""
        raise UnfitError(f"{self.prog}: {message}.{WAY_OUT}")

    def _refuse(self, unknown: Sequence[str]) -> str:
        # The value of an unknown option is unknown as well, and no mistake of its own.
        wrong = [word for word in unknown if word.startswith("-")] or list(unknown)
        lines = [self._refuse_word(word.partition("=")[0]) for word in wrong]
        return "\n  ".join(lines) + WAY_OUT

    def _refuse_word(self, word: str) -> str:
        what = "option" if word.startswith("-") else "argument"
        nearest = self._find_nearest(word)
        meant = f"; did you mean {nearest}?" if nearest and nearest != word else "."
        return f"{self.prog} has no {what} {word}{meant}"

    def _find_nearest(self, word: str) -> str | None:
        """Return the option that is most like a word, dashes and case aside."""
        shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
        names = [name for action in shown for name in action.option_strings]
        bare = {name.lstrip("-").lower(): name for name in names if name not in self._hidden}
        text = word.lstrip("-").lower().replace("_", "-")
        longer = [name for name in bare if len(text) > 2 and name.startswith(text)]
        near = longer or difflib.get_close_matches(text, bare, n=1, cutoff=NEAR_ENOUGH)
        return bare[near[0]] if near else None


def read_path(text: str) -> Path:
    """Return a path as it was meant: a shell leaves the ~ of `--run-dir=~/x` alone."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 (Path's own raises where nobody is so called)


def _is_text(word: str) -> bool:
    """Say whether a word came as UTF-8; other bytes stand in it as halves of characters."""
    return not any(0xD800 <= ord(char) <= 0xDFFF for char in word)


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
