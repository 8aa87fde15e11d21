"""Graphs that break one rule each: the linter names that rule; the graph they were made from keeps them all."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeeff import BadInput
from edgeeff.export.tensorrt_lint import RULES, lint, require


def tiny() -> onnx.ModelProto:
    """x → Q → DQ → Conv(16 → 16, int8 weights) → y, by hand."""
    rng = np.random.default_rng(0)
    constants = {
        "s": np.float32(0.1),
        "z": np.int8(0),
        "w": rng.integers(-127, 128, (16, 16, 1, 1)).astype(np.int8),
        "ws": np.full(16, 0.01, np.float32),
        "wz": np.zeros(16, np.int8),
        "b": np.zeros(16, np.float32),
    }
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "weights", axis=0),
        helper.make_node("Conv", ["d", "wd", "b"], ["y"], "conv"),
    ]
    shape = [1, 16, 8, 8]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def constant(model: onnx.ModelProto, name: str, value) -> None:
    old = next(i for i in model.graph.initializer if i.name == name)
    old.CopyFrom(numpy_helper.from_array(np.asarray(value), name))


def insert(model: onnx.ModelProto, before: str, *nodes: onnx.NodeProto) -> None:
    position = next(i for i, n in enumerate(model.graph.node) if n.name == before)
    for n in reversed(nodes):
        model.graph.node.insert(position, n)


def domain(m):
    m.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    append(m, helper.make_node("QuickGelu", ["c"], ["y"], "gelu", domain="com.microsoft"))


def opset(m):
    m.opset_import[0].version = 24


def no_zero_point(m):
    del node(m, "quantize").input[2]
    del node(m, "dequantize").input[2]


def unsigned(m):
    constant(m, "z", np.uint8(0))


def negative_scale(m):
    constant(m, "s", np.float32(-1))


def activation_per_channel(m):
    constant(m, "s", np.full(16, 0.1, np.float32))
    constant(m, "z", np.zeros(16, np.int8))


def no_axis(m):
    del node(m, "weights").attribute[:]


def least_weight(m):
    constant(m, "w", np.full((16, 16, 1, 1), -128, np.int8))


def float_weights(m):
    node(m, "conv").input[1] = "plain"
    m.graph.initializer.append(numpy_helper.from_array(np.zeros((16, 16, 1, 1), np.float32), "plain"))
    m.graph.node.remove(node(m, "weights"))


def read_by_others(m):
    m.graph.node.append(helper.make_node("Cast", ["q"], ["c"], "cast", to=TensorProto.FLOAT))


def twice(m):
    insert(
        m,
        "conv",
        helper.make_node("QuantizeLinear", ["d", "s2", "z"], ["q2"], "quantize2"),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z"], ["d2"], "dequantize2"),
    )
    m.graph.initializer.append(numpy_helper.from_array(np.asarray(np.float32(0.2)), "s2"))
    node(m, "conv").input[0] = "d2"


def dynamic(m):
    m.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    m.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"


def batch_norm(m):
    for name in ("one", "zero", "mean"):
        m.graph.initializer.append(numpy_helper.from_array(np.ones(16, np.float32), name))
    node(m, "conv").output[0] = "c"
    append(m, helper.make_node("BatchNormalization", ["c", "one", "zero", "mean", "one"], ["y"], "bn"))


def between_conv_and_relu(m):
    node(m, "conv").output[0] = "c"
    for n in (
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "quantize2"),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"], "dequantize2"),
        helper.make_node("Relu", ["cd"], ["y"], "relu2"),
    ):
        m.graph.node.append(n)


def both_sides_of_an_addition(m):
    node(m, "conv").output[0] = "c"
    for n in (
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "quantize2"),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"], "dequantize2"),
        helper.make_node("Add", ["cd", "d"], ["y"], "add"),
    ):
        m.graph.node.append(n)


def two_steps_for_one_tensor(m):
    m.graph.initializer.append(numpy_helper.from_array(np.asarray(np.float32(0.2)), "s2"))
    node(m, "conv").output[0] = "c"
    for n in (
        helper.make_node("QuantizeLinear", ["r", "s2", "z"], ["q2"], "quantize2"),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z"], ["d2"], "dequantize2"),
        helper.make_node("Add", ["c", "d2"], ["y"], "add"),
    ):
        m.graph.node.append(n)


def output_straight_from_dequantize(m):
    node(m, "conv").output[0] = "c"
    for n in (
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "quantize2"),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"], "dequantize2"),
    ):
        m.graph.node.append(n)


def no_names(m):
    node(m, "relu").name = ""


def few_channels(m):
    constant(m, "w", np.ones((12, 16, 1, 1), np.int8))
    constant(m, "ws", np.full(12, 0.01, np.float32))
    constant(m, "wz", np.zeros(12, np.int8))
    constant(m, "b", np.zeros(12, np.float32))
    m.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 12


def half_gated(m):
    node(m, "conv").output[0] = "c"
    for n in (
        helper.make_node("Sigmoid", ["c"], ["g"], "sigmoid"),
        helper.make_node("Mul", ["d", "g"], ["y"], "mul"),
    ):
        m.graph.node.append(n)


def append(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Nodes after the convolution, whose output becomes c; the last one makes y."""
    node(model, "conv").output[0] = "c"
    model.graph.node.extend(nodes)


def half_scale(m):
    constant(m, "s", np.float16(0.1))


def integer_bias(m):
    constant(m, "b", np.zeros(16, np.int32))


def integer_convolution(m):
    m.graph.initializer.append(numpy_helper.from_array(np.ones((16, 16, 1, 1), np.int8), "w2"))
    m.graph.node.append(helper.make_node("ConvInteger", ["q", "w2"], ["i"], "integer"))


