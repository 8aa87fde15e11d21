"""The directory that is handed over: the compiled file, the portable ONNX, labels, golden images, and a manifest for all.

    manifest.json   schema, variant, preprocessing, steps, measurement, device, versions, SHA-256 of every other file and of itself
    model.onnx      the float graph, uint8 (1, R, R, 3) in, logits out
    model.xml/.bin  the compiled file that was judged and timed (OpenVINO)
    model.engine    the same for a Jetson or GPU (TensorRT), with model.engine.json: what it was built by and for, and layers.json;
                    `edgeeff compile` makes it there from fp16.onnx, int8-fp16.onnx and int8-mixed.onnx
    labels.txt      a class name a line; absent when the network's classes have no names here
    golden.npz      a few photos as pixels, and the logits the compiled file gave for them, and for frames that shrink to them
    known.npz       where the features of known photos lie, by which others are unknown; absent where the file tells none
    diagnostics.json  layers by time and error, confusions, mistakes and candidates, which the report shows beside the manifest
    report.html     what the fit measured, as a page for people
    README.md       the model card: the same in short, as the Hugging Face hub shows it
    fit.yaml        the job, for `edgeeff fit --job`
    sbom.json       the packages of the environment that made it, with their licences (CycloneDX)
    manifest.sig    the signature of the manifest, by `edgeeff sign`: the one file that the manifest has no hash of

Nothing in a bundle is executed, and nothing is loaded before its hash is checked. Anyone can compute a hash: only where a bundle is
opened with `trusted` keys is it known who made it.
"""

from __future__ import annotations

import hashlib
import io
import math
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends, signature
from .backends import Watch
from .data.frames import Frame, Frames, View
from .data.images import Logits, Pixels, Predict
from .data.labels import class_names
from .data.preprocess import Preprocess
from .errors import BadInput, ToolMissing
from .files import open_file, put_folder, read_file, to_disk, user_path
from .manifest import NAME, SCHEMA, Manifest, digest, written
from .measurement.confidence import Probabilities, softmax
from .measurement.unknown import Distances, Known
from .records import dump_json

REPORT = "report.html"
DIAGNOSTICS = "diagnostics.json"
KNOWN = "known.npz"
EXTERNAL = b"location"  # the key that every reference to another file has in ONNX, and nothing else in the graphs of a bundle
Golden = Mapping[str, NDArray[Any]]  # by name: images, logits, and the logits of each form
# INT8 kernels of another processor round differently; a wrong model or preprocessing is off by whole standard deviations.
GOLDEN_TOLERANCE = 0.1
MAX_GOLDEN = 256 << 20  # bytes of the arrays; eight photos of 600 pixels have 9 MB
MAX_KNOWN = 32 << 20  # bytes of the arrays; those of B7, the largest, have 16 MB
MAX_LABELS = 64 << 20  # bytes
LoadScored = Callable[[Pixels], tuple[Logits, Distances]]
WatchScored = Callable[[Frame], tuple[Logits, Distances]]
UNKNOWN = "unknown"  # the label of photos unlike those that the network knows


