"""Checkpoints that were cut, changed, or made to do harm: each is refused in one line, and no code in it runs."""

import io
import json
import math
import os
import pickle
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attempts import Hostile
from safetensors.torch import save
from test_photos import little_memory, special
from torch import Tensor

from edgeeff.data.labels import MOST_CLASSES
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import BadInput
from edgeeff.network.checkpoint import load
from edgeeff.network.model import create
from edgeeff.network.variants import variant

pytestmark = pytest.mark.filterwarnings("ignore")
TINY = variant("phi-6")
PREPROCESS = Preprocess(128, 146, (120.5, 110.0, 100.0), (60.0, 55.0, 50.0))
OWN = {"variant": TINY.name, "padding": "same", "bn_eps": 0.001, "preprocess": PREPROCESS.to_json(), "class_names": ["a", "b", "c"]}


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(create(TINY, classes=3).state_dict())


def pth(data: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(data, file, **options)
    return file.getvalue()


FORMATS: dict[str, Callable[[dict[str, Tensor]], bytes]] = {
    "safetensors": lambda tensors: save(tensors, {"edgeeff": json.dumps(OWN)}),
    "zip.pth": pth,
    "legacy.pth": lambda tensors: pth(tensors, _use_new_zipfile_serialization=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_cut_and_flipped_files(hostile: Hostile, tensors: dict[str, Tensor], tmp_path: Path, kind: str) -> None:
    whole, path, rng = FORMATS[kind](tensors), tmp_path / f"w.{kind}", random.Random(kind)
    for cut in [0, 1, 2, 4, 7, 8, 9, 16, 100, len(whole) - 1, len(whole) - 30, *rng.sample(range(len(whole)), 6)]:
        path.write_bytes(whole[:cut])
        with hostile.raises(BadInput, (kind, "cut", cut)):
            load(path, TINY)
    for number in range(25):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3, 20))):
            end = rng.choice((64, 5000))
            place = rng.randrange(end) if rng.random() < 0.7 else len(whole) - 1 - rng.randrange(end)
            damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with hostile.harmless((kind, "flipped", number)):
            load(path, TINY)


