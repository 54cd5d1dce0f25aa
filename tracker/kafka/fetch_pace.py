"""FetchPace: a minimum time between two fetch requests of a consumer; and which it makes.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

SMALL_FETCH = 256
"""Records of a fetch, and offsets not fetched, below which the next fetch waits for more."""

REST = 1.0
"""While few events come, the event loop rests for as many times as long as it has worked."""

MOST_PACE_SECONDS = 0.014
"""Maximum time between two fetches that this leads to. At 2,000 events/s the slowest lists come a
quarter sooner than with 0.02, for a seventh more processor time."""

WORK_SHARE = 0.125
"""Share of the latest fetch in the mean of the processor time that one leads to."""


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
        self._thread_seconds = 0.0  # processor time of the thread when it was asked last
        self._mean_work = 0.0  # processor seconds of the thread for a fetch, lately

    def apply_to(self, fetcher: Any) -> None:
        """Delay the requests of an aiokafka `Fetcher` that come too soon."""
        plan = fetcher._get_actions_per_node

        def paced(assignment: Any) -> Any:
            requests, resets, timeout, needs_metadata, resumed = plan(assignment)
            ready, wait = self._divide(requests)
            return ready, resets, min(timeout, wait), needs_metadata, resumed

        fetcher._get_actions_per_node = paced

    def work(self) -> float:
        """Return the processor time of this thread since the last call, in seconds."""
        before, self._thread_seconds = self._thread_seconds, time.thread_time()
        return self._thread_seconds - before

    def fetched(self, work: float, events: int | None, linger: float | None) -> None:
        """Set the time to the next request: more if this one brought few events, and these alone.

        Few large chunks come then instead of many of one event, each of which costs as much.

        Args:
            work: processor time that the fetch before has led to, in seconds.
            events: events that it brought or that are not fetched yet; None if it brought other
                records too.
            linger: the time if there are few, in seconds; None for one that leaves the thread idle
                for half of it.
        """
        self._mean_work += (work - self._mean_work) * WORK_SHARE
        self.seconds = 0.0
        if events is not None and events < SMALL_FETCH:
            rest = min((1.0 + REST) * self._mean_work, MOST_PACE_SECONDS)
            self.seconds = rest if linger is None else linger

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
