import math
from pathlib import Path

import pytest

from edgeeff import BadInput, Budget, Precision, Target
from edgeeff.target import all_targets

GOOD = "description: a board\nbackend: openvino\nprecisions: [float32, int8]\n"


@pytest.mark.parametrize("field", ["latency_ms", "gflops", "mparams", "size_mb"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_budget_refuses_what_is_not_a_number_above_zero(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=field):
        Budget(**{field: value})


def test_budget_says_what_it_allows() -> None:
    assert str(Budget(latency_ms=4, percentile=90, size_mb=10)) == "p90 ≤ 4 ms, ≤ 10 MB"
    assert str(Budget()) == "no budget"


def test_every_target_file_loads() -> None:
    assert {"host-cpu", "host-cpu-1core"} <= {t.name for t in all_targets()}


def test_an_unknown_target_gets_a_suggestion() -> None:
    with pytest.raises(BadInput, match="Did you mean 'host-cpu'"):
        Target.load("host-cpus")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "latency: 3\n", "unknown key 'latency'. Did you mean 'latency_ms'"),
        (GOOD.replace("openvino", "openvin"), "unknown backend"),
        (GOOD.replace("int8", "int4"), "precisions"),
        (GOOD + "threads: two\n", "threads"),
        (GOOD + "latency_ms: 0\n", "latency_ms"),
        (GOOD + "latency_ms: .nan\n", "latency_ms"),
        ("backend: openvino\n", "missing key 'description'"),
        ("[1, 2]", "expected keys"),
        ("a: b: c", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_a_wrong_target_file_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as refusal:
        Target.load(path)
    assert message in str(refusal.value)
    assert "board.yaml" in str(refusal.value)


def test_a_target_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(GOOD + "threads: 1\n")
    assert Target.load(path) == Target("board", "a board", "openvino", (Precision.FLOAT32, Precision.INT8), threads=1)
