"""Fits in processes of their own, and the choice among them."""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from indexer.encoder import tower as train_tower
from indexer.encoder.budget import Budget
from indexer.encoder.choice import Setting
from indexer.encoder.fit import Fitted, fit_encoder
from indexer.encoder.learner import EncoderOptions, Learner
from indexer.encoder.options import TowerOptions
from indexer.encoder.side_fits import Fit, side_fits
from indexer.encoder.tower import fit_tower, refit_beside, refit_tower
from indexer.encoder.tower_data import make_tower_data
from tests.indexer.encoder.test_fit import CONFIG, CPU, OPTIONS, parts, world
from tests.indexer.encoder.test_tower import ITEMS, events_of, made
from tests.paths import ROOT
from tests.shards import Copies

pytestmark = pytest.mark.training


def fit_of(folder: Path, name: str = "one", epochs: int = OPTIONS.epochs) -> Fit:
    options = msgspec.structs.replace(OPTIONS, epochs=epochs, patience=epochs)
    sequences, items = world()
    train, validation = parts(sequences)
    return Fit(
        sequences, items, CONFIG, train, validation, options, CPU, None, folder / f"{name}.st"
    )


def weights(fitted: Fitted) -> dict[str, Any]:
    return {name: value.tolist() for name, value in fitted.trained.state_dict().items()}


@pytest.fixture
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_what_is_fitted_beside_is_what_would_be_fitted_here(tmp_path: Path) -> None:
    fit, other = fit_of(tmp_path), fit_of(tmp_path, "two")
    with side_fits([fit, other], processes=1):
        here = fit_encoder(
            fit.sequences, fit.items, CONFIG, fit.train, fit.validation, OPTIONS, device=CPU
        )
    assert fit.checkpoint.exists()
    assert other.checkpoint.exists()
    there = fit.resume()
    assert weights(there) == weights(here)
    assert [line.epoch for line in there.curve] == [line.epoch for line in here.curve]


@pytest.mark.usefixtures("_one_thread")
def test_a_fit_whose_time_is_over_before_its_turn_is_not_begun(tmp_path: Path) -> None:
    fit, late = fit_of(tmp_path, epochs=1), replace(fit_of(tmp_path, "late"), until=0.0)
    with side_fits([fit, late], processes=1):
        pass
    assert fit.checkpoint.exists()
    assert not late.checkpoint.exists()


@pytest.mark.usefixtures("_one_thread")
def test_what_a_killed_process_left_is_done_by_whoever_takes_it_up(tmp_path: Path) -> None:
    fit = fit_of(tmp_path)
    with side_fits([fit], processes=1):
        wait_for(lambda: len(multiprocessing.active_children()) == 1)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        worker.join(60)
    assert not fit.checkpoint.exists()
    there = fit.resume()
    assert len(there.curve) == OPTIONS.epochs


@pytest.mark.usefixtures("_one_thread")
def test_what_is_fitted_on_workers_elsewhere_is_what_would_be_fitted_here(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    here = fit_of(tmp_path / "here").resume()
    fits = [fit_of(tmp_path), fit_of(tmp_path, "two")]
    said: list[str] = []
    with side_fits(fits, 1, lambda: said.append("waiting"), Copies(2)):
        said.append("beside")
    assert said == ["beside", "waiting"]
    for fit in fits:
        left = fit.checkpoint.read_bytes()
        assert weights(fit.resume()) == weights(here)
        assert fit.checkpoint.read_bytes() == left  # nothing was left to do


@pytest.mark.usefixtures("_one_thread")
def test_worker_elsewhere_takes_up_what_was_begun_and_heeds_its_time(tmp_path: Path) -> None:
    whole, begun = fit_of(tmp_path), fit_of(tmp_path, "two")
    whole.resume()
    begun.checkpoint.write_bytes(whole.checkpoint.read_bytes())
    with side_fits([replace(begun, until=0.0)], 1, shards=Copies(1)):
        pass
    assert begun.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_processes_end_where_what_they_stand_beside_fails(tmp_path: Path) -> None:
    def fail() -> None:
        wait_for(lambda: len(multiprocessing.active_children()) == 1)
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"), side_fits([fit_of(tmp_path)], processes=2):
        fail()
    assert not multiprocessing.active_children()


PARENT = """
import multiprocessing, sys, time
from pathlib import Path
from indexer.encoder.side_fits import side_fits
from tests.indexer.encoder.test_side_fits import fit_of

if __name__ == "__main__":
    with side_fits([fit_of(Path(sys.argv[1]), epochs=100_000)], processes=1):
        while not (children := multiprocessing.active_children()) or not children[0].pid:
            time.sleep(0.05)
        print(children[0].pid, flush=True)
        time.sleep(600)
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(done: Callable[[], bool]) -> None:
    for _ in range(1000):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that in 100 s")


def test_a_process_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    here = {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(words, env=os.environ | here, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for((tmp_path / "one.st").exists)  # it is at work
        assert runs(child)
        parent.kill()
    wait_for(lambda: not runs(child))


def test_a_training_keeps_the_setting_that_tells_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(base: Setting, tries: int, keep_dim: bool) -> list[Setting]:
        assert (base.dim, tries, keep_dim) == (16, 2, True)
        return [base, Setting(8, 0.0, 2e-2)]

    monkeypatch.setattr(train_tower, "settings_to_try", two)
    items, log = made(tmp_path, events_of())
    slow = EncoderOptions(learning_rate=1e-7, epochs=3)
    options = TowerOptions(dim=16, epochs=3, device="cpu", tries=2, encoder=slow)
    data = make_tower_data(items, log, {}, "gts", options)
    fit = fit_tower(data)
    summary = fit.summary
    assert (summary.dim, summary.dropout, summary.learning_rate) == (8, 0.0, 2e-2)
    assert [(one.dim, one.chosen) for one in summary.tried] == [(16, False), (8, True)]
    assert summary.tried[0].behind > summary.tried[0].error
    assert summary.ndcg_at_10 == pytest.approx(summary.tried[1].ndcg_at_10)
    assert fit.tower.vectors.shape == (ITEMS, 12)
    refit = refit_tower(data, fit)
    assert refit.tower.vectors.shape == (ITEMS, 12)
    assert set(refit.curves) == {"encoder", "encoder-dim-8-dropout-0-rate-0.02", "refit"}


def test_a_refit_beside_is_the_one_that_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_tower, "LEAST_BESIDE", 0.0)
    monkeypatch.setattr(train_tower, "cores", lambda: 2)
    items, log = made(tmp_path, events_of())
    options = TowerOptions(dim=16, epochs=1, device="cpu", tries=1)
    data = make_tower_data(items, log, {}, "gts", options)
    fit = fit_tower(data)
    alone = refit_tower(data, fit)
    with refit_beside(data, fit, tmp_path, Budget(None)):
        pass
    monkeypatch.setattr(Learner, "epoch", None)  # no epoch is run again
    beside = refit_tower(data, fit, tmp_path)
    assert [line.loss for line in beside.encoder.curve] == pytest.approx(
        [line.loss for line in alone.encoder.curve]
    )
    assert beside.tower.vectors == pytest.approx(alone.tower.vectors, abs=1e-4)
