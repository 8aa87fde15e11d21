"""A photo before it is decoded: a file, or a part of one, such as a member of an archive. It is read each time it is needed."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import BadInput
from ..files import failed_disk, read_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
PHOTO_BYTES = 100_000_000
MOST_RATIO = 200  # of what is in a file to its size, above FREE_BYTES; photos hardly shrink
FREE_BYTES = 100_000_000


@dataclass(frozen=True)
class Packed:
    """A photo within a file. `path` is that of the file, then its name in there. `read` raises BadInput where it is damaged."""

    path: Path
    read: Callable[[], bytes] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return str(self.path)

    def relative_to(self, root: Path) -> Path:
        return self.path.relative_to(root)


Photo = Path | Packed


def read_photo(photo: Photo) -> bytes:
    """A photo's bytes, at most PHOTO_BYTES; raises BadInput where it cannot be read."""
    return photo.read() if isinstance(photo, Packed) else read_file(photo, PHOTO_BYTES)


def is_photo(name: str) -> bool:
    """Whether a file of this name is taken for a photo, where no list says which are."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def refuse_large(path: Path, size: int) -> None:
    """Raises BadInput for a photo of over PHOTO_BYTES bytes."""
    if size > PHOTO_BYTES:
        raise BadInput(f"{path}: {size / 1e6:,.1f} MB, expected at most {PHOTO_BYTES / 1e6:g}. Give a smaller file.")


def most_bytes(size: int) -> int:
    """How much a file of that size may hold: more is no set of photos, but made to fill a disk or a memory."""
    return max(FREE_BYTES, MOST_RATIO * size)


@contextlib.contextmanager
def space_for(path: Path) -> Iterator[IO[bytes]]:
    """An anonymous temporary file for what is in the file `path`; a full disk becomes BadInput."""
    try:
        with tempfile.TemporaryFile(prefix="edgeeff-") as file:
            yield file
    except OSError as error:
        if refusal := failed_disk(error, Path(tempfile.gettempdir())):
            raise BadInput(f"{path} is unpacked into a temporary file: {refusal} Or set TMPDIR.") from error
        raise


class Parts:
    """A file that stays open as long as there is a photo in it. Threads read different photos of it at the same time."""

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def photo(self, path: Path, offset: int, size: int) -> Packed:
        """The photo that is `size` bytes from `offset` on."""
        return Packed(path, partial(self._read, path, offset, size))

    def _read(self, path: Path, offset: int, size: int) -> bytes:
        refuse_large(path, size)
        contents = os.pread(self._descriptor, size, offset)
        if len(contents) < size:
            raise BadInput(f"{path}: its file was cut off. Copy it again.")
        return contents
