"""Photos sorted into classes by hand: a page that shows one after the other, with a key for each class, and the list it writes.

The list is written whole after each press, to another name that then takes its place: a process that is killed loses no press,
and one that is started again goes on where it was.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import string
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bundle import Bundle
from .data.images import ImageSet, PixelFile, readable
from .data.labels import LIST_BYTES, class_names, rows
from .data.photos import SUFFIXES, Photo
from .data.preprocess import open_photo, upright_rgb
from .data.trees import Folder
from .errors import BadInput, suggestion
from .files import locked, read_file, user_path, write_whole
from .job import LabelJob
from .page import NO_PAGE, Answer, PageServer
from .progress import SILENT, Progress

KEYS = "1234567890" + string.ascii_lowercase  # of the first classes, in their order; more have a button alone
GUESSES = 3  # classes of the bundle that are shown for a photo, with their probabilities
BATCH = 64
MAX_SIDE = 1280  # pixels of the picture that is sent
PAGE = Path(__file__).with_name("labelling.html")

Guess = tuple[tuple[str, float], ...]  # classes with their probabilities, the most likely one first


@dataclass(frozen=True)
class Task:
    """What there is to sort: classes, and photos by the name that the list has for them, with what a bundle says of each.

    `photos` are in the order in which they are shown: the most uncertain first where there are guesses, otherwise by name.
    """

    classes: tuple[str, ...]
    photos: Mapping[str, Photo]
    guesses: Mapping[str, Guess]


@dataclass(frozen=True)
class LabelSummary:
    """How far the list at `labels` is: of so many `photos`, those of each class, and those that are `left`."""

    labels: str
    photos: int
    classes: Mapping[str, int]
    left: int


@contextlib.contextmanager
def labelling(job: LabelJob, *, progress: Progress = SILENT) -> Iterator[LabelPage]:
    """The page on which the job's photos are sorted, served within the block.

    Raises BadInput where there is nothing to sort, where the list cannot be written or has labels of other classes, and where
    another process writes it.
    """
    folder = Path(job.folder)
    listing = Path(os.path.realpath(folder / "labels.txt" if job.out is None else job.out))
    names = _photos(folder, _prefix(folder, listing), progress)
    bundle = Bundle.open(job.bundle) if job.bundle else None
    classes = _classes(job, bundle)
    with _only_writer(listing):
        earlier = _earlier(listing, classes)
        task = _task(folder, names, classes, bundle, progress)
        with LabelPage(job.web, task, Sorted(listing, task, earlier)) as page:
            yield page


class Sorted:
    """The photos that have a class, those that have none yet, and the list on the disk, which is as it is here after each change.

    `list` has the label of each photo, in the order of the presses. What another program wrote there of files that are no photos
    of this task stays in it.
    """

    def __init__(self, listing: Path, task: Task, earlier: Mapping[str, str]) -> None:
        self.listing, self.list = listing, dict(earlier)
        self.waiting = deque(name for name in task.photos if name not in earlier)
        self._presses = [(name, True) for name in earlier if name in task.photos]  # and whether it was no skip

    @property
    def next(self) -> str | None:
        """The photo that is to be sorted; None where all are."""
        return self.waiting[0] if self.waiting else None

    @property
    def last(self) -> str | None:
        """The photo that `undo` shows again; None where there is none."""
        return self._presses[-1][0] if self._presses else None

    def label(self, label: str) -> None:
        """Give the next photo its label; raises BadInput, and changes nothing, where the list cannot be written."""
        name = self.waiting[0]
        self._write({**self.list, name: label})
        self.waiting.popleft()
        self._presses.append((name, True))

    def skip(self) -> None:
        """Put the next photo behind all others."""
        self._presses.append((self.waiting[0], False))
        self.waiting.rotate(-1)

    def undo(self) -> None:
        """Take the last press back, if there is one; raises BadInput as `label` does."""
        if not self._presses:
            return
        name, labelled = self._presses[-1]
        if labelled:
            self._write({other: label for other, label in self.list.items() if other != name})
            self.waiting.appendleft(name)
        else:
            self.waiting.rotate(1)
        self._presses.pop()

    def _write(self, labels: dict[str, str]) -> None:
        with user_path(self.listing, "written"):
            write_whole(self.listing, b"".join(_line(*row) for row in labels.items()))
        self.list = labels


class LabelPage(PageServer):
    """The page: one photo, the guess, and a button and a key for each class."""

    def __init__(self, where: str, task: Task, done: Sorted) -> None:
        self.task, self.done = task, done
        self.page = PAGE.read_bytes()
        self._names = list(task.photos)
        self._numbers = {name: i for i, name in enumerate(self._names)}
        super().__init__(where)

    @property
    def summary(self) -> LabelSummary:
        counts = Counter(label for name, label in self.done.list.items() if name in self.task.photos)
        classes = {name: counts[name] for name in self.task.classes}
        return LabelSummary(str(self.done.listing), len(self.task.photos), classes, len(self.done.waiting))

    def get(self, path: str, query: Mapping[str, str]) -> Answer:
        if path == "/":
            return 200, "text/html; charset=utf-8", self.page
        if path == "/state.json":
            return self._state()
        if path == "/photo.jpg" and (name := self._named(query)):
            try:
                return 200, "image/jpeg", _jpeg(self.task.photos[name])
            except BadInput:  # it was readable before
                return NO_PAGE
        return NO_PAGE

    def post(self, path: str, query: Mapping[str, str]) -> Answer:
        """`/label`, `/skip` and `/undo`; what is not asked of the photo that is next is a conflict (409), and changes nothing."""
        done, label = self.done, query.get("class", "")
        try:
            if path == "/undo":
                done.undo()
            elif path not in ("/label", "/skip"):
                return NO_PAGE
            elif done.next is None or self._named(query) != done.next:
                return 409, "text/plain", b"another page has sorted that photo"
            elif path == "/skip":
                done.skip()
            elif label.isdecimal() and int(label) < len(self.task.classes):
                done.label(self.task.classes[int(label)])
            else:
                return 400, "text/plain", b"no such class"
        except BadInput as error:  # the list cannot be written: nothing has changed
            return 507, "text/plain; charset=utf-8", str(error).encode()
        return self._state()

    def _named(self, query: Mapping[str, str]) -> str | None:
        """The photo whose number is in a request."""
        number = query.get("photo", "")
        return self._names[int(number)] if number.isdecimal() and int(number) < len(self._names) else None

    def _state(self) -> Answer:
        """What the page shows, as JSON: names are text."""
        done, task = self.done, self.task
        following = done.waiting[1] if len(done.waiting) > 1 else None
        state = {
            "classes": [{"name": name, "key": KEYS[i : i + 1]} for i, name in enumerate(task.classes)],
            "photo": done.next
            and {"number": self._numbers[done.next], "name": done.next, "guess": task.guesses.get(done.next, ())},
            "following": following and self._numbers[following],
            "last": done.last and {"name": done.last, "class": done.list.get(done.last)},
            "left": len(done.waiting),
            "photos": len(task.photos),
        }
        return 200, "application/json", json.dumps(state).encode()


def _prefix(folder: Path, listing: Path) -> str:
    """What is before a photo's name in the list, which names files relative to itself; raises BadInput for one elsewhere."""
    real = Path(os.path.realpath(folder))
    if not real.is_relative_to(listing.parent):
        raise BadInput(
            f"--out {listing}: a list is beside its photos, or above them. Expected a file in {real} or a folder of that."
        )
    if listing.suffix != ".txt":
        raise BadInput(f"--out {listing}: expected a name that ends with .txt, as the list is one of file, tab, class.")
    inner = real.relative_to(listing.parent).as_posix()
    return "" if inner == "." else f"{inner}/"


