"""A bundle's compiled file on this machine: its accuracy on labelled photos, and what it costs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .budget import Budget
from .bundle import Bundle
from .data.images import ImageSet, PixelFile
from .errors import BadInput
from .job import BenchmarkJob, EvaluateJob
from .measurement.accuracy import Gate
from .measurement.benchmark import BenchmarkRequest, CompiledModel, Metrics, benchmark
from .measurement.confidence import Calibrated, Reliability
from .measurement.system_state import Device, SystemState, device
from .precision import Precision
from .progress import SILENT, Progress

EVERYTHING = Budget(fps=1, memory_mb=1e9)  # asks for these costs, and limits nothing


@dataclass(frozen=True)
class Evaluation:
    """Accuracy in percent; `decode_seconds` are those of reading the photos, `seconds` those of running the network.

    `balanced` is the mean recall of the classes (None: they are even); `remarks` say what keeps the photos from judging.
    `photos_sha256` is the digest of the photos that were judged, as manifests have it.
    `reliability` is that of the probabilities with the bundle's `temperature`.
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
    """The accuracy of the compiled file; raises BadInput for photos without labels or with others than the network's,
    AccuracyGateFailed where it answers with no finite numbers."""
    bundle, images = labelled(job)
    start = time.monotonic()
    pixels = PixelFile(images, bundle.preprocess, max_corrupt=job.max_corrupt, progress=progress)
    decoding = time.monotonic() - start
    gate = Gate(pixels, max_drop=100, progress=progress)
    temperature = bundle.manifest.temperature
    network = Calibrated(bundle.load(throughput=True), temperature)
    report = gate.judge("bundle", network)
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
    )


def labelled(job: EvaluateJob) -> tuple[Bundle, ImageSet]:
    """The bundle, and the photos labelled by its classes."""
    bundle = job.open()
    images = ImageSet.open(job.val).labelled_for(bundle.manifest.classes, bundle.labels)
    if images.labels is None:
        raise BadInput(f"{job.val}: unlabelled photos. Expected DIR/CLASS/*.jpg or labels.txt.")
    return bundle, images


def benchmark_bundle(job: BenchmarkJob, *, progress: Progress = SILENT) -> BundleBenchmark:
    """Latency, frames a second and memory of the compiled file."""
    bundle = job.open()
    facts = bundle.manifest
    model = CompiledModel(facts.backend, bundle.path / facts.model, facts.precision, bundle.preprocess.resolution)
    result = benchmark(BenchmarkRequest({"": model}, EVERYTHING, facts.threads, job.rounds), progress)
    return BundleBenchmark(str(job.bundle), facts.precision, result.metrics[""], device(), result.states, result.noise)
