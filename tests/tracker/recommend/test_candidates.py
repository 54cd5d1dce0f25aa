"""Candidates: quotas, order, what is seen, and who brought a neighbour."""

from collections import Counter

import msgspec
import numpy as np

from tests.worlds import START, World, likes
from tracker.recommend.candidates import Candidates, find_candidates
from tracker.recommend.channels import CHANNELS
from tracker.recommend.options import RecommendOptions
from tracker.recommend.plan import Plan
from tracker.recommend.reader import SearchResults
from tracker.recommend.source_places import SOURCES, source_places
from tracker.scoring.blend import Blend
from tracker.scoring.retrieval import Retrieval
from tracker.users.readings import interest_queries, read_histories
from tracker.users.rows import RequestBatch


def candidates_of(
    world: World,
    user: int,
    *,
    quotas: tuple[int, int, int, int, int] = (6, 4, 4, 4, 0),
    wished: tuple[int, ...] = (),
    capacity: int = 18,
    k: int = 5,
    keep_seen: bool = False,
    scene: int = 0,
) -> Candidates:
    content, recent, neighbours, trend, encoder = quotas
    lists = {"mixed": trend // 4, "new": trend // 4}
    retrieval = Retrieval(content, recent, neighbours, trend // 2, encoder, lists, reserve=0)
    requests, results = asked(world, user, wished, scene)
    options = options_of(retrieval, capacity, keep_seen)
    plan = Plan.of(options, Blend())
    return find_candidates(results, requests, min(k, capacity), plan, world.items, world.view)


def options_of(retrieval: Retrieval, capacity: int, keep_seen: bool = False) -> RecommendOptions:
    return RecommendOptions(
        candidates=capacity, cut=min(capacity, 32), retrieval=retrieval,
        seen="keep" if keep_seen else "demote",
        recent_events=5, neighbour_events=8, neighbour_width=64,
    )  # fmt: skip


def asked(
    world: World, user: int, wished: tuple[int, ...] = (), scene: int = 0
) -> tuple[RequestBatch, SearchResults]:
    requests = RequestBatch(
        world.users, np.array([user]), np.array([START + 100.0]), np.array([scene], np.uint32)
    )
    histories = read_histories(requests, world.items)
    vectors, owners, masses = interest_queries(histories, 2)
    rows = np.full((0, 1), -1, np.int64)
    if len(vectors):
        rows, _ = world.artifact.index.search(vectors, 12)
    encoder_rows = np.array([wished], np.int64).reshape(1, -1)
    results = SearchResults(
        histories, owners, masses, rows, np.zeros((1, 0), np.float32), encoder_rows,
        np.full((1, 0), -1, np.int32), None,
    )  # fmt: skip
    return requests, results


def channels_of(made: Candidates) -> Counter[str]:
    return Counter(CHANNELS[c] for c in made.channels[0, : made.n_rows[0]])


def rows_of(made: Candidates, channel: str) -> list[int]:
    count = made.n_rows[0]
    chosen = made.channels[0, :count] == CHANNELS.index(channel)
    return made.rows[0, :count][chosen].tolist()  # type: ignore[no-any-return]


def world_of_all_channels() -> World:
    world = World(80, groups=4)
    for user in range(1, 4):
        world.send(*likes(user, [0, 41, 42, 43]))
    for user in range(4, 8):
        world.send(*likes(user, [70, 71, 75, 79], time=START + 10.0))
    world.send(*likes(0, [4, 0]))
    return world


def test_each_channel_gives_up_to_its_quota_of_unique_unseen_rows() -> None:
    made = candidates_of(world_of_all_channels(), 0)
    rows = made.rows[0, : made.n_rows[0]].tolist()
    assert len(set(rows)) == len(rows) == 18
    assert not {0, 4} & set(rows)
    counts = channels_of(made)
    assert counts["recent"] == 4
    assert counts["neighbours"] == 3
    assert rows_of(made, "neighbours") == [41, 42, 43]
    assert counts["trend"] >= 4
    assert set(rows_of(made, "trend")[:4]) == {70, 71, 75, 79}
    assert counts["content"] >= 6


def test_what_is_new_has_half_of_the_quota_of_what_trends() -> None:
    world = World(80, groups=4)
    for user in range(1, 7):
        world.send(*likes(user, [75, 74, 71, 70]))
    for late, row in enumerate([40, 41, 42, 43]):
        world.send(*likes(7, [row], time=START + 20.0 + late))
    made = candidates_of(world, 0, quotas=(0, 0, 0, 4, 0), capacity=4)
    assert rows_of(made, "trend") == [70, 43, 71, 42]


def test_who_has_seen_the_first_eighty_of_the_trend_is_offered_the_next() -> None:
    world = World(120, groups=4)
    world.send(*likes(2, list(range(80, 100)), time=START - 5.0))
    for user in (0, 1):
        world.send(*likes(user, list(range(80))))
    made = candidates_of(world, 0, quotas=(0, 0, 0, 8, 0), capacity=8)
    trend = rows_of(made, "trend")
    assert len(trend) == 8
    assert set(trend) < set(range(80, 100))


def test_in_a_scene_half_of_the_trend_is_its_own_and_a_quarter_is_new() -> None:
    world = World(80, groups=4)
    for user in range(1, 7):
        world.send(*likes(user, [75, 74, 71, 70]))
        world.send(*likes(user, [24, 21, 20], scene="cart"))
    for late, row in enumerate([40, 41, 42, 43]):
        world.send(*likes(7, [row], time=START + 20.0 + late))
    scene = int(world.view.columns.scenes[20, 0])
    made = candidates_of(world, 0, quotas=(0, 0, 0, 4, 0), capacity=4, scene=scene)
    assert rows_of(made, "trend") == [20, 70, 43, 21]


def test_the_content_quota_is_shared_among_interests_by_mass() -> None:
    world = World(80, groups=4)
    world.send(*likes(0, [0, 4, 8]), *likes(0, [1]))
    made = candidates_of(world, 0, quotas=(8, 0, 0, 0, 0), capacity=8)
    groups = Counter(row % 4 for row in rows_of(made, "content"))
    assert groups == {0: 6, 1: 2}


def test_room_that_is_left_goes_to_content_beyond_its_quota() -> None:
    world = World(80, groups=4)
    world.send(*likes(0, [0]))
    made = candidates_of(world, 0, quotas=(2, 0, 2, 2, 0), capacity=10, k=3)
    assert channels_of(made)["content"] == 10


def test_without_history_the_trend_fills_the_list_and_then_catalogue_order() -> None:
    world = World(20)
    world.send(*likes(1, [7, 9]))
    made = candidates_of(world, -1, k=5)
    assert set(rows_of(made, "trend")) == {7, 9}
    assert rows_of(made, "default") == [0, 1, 2]


def test_seen_rows_stand_behind_the_unseen_and_only_when_those_are_too_few() -> None:
    world = World(8)
    world.send(*likes(0, [0, 1, 2, 3]))
    enough = candidates_of(world, 0, k=4)
    assert enough.n_rows[0] == enough.n_unseen[0] == 4
    short = candidates_of(world, 0, k=6)
    assert short.n_unseen[0] == 4
    assert set(short.rows[0, 4:8].tolist()) == {0, 1, 2, 3}
    assert rows_of(short, "seen") == short.rows[0, 4:8].tolist()


def test_with_seen_kept_seen_rows_are_candidates_like_others() -> None:
    world = World(8)
    world.send(*likes(0, [0, 1, 2, 3]))
    made = candidates_of(world, 0, k=6, keep_seen=True)
    assert made.n_unseen[0] == made.n_rows[0] == 8


def test_neighbours_tell_the_item_that_brought_them() -> None:
    made = candidates_of(world_of_all_channels(), 0)
    for place in np.flatnonzero(made.channels[0] == CHANNELS.index("neighbours")):
        assert made.via[0, place] == 0
        assert made.walk_sums[0, place, 1] > 0.0


def test_lists_of_neighbours_are_strongest_first_so_that_few_entries_do() -> None:
    world = World(80, groups=4)
    for user in range(1, 7):
        world.send(*likes(user, [0, 41, 42, 43][: 1 + user // 2]))
        world.send(*likes(user, [0], time=START + 100))
    view = world.view
    for rows, counts, n in (view.neighbours.before, view.neighbours.after):
        assert n[0] == 3
        assert rows[0, :3].tolist() == [41, 42, 43]
        assert (np.diff(counts[0, :3, 0]) <= 0).all()


def test_quotas_give_the_rows_whose_place_in_a_source_is_within_them() -> None:
    world = world_of_all_channels()
    requests, results = asked(world, 0)
    for source, quotas in (
        ("content", {"content": 7}),
        ("recent", {"recent": 5}),
        ("neighbours", {"neighbours": 2}),
        ("trend_1", {"lists": {"trend_1": 3}}),
    ):
        nothing = Retrieval(0, 0, 0, 0, 0, {}, reserve=0)
        retrieval = msgspec.structs.replace(nothing, **quotas)
        options = options_of(retrieval, retrieval.rows)
        made = find_candidates(
            results, requests, 1, Plan.of(options, Blend()), world.items, world.view
        )
        rows, places = source_places(results, requests, options, 40, 80, world.items, world.view)
        own = places[0, :, SOURCES.index(source)]
        within = rows[0, (own >= 0) & (own < retrieval.rows)].tolist()
        assert sorted(within) == sorted(made.rows[0, : made.n_rows[0]].tolist()), source


def test_places_are_of_unseen_rows_only_and_each_row_stands_there_once() -> None:
    world = world_of_all_channels()
    requests, results = asked(world, 0, wished=(50, 4, 51))
    options = options_of(Retrieval(reserve=0), 88)
    rows, places = source_places(results, requests, options, 40, 80, world.items, world.view)
    offered = rows[0, rows[0] >= 0].tolist()
    assert len(offered) == len(set(offered))
    assert not {0, 4} & set(offered)
    wish = places[0, : len(offered), SOURCES.index("encoder")]
    assert {row: int(p) for row, p in zip(offered, wish, strict=True) if p >= 0} == {50: 0, 51: 1}
    few, _ = source_places(results, requests, options, 40, 5, world.items, world.view)
    assert len(set(few[0].tolist())) == 5


def test_what_has_no_quota_gets_none_of_the_room_that_is_left() -> None:
    world = world_of_all_channels()
    requests, results = asked(world, 0)
    retrieval = Retrieval(0, 0, 2, 0, 0, {"trend_1": 2}, reserve=0)
    options = options_of(retrieval, 40)
    made = find_candidates(results, requests, 1, Plan.of(options, Blend()), world.items, world.view)
    assert set(channels_of(made)) == {"neighbours", "trend"}


def test_who_has_seen_more_items_than_there_are_marks_gets_the_seen_ones() -> None:
    world = World(300, groups=4, ring=4, ring_evict=2)
    world.send(*likes(0, list(range(300))))
    made = candidates_of(world, 0)
    assert made.n_unseen[0] == 0
    assert len(set(rows_of(made, "seen"))) == made.n_rows[0] == 18


def test_who_has_seen_all_that_the_channels_offer_gets_the_other_items_of_the_catalogue() -> None:
    world = World(600, groups=4, ring=4, ring_evict=2)
    world.send(*likes(1, list(range(300)), time=START - 600.0))
    world.send(*likes(2, list(range(300)), time=START - 600.0))
    world.send(*likes(0, list(range(590))))
    made = candidates_of(world, 0)
    assert made.n_unseen[0] >= 5
    assert set(made.rows[0, : made.n_unseen[0]].tolist()) <= set(range(590, 600))
