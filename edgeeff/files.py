"""Files: those that a user gave, read within bounds; locks, atomic writes, and the folders that keep a fit's finished stages."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from .errors import BadInput

LOG = logging.getLogger(__name__)
LOCK = "lock"  # in the hidden folder in which an output is made, and in each temporary one
TEMPORARY, FILES = "edgeeff-", "files"  # a temporary folder's name begins so; in it, beside the lock, are the files
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_DISK = (*NO_SPACE, errno.EIO, errno.EROFS)  # EROFS: Linux lets nothing more be written where a disk failed
REASONS = {
    errno.ENOENT: "no such file or folder. Check the path.",
    errno.EISDIR: "it is a folder, expected a file. Give a file's path.",
    errno.ELOOP: "it is a link, expected a file. Give the file that is meant.",
    errno.ENOTDIR: "a part of the path is a file, expected a folder. Check the path.",
    errno.EACCES: "permission denied. Change the permissions (chmod, chown), or give another path.",
    errno.EPERM: "permission denied. Change the permissions (chmod, chown), or give another path.",
    errno.EROFS: "its file system is read-only. Mount it for writing, or give another path.",
    errno.EIO: "the disk, or the connection to it, fails (input/output error). Check it, or give another path.",
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
    """The lines of a UTF-8 text file that the user gave. Raises BadInput where it is no such text."""
    return lines_of(text_of(read_file(path, limit), path))


def text_of(contents: bytes, path: str | Path) -> str:
    """The text of a UTF-8 file that the user gave. Raises BadInput where it is no such text."""
    try:
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from error


def lines_of(text: str) -> list[str]:
    """The lines of a text, each ended by LF or CRLF."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


@contextlib.contextmanager
def space_in(folder: Path) -> Iterator[None]:
    """Within the block, which writes into `folder`, a full or broken disk becomes BadInput. Any other OSError stays what it is."""
    try:
        yield
    except OSError as error:
        if refusal := failed_disk(error, folder):
            raise refusal from error
        raise


def failed_disk(error: OSError, folder: Path | None = None) -> BadInput | None:
    """A full or broken disk as BadInput that names the file, or `folder` where the error names none; None for any other error.

    A failed write names no file; without a `folder` it was one to standard output or to a temporary file.
    """
    if isinstance(error, FileNotFoundError) and str(error.strerror).startswith("No usable temporary directory"):
        return BadInput(f"{error.strerror}. Free some space there, or set TMPDIR to a folder that can be written.")
    if error.errno not in OF_DISK:
        return None
    where = error.filename or folder or f"standard output or {os.environ.get('TMPDIR', '/tmp')}"
    return BadInput(f"{where}: cannot be written: {REASONS[error.errno]}")


def locked(path: Path, *, wait: bool) -> BinaryIO:
    """The file at `path`, made where there is none, and locked until it is closed or its process ends, however it ends.

    Raises BlockingIOError where another holds the lock, unless it is to `wait`.
    """
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # the file was moved or removed before it was locked


