"""Many texts in one array: pieces for kernels, and strings that stay JSON until one is read."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tracker.kernels.native import copy_bytes, native

Array = NDArray[Any]

_BLOCK = 4096

_BETWEEN = b", \t\n\r"
"""What may stand between a string of a JSON array and the next."""

_decode_string = msgspec.json.Decoder(str).decode

_TAB, _NEWLINE, _RETURN, _SPACE = 9, 10, 13, 32

_QUOTE, _COMMA, _BACKSLASH, _OPEN, _CLOSE = 34, 44, 92, 91, 93

_ESCAPED = np.zeros(256, np.uint8)
"""The byte that a backslash and a letter stand for; 0 for no such escape."""
for _letter, _byte in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_letter] = _byte

_LETTER_U = ord("u")


class Texts(NamedTuple):
    """Pieces of text, one after the other; piece i is text[starts[i] : starts[i + 1]]."""

    text: NDArray[np.uint8]
    starts: NDArray[np.int64]


def joined(parts: Sequence[bytes]) -> Texts:
    """Return pieces as one array."""
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    return Texts(np.frombuffer(b"".join(parts), np.uint8), starts)


class JsonStrings(Sequence[str]):
    """The strings of a JSON array, which stay as they are in it until one is read.

    A list of a million strings takes 70 MB, and making and freeing it keeps the interpreter's lock
    from all other threads. This is made by native code.

    Args:
        content: a JSON array of strings.

    Raises:
        ValueError: it is anything else, or not UTF-8.

    >>> strings = JsonStrings(b'["one", "two", "three"]')
    >>> strings[1], len(strings), strings[-2:]
    ('two', 3, ['two', 'three'])
    """

    def __init__(self, content: bytes | memoryview) -> None:
        self._content = np.frombuffer(content, np.uint8)
        self._bytes = self._content.data
        count = _find_strings(self._content, np.zeros(0, np.int64))
        if count < 0:
            raise ValueError(f"no JSON array of strings (byte {-1 - count})")
        whole = np.array([0, len(self._content)], np.int64)
        try:
            pa.LargeStringArray.from_buffers(
                1, pa.py_buffer(whole), pa.py_buffer(self._content)
            ).validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError("strings are not UTF-8") from error
        self._starts = np.empty(count + 1, np.int64)
        _find_strings(self._content, self._starts)

    def __len__(self) -> int:
        """Return the number of strings."""
        return len(self._starts) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return one of the strings, or a list of some."""
        rows = range(len(self))[place]
        if isinstance(rows, int):
            part = self._bytes[self._starts.item(rows) : self._starts.item(rows + 1)]
            return _decode_string(bytes(part).rstrip(_BETWEEN))
        if rows.step == 1:
            return self._decoded(rows.start, rows.stop)
        return [self._decoded(row, row + 1)[0] for row in rows]

    def __iter__(self) -> Iterator[str]:
        """Yield all strings; some thousand are decoded at a time."""
        for start in range(0, len(self), _BLOCK):
            yield from self._decoded(start, min(start + _BLOCK, len(self)))

    def __eq__(self, other: object) -> bool:
        """Return whether the others are the same strings."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a copy in another process is made."""
        return type(self), (self._content.tobytes(),)

    def json(self) -> Texts:
        """Return each string as JSON, in its quotes."""
        return self._copied(False)

    def utf8(self) -> Texts:
        """Return each string as UTF-8."""
        return self._copied(True)

    def _decoded(self, start: int, stop: int) -> list[str]:
        """Return strings from `start` on and before `stop`."""
        part = self._content[self._starts[start] : self._starts[stop]].tobytes()
        return msgspec.json.decode(b"[" + part.rstrip(_BETWEEN) + b"]", type=list[str])

    def _copied(self, plain: bool) -> Texts:
        starts = np.zeros(len(self) + 1, np.int64)
        text = np.empty(len(self._content), np.uint8)
        _copy_strings(self._content, self._starts, plain, text, starts)
        return Texts(text[: starts[-1]].copy(), starts)


@native
def _skip_space(content: Array, at: int) -> int:
    while at < len(content) and (
        content[at] == _SPACE
        or content[at] == _NEWLINE
        or content[at] == _TAB
        or content[at] == _RETURN
    ):
        at += 1
    return at


