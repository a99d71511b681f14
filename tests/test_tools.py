"""Tools over checkpoints: what each writes is a checkpoint that plain transformers loads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foreign_tokenizer import foreign
from small_models import SAMPLE, read_weights, write_checkpoint
from trainer_runs import REPOSITORY, command, environment, read_summaries, run

pytestmark = pytest.mark.training

PLAIN = """
import json, sys, torch, transformers
transformers.logging.set_verbosity_error()
folder, text, pieces = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
ids = tokenizer(text, return_tensors="pt").input_ids
with torch.inference_mode():
    logits = model(input_ids=ids, labels=ids).logits[0, -1]
rows = tokenizer.convert_tokens_to_ids(pieces)
assert "dialsum" not in sys.modules
print(json.dumps({"pieces": tokenizer.convert_ids_to_tokens(ids[0]),
                  "logits": logits[rows].tolist(), "rows": len(logits)}))
"""
TEXT = "안녕하세요. 오늘 회의는 3시입니다."


def tool(name: str, *arguments: object, **values: str) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts."""
    return run([sys.executable, str(REPOSITORY / "scripts" / name), *map(str, arguments)], **values)


def plain(folder: Path, pieces: list[str], where: Path) -> dict[str, Any]:
    """Return what transformers alone, in another folder, makes of a checkpoint."""
    line = [sys.executable, "-c", PLAIN, str(folder), TEXT, json.dumps(pieces)]
    done = subprocess.run(
        line, cwd=where, env=environment(PYTHONPATH=""), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("sort", ["mt5", "t5"])
def test_a_trimmed_checkpoint_says_what_it_said(sort: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "source", sort, tokenizer=foreign(), width=32)
    data = [SAMPLE / f"{kind}.csv" for kind in ("train", "dev", "test")]
    out = tmp_path / "out"
    done = tool("trim_vocabulary.py", source, out, "--data", *data, "--input-prefix", "요약: ")
    assert done.returncode == 0, done.stderr
    assert "vocabulary cut from" in done.stdout and "spelled as before" in done.stdout
    before, after = plain(source, [], tmp_path), plain(out, [], tmp_path)
    assert before["pieces"] == after["pieces"] and after["rows"] < 0.95 * before["rows"]
    shown = sorted(set(after["pieces"]))
    assert plain(out, shown, tmp_path)["logits"] == pytest.approx(
        plain(source, shown, tmp_path)["logits"], abs=1e-5
    )
    assert {"shared.weight", "lm_head.weight"} & set(read_weights(out)) == (
        {"shared.weight", "lm_head.weight"} if sort == "mt5" else {"shared.weight"}
    )
    again = tool("trim_vocabulary.py", source, out, "--data", *data)
    assert again.returncode == 2 and "name a new or empty folder" in again.stderr
    weights = next(source.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    broken = tool("trim_vocabulary.py", source, tmp_path / "other", "--data", *data)
    assert broken.returncode == 2 and weights.name in broken.stderr
    assert "Traceback" not in broken.stderr and not (tmp_path / "other").exists()


def test_tiny_checkpoints_are_the_same_each_time_and_made_once(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        done = tool("make_tiny_checkpoints.py", tmp_path / folder, "--data", SAMPLE / "train.csv")
        assert done.returncode == 0, done.stderr
    files = {
        path.relative_to(tmp_path / "a"): path for path in sorted((tmp_path / "a").rglob("*.*"))
    }
    assert len(files) > 12
    for name, path in files.items():
        assert path.read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    marks = {path: path.stat().st_mtime_ns for path in files.values()}
    options = ("--data", SAMPLE / "train.csv", "--only", "bart")
    assert tool("make_tiny_checkpoints.py", tmp_path / "a", *options).returncode == 0
    assert marks == {path: path.stat().st_mtime_ns for path in files.values()}
    assert not (tmp_path / "a/mt5/tokenizer.json").exists()
    assert plain(tmp_path / "a/mt5", ["</s>"], tmp_path)["rows"] > 1000
    other = ("--data", SAMPLE / "dev.csv", "--only", "bart")
    assert tool("make_tiny_checkpoints.py", tmp_path / "a", *other).returncode == 0
    assert (tmp_path / "a/bart/tokenizer.json").read_bytes() != (
        tmp_path / "b/bart/tokenizer.json"
    ).read_bytes()
    (tmp_path / "c/bart").mkdir(parents=True)
    (tmp_path / "c/bart/mine.txt").write_text("mine")
    done = tool("make_tiny_checkpoints.py", tmp_path / "c", *other)
    assert done.returncode == 2 and "name a new or empty folder" in done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of finished runs: an adapter on everything, and every weight."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    rates = {
        "01_mt5_xlsum_ultimate": 5e-3,
        "02_eenzeenee_t5_rtx3090": 5e-3,
        "01_baseline_kobart_rtx3090": 1e-3,
        "03_high_learning_rate_rtx3090": 5e-3,
    }
    for name, rate in rates.items():
        found[name] = root / name
        sets = (f"training.learning_rate={rate}", "generation.num_beams=2")
        # A model that learnt nothing may repeat one piece for ever, and that may be a space.
        sets += ("generation.no_repeat_ngram_size=1",) if name.endswith("kobart_rtx3090") else ()
        # Some end where they may go on no further, where BART's own settings force a last token.
        sets += ("tokenizer.decoder_max_len=5",) if name.startswith("03") else ()
        done = run(command(name, found[name], *(word for one in sets for word in ("--set", one))))
        assert done.returncode == 0, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("place", ["root", "elsewhere"])
def test_the_code_of_a_card_writes_the_runs_own_summaries(
    place: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    where = REPOSITORY if place == "root" else tmp_path
    for name, folder in runs.items():
        table = folder / "results" / "predictions_dev.csv"
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "tests/load_by_card.py"), folder / "model", table],
            cwd=where,
            env=environment(PYTHONPATH=""),
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        own = list(read_summaries(table).values())
        assert any(own) and json.loads(done.stdout.splitlines()[-1]) == own, name
        card = (folder / "model" / "README.md").read_text(encoding="utf-8")
        for words in ("base_model: ", "24 train", "rouge|tok:mecab", "floor: constant", "licence"):
            assert words in card


def test_predict_writes_what_the_run_wrote(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = (SAMPLE / "dev.csv").read_text(encoding="utf-8")
    for folder in runs.values():
        out = tmp_path / f"{folder.name}.csv"
        done = tool("predict.py", "--run", folder, "--input", SAMPLE / "dev.csv", "--output", out)
        assert done.returncode == 0, done.stderr
        own = read_summaries(folder / "results" / "predictions_dev.csv")
        mine = read_summaries(out)
        assert len(mine) == rows.count("sample_dev_") and "of 80 summaries" in done.stderr
        assert {name: mine[name] for name in own} == own


def test_predict_takes_a_test_file_a_single_dialogue_and_a_second_run(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    first, second, *_ = runs.values()
    out = tmp_path / "submission.csv"
    test = SAMPLE / "test.csv"
    done = tool("predict.py", "--run", first / "model", "--input", test, "--output", out)
    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8").startswith(",fname,summary\n0,sample_test_0,")
    options = ["--run", first, "--compare", second, "--input", "-", "--num-beams", "1"]
    done = subprocess.run(
        [sys.executable, "scripts/predict.py", *map(str, options)],
        cwd=REPOSITORY,
        env=environment(),
        input="#Person1#: 안녕하세요.\n#Person2#: 네.",
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stdin\n  ") and done.stdout.count("\n") == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--run", "none/there", "--input", "-"), "no run and no saved model"),
        (("--run", "{run}", "--input", "none.csv"), "none.csv"),
        (("--run", "{run}", "--input", "-", "--num-beams", "0"), "give 1 (greedy) or more"),
        (("--run", "{run}", "--input", "-"), "standard input is empty"),
    ],
)
def test_predict_says_what_is_wrong(
    options: tuple[str, ...], said: str, runs: dict[str, Path]
) -> None:
    folder = runs["01_baseline_kobart_rtx3090"]
    done = tool("predict.py", *(one.format(run=folder) for one in options))
    assert done.returncode == 2 and said in done.stderr


