"""Weights from files: safetensors, `.pth`, the Hugging Face hub; under the names of timm, torchvision or lukemelas.

Nothing in a file is executed: pickles are loaded with `weights_only=True`. A file that does not fit the network is refused with the
names of missing and surplus tensors.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import torch
from torch import Tensor

from ..data.labels import MOST_CLASSES, class_names
from ..data.preprocess import Preprocess
from ..errors import BadInput, Unreachable
from ..files import open_file, user_path, write_whole
from ..progress import debugging
from . import activations
from .activations import Activation
from .architecture import ConvSpec, Padding, SqueezeExciteSpec, Variant
from .model import EfficientNet, create
from .variants import VARIANTS

CHECKPOINT_BYTES = 10_000_000_000


@dataclass(frozen=True)
class Conventions:
    """How weights were trained and are to be used. None, or empty, is what the file does not say."""

    padding: Padding | None = None
    bn_eps: float | None = None
    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] = ()
    classes: int | None = None
    variant: str | None = None
    activation: Activation | None = None

    def updated(self, later: Conventions) -> Conventions:
        """These, replaced by what `later` does say."""
        return Conventions(
            padding=later.padding or self.padding,
            bn_eps=self.bn_eps if later.bn_eps is None else later.bn_eps,
            preprocess=later.preprocess or self.preprocess,
            class_names=later.class_names or self.class_names,
            classes=self.classes if later.classes is None else later.classes,
            variant=later.variant or self.variant,
            activation=later.activation or self.activation,
        )


@dataclass(frozen=True)
class Checkpoint:
    """Tensors under timm's names, which are those of `model.py`, and the conventions that the file states.

    `written` are the tensors under the file's own names.
    """

    tensors: dict[str, Tensor]
    conventions: Conventions
    written: dict[str, Tensor]


class TimmPretrained(msgspec.Struct, frozen=True):
    """The part of timm's `pretrained_cfg` that matters here, with timm's defaults. `mean` and `std` are of pixels from 0 to 1."""

    input_size: tuple[int, int, int] = (3, 224, 224)
    crop_pct: Annotated[float, msgspec.Meta(gt=0)] = 0.875
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"


class TimmConfig(msgspec.Struct, frozen=True):
    """The part that matters here of the config.json in a timm repository."""

    architecture: str = ""
    pretrained_cfg: TimmPretrained = TimmPretrained()

    def conventions(self) -> Conventions:
        """Those of its weights: ported from TensorFlow if the name says so, otherwise trained in PyTorch."""
        tensorflow = self.architecture.startswith("tf_")
        cfg = self.pretrained_cfg
        resolution = cfg.input_size[-1]
        return Conventions(
            padding="same" if tensorflow else "symmetric",
            bn_eps=1e-3 if tensorflow else 1e-5,
            preprocess=Preprocess(
                resolution,
                max(resolution, int(resolution / cfg.crop_pct)),
                _in_pixels(cfg.mean),
                _in_pixels(cfg.std),
                "bilinear" if cfg.interpolation == "bilinear" else "bicubic",
            ),
        )


class Metadata(msgspec.Struct, frozen=True):
    """What `save` writes beside the tensors."""

    variant: str
    padding: Padding
    bn_eps: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    preprocess: Preprocess
    class_names: tuple[str, ...]
    activation: Activation | None = None


def read(source: str | Path, variant: Variant) -> Checkpoint:
    """Read a local file or `hf-hub:owner/name`, with its tensors renamed for `variant`. Raises BadInput or Unreachable."""
    stated = Conventions()
    path = Path(source)
    if str(source).startswith("hf-hub:"):
        path, stated = _download(str(source).removeprefix("hf-hub:"))
    tensors, metadata = _tensors(path)
    for name, tensor in _without_counters(tensors).items():
        if tensor.layout != torch.strided or tensor.is_meta or not tensor.is_floating_point():
            raise BadInput(f"{path}: {name} is of {tensor.dtype}, not a plain tensor of floating-point numbers.")
    written = tensors
    tensors, layout = _renamed(written, variant)
    if (classes := _classes(tensors)) is not None and not 1 <= classes <= MOST_CLASSES:
        raise BadInput(f"{path}: a classifier of {classes} classes, expected 1 to {MOST_CLASSES}.")
    conventions = Conventions(classes=classes).updated(_layout_conventions(layout, variant)).updated(stated)
    if "edgeeff" in metadata:
        own = _own_conventions(path, metadata["edgeeff"])
        if own.class_names and len(own.class_names) != classes:
            raise BadInput(f"{path}: damaged edgeeff metadata ({len(own.class_names)} names for {classes} classes).")
        conventions = conventions.updated(own)
    return Checkpoint(tensors, conventions, written)


def load(
    source: str | Path,
    variant: Variant,
    *,
    classes: int | None = None,
    padding: Padding | None = None,
    resolution: int | None = None,
) -> tuple[EfficientNet, Conventions, list[str]]:
    """The network with the file's weights, the file's conventions, and the names of tensors that are freshly initialised.

    All tensors must match, unless `classes` differs from the file's: then the classifier is new, and a missing tensor of the last
    stage or the head is initialised as well. Raises BadInput otherwise.
    """
    checkpoint = read(source, variant)
    conventions = checkpoint.conventions
    if conventions.variant not in (None, variant.name):
        raise BadInput(f"{source}: holds {conventions.variant}, not {variant.name}. Give --variant {conventions.variant}.")
    variant = replace(variant, activation=conventions.activation or variant.activation)
    if resolution is None and conventions.preprocess is not None:
        resolution = conventions.preprocess.resolution
    model = create(
        variant,
        classes=classes or conventions.classes or 1000,
        padding=padding or conventions.padding,
        bn_eps=conventions.bn_eps,
        resolution=resolution,
    )
    wanted, given = _without_counters(model.state_dict()), _without_counters(checkpoint.tensors)
    fresh: list[str] = []
    head = (f"blocks.{len(variant.stages) - 1}.", f"{variant.head_conv.name}.", f"{variant.head_conv.bn}.", "classifier.")
    if classes is not None and classes != conventions.classes:
        given = {k: v for k, v in given.items() if not k.startswith("classifier.")}
        fresh = [k for k in wanted if k not in given and k.startswith(head)]
    if differences := _differences(given, wanted, fresh):
        remedy = _remedy(checkpoint, variant, head)
        raise BadInput(f"{source}: not a checkpoint of {variant.name}: {', '.join(differences)}.{remedy}")
    if bad := [k for k, v in given.items() if not torch.isfinite(v.float()).all()]:
        raise BadInput(f"{source}: {bad[0]} holds NaN or infinity.")
    if bad := [k for k, v in given.items() if k.endswith("running_var") and (v < 0).any()]:
        raise BadInput(f"{source}: {bad[0]} holds a variance below 0.")
    model.load_state_dict({k: v.float() for k, v in given.items()}, strict=False)
    return model, conventions, fresh


def save(model: EfficientNet, path: Path, preprocess: Preprocess, class_names: tuple[str, ...]) -> None:
    """Write safetensors with everything needed to use the weights again; the file appears whole or not at all."""
    from safetensors.torch import save as to_bytes

    variant = model.variant
    metadata = Metadata(variant.name, model.padding, model.bn_eps, preprocess, class_names, variant.activation)
    tensors = {k: v.contiguous() for k, v in _without_counters(model.state_dict()).items()}
    write_whole(path, to_bytes(tensors, {"edgeeff": msgspec.json.encode(metadata).decode()}))


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A local file's tensors, and of safetensors the metadata."""
    with user_path(path, "read"):
        if not path.exists():
            hub = f" For a model of the Hugging Face hub, give hf-hub:{path}." if len(path.parts) == 2 else ""
            raise BadInput(f"{path}: no such checkpoint. Expected a .safetensors or .pth file, or hf-hub:owner/name.{hub}")
        with open_file(path, CHECKPOINT_BYTES) as file:
            if path.suffix != ".safetensors":
                _refuse_compressed(path, file)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path}: not a readable safetensors file ({error}).") from error
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadInput(f"{path}: refused: the pickle holds more than tensors, or is damaged. Save the state_dict alone.") from error
    except Exception as error:  # a damaged pickle stream raises nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BadInput(f"{path}: not a readable checkpoint ({reason}).") from error
    for key in ("state_dict", "model"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not data or not all(isinstance(v, Tensor) for v in data.values()):
        raise BadInput(f"{path}: expected a state_dict (names to tensors), found {type(data).__name__}.")
    return {str(k).removeprefix("module."): v for k, v in data.items()}, {}


def _refuse_compressed(path: Path, file: BinaryIO) -> None:
    """A checkpoint is as large as its tensors, unless somebody compressed it to be larger than memory."""
    try:
        entries = zipfile.ZipFile(file).infolist() if zipfile.is_zipfile(file) else []
    except Exception as error:  # a damaged archive raises nearly anything
        raise BadInput(f"{path}: not a readable checkpoint ({error}).") from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise BadInput(f"{path}: a compressed archive, expected one that torch.save wrote.")


def _download(repository: str) -> tuple[Path, Conventions]:
    from huggingface_hub import hf_hub_download, logging
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not debugging():
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it would log six lines for each attempt that fails

    try:
        text = Path(hf_hub_download(repository, "config.json")).read_bytes()
        path = Path(hf_hub_download(repository, "model.safetensors"))
    except HFValidationError as error:
        raise BadInput(f"hf-hub:{repository}: expected hf-hub:owner/name.") from error
    except Exception as error:  # each of its transports raises types of its own
        if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code in (401, 403, 404):
            raise BadInput(f"hf-hub:{repository}: no such public model with model.safetensors on the hub.") from error
        raise Unreachable(
            f"hf-hub:{repository}: the hub cannot be reached and no copy is cached. Download the file and give its path."
        ) from error
    try:
        return path, msgspec.json.decode(text, type=TimmConfig).conventions()
    except (msgspec.DecodeError, ValueError, ArithmeticError, RecursionError, BadInput) as error:
        raise BadInput(f"hf-hub:{repository}: config.json is damaged ({error}).") from error


def _own_conventions(path: Path, text: str) -> Conventions:
    """What `save` wrote beside the tensors."""
    try:
        own = msgspec.json.decode(text, type=Metadata)
        if own.activation is not None:
            activations.get(own.activation)
    except (msgspec.DecodeError, ValueError, RecursionError, BadInput) as error:
        raise BadInput(f"{path}: damaged edgeeff metadata ({error}).") from error
    names = class_names(own.class_names, path)
    return Conventions(own.padding, own.bn_eps, own.preprocess, names, None, own.variant, own.activation)


def _layout_conventions(layout: str, v: Variant) -> Conventions:
    """What is known of the published weights of the library whose names the tensors have."""
    if layout == "lukemelas":
        return Conventions(padding="same", bn_eps=1e-3)
    if layout != "torchvision":
        return Conventions()
    # torchvision trained B5–B7 and V2 with eps 1e-3, and V2-S and V2-M with ImageNet's mean and standard deviation.
    imagenet = VARIANTS["b0"]
    preprocess = Preprocess.standard(v.resolution, imagenet.mean, imagenet.std) if v.name in ("v2-s", "v2-m") else None
    return Conventions(padding="symmetric", bn_eps=1e-3 if v.series == "v2" else v.bn_eps, preprocess=preprocess)


def _in_pixels(shares: tuple[float, float, float]) -> tuple[float, float, float]:
    red, green, blue = shares
    return 255 * red, 255 * green, 255 * blue


def _classes(tensors: Mapping[str, Tensor]) -> int | None:
    """The number of classes, by the classifier's shape."""
    for name in ("classifier.weight", "classifier.bias"):
        if name in tensors and tensors[name].ndim:
            return len(tensors[name])
    return None


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All but the batch norms' counts of batches, which some checkpoints have and nothing reads."""
    return {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}


def _renamed(tensors: dict[str, Tensor], variant: Variant) -> tuple[dict[str, Tensor], str]:
    """The tensors under timm's names, and the library whose names they had."""
    if any(k.startswith("features.") for k in tensors):
        layout, prefixes = "torchvision", _torchvision_names(variant)
    elif any(k.startswith("_blocks.") for k in tensors):
        layout, prefixes = "lukemelas", _lukemelas_names(variant)
    else:
        return tensors, "timm"
    renamed = {}
    for key, value in tensors.items():
        prefix, _, leaf = key.rpartition(".")
        renamed[f"{prefixes[prefix]}.{leaf}" if prefix in prefixes else key] = value
    return renamed, layout


def _torchvision_names(variant: Variant) -> dict[str, str]:
    """timm's name of each module by torchvision's, which numbers a block's layers in the order in which they run."""
    stem, head, last = variant.stem_conv, variant.head_conv, len(variant.stages) + 1
    names = {
        "features.0.0": stem.name,
        "features.0.1": stem.bn,
        f"features.{last}.0": head.name,
        f"features.{last}.1": head.bn,
        "classifier.1": "classifier",
    }
    for b in variant.blocks():
        for position, layer in enumerate(b.layers()):
            theirs, ours = f"features.{b.stage + 1}.{b.index}.block.{position}", f"{b.name}.{layer.name}"
            if isinstance(layer, ConvSpec):
                names |= {f"{theirs}.0": ours, f"{theirs}.1": f"{b.name}.{layer.bn}"}
            else:
                names |= {f"{theirs}.fc{n}": f"{ours}.{conv.name}" for n, conv in enumerate(layer.convs, 1)}
    return names


def _lukemelas_names(variant: Variant) -> dict[str, str]:
    """timm's name of each module by lukemelas', which counts blocks through all stages; a block's last convolution is `project`."""
    stem, head = variant.stem_conv, variant.head_conv
    names = {"_conv_stem": stem.name, "_bn0": stem.bn, "_conv_head": head.name, "_bn1": head.bn, "_fc": "classifier"}
    for n, b in enumerate(variant.blocks()):
        convs = [layer for layer in b.layers() if isinstance(layer, ConvSpec)]
        roles = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")][-len(convs) :]
        for layer, (their_conv, their_bn) in zip(convs, roles, strict=True):
            names |= {f"_blocks.{n}.{their_conv}": f"{b.name}.{layer.name}", f"_blocks.{n}.{their_bn}": f"{b.name}.{layer.bn}"}
        for gate in (layer for layer in b.layers() if isinstance(layer, SqueezeExciteSpec)):
            for theirs, conv in zip(("_se_reduce", "_se_expand"), gate.convs, strict=True):
                names[f"_blocks.{n}.{theirs}"] = f"{b.name}.{gate.name}.{conv.name}"
    return names


def _differences(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], fresh: list[str]) -> list[str]:
    """What of a checkpoint does not fit the network, with the first four names of each kind."""
    shapes = [
        f"{k} {tuple(given[k].shape)} for {tuple(wanted[k].shape)}"
        for k in given
        if k in wanted and given[k].shape != wanted[k].shape
    ]
    kinds = {
        "missing": [k for k in wanted if k not in given and k not in fresh],
        "surplus": [k for k in given if k not in wanted],
        "of another shape": shapes,
    }
    return [f"{len(n)} {what} ({', '.join(n[:4])}{' …' if len(n) > 4 else ''})" for what, n in kinds.items() if n]


def _remedy(checkpoint: Checkpoint, wanted: Variant, head: tuple[str, ...]) -> str:
    """The variants that a checkpoint fits whole, or what makes it fit the one that is wanted; empty where nothing is known."""
    names = [name for name, v in VARIANTS.items() if _fits(checkpoint, v)]
    if names:
        return f" It fits {' or '.join(names)}. Give --variant {names[0]}."
    if _fits(checkpoint, wanted, without=head):
        return " It has no whole classifier, the rest fits: give --train, labelled photos that it learns one from."
    return ""


def _fits(checkpoint: Checkpoint, v: Variant, without: tuple[str, ...] = ()) -> bool:
    """Whether a file's tensors are those of a variant; those that begin with one of `without` may be missing."""
    given = _without_counters(_renamed(checkpoint.written, v)[0])
    blocks = {".".join(k.split(".")[:3]) for k in given if k.startswith("blocks.")}
    if not without and blocks != {b.name for b in v.blocks()}:  # which is known before a network is made
        return False
    with torch.device("meta"):
        theirs = _without_counters(create(v, classes=checkpoint.conventions.classes or 1000).state_dict())
    return not _differences(given, theirs, [k for k in theirs if k.startswith(without)] if without else [])
