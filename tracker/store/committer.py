"""Committer: state, position and item events of one partition in one transaction."""

import asyncio
import logging
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
from tracker.kafka.outbox import MAX_BATCH_BYTES, REFUSED, Record, fill_batches
from tracker.store.database import write_rows

log = logging.getLogger(__name__)

FENCED = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping)

Rows = Sequence[tuple[bytes, bytes | None]]


class FencedError(Explained):
    """Another worker owns the partition now; this one has to stop."""


class CommitAbortedError(RuntimeError):
    """A transaction was aborted cleanly; nothing of it is visible, and it can be tried again."""


class CommitRefusedError(Explained):
    """The broker will never take a batch of this size; a setting of it or of a topic is too low."""


class CommitUnknownError(Explained):
    """Nobody knows whether a commit took place; only a restart can tell."""


class Committer:
    """Brings rows of one partition into the changelog and the database, or into neither.

    Args:
        producer: this partition's own, started.
        transactions: whether the producer has a transactional id.
        changelog: the topic of the rows.
        partition: of the changelog, and of the source.
    """

    def __init__(
        self, producer: AIOKafkaProducer, transactions: bool, changelog: str, partition: int
    ) -> None:
        self._producer = producer
        self._transactions = transactions
        self._changelog = changelog
        self._partition = partition

    async def write(self, database: Any, rows: Rows, first: Sequence[Record]) -> None:
        """Commit rows.

        1. In one transaction: `first` (item events, and recommendations where the settings say
           so), then the rows. Where the broker has no transactions, `first` is in the log before
           any row is sent, and the last row after all others.
        2. One write of the database with the rows and their offset in the changelog.

        Args:
            database: this partition's.
            rows: key and value, None to delete; the position row is the last.
            first: what goes to other topics.

        Raises:
            FencedError: another worker owns the partition.
            CommitAbortedError: nothing happened, and it can be tried again.
            CommitRefusedError: nothing happened, and nothing else will.
            CommitUnknownError: nobody knows what happened.
        """
        if self._transactions:
            last = await self._in_transaction(rows, first)
        else:
            last = await self._one_by_one(rows, first)
        await asyncio.to_thread(write_rows, database, rows, last)

    async def stop(self) -> None:
        """Close the producer; an open transaction is left to the next owner."""
        await self._producer.stop()

    async def _in_transaction(self, rows: Rows, first: Sequence[Record]) -> int:
        producer = self._producer
        try:
            await producer.begin_transaction()
            try:
                sent = await self._send(first)
                more, count = await self._send_rows(rows)
                answers = await asyncio.gather(*sent, *more, return_exceptions=True)
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
            except FENCED:
                raise
            except REFUSED as error:
                await producer.abort_transaction()
                raise CommitRefusedError(
                    f"the broker refuses a batch for {self._changelog} or for what goes with it"
                    f" ({first_line(error)}); batches have up to {MAX_BATCH_BYTES} bytes: set"
                    " max.message.bytes of the topics, or message.max.bytes of the broker, to"
                    " 1048588 or more"
                ) from error
            except (KafkaError, OSError) as error:
                await producer.abort_transaction()
                raise CommitAbortedError(first_line(error)) from error
            await producer.commit_transaction()
        except FENCED as error:
            raise FencedError(self._fenced()) from error
        except (KafkaError, OSError, AssertionError) as error:
            raise CommitUnknownError(first_line(error)) from error
        return int(more[-1].result().offset) + count - 1

    async def _one_by_one(self, rows: Rows, first: Sequence[Record]) -> int:
        try:
            await asyncio.gather(*await self._send(first))
            if len(rows) > 1:
                sent, _ = await self._send_rows(rows[:-1])
                await asyncio.gather(*sent)
            (sent, _) = await self._send_rows(rows[-1:])
            return int((await sent[0]).offset)
        except (KafkaError, OSError) as error:
            raise CommitUnknownError(first_line(error)) from error

    async def _send(self, records: Sequence[Record]) -> list["asyncio.Future[Any]"]:
        by_target: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            by_target.setdefault((record.topic, record.partition), []).append(record)
        return [
            await self._producer.send_batch(batch, topic, partition=partition)
            for (topic, partition), group in by_target.items()
            for batch, _ in fill_batches(self._producer, group)
        ]

    async def _send_rows(self, rows: Rows) -> tuple[list["asyncio.Future[Any]"], int]:
        """Send rows; with the batches' futures comes the number of rows in the last one."""
        sent: list[asyncio.Future[Any]] = []
        batch = self._producer.create_batch()
        for key, value in rows:
            if batch.append(timestamp=None, key=key, value=value) is None:
                sent.append(await self._send_batch(batch))
                batch = self._producer.create_batch()
                batch.append(timestamp=None, key=key, value=value)  # empty, it takes any size
                await asyncio.sleep(0)  # thousands of rows: let fetches and other commits pass
        count = int(batch.record_count())
        sent.append(await self._send_batch(batch))
        return sent, count

    async def _send_batch(self, batch: Any) -> "asyncio.Future[Any]":
        batch.close()
        future: asyncio.Future[Any] = await self._producer.send_batch(
            batch, self._changelog, partition=self._partition
        )
        return future

    def _fenced(self) -> str:
        return (
            f"another worker owns partition {self._partition} of {self._changelog} now;"
            " this one was silent for too long"
        )
