"""A target's forms of a network with meaningless ranges or weights: to measure latency in seconds, never to judge or ship."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from ..context import NetworkContext
from ..data.preprocess import Preprocess
from ..export import fp16, qdq
from ..export.onnx import to_onnx
from ..network.architecture import Variant
from ..network.folding import fold_batch_norms
from ..network.model import EfficientNet, activation_modules, create
from ..precision import Precision
from ..records import dump_json, read_json
from ..target import Target
from .fake_quant import is_depthwise, layers

MOST = 6.0  # what activations are taken to be at most


def random_forms(v: Variant, classes: int, target: Target, activation: str | None, folder: Path) -> dict[Precision, Path]:
    """The file of each of the target's precisions; with another activation than the variant's where one is named."""
    model = create(replace(v, activation=activation or v.activation), classes=classes).eval()
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    return forms_for_timing(model, preprocess, target, target.precisions, folder)


def forms_for_timing(
    model: EfficientNet, preprocess: Preprocess, target: Target, precisions: Collection[Precision], folder: Path
) -> dict[Precision, Path]:
    """The file of each of these precisions of a target: as fast as those that ship, and of no use otherwise."""
    bare = fold_batch_norms(model)
    plain = to_onnx(bare, preprocess, folder / "model.onnx")
    scales = _meaningless(bare, symmetric=target.scheme == "symmetric")
    pointwise = {name: scale for name, scale in scales.items() if not is_depthwise(bare, name)}

    @cache
    def compiled(quantized: bool, depthwise_in_float: bool, half: bool) -> Path:
        made = Path(tempfile.mkdtemp(dir=folder))
        graph = qdq.write(plain, pointwise if depthwise_in_float else scales, made / "qdq.onnx") if quantized else plain
        return target.runtime.compile(fp16.write(graph, made / "fp16.onnx") if half else graph, made)

    return {p: compiled(p.quantized, p.depthwise_in_float, p.rest == "fp16") for p in precisions}


def _meaningless(bare: EfficientNet, *, symmetric: bool) -> qdq.Scales:
    """Scales for activations of up to MOST. Their zero points are about the real ones: kernels take some faster than others."""
    activation = activation_modules(bare.variant.activation)[0]
    least = float(activation()(torch.linspace(-MOST, MOST, 1000)).min())
    scales = {}
    for name, layer, holder in layers(bare):
        linear = holder is not layer or name == "conv_head"  # its input is what a block computes, without an activation
        data = qdq.Affine(MOST / 127) if symmetric else qdq.Affine.over(-MOST if linear else least, MOST)
        largest = layer.weight.detach().flatten(1).abs().amax(1).clamp(min=1e-10)
        scales[name] = qdq.LayerScales(data, (largest / 127).numpy())
    return scales


def kept_for_timing(
    context: NetworkContext, name: str, model: EfficientNet, preprocess: Preprocess, precisions: Collection[Precision]
) -> dict[Precision, Path]:
    """`forms_for_timing` for a fit's target, made once; `name` tells the model from the fit's others."""

    def make(folder: Path) -> None:
        forms = forms_for_timing(model, preprocess, context.target, precisions, folder)
        (folder / "forms.json").write_text(dump_json({str(p): str(f.relative_to(folder)) for p, f in forms.items()}))

    folder = context.cache.within("timed").once("-".join([name, *map(str, precisions)]), make)
    return {Precision(p): folder / file for p, file in read_json(folder / "forms.json", dict[str, str]).items()}
