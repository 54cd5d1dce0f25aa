"""The curve of a training: a progress bar while it runs, CSV, PNG and TensorBoard of it."""

import csv
import importlib.util
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from indexer.encoder.learner import Report
from tracker.explained import Explained


class BoardError(Explained, ValueError):
    """TensorBoard is not installed; the message says how to install it."""


@contextmanager
def progress(
    name: str, epochs: int, *, quiet: bool = False, measure: str = "NDCG@10"
) -> Iterator[Report]:
    """Show a bar on stderr with the loss and the best of a measure; yield its callback.

    Without a terminal it prints a line per epoch instead.
    """
    console = Console(stderr=True)
    if not console.is_terminal and not quiet:
        yield from _lines(name, epochs, measure)
        return
    columns = (
        TextColumn("{task.description} epoch {task.fields[epoch]}/{task.total}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  best " + measure + " {task.fields[ndcg]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet) as bar:
        task = bar.add_task(name, total=epochs, epoch=0, loss=math.nan, ndcg="-")

        def report(epoch: int, share: float, loss: float, ndcg: float) -> None:
            value = f"{ndcg:.4f}" if ndcg >= 0.0 else "-"
            bar.update(task, completed=epoch - 1 + share, epoch=epoch, loss=loss, ndcg=value)

        yield report


def _lines(name: str, epochs: int, measure: str) -> Iterator[Report]:
    line = ""
    now = 0
    started = time.monotonic()

    def report(epoch: int, share: float, loss: float, best: float) -> None:
        nonlocal line, now
        value = f", best {measure} {best:.4f}" if best >= 0.0 else ""
        if now not in (0, epoch):
            rest = (time.monotonic() - started) / now * (epochs - now)
            click.echo(f"{line}{value}, at most {duration(rest)} left", err=True)
        line, now = f"{name} epoch {epoch}/{epochs}: loss {loss:.3f}", epoch

    yield report
    if line:
        click.echo(line, err=True)


def duration(seconds: float) -> str:
    """Return seconds for people.

    >>> duration(42.4), duration(90.0), duration(9000.0)
    ('42 s', '2 min', '2.5 h')
    """
    if seconds < 60.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"


def write_curve(
    curve: Sequence[msgspec.Struct],
    folder: Path,
    name: str = "training",
    measure: str = "validation_ndcg_at_10",
) -> list[Path]:
    """Write `name`.csv, one line an epoch, and `name`.png; return their paths.

    A missing measure (a refit has no validation) is left empty. The picture needs
    matplotlib, of the extra `train`, and is left out without it.

    Args:
        curve: epochs of one kind, at least one: of the encoder, or of the ranker.
        folder: created if it is missing.
        name: of the files.
        measure: the field that is drawn with the loss.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [figures(line) for line in curve]
    table = folder / f"{name}.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(lines[0])
        for line in lines:
            writer.writerow("" if math.isnan(v) else f"{v:.6g}" for v in line.values())
    if importlib.util.find_spec("matplotlib") is None:
        return [table]
    picture = folder / f"{name}.png"
    _draw(lines, measure, picture)
    return [table, picture]


def figures(line: msgspec.Struct) -> dict[str, float]:
    """Return the figures of an epoch by name."""
    by_name: dict[str, float] = msgspec.structs.asdict(line)
    return by_name


def _draw(lines: Sequence[dict[str, float]], measure: str, path: Path) -> None:
    from matplotlib.figure import Figure  # half a second, which only a training pays

    figure = Figure(figsize=(8, 4), layout="constrained")
    loss_axes = figure.add_subplot()
    epochs = [line["epoch"] for line in lines]
    for name, style in (("loss", "-"), ("validation_loss", "--")):
        if name in lines[0]:
            loss_axes.plot(
                epochs, [line[name] for line in lines], style, color="tab:blue", label=name
            )
    loss_axes.set_xlabel("epoch")
    loss_axes.set_ylabel("loss", color="tab:blue")
    loss_axes.legend(loc="upper center")
    values = [line[measure] for line in lines]
    if not all(map(math.isnan, values)):
        measure_axes = loss_axes.twinx()
        measure_axes.plot(epochs, values, color="tab:orange")
        measure_axes.set_ylabel(measure.replace("_", " "), color="tab:orange")
    figure.savefig(path, dpi=120)


class Board:
    """Figures of each epoch for TensorBoard, one folder of its own for each fit.

    Raises:
        BoardError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise BoardError(
                f"no module {error.name}: install the extra `train` for --tensorboard"
            ) from error
        self._make = SummaryWriter
        self._folder = folder
        self._writers: dict[str, Any] = {}

    def epoch(self, name: str, line: msgspec.Struct) -> None:
        """Write the figures of an epoch of a fit, to be seen at once."""
        if name not in self._writers:
            self._writers[name] = self._make(str(self._folder / name))
        values = figures(line)
        for figure, value in values.items():
            if figure != "epoch" and not math.isnan(value):
                self._writers[name].add_scalar(figure, value, values["epoch"])
        self._writers[name].flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
