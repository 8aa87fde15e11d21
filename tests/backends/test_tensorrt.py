"""The TensorRT backend: against NVIDIA's real bindings, against its real parser and builder (TensorRT-RTX), and on fakes.

No test here runs on a GPU: what executes engines is a fake on ONNX Runtime.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeeff import BadInput, BuildFailed, ToolMissing
from edgeeff.backends import _engine, tensorrt
from edgeeff.data.frames import GRAPH, Frames, View
from edgeeff.data.preprocess import Preprocess
from edgeeff.export import fp16 as half
from edgeeff.export import qdq
from edgeeff.export.onnx import to_onnx
from edgeeff.export.tensorrt_lint import lint
from edgeeff.network.folding import fold_batch_norms
from edgeeff.network.model import create
from edgeeff.progress import SILENT
from edgeeff.quantization.fake_quant import layers

ROOT = Path(__file__).parents[2]
BINDINGS = Path(sys.prefix) / "bindings"  # beside the interpreter that runs the tests
VERSIONS = ("10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106")
STUBS = (  # what the bindings ask of the libraries as they load
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion", "getInferLibVersion"),
    *("getBuilderPluginRegistry", "getPluginRegistry", "initLibNvInferPlugins", "getLogger"),
)

# What the backend calls its objects, and what they are.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "config": "IBuilderConfig",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
    "layer": "ILayer",
    "tensor": "ITensor",
    "runtime": "Runtime",
}


def used() -> tuple[set[str], dict[str, int]]:
    """(names behind `trt.`, and `Class.member` → the number of arguments it is called with, −1 where it is not called)"""
    sources = [ast.parse(Path(module.__file__).read_text()) for module in (tensorrt, _engine)]
    nodes = [node for source in sources for node in ast.walk(source)]
    names, members = set(), {}
    for node in nodes:
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            if dotted.startswith("trt.") and re.fullmatch(r"[\w.]+", dotted):
                names.add(dotted.removeprefix("trt."))
            owner = dotted.rsplit(".", 1)[0].removeprefix("self.")
            if owner in CLASSES:
                members.setdefault(f"{CLASSES[owner]}.{node.attr}", -1)
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value).removeprefix("self.")
            if owner in CLASSES:
                members[f"{CLASSES[owner]}.{node.func.attr}"] = len(node.args)
    return names, members


PROBE = r"""
import json, re, sys
import tensorrt_bindings as trt

names, members = json.loads(sys.stdin.read())
found = {"version": trt.__version__, "missing": [], "arguments": {}}
for path in [*names, *members]:
    thing = trt
    try:
        for part in path.split("."):
            thing = getattr(thing, part)
    except AttributeError:
        found["missing"].append(path)
        continue
    text = getattr(thing, "__doc__", None) or ""
    signatures = re.findall(rf"^(?:\d+\. )?{part}\(self[^,)]*,? ?(.*)\) ->", text, re.M)
    counts = [[" = " in a for a in re.split(r", (?=\w+:)", s) if a] for s in signatures if s != "**kwargs"]
    found["arguments"][path] = [[c.count(False), len(c)] for c in counts]
print(json.dumps(found))
"""


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Libraries that export what the bindings link to, and do nothing: with them the real bindings import."""
    folder = tmp_path_factory.mktemp("stubs")
    (folder / "stub.c").write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in STUBS))
    for major in ("10", "11"):
        (folder / major).mkdir()
        for library in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
            name = f"lib{library}.so.{major}"
            command = ["gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", folder / major / name, folder / "stub.c"]
            subprocess.run(command, check=True)
    return {major: folder / major for major in ("10", "11")}


