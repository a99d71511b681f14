"""What can go wrong, as exceptions written for the user, and the one door that prints them.

Must not know any module of the program but the one that makes text printable: everything imports
this.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dialsum.text import print_printable_only

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_UNFIT = 2
EXIT_INTERRUPTED = 130


class DialsumError(Exception):
    """A problem that the user can understand and mend; its text says what, where and what to do."""

    exit_code = EXIT_FAILED


class UnfitError(DialsumError):
    """Arguments, configuration, data or machine are unfit; nothing was started (exit status 2)."""

    exit_code = EXIT_UNFIT


class ProblemsError(UnfitError):
    """Several problems found together, one line each.

    Args:
        problems: each already a full sentence with its place; shown in this order.
        summary: the line above them; made from the count when absent.
        areas: the area of each, where they have one: a line above the first of each.
    """

    def __init__(
        self, problems: Sequence[str], *, summary: str | None = None, areas: Sequence[str] = ()
    ) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} found; nothing was started:"
        lines = [summary or head]
        for at, problem in enumerate(self.problems):
            if areas and areas[at] not in areas[:at]:
                lines.append(f" {areas[at]}")
            lines.append(f"  {problem}")
        super().__init__("\n".join(lines))


class ConfigError(ProblemsError):
    """Problems in configuration files or --set, each as `file:line  key  found -> meant`."""


class DataError(ProblemsError):
    """Problems in data files, each naming file and row."""


class RunError(DialsumError):
    """An experiment that had started could not go on (exit status 1)."""


class NonFiniteError(RunError):
    """Steps that were not finite, beyond what training could undo."""


class FullMemoryError(RunError):
    """Memory that was full, beyond what smaller passes could mend."""


class DiskFullError(RunError):
    """No space left where a file was to be written.

    Args:
        said: what is to be said of it, where it was no write that failed.
    """

    def __init__(self, path: Path, said: str | None = None) -> None:
        super().__init__(
            said
            or f"{path}: no space left on the disk; nothing half-written was left there. "
            "Free space, or write elsewhere with --output-dir, and start again."
        )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def explain_os_error(error: OSError) -> str:
    """Say an operating-system error in words, with its path where it has one."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(DiskFullError(Path(os.fspath(error.filename or "output"))))
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}"


SHOWN_PROBLEMS = 10  # of one kind; a broken file has thousands, a screen has thirty lines


def raise_problems(problems: Sequence[str], *, summary: str | None = None) -> None:
    """Raise one DataError with the first problems and their count; return when there is none.

    Raises:
        DataError: when problems is not empty.
    """
    if problems:
        if len(problems) > SHOWN_PROBLEMS:
            summary = summary or f"{len(problems)} problems found; nothing was started:"
        raise DataError(shorten_kind(problems), summary=summary)


def shorten_kind(problems: Sequence[str]) -> list[str]:
    """Return the first problems of one kind, and a line on how many more there are."""
    rest = len(problems) - SHOWN_PROBLEMS
    return [*problems[:SHOWN_PROBLEMS], *([f"… and {rest:,} more like these"] if rest > 0 else [])]


def list_problems(error: DialsumError) -> list[str]:
    """Return every problem that an error names."""
    return error.problems if isinstance(error, ProblemsError) else [str(error)]


def run_script(main: Callable[[Sequence[str] | None], int]) -> None:
    """Call a script's main and leave with its exit status; expected errors are printed in words.

    Whatever is printed, by libraries and tracebacks too, is made printable on its way out.

    Status: what main returns; 1 or 2 for a DialsumError by its kind; 1 for an operating-system
    error; 130 after Ctrl-C. An error of no such kind is a bug of ours and keeps its traceback.
    """
    print_printable_only()
    try:
        status = main(None)
    except DialsumError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_code
    except BrokenPipeError:
        # The reader of our output left (`… | head`): nothing to say, and nowhere to say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_FAILED
    except OSError as error:
        print(f"error: {explain_os_error(error)}", file=sys.stderr)
        status = EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status)
