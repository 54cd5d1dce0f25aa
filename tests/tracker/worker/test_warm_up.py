"""Warming up: everything a chunk needs is run once, and nothing of it stays."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.data.catalog import Catalog
from indexer.items.assemble import assemble, build_artifact, write_version
from indexer.items.index import searched_rows
from indexer.items.options import BuildOptions
from indexer.items.tower_items import make_tower
from tests.paths import ROOT
from tests.plane_world import small_artifact
from tests.shop import WIDTH, LetterEncoder, shop_items
from tests.tracker.encoder.test_tower import fitted
from tests.tracker.scoring.test_network import weights
from tests.tracker.scoring.test_prediction import info_of, weights_of
from tracker.artifact.models import Models
from tracker.artifact.versions import set_latest
from tracker.events.kinds import Kind, Kinds
from tracker.items import search_memory
from tracker.scoring.context import COLUMNS
from tracker.scoring.network import Network
from tracker.scoring.prediction import Prediction
from tracker.settings import load_settings
from tracker.stream.serving import make_serving
from tracker.worker.warm_up import warm_up


def test_warming_up_runs_on_any_catalogue_and_leaves_the_view_alone() -> None:
    settings = load_settings({})
    for items in (1, 40):
        serving = make_serving(small_artifact(items=items), settings)
        warm_up(serving, Kinds.default(), settings.k)
        warm_up(serving, Kinds.default(), settings.k, lists_first=True)
        assert np.isinf(serving.view.columns.log2_counts).all()


def test_kernels_of_searches_are_warmed_up_where_no_user_needs_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, called = load_settings({}), []

    def noting(name: str) -> Callable[..., object]:
        kernel = getattr(search_memory, name)

        def call(*arguments: object) -> object:
            called.append(name)
            return kernel(*arguments)

        return call

    for name in ("_hash_queries", "_find_rows", "_keep_rows"):
        monkeypatch.setattr(search_memory, name, noting(name))
    artifact = small_artifact(items=1)
    nearest = searched_rows(np.asarray(artifact.vectors.vectors), artifact.index)
    known = replace(artifact, vectors=replace(artifact.vectors, nearest=nearest))
    warm_up(make_serving(known, settings), Kinds.default(), settings.k)
    assert {"_hash_queries", "_find_rows", "_keep_rows"} == set(called)


def test_a_swap_to_a_trained_artifact_leaves_nothing_to_compile_to_its_chunks(
    tmp_path: Path,
) -> None:
    root = tmp_path / "artifacts"
    catalog, encoder = Catalog(items=shop_items(40)), LetterEncoder()
    first = build_artifact(catalog, encoder, root, BuildOptions(dim=16))
    parts = assemble(catalog, encoder, root, BuildOptions())
    models = Models(
        ranker=Network(COLUMNS, weights(len(COLUMNS))),
        tower=make_tower(fitted(scenes=True, attributes=True, text_dim=WIDTH), parts.items),
        prediction=Prediction(info_of(), weights_of()),
    )
    trained = write_version(root, parts, models, None)
    set_latest(root, first.version)
    command = [sys.executable, "-m", "tests.changeover", str(root), trained.version, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["steps"]) == {"ranker", "attention", "calibration"}
    assert all(found["steps"].values())
    assert found["compiled"] == []


def test_warming_up_takes_any_table_of_kinds() -> None:
    settings = load_settings({})
    serving = make_serving(small_artifact(), settings)
    warm_up(serving, Kinds({"only": Kind(1.0)}), 3)
