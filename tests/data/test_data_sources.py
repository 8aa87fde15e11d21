"""One set of photos in every form that people have it in: the same photos, labels and classes, in the same order."""

import csv
import io
import json
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from edgeeff.data.images import ImageSet, PixelFile
from edgeeff.data.photos import read_photo
from edgeeff.data.preprocess import Preprocess
from edgeeff.data.sources import Source
from edgeeff.errors import BadInput

SMALL = Preprocess(32, 32, (0, 0, 0), (1, 1, 1), "bilinear")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """{iris,rose,tulip}/*.png, three of each, beside what no photo is."""
    root = tmp_path / "flowers"
    for i, name in enumerate(("tulip", "iris", "rose")):
        (root / name).mkdir(parents=True)
        for j in range(3):
            Image.new("RGB", (40, 36), (60 * i, 80 * j, 9)).save(root / name / f"{j}.png")
        (root / name / "notes.md").touch()
        (root / name / "._0.png").touch()
    (root / "README.md").touch()
    return root


def listed(folder: Path) -> list[tuple[str, str]]:
    """(file, class) of each photo, in order."""
    photos = ImageSet.open(folder)
    assert photos.labels is not None
    return [(str(p.relative_to(folder)), photos.classes[i]) for p, i in zip(photos.paths, photos.labels, strict=True)]


def write_csv(path: Path, *rows: tuple[str, ...]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def zipped(folder: Path, out: Path, top: str = "") -> Path:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, f"{top}{path.relative_to(folder)}")
        archive.writestr("__MACOSX/rose/._0.png", b"")
    return out


def tarred(folder: Path, out: Path, mode: str, top: str = ".") -> Path:
    with tarfile.open(out, mode) as archive:
        archive.add(folder, top)
    return out


def coco(folder: Path, out: Path) -> Path:
    rows = listed(folder)
    names = {name: 7 * i for i, name in enumerate(("rose", "unused", "iris", "tulip"))}
    facts = {
        "info": {"year": 2020},
        "images": [{"id": i, "file_name": file, "width": 40, "height": 36} for i, (file, _) in enumerate(rows)],
        "annotations": [{"id": i, "image_id": i, "category_id": names[c], "bbox": [0, 0, 9, 9]} for i, (_, c) in enumerate(rows)],
        "categories": [{"id": i, "name": name, "supercategory": "plant"} for name, i in names.items()],
    }
    out.write_text(json.dumps(facts))
    return out


def in_folder(name: str, write: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    """A list of a name that is found in the folder."""

    def make(folder: Path, work: Path) -> Path:
        write(folder / name)
        return folder

    return make


def json_lines(folder: Path, out: Path) -> Path:
    out.write_text("".join(json.dumps({"file_name": f, "label": c, "width": 40}) + "\n" for f, c in listed(folder)))
    return out


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "CSV without a header": lambda folder, work: write_csv(folder / "some.csv", *listed(folder)),
    "CSV with a header": lambda folder, work: write_csv(
        folder / "some.csv", ("Class", "id", "File"), *((c, "", f) for f, c in listed(folder))
    ),
    "labels.csv": lambda folder, work: write_csv(folder / "labels.csv", *listed(folder)).parent,
    "metadata.csv": lambda folder, work: write_csv(folder / "metadata.csv", ("file_name", "label"), *listed(folder)).parent,
    "metadata.jsonl": lambda folder, work: json_lines(folder, folder / "metadata.jsonl").parent,
    "COCO": lambda folder, work: coco(folder, folder / "annotations.json"),
    "COCO as Roboflow writes it": lambda folder, work: coco(folder, folder / "_annotations.coco.json").parent,
    "zip": lambda folder, work: zipped(folder, work / "photos.zip"),
    "zip of one folder": lambda folder, work: zipped(folder, work / "photos.zip", "flowers/"),
    "a folder of a zip": lambda folder, work: zipped(folder.parent, work / "photos.zip") / "flowers",
    "zip with a list": lambda folder, work: zipped(write_csv(folder / "labels.csv", *listed(folder)).parent, work / "photos.zip"),
    "a list in a zip": lambda folder, work: (
        zipped(write_csv(folder / "my.csv", *listed(folder)).parent, work / "photos.zip") / "my.csv"
    ),
    "tar": lambda folder, work: tarred(folder, work / "photos.tar", "w"),
    "tar.gz": lambda folder, work: tarred(folder, work / "photos.tar.gz", "w:gz"),
    "tgz of one folder": lambda folder, work: tarred(folder, work / "photos.tgz", "w:gz", "deep/flowers"),
}


def same(photos: ImageSet, folder: Path) -> None:
    expected = ImageSet.open(folder)
    assert (photos.classes, photos.labels) == (("iris", "rose", "tulip"), expected.labels)
    assert photos.digests == expected.digests
    assert [read_photo(p) for p in photos.paths] == [read_photo(p) for p in expected.paths]
    decoded = PixelFile(photos, SMALL)
    assert (decoded.rows(0, 9) == PixelFile(expected, SMALL).rows(0, 9)).all()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_photos_of_the_folder(folder: Path, tmp_path: Path, form: str) -> None:
    (tmp_path / "work").mkdir()
    copy = tmp_path / "copy/flowers"
    shutil.copytree(folder, copy)
    same(ImageSet.open(FORMS[form](copy, tmp_path / "work")), folder)


