"""A camera's frame becomes the network's input: shrunk and cropped as a photo is, by two small matrices.

Resampling is linear and separable, rows · pixels · columns, so every runtime can compute it, in the graph it runs: a `View` has
the matrices, of only the rows and columns that the crop needs. Their numbers are Pillow's, so frames and photos look the same to
the network; Pillow rounds between the two passes, which is the whole difference (4 of 255 at most, 0.2 on average).

OpenVINO gets it in front of the network's own graph; ONNX Runtime and TensorRT as the graph GRAPH, which export.py has as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from .images import PixelFile, Pixels
from .preprocess import Preprocess

Frame = NDArray[np.uint8]  # (H, W, 3), or NV12's (H · 3/2, W)
Box = tuple[int, int, int, int]  # left, top, width, height
MAX_SIDE = 8192  # pixels of a frame's width and height
CORRECTIONS = 2  # which halve what frames of ImageNet photos are off, from 1.35 to 0.66 of 255 in root mean square
GRAPH = Path(__file__).with_suffix(".onnx")  # (part, rows, columns, order) → (1, R, R, 3)


@dataclass(frozen=True)
class Frames:
    """What a camera gives; the network sees `region` of it."""

    width: int
    height: int
    colour: Literal["BGR", "RGB", "NV12"] = "BGR"
    region: Box | None = None

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 32 or max(self.width, self.height) > MAX_SIDE:
            raise BadInput(f"frames of {self.width}×{self.height} pixels: expected 32 to {MAX_SIDE} a side.")
        if self.colour == "NV12" and (self.width % 2 or self.height % 2):
            raise BadInput(f"NV12 frames of {self.width}×{self.height} pixels: expected even sides.")
        left, top, width, height = self.box
        if min(left, top) < 0 or min(width, height) < 32 or left + width > self.width or top + height > self.height:
            raise BadInput(
                f"region {left},{top},{width},{height}: expected left,top,width,height of 32 pixels or more within "
                f"{self.width}×{self.height}."
            )

    @property
    def box(self) -> Box:
        return self.region or (0, 0, self.width, self.height)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that a frame is."""
        return (self.height * 3 // 2, self.width) if self.colour == "NV12" else (self.height, self.width, 3)


@dataclass(frozen=True)
class View:
    """What the network sees of a camera's frames, as the recipe for any runtime.

    `rows` `(R, h)` and `columns` `(w, R)` are for the `h` × `w` pixels whose first one is at `top`, `left`; where `swap`, red and
    blue then change places.
    """

    frames: Frames
    rows: NDArray[np.float32]
    columns: NDArray[np.float32]
    top: int
    left: int
    swap: bool

    @classmethod
    def of(cls, preprocess: Preprocess, frames: Frames) -> View:
        left, top, width, height = frames.box
        (new_width, new_height), (x, y) = preprocess.window(width, height)
        rows, above = _taps(height, new_height, y, preprocess)
        columns, before = _taps(width, new_width, x, preprocess)
        swap = (frames.colour == "BGR") != (preprocess.colour == "BGR")
        return cls(frames, rows, columns.T.copy(), top + above, left + before, swap)

    @classmethod
    def standard(cls, preprocess: Preprocess) -> View:
        """What a bundle is judged and verified on beside photos: frames of 640×480, or so many times that as makes them shrink."""
        times = math.ceil(preprocess.resize / 480)
        return cls.of(preprocess, Frames(640 * times, 480 * times))

    @property
    def end(self) -> tuple[int, int]:
        """The row and column after the last that is read."""
        return self.top + self.rows.shape[1], self.left + len(self.columns)

    @property
    def crops_only(self) -> bool:
        """Whether the pixels stay as they are."""
        return all(len(m) == m.shape[1] and bool((m == np.eye(len(m))).all()) for m in (self.rows, self.columns))

    def part(self, frame: Frame) -> Pixels:
        """The `(h, w, 3)` pixels of a frame that are read, which GRAPH shrinks."""
        picture = _from_nv12(frame, self.frames.height) if self.frames.colour == "NV12" else frame
        bottom, right = self.end
        return picture[self.top : bottom, self.left : right]

    def frame(self, photo: Pixels) -> Frame:
        """An RGB or BGR frame that shrinks to a photo `(R, R, 3)`, in grey where the network does not look.

        The smallest one that does has values below 0 and above 255 at sharp edges. What is lost by cutting them off, pixels around
        make up for, as far as CORRECTIONS go: projections in turn, which converge at up to twice the step (Agmon 1954, Canadian
        Journal of Mathematics 6:382).
        """
        frame = np.full(self.frames.shape, 128, np.uint8)
        rows, columns = self._back
        wanted = (photo[..., ::-1] if self.swap else photo).transpose(2, 0, 1).astype(np.float32)  # (3, R, R)
        part = (rows @ wanted @ columns).clip(0, 255)  # (3, h, w)
        for _ in range(CORRECTIONS):
            missing = wanted - self.rows @ part @ self.columns
            part = (part + 1.9 * (rows @ missing @ columns)).clip(0, 255)
        bottom, right = self.end
        frame[self.top : bottom, self.left : right] = part.round().transpose(1, 2, 0)
        return frame

    def seen(self, frame: Frame) -> Pixels:
        """What the network is to see of a frame, `(1, R, R, 3)`: what the graphs compute, by numpy."""
        part = self.part(frame)[..., ::-1] if self.swap else self.part(frame)
        wide = np.tensordot(self.rows, part.astype(np.float32), (1, 0))  # (R, w, 3)
        pixels: Pixels = np.tensordot(self.columns, wide, (0, 1)).transpose(1, 0, 2).round().clip(0, 255).astype(np.uint8)
        return pixels[None]

    @cached_property
    def _back(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What undoes `rows` and `columns`, as far as that can be."""
        return np.linalg.pinv(self.rows), np.linalg.pinv(self.columns)

    @property
    def constants(self) -> dict[str, NDArray[Any]]:
        """What GRAPH takes beside `part`."""
        order = np.array([2, 1, 0] if self.swap else [0, 1, 2], np.int32)
        return {"rows": self.rows, "columns": self.columns, "order": order}


class SyntheticFrames:
    """Photos as frames that shrink nearly to those photos: what is judged is the path, not the blur of enlarging them."""

    def __init__(self, pixels: PixelFile, view: View) -> None:
        self.pixels, self.view = pixels, view

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, size: int) -> Iterator[Pixels]:
        """`(≤ size, height, width, 3)` uint8 arrays, in order."""
        for photos in self.pixels.batches(size):
            yield np.stack([self.view.frame(photo) for photo in photos])


def _taps(old: int, new: int, start: int, preprocess: Preprocess) -> tuple[NDArray[np.float32], int]:
    """Weights `(resolution, used)` of the old pixels for each of the new ones from `start` on, and the first old pixel used.

    Source: Pillow's src/libImaging/Resample.c, precompute_coeffs: a filter as wide as the new pixel, cut off at the borders.
    """
    scale = old / new
    wide = max(scale, 1.0)
    reach = wide * (2 if preprocess.interpolation == "bicubic" else 1)
    centre = (start + np.arange(preprocess.resolution) + 0.5) * scale
    if old == new:
        return np.eye(preprocess.resolution, dtype=np.float32), start
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    last = np.minimum((centre + reach + 0.5).astype(int), old)
    pixel = np.arange(first[0], last[-1])
    distance = np.abs(pixel - centre[:, None] + 0.5) / wide
    weights = _cubic(distance) if preprocess.interpolation == "bicubic" else np.maximum(1 - distance, 0)
    weights[(pixel < first[:, None]) | (pixel >= last[:, None])] = 0
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32), int(first[0])


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _from_nv12(frame: Frame, height: int) -> Pixels:
    """RGB `(H, W, 3)` by BT.601, limited range, as OpenCV and OpenVINO convert it."""
    y = 1.164 * np.maximum(frame[:height].astype(np.float32) - 16, 0)
    u, v = (frame[height:, i::2].astype(np.float32).repeat(2, 0).repeat(2, 1) - 128 for i in (0, 1))
    planes = (y + 1.596 * v, y - 0.813 * v - 0.391 * u, y + 2.018 * u)
    return np.stack([p.round().clip(0, 255) for p in planes], -1).astype(np.uint8)
