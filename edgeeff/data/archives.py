"""Photos in zip and tar archives. Nothing is unpacked to names on the disk, and nothing outside an archive is read.

A member is read when it is needed, by its position. Only a compressed tar, which has no positions, is decompressed first, into an
anonymous temporary file.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import stat
import tarfile
import weakref
import zipfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

from ..errors import BadInput
from ..files import open_file
from .photos import Packed, Parts, most_bytes, refuse_large, space_for
from .trees import Archive

T = TypeVar("T")

MOST_MEMBERS = 2_000_000  # ImageNet has 1.3 million
MOST_FOLDERS = 32  # in each other
MAX_NAME = 4096  # characters; Linux takes no longer path
HEADER_BYTES = 1_000_000  # of a tar's member
DIRECTORY_BYTES = 250_000_000  # of a zip archive


def open_zip(path: Path) -> Archive:
    """The members of a zip archive. Raises BadInput for a damaged one, and for what no set of photos is."""
    with open_file(path) as opened:
        size = os.fstat(opened.fileno()).st_size
        file = _Bounded(io.FileIO(os.dup(opened.fileno())), DIRECTORY_BYTES)
    try:
        archive = zipfile.ZipFile(file)
        weakref.finalize(archive, file.close)
        return Archive(path, _zipped(path, archive, most_bytes(size)))
    except BadInput:
        file.close()
        raise
    except Exception as error:  # a damaged archive raises nearly anything
        file.close()
        raise _damaged(path, error) from error


def open_tar(path: Path) -> Archive:
    """The members of a tar archive, compressed by gzip or not. Raises BadInput as `open_zip` does."""
    with contextlib.ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(open_file(path))
        try:
            if file.read(2) == b"\x1f\x8b":
                file = stack.enter_context(_decompressed(path, file))
            return Archive(path, _in_tar(path, file))
        except BadInput:
            raise
        except Exception as error:  # a damaged archive raises nearly anything
            raise _damaged(path, error) from error


class _Bounded(io.BufferedReader):
    """A file of which no more than `limit` bytes are read at once, whatever its headers say."""

    def __init__(self, raw: io.FileIO, limit: int) -> None:
        super().__init__(raw)
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > self._limit:
            raise ValueError("a header of an impossible size")
        return super().read(max(0, size))


def _zipped(path: Path, archive: zipfile.ZipFile, limit: int) -> Iterator[tuple[str, Packed]]:
    total = 0
    for info in _few(path, archive.infolist()):
        name = _name(path, info.filename)
        if info.is_dir():
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise BadInput(f"{path}: {name:.200}: is a link or a device. Expected files and folders alone.")
        if info.flag_bits & 1:
            raise BadInput(f"{path}: {name:.200}: is encrypted. Pack the photos without a password.")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadInput(f"{path}: {name:.200}: compressed by method {info.compress_type}. Expected deflate, or none.")
        total += info.file_size
        if total > limit:
            raise _bomb(path, limit)
        if not _hidden(name):
            yield name, Packed(path / name, partial(_unzipped, path / name, archive, info))


def _unzipped(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    refuse_large(path, info.file_size)
    try:
        with archive.open(info) as member:
            return member.read(info.file_size + 1)  # without a number, read() decompresses as much as there is
    except Exception as error:  # a damaged archive raises nearly anything
        raise BadInput(f"{path}: damaged in its archive ({str(error) or type(error).__name__:.100})") from error


def _in_tar(path: Path, file: IO[bytes]) -> Iterator[tuple[str, Packed]]:
    parts, size = Parts(file), os.fstat(file.fileno()).st_size
    headers = _Bounded(io.FileIO(os.dup(file.fileno())), HEADER_BYTES)
    with headers, tarfile.open(fileobj=headers, mode="r:") as archive:
        headers.seek(0)
        for member in _few(path, _members(archive)):
            name = _name(path, member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise BadInput(f"{path}: {name:.200}: is a link, a device or a sparse file. Expected files and folders alone.")
            if not 0 <= member.size <= size - member.offset_data:
                raise ValueError("it is cut off")
            if not _hidden(name):
                yield name, parts.photo(path / name, member.offset_data, member.size)
        headers.seek(archive.offset)
        if headers.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError("it is cut off, or damaged in the middle")


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep a kilobyte for each
        yield member


@contextlib.contextmanager
def _decompressed(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """What is in a gzip file, as a temporary file."""
    file.seek(0)
    limit, written = most_bytes(os.fstat(file.fileno()).st_size), 0
    with space_for(path) as out, gzip.GzipFile(fileobj=file) as packed:
        while chunk := packed.read(1 << 20):
            written += len(chunk)
            if written > limit:
                raise _bomb(path, limit)
            out.write(chunk)
        out.flush()
        out.seek(0)
        yield out


def _few(path: Path, members: Iterable[T]) -> Iterator[T]:
    for number, member in enumerate(members):
        if number >= MOST_MEMBERS:
            raise BadInput(f"{path}: over {MOST_MEMBERS:,} members. Split it.")
        yield member


def _name(path: Path, name: str) -> str:
    """A member's name without "." in it; raises BadInput for one that would lie elsewhere if it were unpacked."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise BadInput(f"{path}: a member {name[:200]!r}: expected names with / that lie within the archive. Pack it again.")
    if len(parts) > MOST_FOLDERS or len(name) > MAX_NAME:
        raise BadInput(f"{path}: a member {name[:80]!r} …: expected at most {MOST_FOLDERS} folders and {MAX_NAME} characters.")
    return "/".join(parts)


def _hidden(name: str) -> bool:
    """Whether a folder would show it: macOS puts a folder of its own, and files that begin with a dot, beside what it packs."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _bomb(path: Path, limit: int) -> BadInput:
    return BadInput(
        f"{path}: holds over {limit / 1e6:,.0f} MB, more than photos shrink to its size. Expected an archive of photos."
    )


def _damaged(path: Path, error: Exception) -> BadInput:
    return BadInput(f"{path}: cannot be read as an archive ({str(error) or type(error).__name__:.100}). Copy or pack it again.")
