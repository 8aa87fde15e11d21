"""Weights from files: safetensors, `.pth`, the Hugging Face hub; timm's, torchvision's and lukemelas' names.

Nothing in a file is executed: pickles load with `weights_only=True`. A file that does not fit the network is refused with the list
of what is missing and surplus.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ..data.images import Preprocess, class_names
from ..errors import BadInput, Unreachable
from ..files import write_whole
from .model import EfficientNet, create
from .variants import VARIANTS, Activation, Padding, Variant


@dataclass(frozen=True)
class Checkpoint:
    """Tensors under this project's (timm's) names, and what the file says about how they were trained (None: it does not say)."""

    tensors: dict[str, Tensor]
    padding: Padding | None = None
    bn_eps: float | None = None
    preprocess: Preprocess | None = None
    class_names: tuple[str, ...] = ()
    variant: str | None = None
    activation: Activation | None = None

    @property
    def classes(self) -> int | None:
        for name in ("classifier.weight", "classifier.bias"):
            if name in self.tensors and self.tensors[name].ndim:
                return len(self.tensors[name])
        return None


def read(source: str | Path, variant: Variant) -> Checkpoint:
    """Read a local file or `hf-hub:owner/name`, with its tensors renamed for `variant`."""
    hub = str(source).startswith("hf-hub:")
    path, config = _download(str(source).removeprefix("hf-hub:")) if hub else (Path(source), {})
    tensors, metadata = _tensors(path)
    tensors, layout = _rename(tensors, variant)
    checkpoint = Checkpoint(tensors)
    if layout == "torchvision":
        checkpoint = replace(checkpoint, **_torchvision_conventions(variant))
    if layout == "lukemelas":
        checkpoint = replace(checkpoint, padding="same", bn_eps=1e-3)
    if config:
        checkpoint = replace(checkpoint, **_from_timm_config(config))
    return replace(checkpoint, **_from_own_metadata(path, metadata["edgeeff"])) if "edgeeff" in metadata else checkpoint


def load(
    source: str | Path,
    variant: Variant,
    *,
    classes: int | None = None,
    padding: Padding | None = None,
    resolution: int | None = None,
) -> tuple[EfficientNet, Checkpoint, list[str]]:
    """The network with the file's weights, what the file says, and the names of tensors left freshly initialised.

    All tensors must match, unless `classes` differs from the file's: then the classifier is new, and a missing tensor of the last
    stage or the head is initialised as well.
    """
    checkpoint = read(source, variant)
    if checkpoint.variant not in (None, variant.name):
        raise BadInput(f"{source}: holds {checkpoint.variant}, not {variant.name}. Give --variant {checkpoint.variant}.")
    variant = replace(variant, activation=checkpoint.activation or variant.activation)
    if resolution is None and checkpoint.preprocess is not None:
        resolution = checkpoint.preprocess.resolution
    model = create(
        variant,
        classes=classes or checkpoint.classes or 1000,
        padding=padding or checkpoint.padding,
        bn_eps=checkpoint.bn_eps,
        resolution=resolution,
    )
    wanted = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in checkpoint.tensors.items() if not k.endswith("num_batches_tracked")}
    fresh: list[str] = []
    if classes is not None and classes != checkpoint.classes:
        head = (f"blocks.{len(variant.stages) - 1}.", "conv_head.", "bn2.", "classifier.")
        given = {k: v for k, v in given.items() if not k.startswith("classifier.")}
        fresh = [k for k in wanted if k not in given and k.startswith(head)]
    missing = [k for k in wanted if k not in given and k not in fresh]
    surplus = [k for k in given if k not in wanted]
    shapes = [
        f"{k} {tuple(given[k].shape)} for {tuple(wanted[k].shape)}"
        for k in given
        if k in wanted and given[k].shape != wanted[k].shape
    ]
    if missing or surplus or shapes:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:4])}{' …' if len(names) > 4 else ''})"
            for what, names in (("missing", missing), ("surplus", surplus), ("of another shape", shapes))
            if names
        ]
        hint = _fitting(given)
        raise BadInput(f"{source}: not a checkpoint of {variant.name}: {', '.join(parts)}.{hint}")
    bad = [k for k, v in given.items() if not torch.isfinite(v.float()).all()]
    if bad:
        raise BadInput(f"{source}: {bad[0]} holds NaN or infinity.")
    model.load_state_dict({k: v.float() for k, v in given.items()}, strict=False)
    return model, checkpoint, fresh


def save(model: EfficientNet, path: Path, preprocess: Preprocess, class_names: tuple[str, ...]) -> None:
    """Write safetensors with everything needed to use the weights again; the file appears whole or not at all."""
    from safetensors.torch import save as to_bytes

    own = {
        "variant": model.variant.name,
        "activation": model.variant.activation,
        "padding": model.padding,
        "bn_eps": model.bn_eps,
        "preprocess": preprocess.to_json(),
        "class_names": class_names,
    }
    tensors = {k: v.contiguous() for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    write_whole(path, to_bytes(tensors, {"edgeeff": json.dumps(own)}))


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise BadInput(f"{path}: no such checkpoint. Expected a .safetensors or .pth file, or hf-hub:owner/name.")
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
    odd = [k for k, v in data.items() if v.layout != torch.strided or v.is_complex() or v.is_meta]
    if odd:
        raise BadInput(f"{path}: {odd[0]} is not a plain tensor of real numbers.")
    return {str(k).removeprefix("module."): v for k, v in data.items()}, {}


def _download(repository: str) -> tuple[Path, dict[str, Any]]:
    from huggingface_hub import hf_hub_download, logging
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its retries are not worth six lines

    try:
        config = json.loads(Path(hf_hub_download(repository, "config.json")).read_text(encoding="utf-8"))
        return Path(hf_hub_download(repository, "model.safetensors")), config
    except HFValidationError as error:
        raise BadInput(f"hf-hub:{repository}: expected hf-hub:owner/name.") from error
    except ValueError as error:
        raise BadInput(f"hf-hub:{repository}: config.json is damaged.") from error
    except Exception as error:  # its transports raise types of their own
        if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code in (401, 403, 404):
            raise BadInput(f"hf-hub:{repository}: no such public model with model.safetensors on the hub.") from error
        raise Unreachable(
            f"hf-hub:{repository}: the hub cannot be reached and no copy is cached. Download the file and give its path."
        ) from error


def _from_own_metadata(path: Path, text: str) -> dict[str, Any]:
    """What `save` wrote beside the tensors."""
    try:
        own = json.loads(text)
        facts = {key: own[key] for key in ("padding", "bn_eps", "variant")} | {"activation": own.get("activation")}
        if own["padding"] not in ("symmetric", "same"):
            raise ValueError(f"padding {own['padding']!r}")
        if facts["activation"] not in (None, *get_args(Activation)):
            raise ValueError(f"activation {facts['activation']!r}")
        return {
            **facts,
            "preprocess": Preprocess.from_json(own["preprocess"]),
            "class_names": class_names(own["class_names"], path),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: damaged edgeeff metadata ({error}).") from error


def _from_timm_config(config: dict[str, Any]) -> dict[str, Any]:
    """What a timm repository's config.json says of padding, batch norm and preprocessing."""
    pretrained = config.get("pretrained_cfg", {})
    resolution = int(pretrained.get("input_size", (3, 224, 224))[-1])
    mean = tuple(255 * m for m in pretrained.get("mean", (0.485, 0.456, 0.406)))
    std = tuple(255 * s for s in pretrained.get("std", (0.229, 0.224, 0.225)))
    interpolation = "bilinear" if pretrained.get("interpolation") == "bilinear" else "bicubic"
    resize = max(resolution, int(resolution / pretrained.get("crop_pct", 0.875)))
    tensorflow = str(config.get("architecture", "")).startswith("tf_")
    return {
        "padding": "same" if tensorflow else "symmetric",
        "bn_eps": 1e-3 if tensorflow else 1e-5,
        "preprocess": Preprocess(resolution, resize, mean, std, interpolation),  # type: ignore[arg-type]
    }


