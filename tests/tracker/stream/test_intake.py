"""Intake: unknown fields and units of time are counted, and said once a worker."""

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from tests.plane_world import NOW, FakeRecord, small_cluster
from tracker.events.foreign import MAX_NAMES, OTHER_NAMES
from tracker.events.kinds import Kinds
from tracker.settings import load_settings
from tracker.stream.intake import Intake
from tracker.stream.metrics import Metrics
from tracker.stream.serving import Context


def context_of(**overrides: Any) -> Context:
    settings = load_settings({}, name="t", **overrides)
    keeper: Any = SimpleNamespace()
    return Context(settings, small_cluster(settings), keeper, Kinds.default(), Metrics())


def take(intake: Intake, **more: Any) -> int:
    fields = {"user_id": "u", "item_id": "i1", "kind": "view", "timestamp": 1.6e9, **more}
    records = [FakeRecord(1, json.dumps(fields).encode(), b"u")]
    batch, rejected, _ = intake.read(records, NOW)
    intake.count(records, batch, rejected)
    return len(batch)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines of the intake itself, without those of the key check."""
    return [line.getMessage() for line in caplog.records if line.name == "tracker.stream.intake"]


def counted(context: Context, name: str) -> float:
    registry = context.metrics.registry
    value = registry.get_sample_value("tracker_unknown_fields_total", {"name": name})
    return value or 0.0


def test_an_unknown_field_is_counted_and_one_like_a_field_is_logged_once_a_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = context_of()
    with caplog.at_level(logging.WARNING):
        for partition in range(2):
            intake = Intake(context, partition)
            assert take(intake, scen="home", colour="red") == 1
            assert take(intake, scen="home") == 1
    assert counted(context, "scen") == 4
    assert counted(context, "colour") == 2
    assert said(caplog) == [
        "t-events: `scen` looks like `scene`: an event has no such field, so it is ignored; correct"
        " the producer, or set TRACKER_UNKNOWN_FIELDS=reject"
    ]


def test_the_first_rejection_of_each_reason_is_logged_without_what_it_holds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = context_of()
    with caplog.at_level(logging.WARNING):
        for partition in range(2):
            intake = Intake(context, partition)
            for fields in ({"user_id": 5.5}, {"kind": None}, {"item_id": ["secret"]}):
                assert take(intake, **fields) == 0
    assert said(caplog) == [
        f"t-events: partition 0, offset 1: rejected as {reason}; the record and the message are in"
        " the topic t-rejected; further ones of this reason are counted, and not logged"
        for reason in ("wrong_type", "missing_field")
    ]


def test_times_long_ago_are_said_once_for_they_may_be_of_another_unit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake(context_of(), 0)
    with caplog.at_level(logging.WARNING):
        for timestamp in (20240430, 45412.75):
            assert take(intake, timestamp=timestamp) == 1
    assert said(caplog) == [
        "t-events: 1 timestamp lies before 1990, the first 1970-08-23; if it does not, it is of"
        " another unit (TRACKER_TIMESTAMPS)"
    ]


def test_a_chunk_that_is_read_again_is_counted_once() -> None:
    context = context_of()
    intake = Intake(context, 0)
    record = FakeRecord(1, b'{"user_id":"u","retracts":"e","colour":1}', b"u")
    intake.read([record], NOW)
    batch, rejected, _ = intake.read([record], NOW)
    intake.count([record], batch, rejected)
    assert counted(context, "colour") == 1


def test_the_names_that_are_counted_are_bounded() -> None:
    context = context_of()
    intake = Intake(context, 0)
    for n in range(MAX_NAMES + 5):
        take(intake, **{f"field number {n}": 1})
    assert counted(context, OTHER_NAMES) == 5


def test_an_unknown_field_is_rejected_if_the_setting_says_so() -> None:
    context = context_of(unknown_fields="reject")
    assert take(Intake(context, 0), colour="red") == 0


def test_the_unit_of_numbers_is_logged_once_and_follows_the_setting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    intake = Intake(context_of(), 0)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert take(intake, timestamp=1_600_000_000_000) == 1
    assert len(said(caplog)) == 1
    assert "are taken as ms" in caplog.text
    intake = Intake(context_of(timestamps="us"), 0)
    batch, _, _ = intake.read(
        [FakeRecord(1, b'{"user_id":"u","retracts":"e","timestamp":5000000}', b"u")], NOW
    )
    assert batch.times.tolist() == [5.0]
