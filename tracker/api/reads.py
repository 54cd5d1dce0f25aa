"""Reads: copies of users' states, and work on them beside the stream, a bounded number at once."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, cast

from tracker.api.host import Host
from tracker.api.problems import ProblemError
from tracker.kafka.partitioner import partition_of
from tracker.kernels.row_bytes import NewerRowError
from tracker.stream.partition import BusyError, Partition, RevokedError
from tracker.stream.user_lookup import FoundUser, Moment
from tracker.stream.user_side import UserSide
from tracker.users.states import NewerArtifactError

Result = TypeVar("Result")

MOST_WAITING = 64
"""Reads that run or wait at most; further ones are refused with 429."""

NEWER_SECONDS = 5
"""Wait that is told to whoever asks for a row that this worker cannot read yet."""


@dataclass(frozen=True, slots=True)
class Copy:
    """A user's state, copied between two chunks of its partition.

    Attributes:
        user_id: the user, as asked for.
        name: the name under which the user is kept.
        partition: number of the partition.
        side: of the partition.
        moment: the state of the partition.
        user: the user's row; that of an unknown user if nothing is kept.
        expected: partition where the partitioner puts the user, if it is another one.
        others: other partitions of this worker with a state of the user.
    """

    user_id: str
    name: str
    partition: int
    side: UserSide
    moment: Moment
    user: FoundUser
    expected: int | None = None
    others: tuple[int, ...] = ()

    @property
    def known(self) -> bool:
        """True if anything is kept of the user."""
        return self.user.slot >= 0

    @property
    def now(self) -> float:
        """Stream time plus the wall time since the last chunk, in seconds."""
        return max(self.moment.now, self.user.now)


class Reads:
    """Copies users' states, and runs work on the copies.

    The copy is taken between two chunks and costs them microseconds. Work on it is done in a
    thread, one read at a time, while the stream goes on; the usual lists, which take less time than
    a thread would wait for the interpreter, are made by `LiveLists`.

    Args:
        host: the worker.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        # A thread of its own: in those of the stream each read would wait for chunks.
        self._thread = ThreadPoolExecutor(1, "reads")
        self._waiting = 0

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def partition_of(self, user_id: str) -> int | None:
        """Return the partition of a user; None where the producers' rule is not known.

        A pseudonym does not tell it either: who asks for one is answered by whoever has the user.
        """
        context = self._host.context
        if context.pseudonyms.is_pseudonym(user_id):
            return None
        count = context.cluster.partitions(context.cluster.topics.events)
        return partition_of(user_id, count, context.settings.partitioner)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run work in the thread of reads, in turn.

        Raises:
            ProblemError: too many wait.
        """
        if self._waiting >= MOST_WAITING:
            raise ProblemError(429, f"{MOST_WAITING} requests wait; ask again later")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._waiting -= 1

    async def copy(self, user_id: str, everywhere: bool = False) -> Copy:
        """Copy a user's state.

        Args:
            user_id: the user.
            everywhere: look into all partitions of this worker, for `Copy.others`; by default the
                first one that has the user ends the search.

        Raises:
            ProblemError: the partition is moving, busy, or holds a row that is too new.
        """
        likely = self.partition_of(user_id)
        partitions = self._host.partitions()
        order = sorted(partitions.values(), key=lambda part: part.number != likely)
        if not order:
            raise ProblemError(503, "this worker has no partition now")
        first: Copy | None = None
        others = []
        name = self._host.context.pseudonyms.of_any(user_id)
        for partition in order:
            state = await self._find(partition, name)
            if state is None:
                continue
            if first is not None:
                others.append(partition.number)
                continue
            user, moment = state
            expected = likely if likely not in (None, partition.number) else None
            side = cast(UserSide, partition.side)
            first = Copy(user_id, name, partition.number, side, moment, user, expected)
            if not everywhere:
                return first
        if first is None:
            side = cast(UserSide, order[0].side)
            moment = await self._moment(order[0])
            return Copy(user_id, name, order[0].number, side, moment, side.lookup.new())
        return replace(first, others=tuple(others))

    def now(self) -> float:
        """Return the latest stream time of this worker's partitions, in seconds.

        Without one that had an event, it is the worker's clock.
        """
        times = [
            partition.store.progress.stream_time
            for partition in self._host.partitions().values()
            if partition.store.is_open
        ]
        return max(times, default=0.0) or self._host.context.clock()

    async def moment(self) -> Moment:
        """Return the state of one of the partitions, for a guest."""
        for partition in self._host.partitions().values():
            return await self._moment(partition)
        raise ProblemError(503, "this worker has no partition now")

    async def last_offset(self, user_id: str) -> int:
        """Return the offset of the latest record of a user in memory; -1 for none.

        Raises:
            ProblemError: the user's partition is no longer this worker's.
        """
        likely, partitions = self.partition_of(user_id), self._host.partitions()
        if likely is not None and likely not in partitions:
            raise ProblemError(503, "the user's partition is moving", partition=likely)
        offset = -1
        name = self._host.context.pseudonyms.of_any(user_id)
        for partition in partitions.values():
            side = cast(UserSide, partition.side)
            offset = max(offset, await _asked(partition, partial(side.lookup.last_offset, name)))
        return offset

    async def _moment(self, partition: Partition) -> Moment:
        return await _asked(partition, cast(UserSide, partition.side).lookup.moment)

    async def _find(self, partition: Partition, name: str) -> tuple[FoundUser, Moment] | None:
        """Copy a user's row and the state of the partition, between the same two chunks."""
        side = cast(UserSide, partition.side)
        keeper = self._host.context.keeper

        def find() -> "tuple[FoundUser, Moment] | None":
            moment = side.lookup.moment()  # first: the rows follow the artifact in use
            user = side.lookup.find(name)
            return None if user is None else (user, moment)

        for _ in range(2):
            try:
                return await _asked(partition, find)
            except NewerArtifactError as newer:
                problem: Exception = newer
                if not await keeper.catch_up(newer.sequence):
                    break
            except NewerRowError as row:
                problem = row
                break
        raise ProblemError(
            503, f"the user's row cannot be read yet: {problem}", retry_seconds=NEWER_SECONDS
        )


async def _asked(partition: Partition, query: Callable[[], Result]) -> Result:
    """Run a query between two chunks.

    Raises:
        ProblemError: too many wait, or the partition is moving.
    """
    try:
        return await partition.query(query)
    except BusyError as busy:
        raise ProblemError(429, str(busy)) from busy
    except RevokedError as moved:
        raise ProblemError(503, str(moved), partition=partition.number) from moved
