"""Newer bundles for a running camera: checked, tried beside the old one on live frames, put in its place between two frames.

A folder holds bundles, each in a folder of its own whose name does not begin with a dot. Whatever is newer than what runs, by
the date in its manifest, is opened (with `trusted` keys, only what one of them signed), replays its golden photos, and then
labels the same frames as the bundle that runs. After so many frames it takes that one's place, unless it gave no finite numbers
or was slow; for as many frames more it is watched, and goes again if it fails. `following.json`, in that folder, says what
runs, what ran before, and what was refused: a camera that is started again goes on with it. A bundle stays in its folder until
somebody removes it.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..bundle import Bundle
from ..errors import BadInput, EdgeeffError
from ..files import locked, space_in, user_path, write_whole
from ..job import BundleJob
from ..manifest import NAME, written
from ..records import dump_json, read_json
from .loop import ActiveModel, Camera
from .result import Event, EventKind, Result

STATE = "following.json"
LOOK = 1.0  # seconds between two looks at the folder
FRAMES = 100  # on which a bundle is tried before it takes the other's place, and for which it is watched afterwards
MOST_ERRORS = 5  # frames that a bundle which is watched may leave without a label


@dataclass(frozen=True)
class Following:
    """What `following.json` holds. `running` and `previous` are folders' names, empty for the bundle of the command line; `refused`
    has the reason by the SHA-256 of the manifest."""

    running: str = ""
    previous: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Following:
        """Raises BadInput where it cannot be read."""
        return read_json(folder / STATE, cls) if (folder / STATE).exists() else cls()

    def write(self, folder: Path) -> None:
        with user_path(folder, "written"), space_in(folder):
            write_whole(folder / STATE, dump_json(self).encode())


def rollback(folder: Path) -> Following:
    """Let the camera that follows a folder go back to the bundle before; a running one does so within seconds.

    Raises BadInput where there is none to go back to.
    """
    with user_path(folder, "read"):
        state = Following.read(folder)
    if not state.running:
        raise BadInput(f"{folder}: no camera runs a bundle of it, so that there is none to go back to.")
    path = folder / state.running
    refused = {**state.refused, _digest(path): "taken back by hand"} if (path / NAME).is_file() else state.refused
    back = replace(state, running=state.previous, previous="", refused=refused)
    back.write(folder)
    return back


def bundle_to_run(job: BundleJob, folder: Path, tell: Callable[[Event], None]) -> tuple[Bundle, str]:
    """What a camera starts with, and its name: what ran last, what ran before, or the job's own; the first that can be used."""
    with user_path(folder, "read"):
        state = Following.read(folder)
    for name in filter(None, dict.fromkeys((state.running, state.previous))):
        try:
            bundle = _opened(job, folder / name)
            bundle.verify()
            return bundle, name
        except EdgeeffError as error:
            tell(Event("refused", name, str(error), time.time()))
    return job.open(), ""


