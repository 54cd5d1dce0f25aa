"""Fixtures and rules shared by the tests: which brokers run, and what happens where one cannot."""

import gc
import os
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import hypothesis  # noqa: F401 - late, from within its plug-in, Python 3.11 may fail to parse it
import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

from tests.brokers import KafkaBroker, why_no_kafka
from tracker.demo.broker import embedded_broker

sys.modules["triton"] = None  # type: ignore[assignment] # for GPUs; at the exit it tells of leaks

WHY_NO_KAFKA = pytest.StashKey[str]()
LONGEST_NAME = 200
"""Characters of a parameter that are part of its test's name."""
LONG = ("site", "slow to load", "tests/tracker/worker/test_warm_up.py")
"""Groups and files that take seconds: begun last, one keeps a process busy after the others."""
IMPATIENCE = "transaction.abort.timed.out.transaction.cleanup.interval.ms=200\n"
"""Apache Kafka looks each 10 s for transactions that have lasted too long, else."""
FULL_COLLECTIONS = pytest.StashKey[int]()
"""The number of full collections at the last freeze."""


def in_ci() -> bool:
    """Tell whether a missing tool is a failure and not a reason to skip."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker that keeps tests of one broker in one process, also without xdist."""
    gc.set_threshold(20_000)  # as in a worker: imports and tests make few cycles
    if config.getoption("dist", "no") == "no":  # the one that deals tests out collects none itself
        gc.disable()  # until all is collected: what is imported stays
    if hasattr(config, "workerinput"):  # one of several processes
        from tests.compiled import take_turns

        take_turns()
    config.addinivalue_line("markers", "xdist_group: tests that run in the same process")


def pytest_collection_finish() -> None:
    """Let garbage be collected from the first test on."""
    gc.enable()


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a long value by its beginning: names travel between processes, three times a test."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_NAME:
        return f"{val[:LONGEST_NAME]!a}..."
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadGroupScheduling | None:
    """Deal quick tests out by file: one by one, each costs a look at all that ran before it."""
    if config.getoption("dist") == "loadgroup" and "not broker" in config.getoption("-m"):
        return FileScheduling(config, log)
    return None


class FileScheduling(LoadGroupScheduling):
    """Deals out tests by file, and those of a group together; long ones first, short ones last."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        """Give a process its next file."""
        for scope in reversed(LONG):
            if scope in self.workqueue:
                self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        """Return the group of a test, or its file."""
        group: str = super()._split_scope(nodeid)
        return group.partition("::")[0]


@pytest.hookimpl(tryfirst=True)  # before xdist looks for groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of one broker in one process, and skip them all where it cannot run."""
    for item in items:
        brokers = {"kafka", "tansu"} & set(getattr(item, "fixturenames", ()))
        if brokers or item.get_closest_marker("kafka") or "end_to_end" in item.path.parts:
            item.add_marker(pytest.mark.broker)
    if "long" not in str(config.getoption("-m", default="")):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: make test ARGS='-m long'"))
    kafka = [item for item in items if item.get_closest_marker("kafka")]
    for item in kafka:
        item.add_marker(pytest.mark.xdist_group("kafka"))
    reason = why_no_kafka() if kafka else None
    if reason is not None and not in_ci():
        line = f"{len(kafka)} tests need Apache Kafka and are skipped: {reason}"
        config.stash[WHY_NO_KAFKA] = line
        for item in kafka:
            item.add_marker(pytest.mark.skip(reason=f"no Apache Kafka: {reason}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Spare the collector what stays: a full collection would look at it for half a second."""
    collections = gc.get_stats()[2]["collections"]
    if collections != item.config.stash.get(FULL_COLLECTIONS, None):
        item.config.stash[FULL_COLLECTIONS] = collections
        gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """Look at all of it in the end, so that pytest hears of errors of what nobody needs."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say in one line why the tests with Apache Kafka were skipped."""
    line = config.stash.get(WHY_NO_KAFKA, None)
    if line is not None:
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """Apache Kafka for the whole run; a test takes a name of its own for topics and group."""
    reason = why_no_kafka()
    if reason is not None:
        pytest.fail(f"Apache Kafka cannot run here: {reason}", pytrace=False)
    with KafkaBroker(tmp_path_factory.mktemp("kafka"), extra=IMPATIENCE) as broker:
        yield broker


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the embedded broker, one for the whole run."""
    with embedded_broker(tmp_path_factory.mktemp("tansu")) as address:
        yield address


@pytest.fixture
def prefix() -> str:
    """A name for topics and group that no other test has."""
    return f"t{uuid.uuid4().hex[:10]}"
