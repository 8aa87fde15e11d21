"""Post-training INT8 for OpenVINO's scheme, with NNCF: a ladder of remedies, cheapest first.

Weights are symmetric per channel, activations asymmetric per tensor (NNCF's `mixed` preset).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..backends.openvino import save
from ..data.images import PixelFile, Pixels
from ..errors import BadInput
from ..progress import SILENT, Progress

REMEDIES = ("fast bias correction", "full bias correction", "quantile ranges", "accuracy control")
RANKING = 150


def quantize(
    model: Path,
    calibration: PixelFile,
    folder: Path,
    remedy: str,
    *,
    max_drop: float = 0.5,
    on_time: Callable[[], None] = lambda: None,
    progress: Progress = SILENT,
) -> Path:
    """Write the INT8 version of a float IR into `folder`, by one of REMEDIES; returns its main file.

    `accuracy control` first quantizes as `fast bias correction` does, then puts those layers back to float that cost most agreement
    with the float model on calibration photos, until at most `max_drop` percent of these change their label; `on_time` is called
    between its trials, and may raise.
    """
    import openvino

    progress.say(f"quantize: {remedy}, {len(calibration)} calibration photos")
    with quiet_nncf() as nncf:
        float_model = openvino.Core().read_model(model)
        images = list(calibration.batches(1))
        data = nncf.Dataset(images)
        options: dict[str, Any] = {"subset_size": len(images), **_scheme(nncf)}
        if remedy == "accuracy control":
            quantized = _with_accuracy_control(nncf, float_model, data, options, max_drop, on_time)
        else:
            if remedy == "quantile ranges":
                ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MEAN_QUANTILE
                options["advanced_parameters"] = nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges)
            quantized = nncf.quantize(float_model, data, fast_bias_correction=remedy != "full bias correction", **options)
    return save(quantized, folder)


def quantized_blindly(model: Path, image: Pixels, folder: Path) -> Path:
    """INT8 with meaningless ranges, in seconds: to time, never to judge or ship."""
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


def _with_accuracy_control(
    nncf: ModuleType, model: Any, data: Any, options: dict[str, Any], max_drop: float, on_time: Callable[[], None]
) -> Any:
    """Agreement with the float model is the metric, so that neither labels nor validation photos take part."""
    import openvino

    images = list(data.get_inference_data())
    teacher = openvino.Core().compile_model(model, "CPU")
    truth = np.concatenate([teacher(image)[0].argmax(1) for image in images])

    def agreement(candidate: Any, rows: Any) -> tuple[float, list[float]]:
        on_time()
        same = [float(candidate(image)[0].argmax() == truth[i]) for i, image in rows]
        return float(np.mean(same)), same

    numbered = nncf.Dataset(list(enumerate(images)))
    restorer = nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=min(RANKING, len(images)))
    return nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=data,
        validation_dataset=numbered,
        validation_fn=agreement,
        max_drop=max_drop / 100,
        advanced_accuracy_restorer_parameters=restorer,
        **options,
    )


def quantized_layers(model: Path) -> set[str]:
    """Names of the layers of an IR that compute in INT8: those with quantized weights."""
    import openvino

    layers = set()
    for op in openvino.Core().read_model(model).get_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul") and _from_int8(op.input_value(1).get_node()):
            layers.add(op.get_friendly_name().removesuffix("/WithoutBiases"))
    return layers


def _from_int8(node: Any) -> bool:
    """Whether a weight is decompressed from int8: Constant(i8) → Convert → (Subtract →) Multiply (→ Reshape)."""
    while node.get_type_name() in ("Multiply", "Subtract", "Reshape", "Convert"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in ("i8", "u8")


@contextlib.contextmanager
def quiet_nncf() -> Iterator[ModuleType]:
    """NNCF without its telemetry, progress bars and log: the variable is its own switch, read at import."""
    os.environ["NNCF_CI"] = "1"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        import nncf

        nncf.set_log_level(logging.ERROR)
        yield nncf


def suspicious(calibration: PixelFile) -> None:
    """Refuse photos that would give meaningless ranges."""
    flat = sum(int(np.ptp(image) < 8) for batch in calibration.batches(64) for image in batch)
    if flat > len(calibration) // 2:
        raise BadInput(
            f"{calibration.images.root}: {flat} of {len(calibration)} calibration photos are blank: ranges would be meaningless."
        )
