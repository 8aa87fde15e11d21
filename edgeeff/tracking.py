"""The figures of a fit for those who compare runs, in MLflow's or TensorBoard's own files, through their libraries.

They come from the bundle alone, once it is there: a fit that ends without one leaves no run. Parameters are the job's, as its file
has them, and what was chosen; figures have the same names whatever ships, so that runs can be laid side by side.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import bundle, card, config, job_file
from .bundle import Bundle
from .diagnostics import Diagnostics
from .errors import EdgeeffError
from .files import working_folder
from .job import Job
from .manifest import NAME, Manifest
from .records import read_json

EXPERIMENT = "edgeeff"
FILES = (NAME, bundle.DIAGNOSTICS, bundle.REPORT, card.NAME, job_file.NAME)  # that MLflow keeps beside the figures
MOST_AT_ONCE = 500  # figures that MLflow takes in one call


@dataclass(frozen=True)
class Run:
    """What is written. `curves` have a value for each epoch."""

    name: str
    parameters: Mapping[str, str | float]
    figures: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]
    verdict: str
    files: Sequence[Path]

    @classmethod
    def of(cls, made: Bundle) -> Run:
        """That of a bundle, as fit made it."""
        m, epochs = made.manifest, read_json(made.path / bundle.DIAGNOSTICS, Diagnostics).training
        asked = {name: _plain(value) for name, value in config.parse(made.path / job_file.NAME, "job").items()}
        chosen: dict[str, str | float] = {"variant": m.variant, "resolution": m.resolution, "precision": str(m.precision)}
        curves = {"training_loss": [e.loss for e in epochs], "training_top1": [e.right for e in epochs if e.right is not None]}
        return cls(
            name=f"{made.path.name} {m.made_at(made.path):%Y-%m-%d %H.%M.%S}",
            parameters={**asked, **chosen, "activation": m.activation, "strategy": m.remedy, "left_out": len(m.left_out)},
            figures=_figures(m),
            curves={name: values for name, values in curves.items() if values},
            verdict=m.verdict,
            files=[file for file in (made.path / name for name in FILES) if file.exists()],
        )

    @property
    def scalars(self) -> list[tuple[str, float, int]]:
        """Every figure and every value of a curve, with its name and its epoch; a figure has epoch 0."""
        figures = [(name, value, 0) for name, value in self.figures.items()]
        return figures + [(name, value, epoch) for name, values in self.curves.items() for epoch, value in enumerate(values, 1)]


def write(job: Job, made: Bundle) -> None:
    """A run of the bundle that a job made, where it asks for one. Raises EdgeeffError with the library's reason."""
    if (log := job.log) is None:
        return
    try:
        WRITERS[log.tool](log.folder, Run.of(made))
    except EdgeeffError:
        raise
    except Exception as error:  # whatever the libraries and their database raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise EdgeeffError(f"{log.folder}: {log.tool} wrote no run: {reason[:300]}. The bundle is complete: {made.path}") from error


def _figures(m: Manifest) -> dict[str, float]:
    form, engine = m.shipped_form, next((e for e in m.engines if e.precision is m.precision), None)
    judged = {"float": m.steps[0], "engine": engine and engine.accuracy}
    if m.held_out:
        judged |= {"test_float": m.held_out.steps[0], "test": m.held_out.steps[1]}
    found: dict[str, float | None] = {f"{name}_top1": step.top1 for name, step in judged.items() if step}
    if form:
        found |= {"top1": form.top1, "drop": form.drop, "agreement": form.agreement}
    if m.held_out:
        found["test_drop"] = m.held_out.steps[1].drop
    if m.metrics:
        found |= m.metrics.costs
    if latency := m.metrics.latency if m.metrics else engine and engine.latency_ms:
        found |= {f"latency_p{p}_ms": latency.at(p) for p in (50, 90, 99)}
    if m.confidence:
        after = m.confidence.after
        found |= {"temperature": m.confidence.temperature, "calibration_error": after.error if after else None}
    return {name: float(value) for name, value in found.items() if value is not None}


def _mlflow(folder: Path, run: Run) -> None:
    """A run in the database mlflow.db; its files lie in artifacts/. https://mlflow.org/docs/latest/self-hosting/architecture"""
    import mlflow
    from mlflow.entities import Metric, Param

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    known = client.get_experiment_by_name(EXPERIMENT)
    artifacts = (folder / "artifacts").as_uri()
    experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT, artifact_location=artifacts)
    number = client.create_run(experiment, run_name=run.name, tags={"mlflow.note.content": run.verdict}).info.run_id
    status = "FAILED"
    try:
        metrics = [Metric(name, value, 0, step) for name, value, step in run.scalars]
        params = [Param(name, str(value)) for name, value in run.parameters.items()]
        client.log_batch(number, params=params)
        for i in range(0, len(metrics), MOST_AT_ONCE):
            client.log_batch(number, metrics=metrics[i : i + MOST_AT_ONCE])
        for file in run.files:
            client.log_artifact(number, str(file))
        status = "FINISHED"
    finally:
        client.set_terminated(number, status)


def _tensorboard(folder: Path, run: Run) -> None:
    """A folder with an event file: scalars, the verdict as text, and what the HPARAMS page lists.

    Written here and now: torch's SummaryWriter has a thread for it, whose errors are tracebacks.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    from torch.utils.tensorboard.summary import hparams, scalar, text

    out, now = folder / run.name, time.time()
    summaries = [(each, 0) for each in hparams(dict(run.parameters), dict(run.figures))]  # type: ignore[no-untyped-call]
    summaries += [(scalar(name, value), step) for name, value, step in run.scalars]  # type: ignore[no-untyped-call]
    summaries.append((text("verdict", run.verdict), 0))  # type: ignore[no-untyped-call]
    events = [Event(wall_time=now, file_version="brain.Event:2")]
    events += [Event(wall_time=now, step=step, summary=summary) for summary, step in summaries]
    with working_folder(out) as work:
        (work / "run").mkdir()
        with (work / "run" / f"events.out.tfevents.{now:.0f}").open("wb") as file:
            records = RecordWriter(file)
            for event in events:
                records.write(event.SerializeToString())
        (work / "run").rename(out)


WRITERS: Mapping[str, Callable[[Path, Run], None]] = {"mlflow": _mlflow, "tensorboard": _tensorboard}


def _plain(value: object) -> str | float:
    return value if isinstance(value, (int, float, str)) else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
