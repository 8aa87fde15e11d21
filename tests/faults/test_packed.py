"""Archives, tables and lists that nobody should pack: read within bounds, or refused in one line; nothing outside is touched."""

import gzip
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import Hostile
from test_photos import encoded, little_memory, special

from edgeeff.data import archives
from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import BadInput

SMALL = Preprocess(32, 32, (0, 0, 0), (1, 1, 1), "bilinear")
PHOTO = encoded("PNG")
NAMES = {
    "a parent": "../out.png",
    "a parent further on": "rose/../../out.png",
    "an absolute path": "/tmp/out.png",
    "a backslash": "..\\out.png",
    "a name too long": "rose/" + "a" * 5000 + ".png",
    "a thousand folders": "a/" * 1000 + "a.png",
    "a class of two lines": "ro\nse/a.png",
    "a class with colours": "\x1b[31m/a.png",
}


def zipped(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in members:
            archive.writestr(zipfile.ZipInfo(name), contents, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def tarred(*members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "", form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, contents in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(contents), kind if name.startswith("x") else tarfile.REGTYPE, link
            archive.addfile(info, io.BytesIO(contents))
    return file.getvalue()


WHOLE = (("rose/a.png", PHOTO), ("rose/b.png", PHOTO), ("tulip/c.png", PHOTO))
PACKERS: dict[str, Callable[..., bytes]] = {
    "zip": zipped,
    "tar": tarred,
    "tar.gz": lambda *members: gzip.compress(tarred(*members)),
}


def refused(hostile: Hostile, path: Path, name: object) -> None:
    before = sorted(path.parent.parent.rglob("*"))
    with little_memory(), hostile.raises(BadInput, name):
        ImageSet.open(path)
    hostile.expect(sorted(path.parent.parent.rglob("*")) == before, name, "wrote something")


@pytest.mark.parametrize("kind", PACKERS)
def test_names_that_lead_elsewhere(hostile: Hostile, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in" / f"photos.{kind}"
    path.parent.mkdir()
    for case, name in NAMES.items():
        path.write_bytes(PACKERS[kind](*WHOLE, (name, PHOTO)))
        refused(hostile, path, (kind, case))
    path.write_bytes(PACKERS[kind](*WHOLE, ("rose/./a.png", PHOTO)))
    refused(hostile, path, (kind, "twice"))


@pytest.mark.parametrize(
    "type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_members_that_are_no_files(hostile: Hostile, tmp_path: Path, type_: bytes) -> None:
    path = tmp_path / "in/photos.tar"
    path.parent.mkdir()
    path.write_bytes(tarred(*WHOLE, ("x/d.png", b""), kind=type_, link="/etc/hostname"))
    refused(hostile, path, type_)
    link = zipfile.ZipInfo("rose/link.png")
    link.external_attr = 0o120777 << 16
    file = io.BytesIO(zipped(*WHOLE))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(link, "/etc/hostname")
    path = path.with_suffix(".zip")
    path.write_bytes(file.getvalue())
    refused(hostile, path, "a link")


@pytest.mark.slow
def test_bombs(hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in/photos.zip"
    path.write_bytes(zipped(*WHOLE, *((f"rose/{i}.png", bytes(1 << 24)) for i in range(8))))
    refused(hostile, path, "zip of zeros")
    lies = bytearray(zipped(*WHOLE, ("rose/z.png", bytes(1 << 28))))
    for start in (lies.rindex(b"PK\x01\x02") + 24, lies.rindex(b"PK\x03\x04") + 22):
        lies[start : start + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(lies)
    with little_memory(), hostile.harmless("a size that lies"):
        PixelFile(ImageSet.open(path), SMALL, max_corrupt=0.5)
    path = tmp_path / "in/photos.tar.gz"
    path.write_bytes(gzip.compress(tarred(*WHOLE) + bytes(1 << 27), 1))
    refused(hostile, path, "gzip of zeros")
    monkeypatch.setattr(archives, "MOST_MEMBERS", 2)
    for kind, pack in PACKERS.items():
        path = tmp_path / f"in/photos.{kind}"
        path.write_bytes(pack(*WHOLE))
        refused(hostile, path, (kind, "many members"))


def test_headers_of_impossible_sizes(hostile: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "in/photos.tar"
    path.parent.mkdir()
    for size in (-1, -512, 1 << 40, 1 << 70):
        info = tarfile.TarInfo("rose/d.png")
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[124:136] = b"\xff" * 4 + size.to_bytes(8, "big", signed=True) if size < 0 else b"\x80" + size.to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(bytes(header) + tarred(*WHOLE))
        refused(hostile, path, size)
    with path.open("wb") as file:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 1 << 31
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(1 << 32)
    refused(hostile, path, "a header of 2 GB")


@pytest.mark.parametrize("kind", PACKERS)
def test_cut_and_flipped_archives(hostile: Hostile, tmp_path: Path, kind: str) -> None:
    rng, whole, path = random.Random(kind), PACKERS[kind](*WHOLE), tmp_path / "in" / f"photos.{kind}"
    path.parent.mkdir()
    for cut in (0, 1, 2, 30, 511, 512, *rng.sample(range(len(whole) // 2), 10)):
        path.write_bytes(whole[:cut])
        refused(hostile, path, (kind, "cut", cut))
    for number in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 2, 5))):
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with little_memory(), hostile.harmless((kind, "flipped", number)):
            PixelFile(ImageSet.open(path), SMALL, max_corrupt=0.9)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz", ".csv", ".jsonl", ".json"])
@pytest.mark.parametrize("kind", ["pipe", "loop", "sparse", "/dev/zero", "/nowhere"])
def test_what_is_no_file(hostile: Hostile, tmp_path: Path, suffix: str, kind: str) -> None:
    special(kind, tmp_path / f"photos{suffix}")
    with little_memory(), hostile.raises(BadInput, (suffix, kind)):
        ImageSet.open(tmp_path / f"photos{suffix}")


LISTS: dict[str, list[bytes]] = {
    "a.csv": [
        b"",
        b"\xff",
        b"../x.png,1",
        b"/etc/hostname,1",
        b"a.png",
        b"a.png,",
        b"a.png,-1",
        b"a.png,1\na.png,1",
        b"a.png,1,2",
        b'"a.png,1',
        b"file,class\nb.png",
        b"file,class\n",
        b"file,file,class\na.png,a.png,1",
        b"a.png," + b"9" * 5000,
        b'"a\nb.png",1',
        b"a" * 200_000 + b",1",
        b"image,number\na.png,1",
        b"a.png,ro\x07se",
        b"a\0.png,1",
    ],
    "a.jsonl": [
        b"",
        b"{}",
        b"[]",
        b"{",
        b"[" * 5000,
        b'{"file_name": 1, "label": 1}',
        b'{"file_name": "a.png", "label": null}',
        b'{"file_name": "a.png"}',
        b'{"file_name": "../a.png", "label": 1}',
        b'{"file_name": "a.png", "label": true}',
        b'{"file_name": "a.png", "label": "a\\nb"}',
        b'{"file_name": "a.png", "label": 1e400}',
        b'{"file_name": "a.png", "label": "\\ud800"}',
    ],
    "a.json": [
        b"",
        b"{}",
        b"[]",
        b"[" * 5000,
        b'{"images": [], "annotations": [], "categories": []}',
        b'{"images": 1, "annotations": [], "categories": []}',
        *(
            json.dumps({"images": i, "annotations": a, "categories": c}).encode()
            for i, a, c in (
                ([{"id": 1, "file_name": "a.png"}], [], [{"id": 1, "name": "rose"}]),
                ([{"id": 1, "file_name": "../a.png"}], [{"image_id": 1, "category_id": 1}], [{"id": 1, "name": "rose"}]),
                ([{"id": 1, "file_name": "a.png"}], [{"image_id": 2, "category_id": 1}], [{"id": 1, "name": "rose"}]),
                ([{"id": 1, "file_name": "a.png"}], [{"image_id": 1, "category_id": 2}], [{"id": 1, "name": "rose"}]),
                ([{"id": 1, "file_name": "a.png"}] * 2, [{"image_id": 1, "category_id": 1}], [{"id": 1, "name": "rose"}]),
                ([{"id": 1, "file_name": "a.png"}], [{"image_id": 1, "category_id": 1}], [{"id": 1, "name": "ro\nse"}]),
                ([{"id": 1, "file_name": "a.png"}], [{"image_id": 1, "category_id": 1}], [{"id": 1, "name": ""}]),
            )
        ),
    ],
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_that_are_refused(hostile: Hostile, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.png").write_bytes(PHOTO)
    for text in LISTS[name]:
        (tmp_path / name).write_bytes(text)
        with little_memory(), hostile.raises(BadInput, (name, text)):
            ImageSet.open(tmp_path / name)


def test_tables_that_are_refused(hostile: Hostile, tmp_path: Path) -> None:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    image = {"bytes": PHOTO, "path": "/etc/hostname"}
    huggingface = json.dumps({"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}}}})
    tables = {
        "no photos": {"label": [1]},
        "text": {"image": ["a.png"], "label": [1]},
        "two": {"image": [image], "other": [image], "label": [1]},
        "a path alone": {"image": [{"bytes": None, "path": "/etc/hostname"}], "label": [1]},
        "no photo": {"image": [image, None], "label": [1, 1]},
        "out of range": {"image": [image], "label": [2]},
        "negative": {"image": [image], "label": [-1]},
        "no label": {"image": [image, image], "label": [1, None]},
        "a fraction": {"image": [image], "label": [0.5]},
        "a name": {"image": [image], "label": ["a"]},
        "no rows": {"image": pyarrow.array([], pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()}))},
        "a bomb": {"image": [{"bytes": bytes(1 << 22), "path": ""}] * 40, "label": [1] * 40},
    }
    path = tmp_path / "in/photos.parquet"
    path.parent.mkdir()
    for case, columns in tables.items():
        files.write_table(pyarrow.table(columns).replace_schema_metadata({"huggingface": huggingface}), path, compression="zstd")
        before = sorted(tmp_path.rglob("*"))
        with hostile.raises(BadInput, case):
            ImageSet.open(path)
        hostile.expect(sorted(tmp_path.rglob("*")) == before, case, "wrote something")
    files.write_table(pyarrow.table({"image": [image] * 5, "label": [0, 1, 1, 0, 1]}), path)
    whole, rng = path.read_bytes(), random.Random(3)
    for number in range(60):
        damaged = bytearray(whole[: len(whole) if number % 3 else rng.randrange(len(whole))])
        for _ in range(min(len(damaged), 3)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with hostile.harmless(("flipped", number)):
            PixelFile(ImageSet.open(path), SMALL, max_corrupt=0.9)