def ask(version: str, stubs: dict[str, Path], names: Collection[str], members: Collection[str]) -> dict[str, Any]:
    """What the real bindings of a version know of these."""
    bindings = BINDINGS / version
    if not (bindings / "tensorrt_bindings").is_dir():
        pytest.skip(f"no bindings of TensorRT {version} for this Python: `make .venv/bindings` fetches them")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stubs[version.split(".")[0]]), "PYTHONPATH": str(bindings)}
    question = json.dumps([sorted(names), sorted(members)])
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, input=question, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_call_exists_in_nvidias_bindings(version: str, stubs: dict[str, Path]) -> None:
    names, members = used()
    assert {"Builder", "BuilderFlag.GPU_FALLBACK", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"} <= names
    assert members["IExecutionContext.execute_async_v3"] == 1
    if not version.startswith("10."):
        names.remove("BuilderFlag.FP16")  # set for networks that are not strongly typed, which TensorRT 10 alone has
    assert ask(version, stubs, names, members)["missing"] == []


rtx = pytest.mark.skipif(not tensorrt.can_rehearse(), reason="TensorRT-RTX is not installed here: pip install 'edgeeff[rtx]'")


def quantized(name: str, activation: str, folder: Path) -> tuple[Path, Path]:
    """(float graph, Q/DQ graph) of a random network; its scales are plausible, as what it computes is not the point."""
    torch.manual_seed(0)
    from edgeeff.network.swap import swapped

    model = create(name, classes=16, resolution=64).eval()
    if activation != model.variant.activation:
        model = swapped(model, activation)
    v = model.variant
    bare = fold_batch_norms(model)
    largest = {name: layer.weight.detach().abs().flatten(1).amax(1).numpy() for name, layer, _ in layers(bare)}
    steps = {name: qdq.LayerScales(qdq.Affine(0.02), each / 127 + 1e-4) for name, each in largest.items()}
    preprocess = Preprocess(64, 64, v.mean, v.std)
    plain = to_onnx(bare, preprocess, folder / "float.onnx")
    return plain, qdq.write(plain, steps, folder / "int8.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "activation"),
    [
        *[(name, "silu") for name in ("b0", "b1", "b2", "b3", "b4", "v2-b0", "v2-s")],
        ("lite0", "relu6"),
        ("b0", "hardswish"),
        ("b0", "relu"),
        ("v2-b0", "relu6"),
    ],
)
def test_every_export_keeps_the_rules_and_nvidias_parser_and_builder_take_it(name: str, activation: str, tmp_path: Path) -> None:
    plain, integer = quantized(name, activation, tmp_path)
    files = {
        "float": plain,
        "fp16": half.write(plain, tmp_path / "fp16.onnx"),
        "int8": integer,
        "int8-fp16": half.write(integer, tmp_path / "int8-fp16.onnx"),
    }
    assert {kind: lint(file) for kind, file in files.items()} == {kind: [] for kind in files}
    if tensorrt.can_rehearse():
        assert {kind: tensorrt.rehearse(file) for kind, file in files.items()} == {kind: [] for kind in files}


@rtx
@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (64, 64)])
def test_nvidias_parser_and_builder_take_the_graph_that_shrinks_frames(size: tuple[int, int]) -> None:
    view = View.of(Preprocess(64, 73, (0, 0, 0), (1, 1, 1)), Frames(*size))
    assert tensorrt.rehearse(GRAPH, view=view) == []


@rtx
def test_a_graph_that_the_parser_refuses_is_named_with_its_reason(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[1, 3] x) => (float[1, 3] y) { y = NonMaxSuppressionTwice(x) }'
    )
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(BuildFailed, match=r"bad\.onnx: TensorRT cannot read the graph: NonMaxSuppressionTwice"):
        tensorrt.rehearse(tmp_path / "bad.onnx")


@pytest.mark.slow
@rtx
@pytest.mark.parametrize("harm", ["dynamic", "uint8"])
def test_the_linter_refuses_what_tensorrt_rtx_takes(harm: str, tmp_path: Path) -> None:
    """It warns of uint8 zero points and reads them as int8; TensorRT would saturate such a gate."""
    _, integer = quantized("b0", "silu", tmp_path)
    model = onnx.load(integer)
    if harm == "uint8":
        for i in model.graph.initializer:
            if i.name.endswith("Mul_output_0_zero_point"):
                i.CopyFrom(onnx.numpy_helper.from_array(np.zeros((), np.uint8), i.name))
    else:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, tmp_path / "bad.onnx")
    assert any(f.error for f in lint(tmp_path / "bad.onnx"))


# Failure paths, on fakes passed in as objects.


