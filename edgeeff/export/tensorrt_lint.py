"""Will TensorRT build this graph, and run it in INT8 where it says so? A small function a rule, over an ONNX file.

Here are the rules of any graph: operators, types, shapes, names. Those of INT8 are in `pair_rules.py`. Nothing is repaired.
Operators and types: https://github.com/onnx/onnx-tensorrt/blob/release/10.15-GA/docs/operators.md
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from ..errors import BadInput
from ..files import open_file
from . import parser
from .finding import Finding, Findings, Rule
from .graph_view import DQ, FLOATS, Graph, Q
from .pair_rules import r2, r3, r4, r5, r6, r7, r8, r9, r10, r12, r13, r14, r15, r16, r17, r18, r24, r26

BOUNDS = (  # may be infinite
    *("Clip", "Min", "Max", "Pad", "Where", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsInf", "CastLike"),
)
COMPUTED = (*FLOATS, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)  # types that TensorRT computes in
MODEL_BYTES = 2**31 - 1  # of protobuf; weights may lie in files beside it


def lint(path: Path, tensorrt: tuple[int, ...] = (10, 3), more: Sequence[Rule] = ()) -> list[Finding]:
    """What in a graph that version of TensorRT would refuse, misread or run slowly, errors first. `more`: rules beside these."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > MODEL_BYTES:
            raise BadInput(f"{path}: an ONNX file has 2 GB at most. Save its weights in files beside it, as external data.")
        try:
            graph = Graph(path, tensorrt)
            return sorted((f for rule in (*RULES, *more) for f in rule(graph)), key=lambda f: not f.error)
        except (OSError, BadInput):
            raise
        except Exception as error:  # protobuf, onnx and the rules raise a dozen kinds over a damaged file
            raise BadInput(f"{path}: not an ONNX model ({str(error) or type(error).__name__:.120}).") from error


def require(path: Path, tensorrt: tuple[int, ...] = (10, 3)) -> None:
    """Raise BadInput unless a graph is free of errors."""
    if errors := [f for f in lint(path, tensorrt) if f.error]:
        first = errors[0]
        raise BadInput(f"{path}: {len(errors)} errors, the first: {first.rule}, {first.node}: {first.message}. {first.remedy}.")


def r1(g: Graph) -> Findings:
    """Operators TensorRT's parser knows: ONNX's own, of an opset it reads; fp16 scales came with 19, scales per channel with 13."""
    newest = 25 if g.tensorrt >= (11,) else 24 if g.tensorrt >= (10, 15) else 20
    oldest = 13 if g.pairs else 9
    for n in g.nodes:
        if n.domain not in ("", "ai.onnx"):
            yield Finding("R1", True, n.name, f"{n.domain}.{n.kind} is not ONNX's own", "Export with ONNX's own operators")
    if not oldest <= g.opset <= newest:
        yield Finding(
            "R1", True, "", f"opset {g.opset}: this TensorRT reads {oldest} to {newest}", f"Export with opset {min(newest, 20)}"
        )
    halves = any(g.types.get(n.inputs[1]) == TensorProto.FLOAT16 for n in g.pairs if n.has(1))
    if halves and g.opset < 19:
        yield Finding("R1", True, "", f"fp16 scales in opset {g.opset}: they came with 19", "Export with opset 20")


def r11(g: Graph) -> Findings:
    """Operators that the parser reads: INT8 is Q/DQ pairs around float ones, no sequences. Swish came with TensorRT 11."""
    for n in g.nodes:
        for found, remedy in parser.unread(g, n):
            yield Finding("R11", True, n.name, found, remedy)
    for i in g.sparse:
        yield Finding("R11", True, i, "a sparse initializer is not read", "Store it as a dense one")


def r19(g: Graph) -> Findings:
    """Strongly typed: an operator's inputs are of one type, casts are explicit, declared types and shapes are the inferred ones."""
    try:
        onnx.shape_inference.infer_shapes(g.model, strict_mode=True, check_type=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        yield Finding("R19", True, "", f"shape inference: {_last_line(error)}", "Export again; cast explicitly")
    for n in (n for n in g.of("Conv", "ConvTranspose") if n.has(1)):  # which ONNX's shape inference does not compare
        data, weight = (g.shapes.get(i, []) for i in n.inputs[:2])
        if len(data) > 2 and len(weight) > 2 and data[1] and all(weight[:2]):
            group = n.attribute("group", 1)
            wanted = weight[0] if n.kind == "ConvTranspose" else (weight[1] or 0) * group
            if data[1] != wanted or (weight[0] or 0) % group:
                yield Finding("R19", True, n.name, f"weights {weight} in {group} groups for {data[1]} channels", "Export again")


def r20(g: Graph) -> Findings:
    """Static shapes: dynamic ones are slower and need profiles."""
    for value in (*g.inputs, *g.model.graph.output):
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
        onnx.checker.check_model(g.path, full_check=True)  # of a path: values may lie outside the file
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield Finding("R22", True, "", f"onnx.checker: {_last_line(error)}", "Export again")


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:160]


def r23(g: Graph) -> Findings:
    """Weights, biases and factors are finite: FP16 ends at 65504. Bounds may be infinite, and so may a mask before Softmax."""
    for n in g.nodes:
        if not g.constants.isdisjoint(o for o in n.outputs if o):
            continue  # what reads its result is judged
        mask = n.kind == "Add" and any(c.kind == "Softmax" for c in g.readers(n.outputs[0]))
        for i in n.inputs[:1] if n.kind in (Q, DQ) else n.inputs:
            value = g.constant(i) if g.types.get(i) in (*FLOATS, TensorProto.DOUBLE) else None
            if value is not None and (np.isnan(value).any() or not (mask or n.kind in BOUNDS or np.isfinite(value).all())):
                yield Finding("R23", True, n.name, f"{i} is infinite or not a number", "Keep this layer in float32")


def r25(g: Graph) -> Findings:
    """Types TensorRT computes in. uint8 is read or made by a Cast, at the graph's ends alone; int8 is made by Q; no float64.

    operators.md: "UINT8 is only supported as network input or output"; quantized types "only through quantization".
    """
    ends = {v.name for v in (*g.inputs, *g.model.graph.output)}
    for v in (*g.inputs, *g.model.graph.output):
        if v.type.WhichOneof("value") not in (None, "tensor_type"):
            yield Finding("R25", True, v.name, "is not a tensor", "Export one tensor in, one out")
    for v in g.inputs:
        if (kind := g.types[v.name]) not in (*COMPUTED, TensorProto.UINT8, 0):
            yield Finding("R25", True, v.name, f"{TensorProto.DataType.Name(kind)} is not a type of inputs", "Cast before export")
    for n in g.nodes:
        for name in (*n.inputs, *n.outputs):
            kind = g.types.get(name, 0)
            computed = g.constant(name) is None
            bytes_inside = kind == TensorProto.UINT8 and computed and (n.kind != "Cast" or name not in ends)
            made = name in n.outputs and kind not in (0, *COMPUTED, TensorProto.UINT8) and computed
            if n.kind not in (Q, DQ) and (bytes_inside or made):
                found = f"{TensorProto.DataType.Name(kind)} inside the graph"
                yield Finding("R25", True, n.name, found, "Cast to float first, and compute in float32 or float16")
                break


RULES = (
    *(r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15, r16, r17, r18, r19, r20, r21, r22),
    *(r23, r24, r25, r26),
)
