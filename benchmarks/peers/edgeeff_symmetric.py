"""edgeeff's symmetric scheme: `python edgeeff_symmetric.py WEIGHTS PHOTOS OUT PRECISION VARIANT`, from WEIGHTS in torch.

The first strategy that a fit tries, without the checks that a fit makes between the steps. PHOTOS lists the calibration photos.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.export import fp16, qdq
from edgeeff.export.onnx import to_onnx
from edgeeff.network import checkpoint
from edgeeff.network.variants import variant
from edgeeff.precision import Precision
from edgeeff.quantization import fake_quant


def main(weights: str, listed: str, out: str, precision: str, name: str) -> None:
    form, v = Precision(precision), variant(name)
    model = checkpoint.load(weights, v)[0].eval()
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    paths = set(Path(listed).read_text().splitlines())
    images = ImageSet.open(Path(min(paths)).parent)
    photos = PixelFile(images.take(i for i, path in enumerate(images.paths) if str(path) in paths), preprocess)
    bare, scales = fake_quant.strip(fake_quant.fake_quantized(model, fake_quant.calibrate(model, photos)))
    if form.depthwise_in_float:
        scales = {layer: s for layer, s in scales.items() if not fake_quant.is_depthwise(bare, layer)}
    with tempfile.TemporaryDirectory() as folder:
        plain = to_onnx(bare, preprocess, Path(folder) / "float.onnx")
        graph = qdq.write(plain, scales, Path(folder) / "qdq.onnx")
        if form.rest == "fp16":
            graph = fp16.write(graph, Path(folder) / "fp16.onnx", fp16.overflowing(plain, photos))
        Path(out).write_bytes(graph.read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
