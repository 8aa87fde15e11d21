"""Bundles that were cut off, damaged, or made by somebody who can compute a checksum."""

from __future__ import annotations

import copy as copies
import hashlib
import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attempts import Hostile

from edgeeff import BadInput, Bundle
from edgeeff.backends import tensorrt
from edgeeff.bundle import seal
from edgeeff.manifest import digest
from edgeeff.records import parse_json

LONG = "x" * 100_000
DEEP = json.loads("[" * 500 + "]" * 500)
MISSING = object()
VALUES = (
    MISSING,
    None,
    True,
    -1,
    0.5,
    10**9,
    10**30,
    10**400,
    -1e308,
    "",
    "nan",
    "inf",
    "two\nlines\u2028\x1b[2J",
    LONG,
    [],
    [None] * 1000,
    {},
    {"self": 1, "": 2},
    DEEP,
)
RAW = ("1e999", "-1e999", "NaN", "Infinity", "0x10", "1_0", "01", '"\\ud800"', "[" * 100_000, "[" * 3000 + "]" * 3000)


@pytest.fixture
def folder(fitted, tmp_path: Path) -> Path:
    """The bundle without what only people and other runtimes read, so that it is hashed quickly."""
    path = Path(shutil.copytree(fitted[0], tmp_path / "bundle"))
    facts = Bundle.open(path).manifest
    for name in ("model.onnx", "report.html"):
        (path / name).unlink()
    seal(path, facts)
    return path


@pytest.fixture
def whole(fitted, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted[0], tmp_path / "whole"))


def rewritten(folder: Path, data: Any, *, honest: bool = True) -> None:
    """A manifest of the data, with its digest; where it is not `honest`, with the digest that it had."""
    (folder / "manifest.json").write_text(json.dumps({**data, "digest": digest(data)} if honest else data))


