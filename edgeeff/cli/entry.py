"""The entry of the command line: run one verb, print its result, turn what was raised into one line and an exit code.

Standard output holds the result alone. Progress, errors, and whatever libraries print go to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import select
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import INTERNAL_ERROR, READER_GONE, BadInput, EdgeeffError, ToolMissing, exit_code, printable
from ..files import failed_disk
from ..progress import DEBUG, debugging
from ..records import to_json
from .commands import VERBS
from .options import parser, with_job_file

GUIDE = """\
edgeeff finds the largest EfficientNet within a device's budget, makes it INT8, and proves it on your photos and your device.

  edgeeff pick --target host-cpu --latency 10
      the largest network that answers within 10 ms on this machine
  edgeeff fit --target host-cpu --latency 10 --photos DIR --weights auto --out my-model
      labelled photos in DIR/CLASS/*.jpg to a verified bundle, with a report
  edgeeff camera my-model --source 0
      its labels on a live camera

edgeeff --help lists all verbs and exit codes, edgeeff VERB --help explains one."""

EXTRAS = {
    "aiohttp": "camera",
    "alembic": "log",
    "cryptography": "signature",
    "cuda": "tensorrt",
    "cv2": "camera",
    "huggingface_hub": "fit",
    "jinja2": "fit",
    "mlflow": "log",
    "nncf": "fit",
    "onnx": "fit",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "paho": "camera",
    "pyarrow": "parquet",
    "safetensors": "fit",
    "scipy": "fit",
    "sklearn": "demo",
    "sqlalchemy": "log",
    "tensorboard": "log",
    "tensorrt_rtx": "rtx",
    "torch": "fit",
}
"""The extra of pyproject.toml that brings an optional package, by the name that is imported."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, by default this process's; returns the exit code."""
    _open_closed_streams()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except OSError as error:  # of standard output: _run reports every other
        _discard_output()
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has ended
            return READER_GONE
        print(f"edgeeff: standard output: cannot be written: {error.strerror}.", file=sys.stderr)
        return INTERNAL_ERROR


def _open_closed_streams() -> None:
    """Lead standard streams that the caller has closed (`>&-`) nowhere: Python has None for them, and files get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (until the process ends)


def _run(argv: Sequence[str]) -> int:
    if not argv:
        print(GUIDE)
        return 0
    try:
        options = parser().parse_args(with_job_file(argv))
    except BadInput as error:
        return _report(error, argparse.Namespace(json=False))
    if options.debug:
        os.environ[DEBUG] = "1"
    _set_verbosity(options)
    _name_temporary_folder()
    try:
        with _interruptible(), _result_only(), _first_process() as first:
            if first:
                _print(VERBS[options.verb](options), options)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _closed(1, 2):
            raise
        return _report(error, options)
    return 0


def _print(result: object | None, options: argparse.Namespace) -> None:
    if options.json and result is not None:
        print(json.dumps(to_json(result), indent=options.indent))


def _report(error: Exception | KeyboardInterrupt, options: argparse.Namespace) -> int:
    """Print what was raised, and the result that goes with it; returns the exit code."""
    if debugging():
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        line, code = "interrupted; the same command continues from what was done.", exit_code(error)
    elif refusal := _refusal(error):
        _print(refusal.result, options)
        line, code = str(refusal), exit_code(refusal)
    else:
        advice = "Please report it with the output of the same command and --debug."
        line, code = f"internal error: {_summary(error)}. {advice}", INTERNAL_ERROR
    print(f"edgeeff: {printable(line)}", file=sys.stderr)
    return code


def _refusal(error: Exception) -> EdgeeffError | None:
    """An exception that the user can do something about; None for an internal error."""
    if isinstance(error, EdgeeffError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return ToolMissing(f"{error.name} is not installed: pip install 'edgeeff[{EXTRAS[error.name]}]'")
    return failed_disk(error) if isinstance(error, OSError) else None


def _summary(error: Exception) -> str:
    """Type, message and place in one line; the place is the innermost line of edgeeff's own code."""
    package = Path(__file__).parents[1]
    frame = [f for f in traceback.extract_tb(error.__traceback__) if package in Path(f.filename).parents][-1]
    place = f"{Path(frame.filename).relative_to(package.parent)}:{frame.lineno}"
    message = " ".join(str(error).split()).rstrip(".")[:300]
    return f"{type(error).__name__}{f': {message}' if message else ''} ({place})"


def _set_verbosity(options: argparse.Namespace) -> None:
    """Warnings and logs of libraries are for who debugs; PYTHONWARNINGS and -W have the last word."""
    if debugging():
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(levelname)s: %(message)s")
    elif options.verbose:
        log = logging.StreamHandler(sys.stderr)
        log.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        logging.getLogger("edgeeff").addHandler(log)
        logging.getLogger("edgeeff").setLevel(logging.INFO)
    if not sys.warnoptions:
        warnings.simplefilter("default" if debugging() else "ignore")


def _name_temporary_folder() -> None:
    """Python asks whether it may write there by making a file, which stays where the process is killed before it is removed."""
    folder = next(filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp")
    if tempfile.tempdir is None and os.access(folder, os.W_OK | os.X_OK):
        tempfile.tempdir = str(Path(folder).absolute())


@contextlib.contextmanager
def _first_process() -> Iterator[bool]:
    """Join the processes of `torchrun`, if it started this one; true in the first, which runs the verb."""
    processes = os.environ.get("WORLD_SIZE", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", processes):
        raise BadInput(f"WORLD_SIZE {processes[:40]!r}, of the environment: expected a number of processes, as torchrun sets it.")
    if processes == "1":
        yield True
        return
    from ..network import distributed

    first = distributed.join()
    try:
        yield first
    finally:
        if first:
            distributed.leave()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Within the block, SIGTERM and a terminal that is closed (SIGHUP) interrupt as Ctrl-C does; under `nohup` the latter does not.

    The processes of `torchrun` end at SIGTERM as before: they may be waiting for each other in C++, where nothing interrupts them.
    """
    if "WORLD_SIZE" in os.environ or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    mine = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _result_only() -> Iterator[None]:
    """Within the block, sys.stdout alone leads to standard output: file descriptor 1 leads to standard error.

    Drivers and libraries in C++, such as the CSI camera's on a Jetson, print what they do to descriptor 1.
    """
    original = sys.stdout
    try:
        redirect = original.fileno() == 1
    except (OSError, AttributeError):  # a stand-in, such as a test's
        redirect = False
    if not redirect:
        yield
        return
    original.flush()
    results = os.dup(1)
    os.dup2(2, 1)
    try:
        with open(results, "w", encoding=original.encoding, errors=original.errors, closefd=False) as sys.stdout:
            sys.stdout.reconfigure(line_buffering=bool(original.line_buffering))
            yield
    finally:
        sys.stdout = original
        os.dup2(results, 1)
        os.close(results)


def _closed(*descriptors: int) -> bool:
    """Whether nobody reads what is written to one of the pipes any more."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, 0)  # errors are always reported
    return bool(poll.poll(0))


def _discard_output() -> None:
    """Lead standard output elsewhere, and standard error if its pipe is closed: Python flushes both at exit, and would fail again.

    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if _closed(2):
        os.dup2(nowhere, 2)
