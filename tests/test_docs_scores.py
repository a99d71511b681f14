"""The figures of docs/scores.md are those that its command prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_table_of_scales_is_what_the_command_prints(repository: Path, shared_dir: Path) -> None:
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
