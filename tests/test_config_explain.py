"""--explain: every key with its value and the line that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialsum.config.explain import explain
from dialsum.config.keys import schema_keys
from dialsum.config.read import load_config
from dialsum.text_table import align, display_width


def lines_of(text: str) -> dict[str, str]:
    """Return the lines that start with a known key, by key."""
    lines = [line for line in text.splitlines() if line.split("  ")[0].strip() in schema_keys()]
    return {line.split()[0]: line for line in lines}


def test_every_key_stands_with_its_origin(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    path = Path("config/experiments/03_high_learning_rate_rtx3090.yaml")
    loaded = load_config(
        path,
        overlays=[Path("config/demo.yaml")],
        overrides=["seed=7", "tokenizer.input_prefix=요약: "],
    )
    text = explain(loaded)
    lines = lines_of(text)
    assert list(lines) == list(schema_keys())
    for key, origin in loaded.origins.items():
        assert lines[key].endswith(f"  {origin.text}")
    number = path.read_text(encoding="utf-8").splitlines().index("  lora_rank: 96") + 1
    assert lines["qlora.lora_rank"].split() == ["qlora.lora_rank", "96", f"{path}:{number}"]
    assert lines["training.seed"].split() == ["training.seed", "7", "--set"]
    assert "'요약: '" in lines["tokenizer.input_prefix"]
    assert "config/demo.yaml:" in lines["training.learning_rate"]
    assert lines["general.next"].endswith("default")
    assert "  --set seed 7 -> training.seed 7" in text.splitlines()
    assert text.startswith(f"{path.stem}  {path}\n")
    assert text.endswith(loaded.sha256)


def test_origins_start_in_one_column_under_korean_values(repository: Path) -> None:
    loaded = load_config(repository / "config/experiments/01_mt5_xlsum_korean_adapted.yaml")
    lines = lines_of(explain(loaded))
    starts = {
        display_width(lines[key].removesuffix(origin.text))
        for key, origin in loaded.origins.items()
    }
    assert len(starts) == 1


def test_without_notes_nothing_is_understood(repository: Path) -> None:
    text = explain(load_config(repository / "config/experiments/01_mt5_xlsum.yaml"))
    assert "understood:" not in text


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], []),
        ([["a"]], ["a"]),
        ([["a", "b"], ["한국", "c"]], ["a     b", "한국  c"]),
        ([["", "b"], ["aa", ""]], ["    b", "aa"]),
    ],
)
def test_columns_are_aligned_by_what_a_terminal_shows(
    rows: list[list[str]], lines: list[str]
) -> None:
    assert align(rows, left=range(2)) == lines
