"""The model of a walk, on a worker's state without a broker: both come to the same rows."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plane_world import FakeRecord, WorkerState
from tests.states import Rows
from tests.walk.crew import End
from tests.walk.events import START, Sent, burst, stream
from tests.walk.judge import (
    Commits,
    Lists,
    Verdict,
    Versions,
    compare_items,
    compare_plain,
    compare_users,
    pauses,
)
from tests.walk.model import Action, Content, Model, hash_of, read_event
from tests.walk.walk import Done, Journal
from tests.worlds import checkerboard
from tracker.artifact.artifact import Artifact
from tracker.items.vectors import ItemVectors
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import WAITING_PREFIX
from tracker.stream.serving import make_serving
from tracker.stream.side import OpenVerdictError
from tracker.users.config import InterestConfig

ITEMS = 40
WIDE = InterestConfig(dim=16)
LATER = START + 1e5
CHUNK = 37
ITEM_PLACE = ("t-items", 0)
"""The only partition of items that is applied."""
CLOCK = START + 2e5


def artifact(basis: str, sequence: int, turned: int = 0) -> Artifact:
    ids = [f"i{number}" for number in range(ITEMS)]
    vectors = np.roll(checkerboard(ITEMS), turned, axis=0)
    items = ItemVectors.make(ids, vectors, 16, labels=ids)
    return Artifact.in_memory(
        items, interest=WIDE, sequence=sequence, version=f"v{sequence}", basis=basis
    )


class Pair:
    """A worker's state and the model, which get the same events."""

    def __init__(self, folder: Path) -> None:
        self.versions: Any = Versions(folder)
        self.worker = WorkerState(folder)
        self.worker.now = CLOCK
        self.model = Model()
        self.steps: dict[int, Content] = {}
        self.sent = 0
        self.number = 0
        self.blocks: list[Record] = []

    def use(self, one: Artifact) -> None:
        """Serve an artifact from now on."""
        hashes = [hash_of(item) for item in one.vectors.ids]
        basis = one.manifest.basis
        self.versions.config = one.manifest.interest
        self.versions.scales = one.manifest.item_counts
        self.versions.bases[hash_of(basis)] = basis
        self.versions.vectors[basis] = dict(zip(hashes, one.vectors.vectors, strict=True))
        self.number += 1
        self.steps = {self.number: Content(basis, frozenset(hashes))}
        self.worker.keeper.current = make_serving(one, self.worker.settings)
        if not self.sent:
            self.worker.restart()

    def send(self, records: list[Sent]) -> None:
        """Send records in chunks to the one, one by one to the other."""
        for at in range(0, len(records), CHUNK):
            part = records[at : at + CHUNK]
            chunk = [
                FakeRecord(
                    self.sent + n, value, None if user is None else user.encode(), int(CLOCK * 1000)
                )
                for n, (user, value) in enumerate(part)
            ]
            self.sent += len(chunk)
            try:
                self.worker.users.process(chunk, self.sent)
            except OpenVerdictError:  # an event of the future: its clock is committed first
                self.blocks += self.worker.commit()
                self.worker.users.process(chunk, self.sent)
            for record in chunk:
                action = read_event(record.value)
                if action is not None:
                    self.model.apply(0, record.offset, action, self.steps)

    def of_items(self) -> Model:
        """Return the model with the items of one of two partitions."""
        items = {item: one for item, one in self.model.items.items() if item % 2 == 0}
        return replace(self.model, items=items)

    def rows(self) -> Rows:
        """Commit users and items, and return their rows."""
        records = self.blocks + self.worker.commit()
        blocks = [record for record in records if (record.topic, record.partition) == ITEM_PLACE]
        chunk = [FakeRecord(n, record.value) for n, record in enumerate(blocks)]
        self.worker.items.process(chunk, len(chunk))
        self.worker.commit(self.worker.items)
        rows = Rows()
        for table in self.worker.databases.values():
            entries: Any = table.items()
            for key, value in entries:
                kind, name = key[:1], key[1:]
                if kind == b"u":
                    rows.users[0, name] = value
                elif kind == b"s":
                    rows.seen[0, name] = value
                elif kind == b"i":
                    rows.items[name] = value
                elif key.startswith(WAITING_PREFIX):
                    rows.waiting[key.removeprefix(WAITING_PREFIX)] = value
        return rows


def events(seed: int, count: int) -> list[Sent]:
    found = list(itertools.islice(stream(seed, 25), count))
    for kind in ("late", "repeated", "retracted", "rubbish", "compressed"):
        found += burst(kind, f"{kind} {seed}", 25, LATER)
    return found


