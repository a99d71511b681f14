"""The parts of a GPU check: its plan, its rows, its arithmetic, its words."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dialsum.config.load import load_config
from dialsum.errors import UnfitError
from dialsum.machine.flops import (
    PEAKS,
    Attention,
    Product,
    count_flops,
    count_writing,
    find_bandwidth,
    find_peak,
    find_products,
)
from gpu.architectures import FOLDER
from gpu.check import describe_tests, find_status, read_parts
from gpu.children import read_test_report, run_jobs
from gpu.jobs import (
    NO_BITSANDBYTES,
    NO_CUDA_UNSLOTH,
    NO_UNSLOTH,
    SEVEN,
    Job,
    Libraries,
    Settings,
    choose_warm_up,
    make_overrides,
    plan_jobs,
)
from gpu.rows import count_tokens, draw_rows
from gpu.table import NO_FORECAST, describe_ratios, describe_results

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPT = REPOSITORY / "scripts" / "gpu_check.sh"
ALL = Libraries(bitsandbytes=True, unsloth=True)
NONE = Libraries(bitsandbytes=False, unsloth=False)
NAMES = sorted(path.stem for path in FOLDER.glob("*.json") if '"pieces"' in path.read_text())


def settings(folder: Path, **values: Any) -> Settings:
    """Return settings of a small check."""
    usual = Settings(
        device="cpu", steps=4, warm_up=2, eval_rows=2, small=True, cap_gib=23.7, folder=str(folder)
    )
    return replace(usual, **values)


# The plan


def test_the_seven_are_those_of_the_main_script_in_its_order() -> None:
    script = (REPOSITORY / "run_main_7_experiments.sh").read_text(encoding="utf-8")
    listed = script.split("experiments=(")[1].split(")")[0].split()
    assert list(SEVEN) == listed
    jobs = [job for job in plan_jobs(ALL, device="cuda") if job.group == "experiment"]
    assert [job.experiment for job in jobs] == listed
    assert all(job.capped and not job.why_not and not job.overrides for job in jobs)


def test_names_of_jobs_are_names_of_files() -> None:
    for libraries in (ALL, NONE):
        names = [job.name for job in plan_jobs(libraries, device="cuda")]
        assert len(set(names)) == len(names)
        assert all("/" not in name and " " not in name for name in names)


def test_without_bitsandbytes_each_job_on_4_bits_says_so_and_has_a_stand_in() -> None:
    jobs = plan_jobs(NONE, device="cuda")
    seven = [job for job in jobs if job.group == "experiment"]
    left_out = [job for job in seven if job.why_not]
    # KoBART's full fine-tuning alone needs no 4 bits.
    assert len(left_out) == 6
    assert {job.why_not for job in left_out} == {NO_BITSANDBYTES}
    stand_ins = [job for job in seven if "qlora.load_in_4bit=false" in job.overrides]
    assert [job.experiment for job in stand_ins] == [job.experiment for job in left_out]
    compared = [job for job in jobs if job.group == "comparison" and job.why_not]
    assert {job.way for job in compared} == {"LoRA on 4 bits, bf16"}


@pytest.mark.parametrize(
    ("libraries", "device", "why_not"),
    [
        (ALL, "cuda", ""),
        (NONE, "cuda", NO_UNSLOTH),
        (ALL, "cpu", NO_CUDA_UNSLOTH),
        (NONE, "cpu", NO_UNSLOTH),
    ],
)
def test_unsloth_is_run_where_it_can_be(libraries: Libraries, device: str, why_not: str) -> None:
    by_way = {job.way: job for job in plan_jobs(libraries, device=device)}
    assert by_way["Unsloth"].why_not == why_not
    assert by_way["PEFT"].why_not == ""


@pytest.mark.parametrize(
    "job", plan_jobs(ALL, device="cuda") + plan_jobs(NONE, device="cuda"), ids=lambda job: job.name
)
def test_what_a_job_sets_is_a_valid_config(job: Job, tmp_path: Path) -> None:
    if job.group == "decoder":
        assert not job.experiment
        return
    path = REPOSITORY / "config" / "experiments" / f"{job.experiment}.yaml"
    own = load_config(path).config
    overrides = make_overrides(job, settings(tmp_path), checkpoint=tmp_path)
    config = load_config(path, overrides=overrides).config
    assert config.training.max_steps == 4
    assert config.tokenizer == own.tokenizer
    assert config.qlora.lora_rank == own.qlora.lora_rank
    assert config.training.per_device_train_batch_size == own.training.per_device_train_batch_size
    if job.group == "experiment":
        assert config.training.gradient_checkpointing == own.training.gradient_checkpointing
        assert config.generation.num_beams == own.generation.num_beams


@pytest.mark.parametrize(("steps", "warm_up"), [(1, 0), (2, 1), (4, 2), (8, 4), (20, 4)])
def test_the_clock_starts_after_the_warm_up(steps: int, warm_up: int) -> None:
    assert choose_warm_up(steps) == warm_up


@pytest.mark.parametrize("text", ["", "test", "tests,speed"])
def test_a_part_that_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(UnfitError, match="tests, experiments, comparisons, decoder"):
        read_parts(text)


# Rows


def test_rows_are_as_long_as_asked_and_the_same_again() -> None:
    asked: dict[str, Any] = {
        "input_length": (205, 0.47),
        "target_length": (42, 0.39),
        "most": (4096, 512),
        "pieces": 250_100,
        "end": 1,
        "seed": 42,
    }
    rows, again = draw_rows(2000, **asked), draw_rows(2000, **asked)
    assert all(map(np.array_equal, rows.inputs, again.inputs))
    assert rows.targets is not None
    # A log-normal's mean is its median times exp(variance / 2).
    assert rows.input_lengths.mean() == pytest.approx(205 * math.exp(0.47**2 / 2), rel=0.03)
    assert rows.target_lengths.mean() == pytest.approx(42 * math.exp(0.39**2 / 2), rel=0.03)
    cut = draw_rows(2000, **asked | {"most": (512, 20)})
    assert rows.input_lengths.min() >= 8
    assert (cut.input_lengths.max(), cut.target_lengths.max()) == (512, 20)
    assert all(row[-1] == 1 and min(row[:-1]) >= 8 for row in rows.inputs)
    assert max(row.max() for row in rows.inputs) < 250_100
    steps = [[[0, 1], [2]], [[3]]]
    lengths = rows.input_lengths[:4].sum() + rows.target_lengths[:4].sum()
    assert count_tokens(rows, steps) == lengths


# Arithmetic


def layer(ins: int, outs: int, *, learns: bool = True) -> SimpleNamespace:
    """Return what a linear layer has."""
    return SimpleNamespace(
        in_features=ins, out_features=outs, weight=SimpleNamespace(requires_grad=learns)
    )


def test_each_matrix_reads_its_own_side_and_a_wrapper_does_not_count() -> None:
    wrapper = layer(2, 3)
    wrapper.base_layer = layer(2, 3, learns=False)
    found = find_products(
        [
            ("encoder.block.0.layer.0.SelfAttention.q", wrapper),
            ("encoder.block.0.layer.0.SelfAttention.q.base_layer", wrapper.base_layer),
            ("encoder.block.0.layer.0.SelfAttention.q.lora_A.default", layer(2, 1)),
            ("model.decoder.layers.0.encoder_attn.k_proj", layer(5, 1)),
            ("decoder.block.0.layer.1.EncDecAttention.v.lora_B.default", layer(7, 1)),
            ("decoder.block.0.layer.1.EncDecAttention.q", layer(11, 1)),
            ("lm_head", layer(13, 1, learns=False)),
            ("shared", SimpleNamespace(num_embeddings=9)),
        ]
    )
    assert found == [
        Product("input", 6, False),
        Product("input", 2, True),
        Product("input", 5, True),
        Product("input", 7, True),
        Product("target", 11, True),
        Product("target", 13, False),
    ]


NOTHING = Attention(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("products", "attention", "inputs", "targets", "expected"),
    [
        ([], NOTHING, [], [], 0),
        ([Product("input", 10, True)], NOTHING, [3, 2], [9, 9], 6 * 10 * 5),
        ([Product("input", 10, False)], NOTHING, [3], [9], 4 * 10 * 3),
        ([Product("target", 10, True)], NOTHING, [3], [9], 6 * 10 * 9),
        # 12 x layers x width x queries x keys; a decoder's layer looks at itself and the input.
        ([], Attention(2, 0, 5, 5), [3], [9], 12 * 2 * 5 * 9),
        ([], Attention(0, 2, 5, 5), [3], [9], 12 * 2 * 5 * 9 * (9 + 3)),
        # A decoder alone reads both as one text, in which a token sees those before it.
        ([Product("both", 10, True)], NOTHING, [3], [9], 6 * 10 * 12),
        ([], Attention(0, 2, 5, 3, decoder_only=True), [3], [9], 12 * 2 * 5 * 12 * 12 / 2),
    ],
)
def test_flops_are_those_of_the_formula(
    products: list[Product],
    attention: Attention,
    inputs: list[int],
    targets: list[int],
    expected: float,
) -> None:
    found = count_flops(products, attention=attention, inputs=inputs, targets=targets)
    assert found == expected


@pytest.mark.parametrize(
    ("device", "precision", "peak"),
    [
        ("NVIDIA GeForce RTX 3090", "bf16", 71.0e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4e12),
        ("NVIDIA H100 80GB HBM3", "fp32", 66.9e12),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16", None),
        ("NVIDIA RTX 3090 Laptop GPU", "bf16", None),
        ("CPU with 4 cores", "fp32", None),
    ],
)
def test_only_a_card_of_the_table_has_a_peak(
    device: str, precision: str, peak: float | None
) -> None:
    found = find_peak(device, precision=precision)
    assert found == (None if peak is None else pytest.approx(peak))


def test_a_loss_alone_takes_the_forward_part() -> None:
    asked: dict[str, Any] = {"attention": Attention(2, 1, 5, 5), "inputs": [3], "targets": [9]}
    for learns, share in ((True, 3), (False, 2)):
        products = [Product("input", 10, learns)]
        whole, alone = (count_flops(products, backward=one, **asked) for one in (True, False))
        pairs = 5 * (2 * 9 + 9 * (9 + 3))
        assert (whole, alone) == (share * 60 + 12 * pairs, 60 + 4 * pairs)


def test_writing_takes_the_decoder_once_a_token_and_the_caches_of_all_before() -> None:
    products = [Product("input", 100, False), Product("target", 1000, False)]
    asked: dict[str, Any] = {"attention": NOTHING, "beams": 3, "weight_bytes": 0.5}
    rows = [(2, 5), (8, 4)]
    flops, moved = count_writing(products, rows=rows, batch=2, **asked)
    assert flops == 2 * 100 * 10 + 2 * 1000 * 9 * 3
    assert moved == 0.5 * (100 + 1000 * 5)
    assert count_writing(products, rows=rows, batch=1, **asked) == (
        flops,
        0.5 * (2 * 100 + 1000 * (5 + 4)),
    )
    asked |= {"attention": Attention(7, 2, 16, 4), "beams": 1}
    flops, moved = count_writing([], rows=[(8, 4)], batch=1, **asked)
    assert flops == 4 * 7 * 16 * 64 + 4 * 2 * 16 * 4 * (8 + 2)
    assert moved == 2 * 2 * 2 * 4 * 4 * (8 + 2)


def test_a_decoder_alone_reads_its_prompt_and_writes_by_the_same_matrices() -> None:
    products = [Product("both", 100, False), Product("target", 1000, False)]
    attention = Attention(0, 3, 16, 4, decoder_only=True)
    flops, moved = count_writing(
        products, attention=attention, rows=[(8, 4)], batch=1, beams=2, weight_bytes=0.5
    )
    pairs = 3 * 8 * 8 / 2 + 3 * 2 * 4 * (8 + 2)
    assert flops == 2 * 100 * 8 + 2 * 1100 * 4 * 2 + 4 * 16 * pairs
    assert moved == 0.5 * (100 + 1100 * 4) + 2 * 2 * 3 * 4 * 4 * (8 + 2 * 4 / 2)


def test_lower_precisions_are_no_slower() -> None:
    for name, peaks in PEAKS.items():
        assert peaks["bf16"] >= peaks["tf32"] >= peaks["fp32"] > 0, name
        assert find_bandwidth(name) == peaks["memory"] * 1e9


# Processes and words


@pytest.mark.training
def test_one_that_fails_does_not_end_the_rest(tmp_path: Path) -> None:
    jobs = [
        Job("first", "first", "decoder", "none", why_not="because"),
        Job("second", "second", "decoder", "there_is_no_such_file", way="PEFT"),
        Job("third", "third", "decoder", "none_either", way="PEFT"),
    ]
    found = list(
        run_jobs(
            jobs,
            settings(tmp_path, device="nonsense"),
            logs=tmp_path / "logs",
            per_process=1,
            minutes=5,
            say=lambda _: None,
        )
    )
    assert [one["status"] for one in found] == ["not run", "failed", "failed"]
    assert found[0]["reason"] == "because"
    assert (tmp_path / "logs" / "third.log").is_file()
    assert all(one["reason"] for one in found)


def test_a_process_without_a_result_says_how_it_ended(tmp_path: Path) -> None:
    job = Job("huge", "huge", "decoder", "none", way="PEFT")
    # The clock is up before torch is even imported.
    (found,) = run_jobs(
        [job],
        settings(tmp_path),
        logs=tmp_path / "logs",
        per_process=1,
        minutes=0.002,
        say=lambda _: None,
    )
    assert found["status"] == "failed"
    assert "stopped" in found["reason"]
    assert "huge.log" in found["reason"]


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ("tests='3' failures='0' errors='0' skipped='0'", "ok"),
        ("tests='3' failures='1' errors='0' skipped='0'", "failed"),
        ("tests='3' failures='0' errors='1' skipped='0'", "failed"),
        ("tests='3' failures='0' errors='0' skipped='3'", "not run"),
        ("tests='0' failures='0' errors='0' skipped='0'", "not run"),
        (None, "failed"),
    ],
)
def test_the_tests_end_is_read_from_their_report(
    counts: str | None, status: str, tmp_path: Path
) -> None:
    report = tmp_path / "tests.xml"
    if counts is not None:
        report.write_text(f"<testsuites><testsuite {counts}/></testsuites>", encoding="utf-8")
    found = read_test_report(report, ending="its process ended with status 4")
    assert found["status"] == status
    assert describe_tests(found).startswith(status)


@dataclass(frozen=True)
class Measured:
    """A job's record, as little of it as a table needs."""

    way: str = "full, bf16"
    status: str = "ok"
    gib: float = 8.0
    speed: float | None = 100.0

    def record(self) -> dict[str, Any]:
        """Return it as a child process leaves it."""
        head = {
            "label": f"kobart: {self.way}",
            "group": "comparison",
            "architecture": "kobart",
            "way": self.way,
            "status": self.status,
        }
        if self.status != "ok":
            return head | {"reason": "the reason"}
        return head | {
            "batch": 8,
            "accumulation": 2,
            "precision": "bf16",
            "tokens_per_second": self.speed,
            "peak_gib": {"train": {"tensors": self.gib, "reserved": 99.0}},
        }


