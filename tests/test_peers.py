"""benchmarks/peers: the second judge, and what becomes of a tool that fails. The tools themselves run in benchmarks only."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from peers import compare, judge
from PIL import Image

from edgeeff.data.preprocess import Preprocess


@pytest.mark.parametrize("size", [(227, 227), (341, 256), (640, 481)])
def test_both_judges_see_the_same_pixels(size: tuple[int, int], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as image:
        expected = Preprocess.standard(224, (0, 0, 0), (1, 1, 1))(image)
    (seen,) = judge.pixels([tmp_path / "photo.png"], 224)
    assert np.array_equal(seen[0], expected)


def test_the_second_judge_counts_the_photos_that_are_right(tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255)), ("wrong", (0, 0, 255))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.txt").write_text("red.png\t0\ngreen.png\t1\nblue.png\t2\nwrong.png\t0\n")
    brightest = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 20]>
        graph (uint8[1, 32, 32, 3] images) => (float[1, 3] logits) <int64[2] axes = {1, 2}>
        { pixels = Cast <to = 1> (images)
          logits = ReduceMean <keepdims = 0> (pixels, axes) }"""
    )
    onnx.save(brightest, tmp_path / "model.onnx")
    output, cost = compare.run([sys.executable, judge.__file__, tmp_path / "model.onnx", tmp_path])
    assert json.loads(output) == {"answers": {"red.png": 0, "green.png": 1, "blue.png": 2, "wrong.png": 2}, "top1": 75.0}
    assert cost["seconds"] > 0 < cost["peak_mb"]


def test_a_tool_that_fails_is_refused_with_its_last_line() -> None:
    with pytest.raises(compare.Refused, match="^ValueError: no such operator$"):
        compare.run([sys.executable, "-c", "raise ValueError('no such operator')"])


def test_every_attempt_has_an_adapter_and_exact_versions() -> None:
    for adapter in {attempt.adapter for attempt in compare.ATTEMPTS}:
        assert (compare.HERE / f"{adapter}.py").is_file()
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in compare.pinned(adapter))
    assert compare.environment(compare.OURS) == Path(sys.executable)
