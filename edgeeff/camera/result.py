"""What the model says of one frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from ..data.frames import Frame


@dataclass(frozen=True)
class FrameLabel:
    """The label of one frame, as it is written to JSON.

    `frame` is the frame's number in its source, from 0; `time` its capture in seconds since the epoch. `top` has the most likely
    classes of this frame with their probabilities; `label` is smoothed over time, and None when no class reaches the threshold.
    `unknown`: the label says that the frames are unlike the photos that the network knows; a class may have that name as well.
    `distance` is this frame's from them, above 1 where it alone is unknown; None where the bundle does not tell.
    `age_ms` is the end-to-end latency, from the capture to the label, `waited_ms` from the capture to the start of inference.
    `drift` names the statistics (`PictureStatistics`) by which the source's newest frames have drifted.
    """

    source: str
    frame: int
    time: Annotated[float, msgspec.Meta(ge=0, lt=253402300800)]  # until the end of the year 9999
    label: str | None
    top: Annotated[tuple[tuple[str, float], ...], msgspec.Meta(min_length=1)]
    age_ms: float
    waited_ms: float
    inference_ms: float
    unknown: bool = field(default=False, kw_only=True)
    distance: float | None = field(default=None, kw_only=True)
    drift: tuple[str, ...] = field(default=(), kw_only=True)

    def to_json(self) -> dict[str, object]:
        """Its fields, rounded: probabilities and seconds to 4 digits, milliseconds to 3."""
        rounded = FrameLabel(
            source=self.source,
            frame=self.frame,
            time=round(self.time, 4),
            label=self.label,
            top=tuple((name, round(p, 4)) for name, p in self.top),
            age_ms=round(self.age_ms, 3),
            waited_ms=round(self.waited_ms, 3),
            inference_ms=round(self.inference_ms, 3),
            unknown=self.unknown,
            distance=None if self.distance is None else round(self.distance, 4),
            drift=self.drift,
        )
        return dict(msgspec.to_builtins(rounded))

    @staticmethod
    def from_json(data: object) -> FrameLabel:
        """Raises msgspec.ValidationError, which names the field, for data of another form."""
        return msgspec.convert(data, FrameLabel)


@dataclass(frozen=True)
class Result(FrameLabel):
    """The label of one frame together with the frame itself, BGR or NV12."""

    pixels: Frame = field(repr=False, compare=False)


EventKind = Literal["refused", "on trial", "running", "proven", "rolled back", "not copied"]


@dataclass(frozen=True)
class Event:
    """What became of a bundle that a camera found in the folder that it follows; `time` is in seconds since the epoch.

    `bundle` is the name of its folder; of what was not copied, where it is to come from.
    """

    event: EventKind
    bundle: str
    detail: str
    time: float

    def __str__(self) -> str:
        return f"{self.bundle}: {self.event}: {self.detail}."

    def to_json(self) -> dict[str, object]:
        return dict(msgspec.to_builtins(self))
