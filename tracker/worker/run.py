"""The life of a worker, from its settings to its exit status."""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tracker.dialects.loading import load_dialect
from tracker.explained import Explained
from tracker.feeds.forget_feed import ForgetFeed
from tracker.feeds.item_feed import ItemFeed
from tracker.items.view import ItemView
from tracker.kafka.cluster import BrokerError, Cluster, check_topics, group_of
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.rights import check_rights
from tracker.kafka.topics import check_changelogs
from tracker.kafka.unreadable import UnreadableRows
from tracker.settings import Settings
from tracker.stream.metrics import Metrics
from tracker.stream.replay import Replay
from tracker.stream.serving import ArtifactKeeper, Context, Serving, load_artifact, make_serving
from tracker.stream.tracing import no_trace, start_tracing
from tracker.worker.app import TrackerWorker, build_app
from tracker.worker.compilation import check_aside, kinds_of, second_compiler
from tracker.worker.data_dir import locked
from tracker.worker.plane import Plane
from tracker.worker.process import (
    calm_garbage_collector,
    check_port,
    set_up_logging,
    share_interpreter,
    write_held_lines,
)
from tracker.worker.warm_up import warm_up

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""Wait after a failure. It does not grow: a worker has to be there soon after the brokers."""

START_SECONDS = 60.0
"""Time a starting worker waits for the brokers."""


async def wait_for_cluster(settings: Settings, seconds: float) -> Cluster:
    """Check the topics; while no broker answers, retry for `seconds` at most.

    Raises:
        BrokerError: no broker answered in time, or it refuses us.
        RightsError: it does not allow us all that a worker needs.
        TopicError, TopicsError: a topic is missing or does not fit.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            await check_rights(settings, "worker")
            cluster = await check_topics(settings)
            return replace(cluster, tombstone_seconds=await check_changelogs(settings))
        except BrokerError as error:
            if loop.time() + RETRY_SECONDS > deadline:
                raise
            log.warning("%s; retrying every %g s", error, RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)


def run_worker(settings: Settings, replay: Replay | None = None) -> int:
    """Run a worker until it is told to stop, or a replay until it has reached its limits.

    1. Lock the data directory; check that the web port is free; read kinds, artifact and keys.
    2. Wait for the brokers and check the topics.
    3. Compile the kernels, the first time only, in two processes; check the port again.
    4. Join the group and process events.

    Returns:
        the exit status: 0 after SIGTERM or SIGINT, 1 if the worker cannot start or had to stop.
    """
    set_up_logging(settings.log_level, settings.log_format)
    try:
        with locked(settings.data_dir):
            return _run(settings, replay)
    except Explained as error:
        log.critical("the worker does not start: %s", error)
        return 1


def _run(settings: Settings, replay: Replay | None) -> int:
    metrics = Metrics()
    # 1. Check the web port, read kinds, artifact and format.
    _check_web_port(settings)
    artifact = load_artifact(settings)
    kinds = kinds_of(settings, artifact.manifest.interest)
    serving = make_serving(artifact, settings)
    dialect = load_dialect(settings.events_format)
    pseudonyms = pseudonyms_of(settings)

    # 2. Wait for the brokers.
    cluster = asyncio.run(wait_for_cluster(settings, START_SECONDS))
    if not cluster.transactions:
        log.warning(
            "the brokers at %s do not support transactions: a worker that crashes or freezes may"
            " count item events twice, and a frozen one may overwrite its successor's states",
            ", ".join(settings.bootstrap),
        )

    # 3. Compile the kernels.
    def warm(serving: Serving) -> None:
        warm_up(serving, kinds, settings.k)

    async def check(version: str) -> bool:
        return await check_aside(settings, version, kinds)

    with second_compiler(settings, artifact, kinds):
        warm(serving)
    _check_web_port(settings)

    unreadable = UnreadableRows("items", metrics.count_unreadable)

    def task_died(name: str, error: BaseException) -> None:
        plane.task_died(name, error)

    def feed(view: ItemView) -> ItemFeed:
        topic = cluster.topics.items_changelog
        return ItemFeed(
            settings,
            topic,
            cluster.partitions(topic),
            view,
            metrics.item_feed_lag.set,
            unreadable,
            task_died,
        )

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    keeper = ArtifactKeeper(settings, feed, metrics, warm, task_died, check)
    keeper.use(serving)
    del artifact, serving  # this frame lives as long as the worker, and they shall not
    forget_feed = None
    if cluster.forgets:
        topic = cluster.topics.forget
        forget_feed = ForgetFeed(settings, topic, cluster.partitions(topic), task_died)
    trace = start_tracing() if settings.tracing else no_trace
    context = Context(
        settings, cluster, keeper, kinds, metrics, trace=trace, dialect=dialect,
        forget_feed=forget_feed, replay=replay, pseudonyms=pseudonyms,
    )  # fmt: skip
    plane = Plane(context)
    app = build_app(context, plane)
    app.finalize()
    app.worker_init()
    app.worker_init_post_autodiscover()
    calm_garbage_collector()
    share_interpreter()
    # 4. Join the group.
    worker = TrackerWorker(app, settings)
    loop.set_default_executor(ThreadPoolExecutor(4, thread_name_prefix="aside"))
    log.info("worker %d: joining group %s", os.getpid(), group_of(settings))
    try:
        worker.execute_from_commandline()
    except SystemExit as end:  # Faust's only way to return
        status = int(end.code or 0)
        worker.ended()
        write_held_lines()
        if status == 0:
            log.info("worker stopped cleanly")
        return status


def _check_web_port(settings: Settings) -> None:
    if settings.web_port:
        asyncio.run(check_port(settings.web_host, settings.web_port))
