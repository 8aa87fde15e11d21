"""What can be typed on the command line. Options of a job are derived from its fields (`job.py`), those of a budget from its table.

Where an argument is a path, its metavar says so (PATHS): shell completion goes by that.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .. import job_file
from ..budget import KINDS, PERCENTILES, Budget
from ..camera.options import CameraJob, CameraOptions, OutputOptions
from ..errors import EXIT_CODES, BadInput, suggestion
from ..job import (
    BenchmarkJob,
    BundleJob,
    CompileJob,
    EvaluateJob,
    ImproveJob,
    Job,
    LabelJob,
    PickJob,
    ProfileJob,
    RequalifyJob,
    RollbackJob,
    SignJob,
    parse_classes,
)
from ..option import flag, in_unit, options, parse_count, parse_number, parse_positive, parse_whole, units
from ..progress import SILENT, Progress, TerminalProgress

T = TypeVar("T")

PATHS = {"FILE": "file", "PHOTOS": "file", "MODEL.onnx": "file", "KEY": "file", "DIR": "directory", "BUNDLE": "directory"}
"""The metavars of arguments that are paths, and what each is."""

PARSERS: dict[type, Callable[[str], Any]] = {int: parse_whole, float: parse_number}
"""How a number is read where its option does not say, by the type of its default."""

SHELLS = ("bash", "zsh", "tcsh")


def filled(kind: type[T], typed: argparse.Namespace) -> T:
    """A job whose fields are the options of the same names."""
    values = {field.name: getattr(typed, field.name) for field, _ in options(kind)}
    if any(field.name == "budget" for field in fields(kind)):  # type: ignore[arg-type]  # a dataclass
        limits = {name: getattr(typed, name) for name in KINDS}
        values["budget"] = Budget(percentile=typed.percentile, **limits)
    return kind(**values)


def progress_of(typed: argparse.Namespace) -> Progress:
    """What is said while the verb runs: with --quiet, nothing."""
    return SILENT if typed.quiet else TerminalProgress()


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="edgeeff",
        description="The largest EfficientNet within a device's budget, in INT8, proven on your photos and measured on the device.",
        epilog="\n".join(["exit codes:", *(f"  {row.code:<4}{row.description}" for row in EXIT_CODES)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version)
    verbs = top.add_subparsers(required=True, metavar="VERB", dest="verb")

    def verb(name: str, help: str, *jobs: type, on: str = "") -> argparse.ArgumentParser:
        p = verbs.add_parser(name, help=help, description=help, allow_abbrev=False)
        for job in jobs:
            _add_job(p, job)
        if on:
            _add_hosts(p, on)
        p.add_argument("--json", action="store_true", help="one JSON object on standard output")
        said = p.add_mutually_exclusive_group()
        said.add_argument("--quiet", action="store_true", help="nothing on standard error but errors: no progress and no remarks")
        said.add_argument(
            "--verbose", action="store_true", help="what is done, and what is kept from earlier runs, with times, on standard error"
        )
        said.add_argument(
            "--debug", action="store_true", help="that, tracebacks, and the logs and warnings of libraries, on standard error"
        )
        p.set_defaults(indent=1)
        return p

    measure_there = "measure there; of several, what fits all"
    p = verb("fit", "weights or labelled photos → a verified bundle within the budget", Job, on=measure_there)
    p.add_argument("--job", metavar="FILE", help="options from a YAML file, like a bundle's fit.yaml; those given here come first")
    verb("pick", "the largest variant within the budget, timed here with random weights", PickJob, on=measure_there)
    improving = "a bundle's network learns from collected frames, and replaces it where it is as good on old photos, and on frames"
    verb("improve", improving, ImproveJob, on=measure_there)
    profiling = "measure many variants here, so that others can be predicted where this device is not at hand"
    verb("profile", profiling, ProfileJob, on="measure there")
    _add_variants(verb("variants", "the family: parameters, multiply-adds and activations of each at its resolution"))
    verb("targets", "the devices edgeeff knows")
    verb("eval", "accuracy of a bundle's compiled file on labelled photos", EvaluateJob, on="do it there")
    verb("bench", "latency of a bundle's compiled file on this machine", BenchmarkJob, on="do it there")
    compiling = "on the device: a bundle's graphs become engines; the fastest that passes ships"
    verb("compile", compiling, CompileJob, on="do it there")
    watching = "labels on live frames: a line at each change, with --json at each frame"
    p = verb("camera", watching, CameraJob, CameraOptions, OutputOptions, on="with the cameras there")
    p.set_defaults(indent=None)  # its summary is the last of many lines
    verb("rollback", "let the camera that follows a folder go back to the bundle that it had before", RollbackJob)
    verb("label", "sort photos into classes by one key press each, on a page in a browser", LabelJob)
    _add_inspection(verb)
    verb("verify", "re-hash a bundle's files and replay its golden images; with --trusted, check who signed it", BundleJob)
    requalifying = "after a new driver, runtime or library: is a bundle still what its manifest says, and as accurate and as fast?"
    verb("requalify", requalifying, RequalifyJob, on="do it there")
    verb("sign", "vouch for a bundle with a private key, so that verify, camera and others can tell it from any other", SignJob)
    p = verb("measure", "what a fit elsewhere asks of this machine, by --on: always JSON")
    p.add_argument("backend")
    came = "the folder that came with the question (default: only what this machine is)"
    p.add_argument("request", nargs="?", metavar="DIR", help=came)
    p.set_defaults(json=True)
    verb("doctor", "what this machine has and what is missing")
    p = verb("completion", "a script for your shell, so that Tab completes verbs, options, targets, variants and paths")
    p.add_argument("shell", choices=SHELLS, help='for bash, in ~/.bashrc: eval "$(edgeeff completion bash)"')
    return top


def with_job_file(argv: Sequence[str]) -> list[str]:
    """The words of the command line, with those of the file of `fit --job FILE` in front. Raises BadInput for a wrong file."""
    if argv[0] != "fit":
        return list(argv)
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--job", nargs="?")  # without a file, the parser refuses it
    found, _ = finder.parse_known_args(argv[1:])
    return ["fit", *(job_file.words(Path(found.job)) if found.job else ()), *argv[1:]]


class _Parser(argparse.ArgumentParser):
    """One that raises BadInput, with what may have been meant, instead of printing its usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message.removeprefix('argument ').rstrip('.')}. See {self.prog} --help.")

    def parse_known_args(  # type: ignore[override]  # whose overloads allow other kinds of namespaces
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Refuses unknown options first: without one that is misspelled, another one that is required may be missing."""
        words = sys.argv[1:] if args is None else args
        has_verbs = self._subparsers is not None
        for word in itertools.takewhile(lambda word: word.startswith("-") if has_verbs else word != "--", words):
            name = word.partition("=")[0]
            if re.match(r"-[^\d.\s]", name) and name not in self._option_string_actions:
                place = " before the verb" if has_verbs else ""
                raise BadInput(
                    f"unknown option {name!r}{place}.{suggestion(name, self._option_string_actions)} See {self.prog} --help."
                )
        return super().parse_known_args(words, namespace)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        typed, surplus = self.parse_known_args(args, namespace)
        if surplus:
            raise BadInput(f"{surplus[0]!r} is one word too many for {typed.verb}. See {self.prog} {typed.verb} --help.")
        return typed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names what is meant: argparse lists all there are."""
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            hint = suggestion(str(value), names)
            raise argparse.ArgumentError(action, f"{value!r}: expected one of {', '.join(names)}.{hint}")


class _Version(argparse.Action):
    """Prints the installed version, which is looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"{parser.prog} {metadata.version('edgeeff')}")
        parser.exit()


class _AtLeastOne(argparse.Action):
    """Stores a list, and refuses "--option=--", of which argparse makes an empty one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        if not values:
            raise argparse.ArgumentError(self, "expected at least one argument")
        setattr(namespace, self.dest, values)


def _add_job(p: argparse.ArgumentParser, job: type) -> None:
    """The options of a job's fields, and of its budget, if it has one."""
    for field, how in options(job):
        required = field.default is MISSING
        if how.positional:
            p.add_argument(field.name, help=how.help, metavar=how.metavar)
        elif isinstance(field.default, bool):
            action = "store_false" if field.default else "store_true"
            p.add_argument(flag(field, how), dest=field.name, action=action, help=how.help)
        else:
            p.add_argument(
                flag(field, how),
                dest=field.name,
                default=None if required else field.default,
                required=required,
                help=how.help,
                metavar=how.metavar,
                choices=how.choices,
                type=_reader(how.parse or PARSERS.get(type(field.default), str), how.unit),
                nargs="+" if how.many else None,
                action=_AtLeastOne if how.many else "store",
            )
    if any(field.name == "budget" for field in fields(job)):
        for name, kind in KINDS.items():
            read = _reader(parse_positive, kind.unit)
            p.add_argument(kind.flag(name), dest=name, type=read, help=kind.help, metavar=kind.metavar)
        p.add_argument(
            "--percentile",
            type=_reader(parse_whole),
            choices=PERCENTILES,
            default=50,
            help="the percentile --latency is held to (default 50)",
        )


def _reader(parse: Callable[[str], T], unit: str = "") -> Callable[[str], T]:
    """The parser as argparse calls it, so that its message is shown as it is; numbers may have a unit."""

    def read(text: str) -> T:
        try:
            return parse(in_unit(text, unit))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}: {error}{units(unit)}") from error

    return read


