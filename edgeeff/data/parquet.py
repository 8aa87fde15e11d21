"""Photos in Parquet files as the library `datasets` writes them: a column of image files, and one of classes.

pyarrow reads them. Its row groups cannot be read photo by photo, so the photos are copied into an anonymous temporary file first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import BadInput
from ..files import open_file
from .labels import MOST_CLASSES, class_names, numbered
from .photos import Packed, Parts, Photo, most_bytes, refuse_large, space_for

if TYPE_CHECKING:
    import pyarrow

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.parquet")
BATCH = 16  # photos in memory at a time
EXPECTED = "Expected a table as datasets writes it: image (a structure of bytes and path), and label."
Labels = tuple[tuple[int, ...], tuple[str, ...]]


def shards(path: Path) -> list[Path]:
    """All files of a table of which `path` is one, in order: NAME-00000-of-00003.parquet and so on. Raises BadInput for a gap."""
    named = SHARD.fullmatch(path.name)
    if not named:
        return [path]
    count = int(named[3])
    found = sorted(p for p in path.parent.iterdir() if (m := SHARD.fullmatch(p.name)) and (m[1], m[3]) == (named[1], named[3]))
    if [int(p.name[-len("00000-of-00000.parquet") :][:5]) for p in found] != list(range(count)):
        raise BadInput(f"{path}: {len(found)} of {count} files of that table are there. Put all of them into its folder.")
    return found


def read(path: Path) -> tuple[list[Photo], Labels | None]:
    """The photos of a table, row by row, with their labels and the names of the classes, if there are labels.

    Raises BadInput for another table or a damaged one, and for labels out of range; ModuleNotFoundError without pyarrow.
    """
    import pyarrow.parquet

    photos, labels, names = list[Photo](), list[object](), set[tuple[str, ...] | None]()
    for file in shards(path):
        try:
            with open_file(file) as opened, pyarrow.parquet.ParquetFile(opened, pre_buffer=False) as table:
                image, label, told = _columns(file, table.schema_arrow)
                names.add(told)
                size = os.fstat(opened.fileno()).st_size
                declared = sum(table.metadata.row_group(i).total_byte_size for i in range(table.num_row_groups))
                if not 0 <= declared <= most_bytes(size):
                    raise BadInput(f"{file}: holds {declared / 1e6:,.0f} MB, more than photos shrink to its size.")
                columns = [image] if label is None else [image, label]
                batches = table.iter_batches(batch_size=BATCH, columns=columns, use_threads=False)
                rows = (row for batch in batches for row in batch.to_pylist())
                copied = _copied(file, ((row[image], row.get(label)) for row in rows), most_bytes(size))
        except BadInput:
            raise
        except Exception as error:  # a damaged file raises nearly anything
            raise _damaged(file, error) from error
        photos += [photo for photo, _ in copied]
        labels += [told for _, told in copied]
    if len(names) > 1:
        raise BadInput(f"{path}: the files of the table name different classes. Expected those of one table.")
    if label is None:
        return photos, None
    return photos, _labels(path, labels, names.pop())


def _columns(file: Path, schema: pyarrow.Schema) -> tuple[str, str | None, tuple[str, ...] | None]:
    """The columns of photos and of classes, and the names of the classes, as far as there are any."""
    features = _features(file, (schema.metadata or {}).get(b"huggingface"))
    images = [field.name for field in schema if _is_image(field.type)]
    if len(images) != 1:
        raise BadInput(f"{file}: {len(images)} columns of photos among {', '.join(schema.names)[:200]}. {EXPECTED}")
    named = [name for name in schema.names if name in features] or [name for name in schema.names if name == "label"]
    if len(named) > 1:
        raise BadInput(f"{file}: {' and '.join(named)[:200]} have classes. Keep one of the columns.")
    if not named:
        return images[0], None, None
    return images[0], named[0], features.get(named[0])


def _is_image(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return pyarrow.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}


class _Info(msgspec.Struct):
    features: dict[str, object] = {}


class _Metadata(msgspec.Struct):
    info: _Info = msgspec.field(default_factory=_Info)


class _ClassLabel(msgspec.Struct, tag_field="_type", tag="ClassLabel"):
    names: list[str]


def _features(file: Path, metadata: bytes | None) -> dict[str, tuple[str, ...]]:
    """The names of the classes of each column that has some, as `datasets` writes them into the schema."""
    if metadata is None:
        return {}
    try:
        features = msgspec.json.decode(metadata, type=_Metadata).info.features
        found = {
            column: msgspec.convert(feature, _ClassLabel).names
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except msgspec.DecodeError as error:
        raise BadInput(f"{file}: its metadata are not those of datasets ({error}). {EXPECTED}") from error
    return {column: class_names(names[: MOST_CLASSES + 1], file) for column, names in found.items()}


def _copied(file: Path, rows: Iterator[tuple[Any, Any]], limit: int) -> list[tuple[Packed, object]]:
    """The photos, copied into a temporary file, with what the other column says of each."""
    found, end = [], 0
    with space_for(file) as out:
        parts = Parts(out)
        for number, (image, label) in enumerate(rows):
            name, contents = file / str(number), (image or {}).get("bytes")
            if contents is None:
                raise BadInput(f"{name}: the row has no bytes of a photo. {EXPECTED}")
            refuse_large(name, len(contents))
            found.append((parts.photo(name, end, len(contents)), label))
            out.write(contents)
            end += len(contents)
            if end > limit:
                raise BadInput(f"{file}: holds over {limit / 1e6:,.0f} MB, more than photos shrink to its size.")
        out.flush()
    return found


def _labels(path: Path, labels: list[object], names: tuple[str, ...] | None) -> Labels:
    for row, label in enumerate(labels):
        if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "" or str(label).startswith("-"):
            raise BadInput(f"{path}: row {row}: class {label!r:.40}: expected a number from 0, or a name.")
        if names is not None and not (isinstance(label, int) and label < len(names)):
            raise BadInput(f"{path}: row {row}: class {label!r:.40} is out of range for {len(names)} names of classes.")
    if names is not None:
        return tuple(label for label in labels if isinstance(label, int)), names
    return numbered([str(label) for label in labels], [f"{path}: row {row}" for row in range(len(labels))])


def _damaged(file: Path, error: Exception) -> BadInput:
    return BadInput(f"{file}: cannot be read as a Parquet file ({str(error) or type(error).__name__:.200}). {EXPECTED}")
