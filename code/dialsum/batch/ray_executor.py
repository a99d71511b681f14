"""Experiments on the nodes of a Ray cluster: what the queue asks of a Child, in an actor there.

The actor keeps the process (ray_node.py) and is asked, as a Child is, how it stands; what the
process prints, its events and, where no storage is shared, its run come back through it. A node
that is lost is told to the queue as an end of its own. Ray is imported inside functions only. Must
not decide what follows an end, nor write the ledger.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from dialsum.batch.check import RAY_INSTALL, needs_card
from dialsum.batch.child import GRACE_SECONDS, KILL_SECONDS, POLL_SECONDS, ChildEnd, Interrupts
from dialsum.batch.lock import hold_run
from dialsum.batch.plan import BatchPlan
from dialsum.batch.ray_node import News, Order, folders_of
from dialsum.config.schema import Config
from dialsum.environment_variables import ENV_FILE_KEYS
from dialsum.errors import ProblemsError, RunError, UnfitError, explain_os_error, first_line
from dialsum.experiment.job import Job
from dialsum.files import write_text
from dialsum.machine.devices import THREAD_COUNTS, usable_cores
from dialsum.paths import PROJECT_ROOT, RunPaths, shared_token

REACH_SECONDS = 5.0
"""Time that a cluster's head has to take a connection."""
JOIN_SECONDS = 30.0
"""Time that it takes to join a cluster at most."""
PROBE = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False, logging_level='ERROR')"
STORE_BYTES = 256 * 2**20
"""Ray's shared memory on a cluster of this machine alone: what comes back goes through it."""
SILENT_SECONDS = 60.0
"""Time that a node may not be reached before it is given up, or that no node has what is needed."""
CLOSE_SECONDS = 5.0
WAIT_SAID_SECONDS = 5.0
"""An experiment that waits longer for its place says so."""
INCOMING = ".incoming"
"""Folder, in a run's own, of what comes back from a node until it is whole."""


@dataclass(frozen=True)
class NodeLost:
    """An experiment's node died or cannot be reached any more.

    Attributes:
        node: its host name; empty where the experiment had not come to one yet.
        why: what Ray says of it.
    """

    node: str
    why: str

    def __str__(self) -> str:
        return f"its node {self.node} was lost ({self.why})" if self.node else self.why


@dataclass(frozen=True)
class Needs:
    """What of a node an experiment takes."""

    cpus: int
    gpus: int

    def __str__(self) -> str:
        gpus = f" and {self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        return f"{self.cpus} CPU{'s' if self.cpus > 1 else ''}{gpus}"


@dataclass
class Cluster:
    """The Ray cluster that this process is connected to.

    Attributes:
        name: its address, as the user knows it.
        token: what a node must find in the folders that it shares with the runner.
    """

    name: str
    token: str = field(default_factory=lambda: uuid4().hex)
    _shared: list[Path] = field(default_factory=list)

    def needs_of(self, config: Config) -> Needs:
        """Return what an experiment takes; a GPU where it asks for one, or the cluster has any."""
        device = config.general.device
        any_gpu = any(node.get("GPU") for node in self._nodes().values())
        wants_gpu = device == "cuda" or (device == "auto" and any_gpu)
        gpus = config.batch.gpus_per_experiment if wants_gpu else 0
        return Needs(config.batch.cpus_per_experiment, gpus)

    def count_places(self, needs: Needs) -> int:
        """Return how many experiments of these needs the nodes hold, others' work aside."""
        return sum(_fit(resources, needs) for resources in self._nodes().values())

    def describe(self) -> str:
        """Return the nodes and what they have, in one line."""
        nodes = [
            f"{name} {resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU"
            for name, resources in self._nodes().items()
        ]
        return f"Ray ({self.name}): {'; '.join(nodes) or 'no node'}"

    def _nodes(self) -> dict[str, Mapping[str, float]]:
        """Return the resources of each node that is alive."""
        import ray

        return {
            f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})": (
                node["Resources"]
            )
            for node in ray.nodes()
            if node["Alive"]
        }

    def share(self, paths: RunPaths) -> None:
        """Leave the token where a node that shares this storage finds it.

        Raises:
            RunError: it cannot be written.
        """
        for folder in folders_of(paths):
            if folder not in self._shared:
                write_text(shared_token(folder), self.token)
                self._shared.append(folder)

    def close(self) -> None:
        """Take the tokens away."""
        for folder in self._shared:
            shared_token(folder).unlink(missing_ok=True)


