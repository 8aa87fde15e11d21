"""Names of classes, files and sources as a hostile bundle, folder or machine may choose them, wherever they are shown."""

import io
import json
import sys
import urllib.request
from dataclasses import replace

import pytest
from attempts import Hostile
from cameras import Fake, at_pace, result
from pages import Reader

from edgeeff import BadInput, Bundle
from edgeeff.bundle import DIAGNOSTICS
from edgeeff.camera import Camera
from edgeeff.camera.result import FrameLabel
from edgeeff.camera.sinks import JsonLines, LabelChanges, MqttAddress
from edgeeff.camera.sources import Source, without_passwords
from edgeeff.camera.stats import PARTS, CameraSummary, LatencyPercentiles, SourceSummary
from edgeeff.camera.web import CameraPage
from edgeeff.cli import tables
from edgeeff.diagnostics import Diagnostics
from edgeeff.errors import printable
from edgeeff.progress import TerminalProgress
from edgeeff.records import read_json
from edgeeff.report import html

NAMES = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!--",
    "]]>",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b[H\x1b]0;title\x07",
    "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m",
    "a\nedgeeff: done",
    "a\r\x1b[Kb",
    "a\u2028b\u2029c\x85d",
    "\u202eevil\u202c",
    "\x00",
    "\x08" * 10,
    "\udcff\ud800",
    "[/]",
    "[bold red]loud[/bold red]",
    "[link=http://evil]x[/link]",
    ":warning:",
    "%s %d %n",
    "\\",
    "👩‍👩‍👧" * 3,
    "ﷺ" * 500,
    "x" * 70_000,
    "",
    " ",
)


class Terminal(io.StringIO):
    """Standard output as tables see it, where it is a terminal."""

    def isatty(self) -> bool:
        return True


def figures(name: str) -> CameraSummary:
    """Of two sources, since one of several is marked."""
    known = LatencyPercentiles(1.0, 2.0, 3.0)
    row = SourceSummary(name, 9, 8, 1, 0, 7.5, known, dict.fromkeys(PARTS, known), (1.5,), 0.0, name)
    return CameraSummary((row, replace(row, source="b")), 9.0, None)


def escapes(text: str) -> list[str]:
    """What a terminal would act on beside line breaks and the styles that tables have themselves."""
    for style in ("\x1b[1m", "\x1b[0m", "\x1b[2m"):
        text = text.replace(style, "")
    return [c for c in text if not c.isprintable() and c != "\n"]


