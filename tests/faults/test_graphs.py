"""ONNX files for `edgeeff lint`, cut, changed, or no files at all: linted, or refused in one line."""

import random
from pathlib import Path

import numpy as np
import pytest
from attempts import Hostile
from onnx import ModelProto, TensorProto, helper, numpy_helper
from test_photos import little_memory, special

from edgeeff.errors import BadInput
from edgeeff.export.tensorrt_lint import lint

SHAPE = [1, 4, 8, 8]


def graph(*, circle: bool = False) -> ModelProto:
    """x → Q → DQ → Conv → y; in a circle, Q reads what DQ makes of it."""
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w": np.ones((4, 4, 1, 1), np.float32)}
    nodes = [
        helper.make_node("QuantizeLinear", ["d" if circle else "x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
        helper.make_node("Conv", ["d", "w"], ["y"], "\x1b[31mconv\n"),
    ]
    ends = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE)] for name in "xy")
    stored = [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", *ends, stored), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )


def test_cut_and_changed_graphs(hostile: Hostile, tmp_path: Path) -> None:
    path, rng, whole = tmp_path / "a.onnx", random.Random(4), graph().SerializeToString()
    for number in range(200):
        data = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(min(len(data), rng.choice((0, 1, 1, 5)))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        with hostile.harmless(number):
            lint(path)


def test_a_graph_in_a_circle_ends(hostile: Hostile, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(graph(circle=True).SerializeToString())
    with hostile.harmless("a circle"):
        lint(tmp_path / "a.onnx")


@pytest.mark.parametrize("case", ["no input", "no attribute", "no name", "no constant"])
def test_graphs_that_lack_something(hostile: Hostile, tmp_path: Path, case: str) -> None:
    model = graph()
    for node in model.graph.node:
        if case == "no input":
            del node.input[:]
        elif case == "no name":
            node.name = ""
            del node.output[:]
    if case == "no attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], "constant"))
    elif case == "no constant":
        del model.graph.initializer[:]
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with hostile.harmless(case):
        lint(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    "kind", ["pipe", "link to a pipe", "folder", "loop", "itself", "sparse", "/dev/zero", "/dev/full", "/nowhere"]
)
def test_what_is_no_file(hostile: Hostile, tmp_path: Path, kind: str) -> None:
    special(kind, tmp_path / "a.onnx")
    with little_memory(), hostile.raises(BadInput, kind):
        lint(tmp_path / "a.onnx")
    hostile.refused("lint", tmp_path / "a.onnx", words=("a.onnx",), name=kind)