def _fit(resources: Mapping[str, float], needs: Needs) -> int:
    cpus = int(resources.get("CPU", 0) // needs.cpus)
    return min(cpus, int(resources.get("GPU", 0) // needs.gpus)) if needs.gpus else cpus


@contextmanager
def reach_cluster(plan: BatchPlan) -> Iterator[Cluster | None]:
    """Be connected to the Ray cluster of a batch; None where its executor is local.

    A cluster of this machine alone is started, and ends with the block.

    Raises:
        UnfitError: Ray is not installed, no cluster answers, or it has no node for an experiment.
    """
    if plan.executor != "ray":
        yield None
        return
    if find_spec("ray") is None:
        raise UnfitError(
            f"batch.executor is ray, and Ray is not installed: {RAY_INSTALL} (on every node)"
        )
    address = plan.options.ray_address or "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    import ray

    with ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="dialsum-ray-", ignore_cleanup_errors=True)
        )
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address == "local":
            settings |= {"num_cpus": usable_cores(), "include_dashboard": False}
            settings |= {"object_store_memory": STORE_BYTES, "_temp_dir": folder}
        else:
            _ask_head(address)
        # What it says of its nodes' ends, at length and on stdout, stands in its own logs too.
        quiet = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
        stack.enter_context(redirect_stdout(quiet))
        # Ray would end this process in its own way.
        handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(address=address, **settings)
        except (RuntimeError, ValueError, ConnectionError) as error:
            raise UnfitError(f"Ray cannot be started or joined: {first_line(error)}") from error
        finally:
            for one, handler in handlers.items():
                signal.signal(one, handler)
        cluster = Cluster(address)
        try:
            if problems := _find_lack(cluster, plan):
                raise ProblemsError(problems)
            yield cluster
        finally:
            cluster.close()
            ray.shutdown()


def _ask_head(address: str) -> None:
    """Join a cluster in a process of its own first: Ray tries for minutes where nobody answers, and
    then ends its process.

    Raises:
        UnfitError: no head of a cluster answers soon, or it does not take this machine.
    """
    host, _, port = address.rpartition(":")
    try:
        if host:
            socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
        done = subprocess.run(
            [sys.executable, "-c", PROBE, address],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=JOIN_SECONDS,
        )
    except subprocess.TimeoutExpired:
        said = f"what is there does not answer as Ray does in {JOIN_SECONDS:g} s"
    except (OSError, OverflowError) as error:
        said = f"nothing answers there ({error})"
    else:
        if done.returncode == 0:
            return
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1][:400]
    raise UnfitError(
        f"--ray-address {address}: this machine cannot join that cluster: {said}. Start one with "
        "`ray start --head`, give the HOST:PORT that it says, and start the batch on a machine of "
        "it (`ray start --address=HOST:PORT`; the same Ray and Python everywhere; where the head "
        "has a token, RAY_AUTH_MODE=token and the same one). Without --ray-address this machine "
        "alone is used. Nothing was started."
    )


