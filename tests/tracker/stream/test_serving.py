"""ArtifactKeeper: a newer artifact is used, a bad one refused once, a roll-back followed."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.shop import build_shop, shop_items
from tracker.artifact.manifest import LAYOUT, read_manifest
from tracker.artifact.versions import ArtifactError, set_latest
from tracker.feeds.topic_feed import FeedStalledError
from tracker.settings import Settings, load_settings
from tracker.stream import serving
from tracker.stream.aside import ProcessEndedError
from tracker.stream.metrics import Metrics
from tracker.stream.serving import ArtifactKeeper, Serving, load_artifact, make_serving, same_layout
from tracker.users.config import InterestConfig


class Feed:
    """A feed that has read everything at once."""

    def __init__(self) -> None:
        self.caught_up = False
        self.stopped = False

    def start(self, slowly: bool = False) -> None:
        self.slowly = slowly
        self.caught_up = True

    async def wait_caught_up(self) -> None:
        pass

    async def stop(self) -> None:
        self.stopped = True


class Shop:
    """A folder of artifacts, and a keeper that follows it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "artifacts"
        self.first = build_shop(self.root, shop_items(60)).version
        self.settings: Settings = load_settings(
            {}, artifacts=str(self.root), data_dir=folder / "data", artifact_poll_seconds=0.1
        )
        self.metrics = Metrics()
        self.feeds: list[Feed] = []
        self.warmed: list[Serving] = []
        self.check: Callable[[str], Coroutine[Any, Any, bool]] | None = None

    def feed(self, view: object) -> Any:
        self.feeds.append(Feed())
        return self.feeds[-1]

    def build(self, count: int) -> str:
        return build_shop(self.root, shop_items(count)).version

    def count(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"tracker_{name}_total") or 0.0

    def run(self, work: Callable[[ArtifactKeeper], Coroutine[Any, Any, None]]) -> None:
        async def all_of_it() -> None:
            warm = self.warmed.append
            keeper = ArtifactKeeper(self.settings, self.feed, self.metrics, warm, check=self.check)
            assert not keeper.loaded
            keeper.use(make_serving(load_artifact(self.settings), self.settings))
            keeper.start()
            try:
                await work(keeper)
            finally:
                await keeper.stop()

        asyncio.run(all_of_it())


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(100.0):
        while not done():
            await asyncio.sleep(0.01)


def test_new_latest_is_found_and_used_with_a_view_of_its_own(shop: Shop) -> None:
    async def work(keeper: ArtifactKeeper) -> None:
        assert keeper.loaded
        assert keeper.caught_up
        before = keeper.current
        version = await asyncio.to_thread(shop.build, 70)
        await until(lambda: keeper.current.version == version)
        assert keeper.current.view is not before.view
        assert len(keeper.current.artifact.vectors) == 70
        assert shop.feeds[0].stopped

    shop.run(work)
    assert [feed.slowly for feed in shop.feeds] == [False, True]  # nobody waits for the second
    assert shop.count("artifact_swaps") == 1
    assert all(feed.stopped for feed in shop.feeds)
    assert shop.metrics.registry.get_sample_value("tracker_artifact_sequence") == 2


def test_a_version_that_is_rolled_back_while_it_is_checked_is_not_used(shop: Shop) -> None:
    checks = 0

    async def check(version: str) -> bool:
        nonlocal checks
        checks += 1
        set_latest(shop.root, shop.first)
        return False

    async def work(keeper: ArtifactKeeper) -> None:
        await asyncio.to_thread(shop.build, 70)
        await until(lambda: len(shop.feeds) > 1 and shop.feeds[1].stopped)
        assert await keeper.refresh()
        assert keeper.current.version == shop.first
        assert keeper.problem is None

    shop.check = check
    shop.run(work)
    assert checks == 1
    assert shop.count("artifact_swaps") == shop.count("refused_artifacts") == 0


def test_roll_back_is_followed_and_states_of_the_newer_one_are_tolerated(shop: Shop) -> None:
    shop.build(70)

    async def work(keeper: ArtifactKeeper) -> None:
        newer = keeper.current.sequence
        set_latest(shop.root, shop.first)
        await until(lambda: keeper.current.version == shop.first)
        assert keeper.newest < newer
        assert await keeper.catch_up(newer)
        assert keeper.newest == newer

    shop.run(work)


