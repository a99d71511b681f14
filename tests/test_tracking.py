"""Weights & Biases that cannot be reached, hangs in mid-run or dies: it ends no run."""

from __future__ import annotations

import json
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from dialsum.config.schema import Tracking
from dialsum.errors import EXIT_OK
from dialsum.machine.devices import DriverError, GpuState
from dialsum.paths import RunPaths
from dialsum.train.curves import OffError, find_answer
from dialsum.train.progress import Progress
from dialsum.train.tracking import FINISH_SECONDS, Followers
from gpu_states import make_gpu
from small_models import KINDS, train_sample_tokenizer, write_checkpoint
from trainer_runs import (
    REPOSITORY,
    SECRETS,
    command,
    environment,
    files_with,
    read_events,
    read_result,
    run,
    wait_for_training,
)
from wandb_server import WandbServer

MT5, KOBART_LORA = "01_mt5_xlsum_optimized_v2", "03_high_learning_rate_rtx3090"

ON = {"WANDB_API_KEY": SECRETS["WANDB_API_KEY"]}


def start_followers(
    folder: Path, asked: Tracking, *, warn: Callable[[str], None] = print
) -> Followers:
    """Start the trackers of a run in a folder."""
    return Followers(
        asked, paths=RunPaths.alone(folder), warn=warn, name="x", group=None, config={}
    )


def wait_until(found: Callable[[], object]) -> None:
    """Return once something is found, a minute later at most."""
    end = time.monotonic() + 60
    while not found() and time.monotonic() < end:
        time.sleep(0.05)
    assert found()


WHY_OFF = [
    (False, ON, "tracking.wandb is false"),
    ("auto", {}, "WANDB_API_KEY is set neither"),
    (True, {}, "WANDB_API_KEY is set neither"),
    ("auto", {**ON, "WANDB_MODE": "disabled"}, "WANDB_MODE is disabled in the environment"),
    (True, {**ON, "WANDB_MODE": "disabled"}, "WANDB_MODE is disabled in the environment"),
    (True, {**ON, "WANDB_DISABLED": "true"}, "WANDB_DISABLED is true in the environment"),
    ("auto", {**ON, "WANDB_DISABLED": "1"}, "WANDB_DISABLED is 1 in the environment"),
    (True, {**ON, "WANDB_MODE": " DISABLED "}, "WANDB_MODE is disabled in the environment"),
    (True, {**ON, "WANDB_MODE": "of"}, "WANDB_MODE is 'of'; set it to one of onl"),
]


