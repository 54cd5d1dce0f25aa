"""The time that brokers get, and what of it does not count."""

import asyncio
import time

import pytest

from tracker.kafka.patience import Patience


class Brokers:
    """Brokers that fall silent and answer again as a test sets it."""

    def __init__(self) -> None:
        self.back_at: float | None = time.monotonic()

    def answered_seconds(self) -> float:
        return 0.0 if self.back_at is None else time.monotonic() - self.back_at


def waited(patience: Patience, seconds: float) -> float:
    """Wait for something that takes so long; return how long it was waited for."""

    async def go() -> None:
        async with patience.limit():
            await asyncio.sleep(seconds)

    began_at = time.monotonic()
    asyncio.run(go())
    return time.monotonic() - began_at


def test_brokers_that_answer_have_the_time_that_was_set() -> None:
    with pytest.raises(TimeoutError):
        waited(Patience(0.05), 10.0)
    assert waited(Patience(60.0), 0.01) < 30.0


def test_no_time_passes_while_no_broker_answers() -> None:
    brokers = Brokers()
    brokers.back_at = None
    assert waited(Patience(0.05, brokers.answered_seconds), 0.3) >= 0.3


def test_the_time_begins_anew_when_brokers_answer_again() -> None:
    brokers = Brokers()
    brokers.back_at = None
    patience = Patience(0.1, brokers.answered_seconds)

    async def go() -> float:
        asyncio.get_running_loop().call_later(0.3, setattr, brokers, "back_at", began_at + 0.3)
        with pytest.raises(TimeoutError):
            async with patience.limit():
                await asyncio.sleep(60.0)
        return time.monotonic() - began_at

    began_at = time.monotonic()
    assert asyncio.run(go()) >= 0.4


def test_a_silence_since_a_time_is_known() -> None:
    brokers = Brokers()
    patience = Patience(1.0, brokers.answered_seconds)
    before = time.monotonic() - 5.0
    assert patience.was_silent(before)
    assert not patience.was_silent(time.monotonic() + 5.0)
    brokers.back_at = None
    assert patience.was_silent(time.monotonic() - 0.001)
    assert not Patience().was_silent(before)
