"""The bill of materials in a bundle, and the pinned versions that others audit."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

from edgeeff import Bundle, sbom

ROOT = Path(__file__).parents[1]


def test_the_bill_names_every_package_with_its_version_and_licence() -> None:
    bill = json.loads(json.dumps(sbom.bill()))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    components = {c["name"]: c for c in bill["components"]}
    assert list(components) == sorted(components)
    assert {"edgeeff", "numpy", "torch", "openvino", "onnxruntime", "huggingface-hub"} <= set(components)
    for name, component in components.items():
        assert component["version"] == version(name)
        assert component["purl"] == f"pkg:pypi/{name}@{version(name).replace('+', '%2B').replace('!', '%21')}"
        for licence in component["licenses"]:
            assert licence.get("expression") or licence["license"]["name"]
    assert components["edgeeff"]["licenses"] == [{"expression": "Apache-2.0"}]
    assert [name for name, component in components.items() if not component["licenses"]] == []


def test_the_bill_of_one_environment_is_always_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever was imported before: setuptools adds a folder of packages to sys.path that it brings for itself."""
    first = json.dumps(sbom.bill())
    (tmp_path / "vendored-1.0.dist-info").mkdir()
    (tmp_path / "vendored-1.0.dist-info/METADATA").write_text("Name: vendored\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert version("vendored") == "1.0"
    assert json.dumps(sbom.bill()) == first
    assert not {"metadata", "serialNumber"} & set(sbom.bill())


def test_a_bundle_holds_it_vouches_for_it_and_meets_the_schema(bundle: Bundle) -> None:
    assert sbom.NAME in bundle.manifest.files
    text = (bundle.path / sbom.NAME).read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    versions = {c["name"]: c["version"] for c in bill["components"]}
    assert bundle.manifest.versions["torch"] == versions["torch"]


def test_what_misses_the_schema_of_cyclonedx_is_found() -> None:
    bill = sbom.bill()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(bill)) is None
    for change in ({"bomFormat": "SPDX"}, {"packages": []}, {"components": [{"type": "package", "name": "numpy"}]}):
        assert validator.validate_str(json.dumps({**bill, **change})) is not None


@pytest.mark.parametrize("line", [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] != "#"])
def test_a_constraint_is_one_exact_version(line: str) -> None:
    """As pip-audit reads them."""
    pins = list(Requirement(line).specifier)
    assert [pin.operator for pin in pins] == ["=="]
    assert "*" not in pins[0].version
