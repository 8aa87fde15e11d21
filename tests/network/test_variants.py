import subprocess
import sys

import pytest
import torch

from edgeeff.errors import BadInput
from edgeeff.network.architecture import Cost
from edgeeff.network.efficientnet import round_channels
from edgeeff.network.model import create
from edgeeff.network.variants import VARIANTS, expected_top1, variant

# arXiv:1905.11946, table 2: millions of parameters, billions of multiply-adds.
PAPER = {
    "b0": (5.3, 0.39),
    "b1": (7.8, 0.70),
    "b2": (9.2, 1.0),
    "b3": (12, 1.8),
    "b4": (19, 4.2),
    "b5": (30, 9.9),
    "b6": (43, 19),
    "b7": (66, 37),
}

# timm's results-imagenet.csv, millions of parameters.
TIMM_PARAMS = {
    "b0": 5.29,
    "b1": 7.79,
    "b2": 9.11,
    "b3": 12.23,
    "b4": 19.34,
    "b5": 30.39,
    "b6": 43.04,
    "b7": 66.35,
    "lite0": 4.65,
    "lite1": 5.42,
    "lite2": 6.09,
    "lite3": 8.20,
    "lite4": 13.01,
    "v2-b0": 7.14,
    "v2-b1": 8.14,
    "v2-b2": 10.10,
    "v2-b3": 14.36,
    "v2-s": 21.46,
    "v2-m": 54.14,
    "v2-l": 118.52,
}


def counted(name: str) -> Cost:
    """The cost of the torch network, from the shapes that one image really has on its way through it."""
    model = create(name).eval()
    flops = activations = 0

    def count(layer, inputs, output):
        nonlocal flops, activations
        flops += output.numel() * layer.weight[0].numel()  # every output element is one dot product with a filter
        activations += output.numel()

    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, model.variant.resolution, model.variant.resolution))
    return Cost(sum(p.numel() for p in model.parameters()), flops, activations)


@pytest.mark.parametrize("name", PAPER)
def test_cost_is_the_papers(name):
    params, flops = PAPER[name]
    cost = variant(name).cost()
    # 5%: the table is rounded, to as little as one part in ten ("1.0B").
    assert cost.params / 1e6 == pytest.approx(params, rel=0.05)
    assert cost.flops / 1e9 == pytest.approx(flops, rel=0.05)


@pytest.mark.parametrize("name", VARIANTS)
def test_params_are_timms(name):
    # 0.005: half of the last digit that timm publishes.
    assert variant(name).cost().params / 1e6 == pytest.approx(TIMM_PARAMS[name], abs=0.005)


@pytest.mark.parametrize(("name", "gmacs"), [("v2-b0", 0.73), ("v2-s", 8.44)])
def test_multiply_adds_of_v2_are_timms(name, gmacs):
    # 3%: timm's counter also counts batch norms and the SE products, about 1%, and the figure is rounded.
    assert variant(name).cost().flops / 1e9 == pytest.approx(gmacs, rel=0.03)


@pytest.mark.parametrize(("name", "millions"), [("b0", 6.75), ("b1", 10.88), ("b2", 13.83)])
def test_activations_are_timms(name, millions):
    # 0.005: half of the last digit that timm publishes.
    assert variant(name).cost().activations / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.medium
@pytest.mark.parametrize("name", [*VARIANTS, "phi-6", "phi0.5"])
@pytest.mark.parametrize("classes", [1000, 7])
def test_params_are_those_of_the_network(name, classes):
    with torch.device("meta"):
        model = create(name, classes=classes)
    assert variant(name).cost(classes).params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["b0", "phi-1", "lite0", "v2-b0"])
def test_cost_is_what_a_forward_pass_does(name):
    assert variant(name).cost() == counted(name)


def test_b0_has_the_papers_blocks():
    blocks = list(variant("b0").blocks())
    assert len(blocks) == 16  # 1 + 2 + 2 + 3 + 3 + 4 + 1, arXiv:1905.11946, table 1
    assert [b.size for b in blocks if b.stride == 2] == [112, 56, 28, 14]
    last = blocks[-1]
    assert (last.name, last.inputs, last.expanded, last.outputs, last.squeezed) == ("blocks.6.0", 192, 1152, 320, 48)


def test_odd_sizes_round_up_at_each_stride():
    sizes = [b.size for b in variant("b0").at(97).blocks() if b.stride == 2]
    assert sizes == [49, 25, 13, 7]  # ceil(97/2), then halved and rounded up


def test_phi0_is_b0():
    phi0, b0 = variant("phi0"), variant("b0")
    assert phi0.stages == b0.stages
    assert (phi0.stem, phi0.head, phi0.resolution) == (b0.stem, b0.head, b0.resolution)
    assert phi0.cost() == b0.cost()


