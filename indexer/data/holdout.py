"""Held-out events: those that a training leaves out, and a check that an evaluation uses them."""

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import TEST, VALIDATION, EventLog, Protocol, Split, split
from tracker.artifact.manifest import Manifest, TrainingInfo
from tracker.explained import Explained

EARLIEST_QUANTILE = 0.4
"""A ranker learns from this quantile of time on; before it, states hold few events. Not studied."""


class RankerTargets(NamedTuple):
    """The Q targets that a ranker learns from.

    Attributes:
        events: (Q,) positions in the log, ascending.
        fresh: (Q,) bool, targets outside the training part: models fitted on it have not seen them.
        skip: (E,) bool, events that must not reach the states; None for none.
    """

    events: NDArray[np.int64]
    fresh: NDArray[np.bool_]
    skip: NDArray[np.bool_] | None


class SeenTargetsError(Explained, ValueError):
    """An artifact was trained on the targets of an evaluation; the message names both."""


def training_targets(
    log: EventLog, protocol: Protocol | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Return the latest targets that a ranker learns from, and the events that it must not see.

    With a protocol these are the validation targets, and no event of the test part reaches the
    states. Without one they are the targets of validation and test of `gts`: the last fifth.

    Returns:
        positions (Q,) int64, ascending, and a mask (E,) bool, or None if nothing is left out.
    """
    if protocol == "loo":
        parted = split(log, "loo")
        return parted.validation, parted.parts == TEST
    parted = split(log, "gts")
    if protocol == "gts":
        return parted.validation, parted.parts == TEST
    return np.union1d(parted.validation, parted.test), None


def ranker_targets(
    log: EventLog, protocol: Protocol | None, usable: NDArray[np.bool_], most: int
) -> RankerTargets:
    """Return the targets that a ranker learns from: those of `training_targets`, and earlier ones.

    The features come from the stream, so targets in the training part teach as well as later ones.
    Only the scores of models that were fitted on the training part do not (see `fresh`).

    Args:
        log: the events.
        protocol: the protocol whose test targets are left out; None to leave nothing out.
        usable: (E,) bool, events of items that can be recommended.
        most: maximum number of targets. The latest stay, which are most like those to come. With
            `loo`, whose targets are of all times, each part is thinned evenly: the earlier one
            first, but to no less than half of the maximum.
    """
    latest, skip = training_targets(log, protocol)
    eligible = log.positive & (log.lengths() > 0) & usable
    latest = latest[eligible[latest]]
    earlier = eligible & (np.arange(len(log)) < (latest[-1] if len(latest) else len(log)))
    earlier[latest] = False
    if skip is not None:
        earlier &= ~skip
    if log.positive.any():
        times = log.batch.times
        earlier &= times >= np.quantile(times[log.positive], EARLIEST_QUANTILE)
    older = np.flatnonzero(earlier)
    if protocol == "loo":
        latest = evenly_spread(latest, max(most // 2, most - len(older)))
        older = evenly_spread(older, most - len(latest))
    events = np.union1d(older, latest)[-most:]
    return RankerTargets(events, np.isin(events, latest), skip)


def evenly_spread(positions: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return up to `most` of the positions, evenly spread, the first and the last among them.

    >>> evenly_spread(np.array([1, 2, 3, 5, 8]), 3).tolist()
    [1, 3, 8]
    """
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).astype(np.int64)]


def periods(seconds: Sequence[float]) -> str:
    """Return periods as people read them.

    >>> periods((600.0, 5400.0, 86400.0 * 7))
    '10 min, 1.5 h, 7 d'
    """
    named = []
    for period in seconds:
        size, unit = next(
            ((size, unit) for size, unit in ((86400.0, "d"), (3600.0, "h")) if period >= size),
            (60.0, "min"),
        )
        named.append(f"{period / size:g} {unit}")
    return ", ".join(named)


