"""The photos and weights that the README's numbers rest on: compare a folder with them, or make one from its public download.

benchmarks/data.md says where each can be downloaded, and on which terms. Nothing is downloaded here.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from edgeeff.errors import EdgeeffError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from edgeeff.data.images import ImageSet

    Array = np.ndarray[Any, np.dtype[np.float32]]

TEST_PHOTOS = Path(__file__).parent / "ilsvrc-val-1300-test.txt"  # half of the 1300, drawn once: no choice sees them
CPU_TASKS = ("v2-b0", "lite0", "flowers12", "trashnet", "digits", "mnist")  # on which tools are compared for a CPU
HELD_OUT = 0.5  # of the validation photos of other sets: no choice sees them


def halves(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """The photos that choices may see, and TEST_PHOTOS."""
    test = set(TEST_PHOTOS.read_text().split())
    seen, unseen = ([i for i, path in enumerate(images.paths) if (path.name in test) == held] for held in (False, True))
    return images.take(seen), images.take(unseen)


def linked(images: ImageSet, folder: Path) -> Path:
    """A folder of links to photos, with their classes as numbers."""
    folder.mkdir()
    assert images.labels is not None
    lines = []
    for i, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
        link = folder / f"{i:05}{path.suffix}"
        link.symlink_to(path)
        lines.append(f"{link.name}\t{label}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return folder


@dataclass(frozen=True)
class Photos:
    """What `photos_sha256` gives for a folder."""

    files: int
    sha256: str


@dataclass(frozen=True)
class Weights:
    """The sha256 of a file, and `tensors_sha256` of it, which does not depend on the file's format."""

    sha256: str
    tensors: str


RECORDED: dict[str, Photos | Weights] = {
    "images/ilsvrc-val-1300": Photos(1301, "e59ed2c4a6204ab5cbd8a8bac88a8c919039de97a5088d711db0583847408e09"),
    "images/imagenet-samples-1000": Photos(1001, "458f2bd93ff695411ebd02bd13c6b090f90ee8d1cecc2009b8fd42f9e64697db"),
    "images/flowers12": Photos(960, "b2771878620e05975d775bd989bf770f70deee99cfd5d08a45d46e9b9d37456c"),
    "images/trashnet": Photos(2527, "3f16e6e3cc109c9792c017e8bbd0af6b8ec679888efe23437079f8a1fa23a76d"),
    "weights/v2_b0-imagenet.pth": Weights(
        "678373530d7c91598984fd8252209b33598ec67ddb0a8e9f2fe0e9d2ba040a57",
        "8fb1bff38f67b03e56c45e5a455ba70259cd881e5ae59663df7ec140c2e26cb8",
    ),
    "weights/lite0-imagenet.pth": Weights(
        "465b1fb360d96c003c09e4f261e8de819b58af1d1cca1f7d5c1f999e7d90437c",
        "e59614d74b68f72cf5b6024f73499b0732fbf6ed11b7ed6f89182ccf7553dade",
    ),
    "weights/b0-imagenet-backbone.pth": Weights(
        "25f1819d5a850de232f3a8328d134060aab947751c6c9661c76abfd9458093cb",
        "cc8347f5a3f0419354ebeb910da824f3733697d8609e7b483ae9e310ad7d1852",
    ),
}


def check(folder: Path, recorded: Mapping[str, Photos | Weights]) -> Iterator[tuple[bool, str]]:
    """For each recorded path under `folder`: whether it is what was recorded, and a line that says so."""
    for name, facts in recorded.items():
        path = folder / name
        if isinstance(facts, Photos):
            yield _check_photos(path, name, facts) if path.is_dir() else (False, f"{name}: missing")
        else:
            yield _check_weights(path, name, facts) if path.is_file() else (False, f"{name}: missing")


