"""The C++ example is built and answers as Python does."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import openvino
import pytest
from conftest import ROOT

from edgeeff import Bundle
from edgeeff.data.frames import Frames, SyntheticFrames, View
from edgeeff.data.images import ImageSet, PixelFile

pytestmark = pytest.mark.slow
CPP = ROOT / "examples/cpp"


@pytest.fixture(scope="module")
def label(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("cmake") or not shutil.which("g++"):
        pytest.skip("no cmake and g++ here")
    build = tmp_path_factory.mktemp("build")
    find = f"-DOpenVINO_DIR={Path(openvino.__path__[0]) / 'cmake'}"
    for command in (["cmake", "-S", CPP, "-B", build, find], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "label"


@pytest.mark.parametrize("size", [(640, 480), (321, 243), (32, 32)])
def test_the_cpp_example_gives_the_same_logits(label: Path, fitted, digits: Path, size) -> None:
    bundle = Bundle.open(fitted[0])
    see = bundle.watch(Frames(*size))
    photos = PixelFile(ImageSet.open(digits / "val").draw(5), bundle.preprocess)
    frames = next(SyntheticFrames(photos, View.of(bundle.preprocess, Frames(*size))).batches(5))
    done = subprocess.run([label, bundle.path, *map(str, size)], input=frames.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    logits = np.array([list(map(float, line.split())) for line in done.stdout.decode().splitlines()])
    expected = np.concatenate([see(frame) for frame in frames])
    assert logits == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_cpp_example_refuses_what_is_no_bundle(label: Path, tmp_path: Path) -> None:
    done = subprocess.run([label, tmp_path, "640", "480"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "label: manifest.json: no backend" in done.stderr


def test_the_example_is_short() -> None:
    assert len((CPP / "label.cpp").read_text().splitlines()) < 150
