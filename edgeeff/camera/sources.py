"""Where frames come from: one class for each kind of source, which recognizes its own addresses.

A new kind is one subclass of Source, and its place in SOURCES. A live source drops the frames that come while the model is busy,
and is opened again when it fails; folders and files wait for the model.
"""

from __future__ import annotations

import contextlib
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..data.frames import MAX_SIDE, Frame
from ..data.photos import SUFFIXES
from ..errors import BadInput, EdgeeffError, ToolMissing, Unreachable
from ..files import user_path
from .jpeg_stream import split_jpegs
from .opencv import decode_photo, opencv, to_bgr

STALL_TIMEOUT = 5.0  # seconds without a frame after which a live source is reported
OPEN_TIMEOUT = 10.0  # seconds for a stream to answer
MAX_ADDRESS = 4096  # characters; Linux takes no longer path
MAX_PHOTO_BYTES = 256 << 20  # of a file in a folder of photos
PASSWORDS = (
    (r"(://[^:/@\s]*):(?!\d+(?:[/?#\s]|$))\S*@", r"\1:…@"),  # in front of a host; digits and a slash are a port
    (r"(?i)(?<![\w-])([\w-]*(?:pw|pwd|pass|passwd|password|token|secret|key|auth|signature)=)[^&\s]+", r"\1…"),
)
SCHEMES = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")  # FFmpeg has others, which read files

Say = Callable[[str], None]
TimedFrames = Iterator[tuple[float, Frame | None]]


def accepted_addresses() -> str:
    """An example of an address of every kind of source, for help and error messages."""
    return ", ".join(f"{source.example} ({source.kind})" for source in SOURCES)


class Source(ABC):
    """One camera, stream, file or folder. Make one of an address by `Source.of`.

    `name` is the address without passwords. `every` takes each Nth frame only. `size` (width, height) is asked of the camera, and
    `nv12` takes its raw NV12 frames: both are refused (BadInput) by a source that cannot.
    """

    example: ClassVar[str]
    kind: ClassVar[str]
    takes_size: ClassVar[bool] = False
    takes_nv12: ClassVar[bool] = False
    separate_photos: ClassVar[bool] = False  # frames are photos of any sizes, which have nothing to do with each other
    live: bool = True

    def __init__(self, address: str, *, every: int = 1, nv12: bool = False, size: tuple[int, int] | None = None) -> None:
        self.address, self.every, self.nv12, self.size = address, every, nv12, size
        self.name = without_passwords(address) if self.live else address
        self.unreadable = 0
        self.frame_seconds = 0.0  # from one frame to the next, where the source is not live
        if nv12 and not self.takes_nv12:
            takers = ", ".join(source.kind for source in SOURCES if source.takes_nv12)
            raise BadInput(f"{self.name}: gives decoded pictures, not NV12. --nv12 is for: {takers}.")
        if size and not self.takes_size:
            takers = ", ".join(source.kind for source in SOURCES if source.takes_size)
            raise BadInput(f"{self.name}: has a size of its own. --size is for: {takers}.")

    @staticmethod
    def of(address: str, *, every: int = 1, nv12: bool = False, size: tuple[int, int] | None = None) -> Source:
        """The source at an address. Raises BadInput for an unknown address or option, Unreachable for a missing camera."""
        if len(address) > MAX_ADDRESS:
            raise BadInput(f"--source: an address of {len(address)} characters. Expected {MAX_ADDRESS} at most.")
        shown = without_passwords(address)
        if address and "\0" not in address:
            with user_path(shown, "read"):
                for source in SOURCES:
                    if source.accepts(address):
                        return source(address, every=every, nv12=nv12, size=size)
        raise BadInput(f"{shown}: no such file, nor another source. Expected one like: {accepted_addresses()}.")

    @classmethod
    def accepts(cls, address: str) -> bool:
        """Whether `of` makes this class of an address that none before it in SOURCES accepts."""
        return False

    @property
    def reopens(self) -> bool:
        """Whether to open it again after it has ended or failed."""
        return self.live

    @abstractmethod
    def frames(self, say: Say) -> TimedFrames:
        """Each frame, BGR or NV12, with the time.monotonic at which it was captured; None for a frame that is skipped.

        Ends with the source. Raises Unreachable or BadInput when the source fails. `say` is told of frames that cannot be used.
        """

    def skip(self, say: Say, reason: str) -> None:
        """Counts a frame that cannot be used, and says so once; of photos, each time."""
        self.unreadable += 1
        if self.separate_photos:
            say(f"{reason}; skipped.")
        elif self.unreadable == 1:
            say(f"{self.name}: {reason}; skipped, as later ones will be without a message.")


def without_passwords(address: str) -> str:
    """The address with … in place of passwords and tokens."""
    for password, shown in PASSWORDS:
        address = re.sub(password, shown, address)
    return address


