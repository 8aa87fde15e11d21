"""edgeeff beside other tools on this CPU: the file that each ships in its own runtime, judged alike, and timed by one clock.

Every file is loaded by `runner.py` in the environment of its tool, and what that process answers is what both judges see. The
processes take turns on the clock, a block of inferences each, while all others wait.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch

from edgeeff.backends import openvino
from edgeeff.data.images import ImageSet, Logits, PixelFile, Pixels
from edgeeff.data.preprocess import Preprocess
from edgeeff.errors import AccuracyGateFailed, BadInput
from edgeeff.export.onnx import to_onnx
from edgeeff.measurement.accuracy import ExpectedDrop, Gate
from edgeeff.measurement.confidence import expected_drop
from edgeeff.measurement.latency import DIGITS, Latency, ratio
from edgeeff.network import checkpoint
from edgeeff.network.model import Deployed
from edgeeff.network.variants import variant
from edgeeff.precision import Precision
from edgeeff.progress import TerminalProgress
from edgeeff.records import to_json

from .compare import ENVIRONMENTS, HERE, LIMIT, ORT, Attempt, Refused, contents, environment, pinned, run
from .tasks import Task

EDGEEFF, NNCF, OLIVE = "edgeeff_cpu", "nncf_openvino", "olive_onnx"
EXECUTORCH, LITERT, INTEL = "executorch_xnnpack", "litert_int8", "neural_compressor_pt2e"
SUFFIXES = {EDGEEFF: "xml", NNCF: "xml", ORT: "onnx", OLIVE: "onnx", EXECUTORCH: "pte", LITERT: "tflite", INTEL: "pt2"}
OURS, FLOAT, BF16 = "edgeeff fit --activation auto", "float32, OpenVINO", "bf16, OpenVINO's default here"
ATTEMPTS = (
    Attempt(OURS, EDGEEFF, ("auto",)),
    Attempt("edgeeff fit", EDGEEFF, ("default",)),
    Attempt(f"{OURS} --adapt auto", EDGEEFF, ("smaller",)),
    Attempt("NNCF, default", NNCF, ("default",)),
    Attempt("NNCF, accuracy control", NNCF, ("accuracy",)),
    Attempt("ONNX Runtime, uint8 activations, 7-bit weights", ORT, ("narrow",)),
    Attempt("ONNX Runtime, symmetric", ORT, ("symmetric",)),
    Attempt("Olive, default", OLIVE, ("default",)),
    Attempt("Olive, per channel, 7-bit weights", OLIVE, ("narrow",)),
    Attempt("ExecuTorch, XNNPACK", EXECUTORCH, ()),
    Attempt("LiteRT, full integer", LITERT, ()),
    Attempt("Neural Compressor, torch's inductor", INTEL, ()),
)
MAX_DROP = 0.5  # points of top-1
ROUNDS, BLOCK = 40, 9  # short, as what disturbs a machine often lasts for seconds


@dataclass(frozen=True)
class Plain:
    """A task's network in float, in every form that a tool starts from, and the list of its calibration photos."""

    task: Task
    preprocess: Preprocess
    onnx: Path
    program: Path  # exported by torch
    ir: Path
    listed: Path

    @classmethod
    def of(cls, task: Task, folder: Path) -> Plain:
        model, stated, _ = checkpoint.load(task.weights, v := variant(task.variant))
        preprocess = stated.preprocess or Preprocess.standard(v.resolution, v.mean, v.std)
        program, listed = folder / "float.pt2", folder / "calibration.txt"
        listed.write_text("".join(f"{path}\n" for path in ImageSet.open(task.calibration).paths))
        photo = torch.zeros(1, preprocess.resolution, preprocess.resolution, 3, dtype=torch.uint8)
        torch.export.save(torch.export.export(Deployed(model.eval(), preprocess).eval(), (photo,)), program)
        plain = to_onnx(model.eval(), preprocess, folder / "float.onnx")
        (folder / "float").mkdir()
        return cls(task, preprocess, plain, program, openvino.compile(plain, folder / "float"), listed)

    def command(self, attempt: Attempt, out: Path) -> list[object]:
        """That by which a tool writes `out`."""
        source = self.program if attempt.adapter in (EXECUTORCH, LITERT, INTEL) else self.onnx
        words: tuple[object, ...] = ()
        if attempt.adapter == EDGEEFF:
            source, words = self.task.weights, (self.task.variant, self.task.choosing)
        adapter = HERE / f"{attempt.adapter}.py"
        return [environment(attempt.adapter), adapter, source, self.listed, out, *attempt.options, *words]


