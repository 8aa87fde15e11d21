"""Mistakes that a new user makes: each ends in one line, which says what to type instead."""

import shlex
import shutil
from pathlib import Path

import pytest
import torch

from edgeeff import Budget, Bundle, Job
from edgeeff.cli import main
from edgeeff.cli.options import parser
from edgeeff.data.preprocess import Preprocess
from edgeeff.network.checkpoint import save
from edgeeff.network.model import create
from edgeeff.option import in_unit

FIT = "fit --target host-cpu --out {tmp}/out --val {photos}/val"
TRAIN = f"{FIT} --train {{photos}}/train"
TINY = f"{FIT} --variant phi-6 --resolution 32 --weights {{weights}} --calib {{photos}}/train"

# What is typed, the exit code, and what the line has to say.
MISTAKES = [
    ("fti", 2, "Did you mean 'fit'?"),
    ("help", 2, "edgeeff --help"),
    ("--json targets", 2, "unknown option '--json' before the verb"),
    (f"{TRAIN} --resoluton 224", 2, "Did you mean '--resolution'?"),
    ("fit --traget host-cpu --out out --val val", 2, "Did you mean '--target'?"),  # and not that --target is missing
    (f"{TRAIN} --res 224", 2, "Did you mean '--resolution'?"),
    (f"{TRAIN} -latency 5", 2, "Did you mean '--latency'?"),
    (f"{TRAIN} --size 10", 2, "Did you mean '--size-mb'?"),
    (f"{TRAIN} --latency 4x", 2, "--latency: '4x': expected a number, like 10 or 0.5 (unit: ms; also us, µs, s, min, h)"),
    (f"{TRAIN} --latency 4 ms", 2, "'ms' is one word too many for fit"),
    (f"{TRAIN} --latency", 2, "--latency: expected one argument. See edgeeff fit --help."),
    (f"{TRAIN} --size-mb 10GHz", 2, "(unit: MB; also B, kB, GB, KiB, MiB, GiB)"),
    (f"{TRAIN} --max-drop 1%", 2, "(unit: points; also pp)"),
    (f"{TRAIN} --resolution 224x224", 2, "expected a whole number of at most 18 digits (unit: px)"),
    (f"{TRAIN} --latency 5 --percentile 95", 2, "expected one of 50, 90, 99"),
    (f"{TRAIN} --activation hard-swish", 2, "Did you mean 'hardswish'?"),
    (f"{TRAIN} --variant efficientnet-b8", 2, "Did you mean 'b"),
    (f"{TRAIN} --latency 0.01", 3, "needs at least 0.02 ms", "--latency is in milliseconds: for 0.01 seconds, give 0.01s."),
    (f"{TRAIN} --size-mb 0.1", 3, "no variant fits ≤ 0.1 MB", "lite0 at 224 px needs at least 3.0 MB"),
    (f"{TINY} --memory-mb 0.01", 3, "phi-6 at 32 px needs at least", "MB of memory"),
    ("pick --target host-cpu --latency 0.01", 3, "for 0.01 seconds, give 0.01s"),
    ("fit --target jetson --out out --val val --train train", 2, "'jetson-orin-nano-8gb'", "'jetson-thor-t5000'?"),
    ("pick --target host_cpu", 2, "Did you mean 'host-cpu'?"),
    ("pick --target jetson-tx2", 2, "Use a Jetson Orin Nano or NX."),
    ("fit --target host-cpu --train DIR", 2, "arguments are required: --out. See edgeeff fit --help."),
    (FIT, 2, "give --weights (a trained checkpoint), --train or --photos (labelled photos), or both"),
    (f"{FIT} --weights {{weights}} --calib {{photos}}/train", 2, "name it with --variant"),
    (f"{FIT} --weights {{weights}} --variant b0", 2, "give --calib DIR (unlabelled will do) or --train DIR"),
    (TINY, 2, "val: 10 classes, but the network has 1000. To teach a network these: edgeeff fit --train PHOTOS."),
    (f"{TINY} --variant b0", 2, "Give --variant phi-6"),
    (f"{FIT} --variant b1 --weights {{foreign}} --calib {{photos}}/train", 2, "It fits b0. Give --variant b0."),
    (f"{FIT} --variant b0 --weights timm/b0.ra_in1k --calib {{photos}}/train", 2, "give hf-hub:timm/b0.ra_in1k"),
    (f"{TRAIN} --out {{photos}}", 2, "exists and is not a bundle. Give another --out."),
    (f"{TRAIN} --val {{photos}}/vall", 2, "vall: no such"),
    (f"{TRAIN} --val {{photos}}/train", 2, "Give disjoint folders."),
    ("eval {photos} --val {photos}/val", 2, "not a bundle"),
    ("targets jetson", 2, "'jetson' is one word too many for targets. See edgeeff targets --help."),
    ("camera my-model", 2, "arguments are required: --source"),
    ("completion powershell", 2, "expected one of bash, zsh, tcsh"),
]