def test_a_base_that_changed_is_noticed(runs: dict[str, Path], tmp_path: Path) -> None:
    model = tmp_path / "model"
    subprocess.run(["cp", "-r", runs["02_eenzeenee_t5_rtx3090"] / "model", model], check=True)
    info = json.loads((model / "model_info.json").read_text(encoding="utf-8"))

    def predict(**change: str) -> subprocess.CompletedProcess[str]:
        (model / "model_info.json").write_text(json.dumps(info | change), encoding="utf-8")
        return tool("predict.py", "--run", model, "--input", SAMPLE / "dev.csv")

    done = predict(base_sha256="0" * 64)
    assert done.returncode == 2 and "other weights are there now" in done.stderr
    # A tiny base goes where its adapter goes.
    assert predict(base=str(tmp_path / "gone")).returncode == 0
    shutil.rmtree(model / "base")
    done = predict(base=str(tmp_path / "gone"))
    assert done.returncode == 2 and "not there any more" in done.stderr


def test_a_merged_adapter_is_a_plain_checkpoint(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "merged"
    done = tool("merge_adapter.py", runs["02_eenzeenee_t5_rtx3090"], out)
    assert done.returncode == 0, done.stderr
    assert "standard deviations" in done.stdout
    assert len(plain(out, ["#Person1#", "</s>"], tmp_path)["logits"]) == 2
    done = tool("merge_adapter.py", runs["01_baseline_kobart_rtx3090"], tmp_path / "full")
    assert done.returncode == 2 and "no adapter to merge" in done.stderr
    assert not (tmp_path / "full").exists()


def test_tiny_checkpoints_of_a_file_with_columns_of_its_own(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"row_{at}",
            "text": f"#Person1#: {at}번 책 주세요.\n#Person2#: 네.",
            "short": f"{at}번 책을 산다.",
        }
        for at in range(300)
    ]
    file = tmp_path / "train.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    asked = (tmp_path / "out", "--data", file, "--only", "bart", "--columns")
    done = tool("make_tiny_checkpoints.py", *asked, "fname=id", "dialogue=text", "summary=short")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "bart" / "config.json").is_file()
    done = tool("make_tiny_checkpoints.py", *asked, "title=id")
    assert done.returncode == 2 and "write KEY=NAME, with KEY one of fname, dialogue" in done.stderr
