"""Words one run's record as text: what stands in `results/summary.txt`.

Must not know other runs, nor files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dialsum.record.attempts import say_attempts
from dialsum.score.show import format_scores

HEADLINE = (
    ("rouge1", "rouge1"),
    ("rouge2", "rouge2"),
    ("rougeL", "rougeL"),
    ("rouge_mean", "rouge mean"),
)


def best_metrics_text(result: Mapping[str, Any]) -> str:
    """Return the text of a run's summary.

    The `Best Metrics` line and the five lines after it are what people grep for over many runs;
    scales, floors and targets follow. A run without scores says why it has none.

    Args:
        result: the run's record, as it goes into result.json.
    """
    name, label = result["experiment"], result.get("label")
    if label and label != name:
        name = f"{name} ({label})"
    dev = result.get("evaluation", {}).get("dev")
    attempts = say_attempts(result)
    if dev is None:
        reason = result.get("reason") or "no reason is recorded"
        said = [f"{name}: {result['status']}, no scores: {reason}"]
        return "\n".join([*said, *(f"  {line}" for line in attempts)]) + "\n"
    lines = [f"Best Metrics  {name}{_describe_checkpoint(result.get('training', {}))}"]
    lines += [
        f"  {title}: {_two_decimals(dev[key])}{_interval(dev, key)}" for key, title in HEADLINE
    ]
    lines += [f"  signature: {dev['signature']}", ""]
    lines += [*attempts, ""] if attempts else []
    lines += [format_scores(dev, name="this run"), ""]
    lines += describe_target(result["evaluation"].get("target"))
    return "\n".join(lines).rstrip("\n") + "\n"


def describe_target(target: Mapping[str, Any] | None) -> list[str]:
    """Say what was expected of a run, on which scale, and whether it was met, if anything was."""
    if not target:
        return []
    scale = f"on {target['tokenizer']} tokens"
    lines = []
    if expected := target.get("expected"):
        low, high = expected["rouge1"]
        lines.append(f"expected ROUGE-1 {low:g} to {high:g} {scale}: {_met(expected)}")
    for kind in ("minimum", "ideal"):
        if bounds := target.get(kind):
            wanted = ", ".join(f"{key} {value:g}" for key, value in bounds.items() if key != "met")
            lines.append(f"{kind} {wanted} {scale}: {_met(bounds)}")
    return lines


def _met(block: Mapping[str, Any]) -> str:
    return "met" if block.get("met") else "not met"


def _describe_checkpoint(training: Mapping[str, Any]) -> str:
    if "best_step" not in training:
        return ""
    return f"  (dev, checkpoint of step {training['best_step']} of {training.get('steps', '?')})"


def _interval(dev: Mapping[str, Any], key: str) -> str:
    ends = dev.get("confidence", {}).get(key)
    return f" ({_two_decimals(ends[0])} to {_two_decimals(ends[1])})" if ends else ""


def _two_decimals(value: float | str) -> str:
    # A score that is not finite stands in the record by its name.
    return value if isinstance(value, str) else f"{value:.2f}"
