"""INT8 by NNCF, with accuracy control.

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
from ..data.images import PixelFile
from ..errors import BadInput
from ..progress import SILENT, Progress, debugging

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
RANKING = 150  # photos by which accuracy control ranks layers


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
    layers are put back to float until at most `max_drop` percent of the photos change their label. Where the processor's INT8 sums
    can overflow (`overflows`), weights have half of their range. `check_time` is called before each trial, and may raise.
    """
    import openvino

    with quiet_nncf() as nncf:
        source, images = openvino.Core().read_model(model), list(calibration.batches(1))
        teacher = openvino.Core().compile_model(source, "CPU")
        truth = np.concatenate([teacher(image)[0].argmax(1) for image in images])

        def agreement(candidate: Any, rows: Any) -> tuple[float, list[float]]:
            check_time()
            same = [float(candidate(image)[0].argmax() == truth[i]) for i, image in rows]
            return float(np.mean(same)), same

        progress.say(f"quantize with accuracy control: {len(images)} calibration photos")
        fix = nncf.OverflowFix.ENABLE if overflows else nncf.OverflowFix.FIRST_LAYER
        quantized = nncf.quantize_with_accuracy_control(
            source,
            calibration_dataset=nncf.Dataset(images),
            validation_dataset=nncf.Dataset(list(enumerate(images))),
            validation_fn=agreement,
            max_drop=max_drop / 100,
            subset_size=len(images),
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(RANKING, len(images))
            ),
            **scheme(nncf),
        )
    return save(quantized, folder)


def scheme(nncf: ModuleType) -> dict[str, Any]:
    """What is quantized and how. Squeeze-and-excitation works on a handful of numbers: in INT8 it costs more than it saves."""
    gates = nncf.IgnoredScope(patterns=[".*/se/.*"], validate=False)
    return {"preset": nncf.QuantizationPreset.MIXED, "ignored_scope": gates}


def quantized_layers(model: Path) -> set[str]:
    """Names of the layers of an IR that compute in INT8: those with quantized weights."""
    import openvino

    layers = [op for op in openvino.Core().read_model(model).get_ops() if op.get_type_name() in LAYERS]
    return {op.get_friendly_name().removesuffix("/WithoutBiases") for op in layers if _from_int8(op)}


def _from_int8(layer: Any) -> bool:
    """Whether a layer's weights are decompressed from int8: Constant(i8) → Convert → (Subtract →) Multiply (→ Reshape)."""
    node = layer.input_value(1).get_node()
    while node.get_type_name() in ("Multiply", "Subtract", "Reshape", "Convert"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_element_type().get_type_name() in ("i8", "u8")


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
