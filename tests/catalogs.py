"""Small catalogues and an encoder that needs no model: shared by the indexer's tests."""

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from indexer.data.catalog import Catalog, Item
from indexer.items.item_encoder import Progress
from tracker.artifact.manifest import EncoderInfo

WIDTH = 32
DEPARTMENTS = ("tools", "shoes", "tea", "books")


class WordEncoder:
    """A text's vector is the sum of its words' vectors, which their spelling decides."""

    def __init__(self, fingerprint: str = "words", width: int = WIDTH) -> None:
        self.info = EncoderInfo("words", fingerprint, width, 64)
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float16]:
        """Return the vectors, and remember which texts were asked for."""
        self.texts += texts
        if progress is not None:
            progress(len(texts))
        vectors = [sum(self._word(word) for word in text.split()) for text in texts]
        return np.array(vectors, np.float16).reshape(len(texts), self.info.width)

    def _word(self, word: str) -> NDArray[np.float64]:
        seed = xxhash.xxh3_64_intdigest((word + self.info.fingerprint).encode())
        return np.random.default_rng(seed).standard_normal(self.info.width)


def invented(count: int, first: int = 0) -> list[Item]:
    """Return items of four departments, each with words of its own and of its department."""
    return [
        Item(
            item_id=f"item-{n}",
            title=f"w{n} v{n} {DEPARTMENTS[n % 4]}",
            categories=[DEPARTMENTS[n % 4]],
        )
        for n in range(first, first + count)
    ]


def catalog(count: int, first: int = 0) -> Catalog:
    """Return a catalogue of invented items."""
    return Catalog(invented(count, first))
