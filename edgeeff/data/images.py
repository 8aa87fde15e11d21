"""Labelled photos, how they become pixels, and which of them calibrate.

Numpy and Pillow only: the device side reads photos with this file too.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import BadInput
from ..progress import SILENT, Progress

Pixels = NDArray[np.uint8]  # (N, H, W, 3)
Logits = NDArray[np.float32]  # (N, classes)
Predict = Callable[[Pixels], Logits]
R = TypeVar("R")

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
LOSSY_CORRUPTION = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes the network's input, written once: stored with the weights and in the bundle.

    The photo is shrunk until its short side is `resize`, and its centre `resolution` × `resolution` is cropped. A photo already
    smaller than `resize` is not enlarged, but to reach the crop: datasets stored at the network's size were cropped before.
    `mean` and `std` are in pixels (0–255), in RGB order. They are applied, as is the colour order, inside the compiled graph,
    whose input is uint8 in `colour` order.
    """

    resolution: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    colour: Literal["RGB", "BGR"] = "RGB"

    @classmethod
    def standard(cls, resolution: int, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Preprocess:
        """The usual evaluation crop: the centre 7/8 of the short side (224 of 256)."""
        return cls(resolution, round(resolution * 8 / 7), mean, std)

    def __post_init__(self) -> None:
        whole = isinstance(self.resolution, int) and isinstance(self.resize, int)
        if not (whole and 32 <= self.resolution <= self.resize <= 4096):
            raise BadInput(f"preprocess: expected 32 <= resolution <= resize <= 4096, got {self.resolution} and {self.resize}.")
        if self.interpolation not in INTERPOLATIONS or self.colour not in ("RGB", "BGR"):
            raise BadInput(f"preprocess: unknown interpolation {self.interpolation!r} or colour order {self.colour!r}.")
        numbers = all(isinstance(x, (int, float)) and math.isfinite(x) for x in (*self.mean, *self.std))
        if not numbers or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise BadInput("preprocess: mean and std need three numbers each, std above 0.")

    def __call__(self, image: Image.Image) -> Pixels:
        """A photo of any mode and orientation → `(resolution, resolution, 3)` uint8."""
        image = upright_rgb(image)
        size, (left, top) = self.window(*image.size)
        if size != image.size:
            image = image.resize(size, INTERPOLATIONS[self.interpolation])
        pixels = np.asarray(image.crop((left, top, left + self.resolution, top + self.resolution)))
        return pixels if self.colour == "RGB" else pixels[..., ::-1]

    def window(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The size to which a photo is resized, and the left and top of the crop in that."""
        short = max(self.resolution, min(self.resize, width, height))
        new = (width, height)
        if short != min(new):
            new = (max(short, round(width * short / min(width, height))), max(short, round(height * short / min(width, height))))
        return new, ((new[0] - self.resolution) // 2, (new[1] - self.resolution) // 2)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Preprocess:
        try:
            return cls(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})
        except (KeyError, TypeError) as error:
            raise BadInput(f"preprocess: {error}.") from error


def noise(resolution: int) -> Pixels:
    """One picture of nothing, `(1, resolution, resolution, 3)`."""
    return np.random.default_rng(0).integers(0, 256, (1, resolution, resolution, 3), np.uint8)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Turned as the camera's EXIF says, in RGB; transparent parts on white, 16-bit grey scaled to 8."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class ImageSet:
    """Photos on disk. `labels` index `classes` (or, where the list gave numbers, the network's outputs); None: unlabelled."""

    root: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Iterable[int]) -> ImageSet:
        rows = list(indices)
        labels = None if self.labels is None else tuple(self.labels[i] for i in rows)
        return ImageSet(self.root, tuple(self.paths[i] for i in rows), labels, self.classes)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each file."""
        return tuple(_threads(lambda path: hashlib.sha256(path.read_bytes()).hexdigest(), self.paths))

    @cached_property
    def sha256(self) -> str:
        """One digest of the whole: contents, order and labels."""
        return hashlib.sha256(repr((self.digests, self.labels, self.classes)).encode()).hexdigest()

    @classmethod
    def open(cls, path: str | Path) -> ImageSet:
        """Read `DIR/CLASS/*.jpg`, a folder with `labels.txt` (file, tab, class), or a plain folder of unlabelled photos."""
        root = Path(path)
        if not root.is_dir():
            raise BadInput(f"{root}: no such folder. Expected DIR/CLASS/*.jpg, a folder with labels.txt, or a folder of photos.")
        if (root / "labels.txt").is_file():
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
        rows = []
        try:
            text = (root / "labels.txt").read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInput(f"{root}/labels.txt: not UTF-8 text ({error.reason} at byte {error.start}).") from error
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            name, tab, label = line.partition("\t")
            if not tab or not label.strip() or "\t" in label or label.strip().startswith("-"):
                raise BadInput(f"{root}/labels.txt:{number}: expected 'file<TAB>class', found {line[:60]!r}.")
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise BadInput(f"{root}/labels.txt:{number}: {name}: expected a path within {root}, relative to it.")
            if not (root / name).is_file():
                raise BadInput(f"{root}/labels.txt:{number}: {name}: no such file.")
            rows.append((root / name, label.strip()))
        if not rows:
            raise BadInput(f"{root}/labels.txt: no lines. Expected 'file<TAB>class' a line.")
        paths = tuple(path for path, _ in rows)
        if all(label.isdecimal() for _, label in rows):
            return cls(root, paths, tuple(int(label) for _, label in rows))
        classes = class_names(sorted({label for _, label in rows}), root)
        return cls(root, paths, tuple(classes.index(label) for _, label in rows), classes)

    def labelled_for(self, classes: int, names: tuple[str, ...] = ()) -> ImageSet:
        """The same set with labels that index a network's outputs; refuses what cannot be matched."""
        if self.labels is None:
            return self
        if self.classes and names and set(self.classes) <= set(names):
            order = [names.index(c) for c in self.classes]
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
        """`count` photos spread evenly over the classes, the same ones for the same seed."""
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


def class_names(names: Iterable[str], source: object) -> tuple[str, ...]:
    """The names, as a bundle keeps them: UTF-8 text, a line each. Refuses others, naming their `source`."""
    found = tuple(names)
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"{source}: class {name!r}: the name is not UTF-8 text. Rename it.") from error
        if name.splitlines() != [name]:
            raise BadInput(f"{source}: class {name!r}: expected a name of one line. Rename it.")
    return found


def _photos(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _threads(function: Callable[[Path], R], paths: Iterable[Path]) -> Iterator[R]:
    """Apply in order on all cores (Pillow and hashlib release the interpreter lock), a bounded number ahead."""
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
    """`images` without those that also judge, by content: accuracy on photos that a step has seen proves nothing.

    They are named and left out, or refused where they are more than the `allowed` share of the validation photos.
    """
    judging = dict(zip(validation.digests, validation.paths, strict=True))
    common = [i for i, digest in enumerate(images.digests) if digest in judging]
    if not common:
        return images
    first = common[0]
    example = f"{images.paths[first]} is {judging[images.digests[first]]}"
    if len(common) > allowed * len(validation):
        raise BadInput(
            f"{len(common)} of {images.root}'s photos also occur in {validation.root}: {example}. Give disjoint folders."
        )
    progress.say(f"{len(common)} of {images.root}'s photos also occur in {validation.root}: {example}. Left out of {images.root}.")
    return images.take(set(range(len(images))) - set(common))


def _decode(preprocess: Preprocess, path: Path) -> Pixels | str:
    """The photo's pixels, or the reason it cannot be read."""
    try:
        with Image.open(path) as image:
            return preprocess(image)
    except LOSSY_CORRUPTION as error:
        return str(error).split("\n")[0] or type(error).__name__


class PixelFile:
    """A set decoded once, into an anonymous temporary file: every later step reads it at the speed of memory, in bounded memory.

    `images` holds the photos that could be read. Corrupt ones are reported by name; more than `max_corrupt` of the set is refused.
    """

    def __init__(self, images: ImageSet, preprocess: Preprocess, *, max_corrupt: float = 0.01, progress: Progress = SILENT) -> None:
        self.preprocess = preprocess
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="edgeeff-")  # noqa: SIM115 (lives as long as this object)
        weakref.finalize(self, self._file.close)
        good, corrupt = [], []
        decoded = _threads(partial(_decode, preprocess), images.paths)
        try:
            for i, pixels in enumerate(progress.track(decoded, f"decode {images.root.name}", len(images))):
                if isinstance(pixels, str):
                    corrupt.append(f"{images.paths[i]} ({pixels})")
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
        """`(≤ count, H, W, 3)` uint8: the photos from `start` on."""
        side = self.preprocess.resolution
        batch = np.empty((min(count, len(self) - start), side, side, 3), np.uint8)
        os.preadv(self._file.fileno(), [batch.data.cast("B")], start * side * side * 3)
        return batch

    def batches(self, size: int) -> Iterator[Pixels]:
        """`(≤ size, H, W, 3)` uint8 arrays, in order; the next one is read while the caller works on this one."""

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
    """The set without its corrupt files, which are reported by name; more than `max_corrupt` of the set is refused."""
    tiny = Preprocess(32, 32, (0, 0, 0), (1, 1, 1), "bilinear")
    checked = progress.track(_threads(partial(_decode, tiny), images.paths), f"check {images.root.name}", len(images))
    reasons = {i: result for i, result in enumerate(checked) if isinstance(result, str)}
    corrupt = [f"{images.paths[i]} ({reason})" for i, reason in reasons.items()]
    report_corrupt(corrupt, len(images), images.root, max_corrupt, progress)
    return images.take(i for i in range(len(images)) if i not in reasons)


def report_corrupt(corrupt: list[str], total: int, root: Path, max_corrupt: float, progress: Progress) -> None:
    if not corrupt:
        return
    named = "; ".join(corrupt[:10]) + (" …" if len(corrupt) > 10 else "")
    line = f"{root}: {len(corrupt)} of {total} files cannot be read: {named}"
    if len(corrupt) > max_corrupt * total:
        raise BadInput(f"{line}. Over the {max_corrupt:.0%} allowed; repair or remove them.")
    progress.say(f"{line}. Left out.")
