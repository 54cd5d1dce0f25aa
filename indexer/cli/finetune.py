"""The command `indexer finetune`."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from indexer.cli.console import (
    EPILOG,
    NOT_IMPROVED,
    encoding_bar,
    fail,
    failures,
    print_json,
    say,
)
from indexer.cli.options import (
    EncoderFlags,
    InputFlags,
    ProtocolFlags,
    columns_option,
    core_option,
    device_option,
    events_option,
    gather,
    items_option,
    json_option,
    kinds_option,
    model_option,
    rating_scale_option,
    repeats_option,
    seed_option,
)


@dataclass(frozen=True)
class TrainingFlags:
    """The objective, the weights that are trained, and how long."""

    objective: Any
    method: Any
    steps: int
    minutes: float
    batch_size: int
    learning_rate: float | None


@click.command(epilog=EPILOG)
@items_option
@events_option
@columns_option
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Folder for the new model, in the format of transformers, for `indexer build --model`.",
)
@click.option(
    "--objective",
    type=click.Choice(["co-interest", "click"]),
    default="co-interest",
    show_default=True,
    help="Learn which items are chosen near each other, or which events are positive.",
)
@click.option(
    "--method",
    type=click.Choice(["lora", "top", "whole"]),
    default="lora",
    show_default=True,
    help="Train low-rank additions (LoRA), the upper third of the layers, or the whole model.",
)
@click.option(
    "--protocol",
    type=click.Choice(["gts", "loo", "all"]),
    default="gts",
    show_default=True,
    help="Hold out the targets of this protocol, so that `indexer evaluate` can use them; all:"
    " train on all events.",
)
@core_option
@repeats_option
@rating_scale_option
@seed_option
@model_option
@device_option
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=240,
    show_default=True,
    help="Maximum number of training steps.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=8.0,
    show_default=True,
    help="Maximum time for the steps; before and after them, texts are encoded.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    default=256,
    show_default=True,
    help="Number of events per step.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Highest learning rate.  [default: 0.001 with lora, otherwise 0.0001]",
)
@click.option("--force", is_flag=True, help="Replace FOLDER if it exists.")
@kinds_option
@json_option
@gather(inputs=InputFlags, protocol=ProtocolFlags, encoder=EncoderFlags, training=TrainingFlags)
def finetune(
    inputs: InputFlags,
    protocol: ProtocolFlags,
    encoder: EncoderFlags,
    training: TrainingFlags,
    folder: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Fine-tune the text encoder on logged events.

    Items that users choose together get vectors that are close. The encoder is measured on later
    events before and after the training. If it has not become better, nothing is written. If
    interrupted, run the same command again to resume.
    """
    with failures():
        catalog = inputs.read_items()
        for line in catalog.notes:
            say(line)
        kinds = inputs.read_kinds()
        import torch

        from indexer.finetune.finetune import FinetuneOptions, FinetuneProgress
        from indexer.finetune.finetune import finetune as run
        from indexer.finetune.fit import LEARNING_RATES, FitOptions

        # Texts are encoded on all cores, one thread each; with several threads on what is between,
        # each waits for the slowest wherever the processor is shared.
        torch.set_num_threads(1)
        rate = training.learning_rate or LEARNING_RATES[training.method]
        options = FinetuneOptions(
            training.objective, training.method, protocol.protocol, protocol.core,
            protocol.repeats, training.batch_size,
            fit=FitOptions(rate, training.steps, training.minutes, seed=protocol.seed),
            force=force,
            columns=inputs.columns,
            rating_scale=protocol.rating_scale,
            timestamps=inputs.timestamps,
            dialect=inputs.dialect,
        )  # fmt: skip
        text_encoder = encoder.load()
        with ExitStack() as stack:
            progress = FinetuneProgress(stack.enter_context(encoding_bar()), _training_bar, say)
            result = run(
                catalog, inputs.events, kinds, text_encoder, folder, options, time.time(),
                progress,
            )  # fmt: skip
    if as_json:
        print_json(result)
    else:
        before, after = result.validation["before"], result.validation["after"]
        for name, value in after.items():
            if value == value:  # nothing cold, no figure of it
                click.echo(f"{name:<22}{before[name]:>10.4f} -> {value:.4f}")
    if not result.written:
        fail(
            f"{result.measure} on the validation events did not rise: {result.model} stays as it"
            " is, and nothing was written",
            NOT_IMPROVED,
        )
    if not as_json:
        click.echo(
            f"{result.folder}: {result.model} after {result.epochs} epochs"
            f" (best {result.best_epoch}), {result.trained_weights:,} weights trained,"
            f" {result.seconds:g} s. Use it with `indexer build ITEMS --model {result.folder}"
            " --refit`: another encoder is another space, and every user's state is rebuilt from"
            " its recent events"
        )


@contextmanager
def _training_bar(epochs: int, measure: str) -> Iterator[Any]:
    from indexer.train.curve import progress

    with progress("fine-tuning", epochs, measure=measure) as report:
        yield report
