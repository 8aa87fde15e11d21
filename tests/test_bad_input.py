"""One clear line, the right exit code, nothing half written."""

import json
import os
import pickle
import resource
import shutil
from pathlib import Path

import pytest
from conftest import SMALL, refused


def fit(run, digits: Path, out: Path, *more: object, **folders: Path):
    train, val = folders.get("train", digits / "train"), folders.get("val", digits / "val")
    done = run("fit", *SMALL, "--train", train, "--val", val, "--out", out, *more)
    if done.returncode:
        assert not out.exists() or out == digits
    return done


@pytest.fixture
def photos(digits: Path, tmp_path: Path) -> Path:
    """A private copy of the training photos."""
    return Path(shutil.copytree(digits / "train", tmp_path / "photos"))


def test_missing_folder(run, digits: Path, tmp_path: Path) -> None:
    refused(fit(run, digits, tmp_path / "out", train=tmp_path / "nowhere"), 2, "nowhere", "no such folder")


def test_empty_class(run, digits: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "ten").mkdir()
    refused(fit(run, digits, tmp_path / "out", train=photos), 2, "ten", "an empty class")


def test_one_class(run, digits: Path, photos: Path, tmp_path: Path) -> None:
    for folder in sorted(photos.iterdir())[1:]:
        shutil.rmtree(folder)
    refused(fit(run, digits, tmp_path / "out", train=photos), 2, "at least two folders")


def test_unlabelled_training_photos(run, digits: Path, photos: Path, tmp_path: Path) -> None:
    refused(fit(run, digits, tmp_path / "out", train=photos / "0"), 2, "unlabelled")


def test_text_and_truncated_files_over_the_share_stop_the_run(run, digits: Path, photos: Path, tmp_path: Path) -> None:
    for i in range(3):
        (photos / "0" / f"text{i}.jpg").write_text("not a photo")
    whole = next((photos / "1").iterdir()).read_bytes()
    (photos / "1" / "truncated.png").write_bytes(whole[: len(whole) // 2])
    refused(fit(run, digits, tmp_path / "out", train=photos), 2, "4 of 304 files cannot be read", "text0.jpg", "1% allowed")


def test_training_and_validation_photos_that_overlap(run, digits: Path, photos: Path, tmp_path: Path) -> None:
    for photo in sorted((digits / "val" / "3").iterdir())[:4]:
        shutil.copy(photo, photos / "3" / f"renamed-{photo.name}")
    refused(fit(run, digits, tmp_path / "out", train=photos), 2, "photos also occur in", "renamed-", "Give disjoint folders")


def test_a_single_calibration_photo_that_also_judges(run, digits: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copy(next((digits / "val" / "3").iterdir()), photos / "3" / "renamed.png")
    refused(fit(run, digits, tmp_path / "out", "--calib", photos), 2, "1 of", "renamed.png")


def test_a_class_that_training_lacks(run, digits: Path, photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos / "9")
    refused(fit(run, digits, tmp_path / "out", "--epochs", 1, train=photos), 2, "class '9'")


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--max-drop", "101", "max-drop"),
        ("--resolution", "7", "resolution"),
        ("--epochs", "0", "epochs"),
        ("--lr", "-1", "lr"),
        ("--variant", "b8", "Did you mean 'b"),
        ("--target", "host-cpus", "Did you mean 'host-cpu'"),
        ("--weights", "nowhere.pth", "no such checkpoint"),
    ],
)
def test_wrong_options(run, digits: Path, tmp_path: Path, option: str, value: str, word: str) -> None:
    refused(fit(run, digits, tmp_path / "out", option, value), 2, word)


def test_a_pickle_with_code_is_refused_and_not_run(run, digits: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/executed",)

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"conv_stem.weight": Evil()}))
    done = fit(run, digits, tmp_path / "out", "--weights", tmp_path / "w.pth")
    refused(done, 2, "w.pth", "refused")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_of_another_variant(run, digits: Path, tmp_path: Path) -> None:
    import torch

    from edgeeff.network.model import create

    torch.save(create("b0").state_dict(), tmp_path / "b0.pth")
    done = fit(run, digits, tmp_path / "out", "--weights", tmp_path / "b0.pth")
    refused(done, 2, "not a checkpoint of lite0", "It fits b0")


def test_labels_out_of_range(fitted, run, digits: Path, tmp_path: Path) -> None:
    photo = next((digits / "val" / "3").iterdir())
    shutil.copy(photo, tmp_path / "a.png")
    (tmp_path / "labels.txt").write_text("a.png\t10\n")
    refused(run("eval", fitted[0], "--val", tmp_path), 2, "label 10 is out of range")


def test_an_output_that_is_not_a_bundle_is_left_alone(run, digits: Path, photos: Path) -> None:
    before = sorted(photos.rglob("*"))
    done = run("fit", *SMALL, "--train", digits / "train", "--val", digits / "val", "--out", photos)
    refused(done, 2, "exists and is not a bundle")
    assert sorted(photos.rglob("*")) == before


def test_an_unwritable_output(run, digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(fit(run, digits, tmp_path / "file" / "out"), 2, "file/out: cannot be written", "a part of the path is a file")


def test_a_full_disk(run, digits: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the disk: the same error at the same calls."""

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = run("fit", *SMALL, "--train", digits / "train", "--val", digits / "val", "--out", tmp_path / "out", preexec_fn=limit)
    refused(done, 2, f"{tmp_path}/.out.partial: cannot be written: no space left")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["verify", "bench", "eval"])
def test_verbs_refuse_what_is_no_bundle(run, digits: Path, tmp_path: Path, verb: str) -> None:
    more = ["--val", digits / "val"] if verb == "eval" else []
    refused(run(verb, tmp_path, *more), 2, "not a bundle")


def test_help_and_lists_answer_without_torch(run) -> None:
    code = "import sys; sys.modules.update(torch=None, nncf=None, onnx=None)\nfrom edgeeff.cli import main\n"
    import subprocess
    import sys

    for verb in ("variants", "targets", "doctor"):
        done = subprocess.run([sys.executable, "-c", f"{code}sys.exit(main([{verb!r}, '--json']))"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
    assert run("--help").returncode == 0
