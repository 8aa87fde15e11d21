"""A network as data: layers, blocks, stages, the whole, and what it costs.

This is the one description from which everything else is derived: the torch module (`model.py`), parameters and multiply-adds
(`Variant.cost`), latency features (`selection/latency_model.py`) and the names in other libraries' checkpoints (`checkpoint.py`).
No torch here: the `variants` command, static budgets and predictions need none of it.

The blocks, and the names of their modules, are those of timm's `_efficientnet_blocks.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from ..errors import BadInput
from .activations import Activation

Kind = Literal["conv", "fused", "separable", "mbconv"]
Padding = Literal["symmetric", "same"]
PADDINGS: tuple[Padding, ...] = get_args(Padding)


@dataclass(frozen=True)
class ConvSpec:
    """A convolution of square images, with the batch norm and the activation that follow it.

    `name`, `bn` and `act` name the modules. Without `bn` the convolution has a bias instead; without `act` its output is linear.
    `size` is the height and width of its input in pixels. A fully connected layer is a 1 × 1 convolution of one pixel.
    """

    name: str
    inputs: int
    outputs: int
    size: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bn: str = ""
    act: str = ""

    @property
    def kind(self) -> Literal["depthwise", "pointwise", "dense"]:
        if self.groups > 1:
            return "depthwise"
        return "pointwise" if self.kernel == 1 else "dense"

    @property
    def output_size(self) -> int:
        return math.ceil(self.size / self.stride)

    @property
    def weights(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs // self.groups

    @property
    def params(self) -> int:
        """The weights, and a bias or a batch norm's scale and shift."""
        return self.weights + (2 if self.bn else 1) * self.outputs

    @property
    def macs(self) -> int:
        """Multiply-adds of one image."""
        return self.weights * self.output_size**2

    @property
    def activations(self) -> int:
        """Elements of the output of one image."""
        return self.outputs * self.output_size**2

    @property
    def convs(self) -> tuple[ConvSpec, ...]:
        return (self,)


@dataclass(frozen=True)
class SqueezeExciteSpec:
    """Squeeze-and-excitation: each channel of a `size` × `size` image is multiplied by a gate computed from all channels' means.

    Source: Hu et al. 2017, arXiv:1709.01507.
    """

    name: str
    channels: int
    squeezed: int
    size: int

    @property
    def convs(self) -> tuple[ConvSpec, ...]:
        """The two layers that compute the gates, on one pixel; their names are those inside this module."""
        return (
            ConvSpec("conv_reduce", self.channels, self.squeezed, 1, act="act"),
            ConvSpec("conv_expand", self.squeezed, self.channels, 1, act="gate"),
        )


LayerSpec = ConvSpec | SqueezeExciteSpec


@dataclass(frozen=True)
class Stage:
    """`repeats` blocks of one kind. The first one has the stride and changes the number of channels.

    Where `se`, each has squeeze-and-excitation, but for the `ungated` ones, by their index in the stage.
    """

    kind: Kind
    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int
    se: bool
    ungated: tuple[int, ...] = ()


