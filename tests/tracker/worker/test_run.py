"""How a worker starts, and how it refuses to."""

import asyncio
import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shop import build_shop, shop_items
from tracker.kafka.cluster import BrokerError
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings
from tracker.users.config import InterestConfig
from tracker.worker import run as worker_module
from tracker.worker.compilation import kinds_of
from tracker.worker.data_dir import locked
from tracker.worker.run import run_worker, wait_for_cluster


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


def test_cluster_is_waited_for_and_then_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "RETRY_SECONDS", 0.5)
    settings = load_settings({}, brokers="127.0.0.1:1")
    with pytest.raises(BrokerError, match="TRACKER_BROKERS"):
        asyncio.run(wait_for_cluster(settings, 2.0))
    waits = re.findall(r"retrying every ([\d.]+) s", caplog.text)
    assert len(waits) >= 2
    assert set(waits) == {"0.5"}  # no longer after a while: a broker that is back is seen soon


def refusal(settings: Settings, capsys: pytest.CaptureFixture[str]) -> str:
    assert run_worker(settings) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "CRITICAL" in line]
    assert len(lines) == 1
    return lines[0]


def test_worker_without_an_artifact_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings({}, artifacts=str(tmp_path / "none"), data_dir=tmp_path / "data")
    assert "the worker does not start" in refusal(settings, capsys)


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
    assert f"the worker does not start: port {port} of 127.0.0.1 is in use" in told


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
    scale = InterestConfig(dim=2, rating_min=1.0, rating_max=5.0)
    own = kinds_of(load_settings({}, kinds_file=kinds, unknown_kinds="0.5"), scale)
    assert own.weight("like", None) == 7.0
    assert own.weight("teleport", None) == 0.5
    default = kinds_of(load_settings({}), InterestConfig(dim=2, rating_min=0.0, rating_max=10.0))
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

    monkeypatch.setattr(worker_module, "warm_up", compiled)
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
