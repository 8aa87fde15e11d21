"""NVIDIA ModelOpt's post-training quantization of ONNX: `python nvidia_modelopt.py FLOAT PHOTOS OUT METHOD [NAME=VALUE ...]`.

METHOD is its calibration method; names and values are further options of its `quantize`. PHOTOS lists the calibration photos.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from judge import pixels
from modelopt.onnx.quantization import quantize


def main(model: str, photos: str, out: str, method: str, *options: str) -> None:
    side = onnx.load(model).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    quantize(
        model,
        calibration_method=method,
        calibration_data=np.concatenate(list(pixels(Path(photos).read_text().splitlines(), side))),
        calibration_eps=["cpu"],
        output_path=out,
        **{name: value == "True" or value for name, value in (option.split("=") for option in options)},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