@dataclass(frozen=True)
class Block:
    """One block with every size resolved: channels in, expanded and out; squeezed channels of squeeze-and-excitation (0: none).

    `size` is the height and width of its input in pixels. `index` counts within the stage.
    """

    stage: int
    index: int
    kind: Kind
    kernel: int
    stride: int
    inputs: int
    expanded: int
    outputs: int
    squeezed: int
    size: int

    @property
    def name(self) -> str:
        return f"blocks.{self.stage}.{self.index}"

    @property
    def output_size(self) -> int:
        return math.ceil(self.size / self.stride)

    @property
    def skip(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs

    def layers(self) -> tuple[LayerSpec, ...]:
        """The layers in the order in which they run. A further kind of block is a further case here, and nothing elsewhere."""
        size, after, wide, k, s = self.size, self.output_size, self.expanded, self.kernel, self.stride
        gate = (SqueezeExciteSpec("se", wide, self.squeezed, after),) if self.squeezed else ()
        match self.kind:
            case "conv":
                return (ConvSpec("conv", self.inputs, self.outputs, size, k, s, bn="bn1", act="act1"),)
            case "fused":
                return (
                    ConvSpec("conv_exp", self.inputs, wide, size, k, s, bn="bn1", act="act1"),
                    ConvSpec("conv_pwl", wide, self.outputs, after, bn="bn2"),
                )
            case "separable":
                return (
                    ConvSpec("conv_dw", wide, wide, size, k, s, groups=wide, bn="bn1", act="act1"),
                    *gate,
                    ConvSpec("conv_pw", wide, self.outputs, after, bn="bn2"),
                )
            case "mbconv":
                return (
                    ConvSpec("conv_pw", self.inputs, wide, size, bn="bn1", act="act1"),
                    ConvSpec("conv_dw", wide, wide, size, k, s, groups=wide, bn="bn2", act="act2"),
                    *gate,
                    ConvSpec("conv_pwl", wide, self.outputs, after, bn="bn3"),
                )


@dataclass(frozen=True)
class Cost:
    """`flops` counts multiply-adds, as the paper's tables do; `activations` the elements of all convolutions' outputs."""

    params: int
    flops: int
    activations: int


@dataclass(frozen=True)
class Variant:
    """A member of a family, fully scaled.

    `resolution` is the square input in pixels; `stem` and `head` are channels. `padding` and `bn_eps` are those of the weights
    usually published for it. `mean` and `std` are in pixels (0–255). `top1` is the published ImageNet accuracy at the published
    resolution, in percent, or None. `hub` names the weights to start from, as owner/name on the Hugging Face hub; empty: none.
    """

    name: str
    series: str
    resolution: int
    stem: int
    stages: tuple[Stage, ...]
    head: int
    activation: Activation
    padding: Padding
    bn_eps: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    top1: float | None
    hub: str = ""

    def at(self, resolution: int | None) -> Variant:
        """The same network for another input size (None: its own). Raises BadInput outside of 32 to 2048 pixels."""
        if resolution is None or resolution == self.resolution:
            return self
        if not 32 <= resolution <= 2048:
            raise BadInput(f"resolution {resolution}: expected 32 to 2048 pixels.")
        return replace(self, resolution=resolution)

    @property
    def stem_conv(self) -> ConvSpec:
        return ConvSpec("conv_stem", 3, self.stem, self.resolution, kernel=3, stride=2, bn="bn1", act="act1")

    def blocks(self) -> Iterator[Block]:
        inputs, size = self.stem, self.stem_conv.output_size
        for s, stage in enumerate(self.stages):
            for i in range(stage.repeats):
                block = Block(
                    stage=s,
                    index=i,
                    kind=stage.kind,
                    kernel=stage.kernel,
                    stride=stage.stride if i == 0 else 1,
                    inputs=inputs,
                    expanded=inputs * stage.expand,
                    outputs=stage.channels,
                    squeezed=round(inputs / 4) if stage.se and i not in stage.ungated else 0,
                    size=size,
                )
                yield block
                inputs, size = block.outputs, block.output_size

    @property
    def head_conv(self) -> ConvSpec:
        *_, last = self.blocks()
        return ConvSpec("conv_head", last.outputs, self.head, last.output_size, bn="bn2", act="act2")

    def classifier(self, classes: int) -> ConvSpec:
        return ConvSpec("classifier", self.head, classes, 1)

    def layers(self) -> Iterator[LayerSpec]:
        """Every layer but the classifier, in the order in which they run."""
        yield self.stem_conv
        for block in self.blocks():
            yield from block.layers()
        yield self.head_conv

    @functools.cache  # noqa: B019 (variants are few, and live as long as the process)
    def cost(self, classes: int = 1000) -> Cost:
        """Parameters, multiply-adds and activations of one image."""
        convs = [conv for layer in (*self.layers(), self.classifier(classes)) for conv in layer.convs]
        return Cost(sum(c.params for c in convs), sum(c.macs for c in convs), sum(c.activations for c in convs))
