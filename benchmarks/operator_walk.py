"""An operator's walk: faults made on purpose, and what page and metrics say of each.

    python -m benchmarks.operator_walk --result operator-walk --pictures docs/images
    python -m benchmarks.operator_walk --prometheus /usr/bin/prometheus

Apache Kafka, one worker with the demonstration's shop, and fifty events a second, all real (Java
and Maven are needed, and Chromium). The broker is killed and comes back; a version of the index
arrives that was cut short, and is rolled back by a click on the page; rubbish floods the topic;
the worker is killed and started again. Of each step it is written down what the page's "Needs
attention" says and after how many seconds. With a Prometheus, the dashboard is drawn over the walk.
"""

import argparse
import asyncio
import json
import random
import shutil
import signal
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from PIL import Image
from playwright.async_api import Page, async_playwright

from benchmarks.dashboard import Prometheus, draw, prometheus
from benchmarks.results import ROOT, add_option, store
from tests.brokers import KafkaBroker
from tests.shop import shop_settings
from tracker.artifact.manifest import LAYOUT, add_artifact, read_manifest
from tracker.artifact.versions import latest_version, set_latest, staging
from tracker.demo.local import build_index, own_topics, until_ready, worker_process
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event
from tracker.explained import Explained
from tracker.kafka.client import send_events
from tracker.kafka.cluster import topics_of
from tracker.settings import Settings

RATE = 50
"""Events a second of the shop."""

USERS = 200
FLOOD_SECONDS = 20.0
FLOOD_BATCH = 500
RUBBISH = (b"{oops", b'{"user_id":"u"}', b"u,i1,click", b"\xff\xfe", b'{"kind":"teleport"}')
MOST_SECONDS = 120.0
WELL = "Nothing."
METRICS = (
    "tracker_lag",
    "tracker_broker_silence_seconds",
    "tracker_rejected_total",
    "tracker_refused_artifacts_total",
    "tracker_artifact_sequence",
)
WIDTH, HEIGHT, COLOURS = 1280, 1100, 48


@dataclass
class Step:
    """A step of the walk: what was done, and what could be seen afterwards.

    Attributes:
        name: a word for it.
        done: what was done.
        seconds: from the deed until the page said something else than before.
        attention: the lines of the page's "Needs attention".
        message: the page's message, "" for none.
        figures: numbers of the page by their names.
        ready: reasons of `/readyz`; None if nothing answered.
        metrics: sums over the labels.
        alerts: alerts of Prometheus by name, with their state.
    """

    name: str
    done: str
    seconds: float
    attention: list[str]
    message: str
    figures: dict[str, str]
    ready: list[str] | None
    metrics: dict[str, float]
    alerts: dict[str, str] = field(default_factory=dict)


