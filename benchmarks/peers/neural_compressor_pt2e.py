"""Intel Neural Compressor: `python neural_compressor_pt2e.py FLOAT PHOTOS OUT`: its default static INT8 for torch's x86 inductor.

Since its version 3 it reads no ONNX. What it writes is compiled where it is loaded. FLOAT is an exported program of torch; PHOTOS
lists the calibration photos.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from judge import pixels
from neural_compressor.torch.quantization import convert, get_default_static_config, prepare


def main(model: str, photos: str, out: str) -> None:
    network = torch.export.load(model)
    (sample,), _ = network.example_inputs
    exported = network.module()
    exported._exported, exported.dynamic_shapes = True, None  # as neural_compressor.torch.export would leave it
    prepared = prepare(exported, get_default_static_config())
    for image in pixels(Path(photos).read_text().splitlines(), sample.shape[1]):
        prepared(torch.from_numpy(image))
    torch.export.save(torch.export.export(convert(prepared), (sample,)), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
