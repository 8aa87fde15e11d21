"""The linter's rules of INT8: pairs of QuantizeLinear and DequantizeLinear, their scales, where they stand. A function for each.

Most are from NVIDIA's documents, some from reports of failed builds; R7, R24 and R26 are this project's own.
Quantization: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
What is read of a pair: QuantDequantLinearHelper in https://github.com/onnx/onnx-tensorrt/blob/10.1-GA/onnxOpImporters.cpp
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from .finding import Finding, Findings
from .graph_view import DQ, FLOATS, Graph, Node, Q

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
GATES = ("Sigmoid", "HardSigmoid")
ACTIVATIONS = (
    *("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip", "Elu", "Selu", "Celu", "Gelu", "Mish", "Swish", "HardSwish"),
    *("Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign", "Erf", "Mul"),  # Mul: the product of Swish
)


def r2(g: Graph) -> Findings:
    """A zero point is int8 zero. Without one a Q makes uint8 by ONNX and int8 by TensorRT; a DQ reads what it is given by both."""
    for n in g.pairs:
        if not n.has(2):
            if n.kind == Q and n.attribute("output_dtype") != TensorProto.INT8:
                yield Finding("R2", True, n.name, "no zero point: ONNX then means uint8, TensorRT int8", "Add int8 zeros")
            continue
        scale, zero = g.scale(n), g.constant(n.inputs[2])
        if zero is None:
            yield Finding("R2", True, n.name, "the zero point is computed, not constant", "Add int8 zeros")
            continue
        shifted = zero.astype(np.float32).any()
        if zero.dtype != np.int8 or shifted or (scale is not None and zero.size != scale.size):
            found = f"zero point {zero.dtype} {zero.shape}{', not 0' if shifted else ''}"
            yield Finding("R2", True, n.name, found, "Quantize symmetrically, with int8 zeros in the scale's shape")


def r3(g: Graph) -> Findings:
    """A scale that is constant, finite and above 0 in the type it is stored in."""
    for n in g.pairs:
        scale = g.scale(n)
        if scale is None:
            yield Finding("R3", True, n.name, "the scale is computed, not constant", "Quantize statically")
        elif not (scale.size and np.isfinite(scale).all() and (scale > 0).all()):
            yield Finding("R3", True, n.name, "a scale that is not a finite number above 0", "Calibrate on real photos")
        elif not _reaches(1 / scale.astype(np.float64), np.float32):
            yield Finding("R3", True, n.name, "a scale so small that its reciprocal is infinite", "Calibrate on real photos")
        elif not _reaches(127 * scale.astype(np.float64), scale.dtype):
            error = g.weight(n) is not None  # of an activation only the ends are lost
            yield Finding("R3", error, n.name, f"127 steps are beyond {scale.dtype}", "Keep this layer in float32")
        elif scale.dtype == np.float16 and (scale < np.finfo(np.float16).tiny).any():
            yield Finding("R3", False, n.name, "an fp16 scale is subnormal: it has few digits", "Keep this layer in float32")


def _reaches(values: NDArray[Any], dtype: Any) -> bool:
    """Whether values are finite in that type."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype(dtype)).all())


def r4(g: Graph) -> Findings:
    """One float type through a pair: of the tensor, the scale, and what reads it; `output_dtype` says nothing else."""
    for n in g.pairs:
        scale = g.types.get(n.inputs[1]) if n.has(1) else None
        outer = g.types.get(n.inputs[0] if n.kind == Q else n.outputs[0])
        if n.attribute("output_dtype", 0) not in (0, TensorProto.INT8 if n.kind == Q else scale):
            yield Finding("R4", True, n.name, "output_dtype is another type", "Let the zero point and the scale say the types")
        elif scale and (scale not in FLOATS or (outer and scale != outer)):
            names = TensorProto.DataType.Name(scale), TensorProto.DataType.Name(outer or 0)
            yield Finding("R4", True, n.name, f"a scale in {names[0]} for a tensor in {names[1]}", "Store the scale in its type")


