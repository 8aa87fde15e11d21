"""Photos as no camera writes them: each becomes pixels, or is refused by its name in one line, within bounded time and memory."""

import hashlib
import io
import os
import random
import resource
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from attempts import Hostile
from PIL import Image

from edgeeff.data.images import ImageSet, PixelFile, readable
from edgeeff.data.preprocess import LONGEST, MOST_SCANS, Preprocess, open_photo
from edgeeff.errors import BadInput

# As the command line does: a library's warning about a photo that it reads all the same stops nothing.
pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = Preprocess(32, 36, (0, 0, 0), (1, 1, 1), "bilinear")
MEMORY = 1_500_000_000  # bytes that reading one photo may add
NAMES = [
    b"a\nb.png",
    b"a\rb.png",
    b"a\x1b[31mb.png",
    b"a\x07.png",
    b"-rf.png",
    b"--help.png",
    b"a'b\".png",
    b"$(touch x).png",
    b"caf\xe9.png",
    b"\xff\xfe.png",
    "a\u2028b.png".encode(),
    "a\u0085b.png".encode(),
    "a\u202eb.png".encode(),
    "Straße 東京.png".encode(),
    b"a\\b.png",
    b"%s{0}.png",
    b"[red]a.png",
    b"<script>.png",
    b" .png",
    b"a" * 250 + b".png",
]


