"""Change over to a version as a worker does, in a process that has compiled nothing before.

`python -m tests.changeover ROOT VERSION FOLDER` serves what LATEST of ROOT names, changes over to
VERSION and prints, as JSON, which kernels the chunks and requests after that still compile, and
what they teach.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numba.core.registry import CPUDispatcher

from tests.plane_world import NOW, WorkerState, like
from tracker.api.lists import ListRequest
from tracker.api.live_lists import LiveLists
from tracker.api.reads import Copy
from tracker.artifact.versions import set_latest
from tracker.events.wire import Event
from tracker.stream.serving import ArtifactKeeper, Serving, load_artifact, make_serving
from tracker.worker.warm_up import _events, warm_up


class Feed:
    """A feed of item states that has nothing to read."""

    def start(self, slowly: bool = False) -> None:
        pass

    async def wait_caught_up(self) -> None:
        pass

    async def stop(self) -> None:
        pass


def compiled() -> set[str]:
    """Return our kernels, each with every signature that it is compiled for."""
    return {
        f"{name}.{attribute}{signature}"
        for name, module in list(sys.modules.items())
        if name.startswith("tracker.")
        for attribute, kernel in vars(module).items()
        if isinstance(kernel, CPUDispatcher)
        for signature in kernel.signatures
    }


def chunk(number: int) -> Iterator[Event]:
    """Events of 20 users: likes in a scene, ratings, and a retraction."""
    for n in range(100):
        time = NOW - 1000.0 + 200.0 * number + n
        yield like(f"u{n % 20}", (n + 7 * number) % 40, time=time, scene="home", event_id=f"{time}")
        if n < 20:
            yield Event(f"u{n}", f"i{n}", "rate", time, value=10.0 if n % 2 else 1.0)
    yield Event("u3", None, None, NOW, retracts=f"{NOW - 1000.0 + 200.0 * number + 3}")


def answer_requests(worker: WorkerState) -> None:
    """Make the lists of one request over HTTP, and of three at once."""
    live, side = LiveLists(worker.settings), worker.users
    copies = [
        Copy(user, user, 0, side, side.lookup.moment(), side.lookup.find(user) or side.lookup.new())
        for user in ("u1", "u2", "nobody")
    ]
    wanted = [ListRequest(10, None, NOW, [], None, worker.settings.explain)] * 3
    for some in (copies[:1], copies[2:], copies):
        assert len(live.make_all(some, wanted[: len(some)])) == len(some)


def main() -> None:
    """Run."""
    root, version, folder = sys.argv[1:]
    worker = WorkerState(Path(folder), artifacts=root, data_dir=Path(folder) / "data")

    def warm(serving: Serving) -> None:
        warm_up(serving, worker.context.kinds, worker.settings.k)

    feed: Any = Feed()
    keeper: Any = ArtifactKeeper(worker.settings, lambda view: feed, worker.metrics, warm)
    serving = make_serving(load_artifact(worker.settings), worker.settings)
    warm(serving)
    keeper.use(serving)
    worker.keeper = keeper
    worker.context = replace(worker.context, keeper=keeper)
    worker.restart()
    worker.send(*chunk(0))
    set_latest(root, version)
    asyncio.run(keeper.refresh())
    assert keeper.current.version == version
    worker.rows.states.head["basis"][0] = 1  # as of another basis
    before = compiled()
    for number in range(1, 4):
        worker.send(*chunk(number))
    join = _events(keeper.current, worker.context.kinds).take(np.zeros(1, np.int64))
    assert keeper.current.recommender.join(worker.rows, 0, 1, join) is not None
    answer_requests(worker)
    learning: Any = worker.users._learning
    found = {name: part.steps for name, part in learning._learner.progress.items()}
    told = json.dumps({"compiled": sorted(compiled() - before), "steps": found})
    sys.stdout.write(told)
    worker.close()


if __name__ == "__main__":
    main()
