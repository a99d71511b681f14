"""Networks with a cut vocabulary: rows and scores as before, and whole experiments reloaded."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from dialsum.data.rows import load_splits
from dialsum.errors import UnfitError
from dialsum.models.tokenizers import load_tokenizer, train_tokenizer
from dialsum.models.trim import KeptPieces, TrimmedTokenizer, trim_tokenizer
from foreign_tokenizer import TAGS, foreign, loaded
from small_models import (
    SAMPLE,
    SPARE_ROWS,
    make_config,
    read_weights,
    sample_texts,
    write_checkpoint,
)
from trainer_runs import REPOSITORY, command, read_result, read_summaries, run

pytestmark = pytest.mark.training

UNTIED_AND_TIED = ["mt5", "t5", "t5_v1_1"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the folder of a sort of checkpoint around that tokenizer, written once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(sort: str) -> Path:
        place = root / sort
        if not place.is_dir():
            write_checkpoint(place, sort, tokenizer=foreign(), width=32)
        return place

    return folder


QLORA = {
    "float": {},
    "4-bit": {"use_qlora": True, "load_in_4bit": True},
    "8-bit": {"use_qlora": True, "load_in_4bit": False, "load_in_8bit": True},
}


def load_whole(folder: Path, sort: str, **sections: Any) -> tuple[Any, Any]:
    """Load a checkpoint with the tags; return model and tokenizer."""
    import torch

    from dialsum.models.load import load_model

    tokenizer, new = loaded(folder)
    model = load_model(
        folder,
        config=make_config(sort, folder, **sections),
        tokenizer=tokenizer,
        new_tokens=new,
        device="cpu",
        dtype=torch.float32,
    )
    return model, tokenizer


def load_cut(
    folder: Path, sort: str, *, more_ids: tuple[int, ...] = (), **sections: Any
) -> tuple[Any, TrimmedTokenizer]:
    """Load a checkpoint with the tags, cut to the sample's texts; return model and tokenizer."""
    import torch

    from dialsum.models.load import load_model

    tokenizer, new = loaded(folder)
    trimmed = trim_tokenizer(tokenizer, texts=sample_texts(), new_tokens=new, more_ids=more_ids)
    model = load_model(
        folder,
        config=make_config(sort, folder, **sections),
        tokenizer=trimmed.tokenizer,
        new_tokens=new,
        device="cpu",
        dtype=torch.float32,
        kept=trimmed.kept,
    )
    return model, trimmed


def all_kept(trimmed: TrimmedTokenizer) -> list[int]:
    """Return the ids in the whole model of every row of the cut one, new tokens included."""
    new = len(trimmed.tokenizer) - len(trimmed.kept)
    return [*trimmed.kept.ids, *range(trimmed.kept.before, trimmed.kept.before + new)]


@pytest.mark.parametrize("bits", QLORA)
@pytest.mark.parametrize("sort", UNTIED_AND_TIED)
def test_kept_and_new_rows_are_those_of_the_whole_model(
    sort: str, bits: str, checkpoints: Any
) -> None:
    import torch

    whole, _ = load_whole(checkpoints(sort), sort, qlora=QLORA[bits])
    less, trimmed = load_cut(checkpoints(sort), sort, qlora=QLORA[bits])
    ids = all_kept(trimmed)
    assert less.tied == whole.tied == (sort == "t5")
    for place in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(whole.model, place)().weight, getattr(less.model, place)().weight
        assert torch.equal(old[ids], new)
        assert len(old) > 1.2 * len(new)
    model = less.model
    rows = len(trimmed.tokenizer)
    assert model.config.vocab_size == model.get_output_embeddings().out_features == rows
    for stack in (model.encoder, model.decoder, model):
        layer = stack.get_input_embeddings()
        assert layer.num_embeddings == rows
        assert layer.weight is model.get_input_embeddings().weight
    matrices = 1 if sort == "t5" else 2
    found = less.trimmed
    assert found.bytes_before - found.bytes_after == matrices * 32 * 4 * (
        trimmed.kept.before + SPARE_ROWS - len(trimmed.kept)
    )