def r5(g: Graph) -> Findings:
    """TensorRT quantizes activations per tensor; in blocks it quantizes weights to 4 bits only."""
    for n in g.pairs:
        scale = g.scale(n)
        if scale is not None and scale.size > 1 and g.weight(n) is None:
            yield Finding("R5", True, n.name, "a scale per channel on an activation", "Use one scale for the tensor")
        elif scale is not None and scale.ndim > 1 and scale.size > 1:
            yield Finding("R5", True, n.name, f"scales of shape {scale.shape}", "Use a scale for each output channel")


def r6(g: Graph) -> Findings:
    """Scales per channel name the axis of the output channels: omitted, it means 1 to ONNX and 0 to TensorRT."""
    for n in g.pairs:
        scale, weight = g.scale(n), g.weight(n)
        if scale is None or weight is None or scale.size == 1:
            continue
        axis, expected = n.attribute("axis"), _channel_axes(g, n, weight.ndim)
        counted = None if axis is None or not -weight.ndim <= axis < weight.ndim else axis % weight.ndim
        if counted is None or weight.shape[counted] != scale.size or expected - {counted}:
            found = f"axis {axis} with {scale.size} scales for weights {weight.shape}"
            wanted = "the axis of the output channels" if len(expected) != 1 else f"{min(expected)}"
            yield Finding("R6", True, n.name, found, f"Set axis to {wanted}, with a scale for each output channel")


def _channel_axes(g: Graph, pair: Node, rank: int) -> set[int]:
    """Which axes of weights are the output channels of the layers that read them, directly or transposed."""
    found, waiting = set[int](), [(pair.outputs[0], list(range(rank)))]
    for tensor, axes in waiting:
        for n in g.readers(tensor):
            position = 1 if len(n.inputs) > 1 and g.unquantized(n.inputs[1]) == g.unquantized(tensor) else 0
            if n.kind == "Transpose" and len(waiting) < len(g.nodes):
                waiting.append((n.outputs[0], [axes[i] for i in n.attribute("perm", range(rank)[::-1])]))
            elif n.kind in ("Conv", "ConvTranspose") and position == 1:
                found.add(axes[0 if n.kind == "Conv" else 1])
            elif n.kind == "MatMul" and rank > 1:
                found.add(axes[-1 if position else -2])
            elif n.kind == "Gemm":
                found.add(axes[bool(n.attribute("transB", 0)) ^ 1 if position else bool(n.attribute("transA", 0))])
    return found


def r7(g: Graph) -> Findings:
    """Integer weights from −127 to 127: the same range on both sides of 0, as TensorRT quantizes weights itself."""
    for n in g.pairs:
        weight = g.weight(n)
        if weight is not None and weight.dtype == np.int8 and weight.size and weight.min() < -127:
            yield Finding("R7", True, n.name, "a weight of −128", "Clip weights to −127…127")


def _int8(g: Graph) -> Iterator[tuple[Node, Node, Node]]:
    """Every layer that computes in INT8, with the DequantizeLinear of its data and that of its weights."""
    for n in (n for n in g.of(*LAYERS) if n.has(1)):
        data, weights = (g.dequantizer(i) for i in n.inputs[:2])
        if data is not None and weights is not None:
            yield n, data, weights


def r8(g: Graph) -> Findings:
    """Only int8 is dequantized; biases stay constant floats."""
    for n in g.pairs:
        stored = g.constant(n.inputs[0]) if n.kind == DQ else None
        if stored is not None and stored.dtype != np.int8:
            yield Finding("R8", True, n.name, f"dequantizes {stored.dtype}", "Store weights as int8, biases as float")
    for n, _, _ in _int8(g):
        if n.has(2) and (g.constant(n.inputs[2]) is None or g.types.get(n.inputs[2]) not in FLOATS):
            yield Finding("R8", True, n.name, "the bias is not a float constant", "Store it as a float initializer")


