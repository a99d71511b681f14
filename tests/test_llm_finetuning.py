"""scripts/llm_finetuning.py: its doors, and all phases to their table on tiny models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dialsum.errors import EXIT_OK, EXIT_UNFIT
from small_models import REPOSITORY
from test_model_configs import SHORT
from trainer_runs import environment, read_result

SCRIPT = REPOSITORY / "scripts" / "llm_finetuning.py"
PHASES = ("before", "phase1", "phase2", "phase3")


def start(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_the_prompt_can_be_had_from_the_root() -> None:
    code = (
        "import sys\n"
        "from scripts.llm_finetuning import format_dialogue_prompt as prompt\n"
        "print(prompt('#Person1#: 안녕'))\n"
        "print(prompt('#Person1#: 안녕', '인사'))\n"
        "print(prompt('#Person1#: 안녕', phase=1))\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "[Conversation]\n#Person1#: 안녕" in done.stdout
    assert "위 대화 주제에 대한 대화를 요약해주세요." in done.stdout
    assert "위 인사 주제에 대한 대화를 요약해주세요." in done.stdout
    assert "다음 대화를 요약하세요:\n---\n#Person1#: 안녕\n---" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config", "configs/finetune_config.yaml"), "did you mean config/finetune_config.yaml?"),
        (("--config", "nowhere.yaml"), "nowhere.yaml  no such file"),
        (("--config", "config/llm/phase3.yaml", "--phase", "2"), "leave --phase out"),
        (("--phase", "5"), "'5'"),
        (("--phase", "1", "--epochs", "2"), "--epochs"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[str, ...], said: str) -> None:
    done = start(*arguments)
    assert done.returncode == EXIT_UNFIT, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_all_phases_are_one_plan(tmp_path: Path) -> None:
    done = start("--phase", "all", "--demo", "--dry-run", "--output-dir", str(tmp_path / "out"))
    assert done.returncode == EXIT_OK, done.stderr
    assert all(phase in done.stdout for phase in PHASES)
    assert not (tmp_path / "out" / "experiments").exists()


@pytest.mark.training
def test_all_phases_train_and_come_to_a_table(tmp_path: Path) -> None:
    output = tmp_path / "out"
    values = [word for value in SHORT for word in ("--set", value)]
    done = start("--phase", "all", "--demo", "--output-dir", str(output), *values, timeout=600)
    assert done.returncode == EXIT_OK, done.stdout[-3000:] + done.stderr
    records = {path.parent.name: read_result(path.parent) for path in output.rglob("result.json")}
    assert {*records} == {*PHASES}
    assert {name: one["training"]["packing"] for name, one in records.items()} == {
        "before": False,
        "phase1": False,
        "phase2": False,
        "phase3": True,
    }
    table = done.stdout[done.stdout.rindex("Settings that differ") :]
    assert all(phase in table for phase in PHASES)
