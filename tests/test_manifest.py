"""Whatever a file of edgeeff's holds in any field: it is read, or refused in one line that names the field."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import small_manifest

from edgeeff import BadInput, Bundle, Precision, Target
from edgeeff.data.calibration import Calibration
from edgeeff.manifest import NAME, SCHEMA, Manifest, digest
from edgeeff.measurement.benchmark import REQUEST, BenchmarkRequest, CompiledModel
from edgeeff.measurement.system_state import Device, SystemState
from edgeeff.records import dump_json, from_json, to_json
from edgeeff.selection import latency_model
from edgeeff.selection.candidates import FormKey

PLAIN = json.loads(json.dumps({**small_manifest().to_json(), "schema": SCHEMA}))
WRONG: list[Any] = [None, True, -1, 0, 3, 2.5, 1e300, "", "text", "../secret", [], [1], ["a"], {}, {"a": 1}, [[]], [{}]]
TARGET = {"description": "a board", "backend": "openvino", "precisions": ["float32", "int8"], "threads": 1, "cpu": "x"}
TARGET |= {"latency_ms": 5.0, "scheme": "asymmetric", "activation": "hardswish", "compute_capability": "8.7", "memory_gb": 8}
TARGET |= {"dla_cores": 1, "power_modes": ["MAXN"], "tensorrt": {"JetPack 6": "10.3.0"}, "sources": ["https://example.org"]}
RECIPE = {"description": "few", "images": 10, "draw": "even", "ranges": ["largest", "percentile"]}
several = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def paths(data: Any) -> list[tuple[Any, ...]]:
    """Where something lies in JSON: the keys and indices that lead there."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path for key, value in items for path in [(key,), *((key, *rest) for rest in paths(value))]]


