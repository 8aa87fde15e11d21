"""Command lines as forks of one process that has imported the libraries: a fit starts six seconds of processor time sooner.

A fork is a process as another that runs `python -m edgeeff`: with its own arguments, environment and streams, it runs the same
module and ends as that ends. What Python reads when it starts is the server's: where a test changes that, it starts Python anew.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import economy

ROOT = Path(__file__).parents[2]
LIBRARIES = {
    **dict.fromkeys(("fit", "pick"), ("edgeeff.pipeline", "torch._dynamo", "openvino", "onnxruntime", "jinja2", "scipy.optimize")),
    **dict.fromkeys(("eval", "bench", "verify", "camera", "report", "inspect"), ("openvino", "onnxruntime", "PIL.Image")),
}
"""What is imported before the first fork of a verb."""

FREE = {"PATH", "XDG_CACHE_HOME", "PYTEST_CURRENT_TEST"}
"""Variables of the environment that no library reads when it is imported."""


class Forks:
    """A server, as a process of its own, and its client: `run` takes a command line to it and waits for its end."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=ROOT)

    def can_run(self, words: list[str], environment: Mapping[str, str]) -> bool:
        """Whether a fork does what a new process would do."""
        names = self._environment.keys() | environment.keys()
        changed = {name for name in names if self._environment.get(name) != environment.get(name)}
        return words[:1] != [] and words[0] in LIBRARIES and changed <= FREE

    def run(self, words: list[str], environment: Mapping[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
        ours, theirs = socket.socketpair()
        with ours, ours.makefile("r") as answers, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            with theirs:
                question = json.dumps([words, str(Path.cwd()), dict(environment)]).encode()
                socket.send_fds(self._control, [question], [theirs.fileno(), out.fileno(), err.fileno()])
            ours.settimeout(timeout)
            process = int(answers.readline())
            try:
                code = int(answers.readline())
            except TimeoutError:
                os.kill(process, signal.SIGKILL)
                raise
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(words, code, out.read(), err.read())

    def end(self) -> None:
        self._control.close()
        self._server.wait()


def serve(control: socket.socket) -> None:
    """Answer each question by a fork, until the client has gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing waits for those that answer
    while True:
        question, files, _, _ = socket.recv_fds(control, 1 << 20, 3)
        if not question:
            return
        words, folder, environment = json.loads(question)
        _import(LIBRARIES[words[0]])
        if os.fork() == 0:
            control.close()
            _answer(words, folder, environment, *files)
            return
        for file in files:
            os.close(file)


def _import(libraries: tuple[str, ...]) -> None:
    from edgeeff.quantization.nncf_ptq import quiet_nncf  # edgeeff first: it turns off the libraries' telemetry

    if "edgeeff.pipeline" in libraries and "nncf" not in sys.modules:
        with quiet_nncf():
            pass
    for name in libraries:
        importlib.import_module(name)
    gc.freeze()  # so that forks share the memory


def _answer(words: list[str], folder: str, environment: dict[str, str], answer: int, out: int, err: int) -> None:
    """Fork the command line, and say its number and how it ended. In the fork, the command line runs and ends the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if process := os.fork():
        os.write(answer, f"{process}\n".encode())
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.write(answer, f"{code}\n".encode())
        os._exit(0)
    for source, target in ((out, 1), (err, 2)):
        os.dup2(source, target)
    for file in (answer, out, err):
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv, sys.orig_argv = ["edgeeff", *words], [sys.executable, "-m", "edgeeff", *words]
    economy.for_words(words)
    runpy.run_module("edgeeff", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    with contextlib.suppress(KeyboardInterrupt):
        serve(socket.socket(fileno=int(sys.argv[1])))
