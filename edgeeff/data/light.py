"""The light of photos: a table for each channel which gives the pixels of some photos the distribution that they have in others.

Source: histogram matching, Gonzalez & Woods, Digital Image Processing, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .images import PixelFile, Pixels
from .photos import Photo

BATCH = 64
Table = NDArray[np.uint8]  # (3, 256): of each channel, what becomes of a value


@dataclass(frozen=True)
class Relighting:
    """Between the light of a network's own photos and that of `frames`, which a camera took."""

    to_own: Table
    to_frames: Table
    frames: frozenset[Photo]

    @classmethod
    def between(cls, own: PixelFile, frames: PixelFile) -> Relighting:
        """From all pixels of both, as the network sees them."""
        ours, theirs = shares(own), shares(frames)
        return cls(matching(theirs, ours), matching(ours, theirs), frozenset(frames.images.paths))

    def seen(self, pixels: Pixels, photo: Photo, *, as_frame: bool) -> Pixels:
        """A photo `(H, W, 3)` in the light of the frames, or in that of the network's own photos."""
        if as_frame == (photo in self.frames):
            return pixels
        return relit(pixels, self.to_frames if as_frame else self.to_own)


def shares(pixels: PixelFile) -> NDArray[np.float64]:
    """Of each channel, the share of the pixels whose value is at most each: `(3, 256)`."""
    counts = np.zeros((3, 256), np.int64)
    for photos in pixels.batches(BATCH):
        counts += [np.bincount(photos[..., channel].reshape(-1), minlength=256) for channel in range(3)]
    found: NDArray[np.float64] = counts.cumsum(1) / counts.sum(1, keepdims=True)
    return found


def matching(before: NDArray[np.float64], after: NDArray[np.float64]) -> Table:
    """What gives photos of the `shares` before those after: of each channel, the value of as many pixels."""
    values, found = np.arange(256), []
    for ours, theirs in zip(before, after, strict=True):
        middle = ours - np.diff(ours, prepend=0.0) / 2  # half of the pixels of a value lie below it
        centres = theirs - np.diff(theirs, prepend=0.0) / 2
        found.append(np.interp(middle, centres, values))
    table: Table = np.stack(found).round().astype(np.uint8)
    return table


def relit(pixels: Pixels, by: Table) -> Pixels:
    """Photos `(..., 3)` with a table applied."""
    found: Pixels = np.stack([by[channel][pixels[..., channel]] for channel in range(3)], -1)
    return found
