"""What this machine has, and what is missing for which step."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from . import backends
from .bench import device

PACKAGES = {
    "torch": "fit: train and export",
    "onnx": "fit: export",
    "nncf": "fit: INT8",
    "onnxruntime": "fit: judges the exported graph",
    "openvino": "everything on a CPU",
    "huggingface_hub": "weights from hf-hub:",
    "safetensors": "weights in .safetensors",
}


@dataclass(frozen=True)
class Finding:
    what: str
    found: str
    ok: bool
    remedy: str = ""


def examine() -> list[Finding]:
    """One line a fact; `remedy` says what to do where `ok` is false."""
    chip = device()
    findings = [
        Finding("python", sys.version.split()[0], sys.version_info >= (3, 10), "edgeeff needs Python 3.10 or newer"),
        Finding("cpu", f"{chip['cpu']}, {chip['cores']} cores", True),
    ]
    vnni = any("vnni" in f or f in ("amx_int8", "asimddp", "i8mm") for f in chip["flags"])
    slow = "no INT8 dot product: INT8 may be slower than float here; the fit will measure and say so"
    findings.append(Finding("instructions", " ".join(chip["flags"]) or "none of use", vnni, slow))
    for package, use in PACKAGES.items():
        try:
            findings.append(Finding(package, version(package), True))
        except PackageNotFoundError:
            findings.append(Finding(package, "not installed", False, f"needed for {use}: pip install 'edgeeff[fit]'"))
    for name in backends.names():
        backend = backends.get(name)
        missing = backend.available()
        if missing:
            findings.append(Finding(f"backend {name}", "missing", False, missing))
        else:
            findings.append(Finding(f"backend {name}", ", ".join(p for p in backend.PRECISIONS if backend.supported(p)), True))
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    findings.append(
        Finding("free disk", f"{free:.1f} GB in {tempfile.gettempdir()}", free > 2, "decoded photos are kept there; set TMPDIR")
    )
    return findings
