"""Files as they come: folders of parts, compression, encodings, and formats told by looking."""

import bz2
import gzip
import io
import lzma
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, cast

from tracker.events.foreign import look_alikes
from tracker.explained import Explained

Format = Literal["lines", "array", "table", "parquet", "workbook"]
"""JSON lines, one JSON array, a table of text with a header (CSV, TSV), Parquet, or a workbook."""

STANDARD_INPUT = "-"

_HEAD_BYTES = 1 << 16
_LOOK_BYTES = 512
_COMPRESSED = {
    "gzip": (b"\x1f\x8b", (".gz", ".gzip")),
    "zstd": (b"\x28\xb5\x2f\xfd", (".zst", ".zstd")),
    "bzip2": (b"BZh", (".bz2",)),
    "xz": (b"\xfd7zXZ\x00", (".xz",)),
    "lz4": (b"\x04\x22\x4d\x18", (".lz4",)),
}
_FOREIGN = (
    (b"PK\x03\x04", (".zip", ".ods", ".xlsb"), "a ZIP archive, or a workbook other than .xlsx"),
    (b"\xd0\xcf\x11\xe0", (), "an old Excel workbook"),
    (b"Obj\x01", (".avro",), "Avro"),
    (b"ORC", (".orc",), "ORC"),
    (b"ARROW1", (".feather", ".arrow"), "an Arrow or Feather file"),
)
WORKBOOKS = (".xlsx", ".xlsm")
_IN_WORKBOOKS = (b"[Content_Types].xml", b"docProps/", b"xl/")
_NO_CONTROL = bytes(n for n in range(256) if n >= 32 or n in b"\t\n\r\f\x1b")
_NAME = re.compile(r"[\w .:/@#-]{0,64}")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


class InputError(Explained):
    """A file cannot be read; the message names the file and the reason."""


@dataclass
class Notes:
    """Facts about the files that were read, each said once.

    Attributes:
        unused: names of the fields and columns that are not used.
        remarks: other facts, such as another text encoding.
    """

    unused: dict[str, None] = field(default_factory=dict)
    remarks: dict[str, None] = field(default_factory=dict)

    def unused_names(self, expected: Collection[str]) -> list[str]:
        """Return the names not used, sorted, without those of `expected` and of pandas' index."""
        return sorted(
            name for name in self.unused if name not in expected and not is_pandas_index(name)
        )

    def lines(self, expected: Collection[str]) -> list[str]:
        """Return the remarks, and one line that names up to ten fields that are not used."""
        names = self.unused_names(expected)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        alike = "".join(f"; {text}" for text in look_alikes(Counter(names)))
        unused = [f"fields not used: {', '.join(names[:10])}{more}{alike}"] if names else []
        return [*self.remarks, *unused]


def is_pandas_index(name: str) -> bool:
    """Return whether a column is an index without a name that pandas wrote.

    >>> [is_pandas_index(name) for name in ("__index_level_0__", "Unnamed: 0", "", "item_id")]
    [True, True, True, False]
    """
    return not name or name.startswith(("__index_level_", "Unnamed: "))


def name_of(source: str) -> str:
    """Return the name of a source for messages."""
    return "standard input" if source == STANDARD_INPUT else source


def part_files(source: str) -> list[str]:
    """Return the files of a source: of a folder all data files, by name, otherwise itself.

    Files and folders whose names begin with `_` or `.` are left out, as Spark and Hive do.

    Raises:
        InputError: the folder holds no data file.
    """
    if source == STANDARD_INPUT or not os.path.isdir(source):
        return [source]
    paths = []
    for folder, folders, files in os.walk(source):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        paths += [os.path.join(folder, name) for name in files if not name.startswith(("_", "."))]
    if not paths:
        raise InputError(f"{source}: the folder has no data file; part files are expected in it")
    return sorted(paths)


def partition_values(source: str) -> dict[str, str]:
    """Return the columns that Spark and Hive keep in the names of folders.

    >>> partition_values("events/kind=view/day=2024-05-01/part-0.parquet")
    {'kind': 'view', 'day': '2024-05-01'}
    """
    pairs = [part.partition("=") for part in Path(source).parts[:-1]]
    return {name: value for name, sign, value in pairs if sign and name and value != _HIVE_NULL}


@contextmanager
def opened(source: str) -> Iterator[tuple[IO[bytes], Format, bytes]]:
    """Open a file, and yield its bytes without compression, its format, and its first bytes.

    Compression and format are told by the first bytes; the name counts where they say nothing.

    Args:
        source: a path; `-` is standard input.

    Raises:
        InputError: the file does not exist, its compression is damaged, or its format cannot be
            read here.
    """
    name = name_of(source)
    try:
        with _raw(source) as raw:
            plain = cast(io.BufferedReader, _decompressed(raw, source))
            head = plain.peek(_HEAD_BYTES)[:_HEAD_BYTES]
            yield plain, _format_of(source, head), head
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        why = str(error).rstrip(".")
        raise InputError(f"{name}: its compression is damaged, or cut short: {why}") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise InputError(f"{name}: cannot be read: {reason}") from error


@contextmanager
def _raw(source: str) -> Iterator[io.BufferedReader]:
    if source == STANDARD_INPUT:
        yield cast(io.BufferedReader, sys.stdin.buffer)
        return
    with open(source, "rb", _HEAD_BYTES) as file:
        yield cast(io.BufferedReader, file)


