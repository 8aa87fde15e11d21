import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeeff import BadInput, Bundle
from edgeeff.bundle import publish, replaceable
from edgeeff.data.images import ImageSet
from edgeeff.files import StageCache, space_in, temporary_folder, user_path, write_whole


def test_a_finished_step_is_not_made_again(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "result").touch()

    for _ in range(2):
        with StageCache.open(tmp_path / "out", {"seed": 0}) as cache:
            assert (cache.once("step", make) / "result").exists()
    assert len(calls) == 1


def test_an_unfinished_step_is_made_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    with StageCache.open(tmp_path / "out", {}) as workspace:
        with pytest.raises(KeyboardInterrupt):
            workspace.once("step", fail)
        folder = workspace.once("step", lambda folder: (folder / "whole").touch())
    assert [p.name for p in folder.iterdir()] == ["whole"]


def test_other_inputs_start_anew(tmp_path: Path) -> None:
    with StageCache.open(tmp_path / "out", {"seed": 0}) as old:
        old.within("b0").once("step", lambda folder: None)
    with StageCache.open(tmp_path / "out", {"seed": 1}) as new:
        assert not (new.within("b0").root / "step").exists()


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="file/out: cannot be written: a part of the path is a file, expected a folder"):
        StageCache.open(tmp_path / "file" / "out", {})


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "no such file or folder"),
        (errno.EISDIR, "it is a folder, expected a file"),
        (errno.ENOTDIR, "a part of the path is a file"),
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "permission denied"),
        (errno.EROFS, "its file system is read-only"),
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EFBIG, "no space left"),
        (errno.EIO, "the disk, or the connection to it, fails (input/output error)"),
    ],
)
@pytest.mark.parametrize("file", [None, "photos/a/b.jpg", "photos", "/tmp/elsewhere"])
def test_a_users_path_that_fails_is_named_with_a_remedy(number: int, words: str, file: str | None) -> None:
    with pytest.raises(BadInput) as caught, user_path("photos", "read"):
        raise OSError(number, os.strerror(number), *([file] if file else []))
    named = file if file == "photos/a/b.jpg" else "photos"
    assert str(caught.value).startswith(f"{named}: cannot be read: {words}")
    assert "path" in str(caught.value)


def test_other_exceptions_pass() -> None:
    with pytest.raises(KeyError), user_path("photos", "read"):
        raise KeyError
    with pytest.raises(BadInput, match="^its own words$"), user_path("photos", "read"):
        raise BadInput("its own words")
    with pytest.raises(PermissionError), space_in(Path("folder")):
        raise PermissionError(errno.EACCES, "Permission denied", "x")


def test_a_full_disk_names_the_folder_that_was_written_to() -> None:
    with (
        pytest.raises(BadInput, match="^folder: cannot be written: no space left"),
        space_in(Path("folder")),
        Path("/dev/full").open("w") as file,
    ):
        file.write("x")
    with pytest.raises(BadInput, match="^/dev/x: cannot be written: no space left"), space_in(Path("folder")):
        raise OSError(errno.ENOSPC, "No space left on device", "/dev/x")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EIO, "the disk, or the connection to it, fails"), (errno.EROFS, "its file system")]
)
def test_a_disk_that_fails_is_no_internal_error(number: int, words: str) -> None:
    with pytest.raises(BadInput, match=f"^folder: cannot be written: {words}"), space_in(Path("folder")):
        raise OSError(number, os.strerror(number))


def _labels(path: Path) -> None:
    from edgeeff.weights import read_labels

    read_labels(path, 10)


def _weights(path: Path) -> None:
    from edgeeff.network.checkpoint import load
    from edgeeff.network.variants import VARIANTS

    load(str(path), VARIANTS["lite0"])


def _lint(path: Path) -> None:
    from edgeeff.export.tensorrt_lint import lint

    lint(path)


def _plot(path: Path) -> None:
    from edgeeff.quantization.layer_error import plot

    plot([], path)


def _output(path: Path) -> None:
    from edgeeff.camera.options import OutputOptions
    from edgeeff.camera.result import FrameLabel
    from edgeeff.camera.sinks import open_sinks
    from edgeeff.progress import SILENT

    label = FrameLabel("0", 0, 0.0, None, (("a", 0.5),), 1.0, 1.0, 1.0)
    with contextlib.ExitStack() as stack:
        open_sinks(stack, OutputOptions(output=str(path)), json=False, progress=SILENT)[1](label)


