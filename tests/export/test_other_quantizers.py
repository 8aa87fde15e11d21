"""The linter over what other quantizers write: settings for TensorRT pass, others are refused by the rule that says why.

ONNX Runtime's runs here: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. Of NVIDIA ModelOpt 0.47.0,
which is not installed, modelopt/ has what it made of a small network with Swish, squeeze-and-excitation and skips.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnxruntime import quantization
from onnxruntime.quantization import QuantFormat, QuantType

from edgeeff.export.finding import Finding
from edgeeff.export.tensorrt_lint import lint

NETWORK = """<ir_version: 10, opset_import: ["": 20]> g (float[1,16,8,8] x) => (float[1,16] y) {
    r = Relu (x)
    c = Conv <pads = [1, 1, 1, 1]> (r, w1, b1)
    l = LeakyRelu (c)
    e = Conv (l, w2, b2)
    a = Add (e, r)
    p = GlobalAveragePool (a)
    f = Flatten (p)
    y = Gemm <transB = 1> (f, w3, b3)
}"""
FOR_TENSORRT: dict[str, Any] = {
    "activation_type": QuantType.QInt8,
    "weight_type": QuantType.QInt8,
    "per_channel": True,
    "op_types_to_quantize": ["Conv", "Gemm"],
    "extra_options": {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"],
    },
}


class Batches(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.rest = [{"x": rng.normal(0, 1, (1, 16, 8, 8)).astype(np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.rest.pop() if self.rest else None


@pytest.fixture
def network(tmp_path: Path) -> Path:
    model = parser.parse_model(NETWORK)
    rng = np.random.default_rng(1)
    shapes = {"w1": (16, 16, 3, 3), "w2": (16, 16, 1, 1), "w3": (16, 16), "b1": 16, "b2": 16, "b3": 16}
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), name))
    for n in model.graph.node:
        n.name = f"make_{n.output[0]}"
    onnx.save(model, tmp_path / "float.onnx")
    return tmp_path / "float.onnx"


def quantized(network: Path, **changed: Any) -> list[Finding]:
    """What is wrong with the network in settings that differ from TensorRT's."""
    settings = FOR_TENSORRT | changed
    settings["extra_options"] = FOR_TENSORRT["extra_options"] | changed.get("extra_options", {})
    target = network.with_name("quantized.onnx")
    quantization.quantize_static(network, target, Batches(), **settings)
    return [f for f in lint(target) if f.error]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"per_channel": False},
        {"extra_options": {"AddQDQPairToWeight": True}},
        {"extra_options": {"AddQDQPairToWeight": True, "DedicatedQDQPair": True}},
        {"op_types_to_quantize": ["Gemm"]},
    ],
    ids=["per channel", "per tensor", "float weights", "a pair for each reader", "the last layer alone"],
)
def test_the_settings_for_tensorrt_pass(network: Path, changed: dict[str, Any]) -> None:
    assert quantized(network, **changed) == []


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"activation_type": QuantType.QUInt8}, "R2"),
        ({"extra_options": {"ActivationSymmetric": False}}, "R2"),
        ({"activation_type": QuantType.QUInt8, "weight_type": QuantType.QUInt8}, "R8"),
        ({"activation_type": QuantType.QInt16}, "R1"),
        ({"extra_options": {"QuantizeBias": True}}, "R8"),
        ({"extra_options": {"OpTypesToExcludeOutputQuantization": []}}, "R12"),
        ({"op_types_to_quantize": ["Conv", "Gemm", "Add"]}, "R14"),
        ({"quant_format": QuantFormat.QOperator}, "R11"),
    ],
    ids=["uint8", "asymmetric", "uint8 weights", "int16", "int32 biases", "outputs of layers", "both sides of sums", "QLinear"],
)
def test_other_settings_are_refused_by_the_rule_that_says_why(network: Path, changed: dict[str, Any], rule: str) -> None:
    assert rule in {f.rule for f in quantized(network, **changed)}


def test_dynamic_quantization_is_refused(network: Path) -> None:
    quantization.quantize_dynamic(network, network.with_name("dynamic.onnx"), op_types_to_quantize=["Gemm", "MatMul", "Conv"])
    assert "R11" in {f.rule for f in lint(network.with_name("dynamic.onnx")) if f.error}


def test_what_modelopt_writes_for_a_gpu_passes_and_its_placement_for_dla_is_refused() -> None:
    files = Path(__file__).parent / "modelopt"
    assert not [found for found in lint(files / "entropy.onnx") if found.error]
    refused = {found.rule for found in lint(files / "dla.onnx") if found.error}
    assert refused == {"R12", "R14"}  # pairs between a convolution and its activation, and on both inputs of additions
