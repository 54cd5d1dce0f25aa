"""FetchPace: a minimum time between two fetch requests of a consumer."""

import time
from typing import Any


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
