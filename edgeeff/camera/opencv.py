"""OpenCV, imported when it is first needed, and conversions of frames by it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..data.frames import MAX_SIDE, Box, Frame
from ..errors import ToolMissing


def opencv() -> Any:
    """The module cv2: quiet, with low latency and TCP for RTSP, and a limit to the size of a photo.

    Raises ToolMissing where it cannot be imported.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_SIDE**2))
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "flags;low_delay|rtsp_transport;tcp")
    try:
        import cv2
    except ModuleNotFoundError as error:
        raise ToolMissing(
            "opencv is not installed: pip install 'edgeeff[camera]', on a Jetson sudo apt install nvidia-opencv"
        ) from error
    except ImportError as error:  # JetPack's and Debian's OpenCV are built for NumPy 1
        raise ToolMissing(
            f"opencv cannot be loaded beside NumPy {np.__version__} ({error}). "
            "If it is the OpenCV of JetPack or of the system: pip install 'numpy<2'"
        ) from error
    return cv2


def decode_photo(cv2: Any, data: bytes) -> Frame | None:
    """BGR pixels of an encoded photo; None for other data, and for a photo larger than OpenCV decodes."""
    try:
        pixels: Frame | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        return None
    return pixels


def to_bgr(cv2: Any, pixels: Any) -> Frame | None:
    """8-bit BGR of a frame of any depth with 1, 3 or 4 channels (16 bits are scaled, others clipped); None for other arrays."""
    if pixels is None or pixels.size == 0 or pixels.ndim not in (2, 3):
        return None
    if pixels.dtype != np.uint8:
        pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else np.clip(pixels, 0, 255).astype(np.uint8)
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels in (1, 4):
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)
    return pixels if pixels.shape[2] == 3 else None


def encode_jpeg(frame: Frame, quality: int, region: Box | None = None, max_width: int = 8192) -> bytes:
    """A BGR or NV12 frame, or a region of it, as JPEG; shrunk where it is wider than `max_width` pixels."""
    cv2 = opencv()
    pixels = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12) if frame.ndim == 2 else frame
    if region:
        left, top, width, height = region
        pixels = pixels[top : top + height, left : left + width]
    height, width = pixels.shape[:2]
    if width > max_width:
        pixels = cv2.resize(pixels, (max_width, round(height * max_width / width)), interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
