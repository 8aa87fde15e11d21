"""benchmarks/data.py on small made files; the recorded hashes only where the recorded files are at hand."""

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from edgeeff.network.model import create
from edgeeff.network.variants import variant

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks/data.py"
DATA = ROOT.parent / "shared/data"


def loaded() -> ModuleType:
    """The script as a module of another name: `data` is also a folder of tests."""
    spec = importlib.util.spec_from_file_location("benchmarks_data", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


data = loaded()


def photo(path: Path, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, "JPEG")


def answers(folder: Path, recorded: dict) -> list[tuple[bool, str]]:
    return list(data.check(folder, recorded))


def test_photos_hash_as_sha256sum_lists_them(tmp_path: Path):
    for name in ("b/x.jpg", "a.txt", "b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    listing = "".join(f"{hashlib.sha256(n.encode()).hexdigest()}  {n}\n" for n in ("a.txt", "b.txt", "b/x.jpg"))
    assert data.photos_sha256(tmp_path) == (3, hashlib.sha256(listing.encode()).hexdigest())


def test_check_tells_matching_changed_and_missing_photos_apart(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a").write_text("a")
    recorded = {"set": data.Photos(*data.photos_sha256(tmp_path / "set")), "other": data.Photos(1, "")}
    assert answers(tmp_path, recorded) == [(True, "set: matches: 1 files"), (False, "other: missing")]
    (tmp_path / "set/a").write_text("b")
    assert answers(tmp_path, recorded)[0][0] is False
    assert "1 files as recorded, but sha256" in answers(tmp_path, recorded)[0][1]
    (tmp_path / "set/b").write_text("b")
    assert answers(tmp_path, recorded)[0] == (False, "set: differs: 2 files, 1 recorded")


def test_check_compares_weights_by_file_and_else_by_tensor(tmp_path: Path):
    tensors = {"a": torch.arange(3.0), "b": torch.tensor(1)}
    first, path = tmp_path / "first.pth", tmp_path / "w.pth"
    torch.save(tensors, first)
    recorded = {"w.pth": data.Weights(hashlib.sha256(first.read_bytes()).hexdigest(), data.tensors_sha256(first))}
    assert answers(tmp_path, recorded) == [(False, "w.pth: missing")]
    path.write_bytes(first.read_bytes())
    assert answers(tmp_path, recorded) == [(True, "w.pth: matches")]
    torch.save(dict(reversed(tensors.items())), path, _use_new_zipfile_serialization=False)
    assert answers(tmp_path, recorded) == [(True, "w.pth: matches: saved otherwise, the same tensors")]
    for other in ({"a": torch.arange(3.0) + 1}, {"a": torch.arange(3.0).reshape(3, 1)}, {"c": torch.arange(3.0)}):
        torch.save(tensors | other, path)
        assert answers(tmp_path, recorded)[0][1].startswith("w.pth: differs: sha256 of the tensors")
    path.write_bytes(b"no pickle")
    assert answers(tmp_path, recorded)[0][1].startswith("w.pth: differs: not a readable state_dict")


def test_check_exits_with_1_where_something_is_missing(tmp_path: Path):
    done = subprocess.run([sys.executable, SCRIPT, "check", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{name}: missing" for name in data.RECORDED]


def test_ilsvrc_photos_keep_their_bytes_and_get_a_labels_file(tmp_path: Path):
    source = tmp_path / "ILSVRC2012_VAL_SET"
    for name in ("v_2.JPEG", "v_1.JPEG", "unlisted.JPEG"):
        photo(source / "data" / name)
    (source / "dataset.txt").write_text("./data/v_1.JPEG, 472\n./data/v_2.JPEG, 0\n")
    target = data.arrange("images/ilsvrc-val-1300", source, tmp_path / "out")
    assert target == tmp_path / "out/images/ilsvrc-val-1300"
    assert (target / "labels.txt").read_text() == "v_1.JPEG\t472\nv_2.JPEG\t0\n"
    assert (target / "v_2.JPEG").read_bytes() == (source / "data/v_2.JPEG").read_bytes()
    assert sorted(p.name for p in target.iterdir()) == ["labels.txt", "v_1.JPEG", "v_2.JPEG"]


def test_imagenet_samples_get_a_short_side_of_256_and_the_rank_as_class(tmp_path: Path):
    photo(tmp_path / "in/n02_b_c.JPEG", (376, 263))
    photo(tmp_path / "in/n01_a.JPEG", (263, 300), "L")
    (tmp_path / "in/README.md").write_text("")
    target = data.arrange("images/imagenet-samples-1000", tmp_path / "in", tmp_path / "out")
    assert (target / "labels.txt").read_text() == "n01.jpg\t0\nn02.jpg\t1\n"
    with Image.open(target / "n01.jpg") as first, Image.open(target / "n02.jpg") as second:
        assert (first.size, first.mode, second.size) == ((256, 292), "RGB", (366, 256))


def test_flowers_test_set_is_called_val(tmp_path: Path):
    for name in ("train/iris/image_0001.jpg", "test/iris/image_0002.jpg", "train_augmented/iris/image_0003.jpg"):
        photo(tmp_path / "in" / name)
    target = data.arrange("images/flowers12", tmp_path / "in", tmp_path / "out")
    files = sorted(p.relative_to(target).as_posix() for p in target.rglob("*.jpg"))
    assert files == ["train/iris/image_0001.jpg", "val/iris/image_0002.jpg"]
    assert (target / files[1]).read_bytes() == (tmp_path / "in/test/iris/image_0002.jpg").read_bytes()


def test_trashnet_draws_a_fifth_of_each_class_for_val(tmp_path: Path):
    for kind, count in (("glass", 9), ("cardboard", 11)):
        for i in range(count):
            photo(tmp_path / "in" / kind / f"{kind}{i}.jpg", (48, 64))
    target = data.arrange("images/trashnet", tmp_path / "in", tmp_path / "out")
    split = {
        kind: {s: {p.name for p in (target / s / kind).iterdir()} for s in ("train", "val")} for kind in ("cardboard", "glass")
    }
    # The generator of seed 0 goes on from the first class to the second; started anew, it would draw glass7.jpg.
    assert split["cardboard"]["val"] == {"cardboard7.jpg", "cardboard8.jpg"}
    assert split["glass"]["val"] == {"glass5.jpg"}
    assert [len(split[kind]["train"]) for kind in split] == [9, 8]
    with Image.open(target / "val/glass/glass5.jpg") as image:
        assert image.size == (240, 320)


def test_an_existing_set_is_kept_and_a_failed_one_leaves_nothing(tmp_path: Path):
    with pytest.raises(OSError, match="nowhere"):
        data.arrange("images/flowers12", tmp_path / "nowhere", tmp_path / "out")
    assert list((tmp_path / "out/images").iterdir()) == []
    (tmp_path / "out/images/flowers12").mkdir()
    with pytest.raises(FileExistsError, match="flowers12 exists already"):
        data.arrange("images/flowers12", tmp_path / "nowhere", tmp_path / "out")


# A block's Keras layers and timm's names of them.
KERAS = {
    "conv": {"project_conv": "conv", "project_bn": "bn1"},
    "fused": {"expand_conv": "conv_exp", "expand_bn": "bn1", "project_conv": "conv_pwl", "project_bn": "bn2"},
    "mbconv": {
        **{"expand_conv": "conv_pw", "expand_bn": "bn1", "dwconv2": "conv_dw", "bn": "bn2", "se_reduce": "se.conv_reduce"},
        **{"se_expand": "se.conv_expand", "project_conv": "conv_pwl", "project_bn": "bn3"},
    },
}


def test_keras_arrays_become_all_tensors_of_v2_b0():
    wanted = dict(create(variant("v2-b0")).state_dict())
    kinds = {"0": "conv", "1": "fused", "2": "fused", "3": "mbconv", "4": "mbconv", "5": "mbconv"}
    theirs = {"conv_stem": "stem_conv", "bn1": "stem_bn", "conv_head": "top_conv", "bn2": "top_bn", "classifier": "predictions"}
    for stage, index in {tuple(k.split(".")[1:3]) for k in wanted if k.startswith("blocks.")}:
        for keras, timm in KERAS[kinds[stage]].items():
            theirs[f"blocks.{stage}.{index}.{timm}"] = f"block{int(stage) + 1}{'abcdefgh'[int(index)]}_{keras}"
    arrays = {("normalization", "mean"): np.zeros(3, np.float32)}
    for name, tensor in wanted.items():
        layer, leaf = name.rsplit(".", 1)
        norm = "running_mean" in {k.rsplit(".", 1)[1] for k in wanted if k.rsplit(".", 1)[0] == layer}
        leaf = {"weight": "gamma" if norm else "kernel", "bias": "beta" if norm else "bias"}.get(leaf, leaf)
        leaf = {"running_mean": "moving_mean", "running_var": "moving_variance"}.get(leaf, leaf)
        if layer.endswith("conv_dw"):
            arrays[theirs[layer], "depthwise_kernel"] = np.moveaxis(tensor.numpy(), (0, 1), (2, 3))  # (C, 1, H, W) → (H, W, C, 1)
        elif tensor.ndim == 4:
            arrays[theirs[layer], leaf] = np.moveaxis(tensor.numpy(), (0, 1), (3, 2))  # (O, I, H, W) → (H, W, I, O)
        elif leaf != "num_batches_tracked":
            arrays[theirs[layer], leaf] = tensor.numpy().T if tensor.ndim == 2 else tensor.numpy()
    made = data.from_keras(arrays)
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[k], v) for k, v in wanted.items())


def test_int8_steps_are_of_the_tensor_or_of_each_channel():
    weight = torch.tensor([[127.0, 0.6], [1.27, 0.006]])
    assert torch.equal(data.int8(weight, channels=False), torch.tensor([[127.0, 1.0], [1.0, 0.0]]))
    assert torch.allclose(data.int8(weight, channels=True), torch.tensor([[127.0, 1.0], [1.27, 0.01]]))
    assert torch.equal(data.int8(torch.zeros(2, 2), channels=True), torch.zeros(2, 2))


def lukemelas(name: str) -> dict[str, torch.Tensor]:
    """A random state_dict of B0 or Lite0 in lukemelas' names, each written as in his repository."""
    state, repeats, made = create(variant(name), bn_eps=1e-3).state_dict(), (1, 2, 2, 3, 3, 4, 1), {}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    later = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1", "conv_pwl": "_project_conv"}
    later |= {"bn3": "_bn2"}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    squeeze = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
    for key, tensor in state.items():
        layer, leaf = key.rsplit(".", 1)
        theirs = outer.get(layer)
        if theirs is None:
            _, stage, index, part = layer.split(".", 3)
            names = (first if stage == "0" else later) | squeeze
            theirs = f"_blocks.{sum(repeats[: int(stage)]) + int(index)}.{names[part]}"
        made[f"{theirs}.{leaf}"] = torch.rand_like(tensor) + 0.5 if tensor.is_floating_point() else tensor
    return made


def test_b0_backbone_is_renamed_and_lacks_three_tensors(tmp_path: Path):
    torch.save(lukemelas("b0"), tmp_path / "b0.pth")
    made = torch.load(data.arrange("weights/b0-imagenet-backbone.pth", tmp_path / "b0.pth", tmp_path / "out"), weights_only=True)
    missing = set(create(variant("b0")).state_dict()) - made.keys()
    assert missing == {"blocks.6.0.conv_pwl.weight", "conv_head.weight", "classifier.weight"}
    assert torch.equal(made["blocks.1.1.conv_dw.weight"], torch.load(tmp_path / "b0.pth")["_blocks.2._depthwise_conv.weight"])


def test_lite0_with_folded_batch_norms_computes_the_same():
    network = create(variant("lite0"), bn_eps=1e-3).eval()
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for values in (layer.weight.data, layer.running_var):
                values.uniform_(0.5, 1.5)
            for values in (layer.bias.data, layer.running_mean):
                values.uniform_(-0.2, 0.2)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = network(images)
        made = data.folded(network.state_dict())
        network.load_state_dict(made)
        assert torch.allclose(network(images), before, atol=1e-5 * before.abs().max())
    assert torch.all(made["bn1.weight"] / torch.sqrt(made["bn1.running_var"] + 1e-3) == 1)


def test_lite0_weights_lie_on_int8_steps(tmp_path: Path):
    torch.save(lukemelas("lite0"), tmp_path / "lite0.pth")
    made = torch.load(data.arrange("weights/lite0-imagenet.pth", tmp_path / "lite0.pth", tmp_path / "out"), weights_only=True)
    assert made.keys() == create(variant("lite0")).state_dict().keys()
    conv, linear = made["conv_head.weight"], made["classifier.weight"]
    for steps in (127 * conv / conv.abs().amax((1, 2, 3), keepdim=True), 127 * linear / linear.abs().amax()):
        assert torch.allclose(steps, steps.round(), atol=1e-4)


def test_data_md_names_every_recorded_number():
    text = (ROOT / "benchmarks/data.md").read_text(encoding="utf-8")
    for name, facts in data.RECORDED.items():
        assert f"`{name}`" in text
        assert facts.sha256 in text
        assert (str(facts.files) if isinstance(facts, data.Photos) else facts.tensors) in text


def test_the_recorded_files_match():
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here")
    wrong = [line for same, line in data.check(DATA, data.RECORDED) if not same]
    assert wrong == []