@dataclass(frozen=True)
class Shipped:
    """A file, the Python that runs it, and what it cost to make.

    `precision` is what OpenVINO computes in that is not quantized; its own choice where that is None.
    """

    file: Path
    python: Path
    cost: dict[str, float]
    precision: Literal["f32", "bf16"] | None = None


def compare(task: Task, attempts: Sequence[Attempt] = ATTEMPTS) -> dict[str, Any]:
    """Every attempt at one task. What a run that was stopped had let tools write, of the same files, is not written again."""
    progress = TerminalProgress()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        plain = Plain.of(task, Path(temporary))
        files = {
            FLOAT: Shipped(plain.ir, Path(sys.executable), {}, "f32"),
            "float32, ONNX Runtime": Shipped(plain.onnx, Path(sys.executable), {}),
        }
        if openvino.supported(Precision.BF16):
            files[BF16] = Shipped(plain.ir, Path(sys.executable), {})
        plain_files = list(files)
        for attempt in attempts:
            progress.say(f"{task.name}: {attempt.name}")
            try:
                files[attempt.name] = quantize(attempt, plain)
            except Refused as error:
                rows[attempt.name] = {"refused": str(error)}
        images = ImageSet.open(task.test)
        prepared = cache(lambda side: PixelFile(images, plain.preprocess.at(side)))
        gate = Gate(prepared(plain.preprocess.resolution), max_drop=MAX_DROP, progress=progress)
        foretell = Foretelling(task.choosing, plain.preprocess)
        runners: dict[str, Runner] = {}
        for name, shipped in files.items():  # the float network's first, with which gates compare
            runner = stack.enter_context(running(shipped))
            try:
                side = runner.ask("side")
                verdict = judged(name, shipped.file, runner, task.test, gate.on(prepared(side)))
                rows[name] = {**shipped.cost, "px": side, **verdict, "foretold": foretell(name, runner, side), **said(shipped.file)}
                runners[name] = runner
            except (Refused, BadInput, AccuracyGateFailed) as error:
                rows[name] = {"refused": str(error)}
        times = timed(runners)
        for name, latency in times.items():
            if isinstance(latency, Refused):
                rows[name] = {"refused": str(latency)}
                continue
            rows[name] |= {"p50": latency.p50, "p90": latency.p90, "rounds": [round(each, DIGITS) for each in latency.rounds]}
            if isinstance(ours := times.get(OURS), Latency):
                rows[name]["behind"] = to_json(ratio(latency, ours)._asdict())
    tools = [pinned(adapter)[0] for adapter in SUFFIXES if adapter != EDGEEFF]
    names = [*plain_files, *(attempt.name for attempt in attempts)]
    return {
        "task": task.name,
        "max_drop": MAX_DROP,
        "alone": True,
        "rows": [{"name": name, **rows[name]} for name in names],
        "tools": tools,
    }


def quantize(attempt: Attempt, plain: Plain) -> Shipped:
    """Let a tool write its file; raises Refused where it does not."""
    task, code = plain.task, [*HERE.glob(f"{attempt.adapter}.*")]
    if attempt.adapter == EDGEEFF:
        code += [*HERE.parents[1].glob("edgeeff/**/*.py"), *task.choosing.iterdir()]
    else:
        code.append(HERE / "judge.py")  # reads the photos
    made_of = contents(plain.onnx, *task.calibration.iterdir(), *code)
    kept = ENVIRONMENTS / "kept" / "-".join((attempt.adapter, *attempt.options, made_of))
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:  # what a tool has written that fills the disk goes with it
            made = Path(temporary) / "made"
            made.mkdir()
            out = made / f"model.{SUFFIXES[attempt.adapter]}"
            _, cost = run(plain.command(attempt, out))
            if not out.is_file():
                raise Refused("it ended without an error, and without a file")
            (made / "cost.json").write_text(json.dumps(cost))
            made.rename(kept)
    file, cost = kept / f"model.{SUFFIXES[attempt.adapter]}", json.loads((kept / "cost.json").read_text())
    return Shipped(file, environment(attempt.adapter), cost, stated(file))


def stated(file: Path) -> Literal["f32", "bf16"] | None:
    """The precision that a file of edgeeff is to be computed in, as its manifest says."""
    written = manifest(file)
    return written and ("bf16" if Precision(written["precision"]).rest == "bf16" else "f32")


