"""Workers as those of a cluster are: each has what is common as a copy, from bytes."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Copies:
    """Workers that compute one after the other in this process, each on its own copies."""

    def __init__(self, count: int) -> None:
        self.count = count

    def map(
        self, task: Callable[[Any, Any], Any], common: Any, parts: Iterable[Any]
    ) -> Iterator[Any]:
        """Compute parts, see `indexer.shards.Shards`."""
        sent = pickle.dumps(common)
        for part in parts:
            copied = pickle.loads(pickle.dumps(part))
            yield pickle.loads(pickle.dumps(task(pickle.loads(sent), copied)))