@pytest.mark.parametrize("sort", UNTIED_AND_TIED)
def test_a_cut_model_without_new_tokens_loads_like_any_checkpoint(
    sort: str, checkpoints: Any, tmp_path: Path
) -> None:
    import torch

    from dialsum.models.load import load_model
    from dialsum.models.save import save_weights

    folder = checkpoints(sort)
    trimmed = trim_tokenizer(load_tokenizer(folder), texts=sample_texts())
    options: dict[str, Any] = {"new_tokens": [], "device": "cpu", "dtype": torch.float32}
    cut_model: Any = load_model(
        folder,
        config=make_config(sort, folder),
        tokenizer=trimmed.tokenizer,
        kept=trimmed.kept,
        **options,
    ).model
    assert cut_model.config.vocab_size == len(trimmed.kept) == len(trimmed.tokenizer)
    save_weights(cut_model, tmp_path)
    trimmed.tokenizer.save_pretrained(tmp_path)
    again: Any = load_model(
        tmp_path, config=make_config(sort, tmp_path), tokenizer=load_tokenizer(tmp_path), **options
    ).model
    for name, weight in cut_model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def answers(model: Any, rows: list[list[int]], targets: list[list[int]]) -> list[Any]:
    """Return the logits of each row's target."""
    import torch

    with torch.inference_mode():
        return [
            model(input_ids=torch.tensor([row]), labels=torch.tensor([target])).logits[0]
            for row, target in zip(rows, targets, strict=True)
        ]


@pytest.mark.parametrize("bits", QLORA)
@pytest.mark.parametrize("sort", UNTIED_AND_TIED)
def test_kept_pieces_have_the_scores_that_they_had(sort: str, bits: str, checkpoints: Any) -> None:
    import torch

    whole, tokenizer = load_whole(checkpoints(sort), sort, qlora=QLORA[bits])
    less, trimmed = load_cut(checkpoints(sort), sort, qlora=QLORA[bits])
    texts = sample_texts()[:24]
    dialogues, summaries = texts[::2], texts[1::2]
    assert any("\n" in text for text in dialogues)
    old = answers(whole.model, *(tokenizer(side)["input_ids"] for side in (dialogues, summaries)))
    new = answers(
        less.model, *(trimmed.tokenizer(side)["input_ids"] for side in (dialogues, summaries))
    )
    ids = all_kept(trimmed)
    for before, after in zip(old, new, strict=True):
        assert torch.allclose(before[:, ids], after, atol=1e-6, rtol=1e-6)
        # Probabilities grow by what the removed pieces had, the same factor for every piece.
        log_before, log_after = (one.log_softmax(dim=-1) for one in (before[:, ids], after))
        assert torch.allclose(log_before, log_after, atol=1e-5)
        gain = after.log_softmax(dim=-1) - before.log_softmax(dim=-1)[:, ids]
        mass = before.softmax(dim=-1)[:, ids].sum(dim=-1, keepdim=True)
        assert torch.allclose(gain, -mass.log().expand_as(gain), atol=1e-5)
        assert gain.min() > 1e-4


def written(model: Any, tokenizer: Any, texts: list[str], *, banned: list[int]) -> list[str]:
    """Return greedy answers, each text by itself, without the banned ids."""
    import torch

    found = []
    with torch.inference_mode():
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            out = model.generate(
                input_ids=ids,
                max_new_tokens=8,
                do_sample=False,
                num_beams=1,
                suppress_tokens=banned or None,
            )
            found.append(" ".join(tokenizer.convert_ids_to_tokens(out[0].tolist())))
    return found


