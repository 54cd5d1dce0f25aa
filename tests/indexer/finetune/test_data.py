"""Pairs, parts and pasts that a text encoder is fine-tuned by."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.data.catalog import Item
from indexer.data.histories import EventLog, split
from indexer.finetune.data import (
    NEAR_SECONDS,
    RUN_EVENTS,
    Choices,
    Texts,
    part,
    pasts,
    rows_of,
    runs_of,
    shuffled_runs,
)
from tests.logs import group_events, read_events


def log_of(folder: Path, lines: list[tuple[str, str, float, str]]) -> EventLog:
    events = [
        {"user_id": user, "item_id": item, "kind": kind, "timestamp": 1.7e9 + time}
        for user, item, time, kind in lines
    ]
    return read_events(folder, events)


def choices(users: list[int], texts: list[int], times: list[float] | None = None) -> Choices:
    moments = [60.0 * n for n in range(len(users))] if times is None else times
    return Choices(np.array(users), np.array(texts), np.array(moments), np.full(10, 0.1))


def test_items_of_the_same_text_are_one_text() -> None:
    texts = Texts.of([Item("a", text="red"), Item("b", text="blue"), Item("c", title="red")])
    assert texts.texts == ["red", "blue"]
    assert texts.of_item.tolist() == [0, 1, 0]


def test_rows_are_places_in_the_catalogue(tmp_path: Path) -> None:
    log = log_of(tmp_path, [("u", "b", 0, "like"), ("u", "x", 1, "like"), ("u", "a", 2, "like")])
    assert rows_of(log, [Item("a", text="a"), Item("b", text="b")]).tolist() == [1, -1, 0]


def test_only_positive_events_of_known_texts_are_choices(tmp_path: Path) -> None:
    lines = [
        ("u", "a", 0.0, "like"), ("v", "b", 1.0, "like"), ("u", "b", 2.0, "dislike"),
        ("u", "c", 3.0, "like"), ("u", "a", 4.0, "impression"), ("u", "d", 5.0, "like"),
    ]  # fmt: skip
    log = log_of(tmp_path, lines)
    texts = np.array([0, 1, 1, -1, 0, 2])
    found = Choices.of(log, texts, 4, np.arange(6) < 5)
    assert found.users.tolist() == [0, 1]
    assert found.texts.tolist() == [0, 1]
    assert found.frequency.tolist() == [0.5, 0.5, 0.0, 0.0]


def test_pairs_are_near_of_one_user_and_of_different_texts() -> None:
    found = choices([0, 0, 0, 1, 1], [1, 1, 2, 1, 2])
    first, second, weights = found.pairs(np.arange(5))
    assert list(zip(first, second, weights, strict=True)) == [(1, 2, 1.0), (3, 4, 1.0), (0, 2, 0.8)]
    assert len(found.pairs(np.array([0, 3]))[0]) == 0
    assert len(found.pairs(np.zeros(0, np.int64))[0]) == 0
    apart = choices([0, 0], [1, 2], [0.0, NEAR_SECONDS + 1.0])
    assert len(apart.pairs(np.arange(2))[0]) == 0


def test_a_long_history_is_cut_into_runs_that_cover_it() -> None:
    users = np.array([0] * 50 + [1] + [2] * 3)
    runs = runs_of(users, np.random.default_rng(0), 1)
    places = np.concatenate([np.arange(*run) for run in runs])
    assert places.tolist() == list(range(54))
    assert max(b - a for a, b in runs) <= RUN_EVENTS
    assert all(len(set(users[a:b])) == 1 for a, b in runs)
    assert (50, 51) not in runs_of(users, np.random.default_rng(0), 2)


def test_batches_take_every_run_once_and_are_in_order() -> None:
    runs = [(n * 4, n * 4 + 4) for n in range(10)]
    made = list(shuffled_runs(runs, 12, np.random.default_rng(0)))
    assert [len(batch) for batch in made] == [12, 12, 12, 4]
    assert sorted(np.concatenate(made).tolist()) == list(range(40))
    assert all((np.diff(batch) > 0).all() for batch in made)


@pytest.mark.parametrize("until", ["gts", "loo", "all"])
def test_nothing_that_is_left_out_is_learned_from_or_seen(tmp_path: Path, until: Any) -> None:
    log = read_events(tmp_path, group_events(users=20, each=10))
    parts = part(log, until)
    assert not (parts.train & parts.validation).any()
    assert not (parts.train & ~parts.seen).any()
    if until == "all":
        assert parts.seen.all()
        return
    found = split(log, until)
    assert not parts.seen[found.test].any()
    assert np.flatnonzero(parts.validation).tolist() == found.validation.tolist()


def test_a_past_is_what_the_user_did_before_latest_first(tmp_path: Path) -> None:
    lines = [("u", "a", 0.0, "like"), ("v", "a", 1.0, "like"), ("u", "b", 2.0, "like"),
             ("u", "c", 3.0, "like"), ("u", "d", 4.0, "like"), ("v", "b", 5.0, "like")]  # fmt: skip
    log = log_of(tmp_path, lines)
    codes = np.array([0, 0, 1, 2, 3, 1])
    seen = np.array([True, True, True, False, True, True])
    found = pasts(log, codes, np.array([0, 4, 5]), seen, 5)
    assert [past.tolist() for past in found] == [[], [1, 0], [0]]
    assert pasts(log, codes, np.array([4]), seen, 1)[0].tolist() == [1]
