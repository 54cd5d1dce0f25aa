"""Lines of JSON from files, also gzip, and from standard input."""

import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from tracker.explained import Explained

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class InputError(Explained):
    """A file cannot be read; the message names the file and the reason."""


@dataclass(frozen=True)
class Line:
    """One line of input: its place, for messages, and its bytes."""

    place: str
    value: bytes


def read_lines(sources: Sequence[str]) -> Iterator[Line]:
    """Read JSON lines from files, in order; blank lines are skipped.

    Args:
        sources: paths, compressed if they end in `.gz`; `-` is standard input.

    Raises:
        InputError: a file does not exist or its compression is damaged.
    """
    for source in sources:
        name = "standard input" if source == "-" else source
        for number, value in numbered_lines(source):
            yield Line(f"{name}, line {number}", value)


def numbered_lines(source: str, max_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the bytes of each line that is not blank.

    White space around a line and a byte order mark before the first one are removed.

    Args:
        source: a path, compressed if it ends in `.gz`; `-` is standard input.
        max_bytes: a longer line is yielded cut to `max_bytes + 1` bytes, so that no line fills the
            memory; None for no limit.

    Raises:
        InputError: the file does not exist or its compression is damaged.
    """
    name = "standard input" if source == "-" else source
    try:
        with _open(source) as file:
            lines = file if max_bytes is None else _cut_lines(file, max_bytes + 1)
            for number, value in enumerate(lines, 1):
                if number == 1:
                    value = value.removeprefix(_BYTE_ORDER_MARK)
                if value := value.strip():
                    yield number, value
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}: not gzip, or cut short: {error}") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error


def _cut_lines(file: IO[bytes], most: int) -> Iterator[bytes]:
    """Yield the first `most` bytes of each line."""
    while line := file.readline(most + 1):
        yield line[:most]
        while line and not line.endswith(b"\n"):
            line = file.readline(most)


def _open(source: str) -> IO[bytes]:
    if source == "-":
        return sys.stdin.buffer
    path = Path(source)
    if path.suffix.lower() == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")
