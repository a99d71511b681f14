"""Saved models of every family, loaded in a process of their own, write what the run wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapted_models import EIGHT_BIT, EVERYTHING, FOUR_BIT, SORTS, Case, load_case
from dialsum.config.load import dump_yaml, load_config
from dialsum.data.encode import STANDARD_DIALOGUE_TOKENS
from dialsum.files import write_text
from dialsum.models.save import save_model
from dialsum.paths import RunPaths
from small_models import KINDS, SAMPLE, make_config, train_sample_tokenizer, write_checkpoint
from trainer_runs import REPOSITORY, run

pytestmark = pytest.mark.training

WAYS: dict[str, dict[str, Any]] = {
    "4-bit": FOUR_BIT,
    "8-bit": EIGHT_BIT,
    "full": {"use_qlora": False, "load_in_4bit": False},
    "on everything": FOUR_BIT | {"target_modules": EVERYTHING},
}
CASES = [(sort, way) for sort in SORTS for way in WAYS]


@dataclass(frozen=True)
class Written:
    """What a model wrote of the dev rows: untrained, trained, and loaded again in a new process."""

    untrained: list[str]
    trained: list[str]
    again: list[str]


Answers = Callable[[str, str], Written]


def train(case: Case) -> None:
    """Take a few steps on pairs of dialogue and summary, until the model writes something else."""
    import torch

    case.model.train()
    learning = [one for one in case.model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    for _ in range(12):
        case.model(**case.batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def train_and_save(
    checkpoint: Path, folder: Path, *, sort: str, way: str
) -> tuple[list[str], list[str]]:
    """Train and save a model as a run does; return what it writes before and after."""
    import torch

    from predict_again import write_dev

    config = make_config(
        sort,
        checkpoint,
        qlora=WAYS[way],
        training={"per_device_eval_batch_size": 4},
        data={"data_dir": str(SAMPLE), "max_dev_rows": 6, "max_train_rows": 8},
        generation={"num_beams": 2, "max_new_tokens": 12, "min_new_tokens": 4},
    )
    case = load_case(checkpoint, config, tokens=STANDARD_DIALOGUE_TOKENS)
    untrained = write_dev(case.model, case.tokenizer, config)
    train(case)
    paths = RunPaths.alone(folder)
    folder.mkdir()
    write_text(paths.resolved_config, dump_yaml(config))
    save_model(
        case.model,
        case.tokenizer,
        paths=paths,
        loaded=load_config(paths.resolved_config),
        best_step=12,
        new_tokens=case.new,
        tags=STANDARD_DIALOGUE_TOKENS,
        dtype=torch.float32,
    )
    return untrained, write_dev(case.model, case.tokenizer, config)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Train, save and load all cases, in two processes; return the answers of one."""
    root = tmp_path_factory.mktemp("reload")
    tokenizers = {kind: train_sample_tokenizer(kind) for kind in ("unigram", "bpe")}
    for sort in SORTS:
        write_checkpoint(root / sort, sort, tokenizer=tokenizers[KINDS[sort]], width=64)
    folders = {(sort, way): root / f"{sort} {way}" for sort, way in CASES}
    before = {
        (sort, way): train_and_save(root / sort, folder, sort=sort, way=way)
        for (sort, way), folder in folders.items()
    }
    script = REPOSITORY / "tests" / "predict_again.py"
    done = run([sys.executable, str(script), *map(str, folders.values())])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    def answer(sort: str, way: str) -> Written:
        return Written(*before[sort, way], again=found[str(folders[sort, way])]["loaded"])

    return answer


@pytest.mark.parametrize(("sort", "way"), CASES)
def test_a_new_process_writes_the_same(sort: str, way: str, answers: Answers) -> None:
    written = answers(sort, way)
    assert len(written.trained) == 6
    assert any(written.trained)
    assert written.again == written.trained
    # Where training changed no answer this would prove nothing.
    assert written.untrained != written.trained
