"""Events that come over HTTP, checked as the worker checks records, and sent to Kafka."""

import asyncio
from functools import partial

import msgspec

from tracker.api.host import Host
from tracker.api.messages import SentAnswer, SentEvent
from tracker.api.problems import ProblemError
from tracker.api.server import Call
from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventReader
from tracker.events.wire import RejectedEventError
from tracker.explained import first_line
from tracker.kafka.partitioner import partition_of

SEND_SECONDS = 8.0
"""Time in which Kafka has to confirm the events of a request."""


MOST_WAITING_BYTES = 16 * 1024 * 1024
"""Bytes of events that wait for Kafka; while it does not answer, further ones are refused."""


class Sending:
    """Sends events to the events topic.

    Args:
        host: the worker.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting_bytes = 0

    async def events(self, call: Call) -> SentAnswer:
        """Send the events of a body, and return the offset of each, or why it was not sent.

        They are in the format that TRACKER_EVENTS_FORMAT names. In our own, an action without a
        timestamp gets the worker's clock.

        Raises:
            ProblemError: the partitioner is not known here, Kafka does not confirm, or it has not
                confirmed so much that no more is taken.
        """
        if self._waiting_bytes >= MOST_WAITING_BYTES:
            raise ProblemError(
                503, f"{self._waiting_bytes} bytes of events wait for Kafka, which does not confirm"
            )
        context = self._host.context
        settings, topic = context.settings, context.cluster.topics.events
        partitions = context.cluster.partitions(topic)
        now = context.clock()
        reader = EventReader(
            context.kinds,
            settings.timestamps,
            settings.unknown_fields == "reject",
            context.dialect,
            context.caches,
        )
        outcomes: dict[int, SentEvent] = {}
        sending: dict[int, tuple[int, asyncio.Future[int]]] = {}
        for index, fields in enumerate(call.body.events):
            event = dict(fields)
            if event.get("retracts") is None and context.dialect is None:
                event.setdefault("timestamp", now)
            value = msgspec.json.encode(event)
            try:
                user = reader.check(value, Arrivals.of_records([None], [None], now))
            except RejectedEventError as error:
                outcomes[index] = SentEvent(index, reason=error.reason, message=str(error)[:1024])
                continue
            if user is None:
                outcomes[index] = SentEvent(
                    index, reason="passed_over", message="it says nothing of an item"
                )
                continue
            number = partition_of(user, partitions, settings.partitioner)
            if number is None:
                raise ProblemError(
                    409,
                    "TRACKER_PARTITIONER is given: the partition of an event is not known here;"
                    " send it with your own producer",
                )
            sent = asyncio.ensure_future(self._host.send(topic, number, user.encode(), value))
            self._waiting_bytes += len(value)
            sent.add_done_callback(partial(self._confirmed, len(value)))
            sending[index] = number, sent
        if sending:
            await asyncio.wait([future for _, future in sending.values()], timeout=SEND_SECONDS)
        for index, (number, future) in sending.items():
            if not future.done():
                message = f"Kafka did not confirm within {SEND_SECONDS:g} s; it may be stored"
                outcomes[index] = SentEvent(index, number, reason="unconfirmed", message=message)
            elif (failure := future.exception()) is not None:
                outcomes[index] = SentEvent(
                    index, number, reason="not_stored", message=first_line(failure)
                )
            else:
                outcomes[index] = SentEvent(index, number, future.result())
        events = [outcomes[index] for index in sorted(outcomes)]
        stored = sum(event.offset is not None for event in events)
        if sending and not stored:
            why = outcomes[min(sending)].message  # others may have been refused before
            raise ProblemError(503, f"Kafka did not store the events: {why}")
        return SentAnswer(stored, len(events) - stored, events)

    def _confirmed(self, size: int, sent: asyncio.Future[int]) -> None:
        """Count an event as no longer waiting, also if nobody asks for its offset any more."""
        self._waiting_bytes -= size
        if not sent.cancelled():
            sent.exception()
