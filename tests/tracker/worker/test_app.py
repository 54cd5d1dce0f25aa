"""The Faust application around the plane."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faust.types.auth import AuthProtocol, SASLMechanism

from tests.plane_world import Bench
from tracker.worker.app import BLOCKS_A_CHUNK, TrackerApp, build_app
from tracker.worker.plane import Plane


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
