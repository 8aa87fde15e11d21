"""What a Jetson's DLA runs, by NVIDIA's documentation: graphs with one thing it does not have, and the networks of this project."""

from pathlib import Path

import onnx
import pytest
import torch

from edgeeff.data.preprocess import Preprocess
from edgeeff.export import fp16
from edgeeff.export.dla_lint import fallbacks
from edgeeff.export.graph_view import Graph
from edgeeff.export.onnx import to_onnx
from edgeeff.network.folding import fold_batch_norms
from edgeeff.network.model import create


def found(model: onnx.ModelProto, folder: Path) -> list[str]:
    onnx.save(model, folder / "model.onnx")
    return [f.message for f in fallbacks(Graph(folder / "model.onnx", (10, 3)))]


def graph(body: str, inputs: str = "float16[1, 4, 8, 8] x") -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => (float16[a, b, c, d] y) {{ {body} }}'
    return onnx.parser.parse_model(text)


@pytest.mark.parametrize(
    "body", ["y = Relu(x)", "s = Sigmoid(x) y = Mul(x, s)", "y = Add(x, x)", "y = MaxPool<kernel_shape=[2, 2]>(x)"]
)
def test_what_the_dla_documents_stays_there(body: str, tmp_path: Path) -> None:
    assert found(graph(body), tmp_path) == []


@pytest.mark.parametrize("kind", ["HardSwish", "HardSigmoid", "GlobalAveragePool", "Flatten"])
def test_what_it_does_not_have_is_named(kind: str, tmp_path: Path) -> None:
    assert found(graph(f"y = {kind}(x)"), tmp_path) == [f"{kind} runs on the GPU: an operator that the DLA does not have"]


def test_a_product_of_two_computed_tensors_runs_on_the_gpu(tmp_path: Path) -> None:
    assert found(graph("y = MatMul(x, x)"), tmp_path) == ["MatMul runs on the GPU: its second input is not constant"]


@pytest.mark.parametrize(
    ("shape", "strides", "runs"),
    [
        ((8, 4, 3, 3), [2, 2], True),
        ((8, 4, 32, 32), [8, 8], True),
        ((8, 4, 33, 1), [1, 1], False),
        ((8, 4, 3, 3), [9, 1], False),
        ((8193, 4, 1, 1), [1, 1], False),
        ((8, 4, 3), [1], False),
    ],
)
def test_a_convolution_over_the_documented_limits_runs_on_the_gpu(
    shape: tuple[int, ...], strides: list[int], runs: bool, tmp_path: Path
) -> None:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], "conv", strides=strides)
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, shape, bytes(4 * torch.Size(shape).numel()), raw=True)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], [weight]))
    assert bool(found(model, tmp_path)) is not runs


def test_quantizers_in_the_graph_are_an_error_for_the_dla(tmp_path: Path) -> None:
    model = graph(
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Relu(d)", "float16[1, 4, 8, 8] x, float16 s, int8 z"
    )
    assert found(model, tmp_path) == ["2 Q/DQ nodes: the DLA takes implicit quantization only"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pools"), [("lite0", 1), ("b0", 17)])
def test_of_lite_the_last_pool_leaves_the_dla_and_of_b0_that_of_every_block(name: str, pools: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create(name, classes=16, resolution=64).eval()
    plain = to_onnx(fold_batch_norms(model), Preprocess(64, 64, (0, 0, 0), (1, 1, 1)), tmp_path / "float.onnx")
    graph = Graph(fp16.write(plain, tmp_path / "fp16.onnx"), (10, 3))
    kinds = [f.message.split()[0] for f in fallbacks(graph)]
    assert kinds.count("ReduceMean") == pools
    assert set(kinds) == {"Cast", "ReduceMean"}  # a pool sums in float32, between two casts
    assert (len(kinds) / len(graph.nodes) < 0.1) is (name == "lite0")  # the share that `compile --dla` allows
