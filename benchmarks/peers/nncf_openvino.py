"""NNCF for OpenVINO: `python nncf_openvino.py FLOAT PHOTOS OUT {default,accuracy}`.

`default`: `nncf.quantize` as its documentation begins with, and on a CPU without VNNI what that says of saturation. `accuracy`:
`nncf.quantize_with_accuracy_control`, which puts layers back to float until top-1 falls by half a point at most. PHOTOS lists the
calibration photos; their labels, which accuracy control needs, lie in labels.txt beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import numpy as np
import openvino
from judge import pixels

MAX_DROP = 0.005


def main(model: str, photos: str, out: str, method: str) -> None:
    network = openvino.convert_model(model)
    paths = [Path(path) for path in Path(photos).read_text().splitlines()]
    labels = dict(line.split("\t") for line in (paths[0].parent / "labels.txt").read_text().splitlines())
    images = list(pixels(paths, network.input(0).get_partial_shape()[1].get_length()))
    calibration = nncf.Dataset(images)
    narrow = "vnni" not in Path("/proc/cpuinfo").read_text()
    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE) if narrow else None
    if method == "default":
        quantized = nncf.quantize(network, calibration, subset_size=len(images), advanced_parameters=advanced)
    else:
        known = [(image, int(labels[path.name])) for image, path in zip(images, paths, strict=True)]

        def right(compiled: openvino.CompiledModel, rows: list) -> tuple[float, list[float]]:
            each = [float(compiled(image)[0].argmax() == label) for image, label in rows]
            return float(np.mean(each)), each

        quantized = nncf.quantize_with_accuracy_control(
            network,
            calibration,
            nncf.Dataset(known),
            validation_fn=right,
            max_drop=MAX_DROP,
            subset_size=len(images),
            advanced_quantization_parameters=advanced,
        )
    openvino.save_model(quantized, out, compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
