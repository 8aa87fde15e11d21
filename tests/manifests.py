"""A manifest, and a bundle, made in code: complete, small, and without a fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeeff import Budget, Bundle, Precision, backends, bundle
from edgeeff.data.preprocess import Preprocess
from edgeeff.manifest import AttemptRecord, EngineRecord, FormRecord, Manifest, ReductionRecord, Rehearsal
from edgeeff.measurement.accuracy import StepReport
from edgeeff.measurement.benchmark import Metrics
from edgeeff.measurement.by_class import ClassDrop
from edgeeff.measurement.confidence import Bin, Confidence, Reliability
from edgeeff.measurement.latency import Latency
from edgeeff.measurement.picture_statistics import NAMES, PictureStatistics
from edgeeff.measurement.system_state import Device, SystemState
from edgeeff.measurement.unknown import Share, Unknown

PREPROCESS = Preprocess(32, 36, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
LATENCY = Latency(1.0, 1.5, 2.0, (0.9, 1.1), (1.0, 1.1), (1.4, 1.6), (1.9, 2.1), 3.0, (0.5, 2.5, 3.0, 1.0))
WORST = ClassDrop(3, "three", 20, 95.0, 80.0)
STEP = StepReport("int8", 90.0, 99.0, 0.5, (-0.5, 1.5), 98.0, 200, False, False, 900, 1.5, WORST, 88.0, 0, "int8: class 'three'")
RELIABILITY = Reliability(200, 2.5, 1.5, (Bin(0, 0.0, 0.0), Bin(200, 92.5, 90.0)))
CONFIDENCE = Confidence(2.0, 200, "doubtful", "test", RELIABILITY, RELIABILITY, RELIABILITY)
UNKNOWN = Unknown(0.25, 5.0, 200, Share(100, 4.0, (1.6, 9.8)))
STATISTICS = PictureStatistics(100, **dict.fromkeys(NAMES, (-9.0, 0.25, 0.5, 0.75, 99.0)))
METRICS = Metrics(LATENCY, {"size_mb": 1.25, "fps": 900.0}, {"pi@one": LATENCY})


def small_manifest() -> Manifest:
    """Every field with something in it, of every type that it can have."""
    form = FormRecord(
        precision=Precision.INT8,
        activation="relu6",
        runtime="onnxruntime",
        remedy="accuracy control",
        top1=90.0,
        drop=0.5,
        drop_ci=(-0.5, 1.5),
        agreement=98.0,
        passed=True,
        excluded_layers=("conv_head",),
        left_out=("blocks.1.1",),
        resolution=32,
        file="compiled.onnx",
        metrics=METRICS,
        confidence=CONFIDENCE,
    )
    return Manifest(
        variant="lite0",
        resolution=32,
        classes=10,
        preprocess=PREPROCESS,
        backend="onnxruntime",
        target="host-cpu",
        threads=0,
        model="compiled.onnx",
        precision=Precision.FLOAT32,
        activation="relu6",
        remedy="",
        budget=Budget(latency_ms=5.0, fps=10.0, percentile=90),
        max_drop=0.5,
        max_class_drop=10.0,
        min_agreement=97.0,
        steps=(STEP,),
        ladder=(
            AttemptRecord("accuracy control", "relu6", 1.5, "", 90.0, 0.5, 98.0, True, 32, ("blocks.1.1",)),
            AttemptRecord("x", "relu6", 0.0, "no"),
        ),
        validation_sha256="0" * 64,
        calibration_sha256="1" * 64,
        validation_photos=200,
        calibration_photos=100,
        command="edgeeff fit",
        verdict="Ship float32.",
        device=Device("x86_64", "CPU", "25/17", 2, ("avx2",), "Linux"),
        versions={"edgeeff": "0.1.0"},
        date="2026-01-01T00:00:00+00:00",
        refusals=("b0 is too slow.",),
        reverted_layers=("conv_head",),
        left_out=("blocks.1.1",),
        reductions=(ReductionRecord("blocks.1.1", 0.2, 0.03), ReductionRecord("24 px", 0.5, 0.06)),
        conditions=(SystemState(2, 0.5, 3000.0, 50.0, "performance"),),
        disturbed=("other programs",),
        siblings=(form, replace(form, reference=True, metrics=None)),
        forms=(replace(form, metrics=None),),
        rehearsals=(Rehearsal(Precision.INT8, "built", ("a warning",)),),
        engines=(EngineRecord(Precision.INT8, 0.01, True, "", STEP, 1.5, LATENCY),),
        metrics=METRICS,
        confidence=CONFIDENCE,
        unknown=UNKNOWN,
        calibration_statistics=STATISTICS,
    )


def small_bundle(folder: Path, onnx: Path, backend: str) -> Bundle:
    """A bundle of an exported network of 10 classes at 32 px, compiled by a backend."""
    runtime = backends.get(backend)
    (folder / "compiled").mkdir(parents=True)
    (folder / "bundle").mkdir()
    file = runtime.compile(onnx, folder / "compiled")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    golden = {"images": images, "logits": runtime.load(file, precision=Precision.FLOAT32)(images)}
    facts = replace(small_manifest(), siblings=(), forms=(), rehearsals=(), engines=(), unknown=None)
    manifest = replace(facts, backend=backend, model=file.name)
    bundle.write(folder / "bundle", [*runtime.files(file), onnx], tuple("0123456789"), golden, manifest)
    return Bundle.open(folder / "bundle")