@pytest.mark.parametrize("sort", UNTIED_AND_TIED)
def test_greedy_answers_of_kept_pieces_are_the_same(sort: str, checkpoints: Any) -> None:
    whole, tokenizer = load_whole(checkpoints(sort), sort)
    texts = sample_texts()[:16]
    free = written(whole.model, tokenizer, texts, banned=[])
    # What random weights like to say is foreign. Some of it stays, or there was nothing to compare.
    liked = tokenizer.convert_tokens_to_ids(sorted({*" ".join(free[:6]).split()}))
    less, trimmed = load_cut(checkpoints(sort), sort, more_ids=tuple(liked))
    ours = written(less.model, trimmed.tokenizer, texts, banned=[])
    ids = set(all_kept(trimmed))
    gone = [one for one in range(whole.model.config.vocab_size) if one not in ids]
    assert ours == written(whole.model, tokenizer, texts, banned=gone)
    # Free to choose, the whole model says the same up to the first piece that was cut.
    vocabulary, said = trimmed.tokenizer.get_vocab(), 0
    for one, other in zip(free, ours, strict=True):
        kept = list(takewhile(vocabulary.__contains__, one.split()))
        assert other.split()[: len(kept)] == kept
        said += len(kept) - 1
    assert said > 10


def test_a_start_of_decoding_behind_the_cut_is_renumbered(checkpoints: Any, tmp_path: Path) -> None:
    import torch

    from dialsum.models.load import load_model

    folder = shutil.copytree(checkpoints("mt5"), tmp_path / "start")
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer, new = loaded(folder)
    start = tokenizer.convert_tokens_to_ids("▁tomorrow")
    (folder / "config.json").write_text(
        json.dumps(described | {"decoder_start_token_id": start}), encoding="utf-8"
    )
    options: dict[str, Any] = {
        "config": make_config("mt5", folder),
        "new_tokens": new,
        "device": "cpu",
        "dtype": torch.float32,
    }
    trimmed = trim_tokenizer(tokenizer, texts=["가"], new_tokens=new, more_ids=[start])
    model: Any = load_model(folder, tokenizer=trimmed.tokenizer, kept=trimmed.kept, **options).model
    now = trimmed.tokenizer.convert_tokens_to_ids("▁tomorrow")
    assert now != start
    assert model.config.decoder_start_token_id == now
    assert model.generation_config.decoder_start_token_id == now
    without = trim_tokenizer(tokenizer, texts=["가"], new_tokens=new)
    with pytest.raises(UnfitError, match=f"decoder_start_token_id {start} is not among"):
        load_model(folder, tokenizer=without.tokenizer, kept=without.kept, **options)


def test_inputs_and_train_summaries_choose_pieces_dev_summaries_none(checkpoints: Any) -> None:
    from dialsum.experiment.run import prepare_tokenizer

    splits = load_splits(SAMPLE / "train.csv", SAMPLE / "dev.csv", test=SAMPLE / "test.csv")
    assert splits.test is not None
    # One foreign word each: nothing else in the sample uses it.
    for split, side, word in (
        (splits.train, "dialogue", "weather"),
        (splits.train, "summary", "report"),
        (splits.dev, "dialogue", "every"),
        (splits.dev, "summary", "another"),
        (splits.test, "dialogue", "сегодня"),
    ):
        split.rows[0] = replace(split.rows[0], **{side: f"#Person1#: 네 {word}"})
    asked = {"trim_vocabulary": True, "input_prefix": "станция "}
    config = make_config("mt5", checkpoints("mt5"), tokenizer=asked)
    found = prepare_tokenizer(config, splits, tiny_folder=Path("unused"))
    vocabulary = found.tokenizer.get_vocab()
    stay = ["weather", "report", "every", "сегодня", "станция"]
    assert [word for word in stay if f"▁{word}" not in vocabulary] == []
    assert "▁another" not in vocabulary and "▁would" not in vocabulary
    assert found.trimmed is not None and found.trimmed.respelled == 1
    assert found.tag_ids == sorted(vocabulary[tag] for tag in TAGS)


def test_another_checkpoint_than_the_list_was_made_for_is_refused(
    checkpoints: Any, tmp_path: Path
) -> None:
    import torch

    from dialsum.models.load import load_model

    tokenizer, new = loaded(checkpoints("mt5"))
    trimmed = trim_tokenizer(tokenizer, texts=["가"], new_tokens=new)
    small = train_tokenizer(sample_texts(), kind="unigram", vocab_size=900, exclude=TAGS)
    other = write_checkpoint(tmp_path / "other", "mt5", tokenizer=small)
    with pytest.raises(UnfitError, match=f"was cut from {trimmed.kept.before:,}"):
        load_model(
            other,
            config=make_config("mt5", other),
            tokenizer=trimmed.tokenizer,
            new_tokens=new,
            device="cpu",
            dtype=torch.float32,
            kept=trimmed.kept,
        )


