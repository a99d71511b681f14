"""What of the user's environment, and of a file .env, reaches a run; nothing overrules it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dialsum.environment_variables import (
    ENV_FILE_KEYS,
    FAMILIES,
    KEPT_OUT,
    WORLD_SIZES,
    describe_variables,
    family_of,
    find_kept_out,
    find_said,
    record_variables,
    take_env_file,
)
from dialsum.packages import find_shadowed_packages
from trainer_runs import REPOSITORY, command, environment


def read_variables(text: str) -> dict[str, str]:
    """Return NAME=value words as an environment."""
    return dict(word.split("=", 1) for word in text.split())


KEPT_OUT_ONES = read_variables("""
ACCELERATE_MIXED_PRECISION=fp16 ACCELERATE_DYNAMO_BACKEND=inductor ACCELERATE_USE_FSDP=true
ACCELERATE_GRADIENT_ACCUMULATION_STEPS=8 FSDP_OFFLOAD_PARAMS=true XLA_USE_BF16=1 WANDB_RUN_ID=same
WANDB_PROJECT=theirs WANDB_ENTITY=them WANDB_NAME=x WANDB_RESUME=must PYTHONPATH=/x PYTHONHOME=/x
PYTHONSTARTUP=/x PYTHONWARNINGS=error PYTHONOPTIMIZE=2 PYTHONINTMAXSTRDIGITS=0 RANK=0 LOCAL_RANK=0
WORLD_SIZE=1 MASTER_ADDR=x OMPI_COMM_WORLD_RANK=0 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1
NVIDIA_TF32_OVERRIDE=0 TORCH_COMPILE_DEBUG=1 TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1
PYTORCH_NO_CUDA_MEMORY_CACHING=1 ONEDNN_DEFAULT_FPMATH_MODE=BF16 UNSLOTH_FORCE_FLOAT32=1
TRUST_REMOTE_CODE=1 TRANSFORMERS_VERBOSITY=debug USE_TORCH=0
""")
SAID_ONES = read_variables("""
CUDA_VISIBLE_DEVICES=1 OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 LD_PRELOAD=/x.so
PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True WANDB_MODE=offline HF_HUB_OFFLINE=1
BNB_CUDA_VERSION=130 TOKENIZERS_PARALLELISM=false ONEDNN_MAX_CPU_ISA=AVX2
""")
LEFT_ALONE = read_variables("""
PATH=/bin HOME=/root HF_TOKEN=secret HF_HOME=/x WANDB_API_KEY=secret
HTTPS_PROXY=http://user:secret@x LD_LIBRARY_PATH=/x PYTHON=python3.11 PYTHON_VERSION=3.11
PYTHONUTF8=1 PYTHONHASHSEED=0 CUDA_HOME=/x PYTORCH_VERSION=2 TORCH_HOME=/x
NVIDIA_VISIBLE_DEVICES=all TMPDIR=/x TRITON_CACHE_DIR=/x WANDB_BASE_URL=http://x SLURM_JOB_ID=1
""")


def test_each_variable_is_kept_out_said_or_left_alone() -> None:
    everything = {**KEPT_OUT_ONES, **SAID_ONES, **LEFT_ALONE}
    assert find_kept_out({}) == [] and find_said({}) == {}
    assert find_kept_out(everything) == sorted(KEPT_OUT_ONES)
    assert find_said(everything) == SAID_ONES


@pytest.mark.parametrize("value", ["2", "abc", "-2"])
@pytest.mark.parametrize("name", WORLD_SIZES)
def test_a_launcher_of_several_processes_stays_to_be_refused(name: str, value: str) -> None:
    assert find_kept_out({name: value, "RANK": "1"}) == ["RANK"]


def test_what_is_said_has_no_value_that_is_kept_out_and_no_control_character() -> None:
    told = {**SAID_ONES, "LD_PRELOAD": "\x1b[2J" + "x" * 500, KEPT_OUT: "WANDB_RUN_ID,PYTHONPATH"}
    lines = describe_variables(told)
    assert "\x1b" not in "".join(lines) and max(map(len, lines)) < 600
    assert [line.split(" (")[0] for line in lines[:2]] == [
        "kept out of the environment: PYTHONPATH",
        "kept out of the environment: WANDB_RUN_ID",
    ]
    assert "CUDA_VISIBLE_DEVICES=1" in lines[2]
    assert describe_variables({**LEFT_ALONE}) == []
    assert "secret" not in json.dumps(record_variables({**LEFT_ALONE, **told}))


READ = re.compile(
    r"""(?:environ(?:\.get|\.setdefault|\.pop)?[\[(]|getenv\(|flag_from_env\(|choice_from_env\()"""
    r"""\s*["']([A-Z][A-Z0-9_]{2,})["']"""
)
OF_OTHERS = re.compile(
    # The system's, the network's, and of the places that programs run in.
    "(PATH|HOME|USER.*|SHELL|TERM|CI|TE?MP(DIR)?|XDG_.*|NO_COLOR|SYSTEMROOT|HOSTNAME|NETRC|PEX|"
    "CURRENT_HOST|VIRTUAL_ENV|CONDA_.*|LOGLEVEL|DO_NOT_TRACK|DISABLE_TELEMETRY|TQDM_.*|"
    "AWS_.*|KAGGLE_.*|KFP_.*|KUBE.*|ARGO_.*|GITHUB_.*|ACTIONS_.*|DATABRICKS_.*|ECS_.*|COLAB_.*|"
    "TRAINING_JOB_.*|SM_.*|VERTEX_.*|SPACE_.*|OAUTH_.*|OPENID_.*|CLAUDE_.*|WEBHOOK_.*|TF_CONFIG|"
    # Of trackers, servers, devices and tests that no run of ours starts.
    "MLFLOW_.*|COMET_.*|CLEARML_.*|SWANLAB_.*|DISABLE_.*_INTEGRATION|TENSORBOARD_LOGGING_DIR|"
    "VLLM_.*|OPENREWARD_.*|RAY_.*|NPU_.*|ASCEND_.*|HCCL_.*|NCCL_.*|LEVEL_ZERO_.*|ZE_.*|HABANA_.*|"
    "NEURON_.*|MLU_.*|MUSA_.*|SDAA_.*|TF_CPP_.*|EAGER_IMPORT|NPROC|KMP_.*|RUN_.*|SKIP_.*|PYTEST_.*|"
    "BRANCH|CI_.*|NETWORK_DEBUG_.*|FOO|VAR1|BAR|ROCM_.*|HIP_.*|HSA_.*|TOKEN)"
)


def test_every_variable_that_the_libraries_read_is_decided() -> None:
    packages = ("accelerate", "transformers", "peft", "trl", "datasets", "huggingface_hub")
    undecided = set()
    for package in (*packages, "wandb", "bitsandbytes"):
        found = find_spec(package)
        for path in Path(str(found.origin)).parent.rglob("*.py"):
            for name in READ.findall(path.read_text(encoding="utf-8", errors="replace")):
                if family_of(name) is None and not OF_OTHERS.fullmatch(name):
                    undecided.add(f"{name} ({package})")
    assert sorted(undecided) == []


def test_the_guides_name_every_family_and_key() -> None:
    for guide in ("docs/environment.md", "docs/ko/environment.md"):
        text = (REPOSITORY / guide).read_text(encoding="utf-8")
        for family in FAMILIES:
            for name in f"{family.names} {family.said} {family.respected}".split():
                assert f"`{name}`" in text or name == "*", f"{guide} lacks {name}"
        for key in ENV_FILE_KEYS:
            assert f"`{key}`" in text, f"{guide} lacks {key}"


SHOW = f"""
import sys
sys.path.insert(0, {str(REPOSITORY / "code")!r})
from dialsum.environment_variables import start_without_kept_out
start_without_kept_out()
import json, os, importlib.util
peft = importlib.util.find_spec("peft")
print(json.dumps({{"variables": dict(os.environ), "peft": peft and peft.origin,
                  "optimize": sys.flags.optimize, "arguments": sys.argv[1:]}}))
"""


def test_a_process_starts_anew_without_what_is_kept_out(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "peft").mkdir(parents=True)
    (other / "peft" / "__init__.py").write_text("__version__ = '0.0.1'\n")
    script = tmp_path / "show.py"
    script.write_text(SHOW)
    # PYTHONHOME would keep Python itself from starting: the shell scripts take that one away.
    dirty = {name: value for name, value in KEPT_OUT_ONES.items() if name != "PYTHONHOME"}
    dirty["PYTHONPATH"] = str(other)
    clean = {"HF_TOKEN": "secret", "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, str(script), "한 글", "-1"],
        env={**os.environ, **dirty, **clean},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["arguments"] == ["한 글", "-1"]
    assert found["optimize"] == 0
    assert str(tmp_path) not in str(found["peft"])
    variables = found["variables"]
    assert not set(dirty) & set(variables)
    assert set(clean.items()) <= set(variables.items())
    assert set(variables[KEPT_OUT].split(",")) >= set(dirty)


def test_one_experiment_says_what_it_was_spared(tmp_path: Path) -> None:
    line = command("01_mt5_xlsum_optimized_v2", tmp_path / "run", "--train-data", "/no/such.csv")
    done = subprocess.run(
        line,
        env=environment(ACCELERATE_MIXED_PRECISION="fp16", CUDA_VISIBLE_DEVICES="7"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "kept out of the environment: ACCELERATE_MIXED_PRECISION (precision" in done.stdout
    assert "CUDA_VISIBLE_DEVICES=7" in done.stdout


def test_a_batch_says_what_its_experiments_are_spared() -> None:
    runner = REPOSITORY / "code" / "auto_experiment_runner.py"
    config = REPOSITORY / "config" / "experiments" / "01_mt5_xlsum_optimized_v2.yaml"
    done = subprocess.run(
        [sys.executable, str(runner), "--config", str(config), "--demo", "--dry-run"],
        env=environment(WANDB_RUN_ID="same"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "kept out of the environment: WANDB_RUN_ID (" in done.stdout
    assert "same" not in done.stdout.split("kept out", 1)[1].split("\n", 1)[0].replace("WANDB", "")


def test_a_package_that_another_hides_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_shadowed_packages() == []
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "__init__.py").write_text("")
    monkeypatch.delitem(sys.modules, "peft", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    [problem] = find_shadowed_packages()
    assert str(tmp_path / "peft") in problem and "in place of peft" in problem


KEY, SECRET = "WANDB_API_KEY", "f00dfeed0123456789abcdef"
ENV_FILES = [
    (b"", {}, "", ""),
    (b"\n# only a comment\n", {}, "", ""),
    (f"{KEY}=\n".encode(), {}, "", ""),
    (f"{KEY}={SECRET}\n".encode(), {KEY: SECRET}, "", ""),
    (f'\ufeffexport {KEY} = "{SECRET}"  # mine\r\n'.encode(), {KEY: SECRET}, "", ""),
    (f"{KEY}=${{HOME}}\n".encode(), {KEY: "${HOME}"}, "", ""),
    (
        f"LD_PRELOAD=/{SECRET}.so\nHTTPS_PROXY={SECRET}\n{KEY}={SECRET}\n".encode(),
        {KEY: SECRET},
        "not taken: LD_PRELOAD, HTTPS_PROXY;",
        "",
    ),
    (f"# 열쇠\n{KEY}={SECRET}\n".encode("cp949"), {}, "", ".env:1: not UTF-8, perhaps cp949"),
    (f"{KEY}={SECRET}\n".encode("utf-16"), {}, "", ".env:1: not UTF-8, perhaps UTF-16"),
    (f"{KEY}={SECRET}\n".encode("utf-16-le"), {}, "", ".env:1: not UTF-8, perhaps UTF-16"),
    (f"{KEY}=x\n{KEY} {SECRET}!\n'oops\n".encode(), {KEY: "x"}, "", ".env:2: not KEY=value"),
    (f"{KEY}=x\n\n\n{SECRET}\n".encode(), {KEY: "x"}, "", ".env:4: not KEY=value"),
    (f"export {SECRET}\n".encode(), {}, "", ".env:1: not KEY=value"),
    (f"{KEY}\n".encode(), {}, "", ".env:1: not KEY=value"),
    (
        f"PATH=/x\n{SECRET}=\nhf_{SECRET}==\n".encode(),
        {},
        "not taken: PATH, 2 of other spelling, not shown;",
        "",
    ),
    (b"#" * 2**21, {}, "", "more than the 1,048,576"),
]


@pytest.mark.parametrize(("content", "values", "note", "problem"), ENV_FILES)
def test_of_a_file_env_only_our_keys_are_taken(
    content: bytes,
    values: dict[str, str],
    note: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {})
    path = tmp_path / ".env"
    path.write_bytes(content)
    notes, problems = take_env_file(path)
    assert os.environ == values
    assert bool(notes) == bool(note) and note in "".join(notes)
    assert bool(problems) == bool(problem) and problem in "".join(problems)
    assert SECRET not in "".join([*notes, *problems])


@pytest.mark.parametrize(
    ("value", "in_file"),
    [
        ("hf_한글토큰", True),
        ("hf_한글토큰", False),
        (f"{SECRET}\r", False),
        (f"{SECRET}\n", False),
        ("\udcb0", False),
    ],
)
@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"])
def test_a_token_that_can_be_none_is_named_and_not_shown(
    name: str, value: str, in_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {})
    if in_file:
        (tmp_path / ".env").write_text(f"{name}={value}\n", encoding="utf-8")
    else:
        os.environ[name] = value
    _, [problem] = take_env_file(tmp_path / ".env")
    assert problem.startswith(f"{name} (in the environment or in .env): holds characters that no")
    assert value.strip() not in problem
    monkeypatch.setattr(os, "environ", {name: SECRET, "HF_HOME": "/한글"})
    assert take_env_file(tmp_path / "none") == ([], [])
