"""Events that come over HTTP, checked as the worker checks records, and sent to Kafka."""

import asyncio

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


class Sending:
    """Sends events to the events topic.

    Args:
        host: the worker.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    async def events(self, call: Call) -> SentAnswer:
        """Send the events of a body, and return the offset of each, or why it was not sent.

        They are in the format that TRACKER_EVENTS_FORMAT names. In our own, an action without a
        timestamp gets the worker's clock.

        Raises:
            ProblemError: the partitioner is not known here, or Kafka does not confirm.
        """
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
            sent = self._host.send(topic, number, user.encode(), value)
            sending[index] = number, asyncio.ensure_future(sent)
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
            raise ProblemError(503, f"Kafka did not store the events: {events[0].message}")
        return SentAnswer(stored, len(events) - stored, events)
