"""The network as a torch module, built from a Variant, with timm's parameter names.

Also the module that is exported (`Deployed`): it takes photos as they are read (uint8, NHWC) and normalises them inside.
"""

from __future__ import annotations

import inspect
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.images import Logits, Pixels, Predict
from ..data.preprocess import Preprocess
from . import activations
from .activations import Activation
from .architecture import Block, ConvSpec, Padding, SqueezeExciteSpec, Variant
from .variants import variant


def activation_modules(name: Activation) -> tuple[type[nn.Module], type[nn.Module]]:
    """The classes of an activation and of squeeze-and-excitation's gate beside it. Raises BadInput for an unknown name."""
    row = activations.get(name)
    return getattr(nn, row.module), getattr(nn, row.gate)


def activation_module(kind: type[nn.Module], *, inplace: bool) -> nn.Module:
    """One of that class, which overwrites its input if it can and is to."""
    return kind(inplace=inplace) if "inplace" in inspect.signature(kind).parameters else kind()


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding.

    A stride-2 convolution on an even size pads one more pixel at the right and bottom than at the left and top.
    `pads` (left, right, top, bottom) are those of the latest input; the export turns them into attributes.
    """

    pads = (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        size, kernel, stride = int(x.shape[-1]), self.kernel_size[0], self.stride[0]
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        self.pads = (total // 2, total - total // 2) * 2
        padded = F.pad(x, self.pads)
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


class SqueezeExcite(nn.Module):
    def __init__(self, spec: SqueezeExciteSpec, make: Builder) -> None:
        super().__init__()
        reduce, expand = spec.convs
        self.conv_reduce = make.conv(reduce)
        self.act = make.act()
        self.conv_expand = make.conv(expand)
        self.gate = make.gate()

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1)
        gate: Tensor = self.gate(self.conv_expand(self.act(self.conv_reduce(pooled))))
        return x * gate


class Builder:
    """Makes the modules of one network, all with the same padding, batch-norm eps and activation."""

    def __init__(self, padding: Padding, bn_eps: float, activation: Activation) -> None:
        self.padding = padding
        self.bn_eps = bn_eps
        self.activation, self.gate = activation_modules(activation)

    def conv(self, spec: ConvSpec) -> nn.Conv2d:
        sizes, bias = (spec.inputs, spec.outputs, spec.kernel, spec.stride), not spec.bn
        if self.padding == "same" and spec.stride > 1:
            return SameConv2d(*sizes, groups=spec.groups, bias=bias)
        return nn.Conv2d(*sizes, spec.kernel // 2, groups=spec.groups, bias=bias)

    def bn(self, spec: ConvSpec) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(spec.outputs, eps=self.bn_eps)

    def act(self) -> nn.Module:
        return activation_module(self.activation, inplace=True)

    def modules(self, spec: ConvSpec) -> dict[str, nn.Module]:
        """A convolution, its batch norm and its activation, if it has one, by name and in the order in which they run."""
        modules: dict[str, nn.Module] = {spec.name: self.conv(spec), spec.bn: self.bn(spec)}
        return modules | ({spec.act: self.act()} if spec.act else {})


class MBBlock(nn.Module):
    """Any block of the family. `layers` are the names of its modules in the order in which they run.

    In training, stochastic depth drops the residual branch of a whole image with probability `drop_path`.
    Source: Huang et al. 2016, arXiv:1603.09382.
    """

    def __init__(self, block: Block, make: Builder) -> None:
        super().__init__()
        self.skip = block.skip
        self.drop_path = 0.0
        self.layers: list[str] = []
        for layer in block.layers():
            if isinstance(layer, SqueezeExciteSpec):
                self._add({layer.name: SqueezeExcite(layer, make)})
            else:
                self._add(make.modules(layer))

    def _add(self, modules: dict[str, nn.Module]) -> None:
        for name, module in modules.items():
            self.add_module(name, module)
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
        stem, head = variant.stem_conv, variant.head_conv
        self.conv_stem = make.conv(stem)
        self.bn1 = make.bn(stem)
        self.act1 = make.act()
        stages: list[nn.Sequential] = [nn.Sequential() for _ in variant.stages]
        for block in variant.blocks():
            stages[block.stage].append(MBBlock(block, make))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = make.conv(head)
        self.bn2 = make.bn(head)
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
        mean, std = torch.tensor((preprocess.mean, preprocess.std), device=model.classifier.weight.device)
        self.register_buffer("scale", 1 / std)
        self.register_buffer("shift", -mean / std)
        self.bgr = preprocess.colour == "BGR"

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.scale)  # (N, H, W, 3) float32
        if self.bgr:
            x = x.flip(-1)
        # Normalised before it is permuted: OpenVINO then removes the permutation, since its convolutions read NHWC.
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
    B0–B7, TensorFlow's SAME for Lite and V2. With the other padding, eps defaults to that of the library it belongs to.
    """
    v = (variant(name) if isinstance(name, str) else name).at(resolution)
    if bn_eps is None:
        bn_eps = v.bn_eps if padding in (None, v.padding) else {"same": 1e-3, "symmetric": 1e-5}[padding]
    return EfficientNet(v, classes, padding or v.padding, bn_eps)


def channels_last(module: Deployed) -> Deployed:
    """The module in NHWC layout, in which convolutions are fastest on a CPU."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # missing in torch's stubs


def predict(model: EfficientNet, preprocess: Preprocess) -> Predict:
    """The torch model as a function of numpy arrays: `(N, H, W, 3)` uint8 → `(N, classes)` float32, without gradients."""
    deployed = channels_last(Deployed(model, preprocess).eval())

    @torch.inference_mode()
    def run(images: Pixels) -> Logits:
        logits: Logits = deployed(torch.from_numpy(images)).numpy()
        return logits

    return run
