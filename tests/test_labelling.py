"""Photos sorted by hand: the page, and the list that it writes."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsers import Browser
from cameras import CHROMIUM, Said, spoken
from conftest import refused
from PIL import Image

from edgeeff import BadInput, Bundle
from edgeeff.data.images import ImageSet
from edgeeff.job import LabelJob
from edgeeff.labelling import KEYS, LabelPage, labelling

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
HTML = "<b>R&D</b>"


def write_photos(folder: Path, count: int) -> dict[str, str]:
    """Photos of one colour each, with the name of that."""
    truth = {f"{i:03d}.png": list(COLOURS)[i * 7 % 5 % 3] for i in range(count)}
    folder.mkdir(exist_ok=True)
    for name, colour in truth.items():
        Image.new("RGB", (64, 48), COLOURS[colour]).save(folder / name)
    return truth


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Six photos, from 000.png to 005.png."""
    write_photos(tmp_path / "frames", 6)
    return tmp_path / "frames"


@contextlib.contextmanager
def sorting(folder: Path, *classes: str, **options: object) -> Iterator[LabelPage]:
    with labelling(LabelJob(folder, classes=classes or tuple(COLOURS), **options)) as page:
        yield page


def asked(page: LabelPage, path: str, method: str = "POST", headers: str | None = None) -> tuple[int, bytes]:
    """Status and body; the headers are the page's own unless given."""
    host = urlsplit(page.url).netloc
    own = f"Host: {host}\r\nOrigin: http://{host}\r\n"
    answer = spoken(page, f"{method} {path} HTTP/1.1\r\n{own if headers is None else headers}Connection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head[9:12]), body


def pressed(page: LabelPage, path: str) -> dict:
    status, body = asked(page, path)
    assert status == 200, body
    return json.loads(body)


def lines(folder: Path) -> list[str]:
    return (folder / "labels.txt").read_text().splitlines()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.slow
def test_a_hundred_key_presses_sort_a_hundred_photos(tmp_path: Path) -> None:
    """Chromium gets the keys as a keyboard gives them, of the class that the picture on its screen has."""
    truth = write_photos(tmp_path / "frames", 100)
    script = """(() => {
        const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }), to = canvas.getContext("2d");
        to.drawImage(document.querySelector("img"), 0, 0, 1, 1);
        const [red, green, blue] = to.getImageData(0, 0, 1, 1).data;
        return red > 128 ? "1" : green > 128 ? "2" : "3";
    })()"""
    with sorting(tmp_path / "frames") as page, Browser(page.url, tmp_path / "profile") as browser:
        for left in range(100, 0, -1):
            browser.wait(f"!busy && state.left === {left}")
            browser.press(browser.value(script), held=left == 50)
        browser.wait("!busy && state.left === 0")
        assert browser.value("document.getElementById('guess').textContent") == "All photos are sorted."
        assert browser.value("document.documentElement.scrollWidth") == 390
        assert browser.complaints == []
    assert lines(tmp_path / "frames") == [f"{name}\t{colour}" for name, colour in truth.items()]
    images = ImageSet.open(tmp_path / "frames")
    assert {photo.name: images.name(label) for photo, label in zip(images.paths, images.labels, strict=True)} == truth


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
@pytest.mark.slow
def test_a_browser_skips_undoes_and_taps_and_shows_names_as_text(frames: Path, tmp_path: Path) -> None:
    with sorting(frames, HTML, "b") as page, Browser(page.url, tmp_path / "profile") as browser:
        browser.wait("!busy && state.photo.number === 0")
        browser.press(" ")
        browser.wait("!busy && state.photo.number === 1")
        browser.value("document.querySelector('#classes button').click()")
        browser.wait("!busy && state.photo.number === 2")
        assert lines(frames) == [f"001.png\t{HTML}"]
        assert browser.value("document.querySelector('#classes button').textContent") == f"1{HTML}"
        assert browser.value("document.querySelectorAll('b').length") == 0
        browser.press("Backspace")
        browser.wait("!busy && state.photo.number === 1")
        browser.press("Backspace")
        browser.wait("!busy && state.photo.number === 0")
        assert lines(frames) == []
        boxes = browser.value("[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect().height)")
        assert min(boxes) >= 40  # pixels that a finger hits


@pytest.mark.slow
def test_a_process_that_is_killed_loses_no_press_and_goes_on_where_it_was(frames: Path) -> None:
    command = [sys.executable, "-m", "edgeeff", "label", str(frames), "--classes", *COLOURS]
    for number, name in enumerate(("red", "green")):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            url = process.stderr.readline().removeprefix("sort the photos at ").strip()
            page = type("Page", (), {"url": url})
            state = json.loads(asked(page, "/state.json", "GET")[1])
            assert state["photo"]["number"] == number
            assert state["last"] == (None if number == 0 else {"name": "000.png", "class": "red"})
            assert asked(page, f"/label?photo={number}&class={number}")[0] == 200
            process.kill()
        assert lines(frames)[number] == f"00{number}.png\t{name}"
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert json.loads(out) == {
        "labels": str(frames / "labels.txt"),
        "photos": 6,
        "classes": {"red": 1, "green": 1, "blue": 0},
        "left": 4,
    }
    assert sorted(p.name for p in frames.iterdir() if p.name.startswith(".")) == []


def test_presses_are_of_the_photo_that_is_shown(frames: Path) -> None:
    with sorting(frames) as page:
        assert pressed(page, "/label?photo=0&class=2")["photo"]["name"] == "001.png"
        assert asked(page, "/label?photo=0&class=1")[0] == 409  # a second browser, or the same request again
        assert pressed(page, "/skip?photo=1")["photo"]["name"] == "002.png"
        assert pressed(page, "/undo")["photo"]["name"] == "001.png"
        assert pressed(page, "/undo")["photo"]["name"] == "000.png"
        assert pressed(page, "/undo")["last"] is None
        assert [asked(page, f"/label?photo=0&class={bad}")[0] for bad in ("3", "-1", "x", "", "9" * 5000)] == [400] * 5
        assert asked(page, "/label?class=0")[0] == 409
        assert asked(page, "/elsewhere?photo=0")[0] == 404
    assert lines(frames) == []


def test_skipped_photos_come_again_at_the_end(frames: Path) -> None:
    with sorting(frames) as page:
        pressed(page, "/skip?photo=0")
        for number in (1, 2, 3, 4, 5):
            state = pressed(page, f"/label?photo={number}&class=0")
        assert (state["photo"]["number"], state["left"]) == (0, 1)
        assert pressed(page, "/skip?photo=0")["photo"]["number"] == 0
        assert pressed(page, "/label?photo=0&class=1")["photo"] is None


def test_only_the_page_itself_can_change_the_list(frames: Path) -> None:
    """A page elsewhere can send a request, but its browser says where that is from; one without that is none of a browser."""
    with sorting(frames) as page:
        host = urlsplit(page.url).netloc
        port = host.rpartition(":")[2]
        for headers in (
            f"Host: {host}\r\n",
            f"Host: {host}\r\nOrigin: null\r\n",
            f"Host: {host}\r\nOrigin: http://evil.example\r\n",
            f"Host: {host}\r\nOrigin: http://127.0.0.1:1\r\n",
            f"Host: {host}\r\nOrigin: http://localhost:{port}\r\n",
            f"Host: {host}\r\nOrigin: http://{host}\r\nOrigin: http://evil.example\r\n",
            f"Host: {host}\r\nReferer: http://{host}/\r\n",
        ):
            assert asked(page, "/label?photo=0&class=0", headers=headers)[0] == 403, headers
        rebound = f"Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}\r\n"
        assert asked(page, "/label?photo=0&class=0", headers=rebound)[0] == 421
        assert asked(page, "/label?photo=0&class=0", method="GET")[0] == 404
        assert not (frames / "labels.txt").exists()
        assert asked(page, "/label?photo=0&class=0")[0] == 200


def test_beyond_this_machine_a_press_needs_the_token(frames: Path) -> None:
    with sorting(frames, web="0.0.0.0:0") as page:
        own = "Host: board:1\r\nOrigin: http://board:1\r\n"
        assert asked(page, "/label?photo=0&class=0", headers=own)[0] == 403
        assert asked(page, f"/label?photo=0&class=0&token={page.token}", headers="Host: board:1\r\n")[0] == 403
        assert asked(page, f"/label?photo=0&class=0&token={page.token}", headers=own)[0] == 200


def test_a_bundle_names_the_classes_and_the_most_uncertain_photo_comes_first(bundle: Bundle, digits: Path, tmp_path: Path) -> None:
    for i, photo in enumerate(sorted(digits.glob("val/*/*.png"))[::30]):
        (tmp_path / f"{i}.png").write_bytes(photo.read_bytes())
    with labelling(LabelJob(tmp_path, bundle=bundle.path)) as page:
        state = json.loads(asked(page, "/state.json", "GET")[1])
        order = []
        while state["photo"]:
            (name, highest), *_ = state["photo"]["guess"]
            assert name in bundle.labels
            order.append(highest)
            state = pressed(page, f"/label?photo={state['photo']['number']}&class=3")
    assert [c["name"] for c in state["classes"]] == list(bundle.labels)
    assert order == sorted(order)
    assert len(order) == 10
    assert ImageSet.open(tmp_path).labelled_for(10, bundle.labels).labels == (3,) * 10


def test_classes_beyond_the_keys_have_a_button_alone(frames: Path) -> None:
    with sorting(frames, *(f"class {i}" for i in range(50))) as page:
        state = json.loads(asked(page, "/state.json", "GET")[1])
        assert [c["key"] for c in state["classes"]] == [*KEYS, *[""] * (50 - len(KEYS))]
        assert pressed(page, "/label?photo=0&class=49")["last"] == {"name": "000.png", "class": "class 49"}


def test_photos_that_cannot_be_read_or_listed_are_named_and_left_out(frames: Path) -> None:
    (frames / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    for odd in ("a\tb.png", "a\nb.png"):
        (frames / odd).write_bytes((frames / "000.png").read_bytes())
    said = Said()
    with labelling(LabelJob(frames, classes=("a", "b")), progress=said) as page:
        assert page.summary.photos == 6
    assert "2 photos have names that a list cannot hold: a\tb.png; a\nb.png. Left out" in said.lines[0]
    assert "broken.jpg" in said.lines[1]


def test_a_list_above_the_photos_names_them_from_there(frames: Path) -> None:
    with sorting(frames, out=frames.parent / "all.txt") as page:
        pressed(page, "/label?photo=0&class=0")
    assert (frames.parent / "all.txt").read_text() == "frames/000.png\tred\n"
    assert [p.name for p in ImageSet.open(frames.parent / "all.txt").paths] == ["000.png"]


def test_what_cannot_be_sorted_is_refused_before_the_page_opens(frames: Path, tmp_path: Path, bundle: Bundle) -> None:
    def refusal(**options: object) -> str:
        with pytest.raises(BadInput) as caught, labelling(LabelJob(**{"folder": frames, "classes": ("red", "blue"), **options})):
            pass
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.jpg").write_bytes(b"no photo")
    assert "no photos directly in it" in refusal(folder=tmp_path / "empty")
    assert "none of its 1 photos can be read" in refusal(folder=tmp_path / "broken")
    assert "no such file or folder" in refusal(folder=tmp_path / "absent")
    assert "nothing says which classes there are" in refusal(classes=())
    assert "is there twice" in refusal(classes=("a", "a"))
    for odd in ("-a", " a", "a\tb", "a\nb", ""):
        assert "Rename it" in refusal(classes=("b", odd))
    assert "'12': a number in a list is that of an output" in refusal(classes=("12",), bundle=bundle.path)
    assert "a list is beside its photos" in refusal(out=tmp_path / "empty/labels.txt")
    assert "ends with .txt" in refusal(out=frames / "labels.csv")
    (frames / "labels.txt").write_text("000.png\tgreen\n")
    assert "labels.txt:1: class 'green' is none of those that are sorted into" in refusal()
    (frames / "labels.txt").write_text("000.png\tred\n000.png\tblue\n")
    assert "labels.txt:2: 000.png: is in the list twice" in refusal()
    (frames / "labels.txt").write_text("000.png red\n")
    assert "labels.txt:1: expected 'file<TAB>class'" in refusal()


def test_two_processes_do_not_sort_into_one_list(frames: Path) -> None:
    with sorting(frames), pytest.raises(BadInput, match="another process sorts into it"), sorting(frames):
        pass


def test_rows_of_other_photos_stay_in_the_list(frames: Path) -> None:
    (frames / "labels.txt").write_text("gone.png\tblue\n001.png\tred\n")
    with sorting(frames) as page:
        pressed(page, "/label?photo=0&class=1")
        pressed(page, "/undo")
        pressed(page, "/undo")
        assert pressed(page, "/undo")["photo"]["number"] == 1
    assert lines(frames) == ["gone.png\tblue"]


@pytest.mark.slow
def test_a_press_that_a_full_disk_does_not_take_is_told_and_not_counted(frames: Path) -> None:
    """Files may hold no byte more than those that are there, as under `ulimit -f 0`."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
        "from edgeeff.cli import main\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", code, "label", str(frames), "--classes", *COLOURS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        page = type("Page", (), {"url": process.stderr.readline().removeprefix("sort the photos at ").strip()})
        assert asked(page, "/label?photo=0&class=0")[0] == 200
        status, body = asked(page, "/label?photo=1&class=0")
        assert (status, b"no space left on its disk" in body) == (507, True)
        assert json.loads(asked(page, "/state.json", "GET")[1])["left"] == 5
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"{frames}/labels.txt: red 1; 5 of 6 photos left\n")
    assert lines(frames) == ["000.png\tred"]


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root may write everywhere, and needs setpriv")
@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_refused_in_one_line(frames: Path) -> None:
    frames.chmod(0o555)
    limited = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    command = [*limited, sys.executable, "-m", "edgeeff", "label", str(frames), "--classes", "a", "b"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    frames.chmod(0o755)
    refused(done, 2, "labels.txt: cannot be written: permission denied")
