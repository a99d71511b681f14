"""What batch.retry changes of an experiment for a retry, key by key, and what must hold for that.

Must not know why an attempt failed, nor who starts the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from dialsum.config.messages import Fault
from dialsum.config.schema import Config
from dialsum.config.sources import Source, Statement
from dialsum.config.yaml import Origin

RETRY = "batch.retry"
LEARNING_RATE = "training.learning_rate"
BATCH = "training.per_device_train_batch_size"
ACCUMULATION = "training.gradient_accumulation_steps"
RANK, ALPHA = "qlora.lora_rank", "qlora.lora_alpha"


class NoHalfError(Exception):
    """A value that cannot be halved; the text says why."""


@dataclass(frozen=True)
class Change:
    """One value that a retry replaces.

    Args:
        by: what of batch.retry asks for it.
        key: dotted key.
        before, after: the value in the attempt before, and in this one.
    """

    by: str
    key: str
    before: Any
    after: Any

    def describe(self) -> str:
        """Return `learning_rate 1.2e-4 -> 6e-5`."""
        name = self.key.rpartition(".")[2]
        return f"{name} {show_number(self.before)} -> {show_number(self.after)}"

    def describe_whole(self) -> str:
        """Return the change with its dotted key and what asked for it."""
        section = self.key.rpartition(".")[0]
        return f"{section}.{self.describe()} ({RETRY} {self.by})"

    def to_record(self) -> dict[str, Any]:
        """Return the change as it stands in records."""
        return {"by": self.by, "key": self.key, "from": self.before, "to": self.after}

    @classmethod
    def from_record(cls, content: dict[str, Any]) -> Change:
        """Read a change as to_record writes it."""
        return cls(content["by"], content["key"], content["from"], content["to"])


def show_number(value: Any) -> str:
    """Return a number in short, exactly: small ones as `1.2e-4`."""
    if not isinstance(value, float):
        return str(value)
    exact = Decimal(repr(value)).normalize()
    return f"{exact:e}" if 0 < abs(value) < 1e-3 else f"{exact:f}"


def count_halvings(number: int) -> int:
    """Return how often a whole number can be halved and stay whole: 12 twice, 7 never."""
    count = 0
    while number > 1 and number % 2 == 0:
        number //= 2
        count += 1
    return count


def list_changes(
    by: str, config: Config, *, batch: int | None = None, accumulation: int | None = None
) -> list[Change]:
    """Return what an entry of batch.retry changes of a config.

    Args:
        batch, accumulation: what the failed run used where the config says `auto`.

    Raises:
        NoHalfError: a value cannot be halved, or is not known.
    """
    training, lora = config.training, config.qlora
    if by == "lr_half":
        rate = training.learning_rate
        return [Change(by, LEARNING_RATE, rate, rate / 2)]
    if by == "rank_half":
        ranks = ((RANK, lora.lora_rank), (ALPHA, lora.lora_alpha))
        return [Change(by, key, value, _halve(key, value)) for key, value in ranks]
    rows, passes = training.per_device_train_batch_size, training.gradient_accumulation_steps
    used_rows = batch if rows == "auto" else rows
    used_passes = accumulation if passes == "auto" else passes
    if used_rows is None or used_passes is None:
        raise NoHalfError("the batch size was auto, and the failed run left no word of what it was")
    return [
        Change(by, BATCH, used_rows, _halve(BATCH, used_rows)),
        Change(by, ACCUMULATION, used_passes, used_passes * 2),
    ]


def _halve(key: str, value: int) -> int:
    if not count_halvings(value):
        raise NoHalfError(f"{key} {value} has no half")
    return value // 2


def state_changes(changes: Sequence[Change], *, left: Sequence[str]) -> Source:
    """Return changes as a source of the configuration that is laid over every other.

    Args:
        left: what of batch.retry is still to come.
    """
    values = [(one.key, one.after, f"{RETRY} {one.by}") for one in changes]
    values.append((RETRY, list(left), f"{RETRY}, what is left of it"))
    said = [Statement(key, "", value, Origin(None, None, why), key) for key, value, why in values]
    notes = [f"retry: {change.describe_whole()}" for change in changes]
    return Source(said=said, notes=notes)


def retried_rank_is_there(config: Config) -> Iterator[Fault]:
    """Without adapters there is no rank to halve."""
    if "rank_half" in config.batch.retry and not config.qlora.use_qlora:
        found = "rank_half, but every weight is trained, without a rank (qlora.use_qlora: false)"
        yield Fault(RETRY, found, "without rank_half, or use_qlora: true")


def retried_rank_can_be_halved(config: Config) -> Iterator[Fault]:
    """Rank and alpha stay whole, and alpha / r what it was."""
    if config.qlora.use_qlora:
        asked = config.batch.retry.count("rank_half")
        yield from _too_often("rank_half", asked, RANK, config.qlora.lora_rank)
        yield from _too_often("rank_half", asked, ALPHA, config.qlora.lora_alpha)


def retried_batch_can_be_halved(config: Config) -> Iterator[Fault]:
    """A batch of odd size has no half that keeps the effective one."""
    rows = config.training.per_device_train_batch_size
    if rows != "auto":
        yield from _too_often("batch_half", config.batch.retry.count("batch_half"), BATCH, rows)


def _too_often(by: str, asked: int, key: str, value: int) -> Iterator[Fault]:
    possible = count_halvings(value)
    if asked <= possible:
        return
    times = "" if asked == 1 else f" {asked} times"
    steps = " -> ".join(str(value // 2**n) for n in range(possible + 1))
    how = f"can be halved {possible} times only ({steps})" if possible else "has no half"
    meant = f"at most {possible} {by}" if possible else f"without {by}"
    yield Fault(
        RETRY,
        f"{by}{times}, but {key} {value} {how}",
        f"{meant}, or {key} {2**asked}, or a multiple of it",
    )


RETRY_RULES = (retried_rank_is_there, retried_rank_can_be_halved, retried_batch_can_be_halved)
