"""The Faust application around the plane, and how a worker starts and refuses to."""

import asyncio
import logging
import re
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faust.types.auth import AuthProtocol, SASLMechanism

from tests.plane_world import Bench
from tests.shop import build_shop, shop_items
from tracker import app as app_module
from tracker.app import BLOCKS_A_CHUNK, TrackerApp, build_app, run_worker, wait_for_cluster
from tracker.cluster import BrokerError
from tracker.data_dir import locked
from tracker.plane import Plane
from tracker.settings import Settings, load_settings
from tracker.topics import ensure_topics


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "bench", data_dir=tmp_path / "data")
    yield made
    made.close()


def built(bench: Bench) -> tuple[TrackerApp, Plane]:
    plane = Plane(bench.context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Faust's own settings
        return build_app(bench.context, plane), plane


def test_application_is_named_as_group_and_hands_chunks_to_the_plane(bench: Bench) -> None:
    app, plane = built(bench)
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
    bench = Bench(tmp_path / "bench", transactions=False, data_dir=tmp_path / "data")
    app, _ = built(bench)
    transport: Any = app.transport
    assert transport.ends is not None
    bench.close()


def test_credentials_reach_faust(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path / "bench",
        data_dir=tmp_path / "data",
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username="u",
        sasl_password="p",
    )
    app, _ = built(bench)
    credentials: Any = app.conf.broker_credentials
    assert credentials.protocol is AuthProtocol.SASL_SSL
    assert credentials.mechanism is SASLMechanism.SCRAM_SHA_256
    assert (credentials.username, credentials.password) == ("u", "p")
    bench.close()
    secured = Bench(tmp_path / "tls", data_dir=tmp_path / "data", security_protocol="SSL")
    app, _ = built(secured)
    credentials = app.conf.broker_credentials
    assert credentials.protocol is AuthProtocol.SSL
    secured.close()


def test_cluster_is_waited_for_and_then_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "RETRY_SECONDS", 0.1)
    settings = load_settings({}, brokers="127.0.0.1:1")
    with pytest.raises(BrokerError, match="TRACKER_BROKERS"):
        asyncio.run(wait_for_cluster(settings, 0.5))
    waits = re.findall(r"trying again in ([\d.]+) s", caplog.text)
    assert waits == ["0.1", "0.2"]


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = ("aiokafka", "faust", "mode", "kafka", "numba", "asyncio", "aiohttp", "faiss")
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def refusal(settings: Settings, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_worker(settings) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "CRITICAL" in line]
    assert len(lines) == 1
    return lines[0]


def test_worker_without_an_artifact_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings({}, artifacts=str(tmp_path / "none"), data_dir=tmp_path / "data")
    assert "this worker does not start" in refusal(settings, capsys)


def test_worker_on_a_directory_in_use_says_whose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings({}, data_dir=tmp_path / "data")
    with locked(settings.data_dir):
        assert "is in use by process" in refusal(settings, capsys)


def test_worker_on_a_web_port_in_use_says_so_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = load_settings(
            {}, artifacts=str(tmp_path / "none"), data_dir=tmp_path / "data", web_port=port
        )
        told = refusal(settings, capsys)
    assert f"this worker does not start: port {port} of 127.0.0.1 is in use" in told


def test_worker_with_a_broken_table_of_kinds_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_shop(tmp_path / "artifacts", shop_items(40))
    kinds = tmp_path / "kinds.toml"
    kinds.write_text("[kinds]\nlike = 'much'\n")
    settings = load_settings(
        {},
        artifacts=str(tmp_path / "artifacts"),
        data_dir=tmp_path / "data",
        kinds_file=kinds,
    )
    assert str(kinds) in refusal(settings, capsys)


def test_worker_takes_weights_from_the_file_and_the_settings(tmp_path: Path) -> None:
    kinds = tmp_path / "kinds.toml"
    kinds.write_text("[kinds]\nlike = 7.0\n")
    own = app_module._kinds(load_settings({}, kinds_file=kinds, unknown_kinds="0.5"), 1.0, 5.0)
    assert own.weight("like", None) == 7.0
    assert own.weight("teleport", None) == 0.5
    default = app_module._kinds(load_settings({}), 0.0, 10.0)
    assert default.rating_max == 10.0


def test_worker_with_topics_that_do_not_fit_says_which_before_it_compiles(
    tansu: str,
    prefix: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compiled(*arguments: object) -> None:
        raise AssertionError("kernels were compiled")

    monkeypatch.setattr(app_module, "warm_up", compiled)
    build_shop(tmp_path / "artifacts", shop_items(40))
    settings = load_settings(
        {},
        name=prefix,
        brokers=tansu,
        artifacts=str(tmp_path / "artifacts"),
        data_dir=tmp_path / "data",
        event_partitions=1,
        item_partitions=1,
    )
    assert f"{prefix}-events" in refusal(settings, capsys)
    asyncio.run(ensure_topics(settings))
