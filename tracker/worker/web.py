"""The HTTP API: /healthz, /readyz, /metrics, /users/ID, /items/ID and /score."""

import math
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import faust
import numpy as np

from tracker.events.item_events import item_partition
from tracker.events.wire import hash_id
from tracker.kafka.partitioner import partition_of
from tracker.kernels.row_bytes import DamagedRowError, NewerRowError
from tracker.lookup.score import score_items
from tracker.lookup.show import describe_item, describe_user
from tracker.stream.item_side import ItemSide
from tracker.stream.partition import Partition
from tracker.stream.serving import Context
from tracker.stream.user_side import UserSide
from tracker.users.states import NewerArtifactError
from tracker.worker.plane import Plane

TEXT = "text/plain; version=0.0.4"

Result = TypeVar("Result")

MOST_SCORED = 1000
"""Maximum number of items of one /score request."""


HAND_OUT_SECONDS = 60.0
"""Time beyond the limit in which a group may hand out partitions without a step of recovery."""


class Health:
    """Liveness and readiness of a worker, from what two requests or more have seen.

    Args:
        context: what the partitions of a worker share.
        plane: the partitions.
        rebalancing: returns whether partitions are being assigned, or their states recovered.
        recovered: returns how far, in any terms that change with each step.
        clock: monotonic time, in seconds.
    """

    def __init__(
        self,
        context: Context,
        plane: Plane,
        rebalancing: Callable[[], bool],
        recovered: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._plane = plane
        self._rebalancing = rebalancing
        self._recovered = recovered
        self._clock = clock
        self._steps: dict[object, tuple[object, float]] = {}  # a step, and when it was first seen

    def live(self) -> list[str]:
        """Return the reasons to restart the worker; none if it is alive.

        Each partition counts alone: one that is stuck is not hidden by others that commit. What is
        only applied does not count as done. Partitions that wait for another version are left out:
        a restart does not help.
        """
        most = self._context.settings.health_stall_seconds
        keeper = self._context.keeper
        reasons = [*keeper.stuck(most)] if keeper.loaded else []
        steps: dict[object, object] = {}
        if self._rebalancing():
            steps["recovery"] = self._recovered()
        else:
            for tp, partition in self._plane.partitions.items():
                if partition.waits_for is None and (partition.lag or partition.store.is_behind):
                    steps[tp] = partition.store.commits
        now = self._clock()
        self._steps = {
            name: self._steps[name] if self._steps.get(name, (None,))[0] == step else (step, now)
            for name, step in steps.items()
        }
        for name, (_, seen_at) in self._steps.items():
            seconds = now - seen_at
            if name == "recovery":
                if seconds > most + HAND_OUT_SECONDS:
                    reasons.append(f"partitions are handed out or recovered since {seconds:.0f} s")
            elif seconds > most:
                partition = self._plane.partitions[cast(Any, name)]
                reasons.append(
                    f"{partition.name}: {partition.lag} records wait, and nothing was committed for"
                    f" {seconds:.0f} s"
                )
        return reasons

    def ready(self) -> list[str]:
        """Return what the worker still waits for; nothing if it is ready."""
        reasons = []
        keeper = self._context.keeper
        if not keeper.loaded:
            reasons.append("no artifact is loaded")
        elif not keeper.caught_up:
            reasons.append("the items' changelog is still being read")
        if self._rebalancing():
            reasons.append("partitions are being handed out or recovered")
        failing = keeper.feed_failing_seconds if keeper.loaded else 0.0
        if failing > self._context.settings.health_stall_seconds:
            reasons.append(f"the items' changelog cannot be read since {failing:.0f} s")
        reasons += self._plane.waiting
        return reasons


def add_pages(app: faust.App, context: Context, plane: Plane, health: Health) -> None:
    """Add the pages to the application's web server."""

    @app.page("/healthz")
    async def healthz(view: Any, request: Any) -> Any:
        reasons = health.live()
        answer: dict[str, Any] = {"live": not reasons, "reasons": reasons}
        if plane.held_back:
            answer["waiting"] = plane.held_back
        return view.json(answer, status=503 if reasons else 200)

    @app.page("/readyz")
    async def readyz(view: Any, request: Any) -> Any:
        reasons = health.ready()
        return view.json({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    @app.page("/metrics")
    async def metrics(view: Any, request: Any) -> Any:
        plane.observe()
        return view.bytes(context.metrics.exposition(), content_type=TEXT)

    @app.page("/users/{user_id}")
    async def user(view: Any, request: Any, user_id: str) -> Any:
        try:
            answer = await _look_up_user(context, plane, user_id)
        except (NewerArtifactError, NewerRowError, DamagedRowError) as newer:
            return view.json({"error": str(newer)}, status=503)
        if answer is None:
            partitions = context.cluster.partitions(context.cluster.topics.events)
            number = partition_of(user_id, partitions, context.settings.partitioner)
            return view.json(
                {"error": "this worker knows no such user", "partition": number}, status=404
            )
        return view.json(answer)

    @app.page("/score")
    async def score(view: Any, request: Any) -> Any:
        query = request.query
        users, items = query.getall("user", []), query.getall("item", [])
        try:
            at = _time_of(query.get("at"))
        except ValueError:
            return view.json({"error": f"at is {query['at']!r}; seconds are expected"}, status=400)
        if len(users) != 1 or not 1 <= len(items) <= MOST_SCORED:
            return view.json(
                {
                    "error": f"{len(users)} users and {len(items)} items; ?user=U&item=I&item=J..."
                    f" with one user and 1 to {MOST_SCORED} items is expected"
                },
                status=400,
            )
        try:
            answer = await _score(context, plane, users[0], items, query.get("scene"), at)
        except (NewerArtifactError, NewerRowError, DamagedRowError) as newer:
            return view.json({"error": str(newer)}, status=503)
        if answer is None:
            return view.json({"error": "another worker has this user"}, status=404)
        return view.json(answer)

    @app.page("/items/{item_id}")
    async def item(view: Any, request: Any, item_id: str) -> Any:
        try:
            answer = await _look_up_item(context, plane, item_id)
        except (NewerRowError, DamagedRowError) as newer:
            return view.json({"error": str(newer)}, status=503)
        if answer is None:
            code = np.array([hash_id(item_id)], np.uint64)
            partitions = context.cluster.partitions(context.cluster.topics.items)
            number = int(item_partition(code, partitions)[0])
            return view.json(
                {"error": "this worker knows no such item", "partition": number}, status=404
            )
        return view.json(answer)


def _time_of(text: str | None) -> float | None:
    """Parse a time in seconds; None if there is none.

    Raises:
        ValueError: the text is not a finite number.
    """
    if text is None:
        return None
    seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


async def _score(
    context: Context,
    plane: Plane,
    user_id: str,
    items: list[str],
    scene: str | None,
    at: float | None,
) -> dict[str, object] | None:
    """Return scores from the partition that has the user, or would have it; None for neither."""
    partitions = context.cluster.partitions(context.cluster.topics.events)
    likely = partition_of(user_id, partitions, context.settings.partitioner)
    sides = sorted(_with_side(plane, UserSide), key=lambda part: part.number != likely)
    for partition, new in [(p, False) for p in sides] + [(p, True) for p in sides]:
        if new and likely is not None and partition.number != likely:
            continue
        side = cast(UserSide, partition.side)

        def query(side: UserSide = side, new: bool = new) -> dict[str, object] | None:
            user = side.find_user(user_id)
            if user is None:
                if not new:
                    return None
                user = side.new_user()
            recommender = context.keeper.current.recommender
            return score_items(
                recommender, user.rows, user.slot, user_id, items, user.now if at is None else at,
                scene, side.calibration(),
            )  # fmt: skip

        answer = await _query(context, partition, query)
        if answer is not None:
            return answer
    return None


async def _look_up_user(context: Context, plane: Plane, user_id: str) -> dict[str, object] | None:
    """Describe a user's state; None if no partition of this worker has one.

    The state in the partition where TRACKER_PARTITIONER puts the user comes first. Where others
    have one too, or only another has, the answer names them.
    """
    count = context.cluster.partitions(context.cluster.topics.events)
    likely = partition_of(user_id, count, context.settings.partitioner)
    first: dict[str, object] | None = None
    others: list[int] = []
    for partition in sorted(_with_side(plane, UserSide), key=lambda part: part.number != likely):
        side = cast(UserSide, partition.side)

        def query(side: UserSide = side) -> dict[str, object] | None:
            user = side.find_user(user_id)
            if user is None:
                return None
            artifact = context.keeper.current.artifact
            state = describe_user(user_id, user.rows.states, user.slot, artifact, user.now)
            return state | {"set_aside": True} if user.set_aside else state

        answer = await _query(context, partition, query)
        if answer is None:
            continue
        if first is not None:
            others.append(partition.number)
            continue
        first = {**answer, "partition": partition.number}
        if likely is not None and likely != partition.number:
            first["expected_partition"] = likely
    if others:
        assert first is not None
        first["also_in_partitions"] = others
    return first


async def _look_up_item(context: Context, plane: Plane, item_id: str) -> dict[str, object] | None:
    scene_names: dict[int, str] = {}
    for partition in _with_side(plane, UserSide):
        scene_names.update(cast(UserSide, partition.side).scene_names)
    for partition in _with_side(plane, ItemSide):
        side = cast(ItemSide, partition.side)

        def query(side: ItemSide = side) -> dict[str, object] | None:
            row = side.find_item(hash_id(item_id))
            if row is None:
                return None
            states, slot = row
            artifact = context.keeper.current.artifact
            now = side.store.progress.stream_time
            return describe_item(item_id, states, slot, artifact, now, scene_names)

        answer = await _query(context, partition, query)
        if answer is not None:
            return answer
    return None


async def _query(context: Context, partition: Partition, query: Callable[[], Result]) -> Result:
    """Query a partition; if it needs a newer artifact, once that is in use.

    Raises:
        NewerArtifactError: LATEST, or the artifact that it names, cannot be read.
    """
    while True:
        try:
            return await partition.query(query)
        except NewerArtifactError as newer:
            if not await context.keeper.catch_up(newer.sequence):
                raise


def _with_side(plane: Plane, kind: type[Any]) -> list[Partition]:
    return [part for part in plane.partitions.values() if isinstance(part.side, kind)]
