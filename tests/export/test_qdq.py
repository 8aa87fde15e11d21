"""The Q/DQ graph is what the fake-quantized network computes, and TensorRT-ready."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from edgeeff import Precision, backends
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.export import qdq
from edgeeff.export.onnx import to_onnx
from edgeeff.export.tensorrt_lint import lint
from edgeeff.measurement.system_state import device
from edgeeff.network.model import EfficientNet, create, predict
from edgeeff.quantization.fake_quant import calibrate, fake_quantized, layers, strip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pixels(digits: Path) -> PixelFile:
    v = create("b0", classes=16, resolution=32).variant
    return PixelFile(ImageSet.open(digits / "train").draw(40), Preprocess(32, 32, v.mean, v.std))


@pytest.fixture(scope="module", params=["b0", "lite0", "v2-b0"])
def model(request) -> EfficientNet:
    torch.manual_seed(0)
    return create(request.param, classes=16, resolution=32).eval()


@pytest.fixture(scope="module", params=["symmetric", "asymmetric"])
def quantized(request, tmp_path_factory, model: EfficientNet, pixels: PixelFile):
    """(fake-quantized network, its Q/DQ graph, steps by layer)"""
    folder = tmp_path_factory.mktemp("qdq")
    overflows = device().int8_overflows
    network = fake_quantized(model, calibrate(model, pixels, symmetric=request.param == "symmetric", overflows=overflows))
    bare, steps = strip(network)
    return network, qdq.write(to_onnx(bare, pixels.preprocess, folder / "float.onnx"), steps, folder / "qdq.onnx"), steps


def test_the_graph_is_free_of_findings(quantized) -> None:
    rules = {finding.rule for finding in lint(quantized[1])}
    assert rules == ({"R2"} if any(scales.data.zero_point for scales in quantized[2].values()) else set())  # TensorRT wants 0


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
    logits = backend.load(backend.compile(path, tmp_path), precision=Precision("int8"))(images)
    # Sums in another order fall on other sides of a rounding now and then; a misplaced pair or a wrong scale is far outside.
    assert np.sqrt(np.mean((logits - expected) ** 2)) < 0.15 * expected.std()


def test_zero_points_are_where_steps_are_finest(model: EfficientNet, pixels: PixelFile) -> None:
    found = {symmetric: calibrate(model, pixels, symmetric=symmetric) for symmetric in (True, False)}
    assert {layer.zero_point for layer in found[True].values()} == {0}
    assert len({layer.zero_point for layer in found[False].values()}) > 1
    errors = {symmetric: sum(layer.error for layer in ranges.values()) for symmetric, ranges in found.items()}
    assert errors[False] < 0.9 * errors[True]


@pytest.mark.parametrize(("low", "high"), [(0, 6), (-0.28, 5), (-3, 0), (-1, 1), (0, 0)])
def test_the_finest_scale_keeps_both_ends_and_zero(low: float, high: float) -> None:
    scale, zero_point = qdq.Affine.over(low, high)
    kept = [(integer - zero_point) * scale for integer in (-128, 127)]
    assert kept == pytest.approx([low, high], abs=0.51 * scale + 1e-5)
    assert -128 <= zero_point <= 127


def test_sums_do_not_overflow_with_weights_that_training_has_moved(model: EfficientNet, pixels: PixelFile, tmp_path: Path) -> None:
    network = fake_quantized(model, calibrate(model, pixels, overflows=True))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + 0.3 * torch.randn_like(parameter))
    bare, scales = strip(network)
    path = qdq.write(to_onnx(bare, pixels.preprocess, tmp_path / "float.onnx"), scales, tmp_path / "qdq.onnx")
    integers = [i for i in onnx.load(path).graph.initializer if i.data_type == TensorProto.INT8 and len(i.dims) > 1]
    assert integers
    for weights in (numpy_helper.to_array(i).astype(int) for i in integers):
        if weights.shape[1] > 1:  # not depthwise
            even = np.concatenate([weights, np.zeros_like(weights[:, : weights.shape[1] % 2])], 1)
            pairs = even.reshape(len(weights), even.shape[1] // 2, 2, -1)
            assert max(np.maximum(sign * pairs, 0).sum(2).max() for sign in (1, -1)) * 255 < 2**15


def test_stem_and_squeeze_and_excitation_stay_float() -> None:
    names = [name for name, _, _ in layers(create("b0", classes=12))]
    assert not any(".se." in name or name == "conv_stem" for name in names)
    assert "conv_head" in names
    assert "classifier" not in names  # twelve classes are no multiple of eight


def test_the_symmetric_scheme_needs_no_compiler_and_no_kernels_of_nncf(tmp_path: Path) -> None:
    code = """
import sys, torch
from edgeeff.network.folding import fold_batch_norms
from edgeeff.quantization.fake_quant import LayerRange, fake_quantized, layers, strip
from edgeeff.network.model import create
model = create("b0", classes=16, resolution=32).eval()
ranges = {n: LayerRange(1.0, "largest", l.weight.flatten(1).abs().amax(1), torch.zeros(len(l.weight)), 0.0)
          for n, l, _ in layers(fold_batch_norms(model))}
network = fake_quantized(model, ranges).train()
network(torch.randn(2, 3, 32, 32)).sum().backward()
widths = [p for n, p in network.named_parameters() if n.endswith("amax")]
assert len(widths) == 2 * len(strip(network)[1]) and all(p.grad is not None for p in widths)
assert not any(m.startswith("nncf") for m in sys.modules), "NNCF was loaded"
"""
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