def test_tables_say_what_was_not_measured() -> None:
    lines = describe_results(
        [Measured().record(), Measured(way="LoRA on 4 bits, bf16", status="not run").record()]
    )
    text = "\n".join(lines)
    assert NO_FORECAST in text
    assert "kobart: LoRA on 4 bits, bf16: not run: the reason" in text
    assert "n/a" in text
    assert "99" not in text


def test_ratios_are_of_what_was_measured() -> None:
    measured = [
        Measured().record(),
        Measured(way="LoRA on 4 bits, bf16", gib=2.0).record(),
        Measured(way="full, fp32", speed=40.0).record(),
        Measured(way="full, fp32 with TF32", speed=None).record(),
    ]
    assert describe_ratios(measured) == [
        "kobart: peak GiB, full in bf16 over LoRA on 4 bits: 8.00 / 2.00 = 4.00",
        "kobart: tokens/s, full in bf16 over full, fp32: 100.00 / 40.00 = 2.50",
    ]
    assert describe_ratios([]) == []


@pytest.mark.parametrize(
    ("tests", "results", "status"),
    [
        ("ok", ["ok", "not run"], 0),
        ("not run", [], 0),
        ("failed", ["ok"], 1),
        ("ok", ["ok", "failed"], 1),
    ],
)
def test_the_exit_status_tells_of_a_failure(tests: str, results: list[str], status: int) -> None:
    record = {"tests": {"status": tests}, "results": [{"status": one} for one in results]}
    assert find_status(record) == status
