"""The curve of a training: a progress bar while it runs, CSV, PNG and TensorBoard of it."""

import csv
import importlib.util
import math
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
    """TensorBoard is not there; the message says how to get it."""


@contextmanager
def progress(
    name: str, epochs: int, *, quiet: bool = False, measure: str = "NDCG@10"
) -> Iterator[Report]:
    """Show a bar on stderr with the loss and the best of a measure; yield its callback.

    Where nobody looks at a terminal there is a line an epoch instead, as soon as it is judged.
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
            shown = f"{ndcg:.4f}" if ndcg >= 0.0 else "-"
            bar.update(task, completed=epoch - 1 + share, epoch=epoch, loss=loss, ndcg=shown)

        yield report


def _lines(name: str, epochs: int, measure: str) -> Iterator[Report]:
    line = ""
    now = 0

    def report(epoch: int, share: float, loss: float, best: float) -> None:
        nonlocal line, now
        shown = f", best {measure} {best:.4f}" if best >= 0.0 else ""
        if now not in (0, epoch):
            click.echo(f"{line}{shown}", err=True)
        line, now = f"{name} epoch {epoch}/{epochs}: loss {loss:.3f}", epoch

    yield report
    if line:
        click.echo(line, err=True)


def write_curve(
    curve: Sequence[msgspec.Struct],
    folder: Path,
    name: str = "training",
    measure: str = "validation_ndcg_at_10",
) -> list[Path]:
    """Write `name`.csv, one line an epoch, and `name`.png; return their paths.

    A measure that was not taken (a refit has no validation) is left empty. The picture needs
    matplotlib, of the extra `train`, and is left out without it.

    Args:
        curve: epochs of one kind, at least one: of the encoder, or of the ranker.
        folder: made if it is not there.
        name: of the files.
        measure: the field that is drawn beside the loss.
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
    found: dict[str, float] = msgspec.structs.asdict(line)
    return found


def _draw(lines: Sequence[dict[str, float]], measure: str, path: Path) -> None:
    from matplotlib.figure import Figure  # half a second, which only a training pays

    figure = Figure(figsize=(8, 4), layout="constrained")
    left = figure.add_subplot()
    epochs = [line["epoch"] for line in lines]
    for name, style in (("loss", "-"), ("validation_loss", "--")):
        if name in lines[0]:
            left.plot(epochs, [line[name] for line in lines], style, color="tab:blue", label=name)
    left.set_xlabel("epoch")
    left.set_ylabel("loss", color="tab:blue")
    left.legend(loc="upper center")
    values = [line[measure] for line in lines]
    if not all(map(math.isnan, values)):
        right = left.twinx()
        right.plot(epochs, values, color="tab:orange")
        right.set_ylabel(measure.replace("_", " "), color="tab:orange")
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
        found = figures(line)
        for figure, value in found.items():
            if figure != "epoch" and not math.isnan(value):
                self._writers[name].add_scalar(figure, value, found["epoch"])
        self._writers[name].flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
