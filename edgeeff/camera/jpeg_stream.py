"""JPEG pictures out of a stream of bytes that holds one after the other, like Motion JPEG in a pipe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import FileIO

from ..errors import BadInput

MAX_BYTES = 64 << 20  # of one JPEG
START_OF_IMAGE = b"\xff\xd8\xff"  # with the first byte of the marker that follows
SCAN_END = re.compile(rb"\xff\xd9|\xff\xd8\xff")  # in a scan, only markers have an FF without a zero after it
START_OF_SCAN = 0xDA


def split_jpegs(stream: FileIO) -> Iterator[bytes]:
    """Each complete JPEG as soon as its last byte has been read. Bytes between pictures, and truncated pictures, are skipped.

    Raises BadInput where MAX_BYTES hold no end of a picture.
    """
    splitter = _Splitter()
    while chunk := stream.read(1 << 20):
        splitter.data += chunk
        yield from splitter.pictures()
        if len(splitter.data) > MAX_BYTES:
            raise BadInput(f"-: found no end of a JPEG within {MAX_BYTES >> 20} MB.")
    while splitter.data:  # what a truncated picture took for its own may be whole ones
        splitter.skip(2)
        yield from splitter.pictures()


class _Splitter:
    """`data` has what is left of the stream, from the start of a picture on. No byte of a picture is looked at twice."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.skip(0)

    def skip(self, count: int) -> None:
        """Looks for the next picture after that many bytes."""
        del self.data[:count]
        self._at = 2  # of the next segment of the header, or of what has been searched of the scan
        self._in_scan = False

    def pictures(self) -> Iterator[bytes]:
        """Each picture whose end has come."""
        while self._find_scan():
            end = SCAN_END.search(self.data, self._at)
            if end is None:
                self._at = max(self._at, len(self.data) - len(START_OF_IMAGE) + 1)
                return
            truncated = end[0] == START_OF_IMAGE
            if not truncated:
                yield bytes(self.data[: end.end()])
            self.skip(end.start() if truncated else end.end())

    def _find_scan(self) -> bool:
        """Whether the data begins with a picture whose header is complete; one with a header that was truncated is skipped.

        The segments are skipped by their lengths, as they may hold whole JPEGs themselves (thumbnails).
        Source: ITU-T T.81, annex B.
        """
        while not self._in_scan and self._find_start() and self._at + 4 <= len(self.data):
            prefix, marker = self.data[self._at : self._at + 2]
            if prefix != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9:
                self.skip(2)
                continue
            self._at += 1 if marker == 0xFF else 2 + int.from_bytes(self.data[self._at + 2 : self._at + 4], "big")
            self._in_scan = marker == START_OF_SCAN
        return self._in_scan

    def _find_start(self) -> bool:
        """Whether a picture starts in the data, which then begins with it."""
        if self.data.startswith(START_OF_IMAGE):
            return True
        start = self.data.find(START_OF_IMAGE)
        self.skip(start if start >= 0 else max(0, len(self.data) - len(START_OF_IMAGE) + 1))
        return start >= 0
