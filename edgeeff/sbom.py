"""The software bill of materials (SBOM) of a bundle: the Python packages of the environment that made it, with their licences.

Format: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/. Without a date or a serial number, so that equal environments give
equal files.
"""

from __future__ import annotations

import re
import site
from importlib.metadata import Distribution, distributions
from urllib.parse import quote

NAME = "sbom.json"


def bill() -> dict[str, object]:
    """The bill as a JSON object; packages in the order of their names."""
    found = {_normalized(each.name): each for each in reversed(_installed()) if each.name}  # the first of a name is imported
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": [_component(name, found[name]) for name in sorted(found)],
    }


def _installed() -> list[Distribution]:
    """What is installed, and not what a package brings for itself: setuptools adds its own folder of those to sys.path."""
    users = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return list(distributions(path=[*users, *site.getsitepackages()]))


def _component(name: str, package: Distribution) -> dict[str, object]:
    purl = f"pkg:pypi/{name}@{quote(package.version, safe='')}"
    facts = {"type": "library", "bom-ref": purl, "name": name, "version": package.version, "purl": purl}
    return {**facts, "licenses": _licenses(package)}


def _licenses(package: Distribution) -> list[dict[str, object]]:
    """As the package states it: an SPDX expression, or names from its classifiers, or its own words."""
    field = package.metadata.get_all
    if expressions := field("License-Expression", []):
        return [{"expression": expressions[0]}]
    names = [c.rpartition(" :: ")[2] for c in field("Classifier", []) if c.startswith("License :: ")]
    own_words = [text.strip().partition("\n")[0] for text in field("License", [])]  # some packages put the whole text here
    return [{"license": {"name": name}} for name in names or own_words]


def _normalized(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", name).lower()
