"""The demonstration: a broker, an index, a worker, and what a few events change."""

import asyncio
import itertools
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from tracker.artifact.versions import latest_version
from tracker.demo.audit import AuditError, Follower, Truth, count_records, latency_ms, read_events
from tracker.demo.broker import embedded_broker
from tracker.demo.input import DemoInput
from tracker.demo.local import build_index, own_topics, until_ready, worker_process
from tracker.demo.processes import ChildProcess, free_port
from tracker.events.lines import Line
from tracker.events.wire import Recommendation, decode_event, encode_event
from tracker.explained import Explained
from tracker.kafka.client import Received, send_events
from tracker.kafka.cluster import topics_of
from tracker.settings import Settings, load_settings

STALL_SECONDS = 60.0
"""Maximum time without a new list while lists are waited for."""

PACED_SECONDS = 10.0
PACED_RATE = 200.0
"""Length of the pass that measures latency, and its events per second."""

EVENT_PARTITIONS = 4
ITEM_PARTITIONS = 2
EMBEDDED = "embedded"
STORY_SECONDS = 3.0
"""Time between two events of the story that is told in a loop."""

STORY_OTHERS = 20
"""Events of other users beside each of them."""

Result = TypeVar("Result")


class DemoError(Explained):
    """An event or a recommendation was lost; the message says which."""


@dataclass(frozen=True)
class DemoOptions:
    """Options of a demonstration.

    `broker` is HOST:PORT, None for the embedded one; `artifacts` a folder with a built index, None
    to build one; `model` the encoder's folder or name, None for the indexer's default; `folder`
    for logs and data, None for a temporary one that is removed. With `serve` everything keeps
    running after the passes, with the story in a loop.
    """

    input: DemoInput
    broker: str | None = None
    artifacts: str | None = None
    model: str | None = None
    folder: Path | None = None
    rate: float = PACED_RATE
    paced_seconds: float = PACED_SECONDS
    serve: bool = False


@dataclass(frozen=True)
class Step:
    """One event of the story, its list, and the milliseconds between the two."""

    item_id: str
    kind: str
    list: Recommendation
    latency_ms: float


@dataclass
class Story:
    """One user's list before a few events, and after each."""

    user_id: str
    attributes: dict[str, object]
    before: Recommendation | None = None
    steps: list[Step] = field(default_factory=list)


class DemoResult(msgspec.Struct):
    """Result of a demonstration, as `tracker demo --json` prints it.

    `events` are those of the files; `recommendations` and `rejected` are records of the whole run;
    `seconds` run from the append of the first event to that of the last list of the full-speed
    pass; latencies are those of the paced pass, from append to append.
    """

    events: int
    recommendations: int
    rejected: int
    users: int
    items: int
    seconds: float
    events_per_second: float
    latency_ms: dict[str, float]
    artifact: str
    broker: str
    lost: int
    users_without_recommendation: int
    paced_events: int
    paced_rate: float
    bad_lines: int
    build_seconds: float
    start_seconds: float


Notify = Callable[[str, int, int], None]


def _silent(what: str, count: int, total: int) -> None:
    """No-op."""


