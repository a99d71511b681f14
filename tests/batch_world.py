"""Makes what a batch needs, small: data, experiment files, records. For the tests of the queue."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import datetime
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import stand_in_trainer
from dialsum.batch.screen import Screen
from dialsum.batch.start import run_batch
from dialsum.cli import BatchOptions
from dialsum.record import Record
from small_models import session_folder

REPOSITORY = Path(__file__).resolve().parent.parent
TRAINER = (sys.executable, str(REPOSITORY / "tests" / "stand_in_trainer.py"))

CONFIG = """
extends: {base}
general:
  label: L_{name}
  expected_minutes: 60
model:
  architecture: bart
  checkpoint: {checkpoint}
tokenizer:
  encoder_max_len: 64
  decoder_max_len: 16
training:
  learning_rate: 1e-3
  num_train_epochs: 4
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 1
  lr_scheduler_type: linear
qlora:
  use_qlora: false
  load_in_4bit: false
"""


def write_data(folder: Path, *, train_rows: int = 4) -> Path:
    """Write fitting train, dev and test files; return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, rows in (("train", train_rows), ("dev", 2), ("test", 2)):
        lines = ["fname,dialogue,summary"] if kind != "test" else ["fname,dialogue"]
        for number in range(rows):
            turns = f"#Person1#: {kind} {number}번 물건을 사고 싶어요.\\n#Person2#: 네 그러세요."
            summary = f",#Person1#은 {kind} {number}번 물건을 산다." if kind != "test" else ""
            lines.append(f"{kind}_{number},{turns}{summary}")
        (folder / f"{kind}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@cache
def stand_in_checkpoint() -> Path:
    """Return the folder of what looks like a tiny checkpoint as long as nobody loads it."""
    checkpoint = session_folder()
    config = {"model_type": "bart", "vocab_size": 100, "d_model": 16, "encoder_layers": 1}
    config |= {"decoder_layers": 1, "max_position_embeddings": 128, "decoder_start_token_id": 2}
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (checkpoint / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (checkpoint / "tokenizer.json").write_text("{}", encoding="utf-8")
    return checkpoint


def write_configs(folder: Path, *names: str) -> tuple[Path, ...]:
    """Write one experiment file per name."""
    folder.mkdir(parents=True, exist_ok=True)
    base, checkpoint = REPOSITORY / "config" / "base_config.yaml", stand_in_checkpoint()
    paths = []
    for name in names:
        path = folder / f"{name}.yaml"
        path.write_text(
            CONFIG.format(base=base, name=name, checkpoint=checkpoint), encoding="utf-8"
        )
        paths.append(path)
    return tuple(paths)


def make_options(folder: Path, *names: str, **values: Any) -> BatchOptions:
    """Return the options of a batch of stand-ins whose every file lies in folder."""
    configs = write_configs(folder / "configs", *names)
    places = {"data_dir": write_data(folder / "data"), "output_dir": folder / "out"}
    return BatchOptions(configs=configs, **{**places, **values})


def start(options: BatchOptions, **settings: Any) -> int:
    """Run a batch of stand-ins as the runner does; return its exit status."""
    return run_batch(options, **{"trainer": TRAINER, **settings})


def make_screen(*, terminal: bool = False) -> tuple[Screen, StringIO]:
    """Return a screen and what it shows."""
    stream = StringIO()
    return Screen(stream=stream, terminal=terminal), stream


def make_result(name: str = "one", *, mean: float | None = 20.0, **changes: Any) -> dict[str, Any]:
    """Return the content of a record; without scores where mean is None."""
    content: dict[str, Any] = {
        "schema_version": 1,
        "experiment": name,
        "label": f"L_{name}",
        "kind": "full",
        "batch": "20260102_030405",
        "status": "success",
        "started_at": "2026-01-02T03:04:05+09:00",
        "finished_at": "2026-01-02T03:14:05+09:00",
        "duration_seconds": 600.0,
        "data": {"rows": {"train": 4, "dev": 2}, "sha256": {"dev": "d" * 64}},
        "training": {"steps": 8, "best_step": 6, "stopped_early": False, "nan_events": 0},
        "artifacts": {},
    }
    if mean is not None:
        content["evaluation"] = stand_in_trainer.evaluation(mean)
    return {**content, **changes}


def make_record(name: str = "one", *, mean: float | None = 20.0, **changes: Any) -> Record:
    """Return a record that stands on no disk."""
    return Record(Path(f"/nowhere/{name}/result.json"), make_result(name, mean=mean, **changes))


def write_result(folder: Path, content: dict[str, Any]) -> Path:
    """Write a record into a run's folder; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def now() -> datetime:
    """Return the present moment with offset."""
    return datetime.now().astimezone()


def leave(free: int, folder: Path) -> None:
    """Fill the disk of a folder but for so many bytes."""
    with (folder / "filler").open("ab", buffering=0) as file:
        while (left := shutil.disk_usage(folder).free - free) > 0:
            try:
                file.write(bytes(min(left, 2**20)))
            except OSError:
                return  # full for this user before the system says so
