"""A server of one page for browsers: who gets an answer, and how much may be asked of it. What is on the page, a subclass says.

One thread answers all clients, and nothing is pushed to them. A server that other machines can reach answers only requests that
carry its token. One that only this machine can reach answers only requests for a name of this machine: a page elsewhere whose own
name resolves to this machine (DNS rebinding) gets nothing. A request that changes something (POST) is taken only from the page
itself, by the Origin that browsers add to it: a page elsewhere can send one (cross-site request forgery), but not from that origin.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs, urlsplit

from .errors import BadInput, ToolMissing

if TYPE_CHECKING:
    from aiohttp import web

Answer = tuple[int, str, bytes]  # status, content type and body
P = TypeVar("P", bound="PageServer")

LOOPBACK = ("127.0.0.1", "::1", "localhost")
NAMES = ("127.0.0.1", "[::1]", "localhost")  # the same in the address of a page
MAX_CONNECTIONS = 512  # the oldest one makes way for a new one; half of the descriptors that Linux usually allows
IDLE_TIMEOUT = 10.0  # seconds until a connection without a complete request is closed
SEND_TIMEOUT = 10.0  # seconds that a client has for reading one answer
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # an address may hold the token
    "Server": "edgeeff",
    "X-Content-Type-Options": "nosniff",
}
NO_PAGE: Answer = (404, "text/plain", b"no such page")
LOG = logging.getLogger(__name__)  # silent unless the program configures logging
LOG.addHandler(logging.NullHandler())


class PageServer(ABC):
    """Serves a page in a thread of its own, from construction until `with` is left. That thread calls `get` and `post`.

    `where` is PORT or HOST:PORT; HOST is 127.0.0.1 by default, and port 0 is any free one. `url` is the address of the page.
    Raises BadInput for an address that is malformed or taken, and ToolMissing without aiohttp.
    """

    def __init__(self, where: str) -> None:
        given = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]:|([\w.-]*):)?([0-9]{1,5})", where)
        if not given or int(given[3]) > 65535:
            raise BadInput(f"--web {where}: expected PORT or HOST:PORT, with an IPv6 address as [ADDRESS]:PORT.")
        host, port = given[1] or given[2] or "127.0.0.1", int(given[3])
        try:
            import aiohttp  # noqa: F401
        except ModuleNotFoundError as error:
            raise ToolMissing("aiohttp is not installed: pip install 'edgeeff[camera]', on a Jetson pip install aiohttp") from error
        self.token = "" if host in LOOPBACK else secrets.token_urlsafe(16)
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

    @abstractmethod
    def get(self, path: str, query: Mapping[str, str]) -> Answer:
        """What is at a path, which begins with a slash. A ValueError that it raises is the client's fault."""

    def post(self, path: str, query: Mapping[str, str]) -> Answer:
        """What comes of a change that the page itself asks for, as `get`; requests have no body. Here nothing can be changed."""
        return 405, "text/plain", b"only GET"

    def __enter__(self: P) -> P:
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
            hosts, origins = (request.headers.getall(name, []) for name in ("Host", "Origin"))
            try:
                status, content_type, body = self._answer(request.method, request.raw_path, hosts, origins)
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

    def _answer(self, method: str, target: str, hosts: Sequence[str], origins: Sequence[str]) -> Answer:
        """`hosts` and `origins` are the request's headers of these names. Raises ValueError for a malformed target."""
        if not self.token and (len(hosts) != 1 or hosts[0].lower() not in self._hosts):
            return 421, "text/plain", b"the address needs a name of this machine, like 127.0.0.1, and the port"
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if self.token and not hmac.compare_digest(query.get("token", "").encode(), self.token.encode()):
            return 403, "text/plain", b"the address needs its token"
        if method == "GET":
            return self.get(url.path, query)
        if method != "POST":
            return 405, "text/plain", b"only GET and POST"
        if len(origins) != 1 or [origins[0].partition("://")[2]] != list(hosts):
            return 403, "text/plain", b"only the page itself may ask for that"
        return self.post(url.path, query)
