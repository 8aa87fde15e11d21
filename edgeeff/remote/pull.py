"""Bundles of a folder on another host, copied again and again into the one that a camera follows."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..camera.result import Event
from ..errors import BadInput, EdgeeffError
from ..progress import SILENT
from .ssh import HOST_NAME, Connection, check

PERIOD = 30.0  # seconds from one look to the next
ADDRESS = re.compile(rf"(?P<host>{HOST_NAME.pattern}):(?P<folder>[A-Za-z0-9_./~+=-]+)")


class Puller:
    """Copies from `USER@HOST:DIR` in a thread of its own while the context is entered; raises BadInput for another address.

    What could not be copied is told once, and tried again: a camera goes on without its host.
    """

    def __init__(self, address: str, folder: Path, tell: Callable[[Event], None]) -> None:
        found = ADDRESS.fullmatch(address)
        if not found or found["folder"].startswith("-"):
            raise BadInput(f"--pull {address[:300]!r}: expected USER@HOST:DIR, a folder of bundles on a host that ssh reaches.")
        check([found["host"]])
        self.address, self.folder, self._tell = address, folder, tell
        self._host, self._source = found["host"], f"{found['folder'].rstrip('/')}/"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._pull, name=f"pull {address}", daemon=True)

    def __enter__(self) -> Puller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _pull(self) -> None:
        told = ""
        while not self._stop.is_set():
            try:
                # A new connection each time: one that had an answer before is patient, and a camera's owner wants to know at once.
                with contextlib.closing(Connection(self._host, SILENT, self._stop)) as connection:
                    connection.mirror(self._source, self.folder)
                told = ""
            except KeyboardInterrupt:
                return  # the connection's way to say that it was stopped
            except (EdgeeffError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    self._tell(Event("not copied", self.address, told.rstrip("."), time.time()))
            self._stop.wait(PERIOD)
