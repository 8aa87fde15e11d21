"""A fit as a YAML file: what is written of a job is the same job when it is read, from anywhere."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from attempts import Hostile

from edgeeff import Bundle, job_file
from edgeeff.budget import Budget
from edgeeff.cli.options import filled, parser, with_job_file
from edgeeff.job import Job
from edgeeff.option import arguments


def read(path: Path, *more: str) -> Job:
    return filled(Job, parser().parse_args(with_job_file(["fit", "--job", str(path), *more])))


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    return Job(
        target="host-cpu",
        val="photos/val.zip/a",
        train=tmp_path / "photos/train",
        out="made/out",
        budget=Budget(latency_ms=2.5, percentile=90),
        variants=("lite0", "b0"),
        resolution=(32, 64),
        lr=0.00001,
        flip=False,
        accept=True,
        max_drop=2.0,
    )


def test_a_file_gives_the_job_that_it_was_written_of(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "made/out"
    folder.mkdir(parents=True)
    (folder / "fit.yaml").write_text(job_file.dump(job, folder))
    assert arguments(read(Path("made/out/fit.yaml"))) == arguments(job)
    elsewhere = tmp_path / "made/other"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    there = replace(job, val="../../photos/val.zip/a", out="../out")
    assert arguments(read(Path("../out/fit.yaml"))) == arguments(there)


def test_options_come_before_those_of_the_file(job: Job, tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text(job_file.dump(job, tmp_path))
    found = read(tmp_path / "fit.yaml", "--max-drop", "1", "--variant", "v2-b0", "--latency", "7")
    assert (found.max_drop, list(found.variants), found.budget.latency_ms, found.flip) == (1, ["v2-b0"], 7, False)


def test_names_stay_names(tmp_path: Path) -> None:
    path = tmp_path / "fit.yaml"
    path.write_text("{target: mine.yaml, weights: 'hf-hub:a/b', variants: b0, val: v, calib: c, calibration: default, out: o}")
    found = read(path)
    assert (found.weights, found.calibration, list(found.variants)) == ("hf-hub:a/b", "default", ["b0"])
    assert Path(found.target).resolve() == tmp_path / "mine.yaml"


WHOLE = {"target": "host-cpu", "val": "v", "train": "t", "out": "o"}
WRONG = {
    "an unknown key": ({"max_dorp": 1}, "Did you mean 'max_drop'?"),
    "an option's name": ({"latency": 1}, "Did you mean 'latency_ms'?"),
    "another key": ({"zzz": 1}, "unknown key 'zzz'"),
    "a list": ({"val": ["a", "b"]}, "val: expected text or a number"),
    "an empty list": ({"variants": []}, "variants: expected a list"),
    "a mapping": ({"train": {"a": 1}}, "train: expected"),
    "nothing": ({"train": None}, "train: expected"),
    "a boolean": ({"target": True}, "target: expected"),
    "no boolean": ({"accept": 1}, "accept: expected true or false"),
    "text for a number": ({"max_drop": "lots"}, "--max-drop"),
    "NaN": ({"max_drop": float("nan")}, "--max-drop"),
    "an option as a value": ({"target": "--help"}, "--help"),
    "control characters": ({"target": "\x1b[31m"}, "x1b"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_are_refused(hostile: Hostile, tmp_path: Path, case: str) -> None:
    more, word = WRONG[case]
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump({**WHOLE, **more}))
    hostile.refused("fit", "--job", tmp_path / "fit.yaml", words=(word,))


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b"\xff", b"a: &a x\nb: *a", b"target: !!python/object/apply:os.system [touch ran]", b"x" * 20_000]
)
def test_what_is_no_job_file(hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    Path("fit.yaml").write_bytes(text)
    if text:
        hostile.refused("fit", "--job", "fit.yaml", words=("fit.yaml",))
    hostile.refused("fit", "--job", "nowhere.yaml", words=("nowhere.yaml", "no such job file"))
    hostile.expect(not Path("ran").exists(), "ran something")


def test_a_bundle_has_the_file_that_repeats_its_fit(bundle: Bundle, digits: Path) -> None:
    found = read(bundle.path / "fit.yaml")
    assert "fit.yaml" in bundle.manifest.files
    assert (Path(found.out).resolve(), Path(found.train or "").resolve()) == (bundle.path, (digits / "train").resolve())
    assert (found.max_drop, found.epochs, found.flip, found.budget.latency_ms) == (20, 1, False, 500)
