"""When a camera says that what it sees has changed, and when it does not."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cameras import Fake, Said
from manifests import STATISTICS
from scipy import stats

from edgeeff import Bundle
from edgeeff.camera import Camera
from edgeeff.camera.drift import LIMIT, MATTERS, SPACING, START, WINDOW, DriftDetector, Usual
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.measurement.picture_statistics import NAMES, PictureStatistics

SPREAD = np.array([0.15, 0.06, 0.4, 0.05, 0.05, 0.1, 0.1, 2.0])
MIDDLE = np.array([0.5, 0.2, -2.5, 0.0, 0.0, 0.0, 0.0, 9.0])
CLOCK = itertools.count()
NORMAL = (-2.576, -0.994, 0.0, 0.994, 2.576)  # quantiles of a normal distribution at SHARES


def calibrated(bundle: Bundle, reference: PictureStatistics | None) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, calibration_statistics=reference))


@pytest.fixture
def reference() -> PictureStatistics:
    rows = MIDDLE[:, None] + SPREAD[:, None] * NORMAL
    return PictureStatistics(300, *map(tuple, rows.tolist()))


def scenes(seed: int, seconds: float = 1.0, at: np.ndarray = MIDDLE) -> Iterator[np.ndarray]:
    """Of a camera whose scenes last for that time on average, and differ half as much as the calibration photos."""
    chance = np.random.default_rng(seed)
    scene = chance.normal(size=8)
    while True:
        if chance.random() > np.exp(-SPACING / seconds):
            scene = chance.normal(size=8)
        yield at + SPREAD * (0.5 * scene + 0.05 * chance.normal(size=8))


def looked(detector: DriftDetector, source: Iterator[np.ndarray], count: int) -> list[tuple[int, str]]:
    """What the detector says of so many frames, each with its number among them."""
    said = []
    for i in range(count):
        observed, second = next(source), next(CLOCK)
        if detector.due(second):
            said += [(i, line) for line in detector.look(second, observed)]
    return said


def test_the_limit_is_hotelling_s_for_24_hours_of_looks_and_a_little_more() -> None:
    freedom = 1.5 * (START / WINDOW - 1)  # of overlapping batch means: Meketon & Schmeiser 1984
    count = len(NAMES)
    exact = np.sqrt(count * stats.f.isf(SPACING / 86400, count, count * freedom))
    assert exact == pytest.approx(6.25, abs=0.005)
    assert 1.05 * exact == pytest.approx(LIMIT, abs=0.05)


def test_the_error_of_a_window_s_mean_allows_for_correlation() -> None:
    """Scenes of five seconds: against the true deviation of windows' means, from five hundred of them."""
    source = scenes(0, seconds=5.0)
    found = [Usual.of(np.stack([next(source) for _ in range(START)]), 0 * SPREAD) for _ in range(10)]
    windows = np.stack([np.stack([next(source) for _ in range(WINDOW)]) for _ in range(500)])
    deviation = (windows.mean(1) / SPREAD).std(0).mean()
    error = np.mean([usual.error * usual.scale for usual in found], axis=0) / np.sqrt(1 + WINDOW / START) / SPREAD
    assert error.mean() == pytest.approx(deviation, rel=0.15)
    assert deviation > 2 * 0.5 / np.sqrt(WINDOW)  # which a test that takes frames for independent would rely on


def test_a_change_is_said_once_and_so_is_its_end(reference: PictureStatistics) -> None:
    detector = DriftDetector(reference)
    assert looked(detector, scenes(0), START + 300) == []
    darker = MIDDLE - [0.2, 0, 0, 0, 0, 0, 0, 0]
    ((frame, begun),) = looked(detector, scenes(1, at=darker), 300)
    assert frame < 50
    assert begun.startswith("what the camera sees has changed since its start: brightness 0.1")
    assert " lower (0.5" in begun
    assert detector.drifted == ("brightness",)
    assert len(detector.sentences) == 1
    ((frame, over),) = looked(detector, scenes(2), 300)
    assert frame < 50
    assert over == "what the camera sees is again as it was at its start."
    assert detector.drifted == detector.sentences == ()


