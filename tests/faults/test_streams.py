"""Cameras, pipes, folders and servers that send nonsense, too much, or nothing. None needs a model."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import FileIO
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from attempts import Hostile
from cameras import Said

from edgeeff import BadInput, Bundle, EdgeeffError, Unreachable
from edgeeff.camera import Camera, Source
from edgeeff.camera.jpeg_stream import split_jpegs

JPEG = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))[1].tobytes()
START = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
PART = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
GOOD = PART % len(JPEG) + JPEG + b"\r\n"
Serve = Callable[[socket.socket], None]


def sized(width: int, height: int) -> bytes:
    """A JPEG that claims to be so large."""
    jpeg = bytearray(JPEG)
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(jpeg)


@contextlib.contextmanager
def server(serve: Serve) -> Iterator[str]:
    """The address of an HTTP server that answers every request so, in this process, until it is left."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    with client, contextlib.suppress(OSError):
                        client.settimeout(5)
                        client.recv(1 << 16)
                        serve(client)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/video"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def sends(*pieces: bytes) -> Serve:
    return lambda client: client.sendall(b"".join(pieces))


def endless(start: bytes, again: bytes, pause: float = 0.0) -> Serve:
    """Sends the same again and again, for as long as anybody reads."""

    def serve(client: socket.socket) -> None:
        client.sendall(start)
        while True:
            client.sendall(again)
            time.sleep(pause)

    return serve


