"""The whole pipeline through the command line, on digits: what comes out, and that it can be interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL

from edgeeff import Bundle
from edgeeff.measurement.accuracy import StepReport


def test_the_json_has_every_promised_field(fitted) -> None:
    out, result = fitted
    assert set(result) >= {"variant", "resolution", "precision", "steps", "latency_ms", "siblings", "bundle", "verdict"}
    assert (result["variant"], result["resolution"], result["bundle"]) == ("lite0", 32, str(out))
    steps = {s["step"]: s for s in result["steps"]}
    assert set(steps) >= {"float", "onnx", "float32", "int8"}
    fields = {"step", "top1", "top5", "drop", "drop_ci", "agreement", "images", "passed", "seconds"}
    assert all(set(s) >= fields and s["images"] == 300 for s in steps.values())
    assert set(result["latency_ms"]) >= {"p50", "p90", "p99", "ci"}
    assert result["verdict"].startswith("Ship")


def test_the_exported_graph_and_the_float_file_answer_as_torch_does(fitted) -> None:
    steps = {s["step"]: s for s in fitted[1]["steps"]}
    for step in ("onnx", "float32"):
        assert steps[step]["agreement"] >= 99.6  # one of 300 photos may lie on the border of two classes


def test_what_ships_is_the_fastest_form_that_passed(fitted) -> None:
    out, result = fitted
    own = [s for s in result["siblings"] if s["runtime"] == "openvino" and s["passed"]]
    assert result["precision"] == min(own, key=lambda s: s["latency_ms"]["p50"])["precision"]
    assert str(Bundle.open(out).manifest.precision) == result["precision"]


def test_eval_of_the_bundle_repeats_the_accuracy_of_the_fit(fitted, digits: Path, run) -> None:
    out, result = fitted
    done = run("eval", out, "--val", digits / "val", "--json")
    shipped = next(s for s in result["siblings"] if s["precision"] == result["precision"] and s["runtime"] == "openvino")
    assert json.loads(done.stdout)["top1"] == pytest.approx(shipped["top1"], abs=1e-6)


def test_bench_and_verify_answer(fitted, run) -> None:
    bench = json.loads(run("bench", fitted[0], "--rounds", 2, "--json").stdout)
    assert 0 < bench["latency_ms"]["p50"] <= bench["latency_ms"]["p99"]
    assert json.loads(run("verify", fitted[0], "--json").stdout)["ok"] is True


def test_nothing_is_left_beside_a_finished_bundle(fitted) -> None:
    assert [p.name for p in fitted[0].parent.iterdir()] == ["bundle"]


def test_unlabelled_photos_calibrate_and_judge_by_agreement(fitted, digits: Path, run, tmp_path: Path) -> None:
    """The bundle's own float weights are not kept, so train again: weights → fit is what counts here."""
    from edgeeff.data import images
    from edgeeff.network import checkpoint, model

    network = model.create("lite0", classes=10, resolution=32)
    preprocess = images.Preprocess.standard(32, network.variant.mean, network.variant.std)
    checkpoint.save(network, tmp_path / "w.safetensors", preprocess, tuple("0123456789"))
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        for i, photo in enumerate(sorted((digits / name).glob("*/*.png"))[::10]):
            (tmp_path / name / f"{i}.png").write_bytes(photo.read_bytes())
    done = run(
        *("fit", "--target", "host-cpu", "--latency", 500, "--variant", "lite0", "--weights", tmp_path / "w.safetensors"),
        *("--calib", tmp_path / "train", "--val", tmp_path / "val", "--min-agreement", 0, "--out", tmp_path / "out", "--json"),
    )
    result = json.loads(done.stdout)
    assert result["resolution"] == 32
    assert all(s["top1"] is None and s["agreement"] >= 0 for s in result["steps"])