def training_info(
    log: EventLog,
    protocol: Protocol | None,
    minimum: int,
    repeats: bool,
    seed: int,
    examples: int,
) -> TrainingInfo:
    """Return the description of a training for the manifest.

    Args:
        log: the events.
        protocol: the protocol whose test targets were left out, None for none.
        minimum: the core: minimum number of events per user and item.
        repeats: whether items of the past were ranked.
        seed: seed of the training.
        examples: number of examples.
    """
    before: float | None = None
    left_out: NDArray[np.int64] = np.zeros(0, np.int64)
    if protocol is None:
        before = float(np.nextafter(log.batch.times[-1], math.inf))
    else:
        parted = split(log, protocol)
        left_out = parted.test
        if protocol == "gts":
            before = parted.cuts[1]
    return TrainingInfo(
        protocol=protocol,
        core=minimum,
        repeats=repeats,
        seed=seed,
        examples=examples,
        fitted_before=before,
        left_out=len(left_out),
        left_out_digest=digest_of(log, left_out),
    )


def digest_of(log: EventLog, events: NDArray[np.int64]) -> str:
    """Return a SHA-256 over user, item and time of some events, in their order."""
    digest = hashlib.sha256()
    for event in events.tolist():
        line = f"{log.batch.users[event]}\t{log.batch.items[event]}\t{log.batch.times[event]!r}\n"
        digest.update(line.encode(errors="replace"))
    return digest.hexdigest()


def check_unseen(manifest: Manifest, log: EventLog, parted: Split, minimum: int) -> None:
    """Check that an artifact was not trained on the targets that it is evaluated on.

    The targets are unseen if nothing was trained, if the training left them out, or if all of them
    are later than all events of the training.

    Args:
        manifest: the artifact.
        log: the events.
        parted: their division; `test` are the targets.
        minimum: the core, for the message.

    Raises:
        SeenTargetsError: the artifact or its text encoder has seen the targets.
    """
    if not len(parted.test):
        return
    first = float(log.batch.times[parted.test].min())
    digest = digest_of(log, parted.test)
    flags = f"--protocol {parted.protocol}" + (f" --core {minimum}" if minimum > 1 else "")
    seen = f"has seen the targets of {flags} ({len(parted.test)} from {day(first)} on): it was"
    training, encoder = manifest.training, manifest.encoder
    if training is not None and not _unseen(training, first, digest):
        raise SeenTargetsError(
            f"{manifest.version} {seen} trained {_trained(training)}; train one with"
            f" `indexer train {flags}`, or name it by --artifact"
        )
    if encoder.training is not None and not _unseen(encoder.training, first, digest):
        raise SeenTargetsError(
            f"{encoder.name}, the text encoder of {manifest.version}, {seen} fine-tuned"
            f" {_trained(encoder.training)}; make one with `indexer finetune {flags}`"
        )


def _unseen(training: TrainingInfo, first: float, digest: str) -> bool:
    """Return whether targets are later than a training, or were left out by it."""
    if training.fitted_before is not None and first >= training.fitted_before:
        return True
    return training.protocol is not None and training.left_out_digest == digest


def all_at_one_time(parted: Split) -> bool:
    """Return whether `gts` has no event before its test part, as if all timestamps are equal."""
    return parted.protocol == "gts" and not (parted.parts <= VALIDATION).any()


def _trained(training: TrainingInfo) -> str:
    if training.protocol is None:
        if training.fitted_before is None:
            return "on all events"
        return f"on all events up to {day(training.fitted_before)}"
    core = f" --core {training.core}" if training.core > 1 else ""
    return f"with --protocol {training.protocol}{core}, which left {training.left_out} others out"


def day(seconds: float) -> str:
    """Return a time for people, in UTC; infinity and NaN as they are.

    >>> day(0.0), day(math.inf)
    ('1970-01-01T00:00:00+00:00', 'inf')
    """
    if not math.isfinite(seconds):
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
