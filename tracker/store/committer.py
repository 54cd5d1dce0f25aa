"""Committer: records of one partition, its position and its item events in one transaction.

On the path of one commit: see docs/design/one-event-one-commit.md.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    ProducerFenced,
)

from tracker.explained import Explained, first_line
from tracker.kafka.outbox import MAX_BATCH_BYTES, REFUSED, Record, fill_batches, parts_of
from tracker.kafka.record_batch import RecordBatch, record_bytes
from tracker.store.database import write_records

FENCED = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping)

StoredRecords = Sequence[tuple[bytes, bytes | None]]
"""Records of a changelog: key and value, None to delete."""


class FencedError(Explained):
    """Another worker owns the partition now; this one has to stop."""


class CommitAbortedError(RuntimeError):
    """A transaction was aborted; nothing of it is visible, and it can be tried again."""


class CommitRefusedError(Explained):
    """The broker will never accept a batch of this size: a limit of it or of a topic is too low."""


class CommitUnknownError(Explained):
    """The broker did not answer a commit, which may or may not have happened."""


class Committer:
    """Commits records of one partition to its changelog and its database, or to neither.

    Args:
        producer: transactional producer of this partition alone, started.
        transactions: whether the producer has a transactional id.
        changelog: changelog topic of the records.
        partition: partition of the changelog, the same number as that of the source.
    """

    def __init__(
        self, producer: AIOKafkaProducer, transactions: bool, changelog: str, partition: int
    ) -> None:
        self._producer = producer
        self._transactions = transactions
        self._changelog = changelog
        self._partition = partition

    async def write(
        self, database: Any, records: StoredRecords, outgoing: Sequence[Record]
    ) -> None:
        """Commit records to the changelog and the database, and `outgoing` to its topics.

        1. Send `outgoing`, then `records`, in one Kafka transaction. Without transactions the last
           record, the position, is sent after everything else is acknowledged: a crash in between
           repeats events, and loses none.
        2. Write the records and their changelog offset to RocksDB in one batch.

        Args:
            database: RocksDB of this partition.
            records: key and value, None to delete; the position record is the last.
            outgoing: item events, and recommendations if the settings say so.

        Raises:
            FencedError: another worker owns the partition.
            CommitAbortedError: nothing was committed; try again.
            CommitRefusedError: nothing was committed, and trying again does not help.
            CommitUnknownError: the commit may or may not have happened.
            DatabaseError: the commit is in the changelog and not in the database.
        """
        # 1. Commit to Kafka.
        if self._transactions:
            last_offset = await self._send_in_transaction(records, outgoing)
        else:
            last_offset = await self._send_in_order(records, outgoing)
        # 2. Write the same to RocksDB.
        await asyncio.to_thread(write_records, database, records, last_offset)

    async def stop(self) -> None:
        """Close the producer; the next owner aborts a transaction that is still open."""
        await self._producer.stop()

    async def _send_in_transaction(self, records: StoredRecords, outgoing: Sequence[Record]) -> int:
        """Send everything in one transaction; return the changelog offset of the last record."""
        producer = self._producer
        try:
            await producer.begin_transaction()
            try:
                sent = await self._send(outgoing)
                changes, count = await self._send_records(records)
                answers = await asyncio.gather(*sent, *changes, return_exceptions=True)
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
            except FENCED:
                raise
            except REFUSED as error:
                await producer.abort_transaction()
                raise CommitRefusedError(
                    f"the broker refuses a batch for {self._changelog}-{self._partition} or for"
                    f" what goes with it ({first_line(error)}); batches have up to"
                    f" {MAX_BATCH_BYTES} bytes: set max.message.bytes of the topics, or"
                    " message.max.bytes of the broker, to 1048588 or more"
                ) from error
            except (KafkaError, OSError) as error:
                await producer.abort_transaction()
                raise CommitAbortedError(first_line(error)) from error
            await producer.commit_transaction()
        except FENCED as error:
            raise FencedError(
                f"another worker owns {self._changelog}-{self._partition} now and has fenced this"
                " one, which sent no heartbeat for TRACKER_SESSION_TIMEOUT_SECONDS; restart it"
            ) from error
        except (KafkaError, OSError, AssertionError) as error:
            raise self._unknown(error) from error
        return int(changes[-1].result().offset) + count - 1

    async def _send_in_order(self, records: StoredRecords, outgoing: Sequence[Record]) -> int:
        """Send one after the other, the position last; return the offset of the last record."""
        try:
            await asyncio.gather(*await self._send(outgoing))
            if len(records) > 1:
                changes, _ = await self._send_records(records[:-1])
                await asyncio.gather(*changes)
            (position, _) = await self._send_records(records[-1:])
            return int((await position[0]).offset)
        except (KafkaError, OSError) as error:
            raise self._unknown(error) from error

    async def _send(self, records: Sequence[Record]) -> list["asyncio.Future[Any]"]:
        by_target: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            by_target.setdefault((record.topic, record.partition), []).append(record)
        return [
            await self._producer.send_batch(batch, topic, partition=partition)
            for (topic, partition), group in by_target.items()
            for batch, _ in fill_batches(group, self._transactions)
        ]

    async def _send_records(
        self, records: StoredRecords
    ) -> tuple[list["asyncio.Future[Any]"], int]:
        """Send records to the changelog; return its batches' futures and the last one's count."""
        keys = [key for key, _ in records]
        values = [value for _, value in records]
        sent: list[asyncio.Future[Any]] = []
        for part in parts_of(record_bytes(keys, values)):
            if sent:
                await asyncio.sleep(0)  # let fetches and other commits pass
            batch = RecordBatch(keys[part], values[part], transactional=self._transactions)
            future = await self._producer.send_batch(
                batch, self._changelog, partition=self._partition
            )
            sent.append(future)
        return sent, batch.record_count()

    def _unknown(self, error: BaseException) -> CommitUnknownError:
        return CommitUnknownError(
            f"the broker did not answer a commit of {self._changelog}-{self._partition}"
            f" ({first_line(error)}), so it may or may not have happened; the worker stops, and"
            " after a restart it resumes from the last committed position"
        )
