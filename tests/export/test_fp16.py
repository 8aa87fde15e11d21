"""FP16 baked into graphs: what may be, is; what overflows is not; the graphs answer as before."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgeeff import Precision, backends
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.export import fp16 as half
from edgeeff.export import qdq
from edgeeff.export.onnx import to_onnx
from edgeeff.export.tensorrt_lint import lint
from edgeeff.network.model import create
from edgeeff.quantization.fake_quant import calibrate, fake_quantized, strip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["b0", "lite0", "v2-b0"])
def graphs(request, tmp_path_factory, digits: Path):
    """(photos, float graph, Q/DQ graph)"""
    from edgeeff.data.preprocess import Preprocess

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("half")
    model = create(request.param, classes=16, resolution=32).eval()
    photos = PixelFile(ImageSet.open(digits / "train").draw(40), Preprocess(32, 32, model.variant.mean, model.variant.std))
    bare, steps = strip(fake_quantized(model, calibrate(model, photos)))
    plain = to_onnx(model, photos.preprocess, folder / "float.onnx")
    return photos, plain, qdq.write(to_onnx(bare, photos.preprocess, folder / "bare.onnx"), steps, folder / "qdq.onnx")


@pytest.mark.parametrize("kind", [1, 2], ids=["float", "qdq"])
def test_an_fp16_graph_is_tensorrt_ready_and_answers_as_before(graphs, kind: int, tmp_path: Path) -> None:
    photos, source = graphs[0], graphs[kind]
    file = half.write(source, tmp_path / "half.onnx")
    assert lint(file) == []
    runtime = backends.get("onnxruntime")
    images = photos.rows(0, 16)
    before, after = (runtime.load(f, precision=Precision("fp16"))(images) for f in (source, file))
    # FP16 keeps eleven bits of each number; an INT8 value now and then falls on the other side of a rounding.
    assert np.sqrt(np.mean((after - before) ** 2)) < (0.01 if kind == 1 else 0.15) * before.std()


def test_only_pixels_pools_and_the_output_stay_float32(graphs, tmp_path: Path) -> None:
    model = onnx.load(half.write(graphs[1], tmp_path / "half.onnx"))
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    convolutions = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    assert {types[n.output[0]] for n in convolutions} == {TensorProto.FLOAT16}
    pools = [n for n in model.graph.node if n.op_type in half.POOLS]
    assert pools
    assert {types[n.output[0]] for n in pools} == {TensorProto.FLOAT}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_kept_layers_stay_float32_with_their_pairs(graphs, tmp_path: Path) -> None:
    layer = next(n.name for n in onnx.load(graphs[2]).graph.node if n.op_type == "Conv" and n.input[1].endswith("_dequantized"))
    file = half.write(graphs[2], tmp_path / "half.onnx", [layer])
    assert lint(file) == []  # R4: scales in the type of what they scale
    model = onnx.load(file)
    types = {v.name: v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    kept = next(n for n in model.graph.node if n.name == layer)
    assert {types[kept.output[0]], types[kept.input[0]], types[kept.input[1]]} == {TensorProto.FLOAT}


def test_what_would_overflow_is_found_and_kept(graphs, tmp_path: Path) -> None:
    """A bias of 20 000 before the first activation: far within FP16 alone, too near its end for photos not seen yet."""
    model = onnx.load(graphs[1])
    stem = next(n for n in model.graph.node if n.op_type == "Conv")
    bias = next(i for i in model.graph.initializer if i.name == stem.input[2])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(20_000), bias.name))
    onnx.save(model, tmp_path / "large.onnx")
    reach = half.overflowing(tmp_path / "large.onnx", graphs[0])
    assert stem.name in reach
    assert reach[stem.name] == pytest.approx(20_000, rel=0.1)
    assert half.overflowing(graphs[1], graphs[0]) == {}
    kept = onnx.load(half.write(tmp_path / "large.onnx", tmp_path / "half.onnx", reach))
    names = {i.name: i.data_type for i in kept.graph.initializer}
    assert names[stem.input[2]] == TensorProto.FLOAT


def test_scales_that_fp16_cannot_hold_are_raised(tmp_path: Path) -> None:
    """A channel of weights near 0: its scale would become 0, or lose its digits."""
    weights = np.full((16, 16, 1, 1), 100, np.int8)
    scale = np.full(16, 0.01, np.float32)
    scale[3] = 1e-6
    constants = {"s": np.float32(0.1), "z": np.int8(0), "w": weights, "ws": scale, "wz": np.zeros(16, np.int8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "weights", axis=0),
        helper.make_node("Conv", ["d", "wd"], ["y"], "conv"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 16, 8, 8]) for n in ("x", "y")]
    initializers = [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "tiny.onnx")
    file = half.write(tmp_path / "tiny.onnx", tmp_path / "half.onnx")
    assert lint(file) == []
    arrays = {i.name: numpy_helper.to_array(i) for i in onnx.load(file).graph.initializer}
    dequantized = arrays["w"].astype(np.float32) * arrays["ws_half"].astype(np.float32).reshape(-1, 1, 1, 1)
    assert np.allclose(dequantized[3], 1e-4, atol=6.2e-5 / 2)  # within half a step of the scale it has now
    assert np.allclose(dequantized[0], 1, rtol=1e-3)
