"""What docs/extending.md adds, used from end to end: `python tests/extensions.py NAME FOLDER`, with a patched edgeeff."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from contexts import context_of
from manifests import PREPROCESS, small_bundle
from PIL import Image

from edgeeff import BadInput, Budget, Job, PickJob, Precision, Target
from edgeeff.cli.options import parser
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.export.onnx import to_onnx
from edgeeff.measurement.benchmark import BenchmarkRequest, CompiledModel, benchmark
from edgeeff.network import checkpoint
from edgeeff.network.model import EfficientNet, create
from edgeeff.network.swap import swapped
from edgeeff.network.variants import expected_top1, variant
from edgeeff.option import arguments
from edgeeff.quantization.ladder import climb
from edgeeff.quantization.strategies import STRATEGIES
from edgeeff.target import all_targets


def exported(folder: Path, name: str = "lite0") -> Path:
    torch.manual_seed(0)
    return to_onnx(create(name, classes=10, resolution=32).eval(), PREPROCESS, folder / "model.onnx")


def edgeeff(*words: object) -> str:
    done = subprocess.run([sys.executable, "-m", "edgeeff", *map(str, words)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fit_job(**fields: object) -> Job:
    return Job("host-cpu", "out", "val", variants=("b0",), weights="w", calib="calib", **fields)


def a_backend(folder: Path) -> None:
    (folder / "board.yaml").write_text(
        "description: d\nbackend: onnxruntime_plain\nscheme: symmetric\nprecisions: [float32, int8]\n"
    )
    target = Target.load(folder / "board.yaml")
    assert target.here
    assert target.usable() == [Precision.FLOAT32, Precision.INT8]
    onnx = exported(folder)
    bundle = small_bundle(folder / "made", onnx, target.backend)
    assert bundle.verify()["frames"] < 1e-3
    reference = small_bundle(folder / "reference", onnx, "onnxruntime")
    images = bundle.golden()["images"]
    assert np.allclose(bundle.load()(images), reference.load()(images), atol=1e-3)
    model = CompiledModel(target.backend, onnx, Precision.FLOAT32, 32)
    assert benchmark(BenchmarkRequest({"it": model}, rounds=2)).metrics["it"].latency.p50 > 0


def a_strategy(folder: Path) -> None:
    (folder / "photos").mkdir()
    generator = np.random.default_rng(0)
    for i in range(40):
        Image.new("RGB", (40, 40), tuple(generator.integers(0, 256, 3).tolist())).save(folder / "photos" / f"{i}.png")
    pixels = PixelFile(ImageSet.open(folder / "photos"), PREPROCESS)
    torch.manual_seed(0)  # answers of random weights differ between photos of one colour, but hardly between those of noise
    model = create("lite0", classes=10, resolution=32).eval()
    (folder / "cache").mkdir()
    (attempt,) = climb(*context_of("host-cpu", pixels, model, folder / "cache", agreement=0))
    assert attempt.record.remedy == "weights alone"
    assert attempt.report
    assert attempt.quantized
    plain = folder / "cache" / "relu6-float" / "model.bin"
    assert attempt.quantized.file.with_suffix(".bin").stat().st_size < 0.5 * plain.stat().st_size


def an_activation(folder: Path) -> None:
    typed = parser().parse_args(["pick", "--target", "host-cpu", "--activation", "gelu"])
    assert typed.activation == "gelu"
    assert PickJob("host-cpu", activation="gelu").activation == "gelu"
    assert arguments(fit_job(activation="gelu"))[-2:] == ["--activation", "gelu"]
    (folder / "board.yaml").write_text("description: d\nbackend: openvino\nprecisions: [int8]\nactivation: gelu\n")
    assert Target.load(folder / "board.yaml").activation == "gelu"
    assert "gelu, recovered" in [strategy.name for strategy in STRATEGIES]
    torch.manual_seed(0)
    original = create("b0", classes=10, resolution=32).eval()
    model = swapped(original, "gelu")
    assert torch.nn.GELU in {type(module) for module in model.modules()}
    assert type(create(replace(variant("b0"), activation="gelu"), classes=10).act1) is torch.nn.GELU
    checkpoint.save(model, folder / "w.safetensors", PREPROCESS, ())
    again, _, _ = checkpoint.load(folder / "w.safetensors", original.variant)
    assert again.variant.activation == "gelu"
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), model(x))
    graph = CompiledModel("onnxruntime", to_onnx(model, PREPROCESS, folder / "model.onnx"), Precision.FLOAT32, 32)
    assert np.isfinite(graph.load()(graph.photo)).all()


def a_budget_kind(folder: Path) -> None:
    typed = parser().parse_args(["pick", "--target", "host-cpu", "--startup-ms", "7"])
    assert typed.startup_ms == 7
    assert "--startup-ms 0.001" in fit_job(budget=Budget(startup_ms=0.001)).command
    with pytest.raises(BadInput, match="startup_ms"):
        Budget(startup_ms=-1)
    model = CompiledModel("onnxruntime", exported(folder), Precision.FLOAT32, 32)
    request = BenchmarkRequest({"it": model}, Budget(startup_ms=0.001), rounds=2)
    metrics = benchmark(request).metrics["it"]
    assert metrics.costs["startup_ms"] > 0.001
    assert [broken.endswith(" ms to start") for broken in metrics.over(request.budget)] == [True]
    assert metrics.over(Budget(startup_ms=60_000)) == []
    assert metrics.to_json()["startup_ms"] == round(metrics.costs["startup_ms"], 3)


def a_camera_source(folder: Path) -> None:
    bundle = small_bundle(folder / "made", exported(folder), "onnxruntime")
    lines = edgeeff("camera", bundle.path, "--source", "noise://160x120", "--seconds", 1, "--json").splitlines()
    *labels, last = map(json.loads, lines)
    assert len(labels) > 3
    assert all(label["top"] for label in labels)
    assert last["summary"]["sources"][0]["labels"] == len(labels)
    assert "noise://160x120" in edgeeff("camera", "--help")


def a_target(folder: Path) -> None:
    target = Target.load("odroid-n2")
    assert target in all_targets()
    assert target.budget(Budget()).latency_ms == 40
    assert not target.here
    assert '"odroid-n2"' in edgeeff("targets", "--json")


def a_model_family(folder: Path) -> None:
    v = variant("mobilenet-v2")
    assert v.cost().params == 3_504_872  # torchvision's mobilenet_v2
    assert 300e6 < v.cost().flops < 302e6  # the paper: 300 million
    assert expected_top1(v) == 72.0
    assert '"mobilenet-v2"' in edgeeff("variants", "--json")
    torch.manual_seed(0)
    model: EfficientNet = create("mobilenet-v2", classes=10, resolution=32).eval()
    checkpoint.save(model, folder / "w.safetensors", PREPROCESS, ())
    again, _, fresh = checkpoint.load(folder / "w.safetensors", v, resolution=32)
    assert not fresh
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), model(x))
    graph = CompiledModel("onnxruntime", exported(folder, "mobilenet-v2"), Precision.FLOAT32, 32)
    assert np.isfinite(graph.load()(graph.photo)).all()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
