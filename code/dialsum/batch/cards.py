"""The cards between two experiments, which are waited for until they are as free as before.

Must not start or end a process, nor print.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from dialsum.machine.devices import nvidia_gpus, visible_gpus

TOLERANCE_BYTES = 512 * 2**20
"""Memory above what was used before the experiment that still counts as free: drivers and displays
breathe."""
CARD_POLL_SECONDS = 0.5
MAX_COOLING_SECONDS = 1800.0
"""A card that is not cool by then stands in a warm room."""
MIB = 2**20


@dataclass(frozen=True)
class CardUse:
    """Who uses the cards at one moment.

    Attributes:
        used_bytes: card's uuid to memory used on it.
        processes: process id to memory that it holds on all cards, 0 where the driver does not say.
        hottest_c: temperature of the warmest card; None where none tells.
    """

    used_bytes: dict[str, int]
    processes: dict[int, int]
    hottest_c: int | None = None


def read_card_use(cards: Collection[str] = ()) -> CardUse:
    """Ask the driver; both parts are empty where there is no NVIDIA card.

    Args:
        cards: uuids of those that are asked about; empty: all of them.

    Raises:
        DriverError: there is a driver and it does not work.
    """
    gpus = [gpu for gpu in nvidia_gpus() if not cards or gpu.uuid in cards]
    heat = [gpu.temperature_c for gpu in gpus if gpu.temperature_c is not None]
    use = CardUse({}, {}, max(heat, default=None))
    for gpu in gpus:
        use.used_bytes[gpu.uuid] = gpu.memory_used_bytes
        for process, held in gpu.processes.items():
            use.processes[process] = use.processes.get(process, 0) + held
    return use


def find_strangers(cards: Collection[str] = (), *, count: int = 1) -> dict[int, int]:
    """Return who holds memory of the cards that an experiment is about to take, process id to bytes
    (0 where the driver does not say); nobody where enough cards are free, which it takes.

    To be asked while no experiment of ours is on them: whoever is there is none of ours.

    Args:
        cards: uuids of those that it is kept to; empty: it takes any.
        count: how many it takes.

    Raises:
        DriverError: there is a driver and it does not work.
    """
    gpus = visible_gpus(nvidia_gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    gpus = [gpu for gpu in gpus if not cards or gpu.uuid in cards]
    used = [gpu for gpu in gpus if gpu.processes and gpu.memory_used_bytes > TOLERANCE_BYTES]
    lacking = max(0, count - (len(gpus) - len(used)))
    used.sort(key=lambda gpu: gpu.memory_used_bytes)
    return {pid: held for gpu in used[:lacking] for pid, held in gpu.processes.items()}


def wait_for_strangers(
    *,
    timeout_seconds: float,
    sleep: Callable[[float], bool],
    find: Callable[[], dict[int, int]],
    say: Callable[[str], object],
) -> str:
    """Wait until nobody else holds the card that an experiment is about to take.

    Args:
        timeout_seconds: longest wait.
        sleep: waits for so many seconds; False: somebody wants to stop, which ends the wait.
        find: asks who is there (find_strangers).
        say: told who is waited for.

    Returns:
        Who is still there then, in words; empty where the card is free.
    """
    start, there = time.monotonic(), find()
    if not there:
        return ""
    say(
        f"the GPU is in use by {_name_processes(there)}, which is not of this batch: waiting until "
        f"it is free, at most {timeout_seconds:g} s (batch.free_timeout_seconds)"
    )
    while there and time.monotonic() - start < timeout_seconds and sleep(CARD_POLL_SECONDS):
        there = find()
    if not there:
        say(f"  it is free after {time.monotonic() - start:.0f} s")
        return ""
    return (
        f"the GPU is still in use by {_name_processes(there)}; the experiment starts all the same, "
        "and passes that memory does not hold are halved. End that process, or give another card "
        "with CUDA_VISIBLE_DEVICES"
    )


def _name_processes(held: Mapping[int, int]) -> str:
    return ", ".join(
        f"process {pid}"
        + (f" {name}" if (name := _name_of(pid)) else "")
        + (f" ({one / MIB:,.0f} MiB)" if one else "")
        for pid, one in held.items()
    )


def _name_of(pid: int) -> str:
    """Return a process's name; empty where it is the host's, of which a container sees nothing."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def wait_until_free(
    before: CardUse,
    *,
    group: int,
    timeout_seconds: float,
    cooldown: str,
    sleep: Callable[[float], bool],
    read_use: Callable[[], CardUse] = read_card_use,
) -> tuple[bool, str]:
    """Wait until the cards are as free as before the experiment, and for the cool-down.

    Args:
        before: the cards' use just before the experiment started.
        group: process group of the experiment, all of it dead by now.
        timeout_seconds: longest wait for the memory.
        cooldown: as batch.cooldown: until_free, seconds that the pause takes at least (`75s`), or
            what the cards are to cool down to (`65C`).
        sleep: waits for so many seconds; False: somebody wants to stop, which ends the wait.
        read_use: asks for the present use.

    Returns:
        Whether the memory came free, True where there is no NVIDIA card; one line for the user,
        empty where there is nothing to say.
    """
    start = time.monotonic()
    reason = ""
    if before.used_bytes:
        reason = _find_what_stays(before, read_use(), group)
        while reason and time.monotonic() - start < timeout_seconds and sleep(CARD_POLL_SECONDS):
            reason = _find_what_stays(before, read_use(), group)
    waited = time.monotonic() - start
    cooled = _cool_down(cooldown, waited=waited, sleep=sleep, read_use=read_use)
    if reason:
        return False, (
            f"GPU memory did not come free in {waited:.0f} s: {reason}. The next experiment starts "
            "all the same; if it runs out of memory, end that process or reboot"
        )
    said = [f"GPU memory is free again after {waited:.1f} s"] if before.used_bytes else []
    said += [cooled] if cooled else []
    return True, ", ".join(said)


