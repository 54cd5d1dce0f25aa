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
    """Show on stderr the progress of encoding texts; without a terminal, a line per quarter.

    Yields a function that starts the bar for a number of texts, and returns a function to call
    with the number of texts just done.
    """
    with _bar("encoding texts") as (bar, is_terminal):

        def start(total: int) -> Callable[[int], None]:
            if not is_terminal:
                say(f"encoding {total} texts")
                return quarters("encoded", total)
            task = bar.add_task("", total=total)
            return lambda more: bar.advance(task, more)

        yield start


@contextmanager
def counting_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show on stderr the progress towards a total; without a terminal, the total only.

    Yields a function to call with the number that is complete.
    """
    with _bar(title) as (bar, is_terminal):
        if not is_terminal:
            say(f"{title}: {total}")
        task = bar.add_task("", total=total)
        yield lambda count: bar.update(task, completed=count)


@contextmanager
def _bar(title: str) -> Iterator[tuple[Progress, bool]]:
    """Show a progress bar on stderr; yield it, and whether stderr is a terminal."""
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
        yield bar, console.is_terminal


def quarters(title: str, total: int) -> Callable[[int], None]:
    """Return a function that prints a line to stderr per quarter of a total.

    It is called with the number just done.
    """
    count = quarter = 0

    def advance(more: int) -> None:
        nonlocal count, quarter
        count += more
        if (now := 4 * count // total) > quarter:
            say(f"{title} {count} of {total}")
            quarter = now

    return advance


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
    """Print the reason of a failure on one line to stderr, and exit."""
    click.echo(f"indexer: {message}", err=True)
    sys.exit(code)


def check_root(root: str) -> None:
    """Exit if no version can be written to a root, before any work is done for one."""
    if is_url(root):
        return
    folder = local_path(root).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        fail(f"{there}: not a folder; versions are written into {root}")
    if not os.access(there, os.W_OK | os.X_OK):
        fail(f"{there}: cannot be written; versions are written into {root}")


def check_file(path: Path | None) -> None:
    """Exit if a file cannot be written, before any work is done for it; None is no file."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        fail(f"{folder}: no such folder; {path.name} is written into it")
    if path.is_dir():
        fail(f"{path}: a folder; a file is expected")
    if not os.access(path if path.exists() else folder, os.W_OK):
        fail(f"{path}: cannot be written")


def need(modules: Sequence[str], option: str, extra: str = "train") -> None:
    """Exit if an option needs a package that is not installed."""
    for name in modules:
        if importlib.util.find_spec(name) is None:
            fail(f"no module {name}: install the extra `{extra}` for {option}")


def say(line: str) -> None:
    """Print a line about progress, or about a deviation from the request, to stderr."""
    click.echo(line, err=True)


def print_json(value: object) -> None:
    """Print a result as one JSON object, for programs."""
    click.echo(msgspec.json.encode(value).decode())
