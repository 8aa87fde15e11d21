"""The picture with its label in a browser: one page that asks for the newest frame and the figures, again and again.

Nothing is pushed and no connection is held, so a client that is slow, or gone, costs the camera nothing. Pictures and figures are
made ten times a second at most, and only where somebody asks for them. Beyond this machine a token is needed.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .camera import Camera, Result
from .errors import BadInput
from .sources import encoded

LOOPBACK = ("127.0.0.1", "::1", "localhost")
FRESH = 0.1  # seconds for which a picture and figures will do
WIDEST = 960  # pixels of the picture sent
PAGE = Path(__file__).with_name("camera.html")


class Web:
    """A server in threads of its own; give it every result. `where` is PORT or HOST:PORT, `url` what to open."""

    def __init__(self, where: str, camera: Camera) -> None:
        host, _, port = where.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not port.isdecimal() or not 0 <= int(port) < 65536:
            raise BadInput(f"--web {where}: expected PORT or HOST:PORT.")
        self.camera = camera
        self.token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
        self.newest: list[Result | None] = [None] * len(camera.captures)
        self._made: dict[str, tuple[float, float, bytes]] = {}
        self._making = threading.Lock()
        web = self

        class Handler(_Handler):
            owner = web

        try:
            self._server = _Server((host, int(port)), Handler)
        except OSError as error:
            raise BadInput(f"--web {where}: cannot listen there ({error.strerror}). Give another port.") from error
        self.url = f"http://{host}:{self._server.server_address[1]}/" + (f"?token={self.token}" if self.token else "")
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="web", daemon=True)
        self._thread.start()

    def __call__(self, result: Result) -> None:
        index = next(i for i, c in enumerate(self.camera.captures) if c.source.name == result.source)
        self.newest[index] = result

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def state(self) -> bytes:
        """The newest labels and the figures, as JSON."""

        def made() -> bytes:
            labels = [result and result.to_json() for result in self.newest]
            return json.dumps({"newest": labels, "summary": self.camera.summary()}).encode()

        return self._recent("state", time.monotonic(), made)

    def jpeg(self, index: int) -> bytes | None:
        """The newest frame of a source."""
        result = self.newest[index] if 0 <= index < len(self.newest) else None
        if result is None:
            return None
        return self._recent(str(index), result.frame, lambda: encoded(result.pixels, quality=80, widest=WIDEST))

    def _recent(self, what: str, of: float, make: Callable[[], bytes]) -> bytes:
        """Made anew only where it is of something else and older than FRESH, however many ask."""
        with self._making:
            at, before, body = self._made.get(what, (float("-inf"), -1, b""))
            if of != before and time.monotonic() - at > FRESH:
                body = make()
                self._made[what] = time.monotonic(), of, body
        return body


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in mid-answer is no error."""


class _Handler(BaseHTTPRequestHandler):
    owner: Web
    timeout = 10

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.owner.token and not hmac.compare_digest(asked.get("token", "").encode(), self.owner.token.encode()):
            self._answer(403, "text/plain", b"the address needs its token")
        elif url.path == "/":
            self._answer(200, "text/html; charset=utf-8", PAGE.read_bytes())
        elif url.path == "/state.json":
            self._answer(200, "application/json", self.owner.state())
        elif url.path == "/frame.jpg":
            index = asked.get("source", "0")
            jpeg = self.owner.jpeg(int(index)) if index.isdecimal() else None
            self._answer(200 if jpeg else 404, "image/jpeg", jpeg or b"")
        else:
            self._answer(404, "text/plain", b"no such page")

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""
