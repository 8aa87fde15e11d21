"""A network of timm with random weights as ONNX: `python timm_export.py NAME PX OUT`; uint8 `(1, PX, PX, 3)` in, logits out.

Branches that timm has for training are merged, as for inference. Batch norms take the statistics of noise: with those that they
begin with, what deep networks compute ends among numbers so small that a processor is slow at them.
"""

from __future__ import annotations

import sys
import warnings

import timm
import torch
from timm.utils.model import reparameterize_model

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet, in pixels; what they are does not matter to latency


class Deployed(torch.nn.Module):
    """The network behind its preprocessing."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images.permute(0, 3, 1, 2).float() - self.mean) / self.std)


def main(name: str, px: str, out: str) -> None:
    warnings.simplefilter("ignore")  # the TorchScript exporter announces its retirement at every call
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, exportable=True)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean over batches
    with torch.no_grad():
        network.train()(torch.randn(4, 3, int(px), int(px)))
    deployed = Deployed(reparameterize_model(network.eval())).eval()
    images = torch.zeros(1, int(px), int(px), 3, dtype=torch.uint8)
    torch.onnx.export(deployed, (images,), out, input_names=["images"], output_names=["logits"], opset_version=20, dynamo=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
