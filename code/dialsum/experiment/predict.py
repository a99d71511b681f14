"""A finished run's model at work: summaries of other dialogues, as the run itself would write them.

Must not know how the model was trained.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dialsum.config.load import LoadedConfig
from dialsum.config.messages import problem_lines
from dialsum.config.schema import Columns, Config, schema_keys
from dialsum.config.sources import read_overrides
from dialsum.config.yaml import Origin
from dialsum.data.encode import encode_rows
from dialsum.data.prompts import make_frame
from dialsum.data.rows import Dialogue, Kind, load_split
from dialsum.data.submission import fill_empty, write_predictions, write_submission
from dialsum.data.tables import read_rows
from dialsum.errors import ConfigError, UnfitError
from dialsum.experiment.choices import choose
from dialsum.files import write_csv
from dialsum.generate import GenerationSettings, generate
from dialsum.machine.devices import pick_device
from dialsum.models.load import quiet_libraries
from dialsum.models.save import load_saved_model, read_info
from dialsum.paths import LLM_OUTPUTS, OUTPUTS, RunPaths, project_path, shown
from dialsum.record import find_model, holds_run


@dataclass(frozen=True)
class Inputs:
    """Dialogues to summarise.

    Args:
        has_summaries: the file has references, as a dev file; else it has a test file's form.
    """

    rows: list[Dialogue]
    has_summaries: bool


ITS_OWN = ("model.architecture", "model.checkpoint", "model.revision")
"""Settings that a saved model has for good."""


def find_saved_model(run: str) -> Path:
    """Return the folder of a run's model.

    Args:
        run: a run's folder, its model's, or the name of an experiment under outputs/: of a batch of
            real checkpoints, else of a run by itself, else the only one of that name elsewhere.

    Raises:
        UnfitError: no finished model is there.
    """
    root = project_path(OUTPUTS)
    real = Path("auto_experiments") / "experiments" / run
    named = [root / real, project_path(LLM_OUTPUTS) / real, root / run]
    name = glob.escape(run)
    found = [*root.glob(f"*/experiments/{name}"), *root.glob(f"*/*/experiments/{name}")]
    others = [one for one in sorted(found) if one not in named]
    if not any(folder.is_dir() for folder in (Path(run), *named)) and len(others) > 1:
        places = ", ".join(map(shown, others))
        raise UnfitError(f"{run}: there are {len(others)} runs of that name; say which: {places}")
    for folder in (Path(run), *named, *others):
        if (folder / "model_info.json").is_file():
            return folder
        if folder.is_dir() and holds_run(folder):
            model = find_model(folder) or RunPaths.alone(folder).model
            if (model / "model_info.json").is_file():
                return model
            raise UnfitError(f"{folder}: this run has no model: it did not come that far")
    raise UnfitError(
        f"{run}: no run and no saved model; give a run's folder, such as outputs/NAME or "
        "outputs/demo/experiments/NAME, or a model's, such as outputs/auto_experiments/models/NAME"
    )


def read_config(folder: Path, overrides: Sequence[str] = ()) -> Config:
    """Return the config of a saved model's run.

    Args:
        overrides: `key=value` each, laid over it.

    Raises:
        ConfigError: they do not fit.
        UnfitError: they would make it another model's.
    """
    config = Config.model_validate(read_info(folder)["config"])
    if not overrides:
        return config
    source = read_overrides(overrides)
    if source.problems:
        raise ConfigError(problem_lines(source.problems))
    if own := [one.key for one in source.statements if one.key in ITS_OWN]:
        raise UnfitError(f"--set {', '.join(own)}: {folder} has its own; give another run")
    origin = Origin(None, None, f"{folder / 'model_info.json'}")
    loaded = LoadedConfig(folder, config, dict.fromkeys(schema_keys(), origin), notes=[])
    return loaded.changed(source).config


def read_inputs(source: str, text: str = "", *, columns: Columns) -> Inputs:
    """Read the dialogues to summarise.

    Args:
        source: a table of rows, or `-` for the one dialogue in text.
        columns: the file's own names of its columns; where it has not these, it may have ours.

    Raises:
        DataError: the file is not fit, with row and line; UnfitError: text says nothing.
    """
    if source == "-":
        if not text.strip():
            raise UnfitError("--input -: standard input is empty; give a dialogue, a turn a line")
        return Inputs([Dialogue("stdin", text.strip(), None, None, 1)], has_summaries=False)
    path = Path(source)
    table = read_rows(path, required=())
    names = set(table[0].values) if table else set()
    if not {columns.fname, columns.dialogue} <= names and {"fname", "dialogue"} <= names:
        columns = Columns()
    kind: Kind = "dev" if columns.summary in names else "test"
    split = load_split(path, kind=kind, columns=columns)
    return Inputs(split.rows, has_summaries=kind == "dev")


def predict(
    folder: Path,
    rows: Sequence[Dialogue],
    *,
    config: Config,
    num_beams: int | None = None,
    device: str | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Return a summary of each dialogue, equal to the run's own where the search is.

    Args:
        folder: of the model, as find_saved_model returns it.
        config: as read_config returns it.
        num_beams: other than the run's.
        device: auto, cuda, mps or cpu; the run's general.device when None.
        on_batch: called with the rows that are written and all.

    Raises:
        UnfitError: the model's base is not there or has changed, or the device is not there.
    """
    quiet_libraries()
    info = read_info(folder)
    chosen = choose(config, device=pick_device(device) if device else None)
    model, tokenizer = load_saved_model(
        folder, config=config, device=chosen.where.torch_name, dtype=chosen.dtype
    )
    settings = GenerationSettings.from_config(
        config,
        exempt=tokenizer.convert_tokens_to_ids(info["tags"]),
        bf16=chosen.bf16,
        num_beams=num_beams,
    )
    bare = [replace(row, summary=None) for row in rows]
    frame = make_frame(config, tokenizer, subject_of=info.get("subject_of"))
    encoded = encode_rows(bare, tokenizer, config.tokenizer, frame=frame)
    return generate(
        model,
        tokenizer,
        encoded.inputs,
        settings=settings,
        batch_size=chosen.eval_batch_size(settings.num_beams),
        on_batch=on_batch,
    )


def write_output(
    path: Path, inputs: Inputs, summaries: Sequence[str], other: Sequence[str] | None
) -> int:
    """Write summaries in the form of what was read: beside dialogue and reference, or as a
    submission; two runs' side by side.

    Returns:
        How many came out empty and hold their dialogue's first utterance: a submission has none.
    """
    filled = 0
    if other is not None:
        rows = zip(inputs.rows, summaries, other, strict=True)
        write_csv(
            path,
            ["fname", "summary", "summary_of_the_other", "dialogue", "reference"],
            [[row.fname, one, two, row.dialogue, row.summary or ""] for row, one, two in rows],
        )
    elif inputs.has_summaries:
        write_predictions(path, inputs.rows, summaries)
    else:
        whole, filled = fill_empty(summaries, inputs.rows)
        write_submission(path, inputs.rows, whole)
    return filled
