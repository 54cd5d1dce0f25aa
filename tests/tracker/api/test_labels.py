"""Labels of a user's interests are distinct, and stay from event to event."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from tests.worlds import START, World, likes
from tracker.api.labels import Labels
from tracker.artifact.manifest import LAYOUT


def labels(world: World, folder: Path, texts: list[str] | None) -> list[str]:
    if texts is not None:
        (folder / LAYOUT.texts).write_bytes(msgspec.json.encode(texts))
    artifact = replace(world.artifact, path=folder)
    strengths = np.arange(8, 0, -1).astype(np.float32)
    return Labels(artifact).of(world.states, 0, strengths)


def two_interests() -> World:
    """Give a user two interests whose most typical items have the same label."""
    world = World(users=1)
    world.send(*likes(0, [0, 2]), *likes(0, [1, 3], time=START + 9.0))
    states = world.states
    assert states.head[0]["n_slots"] == 2
    world.items.label_codes[:] = 0
    return world


def test_a_label_that_two_interests_have_gets_a_word_that_tells_them_apart(tmp_path: Path) -> None:
    world = two_interests()
    texts = [
        f"running {'shoes' if number % 2 else 'socks'} n" for number in range(len(world.items))
    ]
    first, second = labels(world, tmp_path, texts)
    assert first == "group 0"
    assert second == "group 0: shoes"
    world.send(*likes(0, [5], time=START + 20.0))
    assert labels(world, tmp_path, texts) == [first, second]


def test_without_texts_labels_are_distinct_too(tmp_path: Path) -> None:
    world = two_interests()
    found = labels(world, tmp_path, None)
    assert len(set(found)) == 2
    assert found[0] == "group 0"


def test_interests_of_different_labels_keep_them(tmp_path: Path) -> None:
    world = World(users=1)
    world.send(*likes(0, [0, 2]), *likes(0, [1, 3], time=START + 9.0))
    assert labels(world, tmp_path, None) == ["group 0", "group 1"]