class Video(Source):
    """Whatever OpenCV's VideoCapture reads."""

    @abstractmethod
    def _open(self, cv2: Any) -> Any:
        """A cv2.VideoCapture, opened or not."""

    @abstractmethod
    def _open_error(self) -> EdgeeffError:
        """What to raise where it could not be opened."""

    def frames(self, say: Say) -> TimedFrames:
        cv2 = opencv()
        capture = self._open(cv2)
        try:
            if not capture.isOpened():
                raise self._open_error()
            self.frame_seconds = 1 / (capture.get(cv2.CAP_PROP_FPS) or 25.0)
            number, decoded = 0, False
            while capture.grab():
                captured_at, pixels = time.monotonic(), None
                if number % self.every == 0:
                    pixels = self._decode(cv2, capture)
                    if pixels is None:
                        self.skip(say, "a frame could not be decoded")
                decoded = decoded or pixels is not None
                number += 1
                yield captured_at, pixels
        finally:
            capture.release()
        if not decoded:
            failure = Unreachable if self.live else BadInput
            raise failure(f"{self.name}: no frame could be read. Is it a video, in a format that OpenCV reads here?")

    def _decode(self, cv2: Any, capture: Any) -> Frame | None:
        """The frame grabbed last; None for a damaged one. Raises BadInput for frames in another pixel format."""
        if max(capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)) > MAX_SIDE:
            return None  # before it is converted, which takes most of the memory
        got, raw = capture.retrieve()
        if not got or raw is None or raw.size == 0:
            return None
        planar = raw.ndim == 2 and 2 * len(raw) == 3 * int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        pixels = np.ascontiguousarray(raw) if planar else to_bgr(cv2, raw)
        if pixels is None or planar != self.nv12:
            found = "raw NV12 or I420" if planar else f"{raw.dtype} {raw.shape}"
            wanted = "BGR or grey (… ! videoconvert ! video/x-raw,format=BGR ! appsink), or NV12 with --nv12"
            raise BadInput(f"{self.name}: gives frames of {found}. Expected {'NV12, for --nv12' if self.nv12 else wanted}.")
        return pixels


class V4l2Camera(Video):
    """A camera of Linux' Video4Linux2, by its number or path."""

    example, kind = "0 or /dev/video0", "V4L2 camera"
    takes_size = takes_nv12 = True

    def __init__(self, address: str, *, every: int = 1, nv12: bool = False, size: tuple[int, int] | None = None) -> None:
        super().__init__(address, every=every, nv12=nv12, size=size)
        self.path = f"/dev/video{address}" if address.isdecimal() else address
        if not Path(self.path).exists():
            raise Unreachable(f"{self.name}: no such camera: there is no {self.path}.")

    @classmethod
    def accepts(cls, address: str) -> bool:
        return address.isdecimal() or address.startswith(("/dev/video", "/dev/v4l/"))

    def _open(self, cv2: Any) -> Any:
        capture = cv2.VideoCapture(self.path, cv2.CAP_V4L2)
        if not capture.isOpened():
            return capture
        try:
            self._configure(cv2, capture)
        except BadInput:
            capture.release()
            raise
        return capture

    def _configure(self, cv2: Any, capture: Any) -> None:
        """Asks the driver for size and pixel format. Raises BadInput where it sets others."""
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        for side, pixels in zip(sides, self.size or (), strict=False):
            capture.set(side, pixels)
        if self.nv12:
            nv12 = cv2.VideoWriter.fourcc(*"NV12")
            capture.set(cv2.CAP_PROP_FOURCC, nv12)
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            if int(capture.get(cv2.CAP_PROP_FOURCC)) != nv12:
                raise BadInput(f"{self.name}: gives no NV12. Without --nv12, its frames are converted here.")
        width, height = (int(capture.get(side)) for side in sides)
        if self.size and (width, height) != self.size:
            raise BadInput(
                "{}: asked for {}×{} pixels, it gives {}×{}. --size: one that it has.".format(self.name, *self.size, width, height)
            )

    def _open_error(self) -> EdgeeffError:
        return Unreachable(f"{self.name}: cannot be opened as a camera. Is it one, and not used by another program?")