def r9(g: Graph) -> Findings:
    """A layer computes in INT8 when data and weights both are dequantized; one alone is neither."""
    for n in g.of(*LAYERS):
        if len({g.dequantizer(i) is None for i in n.inputs[:2]}) == 2:
            yield Finding("R9", True, n.name, "of data and weights only one is quantized", "Quantize both, or neither")


def r10(g: Graph) -> Findings:
    """Q and DQ come in pairs of one scale: a Q feeds DQs alone, a DQ reads a Q or constant int8, and no Q reads a DQ."""
    for n in g.pairs:
        if n.kind == DQ:
            if g.made_by(n.inputs[0], Q):
                if not _same_scale(g, n, g.producer[n.inputs[0]]):
                    yield Finding("R10", True, n.name, "its scale is not that of the QuantizeLinear", "Give both the same scale")
            elif g.constant(n.inputs[0]) is None:
                yield Finding("R10", True, n.name, "reads neither a QuantizeLinear nor constant int8", "Restore the pair")
            continue
        readers = g.consumers[n.outputs[0]]
        if not readers or n.outputs[0] in g.results or any(c.kind != DQ for c in readers):
            yield Finding("R10", True, n.name, "feeds something else than DequantizeLinear", "Restore the pair")
        if g.made_by(n.inputs[0], DQ):
            error = not _same_scale(g, n, g.producer[n.inputs[0]])
            yield Finding("R10", error, n.name, "quantizes what was only just dequantized", "Remove one of the two pairs")


def _same_scale(g: Graph, n: Node, other: Node) -> bool:
    """Whether two nodes have equal scales along one axis, as far as their types can tell; unknown ones are R3's."""
    one, two = g.scale(n), g.scale(other)
    if one is None or two is None:
        return True
    close = 1e-3 if one.dtype != two.dtype else 0  # a pair may stand where FP16 begins
    same = one.size == two.size and np.allclose(one.ravel().astype(np.float32), two.ravel().astype(np.float32), rtol=close, atol=0)
    rank = len(g.shapes.get(n.inputs[0], ())) or 1
    return bool(same) and (one.size == 1 or n.attribute("axis", 1) % rank == other.attribute("axis", 1) % rank)


def r12(g: Graph) -> Findings:
    """Nothing between an INT8 layer and what fuses with it: no batch norm, in whatever form, and no pair. Float layers take one."""
    layers = {id(n) for n, _, _ in _int8(g)}
    for n in g.of("BatchNormalization"):
        maker, training = g.producer.get(g.unquantized(n.inputs[0])), bool(n.attribute("training_mode", 0))
        found = "a batch norm in training" if training else "a batch norm is left"
        yield Finding("R12", training or id(maker) in layers, n.name, found, "Fold it into its convolution")
    for n in g.of(*LAYERS):
        kinds = "".join("*" if c.kind in ("Mul", "Div") else "+" for c in _by_channel(g, n.outputs[0]))
        if "*" in kinds:
            found = "a batch norm is left as product and sum" if "*+" in kinds else "a factor per channel is left"
            yield Finding("R12", "*+" in kinds and id(n) in layers, n.name, found, "Fold it into the weights")
    for n in g.of(Q):
        maker = g.producer.get(n.inputs[0])
        if maker is not None and any(_fuses(g, maker, c) for c in g.readers(n.outputs[0])):
            yield Finding("R12", True, n.name, f"a pair between {maker.kind} and what fuses with it", "Quantize after it")


def _by_channel(g: Graph, tensor: str) -> list[Node]:
    """The sums and products with a constant per channel that follow a layer, one after the other."""
    found: list[Node] = []
    while len(readers := g.readers(tensor)) == 1 and readers[0] not in found:
        n = readers[0]
        factors = [c for i in n.inputs if (c := g.constant(i)) is not None]
        if n.kind not in ("Add", "Sub", "Mul", "Div") or not any(c.size > 1 for c in factors):
            break
        found.append(n)
        tensor = n.outputs[0]
    return found


