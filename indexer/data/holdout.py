"""What a training leaves out, and whether an artifact has seen what it is to be judged by."""

import hashlib
import math
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import TEST, VALIDATION, EventLog, Protocol, Split, split
from tracker.artifact.manifest import Manifest, TrainingInfo
from tracker.explained import Explained

EARLIEST_QUANTILE = 0.4
"""From this quantile of the times on a ranker learns; before it, the states are still thin."""


class RankerTargets(NamedTuple):
    """The targets that a ranker learns from.

    `events` (Q,) ascending positions; `fresh` (Q,) bool, those outside the training part, of which
    models fitted on it have seen nothing; `skip` (E,) bool, events that must not reach the states.
    """

    events: NDArray[np.int64]
    fresh: NDArray[np.bool_]
    skip: NDArray[np.bool_] | None


class SeenTargetsError(Explained, ValueError):
    """An artifact was trained on what it should be asked for; the message names both."""


def training_targets(
    log: EventLog, protocol: Protocol | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Return what a ranker learns from, as ascending positions, and which events it must not see.

    With a protocol it learns from the validation targets, and no event of the test part reaches
    the states; without one from both parts of `gts`: the last fifth of all.
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
    """Choose what a ranker learns from: the targets of `training_targets`, and earlier ones.

    Its features stream, so what was before the training part ended teaches as well as what came
    after; only what a model says that was fitted on the training part does not.

    Args:
        log: the events.
        protocol: what is left out; None for nothing.
        usable: (E,) bool, events of items that can be recommended.
        most: how many targets at most: the latest, which are the most like what comes. With `loo`,
            whose targets are of all times, each part is thinned evenly instead, the earlier one
            first, but to no less than half of them.
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


def training_info(
    log: EventLog,
    protocol: Protocol | None,
    minimum: int,
    repeats: bool,
    seed: int,
    examples: int,
) -> TrainingInfo:
    """Describe a training for the manifest."""
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
    """Refuse to judge an artifact by what it was trained on.

    Its targets are unseen where nothing was trained, where they are those that the training left
    out, or where all of them are later than everything the training saw.

    Raises:
        SeenTargetsError: none of this is so.
    """
    if not len(parted.test):
        return
    first = float(log.batch.times[parted.test].min())
    digest = digest_of(log, parted.test)
    wanted = f"--protocol {parted.protocol}" + (f" --core {minimum}" if minimum > 1 else "")
    seen = f"has seen the targets of {wanted} ({len(parted.test)} from {day(first)} on): it was"
    training, encoder = manifest.training, manifest.encoder
    if training is not None and not _unseen(training, first, digest):
        raise SeenTargetsError(
            f"{manifest.version} {seen} trained {_trained(training)}; train one with"
            f" `indexer train {wanted}`, or name it by --artifact"
        )
    if encoder.training is not None and not _unseen(encoder.training, first, digest):
        raise SeenTargetsError(
            f"{encoder.name}, the text encoder of {manifest.version}, {seen} fine-tuned"
            f" {_trained(encoder.training)}; make one with `indexer finetune {wanted}`"
        )


def _unseen(training: TrainingInfo, first: float, digest: str) -> bool:
    """Tell whether targets are later than a training, or those that it left out."""
    if training.fitted_before is not None and first >= training.fitted_before:
        return True
    return training.protocol is not None and training.left_out_digest == digest


def all_at_one_time(parted: Split) -> bool:
    """Tell whether `gts` found nothing before its test part, as where all timestamps are equal."""
    return parted.protocol == "gts" and not (parted.parts <= VALIDATION).any()


def _trained(training: TrainingInfo) -> str:
    if training.protocol is None:
        if training.fitted_before is None:
            return "on all events"
        return f"on all events up to {day(training.fitted_before)}"
    core = f" --core {training.core}" if training.core > 1 else ""
    return f"with --protocol {training.protocol}{core}, which left {training.left_out} others out"


def day(seconds: float) -> str:
    """Return a time as people read it, in UTC; a time that is none as it is."""
    if not math.isfinite(seconds):
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