def changed(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a path; without it, for `KeyError`."""
    data = deepcopy(data)
    parent = data
    for key in path[:-1]:
        parent = parent[key]
    if value is KeyError:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return data


def mutations(data: Any) -> st.SearchStrategy[tuple[tuple[Any, ...], Any]]:
    return st.tuples(st.sampled_from(paths(data)), st.sampled_from([*WRONG, KeyError]))


def refusal_of(read: Callable[[], object]) -> str | None:
    """The message of a refusal, which is one line; None where it was read. Any other exception is a failure."""
    try:
        read()
    except BadInput as refusal:
        message = str(refusal)
    else:
        return None
    assert "\n" not in message
    return message


def write(folder: Path, data: dict[str, Any]) -> None:
    (folder / NAME).write_text(json.dumps({**data, "digest": digest(data)}))


def names(message: str, path: tuple[Any, ...]) -> bool:
    """Whether a message names the field at a path, or one around it."""
    return any(isinstance(key, str) and key in message for key in path)


@pytest.mark.medium
@several
@given(mutation=mutations(PLAIN))
def test_a_manifest_with_anything_in_any_field_is_read_or_refused_by_name(tmp_path: Path, mutation) -> None:
    path, value = mutation
    write(tmp_path, changed(PLAIN, path, value))
    message = refusal_of(lambda: Manifest.read(tmp_path))
    assert message is None or names(message, path) or path[0] == "schema", message


@pytest.mark.medium
@several
@given(mutation=mutations(PLAIN))
def test_a_bundle_with_such_a_manifest_is_refused_in_one_line(tmp_path: Path, mutation) -> None:
    write(tmp_path, changed(PLAIN, *mutation))
    with pytest.raises(BadInput) as refusal:  # its files are missing at least
        Bundle.open(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.medium
def test_a_field_of_another_type_is_always_refused_by_name(tmp_path: Path) -> None:
    for path in paths(PLAIN):
        value = PLAIN
        for key in path:
            value = value[key]
        write(tmp_path, changed(PLAIN, path, 7.5 if isinstance(value, dict) else {"no": ["such"]}))
        with pytest.raises(BadInput) as refusal:
            Manifest.read(tmp_path)
        assert names(str(refusal.value), path), (path, str(refusal.value))


@pytest.mark.parametrize(
    ("field", "value"),
    [("threads", -1), ("classes", 0), ("backend", "nowhere"), ("precision", "bf16"), ("resolution", 64), ("precision", "int9")],
)
def test_a_value_that_cannot_be_is_refused_by_name(tmp_path: Path, field: str, value: object) -> None:
    write(tmp_path, {**PLAIN, field: value})
    with pytest.raises(BadInput, match=rf"manifest\.json: .*{field}"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_has_not_are_refused(tmp_path: Path, number: str) -> None:
    (tmp_path / NAME).write_text(json.dumps({**PLAIN, "digest": ""}).replace('"max_drop": 0.5', f'"max_drop": {number}'))
    with pytest.raises(BadInput, match="cannot be read"):
        Manifest.read(tmp_path)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"schema": 2, "steps": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(BadInput, match="cannot be read"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "", ".", "..", "a\\b", "a\0b"])
@pytest.mark.parametrize("field", ["model", "files", "forms"])
def test_a_file_is_a_plain_name(tmp_path: Path, field: str, name: str) -> None:
    values = {"model": name, "files": {name: "0" * 64}, "forms": [{**PLAIN["forms"][0], "file": name}]}
    if (field, name) == ("forms", ""):
        return  # a form without a file of its own
    write(tmp_path, {**PLAIN, field: values[field]})
    with pytest.raises(BadInput, match=f"{field}.*expected a plain file name"):
        Manifest.read(tmp_path)


def test_test_photos_judged_the_float_network_and_what_ships(tmp_path: Path) -> None:
    held_out = {"photos_sha256": "0" * 64, "steps": [PLAIN["steps"][0]], "differs": False}
    write(tmp_path, {**PLAIN, "held_out": held_out})
    with pytest.raises(BadInput, match="held_out: expected the float network's step and that of what ships"):
        Manifest.read(tmp_path)


def test_a_manifest_is_the_same_after_json() -> None:
    manifest = small_manifest()
    again = Manifest.from_json(json.loads(json.dumps(manifest.to_json())), "test")
    assert again == manifest
    assert again.to_json() == manifest.to_json()


OLD = """{"schema": 1, "variant": "b0", "resolution": 32, "classes": 10, "preprocess": {"resolution": 32, "resize": 36,
"mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 3.0], "interpolation": "bicubic", "colour": "RGB"}, "backend": "openvino",
"target": "host-cpu", "threads": 0, "model": "model.xml", "precision": "int8", "budget": {"latency_ms": 5.0, "percentile": 50,
"gflops": null, "mparams": null, "size_mb": null, "fps": null, "memory_mb": null, "energy_mj": null}, "max_drop": 0.5,
"min_agreement": 97.0, "refusals": [], "steps": [], "activation": "silu", "remedy": "accuracy control", "ladder": [],
"validation_sha256": "", "calibration_sha256": "", "validation_photos": 9, "calibration_photos": 9, "command": "edgeeff fit",
"verdict": "Ship int8.", "device": {"machine": "x86_64", "cpu": "CPU", "family": "1/2", "cores": 2, "flags": [], "os": "Linux"},
"versions": {"edgeeff": "0.1.0"}, "date": "2026-01-01", "latency_ms": {"p50": 6.0, "p90": 6.4, "p99": 11.3, "ci": [5.9, 6.1],
"rounds": [6.0], "ci90": [6.2, 8.1], "ci99": [7.2, 14.7], "first": 8.6, "histogram": []}, "size_mb": 11.1, "fps": null,
"memory_mb": null, "energy_mj": null, "conditions": [], "disturbed": [], "siblings": [{"precision": "int8 (all layers)",
"activation": "silu", "runtime": "openvino", "remedy": "fast bias correction", "top1": 84.0, "drop": 0.6, "drop_ci": [0.1, 1.0],
"agreement": 98.0, "passed": false, "latency_ms": {"p50": 5.0, "p90": 6.4, "p99": 11.3, "ci": [4.9, 5.1], "rounds": [5.0],
"ci90": [6.2, 8.1], "ci99": [7.2, 14.7], "first": 8.6, "histogram": []}, "size_mb": 10.9, "fps": null, "memory_mb": null,
"energy_mj": null}], "reverted_layers": ["conv_head"], "files": {"model.xml": ""}}"""


def test_metrics_lie_flat_beside_the_rest() -> None:
    assert "metrics" not in PLAIN
    assert PLAIN["latency_ms"]["p50"] == PLAIN["siblings"][0]["latency_ms"]["p50"] == 1.0
    assert all("metrics" not in row for row in (*PLAIN["siblings"], *PLAIN["forms"]))


def test_schema_1_is_read(tmp_path: Path) -> None:
    write(tmp_path, json.loads(OLD))
    manifest = Manifest.read(tmp_path)
    (whole,) = manifest.siblings
    assert (whole.precision, whole.reference) == (Precision.INT8, True)
    assert whole.metrics
    assert whole.metrics.latency.p50 == 5.0
    assert manifest.metrics
    assert manifest.metrics.costs["size_mb"] == 11.1
    assert manifest.budget.latency_ms == 5.0


@pytest.mark.medium
@several
@given(mutation=mutations(json.loads(OLD)))
def test_a_changed_manifest_of_schema_1_is_read_or_refused_too(tmp_path: Path, mutation) -> None:
    write(tmp_path, changed(json.loads(OLD), *mutation))
    refusal_of(lambda: Manifest.read(tmp_path))


@pytest.mark.medium
@pytest.mark.parametrize(("read", "content"), [(Target.load, TARGET), (Calibration.load, RECIPE)], ids=["target", "recipe"])
def test_a_yaml_file_with_anything_in_any_key_is_read_or_refused_by_name(tmp_path: Path, read, content: dict[str, Any]) -> None:
    file = tmp_path / "file.yaml"

    @settings(max_examples=300, deadline=None)
    @given(mutation=mutations(content))
    def check(mutation) -> None:
        path, value = mutation
        file.write_text(yaml.safe_dump(changed(content, path, value)))
        message = refusal_of(lambda: read(file))
        assert message is None or ("file.yaml" in message and names(message, path)), message

    file.write_text(yaml.safe_dump(content))
    read(file)
    check()


@pytest.mark.parametrize(
    ("read", "content", "typed", "meant"),
    [(Target.load, TARGET, "thread", "threads"), (Calibration.load, RECIPE, "image", "images")],
    ids=["target", "recipe"],
)
def test_an_unknown_key_gets_a_suggestion(tmp_path: Path, read, content: dict[str, Any], typed: str, meant: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump({**content, typed: 1}))
    with pytest.raises(BadInput, match=rf"file\.yaml: unknown key '{typed}'\. Did you mean '{meant}'\?"):
        read(file)


@pytest.mark.medium
def test_a_latency_model_with_anything_in_any_field_is_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "board.latency.json"
    monkeypatch.setattr(latency_model, "path", lambda target: file)
    model = latency_model.LatencyModel((1.0,) * 6, 0.1, 0.2, {"b0 at 224": 0.1})
    latency_model.write(file, {FormKey(Precision.INT8, "silu"): model}, {"cpu": "x"})
    content = json.loads(file.read_text())
    assert latency_model.read("board")

    @settings(max_examples=300, deadline=None)
    @given(mutation=mutations(content))
    def check(mutation) -> None:
        file.write_text(json.dumps(changed(content, *mutation)))
        message = refusal_of(lambda: latency_model.read("board"))
        assert message is None or "board.latency.json: not a latency model of this version" in message

    check()


@pytest.mark.medium
def test_a_request_to_measure_with_anything_in_any_field_is_read_or_refused(tmp_path: Path) -> None:
    request = BenchmarkRequest({"it": CompiledModel("onnxruntime", Path("m.onnx"), Precision.INT8, 32)})
    file = tmp_path / REQUEST
    content = json.loads(dump_json(request))

    @settings(max_examples=300, deadline=None)
    @given(mutation=mutations(content))
    def check(mutation) -> None:
        file.write_text(json.dumps(changed(content, *mutation)))
        message = refusal_of(lambda: BenchmarkRequest.read(tmp_path))
        assert message is None or "not a request to measure" in message

    check()
    file.write_text(json.dumps(content))
    assert BenchmarkRequest.read(tmp_path).models["it"].file == tmp_path / "m.onnx"


def test_a_manifest_without_a_temperature_has_1_and_one_out_of_bounds_is_refused() -> None:
    older = {name: value for name, value in PLAIN.items() if name not in ("confidence", "schema")}
    assert (Manifest.from_json(PLAIN, "x").temperature, Manifest.from_json(older, "x").temperature) == (2.0, 1.0)
    for wrong in (0, -1, 1e300):
        with pytest.raises(BadInput, match=r"x: confidence: temperature .*: expected 0\.1 to 10"):
            Manifest.from_json(changed(PLAIN, ("confidence", "temperature"), wrong), "x")


def test_a_threshold_for_unknown_photos_is_a_distance() -> None:
    for wrong in (0, -1):
        with pytest.raises(BadInput, match="x: unknown: threshold .*: expected a distance above 0"):
            Manifest.from_json(changed(PLAIN, ("unknown", "threshold"), wrong), "x")


def test_a_manifest_without_statistics_of_its_calibration_photos_is_read_and_unordered_ones_are_refused() -> None:
    older = {name: value for name, value in PLAIN.items() if name not in ("calibration_statistics", "schema")}
    assert Manifest.from_json(older, "x").calibration_statistics is None
    for wrong in ([0.5, 0.2, 0.6, 0.7, 0.8], [0, 0, 0, 0, 1e300]):
        with pytest.raises(BadInput, match="x: calibration_statistics: contrast: expected quantiles in ascending order"):
            Manifest.from_json(changed(PLAIN, ("calibration_statistics", "contrast"), wrong), "x")


def test_defaults_that_were_read_are_written_again() -> None:
    """Of a dataclass that it makes itself, msgspec leaves defaults out."""
    read = from_json({"machine": "m", "cpu": "c", "family": "f", "cores": 2, "flags": [], "os": "Linux"}, Device, "device")
    assert to_json(read)["hosts"] == {}
    state = from_json({"cores": 2, "load": 0.5}, SystemState, "state")
    assert set(to_json(state)) == {"cores", "load", "clock", "temperature", "power_mode", "throttle_events", "board"}