def _find_lack(cluster: Cluster, plan: BatchPlan) -> list[str]:
    """Say which experiments no node can ever take."""
    problems = []
    for job in plan.waiting:
        needs, config = cluster.needs_of(job.config), job.config
        name = f"{job.number} {job.label}"
        if not cluster.count_places(needs):
            problems.append(
                f"{name}: needs a node with {needs}, and there is none: {cluster.describe()}. Add "
                "one (ray start --address=…), ask for less (batch.cpus_per_experiment, "
                "batch.gpus_per_experiment), or, without a GPU, --set general.device=cpu"
            )
        elif not needs.gpus and needs_card(config, demo=plan.kind == "demo"):
            problems.append(
                f"{name}: fine-tunes a real checkpoint, and no node has a GPU: "
                f"{cluster.describe()}. Add one that has (ray start --address=…), or do without, "
                "many times slower: --set general.device=cpu"
            )
    return problems


def _node_class() -> Any:
    """Return the class of the actors. It travels whole, so it must know nothing of this module."""

    class OnNode:
        def begin(self, code: str, program: str, order: dict[str, Any]) -> dict[str, Any]:
            import os
            import sys
            from pathlib import Path

            node = os.uname().nodename
            missing = [path for path in (code, program) if not Path(path).exists()]
            if missing:
                return {"node": node, "missing": missing}
            if code not in sys.path:
                sys.path.insert(0, code)
            from dialsum.batch.ray_node import NodeRun, Order
            from dialsum.errors import DialsumError

            try:
                self.run = NodeRun(Order(**order))
            except (DialsumError, OSError) as error:
                return {"node": node, "problem": str(error)}
            return {"node": node, "in_place": self.run.in_place, "pid": self.run.pid}

        def follow(self, wishes: list[float], log_at: int, metrics_at: int) -> Any:
            return self.run.follow(wishes, log_at=log_at, metrics_at=metrics_at)

        def pack(self) -> int:
            return self.run.pack()

        def read_pack(self, offset: int) -> bytes:
            return self.run.read_pack(offset)

        def close(self) -> None:
            self.run.close()

    return OnNode


