"""The directory that is handed over: the compiled file, the portable ONNX, labels, golden images, and a manifest for all.

    manifest.json   schema, variant, preprocessing, steps, measurement, device, versions, SHA-256 of every other file and of itself
    model.onnx      the float graph, uint8 (1, R, R, 3) in, logits out
    model.xml/.bin  the compiled file that was judged and timed (OpenVINO)
    model.engine    the same for a Jetson or GPU (TensorRT), with model.engine.json: what it was built by and for, and layers.json;
                    `edgeeff compile` makes it there from fp16.onnx, int8-fp16.onnx and int8-mixed.onnx
    labels.txt      a class name a line; absent when the network's classes have no names here
    golden.npz      a few photos as pixels, and the logits the compiled file gave for them, and for frames that shrink to them
    diagnostics.json  layers by time and error, confusions, mistakes and candidates, which the report shows beside the manifest
    report.html     what the fit measured, as a page for people
    sbom.json       the packages of the environment that made it, with their licences (CycloneDX)

Nothing in a bundle is executed, and nothing is loaded before its hash is checked.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends
from .backends import Watch
from .data.frames import Frame, Frames, View
from .data.images import Logits, Pixels, Predict
from .data.preprocess import Preprocess
from .errors import BadInput, ToolMissing
from .files import to_disk, user_path
from .manifest import NAME, SCHEMA, Manifest, digest
from .records import dump_json

REPORT = "report.html"
DIAGNOSTICS = "diagnostics.json"
Golden = Mapping[str, NDArray[Any]]  # by name: images, logits, and the logits of each form
# INT8 kernels of another processor round differently; a wrong model or preprocessing is off by whole standard deviations.
GOLDEN_TOLERANCE = 0.1


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files match their hashes."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read the manifest and check every file against it."""
        with user_path(path, "read"):
            return cls._read(Path(path))

    @classmethod
    def _read(cls, folder: Path) -> Bundle:
        manifest = Manifest.read(folder)
        present = {p.name for p in folder.iterdir()} - {NAME}
        if missing := sorted({*manifest.files, manifest.model} - present):
            raise BadInput(f"{folder}: {missing[0]} is missing. The bundle is truncated; fit or copy it again.")
        if surplus := sorted(present - set(manifest.files)):
            raise BadInput(f"{folder}: the manifest does not vouch for {surplus[0]}. The bundle was changed; fit or copy it again.")
        for name, expected in manifest.files.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                raise BadInput(f"{folder}: {name} does not match its hash in {NAME}. The bundle was changed; fit or copy it again.")
        return cls(folder, manifest)

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
        return tuple(file.read_text(encoding="utf-8").splitlines()) if "labels.txt" in self.manifest.files else ()

    def load(self, *, throughput: bool = False) -> Predict:
        """The compiled file, ready: `(N, H, W, 3)` uint8 photos at the bundle's resolution → `(N, classes)` float32 logits.

        One photo after the other as fast as possible, or with `throughput` many at once.
        """
        facts = self.manifest
        file = self.path / facts.model
        run = self.runtime().load(file, precision=facts.precision, threads=facts.threads, throughput=throughput)
        side = self.preprocess.resolution

        def predict(images: Pixels) -> Logits:
            if images.ndim != 4 or not len(images) or images.shape[1:] != (side, side, 3) or images.dtype != np.uint8:
                raise BadInput(f"expected uint8 images (N, {side}, {side}, 3), got {images.dtype} {images.shape}.")
            return run(np.ascontiguousarray(images))  # the runtimes read its memory as it lies

        return predict

    def watch(self, frames: Frames) -> Watch:
        """The compiled file, ready for a camera: a frame → `(1, classes)` logits, with nothing left to do to the frame."""
        facts, backend = self.manifest, self.runtime()
        view = View.of(self.preprocess, frames)
        run = backend.watch(self.path / facts.model, view, precision=facts.precision, threads=facts.threads)

        def see(frame: Frame) -> Logits:
            if frame.shape != frames.shape or frame.dtype != np.uint8:
                raise BadInput(f"expected a uint8 frame {frames.shape}, got {frame.dtype} {frame.shape}.")
            return run(np.ascontiguousarray(frame))

        return see

    def runtime(self) -> backends.Backend:
        """What runs the compiled file; raises ToolMissing where that is not here."""
        backend = backends.get(self.manifest.backend)
        if missing := backend.available():
            elsewhere = f" On the device itself: edgeeff compile {self.path}" if self.manifest.forms else ""
            raise ToolMissing(missing + elsewhere)
        return backend

    def golden(self) -> Golden:
        """The arrays of `golden.npz`, by name: `images`, `logits` and what each form of the model gave."""
        with np.load(io.BytesIO((self.path / "golden.npz").read_bytes()), allow_pickle=False) as data:
            return dict(data)

    def verify(self) -> dict[str, float]:
        """Replay the golden images; and hold the camera's path, of frames that shrink to them, to numpy's shrinking and the file.

        Returns how far each is off, in standard deviations of the logits: at most, and as root mean square. Frames may be off
        twice as far as noise of ±2 grey levels moves the logits: runtimes round when they shrink, and some networks answer to that.
        """
        golden, view, run = self.golden(), View.standard(self.preprocess), self.load()
        if missing := {"images", "logits"} - set(golden):
            raise BadInput(f"{self.path}: golden.npz has no {min(missing)}. Fit again.")
        frames = [view.frame(photo) for photo in golden["images"]]
        see = self.watch(view.frames)
        shrunk = np.concatenate([view.seen(frame) for frame in frames])
        noise = np.random.default_rng(0).integers(-2, 3, shrunk.shape)
        logits, expected, clean = run(golden["images"]), golden["logits"], run(shrunk)
        noisy = difference(run((shrunk + noise).clip(0, 255).astype(np.uint8)), clean)
        off = {
            "images": float(np.abs(logits - expected).max() / expected.std()),
            "frames": difference(np.concatenate([see(frame) for frame in frames]), clean),
        }
        allowed = {"images": GOLDEN_TOLERANCE, "frames": max(GOLDEN_TOLERANCE, 2 * noisy)}
        for name, far in off.items():
            if not far <= allowed[name]:
                raise BadInput(
                    f"{self.path}: golden {name} give other logits here: off by {far:.3f} standard deviations "
                    f"(allowed {allowed[name]:.3g}). The runtime here computes something else; fit again on this machine."
                )
        return off


