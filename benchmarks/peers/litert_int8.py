"""LiteRT in full integers: `python litert_int8.py FLOAT PHOTOS OUT`: converted by litert-torch, quantized by ai-edge-quantizer.

Its recipe for static INT8 weights and activations. FLOAT is an exported program of torch; PHOTOS lists the calibration photos.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import litert_torch
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from judge import pixels


def main(model: str, photos: str, out: str) -> None:
    network = torch.export.load(model)
    (sample,), _ = network.example_inputs
    with tempfile.TemporaryDirectory() as folder:
        plain = f"{folder}/float.tflite"
        litert_torch.convert(network.module(), (sample,)).export(plain)
        ((signature, names),) = Interpreter(plain).get_signature_list().items()
        (name,) = names["inputs"]
        images = [{name: image} for image in pixels(Path(photos).read_text().splitlines(), sample.shape[1])]
        work = quantizer.Quantizer(plain, recipe.static_wi8_ai8())
        work.quantize(work.calibrate({signature: images})).export_model(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