def _fuses(g: Graph, maker: Node, reader: Node) -> bool:
    if maker.kind in LAYERS:
        bias = reader.kind == "Add" and any(g.constant(i) is not None for i in reader.inputs)
        return bias or reader.kind in (*ACTIVATIONS, "BatchNormalization")
    return maker.kind == "Pad" and reader.kind == "Conv"


def _gated(g: Graph) -> Iterator[tuple[Node, str, str, str]]:
    """Every product with a gate: node, the gate, the gate's input, what it multiplies."""
    for n in g.of("Mul"):
        gate = next((i for i in n.inputs if g.made_by(g.unquantized(i), *GATES)), None)
        if gate is not None:
            other = next((i for i in n.inputs if i != gate), gate)
            yield n, gate, g.producer[g.unquantized(gate)].inputs[0], other


def r13(g: Graph) -> Findings:
    """Swish fuses when its sigmoid and its product read the same float tensor."""
    for n, gate, source, other in _gated(g):
        swish = g.unquantized(source) == g.unquantized(other)
        if swish and (source != other or g.made_by(gate, DQ) or g.made_by(other, DQ)):
            yield Finding("R13", False, n.name, "a pair inside Swish", "Quantize after its product")


def r14(g: Graph) -> Findings:
    """Of a residual addition the skip is quantized, so that it fuses with the layer that feeds it directly."""
    for n in g.of("Add", "Sum"):
        quantized = [g.unquantized(i) for i in n.inputs if g.made_by(i, DQ)]
        others = [i for i in n.inputs if not g.made_by(i, DQ)]
        if len(n.inputs) != 2 or not quantized:
            continue
        one, two = quantized + others
        branch = g.comes_from(one, two), g.comes_from(two, one)  # of a branch and its skip one comes from the other
        fusing = g.made_by(one, *LAYERS), g.made_by(two, *LAYERS)
        if not others and any((*branch, *fusing)):
            yield Finding("R14", True, n.name, "both inputs of an addition are quantized", "Quantize the skip alone")
        elif others and (branch[0] or (fusing == (True, False) and not branch[1])):
            yield Finding("R14", True, n.name, "the quantized input of an addition is not the skip", "Quantize the skip alone")


def r15(g: Graph) -> Findings:
    """A tensor is quantized once: with two scales it is written twice."""
    steps: dict[str, set[bytes]] = defaultdict(set)
    for n in g.of(Q):
        if (scale := g.scale(n)) is not None:
            steps[n.inputs[0]].add(scale.tobytes())
    for tensor, different in steps.items():
        if len(different) > 1:
            yield Finding("R15", False, tensor, f"quantized with {len(different)} different scales", "Share one scale")


def r16(g: Graph) -> Findings:
    """Squeeze-and-excitation is in one type: its product's inputs are both quantized or neither, and so is its pool."""
    for n, gate, source, other in _gated(g):
        if g.unquantized(source) != g.unquantized(other) and g.made_by(gate, DQ) != g.made_by(other, DQ):
            yield Finding("R16", False, n.name, "one input of a gate's product is quantized", "Quantize both, or neither")
    for n in g.of("GlobalAveragePool", "ReduceMean"):
        if g.made_by(n.inputs[0], DQ) and not any(c.kind == Q for c in g.consumers[n.outputs[0]]):
            yield Finding("R16", False, n.name, "a pool with a quantized input and a float output", "Quantize both, or neither")


