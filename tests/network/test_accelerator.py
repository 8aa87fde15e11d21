"""Where networks are trained. The other tests of this folder train on the GPU of a machine that has one."""

import contextlib

import pytest
import torch
from torch import nn

from edgeeff import BadInput, EdgeeffError
from edgeeff.network import accelerator
from edgeeff.network.accelerator import accelerated

GPU = torch.cuda.is_available()


def test_modules_are_in_main_memory_after_a_training_that_failed() -> None:
    module = nn.Linear(2, 2)
    with contextlib.suppress(ZeroDivisionError), accelerated(module):
        assert module.weight.is_cuda is GPU
        raise ZeroDivisionError
    assert not module.weight.is_cuda


def test_a_gpu_without_enough_memory_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA T4")
    with pytest.raises(EdgeeffError) as caught, accelerated():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15 GiB.")
    assert str(caught.value).startswith("NVIDIA T4 ran out of memory while training (CUDA out of memory).")
    assert "CUDA_VISIBLE_DEVICES=" in str(caught.value)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BadInput, match="started 4 processes here, and there are 2 GPUs.*--nproc-per-node 2"):
        accelerator.take()


@pytest.mark.parametrize("bf16", [True, False])
def test_what_is_computed_in_bfloat16_is_what_was_asked_for(bf16: bool) -> None:
    layer, x = nn.Linear(4, 4), torch.ones(1, 4)
    with accelerated(layer), accelerator.autocast(bf16):
        answer = layer(x.to(layer.weight.device))
    assert answer.dtype == (torch.bfloat16 if bf16 else torch.float32)
    assert GPU or not accelerator.computes_bf16()
    assert bool(accelerator.name()) is GPU
