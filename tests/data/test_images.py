import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeeff.data.images import ImageSet, PixelFile, readable, unseen
from edgeeff.data.preprocess import Preprocess, upright_rgb
from edgeeff.errors import BadInput
from edgeeff.progress import Progress

# The temporary file of a PixelFile is closed with the object.

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
FLAT = 4  # JPEG keeps a flat colour within a few levels: its quantization steps and the YCbCr rounding


class Listener(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def noise(seed: int, width: int = 48, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed).save(path)
    return path


def folders(root: Path, **counts: int) -> Path:
    """DIR/CLASS/N.png with that many photos a class, no two alike."""
    seed = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            photo(root / name / f"{i}.png", seed)
            seed += 1
    return root


def listed(root: Path, text: str, *names: str) -> Path:
    """A folder with photos of those names and a labels.txt."""
    for seed, name in enumerate(names):
        photo(root / name, seed)
    root.mkdir(exist_ok=True)
    (root / "labels.txt").write_text(text, encoding="utf-8")
    return root


def labelled(*labels: int) -> ImageSet:
    """A set of that many photos, none of which need exist."""
    return ImageSet(Path("set"), tuple(Path(f"set/{i}.jpg") for i in range(len(labels))), labels, tuple("abc"))


def colour(image: Image.Image, x: float = 0.5, y: float = 0.5) -> tuple[int, ...]:
    """The upright RGB pixel at that share of the width and height."""
    upright = upright_rgb(image)
    assert upright.mode == "RGB"
    return upright.getpixel((int(x * upright.width), int(y * upright.height)))


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    images = ImageSet.open(folders(tmp_path, tulip=2, rose=3))
    assert images.classes == ("rose", "tulip")
    assert images.labels == (0, 0, 0, 1, 1)
    assert [p.relative_to(tmp_path).as_posix() for p in images.paths[2:4]] == ["rose/2.png", "tulip/0.png"]
    assert [images.labels.count(i) for i in range(2)] == [3, 2]


def test_hidden_files_and_other_files_are_no_photos(tmp_path):
    folders(tmp_path, rose=1, tulip=1, **{".git": 1})
    (tmp_path / "rose" / "notes.txt").write_text("pretty")
    (tmp_path / "rose" / "._0.png").write_bytes(b"")
    shutil.copy(tmp_path / "rose" / "0.png", tmp_path / "rose" / "UPPER.PNG")
    images = ImageSet.open(tmp_path)
    assert [p.name for p in images.paths] == ["0.png", "UPPER.PNG", "0.png"]
    assert images.classes == ("rose", "tulip")


def test_a_list_of_numbers_gives_the_networks_outputs(tmp_path):
    images = ImageSet.open(listed(tmp_path, "b.png\t7\n\nsub/a.png\t401\n", "b.png", "sub/a.png"))
    assert images.labels == (7, 401)
    assert images.classes == ()
    assert [p.name for p in images.paths] == ["b.png", "a.png"]


def test_a_list_of_names_gives_classes(tmp_path):
    images = ImageSet.open(listed(tmp_path, "a.png\ttulip\nb.png\tred rose\nc.png\ttulip\n", "a.png", "b.png", "c.png"))
    assert images.classes == ("red rose", "tulip")
    assert images.labels == (1, 0, 1)


def test_a_plain_folder_is_unlabelled(tmp_path):
    for i in range(3):
        photo(tmp_path / f"{i}.png", i)
    images = ImageSet.open(str(tmp_path))
    assert (len(images), images.labels, images.classes) == (3, None, ())


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        ImageSet.open(tmp_path / "none")


def test_file_in_place_of_a_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no photos that can be read"):
        ImageSet.open(photo(tmp_path / "a.png", 0))


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="0 class folders and no photos"):
        ImageSet.open(tmp_path)


def test_one_class_is_refused(tmp_path):
    with pytest.raises(BadInput, match="at least two folders"):
        ImageSet.open(folders(tmp_path, rose=3))


