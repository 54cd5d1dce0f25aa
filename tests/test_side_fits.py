"""Fits in processes of their own, and the choice among them."""

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch

from indexer import side_fits as beside
from indexer import train_tower
from indexer.encoder_choice import Setting
from indexer.encoder_learner import EncoderOptions
from indexer.side_fits import Fit, side_fits
from indexer.tower_options import TowerOptions
from indexer.train_encoder import Epoch, Fitted, fit_encoder
from indexer.train_tower import TowerTraining
from tests.test_train_encoder import CONFIG, CPU, OPTIONS, parts, world
from tests.test_train_tower import ITEMS, events_of, made


def fit_of(folder: Path, name: str = "one") -> Fit:
    sequences, items = world()
    train, validation = parts(sequences)
    return Fit(
        sequences, items, CONFIG, train, validation, OPTIONS, CPU, None, folder / f"{name}.st"
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
    there = fit.take_up()
    assert weights(there) == weights(here)
    assert [line.epoch for line in there.curve] == [line.epoch for line in here.curve]


@pytest.mark.usefixtures("_one_thread")
def test_what_a_killed_process_left_is_done_by_whoever_takes_it_up(tmp_path: Path) -> None:
    fit = fit_of(tmp_path)
    with side_fits([fit], processes=1):
        (worker,) = multiprocessing.active_children()
        worker.kill()
        worker.join(60)
    assert not fit.checkpoint.exists()
    there = fit.take_up()
    assert len(there.curve) == OPTIONS.epochs


def test_processes_end_where_what_they_stand_beside_fails(tmp_path: Path) -> None:
    def fail(children: list[Any]) -> None:
        assert len(children) == 1
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"), side_fits([fit_of(tmp_path)], processes=2):
        fail(multiprocessing.active_children())
    assert not multiprocessing.active_children()


def test_a_process_whose_parent_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def is_alive(self) -> bool:
            return False

    epoch = Epoch(3, 1.0, 2.0, 0.1, 0.05)
    beside._end_with_parent(epoch)  # this process was started by none
    monkeypatch.setattr(multiprocessing, "parent_process", Gone)
    with pytest.raises(SystemExit, match="after epoch 3"):
        beside._end_with_parent(epoch)


def test_a_training_keeps_the_setting_that_tells_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(base: Setting, tries: int, keep_dim: bool) -> list[Setting]:
        assert (base.dim, tries, keep_dim) == (16, 2, True)
        return [base, Setting(8, 0.0, 2e-2)]

    monkeypatch.setattr(train_tower, "settings_to_try", two)
    events, log = made(tmp_path, events_of())
    slow = EncoderOptions(learning_rate=1e-7, epochs=3)
    options = TowerOptions(dim=16, epochs=3, device="cpu", tries=2, encoder=slow)
    training = TowerTraining(events, log, {}, "gts", options)
    tower = training.fit()
    done = training.done()
    assert (done.dim, done.dropout, done.learning_rate) == (8, 0.0, 2e-2)
    assert [(one.dim, one.chosen) for one in done.tried] == [(16, False), (8, True)]
    assert done.tried[0].behind > done.tried[0].error
    assert done.ndcg_at_10 == pytest.approx(done.tried[1].ndcg_at_10)
    assert tower.vectors.shape == (ITEMS, 12)
    assert training.refit().vectors.shape == (ITEMS, 12)
    assert set(training.curves) == {"encoder", "encoder-dim-8-dropout-0-rate-0.02", "refit"}