def r17(g: Graph) -> Findings:
    """INT8 kernels want 16 channels or more, in multiples of 8; depthwise ones kernels of 3 or more. The stem stays float."""
    for n, _, _ in _int8(g):
        shape = [d or 0 for d in g.shapes.get(n.inputs[1], ())]
        if n.kind == "Gemm" and len(shape) == 2:
            outputs, inputs = shape if n.attribute("transB", 0) else shape[::-1]
            group, kernel = 1, 1
        elif n.kind == "Conv" and len(shape) > 2:
            group = n.attribute("group", 1)
            outputs, inputs, kernel = shape[0], shape[1] * group, shape[2]
        else:
            continue
        if group == 1 and (min(inputs, outputs) < 16 or inputs % 8 or outputs % 8):
            yield Finding("R17", False, n.name, f"{inputs} → {outputs} channels in INT8", "Leave the layer in float")
        if group > 1 and (outputs % 8 or kernel < 3):
            yield Finding("R17", False, n.name, f"depthwise: {outputs} channels, kernel {kernel}", "Leave the layer in float")


def r18(g: Graph) -> Findings:
    """The last pair belongs to a layer; on the output it only costs accuracy."""
    for output in g.model.graph.output:
        if g.made_by(output.name, DQ):
            yield Finding("R18", False, output.name, "the output comes straight from a DequantizeLinear", "Remove that pair")


def r24(g: Graph) -> Findings:
    """A bias in steps of (data scale × weight scale), in which INT8 layers sum, fits into int32, and that product into float32.

    ONNX Runtime and DLA store biases so; TensorRT's GPU kernels add floats, and the layer's sums then vanish beside such a bias.
    In channels whose weights are as good as 0 they may, as in ModelOpt's files: scales below a thousandth of the layer's largest.
    """
    for n, data, weights in _int8(g):
        of_data, of_weights, bias = g.scale(data), g.scale(weights), _bias(g, n)
        if of_data is None or of_weights is None or of_data.size != 1:
            continue
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            steps = of_data.astype(np.float32).item() * of_weights.astype(np.float32).ravel()
        if not np.isfinite(steps).all() or not steps.all():
            yield Finding("R24", True, n.name, "the product of its scales is 0 or infinite", "Calibrate on real photos")
        elif (bias is not None and bias.size in (1, steps.size)) or steps.size == 1:
            reach = np.abs(np.asarray(0 if bias is None else bias, np.float64)).ravel() / steps
            alive = np.broadcast_to(steps > steps.max() / 1000, reach.shape)
            if (reach[alive] > np.iinfo(np.int32).max).any():
                yield Finding("R24", True, n.name, "the bias overflows int32 in steps of its scales", "Raise the scales")


def _bias(g: Graph, layer: Node) -> NDArray[Any] | None:
    """What is added to each channel: an input of the layer, or of the addition behind it."""
    if layer.has(2):
        return g.constant(layer.inputs[2])
    sums = [n for n in g.consumers[layer.outputs[0]] if n.kind == "Add"]
    return next((c for n in sums for i in n.inputs if (c := g.constant(i)) is not None), None)


def r26(g: Graph) -> Findings:
    """A scale fits the float weights that it is for: they neither all round to 0 nor lie, by half, twice beyond its 127 steps.

    Weights that share a scale are taken together; those below a thousandth of the layer's largest may vanish.
    """
    for n in g.of(Q):
        weight, scale, axis = g.constant(n.inputs[0]) if n.inputs else None, g.scale(n), n.attribute("axis", 1)
        if weight is None or scale is None or not (weight.size and scale.size and (scale > 0).all()):
            continue  # R3
        if scale.size > 1 and not (-weight.ndim <= axis < weight.ndim and weight.shape[axis] == scale.size):
            continue  # R6
        channels = np.abs(np.moveaxis(weight, axis, 0) if scale.size > 1 else weight).reshape(scale.size, -1).astype(np.float64)
        steps = channels / scale.reshape(-1, 1).astype(np.float64)
        counts = channels.max(1) > channels.max() / 1000
        if (counts & (steps < 0.5).all(1)).any():
            yield Finding("R26", True, n.name, "weights that all round to 0", "Take the scale from the weights")
        elif (np.median(steps, 1) > 2 * 127).any():
            yield Finding(
                "R26", True, n.name, "weights that lie beyond 127 steps of their scale", "Take the scale from the weights"
            )
