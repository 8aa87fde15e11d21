"""INT8 as a graph: explicit QuantizeLinear/DequantizeLinear pairs in ONNX, where TensorRT fuses them.

All integers are signed. TensorRT wants zero points of 0; OpenVINO takes any for activations. Pairs stand on the data input and the
weights of each quantized convolution, and on the skip of a residual addition; none on a convolution's output. `tensorrt_lint.py`
checks a graph against TensorRT's rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..files import write_whole
from .onnx import module_path


class Affine(NamedTuple):
    """What makes integers of -128 to 127 of a tensor: `x / scale + zero_point`, rounded."""

    scale: float
    zero_point: int = 0

    @classmethod
    def over(cls, low: float, high: float) -> Affine:
        """The finest for numbers from `low`, at most 0, to `high`, at least 0."""
        scale = max(high - low, 1e-6) / 255
        return cls(scale, round(-128 - low / scale))


class LayerScales(NamedTuple):
    """Of a quantized module: its input's, and the scales of its weights, `(channels,)`, whose zero points are 0."""

    data: Affine
    weights: NDArray[np.float32]


Scales = Mapping[str, LayerScales]
"""By the name of the module."""


def write(float_model: Path, scales: Scales, path: Path) -> Path:
    """Put the pairs into an exported float graph."""
    model = onnx.load(float_model)
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    for node in [n for n in graph.node if n.op_type in ("Conv", "Gemm")]:
        name = module_path(node.name).removeprefix("model.")
        if name not in scales:
            continue
        affine, weight_scales = scales[name]
        weight = numpy_helper.to_array(constants[node.input[1]])
        by_channel = weight_scales.reshape(-1, *[1] * (weight.ndim - 1))
        integers = np.clip(np.rint(weight / by_channel), -127, 127).astype(np.int8)
        graph.initializer.remove(constants.pop(node.input[1]))
        graph.initializer.append(numpy_helper.from_array(integers, node.input[1]))
        position = list(graph.node).index(node)
        graph.node.insert(position, _dequantize(graph, node.input[1], weight_scales, 0, axis=0))
        data, weights = node.input[0], node.input[1]
        node.input[1] = f"{weights}_dequantized"
        if not any(n.name == f"{data}_quantize" for n in graph.node):
            pair = [
                _quantize(graph, data, affine),
                _dequantize(graph, f"{data}_quantized", *affine, output=f"{data}_dequantized"),
            ]
            for n in graph.node:
                if n.op_type in ("Conv", "Gemm", "Add"):
                    n.input[:] = [f"{data}_dequantized" if i == data else i for i in n.input]
            for n in reversed(pair):
                graph.node.insert(_after(graph, data), n)
    del graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    write_whole(path, model.SerializeToString())
    return path


def _after(graph: onnx.GraphProto, tensor: str) -> int:
    return next((i + 1 for i, n in enumerate(graph.node) if tensor in n.output), 0)


def _quantize(graph: onnx.GraphProto, tensor: str, affine: Affine) -> onnx.NodeProto:
    parameters = _parameters(graph, tensor, *affine)
    return helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{tensor}_quantized"], f"{tensor}_quantize")


def _dequantize(
    graph: onnx.GraphProto, tensor: str, scales: Any, zero_point: int, *, axis: int | None = None, output: str = ""
) -> onnx.NodeProto:
    parameters = _parameters(graph, tensor, scales, zero_point)
    node = helper.make_node("DequantizeLinear", [tensor, *parameters], [output or f"{tensor}_dequantized"], f"{tensor}_dequantize")
    if axis is not None:
        node.attribute.append(helper.make_attribute("axis", axis))
    return node


def _parameters(graph: onnx.GraphProto, tensor: str, scales: Any, zero_point: int) -> list[str]:
    scale, zero = f"{tensor}_scale", f"{tensor}_zero_point"
    graph.initializer.append(numpy_helper.from_array(np.asarray(scales, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.full(np.shape(scales), zero_point, np.int8), zero))
    return [scale, zero]


def quantized_layers(path: Path) -> set[str]:
    """Names of the layers that compute in INT8: those whose weights are dequantized."""
    graph = onnx.load(path).graph
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    return {n.name for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in dequantized}
