"""A rolling restart from an earlier commit under load, and the way back that is refused by name.

The earlier commit is checked out beside this one, and its workers run with the same libraries. Its
kernels are compiled first, which takes minutes.
"""

import asyncio
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.faults import until_done
from tests.paths import ROOT
from tests.walk.brokers import Brokers
from tests.walk.crew import WatchedCrew
from tests.walk.judge import judge
from tests.walk.walk import Plan, Step, Walk, ends_of
from tracker.demo.local import worker_environment
from tracker.demo.processes import ChildProcess
from tracker.kafka.topics import ensure_topics
from tracker.settings import PREFIX, Settings

BEFORE = "c2a4db4"
"""The last commit before faults, security and erasure were put to the proof."""

THEIRS = (
    "NAME", "BROKERS", "ARTIFACTS", "DATA_DIR", "WEB_PORT", "EVENT_PARTITIONS", "ITEM_PARTITIONS",
    "COMMIT_INTERVAL_SECONDS", "SESSION_TIMEOUT_SECONDS", "TRANSACTION_TIMEOUT_SECONDS", "K",
)  # fmt: skip
"""Settings that the earlier commit knows."""

READY_SECONDS = 900.0

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
        "import sys; from pathlib import Path; from tests.shop import build_shop;"
        " print(build_shop(Path(sys.argv[1])).version)"
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


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_rolling_restart_from_an_earlier_commit_loses_nothing_and_the_way_back_is_refused(
    earlier: Path, tmp_path: Path
) -> None:
    plan = Plan(seed=31, workers=2)

    async def go(brokers: Brokers) -> None:
        walk = Walk(tmp_path, plan, brokers)
        crew = walk.crew = Mixed(walk.crew, earlier)
        version = await asyncio.to_thread(build_with, earlier, walk.artifacts)
        nothing = dict.fromkeys(range(plan.partitions), 0)
        walk.journal.steps = [Step(version, nothing, nothing, earlier=True)]
        await asyncio.to_thread(make_topics, earlier, walk.settings)
        for number in range(plan.workers):
            crew.start(number)
        assert await crew.all_ready(READY_SECONDS), crew.one(0).tail(30)
        watching = asyncio.create_task(crew.watch())
        try:
            async with walk.sender() as client:
                load = asyncio.create_task(walk.load(client))
                await asyncio.sleep(8.0)
                # Events in between may be applied by a worker of either commit.
                low = await walk.committed()
                walk.journal.steps.append(Step(version, low))
                for number in range(plan.workers):
                    problem = await crew.end(number)
                    assert problem is None, problem
                    crew.old.discard(number)
                    crew.start(number)
                    assert await crew.all_ready(READY_SECONDS), crew.one(number).tail(30)
                    await asyncio.sleep(5.0)
                walk.journal.steps[1].high = await ends_of(walk.settings, walk.topics.events)
                await ensure_topics(walk.settings)  # the topic of handed-on events is new
                for number in range(plan.workers):
                    assert await crew.end(number) is None
                    crew.start(number)
                    assert await crew.all_ready(READY_SECONDS), crew.one(number).tail(30)
                await asyncio.sleep(5.0)
                walk.stop_load.set()
                await load
            walk.journal.ended = float("inf")
            walk.journal.keep()  # to judge what is left once more
            rows = await until_done(walk.settings, crew)
            verdict = await judge(walk, rows)
            print(asdict(verdict))  # noqa: T201
            assert verdict.problems == []
            assert verdict.users > 100
            assert verdict.unsure_users <= UNSURE * verdict.users
            assert verdict.unsure_items <= UNSURE * verdict.items
            assert [end.text for end in crew.ends] == []
            watching.cancel()
            assert crew.stop() == []
            # The way back: the earlier worker says by name what it cannot read, and ends.
            crew.old.add(0)
            crew.start(0)
            crew.held.add(0)
            back = crew.one(0)
            assert await asyncio.to_thread(back.wait, 120.0) == 1
            assert "format" in back.tail(30), back.tail(30)
        finally:
            watching.cancel()
            crew.kill_all()

    brokers = Brokers(tmp_path / "kafka", 1)
    with brokers.running():
        asyncio.run(go(brokers))
