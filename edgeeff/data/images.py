"""Sets of photos, with or without labels, and their decoded pixels. Where they lie is in `sources.py`, how one becomes pixels in
`preprocess.py`.

Numpy and Pillow only: the device reads photos with this file too.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..files import user_path
from ..progress import SILENT, Progress
from .photos import Photo, read_photo
from .preprocess import Preprocess, open_photo
from .sources import Source

Pixels = NDArray[np.uint8]  # (N, H, W, 3)
Logits = NDArray[np.float32]  # (N, classes)
Predict = Callable[[Pixels], Logits]
R = TypeVar("R")
UNLABELLED = -1  # among labels: of a photo that has none


def noise(resolution: int) -> Pixels:
    """One image of uniform random pixels, the same at every call: `(1, resolution, resolution, 3)` uint8."""
    return np.random.default_rng(0).integers(0, 256, (1, resolution, resolution, 3), np.uint8)


@dataclass(frozen=True)
class ImageSet:
    """Photos. `labels` index `classes`, or the network's outputs where the list gave numbers; None: not labelled."""

    root: Path
    paths: tuple[Photo, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, label: int) -> str:
        """A class's name; its number where it has none."""
        return self.classes[label] if label < len(self.classes) else str(label)

    def take(self, indices: Iterable[int]) -> ImageSet:
        """The photos at these positions, in this order, with their labels."""
        rows = list(indices)
        labels = None if self.labels is None else tuple(self.labels[i] for i in rows)
        return ImageSet(self.root, tuple(self.paths[i] for i in rows), labels, self.classes)

    def joined(self, other: ImageSet) -> ImageSet:
        """The photos of both, without labels."""
        return ImageSet(self.root, self.paths + other.paths, None)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each file's contents, in hexadecimal."""
        return tuple(in_threads(lambda photo: hashlib.sha256(read_photo(photo)).hexdigest(), self.paths))

    @cached_property
    def sha256(self) -> str:
        """One digest of the whole set: contents, order and labels, in hexadecimal."""
        return hashlib.sha256(repr((self.digests, self.labels, self.classes)).encode()).hexdigest()

    @classmethod
    def open(cls, path: str | Path) -> ImageSet:
        """The photos at a path: a folder, a list of labelled photos, an archive or a table (`sources.py`).

        Raises BadInput for one of another layout.
        """
        with user_path(path, "read"):
            found = Source.of(Path(path)).read()
        return cls(found.root, found.photos, found.labels, found.classes)

    def labelled_for(self, classes: int, names: tuple[str, ...] = ()) -> ImageSet:
        """The same set with labels that index a network's outputs. Raises BadInput where classes and outputs do not match."""
        if self.labels is None:
            return self
        if self.classes and names and set(self.classes) <= set(names):
            positions = {name: i for i, name in reversed(list(enumerate(names)))}  # the first of each name
            order = [positions[c] for c in self.classes]
            return ImageSet(self.root, self.paths, tuple(order[i] for i in self.labels), names)
        if self.classes and names and len(names) == classes:
            unknown = sorted(set(self.classes) - set(names))
            raise BadInput(f"{self.root}: class {unknown[0]!r} is not among the network's {classes}: {', '.join(names[:8])} …")
        if self.classes and len(self.classes) != classes:
            remedy = "To teach a network these: edgeeff fit --train PHOTOS."
            raise BadInput(f"{self.root}: {len(self.classes)} classes, but the network has {classes}. {remedy}")
        if max(self.labels) >= classes:
            raise BadInput(
                f"{self.root}: label {max(self.labels)} is out of range for a network with {classes} classes (0–{classes - 1})."
            )
        return self

    def draw(self, count: int, seed: int = 0) -> ImageSet:
        """At most `count` photos, spread evenly over the classes; the same ones for the same seed."""
        groups: dict[int, list[int]] = defaultdict(list)
        for i in range(len(self)):
            groups[self.labels[i] if self.labels is not None else 0].append(i)
        rng = random.Random(seed)
        order = [groups[label] for label in sorted(groups)]
        for members in order:
            rng.shuffle(members)
        rng.shuffle(order)
        rounds = (members[i] for i in range(max(map(len, order), default=0)) for members in order if i < len(members))
        return self.take(sorted(i for i, _ in zip(rounds, range(count), strict=False)))

    def parts(self, shares: Iterable[float], seed: int = 0, *, least: int = 0) -> list[ImageSet]:
        """The `shares` of the photos, each of every class alike and at least `least` of it, and last what remains.

        A photo's contents and the seed put the photos of a class in order, so names do not matter. Copies stay together, with the
        class of the first. One photo more in a class moves at most one other across each border.
        """
        classes = dict[str, int]()
        for i, digest in enumerate(self.digests):
            classes.setdefault(digest, 0 if self.labels is None else self.labels[i])
        groups = defaultdict[int, list[str]](list)
        for digest in sorted(classes, key=lambda d: hashlib.sha256(f"{seed} {d}".encode()).digest()):
            groups[classes[digest]].append(digest)
        borders = list(accumulate(shares))
        sides = dict[str, int]()
        for members in groups.values():
            end = 0
            for side, share in enumerate(borders):
                start, end = end, max(end + least, round(share * len(members)))
                sides |= dict.fromkeys(members[start:end], side)
        rows = [[i for i, d in enumerate(self.digests) if sides.get(d, len(borders)) == side] for side in range(len(borders) + 1)]
        return [self.take(each) for each in rows]

    def split(self, share: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """All but a share of the photos, and that share; copies of a photo stay together. The same ones for the same seed."""
        contents = sorted(set(self.digests))
        random.Random(seed).shuffle(contents)
        apart = set(contents[: round(share * len(contents))])
        rest, held = ([i for i, digest in enumerate(self.digests) if (digest in apart) == side] for side in (False, True))
        return self.take(rest), self.take(held)


def in_threads(function: Callable[[Photo], R], photos: Iterable[Photo]) -> Iterator[R]:
    """The results in order, computed on all cores (Pillow and hashlib release the interpreter lock), at most 4 a core ahead."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pending: list[Any] = []
        for photo in photos:
            pending.append(pool.submit(function, photo))
            if len(pending) >= 4 * workers:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def unseen(images: ImageSet, validation: ImageSet, *, allowed: float = 0.0, progress: Progress = SILENT) -> ImageSet:
    """`images` without those that are, by their contents, also validation photos: accuracy on photos seen before proves nothing.

    What is left out is reported. Raises BadInput where it is more than the `allowed` share of the validation photos.
    """
    validating = dict(zip(validation.digests, validation.paths, strict=True))
    common = [i for i, digest in enumerate(images.digests) if digest in validating]
    if not common:
        return images
    first = common[0]
    example = f"{images.paths[first]} is {validating[images.digests[first]]}"
    if len(common) > allowed * len(validation):
        raise BadInput(
            f"{len(common)} of {images.root}'s photos also occur in {validation.root}: {example}. Give disjoint folders."
        )
    progress.say(f"{len(common)} of {images.root}'s photos also occur in {validation.root}: {example}. Left out of {images.root}.")
    return images.take(set(range(len(images))) - set(common))


def _decode(preprocess: Preprocess, photo: Photo) -> Pixels | str:
    """The photo's pixels, or its path with the reason it cannot be read."""
    try:
        with open_photo(photo) as image:
            return preprocess(image)
    except BadInput as error:
        return str(error)


class PixelFile:
    """A set decoded once, into an anonymous temporary file, from which every later step reads it quickly and in bounded memory.

    `images` holds the photos that could be read. Corrupt ones are reported by name. Raises BadInput where they are more than the
    share `max_corrupt` of the set, or where the temporary folder is full.
    """

    def __init__(self, images: ImageSet, preprocess: Preprocess, *, max_corrupt: float = 0.01, progress: Progress = SILENT) -> None:
        self.preprocess = preprocess
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="edgeeff-")  # noqa: SIM115 (it is open as long as this object exists)
        weakref.finalize(self, self._file.close)
        good, corrupt = [], []
        decoded = in_threads(partial(_decode, preprocess), images.paths)
        try:
            for i, pixels in enumerate(progress.track(decoded, f"decode {images.root.name}", len(images))):
                if isinstance(pixels, str):
                    corrupt.append(pixels)
                else:
                    good.append(i)
                    self._file.write(np.ascontiguousarray(pixels).data)
            self._file.flush()
        except OSError as error:
            raise BadInput(
                f"decoding {images.root} needs space in {tempfile.gettempdir()}: {error.strerror}. Set TMPDIR."
            ) from error
        report_corrupt(corrupt, len(images), images.root, max_corrupt, progress)
        self.images = images.take(good)

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, start: int, count: int) -> Pixels:
        """The photos from `start` on: `(≤ count, H, W, 3)` uint8."""
        side = self.preprocess.resolution
        batch = np.empty((min(count, len(self) - start), side, side, 3), np.uint8)
        os.preadv(self._file.fileno(), [batch.data.cast("B")], start * side * side * 3)
        return batch

    def batches(self, size: int) -> Iterator[Pixels]:
        """All photos in order, in arrays `(≤ size, H, W, 3)` uint8; each is read while the caller works on the one before."""

        def read(start: int) -> Pixels:
            return self.rows(start, size)

        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(read, 0)
            for start in range(size, len(self) + size, size):
                batch = following.result()
                if start < len(self):
                    following = reader.submit(read, start)
                yield batch