def _cool_down(
    cooldown: str, *, waited: float, sleep: Callable[[float], bool], read_use: Callable[[], CardUse]
) -> str:
    """Wait as batch.cooldown asks, and say so; empty where it asks nothing more."""
    if cooldown.endswith("s") and (seconds := float(cooldown[:-1])) > waited:
        sleep(seconds - waited)
        return f"cool-down of {seconds:g} s as configured"
    if not cooldown.endswith("C"):
        return ""
    wanted, start = int(cooldown[:-1]), time.monotonic()
    while (
        (heat := read_use().hottest_c) is not None
        and heat > wanted
        and time.monotonic() - start < MAX_COOLING_SECONDS
        and sleep(CARD_POLL_SECONDS)
    ):
        pass
    if heat is None:
        return "no card tells its temperature, so batch.cooldown waited for none"
    spent = time.monotonic() - start
    return f"{heat} °C after {spent:.0f} s of cool-down (to {wanted} °C, batch.cooldown)"


def _find_what_stays(before: CardUse, now: CardUse, group: int) -> str:
    """Say what of the experiment is still on a card; empty when nothing is."""
    new = {pid: held for pid, held in now.processes.items() if pid not in before.processes}
    ours = {pid: held for pid, held in new.items() if _may_be_ours(pid, group)}
    if ours:
        return f"still held by {_name_processes(ours)}"
    for uuid, used in before.used_bytes.items():
        extra = now.used_bytes.get(uuid, used) - used
        # Another user's process that came meanwhile explains more memory in use; waiting would not
        # end it.
        if extra > TOLERANCE_BYTES and not new:
            return (
                f"{extra / MIB:,.0f} MiB more in use than before the experiment, by no process "
                "that the driver names"
            )
    return ""


def _may_be_ours(pid: int, group: int) -> bool:
    """A process of the group, or one that is dead yet listed; in a container, the number may be the
    host's."""
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