@pytest.mark.medium
@pytest.mark.parametrize("seconds", [0.1, 1.0, 60.0])
def test_scenes_that_last_are_no_drift(reference: PictureStatistics, seconds: float) -> None:
    """Three hours, of scenes that a test of independent frames would alarm for all the time."""
    assert looked(DriftDetector(reference), scenes(3, seconds), 3 * 3600) == []


def test_objects_that_come_seldom_are_no_drift(reference: PictureStatistics) -> None:
    """One scene in ten is another, so that windows have few of them or many."""
    source = (MIDDLE + SPREAD * (each[0] > MIDDLE[0] + 0.64 * SPREAD[0]) for each in scenes(4))
    assert looked(DriftDetector(reference), source, 3 * 3600) == []


def test_a_change_of_several_statistics_at_once_is_told_where_none_of_them_tells(reference: PictureStatistics) -> None:
    detector, by = DriftDetector(reference), np.array([0.45, -0.45, 0.45, 0, 0, -0.45, 0, 0])
    assert looked(detector, scenes(0), START + 300) == []
    ((frame, said),) = looked(detector, scenes(1, at=MIDDLE + 1.2 * by * SPREAD), 48)
    assert frame < 48
    assert said.count(",") >= 2


def test_a_scene_that_creeps_by_what_does_not_matter_is_learned_at_once(reference: PictureStatistics) -> None:
    detector, creeping = DriftDetector(reference), (MIDDLE + 0.01 * SPREAD * np.sin(i / 1000) for i in itertools.count())
    assert looked(detector, creeping, START) == []
    assert detector.usual is not None


def test_a_change_too_small_to_matter_is_none_though_it_is_certain(reference: PictureStatistics) -> None:
    """A camera of a scene that never changes, whose sensor makes hardly any noise."""
    detector, still = DriftDetector(reference), (MIDDLE + 1e-4 * np.random.default_rng(0).normal(size=8) for _ in iter(int, 1))
    less = (MIDDLE + 0.9 * MATTERS * SPREAD for _ in iter(int, 1))
    more = (MIDDLE - 1.1 * MATTERS * SPREAD for _ in iter(int, 1))
    assert looked(detector, still, START) == looked(detector, less, 200) == []
    ((_, said),) = looked(detector, more, 200)
    assert said.count(" lower (") >= 1
    assert detector.drifted == NAMES


def test_what_lies_outside_of_the_calibration_photos_is_said_at_once(reference: PictureStatistics) -> None:
    detector = DriftDetector(reference)
    ((frame, said),) = looked(detector, scenes(4, at=MIDDLE + 5 * SPREAD * (np.arange(8) == 2)), START)
    assert frame == WINDOW - 1
    assert said.startswith("what the camera sees is unlike what the model was calibrated on: sharpness -0.")
    assert said.endswith("(99% of the photos: -3.53 to -1.47).")
    assert detector.drifted == ("sharpness",)
    lines = [line for _, line in looked(detector, scenes(5), 300)]
    assert len(lines) == 2
    assert any("again within the range" in line for line in lines)
    assert any("has changed since its start: sharpness" in line for line in lines)


def test_equal_statistics_of_calibration_photos_leave_room_for_noise() -> None:
    grey = replace(STATISTICS, **{name: (value,) * 5 for name, value in zip(NAMES, MIDDLE.tolist(), strict=True)})
    noise = (MIDDLE + 0.001 * np.random.default_rng(0).normal(size=8) for _ in iter(int, 1))
    assert looked(DriftDetector(grey), noise, START + 100) == []


