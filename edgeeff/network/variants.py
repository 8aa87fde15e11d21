"""The EfficientNet family as data: what each variant is built of and what it costs.

No torch here: `edgeeff variants`, the budgets and a remembered pick answer without importing it. `model.py` builds the network
from the same description.

Sources: EfficientNet, arXiv:1905.11946 (B0–B7, compound scaling); EfficientNet-Lite, TensorFlow TPU repository (Lite0–4: no SE,
ReLU6, stem, head and the first and last stage's depth unscaled); EfficientNetV2, arXiv:2104.00298 (V2). Block definitions as in
timm's `efficientnet.py`, whose parameter names the networks keep.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from ..errors import BadInput

Kind = Literal["conv", "fused", "separable", "mbconv"]
Padding = Literal["symmetric", "same"]
Activation = Literal["silu", "hardswish", "relu6", "relu"]


@dataclass(frozen=True)
class Stage:
    """`repeats` blocks of one kind; the first one strides and changes the channels."""

    kind: Kind
    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int
    se: bool


@dataclass(frozen=True)
class Block:
    """One block with every size resolved: channels in, expanded and out; squeezed SE channels (0: none)."""

    name: str
    kind: Kind
    kernel: int
    stride: int
    inputs: int
    expanded: int
    outputs: int
    squeezed: int
    size: int

    @property
    def skip(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class Cost:
    """`flops` counts multiply-adds, as the paper's tables do; `activations` the elements of all convolution outputs."""

    params: int
    flops: int
    activations: int


@dataclass(frozen=True)
class Variant:
    """A member of the family, fully scaled.

    `resolution` is the square input in pixels. `padding` and `bn_eps` are those of the weights usually published for it.
    `mean` and `std` are in pixels (0–255). `top1` is the published ImageNet accuracy at the published resolution, or None.
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

    def at(self, resolution: int | None) -> Variant:
        """The same network for another input size."""
        if resolution is None or resolution == self.resolution:
            return self
        if not 32 <= resolution <= 2048:
            raise BadInput(f"resolution {resolution}: expected 32 to 2048 pixels.")
        return replace(self, resolution=resolution)

    @property
    def published(self) -> Variant:
        """The same at its own resolution."""
        return variant(self.name)

    def blocks(self) -> Iterator[Block]:
        inputs, size = self.stem, math.ceil(self.resolution / 2)
        for s, stage in enumerate(self.stages):
            for i in range(stage.repeats):
                stride = stage.stride if i == 0 else 1
                yield Block(
                    name=f"blocks.{s}.{i}",
                    kind=stage.kind,
                    kernel=stage.kernel,
                    stride=stride,
                    inputs=inputs,
                    expanded=inputs * stage.expand,
                    outputs=stage.channels,
                    squeezed=round(inputs / 4) if stage.se else 0,
                    size=size,
                )
                inputs, size = stage.channels, math.ceil(size / stride)

    @functools.cache  # noqa: B019 — variants are few, and never go
    def cost(self, classes: int = 1000) -> Cost:
        """Parameters, multiply-adds and activations of one image, from the layers' shapes."""
        params = flops = activations = 0

        def conv(inputs: int, outputs: int, kernel: int, size: int, *, groups: int = 1, bias: bool = False) -> None:
            nonlocal params, flops, activations
            weights = kernel * kernel * inputs * outputs // groups
            params += weights + (outputs if bias else 2 * outputs)  # a bias, or a batch norm's scale and shift
            flops += weights * size * size
            activations += outputs * size * size

        size = math.ceil(self.resolution / 2)
        conv(3, self.stem, 3, size)
        for b in self.blocks():
            size = math.ceil(b.size / b.stride)
            if b.kind == "conv":
                conv(b.inputs, b.outputs, b.kernel, size)
                continue
            if b.kind == "fused":
                conv(b.inputs, b.expanded, b.kernel, size)
            else:
                if b.kind == "mbconv":
                    conv(b.inputs, b.expanded, 1, b.size)
                conv(b.expanded, b.expanded, b.kernel, size, groups=b.expanded)
                if b.squeezed:
                    conv(b.expanded, b.squeezed, 1, 1, bias=True)
                    conv(b.squeezed, b.expanded, 1, 1, bias=True)
            conv(b.expanded, b.outputs, 1, size)
        conv(self.stages[-1].channels, self.head, 1, size)
        conv(self.head, classes, 1, 1, bias=True)
        return Cost(params, flops, activations)


