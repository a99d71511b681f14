"""What is wrong beside a configuration that is wrong itself: a user is told all of it at once.

Also the checks of one run that no batch started. Must not start anything, nor load a model.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dialsum.batch.check_data import check_data
from dialsum.batch.check_machine import find_machine_problems
from dialsum.batch.check_model import find_model_problems, pin_checkpoint
from dialsum.batch.check_place import find_run_problems
from dialsum.config.read import LoadedConfig, load_config
from dialsum.environment_variables import find_secret_problems, read_env_file
from dialsum.errors import ConfigError, ProblemsError
from dialsum.experiment.environment import find_shadowed_packages
from dialsum.paths import PROJECT_ROOT, RunPaths


def load_fit(
    path: Path,
    *,
    overrides: Sequence[str],
    overlays: Sequence[Path],
    environment: Mapping[str, str],
    place: RunPaths,
    resume: bool,
) -> LoadedConfig:
    """Load an experiment that can run here, as far as that can be known without loading its model
    (see check_fit).

    Raises:
        ProblemsError: configuration, place, machine, checkpoint or data are unfit: all of it.
    """
    wrong: list[str] = []
    try:
        loaded = load_config(path, overrides=overrides, overlays=overlays)
    except ConfigError as error:
        mended = load_without_wrong(path, overrides=overrides, overlays=overlays)
        if mended is None:
            raise
        loaded, wrong = mended, error.problems
    return check_fit(loaded, environment=environment, place=place, resume=resume, known=wrong)


def check_fit(
    loaded: LoadedConfig,
    *,
    environment: Mapping[str, str],
    place: RunPaths,
    resume: bool,
    known: Sequence[str] = (),
) -> LoadedConfig:
    """Refuse an experiment that cannot run on this machine, or not at its place; fetch its
    checkpoint where it can.

    Its data are read only where something else is wrong: the run itself reads them next.

    Args:
        environment: environment variables, which may hide cards or name the hub's cache.
        place: where its files go.
        resume: whether it goes on with the run that stands there.
        known: what is wrong with its configuration.

    Returns:
        The experiment with the commit of its checkpoint (pin_checkpoint).

    Raises:
        ProblemsError: place, machine, checkpoint or data are unfit, or the configuration was.
    """
    wrong = [*known, *find_shadowed_packages()]
    wrong += find_run_problems(place, loaded.config, resume=resume)
    wrong += find_machine_problems([loaded.config], environment=environment)
    wrong += find_model_problems(loaded.config, environment=environment)[0]
    if wrong:
        raise ProblemsError([*wrong, *check_data([loaded.config]).problems])
    return pin_checkpoint(loaded, environment=environment)


def take_env_file(path: Path = PROJECT_ROOT / ".env") -> list[str]:
    """Take what a file .env may give into this process's environment; return what to say of it.

    Raises:
        ProblemsError: it cannot be read, or a token, here or there, is none.
    """
    found = read_env_file(path)
    for name, value in found.values.items():
        os.environ.setdefault(name, value)
    problems = found.problems + find_secret_problems(os.environ)
    if problems:
        raise ProblemsError(problems)
    return found.notes


def load_without_wrong(
    path: Path, *, overrides: Sequence[str], overlays: Sequence[Path]
) -> LoadedConfig | None:
    """Load an experiment without the overrides that are wrong, to look at what is beside them.

    Returns:
        None where it cannot be loaded without them either: its file is wrong.
    """

    def load(kept: Sequence[str]) -> LoadedConfig | None:
        try:
            return load_config(path, overrides=kept, overlays=overlays)
        except ConfigError:
            return None  # whoever asks has said why already

    if load([]) is None:
        return None
    return load([override for override in overrides if load([override]) is not None])


def find_problems_beside(
    paths: Sequence[Path],
    *,
    overrides: Sequence[str],
    overlays: Sequence[Path],
    environment: Mapping[str, str],
) -> list[str]:
    """Return what is wrong with data and machine for experiments whose configuration is unfit."""
    loaded = [load_without_wrong(one, overrides=overrides, overlays=overlays) for one in paths]
    configs = [one.config for one in loaded if one is not None]
    return [*check_data(configs).problems, *find_machine_problems(configs, environment=environment)]
