"""INT8 weights as fine as sums of 16 bits allow, for processors without VNNI instructions.

OpenVINO's kernels there multiply activations of 0 to 255 by weights, and add the products of two neighbouring input channels in one
instruction (vpmaddubsw), which cuts the sum off at 2¹⁵ - 1. Against that NNCF gives weights half of the range, as if two of the
largest were side by side. Few channels have such a pair: the smallest steps with which no sum overflows are about 0.6 of NNCF's.
Depthwise convolutions have a single input channel, and need none of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 127  # what two neighbours of one sign may add up to before each is rounded: 255 · (127 + 1) < 2¹⁵


@torch.no_grad()
def steps(weights: Tensor) -> Tensor:
    """The least step of each output channel, `(outputs,)`, for `weights` `(outputs, inputs, …)`."""
    outputs, inputs = weights.shape[:2]
    even = torch.cat([weights, torch.zeros_like(weights[:, : inputs % 2])], 1)
    pairs = even.reshape(outputs, even.shape[1] // 2, 2, -1)
    sums = torch.maximum(pairs.clamp(min=0).sum(2), (-pairs).clamp(min=0).sum(2))
    largest = sums.reshape(outputs, -1).amax(1)
    return torch.where(largest > 0, largest / LARGEST, 1)
