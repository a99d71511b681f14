"""Write data/sample: made-up Korean dialogues with summaries, the same bytes for the same seed.

    python scripts/make_sample_data.py [--output-dir data/sample] [--seed 7]

The scenes are the YAML files of scripts/sample_scenes. This file shares them out over the splits
and checks the result; it must not know how a scene becomes text.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "code"))

from dialsum.cli import require_packages

if TYPE_CHECKING:
    from sample_scenes.grammar import Sample

PROJECT = Path(__file__).resolve().parent.parent
SCENES = Path(__file__).resolve().parent / "sample_scenes"
ROWS = {"train": 600, "dev": 80, "test": 80}
DIALOGUE_CHARACTERS = (150, 900)
SUMMARY_CHARACTERS = (40, 160)
"""The range of real dialogues."""
ATTEMPTS_PER_ROW = 200


def read_scenes(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (scenes by name, vocabularies by name) from the YAML files of folder.

    Raises:
        SceneError: two files define a scene of the same name.
    """
    import yaml
    from sample_scenes.grammar import SceneError

    vocabulary = yaml.safe_load((folder / "vocabulary.yaml").read_text(encoding="utf-8"))
    scenes: dict[str, Any] = {}
    for path in sorted(folder.glob("scenes_*.yaml")):
        for name, scene in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            if name in scenes:
                raise SceneError(f"{path}: scene {name!r} is defined twice")
            scenes[name] = scene
    return scenes, vocabulary


def make_scene_rows(
    name: str, scene: Mapping[str, Any], vocabulary: Mapping[str, Any], *, rows: int, seed: int
) -> list[Sample]:
    """Make rows of one scene, no two with the same facts, dialogue or summary.

    Raises:
        SceneError: the scene has too few slots and wordings for so many different rows.
    """
    from sample_scenes.grammar import SceneError, make_sample

    low, high = DIALOGUE_CHARACTERS
    shortest, longest = SUMMARY_CHARACTERS
    rng = random.Random(f"{seed}/{name}")
    made: list[Sample] = []
    taken: set[object] = set()
    for _ in range(rows * ATTEMPTS_PER_ROW):
        if len(made) == rows:
            break
        sample = make_sample(name, scene, vocabulary, rng)
        keys = {sample.facts, sample.dialogue, sample.summary}
        fits = low <= len(sample.dialogue) <= high and shortest <= len(sample.summary) <= longest
        if fits and not keys & taken:
            taken |= keys
            made.append(sample)
    if len(made) < rows:
        raise SceneError(
            f"scene {name!r}: only {len(made)} different rows of {rows} in "
            f"{rows * ATTEMPTS_PER_ROW} attempts; give it more slots or wordings"
        )
    return made


def make_splits(
    scenes: Mapping[str, Any], vocabulary: Mapping[str, Any], *, seed: int
) -> dict[str, list[Sample]]:
    """Return each split's rows in shuffled order, every situation equally often, give or take one.

    Raises:
        SceneError: as make_scene_rows.
    """
    rng = random.Random(seed)
    names = sorted(scenes)
    rng.shuffle(names)
    # One long cycle over the scenes, cut into the splits.
    order = [names[position % len(names)] for position in range(sum(ROWS.values()))]
    supply = {}
    for name in names:
        rows = make_scene_rows(name, scenes[name], vocabulary, rows=order.count(name), seed=seed)
        supply[name] = iter(rows)
    splits: dict[str, list[Sample]] = {}
    for split, count in ROWS.items():
        part, order = order[:count], order[count:]
        splits[split] = [next(supply[name]) for name in part]
        rng.shuffle(splits[split])
    return splits


def write_splits(splits: Mapping[str, Sequence[Sample]], folder: Path) -> None:
    """Write train.csv, dev.csv, test.csv and test_references.csv into folder, each whole.

    Raises:
        DiskFullError, RunError: a file cannot be written.
    """
    from dialsum.files import write_csv

    named = {
        split: [(f"sample_{split}_{number}", sample) for number, sample in enumerate(samples)]
        for split, samples in splits.items()
    }
    for split in ("train", "dev"):
        rows = [(name, row.dialogue, row.summary, row.topic) for name, row in named[split]]
        write_csv(folder / f"{split}.csv", ("fname", "dialogue", "summary", "topic"), rows)
    tests = [(name, row.dialogue) for name, row in named["test"]]
    write_csv(folder / "test.csv", ("fname", "dialogue"), tests)
    references = [(name, row.summary, row.topic) for name, row in named["test"]]
    write_csv(folder / "test_references.csv", ("fname", "summary", "topic"), references)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows, check them, write them; returns the exit status.

    Raises:
        SceneError: a scene is not fit, or two rows are the same.
    """
    parser = argparse.ArgumentParser(description="Write the sample data that --demo trains on.")
    folder = PROJECT / "data" / "sample"
    parser.add_argument("--output-dir", type=Path, default=folder, help="default: data/sample")
    parser.add_argument("--seed", type=int, default=7, help="same seed, same bytes (default: 7)")
    options = parser.parse_args(arguments)
    from sample_scenes.grammar import SceneError

    scenes, vocabulary = read_scenes(SCENES)
    splits = make_splits(scenes, vocabulary, seed=options.seed)
    first: dict[str, str] = {}
    for split, samples in splits.items():
        for row, sample in enumerate(samples):
            for text in (sample.dialogue, sample.summary):
                if text in first:
                    raise SceneError(
                        f"{split} row {row} repeats {first[text]}, nothing was written: {text!r}"
                    )
                first[text] = f"{split} row {row}"
    write_splits(splits, options.output_dir)
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
    print(f"{options.output_dir}: {len(scenes)} situations, rows: {counts}")
    return 0


if __name__ == "__main__":
    if importlib.util.find_spec("yaml") is None:  # all else that it needs is the standard library
        require_packages(__file__)
    from dialsum.errors import run_script

    run_script(main)