@pytest.fixture
def filmed(bundle: Bundle):
    """What a camera with the bundle and these statistics says and gives, of frames a second apart."""

    def watched(frames: list[np.ndarray], reference: PictureStatistics | None, *, photos: bool = False) -> tuple[list, list[str]]:
        source, said = Fake("film", lambda: ((time.monotonic(), frame) for frame in frames)), Said()
        source.live, source.frame_seconds, source.separate_photos = False, 1.0, photos
        return list(Camera(calibrated(bundle, reference), [source], progress=said)), said.lines

    return watched


@pytest.fixture
def of_digits(bundle: Bundle, digits: Path) -> PictureStatistics:
    """The statistics of photos like those that the bundle was calibrated on, of more than in tests."""
    return PictureStatistics.of(PixelFile(ImageSet.open(digits / "train").draw(60), bundle.preprocess), bundle.load())


def test_a_fit_puts_the_statistics_of_its_calibration_photos_into_the_bundle(bundle: Bundle) -> None:
    found = bundle.manifest.calibration_statistics
    assert found.photos == bundle.manifest.calibration_photos
    assert (found.wrong, found.blue_chroma, found.red_chroma) == ("", (0, 0, 0, 0, 0), (0, 0, 0, 0, 0))  # of grey digits
    assert found.score[0] < found.score[4]


def test_a_camera_in_the_dark_says_so_and_goes_on(of_digits, filmed) -> None:
    results, said = filmed([np.zeros((48, 64, 3), np.uint8)] * (WINDOW + 20), of_digits)
    assert len(said) == 1
    assert said[0].startswith("rtsp://film: what the camera sees is unlike what the model was calibrated on: brightness 0.00 (99%")
    assert [bool(result.drift) for result in results] == [False] * (WINDOW - 1) + [True] * 21
    assert set(results[-1].drift) >= {"brightness", "contrast", "sharpness"}
    assert results[-1].to_json()["drift"] == results[-1].drift


def test_one_frame_for_ever_is_no_drift_where_it_is_like_the_calibration_photos(filmed, reference) -> None:
    wide = replace(reference, **{name: (-1e5, -1e4, 0.0, 1e4, 1e5) for name in NAMES})
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    results, said = filmed([frame] * (WINDOW + 5), wide)
    assert (len(results), said) == (WINDOW + 5, [])


def test_frames_closer_than_a_second_and_separate_photos_are_not_looked_at(bundle: Bundle, of_digits, filmed) -> None:
    dark = [np.zeros((48, 64, 3), np.uint8)] * (WINDOW + 5)
    assert filmed(dark, of_digits, photos=True)[1] == []
    source, said = Fake("fast", lambda: ((time.monotonic(), frame) for frame in dark)), Said()
    source.live, source.frame_seconds = False, 0.5
    assert len(list(Camera(calibrated(bundle, of_digits), [source], progress=said))) == len(dark)
    assert said.lines == []


def test_a_bundle_without_statistics_has_no_drift(filmed) -> None:
    results, said = filmed([np.zeros((48, 64, 3), np.uint8)] * (WINDOW + 5), None)
    assert said == []
    assert {result.drift for result in results} == {()}


def test_answers_that_are_not_finite_are_not_looked_at(of_digits, filmed, monkeypatch) -> None:
    """Of every other frame: what is unlike the photos is known after WINDOW of the others."""
    dark = np.zeros((48, 64, 3), np.uint8)
    light = dark + np.uint8(255)

    def answer(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full((1, 10), np.nan if frame.any() else 0.0, np.float32), np.zeros(1)

    monkeypatch.setattr(Bundle, "watch_scored", lambda *_: answer)
    results, said = filmed([dark, light] * (WINDOW + 1), of_digits)
    assert [bool(result.drift) for result in results] == [False] * (WINDOW - 1) + [True] * 2
    assert "not finite" in said[0]
    assert "unlike what the model was calibrated on" in said[1]
    assert len(said) == 2
