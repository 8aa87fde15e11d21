"""Networks for tests."""

import torch

from edgeeff.network.model import EfficientNet, create

SIZE = 64  # pixels


def trained(name: str, **options) -> EfficientNet:
    """A network whose batch norms have seen noise of many colours and contrasts; before that its signal shrinks to 1e-5."""
    torch.manual_seed(0)
    model = create(name, **options)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(16, 3, SIZE, SIZE) * 2 * torch.rand(16, 1, 1, 1) + torch.randn(16, 3, 1, 1))
    return model.eval()
