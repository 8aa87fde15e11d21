"""The pictures of the README, from the bundle of the demo: python benchmarks/gallery.py demo/bundle [NAME…]

A function for each picture, which takes the bundle and the file to write. The pages are photographed by headless Chromium.
"""

from __future__ import annotations

import argparse
import io
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
from PIL import Image

from edgeeff import Bundle
from edgeeff.bundle import DIAGNOSTICS
from edgeeff.camera import Camera, CameraOptions
from edgeeff.camera.web import CameraPage
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


def camera(bundle: Bundle, file: Path) -> None:
    """The page of a camera that looks at a film of the demo's photos.

    Chromium's clock is virtual: it jumps to the next timer, so that the plot's axis shows more seconds than have passed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "digits.avi"
        film(path, bundle.path.parent / "digits" / "val")
        watched = Camera(bundle, [str(path)], CameraOptions(loop=True))
        watched.captures[0].source.name = path.name
        with watched, CameraPage("0", watched) as page:
            labelling = threading.Thread(target=lambda: [page(result) for result in watched])
            labelling.start()
            photograph(page.url, file, (1200, 790), ["--virtual-time-budget=65000"])
            watched.close()
            labelling.join()


def film(path: Path, photos: Path) -> None:
    """A video file of one photo of each class after the other, two seconds each, slowly moving, and fading into the next."""
    generator, fps, width, height = random.Random(0), 25, 640, 480
    chosen = [cv2.imread(str(generator.choice(sorted(folder.iterdir())))) for folder in sorted(photos.iterdir())]
    still = [cv2.resize(photo, (height, height), interpolation=cv2.INTER_CUBIC) for photo in chosen]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for i in range(len(still) * 2 * fps):
        number, share = divmod(i / (2 * fps), 1)
        mix = max(0.0, share - 0.9) / 0.1
        mixed = cv2.addWeighted(still[int(number)], 1 - mix, still[(int(number) + 1) % len(still)], mix, 0)
        move = np.array([[1, 0, (width - height) / 2 + 12 * np.sin(i / 9)], [0, 1, 8 * np.cos(i / 7)]], np.float32)
        writer.write(cv2.warpAffine(mixed, move, (width, height)))
    writer.release()


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


PICTURES: dict[str, Callable[[Bundle, Path], None]] = {"terminal.svg": terminal, "report.png": report, "camera.png": camera}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", help="that of make demo")
    parser.add_argument("names", nargs="*", default=list(PICTURES), help="of pictures; default: all")
    chosen = parser.parse_args()
    for name in chosen.names:
        PICTURES[name](Bundle.open(Path(chosen.bundle)), DOCS / name)
        print(DOCS / name)