def test_a_budget_that_cannot_be_met_has_its_exit_code_and_the_figure(few_digits: Path, run, tmp_path: Path) -> None:
    arguments = [*SMALL, "--train", few_digits / "train", "--val", few_digits / "val", "--out", tmp_path / "out"]
    arguments[arguments.index(500)] = 0.03
    done = run("fit", *arguments, "--max-drop", 50)
    assert done.returncode == 3
    assert "does not meet p50 ≤ 0.03 ms" in done.stderr
    assert " ms" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_budget_that_no_smaller_network_meets_says_what_the_smallest_needs(few_digits: Path, run, tmp_path: Path) -> None:
    arguments = [*SMALL, "--train", few_digits / "train", "--val", few_digits / "val", "--out", tmp_path / "out"]
    done = run("fit", *arguments, "--latency", 0.03, "--variant", "phi-6", "--adapt", "auto", "--max-drop", 100)
    assert done.returncode == 3
    assert "and the smallest that the network can be made needs" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_static_budget_is_refused_before_any_work(digits: Path, run, tmp_path: Path) -> None:
    done = run("fit", *SMALL, "--gflops", 0.0001, "--train", digits / "train", "--val", digits / "val", "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "GMACs" in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_in_one_line_and_a_second_run_goes_on(few_digits: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, "--train", few_digits / "train", "--val", few_digits / "val", "--max-drop", 50, "--out", tmp_path / "out"]
    arguments[arguments.index("--epochs") + 1] = 3
    command = [sys.executable, "-m", "edgeeff", "fit", *map(str, arguments)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    saved = tmp_path / ".out.partial" / "lite0-32" / "relu6-training.pt"
    deadline = time.monotonic() + 200
    while not saved.exists() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    output, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    assert "interrupted; the same command continues" in errors
    assert "Traceback" not in errors
    assert output == ""
    assert not (tmp_path / "out").exists()
    second = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert second.returncode == 0, second.stderr
    assert "resumed after epoch" in second.stderr
    assert Bundle.open(tmp_path / "out").verify()["images"] < 1e-3


@pytest.fixture(scope="module")
def swish_weights(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network smaller than B0 whose batch norms have seen the digits; its classes mean nothing: only agreement can be judged."""
    import torch

    from edgeeff.data import images
    from edgeeff.network import checkpoint, model

    torch.manual_seed(0)
    network = model.create("phi-4", classes=16, resolution=32).train()
    preprocess = images.Preprocess.standard(32, network.variant.mean, network.variant.std)
    pixels = images.PixelFile(images.ImageSet.open(digits / "train").draw(64), preprocess)
    with torch.no_grad():
        for _ in range(20):
            model.Deployed(network, preprocess)(torch.from_numpy(pixels.rows(0, 64)))
        answers = model.Deployed(network.eval(), preprocess)(torch.from_numpy(pixels.rows(0, 64)))
        network.classifier.bias -= answers.mean(0)  # so that the photos fall into different classes
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    checkpoint.save(network, path, preprocess, ())
    return path


def swish(weights: Path, photos: Path, out: Path, *more: object) -> list[object]:
    return [
        *("fit", "--target", "host-cpu", "--latency", 500, "--variant", "phi-4", "--weights", weights, "--no-flip"),
        *("--calib", photos / "train", "--val", photos / "val", "--out", out, *more),
    ]


def test_a_swapped_network_is_recovered_without_labels_and_ships(
    swish_weights: Path, unlabelled: Path, run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run(*swish(swish_weights, unlabelled, out, "--activation", "hardswish", "--min-agreement", 0, "--json"))
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    forms = {(s["precision"], s["activation"]) for s in result["siblings"]}
    assert {("float32", "silu"), ("float32", "hardswish"), ("int8", "hardswish")} <= forms
    manifest = Bundle.open(out).manifest
    assert manifest.activation == result["activation"]
    assert "recovered on" in done.stderr or "distil:" in done.stderr


def test_auto_says_what_a_swap_gains(swish_weights: Path, unlabelled: Path, run, tmp_path: Path) -> None:
    done = run(*swish(swish_weights, unlabelled, tmp_path / "out", "--activation", "auto", "--min-agreement", 0))
    assert done.returncode == 0, done.stderr
    assert "hardswish makes INT8" in done.stdout
    assert "not worth a swap" in done.stdout or "recovered, it loses" in done.stdout
    shipped = next(s for s in Bundle.open(tmp_path / "out").manifest.steps if s.step == "int8")
    require_worst_class(done.stdout, shipped)


def require_worst_class(output: str, step: StepReport) -> None:
    """The table and the step name the same class, of photos that the float network says to be of it."""
    worst = step.worst_class
    assert worst is not None
    assert worst.before == 100
    assert worst.photos >= 5
    table = output.partition("the class that loses most, of those with 5 photos or more\n")[2].splitlines()
    assert table[0].split() == ["step", "class", "photos", "float", "%", "now", "%", "drop"]
    (row,) = [line.split() for line in table if line.startswith(f"{step.step} ")][:1]
    assert row[-5:] == [worst.name, str(worst.photos), "100.00", f"{worst.after:.2f}", f"{worst.drop:+.2f}"]


def test_when_all_remedies_fail_nothing_ships_unless_accepted(swish_weights: Path, unlabelled: Path, run, tmp_path: Path) -> None:
    integer = tmp_path / "integer.yaml"
    integer.write_text("description: INT8 or nothing\nbackend: openvino\nprecisions: [int8]\n")
    gate = ("--target", integer, "--min-agreement", 100, "--time-budget", 0.001)
    arguments = swish(swish_weights, unlabelled, tmp_path / "out", *gate)
    refused = run(*arguments)
    assert refused.returncode == 4
    assert "agreement with the float model" in refused.stderr
    assert "--accept ships it all the same" in refused.stderr
    assert not (tmp_path / "out").exists()
    accepted = run(*arguments, "--accept")
    assert accepted.returncode == 0, accepted.stderr
    assert "It fails the gate, and was accepted all the same." in accepted.stdout
    assert "not tried: the time budget was used up" in accepted.stdout
    assert Bundle.open(tmp_path / "out").verify()["images"] < 1e-3


@pytest.mark.parametrize(
    ("option", "message"),
    [(("--time-budget", 0), "--time-budget 0.0: expected minutes"), (("--calibration", "all"), "unknown calibration recipe 'all'")],
)
def test_odd_options_are_refused(swish_weights: Path, unlabelled: Path, run, tmp_path: Path, option, message: str) -> None:
    done = run(*swish(swish_weights, unlabelled, tmp_path / "out", *option))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_same_command_trains_in_two_processes(swish_weights: Path, unlabelled: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "edgeeff"]
    arguments = swish(swish_weights, unlabelled, tmp_path / "out", "--activation", "hardswish", "--min-agreement", 0, "--json")
    on_cpus = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # two processes would need two GPUs
    done = subprocess.run([*torchrun, *map(str, arguments)], capture_output=True, text=True, timeout=400, env=on_cpus)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bundle"] == str(tmp_path / "out")  # one process speaks
    assert done.stderr.count("distil 1/") == 1
    assert Bundle.open(tmp_path / "out").verify()["images"] < 1e-3


def test_resolutions_of_ones_own_weights_are_ranked_by_what_they_say(
    swish_weights: Path, unlabelled: Path, run, tmp_path: Path
) -> None:
    done = run(*swish(swish_weights, unlabelled, tmp_path / "out"), "--resolution", 32, 48, "--min-agreement", 0, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resolution"] == 32  # the weights' own agrees with itself entirely, and both fit
    manifest = Bundle.open(tmp_path / "out").manifest
    assert manifest.preprocess.resolution == 32