def round_channels(channels: float, width: float, floor: float = 0.9) -> int:
    """Scaled channel count: the multiple of 8 nearest `channels * width`, never under 90% of it.

    Source: Tan & Le 2019, arXiv:1905.11946. V2 has no lower limit (`floor=0`).
    """
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < floor * scaled else rounded


def _stages(*rows: tuple[Kind, int, int, int, int, int, bool]) -> tuple[Stage, ...]:
    return tuple(Stage(*row) for row in rows)


#                kind      repeats k s expand channels SE
_B = _stages(
    ("separable", 1, 3, 1, 1, 16, True),
    ("mbconv", 2, 3, 2, 6, 24, True),
    ("mbconv", 2, 5, 2, 6, 40, True),
    ("mbconv", 3, 3, 2, 6, 80, True),
    ("mbconv", 3, 5, 1, 6, 112, True),
    ("mbconv", 4, 5, 2, 6, 192, True),
    ("mbconv", 1, 3, 1, 6, 320, True),
)
_V2_BASE = _stages(
    ("conv", 1, 3, 1, 1, 16, False),
    ("fused", 2, 3, 2, 4, 32, False),
    ("fused", 2, 3, 2, 4, 48, False),
    ("mbconv", 3, 3, 2, 4, 96, True),
    ("mbconv", 5, 3, 1, 6, 112, True),
    ("mbconv", 8, 3, 2, 6, 192, True),
)
_V2_S = _stages(
    ("conv", 2, 3, 1, 1, 24, False),
    ("fused", 4, 3, 2, 4, 48, False),
    ("fused", 4, 3, 2, 4, 64, False),
    ("mbconv", 6, 3, 2, 4, 128, True),
    ("mbconv", 9, 3, 1, 6, 160, True),
    ("mbconv", 15, 3, 2, 6, 256, True),
)
_V2_M = _stages(
    ("conv", 3, 3, 1, 1, 24, False),
    ("fused", 5, 3, 2, 4, 48, False),
    ("fused", 5, 3, 2, 4, 80, False),
    ("mbconv", 7, 3, 2, 4, 160, True),
    ("mbconv", 14, 3, 1, 6, 176, True),
    ("mbconv", 18, 3, 2, 6, 304, True),
    ("mbconv", 5, 3, 1, 6, 512, True),
)
_V2_L = _stages(
    ("conv", 4, 3, 1, 1, 32, False),
    ("fused", 7, 3, 2, 4, 64, False),
    ("fused", 7, 3, 2, 4, 96, False),
    ("mbconv", 10, 3, 2, 4, 192, True),
    ("mbconv", 19, 3, 1, 6, 224, True),
    ("mbconv", 25, 3, 2, 6, 384, True),
    ("mbconv", 7, 3, 1, 6, 640, True),
)

# Mean and standard deviation that the usually published weights were trained with, in pixels.
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_LITE = ((127.0, 127.0, 127.0), (128.0, 128.0, 128.0))
_HALF = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


def _scaled(stages: tuple[Stage, ...], width: float, depth: float, floor: float = 0.9) -> tuple[Stage, ...]:
    return tuple(
        replace(s, repeats=math.ceil(s.repeats * depth), channels=round_channels(s.channels, width, floor)) for s in stages
    )


def _b(name: str, width: float, depth: float, resolution: int, top1: float | None, bn_eps: float = 1e-5) -> Variant:
    stem, head = round_channels(32, width), round_channels(1280, width)
    stages = _scaled(_B, width, depth)
    return Variant(name, "b", resolution, stem, stages, head, "silu", "symmetric", bn_eps, *_IMAGENET, top1)


def _lite(name: str, width: float, depth: float, resolution: int, top1: float) -> Variant:
    scaled = list(_scaled(_B, width, depth))
    for fixed in (0, -1):
        scaled[fixed] = replace(scaled[fixed], repeats=_B[fixed].repeats)
    stages = tuple(replace(s, se=False) for s in scaled)
    return Variant(name, "lite", resolution, 32, stages, 1280, "relu6", "same", 1e-3, *_LITE, top1)


def _v2_base(name: str, width: float, depth: float, resolution: int, top1: float) -> Variant:
    stem, head = round_channels(32, width, 0), round_channels(1280, width, 0)
    stages = _scaled(_V2_BASE, width, depth, floor=0)
    return Variant(name, "v2", resolution, stem, stages, head, "silu", "same", 1e-3, *_IMAGENET, top1)


def _v2(name: str, stages: tuple[Stage, ...], resolution: int, top1: float) -> Variant:
    return Variant(name, "v2", resolution, stages[0].channels, stages, 1280, "silu", "same", 1e-3, *_HALF, top1)


