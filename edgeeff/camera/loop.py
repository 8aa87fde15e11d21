"""Labels on live frames.

    for result in Camera(Bundle.open("my-model"), ["0"]):
        print(result.label, result.age_ms)

Whenever the model is free, it takes the newest frame of the next source in turn. The end-to-end latency of a label (its age), from
the capture of its frame to the moment when everything that wants the label has it, is measured for every frame.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..bundle import UNKNOWN, Bundle, WatchScored
from ..data.images import Logits
from ..errors import BadInput, BudgetNotMet, Unreachable
from ..measurement.picture_statistics import observe
from ..measurement.system_state import snapshot
from ..progress import SILENT, Progress
from .capture import Capture, CapturedFrame
from .drift import DriftDetector
from .models import ModelCache
from .options import CameraOptions
from .result import Result
from .smoothing import LabelSmoother
from .sources import STALL_TIMEOUT, Source
from .stats import CameraSummary, SourceStats, SourceSummary

FIRST_FRAME_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 2.0  # seconds that the threads of the sources have to end


@dataclass(frozen=True)
class ActiveModel:
    """The bundle that labels frames, compiled for the sizes that came, the names of its classes, and for each source how far its
    frames have drifted from what the bundle was calibrated on; None for separate photos, and for a bundle without statistics."""

    bundle: Bundle
    models: ModelCache
    names: tuple[str, ...]
    drift: tuple[DriftDetector | None, ...]

    @classmethod
    def of(cls, bundle: Bundle, captures: Sequence[Capture], options: CameraOptions, progress: Progress = SILENT) -> ActiveModel:
        reference = bundle.manifest.calibration_statistics
        return cls(
            bundle,
            ModelCache(bundle, options, len(captures), progress),
            bundle.names,
            tuple(None if reference is None or c.source.separate_photos else DriftDetector(reference) for c in captures),
        )


class Camera:
    """The labels of one or several sources: iterate over it, once.

    Leaving the loop, `close` or `options.seconds` end the capture. A source that fails does not end the others; its error is
    `failed`, and is raised when all have ended. `sources` are addresses, or Sources that are made already; raises what `Source.of`
    raises. `paced`, until the first frame: files play at their own pace, as for somebody who watches, and not as fast as the model.
    `active` may be replaced at any time, from any thread: each frame is labelled by one of the two. `after_label` is called with
    each result once everything that wants the label has it.
    """

    def __init__(
        self, bundle: Bundle, sources: Sequence[str | Source], options: CameraOptions = CameraOptions(), progress: Progress = SILENT
    ) -> None:
        bundle.runtime()  # refuses a bundle for another machine before a camera is opened
        self.options, self.progress = options, progress
        self.paced = False
        self.after_label: Callable[[Result], None] | None = None
        self.arrived = threading.Condition()
        self.captures = [Capture(i, s, self.arrived, progress) for i, s in enumerate(_sources(sources, options))]
        self.stats = [SourceStats() for _ in self.captures]
        self._smoothers = [LabelSmoother(options.smooth, options.threshold) for _ in self.captures]
        photos_only = all(c.source.separate_photos for c in self.captures)
        self.active = ActiveModel.of(bundle, self.captures, options, SILENT if photos_only else progress)
        self._next_source = 0
        self._last_warnings: dict[int, str] = {}  # of each source, so that each is given once
        self._unusable: dict[int, BadInput] = {}  # why the first frame of a source that cannot be used or labelled cannot
        self._started_at = self._ready_at = time.monotonic()  # when the newest model was compiled and warm
        self._ended_at: float | None = None

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Result]:
        self._started_at = time.monotonic()
        for capture in self.captures:
            capture.start(paced=self.paced, again=self.options.loop)
        try:
            while (frame := self._wait_for_frame()) is not None:
                active = self.active
                model = self._model_for(frame, active.models)
                if not self.captures[frame.source].source.live:  # a frame of a file waits for a model that is being compiled
                    frame = replace(frame, captured_at=max(frame.captured_at, self._ready_at))
                if model and (result := self._label(frame, active, model)):
                    try:
                        yield result
                    finally:
                        self.stats[frame.source].add(result, 1000 * (time.monotonic() - frame.captured_at))
                    if self.after_label:
                        self.after_label(result)
            if self.failed and all(capture.ended for capture in self.captures):
                raise self.failed
        finally:
            self.close()

    @property
    def bundle(self) -> Bundle:
        """What labels frames now."""
        return self.active.bundle

    @property
    def failed(self) -> Exception | None:
        """The error of the first source that failed."""
        unusable = [error for i, error in self._unusable.items() if not self.stats[i].labels]
        return next((c.error for c in self.captures if c.error), unusable[0] if unusable else None)

    def close(self) -> None:
        """Ends the capture of every source; may be called again."""
        if self._ended_at is not None:
            return
        self._ended_at = time.monotonic()
        for capture in self.captures:
            capture.stop()
        until = time.monotonic() + STOP_TIMEOUT
        for capture in self.captures:
            capture.join(until)

    def smoothing(self, source: Source) -> float:
        """The time constant of the smoothed label of a source, in seconds; 0 where each label is of its frame alone."""
        return 0.0 if source.separate_photos else self.options.smooth

    def summary(self) -> CameraSummary:
        """Frames, labels, ages and outages of every source until now or the end, and the device's temperature."""
        now = self._ended_at or time.monotonic()
        seconds = now - self._started_at
        rows = [
            SourceSummary(
                source=capture.source.name,
                frames=capture.frames,
                labels=stats.labels,
                dropped=capture.dropped,
                unreadable=capture.source.unreadable,
                fps=round(stats.labels / seconds, 2),
                age_ms=stats.age.percentiles(),
                parts_ms={name: part.percentiles() for name, part in stats.parts.items()},
                outages=tuple(round(s, 1) for s in capture.outages),
                silent_s=round(now - capture.last_frame_at, 1) if capture.source.live else 0.0,
                error=str(capture.error) if capture.error else None,
                drift=drift.sentences if drift else (),
            )
            for capture, stats, drift in zip(self.captures, self.stats, self.active.drift, strict=True)
        ]
        return CameraSummary(tuple(rows), round(seconds, 1), snapshot().state.temperature)

    def check_budget(self, budget_ms: float) -> None:
        """Raises BudgetNotMet, which names the part that takes most, unless 90% of each source's labels came within that time."""
        for capture, stats in zip(self.captures, self.stats, strict=True):
            age = stats.age.percentile(90)
            if age is None:
                message = (
                    f"{capture.source.name}: no frame was labelled, so that nothing is known of the budget of {budget_ms:g} ms."
                )
                raise BudgetNotMet(message, {"summary": self.summary().to_json()})
            if age > budget_ms:
                parts = {name: part.percentile(90) or 0.0 for name, part in stats.parts.items()}
                figures = ", ".join(f"{name} {ms:.1f}" for name, ms in parts.items())
                longest = max(parts, key=lambda name: parts[name]).capitalize()
                message = f"end-to-end latency p90 {age:.1f} ms > {budget_ms:g}: {figures}. {longest} takes most."
                raise BudgetNotMet(f"{capture.source.name}: {message}", {"summary": self.summary().to_json()})

    def _wait_for_frame(self) -> CapturedFrame | None:
        """The newest frame of the next source that has one (round robin); None once all have ended, or the time is over."""
        end = self._started_at + (math.inf if self.options.seconds is None else self.options.seconds)
        with self.arrived:
            while (left := end - time.monotonic()) > 0:
                self._check_sources(FIRST_FRAME_TIMEOUT)
                count = len(self.captures)
                for i in range(count):
                    capture = self.captures[(self._next_source + i) % count]
                    if frame := capture.take():
                        self._next_source = capture.index + 1
                        return frame
                if all(c.ended for c in self.captures):
                    return None
                self.arrived.wait(min(1.0, left))
            self._check_sources(0.0)  # a source that has given nothing by now has failed
        return None

    def _check_sources(self, patience: float) -> None:
        """Gives up a source without a frame after `patience` seconds; warns of one that stalls, or fails while others go on."""
        for capture in self.captures:
            name, silent = capture.source.name, time.monotonic() - capture.last_frame_at
            if silent > patience and not capture.frames and not capture.ended:
                capture.fail(
                    Unreachable(
                        f"{name}: timed out after {silent:.1f} s while waiting for the first frame. "
                        "Is the camera on, and not used by another program?"
                    )
                )
            warning = ""
            if capture.error and not all(c.ended for c in self.captures):
                warning = f"{capture.error} The other sources go on."
            elif capture.source.live and not capture.ended and capture.outage_since is None and silent > STALL_TIMEOUT:
                warning = f"{name}: no frame for {STALL_TIMEOUT:g} s."
            if warning and warning != self._last_warnings.get(capture.index):
                self.progress.say(warning)
            self._last_warnings[capture.index] = warning

    def _model_for(self, frame: CapturedFrame, models: ModelCache) -> WatchScored | None:
        """The model for frames of that shape; None where the frame cannot be used, or became old while the model was compiled."""
        shape, capture = frame.pixels.shape, self.captures[frame.source]
        compiled_before, begun = shape in models, time.monotonic()
        try:
            model = models.get(shape)
        except BadInput as error:  # too small, or the region does not fit
            if capture.source.separate_photos or self.stats[frame.source].labels:
                self._unusable.setdefault(frame.source, error)
                capture.source.skip(self.progress.say, f"frame {frame.number}: {error}".rstrip("."))
            else:
                with self.arrived:
                    capture.fail(BadInput(f"{capture.source.name}: {error}"))
            return None
        if not compiled_before:
            self._ready_at = time.monotonic()
            if not any(stats.labels for stats in self.stats):
                self._started_at += self._ready_at - begun
            if capture.source.live and capture.has_newer_frame:
                capture.dropped += 1
                return None
        return model

    def _label(self, frame: CapturedFrame, active: ActiveModel, model: WatchScored) -> Result | None:
        """The frame's classes by the model, and its source's label after it; None where the model's answer is no finite numbers."""
        source = self.captures[frame.source].source
        start = time.monotonic()
        logits, (distance,) = model(frame.pixels)  # (1, classes), (1,)
        done = time.monotonic()
        if not np.isfinite(logits).all():
            reason = f"frame {frame.number}: the model answers with numbers that are not finite"
            self._unusable.setdefault(frame.source, BadInput(f"{source.name}: {reason}. Check it here: edgeeff verify."))
            source.skip(self.progress.say, reason)
            return None
        probabilities = active.bundle.probabilities(logits)[0]
        seconds = frame.captured_at if source.live else frame.number * source.frame_seconds
        alone = float(distance > 1)  # a frame that is unknown counts as one of a class more
        label = self._smoothers[frame.source].update(seconds, np.append((1 - alone) * probabilities, alone))
        unknown = label == len(active.names)
        best = np.argsort(-probabilities, kind="stable")[: self.options.top]
        self.stats[frame.source].labels += 1
        return Result(
            source=source.name,
            frame=frame.number,
            time=time.time() - (time.monotonic() - frame.captured_at),
            label=None if label is None else UNKNOWN if unknown else active.names[label],
            drift=self._drift_at(frame, seconds, active, logits),  # before the age is taken, which it is a part of
            top=tuple((active.names[i], float(probabilities[i])) for i in best),
            age_ms=1000 * (time.monotonic() - frame.captured_at),
            waited_ms=1000 * (start - frame.captured_at),
            inference_ms=1000 * (done - start),
            unknown=unknown,
            distance=float(distance) if np.isfinite(distance) else None,
            pixels=frame.pixels,
        )

    def _drift_at(self, frame: CapturedFrame, seconds: float, active: ActiveModel, logits: Logits) -> tuple[str, ...]:
        """The statistics by which the frame's source has drifted; says when that begins or ends."""
        detector = active.drift[frame.source]
        if detector is None:
            return ()
        if detector.due(seconds):
            glance = active.models.glance(frame.pixels.shape)
            for said in detector.look(seconds, observe(glance(frame.pixels), logits[0])):
                self.progress.say(f"{self.captures[frame.source].source.name}: {said}")
        return detector.drifted


def _sources(addresses: Sequence[str | Source], options: CameraOptions) -> list[Source]:
    """The sources at those addresses, with different names. Raises BadInput for the same address twice."""
    sources: list[Source] = []
    for address in addresses:
        source = (
            address
            if isinstance(address, Source)
            else Source.of(address, every=options.every, nv12=options.nv12, size=options.size)
        )
        if any(source.address == other.address for other in sources):
            raise BadInput("--source: the same one twice.")
        if any(source.name == other.name for other in sources):
            source.name += f" ({len(sources) + 1})"  # the addresses differ in their passwords only
        sources.append(source)
    if options.loop and all(source.live for source in sources):
        raise BadInput(f"{sources[0].name}: has no start to go back to. --loop is for a video file or a folder of photos.")
    return sources
