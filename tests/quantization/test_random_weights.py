from dataclasses import replace
from pathlib import Path

import pytest

from edgeeff import Target, backends
from edgeeff.data.images import noise
from edgeeff.export.tensorrt_lint import lint
from edgeeff.measurement.latency import HERE, Compiled, Request
from edgeeff.network.variants import variant
from edgeeff.quantization.nncf_ptq import quantized_layers
from edgeeff.quantization.random_weights import prototypes
from edgeeff.target import Budget

SMALL = variant("b0").at(32)


def test_every_form_of_a_gpu_is_a_graph_that_tensorrt_takes(tmp_path: Path) -> None:
    files = prototypes(SMALL, 10, Target.load("jetson-orin-nano-8gb"), None, tmp_path)
    assert set(files) == {"fp16", "int8-fp16", "int8-mixed"}
    assert all(lint(file) == [] for file in files.values())
    reference = backends.get("onnxruntime")
    assert {reference.load(f, precision=p)(noise(32)).shape for p, f in files.items()} == {(1, 10)}


def test_a_swap_is_in_the_graph_that_is_timed(tmp_path: Path) -> None:
    (tmp_path / "swapped").mkdir()
    target = replace(Target.load("tensorrt-qdq"), precisions=("float32", "int8"))
    graphs = [
        prototypes(SMALL, 10, target, a, folder)["float32"] for a, folder in ((None, tmp_path), ("hardswish", tmp_path / "swapped"))
    ]
    assert [b"HardSwish" in graph.read_bytes() for graph in graphs] == [False, True]


def test_a_cpus_forms_are_measured_with_all_that_a_budget_asks(tmp_path: Path) -> None:
    target = Target.load("host-cpu")
    files = prototypes(SMALL, 10, target, None, tmp_path)
    assert quantized_layers(files["int8"])
    forms = {p: Compiled(target.backend, files[p], p, 32) for p in ("float32", "int8")}
    costs = HERE.costs(Request(forms, Budget(fps=1, memory_mb=1000), rounds=2))
    for figures in costs.figures.values():
        assert figures.fps is not None
        assert figures.fps > 1
        assert figures.memory_mb is not None
        assert 50 < figures.memory_mb < 1000  # numpy and OpenVINO alone are more, and this is small
        assert figures.latency.first > 0
    assert costs.figures["int8"].size_mb < 0.5 * costs.figures["float32"].size_mb


def test_a_graph_is_compiled_where_it_is_measured(tmp_path: Path) -> None:
    files = prototypes(SMALL, 10, replace(Target.load("tensorrt-qdq"), precisions=("float32",)), None, tmp_path)
    form = Compiled("openvino", files["float32"], "float32", 32).compiled(tmp_path / "made")
    assert form.file.name == "model.xml"
    assert Compiled("onnxruntime", files["float32"], "float32", 32).compiled(tmp_path / "not").file == files["float32"]


@pytest.mark.parametrize("text", ["{half", "{}", '{"forms": {"it": {}}}'])
def test_what_is_no_request_is_refused(tmp_path: Path, text: str, run) -> None:
    (tmp_path / "request.json").write_text(text)
    done = run("measure", "openvino", tmp_path)
    assert done.returncode == 2
    assert "not a request to measure" in done.stderr
