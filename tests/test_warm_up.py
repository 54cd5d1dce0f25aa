"""Warming up: everything a chunk needs is run once, and nothing of it stays."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.plane_world import small_artifact
from tracker import network
from tracker.context import COLUMNS
from tracker.kinds import Kind, Kinds
from tracker.ranker import Blend
from tracker.serving import make_serving
from tracker.settings import load_settings
from tracker.warm_up import _blank_network, warm_up


def test_warming_up_runs_on_any_catalogue_and_leaves_the_view_alone() -> None:
    settings = load_settings({})
    for items in (1, 40):
        serving = make_serving(small_artifact(items=items), settings)
        warm_up(serving, Kinds.default(), settings.k)
        assert np.isinf(serving.view.log2_counts).all()


def test_a_ranker_that_comes_later_is_compiled_already(tmp_path: Path) -> None:
    settings = load_settings({})
    serving = make_serving(small_artifact(), settings)
    assert isinstance(serving.recommender.ranker, Blend)
    warm_up(serving, Kinds.default(), settings.k)
    compiled: Any = network._forward
    before = list(compiled.signatures)
    path = tmp_path / "ranker.safetensors"
    blank = _blank_network()
    path.write_bytes(blank.to_bytes())
    columns = np.zeros((1, 2, len(COLUMNS)), np.float32)
    assert not network.Network.load(path, blank.info).score(columns, np.array([2])).any()
    assert compiled.signatures == before


def test_warming_up_takes_any_table_of_kinds() -> None:
    settings = load_settings({})
    serving = make_serving(small_artifact(), settings)
    warm_up(serving, Kinds({"only": Kind(1.0)}), 3)