def parquet(folder: Path, out: Path, rows: slice = slice(None), **columns: object) -> Path:
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    classes = ("iris", "rose", "tulip")
    images = [{"bytes": (folder / file).read_bytes(), "path": file} for file, _ in listed(folder)[rows]]
    table = pyarrow.table({"image": images, "label": [classes.index(c) for _, c in listed(folder)[rows]], **columns})
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    told = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    files.write_table(told, out, row_group_size=2)
    return out


def test_a_table_gives_the_photos_of_the_folder(folder: Path, tmp_path: Path) -> None:
    same(ImageSet.open(parquet(folder, tmp_path / "photos.parquet")), folder)


def test_of_a_table_in_several_files_one_stands_for_all(folder: Path, tmp_path: Path) -> None:
    for i in range(3):
        parquet(folder, tmp_path / f"train-0000{i}-of-00003.parquet", slice(3 * i, 3 * i + 3))
    one = tmp_path / "train-00001-of-00003.parquet"
    same(ImageSet.open(one), folder)
    word, sent = Source.of(one).sent("val")
    assert (word, len(sent)) == ("val-train-00001-of-00003.parquet", 3)
    (tmp_path / "train-00002-of-00003.parquet").unlink()
    with pytest.raises(BadInput, match="2 of 3 files"):
        ImageSet.open(one)


def test_a_table_without_pyarrow_says_what_to_install(folder: Path, tmp_path: Path, monkeypatch, capfd) -> None:
    from edgeeff.cli import main

    (tmp_path / "photos.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    photos = ["--train", str(tmp_path / "photos.parquet"), "--val", str(folder), "--out", str(tmp_path / "out")]
    assert main(["fit", "--target", "host-cpu", *photos]) == 5
    assert "pip install 'edgeeff[parquet]'" in capfd.readouterr().err


@pytest.mark.parametrize("form", ["CSV without a header", "a folder of a zip", "tar"])
def test_what_is_sent_to_another_machine_has_the_same_photos(folder: Path, tmp_path: Path, form: str) -> None:
    for name in ("work", "there"):
        (tmp_path / name).mkdir()
    word, sent = Source.of(FORMS[form](folder, tmp_path / "work")).sent("val")
    for name, path in sent.items():
        (tmp_path / "there" / name).symlink_to(path)
    same(ImageSet.open(tmp_path / "there" / word), folder)


def test_photos_of_archives_do_not_keep_the_archive_open_for_ever(folder: Path, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for path in (zipped(folder, tmp_path / "a.zip"), tarred(folder, tmp_path / "a.tgz", "w:gz")):
        photos = ImageSet.open(path)
        assert descriptors() > before
        assert read_photo(photos.paths[0])
        del photos
        assert descriptors() == before


def test_folders_of_splits_are_refused_with_the_one_to_give(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "val")
    with pytest.raises(BadInput, match=r"flowers: has folders, not photos.*give it alone"):
        ImageSet.open(folder.parent)
    with pytest.raises(BadInput, match=r"all\.zip/flowers: has folders, not photos"):
        ImageSet.open(zipped(folder.parent, folder.parent.parent / "all.zip"))


def test_an_image_in_two_categories_is_refused(folder: Path) -> None:
    path = coco(folder, folder / "a.json")
    facts = json.loads(path.read_text())
    facts["annotations"].append({"image_id": 0, "category_id": 0})
    path.write_text(json.dumps(facts))
    with pytest.raises(BadInput, match=r"iris/0.png: is 'iris' and 'rose'\. Expected one category"):
        ImageSet.open(path)


def test_a_header_with_two_columns_of_classes_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match="label and class say the same"):
        ImageSet.open(write_csv(folder / "a.csv", ("file", "label", "class"), ("iris/0.png", "1", "iris")))


def test_two_lists_in_a_folder_are_refused_and_one_can_be_named(folder: Path) -> None:
    for name in ("labels.csv", "metadata.csv"):
        write_csv(folder / name, ("file", "class"), *listed(folder)) if name == "labels.csv" else (folder / name).touch()
    with pytest.raises(BadInput, match="Name the one that counts"):
        ImageSet.open(folder)
    assert len(ImageSet.open(folder / "labels.csv")) == 9


def test_a_damaged_member_is_one_unreadable_photo(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(4):
            archive.writestr(f"{i}.png", (folder / "rose/0.png").read_bytes())
    contents = bytearray(path.read_bytes())
    contents[60] ^= 1
    path.write_bytes(contents)
    assert len(PixelFile(ImageSet.open(path), SMALL, max_corrupt=0.3)) == 3
    assert io.BytesIO(read_photo(ImageSet.open(path).paths[3])).getvalue() == (folder / "rose/0.png").read_bytes()