def _decompressed(raw: io.BufferedReader, source: str) -> IO[bytes]:
    if not hasattr(raw, "peek"):
        raw = io.BufferedReader(cast(io.RawIOBase, raw), _HEAD_BYTES)
    head = raw.peek(_LOOK_BYTES)[:_LOOK_BYTES]
    suffix = Path(source).suffix.lower()
    kind = next((name for name, (magic, _) in _COMPRESSED.items() if head.startswith(magic)), "")
    kind = kind or next((name for name, (_, ends) in _COMPRESSED.items() if suffix in ends), "")
    if kind and head and not head.startswith(_COMPRESSED[kind][0]):
        if _is_text(head):
            return raw  # the name says otherwise
        raise InputError(f"{name_of(source)}: not {kind}, or cut short")
    if kind == "gzip":
        return _buffered(gzip.GzipFile(fileobj=raw))
    if kind == "bzip2":
        return _buffered(bz2.BZ2File(raw))
    if kind == "xz":
        return _buffered(lzma.LZMAFile(raw))
    if kind in ("zstd", "lz4"):
        import pyarrow as pa

        return _buffered(pa.CompressedInputStream(pa.PythonFile(raw, "r"), kind))
    return raw


def _buffered(stream: object) -> IO[bytes]:
    return cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, stream), _HEAD_BYTES))


def _format_of(source: str, head: bytes) -> Format:
    """Return the format of a file by its first bytes, and by its name if they do not tell.

    Raises:
        InputError: it is one that is not read here; the message has the remedy.
    """
    suffixes = [suffix.lower() for suffix in Path(source).suffixes[-2:]]
    if head.startswith(b"PAR1") or (suffixes and suffixes[-1] in (".parquet", ".pq")):
        return "parquet"
    if _is_workbook(suffixes, head):
        return "workbook"
    for magic, ends, what in _FOREIGN:
        if head.startswith(magic) or (suffixes and suffixes[-1] in ends and head):
            raise InputError(
                f"{name_of(source)}: {what}; JSON lines, CSV or Parquet are expected: save it as"
                " CSV (UTF-8) or Parquet"
            )
    if any(head.startswith(magic) for magic, _ in _COMPRESSED.values()):
        raise InputError(f"{name_of(source)}: compressed twice; decompress it once")
    if encoding_of(head) == "utf-8" and not _is_text(head):
        raise InputError(
            f"{name_of(source)}: no text, and none of the formats that are read here: JSON lines,"
            " CSV, Parquet or a workbook are expected"
        )
    text = decoded_head(head).lstrip()
    first = text[:1]
    if first == "{":
        return "lines"
    if first == "[":
        return "array"
    if {".csv", ".tsv", ".tab"} & set(suffixes):
        return "table"
    header = text.splitlines()[0] if text else ""
    delimiter = delimiter_of(header)
    cells = header.split(delimiter) if delimiter else []
    names = [cell.strip().strip('"') for cell in cells]
    is_header = len(cells) > 1 and all(_NAME.fullmatch(cell) for cell in names)
    return "table" if is_header and any(name[:1].isalpha() for name in names) else "lines"


def _is_text(head: bytes) -> bool:
    """Return whether bytes can be a text, which has few control characters."""
    some = head[:_LOOK_BYTES]
    return 20 * len(some.translate(None, _NO_CONTROL)) <= len(some)


def _is_workbook(suffixes: list[str], head: bytes) -> bool:
    """Return whether a file is a workbook, by its first bytes: they name its parts."""
    is_named = bool({*suffixes} & {*WORKBOOKS})
    if not head.startswith(b"PK\x03\x04"):
        return is_named and not head
    return is_named or (".xlsb" not in suffixes and any(name in head for name in _IN_WORKBOOKS))


def delimiter_of(header: str) -> str:
    r"""Return the character between the cells of a header, "" if there is none.

    >>> [delimiter_of(text) for text in ("user_id,item_id", "a;b", "a\tb", "user_id")]
    [',', ';', '\t', '']
    """
    counts = {mark: header.count(mark) for mark in (",", ";", "\t", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] else ""


def encoding_of(head: bytes) -> str:
    """Return the encoding of a text by its first bytes: one of UTF-16, UTF-32, or UTF-8.

    >>> [encoding_of(text.encode(name)) for text in ("ab", "ä") for name in ("utf-16", "utf-8")]
    ['utf-16', 'utf-8', 'utf-16', 'utf-8']
    >>> encoding_of("user_id,item_id".encode("utf-16-le"))
    'utf-16-le'
    """
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    some = head[: min(len(head), 512) // 2 * 2]
    for name, zeros, letters in (
        ("utf-16-le", some[1::2], some[::2]),
        ("utf-16-be", some[::2], some[1::2]),
    ):
        if len(some) >= 4 and zeros.count(0) > 0.7 * len(zeros) and not letters.count(0):
            return name
    return "utf-8"


def decoded_head(head: bytes) -> str:
    """Return the first letters of a text, for a look at its format."""
    encoding = encoding_of(head)
    return head.decode("utf-8-sig" if encoding == "utf-8" else encoding, "replace")
