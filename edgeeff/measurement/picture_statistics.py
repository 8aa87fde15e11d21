"""What a picture looks like to the network, and what it makes of it, in eight numbers; and those of the calibration photos.

They are of every nth row of the picture as the network sees it, after it was resized and cropped, so that they cost little and mean
the same for a photo, for a BGR frame and for an NV12 frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ..data.frames import Frame, View
from ..data.images import Logits, PixelFile, Pixels, Predict

Observation = NDArray[np.float64]  # (8,), in the order of NAMES
Quantiles = tuple[float, float, float, float, float]

LINES = 8  # rows of a picture that are looked at
SHARES = (0.005, 0.16, 0.5, 0.84, 0.995)  # of the quantiles: the central 99%, the central 68%, and the median
LEAST_SCALE = 2.0  # to which a frame has still to be shrunk, so that leaving out pixels adds little that was not there
LEAST_PHOTOS = 50  # calibration photos of which quantiles say anything
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, as ITU-R BT.601 has it
FLAT = 1e-3  # the mean edge, a quarter of a grey level, below which a picture has none: its centre is then near 0
TO_CHROMA = (0.564, 0.713)  # of blue and of red without luma: half a unit either way, as BT.601 has it
MOST = 1e6  # that a quantile can be, of logits above all
ROUNDING = 1e-5  # about the variance that rounding to 8 bits causes: a picture of one colour has a sharpness of -5


@dataclass(frozen=True)
class PictureStatistics:
    """SHARES of the calibration `photos` have less than these.

    Of a picture whose pixels are 0 to 1: `brightness` is its mean luma, `contrast` the standard deviation of that, `sharpness` the
    decimal logarithm of the variance of its second differences along the rows (a Laplacian), `blue_chroma` and `red_chroma` its
    mean Cb and Cr (-0.5 to 0.5), `horizontal_centre` and `vertical_centre` where its edges lie on average (-1 left or top, 1 right
    or bottom). `score` is the negative energy of the logits, ln Σ exp (Liu et al. 2020, arXiv:2010.03759): lower for what the
    network knows less of. Unlike the largest probability it does not come to an end at 1, near which most of them lie.
    """

    photos: int
    brightness: Quantiles
    contrast: Quantiles
    sharpness: Quantiles
    blue_chroma: Quantiles
    red_chroma: Quantiles
    horizontal_centre: Quantiles
    vertical_centre: Quantiles
    score: Quantiles

    @classmethod
    def of(cls, pixels: PixelFile, predict: Predict, batch: int = 128) -> PictureStatistics | None:
        """Those of photos, as `predict` answers to them; None of fewer than LEAST_PHOTOS, or where no number comes out."""
        if len(pixels) < LEAST_PHOTOS:
            return None
        rgb = pixels.preprocess.colour == "RGB"
        found = []
        for photos in pixels.batches(batch):
            answers = zip(photos[..., :: 1 if rgb else -1], predict(photos), strict=True)
            found += [observe(_seen(picture), logits) for picture, logits in answers]
        table = np.stack(found)  # (N, 8)
        if not np.isfinite(table).all():
            return None
        quantiles = np.quantile(table, SHARES, axis=0).T.round(4).tolist()
        return cls(len(pixels), *(tuple(each) for each in quantiles))

    @property
    def quantiles(self) -> NDArray[np.float64]:
        """`(8, 5)`, in the order of NAMES and SHARES."""
        return np.array([getattr(self, name) for name in NAMES])

    @property
    def wrong(self) -> str:
        """What no field's type tells: the statistic that is wrong; empty where none is."""
        found = self.quantiles
        wrong = (np.abs(found) > MOST).any(1) | (np.diff(found) < 0).any(1)
        return f"{NAMES[wrong.argmax()]}: expected quantiles in ascending order, within ±{MOST:g}" if wrong.any() else ""


NAMES = tuple(field.name for field in fields(PictureStatistics))[1:]


@dataclass(frozen=True)
class Seen:
    """Some rows of a picture as the network sees them: the luma of their pixels `(LINES, R)`, 0 to 1, and their mean Cb and Cr."""

    luma: NDArray[np.float32]
    chroma: tuple[float, float]


