"""What a running worker says of rights that were taken from it."""

import asyncio
import logging

import pytest

from tracker.kafka.cluster import BrokerError
from tracker.kafka.rights import RightsError
from tracker.worker.rights_watch import AGAIN, RightsWatch


def test_missing_right_is_named_when_it_goes_now_and_then_after_that_and_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    errors: list[Exception | None] = []

    async def check() -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    watch = RightsWatch(check, lambda *_: None)

    def look(*given: Exception | None) -> list[str]:
        caplog.clear()
        errors[:] = given
        for _ in given:
            asyncio.run(watch.look())
        return caplog.messages

    denied = RightsError("they do not allow Write on topic a")
    assert look(None, BrokerError("away")) == []
    assert look(denied, denied) == [f"{denied}; until then this worker waits or ends"]
    assert len(look(*[denied] * AGAIN)) == 1
    assert look(None, None) == ["the brokers allow again all that a worker needs"]