@dataclass(frozen=True)
class Replay:
    """How far golden photos' answers are `off` here, and how far they may be, in standard deviations of the logits."""

    off: float
    allowed: float

    @property
    def same(self) -> bool:
        """Whether they count as the same answers; none that is not finite does."""
        return self.off <= self.allowed < math.inf

    def __str__(self) -> str:
        return f"off by {self.off:.3f} standard deviations (allowed {self.allowed:.3g})"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files match their hashes."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, trusted: Sequence[str | Path] | None = None, not_before: datetime | None = None) -> Bundle:
        """Read the manifest and check every file against it.

        `trusted` are PEM files of Ed25519 public keys: one of them has to have signed the bundle. `not_before` is the earliest date
        that it may have, in UTC unless it says otherwise. Raises BadInput for any other bundle.
        """
        if not_before and trusted is None:
            raise BadInput(f"{path}: a date that nobody signed says nothing. Name the trusted keys beside --not-before.")
        with user_path(path, "read"):
            return cls._read(Path(path), trusted, not_before)

    @classmethod
    def _read(cls, folder: Path, trusted: Sequence[str | Path] | None, not_before: datetime | None) -> Bundle:
        text = written(folder)
        if trusted is not None:
            signature.check(folder, text, trusted)
        manifest = Manifest.parse(text, folder)
        if not_before and not_before.replace(tzinfo=not_before.tzinfo or timezone.utc) > manifest.made_at(folder):
            raise BadInput(f"{folder}: is of {manifest.date}, expected {not_before} or later. Copy the newest bundle here.")
        present = {p.name for p in folder.iterdir()} - {NAME}
        if signature.NAME in present:
            present.remove(signature.NAME)
            with open_file(folder / signature.NAME, follow=False):  # also where nobody asks for it: it is copied with the rest
                pass
        if missing := sorted({*manifest.files, manifest.model} - present):
            raise BadInput(f"{folder}: {missing[0]} is missing. The bundle is truncated; fit or copy it again.")
        if surplus := sorted(present - set(manifest.files)):
            raise BadInput(
                f"{folder}: the manifest does not vouch for {surplus[0]!r}. The bundle was changed; fit or copy it again."
            )
        for name, expected in manifest.files.items():
            if sha256(folder / name) != expected:
                raise BadInput(f"{folder}: {name} does not match its hash in {NAME}. The bundle was changed; fit or copy it again.")
        opened = cls(folder, manifest)
        if (names := opened.labels) and len(names) != manifest.classes:
            raise BadInput(f"{folder}: labels.txt has {len(names)} names for {manifest.classes} classes. Fit or copy it again.")
        return opened

    def sign(self, key: str | Path) -> str:
        """Sign the manifest by a private Ed25519 key, a PEM file without a password; returns the key's fingerprint."""
        with user_path(self.path, "written"):
            return signature.sign(self.path, written(self.path), key)

    @property
    def report(self) -> Path:
        return self.path / REPORT

    @property
    def preprocess(self) -> Preprocess:
        return self.manifest.preprocess

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by output, or () where they have none."""
        file = self.path / "labels.txt"
        if file.name not in self.manifest.files:
            return ()
        try:
            text = read_file(file, MAX_LABELS, follow=False).decode()
        except UnicodeDecodeError as error:
            raise BadInput(f"{file}: is not UTF-8 text ({error}). Fit or copy the bundle again.") from error
        return class_names(text.removesuffix("\n").split("\n"), file)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes by output: their names, or their numbers where they have none."""
        return self.labels or tuple(map(str, range(self.manifest.classes)))

    def load(self, *, throughput: bool = False) -> Predict:
        """The compiled file, ready: `(N, H, W, 3)` uint8 photos at the bundle's resolution → `(N, classes)` float32 logits.

        One photo after the other as fast as possible, or with `throughput` many at once.
        """
        return self._load(throughput, None)

    def load_scored(self, *, throughput: bool = False) -> LoadScored:
        """As `load`, with each photo's distance `(N,)` beside its logits: above 1 the photo is `unknown`.

        Distances are NaN where the bundle tells nothing of unknown photos.
        """
        known = self.known
        run = self._load(throughput, known)
        return lambda images: self._scored(run(images), known)

    def _load(self, throughput: bool, known: Known | None) -> Predict:
        facts, runtime = self.manifest, self.runtime()
        load = partial(runtime.load, features=True) if known else runtime.load
        run = load(self.path / facts.model, precision=facts.precision, threads=facts.threads, throughput=throughput)
        side = self.preprocess.resolution

        def predict(images: Pixels) -> Logits:
            if images.ndim != 4 or not len(images) or images.shape[1:] != (side, side, 3) or images.dtype != np.uint8:
                raise BadInput(f"expected uint8 images (N, {side}, {side}, 3), got {images.dtype} {images.shape}.")
            return self._checked(run(np.ascontiguousarray(images)), len(images), known)  # the runtimes read its memory as it lies

        return predict

    def watch(self, frames: Frames) -> Watch:
        """The compiled file, ready for a camera: a frame → `(1, classes)` logits, with nothing left to do to the frame."""
        return self._watch(frames, None)

    def watch_scored(self, frames: Frames) -> WatchScored:
        """As `watch`, with the frame's distance `(1,)` beside its logits, as of `load_scored`."""
        known = self.known
        run = self._watch(frames, known)
        return lambda frame: self._scored(run(frame), known)

    def _watch(self, frames: Frames, known: Known | None) -> Watch:
        facts, runtime = self.manifest, self.runtime()
        view = View.of(self.preprocess, frames)
        watch = partial(runtime.watch, features=True) if known else runtime.watch
        run = watch(self.path / facts.model, view, precision=facts.precision, threads=facts.threads)

        def see(frame: Frame) -> Logits:
            if frame.shape != frames.shape or frame.dtype != np.uint8:
                raise BadInput(f"expected a uint8 frame {frames.shape}, got {frame.dtype} {frame.shape}.")
            return self._checked(run(np.ascontiguousarray(frame)), 1, known)

        return see

    def probabilities(self, logits: Logits) -> Probabilities:
        """Those of finite logits, as `load` and `watch` give them: `(N, classes)`, calibrated by the bundle's temperature."""
        return softmax(logits, self.manifest.temperature)

    def _checked(self, found: Logits, images: int, known: Known | None) -> Logits:
        """What the compiled file gave, which may be anybody's; raises BadInput where it is no logits of the bundle's classes, with
        the features behind them where there are `known` ones."""
        width = self.manifest.classes + (known.mean.size if known else 0)
        if found.shape != (images, width):
            what = "logits and features" if known else "logits"
            raise BadInput(
                f"{self.path}: {self.manifest.model} gives {found.shape}, expected {what} ({images}, {width}). Fit it again."
            )
        return found

    def _scored(self, found: Logits, known: Known | None) -> tuple[Logits, Distances]:
        """The logits, and distances of which 1 is the threshold."""
        logits, features = found[:, : self.manifest.classes], found[:, self.manifest.classes :]
        if not (known and self.manifest.unknown):
            return logits, np.full(len(found), np.nan)
        return logits, known.distances(features) / self.manifest.unknown.threshold

    def runtime(self) -> backends.Backend:
        """What runs the compiled file; raises ToolMissing where that is not here."""
        backend = backends.get(self.manifest.backend)
        if missing := backend.available():
            elsewhere = f". On the device itself: edgeeff compile {self.path}" if self.manifest.forms else ""
            raise ToolMissing(missing + elsewhere)
        return backend

    def golden(self) -> Golden:
        """The arrays of `golden.npz`, by name: `images`, `logits` and what each form of the model gave.

        Raises BadInput unless they are `(N, R, R, 3)` uint8 and `(N, classes)` finite float32, in a file that is whole.
        """
        file, side = self.path / "golden.npz", self.preprocess.resolution
        golden = _arrays(file, MAX_GOLDEN, ("images", "logits"))
        count = golden["images"].shape[0] if golden["images"].ndim else 0
        for name, array in golden.items():
            dtype, shape = (np.uint8, (side, side, 3)) if name == "images" else (np.float32, (self.manifest.classes,))
            if array.dtype != dtype or array.shape != (count, *shape) or not count:
                expected = f"{np.dtype(dtype)} (N, {', '.join(map(str, shape))})"
                raise BadInput(f"{file}: {name[:80]!r} is {array.dtype} {array.shape}, expected {expected}. Fit again.")
            if not np.isfinite(array).all():
                raise BadInput(f"{file}: {name[:80]!r} has numbers that are not finite, so nothing can be compared. Fit again.")
        return golden

    @property
    def known(self) -> Known | None:
        """Where the features of known photos lie; None where the bundle tells nothing of unknown ones.

        Raises BadInput unless its file is whole, and has mean and scale `(D,)` and components `(k, D)`, finite float32. Bundles of
        before have no scale, or one that is zero for the first stage, whose features are no longer read.
        """
        if self.manifest.unknown is None:
            return None
        file = self.path / KNOWN
        if file.name not in self.manifest.files:
            raise BadInput(f"{self.path}: {KNOWN} is missing, by which photos are unknown. Fit or copy it again.")
        if not self.runtime().FEATURES:
            raise BadInput(f"{self.path}: {self.manifest.backend} gives no features to tell unknown photos by. Fit it again.")
        arrays = _arrays(file, MAX_KNOWN, ("mean", "components"))
        mean, components = arrays["mean"], arrays["components"]
        scale = arrays.get("scale", np.ones_like(mean))
        shapes = mean.shape, scale.shape, components.shape
        if (mean.ndim, components.ndim) != (1, 2) or not mean.size or not shapes[0] == shapes[1] == shapes[2][1:]:
            raise BadInput(f"{file}: mean, scale and components are {shapes}: expected (D,), (D,) and (k, D). Fit again.")
        if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in (mean, scale, components)):
            raise BadInput(f"{file}: expected finite float32 numbers. Fit again.")
        read = scale != 0
        return Known(mean[read], scale[read], components[:, read])

    def verify(self) -> dict[str, float]:
        """How far `replay` finds each off; raises BadInput where that is more than is allowed."""
        replayed = self.replay()
        for name, found in replayed.items():
            if not found.same:
                raise BadInput(
                    f"{self.path}: golden {name} give other logits here: {found}. "
                    "The runtime here computes something else; fit again on this machine."
                )
        return {name: found.off for name, found in replayed.items()}

    def replay(self) -> dict[str, Replay]:
        """Replay the golden images; and hold the camera's path, of frames that shrink to them, to numpy's shrinking and the file.

        Returns how far each is off: `images` at most, `frames` as root mean square. Frames may be off twice as far as noise of ±2
        grey levels moves the logits: runtimes round when they shrink, and some networks answer to that.
        """
        golden, view, run = self.golden(), View.standard(self.preprocess), self.load()
        frames = [view.frame(photo) for photo in golden["images"]]
        see = self.watch(view.frames)
        shrunk = np.concatenate([view.seen(frame) for frame in frames])
        noise = np.random.default_rng(0).integers(-2, 3, shrunk.shape)
        logits, expected, clean = run(golden["images"]), golden["logits"].astype(np.float64), run(shrunk)
        noisy = difference(run((shrunk + noise).clip(0, 255).astype(np.uint8)), clean)
        seen = np.concatenate([see(frame) for frame in frames])
        return {
            "images": Replay(float(np.abs(logits - expected).max() / expected.std()), GOLDEN_TOLERANCE),
            "frames": Replay(difference(seen, clean), max(GOLDEN_TOLERANCE, 2 * noisy)),
        }


