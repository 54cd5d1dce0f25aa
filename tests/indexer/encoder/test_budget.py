"""The time of a training: what fits into it, and what is said of the rest."""

import math

import numpy as np

from indexer.encoder.budget import Budget
from indexer.encoder.fit import Course, fit_encoder
from tests.indexer.encoder.test_fit import CONFIG, CPU, OPTIONS, parts, world


def test_without_minutes_nothing_is_bounded_and_nothing_is_left_out() -> None:
    budget = Budget(None)
    assert budget.until(0.5) == math.inf
    assert budget.has(1e9)
    assert budget.examples(24_000) == 24_000
    assert budget.note() == ""


def test_minutes_are_shared_out_from_the_start_on() -> None:
    now = 100.0
    budget = Budget(2.0, lambda: now)
    assert budget.until(0.5) == 160.0
    assert budget.examples(24_000) == 8000
    now = 200.0
    assert budget.has(20.0)
    assert not budget.has(21.0)
    budget.leave_out("3 of 10 epochs of the encoder")
    assert budget.note() == "in 2 minutes there was no time for: 3 of 10 epochs of the encoder"


def test_a_fit_without_time_ends_after_its_first_epoch_and_counts_the_others() -> None:
    sequences, items = world()
    train, validation = parts(sequences)
    done = fit_encoder(
        sequences,
        items,
        CONFIG,
        train,
        validation,
        OPTIONS,
        device=CPU,
        course=Course(until=-math.inf),
    )
    assert len(done.curve) == 1
    assert done.left_out == OPTIONS.epochs - 1
    assert done.best_epoch == 1
    again = fit_encoder(sequences, items, CONFIG, train, np.zeros(0, np.int64), OPTIONS, device=CPU)
    assert again.left_out == 0
