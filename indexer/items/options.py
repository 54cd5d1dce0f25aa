"""What a build may be told, and what of the version before it has to stay without --refit."""

import logging
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.items.carry import Before, read_before, same_encoder
from indexer.items.index import IndexChoice
from indexer.items.item_encoder import Encoder
from indexer.items.whitening import Whitening, fit_whitening
from tracker.artifact.versions import ArtifactError, Root
from tracker.explained import Explained
from tracker.users.config import InterestConfig

logger = logging.getLogger(__name__)

_OUTGROWN = 4


class RefusedError(Explained):
    """The build would change what it was not told to change; the message names the option."""


@dataclass(frozen=True)
class BuildOptions:
    """What a build may be told; None keeps what the current version has, or takes the default."""

    dim: int | None = None
    half_lives_seconds: tuple[float, ...] | None = None
    slots: int | None = None
    rating_scale: tuple[float, float] | None = None
    min_recall: float = 0.95
    index: IndexChoice = "auto"
    refit: bool = False


def current_version(root: Root, refit: bool) -> Before | None:
    """Read the current version, if any; with `refit` one that cannot be read is left alone.

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
    """Return what shapes states, and refuse to change it without `refit`.

    Raises:
        RefusedError: an option or the encoder differs from what the current version has, or an
            option cannot be met.
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
            " rebuilds every user's state from its most recent events; build with --refit if that"
            " is meant, or with the former options"
        )
    return interest


def _named(name: str, fingerprint: str) -> str:
    return f"{name} ({fingerprint[:8]})"


def whitening_of(
    before: Before | None, options: BuildOptions, encodings: NDArray[np.float16]
) -> tuple[Whitening, int]:
    """Return the current version's whitening, or one fitted anew; and how many items it is of."""
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
