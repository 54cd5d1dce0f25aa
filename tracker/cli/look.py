"""Commands that show data: lists, users, items, scores and their reasons, and exports."""

import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.live import Live

from tracker.cli.printing import (
    out,
    present_view,
    print_item,
    print_json,
    print_recommendation,
    print_scores,
    print_user,
    print_why,
    progress,
)
from tracker.cli.shared import (
    json_option,
    load_artifact,
    run_as,
    run_to_end,
    settings_options,
    url_option,
)
from tracker.events.wire import Recommendation
from tracker.explained import Explained
from tracker.kafka.client import watch
from tracker.kafka.rights import Role
from tracker.settings import Settings


@contextmanager
def _file_written(file: Path) -> Iterator[None]:
    """Turn a file that cannot be written into an error of one line."""
    try:
        yield
    except Explained:  # BrokerError is an OSError too
        raise
    except OSError as error:
        place = error.filename or file
        raise click.ClickException(f"{place}: {error.strerror or error}") from error


@click.command("watch")
@settings_options()
@click.option("--user", "user_id", metavar="ID", help="Show only this user's recommendations.")
@click.option(
    "--from-beginning", is_flag=True, help="Start at the earliest recommendation in the topic."
)
@click.option("--count", type=click.IntRange(min=1), help="Stop after this many recommendations.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line, as sent.")
def watch_command(
    settings: Settings,
    user_id: str | None,
    from_beginning: bool,
    count: int | None,
    as_json: bool,
) -> None:
    """Print recommendations as they arrive; stop with Ctrl-C."""

    async def follow() -> None:
        n_printed = 0
        records = watch(
            settings,
            user_id,
            from_beginning,
            lambda: click.echo("waiting for recommendations; stop with Ctrl-C", err=True),
        )
        async for record in records:
            if record.value is None:
                continue
            if as_json:
                sys.stdout.write(record.value.decode() + "\n")
                sys.stdout.flush()
            else:
                print_recommendation(msgspec.json.decode(record.value, type=Recommendation))
            n_printed += 1
            if n_printed == count:
                break
        await records.aclose()

    run_to_end(follow())


