"""A plug-in of pytest: runs the tests of promises alone, without the protection of one of them."""

import json
import os
from pathlib import Path

import pytest

from tests.promises.rows import NAMES, OUTCOMES, PROMISES, WITHOUT, is_one_of

found: dict[str, str] = {}
"""Outcomes by test: passed, failed or skipped."""


def pytest_configure(config: pytest.Config) -> None:
    """Take out the protection before any test is imported."""
    name = os.environ.get(WITHOUT, "")
    if name:
        patch = pytest.MonkeyPatch()
        next(row for row in PROMISES if row.name == name).take_out(patch)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the promises that the environment names."""
    names = os.environ[NAMES].split()
    tests = [one for row in PROMISES if row.name in names for one in row.tests]
    items[:] = [item for item in items if any(is_one_of(item.nodeid, one) for one in tests)]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test ends: it has failed if a part of it has, its set-up for example."""
    if found.get(report.nodeid) != "failed" and (report.when == "call" or not report.passed):
        found[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    """Write the outcomes to the file that the environment names."""
    Path(os.environ[OUTCOMES]).write_text(json.dumps(found))