def test_empty_class_is_refused_by_name(tmp_path):
    with pytest.raises(BadInput, match="tulip: an empty class"):
        ImageSet.open(folders(tmp_path, rose=3, tulip=0))


def test_photos_beside_folders_are_refused(tmp_path):
    photo(folders(tmp_path, rose=1, tulip=1) / "stray.png", 9)
    with pytest.raises(BadInput, match="photos beside folders"):
        ImageSet.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png\t1\na.png 2\n", r"labels\.txt:2: expected 'file<TAB>class', found 'a\.png 2'"),
        ("a.png\t \n", r"labels\.txt:1: expected 'file<TAB>class'"),
        ("a.png\t1\n\nb.png\t2\n", r"labels\.txt:3: b\.png: no such file"),
        ("", r"labels\.txt: no lines"),
        ("\n  \n", r"labels\.txt: no lines"),
    ],
)
def test_faulty_list_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(BadInput, match=message):
        ImageSet.open(listed(tmp_path, text, "a.png"))


@pytest.mark.parametrize("name", ["/etc/hostname", "../a.png", "b/../../a.png"])
def test_a_list_names_no_file_outside_its_folder(tmp_path, name):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/labels.txt").write_text(f"{name}\t1\n")
    with pytest.raises(BadInput, match=r"labels.txt:1: .*expected a path within"):
        ImageSet.open(tmp_path / "set")


@pytest.mark.parametrize(("name", "message"), [(b"caf\xe9", "not UTF-8"), (b"a\nb", "one line"), ("a\u2028b".encode(), "one line")])
def test_class_names_that_a_bundle_cannot_keep_are_refused(tmp_path, name, message):
    for folder in (name, b"other"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + folder))
        path.mkdir()
        Image.new("RGB", (40, 40)).save(path / "a.png")
    with pytest.raises(BadInput, match=message):
        ImageSet.open(tmp_path)


def test_labels_follow_the_networks_class_names():
    images = labelled(0, 1, 2, 1).labelled_for(4, ("c", "x", "b", "a"))
    assert images.labels == (3, 2, 0, 2)
    assert images.classes == ("c", "x", "b", "a")


def test_unknown_class_is_refused_by_name():
    with pytest.raises(BadInput, match="class 'c' is not among the network's 2"):
        labelled(0, 1, 2).labelled_for(2, ("a", "b"))


def test_another_number_of_classes_is_refused():
    with pytest.raises(BadInput, match="3 classes, but the network has 5"):
        labelled(0, 1, 2).labelled_for(5)


def test_label_out_of_range_is_refused():
    images = ImageSet(Path("set"), (Path("a"), Path("b")), (3, 1000))
    assert images.labelled_for(1001) is images
    with pytest.raises(BadInput, match="label 1000 is out of range for a network with 1000 classes"):
        images.labelled_for(1000)


def test_unlabelled_photos_fit_any_network():
    images = ImageSet(Path("set"), (Path("a"),), None)
    assert images.labelled_for(3, ("a", "b", "c")) is images


def test_draw_is_the_same_for_the_same_seed():
    images = labelled(*[0, 1, 2] * 20)
    assert images.draw(9) == images.draw(9)
    assert images.draw(9, seed=1) == images.draw(9, seed=1)
    assert images.draw(9, seed=1) != images.draw(9, seed=2)


@pytest.mark.parametrize(
    ("count", "expected"), [(3, [1, 1, 1]), (9, [2, 3, 4]), (30, [2, 14, 14]), (62, [2, 30, 30]), (99, [2, 30, 30])]
)
def test_draw_spreads_over_the_classes(count, expected):
    drawn = labelled(*[0] * 30, *[1] * 2, *[2] * 30).draw(count)
    assert sorted(drawn.labels.count(c) for c in range(3)) == expected
    assert len(set(drawn.paths)) == sum(expected)


