"""Post-training INT8 for OpenVINO's scheme, with NNCF.

Weights are symmetric per channel, activations asymmetric per tensor (NNCF's `mixed` preset).
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..backends.openvino import save
from ..data.images import PixelFile, Pixels
from ..errors import BadInput
from ..progress import SILENT, Progress, debugging
from .overflow import from_int8, layers, refine

RANKING = 150  # photos by which accuracy control ranks layers


def quantize(
    model: Path,
    calibration: PixelFile,
    folder: Path,
    *,
    fast_bias_correction: bool = True,
    quantile_ranges: bool = False,
    overflows: bool = False,
    progress: Progress = SILENT,
) -> Path:
    """Write the INT8 version of a float IR into `folder`; returns its main file.

    Fast bias correction takes each layer's inputs from the float network, full bias correction those that arrive in the quantized
    one. Ranges of activations are minima and maxima, or mean quantiles. Where the processor's INT8 sums can overflow (`overflows`),
    weights are no finer than these allow.
    """
    with quiet_nncf() as nncf:
        data = _Calibration(nncf, model, calibration, overflows)
        if quantile_ranges:
            ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MEAN_QUANTILE
            data.advanced.activations_range_estimator_params = ranges
        progress.say(f"quantize: {len(data.images)} calibration photos")
        quantized = nncf.quantize(
            data.model,
            data.dataset,
            fast_bias_correction=fast_bias_correction,
            advanced_parameters=data.advanced,
            **data.options,
        )
    return data.written(quantized, folder)


def quantize_with_accuracy_control(
    model: Path,
    calibration: PixelFile,
    folder: Path,
    *,
    max_drop: float,
    overflows: bool = False,
    check_time: Callable[[], None] = lambda: None,
    progress: Progress = SILENT,
) -> Path:
    """Write the INT8 version of a float IR in which the layers that cost most agreement with it stay float; returns its main file.

    Agreement with the float model on calibration photos is the metric, so that neither labels nor validation photos take part;
    layers are put back to float until at most `max_drop` percent of the photos change their label. `check_time` is called before
    each trial, and may raise.
    """
    import openvino

    with quiet_nncf() as nncf:
        data = _Calibration(nncf, model, calibration, overflows)
        teacher = openvino.Core().compile_model(data.model, "CPU")
        truth = np.concatenate([teacher(image)[0].argmax(1) for image in data.images])

        def agreement(candidate: Any, rows: Any) -> tuple[float, list[float]]:
            check_time()
            same = [float(candidate(image)[0].argmax() == truth[i]) for i, image in rows]
            return float(np.mean(same)), same

        progress.say(f"quantize with accuracy control: {len(data.images)} calibration photos")
        quantized = nncf.quantize_with_accuracy_control(
            data.model,
            calibration_dataset=data.dataset,
            validation_dataset=nncf.Dataset(list(enumerate(data.images))),
            validation_fn=agreement,
            max_drop=max_drop / 100,
            advanced_quantization_parameters=data.advanced,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(RANKING, len(data.images))
            ),
            **data.options,
        )
    return data.written(quantized, folder)


class _Calibration:
    """What NNCF takes: the float model, the photos one by one, and the scheme."""

    def __init__(self, nncf: ModuleType, model: Path, calibration: PixelFile, overflows: bool) -> None:
        import openvino

        self.source, self.overflows = model, overflows
        self.model = openvino.Core().read_model(model)
        self.images = list(calibration.batches(1))
        self.dataset = nncf.Dataset(self.images)
        fix = nncf.OverflowFix.ENABLE if overflows else nncf.OverflowFix.FIRST_LAYER
        self.advanced = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
        self.options: dict[str, Any] = {"subset_size": len(self.images), **_scheme(nncf)}

    def written(self, quantized: Any, folder: Path) -> Path:
        """The IR of what NNCF made."""
        if self.overflows:
            refine(quantized, self.source, self.images)
        return save(quantized, folder)


def quantize_for_timing(model: Path, image: Pixels, folder: Path) -> Path:
    """INT8 with meaningless ranges, in seconds: to measure latency, never to judge or ship."""
    import openvino

    with quiet_nncf() as nncf:
        advanced = nncf.AdvancedQuantizationParameters(disable_bias_correction=True)
        quantized = nncf.quantize(
            openvino.Core().read_model(model),
            nncf.Dataset([image]),
            subset_size=1,
            advanced_parameters=advanced,
            **_scheme(nncf),
        )
    return save(quantized, folder)


def _scheme(nncf: ModuleType) -> dict[str, Any]:
    """What is quantized and how. Squeeze-and-excitation works on a handful of numbers: in INT8 it costs more than it saves."""
    gates = nncf.IgnoredScope(patterns=[".*/se/.*"], validate=False)
    return {"preset": nncf.QuantizationPreset.MIXED, "ignored_scope": gates}


def quantized_layers(model: Path) -> set[str]:
    """Names of the layers of an IR that compute in INT8: those with quantized weights."""
    import openvino

    every = layers(openvino.Core().read_model(model), ("Convolution", "GroupConvolution", "MatMul"))
    return {name for name, layer in every.items() if from_int8(layer)}


@contextlib.contextmanager
def quiet_nncf() -> Iterator[ModuleType]:
    """NNCF without progress bars and log unless debugging. What it prints never reaches standard output."""
    output = sys.stderr if debugging() else io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        import nncf

        nncf.set_log_level(logging.INFO if debugging() else logging.ERROR)
        yield nncf


def refuse_blank(calibration: PixelFile) -> None:
    """Refuse photos that would give meaningless ranges."""
    flat = sum(int(np.ptp(image) < 8) for batch in calibration.batches(64) for image in batch)
    if flat > len(calibration) // 2:
        raise BadInput(
            f"{calibration.images.root}: {flat} of {len(calibration)} calibration photos are blank: ranges would be meaningless."
        )
