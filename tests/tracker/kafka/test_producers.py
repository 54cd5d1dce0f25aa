"""Producers: a coordinator that is looked for while its broker goes away is looked for again."""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka.client import CoordinationType
from aiokafka.errors import IllegalOperation, KafkaConnectionError, TopicAuthorizationFailedError

from tracker.kafka import producers


def test_a_connection_closed_while_the_coordinator_is_looked_for_ends_no_producer() -> None:
    asked: list[str] = []

    async def send(node: int, request: Any, **more: Any) -> Any:
        asked.append(type(request).__name__)
        if len(asked) == 1:
            raise KafkaConnectionError("Connection at 127.0.0.1:9092 closed")
        return SimpleNamespace(error_code=0, coordinator_id=7)

    async def nothing() -> None:
        return None

    async def ready(node: int, group: Any) -> bool:
        return True

    async def go() -> int:
        made = producers._producer(bootstrap_servers="127.0.0.1:1", transactional_id="commits")
        client = made.client
        client.send, client.get_random_node = send, lambda: 1
        client.force_metadata_update, client.ready = nothing, ready
        try:
            found: int = await made._sender._find_coordinator(
                CoordinationType.TRANSACTION, "commits"
            )
        finally:
            made._closed = True  # it was never started
        return found

    assert asyncio.run(go()) == 7
    assert len(asked) == 2


def test_record_that_was_refused_says_why_and_not_the_one_that_could_not_follow_it() -> None:
    async def go() -> tuple[BaseException, BaseException]:
        good, waits, refused = (asyncio.get_running_loop().create_future() for _ in range(3))
        good.set_result(None)
        refused.set_exception(TopicAuthorizationFailedError("shop-items"))
        last = IllegalOperation("Can't send messages while not in transaction")
        both = producers.reason_of([good, waits, refused], last), producers.reason_of([good], last)
        waits.cancel()
        return both

    of_record, of_last = asyncio.run(go())
    assert str(of_record).endswith("shop-items")
    assert isinstance(of_last, IllegalOperation)