class GStreamerPipeline(Video):
    """A pipeline that ends in an appsink, where OpenCV was built with GStreamer."""

    example, kind = '"… ! videoconvert ! appsink"', "GStreamer pipeline"
    takes_nv12 = True

    @classmethod
    def accepts(cls, address: str) -> bool:
        return " ! " in address

    def _pipeline(self) -> str:
        return self.address

    def _open(self, cv2: Any) -> Any:
        if not any("GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines()):
            raise ToolMissing(f"{self.name}: this OpenCV was built without GStreamer. JetPack's own has it, PyPI's has not.")
        return cv2.VideoCapture(self._pipeline(), cv2.CAP_GSTREAMER)

    def _open_error(self) -> EdgeeffError:
        return Unreachable(f"{self.name}: the pipeline does not start. Is the camera connected, and each element installed?")


class CsiCamera(GStreamerPipeline):
    """A camera at the CSI connector of a Jetson, through NVIDIA's nvarguscamerasrc."""

    example, kind = "csi://0", "CSI camera of a Jetson"
    takes_size = True

    def __init__(self, address: str, *, every: int = 1, nv12: bool = False, size: tuple[int, int] | None = None) -> None:
        super().__init__(address, every=every, nv12=nv12, size=size)
        if not re.fullmatch(r"csi://[0-9]{1,3}", address):
            raise BadInput(f"{self.name}: not a CSI camera. Expected its number: {self.example}.")

    @classmethod
    def accepts(cls, address: str) -> bool:
        return address.startswith("csi://")

    def _pipeline(self) -> str:
        size = ",width={},height={}".format(*self.size) if self.size else ""
        pixels = "NV12" if self.nv12 else "BGRx ! videoconvert ! video/x-raw,format=BGR"
        return (
            f"nvarguscamerasrc sensor-id={self.address.removeprefix('csi://')} ! video/x-raw(memory:NVMM){size} ! "
            f"nvvidconv ! video/x-raw,format={pixels} ! appsink drop=true max-buffers=1"
        )


class NetworkStream(Video):
    """A stream that FFmpeg reads: RTSP, HTTP and others."""

    example, kind = "rtsp://… or http://…", "network stream"

    @classmethod
    def accepts(cls, address: str) -> bool:
        scheme, separator, _ = address.partition("://")
        return bool(separator) and scheme.lower() in SCHEMES

    def _open(self, cv2: Any) -> Any:
        return ffmpeg_capture(cv2, self.address)

    def _open_error(self) -> EdgeeffError:
        return Unreachable(f"{self.name}: does not answer, or sends no video. Is the address right, and the camera on?")


class VideoFile(Video):
    """A file that FFmpeg reads, each frame of it."""

    example, kind = "clip.mp4", "video file"
    live = False

    @classmethod
    def accepts(cls, address: str) -> bool:
        return Path(address).exists()

    def _open(self, cv2: Any) -> Any:
        return ffmpeg_capture(cv2, str(Path(self.address).absolute()))  # FFmpeg takes the name "tcp:…" for an address

    def _open_error(self) -> EdgeeffError:
        return BadInput(f"{self.name}: cannot be opened as video. Is it one, in a format that OpenCV reads here?")


def ffmpeg_capture(cv2: Any, address: str) -> Any:
    """A cv2.VideoCapture that reads a file or a stream by FFmpeg, and does not wait for it without end."""
    timeouts = {cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: OPEN_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC: STALL_TIMEOUT}
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, [n for name, seconds in timeouts.items() for n in (name, int(1000 * seconds))])


class PhotoFolder(Source):
    """The photos of a folder, in the order of their names."""

    example, kind = "photos/", "folder of photos"
    separate_photos = True
    live = False

    def __init__(self, address: str, *, every: int = 1, nv12: bool = False, size: tuple[int, int] | None = None) -> None:
        super().__init__(address, every=every, nv12=nv12, size=size)
        self.frame_seconds = 1e9  # long enough that labels are not smoothed from one photo to the next

    @classmethod
    def accepts(cls, address: str) -> bool:
        return Path(address).is_dir()

    def frames(self, say: Say) -> TimedFrames:
        cv2 = opencv()
        with user_path(self.address, "read"):
            photos = sorted(p for p in Path(self.address).iterdir() if p.suffix.lower() in SUFFIXES)
        if not photos:
            raise BadInput(f"{self.name}: no photos in it. Expected {', '.join(SUFFIXES)}.")
        for number, photo in enumerate(photos):
            captured_at, pixels = time.monotonic(), None
            if number % self.every == 0:
                with contextlib.suppress(OSError):
                    if photo.is_file() and photo.stat().st_size <= MAX_PHOTO_BYTES:  # no pipe, which may never end
                        pixels = decode_photo(cv2, photo.read_bytes())
                if pixels is None:
                    self.skip(say, f"{photo}: cannot be read")
            yield captured_at, pixels


class JpegPipe(Source):
    """JPEG after JPEG on standard input."""

    example, kind = "-", "JPEG after JPEG on standard input"

    @classmethod
    def accepts(cls, address: str) -> bool:
        return address == "-"

    @property
    def reopens(self) -> bool:
        return False

    def frames(self, say: Say) -> TimedFrames:
        cv2 = opencv()
        decoded = False
        for number, jpeg in enumerate(split_jpegs(FileIO(0, closefd=False))):
            captured_at, pixels = time.monotonic(), None
            if number % self.every == 0:
                pixels = decode_photo(cv2, jpeg)
                if pixels is None:
                    self.skip(say, "a JPEG could not be decoded")
            decoded = decoded or pixels is not None
            yield captured_at, pixels
        if not decoded:
            raise BadInput("-: no JPEG on standard input. Expected one after the other: ffmpeg -i SRC -c:v mjpeg -f mjpeg - | …")


SOURCES: tuple[type[Source], ...] = (
    V4l2Camera,
    CsiCamera,
    GStreamerPipeline,
    JpegPipe,
    NetworkStream,
    PhotoFolder,
    VideoFile,
)
"""In the order in which they are asked for an address: the first that accepts it is taken."""
