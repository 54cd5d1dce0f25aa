"""Labels of a user's interests are distinct, and stay from event to event."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds import START, World, likes
from tracker.recommend import labels as module
from tracker.recommend.labels import MOST_BYTES, Words
from tracker.recommend.list_json import interest_names
from tracker.users.readings import describe_interests, read_histories

WORDS = ("red", "tea", "socks", "shoes", "Socks", "trail")


def names(
    table: list[str], texts: list[str], codes: list[int], medoids: list[int], births: list[int]
) -> list[str]:
    words = Words(table, texts)
    spans = words.spans(
        np.array([codes], np.int32), np.array([medoids]), np.array([births], np.int64)
    )
    return [
        words.name(code, *span)
        for code, span, birth in zip(codes, spans[0].tolist(), births, strict=True)
        if birth >= 0
    ]


def test_a_label_that_two_interests_have_gets_a_word_that_tells_them_apart() -> None:
    texts = ["Running in socks", "The running shoes, mud", "tents"]
    assert names(["Running", "Camping"], texts, [0, 0, 1], [0, 1, 2], [0, 1, 2]) == [
        "Running", "Running: The", "Camping",
    ]  # fmt: skip


def test_a_word_that_the_other_item_has_does_not_tell_apart() -> None:
    texts = ["Trail Running socks", "trail running shoes"]
    assert names(["Running"], texts, [0, 0], [0, 1], [0, 1]) == ["Running", "Running: shoes"]


def test_the_interest_that_began_first_keeps_the_label_whichever_is_stronger() -> None:
    texts = ["socks", "shoes"]
    assert names(["Running"], texts, [0, 0], [0, 1], [0, 1]) == ["Running", "Running: shoes"]
    assert names(["Running"], texts, [0, 0], [1, 0], [1, 0]) == ["Running: shoes", "Running"]


def test_an_interest_without_a_label_is_named_by_a_word() -> None:
    texts = ["white socks", "white shoes", ""]
    assert names([], texts, [-1, -1, -1], [0, 1, 2], [0, 1, 2]) == ["white", "shoes", "? 3"]


def test_a_word_that_is_the_label_of_another_interest_is_no_name() -> None:
    texts = ["Running socks", "Running shoes"]
    assert names(["Running"], texts, [-1, 0], [0, 1], [0, 1]) == ["Running", "Running: shoes"]
    assert names(["Running"], texts, [-1, 0], [0, 1], [1, 0]) == ["socks", "Running"]


def test_equal_texts_are_told_apart_by_a_number() -> None:
    assert names(["Tea"], ["green", "green"], [0, 0], [0, 1], [0, 1]) == ["Tea", "Tea 2"]
    assert names(["Tea"], ["tea"], [0, 0], [0, -1], [0, 1]) == ["Tea", "Tea 2"]


def test_words_of_other_scripts_are_whole_characters_and_no_punctuation() -> None:
    texts = ["婴儿床", "（新款）跑步鞋跑步鞋跑步鞋，轻便", "«»— Кроссовки"]  # noqa: RUF001
    first, second, third = names([""], texts, [0, 0, 0], [0, 1, 2], [0, 1, 2])
    assert (first, second, third) == ("", "新款", "Кроссовки")
    long = names(["a"], ["", "跑" * 20], [0, 0], [0, 1], [0, 1])[1]
    assert long == "a: " + "跑" * (MOST_BYTES // 3)


@given(
    st.lists(st.tuples(st.integers(-1, 1), st.text(max_size=30)), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_interests_have_distinct_names_in_any_order(
    interests: list[tuple[int, str]], random: object
) -> None:
    codes, texts = [code for code, _ in interests], [text for _, text in interests]
    places = list(range(len(interests)))
    made = names(["red", "blue"], texts, codes, places, places)
    assert len(set(made)) == len(made)
    order = places.copy()
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = names(["red", "blue"], texts, [codes[i] for i in order], order, order)
    assert shuffled == [made[i] for i in order]


@given(
    st.lists(
        st.tuples(st.integers(-1, 1), st.lists(st.sampled_from(WORDS), max_size=4)),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_new_interest_never_renames_an_older_one(interests: list[tuple[int, list[str]]]) -> None:
    codes = [code for code, _ in interests]
    texts = [" ".join(words) for _, words in interests]
    births = list(range(len(interests)))
    for count in range(1, len(interests)):
        before = names(["red", "tea"], texts, codes[:count], births[:count], births[:count])
        after = names(
            ["red", "tea"], texts, codes[: count + 1], births[: count + 1], births[: count + 1]
        )
        assert after[:count] == before
        assert len(set(after)) == len(after)


def test_an_interest_in_the_place_of_another_one_is_the_youngest() -> None:
    """Rows keep interests in places; a place is taken again when its interest is dropped."""
    world = World(users=1)
    world.send(*likes(0, [0]), *likes(0, [1], time=START + 9.0))
    heads = world.users.states.interest_heads[0]
    heads["born"][:2] = [START + 500.0, START]  # the first place was taken again
    requests = world.asked([0], now=START + 600.0)
    histories = read_histories(requests, world.items)
    (_, _, places, births), _ = describe_interests(histories, requests, world.items)
    known = {int(place): int(birth) for place, birth in zip(places[0], births[0], strict=True)}
    assert (known[0], known[1]) == (1, 0)
    heads["born"][:2] = START  # as old as each other
    (_, _, places, births), _ = describe_interests(histories, requests, world.items)
    known = {int(place): int(birth) for place, birth in zip(places[0], births[0], strict=True)}
    assert (known[0], known[1]) == (0, 1)


def test_a_label_stays_from_event_to_event() -> None:
    world = World(users=1)
    world.send(*likes(0, [0, 2]), *likes(0, [1, 3], time=START + 9.0))
    world.items.label_codes[:] = 0
    texts = [f"{'shoes' if row % 2 else 'socks'} n" for row in range(len(world.items))]
    words = Words(world.items.labels, texts)
    seen = set()
    for number in range(6):
        world.send(*likes(0, [5 + number % 2, 5], time=START + 20.0 + number))
        batch = world.recommend([0], now=START + 40.0 + number)
        seen.add(frozenset(interest_names(batch, words)[0][:2]))
    assert seen == {frozenset({"group 0", "group 0: shoes"})}


def test_compiled_words_are_those_of_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["white socks", "（新款）shoes", "white shoes — “trail”"]  # noqa: RUF001
    arguments = (["Running"], texts, [0, 0, 0], [0, 1, 2], [0, 1, 2])
    expected = names(*arguments)
    for name, kernel in list(vars(module).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(module, name, kernel.py_func)
    assert names(*arguments) == expected
