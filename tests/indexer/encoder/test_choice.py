"""Which of several settings of an encoder is kept."""

import numpy as np
import pytest

from indexer.encoder.choice import MAX_TRIES, Setting, choose, settings_to_try

BASE = Setting(64, 0.2, 4e-3)


def test_every_other_setting_differs_from_the_base_in_one_thing() -> None:
    found = settings_to_try(BASE, MAX_TRIES, keep_dim=False)
    assert len(found) == len(set(found)) == MAX_TRIES
    assert found[0] == BASE
    for other in found[1:]:
        same = [
            other.dim == BASE.dim, other.dropout == BASE.dropout,
            other.learning_rate == BASE.learning_rate,
        ]  # fmt: skip
        assert sum(same) == 2
    assert len({other.name for other in found}) == MAX_TRIES
    assert settings_to_try(BASE, 2, keep_dim=False) == found[:2]


def test_a_width_that_was_given_is_not_chosen() -> None:
    found = settings_to_try(BASE, MAX_TRIES, keep_dim=True)
    assert {other.dim for other in found} == {64}
    assert len(found) == MAX_TRIES - 2


def test_a_clearly_better_setting_is_kept_and_one_better_by_chance_is_not() -> None:
    random = np.random.default_rng(0)
    first = random.uniform(size=400)
    noisy = first + random.normal(0.0005, 1.0, 400)
    noisy += first.mean() + 0.001 - noisy.mean()
    better = first + random.normal(0.1, 0.1, 400)
    settings = settings_to_try(BASE, 3, keep_dim=False)
    kept, tried = choose(settings, np.stack([first, noisy, better]))
    assert kept == 2
    assert [one.chosen for one in tried] == [False, False, True]
    assert (tried[2].behind, tried[2].error) == (0.0, 0.0)
    assert tried[0].behind == pytest.approx(float((better - first).mean()))
    assert tried[0].error == pytest.approx(float((better - first).std()) / 20.0)
    kept, tried = choose(settings[:2], np.stack([first, noisy]))
    assert kept == 0
    assert tried[0].behind > 0.0


def test_of_equals_the_first_is_kept() -> None:
    kept, _ = choose(settings_to_try(BASE, 3, keep_dim=False), np.ones((3, 50)))
    assert kept == 0