@native
def _hexadecimal(content: Array, at: int) -> int:
    """Return the number of four hexadecimal digits at a place; -1 if they are not there."""
    number = 0
    for i in range(at, at + 4):
        digit = int(content[i]) if i < len(content) else 0
        if 48 <= digit <= 57:
            number = 16 * number + digit - 48
        elif 65 <= digit & ~32 <= 70:
            number = 16 * number + (digit & ~32) - 55
        else:
            return -1
    return number


@native
def _escape(content: Array, at: int) -> tuple[int, int]:
    """Return the character that a backslash at a place begins, -1 for none, and where it ends."""
    letter = int(content[at + 1]) if at + 1 < len(content) else 0
    if letter != _LETTER_U:
        byte = int(_ESCAPED[letter])
        return (byte if byte else -1), at + 2
    code, at = _hexadecimal(content, at + 2), at + 6
    if code < 0xD800 or code > 0xDFFF:
        return code, at
    # Of a character beyond 16 bits UTF-16 has two halves, the high one first.
    if code > 0xDBFF or at + 1 >= len(content):
        return -1, at
    if content[at] != _BACKSLASH or content[at + 1] != _LETTER_U:
        return -1, at
    low = _hexadecimal(content, at + 2)
    if low < 0xDC00 or low > 0xDFFF:
        return -1, at
    return 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00, at + 6


@native
def _string_end(content: Array, at: int) -> int:
    """Return the place after the string that begins at a place, or -1 - the place of a fault."""
    at += 1
    while at < len(content):
        byte = content[at]
        if byte == _QUOTE:
            return at + 1
        if byte < _SPACE:
            return -1 - at
        if byte == _BACKSLASH:
            code, end = _escape(content, at)
            if code < 0:
                return -1 - at
            at = end
        else:
            at += 1
    return -1 - at


@native
def _find_strings(content: Array, starts: Array) -> int:
    """Find the strings of a JSON array.

    Args:
        content: bytes.
        starts: (N + 1,) the begin of each, and at last that of the bracket after them, are written
            here; if it is empty, nothing is.

    Returns:
        N; -1 - the place of the first byte that is of no such array.
    """
    at, n = _skip_space(content, 0), 0
    if at == len(content) or content[at] != _OPEN:
        return -1 - at
    at = _skip_space(content, at + 1)
    is_first = True
    while at < len(content) and not (is_first and content[at] == _CLOSE):
        if content[at] != _QUOTE:
            return -1 - at
        if n < len(starts):
            starts[n] = at
        n += 1
        at = _string_end(content, at)
        if at < 0:
            return at
        at = _skip_space(content, at)
        if at == len(content) or content[at] != _COMMA:
            break
        at = _skip_space(content, at + 1)
        is_first = False
    if at == len(content) or content[at] != _CLOSE:
        return -1 - at
    if n < len(starts):
        starts[n] = at
    at = _skip_space(content, at + 1)
    return n if at == len(content) else -1 - at


@native
def _put_character(code: int, out: Array, at: int) -> int:
    """Write a character as UTF-8; return the place after it."""
    if code < 0x80:
        out[at] = code
        return at + 1
    count = 1 if code < 0x800 else 2 if code < 0x10000 else 3
    for i in range(count, 0, -1):
        out[at + i] = 0x80 | (code & 0x3F)
        code >>= 6
    out[at] = (0xF80 >> count) & 0xFF | code
    return at + count + 1


@native
def _copy_strings(content: Array, begins: Array, plain: bool, text: Array, starts: Array) -> None:
    """Copy the strings that `_find_strings` has found: as JSON with their quotes, or plain."""
    out = 0
    for i in range(len(begins) - 1):
        begin = begins[i]
        end = _string_end(content, begin)
        if not plain:
            copy_bytes(text, out, content, begin, end - begin)
            out += end - begin
        else:
            at = begin + 1
            while at < end - 1:
                if content[at] == _BACKSLASH:
                    code, at = _escape(content, at)
                    out = _put_character(code, text, out)
                else:
                    text[out] = content[at]
                    out += 1
                    at += 1
        starts[i + 1] = out
