"""Which of the user's environment variables reach a run, and what of a file .env.

The configuration says how an experiment runs; libraries also listen to the environment, and there a
variable that was left in a shell overrules it unseen. FAMILIES decides for each; every other
variable is left alone. Importing it needs the standard library alone: the doors call it before they
import anything else. Must not know what a run does.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dialsum.paths import PROJECT_ROOT
from dialsum.text import shorten

KEPT_OUT = "DIALSUM_KEPT_OUT"
"""Variable in which a process that was started anew finds the names of what it was spared."""
MOST_CHARACTERS = 80  # of a value on the screen
MOST_BYTES = 2**20  # of a file .env

WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where torchrun and the MPI launchers say how many processes they start; what accelerate reads."""


@dataclass(frozen=True)
class Family:
    """Variables of one kind, names with spaces between; `*` at an end stands for any ending.

    Attributes:
        names: those that belong to it.
        why: why they are kept out; empty where they are not.
        said: exceptions that are respected, said at the start and recorded with their value.
        respected: exceptions that are respected.
    """

    names: str
    why: str = ""
    said: str = ""
    respected: str = ""


FAMILIES = (
    Family(
        "PYTHON*",
        why="the packages of this interpreter run, under Python's usual rules",
        # Of this project's set-up, and what container images say of their Python.
        respected="PYTHON PYTHON_* PYTHONUTF8 PYTHONIOENCODING PYTHONCOERCECLOCALE "
        "PYTHONUNBUFFERED PYTHONHASHSEED PYTHONFAULTHANDLER PYTHONPYCACHEPREFIX "
        "PYTHONDONTWRITEBYTECODE PYTHONNOUSERSITE PYTHONUSERBASE PYTHONSAFEPATH",
    ),
    Family(
        "ACCELERATE_* FSDP_* DEEPSPEED_* MEGATRON_LM_* PARALLELISM_CONFIG_* FP8_* XLA_* "
        "USE_TORCH_XLA PJRT_* TPU_* PT_HPU_* SM_FRAMEWORK_* SM_HP_* FORK_LAUNCHED",
        why="precision, device and compilation are the configuration's",
    ),
    Family(
        f"{' '.join(WORLD_SIZES)} "
        "RANK LOCAL_RANK LOCAL_WORLD_SIZE NODE_RANK GROUP_RANK GROUP_WORLD_SIZE ROLE_RANK "
        "ROLE_NAME ROLE_WORLD_SIZE MASTER_ADDR MASTER_PORT TORCHELASTIC_* OMPI_* PMI_* MV2_* "
        "SMDATAPARALLEL_*",
        why="an experiment starts its own processes",
    ),
    Family(
        "PYTORCH_*",
        why="arithmetic and memory are the configuration's",
        said="PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF PYTORCH_HIP_ALLOC_CONF "
        "PYTORCH_ENABLE_MPS_FALLBACK PYTORCH_MPS_* PYTORCH_NVML_BASED_CUDA_CHECK",
        respected="PYTORCH_VERSION PYTORCH_BUILD_* PYTORCH_HOME PYTORCH_KERNEL_CACHE_*",
    ),
    Family(
        "TORCH_* TORCHDYNAMO_* TORCHINDUCTOR_* AOT_* AOTINDUCTOR_* TRITON_* UNSLOTH_* LTC_* "
        "NVIDIA_TF32_OVERRIDE CUBLAS_EMULAT* CUBLASLT_* ONEDNN_DEFAULT_FPMATH_MODE "
        "DNNL_DEFAULT_FPMATH_MODE MKL_VERBOSE",
        why="arithmetic and compilation are the configuration's",
        respected="TORCH_HOME TORCH_HUB TORCH_EXTENSIONS_DIR TORCH_CUDA_ARCH_LIST TORCH_LOGS "
        "TORCH_CPP_LOG_LEVEL TORCH_SHOW_CPP_STACKTRACES TORCHINDUCTOR_CACHE_DIR "
        "TRITON_CACHE_DIR TRITON_HOME TRITON_PTXAS_PATH TRITON_LIBDEVICE_PATH",
    ),
    Family(
        "TRANSFORMERS_* USE_HUB_KERNELS USE_TF USE_TORCH USE_JAX USE_FLAX TRUST_REMOTE_CODE "
        "FLASH_ATTENTION_* BNB_* PEFT_* TRL_*",
        why="what the libraries do is the configuration's",
        said="BNB_CUDA_VERSION TRANSFORMERS_OFFLINE",
        respected="TRANSFORMERS_CACHE",
    ),
    Family(
        "WANDB_*",
        why="project, entity and mode are tracking's in the configuration; each run has its own id",
        said="WANDB_MODE WANDB_DISABLED",
        respected="WANDB_API_KEY WANDB_BASE_URL WANDB_IDENTITY_TOKEN_FILE WANDB_CREDENTIALS_FILE "
        "WANDB_INSECURE_DISABLE_SSL WANDB_X_EXTRA_HTTP_HEADERS WANDB_CACHE_DIR "
        "WANDB_CONFIG_DIR WANDB_DATA_DIR WANDB_ARTIFACT_DIR WANDB_SILENT WANDB_QUIET "
        "WANDB_ERROR_REPORTING",
    ),
    # Where things lie, how fast and on what it computes: the user's to say, and told.
    Family(
        "HF_* HUGGINGFACE_* HUGGING_FACE_* DATASETS_*", said="HF_HUB_OFFLINE HF_DATASETS_OFFLINE"
    ),
    Family(
        "CUDA_* CUBLAS_* CUDNN_* NVIDIA_*",
        said="CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_LAUNCH_BLOCKING CUDA_MODULE_LOADING "
        "CUDA_DEVICE_MAX_CONNECTIONS CUBLAS_WORKSPACE_CONFIG",
    ),
    Family(
        "OMP_* GOMP_* KMP_* MKL_* OPENBLAS_* ONEDNN_* DNNL_* ATEN_CPU_CAPABILITY "
        "RAYON_NUM_THREADS TOKENIZERS_PARALLELISM",
        said="*",
    ),
    Family("LD_PRELOAD LD_AUDIT DYLD_INSERT_LIBRARIES", said="*"),
)

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
"""What goes into the head of a request, and is never shown."""
ENV_FILE_KEYS = (*SECRETS, "WANDB_BASE_URL", "WANDB_MODE")
"""What is taken from a file .env; the environment goes first."""