SERVERS = {
    "nothing": lambda client: client.recv(1),
    "no answer": sends(),
    "garbage": sends(random.Random(5).randbytes(100_000)),
    "no HTTP": sends(b"SSH-2.0-OpenSSH\r\n"),
    "an error": sends(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"),
    "a page": sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>" + b"x" * 10_000),
    "endless headers": endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 1000),
    "an endless header": endless(b"HTTP/1.1 200 OK\r\nA: ", b"b" * 65536),
    "slow headers": endless(b"HTTP/1.1 200 OK\r\nA: ", b"b", 0.05),
    "itself elsewhere, for ever": sends(b"HTTP/1.1 302 Found\r\nLocation: /video\r\n\r\n"),
    "a file elsewhere": sends(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"),
    "a wrong boundary": endless(START, GOOD.replace(b"--frame", b"--other")),
    "no boundary": sends(START.replace(b"; boundary=frame", b""), GOOD * 3),
    "an empty boundary": sends(START.replace(b"boundary=frame", b"boundary="), GOOD * 3),
    "a frame of 4 GB": endless(START + PART % (4 << 30), b"\0" * 65536),
    "a frame of 2 GB": endless(START + PART % ((2 << 30) - 1), JPEG),
    "a frame of less than nothing": sends(START, PART.replace(b"%d", b"-5"), JPEG),
    "a frame of 5000 digits": sends(START, PART.replace(b"%d", b"9" * 5000), JPEG),
    "a frame without end": endless(START + PART.replace(b"Content-Length: %d\r\n", b"") + JPEG[:-2], b"\x55" * 65536),
    "slow bytes": endless(START + PART % len(JPEG), b"\xff", 0.05),
    "a frame cut off": sends(START, GOOD * 2, GOOD[:-500]),
    "damaged frames": sends(START, (PART % len(JPEG) + random.Random(6).randbytes(len(JPEG)) + b"\r\n") * 20),
    "frames of no pixels": sends(START, *[PART % len(JPEG) + sized(0, 0) + b"\r\n"] * 5),
    "a frame of 4 billion pixels": sends(START, *[PART % len(JPEG) + sized(65500, 65500) + b"\r\n"] * 5),
    "frames without a byte": sends(START, (PART % 0 + b"\r\n") * 1000),
    "good frames among bad": sends(START, GOOD, PART % 9 + b"no frame!\r\n", GOOD, GOOD),
    "a playlist of files": sends(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n\r\n#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    ),
    "a playlist of itself": sends(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n\r\n#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/video\n"
    ),
}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for as long as usual."""
    monkeypatch.setattr("edgeeff.camera.sources.OPEN_TIMEOUT", 2.0)
    monkeypatch.setattr("edgeeff.camera.sources.STALL_TIMEOUT", 2.0)
    monkeypatch.setattr("edgeeff.camera.loop.FIRST_FRAME_TIMEOUT", 1.0)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_no_camera(hostile: Hostile, hasty: None, name: str) -> None:
    said = Said()
    with server(SERVERS[name]) as address, hostile.harmless(name):
        seen = [pixels for _, pixels in islice(Source.of(address).frames(said.say), 50)]
        assert all(pixels is None or pixels.shape == (48, 64, 3) for pixels in seen)
        assert len(said.lines) <= 1


def test_an_address_is_no_camera(hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in (
        *(
            "",
            " ",
            "\0",
            "a\0b",
            "\n",
            "\x1b[2J",
            "\udcff",
            "x" * 300,
            "x" * 5000,
            "/" * 5000,
            "../" * 2000,
            "-x",
            "--",
            "---",
            "nul",
        ),
        *(
            "file:///etc/passwd",
            "FILE:///etc/passwd",
            "concat://a|b",
            "concat:a|b",
            "subfile://x",
            "subfile,,start,0,end,9,,:/etc/passwd",
        ),
        *(
            "pipe://0",
            "pipe:0",
            "data://x",
            "data:image/jpeg;base64,/9j/",
            "crypto://x",
            "async:file:///etc/passwd",
            "cache:http://x",
        ),
        *("unix:///run/x", "gopher://x/", "ftp://x/", "tee://x", "md5://x", "javascript://x", "x://y", "://", "http:", "rtsp:/x/y"),
        *("csi://", "csi://x", "csi://-1", "csi://0 ! filesink location=stolen", "csi://0;x", "csi://" + "9" * 5000, "csi://٣"),
    ):
        with hostile.raises(BadInput, address):
            Source.of(address)
    for camera in ("9" * 4000, "99", "٣", "/dev/video9999", "/dev/video/../../nowhere"):
        with hostile.raises(EdgeeffError, camera):
            Source.of(camera)
    assert not list(tmp_path.iterdir())


def test_a_port_is_no_camera(hostile: Hostile, hasty: None) -> None:
    for where in (
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "127.0.0.1:-1",
        "127.0.0.1:x",
        "127.0.0.1:1",
        "[::1",
        "",
        ":",
        "a..b",
        "%00",
        "x" * 300,
    ):
        with hostile.raises(Unreachable, where):
            list(Source.of(f"http://{where}/video").frames(print))


@pytest.mark.slow
def test_a_stream_is_split_in_time_that_grows_with_it(hostile: Hostile, tmp_path: Path) -> None:
    """What was looked at is not looked at again, however the bytes come."""
    generator = random.Random(5)
    header = b"\xff\xd8\xff\xe1\xff\xff"
    streams = {
        "nothing": b"",
        "random bytes": generator.randbytes(4 << 20),
        "starts": b"\xff\xd8\xff" * (256 << 10),
        "ends": b"\xff\xd9" * (2 << 20),
        "fill bytes": b"\xff\xd8" + b"\xff" * (1 << 20),
        "headers": header * (128 << 10),
        "empty segments": (b"\xff\xd8" + b"\xff\xe1\x00\x00" * 100) * 5000,
        "a scan without end": JPEG[:-2] + b"\x55" * (30 << 20),
        "pictures": JPEG * 2000,
        "cut pictures": b"".join(JPEG[: generator.randrange(len(JPEG))] for _ in range(5000)),
    }
    found = {}
    for name, data in streams.items():
        (tmp_path / "stream").write_bytes(data)
        for size in (1 << 20, 4096):
            with hostile.harmless((name, size)), (tmp_path / "stream").open("rb", buffering=0) as stream:
                read = stream.read
                small = type("Pipe", (), {"read": lambda self, _, read=read, size=size: read(size)})()
                found[name, size] = sum(1 for _ in split_jpegs(small))
    assert found["pictures", 4096] == found["pictures", 1 << 20] == 2000
    assert found["nothing", 4096] == found["ends", 4096] == 0


def test_a_picture_without_end_is_given_up(hostile: Hostile, tmp_path: Path) -> None:
    for name, start in {
        "scan": JPEG[:-2],
        "header": b"\xff\xd8\xff\xe1\xff\xff" * 10,
        "thumbnails": b"\xff\xd8\xff\xe1\xff\xff" * 1000,
    }.items():
        with (tmp_path / "stream").open("wb") as file:
            file.write(start)
            file.write(b"\xff\xe1\xff\xff" + b"\0" * 65533 if name == "header" else b"")
            for _ in range(1030):
                file.write(b"\xff\xe1\xff\xff" + b"\0" * 65533 if name == "thumbnails" else b"\x55" * 65536)
        with FileIO(tmp_path / "stream") as stream, hostile.harmless(name):
            list(split_jpegs(stream))


def test_a_folder_of_what_is_no_photo(hostile: Hostile, tmp_path: Path) -> None:
    """Each costs itself only; the good photo is still seen."""
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "a.jpg").mkdir()
    os.mkfifo(odd / "b.jpg")
    (odd / "c.jpg").symlink_to("/dev/zero")
    (odd / "d.jpg").symlink_to("nowhere")
    (odd / "e.jpg").symlink_to("e.jpg")
    with (odd / "f.jpg").open("wb") as sparse:
        sparse.truncate(1 << 40)
    (odd / "g.jpg").write_bytes(b"")
    (odd / "h.jpg").write_bytes(JPEG[:100])
    (odd / "i.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    (odd / "j\n\x1b[2J.jpg").write_bytes(b"no photo")
    (odd / os.fsdecode(b"k\xff.jpg")).write_bytes(b"no photo")
    (odd / "l.jpg").write_bytes(sized(65500, 65500))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(odd / "m.jpg"))
    (odd / "z.jpg").write_bytes(JPEG)
    said = Said()
    with hostile.harmless("odd files"):
        seen = [pixels for _, pixels in Source.of(str(odd)).frames(said.say)]
        assert [pixels is not None for pixels in seen] == [False] * 13 + [True]
        assert len(said.lines) == 13
    for name in ("empty", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other/a.txt").write_text("x")
    for name in ("empty", "other"):
        with hostile.raises(BadInput, name):
            list(Source.of(str(tmp_path / name)).frames(print))


def test_a_file_is_no_film(hostile: Hostile, hasty: None, film: Path, tmp_path: Path) -> None:
    good, generator = film.read_bytes(), random.Random(5)
    films = {f"random{i}.mp4": generator.randbytes(generator.randrange(1, 100_000)) for i in range(10)}
    films |= {f"cut{i}.avi": good[: len(good) * i // 8] for i in range(8)}
    for i in range(10):
        broken = bytearray(good)
        for _ in range(200):
            broken[generator.randrange(len(broken))] = generator.randrange(256)
        films[f"broken{i}.avi"] = bytes(broken)
    films |= {
        "empty.mp4": b"",
        "text.mkv": b"x" * 10_000,
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "list.ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "box.mp4": b"\xff\xff\xff\xffftypisom" + b"\0" * 100,
        "tcp:127.0.0.1:1": b"x",
        "concat:a|b": b"x",
        "-x.mp4": b"x",
        "a\nb.mp4": b"x",
    }
    for name, data in films.items():
        (tmp_path / name).write_bytes(data)
        with hostile.harmless(name):
            list(islice(Source.of(str(tmp_path / name)).frames(Said().say), 100))
    for device in ("/dev/null", "/dev/zero", "/dev/urandom", "/proc/self/mem", "/proc/self/cmdline"):
        with hostile.raises(BadInput, device):
            list(islice(Source.of(device).frames(Said().say), 100))


def test_a_pipe_that_nobody_writes_is_given_up(hostile: Hostile, hasty: None, bundle: Bundle, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with hostile.raises(Unreachable, "a pipe"):
        list(Camera(bundle, [str(tmp_path / "pipe")]))
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK))  # so that its thread ends


STARVED = """
import resource, sys
from itertools import islice
from edgeeff.camera import Source
from edgeeff.errors import EdgeeffError
import cv2  # its threads and libraries are here before the limit
from edgeeff.camera import sources
sources.OPEN_TIMEOUT = sources.STALL_TIMEOUT = 3.0
for line in open("/proc/self/status"):
    if line.startswith("VmSize"):
        now = int(line.split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (now + (700 << 20),) * 2)
for address in sys.argv[1:]:
    try:
        print(sum(pixels is not None for _, pixels in islice(Source.of(address).frames(lambda line: None), 20)))
    except EdgeeffError as error:
        print(type(error).__name__, str(error).isprintable())
"""


@pytest.mark.slow
def test_little_memory_is_enough(hostile: Hostile, tmp_path: Path) -> None:
    """700 MB beside what OpenCV takes itself: a picture of 400 million pixels takes 1200."""
    bombs = tmp_path / "bombs"
    bombs.mkdir()
    (bombs / "a.jpg").write_bytes(sized(20_000, 20_000))
    cv2.imwrite(str(bombs / "b.png"), np.zeros((20_000, 20_000), np.uint8))
    (bombs / "c.jpg").write_bytes(JPEG)
    stream = sized(20_000, 20_000) + JPEG + b"\xff" * (8 << 20) + JPEG + JPEG[:-2] + b"\x55" * (70 << 20)
    (tmp_path / "stream").write_bytes(stream)
    with contextlib.ExitStack() as stack:
        names = ("a frame of 4 GB", "a frame without end", "an endless header")
        addresses = [stack.enter_context(server(SERVERS[name])) for name in names]
        addresses.append(stack.enter_context(server(sends(START, *[PART % len(JPEG) + sized(16_000, 16_000) + b"\r\n"] * 3))))
        command = [sys.executable, "-c", STARVED, str(bombs), "-", *addresses]
        with (tmp_path / "stream").open("rb") as stdin:
            done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=100)
    hostile.expect(done.returncode == 0, "hungry cameras", done.stderr)
    lines = done.stdout.splitlines()
    hostile.expect(lines[0] == "1", "photos too large", done.stdout)
    hostile.expect(lines[1] == "BadInput True", "pictures without end", done.stdout)
    for name, line in zip((*names, "large frames"), lines[2:], strict=True):
        hostile.expect(line.endswith("True") or line == "0", name, line)
