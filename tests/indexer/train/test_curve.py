"""The curve of a training, as a bar, files and for TensorBoard."""

import csv
import math
import sys
import warnings
from pathlib import Path

import pytest

from indexer.encoder.fit import Epoch
from indexer.train import ranker as train_ranker
from indexer.train.curve import Board, BoardError, progress, write_curve

CURVE = [Epoch(1, 2.0, 3.5, 0.1, 0.05), Epoch(2, 2.0, 3.0, math.nan, math.nan)]


def test_the_curve_is_written_as_csv_and_png(tmp_path: Path) -> None:
    table, picture = write_curve(CURVE, tmp_path / "new", "encoder")
    lines = list(csv.reader(table.read_text(encoding="utf-8").splitlines()))
    assert lines[0][:3] == ["epoch", "seconds", "loss"]
    assert lines[2] == ["2", "2", "3", "", ""]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_rankers_curve_and_a_refit_without_validation_are_drawn_too(tmp_path: Path) -> None:
    ranker = [train_ranker.Epoch(n, 3.0 / n, 3.1, 0.2, 0.1) for n in (1, 2)]
    assert len(write_curve(ranker, tmp_path, "ranker")) == 2
    assert len(write_curve(CURVE[1:], tmp_path, "refit")) == 2


def test_without_matplotlib_there_is_the_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [path.name for path in write_curve(CURVE, tmp_path, "encoder")] == ["encoder.csv"]


def test_without_a_terminal_there_is_a_line_an_epoch_once_it_is_judged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("encoder", 3) as report:
        report(1, 0.5, 3.5, -1.0)
        report(1, 1.0, 3.25, -1.0)
        assert capsys.readouterr().err == ""
        report(2, 0.5, 2.75, 0.1)
        shown = "encoder epoch 1/3: loss 3.250, best NDCG@10 0.1000, at most 0 s left\n"
        assert capsys.readouterr().err == shown
        report(2, 1.0, 2.5, 0.125)
    assert capsys.readouterr() == ("", "encoder epoch 2/3: loss 2.500\n")
    with progress("encoder", 3, quiet=True) as report:
        report(1, 1.0, 3.5, -1.0)
    assert capsys.readouterr().err == ""


def test_the_bar_shows_the_loss_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress("encoder", 2) as report:
        report(1, 0.5, 3.25, -1.0)
        report(2, 1.0, 2.5, 0.125)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "encoder epoch 2/2" in printed.err
    assert "loss 2.500  best NDCG@10 0.1250" in printed.err


def test_tensorboard_gets_the_figures_of_each_epoch(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports
        pytest.importorskip("tensorboard")
        board = Board(tmp_path)
        for line in CURVE:
            board.epoch("encoder", line)
        board.close()
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(tmp_path / "encoder"))
        found.Reload()
    assert [event.value for event in found.Scalars("loss")] == [3.5, 3.0]
    assert [event.step for event in found.Scalars("validation_ndcg_at_10")] == [1]


def test_without_tensorboard_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BoardError, match="install the extra `train`"):
        Board(tmp_path)
