"""The commands `indexer train` and `indexer evaluate`."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from indexer.catalog import read_items
from indexer.console import (
    EPILOG,
    RECALL_TOO_LOW,
    artifacts_option,
    core_option,
    counting_bar,
    device_option,
    encoding_bar,
    events_option,
    fail,
    failures,
    items_option,
    json_option,
    kinds_option,
    model_option,
    print_json,
    read_kinds,
    repeats_option,
    seed_option,
)


@click.command(epilog=EPILOG)
@items_option
@events_option
@artifacts_option
@click.option(
    "--protocol",
    type=click.Choice(["gts", "loo"]),
    help="Leave the targets of this protocol out of everything fitted, so that `indexer evaluate`"
    " can ask for them.  [default: train on all events]",
)
@core_option
@repeats_option
@seed_option
@model_option
@device_option
@click.option(
    "--refit",
    is_flag=True,
    help="Fit the whitening anew, or take another encoder, as in `indexer build`.",
)
@kinds_option
@json_option
def train(
    items: tuple[Path, ...],
    events: tuple[Path, ...],
    root: str,
    protocol: Any,
    core: int,
    repeats: bool,
    seed: int,
    model: str | None,
    device: Any,
    refit: bool,
    kinds: Path | None,
    as_json: bool,
) -> None:
    """Train the ranker on logged events and make it current.

    It fits the ranker: the small network that scores candidates by what the stream says of them.
    The items' vectors are built as by `indexer build`, and texts met before are not encoded again.
    """
    with failures():
        catalog = read_items(items)
        weights = read_kinds(kinds)
        from indexer.assemble import RecallError, RefusedError
        from indexer.histories import EventFileError
        from indexer.item_encoder import EncoderError, ItemEncoder
        from indexer.train import Reports, TrainingError, TrainOptions
        from indexer.train import train as fit

        options = TrainOptions(protocol, core, repeats, seed, refit)
        try:
            encoder = ItemEncoder(model, device, 64)
            with ExitStack() as shown:
                reports = Reports(
                    shown.enter_context(encoding_bar()),
                    _bar_of(shown, "replaying for examples"),
                    lambda epoch: click.echo(
                        f"epoch {epoch.epoch}: loss {epoch.loss:.4f}, validation loss"
                        f" {epoch.validation_loss:.4f}, NDCG@10 {epoch.validation_ndcg_at_10:.4f}",
                        err=True,
                    ),
                )
                done = fit(catalog, events, weights, encoder, root, options, time.time(), reports)
        except (EncoderError, EventFileError, RefusedError, TrainingError) as error:
            fail(str(error))
        except RecallError as error:
            fail(str(error), RECALL_TOO_LOW)
    if done.basis_changed:
        click.echo(
            "the basis changed: workers rebuild each user's state from its recent events", err=True
        )
    if as_json:
        print_json(done)
        return
    click.echo(
        f"{done.artifact}: ranker of {done.examples} examples, {done.epochs} epochs (best"
        f" {done.best_epoch}), validation HR@10 {done.validation['hit_rate_at_10']:.4f} NDCG@10"
        f" {done.validation['ndcg_at_10']:.4f}, {done.seconds:g} s"
    )


@click.command(epilog=EPILOG)
@items_option
@events_option
@artifacts_option
@click.option("--artifact", "version", metavar="VERSION", help="[default: the one LATEST names]")
@click.option(
    "--protocol", type=click.Choice(["gts", "loo"]), default="gts", show_default=True,
    help="gts: events after the 90 % quantile of the times. loo: the last event of each user.",
)  # fmt: skip
@core_option
@repeats_option
@seed_option
@click.option(
    "--targets",
    "most",
    type=click.IntRange(min=1),
    metavar="MAX",
    help="Ask for a seeded sample of so many.  [default: all, up to what takes some minutes]",
)
@kinds_option
@click.option("--json", "json_file", metavar="FILE|-", help="Write the figures as JSON; - prints.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with plots."
)
def evaluate(
    items: tuple[Path, ...],
    events: tuple[Path, ...],
    root: str,
    version: str | None,
    protocol: Any,
    core: int,
    repeats: bool,
    seed: int,
    most: int | None,
    kinds: Path | None,
    json_file: str | None,
    html: Path | None,
) -> None:
    """Replay logged events through the recommender that serves, and measure its lists.

    The list is asked for just before each held-out event; simple recommenders are asked beside it
    in the same replay. An artifact that was trained on the held-out events is refused.
    """
    with failures():
        catalog = read_items(items)
        weights = read_kinds(kinds)
        try:
            from indexer.evaluation_report import as_html, as_table
        except ModuleNotFoundError as error:
            fail(f"no module {error.name}: install the extra `train` for reports")
        from indexer.histories import EventFileError
        from indexer.holdout import SeenTargetsError
        from indexer.judge import JudgeError, JudgeOptions, judge

        options = JudgeOptions(version, protocol, core, repeats, seed, most)
        try:
            with ExitStack() as shown:
                told = _bar_of(shown, "replaying events")
                found = judge(catalog, events, weights, root, options, time.time(), told)
        except (EventFileError, JudgeError, SeenTargetsError) as error:
            fail(str(error))
        if html is not None:
            html.write_text(as_html(found), encoding="utf-8")
        if json_file is not None and json_file != "-":
            Path(json_file).write_bytes(msgspec.json.encode(found) + b"\n")
    if json_file == "-":
        print_json(found)
        return
    Console(width=None if sys.stdout.isatty() else 160).print(as_table(found))
    for note in found.notes:
        click.echo(f"- {note}")


def _bar_of(shown: ExitStack, title: str) -> Callable[[int], Callable[[int], None]]:
    """Return what opens a bar when the total is known; it closes with the stack."""
    return lambda total: shown.enter_context(counting_bar(title, total))
