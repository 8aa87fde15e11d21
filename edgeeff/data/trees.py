"""Where photos lie, as names in folders: a folder of the disk, or an archive. Both give the same photos in the same order."""

from __future__ import annotations

import copy
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from ..errors import BadInput
from ..files import read_file
from .labels import LIST_BYTES
from .photos import Packed, Photo, is_photo


class Tree(Protocol):
    """Photos and lists of them by their names below `root`, which has the names of messages."""

    @property
    def root(self) -> Path: ...

    def photos(self) -> Sequence[Photo]:
        """Those directly in it, by name."""

    def folders(self) -> list[str]:
        """The names of the folders directly in it, in order, without hidden ones."""

    def enter(self, name: str) -> Tree:
        """One of its folders."""

    def contains(self, name: str) -> bool:
        """Whether there is something of that name directly in it."""

    def read(self, name: str) -> bytes:
        """The contents of a file; raises BadInput where it cannot be read."""

    def find(self, name: str) -> Photo:
        """The file that a list names, relative to the root. Raises ValueError with the reason where it names none in here."""


class Folder:
    """A folder of the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real, self._inside = os.path.realpath(root), set[Path]()

    def photos(self) -> Sequence[Photo]:
        return sorted(path for path in self.root.iterdir() if is_photo(path.name))

    def folders(self) -> list[str]:
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith("."))

    def enter(self, name: str) -> Folder:
        return Folder(self.root / name)

    def contains(self, name: str) -> bool:
        return os.path.lexists(self.root / name)

    def read(self, name: str) -> bytes:
        return read_file(self.root / name, LIST_BYTES)

    def find(self, name: str) -> Photo:
        path = self.root / name
        if path.parent not in self._inside:  # a photo may be a link to anywhere, but no folder that a list names
            up = ".." in path.parts[len(self.root.parts) :]
            if up or not Path(os.path.realpath(path.parent)).is_relative_to(self._real):
                raise ValueError(f"expected a path within {self.root}, relative to it")
            self._inside.add(path.parent)
        if not path.is_file():
            raise ValueError("no such file")
        return path


class Archive:
    """The members of an archive, of which nothing is written to the disk. `members` are those below its folder `prefix`."""

    def __init__(self, file: Path, members: Iterable[tuple[str, Packed]]) -> None:
        """Raises BadInput for a name that is there twice."""
        self._file, self._prefix = file, ""
        self._members = dict[str, Packed]()
        self._files, self._folders = defaultdict[str, list[str]](list), defaultdict[str, set[str]](set)
        for name, photo in members:
            if name in self._members:
                raise BadInput(f"{file}: {name[:200]} is in it twice. Expected each file once; pack it again.")
            self._members[name] = photo
            folder, _, last = name.rpartition("/")
            self._files[folder].append(last)
            while folder:
                above, _, last = folder.rpartition("/")
                if last in self._folders[above]:
                    break
                self._folders[above].add(last)
                folder = above

    @property
    def root(self) -> Path:
        return self._file / self._prefix

    def photos(self) -> Sequence[Photo]:
        return [self._members[self._path(name)] for name in sorted(self._files.get(self._prefix, ())) if is_photo(name)]

    def folders(self) -> list[str]:
        return sorted(self._folders.get(self._prefix, ()))

    def enter(self, name: str) -> Archive:
        inner = copy.copy(self)
        inner._prefix = self._path(name)
        return inner

    def contains(self, name: str) -> bool:
        return self._path(name) in self._members

    def read(self, name: str) -> bytes:
        return self._members[self._path(name)].read()

    def find(self, name: str) -> Photo:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"expected a path within {self.root}, relative to it")
        if self._path(str(path)) not in self._members:
            raise ValueError("no such file")
        return self._members[self._path(str(path))]

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name
