"""The symmetric INT8 scheme as a graph: explicit QuantizeLinear/DequantizeLinear pairs in ONNX, where TensorRT fuses them.

Pairs stand on the data input and the weights of each quantized convolution, and on the skip of a residual addition; none on a
convolution's output. `lint` checks a graph against TensorRT's rules.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .errors import EdgeeffError
from .export import module_path
from .workspace import write_whole

Steps = dict[str, tuple[float, NDArray[np.float32]]]
"""For each quantized module its activation's step and its weights', `(channels,)`."""

INTEGER_OPS = {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "Swish", "Gelu"}
ACTIVATIONS = {"Sigmoid", "Mul", "Relu", "Clip", "HardSwish", "HardSigmoid"}


def write(float_model: Path, steps: Steps, path: Path) -> Path:
    """Put the pairs into an exported float graph."""
    model = onnx.load(float_model)
    graph = model.graph
    constants = {i.name: i for i in graph.initializer}
    for node in [n for n in graph.node if n.op_type in ("Conv", "Gemm")]:
        name = module_path(node.name).removeprefix("model.")
        if name not in steps:
            continue
        step, weight_steps = steps[name]
        weight = numpy_helper.to_array(constants[node.input[1]])
        by_channel = weight_steps.reshape(-1, *[1] * (weight.ndim - 1))
        integers = np.clip(np.rint(weight / by_channel), -127, 127).astype(np.int8)
        graph.initializer.remove(constants.pop(node.input[1]))
        graph.initializer.append(numpy_helper.from_array(integers, node.input[1]))
        position = list(graph.node).index(node)
        graph.node.insert(position, _dequantize(graph, node.input[1], weight_steps, axis=0))
        data, weights = node.input[0], node.input[1]
        node.input[1] = f"{weights}_dequantized"
        if not any(n.name == f"{data}_quantize" for n in graph.node):
            pair = [
                _quantize(graph, data, step),
                _dequantize(graph, f"{data}_quantized", np.float32(step), output=f"{data}_dequantized"),
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


def _quantize(graph: onnx.GraphProto, tensor: str, step: float) -> onnx.NodeProto:
    parameters = _parameters(graph, tensor, np.float32(step))
    return helper.make_node("QuantizeLinear", [tensor, *parameters], [f"{tensor}_quantized"], f"{tensor}_quantize")


def _dequantize(graph: onnx.GraphProto, tensor: str, steps: Any, *, axis: int | None = None, output: str = "") -> onnx.NodeProto:
    parameters = _parameters(graph, tensor, np.asarray(steps, np.float32))
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    return helper.make_node(
        "DequantizeLinear", [tensor, *parameters], [output or f"{tensor}_dequantized"], f"{tensor}_dequantize", **attributes
    )


def _parameters(graph: onnx.GraphProto, tensor: str, steps: Any) -> list[str]:
    scale, zero = f"{tensor}_scale", f"{tensor}_zero_point"
    graph.initializer.append(numpy_helper.from_array(np.asarray(steps, np.float32), scale))
    graph.initializer.append(numpy_helper.from_array(np.zeros(np.shape(steps), np.int8), zero))
    return [scale, zero]


@dataclass(frozen=True)
class Finding:
    """A broken rule: `error` graphs fail to build or compute something else, others run slower than they could."""

    rule: str
    error: bool
    node: str
    message: str


def quantized_layers(path: Path) -> set[str]:
    """Names of the layers that compute in INT8: those whose weights are dequantized."""
    graph = onnx.load(path).graph
    dequantized = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    return {n.name for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in dequantized}


def lint(path: Path, *, newest_opset: int = 20) -> list[Finding]:
    """What in a graph TensorRT would refuse, misread or run slowly. Sources: NVIDIA's documentation on explicit quantization."""
    return list(Linter(onnx.load(path), newest_opset).findings())


def require(path: Path) -> None:
    """Raise unless a graph is free of errors: one that is not would be this project's fault."""
    if errors := [f for f in lint(path) if f.error]:
        raise EdgeeffError(f"{path}: {len(errors)} errors, the first: {errors[0].rule}, {errors[0].node}: {errors[0].message}.")


