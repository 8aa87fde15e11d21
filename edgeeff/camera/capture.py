"""A thread for each source, which keeps the newest frame only, so that a slow model labels no old frames.

A live source drops the frames that come while the model is busy, and is opened again when it fails; folders and files wait for the
model, and for their own pace where somebody watches.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from ..data.frames import Frame
from ..errors import EdgeeffError
from ..progress import SILENT, Progress
from .sources import Source, TimedFrames

REOPEN_DELAYS = (0.5, 8.0)  # seconds until a source is opened again: the first, and the longest that doubling leads to
MAX_PAUSE = 1.0  # seconds for which one frame of a file is shown, or a photo of a folder
MAX_OUTAGES = 1000  # whose durations are kept


@dataclass(frozen=True)
class CapturedFrame:
    """A frame of the source with that index, and the time.monotonic of its capture. `number` counts skipped and dropped ones."""

    source: int
    number: int
    captured_at: float
    pixels: Frame


class Capture:
    """Captures the frames of one source in a thread of its own. `arrived` is notified of each frame, and of the end.

    `frames` counts all frames, `dropped` those that a newer one replaced. `ended` is set when no more will come, with `error` as
    the reason if there was one. `last_frame_at` is a time.monotonic, as is `outage_since`, which is None unless the source is being
    opened again.
    """

    def __init__(self, index: int, source: Source, arrived: threading.Condition, progress: Progress = SILENT) -> None:
        self.index, self.source, self.arrived, self.progress = index, source, arrived, progress
        self.frames = self.dropped = 0
        self.outage_since: float | None = None
        self.error: Exception | None = None
        self.ended = self._paced = self._again = False
        self.last_frame_at = time.monotonic()
        self._newest: CapturedFrame | None = None
        self._outages: deque[float] = deque(maxlen=MAX_OUTAGES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture {source.name}", daemon=True)

    @property
    def outages(self) -> list[float]:
        """The seconds of each outage; the last may still last."""
        since = self.outage_since
        return [*self._outages, *([] if since is None else [time.monotonic() - since])]

    @property
    def has_newer_frame(self) -> bool:
        """Whether a frame has arrived since `take`."""
        return self._newest is not None

    def start(self, *, paced: bool = False, again: bool = False) -> None:
        """Of a file or folder: `paced` by its own frame rate, and begun `again` at its end."""
        self._paced, self._again = paced and not self.source.live, again and not self.source.live
        self.last_frame_at = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end."""
        self._stop.set()
        with self.arrived:
            self.arrived.notify_all()

    def join(self, until: float) -> None:
        """Waits for the thread until that time.monotonic. A thread that hangs in a driver ends with the process."""
        if self._thread.ident:
            self._thread.join(max(0.0, until - time.monotonic()))

    def fail(self, error: Exception) -> None:
        """Ends it from outside, because its thread hangs or its frames cannot be used. The caller holds `arrived`."""
        self.error, self.ended = error, True
        self._stop.set()

    def take(self) -> CapturedFrame | None:
        """The newest frame, once. The caller holds `arrived`."""
        frame, self._newest = self._newest, None
        if frame and not self.source.live:
            self.arrived.notify_all()
        return frame

    def _run(self) -> None:
        try:
            self._capture()
            error = None
        except Exception as raised:  # raised again where frames are asked for
            error = raised
        with self.arrived:
            self.error, self.ended = self.error or error, True
            self.arrived.notify_all()

    def _capture(self) -> None:
        """Captures until the source ends for good; a live one that has given frames is opened again with exponential back-off."""
        delay = REOPEN_DELAYS[0]
        while not self._stop.is_set():
            usable = False
            try:
                for captured_at, pixels in self._frames():
                    usable = usable or pixels is not None
                    self._end_outage(captured_at)
                    delay, self.last_frame_at = REOPEN_DELAYS[0], captured_at
                    if not self._store(captured_at, pixels):
                        return
            except EdgeeffError:
                if not self._opens_again:
                    raise
            if self._again and usable:
                continue
            if not self._opens_again:
                return
            if self.outage_since is None:
                self.outage_since = self.last_frame_at
                self.progress.say(f"{self.source.name}: gives no more frames; trying to open it again.")
            self._stop.wait(delay)
            delay = min(2 * delay, REOPEN_DELAYS[1])

    def _frames(self) -> TimedFrames:
        """The source's frames. Where it is paced, each comes when its time has come, and after a delay the rest are late too."""
        due = time.monotonic()
        for captured_at, pixels in self.source.frames(self.progress.say):
            if self._paced:
                self._stop.wait(max(0.0, due - time.monotonic()))
                captured_at = time.monotonic()
                due = max(due + min(self.source.frame_seconds, MAX_PAUSE), captured_at)
            yield captured_at, pixels

    @property
    def _opens_again(self) -> bool:
        return self.source.reopens and self.frames > 0

    def _end_outage(self, captured_at: float) -> None:
        since, self.outage_since = self.outage_since, None
        if since is not None:
            self._outages.append(captured_at - since)
            self.progress.say(f"{self.source.name}: is back after {captured_at - since:.1f} s.")

    def _store(self, captured_at: float, pixels: Frame | None) -> bool:
        """Makes a frame the newest one, once a file's last one has been taken. False when the thread is to end."""
        with self.arrived:
            while pixels is not None and self._newest is not None and not self.source.live and not self._stop.is_set():
                self.arrived.wait()
            if self._stop.is_set():
                return False
            if pixels is not None:
                self.dropped += self._newest is not None
                self._newest = CapturedFrame(self.index, self.frames, captured_at, pixels)
                self.arrived.notify_all()
            self.frames += 1
        return True
