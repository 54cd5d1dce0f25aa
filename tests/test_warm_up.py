"""Warming up: everything a chunk needs is run once, and nothing of it stays."""

import numpy as np

from tests.plane_world import small_artifact
from tracker.kinds import Kind, Kinds
from tracker.serving import make_serving
from tracker.settings import load_settings
from tracker.warm_up import warm_up


def test_warming_up_runs_on_any_catalogue_and_leaves_the_view_alone() -> None:
    settings = load_settings({})
    for items in (1, 40):
        serving = make_serving(small_artifact(items=items), settings)
        warm_up(serving, Kinds.default(), settings.k)
        assert np.isinf(serving.view.log2_counts).all()


def test_warming_up_takes_any_table_of_kinds() -> None:
    settings = load_settings({})
    serving = make_serving(small_artifact(), settings)
    warm_up(serving, Kinds({"only": Kind(1.0)}), 3)
