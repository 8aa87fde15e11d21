import math

import numpy as np
import pytest
import torch
from networks import SIZE, trained
from PIL import Image

from edgeeff.data.preprocess import Preprocess
from edgeeff.network.model import MBBlock, SameConv2d, create, predict

pytestmark = pytest.mark.medium
KINDS = ["b0", "phi-2", "lite0", "v2-b0", "v2-b1"]  # SE, scaled, ReLU6 without SE, fused, fused with skips in the first stage


def tensorflow_same(x: np.ndarray, weight: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """A convolution with SAME padding as TensorFlow documents it, in float64: (C, H, W) and (O, C/groups, K, K) → (O, H', W')."""
    size, kernel = x.shape[-1], weight.shape[-1]
    total = max(kernel - (stride if size % stride == 0 else size % stride), 0)
    before, after = total // 2, total - total // 2
    x = np.pad(x.astype(np.float64), ((0, 0), (before, after), (before, after)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (1, 2))[:, ::stride, ::stride]  # (C, H', W', K, K)
    per = weight.shape[0] // groups
    parts = [
        np.einsum("chwij,ocij->ohw", part, weight[g * per : (g + 1) * per])
        for g, part in enumerate(np.split(windows, groups))
    ]  # fmt: skip
    return np.concatenate(parts)


@pytest.mark.parametrize("name", KINDS)
def test_images_become_one_logit_a_class(name):
    with torch.inference_mode():
        logits = create(name, classes=5).eval()(torch.randn(2, 3, SIZE, SIZE))
    assert logits.shape == (2, 5)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_a_fresh_network_gives_finite_logits(name, training):
    torch.manual_seed(0)
    model = create(name, classes=5, resolution=SIZE).train(training)
    with torch.no_grad():
        logits = model(torch.randn(2, 3, SIZE, SIZE))
    assert torch.isfinite(logits).all()


def test_the_same_seed_gives_the_same_network():
    def logits():
        torch.manual_seed(3)
        return create("phi-6", classes=5).eval()(torch.ones(1, 3, SIZE, SIZE))

    assert torch.equal(logits(), logits())


@pytest.mark.parametrize("size", [7, 8, 9, 12])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("groups", [1, 4])
def test_same_padding_is_tensorflows(size, kernel, groups):
    torch.manual_seed(0)
    conv = SameConv2d(4, 8, kernel, 2, groups=groups, bias=False)
    x = torch.randn(1, 4, size, size)
    theirs = tensorflow_same(x[0].numpy(), conv.weight.detach().numpy(), 2, groups)
    ours = conv(x)[0].detach().numpy()
    assert ours.shape == theirs.shape == (8, math.ceil(size / 2), math.ceil(size / 2))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # float32 sums of up to 100 products of order 1


def test_same_padding_puts_the_odd_pixel_right_and_below():
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    conv(torch.zeros(1, 1, 8, 8))
    assert conv.pads == (0, 1, 0, 1)
    conv(torch.zeros(1, 1, 7, 7))
    assert conv.pads == (1, 1, 1, 1)


def test_paddings_differ_on_even_sizes_and_agree_on_odd_ones():
    symmetric, same = (trained("b0", classes=5, padding=padding, bn_eps=1e-5) for padding in ("symmetric", "same"))
    same.load_state_dict(symmetric.state_dict())
    even, odd = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 65, 65)  # 65, 33, 17, 9, 5, 3
    with torch.inference_mode():
        spread = symmetric(even).std()
        assert (symmetric(even) - same(even)).abs().max() > 0.1 * spread
        # A thousandth of the spread: the same float32 sums, perhaps in another order.
        assert (symmetric(odd) - same(odd)).abs().max() < 1e-3 * spread


@pytest.mark.parametrize(
    ("name", "padding", "bn_eps"), [("b0", "symmetric", 1e-5), ("lite0", "same", 1e-3), ("v2-b0", "same", 1e-3)]
)
def test_padding_and_eps_default_to_the_published_weights(name, padding, bn_eps):
    model = create(name)
    assert (model.padding, model.bn_eps, model.bn1.eps) == (padding, bn_eps, bn_eps)
    assert isinstance(model.conv_stem, SameConv2d) == (padding == "same")


def test_padding_eps_classes_and_resolution_can_be_chosen():
    model = create("b0", classes=3, padding="same", bn_eps=0.01, resolution=96)
    assert isinstance(model.conv_stem, SameConv2d)
    assert (model.bn2.eps, model.classifier.out_features, model.variant.resolution) == (0.01, 3, 96)


def test_stochastic_depth_grows_evenly_from_nothing():
    model = create("b0")
    model.set_stochastic_depth(0.16)
    rates = [m.drop_path for m in model.modules() if isinstance(m, MBBlock)]
    assert rates == pytest.approx([0.01 * i for i in range(16)])


def test_stochastic_depth_leaves_evaluation_alone():
    model, x = trained("b0", classes=5), torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        before = model(x)
        model.set_stochastic_depth(0.9)
        assert torch.equal(model(x), before)


def test_stochastic_depth_drops_whole_branches_and_keeps_the_expectation():
    block = trained("b0", classes=5).blocks[5][1]
    x = torch.randn(1, 192, 2, 2)
    with torch.inference_mode():
        branch = block(x) - x
        block.drop_path, block.training = 0.4, True  # the batch norms inside keep evaluating
        torch.manual_seed(0)
        added = (block(x.expand(2000, -1, -1, -1)) - x).flatten(1)  # (images, values)
    share = added @ branch.flatten() / branch.square().sum()  # 0 for a dropped branch, 1 / 0.6 for a kept one
    kept = share > 0.5
    # 1e-3: float32, after a subtraction.
    assert torch.allclose(share, kept.float() / 0.6, atol=1e-3)
    # Five standard deviations of the mean of 2000 draws: 5 · sqrt(0.4 / 0.6 / 2000) = 0.09.
    assert share.mean().item() == pytest.approx(1, abs=0.09)


@pytest.mark.parametrize("name", ["b0", "lite0"])
def test_predict_normalises_as_by_hand(name):
    model = trained(name, classes=5)
    mean, std = (120.0, 110.0, 100.0), (60.0, 55.0, 50.0)
    photos = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    logits = predict(model, Preprocess(SIZE, SIZE, mean, std))(photos)
    normalised = (photos.astype(np.float64) - mean) / std
    with torch.inference_mode():
        by_hand = model(torch.from_numpy(normalised.transpose(0, 3, 1, 2)).float()).numpy()
    assert logits.dtype == np.float32
    assert logits.shape == (3, 5)
    # A thousandth of the spread: the same float32 sums in another order differ by a hundred-thousandth.
    np.testing.assert_allclose(logits, by_hand, atol=1e-3 * by_hand.std())


def test_bgr_photos_give_the_logits_of_rgb_ones():
    model = trained("phi-6", classes=5)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8)
    mean, std = (120.0, 110.0, 100.0), (60.0, 55.0, 50.0)
    rgb, bgr = (Preprocess(SIZE, SIZE, mean, std, colour=colour) for colour in ("RGB", "BGR"))
    photo = Image.fromarray(pixels)
    flipped = np.ascontiguousarray(bgr(photo))
    assert np.array_equal(flipped[..., ::-1], rgb(photo))
    assert np.array_equal(predict(model, bgr)(flipped[None]), predict(model, rgb)(rgb(photo)[None].copy()))