def claim(folder: Path, out: Path) -> BinaryIO:
    """The lock on a hidden folder in which `out` is made, and which is made where there is none; close it when that is done.

    Raises BadInput where another process makes `out`, or where the folder cannot be written to.
    """
    file = folder / LOCK
    with user_path(out, "written"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = locked(file, wait=False)
        except BlockingIOError as error:
            maker = file.read_text(encoding="utf-8")
            raise BadInput(f"{out}: process {maker} is writing it. Wait until that has ended, or give another path.") from error
        lock.truncate(0)
        lock.write(str(os.getpid()).encode())
        lock.flush()
    return lock


def empty(folder: Path) -> None:
    """Remove everything in a claimed folder but its lock."""
    for path in set(folder.iterdir()) - {folder / LOCK}:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """An empty hidden folder beside `out`, to change `out` in one process at a time; what a killed one left there is removed.

    Raises BadInput where another process changes `out`, where the folder cannot be written to, or where its disk becomes full.
    """
    folder = out.with_name(f".{out.name}.unfinished")
    with claim(folder, out):
        try:
            with user_path(out, "written"):
                empty(folder)
            with space_in(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder(root: Path | None = None) -> Iterator[Path]:
    """An empty folder below `root`, by default the system's temporary folder, removed at the end.

    A killed process leaves its folder there, and the next call removes it: a folder is locked as long as its process lives.
    """
    place = root or Path(tempfile.gettempdir())
    for left in place.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or removed by now
            if not left.is_symlink() and sorted(p.name for p in left.iterdir()) in ([], [LOCK], [FILES], [FILES, LOCK]):
                with locked(left / LOCK, wait=False):
                    shutil.rmtree(left)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=place))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):  # another call took it for a left one
            lock = locked(folder / LOCK, wait=False)
            break
    with lock:
        try:
            (folder / FILES).mkdir()
            yield folder / FILES
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def put_folder(folder: Path, out: Path) -> None:
    """Move a folder to `out`, in place of what is there: in one step where the file system can exchange two names."""
    if not out.exists():
        os.replace(folder, out)
    elif _exchanged(folder, out):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(out, old)
        os.replace(folder, out)
        shutil.rmtree(old, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two names were exchanged, by Linux' renameat2: https://man7.org/linux/man-pages/man2/rename.2.html"""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


class StageCache:
    """Folders under `root`, each made once: what a stage of a fit has finished.

    A hidden folder beside the output. It belongs to one set of inputs: other inputs start it anew. Removed when the fit succeeded.
    A fit leaves it as a context, so that another may use it.
    """

    def __init__(self, root: Path, lock: BinaryIO | None = None) -> None:
        self.root, self.lock = root, lock

    @classmethod
    def open(cls, out: Path, inputs: Mapping[str, object]) -> StageCache:
        """The cache beside `out`, empty unless its earlier contents came of the same inputs; BadInput where another fit uses it."""
        root = out.parent / f".{out.name}.partial"
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        cache = cls(root, claim(root, out))
        with user_path(out, "written"):
            if not (cache._inputs.is_file() and cache._inputs.read_text() == key):
                cache._inputs.unlink(missing_ok=True)
                empty(root)
                write_whole(cache._inputs, key.encode())
        return cache

    def __enter__(self) -> StageCache:
        return self

    def __exit__(self, *_: object) -> None:
        if self.lock:
            self.lock.close()

    def within(self, name: str) -> StageCache:
        """A part of it, kept apart from the others."""
        (self.root / name).mkdir(exist_ok=True)
        return StageCache(self.root / name)

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder `name`, filled by `make` unless an earlier run did; it appears whole or not at all."""
        folder = self.root / name
        if folder.exists():
            LOG.info("%s: kept from an earlier run", folder)
            return folder
        unfinished, start = self.scratch(f"{name}.unfinished"), time.monotonic()
        make(unfinished)
        os.replace(unfinished, folder)
        LOG.info("%s: made in %.1f s", folder, time.monotonic() - start)
        return folder

    def scratch(self, name: str) -> Path:
        """An empty folder."""
        folder = self.root / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def remove(self) -> None:
        self._inputs.unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def _inputs(self) -> Path:
        """What all the folders came of. It goes before them, so that a cache that was half removed is not taken for a whole one."""
        return self.root / "inputs.sha256"


def write_whole(path: Path, data: bytes) -> None:
    """Write to a temporary name beside the target, then rename; what another process or an earlier one began there is replaced."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with locked(unfinished, wait=True) as file:
        try:
            file.truncate(0)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # so that after a power failure, too, the name leads to all of the data
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink()
            raise


def to_disk(folder: Path) -> None:
    """Wait until the files of a folder are on its disk, so that they are whole after a power failure."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cache_folder() -> Path:
    """What outlives a run: $XDG_CACHE_HOME/edgeeff, by default ~/.cache/edgeeff."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeeff"
