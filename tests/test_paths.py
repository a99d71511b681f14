"""How paths are shown to a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from dialsum.paths import PROJECT_ROOT, shown


@pytest.mark.parametrize(
    ("folder", "path", "text"),
    [
        ("/", "/tmp/x.yaml", "/tmp/x.yaml"),
        ("/", "/", "/"),
        ("/", "relative/x.yaml", "relative/x.yaml"),
        ("{here}", "{here}/x.yaml", "x.yaml"),
        ("{here}", "{project}/config/x.yaml", "config/x.yaml"),
        ("/", "{project}/config/x.yaml", "{project}/config/x.yaml"),
        ("{project}/config", "{project}/config/x.yaml", "x.yaml"),
        ("{here}", "/elsewhere/x.yaml", "/elsewhere/x.yaml"),
    ],
)
def test_a_path_is_short_but_never_misleading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, path: str, text: str
) -> None:
    names = {"here": tmp_path, "project": PROJECT_ROOT}
    monkeypatch.chdir(folder.format(**names))
    assert shown(Path(path.format(**names))) == text.format(**names)
