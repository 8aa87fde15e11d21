"""The picture with its label in a browser: one page that asks for the newest frame and the figures, again and again.

Nothing is pushed, and one thread answers however many ask, so a client that is slow, or gone, costs the camera nothing. Pictures
and figures are made ten times a second at most, and only where somebody asks for them. Beyond this machine a token is needed.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from ..errors import BadInput
from .loop import Camera, Result
from .sources import encoded

LOOPBACK = ("127.0.0.1", "::1", "localhost")
FRESH = 0.1  # seconds for which a picture and figures will do
WIDEST = 960  # pixels of the picture sent
IDLE = 10.0  # seconds after which a connection that asks for nothing is closed
LONGEST = 16384  # bytes of a request's head
UNREAD = 8 << 20  # bytes of answers that a client may leave unread
PAGE = Path(__file__).with_name("camera.html")


class Web:
    """A server in a thread of its own; give it every result. `where` is PORT or HOST:PORT, `url` what to open."""

    def __init__(self, where: str, camera: Camera) -> None:
        host, _, port = where.rpartition(":")
        host = host.strip("[]") or "127.0.0.1"
        if not port.isdecimal() or not 0 <= int(port) < 65536:
            raise BadInput(f"--web {where}: expected PORT or HOST:PORT.")
        self.camera = camera
        self.token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
        self.newest: list[Result | None] = [None] * len(camera.captures)
        self.clients: set[_Client] = set()
        self.page = PAGE.read_bytes()
        self._made: dict[str, tuple[float, float, bytes]] = {}
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, int(port)), family=family, backlog=128)
        except OSError as error:
            raise BadInput(f"--web {where}: cannot listen there ({error.strerror}). Give another port.") from error
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{listening.getsockname()[1]}/" + (f"?token={self.token}" if self.token else "")
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(self._loop.create_server(lambda: _Client(self), sock=listening))
        self._thread = threading.Thread(target=self._loop.run_forever, name="web", daemon=True)
        self._thread.start()

    def __call__(self, result: Result) -> None:
        index = next(i for i, c in enumerate(self.camera.captures) if c.source.name == result.source)
        self.newest[index] = result

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        for client in list(self.clients):
            client.transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def answer(self, head: bytes) -> tuple[str, str, bytes]:
        """Status, type and body for the head of a request. Raises ValueError for what is none."""
        method, target, _ = head.decode("latin-1").partition("\r\n")[0].split(" ")
        url = urlsplit(target)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.token and not hmac.compare_digest(asked.get("token", "").encode(), self.token.encode()):
            return "403 Forbidden", "text/plain", b"the address needs its token"
        if method != "GET":
            return "405 Method Not Allowed", "text/plain", b"only GET"
        if url.path == "/":
            return "200 OK", "text/html; charset=utf-8", self.page
        if url.path == "/state.json":
            return "200 OK", "application/json", self.state()
        index = asked.get("source", "0")
        if url.path == "/frame.jpg" and index.isdecimal() and (jpeg := self.jpeg(int(index))):
            return "200 OK", "image/jpeg", jpeg
        return "404 Not Found", "text/plain", b"no such page"

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
        return self._recent(str(index), result.frame, lambda: encoded(result.pixels, 80, self.camera.region, WIDEST))

    def _recent(self, what: str, of: float, make: Callable[[], bytes]) -> bytes:
        """Made anew only where it is of something else and older than FRESH, however many ask."""
        at, before, body = self._made.get(what, (float("-inf"), -1, b""))
        if of != before and time.monotonic() - at > FRESH:
            body = make()
            self._made[what] = time.monotonic(), of, body
        return body


class _Client(asyncio.Protocol):
    """One connection: GET requests, one after the other."""

    def __init__(self, web: Web) -> None:
        self.web, self.asked = web, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.web.clients.add(self)
        self._wait()

    def _wait(self) -> None:
        self.end = asyncio.get_running_loop().call_later(IDLE, self._idle)

    def _idle(self) -> None:
        if self.transport.get_write_buffer_size():
            self._wait()  # it reads slowly
        else:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.end.cancel()
        self.web.clients.discard(self)

    def data_received(self, data: bytes) -> None:
        self.asked += data
        while b"\r\n\r\n" in self.asked and not self.transport.is_closing():
            head, _, self.asked = self.asked.partition(b"\r\n\r\n")
            try:
                code, kind, body = self.web.answer(head)
            except ValueError:
                code, kind, body = "400 Bad Request", "text/plain", b"not a request"
            fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nCache-Control: no-store\r\n\r\n"
            self.transport.write(f"HTTP/1.1 {code}\r\n{fields}".encode() + body)
            if self.transport.get_write_buffer_size() > UNREAD:
                self.transport.abort()
            self.end.cancel()
            self._wait()
        if len(self.asked) > LONGEST:
            self.transport.abort()
