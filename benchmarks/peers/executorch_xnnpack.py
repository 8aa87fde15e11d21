"""ExecuTorch for a CPU: `python executorch_xnnpack.py FLOAT PHOTOS OUT`: torchao's PT2E quantization, lowered to XNNPACK.

Symmetric INT8 with a scale for each output channel, as ExecuTorch's documentation of its XNNPACK backend advises for networks of
convolutions. FLOAT is an exported program of torch; PHOTOS lists the calibration photos.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.exir import to_edge_transform_and_lower
from judge import pixels
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def main(model: str, photos: str, out: str) -> None:
    network = torch.export.load(model)
    (sample,), _ = network.example_inputs
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(network.module(), quantizer)
    for image in pixels(Path(photos).read_text().splitlines(), sample.shape[1]):
        prepared(torch.from_numpy(image))
    quantized = torch.export.export(convert_pt2e(prepared), (sample,))
    lowered = to_edge_transform_and_lower(quantized, partitioner=[XnnpackPartitioner()])
    Path(out).write_bytes(lowered.to_executorch().buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