class Walk:
    """The page in a browser, and the worker behind it."""

    def __init__(
        self, settings: Settings, page: Page, pictures: Path, server: Prometheus | None
    ) -> None:
        self.settings = settings
        self.address = f"http://127.0.0.1:{settings.web_port}"
        self.page = page
        self.pictures = pictures
        self.server = server
        self.steps: list[Step] = []
        self.marks: list[tuple[float, str]] = []

    async def lines(self) -> list[str]:
        """Return the lines of the first section, which is that of the worker."""
        section = self.page.locator("main section").first
        return await section.locator("[role=status] li").all_inner_texts()

    async def until(self, fits: Callable[[list[str]], bool]) -> float:
        """Wait until the page's lines fit; return the seconds that it took."""
        begun = time.monotonic()
        while not fits(lines := await self.lines()):
            if time.monotonic() - begun > MOST_SECONDS:
                raise TimeoutError(f"after {MOST_SECONDS:g} s the page says {lines}")
            await asyncio.sleep(0.2)
        return time.monotonic() - begun

    async def see(
        self,
        name: str,
        done: str,
        deed: Callable[[], Awaitable[object]],
        fits: Callable[[list[str]], bool],
        rest: float = 0.0,
    ) -> None:
        """Do something, wait until the page tells of it, and note what can be seen."""
        self.marks.append((time.time(), name))
        print(f"{name}: {done}", flush=True)
        await deed()
        seconds = await self.until(fits)
        await asyncio.sleep(rest)
        await self.until(fits)  # it still says so
        figures = {
            await one.locator("span").inner_text(): await one.locator("strong").inner_text()
            for one in await self.page.locator(".figures > div").all()
        }
        step = Step(
            name,
            done,
            round(seconds, 1),
            await self.lines(),
            await self.page.locator("#message").inner_text(),
            figures,
            await asyncio.to_thread(self._ready),
            await asyncio.to_thread(self._metrics),
            {} if self.server is None else await self.server.alerts(),
        )
        self.steps.append(step)
        print(json.dumps(asdict(step), ensure_ascii=False, indent=1), flush=True)
        picture = await self.page.screenshot(
            full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}
        )
        with Image.open(BytesIO(picture)) as image:
            few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
            few.save(self.pictures / f"walk-{name}.png", optimize=True)

    def _ready(self) -> list[str] | None:
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=5.0) as answer:
                return list(json.load(answer)["reasons"])
        except urllib.error.HTTPError as error:
            return list(json.load(error)["reasons"])
        except OSError:
            return None

    def _metrics(self) -> dict[str, float]:
        try:
            with urllib.request.urlopen(f"{self.address}/metrics", timeout=5.0) as answer:
                text = answer.read().decode()
        except OSError:
            return {}
        found = dict.fromkeys(METRICS, 0.0)
        for line in text.splitlines():
            name = line.split("{")[0].split(" ")[0]
            if name in found:
                found[name] += float(line.rsplit(" ", 1)[1])
        return found


async def traffic(settings: Settings, items: list[str]) -> None:
    """Send the shop's events until it is cancelled; while no broker answers, try again."""
    chance = random.Random(1)
    favourites = [chance.sample(items, 12) for _ in range(USERS)]
    while True:
        lines = []
        for _ in range(RATE):
            user = chance.randrange(USERS)
            item = chance.choice(favourites[user])
            kind = chance.choice(("view", "view", "click", "like", "cart", "purchase"))
            event = Event(f"u{user}", item, kind, round(time.time(), 3))
            lines.append(Line("the shop", encode_event(event)))
        begun = time.monotonic()
        with suppress(Explained, OSError, TimeoutError):
            await send_events(settings, iter(lines), rate=RATE)
        await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - begun)))


