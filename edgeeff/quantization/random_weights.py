"""What a network is timed by before it has weights: the right graphs with random numbers in them, never to judge or ship."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.images import Preprocess, noise
from ..export import fp16 as half
from ..export import qdq
from ..export.onnx import to_onnx
from ..network.model import create
from ..network.variants import Activation, Variant
from ..target import Target
from . import fake_quant as fakequant
from .nncf_ptq import quantized_blindly


def prototypes(v: Variant, classes: int, target: Target, activation: Activation | None, folder: Path) -> dict[str, Path]:
    """The target's forms of a network, by precision; another activation than its own where one is named."""
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    model = create(replace(v, activation=activation or v.activation), classes=classes).eval()
    if target.scheme == "asymmetric":
        onnx = to_onnx(model, preprocess, folder / "model.onnx")
        plain, integer = (_new(folder, name) for name in ("float", "int8"))
        sources = {"float": target.runtime.compile(onnx, plain)}
        sources["int8"] = quantized_blindly(sources["float"], noise(v.resolution), integer)
        return {p: sources["int8" if p.startswith("int8") else "float"] for p in target.precisions}
    bare = fakequant.fold(model)
    onnx = to_onnx(bare, preprocess, folder / "model.onnx")
    steps = {name: (1.0, np.ones(len(layer.weight), np.float32)) for name, layer, _ in fakequant.layers(bare)}
    pointwise = {name: step for name, step in steps.items() if getattr(bare.get_submodule(name), "groups", 1) == 1}
    graph, mixed = (qdq.write(onnx, s, folder / f"{n}.onnx") for n, s in (("int8", steps), ("mixed", pointwise)))
    sources = {"float32": onnx, "int8": graph, "fp16": onnx, "int8-fp16": graph, "int8-mixed": mixed}
    return {
        p: sources[p] if p in ("float32", "int8") else half.write(sources[p], folder / f"{p}-baked.onnx") for p in target.precisions
    }


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name
