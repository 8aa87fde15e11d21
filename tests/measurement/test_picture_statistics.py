"""What a picture looks like in numbers, and that a frame's are those of the photo that the network sees of it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edgeeff.data.frames import Frames, View
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.measurement.picture_statistics import LINES, NAMES, SHARES, Glance, PictureStatistics, Seen, observe

PREPROCESS = Preprocess.standard(64, (0, 0, 0), (1, 1, 1))
LOGITS = np.array([1.0, 2.0, 3.0], np.float32)


def answers(images: np.ndarray) -> np.ndarray:
    return np.tile(LOGITS, (len(images), 1))


@pytest.fixture(scope="module")
def photos(digits: Path) -> PixelFile:
    return PixelFile(ImageSet.open(digits / "train").draw(60), PREPROCESS)


def drawn(height: int, width: int, seed: int) -> np.ndarray:
    """A smooth picture in colours, BGR."""
    coarse = np.random.default_rng(seed).integers(40, 216, (height // 12, width // 12, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def nv12_of(bgr: np.ndarray) -> np.ndarray:
    height, width = bgr.shape[:2]
    planes = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    blue, red = planes[height:].reshape(2, -1)
    return np.concatenate([planes[:height], np.stack([blue, red], -1).reshape(height // 2, width)])


def of_picture(rgb: np.ndarray) -> np.ndarray:
    """By definition, of all that `PictureStatistics` says of a picture's rows, in float64."""
    rows = rgb[len(rgb) // LINES // 2 :: len(rgb) // LINES][:LINES].astype(np.float64) / 255
    luma = rows @ [0.299, 0.587, 0.114]
    bent = luma[:, 2:] + luma[:, :-2] - 2 * luma[:, 1:-1]
    edges = np.abs(luma[:, 1:] - luma[:, :-1])
    across, down = (np.average(np.linspace(-1, 1, n), weights=edges.sum(axis)) for axis, n in ((0, edges.shape[1]), (1, LINES)))
    blue, red = 0.564 * (rows[..., 2] - luma).mean(), 0.713 * (rows[..., 0] - luma).mean()
    return np.array([luma.mean(), luma.std(), np.log10(bent.var() + 1e-5), blue, red, across, down, np.log(np.exp(LOGITS).sum())])


@pytest.mark.parametrize("size", [(640, 480), (100, 80), (1920, 1080)])
@pytest.mark.parametrize("region", [None, (9, 7, 80, 66)])
def test_a_frame_has_the_statistics_of_what_the_network_sees_of_it(size: tuple[int, int], region) -> None:
    bgr = drawn(size[1], size[0], seed=size[0])
    for colour, frame in (("BGR", bgr), ("RGB", np.ascontiguousarray(bgr[..., ::-1])), ("NV12", nv12_of(bgr))):
        view = View.of(PREPROCESS, Frames(*size, colour, region))
        expected = of_picture(view.seen(frame)[0])
        found = observe(Glance(view)(frame), LOGITS)
        # Pixels are rounded there; the colour is of every row there, and NV12 has it at half the resolution. Calibration photos
        # differ by 0.3 and more in sharpness, and by 0.1 in their centres.
        assert (np.abs(found - expected) < [0.01, 0.01, 0.12, 0.01, 0.01, 0.03, 0.03, 1e-6]).all(), (colour, found - expected)


def test_the_calibration_photos_quantiles_are_in_the_order_of_their_names(photos: PixelFile) -> None:
    found = PictureStatistics.of(photos, answers)
    table = np.stack([of_picture(photo) for photo in photos.rows(0, 60)])
    assert found.quantiles == pytest.approx(np.quantile(table, SHARES, axis=0).T, abs=2e-4)
    assert found.photos == 60
    assert found.wrong == ""
    assert found.score == pytest.approx([3.4076] * 5)


def test_photos_in_bgr_have_the_same_statistics(photos: PixelFile) -> None:
    coloured = photos.rows(0, 60) // np.array([1, 2, 4], np.uint8)

    class Given:
        def __init__(self, pixels: np.ndarray, colour: str) -> None:
            self.pixels, self.preprocess = pixels, msgspec.structs.replace(PREPROCESS, colour=colour)

        def __len__(self) -> int:
            return len(self.pixels)

        def batches(self, size: int) -> Iterator[np.ndarray]:
            yield self.pixels

    rgb, bgr = (PictureStatistics.of(Given(p, c), answers) for p, c in ((coloured, "RGB"), (coloured[..., ::-1], "BGR")))
    assert rgb == bgr
    assert rgb.red_chroma[2] > 0 > rgb.blue_chroma[2]


def test_of_few_photos_or_answers_that_are_no_numbers_nothing_is_said(photos: PixelFile, digits: Path) -> None:
    few = PixelFile(ImageSet.open(digits / "train").draw(49), PREPROCESS)
    assert PictureStatistics.of(few, answers) is None
    assert PictureStatistics.of(photos, lambda images: np.full((len(images), 3), np.nan, np.float32)) is None


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_colour_has_finite_statistics(level: int) -> None:
    view = View.of(PREPROCESS, Frames(100, 80))
    found = dict(zip(NAMES, observe(Glance(view)(np.full((80, 100, 3), level, np.uint8)), LOGITS), strict=True))
    assert found["brightness"] == pytest.approx(level / 255, abs=1e-4)
    assert found["contrast"] == pytest.approx(0, abs=1e-4)
    assert found["sharpness"] == pytest.approx(-5, abs=0.1)
    assert found["horizontal_centre"] == pytest.approx(0, abs=0.05)


def test_logits_that_are_not_finite_have_no_score_and_large_ones_have() -> None:
    flat = Seen(np.zeros((LINES, 64), np.float32), (0.0, 0.0))
    for odd in (np.nan, np.inf):
        assert np.isnan(observe(flat, np.array([0, odd], np.float32))[-1])
    assert observe(flat, np.array([3e38, 0], np.float32))[-1] == pytest.approx(3e38)


def test_a_statistic_s_name_is_said_where_it_is_wrong(photos: PixelFile) -> None:
    found = PictureStatistics.of(photos, answers)
    assert replace(found, red_chroma=(0.2, 0.1, 0.3, 0.4, 0.5)).wrong.startswith(
        "red_chroma: expected quantiles in ascending order"
    )
