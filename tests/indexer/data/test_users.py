"""Files of users and their attributes, good and bad."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.data.users import UserFileError, known_attributes, read_users
from tracker.encoder.user_encoder import EncoderConfig, attribute_code
from tracker.events.wire import hash_id

LINES = [
    {"user_id": "ada", "attributes": {"age": "30-44", "hobbies": ["chess", "tea"]}},
    {"user_id": "bo"},
    {"user_id": "ada", "attributes": {"age": "45-54"}},
]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_the_later_line_of_a_user_counts(tmp_path: Path) -> None:
    users = read_users([write(tmp_path / "users.jsonl", *map(json.dumps, LINES))])
    assert users.attributes == {"ada": {"age": "45-54"}, "bo": {}}
    assert users.note({"ada", "cy"}) == ""


def test_compressed_lines_and_parquet_say_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "users.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, LINES[:2])).encode()))
    columns = tmp_path / "users.parquet"
    pq.write_table(
        pa.table(
            {
                "user_id": ["ada", "bo"],
                "attributes": pa.array(
                    [{"age": "30-44", "home": None}, None],
                    pa.struct([("age", pa.string()), ("home", pa.string())]),
                ),
            }
        ),
        columns,
    )
    assert read_users([packed]).attributes["ada"]["hobbies"] == ["chess", "tea"]
    assert read_users([columns]).attributes == {"ada": {"age": "30-44"}, "bo": {}}


def test_bad_lines_are_left_out_and_the_first_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "users.jsonl", '{"user_id": 7.5}', json.dumps(LINES[0]), "{", "")
    users = read_users([path])
    assert set(users.attributes) == {"ada"}
    note = users.note({"ada"})
    assert note.startswith(f"2 lines left out, the first: {path}, line 1: user_id is the float 7.5")


def test_users_whom_no_event_names_are_said(tmp_path: Path) -> None:
    users = read_users([write(tmp_path / "users.jsonl", json.dumps(LINES[0]))])
    assert users.note({"else"}) == (
        "none of the 1 users is in the events; user_id must be the same in both"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("users.jsonl", "", "users.jsonl: no user; one JSON object per line is expected"),
        ("users.jsonl", "[]\n{", "none of 2 lines is a user: .*line 1: Expected `object`"),
        ("users.csv", "id,age\n7,40\n", "users.csv: no column user_id; there are id, age$"),
        ("users.parquet", "no", "users.parquet: not Parquet"),
        ("users.jsonl.gz", "\0", "users.jsonl.gz: not gzip"),
    ],
)
def test_a_file_without_users_is_refused(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserFileError, match=message):
        read_users([path])


def test_a_row_of_parquet_that_is_no_user_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "users.parquet"
    pq.write_table(pa.table({"user_id": ["ada", None]}), path)
    users = read_users([path])
    assert (set(users.attributes), users.left_out) == ({"ada"}, 1)


def test_users_are_known_by_the_attributes_that_an_encoder_has_met() -> None:
    config = EncoderConfig(attributes=(attribute_code("age", "45-54"), attribute_code("kid", "no")))
    users = {"ada": {"age": "45-54"}, "bo": {"age": "9"}, "cy": {"kid": "no", "age": "45-54"}}
    known = known_attributes(users, config)
    assert known.hashes.tolist() == sorted(hash_id(name) for name in ("ada", "cy"))
    asked = np.array([hash_id(name) for name in ("cy", "bo", "ada")], np.uint64)
    assert [sorted(row) for row in known.of(asked).tolist()] == [[1, 2], [0, 0], [0, 1]]
    assert known_attributes({}, config).of(asked).shape == (3, 0)
