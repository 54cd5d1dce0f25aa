"""Workers of a walk: processes that are watched, and started again when they end."""

import asyncio
import contextlib
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults import HANG_SECONDS, Crew
from tests.walk.nursery import ForkedWorker, Nursery
from tracker.demo.local import answers_ok, worker_environment
from tracker.settings import Settings

WATCH_SECONDS = 0.25
BUG = "because of a bug"
"""Words of the log of a worker that ends by an error that it does not expect."""


FENCED = "has fenced this one"
"""What a worker says whose partitions another one has taken over."""


@dataclass(frozen=True)
class End:
    """The end of a worker that nobody had asked for."""

    worker: int
    code: int
    at: float
    text: str

    @property
    def is_wrong(self) -> bool:
        """Whether it must not be: another status than 1, or by a bug."""
        return self.code != 1 or BUG in self.text


class WatchedCrew(Crew):
    """Workers, of which those that end by themselves are started again at once.

    Attributes:
        held: numbers of workers that an action starts itself.
        ends: ends that nobody had asked for.
    """

    def __init__(self, base: Settings, count: int, folder: Path, plain: bool = False) -> None:
        """Prepare the workers; the lists of `plain` ones depend on their user alone."""
        super().__init__(base, count, folder)
        self.plain = plain
        folder.mkdir(parents=True, exist_ok=True)
        self.nursery = Nursery(folder / "nursery.log")
        self.held: set[int] = set(range(count))
        self.ends: list[End] = []
        self.started_at: dict[int, float] = {}

    def start(self, number: int, file_bytes: int | None = None) -> None:
        """Start a worker; with `file_bytes` no file of it may grow beyond that."""
        settings, log = self.settings[number], self.log(number)
        first = []
        if self.plain:
            first.append("from tests.walk.plain import without_others; without_others()")
        if file_bytes is not None:
            limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes}, -1))"
            first.append(f"import resource; {limit}")
            log = log.with_suffix(f".full-{time.time():.0f}.log")  # the log is a file, too
        self.workers[number] = ForkedWorker(
            self.nursery, log, worker_environment(settings), "; ".join(first)
        )
        self.started_at[number] = time.time()
        self.held.discard(number)

    def log(self, number: int) -> Path:
        """Return the file with the log of a worker."""
        return self.folder / f"worker-{number}.log"

    def revive(self) -> None:
        """Start those again that have ended by themselves."""
        for number, worker in enumerate(self.workers):
            if number in self.held or worker is None or worker.returncode is None:
                continue
            self.ends.append(End(number, worker.returncode, time.time(), worker.tail(30)))
            self.start(number)

    async def watch(self) -> None:
        """Revive workers for ever."""
        while True:
            self.revive()
            await asyncio.sleep(WATCH_SECONDS)

    async def kill(self, number: int) -> None:
        """End a worker by kill -9."""
        self.held.add(number)
        worker = self.one(number)
        worker.send_signal(signal.SIGKILL)
        await asyncio.to_thread(worker.wait, 10.0)

    async def end(self, number: int) -> str | None:
        """Stop a worker by SIGTERM; return why that was not in order, None if it was.

        A worker that has just been frozen may be about to end by itself, because another one has
        fenced it meanwhile.
        """
        self.held.add(number)
        worker = self.one(number)
        code = await asyncio.to_thread(worker.stop, HANG_SECONDS)
        if code in (0, -signal.SIGTERM):
            return None
        end = End(number, code, time.time(), worker.tail(5))
        if FENCED in end.text and not end.is_wrong:
            self.ends.append(end)
            return None
        return f"worker {number} ended with {code} at SIGTERM:\n{worker.tail()}"

    async def all_ready(self, seconds: float) -> bool:
        """Wait until all that run are ready, and return whether they are."""
        deadline = time.monotonic() + seconds
        for number, settings in enumerate(self.settings):
            if number in self.held:
                continue
            url = f"http://127.0.0.1:{settings.web_port}/readyz"
            while not await asyncio.to_thread(answers_ok, url):
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(0.1)
        return True

    def kill_all(self) -> None:
        """End all at once, at the end of a walk that failed."""
        for number, worker in enumerate(self.workers):
            self.held.add(number)
            if worker is not None and worker.returncode is None:
                worker.send_signal(signal.SIGKILL)
                with contextlib.suppress(Exception):
                    worker.wait(5.0)
        self.nursery.close()
