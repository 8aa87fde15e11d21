"""Sums of INT8 products on a processor without VNNI. On one with VNNI the kernels are exact anyway, and the same has to hold."""

import numpy as np
import openvino
import pytest
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops

from edgeeff.measurement.system_state import device
from edgeeff.quantization import overflow


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
def test_sums_of_overflow_safe_weights_are_exact(shape: tuple[int, ...], stride: int) -> None:
    """Weights whose neighbours are as large as they may be: alone, or two of one sign."""
    rng = np.random.default_rng(0)
    weights = rng.choice([-1, 1], shape) * rng.choice([0.02, 1], shape).astype(np.float32)
    steps = overflow.steps(torch.from_numpy(weights)).numpy().reshape(-1, *[1] * (weights.ndim - 1))
    whole = np.rint(weights / steps).astype(np.int8)
    expected = 255 * whole.reshape(len(whole), -1).astype(int).sum(1)
    assert np.array_equal(computed(whole, stride), np.broadcast_to(expected[:, None], computed(whole, stride).shape))


@pytest.mark.skipif(not device().int8_overflows, reason="needs a processor without VNNI")
def test_sums_of_weights_of_the_whole_range_are_cut_off() -> None:
    assert (computed(np.full((16, 64, 1, 1), 127, np.int8)) < 0.6 * 255 * 127 * 64).all()


def test_a_step_is_the_smallest_with_which_neighbours_of_one_sign_fit() -> None:
    weights = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, -1, 0], [0, 1, 1], [-2, -1, 0], [0, 0, 0]])
    assert (overflow.steps(weights) * overflow.LARGEST).tolist() == [1, 2, 1, 1, 3, 127]
