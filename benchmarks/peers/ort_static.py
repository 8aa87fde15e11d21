"""ONNX Runtime's own static quantization: `python ort_static.py FLOAT PHOTOS OUT {unsigned,narrow,symmetric,tensorrt}`.

Its pre-processing, Q/DQ pairs, weights per channel, calibration by minima and maxima. `unsigned`: activations in uint8 with a
zero point. `narrow`: the same with weights in 7 bits, as its documentation advises for a CPU without VNNI. `symmetric`:
activations and weights in int8 without a zero point. `tensorrt`: the same with the placement of its examples for TensorRT: no pairs
behind layers, and biases in float. PHOTOS lists the calibration photos.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from judge import pixels
from onnxruntime import InferenceSession
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

TYPES = ["Conv", "Gemm", "Add"]  # for TensorRT


class Photos(CalibrationDataReader):
    """The photos of a list, one at a time."""

    def __init__(self, model: str, photos: str) -> None:
        graph_input = InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0]
        self.name, self.batches = graph_input.name, pixels(Path(photos).read_text().splitlines(), graph_input.shape[1])

    def get_next(self) -> dict | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def main(model: str, photos: str, out: str, scheme: str) -> None:
    symmetric = scheme not in ("unsigned", "narrow")
    options = {"ActivationSymmetric": symmetric, "WeightSymmetric": True}
    if scheme == "tensorrt":
        options |= {"OpTypesToExcludeOutputQuantization": TYPES, "DedicatedQDQPair": True, "QuantizeBias": False}
    with tempfile.TemporaryDirectory() as folder:
        prepared = f"{folder}/prepared.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)  # every shape is static
        quantize_static(
            prepared,
            out,
            Photos(model, photos),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=scheme == "narrow",
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=TYPES if scheme == "tensorrt" else None,
            extra_options=options,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
