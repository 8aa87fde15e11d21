"""Where frames come from.

    0, /dev/video0, /dev/v4l/…  a V4L2 camera                   csi://0       a Jetson's camera
    rtsp://…, http://…          a stream                        -             JPEG after JPEG on standard input
    photos/                     a folder, in the order of names clip.mp4      a file
    "… ! videoconvert ! appsink"                                a GStreamer pipeline, where OpenCV was built with it

What is live drops frames that come while the model is busy, and is opened again when it fails; folders and files wait for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ..data.frames import Box, Frame
from ..data.images import SUFFIXES
from ..errors import BadInput, ToolMissing, Unreachable

STALLED = 5.0  # seconds without a frame
LARGEST = 64 << 20  # bytes of a JPEG
UNRELATED = 1e9  # seconds between photos, to whatever looks at frames over time
SECRETS = (r"(://[^:/@]*):[^/]*@", r"\1:…@"), (r"(?i)\b((?:user-pw|pwd|pass|password|token)=)[^&\s]+", r"\1…")
CSI = (
    "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM){} ! nvvidconv ! video/x-raw,format={} ! "
    "appsink drop=true max-buffers=1"
)


def opencv() -> Any:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "flags;low_delay|rtsp_transport;tcp")
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ToolMissing("opencv is not installed: pip install 'edgeeff[camera]'") from error
    except ImportError as error:  # JetPack's and Debian's are built for NumPy 1
        beside = f"opencv cannot be loaded beside NumPy {np.__version__} ({error})"
        raise ToolMissing(f"{beside}. Where it is JetPack's, or the system's: pip install 'numpy<2'") from error
    return cv2


class Source:
    """One camera, stream, file or folder; its `name` is the address without a password.

    `size` (width, height) is asked of a V4L2 or CSI camera, which gives what it likes otherwise; `nv12` takes its raw NV12 frames.
    """

    def __init__(self, address: str, *, every: int = 1, nv12: bool = False, size: tuple[int, int] | None = None) -> None:
        self.address, self.every, self.nv12, self.size = address, every, nv12, size
        self.unreadable = 0
        self.pace = UNRELATED  # seconds from frame to frame of what is not live
        self.csi, self.pipeline = address.startswith("csi://"), " ! " in address
        self.stream = address == "-" or self.pipeline or bool(re.match(r"(?i)(?!file:)[a-z]+://", address))
        name = address
        for secret, shown in SECRETS if self.stream else ():
            name = re.sub(secret, shown, name)
        self.name = name
        self.folder = Path(name).is_dir()
        self.device = name.isdecimal() or name.startswith(("/dev/video", "/dev/v4l/"))
        self.live = self.device or self.stream
        if nv12 and not (self.device or self.csi or self.pipeline):
            raise BadInput(f"{name}: gives decoded pictures. --nv12 is for V4L2 and CSI cameras and GStreamer pipelines.")
        if size and not (self.device or self.csi):
            raise BadInput(f"{name}: has a size of its own. --size is for V4L2 and CSI cameras.")
        if not self.live and not Path(name).exists():
            raise BadInput(
                f"{name}: no such file. Expected a camera (0, /dev/video0, csi://0), a stream (rtsp://, http://), a video file, "
                "a folder of photos, - for standard input, or a GStreamer pipeline."
            )
        if self.device and not Path(self.path).exists():
            raise Unreachable(f"{name}: no such camera: there is no {self.path}.")

    @property
    def path(self) -> str:
        return f"/dev/video{self.name}" if self.name.isdecimal() else self.name

    @property
    def lasting(self) -> bool:
        """Whether it is worth opening again when it fails."""
        return self.live and self.name != "-"

    def frames(self, say: Callable[[str], None]) -> Iterator[tuple[float, Frame | None]]:
        """Each frame with the time at which it was there, until the source ends or fails; None for one that is passed over."""
        cv2 = opencv()
        if self.folder:
            return self._photos(cv2, say)
        return self._piped(cv2, say) if self.name == "-" else self._video(cv2, say)

    def leave_out(self, say: Callable[[str], None], what: str) -> None:
        """Counts a frame that is no use, and says so of the first, or of every photo."""
        self.unreadable += 1
        if self.folder or self.unreadable == 1:
            say(f"{what}; left out." if self.folder else f"{self.name}: {what}; left out, as others like it will be.")

    def _video(self, cv2: Any, say: Callable[[str], None]) -> Iterator[tuple[float, Frame | None]]:
        capture = self._opened(cv2)
        try:
            self.pace = 1 / (capture.get(cv2.CAP_PROP_FPS) or 25.0)
            number, read = 0, False
            while capture.grab():
                at, number, pixels = time.monotonic(), number + 1, None
                if (number - 1) % self.every == 0:
                    pixels = self._picture(cv2, capture)
                    if pixels is None:
                        self.leave_out(say, "a frame that holds no picture")
                    read = read or pixels is not None
                yield at, pixels
        finally:
            capture.release()
        if not read:
            kind = Unreachable if self.live else BadInput
            raise kind(f"{self.name}: no frame could be read. Is it a video, in a format that OpenCV reads here?")

    def _picture(self, cv2: Any, capture: Any) -> Frame | None:
        """The frame grabbed last; None for one that is damaged. Raises BadInput for a kind of frames that is no use here."""
        got, raw = capture.retrieve()
        if not got or raw is None or raw.size == 0:
            return None
        planar = raw.ndim == 2 and 2 * len(raw) == 3 * int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        pixels = np.ascontiguousarray(raw) if planar else tidy(cv2, raw)
        if pixels is None or planar != self.nv12:
            kind = "raw NV12 or I420" if planar else f"{raw.dtype} {raw.shape}"
            wanted = (
                "NV12, for --nv12"
                if self.nv12
                else "BGR or grey (… ! videoconvert ! video/x-raw,format=BGR ! appsink), or NV12 with --nv12"
            )
            raise BadInput(f"{self.name}: gives frames of {kind}. Expected {wanted}.")
        return pixels

    def _photos(self, cv2: Any, say: Callable[[str], None]) -> Iterator[tuple[float, Frame | None]]:
        photos = sorted(p for p in Path(self.name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not photos:
            raise BadInput(f"{self.name}: no photos in it. Expected {', '.join(SUFFIXES)}.")
        for number, photo in enumerate(photos):
            at, pixels = time.monotonic(), None
            if number % self.every == 0:
                with contextlib.suppress(OSError):
                    pixels = decoded(cv2, photo.read_bytes())
                if pixels is None:
                    self.leave_out(say, f"{photo}: cannot be read")
            yield at, pixels

    def _piped(self, cv2: Any, say: Callable[[str], None]) -> Iterator[tuple[float, Frame | None]]:
        read = False
        for number, jpeg in enumerate(jpegs(FileIO(0, closefd=False))):
            at, pixels = time.monotonic(), None
            if number % self.every == 0:
                pixels = decoded(cv2, jpeg)
                if pixels is None:
                    self.leave_out(say, "a JPEG that cannot be read")
                read = read or pixels is not None
            yield at, pixels
        if not read:
            raise BadInput("-: no JPEG on standard input. Expected one after the other: ffmpeg -i SRC -c:v mjpeg -f mjpeg - | …")

    def _opened(self, cv2: Any) -> Any:
        if self.csi or self.pipeline:
            capture = self._gstreamer(cv2)
        elif self.device:
            capture = self._v4l2(cv2)
        else:
            wait = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1000 * STALLED)]
            capture = cv2.VideoCapture(self.address, cv2.CAP_FFMPEG, wait)
        if capture.isOpened():
            return capture
        capture.release()
        if self.stream:
            raise Unreachable(f"{self.name}: does not answer, or sends no video. Is the address right, and the camera on?")
        if self.device:
            raise Unreachable(f"{self.name}: cannot be opened as a camera. Is it one, and free?")
        raise BadInput(f"{self.name}: cannot be opened as video. Is it one, in a format that OpenCV reads here?")

    def _gstreamer(self, cv2: Any) -> Any:
        if not any("GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines()):
            raise ToolMissing(f"{self.name}: this OpenCV was built without GStreamer. JetPack's own has it, PyPI's has not.")
        pipeline = self.address
        if self.csi:
            asked = ",width={},height={}".format(*self.size) if self.size else ""
            pipeline = CSI.format(
                self.name.removeprefix("csi://"), asked, "NV12" if self.nv12 else "BGRx ! videoconvert ! video/x-raw,format=BGR"
            )
        return cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)

    def _v4l2(self, cv2: Any) -> Any:
        capture = cv2.VideoCapture(self.path, cv2.CAP_V4L2)
        if not capture.isOpened():
            return capture
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        for side, pixels in zip(sides, self.size or (), strict=False):
            capture.set(side, pixels)
        if self.nv12:
            wanted = cv2.VideoWriter.fourcc(*"NV12")
            capture.set(cv2.CAP_PROP_FOURCC, wanted)
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
            if int(capture.get(cv2.CAP_PROP_FOURCC)) != wanted:
                capture.release()
                raise BadInput(f"{self.name}: gives no NV12. Without --nv12 its frames are converted here.")
        given = tuple(int(capture.get(side)) for side in sides)
        if self.size and given != self.size:
            capture.release()
            raise BadInput(
                "{}: asked for {}×{} pixels, it gives {}×{}. --size: one that it has.".format(self.name, *self.size, *given)
            )
        return capture


def jpegs(stream: FileIO) -> Iterator[bytes]:
    """Each picture of a stream of them as soon as it is whole; what is between them is passed over, and what is cut off."""
    data, ended = b"", False
    while not ended:
        chunk = stream.read(1 << 20)
        data, ended = data + chunk, not chunk
        while (start := data.find(b"\xff\xd8\xff")) >= 0:
            data = data[start:]
            whole, end = _first_jpeg(data)
            if not end and not ended:
                break
            if whole:
                yield data[:end]
            data = data[end or 2 :]
        if len(data) > LARGEST:
            raise BadInput(f"-: no end of a JPEG within {LARGEST >> 20} MB.")


def _first_jpeg(data: bytes) -> tuple[bool, int]:
    """Whether it is whole, and where to look for another, past segments that may hold JPEGs themselves; 0: its end is not there."""
    at = 2
    while at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or marker < 0xC0 or 0xD0 <= marker <= 0xD9:
            return False, 2  # no segment: the one before was cut off
        at += 1 if marker == 0xFF else 2 + length
        if marker == 0xDA:  # start of scan: only markers hold FF without a zero after it
            end, another = data.find(b"\xff\xd9", at), data.find(b"\xff\xd8\xff", at)
            if another >= 0 and not 0 <= end < another:
                return False, another
            return end >= 0, end + 2 if end >= 0 else 0
    return False, 0


def decoded(cv2: Any, data: bytes) -> Frame | None:
    """BGR; None for what is no picture, or one larger than OpenCV takes."""
    try:
        pixels: Frame | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        return None
    return pixels


def tidy(cv2: Any, pixels: Any) -> Frame | None:
    """Frames of whatever depth and channels as 8-bit BGR; None where there is no picture."""
    if pixels is None or pixels.size == 0 or pixels.ndim not in (2, 3):
        return None
    if pixels.dtype != np.uint8:
        pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else np.clip(pixels, 0, 255).astype(np.uint8)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels in (1, 4):
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)
    return pixels if pixels.shape[2] == 3 else None


def encoded(frame: Frame, quality: int, region: Box | None = None, widest: int = 8192) -> bytes:
    """A frame, BGR or NV12, or a region of it, as JPEG of at most so many pixels across."""
    cv2 = opencv()
    pixels = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12) if frame.ndim == 2 else frame
    if region:
        left, top, width, height = region
        pixels = pixels[top : top + height, left : left + width]
    height, width = pixels.shape[:2]
    if width > widest:
        pixels = cv2.resize(pixels, (widest, round(height * widest / width)), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