@pytest.fixture(scope="session")
def places(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the commands name: digits, weights of phi-6 for 1000 classes, and weights of B0 as another library writes them."""
    tmp = tmp_path_factory.mktemp("mistakes")
    save(create("phi-6", resolution=32), tmp / "weights.safetensors", Preprocess(32, 36, (0, 0, 0), (1, 1, 1)), ())
    torch.save(create("b0").state_dict(), tmp / "foreign.pth")
    return {"photos": few_digits, "tmp": tmp, "weights": tmp / "weights.safetensors", "foreign": tmp / "foreign.pth"}


@pytest.mark.parametrize(
    ("typed", "code", "words"), [(typed, code, words) for typed, code, *words in MISTAKES], ids=range(1, 1 + len(MISTAKES))
)
def test_a_mistake_ends_in_a_line_that_says_what_to_type(
    places: dict[str, Path], capfd, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, words: list[str]
) -> None:
    def work(*arguments: object, **options: object) -> None:
        raise AssertionError("trained, or measured")

    for name in ("weights.train", "selection.profiler.Profiler.time"):
        monkeypatch.setattr(f"edgeeff.{name}", work)
    monkeypatch.chdir(places["tmp"])
    ended = main(typed.format(**places).split())
    printed, said = capfd.readouterr()
    assert (ended, printed) == (code, "")
    *before, line = said.splitlines()
    assert [each.partition(":")[0] for each in before] in ([], ["photos"])
    assert line.startswith("edgeeff: ")
    assert len(line) < 500
    for each in words:
        assert each in line


@pytest.mark.parametrize(
    ("option", "typed", "value"),
    [
        ("--latency", ("4", "4ms", "4MS", "4 ms", "0.004s", ".004 s", "4e-3s", "4000us", "4000µs"), 4.0),
        ("--size-mb", ("10", "10MB", "10mb", "10000kB", "0.01GB", "1e7B"), 10.0),
        ("--memory-mb", ("1024MiB", "1GiB"), 1073.741824),
        ("--gflops", ("0.7", "0.7G", "700M", "0.7GFLOPs", "700MMACs"), 0.7),
        ("--mparams", ("5", "5M", "5000k"), 5.0),
        ("--fps", ("30", "30fps", "30 frames"), 30.0),
        ("--energy-mj", ("5", "5mJ", "0.005J"), 5.0),
        ("--resolution", ("224", "224px"), [224]),
        ("--max-drop", ("0.5", "0.5points", "0.5 pp"), 0.5),
        ("--min-agreement", ("97", "97%"), 97.0),
        ("--hold-out", ("0.25", "25%"), 0.25),
        ("--time-budget", ("30", "30min", "0.5h", "1800s"), 30.0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_may_have_the_unit_of_their_option_or_another_of_its_kind(
    option: str, typed: tuple[str, ...], value: object
) -> None:
    name = option.removeprefix("--").replace("-", "_").replace("latency", "latency_ms")
    for text in typed:
        options = parser().parse_args(["fit", "--target", "t", "--val", "v", "--out", "o", option, text])
        assert getattr(options, name) == value, text


def test_a_budget_with_a_unit_is_repeated_in_full() -> None:
    budget = Budget(latency_ms=float(in_unit("0.0033333333333s", "ms")), memory_mb=float(in_unit("1GiB", "MB")))
    job = Job("host-cpu", "out", "val", budget=budget, train="train")
    repeated = parser().parse_args(shlex.split(job.command)[1:])
    assert (repeated.latency_ms, repeated.memory_mb) == (3.3333333333, 1073.741824)


def test_a_finished_bundle_in_the_place_of_the_new_one_is_named_before_the_work(
    bundle: Bundle, places: dict[str, Path], capfd, tmp_path: Path
) -> None:
    shutil.copytree(bundle.path, tmp_path / "out")
    command = f"{TRAIN} --size-mb 0.1 --variant lite0 --out".format(**places).split()
    assert main([*command, str(tmp_path / "out")]) == 3
    told, photos, refused = capfd.readouterr().err.splitlines()
    assert told.startswith(f"{tmp_path / 'out'} holds a bundle (lite0 at 32 px, ")
    assert told.endswith("it stays until this fit is done, which then replaces it.")
    assert photos.startswith("photos: 10 classes; training 60 (6 of each class); ")
    assert "lite0 at 224 px needs at least" in refused
    assert main([*command, str(tmp_path / "out"), "--quiet"]) == 3
    assert len(capfd.readouterr().err.splitlines()) == 1
