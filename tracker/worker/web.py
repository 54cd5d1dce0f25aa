"""The web server of a worker: /healthz, /readyz, /metrics, and the HTTP API below /v1."""

import socket
import time
from collections.abc import Callable
from typing import Any, cast

import faust

from tracker.api.build import build_api
from tracker.api.host import Host
from tracker.api.page import add_page
from tracker.api.routes import PREFIX
from tracker.settings import Settings
from tracker.stream.serving import Context
from tracker.worker.plane import Plane
from tracker.worker.web_limits import LimitedRunner

TEXT = "text/plain; version=0.0.4"

ANY_HOST = ("0.0.0.0", "::", "")
"""Addresses of a server that listens at all of a machine's."""


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

    @property
    def rebalancing(self) -> bool:
        """True while partitions are being assigned, or their states recovered."""
        return self._rebalancing()

    def live(self) -> list[str]:
        """Return the reasons to restart the worker; none if it is alive.

        Each partition counts alone: one that is stuck is not hidden by others that commit. What is
        only applied does not count as done. Partitions that wait for another version are left out,
        and so is the time in which no broker answered: a restart does not help.
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
        answered = self._plane.answered_seconds
        for name, (_, seen_at) in self._steps.items():
            seconds = min(now - seen_at, answered)
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


def limit_connections(app: faust.App) -> None:
    """Limit the connections of the application's web server, before it starts."""
    web: Any = app.web  # Faust makes a runner without limits
    web._runner = LimitedRunner(web.web_app)


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


def add_api(app: faust.App, context: Context, plane: Plane, health: Health) -> None:
    """Add the API to the application's web server, if it has one.

    Raises:
        SettingsError: a token cannot be read.
    """
    if not context.settings.web_port:
        return
    host = Host(
        context,
        lambda: {
            part.number: part for part in plane.partitions.values() if part.side.table == "users"
        },
        lambda: list(plane.partitions.values()),
        own_address(context.settings),
        lambda: _addresses(app, context),
        health.ready,
        lambda: health.rebalancing,
        plane.send,
    )
    web: Any = app.web  # Faust's types do not know the driver's application
    server = build_api(host)
    web.web_app.add_subapp(PREFIX, server.app)
    add_page(web.web_app, server.access)


def own_address(settings: Settings) -> str:
    """Return the address at which other workers reach this one."""
    if settings.web_advertise is not None:
        return settings.web_advertise.rstrip("/")
    name = settings.web_host
    if name in ANY_HOST:
        name = socket.gethostname()
    return f"http://{f'[{name}]' if ':' in name else name}:{settings.web_port}"


def _addresses(app: faust.App, context: Context) -> dict[int, str]:
    """Return the address of the worker of each partition, as the group's assignment told it."""
    topic = context.cluster.topics.users_changelog
    return {
        number: address
        for address, topics in app.router.tables_metadata().items()
        for number in topics.get(topic, ())
    }
