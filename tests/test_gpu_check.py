"""scripts/gpu_check.sh, as a user starts it, and the whole of it on a CPU."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from dialsum.machine.flops import Attention, count_flops, find_products
from dialsum.models.checkpoint import measure_products
from dialsum.models.families import get_family
from gpu.architectures import FOLDER, read_architecture
from gpu.jobs import NO_BITSANDBYTES, NO_CUDA_UNSLOTH, NO_UNSLOTH, SEVEN, Libraries, plan_jobs
from gpu.table import NO_FORECAST

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = REPOSITORY / "scripts" / "gpu_check.sh"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json") if '"pieces"' in path.read_text())


def run_script(*words: str, seconds: int = 120) -> subprocess.CompletedProcess[str]:
    """Run scripts/gpu_check.sh to its end."""
    return subprocess.run(
        ["bash", str(SCRIPT), *words], capture_output=True, text=True, timeout=seconds
    )


def test_without_a_gpu_it_says_how_to_go_on() -> None:
    from dialsum.machine.devices import nvidia_gpus

    if nvidia_gpus():
        pytest.skip("there is an NVIDIA GPU here")
    # Without an interpreter nothing may be installed first, either.
    for words, untouched in (((), "installed"), (("--python", sys.executable), "measured")):
        done = run_script(*words)
        assert done.returncode == 2
        assert f"nothing was {untouched}" in done.stderr
        assert "no NVIDIA GPU" in done.stderr
        assert "--device cpu --tiny" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", "0"), "at least 1"),
        (("--stepps", "3"), "did you mean --steps"),
        (("--parts", "all"), "there are tests"),
        (("--cap-gib", "0.5"), "at least 2 GiB"),
        (("--device", "tpu"), "invalid choice"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], said: str) -> None:
    done = run_script("--python", sys.executable, *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_missing_interpreter_is_named() -> None:
    done = run_script("--python", "/nowhere/python")
    assert done.returncode == 2
    assert "/nowhere/python" in done.stderr


@pytest.mark.training
@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_has_as_many_parameters_as_the_real_one(name: str) -> None:
    import torch

    from gpu.architectures import make_model

    read = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        model = make_model(read_architecture(name), pad_token_id=0)
    assert sum(one.numel() for one in model.parameters()) == read["parameters"]
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == read["config"]["tie_word_embeddings"]
    # Full fine-tuning costs 6 FLOPs a token and weight; of one token on each side, all matrices'.
    for one in model.parameters():
        one.requires_grad_(True)
    matrices = sum(
        module.weight.numel()
        for module in model.modules()
        if type(module) is torch.nn.Linear or type(module).__name__ == "Conv1D"
    )
    found = count_flops(
        find_products(model.named_modules()),
        attention=Attention(0, 0, 0, 0),
        inputs=[1],
        targets=[1],
    )
    assert found == 6 * matrices
    # The plan counts the same from config.json alone.
    family = get_family(read["family"])
    planned = measure_products(read["config"], family=family, learns=True)
    products = find_products(model.named_modules(), decoder_only=family.decoder_only)
    for side in ("input", "target", "both"):
        assert sum(one.weights for one in planned if one.side == side) == sum(
            one.weights for one in products if one.side == side
        )


@pytest.mark.training
def test_the_whole_check_runs_on_a_cpu(tmp_path: Path) -> None:
    done = run_script(
        "--python",
        sys.executable,
        "--device",
        "cpu",
        "--tiny",
        "--steps",
        "2",
        "--eval-rows",
        "2",
        "--parts",
        "experiments,comparisons,decoder",
        "--per-process",
        "50",
        "--output-dir",
        str(tmp_path / "out"),
        "--work-dir",
        str(tmp_path / "work"),
        seconds=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "out").glob("*.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["exit_status"] == 0
    assert record["interrupted"] is False
    results = {one["name"]: one for one in record["results"]}
    assert set(SEVEN) <= set(results)
    assert len(results) == len(plan_jobs(Libraries.find(), device="cpu"))
    for one in results.values():
        if one["status"] == "not run":
            assert one["reason"] in (NO_UNSLOTH, NO_BITSANDBYTES, NO_CUDA_UNSLOTH)
            continue
        assert one["status"] == "ok"
        assert one["steps"] == 2
        assert one["timed_steps"] == 1
        assert math.isfinite(one["last_loss"])
        assert one["tokens_per_second"] > 0
        assert one["model_flops_per_second"] > 0
        assert one["peak_gib"]["train"]["rss"] > 0
        assert "mfu" not in one  # nobody knows a CPU's peak
        assert one["label"] in done.stdout
    beams = {name: results[name].get("evaluation", {}).get("num_beams") for name in SEVEN}
    assert beams["01_mt5_xlsum_ultimate"] == 10
    assert beams["04_batch_optimization_rtx3090"] == 12
    assert all(results[name]["evaluation"]["rows"] == 2 for name in SEVEN)
    assert results["01_mt5_xlsum_optimized_v2"]["loader"] == "PEFT + bitsandbytes 4-bit"
    assert (
        results["01_baseline_kobart_rtx3090"]["parameters"]
        == (results["01_baseline_kobart_rtx3090"]["parameters_trainable"])
    )
    assert NO_FORECAST in done.stdout
    assert "its figures say nothing of a GPU" in done.stdout
    assert list((tmp_path / "work").iterdir()) == []
