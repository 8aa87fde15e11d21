"""ONNX files of every kind: linted within seconds, or refused in a line that says why; never taken for something else."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeeff import BadInput
from edgeeff.export.tensorrt_lint import lint

# ONNX's own: classifiers, recurrent networks, sequences, strings, gradients, of all ages
FILES = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))


def test_onnx_has_test_data() -> None:
    assert len(FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=lambda p: "/".join(p.parts[-2:]))
def test_onnxs_own_files_are_linted(path: Path) -> None:
    lint(path)


def saved(folder: Path, *nodes: onnx.NodeProto, shape: tuple[int, ...] = (1, 16, 8, 8)) -> Path:
    """x → nodes → y, unchecked."""
    ends = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in "xy")
    graph = helper.make_graph(list(nodes), "a", *ends)
    (folder / "a.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9).SerializeToString()
    )
    return folder / "a.onnx"


@pytest.mark.parametrize("kind", ["QuantizeLinear", "DequantizeLinear", "Conv", "ConvTranspose", "Gemm", "MatMul", "If"])
def test_a_node_that_lacks_inputs_is_a_finding(kind: str, tmp_path: Path) -> None:
    assert "R22" in {f.rule for f in lint(saved(tmp_path, helper.make_node(kind, ["x"], ["y"], "n")))}


def test_a_dimension_below_0_is_not_a_size(tmp_path: Path) -> None:
    nodes = helper.make_node("Shape", ["x"], ["s"], "s"), helper.make_node("Reshape", ["x", "s"], ["y"], "r")
    assert isinstance(lint(saved(tmp_path, *nodes, shape=(-1, 16))), list)


def test_an_equation_on_which_onnx_never_ends_is_refused(tmp_path: Path) -> None:
    """As in einsum_multiple_ellipses_negative_test.onnx of ROCm/AMDMIGraphX."""
    path = saved(tmp_path, helper.make_node("Einsum", ["x", "x"], ["y"], "n", equation="......ii,...jj->...ij"))
    with pytest.raises(BadInput, match="two ellipses in one term"):
        lint(path)


def test_values_of_a_constant_node_may_lie_outside_the_file(tmp_path: Path) -> None:
    value = numpy_helper.from_array(np.zeros((1, 16, 8, 8), np.float32), "c")
    onnx.external_data_helper.set_external_data(value, location="c.bin")
    path = saved(
        tmp_path, helper.make_node("Constant", [], ["c"], "c", value=value), helper.make_node("Add", ["x", "c"], ["y"], "n")
    )
    with pytest.raises(BadInput, match="external data beside it"):
        lint(path)
