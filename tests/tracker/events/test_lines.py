"""Lines of JSON from files and standard input, whole and damaged."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from tracker.events.entries import read_lines
from tracker.events.lines import Line, numbered_lines
from tracker.events.opening import InputError


def test_files_are_read_in_order_blank_lines_passed_over(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_bytes(b"one\n\n  two  \n")
    packed.write_bytes(gzip.compress(b"three\n"))
    assert list(read_lines([str(plain), str(packed)])) == [
        Line(f"{plain}, line 1", b"one"),
        Line(f"{plain}, line 3", b"two"),
        Line(f"{packed}, line 1", b"three"),
    ]


def test_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    assert [line.place for line in read_lines(["-"])] == [
        "standard input, line 1",
        "standard input, line 2",
    ]


def damaged(path: Path) -> None:
    whole = gzip.compress(b"line\n" * 1000)
    path.write_bytes(whole[:12] + b"\xff\xff" + whole[14:])


def truncated(path: Path) -> None:
    path.write_bytes(gzip.compress(b"line\n" * 1000)[:-9])


def nothing(path: Path) -> None:
    pass


def no_gzip(path: Path) -> None:
    path.write_bytes(b"no\0text")


@pytest.mark.parametrize("make", [damaged, truncated, nothing, no_gzip])
def test_file_that_cannot_be_read_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "events.jsonl.gz"
    make(path)
    with pytest.raises(InputError, match=r"events\.jsonl\.gz: "):
        list(read_lines([str(path)]))


def test_a_long_line_is_cut_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"12345\n" + b"x" * 20 + b"\n" + b"12345\r\nlast")
    assert list(numbered_lines(str(path), 5)) == [
        (1, b"12345"),
        (2, b"xxxxxx"),  # one byte more than 5: too long
        (3, b"12345"),
        (4, b"last"),
    ]


def test_a_byte_order_mark_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n")
    assert list(numbered_lines(str(path))) == [(1, b"one"), (2, b"\xef\xbb\xbftwo")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_encoding_is_told_by_the_first_bytes_also_of_compressed_files(
    tmp_path: Path, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(pack('{"user_id": "zoë"}\r\n\r\n{"user_id": "b"}'.encode(encoding)))
    assert list(numbered_lines(str(path))) == [
        (1, '{"user_id": "zoë"}'.encode()),
        (3, b'{"user_id": "b"}'),
    ]


def test_windows_letters_are_taken_if_no_line_before_them_was_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"plain\n" + "zoë 5 €".encode("cp1252") + b"\n")
    assert list(numbered_lines(str(path))) == [(1, b"plain"), (2, "zoë 5 €".encode())]
    damaged = "zoë".encode() + b"\n" + "zoë".encode("cp1252") + b"\n"
    path.write_bytes(damaged)
    assert [line for _, line in numbered_lines(str(path))] == damaged.split()


def test_a_long_line_of_utf_8_is_cut_within_a_letter_and_is_still_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes("ëëëëëë\nzoë\n".encode())
    assert list(numbered_lines(str(path), 4)) == [
        (1, "ëëëëëë".encode()[:5]),
        (2, "zoë".encode()),
    ]
