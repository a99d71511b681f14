"""What is learned from and measured on: dialogues and their summaries.

Rows as forward passes (what halves, counts or leaves out rows), which rows go through the network
together, and the two that the loop is handed: SummaryTask and DevSet. Dialogues differ in length
fivefold, so a third to a half of a randomly drawn batch is padding: here rows of like length share
a forward pass, never more tokens than the stated batch has at full length, and passes of all
lengths are drawn at random into optimizer steps of exactly the stated number of rows. Must not know
the loop, files, nor how a summary is scored (it is handed a function).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dialsum.data.encode import EncodedSplit, TokenIds
from dialsum.errors import FullMemoryError, first_line
from dialsum.generate import GenerationSettings, generate
from dialsum.train.loss import IGNORED, PROMPT, summary_loss

Pass = dict[str, Any]
"""A forward pass: input_ids, attention_mask [rows, input], labels [rows, target] with IGNORED where
nothing counts, and under ROWS the place of each row in its split [rows]. Of a decoder alone a row
is prompt and summary in one; labels have the inputs' shape, and position_ids are there. Packed, it
is a sequence of several rows of the split: positions begin again with each, and under ROWS stand
all of them [sequences, most], NO_ROW where there is none."""
ROWS = "rows"
NO_ROW = -1


@dataclass(frozen=True)
class Machine:
    """What was chosen for this machine.

    Args:
        precision: of the computation: fp32, bf16 or fp16.
        tf32: TensorFloat-32 matrix products.
        gradient_checkpointing: recompute activations.
        num_workers: processes that prepare passes.
    """

    device: torch.device
    precision: str = "fp32"
    tf32: bool = False
    gradient_checkpointing: bool = False
    num_workers: int = 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which a forward pass computes."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")

    def place(self, batch: Pass) -> Pass:
        """Return a pass on the device, without the names of its rows."""
        return {
            key: value.to(self.device, non_blocking=True)
            for key, value in batch.items()
            if key != ROWS
        }


def take_rows(batch: Pass, places: Sequence[int]) -> Pass:
    """Return a pass of some of a pass's rows, as narrow as those allow."""
    part = {key: value[list(places)] for key, value in batch.items()}
    width = int(part["attention_mask"].sum(dim=1).max())
    if "position_ids" in part:
        return {key: value[:, :width] if key != ROWS else value for key, value in part.items()}
    out = int((part["labels"] != IGNORED).sum(dim=1).max())
    return part | {
        "input_ids": part["input_ids"][:, :width],
        "attention_mask": part["attention_mask"][:, :width],
        "labels": part["labels"][:, :out],
    }


def rows_of_places(batch: Pass) -> torch.Tensor:
    """Return which row of the split each place of a packed pass belongs to [sequences, width];
    NO_ROW for padding."""
    begins = (batch["position_ids"] == 0).cumsum(dim=1) - 1
    # Padding is a text of its own, behind the rows.
    return torch.nn.functional.pad(batch[ROWS], (0, 1), value=NO_ROW).gather(1, begins)


def _keep_rows(batch: Pass, kept: Collection[int]) -> Pass:
    """Return a packed pass of some of its rows alone; a sequence without any is gone."""
    stays = torch.isin(rows_of_places(batch), torch.tensor(list(kept)))
    some = stays.any(dim=1)
    stays = stays[some]
    order = stays.int().argsort(dim=1, descending=True, stable=True)
    lengths = stays.sum(dim=1, keepdim=True)
    width = int(lengths.max())
    behind = torch.arange(width) - lengths
    rows = [[row for row in held if row in kept] for held in batch[ROWS][some].tolist()]
    part = {
        key: value[some].take_along_dim(order[:, :width], dim=1)
        for key, value in batch.items()
        if key != ROWS
    }
    return part | {
        "input_ids": part["input_ids"].masked_fill(behind >= 0, 0),
        "attention_mask": part["attention_mask"].masked_fill(behind >= 0, 0),
        "labels": part["labels"].masked_fill(behind >= 0, IGNORED),
        "position_ids": torch.where(behind >= 0, behind, part["position_ids"]),
        ROWS: _fill(rows, max(map(len, rows)), NO_ROW),
    }


