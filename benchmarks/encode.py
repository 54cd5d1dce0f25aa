"""Texts a second of the item encoder, beside sentence-transformers with the same model.

Both read the model of the extra `demo`, on the processor, with all its cores, and give the same
vectors. Texts are made up, of one to some sixty words. Runs are in turn; medians.

    python -m benchmarks.encode --texts 1000 --repeat 5
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.results import add_option, store
from indexer.items.item_encoder import ItemEncoder, packaged_model

WORDS = [
    "red",
    "blue",
    "green",
    "small",
    "large",
    "shoe",
    "lamp",
    "kettle",
    "cotton",
    "wool",
    "garden",
    "kitchen",
    "running",
    "winter",
]


def texts(count: int) -> list[str]:
    """Return made-up texts whose lengths differ as those of products do."""
    random = np.random.default_rng(5)
    lengths = np.clip(random.lognormal(2.3, 0.8, count), 1, 60).astype(int)
    return [f"{n} " + " ".join(random.choice(WORDS, size)) for n, size in enumerate(lengths)]


def main() -> None:
    """Encode in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    add_option(parser)
    given = parser.parse_args()
    from sentence_transformers import SentenceTransformer

    folder = packaged_model()
    assert folder is not None
    own = ItemEncoder(str(folder))
    other = SentenceTransformer(str(folder), device="cpu")
    some = texts(given.texts)
    runs: dict[str, list[float]] = {"tracker": [], "sentence-transformers": []}
    vectors: dict[str, Any] = {}

    def encode(name: str) -> Any:
        if name == "tracker":
            return own.encode(some)
        return other.encode(some, batch_size=32, normalize_embeddings=True)

    for turn in range(given.repeat + 1):
        for name in sorted(runs, reverse=bool(turn % 2)):
            begun = time.monotonic()
            vectors[name] = np.asarray(encode(name), np.float32)
            if turn:  # the first loads the model
                runs[name].append(given.texts / (time.monotonic() - begun))
    ours, theirs = (
        vectors[name] / np.linalg.norm(vectors[name], axis=1, keepdims=True) for name in runs
    )
    middle = {name: statistics.median(found) for name, found in runs.items()}
    found = {
        "texts_per_second": middle,
        "runs": runs,
        "ratio": middle["tracker"] / middle["sentence-transformers"],
        "least_cosine": float((ours * theirs).sum(axis=1).min()),
        "texts": given.texts,
    }
    print(found)
    store(given.result, found)


if __name__ == "__main__":
    main()
