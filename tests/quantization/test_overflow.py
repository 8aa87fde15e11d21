"""Sums of INT8 products on a processor without VNNI. On one with VNNI the kernels are exact anyway, and the same has to hold."""

from pathlib import Path

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops

from edgeeff import Bundle, Precision, backends
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.measurement.system_state import device
from edgeeff.quantization import nncf_ptq, overflow

OPENVINO = backends.get("openvino")


def computed(weights: NDArray[np.int8], stride: int = 1) -> NDArray[np.float32]:
    """What INT8 kernels make of the largest activations and `weights`: of a convolution (O, I, K, K), or a matrix (O, I)."""
    outputs, inputs, *kernel = weights.shape
    x = ops.parameter([1, inputs, *(4 * side for side in kernel)], np.float32)
    quantized = ops.fake_quantize(x, *map(np.float32, (0, 255, 0, 255)), levels=256)
    scale = np.ones((outputs, 1, *(1 for _ in kernel)), np.float32)
    scaled = ops.multiply(ops.convert(ops.constant(weights), np.float32), ops.constant(scale))
    if kernel:
        none = [0, 0]
        y = ops.convolution(quantized, scaled, [stride, stride], none, none, [1, 1])
    else:
        y = ops.matmul(quantized, scaled, False, True)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.Model([y], [x]), "CPU", config)
    found: NDArray[np.float32] = compiled(np.full(x.shape, 255, np.float32))[0]
    return found.reshape(outputs, -1)


SHAPES = [(16, 3, 3, 3), (32, 8, 1, 1), (24, 17, 1, 1), (40, 64, 1, 1), (32, 48, 3, 3), (64, 1280, 1, 1), (10, 1280), (1000, 96)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_of_refined_weights_are_exact(shape: tuple[int, ...], stride: int) -> None:
    """Weights whose neighbours are as large as they may be: alone, or two of one sign."""
    rng = np.random.default_rng(0)
    weights = rng.choice([-1, 1], shape) * rng.choice([0.02, 1], shape).astype(np.float32)
    whole = np.rint(weights / overflow.steps(weights)).astype(np.int8)
    expected = 255 * whole.reshape(len(whole), -1).astype(int).sum(1)
    assert np.array_equal(computed(whole, stride), np.broadcast_to(expected[:, None], computed(whole, stride).shape))


@pytest.mark.skipif(not device().int8_overflows, reason="needs a processor without VNNI")
def test_sums_of_weights_of_the_whole_range_are_cut_off() -> None:
    assert (computed(np.full((16, 64, 1, 1), 127, np.int8)) < 0.6 * 255 * 127 * 64).all()


def test_a_step_is_the_smallest_with_which_neighbours_of_one_sign_fit() -> None:
    weights = np.array([[1, 0, 0], [1, 1, 0], [1, -1, 0], [0, 1, 1], [-2, -1, 0], [0, 0, 0]], np.float32)
    sums = overflow.steps(weights) * overflow.LARGEST
    assert sums.ravel().tolist() == [1, 2, 1, 1, 3, 127]


def test_weights_become_finer_and_mean_outputs_stay_those_of_the_float_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 3, 1, 1)).astype(np.float32)
    images = list(rng.uniform(0, 255, (20, 1, 4, 4, 3)).astype(np.float32))
    mean = np.mean(images, axis=(0, 1, 2, 3))
    scale = np.abs(weights).max(1, keepdims=True) / 63
    coarse = np.rint(weights / scale).astype(np.int8)
    corrected = (weights - coarse * scale)[..., 0, 0] @ mean  # as by NNCF
    openvino.save_model(network(ops.constant(weights)), tmp_path / "model.xml", compress_to_fp16=False)
    quantized = network(ops.multiply(ops.convert(ops.constant(coarse), np.float32), ops.constant(scale)), corrected)
    exact, before = outputs(network(ops.constant(weights)), images), outputs(quantized, images)
    overflow.refine(quantized, tmp_path / "model.xml", images)
    after = outputs(quantized, images)
    assert np.abs(after - exact).mean() < 0.9 * np.abs(before - exact).mean()
    assert np.allclose(after.mean((0, 2, 3)), exact.mean((0, 2, 3)), atol=0.01)
    assert np.abs((after - exact).mean((0, 2, 3))).max() < 0.05 * np.abs(after - exact).mean()
    (layer,) = overflow.layers(quantized, overflow.SUMMED).values()
    assert overflow.from_int8(layer)


def network(weights: openvino.Node, bias: NDArray[np.float32] | None = None) -> openvino.Model:
    """A convolution of a photo `(1, 4, 4, 3)`."""
    x = ops.parameter([1, 4, 4, 3], np.float32)
    conv = ops.convolution(ops.transpose(x, ops.constant([0, 3, 1, 2])), weights, [1, 1], [0, 0], [0, 0], [1, 1])
    conv.set_friendly_name("conv")
    return openvino.Model([conv if bias is None else ops.add(conv, ops.constant(bias.reshape(1, -1, 1, 1)))], [x])


def outputs(model: openvino.Model, images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: NDArray[np.float32] = np.concatenate([compiled(image)[0] for image in images])
    return found


@pytest.mark.slow
def test_a_refined_file_has_the_same_layers_in_int8(fitted: tuple[Path, dict], digits: Path, tmp_path: Path) -> None:
    photos = PixelFile(ImageSet.open(digits / "train").draw(20), Bundle.open(fitted[0]).preprocess)
    model = OPENVINO.compile(fitted[0] / "model.onnx", tmp_path)
    files = {}
    for overflows in (False, True):
        folder = tmp_path / str(overflows)
        folder.mkdir()
        files[overflows] = nncf_ptq.quantize(model, photos, folder, overflows=overflows)
    assert nncf_ptq.quantized_layers(files[True]) == nncf_ptq.quantized_layers(files[False]) != set()
    for layer in overflow.layers(openvino.Core().read_model(files[True]), overflow.SUMMED).values():
        if overflow.from_int8(layer):
            whole = layer.input_value(1).get_node().input_value(0).get_node().input_value(0).get_node().get_data().astype(int)
            even = np.concatenate([whole, np.zeros_like(whole[:, : whole.shape[1] % 2])], 1)
            pairs = even.reshape(len(whole), even.shape[1] // 2, 2, -1)
            assert max(np.maximum(sign * pairs, 0).sum(2).max() for sign in (1, -1)) * 255 < 2**15
    logits = OPENVINO.load(files[True], precision=Precision.INT8)(photos.rows(0, 20))
    assert np.isfinite(logits).all()
