"""BackgroundTask: no end goes unnoticed, and stopping neither hangs nor raises."""

import asyncio

import pytest

from tracker.feeds import background
from tracker.feeds.background import BackgroundTask, PeriodicTask, TaskEndedError, log_death

Deaths = list[tuple[str, BaseException]]


async def fails() -> None:
    raise ZeroDivisionError("a bug")


async def returns() -> None:
    pass


async def cancels_itself() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("work", "error"),
    [(fails, ZeroDivisionError), (returns, TaskEndedError), (cancels_itself, TaskEndedError)],
)
def test_task_that_ends_by_itself_is_reported_with_the_reason(
    work: object, error: type[BaseException]
) -> None:
    deaths: Deaths = []

    async def run() -> None:
        task = BackgroundTask("a task", lambda name, reason: deaths.append((name, reason)))
        task.start(work())  # type: ignore[operator]
        await asyncio.sleep(0.01)
        await task.stop()

    asyncio.run(run())
    ((name, reason),) = deaths
    assert name == "a task"
    assert isinstance(reason, error)


def test_task_that_is_stopped_is_not_reported_whatever_it_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deaths: Deaths = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError("while it stopped")

    async def run() -> None:
        task = BackgroundTask("a task", lambda name, reason: deaths.append((name, reason)))
        await task.stop()  # never started
        task = BackgroundTask("a task", lambda name, reason: deaths.append((name, reason)))
        task.start(work())
        await asyncio.sleep(0.01)
        await task.stop()

    asyncio.run(run())
    assert deaths == []
    assert "a task failed while it stopped" in caplog.text


def test_task_that_does_not_stop_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "STOP_SECONDS", 0.05)
    may_end = asyncio.Event()

    async def work() -> None:
        while not may_end.is_set():
            try:
                await may_end.wait()
            except asyncio.CancelledError:
                continue

    async def run() -> None:
        task = BackgroundTask("a task", log_death)
        task.start(work())
        await asyncio.sleep(0.01)
        async with asyncio.timeout(60.0):
            await task.stop()
        may_end.set()
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert "a task does not stop" in caplog.text


def test_work_that_does_not_go_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("tracker.feeds.background.time.monotonic", lambda: now[0])

    async def work() -> None:
        task = BackgroundTask("the feed", lambda name, error: None)
        now[0] += 500.0
        assert task.stuck(5.0) == []  # it was never started
        task.start(asyncio.sleep(60.0))
        now[0] += 6.0
        assert task.stuck(5.0) == ["the feed has not gone on for 6 s"]
        task.beat()
        assert task.stuck(5.0) == []
        await task.stop()
        now[0] += 500.0
        assert task.stuck(5.0) == []

    asyncio.run(work())


class Looks(PeriodicTask):
    """Counts its looks; the third one fails."""

    def __init__(self, deaths: Deaths) -> None:
        super().__init__("a watch", 0.01, lambda name, reason: deaths.append((name, reason)))
        self.count = 0

    async def look(self) -> None:
        self.count += 1
        if self.count == 3:
            raise ZeroDivisionError("a bug")


def test_periodic_task_looks_again_and_again_and_tells_if_a_look_fails() -> None:
    deaths: Deaths = []
    watch = Looks(deaths)

    async def run() -> None:
        watch.start()
        assert watch.count == 0  # the first look comes after an interval
        while not deaths:
            await asyncio.sleep(0.01)
        await watch.stop()

    asyncio.run(asyncio.wait_for(run(), 10.0))
    assert watch.count == 3
    assert [(name, type(reason)) for name, reason in deaths] == [("a watch", ZeroDivisionError)]
