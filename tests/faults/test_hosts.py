"""Hosts whose names would be options, and hosts that answer nonsense. `ssh` and `rsync` are programs of the test."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attempts import Hostile

from edgeeff import BadInput
from edgeeff.remote import ssh

SSH = """#!/bin/sh
echo "$*" >> "$ANSWERS/calls"
for last; do :; done
answer() {
  cat "$ANSWERS/$1" 2>/dev/null
  if [ -e "$ANSWERS/$1.endless" ]; then while cat "$ANSWERS/$1.endless"; do :; done; fi
  [ -e "$ANSWERS/$1.err" ] && cat "$ANSWERS/$1.err" >&2
  exit "$(cat "$ANSWERS/$1.rc" 2>/dev/null || echo 0)"
}
case "$*" in *-Oexit*) exit 0;; esac
case "$last" in
  sh) case "$(cat)" in *edgeeff=here*) answer probe;; *) answer space;; esac;;
  *" start "*) answer start;;
  *" poll "*) answer poll;;
  *" stop "*) answer stop;;
esac
"""
PROBE = "edgeeff=here\npython=/usr/bin/python3\nversion=3.11\nbits=64\nvenv=yes\nseen=Python 3.11.7\nrsync=/usr/bin/rsync\n"
PROBE += "machine=x86_64\n"
SPACE = "/dev/sda1 100000000 1 99999999 1% /\n0\n0\n"
LATENCY = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "ci": [0.9, 1.1]}
BENCH = {"precision": "int8", "latency_ms": LATENCY}


def poll(output: object, rc: object = 0, **more: object) -> str:
    text = output if isinstance(output, str) else json.dumps(output)
    return json.dumps({"state": "done", "lines": [], "said": 0, "output": text, "written": 0, "rc": rc, **more})


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the host answers: by name of the step, with `_rc`, `_err` and `_endless`. Others are as they should be."""
    programs, answers = tmp_path / "bin", tmp_path / "answers"
    for folder in (programs, answers):
        folder.mkdir()
    for name, code in (("ssh", SSH), ("rsync", '#!/bin/sh\necho "$*" >> "$ANSWERS/rsync"\n')):
        (programs / name).write_text(code)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("ANSWERS", str(answers))

    def says(**told: str | bytes) -> None:
        for file in answers.iterdir():
            file.unlink()
        usual = {"probe": PROBE, "space": SPACE, "start": '{"state": "none"}', "stop": '{"state": "none"}', "poll": poll(BENCH)}
        for name, text in {**usual, **told}.items():
            (answers / name.replace("_", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())

    says()
    return says


HOSTS = (
    *(
        "-",
        "--",
        "---",
        "-x",
        "-oProxyCommand=touch stolen",
        "--rsh=touch stolen",
        "-F/etc/passwd",
        "-l",
        "user@-host",
        "-user@host",
    ),
    *(
        "user@-oProxyCommand=touch stolen",
        "@host",
        "user@",
        "user@@host",
        "a@b@c",
        "host:22",
        "host:/etc",
        "ssh://host",
        "[::1]",
        "::1",
    ),
    *(
        "host;touch stolen",
        "host&touch stolen",
        "host|touch stolen",
        "$(touch stolen)",
        "`touch stolen`",
        "host$IFS",
        "${HOME}",
        "~",
        "~root",
    ),
    *(
        "host ",
        " host",
        "a b",
        "a\tb",
        "host\n",
        "\nhost",
        "host\n-oProxyCommand=x",
        "a\rb",
        "a\0b",
        "\x1b[2J",
        "\x7f",
        "a\u202eb",
        "hôst",
        "х.example",
    ),
    *(
        "'host'",
        '"host"',
        "host'",
        'host"',
        "host\\",
        "host%h",
        "%h",
        "host#",
        "host*",
        "?",
        "{a,b}",
        "<x",
        ">stolen",
        "!x",
        "(x)",
        "a/b",
        "../x",
        "/x",
    ),
    *(
        ".",
        "..",
        ".host",
        "",
        " ",
        "x" * 256,
        "x" * 5000,
        f"{'u' * 250}@{'h' * 250}",
        "\udcff",
        "user:pass@host",
        "host,host",
        "host=x",
        "a\\b",
    ),
)


def test_a_host_is_a_name(hostile: Hostile, far: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused before any program runs, whether it is given alone or as the second one, and from the library too."""
    monkeypatch.chdir(tmp_path)
    for host in HOSTS:
        hostile.refused("bench", "nowhere", f"--on={host}")
        with hostile.raises(BadInput, host):
            ssh.check(["board", host])
    hostile.refused("fit", "--target", "host-cpu", "--train", "x", "--val", "x", "--out", "y", "--on=--")
    for verb in (("pick", "--target", "host-cpu"), ("camera", "x", "--source", "0"), ("compile", "x"), ("eval", "x", "--val", "y")):
        hostile.refused(*verb, "--on=--")
        hostile.refused(*verb, "--on=-oProxyCommand=touch stolen")
    hostile.refused("camera", "x", "--source=--")
    assert not (tmp_path / "answers/calls").exists()
    assert not list(tmp_path.rglob("stolen"))


PROBES = {
    "nothing": "",
    "garbage": os.urandom(1000),
    "a banner": "Welcome!\n" + PROBE,
    "escapes": "\x1b[2J\x1b]0;title\x07",
    "a long line": "x" * 1_000_000,
    "only its start": "edgeeff=here",
    "cut off": PROBE[:60],
    "cut off later": PROBE[: PROBE.index("machine")],
    "NUL": PROBE.replace("x86_64", "x86\0_64"),
    "another machine": PROBE.replace("x86_64", "\x1b[31mmips"),
    "a long machine": PROBE.replace("x86_64", "m" * 1_000_000),
    "no bits": PROBE.replace("bits=64", "bits=1e999"),
    "no Python": PROBE.replace("python=", "was=").replace("3.11.7", "2.7\x1b[2J" + "x" * 100_000),
    "no rsync": PROBE.replace("/usr/bin/rsync", ""),
    "no equals signs": PROBE.replace("=", ":"),
    "other keys": "edgeeff=here\n" + "".join(f"key{i}=value\n" for i in range(10_000)),
}
SPACES = (
    "",
    "x",
    "1 2 3",
    "a b c d e f",
    SPACE + "0\n",
    SPACE.replace("99999999", "-1"),
    "\0" * 100,
    SPACE.replace("99999999", "9" * 5000),
)
SPACES += (SPACE.replace("\n0", "\nx"), SPACE.replace("\n0", "\n1e999"), SPACE.replace("99999999", "NaN"), "\x1b[2J" * 100)
ANSWERS = (
    *(
        "",
        "null",
        "[]",
        "{}",
        '"x"',
        "1",
        "{",
        '{"state"',
        '{"state": "running',
        "\0",
        "x" * 100_000,
        "[" * 100_000,
        '{"a":' * 50_000,
    ),
    *(
        '{"state": 1}',
        '{"state": "asleep"}',
        '{"state": null}',
        '{"state": ["done"]}',
        '{"state": "done"} more',
        '{"State": "done"}',
    ),
    *('{"state": "\\ud800"}', '{"state": NaN}', '{"state": "done", "a": ' + "[" * 5000 + "]" * 5000 + "}", "\x1b[2J", "<html>"),
)
POLLS = (
    *ANSWERS,
    *(poll(BENCH, rc) for rc in (1.5, "0", [0], 1e999, True, "\x1b")),
    *(poll(BENCH, said=value) for value in ("x", None, 1.5, [1], -(10**30) / 3)),
    *(poll(BENCH, lines=value) for value in ("x", None, [1], [["x"]], {"a": "b"})),
    *(
        json.dumps(json.loads(poll(BENCH)) | {key: value})
        for key, value in (("output", 7), ("output", None), ("written", "0"), ("rebooted", "yes"))
    ),
    poll(BENCH).replace('"rc": 0', '"rc": 1e999'),
    poll(BENCH).replace('"said"', '"sayd"'),
    poll(BENCH)[:-30],
)
OUTPUTS = (
    *(
        "",
        "x",
        "null",
        "[]",
        "7",
        '"x"',
        "{",
        "\0",
        "{}",
        "[" * 100_000,
        '{"precision": ' * 20_000,
        '{"a": ' + "[" * 600 + "]" * 600 + "}",
    ),
    *(
        {**BENCH, "latency_ms": value}
        for value in (7, "fast", [1], {}, {"p50": 1}, {**LATENCY, "p50": "1"}, {**LATENCY, "p90": None})
    ),
    *({**BENCH, "latency_ms": {**LATENCY, "ci": value}} for value in (None, 1, [], [1], [1, 2, 3], ["a", "b"])),
    *({**BENCH, "precision": value} for value in (None, 8, ["int8"], {"a": 1})),
    *({**BENCH, "top1": value} for value in ("99", [99], {}, True)),
    *({**BENCH, "engines": value} for value in (7, "x", {}, [7], [{}], [{"precision": 8}], [{"precision": "int8", "accuracy": 7}])),
    *('{"precision": "int8", "top1": 1e999}', '{"precision": "int8", "top1": NaN}', '{"precision": "int8", "images": 1.5}'),
    {**BENCH, "verdict": ["Good."]},
)


def test_a_host_that_answers_otherwise_is_no_host(hostile: Hostile, far: Callable[..., None], brief_pause: None, fitted) -> None:
    bench = ("bench", fitted[0], "--on", "board")
    for name, probe in PROBES.items():
        far(probe=probe)
        code = {"no Python": 5, "no rsync": 5, "another machine": 2, "a long machine": 2, "no bits": 2, "NUL": 2}.get(name, 1)
        hostile.refused(*bench, code=code, words=("board: ",), name=("probe", name))
    for space in SPACES:
        far(space=space)
        hostile.refused(*bench, code=2 if "-1" in space else 1, words=("board: ",), name=("space", space))
    for step in ("start", "poll"):
        for answer in ANSWERS if step == "start" else POLLS:
            far(**{step: answer})
            hostile.refused(*bench, code=1, words=("board: ",), name=(step, answer))


def test_a_host_that_measures_nonsense_has_measured_nothing(
    hostile: Hostile, far: Callable[..., None], brief_pause: None, fitted
) -> None:
    for output in OUTPUTS:
        text = output if isinstance(output, str) else json.dumps(output)
        far(poll=poll(text))
        for also in ((), ("--json",)):
            whole = text.startswith('{"precision": "int8"') or isinstance(output, dict) or text == "{}"
            code = 1 if not whole or "1e999" in text or "NaN" in text else 2
            hostile.refused("bench", fitted[0], "--on", "board", *also, code=code, words=("board: ",), name=text)
    far()
    hostile.refused("bench", fitted[0], "--on", "board", "bo\nard")


FRAME = {
    "source": "0",
    "frame": 0,
    "time": 1.0,
    "label": None,
    "top": [["a", 0.5]],
    "age_ms": 1.0,
    "waited_ms": 0.5,
    "inference_ms": 0.5,
}


def test_a_far_camera_that_says_nonsense_is_none(hostile: Hostile, far: Callable[..., None], brief_pause: None, fitted) -> None:
    camera = ("camera", fitted[0], "--source", "0", "--on", "board")
    wrong = {"source": (None, 7, ["x"]), "frame": ("0", 1.5, None), "time": (-1, 1e30, "now", None), "label": (7, ["x"])}
    wrong |= {"top": ([], None, [["a"]], [[1, 2]], [["a", "b"]], {}), "age_ms": (None, "old"), "inference_ms": ([],)}
    for field, values in wrong.items():
        for value in values:
            far(poll=poll(json.dumps({**FRAME, field: value}) + "\n"))
            hostile.refused(*camera, code=2, words=("board: ", field), name=(field, value))
    for line in ({"frame": 1}, {"summary": 7}, {"summary": {}}, {"summary": {"sources": [{}], "seconds": 1, "temperature": None}}):
        far(poll=poll(json.dumps(line) + "\n"))
        hostile.refused(*camera, code=2, words=("board: ",), name=line)
    far(poll=poll("\x1b[2J no JSON\n" + "[" * 100_000 + "\n"))
    hostile.refused(*camera, code=1, words=("board: ",), name="no JSON")


def test_a_host_that_never_stops_is_stopped(
    hostile: Hostile, far: Callable[..., None], brief_pause: None, fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "MAX_ANSWER", 4 << 20)
    bench = ("bench", fitted[0], "--on", "board")
    for step in ("probe", "space", "start", "poll"):
        far(**{step: PROBE if step == "probe" else "", f"{step}_endless": "x" * 100_000})
        hostile.refused(*bench, code=1, words=("board: ", "more than 4 MB"), name=step)
    running = json.loads(poll("x" * 100_000)) | {"state": "running", "rc": None}
    far(poll=json.dumps(running))
    hostile.refused(*bench, code=1, words=("board: ", "more than 4 MB"), name="a job without end")


def test_what_a_host_says_is_shown_as_text(hostile: Hostile, far: Callable[..., None], brief_pause: None, fitted) -> None:
    bench = ("bench", fitted[0], "--on", "board")
    for line in ("\x1b[2J", "a\rb", "\x9b31m", "\u202eevil", "x" * 1_000_000, "\0", "[/]", "edgeeff: edgeeff: x"):
        for rc in (1, 2, 6):
            far(poll=poll("", rc, lines=["\x1b[31mat work", f"edgeeff: {line}"]))
            hostile.refused(*bench, code=rc, words=("board: ",), name=(line[:20], rc))
    for rc in (3, 4, 5, 7, 8):
        far(poll=poll("", rc, lines=["edgeeff: x"]))
        hostile.refused(*bench, code=rc, words=("board: x",), name=rc)
    far(poll=poll(json.dumps(BENCH), 9, lines=["edgeeff: x"]))
    hostile.refused(*bench, code=9, words=("board: x",), name=9)
    for output in ("", "{}", "[]", '{"precision": 8}'):
        far(poll=poll(output, 9, lines=["edgeeff: x"]))
        hostile.refused(*bench, code=2, words=("board: ",), name=(9, output))
    for rc in (77, -9, 255, 10**15):
        far(poll=poll("", rc, lines=["edgeeff: x"]))
        hostile.refused(*bench, code=1, words=("board: ",), name=rc)
    for rc in ("1", "127", "255"):
        for err in (
            "",
            "\x1b[2J",
            "x" * 1_000_000,
            "Permission denied\x1b[2J",
            "No space left on device\x1b[2J",
            "\0",
            "{name} {host} %s",
        ):
            far(probe="", probe_err=err, probe_rc=rc)
            code = 2 if rc != "255" and "No space" in err else 6 if rc == "255" else 1
            hostile.refused(*bench, code=code, words=("board: ",), name=(rc, err[:20]))


def test_a_bundle_s_path_is_no_option(
    hostile: Hostile, far: Callable[..., None], brief_pause: None, fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "-e touch stolen",
        "--rsh=touch stolen",
        "a\nb",
        "host:x",
        "$(touch stolen)",
        "`touch stolen`",
        "a b'c\"d",
        "é\u202e",
        "-",
    ):
        (tmp_path / name).symlink_to(fitted[0])
        far(poll=poll("", 2, lines=["edgeeff: enough."]))
        hostile.refused("bench", "--on=board", "--", name, words=("enough",), name=name)
        sent = (tmp_path / "answers/rsync").read_text()
        hostile.expect(f" {tmp_path}/{name}/ board:.cache/edgeeff/sent/" in sent, name, sent)
        for verb in (("bench",), ("compile",)):
            hostile.refused(*verb, "--on=board", "--", f"nowhere/{name}", name=name)
    assert not list(tmp_path.rglob("stolen"))


@pytest.fixture
def brief_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that has been built once, and no pauses between polls."""
    from edgeeff.remote import host

    monkeypatch.setattr(ssh.Connection, "pause", lambda self, seconds: None)
    monkeypatch.setattr(host.wheel, "build", _built)


def _built(folder: Path) -> Path:
    (folder / "edgeeff.whl").write_bytes(b"")
    return folder / "edgeeff.whl"
