"""JSON of recommendations against the objects they stand for."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from tracker.events.wire import Recommendation
from tracker.recommend.list_json import ListEncoder, _number, to_recommendations
from tracker.recommend.lists import Explanation, RecommendedBatch
from tracker.scoring.parts import GROUPS, GroupParts

ITEMS: Any = SimpleNamespace(
    ids=["plain", 'quoted "one"', "naïve ☕", "line\nbreak", "back\\slash"],
    labels=["Drama", 'Co"médy'],
)


WORDS = ListEncoder(ITEMS).words


def batch_of(rows: list[list[int]], scores: list[list[float]]) -> RecommendedBatch:
    users, k = len(rows), len(rows[0])
    because_rows = np.full((users, k, 3), -1, np.int64)
    because_rows[:, :, 0] = 1
    because_rows[:, 0, 1] = 2
    strengths = np.array([[0.7, 0.29996, 0.0]] * users, np.float32)
    return RecommendedBatch(
        rows=np.array(rows, np.int64),
        scores=np.array(scores, np.float32),
        channels=(np.arange(users * k).reshape(users, k) % 6).astype(np.uint8),
        because=np.zeros((users, k, 3), np.uint64),
        because_rows=because_rows,
        labels=np.array([[1, -1, -1]] * users, np.int32),
        strengths=strengths,
        changes=np.array([[0.25, -0.125, 0.0]] * users, np.float32),
        list_hash=np.zeros(users, np.uint64),
        probabilities=np.full((users, k), np.nan, np.float32),
    )


BATCH = batch_of(
    [[0, 1, 2], [4, 3, -1], [-1, -1, -1]], [[12345.678, -0.00004, 1e-4], [-3.0, 0.5, 0], [0, 0, 0]]
)
ARGUMENTS: Any = (
    "000001-x",
    ["events-0-1", "events-0-2", "events-1-99"],
    ["anna", 'b"ob', "zoë\n"],
    [1.7e9, 0.125, 5.0],
    ["home", None, "ca\nrt"],
    [3.25, 0.0, 1000.5],
    [1, 0, 1_700_000_000_000_123],
)


def test_encoded_lists_decode_to_the_recommendation_objects() -> None:
    encoded = ListEncoder(ITEMS).encode(BATCH, *ARGUMENTS)
    decoded = [msgspec.json.decode(record, type=Recommendation) for record in encoded]
    assert decoded == to_recommendations(BATCH, ITEMS, WORDS, *ARGUMENTS)


def test_probabilities_are_there_where_one_was_trained() -> None:
    chances = np.array([[0.25, 0.99996, np.nan]] * 3, np.float32)
    batch = replace(BATCH, probabilities=chances)
    encoded = ListEncoder(ITEMS).encode(batch, *ARGUMENTS)
    decoded = [msgspec.json.decode(record, type=Recommendation) for record in encoded]
    assert decoded == to_recommendations(batch, ITEMS, WORDS, *ARGUMENTS)
    assert [item.probability for item in decoded[0].items] == [0.25, 1.0, None]
    without = json.loads(ListEncoder(ITEMS).encode(BATCH, *ARGUMENTS)[0])
    assert "probability" not in without["items"][0]


def explained(parts: bool) -> RecommendedBatch:
    """Explain the lists of BATCH, with interests of the same label, or of none."""
    chance = np.random.default_rng(4)
    users, k = BATCH.rows.shape
    shares = chance.random((users, k, 5)).astype(np.float32)
    shares /= shares.sum(axis=2, keepdims=True)
    shares[0, 2] = 0.0
    groups = chance.normal(size=(users, k, len(GROUPS))).astype(np.float32)
    groups[:, :, 3] = 0.0
    told = Explanation(
        np.array([[1, 1, -1, 1]] * users, np.int32),
        np.array([[1, 2, -1, -1]] * users),
        np.array([[1, 0, 3, -1]] * users),
        np.array([[0, 1, -1], [2, 1, -1], [-1, -1, -1]]),
        shares[:, :, :3].copy(), shares[:, :, 3].copy(), shares[:, :, 4].copy(),
        np.zeros((users, k, 3)),
        GroupParts(groups[:, 0, 0].copy(), groups, groups[:, :, 1].copy()) if parts else None,
    )  # fmt: skip
    return replace(BATCH, explanation=told, labels=told.labels[:, :3].copy())


@pytest.mark.parametrize("parts", [False, True])
def test_encoded_explanations_decode_to_the_objects(parts: bool) -> None:
    batch = explained(parts)
    encoded = ListEncoder(ITEMS).encode(batch, *ARGUMENTS)
    decoded = [msgspec.json.decode(record, type=Recommendation) for record in encoded]
    assert decoded == to_recommendations(batch, ITEMS, WORDS, *ARGUMENTS)
    first, second = decoded[0].items[0], decoded[0].items[1]
    assert (first.interest, second.interest) == ('Co"médy: quoted', 'Co"médy')
    assert len(first.shares) == 2
    assert len(second.shares) == 1
    assert decoded[0].items[2].earlier is None
    assert decoded[1].items[0].interest == "? 1"
    assert (first.parts is not None) == parts
    if first.parts is not None:
        assert set(first.parts.groups) == set(GROUPS) - {GROUPS[3]}


def test_fields_are_those_of_the_recommendation() -> None:
    encoded = ListEncoder(ITEMS).encode(BATCH, *ARGUMENTS)[0]
    assert sorted(json.loads(encoded)) == sorted(Recommendation.__struct_fields__)


def test_reasons_labels_and_channels_are_named() -> None:
    first, second, third = to_recommendations(BATCH, ITEMS, WORDS, *ARGUMENTS)
    assert [item.item_id for item in first.items] == ["plain", 'quoted "one"', "naïve ☕"]
    assert first.items[0].because == ['quoted "one"', "naïve ☕"]
    assert first.items[1].because == ['quoted "one"']
    assert [item.channel for item in first.items] == ["content", "recent", "neighbours"]
    assert [interest.label for interest in first.interests] == ['Co"médy', ""]
    assert len(second.items) == 2
    assert third.items == []


def test_no_users_give_no_records() -> None:
    none = batch_of([[0]], [[0.0]])
    columns = [name for name in RecommendedBatch.__dataclass_fields__ if name != "explanation"]
    none = RecommendedBatch(**{name: getattr(none, name)[:0] for name in columns})
    assert ListEncoder(ITEMS).encode(none, "v", [], [], [], [], [], []) == []
    assert to_recommendations(none, ITEMS, WORDS, "v", [], [], [], [], [], []) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (1.0, "1.0"),
        (-1.5, "-1.5"),
        (10.25, "10.25"),
        (0.0001, "0.0001"),
        (0.00004, "0.0"),
        (-0.00004, "0.0"),
        (9.99996, "10.0"),
        (123456.0625, "123456.0625"),
        (1e30, "10000000000.0"),
        (-math.inf, "-10000000000.0"),
    ],
)
def test_numbers_are_json_with_four_decimals_at_most(value: float, text: str) -> None:
    for write in (_number, _number.py_func):  # type: ignore[attr-defined]
        buffer = np.zeros(18, np.uint8)
        end = write(buffer, 0, value)
        assert buffer[:end].tobytes().decode() == text
