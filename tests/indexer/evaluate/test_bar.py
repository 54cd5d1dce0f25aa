"""The bar: the list as served lacks at most 2 % of the whole ranking, and the report says so."""

import numpy as np
import pytest

from indexer.evaluate.answers import Answers
from indexer.evaluate.bar import bar_lines, measure_served
from indexer.evaluate.result import Served

EVERY = np.ones(1000, np.bool_)
USERS = np.arange(1000) // 2


def measured(lost: int, hits: int = 500, among: np.ndarray = EVERY) -> list[Served]:
    """Of 1,000 targets the whole ranking puts `hits` first; the list as served lacks `lost`."""
    ranks = np.where(np.arange(1000) < hits, 1.0, np.inf)
    whole = Answers(ranks, np.zeros((1000, 10), np.int64))
    found = np.arange(1000) >= lost
    served = Answers(np.where(found, ranks, np.inf), whole.lists, found, found & (ranks < 2.0))
    return measure_served(whole, served, [("all", EVERY), ("some", among)], USERS, 0)


def test_two_percent_less_than_the_whole_ranking_meets_the_bar() -> None:
    rows = measured(lost=10)
    assert {row.metric for row in rows} == {"hit_rate_at_10", "ndcg_at_10"}
    assert rows[0].short == pytest.approx(0.02)
    assert not any(row.missed for row in rows)
    assert bar_lines(rows)[-1] == "the bar is met on all 2 slices"


def test_more_than_two_percent_less_misses_it_on_every_slice_of_two_hundred_hits() -> None:
    rows = measured(lost=11)
    assert all(row.missed for row in rows)
    lines = [line for line in bar_lines(rows) if "MISSED on some" in line]
    assert len(lines) == 2
    assert "HR@10 0.4890 of 0.5000 (-2.2%" in lines[0]
    assert "500 hits, 97.8% of them among the candidates, 97.8% after the cut" in lines[0]


def test_a_slice_of_few_hits_misses_it_only_by_its_whole_interval() -> None:
    few = np.arange(1000) < 100
    little, much = (
        next(row for row in measured(lost, 500, few) if row.slice == "some") for lost in (3, 40)
    )
    assert little.hits == much.hits == 100
    assert little.short == pytest.approx(0.03)
    assert little.ci is not None
    assert much.ci is not None
    assert little.ci[0] < 0.02 < much.ci[0]
    assert (little.missed, much.missed) == (False, True)


def test_recall_is_reported_of_the_candidates_and_of_the_cut() -> None:
    row = measured(lost=100)[0]
    assert row.candidates == pytest.approx(0.9)
    assert row.cut == pytest.approx(0.4)
    assert row.hits_in_candidates == row.hits_in_cut == pytest.approx(0.8)


def test_nothing_is_said_where_the_whole_ranking_has_no_hit() -> None:
    rows = measured(lost=0, hits=0)
    assert [(row.short, row.ci, row.missed) for row in rows] == [(None, None, False)] * 4
    assert bar_lines(rows) == []
