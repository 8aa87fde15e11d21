"""Lists of labelled photos (labels.txt, CSV, JSON Lines, COCO) as rows of a file's name and its class, and the names of classes."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from ..errors import BadInput
from ..files import lines_of, text_of

T = TypeVar("T")

LIST_BYTES = 250_000_000
MOST_CLASSES = 100_000  # five times as many as ImageNet-21k has
FILE_COLUMNS = ("file", "file_name", "filename", "image", "path", "photo")
CLASS_COLUMNS = ("class", "class_name", "label", "category", "target")
LISTS = ("labels.txt", "labels.csv", "metadata.csv", "metadata.jsonl", "_annotations.coco.json")
"""The lists that are found in a folder; one of another name has to be given itself. Hugging Face and Roboflow write the latter."""


class Row(NamedTuple):
    """A photo in a list: where it stands, its file's name and its class."""

    where: str
    file: str
    label: str


def rows(listing: Path, contents: bytes) -> Iterator[Row]:
    """The rows of a list, by the ending of its name; raises BadInput with the line where it is no such list."""
    return READERS[listing.suffix.lower()](listing, contents)


def class_names(names: Iterable[str], source: object) -> tuple[str, ...]:
    """The names as a bundle stores them, one line of UTF-8 text each. Raises BadInput, with their `source`, for others."""
    found = tuple(names)
    for name in found:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise BadInput(f"{source}: class {name!r}: the name is not UTF-8 text. Rename it.") from error
        if not name or any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
            raise BadInput(f"{source}: class {name[:80]!r}: expected a name of one line without control characters. Rename it.")
    return found


def numbered(labels: Sequence[str], sources: Iterable[object]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Labels as indices into class names, in the order of the names; where all are numbers, those, and no names.

    Raises BadInput, with the source of a label, for one that cannot be a class.
    """
    if all(label.isdecimal() for label in labels):
        return tuple(_class_number(label, source) for label, source in zip(labels, sources, strict=True)), ()
    placed = dict(zip(labels, sources, strict=True))
    positions = {name: i for i, name in enumerate(sorted(placed))}
    for name in positions:
        class_names([name], placed[name])
    return tuple(positions[label] for label in labels), tuple(positions)


def _class_number(text: str, source: object) -> int:
    if len(text) > len(str(MOST_CLASSES)) or int(text) >= MOST_CLASSES:
        raise BadInput(f"{source}: class {text[:40]}: expected a number below {MOST_CLASSES}.")
    return int(text)


def _tabbed(listing: Path, contents: bytes) -> Iterator[Row]:
    for number, line in enumerate(lines_of(text_of(contents, listing)), 1):
        if not line.strip():
            continue
        name, tab, label = line.partition("\t")
        label = label.strip(" ")
        if not tab or not label or "\t" in label or label.startswith("-"):
            raise BadInput(f"{listing}:{number}: expected 'file<TAB>class', found {line[:60]!r}.")
        yield Row(f"{listing}:{number}", name, label)


def _comma_separated(listing: Path, contents: bytes) -> Iterator[Row]:
    lines = csv.reader(io.StringIO(text_of(contents, listing), newline=""), strict=True)
    columns: tuple[int, int] | None = None
    try:
        for cells in lines:
            where = f"{listing}:{lines.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _columns([cell.strip().lower() for cell in cells], where)
                if columns is not None:
                    continue
                columns = (0, 1)
                if len(cells) != 2:
                    raise BadInput(f"{where}: expected 'file,class', or a header that names both columns. Found {cells!r:.80}.")
            if len(cells) <= max(columns):
                raise BadInput(f"{where}: expected 'file,class', found {cells!r:.80}.")
            yield _row(where, cells[columns[0]], cells[columns[1]])
    except csv.Error as error:
        raise BadInput(f"{listing}:{lines.line_num}: not CSV ({error}). Expected 'file,class'.") from error


def _json_lines(listing: Path, contents: bytes) -> Iterator[Row]:
    for number, line in enumerate(lines_of(text_of(contents, listing)), 1):
        if not line.strip():
            continue
        where = f"{listing}:{number}"
        entry = _decoded(line.encode(), dict[str, object], where, '{"file_name": "a.jpg", "label": "rose"}')
        columns = _columns([key.lower() for key in entry], where)
        if columns is None:
            raise BadInput(f"{where}: expected file_name and label, found {', '.join(entry)[:60] or 'nothing'}.")
        name, label = (list(entry.values())[column] for column in columns)
        if not isinstance(name, str) or not isinstance(label, (str, int)) or isinstance(label, bool):
            raise BadInput(f"{where}: expected a file's name as text, and its class as text or a number.")
        yield _row(where, name, str(label))


class _Image(msgspec.Struct):
    id: int | str
    file_name: str


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int | str
    category_id: int


class _Coco(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def _coco(listing: Path, contents: bytes) -> Iterator[Row]:
    """The category of each image: https://cocodataset.org/#format-data."""
    coco = _decoded(contents, _Coco, listing, "COCO's images, annotations and categories")
    names = _unique(((category.id, category.name) for category in coco.categories), f"{listing}: category")
    files = _unique(((image.id, image.file_name) for image in coco.images), f"{listing}: image")
    found = dict[int | str, str]()
    for annotation in coco.annotations:
        name = names.get(annotation.category_id)
        if annotation.image_id not in files or name is None:
            what = f"image {annotation.image_id} of category {annotation.category_id}"
            raise BadInput(f"{listing}: an annotation is of {what:.80}, which is not in the file.")
        if found.setdefault(annotation.image_id, name) != name:
            both = f"{found[annotation.image_id]!r:.80} and {name!r:.80}"
            raise BadInput(f"{listing}: {files[annotation.image_id]:.200}: is {both}. Expected one category for each image.")
    for image in coco.images:
        if image.id not in found:
            raise BadInput(f"{listing}: {image.file_name:.200}: has no annotation. Expected one category for each image.")
        yield _row(f"{listing}", image.file_name, found[image.id])


READERS: Mapping[str, Callable[[Path, bytes], Iterator[Row]]] = {
    ".txt": _tabbed,
    ".csv": _comma_separated,
    ".jsonl": _json_lines,
    ".json": _coco,
}


def _columns(names: list[str], where: str) -> tuple[int, int] | None:
    """Where a header has the file and the class; None for one that does not name both, which is no header."""
    file, label = ([i for i, name in enumerate(names) if name in known] for known in (FILE_COLUMNS, CLASS_COLUMNS))
    if not file or not label:
        return None
    for found in (file, label):
        if len(found) > 1:
            raise BadInput(f"{where}: {' and '.join(names[i] for i in found)} say the same. Keep one of the columns.")
    return file[0], label[0]


def _row(where: str, name: str, label: str) -> Row:
    label = label.strip(" ")
    if not label or label.startswith("-"):
        raise BadInput(f"{where}: {name:.80}: class {label:.40}: expected a name, or a number from 0.")
    return Row(where, name, label)


def _unique(pairs: Iterable[tuple[int | str, str]], what: str) -> dict[int | str, str]:
    found = dict[int | str, str]()
    for key, value in pairs:
        if key in found:
            raise BadInput(f"{what} {key!r:.40} is there twice. Expected each id once.")
        found[key] = value
    return found


def _decoded(text: bytes, kind: type[T], where: object, expected: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise BadInput(f"{where}: expected {expected} ({error}).") from error
