"""Every model of config/model_configs and every phase of config/llm trains in its tiny form."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dialsum.cli import DEMO_OVERLAY, DEMO_OVERLAYS
from dialsum.config.load import load_config
from dialsum.config.schema import DECODER_ONLY
from dialsum.paths import RunPaths
from trainer_runs import REPOSITORY, environment, read_events, read_result, read_summaries

pytestmark = pytest.mark.training

CONFIG = REPOSITORY / "config"
FILES = {
    path.relative_to(CONFIG).as_posix(): path
    for path in (
        *sorted((CONFIG / "model_configs").glob("*.yaml")),
        *sorted((CONFIG / "llm").glob("*.yaml")),
        CONFIG / "finetune_config.yaml",
    )
}
SHORT = (
    "general.device=cpu",
    "training.max_steps=2",
    "training.eval_steps=2",
    "training.logging_steps=1",
    "data.max_train_rows=24",
    "data.max_dev_rows=4",
    "data.max_test_rows=2",
    "data.cache_dir=null",
    "evaluation.training_max_rows=2",
    "generation.max_new_tokens=12",
    "generation.min_new_tokens=2",
    "tracking.tensorboard=false",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int | str, Path]]:
    """How each file's run ended, and its folder."""
    from dialsum.models.tiny import make_tiny_checkpoints

    root = tmp_path_factory.mktemp("models")
    sample = REPOSITORY / "data" / "sample"
    configs = {name: load_config(path).config for name, path in FILES.items()}
    architectures = {name: config.model.architecture for name, config in configs.items()}
    made = make_tiny_checkpoints(
        root / "tiny", sample / "train.csv", architectures=sorted({*architectures.values()})
    )
    folders = {name: root / name.replace("/", "_") for name in FILES}

    def train(names: list[str]) -> list[int | str]:
        lines = []
        for name in names:
            own = DEMO_OVERLAYS / FILES[name].name
            (checkpoint,) = (one for one in made if one.name == architectures[name])
            start = (f"model.checkpoint={json.dumps(str(checkpoint))}", "model.revision=null")
            lines.append(
                [
                    *("--config", str(FILES[name]), "--data-dir", str(sample)),
                    *("--overlay", str(own if own.is_file() else DEMO_OVERLAY)),
                    *("--run-dir", str(folders[name])),
                    *(word for value in (*start, *SHORT) for word in ("--set", value)),
                ]
            )
        file = root / f"{len(names)}_{names[0].replace('/', '_')}.json"
        file.write_text(json.dumps(lines), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "tests" / "train_many.py"), str(file)],
            env=environment(OMP_NUM_THREADS="1"),
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        ends: list[int | str] = json.loads(done.stdout.splitlines()[-1])
        return ends

    names = [*FILES]
    parts = [names[::2], names[1::2]]
    with ThreadPoolExecutor(len(parts)) as pool:
        ends = list(pool.map(train, parts))
    return {
        name: (end, folders[name])
        for part, found in zip(parts, ends, strict=True)
        for name, end in zip(part, found, strict=True)
    }


@pytest.mark.parametrize("name", FILES)
def test_a_file_trains_in_its_tiny_form(name: str, runs: dict[str, tuple[int | str, Path]]) -> None:
    end, folder = runs[name]
    assert end == 0, read_result(folder)["reason"] if folder.is_dir() else end
    config = load_config(FILES[name]).config
    packing, alone = config.training.packing, config.model.architecture in DECODER_ONLY
    record = read_result(folder)
    assert record["training"]["steps"] == 2
    assert record["training"].get("packing") == (packing if alone else None)
    losses = [event["loss"] for event in read_events(folder) if event["event"] == "train"]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert 0 <= record["evaluation"]["dev"]["rouge1"] <= 100
    assert len(read_summaries(RunPaths.alone(folder).submission)) == 2