def halve(batch: Pass) -> list[Pass]:
    """Return a pass of two rows or more as two passes."""
    sequences, rows = len(batch[ROWS]), rows_of([batch])
    if sequences == 1:
        middle = len(rows) // 2
        return [_keep_rows(batch, rows[:middle]), _keep_rows(batch, rows[middle:])]
    middle = sequences // 2
    return [take_rows(batch, range(middle)), take_rows(batch, range(middle, sequences))]


def leave_out(passes: Sequence[Pass], rows: Collection[int]) -> list[Pass]:
    """Return passes without some rows of the split."""
    left = []
    for batch in passes:
        held = rows_of([batch]) if rows else []
        kept = [row for row in held if row not in rows]
        if len(kept) == len(held):
            left.append(batch)
        elif kept and batch[ROWS].dim() == 2:
            left.append(_keep_rows(batch, kept))
        elif kept:
            left.append(take_rows(batch, [at for at, row in enumerate(held) if row not in rows]))
    return left


def rows_of(passes: Sequence[Pass]) -> list[int]:
    """Return the rows of passes, by their place in the split."""
    return [row for batch in passes for row in batch[ROWS].flatten().tolist() if row != NO_ROW]


def count_positions(batch: Pass) -> int:
    """Return the input and target positions of a pass, padding too."""
    if "position_ids" in batch:
        return int(batch["input_ids"].numel())
    return int(batch["input_ids"].numel() + batch["labels"].numel())


def count_targets(passes: Sequence[Pass]) -> int:
    """Return the target tokens of passes, padding not counted."""
    return sum(int((batch["labels"] != IGNORED).sum()) for batch in passes)


def count_tokens(passes: Sequence[Pass]) -> int:
    """Return the input and target tokens of passes, padding not counted."""
    inputs = sum(int(batch["attention_mask"].sum()) for batch in passes)
    apart = [batch for batch in passes if "position_ids" not in batch]
    return inputs + count_targets(apart)


@dataclass
class PassLimit:
    """The most positions that a pass may have; lowered each time that memory runs out.

    The rows of a step stay the same: smaller passes are only more of them.

    Args:
        positions: input and target positions, padding too; None: no limit yet.
        retries: how often it was lowered.
    """

    positions: int | None = None
    retries: int = 0

    def fit(self, passes: Sequence[Pass]) -> list[Pass]:
        """Return the passes with those beyond the limit halved until they fit."""
        fitting: list[Pass] = []
        for batch in passes:
            fits = self.positions is None or count_positions(batch) <= self.positions
            if fits or len(rows_of([batch])) == 1:
                fitting.append(batch)
            else:
                fitting += self.fit(halve(batch))
        return fitting

    def lower(self, batch: Pass, error: str, *, learning: bool = True) -> str:
        """Take note that memory ran out in this pass, and say so in words.

        Args:
            batch: the pass in which it happened.
            error: the library's own words.
            learning: whether it was to be learned from, or is of the dev loss.

        Raises:
            FullMemoryError: the pass has one row: nothing is left to halve.
        """
        rows, positions = len(rows_of([batch])), count_positions(batch)
        sequences, width = batch["input_ids"].shape
        where = "memory was full" if learning else "memory was full in the dev loss"
        if rows == 1:
            even = " and gradient checkpointing" if learning else ""
            raise FullMemoryError(
                f"{where} with a single row of {width} input tokens{even} "
                f"({error}). Lower tokenizer.encoder_max_len, or use qlora.load_in_4bit"
            )
        self.positions = positions // 2
        self.retries += 1
        said = (
            f"{where}, in a pass of {rows} rows, {sequences} x {width} input tokens "
            f"({error}); from now on its passes have at most {self.positions} positions"
        )
        if learning:
            said += ", with more of them to a step: the effective batch size stays"
        return said

    def lift(self, batch: Pass, error: str) -> str:
        """Take note that memory ran out with a single row, and that activations are computed again
        from now on, which allows larger passes; say so in words.

        Args:
            batch: the pass in which it happened.
            error: the library's own words.
        """
        self.positions = None
        self.retries += 1
        return (
            f"memory was full with a single row of {batch['input_ids'].shape[1]} input tokens "
            f"({error}); from now on with gradient checkpointing, which takes less of it and about "
            "a third more time; the effective batch size stays"
        )


def words_of(error: BaseException) -> str:
    """Return the start of a library's out-of-memory text, without advice on its settings."""
    text = first_line(error)
    return text.split(". ")[0][:160]


RowIds = NDArray[np.int64]
Lengths = NDArray[np.integer[Any]]
StepPlan = list[RowIds]
"""The forward passes of one optimizer step, each the rows that go through together."""

BUCKET_TOKENS = 4
"""Inputs this near in length count as equal, so that targets can be sorted among them."""

TARGET_TOKENS = 8
"""Targets this near in length count as equal. Sorted to the token, rows that tell the same scene
share a step, and less is learned from it: on the sample data, 8 rows a step, the demo's first
experiment ends at a dev loss of 1.40, with groups of 16 at 1.31, with rows drawn at random at 1.23.
On 2,065 real dialogues groups of 16 pad up to 3.9 %, of 8 at most 3.0 % for the seven."""

PASS_COST_TOKENS = 50
"""What one more forward pass may save in padding before it is worth having, in tokens."""

LOOKAHEAD = 200
"""Passes looked through for one that fits the rest of a step, before one is cut in two."""


@dataclass(frozen=True)
class BatchShape:
    """What bounds a forward pass and a step.

    Args:
        batch_size: rows per forward pass at full length.
        accumulation: such passes per optimizer step.
        max_input, max_target: full length in tokens.
    """

    batch_size: int
    accumulation: int
    max_input: int
    max_target: int

    @property
    def longest(self) -> int:
        """Tokens of a row of full length, input and target."""
        return self.max_input + self.max_target

    @property
    def rows_per_step(self) -> int:
        """Rows per optimizer step: the effective batch size."""
        return self.batch_size * self.accumulation

    def sizes(self) -> range:
        """Return the numbers of rows that a pass may have.

        A step that accumulates holds at least two passes, four where it accumulates as often, so
        that its rows differ in length: rows of one length are alike in more than that. Beyond four
        the passes may have more rows than the stated batch, where they are short.
        """
        if self.accumulation == 1:
            return range(self.batch_size, self.batch_size + 1)
        least = max(1, self.batch_size // 2)
        return range(least, max(self.batch_size, self.rows_per_step // 4) + 1)


def plan_random(inputs: Lengths, *, shape: BatchShape, seed: int, epoch: int) -> list[StepPlan]:
    """Return an epoch of steps whose rows are drawn at random, batch_size rows to a pass."""
    order = _generator(seed, epoch).permutation(len(inputs))
    whole = shape.rows_per_step
    return [
        [part[at : at + shape.batch_size] for at in range(0, len(part), shape.batch_size)]
        for part in (order[start : start + whole] for start in range(0, len(order), whole))
    ]


def plan_steps(
    inputs: Lengths, targets: Lengths, *, shape: BatchShape, seed: int, epoch: int
) -> list[StepPlan]:
    """Return an epoch of steps whose passes hold rows of like length.

    Every row comes once. Every step but one has exactly rows_per_step rows, and the order of steps
    is random: long and short rows come at any time of the epoch. No pass has more
    padded input or target tokens than batch_size rows of full length.

    Args:
        inputs, targets: tokens of every row, [rows].
        seed, epoch: the same pair gives the same steps.
    """
    generator = _generator(seed, epoch)
    whole = shape.rows_per_step
    order = _sort_by_length(inputs, targets, generator)
    spare = len(order) % whole
    at = int(generator.integers(len(order) - spare + 1)) if spare else 0
    rest, order = order[at : at + spare], np.delete(order, slice(at, at + spare))
    passes = _cut(order, inputs, targets, shape)
    shuffled = [passes[index] for index in generator.permutation(len(passes))]
    filled = _fill_steps(shuffled, whole)
    # Passes of few rows, which are long ones, fit into a step's last gap more often and so come
    # early; the steps themselves must not.
    steps = [filled[index] for index in generator.permutation(len(filled))]
    if spare:
        last = _cut(rest, inputs, targets, shape)
        steps.insert(int(generator.integers(len(steps) + 1)), last)
    return steps


def plan_packed(lengths: Lengths, *, shape: BatchShape, seed: int, epoch: int) -> list[StepPlan]:
    """Return an epoch of steps whose rows are drawn at random and fill few sequences.

    A step has as many passes as its sequences need, batch_size of them to a pass.

    Args:
        lengths: tokens of every row, prompt and summary, [rows].
    """
    order = _generator(seed, epoch).permutation(len(lengths))
    whole = shape.rows_per_step
    steps = []
    for part in (order[start : start + whole] for start in range(0, len(order), whole)):
        filled = fill_sequences(lengths[part], most=shape.longest)
        # Those filled alike share a pass, which is as wide as its fullest.
        filled.sort(key=lambda rows: -int(lengths[part][rows].sum()))
        together = (
            filled[at : at + shape.batch_size] for at in range(0, len(filled), shape.batch_size)
        )
        steps.append([part[np.concatenate(sequences)] for sequences in together])
    return steps


def fill_sequences(lengths: Lengths, *, most: int) -> list[NDArray[np.int64]]:
    """Return which rows share a sequence: as many sequences as leave least padding, filled alike.

    The longest rows come first, each into the sequence with most room (longest processing time
    first, Graham 1969). Best-fit decreasing would fill all but the last to the brim and leave that
    one nearly empty, which is padding where all are as wide as the fullest.

    Args:
        lengths: tokens of every row, [rows].
        most: tokens of a sequence; of a longer row its own.
    """
    order = np.argsort(-lengths, kind="stable")
    most = max(most, int(lengths[order[0]]))
    least = max(1, -(-int(lengths.sum()) // most))
    found: list[list[int]] = []
    positions = math.inf
    for count in range(least, len(lengths) + 1):
        if count * int(lengths[order[0]]) >= positions:
            break  # with more of them even the longest row alone makes more padding
        held: list[list[int]] = [[] for _ in range(count)]
        heap = [(0, at) for at in range(count)]
        for row in order.tolist():
            filled, at = heapq.heappop(heap)
            held[at].append(row)
            heapq.heappush(heap, (filled + int(lengths[row]), at))
        widest = max(heap)[0]
        if widest <= most and count * widest < positions:
            found, positions = held, count * widest
    return [np.array(rows, dtype=np.int64) for rows in found]


def padding_share(
    steps: list[StepPlan], inputs: Lengths, targets: Lengths, *, multiple: int = 1
) -> float:
    """Return which share of all input and target positions would be padding, 0-1.

    Args:
        multiple: widths of inputs are rounded up to a multiple of this.
    """
    real = padded = 0
    for rows in (rows for step in steps for rows in step):
        width = -(-int(inputs[rows].max()) // multiple) * multiple + int(targets[rows].max())
        padded += len(rows) * width
        real += int(inputs[rows].sum() + targets[rows].sum())
    return 1 - real / padded if padded else 0.0


def find_heaviest(
    epochs: Iterable[list[StepPlan]], inputs: Lengths, targets: Lengths
) -> list[RowIds]:
    """Return the passes that take most memory: that of most padded tokens, and that of most cells
    of attention where it is another one.
    """

    def count_tokens(rows: RowIds) -> int:
        return len(rows) * (int(inputs[rows].max()) + int(targets[rows].max()))

    def count_cells(rows: RowIds) -> int:
        return len(rows) * int(inputs[rows].max()) ** 2

    largest = widest = np.zeros(0, dtype=np.int64)
    tokens = cells = 0
    for rows in (rows for steps in epochs for step in steps for rows in step):
        # One at a time: a long run has more epochs than memory holds.
        if (count := count_tokens(rows)) > tokens:
            largest, tokens = rows, count
        if (count := count_cells(rows)) > cells:
            widest, cells = rows, count
    return [largest] if largest is widest else [largest, widest]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng([seed, epoch])


def _sort_by_length(inputs: Lengths, targets: Lengths, generator: np.random.Generator) -> RowIds:
    """Sort rows by input length, and by target length among inputs of nearly equal length.

    Target lengths rise and fall in turn from bucket to bucket, so that no pass that spans two of
    them holds the longest and the shortest. Ties, the buckets' edges and where targets rise differ
    from epoch to epoch.
    """
    bucket = (inputs + int(generator.integers(BUCKET_TOKENS))) // BUCKET_TOKENS
    coarse = (targets + int(generator.integers(TARGET_TOKENS))) // TARGET_TOKENS
    turned = np.where(bucket % 2 == generator.integers(2), -coarse, coarse)
    return np.lexsort((generator.permutation(len(inputs)), turned, bucket))


def _cut(order: RowIds, inputs: Lengths, targets: Lengths, shape: BatchShape) -> StepPlan:
    """Cut sorted rows into passes with the least padding (shortest path over the cuts).

    Rows at the end that make up no allowed size are a pass of their own.
    """
    sizes = shape.sizes()
    count, largest = len(order), sizes[-1]
    width, out = inputs[order].astype(np.int64), targets[order].astype(np.int64)
    allowed = np.zeros(largest + 1, dtype=bool)
    allowed[list(sizes)] = True
    cost = np.full(count + 1, np.inf)
    cost[0] = 0.0
    taken = np.zeros(count + 1, dtype=np.int64)
    for end in range(1, count + 1):
        start = max(0, end - largest)
        rows = np.arange(1, end - start + 1)
        widest = np.maximum.accumulate(width[start:end][::-1])
        longest = np.maximum.accumulate(out[start:end][::-1])
        fits = (rows * widest <= shape.batch_size * shape.max_input) & (
            rows * longest <= shape.batch_size * shape.max_target
        )
        odd = ~(allowed[rows] & fits)
        total = cost[start:end][::-1] + rows * (widest + longest) + PASS_COST_TOKENS
        # A size that is not allowed comes only where nothing else reaches this end, and small.
        total = total + np.where(odd, 1e9 + 1e6 * rows, 0.0)
        best = int(np.argmin(total))
        cost[end], taken[end] = total[best], best + 1
    return list(_walk_back(order, taken))


def _walk_back(order: RowIds, taken: NDArray[np.int64]) -> Iterator[RowIds]:
    end = len(order)
    while end:
        size = int(taken[end])
        yield order[end - size : end]
        end -= size


def _fill_steps(passes: StepPlan, rows_per_step: int) -> list[StepPlan]:
    """Put passes into steps of exactly that many rows, in their order as far as they fit.

    Args:
        passes: together a multiple of rows_per_step.
    """
    waiting = list(passes)
    steps: list[StepPlan] = []
    while waiting:
        step: StepPlan = []
        room = rows_per_step
        while room:
            fitting = (at for at, rows in enumerate(waiting[:LOOKAHEAD]) if len(rows) <= room)
            at = next(fitting, None)
            if at is None:
                step.append(waiting[0][:room])
                waiting[0] = waiting[0][room:]
                room = 0
            else:
                step.append(waiting.pop(at))
                room -= len(step[-1])
        steps.append(step)
    return steps


ISOLATION_ROWS = 4
"""Rows of the sequence in which a run looks whether packed rows see each other."""
MOST_LEAK = 0.05
"""Loss by which a packed row may differ: bfloat16 rounds to about a tenth of it, and rows that see
each other differ by 0.1 to 0.4 in real models."""

Scorer = Callable[[Sequence[str]], dict[str, float]]
"""Predictions of the evaluated dev rows to scores, 0-100, as metric_for_best_model names them."""


@dataclass
class SummaryTask(torch.utils.data.Dataset[Pass]):
    """Dialogues and their summaries.

    Args:
        encoded: rows with targets.
        names: fname of each of them, for reports.
        sha256: hash of what the rows say.
        shape: what bounds a pass and a step.
        pad_token_id: what inputs are filled up with.
        by_length: rows of like length go together; else they are drawn at random.
        label_smoothing: share of probability spread over all pieces (Szegedy et al. 2016).
        rdrop_alpha: of the loss, as of summary_loss.
        multiple: input widths are rounded up to a multiple of this, at most to the full length.
        joined: input and target are one text, as a decoder alone reads them.
        prompt_loss_weight: of such a text, what a token of the prompt counts beside one of the
            summary.
        packing: several such texts go into one sequence.
    """

    encoded: EncodedSplit
    names: Sequence[str]
    sha256: str
    shape: BatchShape
    seed: int
    pad_token_id: int
    by_length: bool = True
    label_smoothing: float = 0.0
    rdrop_alpha: float = 0.0
    multiple: int = 1
    joined: bool = False
    prompt_loss_weight: float = 0.0
    packing: bool = False
    _planned: tuple[int, list[StepPlan]] = field(default=(-1, []), init=False)

    def __len__(self) -> int:
        return len(self.encoded)

    def steps(self, epoch: int) -> list[StepPlan]:
        """Return an epoch's optimizer steps. Seed and epoch alone decide them, so that they are the
        same again after a run went on from a checkpoint.
        """
        if self._planned[0] != epoch:
            inputs, targets = self._lengths()
            shape = self.shape
            if self.joined:
                shape = replace(shape, max_input=shape.longest)
            if self.packing:
                steps = plan_packed(inputs, shape=self.shape, seed=self.seed, epoch=epoch)
            elif self.by_length:
                steps = plan_steps(inputs, targets, shape=shape, seed=self.seed, epoch=epoch)
            else:
                steps = plan_random(inputs, shape=self.shape, seed=self.seed, epoch=epoch)
            self._planned = epoch, steps
        return self._planned[1]

    def _lengths(self) -> tuple[Lengths, Lengths]:
        """Return the tokens of every input and of every target; joined, all stand in the input."""
        inputs, targets = self.encoded.input_lengths, self.encoded.target_lengths
        return (inputs + targets, np.zeros_like(targets)) if self.joined else (inputs, targets)

    def padding_share(self) -> dict[str, float]:
        """Return which share of the first epoch's positions is padding, 0-1: as planned, and were
        its rows drawn at random.
        """
        inputs, targets = self._lengths()
        at_random = plan_random(inputs, shape=self.shape, seed=self.seed, epoch=0)
        share = partial(padding_share, inputs=inputs, targets=targets, multiple=self.multiple)
        planned = share(self.steps(0))
        if self.packing:
            passes = [self._fill_sequences(rows) for step in self.steps(0) for rows in step]
            wide = sum(len(one) * max(int(inputs[rows].sum()) for rows in one) for one in passes)
            planned = 1 - int(inputs.sum()) / wide
        return {"value": round(planned, 4), "drawn_at_random": round(share(at_random), 4)}

    def _fill_sequences(self, rows: RowIds | Sequence[int]) -> list[RowIds]:
        """Return the rows of each sequence of a packed pass."""
        places = np.asarray(rows, dtype=np.int64)
        filled = fill_sequences(self._lengths()[0][places], most=self.shape.longest)
        return [places[one] for one in filled]

    def find_heaviest(self, epochs: int) -> list[RowIds]:
        """Return the passes of all epochs that take most memory: by tokens, by attention."""
        inputs, targets = self._lengths()
        if self.packing:
            passes = (
                rows for epoch in range(epochs) for step in self.steps(epoch) for rows in step
            )
            return [max(passes, key=lambda rows: int(inputs[rows].sum()))]
        return find_heaviest(map(self.steps, range(epochs)), inputs, targets)

    def __getitem__(self, rows: RowIds | Sequence[int]) -> Pass:
        if self.encoded.targets is None:
            raise ValueError("rows without summaries cannot be learned from")
        if self.joined:
            apart = [[int(row)] for row in rows]
            sequences = self._fill_sequences(rows) if self.packing else apart
            return self._join(sequences, self.encoded.targets)
        inputs = [self.encoded.inputs[int(row)] for row in rows]
        targets = [self.encoded.targets[int(row)] for row in rows]
        longest = max(map(len, inputs))
        width = -(-longest // self.multiple) * self.multiple
        width = max(longest, min(width, self.shape.max_input))
        return {
            "input_ids": _fill(inputs, width, self.pad_token_id),
            "attention_mask": _fill([[1] * len(ids) for ids in inputs], width, 0),
            "labels": _fill(targets, max(map(len, targets)), IGNORED),
            ROWS: torch.as_tensor([int(row) for row in rows]),
        }

    def _join(self, sequences: Sequence[RowIds | Sequence[int]], targets: TokenIds) -> Pass:
        """Return a pass of prompts with their summaries behind them.

        Args:
            sequences: the rows of each.
        """
        texts, labels, positions, prompts = [], [], [], []
        weighed = 0 < self.prompt_loss_weight < 1
        for held in sequences:
            pairs = [(self.encoded.inputs[int(row)], targets[int(row)]) for row in held]
            whole = [np.concatenate(pair) for pair in pairs]
            texts.append(np.concatenate(whole))
            positions.append(np.concatenate([np.arange(len(ids)) for ids in whole]))
            for ids, (prompt, _) in zip(whole, pairs, strict=True):
                # Nothing stands before a row's first token that could say it.
                ids[: 1 if self.prompt_loss_weight else len(prompt)] = IGNORED
            labels.append(np.concatenate(whole))
            if weighed:
                each = [
                    np.arange(len(ids)) < len(prompt)
                    for ids, (prompt, _) in zip(whole, pairs, strict=True)
                ]
                prompts.append(np.concatenate(each))
        longest = max(map(len, texts))
        width = -(-longest // self.multiple) * self.multiple
        width = max(longest, min(width, self.shape.longest))
        for at, own in enumerate(positions):
            # Packed, padding is a text of its own; else it goes on behind the row.
            behind = np.arange(width - len(own)) + (0 if self.packing else len(own))
            positions[at] = np.concatenate([own, behind])
        rows = [list(map(int, held)) for held in sequences]
        most = max(map(len, rows))
        return {
            **({PROMPT: _fill(prompts, width, 0).bool()} if weighed else {}),
            "input_ids": _fill(texts, width, self.pad_token_id),
            "attention_mask": _fill([[1] * len(ids) for ids in texts], width, 0),
            "position_ids": _fill(positions, width, 0),
            "labels": _fill(labels, width, IGNORED),
            ROWS: _fill(rows, most, NO_ROW) if self.packing else torch.tensor([r for (r,) in rows]),
        }

    def measure_leak(self, model: Any, machine: Machine) -> float:
        """Return by how much a packed row's loss differs from that of the row alone: nothing but
        rounding where the machine's attention keeps rows apart.

        Of the few shortest rows the last, which could see all others; 0 where no two fit.
        """
        if self.encoded.targets is None:
            raise ValueError("rows without summaries cannot be learned from")
        lengths = self._lengths()[0]
        rows = np.argsort(lengths, kind="stable")[:ISOLATION_ROWS]
        rows = rows[np.cumsum(lengths[rows]) <= self.shape.longest]
        if len(rows) < 2:
            return 0.0
        last = int(rows[-1])
        together = self._join([rows], self.encoded.targets)
        uncounted = rows_of_places(together) != last
        passes = [
            together | {"labels": together["labels"].masked_fill(uncounted, IGNORED)},
            replace(self, packing=False)[[last]],
        ]
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), machine.autocast():
                packed, alone = (
                    float(self.loss(model, machine.place(one), count=None)) for one in passes
                )
        finally:
            model.train(was_training)
        return abs(packed - alone)

    def loss(self, model: Any, batch: Pass, *, count: float | None) -> torch.Tensor:
        """Return the loss of a pass, with its graph: its sum over target tokens, divided by count.

        Args:
            count: of the whole optimizer step; None: of this pass.
        """
        return summary_loss(
            model,
            batch,
            count=count,
            label_smoothing=self.label_smoothing,
            rdrop_alpha=self.rdrop_alpha,
            prompt_weight=self.prompt_loss_weight,
        )

    def count(self, passes: Sequence[Pass]) -> float:
        """Return the tokens that the loss of passes is a mean over, each for what it counts."""
        said = sum(
            int((batch["labels"].ne(IGNORED) & batch[PROMPT]).sum())
            for batch in passes
            if PROMPT in batch
        )
        return count_targets(passes) - (1 - self.prompt_loss_weight) * said


def _fill(lists: Sequence[Any], width: int, value: int) -> torch.Tensor:
    filled = np.full((len(lists), width), value, dtype=np.int64)
    for row, ids in zip(filled, lists, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(filled)


@dataclass
class DevSet:
    """The dev rows that an evaluation during training measures.

    Args:
        task: the rows, without label smoothing.
        tokenizer: turns token ids back into text.
        scorer: scores their predictions.
        settings: the search used for them.
        batch_size: rows per pass and per generation batch; as many as memory held of the latter.
        write: writes summaries, as generate does.
        on_full: told where memory held fewer, and in which words that was said.
    """

    task: SummaryTask
    tokenizer: Any
    scorer: Scorer
    settings: GenerationSettings
    batch_size: int
    write: Callable[..., list[str]] = generate
    on_full: Callable[[int, str], None] = lambda _rows, _words: None

    def __len__(self) -> int:
        return len(self.task)

    def passes(self, *, foreign: bool = False) -> list[Pass]:
        """Return every row once, rows of like length together.

        Args:
            foreign: each with the dialogue of the next row, the last one with that of the first.
        """
        task, inputs = self.task, self.task.encoded.inputs
        if foreign:
            task = replace(task, encoded=replace(task.encoded, inputs=[*inputs[1:], inputs[0]]))
        order = sorted(range(len(task)), key=lambda row: len(task.encoded.inputs[row]))
        return [
            task[order[start : start + self.batch_size]]
            for start in range(0, len(order), self.batch_size)
        ]

    def find_heaviest(self) -> list[Pass]:
        """Return the passes that take most memory: by positions, by logits."""
        passes = self.passes()
        by_logits = max(passes, key=lambda batch: batch["labels"].numel())
        largest = max(passes, key=count_positions)
        return [largest] if largest is by_logits else [largest, by_logits]

    def loss(self, model: Any, batch: Pass, *, count: float | None) -> torch.Tensor:
        """Return the loss of a pass, as the task does."""
        return self.task.loss(model, batch, count=count)

    def score(self, model: Any) -> dict[str, float]:
        """Return the scores of the summaries that a model writes, 0-100."""

        def remember(rows: int, words: str) -> None:
            self.batch_size = rows
            self.on_full(rows, words)

        written = self.write(
            model,
            self.tokenizer,
            self.task.encoded.inputs,
            settings=self.settings,
            batch_size=self.batch_size,
            on_full=remember,
        )
        return self.scorer(written)
