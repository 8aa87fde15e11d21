"""What this machine has, and what is missing for which step. On a Jetson: what its half of a fit needs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import backends
from ..measurement import jetson
from ..measurement.jetson import JetsonState
from ..measurement.system_state import device
from ..sysfs import ROOT

PACKAGES = {
    "torch": "fit: train and export",
    "onnx": "fit: export",
    "nncf": "fit: INT8",
    "onnxruntime": "fit: judges the exported graph",
    "openvino": "everything on a CPU",
    "huggingface_hub": "weights from hf-hub",
    "safetensors": "weights in .safetensors",
}


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    ok: bool
    remedy: str = ""


def examine(root: Path = ROOT) -> list[Finding]:
    """One line a fact; `remedy` says what to do where `ok` is false."""
    chip, board = device(), jetson.read(root)
    findings = [
        Finding("python", sys.version.split()[0], sys.version_info >= (3, 10), "edgeeff needs Python 3.10 or newer"),
        Finding("cpu", f"{chip.cpu}, {chip.cores} cores", True),
    ]
    vnni = any("vnni" in f or f in ("amx_int8", "asimddp", "i8mm") for f in chip.flags)
    slow = "no INT8 dot product: INT8 may be slower than float here; the fit will measure and say so"
    findings.append(Finding("instructions", " ".join(chip.flags) or "none of use", vnni, slow))
    if board:
        findings += on_jetson(board, root)
    else:
        findings += [_package(package, use) for package, use in PACKAGES.items()]
    for name in backends.names():
        backend = backends.get(name)
        missing = backend.available()
        if not missing:
            findings.append(Finding(f"backend {name}", ", ".join(str(p) for p in backend.PRECISIONS if backend.supported(p)), True))
        elif name != backend.JUDGE and not board:
            findings.append(Finding(f"backend {name}", "not here: the device builds its engines", True))
        else:
            findings.append(Finding(f"backend {name}", "missing", bool(board) and name != "tensorrt", missing))
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    findings.append(
        Finding("free disk", f"{free:.1f} GB in {tempfile.gettempdir()}", free > 2, "decoded photos are kept there; set TMPDIR")
    )
    return findings


def _package(package: str, use: str) -> Finding:
    try:
        return Finding(package, version(package), True)
    except PackageNotFoundError:
        return Finding(package, "not installed", False, f"needed for {use}: pip install 'edgeeff[fit]'")


def on_jetson(board: JetsonState, root: Path) -> Iterator[Finding]:
    """Software, power, clocks, memory and cameras of a Jetson."""
    numbers = [int(n) for n in board.l4t.split(".")[:2]]
    yield Finding("board", f"{board.model}, {board.memory_gb:.1f} GB", True)
    old = "edgeeff needs TensorRT 10.3: flash JetPack 6.1 or newer (Orin, Thor)"
    yield Finding("JetPack", f"{board.jetpack} (Jetson Linux {board.l4t})", numbers >= [36, 4], old)
    modes = f" of {', '.join(board.power_modes)}" if board.power_modes else ""
    unknown = "a latency without its power mode means nothing: sudo nvpmodel -q shows it"
    yield Finding("power mode", f"{board.power_mode}{modes}", board.power_mode != "unknown", unknown)
    if board.gpu_clock_limits:
        low, high = board.gpu_clock_limits
        locked = "they move: sudo jetson_clocks before measuring"
        yield Finding("GPU clock", f"{board.gpu_clock:.0f} MHz of {low:.0f} to {high:.0f}", board.clocks_locked, locked)
    hottest = max(board.temperatures.items(), key=lambda zone: zone[1], default=("no sensor", 0.0))
    slowed = f"{', '.join(board.slowed_by)} hold the clocks down: cool the board"
    yield Finding("temperature", f"{hottest[1]:.0f} °C ({hottest[0]})", not board.slowed_by, slowed)
    events = "since the start the supply was too weak that often: use the board's own"
    yield Finding("over-current events", str(board.throttle_events), not board.throttle_events, events)
    enough = board.memory_gb > 10 or board.swap_gb > 3
    yield Finding("swap", f"{board.swap_gb:.1f} GB", enough, "building may run out of memory: add 8 GB of swap (docs/jetson.md)")
    cameras = sorted(p.name for p in root.glob("dev/video*"))
    csi = any(root.glob("usr/lib/aarch64-linux-gnu/gstreamer-1.0/libgstnvarguscamerasrc.so"))
    found = f"{', '.join(cameras) or 'no /dev/video*'}; CSI through nvarguscamerasrc: {'yes' if csi else 'no'}"
    yield Finding("cameras", found, bool(cameras) or csi, "plug one in; for CSI: sudo apt install nvidia-l4t-camera")
