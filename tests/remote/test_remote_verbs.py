"""Whole verbs on other machines: engines, picks, fits and cameras, and fleets of them."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from boards import NEEDED, Board, client, free_port, until
from conftest import ROOT, refused
from pages import require_true_figures
from PIL import Image

from edgeeff import Bundle, Precision, backends
from edgeeff.bundle import seal, write

pytestmark = NEEDED


def test_a_fleet_is_a_table_and_its_failing_host_the_exit_code(make: Callable[..., Board], fitted, run) -> None:
    boards = [make(), make(), make(options=f"Port {free_port()}")]
    names = [b.name for b in boards]
    for each in boards[:2]:
        each.rule(f"export PYTHONPATH={ROOT}/tests/startup")
    done = run("bench", fitted[0], "--rounds", 2, "--on", *names, names[0], env=boards[0].env)
    refused(done, 6, "1 of 3 hosts failed", f"{names[2]}: it refuses the connection")
    head, *rows = done.stdout.splitlines()
    assert "p50 ms" in head
    assert [row.split()[0] for row in rows] == names
    shown = [float(row.split()[2]) for row in rows[:2]]  # two boards of one machine may be equally fast to the hundredth
    assert [row.endswith("slowest") for row in rows[:2]] == [a > b for a, b in (shown, shown[::-1])]
    assert "it refuses the connection" in rows[2]
    done = run("bench", fitted[0], "--rounds", 2, "--on", *names, "--json", env=boards[0].env)
    answers = json.loads(done.stdout)["hosts"]
    assert [a["host"] for a in answers] == names
    assert all(a["latency_ms"]["p50"] > 0 and a["device"]["cores"] for a in answers[:2])
    assert answers[2]["exit_code"] == done.returncode == 6
    until(lambda: not any(b.processes for b in boards))
    assert not any(b.jobs for b in boards)


def test_a_bundle_is_requalified_there_and_what_differs_there_is_told_here(
    make: Callable[..., Board], fitted, digits: Path, run, tmp_path: Path
) -> None:
    """As if it had been fitted on another processor, so that nothing is timed; then with other golden answers."""
    bundle = Path(shutil.copytree(fitted[0], tmp_path / "bundle"))
    facts = Bundle.open(bundle).manifest
    elsewhere = replace(facts, device=replace(facts.device, cpu="another"))
    seal(bundle, elsewhere)
    board, away = make(), make(options=f"Port {free_port()}")
    words = ("requalify", bundle, "--val", digits / "val", "--on", board.name, away.name)
    done = run(*words, env=board.env)
    refused(done, 6, "1 of 2 hosts failed", f"{away.name}: it refuses the connection")
    assert f"{board.name}: {bundle}, {facts.precision}: what its manifest says" in done.stdout
    assert f"{board.name}: Same, as far as it was compared." in done.stdout
    assert "device another" in done.stdout

    golden = {**Bundle.open(bundle).golden()}
    np.savez_compressed(bundle / "golden.npz", **{**golden, "logits": golden["logits"] + 5})
    seal(bundle, elsewhere)
    done = run("requalify", bundle, "--on", board.name, "--json", env=board.env)
    refused(done, 2, f"{board.name}: bundle: golden images give other logits: off by")
    (there,) = json.loads(done.stdout)["hosts"]
    assert (there["bundle"], there["exit_code"]) == (str(bundle), 2)
    assert "Differs: golden images" in there["verdict"]


@pytest.fixture
def portable(fitted, tmp_path: Path) -> Path:
    """A bundle that a device compiles for itself. Its one form is the float graph renamed: the way there and back counts."""
    source = Bundle.open(fitted[0])
    (tmp_path / "fp16.onnx").write_bytes((fitted[0] / "model.onnx").read_bytes())
    images = source.golden()["images"]
    logits = backends.get("onnxruntime").load(tmp_path / "fp16.onnx", precision=Precision("float32"))(images)
    form = replace(source.manifest.siblings[0], precision=Precision.FP16, file="fp16.onnx", metrics=None)
    facts = replace(
        source.manifest, backend="onnxruntime", model="fp16.onnx", precision=Precision.FP16, max_drop=20.0, forms=(form,)
    )
    (tmp_path / "bundle").mkdir()
    files = [tmp_path / "fp16.onnx", fitted[0] / "model.onnx"]
    answers = {"images": images, "logits": logits, "float32": logits, "fp16": logits}
    return write(tmp_path / "bundle", files, source.labels, answers, facts).path


def test_engines_are_built_there_and_come_back_through_a_lost_connection(
    board: Board, make: Callable[..., Board], portable: Path, digits: Path, run
) -> None:
    """On a TensorRT that is a fake over ONNX Runtime. Another kind of machine is then refused before anything is sent."""
    import onnxruntime

    fakes = f"export PYTHONPATH={ROOT}/tests/startup:{ROOT}/tests/fakes:{Path(onnxruntime.__file__).parents[1]}"
    board.cut("*rsync*--sender*")
    rules = Path(f"{board.home}.rules")
    rules.write_text(f"{fakes}\n{rules.read_text()}")
    done = run("compile", portable, "--val", digits / "val", "--on", board.name, "--json", env=board.env)
    assert done.returncode == 0, done.stderr
    assert "connected again" in done.stderr
    (there,) = json.loads(done.stdout)["hosts"]
    assert [e["precision"] for e in there["engines"]] == ["float32", "fp16"]
    assert there["bundle"] == str(portable)
    manifest = json.loads((portable / "manifest.json").read_text())
    assert (manifest["backend"], manifest["precision"]) == ("tensorrt", there["precision"])
    assert {p.name for p in portable.parent.iterdir()} == {"bundle", "fp16.onnx"}
    until(lambda: not board.processes)
    assert board.jobs == []

    other = make()
    other.program("uname", "echo aarch64")
    done = run("bench", portable, "--on", other.name, env=other.env)
    refused(done, 2, f"{other.name}: is aarch64", "built on", "edgeeff compile")
    assert not any((other.home / ".cache/edgeeff/sent").iterdir())


def test_a_pick_measures_there_and_a_fit_gives_the_same_network(
    board: Board, make: Callable[..., Board], fitted, digits: Path, run, tmp_path: Path
) -> None:
    """On one host, and on two, where what fits the slower one fits both."""
    small = ("--target", "host-cpu", "--latency", 500, "--resolution", 32)
    done = run("pick", *small, "--variant", "lite0", "--classes", 10, "--on", board.name, "--json", env=board.env)
    assert done.returncode == 0, done.stderr
    chosen = json.loads(done.stdout)["chosen"]
    assert chosen["latency_ms"]["p50"] > 0
    assert "hosts" not in chosen["forms"][0]
    pair = [board, make()]
    for each in pair:
        each.rule(f"export PYTHONPATH={ROOT}/tests/startup")
    names = [each.name for each in pair]
    away = make(options=f"Port {free_port()}").name
    refused(run("pick", *small, "--on", board.name, away, env=board.env), 6, f"{away}: it refuses the connection")
    photos = ("--train", digits / "train", "--val", digits / "val", "--epochs", 1, "--no-flip", "--max-drop", 20)
    out = tmp_path / "bundle"
    done = run("fit", *small, "--variant", "lite0", *photos, "--out", out, "--on", *names, env=board.env)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(tuple(names))]
    assert [row[0] for row in rows] == names
    assert [row[-1] == "slowest" for row in rows].count(True) == 1
    Bundle.open(out)
    ours, theirs = (json.loads((path / "manifest.json").read_text()) for path in (fitted[0], out))
    assert ours["files"]["model.onnx"] == theirs["files"]["model.onnx"]
    assert list(theirs["device"]["hosts"]) == [h["host"] for h in theirs["hosts"]] == names
    assert theirs["latency_ms"]["p50"] in [h["p50"] for h in theirs["hosts"]]
    figures = require_true_figures((out / "report.html").read_text(encoding="utf-8")).figures
    assert [figures[f"hosts.{i}.host"] for i in range(2)] == [[name] for name in names]
    assert theirs["command"].endswith(f" --on {' '.join(names)}")
    assert {s["runtime"] for s in theirs["siblings"]} == {"openvino"}  # what was installed there

    target = tmp_path / "only-int8.yaml"  # no float file to compare with is measured there
    target.write_text("description: INT8 alone\nbackend: openvino\nprecisions: [int8]\nlatency_ms: 500\n")
    alone = ("--target", target, "--resolution", 32, "--variant", "lite0", "--out", tmp_path / "int8", "--on", board.name)
    done = run("fit", *alone, *photos, env=board.env)
    assert done.returncode == 0, done.stderr
    assert Bundle.open(tmp_path / "int8").manifest.precision == Precision.INT8
    assert board.jobs == []


def test_cameras_there_speak_here_until_ctrl_c(
    board: Board, make: Callable[..., Board], fitted, digits: Path, run, tmp_path: Path
) -> None:
    """Photos in a folder there stand for the camera."""
    photos = sorted(digits.glob("val/3/*.png"))
    few = ("camera", fitted[0], "--source", digits / "val/3", "--top", 2, "--on", board.name)
    done = run(*few, "--output", tmp_path / "lines", "--json", env=board.env)
    assert done.returncode == 0, done.stderr
    *lines, last = map(json.loads, done.stdout.splitlines())
    assert [line["frame"] for line in lines] == list(range(len(photos)))
    assert lines[0]["source"] == f"{board.name} {digits}/val/3"
    assert (tmp_path / "lines").read_text().splitlines() == done.stdout.splitlines()[:-1]
    local = [json.loads(line) for line in run(*few[:-2], "--json").stdout.splitlines()[:-1]]
    assert [line["top"] for line in lines] == [line["top"] for line in local]
    (there,) = last["hosts"]
    assert there["summary"]["sources"][0]["labels"] == len(photos)
    refused(run(*few, "--budget-ms", 0.001, env=board.env), 3, f"{board.name}: {digits}/val/3: end-to-end latency p90")

    other, endless, said = make(), tmp_path / "endless", tmp_path / "said"
    endless.mkdir()
    Image.new("RGB", (4000, 3000)).save(tmp_path / "large.jpg")
    for i in range(5000):  # minutes
        (endless / f"{i:05d}.jpg").symlink_to(tmp_path / "large.jpg")
    process = client("camera", fitted[0], "--source", endless, "--output", said, "--on", board.name, other.name, env=board.env)
    until(lambda: said.is_file() and all(f'"{b.name} {endless}"' in said.read_text() for b in (board, other)))
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    rows = [line.removeprefix("→").split() for line in out.splitlines() if str(endless) in line and "%" not in line]
    assert [row[:2] for row in rows] == [[board.name, str(endless)], [other.name, str(endless)]]
    assert all(0 < int(row[3]) < 5000 for row in rows)
    assert not [line for line in err.splitlines() if "sending" not in line]
    until(lambda: not board.processes and not other.processes)
    assert board.jobs == other.jobs == []


def test_what_needs_the_pictures_is_refused_where_the_camera_is_elsewhere(fitted, run) -> None:
    for asked in (("--source", "0", "--web", "8080"), ("--source", "0", "--collect", "x"), ("--source", "-")):
        refused(run("camera", fitted[0], *asked, "--on", "board"), 2, "pictures stay where they are")
