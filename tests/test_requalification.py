"""A bundle held to its manifest again: in the same environment, damaged, rehashed, on other photos, and on another device."""

import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import refused
from manifests import LATENCY, METRICS, small_manifest

from edgeeff import Budget, Bundle, Precision
from edgeeff.bundle import seal
from edgeeff.cli import main
from edgeeff.evaluation import BundleBenchmark, Evaluation
from edgeeff.job import RequalifyJob
from edgeeff.manifest import Manifest, digest
from edgeeff.measurement.benchmark import PROBES, Metrics
from edgeeff.measurement.confidence import Reliability
from edgeeff.records import from_json, to_json
from edgeeff.requalification import Judged, Line, Requalification, _accuracy, _latency, _recorded, requalify

LONG_AGO = replace(LATENCY, p50=50.0, ci=(1e-3, 1e3))  # no machine is so busy that the intervals do not overlap


@pytest.fixture
def copy(fitted, tmp_path: Path) -> Path:
    """The fitted bundle, as if its latency had been measured on an idle machine, within wide limits."""
    path = shutil.copytree(fitted[0], tmp_path / "bundle")
    facts = Bundle.open(path).manifest
    assert facts.metrics
    changed(path, disturbed=(), metrics=Metrics(LONG_AGO, facts.metrics.costs))
    return path


@pytest.fixture
def elsewhere(copy: Path) -> Path:
    """The same, as if it had been fitted on another processor: its latency is not measured, which saves the time."""
    changed(copy, device=replace(Bundle.open(copy).manifest.device, cpu="another"))
    return copy


def changed(path: Path, **changes: object) -> Manifest:
    """Write the manifest anew, with the hashes of the files that lie there."""
    return seal(path, replace(Manifest.read(path), **changes)).manifest


def outcomes(lines: tuple[Line, ...]) -> dict[str, str]:
    return {line.what: line.outcome for line in lines}


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """How the verb ends, in this process."""

    def edgeeff(*words: object) -> subprocess.CompletedProcess[str]:
        code = main(["requalify", *map(str, words)])
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return edgeeff


def flip_a_weight(path: Path) -> None:
    """The highest bit of the exponent of the classifier's first bias."""
    layers = re.findall(r'<layer [^>]*type="Const"[^>]*>\s*<data element_type="f32" shape="1,\s*10" offset="(\d+)"', xml(path))
    assert layers
    data = bytearray((path / "model.bin").read_bytes())
    start = int(layers[-1])
    assert -10 < struct.unpack_from("<f", data, start)[0] < 10
    data[start + 3] ^= 0x40
    (path / "model.bin").write_bytes(data)


def xml(path: Path) -> str:
    return (path / "model.xml").read_text()


def test_in_the_environment_of_the_manifest_all_is_the_same_and_nothing_is_written(
    copy: Path, digits: Path, ended, brief, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeeff.measurement.latency.noise_reasons", lambda before, after: [])
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in copy.iterdir()}
    done = ended(copy, "--val", digits / "val", "--rounds", 2, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = from_json(told, Requalification, "it")
    assert found.verdict.startswith("Same. P50 50.000 → ")
    assert found.verdict.endswith("The environment is the manifest's.")
    names = ["files", "golden images", "golden frames", "top-1 %", "accuracy gate", "p50 ms", "budget"]
    assert outcomes(found.results) == dict.fromkeys(names, "same")
    assert {"device", "threads", "openvino", "numpy"} <= set(outcomes(found.environment))
    assert set(outcomes(found.environment).values()) == {"same"}
    facts = Bundle.open(copy).manifest
    assert told["evaluation"]["photos_sha256"] == facts.validation_sha256
    assert told["benchmark"]["metrics"]["latency_ms"]["p50"] > 0
    assert to_json(found) == told  # what another host answers is read as it was written
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in copy.iterdir()} == before


