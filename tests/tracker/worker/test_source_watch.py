"""What ends a worker whose source topic is no longer the one that its states belong to."""

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from tracker.kafka.cluster import BrokerError, TopicInfo
from tracker.worker.source_watch import SourceWatch

PLACE = TP("t-events", 0)


class Watched:
    """A watch over one partition at offset 100, and what it was told."""

    def __init__(self) -> None:
        self.topics: dict[str, TopicInfo] | None = {"t-events": TopicInfo("t-events", 1, "one")}
        self.end: int | None = 100
        self.fatal: list[BaseException] = []
        self.now = 1000.0
        store = SimpleNamespace(
            is_open=True, progress=SimpleNamespace(position=100, topic_id="one", partitions=1)
        )
        partitions: Any = {PLACE: SimpleNamespace(store=store, side=SimpleNamespace(table="users"))}
        self.watch = SourceWatch(
            self.describe, lambda tp: self.end, partitions, self.fatal.append, lambda *_: None,
            lambda: self.now,
        )  # fmt: skip

    async def describe(self) -> dict[str, TopicInfo]:
        if self.topics is None:
            raise BrokerError("away")
        return self.topics

    def look(self) -> str:
        asyncio.run(self.watch.look())
        return " ".join(map(str, self.fatal))


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_topic_that_is_the_same_is_no_reason_to_stop(watched: Watched) -> None:
    assert watched.look() == watched.look() == ""
    watched.end = None
    assert watched.look() == ""
    watched.topics = None  # no broker answers; that is told of elsewhere
    assert watched.look() == watched.look() == ""


def test_the_time_without_an_answer_of_the_brokers_is_known(watched: Watched) -> None:
    topics = watched.topics
    assert watched.watch.silence_seconds == 0.0
    watched.look()
    watched.now += 12.0
    assert watched.watch.silence_seconds == 0.0  # nobody has asked since
    watched.topics = None
    watched.look()
    watched.now += 8.0
    assert watched.watch.silence_seconds == 20.0
    watched.topics = topics
    watched.look()
    assert watched.watch.silence_seconds == 0.0


def test_silence_of_the_brokers_and_its_end_are_a_line_of_log_each(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    topics = watched.topics
    watched.look()
    watched.topics = None
    watched.look()
    watched.now += 30.0
    watched.look()
    watched.topics = topics
    watched.look()
    watched.look()
    silent, back = caplog.messages
    assert silent == "away; events and lists wait, nothing is lost"
    assert back == "brokers answer again after 30 s"


def test_a_broker_that_takes_the_question_and_does_not_answer_is_silent(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.worker.source_watch.ANSWER_SECONDS", 0.02)

    async def nothing() -> dict[str, TopicInfo]:
        await asyncio.sleep(60.0)
        return {}

    monkeypatch.setattr(watched.watch, "_describe", nothing)
    assert watched.look() == ""
    watched.now += 5.0
    assert watched.watch.silence_seconds == 5.0


def test_the_time_with_answers_begins_after_the_last_look_without_one(watched: Watched) -> None:
    topics = watched.topics
    watched.look()
    assert watched.watch.answered_seconds == math.inf
    watched.topics = None
    watched.look()
    watched.now += 30.0
    assert watched.watch.answered_seconds == 0.0
    watched.topics = topics
    watched.look()
    assert watched.watch.answered_seconds == 30.0


def test_a_worker_that_was_frozen_does_not_take_that_for_silence(watched: Watched) -> None:
    async def frozen() -> dict[str, TopicInfo]:
        watched.now += 60.0
        raise BrokerError("no answer")

    watched.watch._describe = frozen
    watched.look()
    assert watched.watch.answered_seconds == math.inf


def test_a_topic_that_was_made_again_ends_the_worker_at_once(watched: Watched) -> None:
    watched.topics = {"t-events": TopicInfo("t-events", 1, "two")}
    assert "deleted and created again while the worker read it; `tracker reset" in watched.look()


def test_a_topic_that_is_gone_ends_the_worker(watched: Watched) -> None:
    watched.topics = {}
    assert watched.look() == ""
    assert "topic t-events was deleted while the worker read it" in watched.look()


def test_a_log_that_has_lost_records_ends_the_worker_if_that_stays_so(watched: Watched) -> None:
    watched.end = 90
    assert watched.look() == ""  # a new leader may not know its end yet
    watched.end = 100
    assert watched.look() == ""
    watched.end = 90
    assert watched.look() == ""
    assert "ends at offset 90, and the states are at 100: the log has lost 10" in watched.look()


def test_partitions_that_were_added_end_the_worker_with_the_command_that_moves_states(
    watched: Watched,
) -> None:
    watched.topics = {"t-events": TopicInfo("t-events", 2, "one")}
    said = watched.look()
    assert "partitions were added to topic t-events, which has 2" in said
    assert "`tracker move-states`" in said
    assert "reset-state" not in said
