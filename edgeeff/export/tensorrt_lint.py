"""Will TensorRT build this graph, and run it in INT8 where it says so? A small function a rule, over an ONNX file.

Most are from NVIDIA's documentation on explicit quantization and strongly typed networks, some from reports of builds that failed;
R7 is this project's own. Nothing is repaired here.
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..errors import BadInput
from ..files import open_file

Q, DQ = "QuantizeLinear", "DequantizeLinear"
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
GATES = ("Sigmoid", "HardSigmoid")
FUSED = {"Conv": ("Sigmoid", "Mul", "Relu", "Clip", "HardSwish", "HardSigmoid"), "Pad": ("Conv",)}
INTEGER_OPS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
FLOATS = (np.float32, np.float16)


@dataclass(frozen=True)
class Finding:
    """A broken rule: with `error` the graph fails to build or computes something else, otherwise it runs slower than it could."""

    rule: str
    error: bool
    node: str
    message: str
    remedy: str


Findings = Iterator[Finding]
Rule = Callable[["Graph"], Findings]
MODEL_BYTES = 10_000_000_000


def lint(path: Path, tensorrt: tuple[int, ...] = (10, 3), more: Sequence[Rule] = ()) -> list[Finding]:
    """What in a graph that version of TensorRT would refuse, misread or run slowly, errors first. `more`: rules beside these."""
    with open_file(path, MODEL_BYTES):
        try:
            graph = Graph(onnx.load(path), tensorrt)
            return sorted((f for rule in (*RULES, *more) for f in rule(graph)), key=lambda f: not f.error)
        except OSError:
            raise
        except Exception as error:  # protobuf, onnx and the rules raise a dozen kinds over a damaged file
            raise BadInput(f"{path}: not an ONNX model ({str(error) or type(error).__name__:.120}).") from error


def require(path: Path, tensorrt: tuple[int, ...] = (10, 3)) -> None:
    """Raise BadInput unless a graph is free of errors."""
    if errors := [f for f in lint(path, tensorrt) if f.error]:
        first = errors[0]
        raise BadInput(f"{path}: {len(errors)} errors, the first: {first.rule}, {first.node}: {first.message}. {first.remedy}.")


class Graph:
    """An ONNX model with what the rules look up in it: constants, producers, consumers, types."""

    def __init__(self, model: onnx.ModelProto, tensorrt: tuple[int, ...]) -> None:
        self.model, self.tensorrt = model, tensorrt
        self.nodes = list(model.graph.node)
        self.constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        for n in self.nodes:
            if n.op_type == "Constant":
                value = helper.get_node_attr_value(n, n.attribute[0].name)
                self.constants[n.output[0]] = (
                    numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
                )
        self.producer = {o: n for n in self.nodes for o in n.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for n in self.nodes:
            for i in n.input:
                self.consumers[i].append(n)
        self.pairs = [n for n in self.nodes if n.op_type in (Q, DQ)]
        self.layers = [n for n in self.nodes if n.op_type in LAYERS]
        self.types = _types(model)

    @property
    def opset(self) -> int:
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 0)

    def made_by(self, tensor: str, *kinds: str) -> bool:
        return tensor in self.producer and self.producer[tensor].op_type in kinds

    def scale(self, n: onnx.NodeProto) -> NDArray[Any] | None:
        return self.constants.get(n.input[1])

    def weight(self, n: onnx.NodeProto) -> NDArray[Any] | None:
        """The integers that a DequantizeLinear reads, if they are constant."""
        return self.constants.get(n.input[0])

    def quantized_weight(self, layer: onnx.NodeProto) -> NDArray[Any] | None:
        """A layer's integer weights, if it computes in INT8."""
        if not all(self.made_by(i, DQ) for i in layer.input[:2]):
            return None
        return self.weight(self.producer[layer.input[1]])

    def unquantized(self, tensor: str) -> str:
        """The tensor before any Q/DQ pairs."""
        seen = set[str]()
        while self.made_by(tensor, Q, DQ) and tensor not in seen:  # a damaged graph may go round in a circle
            seen.add(tensor)
            tensor = self.producer[tensor].input[0]
        return tensor

    def comes_from(self, tensor: str, source: str) -> bool:
        """Whether `tensor` is computed from `source`."""
        seen, waiting = set(), [tensor]
        while waiting:
            if (name := waiting.pop()) == source:
                return True
            if name not in seen and name in self.producer:
                waiting.extend(self.producer[name].input)
            seen.add(name)
        return False