def difference(ours: Logits, theirs: Logits) -> float:
    """Root mean square, in standard deviations of the logits."""
    return float(np.sqrt(np.mean((ours - theirs) ** 2)) / theirs.std())


def write(folder: Path, files: Iterable[Path], labels: tuple[str, ...], golden: Golden, manifest: Manifest) -> Bundle:
    """Fill the folder: copy the files, hash everything. What lies in it already belongs to the bundle.

    `golden` are the arrays `images` and `logits` (what the compiled file answers to them), and where the device compiles for
    itself the logits of each form by its precision. `manifest.model` names one of the files.
    """
    for file in files:
        shutil.copyfile(file, folder / file.name)
    if labels:
        (folder / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
    np.savez_compressed(folder / "golden.npz", **golden)  # type: ignore[arg-type]  # a keyword may be any array
    return seal(folder, manifest)


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest with the hash of every file that lies in the folder."""
    (folder / NAME).unlink(missing_ok=True)
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
    manifest = replace(manifest, files=hashes)
    data = {"schema": SCHEMA, **manifest.to_json()}
    (folder / NAME).write_text(dump_json({**data, "digest": digest(data)}), encoding="utf-8")
    return Bundle(folder, manifest)


def replaceable(path: Path) -> None:
    """Refuse an output path that holds anything but a bundle."""
    with user_path(path, "written"):
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
        try:
            files = Manifest.read(path).files
        except (BadInput, NotADirectoryError) as error:
            raise BadInput(f"{path}: exists and is not a bundle. Give another --out.") from error
        if more := sorted({p.name for p in path.iterdir()} - {NAME, *files}):
            raise BadInput(f"{path}: holds more than a bundle ({more[0]}). Give another --out.")


def publish(folder: Path, out: Path) -> Bundle:
    """Move a finished bundle to its place; an older bundle there is replaced."""
    old = out.with_name(f".{out.name}.old")
    with user_path(out, "written"):
        to_disk(folder)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(out, old)
        os.replace(folder, out)
        shutil.rmtree(old, ignore_errors=True)
    return Bundle.open(out)