# By hand from depth 1.2^phi, width 1.1^phi, resolution 1.15^phi; B0's repeats are 1 2 2 3 3 4 1 and
# its channels 16 24 40 80 112 192 320, stem 32, head 1280, 224 pixels.
@pytest.mark.parametrize(
    ("name", "repeats", "channels", "stem", "head", "resolution"),
    [
        ("phi1", (2, 3, 3, 4, 4, 5, 2), (16, 24, 48, 88, 120, 208, 352), 32, 1408, 256),
        ("phi2", (2, 3, 3, 5, 5, 6, 2), (24, 32, 48, 96, 136, 232, 384), 40, 1552, 296),
        ("phi-1", (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 72, 104, 176, 288), 32, 1160, 192),
    ],
)
def test_phi_scales_depth_width_and_resolution_together(name, repeats, channels, stem, head, resolution):
    v = variant(name)
    assert tuple(s.repeats for s in v.stages) == repeats
    assert tuple(s.channels for s in v.stages) == channels
    assert (v.stem, v.head, v.resolution) == (stem, head, resolution)


def test_phi1_has_the_stages_of_b2():
    assert variant("phi1").stages == variant("b2").stages  # B2 was scaled by width 1.1 and depth 1.2


@pytest.mark.parametrize("name", ["phi7.1", "phi-6.5", "phi40"])
def test_phi_out_of_bounds_is_refused(name):
    with pytest.raises(BadInput, match="between -6 and 7"):
        variant(name)


@pytest.mark.parametrize("name", ["phi-6", "phi7"])
def test_phi_at_its_bounds_is_a_network(name):
    assert 32 <= variant(name).resolution <= 2048


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("B0", "b0"),
        ("efficientnet_b0", "b0"),
        ("EfficientNet-B7", "b7"),
        ("efficientnet_lite0", "lite0"),
        ("efficientnetv2_b0", "v2-b0"),
        ("efficientnet_v2_s", "v2-s"),
        ("Phi0.5", "phi0.5"),
    ],
)
def test_other_spellings_name_the_same_variant(written, name):
    assert variant(written) == variant(name)


@pytest.mark.parametrize(("written", "meant"), [("light0", "lite0"), ("v2s", "v2-s"), ("v2-m0", "v2-m")])
def test_unknown_name_is_refused_with_the_nearest_one(written, meant):
    with pytest.raises(BadInput, match=rf"unknown variant '{written}'\. Did you mean '{meant}'\?"):
        variant(written)


@pytest.mark.parametrize("name", ["resnet50", "phi", "phi1e3", ""])
def test_unlike_name_is_refused_with_the_list(name):
    with pytest.raises(BadInput, match=r"Expected one of b0, b1, .*v2-l or phiX"):
        variant(name)


@pytest.mark.parametrize("resolution", [-224, 0, 31, 2049, 10**9])
def test_absurd_resolution_is_refused(resolution):
    with pytest.raises(BadInput, match="expected 32 to 2048"):
        variant("b0").at(resolution)


def test_another_resolution_keeps_the_weights_and_costs_more():
    b0 = variant("b0")
    larger = b0.at(448)
    assert larger.resolution == 448
    assert larger.cost().params == b0.cost().params
    # 1%: convolutions cost 4 times as much, the classifier and SE (0.5% of B0) the same.
    assert larger.cost().flops == pytest.approx(4 * b0.cost().flops, rel=0.01)


@pytest.mark.parametrize("resolution", [None, 224])
def test_the_same_resolution_is_the_same_variant(resolution):
    assert variant("b0").at(resolution) is variant("b0")


@pytest.mark.parametrize(
    ("channels", "width", "floor", "expected"),
    [
        (32, 1.0, 0.9, 32),
        (32, 1.1, 0.9, 32),  # 35.2
        (40, 1.1, 0.9, 48),  # 44: halfway, up
        (24, 0.5, 0.9, 16),  # 12: halfway, up
        (16, 0.1, 0.9, 8),  # 1.6: never under 8
        (10, 1.0, 0.9, 16),  # 8 is under 90% of 10
        (18, 1.0, 0.9, 24),  # 16 is under 90% of 18
        (18, 1.0, 0.0, 16),  # V2 has no lower limit
        (1280, 1.4, 0.9, 1792),
    ],
)
def test_round_channels_by_hand(channels, width, floor, expected):
    assert round_channels(channels, width, floor) == expected


def test_expected_top1_is_the_published_one():
    assert expected_top1(variant("b3")) == 81.6
    assert expected_top1(variant("phi0")) == 77.1  # as large as B0


def test_expected_top1_grows_with_the_network_and_with_the_resolution():
    at_64 = [expected_top1(variant(name).at(64)) for name in ("lite0", "b0", "b2", "b4")]
    assert at_64 == sorted(at_64)
    b0 = [expected_top1(variant("b0").at(px)) for px in (96, 160, 224, 300, 448)]
    assert b0 == sorted(b0)
    assert b0[2] == 77.1
    assert b0[4] == pytest.approx(79.1 - 77.3 + 77.1)  # as table 7 says of twice the resolution


def test_expected_top1_grows_with_phi_from_b0_to_b7():
    guesses = [expected_top1(variant(f"phi{i / 4}")) for i in range(27)]  # 0 to 6.5
    assert guesses == sorted(set(guesses))
    assert 77.1 <= guesses[0] < guesses[-1] <= 84.3


def test_variants_answer_without_torch():
    code = "import sys; from edgeeff.network.variants import variant; variant('b0').cost(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
