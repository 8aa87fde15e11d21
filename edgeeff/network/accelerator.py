"""The GPU that a network is trained on, where there is one; without one, the CPU.

Between trainings networks are in main memory, where they are exported, saved, and sent to other processes. Everything that says how
accurate a network is runs on the CPU, or by the runtime of the target. `CUDA_VISIBLE_DEVICES=` in the environment hides the GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..errors import BadInput, EdgeeffError


@contextmanager
def accelerated(*modules: nn.Module) -> Iterator[None]:
    """The modules in the memory of the GPU, where there is one, until the block ends.

    Raises EdgeeffError where that memory is too small for what the block does.
    """
    if not torch.cuda.is_available():
        yield
        return
    torch.backends.cudnn.deterministic = True  # a training that is interrupted and resumed gives the same weights
    try:
        for module in modules:
            module.to("cuda")
        yield
    except torch.OutOfMemoryError as error:
        raise EdgeeffError(
            f"{name()} ran out of memory while training ({str(error).partition('. ')[0]}). Close other programs that use it; "
            "CUDA_VISIBLE_DEVICES= before the command trains on the CPU."
        ) from error
    finally:
        for module in modules:
            module.to("cpu")


def name() -> str:
    """As the driver calls it; empty without a GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def autocast(bf16: bool) -> torch.autocast:
    """What is computed in the block is computed in bfloat16, if it is to be and where that keeps the accuracy."""
    return torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16, enabled=bf16)


def computes_bf16() -> bool:
    """Whether there is a GPU that computes in bfloat16; NVIDIA's do from compute capability 8.0 on."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def take() -> None:
    """Take the GPU of this process's number under `torchrun`. Raises BadInput where there are fewer GPUs than processes."""
    number, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= count:
        raise BadInput(
            f"torchrun started {os.environ['LOCAL_WORLD_SIZE']} processes here, and there are {count} GPUs: expected one process "
            f"for each. Pass --nproc-per-node {count}."
        )
    torch.cuda.set_device(number)