def readable(images: ImageSet, *, max_corrupt: float = 0.01, progress: Progress = SILENT) -> ImageSet:
    """The set without its corrupt files, which are reported by name. Raises BadInput for more than the share `max_corrupt`."""
    tiny = Preprocess(32, 32, (0, 0, 0), (1, 1, 1), "bilinear")
    checked = progress.track(in_threads(partial(_decode, tiny), images.paths), f"check {images.root.name}", len(images))
    reasons = {i: result for i, result in enumerate(checked) if isinstance(result, str)}
    report_corrupt(list(reasons.values()), len(images), images.root, max_corrupt, progress)
    return images.take(i for i in range(len(images)) if i not in reasons)


def report_corrupt(corrupt: list[str], total: int, root: Path, max_corrupt: float, progress: Progress) -> None:
    """Name the first ten corrupt files, which are given with their reasons.

    Raises BadInput where they are more than the share `max_corrupt` of `total`.
    """
    if not corrupt:
        return
    named = "; ".join(corrupt[:10]) + (" …" if len(corrupt) > 10 else "")
    line = f"{root}: {len(corrupt)} of {total} files cannot be read: {named}"
    if len(corrupt) > max_corrupt * total:
        raise BadInput(f"{line}. Over the {max_corrupt:.0%} allowed; repair or remove them.")
    progress.say(f"{line}. Left out.")
