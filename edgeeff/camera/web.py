"""The newest frame, its label and the statistics as a page for a browser, which asks for them again and again; and as metrics.

Nothing is pushed to the browser. One answer has a frame's picture with its label, so that a browser never shows the one of another
frame beside the other. One thread answers all clients, so a slow client does not hold up the camera. A frame is encoded, and the
statistics are collected, only when a client asks, and ten times a second at most, however many clients there are. A server that
other machines can reach answers only requests that carry its token. One that only this machine can reach answers only requests for
a name of this machine: a page elsewhere whose own name resolves to this machine (DNS rebinding) gets nothing.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from ..errors import BadInput, ToolMissing
from .loop import Camera
from .metrics import CONTENT_TYPE, exposition
from .opencv import encode_jpeg
from .result import Result

if TYPE_CHECKING:
    from aiohttp import web

T = TypeVar("T")

LOOPBACK = ("127.0.0.1", "::1", "localhost")
NAMES = ("127.0.0.1", "[::1]", "localhost")  # the same in the address of a page
CACHE_SECONDS = 0.1  # a frame and statistics are made again after that
MAX_WIDTH = 960  # pixels of the frame that is sent
MAX_CONNECTIONS = 512  # the oldest one makes way for a new one; half of the descriptors that Linux usually allows
IDLE_TIMEOUT = 10.0  # seconds until a connection without a complete request is closed
SEND_TIMEOUT = 10.0  # seconds that a client has for reading one answer
PAGE = Path(__file__).with_name("camera.html")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # an address may hold the token
    "Server": "edgeeff",
    "X-Content-Type-Options": "nosniff",
}
LOG = logging.getLogger(__name__)  # silent unless the program configures logging
LOG.addHandler(logging.NullHandler())


class PageServer:
    """Serves the page in a thread of its own, from construction until `with` is left. Call it with every result.

    `where` is PORT or HOST:PORT; HOST is 127.0.0.1 by default, and port 0 is any free one. `url` is the address of the page.
    `budget_ms` is the limit to the end-to-end latency that the plot shows, beside the manifest's to that of the model. The camera's
    files play at their own pace, for somebody watches them. Raises BadInput for an address that is malformed or taken, and
    ToolMissing without aiohttp.
    """

    def __init__(self, where: str, camera: Camera, budget_ms: float | None = None) -> None:
        given = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]:|([\w.-]*):)?([0-9]{1,5})", where)
        if not given or int(given[3]) > 65535:
            raise BadInput(f"--web {where}: expected PORT or HOST:PORT, with an IPv6 address as [ADDRESS]:PORT.")
        host, port = given[1] or given[2] or "127.0.0.1", int(given[3])
        try:
            import aiohttp  # noqa: F401
        except ModuleNotFoundError as error:
            raise ToolMissing("aiohttp is not installed: pip install 'edgeeff[camera]', on a Jetson pip install aiohttp") from error
        self.camera, self.budget_ms = camera, budget_ms
        camera.paced = True
        self.token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
        self.newest: list[Result | None] = [None] * len(camera.captures)
        self.page = PAGE.read_bytes()
        self._cache: dict[str, tuple[float, float, Any]] = {}
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listening = socket.create_server((host, port), family=family, backlog=128)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BadInput(f"--web {where}: cannot listen there ({reason}). Give another port.") from error
        shown, port = f"[{host}]" if ":" in host else host, listening.getsockname()[1]
        self.url = f"http://{shown}:{port}/" + (f"?token={self.token}" if self.token else "")
        self._hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: LOG.error(context["message"], exc_info=context.get("exception")))
        self._requests, self._server = self._loop.run_until_complete(self._serve(listening))
        self._thread = threading.Thread(target=self._loop.run_forever, name="web", daemon=True)
        self._thread.start()

    def __call__(self, result: Result) -> None:
        index = next(i for i, c in enumerate(self.camera.captures) if c.source.name == result.source)
        self.newest[index] = result

    def __enter__(self) -> PageServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._stop())
        self._loop.close()

    async def _serve(self, listening: socket.socket) -> tuple[web.Server, asyncio.Server]:
        """Answers requests on a listening socket from now on."""
        from aiohttp import web

        async def answer(request: web.BaseRequest) -> web.Response:
            try:
                status, content_type, body = self._answer(request.method, request.raw_path, request.headers.getall("Host", []))
            except ValueError:
                status, content_type, body = 400, "text/plain", b"not a request"
            response = web.Response(status=status, body=body, headers={**HEADERS, "Content-Type": content_type})
            if (transport := request.transport) is None:
                return response  # the client is gone
            timeout = self._loop.call_later(SEND_TIMEOUT, transport.abort)
            try:
                await response.prepare(request)
                await response.write_eof()
            except ConnectionError:
                pass  # the client is gone, which aiohttp notices too
            finally:
                timeout.cancel()
            return response

        def connect() -> asyncio.Protocol:
            connections = requests.connections
            for oldest in connections[: max(0, len(connections) + 1 - MAX_CONNECTIONS)]:
                if oldest.transport is not None:
                    oldest.transport.abort()
            return requests()

        requests = web.Server(answer, access_log=None, logger=LOG, keepalive_timeout=IDLE_TIMEOUT, lingering_time=0.0)
        return requests, await self._loop.create_server(connect, sock=listening)

    async def _stop(self) -> None:
        """Closes every connection, also where a client has not read its answers."""
        self._server.close()
        for connection in self._requests.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)
        await self._requests.shutdown(1.0)

    def _answer(self, method: str, target: str, hosts: list[str]) -> tuple[int, str, bytes]:
        """Status, content type and body. `hosts` are the request's Host headers. Raises ValueError for a malformed target."""
        if not self.token and (len(hosts) != 1 or hosts[0].lower() not in self._hosts):
            return 421, "text/plain", b"the address needs a name of this machine, like 127.0.0.1, and the port"
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.token and not hmac.compare_digest(query.get("token", "").encode(), self.token.encode()):
            return 403, "text/plain", b"the address needs its token"
        if method != "GET":
            return 405, "text/plain", b"only GET"
        if url.path == "/":
            return 200, "text/html; charset=utf-8", self.page
        if url.path == "/state.json":
            return 200, "application/json", self.state()
        if url.path == "/metrics":
            return 200, CONTENT_TYPE, self.metrics()
        index = query.get("source", "0")
        if url.path == "/frame.jpg" and index.isdecimal() and (jpeg := self.jpeg(int(index))):
            return 200, "image/jpeg", jpeg
        return 404, "text/plain", b"no such page"

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
