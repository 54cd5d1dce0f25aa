"""A rolling restart from an earlier commit under load, back, and forward again.

The earlier commit is checked out beside this one, and its workers run with the same libraries. Its
kernels are compiled first, which takes minutes.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from tests.faults import until_done
from tests.paths import ROOT
from tests.states import Rows
from tests.walk.brokers import Brokers
from tests.walk.crew import WatchedCrew
from tests.walk.events import ITEMS, encode
from tests.walk.judge import Versions, judge
from tests.walk.model import hash_of
from tests.walk.walk import Plan, Step, Walk, ends_of
from tracker.demo.local import worker_environment
from tracker.demo.processes import ChildProcess
from tracker.items.states import ItemStates
from tracker.kafka.topics import ensure_topics
from tracker.settings import PREFIX, Settings
from tracker.stream.waiting_items import decode_waiting

BEFORE = "c2a4db4"
"""The last commit before faults, security and erasure were put to the proof."""

THEIRS = (
    "NAME", "BROKERS", "ARTIFACTS", "DATA_DIR", "WEB_PORT", "EVENT_PARTITIONS", "ITEM_PARTITIONS",
    "COMMIT_INTERVAL_SECONDS", "SESSION_TIMEOUT_SECONDS", "TRANSACTION_TIMEOUT_SECONDS", "K",
)  # fmt: skip
"""Settings that the earlier commit knows."""

READY_SECONDS = 900.0

PAUSE_SECONDS = 5.0
"""Time with load between two changes of workers."""

CATALOGUE = ITEMS + 2
CAPPED, UNCAPPED = f"i{ITEMS}", f"i{ITEMS + 1}"
"""Items of which the load has no event."""

UNHEARD = "unheard-of"
"""An item of no catalogue."""

UNSURE = 0.05
"""Share of users and items of whom the model may know only that a state is one of several."""


@pytest.fixture(scope="module")
def earlier() -> Path:
    """The sources of the earlier commit; they stay, so that its kernels are compiled once."""
    place = ROOT / "build" / f"at-{BEFORE}"
    if not place.exists():
        command = ["git", "worktree", "add", "--detach", str(place), BEFORE]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"the history has no {BEFORE}: {done.stderr}"
    return place


class Mixed(WatchedCrew):
    """Workers of two commits."""

    def __init__(self, crew: WatchedCrew, earlier: Path) -> None:
        self.__dict__.update(crew.__dict__)
        self.earlier = earlier
        self.old = set(range(len(self.settings)))

    def start(self, number: int, file_bytes: int | None = None) -> None:
        """Start a worker of the commit that it is of now."""
        if number not in self.old:
            super().start(number, file_bytes)
            return
        command = [sys.executable, "-m", "tracker", "worker"]
        env = environment_of(self.settings[number])
        self.workers[number] = ChildProcess(
            "earlier worker", command, self.log(number), env, self.earlier
        )
        self.held.discard(number)


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment of a process of the earlier commit."""
    return {
        name: value
        for name, value in worker_environment(settings).items()
        if not name.startswith(PREFIX) or name.removeprefix(PREFIX) in THEIRS
    }


def make_topics(earlier: Path, settings: Settings) -> None:
    """Create the topics that the earlier commit knows."""
    command = [sys.executable, "-m", "tracker", "topics"]
    subprocess.run(command, cwd=earlier, env=environment_of(settings), check=True)


