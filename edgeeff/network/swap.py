"""Replace a network's Swish and sigmoid by functions that integer hardware computes cheaply.

The weights stay as they are; distillation (`distill.py`) recovers the accuracy.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import nn

from . import activations
from .activations import Activation
from .model import EfficientNet, activation_module, activation_modules


def swap(module: nn.Module, activation: Activation) -> int:
    """Replace every Swish and sigmoid inside `module`, in place; returns how many there were.

    Raises BadInput for a name that is not in `activations.SWAPS`.
    """
    activations.check(activation, activations.SWAPS)
    replacements = dict(zip(activation_modules("silu"), activation_modules(activation), strict=True))
    count = 0
    for parent in module.modules():
        for name, child in parent.named_children():
            if replacement := replacements.get(type(child)):
                setattr(parent, name, activation_module(replacement, inplace=getattr(child, "inplace", False)))
                count += 1
    return count


def swapped(model: EfficientNet, activation: Activation) -> EfficientNet:
    """A copy of the network with another activation and the same weights."""
    other = copy.deepcopy(model)
    swap(other, activation)
    other.variant = replace(model.variant, activation=activation)
    return other
