"""The command `send`: events from files to the events topic, checked as a worker checks them."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.progress import Progress

from tracker.cli.printing import print_json, progress
from tracker.cli.shared import BAD_LINES_NAMED, FAILED, json_option, run_to_end, settings_options
from tracker.dialects.loading import FORMATS, load_dialect
from tracker.events.dialect import OWN, records_in
from tracker.events.entries import (
    EVENT_FIELDS,
    Reading,
    event_reading,
    parse_columns,
    read_lines,
)
from tracker.events.kinds import Kinds
from tracker.events.lines import Line
from tracker.kafka.client import PROGRESS_EVERY, EventChecker, Sent, send_events
from tracker.kafka.cluster import topics_of
from tracker.settings import Settings


def _columns(context: click.Context, option: click.Parameter, text: str | None) -> dict[str, str]:
    """Return the columns of `--columns`, or exit with the reason why they are none."""
    try:
        return parse_columns(text or "")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@dataclass
class InvalidLines:
    """Names the first invalid lines on stderr, and counts the others."""

    count: int = 0

    def name(self, line: Line, why: str) -> None:
        """Name a line, if it is one of the first, and why it is invalid."""
        self.count += 1
        if self.count <= BAD_LINES_NAMED:
            click.echo(f"{line.place}: {why}", err=True)

    def close(self) -> None:
        """Print how many lines were not named."""
        if self.count > BAD_LINES_NAMED:
            click.echo(f"and {self.count - BAD_LINES_NAMED} more invalid lines", err=True)


@click.command()
@settings_options()
@click.argument("events", nargs=-1, required=True, metavar="EVENTS...")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Events per second; without it, full speed.",
)
@click.option(
    "--columns",
    callback=_columns,
    metavar="FIELD=NAME,...",
    help="Names of fields or columns in the files, where they differ from ours; for example"
    " user=visitorid,item=itemid,kind=event.",
)
@click.option(
    "--format",
    "dialect",
    metavar="FORMAT",
    help=f"Format of the events: {', '.join(FORMATS)}, cloudevents:FORMAT, or a TOML file of"
    " paths.  [default: TRACKER_EVENTS_FORMAT]",
)
@click.option("--unchecked", is_flag=True, help="Also send invalid lines, unchanged.")
@click.option(
    "--skip-invalid", is_flag=True, help="Send the valid lines of files that have invalid ones."
)
@click.option("--dry-run", is_flag=True, help="Check all lines and send none; needs no broker.")
@json_option
def send(
    settings: Settings,
    events: tuple[str, ...],
    rate: float | None,
    columns: dict[str, str],
    dialect: str | None,
    unchecked: bool,
    skip_invalid: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Send events from files, folders or standard input (-).

    Files are JSON lines, CSV, Parquet and the like. The key of an event is its user, so that a
    user's events stay in order. Lines are checked as a worker with these settings checks them, with
    the weights that TRACKER_KINDS_FILE names. Files are checked whole before anything is sent: if a
    line is invalid, nothing is sent. Lines of standard input are checked one by one, and invalid
    ones are not sent. Events in the format that TRACKER_EVENTS_FORMAT names are sent as they are;
    of another format, as events of our own. The exit code is 1 if a line was invalid, or if the
    broker did not confirm every event.
    """
    form = dialect or settings.events_format
    as_it_is = form == settings.events_format
    if not as_it_is and settings.events_format != OWN:
        raise click.UsageError(
            f"--format is {form}, and the workers read {settings.events_format}"
            " (TRACKER_EVENTS_FORMAT): events are sent in the workers' format or in our own"
        )
    reading = event_reading(columns, dialect=load_dialect(form))
    checker = EventChecker(settings, Kinds.of_settings(settings.kinds_file, settings.unknown_kinds))
    files = [source for source in events if source != "-" and not _is_pipe(Path(source))]
    invalid = InvalidLines()

    def on_invalid(line: Line, why: str) -> None:
        # Invalid lines of files were named when these were checked.
        if unchecked or not line.place.startswith(tuple(files)):
            invalid.name(line, why)

    lines, sent = 0, Sent()
    with progress() as bar:
        # 1. Check what can be read twice; with --dry-run everything.
        if dry_run or not unchecked:
            checked = _records(events if dry_run else files, reading, as_it_is)
            lines, sent.bad = _check(checked, checker, invalid, bar)
        refused = bool(sent.bad) and not skip_invalid and not unchecked
        # 2. Send.
        if not dry_run and not refused:
            task = bar.add_task("sending events", total=None, what="")
            sent = run_to_end(
                send_events(
                    settings,
                    _records(events, reading, as_it_is),
                    rate,
                    lambda count: bar.update(task, what=f"{count:,}"),
                    on_invalid,
                    check=not unchecked,
                    checker=checker,
                )
            )
    # 3. Print notes and the result.
    invalid.close()
    for note in [*reading.notes.lines(EVENT_FIELDS), *checker.notes()]:
        click.echo(note, err=True)
    if dry_run or not unchecked:
        weights = settings.kinds_file or "the built-in table"
        click.echo(f"checked with the weights of {weights}", err=True)
    if dry_run:
        _print_dry_run(sent, lines, as_json)
    elif refused:
        _print_refusal(sent, lines, as_json)
    else:
        _print_sent(sent, topics_of(settings).events, as_json)
    if sent.bad or sent.confirmed != sent.sent:
        sys.exit(FAILED)


def _is_pipe(path: Path) -> bool:
    """Return whether a path can be read only once."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _records(sources: Sequence[str], reading: Reading, as_it_is: bool) -> Iterator[Line]:
    """Read the records to be sent from files, folders or standard input."""
    return records_in(read_lines(sources, reading), reading.dialect, as_it_is)


def _check(
    records: Iterator[Line], checker: EventChecker, invalid: InvalidLines, bar: Progress
) -> tuple[int, int]:
    """Check records and name the invalid ones; return the numbers of all and of these."""
    task = bar.add_task("checking events", total=None, what="")
    count = 0
    for count, record in enumerate(records, 1):
        if why := checker(record.value)[1]:
            invalid.name(record, why)
        if count % PROGRESS_EVERY == 0:
            bar.update(task, what=f"{count:,}")
    bar.remove_task(task)
    return count, invalid.count


def _print_dry_run(sent: Sent, lines: int, as_json: bool) -> None:
    if as_json:
        print_json(sent)
    else:
        click.echo(f"{lines - sent.bad:,} of {lines:,} lines are events; --dry-run sends none")


def _print_refusal(sent: Sent, lines: int, as_json: bool) -> None:
    if as_json:
        print_json(sent)
    click.echo(
        f"nothing was sent: {sent.bad:,} of {lines:,} lines are invalid; mend them, or give"
        " --skip-invalid to send the others",
        err=True,
    )


def _print_sent(sent: Sent, topic: str, as_json: bool) -> None:
    for error in sent.errors:
        click.echo(f"not confirmed: {error}", err=True)
    if as_json:
        print_json(sent)
        return
    speed = sent.confirmed / sent.seconds if sent.seconds > 0 else 0.0
    invalid = f", {sent.bad} invalid lines" if sent.bad else ""
    click.echo(
        f"{sent.confirmed} of {sent.sent} events confirmed in {topic} in {sent.seconds:.2f} s"
        f" ({speed:,.0f}/s){invalid}"
    )
