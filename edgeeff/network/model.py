"""The network itself: a torch module built from a Variant, with timm's parameter names.

Also the module that is exported, which takes photos as they come (uint8, NHWC) and normalises them inside.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.images import Preprocess
from .variants import Block, Padding, Variant, variant

# The activation, and the gate of squeeze-and-excitation beside it.
ACTIVATIONS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "silu": (nn.SiLU, nn.Sigmoid),
    "hardswish": (nn.Hardswish, nn.Hardsigmoid),
    "relu6": (nn.ReLU6, nn.Hardsigmoid),
    "relu": (nn.ReLU, nn.Hardsigmoid),
}


class SameConv2d(nn.Conv2d):
    """TensorFlow's SAME padding. `pads` (left, right, top, bottom) are those of the latest input; the export makes them static.

    A stride-2 convolution on an even size pads one more pixel at the right and bottom than at the left and top.
    """

    pads = (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        size, kernel, stride = int(x.shape[-1]), self.kernel_size[0], self.stride[0]
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        self.pads = (total // 2, total - total // 2) * 2
        padded = F.pad(x, self.pads)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int, activation: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = activation
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        gate: Tensor = self.gate(self.conv_expand(self.act(self.conv_reduce(pooled))))
        return x * gate


class Builder:
    """Makes the layers of one network, so that padding, batch-norm eps and activation are said once."""

    def __init__(self, padding: Padding, bn_eps: float, activation: str) -> None:
        self.padding = padding
        self.bn_eps = bn_eps
        self.activation, self.gate = ACTIVATIONS[activation]

    def conv(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
        if self.padding == "same" and stride > 1:
            return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)

    def bn(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(channels, eps=self.bn_eps)

    def act(self) -> nn.Module:
        return self.activation(inplace=True)


class MBBlock(nn.Module):
    """Any block of the family. Stochastic depth drops the residual branch of a whole image while training.

    Source: Huang et al. 2016, arXiv:1603.09382.
    """

    def __init__(self, b: Block, make: Builder) -> None:
        super().__init__()
        self.skip = b.skip
        self.drop_path = 0.0
        self.layers: list[str] = []
        if b.kind == "conv":
            conv = make.conv(b.inputs, b.outputs, b.kernel, stride=b.stride)
            self._add(conv=conv, bn1=make.bn(b.outputs), act1=make.act())
            return
        if b.kind == "fused":
            expand = make.conv(b.inputs, b.expanded, b.kernel, stride=b.stride)
            self._add(conv_exp=expand, bn1=make.bn(b.expanded), act1=make.act())
            self._add(conv_pwl=make.conv(b.expanded, b.outputs, 1), bn2=make.bn(b.outputs))
            return
        depthwise = make.conv(b.expanded, b.expanded, b.kernel, stride=b.stride, groups=b.expanded)
        if b.kind == "mbconv":
            self._add(conv_pw=make.conv(b.inputs, b.expanded, 1), bn1=make.bn(b.expanded), act1=make.act())
            self._add(conv_dw=depthwise, bn2=make.bn(b.expanded), act2=make.act())
        else:
            self._add(conv_dw=depthwise, bn1=make.bn(b.expanded), act1=make.act())
        if b.squeezed:
            self._add(se=SqueezeExcite(b.expanded, b.squeezed, make.act(), make.gate()))
        project = make.conv(b.expanded, b.outputs, 1)
        if b.kind == "mbconv":
            self._add(conv_pwl=project, bn3=make.bn(b.outputs))
        else:
            self._add(conv_pw=project, bn2=make.bn(b.outputs))

    def _add(self, **layers: nn.Module) -> None:
        for name, layer in layers.items():
            self.add_module(name, layer)
            self.layers.append(name)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for name in self.layers:
            y = getattr(self, name)(y)
        if not self.skip:
            return y
        if self.training and self.drop_path:
            keep = 1 - self.drop_path
            y = y * (torch.rand(len(y), 1, 1, 1, device=y.device) < keep).to(y.dtype) / keep
        return x + y


class EfficientNet(nn.Module):
    """`(N, 3, R, R)` normalised float images → `(N, classes)` logits."""

    def __init__(self, variant: Variant, classes: int, padding: Padding, bn_eps: float) -> None:
        super().__init__()
        self.variant, self.classes, self.padding, self.bn_eps = variant, classes, padding, bn_eps
        make = Builder(padding, bn_eps, variant.activation)
        self.conv_stem = make.conv(3, variant.stem, 3, stride=2)
        self.bn1 = make.bn(variant.stem)
        self.act1 = make.act()
        stages: list[nn.Sequential] = [nn.Sequential() for _ in variant.stages]
        for b in variant.blocks():
            stages[int(b.name.split(".")[1])].append(MBBlock(b, make))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = make.conv(variant.stages[-1].channels, variant.head, 1)
        self.bn2 = make.bn(variant.head)
        self.act2 = make.act()
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(variant.head, classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                fan_out = m.kernel_size[0] ** 2 * m.out_channels // m.groups
                nn.init.normal_(m.weight, std=math.sqrt(2 / fan_out))
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv_stem(x)))
        x = self.blocks(x)
        x = self.act2(self.bn2(self.conv_head(x)))
        logits: Tensor = self.classifier(self.dropout(x.mean((2, 3))))
        return logits

    def set_stochastic_depth(self, rate: float) -> None:
        """Drop residual branches with a probability that grows linearly from 0 at the first block to `rate` at the last."""
        blocks = [m for m in self.modules() if isinstance(m, MBBlock)]
        for i, block in enumerate(blocks):
            block.drop_path = rate * i / len(blocks)


class Deployed(nn.Module):
    """The network with its normalisation inside: `(N, H, W, 3)` uint8 photos → `(N, classes)` logits."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: EfficientNet, preprocess: Preprocess) -> None:
        super().__init__()
        self.model = model
        std = torch.tensor(preprocess.std)
        self.register_buffer("scale", 1 / std)
        self.register_buffer("shift", -torch.tensor(preprocess.mean) / std)
        self.bgr = preprocess.colour == "BGR"

    def forward(self, images: Tensor) -> Tensor:
        x = images.float()  # (N, H, W, 3)
        if self.bgr:
            x = x.flip(-1)
        # Normalised before it is permuted: OpenVINO then drops the permutation, as its convolutions read NHWC anyway.
        logits: Tensor = self.model((x * self.scale + self.shift).permute(0, 3, 1, 2))
        return logits


