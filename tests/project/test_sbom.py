"""The bill of materials: what `make sbom` writes is CycloneDX, and names all that we ask for."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from tests.paths import ROOT

pytestmark = pytest.mark.xdist_group("sbom")  # it is written once

SCHEMAS = files("cyclonedx.schema") / "_res"
"""The schemas of CycloneDX, as its library has them; it takes half a minute to use them itself."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def schema(name: str) -> Any:
    return json.loads((SCHEMAS / f"{name}.SNAPSHOT.schema.json").read_text())


def direct() -> dict[NormalizedName, str]:
    """Return the versions of what pyproject.toml names and this environment has."""
    lines = list(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        lines += extra
    found: dict[NormalizedName, str] = {}
    for name in {Requirement(line).name for line in lines} - {PROJECT["name"]}:
        try:
            found[canonicalize_name(name)] = version(name)
        except PackageNotFoundError:
            continue  # of an extra that is not installed, such as gpu
    return found


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the recipe of `make sbom` writes for this environment."""
    out = tmp_path_factory.mktemp("sbom") / "sbom.json"
    line = re.search(r"^\t(\$\(BIN\)/cyclonedx-py .*)$", (ROOT / "Makefile").read_text(), re.M)
    assert line is not None
    command = line[1].replace("build/sbom.json", str(out))
    command = command.replace("$(BIN)", str(Path(sys.executable).parent))
    words = [*shlex.split(command), "--no-validate"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return json.loads(out.read_text())


def test_the_bill_of_materials_is_valid_cyclonedx(bill: Any) -> None:
    assert bill["bomFormat"] == "CycloneDX"
    validator = jsonschema_rs.validator_for(
        schema(f"bom-{bill['specVersion']}"),
        retriever=lambda uri: schema(uri.rsplit("/", 1)[1].partition(".SNAPSHOT")[0]),
    )
    assert [error.message for error in validator.iter_errors(bill)] == []


def test_a_bill_with_a_component_of_no_kind_is_not_valid(bill: Any) -> None:
    wrong = bill | {"components": [{"type": "made-up", "name": "x"}]}
    with pytest.raises(AssertionError, match="made-up"):
        test_the_bill_of_materials_is_valid_cyclonedx(wrong)


def test_the_bill_of_materials_names_every_direct_dependency_with_its_version(bill: Any) -> None:
    versions = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    wanted = direct()
    assert len(wanted) >= len(PROJECT["dependencies"])
    assert {name: versions.get(name) for name in wanted} == wanted


def test_the_bill_of_materials_says_that_the_product_depends_on_them(bill: Any) -> None:
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == (PROJECT["name"], PROJECT["version"])
    names = {one["bom-ref"]: canonicalize_name(one["name"]) for one in bill["components"]}
    (needs,) = [one["dependsOn"] for one in bill["dependencies"] if one["ref"] == root["bom-ref"]]
    required = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert required <= {names[ref] for ref in needs}
