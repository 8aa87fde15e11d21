"""Newer bundles under a running camera: tried, swapped between two frames, and taken back where they fail."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from boards import NEEDED, Board, until
from cameras import Fake, at_pace
from conftest import refused

from edgeeff import BadInput, Budget, Bundle
from edgeeff.bundle import seal
from edgeeff.camera import Camera
from edgeeff.camera import follow as following
from edgeeff.camera.follow import STATE, Follower, Following, bundle_to_run, rollback
from edgeeff.camera.result import Event, Result
from edgeeff.job import BundleJob
from edgeeff.remote import pull
from edgeeff.remote.pull import Puller
from edgeeff.signature import NAME as SIGNATURE

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK", 0.05)


def release(bundle: Path, out: Path, days: int, change: Callable[[Path], None] = lambda folder: None, **changes: object) -> Path:
    """A copy of a bundle that was made so many days after START; it appears at once, as after a rename."""
    part = out.with_name(f".{out.name}")
    shutil.copytree(bundle, part)
    (part / "manifest.json").unlink()
    change(part)
    manifest = replace(Bundle.open(bundle).manifest, date=(START + timedelta(days=days)).isoformat(), **changes)
    seal(part, manifest)
    return part.rename(out)


class Line:
    """A camera of 50 frames a second that follows a folder, in threads of its own."""

    def __init__(self, job: BundleJob, folder: Path, frames: int = 5) -> None:
        self.events: list[Event] = []
        bundle, self.first = bundle_to_run(job, folder, self.events.append)
        self.results: list[Result] = []
        self.camera = Camera(bundle, [Fake("line", at_pace(50))])
        self.follower = Follower(job, folder, self.camera, self.first, self.events.append, frames)

    def run(self) -> None:
        for result in self.camera:
            self.results.append(result)

    def said(self, kind: str) -> list[str]:
        return [f"{event.bundle}: {event.detail}" for event in self.events if event.event == kind]


@contextlib.contextmanager
def line(job: BundleJob, folder: Path, frames: int = 5) -> Iterator[Line]:
    made = Line(job, folder, frames)
    thread = threading.Thread(target=made.run)
    with made.follower:
        thread.start()
        try:
            until(lambda: made.results)
            yield made
        finally:
            for capture in made.camera.captures:
                capture.stop()
            thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bundles").mkdir()
    return tmp_path / "bundles"


@pytest.fixture
def job(fitted, tmp_path: Path) -> BundleJob:
    return BundleJob(release(fitted[0], tmp_path / "own", 0))


def test_a_newer_bundle_takes_over_between_two_frames(job: BundleJob, folder: Path) -> None:
    with line(job, folder) as live:
        (drift,) = live.camera.active.drift
        release(job.bundle, folder / "two", 2)
        until(lambda: live.said("proven"))
        assert live.camera.bundle.path == folder / "two"
        assert drift
        assert live.camera.active.drift[0] not in (drift, None)  # compared with what this one was calibrated on
        count = len(live.results)
        until(lambda: len(live.results) > count + 5)
    assert [event.event for event in live.events] == ["on trial", "running", "proven"]
    assert live.said("running")[0] == "two: says the same as the one before of 5 of 5 frames"
    assert Following.read(folder) == Following("two", "")
    assert not live.camera.summary().sources[0].unreadable


def test_what_cannot_be_used_is_refused_in_a_line_and_the_old_goes_on(job: BundleJob, folder: Path, fitted) -> None:
    with line(job, folder) as live:
        release(job.bundle, folder / "older", -1)
        golden, names = Bundle.open(job.bundle).golden(), "".join(f"class {i}\n" for i in range(10))
        wrong = {**golden, "logits": golden["logits"][:, ::-1].copy()}
        release(job.bundle, folder / "wrong", 3, lambda part: np.savez_compressed(part / "golden.npz", **wrong))
        release(job.bundle, folder / "renamed", 4, lambda part: (part / "labels.txt").write_text(names))
        (folder / "no-bundle").mkdir()
        until(lambda: len({event.bundle for event in live.events if event.event == "refused"}) == 3)
        assert live.camera.bundle.path == Path(job.bundle)
    reasons = {event.bundle: event.detail for event in live.events if event.bundle in ("older", "wrong", "renamed")}
    assert "not newer than what runs" in reasons["older"]
    assert "golden images give other logits here" in reasons["wrong"]
    assert "has other classes than what runs" in reasons["renamed"]
    assert not live.said("running")


def test_a_bundle_that_is_still_being_copied_is_used_once_it_is_whole(job: BundleJob, folder: Path) -> None:
    whole = release(job.bundle, folder.parent / "whole", 2)
    with line(job, folder) as live:
        shutil.copytree(whole, folder / "two", ignore=shutil.ignore_patterns("model.bin"))
        until(lambda: "model.bin is missing" in "".join(live.said("refused")))
        shutil.copy(whole / "model.bin", folder / "two")
        until(lambda: live.said("proven"))


def test_only_what_a_trusted_key_signed_is_tried(job: BundleJob, folder: Path) -> None:
    private, public = folder.parent / "private.pem", folder.parent / "public.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    Bundle.open(job.bundle).sign(private)
    with line(replace(job, trusted=(public,)), folder) as live:
        two = release(job.bundle, folder / "two", 2)
        assert not (two / SIGNATURE).exists()
        until(lambda: live.said("refused"))
        assert "is not signed" in live.said("refused")[0]
        Bundle.open(two).sign(private)
        until(lambda: live.said("proven"))


def test_a_bundle_that_gives_no_labels_once_it_runs_is_taken_back(
    job: BundleJob, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Bundle.watch_scored, [0]

    def watch(self, frames):
        see = whole(self, frames)
        if self.path.name != "two":
            return see

        def failing(frame):
            calls[0] += 1
            return see(frame) if live.camera.bundle.path.name != "two" else (np.full((1, 10), np.nan, np.float32), np.zeros(1))

        return failing

    monkeypatch.setattr(Bundle, "watch_scored", watch)
    with line(job, folder) as live:
        release(job.bundle, folder / "two", 2)
        until(lambda: live.said("rolled back"))
        assert live.camera.bundle.path == Path(job.bundle)
        count = len(live.results)
        until(lambda: len(live.results) > count + 5)
        state = Following.read(folder)
        assert state.running == ""
        assert "frames without a label" in next(iter(state.refused.values()))
        time.sleep(0.5)
    assert live.said("on trial") == live.said("on trial")[:1]  # it is not tried again


def test_one_that_is_over_its_budget_and_slower_is_refused(job: BundleJob, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Bundle.watch_scored

    def watch(self, frames):
        see = whole(self, frames)
        return (lambda frame: (time.sleep(0.05), see(frame))[1]) if self.path.name == "two" else see

    monkeypatch.setattr(Bundle, "watch_scored", watch)
    with line(job, folder) as live:
        release(job.bundle, folder / "two", 2, budget=Budget(latency_ms=20))
        until(lambda: live.said("refused"))
    assert "inference p50" in live.said("refused")[0]
    assert not live.said("running")


def test_rollback_reaches_a_running_camera_and_outlives_it(job: BundleJob, folder: Path) -> None:
    with pytest.raises(BadInput, match="none to go back to"):
        rollback(folder)
    release(job.bundle, folder / "two", 2)
    with line(job, folder) as live:
        until(lambda: live.said("proven"))
        rollback(folder)
        until(lambda: live.said("rolled back"))
        assert live.camera.bundle.path == Path(job.bundle)
        time.sleep(0.5)
        assert len(live.said("on trial")) == 1
    with line(job, folder) as again:
        time.sleep(0.5)
    assert (again.first, again.events) == ("", [])


def test_a_camera_that_starts_again_runs_what_ran_or_else_what_ran_before(job: BundleJob, folder: Path) -> None:
    release(job.bundle, folder / "two", 2)
    release(job.bundle, folder / "three", 3)
    Following("three", "two").write(folder)
    events: list[Event] = []
    assert bundle_to_run(job, folder, events.append)[1] == "three"
    (folder / "three/model.bin").write_bytes(b"cut off")
    assert bundle_to_run(job, folder, events.append)[1] == "two"
    shutil.rmtree(folder / "two")
    assert bundle_to_run(job, folder, events.append)[1] == ""
    assert {event.bundle for event in events} == {"two", "three"}


def test_a_folder_that_vanishes_or_is_followed_twice(job: BundleJob, folder: Path) -> None:
    with line(job, folder) as live:
        camera = Camera(Bundle.open(job.bundle), [Fake("other", at_pace(50))])
        with pytest.raises(BadInput, match="another camera follows it"), Follower(job, folder, camera, "", print):
            pass
        shutil.rmtree(folder)
        until(lambda: live.said("refused"))
        count = len(live.results)
        until(lambda: len(live.results) > count + 5)
    assert len(live.said("refused")) == 1


def test_the_command_line_follows_and_tells_events_as_json(fitted, folder: Path, film: Path, run) -> None:
    words = ["camera", str(fitted[0]), "--source", str(film), "--loop", "--follow", str(folder), "--json"]
    command = [sys.executable, "-m", "edgeeff", *words]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)
        release(fitted[0], folder / "two", 3650)
        events = []
        for text in process.stdout:
            if "event" in (told := json.loads(text)):
                events.append(told["event"])
            if events[-1:] == ["proven"]:
                break
        assert json.loads((folder / STATE).read_text())["running"] == "two"
        done = run("rollback", folder, "--json")
        assert json.loads(done.stdout)["running"] == ""
        for text in process.stdout:
            if json.loads(text).get("event") == "rolled back":
                process.send_signal(signal.SIGTERM)
                break
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert events == ["on trial", "running", "proven"]
        assert "two: proven: gave 100 labels" in said


@NEEDED
def test_bundles_are_fetched_from_another_host(job: BundleJob, folder: Path, here: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "PERIOD", 0.2)
    there = here.home / "bundles"
    there.mkdir()
    (there / STATE).write_text("that of a camera there")
    with line(job, folder) as live, Puller(f"{here.name}:bundles", folder, live.events.append):
        release(job.bundle, there / "two", 2)
        until(lambda: live.said("proven"))
        model = folder / "two/model.bin"
        running = model.stat().st_ino
        shutil.copyfile(there / "two/model.xml", there / "two/model.bin")  # somebody writes into what runs
        until(lambda: model.stat().st_ino != running)  # here it is another file: the camera has the one that it has opened
        here.rule("exit 255")
        until(lambda: live.said("not copied"))
        count = len(live.results)
        until(lambda: len(live.results) > count + 5)
    assert len(live.said("not copied")) == 1
    assert live.camera.bundle.path == folder / "two"
    assert Following.read(folder).running == "two"
    assert not [path.name for path in folder.iterdir() if path.name not in ("two", STATE, f".{STATE}.lock")]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--pull=user@host:bundles"], "needs --follow DIR"),
        (["--follow", "{folder}", "--pull=bundles"], "expected USER@HOST:DIR"),
        (["--follow", "{folder}", "--pull=-oProxyCommand=x:bundles"], "expected USER@HOST:DIR"),
        (["--follow", "{folder}", "--pull=host:--rsh=x"], "expected USER@HOST:DIR"),
    ],
)
def test_an_address_that_is_none_is_refused(fitted, folder: Path, film: Path, run, words: list[str], reason: str) -> None:
    words = [word.format(folder=folder) for word in words]
    refused(run("camera", fitted[0], "--source", film, "--seconds", 1, *words), 2, "--pull", reason)
