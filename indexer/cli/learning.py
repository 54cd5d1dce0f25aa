"""The commands `indexer train` and `indexer evaluate`."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console

from indexer.cli.console import (
    EPILOG,
    RECALL_TOO_LOW,
    check_file,
    check_root,
    counting_bar,
    encoding_bar,
    fail,
    failures,
    need,
    print_json,
    say,
)
from indexer.cli.options import (
    ClusterFlags,
    EncoderFlags,
    InputFlags,
    ProtocolFlags,
    artifacts_option,
    columns_option,
    core_option,
    device_option,
    events_option,
    gather,
    items_option,
    json_option,
    kinds_option,
    model_option,
    positive_rating_option,
    rating_scale_option,
    ray_option,
    repeats_option,
    seed_option,
    signing_key_option,
    users_option,
    version_option,
)

if TYPE_CHECKING:
    from indexer.encoder.options import TowerOptions
    from indexer.train.privacy import PrivacyOptions


@dataclass(frozen=True)
class TowerFlags:
    """The user encoder: its size, and how long it is trained."""

    cell: Any
    dim: int | None
    epochs: int | None
    tries: int | None
    no_encoder: bool

    def options(self, device: Any) -> "TowerOptions | None":
        """Return the options of its training on a device; None if there is no user encoder."""
        from indexer.encoder.options import TowerOptions

        if self.no_encoder:
            return None
        return TowerOptions(self.cell, self.dim, self.epochs, device, tries=self.tries)


@dataclass(frozen=True)
class ReportFlags:
    """The folders for the figures of a training."""

    curve: Path | None
    tensorboard: Path | None


@dataclass(frozen=True)
class BudgetFlags:
    """The privacy and the time that a training may spend; None for no bound."""

    epsilon: float | None
    delta: float | None
    minutes: float | None

    def privacy(self, tower: TowerFlags, users: bool) -> "PrivacyOptions | None":
        """Return the privacy, or exit if it is not whole, or asks for what cannot be private."""
        if self.epsilon is None and self.delta is None:
            return None
        if self.epsilon is None or self.delta is None:
            there, missing = ("--epsilon", "--delta")[:: 1 if self.delta is None else -1]
            fail(f"{there} without {missing}; a budget has both: --epsilon 4 --delta 1e-6")
        if users:
            fail("--users with --epsilon: attributes are stored as they are; leave one of them out")
        of_encoder = {"--dim": tower.dim, "--epochs": tower.epochs, "--tries": tower.tries}
        for option, value in of_encoder.items():
            if value is not None:
                fail(f"{option} with --epsilon: then no user encoder is trained; leave one out")
        need(("opacus",), "--epsilon", "privacy")
        from indexer.train.privacy import PrivacyOptions

        return PrivacyOptions(self.epsilon, self.delta)


@click.command(epilog=EPILOG)
@items_option
@events_option
@columns_option
@artifacts_option
@click.option(
    "--protocol",
    type=click.Choice(["gts", "loo"]),
    help="Hold out the targets of this protocol for `indexer evaluate`.  [default:"
    " train on all events]",
)
@core_option
@repeats_option
@seed_option
@positive_rating_option
@rating_scale_option
@users_option
@model_option
@device_option
@click.option(
    "--cell", type=click.Choice(["gru", "lstm", "linear"]), default="gru", show_default=True,
    help="Recurrent cell of the user encoder.",
)  # fmt: skip
@click.option(
    "--dim", type=click.IntRange(4, 1024),
    help="Width of the user encoder.  [default: 64, 128 on a GPU]",
)  # fmt: skip
@click.option(
    "--epochs", type=click.IntRange(min=1),
    help="Maximum number of epochs of the user encoder.  [default: by the number of events]",
)  # fmt: skip
@click.option(
    "--tries", type=click.IntRange(1, 6),
    help="Number of settings of the user encoder to train.  [default: one per core]",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), metavar="N",
    help="Maximum time of the training. The output says what was left out. Texts are encoded in"
    " any case.  [default: as long as it takes]",
)  # fmt: skip
@click.option("--no-encoder", is_flag=True, help="Train the ranker only, without a user encoder.")
@click.option(
    "--epsilon", type=click.FloatRange(min=0, min_open=True), metavar="E",
    help="Privacy budget: train ranker and probability under differential privacy of users, without"
    " a user encoder. Needs --delta.",
)  # fmt: skip
@click.option(
    "--delta", type=click.FloatRange(0, 1, min_open=True, max_open=True), metavar="D",
    help="Probability by which the privacy of --epsilon may fail; less than one over the users.",
)  # fmt: skip
@click.option(
    "--curve", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
    help="Folder for the training curves, CSV and PNG.  [default: curves/ next to the versions]",
)  # fmt: skip
@click.option(
    "--tensorboard", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
    help="Folder for the figures of each epoch, for TensorBoard.",
)  # fmt: skip
@click.option(
    "--refit",
    is_flag=True,
    help="Fit the whitening again, or use another text encoder, as in `indexer build`.",
)
@kinds_option
@signing_key_option
@ray_option
@json_option
@gather(
    inputs=InputFlags, protocol=ProtocolFlags, encoder=EncoderFlags, tower=TowerFlags,
    reports=ReportFlags, budget=BudgetFlags,
)  # fmt: skip
def train(
    inputs: InputFlags,
    protocol: ProtocolFlags,
    encoder: EncoderFlags,
    tower: TowerFlags,
    reports: ReportFlags,
    budget: BudgetFlags,
    root: str,
    refit: bool,
    signing_key: Path | None,
    as_json: bool,
) -> None:
    """Train models on logged events, and make them current.

    The models are a user encoder, item weights, a ranker and a probability. The user encoder reads
    the events of a user, and finds and scores items. Item weights say how much one item speaks for
    another. The ranker is a small network that scores candidates by features of the stream. Item
    vectors are built as by `indexer build`; known texts are not encoded again. If interrupted, run
    the same command again to resume.

    With --epsilon and --delta, what the weights tell of any one user is bounded. What this
    does not cover is printed.
    """
    with failures():
        encoder = encoder.settled()
        privacy = budget.privacy(tower, bool(inputs.users))
        catalog = inputs.read_items()
        for line in catalog.notes:
            say(line)
        kinds = inputs.read_kinds()
        check_root(root)
        from indexer.items.assemble import RecallError
        from indexer.train.curve import Board, progress
        from indexer.train.options import TrainOptions, TrainProgress
        from indexer.train.prediction import PredictionOptions
        from indexer.train.train import train as fit

        options = TrainOptions(
            protocol.protocol, protocol.core, protocol.repeats, protocol.seed, refit,
            tower=tower.options(encoder.device),
            columns=inputs.columns,
            rating_scale=protocol.rating_scale,
            timestamps=inputs.timestamps,
            dialect=inputs.dialect,
            signing_key=signing_key,
            prediction=PredictionOptions(positive_rating=protocol.positive_rating),
            minutes=budget.minutes,
            privacy=privacy,
        )  # fmt: skip
        try:
            users = inputs.read_users()
            with ExitStack() as stack:
                shards = stack.enter_context(encoder.cluster.shards())
                text_encoder = encoder.load(shards=shards)
                board = None if reports.tensorboard is None else Board(reports.tensorboard)
                if board is not None:
                    stack.callback(board.close)
                callbacks = TrainProgress(
                    encoding=stack.enter_context(encoding_bar()),
                    examples=_bar_of(stack, "replaying for examples"),
                    encoder=progress,
                    epoch=_print_epoch if board is None else board.epoch,
                    note=say,
                    curves=reports.curve,
                )
                result = fit(
                    catalog, inputs.events, kinds, text_encoder, root, options, time.time(),
                    callbacks, users, shards,
                )  # fmt: skip
        except RecallError as error:
            fail(str(error), RECALL_TOO_LOW)
        except KeyboardInterrupt:
            fail("interrupted; run the same command again to resume after the last complete epoch")
    if result.basis_changed:
        click.echo(
            "the basis changed: workers rebuild each user's state from its recent events", err=True
        )
    if as_json:
        print_json(result)
        return
    if result.privacy is not None:
        click.echo(result.privacy.line)
        click.echo(f"not private: {'; '.join(result.privacy.not_private)}")
    learned = ""
    if result.encoder is not None:
        learned = (
            f" encoder of width {result.encoder.dim}, dropout {result.encoder.dropout:g}, rate"
            f" {result.encoder.learning_rate:g} (one of {max(1, len(result.encoder.tried))}),"
            f" {result.encoder.epochs} epochs (best {result.encoder.best_epoch}, NDCG@10"
            f" with the trend {result.encoder.ndcg_at_10:.4f}),"
        )
    click.echo(
        f"{result.artifact}:{learned} ranker of {result.examples} examples, {result.epochs} epochs"
        f" (best {result.best_epoch}), validation"
        f" HR@10 {result.validation['hit_rate_at_10']:.4f} NDCG@10"
        f" {result.validation['ndcg_at_10']:.4f} among sampled items, {result.seconds:g} s"
    )


@click.command(epilog=EPILOG)
@items_option
@events_option
@columns_option
@artifacts_option
@version_option
@click.option(
    "--protocol", type=click.Choice(["gts", "loo"]), default="gts", show_default=True,
    help="Targets: events after the 90 % quantile of time (gts), or the last event per user (loo).",
)  # fmt: skip
@core_option
@repeats_option
@seed_option
@positive_rating_option
@click.option(
    "--targets",
    "most",
    type=click.IntRange(min=1),
    metavar="MAX",
    help="Maximum number of targets, a random sample.  [default: as many as take some minutes]",
)
@users_option
@kinds_option
@ray_option
@click.option(
    "--json",
    "json_file",
    metavar="FILE|-",
    help="Write the figures as JSON to FILE, or print them with -.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a web page with plots to FILE.",
)
@gather(inputs=InputFlags, protocol=ProtocolFlags, cluster=ClusterFlags)
def evaluate(
    inputs: InputFlags,
    protocol: ProtocolFlags,
    cluster: ClusterFlags,
    root: str,
    version: str | None,
    most: int | None,
    json_file: str | None,
    html: Path | None,
) -> None:
    """Measure the lists on held-out events of a log.

    Logged events are replayed through the code that serves. A list is made just before each
    held-out event, and compared with those of simple recommenders in the same replay. An artifact
    that was trained on the held-out events is refused.
    """
    with failures():
        catalog = inputs.read_items()
        for line in catalog.notes:
            say(line)
        kinds = inputs.read_kinds()
        check_file(html)
        if html is not None:
            need(("matplotlib", "jinja2"), "--html")
        if json_file is not None and json_file != "-":
            check_file(Path(json_file))
        from indexer.evaluate.bar import bar_lines
        from indexer.evaluate.evaluate import JudgeOptions, judge
        from indexer.evaluate.report import against_best, as_html, as_tables

        options = JudgeOptions(
            version, protocol.protocol, protocol.core, protocol.repeats, protocol.seed, most,
            protocol.positive_rating, inputs.columns, inputs.timestamps, inputs.dialect,
        )  # fmt: skip
        with ExitStack() as stack:
            progress = _bar_of(stack, "replaying events")
            users = inputs.read_users()
            shards = stack.enter_context(cluster.shards())
            evaluation = judge(
                catalog, inputs.events, kinds, root, options, time.time(), progress, users, shards
            )
        if html is not None:
            html.write_text(as_html(evaluation), encoding="utf-8")
        if json_file is not None and json_file != "-":
            Path(json_file).write_bytes(msgspec.json.encode(evaluation) + b"\n")
    if json_file == "-":
        print_json(evaluation)
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in as_tables(evaluation):
        console.print(table)
    click.echo(against_best(evaluation))
    for line in bar_lines(evaluation.served):
        click.echo(line)
    for note in evaluation.notes:
        click.echo(f"- {note}")


def _bar_of(stack: ExitStack, title: str) -> Callable[[int], Callable[[int], None]]:
    """Return a function that opens a bar for a total; the bar closes with the stack."""
    return lambda total: stack.enter_context(counting_bar(title, total))


def _print_epoch(name: str, line: msgspec.Struct) -> None:
    """Print the figures of an epoch of the ranker to stderr; the encoder has a bar."""
    if name == "ranker":
        figures = msgspec.structs.asdict(line)
        click.echo(
            f"epoch {figures['epoch']}: loss {figures['loss']:.4f}, validation loss"
            f" {figures['validation_loss']:.4f}, NDCG@10 {figures['validation_ndcg_at_10']:.4f}",
            err=True,
        )