@pytest.mark.parametrize(("asked", "variables", "why"), WHY_OFF)
def test_tracking_that_is_off_says_why_and_asks_nobody(
    asked: Any, variables: dict[str, str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # Whoever asks all the same gets another reason.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    followers = start_followers(tmp_path, Tracking(wandb=asked, tensorboard=False))
    record = followers.finish(None, exit_code=0)
    assert record["used"] == "off"
    assert record["why"].startswith(why)
    assert record["tensorboard"] == {"used": "off", "why": "tracking.tensorboard is false"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.training
@pytest.mark.parametrize("mode", ["dryrun", "OFFLINE"])
def test_a_mode_is_obeyed_in_each_of_its_spellings_and_each_run_has_its_own_id(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "settings").write_text("[default]\nrun_id = the_same\n", encoding="utf-8")
    folder = tmp_path / "run"
    folder.mkdir()
    for name, value in {
        "WANDB_API_KEY": SECRETS["WANDB_API_KEY"],
        "WANDB_MODE": mode,
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_CONFIG_DIR": str(settings),
    }.items():
        monkeypatch.setenv(name, value)
    followers = start_followers(folder, Tracking(wandb=True, tensorboard=False))
    Progress(folder / "metrics.jsonl").train_step(1, 1, {"loss": 1.0})
    wait_until(lambda: list((folder / "wandb").glob("offline-run-*")))
    record = followers.finish(None, exit_code=0)
    assert (record["used"], record["why"]) == ("offline", f"WANDB_MODE is {mode.lower()}")
    [kept] = (folder / "wandb").glob("offline-run-*")
    assert not kept.name.endswith("the_same")


def answer_once(server: socket.socket, content: bytes) -> None:
    """Answer the first that connects with these bytes; nothing: never."""
    connection = server.accept()[0]
    with connection:
        received = connection.recv(65536)
        if content:
            connection.sendall(content)
        while received:
            received = connection.recv(65536)


def reply(status: str, body: bytes) -> bytes:
    """Return an HTTP answer."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


ANSWERS = [
    (b"", "has not answered within 0.5 s"),
    (b"SSH-2.0-OpenSSH_9.6\r\n", "answers, but not as W&B does"),
    (reply("200 OK", b"<html>Log in to this hotel's network</html>"), "not as W&B does"),
    (reply("503 Service Unavailable", b""), "answers 503"),
    (reply("200 OK", b'{"data": {"viewer": null}}'), None),
    (reply("401 Unauthorized", b"no key"), None),
]


@pytest.mark.parametrize(("content", "wrong"), ANSWERS)
def test_an_address_is_asked_before_a_run_waits_for_it(content: bytes, wrong: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer_once, args=(server, content), daemon=True).start()
        place = f"127.0.0.1:{server.getsockname()[1]}"
        url = f"http://user:{SECRETS['HF_TOKEN']}@{place}/"
        # Long for those that answer, on a busy machine; short for the one that never does.
        patience = 0.5 if not content else 60.0
        if wrong is None:
            find_answer(url, max_seconds=patience)
            return
        with pytest.raises(OffError, match=wrong) as caught:
            find_answer(url, max_seconds=patience)
    assert place in str(caught.value) and SECRETS["HF_TOKEN"] not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://no-such-host.invalid"])
def test_an_address_where_nobody_is_is_named(url: str) -> None:
    with pytest.raises(OffError, match=url.removeprefix("http://")):
        find_answer(url)


def test_the_test_server_answers_as_wandb_does() -> None:
    with WandbServer.running() as server:
        find_answer(server.url, max_seconds=60)


def check_no_secret(folder: Path, done: subprocess.CompletedProcess[str]) -> None:
    """Hold a finished run against every key that it was given."""
    for name, secret in SECRETS.items():
        assert secret not in done.stdout + done.stderr, name
        assert files_with(folder, secret) == [], name


def train_with_dead_tracking(
    folder: Path, checkpoint: Path
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run KoBART's LoRA experiment from a local folder while W&B cannot be reached."""
    line = command(
        KOBART_LORA,
        folder,
        "--set",
        f"model.checkpoint={checkpoint}",
        "--set",
        "training.learning_rate=5e-3",
        demo=False,
    )
    done = run(line, WANDB_BASE_URL="http://127.0.0.1:9", **SECRETS)
    assert done.returncode == EXIT_OK, done.stdout + done.stderr
    return done, read_result(folder)


def check_dead_tracking(
    folder: Path, done: subprocess.CompletedProcess[str], record: dict[str, Any]
) -> None:
    """Hold a run whose W&B was dead against what it must say of that."""
    tracking = record["tracking"]
    assert (tracking["requested"], tracking["used"]) == ("auto", "off")
    assert tracking["why"].startswith("could not start: 127.0.0.1:9 cannot be reached: ")
    assert "url" not in tracking
    assert done.stdout.count("Weights & Biases") == 1
    check_no_secret(folder, done)


@pytest.mark.training
def test_dead_tracking_ends_no_run_and_no_key_is_written(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    write_checkpoint(checkpoint, "bart", tokenizer=train_sample_tokenizer(KINDS["bart"]))
    done, record = train_with_dead_tracking(tmp_path / "run", checkpoint)
    check_dead_tracking(tmp_path / "run", done, record)
    with WandbServer.running() as server:
        values = {**SECRETS, "WANDB_BASE_URL": server.url}
        for _ in range(2):
            sent = subprocess.run(
                [sys.executable, REPOSITORY / "scripts" / "curves.py", tmp_path / "run", "--wandb"],
                env=environment(**values),
                capture_output=True,
                text=True,
                timeout=120,
            )
            assert sent.returncode == EXIT_OK, sent
            assert f"Weights & Biases has the curves: {server.url}" in sent.stdout
    events = read_events(tmp_path / "run")
    [known] = [event["id"] for event in events if event["event"] == "wandb"]
    assert set(server.opened) == {known}
    steps = [event for event in events if event["event"] == "train"]
    points = [point for point in server.find_history() if "train/loss" in point]
    # The server of these tests does not say what it has of a run: it gets all of it both times.
    assert [point["_step"] for point in points] == 2 * [event["step"] for event in steps]
    moments = [datetime.fromisoformat(event["time"]).timestamp() for event in steps]
    assert [point["_timestamp"] for point in points] == pytest.approx(2 * moments)


@contextmanager
def tracked_run(folder: Path, server: WandbServer) -> Iterator[subprocess.Popen[str]]:
    """Start a run of some hundred steps whose W&B is that server and has begun."""
    line = command(
        MT5,
        folder,
        "--set",
        "tracking.wandb=true",
        "--set",
        "training.max_steps=60",
        "--set",
        "training.eval_steps=30",
    )
    values = {**SECRETS, "WANDB_BASE_URL": server.url}
    with subprocess.Popen(
        line, env=environment(**values), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # The first event comes once W&B was started.
        while not (folder / "metrics.jsonl").is_file() and process.poll() is None:
            time.sleep(0.01)
        yield process


def check_recorded(
    folder: Path, process: subprocess.Popen[str], said: tuple[str, str]
) -> dict[str, Any]:
    """Hold a run whose W&B died against a run that needs none; return its tracking record."""
    assert process.returncode == EXIT_OK, said
    record = read_result(folder)
    assert record["status"] == "success"
    assert record["training"]["steps"] == 60
    assert "evaluation" in record
    for path in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(path)
    for name, secret in SECRETS.items():
        assert secret not in "".join(said), name
        assert files_with(folder, secret) == [], name
    tracking: dict[str, Any] = record["tracking"]
    return tracking


@pytest.mark.training
@pytest.mark.slow
def test_tracking_that_falls_silent_in_mid_run_holds_up_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with WandbServer.running() as server, tracked_run(folder, server) as process:
        wait_for_training(folder, process)
        server.fall_silent()
        said = process.communicate(timeout=180)
        assert server.unanswered.is_set()
    tracking = check_recorded(folder, process, said)
    assert tracking["url"].startswith(server.url) and tracking["unsent"] is True
    assert re.search(r"has not taken everything in 4 s\. .*curves\.py \S+ --wandb", said[0])


@pytest.mark.training
def test_tracking_whose_service_is_stopped_in_mid_run_holds_up_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with WandbServer.running() as server, tracked_run(folder, server) as process:
        wait_for_training(folder, process)
        children = psutil.Process(process.pid).children(recursive=True)
        [service] = [child for child in children if child.name() == "wandb-core"]
        service.suspend()
        said = process.communicate(timeout=180)
    assert check_recorded(folder, process, said)["unsent"] is True
    assert said[0].count("Weights & Biases has not taken everything in 4 s") == 1
    # It is ended, not left stopped for ever; nobody takes its exit status any more.
    assert not service.is_running() or service.status() == psutil.STATUS_ZOMBIE
    assert "Traceback" not in "".join(said)


def write_points(metrics: Path, count: int) -> None:
    """Write lines of loss as a run does."""
    progress = Progress(metrics)
    for step in range(1, count + 1):
        progress.train_step(step, count, {"loss": 1.0 / step, "grad_norm": 1.0})


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return step and value of TensorBoard's curves, as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: [(point.step, round(point.value, 6)) for point in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


LOSSES = [(step, round(1.0 / step, 6)) for step in range(1, 31)]


def test_curves_stand_in_tensorboard_s_files_and_can_be_written_anew(tmp_path: Path) -> None:
    followers = start_followers(tmp_path, Tracking(wandb=False))
    write_points(tmp_path / "metrics.jsonl", 30)
    record = followers.finish(None, exit_code=0)
    assert record["tensorboard"] == {"used": "on"}
    assert read_curves(tmp_path / "logs")["train/loss"] == LOSSES
    # A run that goes on from a checkpoint has them once.
    start_followers(tmp_path, Tracking(wandb=False)).finish(None, exit_code=0)
    assert read_curves(tmp_path / "logs")["train/loss"] == LOSSES


def find_follower() -> psutil.Process:
    """Return the process of the only tracker that this process has started."""
    [found] = [
        one
        for one in psutil.Process().children()
        if "dialsum.train.curves" in " ".join(one.cmdline())
    ]
    return found


def test_curves_whose_process_hangs_hold_up_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    followers = start_followers(tmp_path, Tracking(wandb=False))
    write_points(tmp_path / "metrics.jsonl", 30)
    wait_until(lambda: list((tmp_path / "logs").glob("*")))
    process = find_follower()
    process.suspend()
    began = time.monotonic()
    record = followers.finish(None, exit_code=0)
    assert FINISH_SECONDS < time.monotonic() - began < FINISH_SECONDS + 10
    assert record["tensorboard"]["unsent"] is True
    assert not process.is_running()
    assert re.search(r"warning: TensorBoard .*curves\.py .* --tensorboard", capsys.readouterr().out)


def test_curves_whose_disk_fills_up_are_told_once_and_hold_up_no_run(tmp_path: Path) -> None:
    warnings: list[str] = []
    followers = start_followers(tmp_path, Tracking(wandb=False), warn=warnings.append)
    wait_until(lambda: list((tmp_path / "logs").glob("*")))
    find_follower().rlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    write_points(tmp_path / "metrics.jsonl", 200)
    wait_until(lambda: followers.look() or warnings)
    record = followers.finish(None, exit_code=0)["tensorboard"]
    assert (record["used"], record["unsent"]) == ("off", True)
    [told] = warnings
    assert told.startswith("TensorBoard off: stopped: File too large; the run goes on. metrics.jso")


@pytest.mark.slow
def test_tracking_whose_service_is_stopped_while_it_begins_holds_up_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_service() -> list[psutil.Process]:
        return [
            one for one in find_follower().children(recursive=True) if one.name() == "wandb-core"
        ]

    with WandbServer.running() as server:
        for name, value in {**SECRETS, "WANDB_BASE_URL": server.url}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
        (tmp_path / "scratch").mkdir()
        followers = start_followers(tmp_path, Tracking(wandb=True, tensorboard=False))
        write_points(tmp_path / "metrics.jsonl", 30)
        wait_until(find_service)
        [service] = find_service()
        service.suspend()
        time.sleep(1.0)
        began = time.monotonic()
        followers.look()
        record = followers.finish(None, exit_code=0)
        assert time.monotonic() - began < FINISH_SECONDS + 10
    assert (record["used"], record["unsent"]) == ("off", True)
    assert record["why"] == "could not start before the run had ended"
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not service.is_running() or service.status() == psutil.STATUS_ZOMBIE


def test_curves_on_a_disk_that_fails_are_told_once(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    warnings: list[str] = []
    followers = start_followers(tmp_path, Tracking(wandb=False), warn=warnings.append)
    write_points(tmp_path / "metrics.jsonl", 3)
    wait_until(lambda: followers.look() or warnings)
    record = followers.finish(None, exit_code=0)
    assert record["tensorboard"]["used"] == "off" and record["tensorboard"]["unsent"] is True
    [told] = warnings
    assert told.startswith("TensorBoard off: could not start: ") and "logs: File exists" in told


@pytest.mark.training
def test_tracking_whose_service_is_killed_in_mid_run_is_recorded_as_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with WandbServer.running() as server, tracked_run(folder, server) as process:
        wait_for_training(folder, process)
        children = psutil.Process(process.pid).children(recursive=True)
        services = [child for child in children if "wandb" in child.name()]
        assert services
        for service in services:
            service.kill()
        said = process.communicate(timeout=180)
    tracking = check_recorded(folder, process, said)
    assert tracking["used"] == "off"
    assert tracking["why"].startswith("stopped: ")
    assert said[0].count("warning: Weights & Biases off: stopped") == 1
    assert "Traceback" not in "".join(said)


def test_a_card_s_temperature_and_power_are_logged_and_a_failing_driver_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [replace(make_gpu(0), temperature_c=heat, power_w=300.0) for heat in (61, 74, 70)]

    def ask() -> GpuState:
        if not answers:
            raise DriverError("the NVIDIA driver does not work")
        return answers.pop(0)

    progress = Progress(tmp_path / "metrics.jsonl", ask_card=ask)
    for step in range(1, 9):
        progress.train_step(step, 8, {"loss": 1.0})
        time.sleep(0.05)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    steps = [one for one in events if one["event"] == "train"]
    assert [one.get("gpu_temperature_c") for one in steps[:4]] == [None, 61, 74, 70]
    assert steps[1]["gpu_power_w"] == 300.0 and "gpu_power_w" not in steps[-1]
    assert progress.describe_card() == {"hottest_c": 74, "mean_power_w": 300.0}
    assert capsys.readouterr().out.count("temperature is not known any more") == 1
