"""Strings that stay JSON: read one by one or all at once, they are those that a parser finds."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker.items import texts as module
from tracker.items.texts import JsonStrings, Texts, joined

STRINGS = ["plain", 'quoted "one"', "naïve ☕", "line\nbreak\t\x1f", "back\\slash", "", "😀/"]

WRITERS: list[Callable[[list[str]], str]] = [
    lambda strings: msgspec.json.encode(strings).decode(),
    json.dumps,
    lambda strings: json.dumps(strings, indent=3, ensure_ascii=False) + " \r\n\t",
    lambda strings: "[" + ",".join(rf'"\/{json.dumps(one)[1:]}' for one in strings) + "]",
]


def pieces(texts: Texts) -> list[bytes]:
    return [
        texts.text[a:b].tobytes()
        for a, b in zip(texts.starts[:-1].tolist(), texts.starts[1:].tolist(), strict=True)
    ]


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernels run as Python."""
    for name, kernel in list(vars(module).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(module, name, kernel.py_func)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("compiled", [True, False])
def test_strings_are_those_that_a_parser_finds(
    write: Callable[[list[str]], str], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        plain(monkeypatch)
    for expected in (STRINGS, STRINGS[:1], []):
        content = write(expected)
        expected = json.loads(content)
        strings = JsonStrings(content.encode())
        assert (len(strings), list(strings)) == (len(expected), expected)
        assert [strings[row] for row in range(len(expected))] == expected
        assert pieces(strings.utf8()) == [one.encode() for one in expected]
        assert [json.loads(piece) for piece in pieces(strings.json())] == expected


def test_strings_of_our_own_files_are_the_json_that_our_encoder_writes() -> None:
    written = JsonStrings(msgspec.json.encode(STRINGS)).json()
    expected = joined([msgspec.json.encode(one) for one in STRINGS])
    np.testing.assert_array_equal(written.text, expected.text)
    np.testing.assert_array_equal(written.starts, expected.starts)


def test_strings_are_a_sequence_like_a_list() -> None:
    many = [f"item {n}" for n in range(10_000)]
    strings = JsonStrings(msgspec.json.encode(many))
    assert strings == many
    assert strings != many[1:]
    assert strings != 3
    assert (strings[-1], strings[4090:4100], strings[5:1]) == (many[-1], many[4090:4100], [])
    assert strings[7:100:30] == many[7:100:30]
    assert "item 77" in strings
    assert pickle.loads(pickle.dumps(strings)) == many
    with pytest.raises(IndexError):
        strings[10_000]


def parsed(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content, type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


BAD = [
    b"", b" ", b"[", b"]", b"{}", b"null", b'"a"', b'["a"', b'["a",', b'["a",]', b"[,]",
    b'["a" "b"]', b'["a"]]', b'["a"] x', b'["a', b'["a\n"]', b'["\\', b'["\\"]', b'["\\x"]',
    b'["\\u12"]', b'["\\u12g4"]', b'["\\ud800"]', b'["\\ud800x"]', b'["\\ud800\\n"]',
    b'["\\ud800\\u0041"]', b'["\\udc00"]', b'["\\ud800', b'["\xff"]', b'["\xed\xa0\x80"]', b"[1]",
    b'[["a"]]', b'["a", null]', b'["a",, "b"]', b"\xef\xbb\xbf[]",
]  # fmt: skip


@pytest.mark.parametrize("content", BAD)
@pytest.mark.parametrize("compiled", [True, False])
def test_anything_else_is_refused(
    content: bytes, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parsed(content) is None
    if not compiled:
        plain(monkeypatch)
    with pytest.raises(ValueError, match=r"no JSON array of strings \(byte \d+\)|not UTF-8"):
        JsonStrings(content)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=6), max_size=5), st.data())
def test_what_is_cut_or_altered_is_read_as_a_parser_reads_it(
    strings: list[str], data: st.DataObject
) -> None:
    content = bytearray(json.dumps(strings, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.sampled_from(b'"\\[],u0dD8 \nax\xc3\xff'))
    content = content[: data.draw(st.integers(0, len(content)))]
    try:
        found: Any = list(JsonStrings(bytes(content)))
    except ValueError:
        found = None
    assert found == parsed(bytes(content))
