"""FetchPace: a minimum time between two fetch requests of a consumer; and which it makes.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple


class FetchPace:
    """Keeps a minimum time between two fetch requests to a broker.

    aiokafka sends the next request as soon as the records of the last one are taken, so at some
    hundred records a second each record comes alone, and what a fetch and a chunk cost is paid for
    each. A request that has waited for its first record longer than that is followed at once.

    Attributes:
        seconds: minimum time between two requests; 0 for none. Another thread may set it.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._sent_at: dict[int, float] = {}

    def apply_to(self, fetcher: Any) -> None:
        """Delay the requests of an aiokafka `Fetcher` that come too soon."""
        plan = fetcher._get_actions_per_node

        def paced(assignment: Any) -> Any:
            requests, resets, timeout, needs_metadata, resumed = plan(assignment)
            ready, wait = self._divide(requests)
            return ready, resets, min(timeout, wait), needs_metadata, resumed

        fetcher._get_actions_per_node = paced

    def _divide(self, requests: list[tuple[int, Any]]) -> tuple[list[tuple[int, Any]], float]:
        """Return the requests that may be sent now, and the seconds until the next one may be."""
        now, seconds = time.monotonic(), self.seconds
        ready, wait = [], float("inf")
        for node, request in requests:
            rest = self._sent_at.get(node, -float("inf")) + seconds - now
            if rest > 0.0:
                wait = min(wait, rest)
            else:
                self._sent_at[node] = now
                ready.append((node, request))
        return ready, wait


class _Part(NamedTuple):
    """The part of an aiokafka `Assignment` that its plan of requests reads."""

    tps: set[Any]
    state_value: Callable[[Any], Any]


def fetch_only(
    fetcher: Any, fetches: Callable[[Any], bool], wait_milliseconds: Callable[[], int]
) -> None:
    """Restrict an aiokafka `Fetcher` to some partitions, and set how long it waits for records.

    By itself it looks up the offset of each partition that is assigned, and fetches it before it is
    sought. What it has then is of no use, and holds up the fetches of others.

    Args:
        fetcher: of a consumer.
        fetches: returns whether a partition is fetched now. Both are called in the consumer's
            thread.
        wait_milliseconds: returns fetch.max.wait.ms of the next request.
    """
    plan = fetcher._get_actions_per_node

    def planned(assignment: Any) -> Any:
        fetcher._fetch_max_wait_ms = wait_milliseconds()
        tps = {tp for tp in assignment.tps if fetches(tp)}
        return plan(_Part(tps, assignment.state_value))

    fetcher._get_actions_per_node = planned
