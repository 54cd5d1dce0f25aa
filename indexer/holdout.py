"""What a training leaves out, and whether an artifact has seen what it is to be judged by."""

import hashlib
import math
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from indexer.histories import TEST, VALIDATION, EventLog, Protocol, Split, split
from tracker.manifest import Manifest, TrainingInfo


class SeenTargetsError(ValueError):
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
    training = manifest.training
    if training is None or not len(parted.test):
        return
    first = float(log.batch.times[parted.test].min())
    if training.fitted_before is not None and first >= training.fitted_before:
        return
    if training.protocol is not None and training.left_out_digest == digest_of(log, parted.test):
        return
    wanted = f"--protocol {parted.protocol}" + (f" --core {minimum}" if minimum > 1 else "")
    raise SeenTargetsError(
        f"{manifest.version} has seen the targets of {wanted} ({len(parted.test)} from"
        f" {_day(first)} on): it was trained {_trained(training)}; train one with"
        f" `indexer train {wanted}`, or name it by --artifact"
    )


def all_at_one_time(parted: Split) -> bool:
    """Tell whether `gts` found nothing before its test part, as where all timestamps are equal."""
    return parted.protocol == "gts" and not (parted.parts <= VALIDATION).any()


def _trained(training: TrainingInfo) -> str:
    if training.protocol is None:
        if training.fitted_before is None:
            return "on all events"
        return f"on all events up to {_day(training.fitted_before)}"
    core = f" --core {training.core}" if training.core > 1 else ""
    return f"with --protocol {training.protocol}{core}, which left {training.left_out} others out"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