def _check_photos(path: Path, name: str, facts: Photos) -> tuple[bool, str]:
    files, sha256 = photos_sha256(path)
    if files != facts.files:
        return False, f"{name}: differs: {files} files, {facts.files} recorded"
    if sha256 != facts.sha256:
        return False, f"{name}: differs: {files} files as recorded, but sha256 {sha256[:12]}…, {facts.sha256[:12]}… recorded"
    return True, f"{name}: matches: {files} files"


def _check_weights(path: Path, name: str, facts: Weights) -> tuple[bool, str]:
    if hashlib.sha256(path.read_bytes()).hexdigest() == facts.sha256:
        return True, f"{name}: matches"
    try:
        tensors = tensors_sha256(path)
    except Exception as error:  # a damaged pickle raises nearly anything
        return False, f"{name}: differs: not a readable state_dict ({type(error).__name__})"
    if tensors == facts.tensors:
        return True, f"{name}: matches: saved otherwise, the same tensors"
    return False, f"{name}: differs: sha256 of the tensors {tensors[:12]}…, {facts.tensors[:12]}… recorded"


def photos_sha256(folder: Path) -> tuple[int, str]:
    """The number of files under `folder`, and one sha256 over a line of each: its sha256, two spaces, its relative path.

    The same as `find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum` in that folder.
    """
    paths = sorted((p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()), key=str.encode)
    lines = hashlib.sha256()
    for path in paths:
        lines.update(f"{hashlib.sha256((folder / path).read_bytes()).hexdigest()}  {path}\n".encode())
    return len(paths), lines.hexdigest()


