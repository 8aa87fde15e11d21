"""From a bundle to an engine, end to end through the command line, on a TensorRT and a CUDA that are fakes over ONNX Runtime."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import FAKES, ROOT, python_path
from jetsons import ORIN, tree

from edgeeff import BadInput, Bundle, EdgeeffError, Precision, backends
from edgeeff.compilation import compile_bundle
from edgeeff.data.frames import Frames, View
from edgeeff.job import CompileJob
from edgeeff.measurement import jetson
from edgeeff.measurement.system_state import snapshot

pytestmark = pytest.mark.usefixtures("brief")  # latencies of a stand-in are worth no time


@pytest.fixture
def copy(portable, tmp_path: Path) -> Path:
    return Path(shutil.copytree(portable[0], tmp_path / "bundle"))


def test_a_fit_for_a_jetson_ships_judged_graphs_and_claims_no_latency(portable, digits: Path, run) -> None:
    path, result = portable
    assert [f["precision"] for f in result["forms"]] == ["int8-fp16", "int8-mixed", "fp16"]
    assert all(f["passed"] for f in result["forms"])
    assert result["latency_ms"] is None
    assert "measured on the device, not here" in result["verdict"]
    manifest = json.loads((path / "manifest.json").read_text())
    assert {f["file"] for f in manifest["forms"]} | {"model.onnx"} <= set(manifest["files"])
    assert [f["confidence"]["photos"] for f in manifest["forms"]] == [300] * 3  # each has its own temperature
    assert manifest["confidence"] == manifest["forms"][0]["confidence"]
    golden = Bundle.open(path).golden()
    assert set(golden) == {"images", "logits", "float32", "fp16", "int8-fp16", "int8-mixed"}
    for form in manifest["forms"]:
        done = run("lint", path / form["file"])
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    done = run("eval", path, "--val", digits / "val", "--json")
    assert json.loads(done.stdout)["top1"] == pytest.approx(result["forms"][0]["top1"], abs=1e-6)
    assert run("verify", path).returncode == 0


def test_the_page_of_a_fit_for_a_jetson_leaves_time_to_the_device(portable) -> None:
    from pages import require_true_figures

    reader = require_true_figures((portable[0] / "report.html").read_text(encoding="utf-8"))
    assert "what the device measured is in manifest.json" in reader.text
    assert "No times here: the device compiles for itself" in reader.text
    assert not [path for path in reader.figures if "latency_ms" in path or path.startswith(("siblings", "layer_times"))]
    assert {"forms.0.drop", "layer_errors.layers.0.adds", "confusion.wrong"} <= set(reader.figures)


def test_inspect_finds_the_quantizers_of_a_graph_in_fp16(portable) -> None:
    from edgeeff.export.onnx import module_path
    from edgeeff.export.qdq import quantized_layers
    from edgeeff.quantization.layer_error import inspect

    integer = {e.layer for e in inspect(Bundle.open(portable[0])) if e.bits == 8}
    assert integer
    nodes = quantized_layers(portable[0] / "int8-fp16.onnx")
    assert integer == {module_path(node).removeprefix("model.") for node in nodes}


def test_depthwise_layers_are_float_in_the_mixed_form_only(portable) -> None:
    from edgeeff.export.qdq import quantized_layers

    whole, mixed = (quantized_layers(portable[0] / f"{name}.onnx") for name in ("int8-fp16", "int8-mixed"))
    assert mixed < whole
    assert all("conv_dw" in layer for layer in whole - mixed)
    assert not any("conv_dw" in layer for layer in mixed)


def test_on_the_device_every_form_is_built_checked_and_timed_and_the_fastest_ships(copy: Path, digits: Path, run) -> None:
    page = (copy / "report.html").read_bytes()
    done = run("compile", copy, "--val", digits / "val", "--json", env=FAKES)
    assert done.returncode == 0, done.stderr
    assert (copy / "report.html").read_bytes() == page  # it is of the fit, and says so
    assert "report.html" in Bundle.open(copy).manifest.files
    card = (copy / "README.md").read_text(encoding="utf-8")
    assert "by which the engine was judged on the device" in card
    assert f"| p50 | {Bundle.open(copy).manifest.metrics.latency.p50:.2f} |" in card
    result = json.loads(done.stdout)
    assert [e["precision"] for e in result["engines"]] == ["float32", "int8-fp16", "int8-mixed", "fp16"]
    for engine in result["engines"]:
        assert engine["difference"] < 1e-3  # the same runtime: any more would be a mistake in getting pixels in and logits out
        assert engine["accuracy"]["images"] == 300
        assert engine["latency_ms"]["p50"] > 0
    fastest = min((e for e in result["engines"] if e["passed"]), key=lambda e: e["latency_ms"]["p50"])
    assert result["precision"] == fastest["precision"]
    origin = json.loads((copy / "model.engine.json").read_text())
    assert (origin["tensorrt"], origin["compute_capability"]) == ("10.3.0", "8.7")
    assert not [p.name for p in copy.parent.iterdir() if p != copy]  # nothing half-made is left

    done = run("eval", copy, "--val", digits / "val", "--json", env=FAKES)
    answer, confidence = json.loads(done.stdout), Bundle.open(copy).manifest.confidence
    assert answer["top1"] == pytest.approx(fastest["accuracy"]["top1"], abs=1e-6)
    assert confidence is not None
    assert confidence.after is not None
    assert (answer["temperature"], confidence.photos) == (confidence.temperature, 300)
    assert answer["reliability"]["error"] == pytest.approx(confidence.after.error, abs=1e-3)
    assert run("verify", copy, env=FAKES).returncode == 0
    done = run("requalify", copy, "--val", digits / "val", "--rounds", 2, "--json", env=FAKES)
    assert done.returncode in (0, 9), done.stderr  # 9: something else runs on the machine of the tests
    told = json.loads(done.stdout)
    assert {line["what"]: line["outcome"] for line in told["results"][:4]} == dict.fromkeys(
        ("files", "golden images", "golden frames", "top-1 %"), "same"
    )
    assert [line["manifest"] == line["now"] for line in told["environment"] if line["what"] in ("tensorrt", "driver")] == [True] * 2
    done = run("camera", copy, "--source", digits / "val/3", "--json", env=FAKES)
    assert done.returncode == 0, done.stderr
    seen = [json.loads(line)["top"][0][0] for line in done.stdout.splitlines()[:-1]]
    frames = [cv2.imread(str(photo)) for photo in sorted((digits / "val/3").iterdir())]
    view = View.of(Bundle.open(copy).preprocess, Frames(frames[0].shape[1], frames[0].shape[0]))
    graph = copy / ("model.onnx" if result["precision"] == "float32" else f"{result['precision']}.onnx")
    see = backends.get("onnxruntime").watch(graph, view, precision=Precision(result["precision"]))
    assert seen == [str(see(frame).argmax()) for frame in frames]  # the frame was shrunk in the engine as in ONNX Runtime
    assert "in int8" in run("inspect", copy, "--engine").stdout
    assert run("compile", copy, env=FAKES).returncode == 0  # after an upgrade, say: the graphs are still there


def test_for_a_dla_core_fp16_alone_is_built_and_runs_on_that_core_without_a_cuda_graph(copy: Path, digits: Path, run) -> None:
    graphs = {p.name for p in copy.glob("*.onnx")}
    done = run("compile", copy, "--dla", 1, "--val", digits / "val", "--json", env=FAKES)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [e["precision"] for e in result["engines"]] == ["float32", "fp16"]
    assert "On the DLA there is no INT8: it takes implicit quantization only" in result["verdict"]
    core = {"float32": None, "fp16": 1}[result["precision"]]  # the faster ships, which the stand-in's latencies decide
    assert json.loads((copy / "model.engine.json").read_text())["dla"] == core
    assert {p.name for p in copy.glob("*.onnx")} == graphs  # a later compile for the GPU has them all
    done = run("camera", copy, "--source", digits / "val/3", "--json", env=FAKES)
    assert done.returncode == 0, done.stderr


def with_tensorrt(version: str, folder: Path, **changes: str) -> dict[str, str]:
    """An environment whose fake TensorRT is of another version, with lines of it changed."""
    shutil.copytree(ROOT / "tests/fakes", folder)
    module = folder / "tensorrt/__init__.py"
    text = module.read_text()
    for old, new in {'__version__ = "10.3.0"': f'__version__ = "{version}"', **changes}.items():
        assert old in text
        text = text.replace(old, new)
    module.write_text(text)
    return {**os.environ, "PYTHONPATH": python_path(folder)}


def test_a_dla_that_is_not_there_is_refused_before_anything_is_built(copy: Path, run, tmp_path: Path) -> None:
    def refusal(version: str, core: int, **changes: str) -> str:
        done = run("compile", copy, "--dla", core, env=with_tensorrt(version, tmp_path / f"fakes-{version}-{core}", **changes))
        assert done.returncode == 5
        assert done.stderr.count("\n") == 1
        return done.stderr

    for version in ("10.16.1", "11.4.0"):
        assert f"TensorRT {version} does not support the DLA. 10.3 to 10.7 do" in refusal(version, 0)
    assert "this device has 2 DLA cores, numbered from 0" in refusal("10.3.0", 2)
    assert "this device has no DLA: Orin NX and AGX Orin" in refusal("10.7.0", 0, **{"num_DLA_cores = 2": "num_DLA_cores = 0"})
    assert "model.engine" not in {p.name for p in copy.iterdir()}


def test_a_bundle_without_an_fp16_form_is_refused_for_the_dla(copy: Path, run) -> None:
    forms = json.loads((copy / "manifest.json").read_text())["forms"]
    edited(copy, forms=[f for f in forms if f["precision"] != "fp16"])
    done = run("compile", copy, "--dla", 0, env=FAKES)
    assert done.returncode == 2
    assert "--dla 0 takes the fp16 form, expected one; the bundle has int8-fp16, int8-mixed. On the DLA there is no" in done.stderr


def test_a_plan_from_elsewhere_is_refused_in_plain_words(copy: Path, run, tmp_path: Path) -> None:
    assert run("compile", copy, env=FAKES).returncode == 0
    done = run("verify", copy, env=with_tensorrt("10.13.3", tmp_path / "fakes"))
    assert done.returncode == 2
    assert "built for TensorRT 10.3.0, compute capability 8.7" in done.stderr
    assert "here is TensorRT 10.13.3" in done.stderr
    assert "Plans do not travel: run `edgeeff compile` here." in done.stderr


def test_off_the_device_compile_says_what_is_missing(copy: Path, run) -> None:
    done = run("compile", copy)
    assert done.returncode == 5
    assert "TensorRT is not installed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_bundle_of_another_backend_has_nothing_to_compile(fitted, run) -> None:
    done = run("compile", fitted[0], env=FAKES)
    assert done.returncode == 2
    assert "nothing to compile" in done.stderr


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process, and those it starts, find the fakes."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/fakes"))
    monkeypatch.setenv("PYTHONPATH", python_path(ROOT / "tests/fakes"))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("tensorrt", "cuda")]:
        del sys.modules[name]


@pytest.mark.usefixtures("device")
def test_a_throttled_run_is_repeated_and_then_refused(copy: Path, tmp_path: Path) -> None:
    found = jetson.read(tree(tmp_path / "orin", ORIN), lambda: "NV Power Mode: 25W\n")
    assert found is not None
    slowed = replace(found, throttle_events=found.throttle_events + 3)
    before = (copy / "manifest.json").read_bytes()
    at = snapshot(tmp_path)
    state = replace(at.state, cores=100)  # so that no other program's work counts

    def looks(*boards: jetson.JetsonState):
        moments = (replace(at, at=float(i), state=replace(state, board=b)) for i, b in enumerate(boards))
        return lambda: next(moments)

    with pytest.raises(
        EdgeeffError, match="slowed down twice while it was measured, so there is no measurement: gpu-throttle-alert"
    ):
        compile_bundle(
            CompileJob(copy), take_snapshot=looks(found, slowed, slowed, replace(slowed, slowed_by=("gpu-throttle-alert",)))
        )
    assert (copy / "manifest.json").read_bytes() == before
    compiled = compile_bundle(
        CompileJob(copy), take_snapshot=looks(found, slowed, slowed, slowed)
    )  # the second run was undisturbed
    assert [c.board.power_mode for c in compiled.bundle.manifest.conditions] == ["25W", "25W"]


def edited(path: Path, **changes: object) -> None:
    from edgeeff.manifest import digest

    manifest = json.loads((path / "manifest.json").read_text()) | changes
    manifest["digest"] = digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def golden(path: Path, **changes: object) -> None:
    import hashlib

    np.savez_compressed(path / "golden.npz", **{**Bundle.open(path).golden(), **changes})
    files = json.loads((path / "manifest.json").read_text())["files"]
    edited(path, files={**files, "golden.npz": hashlib.sha256((path / "golden.npz").read_bytes()).hexdigest()})


@pytest.mark.usefixtures("device")
def test_an_engine_that_answers_other_than_its_graph_does_not_ship(copy: Path) -> None:
    logits = Bundle.open(copy).golden()["int8-fp16"]
    golden(copy, **{"int8-fp16": logits[:, ::-1]})
    compiled = compile_bundle(CompileJob(copy))
    wrong = next(e for e in compiled.engines if e.precision is Precision.INT8_FP16)
    assert not wrong.passed
    assert "answers other than its graph does" in wrong.note
    assert compiled.shipped.precision is not Precision.INT8_FP16
    facts = compiled.bundle.manifest  # without photos to fit it on here, the temperature is that of the graph
    own = next((form.confidence for form in facts.forms if form.precision is facts.precision), None)  # float32 is none of the forms
    assert facts.confidence == own


@pytest.mark.usefixtures("device")
def test_a_budget_that_no_engine_meets_is_refused_with_the_figure(copy: Path, run) -> None:
    edited(copy, budget={"latency_ms": 0.001, "percentile": 50, "gflops": None, "mparams": None, "size_mb": None})
    done = run("compile", copy, env=FAKES)
    assert done.returncode == 3
    assert re_ms(done.stderr), done.stderr
    assert "model.engine" not in {p.name for p in copy.iterdir()}


def re_ms(text: str) -> bool:
    import re

    return bool(re.search(r"does not meet p50 ≤ 0.001 ms: \S+ needs p50 [\d.]+ ms \(at most [\d.]+\) here", text))


def test_targets_that_cannot_be_say_what_they_lack_and_what_to_use(run) -> None:
    for name, lack in {"jetson-nano": "no INT8", "jetson-tx2": "no INT8", "jetson-xavier-nx": "TensorRT 8.5"}.items():
        done = run("fit", "--target", name, "--variant", "b0", "--weights", "x", "--calib", "y", "--val", "z", "--out", "o")
        assert done.returncode == 2
        assert lack in done.stderr
        assert "Use a Jetson" in done.stderr


def test_a_choice_among_variants_needs_the_device_or_a_cost(digits: Path, tmp_path: Path) -> None:
    from edgeeff import Budget, Job, fit

    job = Job("gpu", tmp_path / "out", digits / "val", Budget(latency_ms=5), ("b0", "b1"), train=digits / "train")
    with pytest.raises(BadInput, match="gpu is not this machine .* --on USER@HOST, .* or give --gflops"):
        fit(job)
    for option in ("activation", "adapt"):
        with pytest.raises(BadInput, match=f"--{option} auto compares latencies"):
            fit(replace(job, **{option: "auto"}))
