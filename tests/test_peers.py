"""benchmarks/peers: the second judge, and what becomes of a tool that fails. The tools themselves run in benchmarks only."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import digits
import frontier
import numpy as np
import onnx
import openvino
import pytest
import readme
from peers import compare, cpu, judge, tasks
from PIL import Image

from edgeeff.data.images import ImageSet
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import ToolMissing
from edgeeff.export.onnx import from_onnx
from edgeeff.measurement.latency import Latency
from edgeeff.network import checkpoint
from edgeeff.network.variants import variant
from edgeeff.precision import Precision

pytestmark = pytest.mark.medium
BRIGHTEST = onnx.parser.parse_model(
    """<ir_version: 9, opset_import: ["": 20]>
    graph (uint8[1, 32, 32, 3] images) => (float[1, 3] logits) <int64[2] axes = {1, 2}>
    { pixels = Cast <to = 1> (images)
      logits = ReduceMean <keepdims = 0> (pixels, axes) }"""
)  # which colour is


@pytest.mark.parametrize("side", [224, 192])
@pytest.mark.parametrize("size", [(227, 227), (341, 256), (640, 481)])
def test_both_judges_see_the_same_pixels(size: tuple[int, int], side: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as image:
        expected = Preprocess.standard(224, (0, 0, 0), (1, 1, 1)).at(side)(image)
    (seen,) = judge.pixels([tmp_path / "photo.png"], side)
    assert np.array_equal(seen[0], expected)


def test_the_second_judge_counts_the_photos_that_are_right(tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0)), ("blue", (0, 0, 255)), ("wrong", (0, 0, 255))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.txt").write_text("red.png\t0\ngreen.png\t1\nblue.png\t2\nwrong.png\t0\n")
    onnx.save(BRIGHTEST, tmp_path / "model.onnx")
    output, cost = compare.run([sys.executable, judge.__file__, tmp_path / "model.onnx", tmp_path])
    assert json.loads(output) == {"answers": {"red.png": 0, "green.png": 1, "blue.png": 2, "wrong.png": 2}, "top1": 75.0}
    assert cost["seconds"] > 0 < cost["peak_mb"]


def test_a_tool_that_fails_is_refused_with_its_last_line() -> None:
    with pytest.raises(compare.Refused, match="^ValueError: no such operator$"):
        compare.run([sys.executable, "-c", "raise ValueError('no such operator')"])


def test_a_tool_that_does_not_end_is_refused() -> None:
    with pytest.raises(compare.Refused, match=r"not done after 0\.5 seconds"):
        compare.run([sys.executable, "-c", "import time; time.sleep(60)"], seconds=0.5)


def test_peak_memory_is_the_tool_s_own() -> None:
    _, cost = compare.run([sys.executable, "-c", "import time; held = b'x' * 100_000_000; time.sleep(0.5)"])
    assert 100 < cost["peak_mb"] < 200  # this process, which starts it, holds more


def test_a_file_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("green", (0, 255, 0))):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.txt").write_text("red.png\t0\ngreen.png\t2\n")
    onnx.save(BRIGHTEST, tmp_path / "model.onnx")
    openvino.save_model(openvino.convert_model(tmp_path / "model.onnx"), tmp_path / "model.xml")
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    for file in ("model.onnx", "model.xml"):
        with running(tmp_path / file) as runner:
            assert runner.ask("side") == 32
            assert runner.ask("judge", tmp_path) == {"answers": {"red.png": 0, "green.png": 1}, "top1": 50.0}
            assert len(runner.ask("time", 7)) == 7
            assert np.allclose(runner.predict(photos), photos.mean((1, 2)), atol=0.01)


def running(file: Path, precision: str | None = None) -> AbstractContextManager[cpu.Runner]:
    return cpu.running(cpu.Shipped(file, Path(sys.executable), {}, precision))


def test_a_file_of_edgeeff_runs_in_the_precision_that_was_judged(tmp_path: Path) -> None:
    onnx.save(BRIGHTEST, tmp_path / "model.onnx")
    openvino.save_model(openvino.convert_model(tmp_path / "model.onnx"), tmp_path / "model.xml")
    shipped = {Precision.FLOAT32: "f32", Precision.INT8: "f32", Precision.BF16: "bf16", Precision.INT8_BF16: "bf16"}
    for precision, expected in shipped.items():
        (tmp_path / "manifest.json").write_text(json.dumps({"precision": str(precision)}))
        assert cpu.stated(tmp_path / "model.xml") == expected
    with running(tmp_path / "model.xml", "f32") as runner:
        assert runner.ask("side") == 32
    with running(tmp_path / "model.xml", "f99") as runner, pytest.raises(compare.Refused, match="INFERENCE_PRECISION_HINT"):
        runner.ask("side")


def test_a_file_that_does_not_run_or_answer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"cut")
    with running(tmp_path / "cut.onnx") as runner, pytest.raises(compare.Refused, match="does not run: .*(?i:protobuf)"):
        runner.ask("time", 1)
    channels_first = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 20]>
        graph (uint8[1, 3, 32, 32] images) => (float[1, 3, 32, 32] logits) { logits = Cast <to = 1> (images) }"""
    )
    onnx.save(channels_first, tmp_path / "chw.onnx")
    with running(tmp_path / "chw.onnx") as runner, pytest.raises(compare.Refused, match=r"input of \[1, 3, 32, 32\], expected"):
        runner.ask("time", 1)
    onnx.save(BRIGHTEST, tmp_path / "model.onnx")
    with running(tmp_path / "model.onnx") as runner, pytest.raises(compare.Refused, match=r"no answer after 0\.5 seconds"):
        runner.ask("time", 10**9, seconds=0.5)


