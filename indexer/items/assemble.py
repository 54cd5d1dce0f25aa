"""The next version: vectors and index of a catalogue, written and published."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

import msgspec

from indexer.data.catalog import Catalog
from indexer.data.users import Users, known_attributes
from indexer.items.carry import Before, encodings_of, item_rows, vectors_of
from indexer.items.index import build_index, searched_rows, similar_rows
from indexer.items.item_encoder import Encoder, Progress
from indexer.items.options import (
    BuildOptions,
    RefusedError,
    current_version,
    interest_of,
    item_counts_of,
    whitening_of,
)
from indexer.items.tower_items import moved_tower
from indexer.items.whitening import Whitening, basis_of
from tracker.artifact.artifact import Artifact, Sources, write_files
from tracker.artifact.manifest import (
    FORMAT,
    EncoderInfo,
    IndexInfo,
    Manifest,
    TrainingInfo,
    add_artifact,
)
from tracker.artifact.models import UNTRAINED, Models
from tracker.artifact.signature import SigningKey
from tracker.artifact.versions import Root, set_latest, staging
from tracker.explained import Explained
from tracker.items.config import ItemCounts
from tracker.items.index import ItemIndex
from tracker.items.item_map import fit_map
from tracker.items.vectors import ItemVectors
from tracker.users.config import InterestConfig

logger = logging.getLogger(__name__)


class RecallError(Explained):
    """The recall of the index against exact search is too low; nothing was published."""


class Built(msgspec.Struct, frozen=True):
    """Result of a build; the JSON of `indexer build --json`.

    `encoded` texts went through the model, the texts of `reused` rows were known. `retired` items
    are kept from earlier catalogues. With `basis_changed`, states are rebuilt from recent events.
    `without_text` items of the catalogue have no content vector. `microseconds` is the time of one
    search, `seconds` that of the build.
    """

    version: str
    sequence: int
    basis: str
    basis_changed: bool
    items: int
    live: int
    retired: int
    encoded: int
    reused: int
    skipped: int
    index: str
    recall_at_10: float
    microseconds: float
    path: str
    without_text: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Assembled:
    """The item part of the next version, in memory.

    Attributes:
        items: N items and their vectors.
        index: FAISS index of the live ones that have a text.
        index_info: kind, parameters and recall of the index.
        sources: whitening, encodings and texts, for the next build.
        interest: the shape of states.
        item_counts: half-lives of the items' counts.
        encoder: the text encoder.
        basis: name of encoder, whitening and shape of states.
        fitted_on: number of items that the whitening was fitted on.
        before: the version that it follows, None for the first one.
        encoded: see `Built`.
        reused: see `Built`.
        skipped: see `Built`.
    """

    items: ItemVectors
    index: ItemIndex
    index_info: IndexInfo
    sources: Sources
    interest: InterestConfig
    item_counts: ItemCounts
    encoder: EncoderInfo
    basis: str
    fitted_on: int
    before: Before | None
    encoded: int
    reused: int
    skipped: int


def build_artifact(
    catalog: Catalog,
    encoder: Encoder,
    root: Root,
    options: BuildOptions,
    progress: Callable[[int], Progress] | None = None,
    users: Users | None = None,
) -> Built:
    """Build an artifact of a catalogue and make it current.

    The trained models of the current version are kept if the basis is unchanged.

    Args:
        catalog: the items.
        encoder: texts to vectors.
        root: folder or URL of the versions.
        options: what to change.
        progress: called with the number of texts to encode; its result with the texts just done.
        users: if given, their attributes replace those that the user encoder knows.

    Raises:
        RefusedError: see `assemble`.
        RecallError: see `assemble`.
        ArtifactError: the current version cannot be read, or the root cannot be written.
        OSError: a local root cannot be written, for instance because the disk is full.
    """
    key = None if options.signing_key is None else SigningKey(options.signing_key)
    parts = assemble(catalog, encoder, root, options, progress)
    before = parts.before
    if before is None or before.models == UNTRAINED:
        return write_version(root, parts, UNTRAINED, None, key=key)
    if before.manifest.basis == parts.basis:
        models = before.models
        if models.tower is not None:
            attributes = None
            if users is not None:
                attributes = known_attributes(users.attributes, models.tower.model.config)
            tower = moved_tower(models.tower, parts.items, options.min_recall, attributes)
            models = replace(models, tower=tower)
        manifest = before.manifest
        return write_version(root, parts, models, manifest.training, manifest.untrained, key)
    logger.warning(
        "what %s was trained with is of another basis and is left out: the fixed blend ranks until"
        " `indexer train`",
        before.manifest.version,
    )
    return write_version(root, parts, UNTRAINED, None, key=key)


def assemble(
    catalog: Catalog,
    encoder: Encoder,
    root: Root,
    options: BuildOptions,
    progress: Callable[[int], Progress] | None = None,
) -> Assembled:
    """Make the item part of the next version: vectors and index of a catalogue. Nothing is written.

    1. Read the current version; refuse to change its basis, except with `refit`.
    2. Order the catalogue and the retired items; encode new texts.
    3. Fit the whitening, or keep the current one; an unchanged text keeps its vector exactly.
    4. Build the index, measure its recall, and refuse too low a recall. Search for each item, and
       fit the map of the catalogue.

    Args:
        catalog: the items.
        encoder: texts to vectors.
        root: folder or URL of the versions.
        options: what to change.
        progress: called with the number of texts to encode; its result with the texts just done.

    Raises:
        RefusedError: the encoder or a basis option differs from the current version's, and
            `refit` is not set; or an option cannot be met.
        RecallError: the recall is below `options.min_recall`.
        ArtifactError: the current version cannot be read.
    """
    # 1. Read the current version.
    before = current_version(root, options.refit)
    interest = interest_of(before, options, encoder)
    # 2. Order the catalogue and the retired items; encode new texts.
    rows = item_rows(catalog.items, before)
    encodings, encoded, reused = encodings_of(rows, before, encoder, progress)
    if rows.indexed == 0:
        raise RefusedError(
            f"none of {rows.live} items has a text: nothing can be found by content; give them a"
            " text or title"
        )
    # 3. Fit the whitening, or keep the current one.
    whitening, fitted_on = whitening_of(before, options, encodings[: rows.indexed])
    basis = basis_of(whitening, encoder.info, interest)
    full, vectors = vectors_of(rows, before, whitening, encodings, interest.dim)
    # 4. Build the index, and measure its recall.
    try:
        index, info = build_index(vectors[: rows.indexed], options.min_recall, options.index)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    if info.recall_at_10 < options.min_recall:
        raise RecallError(
            f"recall@10 of the {info.kind} index is {info.recall_at_10:.4f}, at least"
            f" {options.min_recall} expected: nothing was published; lower --min-recall, or build"
            " with --index flat, which is exact"
        )
    nearest = searched_rows(vectors, index)
    items = ItemVectors.make(
        rows.ids,
        full,
        interest.dim,
        vectors=vectors,
        live=rows.live,
        similar=similar_rows(full, nearest, index.size),
        nearest=nearest,
        labels=rows.labels,
        map_projection=fit_map(vectors[: rows.indexed], whitening.spread[: interest.dim]),
    )
    return Assembled(
        items=items,
        index=index,
        index_info=info,
        sources=Sources(whitening.mean, whitening.matrix, encodings, rows.hashes, rows.texts),
        interest=interest,
        item_counts=item_counts_of(before, options),
        encoder=encoder.info,
        basis=basis,
        fitted_on=fitted_on,
        before=before,
        encoded=encoded,
        reused=reused,
        skipped=catalog.skipped,
    )


def with_half_lives(parts: Assembled, seconds: tuple[float, ...]) -> Assembled:
    """Return the same items and vectors for states with other half-lives, in seconds."""
    interest = msgspec.structs.replace(parts.interest, half_lives_seconds=seconds)
    whitening = Whitening(parts.sources.mean, parts.sources.matrix)
    return replace(parts, interest=interest, basis=basis_of(whitening, parts.encoder, interest))


def in_memory(parts: Assembled, models: Models = UNTRAINED) -> Artifact:
    """Return an artifact in memory, not written yet, for a replay."""
    return Artifact.in_memory(
        parts.items,
        interest=parts.interest,
        item_counts=parts.item_counts,
        index=parts.index,
        basis=parts.basis,
        models=models,
    )


def write_version(
    root: Root,
    parts: Assembled,
    models: Models,
    training: TrainingInfo | None,
    untrained: Mapping[str, str] = MappingProxyType({}),
    key: SigningKey | None = None,
) -> Built:
    """Write a version under a temporary name, rename it, and point LATEST at it.

    Args:
        root: folder or URL of the versions.
        parts: the item part.
        models: the trained models.
        training: description of their training.
        untrained: reasons why a model is not among `models`, by its name.
        key: signs the version; None leaves it unsigned.

    Raises:
        ArtifactError: a remote root cannot be written.
        OSError: a local root cannot be written, for instance because the disk is full.
    """
    items = parts.items
    with staging(root) as staged:
        files = write_files(staged, items, parts.index, parts.sources, models)
        manifest = Manifest(
            format=FORMAT,
            version="",
            sequence=0,
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            basis=parts.basis,
            dim=parts.interest.dim,
            full_dim=items.full_dim,
            items=len(items),
            live=items.live,
            without_text=items.live - parts.index.size,
            fitted_on=parts.fitted_on,
            encoder=parts.encoder,
            interest=parts.interest,
            item_counts=parts.item_counts.after(
                None if parts.before is None else parts.before.manifest.item_counts
            ),
            index=parts.index_info,
            files=files,
            ranker=None if models.ranker is None else models.ranker.info,
            tower=None if models.tower is None else models.tower.info,
            prediction=None if models.prediction is None else models.prediction.info,
            item_weights=None if models.item_weights is None else models.item_weights.info,
            training=training,
            untrained=dict(untrained),
        )
        manifest = add_artifact(root, staged, manifest, key)
    set_latest(root, manifest.version)
    before = parts.before
    return Built(
        version=manifest.version,
        sequence=manifest.sequence,
        basis=parts.basis,
        basis_changed=before is not None and before.manifest.basis != parts.basis,
        items=len(items),
        live=items.live,
        retired=len(items) - items.live,
        encoded=parts.encoded,
        reused=parts.reused,
        skipped=parts.skipped,
        index=parts.index_info.kind,
        recall_at_10=parts.index_info.recall_at_10,
        microseconds=parts.index_info.microseconds,
        path=f"{root}/{manifest.version}",
        without_text=manifest.without_text,
    )