VARIANTS: dict[str, Variant] = {
    v.name: v
    for v in (
        # top-1: arXiv:1905.11946, table 2
        _b("b0", 1.0, 1.0, 224, 77.1),
        _b("b1", 1.0, 1.1, 240, 79.1),
        _b("b2", 1.1, 1.2, 260, 80.1),
        _b("b3", 1.2, 1.4, 300, 81.6),
        _b("b4", 1.4, 1.8, 380, 82.9),
        _b("b5", 1.6, 2.2, 456, 83.6, 1e-3),
        _b("b6", 1.8, 2.6, 528, 84.0, 1e-3),
        _b("b7", 2.0, 3.1, 600, 84.3, 1e-3),
        # top-1: TensorFlow's EfficientNet-Lite README
        _lite("lite0", 1.0, 1.0, 224, 75.1),
        _lite("lite1", 1.0, 1.1, 240, 76.7),
        _lite("lite2", 1.1, 1.2, 260, 77.6),
        _lite("lite3", 1.2, 1.4, 280, 79.8),
        _lite("lite4", 1.4, 1.8, 300, 81.5),
        # top-1: timm's results-imagenet.csv (tf_efficientnetv2_b*), arXiv:2104.00298 table 7 (S, M, L)
        _v2_base("v2-b0", 1.0, 1.0, 224, 78.4),
        _v2_base("v2-b1", 1.0, 1.1, 240, 79.5),
        _v2_base("v2-b2", 1.1, 1.2, 260, 80.2),
        _v2_base("v2-b3", 1.2, 1.4, 300, 82.0),
        _v2("v2-s", _V2_S, 384, 83.9),
        _v2("v2-m", _V2_M, 480, 85.1),
        _v2("v2-l", _V2_L, 480, 85.7),
    )
}


def variant(name: str) -> Variant:
    """The variant of that name, or for `phiX` the compound scaling of B0: depth 1.2^X, width 1.1^X, resolution 1.15^X.

    The scaled resolution is the multiple of 8 nearest to 224 · 1.15^X.
    """
    key = name.lower().replace("_", "-").removeprefix("efficientnet-").removeprefix("efficientnet")
    if key in VARIANTS:
        return VARIANTS[key]
    if match := re.fullmatch(r"phi(-?\d+(?:\.\d+)?)", key):
        phi = float(match[1])
        if not -6 <= phi <= 7:
            raise BadInput(f"variant {name!r}: phi must lie between -6 and 7.")
        return _b(f"phi{phi:g}", 1.1**phi, 1.2**phi, 8 * round(224 * 1.15**phi / 8), None)
    close = difflib.get_close_matches(key, VARIANTS, 1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise BadInput(f"unknown variant {name!r}.{hint} Expected one of {', '.join(VARIANTS)} or phiX (such as phi0.5).")


def grid(names: Sequence[str], resolutions: Sequence[int]) -> list[Variant]:
    """Every variant named, or all, at each resolution named, or its own."""
    networks = [variant(name) for name in names or VARIANTS]
    return [v.at(px) for v in networks for px in resolutions or (v.resolution,)]


def expected_top1(v: Variant) -> float:
    """Published ImageNet top-1, moved by what another resolution than the published one costs or gains.

    For a variant without one, B0–B7's interpolated over the logarithm of multiply-adds. Used only to say which of two candidates is
    the larger one, never reported as a measurement.
    """
    own = v.published
    resized = _between(math.log2(v.resolution), _RESOLUTIONS) - _between(math.log2(own.resolution), _RESOLUTIONS)
    return (v.top1 or _between(math.log(own.cost().flops), _KNOWN)) + resized


_KNOWN = sorted((math.log(b.cost().flops), b.top1 or 0.0) for b in VARIANTS.values() if b.series == "b")

# Top-1 by the logarithm of the resolution, of which differences count. To 224 px: MobileNetV2 trained at each (TensorFlow's
# slim/nets/mobilenet/README.md). Beyond: what B0 gains from twice its own (arXiv:1905.11946, table 7).
_RESOLUTIONS = [(math.log2(px), top1) for px, top1 in ((96, 60.3), (128, 65.3), (160, 68.8), (192, 70.7), (224, 71.8))]
_RESOLUTIONS += [(math.log2(448), 71.8 + 79.1 - 77.3)]


def _between(x: float, points: list[tuple[float, float]]) -> float:
    """Linear between neighbouring points, and beyond the outer ones as between the last two."""
    pairs = list(pairwise(points))
    (x0, y0), (x1, y1) = next((p for p in pairs if x <= p[1][0]), pairs[-1])
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