def attribute(n: onnx.NodeProto, name: str, default: Any = None) -> Any:
    return next((helper.get_attribute_value(a) for a in n.attribute if a.name == name), default)


def _types(model: onnx.ModelProto) -> dict[str, int]:
    with contextlib.suppress(onnx.shape_inference.InferenceError):  # R19 says so
        model = onnx.shape_inference.infer_shapes(model)
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    return types | {i.name: i.data_type for i in model.graph.initializer}


def r1(g: Graph) -> Findings:
    """Operators TensorRT's parser knows: ONNX's own, of an opset it reads; fp16 scales came with opset 19."""
    newest = 20 if g.tensorrt < (11,) else 25
    if foreign := sorted({o.domain for o in g.model.opset_import} - {"", "ai.onnx"}):
        yield Finding("R1", True, "", f"operators of {', '.join(foreign)}", "Export with ONNX's own operators")
    if not 13 <= g.opset <= newest:
        yield Finding(
            "R1", True, "", f"opset {g.opset}: this TensorRT reads 13 to {newest}", f"Export with opset {min(newest, 20)}"
        )
    halves = any((s := g.scale(n)) is not None and s.dtype == np.float16 for n in g.pairs)
    if halves and g.opset < 19:
        yield Finding("R1", True, "", f"fp16 scales in opset {g.opset}: they came with 19", "Export with opset 20")


def r2(g: Graph) -> Findings:
    """A zero point that is there, and int8 zero: omitted, it means uint8 to ONNX and int8 to TensorRT."""
    for n in g.pairs:
        if len(n.input) != 3 or not n.input[2]:
            yield Finding("R2", True, n.name, "no zero point: ONNX then means uint8, TensorRT int8", "Add int8 zeros")
            continue
        scale, zero = g.scale(n), g.constants.get(n.input[2])
        if zero is None:
            yield Finding("R2", True, n.name, "the zero point is computed, not constant", "Add int8 zeros")
        elif zero.dtype != np.int8 or zero.any() or (scale is not None and zero.shape != scale.shape):
            found = f"zero point {zero.dtype} {zero.shape}{', not 0' if zero.any() else ''}"
            yield Finding("R2", True, n.name, found, "Quantize symmetrically, with int8 zeros in the scale's shape")


def r3(g: Graph) -> Findings:
    """A scale that is constant, finite and above 0 in the type it is stored in."""
    for n in g.pairs:
        scale = g.scale(n)
        if scale is None:
            yield Finding("R3", True, n.name, "the scale is computed, not constant", "Quantize statically")
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield Finding("R3", True, n.name, "a scale that is not a finite number above 0", "Calibrate on real photos")
        elif scale.dtype == np.float16 and (scale < np.finfo(np.float16).tiny).any():
            yield Finding("R3", False, n.name, "an fp16 scale is subnormal: it has few digits", "Keep this layer in float32")


def r4(g: Graph) -> Findings:
    """One float type through a pair: of the tensor, the scale, and what reads it."""
    for n in g.pairs:
        scale = g.types.get(n.input[1])
        outer = g.types.get(n.input[0] if n.op_type == Q else n.output[0])
        if attribute(n, "output_dtype"):
            yield Finding("R4", True, n.name, "output_dtype is set", "Let the zero point and the scale say the types")
        elif scale and outer and scale != outer:
            names = TensorProto.DataType.Name(scale), TensorProto.DataType.Name(outer)
            yield Finding("R4", True, n.name, f"a scale in {names[0]} for a tensor in {names[1]}", "Store the scale in its type")


def r5(g: Graph) -> Findings:
    """TensorRT quantizes activations per tensor."""
    for n in g.pairs:
        scale = g.scale(n)
        if scale is not None and scale.size > 1 and g.weight(n) is None:
            yield Finding("R5", True, n.name, "a scale per channel on an activation", "Use one scale for the tensor")


def r6(g: Graph) -> Findings:
    """Scales per channel name the axis of the output channels: omitted, it means 1, which goes unseen where Cin = Cout."""
    for n in g.pairs:
        scale, weight = g.scale(n), g.weight(n)
        if scale is None or weight is None or scale.size == 1:
            continue
        axis, expected = attribute(n, "axis"), _channel_axis(g, n)
        if axis != expected or weight.shape[expected] != scale.size:
            found = f"axis {axis} with {scale.size} scales for weights {weight.shape}"
            yield Finding("R6", True, n.name, found, f"Set axis to {expected}, with a scale for each output channel")


