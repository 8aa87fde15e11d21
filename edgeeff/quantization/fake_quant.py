"""INT8 on the torch side: the network with trainable quantizers just where TensorRT wants them.

Weights per channel, activations per tensor, all signed, with zero points of 0; in the asymmetric scheme, OpenVINO's, activations
have those that make their scales finest. A quantizer stands on the input of every convolution but the stem and
squeeze-and-excitation; the one on a block's input also serves its skip. `export/qdq.py` writes the same as a graph.

The quantizers are torch's own fake quantization. NNCF's put per-channel quantizers on the inputs of depthwise convolutions, which
TensorRT does not take, and compile C++ kernels at the first use, which fails on a busy machine or without a compiler.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from ..data.calibration import ESTIMATORS
from ..data.images import PixelFile
from ..export.qdq import Affine, LayerScales, Scales
from ..network.folding import fold_batch_norms
from ..network.model import Deployed, EfficientNet, MBBlock, channels_last
from ..progress import SILENT, Progress
from .overflow import steps

BINS = 2048
BATCH = 16
TRIED = 64  # photos on which the ranges are compared
PERCENTILES = (99.9, 99.99, 99.999)
Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class LayerRange:
    """What one layer is quantized with. `scale` and `zero_point` are its input's, chosen by `estimator`.

    `weight_amax` are the largest magnitudes of weights kept, `bias_error` the mean shift of the output, both `(channels,)`; `error`
    is the output's squared error over its power, with exact inputs. `summed`: its weights are multiplied where sums overflow.
    """

    scale: float
    estimator: str
    weight_amax: Tensor
    bias_error: Tensor
    error: float
    zero_point: int = 0
    summed: bool = False


class FakeQuantizer(nn.Module):
    """8 bits, signed. `amax` is how much 127 steps are, one number or one for each channel of the first axis.

    It is trained like a weight, by a straight-through estimator: Esser et al. 2019, arXiv:1902.08153, without its gradient scale.
    `summed` weights are multiplied where sums overflow: their scales are never less than these allow.
    """

    zero_point: Tensor

    def __init__(self, amax: Tensor, *, lowest: int, zero_point: int = 0, summed: bool = False) -> None:
        super().__init__()
        self.amax = nn.Parameter(amax.clone())
        self.lowest, self.summed = lowest, summed
        self.register_buffer("zero_point", torch.full((len(amax),), float(zero_point)), persistent=False)

    def scale(self, x: Tensor | None = None) -> Tensor:
        """One number, or one for each channel; it depends on what is quantized, `x`, for summed weights only."""
        scale = self.amax.abs().clamp(min=1e-10) / 127
        return torch.maximum(scale, steps(x)) if self.summed and x is not None else scale

    def forward(self, x: Tensor) -> Tensor:
        if len(self.amax) == 1:
            return torch._fake_quantize_learnable_per_tensor_affine(x, self.scale(x), self.zero_point, self.lowest, 127)
        return torch._fake_quantize_learnable_per_channel_affine(x, self.scale(x), self.zero_point, 0, self.lowest, 127)


def layers(model: nn.Module) -> Iterator[tuple[str, Layer, nn.Module]]:
    """What is quantized: name, layer, and the module whose input is quantized for it, which is its block if it comes first there.

    Integer kernels want 16 channels or more, in multiples of 8; the stem and squeeze-and-excitation gain nothing from INT8.
    """
    first = {getattr(b, b.layers[0]): b for b in model.modules() if isinstance(b, MBBlock)}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            inputs, outputs, depthwise = layer.in_channels, layer.out_channels, layer.groups > 1
        elif isinstance(layer, nn.Linear):
            inputs, outputs, depthwise = layer.in_features, layer.out_features, False
        else:
            continue
        suits = outputs % 8 == 0 and (depthwise or (min(inputs, outputs) >= 16 and inputs % 8 == 0))
        if suits and ".se." not in name:
            yield name, layer, first.get(layer, layer)


def is_depthwise(model: nn.Module, layer: str) -> bool:
    """Whether the layer of that name is a depthwise convolution."""
    module = model.get_submodule(layer)
    return isinstance(module, nn.Conv2d) and module.groups > 1


@torch.no_grad()
def calibrate(
    model: EfficientNet,
    photos: PixelFile,
    estimators: Sequence[str] = ESTIMATORS,
    progress: Progress = SILENT,
    *,
    symmetric: bool = True,
    overflows: bool = False,
) -> dict[str, LayerRange]:
    """Each layer's ranges: of those that the estimators give, the ones with the least error of the layer's output.

    In the `symmetric` scheme the zero points of activations are 0. Where the processor's INT8 sums can overflow (`overflows`),
    weights are no finer than these allow.
    """
    folded = fold_batch_norms(model)
    network = channels_last(Deployed(folded, photos.preprocess).eval())
    found = list(layers(folded))
    extent = {name: (0.0, 0.0) for name, _, _ in found}  # the least and the largest
    counts = {name: torch.zeros(2 * BINS) for name in extent}

    def widen(name: str, layer: Layer, x: Tensor) -> None:
        (low, high), (least, largest) = extent[name], _values(x).aminmax()
        extent[name] = min(low, float(least)), max(high, float(largest))

    def count(name: str, layer: Layer, x: Tensor) -> None:
        largest = max(map(abs, extent[name])) or 1.0
        counts[name] += torch.histc(_values(x), 2 * BINS, -largest, largest)

    summed = {name: overflows and not is_depthwise(folded, name) for name, _, _ in found}
    weights = {name: _weight_ranges(layer.weight, summed[name]) for name, layer, _ in found}
    for look in (widen, count):
        _watch(network, found, photos, look, len(photos), progress)
    tried = {name: _candidates(counts[name], *extent[name], estimators, symmetric) for name in extent}
    errors = {name: {estimator: 0.0 for estimator in tried[name]} for name in tried}
    shifts: dict[str, dict[str, Any]] = {name: dict.fromkeys(tried[name], 0.0) for name in tried}
    power = dict.fromkeys(tried, 0.0)

    def compare(name: str, layer: Layer, x: Tensor) -> None:
        exact = layer(x)
        over = [0, *range(2, exact.ndim)]
        power[name] += float(exact.square().mean())
        w = _quantized(layer.weight, weights[name])
        for estimator, affine in tried[name].items():
            difference = functional_call(layer, {"weight": w}, (_rounded(x, affine),)) - exact
            errors[name][estimator] += float(difference.square().mean())
            shifts[name][estimator] = shifts[name][estimator] + difference.mean(over)

    batches = _watch(network, found, photos, compare, TRIED, progress)
    ranges = {}
    for name, candidates in tried.items():
        estimator = min(candidates, key=lambda e: errors[name][e])
        shift, error = shifts[name][estimator] / batches, errors[name][estimator] / max(power[name], 1e-20)
        scale, zero_point = candidates[estimator]
        ranges[name] = LayerRange(scale, estimator, weights[name], shift, error, zero_point, summed[name])
    chosen = Counter(r.estimator for r in ranges.values()).most_common()
    progress.say(f"ranges of {len(ranges)} layers: {', '.join(f'{count} by {estimator}' for estimator, count in chosen)}")
    return ranges


def fake_quantized(model: EfficientNet, ranges: dict[str, LayerRange]) -> EfficientNet:
    """A folded copy with quantizers of these ranges, whose widths can be trained, and corrected biases; other layers stay float."""
    student = fold_batch_norms(model)
    for name, layer, holder in list(layers(student)):
        if name not in ranges:
            continue
        r = ranges[name]
        assert layer.bias is not None
        layer.bias.data -= r.bias_error
        parametrize.register_parametrization(layer, "weight", FakeQuantizer(r.weight_amax, lowest=-127, summed=r.summed))
        amax = torch.tensor([127 * r.scale])
        holder.add_module("quantized_input", FakeQuantizer(amax, lowest=-128, zero_point=r.zero_point))
        holder.register_forward_pre_hook(_quantize_input)
    return student


def strip(model: EfficientNet) -> tuple[EfficientNet, Scales]:
    """A float copy without the quantizers, and each quantized layer's scales: its input's, and its weights' `(channels,)`."""
    bare = copy.deepcopy(model).eval()
    scales = {}
    found: list[Any] = list(layers(bare))
    for name, layer, holder in found:
        if parametrize.is_parametrized(layer, "weight"):
            weights, activation = layer.parametrizations.weight[0], holder.quantized_input
            # Not `remove_parametrizations`: it would take the weights from the class that a copy shares with its original.
            weight = layer.parametrizations.weight.original
            affine = Affine(float(activation.scale().detach()), int(activation.zero_point))
            scales[name] = LayerScales(affine, weights.scale(weight).detach().numpy())
            del layer.parametrizations
            layer.__class__ = type(layer).__mro__[1]
            layer.register_parameter("weight", weight)
            del holder.quantized_input
            holder._forward_pre_hooks.clear()
    return bare, scales


