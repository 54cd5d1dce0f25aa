"""Commands for operators: broker, topics, worker, doctor, and those that change states."""

import asyncio
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tracker.cli.printing import print_check, print_forget, print_json, print_topics
from tracker.cli.shared import (
    FAILED,
    json_option,
    load_artifact,
    overrides_options,
    run_as,
    run_to_end,
    settings_options,
    yes_option,
)
from tracker.demo.broker import start_broker
from tracker.kafka.pseudonyms import KEY_VARIABLE, pseudonyms_of
from tracker.kafka.rights import ROLES, Role, rights_of
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings
from tracker.worker.data_dir import clear

BROKER_LOOK_SECONDS = 0.5


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=9092, help="Port to listen on.")
def broker(port: int) -> None:
    """Run the embedded broker until Ctrl-C.

    With it you can try the tracker out without a cluster. It keeps everything in memory: topics and
    events are gone when it ends. It has no transactions, so a worker that crashes may count events
    twice. In production run Apache Kafka. The exit code is 1 if the port is in use.
    """
    run_to_end(_run_broker(port))


async def _run_broker(port: int) -> None:
    with tempfile.TemporaryDirectory() as folder, start_broker(Path(folder), port) as process:
        click.echo(
            f"the embedded broker listens on 127.0.0.1:{port}. Use it for trials only: it keeps"
            " everything in memory and has no transactions. Stop it with Ctrl-C.",
            err=True,
        )
        while True:
            process.check()
            await asyncio.sleep(BROKER_LOOK_SECONDS)


@click.command()
@settings_options()
@click.option("--check", is_flag=True, help="Check only, create nothing.")
@json_option
def topics(settings: Settings, check: bool, as_json: bool) -> None:
    """Create the topics that are missing, and check the others.

    The exit code is 1 if a worker could not start with them.
    """
    reports = run_as(settings, "topics", lambda: ensure_topics(settings, create=not check))
    if as_json:
        print_json(reports)
    else:
        print_topics(reports)
    if any(report.problems for report in reports):
        sys.exit(FAILED)


