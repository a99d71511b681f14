"""scripts/score.py on files: the table, the record, and every refusal with exit status 2."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dialsum.errors import EXIT_UNFIT, run_script

PREDICTIONS = 'fname,summary\nd1,#Person1#은 역에 간다.\nd2,"둘은 저녁을\n먹는다."\n'
REFERENCES = (
    "fname,dialogue,summary\n"
    'd2,"#Person1#: 저녁 먹자.\n#Person2#: 그래.",둘은 점심을 먹는다.\n'
    "d1,#Person1#: 역에 가.,#Person1#은 역으로 간다.\n"
)
TRAIN = "fname,summary\nt1,#Person1#은 말한다.\nt2,#Person2#는 말한다.\n"


pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "scripts" / "score.py"
    spec = importlib.util.spec_from_file_location("score_script", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("pred.csv").write_text(PREDICTIONS, encoding="utf-8")
    Path("ref.csv").write_text(REFERENCES, encoding="utf-8")
    Path("train.csv").write_text(TRAIN, encoding="utf-8")
    return tmp_path


def run(script: ModuleType, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run_script(lambda _: int(script.main(list(arguments))))
    assert isinstance(caught.value.code, int)
    return caught.value.code


def spoil(**texts: str | bytes) -> None:
    for name, text in texts.items():
        Path(f"{name}.csv").write_bytes(text if isinstance(text, bytes) else text.encode())


REFUSED: list[tuple[str, dict[str, str | bytes], list[str], list[str]]] = [
    ("no rows", {"pred": "fname,summary\n"}, [], ["pred.csv", "no data row"]),
    ("empty file", {"ref": ""}, [], ["ref.csv", "is empty"]),
    ("missing column", {"pred": "fname,text\nd1,a\n"}, [], ["pred.csv:1", "'summary'"]),
    (
        "no summary in the references",
        {"ref": "fname,dialogue\nd1,a\n"},
        [],
        ["ref.csv:1", "'summary1'"],
    ),
    ("doubled fname", {"pred": "fname,summary\nd1,a\nd1,b\n"}, [], ["pred.csv:3", "line 2"]),
    ("empty fname", {"pred": "fname,summary\n ,a\nd2,b\n"}, [], ["pred.csv:2", "fname is empty"]),
    (
        "missing id",
        {"pred": "fname,summary\nd1,a\n"},
        [],
        ["1 of 2 ids of ref.csv are missing: 'd2'"],
    ),
    ("extra id", {"pred": PREDICTIONS + "d3,c\n"}, [], ["ref.csv does not have: 'd3'"]),
    ("empty reference", {"ref": "fname,summary\nd1,\nd2,b\n"}, [], ["ref.csv:2", "row 1", "empty"]),
    ("cp949", {"pred": PREDICTIONS.encode("cp949")}, [], ["pred.csv", "cp949"]),
    ("no file", {}, ["--train", "trian.csv"], ["trian.csv: no such file; did you mean train.csv?"]),
    (
        "other references",
        {"two": "fname,summary\nd1,a\n"},
        ["two.csv"],
        ["two.csv", "missing: 'd2'"],
    ),
    (
        "ids of the other split",
        {"pred": "fname,summary\nt1,a\nt2,b\n"},
        [],
        ["2 of 2 ids of ref.csv are missing", "predictions_dev.csv is of the dev rows"],
    ),
    (
        "dialogues lack one",
        {"dia": "fname,dialogue\nd1,a\n"},
        ["--dialogues", "dia.csv"],
        ["dia.csv", "'d2'"],
    ),
    (
        "train is the references",
        {},
        ["--train", "ref.csv"],
        ["2 of 2 rows are references", "other rows"],
    ),
    (
        "train is the references under other names",
        {"train": "fname,summary\nx1,둘은 점심을 먹는다.\nx2,#Person1#은 역으로 간다.\n"},
        ["--train", "train.csv"],
        ["2 of 2 references stand in it word for word"],
    ),
    (
        "empty train summary",
        {"train": "summary,x\n,1\n"},
        ["--train", "train.csv"],
        ["train.csv:2"],
    ),
]


@pytest.mark.parametrize(
    ("files", "arguments", "words"),
    [case[1:] for case in REFUSED],
    ids=[case[0] for case in REFUSED],
)
def test_refusals(
    script: ModuleType,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str | bytes],
    arguments: list[str],
    words: list[str],
) -> None:
    spoil(**files)
    assert run(script, "pred.csv", "ref.csv", *arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    for word in words:
        assert word in output.err


def test_the_table_names_what_floor_is_missing(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ref.csv").write_text("fname,summary\nd1,역\nd2,점심\n", encoding="utf-8")
    assert run(script, "pred.csv", "ref.csv") == 0
    output = capsys.readouterr().out
    assert "give --train" in output and "give --dialogues" in output
    assert "  constant" not in output and "  lead-2" not in output
    assert "another row's summary" in output


def test_the_table_has_both_floors_on_three_scales(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, "pred.csv", "ref.csv", "--train", "train.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 rows" in lines[0]
    assert sum(line.startswith("  lead-2 ") for line in lines) == 3
    assert sum(line.startswith("  constant ") for line in lines) == 3
    assert sum(line.startswith("rouge|tok:") for line in lines) == 3
    assert not any("give --" in line for line in lines)


def read_record(
    script: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, object]:
    assert run(script, *arguments, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert isinstance(record, dict)
    return record


def test_rows_are_matched_by_fname_not_by_order(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(pred="fname,summary\nb,둘\na,하나\n", ref="fname,summary\na,하나\nb,둘\n")
    record = read_record(script, capsys, "pred.csv", "ref.csv", "--tokenizer", "whitespace")
    assert record["rouge1"] == 100.0


@pytest.mark.parametrize(
    "pred",
    ["\ufefffname,summary\na,x\n", ",fname,summary\n0,a,x\n", "Unnamed: 0,fname,summary\n0,a,x\n"],
    ids=["BOM", "index column", "pandas' index column"],
)
def test_usual_forms_are_read(
    script: ModuleType, capsys: pytest.CaptureFixture[str], pred: str
) -> None:
    spoil(pred=pred, ref="fname,summary\na,x\n")
    assert read_record(script, capsys, "pred.csv", "ref.csv")["rouge1"] == 100.0


def test_references_in_columns_and_in_files_are_the_same(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(
        pred="fname,summary\na,x y\nb,z\n",
        one="fname,summary\na,x\nb,z w\n",
        two="fname,summary\nb,v\na,y x\n",
        both="fname,summary1,summary2\na,x,y x\nb,z w,v\n",
    )
    files = read_record(script, capsys, "pred.csv", "one.csv", "two.csv")
    columns = read_record(script, capsys, "pred.csv", "both.csv")
    for record in (files, columns):
        del record["references"]
    assert files == columns
    assert "|refs:2,mean|" in str(files["signature"])


def test_empty_predictions_score_zero_and_are_told(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(pred="fname,summary\nd1,\nd2,둘은 점심을 먹는다.\n")
    assert run(script, "pred.csv", "ref.csv") == 0
    assert "1 predictions are empty and score 0" in capsys.readouterr().out
    record = read_record(script, capsys, "pred.csv", "ref.csv")
    assert record["rouge1"] == 50.0 and record["empty_predictions"] == 1


def test_english_on_korean_is_warned_of(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, "pred.csv", "ref.csv", "--tokenizer", "english") == 0
    assert "drops every Hangul letter" in capsys.readouterr().err


def test_real_predictions_score_as_measured(
    script: ModuleType, shared_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On tags as one token: greedy 28.5, four beams with no_repeat_ngram_size 25.5."""
    folder = shared_dir / "data" / "ko"
    expected = {"gemma270m_lora_greedy": 28.5, "gemma270m_lora_beam4_norepeat4": 25.5}
    for name, score in expected.items():
        path = folder / "predictions" / f"{name}.csv"
        arguments = [str(path), str(folder / "dev.csv"), "--tags", "one"]
        record = read_record(script, capsys, *arguments)
        assert record["rouge_mean"] == pytest.approx(score, abs=0.1)


