"""What a person sees while a batch runs: lines, one line that is written over, and the cards'
state.

Where the output is no terminal, the line that is written over becomes a plain line now and then.
Must not know plans, processes or records.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from dialsum.machine.driver import GpuState
from dialsum.printable import PrintableStream, visible

PLAIN_EVERY_SECONDS = 60.0
"""Pause between two progress lines where they pile up in a file."""
TERMINAL_EVERY_SECONDS = 0.5


@dataclass
class Screen:
    """Writes to one stream; when its reader is gone, it falls silent and the batch goes on.

    Attributes:
        stream: usually sys.stdout.
        terminal: whether a line can be written over.
        clock: seconds, only ever growing.
    """

    stream: TextIO
    terminal: bool
    clock: Callable[[], float] = time.monotonic
    silent: bool = False
    _progress_at: float = field(default=float("-inf"))
    _progress_shown: bool = False
    _warned: set[str] = field(default_factory=set)

    @classmethod
    def on(cls, stream: TextIO) -> Screen:
        """Make a screen of a stream, looking whether it is a terminal."""
        return cls(stream=stream, terminal=stream.isatty() and os.environ.get("TERM") != "dumb")

    def __post_init__(self) -> None:
        self._printable = PrintableStream(self.stream, terminal=self.terminal)

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where the output is none."""
        return shutil.get_terminal_size().columns if self.terminal else None

    def say(self, *lines: str) -> None:
        """Print lines that stay."""
        self._clear()
        for line in lines:
            self._write(line + "\n")

    def warn_once(self, line: str, *, about: str) -> None:
        """Print a warning, unless there was one about the same thing."""
        if about not in self._warned:
            self._warned.add(about)
            self.say(f"warning: {line}")

    def show_progress(self, make_line: Callable[[], str]) -> None:
        """Show a passing state, if it is time for one; the line is only made when it is shown."""
        pause = TERMINAL_EVERY_SECONDS if self.terminal else PLAIN_EVERY_SECONDS
        now = self.clock()
        if now - self._progress_at < pause:
            return
        self._progress_at = now
        if not self.terminal:
            self._write(make_line() + "\n")
            return
        columns = shutil.get_terminal_size().columns
        self._write("\r\x1b[K" + cut_to_width(visible(make_line()), columns - 1))
        self._progress_shown = True

    def restart_pause(self) -> None:
        """Count the pause before the next progress line from now: something was just said."""
        self._progress_at = self.clock()

    def _clear(self) -> None:
        if self._progress_shown:
            self._write("\r\x1b[K")
            self._progress_shown = False

    def _write(self, text: str) -> None:
        if self.silent:
            return
        try:
            self._printable.write(text)
            self.stream.flush()
        except OSError:
            # The reader left (`| head`, a closed terminal) or its disk is full: a night's work does
            # not end for that, and everything said here stands in the batch's logs as well.
            self.silent = True
            self._forget_unwritten()

    def _forget_unwritten(self) -> None:
        """Point the stream's descriptor to nowhere, else Python tries again at its end and turns
        the status to 120."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


def cut_to_width(text: str, width: int) -> str:
    """Cut text to so many columns; Korean letters take two."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def describe_cards(gpus: Sequence[GpuState]) -> list[str]:
    """Return one line per NVIDIA card: memory, temperature, how busy it is; none where there is no
    card."""
    return [gpu.describe() for gpu in gpus]
