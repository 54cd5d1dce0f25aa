"""Parts of a computation that run at once: on threads of this process, or on a Ray cluster."""

import importlib.util
import logging
import os
import pickle
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from tracker.explained import Explained, first_line

Common = TypeVar("Common")
Part = TypeVar("Part")
Result = TypeVar("Result")

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, which ends with the command."""

ANSWER_SECONDS = 10.0
"""Time in which the head of a cluster accepts a connection."""


class ShardsError(Explained):
    """The cluster cannot be used, or a process of it ended; the message gives the reason."""


class Shards(Protocol):
    """A number of workers that compute parts; `count` is how many there are."""

    @property
    def count(self) -> int:
        """Return the number of workers."""

    def map(
        self, task: Callable[[Common, Part], Result], common: Common, parts: Iterable[Part]
    ) -> Iterator[Result]:
        """Begin all parts; the iterator waits for their results, in the order of the parts.

        Args:
            task: a function of a module. Its result depends on its arguments alone.
            common: what all parts read; it is sent to each worker once.
            parts: of the computation; each is sent to one worker.

        Raises:
            ShardsError: a worker ended. What a task raises is raised as it is.
        """


class Threads:
    """Workers that are threads of this process."""

    def __init__(self, count: int) -> None:
        self.count = count

    def map(
        self, task: Callable[[Common, Part], Result], common: Common, parts: Iterable[Part]
    ) -> Iterator[Result]:
        """Compute the parts, see `Shards`."""
        with ThreadPoolExecutor(self.count) as executor:
            yield from executor.map(partial(task, common), parts)


class _Worker:
    """A process of the cluster, with what all parts of a computation read.

    Everything goes as bytes: arrays in Ray's shared memory can be read only, and native code would
    be compiled again for them.
    """

    def __init__(self, task: Callable[[Any, Any], Any], common: bytes) -> None:
        self._task, self._common = task, pickle.loads(common)

    def compute(self, part: bytes) -> bytes:
        """Compute a part."""
        return pickle.dumps(self._task(self._common, pickle.loads(part)))


class _Ray:
    """Workers that are processes of the cluster that Ray is connected to, one a processor core."""

    def __init__(self, count: int) -> None:
        self.count = count

    def map(
        self, task: Callable[[Common, Part], Result], common: Common, parts: Iterable[Part]
    ) -> Iterator[Result]:
        """Compute the parts, see `Shards`."""
        import ray
        from ray.util import ActorPool

        waiting = [pickle.dumps(part) for part in parts]
        if not waiting:
            return iter(())
        worker, shared = ray.remote(num_cpus=1)(_Worker), ray.put(pickle.dumps(common))
        workers = [worker.remote(task, shared) for _ in range(min(self.count, len(waiting)))]
        results = ActorPool(workers).map(lambda one, part: one.compute.remote(part), waiting)
        return _results(results, workers)


def _results(results: Iterator[Any], workers: list[Any]) -> Iterator[Any]:
    """Yield results with errors as tasks raised them; the workers end with the iterator."""
    import ray

    try:
        yield from map(pickle.loads, results)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise ShardsError(
            f"a process of the Ray cluster ended: {first_line(error)}; nothing was published. Is"
            " there enough memory, and the same version of everything on each machine?"
        ) from error
    finally:
        for worker in workers:
            ray.kill(worker)


@contextmanager
def ray_shards(address: str) -> Iterator[Shards]:
    """Connect to a Ray cluster during the `with` block; each of its cores is a worker.

    Every machine needs the same version of this package and of what it depends on. Files are read
    and written by this process alone.

    Args:
        address: of the cluster's head, as `ray start` prints it, or LOCAL.

    Raises:
        ShardsError: Ray is not installed, or there is no cluster at the address.
    """
    if importlib.util.find_spec("ray") is None:
        raise ShardsError("no module ray: install the extra `ray` for --ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    import ray

    try:
        if host := re.fullmatch(r"(?:ray://)?([\w.-]+):(\d+)", address):
            # Ray itself tries for minutes.
            socket.create_connection((host[1], int(host[2])), ANSWER_SECONDS).close()
        ray.init(
            address, include_dashboard=False if address == LOCAL else None,
            configure_logging=False, log_to_driver=False, logging_level=logging.ERROR,
        )  # fmt: skip
    except Exception as error:  # Ray has no class of its own for a node that does not start
        ray.shutdown()
        raise ShardsError(
            f"no Ray cluster at {address}: {first_line(error)}; give the address that `ray start"
            " --head` prints, or `local`"
        ) from error
    try:
        yield _Ray(max(1, int(ray.cluster_resources().get("CPU", 1.0))))
    finally:
        ray.shutdown()
