"""Live lists: those that are made in one call are those that are made one by one."""

import asyncio
import gc
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.plane_world import NOW, WorkerState, small_artifact
from tests.tracker.stream.test_small_chunks import USERS, some_events, workers
from tracker.api.items import Items
from tracker.api.lists import ListMaker, ListRequest, list_answer
from tracker.api.live_lists import MOST_AT_ONCE, MOST_ITEMS, LiveLists
from tracker.api.messages import ListAnswer
from tracker.api.problems import ProblemError
from tracker.api.reads import MOST_WAITING, Copy
from tracker.recommend.options import LearnedModels
from tracker.scoring.calibration import Calibration
from tracker.settings import load_settings
from tracker.stream.serving import make_serving


def copy_of(worker: WorkerState, user: str) -> Copy:
    """Copy a user as `Reads` does."""
    side = worker.users
    moment = side.lookup.moment()
    return Copy(
        user, user, worker.partition, side, moment, side.lookup.find(user) or side.lookup.new()
    )


def wanted(scene: str | None = None, k: int = 10, now: float = NOW, **more: Any) -> ListRequest:
    """Return a request for a list as `Users` makes it."""
    plain = ListRequest(k, scene, now, [], None, "reasons")
    return replace(plain, **more)


def alone(copy: Copy, list_request: ListRequest) -> ListAnswer:
    """Make a list as one that has wishes is made."""
    moment = copy.moment
    steps = ListMaker().make(
        moment.serving, moment.learned, copy.user.rows, copy.user.slot, copy.name, list_request
    )
    return list_answer(copy, list_request, *steps)


@pytest.mark.parametrize("explain", ["off", "reasons", "parts"])
def test_lists_of_one_call_are_those_made_one_by_one(tmp_path: Path, explain: str) -> None:
    random = np.random.default_rng(5)
    with workers(tmp_path, explain=explain) as parts:
        live = LiveLists(parts[0].settings)
        told = 0
        for chunk in range(25):
            for part in parts:
                part.send(*some_events(random, part.partition, chunk))
            places = random.integers(0, [[len(parts)], [USERS + 1]], (2, random.integers(1, 9)))
            copies = [copy_of(parts[n], f"p{n}-u{user}") for n, user in places.T.tolist()]
            asked = [
                wanted(str(scene), 5 + chunk % 2, NOW + chunk, explain=explain)
                for scene in random.choice(["home", "search", "new"], len(copies))
            ]
            answers = live.make_all(copies, asked)
            assert answers == [alone(*one) for one in zip(copies, asked, strict=True)]
            told += sum(len(item.because) for answer in answers for item in answer.items)
        assert bool(told) == (explain != "off")


def test_only_a_list_like_those_of_the_stream_is_made_so(tmp_path: Path) -> None:
    with workers(tmp_path) as parts:
        live = LiveLists(parts[0].settings)
        assert live.takes(wanted("cart", MOST_ITEMS))
        assert not live.takes(wanted(k=MOST_ITEMS + 1))
        others: list[dict[str, Any]] = [
            {"exclude": ["i1"]},
            {"diversity": 0.3},
            {"explain": "parts"},
        ]
        for other in others:
            assert not live.takes(wanted(**other))
    with workers(tmp_path / "long", k=MOST_ITEMS + 1) as parts:
        assert LiveLists(parts[0].settings).takes(wanted(k=MOST_ITEMS + 1))


def test_the_first_is_made_at_once_and_those_that_wait_together_by_length_models_and_bound(
    tmp_path: Path,
) -> None:
    with workers(tmp_path) as parts:
        live = LiveLists(parts[0].settings)
        sizes: list[int] = []
        make_all = live.make_all

        def counted(copies: list[Copy], asked: list[ListRequest]) -> list[ListAnswer]:
            sizes.append(len(copies))
            return make_all(copies, asked)

        live.make_all = counted  # type: ignore[method-assign,assignment]
        copy = copy_of(parts[0], "somebody")
        learned = replace(
            copy.moment, learned=LearnedModels(calibration=Calibration(1.0, 0.0, 1.0, 0.0))
        )
        copies = [copy] * (MOST_AT_ONCE + 3) + [replace(copy, moment=learned)]

        async def ask() -> list[ListAnswer]:
            tasks = [asyncio.create_task(live.make(one, wanted(k=5))) for one in copies]
            tasks.append(asyncio.create_task(live.make(copy, wanted(k=6))))
            gone = asyncio.create_task(live.make(copy, wanted(k=7)))
            await asyncio.sleep(0)
            gone.cancel()
            return await asyncio.gather(*tasks)

        answers = asyncio.run(ask())
        assert sizes == [1, MOST_AT_ONCE, 2, 1, 1]
        assert [len(answer.items) for answer in answers] == [5] * len(copies) + [6]


def test_a_bug_is_told_to_those_whose_lists_it_ends_and_too_many_are_refused(
    tmp_path: Path,
) -> None:
    with workers(tmp_path) as parts:
        live = LiveLists(parts[0].settings)
        copy = copy_of(parts[0], "somebody")
        broken = replace(copy, moment=replace(copy.moment, serving=None))  # type: ignore[arg-type]

        async def ask() -> list[ListAnswer | BaseException]:
            some = [broken, *[copy] * (MOST_WAITING + 1)]
            return await asyncio.gather(
                *(live.make(one, wanted()) for one in some), return_exceptions=True
            )

        first, *others, last = asyncio.run(ask())
        assert isinstance(first, AttributeError)
        assert all(isinstance(one, ListAnswer) for one in others)
        assert isinstance(last, ProblemError)
        assert last.status == 429


def test_one_that_comes_when_no_other_was_made_in_this_turn_does_not_wait(tmp_path: Path) -> None:
    with workers(tmp_path) as parts:
        live = LiveLists(parts[0].settings)
        copy = copy_of(parts[0], "somebody")

        async def ask() -> None:
            for _ in range(2):
                with pytest.raises(StopIteration):
                    live.make(copy, wanted()).send(None)
                await asyncio.sleep(0)  # the turn is over
                await asyncio.sleep(0)

        asyncio.run(ask())


def test_no_artifact_stays_in_memory_for_those_who_asked_before(tmp_path: Path) -> None:
    host: Any = SimpleNamespace(context=SimpleNamespace(keeper=SimpleNamespace(current=None)))
    reads: Any = SimpleNamespace(run=asyncio.to_thread, now=lambda: NOW)
    items, lists = Items(host, reads), ListMaker()
    settings = load_settings({}, data_dir=str(tmp_path))
    serving = make_serving(small_artifact(), settings)
    keeper = host.context.keeper
    keeper.current = serving
    query: Any = SimpleNamespace(q="i1", k=5)
    assert asyncio.run(items.search(SimpleNamespace(query=query))).items  # type: ignore[arg-type]
    assert asyncio.run(items.map(SimpleNamespace(query=query))).items  # type: ignore[arg-type]
    lists.recommender(serving, None, "off")
    counts = weakref.ref(serving.view.columns.counts)
    keeper.current = make_serving(small_artifact(), settings)
    del serving
    gc.collect()
    assert counts() is None
