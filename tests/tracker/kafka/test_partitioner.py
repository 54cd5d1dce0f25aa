"""Partitions are chosen as Java clients, librdkafka and Sarama choose them."""

import asyncio

import pytest
from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import Producer

from tracker.kafka.client import Received, read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.partitioner import (
    HASHES,
    PartitionerError,
    ProducerPartitioner,
    fitting,
    partition_of,
    remedy,
)
from tracker.kafka.topics import ensure_topics
from tracker.settings import Partitioner, load_settings

# Sources: UtilsTest of Kafka for `Utils.murmur2`; unit tests and 0048-partitioner.c of librdkafka;
# `crc32` of POSIX systems; the playground of Go for FNV-1a, its sign dropped.
KNOWN: list[tuple[Partitioner, bytes, int]] = [
    ("murmur2", b"21", -973932308 & 0x7FFFFFFF),
    ("murmur2", b"foobar", -790332482 & 0x7FFFFFFF),
    ("murmur2", b"a-little-bit-long-string", -985981536 & 0x7FFFFFFF),
    ("murmur2", b"abc", 479470107),
    ("murmur2", b"23456", 0x058D780F),
    ("murmur2", b"hejsan", 0x5EC19395),
    ("crc32", b"123456789", 0xCBF43926),
    ("crc32", b"23456", 0xB1B451D7),
    ("crc32", b"hejsan", 0xD077037E),
    ("crc32", b"this is another string with more length to it perhaps", 0xB0150DF7),
    ("fnv1a", b"kafka", 0xD33C4E1),
    ("fnv1a", b"giberish123456789", 0x77A58295),
    ("fnv1a", b"34", 0x740FA83E),
    ("fnv1a", b"4", 0x310CA263),
    ("fnv1a", b"", 0x7EE3623B),
    ("fnv1a", b"23456", 0x27E6F469),
    ("fnv1a", b"hejsan", 0x17B1E27A),
]


@pytest.mark.parametrize(("partitioner", "key", "known"), KNOWN)
def test_hashes_are_those_that_the_clients_publish(
    partitioner: Partitioner, key: bytes, known: int
) -> None:
    assert HASHES[partitioner](key) == known
    assert partition_of(key.decode(), 17, partitioner) == known % 17


@pytest.mark.parametrize("user", ["", "a", "u-17", "\N{SNOWMAN}", "x" * 300])
def test_murmur2_is_what_kafkas_own_clients_choose(user: str) -> None:
    partitions = list(range(7))
    chosen = DefaultPartitioner()(user.encode(), partitions, partitions)
    assert partition_of(user, 7, "murmur2") == chosen


def test_fnv1a_takes_the_remainder_of_a_negative_hash_as_sarama_does() -> None:
    # 20 has a hash above 2**31; an unsigned remainder would give another partition.
    # Source: "hash code with MSB set" in balancer_test.go of segmentio/kafka-go.
    assert partition_of("20", 16, "fnv1a") == 1
    assert partition_of("blah", 3, "fnv1a") == 1
    assert partition_of("boop", 3, "fnv1a") == 2


def test_an_unknown_rule_names_a_partition_only_where_there_is_one() -> None:
    assert partition_of("u", 1, "given") == 0
    assert partition_of("u", 8, "given") is None


def test_the_partitioner_that_fits_all_keys_is_found() -> None:
    keys = [f"user-{number}".encode() for number in range(40)]
    for name, choose in HASHES.items():
        places = {(key, choose(key) % 8) for key in keys}
        assert fitting(places, 8, "murmur2") == name
    spread = {(key, place) for key in keys for place in range(8)}
    assert fitting(spread, 8, "murmur2") is None
    assert fitting(set(), 8, "murmur2") is None


def test_the_configured_partitioner_is_preferred_where_several_fit() -> None:
    for name in HASHES:
        assert fitting({(b"a", 0)}, 1, name) == name


def test_the_remedy_names_whose_rule_it_is_and_both_ways_out() -> None:
    text = remedy("murmur2", "crc32")
    assert "confluent-kafka" in text
    assert "partitioner=murmur2_random" in text
    assert "TRACKER_PARTITIONER=crc32" in text
    assert "TRACKER_PARTITIONER=given" in remedy("murmur2", None)


def test_a_producer_that_does_not_know_the_rule_says_what_to_do() -> None:
    choose = ProducerPartitioner("given")
    with pytest.raises(PartitionerError, match="TRACKER_PARTITIONER to murmur2, crc32 or fnv1a"):
        choose(b"u", [0, 1], [0, 1])
    assert choose(b"u", [0], [0]) == 0
    assert choose(None, [0, 1], [1]) == 1


@pytest.mark.parametrize(
    ("partitioner", "setting"),
    [("crc32", None), ("murmur2", "murmur2_random"), ("fnv1a", "fnv1a_random")],
)
def test_librdkafka_itself_chooses_the_same_partitions(
    tansu: str, prefix: str, partitioner: Partitioner, setting: str | None
) -> None:
    settings = load_settings({}, brokers=tansu, name=prefix, event_partitions=7)
    topic = topics_of(settings).events
    keys = [f"user-{number}" for number in range(60)]

    async def stored() -> list[Received]:
        return [record async for record in read_topic(settings, topic)]

    asyncio.run(ensure_topics(settings))
    options = {} if setting is None else {"partitioner": setting}
    producer = Producer({"bootstrap.servers": tansu, **options})
    for key in keys:
        producer.produce(topic, b"{}", key=key)
    assert producer.flush(20) == 0
    found = {(record.key or b"").decode(): record.partition for record in asyncio.run(stored())}
    assert found == {key: partition_of(key, 7, partitioner) for key in keys}
