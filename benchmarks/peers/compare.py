"""edgeeff's INT8 beside that of other tools: the same float ONNX and photos in, the file that each ships out, judged alike.

A peer is an adapter, `python ADAPTER FLOAT PHOTOS OUT METHOD …`, and a file of exact versions under the same name, of which its
environment is made. What a peer refuses, or an environment that cannot be made, is a result too: its last words.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeeff.backends import onnxruntime, tensorrt
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import BuildFailed, ToolMissing
from edgeeff.export import tensorrt_lint
from edgeeff.export.onnx import to_onnx
from edgeeff.files import write_whole
from edgeeff.measurement.accuracy import Gate
from edgeeff.network import checkpoint
from edgeeff.network.variants import variant
from edgeeff.precision import Precision
from edgeeff.progress import TerminalProgress
from edgeeff.records import to_json

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".venv-peers"
CALIBRATION_PHOTOS = 300
LIMIT = 3600.0  # seconds for one tool
OURS, MODELOPT, ORT = "edgeeff_symmetric", "nvidia_modelopt", "ort_static"


class Refused(ToolMissing):
    """A tool, or the installation of one, ended with an error: its last line."""


@dataclass(frozen=True)
class Attempt:
    """One way to use a tool: how the table calls it, the adapter, and its words after the paths."""

    name: str
    adapter: str
    options: tuple[str, ...]


ATTEMPTS = (
    Attempt("edgeeff, int8-fp16", OURS, ("int8-fp16",)),
    Attempt("edgeeff, int8-mixed", OURS, ("int8-mixed",)),
    Attempt("ModelOpt, max", MODELOPT, ("max",)),
    Attempt("ModelOpt, entropy", MODELOPT, ("entropy",)),
    Attempt("ModelOpt, max, placement for DLA", MODELOPT, ("max", "target_dla=True")),
    Attempt("ModelOpt, max, placement by autotune", MODELOPT, ("max", "autotune=True")),
    Attempt("ONNX Runtime, uint8 activations", ORT, ("unsigned",)),
    Attempt("ONNX Runtime, symmetric", ORT, ("symmetric",)),
    Attempt("ONNX Runtime, symmetric, placement for TensorRT", ORT, ("tensorrt",)),
)


def compare(data: Path, network: str, weights: str, photos: Path) -> dict[str, Any]:
    """Every attempt at one network, calibrated on 300 of the 1000 photos and judged on `photos`, a folder of others.

    What a run that was stopped had measured, of the same graph by the same adapters, is not measured again.
    """
    v, progress = variant(network), TerminalProgress()
    preprocess = Preprocess.standard(v.resolution, v.mean, v.std)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plain = to_onnx(checkpoint.load(data / "weights" / weights, v)[0].eval(), preprocess, folder / "float.onnx")
        listed, out = folder / "calibration.txt", folder / "out.onnx"
        drawn = ImageSet.open(data / "images/imagenet-samples-1000").draw(CALIBRATION_PHOTOS)
        listed.write_text("".join(f"{path}\n" for path in drawn.paths))
        gate = Gate(PixelFile(ImageSet.open(photos), preprocess), max_drop=1, progress=progress)
        kept = ENVIRONMENTS / f"{network}-{contents(plain, *HERE.glob('*.py'), *HERE.glob('*.txt'))}.json"
        rows: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        rows["float"] = judged("float", plain, photos, gate)  # always: the gate compares with its answers
        for attempt in ATTEMPTS:
            if attempt.name in rows:
                continue
            progress.say(f"{network}: {attempt.name}")
            try:
                cost = quantize(attempt, plain, data / "weights" / weights, listed, out, network)
                rows[attempt.name] = {**cost, **judged(attempt.name, out, photos, gate)}
            except Refused as error:
                rows[attempt.name] = {"refused": str(error)}
            write_whole(kept, json.dumps(rows).encode())
    named = [{"name": name, **rows[name]} for name in ("float", *(attempt.name for attempt in ATTEMPTS))]
    return {"network": network, "rows": named, "tools": [pinned(adapter)[0] for adapter in (MODELOPT, ORT)]}


def contents(*files: Path) -> str:
    """A short digest of what files hold, in the order of their names: folders may be temporary."""
    in_order = sorted(files, key=lambda file: (file.name, file))
    return hashlib.sha256(b"".join(file.read_bytes() for file in in_order)).hexdigest()[:16]


def judged(name: str, file: Path, photos: Path, gate: Gate) -> dict[str, Any]:
    """A file's answers by both judges, and what the linter and NVIDIA's builder say of it."""
    step = gate.judge(name, onnxruntime.load(file, precision=Precision.INT8, throughput=True))
    return {"step": to_json(step), **independent(file, photos, gate), **examined(file)}


def quantize(attempt: Attempt, plain: Path, weights: Path, listed: Path, out: Path, network: str) -> dict[str, float]:
    """Let a tool write `out`, in an environment of its own; what it cost."""
    ours = attempt.adapter == OURS  # which starts from torch
    out.unlink(missing_ok=True)
    source, words = (weights, (network,)) if ours else (plain, ())
    _, cost = run([environment(attempt.adapter), HERE / f"{attempt.adapter}.py", source, listed, out, *attempt.options, *words])
    return cost


def independent(file: Path, photos: Path, gate: Gate) -> dict[str, float]:
    """Top-1 by the second judge, and the share of photos of which both judges say the same."""
    output, _ = run([environment(ORT), HERE / "judge.py", file, photos])
    verdict = json.loads(output.splitlines()[-1])
    by_name = dict(zip((path.name for path in gate.pixels.images.paths), gate.answers[-1].classes, strict=True))
    same = sum(by_name[name] == answer for name, answer in verdict["answers"].items())
    return {"independent_top1": verdict["top1"], "judges_agree": 100 * same / len(by_name)}


def examined(file: Path) -> dict[str, Any]:
    """The linter's findings by rule, errors and remarks apart, what NVIDIA's parser and builder say, and the file's size."""
    found = tensorrt_lint.lint(file)
    try:
        built = "; ".join(tensorrt.rehearse(file)) or "built"
    except BuildFailed as error:
        built = f"refused: {str(error).splitlines()[0]}"
    kinds = {kind: Counter(f.rule for f in found if f.error == (kind == "errors")) for kind in ("errors", "remarks")}
    return {"lint": kinds, "tensorrt_rtx": built, "megabytes": file.stat().st_size / 1e6}