def test_a_slower_file_with_fewer_threads_is_told_and_an_unsound_measurement_has_its_code(
    copy: Path, ended, brief, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("fps", "memory_mb"):  # which are no part of the comparison
        monkeypatch.delitem(PROBES, slow)
    facts = Bundle.open(copy).manifest
    assert facts.metrics
    fast = Metrics(replace(LATENCY, p50=1e-3, ci=(9e-4, 1.1e-3)), facts.metrics.costs)
    changed(copy, metrics=fast, device=replace(facts.device, cores=64), versions={**facts.versions, "openvino": "2026.0.0"})
    for reasons, code in ([], 0), (["other programs used 2 of 2 cores"], 9):
        monkeypatch.setattr("edgeeff.measurement.latency.noise_reasons", lambda before, after: reasons)  # noqa: B023
        done = ended(copy, "--rounds", 2)
        assert done.returncode == code
        *_, verdict = done.stdout.splitlines()
        threads = facts.device.cores
        assert f"The environment differs: threads 64 → {threads}; openvino 2026.0.0 → {facts.versions['openvino']}." in verdict
        assert re.search(r"^p50 ms +0\.001 \(0\.001 … 0\.001\) +\d+\.\d+ \(.*\) +(\w.*)$", done.stdout, re.MULTILINE)
        if code:
            assert "not a sound measurement, twice: other programs used 2 of 2 cores." in done.stderr
            assert "p50 ms" not in verdict.partition(".")[0]
        else:
            assert verdict.startswith("Differs: p50 ms. ")
            assert "% slower: the intervals do not overlap." in verdict


def test_a_flipped_weight_is_a_damaged_bundle_and_rehashed_it_gives_other_answers(elsewhere: Path, ended) -> None:
    flip_a_weight(elsewhere)
    refused(ended(elsewhere), 2, "model.bin does not match its hash")
    changed(elsewhere)
    done = ended(elsewhere, "--json")
    refused(done, 2, f"{elsewhere}: golden images give other logits: off by")
    told = from_json(json.loads(done.stdout), Requalification, "it")
    assert outcomes(told.results)["golden images"] == "differs"
    assert outcomes(told.results)["files"] == "same"
    assert told.verdict.startswith("Differs: golden images")


def test_another_device_is_told_and_all_but_latency_compared(elsewhere: Path, few_digits: Path, digits: Path) -> None:
    found = requalify(RequalifyJob(elsewhere, val=digits / "val"))
    assert found.error is None
    assert found.benchmark is None
    assert found.verdict.startswith("Same, as far as it was compared. Latency is not compared: this is another device.")
    assert "The environment differs: device another" in found.verdict
    compared = {"files", "golden images", "golden frames", "top-1 %", "accuracy gate"}
    assert outcomes(found.results) == {**dict.fromkeys(compared, "same"), "p50 ms": "not compared"}

    others = requalify(RequalifyJob(elsewhere, val=few_digits / "val"))
    assert "on other photos than the manifest's: " in others.verdict
    assert "accuracy gate" not in outcomes(others.results)  # its limit is against the float network, on the photos of the fit


def test_a_loss_over_the_gate_has_the_gate_s_code(elsewhere: Path, digits: Path, ended) -> None:
    facts = Bundle.open(elsewhere).manifest
    assert facts.shipped is not None
    rows = list(facts.siblings)
    top1 = rows[facts.shipped].top1
    assert top1 is not None
    rows[facts.shipped] = replace(rows[facts.shipped], top1=top1 + 5, drop=0.0, drop_ci=(-1.0, 1.0))
    changed(elsewhere, siblings=tuple(rows), max_drop=3.0)
    done = ended(elsewhere, "--val", digits / "val")
    refused(done, 4, "the accuracy gate fails: drop 5.00 points > 3 allowed (300 images).")
    told = "on the same 300 photos: the drop from float is +5.00 points, outside the manifest's +0.00 (-1.00 to +1.00)"
    assert told in done.stdout


def test_bad_input_is_one_line(elsewhere: Path, digits: Path, ended, tmp_path: Path) -> None:
    refused(ended(tmp_path / "nowhere"), 2, "nowhere")
    refused(ended(tmp_path), 2, "not a bundle")
    shutil.copytree(digits / "val/3", tmp_path / "photos/cats")
    shutil.copytree(digits / "val/4", tmp_path / "photos/dogs")
    refused(ended(elsewhere, "--val", tmp_path / "photos"), 2, "photos")
    older = json.loads((elsewhere / "manifest.json").read_text())
    for schema, code in (1, 0), (0, 2):
        data = {**older, "schema": schema}
        (elsewhere / "manifest.json").write_text(json.dumps({**data, "digest": digest(data)}))
        done = ended(elsewhere)
        assert done.returncode == code, done.stderr
    refused(done, 2, "bundle schema 0, this edgeeff reads 1 to 2")


JUDGED = Judged("a" * 64, 400, 90.0, 1.0, (-0.5, 2.5), 2.0)
EVALUATION = Evaluation(
    "b", Precision.INT8, 90.0, 99.0, 400, 1.0, 1.0, 200.0, None, (), "a" * 64, 1.0, Reliability(400, 1.0, 1.0, ())
)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ({}, [("same", 0), ("same", 0)]),
        ({"top1": 89.0}, [("same", 0), ("same", 0)]),  # a drop of 2 points: within -0.5 to 2.5, and at the limit
        ({"top1": 88.75}, [("same", 0), ("differs", 4)]),  # 2.25: within the interval, over the limit
        ({"top1": 88.25}, [("differs", 0), ("differs", 4)]),
        ({"top1": 91.75}, [("differs", 0), ("same", 0)]),  # a gain of 0.75
        # 90% and 85.5% of 400 photos each differ at 95% from 4.57 points on (Agresti and Coull: 1.96 · √(1.518² + 1.769²)).
        ({"top1": 85.75, "photos_sha256": "b" * 64}, [("same", 0)]),
        ({"top1": 85.25, "photos_sha256": "b" * 64}, [("differs", 0)]),
    ],
)
def test_an_accuracy_differs_where_the_interval_supports_it(now: dict, expected: list) -> None:
    lines = list(_accuracy([JUDGED], replace(EVALUATION, **now)))
    assert [(line.outcome, line.exit_code) for line in lines] == expected


