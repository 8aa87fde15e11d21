"""The contract: every backend that judges itself, so runs here, gives the torch model's logits for the exported file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeeff import BadInput, Precision, backends
from edgeeff.data.preprocess import Preprocess
from edgeeff.export.onnx import to_onnx
from edgeeff.network.model import create, predict

pytestmark = pytest.mark.slow
PREPROCESS = Preprocess(64, 73, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
NAMES = [name for name in backends.names() if name == backends.get(name).JUDGE]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module", params=["b0", "v2-b0", "lite0"])
def exported(request, tmp_path_factory):
    torch.manual_seed(0)
    model = create(request.param, classes=7, padding="same", resolution=64)
    for m in model.modules():  # statistics that matter: an export that lost a batch norm would show
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.uniform_(-0.1, 0.1)
            m.running_var.uniform_(0.5, 1.5)
    path = to_onnx(model, PREPROCESS, tmp_path_factory.mktemp(request.param) / "model.onnx")
    return path, predict(model, PREPROCESS)(IMAGES), model.eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("throughput", [False, True])
def test_logits_are_those_of_torch(exported, name: str, throughput: bool, tmp_path: Path) -> None:
    onnx, expected, _ = exported
    backend = backends.get(name)
    file = backend.compile(onnx, tmp_path)
    assert all(f.is_file() for f in backend.files(file))
    logits = backend.load(file, precision=Precision("float32"), throughput=throughput)(IMAGES)
    assert logits.shape == (5, 7)
    assert logits == pytest.approx(expected, abs=1e-3 * float(np.abs(expected).max()))  # other kernels add in another order


@pytest.mark.parametrize("throughput", [False, True])
def test_features_are_those_of_later_stages_and_of_the_classifier_of_torch(exported, throughput: bool, tmp_path: Path) -> None:
    onnx, expected, model = exported
    backend = backends.get("openvino")
    file = backend.compile(onnx, tmp_path)
    found = backend.load(file, precision=Precision("float32"), throughput=throughput, features=True)(IMAGES)
    assert found[:, :7] == pytest.approx(expected, abs=1e-3 * float(np.abs(expected).max()))  # other kernels add in another order
    seen: list[torch.Tensor] = []
    watched = [*model.blocks[1:], model.classifier]
    hooks = [m.register_forward_hook(lambda m, x, y: seen.append(x[0] if y.ndim == 2 else y.mean((2, 3)))) for m in watched]
    predict(model, PREPROCESS)(IMAGES)
    for hook in hooks:
        hook.remove()
    parts = [torch.nn.functional.normalize(each).numpy() for each in seen]
    assert found[:, 7:] == pytest.approx(np.concatenate(parts, 1), abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_that_ran_has_a_time(exported, name: str, tmp_path: Path) -> None:
    backend = backends.get(name)
    file = backend.compile(exported[0], tmp_path)
    layers = backend.layer_times(file, IMAGES[:1], precision=Precision("float32"))
    assert [layer.milliseconds for layer in layers] == sorted((layer.milliseconds for layer in layers), reverse=True)
    assert layers[0].milliseconds > 0
    assert sum("Conv" in layer.kind for layer in layers) >= 10
    assert all(layer.layer for layer in layers)


def test_a_backend_of_other_devices_names_a_judge_that_runs_here() -> None:
    assert set(backends.names()) - set(NAMES) == {"tensorrt"}
    assert all(backends.get(name).JUDGE in NAMES for name in backends.names())


@pytest.mark.parametrize("name", NAMES)
def test_the_first_precision_is_float_and_supported(name: str) -> None:
    backend = backends.get(name)
    assert backend.PRECISIONS[0] is Precision.FLOAT32
    assert backend.supported(Precision.FLOAT32)
    assert backend.available() is None
    assert backend.version()[0].isdigit()


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_refused(name: str, exported, tmp_path: Path) -> None:
    backend = backends.get(name)
    file = backend.compile(exported[0], tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadInput, match="cannot load"):
        backend.load(file, precision=Precision("float32"))


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown backend 'tflite'"):
        backends.get("tflite")


def test_the_exported_graph_is_portable(exported) -> None:
    import onnx

    model = onnx.load(exported[0])
    operations = {n.op_type for n in model.graph.node}
    assert {o.domain for o in model.opset_import} == {""}
    assert not operations & {"BatchNormalization", "Pad", "Shape", "Identity", "If"}
    dimensions = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dimensions == [1, 64, 64, 3]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.parametrize("library", ["onnxruntime", "openvino", "nncf"])
def test_a_library_starts_no_telemetry(library: str, tmp_path: Path) -> None:
    """Its client leaves an id in the home folder; where it runs in continuous integration it is off by itself."""
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    for name in ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-c", f"import edgeeff, {library}"], env=environment, check=True)
    assert not list(tmp_path.rglob("*"))


def test_equal_graphs_are_compiled_to_equal_files(exported, tmp_path: Path) -> None:
    """OpenVINO numbers nodes without a name on and on, so in one process two files would differ."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        backends.get("openvino").compile(exported[0], folder)
    first, second = ([p.read_bytes() for p in sorted(folder.iterdir())] for folder in folders)
    assert first == second
    names = re.findall(r'<layer id="\d+" name="([^"]*)"', (tmp_path / "first/model.xml").read_text())
    assert len(set(names)) == len(names)


def test_the_ir_says_what_dl_streamer_and_model_api_read_and_its_weights_are_untouched(exported, tmp_path: Path) -> None:
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    file = backends.get("openvino").compile(exported[0], tmp_path)
    plain = openvino.Core().read_model(exported[0])
    apply_moc_transformations(plain, cf=True, smart_reshape=False)
    openvino.save_model(plain, tmp_path / "plain.xml", compress_to_fp16=False)
    assert (tmp_path / "plain.bin").read_bytes() == file.with_suffix(".bin").read_bytes()
    model = openvino.Core().read_model(file)
    told = {key: value.astype(str) for key, value in model.get_rt_info("model_info").astype(dict).items()}
    assert told == {
        "model_type": "Classification",
        "output_raw_scores": "True",
        "resize_type": "crop",
        "reverse_input_channels": "True",
    }


def test_frames_as_planes_which_dl_streamer_gives_get_the_same_logits(exported, tmp_path: Path) -> None:
    """What its OpenVINO backend does with an image after its own preprocessing: uint8 planes, by way of the model's layout."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    backend = backends.get("openvino")
    file = backend.compile(exported[0], tmp_path)
    steps = PrePostProcessor(openvino.Core().read_model(file))
    steps.input(0).tensor().set_layout(openvino.Layout("NCHW")).set_element_type(openvino.Type.u8)
    planes = openvino.Core().compile_model(steps.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert planes.input(0).shape == [1, 3, 64, 64]
    seen = np.concatenate([planes(image[None].transpose(0, 3, 1, 2).copy())[0] for image in IMAGES])
    expected = backend.load(file, precision=Precision("float32"))(IMAGES)
    assert seen == pytest.approx(expected, abs=1e-5 * float(np.abs(expected).max()))  # the same kernels behind a transposition
