"""A thread that takes a source's frames and keeps the newest one only, so a slow model makes no picture old.

What is live drops frames that come while the model is busy, and is opened again when it fails; folders and files wait for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from ..data.frames import Frame
from ..errors import EdgeeffError
from ..progress import SILENT, Progress
from .sources import Source

PATIENCE = (0.5, 8.0)  # seconds before a source is opened again, doubled up to the second
REMEMBERED = 1000  # outages


@dataclass(frozen=True)
class Shot:
    """A frame, and the monotonic seconds at which it was there; `number` counts those before it, also what was passed over."""

    source: int
    number: int
    at: float
    pixels: Frame


class Capture:
    """Takes the frames of one source in a thread of its own. `arrived` is notified of each, and of the end."""

    def __init__(self, index: int, source: Source, arrived: threading.Condition, progress: Progress = SILENT) -> None:
        self.index, self.source, self.arrived, self.progress = index, source, arrived, progress
        self.taken = self.dropped = 0
        self.lost = 0.0  # since when there is none to take, in an outage
        self.error: Exception | None = None
        self.ended = False
        self.last = time.monotonic()
        self._newest: Shot | None = None
        self._outages: deque[float] = deque(maxlen=REMEMBERED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture {source.name}", daemon=True)

    @property
    def outages(self) -> list[float]:
        """Seconds each; the last may not be over."""
        lost = self.lost
        return [*self._outages, *([time.monotonic() - lost] if lost else [])]

    @property
    def newer(self) -> bool:
        """Whether another frame has come since one was taken."""
        return self._newest is not None

    def start(self) -> None:
        self.last = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        with self.arrived:
            self.arrived.notify_all()

    def join(self, until: float) -> None:
        """What hangs in a driver is left to end with the process."""
        if self._thread.ident:
            self._thread.join(max(0.0, until - time.monotonic()))

    def give_up(self, error: Exception) -> None:
        """Ended from outside, as its thread hangs or its frames are no use; `arrived` is held."""
        self.error, self.ended = error, True
        self._stop.set()

    def take(self) -> Shot | None:
        """The newest frame, once; `arrived` is held."""
        shot, self._newest = self._newest, None
        if shot and not self.source.live:
            self.arrived.notify_all()
        return shot

    def _run(self) -> None:
        try:
            self._take_frames()
            error = None
        except Exception as raised:  # again where the frames are asked for
            error = raised
        with self.arrived:
            self.error, self.ended = self.error or error, True
            self.arrived.notify_all()

    def _take_frames(self) -> None:
        """Until the source ends for good; one that is lasting and has worked is opened again and again."""
        pause = PATIENCE[0]
        while not self._stop.is_set():
            try:
                for at, pixels in self.source.frames(self.progress.say):
                    lost, self.lost = self.lost, 0.0
                    if lost:
                        self._outages.append(at - lost)
                        self.progress.say(f"{self.source.name}: is back after {at - lost:.1f} s.")
                    pause, self.last = PATIENCE[0], at
                    if not self._put(at, pixels):
                        return
            except EdgeeffError:
                if not self._will_return:
                    raise
            if not self._will_return:
                return
            if not self.lost:
                self.lost = self.last
                self.progress.say(f"{self.source.name}: gives no more frames; trying to open it again.")
            self._stop.wait(pause)
            pause = min(2 * pause, PATIENCE[1])

    @property
    def _will_return(self) -> bool:
        return self.source.lasting and self.taken > 0

    def _put(self, at: float, pixels: Frame | None) -> bool:
        """Whether to go on."""
        with self.arrived:
            while pixels is not None and self._newest is not None and not self.source.live and not self._stop.is_set():
                self.arrived.wait()
            if self._stop.is_set():
                return False
            if pixels is not None:
                self.dropped += self._newest is not None
                self._newest = Shot(self.index, self.taken, at, pixels)
                self.arrived.notify_all()
            self.taken += 1
        return True
