"""The Faust application: topics, tables and agents around the data plane.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import faust
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials
from faust.tables import TableManager

from tracker.feeds.forget_feed import ForgetFeed
from tracker.kafka.cluster import fetched_ends, group_of, ssl_context_of
from tracker.kafka.denials import denial_of
from tracker.kafka.security import TokenFile
from tracker.settings import Settings
from tracker.store.database import open_database
from tracker.stream.serving import ArtifactKeeper, Context
from tracker.worker.eraser import ErasableOptions, Eraser
from tracker.worker.member_file import MemberFile
from tracker.worker.plane import EXPECTED, Plane, finish
from tracker.worker.process import kill_after, open_files_of, raise_open_files
from tracker.worker.replay_end import ReplayEnd
from tracker.worker.transport import ChunkConsumer, ChunkSchema, ChunkTransport, RecoveryEnd
from tracker.worker.web import Health, add_api, add_pages, limit_connections, own_address

log = logging.getLogger(__name__)

BLOCKS_A_CHUNK = 16
"""Blocks of item events in one chunk, each with up to 400."""

ROCKSDB = {
    "driver": "rocksdict",
    "write_buffer_size": 16 * 1024 * 1024,
    "max_write_buffer_number": 3,
    "target_file_size_base": 32 * 1024 * 1024,
    "block_cache_size": 32 * 1024 * 1024,
    "bloom_filter_size": 10,
}
"""RocksDB options of each partition; the defaults are gigabytes. Faust ignores unknown names."""

READY_LOOK_SECONDS = 0.1

HEARTBEAT_SECONDS = 0.3
"""Maximum interval between two heartbeats. Only by their answers does a member of the group learn
that another one comes or goes, and until all know it, some partitions have no owner."""


class Tables(TableManager):
    """Faust's tables, known at once: all are made before the application starts.

    Faust waits for a second for those that are made later, and joins the group only then.
    """

    async def on_start(self) -> None:
        """Make the tables known, and begin to recover what is assigned."""
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class TrackerApp(faust.App):
    """A Faust application that ends with a last commit of every partition."""

    plane: Plane
    keeper: ArtifactKeeper
    aside: list[ForgetFeed | Eraser | ReplayEnd]
    commit_seconds: float
    """Maximum time of the last commits: a connection that is half open answers none."""

    async def on_start(self) -> None:
        """Start the producer and the item feed before partitions are assigned."""
        await super().on_start()
        await self.plane.start()
        self.keeper.start()
        for task in self.aside:
            task.start()

    async def on_stop(self) -> None:
        """Stop fetching, commit every partition and the group's offsets, leave the group, and end.

        The commits come first, and then the others may have the partitions. A step that fails or
        hangs does not keep the next from being taken. If the commits are not answered, nothing
        would be: the process leaves the group and ends, and the next owner applies again what is
        not committed.
        """
        is_answered = True
        consumer = cast(ChunkConsumer | None, self._consumer)
        if consumer is not None:
            consumer.stop_flow()
        self.flow_control.suspend()
        try:
            async with asyncio.timeout(self.commit_seconds):
                await self.plane.release_all()
        except TimeoutError:
            is_answered = False
            log.warning(
                "the last commit is not answered for %g s: the next owner applies its events again",
                self.commit_seconds,
            )
        finally:
            if consumer is not None:
                await finish("the commit of the group's offsets", consumer.commit())
                await finish("the membership of the group", consumer.leave())
            if not is_answered:
                self.plane.end()
            try:
                await self.plane.stop()
            finally:
                await finish("the item feed", self.keeper.stop())
                for task in self.aside:
                    await finish("a background task", task.stop())
                await super().on_stop()

    def on_rebalance_end(self) -> None:
        """Log how long the rebalance took; partitions are fetched again."""
        super().on_rebalance_end()
        if self._consumer is not None:
            log_of = cast(ChunkConsumer, self._consumer).rebalance_log
            log_of.end("seek", len(self.plane.partitions))

    def _crash(self, reason: BaseException) -> None:
        """End by a line that says why, if a part of Faust has crashed by what is no bug.

        That is a missing right, or a damaged database that the consumer writes to.
        """
        if denial_of(reason) is not None or isinstance(reason, EXPECTED):
            self.plane.fatal(reason)
        super()._crash(reason)


class TrackerWorker(faust.Worker):
    """A Faust worker with our logging, and a deadline for its shutdown."""

    def __init__(self, app: faust.App, settings: Settings) -> None:
        super().__init__(app, loglevel=None, quiet=True, redirect_stdouts=False)
        self._settings = settings
        self._timer: threading.Timer | None = None
        self.spinner = None

    def _setup_logging(self) -> None:
        """No-op: logging is set up already."""

    def _on_sigterm(self) -> None:
        self._deadline("SIGTERM")
        super()._on_sigterm()

    def _on_sigint(self) -> None:
        self._deadline("SIGINT")
        super()._on_sigint()

    def _deadline(self, signal: str) -> None:
        log.info("%s: committing and shutting down", signal)
        self._timer = kill_after(self._settings.shutdown_seconds)

    def ended(self) -> None:
        """Note that it has shut down within the deadline."""
        if self._timer is not None:
            self._timer.cancel()


def build_app(context: Context, plane: Plane) -> TrackerApp:
    """Return the Faust application around the data plane.

    Faust owns the group, the assignment, the tables with their recovery, and the web server; the
    plane owns everything between fetch and commit.
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
        broker_heartbeat_interval=min(HEARTBEAT_SECONDS, session / 3),
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
        TableManager=Tables,
        web_enabled=bool(settings.web_port),
        web_host=settings.web_host,
        web_bind=settings.web_host,
        web_port=settings.web_port or 6066,
        canonical_url=own_address(settings),
        web_tables_enabled=False,
        web_stats_enabled=False,
        web_graph_enabled=False,
        web_router_enabled=False,
        web_metrics_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.plane = plane
    app.commit_seconds = settings.shutdown_seconds / 2
    app.keeper = context.keeper
    app.aside = [] if context.forget_feed is None else [context.forget_feed]
    transport = ChunkTransport(app.conf.broker_consumer, app)
    transport.chunk_records = {
        topics.events: settings.chunk_events,
        topics.items: BLOCKS_A_CHUNK,
    }
    transport.linger_seconds = settings.linger_seconds
    transport.member_file = MemberFile(settings.data_dir / f"{group_of(settings)}.member")
    transport.owner = plane
    transport.count_unreadable = context.metrics.count_unreadable
    transport.tombstone_seconds = cluster.tombstone_seconds
    transport.report_deleted = plane.report_deleted
    if not cluster.transactions:
        transport.ends = lambda parts: fetched_ends(settings, parts)
    app.transport = transport
    users, items = cluster.partitions(topics.events), cluster.partitions(topics.items)
    files = open_files_of(raise_open_files(), users + items)
    tables = {
        "users": _table(app, "users", users, files),
        "items": _table(app, "items", items, files),
    }

    def database(table: str, partition: int) -> Any:
        return tables[table].data._db_for_partition(partition)

    plane.database = database
    recovery = cast(Any, app.tables).recovery
    recovery._signal_recovery_end = RecoveryEnd(recovery.need_recovery)
    if context.replay is not None:
        end = ReplayEnd(settings, context.replay, plane.partitions, plane.task_died)
        app.aside.append(end)
    app.aside.append(Eraser(settings.erase_seconds, tables, plane.task_died))
    _agent(app, plane, topics.events, cluster.partitions(topics.events))
    _agent(app, plane, topics.items, cluster.partitions(topics.items))

    def recovery_steps() -> object:
        tables: Any = app.tables
        offsets = tables.recovery.active_offsets
        return app.consumer_generation_id, tuple(sorted(offsets.items()))

    health = Health(
        context, plane, lambda: bool(app.rebalancing) or not plane.assigned, recovery_steps
    )

    @app.on_rebalance_complete.connect
    async def recovered(*args: Any, **kwargs: Any) -> None:
        consumer = app.consumer
        assert isinstance(consumer, ChunkConsumer)
        plane.consumer = consumer
        first = not plane.assigned
        consumer.rebalance_log.phase("recovery")
        await plane.open_fenced()
        consumer.rebalance_log.phase("opening")
        if first:
            app.add_future(_log_ready(context, plane, health))

    limit_connections(app)
    add_pages(app, context, plane, health)
    add_api(app, context, plane, health)
    return app


