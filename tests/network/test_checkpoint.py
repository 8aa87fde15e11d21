import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import SIZE, trained
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from edgeeff.data.images import ImageSet
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import BadInput
from edgeeff.files import write_whole
from edgeeff.network.checkpoint import Conventions, load, read, save
from edgeeff.network.model import EfficientNet, create, predict
from edgeeff.network.variants import variant

pytestmark = pytest.mark.medium
DATA = Path(__file__).parents[3] / "shared" / "data"
TINY = variant("phi-6")
PREPROCESS = Preprocess(128, 146, (120.5, 110.0, 100.0), (60.0, 55.0, 50.0), "bilinear", "BGR")


def logits(model: EfficientNet) -> Tensor:
    images = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model.eval()(images)


def state(model: EfficientNet) -> dict[str, Tensor]:
    return dict(model.state_dict())


def data(path: str) -> Path:
    if not (DATA / path).exists():
        pytest.skip(f"{DATA / path} is not here")
    return DATA / path


# Blocks a stage, as in the papers' tables.
B0 = (1, 2, 2, 3, 3, 4, 1)
V2_S = (2, 4, 4, 6, 9, 15)

# torchvision numbers a block's layers in the order in which they run.
TORCHVISION = {
    "conv": {"conv": "0.0", "bn1": "0.1"},
    "fused": {"conv_exp": "0.0", "bn1": "0.1", "conv_pwl": "1.0", "bn2": "1.1"},
    "separable": {
        "conv_dw": "0.0",
        "bn1": "0.1",
        "se.conv_reduce": "1.fc1",
        "se.conv_expand": "1.fc2",
        "conv_pw": "2.0",
        "bn2": "2.1",
    },
    "mbconv": {
        "conv_pw": "0.0",
        "bn1": "0.1",
        "conv_dw": "1.0",
        "bn2": "1.1",
        "se.conv_reduce": "2.fc1",
        "se.conv_expand": "2.fc2",
        "conv_pwl": "3.0",
        "bn3": "3.1",
    },
}

# lukemelas' efficientnet_pytorch numbers its blocks through and names the layers after their role.
LUKEMELAS = {
    "separable": {
        "conv_dw": "_depthwise_conv",
        "bn1": "_bn1",
        "se.conv_reduce": "_se_reduce",
        "se.conv_expand": "_se_expand",
        "conv_pw": "_project_conv",
        "bn2": "_bn2",
    },
    "mbconv": {
        "conv_pw": "_expand_conv",
        "bn1": "_bn0",
        "conv_dw": "_depthwise_conv",
        "bn2": "_bn1",
        "se.conv_reduce": "_se_reduce",
        "se.conv_expand": "_se_expand",
        "conv_pwl": "_project_conv",
        "bn3": "_bn2",
    },
}


