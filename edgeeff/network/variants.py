"""The variants by name, and which of two promises more accuracy. A further family is a file of its own, named in VARIANTS."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

from ..errors import BadInput, suggestion
from . import efficientnet
from .architecture import Variant

VARIANTS: dict[str, Variant] = {v.name: v for v in (*efficientnet.FAMILY,)}


def variant(name: str) -> Variant:
    """The variant of that name, at its published resolution; for `phiX`, B0 by compound scaling. Raises BadInput for others."""
    key = name.lower().replace("_", "-").removeprefix("efficientnet-").removeprefix("efficientnet")
    if key in VARIANTS:
        return VARIANTS[key]
    if match := re.fullmatch(r"phi(-?\d+(?:\.\d+)?)", key):
        phi = float(match[1])
        if not -6 <= phi <= 7:
            raise BadInput(f"variant {name!r}: phi must lie between -6 and 7.")
        return efficientnet.compound(phi)
    hint = suggestion(key, VARIANTS, cutoff=0.5)
    raise BadInput(f"unknown variant {name!r}.{hint} Expected one of {', '.join(VARIANTS)} or phiX (such as phi0.5).")


def published(v: Variant) -> Variant:
    """The same variant at its published resolution."""
    return variant(v.name)


def published_weights(v: Variant) -> str:
    """The weights to start from, as the name of a checkpoint on the Hugging Face hub. Raises BadInput where none are known."""
    if not v.hub:
        raise BadInput(f"{v.name}: no published weights are known. Give --weights FILE, or another --variant.")
    return f"hf-hub:{v.hub}"


def grid(names: Sequence[str], resolutions: Sequence[int]) -> list[Variant]:
    """Every variant named (none: all of them) at each resolution named (none: its own)."""
    networks = [variant(name) for name in names or VARIANTS]
    return [v.at(px) for v in networks for px in resolutions or (v.resolution,)]


def expected_top1(v: Variant) -> float:
    """Published ImageNet top-1 in percent, plus or minus what another resolution than the published one gains or costs.

    For a variant without a published one, that of B0–B7 is interpolated over the logarithm of multiply-adds. It only decides which
    of two candidates is the larger one, and is never reported as a measurement.
    """
    own = published(v)
    resized = _interpolated(math.log2(v.resolution), _TOP1_BY_RESOLUTION)
    resized -= _interpolated(math.log2(own.resolution), _TOP1_BY_RESOLUTION)
    return (v.top1 or _interpolated(math.log(own.cost().flops), _TOP1_BY_FLOPS)) + resized


_TOP1_BY_FLOPS = sorted((math.log(b.cost().flops), b.top1 or 0.0) for b in VARIANTS.values() if b.series == "b")

# Top-1 by the logarithm of the resolution; only differences count. Up to 224 px: MobileNetV2 trained at each (TensorFlow's
# slim/nets/mobilenet/README.md). Beyond: what B0 gains at twice its own resolution (arXiv:1905.11946, table 7).
_TOP1_BY_RESOLUTION = [(math.log2(px), top1) for px, top1 in ((96, 60.3), (128, 65.3), (160, 68.8), (192, 70.7), (224, 71.8))]
_TOP1_BY_RESOLUTION += [(math.log2(448), 71.8 + 79.1 - 77.3)]


def _interpolated(x: float, points: list[tuple[float, float]]) -> float:
    """Linear between neighbouring points; beyond the outer ones, as between the two points at that end."""
    pairs = list(pairwise(points))
    (x0, y0), (x1, y1) = next((p for p in pairs if x <= p[1][0]), pairs[-1])
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