def build_with(earlier: Path, artifacts: Path) -> str:
    """Build an index with the earlier commit; return its version."""
    program = (
        "import sys; from pathlib import Path; from tests.shop import build_shop, shop_items;"
        f" print(build_shop(Path(sys.argv[1]), shop_items({CATALOGUE})).version)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(artifacts)],
        cwd=earlier,
        env={**os.environ, "PYTHONPATH": str(earlier)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1]


class Upgrade:
    """A walk whose workers change from one commit to the other while events come."""

    def __init__(self, folder: Path, plan: Plan, brokers: Brokers, earlier: Path) -> None:
        self.plan, self.earlier = plan, earlier
        self.walk = Walk(folder, plan, brokers)
        self.crew = Mixed(self.walk.crew, earlier)
        self.walk.crew = self.crew
        self.version = ""
        self.watching: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start workers of the earlier commit; end all in the end."""
        walk, plan = self.walk, self.plan
        self.version = await asyncio.to_thread(build_with, self.earlier, walk.artifacts)
        nothing = dict.fromkeys(range(plan.partitions), 0)
        walk.journal.steps = [Step(self.version, nothing, nothing, earlier=True)]
        await asyncio.to_thread(make_topics, self.earlier, walk.settings)
        for number in range(plan.workers):
            self.crew.start(number)
        try:
            assert await self.crew.all_ready(READY_SECONDS), self.crew.one(0).tail(30)
            self.watching = asyncio.create_task(self.crew.watch())
            yield
            assert [end.text for end in self.crew.ends] == []
        finally:
            if self.watching is not None:
                self.watching.cancel()
            self.crew.kill_all()

    def stop(self) -> None:
        """Stop the workers, and do not start them again."""
        assert self.watching is not None
        self.watching.cancel()
        assert self.crew.stop() == []

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Send events meanwhile."""
        self.walk.stop_load.clear()
        async with self.walk.sender() as client:
            load = asyncio.create_task(self.walk.load(client))
            yield
            self.walk.stop_load.set()
            await load

    async def send(self, *events: tuple[str, dict[str, str]]) -> None:
        """Send events of users, and wait until they are in committed states."""
        now = self.walk._now()
        async with self.walk.sender() as client:
            for user, fields in events:
                value = encode(user_id=user, timestamp=now, **fields)
                await self.walk._send(client, (user, value))
        ends = await ends_of(self.walk.settings, self.walk.topics.events)
        reached: dict[int, int] = {}
        while any(reached.get(partition, 0) < end for partition, end in ends.items()):
            await asyncio.sleep(0.5)
            reached = await self.walk.committed()

    def positives(self, rows: Rows, item: str) -> int:
        """Return the number of positive events in the row of an item."""
        versions = Versions(self.walk.artifacts)
        versions.content(self.version)
        states = ItemStates(1, versions.scales)
        states.unpack(np.zeros(1, np.int64), [rows.items[hash_of(item).to_bytes(8, "big")]])
        return int(states.head["positives"][0])

    async def replace_workers(self, earlier: bool) -> None:
        """Replace the workers one after the other by those of a commit."""
        # Events in between may be applied by a worker of either commit.
        step = Step(self.version, await self.walk.committed(), earlier=earlier)
        self.walk.journal.steps.append(step)
        await self.restart(earlier)
        step.high = await ends_of(self.walk.settings, self.walk.topics.events)

    async def restart(self, earlier: bool) -> None:
        """Restart the workers one after the other."""
        for number in range(self.plan.workers):
            problem = await self.crew.end(number)
            assert problem is None, problem
            (self.crew.old.add if earlier else self.crew.old.discard)(number)
            self.crew.start(number)
            assert await self.crew.all_ready(READY_SECONDS), self.crew.one(number).tail(30)
            await asyncio.sleep(PAUSE_SECONDS)

    async def judged(self) -> Rows:
        """Wait until all events are in the states, and compare them with the model."""
        self.walk.journal.ended = float("inf")
        self.walk.journal.keep()  # to judge what is left once more
        rows = await until_done(self.walk.settings, self.crew)
        verdict = await judge(self.walk, rows)
        print(asdict(verdict))  # noqa: T201
        assert verdict.problems == []
        assert verdict.users > 100
        assert verdict.unsure_users <= UNSURE * verdict.users
        assert verdict.unsure_items <= UNSURE * verdict.items
        return rows


def waiting(rows: Rows, item: str) -> int:
    """Return how many events of an item wait for its row."""
    row = rows.waiting.get(hash_of(item).to_bytes(8, "big"))
    return 0 if row is None else len(decode_waiting(row))


def likes(item: str, *users: str) -> list[tuple[str, dict[str, str]]]:
    """Return a like of an item by each user."""
    return [(user, {"item_id": item, "kind": "like"}) for user in users]


def run(folder: Path, seed: int, earlier: Path, go: Callable[[Upgrade], Awaitable[None]]) -> None:
    """Run an upgrade on a broker of its own."""
    brokers = Brokers(folder / "kafka", 1)

    async def whole() -> None:
        upgrade = Upgrade(folder, Plan(seed=seed, workers=2), brokers, earlier)
        async with upgrade.running():
            await go(upgrade)

    with brokers.running():
        asyncio.run(whole())


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_rolling_restart_from_an_earlier_commit_loses_nothing_and_the_way_back_is_refused(
    earlier: Path, tmp_path: Path
) -> None:
    async def go(upgrade: Upgrade) -> None:
        crew = upgrade.crew
        async with upgrade.load():
            await asyncio.sleep(PAUSE_SECONDS)
            await upgrade.replace_workers(earlier=False)
            await ensure_topics(upgrade.walk.settings)  # the topic of handed-on events is new
            await upgrade.restart(earlier=False)
        await upgrade.judged()
        upgrade.stop()
        # The way back: the earlier worker says by name what it cannot read, and ends.
        crew.old.add(0)
        crew.start(0)
        crew.held.add(0)
        back = crew.one(0)
        assert await asyncio.to_thread(back.wait, 120.0) == 1
        assert "format" in back.tail(30), back.tail(30)

    run(tmp_path, 31, earlier, go)


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_going_back_before_a_new_format_is_switched_on_loses_nothing_and_forward_again_neither(
    earlier: Path, tmp_path: Path
) -> None:
    fan = [
        ("fan", {"item_id": CAPPED, "kind": "like", "event_id": f"like{number}"})
        for number in range(8)
    ]

    async def go(upgrade: Upgrade) -> None:
        async with upgrade.load():
            await asyncio.sleep(PAUSE_SECONDS)
            await upgrade.replace_workers(earlier=False)
            # Five of the fan's eight likes count, and three of nobody's item wait for its row.
            await upgrade.send(*fan, *likes(CAPPED, "a", "b", "c", "d"))
            await upgrade.send(*likes(UNHEARD, "a", "b", "c"))
            await upgrade.replace_workers(earlier=True)
            await upgrade.send(*(("fan", {"retracts": f"like{number}"}) for number in range(8)))
            await upgrade.send(*likes(UNCAPPED, *["fan"] * 8), *likes(UNHEARD, "d"))
        rows = await upgrade.judged()
        # What docs/how-to/upgrade.md says is not the same while earlier workers run again.
        assert upgrade.positives(rows, CAPPED) == 4 - 3
        assert upgrade.positives(rows, UNCAPPED) == 8
        assert (upgrade.positives(rows, UNHEARD), waiting(rows, UNHEARD)) == (1, 3)
        async with upgrade.load():
            await upgrade.replace_workers(earlier=False)
            await upgrade.send(*likes(UNHEARD, "e"))
        rows = await upgrade.judged()
        assert (upgrade.positives(rows, UNHEARD), waiting(rows, UNHEARD)) == (5, 0)

    run(tmp_path, 32, earlier, go)
