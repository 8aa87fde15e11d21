"""What the stages share, made in code for a small network and a few photos."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from edgeeff import Budget, Job
from edgeeff.context import NetworkContext, Photos
from edgeeff.data.calibration import Calibration
from edgeeff.data.images import PixelFile
from edgeeff.files import StageCache
from edgeeff.machine import LOCAL
from edgeeff.measurement.accuracy import Gate
from edgeeff.network.model import EfficientNet, predict
from edgeeff.progress import SILENT
from edgeeff.quantization.strategies import Network
from edgeeff.target import Target


def context_of(
    target: str, pixels: PixelFile, model: EfficientNet, folder: Path, *, agreement: float, seconds: float = 600
) -> tuple[NetworkContext, Network]:
    """The gate asks for agreement with the float network: its labels would mean nothing here."""
    gate = Gate(PixelFile(replace(pixels.images, labels=None, classes=()), pixels.preprocess), max_drop=1, min_agreement=agreement)
    gate.judge("float", predict(model, pixels.preprocess))
    photos = Photos(gate.pixels.images, pixels.images, pixels.images.take(range(34)), None)
    context = NetworkContext(
        job=Job(target, "out", "val", variants=("b0",), weights="w", calib="calib", flip=False),
        target=Target.load(target),
        budget=Budget(),
        recipe=Calibration.load("default"),
        photos=photos,
        machine=LOCAL,
        cache=StageCache(folder),
        progress=SILENT,
        preprocess=pixels.preprocess,
        calibration=pixels,
        gate=gate,
        original=model.variant,
        deadline=time.monotonic() + seconds,
    )
    if context.target.activation != "hardswish":
        context = replace(context, target=replace(context.target, activation="hardswish"))
    return context, Network.export(model, context)
