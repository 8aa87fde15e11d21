import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from conftest import SMALL

from edgeeff import Bundle
from edgeeff.quantization.layer_error import inspect


@pytest.fixture(scope="module")
def integer(tmp_path_factory: pytest.TempPathFactory, digits: Path, run) -> Path:
    """A bundle that ships INT8 for certain."""
    folder = tmp_path_factory.mktemp("inspect")
    target = folder / "integer.yaml"
    target.write_text("description: INT8 or nothing\nbackend: openvino\nprecisions: [int8]\n")
    photos = ("--train", digits / "train", "--val", digits / "val")
    done = run("fit", *SMALL, *photos, "--target", target, "--max-drop", 20, "--out", folder / "bundle")
    assert done.returncode == 0, done.stderr
    return folder / "bundle"


def test_layers_are_listed_by_the_error_they_add(integer: Path, run, tmp_path: Path) -> None:
    done = run("inspect", integer, "--plot", tmp_path / "layers.svg", "--json")
    assert done.returncode == 0, done.stderr
    layers = json.loads(done.stdout)["layers"]
    assert [e["adds"] for e in layers] == sorted((e["adds"] for e in layers), reverse=True)
    assert {e["layer"] for e in layers if e["bits"] != 8} == {"classifier", "conv_stem"}  # ten classes are no multiple of eight
    assert all(e["leaves"] >= 0 and 0 <= e["outliers"] <= 100 for e in layers)
    assert all(e["low"] < e["high"] for e in layers if e["bits"] == 8)
    assert {"conv_stem", "classifier", "blocks.0.0.conv_dw"} <= {e["layer"] for e in layers}
    drawn = ElementTree.parse(tmp_path / "layers.svg").getroot()
    assert sum(e.tag.endswith("rect") for e in drawn) == len(layers) + 3  # and the paper and the legend's two
    texts = [e.text for e in drawn if e.tag.endswith("text")]
    assert {"Error that each layer adds", "in INT8", "left in float", "0"} <= set(texts)
    assert "squared error, % of the power of the float signal" in texts


def test_the_table_shows_the_worst(integer: Path, run) -> None:
    done = run("inspect", integer, "--top", 3)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5  # title, columns, three layers


def test_a_wrong_path_is_refused(run, tmp_path: Path) -> None:
    done = run("inspect", tmp_path)
    assert done.returncode == 2
    assert "not a bundle" in done.stderr


def test_photos_can_be_named(integer: Path, digits: Path) -> None:
    from edgeeff.data.images import ImageSet, PixelFile

    bundle = Bundle.open(integer)
    pixels = PixelFile(ImageSet.open(digits / "val").draw(12), bundle.preprocess)
    errors = inspect(bundle, next(pixels.batches(12)))
    assert errors[0].adds == max(e.adds for e in errors)
    assert errors[0].leaves == pytest.approx(errors[0].arrives + errors[0].adds)
