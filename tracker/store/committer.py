"""Committer: records of one partition, its position and its item events in one transaction.

On the path of one commit: see docs/design/one-event-one-commit.md.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    IllegalOperation,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    ProducerFenced,
)

from tracker.explained import Explained, first_line
from tracker.kafka.outbox import MAX_BATCH_BYTES, REFUSED, Record, fill_batches, parts_of
from tracker.kafka.patience import DEFAULT, Patience
from tracker.kafka.record_batch import RecordBatch, record_bytes
from tracker.store.database import offset_of, write_records

log = logging.getLogger(__name__)

FENCED = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping)

FORGOTTEN = (
    "the brokers had forgotten the transactional id, after transactional.id.expiration.ms without a"
    " commit"
)
SILENT = "no broker answered for longer than TRACKER_TRANSACTION_TIMEOUT_SECONDS"

STOP_SECONDS = 5.0
"""Maximum time in which a producer of an expired id is closed."""

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


class _ExpiredError(Exception):
    """The brokers have ended what the producer began; its argument says why.

    They have forgotten its transactional id, or its transaction has lasted too long. Or another
    owner has begun the id since; what it has committed tells.
    """


Renew = Callable[[int], Awaitable[AIOKafkaProducer | None]]
"""Starts another producer; returns None if the changelog has records past an offset."""


class Committer:
    """Commits records of one partition to its changelog and its database, or to neither.

    Args:
        producer: transactional producer of this partition alone, started.
        transactions: whether the producer has a transactional id.
        changelog: changelog topic of the records.
        partition: partition of the changelog, the same number as that of the source.
        renew: starts another producer when id or transaction has expired; by default the worker
            ends.
        patience: in which the brokers have to take a commit.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        transactions: bool,
        changelog: str,
        partition: int,
        renew: Renew | None = None,
        patience: Patience = DEFAULT,
    ) -> None:
        self._producer = producer
        self._transactions = transactions
        self._changelog = changelog
        self._partition = partition
        self._renew = renew
        self._patience = patience
        self._sent: list[tuple[str, asyncio.Future[Any]]] = []  # of the commit under way, by topic

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
        self._sent = []
        send = self._send_in_transaction if self._transactions else self._send_in_order
        try:
            async with self._patience.limit():
                last_offset = await send(records, outgoing)
        except TimeoutError as error:
            raise CommitUnknownError(
                f"{self._unwritten()} cannot be written for {self._patience.seconds:g} s"
                f" (TRACKER_SEND_SECONDS), so a commit of {self._changelog}-{self._partition} is"
                " given up: look whether the brokers answer, and whether the topic has enough"
                " replicas in sync (min.insync.replicas); the worker stops, and after a restart it"
                " resumes from the last committed position"
            ) from error
        except _ExpiredError as expired:
            await self._begin_again(offset_of(database))
            raise CommitAbortedError(f"{expired}; a new producer has begun") from expired
        # 2. Write the same to RocksDB.
        await asyncio.to_thread(write_records, database, records, last_offset, time.time())

    async def stop(self) -> None:
        """Close the producer; the next owner aborts a transaction that is still open."""
        await self._producer.stop()

    async def _begin_again(self, offset: int) -> None:
        """Replace the producer whose id or transaction has expired.

        Raises:
            FencedError: another owner has committed since: its records follow ours.
        """
        producer = None if self._renew is None else await self._renew(offset)
        if producer is None:
            raise FencedError(self._fenced())
        expired, self._producer = self._producer, producer
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(STOP_SECONDS):
                await expired.stop()
        log.info("%s-%d: a new producer has begun", self._changelog, self._partition)

    async def _send_in_transaction(self, records: StoredRecords, outgoing: Sequence[Record]) -> int:
        """Send everything in one transaction; return the changelog offset of the last record."""
        producer = self._producer
        started_at = time.monotonic()
        try:
            await producer.begin_transaction()
            try:
                ended: IllegalOperation | None = None
                try:
                    await self._send(outgoing)
                    last, count = await self._send_records(records)
                except (
                    IllegalOperation
                ) as error:  # what was sent before has an answer that says why
                    ended = error
                answers = await asyncio.gather(
                    *(future for _, future in self._sent), return_exceptions=True
                )
                for answer in answers:
                    if isinstance(answer, BaseException) and answer is not ended:
                        raise answer
                if ended is not None:
                    raise ended
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
                if _is_caused_by(error, InvalidProducerIdMapping):
                    raise _ExpiredError(FORGOTTEN) from error  # nothing was written
                if _is_caused_by(error, *FENCED):
                    raise ProducerFenced from error
                await producer.abort_transaction()
                raise CommitAbortedError(first_line(error)) from error
            await producer.commit_transaction()
        except (KafkaError, OSError, AssertionError) as error:
            if not _is_caused_by(error, *FENCED):
                raise self._unknown(error) from error
            if self._patience.was_silent(started_at):
                raise _ExpiredError(SILENT) from error
            raise FencedError(self._fenced(time.monotonic() - started_at)) from error
        return int(last.result().offset) + count - 1

    def _fenced(self, seconds: float = 0.0) -> str:
        """Return why a transaction belongs to nobody any more."""
        place = f"{self._changelog}-{self._partition}"
        if any(_is_acknowledged(future) for _, future in self._sent):
            return (
                f"{self._unwritten()} could not be written for {seconds:.0f} s, and the transaction"
                f" of {place} is over: it took longer than TRACKER_TRANSACTION_TIMEOUT_SECONDS"
                " (look whether the brokers answer, and whether the topic has enough replicas in"
                " sync), or another worker owns the partition; restart it"
            )
        return (
            f"another worker owns {place} now and has fenced this one, which sent no heartbeat for"
            " TRACKER_SESSION_TIMEOUT_SECONDS; restart it"
        )

    def _unwritten(self, nothing: str = "the transaction's coordinator") -> str:
        """Return the topics of a commit under way that have not answered."""
        topics = dict.fromkeys(
            topic for topic, future in self._sent if not _is_acknowledged(future)
        )
        return ", ".join(topics) or nothing

    async def _send_in_order(self, records: StoredRecords, outgoing: Sequence[Record]) -> int:
        """Send one after the other, the position last; return the offset of the last record."""
        try:
            await self._send(outgoing)
            await self._acknowledged()
            if len(records) > 1:
                await self._send_records(records[:-1])
                await self._acknowledged()
            position, _ = await self._send_records(records[-1:])
            return int((await position).offset)
        except (KafkaError, OSError) as error:
            raise self._unknown(error) from error

    async def _acknowledged(self) -> None:
        """Wait for the answers to everything sent so far."""
        await asyncio.gather(*(future for _, future in self._sent))

    async def _send(self, records: Sequence[Record]) -> None:
        by_target: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            by_target.setdefault((record.topic, record.partition), []).append(record)
        for (topic, partition), group in by_target.items():
            for batch, _ in fill_batches(group, self._transactions):
                await self._send_batch(batch, topic, partition)

    async def _send_records(self, records: StoredRecords) -> tuple["asyncio.Future[Any]", int]:
        """Send records to the changelog; return the last batch's future and number of records."""
        keys = [key for key, _ in records]
        values = [value for _, value in records]
        sent: asyncio.Future[Any] | None = None
        for part in parts_of(record_bytes(keys, values)):
            if sent is not None:
                await asyncio.sleep(0)  # let fetches and other commits pass
            batch = RecordBatch(keys[part], values[part], transactional=self._transactions)
            sent = await self._send_batch(batch, self._changelog, self._partition)
        assert sent is not None  # the position is always among the records
        return sent, batch.record_count()

    async def _send_batch(self, batch: Any, topic: str, partition: int) -> "asyncio.Future[Any]":
        sending = asyncio.ensure_future(
            self._producer.send_batch(batch, topic, partition=partition)
        )
        self._sent.append((topic, sending))  # while it waits for room, it is not acknowledged
        future: asyncio.Future[Any] = await sending
        self._sent[-1] = topic, future
        return future

    def _unknown(self, error: BaseException) -> CommitUnknownError:
        return CommitUnknownError(
            f"the broker did not answer a commit of {self._changelog}-{self._partition}"
            f" ({first_line(error)}), so it may or may not have happened; the worker stops, and"
            " after a restart it resumes from the last committed position"
        )


def _is_acknowledged(future: "asyncio.Future[Any]") -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


def _is_caused_by(error: BaseException | None, *types: type[BaseException]) -> bool:
    """Return whether an error, or one that it was raised from, is of a type."""
    while error is not None:
        if isinstance(error, types):
            return True
        error = error.__cause__ or error.__context__
    return False
