"""A fit that measures on another host, against one that measures here, and once more while its connection is killed all the time.

Called by run.py with --on. The host may be this machine under another user. What edgeeff keeps there is removed before each fit.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PAUSE = 0.5  # seconds between two kills


@contextlib.contextmanager
def killing() -> Iterator[list[str]]:
    """Kills the process that holds the shared connection whenever there is one; gives what was killed."""
    killed: list[str] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(PAUSE):
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    line = (process / "cmdline").read_bytes().decode(errors="replace")
                    if line.startswith("ssh: /tmp/edgeeff-") and "[mux]" in line:
                        os.kill(int(process.name), signal.SIGKILL)
                        killed.append(line)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def compare(fit: Callable[..., dict[str, Any]], host: str) -> dict[str, Any]:
    """Seconds of each fit, and which files of the bundle are the same, bit for bit."""
    results: dict[str, Any] = {"seconds": {}, "precision": {}}
    files: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in {"here": (), "there": ("--on", host), "cut": ("--on", host)}.items():
            if options:
                subprocess.run(["ssh", host, "rm -rf ~/.cache/edgeeff"], check=True)
            with killing() if name == "cut" else contextlib.nullcontext([]) as killed:
                out = Path(folder) / name
                fitted = fit(out, *options)
            results["seconds"][name], results["precision"][name] = fitted["total_seconds"], fitted["precision"]
            files[name] = json.loads((out / "manifest.json").read_text())["files"]
    results["kills"] = len(killed)
    names = sorted(set(files["here"]) - {"report.html", "README.md"})  # which have latencies
    results["same"] = [n for n in names if len({f.get(n) for f in files.values()}) == 1]
    results["differ"] = [n for n in names if n not in results["same"]]
    return results
