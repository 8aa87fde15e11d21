"""YAML and JSON that nobody should write: targets, recipes and records are read within bounds, or refused with their file."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from attempts import Hostile
from test_photos import little_memory, special

from edgeeff.budget import Budget
from edgeeff.data.calibration import Calibration
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import BadInput
from edgeeff.precision import Precision
from edgeeff.records import read_json
from edgeeff.target import Target

TARGET = "description: a board\nbackend: openvino\nprecisions: [float32, int8]\n"
RECIPE = "description: few\nimages: 10\ndraw: even\nranges: [largest]\n"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghij", "bcdefghijk", strict=True)
)
SCALARS = [
    "!!int x",
    "!!int 0x",
    "!!float x",
    "!!bool x",
    "!!null x",
    "!!timestamp x",
    "!!binary '='",
    "!!binary aGVsbG8=",
    "!!str [a]",
    "!!seq x",
    "!!map x",
    "!!set x",
    "!!omap [a: 1, a: 2]",
    "!!pairs x",
    "!!python/none x",
    "!!python/tuple [1, 2]",
    "!!python/name:os.system",
    "!!python/object/apply:os.system [touch ran]",
    "!!python/object/new:os.system [touch ran]",
    "!!python/module:os",
    "!<tag:yaml.org,2002:int> 1.5",
    "!mine 1",
    "2001-13-45",
    "2001-01-01",
    "2001-01-01 25:61:61",
    ".nan",
    ".inf",
    "-.inf",
    "1e309",
    "-1",
    "1.5",
    "true",
    "~",
    "1:60:99",
    "0x" + "f" * 9000,
    "0b" + "1" * 9000,
    "9" * 5000,
    "-" + "9" * 5000,
    "1" + ":1" * 2000,
    "[[[]]]",
    "{a: {b: c}}",
    "{? [a] : b}",
    "{{a: 1}: 2}",
    "'\\0'",
    '"\\0\\x1b[31m"',
    '"\\ud800"',
    "|\n  many\n  lines\n",
    "*nowhere",
    "&a [*a]",
    "&a x",
    "&a",
    "@x",
    "`x",
    "%x",
    "[",
    "]",
    "{",
    "}",
    "'",
    '"',
    "? x",
    "- x",
    ": x",
    "x: y",
    "# x",
    "<<",
    "=",
]
FIELDS = [
    "threads",
    "latency_ms",
    "cpu",
    "backend",
    "precisions",
    "tensorrt",
    "memory_gb",
    "power_modes",
    "scheme",
    "refused",
    "images",
]
FILES: dict[str, bytes] = {
    "nothing": b"",
    "a comment": b"# nothing\n",
    "text": b"text",
    "a list": b"[1, 2]",
    "aliases that multiply": BOMB.encode(),
    "an alias": b"description: &a x\ncpu: *a\n",
    "an alias to itself": b"&a {b: *a}",
    "a merge": b"<<: {description: a}\n",
    "a merge of an alias": b"x: &a {description: a}\n<<: *a\n",
    "deep lists": b"[" * 5000,
    "deep closed lists": b"a: " + b"[" * 600 + b"]" * 600,
    "deep mappings": b"{a: " * 5000,
    "deep blocks": b"- " * 20_000,
    "deep keys": b"? " * 20_000,
    "deep indents": "".join(" " * i + "a:\n" for i in range(400)).encode(),
    "tabs": b"description:\ta\n\tbackend: openvino\n",
    "NUL": TARGET.encode() + b"\0",
    "control characters": TARGET.encode() + b"cpu: \x1b[31m\n",
    "UTF-16": TARGET.encode("utf-16"),
    "Latin-1": TARGET.encode() + b"cpu: caf\xe9\n",
    "a key twice": TARGET.encode() + b"threads: 1\nthreads: 2\n",
    "an inner key twice": TARGET.encode() + b"tensorrt: {a: 10.3.0, a: 10.4.0}\n",
    "a key that is a number": TARGET.encode() + b"1: 2\n",
    "a key that is a list": TARGET.encode() + b"[a]: 2\n",
    "a key that is a huge number": TARGET.encode() + b"0x" + b"f" * 9000 + b": 2\n",
    "a key with colours": TARGET.encode() + b'"\\x1b[31m": 2\n',
    "two documents": (TARGET + "---\n" + TARGET).encode(),
    "a later version": b"%YAML 9.9\n---\n" + TARGET.encode(),
    "a long line": b"description: " + b"a" * 200_000,
    "many keys": b"".join(b"k%d: 1\n" % i for i in range(9000)),
    "many anchors": b"".join(b"k%d: &k%d 1\n" % (i, i) for i in range(4000)),
    "binary": random.Random(0).randbytes(3000),
    "no version": TARGET.encode() + b"tensorrt: {a: b}\n",
    "a version of many digits": TARGET.encode() + b"tensorrt: {a: '" + b"9" * 5000 + b"'}\n",
    "many threads": TARGET.encode() + b"threads: 100000\n",
    "no images": RECIPE.replace("10", "0").encode(),
    "no ranges": RECIPE.replace("[largest]", "[]").encode(),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_refused(hostile: Hostile, tmp_path: Path, case: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(FILES[case])
    for load in (Target.load, Calibration.load):
        with little_memory(), hostile.raises(BadInput, case):
            load(path)
    hostile.refused("pick", "--target", path, words=("a.yaml",), name=case)


@pytest.mark.parametrize("field", FIELDS)
def test_values_of_any_kind_are_a_value_or_refused(hostile: Hostile, tmp_path: Path, field: str) -> None:
    path, rest = tmp_path / "a.yaml", RECIPE if field == "images" else TARGET
    load = Calibration.load if field == "images" else Target.load
    kept = "".join(line + "\n" for line in rest.splitlines() if not line.startswith(field))
    for value in SCALARS:
        path.write_text(f"{kept}{field}: {value}\n", encoding="utf-8")
        with hostile.harmless((field, value)):
            loaded = load(path)
            assert not isinstance(loaded, Target) or loaded.oldest_tensorrt
            assert not isinstance(loaded, Target) or loaded.here in (True, False)
    hostile.expect(not Path("ran").exists(), field, "ran a program")


def test_damaged_files(hostile: Hostile, tmp_path: Path) -> None:
    path, rng, whole = (
        tmp_path / "a.yaml",
        random.Random(2),
        TARGET.encode() + b"threads: 1\nlatency_ms: 5\ntensorrt: {a: 10.3.0}\n",
    )
    for number in range(200):
        text = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(min(len(text), rng.choice((0, 1, 2, 8)))):
            text[rng.randrange(len(text))] = rng.choice((*b"\0\t\n\r\x1b[]{}&*!|>'\"%@`?:-#,", 0x85, 0xFF, rng.randrange(256)))
        path.write_bytes(text)
        with hostile.harmless((number, bytes(text))):
            Target.load(path)


@pytest.mark.parametrize(
    "kind", ["pipe", "link to a pipe", "folder", "loop", "itself", "sparse", "/dev/zero", "/dev/full", "/nowhere"]
)
def test_what_is_no_file(hostile: Hostile, tmp_path: Path, kind: str) -> None:
    for name, load in (
        ("a.yaml", Target.load),
        ("b.yaml", Calibration.load),
        ("c.json", lambda path: read_json(path, dict[str, int])),
    ):
        folder = tmp_path / name[0]
        folder.mkdir()
        special(kind, folder / name)
        with little_memory(), hostile.raises(BadInput, (kind, name)):
            load(folder / name)


@dataclass(frozen=True)
class Record:
    """A bit of everything that records hold."""

    text: str
    number: int
    budget: Budget
    preprocess: Preprocess
    precision: Precision
    share: float = 0.0
    path: Path = Path()
    numbers: tuple[float, ...] = ()


PREPROCESS = '{"resolution": 224, "resize": 256, "mean": [1, 2, 3], "std": [1, 2, 3]}'
RECORD = f'{{"text": "a", "number": 1, "budget": {{"latency_ms": 5}}, "preprocess": {PREPROCESS}, "precision": "int8"'
VALUES = [
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "1e309",
        "-1e309",
        "1" + "0" * 400,
        "9" * 5000,
        "-" + "9" * 5000,
        "1e5000",
        "-0",
        "01",
        "+1",
        ".5",
    ),
    *("null", "true", "[]", "{}", '""', '"\\u0000"', '"\\ud800"', '"\\x"', '"\x1b[31m"', '"a\nb"', '"../.."', "'a'", "1.5", "-1"),
    *("[" * 50_000, '{"a":' * 50_000, "[" * 900 + "]" * 900, '{"self": 1}', '{"percentile": 7}', '{"latency_ms": NaN}', "{1: 2}"),
    *('{"latency_ms": 1, "latency_ms": 2}', '{"latency_ms": true}', '{"latency_ms": 1' + "0" * 400 + "}", '{"cls": 1}', '{"": 1}'),
    *(
        "",
        ",",
        "}",
        "//",
        "/* */ 1",
        "undefined",
        "0x10",
        "1_000",
        "\x00",
        "\ufeff1",
        '{"resolution": 1e999}',
        '{"resolution": 99}',
    ),
]


@pytest.mark.parametrize("field", ["text", "number", "budget", "preprocess", "precision", "share", "path", "numbers", "unknown"])
def test_values_of_json(hostile: Hostile, tmp_path: Path, field: str) -> None:
    path = tmp_path / "record.json"
    for value in VALUES:
        path.write_text(f'{RECORD}, "{field}": {value}}}', encoding="utf-8")
        with hostile.harmless((field, value[:60])):
            read_json(path, Record)


def test_damaged_json(hostile: Hostile, tmp_path: Path) -> None:
    path, rng, whole = tmp_path / "record.json", random.Random(3), f'{RECORD}, "share": 0.5, "numbers": [1, 2.5]}}'.encode()
    for number in range(150):
        text = bytearray(whole[: rng.choice((len(whole), rng.randrange(len(whole))))])
        for _ in range(min(len(text), rng.choice((0, 1, 2, 8)))):
            text[rng.randrange(len(text))] = rng.choice((*b'\0\n[]{}",:-+.eE019\\/', 0x80, 0xFF, rng.randrange(256)))
        path.write_bytes(text)
        with hostile.harmless((number, bytes(text))):
            read_json(path, Record)


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b'{"text": "caf\xe9"}', b"\0" * 100, '{"text": 1}'.encode("utf-16"), b"[1, 2", b"{}{}"]
)
def test_json_that_is_refused(hostile: Hostile, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "record.json").write_bytes(text)
    with hostile.raises(BadInput, text):
        read_json(tmp_path / "record.json", Record)
