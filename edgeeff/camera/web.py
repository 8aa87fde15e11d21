"""The newest frame, its label and the statistics as a page for a browser, which asks for them again and again; and as metrics.

One answer has a frame's picture with its label, so that a browser never shows the one of another frame beside the other. A slow
client does not hold up the camera. A frame is encoded, and the statistics are collected, only when a client asks, and ten times a
second at most, however many clients there are.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..page import NO_PAGE, Answer, PageServer
from .loop import Camera
from .metrics import CONTENT_TYPE, exposition
from .opencv import encode_jpeg
from .result import Result

T = TypeVar("T")

CACHE_SECONDS = 0.1  # a frame and statistics are made again after that
MAX_WIDTH = 960  # pixels of the frame that is sent
PAGE = Path(__file__).with_name("camera.html")


class CameraPage(PageServer):
    """The page of a camera. Call it with every result.

    `budget_ms` is the limit to the end-to-end latency that the plot shows, beside the manifest's to that of the model. The camera's
    files play at their own pace, for somebody watches them. Raises BadInput and ToolMissing as PageServer does.
    """

    def __init__(self, where: str, camera: Camera, budget_ms: float | None = None) -> None:
        self.camera, self.budget_ms = camera, budget_ms
        camera.paced = True
        self.newest: list[Result | None] = [None] * len(camera.captures)
        self.page = PAGE.read_bytes()
        self._cache: dict[str, tuple[float, float, Any]] = {}
        super().__init__(where)

    def __call__(self, result: Result) -> None:
        index = next(i for i, c in enumerate(self.camera.captures) if c.source.name == result.source)
        self.newest[index] = result

    def get(self, path: str, query: Mapping[str, str]) -> Answer:
        if path == "/":
            return 200, "text/html; charset=utf-8", self.page
        if path == "/state.json":
            return 200, "application/json", self.state()
        if path == "/metrics":
            return 200, CONTENT_TYPE, self.metrics()
        index = query.get("source", "0")
        if path == "/frame.jpg" and index.isdecimal() and (jpeg := self.jpeg(int(index))):
            return 200, "image/jpeg", jpeg
        return NO_PAGE

    def state(self) -> bytes:
        """The newest labels with their pictures, each source, the budgets and the statistics, as JSON."""

        def make() -> bytes:
            camera = self.camera
            newest = []
            for index in range(len(self.newest)):
                shot = self._shot(index)
                newest.append(shot and {**shot[0].to_json(), "picture": base64.b64encode(shot[1]).decode()})
            sources = [
                {"ended": c.ended, "smooth_s": camera.smoothing(c.source), "threshold": camera.options.threshold}
                for c in camera.captures
            ]
            budgets = {"the model": camera.bundle.manifest.budget.latency_ms, "end-to-end latency": self.budget_ms}
            answer = {"newest": newest, "sources": sources, "budgets_ms": budgets, "summary": camera.summary().to_json()}
            return json.dumps(answer).encode()

        return self._cached("state", time.monotonic(), make)

    def metrics(self) -> bytes:
        """Everything but the pictures, as Prometheus reads it."""
        return self._cached("metrics", time.monotonic(), lambda: exposition(self.camera).encode())

    def jpeg(self, index: int) -> bytes | None:
        """The newest frame of a source; None where there is none."""
        shot = self._shot(index) if 0 <= index < len(self.newest) else None
        return shot and shot[1]

    def _shot(self, index: int) -> tuple[Result, bytes] | None:
        """The newest label of a source, and the JPEG of that very frame; None where there is none."""
        result = self.newest[index]
        if result is None:
            return None
        region = self.camera.options.region
        return self._cached(str(index), result.frame, lambda: (result, encode_jpeg(result.pixels, 80, region, MAX_WIDTH)))

    def _cached(self, key: str, version: float, make: Callable[[], T]) -> T:
        """What `make` gives: called again only for another version, and CACHE_SECONDS after the last time at the earliest."""
        made_at, made_version, made = self._cache.get(key, (float("-inf"), -1, None))
        if version != made_version and time.monotonic() - made_at > CACHE_SECONDS:
            made = make()
            self._cache[key] = time.monotonic(), version, made
        return made  # type: ignore[no-any-return]
