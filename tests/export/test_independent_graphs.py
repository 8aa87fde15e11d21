"""Graphs by someone who read NVIDIA's documents and the parser's source, and not the linter: what is wrong in them is found.

Each names the source of its rule, and the rule of the linter that it falls under. They were written before the linter was read;
what turned out to be expected wrongly says so. test_foreign_graphs.py has those of the linter's author.

operators.md, ModelImporter.cpp, onnxOpImporters.cpp: https://github.com/onnx/onnx-tensorrt/tree/10.1-GA
qdq_utils.py: https://github.com/NVIDIA/Model-Optimizer/tree/main/modelopt/onnx/quantization
Placement, types: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from building import Net
from onnx import TensorProto as T
from onnx import helper

from edgeeff.export.tensorrt_lint import lint

INFO = helper.make_tensor_value_info
U8 = [INFO("x", T.UINT8, (1, 8, 8, 16))]
AXIS = "per-channel weights: Conv 0, ConvTranspose 1, MatMul the last, Gemm 0 if transB else 1 (qdq_utils.py, _convert_weight)"
SCALE = "'Scale coefficients must all be positive' (onnxOpImporters.cpp, QuantDequantLinearHelper; TensorRT#2498)"
ZERO = "zero points are int8 zeros (onnxOpImporters.cpp, shiftIsAllZeros; IQuantizeLayer)"
SIZE = "scale: one, or one per channel; zero point of the same volume (onnxOpImporters.cpp, QuantDequantLinearHelper)"
OPS = "operators.md"
PLACE = "TensorRT's recommendations for the placement of Q/DQ"
ONNX = "the ONNX standard"


Build = Callable[[Net], Any]  # gives back the name of the output


def using(build: Build, tensorrt: tuple[int, ...] = (10, 3), **options: Any) -> tuple[Build, tuple[int, ...], dict[str, Any]]:
    """A graph for that version of TensorRT, begun with these options of Net."""
    return build, tensorrt, options


def branches(n, then, other):
    """If of a computed condition, with the two branches that the functions build from x."""
    graphs = []
    for build in (then, other):
        inner = n.body()
        y = build(inner)
        n.count = inner.count
        graphs.append(inner.graph([y], infos=[INFO(y, T.FLOAT, (1, 16, 8, 8))]))
    condition = n.op("Greater", n.op("ReduceMax", "x", keepdims=0), 0.0)
    return n.op("If", condition, then_branch=graphs[0], else_branch=graphs[1])


def loop(n, build, condition=True):
    inner = n.body()
    y = build(inner, "carried")
    n.count = inner.count
    inner.nodes.append(helper.make_node("Identity", ["go"], ["go_on"], name="go_on"))
    body = inner.graph(
        ["go_on", y],
        inputs=[INFO("i", T.INT64, ()), INFO("go", T.BOOL, ()), INFO("carried", T.FLOAT, (1, 16, 8, 8))],
        infos=[INFO("go_on", T.BOOL, ()), INFO(y, T.FLOAT, (1, 16, 8, 8))],
    )
    return n.op(
        "Reshape",
        n.op("Loop", n.const(3, np.int64), n.const(True, np.bool_) if condition else "", "x", body=body),
        n.const([1, 16, 8, 8], np.int64),
    )


def function(n, name, inputs, nodes_of, attributes=(), imports=()):
    inner = n.body()
    y = nodes_of(inner)
    n.count = inner.count
    n.functions.append(
        helper.make_function(
            "local", name, list(inputs), [y], inner.nodes, [helper.make_opsetid("", n.opset), *imports], list(attributes)
        )
    )
    if "local" not in n.domains:
        n.domains.append("local")


def conv_q_and_dq_axes_differ(n):
    w, s, z = (n.const(n.floats(16, 16, 1, 1)), n.const(np.full(16, 0.01)), n.const(np.zeros(16), np.int8))
    return n.conv(weight=n.dq(n.q(w, s, z, axis=0), s, z, axis=1))


def weight_pair_one_scale_differs(n):
    s = np.full(16, 0.01)
    t = s.copy()
    t[5] = 0.02
    return n.conv(weight=n.dq(n.q(n.const(n.floats(16, 16, 1, 1)), s, axis=0), t, axis=0))


def two_dqs_of_one_q_differ(n):
    q = n.q("x")
    return n.op("Add", n.conv(n.dq(q), data=None), n.conv(n.dq(q, 0.1), data=None))


def weight_one_scale_zero(n):
    s = np.full(16, 0.01)
    s[3] = 0
    return n.conv(scale=s)


def zero_point_of_one_channel(n):
    z = np.zeros(16)
    z[9] = -1
    return n.conv(zero=z)


def zero_point_empty_name(n):
    s = n.const(0.05)
    return n.conv(n.op("DequantizeLinear", n.op("QuantizeLinear", "x", s, ""), s, ""), data=None)


def float8_activation(n):
    z = n.const(helper.make_tensor("z", T.FLOAT8E4M3FN, [], [0.0]))
    return n.conv(n.pair("x", zero=z), data=None)


def output_dtype_uint8(n):
    s = n.const(0.05)
    return n.conv(n.op("DequantizeLinear", n.op("QuantizeLinear", "x", s, output_dtype=T.UINT8), s), data=None)


def weight_minus_128(n):
    w = n.ints(16, 16, 1, 1)
    w[0, 0] = -128
    return n.conv(values=w)


def weight_infinite(n):
    w = n.floats(16, 16, 1, 1)
    w[1, 1] = np.inf
    return n.conv(values=w, form="float")


def bias_infinite_by_cast(n):
    h = n.op("Cast", "x", to=T.FLOAT16)
    return n.op("Cast", n.op("Add", h, n.op("Cast", 100000.0, to=T.FLOAT16)), to=T.FLOAT)


def pair_before_sigmoid_alone(n):
    y = n.conv()
    return n.op("Mul", y, n.op("Sigmoid", n.pair(y)))


def residual_wrong_side_in_chain(n):
    a = n.op("Add", n.conv(), n.pair("x"))
    return n.relu(n.op("Add", n.pair(n.conv(n.swish(n.conv(a)))), a))


def int8_output_beside_dq(n):
    q = n.q("x")
    return [n.conv(n.dq(q), data=None), q]


def gate_half_quantized(n):
    y = n.relu(n.conv())
    g = n.op("Sigmoid", n.floatconv(n.relu(n.floatconv(n.op("GlobalAveragePool", y)))))
    return n.conv(n.op("Mul", n.pair(y), g))


def qlinearconv(n):
    z = n.const(0, np.int8)
    return n.dq(n.op("QLinearConv", n.q("x"), 0.05, z, n.const(n.ints(16, 16, 1, 1), np.int8), 0.01, z, 0.1, z), 0.1)


def qlinearmatmul(n):
    z = n.const(0, np.int8)
    return n.dq(n.op("QLinearMatMul", n.q("x"), 0.05, z, n.const(n.ints(16, 16), np.int8), 0.01, z, 0.1, z), 0.1)


def dynamicquantizelinear(n):
    y, s, z = n.op("DynamicQuantizeLinear", "x", outputs=3)
    return n.op("DequantizeLinear", y, s, z)


def sparse_initializer(n):
    y = n.op("Add", n.conv(), "sparse")
    n.outputs = [INFO(y, T.FLOAT, (1, 16, 8, 8))]
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("sparse", T.FLOAT, [1], [2.0]), helper.make_tensor("i", T.INT64, [1], [3]), [1, 16, 8, 8]
    )
    n.edit = lambda m: m.graph.sparse_initializer.append(sparse)
    return y


def string_constant(n):
    n.nodes.append(helper.make_node("Constant", [], ["strings"], name="strings", value_strings=[b"a", b"b"]))
    return [n.conv(), "strings"]


def sparse_constant(n):
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("v", T.FLOAT, [1], [2.0]), helper.make_tensor("i", T.INT64, [1], [3]), [16]
    )
    n.nodes.append(helper.make_node("Constant", [], ["sparse"], name="sparse", sparse_value=sparse))
    return n.op("Add", n.op("Flatten", n.op("GlobalAveragePool", n.conv())), "sparse")


def scale_float16_of_float32(n):
    return n.conv(n.pair("x", n.const(0.05, np.float16)), data=None)


def declared_output_type(n):
    y = n.relu(n.floatconv())
    n.outputs = [INFO(y, T.FLOAT16, (1, 16, 8, 8))]
    return y


def declared_output_shape(n):
    y = n.relu(n.floatconv())
    n.outputs = [INFO(y, T.FLOAT, (1, 16, 4, 4))]
    return y


def name_defined_twice(n):
    n.relu(n.conv())
    n.nodes[-1].output[0] = n.nodes[-2].output[0]
    return n.nodes[-2].output[0]


def cycle(n):
    n.nodes.append(helper.make_node("Add", ["x", "b"], ["a"], name="a"))
    n.nodes.append(helper.make_node("Relu", ["a"], ["b"], name="b"))
    return "b"


def node_names_twice(n):
    y = n.relu(n.conv())
    n.nodes[-1].name = n.nodes[-2].name
    return y


def node_names_empty(n):
    y = n.relu(n.conv())
    for node in n.nodes:
        node.name = ""
    return y


def if_zero_point_outside(n):
    z = n.const(3, np.int8)
    return branches(n, lambda b: b.conv(b.pair("x", zero=z), data=None), lambda b: b.relu("x"))


def if_ranks_differ(n):
    a, b = (n.body(), n.body())
    y = a.relu("x")
    b.count += 5000
    z = b.op("Flatten", "x")
    n.count += 9000
    condition = n.op("Greater", n.op("ReduceMax", "x", keepdims=0), 0.0)
    return n.op(
        "If",
        condition,
        then_branch=a.graph([y], infos=[INFO(y, T.FLOAT, (1, 16, 8, 8))]),
        else_branch=b.graph([z], infos=[INFO(z, T.FLOAT, (1, 1024))]),
    )


def function_scale_zero(n):
    function(n, "block", ["x"], lambda f: f.relu(f.conv(data=0.0)))
    return n.op("block", "x", domain="local")


def function_scale_passed(n):
    function(n, "fake", ["x", "s"], lambda f: f.pair("x", "s"))
    return n.conv(n.op("fake", "x", n.const(0.0), domain="local"), data=None)


def dequantizes_along(n):
    """The local function "dq", whose axis is an attribute of its calls."""

    def build(f):
        z = f.const(np.zeros(16), np.int8)
        y = f.op("DequantizeLinear", "w", "s", z)
        f.nodes[-1].attribute.append(onnx.AttributeProto(name="axis", ref_attr_name="axis", type=onnx.AttributeProto.INT))
        return y

    function(n, "dq", ["w", "s"], build, ["axis"])


def function_axis_passed(n):
    dequantizes_along(n)
    return n.conv(weight=n.op("dq", n.const(n.ints(16, 16, 1, 1), np.int8), np.full(16, 0.01), domain="local", axis=1))


def function_pair_before_relu(n):
    function(n, "fake", ["x"], lambda f: f.pair("x"))
    return n.relu(n.op("fake", n.conv(), domain="local"))


def function_in_function(n):
    function(n, "inner", ["x"], lambda f: f.op("Unique", "x"))
    function(
        n, "outer", ["x"], lambda f: f.op("inner", f.op("Relu", "x"), domain="local"), imports=[helper.make_opsetid("local", 1)]
    )
    return n.op("outer", n.conv(), domain="local")


def scan_zero_point(n):
    inner = n.body()
    y = inner.pair("row", zero=1)
    n.count = inner.count
    body = inner.graph([y], inputs=[INFO("row", T.FLOAT, (16, 8, 8))], infos=[INFO(y, T.FLOAT, (16, 8, 8))])
    return n.op("Scan", "x", body=body, num_scan_inputs=1)


def scale_one_element_zero_point_scalar(n):
    s, z = (n.const([0.05]), n.const(0, np.int8))
    return n.relu(n.conv(n.dq(n.q("x", s, z), s, z), data=None))


def hardswish_by_hardsigmoid(n):
    y = n.conv()
    return n.floatconv(n.op("Mul", y, n.op("HardSigmoid", y, alpha=1 / 6, beta=0.5)))


def hardswish_by_clip(n):
    y = n.conv()
    return n.floatconv(n.op("Mul", n.op("Mul", y, n.op("Clip", n.op("Add", y, 3.0), 0.0, 6.0)), 1 / 6))


def gelu_by_erf(n):
    y = n.conv()
    return n.floatconv(n.op("Mul", n.op("Mul", y, n.op("Add", n.op("Erf", n.op("Div", y, 1.4142)), 1.0)), 0.5))


def gate_in_float(n):
    y = n.swish(n.conv())
    g = n.op("Sigmoid", n.floatconv(n.swish(n.floatconv(n.op("ReduceMean", y, n.const([2, 3], np.int64), keepdims=1)))))
    return n.floatconv(n.relu(n.conv(n.op("Mul", y, g))))


def gate_quantized(n):
    y = n.relu(n.conv())
    g = n.op("Sigmoid", n.floatconv(n.relu(n.floatconv(n.op("GlobalAveragePool", y)))))
    return n.floatconv(n.relu(n.conv(n.op("Mul", n.pair(y), n.pair(g, 0.01)))))


def residual_shares_pair(n):
    x = n.pair(n.relu(n.floatconv()))
    return n.floatconv(n.op("Add", n.conv(n.relu(n.conv(x, data=None))), x))


def float16(n):
    n.dtype = np.float16
    x = n.op("Cast", "x", to=T.FLOAT16)
    return n.op("Cast", n.floatconv(n.swish(n.conv(n.relu(n.floatconv(x))))), to=T.FLOAT)


def flatten_by_shape(n):
    batch = n.op("Gather", n.op("Shape", "x"), n.const(0, np.int64), axis=0)
    shape = n.op("Concat", n.op("Unsqueeze", batch, n.const([0], np.int64)), n.const([-1], np.int64), axis=0)
    return n.op("Reshape", n.relu(n.conv()), shape)


def head(n):
    y = n.op(
        "Gemm",
        n.pair(n.op("Flatten", n.op("GlobalAveragePool", n.relu(n.conv())))),
        n.weight((24, 16), axis=0),
        np.ones(24),
        transB=1,
    )
    return [n.op("Softmax", y, axis=1), n.op("ArgMax", y, axis=1)]


def weight_shared(n):
    w = n.weight((16, 16, 1, 1))
    return n.floatconv(n.relu(n.conv(n.relu(n.conv(weight=w)), weight=w)))


def initializers_as_inputs(n):
    y = n.relu(n.conv())
    n.edit = lambda m: m.graph.input.extend(INFO(t.name, t.data_type, t.dims) for t in m.graph.initializer)
    return y


def output_dtype_int8(n):
    s, z = (n.const(0.05), n.const(0, np.int8))
    return n.relu(n.conv(n.op("DequantizeLinear", n.op("QuantizeLinear", "x", s, z, output_dtype=T.INT8), s, z), data=None))


def function_good(n):
    dequantizes_along(n)
    function(n, "fake", ["x", "s"], lambda f: f.pair("x", "s"))
    return n.relu(
        n.conv(
            n.op("fake", "x", 0.05, domain="local"),
            data=None,
            weight=n.op("dq", n.const(n.ints(16, 16, 1, 1), np.int8), np.full(16, 0.01), domain="local", axis=0),
        )
    )


def function_unused(n):
    function(n, "never", ["x"], lambda f: f.conv(data=0.0))
    return n.relu(n.conv())


REFUSED = {
    ("R6", AXIS): {
        "conv axis 1": lambda n: n.relu(n.conv(axis=1)),
        "conv axis minus 3": using(lambda n: n.relu(n.conv(axis=-3)), constants=True, opset=13, ir=7),
        "conv axis omitted": lambda n: n.conv(weight=n.dq(n.const(n.ints(16, 16, 1, 1), np.int8), np.full(16, 0.01))),
        "conv float weight axis 1": lambda n: n.conv(axis=1, form="float", k=3),
        "depthwise axis omitted": lambda n: n.conv(
            group=16, k=3, weight=n.dq(n.const(n.ints(16, 1, 3, 3), np.int8), np.full(16, 0.01))
        ),
        "grouped conv axis 1": lambda n: n.conv(group=2, axis=1),
        "conv axis out of range": lambda n: n.conv(axis=4, channels=16),
        "conv q and dq axes differ": conv_q_and_dq_axes_differ,
        "conv1d axis 1": using(
            lambda n: n.op("Conv", n.pair("x"), n.weight((16, 16, 3), axis=1), kernel_shape=[3], pads=[1, 1]), shape=(1, 16, 8)
        ),
        "matmul axis 0": using(lambda n: n.op("MatMul", n.pair("x"), n.weight((16, 16), axis=0)), shape=(4, 16)),
        "matmul axis minus 2": using(
            lambda n: n.op("MatMul", n.pair("x"), n.weight((16, 16), axis=-2, form="float")), shape=(4, 16), constants=True
        ),
        "gemm axis 0": using(lambda n: n.op("Gemm", n.pair("x"), n.weight((16, 16), axis=0), np.ones(16)), shape=(4, 16)),
        "gemm transposed axis 1": using(
            lambda n: n.op("Gemm", n.pair("x"), n.weight((16, 16), axis=1), np.ones(16), transB=1), shape=(4, 16)
        ),
        "gemm transposed axis minus 1": using(
            lambda n: n.op("Gemm", n.pair("x"), n.weight((16, 16), axis=-1), np.ones(16), transB=1), shape=(4, 16)
        ),
        "convtranspose axis 0": lambda n: n.conv(kind="ConvTranspose", axis=0),
        "convtranspose axis minus 4": lambda n: n.conv(kind="ConvTranspose", axis=-4),
        "matmul axis 1 before transpose": using(
            lambda n: n.op("MatMul", n.pair("x"), n.op("Transpose", n.weight((16, 16), axis=1), perm=[1, 0])), shape=(4, 16)
        ),
        "conv axis 1 behind identity": lambda n: n.conv(weight=n.op("Identity", n.weight((16, 16, 1, 1), axis=1))),
        "conv axis 0 before transpose": lambda n: n.conv(
            weight=n.op("Transpose", n.weight((16, 16, 1, 1), axis=0), perm=[1, 0, 2, 3])
        ),
    },
    ("R10", "Q and DQ of a pair have one scale (" + PLACE + ")"): {
        "pair scales differ": lambda n: n.conv(n.dq(n.q("x", 0.05), 0.06), data=None),
        "pair scales differ a little": using(lambda n: n.conv(n.dq(n.q("x", 0.05), 0.0502), data=None), constants=True),
        "weight pair one scale differs": weight_pair_one_scale_differs,
        "two dqs of one q differ": two_dqs_of_one_q_differ,
    },
    ("R3", SCALE): {
        "scale zero": lambda n: n.conv(data=0.0),
        "scale negative": using(lambda n: n.conv(data=-0.05), constants=True),
        "scale nan": lambda n: n.conv(data=np.nan),
        "scale zero in float16": using(lambda n: n.conv(data=1e-9), dtype=np.float16),
        "weight one scale zero": weight_one_scale_zero,
        "scale negative by neg": using(lambda n: n.conv(n.pair("x", n.op("Neg", 0.05)), data=None), constants=True, opset=13, ir=8),
        "scale zero behind identity": lambda n: n.conv(n.pair("x", n.op("Identity", 0.0)), data=None),
        "scale zero by cast to float16": lambda n: n.op(
            "Cast", n.op("Relu", n.pair(n.op("Cast", "x", to=T.FLOAT16), n.op("Cast", 1e-9, to=T.FLOAT16))), to=T.FLOAT
        ),
        "scale zero behind reshape": lambda n: n.conv(
            n.pair("x", n.op("Reshape", n.const([0.0]), n.const(np.array([], np.int64), np.int64))), data=None
        ),
    },
    ("R3", "a scale must be finite"): {
        "scale infinite": lambda n: n.conv(data=np.inf),
    },
    ("R3", "1 / 1e-40 is infinite in float32"): {
        "scale denormal": lambda n: n.conv(data=1e-40),
    },
    ("R3", "the scale must be a build-time constant (TensorRT operators: Quantize)"): {
        "scale is an input": using(
            lambda n: n.conv(n.pair("x", "s"), data=None), inputs=[INFO("x", T.FLOAT, (1, 16, 8, 8)), INFO("s", T.FLOAT, ())]
        ),
        "scale is computed": lambda n: n.conv(
            n.pair("x", n.op("Div", n.op("ReduceMax", n.op("Abs", "x"), keepdims=0), 127.0)), data=None
        ),
    },
    ("R3", "'Cannot have scale with no coefficients' (onnx-tensorrt)"): {
        "scale empty": lambda n: n.conv(data=np.zeros(0)),
    },
    ("R3", "float16 ends at 65504: 127 x 600 is infinite"): {
        "weight scale overflows float16": using(
            lambda n: n.conv(scale=np.full(16, 600.0), values=np.full((16, 16, 1, 1), 127)), dtype=np.float16
        ),
    },
    ("R1", "R3 and R4: a float16 scale needs opset 19"): {
        "float16 scale in opset 17": using(lambda n: n.conv(), dtype=np.float16, opset=17),
    },
    ("R2", ZERO): {
        "zero point 3": lambda n: n.conv(n.pair("x", zero=3), data=None),
        "zero point of dq alone": lambda n: n.conv(n.dq(n.q("x"), zero=5), data=None),
        "zero point of one channel": using(zero_point_of_one_channel, constants=True),
        "uint8 activation": lambda n: n.conv(n.pair("x", kind=np.uint8), data=None),
        "uint8 activation 128": using(lambda n: n.conv(n.pair("x", zero=128, kind=np.uint8), data=None), opset=13, ir=7),
        "uint8 weight": lambda n: n.conv(weight=n.weight((16, 16, 1, 1), values=np.ones((16, 16, 1, 1)), kind=np.uint8)),
        "zero point 3 behind cast": lambda n: n.conv(n.pair("x", zero=n.op("Cast", n.const(3, np.int32), to=T.INT8)), data=None),
    },
    ("R2", "only FP8, INT8 and INT4 (onnx-tensorrt)"): {
        "int16 activation": using(lambda n: n.conv(n.pair("x", kind=np.int16), data=None), opset=21, ir=10, tensorrt=(11, 4)),
    },
    ("R2", "an omitted zero point is uint8 in ONNX, int8 in TensorRT (onnx-tensorrt)"): {
        "zero point omitted": lambda n: n.conv(n.pair("x", zero=None), data=None),
        "zero point empty name": using(zero_point_empty_name, opset=13, ir=7, constants=True),
    },
    ("R2", "an Orin has no FP8 (IQuantizeLayer takes INT8, FP8, INT4, FP4)"): {
        "float8 activation": float8_activation,
    },
    ("R2", "INT4 is for blocked weights only (Working with Quantized Types)"): {
        "int4 activation": using(
            lambda n: n.conv(n.pair("x", zero=n.const(helper.make_tensor("z", T.INT4, [], [0]))), data=None),
            opset=21,
            ir=10,
            tensorrt=(11, 4),
        ),
    },
    ("R5", "blocks are for INT4 and FP4 (IQuantizeLayer)"): {
        "blocked int8 weight": using(
            lambda n: n.op(
                "MatMul", n.pair("x"), n.dq(n.const(n.ints(16, 16), np.int8), np.full((4, 16), 0.01), axis=0, block_size=4)
            ),
            opset=21,
            ir=10,
            tensorrt=(11, 4),
            shape=(4, 16),
        ),
    },
    ("R2", "output_dtype must be INT8 (onnx-tensorrt)"): {
        "output dtype uint8": using(output_dtype_uint8, opset=21, ir=10, tensorrt=(11, 4)),
    },
    ("R4", "int32 input of a Q is not of a floating type (operators.md)"): {
        "q of int32": lambda n: n.conv(n.dq(n.q(n.op("Cast", "x", to=T.INT32))), data=None),
    },
    ("R7", "weights reach -127 only (R7)"): {
        "weight minus 128": weight_minus_128,
    },
    ("R2", SIZE): {
        "zero point scalar for 16 scales": lambda n: n.conv(
            weight=n.dq(n.const(n.ints(16, 16, 1, 1), np.int8), np.full(16, 0.01), n.const(0, np.int8), axis=0)
        ),
    },
    ("R6", SIZE): {
        "eight scales for 16 channels": lambda n: n.conv(channels=8),
    },
    ("R5", SIZE): {
        "scale of rank 4": lambda n: n.conv(
            weight=n.dq(n.const(n.ints(16, 16, 1, 1), np.int8), np.full((16, 1, 1, 1), 0.01), axis=0)
        ),
        "scale of rank 2": lambda n: n.conv(weight=n.dq(n.const(n.ints(16, 16, 1, 1), np.int8), np.full((16, 1), 0.01), axis=0)),
    },
    ("R5", "activations are quantized per tensor (Working with Quantized Types)"): {
        "activation per channel": lambda n: n.conv(n.pair("x", np.full(16, 0.05), axis=1), data=None),
        "activation per channel before matmul": using(
            lambda n: n.op("MatMul", n.pair("x", np.full(16, 0.05), axis=-1), n.weight((16, 8), axis=1)), shape=(4, 16)
        ),
    },
    ("R2", "no DQ of int32 (onnx-tensorrt#850, onnxruntime#14229)"): {
        "bias int32": lambda n: n.conv(
            bias=n.dq(n.const(np.ones(16), np.int32), np.full(16, 0.0005), n.const(np.zeros(16), np.int32), axis=0)
        ),
    },
    ("R8", "no DQ of int32"): {
        "bias int32 without zero point": using(
            lambda n: n.conv(bias=n.dq(n.const(np.ones(16), np.int32), 0.0005, None)), opset=13, ir=7
        ),
        "dq of int32 constant": lambda n: n.op("Add", n.conv(), n.dq(n.const(np.ones((1, 16, 1, 1)), np.int32), 0.01, None)),
    },
    ("R8", "a bias must be float (R8)"): {
        "bias int8": lambda n: n.conv(bias=n.dq(n.const(np.ones(16), np.int8), 0.01)),
    },
    ("R24", "bias / (0.05 x 1e-9) is beyond int32"): {
        "bias overflows int32": lambda n: n.conv(scale=np.full(16, 1e-9), bias=1.0),
    },
    ("R23", "a constant must be finite"): {
        "bias nan": lambda n: n.conv(bias=np.nan),
        "weight infinite": using(weight_infinite, constants=True),
        "linear bias infinite": lambda n: n.op("Add", n.conv(), np.full((1, 16, 1, 1), -np.inf)),
    },
    ("R23", "float16 ends at 65504"): {
        "weight infinite in float16": using(
            lambda n: n.floatconv(n.conv("x", weight=n.const(np.full((16, 16, 1, 1), np.inf)), data=None)), dtype=np.float16
        ),
        "bias infinite by cast": bias_infinite_by_cast,
    },
    ("R26", "a scale far below the weights saturates them all"): {
        "weight saturates": lambda n: n.conv(form="float", scale=np.full(16, 1e-4)),
    },
    ("R26", "a scale far above the weights rounds them all to 0"): {
        "weight rounds to zero": lambda n: n.conv(form="float", scale=np.full(16, 100.0)),
    },
    ("R9", "all inputs of a weighted layer, or none (" + PLACE + ")"): {
        "conv weight in float": lambda n: n.conv(weight=n.const(n.floats(16, 16, 1, 1))),
        "conv data in float": lambda n: n.conv(data=None),
        "gemm data in float": using(lambda n: n.op("Gemm", "x", n.weight((16, 16), axis=0), np.ones(16), transB=1), shape=(4, 16)),
        "matmul weight in float": using(lambda n: n.op("MatMul", n.pair("x"), n.floats(16, 16)), shape=(4, 16)),
        "convtranspose data in float": lambda n: n.conv(kind="ConvTranspose", data=None, axis=1),
        "matmul of activations one in float": using(
            lambda n: n.op("MatMul", n.pair("x"), n.op("Transpose", "x", perm=[1, 0])), shape=(4, 16)
        ),
    },
    ("R12", "a BatchNormalization is folded before quantization (R12)"): {
        "batch norm left": lambda n: n.relu(n.op("BatchNormalization", n.conv(), *[n.const(np.ones(16)) for _ in range(4)])),
    },
    ("R12", "a batch norm left as Mul and Add (R12)"): {
        "batch norm as mul add": lambda n: n.relu(
            n.op("Add", n.op("Mul", n.conv(), np.full((1, 16, 1, 1), 1.1)), np.full((1, 16, 1, 1), 0.1))
        ),
    },
    ("R12", "batch norm between DQ and Conv's activation (R12)"): {
        "batch norm behind pair": lambda n: n.relu(
            n.op("BatchNormalization", n.pair(n.conv()), *[n.const(np.ones(16)) for _ in range(4)])
        ),
    },
    ("R12", "no pair between a layer and its activation (" + PLACE + ")"): {
        "pair before relu": lambda n: n.relu(n.pair(n.conv())),
        "pair before clip": lambda n: n.op("Clip", n.pair(n.conv()), 0.0, 6.0),
        "pair before swish": lambda n: n.swish(n.pair(n.conv())),
        "pair before sigmoid alone": using(pair_before_sigmoid_alone, constants=True),
        "pair before hardswish": lambda n: n.op("HardSwish", n.pair(n.conv())),
        "pair between gemm and relu": using(
            lambda n: n.relu(n.pair(n.op("Gemm", n.pair("x"), n.weight((16, 16), axis=0), np.ones(16), transB=1))), shape=(4, 16)
        ),
        "pair before relu behind identity": lambda n: n.relu(n.op("Identity", n.pair(n.op("Identity", n.conv())))),
        "pair between pad and conv": lambda n: n.conv(n.op("Pad", "x", n.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), k=3),
    },
    ("R14", "residual Add: the skip alone is quantized (" + PLACE + ")"): {
        "residual both quantized": lambda n: n.op("Add", n.pair("x"), n.pair(n.conv(n.relu(n.conv())))),
        "residual wrong side quantized": lambda n: n.op("Add", "x", n.pair(n.conv(n.relu(n.conv())))),
        "residual wrong side in chain": using(residual_wrong_side_in_chain, constants=True),
    },
    ("R10", "a Q is followed by DQs only (R10)"): {
        "maxpool of int8": lambda n: n.dq(n.op("MaxPool", n.q("x"), kernel_shape=[2, 2])),
        "transpose of int8": lambda n: n.conv(n.dq(n.op("Transpose", n.q("x"), perm=[0, 1, 3, 2])), data=None),
        "cast of int8": lambda n: n.op("Cast", n.q("x"), to=T.FLOAT),
    },
    ("R10", "the network's outputs are float (R10)"): {
        "int8 output": lambda n: n.q(n.conv()),
        "int8 output beside dq": int8_output_beside_dq,
    },
    ("R10", "a DQ is fed by a Q or by constant int8 (R10)"): {
        "int8 input": using(lambda n: n.conv(n.dq("x"), data=None), inputs=[INFO("x", T.INT8, (1, 16, 8, 8))]),
    },
    ("R10", "DQ, Q with another scale and nothing between (R10)"): {
        "requantized": lambda n: n.conv(n.pair(n.pair("x", 0.05), 0.1), data=None),
        "requantized behind identity": using(
            lambda n: n.conv(n.pair(n.op("Identity", n.pair("x", 0.05)), 0.1), data=None), constants=True
        ),
    },
    ("R11", OPS + ": what it does not read"): {
        "qlinearconv": qlinearconv,
        "qlinearmatmul": using(qlinearmatmul, shape=(4, 16)),
        "convinteger": lambda n: n.op("Cast", n.op("ConvInteger", n.q("x"), n.const(n.ints(16, 16, 1, 1), np.int8)), to=T.FLOAT),
        "det": using(lambda n: n.op("Det", "x"), shape=(1, 16, 8, 8)),
        "unique": lambda n: n.op("Unique", "x"),
        "sequence": lambda n: n.op("SequenceAt", n.op("SequenceConstruct", "x", "x"), n.const(0, np.int64)),
        "centercroppad": lambda n: n.op("CenterCropPad", "x", n.const([1, 16, 4, 4], np.int64)),
        "bitwiseand": lambda n: n.op("Cast", n.op("BitwiseAnd", n.op("Cast", "x", to=T.INT32), n.const(7, np.int32)), to=T.FLOAT),
        "maxpool indices": lambda n: n.op("MaxPool", "x", outputs=2, kernel_shape=[2, 2]),
        "maxpool dilated": lambda n: n.op("MaxPool", n.conv(), kernel_shape=[2, 2], dilations=[2, 2]),
        "averagepool dilated": lambda n: n.op("AveragePool", n.conv(), kernel_shape=[2, 2], dilations=[2, 2]),
        "resize antialias": lambda n: n.op("Resize", "x", "", n.const([1, 1, 0.5, 0.5], np.float32), antialias=1, mode="linear"),
        "resize not larger": lambda n: n.op(
            "Resize", "x", "", "", n.const([4, 4], np.int64), axes=[2, 3], mode="linear", keep_aspect_ratio_policy="not_larger"
        ),
        "dropout training": lambda n: n.op("Dropout", n.conv(), n.const(0.5, np.float32), n.const(True, np.bool_)),
        "topk unsorted": lambda n: n.op("TopK", n.op("Flatten", n.conv()), n.const([5], np.int64), outputs=2, sorted=0),
        "reduce computed axes": lambda n: n.op(
            "ReduceMean", "x", n.op("Reshape", n.op("Cast", n.op("ReduceMax", "x", keepdims=0), to=T.INT64), n.const([1], np.int64))
        ),
        "unsqueeze computed axes": using(
            lambda n: n.op("Squeeze", n.op("Unsqueeze", n.conv(), "axes"), n.const([0], np.int64)),
            inputs=[INFO("x", T.FLOAT, (1, 16, 8, 8)), INFO("axes", T.INT64, (1,))],
        ),
        "hannwindow": lambda n: n.op("Mul", n.op("GlobalAveragePool", n.conv()), n.op("HannWindow", n.const(16, np.int64))),
        "resize half pixel symmetric": lambda n: n.op(
            "Resize", "x", "", n.const([1, 1, 2, 2], np.float32), coordinate_transformation_mode="half_pixel_symmetric"
        ),
        "scatter add": lambda n: n.op(
            "ScatterElements", n.conv(), n.const(np.zeros((1, 1, 1, 1)), np.int64), np.ones((1, 1, 1, 1)), reduction="add"
        ),
        "string constant": string_constant,
        "sparse constant": sparse_constant,
        "if in if unsupported": lambda n: branches(
            n,
            lambda b: branches(
                b, lambda c: c.op("Add", "x", c.op("ReduceMax", c.op("Det", "x"), keepdims=0)), lambda c: c.relu("x")
            ),
            lambda b: b.relu("x"),
        ),
        "function in function": function_in_function,
    },
    ("R2", OPS + ": what it does not read"): {
        "dynamicquantizelinear": dynamicquantizelinear,
    },
    ("R1", "only the default domain (R1)"): {
        "microsoft quantizelinear": using(
            lambda n: n.op(
                "DequantizeLinear",
                n.op("QuantizeLinear", "x", 0.05, n.const(0, np.int8), domain="com.microsoft"),
                0.05,
                n.const(0, np.int8),
                domain="com.microsoft",
            ),
            domains=["com.microsoft"],
        ),
        "microsoft gelu": using(lambda n: n.op("Gelu", n.conv(), domain="com.microsoft"), domains=["com.microsoft"]),
        "custom operator": using(lambda n: n.op("Fancy", n.conv(), domain="mine"), domains=["mine"]),
    },
    ("R12", OPS + ": what it does not read"): {
        "batch norm training": using(
            lambda n: n.op(
                "BatchNormalization", n.floatconv(), *[n.const(np.ones(16)) for _ in range(4)], outputs=3, training_mode=1
            )[0],
            opset=15,
        ),
    },
    ("R11", "the parser imports no sparse initializers (ModelImporter.cpp)"): {
        "sparse initializer": sparse_initializer,
    },
    ("R1", OPS + ": what it does not read"): {
        "swish operator": using(lambda n: n.op("Swish", n.conv()), opset=24, ir=11),
    },
    ("R25", "float64 is cast to float32 (operators.md: limited support)"): {
        "float64 inside": lambda n: n.op(
            "Cast", n.op("Mul", n.op("Cast", n.conv(), to=T.DOUBLE), n.const(1.5, np.float64)), to=T.FLOAT
        ),
        "float64 all": using(lambda n: n.relu(n.floatconv()), dtype=np.float64, shape=(1, 16, 8, 8)),
    },
    ("R25", "uint8 is for inputs and outputs only (operators.md; ModelImporter)"): {
        "uint8 transposed": using(lambda n: n.conv(n.op("Cast", n.op("Transpose", "x", perm=[0, 3, 1, 2]), to=T.FLOAT)), inputs=U8),
        "uint8 sliced": using(
            lambda n: n.op("Cast", n.op("Slice", "x", *[n.const([v], np.int64) for v in (0, 4, 1)]), to=T.FLOAT), inputs=U8
        ),
        "uint8 between": lambda n: n.op("Cast", n.op("Cast", n.conv(), to=T.UINT8), to=T.FLOAT),
    },
    ("R1", "per-channel Q/DQ needs opset 13"): {
        "opset 11 per channel": using(lambda n: n.conv(axis=None, scale=np.full(16, 0.01)), opset=11, ir=6),
    },
    ("R1", "TensorRT 10.x reads opsets to 20 (R1)"): {
        "opset 21": using(lambda n: n.relu(n.conv()), opset=21, ir=10),
    },
    ("R1", "an opset nobody knows (R1)"): {
        "opset 99": using(lambda n: n.relu(n.floatconv()), opset=99, ir=10, tensorrt=(11, 4)),
    },
    ("R20", "every dimension static (R20)"): {
        "dynamic batch": using(lambda n: n.relu(n.conv()), shape=("n", 16, 8, 8)),
        "dynamic height": using(lambda n: n.relu(n.conv()), shape=(1, 16, "h", "w")),
    },
    ("R22", "every dimension static (R20)"): {
        "rank unknown": using(lambda n: n.relu(n.floatconv()), shape=None),
    },
    ("R20", "shape depends on data (R20)"): {
        "nonzero": lambda n: n.op("NonZero", n.conv()),
    },
    ("R19", ONNX): {
        "types differ": lambda n: n.op("Add", n.conv(), n.const(1.0, np.float16)),
        "declared output type": declared_output_type,
        "declared output shape": declared_output_shape,
        "channels do not fit": lambda n: n.floatconv(cin=8),
    },
    ("R4", "scale and data of one float type (R4)"): {
        "scale float16 of float32": scale_float16_of_float32,
    },
    ("R22", ONNX): {
        "input undefined": lambda n: n.op("Add", n.conv(), "nowhere"),
        "name defined twice": name_defined_twice,
        "cycle": cycle,
    },
    ("R3", SCALE + ", in a branch"): {
        "if scale negative": lambda n: branches(n, lambda b: b.relu(b.conv(data=-0.05)), lambda b: b.relu("x")),
        "function scale zero": function_scale_zero,
    },
    ("R6", AXIS + ", in a branch"): {
        "if axis 1": using(lambda n: branches(n, lambda b: b.relu("x"), lambda b: b.conv(axis=1)), opset=16),
    },
    ("R12", "no pair before the activation, in a branch"): {
        "if pair before relu": lambda n: branches(n, lambda b: b.relu(b.pair(b.conv())), lambda b: b.relu("x")),
        "function pair before relu": function_pair_before_relu,
    },
    ("R2", ZERO + ", in a branch, the zero point outside"): {
        "if zero point outside": if_zero_point_outside,
    },
    ("R6", AXIS + ", in a loop"): {
        "loop axis 1": lambda n: loop(n, lambda b, x: b.conv(x, axis=1)),
    },
    ("R11", "a body that reads the condition which its Loop has not (onnxOpImporters.cpp, Loop)"): {
        "loop without condition": lambda n: loop(n, lambda b, x: b.relu(b.conv(x)), condition=False),
    },
    ("R8", "int32 bias, in a loop"): {
        "loop bias int32": lambda n: loop(n, lambda b, x: b.conv(x, bias=b.dq(b.const(np.ones(16), np.int32), 0.0005, None))),
    },
    ("R11", "If: branches of different rank (operators.md)"): {
        "if ranks differ": if_ranks_differ,
    },
    ("R3", SCALE + ", passed to a local function"): {
        "function scale passed": function_scale_passed,
    },
    ("R6", AXIS + ", passed to a local function"): {
        "function axis passed": function_axis_passed,
    },
    ("R2", ZERO + ", in the body of a Scan"): {
        "scan zero point": scan_zero_point,
    },
}

WARNED = {
    ("R3", "subnormal float16 scale loses bits (R3)"): {
        "scale subnormal float16": using(lambda n: n.conv(data=2e-6), dtype=np.float16),
    },
    ("R3", "float16 ends at 65504, 65 steps of 1000: corrected from an error, since inputs end there too"): {
        "scale overflows float16": using(lambda n: n.conv(data=1000.0), dtype=np.float16),
    },
    ("R15", "Qs of one tensor have one scale (R15)"): {
        "two scales of one tensor": lambda n: n.op("Add", n.conv("x", data=0.05), n.conv("x", data=0.07)),
    },
    ("R16", "SE Mul: both inputs quantized or neither (R16)"): {
        "gate half quantized": gate_half_quantized,
    },
    ("R16", "pool input DQ, so pool output Q (R16)"): {
        "pool half quantized": lambda n: n.op("Sigmoid", n.op("GlobalAveragePool", n.pair("x"))),
    },
    ("R17", "channels of a quantized conv are multiples of 8 (R17)"): {
        "ten channels": lambda n: n.conv(cout=10),
    },
    ("R17", "the stem stays in float (R17)"): {
        "stem quantized": using(lambda n: n.conv(cin=3, k=3), shape=(1, 3, 8, 8)),
    },
    ("R18", "the output is not straight from a DQ (R18)"): {
        "output from dq": lambda n: n.pair(n.conv()),
    },
    ("R21", "node names unique (R21)"): {
        "node names twice": node_names_twice,
    },
    ("R21", "node names not empty (R21)"): {
        "node names empty": node_names_empty,
    },
}

TAKEN = {
    # opset 9 to 20 without pairs (operators.md): corrected from an error
    "opset 12": using(lambda n: n.relu(n.floatconv()), opset=12, ir=7),
    # int8 weights, DQ (Explicit Quantization: pre-quantized weights)
    "plain": lambda n: n.floatconv(n.relu(n.conv(n.relu(n.conv())))),
    # float weights, Q, DQ, Constant nodes (pytorch-quantization)
    "float weights": using(lambda n: n.floatconv(n.relu(n.conv(form="float"))), opset=13, ir=7, constants=True),
    # the axes of AXIS
    "conv axis minus 4": lambda n: n.relu(n.conv(axis=-4, k=3)),
    "matmul axis 1": using(
        lambda n: n.op("Add", n.op("MatMul", n.pair("x"), n.weight((16, 24), axis=1)), np.ones(24)), shape=(4, 16)
    ),
    "matmul axis minus 1": using(
        lambda n: n.op("Add", n.op("MatMul", n.pair("x"), n.weight((16, 24), axis=-1, form="float")), np.ones(24)),
        shape=(4, 16),
        opset=13,
        ir=8,
        constants=True,
    ),
    "gemm axis 1": using(lambda n: n.op("Gemm", n.pair("x"), n.weight((16, 24), axis=1), np.ones(24)), shape=(4, 16)),
    "gemm transposed axis minus 2": using(
        lambda n: n.op("Gemm", n.pair("x"), n.weight((24, 16), axis=-2), np.ones(24), transB=1), shape=(4, 16)
    ),
    "convtranspose axis 1": lambda n: n.relu(n.conv(kind="ConvTranspose", axis=1, cout=24)),
    # per-tensor weights
    "weight per tensor": lambda n: n.relu(n.conv(axis=None)),
    # a scale of one element in one dimension; the axis means nothing
    "weight per tensor one element": lambda n: n.relu(n.conv(axis=1, channels=1)),
    # activation scale and zero point of shape [1] (onnx-tensorrt: compare sizes instead of shapes)
    "activation scale of one element": lambda n: n.relu(n.conv(data=np.full(1, 0.05))),
    # scale [1], zero point [] (onnx-tensorrt: 'either 0-D or 1-D, so compare sizes instead of shapes')
    "scale one element zero point scalar": scale_one_element_zero_point_scalar,
    # Linear in torch's QAT export: W, Q, DQ axis 0, Transpose, MatMul, Add (pytorch-quantization)
    "linear transposed": using(
        lambda n: n.op(
            "Add",
            n.op("MatMul", n.pair("x"), n.op("Transpose", n.weight((24, 16), axis=0, form="float"), perm=[1, 0])),
            np.ones(24),
        ),
        shape=(4, 16),
        opset=13,
        ir=7,
        constants=True,
    ),
    # depthwise: one scale per channel, axis 0
    "depthwise": lambda n: n.swish(n.conv(group=16, k=3)),
    # grouped convolution, axis 0
    "grouped": lambda n: n.relu(n.conv(group=2, k=3)),
    # Swish as Sigmoid and Mul in float
    "swish": lambda n: n.floatconv(n.swish(n.conv(n.swish(n.conv())))),
    # operators.md: HardSwish Y
    "hardswish": lambda n: n.floatconv(n.op("HardSwish", n.conv())),
    # torch opset 13: x * HardSigmoid(x)
    "hardswish by hardsigmoid": using(hardswish_by_hardsigmoid, opset=13, ir=7),
    # TensorFlow: x * Clip(x + 3, 0, 6) / 6
    "hardswish by clip": hardswish_by_clip,
    # operators.md: Gelu Y
    "gelu": using(lambda n: n.floatconv(n.op("Gelu", n.conv())), opset=20),
    # operators.md: Mish Y
    "mish": lambda n: n.floatconv(n.op("Mish", n.conv())),
    # Gelu by Erf
    "gelu by erf": gelu_by_erf,
    # ReLU6
    "relu6": lambda n: n.floatconv(n.op("Clip", n.conv(), 0.0, 6.0)),
    # SE block in float
    "gate in float": gate_in_float,
    # SE Mul: both inputs quantized (R16)
    "gate quantized": gate_quantized,
    # residual: the skip alone is quantized (TensorRT's placement)
    "residual": lambda n: n.floatconv(n.relu(n.op("Add", n.conv(n.relu(n.conv())), n.pair("x")))),
    # residual: the skip alone is quantized, the skip first
    "residual skip first": lambda n: n.floatconv(n.op("Add", n.pair("x"), n.conv(n.relu(n.conv())))),
    # residual in float
    "residual float": lambda n: n.floatconv(n.op("Add", n.conv(n.relu(n.conv())), "x")),
    # one pair for the convolution and the skip
    "residual shares pair": residual_shares_pair,
    # residual whose skip is a quantized convolution's output (torchvision's ResNet by pytorch-quantization)
    "residual downsample": lambda n: n.floatconv(n.relu(n.op("Add", n.conv(n.relu(n.conv())), n.pair(n.conv())))),
    # torch's export of fake_quantize: the zero point cast from int32
    "zero point by cast": using(
        lambda n: n.relu(n.conv(n.pair("x", zero=n.op("Cast", n.const(0, np.int32), to=T.INT8)), data=None)),
        opset=13,
        ir=7,
        constants=True,
    ),
    # NNCF's strip: Identity before Q and behind DQ
    "identities": lambda n: n.relu(
        n.conv(
            n.op("Identity", n.pair(n.op("Identity", "x"), n.op("Identity", 0.05))),
            data=None,
            weight=n.op("Identity", n.weight((16, 16, 1, 1))),
        )
    ),
    # constants folded through Reshape, Div and Squeeze
    "scale folded": lambda n: n.relu(n.conv(n.pair("x", n.op("Squeeze", n.op("Div", n.const([6.35]), 127.0))), data=None)),
    # int8 weight folded through Identity and Reshape
    "weight folded": lambda n: n.relu(
        n.conv(
            weight=n.dq(
                n.op("Reshape", n.const(n.ints(256), np.int8), n.const([16, 16, 1, 1], np.int64)), np.full(16, 0.01), axis=0
            )
        )
    ),
    # DQ commutes with MaxPool (TensorRT: propagation of Q and DQ)
    "maxpool between": lambda n: n.floatconv(
        n.relu(n.conv(n.op("MaxPool", n.pair(n.relu(n.conv())), kernel_shape=[2, 2], strides=[2, 2]), data=None))
    ),
    # TF 'same' padding behind the pair (R12)
    "pad behind pair": lambda n: n.relu(
        n.op("Conv", n.op("Pad", n.pair("x"), n.const([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), n.weight((16, 16, 3, 3)))
    ),
    # FP16 in the graph, casts at its ends
    "float16": float16,
    # FP16 inputs and outputs
    "float16 all": using(
        lambda n: n.floatconv(n.swish(n.conv(form="float", scale=np.full(16, 0.0078)))), dtype=np.float16, constants=True, opset=20
    ),
    # uint8 photos, cast first (operators.md: UINT8 as network input)
    "uint8 cast first": using(
        lambda n: n.relu(n.conv(n.op("Transpose", n.op("Cast", "x", to=T.FLOAT), perm=[0, 3, 1, 2]))), inputs=U8
    ),
    # Concat in float, then one pair
    "concat": lambda n: n.relu(n.conv(n.op("Concat", n.relu(n.conv()), n.relu(n.conv()), axis=1), cin=32)),
    # int64 arithmetic of shapes, as torch exports flatten (TensorRT 10: INT64 Y)
    "flatten by shape": flatten_by_shape,
    # a float graph
    "float only": lambda n: n.relu(n.floatconv()),
    # a batch norm behind a float convolution (operators.md)
    "batch norm in float": lambda n: n.relu(n.op("BatchNormalization", n.floatconv(), *[n.const(np.ones(16)) for _ in range(4)])),
    # a scale by ConstantOfShape, as torch.full is exported
    "scale filled": lambda n: n.relu(
        n.conv(
            n.pair("x", n.op("ConstantOfShape", n.const([], np.int64), value=onnx.numpy_helper.from_array(np.float32([0.05])))),
            data=None,
        )
    ),
    # a channel that is as good as 0, beside its bias (Model-Optimizer's file of Lite0)
    "dead channel": lambda n: n.relu(n.conv(scale=np.array([0.01] * 15 + [1e-9]))),
    # axes by constants that are computed (parser: build-time constant)
    "axes folded": lambda n: n.op(
        "ReduceMean", n.relu(n.conv()), n.op("Concat", n.const([2], np.int64), n.const([3], np.int64), axis=0), keepdims=0
    ),
    # global pool between pairs (R16)
    "pool quantized": lambda n: n.op(
        "Gemm",
        n.op("Flatten", n.pair(n.op("GlobalAveragePool", n.pair(n.relu(n.conv()))))),
        n.weight((24, 16), axis=0),
        np.ones(24),
        transB=1,
    ),
    # classifier head with Softmax and ArgMax
    "head": head,
    # two pairs of one scale on one tensor (Model-Optimizer duplicates pairs)
    "two pairs one scale": lambda n: n.floatconv(n.op("Concat", n.relu(n.conv()), n.relu(n.conv()), axis=1), cin=32),
    # domains imported and not used (ONNX Runtime's quantizer writes them)
    "unused domains": using(lambda n: n.relu(n.conv()), domains=["com.microsoft", "ai.onnx.ml"]),
    # weight shared by two convolutions
    "weight shared": weight_shared,
    # initializers also listed as inputs (IR 3 style; the parser skips them)
    "initializers as inputs": initializers_as_inputs,
    # Dropout at inference is the identity
    "dropout": lambda n: n.floatconv(n.op("Dropout", n.relu(n.conv()), n.const(0.2, np.float32), n.const(False, np.bool_))),
    # opset 21 for TensorRT 11, output_dtype INT8 (onnx-tensorrt reads it)
    "output dtype int8": using(output_dtype_int8, opset=21, ir=10, tensorrt=(11, 4)),
    # opset 23 for TensorRT 11
    "opset 23": using(lambda n: n.floatconv(n.swish(n.conv())), opset=23, ir=11, tensorrt=(11, 4)),
    # pairs in a branch
    "if good": lambda n: branches(n, lambda b: b.relu(b.conv()), lambda b: b.swish(b.conv(form="float"))),
    # pairs in a loop
    "loop good": lambda n: loop(n, lambda b, x: b.relu(b.conv(x))),
    # pairs in a local function, the axis an attribute of it
    "function good": function_good,
    # a function that nobody calls may be whatever it is
    "function unused": function_unused,
    # MatMul of two quantized activations (attention in ViT, Model-Optimizer)
    "matmul of activations": using(
        lambda n: n.op("Softmax", n.op("MatMul", n.pair("x"), n.op("Transpose", n.pair("x"), perm=[0, 2, 1]))), shape=(1, 4, 16)
    ),
    # bias as a separate Add, a scalar multiplication afterwards
    "bias by add": lambda n: n.floatconv(n.relu(n.op("Add", n.conv(bias=None), np.full((1, 16, 1, 1), 0.1)))),
    # Conv1d
    "conv1d": using(
        lambda n: n.relu(n.op("Conv", n.pair("x"), n.weight((16, 16, 3), axis=0), np.ones(16), kernel_shape=[3], pads=[1, 1])),
        shape=(1, 16, 8),
    ),
    # bias folded through Identity
    "bias by identity": lambda n: n.relu(n.conv(bias=n.op("Identity", np.full(16, 0.1)))),
}


def _lint(case, folder: Path):
    build, tensorrt, options = case if isinstance(case, tuple) else using(case)
    net = Net(**options)
    onnx.save(net.model(build(net)), folder / "a.onnx")
    return lint(folder / "a.onnx", tensorrt)


def _each(groups):
    return [pytest.param(rule, source, case, id=name) for (rule, source), cases in groups.items() for name, case in cases.items()]


@pytest.mark.parametrize(("rule", "source", "case"), _each(REFUSED))
def test_a_wrong_graph_is_refused_for_its_reason(rule: str, source: str, case, tmp_path: Path) -> None:
    found = _lint(case, tmp_path)
    assert rule in {f.rule for f in found if f.error}, (source, found)


@pytest.mark.parametrize(("rule", "source", "case"), _each(WARNED))
def test_a_slow_graph_is_named_and_not_refused(rule: str, source: str, case, tmp_path: Path) -> None:
    found = _lint(case, tmp_path)
    assert rule in {f.rule for f in found}, (source, found)
    assert not any(f.error for f in found), (source, found)


@pytest.mark.parametrize("case", TAKEN.values(), ids=TAKEN)
def test_a_graph_in_a_documented_form_is_taken(case, tmp_path: Path) -> None:
    assert [f for f in _lint(case, tmp_path) if f.error] == []
