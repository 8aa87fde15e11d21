"""Graphs in the forms that other exporters write: the bad ones are refused, each by the rule that says why, and the good ones pass.

They are written in ONNX's textual syntax. https://onnx.ai/onnx/repo-docs/Syntax.html
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper, parser

from edgeeff import BadInput
from edgeeff.backends import tensorrt
from edgeeff.export.tensorrt_lint import lint

RNG = np.random.default_rng(0)
FLOATS = RNG.normal(0, 1, (16, 16)).astype(np.float32)
INTEGERS = RNG.integers(-127, 128, (16, 16)).astype(np.int8)
PLANES = "float[1,16,8,8]"
ROWS = "float[4,16]"
CONSTANTS: dict[str, Any] = {
    "s": np.float32(0.1),
    "s2": np.float32(0.2),
    "z": np.int8(0),
    "ws": np.full(16, 0.01, np.float32),
    "wz": np.zeros(16, np.int8),
    "b": np.zeros(16, np.float32),
    "f": FLOATS.reshape(16, 16, 1, 1),  # weights of a convolution, float and int8
    "w": INTEGERS.reshape(16, 16, 1, 1),
    "m": FLOATS,  # those of a product of matrices
    "n": INTEGERS,
    "one": np.float32(1),
    "per": np.linspace(0.5, 1.5, 16, dtype=np.float32).reshape(1, 16, 1, 1),
    "rounds": np.int64(3),
    "always": np.bool_(True),
    "starts": np.zeros(1, np.int64),
    "ends": np.full(1, 4, np.int64),
    "axes": np.ones(1, np.int64),
}
DATA = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) "
WEIGHTS = "wd = DequantizeLinear <axis = 0> (w, ws, wz) "
CONV = DATA + WEIGHTS + "y = Conv (d, wd, b)"
LAYER = DATA + WEIGHTS + "c = Conv (d, wd, b) "
AGAIN = "cq = QuantizeLinear (c, s, z) cd = DequantizeLinear (cq, s, z) "
STEPS = "k = Constant <value = float {0.1}> () l = Constant <value = float {0.2}> () h = Constant <value = int8 {0}> () "
COLUMNS = DATA + "nd = DequantizeLinear <axis = 1> (n, ws, wz) "


def graph(nodes: str, x: str = PLANES, y: str = "", *, opset: int = 20, functions: str = "", **changed: Any) -> ModelProto:
    """x → nodes → y; `changed` constants take the place of CONSTANTS. Nodes are named after their first output."""
    domains = f'"": {opset}' + (', "local": 1' if functions else "")
    text = f"<ir_version: 10, opset_import: [{domains}]> g ({x} x) => ({y or x} y) {{ {nodes} }} {functions}"
    model = parser.parse_model(text)
    words = set(text.replace(",", " ").replace("(", " ").replace(")", " ").split())
    for name, value in (CONSTANTS | changed).items():
        if name in words:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    _name(model.graph)
    return model


def _name(graph: onnx.GraphProto) -> None:
    for n in graph.node:
        n.name = f"{graph.name}.{n.output[0]}"
        for a in n.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                _name(a.g)


def branch(body: str, other: str = "e = Identity (x)") -> str:
    """A condition of which both branches end as float planes; the first holds `body`, which makes t, the second makes e."""
    return (
        "total = ReduceSum <keepdims = 0> (x) yes = Greater (total, one) "
        f"y = If (yes) <then_branch = then () => ({PLANES} t) {{ {body} }}, "
        f"else_branch = otherwise () => ({PLANES} e) {{ {other} }}>"
    )


def loop(body: str) -> str:
    """Three rounds, in each of which `body` makes t of v."""
    body = f"onward = Identity (go) {body}"
    return f"y = Loop (rounds, always, x) <body = round (int64 i, bool go, {PLANES} v) => (bool onward, {PLANES} t) {{ {body} }}>"


def scan(body: str) -> str:
    """`body` makes t of v, a picture of the batch after the other."""
    return f"y = Scan <num_scan_inputs = 1, body = step (float[16,8,8] v) => (float[16,8,8] t) {{ {body} }}> (x)"


def function(body: str) -> str:
    """A local function in which `body` makes o of a."""
    return f'<domain: "local", opset_import: ["": 20, "com.microsoft": 1]> Own (a) => (o) {{ {STEPS} {body} }}'


BAD = {
    # scales per channel along another axis than the output channels
    "Conv, weights along the input channels": ("R6", graph(DATA + "wd = DequantizeLinear <axis = 1> (w, ws, wz) y = Conv (d, wd)")),
    "Conv, the same counted from the end": ("R6", graph(DATA + "wd = DequantizeLinear <axis = -3> (w, ws, wz) y = Conv (d, wd)")),
    "Conv, axis omitted": ("R6", graph(DATA + "wd = DequantizeLinear (w, ws, wz) y = Conv (d, wd)")),
    "Conv, axis beyond the rank": ("R6", graph(DATA + "wd = DequantizeLinear <axis = 4> (w, ws, wz) y = Conv (d, wd)")),
    "Conv, too few scales": ("R6", graph(CONV, ws=np.full(8, 0.01, np.float32), wz=np.zeros(8, np.int8))),
    "Conv, float weights quantized along axis 1": (
        "R6",
        graph(DATA + "wq = QuantizeLinear <axis = 1> (f, ws, wz) wd = DequantizeLinear <axis = 1> (wq, ws, wz) y = Conv (d, wd)"),
    ),
    "ConvTranspose along axis 0": ("R6", graph(DATA + WEIGHTS + "y = ConvTranspose (d, wd)")),
    "MatMul along the rows": ("R6", graph(DATA + "nd = DequantizeLinear <axis = 0> (n, ws, wz) y = MatMul (d, nd)", ROWS)),
    "MatMul along the rows, from the end": (
        "R6",
        graph(DATA + "nd = DequantizeLinear <axis = -2> (n, ws, wz) y = MatMul (d, nd)", ROWS),
    ),
    "MatMul, float weights along the rows": (
        "R6",
        graph(
            DATA + "k = QuantizeLinear <axis = 0> (m, ws, wz) nd = DequantizeLinear <axis = 0> (k, ws, wz) y = MatMul (d, nd)", ROWS
        ),
    ),
    "Gemm along axis 0": ("R6", graph(DATA + "nd = DequantizeLinear <axis = 0> (n, ws, wz) y = Gemm (d, nd)", ROWS)),
    "Gemm, transposed, along axis 1": ("R6", graph(COLUMNS + "y = Gemm <transB = 1> (d, nd)", ROWS)),
    "MatMul of transposed weights along axis 1": (
        "R6",
        graph(COLUMNS + "t = Transpose <perm = [1, 0]> (nd) y = MatMul (d, t)", ROWS),
    ),
    # zero points
    "uint8 zero point": ("R2", graph(CONV, z=np.uint8(0))),
    "zero point that is not 0": ("R2", graph(CONV, z=np.int8(3))),
    "uint8 weights": ("R2", graph(CONV, w=INTEGERS.reshape(16, 16, 1, 1).astype(np.uint8), wz=np.zeros(16, np.uint8))),
    "no zero point": ("R2", graph("q = QuantizeLinear (x, s) d = DequantizeLinear (q, s) " + WEIGHTS + "y = Conv (d, wd, b)")),
    "one zero point of a channel is not 0": ("R2", graph(CONV, wz=np.array([0] * 15 + [1], np.int8))),
    "zero point that is computed": (
        "R2",
        graph("k = Cast <to = 3> (total) total = ReduceMax <keepdims = 0> (x) " + CONV.replace("(x, s, z)", "(x, s, k)")),
    ),
    # scales
    "scale 0": ("R3", graph(CONV, s=np.float32(0))),
    "scale below 0": ("R3", graph(CONV, s=np.float32(-0.1))),
    "infinite scale": ("R3", graph(CONV, s=np.float32(np.inf))),
    "scale NaN": ("R3", graph(CONV, s=np.float32(np.nan))),
    "one scale of a channel 0": ("R3", graph(CONV, ws=np.array([0.01] * 15 + [0], np.float32))),
    "scale that is computed": (
        "R3",
        graph("k = ReduceMax <keepdims = 0> (x) " + CONV.replace("(x, s, z)", "(x, k, z)").replace("(q, s, z)", "(q, k, z)")),
    ),
    "half scale of a float tensor": ("R4", graph(CONV, s=np.float16(0.1))),
    "scale per channel of an activation": ("R5", graph(CONV, s=np.full(16, 0.1, np.float32), z=np.zeros(16, np.int8))),
    "Q and DQ of one pair differ in scale": ("R10", graph(CONV.replace("(q, s, z)", "(q, s2, z)"))),
    "Q and DQ of float weights differ in scale": (
        "R10",
        graph(DATA + "wq = QuantizeLinear (f, s, z) wd = DequantizeLinear (wq, s2, z) y = Conv (d, wd)"),
    ),
    "Q and DQ of weights differ in axis": (
        "R10",
        graph(DATA + "wq = QuantizeLinear <axis = 1> (f, ws, wz) wd = DequantizeLinear <axis = 0> (wq, ws, wz) y = Conv (d, wd)"),
    ),
    # integers
    "weight of -128": ("R7", graph(CONV, w=np.full((16, 16, 1, 1), -128, np.int8))),
    "bias of int32": ("R8", graph(CONV, b=np.zeros(16, np.int32))),
    "bias that is dequantized from int32": (
        "R8",
        graph(DATA + WEIGHTS + "bd = DequantizeLinear (b, ws) y = Conv (d, wd, bd)", b=np.zeros(16, np.int32)),
    ),
    "bias that is computed": (
        "R8",
        graph(DATA + WEIGHTS + "k = ReduceMean <keepdims = 0> (x, axs) y = Conv (d, wd, k)", axs=np.array([0, 2, 3])),
    ),
    "float weights beside int8 data": ("R9", graph(DATA + "y = Conv (d, f)")),
    "int8 weights beside float data": ("R9", graph(WEIGHTS + "y = Conv (x, wd)")),
    "Q that is read by others": ("R10", graph(LAYER + "k = Cast <to = 1> (q) y = Add (c, k)")),
    "DQ of nothing that was quantized": ("R10", graph("k = Cast <to = 3> (x) y = DequantizeLinear (k, s, z)")),
    "quantized twice, otherwise": (
        "R10",
        graph(DATA + "q2 = QuantizeLinear (d, s2, z) d2 = DequantizeLinear (q2, s2, z) " + WEIGHTS + "y = Conv (d2, wd)"),
    ),
    # operators
    "ConvInteger": ("R11", graph("q = QuantizeLinear (x, s, z) k = ConvInteger (q, w) y = Cast <to = 1> (k)")),
    "QLinearConv": (
        "R11",
        graph("q = QuantizeLinear (x, s, z) k = QLinearConv (q, s, z, w, s, z, s, z) y = DequantizeLinear (k, s, z)"),
    ),
    "MatMulInteger": ("R11", graph("q = QuantizeLinear (x, s, z) k = MatMulInteger (q, n) y = Cast <to = 1> (k)", ROWS)),
    "dynamic quantization": ("R11", graph("q, k, o = DynamicQuantizeLinear (x) y = DequantizeLinear (q, k, o)")),
    "MaxPool that gives indices": (
        "R11",
        graph("y, k = MaxPool <kernel_shape = [1, 1]> (x)"),
    ),
    "dilated AveragePool": (
        "R11",
        graph("y = AveragePool <kernel_shape = [2, 2], dilations = [2, 2], pads = [1, 1, 1, 1]> (x)"),
    ),
    "Resize with antialiasing": (
        "R11",
        graph('y = Resize <antialias = 1, mode = "linear"> (x, , k)', k=np.ones(4, np.float32)),
    ),
    "a sequence": ("R11", graph("q = SequenceConstruct (x, x) y = ConcatFromSequence <axis = 0> (q)", y="float[2,16,8,8]")),
    "Swish of opset 24": ("R11", graph("y = Swish (x)", opset=24)),
    "an operator of another domain": ("R1", graph("y = local.Mystery (x)", functions=" ")),
    # between a layer and what fuses with it
    "batch norm": ("R12", graph(LAYER + "y = BatchNormalization (c, b, b, b, v)", v=np.ones(16, np.float32))),
    "batch norm as product and sum": ("R12", graph(LAYER + "k = Mul (c, per) y = Add (k, per)")),
    "batch norm as quotient and difference": ("R12", graph(LAYER + "k = Div (c, per) y = Sub (k, per)")),
    "pair between Conv and Relu": ("R12", graph(LAYER + AGAIN + "y = Relu (cd)")),
    "pair between Conv and LeakyRelu": ("R12", graph(LAYER + AGAIN + "y = LeakyRelu (cd)")),
    "pair between Conv and PRelu": ("R12", graph(LAYER + AGAIN + "y = PRelu (cd, one)")),
    "pair between Conv and HardSwish": ("R12", graph(LAYER + AGAIN + "y = HardSwish (cd)")),
    "pair between Conv and Clip": ("R12", graph(LAYER + AGAIN + "y = Clip (cd, one, s)")),
    "pair between Conv and Elu": ("R12", graph(LAYER + AGAIN + "y = Elu (cd)")),
    "pair between MatMul and its bias": (
        "R12",
        graph(COLUMNS + "c = MatMul (d, nd) " + AGAIN + "y = Add (cd, b)", ROWS),
    ),
    "both sides of an addition": ("R14", graph(LAYER + AGAIN + "y = Add (cd, d)")),
    "the branch of an addition in place of the skip": ("R14", graph(LAYER + AGAIN + "y = Add (cd, x)")),
    # types and shapes
    "float64 inside": ("R25", graph("k = Cast <to = 11> (x) l = Sqrt (k) y = Cast <to = 1> (l)")),
    "float64 from end to end": ("R25", graph("y = Sqrt (x)", "double[1,16,8,8]")),
    "uint8 transposed before its Cast": (
        "R25",
        graph("k = Transpose <perm = [0, 3, 1, 2]> (x) y = Cast <to = 1> (k)", "uint8[1,8,8,3]", "float[1,3,8,8]"),
    ),
    "uint8 sliced before its Cast": (
        "R25",
        graph("k = Slice (x, starts, ends, axes) y = Cast <to = 1> (k)", "uint8[1,8,8,3]", "float[1,4,8,3]"),
    ),
    "uint8 reshaped before its Cast": ("R25", graph("k = Flatten (x) y = Cast <to = 1> (k)", "uint8[1,8,8,3]", "float[1,192]")),
    "int16 inside": ("R25", graph("k = Cast <to = 5> (x) l = Abs (k) y = Cast <to = 1> (l)")),
    "two types in one sum": ("R19", graph("k = Cast <to = 10> (x) y = Add (x, k)")),
    "a dimension that is not static": ("R20", graph("y = Relu (x)", "float[N,16]")),
    # values
    "float16 weight that overflowed": (
        "R23",
        graph("y = Conv (x, f)", "float16[1,16,8,8]", f=np.full((16, 16, 1, 1), np.inf, np.float16)),
    ),
    "float16 bias that overflowed": (
        "R23",
        graph(
            "y = Conv (x, f, b)",
            "float16[1,16,8,8]",
            f=FLOATS.reshape(16, 16, 1, 1).astype(np.float16),
            b=np.full(16, -np.inf, np.float16),
        ),
    ),
    "weight NaN": ("R23", graph("y = Conv (x, f)", f=np.full((16, 16, 1, 1), np.nan, np.float32))),
    "infinite factor": ("R23", graph("y = Mul (x, k)", k=np.float32(np.inf))),
    "weight that a Cast to float16 makes infinite": (
        "R23",
        graph("k = Cast <to = 10> (f) y = Conv (x, k)", "float16[1,16,8,8]", f=np.full((16, 16, 1, 1), 1e6, np.float32)),
    ),
    "bias that overflows int32": ("R24", graph(CONV, b=np.full(16, 1e9, np.float32), ws=np.full(16, 1e-6, np.float32))),
    "product of the scales that is 0": ("R24", graph(CONV, s=np.float32(1e-30), ws=np.full(16, 1e-30, np.float32))),
    "product of the scales that is infinite": ("R24", graph(CONV, s=np.float32(1e30), ws=np.full(16, 1e30, np.float32))),
    # inside a branch
    "a bad pair in the branch of an If": ("R10", graph(branch("q = QuantizeLinear (x, s, z) t = DequantizeLinear (q, s2, z)"))),
    "uint8 zero points in the branch of an If": (
        "R2",
        graph(branch("q = QuantizeLinear (x, s, z) t = DequantizeLinear (q, s, z)"), z=np.uint8(0)),
    ),
    "batch norm in the branch of an If": (
        "R12",
        graph(branch(LAYER + "t = BatchNormalization (c, b, b, b, v)"), v=np.ones(16, np.float32)),
    ),
    "weights along the wrong axis in the branch of an If": (
        "R6",
        graph(branch(DATA + "wd = DequantizeLinear <axis = 1> (w, ws, wz) t = Conv (d, wd)")),
    ),
    "a bad pair in the other branch, whose names are those of the first": (
        "R10",
        graph(
            branch(
                "u = QuantizeLinear (x, s, z) t = DequantizeLinear (u, s, z)",
                "u = QuantizeLinear (x, s, z) e = DequantizeLinear (u, s2, z)",
            )
        ),
    ),
    "Q outside of a branch and its DQ inside differ": (
        "R10",
        graph("q = QuantizeLinear (x, s, z) " + branch("t = DequantizeLinear (q, s2, z)")),
    ),
    "a bad pair in a loop": ("R10", graph(loop("q = QuantizeLinear (v, s, z) t = DequantizeLinear (q, s2, z)"))),
    "pair between Conv and Relu in a loop": ("R12", graph(loop(LAYER.replace("(x,", "(v,") + AGAIN + "t = Relu (cd)"))),
    "uint8 zero points in a scan": (
        "R2",
        graph(scan("q = QuantizeLinear (v, s, z) t = DequantizeLinear (q, s, z)"), z=np.uint8(0)),
    ),
    "a branch inside a loop": (
        "R3",
        graph(
            loop(branch(DATA + WEIGHTS + "a = Conv (d, wd)").replace("y = If", "t = If").replace(" t) {", " a) {")), s=np.float32(0)
        ),
    ),
    "a bad pair in a local function": (
        "R10",
        graph("y = local.Own (x)", functions=function("q = QuantizeLinear (a, k, h) o = DequantizeLinear (q, l, h)")),
    ),
    "another domain in a local function": ("R1", graph("y = local.Own (x)", functions=function("o = com.microsoft.Gelu (a)"))),
    # behind what an exporter leaves: Identity nodes, and arithmetic with constants
    "pair, Identity, LeakyRelu": ("R12", graph(LAYER + AGAIN + "k = Identity (cd) y = LeakyRelu (k)")),
    "Identity between Conv and a pair": (
        "R12",
        graph(LAYER.replace("c =", "k =") + "c = Identity (k) " + AGAIN + "y = LeakyRelu (cd)"),
    ),
    "batch norm of computed factors": (
        "R12",
        graph(LAYER + "k = Add (per, s) l = Sqrt (k) n = Div (per, l) o = Mul (c, n) p = Identity (o) y = Add (p, per)"),
    ),
    "batch norm in four steps": ("R12", graph(LAYER + "k = Sub (c, per) l = Div (k, per) o = Mul (l, per) y = Add (o, per)")),
    "batch norm behind a product of matrices": (
        "R12",
        graph(COLUMNS + "c = MatMul (d, nd) k = Mul (c, v) y = Add (k, v)", ROWS, v=np.ones(16, np.float32)),
    ),
    "scale that is computed to be 0": (
        "R3",
        graph("k = Sub (s, s) " + CONV.replace("(x, s, z)", "(x, k, z)").replace("(q, s, z)", "(q, k, z)")),
    ),
    "weights of two layers, along the axis of one": (
        "R6",
        graph(
            DATA + "nd = DequantizeLinear <axis = 0> (n, ws, wz) k = Gemm <transB = 1> (d, nd) l = MatMul (d, nd) y = Add (k, l)",
            ROWS,
        ),
    ),
    "bias that is added beyond int32": (
        "R24",
        graph(
            DATA + "nd = DequantizeLinear (n, l, z) c = MatMul (d, nd) y = Add (c, k)",
            ROWS,
            l=np.float32(1e-12),
            k=np.full(16, 4, np.float32),
        ),
    ),
    "bias of one channel beyond int32": (
        "R24",
        graph(CONV, b=np.full(16, 4, np.float32), ws=np.array([1e-5] * 15 + [1.5e-8], np.float32)),
    ),
    "uint8 made inside": ("R25", graph("k = Cast <to = 2> (x) y = Cast <to = 1> (k)")),
    "uint8 gathered before its Cast": (
        "R25",
        graph("k = Gather <axis = 1> (x, axes) y = Cast <to = 1> (k)", "uint8[1,8,8,3]", "float[1,1,8,3]"),
    ),
    "float64 in a branch": ("R25", graph(branch("k = Cast <to = 11> (x) l = Relu (k) t = Cast <to = 1> (l)"))),
    "an output that is a sequence": ("R25", graph("y = SequenceConstruct (x)", y=f"seq({PLANES})")),
    "scales of less than fp16 holds": (
        "R3",
        graph(CONV, "float16[1,16,8,8]", s=np.float16(0), ws=np.full(16, 0.01, np.float16), b=np.zeros(16, np.float16)),
    ),
    "a zero point of another size than the scales": ("R2", graph(CONV.replace("ws, wz", "ws, z"))),
    "scales per channel in opset 12": ("R1", graph(DATA + "wd = DequantizeLinear (w, s, z) y = Conv (d, wd)", opset=12)),
    "opset 22 for TensorRT 10.3": ("R1", graph(CONV, opset=22)),
}
GOOD = {
    "int8 weights of a convolution": graph(CONV),
    "the same axis counted from the end": graph(DATA + "wd = DequantizeLinear <axis = -4> (w, ws, wz) y = Conv (d, wd, b)"),
    "float weights, Q, DQ, as NVIDIA's exporters write them": graph(
        DATA + "wq = QuantizeLinear <axis = 0> (f, ws, wz) wd = DequantizeLinear <axis = 0> (wq, ws, wz) y = Conv (d, wd, b)"
    ),
    "float weights with one scale": graph(
        DATA + "wq = QuantizeLinear (f, s, z) wd = DequantizeLinear (wq, s, z) y = Conv (d, wd, b)"
    ),
    "float weights in a Constant": graph(
        DATA + "k = Identity (f) wq = QuantizeLinear <axis = 0> (k, ws, wz) "
        "wd = DequantizeLinear <axis = 0> (wq, ws, wz) y = Conv (d, wd)"
    ),
    "ConvTranspose along axis 1": graph(DATA + "wd = DequantizeLinear <axis = 1> (w, ws, wz) y = ConvTranspose (d, wd)"),
    "MatMul along axis 1": graph(COLUMNS + "y = MatMul (d, nd)", ROWS),
    "MatMul along axis -1": graph(DATA + "nd = DequantizeLinear <axis = -1> (n, ws, wz) y = MatMul (d, nd)", ROWS),
    "MatMul, float weights along axis 1": graph(
        DATA + "k = QuantizeLinear <axis = 1> (m, ws, wz) nd = DequantizeLinear <axis = 1> (k, ws, wz) y = MatMul (d, nd)", ROWS
    ),
    "MatMul of transposed weights along axis 0": graph(
        DATA + "nd = DequantizeLinear <axis = 0> (n, ws, wz) t = Transpose <perm = [1, 0]> (nd) y = MatMul (d, t)", ROWS
    ),
    "Gemm along axis 1": graph(COLUMNS + "y = Gemm (d, nd, b)", ROWS),
    "Gemm, transposed, along axis 0": graph(
        DATA + "nd = DequantizeLinear <axis = 0> (n, ws, wz) y = Gemm <transB = 1> (d, nd, b)", ROWS
    ),
    "MatMul and its bias": graph(COLUMNS + "c = MatMul (d, nd) y = Add (c, b)", ROWS),
    "Gelu of opset 20": graph(LAYER + "y = Gelu (c)"),
    "pair behind Relu": graph(LAYER.replace("c =", "k =") + "c = Relu (k) " + AGAIN + "y = Sigmoid (cd)"),
    "the skip of an addition": graph(LAYER + "y = Add (c, d)"),
    "Swish in float": graph(LAYER + "g = Sigmoid (c) y = Mul (c, g)"),
    "uint8 that is cast first": graph(
        "k = Cast <to = 1> (x) y = Transpose <perm = [0, 3, 1, 2]> (k)", "uint8[1,8,8,3]", "float[1,3,8,8]"
    ),
    "float16 from end to end": graph("y = Conv (x, f)", "float16[1,16,8,8]", f=FLOATS.reshape(16, 16, 1, 1).astype(np.float16)),
    "a clip without upper bound": graph("y = Clip (x, one, k)", k=np.float32(np.inf)),
    "a mask before Softmax": graph("k = Add (x, l) y = Softmax (k)", ROWS, l=np.array([0] * 15 + [-np.inf], np.float32)),
    "a factor for all channels": graph(LAYER + "y = Mul (c, s)"),
    "the branches of an If": graph(branch("t = Relu (x)")),
    "a pair in the branch of an If": graph(branch("q = QuantizeLinear (x, s, z) t = DequantizeLinear (q, s, z)")),
    "a local function": graph(
        "y = local.Gate (x)",
        functions='<domain: "local", opset_import: ["": 20]> Gate (a) => (o) { k = Sigmoid (a) o = Mul (a, k) }',
    ),
    "a local function of a pair": graph(
        "y = local.Own (x)", functions=function("q = QuantizeLinear (a, k, h) r = DequantizeLinear (q, k, h) o = Relu (r)")
    ),
    "a layer in a loop": graph(loop(CONV.replace("(x,", "(v,").replace("y =", "t ="))),
    "branches with names of their own that are alike": graph(
        branch("u = QuantizeLinear (x, s, z) t = DequantizeLinear (u, s, z)", "u = Relu (x) e = Neg (u)")
    ),
    "Identity nodes all over": graph(
        "sa = Identity (s) za = Identity (z) k = QuantizeLinear (x, sa, za) q = Identity (k) l = DequantizeLinear (q, sa, za) "
        "d = Identity (l) r = DequantizeLinear <axis = 0> (w, ws, wz) wd = Identity (r) y = Conv (d, wd)"
    ),
    "a scale that constants are divided to": graph(
        "k = Mul (s, one) " + CONV.replace("(x, s, z)", "(x, k, z)").replace("(q, s, z)", "(q, k, z)")
    ),
    "data that is moved between pair and layer": graph(
        DATA + "k = MaxPool <kernel_shape = [1, 1]> (d) l = Transpose <perm = [0, 1, 3, 2]> (k) " + WEIGHTS + "y = Conv (l, wd)"
    ),
    "pairs of one scale, concatenated": graph(
        DATA + "k = Relu (x) kq = QuantizeLinear (k, s, z) kd = DequantizeLinear (kq, s, z) l = Concat <axis = 2> (d, kd) "
        "nd = DequantizeLinear <axis = 0> (w, ws, wz) y = Conv <strides = [2, 1]> (l, nd)"
    ),
    "a residual addition of two layers, one of them quantized": graph(
        LAYER + AGAIN + "k = Conv (d, wd) y = Add (k, cd)",
    ),
    "a skip that a layer made, around another with a Cast behind": graph(
        LAYER + AGAIN + "k = Conv (cd, wd) l = Cast <to = 10> (k) p = Cast <to = 1> (l) y = Add (p, cd)",
    ),
    "a sum of two tensors without a layer, one of them quantized": graph(
        "k = Abs (x) q = QuantizeLinear (k, s, z) d = DequantizeLinear (q, s, z) l = Exp (x) y = Add (d, l)"
    ),
    "two quantized factors": graph(DATA + "t = Transpose <perm = [1, 0]> (d) y = MatMul (d, t)", ROWS, "float[4,4]"),
    "shapes that are computed in int64": graph(
        "k = Shape (x) l = Gather <axis = 0> (k, starts) r = Concat <axis = 0> (l, rest) y = Reshape (x, r)",
        PLANES,
        "float[1,1024]",
        rest=np.full(1, -1, np.int64),
    ),
    "float64 weights that are cast": graph(
        "k = Cast <to = 1> (f) y = Conv (x, k)", f=FLOATS.reshape(16, 16, 1, 1).astype(np.float64)
    ),
    "uint8 that is made last": graph("k = Relu (x) y = Cast <to = 2> (k)", y="uint8[1,16,8,8]"),
    "depthwise": graph(
        DATA + "wd = DequantizeLinear <axis = 0> (v, ws, wz) y = Conv <group = 16, pads = [1, 1, 1, 1]> (d, wd)",
        v=np.ones((16, 1, 3, 3), np.int8),
    ),
    "a factor of each channel behind the bias, without a sum": graph(
        COLUMNS + "c = MatMul (d, nd) k = Add (c, b) y = Mul (k, v)", ROWS, v=np.ones(16, np.float32)
    ),
    "zero points that are left out of DQ": graph(
        "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s) wd = DequantizeLinear <axis = 0> (w, ws) y = Conv (d, wd, b)"
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_graph_is_refused_by_its_rule(name: str, tmp_path: Path) -> None:
    rule, model = BAD[name]
    onnx.save(model, tmp_path / "bad.onnx")
    found = lint(tmp_path / "bad.onnx")
    assert rule in {f.rule for f in found if f.error}, found


@pytest.mark.parametrize("name", GOOD)
def test_a_good_graph_has_no_errors(name: str, tmp_path: Path) -> None:
    onnx.save(GOOD[name], tmp_path / "good.onnx")
    assert [f for f in lint(tmp_path / "good.onnx") if f.error] == []


JUDGE = """
import os, sys
import tensorrt_rtx_bindings as trt

logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
builder = trt.Builder(logger)
for path in sys.argv[1:]:
    if os.fork() == 0:  # a graph may crash the parser
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        os._exit(0 if trt.OnnxParser(network, logger).parse(open(path, "rb").read()) else 1)
    print(path if os.wait()[1] == 0 else "", flush=True)
"""


@pytest.mark.skipif(not tensorrt.can_rehearse(), reason="TensorRT-RTX is not installed here: pip install 'edgeeff[rtx]'")
def test_nvidias_parser_takes_the_good_graphs(tmp_path: Path) -> None:
    """TensorRT-RTX's: it judges types and operators, not what is computed or how fast."""
    for i, model in enumerate(GOOD.values()):
        onnx.save(model, tmp_path / f"{i}.onnx")
    paths = [str(tmp_path / f"{i}.onnx") for i in range(len(GOOD))]
    taken = subprocess.run([sys.executable, "-c", JUDGE, *paths], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [name for name, path in zip(GOOD, paths, strict=True) if path not in taken] == []


def saved(tmp_path: Path) -> Path:
    """A graph whose weights lie in a file beside it."""
    onnx.save(graph(CONV), tmp_path / "a.onnx", save_as_external_data=True, location="a.weights", size_threshold=0)
    return tmp_path / "a.onnx"


def test_weights_outside_the_file_are_read(tmp_path: Path) -> None:
    assert [f for f in lint(saved(tmp_path)) if f.error] == []


@pytest.mark.parametrize("harm", ["missing", "cut", "elsewhere", "a folder", "a pipe"])
def test_weights_outside_the_file_have_to_be_there_whole(harm: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    weights = tmp_path / "a.weights"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:9])
    elif harm == "elsewhere":
        model = onnx.load(path, load_external_data=False)
        for entry in (e for i in model.graph.initializer for e in i.external_data if e.key == "location"):
            entry.value = "../a.weights"
        path = tmp_path / "inner" / "a.onnx"
        path.parent.mkdir()
        path.write_bytes(model.SerializeToString())
    else:
        weights.unlink()
        if harm != "missing":
            (weights.mkdir if harm == "a folder" else partial(os.mkfifo, weights))()
    with pytest.raises(BadInput, match="external data beside it"):
        lint(path)


def test_a_function_that_calls_itself_is_refused_in_one_line(tmp_path: Path) -> None:
    onnx.save(graph("y = local.Own (x)", functions=function("o = local.Own (a)")), tmp_path / "a.onnx")
    with pytest.raises(BadInput, match="not an ONNX model"):
        lint(tmp_path / "a.onnx")


def test_a_file_beyond_what_protobuf_reads_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.onnx").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(BadInput, match="2 GB at most. Save its weights in files beside it"):
        lint(tmp_path / "a.onnx")
