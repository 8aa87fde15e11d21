import pytest
import torch
from torch import nn

from edgeeff import BadInput
from edgeeff.data.images import Preprocess
from edgeeff.network.activations import SWAPS, swap, swapped
from edgeeff.network.checkpoint import load, save
from edgeeff.network.model import create


@pytest.mark.parametrize("activation", SWAPS)
def test_a_swap_leaves_no_swish_and_touches_no_weight(activation: str) -> None:
    model = create("b0", classes=10)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    other = swapped(model, activation)
    kinds = {type(m) for m in other.modules()}
    assert not kinds & {nn.SiLU, nn.Sigmoid}
    assert set(SWAPS[activation].values()) <= kinds
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())
    assert nn.SiLU in {type(m) for m in model.modules()}  # the original keeps its own


def test_any_module_can_be_swapped() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.SiLU(inplace=True), nn.Sequential(nn.Sigmoid()))
    assert swap(module, "hardswish") == 2
    assert isinstance(module[1], nn.Hardswish)
    assert module[1].inplace
    x = torch.randn(3, 2)
    expected = nn.functional.hardsigmoid(nn.functional.hardswish(module[0](x)))
    assert torch.equal(module(x), expected)


def test_a_network_without_swish_stays_as_it_is() -> None:
    assert swap(create("lite0", classes=10), "hardswish") == 0


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(BadInput, match="activation 'gelu': expected one of hardswish"):
        swap(nn.SiLU(), "gelu")


def test_a_saved_network_remembers_its_activation(tmp_path) -> None:
    model = swapped(create("b0", classes=10, resolution=32), "hardswish").eval()
    v = model.variant
    save(model, tmp_path / "w.safetensors", Preprocess(32, 32, v.mean, v.std), ())
    again, _, fresh = load(tmp_path / "w.safetensors", create("b0").variant)
    assert not fresh
    assert again.variant.activation == "hardswish"
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), model(x))
