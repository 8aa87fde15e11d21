"""Labels on live frames.

    for result in Camera(Bundle.open("my-model"), ["0"]):
        print(result.label, result.age_ms)

Whatever frame is newest when the model is free is the next one; several cameras take turns. The age of a label, from the moment its
frame was there to the moment the label is handed over, is measured for every frame.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Watch
from ..bundle import Bundle
from ..data.frames import Box, Frame, Frames
from ..errors import BadInput, BudgetNotMet, Unreachable
from ..measurement.system_state import look
from ..progress import SILENT, Progress
from .capture import Capture, Shot
from .sources import STALLED, Source

SHAPES = 4  # graphs kept ready, for frames of other sizes; one a source at least
OPENING = 30.0  # seconds for a source's first frame
LEAVING = 2.0  # seconds that sources have to end
HOLD = 0.7  # of the threshold, or of what another label has reached
PARTS = ("waiting for the model", "inference", "output")


@dataclass(frozen=True)
class Result:
    """What the model says of one frame. `label`: what it has said for a while, None when it is sure of nothing."""

    source: str
    frame: int
    time: float  # seconds since the epoch at which the frame was there
    label: str | None
    top: tuple[tuple[str, float], ...]
    age_ms: float
    waited_ms: float
    inference_ms: float
    pixels: Frame = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        top = [[name, round(p, 4)] for name, p in self.top]
        facts = {"source": self.source, "frame": self.frame, "time": round(self.time, 4), "label": self.label, "top": top}
        return {**facts, **{name: round(getattr(self, name), 3) for name in ("age_ms", "waited_ms", "inference_ms")}}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """Without its pixels."""
        top = tuple((name, p) for name, p in data["top"])
        return cls(**{**data, "top": top, "pixels": np.empty((0, 0, 3), np.uint8)})


class Percentiles:
    """Of any number of milliseconds, in constant memory, to 1%."""

    EDGES = np.geomspace(1e-3, 1e7, 2315)

    def __init__(self) -> None:
        self.counts = np.zeros(len(self.EDGES) + 1, np.int64)

    def add(self, milliseconds: float) -> None:
        self.counts[np.searchsorted(self.EDGES, milliseconds)] += 1

    def at(self, percentile: float) -> float | None:
        if not self.counts.any():
            return None
        rank = math.ceil(percentile / 100 * self.counts.sum())
        return float(self.EDGES[min(int(np.searchsorted(self.counts.cumsum(), rank)), len(self.EDGES) - 1)])

    def to_json(self) -> dict[str, float | None]:
        return {f"p{p}": (value := self.at(p)) and round(value, 3) for p in (50, 90, 99)}


class Steady:
    """A label that does not flicker: probabilities are smoothed over `seconds`, and one that has reached `threshold` holds until it
    falls below HOLD of that, or of another one, which takes its place."""

    def __init__(self, seconds: float, threshold: float) -> None:
        if not (0 <= seconds < math.inf and 0 < threshold <= 1):
            raise BadInput(f"smoothing {seconds:g} s, threshold {threshold:g}: expected 0 s or more, and above 0 to 1.")
        self.seconds, self.threshold = seconds, threshold
        self.label: int | None = None
        self._at = -math.inf
        self._smooth: NDArray[np.float64] | None = None

    def update(self, at: float, probabilities: NDArray[np.floating[Any]]) -> int | None:
        weight = 1.0 if self._smooth is None or not self.seconds else 1 - math.exp(-max(at - self._at, 0) / self.seconds)
        before = probabilities if self._smooth is None else self._smooth
        self._smooth, self._at = before + weight * (probabilities - before), at
        best = int(self._smooth.argmax())
        highest = float(self._smooth[best])
        if self.label is None or self._smooth[self.label] < HOLD * max(self.threshold, highest):
            self.label = best if highest >= self.threshold else None
        return self.label


class Tally:
    """What was measured of one source: `age`, and the parts it is the sum of."""

    def __init__(self, steady: Steady) -> None:
        self.steady = steady
        self.labels = 0
        self.age = Percentiles()
        self.parts = {name: Percentiles() for name in PARTS}

    def add(self, result: Result, age_ms: float) -> None:
        """A label, and how old it was when it had been handed over."""
        self.age.add(age_ms)
        times = (result.waited_ms, result.inference_ms, age_ms - result.waited_ms - result.inference_ms)
        for part, milliseconds in zip(self.parts.values(), times, strict=True):
            part.add(milliseconds)


class Camera:
    """Iterate over it, once; leaving the loop, or `close`, ends the capture, as do `seconds`.

    `region` is left, top, width, height in pixels; for `size` and `nv12` see Source. A source that fails does not end the others;
    its error is raised when they have ended, and is `failed` before.
    """

    def __init__(
        self,
        bundle: Bundle,
        sources: Sequence[str | Source],
        *,
        region: Box | None = None,
        every: int = 1,
        nv12: bool = False,
        size: tuple[int, int] | None = None,
        seconds: float = math.inf,
        smooth: float = 0.5,
        threshold: float = 0.5,
        top: int = 3,
        progress: Progress = SILENT,
    ) -> None:
        bundle.runtime()  # refused before a camera is opened
        self.bundle, self.region, self.nv12, self.seconds, self.progress = bundle, region, nv12, seconds, progress
        self.names = bundle.labels or tuple(map(str, range(bundle.manifest["classes"])))
        self.top = min(top, len(self.names))
        self.arrived = threading.Condition()
        opened = [s if isinstance(s, Source) else Source(s, every=every, nv12=nv12, size=size) for s in sources]
        for i, source in enumerate(opened):
            if any(source.address == other.address for other in opened[:i]):
                raise BadInput("--source: the same one twice.")
            if any(source.name == other.name for other in opened[:i]):
                source.name += f" ({i + 1})"  # they differ in their passwords
        self.captures = [Capture(i, source, self.arrived, progress) for i, source in enumerate(opened)]
        self.tallies = [Tally(Steady(smooth, threshold)) for _ in opened]
        self._models: OrderedDict[tuple[int, ...], Watch] = OrderedDict()
        self._turn = 0
        self._told: dict[int, str] = {}  # what was said last of a source
        self._useless: dict[int, BadInput] = {}
        self._began = time.monotonic()
        self._closed = False

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Result]:
        self._began = time.monotonic()
        for capture in self.captures:
            capture.start()
        try:
            while (shot := self._next()) is not None:
                if model := self._ready(shot):
                    result = self._seen(shot, model)
                    try:
                        yield result
                    finally:
                        self.tallies[shot.source].add(result, 1000 * (time.monotonic() - shot.at))
            if self.failed and all(capture.ended for capture in self.captures):
                raise self.failed
        finally:
            self.close()

    @property
    def failed(self) -> Exception | None:
        """Why the first of the sources that failed did."""
        unused = [e for i, e in self._useless.items() if not self.tallies[i].labels]
        return next((c.error for c in self.captures if c.error), unused[0] if unused else None)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for capture in self.captures:
            capture.stop()
        until = time.monotonic() + LEAVING
        for capture in self.captures:
            capture.join(until)

    def _next(self) -> Shot | None:
        """The newest frame of the source whose turn it is; None once all have ended, or the time is over."""
        with self.arrived:
            while (left := self._began + self.seconds - time.monotonic()) > 0:
                self._look_after()
                count = len(self.captures)
                for i in range(count):
                    capture = self.captures[(self._turn + i) % count]
                    if shot := capture.take():
                        self._turn = capture.index + 1
                        return shot
                if all(c.ended for c in self.captures):
                    break
                self.arrived.wait(min(1.0, left))
        return None

    def _look_after(self) -> None:
        """Says which source stalls, or has failed while others go on."""
        for capture in self.captures:
            silent = time.monotonic() - capture.last
            if silent > OPENING and capture.source.lasting and not capture.taken and not capture.ended:
                capture.give_up(Unreachable(f"{capture.source.name}: gave no frame within {OPENING:.0f} s. Is it on, and free?"))
            news = ""
            if capture.error and not all(c.ended for c in self.captures):
                news = f"{capture.error} The other sources go on."
            elif capture.source.live and not capture.ended and not capture.lost and silent > STALLED:
                news = f"{capture.source.name}: no frame for {STALLED:g} s."
            if news and news != self._told.get(capture.index):
                self.progress.say(news)
            self._told[capture.index] = news

    def _ready(self, shot: Shot) -> Watch | None:
        """The model for it; None where the frame is no use, or has grown old while the model was made ready."""
        known, capture = shot.pixels.shape in self._models, self.captures[shot.source]
        try:
            model = self._model(shot.pixels.shape)
        except BadInput as error:  # too small, or not the region's
            if capture.source.folder or self.tallies[shot.source].labels:
                self._useless.setdefault(shot.source, error)
                capture.source.leave_out(self.progress.say, f"frame {shot.number}: {error}".rstrip("."))
            else:
                with self.arrived:
                    capture.give_up(BadInput(f"{capture.source.name}: {error}"))
            return None
        if not known and capture.source.live and capture.newer:
            capture.dropped += 1
            return None
        return model

    def _seen(self, shot: Shot, model: Watch) -> Result:
        tally = self.tallies[shot.source]
        start = time.monotonic()
        logits = model(shot.pixels)[0].astype(np.float64)
        done = time.monotonic()
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        source = self.captures[shot.source].source
        steady = tally.steady.update(shot.at if source.live else shot.number * source.pace, probabilities)
        best = np.argsort(-probabilities)[: self.top]
        tally.labels += 1
        return Result(
            source=source.name,
            frame=shot.number,
            time=time.time() - (time.monotonic() - shot.at),
            label=None if steady is None else self.names[steady],
            top=tuple((self.names[i], float(probabilities[i])) for i in best),
            age_ms=1000 * (time.monotonic() - shot.at),
            waited_ms=1000 * (start - shot.at),
            inference_ms=1000 * (done - start),
            pixels=shot.pixels,
        )

    def _model(self, shape: tuple[int, ...]) -> Watch:
        """The model for frames of that shape: sources may differ, and a stream may change."""
        if shape not in self._models:
            height, width = (shape[0] * 2 // 3, shape[1]) if self.nv12 else shape[:2]
            if self._models and not all(c.source.folder for c in self.captures):
                self.progress.say(f"frames of {width}×{height} pixels now.")
            self._models[shape] = self.bundle.watch(Frames(width, height, "NV12" if self.nv12 else "BGR", self.region))
            while len(self._models) > max(SHAPES, len(self.captures)):
                self._models.popitem(last=False)
        self._models.move_to_end(shape)
        return self._models[shape]

    def summary(self) -> dict[str, Any]:
        """Frames, labels, ages and outages of every source until now, and the device's temperature."""
        seconds = time.monotonic() - self._began
        rows = []
        for capture, tally in zip(self.captures, self.tallies, strict=True):
            rows.append(
                {
                    "source": capture.source.name,
                    "frames": capture.taken,
                    "labels": tally.labels,
                    "dropped": capture.dropped,
                    "unreadable": capture.source.unreadable,
                    "fps": round(tally.labels / seconds, 2),
                    "age_ms": tally.age.to_json(),
                    "parts_ms": {name: part.to_json() for name, part in tally.parts.items()},
                    "outages": [round(s, 1) for s in capture.outages],
                    "silent_s": round(time.monotonic() - capture.last, 1) if capture.source.live else 0.0,
                    "error": str(capture.error) if capture.error else None,
                }
            )
        return {"sources": rows, "seconds": round(seconds, 1), "temperature": look().temperature}

    def hold(self, budget_ms: float) -> None:
        """Raises BudgetNotMet, with the part that takes most, where 90% of the labels are not that young."""
        for capture, tally in zip(self.captures, self.tallies, strict=True):
            age = tally.age.at(90)
            if age is None:
                raise BudgetNotMet(
                    f"{capture.source.name}: gave no label to hold to {budget_ms:g} ms.", {"summary": self.summary()}
                )
            if age > budget_ms:
                parts = {name: part.at(90) or 0.0 for name, part in tally.parts.items()}
                told = ", ".join(f"{name} {ms:.1f}" for name, ms in parts.items())
                raise BudgetNotMet(
                    f"{capture.source.name}: from frame to label p90 {age:.1f} ms > {budget_ms:g}: {told}. "
                    f"{max(parts, key=lambda n: parts[n]).capitalize()} takes most.",
                    {"summary": self.summary()},
                )
