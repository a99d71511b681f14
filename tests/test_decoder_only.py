"""Decoder-only models: what they write beside one another, and what their configuration forbids."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dialsum.config.load import load_config
from dialsum.errors import ConfigError, UnfitError
from dialsum.experiment.predict import read_config
from dialsum.models.families import FAMILIES
from small_models import REPOSITORY, SAMPLE, load_decoder
from trainer_runs import environment, read_summaries

ALONE = [name for name, family in FAMILIES.items() if family.decoder_only]
SEVENTH = REPOSITORY / "config" / "experiments" / "01_baseline_kobart_rtx3090.yaml"
LLM = REPOSITORY / "config" / "llm" / "phase1.yaml"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (SEVENTH, "prompt.system=요약하세요", r"prompt\.system.*bart has an encoder"),
        (SEVENTH, "training.packing=true", r"training\.packing.*bart has an encoder"),
        (SEVENTH, "training.prompt_loss_weight=1", r"has an encoder, no prompt"),
        (LLM, "tokenizer.input_prefix=요약: ", r"llama reads a prompt.*prompt\.user"),
        (LLM, "prompt.user=요약하세요", r"prompt\.user.*\{dialogue\} 0 times"),
        (LLM, "prompt.user={dialogue} {dialogue}", r"\{dialogue\} 2 times"),
        (LLM, "prompt.user={dialogue} {name}", r"\{name\}, which stands for nothing"),
        (LLM, "prompt.user=$TEXT {dialogue}", r"\$TEXT.*nothing fills in"),
        (LLM, "prompt.chat_template=nowhere.jinja", r"nowhere\.jinja: no such file"),
        (LLM, "model.architecture=mt5", r"model\.architecture.*llama"),
        (SEVENTH, "training.rdrop_alpha=-1", r"rdrop_alpha"),
    ],
)
def test_what_would_do_nothing_is_refused(path: Path, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(path, overrides=[value])


def test_rdrop_without_dropout_is_refused() -> None:
    alone = ["training.rdrop_alpha=1", "model.dropout=0"]
    with pytest.raises(ConfigError, match="nothing drops out"):
        load_config(SEVENTH, overrides=alone)
    load_config(SEVENTH, overrides=alone[:1])
    load_config(LLM, overrides=alone)  # its adapters have dropout


load = cache(load_decoder)


def draw_prompts() -> list[list[int]]:
    generator = np.random.default_rng(4)
    return [generator.integers(300, 3000, int(size)).tolist() for size in (5, 40, 17, 3, 28)]


@pytest.mark.training
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ALONE)
def test_rows_beside_one_another_are_written_as_alone(name: str, beams: int) -> None:
    from dialsum.generate import GenerationSettings, search

    model, tokenizer = load(name)
    settings = GenerationSettings(num_beams=beams, max_new_tokens=9, min_new_tokens=3)
    prompts = draw_prompts()

    def write(batch: int, **options: Any) -> list[Any]:
        asked = {"settings": settings, "batch_size": batch, "score": True} | options
        return [best for [best] in search(model, tokenizer, prompts, **asked)]

    together, apart = write(5), write(1)
    assert [one.tokens for one in together] == [one.tokens for one in apart]
    assert all(3 <= len(one.tokens) <= 9 for one in together)
    special = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    for one, prompt in zip(together, prompts, strict=True):
        assert not special & set(one.tokens[:-1])
        assert one.tokens[: len(prompt)] != tuple(prompt)
        assert max(one.tokens) < len(tokenizer)
        assert one.log_probability == pytest.approx(weigh(model, prompt, one.tokens), abs=1e-3)


@pytest.mark.training
@pytest.mark.parametrize("name", ALONE)
def test_at_no_temperature_what_is_drawn_is_what_greedy_writes(name: str) -> None:
    from dialsum.generate import GenerationSettings, generate

    model, tokenizer = load(name)
    greedy, drawn = (
        generate(
            model,
            tokenizer,
            draw_prompts(),
            settings=GenerationSettings(max_new_tokens=9, min_new_tokens=3, **asked),
            batch_size=3,
        )
        for asked in ({"num_beams": 1}, {"num_beams": 4, "mbr_temperature": 1e-5})
    )
    assert any(greedy)
    assert drawn == greedy


def weigh(model: Any, prompt: list[int], written: tuple[int, ...]) -> float:
    """Return the log-probability of what was written, one token after the other."""
    import torch

    total = 0.0
    with torch.no_grad():
        for at, token in enumerate(written):
            logits = model(input_ids=torch.tensor([[*prompt, *written[:at]]])).logits[0, -1]
            total += float(logits.log_softmax(-1)[token])
    return total


@pytest.mark.training
def test_a_penalty_for_repetition_leaves_the_prompt_alone() -> None:
    from dialsum.generate import GenerationSettings, search

    model, tokenizer = load("llama")
    plain = GenerationSettings(num_beams=1, max_new_tokens=1)
    strict = GenerationSettings(num_beams=1, max_new_tokens=1, repetition_penalty=50.0)
    prompt = draw_prompts()[0]
    [[first]] = search(model, tokenizer, [prompt], settings=plain, batch_size=1)
    # What would be written stands in the prompt now.
    prompts = [[*first.tokens, *prompt]]
    usual, penalised = (
        search(model, tokenizer, prompts, settings=one, batch_size=1)[0][0].tokens
        for one in (plain, strict)
    )
    assert usual == penalised


@pytest.mark.training
@pytest.mark.parametrize(("name", "bits"), [("llama", 4), ("gemma", None), ("kogpt2", None)])
def test_an_adapter_is_merged_and_says_the_same(
    name: str, bits: int | None, tmp_path: Path
) -> None:
    from dialsum.models.tiny import make_tiny_checkpoints

    folder = make_tiny_checkpoints(tmp_path, SAMPLE / "train.csv", architectures=[name])[0]
    config = {"llama": "llama_3_2_1b", "gemma": "gemma_3_270m", "kogpt2": "kogpt2"}[name]
    values = [f"model.checkpoint={folder}", f"qlora.load_in_4bit={'true' if bits else 'false'}"]
    values += ["general.device=cpu", "training.max_steps=3", "training.eval_steps=3"]
    values += ["training.learning_rate=5e-3", "qlora.use_qlora=true", "data.max_train_rows=48"]
    values += ["data.max_dev_rows=4", "data.test_file=null", "tracking.tensorboard=false"]
    values += ["training.per_device_train_batch_size=8", "training.gradient_accumulation_steps=1"]
    values += ["generation.max_new_tokens=8", "generation.num_beams=1", "data.cache_dir=null"]
    line = ["--config", str(REPOSITORY / "config" / "model_configs" / f"{config}.yaml")]
    for value in values:
        line += ["--set", value]
    run = tmp_path / "run"
    line += ["--run-dir", str(run), "--data-dir", str(SAMPLE)]
    start("code/trainer.py", *line)
    said = start("scripts/merge_adapter.py", str(run), str(tmp_path / "merged"))
    assert "logits moved by at most" in said
    assert ("the base was in 4-bit" in said) == bool(bits)
    with pytest.raises(UnfitError, match=r"model\.checkpoint: .* has its own"):
        read_config(tmp_path / "merged", ["model.checkpoint=another"])
    merged = json.loads((tmp_path / "merged" / "model_info.json").read_text(encoding="utf-8"))
    assert merged["merge"]["merge"] < 1e-3
    predicted = start(
        "scripts/predict.py",
        *("--run", str(tmp_path / "merged"), "--input", str(SAMPLE / "dev.csv")),
        *("--output", str(tmp_path / "written.csv")),
    )
    assert "80" in predicted
    if bits is None:
        written = read_summaries(tmp_path / "written.csv")
        for fname, summary in read_summaries(run / "results" / "predictions_dev.csv").items():
            assert written[fname] == summary


def start(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout
