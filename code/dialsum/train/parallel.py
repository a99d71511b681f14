"""One training by several processes of one machine, each with a card of its own.

An optimizer step is a list of passes whose gradients add up, so they may be computed anywhere: read
`Crew.add_up` first. The experiment's own process is the first one and keeps all that is decided:
optimizer, schedule, guard, checkpoints, scores, record. The others, its helpers, hold the same
model; each step they take over the weights that learn, run their share of the passes, and their
gradients are summed into the first one's. Summaries of many rows are shared as well.

What is asked and answered goes through a pipe for each helper, whose end tells at once that it
died; tensors go through a torch process group, which is entered only when all have said that they
are there. The helpers are started here: `accelerate launch` and torchrun start each process in a
session of its own and close what it inherits, so that what ends an experiment would leave them
behind. Must not know rows, files, nor the optimizer.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import IO, Any

import torch
import torch.distributed as dist

from dialsum.errors import RunError
from dialsum.generate import GenerationSettings, generate
from dialsum.lifeline import run_main
from dialsum.machine.devices import THREAD_COUNTS
from dialsum.machine.memory import free_memory, is_out_of_memory
from dialsum.train.guard import learning
from dialsum.train.task import Machine, Pass, count_positions, halve, rows_of, words_of

MEET_SECONDS = 300.0
"""Time that an exchange of tensors may take: all have said before that they are there."""
LOOK_SECONDS = 0.0005
DEATH_SECONDS = 10.0
"""Time in which a process whose pipe has ended has an exit status."""
LOG_BYTES = 4000
"""Of what a helper that died had printed last."""
BUCKET_BYTES = 64 * 2**20
"""Small tensors travel together, up to so many bytes; larger ones alone, without a copy."""

Failed = tuple[Pass, str]
"""A pass that memory did not hold, and the library's words."""


def add_up(
    model: Any,
    passes: Sequence[Pass],
    *,
    count: float,
    loss: Callable[..., torch.Tensor],
    machine: Machine,
    scale: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, Failed | None]:
    """Run passes forward and backward until memory is full; the model's gradients add up.

    Args:
        count: target tokens of the whole step.
        loss: of a model, a pass on the device and the count, as a task has it.
        scale: multiplies a loss before it goes backward.

    Returns:
        The sum of the losses, without a graph; and the pass that memory did not hold, if any.
    """
    total = torch.zeros((), device=machine.device)
    for batch in passes:
        try:
            with machine.autocast():
                found = loss(model, machine.place(batch), count=count)
            scale(found).backward()
            total += found.detach()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Neither the error nor the loss leaves here: they hold on to the tensors of the pass.
            return total, (batch, words_of(error))
    return total, None


def share_out(passes: Sequence[Pass], processes: int) -> list[list[Pass]]:
    """Return which passes each process takes, about as many positions each.

    Where there are fewer passes than processes, the largest are halved; a process gets none only
    where there are fewer rows.
    """

    def order(batch: Pass) -> tuple[bool, int]:
        return len(rows_of([batch])) > 1, count_positions(batch)

    cut = sorted(passes, key=order)
    while len(cut) < processes and order(cut[-1])[0]:
        cut = sorted([*cut[:-1], *halve(cut[-1])], key=order)
    shares: list[list[Pass]] = [[] for _ in range(processes)]
    for batch in sorted(cut, key=count_positions, reverse=True):
        min(shares, key=lambda share: sum(map(count_positions, share))).append(batch)
    return shares


@dataclass(frozen=True)
class Order:
    """What a helper is told first.

    Args:
        rank: its number, from 1.
        store: file through which the processes find each other.
        content: what it needs to make the model, whatever that is.
    """

    rank: int
    processes: int
    store: str
    content: Any


@dataclass(frozen=True)
class Share:
    """What a helper is asked in a step; see Loop for count, GradScaler for scale.

    Args:
        seed: of its dropout.
        recompute: with gradient checkpointing, from now on.
    """

    passes: list[Pass]
    count: float
    scale: float
    seed: int
    recompute: bool


@dataclass(frozen=True)
class Rows:
    """What a helper is to write summaries of; see generate."""

    inputs: list[list[int]]
    settings: GenerationSettings
    batch_size: int


@dataclass(frozen=True)
class Came:
    """What came of a share.

    Args:
        failed: place of the pass that memory did not hold, and the library's words.
        reached: places of the learning parameters that have a gradient.
    """

    loss: float
    failed: tuple[int, str] | None
    reached: frozenset[int]


@dataclass
class Helper:
    """One of the other processes, as the first one knows it."""

    rank: int
    processes: int
    process: subprocess.Popen[bytes]
    link: Connection
    log: IO[bytes]

    def send(self, message: Any) -> None:
        """Send something.

        Raises:
            RunError: it is gone.
        """
        try:
            self.link.send_bytes(pickle.dumps(message))
        except OSError:
            self.report_death()

    def receive(self) -> Any:
        """Wait for what it sends; how long it is silent is for the batch's runner to judge.

        Raises:
            RunError: it is gone.
        """
        try:
            return pickle.loads(self.link.recv_bytes())
        except (EOFError, OSError):
            self.report_death()

    def report_death(self) -> None:
        """Say how it ended; what it printed last goes to this process's log.

        Raises:
            RunError: always.
        """
        name = f"process {self.rank + 1} of {self.processes} (pid {self.process.pid})"
        try:
            status = self.process.wait(DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            how = "closed its pipe and does not end"
        else:
            if status < 0:
                how = f"was ended by {signal.Signals(-status).name}"
            else:
                how = f"ended with exit status {status}"
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - LOG_BYTES))
        said = self.log.read().decode(errors="replace").strip()
        print(f"{name} printed last:\n{said}" if said else f"{name} printed nothing", flush=True)
        raise RunError(
            f"{name} of this experiment {how} (batch.gpus_per_experiment); what it printed last "
            "stands in the log. Go on from the last checkpoint with --resume"
        )


class Crew:
    """The helpers of one training; they start and end with the block.

    Args:
        processes: the first one counted in.
        cards: what CUDA_VISIBLE_DEVICES names each process's card by, the first one's first; empty
            where they share the CPU.
        entry: the command that starts a helper; the pipe's descriptor and this process's id come
            after it.

    Raises:
        OSError: a process cannot be started.
    """

    def __init__(
        self,
        processes: int,
        *,
        cards: Sequence[str] = (),
        entry: Sequence[str] = run_main("dialsum.experiment.helper"),
    ) -> None:
        self.processes, self._cards, self._entry = processes, cards, entry
        self._helpers: list[Helper] = []
        self._held = ExitStack()

    def __enter__(self) -> Crew:
        # On an error halfway, those that were started end with their pipes.
        folder = self._held.enter_context(
            tempfile.TemporaryDirectory(prefix="dialsum-crew-", ignore_cleanup_errors=True)
        )
        self._store = f"{folder}/store"
        own = {}
        if not self._cards:
            threads = torch.get_num_threads()
            self._held.callback(torch.set_num_threads, threads)
            torch.set_num_threads(max(1, threads // self.processes))
            own = dict.fromkeys(THREAD_COUNTS, str(torch.get_num_threads()))
        for rank in range(1, self.processes):
            card = {"CUDA_VISIBLE_DEVICES": self._cards[rank]} if self._cards else {}
            log = self._held.enter_context(tempfile.TemporaryFile())
            ours, theirs = socket.socketpair()
            with theirs:
                process = subprocess.Popen(
                    [*self._entry, str(theirs.fileno()), str(os.getpid())],
                    # In this process's own group, which is ended as one.
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **own, **card},
                )
            helper = Helper(rank, self.processes, process, Connection(ours.detach()), log)
            self._helpers.append(helper)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for helper in self._helpers:
                helper.process.kill()
        for helper in self._helpers:
            helper.link.close()
        # Each may wait here for the others, which leave when their pipes end. An exchange between
        # cards that lost a side would be waited for in vain: it ends with this process.
        if dist.is_available() and dist.is_initialized() and (kind is None or not self._cards):
            dist.destroy_process_group()
        for helper in self._helpers:
            try:
                helper.process.wait(DEATH_SECONDS)
            except subprocess.TimeoutExpired:
                helper.process.kill()
                helper.process.wait()
        self._helpers = []
        self._held.close()

    def start(self, content: Any) -> None:
        """Let the helpers make their model while this process makes its own.

        Args:
            content: what each is told, pickled.

        Raises:
            RunError: a helper died.
        """
        for helper in self._helpers:
            helper.send(Order(helper.rank, self.processes, self._store, content))

    def meet(self, model: Any, machine: Machine) -> None:
        """Wait until each helper has its model, which must be this one's twin.

        Raises:
            RunError: a helper died, or has another model.
        """
        self._model, self._machine = model, machine
        self._weights = list(learning(model).values())
        mine = _describe_learning(model)
        for helper in self._helpers:
            if helper.receive() != mine:
                raise RunError(
                    f"process {helper.rank + 1} of {self.processes} made another model of the same "
                    "config: its parameters that learn are not those of the first process"
                )
        for helper in self._helpers:
            helper.send(None)
        _open_group(self._store, rank=0, processes=self.processes, device=machine.device)

    def add_up(
        self,
        passes: Sequence[Pass],
        *,
        count: float,
        loss: Callable[..., torch.Tensor],
        scaler: torch.amp.GradScaler,
    ) -> tuple[torch.Tensor, Failed | None]:
        """Do what add_up does, with the help of all.

        A parameter that no pass of any process reached has no gradient; one that some reached has
        their sum.

        Raises:
            RunError: a helper died.
        """
        first, *others = share_out(passes, self.processes)
        # Of this process's random state, so that a step that comes again has its dropout again.
        seed = int(torch.randint(2**62, ()))
        for helper, share in zip(self._helpers, others, strict=True):
            recompute = self._model.is_gradient_checkpointing
            helper.send(Share(share, count, scaler.get_scale(), seed + helper.rank, recompute))
        self._give_weights()
        total, failed = add_up(
            self._model, first, count=count, loss=loss, machine=self._machine, scale=scaler.scale
        )
        answers: list[Came] = [helper.receive() for helper in self._helpers]
        full = [failed] if failed else []
        for share, came in zip(others, answers, strict=True):
            if came.failed:
                full.append((share[came.failed[0]], came.failed[1]))
        reached = _find_reached(self._weights).union(*(came.reached for came in answers))
        for helper in self._helpers:
            helper.send(None if full else reached)
        if full:
            return total, min(full, key=lambda one: count_positions(one[0]))
        for flat in _travel(_take_gradients(self._weights, reached)):
            self._await(dist.reduce(flat, 0, async_op=True))
        return total + sum(came.loss for came in answers), None

    def write(
        self,
        model: Any,
        tokenizer: Any,
        inputs: Sequence[Any],
        *,
        settings: GenerationSettings,
        batch_size: int,
        on_batch: Callable[[int, int], None] | None = None,
        on_full: Callable[[int, str], None] | None = None,
    ) -> list[str]:
        """Do what generate does, with the help of all; on_batch and on_full hear of the rows of
        this process.

        Raises:
            RunError: a helper died.
        """
        order = sorted(range(len(inputs)), key=lambda row: -len(inputs[row]))
        first, *others = (order[at :: self.processes] for at in range(self.processes))
        for helper, rows in zip(self._helpers, others, strict=True):
            share = [[int(one) for one in inputs[row]] for row in rows]
            helper.send(Rows(share, settings, batch_size))
        self._give_weights()
        written = generate(
            model,
            tokenizer,
            [inputs[row] for row in first],
            settings=settings,
            batch_size=batch_size,
            on_batch=on_batch,
            on_full=on_full,
        )
        found = dict(zip(first, written, strict=True))
        for helper, rows in zip(self._helpers, others, strict=True):
            found |= zip(rows, helper.receive(), strict=True)
        return [found[row] for row in range(len(inputs))]

    def _give_weights(self) -> None:
        for flat in _travel(self._weights):
            self._await(dist.broadcast(flat, 0, async_op=True))

    def _await(self, work: Any) -> None:
        """Wait for an exchange of tensors, and look after the helpers meanwhile: a card would wait
        for one that died for ever."""
        try:
            while not work.is_completed():
                for helper in self._helpers:
                    if helper.process.poll() is not None:
                        helper.report_death()
                time.sleep(LOOK_SECONDS)
            work.wait()
        except RuntimeError:
            # Its connection ends before its process has.
            until = time.monotonic() + DEATH_SECONDS
            while time.monotonic() < until:
                for helper in self._helpers:
                    if helper.process.poll() is not None:
                        helper.report_death()
                time.sleep(LOOK_SECONDS)
            raise


class Link:
    """A helper's side: its order, then shares of passes until the first process has no more.

    Args:
        descriptor: the pipe's.

    Attributes:
        content: what the first process gave Crew.start.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._link = Connection(descriptor)
        self._order: Order = self._receive()
        self.content = self._order.content

    def _receive(self) -> Any:
        return pickle.loads(self._link.recv_bytes())

    def serve(
        self, model: Any, machine: Machine, *, loss: Callable[..., torch.Tensor], tokenizer: Any
    ) -> None:
        """Do what is asked until the first process ends the link; loss as add_up takes it."""
        order = self._order
        with suppress(EOFError, ConnectionError):
            self._link.send_bytes(pickle.dumps(_describe_learning(model)))
            self._receive()
            _open_group(
                order.store, rank=order.rank, processes=order.processes, device=machine.device
            )
            model.train()
            weights = list(learning(model).values())
            while True:
                asked: Share | Rows = self._receive()
                for flat in _travel(weights):
                    dist.broadcast(flat, 0)
                if isinstance(asked, Share):
                    self._run_share(asked, model, weights, machine, loss)
                else:
                    written = generate(
                        model,
                        tokenizer,
                        asked.inputs,
                        settings=asked.settings,
                        batch_size=asked.batch_size,
                    )
                    self._link.send_bytes(pickle.dumps(written))
        if dist.is_initialized():
            dist.destroy_process_group()

    def _run_share(
        self,
        share: Share,
        model: Any,
        weights: Sequence[torch.Tensor],
        machine: Machine,
        loss: Callable[..., torch.Tensor],
    ) -> None:
        if share.recompute and not model.is_gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(share.seed)
        total, failed = add_up(
            model,
            share.passes,
            count=share.count,
            loss=loss,
            machine=machine,
            scale=lambda value: value * share.scale,
        )
        place = None
        if failed is not None:
            at = next(at for at, batch in enumerate(share.passes) if batch is failed[0])
            place = at, failed[1]
        came = Came(float(total), place, _find_reached(weights))
        self._link.send_bytes(pickle.dumps(came))
        reached = self._receive()
        if reached is not None:
            for flat in _travel(_take_gradients(weights, reached)):
                dist.reduce(flat, 0)
        model.zero_grad(set_to_none=True)
        if failed is not None:
            free_memory()


def _open_group(store: str, *, rank: int, processes: int, device: torch.device) -> None:
    """Open the process group through which tensors travel, on this machine alone."""
    # Not every build of torch has it, and one process does without.
    from torch._C._distributed_c10d import FileStore

    own = "lo0" if sys.platform == "darwin" else "lo"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, own)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=FileStore(store, processes),
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=MEET_SECONDS),
    )


def _describe_learning(model: Any) -> list[tuple[str, tuple[int, ...], str]]:
    return [(name, tuple(one.shape), str(one.dtype)) for name, one in learning(model).items()]


def _find_reached(weights: Sequence[torch.Tensor]) -> frozenset[int]:
    return frozenset(at for at, one in enumerate(weights) if one.grad is not None)


def _take_gradients(weights: Sequence[torch.Tensor], reached: frozenset[int]) -> list[torch.Tensor]:
    """Return the gradients of some weights; zeros become that of a weight that has none."""
    taken = [weights[at] for at in sorted(reached)]
    for one in taken:
        if one.grad is None:
            one.grad = torch.zeros_like(one)
    return [one.grad for one in taken if one.grad is not None]


def _travel(tensors: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Give tensors as few flat ones, of one type each; what is then in those is taken over."""
    for bucket in _group(tensors):
        flat = torch.cat([one.detach().flatten() for one in bucket]) if len(bucket) > 1 else None
        if flat is None and bucket[0].is_contiguous():
            yield bucket[0].detach()
            continue
        flat = bucket[0].detach().contiguous() if flat is None else flat
        yield flat
        at = 0
        for one in bucket:
            one.detach().copy_(flat[at : at + one.numel()].view(one.shape))
            at += one.numel()


def _group(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    for one in tensors:
        size = sum(each.nbytes for each in bucket) + one.nbytes
        if bucket and (one.dtype != bucket[0].dtype or size > BUCKET_BYTES):
            yield bucket
            bucket = []
        bucket.append(one)
    if bucket:
        yield bucket