@click.command("top")
@settings_options()
@url_option
@click.option(
    "--every",
    type=click.FloatRange(min=0.2),
    default=2.0,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, print once, and end.")
def top_command(settings: Settings, url: str | None, every: float, once: bool) -> None:
    """Watch a worker: rates, latency, lag, trends and interests.

    It shows trending items and how users' interests move. A running worker answers. Stop it with
    Ctrl-C.
    """
    from tracker.lookup.top import Top

    top = Top(settings, url)
    present = top.look()
    if once:
        time.sleep(every)
        out().print(present_view(top.look()))
        return
    with Live(present_view(present), console=out(), screen=True) as live:
        try:
            while True:
                time.sleep(every)
                live.update(present_view(top.look()))
        except KeyboardInterrupt:
            return


@click.command()
@settings_options()
@click.argument("user", required=False)
@click.option("--item", help="Show an item instead of a user.")
@url_option
@click.option(
    "--now",
    type=float,
    help="Time for which ages are shown, in seconds since the epoch; by default stream time plus"
    " the time since the last event.",
)
@json_option
def show(
    settings: Settings,
    user: str | None,
    item: str | None,
    url: str | None,
    now: float | None,
    as_json: bool,
) -> None:
    """Show the interests of USER, or what is known of an item.

    An interest comes with its strength, age and items, a user with counts of events. A running
    worker answers. The exit code is 1 if nothing is known, or no worker answers.
    """
    if (user is None) == (item is None):
        raise click.UsageError("give either USER or --item")
    from tracker.lookup.ask import ask, path_of

    if user is not None:
        state = ask(settings, url, path_of("users", user), [("at", now)])
    else:
        state = ask(settings, url, path_of("items", item or ""), [("at", now)])
    if as_json:
        print_json(state)
    elif user is not None:
        print_user(state)
    else:
        print_item(state)


@click.command()
@settings_options()
@click.argument("user")
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("--scene", help="Scene, e.g. home or search.")
@click.option(
    "--at", type=float, help="Time in seconds since the epoch; by default the time of the stream."
)
@url_option
@json_option
def score(
    settings: Settings,
    user: str,
    items: tuple[str, ...],
    scene: str | None,
    at: float | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Print how likely a positive event of USER on each ITEM is.

    A running worker answers. The exit code is 1 if the artifact has no trained prediction, or no
    worker answers.
    """
    from tracker.lookup.ask import ask, path_of

    body = {"user_id": user, "items": list(items), "scene": scene, "at": at}
    answer = ask(settings, url, path_of("score"), body=body)
    if not answer["trained"]:
        raise click.ClickException(
            str(answer.get("note") or f"{answer['artifact']} has no trained prediction")
        )
    if as_json:
        print_json(answer)
    else:
        print_scores(answer)


@click.command("why")
@settings_options()
@click.argument("user")
@click.argument("item")
@click.option("--scene", help="Scene, e.g. home or search.")
@click.option("-k", type=click.IntRange(1, 500), help="Items in the list.  [default: TRACKER_K]")
@click.option(
    "--at", type=float, help="Time in seconds since the epoch; by default the time of the stream."
)
@url_option
@json_option
def why_command(
    settings: Settings,
    user: str,
    item: str,
    scene: str | None,
    k: int | None,
    at: float | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Print why ITEM is in the list of USER, or why not.

    It goes step by step, and says what would bring the item in. A running worker answers. The exit
    code is 1 if the item is not in the catalogue, or no worker answers.
    """
    from tracker.lookup.ask import ask, path_of

    query = [("scene", scene), ("k", k), ("at", at)]
    answer = ask(settings, url, path_of("users", user, "why", item), query)
    if as_json:
        print_json(answer)
    else:
        print_why(answer)


@click.command()
@settings_options()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--now", type=float, help="Time in seconds since the epoch; by default each user's last event."
)
@click.option("--scene", help="Scene, e.g. home or search.")
@json_option
def export(
    settings: Settings,
    file: Path,
    now: float | None,
    scene: str | None,
    as_json: bool,
) -> None:
    """Write the vectors and interests of all users to FILE.

    FILE is Parquet. The states are those of the last commit in the changelog. `indexer export`
    writes the vectors of the items in the same spaces.
    """
    from tracker.files import check_folder

    with _file_written(file):
        check_folder(file)
    from tracker.lookup.export import export_users

    artifact = load_artifact(settings)
    with progress() as bar, _file_written(file):
        task = bar.add_task("exporting users", total=None, what="")

        def work() -> Coroutine[Any, Any, int]:
            return export_users(
                settings,
                artifact,
                file,
                now,
                scene,
                lambda count: bar.update(task, what=f"{count:,}"),
            )

        users = run_as(settings, "export", work)
    if as_json:
        print_json({"users": users, "file": str(file), "artifact": artifact.manifest.version})
    else:
        click.echo(f"{users} users in {file}")


@click.command("export-user")
@settings_options("artifacts")
@click.argument("user")
@click.option(
    "--states-only",
    is_flag=True,
    help="Leave out events, lists and rejected records of the topics.",
)
def export_user_command(settings: Settings, user: str, states_only: bool) -> None:
    """Print all that is kept of USER, as one JSON object.

    These are the rows in the changelog as of the last commit, every field of them, and the user's
    records in the topics of events, recommendations and rejected records. All partitions are read.
    The exit code is 1 if nothing is kept.
    """
    from tracker.lookup.person import export_user

    artifact = load_artifact(settings)
    role: Role = "export" if states_only else "export-user"
    person = run_as(
        settings, role, lambda: export_user(settings, artifact, user, records=not states_only)
    )
    if person is None:
        raise click.ClickException("nothing is kept of this user")
    print_json(person)
