"""Partitioners: the partition that each kind of producer chooses for a record's key."""

import random
import zlib
from collections.abc import Callable, Collection, Sequence

from aiokafka.partitioner import murmur2

from tracker.explained import Explained
from tracker.settings import Partitioner

MASK = 0xFFFFFFFF


class PartitionerError(Explained):
    """A partition has to be chosen, and the producers' rule is not known."""


def _murmur2(key: bytes) -> int:
    """Return the hash of Java clients. Source: `Utils.murmur2` and `toPositive` of Kafka."""
    return int(murmur2(key)) & 0x7FFFFFFF


def _crc32(key: bytes) -> int:
    """Return the hash of librdkafka's `consistent_random`: unsigned, without a mask.

    Source: `rd_kafka_msg_partitioner_consistent` of librdkafka, `src/rdkafka_msg.c`.
    """
    return zlib.crc32(key)


def _fnv1a(key: bytes) -> int:
    """Return the hash of Sarama's `NewHashPartitioner`: FNV-1a of 32 bits, its sign dropped.

    Sarama takes the remainder of the signed number first, and drops the sign then: the same.
    Source: `partitioner.go` of Sarama; `rd_fnv1a` of librdkafka, which agrees with it.
    """
    value = 0x811C9DC5
    for byte in key:
        value = (value ^ byte) * 0x01000193 & MASK
    return value if value < 1 << 31 else (1 << 32) - value


HASHES: dict[Partitioner, Callable[[bytes], int]] = {
    "murmur2": _murmur2,
    "crc32": _crc32,
    "fnv1a": _fnv1a,
}
"""The hash of each partitioner: the partition is its remainder by the number of partitions."""

CHOSEN_BY: dict[Partitioner, str] = {
    "murmur2": "Java clients, Kafka Connect, KafkaJS, franz-go, aiokafka and `tracker send`",
    "crc32": "clients on librdkafka (confluent-kafka, kcat)",
    "fnv1a": "Sarama",
}
"""Whose default each partitioner is."""

LIBRDKAFKA: dict[Partitioner, str] = {
    "murmur2": "murmur2_random",
    "crc32": "consistent_random",
    "fnv1a": "fnv1a_random",
}
"""The name of each partitioner in the settings of librdkafka, which has all three."""

ONE_RULE = (
    "key events by the user_id, and let all producers choose partitions by one rule"
    " (docs/reference/partitioners.md has the setting of each client)"
)
"""What keeps the events of a user in one partition."""


def partition_of(user_id: str, partitions: int, partitioner: Partitioner) -> int | None:
    """Return the partition of a user's events; None where the producers' rule is not known."""
    if partitions == 1:
        return 0
    choose = HASHES.get(partitioner)
    return None if choose is None else choose(user_id.encode()) % partitions


def fitting(
    places: Collection[tuple[bytes, int]], partitions: int, first: Partitioner
) -> Partitioner | None:
    """Return the partitioner that puts every key into its partition; None if none does.

    Args:
        places: keys, and the partition of each.
        partitions: number of partitions of the topic.
        first: the partitioner to prefer where several fit.
    """
    for name in sorted(HASHES, key=lambda name: name != first):
        if places and all(HASHES[name](key) % partitions == place for key, place in places):
            return name
    return None


def remedy(configured: Partitioner, fit: Partitioner | None) -> str:
    """Return what to do about records that another partitioner put where they are."""
    if fit is None:
        return (
            f"{ONE_RULE}; if they share one that is neither murmur2, crc32 nor fnv1a, set"
            " TRACKER_PARTITIONER=given"
        )
    return (
        f"{fit} is the rule of {CHOSEN_BY[fit]}: set TRACKER_PARTITIONER={fit} if it is that"
        f" of all your producers, or in clients on librdkafka partitioner={LIBRDKAFKA[configured]};"
        f" {ONE_RULE}"
    )


class ProducerPartitioner:
    """A partitioner for aiokafka's producer: as the settings say, at random without a key.

    Args:
        partitioner: the rule.

    Raises:
        PartitionerError: on a call, if the rule is not known and there are several partitions.
    """

    def __init__(self, partitioner: Partitioner) -> None:
        self._partitioner = partitioner

    def __call__(
        self, key: bytes | None, partitions: Sequence[int], available: Sequence[int]
    ) -> int:
        """Return one of the partitions, as aiokafka asks for it."""
        if key is None or len(partitions) == 1:
            return random.choice(available or partitions)  # as aiokafka's own
        choose = HASHES.get(self._partitioner)
        if choose is None:
            raise PartitionerError(
                "TRACKER_PARTITIONER is given: the rule of your producers is not known here, so no"
                " partition can be chosen for an event; send it with your own producer, or set"
                " TRACKER_PARTITIONER to murmur2, crc32 or fnv1a"
            )
        return choose(key) % len(partitions)