def _quantized(x: Tensor, amax: Tensor) -> Tensor:
    """Weights in 8 bits: signed, symmetric, up to `amax`, one for each channel of the first axis."""
    scale = (amax / 127).clamp(min=1e-12)
    return torch.fake_quantize_per_channel_affine(x, scale, torch.zeros(len(scale), dtype=torch.int32), 0, -127, 127)


def _watch(
    network: nn.Module,
    found: list[tuple[str, Layer, nn.Module]],
    photos: PixelFile,
    look: Callable[[str, Layer, Tensor], None],
    count: int,
    progress: Progress,
) -> int:
    """Show every layer's input to `look`, on the first `count` photos; returns the number of batches."""

    busy: list[str] = []  # what `look` itself runs is not looked at

    def hook(name: str) -> Any:
        def show(layer: Layer, inputs: tuple[Tensor, ...]) -> None:
            if not busy:
                busy.append(name)
                look(name, layer, inputs[0])
                busy.pop()

        return show

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer, _ in found]
    batches = 0
    try:
        for start in progress.track(range(0, min(count, len(photos)), BATCH), "ranges", -(-min(count, len(photos)) // BATCH)):
            network(torch.from_numpy(photos.rows(start, BATCH)))
            batches += 1
    finally:
        for handle in handles:
            handle.remove()
    return batches


def _values(x: Tensor) -> Tensor:
    """An activation `(N, C, H, W)` or `(N, C)`, its axes in the order of memory: to bring it into its own would be a copy."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _weight_ranges(weight: Tensor, summed: bool) -> Tensor:
    """For each output channel, the share of its largest weight that leaves the least squared error, or what sums allow."""
    flat = weight.flatten(1)
    largest = flat.abs().amax(1)
    shares = torch.linspace(0.7, 1, 31)
    errors = torch.stack([(_quantized(flat, largest * share) - flat).square().sum(1) for share in shares])
    best = largest * shares[errors.argmin(0)]
    return torch.maximum(best, 127 * steps(weight)) if summed else best


def _candidates(counts: Tensor, low: float, high: float, estimators: Sequence[str], symmetric: bool) -> dict[str, Affine]:
    """What quantizes numbers from `low` to `high`, by estimator, from a histogram of twice BINS about zero."""
    largest = max(-low, high)
    width, total = largest / BINS, counts.sum().clamp(min=1)
    below, above = counts[:BINS].flip(0), counts[BINS:]  # by magnitude
    if symmetric:
        low, high, below, above = -largest, largest, below + above, below + above

    def affine(low: float, high: float) -> Affine:
        return Affine(max(high, 1e-6) / 127) if symmetric else Affine.over(low, high)

    def magnitude(side: Tensor, p: float) -> float:
        """What no more than the rest of `p` percent exceeds on one side of zero."""
        within = (side.cumsum(0) + total - side.sum()) / total
        return width * (int((within < p / 100).sum()) + 1)

    found = {"largest": affine(low, high)}
    for p in PERCENTILES:
        found[f"percentile {p}"] = affine(max(low, -magnitude(below, p)), min(high, magnitude(above, p)))
    centres, shares = width * (torch.arange(2 * BINS) + 0.5 - BINS), torch.linspace(0.05, 1, 96).tolist()
    pairs = [(s, s) for s in shares] if symmetric else [*product(torch.linspace(0.1, 1, 10).tolist(), shares)]
    tried = [affine(of_low * low, of_high * high) for of_low, of_high in pairs]
    found["least squared error"] = min(tried, key=lambda a: float((counts * (_rounded(centres, a) - centres).square()).sum()))
    wanted = tuple(estimators)
    return {estimator: affine for estimator, affine in found.items() if estimator.startswith(wanted)}


def _rounded(x: Tensor, affine: Affine) -> Tensor:
    """An activation in 8 bits."""
    return torch.fake_quantize_per_tensor_affine(x, *affine, -128, 127)


def _quantize_input(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (module.quantized_input(inputs[0]), *inputs[1:])
