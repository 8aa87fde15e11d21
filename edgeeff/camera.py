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

from .backends import Watch
from .bundle import Bundle
from .conditions import look
from .errors import BadInput, BudgetNotMet
from .frames import Box, Frame, Frames
from .progress import SILENT, Progress
from .sources import STALLED, Capture, Shot, Source

SHAPES = 4  # graphs kept ready, for sources of other sizes
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
    """A label that does not flicker: probabilities are smoothed over `seconds`; one that has reached `threshold` holds until it
    falls `hysteresis` below it, or another one takes its place."""

    def __init__(self, seconds: float, threshold: float, hysteresis: float = 0.15) -> None:
        if not (0 <= seconds < math.inf and 0 < threshold <= 1):
            raise BadInput(f"smoothing {seconds:g} s, threshold {threshold:g}: expected 0 s or more, and above 0 to 1.")
        self.seconds, self.threshold, self.hysteresis = seconds, threshold, hysteresis
        self.label: int | None = None
        self._at = -math.inf
        self._smooth: NDArray[np.float64] | None = None

    def update(self, at: float, probabilities: NDArray[np.floating[Any]]) -> int | None:
        weight = 1.0 if self._smooth is None or not self.seconds else 1 - math.exp(-max(at - self._at, 0) / self.seconds)
        before = probabilities if self._smooth is None else self._smooth
        self._smooth, self._at = before + weight * (probabilities - before), at
        best = int(self._smooth.argmax())
        if self._smooth[best] >= self.threshold:
            self.label = best
        elif self.label is not None and self._smooth[self.label] < self.threshold - self.hysteresis:
            self.label = None
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
    """Iterate over it; leaving the loop, or `close`, ends the capture. `region` is left, top, width, height in pixels."""

    def __init__(
        self,
        bundle: Bundle,
        sources: Sequence[str | Source],
        *,
        region: Box | None = None,
        every: int = 1,
        nv12: bool = False,
        smooth: float = 0.5,
        threshold: float = 0.5,
        top: int = 3,
        progress: Progress = SILENT,
    ) -> None:
        bundle.runtime()  # refused before a camera is opened
        self.bundle, self.region, self.nv12, self.progress = bundle, region, nv12, progress
        self.names = bundle.labels or tuple(map(str, range(bundle.manifest["classes"])))
        self.top = min(top, len(self.names))
        self.arrived = threading.Condition()
        opened = [s if isinstance(s, Source) else Source(s, every=every, nv12=nv12) for s in sources]
        if len({source.name for source in opened}) < len(opened):
            raise BadInput("--source: the same one twice.")
        self.captures = [Capture(i, source, self.arrived, progress) for i, source in enumerate(opened)]
        self.tallies = [Tally(Steady(smooth, threshold)) for _ in opened]
        self._models: OrderedDict[tuple[int, ...], Watch] = OrderedDict()
        self._turn = 0
        self._stalled: set[int] = set()
        self._began = time.monotonic()

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
                known = shot.pixels.shape in self._models
                model = self._model(shot.pixels.shape)
                if not known and self.captures[shot.source].source.live:
                    self.captures[shot.source].dropped += 1  # it grew old while the model was made ready
                    continue
                result = self._seen(shot, model)
                yield result
                self.tallies[shot.source].add(result, 1000 * (time.monotonic() - shot.at))
        finally:
            self.close()

    def close(self) -> None:
        for capture in self.captures:
            capture.stop()
        for capture in self.captures:
            capture.join()

    def _next(self) -> Shot | None:
        """The newest frame of the source whose turn it is; None once all have ended. Raises why the last one failed."""
        with self.arrived:
            while True:
                count = len(self.captures)
                for i in range(count):
                    capture = self.captures[(self._turn + i) % count]
                    if shot := capture.take():
                        self._turn = capture.index + 1
                        return shot
                if all(c.ended for c in self.captures):
                    failed = [c.error for c in self.captures if c.error]
                    if failed:
                        raise failed[0]
                    return None
                self.arrived.wait(1.0)
                self._watch_for_stalls()

    def _watch_for_stalls(self) -> None:
        for capture in self.captures:
            silent = time.monotonic() - capture.last
            if capture.source.live and not capture.ended and silent > STALLED:
                if capture.index not in self._stalled:
                    self.progress.say(f"{capture.source.name}: no frame for {silent:.0f} s.")
                self._stalled.add(capture.index)
            else:
                self._stalled.discard(capture.index)

    def _seen(self, shot: Shot, model: Watch) -> Result:
        tally = self.tallies[shot.source]
        start = time.monotonic()
        logits = model(shot.pixels)[0].astype(np.float64)
        done = time.monotonic()
        exponentials = np.exp(logits - logits.max())
        probabilities = exponentials / exponentials.sum()
        steady = tally.steady.update(shot.at, probabilities)
        best = np.argsort(-probabilities)[: self.top]
        tally.labels += 1
        return Result(
            source=self.captures[shot.source].source.name,
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
            if self._models:
                self.progress.say(f"frames of {width}×{height} pixels now.")
            self._models[shape] = self.bundle.watch(Frames(width, height, "NV12" if self.nv12 else "BGR", self.region))
            while len(self._models) > SHAPES:
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
                    "fps": round(tally.labels / seconds, 2),
                    "age_ms": tally.age.to_json(),
                    "parts_ms": {name: part.to_json() for name, part in tally.parts.items()},
                    "outages": [round(s, 1) for s in capture.outages],
                }
            )
        return {"sources": rows, "seconds": round(seconds, 1), "temperature": look().temperature}

    def hold(self, budget_ms: float) -> None:
        """Raises BudgetNotMet, with the part that takes most, where 90% of the labels are not that young."""
        for capture, tally in zip(self.captures, self.tallies, strict=True):
            age = tally.age.at(90)
            if age is not None and age > budget_ms:
                parts = {name: part.at(90) or 0.0 for name, part in tally.parts.items()}
                told = ", ".join(f"{name} {ms:.1f}" for name, ms in parts.items())
                raise BudgetNotMet(
                    f"{capture.source.name}: from frame to label p90 {age:.1f} ms > {budget_ms:g}: {told}. "
                    f"{max(parts, key=lambda n: parts[n]).capitalize()} takes most.",
                    {"summary": self.summary()},
                )
