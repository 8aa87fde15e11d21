"""Top-1 of an ONNX classifier by Pillow, numpy and ONNX Runtime alone: `python judge.py MODEL PHOTOS`; nothing of edgeeff.

PHOTOS is a folder with labels.txt (file, tab, class). Prints JSON: each photo's class, and the percentage that is right.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

CROP = 7 / 8  # of the short side of a photo, where that is longer than what is cropped


def pixels(paths: Iterable[str | Path], side: int) -> Iterator[np.ndarray]:
    """The centre of each photo as a batch of one: `(1, side, side, 3)` uint8, RGB."""
    short = round(side / CROP)
    for path in paths:
        with Image.open(path) as photo:
            image = photo.convert("RGB")
        if min(image.size) > short:
            width, height = (round(length * short / min(image.size)) for length in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        yield np.asarray(image.crop((left, top, left + side, top + side)))[None]


def judged(run: Callable[[np.ndarray], np.ndarray], side: int, photos: str) -> dict[str, object]:
    """Each photo's class by its name, and the percentage that is right."""
    lines = [line.split("\t") for line in (Path(photos) / "labels.txt").read_text().splitlines()]
    batches = pixels((Path(photos) / name for name, _ in lines), side)
    answers = {name: int(run(batch)[0].argmax()) for (name, _), batch in zip(lines, batches, strict=True)}
    right = sum(answers[name] == int(label) for name, label in lines)
    return {"answers": answers, "top1": 100 * right / len(lines)}


def main(model: str, photos: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # By default INT8 products are summed in 16 bits on a CPU without VNNI, and overflow.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph_input = session.get_inputs()[0]
    print(json.dumps(judged(lambda batch: session.run(None, {graph_input.name: batch})[0], graph_input.shape[1], photos)))


if __name__ == "__main__":
    main(*sys.argv[1:])
