"""The camera's page as a picture: `python benchmarks/gallery_page.py BUNDLE PHOTOS PICTURE.png [WIDTH HEIGHT]`.

PHOTOS are folders of classes, as the demo has them (`demo/digits/val`). Needs Chromium.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from edgeeff.bundle import Bundle
from edgeeff.camera import Camera, CameraOptions
from edgeeff.camera.web import PageServer

FPS, SIDE = 25, (640, 480)


def film(path: Path, photos: Path) -> None:
    """One photo of each class after the other, two seconds each, slowly moving, and fading into the next."""
    generator = random.Random(0)
    chosen = [cv2.imread(str(generator.choice(sorted(folder.iterdir())))) for folder in sorted(photos.iterdir())]
    still = [cv2.resize(photo, (SIDE[1], SIDE[1]), interpolation=cv2.INTER_CUBIC) for photo in chosen]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIDE)
    for i in range(len(still) * 2 * FPS):
        number, share = divmod(i / (2 * FPS), 1)
        mix = max(0.0, share - 0.9) / 0.1
        mixed = cv2.addWeighted(still[int(number)], 1 - mix, still[(int(number) + 1) % len(still)], mix, 0)
        move = np.float32([[1, 0, (SIDE[0] - SIDE[1]) / 2 + 12 * np.sin(i / 9)], [0, 1, 8 * np.cos(i / 7)]])
        writer.write(cv2.warpAffine(mixed, move, SIDE))
    writer.release()


def draw(bundle: Path, photos: Path, picture: Path, size: tuple[int, int] = (1200, 790)) -> None:
    """The page of a camera that has looked at a film of the photos for a while, as PNG of so many pixels.

    Chromium's clock is virtual: it jumps to the next timer, so that the plot's axis shows more seconds than have passed.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    with tempfile.TemporaryDirectory() as folder:
        film(Path(folder) / "digits.avi", photos)
        camera = Camera(Bundle.open(bundle), [f"{folder}/digits.avi"], CameraOptions(loop=True))
        camera.captures[0].source.name = "digits.avi"
        with camera, PageServer("0", camera) as page:
            labelling = threading.Thread(target=lambda: [page(result) for result in camera])
            labelling.start()
            command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
            command += ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
            command += [f"--user-data-dir={folder}/profile", f"--screenshot={picture}", "--window-size={},{}".format(*size)]
            subprocess.run([*command, "--virtual-time-budget=65000", page.url], check=True, capture_output=True, timeout=120)
            camera.close()
            labelling.join()
    with Image.open(picture) as shot:
        shot.convert("RGB").quantize(128).save(picture, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *([(int(sys.argv[4]), int(sys.argv[5]))] if sys.argv[5:] else []))
