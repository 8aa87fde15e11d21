"""Labels on live frames."""

from .loop import Camera, Result

__all__ = ["Camera", "Result"]
