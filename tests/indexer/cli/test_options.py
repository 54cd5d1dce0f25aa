"""Options of a command as dataclasses."""

from dataclasses import dataclass

import click
from click.testing import CliRunner

from indexer.cli.options import (
    EncoderFlags,
    InputFlags,
    device_option,
    gather,
    items_option,
    model_option,
)


@dataclass(frozen=True)
class ShapeFlags:
    """Flags of this command alone."""

    dim: int


@click.command()
@items_option
@click.option("--dim", type=int, default=4)
@model_option
@device_option
@click.option("--loud", is_flag=True)
@gather(inputs=InputFlags, encoder=EncoderFlags, shape=ShapeFlags)
def command(inputs: InputFlags, encoder: EncoderFlags, shape: ShapeFlags, loud: bool) -> None:
    """Print the flags."""
    click.echo(f"{[path.name for path in inputs.items]} {inputs.events} {inputs.kinds} {shape.dim}")
    click.echo(f"{encoder.model} {encoder.device} {loud}")


def test_a_command_gets_its_flags_by_group_and_the_others_by_name() -> None:
    run = CliRunner().invoke(
        command, ["--items", "a", "--items", "b", "--dim", "8", "--model", "m", "--loud"]
    )
    assert run.output.splitlines() == ["['a', 'b'] () None 8", "m auto True"]


def test_the_order_of_the_help_is_that_of_the_options() -> None:
    text = CliRunner().invoke(command, ["--help"]).output
    places = [text.index(name) for name in ("--items", "--dim", "--model", "--device", "--loud")]
    assert places == sorted(places)