def renamed(model: EfficientNet, layers: dict[str, str]) -> dict[str, Tensor]:
    """The model's tensors under foreign names; every one of them must have a foreign name."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        tensors[f"{layers[layer]}.{leaf}"] = tensor
    return tensors


def torchvision_layers(kinds: tuple[str, ...], repeats: tuple[int, ...]) -> dict[str, str]:
    head = len(repeats) + 1
    names = {"conv_stem": "features.0.0", "bn1": "features.0.1", "classifier": "classifier.1"}
    names |= {"conv_head": f"features.{head}.0", "bn2": f"features.{head}.1"}
    for s, (kind, count) in enumerate(zip(kinds, repeats, strict=True)):
        for i in range(count):
            for ours, theirs in TORCHVISION[kind].items():
                names[f"blocks.{s}.{i}.{ours}"] = f"features.{s + 1}.{i}.block.{theirs}"
    return names


def lukemelas_layers(kinds: tuple[str, ...], repeats: tuple[int, ...]) -> dict[str, str]:
    names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    flat = [(s, i, kind) for s, (kind, count) in enumerate(zip(kinds, repeats, strict=True)) for i in range(count)]
    for n, (s, i, kind) in enumerate(flat):
        for ours, theirs in LUKEMELAS[kind].items():
            names[f"blocks.{s}.{i}.{ours}"] = f"_blocks.{n}.{theirs}"
    return names


def test_saved_weights_load_with_everything_needed_to_use_them(tmp_path):
    model = trained("phi-6", classes=3, padding="same", bn_eps=0.002, resolution=128)
    save(model, tmp_path / "w.safetensors", PREPROCESS, ("rose", "tulip", "iris"))
    loaded, checkpoint, fresh = load(tmp_path / "w.safetensors", TINY)
    assert torch.equal(logits(loaded), logits(model))
    assert fresh == []
    assert (loaded.padding, loaded.bn_eps, loaded.classes, loaded.variant.resolution) == ("same", 0.002, 3, 128)
    assert (checkpoint.variant, checkpoint.padding, checkpoint.bn_eps) == ("phi-6", "same", 0.002)
    assert checkpoint.preprocess == PREPROCESS
    assert checkpoint.class_names == ("rose", "tulip", "iris")


def test_weights_save_the_same_after_a_prediction(tmp_path):
    model = trained("phi-6", classes=3)
    before = logits(model)
    predict(model, PREPROCESS)  # which lays the weights out channels last
    save(model, tmp_path / "w.safetensors", PREPROCESS, ())
    # 1e-5 of logits of order 0.1: another layout, another order of the same sums.
    assert torch.allclose(logits(load(tmp_path / "w.safetensors", TINY)[0]), before, atol=1e-5)


def test_chosen_padding_and_resolution_win_over_the_files(tmp_path):
    save(create(TINY, classes=3, padding="same"), tmp_path / "w.safetensors", PREPROCESS, ())
    model, _, _ = load(tmp_path / "w.safetensors", TINY, padding="symmetric", resolution=160)
    assert (model.padding, model.variant.resolution) == ("symmetric", 160)


def test_own_weights_of_another_variant_are_refused_with_its_name(tmp_path):
    save(create(TINY, classes=3), tmp_path / "w.safetensors", PREPROCESS, ())
    with pytest.raises(BadInput, match=r"holds phi-6, not b0. Give --variant phi-6"):
        load(tmp_path / "w.safetensors", variant("b0"))


def test_failed_write_leaves_nothing_behind(tmp_path):
    target = tmp_path / "w.safetensors"
    target.mkdir()  # which a file cannot replace
    with pytest.raises(OSError, match=r"w\.safetensors"):
        write_whole(target, b"weights")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["plain", "state_dict", "model", "module.", "state_dict of module.", "without counters"],
)
def test_pth_loads_in_any_usual_wrapping(tmp_path, wrap):
    model = trained("phi-6", classes=3)
    torch.save(wrap(state(model)), tmp_path / "w.pth")
    loaded, checkpoint, fresh = load(tmp_path / "w.pth", TINY)
    assert torch.equal(logits(loaded), logits(model))
    assert (fresh, checkpoint.classes, checkpoint.padding, checkpoint.preprocess) == ([], 3, None, None)


def test_half_precision_weights_load_as_float(tmp_path):
    model = create(TINY, classes=3)
    save_file({k: v.half() for k, v in state(model).items()}, tmp_path / "w.safetensors")
    loaded, _, _ = load(tmp_path / "w.safetensors", TINY)
    assert torch.equal(loaded.conv_stem.weight, model.conv_stem.weight.half().float())


@pytest.mark.parametrize(
    ("name", "kinds", "repeats", "bn_eps", "shapes"),
    [
        (
            "b0",
            ("separable", *["mbconv"] * 6),
            B0,
            1e-5,
            {
                "features.1.0.block.1.fc1.weight": (8, 32, 1, 1),
                "features.2.0.block.0.0.weight": (96, 16, 1, 1),
                "features.2.0.block.2.fc2.weight": (96, 4, 1, 1),
                "features.7.0.block.3.1.running_var": (320,),
                "features.8.0.weight": (1280, 320, 1, 1),
                "classifier.1.weight": (1000, 1280),
            },
        ),
        (
            "v2-s",
            ("conv", "fused", "fused", "mbconv", "mbconv", "mbconv"),
            V2_S,
            1e-3,
            {
                "features.1.1.block.0.0.weight": (24, 24, 3, 3),
                "features.2.0.block.1.0.weight": (48, 96, 1, 1),
                "features.4.0.block.2.fc1.weight": (16, 256, 1, 1),
                "features.7.0.weight": (1280, 256, 1, 1),
            },
        ),
    ],
)
def test_torchvision_checkpoint_gives_the_same_logits(tmp_path, name, kinds, repeats, bn_eps, shapes):
    model = trained(name, padding="symmetric", bn_eps=bn_eps)  # as torchvision trains them
    theirs = renamed(model, torchvision_layers(kinds, repeats))
    assert {k: tuple(theirs[k].shape) for k in shapes} == shapes  # torchvision 0.29
    torch.save(theirs, tmp_path / "w.pth")
    loaded, checkpoint, fresh = load(tmp_path / "w.pth", variant(name))
    assert torch.equal(logits(loaded), logits(model))
    assert (checkpoint.padding, checkpoint.bn_eps, fresh) == ("symmetric", bn_eps, [])


def test_lukemelas_checkpoint_gives_the_same_logits(tmp_path):
    model = trained("b0", padding="same", bn_eps=1e-3)  # as TensorFlow trained them
    theirs = renamed(model, lukemelas_layers(("separable", *["mbconv"] * 6), B0))
    shapes = {
        "_blocks.0._se_reduce.weight": (8, 32, 1, 1),
        "_blocks.1._expand_conv.weight": (96, 16, 1, 1),
        "_blocks.15._project_conv.weight": (320, 1152, 1, 1),
        "_conv_head.weight": (1280, 320, 1, 1),
        "_fc.bias": (1000,),
    }
    assert {k: tuple(theirs[k].shape) for k in shapes} == shapes  # efficientnet_pytorch 0.7.1
    torch.save(theirs, tmp_path / "w.pth")
    loaded, checkpoint, fresh = load(tmp_path / "w.pth", variant("b0"))
    assert torch.equal(logits(loaded), logits(model))
    assert (checkpoint.padding, checkpoint.bn_eps, fresh) == ("same", 1e-3, [])


def test_missing_surplus_and_misshapen_tensors_are_refused_by_name(tmp_path):
    tensors = state(create(TINY, classes=3))
    del tensors["blocks.1.0.bn3.running_var"]
    tensors["aux.weight"] = torch.zeros(2)
    tensors["bn1.bias"] = torch.zeros(7)
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(BadInput) as refusal:
        load(tmp_path / "w.pth", TINY)
    message = str(refusal.value)
    assert "not a checkpoint of phi-6" in message
    assert "1 missing (blocks.1.0.bn3.running_var)" in message
    assert "1 surplus (aux.weight)" in message
    assert f"1 of another shape (bn1.bias (7,) for ({TINY.stem},))" in message


def test_checkpoint_of_another_variant_is_refused_with_a_hint(tmp_path):
    torch.save(state(create("b1")), tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"not a checkpoint of b0: .*surplus .* It fits b1\."):
        load(tmp_path / "w.pth", variant("b0"))


def test_only_a_variant_that_fits_whole_is_named(tmp_path):
    """Blocks alone fit no variant: what is missing can be trained."""
    tensors = {k: v for k, v in state(create("b0")).items() if k.startswith(("conv_stem", "bn1", "blocks"))}
    torch.save(tensors, tmp_path / "backbone.pth")
    with pytest.raises(BadInput) as refusal:
        load(tmp_path / "backbone.pth", variant("b0"))
    assert str(refusal.value).endswith(
        "It has no whole classifier, the rest fits: give --train, labelled photos that it learns one from."
    )
    with pytest.raises(BadInput) as refusal:
        load(tmp_path / "backbone.pth", variant("b1"))
    assert "It fits" not in str(refusal.value)
    assert load(tmp_path / "backbone.pth", variant("b0"), classes=10)[2]


def test_weights_of_another_library_are_named_by_the_variant_that_they_fit(tmp_path):
    theirs = renamed(create("b0"), torchvision_layers(("separable", *["mbconv"] * 6), B0))
    torch.save(theirs, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"not a checkpoint of v2-s: .* It fits b0\. Give --variant b0\."):
        load(tmp_path / "w.pth", variant("v2-s"))


def test_other_class_count_gets_a_new_classifier(tmp_path):
    model = trained("phi-6", classes=9)
    torch.save(state(model), tmp_path / "w.pth")
    loaded, _, fresh = load(tmp_path / "w.pth", TINY, classes=3)
    assert fresh == ["classifier.weight", "classifier.bias"]
    assert logits(loaded).shape == (2, 3)
    theirs, ours = state(model), state(loaded)
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs if not k.startswith("classifier.") and "num_batches" not in k)


def test_the_same_class_count_keeps_the_classifier(tmp_path):
    model = trained("phi-6", classes=9)
    torch.save(state(model), tmp_path / "w.pth")
    loaded, _, fresh = load(tmp_path / "w.pth", TINY, classes=9)
    assert fresh == []
    assert torch.equal(logits(loaded), logits(model))


def test_other_class_count_lists_what_the_last_stage_and_the_head_lack(tmp_path):
    tensors = state(create(TINY, classes=9))
    for name in ("blocks.6.0.conv_pwl.weight", "conv_head.weight", "bn2.running_mean"):
        del tensors[name]
    torch.save(tensors, tmp_path / "w.pth")
    model, _, fresh = load(tmp_path / "w.pth", TINY, classes=3)
    assert set(fresh) == {
        "blocks.6.0.conv_pwl.weight",
        "conv_head.weight",
        "bn2.running_mean",
        "classifier.weight",
        "classifier.bias",
    }
    assert torch.isfinite(logits(model)).all()


def test_other_class_count_still_refuses_a_gap_in_the_backbone(tmp_path):
    tensors = state(create(TINY, classes=9))
    del tensors["blocks.5.0.conv_dw.weight"]
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"1 missing \(blocks\.5\.0\.conv_dw\.weight\)"):
        load(tmp_path / "w.pth", TINY, classes=3)


class Trap:
    """Unpickling it creates a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    torch.save({"conv_stem.weight": Trap(tmp_path / "sprung")}, tmp_path / "w.pth")
    with pytest.raises(BadInput, match="holds more than tensors"):
        load(tmp_path / "w.pth", TINY)
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert (tmp_path / "sprung").exists()  # it was a live trap


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused_by_name(tmp_path, value):
    tensors = state(create(TINY, classes=3))
    tensors["blocks.2.0.conv_pw.weight"][0, 0] = value
    torch.save(tensors, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"blocks\.2\.0\.conv_pw\.weight holds NaN or infinity"):
        load(tmp_path / "w.pth", TINY)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0.0005, 0.5, 0.999])
