"""Half-lives chosen by what users choose next, in worlds whose tastes last a known time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.data.histories import EventLog
from indexer.data.holdout import periods
from indexer.train import half_lives
from indexer.train.half_lives import GRID, MIN_TARGETS, HalfLives, choose_half_lives
from tests.decay_reference import forward_decay_add
from tests.logs import read_events
from tracker.events.wire import hash_id
from tracker.items.config import DAY, HOUR
from tracker.users.config import InterestConfig

DEFAULT = InterestConfig().half_lives_seconds
ITEMS, GROUPS, DIM = 60, 6, 8
START = 1_700_000_000.0


def vectors() -> np.ndarray[Any, Any]:
    random = np.random.default_rng(5)
    centres = random.normal(size=(GROUPS, DIM))
    found = centres[np.arange(ITEMS) % GROUPS] + 1.2 * random.normal(size=(ITEMS, DIM))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def log_of(folder: Path, gap: float, lasting: float, users: int = 60, each: int = 60) -> EventLog:
    """Users whose group changes after about `lasting` seconds, an event every `gap` seconds."""
    random = np.random.default_rng(3)
    events = []
    for user in range(users):
        time, group = START + random.uniform(0.0, gap), int(random.integers(GROUPS))
        for _ in range(each):
            wait = random.exponential(gap)
            time += wait
            if random.uniform() < 1.0 - np.exp(-wait / lasting):
                group = int(random.integers(GROUPS))
            item = group + GROUPS * int(random.integers(ITEMS // GROUPS))
            events.append({"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": time})
    events.sort(key=lambda event: float(str(event["timestamp"])))
    return read_events(folder, [{**event, "kind": "purchase"} for event in events])


def rows_of(log: EventLog) -> np.ndarray[Any, Any]:
    places = {hash_id(f"i{n}"): n for n in range(ITEMS)}
    return np.array([places[code] for code in log.batch.items.tolist()], np.int64)


def choice(log: EventLog, most: int = 10**9) -> HalfLives | None:
    targets = np.flatnonzero(log.positive & (log.lengths() > 0))[:most]
    return choose_half_lives(log, rows_of(log), vectors(), targets, DEFAULT)


@pytest.mark.training
def test_tastes_that_last_for_years_get_longer_half_lives(tmp_path: Path) -> None:
    found = choice(log_of(tmp_path, gap=30 * DAY, lasting=9000 * DAY))
    assert found is not None
    assert max(found.seconds) > max(DEFAULT)
    assert found.loss < found.loss_in_force - 2.0 * found.error


@pytest.mark.training
def test_tastes_of_minutes_get_shorter_ones(tmp_path: Path) -> None:
    found = choice(log_of(tmp_path, gap=90.0, lasting=900.0))
    assert found is not None
    assert min(found.seconds) < min(DEFAULT)


@pytest.mark.training
def test_those_in_force_stay_where_nothing_is_clearly_better(tmp_path: Path) -> None:
    """Nobody's taste lasts: no half-life tells what comes next."""
    found = choice(log_of(tmp_path, gap=HOUR, lasting=1.0))
    assert found is not None
    assert found.seconds == DEFAULT


@pytest.mark.training
def test_too_few_targets_choose_nothing(tmp_path: Path) -> None:
    log = log_of(tmp_path, gap=HOUR, lasting=DAY)
    assert choice(log, MIN_TARGETS - 1) is None
    assert choice(log, MIN_TARGETS) is not None


@pytest.mark.parametrize("kernel", ["native", "plain"])
def test_columns_are_cosines_with_the_sums_that_states_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    if kernel == "plain":
        plain: Any = half_lives._fill
        monkeypatch.setattr(half_lives, "_fill", plain.py_func)
    log = log_of(tmp_path, gap=HOUR, lasting=DAY, users=6, each=12)
    rows, table = rows_of(log), vectors()
    targets = np.flatnonzero(log.lengths() > 0)
    columns, offsets = half_lives._columns(log, rows, table, targets, GRID)
    assert (offsets[:, 0] == 0.0).all()
    for q in (0, 9, len(targets) - 1):
        event = targets[q]
        before = np.flatnonzero((log.users == log.users[event]) & (np.arange(len(log)) < event))
        for h, seconds in enumerate(GRID):
            total, mass, last = np.zeros(DIM), 0.0, 0.0
            for e in before.tolist():
                weight, time = float(log.batch.weights[e]), float(log.batch.times[e])
                vector = table[rows[e]].astype(np.float64)
                mass, last = forward_decay_add(total, mass, last, time, weight, vector, seconds)
            mass *= 2.0 ** -((log.batch.times[event] - last) / seconds)
            expected = table[rows[event]] @ total / np.linalg.norm(total) * mass / (mass + 0.5)
            assert columns[q, 0, h] == pytest.approx(expected, abs=1e-4)


def test_a_taste_that_tells_nearly_all_is_weighed_by_finite_numbers() -> None:
    """A full step of Newton's method goes far too far here, and the next one is not a number."""
    random = np.random.default_rng(0)
    columns = (0.02 * random.normal(size=(400, 65, 2))).astype(np.float32)
    for place, share in ((0, 0.97), (1, 0.9)):
        columns[:, 0, place] += np.where(random.random(400) < share, 0.9, 0.0)
    nothing = np.zeros((400, 65), np.float32)
    fits = [half_lives._fit(columns, nothing, places) for places in ([0], [1], [0, 1])]
    assert all(np.isfinite(weights).all() for weights, _ in fits)
    first, second, both = (loss for _, loss in fits)
    assert both < first < second < np.log(65)


def test_periods_are_named_as_people_say_them() -> None:
    assert periods(DEFAULT) == "30 min, 1 d, 7 d, 60 d"