def test_json_lines_and_plain_lines_are_read(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("ref.jsonl").write_text(
        '{"fname": "a", "summary1": "x y", "summary2": "x", "topic1": "t"}\n'
        '{"fname": "b", "summary1": "z", "summary2": "w"}\n',
        encoding="utf-8",
    )
    Path("pred.txt").write_text("x y\n\n", encoding="utf-8")
    Path("pred.jsonl").write_text(
        '{"fname": "b", "summary": ""}\n{"fname": "a", "summary": "x y"}\n', encoding="utf-8"
    )
    asked = ("ref.jsonl", "--tokenizer", "whitespace")
    lines, objects = (
        read_record(script, capsys, name, *asked) for name in ("pred.txt", "pred.jsonl")
    )
    assert lines["rouge1"] == pytest.approx(100 * (1 + 2 / 3) / 4, abs=1e-3)
    assert {**lines, "predictions": ""} == {**objects, "predictions": ""}
    best = read_record(script, capsys, "pred.txt", *asked, "--aggregate", "max")
    assert best["rouge1"] == 50.0
    assert "|refs:2,max|" in str(best["signature"])


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("pred.jsonl", '{"fname": "d1"}\n', ["pred.jsonl:1", "no key 'summary'", "'fname'"]),
        ("pred.jsonl", "not json\n", ["pred.jsonl:1", "no JSON"]),
        ("pred.jsonl", "[1]\n", ["pred.jsonl:1", "no JSON object"]),
        ("pred.jsonl", "[" * 100_000 + "\n", ["pred.jsonl:1", "no JSON"]),
        ("pred.jsonl", '{"fname": "d1", "summary": "\\ud800"}\n', [":1", "half a character"]),
        ("pred.jsonl", '{"fname": "d1", "summary": ["a"]}\n', [":1", "no text"]),
        ("pred.jsonl", '{"fname": "d1", "summary": "a"}\n{"summary": "b"}\n', [":2", "no fname"]),
        ("pred.txt", "one\n", ["pred.txt has 1 rows and ref.csv 2"]),
        ("pred.txt", "", ["pred.txt", "empty"]),
    ],
)
def test_other_files_are_refused_by_line(
    script: ModuleType, capsys: pytest.CaptureFixture[str], name: str, text: str, words: list[str]
) -> None:
    Path(name).write_text(text, encoding="utf-8")
    assert run(script, name, "ref.csv") == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error


