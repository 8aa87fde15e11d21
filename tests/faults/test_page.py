"""The camera's page among clients that speak no HTTP, speak it badly, or come from a page elsewhere."""

import contextlib
import random
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from attempts import Hostile
from boards import until
from cameras import Fake, at_pace, host_line, serving, spoken

from edgeeff import BadInput, Bundle
from edgeeff.camera import Camera
from edgeeff.camera import web as module
from edgeeff.camera.web import CameraPage
from edgeeff.page import MAX_CONNECTIONS


@pytest.fixture
def web(bundle: Bundle) -> Iterator[CameraPage]:
    with serving(bundle) as (_, page):
        until(lambda: page.newest[0])
        yield page


def asked(web: CameraPage, target: bytes = b"/state.json", headers: bytes = b"") -> bytes:
    """The answer to a request that is as it should be but for its target and what it adds."""
    return spoken(web, b"GET " + target + host_line(web) + headers + b"Connection: close\r\n\r\n")


def good(web: CameraPage) -> bool:
    return asked(web).startswith(b"HTTP/1.1 200 OK")


def malformed(web: CameraPage) -> Iterator[bytes]:
    """What is no request, or one that nobody should answer with more than a refusal."""
    host = host_line(web)
    whole = b"GET /state.json" + host + b"\r\n"
    generator = random.Random(5)
    for length in range(0, len(whole) - 1, 3):
        yield whole[:length]
    for _ in range(60):
        yield generator.randbytes(generator.randrange(1, 3000))
    for _ in range(60):  # a request with some bytes changed in its first line
        broken = bytearray(whole)
        for _ in range(3):
            broken[generator.randrange(4)] = generator.randrange(256)
        yield bytes(broken)
    for method in (
        b"get",
        b"G E T",
        b"",
        b"\0",
        b"GET\r\n",
        b"PRI",
        b"CONNECT",
        b"TRACE",
        b"OPTIONS",
        b"HEAD",
        b"DELETE",
        b"A" * 9000,
    ):
        yield method + b" /" + host + b"\r\n"
    for version in (b"", b" HTTP/0.9", b" HTTP/9.9", b" HTTP/1.1 ", b" HTTP/a.b", b" HTTP/-1", b" http/1.1", b" HTTP/1.1\0"):
        yield b"GET /state.json" + version + b"\r\nHost: evil\r\n\r\n"
    for header in (
        *(
            b"a: " + b"x" * 100_000,
            b"a" * 100_000 + b": x",
            b"a: b\r\n" * 500,
            b": x",
            b"a b: c",
            b"a\0: c",
            b"a: \0",
            b"\xff\xfe: x",
        ),
        *(b" folded", b"a: b\r\n\tfolded", b"a:b\nc:d", b"a\rb: c", b"Content-Length: -1", b"Content-Length: 1" + b"0" * 5000),
        *(b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Content-Length: +5"),
        *(b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: gzip", b"Transfer-Encoding: \x0bchunked"),
        *(b"Host: evil", b"Host:"),
    ):
        yield b"GET /state.json" + host + header + b"\r\n\r\n"
    chunked = b"POST /" + host + b"Transfer-Encoding: chunked\r\n\r\n"
    for body in (b"zz\r\n", b"-1\r\n", b"f" * 40 + b"\r\n", b"5;" + b"x" * 50_000, b"5\r\nabc", b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"):
        yield chunked + body
    for target in (
        b"",
        b"*",
        b"//[",
        b"http://[",
        b"\xff",
        b"/\xc3(",
        b"/\0",
        b"/" + b"a" * 9000,
        b"/ /",
        b"?",
        b"x",
        b"/\r\nX: y",
    ):
        yield b"GET " + target + host + b"\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # TLS
    yield b"\r\n" * 10_000
    yield b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield whole.replace(b"/state.json", b"/") * 3 + generator.randbytes(500)


def test_what_is_no_request_harms_nobody(hostile: Hostile, web: CameraPage, capfd: pytest.CaptureFixture[str]) -> None:
    for number, raw in enumerate(malformed(web)):
        with hostile.harmless(raw[:60]):
            answer = spoken(web, raw, end=True)
            assert b'"newest"' not in answer or raw.startswith(b"GET /state.json HTTP/1.1\r\nHost: 127.0.0.1")
            assert b"Traceback" not in answer
            assert number % 20 or good(web)
    assert good(web)
    assert hostile.tried >= 200
    assert capfd.readouterr().err == ""


def test_a_target_leads_nowhere_but_to_the_pages(hostile: Hostile, web: CameraPage) -> None:
    up = (
        b"/..",
        b"/../../etc/passwd",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/..%2f..%2fetc%2fpasswd",
        b"/%c0%ae%c0%ae/etc/passwd",
        b"/....//",
    )
    odd = (b"/etc/passwd", b"/state.json/", b"/state.json%00", b"//state.json", b"/STATE.JSON", b"/.git/config", b"/camera.html")
    elsewhere = (b"http://evil/etc/passwd", b"file:///etc/passwd", b"/frame.jpg/../etc/passwd", b"\\\\evil\\x")
    for target in (*up, *odd, *elsewhere):
        answer = asked(web, target)
        hostile.expect(answer[9:12] in (b"400", b"404"), target, repr(answer[:80]))
    for source in (
        b"-1",
        b"9" * 5000,
        b"1e9",
        b"0x0",
        b"%00",
        b"\xd9\xa3",
        b"%D9%A3",
        b"1.0",
        b"+0",
        b" 0",
        b"0&source=1" * 200,
        b"",
        b"nan",
    ):
        answer = asked(web, b"/frame.jpg?source=" + source)
        hostile.expect(answer[9:12] in (b"400", b"404") or source in (b"", b"0&source=1" * 200), source, repr(answer[:80]))


def test_only_names_of_this_machine_are_answered(hostile: Hostile, web: CameraPage) -> None:
    """A page elsewhere whose name resolves to 127.0.0.1 (DNS rebinding) sends its own name."""
    port = urlsplit(web.url).port
    for own in ("127.0.0.1", "localhost", "LocalHost", "[::1]"):
        answer = spoken(web, f"GET /state.json HTTP/1.1\r\nHost: {own}:{port}\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 200"), own
    for foreign in (
        *(
            "evil.example",
            f"evil.example:{port}",
            f"localhost.evil.example:{port}",
            f"127.0.0.1.evil.example:{port}",
            f"localhost.:{port}",
        ),
        *(
            "localhost",
            "127.0.0.1",
            f"localhost:{port + 1}",
            f"127.0.0.2:{port}",
            f"0.0.0.0:{port}",
            f"[::]:{port}",
            f"2130706433:{port}",
        ),
        *(
            f"user@localhost:{port}",
            f"localhost:{port}@evil.example",
            f"localhost:{port}, evil.example",
            f"localhost:{port}/",
            "",
            ":",
        ),
        *(f"evil.example\r\nHost: localhost:{port}", f"localhost:{port}\r\nHost: evil.example", f"localhost:0{port}"),
    ):
        for page in ("/", "/state.json", "/frame.jpg", f"http://localhost:{port}/state.json"):
            raw = f"GET {page} HTTP/1.1\r\nHost: {foreign}\r\nConnection: close\r\n\r\n"
            answer = spoken(web, raw.encode())
            hostile.expect(answer[9:12] in (b"421", b"400"), (foreign, page), repr(answer[:60]))
    answer = spoken(web, b"GET /state.json HTTP/1.0\r\n\r\n")
    hostile.expect(answer[9:12] == b"421", "no Host at all", repr(answer[:60]))


def test_with_a_token_nothing_else_opens_the_page(hostile: Hostile, bundle: Bundle) -> None:
    with CameraPage("0.0.0.0:0", Camera(bundle, [Fake("pictures", at_pace(30))])) as web:
        token, generator = web.token, random.Random(5)
        right = spoken(web, f"GET /state.json?token={token} HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n".encode())
        assert right.startswith(b"HTTP/1.1 200")
        wrong = [
            "",
            token[:-1],
            f"{token}x",
            token.swapcase(),
            f"%00{token}",
            f"x&token={token}",
            "%ff",
            "\xe9",
            "a" * 5000,
            f"{token}%0a",
        ]
        wrong += ["".join(generator.choices(token, k=len(token))) for _ in range(20)]
        for tried in wrong:
            raw = f"GET /state.json?token={tried} HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n"
            answer = spoken(web, raw.encode("latin1"))
            hostile.expect(answer[9:12] in (b"403", b"400"), tried, repr(answer[:60]))


def test_every_answer_tells_browsers_to_keep_to_it(web: CameraPage) -> None:
    for target in (b"/", b"/state.json", b"/frame.jpg", b"/nowhere"):
        head = asked(web, target).partition(b"\r\n\r\n")[0].decode()
        assert "X-Content-Type-Options: nosniff" in head
        assert "Referrer-Policy: no-referrer" in head  # the address may hold the token
        assert "Content-Security-Policy: default-src 'none'" in head
        assert "frame-ancestors 'none'" in head
        assert "Access-Control-Allow-Origin" not in head


def test_the_page_puts_names_on_the_screen_as_text_only() -> None:
    page = module.PAGE.read_text()
    assert not [way for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "DOMParser") if way in page]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_page_goes_on_among_many_that_say_nothing(hostile: Hostile, web: CameraPage, capfd: pytest.CaptureFixture[str]) -> None:
    """More at once than there may be connections: the oldest make way, and none is left at the end."""
    url, generator = urlsplit(web.url), random.Random(5)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2000:
        pytest.skip("too few descriptors are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2000), limits[1]))
    before = descriptors()
    try:
        with contextlib.ExitStack() as clients:
            for number in range(700):
                client = clients.enter_context(socket.create_connection((url.hostname, url.port), timeout=5))
                with contextlib.suppress(ConnectionError):
                    client.sendall(b"" if number % 11 else generator.randbytes(1000))
                if number % 50 == 0:
                    hostile.expect(good(web), f"a good client after {number} others")
            hostile.expect(good(web), "a good client among 700")
            until(lambda: descriptors() - before - 700 <= MAX_CONNECTIONS + 1)
            hostile.expect(True, "no more connections than may be")
        until(lambda: descriptors() <= before)
        hostile.expect(good(web), "a good client after all have gone")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert capfd.readouterr().err == ""


def test_a_client_may_not_send_without_end(hostile: Hostile, web: CameraPage) -> None:
    """Neither after an upgrade that was not agreed on, nor as a body, nor as a header."""
    host = host_line(web)
    upgrade = (
        b"GET /" + host + b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    body = b"POST /" + host + b"Content-Length: 1000000000000\r\n\r\n"
    chunks = b"POST /" + host + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n"
    url = urlsplit(web.url)
    for begun in (upgrade, body, chunks, b"GET /" + host + b"a: ", b"GET /", b""):
        client = socket.create_connection((url.hostname, url.port), timeout=5)
        with hostile.harmless(begun), client, contextlib.suppress(ConnectionError, TimeoutError):
            client.sendall(begun)
            for _ in range(400):
                client.sendall(b"x" * (1 << 20))
            raise AssertionError("400 MB were taken")
    assert good(web)


def test_an_address_to_listen_at_is_one(hostile: Hostile, bundle: Bundle) -> None:
    camera = Camera(bundle, [Fake("pictures", at_pace(30))])
    for where in (
        *(
            "",
            ":",
            "x",
            "-1",
            "65536",
            "8" * 5000,
            "٣",
            "1e3",
            " 8080",
            "8080 ",
            "80\n",
            "[::1]",
            "[::1:0",
            "::1:0",
            "[evil]:0",
            "a..b:0",
        ),
        *(
            "a" * 300 + ":0",
            "\0:0",
            "-x:0",
            "ho st:0",
            "host/:0",
            "\x1b[2J:0",
            "http://x:0",
            "user@x:0",
            "256.256.256.256:0",
            "\udcff:0",
        ),
    ):
        with hostile.raises(BadInput, where), CameraPage(where, camera):
            pass


def test_the_page_file_is_the_one_that_is_served(web: CameraPage) -> None:
    assert asked(web, b"/").endswith(Path(module.PAGE).read_bytes())
