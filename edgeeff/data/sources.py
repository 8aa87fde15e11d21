"""What people have photos in: one class for each kind of source, which recognizes its own.

A new kind is one subclass of Source, and its place in SOURCES. All give the same photos in the same order.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..errors import BadInput
from . import archives, parquet
from .labels import LISTS, READERS, class_names, numbered, rows
from .photos import SUFFIXES, Photo
from .trees import Archive, Folder, Tree


@dataclass(frozen=True)
class Found:
    """The photos of a source; `labels` index `classes`, or are numbers where there are no names; None: not labelled."""

    root: Path
    photos: tuple[Photo, ...]
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] = ()


class Source(ABC):
    """A file or folder with photos; `inner` is the path of a folder or list in it."""

    example: ClassVar[str]
    has_folders: ClassVar[bool] = False

    def __init__(self, path: Path, inner: Path) -> None:
        if inner.parts and not self.has_folders:
            raise BadInput(f"{path / inner}: {path} is a file without folders. Give the file.")
        self.path, self.inner = path, inner

    @staticmethod
    def of(path: Path) -> Source:
        """The source at a path. Raises BadInput where there is none."""
        file = next((part for part in (path, *path.parents) if part.is_file()), path)
        for source in SOURCES:
            if source.accepts(file):
                return source(file, path.relative_to(file))
        what = "no such folder or file" if not os.path.lexists(file) else "no photos that can be read"
        raise BadInput(f"{path}: {what}. Expected {', '.join(source.example for source in SOURCES)}.")

    @classmethod
    @abstractmethod
    def accepts(cls, path: Path) -> bool:
        """Whether `of` makes this class of what is there."""

    @abstractmethod
    def read(self) -> Found:
        """Its photos. Raises BadInput where they cannot be told from something else."""

    def sent(self, name: str) -> tuple[str, dict[str, Path]]:
        """The path by which another machine finds the same photos, and what is to be there, by its name."""
        file = f"{name}-{self.path.name}"
        return str(file / self.inner), {file: self.path}


class FolderOfPhotos(Source):
    """Folders of classes, photos alone, or photos beside a list."""

    example = "DIR/CLASS/*.jpg, a folder with labels.txt, a folder of photos"

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.is_dir()

    def read(self) -> Found:
        return _read_tree(Folder(self.path))

    def sent(self, name: str) -> tuple[str, dict[str, Path]]:
        return name, {name: self.path}


class ListOfPhotos(Source):
    """A list of labelled photos, which lie beside it."""

    example = "DIR/list.csv (file,class), .jsonl or .json (COCO)"

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.suffix.lower() in READERS and os.path.lexists(path)

    def read(self) -> Found:
        return _read_list(Folder(self.path.parent), self.path.name)

    def sent(self, name: str) -> tuple[str, dict[str, Path]]:
        return f"{name}/{self.path.name}", {name: self.path.parent}


class ArchiveOfPhotos(Source):
    """What a folder may be, packed. A folder that holds all the rest is no class."""

    has_folders = True
    opener: ClassVar[Callable[[Path], Archive]]
    suffixes: ClassVar[tuple[str, ...]]

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.name.lower().endswith(cls.suffixes) and os.path.lexists(path)

    def read(self) -> Found:
        tree: Tree = type(self).opener(self.path)
        for folder in self.inner.parent.parts:
            tree = _entered(tree, folder)
        if tree.contains(self.inner.name) and self.inner.suffix.lower() in READERS:
            return _read_list(tree, self.inner.name)
        if self.inner.name:
            tree = _entered(tree, self.inner.name)
        while len(tree.folders()) == 1 and not tree.photos() and not any(map(tree.contains, LISTS)):
            tree = tree.enter(tree.folders()[0])
        return _read_tree(tree)


class ZipArchive(ArchiveOfPhotos):
    example, suffixes, opener = "a .zip", (".zip",), archives.open_zip


class TarArchive(ArchiveOfPhotos):
    example, suffixes, opener = ".tar or .tar.gz of such a folder", (".tar", ".tar.gz", ".tgz"), archives.open_tar


class ParquetTable(Source):
    example = ".parquet"

    @classmethod
    def accepts(cls, path: Path) -> bool:
        return path.suffix.lower() == ".parquet" and os.path.lexists(path)

    def read(self) -> Found:
        photos, labelled = parquet.read(self.path)
        if not photos:
            raise BadInput(f"{self.path}: no rows. {parquet.EXPECTED}")
        return Found(self.path, tuple(photos), *(labelled or ()))

    def sent(self, name: str) -> tuple[str, dict[str, Path]]:
        return f"{name}-{self.path.name}", {f"{name}-{shard.name}": shard for shard in parquet.shards(self.path)}


SOURCES: tuple[type[Source], ...] = (FolderOfPhotos, ListOfPhotos, ZipArchive, TarArchive, ParquetTable)


def _read_tree(tree: Tree) -> Found:
    root, lists = tree.root, [name for name in LISTS if tree.contains(name)]
    if len(lists) > 1:
        raise BadInput(f"{root}: has {' and '.join(lists)}. Name the one that counts: {root / lists[0]}.")
    if lists:
        return _read_list(tree, lists[0])
    photos, folders = tree.photos(), tree.folders()
    if photos and folders:
        raise BadInput(f"{root}: photos beside folders ({folders[0]}/ …). Expected one folder a class, or photos alone.")
    if photos:
        return Found(root, tuple(photos))
    if len(folders) < 2:
        raise BadInput(f"{root}: {len(folders)} class folders and no photos. Expected at least two folders DIR/CLASS/ with photos.")
    found = [tree.enter(folder).photos() for folder in folders]
    for folder, files in zip(folders, found, strict=True):
        if not files and tree.enter(folder).folders():
            raise BadInput(f"{root / folder}: has folders, not photos. Where they are its classes, give it alone: {root / folder}.")
        if not files:
            raise BadInput(f"{root / folder}: an empty class. Add photos ({', '.join(SUFFIXES)}) or remove the folder.")
    labels = tuple(i for i, files in enumerate(found) for _ in files)
    return Found(root, tuple(photo for files in found for photo in files), labels, class_names(folders, root))


def _read_list(tree: Tree, name: str) -> Found:
    listing = tree.root / name
    labels, places = dict[Photo, str](), dict[Photo, str]()
    for where, file, label in rows(listing, tree.read(name)):
        try:
            photo = tree.find(file)
        except ValueError as error:
            raise BadInput(f"{where}: {file}: {error}.") from error
        if photo in places:
            raise BadInput(f"{where}: {file}: also in line {places[photo].rpartition(':')[2]}. Expected each file once.")
        labels[photo], places[photo] = label, where
    if not labels:
        raise BadInput(f"{listing}: no lines. Expected a file and its class in each.")
    return Found(tree.root, tuple(labels), *numbered(list(labels.values()), places.values()))


def _entered(tree: Tree, folder: str) -> Tree:
    if folder not in tree.folders():
        raise BadInput(f"{tree.root / folder}: no such folder in the archive, which has {_few(tree.folders())}.")
    return tree.enter(folder)


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") if names else "none"
