"""AI-Hub's Korean dialogue summaries (한국어 대화 요약) as rows of a table.

Must not know how rows are cleaned or checked: the CSV is read like any other. The form:

    {"data": [{"header": {"dialogueInfo": {"dialogueID": …, "topic": …}},
               "body": {"dialogue": [{"participantID": "P01", "utterance": …}, …],
                        "summary": …}}, …]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dialsum.errors import DataError, raise_problems
from dialsum.files import read_text_file

_PARTICIPANT = re.compile(r"(?<![A-Za-z0-9])P\d{2}(?!\d)")


def read_dialogues(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Read files (JSON, JSON Lines), and the .json files of folders, in order.

    Returns:
        fname (its dialogueID), dialogue (a line for each utterance, `#Person1#: …`; speakers are
        numbered as they begin), topic, and the summary of those that have one.

    Raises:
        DataError: a file that cannot be read, is no JSON or not in this form; no dialogue at all.
    """
    rows: list[dict[str, str]] = []
    problems: list[str] = []
    for path in _find_files(paths):
        try:
            items = _read_items(read_text_file(path))
        except (ValueError, RecursionError) as error:
            problems.append(f"{path}: is no JSON: {error}")
            continue
        except DataError as error:
            problems += error.problems
            continue
        for number, item in enumerate(items, start=1):
            try:
                rows.append(_read_item(item))
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                fault = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
                problems.append(
                    f"{path}: dialogue {number} is not in AI-Hub's form (header.dialogueInfo."
                    f"dialogueID, body.dialogue with participantID and utterance): {fault}"
                )
    raise_problems(problems)
    if not rows:
        raise DataError([f"{', '.join(map(str, paths))}: holds no dialogue"])
    return rows


def _read_items(text: str) -> list[Any]:
    """Return the dialogues of one JSON text, or of several, as JSON Lines has them."""
    decoder = json.JSONDecoder()
    items: list[Any] = []
    place, end = 0, len(text.rstrip())
    while True:
        while text[place : place + 1].isspace():
            place += 1
        found, place = decoder.raw_decode(text, place)
        inner = found.get("data", [found]) if isinstance(found, dict) else found
        items += inner if isinstance(inner, list) else [inner]
        if place >= end:
            return items


def _find_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        # macOS leaves notes of its own beside files (`._a.json`) and in archives.
        inside = sorted(
            file
            for file in path.rglob("*.json")
            if not any(
                part.startswith(".") or part == "__MACOSX" for part in file.relative_to(path).parts
            )
        )
        if not inside:
            raise DataError([f"{path}: a folder without a .json file"])
        yield from inside


def _read_item(item: Any) -> dict[str, str]:
    info, body = item["header"]["dialogueInfo"], item["body"]
    numbers: dict[str, int] = {}
    lines = []
    for turn in body["dialogue"]:
        number = numbers.setdefault(turn["participantID"], len(numbers) + 1)
        lines.append(f"#Person{number}#: {' '.join(turn['utterance'].split())}")
    row = {
        "fname": str(info["dialogueID"]),
        "dialogue": "\n".join(lines),
        "topic": str(info.get("topic") or ""),
    }
    if (summary := body.get("summary")) is not None:  # speakers are called there as in the dialogue
        names = {participant: f"#Person{number}#" for participant, number in numbers.items()}
        row["summary"] = _PARTICIPANT.sub(lambda found: names.get(found[0], found[0]), summary)
    return row
