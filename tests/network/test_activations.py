import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from edgeeff import BadInput, Target
from edgeeff.data.preprocess import Preprocess
from edgeeff.network.activations import ACTIVATIONS, CHOICES, SWAPS, ActivationFunction, check, get
from edgeeff.network.checkpoint import load, save
from edgeeff.network.model import activation_modules, create
from edgeeff.network.swap import swap, swapped
from edgeeff.network.variants import variant

pytestmark = pytest.mark.medium


@pytest.mark.parametrize("activation", SWAPS)
def test_a_swap_leaves_no_swish_and_touches_no_weight(activation: str) -> None:
    model = create("b0", classes=10)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    other = swapped(model, activation)
    kinds = {type(m) for m in other.modules()}
    assert not kinds & {nn.SiLU, nn.Sigmoid}
    assert set(activation_modules(activation)) <= kinds
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


def test_a_misspelt_activation_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(BadInput, match=r"activation 'hardswich': expected one of .*\. Did you mean 'hardswish'\?"):
        get("hardswich")
    with pytest.raises(BadInput, match=r"--activation 'silu': expected one of keep, hardswish, relu6, relu, auto\."):
        check("silu", CHOICES, "--activation")
    with pytest.raises(BadInput, match=r"activation \['relu'\]: expected one of"):
        check(["relu"], SWAPS)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_row_makes_a_network(name: str) -> None:
    module, gate = activation_modules(name)
    model = create(replace(variant("b0"), activation=name), classes=3)
    assert type(model.act1) is module
    assert type(model.blocks[0][0].se.gate) is gate
    assert torch.isfinite(model.eval()(torch.randn(1, 3, 32, 32))).all()


def test_an_activation_that_cannot_work_in_place_makes_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATIONS, "gelu", ActivationFunction("gelu", "GELU", "Sigmoid"))
    assert type(create(replace(variant("b0"), activation="gelu"), classes=3).act1) is nn.GELU


def test_a_target_with_an_unknown_activation_is_refused(tmp_path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("description: d\nbackend: openvino\nprecisions: [int8]\nactivation: hardswich\n")
    with pytest.raises(BadInput, match=r"t\.yaml: activation 'hardswich': .* Did you mean 'hardswish'\?"):
        Target.load(path)


def test_the_table_answers_without_torch() -> None:
    code = "import sys; from edgeeff.network.activations import get; get('relu'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_saved_network_remembers_its_activation(tmp_path) -> None:
    model = swapped(create("b0", classes=10, resolution=32), "hardswish").eval()
    v = model.variant
    save(model, tmp_path / "w.safetensors", Preprocess(32, 32, v.mean, v.std), ())
    again, _, fresh = load(tmp_path / "w.safetensors", create("b0").variant)
    assert not fresh
    assert again.variant.activation == "hardswish"
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), model(x))