def environment(adapter: str) -> Path:
    """The Python of an adapter's environment, which is made where it is missing or was made of other versions.

    Raises Refused where it cannot be made, as without a network.
    """
    wanted = pinned(adapter)
    if not wanted:
        return Path(sys.executable)
    folder = ENVIRONMENTS / adapter
    python, made = folder / "bin/python", folder / "made.txt"
    if not made.is_file() or made.read_text().splitlines() != wanted:
        try:
            run([sys.executable, "-m", "venv", "--clear", folder])
            # Every package is listed, so that CPU builds can stand where a tool asks for a GPU's.
            run([python, "-m", "pip", "install", "--quiet", "--no-deps", *wanted])
        except Refused as error:
            raise Refused(f"the environment for {wanted[0]} cannot be made: {error}") from error
        made.write_text("\n".join(wanted))
    return python


def pinned(adapter: str) -> list[str]:
    """The packages of an adapter's environment, the tool itself first; none where it runs in edgeeff's own."""
    file = HERE / f"{adapter}.txt"
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")] if file.exists() else []


def run(command: list[object], seconds: float = LIMIT) -> tuple[str, dict[str, float]]:
    """What a program printed, and its seconds, seconds of processor time and peak memory.

    Raises Refused with its last line where it fails, and where it is not done after `seconds`. Its temporary files are removed.
    """
    start, peak = time.monotonic(), 0.0
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(list(map(str, command)), stdout=output, stderr=errors, env={**os.environ, "TMPDIR": scratch})
        while not (ended := os.wait4(child.pid, os.WNOHANG))[0]:
            peak = max(peak, peak_mb(child.pid))
            if time.monotonic() - start > seconds:
                child.kill()
            time.sleep(0.02)
        _, status, usage = ended
        child.returncode = os.waitstatus_to_exitcode(status)
        if time.monotonic() - start > seconds:
            raise Refused(f"not done after {seconds:g} seconds")
        output.seek(0)
        errors.seek(0)
        if child.returncode:
            last = (errors.read().strip().splitlines() or ["no message"])[-1]
            raise Refused(last)
        cost = {
            "seconds": time.monotonic() - start,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_mb": peak,
        }
        return output.read(), cost


def peak_mb(process: int) -> float:
    """The most memory that a process has held, as Linux tells while it runs. What wait4 tells is that of its parent at least."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(), re.MULTILINE):
            return int(found[1]) / 1024
    return 0.0
