"""Labels on live frames."""

from .loop import Camera
from .options import CameraOptions
from .result import Result
from .sources import Source
from .stats import CameraSummary

__all__ = ["Camera", "CameraOptions", "CameraSummary", "Result", "Source"]