def _classes(job: LabelJob, bundle: Bundle | None) -> tuple[str, ...]:
    """The classes to sort into, by their names; raises BadInput where nothing says them, or where the list cannot hold them."""
    known = bundle.names if bundle else ()
    if not job.classes and not known:
        raise BadInput("nothing says which classes there are: give --classes NAME …, or --bundle BUNDLE for those of a bundle.")
    source = "--classes" if job.classes else job.bundle
    classes = class_names(job.classes or known, source)
    for name, count in Counter(classes).items():
        if count > 1:
            raise BadInput(f"{source}: class {name!r} is there twice. Expected each once.")
        if not _can_be_listed("photo", name):
            raise BadInput(
                f"{source}: class {name!r}: a list cannot hold a name with a space at an end or a - in front. Rename it."
            )
        if bundle and name.isdecimal() and (*known, "")[min(int(name), len(known))] != name:
            raise BadInput(
                f"{source}: class {name!r}: a number in a list is that of an output, from 0, which this is not. Rename it."
            )
    return classes


def _can_be_listed(file: str, label: str) -> bool:
    """Whether a list that has this line is read as just that."""
    try:
        found = list(rows(Path("labels.txt"), _line(file, label)))
    except (BadInput, UnicodeEncodeError):
        return False
    return [(row.file, row.label) for row in found] == [(file, label)]


