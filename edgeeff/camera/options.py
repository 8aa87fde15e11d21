"""What `edgeeff camera` can be asked for, beside the bundle and its sources."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..data.frames import Box, Frames
from ..errors import BadInput
from ..job import BundleJob
from ..option import option, parse_count, parse_positive
from .sources import accepted_addresses


def parse_region(text: str) -> Box:
    """A region from the text left,top,width,height."""
    if not re.fullmatch(r"\d+(,\d+){3}", text):
        raise ValueError("expected left,top,width,height")
    left, top, width, height = map(int, text.split(","))
    return left, top, width, height


def parse_size(text: str) -> tuple[int, int]:
    """Width and height from the text WIDTHxHEIGHT."""
    if not re.fullmatch(r"\d+x\d+", text):
        raise ValueError("expected WIDTHxHEIGHT, like 1280x720")
    width, height = map(int, text.split("x"))
    return width, height


def _numbers(separator: str) -> Callable[[Sequence[int]], str]:
    return lambda numbers: separator.join(map(str, numbers))


@dataclass(frozen=True)
class CameraOptions:
    """How a Camera captures and labels frames.

    `region` is (left, top, width, height) and `size` (width, height), in pixels. `every`, `nv12` and `size` are for the sources
    that the Camera makes of addresses. `seconds` and `smooth` are seconds, `threshold` is a probability. Raises BadInput for values
    out of range.
    """

    region: Box | None = option(
        None,
        flag="--roi",
        parse=parse_region,
        words=_numbers(","),
        metavar="L,T,W,H",
        help="the part to look at: left,top,width,height in pixels",
    )
    size: tuple[int, int] | None = option(
        None,
        parse=parse_size,
        words=_numbers("x"),
        metavar="WxH",
        help="ask a V4L2 or CSI camera for frames of WIDTHxHEIGHT pixels",
    )
    every: int = option(1, parse=parse_count, metavar="N", help="label each Nth frame only")
    nv12: bool = option(False, help="take raw NV12 frames from the camera; OpenVINO converts them in its graph")
    top: int = option(3, parse=parse_count, metavar="K", help="classes to name for each frame (default 3)")
    smooth: float = option(0.5, metavar="S", unit="s", help="time constant of the label's smoothing, in seconds (default 0.5)")
    threshold: float = option(0.5, metavar="P", unit="share", help="calibrated probability that a label needs (default 0.5)")
    seconds: float | None = option(
        None,
        parse=parse_positive,
        metavar="S",
        unit="s",
        help="stop after that many seconds (default: at Ctrl-C, SIGTERM or the source's end)",
    )
    loop: bool = option(False, help="start a video file or a folder of photos again at its end")

    def __post_init__(self) -> None:
        if not (0 <= self.smooth < math.inf and 0 < self.threshold <= 1):
            raise BadInput(
                f"smoothing {self.smooth:g} s, threshold {self.threshold:g}: expected 0 s or more, and a probability above 0 to 1."
            )
        if self.every < 1 or self.top < 1:
            raise BadInput(f"every {self.every}, top {self.top}: expected 1 or more.")

    def frames(self, shape: tuple[int, ...]) -> Frames:
        """What frames `(H, W, 3)` are, or `(H · 3/2, W)` in NV12. Raises BadInput for a size outside Frames' limits."""
        height, width = (shape[0] * 2 // 3, shape[1]) if self.nv12 else shape[:2]
        return Frames(width, height, "NV12" if self.nv12 else "BGR", self.region)


@dataclass(frozen=True)
class CameraJob(BundleJob):
    """A bundle, and the addresses of what it is to look at."""

    sources: Sequence[str] = option(help=accepted_addresses(), flag="--source", metavar="SRC", many=True)
    follow: str | None = option(
        None,
        metavar="DIR",
        help="try newer bundles, each in a folder of DIR, on live frames, and go on with them; `edgeeff rollback DIR` goes back",
    )
    pull: str | None = option(
        None,
        metavar="USER@HOST:DIR",
        help="with --follow: copy the bundles of that folder of another host into the one that is followed, every 30 seconds",
    )

    def __post_init__(self) -> None:
        if self.pull and not self.follow:
            raise BadInput(f"--pull {self.pull}: needs --follow DIR, the folder of this machine to copy bundles into.")


@dataclass(frozen=True)
class OutputOptions:
    """Where `edgeeff camera` sends labels and frames beside the terminal, and the end-to-end latency that it checks at the end."""

    output: str | None = option(None, metavar="FILE", help="append a JSON line for each frame")
    mqtt: str | None = option(
        None, metavar="[USER:PASSWORD@]HOST[:PORT]/TOPIC", help="publish a JSON message for each frame to an MQTT broker"
    )
    web: str | None = option(
        None, metavar="[HOST:]PORT", help="show frame, label and latency in a browser; other hosts need the token printed"
    )
    collect: str | None = option(None, metavar="DIR", help="keep frames whose most likely class is uncertain, one a second at most")
    uncertain: float = option(
        0.6, metavar="P", unit="share", help="calibrated probability below which a frame is uncertain (default 0.6)"
    )
    collect_mb: float = option(
        500.0, parse=parse_positive, metavar="MB", unit="MB", help="megabytes that DIR may hold (default 500)"
    )
    budget_ms: float | None = option(
        None,
        parse=parse_positive,
        metavar="MS",
        unit="ms",
        help="end-to-end latency that 90%% of the labels have to stay under; exit code 3 if not",
    )
