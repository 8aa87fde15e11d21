"""Graphs that break one rule each: the linter names that rule, and only that one."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeeff import EdgeeffError, backends, qdq
from edgeeff.export import to_onnx
from edgeeff.fakequant import calibrate, fake_quantized, layers, strip
from edgeeff.images import ImageSet, PixelFile, Preprocess
from edgeeff.model import create, predict


@pytest.fixture(scope="module")
def pixels(digits: Path) -> PixelFile:
    v = create("b0", classes=16, resolution=32).variant
    return PixelFile(ImageSet.open(digits / "train").draw(40), Preprocess(32, 32, v.mean, v.std))


@pytest.fixture(scope="module", params=["b0", "lite0", "v2-b0"])
def quantized(request, tmp_path_factory, pixels: PixelFile):
    """(fake-quantized network, its Q/DQ graph, steps by layer)"""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("qdq")
    model = create(request.param, classes=16, resolution=32).eval()
    network = fake_quantized(model, calibrate(model, pixels))
    bare, steps = strip(network)
    return network, qdq.write(to_onnx(bare, pixels.preprocess, folder / "float.onnx"), steps, folder / "qdq.onnx"), steps


def test_the_graph_is_free_of_findings(quantized) -> None:
    assert qdq.lint(quantized[1]) == []


def test_every_step_is_in_the_graph_with_its_weights_as_int8(quantized) -> None:
    _, path, steps = quantized
    graph = onnx.load(path).graph
    kinds = [n.op_type for n in graph.node]
    weights = [i for i in graph.initializer if i.data_type == TensorProto.INT8 and len(i.dims) > 1]
    assert len(weights) == len(steps) == len(qdq.quantized_layers(path))
    assert kinds.count("QuantizeLinear") == len(steps)  # one each: a block's first layer shares its own with the skip
    assert kinds.count("DequantizeLinear") == 2 * len(steps)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_compute_what_the_fake_quantized_network_does(quantized, pixels: PixelFile, runtime: str, tmp_path: Path) -> None:
    network, path, _ = quantized
    images = next(pixels.batches(16))
    expected = predict(network, pixels.preprocess)(images)
    backend = backends.get(runtime)
    logits = backend.load(backend.compile(path, tmp_path), precision="int8")(images)
    # Sums in another order fall on other sides of a rounding now and then; a misplaced pair or a wrong scale is far outside.
    assert np.sqrt(np.mean((logits - expected) ** 2)) < 0.15 * expected.std()


def test_stem_and_squeeze_and_excitation_stay_float() -> None:
    names = [name for name, _, _ in layers(create("b0", classes=12))]
    assert not any(".se." in name or name == "conv_stem" for name in names)
    assert "conv_head" in names
    assert "classifier" not in names  # twelve classes are no multiple of eight


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
    insert(m, "relu", helper.make_node("BatchNormalization", ["x", "one", "zero", "mean", "one"], ["n"], "bn"))
    node(m, "relu").input[0] = "n"


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


@pytest.mark.parametrize(
    ("rule", "error", "break_it"),
    [
        ("R1", True, domain),
        ("R1", True, opset),
        ("R2", True, no_zero_point),
        ("R2", True, unsigned),
        ("R3", True, negative_scale),
        ("R5", True, activation_per_channel),
        ("R6", True, no_axis),
        ("R7", True, least_weight),
        ("R9", True, float_weights),
        ("R10", True, read_by_others),
        ("R10", True, twice),
        ("R12", True, batch_norm),
        ("R12", True, between_conv_and_relu),
        ("R14", True, both_sides_of_an_addition),
        ("R15", False, two_steps_for_one_tensor),
        ("R16", False, half_gated),
        ("R17", False, few_channels),
        ("R18", False, output_straight_from_dequantize),
        ("R20", True, dynamic),
        ("R21", False, no_names),
    ],
)
def test_a_broken_rule_is_named(rule: str, error: bool, break_it, tmp_path: Path) -> None:
    model = tiny()
    onnx.save(model, tmp_path / "good.onnx")
    assert qdq.lint(tmp_path / "good.onnx") == []
    break_it(model)
    onnx.save(model, tmp_path / "bad.onnx")
    found = qdq.lint(tmp_path / "bad.onnx")
    assert (rule, error) in {(f.rule, f.error) for f in found}, found
    if error:
        with pytest.raises(EdgeeffError, match="errors, the first: R"):
            qdq.require(tmp_path / "bad.onnx")


def test_a_graph_that_does_not_type_check_is_an_error(tmp_path: Path) -> None:
    model = tiny()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, tmp_path / "bad.onnx")
    assert "R19" in {f.rule for f in qdq.lint(tmp_path / "bad.onnx")}