async def flood(settings: Settings, seconds: float) -> int:
    """Send rubbish as fast as the broker takes it; return the number of records."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.brokers, linger_ms=5)
    await producer.start()
    count, end = 0, time.monotonic() + seconds
    try:
        topic = topics_of(settings).events
        while time.monotonic() < end:
            sent = [
                await producer.send(topic, RUBBISH[number % len(RUBBISH)], key=b"rubbish")
                for number in range(FLOOD_BATCH)
            ]
            await asyncio.gather(*sent)
            count += len(sent)
            await asyncio.sleep(0.05)
    finally:
        await producer.stop()
    return count


def cut_short(root: str) -> None:
    """Publish a next version whose vectors are cut short, as if its copy had broken off."""
    before = latest_version(root)
    manifest = read_manifest(root, before)
    with staging(root) as staged:
        for name in manifest.files:
            shutil.copy(Path(root) / before / name, staged / name)
        vectors = staged / LAYOUT.vectors
        vectors.write_bytes(vectors.read_bytes()[:-4096])
        written = add_artifact(root, staged, manifest)
    set_latest(root, written.version)


def is_well(lines: list[str]) -> bool:
    """Return whether nothing needs attention."""
    return lines == [WELL]


async def walk(given: argparse.Namespace, folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Take the walk; return the figures."""
    broker = stack.enter_context(KafkaBroker(folder / "kafka"))
    settings = shop_settings(broker.address, "walk", folder, event_partitions=4)
    root = str(settings.artifacts)
    data = files("tracker") / "demo_data" / "items.jsonl"
    await build_index([str(data)], root, folder / "build.log")
    items = [json.loads(line)["item_id"] for line in data.read_text().splitlines()]
    server = None
    if given.prometheus:
        server = stack.enter_context(
            prometheus(given.prometheus, folder / "prometheus", settings.web_port)
        )
    worker = worker_process(settings, folder / "worker.log")
    figures: dict[str, Any] = {}
    async with own_topics(settings, delete=False), async_playwright() as playwright:
        tasks: list[asyncio.Task[Any]] = []
        try:
            await until_ready(worker, settings)
            tasks.append(asyncio.create_task(traffic(settings, items)))
            start = time.time()
            browser = await playwright.chromium.launch(
                executable_path=given.chromium, args=["--no-sandbox", "--disable-gpu"]
            )
            page = await browser.new_page(
                viewport={"width": WIDTH, "height": HEIGHT}, locale="en-GB"
            )
            page.on("dialog", lambda dialog: asyncio.create_task(dialog.accept()))
            await page.goto(f"http://127.0.0.1:{settings.web_port}/#/worker")
            tour = Walk(settings, page, given.pictures, server)

            async def nothing() -> None:
                await asyncio.sleep(20.0)

            async def end_the_flood() -> None:
                figures["rubbish"] = await tasks[1]

            async def kill_worker() -> None:
                worker.send_signal(signal.SIGKILL)
                await asyncio.to_thread(worker.wait, 10.0)

            async def start_again() -> None:
                nonlocal worker
                worker = worker_process(settings, folder / "worker.log")

            def says(*words: str) -> Callable[[list[str]], bool]:
                return lambda lines: all(any(word in line for line in lines) for word in words)

            await tour.see("well", "nothing", nothing, is_well)
            await tour.see(
                "broker-killed",
                "kill -9 of the broker",
                lambda: asyncio.to_thread(broker.kill),
                says("The brokers have not answered"),
                rest=30.0,
            )
            await tour.see(
                "broker-back",
                "the broker was started again",
                lambda: asyncio.to_thread(broker.start),
                is_well,
                rest=10.0,
            )
            await tour.see(
                "bad-version",
                "a version whose vectors are cut short, as the latest",
                lambda: asyncio.to_thread(cut_short, root),
                says("is refused"),
                rest=4.0,
            )
            await tour.see(
                "rolled-back",
                "a click on Roll back",
                page.get_by_role("button", name="Roll back").click,
                is_well,
            )

            async def begin_the_flood() -> None:
                tasks.append(asyncio.create_task(flood(settings, FLOOD_SECONDS)))

            await tour.see(
                "flood",
                "a flood of rubbish into the events topic",
                begin_the_flood,
                says("records a second are not taken"),
                rest=12.0,
            )
            await tour.see("flood-over", "the end of the flood", end_the_flood, is_well, rest=5.0)
            await tour.see(
                "worker-killed",
                "kill -9 of the worker",
                kill_worker,
                says("The worker does not answer"),
                rest=4.0,
            )
            await tour.see("worker-back", "the worker was started again", start_again, is_well)
            await asyncio.sleep(15.0)
            figures["steps"] = [asdict(step) for step in tour.steps]
            if server is not None:
                alerts = {step.name: sorted(step.alerts) for step in tour.steps if step.alerts}
                drawn = await draw(
                    server, start, time.time(), tour.marks, given.pictures / "dashboard.png", alerts
                )
                figures["dashboard"] = asdict(drawn)
            await browser.close()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            worker.stop()
    return figures


def main() -> None:
    """Take the walk, and store what was seen."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, default=ROOT / "build" / "walk")
    parser.add_argument("--prometheus", help="binary of Prometheus; without one nothing is drawn")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    add_option(parser)
    given = parser.parse_args()
    given.pictures.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tracker-walk-")))
        figures = asyncio.run(walk(given, folder, stack))
    store(given.result, figures)


if __name__ == "__main__":
    main()
