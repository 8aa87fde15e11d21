"""A network after its camera got another lamp: what 200 unlabelled frames give back, on photos that nothing was chosen on.

The photos of waste are drawn apart once: to train on, to choose by, those of the frames, and the test photos. The lamp is dimmer
and warmer than the light of the photos: its gains are of linear light, and the darker picture has the sensor's noise.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

LAMP = np.array([0.55, 0.40, 0.24])  # of the red, green and blue light, what is left
NOISE = 2.0  # standard deviation of the sensor's noise, in grey levels
FRAMES, CHOOSING = 200, 300  # photos
PARTS = ("train", "val", "test", "lamp-test", "frames")


def prepared(photos: Path, folder: Path) -> dict[str, Path]:
    """Folders of the photos of trashnet: PARTS, of which the last two are under the lamp, and the frames have no labels."""
    train, test = (sorted((photos / name).glob("*/*")) for name in ("train", "val"))
    copies = Counter(file.read_bytes() for file in (*train, *test))  # some photos are there twice, and in two classes
    train, test = ([file for file in files if copies[file.read_bytes()] == 1] for files in (train, test))
    random.Random(0).shuffle(train)
    frames, choosing, rest = train[:FRAMES], train[FRAMES : FRAMES + CHOOSING], train[FRAMES + CHOOSING :]
    found = {name: folder / name for name in PARTS}
    for name, files in (("train", rest), ("val", choosing), ("test", test)):
        for file in files:
            (found[name] / file.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, found[name] / file.parent.name / file.name)
    chance = np.random.default_rng(0)
    _under_lamp(((file, found["lamp-test"] / file.parent.name / file.name) for file in test), chance)
    _under_lamp(((file, found["frames"] / f"{i:04}.jpg") for i, file in enumerate(frames)), chance)
    return found


def _under_lamp(files: Iterable[tuple[Path, Path]], chance: np.random.Generator) -> None:
    for source, to in files:
        to.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as photo:
            pixels = np.asarray(photo.convert("RGB")) / 255
        seen = 255 * encoded(LAMP * linear(pixels)) + chance.normal(0, NOISE, pixels.shape)
        Image.fromarray(seen.round().clip(0, 255).astype(np.uint8)).save(to, quality=95)


def linear(values: np.ndarray) -> np.ndarray:
    """The light of sRGB's values, 0 to 1 (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    """sRGB's values of light, 0 to 1."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