def _torchvision_conventions(v: Variant) -> dict[str, Any]:
    """It pads symmetrically; B5–B7 and V2 were trained with eps 1e-3, V2-S and V2-M there with ImageNet's mean and deviation."""
    facts: dict[str, Any] = {"padding": "symmetric", "bn_eps": 1e-3 if v.series == "v2" else v.bn_eps}
    if v.name in ("v2-s", "v2-m"):
        b0 = VARIANTS["b0"]
        facts["preprocess"] = Preprocess.standard(v.resolution, b0.mean, b0.std)
    return facts


def _rename(tensors: dict[str, Tensor], variant: Variant) -> tuple[dict[str, Tensor], str]:
    """The tensors under timm's names, and whose names they had."""
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


# Each block's layers in the order in which all three libraries run them: (convolution, batch norm) pairs.
_PAIRS = {
    "conv": [("conv", "bn1")],
    "fused": [("conv_exp", "bn1"), ("conv_pwl", "bn2")],
    "separable": [("conv_dw", "bn1"), ("conv_pw", "bn2")],
    "mbconv": [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")],
}


def _torchvision_names(variant: Variant) -> dict[str, str]:
    last = len(variant.stages) + 1
    names = {
        "features.0.0": "conv_stem",
        "features.0.1": "bn1",
        f"features.{last}.0": "conv_head",
        f"features.{last}.1": "bn2",
        "classifier.1": "classifier",
    }
    for b in variant.blocks():
        _, s, i = b.name.split(".")
        block = f"features.{int(s) + 1}.{i}.block"
        pairs = _PAIRS[b.kind]
        for p, (conv, bn) in enumerate(pairs):
            position = p + (1 if b.squeezed and p == len(pairs) - 1 else 0)
            names[f"{block}.{position}.0"] = f"{b.name}.{conv}"
            names[f"{block}.{position}.1"] = f"{b.name}.{bn}"
        names[f"{block}.{len(pairs) - 1}.fc1"] = f"{b.name}.se.conv_reduce"
        names[f"{block}.{len(pairs) - 1}.fc2"] = f"{b.name}.se.conv_expand"
    return names


def _lukemelas_names(variant: Variant) -> dict[str, str]:
    names = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    foreign = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
    for n, b in enumerate(variant.blocks()):
        pairs = _PAIRS[b.kind]
        for (conv, bn), (their_conv, their_bn) in zip(pairs, foreign[3 - len(pairs) :], strict=True):
            names[f"_blocks.{n}.{their_conv}"] = f"{b.name}.{conv}"
            names[f"_blocks.{n}.{their_bn}"] = f"{b.name}.{bn}"
        names[f"_blocks.{n}._se_reduce"] = f"{b.name}.se.conv_reduce"
        names[f"_blocks.{n}._se_expand"] = f"{b.name}.se.conv_expand"
    return names


def _fitting(tensors: dict[str, Tensor]) -> str:
    """A hint naming the variants whose backbone the tensors do fit."""
    shapes = {k: v.shape for k, v in tensors.items() if k.endswith("weight") and not k.startswith("classifier")}
    names = []
    for name, v in VARIANTS.items():
        with torch.device("meta"):
            theirs = {k: p.shape for k, p in create(v).named_parameters()}
        if (
            shapes
            and all(theirs.get(k) == shape for k, shape in shapes.items())
            and len(shapes) > 0.8 * sum(k.endswith("weight") for k in theirs)
        ):
            names.append(name)
    return f" It fits {' or '.join(names)}." if names else ""
