"""Options of a build, and what it keeps of the version before it, except with --refit."""

import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.items.carry import Before, read_before, same_encoder
from indexer.items.index import IndexChoice
from indexer.items.item_encoder import Encoder
from indexer.items.whitening import Whitening, fit_whitening
from tracker.artifact.versions import ArtifactError, Root
from tracker.explained import Explained
from tracker.items.config import ItemCounts
from tracker.users.config import InterestConfig

logger = logging.getLogger(__name__)

_OUTGROWN = 4


class RefusedError(Explained):
    """The build would change the basis without --refit, or an option is impossible."""


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build; None keeps the value of the current version, or takes the default.

    Attributes:
        dim: dimensions of item vectors and of the sums in a state.
        half_lives_seconds: half-life of each sum in a state.
        slots: maximum number of interests per user.
        rating_scale: lowest and highest rating.
        min_recall: recall@10 that the index must reach.
        index: kind of index.
        refit: accept a changed basis, and fit the whitening again.
        signing_key: file of the key that signs the version.
    """

    dim: int | None = None
    half_lives_seconds: tuple[float, ...] | None = None
    slots: int | None = None
    rating_scale: tuple[float, float] | None = None
    min_recall: float = 0.95
    index: IndexChoice = "auto"
    refit: bool = False
    signing_key: Path | None = None


def current_version(root: Root, refit: bool) -> Before | None:
    """Read the current version; return None if there is none, or, with `refit`, if it is damaged.

    Raises:
        ArtifactError: it cannot be used, and `refit` is not set.
    """
    try:
        return read_before(root)
    except ArtifactError as error:
        if not refit:
            raise
        logger.warning("the current version is not taken over: %s", error)
        return None


def interest_of(before: Before | None, options: BuildOptions, encoder: Encoder) -> InterestConfig:
    """Return the shape of states; refuse to change it without `refit`.

    Args:
        before: the current version.
        options: the changes.
        encoder: the text encoder.

    Raises:
        RefusedError: an option or the encoder differs from the current version, or an option is
            impossible.
    """
    now = InterestConfig() if before is None else before.manifest.interest
    changes: dict[str, object] = {}
    if options.dim is not None:
        changes["dim"] = options.dim
    if options.half_lives_seconds is not None:
        changes["half_lives_seconds"] = options.half_lives_seconds
    if options.slots is not None:
        changes["slots"] = options.slots
    if options.rating_scale is not None:
        changes["rating_min"], changes["rating_max"] = options.rating_scale
    if options.refit:  # it belongs to the whitening, which is fitted anew
        changes["slot_threshold"] = InterestConfig().slot_threshold
    try:
        interest = msgspec.structs.replace(now, **changes)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    if interest.dim > encoder.info.width:
        raise RefusedError(
            f"dim {interest.dim} is more than the {encoder.info.width} of {encoder.info.name};"
            " choose a smaller --dim"
        )
    if before is None or options.refit:
        return interest
    differences = [
        f"{name} {getattr(now, name)} -> {getattr(interest, name)}"
        for name in changes
        if getattr(now, name) != getattr(interest, name)
    ]
    was = before.manifest.encoder
    if not same_encoder(before, encoder.info):
        differences.insert(
            0,
            f"encoder {_named(was.name, was.fingerprint)} -> "
            f"{_named(encoder.info.name, encoder.info.fingerprint)}",
        )
    if differences:
        raise RefusedError(
            f"{before.manifest.version} was built otherwise ({'; '.join(differences)}): a change"
            " rebuilds every user's state from its most recent events; build with --refit to do"
            " so, or with the former options"
        )
    return interest


def item_counts_of(before: Before | None, options: BuildOptions) -> ItemCounts:
    """Return the half-lives of the items' counts: those of the current version, if it is kept.

    A change rebuilds no state: counts that both versions have stay exact.
    """
    if before is None or options.refit:
        return ItemCounts()
    return before.manifest.item_counts.after(None)


def _named(name: str, fingerprint: str) -> str:
    return f"{name} ({fingerprint[:8]})"


def whitening_of(
    before: Before | None, options: BuildOptions, encodings: NDArray[np.float16]
) -> tuple[Whitening, int]:
    """Return the whitening of the current version or a new one, and the number of items it fits.

    A new one is fitted on the encodings (N, W) if there is no version, or with `refit`.
    """
    if before is None or options.refit:
        return fit_whitening(encodings), len(encodings)
    fitted_on = before.manifest.fitted_on
    if len(encodings) > _OUTGROWN * fitted_on:
        logger.warning(
            "the whitening was fitted on %d items and there are %d now: a build with --refit would"
            " serve better (it rebuilds users' states from their recent events)",
            fitted_on,
            len(encodings),
        )
    return Whitening(before.sources.mean, before.sources.matrix), fitted_on