@contextmanager
def little_memory() -> Iterator[None]:
    """Within the block, this process may take MEMORY more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def encoded(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or noise(0, 48, 40)).save(file, kind, **options)
    return file.getvalue()


def noise(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def pixels(path: Path) -> np.ndarray:
    with open_photo(path) as photo:
        return SMALL(photo)


def png(width: int, height: int, depth: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    """A grey PNG file of any size, black unless it is given rows."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    if rows is None:
        packer = zlib.compressobj(9)
        row = bytes(1 + (width * depth + 7) // 8)
        rows = b"".join(packer.compress(row * 1000) for _ in range(height // 1000))
        rows += packer.compress(row * (height % 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


WHOLE: dict[str, Callable[[], bytes]] = {
    "jpg": lambda: encoded("JPEG"),
    "progressive.jpg": lambda: encoded("JPEG", progressive=True, quality=90),
    "png": lambda: encoded("PNG"),
    "webp": lambda: encoded("WEBP"),
    "bmp": lambda: encoded("BMP"),
    "gif": lambda: encoded("GIF", noise(1, 40, 40).quantize(16)),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_cut_and_flipped_photos_are_read_or_refused(hostile: Hostile, tmp_path: Path, kind: str) -> None:
    whole, path, rng = WHOLE[kind](), tmp_path / f"photo.{kind}", random.Random(kind)
    cuts = [0, 1, 2, 3, 4, 7, 8, 11, 12, 16, 20, 24, 30, *rng.sample(range(len(whole)), 20)]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        with hostile.harmless((kind, "cut", cut)):
            assert pixels(path).shape == (32, 32, 3)
    for number in range(50):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            damaged[rng.randrange(min(len(whole), rng.choice((40, 700, len(whole)))))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with hostile.harmless((kind, "flipped", number)):
            assert pixels(path).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("size", "readable"),
    [
        ((1, 1), True),
        ((1, LONGEST), True),
        ((LONGEST, 1), True),
        ((1, LONGEST + 1), False),
        ((1, 5000), False),
        ((5000, 1), False),
        ((1, 1_000_000), False),
        ((1_000_000, 1), False),
        ((30_000, 30_000), False),
        ((12_000, 12_000), False),
        ((2**31 - 1, 2**31 - 1), False),
        ((0, 5), False),
        ((0, 0), False),
    ],
)
def test_photos_of_extreme_sizes_take_little_memory(
    hostile: Hostile, tmp_path: Path, size: tuple[int, int], readable: bool
) -> None:
    path, (width, height) = tmp_path / "a.png", size
    path.write_bytes(png(width, height, rows=None if width * height < 200_000_000 else zlib.compress(bytes(1000))))
    with little_memory():
        if readable:
            with hostile.harmless(size):
                assert pixels(path).shape == (32, 32, 3)
        else:
            with hostile.raises(BadInput, size):
                pixels(path)


def test_a_jpeg_of_many_scans_is_refused(hostile: Hostile, tmp_path: Path) -> None:
    """Each goes over the whole photo: a small file would take hours."""
    whole = encoded("JPEG", noise(2, 640, 480), progressive=True)
    start = whole.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(whole[:start] + whole[start:-2] * (MOST_SCANS + 1) + whole[-2:])
    with hostile.raises(BadInput, "scans"):
        pixels(tmp_path / "a.jpg")


def frames(kind: str) -> bytes:
    pictures = [noise(seed, 40, 40) for seed in range(4)]
    return encoded(kind, pictures[0], save_all=True, append_images=pictures[1:])


def with_exif(block: bytes) -> bytes:
    return encoded("JPEG", exif=b"Exif\0\0" + block)


def orientation(value: int, kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block whose orientation is of that value, type and count."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x0112, kind, count, value) + bytes(4)


UNUSUAL: dict[str, Callable[[], bytes]] = {
    "cmyk": lambda: encoded("JPEG", Image.new("CMYK", (40, 40), (0, 255, 255, 0))),
    "grey 16 bits": lambda: encoded("PNG", Image.fromarray(np.full((40, 40), 40_000, np.uint16))),
    "colour 16 bits": lambda: png(40, 40, 16, 2, zlib.compress(bytes(40 * (1 + 6 * 40)))),
    "1 bit": lambda: encoded("PNG", Image.new("1", (40, 40))),
    "2 bits": lambda: png(40, 40, 2),
    "grey and alpha": lambda: encoded("PNG", Image.new("LA", (40, 40), (9, 9))),
    "palette with transparent colours": lambda: encoded("PNG", Image.new("P", (40, 40)), transparency=b"\0\x80\xff"),
    "transparent grey": lambda: encoded("PNG", Image.new("L", (40, 40)), transparency=0),
    "animated GIF": lambda: frames("GIF"),
    "animated PNG": lambda: frames("PNG"),
    "animated WebP": lambda: frames("WEBP"),
    "JPEG of two pictures": lambda: frames("MPO"),
    "bitmap upside down": lambda: encoded("BMP", Image.new("RGB", (40, 40))),
    **{f"orientation {n}": (lambda n=n: with_exif(orientation(n))) for n in (0, 1, 6, 8, 9, 65_535)},
    **{f"orientation of type {n}": (lambda n=n: with_exif(orientation(6, n))) for n in (0, 1, 2, 5, 7, 12, 99)},
    "orientation beyond the end": lambda: with_exif(orientation(0xFFFFFF00, 5)),
    "orientation of many values": lambda: with_exif(orientation(6, 3, 2**31)),
    "EXIF without entries": lambda: with_exif(b"II*\0\x08\0\0\0"),
    "EXIF of many entries": lambda: with_exif(b"II*\0\x08\0\0\0\xff\xff"),
    "EXIF of noise": lambda: with_exif(random.Random(1).randbytes(500)),
    "EXIF cut": lambda: with_exif(b"I"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_photos_are_read(hostile: Hostile, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(UNUSUAL[kind]())
    found = None
    with hostile.harmless(kind):
        found = pixels(tmp_path / "a.jpg")
    hostile.expect(found is not None and found.shape == (32, 32, 3), kind)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n(ran) (w) file closefile\nshowpage\n%%EOF\n"
NO_PHOTOS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"no photo\n" * 100,
    "EPS": lambda: POSTSCRIPT,
    "EPS of DOS": lambda: b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(POSTSCRIPT)) + bytes(20) + POSTSCRIPT,
    "PDF": lambda: encoded("PDF"),
    "TIFF": lambda: encoded("TIFF"),
    "ICO": lambda: encoded("ICO"),
    "PPM": lambda: encoded("PPM"),
    "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "XBM": lambda: b"#define a_width 9\n#define a_height 9\nstatic char a_bits[] = {0};",
    "FLI": lambda: bytes(4) + b"\x11\xaf" + bytes(200),
    "WMF": lambda: b"\xd7\xcd\xc6\x9a" + bytes(100),
    "zip": lambda: b"PK\x03\x04" + bytes(100),
    "zeros": lambda: bytes(10_000),
}


@pytest.mark.parametrize("kind", NO_PHOTOS)
def test_files_that_are_no_photos_are_refused_and_no_program_is_started(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("gs", "gswin64c", "convert"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    path = tmp_path / "a.jpg"
    path.write_bytes(NO_PHOTOS[kind]())
    with hostile.raises(BadInput, kind):
        pixels(path)
    hostile.expect(not (tmp_path / "started").exists(), kind, "started a program")


def special(kind: str, path: Path) -> None:
    """A thing of that kind at `path`, where a photo is expected."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(2**40)
    else:
        path.symlink_to({"itself": ".", "link to a pipe": "pipe"}.get(kind, kind))
        if kind == "link to a pipe":
            os.mkfifo(path.with_name("pipe"))


SPECIAL = [
    "pipe",
    "link to a pipe",
    "folder",
    "loop",
    "itself",
    "sparse",
    "/dev/zero",
    "/dev/stdin",
    "/dev/full",
    "/nowhere",
    "/proc",
]


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_neither_hangs_nor_is_read(hostile: Hostile, digits: Path, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    for name in ("1", "2"):
        shutil.copytree(digits / "val" / name, root / name)
    special(kind, root / "1" / "a.jpg")
    images = ImageSet.open(root)
    with little_memory():
        for read in (pixels, lambda path: images.digests, lambda path: PixelFile(images, SMALL), lambda path: readable(images)):
            with hostile.raises(BadInput, kind):
                read(root / "1" / "a.jpg")
        out = tmp_path / "out"
        hostile.refused("fit", "--target", "host-cpu", "--train", root, "--val", digits / "val", "--out", out, words=("a.jpg",))
    hostile.expect(sorted(p.name for p in tmp_path.iterdir()) == ["set"], kind, "left something behind")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_photo_without_permission(hostile: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded("PNG"))
    path.chmod(0)
    with hostile.raises(BadInput, "permission"):
        pixels(path)


@pytest.mark.parametrize("link", [".", "..", "1", "loop", "/", "/proc/self/cwd", "/nowhere"])
def test_links_among_the_class_folders_end(hostile: Hostile, digits: Path, tmp_path: Path, link: str) -> None:
    root = tmp_path / "set"
    for name in ("1", "2"):
        shutil.copytree(digits / "val" / name, root / name)
    (root / "loop").symlink_to(link)
    with hostile.harmless(link):
        assert len(ImageSet.open(root)) in (60, 90)


def test_a_folder_with_the_name_of_a_photo(hostile: Hostile, digits: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(digits / "val" / "1", tmp_path / "set"))
    (root / "x.jpg").mkdir()
    with hostile.raises(BadInput, "x.jpg"):
        ImageSet.open(root)


@pytest.mark.parametrize("name", NAMES)
def test_photos_of_any_name_are_read_and_named_in_one_printable_line(hostile: Hostile, tmp_path: Path, name: bytes) -> None:
    root = tmp_path / "set"
    root.mkdir()
    path = root / os.fsdecode(name)
    path.write_bytes(encoded("PNG"))
    with hostile.harmless(name):
        images = ImageSet.open(root)
        assert images.digests == (hashlib.sha256(path.read_bytes()).hexdigest(),)
        assert len(PixelFile(images, SMALL)) == 1
    path.write_bytes(b"no photo")
    for read in (readable, lambda images: PixelFile(images, SMALL)):
        with hostile.raises(BadInput, name):
            read(ImageSet.open(root))
    train, out = ("--train", root), ("--out", tmp_path / "out")
    hostile.refused("fit", "--target", "host-cpu", *train, "--val", root, *out, words=("unlabelled",))


@pytest.mark.parametrize("name", [n.removesuffix(b".png") for n in NAMES])
def test_class_folders_of_any_name_are_kept_or_refused_at_the_start(hostile: Hostile, tmp_path: Path, name: bytes) -> None:
    root = tmp_path / "set"
    for folder in (os.fsdecode(name), "other"):
        (root / folder).mkdir(parents=True)
        (root / folder / "a.png").write_bytes(encoded("PNG"))
    strange = (any(c in name for c in b"\n\r\x1b\x07\xff\xe9") and b"Stra" not in name) or any(
        separator.encode() in name for separator in ("\u2028", "\u0085")
    )
    if strange:
        with hostile.raises(BadInput, name):
            ImageSet.open(root)
    else:
        with hostile.harmless(name):
            assert len(ImageSet.open(root).classes) == 2


@pytest.mark.parametrize("option", ["--train", "--val", "--test", "--calib", "--out", "--weights", "--labels"])
def test_paths_that_are_not_utf8_are_refused_before_the_work(hostile: Hostile, digits: Path, tmp_path: Path, option: str) -> None:
    """The bundle and its report name them: they could not be written after the whole fit."""
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    if option not in ("--out", "--weights", "--labels"):
        shutil.copytree(digits / "train", strange)
    given = {"--train": digits / "train", "--val": digits / "val", "--out": tmp_path / "out"}
    if option in ("--weights", "--labels"):
        given |= {"--weights": "w.pth", "--calib": digits / "train", "--variant": "b0"}
        del given["--train"]
    words = [word for pair in (given | {option: strange}).items() for word in pair]
    hostile.refused("fit", "--target", "host-cpu", *words, words=("not UTF-8 text",), name=option)
