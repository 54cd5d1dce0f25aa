"""KeyCheck: finds and counts events outside their user's partition, and says once what to do.

States are kept per partition. A user whose events are taken in two partitions has two states.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.explained import ONCE
from tracker.kafka.partitioner import fitting, partition_of, remedy
from tracker.kernels.native import native
from tracker.kernels.row_bytes import HIDDEN
from tracker.settings import Partitioner
from tracker.stream.serving import Context

log = logging.getLogger(__name__)

RULES: dict[Partitioner, int] = {"murmur2": 0, "crc32": 1, "fnv1a": 2}
"""The partitioners' numbers in the kernel."""

CAUSES = ("no_key", "other_key", "other_partition")
"""Why an event is counted: in this order, the first that is true."""


TWO_STATES = "a user whose events lie in two partitions has two states"
HANDED = "an event outside its user's partition is handed on to it, which takes up to a second more"

_NONE = np.zeros(0, np.int64)


@native
def partitions_of(
    data: NDArray[np.uint8], ends: NDArray[np.int64], rule: int, partitions: int
) -> NDArray[np.int64]:
    """Return the partition of each key, as `partition_of` does for one.

    Args:
        data: the keys' bytes, one key after the other.
        ends: (N,) where each key ends in them.
        rule: number of the partitioner, see `RULES`.
        partitions: number of partitions.

    Returns:
        (N,) int64.
    """
    out = np.empty(len(ends), np.int64)
    mask, start = 0xFFFFFFFF, 0
    for i in range(len(ends)):
        end = ends[i]
        if rule == 0:  # murmur2: words of four bytes, then the one to three bytes that are left
            length = end - start
            value = (0x9747B28C ^ length) & mask
            at = start
            while at + 4 <= end:
                word = (
                    np.int64(data[at])
                    | np.int64(data[at + 1]) << 8
                    | np.int64(data[at + 2]) << 16
                    | np.int64(data[at + 3]) << 24
                )
                word = word * 0x5BD1E995 & mask
                word = (word ^ word >> 24) * 0x5BD1E995 & mask
                value = (value * 0x5BD1E995 & mask) ^ word
                at += 4
            if at < end:
                for back in range(end - 1, at - 1, -1):
                    value ^= np.int64(data[back]) << 8 * (back - at)
                value = value * 0x5BD1E995 & mask
            value = (value ^ value >> 13) * 0x5BD1E995 & mask
            value = (value ^ value >> 15) & 0x7FFFFFFF
        elif rule == 1:  # CRC-32, bit by bit
            value = mask
            for at in range(start, end):
                value ^= np.int64(data[at])
                for _ in range(8):
                    value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
            value ^= mask
        else:  # FNV-1a, its sign dropped
            value = 0x811C9DC5
            for at in range(start, end):
                value = (value ^ np.int64(data[at])) * 0x01000193 & mask
            if value >= 0x80000000:
                value = mask + 1 - value
        out[i] = value % partitions
        start = end
    return out


def partitions_of_all(keys: Sequence[bytes], rule: int, partitions: int) -> NDArray[np.int64]:
    """Return the partition of each key (N,) int64; see `partitions_of`."""
    ends = np.fromiter(accumulate(map(len, keys)), np.int64, len(keys))
    return partitions_of(np.frombuffer(b"".join(keys), np.uint8), ends, rule, partitions)


@dataclass(frozen=True, slots=True)
class _Wrong:
    """The first event of a cause in a chunk."""

    user: str
    key: bytes | None
    offset: int


class KeyCheck:
    """Checks the keys and the place of the events of one partition.

    Args:
        context: what the partitions of a worker share.
        partition: partition of the events topic.
    """

    def __init__(self, context: Context, partition: int) -> None:
        self._metrics = context.metrics
        self._topic = context.cluster.topics.events
        self._partitions = context.cluster.partitions(self._topic)
        self._partition = partition
        self._partitioner = context.settings.partitioner
        self._rule = -1 if self._partitions == 1 else RULES.get(self._partitioner, -1)
        self._log_once = context.log_once
        self._user_ids = context.settings.log_user_ids
        self._pseudonyms = context.pseudonyms

    @property
    def knows_places(self) -> bool:
        """True if the partition of a user is known, and may be another one."""
        return self._rule >= 0

    def targets_of(self, users: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the partition (N,) of each user id."""
        return partitions_of_all(users, self._rule, self._partitions)

    def away(self, users: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places (M,) of users that belong to other partitions, and to which (M,)."""
        if self._rule < 0 or not users:
            return _NONE, _NONE
        targets = self.targets_of(users)
        (places,) = (targets != self._partition).nonzero()
        return places, targets[places]

    def count(
        self,
        records: Sequence[Any],
        batch: EventBatch,
        users: Sequence[bytes],
        away: NDArray[np.int64],
        handed: bool,
        record_places: Sequence[int],
    ) -> None:
        """Count the events of a chunk whose key or partition is not that of their user.

        Args:
            records: of the chunk, in the order of their offsets.
            batch: the events that were accepted among them.
            users: (N,) ids of their users.
            away: places of those that belong to other partitions.
            handed: whether they are handed on to these.
            record_places: (N,) of each event, the index of its record.
        """
        keys = [records[place].key for place in record_places]
        if keys == users and not len(away):
            return
        wrong: dict[str, list[int]] = {cause: [] for cause in CAUSES}
        for place, (key, user) in enumerate(zip(keys, users, strict=True)):
            if key != user:
                wrong["no_key" if key is None else "other_key"].append(place)
        for place in away.tolist():
            if keys[place] == users[place]:
                wrong["other_partition"].append(place)
        for cause, places in wrong.items():
            if places:
                self._metrics.key_mismatch.labels(cause).inc(len(places))
                if cause not in self._log_once:
                    self._log_once.add(cause)
                    first = places[0]
                    event = _Wrong(batch.users[first], keys[first], int(batch.offsets[first]))
                    self._say(cause, event, [users[place] for place in places], handed)

    def _say(self, cause: str, event: _Wrong, users: list[bytes], handed: bool) -> None:
        effect = HANDED if handed else TWO_STATES
        place = f"{self._topic}-{self._partition}, offset {event.offset}"
        user, key = event.user, repr((event.key or b"").decode(errors="replace"))
        if not self._user_ids:
            user = key = HIDDEN
        elif self._pseudonyms:
            user, key = self._pseudonyms.of(user), HIDDEN
        if cause == "other_partition":
            fit = fitting(
                {(user, self._partition) for user in users}, self._partitions, self._partitioner
            )
            log.warning(
                "%s: user %s belongs to partition %s by %s (TRACKER_PARTITIONER), and %s puts it"
                " here; %s. %s."
                " tracker_key_mismatch_total counts such events; this is said once",
                place, user,
                partition_of(event.user, self._partitions, self._partitioner), self._partitioner,
                fit or "another rule", effect, remedy(self._partitioner, fit),
                extra=ONCE,
            )  # fmt: skip
            return
        log.warning(
            "%s: the event of user %s has %s; the key chooses the partition, and %s. Set the key to"
            " the user_id. tracker_key_mismatch_total counts such events; this is said once",
            place, user,
            "no key" if event.key is None else f"the key {key}",
            effect,
            extra=ONCE,
        )  # fmt: skip