def test_a_file_that_ends_while_others_are_timed_is_told_and_they_go_on(tmp_path: Path) -> None:
    onnx.save(BRIGHTEST, tmp_path / "model.onnx")
    with running(tmp_path / "model.onnx") as good, running(tmp_path / "model.onnx") as bad:
        assert bad.ask("time", 1)
        bad.process.kill()
        found = cpu.timed({"good": good, "bad": bad})
        assert os.waitid(os.P_PID, good.process.pid, os.WSTOPPED)  # so that nothing of it runs beside another's blocks
    assert isinstance(found["good"], Latency)
    assert len(found["good"].rounds) == cpu.ROUNDS
    assert "does not run" in str(found["bad"])


def test_a_tool_that_fails_is_a_row_and_what_was_shipped_is_kept(
    fitted: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(cpu, "environment", lambda _: Path(sys.executable))  # which has NNCF, and not Olive
    weights, v = tmp_path / "lite0.safetensors", variant("lite0").at(32)
    checkpoint.save(from_onnx(fitted[0] / "model.onnx", v, 10), weights, Preprocess.standard(32, v.mean, v.std), ())
    digits.write(tmp_path / "digits", each=6, side=32)  # of which the judges see the same pixels
    images = ImageSet.open(tmp_path / "digits/train")
    task = tasks.Task.of("Lite0, digits", ("lite0", weights), (images, images, images), tmp_path)
    attempts = [compare.Attempt("NNCF", cpu.NNCF, ("default",)), compare.Attempt("Olive", cpu.OLIVE, ("default",))]
    rows = {row["name"]: row for row in cpu.compare(task, attempts)["rows"]}
    assert rows["Olive"]["refused"] == "ModuleNotFoundError: No module named 'olive'"
    assert rows["NNCF"]["judges_differ"] == rows[cpu.FLOAT]["judges_differ"] == 0
    assert rows["NNCF"]["step"]["agreement"] > 80
    assert rows["NNCF"]["foretold"]["drop"] == rows["NNCF"]["step"]["drop"]  # of the same photos here
    assert rows["NNCF"]["foretold"]["expected"] >= 0
    assert rows[cpu.FLOAT]["foretold"] == {"drop": 0, "expected": 0}
    assert rows["NNCF"]["seconds"] > 0 < rows["NNCF"]["p50"]
    assert cpu.said(fitted[0] / "model.onnx") == {
        "precision": fitted[1]["precision"],
        "verdict": fitted[1]["verdict"],
        "left_out": [],
    }
    assert "verdict" not in rows["NNCF"]  # which writes no manifest
    (shipped,) = (tmp_path / "kept").glob("*/model.xml")
    written = shipped.stat().st_mtime_ns
    (tmp_path / "again").mkdir()
    assert cpu.quantize(attempts[0], cpu.Plain.of(task, tmp_path / "again")).cost["seconds"] == rows["NNCF"]["seconds"]
    assert shipped.stat().st_mtime_ns == written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"needs to mount a file system: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_tool_that_fills_the_disk_is_refused_and_what_it_wrote_is_removed(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "ENVIRONMENTS", small_disk)
    monkeypatch.setattr(cpu, "HERE", tmp_path)
    monkeypatch.setattr(cpu, "environment", lambda _: Path(sys.executable))
    (tmp_path / f"{cpu.OLIVE}.py").write_text(
        "import sys\nwith open(sys.argv[3], 'wb') as out:\n    while out.write(bytes(99999)): pass"
    )
    for file in ("judge.py", "float.onnx", "weights"):
        (tmp_path / file).touch()
    (tmp_path / "photos").mkdir()
    task = tasks.Task("", "b0", tmp_path / "weights", *3 * [tmp_path / "photos"])
    plain = cpu.Plain(task, Preprocess.standard(32, (0, 0, 0), (1, 1, 1)), *4 * [tmp_path / "float.onnx"])
    free = shutil.disk_usage(small_disk).free
    with pytest.raises(compare.Refused, match="No space left on device"):
        cpu.quantize(compare.Attempt("Olive", cpu.OLIVE, ()), plain)
    assert not list((small_disk / "kept").iterdir())
    assert shutil.disk_usage(small_disk).free == free


@pytest.mark.slow
def test_without_a_network_an_environment_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    for name, value in nobody.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(compare, "ENVIRONMENTS", tmp_path)
    tool = compare.pinned(tasks.MNIST)[0]
    with pytest.raises(
        ToolMissing, match=f"^the environment for {tool} cannot be made: ERROR: No matching distribution found for .*$"
    ):
        compare.environment(tasks.MNIST)
    assert not (tmp_path / tasks.MNIST / "made.txt").exists()


def test_temporary_files_of_a_tool_are_removed() -> None:
    program = "import tempfile; print(tempfile.mkdtemp())"
    left = Path(compare.run([sys.executable, "-c", program])[0].strip())
    assert not left.exists()
    assert not left.parent.exists()


def test_a_task_where_no_other_tool_keeps_within_the_gate_has_its_line() -> None:
    def row(name: str, drop: float, p50: float) -> dict[str, object]:
        return {"name": name, "p50": p50, "step": {"drop": drop, "passed": drop <= 0.5}}

    rows = [row("edgeeff fit", 0.2, 2), row("NNCF", 0.9, 1)]
    *_, line = readme.fastest_rivals([{"measured": {"task": "B0", "rows": rows}}]).splitlines()
    assert line == "| B0 | none loses so little |  |  | edgeeff fit | +0.20 | 2.00 |  |"
    rows.append(row("Olive", 0.5, 3))
    *_, line = readme.fastest_rivals([{"measured": {"task": "B0", "rows": rows}}]).splitlines()
    assert line == "| B0 | Olive | +0.50 | 3.00 | edgeeff fit | +0.20 | 2.00 | 1.50× |"


def test_every_attempt_has_an_adapter_and_exact_versions() -> None:
    for adapter in {attempt.adapter for attempt in (*compare.ATTEMPTS, *cpu.ATTEMPTS)} | {frontier.TIMM, tasks.MNIST}:
        assert (compare.HERE / f"{adapter}.py").is_file()
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in compare.pinned(adapter))
    assert compare.environment(compare.OURS) == Path(sys.executable)


def test_every_network_of_the_frontier_has_a_source_and_those_of_the_family_are_known() -> None:
    networks = frontier.Network.all()
    assert len({n.name for n in networks}) == len(networks) >= 15
    assert {n.source for n in networks} <= set(frontier.SOURCES)
    assert all(variant(n.variant).resolution == n.px for n in networks if n.variant)
    assert f"{frontier.YARDSTICK.split()[0]}" in {n.name for n in networks}


def test_the_frontier_has_those_that_none_beats_in_both() -> None:
    rows = [("slow", 9, 80), ("good", 5, 82), ("fast", 2, 70), ("beaten", 3, 69), ("equal", 5, 75)]
    networks = [{"name": name, "top1": top1, "forms": {"int8": {"runs": [{"p50": ms}]}}} for name, ms, top1 in rows]
    assert [n["name"] for n in frontier.best(networks, "int8")] == ["fast", "good"]
