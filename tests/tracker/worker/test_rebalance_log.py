"""RebalanceLog: one line for a rebalance, with the seconds of each phase."""

import pytest

from tracker.worker.rebalance_log import RebalanceLog


def test_a_rebalance_that_another_one_follows_before_its_end_is_one_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    clock = iter([1.0, 1.25, 2.0, 2.5, 2.5, 3.0, 9.0, 9.5])
    rebalance = RebalanceLog(lambda: next(clock))
    rebalance.phase("join")  # of no rebalance
    rebalance.begin()
    rebalance.phase("release")
    rebalance.phase("join")
    rebalance.begin()
    rebalance.phase("release")
    rebalance.phase("join")
    rebalance.end("seek", 6)
    rebalance.end("seek", 6)  # of no rebalance
    rebalance.begin()
    rebalance.end("release", 0)
    assert caplog.messages == [
        "rebalanced in 2.00 s (release 0.75, join 0.75, seek 0.50); partitions now: 6",
        "rebalanced in 0.50 s (release 0.50); partitions now: 0",
    ]
