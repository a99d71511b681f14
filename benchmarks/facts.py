"""How many wrong facts are seen: references with one fact changed are looked at as summaries are.

    python benchmarks/facts.py --data FOLDER      dev.csv, test.csv with test_references.csv

For each kind of fact, how many of the changed references are flagged for what was changed, and how
many of the references as they are are flagged for that kind.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.errors import run_script
from dialsum.score.unseen import (
    exchange_speakers,
    find_facts,
    find_lacking,
    find_speaker_fit,
    words_of_speakers,
)
from dialsum.text import align

Change = Callable[[re.Match[str]], str]
COUNTED = "시간|달|번|개|마리|살|주|권|장|잔|병|대|가지|곳|년|박|시"
NEXT_WORD = dict(
    zip(
        ["두", "세", "네", "다섯", "여섯", "일곱"],
        ["세", "네", "다섯", "여섯", "일곱", "여덟"],
        strict=True,
    )
)
UNITS = {
    "달러": "위안",
    "위안": "달러",
    "원": "달러",
    "분": "시간",
    "시간": "분",
    "년": "개월",
    "개월": "년",
}
UNITS |= {
    "파운드": "달러",
    "퍼센트": "달러",
    "%": "달러",
    "킬로미터": "마일",
    "마일": "미터",
    "유로": "엔",
}
DAYS = {"오늘": "모레", "내일": "어제", "어제": "내일", "모레": "오늘"}
DAYS |= {
    "다음 주": "지난주",
    "지난주": "다음 주",
    "이번 주": "지난주",
    "작년": "내년",
    "내년": "작년",
}
WEEK = "월화수목금토일"
CHANGES: dict[str, tuple[str, Change]] = {
    "digits": (r"(?<!Person)(?<!\d)\d+", lambda found: str(int(found.group()) + 1)),
    "number words": (
        rf"(?<![가-힣])({'|'.join(NEXT_WORD)})(?= ?(?:{COUNTED})(?![가-힣]*(?:사람|명)))",
        lambda found: NEXT_WORD[found.group()],
    ),
    "morning or evening": (
        "오전|오후",
        lambda found: "오후" if found.group() == "오전" else "오전",
    ),
    "weekdays": (f"[{WEEK}]요일", lambda found: WEEK[WEEK.index(found.group()[0]) - 1] + "요일"),
    "relative days": ("|".join(DAYS), lambda found: DAYS[found.group()]),
    "units": (
        rf"(?<=\d) ?({'|'.join(UNITS)})",
        lambda found: found.group().replace(found[1], UNITS[found[1]]),
    ),
    "clock": (r"(?<!\d)(\d{1,2})(?=시(?!간))", lambda found: str(int(found.group()) % 12 + 1)),
}
KINDS = ("numbers", "units", "times")


def main(arguments: list[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    rows = list(read_rows(parser.parse_args(arguments).data))
    table = [["", "changed", "flagged for it", "flagged as they are"]]
    for name, (pattern, change) in CHANGES.items():
        changed = seen = false = 0
        for dialogue, summary in rows:
            before = flags(summary, dialogue)
            found = re.search(pattern, summary)
            if found is None:
                continue
            false += bool(before)
            wrong = summary[: found.start()] + change(found) + summary[found.end() :]
            changed += 1
            seen += bool(flags(wrong, dialogue) - before)
        table.append([name, str(changed), str(seen), str(false)])
    flagged = sum(bool(flags(summary, dialogue)) for dialogue, summary in rows)
    print("\n".join(align(table, left=(0,))))
    print(f"{flagged} of {len(rows)} references as they are are flagged for a number or a time")
    print(describe_speakers(rows))
    return 0


def describe_speakers(rows: list[tuple[str, str]]) -> str:
    """Say how well the words of speakers tell references from those with exchanged speakers."""
    right, wrong = [], []
    for dialogue, summary in rows:
        said = words_of_speakers(dialogue)
        for fits, text in ((right, summary), (wrong, exchange_speakers(summary, dialogue))):
            value, _ = find_speaker_fit(text, said)
            if not math.isnan(value):
                fits.append(value)
    above = sum((one > other) + (one == other) / 2 for one in right for other in wrong)
    return (
        f"speakers' words are their own: references {mean(right):.1f}, speakers exchanged "
        f"{mean(wrong):.1f}, AUC {above / len(right) / len(wrong):.2f}; {len(right)} rows tell"
    )


def read_rows(folder: Path) -> Iterator[tuple[str, str]]:
    """Give each dialogue with its summary."""
    tests = {row["fname"]: row["summary"] for row in read_csv(folder / "test_references.csv")}
    for row in read_csv(folder / "dev.csv"):
        yield row["dialogue"], row["summary"]
    for row in read_csv(folder / "test.csv"):
        yield row["dialogue"], tests[row["fname"]]


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def flags(summary: str, dialogue: str) -> set[tuple[str, str]]:
    """Return the numbers and times of a summary that its dialogue has not."""
    lacking = find_lacking(find_facts(summary), dialogue)
    return {(kind, fact) for kind in KINDS for fact in lacking[kind]}


if __name__ == "__main__":
    run_script(main)