async def _log_ready(context: Context, plane: Plane, health: Health) -> None:
    """Log once that the worker is ready."""
    while health.ready():
        await asyncio.sleep(READY_LOOK_SECONDS)
    topic, version = context.cluster.topics.events, context.keeper.current.version
    count = sum(tp.topic == topic for tp in plane.partitions)
    what = "partition" if count == 1 else "partitions"
    log.info("ready: %d %s of %s, version %s", count, what, topic, version)


def _table(app: faust.App, name: str, partitions: int, open_files: int) -> Any:
    table = app.Table(
        name,
        partitions=partitions,
        key_type=bytes,
        value_type=bytes,
        options={**ROCKSDB, "max_open_files": open_files},
    )
    options: Any = table.data
    options = options.rocksdb_options
    options.__class__ = ErasableOptions
    open_plain = options.open

    def open_path(path: Path, *, read_only: bool = False) -> Any:
        return open_database(lambda path: open_plain(path, read_only=read_only), Path(path))

    options.open = open_path
    return table


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
        if settings.sasl_mechanism == "OAUTHBEARER":
            assert settings.sasl_token_file is not None
            return OAuthCredentials(
                oauth_cb=TokenFile(settings.sasl_token_file), ssl_context=context
            )
        return SASLCredentials(
            username=settings.sasl_username,
            password=settings.password(),
            mechanism=settings.sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else SSLCredentials(context)
