"""Where a fit keeps what it has finished, so that the same command goes on after an interruption.

A hidden folder beside the output. It belongs to one set of inputs: other inputs start it anew. Removed when the fit has succeeded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import BadInput


class Workspace:
    """Folders under `root`, each made once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, out: Path, inputs: dict[str, Any]) -> Workspace:
        """The one beside `out`, empty unless its earlier contents came of the same inputs."""
        root = out.parent / f".{out.name}.partial"
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        marker = root / "inputs.sha256"
        try:
            if not (marker.is_file() and marker.read_text() == key):
                shutil.rmtree(root, ignore_errors=True)
                root.mkdir(parents=True)
                marker.write_text(key)
        except OSError as error:
            raise BadInput(f"{out}: cannot write there ({error.strerror}). Give another --out.") from error
        return cls(root)

    def within(self, name: str) -> Workspace:
        """A part of it, kept apart from the others."""
        (self.root / name).mkdir(exist_ok=True)
        return Workspace(self.root / name)

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
