"""Lines of text and of JSON from files, also compressed, and from standard input."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from tracker.events.opening import Notes, decoded_head, encoding_of, name_of, opened

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WINDOWS = "cp1252"


@dataclass(frozen=True)
class Line:
    """One line of input: its place, for messages, and its bytes."""

    place: str
    value: bytes


def numbered_lines(source: str, max_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield the number, from 1, and the bytes of each line that is not blank, as UTF-8.

    White space around a line and a byte order mark before the first one are removed.

    Args:
        source: a path; `-` is standard input. It may be compressed.
        max_bytes: a longer line is yielded cut to `max_bytes + 1` bytes, so that no line fills the
            memory; None for no limit.

    Raises:
        InputError: the file does not exist or its compression is damaged.
    """
    with opened(source) as (file, _, head):
        for number, value in enumerate(utf8_lines(file, head, name_of(source), max_bytes), 1):
            if value := value.strip():
                yield number, value


def utf8_lines(
    file: IO[bytes],
    head: bytes,
    name: str,
    max_bytes: int | None = None,
    notes: Notes | None = None,
) -> Iterator[bytes]:
    """Yield the lines of an open file as UTF-8, with their ends, without a byte order mark.

    Lines end at a line feed; at a carriage return if the first bytes have no line feed.
    UTF-16 and UTF-32 are told by the first bytes. Text is taken for Windows-1252 from its first
    line on that is not UTF-8, unless a line before it had other letters than ASCII in UTF-8.

    Args:
        file: the bytes, without compression.
        head: the first of them, for a look at the encoding.
        name: name of the file, for notes.
        max_bytes: a longer line is cut to `max_bytes + 1` bytes; None for no limit.
        notes: if given, another encoding than UTF-8 is noted.
    """
    encoding = encoding_of(head)
    most = None if max_bytes is None else max_bytes + 1
    if encoding != "utf-8":
        _note(notes, name, encoding.upper())
        text = codecs.getreader(encoding)(file, "replace")
        end = _line_end(decoded_head(head).encode(errors="replace")).decode()
        yield from _transcoded(text, most, end)
        return
    certain = False
    windows = False
    lines: Iterator[bytes] = iter(file) if most is None else _cut_lines(file, most)
    if _line_end(head) == b"\r":
        lines = _transcoded(codecs.getreader("latin-1")(file), most, "\r", "latin-1")
    for number, line in enumerate(lines):
        if number == 0:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.isascii():
            yield line
            continue
        if not windows and not certain:
            certain = _is_utf8(line, most)
            windows = not certain
            if windows:
                _note(notes, name, "Windows-1252")
        yield _from_windows(line) if windows else line


def _line_end(head: bytes) -> bytes:
    """Return the end of the lines of a text that begins with some bytes."""
    return b"\r" if b"\r" in head and b"\n" not in head else b"\n"


def _transcoded(
    text: codecs.StreamReader, most: int | None, end: str, encoding: str = "utf-8"
) -> Iterator[bytes]:
    """Yield the lines of a text in an encoding, each with a line feed; they stand before `end`."""
    rest = ""
    while block := text.read(1 << 16):
        *whole, rest = (rest + block).split(end)
        for line in whole:
            yield (line + "\n").encode(encoding, "replace")[:most]
        if most is not None:
            rest = rest[: most + 1]
    if rest:
        yield rest.encode(encoding, "replace")[:most]


def _is_utf8(line: bytes, most: int | None) -> bool:
    """Return whether a line is UTF-8; a cut line may end within a letter."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line, most is None or len(line) < most)
    except UnicodeDecodeError:
        return False
    return True


def _from_windows(line: bytes) -> bytes:
    """Return a line of Windows-1252 as UTF-8; unchanged if it cannot be that either."""
    try:
        return line.decode(_WINDOWS).encode()
    except UnicodeDecodeError:
        return line


def _note(notes: Notes | None, name: str, encoding: str) -> None:
    if notes is not None:
        notes.remarks[f"{name}: read as {encoding}, not UTF-8"] = None


def _cut_lines(file: IO[bytes], most: int) -> Iterator[bytes]:
    """Yield the first `most` bytes of each line."""
    while line := file.readline(most + 1):
        yield line[:most]
        while line and not line.endswith(b"\n"):
            line = file.readline(most)
