"""Smaller networks from the same weights: what a latency budget can buy back.

A reduction lowers the resolution, and leaves out parts of two kinds; what remains is a variant of the same family. Every block but
the first of its stage has a skip, and the same shape before and after it: without one its stage has a repeat less. The gates of
squeeze-and-excitation are replaced by their means over photos, which the convolution after them takes up in its weights: V2-B0
without its 16 gates is 1.3 times as fast in INT8 on a CPU, as each is a chain of tiny layers. Channels stay: pruning 44 % of B1's
multiplications made it only 1.1 to 1.4 times as fast.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.images import PixelFile
from ..data.preprocess import Preprocess
from .architecture import Block, Variant
from .model import Deployed, EfficientNet, MBBlock, SqueezeExcite, channels_last

BATCH = 32

Means = Mapping[str, Tensor]
"""By the name of a gate: its mean over photos, `(channels,)`."""


@dataclass(frozen=True)
class Part:
    """Something that can be left out: a block, or its gate."""

    block: Block
    gate: bool

    @property
    def name(self) -> str:
        """That of the module."""
        return f"{self.block.name}.se" if self.gate else self.block.name


@dataclass(frozen=True)
class Reduction:
    """What makes a network smaller: the resolution that it is used at, and the parts that are left out, by name."""

    resolution: int
    parts: tuple[str, ...] = ()


def resolutions(variant: Variant) -> list[int]:
    """Lower ones that it may be used at: about 7, 6 and 5 eighths of its own, in multiples of 16 pixels."""
    lower = {16 * round(variant.resolution * eighths / 128) for eighths in (5, 6, 7)}
    return sorted((r for r in lower if 32 <= r < variant.resolution), reverse=True)


def removable(variant: Variant) -> list[Part]:
    """The blocks and gates that can be left out, in the order in which they run."""
    gates = {block: Part(block, gate=True) for block in variant.blocks() if block.squeezed}
    blocks = {block: Part(block, gate=False) for block in variant.blocks() if block.index > 0}
    return [parts[block] for block in variant.blocks() for parts in (gates, blocks) if block in parts]


def reduced(model: EfficientNet, to: Reduction, means: Means | None = None) -> EfficientNet:
    """A smaller copy of the network, whose weights are the same otherwise.

    `means` stand for the gates that are left out; without them a gate counts as 1, which is enough to measure latency.
    """
    if unknown := set(to.parts) - {part.name for part in removable(model.variant)}:
        raise ValueError(f"{sorted(unknown)}: expected parts that can be left out of {model.variant.name}")
    smaller = EfficientNet(reduced_variant(model.variant, to), model.classes, model.padding, model.bn_eps)
    kept = [(block, module) for block, module in _blocks(model) if block.name not in to.parts]
    for (block, module), (_, fresh) in zip(kept, _blocks(smaller), strict=True):
        own = copy.deepcopy(module)
        if (gate := Part(block, gate=True).name) in to.parts:
            _fold_gate(own, 1.0 if means is None else means[gate])
        fresh.load_state_dict(own.state_dict())
    rest = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("blocks.")}
    smaller.load_state_dict(rest, strict=False)
    return smaller.train(model.training)


def counterparts(variant: Variant, parts: Collection[str]) -> tuple[int, ...]:
    """For each block that is kept, the index of the block of the whole network whose output it has to give.

    It is the last one before the next that is kept: what is left out after a block, the block itself makes up for.
    """
    blocks = list(variant.blocks())
    kept = [i for i, block in enumerate(blocks) if block.name not in parts]
    return tuple(following - 1 for following in (*kept[1:], len(blocks)))


def remaining(variant: Variant, done: Reduction, to: Reduction) -> Reduction | None:
    """What makes of a network of the variant, after `done`, the same as `to` makes of it; parts have other names in it by then.

    None where something was left out that `to` keeps, or the resolution would have to rise.
    """
    kept = [block for block in variant.blocks() if block.name not in done.parts]
    smaller = reduced_variant(variant, done)
    was = dict(zip(smaller.blocks(), kept, strict=True))
    left = (part.name for part in removable(smaller) if replace(part, block=was[part.block]).name in to.parts)
    rest = Reduction(to.resolution, tuple(left))
    fits = to.resolution <= done.resolution and reduced_variant(smaller, rest) == reduced_variant(variant, to)
    return rest if fits else None


@torch.inference_mode()
def gate_means(model: EfficientNet, photos: PixelFile, preprocess: Preprocess) -> dict[str, Tensor]:
    """Every gate's mean over the photos."""
    network = channels_last(Deployed(model, preprocess).eval())
    sums: dict[str, Tensor] = {}

    def add(name: str, gates: Tensor) -> None:
        sums[name] = sums.get(name, torch.zeros(gates.shape[1])) + gates.sum((0, 2, 3))

    gates = {name: module.gate for name, module in model.named_modules() if isinstance(module, SqueezeExcite)}
    hooks = [
        gate.register_forward_hook(lambda module, inputs, output, name=name: add(name, output)) for name, gate in gates.items()
    ]
    try:
        for pixels in photos.batches(BATCH):
            network(torch.from_numpy(pixels))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total.clone() / len(photos) for name, total in sums.items()}


