"""What MLflow and TensorBoard read of a fit, by their own readers."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgeeff import BadInput, Bundle, EdgeeffError, Job, job_file, tracking
from edgeeff.cli import main
from edgeeff.job import RunLog

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:::(mlflow|sqlalchemy|alembic|tensorboard|pydantic|google).*")]


def job(log: str) -> Job:
    return Job(target="host-cpu", out="out", val="val", train="train", log=RunLog.parse(log))


def check_figures(figures: dict[str, float], bundle: Bundle) -> None:
    m = bundle.manifest
    assert m.metrics
    assert m.shipped_form
    assert figures["top1"] == pytest.approx(m.shipped_form.top1)
    assert figures["float_top1"] == pytest.approx(m.steps[0].top1)
    assert figures["latency_p50_ms"] == pytest.approx(m.metrics.latency.p50)
    assert figures["size_mb"] == pytest.approx(m.metrics.costs["size_mb"])


def test_mlflow_reads_parameters_figures_curves_and_files(fitted, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    bundle, folder = Bundle.open(fitted[0]), tmp_path / "runs of today"
    asked = job(f"mlflow:{folder}")
    assert asked.log
    asked.log.require()
    for _ in range(2):
        tracking.write(asked, bundle)
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    check_figures(runs[0].data.metrics, bundle)
    assert runs[0].data.params["variant"] == bundle.manifest.variant
    assert runs[0].data.params["precision"] == str(bundle.manifest.precision)
    assert runs[0].data.tags["mlflow.note.content"] == bundle.manifest.verdict
    number = runs[0].info.run_id
    losses = client.get_metric_history(number, "training_loss")
    assert [each.step for each in losses] == list(range(1, len(losses) + 1))
    assert losses
    assert {file.path for file in client.list_artifacts(number)} == set(tracking.FILES)


def test_tensorboard_reads_scalars_and_hyperparameters(fitted, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    bundle = Bundle.open(fitted[0])
    tracking.write(job(f"tensorboard:{tmp_path}"), bundle)
    (run,) = tmp_path.iterdir()
    assert run.name.startswith("bundle 20")
    events = EventAccumulator(str(run)).Reload()
    tags = events.Tags()["scalars"]
    check_figures({tag: events.Scalars(tag)[-1].value for tag in tags}, bundle)
    assert events.Scalars("training_loss")[0].step == 1
    text = events.Tensors("verdict/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == bundle.manifest.verdict
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_a_fit_writes_a_run_and_its_file_repeats_that(few_digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = ("--variant", "lite0", "--resolution", "32", "--epochs", "1", "--no-flip", "--latency", "500", "--accept")
    photos = ("--train", str(few_digits / "train"), "--val", str(few_digits / "val"))
    assert main(["fit", "--target", "host-cpu", *network, *photos, "--out", "out", "--log", "tensorboard:runs"]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert f"--log=tensorboard:{tmp_path / 'runs'}" in job_file.words(tmp_path / "out" / job_file.NAME)


@pytest.mark.parametrize("value", ["mlflow", "mlflow:", "csv:runs", ":runs"])
def test_another_tool_is_refused(capfd, value: str) -> None:
    words = ["--target", "host-cpu", "--val", "val", "--train", "train", "--out", "out"]
    assert main(["fit", *words, "--log", value]) == 2
    assert "expected mlflow:DIR or tensorboard:DIR" in capfd.readouterr().err


def test_before_anything_is_trained_a_missing_library_is_named(capfd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    words = ["--target", "host-cpu", "--val", "val", "--train", "train", "--out", str(tmp_path / "out")]
    assert main(["fit", *words, "--log", f"tensorboard:{tmp_path}"]) == 5
    assert capfd.readouterr().err == "edgeeff: tensorboard is not installed: pip install 'edgeeff[log]'\n"


def test_a_place_that_is_no_folder_is_refused_at_once_and_a_broken_database_in_a_line(fitted, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="file"):
        RunLog("mlflow", tmp_path / "file").require()
    (tmp_path / "mlflow.db").write_bytes(b"no database " * 1000)
    with pytest.raises(EdgeeffError, match="wrote no run: .*The bundle is complete"):
        tracking.write(job(f"mlflow:{tmp_path}"), Bundle.open(fitted[0]))


@pytest.mark.parametrize("tool", ["mlflow", "tensorboard"])
def test_a_full_disk_is_one_line_and_leaves_no_half_written_run(fitted, tmp_path: Path, tool: str) -> None:
    code = (
        "import resource, sys\nfrom edgeeff import Bundle, Job, tracking\nfrom edgeeff.errors import EdgeeffError\n"
        "from edgeeff.job import RunLog\n"
        "log = RunLog.parse(sys.argv[2])\nlog.require()\n"
        "made = Bundle.open(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: tracking.write(Job(target='host-cpu', out='out', val='val', train='train', log=log), made)\n"
        "except EdgeeffError as error: sys.exit(f'told: {error}')\n"
    )
    folder = tmp_path / "runs"
    done = subprocess.run([sys.executable, "-c", code, fitted[0], f"{tool}:{folder}"], capture_output=True, text=True, timeout=300)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"told: {folder}")
    assert {"mlflow": "mlflow wrote no run: ", "tensorboard": "no space left on its disk, or over a quota"}[tool] in line
    assert tool == "mlflow" or not list(folder.iterdir())
