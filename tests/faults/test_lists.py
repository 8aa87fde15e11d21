"""Lists that name photos or classes (labels.txt, --labels), as text may be: read, or refused with the file and the line."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import Hostile
from PIL import Image
from test_photos import SMALL, little_memory, special

from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.labels import MOST_CLASSES
from edgeeff.errors import BadInput
from edgeeff.weights import read_labels


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos, one of which is a link, beside another folder with a photo."""
    root = tmp_path / "set"
    for path in (root / "a.png", root / "b.png", root / "sub/c.png", tmp_path / "outside/d.png"):
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (40, 40), (len(path.name), 9, 9)).save(path)
    (root / "link.png").symlink_to("../outside/d.png")
    (root / "out").symlink_to("../outside")
    (root / "self").symlink_to(".")
    (root / "loop").symlink_to("loop")
    return root


READ = {
    "CRLF": (b"a.png\t1\r\nb.png\t2\r\n", (1, 2)),
    "BOM": (b"\xef\xbb\xbfa.png\t1\nb.png\t2\n", (1, 2)),
    "blank lines": (b"\n\na.png\t1\n \n\t\nb.png\t2", (1, 2)),
    "a folder": (b"sub/c.png\t0\n", (0,)),
    "a photo that is a link": (b"link.png\t0\n", (0,)),
    "a link to the folder itself": (b"self/a.png\t0\n", (0,)),
    "the largest class": (f"a.png\t{MOST_CLASSES - 1}\n".encode(), (MOST_CLASSES - 1,)),
    "leading zeros": (b"a.png\t007\n", (7,)),
    "spaces": (b"a.png\t 7 \n", (7,)),
    "names": (b"a.png\trose\nb.png\ttulip\n", (0, 1)),
    "a name that is a number among names": (b"a.png\t3000000000\nb.png\ttulip\n", (0, 1)),
    "names of other scripts": ("a.png\tÄpfel\nb.png\t東京\n".encode(), (0, 1)),
}


@pytest.mark.parametrize("case", READ)
def test_lists_that_are_read(hostile: Hostile, photos: Path, case: str) -> None:
    text, labels = READ[case]
    (photos / "labels.txt").write_bytes(text)
    with hostile.harmless(case):
        images = ImageSet.open(photos)
        hostile.expect(images.labels == labels and len(PixelFile(images, SMALL)) == len(labels), case, str(images.labels))


REFUSED = {
    "nothing": b"",
    "blank lines alone": b"\n\r\n \n",
    "no class": b"a.png\n",
    "an empty class": b"a.png\t\n",
    "a class of spaces": b"a.png\t  \n",
    "two tabs": b"a.png\t1\t2\n",
    "a negative class": b"a.png\t-1\n",
    "CR alone": b"a.png\t1\rb.png\t2\r",
    "UTF-16": "a.png\t1\n".encode("utf-16"),
    "Latin-1": b"a.png\tcaf\xe9\n",
    "a surrogate": b"a.png\t\xed\xa0\x80\n",
    "binary": random.Random(0).randbytes(5000),
    "NUL in a file's name": b"a\0.png\t1\n",
    "NUL in a class": b"a.png\trose\0\n",
    "NUL alone": bytes(1000),
    "a bell in a class": b"a.png\trose\x07\n",
    "colours in a class": b"a.png\t\x1b[31mrose\n",
    "U+2028 in a class": "a.png\tro\u2028se\n".encode(),
    "U+0085 in a class": "a.png\tro\u0085se\n".encode(),
    "CR in a class": b"a.png\tro\rse\n",
    "U+2028 in a file's name": "a\u2028.png\t1\n".encode(),
    "U+0085 in a file's name": "a\u0085.png\t1\n".encode(),
    "CR in a file's name": b"a\r.png\t1\n",
    "colours in a file's name": b"\x1b[31ma.png\t1\n",
    "an absolute path": b"/etc/hostname\t1\n",
    "its own absolute path": b"PHOTOS/a.png\t1\n",
    "a parent": b"../outside/d.png\t1\n",
    "a parent and back": b"../set/a.png\t1\n",
    "a parent further on": b"sub/../../outside/d.png\t1\n",
    "a folder that is a link to outside": b"out/d.png\t1\n",
    "a link to itself, and outside": b"self/self/out/d.png\t1\n",
    "a loop": b"loop/a.png\t1\n",
    "a loop as the photo": b"loop\t1\n",
    "no such file": b"z.png\t1\n",
    "a folder as the photo": b"sub\t1\n",
    "the folder itself": b".\t1\n",
    "no name": b"\t1\n",
    "a device": b"../../../../../../../dev/zero\t1\n",
    "a name too long": b"a" * 5000 + b"\t1\n",
    "a deep path": b"sub/" * 3000 + b"c.png\t1\n",
    "a large class": b"a.png\t3000000000\n",
    "a class just too large": f"a.png\t{MOST_CLASSES}\n".encode(),
    "a class of 5000 digits": b"a.png\t" + b"9" * 5000 + b"\n",
    "a class of 5000 zeros and more": b"a.png\t" + b"0" * 5000 + b"1\n",
    "a class of a million digits": b"a.png\t" + b"9" * 1_000_000 + b"\n",
    "a line twice": b"a.png\t1\na.png\t1\n",
    "a file in two classes": b"a.png\trose\nb.png\trose\na.png\ttulip\n",
    "a file twice by another spelling": b"a.png\t1\n./a.png\t2\n",
}