@click.command()
@settings_options("artifacts", "data_dir", "web_port")
def worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or Ctrl-C.

    The exit code is 0 after these, and 1 if the worker could not start or had to stop.
    """
    from tracker.worker.run import run_worker

    sys.exit(run_worker(settings))


@click.command("compile")
@settings_options("artifacts")
def compile_command(settings: Settings) -> None:
    """Compile native code, so that a worker starts at once.

    A worker compiles what is missing when it starts. Run this after an installation or an upgrade,
    as the user and on the kind of processor that the worker will have, with the same artifact and
    NUMBA_CACHE_DIR. No broker is needed.
    """
    from tracker.worker.compilation import compile_kernels

    click.echo(f"native code is ready after {compile_kernels(settings):.1f} s")


@click.command()
@overrides_options("artifacts")
@json_option
def doctor(overrides: dict[str, Any], as_json: bool) -> None:
    """Check everything that a worker needs, and say what to do.

    That is settings, data directory, artifact, device, broker, topics and the latest events. A
    line begins with OK, NOTE or FAIL. The exit code is 1 if a check failed,
    because then a worker could not work.
    """
    from tracker.cli.doctor import check_all

    checks = run_to_end(
        check_all(None, (lambda check: None) if as_json else print_check, **overrides)
    )
    if as_json:
        print_json(checks)
    if any(check.failed for check in checks):
        sys.exit(FAILED)


@click.command("reset-state")
@settings_options("data_dir")
@click.option(
    "--everything",
    is_flag=True,
    help="Also delete the changelogs and item events, so that all states are rebuilt from events.",
)
@yes_option
def reset_state(settings: Settings, everything: bool, yes: bool) -> None:
    """Delete the state in the data directory.

    It is rebuilt from the changelog. With --everything, stop all workers first: changelogs and item
    events are deleted and created again, and the next worker starts from the oldest event in the
    topic.
    """
    from tracker.kafka.reset import check_reset, reset_topics

    what = f"the state in {settings.data_dir}"
    if everything:
        what += f" and all states of {settings.name} at {settings.brokers}"
        run_as(settings, "reset-state", lambda: check_reset(settings))
    if not yes:
        click.confirm(f"Delete {what}?", abort=True, err=True)
    removed = clear(settings.data_dir)
    click.echo(
        f"{settings.data_dir}: {removed / 1e6:.1f} MB removed" if removed else "no state here"
    )
    if everything:
        for line in run_to_end(reset_topics(settings)):
            click.echo(line)


@click.command()
@settings_options()
@click.argument("role", type=click.Choice(ROLES))
@click.argument("principal")
@click.option("--group", default="", help="Consumer group of a subscriber.")
@click.option("--of", metavar="NAME", default="", help="Name of the live tracker, for a replay.")
def acls(settings: Settings, role: Role, principal: str, group: str, of: str) -> None:
    """Print the commands that give PRINCIPAL the rights of ROLE.

    The role needs no others on a cluster with access control. PRINCIPAL is a user of the cluster,
    for example User:tracker. Pipe the lines into a shell, with Kafka's own tools in the path.
    """
    if role == "replay" and not of:
        raise click.UsageError("replay needs --of NAME, the name of the live tracker")
    if role != "replay" and of:
        raise click.UsageError(f"--of is for the role replay alone, not for {role}; leave it out")
    for right in rights_of(settings, role, group, of):
        click.echo(right.command(settings.brokers, principal))


@click.command()
@settings_options()
@click.argument("user")
@click.option(
    "--wait",
    type=click.FloatRange(min=0.0),
    default=30.0,
    help="Seconds to wait until the workers are done.",
)
@json_option
def forget(settings: Settings, user: str, wait: float, as_json: bool) -> None:
    """Forget USER: delete all that workers keep of the user.

    Recent events of the user are also taken out of the counts of items. The request lies in a topic
    until the workers have applied it. The output says what other places keep, and until when. The
    exit code is 1 if the workers were not done in time.
    """
    from tracker.lookup.forget import forget_user

    report = run_as(settings, "forget", lambda: forget_user(settings, user, wait))
    if as_json:
        print_json(report)
    else:
        print_forget(report)
    if not report.complete:
        sys.exit(FAILED)


@click.command("pseudonym")
@settings_options()
@click.argument("users", nargs=-1, metavar="[USER]...")
def pseudonym_command(settings: Settings, users: tuple[str, ...]) -> None:
    """Print the pseudonym of each USER.

    Without USER, the ids are the lines of standard input. The key is that of
    TRACKER_PSEUDONYM_KEY_FILE. The exit code is 1 if it is not set.
    """
    pseudonyms = pseudonyms_of(settings)
    if not pseudonyms:
        raise click.ClickException(f"{KEY_VARIABLE} is not set, so users keep their ids")
    for user in users or (line.rstrip("\r\n") for line in sys.stdin):
        click.echo(pseudonyms.of(user))


@click.command("reset-learning")
@settings_options()
@yes_option
def reset_learning_command(settings: Settings, yes: bool) -> None:
    """Delete what workers have learned online.

    They use the published models again. Stop all workers first. If they must keep running, restart
    them one by one with TRACKER_ONLINE_LEARNING=off instead. States stay as they are.
    """
    from tracker.kafka.reset import reset_learning

    if not yes:
        what = f"what was learned online by the workers of {settings.name} at {settings.brokers}"
        click.confirm(f"Delete {what}?", abort=True, err=True)
    click.echo(run_as(settings, "reset-learning", lambda: reset_learning(settings)))


@click.command("mend-times")
@settings_options("artifacts")
@yes_option
def mend_times_command(settings: Settings, yes: bool) -> None:
    """Mend states with times past the clock.

    An event of the future leaves such times. Stop all workers first. Stream time goes back to the
    clock. A user's state is made again from the recent events in it. An item's state is made again
    from the item events that the topic still keeps. The output says what was lost.
    """
    from tracker.lookup.mend_times import mend_times

    if not yes:
        what = f"the states of {settings.name} at {settings.brokers} that lie past the clock"
        click.confirm(f"Mend {what}?", abort=True, err=True)
    artifact = load_artifact(settings)
    for line in run_as(settings, "mend-times", lambda: mend_times(settings, artifact)):
        click.echo(str(line))


@click.command("merge-states")
@settings_options("artifacts")
@yes_option
def merge_states_command(settings: Settings, yes: bool) -> None:
    """Move states to the partitions of their users.

    Producers with different partitioners, or a changed TRACKER_PARTITIONER, leave states in
    partitions where no worker looks for them. Stop all workers first. Each such state goes to its
    user's partition. There the workers join it once with the state that is there.
    """
    from tracker.lookup.merge_states import merge_states

    if not yes:
        what = f"the states of {settings.name} at {settings.brokers} to their users' partitions"
        click.confirm(
            f"Move {what} by TRACKER_PARTITIONER={settings.partitioner}?", abort=True, err=True
        )
    artifact = load_artifact(settings)
    click.echo(str(run_as(settings, "merge-states", lambda: merge_states(settings, artifact))))


@click.command("move-states")
@settings_options()
@yes_option
def move_states_command(settings: Settings, yes: bool) -> None:
    """Move states after partitions were added.

    Use it if the events topic has more partitions than before. Stop all workers first. Each state
    goes to the partition that TRACKER_PARTITIONER chooses by the new number, with what its user has
    seen and waits for. Records in the old partitions are handed on when the workers run. If it is
    cut off, run it again. It needs memory for the rows of one partition.
    """
    from tracker.lookup.move_states import move_states

    if not yes:
        what = f"the states of {settings.name} at {settings.brokers}"
        click.confirm(f"Move {what} to the events topic's partitions?", abort=True, err=True)

    def progress(line: str) -> None:
        click.echo(line, err=True)

    moved = run_as(settings, "move-states", lambda: move_states(settings, progress=progress))
    click.echo(str(moved))


class _Start(click.ParamType):
    """An offset, a time or `beginning`."""

    name = "start"

    def convert(self, value: Any, param: Any, ctx: Any) -> str | int | float:
        """Return the offset as an int, the time as a float in seconds."""
        if not isinstance(value, str) or value == "beginning":
            return str(value)
        if value.isdigit():
            return int(value)
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no start; expected is beginning, an offset such as 1200, or a time"
                " such as 2026-01-31T12:00:00Z"
            )
        return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


@click.command()
@settings_options("artifacts", "data_dir", "web_port")
@click.option("--of", metavar="NAME", required=True, help="Name of the live tracker.")
@click.option(
    "--from",
    "start",
    metavar="TIME|OFFSET|beginning",
    type=_Start(),
    default="beginning",
    show_default=True,
    help="First event. A time without a zone is UTC.",
)
@click.option("--change-over", "changes", is_flag=True, help="Take over from the stopped workers.")
@click.option("--give-back", is_flag=True, help="Let the live tracker's workers start again.")
def replay(
    settings: Settings, of: str, start: str | int | float, changes: bool, give_back: bool
) -> None:
    """Build all states again from the events, and change over.

    The events are those of the tracker NAME, and the states get another TRACKER_NAME. It runs
    beside the live workers, sends no list, and ends when it has reached them. Then stop them and
    run it with --change-over. If it is cut off, run it again.
    """
    from tracker.lookup.replay import begin_replay, change_over, committed, retire
    from tracker.stream.replay import Replay
    from tracker.worker.run import run_worker

    settings = settings.model_copy(update={"stream": settings.stream or of})
    if give_back:
        run_as(settings, "replay", lambda: retire(settings, of, ""), of)
        click.echo(f"workers with TRACKER_NAME={of} may start again")
        return
    report = run_as(settings, "replay", lambda: begin_replay(settings, of, start), of)
    click.echo(str(report), err=True)
    limits = run_to_end(retire(settings, of, settings.name) if changes else committed(settings, of))
    run = Replay(of, limits, is_final=changes)
    status = run_worker(settings, run)
    if status or not run.has_ended:
        click.echo("not finished: run it again, and it goes on", err=True)
        sys.exit(status or FAILED)
    names = f"TRACKER_NAME={settings.name} TRACKER_STREAM={settings.stream}"
    if not changes:
        click.echo(f"caught up with {of}: stop its workers, and run this with --change-over")
        return
    run_to_end(change_over(settings, of, limits))
    click.echo(f"changed over: start workers with {names}, and give them to all commands")
