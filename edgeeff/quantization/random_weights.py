"""A target's forms of a network with meaningless ranges or weights: to measure latency in seconds, never to judge or ship."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..context import NetworkContext
from ..data.images import noise
from ..data.preprocess import Preprocess
from ..export import fp16, qdq
from ..export.onnx import to_onnx
from ..network.architecture import Variant
from ..network.model import EfficientNet, create
from ..precision import Precision
from ..records import dump_json, read_json
from ..target import Target
from .fake_quant import fold_batch_norms, is_depthwise, layers
from .nncf_ptq import quantize_for_timing


def random_forms(v: Variant, classes: int, target: Target, activation: str | None, folder: Path) -> dict[Precision, Path]:
    """The file of each of the target's precisions; with another activation than the variant's where one is named."""
    model = create(replace(v, activation=activation or v.activation), classes=classes).eval()
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    return forms_for_timing(model, preprocess, target, target.precisions, folder)


def forms_for_timing(
    model: EfficientNet, preprocess: Preprocess, target: Target, precisions: Collection[Precision], folder: Path
) -> dict[Precision, Path]:
    """The file of each of these precisions of a target: as fast as those that ship, and of no use otherwise."""
    if target.scheme == "symmetric":
        return _symmetric(model, preprocess, precisions, folder)
    return _asymmetric(model, preprocess, precisions, target, folder)


def kept_for_timing(
    context: NetworkContext, name: str, model: EfficientNet, preprocess: Preprocess, precisions: Collection[Precision]
) -> dict[Precision, Path]:
    """`forms_for_timing` for a fit's target, made once; `name` tells the model from the fit's others."""

    def make(folder: Path) -> None:
        forms = forms_for_timing(model, preprocess, context.target, precisions, folder)
        (folder / "forms.json").write_text(dump_json({str(p): str(f.relative_to(folder)) for p, f in forms.items()}))

    folder = context.cache.within("timed").once("-".join([name, *map(str, precisions)]), make)
    return {Precision(p): folder / file for p, file in read_json(folder / "forms.json", dict[str, str]).items()}


def _asymmetric(
    model: EfficientNet, preprocess: Preprocess, precisions: Collection[Precision], target: Target, folder: Path
) -> dict[Precision, Path]:
    onnx = to_onnx(model, preprocess, folder / "model.onnx")
    (folder / "float").mkdir()
    plain = integer = target.runtime.compile(onnx, folder / "float")
    if any(p.quantized for p in precisions):
        (folder / "int8").mkdir()
        integer = quantize_for_timing(plain, noise(preprocess.resolution), folder / "int8")
    return {p: integer if p.quantized else plain for p in precisions}


def _symmetric(
    model: EfficientNet, preprocess: Preprocess, precisions: Collection[Precision], folder: Path
) -> dict[Precision, Path]:
    bare = fold_batch_norms(model)
    onnx = to_onnx(bare, preprocess, folder / "model.onnx")
    ones = {name: np.ones(len(layer.weight), np.float32) for name, layer, _ in layers(bare)}
    scales = {name: qdq.LayerScales(qdq.Affine(1.0), weights) for name, weights in ones.items()}
    pointwise = {name: scale for name, scale in scales.items() if not is_depthwise(bare, name)}
    graph, mixed = (qdq.write(onnx, s, folder / f"{n}.onnx") for n, s in (("int8", scales), ("mixed", pointwise)))
    forms = {}
    for p in precisions:
        source = (mixed if p.depthwise_in_float else graph) if p.quantized else onnx
        forms[p] = fp16.write(source, folder / f"{p}-baked.onnx") if p.rest == "fp16" else source
    return forms