class Glance:
    """Those rows of a camera's frames, and nothing else of them, so that it takes less than a millisecond.

    Where a frame is much larger than the network's picture, a row is made of every nth of the frame's rows. No library for matrices
    is used: its threads would wait for those of the model.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        rows, down = _taps(view.rows[_lines(len(view.rows))])
        step = max(1, int(view.rows.shape[1] / len(view.rows) / LEAST_SCALE))
        self._rows, self._down = rows[:, ::step] + view.top, down[:, ::step] / down[:, ::step].sum(1, keepdims=True)
        self._columns, self._across = _taps(view.columns.T)

    def __call__(self, frame: Frame) -> Seen:
        """Of a frame as `View.frames` says, BGR, RGB or NV12."""
        frames, top, left = self.view.frames, self.view.top, self.view.left
        bottom, right = self.view.end
        if frames.colour != "NV12":
            pixels = self._shrunk(frame)[..., :: 1 if frames.colour == "RGB" else -1] / np.float32(255)
            return Seen(self._narrowed(pixels @ LUMA), _chroma(pixels))
        luma = (self._shrunk(frame[: frames.height, :, None])[..., 0] - 16) / np.float32(219)
        pairs = frame[frames.height :].reshape(-1, frames.width // 2, 2)[top // 2 : bottom // 2, left // 2 : right // 2]
        blue, red = ((float(pairs[:: len(pairs) // LINES or 1, :, i].mean()) - 128) / 224 for i in (0, 1))
        return Seen(self._narrowed(luma), (blue, red))

    def _shrunk(self, pixels: Frame) -> NDArray[np.float32]:
        """`(LINES, w, channels)` of a frame, resized in their height only."""
        used = pixels[self._rows][:, :, self.view.left : self.view.end[1]].astype(np.float32)  # (LINES, taps, w, channels)
        shrunk: NDArray[np.float32] = np.einsum("lt,ltwc->lwc", self._down, used)
        return shrunk

    def _narrowed(self, luma: NDArray[np.float32]) -> NDArray[np.float32]:
        """`(LINES, R)` of `(LINES, w)`."""
        narrowed: NDArray[np.float32] = np.einsum("rt,lrt->lr", self._across, luma[:, self._columns])
        return narrowed.clip(0, 1)


def _taps(weights: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Of each row of a matrix: the columns from the first to the last that is not 0, and their weights; both `(rows, most)`."""
    first, behind = (weights != 0).argmax(1), (weights[:, ::-1] != 0).argmax(1)
    most = int((weights.shape[1] - behind - first).max())
    columns = np.minimum(first, weights.shape[1] - most)[:, None] + np.arange(most)
    return columns, np.take_along_axis(weights, columns, 1)


def observe(seen: Seen, logits: Logits) -> Observation:
    """The eight numbers of a picture and of its logits `(classes,)`; NaN where the logits are not finite."""
    luma, values = seen.luma, logits.astype(np.float64)
    mean = float(luma.mean())
    bent = luma[:, :-2] - 2 * luma[:, 1:-1] + luma[:, 2:]
    edges = np.abs(np.diff(luma, axis=1))
    total = max(float(edges.sum()), FLAT * edges.size)
    across, down = np.linspace(-1, 1, edges.shape[1]), np.linspace(-1, 1, len(edges))
    highest = values.max()
    with np.errstate(invalid="ignore"):  # NaN of infinite logits is the answer
        score = highest + np.log(np.exp(values - highest).sum())
    return np.array(
        [
            mean,
            luma.std(),
            np.log10(bent.var() + ROUNDING),
            *seen.chroma,
            edges.sum(0) @ across / total,
            edges.sum(1) @ down / total,
            score,
        ],
        np.float64,
    )


def _seen(picture: Pixels) -> Seen:
    """Of an RGB picture `(R, R, 3)` as the network sees it."""
    pixels = picture[_lines(len(picture))] / np.float32(255)
    return Seen(pixels @ LUMA, _chroma(pixels))


def _chroma(pixels: NDArray[np.float32]) -> tuple[float, float]:
    """Mean Cb and Cr of RGB pixels `(h, w, 3)`, 0 to 1."""
    red, green, blue = (float(pixels[..., i].mean()) for i in range(3))
    luma = float(LUMA @ np.array([red, green, blue]))
    return TO_CHROMA[0] * (blue - luma), TO_CHROMA[1] * (red - luma)


def _lines(rows: int) -> slice:
    """Of so many rows, LINES that lie evenly."""
    step = rows // LINES
    return slice(step // 2, step * LINES, step)