def test_what_was_not_taken_or_not_recorded_is_not_compared() -> None:
    for judged, now in ([JUDGED], None), ([], EVALUATION), ([], None):
        assert [line.outcome for line in _accuracy(judged, now)] == ["not compared"]
    assert [line.outcome for line in _accuracy([replace(JUDGED, max_drop=None)], EVALUATION)] == [
        "same"
    ]  # never passed, or test photos


@pytest.fixture
def timed() -> Callable[..., list[Line]]:
    """The lines of a manifest whose p50 is 1 ms (0.9 to 1.1), and of a measurement with that interval now."""

    def lines(ci: tuple[float, float], disturbed: tuple[str, ...] = (), then: tuple[str, ...] = (), **budget: float) -> list[Line]:
        facts = replace(small_manifest(), disturbed=then, budget=Budget(**budget))
        now = Metrics(replace(LATENCY, p50=sum(ci) / 2, ci=ci), METRICS.costs)
        return list(_latency(facts, [LATENCY], BundleBenchmark("b", Precision.INT8, now, facts.device, (), disturbed)))

    return lines


def test_a_latency_differs_only_where_intervals_are_apart_and_both_measurements_sound(timed: Callable[..., list[Line]]) -> None:
    for ci, outcome, word in (
        ((1.1, 1.3), "same", "20% slower: the intervals overlap"),
        ((1.11, 1.29), "differs", "20% slower: the intervals do not overlap"),
        ((0.7, 0.9), "same", "20% faster: the intervals overlap"),
        ((0.5, 0.89), "differs", "faster: the intervals do not overlap"),
    ):
        (line,) = timed(ci)
        assert (line.outcome, line.exit_code) == (outcome, 0)
        assert word in line.note
    assert [(line.outcome, line.exit_code) for line in timed((5.0, 6.0), ("others",), latency_ms=1.0)] == [("not sound", 9)]
    assert [line.outcome for line in timed((5.0, 6.0), then=("others",))] == ["not compared"]


def test_a_budget_is_held_to_the_upper_end_and_to_what_was_measured(timed: Callable[..., list[Line]]) -> None:
    met, missed, unknown = (
        timed((1.0, 1.2), **budget)[1] for budget in ({"latency_ms": 1.2}, {"latency_ms": 1.1}, {"energy_mj": 1})
    )
    assert (met.outcome, met.exit_code) == ("same", 0)
    assert (missed.outcome, missed.exit_code) == ("differs", 3)
    assert missed.note == "the budget (p50 ≤ 1.1 ms) is not met: p50 1.10 ms (at most 1.20)"
    assert (unknown.outcome, unknown.note) == ("same", "energy_mj is not measured")


def test_of_machines_measured_as_one_the_equal_ones_are_compared_with() -> None:
    facts = small_manifest()
    here, other = facts.device, replace(facts.device, cpu="another")
    slower = replace(LATENCY, p50=2.0)
    fleet = replace(
        facts,
        device=replace(here, hosts={"a": here, "b": other, "c": here}),
        metrics=Metrics(slower, METRICS.costs, {"a": LATENCY, "b": slower, "c": slower}),
    )
    assert _recorded(fleet, replace(here, cores=1)) == [LATENCY, slower]
    assert _recorded(facts, other) == _recorded(replace(facts, metrics=None), here) == []