ULTIMATE, FIRST = "01_mt5_xlsum_ultimate", "01_mt5_xlsum_optimized_v2"
SMALL_T5 = "02_eenzeenee_t5_rtx3090"
EXPERIMENTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "adapter on embeddings and head, 4-bit": (ULTIMATE, "mt5", ()),
    "adapter beside rows of new tokens, 8-bit": (
        FIRST,
        "mt5",
        ("qlora.load_in_4bit=false", "qlora.load_in_8bit=true"),
    ),
    "every weight": (SMALL_T5, "t5", ("qlora.use_qlora=false",)),
    "tiny base with trained embeddings": (
        SMALL_T5,
        "t5",
        (
            "model.initialise=tiny",
            "model.tiny.d_model=32",
            "model.tiny.layers=1",
            "qlora.train_embeddings=true",
        ),
    ),
}


def train_cut(name: str, folder: Path, checkpoint: Path) -> list[str]:
    """Return the command of an experiment that cuts its checkpoint's vocabulary."""
    experiment, _, options = EXPERIMENTS[name]
    sets = (
        f"model.checkpoint={checkpoint}",
        "tokenizer.trim_vocabulary=true",
        "training.learning_rate=5e-3",
        "generation.num_beams=2",
        # A model that learnt nothing may repeat one piece for ever, and that may be a space.
        "generation.no_repeat_ngram_size=1",
        *options,
    )
    line = command(experiment, folder, demo=False)
    for one in sets:
        line += ["--set", one]
    return line


@pytest.fixture(scope="module")
def runs(checkpoints: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folders of finished runs by their names above."""
    root = tmp_path_factory.mktemp("runs")
    folders = {}
    for name, (_, sort, _) in EXPERIMENTS.items():
        folders[name] = root / name.replace(" ", "_") / "run"
        done = run(train_cut(name, folders[name], checkpoints(sort)))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("vocabulary cut from") == 1
    return folders


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_record_says_what_was_cut(name: str, runs: dict[str, Path]) -> None:
    model = read_result(runs[name])["model"]
    found = model["vocabulary_trimmed"]
    assert found["tokens_per_character"] == found["tokens_per_character_before"] > 0
    assert found["respelled_dev_summaries"] == 0
    assert found["pieces_used"] < found["pieces"] < 0.95 * found["pieces_before"]
    assert found["bytes"] < 0.95 * found["bytes_before"]
    assert model["vocabulary"] == found["pieces"] + model["tokens_added"]


def test_saved_models_predict_the_same_in_a_new_process(runs: dict[str, Path]) -> None:
    script = REPOSITORY / "tests" / "predict_again.py"
    done = run([sys.executable, str(script), *map(str, runs.values())])
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    for name, folder in runs.items():
        said = list(read_summaries(folder / "results" / "predictions_dev.csv").values())
        assert any(said), name
        assert answers[str(folder)]["loaded"] == said, name
        # Without what was learned the answers are others, or this would prove nothing.
        assert answers[str(folder)].get("base") != said, name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_saved_model_is_whole(name: str, runs: dict[str, Path]) -> None:
    folder = runs[name] / "model"
    info = json.loads((folder / "model_info.json").read_text(encoding="utf-8"))
    kept = KeptPieces.from_record(info["kept_pieces"])
    assert len(load_tokenizer(folder)) == len(kept) + len(info["tokens_added"])
    if info["kind"] == "full":
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert described["vocab_size"] == len(load_tokenizer(folder))
        weights = read_weights(folder)
        rows = {len(one) for name, one in weights.items() if "shared" in name or "head" in name}
        assert rows == {described["vocab_size"]}