class Follower:
    """Looks into the folder in a thread of its own while the context is entered, and tries bundles after each label of the camera.

    `running` is the name of the bundle with which the camera began. A folder is followed by one camera at a time: BadInput for a
    second one. Only that thread decides; the camera's own thread labels frames, and takes what is `active` for the next one.
    """

    def __init__(
        self, job: BundleJob, folder: Path, camera: Camera, running: str, tell: Callable[[Event], None], frames: int = FRAMES
    ) -> None:
        self.job, self.folder, self.camera, self.frames = job, folder, camera, frames
        self.running, self._tell = running, tell
        self._trial: _Trial | None = None
        self._known: dict[str, object] = {}  # what was said of each folder there, or its state when it could not be used
        self._stop, self._wake = False, threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"follow {folder}", daemon=True)
        self._lock: BinaryIO | None = None

    def __enter__(self) -> Follower:
        with user_path(self.folder, "written"):
            try:
                self._lock = locked(self.folder / f".{STATE}.lock", wait=False)
            except BlockingIOError as error:
                raise BadInput(f"{self.folder}: another camera follows it. Give each a folder of its own.") from error
            state = Following.read(self.folder)
        if state.running != self.running:  # that cannot be used any more
            replace(state, running=self.running, previous="").write(self.folder)
        self.camera.after_label = self
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._wake.set()
        self._thread.join()
        if self._lock:
            self._lock.close()

    def __call__(self, result: Result) -> None:
        """Called by the camera after each label, in its thread: the bundle on trial labels the same frame."""
        trial = self._trial
        if trial and not trial.failure and len(trial.milliseconds) < self.frames:
            trial.add(result)
            if trial.failure or len(trial.milliseconds) == self.frames:
                self._wake.set()

    def _watch(self) -> None:
        while not self._stop:
            trying = self._trial is not None
            try:
                self._look()
                self._known.pop("", None)
            except (EdgeeffError, OSError) as error:  # the folder has gone, or its disk is full: the camera goes on
                if self._known.get("") != str(error):
                    self._known[""] = str(error)
                    self._say("refused", str(self.folder), str(error))
            if trying and self._trial is None:
                _return_freed_memory()
            self._wake.wait(LOOK)
            self._wake.clear()

    def _look(self) -> None:
        """Decide about the trial, follow `rollback`, and begin the trial of the newest bundle."""
        if trial := self._trial:
            self._decide(trial)
        with user_path(self.folder, "read"):
            state = Following.read(self.folder)
            if state.running != self.running:
                self._go_to(state.running)
            elif self._trial is None:
                self._try_newest(state)

    def _decide(self, trial: _Trial) -> None:
        done = len(trial.milliseconds) >= self.frames
        reason = trial.failure or trial.errors(self.camera) or (trial.too_slow() if done else "")
        if reason:
            self._end(trial, reason)
        elif done and trial.swapped:
            self._trial = None
            self._say("proven", trial.name, f"gave {self.frames} labels, inference p50 {np.median(trial.milliseconds):.1f} ms")
        elif done:
            replace(Following.read(self.folder), running=trial.name, previous=self.running).write(self.folder)
            trial.swap(self.camera, self.running)
            self.running = trial.name
            self._say("running", trial.name, f"says the same as the one before of {trial.agreed} of {self.frames} frames")

    def _end(self, trial: _Trial, reason: str) -> None:
        """Refuse what was on trial; what it has replaced comes back."""
        running = self.running
        if trial.swapped:
            self.camera.active, running = trial.old, trial.before
        state = Following.read(self.folder)
        replace(state, running=running, refused={**state.refused, trial.digest: reason}).write(self.folder)
        self._trial, self.running = None, running
        self._say("rolled back" if trial.swapped else "refused", trial.name, reason)

    def _go_to(self, name: str) -> None:
        """Run what `rollback` names."""
        bundle = _opened(self.job, self.folder / name) if name else self.job.open()
        self._trial, self.camera.active = None, self._warm(bundle)
        left, self.running = self.running, name
        self._say("rolled back", left, f"{name or self.job.bundle} runs again")

    def _try_newest(self, state: Following) -> None:
        """Begin the trial of the newest bundle that can be used, if it is newer than what runs."""
        date, found = self.camera.bundle.manifest.made_at(self.running or self.job.bundle), []
        for path in self.folder.iterdir():
            if path.name == self.running or path.name.startswith(".") or not (path / NAME).is_file():
                continue
            if self._known.get(path.name) != _state_of(path):
                try:
                    bundle = _opened(self.job, path)
                    if _digest(path) in state.refused:
                        self._known[path.name] = _state_of(path)
                    else:
                        found.append((bundle.manifest.made_at(path), path.name, bundle))
                except EdgeeffError as error:
                    self._refuse(path, str(error))
        for made, name, bundle in sorted(found, key=lambda each: each[:2], reverse=True):
            try:
                if made <= date:
                    raise BadInput(f"is of {made}, not newer than what runs, of {date}")
                self._begin(name, bundle)
                return
            except EdgeeffError as error:
                self._refuse(self.folder / name, str(error))

    def _begin(self, name: str, bundle: Bundle) -> None:
        """Replay the golden photos, compile for the frames that come, and begin the trial. Raises BadInput where that fails."""
        if bundle.labels != self.camera.bundle.labels or bundle.manifest.classes != self.camera.bundle.manifest.classes:
            raise BadInput("has other classes than what runs: start a camera with it")
        bundle.verify()
        self._trial = _Trial(name, _digest(bundle.path), self._warm(bundle), self.camera.active)
        self._say("on trial", name, f"its golden photos replay; it labels the next {self.frames} frames beside what runs")

    def _warm(self, bundle: Bundle) -> ActiveModel:
        """The bundle, compiled for every size of frames that the camera has now."""
        active = ActiveModel.of(bundle, self.camera.captures, self.camera.options)
        for shape in self.camera.active.models.shapes:
            active.models.get(shape)
        return active

    def _refuse(self, path: Path, reason: str) -> None:
        """Say why a bundle cannot be used, once for each state of its folder: it may be a copy that is not finished."""
        self._known[path.name] = _state_of(path)
        self._say("refused", path.name, reason)

    def _say(self, kind: EventKind, name: str, detail: str) -> None:
        self._tell(Event(kind, name, detail.rstrip("."), time.time()))


