"""Workers that are killed, stopped and frozen leave exactly what an undisturbed one leaves."""

import asyncio
from pathlib import Path

import pytest

from tests.brokers import KafkaBroker
from tests.faults import Plan as FaultsPlan
from tests.faults import run_faults
from tests.walk.run import walk
from tests.walk.walk import Plan


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_states_after_kills_stops_and_freezes_are_those_of_an_undisturbed_run(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    plan = FaultsPlan(
        workers=2, kills=2, terms=1, freezes=1, events=6000, users=600, seed=7, pause_seconds=4.0
    )
    outcome = asyncio.run(run_faults(kafka.address, prefix, tmp_path, plan))
    assert outcome.wrong_users == []
    assert outcome.wrong_items == []
    assert outcome.without_list == []
    assert outcome.died_by_themselves == []
    assert outcome.hung == []
    assert outcome.users > 500
    assert len(outcome.faults) == 4
    assert min(outcome.neighbours.values()) >= 0.95


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("brokers", [1, 3])
def test_states_and_lists_after_a_short_random_walk_are_those_of_the_model(
    brokers: int, tmp_path: Path
) -> None:
    result = walk(Plan(seed=7, actions=8, brokers=brokers), tmp_path)
    assert result["named"] == {}
    assert result["numbers"]["users"] > 100
    assert result["actions"] == 8
