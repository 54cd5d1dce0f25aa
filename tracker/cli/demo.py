"""The command `demo`: broker, index, worker and events in one go, and what it prints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from tracker.cli.printing import out, print_json, progress
from tracker.cli.shared import BAD_LINES_NAMED, run_to_end
from tracker.demo.input import DemoInput, load_input, shipped
from tracker.demo.run import DemoOptions, DemoResult, Story, run_demo
from tracker.events.wire import Recommendation

ROWS_BEFORE_AND_AFTER = 10

ROWS_BETWEEN = 3


@dataclass(frozen=True)
class DemoFlags:
    """The options of the command, by name."""

    items: tuple[str, ...]
    events: tuple[str, ...]
    users: str | None
    limit: int | None
    broker: str | None
    artifacts: str | None
    model: str | None
    folder: Path | None
    rate: float
    paced_seconds: float
    serve: bool
    as_json: bool

    def load(self) -> DemoInput:
        """Read the files, or those of the made-up shop.

        Raises:
            click.UsageError: items without events, or events without items.
            InputError: a file cannot be used.
        """
        if bool(self.items) != bool(self.events):
            raise click.UsageError("--items and --events belong together")
        users = self.users
        if users is None and not self.items:
            users = shipped("users.jsonl")
        items = self.items or (shipped("items.jsonl"),)
        return load_input(items, self.events or (shipped("events.jsonl"),), users, self.limit)

    def options(self, data: DemoInput) -> DemoOptions:
        """Return the options of the run."""
        return DemoOptions(
            data, self.broker, self.artifacts, self.model, self.folder, self.rate,
            self.paced_seconds, self.serve,
        )  # fmt: skip


@click.command()
@click.option("--items", multiple=True, help="File of the catalogue; by default a made-up shop.")
@click.option(
    "--events", multiple=True, help="File of events in time order; by default those of the shop."
)
@click.option("--users", help="File of users with attributes.")
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of events.")
@click.option(
    "--broker", metavar="HOST:PORT", help="Kafka broker; by default an embedded one is started."
)
@click.option(
    "--artifacts", metavar="ROOT", help="Use the index of this folder or URL, and build none."
)
@click.option("--model", help="Folder or name of the text encoder; by default the indexer's.")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Folder that keeps logs, index and state."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    default=200.0,
    help="Events per second while latency is measured.",
)
@click.option(
    "--paced-seconds",
    type=click.FloatRange(min=0),
    default=10.0,
    help="Seconds for which latency is measured.",
)
@click.option(
    "--serve", is_flag=True, help="Keep everything running, with a page to look at, until Ctrl-C."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON only.")
def demo(**values: Any) -> None:
    """Try everything out: broker, index, worker and events.

    It shows one user's recommendations before and after a few events, then throughput and latency.
    The exit code is 1 if an event or a recommendation was lost. With --serve the worker's page
    shows how interests move while the story is told again and again.
    """
    flags = DemoFlags(**values)
    data = flags.load()
    for text in data.bad[:BAD_LINES_NAMED]:
        click.echo(f"skipped: {text}", err=True)
    with progress() as bar:
        task = bar.add_task("starting", total=None, what="")

        def notify(what: str, count: int, total: int) -> None:
            bar.update(
                task, description=what, completed=count, total=total or None, what=_of(count, total)
            )

        def on_serving(result: DemoResult, address: str) -> None:
            bar.stop()
            show(result)
            click.echo(f"The page: {address}   (Ctrl-C ends the demonstration)", err=flags.as_json)

        show = print_json if flags.as_json else print_demo
        result = run_to_end(
            run_demo(
                flags.options(data),
                notify,
                (lambda story: None) if flags.as_json else lambda story: print_story(story, data),
                on_serving,
            )
        )
    show(result)


def _of(count: int, total: int) -> str:
    return f"{count:,} of {total:,}" if total else ""


def print_story(story: Story, data: DemoInput) -> None:
    """Print one user's list before the events, what each changed, and the list after."""
    console = out()
    attributes = ", ".join(f"{name} {value}" for name, value in story.attributes.items())
    console.rule(f"{story.user_id}{f' ({attributes})' if attributes else ''}")
    if story.before is not None:
        console.print(
            recommendation_table(story.before, data.titles, "before", ROWS_BEFORE_AND_AFTER)
        )
    steps = Table("event", "list after (ms)", "first items of the list", "interests")
    for step in story.steps:
        title = data.titles.get(step.item_id, step.item_id)
        names = [data.titles.get(one.item_id, one.item_id) for one in step.list.items]
        steps.add_row(
            f"{step.kind} {title}",
            f"{step.latency_ms:.0f}",
            "\n".join(names[:ROWS_BETWEEN]),
            _interests(step.list),
        )
    console.print(steps)
    if story.steps:
        last = story.steps[-1]
        caption = f"after, {last.latency_ms:.0f} ms from the last event"
        console.print(recommendation_table(last.list, data.titles, caption, ROWS_BEFORE_AND_AFTER))


def _interests(recommendation: Recommendation) -> str:
    """Sum the interests of one label: a label is a category, and a taste may have several."""
    shares: dict[str, float] = {}
    for one in recommendation.interests:
        shares[one.label] = shares.get(one.label, 0.0) + one.strength
    return "\n".join(f"{label} {share:.0%}" for label, share in shares.items())


def print_demo(result: DemoResult) -> None:
    """Print throughput and latency of a run."""
    console = out()
    console.rule("the whole run")
    table = Table(show_header=False)
    table.add_row("events", f"{result.events:,} of {result.users:,} users, none lost")
    table.add_row("items", f"{result.items:,}, artifact {result.artifact}")
    table.add_row(
        "full speed", f"{result.events_per_second:,.0f} events/s ({result.seconds:.2f} s)"
    )
    latency = result.latency_ms
    table.add_row(
        "latency",
        f"p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms, p99 {latency['p99']:.0f} ms "
        f"at {result.paced_rate:g} events/s",
    )
    table.add_row(
        "recommendations", f"{result.recommendations:,}; every user's last event is in one"
    )
    table.add_row("rejected", f"{result.rejected:,}")
    table.add_row(
        "broker",
        f"{result.broker}; index built in {result.build_seconds:.1f} s, "
        f"worker ready in {result.start_seconds:.1f} s",
    )
    console.print(table)


def recommendation_table(
    recommendation: Recommendation, titles: Mapping[str, str], caption: str, rows: int = 10
) -> Table:
    """Make a table of one list.

    Args:
        recommendation: the list.
        titles: names of items; ids for those without.
        caption: of the table.
        rows: maximum number of items.
    """
    table = Table("", "item", "score", "channel", "because of", title=caption, title_justify="left")
    for number, item in enumerate(recommendation.items[:rows], 1):
        because = ", ".join(titles.get(other, other) for other in item.because)
        table.add_row(
            str(number),
            titles.get(item.item_id, item.item_id),
            f"{item.score:.3f}",
            item.channel,
            because,
        )
    return table
