"""What a build takes over from the version before it: encodings, vectors, retired items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from indexer.data.catalog import Item
from indexer.items.item_encoder import Encoder, Progress
from indexer.items.whitening import Whitening
from tracker.artifact.artifact import Sources, read_sources, read_vectors
from tracker.artifact.manifest import EncoderInfo, Manifest, read_manifest, verify
from tracker.artifact.models import UNTRAINED, Models, read_models
from tracker.artifact.versions import Root, latest_version, list_versions
from tracker.items.vectors import ItemVectors, Rows, leading

MIN_RETIRED = 10_000
"""At most this many retired items are kept, or as many as there are live ones if that is more."""


@dataclass(frozen=True)
class Before:
    """The version that LATEST names when a build starts."""

    manifest: Manifest
    vectors: ItemVectors
    sources: Sources
    models: Models = UNTRAINED


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
    return Before(
        manifest,
        read_vectors(path, manifest),
        read_sources(path, manifest),
        read_models(path, manifest),
    )


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


def encodings_of(
    rows: ItemRows,
    before: Before | None,
    encoder: Encoder,
    progress: Callable[[int], Progress] | None,
) -> tuple[NDArray[np.float16], int, int]:
    """Return the encodings (N, W) of all rows; a text not met before is encoded once.

    Args:
        rows: the items.
        before: where known encodings are, if its encoder is this one.
        encoder: for the others.
        progress: called with the number of texts to encode, if there are any.

    Returns:
        the encodings, how many texts were encoded, and how many rows had theirs already.
    """
    same = before is not None and same_encoder(before, encoder.info)
    known = rows.before if same else np.full(len(rows.ids), -1, np.int64)
    encodings = np.empty((len(rows.ids), encoder.info.width), np.float16)
    if before is not None and same:
        kept = known >= 0
        encodings[kept] = before.sources.encodings[known[kept]]
    missing = np.flatnonzero(known < 0)
    if len(missing) == 0:
        return encodings, 0, len(known)
    _, first, inverse = np.unique(
        rows.hashes[missing], axis=0, return_index=True, return_inverse=True
    )
    texts = [rows.texts[row] for row in missing[first]]
    told = progress(len(texts)) if progress is not None else None
    encodings[missing] = encoder.encode(texts, told)[inverse.ravel()]
    return encodings, len(texts), len(known) - len(missing)


def vectors_of(
    rows: ItemRows,
    before: Before | None,
    whitening: Whitening,
    encodings: NDArray[np.float16],
    dim: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return full vectors and their leading parts; those of known texts bit by bit as they were.

    Products of matrices may differ in their last bit with the number of rows, so that known
    vectors are copied and never computed again.
    """
    full = np.empty((len(rows.ids), whitening.matrix.shape[1]), np.float32)
    vectors = np.empty((len(rows.ids), dim), np.float32)
    new = np.ones(len(rows.ids), bool)
    if before is not None and before.sources.matrix is whitening.matrix:
        new = rows.before < 0
        full[~new] = before.vectors.full[rows.before[~new]]
        vectors[~new] = before.vectors.vectors[rows.before[~new]]
    full[new] = whitening.apply(encodings[new])
    vectors[new] = leading(full[new], dim)
    return full, vectors


def same_encoder(before: Before, encoder: EncoderInfo) -> bool:
    """Say whether the former version's encodings are this encoder's; its name is of no account."""
    was = before.manifest.encoder
    named = msgspec.structs.replace(was, name=encoder.name, training=encoder.training)
    return named == encoder


def text_hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the XXH3-128 of each text, (N, 2) uint64."""
    digests = b"".join(xxhash.xxh3_128_digest(text.encode(errors="replace")) for text in texts)
    return np.frombuffer(digests, "<u8").reshape(len(texts), 2).astype(np.uint64)


def _pairs(hashes: NDArray[np.uint64]) -> list[tuple[int, int]]:
    return list(zip(hashes[:, 0].tolist(), hashes[:, 1].tolist(), strict=True))
