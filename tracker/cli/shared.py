"""Parts that all commands share: options of settings, errors in one line, a clean stop."""

import asyncio
import functools
import signal
import sys
from collections.abc import Callable, Coroutine
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from tracker.explained import Explained
from tracker.kafka.rights import Role, check_rights
from tracker.settings import Settings, load_settings

if TYPE_CHECKING:
    from tracker.artifact.artifact import Artifact  # brings torch and FAISS: seconds

FAILED = 1
STOPPED = 130

BAD_LINES_NAMED = 10
"""Invalid lines of files that are named; of more the number is printed."""

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])


class OneLineErrors(click.Group):
    """Shows what people can put right as one line on stderr, and exits with 1."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; if there is none of that name, suggest the nearest."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if near := get_close_matches(args[0], self.list_commands(ctx), n=1):
                error.message += f" Did you mean '{near[0]}'?"
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Explained as error:
            raise click.ClickException(str(error)) from error


_SETTINGS = {
    "brokers": click.option(
        "--brokers",
        metavar="HOST:PORT,...",
        help="Kafka brokers.  [default: TRACKER_BROKERS or localhost:9092]",
    ),
    "name": click.option(
        "--name",
        help="Prefix of the names of group and topics.  [default: TRACKER_NAME or tracker]",
    ),
    "artifacts": click.option(
        "--artifacts", metavar="ROOT", help="Folder or URL to which the indexer publishes."
    ),
    "data_dir": click.option(
        "--data-dir", type=click.Path(path_type=Path), help="Folder of the worker's state."
    ),
    "web_port": click.option(
        "--web-port", type=int, help="Port of the web server; 0 turns it off."
    ),
}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

url_option = click.option(
    "--url", help="Web server of a worker.  [default: http://TRACKER_WEB_HOST:PORT]"
)

yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def settings_options(*more: str) -> Callable[[Command], Command]:
    """Add options for settings; the command gets `settings`, read when it is called.

    Options take precedence over the environment.

    Args:
        more: settings that have an option, besides `brokers` and `name`.
    """
    return _options(more, lambda overrides: {"settings": load_settings(None, **overrides)})


def overrides_options(*more: str) -> Callable[[Command], Command]:
    """Add options like `settings_options`; the command gets `overrides`, those that were given."""
    return _options(more, lambda overrides: {"overrides": overrides})


def _options(
    more: tuple[str, ...], argument: Callable[[dict[str, Any]], dict[str, Any]]
) -> Callable[[Command], Command]:
    names = ("brokers", "name", *more)

    def add(command: Command) -> Command:
        @functools.wraps(command)
        def call(**values: Any) -> Any:
            options = {name: values.pop(name) for name in names}
            overrides = {name: value for name, value in options.items() if value is not None}
            return command(**argument(overrides), **values)

        for name in reversed(names):
            call = _SETTINGS[name](call)
        return cast(Command, call)

    return add


def load_artifact(settings: Settings) -> "Artifact":
    """Load the artifact that LATEST names, on the CPU.

    Raises:
        ArtifactError: it cannot be used.
    """
    from tracker.artifact.artifact import Artifact

    return Artifact.load(settings.artifacts, device="cpu", public_key=settings.artifact_public_key)


def run_as(
    settings: Settings, role: Role, work: Callable[[], Coroutine[Any, Any, Result]], of: str = ""
) -> Result:
    """Run to the end what needs the rights of a role, once it is checked that they are all there.

    Args:
        settings: where the brokers are.
        role: of `tracker acls`.
        work: begun only then, so that nothing is half done for lack of a right.
        of: name of the live tracker, for the role `replay`.

    Raises:
        RightsError: the brokers do not allow something; names it, and the command that grants it.
    """

    async def checked() -> Result:
        await check_rights(settings, role, of)
        return await work()

    return run_to_end(checked())


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end; SIGTERM stops it like Ctrl-C, with everything closed and exit code 130."""

    async def guarded() -> Result:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await work
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    try:
        return asyncio.run(guarded())
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("stopped", err=True)
        sys.exit(STOPPED)