def fake_trt(**changes: object) -> SimpleNamespace:
    """A TensorRT whose parts do nothing and succeed; a change replaces one answer."""
    answers = {
        "parse": lambda onnx: True,
        "errors": [],
        "supported": True,
        "plan": b"plan",
        "engine": "engine",
        "context": "context",
        "shape": True,
        "open": [],
        "address": True,
        "enqueue": True,
        "dla": lambda layer: True,
    } | changes
    parser = SimpleNamespace(parse=answers["parse"], num_errors=len(answers["errors"]), get_error=lambda i: answers["errors"][i])
    cache = SimpleNamespace(serialize=lambda: b"timings")
    config = SimpleNamespace(
        set_memory_pool_limit=lambda pool, size: None,
        create_timing_cache=lambda data: cache,
        set_timing_cache=lambda cache, mismatch: True,
        get_timing_cache=lambda: cache,
        set_flag=lambda flag: None,
        can_run_on_DLA=answers["dla"],
    )
    network = SimpleNamespace(num_inputs=0, num_layers=10, get_layer=lambda i: SimpleNamespace(name=f"layer{i}", index=i))
    builder = SimpleNamespace(
        create_network=lambda flags: network,
        create_builder_config=lambda: config,
        is_network_supported=lambda network, config: answers["supported"],
        build_serialized_network=lambda network, config: answers["plan"],
    )
    context = SimpleNamespace(
        set_input_shape=lambda name, shape: answers["shape"],
        infer_shapes=lambda: answers["open"],
        set_tensor_address=lambda name, memory: answers["address"],
        execute_async_v3=lambda stream: answers["enqueue"],
    )
    engine = SimpleNamespace(
        num_io_tensors=2,
        get_tensor_name=lambda i: ("images", "logits")[i],
        get_tensor_mode=lambda name: {"images": 1, "logits": 2}[name],
        get_tensor_shape=lambda name: {"images": (1, 4, 4, 3), "logits": (1, 5)}[name],
        create_execution_context=lambda: context if answers["context"] else None,
    )

    class Logger:
        Severity = SimpleNamespace(WARNING=2)

    return SimpleNamespace(
        __version__="10.3.0",
        ILogger=Logger,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        MemoryPoolType=SimpleNamespace(WORKSPACE=0),
        ProfilingVerbosity=SimpleNamespace(DETAILED=2),
        DeviceType=SimpleNamespace(DLA=1),
        BuilderFlag=SimpleNamespace(FP16=0, GPU_FALLBACK=3),
        TensorIOMode=SimpleNamespace(INPUT=1),
        Builder=lambda log: builder,
        OnnxParser=lambda network, log: parser,
        Runtime=lambda log: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if answers["engine"] else None),
    )


def fake_cuda() -> SimpleNamespace:
    return SimpleNamespace(
        stream=lambda: 7,
        pinned=lambda shape, dtype: np.zeros(shape, dtype),
        malloc=lambda size: 4096,
        synchronize=lambda stream: None,
        copy_in=lambda address, array, stream: None,
        copy_out=lambda array, address, stream: None,
        capture=lambda stream, function: function() or "graph",
        launch=lambda graph, stream: None,
    )


def request(folder: Path, dla: int | None = None) -> tensorrt.BuildRequest:
    (folder / "graph.onnx").write_bytes(b"onnx")
    return tensorrt.BuildRequest(folder / "graph.onnx", 1, dla=dla)


def error(**words: str) -> SimpleNamespace:
    return SimpleNamespace(**{key: (lambda text=text: text) for key, text in words.items()})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"parse": lambda onnx: False, "errors": [error(node_operator="Conv", node_name="/stem", desc="no such type")]},
            "cannot read the graph: Conv /stem: no such type",
        ),
        ({"parse": lambda onnx: False}, "cannot read the graph: it gave no reason"),
        ({"supported": False}, "does not support this network here"),
        ({"plan": None}, "found no engine: it gave no reason"),
    ],
)
def test_a_failed_build_says_why(tmp_path: Path, changes: dict, reason: str) -> None:
    trt = fake_trt(**changes)
    with pytest.raises(BuildFailed, match=reason):
        tensorrt.build_plan(trt, request(tmp_path), log=tensorrt.logger(trt), monitor=None)