def _matches(name: str, patterns: str) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in patterns.split()
    )


def family_of(name: str) -> Family | None:
    """Return the family of a variable, or None."""
    return next((family for family in FAMILIES if _matches(name, family.names)), None)


def find_kept_out(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that a run must not see, sorted.

    The number of a launcher's processes stays where it is not one: the start is refused for it.
    """
    return sorted(
        name
        for name, value in environment.items()
        if (family := family_of(name)) is not None
        and family.why
        and not _matches(name, f"{family.said} {family.respected}")
        and not (name in WORLD_SIZES and value.strip() not in ("", "1"))
    )


def find_said(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are respected and told, by name, with their values."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if (family := family_of(name)) is not None and _matches(name, family.said)
    }


def start_without_kept_out() -> None:
    """Start this very command anew, in this process, where a variable is to be kept out of it.

    To be called before any other import: modules of PYTHONPATH, libraries of the environment's
    making and their settings then never come in.
    """
    names = find_kept_out(os.environ)
    if not names:
        return
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment[KEPT_OUT] = ",".join(sorted({*read_kept_out(environment), *names}))
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def read_kept_out(environment: Mapping[str, str]) -> list[str]:
    """Return the names of what was kept out of this process."""
    return [name for name in environment.get(KEPT_OUT, "").split(",") if name]


def describe_variables(environment: Mapping[str, str]) -> list[str]:
    """Say what was kept out, with the reason, and what of the environment takes effect."""
    lines = []
    kept_out = read_kept_out(environment)
    for family in FAMILIES:
        if names := [name for name in kept_out if family_of(name) is family]:
            lines.append(f"kept out of the environment: {', '.join(names)} ({family.why})")
    if said := find_said(environment):
        shown = (f"{name}={_show(value)}" for name, value in said.items())
        lines.append(f"from the environment: {', '.join(shown)}")
    return lines


def _show(value: str) -> str:
    return shorten(value if value.isprintable() else ascii(value), limit=MOST_CHARACTERS)


def record_variables(environment: Mapping[str, str]) -> dict[str, object]:
    """Return the same for environment.json."""
    return {"kept_out": read_kept_out(environment), "respected": find_said(environment)}


def take_env_file(path: Path = PROJECT_ROOT / ".env") -> tuple[list[str], list[str]]:
    """Take HF_TOKEN, WANDB_API_KEY and the like (ENV_FILE_KEYS) from a file .env, if it is there,
    into this process's environment, which goes first.

    Any other key could change what runs, unseen, and is named.

    Returns:
        Which keys are not taken, never a value or what may be one; and what is wrong: the file
        cannot be read, or a token, here or there, holds what no token does.
    """
    others, problems = _read_env_file(path) if path.is_file() else ([], [])
    notes = []
    if others:
        # What is no name in capitals may be a secret or a part of one.
        shown = [key for key in dict.fromkeys(others) if re.fullmatch("[A-Z][A-Z0-9_]*", key)]
        hidden = sum(key not in shown for key in others)
        listed = [
            *map(_show, shown),
            *([f"{hidden:,} of other spelling, not shown"] * bool(hidden)),
        ]
        notes.append(
            f"{path.name}: not taken: {', '.join(listed)}; "
            f"from there come only {', '.join(ENV_FILE_KEYS)}. For the others: export KEY=value"
        )
    problems += [
        f"{name} (in the environment or in .env): holds characters that no token has, such as "
        "Hangul or a line end (not shown, because it may be a secret); copy the token again from "
        f"where it was issued, or unset {name}"
        for name in SECRETS
        if (value := os.environ.get(name, "")) and not (value.isascii() and value.isprintable())
    ]
    return notes, problems


def _read_env_file(path: Path) -> tuple[list[str], list[str]]:
    """Take what a file .env may give; return the other keys in it, and why it cannot be read."""
    from io import StringIO

    from dotenv.parser import parse_stream

    from dialsum.files import read_regular

    try:
        content = read_regular(path, max_bytes=MOST_BYTES)
        text = content.decode("utf-8-sig")
        wrong = content.find(b"\0")
    except OSError as error:
        return [], [f"{path.name}: cannot be read: {error.strerror or error}"]
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        encoding = "UTF-16" if b"\0" in content else "cp949"
        line = content.count(b"\n", 0, wrong) + 1
        return [], [
            f"{path.name}:{line}: not UTF-8, perhaps {encoding}; save it as UTF-8: iconv -f "
            f"{encoding} -t UTF-8 {path.name} > env.utf8 && mv env.utf8 {path.name}"
        ]
    others, problems = [], []
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            # Empty lines before it are a part of what was read for it.
            written = binding.original.string
            empty = written[: len(written) - len(written.lstrip())].count("\n")
            problems.append(
                f"{path.name}:{binding.original.line + empty}: not KEY=value; what stands there "
                "is not shown, because it may be a secret"
            )
        elif binding.key in ENV_FILE_KEYS:
            if binding.value:
                os.environ.setdefault(binding.key, binding.value)
        elif binding.key is not None:
            others.append(binding.key)
    return others, problems
