"""Files: those that a user gave, read within bounds; atomic writes; and the folders that keep a fit's finished stages."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from .errors import BadInput

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REASONS = {
    errno.ENOENT: "no such file or folder. Check the path.",
    errno.EISDIR: "it is a folder, expected a file. Give a file's path.",
    errno.ELOOP: "it is a link, expected a file. Give the file that is meant.",
    errno.ENOTDIR: "a part of the path is a file, expected a folder. Check the path.",
    errno.EACCES: "permission denied. Change the permissions (chmod, chown), or give another path.",
    errno.EPERM: "permission denied. Change the permissions (chmod, chown), or give another path.",
    errno.EROFS: "its file system is read-only. Mount it for writing, or give another path.",
    **dict.fromkeys(NO_SPACE, "no space left on its disk, or over a quota or size limit. Free some space, or give another path."),
}


@contextlib.contextmanager
def user_path(path: str | Path, use: Literal["read", "written"]) -> Iterator[None]:
    """Within the block, which uses a path that the user gave, an OSError becomes BadInput: what was wrong, and what to do.

    It names the file that the operating system names where that lies within `path`, otherwise `path`.
    """
    try:
        yield
    except OSError as error:
        failed = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
        named = failed if Path(path) in Path(failed).parents else path
        reason = REASONS.get(error.errno or 0, f"{error.strerror or error}. Check the path.")
        raise BadInput(f"{named}: cannot be {use}: {reason}") from error


@contextlib.contextmanager
def open_file(path: str | Path, limit: float = math.inf, *, follow: bool = True) -> Iterator[BinaryIO]:
    """A file that somebody else made, opened for reading.

    Raises BadInput where it cannot be read or may never end: for a pipe or a device, for more than `limit` bytes, and for a link
    unless `follow`, since that could lead elsewhere.
    """

    def without_waiting(name: str, flags: int) -> int:  # for somebody who writes into a pipe
        return os.open(name, flags | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW))

    with user_path(path, "read"), open(path, "rb", opener=without_waiting) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise BadInput(f"{path}: it is a pipe or a device, expected a file. Give a file's path.")
        if facts.st_size > limit:
            raise BadInput(f"{path}: {facts.st_size / 1e6:,.1f} MB, expected at most {limit / 1e6:,g}. Give a smaller file.")
        yield file


def read_file(path: str | Path, limit: float, *, follow: bool = True) -> bytes:
    """The contents of a file that somebody else made; raises BadInput as `open_file` does."""
    with open_file(path, limit, follow=follow) as file:
        return file.read()


def read_lines(path: str | Path, limit: int) -> list[str]:
    """The lines of a UTF-8 text file that the user gave, each ended by LF or CRLF. Raises BadInput where it is no such text."""
    try:
        text = read_file(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


@contextlib.contextmanager
def space_in(folder: Path) -> Iterator[None]:
    """Within the block, which writes into `folder`, a full disk becomes BadInput. Any other OSError stays what it is."""
    try:
        yield
    except OSError as error:
        if full := full_disk(error, folder):
            raise full from error
        raise


def full_disk(error: OSError, folder: Path | None = None) -> BadInput | None:
    """A full disk as BadInput that names the file, or `folder` where the error names none; None for any other error.

    A failed write names no file; without a `folder` it was one to standard output or to a temporary file.
    """
    if isinstance(error, FileNotFoundError) and str(error.strerror).startswith("No usable temporary directory"):
        return BadInput(f"{error.strerror}. Free some space there, or set TMPDIR to a folder that can be written.")
    if error.errno not in NO_SPACE:
        return None
    where = error.filename or folder or f"standard output or {os.environ.get('TMPDIR', '/tmp')}"
    return BadInput(f"{where}: cannot be written: {REASONS[error.errno]}")


class StageCache:
    """Folders under `root`, each made once: what a stage of a fit has finished.

    A hidden folder beside the output. It belongs to one set of inputs: other inputs start it anew. Removed when the fit succeeded.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, out: Path, inputs: Mapping[str, object]) -> StageCache:
        """The cache beside `out`, empty unless its earlier contents came of the same inputs."""
        root = out.parent / f".{out.name}.partial"
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        marker = root / "inputs.sha256"
        with user_path(out, "written"):
            if not (marker.is_file() and marker.read_text() == key):
                shutil.rmtree(root, ignore_errors=True)
                root.mkdir(parents=True)
                marker.write_text(key)
        return cls(root)

    def within(self, name: str) -> StageCache:
        """A part of it, kept apart from the others."""
        (self.root / name).mkdir(exist_ok=True)
        return StageCache(self.root / name)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder `name`, filled by `make` unless an earlier run did; it appears whole or not at all."""
        folder = self.root / name
        if not folder.exists():
            unfinished = self.scratch(f"{name}.unfinished")
            make(unfinished)
            os.replace(unfinished, folder)
        return folder

    def scratch(self, name: str) -> Path:
        """An empty folder."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary name beside the target, then rename."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)  # mkstemp's files are readable by their owner alone
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def cache_folder() -> Path:
    """What outlives a run: $XDG_CACHE_HOME/edgeeff, by default ~/.cache/edgeeff."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeeff"
