"""A bundle's compiled file on this machine: its accuracy on labelled photos, and what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from .budget import Budget
from .bundle import Bundle
from .data.images import ImageSet, Logits, PixelFile, Pixels
from .errors import BadInput
from .job import BenchmarkJob, EvaluateJob
from .measurement.accuracy import BATCH, Gate
from .measurement.benchmark import BenchmarkRequest, CompiledModel, Metrics, benchmark
from .measurement.confidence import Calibrated, Reliability
from .measurement.system_state import Device, SystemState, device
from .measurement.unknown import Distances, Share
from .precision import Precision
from .progress import SILENT, Progress

EVERYTHING = Budget(fps=1, memory_mb=1e9)  # asks for these costs, and limits nothing


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent; `decode_seconds` are those of reading the photos, `seconds` those of running the network.

    `balanced` is the mean recall of the classes (None: they are even); `remarks` say what keeps the photos from judging.
    `photos_sha256` is the digest of the photos that were judged, as manifests have it.
    `reliability` is that of the probabilities with the bundle's `temperature`. `false_alarms` is the share of the photos that get
    the label unknown, `foreign` that of the photos of other things; None where the bundle has no such label, or there are none.
    """

    bundle: str
    precision: Precision
    top1: float | None
    top5: float | None
    images: int
    decode_seconds: float
    seconds: float
    images_per_second: float
    balanced: float | None
    remarks: tuple[str, ...]
    photos_sha256: str
    temperature: float
    reliability: Reliability
    false_alarms: Share | None = None
    foreign: Share | None = None


@dataclass(frozen=True)
class BundleBenchmark:
    """What the compiled file costs on `device`, and why the figures cannot be relied on (`disturbed`, empty where they can)."""

    bundle: str
    precision: Precision
    metrics: Metrics
    device: Device
    conditions: tuple[SystemState, ...]
    disturbed: tuple[str, ...]


def evaluate(job: EvaluateJob, *, progress: Progress = SILENT) -> Evaluation:
    """The accuracy of the compiled file; raises BadInput for photos without labels or with others than the network's, and for
    foreign photos where the bundle cannot tell them, AccuracyGateFailed where it answers with no finite numbers."""
    bundle, images = labelled(job)
    foreign = foreign_photos(job, bundle)
    start = time.monotonic()
    pixels = PixelFile(images, bundle.preprocess, max_corrupt=job.max_corrupt, progress=progress)
    decoding = time.monotonic() - start
    gate = Gate(pixels, max_drop=100, progress=progress)
    temperature = bundle.manifest.temperature
    scored = _Scored(bundle)
    network = Calibrated(scored, temperature)
    report = gate.judge("bundle", network)
    false_alarms = scored.unknown()
    if foreign:
        for batch in PixelFile(foreign, bundle.preprocess, max_corrupt=job.max_corrupt, progress=progress).batches(BATCH):
            scored(batch)
    assert gate.labels is not None  # as `labelled` requires
    return Evaluation(
        bundle=str(job.bundle),
        precision=bundle.manifest.precision,
        top1=report.top1,
        top5=report.top5,
        images=report.images,
        decode_seconds=decoding,
        seconds=report.seconds,
        images_per_second=report.images / (decoding + report.seconds),
        balanced=report.balanced,
        remarks=gate.remarks,
        photos_sha256=pixels.images.sha256,
        temperature=temperature,
        reliability=Reliability.of(network.answers, gate.labels),
        false_alarms=false_alarms,
        foreign=scored.unknown() if foreign else None,
    )


class _Scored:
    """A bundle's file, which keeps the distances of the photos that it was run on."""

    def __init__(self, bundle: Bundle) -> None:
        self.run, self.tells = bundle.load_scored(throughput=True), bundle.manifest.unknown is not None
        self._parts: list[Distances] = []

    def __call__(self, images: Pixels) -> Logits:
        logits, distances = self.run(images)
        self._parts.append(distances)
        return logits

    def unknown(self) -> Share | None:
        """The share of unknown photos since the last time; None where the bundle cannot tell."""
        distances, self._parts = np.concatenate(self._parts), []
        return Share.of(distances > 1) if self.tells else None


def labelled(job: EvaluateJob) -> tuple[Bundle, ImageSet]:
    """The bundle, and the photos labelled by its classes."""
    bundle = job.open()
    images = ImageSet.open(job.val).labelled_for(bundle.manifest.classes, bundle.labels)
    if images.labels is None:
        raise BadInput(f"{job.val}: unlabelled photos. Expected DIR/CLASS/*.jpg or labels.txt.")
    return bundle, images


def foreign_photos(job: EvaluateJob, bundle: Bundle) -> ImageSet | None:
    """The photos of other things, which need no labels; raises BadInput where the bundle has no label for them."""
    if job.foreign is None:
        return None
    if bundle.manifest.unknown is None:
        raise BadInput(f"--foreign: {job.bundle} has no label unknown, as its fit's verdict says, or as it is older. Fit it again.")
    return ImageSet.open(job.foreign)


def benchmark_bundle(job: BenchmarkJob, *, progress: Progress = SILENT) -> BundleBenchmark:
    """Latency, frames a second and memory of the compiled file."""
    bundle = job.open()
    facts = bundle.manifest
    model = CompiledModel(facts.backend, bundle.path / facts.model, facts.precision, bundle.preprocess.resolution)
    result = benchmark(BenchmarkRequest({"": model}, EVERYTHING, facts.threads, job.rounds), progress)
    return BundleBenchmark(str(job.bundle), facts.precision, result.metrics[""], device(), result.states, result.noise)
