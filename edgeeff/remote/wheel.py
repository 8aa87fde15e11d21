"""A wheel of the running edgeeff, to be installed on another host. Releases are built by hatchling (`make wheel`), not here.

An installed edgeeff is a checkout or a folder in site-packages, which has no build files, so this zips the package's own files.
https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

from .. import config as settings
from ..errors import ToolMissing

# Those that run bundles; making them takes torch, onnx and nncf.
EXTRAS = ("camera", "openvino", "onnxruntime", "parquet", "signature", "tensorrt")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date a zip file can hold


def build(folder: Path) -> Path:
    """The path of the wheel, written into `folder`. The same package gives the same bytes."""
    try:
        installed = metadata.metadata("edgeeff")
    except metadata.PackageNotFoundError as error:
        raise ToolMissing(
            "edgeeff is not installed, so its requirements are not known: pip install -e . in its checkout."
        ) from error
    name = f"edgeeff-{installed['Version']}"
    files = _files()
    files[f"{name}.dist-info/METADATA"] = _metadata(installed["Version"], installed["Requires-Python"]).encode()
    files[f"{name}.dist-info/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgeeff\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{name}.dist-info/entry_points.txt"] = b"[console_scripts]\nedgeeff = edgeeff.cli:main\n"
    record = f"{name}.dist-info/RECORD"
    files[record] = "".join([*(f"{path},{_hash(data)},{len(data)}\n" for path, data in files.items()), f"{record},,\n"]).encode()
    wheel = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return wheel


def _files() -> dict[str, bytes]:
    """Name in the wheel → contents: modules, the camera's web page and graph, and the YAML folders in the package or beside it."""
    package = Path(__file__).parents[1]
    paths = {f"edgeeff/{p.relative_to(package).as_posix()}": p for p in package.rglob("*") if p.suffix in (".py", ".html", ".onnx")}
    for kind in ("targets", "calib"):
        folder = settings.folder(kind)
        paths |= {f"edgeeff/{kind}/{p.relative_to(folder).as_posix()}": p for p in folder.rglob("*") if p.is_file()}
    return {name: paths[name].read_bytes() for name in sorted(paths) if "/." not in name}


def _metadata(version: str, python: str) -> str:
    """What pip reads, in metadata version 2.1, which the pip of JetPack 6, from 2022, understands."""
    lines = ["Metadata-Version: 2.1", "Name: edgeeff", f"Version: {version}", f"Requires-Python: {python}"]
    requirements = metadata.requires("edgeeff") or []
    lines += [f"Requires-Dist: {r}" for r in requirements if "extra ==" not in r]
    for extra in EXTRAS:
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {r}" for r in requirements if f"extra == '{extra}'" in r.replace('"', "'")]
    return "\n".join(lines) + "\n"


def _hash(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
