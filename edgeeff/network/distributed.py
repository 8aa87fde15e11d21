"""More than one process: under `torchrun` the first one runs the pipeline, and all of them train.

`together(function, …)` calls a function in every process with the first one's arguments; the others wait for it in `serve`.
In a single process all of this does nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist

from ..errors import EdgeeffError
from . import accelerator

P = ParamSpec("P")
T = TypeVar("T")

# The other processes wait this long while the first one quantizes, evaluates and measures latency.
TIMEOUT = timedelta(hours=1)


def join() -> bool:
    """Join the processes of `torchrun`; true in the first one. In the others it returns when the first one is done."""
    # DistributedDataParallel imports it: imported when the process group exists, it would keep the group, and gloo's threads.
    import torch._dynamo

    gpus = torch.cuda.is_available()
    if gpus:
        accelerator.take()
    # gloo carries tensors in main memory, nccl those on a GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=TIMEOUT)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world()))
    if rank() == 0:
        return True
    try:
        serve()
    finally:
        dist.destroy_process_group()
    return False


def leave() -> None:
    """End the other processes' `serve`, and gloo's threads: one that frees a tensor at the interpreter's end aborts the process."""
    try:
        with contextlib.suppress(RuntimeError):  # one that died cannot be reached, and torchrun ends the others
            dist.broadcast_object_list([None])
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def together(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call in every process; returns the first one's result. Raises EdgeeffError where another process ends meanwhile."""
    if world() == 1:
        return function(*arguments, **options)
    dist.broadcast_object_list([(function, arguments, options)])
    return _called(function, *arguments, **options)


def serve() -> None:
    """What every process but the first one does: make its calls with it, until it calls `leave`."""
    while True:
        message: list[Any] = [None]
        dist.broadcast_object_list(message)
        if message[0] is None:
            return
        function, arguments, options = message[0]
        _called(function, *arguments, **options)


def _called(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    try:
        return function(*arguments, **options)
    except dist.DistError as error:
        reason = str(error).partition("\n")[0]
        raise EdgeeffError(
            f"another process ended while training ({reason}). The same command goes on from the last epoch."
        ) from error


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of `items`; the parts of all processes together hold each item once."""
    return items[rank() :: world()]


def total(values: Iterable[float]) -> list[float]:
    """Element-wise sums over all processes."""
    tensor = torch.tensor(list(values), dtype=torch.float64)
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor.tolist()


def replicate(module: torch.nn.Module) -> torch.nn.Module:
    """The module with its gradients averaged over all processes."""
    return torch.nn.parallel.DistributedDataParallel(module) if dist.is_initialized() else module