class _Trial:
    """A bundle that is tried: beside the `old` one, then `swapped`, in its place. `failure` says why it cannot go on.

    `milliseconds` are its inferences in this half of the trial. `before` is the name of the old one.
    """

    def __init__(self, name: str, digest: str, active: ActiveModel, old: ActiveModel) -> None:
        self.name, self.digest, self.active, self.old = name, digest, active, old
        self.swapped, self.before, self.failure = False, "", ""
        self.milliseconds: list[float] = []
        self.agreed = 0
        self._olds: list[float] = []
        self._unreadable = 0

    def add(self, result: Result) -> None:
        """A frame that was labelled: by this one once it is swapped, otherwise by the old one, and now by this one too."""
        if self.swapped:
            self.milliseconds.append(result.inference_ms)
            return
        try:
            see = self.active.models.get(result.pixels.shape)
            start = time.monotonic()
            logits, _ = see(result.pixels)
        except EdgeeffError as error:
            self.failure = str(error)
            return
        self.milliseconds.append(1000 * (time.monotonic() - start))
        self._olds.append(result.inference_ms)
        self.agreed += self.active.names[int(logits.argmax())] == result.top[0][0]
        if not np.isfinite(logits).all():
            self.failure = f"answers frame {result.frame} of {result.source} with numbers that are not finite"

    def swap(self, camera: Camera, before: str) -> None:
        """From the next frame on, the camera labels with this one."""
        self.milliseconds, self.before, self._unreadable = [], before, _unreadable(camera)
        self.swapped, camera.active = True, self.active

    def too_slow(self) -> str:
        """Why it is: over its latency budget, and slower than the old one was on the same frames. Empty where it is not."""
        budget, old = self.active.bundle.manifest.budget, float(np.median(self._olds))
        found = float(np.percentile(self.milliseconds, budget.percentile))
        if budget.latency_ms is None or found <= budget.latency_ms or np.median(self.milliseconds) <= old:
            return ""
        return f"inference p{budget.percentile} {found:.1f} ms > {budget.latency_ms:g} ms; the one before takes {old:.1f} ms"

    def errors(self, camera: Camera) -> str:
        """Why it is, where too many frames got no label since it was swapped."""
        count = _unreadable(camera) - self._unreadable
        return f"left {count} frames without a label" if self.swapped and count > MOST_ERRORS else ""


def _unreadable(camera: Camera) -> int:
    return sum(capture.source.unreadable for capture in camera.captures)


def _return_freed_memory() -> None:
    """To the system: glibc has a heap for each thread, and keeps what lies between the models that came and went."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _opened(job: BundleJob, path: Path) -> Bundle:
    """A bundle under the job's conditions."""
    return replace(job, bundle=path).open()


def _digest(path: Path) -> str:
    return hashlib.sha256(written(path)).hexdigest()


def _state_of(path: Path) -> object:
    """What changes while a bundle is being copied."""
    return tuple(sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in path.iterdir()))
