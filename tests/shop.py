"""A shop for tests of whole workers: a catalogue without a model, and seeded events."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.data.catalog import Catalog, Item
from indexer.items.assemble import Built, build_artifact
from indexer.items.options import BuildOptions
from indexer.train.options import Trained, TrainOptions
from indexer.train.ranker import RankerOptions
from indexer.train.train import train
from tracker.artifact.manifest import EncoderInfo
from tracker.demo.processes import free_port
from tracker.events.kinds import Kinds
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event, hash_id
from tracker.settings import Settings, load_settings

WIDTH = 48
START = 1_750_000_000.0
SCENES = (None, "home", "search", "cart")
KINDS = (
    ("view", None),
    ("click", None),
    ("like", None),
    ("cart", None),
    ("purchase", 2.0),
    ("rate", 4.0),
    ("dwell", 45.0),
    ("dislike", None),
    ("hide", None),
)


class LetterEncoder:
    """Encodes a text as noise that its words decide: equal words, near vectors. No model."""

    info = EncoderInfo(
        name="letters", fingerprint="letters-1", width=WIDTH, max_tokens=64, pooling="mean"
    )

    def encode(self, texts: Sequence[str], progress: object | None = None) -> NDArray[np.float16]:
        found = np.zeros((len(texts), WIDTH), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                found[row] += np.random.default_rng(hash_id(word)).standard_normal(WIDTH)
        return found.astype(np.float16)


def shop_settings(brokers: str, name: str, folder: Path, **more: Any) -> Settings:
    """Return settings of a worker with `artifacts` and `data` in a folder, and a free web port."""
    settings: dict[str, Any] = {
        "artifacts": str(folder / "artifacts"),
        "data_dir": folder / "data",
        "web_port": free_port(),
        "event_partitions": 2,
        "item_partitions": 1,
    }
    return load_settings({}, brokers=brokers, name=name, **(settings | more))


def shop_items(count: int = 300, word: str = "thing") -> list[Item]:
    return [
        Item(
            f"i{number}",
            title=f"{word} number{number} of group{number % 12}",
            categories=[f"group{number % 12}"],
        )
        for number in range(count)
    ]


def build_shop(root: Path, items: list[Item] | None = None) -> Built:
    catalog = Catalog(items=items or shop_items())
    return build_artifact(catalog, LetterEncoder(), root, BuildOptions(dim=32))


def train_shop(root: Path, events: Path, items: list[Item] | None = None) -> Trained:
    """Train encoder, ranker and probabilities on events of other users, written to a file."""
    build_shop(root, items)
    lines = shop_events(6000, 300, seed=99)
    events.write_bytes(b"".join(line.value + b"\n" for line in lines))
    options = TrainOptions(ranker=RankerOptions(steps=300, max_epochs=4))
    catalog = Catalog(items=items or shop_items())
    return train(catalog, [events], Kinds.default(), LetterEncoder(), root, options, START + 1e6)


def shop_events(
    count: int, users: int, items: int = 300, seed: int = 0, unknown: float = 0.02
) -> list[Line]:
    """Seeded events: mixed kinds and scenes, late ones, repeats, retractions, unknown items.

    Users have taste (a group each), and some are much more active than others, so that rings
    overflow and items are kept as seen.
    """
    chance = random.Random(seed)
    lines: list[Line] = []
    given: dict[str, list[str]] = {}
    for number in range(count):
        user = f"u{chance.randrange(users if chance.random() < 0.8 else 1 + users // 100)}"
        time = START + number * 0.5 - (chance.random() * 3600 if chance.random() < 0.1 else 0.0)
        known = given.setdefault(user, [])
        lucky = chance.random()
        if known and lucky < 0.02:
            event = Event(user, retracts=chance.choice(known[-40:]), timestamp=time)
        else:
            item = f"i{chance.randrange(items)}"
            if chance.random() < 0.5:
                item = f"i{(chance.randrange(items // 12)) * 12 + hash_id(user) % 12}"
            if chance.random() < unknown:
                item = f"new{chance.randrange(20)}"
            kind, value = chance.choice(KINDS)
            event_id = f"e{number}"
            if known and lucky < 0.03:
                event_id = chance.choice(known[-10:])
            event = Event(
                user,
                item,
                kind,
                round(time, 3),
                scene=chance.choice(SCENES),
                value=value,
                event_id=event_id,
            )
            known.append(event_id)
        lines.append(Line(f"event {number}", encode_event(event)))
    return lines
