"""Files of Linux that say what a machine is: read as text or number, "" or None where there is no such file."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path("/")


def text(path: Path) -> str:
    """A file's text; "" where there is none, as machines differ in what they have."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def number(path: Path) -> float | None:
    found = text(path)
    return float(found) if re.fullmatch(r"-?\d+(\.\d+)?", found) else None


def jetson_linux(root: Path = ROOT) -> str | None:
    """The version of Jetson Linux (L4T), like 36.4.3; None where it is not that."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text(root / "etc/nv_tegra_release"))
    return f"{found[1]}.{found[2]}" if found else None
