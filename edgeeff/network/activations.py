"""Swap a network's activations for ones that integer hardware computes cheaply.

Weights stay as they are; `distil` recovers the accuracy.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from ..errors import BadInput
from .model import EfficientNet
from .variants import Activation

# Howard et al. 2019, arXiv:1905.02244, §5.2: x · ReLU6(x + 3) / 6 follows Swish closely, ReLU6(x + 3) / 6 the sigmoid.
SWAPS: dict[str, dict[type[nn.Module], type[nn.Module]]] = {
    "hardswish": {nn.SiLU: nn.Hardswish, nn.Sigmoid: nn.Hardsigmoid},
    "relu6": {nn.SiLU: nn.ReLU6, nn.Sigmoid: nn.Hardsigmoid},
    "relu": {nn.SiLU: nn.ReLU, nn.Sigmoid: nn.Hardsigmoid},
}


def swap(module: nn.Module, activation: str) -> int:
    """Replace every Swish and Sigmoid inside `module`; returns how many there were."""
    if activation not in SWAPS:
        raise BadInput(f"activation {activation!r}: expected one of {', '.join(SWAPS)}.")
    count = 0
    for parent in module.modules():
        for name, child in parent.named_children():
            if replacement := SWAPS[activation].get(type(child)):
                inplace = {"inplace": child.inplace} if isinstance(child, nn.SiLU) else {}
                setattr(parent, name, replacement(**inplace))
                count += 1
    return count


def swapped(model: EfficientNet, activation: Activation) -> EfficientNet:
    """A copy of a network of the family with the other activation."""
    other = copy.deepcopy(model)
    swap(other, activation)
    other.variant = replace(model.variant, activation=activation)
    return other