def _arrays(file: Path, most: int, names: Sequence[str]) -> Golden:
    """The arrays of a bundle's .npz file, which unpack to so many bytes at most; raises BadInput unless all `names` are there."""
    data = read_file(file, most, follow=False)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size <= most:
            with np.load(io.BytesIO(data), allow_pickle=False) as opened:
                arrays = dict(opened)
    except Exception as error:  # zipfile, zlib and numpy raise a dozen of kinds for what is cut off or made up
        raise BadInput(f"{file}: cannot be read ({type(error).__name__}: {error!s:.200}). Fit or copy the bundle again.") from error
    if size > most:
        raise BadInput(f"{file}: unpacks to {size:,} bytes, expected {most:,} at most. Fit or copy the bundle again.")
    if missing := set(names) - set(arrays):
        raise BadInput(f"{file.parent}: {file.name} has no {min(missing)}. Fit again.")
    if foreign := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise BadInput(f"{file}: {foreign[0][:80]!r} is no array. Fit or copy the bundle again.")
    return arrays


def difference(ours: Logits, theirs: Logits) -> float:
    """Root mean square, in standard deviations of the logits; NaN where there is none."""
    exact = theirs.astype(np.float64)  # whose squares overflow for no float32
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(np.mean((ours - exact) ** 2)) / exact.std())


