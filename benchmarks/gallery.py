"""The pictures of the README, from the bundle of the demo: python benchmarks/gallery.py demo/bundle [NAME…]

A function for each picture, which takes the bundle and the file to write. The report is photographed by headless Chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

from PIL import Image

from edgeeff import Bundle
from edgeeff.bundle import DIAGNOSTICS
from edgeeff.cli import tables
from edgeeff.diagnostics import Diagnostics
from edgeeff.records import read_json
from edgeeff.report import html

DOCS = Path(__file__).parents[1] / "docs"
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Terminal(io.StringIO):
    """Standard output as tables see it on a terminal."""

    def isatty(self) -> bool:
        return True


def terminal(bundle: Bundle, file: Path) -> None:
    """What a fit prints at its end, as SVG."""
    from rich.console import Console
    from rich.text import Text

    manifest, width = bundle.manifest, 100
    shipped = html.document(manifest, read_json(bundle.path / DIAGNOSTICS, Diagnostics))["shipped_sibling"]
    assert isinstance(shipped, int)
    environment = {"COLUMNS": str(width), "TERM": "xterm-256color", "NO_COLOR": ""}
    with patch.dict("os.environ", environment), patch.object(sys, "stdout", Terminal()) as out:
        tables.steps(manifest.steps, shipped=str(manifest.precision))
        print()
        tables.siblings(manifest.siblings, shipped)
        print(f"\n{manifest.verdict}")
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(Text.from_ansi(out.getvalue()))
    svg = console.export_svg(title="edgeeff fit")
    file.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")  # it loads nothing


def report(bundle: Bundle, file: Path) -> None:
    """The head of the report."""
    page = html.render(bundle.manifest, read_json(bundle.path / DIAGNOSTICS, Diagnostics))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "report.html"
        path.write_text(page, encoding="utf-8")
        photograph(path.as_uri(), file, (1060, 1030))


def photograph(address: str, file: Path, size: tuple[int, int], options: Sequence[str] = ()) -> None:
    """A page in a window of that many pixels, as a PNG of 128 colours."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("gallery.py: Chromium is needed for this picture: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        window = f"--window-size={size[0]},{size[1]}"
        command = [chromium, *QUIET, *options, f"--user-data-dir={profile}", f"--screenshot={shot}", window, address]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(128).save(file, optimize=True)


PICTURES: dict[str, Callable[[Bundle, Path], None]] = {"terminal.svg": terminal, "report.png": report}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", help="that of make demo")
    parser.add_argument("names", nargs="*", default=list(PICTURES), help="of pictures; default: all")
    chosen = parser.parse_args()
    for name in chosen.names:
        PICTURES[name](Bundle.open(Path(chosen.bundle)), DOCS / name)
        print(DOCS / name)
