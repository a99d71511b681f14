"""Score anybody's predictions: ROUGE with recipe, floors, interval, and what it does not see.

    python scripts/score.py PREDICTIONS REFERENCES [REFERENCES2 …] [--train train.csv]
    python scripts/score.py A.csv dev.csv --compare B.csv C.csv
    python scripts/score.py --check-submission submission.csv --test test.csv

Files are CSV with the columns fname and summary, JSON Lines (.jsonl) with these keys, or one
summary a line (.txt); references may have summary1 … summaryN. Must not know how scores are made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import CommandLine, require_packages

if TYPE_CHECKING:
    from dialsum.score.rows import Rows


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandLine(
        prog="score.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="ROUGE of predictions against references, 0-100, with signature, interval, "
        "floors,\nand what it does not see.",
        epilog="Files: CSV (.tsv: tabs) with columns fname and summary, JSON Lines (.jsonl) with "
        "these\nkeys, or one summary a line (.txt). Exit status 2: files or arguments are not fit, "
        "with\nwhat to mend.",
    )
    add = parser.add_argument
    add(
        "predictions",
        type=Path,
        nargs="?",
        metavar="PREDICTIONS",
        help="what is scored; -: standard input",
    )
    add(
        "references",
        type=Path,
        nargs="*",
        metavar="REFERENCES",
        help="column summary, or summary1 … summaryN; several files are several references",
    )
    add(
        "--compare",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="more predictions of the same rows: which differences are real?",
    )
    add(
        "--tokenizer",
        choices=("mecab", "kiwi", "whitespace", "char", "english"),
        default="mecab",
        help="mecab: Korean morphemes, as the competition counts (default); kiwi: other morphemes; "
        "english: rouge_score's own, stemmer on",
    )
    add(
        "--tags",
        choices=("split", "one", "removed"),
        default="split",
        help="#Person1# and masks: text like any other (default), one token each, or taken out",
    )
    add(
        "--aggregate",
        choices=("mean", "max"),
        default="mean",
        help="of several references: the mean of their scores (default) or the best",
    )
    add(
        "--dialogues",
        type=Path,
        metavar="FILE",
        help="columns fname, dialogue; default: the references' own column",
    )
    add(
        "--columns",
        default="",
        metavar="OURS=NAME,…",
        help="what the files call fname, dialogue, summary or topic, as data.columns of a config: "
        "dialogue=text,summary=target; predictions may keep fname and summary",
    )
    add(
        "--train",
        type=Path,
        metavar="FILE",
        help="column summary: the constant floor is chosen from these",
    )
    add("--json", action="store_true", help="print the record instead of the table")
    add(
        "--html",
        type=Path,
        metavar="FILE.html",
        help="also write a page with the worst rows there; an older page is replaced",
    )
    add(
        "--per-row",
        type=Path,
        metavar="FILE.csv",
        help="also write every measure of every row there, of all systems",
    )
    add(
        "--check-submission",
        type=Path,
        metavar="FILE",
        help="say whether a submission is fit to hand in; needs --test; tags that --train has "
        "are right",
    )
    add("--test", type=Path, metavar="FILE", help="the test file: columns fname, dialogue")
    options = parser.parse_args(arguments)
    if options.html and options.html.suffix.lower() not in (".html", ".htm"):
        parser.error(f"--html {options.html}: give a name that ends in .html")
    if options.per_row and options.per_row.suffix.lower() != ".csv":
        parser.error(f"--per-row {options.per_row}: give a name that ends in .csv")
    for option, path in (("--html", options.html), ("--per-row", options.per_row)):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"{option} {path}: there is no folder {path.parent}")
    if options.check_submission:
        if options.predictions or options.compare:
            parser.error("--check-submission goes with --test alone, without predictions")
        if not options.test:
            parser.error("--check-submission needs --test FILE, the file that was predicted")
    elif options.test:
        parser.error("--test goes with --check-submission FILE")
    elif not options.references:
        parser.error("give PREDICTIONS and REFERENCES (see --help)")
    return options


def main(arguments: Sequence[str] | None) -> int:
    """Score, compare or check; returns the exit status."""
    options = parse_arguments(arguments)
    if options.predictions != Path("-"):
        return score(options)
    with TemporaryDirectory() as folder:
        text = sys.stdin.buffer.read()
        ending = "jsonl" if text.lstrip().startswith(b"{") else "csv"
        options.predictions = Path(folder) / f"stdin.{ending}"
        options.predictions.write_bytes(text)
        return score(options)


def score(options: argparse.Namespace) -> int:
    """Score, compare or check what is on disk; returns the exit status."""
    from dialsum.data.rows import read_columns
    from dialsum.files import check_files, dump_json, refuse_foreign

    options.columns = read_columns(options.columns)
    named = [
        options.predictions,
        *options.references,
        *options.compare,
        options.dialogues,
        options.train,
        options.check_submission,
        options.test,
    ]
    check_files(path for path in named if path)
    if options.html:
        from dialsum.score.show import is_page, write_page

        refuse_foreign(options.html, is_ours=is_page)
    if options.per_row:
        from dialsum.score.files import is_rows_table, write_rows

        refuse_foreign(options.per_row, is_ours=is_rows_table)
    if options.check_submission:
        check(options)
        return 0
    systems, train = read_systems(options)
    from dialsum.score.api import compare_reports, describe_rows, measure

    recipe = {key: getattr(options, key) for key in ("tokenizer", "tags", "aggregate")}
    measured = {
        name: measure(rows, train_summaries=train, **recipe) for name, rows in systems.items()
    }
    blocks = {name: describe_rows(one) for name, one in measured.items()}
    empty = {
        name: sum(not text.strip() for text in rows.predictions) for name, rows in systems.items()
    }
    compared = compare_reports(blocks) if len(blocks) > 1 else None
    if options.json:
        files = {"references": options.references}
        records = {
            name: {"predictions": name, "empty_predictions": empty[name], **block}
            for name, block in blocks.items()
        }
        told = {"comparison": compared, "systems": records} if compared else records.popitem()[1]
        print(dump_json({**files, **told}), end="")
    else:
        print_tables(blocks, compared, empty, systems, options)
    # Last: what is found stands on the screen, whatever becomes of a file.
    if options.html:
        write_page(options.html, blocks, compared, systems=systems)
    if options.per_row:
        columns = {
            f"{name} {title}" if compared else title: values
            for name, one in measured.items()
            for title, values in one.columns().items()
        }
        first = next(iter(systems.values()))
        names = [first.name(row) for row in range(len(first))]
        write_rows(options.per_row, names, columns)
    return 0


def read_systems(options: argparse.Namespace) -> tuple[dict[str, Rows], list[str] | None]:
    """Return the rows of every file of predictions by its name, and the train summaries; say what
    of all that was asked for is probably not what was meant."""
    from dialsum.score.files import read_predictions, read_references, read_train_summaries
    from dialsum.score.rouge import has_hangul

    references = read_references(
        options.references, dialogues=options.dialogues, columns=options.columns
    )
    systems = {
        name: read_predictions(path, references)
        for name, path in name_files([options.predictions, *options.compare]).items()
    }
    train = read_train_summaries(options.train, references) if options.train else None
    notes = []
    lacking = [name for name in references.summaries if name not in references.dialogues]
    if lacking and references.dialogues:
        notes.append(
            f"{len(lacking)} of {len(references.summaries)} rows have no dialogue (the first is "
            f"{lacking[0]!r}); what needs one leaves these rows out"
        )
    korean = any(has_hangul("".join(texts)) for texts in references.summaries.values())
    if options.tokenizer in ("mecab", "kiwi") and not korean:
        notes.append(
            "no reference has a Hangul letter: for English summaries --tokenizer english gives the "
            "figures that papers report"
        )
    if len(options.references) > 1:
        notes.append(
            f"{', '.join(map(str, options.references))} are taken as "
            f"{len(next(iter(references.summaries.values())))} references a row; to compare "
            "predictions: PREDICTIONS REFERENCES --compare FILE"
        )
    for name, rows in systems.items():
        if options.tokenizer == "english" and (korean or has_hangul("".join(rows.predictions))):
            notes.append(
                f"{name}: tokenizer english drops every Hangul letter; what is left of Korean text "
                "(tags, digits) scores high and says little; --tokenizer mecab counts it"
            )
        columns = zip(*rows.references, strict=True)
        if any(list(rows.predictions) == list(texts) for texts in columns):
            notes.append(f"{name} holds the very texts of a reference")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return systems, train


def name_files(paths: Sequence[Path]) -> dict[str, Path]:
    """Return each file by a short name: its own, or the nearest folder that tells it from others.

    Raises:
        UnfitError: the same file twice.
    """
    from dialsum.errors import UnfitError

    for parts in range(1, 1 + max(len(path.parts) for path in paths)):
        tails = [path.parts[-parts:] for path in paths]
        for names in ([tail[0] for tail in tails], ["/".join(tail) for tail in tails]):
            if len(set(names)) == len(paths):
                return dict(zip(names, paths, strict=True))
    raise UnfitError("the same predictions are named twice; a file cannot be compared with itself")


def print_tables(
    blocks: dict[str, Any],
    compared: dict[str, Any] | None,
    empty: dict[str, int],
    systems: dict[str, Rows],
    options: argparse.Namespace,
) -> None:
    """Print what a person reads, with what is missing beside it."""
    from dialsum.score.show import format_comparison, format_differing, format_scores

    against = ", ".join(map(str, options.references))
    name, first = next(iter(blocks.items()))
    print(f"{', '.join(blocks)} against {against}: {first['rows']} rows, scores 0-100\n")
    print(format_comparison(compared, blocks) if compared else format_scores(first, name=name))
    for line in format_differing(blocks, systems):
        print(line)
    for name, count in empty.items():
        if count:
            print(f"{name}: {count} predictions are empty and score 0")
    if "constant" not in first.get("floors", {}):
        print("no floor for constant: give --train FILE.csv, whose summaries it is chosen from")
    if "lead2" not in first.get("floors", {}):
        print(
            "no floor for lead-2, and nothing that needs dialogues: give --dialogues FILE.csv "
            "with fname and dialogue for every row"
        )
    if options.html:
        print(f"the worst rows of each measure: {options.html}")


def check(options: argparse.Namespace) -> None:
    """Check a submission against its test file; what is only odd is told.

    Raises:
        UnfitError: its form is not right, or a summary holds what none should.
    """
    from dialsum.config.schema import Columns
    from dialsum.data.rows import load_split
    from dialsum.data.submission import inspect_submission, say_unfit
    from dialsum.data.tags import loose_tags
    from dialsum.errors import UnfitError

    named: dict[str, Any] = {"columns": Columns(**options.columns), "option": "--columns "}
    test = load_split(options.test, kind="test", **named)
    train = load_split(options.train, kind="train", **named).rows if options.train else []
    known = {tag for row in train for tag in loose_tags(f"{row.dialogue}\n{row.summary}")}
    problems, remarks = inspect_submission(options.check_submission, test.rows, known=known)
    for remark in remarks.oddities:
        print(f"worth a look: {remark}")
    if problems or remarks.faults:
        raise UnfitError(say_unfit(options.check_submission, [*problems, *remarks.faults]))
    print(
        f"{options.check_submission}: fit to hand in: {len(test.rows):,} rows, ids, order and "
        "columns as they must be, no empty summary"
    )


if __name__ == "__main__":
    require_packages(__file__)
    from dialsum.errors import run_script

    run_script(main)
