"""What a camera says of drift, on real photos: how soon after a change, how often without one, and what looking costs.

A day of a camera is resampled from frames that went through the camera's own path. A scene, one photo, lasts for a time that is
exponentially distributed, so consecutive frames are correlated; the lamp's brightness wanders by 3%; the sensor adds noise.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edgeeff.bundle import Bundle
from edgeeff.camera.drift import SPACING, DriftDetector
from edgeeff.data.frames import Frame, Frames, View
from edgeeff.data.photos import SUFFIXES
from edgeeff.measurement.picture_statistics import Glance, Observation, PictureStatistics, observe

FPS = 10
SCENES = (0.5, 1.0, 3.0)  # seconds that a scene lasts on average
LAMP = (0.97, 1.0, 1.03)  # the levels between which its brightness wanders, with a time constant of a minute
NOISE = 2.0  # standard deviation of the sensor's noise, in grey levels
DAYS, CHANGES = 10, 50  # of each kind of camera
AFTER = 10_000  # frames after a change until which an alarm is waited for
ALLOWED = 500  # frames from a change to its alarm
PHOTOS = 240  # of each set
SIZES = ((640, 480), (1280, 720), (1920, 1080))

Pool = NDArray[np.float64]  # (photos, levels of the lamp, statistics)

CHANGE: dict[str, Callable[[Image.Image], NDArray[np.float32]]] = {
    "none": lambda photo: np.float32(photo),
    "half the light": lambda photo: np.float32(photo) * 0.5,
    "defocus (a Gaussian of 2 pixels)": lambda photo: np.float32(photo.filter(ImageFilter.GaussianBlur(2))),
    "colour cast (red +20%, blue −20%)": lambda photo: np.float32(photo) * np.float32([1.2, 1.0, 0.8]),
    "moved by a third of the picture": lambda photo: moved(np.float32(photo)),
}
"""What becomes of a photo before the sensor: `(H, W, 3)` in RGB."""


def moved(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a camera sees beside its scene is the scene's mirror image."""
    down, across = pixels.shape[0] // 3, pixels.shape[1] // 3
    return np.pad(pixels, ((0, down), (0, across), (0, 0)), "reflect")[down:, across:]


def measured(bundle: Bundle, data: Path) -> dict[str, Any]:
    """For each set of photos and duration of a scene: false alarms in days, and the frames from each change to its alarm."""
    reference = bundle.manifest.calibration_statistics
    assert reference is not None
    found: dict[str, Any] = {"fps": FPS, "allowed": ALLOWED, "cost_ms": cost(bundle), "cameras": []}
    for name in ("trashnet", "flowers12"):
        photos = sorted(p for p in (data / "images" / name / "val").rglob("*") if p.suffix.lower() in SUFFIXES)
        drawn = np.random.default_rng(0).permutation(len(photos))[:PHOTOS]
        pool = pools(bundle, [photos[i] for i in drawn])
        for seconds in SCENES:
            print(f"{name}, scenes of {seconds:g} s", file=sys.stderr)
            found["cameras"].append(
                {
                    "photos": name,
                    "different": len(drawn),
                    "scene_seconds": seconds,
                    "alarms_by_day": [alarms(reference, pool["none"], seconds, seed) for seed in range(DAYS)],
                    "delays": {
                        change: [delay(reference, pool["none"], after, seconds, seed) for seed in range(CHANGES)]
                        for change, after in pool.items()
                        if change != "none"
                    },
                }
            )
    return found


