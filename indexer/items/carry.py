"""The version before a build: its encodings, vectors and retired items are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from indexer.data.catalog import Item
from indexer.items.item_encoder import Encoder, EncoderError, Progress
from indexer.items.whitening import Whitening
from tracker.artifact.artifact import Sources, read_sources, read_vectors
from tracker.artifact.manifest import EncoderInfo, Manifest, read_manifest, verify
from tracker.artifact.models import UNTRAINED, Models, read_models
from tracker.artifact.versions import MissingError, Root, latest_version, list_versions
from tracker.items.vectors import ItemVectors, Rows, leading

MIN_RETIRED = 10_000
"""Maximum number of retired items, or the number of live ones if that is more."""


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

    In the catalogue, items without text come last.

    Attributes:
        ids: N ids.
        texts: N texts for the encoder, "" where there is none.
        labels: N labels of interests.
        hashes: (N, 2) uint64, hashes of the texts.
        live: number of rows of the catalogue; they come first.
        indexed: number of rows of the catalogue that have a text; they are first of all.
        before: (N,) int64, row of the same text in the version before, -1 for a new text.
    """

    ids: list[str]
    texts: list[str]
    labels: list[str]
    hashes: NDArray[np.uint64]
    live: int
    indexed: int
    before: Rows

    @property
    def have_text(self) -> NDArray[np.bool_]:
        """Return whether each row has a text, (N,)."""
        return np.array([text != "" for text in self.texts], np.bool_)


def read_before(root: Root) -> Before | None:
    """Read the current version and check all of its files; return None if there is no version.

    Without LATEST the newest version counts: a first build was killed before it wrote LATEST, or
    another one is about to write it.

    Raises:
        ArtifactError: it cannot be used.
    """
    versions = list_versions(root)
    if not versions:
        return None
    try:
        version = latest_version(root)
    except MissingError:
        version = versions[-1]
    manifest = read_manifest(root, version)
    path = verify(root, manifest)
    return Before(
        manifest,
        read_vectors(path, manifest),
        read_sources(path, manifest),
        read_models(path, manifest),
    )


def item_rows(items: Sequence[Item], before: Before | None) -> ItemRows:
    """Return the rows of the catalogue, then of items that it no longer has, last retired first.

    The items of the catalogue are in its order, but those without text come after the others: the
    index holds the first rows, and an item without a vector is never found by content.

    Retired items keep id, text and vector, so that an event on them can still be taken out of a
    state exactly. An item that returns to the catalogue is live again.
    """
    items = sorted(items, key=lambda item: not item.encoded_text())
    indexed = sum(1 for item in items if item.encoded_text())
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
        row_of = {pair: row for row, pair in enumerate(_pairs(before.sources.text_hashes))}
        rows[:] = [row_of.get(pair, -1) for pair in _pairs(hashes)]
    return ItemRows(ids, texts, labels, hashes, len(items), indexed, rows)


def encodings_of(
    rows: ItemRows,
    before: Before | None,
    encoder: Encoder,
    progress: Callable[[int], Progress] | None,
) -> tuple[NDArray[np.float16], int, int]:
    """Return the encodings of all rows, zeros without text; each new text is encoded once.

    Args:
        rows: the items.
        before: the version with known encodings; they are used if its encoder is the same.
        encoder: encodes new texts.
        progress: called with the number of texts to encode, if any; its result with the texts
            just done.

    Returns:
        the encodings (N, W) float16, the number of texts encoded, and the number of rows whose
        encoding was known.

    Raises:
        EncoderError: an encoding is not finite.
    """
    same = before is not None and same_encoder(before, encoder.info)
    sources = rows.before if same else np.full(len(rows.ids), -1, np.int64)
    encodings = np.zeros((len(rows.ids), encoder.info.width), np.float16)
    if before is not None and same:
        old = sources >= 0
        encodings[old] = before.sources.encodings[sources[old]]
    have_text = rows.have_text
    missing = np.flatnonzero((sources < 0) & have_text)
    reused = int(have_text.sum()) - len(missing)
    if len(missing) == 0:
        return encodings, 0, reused
    _, first, inverse = np.unique(
        rows.hashes[missing], axis=0, return_index=True, return_inverse=True
    )
    texts = [rows.texts[row] for row in missing[first]]
    report = progress(len(texts)) if progress is not None else None
    encodings[missing] = encoder.encode(texts, report)[inverse.ravel()]
    bad = np.flatnonzero(~np.isfinite(encodings).all(1))
    if len(bad):
        raise EncoderError(
            f"{encoder.info.name}: vectors of {len(bad)} of {len(encodings)} items are not finite"
            f" (float16), first {rows.ids[bad[0]]!r}: nothing was published; choose another with"
            " --model"
        )
    return encodings, len(texts), reused


def vectors_of(
    rows: ItemRows,
    before: Before | None,
    whitening: Whitening,
    encodings: NDArray[np.float16],
    dim: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return full vectors (N, F) and their leading parts (N, D), float32.

    They have unit length; the vectors of an item without text are zeros.

    Vectors of known texts are copied from the version before, and never computed again: a product
    of matrices may differ in its last bit with the number of rows.
    """
    full = np.empty((len(rows.ids), whitening.matrix.shape[1]), np.float32)
    vectors = np.empty((len(rows.ids), dim), np.float32)
    have_text = rows.have_text
    full[~have_text], vectors[~have_text] = 0.0, 0.0
    new = have_text.copy()
    if before is not None and before.sources.matrix is whitening.matrix:
        new &= rows.before < 0
        old = have_text & ~new
        full[old] = before.vectors.full[rows.before[old]]
        vectors[old] = before.vectors.vectors[rows.before[old]]
    full[new] = whitening.apply(encodings[new])
    vectors[new] = leading(full[new], dim)
    return full, vectors


def same_encoder(before: Before, encoder: EncoderInfo) -> bool:
    """Return whether a version was encoded by this encoder.

    Its name and training are ignored, and so is `max_tokens`: the fingerprint decides it, and
    manifests of RoBERTa's family named more tokens than the model takes.
    """
    was = before.manifest.encoder
    named = msgspec.structs.replace(
        was, name=encoder.name, training=encoder.training, max_tokens=encoder.max_tokens
    )
    return named == encoder


def text_hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Return the XXH3-128 of each text, (N, 2) uint64."""
    digests = b"".join(xxhash.xxh3_128_digest(text.encode(errors="replace")) for text in texts)
    return np.frombuffer(digests, "<u8").reshape(len(texts), 2).astype(np.uint64)


def _pairs(hashes: NDArray[np.uint64]) -> list[tuple[int, int]]:
    return list(zip(hashes[:, 0].tolist(), hashes[:, 1].tolist(), strict=True))
