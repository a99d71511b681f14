"""The tables of a GPU check, from its record; docs/gpu.md explains each column.

Must not know how anything was measured; no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dialsum.machine.flops import name_product
from dialsum.text import align

TITLES = {
    "experiment": "The seven experiments' own settings",
    "comparison": "Ways of training, the same batch and lengths, without a limit on memory",
    "decoder": "Unsloth beside PEFT, on a decoder-only model",
}
HEAD = (
    "",
    "rows a step",
    "precision",
    "tokens/s",
    "s/step",
    "peak GiB",
    "eval GiB",
    "MFU",
    "estimate",
    "forecast",
)
NO_FORECAST = "no forecast yet"
UNKNOWN = "n/a"


def describe_results(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of all tables, and below each what was not run or failed, and why."""
    lines: list[str] = []
    for group, title in TITLES.items():
        chosen = [one for one in results if one["group"] == group]
        if not chosen:
            continue
        measured = [one for one in chosen if one["status"] == "ok"]
        lines += ["", title]
        if measured:
            rows = [HEAD, *(_cells(one) for one in measured)]
            lines += [f"  {line}" for line in align(rows, left=(0, 1, 2))]
        lines += [
            f"  {one['label']}: {one['status']}: {one['reason']}"
            for one in chosen
            if one["status"] != "ok"
        ]
        lines += [f"  {line}" for line in _describe_retries(measured)]
        if group == "comparison":
            lines += [f"  {line}" for line in describe_ratios(measured)]
    return lines


def _cells(one: dict[str, Any]) -> tuple[str, ...]:
    peaks = one.get("peak_gib", {})
    checkpointing = " c" if one.get("gradient_checkpointing") else ""
    return (
        one["label"],
        f"{one['batch']} x {one['accumulation']}{checkpointing}",
        describe_precision(one),
        _number(one.get("tokens_per_second"), ",.0f"),
        _number(one.get("seconds_per_step"), ".3f"),
        _number(needed_gib(peaks, "train"), ".2f"),
        _number(needed_gib(peaks, "evaluate"), ".2f"),
        _number(one.get("mfu"), ".1%"),
        _number(one.get("estimate_gib"), ".1f"),
        _number(one.get("forecast_error"), "+.0%", absent=NO_FORECAST),
    )


def _number(value: float | None, form: str, *, absent: str = UNKNOWN) -> str:
    return absent if value is None else format(value, form)


def describe_precision(one: dict[str, Any]) -> str:
    """Return in what a job computed, as `bf16, 4-bit` or `tf32`."""
    precision = name_product(str(one["precision"]), tf32=bool(one.get("tf32")))
    return f"{precision}, 4-bit" if "4-bit" in one.get("loader", "") else precision


def needed_gib(peaks: dict[str, dict[str, float]], stage: str) -> float | None:
    """Return the most memory of a stage, GiB: of tensors on a card, else the process's own."""
    found = peaks.get(stage, {})
    return found.get("tensors", found.get("rss"))


def _describe_retries(measured: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{one['label']}: memory was full {one['memory_retries']} time(s); smaller passes took the "
        "place of the stated ones, and the figures are theirs"
        for one in measured
        if one.get("memory_retries")
    ]


def describe_ratios(measured: Sequence[dict[str, Any]]) -> list[str]:
    """Say how 4 bits compare with full fine-tuning in memory, and bf16 with fp32 in speed."""
    lines = []
    for name in dict.fromkeys(one["architecture"] for one in measured):
        by_way = {one["way"]: one for one in measured if one["architecture"] == name}
        full, four = by_way.get("full, bf16"), by_way.get("LoRA on 4 bits, bf16")
        if full and four:
            lines += _ratio(
                f"{name}: peak GiB, full in bf16 over LoRA on 4 bits",
                needed_gib(full["peak_gib"], "train"),
                needed_gib(four["peak_gib"], "train"),
            )
        for fp32 in ("full, fp32", "full, fp32 with TF32"):
            if full and fp32 in by_way:
                lines += _ratio(
                    f"{name}: tokens/s, full in bf16 over {fp32}",
                    full.get("tokens_per_second"),
                    by_way[fp32].get("tokens_per_second"),
                )
    return lines


def _ratio(what: str, first: float | None, second: float | None) -> list[str]:
    if first is None or not second:
        return []
    return [f"{what}: {first:,.2f} / {second:,.2f} = {first / second:.2f}"]
