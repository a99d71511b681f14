"""The three files of one experiment: read with all problems at once, held against each other.

Must not know tokens or models, nor what one file may hold (dialogues.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dialsum.data.dialogues import Kind, Split, check_splits, load_split
from dialsum.data.rows import UNFIT_DATA
from dialsum.errors import DataError


@dataclass(frozen=True)
class Splits:
    """The data of one experiment.

    Args:
        train, dev, test: the three files; test is None where nothing is to be predicted.
        notes: what the user should know of them, of each file and of the files together.
    """

    train: Split
    dev: Split
    test: Split | None
    notes: list[str]

    @property
    def present(self) -> list[Split]:
        """The splits that there are."""
        return [split for split in (self.train, self.dev, self.test) if split is not None]

    @property
    def sha256(self) -> dict[str, str]:
        """Hash of what the rows of each file say."""
        return {split.kind: split.sha256 for split in self.present}


def load_splits(
    train: Path,
    dev: Path,
    *,
    test: Path | None,
    max_train_rows: int | None = None,
    max_dev_rows: int | None = None,
    max_test_rows: int | None = None,
) -> Splits:
    """Read, clean and check the files of one experiment.

    Args:
        test: None where no submission is wanted.
        max_train_rows, max_dev_rows, max_test_rows: keep the first rows only.

    Raises:
        DataError: every problem of every file; if each is fit by itself, those between them.
    """
    asked: list[tuple[Kind, Path, int | None]] = [
        ("train", train, max_train_rows),
        ("dev", dev, max_dev_rows),
    ]
    if test is not None:
        asked.append(("test", test, max_test_rows))
    read: dict[Kind, Split] = {}
    problems: list[str] = []
    for kind, path, max_rows in asked:
        try:
            read[kind] = load_split(path, kind=kind, max_rows=max_rows)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems, summary=UNFIT_DATA)
    between = check_splits(read["train"], read["dev"], read.get("test"))
    notes = [note for split in read.values() for note in split.notes]
    return Splits(read["train"], read["dev"], read.get("test"), notes=[*notes, *between])
