"""Files: what is said about a path that cannot be used, atomic writes, and the folders that keep a fit's finished stages."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
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


@contextlib.contextmanager
def open_regular(path: Path, *, follow: bool = False) -> Iterator[BinaryIO]:
    """A file that somebody else may have made, open for reading. Raises BadInput where it is a link, unless `follow`, a folder, a
    pipe or a device: one could lead elsewhere, never answer, or never end."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadInput(f"{path}: is a link, expected a file. Copy the file that it leads to.") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BadInput(f"{path}: is a folder, a pipe or a device, expected a file.")
        with open(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def read_regular(path: Path, *, limit: int, follow: bool = False) -> bytes:
    """The contents of a file as `open_regular` takes it. Raises BadInput where it has more than `limit` bytes."""
    with open_regular(path, follow=follow) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadInput(f"{path}: is larger than {limit:,} bytes, which no such file is. Check the path.")
    return data


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
