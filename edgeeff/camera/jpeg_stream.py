"""JPEG pictures out of a stream of bytes that holds one after the other, like Motion JPEG in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from io import FileIO

from ..errors import BadInput

MAX_BYTES = 64 << 20  # of one JPEG
START_OF_IMAGE = b"\xff\xd8\xff"  # with the first byte of the marker that follows
END_OF_IMAGE = b"\xff\xd9"
START_OF_SCAN = 0xDA


def split_jpegs(stream: FileIO) -> Iterator[bytes]:
    """Each complete JPEG as soon as its last byte has been read. Bytes between pictures, and truncated pictures, are skipped.

    Raises BadInput where MAX_BYTES hold no end of a picture.
    """
    data, ended = b"", False
    while not ended:
        chunk = stream.read(1 << 20)
        data, ended = data + chunk, not chunk
        while (start := data.find(START_OF_IMAGE)) >= 0:
            data = data[start:]
            complete, end = _first_jpeg(data)
            if not end and not ended:
                break
            if complete:
                yield data[:end]
            data = data[end or 2 :]
        if len(data) > MAX_BYTES:
            raise BadInput(f"-: found no end of a JPEG within {MAX_BYTES >> 20} MB.")


def _first_jpeg(data: bytes) -> tuple[bool, int]:
    """Whether the JPEG at the start of `data` is complete, and the offset at which to look for the next one; 0 for more data first.

    The segments of the header are skipped by their lengths, as they may hold whole JPEGs themselves (thumbnails).
    Source: ITU-T T.81, annex B.
    """
    at = 2
    while at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return False, 2  # no segment: the picture was truncated before
        at += 1 if marker == 0xFF else 2 + length
        if marker == START_OF_SCAN:  # in what follows, only markers have an FF without a zero after it
            end, next_start = data.find(END_OF_IMAGE, at), data.find(START_OF_IMAGE, at)
            if next_start >= 0 and not 0 <= end < next_start:
                return False, next_start
            return end >= 0, end + 2 if end >= 0 else 0
    return False, 0