def _collect(path: Path) -> None:
    from edgeeff.camera.sinks import FrameCollector

    FrameCollector(path, 0.5, megabytes=1)


def _photos_of_a_camera(path: Path) -> None:
    from edgeeff.camera.sources import PhotoFolder

    list(PhotoFolder(str(path)).frames(print))


def _digest(path: Path) -> None:
    assert ImageSet(path.parent, (path,), None).digests


def _target(path: Path) -> None:
    from edgeeff import Target

    Target.load(path)


@pytest.mark.parametrize(
    ("use", "path", "words"),
    [
        (_labels, "nowhere.txt", "nowhere.txt: cannot be read: no such file"),
        (_labels, "folder", "folder: cannot be read: it is a folder, expected a file"),
        (_weights, "nowhere.pth", "nowhere.pth: no such checkpoint"),
        (_weights, "folder", "folder: cannot be read: it is a folder, expected a file"),
        (_weights, "file/w.pth", "file/w.pth: no such checkpoint"),
        (_lint, "nowhere.onnx", "nowhere.onnx: cannot be read: no such file"),
        (_lint, "folder", "folder: cannot be read: it is a folder, expected a file"),
        (_plot, "nowhere/a.svg", "nowhere/a.svg: cannot be written: no such file or folder"),
        (_plot, "file/a.svg", "file/a.svg: cannot be written: a part of the path is a file"),
        (_output, "nowhere/a.jsonl", "nowhere/a.jsonl: cannot be written: no such file or folder"),
        (_output, "folder", "folder: cannot be written: it is a folder"),
        (_output, "/dev/full", "/dev/full: cannot be written: no space left"),
        (_collect, "file", "file: cannot be written: "),
        (_collect, "file/photos", "file/photos: cannot be written: a part of the path is a file"),
        (_photos_of_a_camera, "nowhere", "nowhere: cannot be read: no such file or folder"),
        (_digest, "gone.jpg", "gone.jpg: cannot be read: no such file or folder"),
        (ImageSet.open, "file", "file: no photos that can be read"),
        (Bundle.open, "file", "file: not a bundle: no manifest.json"),
        (Bundle.open, "nowhere", "nowhere: not a bundle: no manifest.json"),
        (replaceable, "file", "file: exists and is not a bundle"),
        (lambda path: publish(path.with_name("folder"), path), "file/out", "file/out: cannot be written: "),
        (_target, "folder.yaml", "folder.yaml: cannot be read: it is a folder, expected a file"),
        (_target, "nowhere.yaml", "nowhere.yaml: no such target file"),
    ],
)
def test_every_use_of_a_users_path_refuses_one_that_fails(
    tmp_path: Path, use: Callable[[Path], object], path: str, words: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(BadInput) as caught:
        use(tmp_path / path)
    assert str(tmp_path / words if words[0] != "/" else words) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "folder.yaml"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_path_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0)
    with pytest.raises(BadInput, match="file: cannot be read: permission denied"):
        _labels(tmp_path / "file")
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="a.svg: cannot be written: permission denied"):
        _plot(tmp_path / "a.svg")


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):  # noqa: PT011 (its kind does not matter)
        write_whole(tmp_path / "folder", b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_pipeline_longer_than_a_path_may_be_is_no_path() -> None:
    from edgeeff.camera.sources import PhotoFolder, Source

    assert not isinstance(Source.of(f"videotestsrc ! {'identity ! ' * 50}appsink"), PhotoFolder)


def test_what_a_killed_process_left_in_the_temporary_folder_is_removed_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from edgeeff.files import temporary_folder\n"
        "with temporary_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'weights.bin').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = tmp_path / "temporary"
    place.mkdir()
    (place / "edgeeff-link").symlink_to(elsewhere)
    (place / "edgeeff-models/v2-b0").mkdir(parents=True)
    (place / "edgeeff-removal-cut-off/files").mkdir(parents=True)
    with temporary_folder(place) as used:
        subprocess.run([sys.executable, "-c", script, place], check=False)
        assert len(list(place.glob("edgeeff-*"))) == 4
        with temporary_folder(place) as folder:
            assert list(folder.iterdir()) == []
            assert {p.name for p in place.iterdir()} == {"edgeeff-link", "edgeeff-models", used.parent.name, folder.parent.name}
    assert {p.name for p in place.iterdir()} == {"edgeeff-link", "edgeeff-models"}
    assert list(elsewhere.iterdir()) == []