def rehash(folder: Path) -> None:
    """The manifest as anyone can make it who changed files: with their new hashes."""
    data = json.loads((folder / "manifest.json").read_text())
    for name in data["files"]:
        data["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    rewritten(folder, data)


@contextmanager
def changed(folder: Path, name: str, contents: bytes) -> Iterator[None]:
    """Within the block, a file has other contents, which the manifest vouches for."""
    before = {path: path.read_bytes() for path in (folder / name, folder / "manifest.json")}
    (folder / name).write_bytes(contents)
    rehash(folder)
    yield
    for path, data in before.items():
        path.write_bytes(data)


def paths(data: Any, to: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values are in JSON; of a list, only the first is looked into."""
    if to:
        yield to
    within = data.items() if isinstance(data, dict) else [(0, data[0])] if isinstance(data, list) and data else []
    for key, value in within:
        yield from paths(value, (*to, key))


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of JSON with another value in one place."""
    made = place = copies.deepcopy(data)
    for key in path[:-1]:
        place = place[key]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made


def used(folder: Path) -> None:
    """What reads a bundle without running its model."""
    bundle = Bundle.open(folder)
    assert bundle.golden()
    assert bundle.known or bundle.manifest.unknown is None
    assert len(bundle.labels) in (0, bundle.manifest.classes)


def test_any_value_in_the_manifest(hostile: Hostile, folder: Path) -> None:
    """With the digest that it had it is refused. With a new one it is refused, or does nothing but be shown."""
    data, draw = json.loads((folder / "manifest.json").read_text()), random.Random(1)
    for path in paths(data):
        for value in VALUES if len(path) == 1 else draw.sample(VALUES, 2):
            name = (path, str(value)[:40])
            changed_data = put(data, path, value)
            if changed_data != data and path != ("digest",):
                rewritten(folder, changed_data, honest=False)
                with hostile.raises(BadInput, (*name, "digest as before")):
                    Bundle.open(folder)
            rewritten(folder, changed_data)
            with hostile.harmless(name):
                used(folder)


def test_numbers_that_json_cannot_say(hostile: Hostile, folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    data = json.loads(text)
    for key in ("schema", "threads", "max_drop", "budget", "files", "digest"):
        for raw in RAW:
            made = json.dumps({**data, key: "HERE"}).replace('"HERE"', raw)
            with suppress(ValueError, RecursionError):  # what nobody can parse has no digest
                made = json.dumps({**data, key: "HERE", "digest": digest(parse_json(made))}).replace('"HERE"', raw)
            (folder / "manifest.json").write_text(made)
            with hostile.harmless((key, raw[:20])):
                used(folder)


def test_what_runs_is_within_limits(hostile: Hostile, folder: Path) -> None:
    """Fields that decide what is computed, allocated or started, with their digest: through `verify`, in one line."""
    data = json.loads((folder / "manifest.json").read_text())
    preprocess = data["preprocess"]
    for change in (
        {"threads": 10**6},
        {"threads": -1},
        {"classes": 10**9},
        {"classes": 11},
        {"classes": 9},
        {"resolution": 64, "preprocess": {**preprocess, "resolution": 64, "resize": 73}},
        {"resolution": 4096, "preprocess": {**preprocess, "resolution": 4096, "resize": 4096}},
        {"resolution": 10**6, "preprocess": {**preprocess, "resolution": 10**6, "resize": 10**6}},
        {"preprocess": {**preprocess, "resize": 31}},
        {"preprocess": {**preprocess, "resize": 10**9}},
        {"backend": "onnxruntime"},
        {"backend": "onnxruntime", "precision": "int8"},
        {"backend": "../openvino"},
        {"backend": "_cuda"},
        {"precision": "fp16"},
        {"model": "golden.npz"},
        {"model": "labels.txt"},
        {"model": "diagnostics.json"},
        {"model": "model.bin"},
        {"model": "manifest.json"},
    ):
        rewritten(folder, {**data, **change})
        hostile.refused("verify", folder, name=change)
    rewritten(folder, {**data, "preprocess": {**preprocess, "resize": 4096}})
    with hostile.harmless("a camera's frames of 4096 pixels"):
        Bundle.open(folder).verify()


def test_schemas(hostile: Hostile, folder: Path) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    for schema in (0, -1, 3, 99, 10**30, "2", None, [], {}, [2], LONG, "a\nb"):
        rewritten(folder, {**data, "schema": schema})
        hostile.refused("verify", folder, name=("schema", str(schema)[:20]))
    for text in (b"", b"null", b"[]", b"{}", b"{", b"\xff\xfe", b"\x00" * 100, b'"schema"', b"{" * 10**6, b'{"schema": 2}'):
        (folder / "manifest.json").write_bytes(text)
        hostile.refused("verify", folder, name=text[:20])
    whole_text = json.dumps(data).encode()
    for length in random.Random(2).sample(range(len(whole_text)), 30):
        (folder / "manifest.json").write_bytes(whole_text[:length])
        hostile.refused("verify", folder, name=("manifest cut to", length))


NAMES = (
    "../secret",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "a\0b",
    "model.xml/",
    "./model.xml",
    "~/x",
    "two\nlines",
    "\x1b[2J",
    "\u2028",
    LONG,
    "\ud800",
)


def test_paths_lead_nowhere_else(hostile: Hostile, folder: Path) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    (folder.parent / "secret").write_text("secret")
    form = {**data["siblings"][0], "file": ""}
    for name in NAMES:
        for change in (
            {"model": name},
            {"files": {**data["files"], name: "0" * 64}},
            {"forms": [{**form, "file": name or "/"}]},
        ):
            rewritten(folder, {**data, **change})
            hostile.refused("verify", folder, name=(name[:20], *change))


def test_only_files_are_opened(hostile: Hostile, folder: Path) -> None:
    """Links are refused even where they lead to the very file, and pipes and devices are never read."""
    (folder.parent / "outside").mkdir()

    def link(path: Path) -> None:
        kept = folder.parent / "outside" / path.name
        shutil.copy(path, kept)
        path.unlink()
        path.symlink_to(kept)

    def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
        def replace(path: Path) -> None:
            path.unlink()
            make(path)

        return replace

    kinds: dict[str, Callable[[Path], object]] = {
        "a link to the same file": link,
        "a link to /dev/zero": instead(lambda path: path.symlink_to("/dev/zero")),
        "a link to itself": instead(lambda path: path.symlink_to(path)),
        "a link to nothing": instead(lambda path: path.symlink_to("nothing")),
        "a pipe": instead(os.mkfifo),
        "a folder": instead(Path.mkdir),
        "nothing": Path.unlink,
        "an empty file": lambda path: path.write_bytes(b""),
    }
    for name in sorted(p.name for p in folder.iterdir()):
        for kind, make in kinds.items():
            hurt = Path(shutil.copytree(folder, folder.parent / "hurt"))
            make(hurt / name)
            hostile.refused("verify", hurt, name=(name, kind))
            shutil.rmtree(hurt)


def test_nothing_more_lies_in_it(hostile: Hostile, folder: Path) -> None:
    for name, make in {
        "notes.txt": Path.touch,
        ".hidden": Path.touch,
        "subfolder": Path.mkdir,
        "pipe": os.mkfifo,
        "two\nlines": Path.touch,
        "\x1b[2J": Path.touch,
        os.fsdecode(b"\xff"): Path.touch,
    }.items():
        make(folder / name)
        hostile.refused("verify", folder, name=name)
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()
    os.mkfifo(folder / "manifest.sig")
    hostile.refused("verify", folder, name="manifest.sig is a pipe")
    (folder / "manifest.sig").unlink()
    (folder / "manifest.sig").symlink_to("/dev/zero")
    hostile.refused("verify", folder, name="manifest.sig is a link")
    for path in ("nothing", "bundle/manifest.json", "bundle/model.xml"):
        hostile.refused("verify", folder.parent / path)


def test_labels_are_as_many_as_classes(hostile: Hostile, folder: Path) -> None:
    names = [str(i) for i in range(10)]
    for lines in (
        names[:9],
        [*names, "ten"],
        ["0\u20281", *names[2:]],
        ["0\u20281", *names[1:]],
        ["0\x851", *names[1:]],
        ["0\r", *names[1:]],
        ["0\r1", *names[2:]],
        ["0\x0b1", *names[1:]],
        ["0\x1c1", *names[1:]],
        ["\x1b[2J", *names[1:]],
        ["\x07", *names[1:]],
        ["", *names[1:]],
        [],
        [LONG],
        [""] * 100_000,
    ):
        with changed(folder, "labels.txt", ("\n".join(lines) + "\n").encode()):
            hostile.refused("verify", folder, name=str(lines)[:60])
    for data in (b"", b"\n", b"\xff\n" * 10, b"\xef\xbb\xbf", "0\n1\n".encode("utf-16")):
        with changed(folder, "labels.txt", data):
            hostile.refused("verify", folder, name=data[:20])


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(header: str, data: bytes = b"") -> bytes:
    """An array's file with a header as it is written."""
    return b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n" + data


def test_golden_photos(hostile: Hostile, folder: Path) -> None:
    good, draw = (folder / "golden.npz").read_bytes(), random.Random(3)
    golden = dict(Bundle.open(folder).golden())
    images, logits = golden["images"], golden["logits"]

    def with_one(number: float) -> np.ndarray:
        made = logits.copy()
        made[3, 4] = number
        return made

    arrays = {
        f"a logit of {number}": npz(images=images, logits=with_one(number)) for number in (np.nan, np.inf, -np.inf, 1e30, 3e38)
    }
    wrong: dict[str, dict[str, Any]] = {
        "no images": {"logits": logits},
        "no logits": {"images": images},
        "no arrays": {},
        "objects": {"images": images, "logits": logits.astype(object)},
        "objects instead of images": {"images": np.array([{}] * 8, object), "logits": logits},
        "float images": {"images": images.astype(np.float32), "logits": logits},
        "int16 images": {"images": images.astype(np.int16), "logits": logits},
        "double logits": {"images": images, "logits": logits.astype(np.float64)},
        "integer logits": {"images": images, "logits": logits.astype(np.int32)},
        "complex logits": {"images": images, "logits": logits.astype(np.complex64)},
        "logits as text": {"images": images, "logits": logits.astype("U8")},
        "logits as dates": {"images": images, "logits": logits.astype("M8[s]")},
        "constant logits": {"images": images, "logits": np.zeros_like(logits)},
        "other logits": {"images": images, "logits": -logits},
        "fewer logits": {"images": images, "logits": logits[:4]},
        "fewer classes": {"images": images, "logits": logits[:, :9]},
        "more classes": {"images": images, "logits": np.tile(logits, 2)},
        "flat logits": {"images": images, "logits": logits.ravel()},
        "a number for images": {"images": np.uint8(1), "logits": logits},
        "a number for logits": {"images": images, "logits": np.float32(1)},
        "no photo": {"images": images[:0], "logits": logits[:0]},
        "smaller photos": {"images": images[:, :16, :16], "logits": logits},
        "grey photos": {"images": images[..., :1], "logits": logits},
        "flat photos": {"images": images.reshape(8, -1), "logits": logits},
        "more, wrong": {**golden, "int8-fp16": logits[:, :3]},
        "more, not finite": {**golden, "int8-fp16": np.full_like(logits, np.nan)},
        "a name to escape": {**golden, "\x1b[2J\n": logits[:2]},
    }
    arrays |= {name: npz(**each) for name, each in wrong.items()}
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': "
    pictures = io.BytesIO()
    np.save(pictures, images)
    for shape in ("(10**12,)", "(1000000000000, 10)", "(-1, 10)", "(8, 10, ", "None", "'8'", "(8.0, 10)", "(True, 10)", "()"):
        arrays[f"shape {shape}"] = archive(images=pictures.getvalue(), logits=npy(f"{head}{shape}}}", bytes(320)))
    for header in (
        "",
        "{}",
        "__import__('os').system('true')",
        "[" * 5000,
        "{'descr': 'O'}",
        "\udcff".encode("utf-8", "replace").decode(),
    ):
        arrays[f"header {header[:20]!r}"] = archive(images=pictures.getvalue(), logits=npy(header))
    for descr in (
        "'|O'",
        "'<f4,<f4'",
        "[('a', '<f4')]",
        "'V1000000000'",
        "'<U1000000'",
        "[['a']]",
        "1",
        "'nonsense'",
        "('<f4', (9, 9))",
    ):
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (8, 10)}}"
        arrays[f"descr {descr}"] = archive(images=pictures.getvalue(), logits=npy(header, bytes(320)))
    arrays["a bomb"] = archive(images=npy("{'descr': '|u1', 'fortran_order': False, 'shape': (300000000,)}", bytes(300_000_000)))
    arrays["no zip file"] = b"PK\x03\x04" + bytes(1000)
    arrays["a pickle"] = b"\x80\x04N."
    arrays["an array"] = pictures.getvalue()
    arrays["no arrays but text"] = archive(images=b"text", logits=b"text")
    for name, contents in arrays.items():
        with changed(folder, "golden.npz", contents):
            hostile.refused("verify", folder, name=f"golden photos: {name}")
    for length in draw.sample(range(len(good)), 40):
        with changed(folder, "golden.npz", good[:length]):
            hostile.refused("verify", folder, name=f"golden photos cut to {length}")
    for _ in range(80):
        made, place = bytearray(good), draw.randrange(len(good))
        made[place] ^= 1 << draw.randrange(8)
        with changed(folder, "golden.npz", bytes(made)), hostile.harmless(f"golden photos with a bit of {place} flipped"):
            Bundle.open(folder).golden()


def test_the_compiled_file(hostile: Hostile, folder: Path) -> None:
    """The runtime's parser meets what was cut off, or changed and hashed again: an answer in one line, or other logits."""
    draw, photo = random.Random(4), Bundle.open(folder).golden()["images"][:1]
    for name in ("model.xml", "model.bin"):
        good = (folder / name).read_bytes()
        for length in (0, 1, *draw.sample(range(len(good)), 6)):
            with changed(folder, name, good[:length]):
                hostile.refused("verify", folder, name=f"{name} cut to {length}")
        for _ in range(10):
            made, place = bytearray(good), draw.randrange(len(good))
            made[place] ^= 1 << draw.randrange(8)
            with changed(folder, name, bytes(made)), hostile.harmless(f"{name} with a bit of {place} flipped"):
                Bundle.open(folder).load()(photo)
    xml = (folder / "model.xml").read_text()
    for old, new in {
        "<net ": '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><net ',
        'version="11"': 'version="-1"',
        'type="Convolution"': 'type="\x07Nonsense&#10;two lines"',
        'type="Parameter"': 'type="Nothing"',
        'element_type="u8"': 'element_type="f32"',
        "<dim>32</dim>": "<dim>-32</dim>",
        "<dim>3</dim>": "<dim>99999999999999999999</dim>",
        'shape="1,32,32,3"': 'shape="1,64,64,3"',
        'offset="0"': 'offset="99999999999"',
        "<edges>": "<edges><edge/>",
        "<layers>": "<layers>" * 10_000,
    }.items():
        with changed(folder, "model.xml", xml.replace(old, new).encode()), hostile.harmless(f"model.xml with {new[:60]}"):
            Bundle.open(folder).load()(photo)


def test_graphs_keep_their_weights_within(hostile: Hostile, whole: Path) -> None:
    """An ONNX file may name any other file as the place of its weights."""
    import onnx
    from onnx import external_data_helper

    (whole.parent / "weights").write_bytes(bytes(1 << 20))
    good = onnx.load(whole / "model.onnx")
    for place in ("../weights", str(whole.parent / "weights"), "/dev/zero", "model.bin", "weights"):
        graph = onnx.ModelProto()
        graph.CopyFrom(good)
        tensor = max(graph.graph.initializer, key=lambda each: len(each.raw_data))
        external_data_helper.set_external_data(tensor, place, 0, len(tensor.raw_data))
        tensor.ClearField("raw_data")
        with changed(whole, "model.onnx", graph.SerializeToString()):
            hostile.refused("inspect", whole, words=("one file",), name=f"weights in {place}")
    written, draw = (whole / "model.onnx").read_bytes(), random.Random(5)
    for length in (0, 1, *draw.sample(range(len(written)), 3)):
        with changed(whole, "model.onnx", written[:length]):
            hostile.refused("inspect", whole, name=f"model.onnx cut to {length}")
    for contents in (b"", b"<net", (whole / "model.xml").read_bytes()[:1000]):
        with changed(whole, "model.xml", contents):
            hostile.refused("inspect", whole, name=("inspect", contents[:20]))
    (whole / "model.onnx").unlink()
    data = json.loads((whole / "manifest.json").read_text())
    del data["files"]["model.onnx"]
    rewritten(whole, data)
    hostile.refused("inspect", whole, words=("holds no model.onnx",))


def test_other_verbs(hostile: Hostile, folder: Path, few_digits: Path) -> None:
    """What verify refuses, eval and bench refuse as well where they read it."""
    xml = (folder / "model.xml").read_bytes()
    for contents in (b"", b"<net", xml[: len(xml) // 2], xml.replace(b'shape="1,32,32,3"', b'shape="1,64,64,3"')):
        with changed(folder, "model.xml", contents):
            hostile.refused("eval", folder, "--val", few_digits / "val", name=("eval", contents[:20]))
            hostile.refused("bench", folder, "--rounds", 2, name=("bench", contents[:20]))
    for contents in (b"", b"{", b"[]", b"{}", b'{"layers": 1}', b"[" * 100_000, b"\xff"):
        with changed(folder, "diagnostics.json", contents):
            hostile.refused("report", folder, name=("report", contents[:20]))


def test_what_says_where_an_engine_is_from(hostile: Hostile, tmp_path: Path) -> None:
    """Read before a plan is, and listed by `inspect --engine`."""
    plan = tmp_path / "model.engine"
    plan.write_bytes(b"plan")
    for text in (b"", b"{", b"[]", b"null", b"{}", b'{"tensorrt": 1}', b"[" * 100_000, b"\xff", b'{"tensorrt": "10.3", "x": NaN}'):
        plan.with_name("model.engine.json").write_bytes(text)
        with hostile.raises(BadInput, ("model.engine.json", text[:20])):
            tensorrt._own(plan, b"plan", None, None)


def test_layers_of_an_engine(hostile: Hostile, folder: Path) -> None:
    facts = Bundle.open(folder).manifest
    for text in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"Layers": 1}',
        b'{"Layers": [1]}',
        b'{"Layers": [{"Inputs": [1]}]}',
        b"[" * 100_000,
        b"\xff",
    ):
        (folder / "layers.json").write_bytes(text)
        seal(folder, facts)
        hostile.refused("inspect", folder, "--engine", name=("layers.json", text[:20]))