@pytest.mark.parametrize(("version", "typed", "flags"), [("10.3.0", 0, [3, 0]), ("11.4.1", 2, [3])])
def test_for_the_dla_types_are_weak_in_tensorrt_10_and_strong_in_11(version: str, typed: int, flags: list[int], tmp_path) -> None:
    asked, set_flags = [], []
    trt = fake_trt()
    trt.__version__ = version
    builder = trt.Builder(None)
    create, config = builder.create_network, builder.create_builder_config()
    builder.create_network = lambda kind: asked.append(kind) or create(kind)
    config.set_flag = set_flags.append
    tensorrt.build_plan(trt, request(tmp_path, dla=0), log=tensorrt.logger(trt), monitor=None)
    assert (asked, set_flags) == ([typed], flags)


def test_too_little_on_the_dla_is_refused_and_enough_is_not(tmp_path: Path) -> None:
    def build(runs: int) -> object:
        trt = fake_trt(dla=lambda layer: layer.index < runs)
        log = tensorrt.logger(trt)
        return tensorrt.build_plan(trt, request(tmp_path, dla=0), log=log, monitor=None)

    assert build(9) == (b"plan", b"timings")
    with pytest.raises(BuildFailed, match=r"the DLA can run 80% of 10 layers, expected 90%; not layer8, layer9"):
        build(8)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": None}, "cannot read the plan.*Run `edgeeff compile`"),
        ({"context": None}, "cannot run the plan.*enough memory"),
        ({"shape": False}, "the input's shape was refused"),
        ({"open": ["logits"]}, "leaves shapes open: logits"),
        ({"address": False}, "the address of images was refused"),
        ({"enqueue": False}, "the run was refused"),
    ],
)
def test_an_engine_that_cannot_run_says_why(changes: dict, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        tensorrt.Engine(fake_trt(**changes), fake_cuda(), b"plan")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed, most likely for memory .exit 137.*Add swap"),
        ("import sys; sys.exit(137)", "killed, most likely for memory"),
        ('print(\'{"failed": "no engine"}\'); raise SystemExit(1)', "int8.onnx: no engine"),
        ("raise ValueError('out of luck')", "exit 1 .ValueError: out of luck"),
    ],
)
def test_a_building_process_that_dies_is_explained(script: str, reason: str) -> None:
    with pytest.raises(BuildFailed, match=reason):
        tensorrt.run_build([sys.executable, "-c", script], "int8.onnx", SILENT)


@pytest.mark.parametrize(("free", "workspace"), [(2_000_000, 256_000_000), (100_000, 64 << 20), (60_000_000, 1 << 30)])
def test_the_workspace_is_an_eighth_of_what_is_free(free: int, workspace: int, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 8000000 kB\nMemAvailable:   {free} kB\n")
    assert tensorrt._workspace(tmp_path / "meminfo") == workspace


def test_without_tensorrt_the_message_says_how_to_get_it() -> None:
    if tensorrt.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed here")
    assert "python3-libnvinfer" in str(tensorrt.available())
    with pytest.raises(ToolMissing):
        tensorrt.version()


# The inspector's JSON, written by hand after the documentation of TensorRT 10 and 11.
TEN = {
    "Layers": [
        {
            "Name": "Reformatting CopyNode for Input Tensor 0 to conv",
            "LayerType": "Reformat",
            "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP16 format"}],
            "Outputs": [{"Name": "y", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
            "TacticName": "",
        },
        {
            "Name": "conv_head",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "y", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
            "Outputs": [{"Name": "z", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
            "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8f16",
        },
    ],
    "Bindings": ["images", "logits"],
}
ELEVEN = {
    "Layers": [
        {
            "Name": "conv_head",
            "LayerType": "gemm",
            "Inputs": [{"Name": "y", "Format": "Row major linear", "Datatype": "Int8"}],
            "Outputs": [{"Name": "z", "Format": "Row major linear", "Datatype": "Half"}],
        }
    ],
    "I/O Tensors": [{"Name": "images", "IOMode": "Input", "DataType": "UInt8"}],
}


def test_the_inspectors_layers_are_read_in_both_forms() -> None:
    copy, head = tensorrt.read_layers(json.dumps(TEN))
    assert (copy.reformat, copy.precision) == (True, "int8→fp16")
    assert (head.reformat, head.precision, head.kind) == (False, "int8→fp16", "CaskConvolution")
    assert [layer.precision for layer in tensorrt.read_layers(json.dumps(ELEVEN))] == ["int8→fp16"]
    assert tensorrt.read_layers('{"Layers": ["conv_head"], "Bindings": []}')[0].name == "conv_head"
