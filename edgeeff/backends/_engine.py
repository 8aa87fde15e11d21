"""A TensorRT plan that runs: its tensors bound to addresses, copies and kernels in one CUDA graph."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.images import Logits, Pixels
from ..errors import BadInput


class Stage:
    """A plan that is ready to run once each of its tensors, whose `shapes` are known, has an address. `dla`: its core, if any."""

    def __init__(self, trt: Any, plan: bytes, log: Any, dla: int | None = None) -> None:
        self.log = log
        self.runtime = runtime(trt, log, dla)
        engine = self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BadInput(f"TensorRT cannot read the plan: {log.last()}. Run `edgeeff compile` on this device again.")
        self.engine = engine
        context = engine.create_execution_context()
        if context is None:
            raise BadInput(f"TensorRT cannot run the plan: {log.last()}. Is there enough memory?")
        self.context = context
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in self.inputs]
        if not self.inputs or len(outputs) != 1:
            raise BadInput(f"the plan has inputs {self.inputs} and outputs {outputs}: expected one output.")
        self.output = outputs[0]
        self.shapes = {n: tuple(engine.get_tensor_shape(n)) for n in names}
        for name in self.inputs:
            self._require(context.set_input_shape(name, self.shapes[name]), "the input's shape was refused")
        if unresolved := context.infer_shapes():
            raise BadInput(f"the plan leaves shapes open: {', '.join(unresolved)}.")

    def bind(self, name: str, address: int) -> None:
        self._require(self.context.set_tensor_address(name, address), f"the address of {name} was refused")

    def run(self, stream: int) -> None:
        self._require(self.context.execute_async_v3(stream), "the run was refused")

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise BadInput(f"TensorRT: {what}: {self.log.last()}")


class Engine:
    """`(N, H, W, 3)` uint8 → `(N, classes)`, an image at a time: copies and kernels are one CUDA graph, launched once an image.

    With a plan `before` the model's, which takes `constants` too, images are of that one's shape: `(N, h, w, 3)`. Threads use it in
    turn: there is one buffer for the image, and one for the logits. A model's plan for the core `dla` runs without a CUDA graph:
    NVIDIA does not support one there.
    """

    def __init__(
        self,
        trt: Any,
        cuda: Any,
        plan: bytes,
        dla: int | None = None,
        before: bytes = b"",
        constants: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.cuda, self.stream, self.free = cuda, cuda.stream(), threading.Lock()
        log, constants = logger(trt), constants or {}
        self.stages = [*([Stage(trt, before, log)] if before else []), Stage(trt, plan, log, dla)]
        self.kept = {}
        for i, stage in enumerate(self.stages):
            given = [name for name in stage.inputs if name not in constants]
            if len(given) != 1:
                raise BadInput(f"the plan has inputs {given}: expected one, the image.")
            if i == 0:
                self.image = cuda.pinned(stage.shapes[given[0]], np.uint8)
                self.first = carried = cuda.malloc(self.image.nbytes)
            stage.bind(given[0], carried)
            for name in set(stage.inputs) - set(given):
                self.kept[name] = kept = cuda.pinned(constants[name].shape, constants[name].dtype)
                kept[...] = constants[name]
                address = cuda.malloc(kept.nbytes)
                cuda.copy_in(address, kept, self.stream)
                stage.bind(name, address)
            last = stage is self.stages[-1]
            carried = cuda.malloc(prod(stage.shapes[stage.output]) * (np.float32 if last else np.uint8)().itemsize)
            stage.bind(stage.output, carried)
        self.last = carried
        self.logits = cuda.pinned(self.stages[-1].shapes[self.stages[-1].output], np.float32)
        self._enqueue()  # the first run allocates, which no graph can hold
        cuda.synchronize(self.stream)
        self.graph = cuda.capture(self.stream, self._enqueue) if dla is None else None

    def _enqueue(self) -> None:
        self.cuda.copy_in(self.first, self.image, self.stream)
        for stage in self.stages:
            stage.run(self.stream)
        self.cuda.copy_out(self.logits, self.last, self.stream)

    def _launch(self) -> None:
        if self.graph is None:
            self._enqueue()
        else:
            self.cuda.launch(self.graph, self.stream)

    def __call__(self, images: Pixels) -> Logits:
        logits = np.empty((len(images), self.logits.shape[1]), np.float32)
        with self.free:
            for i, image in enumerate(images):
                self.image[...] = image
                self._launch()
                self.cuda.synchronize(self.stream)
                logits[i] = self.logits[0]
        return logits


def runtime(trt: Any, log: Any, dla: int | None) -> Any:
    """What reads plans, for the GPU or for a DLA core, whose number a plan does not hold."""
    runtime = trt.Runtime(log)
    if dla is not None:
        runtime.DLA_core = dla
    return runtime


def logger(trt: Any) -> Any:
    """TensorRT's messages, kept instead of printed; it wants one logger for a process."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[int, str]] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.WARNING):
                self.messages.append((int(severity), message.strip()))

        def last(self) -> str:
            """Its last error, else its last warning."""
            errors = [m for s, m in self.messages if s < int(trt.ILogger.Severity.WARNING)]
            return (errors or [m for _, m in self.messages] or ["it gave no reason"])[-1]

    return Log()