def pools(bundle: Bundle, photos: list[Path]) -> dict[str, Pool]:
    """The statistics of each photo, at each level of the lamp, under each change."""
    chance, looks = np.random.default_rng(0), dict[tuple[int, ...], tuple[Callable[[Frame], Any], Glance]]()

    def seen(pixels: NDArray[np.float32]) -> Observation:
        noisy = pixels[..., ::-1] + chance.normal(0, NOISE, pixels.shape)
        frame = noisy.round().clip(0, 255).astype(np.uint8)
        if frame.shape not in looks:
            frames = Frames(frame.shape[1], frame.shape[0])
            looks[frame.shape] = bundle.watch(frames), Glance(View.of(bundle.preprocess, frames))
        model, glance = looks[frame.shape]
        return observe(glance(frame), model(frame)[0])

    found = {}
    for name, change in CHANGE.items():
        rows = []
        for path in photos:
            with Image.open(path) as photo:
                pixels = change(photo.convert("RGB"))
            rows.append([seen(pixels * level) for level in LAMP])
        found[name] = np.array(rows)
    return found


def watched(pool: Pool, scene_seconds: float, chance: np.random.Generator) -> Iterator[Observation]:
    """What a camera sees every SPACING seconds, for ever."""
    stays, keeps = np.exp(-SPACING / scene_seconds), np.exp(-SPACING / 60)
    scene, lamp = chance.integers(len(pool)), 0.0
    while True:
        if chance.random() > stays:
            scene = chance.integers(len(pool))
        lamp = keeps * lamp + np.sqrt(1 - keeps**2) * chance.normal()
        yield pool[scene, 1 + int(lamp > 1) - int(lamp < -1)]


class Watcher:
    """A detector, and the time."""

    def __init__(self, reference: PictureStatistics) -> None:
        self.detector, self.looks = DriftDetector(reference), 0

    def __call__(self, observed: Observation) -> list[str]:
        """What it says of what is seen SPACING seconds after the last."""
        self.looks += 1
        seconds = self.looks * SPACING
        return self.detector.look(seconds, observed) if self.detector.due(seconds) else []


def learned(reference: PictureStatistics, source: Iterator[Observation]) -> tuple[Watcher, list[str]]:
    """One whose start is over, and what it said until then."""
    watcher, said = Watcher(reference), list[str]()
    while watcher.detector.usual is None:
        said += watcher(next(source))
    return watcher, said


def alarms(reference: PictureStatistics, pool: Pool, scene_seconds: float, seed: int) -> int:
    """How often a camera without any change says that there is one, in its start and the 24 hours after it."""
    source = watched(pool, scene_seconds, np.random.default_rng(seed))
    watcher, said = learned(reference, source)
    for _ in range(round(86400 / SPACING)):
        said += watcher(next(source))
    return sum("changed" in line or "unlike" in line for line in said)


def delay(reference: PictureStatistics, before: Pool, after: Pool, scene_seconds: float, seed: int) -> int | None:
    """The frames from a change to the first alarm; None where none comes. It happens between two frames that are looked at."""
    chance = np.random.default_rng(1000 + seed)
    source = watched(before, scene_seconds, chance)
    watcher, _ = learned(reference, source)
    for _ in range(100):
        watcher(next(source))
    already, apart = bool(watcher.detector.drifted), round(FPS * SPACING)
    until_next, source = int(chance.integers(apart)), watched(after, scene_seconds, chance)
    for i in range(AFTER // apart):
        watcher(next(source))
        if watcher.detector.changed or (watcher.detector.outside and not already):
            return until_next + apart * i
    return None


def cost(bundle: Bundle, times: int = 200) -> dict[str, float]:
    """The median milliseconds of looking at a frame, of one that is looked at once a second: with the model's answer known."""
    chance, found = np.random.default_rng(0), {}
    logits = np.zeros(bundle.manifest.classes, np.float32)
    for width, height in SIZES:
        for colour in ("BGR", "NV12"):
            frames = Frames(width, height, colour)
            glance, detector = Glance(View.of(bundle.preprocess, frames)), DriftDetector(bundle.manifest.calibration_statistics)
            frame, taken = chance.integers(0, 256, frames.shape, np.uint8), []
            for i in range(times):
                begun = time.perf_counter()
                detector.look(i, observe(glance(frame), logits))
                taken.append(1000 * (time.perf_counter() - begun))
            found[f"{width}×{height} {colour}"] = round(statistics.median(taken), 3)
    return found