def _channel_axis(g: Graph, n: onnx.NodeProto) -> int:
    for c in g.consumers[n.output[0]]:
        if c.op_type == "ConvTranspose" or (c.op_type == "Gemm" and not attribute(c, "transB", 0)):
            return 1
    return 0


def r7(g: Graph) -> Findings:
    """Integer weights from −127 to 127: the same range on both sides of 0, as TensorRT quantizes weights itself."""
    for n in g.pairs:
        weight = g.weight(n)
        if weight is not None and weight.dtype == np.int8 and weight.size and weight.min() < -127:
            yield Finding("R7", True, n.name, "a weight of −128", "Clip weights to −127…127")


def r8(g: Graph) -> Findings:
    """Only int8 is dequantized; biases stay constant floats."""
    for n in g.pairs:
        weight = g.weight(n)
        if n.op_type == DQ and weight is not None and weight.dtype != np.int8:
            yield Finding("R8", True, n.name, f"dequantizes {weight.dtype}", "Store weights as int8, biases as float")
    for n in g.layers:
        if len(n.input) > 2 and n.input[2]:
            bias = g.constants.get(n.input[2])
            if bias is None or bias.dtype not in FLOATS:
                yield Finding("R8", True, n.name, "the bias is not a float constant", "Store it as a float initializer")


def r9(g: Graph) -> Findings:
    """A layer computes in INT8 when data and weights both are dequantized; one alone is neither."""
    for n in g.layers:
        if len({g.made_by(i, DQ) for i in n.input[:2]}) == 2:
            yield Finding("R9", True, n.name, "of data and weights only one is quantized", "Quantize both, or neither")


def r10(g: Graph) -> Findings:
    """Q and DQ come in pairs: a Q feeds DQs alone, a DQ reads a Q or constant int8, and none is quantized again at once."""
    for n in g.pairs:
        if n.op_type == DQ:
            if g.weight(n) is None and not g.made_by(n.input[0], Q):
                yield Finding("R10", True, n.name, "reads neither a QuantizeLinear nor constant int8", "Restore the pair")
            continue
        if not g.consumers[n.output[0]] or any(c.op_type != DQ for c in g.consumers[n.output[0]]):
            yield Finding("R10", True, n.name, "feeds something else than DequantizeLinear", "Restore the pair")
        if g.made_by(n.input[0], DQ):
            yield Finding("R10", True, n.name, "quantizes what was only just dequantized", "Remove one of the two pairs")


def r11(g: Graph) -> Findings:
    """Integer operators are not read: INT8 is Q/DQ pairs around float ones. Swish and Gelu nodes came with TensorRT 11."""
    for n in g.nodes:
        if n.op_type in INTEGER_OPS or n.op_type.startswith("QLinear"):
            yield Finding("R11", True, n.name, f"{n.op_type} is not read", "Export Q/DQ pairs around float operators")
        if n.op_type in ("Swish", "Gelu") and g.tensorrt < (11,):
            yield Finding("R11", True, n.name, f"{n.op_type} is read from TensorRT 11 on", "Export it as Sigmoid and Mul")


def r12(g: Graph) -> Findings:
    """Nothing between a convolution and what fuses with it: no batch norm, no pair."""
    for n in g.nodes:
        if n.op_type == "BatchNormalization":
            yield Finding("R12", True, n.name, "a batch norm is left", "Fold it into its convolution")
        before = g.producer.get(n.input[0]) if n.op_type == Q else None
        if before is not None:
            readers = [c for dq in g.consumers[n.output[0]] for c in g.consumers[dq.output[0]]]
            if any(c.op_type in FUSED.get(before.op_type, ()) for c in readers):
                found = f"a pair between {before.op_type} and what fuses with it"
                yield Finding("R12", True, n.name, found, "Quantize after the activation")


def _gated(g: Graph) -> Iterator[tuple[onnx.NodeProto, str, str, str]]:
    """Every product with a gate: node, the gate, the gate's input, what it multiplies."""
    for n in g.nodes:
        if n.op_type == "Mul":
            gate = next((i for i in n.input if g.made_by(g.unquantized(i), *GATES)), None)
            if gate is not None:
                other = next((i for i in n.input if i != gate), gate)
                yield n, gate, g.producer[g.unquantized(gate)].input[0], other


def r13(g: Graph) -> Findings:
    """Swish fuses when its sigmoid and its product read the same float tensor."""
    for n, gate, source, other in _gated(g):
        swish = g.unquantized(source) == g.unquantized(other)
        if swish and (source != other or g.made_by(gate, DQ) or g.made_by(other, DQ)):
            yield Finding("R13", False, n.name, "a pair inside Swish", "Quantize after its product")