def test_draw_of_unlabelled_photos_has_the_count():
    images = ImageSet(Path("set"), tuple(Path(str(i)) for i in range(50)), None)
    drawn = images.draw(20)
    assert (len(set(drawn.paths)), drawn.labels) == (20, None)
    assert set(drawn.paths) <= set(images.paths)


def test_drawn_photos_keep_their_labels():
    images = labelled(*[0, 1, 2] * 20)
    truth = dict(zip(images.paths, images.labels, strict=True))
    drawn = images.draw(11)
    assert [truth[p] for p in drawn.paths] == list(drawn.labels)


def test_digest_of_a_set_follows_contents_order_and_labels(tmp_path):
    root = folders(tmp_path / "a", rose=2, tulip=2)
    images, copy = ImageSet.open(root), ImageSet.open(shutil.copytree(root, tmp_path / "b"))
    assert images.sha256 == copy.sha256
    assert images.sha256 != images.take([1, 0, 2, 3]).sha256
    assert images.sha256 != ImageSet(images.root, images.paths, (1, 1, 0, 0), images.classes).sha256
    photo(tmp_path / "b" / "rose" / "0.png", 99)
    assert images.sha256 != ImageSet.open(tmp_path / "b").sha256


def test_overlap_is_found_by_content(tmp_path):
    train, val = folders(tmp_path / "train", rose=2, tulip=2), tmp_path / "val"
    for i in range(3):
        photo(val / f"{i}.png", 50 + i)
    assert unseen(ImageSet.open(train), ImageSet.open(val)) == ImageSet.open(train)
    shutil.copy(train / "tulip" / "1.png", val / "renamed.png")
    with pytest.raises(BadInput, match=r"1 of .* photos also occur in .*tulip/1\.png is .*renamed\.png"):
        unseen(ImageSet.open(train), ImageSet.open(val))
    assert len(unseen(ImageSet.open(train), ImageSet.open(val), allowed=0.5)) == 3


@pytest.mark.parametrize(("suffix", "options"), [(".png", {}), (".bmp", {}), (".webp", {"lossless": True})])
def test_lossless_photos_decode_to_their_pixels(tmp_path, suffix, options):
    image = noise(0)
    image.save(tmp_path / f"a{suffix}", **options)
    with Image.open(tmp_path / f"a{suffix}") as opened:
        assert np.array_equal(upright_rgb(opened), image)


@pytest.mark.parametrize(("suffix", "options"), [(".jpg", {}), (".jpeg", {"progressive": True}), (".webp", {})])
def test_lossy_photos_decode_to_their_colour(tmp_path, suffix, options):
    Image.new("RGB", (32, 32), (200, 120, 40)).save(tmp_path / f"a{suffix}", **options)
    with Image.open(tmp_path / f"a{suffix}") as opened:
        assert colour(opened) == pytest.approx((200, 120, 40), abs=FLAT)


def test_photo_is_turned_as_its_exif_says(tmp_path):
    image = Image.new("RGB", (64, 32), BLUE)
    image.paste(RED, (0, 0, 32, 32))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to view
    image.save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert upright_rgb(opened).size == (32, 64)
        assert colour(opened, y=0.2) == pytest.approx(RED, abs=FLAT)  # the left has become the top
        assert colour(opened, y=0.8) == pytest.approx(BLUE, abs=FLAT)


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.mode == "CMYK"
        assert colour(opened) == pytest.approx(RED, abs=FLAT)


