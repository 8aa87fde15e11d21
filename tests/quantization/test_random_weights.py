from dataclasses import replace
from pathlib import Path

import pytest

from edgeeff import Budget, Precision, Target, backends
from edgeeff.data.images import noise
from edgeeff.export.tensorrt_lint import lint
from edgeeff.measurement.benchmark import BenchmarkRequest, CompiledModel, benchmark
from edgeeff.network.model import create
from edgeeff.network.variants import variant
from edgeeff.quantization import fake_quant
from edgeeff.quantization.nncf_ptq import quantized_layers
from edgeeff.quantization.random_weights import random_forms

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("brief")]
SMALL = variant("b0").at(32)


def test_every_form_of_a_gpu_is_a_graph_that_tensorrt_takes(tmp_path: Path) -> None:
    files = random_forms(SMALL, 10, Target.load("jetson-orin-nano-8gb"), None, tmp_path)
    assert set(map(str, files)) == {"fp16", "int8-fp16", "int8-mixed"}
    assert all(lint(file) == [] for file in files.values())
    reference = backends.get("onnxruntime")
    assert {reference.load(f, precision=p)(noise(32)).shape for p, f in files.items()} == {(1, 10)}


def test_a_swap_is_in_the_graph_that_is_timed(tmp_path: Path) -> None:
    (tmp_path / "swapped").mkdir()
    target = replace(Target.load("tensorrt-qdq"), precisions=(Precision.FLOAT32, Precision.INT8))
    graphs = []
    for activation, folder in ((None, tmp_path), ("hardswish", tmp_path / "swapped")):
        graphs.append(random_forms(SMALL, 10, target, activation, folder)[Precision.FLOAT32])
    assert [b"HardSwish" in graph.read_bytes() for graph in graphs] == [False, True]


def test_a_cpus_forms_are_measured_with_all_that_a_budget_asks(tmp_path: Path) -> None:
    target = Target.load("host-cpu")
    files = random_forms(SMALL, 10, target, None, tmp_path)
    assert len(quantized_layers(files[Precision.INT8])) == sum(1 for _ in fake_quant.layers(create(SMALL, classes=10)))
    models = {str(p): CompiledModel(target.backend, files[p], p, 32) for p in (Precision.FLOAT32, Precision.INT8)}
    result = benchmark(BenchmarkRequest(models, Budget(fps=1, memory_mb=1000), rounds=2))
    for figures in result.metrics.values():
        assert figures.costs["fps"] is not None
        assert figures.costs["fps"] > 1
        assert figures.costs["memory_mb"] is not None
        assert 50 < figures.costs["memory_mb"] < 1000  # numpy and OpenVINO alone are more, and this is small
        assert figures.latency.first > 0
    assert result.metrics["int8"].costs["size_mb"] < 0.5 * result.metrics["float32"].costs["size_mb"]


def test_a_graph_is_compiled_where_it_is_measured(tmp_path: Path) -> None:
    files = random_forms(SMALL, 10, replace(Target.load("tensorrt-qdq"), precisions=(Precision.FLOAT32,)), None, tmp_path)
    file = files[Precision.FLOAT32]
    form = CompiledModel("openvino", file, Precision.FLOAT32, 32, graph=True).compiled(tmp_path / "made")
    assert form.file.name == "model.xml"
    assert CompiledModel("onnxruntime", file, Precision.FLOAT32, 32).compiled(tmp_path / "not").file == file


@pytest.mark.parametrize("text", ["{half", "{}", '{"forms": {"it": {}}}'])
def test_what_is_no_request_is_refused(tmp_path: Path, text: str, run) -> None:
    (tmp_path / "request.json").write_text(text)
    done = run("measure", "openvino", tmp_path)
    assert done.returncode == 2
    assert "not a request to measure" in done.stderr
