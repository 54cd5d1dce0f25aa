"""The arithmetic of the benchmarks of speed: bounds, matching of lists, gaps, sizes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.check import BOUNDS, Bound, report
from benchmarks.latency import by_name, by_order
from benchmarks.pauses import REBALANCED, answered, pauses
from benchmarks.recommend import STAGES
from benchmarks.results import NotMeasuredError, Stored
from benchmarks.speed_blocks import needs
from benchmarks.swap import parts_of
from benchmarks.systems import Stored as Record
from benchmarks.systems import Systems
from tracker.worker.rebalance_log import RebalanceLog


def event(ms: int, partition: int, offset: int, key: bytes = b"a", value: bytes = b"") -> Record:
    return Record(ms, partition, offset, key, value)


def names(partition: int, offset: int) -> bytes:
    return b'{"id":"made-up-events-%d-%d"}' % (partition, offset)


def test_the_nth_list_of_a_user_answers_the_nth_event_and_those_of_the_warm_up_do_not_count() -> (
    None
):
    events = [event(10, 0, 0), event(20, 0, 1, b"b"), event(30, 0, 2), event(40, 1, 0, b"c")]
    lists = [event(15, 0, 0), event(26, 0, 1, b"b"), event(37, 0, 2), event(48, 1, 0, b"c")]
    assert by_order(events, lists, 1) == [6.0, 7.0, 8.0]


def test_a_list_of_the_tracker_names_the_event_that_it_answers() -> None:
    events = [event(10, 0, 0), event(20, 0, 1), event(30, 1, 0)]
    lists = [event(19, 0, 0, b"a", names(0, 1)), event(39, 1, 0, b"a", names(1, 0))]
    assert by_name(events, lists, 2) == [9.0]


def test_an_event_is_answered_by_the_first_list_of_it_or_of_a_later_event_of_its_user() -> None:
    events = [event(10, 0, 0), event(20, 0, 1), event(30, 0, 2, b"b"), event(40, 0, 3)]
    lists = [
        event(25, 0, 0, b"a", names(0, 1)),
        event(99, 0, 1, b"a", names(0, 1)),  # the same again, after a crash
        event(60, 0, 2, b"b", names(0, 2)),
    ]
    assert answered(events, lists) == {(0, 0): 15.0, (0, 1): 5.0, (0, 2): 30.0, (0, 3): None}


def test_a_pause_is_the_longest_wait_of_a_partition_s_events_in_a_time() -> None:
    events = [event(10, 0, 0), event(20, 0, 1), event(20, 1, 0), event(30, 0, 2)]
    late = {(0, 0): 900.0, (0, 1): 5.0, (1, 0): None, (0, 2): 7.0}
    assert pauses(events, late, 20.0, 30.0) == {0: 5.0}


def test_the_longest_pause_of_any_partition_is_held_against_its_bound() -> None:
    run = {"moved": [8900.0], "stayed": [950.0], "phases": []}
    plan = {"session_timeout": 6.0}
    results = Stored(pauses={"figures": {"plan": plan, "actions": {"kill": [run], "term": [run]}}})
    lines, _ = report(results, [one for one in BOUNDS if "without a list" in one.name])
    assert [line.partition(" ")[0] for line in lines] == ["ok", "-", "MISSED", "-"]
    assert "2.90, at most 3" in lines[0]


def test_the_pause_of_a_lost_disk_may_be_longer_by_its_recovery() -> None:
    run = {"moved": [12_500.0], "stayed": [], "phases": [], "recovery": 4.0}
    figures = {"plan": {"session_timeout": 6.0}, "actions": {"wipe": [run], "wipe_alone": [run]}}
    bounds = [one for one in BOUNDS if "disk lost" in one.name]
    results = Stored({"pauses-wiped": {"figures": figures}})
    (line,), _ = report(results, bounds)
    assert line.startswith("ok")
    assert "2.50, at most 3" in line
    run["recovery"] = 3.0
    (line,), _ = report(results, bounds)
    assert line.startswith("MISSED")


def test_the_phases_of_a_rebalance_are_read_from_the_line_that_a_worker_logs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    clock = iter([1.0, 1.25, 2.0])
    rebalance = RebalanceLog(lambda: next(clock))
    rebalance.begin()
    rebalance.phase("release")
    rebalance.end("join", 6)
    found = REBALANCED.search(caplog.text)
    assert found is not None
    assert found[1] == "release 0.25, join 0.75"


def test_events_before_a_change_are_told_from_those_during_it() -> None:
    events = [event(ms, 0, number) for number, ms in enumerate((5, 15, 25, 35))]
    lists = [event(one.ms + 3, 0, one.offset, b"a", names(0, one.offset)) for one in events]
    found = parts_of(events, lists, (10.0, 20.0, 30.0))
    assert found == {"before": [3.0], "during": [3.0]}


def test_each_step_of_a_recommendation_is_timed_where_it_is_called() -> None:
    assert [name for name, module in STAGES.items() if not hasattr(module, name)] == []


def test_a_missed_bound_fails_and_one_that_is_not_measured_does_not() -> None:
    def missing(results: Stored) -> float:
        raise NotMeasuredError("swap")

    good = Bound("good", lambda results: 3.0, least=2.0)
    bad = Bound("bad", lambda results: 3.0, most=2.0)
    lines, holds = report(Stored(), [good, Bound("absent", missing, most=1.0)])
    assert holds
    assert "not measured" in lines[1]
    lines, holds = report(Stored(), [good, bad])
    assert not holds
    assert lines[1].startswith("MISSED bad: 3.00")


@pytest.mark.parametrize(("rate", "workers"), [(1.0, 1), (4999.0, 1), (5001.0, 2), (50_000.0, 10)])
def test_workers_are_busy_for_a_part_of_a_core_only(rate: float, workers: int) -> None:
    found = needs(rate, 1e6, 1e5, {"event": 100.0, "user": 2000.0})
    assert found["workers"] == workers
    assert np.isclose(found["disk_gb"] * workers, found["broker_gb"])


def test_a_run_in_a_kept_folder_does_not_see_what_an_earlier_measurement_printed(
    tmp_path: Path,
) -> None:
    for word in ("earlier", "present"):
        systems = Systems(tmp_path, "localhost:1", 10, 10)
        with systems.running([sys.executable, "-c", f"print('{word}')"], {}) as process:
            process.wait(20.0)
    assert process.log.read_text().split() == ["present"]
