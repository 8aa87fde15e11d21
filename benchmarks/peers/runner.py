"""A file that a tool ships, in its own runtime with the defaults of that: `python runner.py FILE`; nothing of edgeeff.

Each line on standard input asks for a line of JSON. `judge FOLDER`: each photo's class, and the percentage that is right.
`time COUNT`: the milliseconds of so many inferences of one photo, after three that are not counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import judge
import numpy as np

WARM_UP = 3
Run = Callable[[np.ndarray], np.ndarray]


def loaded(file: str) -> tuple[Run, int]:
    """What a file computes of a photo `(1, side, side, 3)`, and that side."""
    if file.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        graph_input = session.get_inputs()[0]
        return lambda image: session.run(None, {graph_input.name: image})[0], graph_input.shape[1]
    import openvino

    compiled = openvino.Core().compile_model(file, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    return lambda image: request.infer({0: image}, share_inputs=True)[0], compiled.input(0).shape[1]


def timed(run: Run, side: int, count: int) -> list[float]:
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    times = []
    for _ in range(WARM_UP + count):
        start = time.perf_counter()
        run(image)
        times.append(1000 * (time.perf_counter() - start))
    return times[WARM_UP:]


def main(file: str) -> None:
    run, side = loaded(file)
    for line in sys.stdin:
        what, _, argument = line.strip().partition(" ")
        answer = judge.judged(run, side, argument) if what == "judge" else timed(run, side, int(argument))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