# Names, shapes and the number of tensors as in timm 1.0.
@pytest.mark.parametrize(
    ("name", "tensors", "shapes"),
    [
        (
            "b0",
            360,
            {
                "conv_stem.weight": (32, 3, 3, 3),
                "bn1.running_mean": (32,),
                "blocks.0.0.conv_dw.weight": (32, 1, 3, 3),
                "blocks.0.0.bn1.weight": (32,),
                "blocks.0.0.se.conv_reduce.weight": (8, 32, 1, 1),
                "blocks.0.0.se.conv_expand.bias": (32,),
                "blocks.0.0.conv_pw.weight": (16, 32, 1, 1),
                "blocks.0.0.bn2.bias": (16,),
                "blocks.1.0.conv_pw.weight": (96, 16, 1, 1),
                "blocks.1.0.conv_dw.weight": (96, 1, 3, 3),
                "blocks.1.0.se.conv_reduce.weight": (4, 96, 1, 1),
                "blocks.1.0.conv_pwl.weight": (24, 96, 1, 1),
                "blocks.1.0.bn3.weight": (24,),
                "blocks.6.0.conv_pwl.weight": (320, 1152, 1, 1),
                "conv_head.weight": (1280, 320, 1, 1),
                "bn2.weight": (1280,),
                "classifier.weight": (1000, 1280),
                "classifier.bias": (1000,),
            },
        ),
        (
            "lite0",
            296,
            {
                "conv_stem.weight": (32, 3, 3, 3),
                "blocks.0.0.conv_pw.weight": (16, 32, 1, 1),
                "blocks.5.3.conv_dw.weight": (1152, 1, 5, 5),
                "blocks.6.0.bn3.running_var": (320,),
                "conv_head.weight": (1280, 320, 1, 1),
                "bn2.bias": (1280,),
                "classifier.weight": (1000, 1280),
            },
        ),
        (
            "v2-b0",
            420,
            {
                "conv_stem.weight": (32, 3, 3, 3),
                "blocks.0.0.conv.weight": (16, 32, 3, 3),
                "blocks.0.0.bn1.weight": (16,),
                "blocks.1.0.conv_exp.weight": (64, 16, 3, 3),
                "blocks.1.0.conv_pwl.weight": (32, 64, 1, 1),
                "blocks.1.1.bn2.weight": (32,),
                "blocks.3.0.se.conv_reduce.weight": (12, 192, 1, 1),
                "blocks.5.7.conv_pwl.weight": (192, 1152, 1, 1),
                "conv_head.weight": (1280, 192, 1, 1),
                "classifier.weight": (1000, 1280),
            },
        ),
    ],
)
def test_tensors_have_timms_names(name, tensors, shapes):
    with torch.device("meta"):
        state = create(name).state_dict()
    assert len(state) == tensors
    assert {k: tuple(state[k].shape) for k in shapes if k in state} == shapes


def test_lite_has_no_squeeze_and_excitation():
    with torch.device("meta"):
        assert not any(".se." in k for k in create("lite0").state_dict())
