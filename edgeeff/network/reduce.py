"""Networks with fewer blocks: what a latency budget can buy back without other weights.

Every block but the first of its stage has a skip, and the same shape before and after it, so the network without one is a variant
of the same family whose stage has a repeat less. Whole blocks are what pays: V2-B0 without its block 1.1 saves a tenth of the time
in INT8, while pruning 44 % of B1's multiplications made it 1.1 to 1.4 times as fast.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from ..data.images import PixelFile
from ..data.preprocess import Preprocess
from .architecture import Block, Variant
from .model import Deployed, EfficientNet, MBBlock, channels_last

BATCH = 32


def removable(variant: Variant) -> list[Block]:
    """The blocks that can be left out, in the order in which they run."""
    return [block for block in variant.blocks() if block.index > 0]


def without(model: EfficientNet, names: Collection[str]) -> EfficientNet:
    """A copy of the network without these blocks, whose weights are the same otherwise."""
    blocks = list(model.variant.blocks())
    unknown = set(names) - {block.name for block in removable(model.variant)}
    if unknown:
        raise ValueError(f"{sorted(unknown)}: expected blocks that can be left out of {model.variant.name}")
    gone = [block for block in blocks if block.name in names]
    stages = tuple(
        replace(stage, repeats=stage.repeats - sum(block.stage == i for block in gone))
        for i, stage in enumerate(model.variant.stages)
    )
    reduced = EfficientNet(replace(model.variant, stages=stages), model.classes, model.padding, model.bn_eps)
    kept = [copy.deepcopy(module) for block, module in zip(blocks, _modules(model), strict=True) if block.name not in names]
    for module, weights in zip(_modules(reduced), kept, strict=True):
        module.load_state_dict(weights.state_dict())
    rest = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("blocks.")}
    reduced.load_state_dict(rest, strict=False)
    return reduced.train(model.training)


def counterparts(variant: Variant, names: Collection[str]) -> tuple[int, ...]:
    """For each block that is kept, the index of the block of the whole network whose output it has to give.

    It is the last one before the next that is kept: what is left out after a block, the block itself makes up for.
    """
    blocks = list(variant.blocks())
    kept = [i for i, block in enumerate(blocks) if block.name not in names]
    return tuple(following - 1 for following in (*kept[1:], len(blocks)))


@torch.inference_mode()
def losses(model: EfficientNet, photos: PixelFile, preprocess: Preprocess, names: Sequence[str]) -> dict[str, float]:
    """By block: the mean KL divergence of the logits from the whole network's where it alone is left out. No labels are needed."""
    modules = dict(zip((block.name for block in model.variant.blocks()), _modules(model), strict=True))
    network = channels_last(Deployed(model, preprocess).eval())
    found = dict.fromkeys(names, 0.0)
    for pixels in photos.batches(BATCH):
        images = torch.from_numpy(pixels)
        whole = network(images).log_softmax(1)
        for name in names:
            hook = modules[name].register_forward_hook(lambda module, inputs, output: inputs[0])
            try:
                answer = network(images).log_softmax(1)
            finally:
                hook.remove()
            found[name] += float(F.kl_div(answer, whole, log_target=True, reduction="sum")) / len(photos)
    return found


def _modules(model: EfficientNet) -> list[MBBlock]:
    return [module for module in model.modules() if isinstance(module, MBBlock)]
