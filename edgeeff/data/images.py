"""Sets of photos on disk, with or without labels, and their decoded pixels. How one becomes pixels is in `preprocess.py`.

Numpy and Pillow only: the device reads photos with this file too.
"""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
import unicodedata
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BadInput
from ..files import read_file, read_lines, user_path
from ..progress import SILENT, Progress
from .preprocess import PHOTO_BYTES, Preprocess, open_photo

Pixels = NDArray[np.uint8]  # (N, H, W, 3)
Logits = NDArray[np.float32]  # (N, classes)
Predict = Callable[[Pixels], Logits]
R = TypeVar("R")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
LIST_BYTES = 250_000_000
MOST_CLASSES = 100_000  # five times as many as ImageNet-21k has


def noise(resolution: int) -> Pixels:
    """One image of uniform random pixels, the same at every call: `(1, resolution, resolution, 3)` uint8."""
    return np.random.default_rng(0).integers(0, 256, (1, resolution, resolution, 3), np.uint8)


@dataclass(frozen=True)
class ImageSet:
    """Photos on disk. `labels` index `classes`, or the network's outputs where the list gave numbers; None: not labelled."""

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

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
        return tuple(_threads(lambda path: hashlib.sha256(read_file(path, PHOTO_BYTES)).hexdigest(), self.paths))

    @cached_property
    def sha256(self) -> str:
        """One digest of the whole set: contents, order and labels, in hexadecimal."""
        return hashlib.sha256(repr((self.digests, self.labels, self.classes)).encode()).hexdigest()

    @classmethod
    def open(cls, path: str | Path) -> ImageSet:
        """Read `DIR/CLASS/*.jpg`, a folder with `labels.txt` (file, tab, class a line), or a plain folder of photos without labels.

        Raises BadInput for a folder of another layout.
        """
        with user_path(path, "read"):
            return cls._read(Path(path))

    @classmethod
    def _read(cls, root: Path) -> ImageSet:
        if not root.is_dir():
            raise BadInput(f"{root}: no such folder. Expected DIR/CLASS/*.jpg, a folder with labels.txt, or a folder of photos.")
        if os.path.lexists(root / "labels.txt"):
            return cls._from_list(root)
        photos = _photos(root)
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        if photos and folders:
            raise BadInput(f"{root}: photos beside folders ({folders[0].name}/ …). Expected one folder a class, or photos alone.")
        if photos:
            return cls(root, tuple(photos), None)
        if len(folders) < 2:
            raise BadInput(
                f"{root}: {len(folders)} class folders and no photos. Expected at least two folders DIR/CLASS/ with photos."
            )
        found = [_photos(folder) for folder in folders]
        for folder, files in zip(folders, found, strict=True):
            if not files:
                raise BadInput(f"{folder}: an empty class. Add photos ({', '.join(SUFFIXES)}) or remove the folder.")
        labels = tuple(i for i, files in enumerate(found) for _ in files)
        names = class_names((f.name for f in folders), root)
        return cls(root, tuple(f for files in found for f in files), labels, names)

    @classmethod
    def _from_list(cls, root: Path) -> ImageSet:
        listing, real, inside = root / "labels.txt", os.path.realpath(root), set[Path]()
        labels, lines = dict[Path, str](), dict[Path, int]()
        for number, line in enumerate(read_lines(listing, LIST_BYTES), 1):
            if not line.strip():
                continue
            name, tab, label = line.partition("\t")
            label, path = label.strip(" "), root / name
            if not tab or not label or "\t" in label or label.startswith("-"):
                raise BadInput(f"{listing}:{number}: expected 'file<TAB>class', found {line[:60]!r}.")
            if path.parent not in inside:  # a photo may be a link to anywhere, but no folder that a list names
                if ".." in path.parts[len(root.parts) :] or not Path(os.path.realpath(path.parent)).is_relative_to(real):
                    raise BadInput(f"{listing}:{number}: {name}: expected a path within {root}, relative to it.")
                inside.add(path.parent)
            if not path.is_file():
                raise BadInput(f"{listing}:{number}: {name}: no such file.")
            if path in lines:
                raise BadInput(f"{listing}:{number}: {name}: also in line {lines[path]}. Expected each file once.")
            labels[path], lines[path] = label, number
        if not labels:
            raise BadInput(f"{listing}: no lines. Expected 'file<TAB>class' a line.")
        if all(label.isdecimal() for label in labels.values()):
            return cls(root, tuple(labels), tuple(_class_number(label, f"{listing}:{lines[p]}") for p, label in labels.items()))
        classes = class_names(sorted(set(labels.values())), listing)
        positions = {name: i for i, name in enumerate(classes)}
        return cls(root, tuple(labels), tuple(positions[label] for label in labels.values()), classes)

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
            raise BadInput(f"{self.root}: {len(self.classes)} classes, but the network has {classes}.")
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
        rounds = (members[i] for i in range(max(map(len, order))) for members in order if i < len(members))
        return self.take(sorted(i for i, _ in zip(rounds, range(count), strict=False)))

    def split(self, share: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """All but a share of the photos, and that share; copies of a photo stay together. The same ones for the same seed."""
        contents = sorted(set(self.digests))
        random.Random(seed).shuffle(contents)
        apart = set(contents[: round(share * len(contents))])
        rest, held = ([i for i, digest in enumerate(self.digests) if (digest in apart) == side] for side in (False, True))
        return self.take(rest), self.take(held)


def class_names(names: Iterable[str], source: object) -> tuple[str, ...]:
    """The names as a bundle stores them, one line of UTF-8 text each. Raises BadInput, with their `source`, for others."""
    found = tuple(names)
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"{source}: class {name!r}: the name is not UTF-8 text. Rename it.") from error
        if not name or any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
            raise BadInput(f"{source}: class {name[:80]!r}: expected a name of one line without control characters. Rename it.")
    return found


def _class_number(text: str, source: str) -> int:
    if len(text) > len(str(MOST_CLASSES)) or int(text) >= MOST_CLASSES:
        raise BadInput(f"{source}: class {text[:40]}: expected a number below {MOST_CLASSES}.")
    return int(text)


def _photos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _threads(function: Callable[[Path], R], paths: Iterable[Path]) -> Iterator[R]:
    """The results in order, computed on all cores (Pillow and hashlib release the interpreter lock), at most 4 a core ahead."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pending: list[Any] = []
        for path in paths:
            pending.append(pool.submit(function, path))
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


def _decode(preprocess: Preprocess, path: Path) -> Pixels | str:
    """The photo's pixels, or its path with the reason it cannot be read."""
    try:
        with open_photo(path) as image:
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
        decoded = _threads(partial(_decode, preprocess), images.paths)
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
    checked = progress.track(_threads(partial(_decode, tiny), images.paths), f"check {images.root.name}", len(images))
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
