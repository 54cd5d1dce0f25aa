"""Lines of files and of standard input, one event each."""

import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast


class InputError(Exception):
    """A file of events cannot be read."""


@dataclass(frozen=True)
class Line:
    """One line of input: where it stood, for messages, and its bytes."""

    place: str
    value: bytes


def read_lines(sources: Sequence[str]) -> Iterator[Line]:
    """Read JSON lines from files, in order; blank lines are passed over.

    Args:
        sources: paths, compressed where they end in `.gz`; `-` is standard input.

    Raises:
        InputError: a file is not there or its compression is damaged.
    """
    for source in sources:
        name = "standard input" if source == "-" else source
        try:
            with _open(source) as file:
                for number, value in enumerate(file, 1):
                    if value.strip():
                        yield Line(f"{name}, line {number}", value.strip())
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _open(source: str) -> IO[bytes]:
    if source == "-":
        return sys.stdin.buffer
    if source.endswith(".gz"):
        return cast(IO[bytes], gzip.open(source, "rb"))
    return Path(source).open("rb")