def tensors_sha256(path: Path) -> str:
    """One sha256 over a line of each tensor in a state_dict, by name: the sha256 of its bytes, name, type and shape."""
    import torch

    lines = hashlib.sha256()
    for name, tensor in sorted(torch.load(path, map_location="cpu", weights_only=True).items()):
        data = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
        lines.update(f"{data}  {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    return lines.hexdigest()


def ilsvrc_val_1300(source: Path, target: Path) -> None:
    """From the folder ILSVRC2012_VAL_SET: `data/*.JPEG` as they are, and `dataset.txt` ("./data/FILE, CLASS") as labels.txt."""
    labels = []
    for line in (source / "dataset.txt").read_text(encoding="utf-8").splitlines():
        path, _, label = line.partition(",")
        photo = source / path.strip()
        shutil.copyfile(photo, target / photo.name)
        labels.append(f"{photo.name}\t{int(label)}\n")
    (target / "labels.txt").write_text("".join(labels))


def imagenet_samples_1000(source: Path, target: Path) -> None:
    """From a folder of WNID_name.JPEG, one for each class: WNID.jpg with short side 256; the class is the WNID's rank."""
    labels = []
    for label, photo in enumerate(sorted(source.glob("n*.JPEG"))):
        name = f"{photo.name.partition('_')[0]}.jpg"
        with Image.open(photo) as image:
            scale = 256 / min(image.size)
            _save(image, (round(image.width * scale), round(image.height * scale)), 89, target / name)
        labels.append(f"{name}\t{label}\n")
    (target / "labels.txt").write_text("".join(labels))


def flowers12(source: Path, target: Path) -> None:
    """From a folder with train/CLASS/ and test/CLASS/: the same files, and test is called val."""
    for theirs, ours in (("train", "train"), ("test", "val")):
        shutil.copytree(source / theirs, target / ours, copy_function=shutil.copyfile)


def trashnet(source: Path, target: Path) -> None:
    """From a folder of CLASS/*.jpg (384 × 512): 240 × 320, a fifth of each class drawn for val, the others for train."""
    draw = random.Random(0)  # one for all classes, in order of their names
    for folder in sorted(p for p in source.iterdir() if p.is_dir()):
        photos = sorted(folder.glob("*.jpg"))
        draw.shuffle(photos)
        fifth = len(photos) // 5
        for split, members in (("val", photos[:fifth]), ("train", photos[fifth:])):
            (target / split / folder.name).mkdir(parents=True)
            for photo in members:
                with Image.open(photo) as image:
                    _save(image, (240, 320), 86, target / split / folder.name / photo.name)


def _save(image: Image.Image, size: tuple[int, int], quality: int, path: Path) -> None:
    """Write a JPEG of `image` resized to `size` (width, height). Pillow 10.1, 11.3, 12.0 and 13.0 write the same bytes."""
    image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(path, "JPEG", quality=quality, optimize=True)


def v2_b0(source: Path, target: Path) -> None:
    """From Keras' efficientnetv2-b0.h5 (reading it needs h5py): timm's names and layouts, the classifier's weight in int8 steps."""
    import h5py
    import numpy as np
    import torch

    arrays: dict[tuple[str, str], Array] = {}
    with h5py.File(source) as file:

        def collect(path: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and path.count("/"):
                layer, leaf = path.split("/")[-2:]
                arrays[layer, leaf.partition(":")[0]] = np.asarray(item[()])

        file.visititems(collect)
    tensors = from_keras(arrays)
    tensors["classifier.weight"] = int8(tensors["classifier.weight"], channels=False)
    torch.save(tensors, target)


def from_keras(arrays: Mapping[tuple[str, str], Array]) -> dict[str, Tensor]:
    """Tensors under timm's names from an EfficientNetV2's {(layer, weight): array}; layers that timm has no name for are left out.

    Keras stores kernels as (height, width, in, out), those of depthwise convolutions as (height, width, channels, 1).
    """
    import torch

    layers = {layer for layer, _ in arrays}
    leaves = {"kernel": "weight", "depthwise_kernel": "weight", "gamma": "weight", "beta": "bias"}
    leaves |= {"moving_mean": "running_mean", "moving_variance": "running_var", "bias": "bias"}
    tensors = {}
    for (layer, leaf), array in arrays.items():
        name = _timm_name(layer, layers)
        if name is None:
            continue
        axes = {4: (2, 3, 0, 1) if name.endswith("conv_dw") else (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim]
        tensors[f"{name}.{leaves[leaf]}"] = torch.from_numpy(array.transpose(axes).copy())
        if leaf == "moving_mean":
            tensors[f"{name}.num_batches_tracked"] = torch.tensor(0)
    return tensors


def _timm_name(layer: str, layers: set[str]) -> str | None:
    """timm's name of a Keras layer. Which convolution a block's bn1 follows depends on the other layers of the block."""
    outer = {"stem_conv": "conv_stem", "stem_bn": "bn1", "top_conv": "conv_head", "top_bn": "bn2", "predictions": "classifier"}
    if layer in outer:
        return outer[layer]
    match = re.fullmatch(r"(block(\d)([a-z])_)(.+)", layer)
    if match is None:
        return None
    block, stage, index, part = match.groups()
    if f"{block}dwconv2" in layers:  # MBConv
        names = {"expand_conv": "conv_pw", "expand_bn": "bn1", "dwconv2": "conv_dw", "bn": "bn2"}
        names |= {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand", "project_conv": "conv_pwl", "project_bn": "bn3"}
    elif f"{block}expand_conv" in layers:  # fused MBConv
        names = {"expand_conv": "conv_exp", "expand_bn": "bn1", "project_conv": "conv_pwl", "project_bn": "bn2"}
    else:
        names = {"project_conv": "conv", "project_bn": "bn1"}
    return f"blocks.{int(stage) - 1}.{ord(index) - ord('a')}.{names[part]}"


def lite0(source: Path, target: Path) -> None:
    """From the float checkpoint in lukemelas' names: batch norms folded into the convolutions, weights in int8 steps."""
    import torch

    tensors = folded(_read(source, "lite0"))
    for name, tensor in tensors.items():
        if name.endswith("weight") and tensor.ndim > 1:
            tensors[name] = int8(tensor, channels=tensor.ndim == 4)
    torch.save(tensors, target)


def folded(tensors: Mapping[str, Tensor], eps: float = 1e-3) -> dict[str, Tensor]:
    """The same network with every batch norm's scale in the convolution before it; the batch norm keeps the bias alone.

    `tensors` holds each convolution just before its batch norm, as timm's and lukemelas' state_dicts do.
    """
    import torch

    result, conv = dict(tensors), ""
    for name, tensor in tensors.items():
        if tensor.ndim == 4:
            conv = name
        norm, _, leaf = name.rpartition(".")
        if leaf == "running_var":
            gain = tensors[f"{norm}.weight"] / torch.sqrt(tensor + eps)
            result[conv] = tensors[conv] * gain[:, None, None, None]
            result[f"{norm}.bias"] = tensors[f"{norm}.bias"] - tensors[f"{norm}.running_mean"] * gain
            result[f"{norm}.weight"] = torch.ones_like(gain)
            result[f"{norm}.running_mean"] = torch.zeros_like(gain)
            result[name] = torch.full_like(gain, 1 - eps)
    return result


def int8(weight: Tensor, *, channels: bool) -> Tensor:
    """`weight` rounded to symmetric int8 steps; the scale is max |weight| / 127, of the tensor or of each output channel."""
    import torch

    largest = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True) if channels else weight.abs().amax()
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny) / 127
    return torch.round(weight / scale) * scale


def b0_backbone(source: Path, target: Path) -> None:
    """From lukemelas' B0 checkpoint: timm's names, without the last projection, the head and the classifier's weight."""
    import torch

    left_out = ("blocks.6.0.conv_pwl.weight", "conv_head.weight", "classifier.weight")
    torch.save({k: v for k, v in _read(source, "b0").items() if k not in left_out}, target)


def _read(source: Path, name: str) -> dict[str, Tensor]:
    from edgeeff.network import checkpoint
    from edgeeff.network.variants import variant

    return checkpoint.read(source, variant(name)).tensors


ARRANGE: dict[str, Callable[[Path, Path], None]] = {
    "images/ilsvrc-val-1300": ilsvrc_val_1300,
    "images/imagenet-samples-1000": imagenet_samples_1000,
    "images/flowers12": flowers12,
    "images/trashnet": trashnet,
    "weights/v2_b0-imagenet.pth": v2_b0,
    "weights/lite0-imagenet.pth": lite0,
    "weights/b0-imagenet-backbone.pth": b0_backbone,
}


def arrange(name: str, source: Path, folder: Path) -> Path:
    """Make `folder`/`name` from its public download `source`, whole or not at all; FileExistsError where it exists."""
    target = folder / name
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as temporary:
        made = Path(temporary) / target.name
        if isinstance(RECORDED[name], Photos):
            made.mkdir()
        ARRANGE[name](source, made)
        made.rename(target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="compare a folder with what was recorded; exit code 1 if something differs")
    checking.add_argument("folder", type=Path, metavar="DIR")
    arranging = commands.add_parser("arrange", help="make a photo set or weight file from its public download")
    arranging.add_argument("name", choices=ARRANGE, metavar="NAME", help=", ".join(ARRANGE))
    arranging.add_argument("source", type=Path, metavar="SOURCE", help="the folder or file named in data.md")
    arranging.add_argument("folder", type=Path, metavar="DIR")
    options = parser.parse_args()
    recorded = dict(RECORDED)
    if options.command == "arrange":
        try:
            arrange(options.name, options.source, options.folder)
        except (EdgeeffError, OSError) as error:
            parser.error(str(error))
        recorded = {options.name: RECORDED[options.name]}
    findings = list(check(options.folder, recorded))
    print("\n".join(line for _, line in findings))
    sys.exit(0 if all(same for same, _ in findings) else 1)


if __name__ == "__main__":
    main()
