"""A file that a tool ships, in its own runtime on all cores: `python runner.py FILE [PRECISION]`; nothing of edgeeff.

PRECISION is what OpenVINO computes in that is not quantized, `f32` or `bf16`; its own choice where that is not told.

Each line on standard input, a JSON list, is answered by a line of JSON. `side`: that of the square which it takes, in pixels.
`judge FOLDER`: each photo's class, and the percentage that is right. `time COUNT`: the milliseconds of so many inferences of one
photo, after three that are not counted. `predict IN OUT`: the logits of the photos in an array, as another array; null.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import judge
import numpy as np

WARM_UP = 3
Run = Callable[[np.ndarray], np.ndarray]


def loaded(file: str, *precision: str) -> tuple[Run, Sequence[int]]:
    """What a file computes of a photo, and the shape in which it takes one."""
    runtimes = {".onnx": onnxruntime, ".xml": openvino, ".pte": executorch, ".tflite": litert, ".pt2": inductor}
    return runtimes[Path(file).suffix](file, *precision)


def onnxruntime(file: str) -> tuple[Run, Sequence[int]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    graph_input = session.get_inputs()[0]
    return lambda image: session.run(None, {graph_input.name: image})[0], graph_input.shape


def openvino(file: str, precision: str = "") -> tuple[Run, Sequence[int]]:
    import openvino

    hints = {"PERFORMANCE_HINT": "LATENCY"} | ({"INFERENCE_PRECISION_HINT": precision} if precision else {})
    compiled = openvino.Core().compile_model(file, "CPU", hints)
    request = compiled.create_infer_request()
    return lambda image: request.infer({0: image}, share_inputs=True)[0], compiled.input(0).shape


def executorch(file: str) -> tuple[Run, Sequence[int]]:
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")
    return lambda image: method.execute([torch.from_numpy(image)])[0].numpy(), method.metadata.input_tensor_meta(0).sizes()


def litert(file: str) -> tuple[Run, Sequence[int]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    (graph_input,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = output["quantization"]

    def run(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(graph_input["index"], image)
        interpreter.invoke()
        return (interpreter.get_tensor(output["index"]).astype(np.float32) - zero_point) * (scale or 1)

    return run, graph_input["shape"]


def inductor(file: str) -> tuple[Run, Sequence[int]]:
    import torch
    import torch._inductor.config
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer  # noqa: F401 (the operators in the file)

    torch._inductor.config.freezing = True
    torch.set_grad_enabled(False)
    program = torch.export.load(file)
    network = torch.compile(program.module())
    return lambda image: network(torch.from_numpy(image)).numpy(), program.example_inputs[0][0].shape


def timed(run: Run, side: int, count: int) -> list[float]:
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    times = []
    for _ in range(WARM_UP + count):
        start = time.perf_counter()
        run(image)
        times.append(1000 * (time.perf_counter() - start))
    return times[WARM_UP:]


def predict(run: Run, source: str, target: str) -> None:
    np.save(target, np.concatenate([run(image[None]) for image in np.load(source)]))


def main(file: str, *precision: str) -> None:
    run, shape = loaded(file, *precision)
    one, side, width, channels = shape
    if (one, width, channels) != (1, side, 3):
        raise SystemExit(f"it takes an input of {list(map(int, shape))}, expected [1, side, side, 3]")
    side = int(side)
    questions = {
        "side": lambda: side,
        "judge": lambda folder: judge.judged(run, side, folder),
        "time": lambda count: timed(run, side, int(count)),
        "predict": lambda source, target: predict(run, source, target),
    }
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(questions[what](*arguments)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