def swish_operator(m):
    m.opset_import[0].version = 24
    append(m, helper.make_node("Swish", ["c"], ["y"], "swish"))


def pair_inside_swish(m):
    append(
        m,
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "quantize2"),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"], "dequantize2"),
        helper.make_node("Sigmoid", ["c"], ["g"], "sigmoid"),
        helper.make_node("Mul", ["cd", "g"], ["y"], "mul"),
    )


def quantized_pool(m):
    append(
        m,
        helper.make_node("GlobalAveragePool", ["d"], ["p"], "pool"),
        helper.make_node("Add", ["c", "p"], ["y"], "add"),
    )


def quantized_branch(m):
    append(
        m,
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "quantize2"),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"], "dequantize2"),
        helper.make_node("Add", ["cd", "x"], ["y"], "add"),
    )


def infinite_bias(m):
    constant(m, "b", np.full(16, np.inf, np.float32))


def bias_beyond_int32(m):
    constant(m, "b", np.full(16, 1e9, np.float32))


def double_inside(m):
    append(
        m,
        helper.make_node("Cast", ["c"], ["k"], "widen", to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["k"], ["y"], "narrow", to=TensorProto.FLOAT),
    )


def weights_beyond_their_scale(m):
    constant(m, "w", np.full((16, 16, 1, 1), 9, np.float32))
    insert(m, "weights", helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], "weights_q", axis=0))
    node(m, "weights").input[0] = "wq"


def unknown_operator(m):
    append(m, helper.make_node("NoSuchThing", ["c"], ["y"], "nonsense"))


BROKEN = [
    ("R1", True, domain),
    ("R1", True, opset),
    ("R2", True, no_zero_point),
    ("R2", True, unsigned),
    ("R3", True, negative_scale),
    ("R4", True, half_scale),
    ("R5", True, activation_per_channel),
    ("R6", True, no_axis),
    ("R7", True, least_weight),
    ("R8", True, integer_bias),
    ("R9", True, float_weights),
    ("R10", True, read_by_others),
    ("R10", True, twice),
    ("R11", True, integer_convolution),
    ("R11", True, swish_operator),
    ("R12", True, batch_norm),
    ("R12", True, between_conv_and_relu),
    ("R13", False, pair_inside_swish),
    ("R14", True, both_sides_of_an_addition),
    ("R14", True, quantized_branch),
    ("R15", False, two_steps_for_one_tensor),
    ("R16", False, half_gated),
    ("R16", False, quantized_pool),
    ("R17", False, few_channels),
    ("R18", False, output_straight_from_dequantize),
    ("R19", True, half_scale),
    ("R20", True, dynamic),
    ("R21", False, no_names),
    ("R22", True, unknown_operator),
    ("R23", True, infinite_bias),
    ("R24", True, bias_beyond_int32),
    ("R25", True, double_inside),
    ("R26", True, weights_beyond_their_scale),
]


def test_every_rule_is_broken_once() -> None:
    assert {rule for rule, _, _ in BROKEN} == {rule.__name__.upper() for rule in RULES}


def test_a_graph_that_keeps_the_rules_is_free_of_findings(tmp_path: Path) -> None:
    onnx.save(tiny(), tmp_path / "good.onnx")
    assert lint(tmp_path / "good.onnx") == []


@pytest.mark.parametrize(("rule", "error", "break_it"), BROKEN)
def test_a_broken_rule_is_named(rule: str, error: bool, break_it, tmp_path: Path) -> None:
    model = tiny()
    break_it(model)
    onnx.save(model, tmp_path / "bad.onnx")
    found = lint(tmp_path / "bad.onnx")
    assert (rule, error) in {(f.rule, f.error) for f in found}, found
    assert all(f.message and f.remedy for f in found)
    if error:
        with pytest.raises(BadInput, match="errors, the first: R"):
            require(tmp_path / "bad.onnx")


def test_swish_and_newer_opsets_are_for_tensorrt_11(tmp_path: Path) -> None:
    model = tiny()
    swish_operator(model)
    onnx.save(model, tmp_path / "swish.onnx")
    assert {f.rule for f in lint(tmp_path / "swish.onnx", (10, 3))} >= {"R1", "R11"}
    assert {f.rule for f in lint(tmp_path / "swish.onnx", (10, 16))} & {"R1", "R11"} == {"R11"}
    assert not {f.rule for f in lint(tmp_path / "swish.onnx", (11, 4))} & {"R1", "R11"}


def test_the_skip_of_a_residual_addition_may_be_quantized(tmp_path: Path) -> None:
    model = tiny()
    append(model, helper.make_node("Add", ["c", "d"], ["y"], "add"))
    onnx.save(model, tmp_path / "residual.onnx")
    assert lint(tmp_path / "residual.onnx") == []


def test_the_command_says_what_is_wrong_where_and_what_to_do(run, tmp_path: Path) -> None:
    model = tiny()
    unsigned(model)
    onnx.save(model, tmp_path / "bad.onnx")
    done = run("lint", tmp_path / "bad.onnx", "--tensorrt", "10.3")
    assert done.returncode == 2
    assert "R2" in done.stdout
    assert "quantize" in done.stdout
    assert "int8 zeros" in done.stdout
    onnx.save(tiny(), tmp_path / "good.onnx")
    done = run("lint", tmp_path / "good.onnx")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(RULES)} rules for TensorRT 10.3, 0 errors, 0 warnings" in done.stdout


def test_what_is_no_onnx_model_is_refused(run, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    for name in ("bad.onnx", "missing.onnx"):
        done = run("lint", tmp_path / name)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
    assert run("lint", tmp_path / "bad.onnx", "--tensorrt", "8.5").returncode == 2
