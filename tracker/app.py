"""The Faust application: topics, tables and agents around the data plane; and a worker's life."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faust
import msgspec
from faust.auth import SASLCredentials, SSLCredentials

from tracker.artifact import ArtifactError
from tracker.cluster import (
    BrokerError,
    Cluster,
    TopicError,
    check_topics,
    fetched_ends,
    group_of,
    ssl_context_of,
)
from tracker.data_dir import DataDirError, locked
from tracker.index import IndexDeviceError
from tracker.item_feed import ItemFeed
from tracker.item_view import ItemView
from tracker.kinds import Kinds, KindsFileError
from tracker.plane import Plane
from tracker.serving import ArtifactKeeper, Serving, load_artifact, make_serving
from tracker.settings import Settings
from tracker.transport import ChunkConsumer, ChunkSchema, ChunkTransport
from tracker.warm_up import warm_up
from tracker.web import Health, add_pages
from tracker.worker_context import Context
from tracker.worker_metrics import Metrics
from tracker.worker_process import (
    PortError,
    calm_garbage_collector,
    check_port,
    end_by_force,
    set_up_logging,
)

log = logging.getLogger(__name__)

BLOCKS_A_CHUNK = 16
"""Records with item events in one chunk, of up to 400 each."""

ROCKSDB = {
    "driver": "rocksdict",
    "max_open_files": 256,
    "write_buffer_size": 16 * 1024 * 1024,
    "max_write_buffer_number": 3,
    "target_file_size_base": 32 * 1024 * 1024,
    "block_cache_size": 32 * 1024 * 1024,
    "bloom_filter_size": 10,
}
"""A partition's share; the defaults are gigabytes. Any other name would be ignored silently."""

RETRY_SECONDS = 2.0
"""How long after the first answer that did not come; then twice as long each time."""

RETRY_SECONDS_MOST = 16.0

READY_LOOK_SECONDS = 0.1

START_SECONDS = 60.0
"""How long a worker waits for a broker that is away when it starts."""

REFUSALS = (
    ArtifactError,
    BrokerError,
    DataDirError,
    IndexDeviceError,
    KindsFileError,
    PortError,
    TopicError,
)
"""Why a worker does not start: one line, no traceback."""


class TrackerApp(faust.App):
    """Faust's application, which ends with the last commit of every partition."""

    plane: Plane
    keeper: ArtifactKeeper

    async def on_start(self) -> None:
        """Begin to read item states before partitions come."""
        await super().on_start()
        await self.plane.start()
        self.keeper.start()

    async def on_stop(self) -> None:
        """Commit what is in work, tell the group, and end."""
        if self._consumer is not None:
            self._consumer.stop_flow()
        self.flow_control.suspend()
        await self.keeper.stop()
        await self.plane.stop()
        if self._consumer is not None:
            await self._consumer.commit()
        await super().on_stop()