@pytest.mark.parametrize("case", REFUSED)
def test_lists_that_are_refused(hostile: Hostile, photos: Path, tmp_path: Path, case: str) -> None:
    (photos / "labels.txt").write_bytes(REFUSED[case].replace(b"PHOTOS", os.fsencode(tmp_path / "elsewhere")))
    with little_memory(), hostile.raises(BadInput, case):
        ImageSet.open(photos)
    out = tmp_path / "out"
    hostile.refused("fit", "--target", "host-cpu", "--train", photos, "--val", photos, "--out", out, words=("set",), name=case)
    hostile.expect(not out.exists(), case, "wrote something")


@pytest.mark.parametrize(
    "kind", ["pipe", "link to a pipe", "folder", "loop", "itself", "sparse", "/dev/zero", "/dev/full", "/nowhere"]
)
def test_what_is_no_list(hostile: Hostile, photos: Path, kind: str) -> None:
    special(kind, photos / "labels.txt")
    with little_memory(), hostile.raises(BadInput, kind):
        ImageSet.open(photos)
    for read in (read_labels, lambda path, classes: ImageSet.open(path.parent)):
        with little_memory(), hostile.raises(BadInput, kind):
            read(photos / "labels.txt", 10)


def test_lists_with_damaged_bytes(hostile: Hostile, photos: Path) -> None:
    rng, whole = random.Random(1), b"a.png\trose\r\nb.png\ttulip\nsub/c.png\trose\n"
    for number in range(150):
        text = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(min(len(text), rng.choice((0, 1, 3)))):
            text[rng.randrange(len(text))] = rng.choice((0, 9, 10, 13, 27, 46, 47, 0x85, 0xFF, rng.randrange(256)))
        (photos / "labels.txt").write_bytes(text)
        with hostile.harmless((number, bytes(text))):
            ImageSet.open(photos)


def test_a_list_of_many_lines_and_classes_takes_seconds(hostile: Hostile, photos: Path) -> None:
    """A class is found by its name at once, not by going through all of them."""
    names = [f"{i}.png" for i in range(5000)]
    for name in names:
        (photos / name).symlink_to("a.png")
    (photos / "labels.txt").write_text("".join(f"{name}\tclass {name}\n" for name in names))
    with hostile.harmless("many classes"):
        images = ImageSet.open(photos)
        images.labelled_for(5000, tuple(reversed(images.classes)))
    hostile.expect(len(images.classes) == 5000, "many classes")


NAMES: dict[str, Callable[[], bytes]] = {
    "CRLF": lambda: b"rose\r\ntulip\r\niris\r\n",
    "BOM": lambda: b"\xef\xbb\xbfrose\ntulip\niris",
    "too few": lambda: b"rose\ntulip\n",
    "too many": lambda: b"rose\n" * 4,
    "an empty line": lambda: b"rose\n\niris\n",
    "nothing": lambda: b"",
    "UTF-16": lambda: "rose\ntulip\niris\n".encode("utf-16"),
    "Latin-1": lambda: b"caf\xe9\ntulip\niris\n",
    "NUL": lambda: b"ro\0se\ntulip\niris\n",
    "a colour": lambda: b"\x1b[31mrose\ntulip\niris\n",
    "U+2028": lambda: "ro\u2028se\ntulip\niris\n".encode(),
    "U+0085": lambda: "ro\u0085se\ntulip\niris\n".encode(),
    "CR": lambda: b"ro\rse\ntulip\niris\n",
    "a vertical tab": lambda: b"ro\x0bse\ntulip\niris\n",
    "a long line": lambda: b"rose" * 1_000_000,
}


@pytest.mark.parametrize("case", NAMES)
def test_names_of_classes(hostile: Hostile, tmp_path: Path, case: str) -> None:
    (tmp_path / "names.txt").write_bytes(NAMES[case]())
    if case in ("CRLF", "BOM"):
        with hostile.harmless(case):
            assert read_labels(tmp_path / "names.txt", 3) == ("rose", "tulip", "iris")
    else:
        with hostile.raises(BadInput, case):
            read_labels(tmp_path / "names.txt", 3)
