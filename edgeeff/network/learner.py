"""A network in training, with its optimizer and the exponential moving average (EMA) of its weights."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..files import write_whole

N = TypeVar("N", bound=nn.Module)
MAX_GRADIENT = 5.0  # the norm of all gradients together is clipped to this


class Learner(Generic[N]):
    """Trains `network` in place. `decay` is what the average keeps of itself at each step, once there have been many."""

    def __init__(self, network: N, optimizer: torch.optim.Optimizer, decay: float) -> None:
        self.network, self.optimizer = network, optimizer
        self.average = averaged(network, decay)

    @property
    def averaged(self) -> N:
        """The network with averaged weights."""
        return cast(N, self.average.module)

    def step(self, loss: Tensor, lr: float) -> None:
        """One step down the gradient of `loss`, at the learning rate `lr`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # missing in torch's stubs
        nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
        self.optimizer.step()
        self.average.update_parameters(self.network)

    def save(self, path: Path, facts: Mapping[str, object]) -> None:
        """Write everything needed to go on from here, with the caller's own `facts`; the file appears whole or not at all."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        buffer = io.BytesIO()
        torch.save({**facts, **parts}, buffer)
        write_whole(path, buffer.getvalue())

    def resume(self, path: Path) -> Mapping[str, Any]:
        """Go on from what `save` wrote; returns the facts saved with it."""
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(saved.pop(name))
        return cast(Mapping[str, Any], saved)

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"student": self.network, "average": self.average, "optimizer": self.optimizer}


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """The average of `network`'s weights and buffers over the steps of a training; it begins as they are now.

    At step n the decay is min(decay, n / (n + 9)), lest the initial weights outweigh the first steps, as in TensorFlow's
    ExponentialMovingAverage with `num_updates`. Integer buffers, which count batches, are copied.
    """

    def update(averages: Sequence[Tensor], values: Sequence[Tensor], step: Tensor | int) -> None:
        share = 1 - min(decay, int(step) / (int(step) + 9))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    average.update_parameters(network)  # the first call copies the weights instead of averaging them
    return average
