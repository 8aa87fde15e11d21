"""What an NVIDIA GPU adds to the CPU beside it: V2-B0's graphs in ONNX Runtime, the network in torch, and training.

`python benchmarks/run.py gpu gpu-training` runs it where torch has CUDA and onnxruntime-gpu is installed. TensorRT is not
among them: benchmarks/jetson.py measures its engines. Every inference that is timed copies a photo to the GPU and its logits back.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import data as data_files
import numpy as np
import onnxruntime
import torch

from edgeeff.data.images import ImageSet, Logits, PixelFile, Pixels, Predict
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import ToolMissing
from edgeeff.measurement.accuracy import Gate
from edgeeff.measurement.latency import measure, ratio
from edgeeff.network import accelerator, checkpoint, distributed
from edgeeff.network.activations import SWAPS
from edgeeff.network.distill import Distillation, PhotoSource, distilled
from edgeeff.network.model import Deployed, EfficientNet, channels_last, predict
from edgeeff.network.swap import swapped
from edgeeff.network.train import Recipe, train
from edgeeff.network.variants import variant
from edgeeff.progress import TerminalProgress
from edgeeff.quantization.strategies import computes_bf16
from edgeeff.records import to_json

BATCH = 256  # for throughput
CUDA = "CUDAExecutionProvider"
TYPES = {"float32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def require() -> None:
    """Raise ToolMissing where no GPU can be used."""
    if not torch.cuda.is_available() or CUDA not in onnxruntime.get_available_providers():
        raise ToolMissing("expected an NVIDIA GPU, a torch with CUDA, and onnxruntime-gpu.")


def measured(bundle: Path, data: Path, test: ImageSet) -> dict[str, Any]:
    """Every form's accuracy on test photos and latency on the GPU. `bundle` holds V2-B0's graphs for a GPU."""
    model, preprocess = _v2_b0(data)
    forms = {f"ONNX Runtime, {graph.stem}": _in_onnxruntime(graph) for graph in sorted(bundle.glob("*.onnx"))}
    forms |= {f"torch, {name}": _in_torch(model, preprocess, kind) for name, kind in TYPES.items()}
    forms |= {f"torch, {name}, one CUDA graph": _as_cuda_graph(model, preprocess, kind) for name, kind in TYPES.items()}
    gate = Gate(PixelFile(test, preprocess), max_drop=0.5, progress=TerminalProgress())
    gate.judge("torch on the CPU", predict(model, preprocess))
    for name, run in forms.items():
        gate.judge(name, _one_by_one(run))
    photo = PixelFile(test.take([0]), preprocess).rows(0, 1)
    run = measure({name: partial(form, photo) for name, form in forms.items()})
    base = run.latencies["torch, float32"]
    return {
        "gpu": accelerator.name(),
        "driver": _driver(),
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
        "steps": to_json(gate.reports),
        "latency_ms": {name: to_json(latency) for name, latency in run.latencies.items()},
        "speeds": {name: to_json(ratio(base, latency)) for name, latency in run.latencies.items()},
        "photos_a_second": {name: _throughput(model, preprocess, kind) for name, kind in TYPES.items()},
    }


def trainings(data: Path) -> dict[str, Any]:
    """What main() says on the CPU, on the GPU, and there under torchrun."""
    return {name: _training(data, **way) for name, way in WAYS.items()}


def _v2_b0(data: Path) -> tuple[EfficientNet, Preprocess]:
    v = variant("v2-b0")
    model = checkpoint.load(data / "weights/v2_b0-imagenet.pth", v)[0].eval()
    return model, Preprocess.standard(v.resolution, v.mean, v.std)


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


def _in_onnxruntime(graph: Path) -> Predict:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=[CUDA, "CPUExecutionProvider"])
    if CUDA not in session.get_providers():
        raise ToolMissing(f"{graph.name}: ONNX Runtime could not load its CUDA provider: are CUDA and cuDNN on the library path?")
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _network(model: EfficientNet, preprocess: Preprocess, kind: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """A copy on the GPU whose convolutions compute in that type."""
    network = channels_last(Deployed(copy.deepcopy(model), preprocess).eval().cuda())

    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cuda", kind, enabled=kind != torch.float32):
            logits: torch.Tensor = network(images).float()
            return logits

    return run


def _in_torch(model: EfficientNet, preprocess: Preprocess, kind: torch.dtype) -> Predict:
    network = _network(model, preprocess, kind)
    return lambda images: network(torch.from_numpy(images)).cpu().numpy()


def _as_cuda_graph(model: EfficientNet, preprocess: Preprocess, kind: torch.dtype) -> Predict:
    """One photo at a time, whose kernels were recorded once and are launched together."""
    network, side = _network(model, preprocess, kind), preprocess.resolution
    photo = torch.zeros((1, side, side, 3), dtype=torch.uint8, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(photo)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = network(photo)

    def run(images: Pixels) -> Logits:
        photo.copy_(torch.from_numpy(images))
        graph.replay()
        answer: Logits = logits.cpu().numpy()
        return answer

    return run


def _one_by_one(run: Predict) -> Predict:
    return lambda images: np.concatenate([run(images[i : i + 1]) for i in range(len(images))])


def _throughput(model: EfficientNet, preprocess: Preprocess, kind: torch.dtype) -> float:
    """Photos a second in batches that lie in the GPU's memory."""
    network, side = _network(model, preprocess, kind), preprocess.resolution
    photos = torch.randint(0, 256, (BATCH, side, side, 3), dtype=torch.uint8, device="cuda")
    for _ in range(5):
        network(photos)
    torch.cuda.synchronize()
    start, batches = time.perf_counter(), 20
    for _ in range(batches):
        network(photos)
    torch.cuda.synchronize()
    return BATCH * batches / (time.perf_counter() - start)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