class Linter:
    def __init__(self, model: onnx.ModelProto, newest_opset: int) -> None:
        self.model, self.graph, self.newest_opset = model, model.graph, newest_opset
        self.constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        for n in model.graph.node:
            if n.op_type == "Constant":
                self.constants[n.output[0]] = numpy_helper.to_array(helper.get_node_attr_value(n, "value"))
        self.producer = {o: n for n in model.graph.node for o in n.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for n in model.graph.node:
            for i in n.input:
                self.consumers[i].append(n)

    def findings(self) -> Iterator[Finding]:
        yield from self._whole()
        for n in self.graph.node:
            if n.op_type in ("QuantizeLinear", "DequantizeLinear"):
                yield from self._pair(n)
            elif n.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
                yield from self._layer(n)
            elif n.op_type == "Add":
                yield from self._addition(n)
            elif n.op_type == "Mul":
                yield from self._product(n)
            if n.op_type in INTEGER_OPS or n.op_type.startswith("QLinear"):
                yield Finding("R11", True, n.name, f"{n.op_type}: expected Q/DQ pairs around float operators")
            if n.op_type == "BatchNormalization":
                yield Finding("R12", True, n.name, "a batch norm is left: fold it into its convolution")
        yield from self._equal_steps()

    def _whole(self) -> Iterator[Finding]:
        domains = {o.domain: o.version for o in self.model.opset_import}
        if set(domains) - {"", "ai.onnx"}:
            yield Finding("R1", True, "", f"domains {sorted(domains)}: expected ONNX's own")
        opset = domains.get("", domains.get("ai.onnx", 0))
        if not 13 <= opset <= self.newest_opset:
            yield Finding("R1", True, "", f"opset {opset}: expected 13 to {self.newest_opset}")
        halves = any(a.dtype == np.float16 for n, a in self.constants.items() if n in self._scales())
        if halves and opset < 19:
            yield Finding("R1", True, "", f"opset {opset} with fp16 scales: expected 19 or more")
        names = [n.name for n in self.graph.node]
        if len(set(names)) < len(names) or "" in names:
            yield Finding("R21", False, "", "node names are not unique, or empty")
        for value in (*self.graph.input, *self.graph.output):
            if not all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim):
                yield Finding("R20", True, value.name, "a dimension is not static")
        for output in self.graph.output:
            if self._is(output.name, "DequantizeLinear"):
                yield Finding("R18", False, output.name, "the graph's output comes straight from a DequantizeLinear")
        try:
            onnx.shape_inference.infer_shapes(self.model, strict_mode=True, check_type=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            yield Finding("R19", True, "", f"shape inference fails: {str(error).strip().splitlines()[-1]}")
        try:
            onnx.checker.check_model(self.model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            yield Finding("R22", True, "", f"onnx.checker: {str(error).strip().splitlines()[0]}")

    def _scales(self) -> set[str]:
        return {n.input[1] for n in self.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}

    def _pair(self, n: onnx.NodeProto) -> Iterator[Finding]:
        quantize = n.op_type == "QuantizeLinear"
        if len(n.input) != 3:
            yield Finding("R2", True, n.name, "no zero point: ONNX then means uint8, TensorRT int8")
            return
        scale, zero = self.constants.get(n.input[1]), self.constants.get(n.input[2])
        if scale is None or zero is None:
            yield Finding("R3" if scale is None else "R2", True, n.name, "scale and zero point have to be constant")
            return
        if zero.dtype != np.int8 or zero.any() or zero.shape != scale.shape:
            yield Finding("R2", True, n.name, f"zero point {zero.dtype} {zero.shape}: expected int8 zeros {scale.shape}")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            yield Finding("R3", True, n.name, "scale: expected finite numbers above 0")
        elif scale.dtype == np.float16 and (scale < np.finfo(np.float16).tiny).any():
            yield Finding("R3", False, n.name, "an fp16 scale is subnormal")
        if any(a.name == "output_dtype" and a.i for a in n.attribute):
            yield Finding("R4", True, n.name, "output_dtype is set")
        weight = self.constants.get(n.input[0])
        axis = next((a.i for a in n.attribute if a.name == "axis"), None)
        if scale.ndim and scale.size > 1:
            if weight is None:
                yield Finding("R5", True, n.name, "a scale per channel on an activation: expected one for the tensor")
            elif axis is None or weight.shape[axis] != scale.size or axis != self._channel_axis(n):
                yield Finding("R6", True, n.name, f"axis {axis} with {scale.size} scales for weights {weight.shape}")
        if weight is not None:
            if weight.dtype != np.int8:
                yield Finding("R8", True, n.name, f"dequantizes {weight.dtype}: expected int8")
            elif weight.size and weight.min() < -127:
                yield Finding("R7", True, n.name, "a weight of −128: expected −127 to 127")
        if quantize:
            if [c for c in self.consumers[n.output[0]] if c.op_type != "DequantizeLinear"] or not self.consumers[n.output[0]]:
                yield Finding("R10", True, n.name, "consumed by something else than DequantizeLinear")
            before = self.producer.get(n.input[0])
            fused = {"Conv": ACTIVATIONS, "Pad": {"Conv"}}.get(before.op_type, set()) if before is not None else set()
            if before is not None and self._feeds(n.output[0], fused):
                yield Finding("R12", True, n.name, f"between {before.op_type} and what it fuses with")
            if before is not None and before.op_type == "DequantizeLinear":
                yield Finding("R10", True, n.name, "quantizes what was only just dequantized")
        elif weight is None and not self._is(n.input[0], "QuantizeLinear"):
            yield Finding("R10", True, n.name, "fed by neither QuantizeLinear nor constant int8")

    def _feeds(self, quantized: str, kinds: set[str]) -> bool:
        return any(c.op_type in kinds for dq in self.consumers[quantized] for c in self.consumers[dq.output[0]])

    def _channel_axis(self, n: onnx.NodeProto) -> int:
        for c in self.consumers[n.output[0]]:
            if c.op_type == "ConvTranspose":
                return 1
            if c.op_type == "Gemm":
                return 0 if next((a.i for a in c.attribute if a.name == "transB"), 0) else 1
        return 0

    def _layer(self, n: onnx.NodeProto) -> Iterator[Finding]:
        data, weight = (self._is(i, "DequantizeLinear") for i in n.input[:2])
        if data != weight:
            yield Finding("R9", True, n.name, "data and weights: expected both through DequantizeLinear, or neither")
        if len(n.input) > 2:
            bias = self.constants.get(n.input[2])
            if bias is None or bias.dtype not in (np.float32, np.float16):
                yield Finding("R8", True, n.name, "bias: expected a float constant")
        if not (data and weight) or n.op_type not in ("Conv", "Gemm"):
            return
        integers = self.constants.get(self.producer[n.input[1]].input[0])
        if integers is None:
            return
        if n.op_type == "Gemm":
            outputs, inputs, group, kernel = *integers.shape[:2], 1, 1
        else:
            group = next((a.i for a in n.attribute if a.name == "group"), 1)
            outputs, inputs, kernel = integers.shape[0], integers.shape[1] * group, integers.shape[2]
        if group == 1 and (min(inputs, outputs) < 16 or inputs % 8 or outputs % 8):
            yield Finding("R17", False, n.name, f"{inputs} → {outputs} channels: INT8 kernels want 16 or more, in multiples of 8")
        if group > 1 and (outputs % 8 or kernel < 3):
            yield Finding("R17", False, n.name, f"depthwise with {outputs} channels and kernel {kernel}")

    def _addition(self, n: onnx.NodeProto) -> Iterator[Finding]:
        through = [self._is(i, "DequantizeLinear") for i in n.input]
        if all(through):
            yield Finding("R14", True, n.name, "both inputs of a residual addition are quantized: expected the skip alone")
        elif any(through):
            branch = self.producer.get(n.input[through.index(False)])
            if branch is None or branch.op_type != "Conv":
                yield Finding("R14", True, n.name, "the quantized input of a residual addition is not the skip")

    def _product(self, n: onnx.NodeProto) -> Iterator[Finding]:
        gate = next((i for i in n.input if self._is(i, "Sigmoid") or self._is(i, "HardSigmoid")), None)
        other = next((i for i in n.input if i != gate), None)
        if gate is None or other is None:
            return
        source = self.producer[gate].input[0]
        swish = self._is(source, "Conv") and source == other
        if not swish and self._is(other, "DequantizeLinear") != self._is(gate, "DequantizeLinear"):
            rule = "R13" if self._unquantized(other) == source else "R16"
            yield Finding(rule, False, n.name, "one input of the product is quantized, the other is not")

    def _unquantized(self, tensor: str) -> str:
        while self._is(tensor, "DequantizeLinear") or self._is(tensor, "QuantizeLinear"):
            tensor = self.producer[tensor].input[0]
        return tensor

    def _equal_steps(self) -> Iterator[Finding]:
        steps: dict[str, set[bytes]] = defaultdict(set)
        for n in self.graph.node:
            if n.op_type == "QuantizeLinear" and n.input[1] in self.constants:
                steps[n.input[0]].add(self.constants[n.input[1]].tobytes())
        for tensor, different in steps.items():
            if len(different) > 1:
                yield Finding("R15", False, tensor, f"quantized with {len(different)} different scales")

    def _is(self, tensor: str, kind: str) -> bool:
        return tensor in self.producer and self.producer[tensor].op_type == kind