@torch.inference_mode()
def losses(
    model: EfficientNet, photos: PixelFile, preprocess: Preprocess, parts: Sequence[Part], means: Means
) -> dict[Part, float]:
    """By part: the mean KL divergence of the logits from the whole network's where it alone is left out. No labels are needed."""
    network = channels_last(Deployed(model, preprocess).eval())
    modules = dict(model.named_modules())
    found = dict.fromkeys(parts, 0.0)
    for pixels in photos.batches(BATCH):
        images = torch.from_numpy(pixels)
        whole = network(images).log_softmax(1)
        for part in parts:
            share = means[part.name].reshape(-1, 1, 1) if part.gate else 1.0
            hook = modules[part.name].register_forward_hook(lambda module, inputs, output, share=share: inputs[0] * share)
            try:
                answer = network(images).log_softmax(1)
            finally:
                hook.remove()
            found[part] += _divergence(answer, whole) / len(photos)
    return found


@torch.inference_mode()
def loss_at(model: EfficientNet, photos: PixelFile, smaller: PixelFile) -> float:
    """The mean KL divergence of the logits from the network's own where it sees the same photos in another resolution."""
    total = 0.0
    network = channels_last(Deployed(model, photos.preprocess).eval())
    for seen in zip(photos.batches(BATCH), smaller.batches(BATCH), strict=True):
        whole, answer = (network(torch.from_numpy(pixels)).log_softmax(1) for pixels in seen)
        total += _divergence(answer, whole)
    return total / len(photos)


def _divergence(answer: Tensor, whole: Tensor) -> float:
    """The KL divergence of a batch's log-probabilities, which rounding may put below zero; infinite where it is no number."""
    divergence = float(F.kl_div(answer, whole, log_target=True, reduction="sum"))
    return max(0.0, divergence) if math.isfinite(divergence) else math.inf


def reduced_variant(variant: Variant, to: Reduction) -> Variant:
    """The variant of a smaller network: stages with fewer repeats and fewer gates, at another resolution."""
    kept = [block for block in variant.blocks() if block.name not in to.parts]
    stages = []
    for number, stage in enumerate(variant.stages):
        own = [block for block in kept if block.stage == number]
        ungated = (i for i, block in enumerate(own) if stage.se and (not block.squeezed or Part(block, gate=True).name in to.parts))
        stages.append(replace(stage, repeats=len(own), ungated=tuple(ungated)))
    return replace(variant.at(to.resolution), stages=tuple(stages))


def _fold_gate(block: MBBlock, mean: Tensor | float) -> None:
    """Take a block's gate away, and multiply the weights of the convolution after it by the gate's mean."""
    conv = getattr(block, block.layers[block.layers.index("se") + 1])
    with torch.no_grad():
        conv.weight.mul_(mean if isinstance(mean, float) else mean.reshape(1, -1, 1, 1))
    block.layers.remove("se")
    del block.se


def _blocks(model: EfficientNet) -> list[tuple[Block, MBBlock]]:
    """Every block with the module that it is."""
    modules = [module for module in model.modules() if isinstance(module, MBBlock)]
    return list(zip(model.variant.blocks(), modules, strict=True))
