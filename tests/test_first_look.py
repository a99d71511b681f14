"""What is looked for before anything is installed: data, a card, a driver that fits."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from dialsum.batch import first_look
from dialsum.cli import read_batch_options


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with sample data and no data of the user's."""
    for folder in ("data/sample", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        for name in first_look.DATA_FILES:
            (tmp_path / folder / name).touch()
    return tmp_path


def make_smi(folder: Path, *, output: str, status: int = 0) -> dict[str, str]:
    """Put an nvidia-smi that prints output into folder; return an environment that finds it."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(
        f"#!{shutil.which('bash')}\nprintf '%b' '{output}'\nexit {status}\n", encoding="utf-8"
    )
    program.chmod(0o755)
    return {"PATH": str(folder)}


def look(
    arguments: list[str], *, project: Path, environment: dict[str, str] | None = None
) -> list[str]:
    asked = read_batch_options(["--config=x.yaml", *arguments])
    return first_look.find_missing(asked, repository=project, environment=environment or {})


RTX = "NVIDIA GeForce RTX 3090, 580.95.05\\n"


@pytest.mark.parametrize(
    ("arguments", "card", "expected"),
    [
        ([], "", ["data: ", "GPU: "]),
        ([], RTX, ["data: "]),
        (["--data-dir", "{mine}"], "", ["GPU: "]),
        (["--data-dir={mine}", "--one-epoch"], RTX, []),
        (["--data-dir", "{mine}", "--set", "general.device=cpu"], "", []),
        (["--data-dir", "{mine}", "--set=general.device=mps"], "", []),
        (["--data-dir", "{mine}", "--set", "device = cpu", "--set", "lr=3e-5"], "", []),
        (["--data-dir", "{mine}", "--set", "general.device=cuda"], "", ["GPU: "]),
        (["--data-dir", "{mine}", "--dry-run"], "", []),
        (["--dry-run"], "", []),
        (["--explain"], "", []),
        (["--demo"], "", []),
        (["--demo", "--data-dir", "{mine}"], "", []),
        (["--demo", "--data-dir", "{mine}/none"], "", ["data: there is no folder"]),
        (["--demo", "--data-dir", "{mine}/train.csv"], "", ["data: "]),
        (["--set", "foo", "--set=a.b"], "", ["data: ", "GPU: ", "--set foo", "--set a.b"]),
        (["--demo", "--set", "training.seed=1", "--set", "training.logging_steps=1"], "", []),
    ],
)
def test_missing_things_are_listed_together(
    arguments: list[str], card: str, expected: list[str], project: Path
) -> None:
    environment = make_smi(project / "bin", output=card) if card else {"PATH": str(project)}
    filled = [argument.format(mine=project / "mine") for argument in arguments]
    problems = look(filled, project=project, environment=environment)
    assert len(problems) == len(expected), problems
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_only_the_files_that_are_missing_are_named(project: Path) -> None:
    (project / "mine" / "dev.csv").unlink()
    (problem,) = first_look.find_data_problems(project / "mine")
    assert problem.startswith("data: dev.csv not found")


def test_files_named_by_set_are_looked_for_instead(project: Path) -> None:
    mine = project / "mine"
    (mine / "train.csv").rename(mine / "train.jsonl")
    (mine / "test.csv").unlink()
    (mine / "dialogues.json").touch()
    (mine / "test.csv.gz").write_bytes(gzip.compress(b"fname,dialogue\n"))
    (mine / "test.csv.old").mkdir()
    asked = ["--demo", "--data-dir", str(mine)]
    (problem,) = look(asked, project=project)
    assert "train.jsonl is there: --set data.train_file=train.jsonl" in problem
    assert "scripts/convert_aihub.py" in problem
    assert (
        f"test.csv.gz is packed by gzip, not a CSV file; unpack it to {mine / 'test.csv'}: "
        in problem
    )
    words = ["--set", "data.train_file=train.jsonl", "--set=data.test_file=null"]
    assert look([*asked, *words], project=project) == []
    words = ["--set", "data.train_file=other.jsonl", "--set=data.test_file=null"]
    (problem,) = look([*asked, *words], project=project)
    assert problem.startswith("data: other.jsonl not found")


@pytest.mark.parametrize(
    ("config", "words", "missing"),
    [
        ("training: {seed: 1}", [], "train.csv, dev.csv, test.csv"),
        ("data:\n  dev_file: null\n  dev_share: 0.1\n", [], "train.csv, test.csv"),
        ("data: {dev_share: 0.1, train_file: mine.csv}", [], "test.csv"),
        ("", ["--set=data.dev_file=null", "--set=data.dev_share=0.1"], "train.csv, test.csv"),
        ("data: {dev_share: 0.1}", ["--set=data.dev_file=d.csv"], "train.csv, d.csv, test.csv"),
        ("data: {data_dir: /elsewhere}", [], None),
        ("data: {data_dir: /elsewhere}", ["--data-dir=none"], "there is no folder"),
    ],
)
def test_what_a_config_says_of_its_data_is_for_its_reader(
    config: str, words: list[str], missing: str | None, project: Path
) -> None:
    path = project / "own.yaml"
    path.write_text(config, encoding="utf-8")
    problems = look([f"--config={path}", *words, "--set=general.device=cpu"], project=project)
    assert len(problems) == (missing is not None)
    assert all(problem.startswith(f"data: {missing}") for problem in problems)


def test_a_folder_in_the_place_of_a_file_is_called_one(project: Path) -> None:
    mine = project / "mine"
    (mine / "dev.csv").unlink()
    (mine / "dev.csv").mkdir()
    assert first_look.find_data_problems(mine) == [
        f"data: {mine / 'dev.csv'} is a folder, not a CSV file."
    ]
    (mine / "test.csv").unlink()
    folder, missing = first_look.find_data_problems(mine)
    assert "dev.csv is a folder" in folder
    assert missing.startswith("data: test.csv not found in")


@pytest.mark.parametrize(
    ("output", "status", "hidden", "names", "why"),
    [
        ("", 0, None, [], "ends with 0"),
        (
            "Failed to initialize NVML: Driver/library version mismatch\\n",
            18,
            None,
            [],
            "version mismatch",
        ),
        (RTX, 0, "-1", [], "hides every card"),
        (RTX, 0, "", [], "hides every card"),
        (RTX, 0, "0", ["NVIDIA GeForce RTX 3090"], ""),
        (RTX + "Tesla T4, 580.95.05\\n", 0, None, ["NVIDIA GeForce RTX 3090", "Tesla T4"], ""),
    ],
)
def test_nvidia_smi_is_believed_only_when_it_names_cards(
    output: str, status: int, hidden: str | None, names: list[str], why: str, tmp_path: Path
) -> None:
    environment = make_smi(tmp_path / "bin", output=output, status=status)
    if hidden is not None:
        environment["CUDA_VISIBLE_DEVICES"] = hidden
    cards, why_none = first_look.ask_nvidia_smi(environment)
    assert [name for name, _ in cards] == names
    assert why in why_none
    assert bool(cards) != bool(why_none)


CU130 = "cuda: Optional[str] = '13.0'\n"
OLD = ["470.256", "nvidia-driver-525"]


@pytest.mark.parametrize(
    ("driver", "torch", "said"),
    [
        ("580.65.06", CU130, []),
        ("610.10", CU130, []),
        ("[N/A]", CU130, []),
        ("550.54.14", None, []),
        ("550.54.14", "", []),
        ("550.54.14", "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", []),
        ("550.54.14", 'cuda = "12.6"\n', []),
        ("550.54.14", CU130, ["550.54.14", "580", "UV_TORCH_BACKEND=cu126", "nvidia-driver-580"]),
        ("470.256", "__version__ = '2.13.0'\ndebug = False\n" + CU130, ["nvidia-driver-580"]),
        ("470.256", "cuda = '12.6'\n", OLD),
    ],
)
def test_driver_too_old_for_the_installed_torch_is_said_with_the_way_out(
    driver: str, torch: str | None, said: list[str], tmp_path: Path
) -> None:
    environment = make_smi(tmp_path / "bin", output=f"RTX 3090, {driver}\\n")
    if torch is not None:
        (tmp_path / "torch").mkdir()
        (tmp_path / "torch" / "version.py").write_text(torch, encoding="utf-8")
    build = first_look.installed_torch_build(tmp_path)
    problems = first_look.find_gpu_problems(environment, build=build)
    assert len(problems) == bool(said)
    for words in said:
        assert words in problems[0]
    if driver.startswith("470"):
        assert "UV_TORCH_BACKEND" not in problems[0]


@pytest.mark.parametrize(
    ("driver", "backend", "said"),
    [
        ("550.54.14", "", []),
        ("470.256", "", OLD),
        ("470.256", "cpu", []),
        ("550.54.14", "cu130", ["nvidia-driver-580"]),
        ("580.1", "cu130", []),
        ("470.256", "auto", []),
    ],
)
def test_driver_too_old_for_any_torch_is_said_before_one_is_installed(
    driver: str, backend: str, said: list[str], project: Path
) -> None:
    environment = make_smi(project / "bin", output=f"RTX 3090, {driver}\\n")
    asked = ["--data-dir", str(project / "mine")]
    environment |= {"UV_TORCH_BACKEND": backend}
    problems = look(asked, project=project, environment=environment)
    assert len(problems) == bool(said)
    for words in said:
        assert words in problems[0]