def r14(g: Graph) -> Findings:
    """Of a residual addition the skip is quantized, so that it fuses with the convolution that feeds it directly."""
    for n in g.nodes:
        through = [g.made_by(i, DQ) for i in n.input] if n.op_type == "Add" else []
        if len(through) == 2 and all(through):
            yield Finding("R14", True, n.name, "both inputs of an addition are quantized", "Quantize the skip alone")
        elif any(through):
            skip, branch = n.input if through[0] else reversed(n.input)
            if not g.comes_from(branch, skip):
                yield Finding("R14", True, n.name, "the quantized input of an addition is not the skip", "Quantize the skip alone")


def r15(g: Graph) -> Findings:
    """A tensor is quantized once: with two scales it is written twice."""
    steps: dict[str, set[bytes]] = defaultdict(set)
    for n in g.pairs:
        if n.op_type == Q and (scale := g.scale(n)) is not None:
            steps[n.input[0]].add(scale.tobytes())
    for tensor, different in steps.items():
        if len(different) > 1:
            yield Finding("R15", False, tensor, f"quantized with {len(different)} different scales", "Share one scale")


def r16(g: Graph) -> Findings:
    """Squeeze-and-excitation is in one type: its product's inputs are both quantized or neither, and so is its pool."""
    for n, gate, source, other in _gated(g):
        if g.unquantized(source) != g.unquantized(other) and g.made_by(gate, DQ) != g.made_by(other, DQ):
            yield Finding("R16", False, n.name, "one input of a gate's product is quantized", "Quantize both, or neither")
    for n in g.nodes:
        pool = n.op_type in ("GlobalAveragePool", "ReduceMean") and g.made_by(n.input[0], DQ)
        if pool and not any(c.op_type == Q for c in g.consumers[n.output[0]]):
            yield Finding("R16", False, n.name, "a pool with a quantized input and a float output", "Quantize both, or neither")


def r17(g: Graph) -> Findings:
    """INT8 kernels want 16 channels or more, in multiples of 8; depthwise ones kernels of 3 or more. The stem stays float."""
    for n in g.layers:
        weight = g.quantized_weight(n)
        if weight is None or n.op_type not in ("Conv", "Gemm"):
            continue
        if n.op_type == "Gemm":
            outputs, inputs = weight.shape if attribute(n, "transB", 0) else weight.shape[::-1]
            group, kernel = 1, 1
        else:
            group = attribute(n, "group", 1)
            outputs, inputs, kernel = weight.shape[0], weight.shape[1] * group, weight.shape[2]
        if group == 1 and (min(inputs, outputs) < 16 or inputs % 8 or outputs % 8):
            yield Finding("R17", False, n.name, f"{inputs} → {outputs} channels in INT8", "Leave the layer in float")
        if group > 1 and (outputs % 8 or kernel < 3):
            yield Finding("R17", False, n.name, f"depthwise: {outputs} channels, kernel {kernel}", "Leave the layer in float")


def r18(g: Graph) -> Findings:
    """The last pair belongs to a layer; on the output it only costs accuracy."""
    for output in g.model.graph.output:
        if g.made_by(output.name, DQ):
            yield Finding("R18", False, output.name, "the output comes straight from a DequantizeLinear", "Remove that pair")


def r19(g: Graph) -> Findings:
    """Strongly typed: an operator's inputs are of one type, casts are explicit, declared types and shapes are the inferred ones."""
    try:
        onnx.shape_inference.infer_shapes(g.model, strict_mode=True, check_type=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        yield Finding("R19", True, "", f"shape inference: {_last_line(error)}", "Export again; cast explicitly")


def r20(g: Graph) -> Findings:
    """Static shapes: dynamic ones are slower and need profiles."""
    for value in (*g.model.graph.input, *g.model.graph.output):
        if not all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim):
            yield Finding("R20", True, value.name, "a dimension is not static", "Export for one input size")


def r21(g: Graph) -> Findings:
    """Names by which an engine's layers can be told apart."""
    names = [n.name for n in g.nodes]
    if len(set(names)) < len(names) or "" in names:
        yield Finding("R21", False, "", "node names are empty, or not unique", "Name every node")


def r22(g: Graph) -> Findings:
    """What onnx.checker wants. (That the graph computes what the network does, the fit measures.)"""
    try:
        onnx.checker.check_model(g.model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield Finding("R22", True, "", f"onnx.checker: {_last_line(error)}", "Export again")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:160]


RULES = (r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15, r16, r17, r18, r19, r20, r21, r22)