def _line(file: str, label: str) -> bytes:
    return f"{file}\t{label}\n".encode()


@contextlib.contextmanager
def _only_writer(listing: Path) -> Iterator[None]:
    """Raises BadInput where another process writes the list, or where its folder cannot be written to."""
    lock = listing.with_name(f".{listing.name}.lock")
    with user_path(listing, "written"):
        try:
            held = locked(lock, wait=False)
        except BlockingIOError as error:
            raise BadInput(f"{listing}: another process sorts into it. Use its page, or end it.") from error
    with held:
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _earlier(listing: Path, classes: Sequence[str]) -> dict[str, str]:
    """What the list has already, in its order; raises BadInput for another class than those that are sorted into."""
    found = dict[str, str]()
    if not os.path.lexists(listing):
        return found
    for where, file, label in rows(listing, read_file(listing, LIST_BYTES)):
        if label not in classes:
            hint = suggestion(label, classes) or f" Expected one of {', '.join(classes[:8])}{' …' if len(classes) > 8 else ''}."
            raise BadInput(f"{where}: class {label!r} is none of those that are sorted into.{hint} Give --classes that have it.")
        if file in found:
            raise BadInput(f"{where}: {file}: is in the list twice. Expected each file once.")
        found[file] = label
    return found


def _photos(folder: Path, prefix: str, progress: Progress) -> dict[Photo, str]:
    """The photos directly in a folder with their names in the list, by name; raises BadInput where there are none."""
    with user_path(folder, "read"):
        found = {photo: f"{prefix}{photo.name}" for photo in Folder(folder).photos() if isinstance(photo, Path)}
    names: dict[Photo, str] = {photo: name for photo, name in found.items() if _can_be_listed(name, "class")}
    if odd := sorted(set(found.values()) - set(names.values())):
        progress.say(
            f"{folder}: {len(odd)} photos have names that a list cannot hold: {'; '.join(odd[:10])}. Left out; rename them."
        )
    if not names:
        raise BadInput(f"{folder}: no photos directly in it ({', '.join(SUFFIXES)}). Give the folder that they lie in.")
    return names


def _task(folder: Path, names: dict[Photo, str], classes: tuple[str, ...], bundle: Bundle | None, progress: Progress) -> Task:
    """The photos that can be read, and what the bundle says of them; raises BadInput where none can."""
    images = ImageSet(folder, tuple(names), None)
    if bundle is None:
        images, guesses = readable(images, max_corrupt=1, progress=progress), {}
    else:
        pixels = PixelFile(images, bundle.preprocess, max_corrupt=1, progress=progress)
        images, found = pixels.images, _guesses(bundle, pixels, progress)
        guesses = {names[photo]: guess for photo, guess in zip(images.paths, found, strict=True)}
    if not images:
        raise BadInput(f"{folder}: none of its {len(names)} photos can be read. Copy them again.")
    photos = {names[photo]: photo for photo in images.paths}
    order = sorted(photos, key=lambda name: guesses[name][0][1]) if guesses else list(photos)
    return Task(classes, {name: photos[name] for name in order}, guesses)


def _guesses(bundle: Bundle, pixels: PixelFile, progress: Progress) -> Iterator[Guess]:
    """The most likely classes of each photo, with calibrated probabilities; raises BadInput where they are no numbers."""
    names, run = bundle.names, bundle.load(throughput=True)
    batches = progress.track(pixels.batches(BATCH), "guess", math.ceil(len(pixels) / BATCH))
    for logits in map(run, batches):
        if not np.isfinite(logits).all():
            raise BadInput(f"{bundle.path}: answers with numbers that are not finite. Give another bundle, or --classes alone.")
        for row in bundle.probabilities(logits):
            yield tuple((names[i], round(float(row[i]), 4)) for i in np.argsort(-row, kind="stable")[:GUESSES])


def _jpeg(photo: Photo) -> bytes:
    """A photo as a picture that a browser shows quickly; raises BadInput where it cannot be read."""
    with open_photo(photo) as image:
        picture, file = upright_rgb(image), io.BytesIO()
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
        picture.save(file, "JPEG", quality=85)
    return file.getvalue()
