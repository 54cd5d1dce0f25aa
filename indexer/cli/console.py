"""Output of all commands: progress, results, and failures in one line."""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from indexer.data.catalog import CatalogError
from tracker.artifact.versions import is_url, local_path
from tracker.explained import Explained

REFUSED = 1
RECALL_TOO_LOW = 3
BAD_ITEMS = 4
NOT_IMPROVED = 5

EPILOG = (
    "Exit codes: 0 success; 1 refused or failed; 2 wrong usage; 3 recall below --min-recall;"
    " 4 unusable items; 5 no improvement by fine-tuning."
)


@contextmanager
def encoding_bar() -> Iterator[Callable[[int], Callable[[int], None]]]:
    """Show a progress bar on stderr while texts are encoded, where somebody looks at it."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("encoding texts"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:

        def start(total: int) -> Callable[[int], None]:
            if not console.is_terminal:
                say(f"encoding {total} texts")
                return quarters("encoded", total)
            task = bar.add_task("", total=total)
            return lambda done: bar.advance(task, done)

        yield start


def quarters(title: str, total: int) -> Callable[[int], None]:
    """Return what is told how many more are done, and says on stderr when a quarter more is."""
    done = said = 0

    def told(more: int) -> None:
        nonlocal done, said
        done += more
        if (now := 4 * done // total) > said:
            say(f"{title} {done} of {total}")
            said = now

    return told


@contextmanager
def counting_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on stderr how much of a total is done; yield what is told the number done."""
    console = Console(stderr=True)
    with Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        if not console.is_terminal:
            click.echo(f"{title}: {total}", err=True)
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def failures() -> Iterator[None]:
    """Show an error that a person can put right as one line, and exit with its code."""
    try:
        yield
    except CatalogError as error:
        fail(str(error), BAD_ITEMS)
    except Explained as error:
        fail(str(error))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror or error}")


def fail(message: str, code: int = REFUSED) -> NoReturn:
    """Say in one line why it failed, and leave."""
    click.echo(f"indexer: {message}", err=True)
    sys.exit(code)


def check_root(root: str) -> None:
    """End the command where no version can be written, before any work is done for one."""
    if is_url(root):
        return
    folder = local_path(root).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        fail(f"{there}: not a folder; versions are written into {root}")
    if not os.access(there, os.W_OK | os.X_OK):
        fail(f"{there}: cannot be written; versions are written into {root}")


def check_file(path: Path | None) -> None:
    """End the command where a file cannot be written, before any work is done for it."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        fail(f"{folder}: no such folder; {path.name} is written into it")
    if path.is_dir():
        fail(f"{path}: a folder; a file is expected")
    if not os.access(path if path.exists() else folder, os.W_OK):
        fail(f"{path}: cannot be written")


def need(modules: Sequence[str], option: str) -> None:
    """End the command where an option needs a package that is not installed."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            fail(f"no module {name}: install the extra `train` for {option}")


def say(line: str) -> None:
    """Say on stderr how far it is, or what is done otherwise than asked for."""
    click.echo(line, err=True)


def print_json(value: object) -> None:
    """Print a result for programs."""
    click.echo(msgspec.json.encode(value).decode())
