"""Frames that a camera collected, to learn from: no two alike, with the labels that somebody gave some of them.

Alike are frames whose difference hashes are: for 8 × 8 places of the picture, whether it becomes brighter to the right.
Source: Krawetz 2013, https://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import BadInput
from ..files import user_path
from ..progress import SILENT, Progress
from .images import ImageSet, in_threads, report_corrupt
from .photos import Photo
from .preprocess import open_photo, upright_rgb
from .trees import Folder

LEAST = 32  # frames, with fewer of which nothing is learned
MOST = 1000  # of which more are drawn
ALIKE = 3  # of 64 bits: hashes that differ in so many, or fewer, are of the same scene


@dataclass(frozen=True)
class Collected:
    """Frames, no two alike, of which some may have labels; `left_out` are those that were like another one."""

    unlabelled: ImageSet
    labelled: ImageSet | None
    left_out: int

    @classmethod
    def open(cls, folder: Path, listing: Path | None, *, max_corrupt: float = 0.01, progress: Progress = SILENT) -> Collected:
        """The photos of a folder, and the classes that a list has of some: by default the one that lies in it.

        Raises BadInput for fewer than LEAST different ones.
        """
        found = ImageSet.open(listing or folder)
        if listing and found.labels is None:
            raise BadInput(f"{listing}: has no classes. Expected a list of the frames and their classes, as edgeeff label writes.")
        listed = found.paths if found.labels else ()
        real = {os.path.realpath(photo) for photo in listed if isinstance(photo, Path)}
        with user_path(folder, "read"):
            others = tuple(p for p in Folder(folder).photos() if os.path.realpath(str(p)) not in real) if folder.is_dir() else ()
        frames = ImageSet(folder, (*listed, *others) or found.paths, None)
        kept = _distinct(frames, max_corrupt, progress)
        if len(kept) < LEAST:
            what = f"{len(frames)} frames, of which {len(kept)} are different"
            raise BadInput(f"{folder}: {what}: expected {LEAST} or more. Collect for longer, of other scenes.")
        own, rest = [i for i in kept if i < len(listed)], [i for i in kept if i >= len(listed)]
        unlabelled = frames.take(rest).draw(MOST)
        return cls(unlabelled, found.take(own) if own else None, len(frames) - len(kept))

    @property
    def sha256(self) -> str:
        """One digest of all."""
        return self.unlabelled.sha256 + (self.labelled.sha256 if self.labelled else "")

    @property
    def sets(self) -> list[ImageSet]:
        """Those that have photos."""
        return [each for each in (self.unlabelled, self.labelled) if each]


def _distinct(frames: ImageSet, max_corrupt: float, progress: Progress) -> list[int]:
    """The frames that are not like an earlier one, and can be read."""
    hashes = progress.track(in_threads(_difference_hash, frames.paths), f"compare {frames.root.name}", len(frames))
    kept, seen, corrupt = list[int](), np.empty((0, 64), bool), list[str]()
    for i, found in enumerate(hashes):
        if isinstance(found, str):
            corrupt.append(found)
        elif not (np.count_nonzero(seen != found, axis=1) <= ALIKE).any():
            kept.append(i)
            seen = np.concatenate([seen, found[None]])
    report_corrupt(corrupt, len(frames), frames.root, max_corrupt, progress)
    return kept


def _difference_hash(photo: Photo) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | str:
    """`(64,)`, or the photo's path with the reason why it cannot be read."""
    try:
        with open_photo(photo) as image:
            grey = np.asarray(upright_rgb(image).convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    except BadInput as error:
        return str(error)
    return (np.diff(grey, axis=1) > 0).reshape(-1)