def header(text: bytes | dict[str, object], data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of that header, whose stated length may be another."""
    written = text if isinstance(text, bytes) else json.dumps(text).encode()
    return struct.pack("<Q", len(written) if length is None else length) + written + data


def entry(start: int, end: int, shape: tuple[int, ...] = (2,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


SAFETENSORS = {
    **{f"a header of {n} bytes": header(b"{}", length=n) for n in (0, 1, 3, 100, 10**8, 10**9, 2**31, 2**32, 2**63, 2**64 - 1)},
    "no tensors": header({}),
    "a list": header(b"[]"),
    "deep": header(b'{"a":' * 20_000),
    "not UTF-8": header(b'{"\xff": 1}'),
    "a name twice": header(b'{"a": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}, "a": 1}', bytes(4)),
    "overlap": header({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
    "a gap": header({"a": entry(0, 8), "b": entry(16, 24)}, bytes(24)),
    "backwards": header({"a": entry(8, 0)}, bytes(8)),
    "beyond the end": header({"a": entry(0, 800, (200,))}, bytes(8)),
    "negative": header({"a": entry(-8, 0)}, bytes(8)),
    "a huge shape": header({"a": entry(0, 8, (2**62, 4))}, bytes(8)),
    "a shape that overflows": header({"a": entry(0, 8, (2**63, 2, 2**63))}, bytes(8)),
    "a negative shape": header({"a": entry(0, 8, (-2,))}, bytes(8)),
    "another size": header({"a": entry(0, 8, (3,))}, bytes(8)),
    "an unknown type": header({"a": entry(0, 8, dtype="F99")}, bytes(8)),
    "bytes after the end": header({"a": entry(0, 8)}, bytes(80)),
    "no offsets": header({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "metadata that is a number": header({"__metadata__": 5, "a": entry(0, 8)}, bytes(8)),
    "metadata that is nested": header({"__metadata__": {"edgeeff": {}}, "a": entry(0, 8)}, bytes(8)),
    "names with colours": header({"\x1b[31ma\n": entry(0, 8)}, bytes(8)),
    "an empty name": header({"": entry(0, 8)}, bytes(8)),
}


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors_headers(hostile: Hostile, tmp_path: Path, case: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(SAFETENSORS[case])
    with little_memory(), hostile.raises(BadInput, case):
        load(tmp_path / "w.safetensors", TINY)


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.called = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.called


TOUCH = "touch ran"
PICKLES: dict[str, Callable[[], object]] = {
    "os.system": lambda: Call(os.system, TOUCH),
    "eval": lambda: Call(eval, "__import__('os').system('touch ran')"),
    "exec": lambda: Call(exec, "open('ran', 'w')"),
    "open": lambda: Call(open, "ran", "w"),
    "getattr": lambda: Call(getattr, "text", "upper"),
    "torch.load": lambda: Call(torch.load, "other.pth"),
    "a module": lambda: torch.nn.Linear(2, 2),
    "a path": lambda: Path("ran"),
    "code as a name": lambda: {Call(os.system, TOUCH): torch.zeros(1)},
    "memory": lambda: Call(bytearray, 2**40),
    "a deep list": lambda: deep(150),
    "a list in itself": lambda: in_itself(),
    "a number": lambda: 5,
    "text": lambda: "weights",
    "nothing": lambda: None,
    "no tensors": lambda: {},
    "names that are no text": lambda: OrderedDict({5: torch.zeros(1), None: torch.zeros(1)}),
    "names with colours": lambda: {"\x1b[31ma\n": torch.zeros(1)},
    "a state_dict that is none": lambda: {"state_dict": [1, 2]},
    "nested state_dicts": lambda: {"state_dict": {"state_dict": {"model": {}}}},
}


def deep(levels: int) -> list[object]:
    found: list[object] = []
    for _ in range(levels):
        found = [found]
    return found


def in_itself() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_that_hold_more_than_tensors(hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    data = PICKLES[case]()
    for name, write in (
        ("zip.pth", pth),
        ("legacy.pth", lambda d: pth(d, _use_new_zipfile_serialization=False)),
        ("raw.pth", pickle.dumps),
    ):
        Path(name).write_bytes(write(data))
        with little_memory(), hostile.raises(BadInput, (case, name)):
            load(name, TINY)
        hostile.expect(not Path("ran").exists(), (case, name), "ran")


def archived(parts: dict[str, bytes], compression: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return file.getvalue()


def recompressed(tensors: dict[str, Tensor]) -> bytes:
    """The same checkpoint, its parts deflated."""
    with zipfile.ZipFile(io.BytesIO(pth(tensors))) as archive:
        return archived({name: archive.read(name) for name in archive.namelist()}, zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize("case", ["deflated", "a bomb", "no parts", "other parts", "a parent"])
def test_archives(hostile: Hostile, tensors: dict[str, Tensor], tmp_path: Path, case: str) -> None:
    path = tmp_path / "w.pth"
    parts = {"w/version": b"3\n", "w/byteorder": b"little"}
    path.write_bytes(
        {
            "deflated": lambda: recompressed(tensors),
            "a bomb": lambda: archived({**parts, "w/data.pkl": bytes(30_000_000)}, zipfile.ZIP_DEFLATED),
            "no parts": lambda: archived({}, zipfile.ZIP_STORED),
            "other parts": lambda: archived({"a.txt": b"a"}, zipfile.ZIP_STORED),
            "a parent": lambda: archived({**parts, "../../data.pkl": pickle.dumps({})}, zipfile.ZIP_STORED),
        }[case]()
    )
    with little_memory(), hostile.raises(BadInput, case):
        load(path, TINY)
    hostile.expect([p.name for p in tmp_path.iterdir()] == ["w.pth"], case, "left something behind")


@pytest.mark.parametrize(
    "kind", ["pipe", "link to a pipe", "folder", "loop", "itself", "sparse", "/dev/zero", "/dev/full", "/nowhere"]
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_file(hostile: Hostile, digits: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    path, photos, out = tmp_path / f"w{suffix}", digits / "train" / "1", tmp_path / "out"
    special(kind, path)
    with little_memory(), hostile.raises(BadInput, (kind, suffix)):
        load(path, TINY)
    words = ("--calib", photos, "--val", digits / "val" / "2", "--variant", TINY.name, "--weights", path, "--out", out)
    hostile.refused("fit", "--target", "host-cpu", *words, words=(path.name,), name=(kind, suffix))


VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "NaN": lambda t: t * math.nan,
    "infinity": lambda t: t + math.inf,
    "too large for float32": lambda t: t.double() * 0 + 1e300,
    "complex": lambda t: t.to(torch.complex64),
    "8-bit integers": lambda t: (t * 10).to(torch.int8),
    "bytes": lambda t: t.abs().to(torch.uint8),
    "64-bit integers": lambda t: t.long(),
    "booleans": lambda t: t > 0,
    "one dimension more": lambda t: t[None],
    "none": lambda t: t.new_zeros(0),
    "one": lambda t: t.new_zeros(()),
    "sparse": lambda t: t.to_sparse(),
    "meta": lambda t: t.to("meta"),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
}


@pytest.mark.parametrize("name", ["conv_stem.weight", "bn1.running_var", "classifier.bias"])
@pytest.mark.parametrize("case", VALUES)
def test_values_of_tensors(hostile: Hostile, tensors: dict[str, Tensor], tmp_path: Path, name: str, case: str) -> None:
    changed = tensors | {name: VALUES[case](tensors[name])}
    files = {"w.pth": pth(changed)}
    if case not in ("sparse", "meta", "quantized"):
        files["w.safetensors"] = save({k: v.contiguous() for k, v in changed.items()})
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
        message = ""
        with hostile.raises(BadInput, (case, name, file)):
            try:
                load(tmp_path / file, TINY)
            except BadInput as error:
                message = str(error)
                raise
        hostile.expect(name in message, (case, name, file), message)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_numbers_are_read(
    hostile: Hostile, tensors: dict[str, Tensor], tmp_path: Path, dtype: torch.dtype
) -> None:
    (tmp_path / "w.pth").write_bytes(pth({k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}))
    model = None
    with hostile.harmless(dtype):
        model, _, _ = load(tmp_path / "w.pth", TINY)
    hostile.expect(model is not None and model.conv_stem.weight.dtype == torch.float32, dtype)


def test_a_negative_variance_is_refused(hostile: Hostile, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(pth(tensors | {"bn1.running_var": -tensors["bn1.running_var"]}))
    with hostile.raises(BadInput, "a negative variance"):
        load(tmp_path / "w.pth", TINY)


@pytest.mark.parametrize("classes", [0, MOST_CLASSES + 1, 3_000_000_000])
def test_a_classifier_of_many_classes_in_a_small_file(
    hostile: Hostile, tensors: dict[str, Tensor], tmp_path: Path, classes: int
) -> None:
    wide = torch.zeros(1, tensors["classifier.weight"].shape[1]).expand(classes, -1)
    (tmp_path / "w.pth").write_bytes(pth(tensors | {"classifier.weight": wide}))
    with little_memory(), hostile.raises(BadInput, classes):
        load(tmp_path / "w.pth", TINY)


METADATA: dict[str, tuple[object, ...]] = {
    "bn_eps": (-1, 0, 1, 1e300, "small", None, [], True, math.nan, math.inf, 10**400),
    "variant": (5, None, [], "", "b0", "\x1b[31m", "phi-6\n", "a" * 10_000),
    "padding": (5, None, "", "reflect", "\x1b[31m"),
    "class_names": (
        5,
        None,
        {},
        "abc",
        [1, 2, 3],
        ["a", "b"],
        ["a"] * 4,
        ["a", "b", ""],
        ["a", "b\n", "c"],
        ["a", "\x1b[31m", "c"],
    ),
    "preprocess": (5, None, [], {}, {**PREPROCESS.to_json(), "resolution": -1}, {**PREPROCESS.to_json(), "resize": 10**12}),
    "activation": (5, [], "", "gelu", "\x1b[31m"),
}
TEXTS = ["", "{", "[]", "null", "5", "\x1b[31m", "[" * 50_000, '{"a":' * 50_000, '{"bn_eps": 1e309}', "NaN", "\ud7ff", "{}"]


def test_metadata(hostile: Hostile, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    path, small = tmp_path / "w.safetensors", {k: v for k, v in tensors.items() if k.startswith("classifier")}
    texts = [*TEXTS, *(json.dumps({**OWN, field: value}) for field, values in METADATA.items() for value in values)]
    texts += [json.dumps({**OWN, "bn_eps": 7}).replace("7,", f"{number},") for number in ("1e309", "-1e309", "9" * 5000)]
    for text in texts:
        path.write_bytes(save(small, {"edgeeff": text}))
        with hostile.raises(BadInput, text[:200]):
            load(path, TINY)
