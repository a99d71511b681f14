"""Write data/sample: small, made-up Korean dialogues with summaries, the same bytes for the same seed.

    python scripts/make_sample_data.py [--output-dir data/sample] [--seed 7]

The scenes are the YAML files of scripts/sample_scenes; this file only shares them out over the splits and checks the result.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from sample_scenes.grammar import Sample, SceneError, make_sample

from dialsum.atomic import write_csv
from dialsum.errors import DialsumError

PROJECT = Path(__file__).resolve().parent.parent
SCENES = Path(__file__).resolve().parent / "sample_scenes"
SPLITS = {"train": 600, "dev": 80, "test": 80}  # rows
DIALOGUE_CHARACTERS = (150, 900)
SUMMARY_CHARACTERS = (35, 190)
ATTEMPTS_PER_ROW = 200


def read_scenes(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (scenes by name, vocabularies by name) from the YAML files of folder.

    Raises:
        SceneError: two files define a scene of the same name.
    """
    vocabulary: dict[str, Any] = yaml.safe_load((folder / "vocabulary.yaml").read_text(encoding="utf-8"))
    scenes: dict[str, Any] = {}
    for path in sorted(folder.glob("scenes_*.yaml")):
        for name, scene in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            if name in scenes:
                raise SceneError(f"{path}: scene {name!r} is defined twice")
            scenes[name] = scene
    return scenes, vocabulary


def is_fit(sample: Sample) -> bool:
    """Whether the lengths lie in the range of real dialogues."""
    low, high = DIALOGUE_CHARACTERS
    shortest, longest = SUMMARY_CHARACTERS
    return low <= len(sample.dialogue) <= high and shortest <= len(sample.summary) <= longest


def make_scene_rows(
    name: str, scene: Mapping[str, Any], vocabulary: Mapping[str, Any], *, rows: int, seed: int
) -> list[Sample]:
    """Make rows of one scene, no two with the same facts, dialogue or summary.

    Raises:
        SceneError: the scene has too few slots and wordings for so many different rows.
    """
    rng = random.Random(f"{seed}/{name}")
    made: list[Sample] = []
    taken: set[object] = set()
    for _ in range(rows * ATTEMPTS_PER_ROW):
        if len(made) == rows:
            return made
        sample = make_sample(name, scene, vocabulary, rng)
        keys = {sample.facts, sample.dialogue, sample.summary}
        if is_fit(sample) and not keys & taken:
            taken |= keys
            made.append(sample)
    if len(made) == rows:
        return made
    raise SceneError(f"scene {name!r}: only {len(made)} different rows of {rows} after {rows * ATTEMPTS_PER_ROW} "
                     "attempts; give it more slots or wordings")


def make_splits(scenes: Mapping[str, Any], vocabulary: Mapping[str, Any], *, seed: int) -> dict[str, list[Sample]]:
    """Return each split's rows: the situations spread evenly over every split, in shuffled order."""
    rng = random.Random(seed)
    names = sorted(scenes)
    rng.shuffle(names)
    # One long cycle over the scenes, cut into the splits: each split gets every scene equally often, give or take one.
    total = sum(SPLITS.values())
    order = [names[position % len(names)] for position in range(total)]
    supply = {
        name: iter(make_scene_rows(name, scenes[name], vocabulary, rows=order.count(name), seed=seed)) for name in names
    }
    splits: dict[str, list[Sample]] = {}
    for split, rows in SPLITS.items():
        part, order = order[:rows], order[rows:]
        splits[split] = [next(supply[name]) for name in part]
        rng.shuffle(splits[split])
    return splits


def find_repeats(splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Return a line for every dialogue or summary that stands twice anywhere; empty when all is well."""
    seen: dict[str, str] = {}
    problems = []
    for split, samples in splits.items():
        for row, sample in enumerate(samples):
            for text in (sample.dialogue, sample.summary):
                if text in seen:
                    problems.append(f"{split} row {row} repeats {seen[text]}: {text[:60]!r}")
                seen.setdefault(text, f"{split} row {row}")
    return problems


def write_splits(splits: Mapping[str, Sequence[Sample]], folder: Path) -> None:
    """Write train.csv, dev.csv, test.csv and test_references.csv into folder, each whole."""
    for split in ("train", "dev"):
        rows = [(f"sample_{split}_{n}", s.dialogue, s.summary, s.topic) for n, s in enumerate(splits[split])]
        write_csv(folder / f"{split}.csv", ("fname", "dialogue", "summary", "topic"), rows)
    names = [f"sample_test_{n}" for n in range(len(splits["test"]))]
    tests = list(zip(names, splits["test"], strict=True))
    write_csv(folder / "test.csv", ("fname", "dialogue"), [(name, s.dialogue) for name, s in tests])
    references = [(name, s.summary, s.topic) for name, s in tests]
    write_csv(folder / "test_references.csv", ("fname", "summary", "topic"), references)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows, check them, write them; returns the exit status (0 done, 2 a scene or folder is not fit)."""
    parser = argparse.ArgumentParser(description="Write the sample data that the demo trains on.")
    parser.add_argument("--output-dir", type=Path, default=PROJECT / "data" / "sample", help="default: data/sample")
    parser.add_argument("--seed", type=int, default=7, help="same seed, same bytes (default 7)")
    options = parser.parse_args(arguments)
    try:
        scenes, vocabulary = read_scenes(SCENES)
        splits = make_splits(scenes, vocabulary, seed=options.seed)
        if repeats := find_repeats(splits):
            raise SceneError("rows repeat:\n" + "\n".join(repeats))
        write_splits(splits, options.output_dir)
    except (SceneError, DialsumError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = ", ".join(f"{split} {len(rows)}" for split, rows in splits.items())
    print(f"{len(scenes)} situations, rows: {counts} -> {options.output_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
