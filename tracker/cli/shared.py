"""Parts that all commands share: options of settings, errors in one line, a clean stop."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from difflib import get_close_matches
from typing import Any, TypeVar

import click

from tracker.explained import Explained
from tracker.settings import Settings, load_settings

FAILED = 1
STOPPED = 130

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


def settings_options(command: Command) -> Command:
    """Add the options that take precedence over the environment."""
    command = click.option(
        "--name",
        help="Prefix of the names of group and topics.  [default: TRACKER_NAME or tracker]",
    )(command)
    return click.option(
        "--brokers",
        metavar="HOST:PORT,...",
        help="Kafka brokers.  [default: TRACKER_BROKERS or localhost:9092]",
    )(command)


def settings_of(brokers: str | None, name: str | None, **more: Any) -> Settings:
    """Read the settings; options that were given take precedence over the environment.

    Raises:
        SettingsError: a name is unknown or a value wrong.
    """
    given = {"brokers": brokers, "name": name, **more}
    return load_settings(None, **{key: value for key, value in given.items() if value is not None})


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