@dataclass(frozen=True)
class Runner:
    """A process that has loaded a file, and where it writes what goes wrong."""

    process: subprocess.Popen[bytes]
    errors: IO[str]

    def ask(self, *question: object, seconds: float = LIMIT) -> Any:
        """Its answer; raises Refused where it has ended, or does not answer in time."""
        assert self.process.stdin
        assert self.process.stdout
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(f"{json.dumps([str(word) for word in question])}\n".encode())
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            late = "" if timer.is_alive() else f"no answer after {seconds:g} seconds"
            self.process.wait()
            self.errors.seek(0)
            last = (self.errors.read().strip().splitlines() or ["no message"])[-1]
            raise Refused(f"its file does not run: {late or last}") from error
        finally:
            timer.cancel()

    def predict(self, images: Pixels) -> Logits:
        """The logits of photos `(N, H, W, 3)`."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "photos.npy", Path(folder) / "logits.npy"
            np.save(source, images)
            self.ask("predict", source, target)
            logits: Logits = np.load(target)
            return logits


@contextmanager
def running(shipped: Shipped) -> Iterator[Runner]:
    """A process for the file; what it reads and writes is closed with it."""
    command = [shipped.python, HERE / "runner.py", shipped.file, *filter(None, [shipped.precision])]
    with tempfile.TemporaryFile("w+") as errors:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        with subprocess.Popen(command, bufsize=0, **pipes) as process:  # nothing is left to be written to one that has ended
            try:
                yield Runner(process, errors)
            finally:
                process.kill()


def judged(name: str, file: Path, runner: Runner, test: Path, gate: Gate) -> dict[str, Any]:
    """A file's answers by both judges, and its size."""
    step = gate.judge(name, runner.predict)
    verdict = runner.ask("judge", test)
    by_name = dict(zip((path.name for path in gate.pixels.images.paths), gate.answers[-1].classes, strict=True))
    differ = sum(int(by_name[photo]) != answer for photo, answer in verdict["answers"].items())
    megabytes = sum(each.stat().st_size for each in file.parent.glob(f"{file.stem}.*")) / 1e6
    return {"step": to_json(step), "independent_top1": verdict["top1"], "judges_differ": differ, "megabytes": megabytes}


def said(file: Path) -> dict[str, Any]:
    """Beside a file of edgeeff's, why it ships, and what was left out of its network."""
    written = manifest(file)
    return {key: written[key] for key in ("precision", "verdict", "left_out")} if written else {}


def manifest(file: Path) -> dict[str, Any] | None:
    """What lies beside a file of edgeeff; None beside those of other tools."""
    path = file.with_name("manifest.json")
    return json.loads(path.read_text()) if path.exists() else None


class Foretelling:
    """What the photos that edgeeff's fits decide by say of the drop on others: the drop on them, and the one that is expected.

    The first file that is asked about has to be the float network's.
    """

    def __init__(self, choosing: Path, preprocess: Preprocess) -> None:
        images = ImageSet.open(choosing)
        self._prepared = cache(lambda side: PixelFile(images, preprocess.at(side)))
        self._gate = Gate(self._prepared(preprocess.resolution), max_drop=MAX_DROP)
        self._expected: ExpectedDrop | None = None

    def __call__(self, name: str, runner: Runner, side: int) -> dict[str, float | None]:
        gate = self._gate.on(self._prepared(side))
        drop = gate.judge(name, runner.predict).drop
        self._expected = self._expected or expected_drop(gate, runner.predict)
        assert self._expected  # every task's photos have labels
        return {"drop": drop, "expected": self._expected(gate.answers[-1].classes)}


def timed(runners: dict[str, Runner]) -> dict[str, Latency | Refused]:
    """Milliseconds of one photo, from blocks in turn, or why a file no longer runs.

    The order of each round is drawn anew, so that no file always follows the same other one. The processes of the others are
    stopped meanwhile: right after ONNX Runtime's, a file of LiteRT's took 1.6 times as long as one of edgeeff, else 1.1 times.
    """
    blocks, refused, rng = dict[str, list[list[float]]](), dict[str, Refused](), random.Random(0)
    for runner in runners.values():
        runner.process.send_signal(signal.SIGSTOP)
    for _ in TerminalProgress().track(range(ROUNDS), "measure latency", ROUNDS):
        for name in rng.sample(list(runners), len(runners)):
            if name not in refused:
                runner = runners[name]
                runner.process.send_signal(signal.SIGCONT)
                try:
                    blocks.setdefault(name, []).append(runner.ask("time", BLOCK))
                    runner.process.send_signal(signal.SIGSTOP)
                except Refused as error:
                    refused[name] = error
    found: dict[str, Latency | Refused] = {**refused}
    for name in blocks.keys() - refused.keys():
        each = blocks[name]
        p50, p90, p99 = np.percentile(each, (50, 90, 99))
        found[name] = Latency(p50, p90, p99, (p50, p50), tuple(np.median(each, axis=1)))
    return found
