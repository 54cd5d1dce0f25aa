"""The curve of a training: a progress bar while it runs, CSV and PNG afterwards."""

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from indexer.train_encoder import Report


@contextmanager
def progress(epochs: int, *, quiet: bool = False, measure: str = "NDCG@10") -> Iterator[Report]:
    """Show a bar on stderr with the loss and the best validation NDCG@10; yield its callback."""
    columns = (
        TextColumn("epoch {task.fields[epoch]}/{task.total}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  best " + measure + " {task.fields[ndcg]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task("train", total=epochs, epoch=0, loss=math.nan, ndcg="-")

        def report(epoch: int, share: float, loss: float, ndcg: float) -> None:
            shown = f"{ndcg:.4f}" if ndcg >= 0.0 else "-"
            bar.update(task, completed=epoch - 1 + share, epoch=epoch, loss=loss, ndcg=shown)

        yield report


def write_curve(
    curve: Sequence[msgspec.Struct],
    directory: Path,
    name: str = "training",
    measure: str = "validation_ndcg_at_10",
) -> list[Path]:
    """Write `name`.csv, one line an epoch, and `name`.png; return their paths.

    A measure that was not taken (a refit has no validation) is left empty.

    Args:
        curve: one line an epoch, with the fields `epoch`, `loss` and the measure.
        directory: where.
        name: of the files.
        measure: the field that is drawn beside the loss.
    """
    table = directory / f"{name}.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = curve[0].__struct_fields__ if curve else ()
        writer.writerow(columns)
        for line in curve:
            values = [getattr(line, column) for column in columns]
            writer.writerow("" if math.isnan(value) else f"{value:.6g}" for value in values)
    picture = directory / f"{name}.png"
    _draw(curve, measure, picture)
    return [table, picture]


def _draw(curve: Sequence[msgspec.Struct], measure: str, path: Path) -> None:
    from matplotlib.figure import Figure  # half a second, which only a training pays

    epochs, losses, values = (
        [float(getattr(line, name)) for line in curve] for name in ("epoch", "loss", measure)
    )
    figure = Figure(figsize=(8, 4), layout="constrained")
    left = figure.add_subplot()
    left.plot(epochs, losses, color="tab:blue")
    left.set_xlabel("epoch")
    left.set_ylabel("training loss", color="tab:blue")
    if any(not math.isnan(value) for value in values):
        right = left.twinx()
        right.plot(epochs, values, color="tab:orange")
        right.set_ylabel(measure.replace("_", " "), color="tab:orange")
    figure.savefig(path, dpi=120)