def _add_hosts(p: argparse.ArgumentParser, what: str) -> None:
    p.add_argument(
        "--on",
        nargs="+",
        action=_AtLeastOne,
        default=[],
        metavar="USER@HOST",
        help=f"{what}, over ssh, with nothing installed but python3 and rsync",
    )


def _add_variants(p: argparse.ArgumentParser) -> None:
    p.add_argument("variant", nargs="*", help="names, or phiX for a compound coefficient (default: all)")
    p.add_argument("--resolution", type=_reader(parse_count, "px"))
    p.add_argument("--classes", type=_reader(parse_classes), default=1000)


def _add_inspection(verb: Callable[[str, str], argparse.ArgumentParser]) -> None:
    bundle = "a bundle's folder, as fit or compile wrote it"
    p = verb("lint", "will TensorRT build this ONNX graph, and run it in INT8?")
    p.add_argument("model", metavar="MODEL.onnx")
    p.add_argument(
        "--tensorrt", type=_tensorrt, default=(10, 3), metavar="VERSION", help="the version to build with (default 10.3)"
    )
    p.add_argument("--dla", action="store_true", help="also name the layers that a Jetson's DLA leaves to the GPU")
    p = verb("inspect", "which layers of a bundle lose most in INT8: float against INT8 on the same photos")
    p.add_argument("bundle", metavar="BUNDLE", help=bundle)
    p.add_argument("--images", metavar="PHOTOS", help="photos to compare on (default: the bundle's golden ones)")
    p.add_argument("--plot", metavar="FILE", help="also draw the errors as SVG")
    p.add_argument("--top", type=_reader(parse_count), default=15, metavar="N", help="layers to list (default 15)")
    p.add_argument("--engine", action="store_true", help="list the layers of a TensorRT engine instead, as it was built")
    p = verb("report", "draw a bundle's HTML report again, with what was compiled since")
    p.add_argument("bundle", metavar="BUNDLE", help=bundle)


def _tensorrt(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"1[01](\.\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a version from 10.3 to 11, like 10.3")
    return tuple(int(n) for n in text.split("."))
