"""The console script `tracker`: its commands `send` and `demo`, and all others by import.

A command parses its options, calls one function, prints the result and sets the exit code. Modules
that load torch, FAISS or numba are imported inside the commands that need them: it takes seconds.
"""

import sys
from pathlib import Path

import click

from tracker.cli import look as looking_cli
from tracker.cli import operate as operating_cli
from tracker.cli.printing import err, print_demo, print_json, print_story, progress
from tracker.cli.shared import FAILED, OneLineErrors, json_option, run_to_end, settings_options
from tracker.demo.input import load_input, shipped
from tracker.demo.run import DemoOptions, DemoResult, run_demo
from tracker.dialects.loading import FORMATS, load_dialect
from tracker.events.dialect import OWN, records_in
from tracker.events.entries import EVENT_FIELDS, event_reading, parse_columns, read_lines
from tracker.events.kinds import Kinds
from tracker.events.lines import Line
from tracker.kafka.client import PROGRESS_EVERY, EventChecker, Sent, send_events
from tracker.kafka.cluster import topics_of
from tracker.settings import Settings

BAD_LINES_NAMED = 10


@click.group(
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="interest-tracker", message="%(version)s")
def cli() -> None:
    """Turn behaviour events from Kafka into recommendations.

    Settings come from TRACKER_* variables; `tracker doctor` shows and checks them.
    """


def _columns(context: click.Context, option: click.Parameter, text: str | None) -> dict[str, str]:
    """Return the columns of `--columns`, or exit with the reason why they are none."""
    try:
        return parse_columns(text or "")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _is_pipe(path: Path) -> bool:
    """Return whether a path can be read only once."""
    return path.exists() and not path.is_file() and not path.is_dir()


@cli.command()
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
    """Send events from files or folders: JSON lines, CSV or Parquet; - is standard input.

    The key of an event is its user, so that a user's events stay in order. Lines are checked as a
    worker with these settings checks them, with the weights that TRACKER_KINDS_FILE names. Files
    are checked whole before anything is sent: if a line is invalid, nothing is sent. Lines of
    standard input are checked one by one, and invalid ones are not sent. Events in the format that
    TRACKER_EVENTS_FORMAT names are sent as they are; of another format, as events of our own. The
    exit code is 1 if a line was invalid, or if the broker did not confirm every event.
    """
    named = 0
    form = dialect or settings.events_format
    as_it_is = form == settings.events_format
    if not as_it_is and settings.events_format != OWN:
        raise click.UsageError(
            f"--format is {form}, and the workers read {settings.events_format}"
            " (TRACKER_EVENTS_FORMAT): events are sent in the workers' format or in our own"
        )
    reading = event_reading(columns, dialect=load_dialect(form))
    kinds = Kinds.of_settings(settings.kinds_file, settings.unknown_kinds)
    checker = EventChecker(settings, kinds)

    def on_bad(line: Line, why: str) -> None:
        nonlocal named
        named += 1
        if named <= BAD_LINES_NAMED:
            click.echo(f"{line.place}: {why}", err=True)

    def on_bad_input(line: Line, why: str) -> None:
        if not line.place.startswith(tuple(files)):  # these were named when they were checked
            on_bad(line, why)

    files = [source for source in events if source != "-" and not _is_pipe(Path(source))]
    with progress() as bar:
        sent = Sent()
        lines = 0
        if dry_run or not unchecked:
            task = bar.add_task("checking events", total=None, what="")
            checked = records_in(
                read_lines(events if dry_run else files, reading), reading.dialect, as_it_is
            )
            for lines, line in enumerate(checked, 1):
                if why := checker(line.value)[1]:
                    sent.bad += 1
                    on_bad(line, why)
                if lines % PROGRESS_EVERY == 0:
                    bar.update(task, what=f"{lines:,}")
            bar.remove_task(task)
        refused = bool(sent.bad) and not skip_invalid and not unchecked
        if not dry_run and not refused:
            task = bar.add_task("sending events", total=None, what="")
            sent = run_to_end(
                send_events(
                    settings,
                    records_in(read_lines(events, reading), reading.dialect, as_it_is),
                    rate,
                    lambda count: bar.update(task, what=f"{count:,}"),
                    on_bad if unchecked else on_bad_input,
                    check=not unchecked,
                    checker=checker,
                )
            )
    if named > BAD_LINES_NAMED:
        click.echo(f"and {named - BAD_LINES_NAMED} more invalid lines", err=True)
    for note in [*reading.notes.lines(EVENT_FIELDS), *checker.notes()]:
        click.echo(note, err=True)
    if dry_run or not unchecked:
        weights = settings.kinds_file or "the built-in table"
        click.echo(f"checked with the weights of {weights}", err=True)
    if dry_run or refused:
        if as_json:
            print_json(sent)
        elif dry_run:
            click.echo(f"{lines - sent.bad:,} of {lines:,} lines are events; --dry-run sends none")
        if refused and not dry_run:
            click.echo(
                f"nothing was sent: {sent.bad:,} of {lines:,} lines are invalid; mend them, or"
                " give --skip-invalid to send the others",
                err=True,
            )
        if sent.bad:
            sys.exit(FAILED)
        return
    for error in sent.errors:
        click.echo(f"not confirmed: {error}", err=True)
    if as_json:
        print_json(sent)
    else:
        speed = sent.confirmed / sent.seconds if sent.seconds > 0 else 0.0
        topic = topics_of(settings).events
        bad = f", {sent.bad} invalid lines" if sent.bad else ""
        click.echo(
            f"{sent.confirmed} of {sent.sent} events confirmed in {topic} "
            f"in {sent.seconds:.2f} s ({speed:,.0f}/s){bad}"
        )
    if sent.bad or sent.confirmed != sent.sent:
        sys.exit(FAILED)