def sha256(file: Path) -> str:
    """The hash of a bundle's file, in hexadecimal. Raises BadInput where it is no regular file, or a graph in several files."""
    found, tail = hashlib.sha256(), b""
    with open_file(file, follow=False) as opened:
        while chunk := opened.read(1 << 20):
            found.update(chunk)
            if file.suffix == ".onnx" and EXTERNAL in tail + chunk:
                raise BadInput(f"{file}: keeps weights in other files, which nobody vouches for. Expected a graph in one file.")
            tail = chunk[1 - len(EXTERNAL) :]
    return found.hexdigest()


def write(
    folder: Path,
    files: Iterable[Path],
    labels: tuple[str, ...],
    golden: Golden,
    manifest: Manifest,
    known: Known | None = None,
) -> Bundle:
    """Fill the folder: copy the files, hash everything. What lies in it already belongs to the bundle.

    `golden` are the arrays `images` and `logits` (what the compiled file answers to them), and where the device compiles for
    itself the logits of each form by its precision. `manifest.model` names one of the files. `known` belongs to
    `manifest.unknown`.
    """
    for file in files:
        shutil.copyfile(file, folder / file.name)
    if labels:
        (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    np.savez_compressed(folder / "golden.npz", **golden)  # type: ignore[arg-type]  # a keyword may be any array
    if known:
        np.savez_compressed(folder / KNOWN, mean=known.mean, scale=known.scale, components=known.components)
    return seal(folder, manifest)


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest with the hash of every file that lies in the folder. A signature, which is of another manifest, goes."""
    for name in (NAME, signature.NAME):
        (folder / name).unlink(missing_ok=True)
    hashes = {p.name: sha256(p) for p in sorted(folder.iterdir())}
    manifest = replace(manifest, files=hashes)
    data = {"schema": SCHEMA, **manifest.to_json()}
    (folder / NAME).write_text(dump_json({**data, "digest": digest(data)}), encoding="utf-8")
    return Bundle(folder, manifest)


def replaceable(path: Path) -> Manifest | None:
    """The manifest of the bundle at an output path, None where nothing is. Raises BadInput where it holds anything else."""
    with user_path(path, "written"):
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        try:
            older = Manifest.read(path)
        except (BadInput, NotADirectoryError) as error:
            raise BadInput(f"{path}: exists and is not a bundle. Give another --out.") from error
        if more := sorted({p.name for p in path.iterdir()} - {NAME, signature.NAME, *older.files}):
            raise BadInput(f"{path}: holds more than a bundle ({more[0]}). Give another --out.")
        return older


def publish(folder: Path, out: Path) -> Bundle:
    """Move a finished bundle to its place; an older bundle there is replaced."""
    with user_path(out, "written"):
        to_disk(folder)
        put_folder(folder, out)
    return Bundle.open(out)