class RayChild:
    """An experiment on a node, as the queue knows a Child.

    Args:
        cluster: where it runs.
        job: what runs; its files are named from the runner's point of view.
        trainer: program and first arguments of its process.
        log: gets what it prints.
        environment: added to the node's own.
        grace_seconds, patience_seconds: as a Child takes them.
        say: takes a line of what happens to it, for the user.

    Attributes:
        pid: None: its number is of another machine.

    Raises:
        RunError: the log cannot be opened or a token not be written.
    """

    pid: int | None = None

    def __init__(
        self,
        cluster: Cluster,
        job: Job,
        *,
        trainer: tuple[str, ...],
        log: Path,
        environment: Mapping[str, str],
        grace_seconds: float = GRACE_SECONDS,
        patience_seconds: float | None = None,
        say: Callable[[str], None],
    ) -> None:
        import ray

        self._cluster, self._job, self._log, self._say = cluster, job, log, say
        self._grace_seconds = grace_seconds
        self._needs = cluster.needs_of(job.config)
        cluster.share(job.paths)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab"):
                pass
        except OSError as error:
            raise RunError(f"the log cannot be written: {explain_os_error(error)}") from error
        threads = dict.fromkeys(THREAD_COUNTS, str(self._needs.cpus))
        kept = (*ENV_FILE_KEYS, *THREAD_COUNTS)
        own = {key: os.environ[key] for key in kept if key in os.environ}
        order = Order(
            job=job.to_json(),
            resume=job.resume,
            trainer=trainer,
            token=cluster.token,
            environment={**threads, **own, **environment},
            batch_pid=os.getpid(),
            grace_seconds=grace_seconds,
            patience_seconds=patience_seconds,
        )
        self._actor = (
            ray.remote(_node_class())
            .options(num_cpus=self._needs.cpus, num_gpus=self._needs.gpus, max_restarts=0)
            .remote()
        )
        code = str(PROJECT_ROOT / "code")
        self._ref: Any = self._actor.begin.remote(code, trainer[0], asdict(order))
        self._take: Callable[[Any], None] = self._take_begin
        self._node, self._in_place = "", True
        self._log_at = self._metrics_at = self._pack_bytes = 0
        self._pack = job.paths.folder / INCOMING / "pack.tar"
        self._ended: ChildEnd | None = None  # on the node
        self._end: ChildEnd | NodeLost | None = None
        self._heard = self._since = self._places_seen = time.monotonic()
        self._wait_said = False
        self._wishes: list[float] = []

    def poll(self, interrupts: Interrupts) -> ChildEnd | NodeLost | None:
        """Return how it ended, what it left brought back; None while it runs or waits for a place.

        Wishes to stop go on to its process, as a Child's.

        Raises:
            RunError: it could not be started there, what it left cannot be brought back, or no node
                has what it needs any more.
        """
        from ray.exceptions import ActorUnavailableError, RayActorError, RayError

        self._wishes = list(interrupts.times)
        until = time.monotonic() + POLL_SECONDS
        try:
            while self._end is None and self._is_ready():
                self._heard, following = time.monotonic(), self._take == self._take_news
                self._advance()
                if following or time.monotonic() > until:
                    break
        except ActorUnavailableError as error:
            if time.monotonic() - self._heard > SILENT_SECONDS:
                self._lose(error)
            else:
                self._ask_news()
        except RayActorError as error:
            self._lose(error)
        except RayError as error:
            self.kill()
            cause = getattr(error, "cause", None) or error
            raise RunError(f"on the node {self._node or '?'}: {first_line(cause)}") from error
        if self._end is None:
            self._look_at_clock(interrupts)
        return self._end

    def _is_ready(self) -> bool:
        import ray

        ready, _ = ray.wait([self._ref], timeout=0)
        return bool(ready)

    def _advance(self) -> None:
        """Take in the answer that has come, and ask the next question."""
        import ray

        self._take(ray.get(self._ref))

    def _take_begin(self, answer: dict[str, Any]) -> None:
        self._node = answer["node"]
        if missing := answer.get("missing"):
            self.kill()
            raise RunError(
                f"the node {self._node} has no {' and no '.join(missing)}: every node needs this "
                "project and its .venv at the same path as here; clone it there and run bash "
                "scripts/setup_environment.sh, or share the folder"
            )
        if problem := answer.get("problem"):
            self.kill()
            raise RunError(f"on the node {self._node}: {problem}")
        self._in_place = answer["in_place"]
        where = "in place" if self._in_place else "in a folder of its own, to be brought back"
        self._say(f"runs on {self._node}, process {answer['pid']}, {where}")
        self._ask_news()

    def _ask_news(self) -> None:
        self._take = self._take_news
        self._ref = self._actor.follow.remote(self._wishes, self._log_at, self._metrics_at)

    def _take_news(self, news: News) -> None:
        self._log_at += self._append(self._log, news.log)
        self._metrics_at += self._append(self._job.paths.metrics, news.metrics)
        if news.end is None:
            self._ask_news()
            return
        self._ended = news.end
        if news.note:
            self._say(f"{self._node}: {news.note}")
        if self._in_place:
            self._ask_to_close()
        else:
            self._take, self._ref = self._take_size, self._actor.pack.remote()

    def _take_size(self, size: int) -> None:
        incoming, self._pack_bytes = self._pack.parent, size
        shutil.rmtree(incoming, ignore_errors=True)
        self._make(incoming)
        self._take, self._ref = self._take_piece, self._actor.read_pack.remote(0)

    def _take_piece(self, piece: bytes) -> None:
        self._append(self._pack, piece)
        have = self._pack.stat().st_size
        if have < self._pack_bytes:
            self._ref = self._actor.read_pack.remote(have)
            return
        try:
            _unpack(self._pack, self._job.paths)
        except (OSError, tarfile.TarError) as error:
            self.kill()
            raise RunError(f"what the run left cannot be brought back: {error}") from error
        self._ask_to_close()

    def _ask_to_close(self) -> None:
        self._take, self._ref = self._take_close, self._actor.close.remote()

    def _take_close(self, _: None) -> None:
        self._end = self._ended
        self._kill_actor()

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            self.kill()
            raise RunError(explain_os_error(error)) from error

    def _append(self, path: Path, content: bytes) -> int:
        """Write what came at the end of a file; return its bytes."""
        if content:
            try:
                with path.open("ab") as file:
                    file.write(content)
            except OSError as error:
                self.kill()
                raise RunError(explain_os_error(error)) from error
        return len(content)

    def _look_at_clock(self, interrupts: Interrupts) -> None:
        """End what cannot be heard, and what waits for a place that nobody can give."""
        now = time.monotonic()
        if self._node:
            limit = 0.0 if interrupts.insisted else self._grace_seconds
            wanted = interrupts.times[0] if interrupts.wanted else math.inf
            # Its node does all this itself; what does not answer is given up.
            if now - self._heard > SILENT_SECONDS or (
                now > wanted + limit + KILL_SECONDS and self._ended is None
            ):
                if interrupts.wanted:
                    self._kill_actor()
                    self._end = ChildEnd(None, "SIGKILL", interrupted=True, killed=True)
                else:
                    self._lose(f"no answer for {SILENT_SECONDS:g} s")
            return
        if interrupts.wanted:
            self._kill_actor()
            self._end = ChildEnd(None, None, interrupted=True, killed=False)
            return
        if now - self._since > WAIT_SAID_SECONDS and not self._wait_said:
            self._wait_said = True
            self._say(f"waits for a node with {self._needs} free")
        if self._cluster.count_places(self._needs):
            self._places_seen = now
        elif now - self._places_seen > SILENT_SECONDS:
            self.kill()
            raise RunError(
                f"no node with {self._needs} is left: {self._cluster.describe()}. Add one (ray "
                "start --address=…), then go on with --resume"
            )

    def _lose(self, why: object) -> None:
        self._kill_actor()
        # It ran to its end, and only the farewell is missing.
        if self._take == self._take_close:
            self._end = self._ended
        else:
            words = why if isinstance(why, str) else explain_loss(why)
            self._end = NodeLost(self._node, words)

    def kill(self) -> None:
        """Kill what runs; its node lets nothing of it live on, and removes its folder."""
        import ray
        from ray.exceptions import RayError

        if self._node:
            with suppress(RayError):  # what cannot be asked any more dies with its actor
                ray.get(self._actor.close.remote(), timeout=CLOSE_SECONDS)
        self._kill_actor()

    def _kill_actor(self) -> None:
        import ray

        ray.kill(self._actor)