async def run_demo(
    options: DemoOptions,
    notify: Notify = _silent,
    on_story: Callable[[Story], None] = lambda story: None,
    on_serving: Callable[[DemoResult, str], None] = lambda result, address: None,
) -> DemoResult:
    """Run the demonstration with the real indexer and a real worker, each a process.

    1. Start the embedded broker, or take the one that is named.
    2. Build the index; start a worker on topics with a name of their own; wait until it is ready.
    3. Send all events but the story's as fast as they go. Every user's last event must be in a
       list, none may be lost.
    4. Tell the story: one user's list, and how each of a few events changes it.
    5. Send events at a steady rate and measure from append to append.
    6. If asked for, keep everything running, with the story in a loop, until it is cancelled.

    In any case the processes are stopped, and the topics deleted if the broker stays.

    Args:
        options: files, broker, rates.
        notify: called with what is being done, how much of it is done, and of how much.
        on_story: called with the story as soon as it is told.
        on_serving: called with the result and the page's address before step 6.

    Raises:
        ProcessError: a process did not start or ended by itself.
        DemoError: an event or a recommendation was lost.
        BrokerError: the broker cannot be used.
    """
    with ExitStack() as stack:
        folder = options.folder or Path(tempfile.mkdtemp(prefix="tracker-demo-"))
        if options.folder is None:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        # 1. Start the embedded broker, or take the one that is named.
        address = options.broker or stack.enter_context(embedded_broker(folder))
        settings = _settings(options, address, folder)
        # 2. Build the index, start a worker, and wait until it is ready.
        started = time.monotonic()
        if options.artifacts is None:
            await build_index(
                options.input.items,
                settings.artifacts,
                folder / "indexer.log",
                _build_arguments(options),
                lambda: notify("building the index", 0, 0),
            )
        build_seconds = time.monotonic() - started
        async with own_topics(settings, delete=options.broker is not None):
            started = time.monotonic()
            with worker_process(settings, folder / "worker.log") as worker:
                await until_ready(worker, settings, lambda: notify("starting the worker", 0, 0))
                start_seconds = time.monotonic() - started
                # 3. to 5. Send events at full speed, tell the story, measure the latency.
                run = _Run(options, settings, worker, notify, on_story)
                result = msgspec.structs.replace(
                    await run.watched(run.passes),
                    build_seconds=round(build_seconds, 2),
                    start_seconds=round(start_seconds, 2),
                )
                # 6. Keep everything running.
                if options.serve:
                    user = quote(options.input.user_id, safe="")
                    on_serving(result, f"http://127.0.0.1:{settings.web_port}/#/user/{user}")
                    await run.watched(run.keep_telling)
    return result


def _settings(options: DemoOptions, address: str, folder: Path) -> Settings:
    overrides: dict[str, Any] = {
        "name": f"demo-{secrets.token_hex(4)}",
        "brokers": address,
        "artifacts": options.artifacts or str(folder / "artifacts"),
        "data_dir": folder / "data",
        "web_host": "127.0.0.1",
        "web_port": free_port(),
        "event_partitions": EVENT_PARTITIONS,
        "item_partitions": ITEM_PARTITIONS,
        "pseudonym_key_file": None,  # the story names its users
        "pseudonym_former_key_file": None,
        "user_keys": False,
        "session_timeout_seconds": 6.0,  # the embedded broker lets nobody in before half of it
    }
    if options.broker is None:
        overrides["security_protocol"] = "PLAINTEXT"
        overrides["replication_factor"] = 1
    return load_settings(None, **overrides)


def _build_arguments(options: DemoOptions) -> list[str]:
    arguments = ["--rating-scale", *(str(value) for value in options.input.rating_scale)]
    if options.model is not None:
        arguments += ["--model", options.model]
    return arguments