def test_truncated_file_is_refused(tmp_path, suffix, share):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    model = create(TINY, classes=3)
    if suffix == ".pth":
        torch.save(state(model), whole)
    else:
        save(model, whole, PREPROCESS, ())
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(BadInput, match="cut"):
        load(cut, TINY)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_text_is_refused(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_text("weights, honestly\n" * 20)
    with pytest.raises(BadInput, match=path.name):
        load(path, TINY)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.safetensors", "no such checkpoint"), ("none.pth", "no such checkpoint"), ("folder", "is a folder, expected a file")],
)
def test_missing_file_is_refused(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match=message):
        load(tmp_path / name, TINY)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {"w": "text"}}, {}])
def test_file_without_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BadInput, match="expected a state_dict"):
        load(tmp_path / "w.pth", TINY)


def offline(home: Path, *sources: str) -> list[dict]:
    """What loading each source as phi-6 gives, in a process of its own that may not use the network."""
    code = """
import json, sys
from edgeeff.network.checkpoint import load
from edgeeff.errors import EdgeeffError
from edgeeff.network.variants import variant
for source in sys.argv[1:]:
    try:
        model, checkpoint, fresh = load(source, variant("phi-6"))
        said = checkpoint.preprocess.to_json()
        print(json.dumps({"padding": model.padding, "bn_eps": model.bn_eps, "fresh": fresh, "preprocess": said}))
    except EdgeeffError as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
    done = subprocess.run([sys.executable, "-c", code, *sources], env=environment, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hub_that_cannot_be_reached_says_so_and_a_malformed_id_is_refused(tmp_path):
    away, *malformed = offline(tmp_path, "hf-hub:timm/efficientnet_b0.ra_in1k", "hf-hub:a/b/c", "hf-hub:", "hf-hub:no spaces/here")
    assert away["error"] == "Unreachable"
    assert "Download the file and give its path" in away["message"]
    assert [m["error"] for m in malformed] == ["BadInput"] * 3
    assert "expected hf-hub:owner/name" in malformed[0]["message"]


@pytest.mark.slow
def test_cached_hub_model_loads_as_its_config_says(tmp_path):
    commit = "0" * 40
    for name, architecture, mean in (("plain", "efficientnet_b0", 0.485), ("tf", "tf_efficientnet_b0", 0.5)):
        snapshot = tmp_path / "hub" / f"models--owner--{name}" / "snapshots" / commit
        snapshot.mkdir(parents=True)
        refs = tmp_path / "hub" / f"models--owner--{name}" / "refs"
        refs.mkdir()
        (refs / "main").write_text(commit)
        pretrained = {
            "input_size": [3, 192, 192],
            "crop_pct": 0.75,
            "mean": [mean] * 3,
            "std": [0.2] * 3,
            "interpolation": "bicubic",
        }
        (snapshot / "config.json").write_text(json.dumps({"architecture": architecture, "pretrained_cfg": pretrained}))
        save_file(state(create(TINY, classes=3)), snapshot / "model.safetensors")
    plain, tf = offline(tmp_path, "hf-hub:owner/plain", "hf-hub:owner/tf")
    assert (plain["padding"], plain["bn_eps"], plain["fresh"]) == ("symmetric", 1e-5, [])
    assert (tf["padding"], tf["bn_eps"], tf["fresh"]) == ("same", 1e-3, [])
    assert (tf["preprocess"]["resolution"], tf["preprocess"]["resize"]) == (192, 256)  # 192 / 0.75
    assert tf["preprocess"]["mean"] == pytest.approx([127.5] * 3)
    assert tf["preprocess"]["std"] == pytest.approx([51.0] * 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pretrained_cfg": {"input_size": [3, "large", 192]}}, r"Expected `int`, got `str` - at `$.pretrained_cfg.input_size[1]`"),
        ({"pretrained_cfg": {"crop_pct": 0}}, r"- at `$.pretrained_cfg.crop_pct`"),
        ({"architecture": 5}, r"Expected `str`, got `int` - at `$.architecture`"),
        ([], r"Expected `object`, got `array`"),
    ],
    ids=["input_size", "crop_pct", "architecture", "no object"],
)
def test_a_hub_config_with_a_wrong_type_is_refused_with_the_field(config, message, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, name: tmp_path / name)
    with pytest.raises(BadInput, match=re.escape("hf-hub:owner/name: config.json is damaged (")) as refusal:
        read("hf-hub:owner/name", TINY)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"padding": "reflect"}, "Invalid enum value 'reflect' - at `$.padding`"),
        ({"bn_eps": "small"}, "Expected `float`, got `str` - at `$.bn_eps`"),
        ({"activation": "hardswich"}, "Did you mean 'hardswish'?"),
        ({"preprocess": {**PREPROCESS.to_json(), "resolution": 5000}}, "expected 32 <= resolution"),
        ({"preprocess": {**PREPROCESS.to_json(), "mean": [1, 2]}}, "at `$.preprocess.mean`"),
        ({"class_names": [1]}, "Expected `str`, got `int` - at `$.class_names[0]`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_own_metadata_with_a_wrong_value_is_refused_with_the_field(change, words, tmp_path):
    own = {"variant": "phi-6", "padding": "same", "bn_eps": 0.001, "preprocess": PREPROCESS.to_json(), "class_names": []}
    save_file(state(create(TINY, classes=3)), tmp_path / "w.safetensors", {"edgeeff": json.dumps({**own, **change})})
    with pytest.raises(BadInput, match=r"w\.safetensors: damaged edgeeff metadata \(") as refusal:
        read(tmp_path / "w.safetensors", TINY)
    assert words in str(refusal.value)


def test_what_is_stated_later_replaces_what_was_stated_before():
    first = Conventions(padding="symmetric", bn_eps=1e-5, classes=10, variant="b0")
    assert first.updated(Conventions(bn_eps=1e-3, activation="relu")) == Conventions(
        padding="symmetric", bn_eps=1e-3, classes=10, variant="b0", activation="relu"
    )
    assert first.updated(Conventions()) == first


@pytest.mark.slow
@pytest.mark.parametrize(("file", "name"), [("v2_b0-imagenet.pth", "v2-b0"), ("lite0-imagenet.pth", "lite0")])
def test_published_weights_load_whole_and_recognise_photos(file, name):
    v = variant(name)
    model, checkpoint, fresh = load(data(f"weights/{file}"), v)
    assert (fresh, checkpoint.classes) == ([], 1000)
    photos = ImageSet.open(data("images/imagenet-samples-1000")).draw(24)
    preprocess = Preprocess(224, 256, v.mean, v.std)
    pixels = np.stack([preprocess(Image.open(path)) for path in photos.paths])
    right = (predict(model, preprocess)(pixels).argmax(1) == np.array(photos.labels)).sum()
    # 88% to 91% of all 1000 are right, so 21 to 22 of 24; fewer than 17 is rarer than 1 in 100 with sound weights and input.
    assert right >= 17


def test_published_backbone_is_refused_whole_and_taken_for_other_classes():
    path, b0 = data("weights/b0-imagenet-backbone.pth"), variant("b0")
    lacking = {"blocks.6.0.conv_pwl.weight", "conv_head.weight", "classifier.weight"}
    with pytest.raises(BadInput, match="3 missing") as refusal:
        load(path, b0)
    assert all(name in str(refusal.value) for name in lacking)
    model, _, fresh = load(path, b0, classes=12)
    assert set(fresh) == lacking | {"classifier.bias"}
    assert torch.equal(model.conv_stem.weight, read(path, b0).tensors["conv_stem.weight"])
    assert logits(model).shape == (2, 12)
