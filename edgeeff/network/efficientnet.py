"""The EfficientNet family: the stages of B, Lite and V2, and how they are scaled.

Sources: EfficientNet, arXiv:1905.11946 (B0–B7, compound scaling); EfficientNet-Lite, TensorFlow's TPU repository (Lite0–4: without
squeeze-and-excitation, with ReLU6; the stem, the head and the depth of the first and last stages are not scaled); EfficientNetV2,
arXiv:2104.00298 (V2).
"""

from __future__ import annotations

import math
from dataclasses import replace

from .architecture import Kind, Stage, Variant


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


def _b(name: str, width: float, depth: float, resolution: int, top1: float | None, bn_eps: float = 1e-5, hub: str = "") -> Variant:
    stem, head = round_channels(32, width), round_channels(1280, width)
    stages = _scaled(_B, width, depth)
    return Variant(name, "b", resolution, stem, stages, head, "silu", "symmetric", bn_eps, *_IMAGENET, top1, hub)


def _lite(name: str, width: float, depth: float, resolution: int, top1: float) -> Variant:
    scaled = list(_scaled(_B, width, depth))
    for fixed in (0, -1):
        scaled[fixed] = replace(scaled[fixed], repeats=_B[fixed].repeats)
    stages = tuple(replace(s, se=False) for s in scaled)
    hub = f"timm/tf_efficientnet_{name}.in1k"
    return Variant(name, "lite", resolution, 32, stages, 1280, "relu6", "same", 1e-3, *_LITE, top1, hub)


def _v2_base(name: str, width: float, depth: float, resolution: int, top1: float) -> Variant:
    stem, head = round_channels(32, width, 0), round_channels(1280, width, 0)
    stages = _scaled(_V2_BASE, width, depth, floor=0)
    hub = f"timm/tf_efficientnet{name.replace('-', '_')}.in1k"
    return Variant(name, "v2", resolution, stem, stages, head, "silu", "same", 1e-3, *_IMAGENET, top1, hub)


def _v2(name: str, stages: tuple[Stage, ...], resolution: int, top1: float) -> Variant:
    hub = f"timm/tf_efficientnet{name.replace('-', '_')}.in21k_ft_in1k"
    return Variant(name, "v2", resolution, stages[0].channels, stages, 1280, "silu", "same", 1e-3, *_HALF, top1, hub)


def compound(phi: float) -> Variant:
    """B0 by compound scaling: depth 1.2^phi, width 1.1^phi, and as resolution the multiple of 8 nearest to 224 · 1.15^phi."""
    return _b(f"phi{phi:g}", 1.1**phi, 1.2**phi, 8 * round(224 * 1.15**phi / 8), None)


FAMILY = (
    # weights: names of timm's models/efficientnet.py; top-1: arXiv:1905.11946, table 2
    _b("b0", 1.0, 1.0, 224, 77.1, hub="timm/efficientnet_b0.ra_in1k"),
    _b("b1", 1.0, 1.1, 240, 79.1, hub="timm/efficientnet_b1.ft_in1k"),
    _b("b2", 1.1, 1.2, 260, 80.1, hub="timm/efficientnet_b2.ra_in1k"),
    _b("b3", 1.2, 1.4, 300, 81.6, hub="timm/efficientnet_b3.ra2_in1k"),
    _b("b4", 1.4, 1.8, 380, 82.9, hub="timm/efficientnet_b4.ra2_in1k"),
    _b("b5", 1.6, 2.2, 456, 83.6, 1e-3, hub="timm/tf_efficientnet_b5.ra_in1k"),
    _b("b6", 1.8, 2.6, 528, 84.0, 1e-3, hub="timm/tf_efficientnet_b6.aa_in1k"),
    _b("b7", 2.0, 3.1, 600, 84.3, 1e-3, hub="timm/tf_efficientnet_b7.ra_in1k"),
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
