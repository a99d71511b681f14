"""What the READMEs tell a newcomer to type is there, and both languages tell the same."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dialsum.config.load import load_config
from dialsum.report.closing import LEAST_ROUGE1

READMES = ("README.md", "README.ko.md")
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def read_blocks(readme: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language, in order."""
    text = readme.read_text(encoding="utf-8")
    return [body for kind, body in FENCE.findall(text) if kind == language]


def read_commands(readme: Path) -> list[list[str]]:
    """Return every command of the bash blocks, split into words, comments left out."""
    lines = "\n".join(read_blocks(readme, "bash")).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_both_languages_give_the_same_commands(repository: Path) -> None:
    """A reader of either README types the same."""
    english, korean = (read_commands(repository / name) for name in READMES)
    assert english == korean
    assert len(english) >= 10


def test_both_languages_show_the_same_values(repository: Path) -> None:
    """Tables of times, YAML and trees do not drift apart."""
    english, korean = (read_blocks(repository / name, "yaml") for name in READMES)
    assert english == korean
    names = re.compile(r"`(\d\d_\w+)`")
    texts = [(repository / name).read_text(encoding="utf-8") for name in READMES]
    assert names.findall(texts[0]) == names.findall(texts[1])


@pytest.mark.parametrize("readme", READMES)
def test_every_command_names_a_script_and_options_that_it_has(
    repository: Path, readme: str
) -> None:
    """Each script exists and its --help lists each option that the README uses."""
    for words in read_commands(repository / readme):
        program, script, *rest = words
        path = repository / script
        assert path.is_file(), words
        options = [word for word in rest if word.startswith("-")]
        if not options:
            continue
        command = ["bash", str(path)] if program == "bash" else [sys.executable, str(path)]
        shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        for option in options:
            assert option in shown.stdout, (words, option)


@pytest.mark.parametrize("readme", READMES)
def test_the_eighth_experiment_is_a_valid_config(
    repository: Path, readme: str, tmp_path: Path
) -> None:
    """What the README shows as a new experiment loads as it stands."""
    shutil.copytree(repository / "config", tmp_path / "config")
    example = tmp_path / "config" / "experiments" / "05_my_kobart.yaml"
    example.write_text(read_blocks(repository / readme, "yaml")[0], encoding="utf-8")
    assert load_config(example).config.qlora.lora_rank == 32


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(repository: Path, readme: str) -> None:
    """Every relative link names a file of the project."""
    text = (repository / readme).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (repository / target).exists(), target


@pytest.mark.parametrize("readme", READMES)
def test_the_mark_of_the_closing_checks_is_explained(repository: Path, readme: str) -> None:
    """What the closing lines hold a run against stands in the README in the same words."""
    text = (repository / readme).read_text(encoding="utf-8").replace("\n", " ")
    assert f"`ROUGE-1 over {LEAST_ROUGE1:g} (whitespace tokens)`" in text


def test_planned_times_are_those_of_the_experiment_files(repository: Path) -> None:
    """The README's times are the configs' expected_minutes."""
    words = {"45 min": 45, "1 h": 60, "1.5 h": 90}
    text = (repository / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| \d \| `(\w+)` \| .* \| (.+) \|", text)
    assert len(rows) == 7
    for name, time in rows:
        loaded = load_config(repository / "config" / "experiments" / f"{name}.yaml")
        assert loaded.config.general.expected_minutes == words[time], name
