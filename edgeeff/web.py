"""The picture with its label in a browser: one page that asks for the newest frame and the figures, again and again.

Nothing is pushed and no connection is held, so a client that is slow, or gone, costs the camera nothing; a frame is encoded at most
once, and only where somebody asks for it. Beyond this machine a token is needed.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .camera import Camera, Result
from .errors import BadInput
from .sources import opencv

LOOPBACK = ("127.0.0.1", "::1", "localhost")
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
        self._jpegs: dict[int, tuple[int, bytes]] = {}
        self._encoding = threading.Lock()
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def state(self) -> dict[str, Any]:
        return {"newest": [r and r.to_json() for r in self.newest], "summary": self.camera.summary()}

    def jpeg(self, index: int) -> bytes | None:
        """The newest frame of a source, encoded once."""
        result = self.newest[index] if 0 <= index < len(self.newest) else None
        if result is None:
            return None
        with self._encoding:
            number, jpeg = self._jpegs.get(index, (-1, b""))
            if number != result.frame:
                cv2 = opencv()
                pixels = cv2.cvtColor(result.pixels, cv2.COLOR_YUV2BGR_NV12) if self.camera.nv12 else result.pixels
                if pixels.shape[1] > WIDEST:
                    size = (WIDEST, round(pixels.shape[0] * WIDEST / pixels.shape[1]))
                    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
                jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
                self._jpegs[index] = (result.frame, jpeg)
        return jpeg


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
            self._answer(200, "application/json", json.dumps(self.owner.state()).encode())
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