def create(
    name: str | Variant,
    *,
    classes: int = 1000,
    padding: Padding | None = None,
    bn_eps: float | None = None,
    resolution: int | None = None,
) -> EfficientNet:
    """A freshly initialised network.

    `padding` and `bn_eps` default to those of the weights usually published for the variant: PyTorch's symmetric padding for
    B0–B7, TensorFlow's SAME for Lite and V2. Given the other padding, eps is that of the library it stands for.
    """
    v = (variant(name) if isinstance(name, str) else name).at(resolution)
    if bn_eps is None:
        bn_eps = v.bn_eps if padding in (None, v.padding) else {"same": 1e-3, "symmetric": 1e-5}[padding]
    return EfficientNet(v, classes, padding or v.padding, bn_eps)


def channels_last(module: Deployed) -> Deployed:
    """The layout in which convolutions are fastest on a CPU."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # missing in torch's stubs


def predict(model: EfficientNet, preprocess: Preprocess) -> Any:
    """The torch model as a `Predict`: `(N, H, W, 3)` uint8 → `(N, classes)` float32, without gradients."""
    deployed = channels_last(Deployed(model, preprocess).eval())

    @torch.inference_mode()
    def run(images: Any) -> Any:
        return deployed(torch.from_numpy(images)).numpy()

    return run