def test_state_of_a_newer_artifact_brings_it_at_once(shop: Shop) -> None:
    shop.settings = load_settings(
        {}, artifacts=str(shop.root), data_dir=shop.settings.data_dir, artifact_poll_seconds=2.0
    )

    async def work(keeper: ArtifactKeeper) -> None:
        version = await asyncio.to_thread(shop.build, 70)
        assert await keeper.catch_up(2)
        assert keeper.current.version == version

    shop.run(work)


def test_bad_artifact_is_refused_once_and_the_old_one_stays(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(keeper: ArtifactKeeper) -> None:
        bad = await asyncio.to_thread(shop.build, 70)
        await until(lambda: keeper.current.version == bad)
        set_latest(shop.root, shop.first)
        await until(lambda: keeper.current.version == shop.first)
        file = shop.root / bad / LAYOUT.index
        file.write_bytes(file.read_bytes()[:-1])
        shutil.rmtree(shop.settings.data_dir / "artifacts")  # the sound copy of before
        set_latest(shop.root, bad)
        await until(lambda: shop.count("refused_artifacts") == 1)
        await asyncio.sleep(0.3)
        assert keeper.current.version == shop.first
        assert not await keeper.catch_up(2)  # what LATEST names is not in use
        assert keeper.newest == 1
        assert keeper.problem is not None
        assert keeper.problem.startswith(f"{bad} is refused: ")
        assert f"{bad}/{LAYOUT.index}: altered or cut short" in keeper.problem
        assert str(shop.root.parent) not in keeper.problem
        set_latest(shop.root, shop.first)
        await until(lambda: keeper.problem is None)
        set_latest(shop.root, bad)  # is not read again, and has the same reason
        await until(lambda: keeper.problem is not None)
        set_latest(shop.root, shop.first)
        good = await asyncio.to_thread(shop.build, 80)
        await until(lambda: keeper.current.version == good)

    shop.run(work)
    assert shop.count("refused_artifacts") == 1
    assert caplog.text.count("is refused") == 1


def test_latest_that_cannot_be_read_is_said_once_and_the_old_one_stays(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(keeper: ArtifactKeeper) -> None:
        shutil.move(shop.root, shop.root.with_name("away"))
        assert not await keeper.refresh()
        assert not await keeper.catch_up(2)
        assert (keeper.current.version, keeper.newest) == (shop.first, 1)
        assert "LATEST cannot be read" in str(keeper.problem)
        shutil.move(shop.root.with_name("away"), shop.root)
        assert await keeper.refresh()

    shop.run(work)
    assert caplog.text.count("LATEST cannot be read") == 1


def test_artifact_that_shapes_states_otherwise_is_refused_with_the_remedy(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(keeper: ArtifactKeeper) -> None:
        load = keeper._load

        def other(version: str, checked: bool) -> Any:
            found = load(version, checked)
            manifest = msgspec.structs.replace(
                found.artifact.manifest,
                interest=msgspec.structs.replace(found.config, slots=3),
            )
            artifact = type(found.artifact)(
                manifest, found.artifact.vectors, found.artifact.index, found.artifact.path
            )
            return make_serving(artifact, shop.settings)

        monkeypatch.setattr(keeper, "_load", other)
        await asyncio.to_thread(shop.build, 70)
        await until(lambda: shop.count("refused_artifacts") == 1)
        assert keeper.current.version == shop.first

    shop.run(work)
    assert "reset-state" in caplog.text


def test_half_lives_do_not_change_the_shape_but_widths_do() -> None:
    config = InterestConfig()
    longer = msgspec.structs.replace(config, half_lives_seconds=(60.0, 3600.0, 86400.0, 864000.0))
    assert same_layout(config, longer)
    assert not same_layout(config, msgspec.structs.replace(config, dim=32))
    assert not same_layout(config, msgspec.structs.replace(config, seen_bits=8192))


def test_keeper_without_an_artifact_is_a_wrong_call(shop: Shop) -> None:
    keeper = ArtifactKeeper(shop.settings, shop.feed, shop.metrics, shop.warmed.append)
    assert not keeper.caught_up
    with pytest.raises(RuntimeError, match="no artifact is loaded"):
        keeper.current  # noqa: B018


def test_settings_without_an_artifact_are_refused(tmp_path: Path) -> None:
    settings = load_settings({}, artifacts=str(tmp_path / "none"), data_dir=tmp_path / "data")
    with pytest.raises(ArtifactError):
        load_artifact(settings)


def test_version_is_the_manifests(shop: Shop) -> None:
    serving = make_serving(load_artifact(shop.settings), shop.settings)
    assert serving.version == read_manifest(shop.root, shop.first).version


class StuckFeed(Feed):
    """A feed that never reads its changelog to the end."""

    async def wait_caught_up(self) -> None:
        await asyncio.Event().wait()


class StalledFeed(Feed):
    """A feed whose changelog is not read on."""

    async def wait_caught_up(self) -> None:
        raise FeedStalledError("the changelog is not read on")


def feeds_after_the_first(shop: Shop, kind: type[Feed]) -> None:
    """Make every feed but the first one of another kind."""

    def feed(view: object) -> Any:
        shop.feeds.append(kind() if shop.feeds else Feed())
        return shop.feeds[-1]

    shop.feed = feed  # type: ignore[method-assign]


def test_feed_that_does_not_end_holds_up_no_partition_and_no_stop(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "CATCH_UP_SECONDS", 0.2)
    feeds_after_the_first(shop, StuckFeed)

    async def work(keeper: ArtifactKeeper) -> None:
        await asyncio.to_thread(shop.build, 70)
        await until(lambda: len(shop.feeds) == 2)
        async with asyncio.timeout(60.0):
            answers = await asyncio.gather(*(keeper.catch_up(2) for _ in range(3)))
        assert answers == [False] * 3
        assert keeper.current.version == shop.first
        async with asyncio.timeout(60.0):
            await keeper.stop()

    shop.run(work)
    assert all(feed.stopped for feed in shop.feeds)


def test_artifact_whose_feed_stalls_is_tried_again_and_not_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "RETRY_SECONDS", 0.05)
    feeds_after_the_first(shop, StalledFeed)

    async def work(keeper: ArtifactKeeper) -> None:
        version = await asyncio.to_thread(shop.build, 70)
        await until(lambda: len(shop.feeds) == 3)
        assert keeper.current.version == shop.first
        assert str(keeper.problem).startswith(f"{version} waits: ")
        del shop.feed  # the feeds of the class read everything
        keeper._make_feed = shop.feed
        await until(lambda: keeper.current.version == version)

    shop.run(work)
    assert shop.count("refused_artifacts") == 0
    assert "waits, and artifact" in caplog.text
    assert all(feed.stopped for feed in shop.feeds)


def test_artifact_whose_check_is_killed_is_tried_again_and_not_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "RETRY_SECONDS", 0.05)
    checked: list[str] = []

    async def check(version: str) -> bool:
        checked.append(version)
        if len(checked) < 3:
            raise ProcessEndedError("its process ended with -9")
        return True

    shop.check = check

    async def work(keeper: ArtifactKeeper) -> None:
        version = await asyncio.to_thread(shop.build, 70)
        await until(lambda: keeper.problem is not None)
        assert keeper.problem == f"{version} waits: its process ended with -9"
        await until(lambda: keeper.current.version == version)
        assert checked == [version] * 3
        assert keeper.problem is None

    shop.run(work)
    assert shop.count("refused_artifacts") == 0
    assert "waits, and artifact" in caplog.text


def test_artifact_that_breaks_the_reader_is_refused_and_polling_goes_on(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(keeper: ArtifactKeeper) -> None:
        load = keeper._load

        def broken(version: str, checked: bool) -> Any:
            raise ZeroDivisionError("a bug of the reader")

        keeper._load = broken  # type: ignore[method-assign]
        await asyncio.to_thread(shop.build, 70)
        await until(lambda: shop.count("refused_artifacts") == 1)
        assert keeper.current.version == shop.first
        keeper._load = load  # type: ignore[method-assign]
        version = await asyncio.to_thread(shop.build, 71)
        await until(lambda: keeper.current.version == version)

    shop.run(work)
    assert "ZeroDivisionError: a bug of the reader" in caplog.text
