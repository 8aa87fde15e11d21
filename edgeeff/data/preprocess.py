"""How a photo becomes the network's input. Pillow and numpy only: a device prepares its photos with this same code."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import BadInput
from .photos import Photo, read_photo

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")  # of all that Pillow reads: some of the others start programs
MOST_PIXELS = 89_478_485  # as Pillow's MAX_IMAGE_PIXELS: 256 MB in RGB
MOST_SCANS = 200  # of a JPEG file, each of which goes over the whole photo again; a progressive one has about ten
LONGEST = 50  # times the short side: a photo is resized before it is cropped


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a photo becomes the network's input; stored with the weights and in the bundle.

    The photo is shrunk until its short side is `resize`, and its centre `resolution` × `resolution` is cropped. A smaller photo is
    enlarged only as far as the crop needs it: data sets stored at the network's size have been cropped before.
    `mean` and `std` are in pixels (0–255), in RGB order. They are applied, as is the colour order, inside the compiled graph,
    whose input is uint8 in `colour` order. Raises BadInput for sizes out of range and for a mean or std that cannot be applied.
    """

    resolution: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    colour: Literal["RGB", "BGR"] = "RGB"

    @classmethod
    def standard(cls, resolution: int, mean: tuple[float, float, float], std: tuple[float, float, float]) -> Preprocess:
        """The usual evaluation crop: the centre 7/8 of the short side (224 of 256)."""
        return cls(resolution, round(resolution * 8 / 7), mean, std)

    def at(self, resolution: int) -> Preprocess:
        """The same part of a photo in another resolution."""
        return msgspec.structs.replace(self, resolution=resolution, resize=round(self.resize * resolution / self.resolution))

    def cropped(self, share: float) -> Preprocess:
        """With another share of the short side in the crop."""
        return msgspec.structs.replace(self, resize=round(self.resolution / share))

    @property
    def crop(self) -> float:
        """The share of the short side of a large photo that is in the crop."""
        return self.resolution / self.resize

    @property
    def uncropped(self) -> Preprocess:
        """Photos as they are before their centre is cropped, but square."""
        return msgspec.structs.replace(self, resolution=self.resize)

    def __post_init__(self) -> None:
        if not 32 <= self.resolution <= self.resize <= 4096:
            raise BadInput(f"preprocess: expected 32 <= resolution <= resize <= 4096, got {self.resolution} and {self.resize}.")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise BadInput("preprocess: mean and std need three numbers each, std above 0.")

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """A photo of any mode and orientation → `(resolution, resolution, 3)` uint8."""
        image = upright_rgb(image)
        size, (left, top) = self.window(*image.size)
        if size != image.size:
            image = image.resize(size, INTERPOLATIONS[self.interpolation])
        pixels = np.asarray(image.crop((left, top, left + self.resolution, top + self.resolution)))
        return pixels if self.colour == "RGB" else pixels[..., ::-1]

    def window(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The width and height to which a photo is resized, and the left and top of the crop in that; all in pixels."""
        short = max(self.resolution, min(self.resize, width, height))
        new = (width, height)
        if short != min(new):
            new = (max(short, round(width * short / min(width, height))), max(short, round(height * short / min(width, height))))
        return new, ((new[0] - self.resolution) // 2, (new[1] - self.resolution) // 2)

    def to_json(self) -> dict[str, object]:
        return msgspec.structs.asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Preprocess:
        """From what `to_json` gave, after JSON. Raises BadInput that names the field at fault."""
        try:
            return msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise BadInput(f"preprocess: {error}.") from error


@contextlib.contextmanager
def open_photo(photo: Photo) -> Iterator[Image.Image]:
    """A photo, opened. Within the block, which decodes it, whatever goes wrong becomes BadInput with path and reason.

    Raises BadInput as well for a file of another format, and for one whose pixels would take too much memory or time.
    """
    contents = read_photo(photo)
    try:
        with Image.open(io.BytesIO(contents), formats=FORMATS) as image:
            _refuse_oversized(image, contents)
            yield image
    except UnidentifiedImageError as error:
        raise BadInput(f"{photo}: no photo, expected {', '.join(FORMATS)}") from error
    except Exception as error:  # a damaged photo raises nearly anything
        raise BadInput(f"{photo}: {str(error) or type(error).__name__}") from error


def _refuse_oversized(image: Image.Image, contents: bytes) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise BadInput(f"{width} × {height} pixels, expected at most {MOST_PIXELS // 1_000_000} million")
    if max(width, height) > LONGEST * min(width, height):
        raise BadInput(f"{width} × {height} pixels, expected a side at most {LONGEST} times the other")
    if image.format in ("JPEG", "MPO") and contents.count(b"\xff\xda") > MOST_SCANS:
        raise BadInput(f"over {MOST_SCANS} scans, expected a JPEG file of fewer")


def upright_rgb(image: Image.Image) -> Image.Image:
    """The photo in RGB, rotated as its EXIF orientation says; transparent parts become white, 16-bit grey is scaled to 8 bits."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
