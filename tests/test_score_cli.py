"""scripts/score.py on files: the table, the record, and every refusal with exit status 2."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dialsum.errors import run_script

FILES: dict[str, str | bytes] = {
    "pred.csv": 'fname,summary\nd1,#Person1#은 역에 간다.\nd2,"둘은 저녁을\n먹는다."\n',
    "ref.csv": "fname,dialogue,summary\n"
    'd2,"#Person1#: 저녁 먹자.\n#Person2#: 그래.",둘은 점심을 먹는다.\n'
    "d1,#Person1#: 역에 가.,#Person1#은 역으로 간다.\n",
    "train.csv": "fname,summary\nt1,#Person1#은 말한다.\nt2,#Person2#는 말한다.\n",
    "test.csv": "fname,dialogue\nt1,#Person1#: 네\nt2,#Person1#: 네\n",
}
ASKED = ("pred.csv", "ref.csv")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "scripts" / "score.py"
    spec = importlib.util.spec_from_file_location("score_script", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Return a function that runs the script in a folder of FILES: status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    write(FILES)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_script(lambda _: int(script.main(list(arguments))))
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run


def write(files: dict[str, str | bytes]) -> None:
    for name, text in files.items():
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())


def read_record(run: Run, *arguments: str) -> dict[str, Any]:
    status, output, _ = run(*arguments, "--json")
    assert status == 0
    record: dict[str, Any] = json.loads(output)
    return record


HEAD = "fname,summary\n"
OTHER_NAMES = HEAD + "x1,둘은 점심을 먹는다.\nx2,#Person1#은 역으로 간다.\n"
REFUSED: list[tuple[dict[str, str | bytes], str, list[str]]] = [
    ({"pred.csv": HEAD}, "", ["pred.csv", "no data row"]),
    ({"ref.csv": ""}, "", ["ref.csv", "is empty"]),
    ({"pred.csv": "fname,text\nd1,a\n"}, "", ["pred.csv:1", "'summary'"]),
    ({"ref.csv": "fname,dialogue\nd1,a\n"}, "", ["ref.csv:1", "'summary1'", "--columns fname="]),
    ({"ref.csv": "id,text\nd1,a\n"}, "", ["ref.csv:1", "read with --columns fname=NAME"]),
    ({"pred.csv": HEAD + "d1,a\nd1,b\n"}, "", ["pred.csv:3", "line 2"]),
    ({"pred.csv": HEAD + " ,a\nd2,b\n"}, "", ["pred.csv:2", "fname is empty"]),
    ({"pred.csv": HEAD + "d1,a\n"}, "", ["1 of 2 ids of ref.csv are missing: 'd2'"]),
    ({"pred.csv": HEAD + "d1,a\nd2,b\nd3,c\n"}, "", ["1 id that ref.csv does not have: 'd3'"]),
    ({"ref.csv": HEAD + "d1,\nd2,b\n"}, "", ["ref.csv:2", "row 1", "empty"]),
    ({"pred.csv": (HEAD + "d1,가\n").encode("cp949")}, "", ["pred.csv", "cp949"]),
    ({}, "--train trian.csv", ["trian.csv: no such file; did you mean train.csv?"]),
    ({"two.csv": HEAD + "d1,a\n"}, "two.csv", ["two.csv", "missing: 'd2'"]),
    ({"two.txt": "a\nb\n"}, "two.txt", ["ref.csv and two.txt: one has fname"]),
    (
        {"pred.csv": HEAD + "t1,a\nt2,b\n"},
        "",
        ["2 of 2 ids of ref.csv are missing", "predictions_dev.csv is of the dev rows"],
    ),
    ({"dia.csv": "fname,dialogue\nd1,a\n"}, "--dialogues dia.csv", ["dia.csv", "'d2'"]),
    ({}, "--train ref.csv", ["2 of 2 rows are references", "other rows"]),
    ({"train.csv": OTHER_NAMES}, "--train train.csv", ["2 of 2 references stand in it word for"]),
    ({"train.csv": "summary,x\n,1\n"}, "--train train.csv", ["train.csv:2"]),
    ({}, "--compare pred.csv", ["the same predictions are named twice"]),
]


@pytest.mark.parametrize(("files", "arguments", "words"), REFUSED)
def test_refusals(
    run: Run, files: dict[str, str | bytes], arguments: str, words: list[str]
) -> None:
    write(files)
    status, output, error = run(*ASKED, *arguments.split())
    assert (status, output) == (2, "")
    assert error.startswith("error: ")
    assert [word for word in words if word not in error] == []


ROW = '{"fname": "d1", "summary": '


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("pred.jsonl", '{"fname": "d1"}\n', ["pred.jsonl:1", "no key 'summary'", "'fname'"]),
        ("pred.jsonl", "not json\n", ["pred.jsonl:1", "no JSON"]),
        ("pred.jsonl", "[1]\n", ["pred.jsonl:1", "no JSON object"]),
        ("pred.jsonl", "[" * 100_000 + "\n", ["pred.jsonl:1", "no JSON"]),
        ("pred.jsonl", ROW + '"\\ud800"}\n', [":1", "half a character"]),
        ("pred.jsonl", ROW + '["a"]}\n', [":1", "no text"]),
        ("pred.jsonl", ROW + '"a"}\n{"summary": "b"}\n', [":2", "no fname"]),
        ("pred.txt", "one\n", ["pred.txt has 1 rows and ref.csv 2"]),
        ("pred.txt", "", ["pred.txt", "empty"]),
    ],
)
def test_other_files_are_refused_by_line(run: Run, name: str, text: str, words: list[str]) -> None:
    write({name: text})
    status, _, error = run(name, "ref.csv")
    assert status == 2
    assert [word for word in words if word not in error] == []


def test_the_table_has_floors_on_three_scales_or_says_how_to_get_them(run: Run) -> None:
    status, output, _ = run(*ASKED, "--train", "train.csv")
    lines = output.splitlines()
    assert status == 0 and "2 rows" in lines[0]
    beside = sum(line.startswith(("content: ", "meaning: ")) for line in lines)
    for start, count in (("  lead-2 ", 3 + beside), ("  constant ", 3 + beside), ("rouge|tok:", 3)):
        assert sum(line.startswith(start) for line in lines) == count, start
    assert any(line.startswith("  content|tok:") and "idf:train" in line for line in lines)
    assert "give --" not in output
    write({"ref.csv": HEAD + "d1,역\nd2,점심\n"})
    _, output, _ = run(*ASKED)
    assert "give --train" in output and "give --dialogues" in output
    assert "  constant" not in output and "  lead-2" not in output
    assert "another row's summary" in output
    write({"ref.csv": "fname,summary,dialogue\nd1,역,\nd2,점심,#Person1#: 네\n"})
    _, output, error = run(*ASKED)
    assert "give --dialogues" not in output and "  lead-2" in output
    assert "note: 1 of 2 rows have no dialogue (the first is 'd1'); what needs one" in error


def test_references_in_columns_and_in_files_are_the_same(run: Run) -> None:
    write(
        {
            "pred.csv": HEAD + "a,x y\nb,z\n",
            "one.csv": HEAD + "a,x\nb,z w\n",
            "two.csv": HEAD + "b,v\na,y x\n",
            "both.csv": "fname,summary1,summary2\na,x,y x\nb,z w,v\n",
        }
    )
    files = read_record(run, "pred.csv", "one.csv", "two.csv")
    columns = read_record(run, "pred.csv", "both.csv")
    assert {**files, "references": ""} == {**columns, "references": ""}
    assert "|refs:2,mean|" in files["signature"]


def test_json_lines_and_plain_lines_are_read(run: Run) -> None:
    write(
        {
            "ref.jsonl": '{"fname": "a", "summary1": "x y", "summary2": "x", "topic1": "t"}\n'
            '{"fname": "b", "summary1": "z", "summary2": "w"}\n',
            "pred.txt": "x y\n\n",
            "pred.jsonl": '{"fname": "b", "summary": null}\n{"fname": "a", "summary": "x y"}\n',
        }
    )
    asked = ("ref.jsonl", "--tokenizer", "whitespace")
    lines, objects = (read_record(run, name, *asked) for name in ("pred.txt", "pred.jsonl"))
    assert lines["rouge1"] == pytest.approx(100 * (1 + 2 / 3) / 4, abs=1e-3)
    assert {**lines, "predictions": ""} == {**objects, "predictions": ""}
    best = read_record(run, "pred.txt", *asked, "--aggregate", "max")
    assert best["rouge1"] == 50.0 and "|refs:2,max|" in best["signature"]


OWN_NAMES: dict[str, str | bytes] = {
    "own.csv": "id,text,target,summary\nd1,#Person1#: 역에 가.,#Person1#은 역으로 간다.,no\n"
    'd2,"#Person1#: 저녁 먹자.\n#Person2#: 그래.",둘은 점심을 먹는다.,no\n',
    "own.jsonl": '{"id": "d1", "text": "#Person1#: 역에 가.", '
    '"target": "#Person1#은 역으로 간다."}\n'
    '{"id": "d2", "text": "#Person1#: 저녁 먹자.\\n#Person2#: 그래.", '
    '"target": "둘은 점심을 먹는다."}\n',
    "own_pred.csv": 'id,target\nd1,#Person1#은 역에 간다.\nd2,"둘은 저녁을\n먹는다."\n',
    # Beside our own summary, a column under the data's name is the reference.
    "both_pred.csv": "id,target,summary\nd1,#Person1#은 역으로 간다.,#Person1#은 역에 간다.\n"
    'd2,둘은 점심을 먹는다.,"둘은 저녁을\n먹는다."\n',
    "pred.txt": "#Person1#은 역에 간다.\n둘은 저녁을 먹는다.\n",
    "own_train.csv": "id,target\nt1,#Person1#은 말한다.\nt2,#Person2#는 말한다.\n",
    "nameless.csv": "target\n#Person1#은 말한다.\n",
    "own_test.csv": "id,text\nt1,#Person1#: 네\nt2,#Person1#: 네\n",
    "sub.csv": ",fname,summary\n0,t1,#Person1#은 답한다.\n1,t2,둘은 답한다.\n",
}
COLUMNS = ("--columns", "fname=id, dialogue=text,summary=target")


def test_columns_under_their_own_names_score_the_same(run: Run) -> None:
    write(OWN_NAMES)
    usual = read_record(run, *ASKED, "--train", "train.csv")
    for pred, ref in (
        ("pred.csv", "own.csv"),
        ("own_pred.csv", "own.jsonl"),
        ("both_pred.csv", "own.csv"),
    ):
        found = read_record(run, pred, ref, "--train", "own_train.csv", *COLUMNS)
        # The rows stand in another order, which draws other resamples.
        for key in ("rouge1", "rouge2", "rougeL", "rougeLsum", "precision", "signature"):
            assert found[key] == usual[key], (pred, key)
        assert found["floors"].keys() == usual["floors"].keys()
    own = ("pred.csv", "own.csv", *COLUMNS)
    assert read_record(run, *own, "--dialogues", "own.csv") == read_record(run, *own)
    # A dialogue stands with the first references, or in a file of its own.
    for words in ("own.csv", "own.csv own_pred.csv", "own_pred.csv --dialogues own.csv"):
        status, output, _ = run("pred.txt", *words.split(), *COLUMNS)
        assert status == 0 and "  lead-2 " in output, words
    status, output, _ = run("--check-submission", "sub.csv", "--test", "own_test.csv", *COLUMNS)
    assert status == 0 and "fit to hand in: 2 rows" in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("pred.csv ref.csv --columns fname=id", ["ref.csv:1", "--columns asks for 'id' for fname"]),
        ("pred.csv own.csv --columns fname=id,summary=goal", ["own.csv:1  no column 'goal'"]),
        (
            "pred.csv own.csv --columns fname=id,summary=target,topic=theme",
            ["own.csv:1  no column 'theme'", "--columns asks for", "'theme' for topic"],
        ),
        (
            "pred.csv own.csv --train train.csv --columns fname=id,summary=target",
            ["train.csv:1", "--columns asks for 'id' for fname"],
        ),
        (
            "pred.csv own.csv --train nameless.csv --columns fname=id,summary=target",
            ["nameless.csv:1  no column 'id'"],
        ),
        (
            "--check-submission sub.csv --test own_test.csv --columns dialogue=text",
            ["own_test.csv:1  no column 'fname'", "; --columns asks for 'text' for dialogue"],
        ),
        (
            "--check-submission sub.csv --test own_test.csv",
            ["own_test.csv:1", "read with --columns dialogue=NAME"],
        ),
        ("pred.csv ref.csv --columns fnmae=id", ["'fnmae=id': write fname=NAME, dialogue=NAME"]),
        ("pred.csv ref.csv --columns summary=", ["write fname=NAME"]),
        ("pred.csv ref.csv --columns summary=x,dialogue=x", ["names one column twice"]),
        ("pred.csv ref.csv --columns summary=dialogue", ["names one column twice"]),
    ],
)
def test_columns_that_are_not_there_are_refused(run: Run, words: str, said: list[str]) -> None:
    write(OWN_NAMES)
    status, output, error = run(*words.split())
    assert (status, output) == (2, "")
    assert [one for one in said if one not in error] == []


def test_empty_predictions_score_zero_and_are_told(run: Run) -> None:
    write({"pred.csv": HEAD + "d1,\nd2,둘은 점심을 먹는다.\n"})
    assert "1 predictions are empty and score 0" in run(*ASKED)[1]
    record = read_record(run, *ASKED)
    assert record["rouge1"] == 50.0 and record["empty_predictions"] == 1


def test_what_was_probably_not_meant_is_said(run: Run) -> None:
    assert "drops every Hangul letter" in run(*ASKED, "--tokenizer", "english")[2]
    write({"other.csv": HEAD + "d1,역에 간다.\nd2,먹는다.\n"})
    assert "2 references a row; to compare" in run("pred.csv", "other.csv", "ref.csv")[2]
    assert "the very texts of a reference" in run("ref.csv", "ref.csv")[2]
    write({"pred.csv": HEAD + "d1,Go home.\n", "ref.csv": HEAD + "d1,Go now.\n"})
    assert "--tokenizer english" in run(*ASKED)[2]


def test_real_predictions_score_as_measured(run: Run, shared_dir: Path) -> None:
    """On tags as one token: greedy 28.5, four beams with no_repeat_ngram_size 25.5."""
    folder = shared_dir / "data" / "ko"
    for name, score in (("greedy", 28.5), ("beam4_norepeat4", 25.5)):
        path = folder / "predictions" / f"gemma270m_lora_{name}.csv"
        record = read_record(run, str(path), str(folder / "dev.csv"), "--tags", "one")
        assert record["rouge_mean"] == pytest.approx(score, abs=0.1)


def test_a_comparison_says_which_difference_is_real(run: Run) -> None:
    def table(text: str) -> str:
        return HEAD + "".join(f"r{row},{text.format(row)}\n" for row in range(30))

    write(
        {
            "ref.csv": table("둘은 {}번 역에 간다."),
            "good.csv": table("둘은 역에 간다."),
            "bad.csv": table("<b>모른다\u202e\x9b"),
        }
    )
    asked = ("bad.csv", "ref.csv", "--compare", "good.csv", "--html")
    status, output, _ = run(*asked, "page.html")
    assert status == 0
    assert output.index("1  good.csv") < output.index("2  bad.csv")
    assert "good.csv is ahead of bad.csv by" in output and "p = 0.0001: REAL" in output
    assert output.splitlines()[2] == "Best on the scale asked for: good.csv."
    page = Path("page.html").read_text(encoding="utf-8")
    assert "good.csv is ahead of bad.csv by" in page and "What ROUGE does not see" in page
    assert "http" not in page
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert not {"\u202e", "\x9b"} & set(page) and "모른다\\u202e\\x9b" in page
    # The worst rows can be judged: their references stand beside them.
    assert "<td>둘은 0번 역에 간다.</td>" in page
    # An older page is replaced, somebody else's is not.
    thesis = page.replace("<title>Scores", "<title>mine")
    write({"page.html": page + "<!-- older -->", "thesis.html": thesis})
    status, _, error = run(*asked, "thesis.html")
    assert status == 2 and "thesis.html: was not written by this command" in error
    assert "mine" in Path("thesis.html").read_text(encoding="utf-8")
    record = read_record(run, *asked, "page.html")
    assert Path("page.html").read_text(encoding="utf-8") == page
    assert set(record["systems"]) == {"good.csv", "bad.csv"}
    assert record["comparison"]["scales"]["asked"]["differences"][0]["real"] is True


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.csv"], ["a.csv"]),
        (["x/a.csv", "x/b.csv"], ["a.csv", "b.csv"]),
        (["runs/one/results/p.csv", "runs/two/results/p.csv"], ["one", "two"]),
        (["one/p.csv", "p.csv"], ["one", "p.csv"]),
    ],
)
def test_systems_have_short_names(script: ModuleType, paths: list[str], names: list[str]) -> None:
    assert list(script.name_files([Path(path) for path in paths])) == names


@pytest.mark.parametrize(
    ("submission", "words"),
    [
        ("0,t1,#Person1#은 답한다.\n1,t2,둘은 답한다.\n", ["sub.csv: fit to hand in: 2 rows"]),
        ("0,t2,답한다.\n1,t1,\n", ["order must be that", "'t1' is empty"]),
        (
            "0,t1,답한다.</s>\n",
            ["no row for 1 of 2 fnames of the test file: 't2'", "special tokens (</s>)"],
        ),
    ],
)
def test_a_submission_is_checked(run: Run, submission: str, words: list[str]) -> None:
    write({"sub.csv": ",fname,summary\n" + submission})
    status, output, error = run("--check-submission", "sub.csv", "--test", "test.csv")
    assert status == (0 if "fit to hand in" in words[0] else 2)
    assert [word for word in words if word not in output + error] == []


def test_every_missing_file_is_named_and_no_option_that_there_is_not(run: Run) -> None:
    asked = ["a.csv", "b.csv", "--compare", "c.csv", "--train", "d.csv", "--dialogues", "e.csv"]
    status, _, error = run(*asked)
    assert status == 2
    assert [f"{name}.csv: no such file" in error for name in "abcde"] == [True] * 5
    status, _, error = run("--check-submission", "pred.csv", "--test", "tset.csv")
    assert status == 2 and "tset.csv: no such file" in error
    assert "--data-dir" not in error and "--set" not in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--check-submission x.csv", "needs --test"),
        ("--test x.csv", "--check-submission"),
        ("pred.csv", "PREDICTIONS and REFERENCES"),
        ("pred.csv ref.csv --check-submission a --test b", "without predictions"),
        ("pred.csv ref.csv --html pred.csv", "ends in .html"),
        ("pred.csv ref.csv --html nowhere/page.html", "no folder nowhere"),
        ("pred.csv ref.csv --tags whole", "invalid choice"),
    ],
)
def test_options_that_do_not_go_together(run: Run, words: str, said: str) -> None:
    status, _, error = run(*words.split())
    assert status == 2 and said in error


@pytest.mark.usefixtures("run")
def test_it_runs_as_a_command(repository: Path) -> None:
    script = [sys.executable, str(repository / "scripts" / "score.py")]
    done = subprocess.run([*script, *ASKED], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rouge|tok:mecab-ko-" in done.stdout
    failed = subprocess.run([*script, "nowhere.csv", "ref.csv"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "nowhere.csv: no such file" in failed.stderr and "Traceback" not in failed.stderr


@pytest.mark.parametrize("more", [(), ("--measures",)], ids=["scales", "measures"])
def test_the_tables_of_the_docs_are_what_the_command_prints(
    repository: Path, shared_dir: Path, more: tuple[str, ...]
) -> None:
    data = shared_dir / "data" / "ko"
    command = [sys.executable, "benchmarks/calibration.py", "--data", data, *more]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    table = done.stdout if more else done.stdout.partition("\n\n")[2]
    assert "| lead-2 |" in table
    for page in ("docs/scores.md", "docs/ko/scores.md"):
        text = (repository / page).read_text(encoding="utf-8")
        assert table.strip() in text, f"{page} has other figures than: {done.args}"


def test_every_measure_of_every_row_can_be_had(run: Run) -> None:
    status, _, _ = run(*ASKED, "--per-row", "rows.csv")
    assert status == 0
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    block = read_record(run, *ASKED)
    assert [row["fname"] for row in rows] == ["d2", "d1"]
    for title, values in block["per_row"].items():
        assert [float(row[title]) for row in rows] == pytest.approx(values, abs=1e-3)
    assert [float(row["content"]) for row in rows] == pytest.approx(
        block["content"]["per_row"]["f1"], abs=1e-3
    )
    assert rows[0]["names_missed"] == ""  # a row that has nothing to measure
    write({"bad.csv": HEAD + "d1,없다.\nd2,없다.\n"})
    asked = (*ASKED, "--compare", "bad.csv", "--per-row", "rows.csv")
    status, output, _ = run(*asked)
    assert status == 0 and "rows where pred.csv and bad.csv differ most" in output
    head = Path("rows.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert {"bad.csv rouge_mean", "pred.csv rouge_mean"} <= set(head)
    before = Path("pred.csv").read_bytes()
    status, _, error = run(*ASKED, "--per-row", "pred.csv")
    assert status == 2 and "was not written by this command" in error
    assert Path("pred.csv").read_bytes() == before


@pytest.mark.usefixtures("run")
def test_a_page_that_cannot_be_written_does_not_cost_the_scores() -> None:
    # No file may grow beyond 2 KiB; Python turns the signal into an error.
    script = Path(__file__).resolve().parent.parent / "scripts" / "score.py"
    command = f"ulimit -f 2; exec {sys.executable} {script} pred.csv ref.csv --html page.html"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 1 and "page.html" in done.stderr
    assert "Traceback" not in done.stderr
    assert "mecab-ko" in done.stdout


def test_faults_of_form_are_told_with_the_score_without_them(run: Run) -> None:
    text = "#Person1# 은 역으로 간다.</s>"
    write({"pred.csv": f"{HEAD}d1,{text}\nd2,둘은\u200b 점심을 먹는다.\n"})
    status, output, _ = run(*ASKED)
    assert status == 0
    assert "faults of form in 2 of 2 rows: a blank between a tag and its particle (" in output
    assert "on whitespace 100.00 (" in output
    form = read_record(run, *ASKED)["form"]
    assert form["faults"] == {"gap": 1, "special": 1, "invisible": 1}
    write({"pred.csv": f"{HEAD}d1,#Person1#은 역으로 간다.\nd2,둘은 점심을 먹는다.\n"})
    assert "form" not in read_record(run, *ASKED)


def test_the_page_shows_a_chart_and_rows_side_by_side(run: Run) -> None:
    write({"bad.csv": HEAD + "d1,<script>없다.\nd2,없다.\n"})
    status, _, _ = run(*ASKED, "--compare", "bad.csv", "--html", "page.html")
    assert status == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert '<meta name="viewport"' in page and "<svg " in page
    assert "rows where pred.csv and bad.csv differ most" in page
    for sort in ("best", "middling", "worst"):
        assert page.count(f"<summary>{sort} rows, by the mean asked for</summary>") == 2
    assert "<script>" not in page and "&lt;script&gt;없다." in page
    # A paragraph is one: a narrow screen breaks it where it likes.
    assert re.search(r"<p>REAL: [^<]*stands alone\.\)</p>", page)


@pytest.mark.usefixtures("run")
def test_predictions_come_from_standard_input_and_tabs_part_cells() -> None:
    script = [sys.executable, str(Path(__file__).resolve().parent.parent / "scripts" / "score.py")]
    text = Path("pred.csv").read_text(encoding="utf-8")
    expected, given = (
        json.loads(subprocess.check_output([*script, *asked, "--json"], input=text, text=True))
        for asked in (ASKED, ("-", "ref.csv"))
    )
    assert given | {"predictions": "pred.csv"} == expected
    write({"pred.tsv": "fname\tsummary\nd1\t#Person1#은 역에, 간다.\nd2\t둘은 간다.\n"})
    tabs = subprocess.run([*script, "pred.tsv", "ref.csv"], capture_output=True, text=True)
    assert tabs.returncode == 0 and "2 rows" in tabs.stdout
