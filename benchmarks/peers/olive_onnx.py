"""Microsoft Olive's static quantization for ONNX Runtime's CPU provider: `python olive_onnx.py FLOAT PHOTOS OUT {default,narrow}`.

`default`: the pass OnnxStaticQuantization as it comes. `narrow`: weights per channel in 7 bits, as its options advise for a CPU
without VNNI. PHOTOS lists the calibration photos.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"

import onnx
from judge import pixels
from olive import run
from olive.data.registry import Registry
from onnxruntime import InferenceSession


@Registry.register_dataset("photos")
def listed(data_dir: str, model: str, **_: object) -> list:
    """What Olive calibrates on: the input by its name, and a label that nothing reads."""
    graph_input = InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0]
    images = pixels(Path(data_dir).read_text().splitlines(), graph_input.shape[1])
    return [({graph_input.name: image[0]}, 0) for image in images]


def main(model: str, photos: str, out: str, method: str) -> None:
    data = {"name": "photos", "type": "DataContainer", "load_dataset_config": {"type": "photos", "params": {"data_dir": photos}}}
    data["load_dataset_config"]["params"]["model"] = model
    options = {"per_channel": True, "reduce_range": True} if method == "narrow" else {}
    with tempfile.TemporaryDirectory() as folder:
        found = run(
            {
                "input_model": {"type": "ONNXModel", "model_path": model},
                "data_configs": [data],
                "passes": {"int8": {"type": "OnnxStaticQuantization", "data_config": "photos", **options}},
                "output_dir": folder,
                "cache_dir": f"{folder}/cache",
            }
        )
        onnx.save(onnx.load(found.get_best_candidate().model_path), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
