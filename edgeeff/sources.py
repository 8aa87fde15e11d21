"""Where frames come from. A thread takes them and keeps the newest one only, so a slow model makes no picture old.

    0, /dev/video0            a V4L2 camera                     csi://0       a Jetson's camera
    rtsp://…, http://…        a stream                          -             JPEG after JPEG on standard input
    photos/                   a folder, in the order of names   clip.mp4      a file
    "… ! videoconvert ! appsink"                                a GStreamer pipeline, where OpenCV was built with it

What is live drops frames that come while the model is busy, and is opened again when it fails; folders and files wait for it.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadInput, EdgeeffError, ToolMissing, Unreachable
from .frames import Frame
from .images import SUFFIXES
from .progress import SILENT, Progress

STALLED = 5.0  # seconds without a frame
LARGEST = 64 << 20  # bytes of a JPEG
PATIENCE = (0.5, 8.0)  # seconds before a source is opened again, doubled up to the second
CSI = (
    "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM) ! nvvidconv ! video/x-raw,format=BGRx ! "
    "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
)


def opencv() -> Any:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "flags;low_delay|rtsp_transport;tcp")
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ToolMissing("opencv is not installed: pip install 'edgeeff[camera]'") from error
    return cv2


@dataclass(frozen=True)
class Shot:
    """A frame, and the monotonic seconds at which it was there; `number` counts those before it, dropped ones too."""

    source: int
    number: int
    at: float
    pixels: Frame


class Source:
    """One camera, stream, file or folder; its `name` is the address without a password. `nv12` takes raw NV12 frames."""

    def __init__(self, address: str, *, every: int = 1, nv12: bool = False) -> None:
        self.address, self.every, self.nv12 = address, every, nv12
        self.name = name = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:…@", address)
        self.folder = Path(name).is_dir()
        self.stream = name == "-" or bool(re.match(r"[a-z]+://", name)) or " ! " in name
        self.device = name.isdecimal() or name.startswith("/dev/video")
        self.live = self.device or self.stream
        if not self.live and not Path(name).exists():
            raise BadInput(
                f"{name}: no such file. Expected a camera (0, /dev/video0, csi://0), a stream (rtsp://, http://), a video file, "
                "a folder of photos, - for standard input, or a GStreamer pipeline."
            )
        if self.device and not Path(self.path).exists():
            raise BadInput(f"{name}: no such camera: there is no {self.path}.")

    @property
    def path(self) -> str:
        return f"/dev/video{self.name}" if self.name.isdecimal() else self.name

    @property
    def lasting(self) -> bool:
        """Whether it is worth opening again when it fails."""
        return self.live and self.name != "-"

    def frames(self, say: Callable[[str], None]) -> Iterator[tuple[float, Frame]]:
        """Each `every`th frame with the time at which it was there, until the source ends or fails."""
        cv2 = opencv()
        if self.folder:
            return self._photos(cv2, say)
        return self._piped(cv2, say) if self.name == "-" else self._video(cv2, say)

    def _video(self, cv2: Any, say: Callable[[str], None]) -> Iterator[tuple[float, Frame]]:
        capture = self._opened(cv2)
        try:
            number = 0
            while capture.grab():
                at, number = time.monotonic(), number + 1
                if (number - 1) % self.every == 0:
                    got, pixels = capture.retrieve()
                    if got and (tidied := tidy(cv2, pixels, nv12=self.nv12)) is not None:
                        yield at, tidied
                    else:
                        say(f"{self.name}: a frame that holds no picture was left out.")
        finally:
            capture.release()
        if number == 0:
            raise BadInput(f"{self.name}: no frame could be read. Is it a video, in a format that OpenCV reads here?")

    def _photos(self, cv2: Any, say: Callable[[str], None]) -> Iterator[tuple[float, Frame]]:
        photos = sorted(p for p in Path(self.name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not photos:
            raise BadInput(f"{self.name}: no photos in it. Expected {', '.join(SUFFIXES)}.")
        for photo in photos[:: self.every]:
            at = time.monotonic()
            pixels = cv2.imdecode(np.fromfile(photo, np.uint8), cv2.IMREAD_COLOR) if photo.stat().st_size else None
            if pixels is None:
                say(f"{photo}: cannot be read; left out.")
            else:
                yield at, pixels

    def _piped(self, cv2: Any, say: Callable[[str], None]) -> Iterator[tuple[float, Frame]]:
        number = 0
        for number, jpeg in enumerate(jpegs(FileIO(0, closefd=False)), 1):
            at = time.monotonic()
            if (number - 1) % self.every == 0:
                pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                if pixels is None:
                    say("-: a frame that cannot be read was left out.")
                else:
                    yield at, pixels
        if not number:
            raise BadInput("-: no JPEG on standard input. Expected one after the other: ffmpeg -i SRC -c:v mjpeg -f mjpeg - | …")

    def _opened(self, cv2: Any) -> Any:
        wait = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 10_000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, int(1000 * STALLED)]
        if " ! " in self.name or self.name.startswith("csi://"):
            if not _has_gstreamer(cv2):
                raise ToolMissing(f"{self.name}: this OpenCV was built without GStreamer. JetPack's own has it, PyPI's has not.")
            pipeline = CSI.format(self.name.removeprefix("csi://")) if self.name.startswith("csi://") else self.address
            capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
        elif self.device:
            capture = cv2.VideoCapture(self.path, cv2.CAP_V4L2)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            capture = cv2.VideoCapture(self.address, cv2.CAP_FFMPEG, wait)
        if self.nv12:
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        if capture.isOpened():
            return capture
        capture.release()
        if self.stream:
            raise Unreachable(f"{self.name}: does not answer, or sends no video. Is the address right, and the camera on?")
        raise BadInput(f"{self.name}: cannot be opened as video. Is it one, in a format that OpenCV reads here, and free?")


def jpegs(stream: FileIO) -> Iterator[bytes]:
    """Each picture of a stream of them as soon as it is whole; what is between them is passed over."""
    data = b""
    while chunk := stream.read(1 << 20):
        data += chunk
        while (start := data.find(b"\xff\xd8\xff")) >= 0:
            data = data[start:]
            if (end := _end_of_jpeg(data)) is None:
                break
            yield data[:end]
            data = data[end:]
        if len(data) > LARGEST:
            raise BadInput(f"-: no end of a JPEG within {LARGEST >> 20} MB.")


def _end_of_jpeg(data: bytes) -> int | None:
    """Behind its last marker, past segments that may hold JPEGs themselves; None where it is not there yet."""
    at = 2
    while at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        at += 2 + length
        if marker == 0xDA:  # start of scan: only markers hold FF without a zero after it
            end = data.find(b"\xff\xd9", at)
            return end + 2 if end >= 0 else None
    return None


def tidy(cv2: Any, pixels: Any, *, nv12: bool = False) -> Frame | None:
    """Frames of whatever depth and channels as 8-bit BGR; None where there is no picture."""
    if pixels is None or pixels.size == 0 or pixels.ndim not in (2, 3):
        return None
    if pixels.dtype != np.uint8:
        pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else np.clip(pixels, 0, 255).astype(np.uint8)
    if nv12:
        return np.ascontiguousarray(pixels.reshape(pixels.shape[:2]))
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels in (1, 4):
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)
    return pixels if pixels.shape[2] == 3 else None


def encoded(frame: Frame, quality: int, widest: int = 8192) -> bytes:
    """A frame, BGR or NV12, as JPEG of at most so many pixels across."""
    cv2 = opencv()
    pixels = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12) if frame.ndim == 2 else frame
    height, width = pixels.shape[:2]
    if width > widest:
        pixels = cv2.resize(pixels, (widest, round(height * widest / width)), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def _has_gstreamer(cv2: Any) -> bool:
    return any("GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines())


class Capture:
    """Takes the frames of one source in a thread of its own. `arrived` is notified of each, and of the end."""

    def __init__(self, index: int, source: Source, arrived: threading.Condition, progress: Progress = SILENT) -> None:
        self.index, self.source, self.arrived, self.progress = index, source, arrived, progress
        self.taken = self.dropped = 0
        self.outages: list[float] = []  # seconds each
        self.error: Exception | None = None
        self.ended = False
        self.last = time.monotonic()
        self._newest: Shot | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"capture {source.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        with self.arrived:
            self.arrived.notify_all()

    def join(self) -> None:
        if self._thread.ident:
            self._thread.join(2.0)  # what hangs in a driver is left to end with the process

    def take(self) -> Shot | None:
        """The newest frame, once; `arrived` is held."""
        shot, self._newest = self._newest, None
        if shot and not self.source.live:
            self.arrived.notify_all()
        return shot

    def _run(self) -> None:
        try:
            self._take_frames()
        except Exception as error:  # raised again where the frames are asked for
            self.error = error
        finally:
            with self.arrived:
                self.ended = True
                self.arrived.notify_all()

    def _take_frames(self) -> None:
        """Until the source ends for good; one that is lasting and has worked is opened again and again."""
        pause, lost = PATIENCE[0], 0.0
        while not self._stop.is_set():
            try:
                for at, pixels in self.source.frames(self.progress.say):
                    if lost:
                        self.outages.append(at - lost)
                        self.progress.say(f"{self.source.name}: is back after {at - lost:.1f} s.")
                    pause, lost, self.last = PATIENCE[0], 0.0, at
                    if not self._put(Shot(self.index, self.taken, at, pixels)):
                        return
            except EdgeeffError:
                if not self._will_return:
                    raise
            if not self._will_return:
                return
            if not lost:
                lost = self.last
                self.progress.say(f"{self.source.name}: gives no more frames; trying to open it again.")
            self._stop.wait(pause)
            pause = min(2 * pause, PATIENCE[1])

    @property
    def _will_return(self) -> bool:
        return self.source.lasting and self.taken > 0

    def _put(self, shot: Shot) -> bool:
        """Whether to go on."""
        with self.arrived:
            while self._newest is not None and not self.source.live and not self._stop.is_set():
                self.arrived.wait()
            self.dropped += self._newest is not None
            self.taken += 1
            self._newest = shot
            self.arrived.notify_all()
        return not self._stop.is_set()