def test_grey_fills_all_channels(tmp_path):
    Image.new("L", (32, 32), 77).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert colour(opened) == (77, 77, 77)


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (0x00FF, 0), (0x0100, 1), (0x8000, 128), (0xFFFF, 255)])
def test_16_bit_grey_is_scaled_to_8(tmp_path, level, expected):
    Image.fromarray(np.full((32, 32), level, np.uint16)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode.startswith("I")
        assert colour(opened) == (expected,) * 3


@pytest.mark.parametrize(
    ("mode", "fill", "expected"),
    [
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),  # 255 · (1 − 128/255)
        ("LA", (0, 0), WHITE),
        ("LA", (10, 255), (10, 10, 10)),
    ],
)
def test_transparent_parts_are_white(tmp_path, mode, fill, expected):
    Image.new(mode, (32, 32), fill).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert colour(opened) == expected


def test_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (64, 32), 0)
    image.putpalette([*BLUE, *RED])
    image.paste(1, (32, 0, 64, 32))
    image.save(tmp_path / "a.png", transparency=0)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == "P"
        assert colour(opened, x=0.2) == WHITE
        assert colour(opened, x=0.8) == RED


def test_palette_without_transparency_keeps_its_colours(tmp_path):
    image = Image.new("P", (32, 32), 0)
    image.putpalette([*BLUE, *RED])
    image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        assert colour(opened) == BLUE


def test_the_centre_is_cropped_and_a_small_photo_not_enlarged():
    image = noise(0, 100, 60)  # its short side lies between the crop and `resize`
    assert np.array_equal(Preprocess(40, 80, MEAN, STD)(image), np.asarray(image)[10:50, 30:70])


def test_photo_smaller_than_the_crop_is_enlarged_to_reach_it():
    image = noise(0, 20, 30)
    enlarged = np.asarray(image.resize((40, 60), Image.Resampling.BICUBIC))
    assert np.array_equal(Preprocess(40, 80, MEAN, STD)(image), enlarged[10:50])


@pytest.mark.parametrize(("name", "filter"), [("bicubic", Image.Resampling.BICUBIC), ("bilinear", Image.Resampling.BILINEAR)])
def test_large_photo_is_shrunk_to_its_short_side_and_cropped(name, filter):
    image = noise(0, 400, 200)
    shrunk = np.asarray(image.resize((160, 80), filter))
    assert np.array_equal(Preprocess(64, 80, MEAN, STD, name)(image), shrunk[8:72, 48:112])


@pytest.mark.parametrize("size", [(224, 224), (227, 227), (1, 1), (33, 900), (640, 481)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "1"])
def test_any_photo_becomes_the_networks_size(size, mode):
    pixels = Preprocess(64, 73, MEAN, STD)(Image.new(mode, size))
    assert (pixels.shape, pixels.dtype) == ((64, 64, 3), np.uint8)


def test_bgr_is_rgb_with_its_channels_flipped():
    image = noise(0)
    rgb, bgr = (Preprocess(32, 36, MEAN, STD, colour=order)(image) for order in ("RGB", "BGR"))
    assert np.array_equal(bgr, rgb[..., ::-1])
    assert not np.array_equal(bgr, rgb)


def test_the_standard_crop_is_seven_eighths():
    assert Preprocess.standard(224, MEAN, STD) == Preprocess(224, 256, MEAN, STD, "bicubic", "RGB")


def test_preprocess_survives_json():
    preprocess = Preprocess(96, 110, MEAN, STD, "bilinear", "BGR")
    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 31},
        {"resolution": 300},
        {"resize": 5000},
        {"resolution": "224"},
        {"mean": [1, 2]},
        {"mean": None},
        {"std": [1, 0, 1]},
        {"interpolation": "nearest"},
        {"colour": "GBR"},
        {"crop": 0.875},
    ],
    ids=str,
)
def test_faulty_preprocess_is_refused(change):
    with pytest.raises(BadInput, match="preprocess"):
        Preprocess.from_json({**Preprocess(224, 256, MEAN, STD).to_json(), **change})


@pytest.mark.parametrize("key", ["resolution", "resize", "mean", "std"])
def test_incomplete_preprocess_is_refused_with_the_key(key):
    data = Preprocess(224, 256, MEAN, STD).to_json()
    del data[key]
    with pytest.raises(BadInput, match=key):
        Preprocess.from_json(data)