def test_names_reach_a_terminal_as_text(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        label = FrameLabel(f"rtsp://{name}", 0, 1.0, name, ((name, 0.5),), 1.0, 0.5, 0.5)
        for out in (io.StringIO(), Terminal()):
            monkeypatch.setattr(sys, "stdout", out)
            monkeypatch.setattr(sys, "stderr", out)
            with hostile.harmless(name):
                LabelChanges()(label)
                TerminalProgress().say(name)
                assert out.getvalue().count("\n") == 2
                tables.cameras(figures(name))
                assert escapes(out.getvalue()) == []
            error = BadInput(f"{name}: no such class.")
            hostile.expect(str(error).isprintable(), name, str(error))


def test_what_can_be_printed_stays_as_it_is() -> None:
    for text in ("rose", "Ünïcödé ✓ 漢字", "a\\b", "1.0 ± 0.5 → 2"):
        assert printable(text) == text
    assert printable("a\nb\x1b\u202e\udcff") == "a\\nb\\x1b\\u202e\\udcff"


def test_names_are_one_line_of_json(hostile: Hostile) -> None:
    for name in NAMES:
        out = io.StringIO()
        JsonLines(out)(replace(result(0.5), source=name, label=name, top=((name, 0.5),)))
        told = json.loads(out.getvalue())
        one = out.getvalue().endswith("\n") and out.getvalue()[:-1].isprintable() and out.getvalue().isascii()
        hostile.expect(one and told["source"] == told["label"] == told["top"][0][0] == name, name, out.getvalue())


def test_names_are_text_in_the_report(hostile: Hostile, bundle: Bundle) -> None:
    told = read_json(bundle.path / DIAGNOSTICS, Diagnostics)
    plain = Reader(html.render(bundle.manifest, told))
    for name in (name for name in NAMES if len(name) < 1000):
        with hostile.harmless(name):
            manifest = replace(bundle.manifest, verdict=name, command=name, target=name, variant=name)
            reader = Reader(html.render(manifest, replace(told, class_names=(name,) * len(told.class_names))))
            assert reader.tags == plain.tags
            assert reader.addresses == plain.addresses


def test_names_are_data_of_the_page(hostile: Hostile, bundle: Bundle) -> None:
    with CameraPage("0", Camera(bundle, [Fake("pictures", at_pace(30))])) as web:
        for name in NAMES:
            web.newest[0], web._cache = replace(result(0.5), source=name, label=name, top=((name, 0.5),)), {}
            with urllib.request.urlopen(web.url + "state.json", timeout=10) as answer:
                (told,) = json.loads(answer.read())["newest"]
                hostile.expect(answer.headers["Content-Type"] == "application/json" and told["label"] == name, name)


def test_a_topic_is_one_that_brokers_take(hostile: Hostile) -> None:
    for topic in (
        *("+", "#", "a/+/b", "a/#", "a\0b", "\0", "a\nb", "a\x1b[2Jb", "\x7f", "\udcff", "a\u202eb", "", "x" * 65536, "é" * 40000),
        "\x9b31m",
    ):
        with hostile.raises(BadInput, topic):
            MqttAddress.parse(f"host/{topic}")
    for address in (
        *(
            "",
            "/",
            "host",
            "/topic",
            ":1883/topic",
            "host:/t",
            "host:0/t",
            "host:65536/t",
            "host:٣/t",
            "host:-1/t",
            f"host:{'9' * 5000}/t",
        ),
        *(
            "user@host/t",
            "user:pass/word@host/t",
            "ho st/t",
            "host\n/t",
            "[host]/t",
            "[::1/t",
            "http://host/t",
            "\0/t",
            "a\0:b@host/t",
        ),
        *(f"{'u' * 65536}:p@host/t", f"u:{'p' * 65536}@host/t", "host/t\n", "-x/\x1b", "host:1883:1883/t"),
    ):
        with hostile.raises(BadInput, address):
            MqttAddress.parse(address)
    assert MqttAddress.parse("me:p@ss:w@[::1]:1884/a/b c").host == "::1"
    assert len(MqttAddress.parse(f"host/{'x' * 65535}").topic) == 65535


CREDENTIALS = (
    "rtsp://me:S3CRET@10.0.0.7:554/a",
    "rtsp://me:p/S3CRET@10.0.0.7:554/a",
    "rtsp://me:p?S3CRET@10.0.0.7/a",
    "rtsp://me:p#S3CRET@10.0.0.7/a",
    "rtsp://me:p@S3CRET@10.0.0.7/a",
    "rtsp://:S3CRET@10.0.0.7/a",
    "rtps://me:S3CRET@10.0.0.7/a",
    "http://cam/mjpeg?user=me&pwd=S3CRET&fps=5",
    "http://cam/?access_token=S3CRET",
    "http://cam/?api_key=S3CRET&x=1",
    "http://cam/?apikey=S3CRET",
    "http://cam/?Passwd=S3CRET",
    "http://cam/?X-Amz-Signature=S3CRET",
    "http://cam/?auth=S3CRET",
    "http://cam/?client_secret=S3CRET",
    "rtspsrc user-id=me user-pw=S3CRET ! appsink",
    "rtspsrc location=rtsp://me:S3CRET@10.0.0.7/a ! appsink",
    "nowhere/rtsp://me:S3CRET@10.0.0.7/a",
)


def test_what_opens_a_camera_is_never_shown(hostile: Hostile) -> None:
    for address in CREDENTIALS:
        try:
            source = Source.of(address)
            shown = f"{source.name} {source._open_error()}"
        except BadInput as error:
            shown = str(error)
        hostile.expect("S3CRET" not in shown, address, shown)
    for plain in ("rtsp://10.0.0.7:554/a@b", "http://cam:8080/mjpeg?fps=5", "http://[fe80::1]:80/a", "csi://0", "films/a@b:c.mp4"):
        assert without_passwords(plain) == plain


@pytest.mark.parametrize("word", ["me:S3CRET@127.0.0.1:1/t", "me:S3CRET@a..b/t"])
def test_a_broker_s_password_is_never_shown(hostile: Hostile, bundle: Bundle, word: str) -> None:
    arguments = ("camera", bundle.path, "--source", "/dev/null", "--mqtt", word)
    hostile.refused(*arguments, code=6, words=("no broker answers",))