WAYS: dict[str, dict[str, Any]] = {
    "CPU": {"environment": {"CUDA_VISIBLE_DEVICES": ""}},
    "GPU": {},
    "GPU, one process of torchrun, NCCL": {"launcher": TORCHRUN},
}


def _training(data: Path, launcher: tuple[str, ...] = (), environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What main() says, in a process of its own."""
    command = [sys.executable, *launcher, __file__, str(data)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **(environment or {})})
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def fine_tuned(data: Path) -> dict[str, Any]:
    """B0's backbone fine-tuned on flowers12 for 10 epochs: seconds, and top-1 on its test photos, computed on the CPU."""
    v, photos = variant("b0"), ImageSet.open(data / "images/flowers12/train")
    torch.manual_seed(0)
    model, _, _ = checkpoint.load(data / "weights/b0-imagenet-backbone.pth", v, classes=12, padding="same")
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    test = ImageSet.open(data / "images/flowers12/val").split(data_files.HELD_OUT)[1]
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        recipe = Recipe.fine_tune(None, None, flip=True, seed=0)
        result, epochs = train(model, preprocess, photos, recipe, Path(folder) / "state.pt", progress=TerminalProgress())
        seconds = time.monotonic() - start
    gate = Gate(PixelFile(test, preprocess), max_drop=0.5)
    report = gate.judge("float32", predict(result, preprocess))
    return {"seconds": seconds, "top1": report.top1, "photos": len(test), "loss": epochs[-1].loss}


def recovered(data: Path) -> dict[str, Any]:
    """V2-B0 with Hardswish, distilled as a fit does it: seconds, and the loss on held-back photos before and after."""
    model, preprocess = _v2_b0(data)
    images, schedule = ImageSet.open(data / "images/imagenet-samples-1000"), SWAPS["hardswish"]
    assert schedule is not None
    recipe = Distillation(round(schedule.samples / len(images)), schedule.peak_lr, bf16=computes_bf16())
    student, source = partial(swapped, activation="hardswish"), PhotoSource(images, preprocess)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (model, student, source, recipe, Path(folder) / "state.pt")
        return to_json(distilled(*arguments, seconds=3600, progress=TerminalProgress())[1])  # type: ignore[no-any-return]


def main() -> None:
    """Both trainings, on the GPU if one is visible; under torchrun in its processes."""
    data, parallel = Path(sys.argv[1]), "LOCAL_RANK" in os.environ
    if parallel and not distributed.join():
        return
    try:
        found = {"fine-tuned": fine_tuned(data), "recovered": recovered(data)}
        backend = torch.distributed.get_backend(torch.distributed.group.WORLD) if parallel else ""
        print(json.dumps({**found, "on": accelerator.name() or "CPU", "bf16": computes_bf16(), "by": backend}))
    finally:
        if parallel:
            distributed.leave()


if __name__ == "__main__":
    main()