@cli.command()
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
def demo(
    items: tuple[str, ...],
    events: tuple[str, ...],
    users: str | None,
    limit: int | None,
    broker: str | None,
    artifacts: str | None,
    model: str | None,
    folder: Path | None,
    rate: float,
    paced_seconds: float,
    serve: bool,
    as_json: bool,
) -> None:
    """Try everything out: broker, index, worker, and events that change recommendations.

    Shows one user's recommendations before and after a few events, then throughput and latency.
    The exit code is 1 if an event or a recommendation was lost. With --serve the worker's page
    shows how interests move while the story is told again and again.
    """
    if bool(items) != bool(events):
        raise click.UsageError("--items and --events belong together")
    if users is None and not items:
        users = shipped("users.jsonl")
    data = load_input(
        items or (shipped("items.jsonl"),), events or (shipped("events.jsonl"),), users, limit
    )
    for text in data.bad[:BAD_LINES_NAMED]:
        click.echo(f"skipped: {text}", err=True)
    options = DemoOptions(data, broker, artifacts, model, folder, rate, paced_seconds, serve)
    with progress() as bar:
        task = bar.add_task("starting", total=None, what="")

        def notify(what: str, count: int, total: int) -> None:
            bar.update(
                task, description=what, completed=count, total=total or None, what=_of(count, total)
            )

        def on_serving(result: DemoResult, address: str) -> None:
            bar.stop()
            show(result)
            click.echo(f"The page: {address}   (Ctrl-C ends the demonstration)", err=as_json)

        show = print_json if as_json else print_demo
        result = run_to_end(
            run_demo(
                options,
                notify,
                (lambda story: None) if as_json else lambda story: print_story(story, data),
                on_serving,
            )
        )
    show(result)


def _of(count: int, total: int) -> str:
    return f"{count:,} of {total:,}" if total else ""


for command in (
    operating_cli.broker,
    operating_cli.topics,
    operating_cli.worker,
    operating_cli.doctor,
    operating_cli.reset_state,
    operating_cli.forget,
    operating_cli.acls,
    operating_cli.reset_learning_command,
    operating_cli.mend_times_command,
    operating_cli.merge_states_command,
    looking_cli.watch_command,
    looking_cli.top_command,
    looking_cli.show,
    looking_cli.score,
    looking_cli.why_command,
    looking_cli.export,
    looking_cli.export_user_command,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    try:
        cli.main(standalone_mode=True)
    except BrokenPipeError:
        err().print("stopped: the output was closed")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
