"""The commands of `tracker`: parse, call, print, and exit with a code that means something.

What brings torch, FAISS or numba is imported by the commands that need it: it takes seconds.
"""

import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from tracker.client import Line, read_lines, send_events, watch
from tracker.cluster import topics_of
from tracker.command_line import OneLineErrors, run_to_end, settings_of, settings_options
from tracker.data_dir import clear
from tracker.demo import DemoOptions, run_demo
from tracker.demo_input import load_input, shipped
from tracker.demo_report import print_demo, print_story
from tracker.events import Recommendation
from tracker.report import (
    err,
    print_check,
    print_item,
    print_json,
    print_recommendation,
    print_scores,
    print_topics,
    print_user,
    progress,
)
from tracker.reset import reset_learning, reset_topics
from tracker.topics import ensure_topics

FAILED = 1
BAD_LINES_NAMED = 10


def _now(value: float | None) -> float:
    return time.time() if value is None else value


@click.group(
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="interest-tracker", message="%(version)s")
def cli() -> None:
    """Behaviour events in from Kafka, recommendations out.

    Settings come from TRACKER_* variables; `tracker doctor` shows and checks them.
    """


@cli.command()
@settings_options
@click.option("--check", is_flag=True, help="Only look; create nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def topics(brokers: str | None, name: str | None, check: bool, as_json: bool) -> None:
    """Create the topics, or say what is wrong with those that exist.

    Exit code 1 where a worker could not start with them.
    """
    reports = run_to_end(ensure_topics(settings_of(brokers, name), create=not check))
    if as_json:
        print_json(reports)
    else:
        print_topics(reports)
    if any(report.problems for report in reports):
        sys.exit(FAILED)


@cli.command()
@settings_options
@click.option("--artifacts", metavar="ROOT", help="Folder or URL that the indexer publishes to.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of this worker's state.")
@click.option("--web-port", type=int, help="Port of health, metrics and lookups; 0 for none.")
def worker(
    brokers: str | None,
    name: str | None,
    artifacts: str | None,
    data_dir: Path | None,
    web_port: int | None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C.

    Exit code 0 after these, 1 when it refuses to start or had to stop.
    """
    from tracker.app import run_worker

    settings = settings_of(brokers, name, artifacts=artifacts, data_dir=data_dir, web_port=web_port)
    sys.exit(run_worker(settings))


@cli.command()
@settings_options
@click.argument("events", nargs=-1, required=True, metavar="EVENTS...")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second; else full speed."
)
@click.option("--unchecked", is_flag=True, help="Send lines that are no events too, as they are.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def send(
    brokers: str | None,
    name: str | None,
    events: tuple[str, ...],
    rate: float | None,
    unchecked: bool,
    as_json: bool,
) -> None:
    """Send events from files of JSON lines (also .gz), or - for standard input.

    Each is keyed by its user, so that a user's events stay in order, and counts when the broker
    has confirmed it. A line that is no event is named and not sent. Exit code 1 where a line was
    bad or an event is not confirmed.
    """
    settings = settings_of(brokers, name)
    named = 0

    def on_bad(line: Line, why: str) -> None:
        nonlocal named
        named += 1
        if named <= BAD_LINES_NAMED:
            click.echo(f"{line.place}: {why}", err=True)

    with progress() as bar:
        task = bar.add_task("sending events", total=None, what="")
        sent = run_to_end(
            send_events(
                settings,
                read_lines(events),
                rate,
                lambda done: bar.update(task, what=f"{done:,}"),
                on_bad,
                check=not unchecked,
            )
        )
    if named > BAD_LINES_NAMED:
        click.echo(f"and {named - BAD_LINES_NAMED} more bad lines", err=True)
    for error in sent.errors:
        click.echo(f"not confirmed: {error}", err=True)
    if as_json:
        print_json(sent)
    else:
        speed = sent.confirmed / sent.seconds if sent.seconds > 0 else 0.0
        topic = topics_of(settings).events
        bad = f", {sent.bad} bad lines" if sent.bad else ""
        click.echo(
            f"{sent.confirmed} of {sent.sent} events confirmed in {topic} "
            f"in {sent.seconds:.2f} s ({speed:,.0f}/s){bad}"
        )
    if sent.bad or sent.confirmed != sent.sent:
        sys.exit(FAILED)


@cli.command(name="watch")
@settings_options
@click.option("--user", "user_id", help="Only this user's.")
@click.option("--from-beginning", is_flag=True, help="Begin with those the topic still holds.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line, as sent.")
def watch_command(
    brokers: str | None,
    name: str | None,
    user_id: str | None,
    from_beginning: bool,
    count: int | None,
    as_json: bool,
) -> None:
    """Subscribe to the recommendations and print them as they come, until Ctrl-C."""
    settings = settings_of(brokers, name)

    async def follow() -> None:
        shown = 0
        records = watch(
            settings,
            user_id,
            from_beginning,
            lambda: click.echo("watching; Ctrl-C ends it", err=True),
        )
        async for record in records:
            if record.value is None:
                continue
            if as_json:
                sys.stdout.write(record.value.decode() + "\n")
                sys.stdout.flush()
            else:
                print_recommendation(msgspec.json.decode(record.value, type=Recommendation))
            shown += 1
            if shown == count:
                break
        await records.aclose()

    run_to_end(follow())


@cli.command()
@settings_options
@click.argument("user", required=False)
@click.option("--item", help="Show an item instead of a user.")
@click.option("--url", help="A worker's web server.  [default: http://TRACKER_WEB_HOST:PORT]")
@click.option("--now", type=float, help="Seconds since the epoch to tell ages for; else the clock.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(
    brokers: str | None,
    name: str | None,
    user: str | None,
    item: str | None,
    url: str | None,
    now: float | None,
    as_json: bool,
) -> None:
    """Show what is known of USER: interests with strength, age and the items behind them, counts.

    A running worker is asked first; else the last committed row is read from the changelog. Exit
    code 1 where nothing is known.
    """
    if (user is None) == (item is None):
        raise click.UsageError("name a USER, or an item with --item")
    settings = settings_of(brokers, name)
    from tracker.artifact import Artifact
    from tracker.item_state import ItemStateFormatError
    from tracker.show import ask_worker, item_from_changelog, user_from_changelog
    from tracker.state import NewerArtifactError, StateFormatError

    path = f"users/{user}" if user is not None else f"items/{item}"
    found: dict[str, Any] | None = None
    if now is None and (url or settings.web_port):
        found = ask_worker(url or f"http://{settings.web_host}:{settings.web_port}", path)
    if found is None:
        artifact = Artifact.load(settings.artifacts, device="cpu")
        try:
            if user is not None:
                found = run_to_end(user_from_changelog(settings, user, artifact, _now(now)))
            else:
                found = run_to_end(item_from_changelog(settings, item or "", artifact, _now(now)))
        except (StateFormatError, ItemStateFormatError, NewerArtifactError) as error:
            raise click.ClickException(str(error)) from error
    if found is None:
        raise click.ClickException(f"nothing is known of {path.replace('s/', ' ', 1)}")
    if as_json:
        print_json(found)
    elif user is not None:
        print_user(found)
    else:
        print_item(found)


@cli.command()
@settings_options
@click.argument("user")
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("--scene", help="Where it would be.")
@click.option("--at", type=float, help="Seconds since the epoch; else the time of the stream.")
@click.option("--url", help="A worker's web server.  [default: http://TRACKER_WEB_HOST:PORT]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def score(
    brokers: str | None,
    name: str | None,
    user: str,
    items: tuple[str, ...],
    scene: str | None,
    at: float | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Tell how probable it is that USER takes to each ITEM.

    A running worker is asked first; else it is computed from the changelogs and the artifact.
    Exit code 1 where the artifact has no trained prediction.
    """
    settings = settings_of(brokers, name)
    from tracker.artifact import Artifact
    from tracker.item_state import ItemStateFormatError
    from tracker.score import ask_scores, scores_from_changelogs
    from tracker.state import NewerArtifactError, StateFormatError

    found: dict[str, Any] | None = None
    if url or settings.web_port:
        url = url or f"http://{settings.web_host}:{settings.web_port}"
        found = ask_scores(url, user, items, scene, at)
    if found is None:
        artifact = Artifact.load(settings.artifacts, device="cpu")
        try:
            found = run_to_end(scores_from_changelogs(settings, artifact, user, items, scene, at))
        except (StateFormatError, ItemStateFormatError, NewerArtifactError) as error:
            raise click.ClickException(str(error)) from error
    if not found["trained"]:
        raise click.ClickException(
            f"{found['artifact']} has no trained prediction; `indexer train` learns one"
        )
    if as_json:
        print_json(found)
    else:
        print_scores(found)


@cli.command()
@settings_options
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--now", type=float, help="Seconds since the epoch; else each user's last event.")
@click.option("--scene", help="Where the users are taken to be.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(
    brokers: str | None,
    name: str | None,
    file: Path,
    now: float | None,
    scene: str | None,
    as_json: bool,
) -> None:
    """Write all users' vectors and interests to FILE, in Parquet.

    The last committed states are read from the changelog. `indexer export` writes the items'
    vectors of the same spaces.
    """
    settings = settings_of(brokers, name)
    from tracker.artifact import Artifact
    from tracker.export import export_users
    from tracker.state import NewerArtifactError, StateFormatError

    artifact = Artifact.load(settings.artifacts, device="cpu")
    with progress() as bar:
        task = bar.add_task("exporting users", total=None, what="")
        try:
            users = run_to_end(
                export_users(
                    settings,
                    artifact,
                    file,
                    now,
                    scene,
                    lambda done: bar.update(task, what=f"{done:,}"),
                )
            )
        except (StateFormatError, NewerArtifactError) as error:
            raise click.ClickException(str(error)) from error
    if as_json:
        print_json({"users": users, "file": str(file), "artifact": artifact.manifest.version})
    else:
        click.echo(f"{users} users in {file}")


@cli.command()
@settings_options
@click.option("--artifacts", metavar="ROOT", help="Folder or URL that the indexer publishes to.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(brokers: str | None, name: str | None, artifacts: str | None, as_json: bool) -> None:
    """Check settings, data directory, artifact, device, broker and topics.

    Each line is OK, a NOTE, or what to do. Exit code 1 where something would keep a worker from
    its work.
    """
    given = {"brokers": brokers, "name": name, "artifacts": artifacts}
    overrides = {key: value for key, value in given.items() if value is not None}
    from tracker.doctor import check_all

    checks = run_to_end(
        check_all(None, (lambda check: None) if as_json else print_check, **overrides)
    )
    if as_json:
        print_json(checks)
    if any(check.failed for check in checks):
        sys.exit(FAILED)


@cli.command("reset-state")
@settings_options
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the worker's state.")
@click.option(
    "--everything",
    is_flag=True,
    help="Also delete the changelogs and item events, so that all states are rebuilt from events.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset_state(
    brokers: str | None, name: str | None, data_dir: Path | None, everything: bool, yes: bool
) -> None:
    """Delete the state in the data directory; it is rebuilt from the changelog.

    With --everything all workers must be stopped: changelogs and item events are deleted and
    created anew, and the next worker starts from the oldest event the topic still holds.
    """
    settings = settings_of(brokers, name, data_dir=data_dir)
    what = f"the state in {settings.data_dir}"
    if everything:
        what += f" and all states of {settings.name} at {settings.brokers}"
    if not yes:
        click.confirm(f"Delete {what}?", abort=True, err=True)
    removed = clear(settings.data_dir)
    click.echo(
        f"{settings.data_dir}: {removed / 1e6:.1f} MB removed" if removed else "no state here"
    )
    if everything:
        for line in run_to_end(reset_topics(settings)):
            click.echo(line)


@cli.command("reset-learning")
@settings_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset_learning_command(brokers: str | None, name: str | None, yes: bool) -> None:
    """Delete what workers learned online; they rank by what the artifact published again.

    All workers must be stopped. With running ones, restart them one after the other with
    TRACKER_ONLINE_LEARNING=off. States stay as they are.
    """
    settings = settings_of(brokers, name)
    if not yes:
        what = f"what was learned online by workers of {settings.name} at {settings.brokers}"
        click.confirm(f"Delete {what}?", abort=True, err=True)
    click.echo(run_to_end(reset_learning(settings)))


@cli.command()
@click.option("--items", multiple=True, help="Catalogue; the shop that comes with the package.")
@click.option("--events", multiple=True, help="Events in time order; those of the shop.")
@click.option("--users", help="Users with attributes.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many events.")
@click.option("--broker", metavar="HOST:PORT", help="A broker; else an embedded one is started.")
@click.option("--artifacts", metavar="ROOT", help="Use the index there; build none.")
@click.option("--model", help="Folder or name of the text encoder; the indexer's default.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep logs, index and state here.")
@click.option(
    "--rate", type=click.FloatRange(min=1), default=200.0, help="Events a second, paced pass."
)
@click.option(
    "--paced-seconds", type=click.FloatRange(min=0), default=10.0, help="Length of the paced pass."
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
    as_json: bool,
) -> None:
    """Run everything once: broker, index, worker, events, and what they change.

    Shows one user's recommendations before and after a few events, then throughput and latency.
    Exit code 1 where an event or a recommendation was lost.
    """
    if bool(items) != bool(events):
        raise click.UsageError("--items and --events belong together")
    if users is None and not items:
        users = shipped("users.jsonl")
    found = load_input(
        items or (shipped("items.jsonl"),), events or (shipped("events.jsonl"),), users, limit
    )
    for text in found.bad[:BAD_LINES_NAMED]:
        click.echo(f"left out: {text}", err=True)
    options = DemoOptions(found, broker, artifacts, model, folder, rate, paced_seconds)
    with progress() as bar:
        task = bar.add_task("starting", total=None, what="")

        def notify(what: str, done: int, total: int) -> None:
            bar.update(
                task, description=what, completed=done, total=total or None, what=_of(done, total)
            )

        result = run_to_end(
            run_demo(
                options,
                notify,
                (lambda story: None) if as_json else lambda story: print_story(story, found),
            )
        )
    if as_json:
        print_json(result)
    else:
        print_demo(result)


def _of(done: int, total: int) -> str:
    return f"{done:,} of {total:,}" if total else ""


def main() -> None:
    """Run the command line."""
    try:
        cli.main(standalone_mode=True)
    except BrokenPipeError:
        err().print("stopped: nobody reads the output")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