class _Run:
    """The passes over a worker that is ready."""

    def __init__(
        self,
        options: DemoOptions,
        settings: Settings,
        worker: ChildProcess,
        notify: Notify,
        on_story: Callable[[Story], None],
    ) -> None:
        self._options = options
        self._input = options.input
        self._settings = settings
        self._worker = worker
        self._notify = notify
        self._on_story = on_story
        self._follower = Follower(settings)

    async def watched(self, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Do work while the recommendations are followed and the worker is watched."""
        following = asyncio.create_task(self._follower.run())
        watching = asyncio.create_task(self._watch_worker())
        working = asyncio.create_task(work())
        tasks: set[asyncio.Task[Any]] = {following, watching, working}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                for task in (watching, following):
                    if task.done():
                        task.result()
            return await working
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch_worker(self) -> None:
        while True:
            self._worker.check()
            await asyncio.sleep(0.5)

    async def keep_telling(self) -> None:
        """Send the story's events and some of other users, as events of now, again and again."""
        actions = [event for line in self._input.story if (event := decode_event(line.value)).kind]
        others = self._input.paced(10**9)
        for event in itertools.cycle(actions):
            copy = msgspec.structs.replace(event, event_id=None, timestamp=time.time())
            lines = [Line("the story", encode_event(copy)), *itertools.islice(others, STORY_OTHERS)]
            await send_events(self._settings, iter(lines))
            await asyncio.sleep(STORY_SECONDS)

    async def passes(self) -> DemoResult:
        """Run the passes."""
        from tracker.artifact.manifest import (
            read_manifest,  # brings numba, which takes seconds to load
        )

        await self._follower.ready.wait()
        truth, seconds = await self._full_speed()
        await self._tell_story()
        sent, latencies = await self._paced()
        names = topics_of(self._settings)
        rejected = await count_records(self._settings, names.rejected)
        version = latest_version(self._settings.artifacts)
        manifest = read_manifest(self._settings.artifacts, version)
        bulk = len(self._input.bulk)
        return DemoResult(
            events=self._input.events,
            recommendations=self._follower.count,
            rejected=rejected,
            users=truth.users,
            items=manifest.live,
            seconds=round(seconds, 3),
            events_per_second=round(bulk / seconds, 1) if seconds > 0 else float(bulk),
            latency_ms=latency_ms(latencies),
            artifact=manifest.version,
            broker=self._options.broker or EMBEDDED,
            lost=0,
            users_without_recommendation=0,
            paced_events=sent,
            paced_rate=self._options.rate,
            bad_lines=len(self._input.bad),
            build_seconds=0.0,
            start_seconds=0.0,
        )

    async def _full_speed(self) -> tuple[Truth, float]:
        total = len(self._input.bulk)
        sent = await send_events(
            self._settings,
            iter(self._input.bulk),
            on_progress=lambda count: self._notify("sending events", count, total),
        )
        if sent.confirmed != total:
            why = "; ".join(sent.errors)
            raise DemoError(f"the broker confirmed {sent.confirmed} of {total} events: {why}")
        self._notify("waiting for every user's list", 0, 0)
        truth = await read_events(self._settings)
        if truth.events != total:
            raise DemoError(f"{total} events were sent and {truth.events} are in the topic")
        try:
            end = await self._follower.wait_for(
                ((user, partition, offset) for (user, partition), offset in truth.last.items()),
                STALL_SECONDS,
            )
        except AuditError as error:
            raise DemoError(str(error)) from error
        return truth, end - truth.first_appended

    async def _tell_story(self) -> None:
        user_id = self._input.user_id
        story = Story(user_id, self._input.attributes, self._follower.latest(user_id))
        for line in self._input.story:
            self._notify(f"telling the story of {user_id}", len(story.steps), 0)
            event = decode_event(line.value)
            (stored,) = await self._send([line], None)
            appended = await self._answer([stored])
            recommendation = self._follower.latest(user_id)
            assert recommendation is not None
            delay = (appended - stored.appended) * 1000
            name = event.item_id or f"retracts {event.retracts}"
            story.steps.append(
                Step(name, event.kind or "retraction", recommendation, round(delay, 3))
            )
        self._on_story(story)

    async def _paced(self) -> tuple[int, list[float]]:
        count = int(self._options.rate * self._options.paced_seconds)
        lines = list(self._input.paced(count))
        if not lines:
            return 0, []
        stored = await self._send(lines, self._options.rate)
        await self._answer(stored)
        latencies = []
        for record in stored:
            user = decode_event(record.value).user_id.encode()
            appended = self._follower.answered(user, record.partition, record.offset)
            assert appended is not None
            latencies.append(appended - record.appended)
        return len(lines), latencies

    async def _send(self, lines: list[Line], rate: float | None) -> list[Received]:
        places: list[Received] = []
        total = len(lines)
        sent = await send_events(
            self._settings,
            iter(lines),
            rate=rate,
            on_progress=lambda count: self._notify("measuring latency", count, total),
            on_confirmed=lambda line, stored: places.append(stored),
        )
        if sent.confirmed != total:
            why = "; ".join(sent.errors)
            raise DemoError(f"the broker confirmed {sent.confirmed} of {total} events: {why}")
        return places

    async def _answer(self, stored: list[Received]) -> float:
        events = [
            (decode_event(record.value).user_id.encode(), record.partition, record.offset)
            for record in stored
        ]
        try:
            return await self._follower.wait_for(events, STALL_SECONDS)
        except AuditError as error:
            raise DemoError(str(error)) from error