SMALL = Preprocess(32, 36, MEAN, STD)


def partly_corrupt(root: Path) -> ImageSet:
    """Twelve files, of which 3.jpg is text and 5.jpg ends halfway."""
    for i in range(12):
        noise(i).save(root / f"{i}.jpg")
    (root / "3.jpg").write_text("no photo")
    whole = (root / "5.jpg").read_bytes()
    (root / "5.jpg").write_bytes(whole[: len(whole) // 2])
    return ImageSet(root, tuple(root / f"{i}.jpg" for i in range(12)), tuple(i % 3 for i in range(12)), ("a", "b", "c"))


@pytest.mark.parametrize("examine", [lambda *a, **k: PixelFile(*a, SMALL, **k).images, readable], ids=["PixelFile", "readable"])
def test_corrupt_files_are_named_and_left_out(tmp_path, examine):
    listener = Listener()
    images = partly_corrupt(tmp_path)
    kept = examine(images, max_corrupt=0.2, progress=listener)
    assert kept == images.take([0, 1, 2, 4, 6, 7, 8, 9, 10, 11])
    assert len(listener.lines) == 1
    assert "2 of 12 files cannot be read" in listener.lines[0]
    assert "3.jpg" in listener.lines[0]
    assert "5.jpg" in listener.lines[0]


@pytest.mark.parametrize("examine", [lambda *a, **k: PixelFile(*a, SMALL, **k), readable], ids=["PixelFile", "readable"])
@pytest.mark.parametrize("options", [{}, {"max_corrupt": 0.16}])
def test_too_many_corrupt_files_are_refused(tmp_path, examine, options):
    with pytest.raises(BadInput, match=r"2 of 12 files cannot be read: .*3\.jpg: .*5\.jpg: .*Over the 1"):
        examine(partly_corrupt(tmp_path), **options)


def test_sound_photos_are_all_readable_without_a_word(tmp_path):
    listener = Listener()
    images = ImageSet.open(folders(tmp_path, rose=3, tulip=3))
    assert readable(images, progress=listener) == images
    assert listener.lines == []


def test_batches_are_the_photos_decoded_one_by_one(tmp_path):
    images = ImageSet.open(folders(tmp_path, rose=6, tulip=5))
    pixels = PixelFile(images, SMALL)
    batches = list(pixels.batches(4))
    assert len(pixels) == 11
    assert [len(b) for b in batches] == [4, 4, 3]
    assert all(b.dtype == np.uint8 for b in batches)
    assert np.array_equal(np.concatenate(batches), np.stack([SMALL(Image.open(p)) for p in images.paths]))


def test_batches_can_be_read_again_and_side_by_side(tmp_path):
    pixels = PixelFile(ImageSet.open(folders(tmp_path, rose=4, tulip=4)), SMALL)
    for first, second in zip(pixels.batches(3), pixels.batches(3), strict=True):
        assert np.array_equal(first, second)


def test_batches_of_bgr_are_in_bgr(tmp_path):
    images = ImageSet.open(folders(tmp_path, rose=2, tulip=2))
    (rgb,) = PixelFile(images, SMALL).batches(4)
    (bgr,) = PixelFile(images, Preprocess(32, 36, MEAN, STD, colour="BGR")).batches(4)
    assert np.array_equal(bgr, rgb[..., ::-1])


def test_reading_holds_a_batch_and_not_the_set(tmp_path):
    path = photo(tmp_path / "a.png", 0)
    pixels = PixelFile(ImageSet(tmp_path, (path,) * 200, None), Preprocess(128, 128, MEAN, STD))
    batch = 4 * 128 * 128 * 3
    tracemalloc.start()
    try:
        total = sum(b.nbytes for b in pixels.batches(4))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 50 * batch
    assert peak < 3 * batch  # the one that is read, the one before it, and change
