"""Items of interests: known ones of the interest's most typical item, or by the index."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.items.index import IndexChoice, build_index, searched_rows
from tests.tracker.recommend.test_recommender import same
from tests.worlds import DAY, START, World, likes
from tracker.artifact.artifact import Artifact
from tracker.items.index import ItemIndex, Scores
from tracker.items.search_memory import SearchMemory
from tracker.items.vectors import NEAREST, Rows, Vectors
from tracker.recommend.interest_search import NEAR_COSINE, search_interests
from tracker.recommend.options import RecommendOptions
from tracker.recommend.recommender import Recommender
from tracker.users.readings import interest_queries, read_histories
from tracker.users.rows import RequestBatch

USERS, FOUND = 8, 40


class CountingIndex(ItemIndex):
    """Counts the queries that it is asked for."""

    queries = 0

    def search(self, queries: Vectors, k: int, threads: int = 1) -> tuple[Rows, Scores]:
        self.queries += len(queries)
        return super().search(queries, k, threads)


class ForgetfulIndex(CountingIndex):
    """Remembers nothing, and searches for one query at a time."""

    def remembered_rows(self, queries: Vectors, k: int) -> Rows:
        parts = [self.search(queries[i : i + 1], k)[0] for i in range(len(queries))]
        return np.concatenate([np.zeros((0, k), np.int64), *parts])


def world_of(kind: IndexChoice = "flat", items: int = 300) -> tuple[World, Artifact, CountingIndex]:
    """Return users with interests of one item, and of several like ones."""
    world = World(items)
    vectors = np.asarray(world.items.vectors)
    built, _ = build_index(vectors, 0.9, kind)
    index = CountingIndex(built._cpu)
    known = replace(world.items, nearest=searched_rows(vectors, index))
    index.queries = 0
    for user in range(USERS):
        world.send(*likes(user, [user + 12 * number for number in range(1 + 3 * (user % 4))]))
    return world, replace(world.artifact, vectors=known, index=index), index


def searched(
    world: World, artifact: Artifact, searches: int = 2, found: int = FOUND
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the queries of all users, and the rows found for each."""
    users = np.arange(USERS)
    now = np.full(USERS, START + 100.0)
    requests = RequestBatch(world.users, users, now, np.zeros(USERS, np.uint32))
    histories = read_histories(requests, artifact.vectors)
    queries, owners, masses = interest_queries(histories, searches)
    same, strengths, rows = search_interests(histories, requests, searches, found, artifact)
    np.testing.assert_array_equal(same, owners)
    np.testing.assert_array_equal(strengths, masses)
    return queries, rows


@pytest.mark.parametrize(("kind", "items"), [("flat", 300), ("pq_fastscan", 1200)])
def test_interests_of_one_item_find_what_the_index_finds_for_it_without_a_search(
    kind: IndexChoice, items: int
) -> None:
    world, artifact, index = world_of(kind, items)
    queries, rows = searched(world, artifact)
    asked = index.queries
    vectors = np.asarray(artifact.vectors.vectors)
    of_one_item = (queries @ vectors.T).max(axis=1) > 1.0 - 1e-6
    assert 2 <= of_one_item.sum() <= len(queries) - asked
    expected, _ = artifact.index.search(queries[of_one_item], FOUND)
    np.testing.assert_array_equal(rows[of_one_item], expected)


def test_only_interests_far_from_their_item_are_searched_for() -> None:
    world, artifact, index = world_of()
    queries, rows = searched(world, artifact)
    asked = index.queries
    exact, _ = artifact.index.search(queries, FOUND)
    assert 0 < asked < len(queries)
    cosines = (queries @ np.asarray(artifact.vectors.vectors).T).max(axis=1)
    far = cosines < NEAR_COSINE
    assert far.sum() <= asked
    np.testing.assert_array_equal(rows[far], exact[far])
    shared = [len(set(a) & set(b)) / FOUND for a, b in zip(rows, exact, strict=True)]
    assert min(shared) > 0.7  # noise in all directions is the worst case


@pytest.mark.parametrize(("kind", "items"), [("flat", 300), ("pq_fastscan", 1200)])
@pytest.mark.parametrize("max_bytes", [1, 5000, 1 << 20])
def test_lists_are_the_same_with_and_without_a_memory_of_searches(
    kind: IndexChoice, items: int, max_bytes: int
) -> None:
    world, first, _ = world_of(kind, items)
    other = np.ascontiguousarray(np.asarray(first.vectors.vectors)[::-1])
    second = replace(
        first,
        vectors=replace(first.vectors, vectors=other),
        index=build_index(other, 0.9, kind)[0],
    )
    options = RecommendOptions(explain="parts")
    pairs, found = [], []
    for artifact in (first, second):
        index, plain = CountingIndex(artifact.index._cpu), ForgetfulIndex(artifact.index._cpu)
        index._memory = SearchMemory(max_bytes)
        with_memory, without = replace(artifact, index=index), replace(artifact, index=plain)
        pairs.append([Recommender(one, world.view, options) for one in (with_memory, without)])
        found.append((index, plain))
    random = np.random.default_rng(items + max_bytes)
    for turn in range(60):
        user = int(random.integers(USERS))
        chosen = random.integers(0, items, random.integers(1, 4)).tolist()
        world.send(*likes(user, chosen, time=START + 60.0 * turn))
        some = np.unique(random.integers(0, USERS, random.integers(1, 6)))
        now = np.full(len(some), START + DAY + 60.0 * turn)
        requests = RequestBatch(world.users, some, now, np.zeros(len(some), np.uint32))
        one, other_one = (
            recommender.recommend(requests, 10) for recommender in pairs[turn // 10 % 2]
        )
        assert same(one, other_one)
    for index, plain in found:
        assert 0 < index.queries < plain.queries or max_bytes == 1


def test_known_items_of_a_like_interest_are_ranked_by_their_match_with_it() -> None:
    world, artifact, _ = world_of()
    queries, rows = searched(world, artifact)
    scores = np.take_along_axis(queries @ np.asarray(artifact.vectors.vectors).T, rows, axis=1)
    assert (np.diff(scores, axis=1) <= 1e-6).all()


def test_without_known_items_the_index_is_searched_for_all() -> None:
    world, artifact, index = world_of()
    unknown = replace(artifact.vectors, nearest=np.zeros((300, 0), np.int32))
    queries, rows = searched(world, replace(artifact, vectors=unknown))
    assert index.queries == len(queries)
    expected, _ = artifact.index.search(queries, FOUND)
    np.testing.assert_array_equal(rows, expected)


def test_more_items_than_are_known_are_searched_for() -> None:
    world, artifact, index = world_of()
    queries, rows = searched(world, artifact, found=NEAREST + 1)
    assert index.queries == len(queries)
    assert rows.shape == (len(queries), NEAREST + 1)


def test_without_searches_nothing_is_found() -> None:
    world, artifact, index = world_of()
    queries, rows = searched(world, artifact, searches=0)
    assert len(queries) == 0
    assert rows.shape == (0, 1)
    assert index.queries == 0


def test_items_without_text_find_nothing() -> None:
    vectors = np.eye(5, 4, dtype=np.float32)
    index = ItemIndex.flat(vectors[:4])
    found = searched_rows(vectors, index)
    assert found.shape == (5, NEAREST)
    assert found[4].tolist() == [-1] * NEAREST
    assert found[:4, 0].tolist() == [0, 1, 2, 3]
    assert (found[:4, 4:] == -1).all()
