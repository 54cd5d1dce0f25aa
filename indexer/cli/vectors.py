"""The commands `indexer export` and `indexer trace`."""

import time
from pathlib import Path

import click
import numpy as np

from indexer.cli.console import EPILOG, check_file, failures, need, print_json, say
from indexer.cli.options import (
    artifacts_option,
    columns_option,
    events_option,
    json_option,
    kinds_option,
    read_kinds,
    version_option,
)
from tracker.events.times import Unit


@click.command(epilog=EPILOG)
@click.argument("what", type=click.Choice(["items", "step"]))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@version_option
@artifacts_option
@json_option
def export(what: str, file: Path, version: str | None, root: str, as_json: bool) -> None:
    """Write item vectors, or the step of the user encoder, to FILE.

    Vectors are written as Parquet. The step is a torch.export program (.pt2) for other runtimes.
    For the vectors of users, see `tracker export`.
    """
    from indexer.items.export import export_items, export_step
    from tracker.artifact.artifact import Artifact

    with failures():
        check_file(file)
        artifact = Artifact.load(root, version, "cpu")
        count = export_items(artifact, file) if what == "items" else export_step(artifact, file)
    result = {"artifact": artifact.manifest.version, "file": str(file)}
    if as_json:
        print_json(result | ({"items": count} if what == "items" else {"width": count}))
    elif what == "items":
        click.echo(f"{count} items of {artifact.manifest.version} in {file}")
    else:
        click.echo(f"the step over states of width {count} in {file}")


@click.command(epilog=EPILOG)
@click.argument("user")
@events_option
@columns_option
@artifacts_option
@version_option
@kinds_option
@click.option(
    "--png",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a plot of the interests to FILE.",
)
@json_option
def trace(
    user: str,
    events: tuple[Path, ...],
    columns: dict[str, str],
    timestamps: Unit,
    dialect: str,
    root: str,
    version: str | None,
    kinds: Path | None,
    png: Path | None,
    as_json: bool,
) -> None:
    """Show how the interests of USER rose and fell over logged events.

    The events are replayed through the code that serves. After each, the shares of the interests
    at that time are printed.
    """
    with failures():
        weights = read_kinds(kinds)
        check_file(png)
        if png is not None:
            need(("matplotlib",), "--png")
        from indexer.data.training_log import check_events, read_log
        from indexer.replay.trace import draw, item_ids
        from indexer.replay.trace import trace as follow
        from tracker.artifact.artifact import Artifact
        from tracker.dialects.loading import load_dialect
        from tracker.events.entries import event_reading

        reading = event_reading(columns, timestamps, load_dialect(dialect))
        artifact = Artifact.load(root, version, "cpu")
        scale = artifact.manifest.interest
        log, _ = read_log(
            events,
            weights,
            None,
            time.time(),
            reading,
            (scale.rating_min, scale.rating_max),
            f"that of {artifact.manifest.version}",
        )
        in_catalog = artifact.vectors.row_of(log.batch.items) >= 0
        say(check_events(events, log, in_catalog, artifact.manifest.version))
        own = np.array([name == user for name in log.batch.users], bool)
        strange = set(log.batch.items[own & ~in_catalog & (log.items >= 0)].tolist())
        names = item_ids(events, strange, reading) if strange else {}
        moments = follow(artifact, log, user, names)
        if png is not None:
            draw(moments, png, f"interests of {user}")
    if as_json:
        print_json(moments)
        return
    for moment in moments:
        shares = ", ".join(f"{name or '?'} {share:.0%}" for name, share in moment.interests.items())
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment.time))
        click.echo(
            f"{when}  {moment.item_id}{f' ({moment.scene})' if moment.scene else ''}: {shares}"
        )
