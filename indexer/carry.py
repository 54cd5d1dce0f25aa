"""What a build takes over from the version before it: encodings, vectors, retired items."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from indexer.catalog import Item
from tracker.artifact import (
    Manifest,
    Sources,
    latest_version,
    read_manifest,
    read_sources,
    read_vectors,
    verify,
)
from tracker.vectors import ItemVectors, Rows
from tracker.versions import Root, list_versions

MIN_RETIRED = 10_000
"""At most this many retired items are kept, or as many as there are live ones if that is more."""


@dataclass(frozen=True)
class Before:
    """The version that LATEST names when a build starts."""

    manifest: Manifest
    vectors: ItemVectors
    sources: Sources


@dataclass(frozen=True)
class ItemRows:
    """The items of the new version, row by row: the catalogue, then those it no longer has.

    Attributes:
        ids: N ids.
        texts: what is encoded.
        labels: one a row.
        hashes: (N, 2) uint64, of the texts.
        live: rows of the catalogue.
        before: (N,) int64, the row of the same text in the version before, -1 where it is new.
    """

    ids: list[str]
    texts: list[str]
    labels: list[str]
    hashes: NDArray[np.uint64]
    live: int
    before: Rows


def read_before(root: Root) -> Before | None:
    """Read the current version, all of its files checked; None where nothing was ever built.

    Raises:
        ArtifactError: there is one, and it cannot be used.
    """
    if not list_versions(root):
        return None
    manifest = read_manifest(root, latest_version(root))
    path = verify(root, manifest)
    return Before(manifest, read_vectors(path, manifest), read_sources(path, manifest))


def item_rows(items: Sequence[Item], before: Before | None) -> ItemRows:
    """Line up the catalogue, then the items it no longer has, the last retired first.

    Retired items keep id, text and vector, so that an event on them can still be taken out of a
    state exactly; one that returns to the catalogue is live again.
    """
    ids = [item.item_id for item in items]
    texts = [item.encoded_text() for item in items]
    labels = [item.label() for item in items]
    if before is not None:
        current = set(ids)
        most = max(MIN_RETIRED, len(items))
        for row, item_id in enumerate(before.vectors.ids):
            if len(ids) - len(items) >= most:
                break
            if item_id not in current:
                ids.append(item_id)
                texts.append(before.sources.texts[row])
                labels.append(before.vectors.label(row))
    hashes = text_hashes(texts)
    rows = np.full(len(ids), -1, np.int64)
    if before is not None:
        known = {pair: row for row, pair in enumerate(_pairs(before.sources.text_hashes))}
        rows[:] = [known.get(pair, -1) for pair in _pairs(hashes)]
    return ItemRows(ids, texts, labels, hashes, len(items), rows)


def text_hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the XXH3-128 of each text, (N, 2) uint64."""
    digests = b"".join(xxhash.xxh3_128_digest(text.encode(errors="replace")) for text in texts)
    return np.frombuffer(digests, "<u8").reshape(len(texts), 2).astype(np.uint64)


def _pairs(hashes: NDArray[np.uint64]) -> list[tuple[int, int]]:
    return list(zip(hashes[:, 0].tolist(), hashes[:, 1].tolist(), strict=True))
