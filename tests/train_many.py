"""Runs code/trainer.py's main several times in one process: importing the libraries costs more than
a run of two steps.

    python tests/train_many.py FILE

FILE holds a JSON list of argument lists. Prints a JSON list: of each run its exit status, or the
message that refused it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

import trainer
from dialsum.errors import DialsumError


def run(arguments: list[str]) -> int | str:
    """Run one experiment; return its exit status or what refused it."""
    try:
        return trainer.main(arguments)
    except DialsumError as error:
        return str(error)


if __name__ == "__main__":
    ends = [run(arguments) for arguments in json.loads(Path(sys.argv[1]).read_text("utf-8"))]
    print()
    print(json.dumps(ends))
