"""INT8 weights as fine as sums of 16 bits allow, for processors without VNNI instructions.

OpenVINO's kernels there multiply activations of 0 to 255 by weights, and add the products of two neighbouring input channels in one
instruction (vpmaddubsw), which cuts the sum off at 2¹⁵ - 1. Against that NNCF gives all weights half of the range, as if two of the
largest were side by side. Few channels have such a pair. Here the step of each channel is the smallest with which no sum overflows,
about 0.6 of NNCF's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.images import Pixels

LARGEST = 127  # what two neighbours of one sign may add up to before each is rounded: 255 · (127 + 1) < 2¹⁵
SUMMED = ("Convolution", "MatMul")  # not GroupConvolution: a depthwise one has a single input channel
Array = NDArray[np.float32]


def steps(weights: Array) -> Array:
    """The step of each output channel, `(outputs, 1, …)`, for `weights` `(outputs, inputs, …)`."""
    outputs, inputs = weights.shape[:2]
    even = np.concatenate([weights, np.zeros_like(weights[:, : inputs % 2])], axis=1)
    pairs = even.reshape(outputs, even.shape[1] // 2, 2, -1)
    sums = np.maximum(np.maximum(pairs, 0).sum(2), np.maximum(-pairs, 0).sum(2))
    largest = sums.reshape(outputs, -1).max(1).reshape(outputs, *[1] * (weights.ndim - 1))
    return np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)


def refine(quantized: Any, model: Path, images: Sequence[Pixels]) -> None:
    """Give a model that NNCF made of the float IR `model`, with half of the range, finer weights, in place.

    NNCF has taken from the biases what its weights shift the mean outputs by on calibration photos. On the same `images`, each
    `(1, H, W, 3)`, the biases get back what the shift becomes less.
    """
    import openvino
    from openvino import opset13 as ops

    exact = layers(openvino.Core().read_model(model), SUMMED)
    coarse = {name: layer for name, layer in layers(quantized, SUMMED).items() if from_int8(layer)}
    means = _mean_inputs(model, coarse, images)
    for name, layer in coarse.items():
        weights = _constant(exact[name].input_value(1).get_node())
        step = steps(weights)
        whole = np.rint(weights / step)
        scaled = ops.multiply(ops.convert(ops.constant(whole.astype(np.int8)), np.float32), ops.constant(step))
        multiply = layer.input_value(1).get_node()
        before = _constant(multiply.input_value(0).get_node()) * _constant(multiply.input_value(1).get_node())
        layer.input(1).replace_source_output(scaled.output(0))
        shift = (before - whole * step).reshape(*weights.shape[:2], -1).sum(2) @ means[name]
        following = list(layer.output(0).get_target_inputs())
        # OpenVINO adds it to the bias when it compiles the file.
        back = ops.add(layer, ops.constant(shift.astype(np.float32).reshape(1, -1, *step.shape[2:])))
        for each in following:
            each.replace_source_output(back.output(0))


def layers(model: Any, kinds: Collection[str]) -> dict[str, Any]:
    """The operations of some kinds in an OpenVINO model, by their names in the float model."""
    return {op.get_friendly_name().removesuffix("/WithoutBiases"): op for op in model.get_ops() if op.get_type_name() in kinds}


def from_int8(layer: Any) -> bool:
    """Whether a layer's weights are decompressed from int8: Constant(i8) → Convert → (Subtract →) Multiply (→ Reshape)."""
    constant = _source(layer.input_value(1).get_node())
    return constant.get_type_name() == "Constant" and constant.get_element_type().get_type_name() in ("i8", "u8")


def _source(node: Any) -> Any:
    while node.get_type_name() in ("Multiply", "Subtract", "Reshape", "Convert"):
        node = node.input_value(0).get_node()
    return node


def _constant(node: Any) -> Array:
    values: Array = _source(node).get_data().astype(np.float32)
    return values


def _mean_inputs(model: Path, names: Collection[str], images: Sequence[Pixels]) -> dict[str, Array]:
    """The mean of each input channel of the float model's layers of these names, `(inputs,)`."""
    import openvino
    from openvino import opset13 as ops

    network, wanted = openvino.Core().read_model(model), []
    for name, layer in layers(network, SUMMED).items():
        if name in names:
            x = layer.input_value(0)
            others = [axis for axis in range(len(x.get_partial_shape())) if axis != 1]
            wanted.append((name, ops.reduce_mean(x, ops.constant(np.array(others)), keep_dims=False).output(0)))
    first = len(network.outputs)
    network.add_outputs([mean for _, mean in wanted])
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = [compiled(image) for image in images]
    return {name: np.mean([answer[first + i] for answer in answers], axis=0) for i, (name, _) in enumerate(wanted)}