def explain_loss(error: object) -> str:
    """Say in short why an actor is gone."""
    text = " ".join(str(error).split())
    for words in ("node has died", "node died", "node was terminated", "owner"):
        if words in text.lower():
            return "it died"
    return f"Ray: {text[:200]}"


def _unpack(pack: Path, paths: RunPaths) -> None:
    """Put what a run left on a node into its places, the record last: while that is missing, the
    run is not finished.

    Raises:
        OSError, tarfile.TarError: that cannot be.
        UnfitError: somebody else is at work there.
    """
    folder = pack.parent
    with tarfile.open(pack) as archive:
        archive.extractall(folder, filter="data")
    pack.unlink()
    with hold_run(paths):
        if (model := folder / "model").exists():
            draft = paths.model.with_name(f".{paths.model.name}{INCOMING}")
            shutil.rmtree(draft, ignore_errors=True)
            shutil.move(model, draft)
            if paths.model.exists():
                shutil.rmtree(paths.model)
            draft.rename(paths.model)
        for path in paths.written:
            came = folder / "run" / path.relative_to(paths.folder)
            if path == paths.job or not came.exists():
                continue  # the runner's own job names the places here
            if path.is_dir():
                shutil.rmtree(path)
            came.rename(path)
    shutil.rmtree(folder)
