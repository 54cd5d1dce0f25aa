"""The Faust application around the plane."""

import asyncio
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.types import TP
from faust.types.auth import AuthProtocol, SASLMechanism

from tests.plane_world import WorkerState
from tracker.store.database import DamagedDatabaseError
from tracker.worker.app import BLOCKS_A_CHUNK, TrackerApp, build_app
from tracker.worker.plane import Plane
from tracker.worker.rebalance_log import RebalanceLog


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerState]:
    made = WorkerState(tmp_path / "worker", data_dir=tmp_path / "data")
    yield made
    made.close()


def built(worker: WorkerState) -> tuple[TrackerApp, Plane]:
    plane = Plane(worker.context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Faust's own settings
        return build_app(worker.context, plane), plane


def test_application_is_named_as_group_and_hands_chunks_to_the_plane(worker: WorkerState) -> None:
    app, plane = built(worker)
    assert app.conf.id == "t"
    transport: Any = app.transport
    assert transport.owner is plane
    assert transport.chunk_records == {"t-events": 1000, "t-items": BLOCKS_A_CHUNK}
    assert transport.ends is None
    assert set(app.tables) == {"users", "items"}
    assert app.tables["users"].changelog_topic.get_topic_name() == "t-users-changelog"
    assert app.tables["items"].changelog_topic.get_topic_name() == "t-items-changelog"
    assert (app.tables["users"].partitions, app.tables["items"].partitions) == (4, 2)
    assert not app.conf.topic_allow_declare
    assert app.conf.table_standby_replicas == 0


def test_broker_without_transactions_is_not_asked_for_ends(tmp_path: Path) -> None:
    worker = WorkerState(tmp_path / "worker", transactions=False, data_dir=tmp_path / "data")
    app, _ = built(worker)
    transport: Any = app.transport
    assert transport.ends is not None
    worker.close()


def test_credentials_reach_faust(tmp_path: Path) -> None:
    worker = WorkerState(
        tmp_path / "worker",
        data_dir=tmp_path / "data",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username="u",
        sasl_password="p",
    )
    app, _ = built(worker)
    credentials: Any = app.conf.broker_credentials
    assert credentials.protocol is AuthProtocol.SASL_SSL
    assert credentials.mechanism is SASLMechanism.SCRAM_SHA_256
    assert (credentials.username, credentials.password) == ("u", "p")
    worker.close()
    secured = WorkerState(tmp_path / "tls", data_dir=tmp_path / "data", security_protocol="SSL")
    app, _ = built(secured)
    credentials = app.conf.broker_credentials
    assert credentials.protocol is AuthProtocol.SSL
    secured.close()


def test_signal_of_a_recovery_is_ours(worker: WorkerState) -> None:
    app: Any = built(worker)[0]
    recovery = app.tables.recovery
    place = TP("t-users-changelog", 0)
    recovery.active_highwaters[place], recovery.active_offsets[place] = 9, 4
    assert recovery.signal_recovery_end._needs_more()
    recovery.active_offsets[place] = 9
    assert not recovery.signal_recovery_end._needs_more()


def test_tables_are_known_at_once(worker: WorkerState) -> None:
    tables: Any = built(worker)[0].tables
    steps: list[str] = []

    async def step(name: str) -> None:
        steps.append(name)

    tables._update_channels = lambda: step("known")
    tables.recovery.start = lambda: step("recovery")
    tables.sleep = lambda seconds: step("sleep")  # Faust's own waits for a second
    asyncio.run(tables.on_start())
    assert steps == ["known", "recovery"]


def test_worker_notes_which_member_of_the_group_it_is(worker: WorkerState) -> None:
    transport: Any = built(worker)[0].transport
    worker.context.settings.data_dir.mkdir(parents=True, exist_ok=True)
    transport.member_file.note("member-1")
    assert (worker.context.settings.data_dir / "t.member").read_text() == "member-1"


def test_end_of_a_rebalance_is_logged_also_if_nothing_is_assigned(
    worker: WorkerState, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    app: Any = built(worker)[0]
    app.on_rebalance_end()  # of an application that never had a consumer
    app._consumer = SimpleNamespace(rebalance_log=RebalanceLog(iter([1.0, 3.5]).__next__))
    app._consumer.rebalance_log.begin()
    app.on_rebalance_end()
    assert "rebalanced in 2.50 s (seek 2.50); partitions now: 0" in caplog.messages


def test_stopping_commits_first_whatever_else_fails(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, plane = built(worker)
    steps: list[str] = []

    async def release_all() -> None:
        steps.append("partitions")
        raise RuntimeError("a partition cannot close")

    async def stop_plane() -> None:
        steps.append("plane")
        raise RuntimeError("it does not stop")

    async def stop_keeper() -> None:
        steps.append("keeper")
        raise RuntimeError("the feed died")

    async def commit() -> None:
        steps.append("group")

    async def leave() -> None:
        steps.append("leave")
        raise RuntimeError("no coordinator")

    async def on_stop(self: Any) -> None:
        steps.append("faust")

    monkeypatch.setattr(plane, "release_all", release_all)
    monkeypatch.setattr(plane, "stop", stop_plane)
    app.keeper = SimpleNamespace(stop=stop_keeper)  # type: ignore[assignment]
    app._consumer = SimpleNamespace(stop_flow=lambda: None, commit=commit, leave=leave)  # type: ignore[assignment]
    monkeypatch.setattr(faust.App, "on_stop", on_stop)
    with pytest.raises(RuntimeError, match="it does not stop") as error:
        asyncio.run(app.on_stop())
    assert "a partition cannot close" in str(error.value.__context__)
    assert steps == ["partitions", "group", "leave", "plane", "keeper", "faust"]
    assert "the item feed did not close: the feed died" in caplog.text


def test_damaged_database_of_the_consumer_ends_the_worker_by_its_own_message(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, plane = built(worker)
    codes: list[int] = []
    monkeypatch.setattr(plane, "_on_exit", codes.append)
    app._crash(DamagedDatabaseError("users-1.db", Exception("Corruption: a block")))
    assert codes == [1]
    assert "because of a bug" not in caplog.text
    assert "the worker stops: the database users-1.db is damaged" in caplog.text


def test_last_commit_that_nobody_answers_does_not_keep_the_worker_in_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = WorkerState(tmp_path / "worker", data_dir=tmp_path / "data", shutdown_seconds=1.0)
    app, plane = built(worker)
    steps: list[str] = []

    def step(name: str, seconds: float = 0.0) -> Any:
        async def take(*_: Any) -> None:
            await asyncio.sleep(seconds)
            steps.append(name)

        return take

    monkeypatch.setattr(plane, "release_all", step("partitions", 100.0))
    monkeypatch.setattr(plane, "stop", step("plane"))
    monkeypatch.setattr(plane, "_on_exit", lambda status: steps.append(f"exit {status}"))
    app.keeper = SimpleNamespace(stop=step("keeper"))  # type: ignore[assignment]
    app._consumer = SimpleNamespace(  # type: ignore[assignment]
        stop_flow=lambda: None, commit=step("group"), leave=step("leave")
    )
    monkeypatch.setattr(faust.App, "on_stop", step("faust"))
    began = time.monotonic()
    asyncio.run(app.on_stop())
    assert time.monotonic() - began < 50.0
    assert steps[:3] == ["group", "leave", "exit 0"]
    assert "the last commit is not answered" in caplog.text
    worker.close()