def test_model_and_worker_come_to_the_same_rows_also_in_another_basis(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.use(artifact("one", 1))
    pair.send(events(1, 900))
    pair.use(artifact("two", 2, turned=5))
    pair.send(events(2, 500))
    rows = pair.rows()
    assert len(rows.users) > 20
    assert rows.seen
    assert compare_users(pair.model, rows, pair.versions) == {}
    assert compare_items(pair.of_items(), rows, pair.versions) == []
    pair.worker.close()


def test_one_event_more_or_less_is_seen(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.use(artifact("one", 1))
    sent = events(3, 200)
    pair.send(sent)
    event = next(one for one in sent if one[1] is not None and b'"like"' in one[1])
    action = read_event(event[1])
    assert action is not None
    pair.model.apply(0, pair.sent, replace(action, event_id=0), pair.steps)
    rows = pair.rows()
    wrong = compare_users(pair.model, rows, pair.versions)
    assert len(wrong) == 1
    assert "events is" in next(iter(wrong.values()))
    assert len(compare_items(pair.of_items(), rows, pair.versions)) == (action.item % 2 == 0)
    pair.worker.close()


def like(event_id: str, time: float, item: str = "i1") -> Action:
    return Action("u", time, hash_of(item), 2.0, event_id=hash_of(event_id))


def test_order_in_the_ring_tells_the_states_of_two_commits_apart() -> None:
    earlier = Content("one", frozenset({hash_of("i1")}), earlier=True)
    now = Content("one", frozenset({hash_of("i1")}))
    model = Model()
    model.apply(0, 0, like("a", 100.0), {0: earlier})
    model.apply(0, 1, like("b", 50.0), {0: earlier, 1: now})  # late, and of either commit
    model.apply(0, 2, like("c", 200.0), {1: now})
    rings = {tuple(entry.time for entry in user.ring) for user in model.users[0, "u"]}
    assert rings == {(100.0, 50.0, 200.0), (50.0, 100.0, 200.0)}
    assert model.unsure_users == 1
    assert model.unsure == set()


@pytest.mark.parametrize(("earlier", "expected"), [(True, -2), (False, 0)])
def test_earlier_commit_takes_back_from_an_item_also_what_it_was_not_told(
    earlier: bool, expected: int
) -> None:
    now = Content("one", frozenset({hash_of("i1")}))
    model = Model()
    names = [chr(ord("a") + number) for number in range(7)]
    for offset, name in enumerate(names):
        model.apply(0, offset, like(name, 100.0 + offset), {0: now})
    assert model.items[hash_of("i1")].positives == 5
    for offset, name in enumerate(names, len(names)):
        retraction = Action("u", 200.0, retracts=hash_of(name))
        model.apply(0, offset, retraction, {1: replace(now, earlier=earlier)})
    assert model.items[hash_of("i1")].positives == expected
    assert model.users[0, "u"][0].positives == 0


def test_event_between_two_lists_of_one_commit_was_applied_by_that() -> None:
    both = {0: Content("one", frozenset(), earlier=True), 1: Content("one", frozenset())}
    made = {(0, offset): Lists("u", [], "v", 7, [], earlier=offset < 7) for offset in (2, 5, 9, 12)}
    commits = Commits(made)
    possible = [list(commits.narrow(both, (0, offset))) for offset in (0, 3, 5, 7, 10, 13)]
    assert possible == [[0, 1], [0], [0], [0, 1], [1], [0, 1]]
    assert commits.narrow({1: both[1]}, (0, 3)) == {1: both[1]}


@pytest.mark.parametrize("began", [100.0, 99.2])
def test_pause_is_of_the_action_that_begins_in_it(began: float) -> None:
    journal = Journal(Path("none"), ended=200.0)
    journal.done = [Done(0, "kill", began, True), Done(1, "late", 130.0, False)]
    times = [*np.arange(80.0, 100.5, 0.25), *np.arange(107.0, 150.0, 0.25)]
    lists = {(0, n): Lists("u", [], "v", n, [float(time)]) for n, time in enumerate(times)}
    found = pauses(journal, lists, 1)
    assert found["kill"] == [{"seconds": 6.75, "clean": 1.0}]
    assert found["late"] == [{"seconds": 0.25, "clean": 0.0}]


def test_what_of_a_pause_is_after_the_broker_came_back_is_told_apart() -> None:
    journal = Journal(Path("none"), ended=200.0)
    journal.done = [Done(0, "broker killed", 100.0, True, back=120.0), Done(1, "kill", 150.0, True)]
    lists = {
        (0, 0): Lists("u", [], "v", 1, [99.0, 121.5, 140.0]),
        (1, 0): Lists("v", [], "v", 1, [99.5, 123.0, 140.0]),
    }
    (found,) = pauses(journal, lists, 2)["broker killed"]
    assert found == {"seconds": 23.5, "clean": 1.0, "after": 3.0}


def test_a_walk_that_goes_on_knows_the_ends_of_workers_from_before(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "walk.json")
    ends = [End(0, -9, 100.0, "killed"), End(1, 1, 101.0, "no broker")]
    journal.note(ends)
    journal.keep()
    assert ends == []
    found = Journal.of(tmp_path / "walk.json").ends
    assert [(end["worker"], end["wrong"]) for end in found] == [(0, True), (1, False)]


def made_of(scores: dict[str, float], time: float = 5.0) -> Lists:
    items = [(item, "content") for item in scores]
    return Lists("u", items, "v", 1, [1.0], time, tuple(scores.values()))


@pytest.mark.parametrize(
    ("other", "wrong", "compared"),
    [
        (made_of({"a": 3.0, "b": 2.0, "c": 2.0}), 0, 1),
        (made_of({"a": 3.0, "c": 2.0, "b": 2.0}), 0, 1),  # a tie
        (made_of({"a": 3.0, "d": 2.5, "b": 2.0}), 1, 1),
        (made_of({"a": 3.0, "b": 2.0}), 1, 1),
        (made_of({"d": 9.0}, time=6.0), 0, 0),  # made for another time
    ],
)
def test_list_of_a_plain_walk_differs_from_an_undisturbed_one_by_ties_alone(
    other: Lists, wrong: int, compared: int
) -> None:
    verdict = Verdict()
    made = made_of({"a": 3.0, "b": 2.0, "c": 2.0})
    compare_plain({(0, 7): made}, {(0, 3): other}, {(0, 7): (0, 3)}, verdict)
    assert (len(verdict.wrong_lists), verdict.compared_lists) == (wrong, compared)