def test_a_comparison_says_which_difference_is_real(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = 30
    spoil(
        ref="fname,summary\n" + "".join(f"r{row},둘은 {row}번 역에 간다.\n" for row in range(rows)),
        good="fname,summary\n" + "".join(f"r{row},둘은 역에 간다.\n" for row in range(rows)),
        bad="fname,summary\n" + "".join(f"r{row},<b>모른다\u202e\x9b\n" for row in range(rows)),
    )
    asked = ("bad.csv", "ref.csv", "--compare", "good.csv", "--html", "page.html")
    assert run(script, *asked) == 0
    output = capsys.readouterr().out
    assert output.index("1  good.csv") < output.index("2  bad.csv")
    assert "good.csv is ahead of bad.csv by" in output and "p = 0.0001: REAL" in output
    assert output.splitlines()[2] == "Best on the scale asked for: good.csv."
    page = Path("page.html").read_text(encoding="utf-8")
    assert "good.csv is ahead of bad.csv by" in page and "What ROUGE does not see" in page
    assert "http" not in page
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert not {"\u202e", "\x9b"} & set(page) and "모른다\\u202e\\x9b" in page
    # The worst rows can be judged: their references stand beside them.
    assert "둘은 0번 역에 간다." in page
    Path("page.html").write_text(page + "<!-- older -->", encoding="utf-8")
    Path("thesis.html").write_text("<!doctype html><title>mine</title>", encoding="utf-8")
    assert run(script, *asked[:-1], "thesis.html") == EXIT_UNFIT
    assert "thesis.html: was not written by this command" in capsys.readouterr().err
    assert "mine" in Path("thesis.html").read_text(encoding="utf-8")
    assert run(script, *asked, "--json") == 0
    record = json.loads(capsys.readouterr().out)
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


def test_what_was_probably_not_meant_is_said(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(other="fname,summary\nd1,역에 간다.\nd2,먹는다.\n")
    assert run(script, "pred.csv", "other.csv", "ref.csv") == 0
    assert "2 references a row; to compare predictions" in capsys.readouterr().err
    assert run(script, "ref.csv", "ref.csv") == 0
    assert "the very texts of a reference" in capsys.readouterr().err
    spoil(pred="fname,summary\nd1,Go home.\n", ref="fname,summary\nd1,Go now.\n")
    assert run(script, "pred.csv", "ref.csv") == 0
    assert "--tokenizer english" in capsys.readouterr().err


def test_an_unfit_submission_is_told_all_at_once(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(
        test="fname,dialogue\nt1,#Person1#: 네\nt2,#Person1#: 네\n",
        bad=",fname,summary\n0,t1,답한다.</s>\n",
    )
    assert run(script, "--check-submission", "bad.csv", "--test", "test.csv") == 2
    error = capsys.readouterr().err
    assert "no row for fname 't2'" in error and "special tokens" in error


def test_a_submission_is_checked(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(
        test="fname,dialogue\nt1,#Person1#: 네\nt2,#Person1#: 네\n",
        fit=",fname,summary\n0,t1,#Person1#은 답한다.\n1,t2,둘은 답한다.\n",
        unfit=",fname,summary\n0,t2,답한다.\n1,t1,\n",
        odd=",fname,summary\n0,t1,답한다.</s>\n1,t2,둘은 답한다.\n",
    )
    asked = ("--test", "test.csv")
    assert run(script, "--check-submission", "fit.csv", *asked) == 0
    assert "fit.csv: fit to hand in: 2 rows" in capsys.readouterr().out
    assert run(script, "--check-submission", "unfit.csv", *asked) == 2
    error = capsys.readouterr().err
    assert "order must be that" in error and "'t1' is empty" in error
    assert run(script, "--check-submission", "odd.csv", *asked) == 2
    assert "special tokens (</s>)" in capsys.readouterr().err


def test_every_missing_file_is_named_and_no_option_that_there_is_not(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["a.csv", "b.csv", "--compare", "c.csv", "--train", "d.csv", "--dialogues", "e.csv"]
    assert run(script, *asked) == 2
    error = capsys.readouterr().err
    assert [f"{name}.csv: no such file" in error for name in "abcde"] == [True] * 5
    spoil(sub=",fname,summary\n0,t1,가.\n")
    assert run(script, "--check-submission", "sub.csv", "--test", "tset.csv") == 2
    error = capsys.readouterr().err
    assert "tset.csv: no such file" in error
    assert "--data-dir" not in error and "--set" not in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--check-submission", "x.csv"), "needs --test"),
        (("--test", "x.csv"), "--check-submission"),
        (("pred.csv",), "PREDICTIONS and REFERENCES"),
        (("pred.csv", "ref.csv", "--check-submission", "a", "--test", "b"), "without predictions"),
        (("pred.csv", "ref.csv", "--html", "pred.csv"), "ends in .html"),
        (("pred.csv", "ref.csv", "--html", "nowhere/page.html"), "no folder nowhere"),
    ],
)
def test_options_that_do_not_go_together(
    script: ModuleType, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert run(script, *words) == 2
    assert said in capsys.readouterr().err


def test_it_runs_as_a_command(repository: Path) -> None:
    script = [sys.executable, str(repository / "scripts" / "score.py")]
    done = subprocess.run([*script, "pred.csv", "ref.csv"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rouge|tok:mecab-ko-" in done.stdout
    failed = subprocess.run([*script, "nowhere.csv", "ref.csv"], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "nowhere.csv: no such file" in failed.stderr and "Traceback" not in failed.stderr
    unasked = subprocess.run([*script, "--tags", "whole"], capture_output=True, text=True)
    assert unasked.returncode == 2


def test_the_table_of_the_docs_is_what_the_command_prints(
    repository: Path, shared_dir: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/calibration.py", "--data", str(shared_dir / "data" / "ko")],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    _, _, table = done.stdout.partition("\n\n")
    assert "| lead-2 |" in table
    for page in ("docs/scores.md", "docs/ko/scores.md"):
        text = (repository / page).read_text(encoding="utf-8")
        assert table.strip() in text, f"{page} has other figures than: {done.args}"
