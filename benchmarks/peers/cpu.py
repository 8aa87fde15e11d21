"""edgeeff beside other tools on this CPU: the file that each ships in its own runtime, judged alike, and timed by one clock.

Every file is loaded by `runner.py` in the environment of its tool. The processes take turns, a block of inferences each, while
all others wait.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeeff.backends import onnxruntime, openvino
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import BadInput
from edgeeff.export.onnx import to_onnx
from edgeeff.measurement.accuracy import Gate
from edgeeff.measurement.latency import Latency, ratio
from edgeeff.network import checkpoint
from edgeeff.network.variants import variant
from edgeeff.precision import Precision
from edgeeff.progress import TerminalProgress
from edgeeff.records import to_json

from .compare import CALIBRATION_PHOTOS, HERE, ORT, Attempt, Refused, environment, pinned, run

EDGEEFF, NNCF, OLIVE = "edgeeff_cpu", "nncf_openvino", "olive_onnx"
OURS = "edgeeff fit"
ATTEMPTS = (
    Attempt(OURS, EDGEEFF, ()),
    Attempt("NNCF, default", NNCF, ("default",)),
    Attempt("NNCF, accuracy control", NNCF, ("accuracy",)),
    Attempt("ONNX Runtime, uint8 activations, 7-bit weights", ORT, ("narrow",)),
    Attempt("ONNX Runtime, symmetric", ORT, ("symmetric",)),
    Attempt("Olive, default", OLIVE, ("default",)),
    Attempt("Olive, per channel, 7-bit weights", OLIVE, ("narrow",)),
)
ROUNDS, BLOCK = 12, 30


@dataclass(frozen=True)
class Shipped:
    """A file and the Python that runs it."""

    file: Path
    python: Path


def compare(data: Path, network: str, weights: str, choosing: Path, test: Path) -> dict[str, Any]:
    """Every attempt at one network, calibrated on 300 of the 1000 photos and judged on `test`; `choosing` is for edgeeff's fit."""
    v, progress = variant(network), TerminalProgress()
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        plain = to_onnx(checkpoint.load(data / "weights" / weights, v)[0].eval(), preprocess, folder / "float.onnx")
        (folder / "float").mkdir()
        ir = openvino.compile(plain, folder / "float")
        listed = folder / "calibration.txt"
        drawn = ImageSet.open(data / "images/imagenet-samples-1000").draw(CALIBRATION_PHOTOS)
        listed.write_text("".join(f"{path}\n" for path in drawn.paths))
        files = {
            "float32, OpenVINO": Shipped(ir, Path(sys.executable)),
            "float32, ONNX Runtime": Shipped(plain, Path(environment(ORT))),
        }
        for i, attempt in enumerate(ATTEMPTS):
            progress.say(f"{network}: {attempt.name}")
            try:
                out, cost = quantize(attempt, plain, data / "weights" / weights, listed, folder / str(i), (network, str(choosing)))
                files[attempt.name], rows[attempt.name] = Shipped(out, Path(environment(attempt.adapter))), cost
            except Refused as error:
                rows[attempt.name] = {"refused": str(error)}
        gate = Gate(PixelFile(ImageSet.open(test), preprocess), max_drop=0.5, progress=progress)
        runners: dict[str, Ask] = {}
        for name, shipped in files.items():
            process = stack.enter_context(runner(shipped))
            try:
                rows[name] = {**rows.get(name, {}), **judged(name, shipped.file, process, test, gate)}
                runners[name] = process
            except (Refused, BadInput) as error:
                rows[name] = {"refused": str(error)}
        times = timed(runners)
        for name, latency in times.items():
            speed = ratio(times[OURS], latency)._asdict()
            rows[name] |= {"p50": latency.p50, "p90": latency.p90, "against_edgeeff": to_json(speed)}
    tools = {adapter: pinned(adapter)[0] for adapter in (NNCF, ORT, OLIVE)}
    return {"network": network, "rows": [{"name": name, **row} for name, row in rows.items()], "tools": tools}


def quantize(
    attempt: Attempt, plain: Path, weights: Path, listed: Path, folder: Path, fit: tuple[str, ...]
) -> tuple[Path, dict[str, float]]:
    """Let a tool write a file into a new folder; that, and what it cost. edgeeff starts from torch, the others from ONNX."""
    folder.mkdir()
    out = folder / ("model.xml" if attempt.adapter in (EDGEEFF, NNCF) else "model.onnx")
    source, words = (weights, fit) if attempt.adapter == EDGEEFF else (plain, attempt.options)
    _, cost = run([environment(attempt.adapter), HERE / f"{attempt.adapter}.py", source, listed, out, *words])
    if not out.is_file():
        raise Refused("it ended without an error, and without a file")
    return out, cost


Ask = subprocess.Popen[str]


@contextmanager
def runner(shipped: Shipped) -> Iterator[Ask]:
    """A process that has loaded the file."""
    command = [shipped.python, HERE / "runner.py", shipped.file]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(process: Ask, question: str) -> Any:
    """Its answer; raises Refused where it has ended."""
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(f"{question}\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    except (OSError, ValueError) as error:
        raise Refused(f"its file does not run ({error})") from error


def judged(name: str, file: Path, process: Ask, test: Path, gate: Gate) -> dict[str, Any]:
    """A file's answers by both judges, and its size."""
    backend = onnxruntime if file.suffix == ".onnx" else openvino
    step = gate.judge(name, backend.load(file, precision=Precision.INT8, throughput=True))
    verdict = ask(process, f"judge {test}")
    by_name = dict(zip((path.name for path in gate.pixels.images.paths), gate.answers[-1].classes, strict=True))
    differ = sum(int(by_name[photo]) != answer for photo, answer in verdict["answers"].items())
    megabytes = sum(each.stat().st_size for each in backend.files(file)) / 1e6
    return {"step": to_json(step), "independent_top1": verdict["top1"], "judges_differ": differ, "megabytes": megabytes}


def timed(processes: dict[str, Ask]) -> dict[str, Latency]:
    """Milliseconds of one photo, from blocks in turn; no file always follows the same other one."""
    names, blocks = list(processes), dict[str, list[list[float]]]()
    for turn in TerminalProgress().track(range(ROUNDS), "measure latency", ROUNDS):
        for i in range(len(names)):
            name = names[(i + turn) % len(names)]
            blocks.setdefault(name, []).append(ask(processes[name], f"time {BLOCK}"))
    found = {}
    for name, each in blocks.items():
        p50, p90, p99 = np.percentile(each, (50, 90, 99))
        found[name] = Latency(p50, p90, p99, (p50, p50), tuple(np.median(each, axis=1)))
    return found