class TrackerWorker(faust.Worker):
    """Faust's worker with our log, and a deadline for its end."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        super().__init__(app, loglevel=None, quiet=True, redirect_stdouts=False)
        self._settings = settings
        self.spinner = None

    def _setup_logging(self) -> None:
        """Leave the log as it is set up."""

    def _on_sigterm(self) -> None:
        self._deadline("SIGTERM")
        super()._on_sigterm()

    def _on_sigint(self) -> None:
        self._deadline("SIGINT")
        super()._on_sigint()

    def _deadline(self, signal: str) -> None:
        log.info("%s: committing and leaving", signal)
        end_by_force(self._settings.shutdown_seconds)


def build_app(context: Context, plane: Plane) -> TrackerApp:
    """Put Faust around the data plane.

    Faust owns the group, the assignment, tables with their recovery, and the web server; what is
    between fetch and commit is the plane's.
    """
    settings, cluster = context.settings, context.cluster
    topics = cluster.topics
    session = settings.session_timeout_seconds
    app = TrackerApp(
        group_of(settings),
        broker=[f"kafka://{address}" for address in settings.bootstrap],
        broker_credentials=_credentials(settings),
        broker_session_timeout=session,
        broker_rebalance_timeout=max(session, 30.0),
        broker_heartbeat_interval=session / 3,
        broker_request_timeout=max(session, 30.0) + 10.0,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        store="rocksdb://",
        datadir=settings.data_dir,
        key_serializer="raw",
        value_serializer="raw",
        agent_supervisor="mode.CrashingSupervisor",
        stream_buffer_maxsize=1_000_000,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        table_standby_replicas=settings.standbys,
        topic_allow_declare=False,
        topic_disable_leader=True,
        autodiscover=False,
        web_enabled=bool(settings.web_port),
        web_host=settings.web_host,
        web_bind=settings.web_host,
        web_port=settings.web_port or 6066,
        web_tables_enabled=False,
        web_stats_enabled=False,
        web_graph_enabled=False,
        web_router_enabled=False,
        web_metrics_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.plane = plane
    app.keeper = context.keeper
    transport = ChunkTransport(app.conf.broker_consumer, app)
    transport.chunk_records = {
        topics.events: settings.chunk_events,
        topics.items: BLOCKS_A_CHUNK,
    }
    transport.owner = plane
    if not cluster.transactions:
        transport.ends = lambda parts: fetched_ends(settings, parts)
    app.transport = transport
    tables = {
        "users": _table(app, "users", cluster.partitions(topics.events)),
        "items": _table(app, "items", cluster.partitions(topics.items)),
    }

    def database(table: str, partition: int) -> Any:
        return tables[table].data._db_for_partition(partition)

    plane.database = database
    _agent(app, plane, topics.events, cluster.partitions(topics.events))
    _agent(app, plane, topics.items, cluster.partitions(topics.items))

    health = Health(context, plane, lambda: bool(app.rebalancing) or not plane.settled)

    @app.on_rebalance_complete.connect
    async def recovered(*args: Any, **kwargs: Any) -> None:
        consumer = app.consumer
        assert isinstance(consumer, ChunkConsumer)
        plane.consumer = consumer
        first = not plane.settled
        await plane.open_fenced()
        if first:
            app.add_future(_say_ready(context, plane, health))

    add_pages(app, context, plane, health)
    return app


async def _say_ready(context: Context, plane: Plane, health: Health) -> None:
    """Say once that the worker serves, when it does."""
    while health.ready():
        await asyncio.sleep(READY_LOOK_SECONDS)
    topic, version = context.cluster.topics.events, context.keeper.current.version
    count = sum(tp.topic == topic for tp in plane.partitions)
    what = "partition" if count == 1 else "partitions"
    log.info("ready: %d %s of %s, version %s", count, what, topic, version)


def _table(app: faust.App, name: str, partitions: int) -> Any:
    return app.Table(
        name,
        partitions=partitions,
        key_type=bytes,
        value_type=bytes,
        options=dict(ROCKSDB),
    )


def _agent(app: faust.App, plane: Plane, topic: str, partitions: int) -> None:
    source = app.topic(topic, schema=ChunkSchema(allow_empty=True), partitions=partitions)

    @app.agent(source, name=topic)
    async def agent(stream: Any) -> AsyncIterator[None]:
        async for event in stream.noack().events():
            plane.accept(event.value, event.ack)
            yield


def _credentials(settings: Settings) -> Any:
    context = ssl_context_of(settings)
    if settings.security_protocol.startswith("SASL"):
        assert settings.sasl_password is not None
        return SASLCredentials(
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context)


async def wait_for_cluster(settings: Settings, seconds: float = START_SECONDS) -> Cluster:
    """Check the topics; while no broker answers, try again for a while, less and less often.

    Raises:
        BrokerError: no broker answered in time, or it refuses us.
        TopicError: a topic is missing or does not fit.
    """
    loop = asyncio.get_running_loop()
    deadline, wait = loop.time() + seconds, RETRY_SECONDS
    while True:
        try:
            return await check_topics(settings)
        except BrokerError as error:
            if loop.time() + wait > deadline:
                raise
            log.warning("%s; trying again in %g s", error, wait)
            await asyncio.sleep(wait)
            wait = min(2.0 * wait, RETRY_SECONDS_MOST)


def run_worker(settings: Settings) -> int:
    """Run a worker until it is told to stop.

    1. Take the data directory; see that the web port is free; read kinds and artifact.
    2. Wait for the brokers and check the topics.
    3. Compile the kernels, which takes a minute or two the first time; look at the port again.
    4. Join the group and work.

    Returns:
        the exit status: 0 after SIGTERM or SIGINT, 1 where it refuses to start or had to stop.
    """
    set_up_logging(settings.log_level)
    try:
        with locked(settings.data_dir):
            return _run(settings)
    except REFUSALS as error:
        log.critical("this worker does not start: %s", error)
        return 1


def _run(settings: Settings) -> int:
    metrics = Metrics()
    # 1
    _check_web(settings)
    artifact = load_artifact(settings)
    interest = artifact.manifest.interest
    kinds = _kinds(settings, interest.rating_min, interest.rating_max)
    serving = make_serving(artifact, settings)

    # 2
    cluster = asyncio.run(wait_for_cluster(settings))
    if not cluster.transactions:
        log.warning(
            "the brokers at %s have no transactions: a worker that crashes or freezes may count"
            " item events twice, and a frozen one may overwrite its successor's states",
            ", ".join(settings.bootstrap),
        )

    # 3
    def warm(serving: Serving) -> None:
        warm_up(serving, kinds, settings.k)

    warm(serving)
    _check_web(settings)

    def feed(view: ItemView) -> ItemFeed:
        topic = cluster.topics.items_changelog
        return ItemFeed(settings, topic, cluster.partitions(topic), view, metrics.item_feed_lag.set)

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    keeper = ArtifactKeeper(settings, feed, metrics, warm)
    keeper.use(serving)
    context = Context(settings, cluster, keeper, kinds, metrics)
    plane = Plane(context)
    app = build_app(context, plane)
    app.finalize()
    app.worker_init()
    app.worker_init_post_autodiscover()
    calm_garbage_collector()
    # 4
    worker = TrackerWorker(app, settings)
    loop.set_default_executor(ThreadPoolExecutor(4, thread_name_prefix="aside"))
    log.info("worker %d joins group %s", os.getpid(), group_of(settings))
    try:
        worker.execute_from_commandline()
    except SystemExit as end:  # Faust's only way to return
        status = int(end.code or 0)
        if status == 0:
            log.info("left in order")
        return status


def _check_web(settings: Settings) -> None:
    if settings.web_port:
        asyncio.run(check_port(settings.web_host, settings.web_port))


def _kinds(settings: Settings, rating_min: float, rating_max: float) -> Kinds:
    if settings.kinds_file is None:
        kinds = Kinds.default(rating_min, rating_max)
    else:
        kinds = Kinds.load(settings.kinds_file, rating_min, rating_max)
    if settings.unknown_kinds == "reject":
        return kinds
    return msgspec.structs.replace(kinds, unknown=settings.unknown_kinds)
