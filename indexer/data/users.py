"""Read users: id and categorical attributes, and their rows in an encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from tracker.encoder.tower_info import UserAttributes
from tracker.encoder.user_encoder import EncoderConfig, attribute_code
from tracker.events.lines import InputError, read_lines
from tracker.events.wire import User, hash_id

Attributes = Mapping[str, str | float | bool | Sequence[str]]

_BATCH = 8192


class UserFileError(ValueError):
    """A file of users cannot be used; the message names the file and what is wrong."""


@dataclass(slots=True)
class Users:
    """Attributes by user id; of a user who comes twice the later line counts.

    `left_out` lines could not be used; `first_problem` says where the first of them is and why.
    """

    attributes: dict[str, Attributes] = field(default_factory=dict)
    left_out: int = 0
    first_problem: str = ""

    def note(self, known: set[str]) -> str:
        """Say in a line what was left out, and how many users are those of the events; or ""."""
        parts = []
        if self.left_out:
            parts.append(f"{self.left_out} lines left out, the first: {self.first_problem}")
        met = len(known & self.attributes.keys())
        if self.attributes and not met:
            parts.append(
                f"none of the {len(self.attributes)} users is in the events; user_id must be the"
                " same in both"
            )
        return "; ".join(parts)


def read_users(paths: Sequence[Path]) -> Users:
    """Read files of users, JSON lines (also `.gz`) or Parquet with the same fields.

    A line that is no user is left out and counted: attributes help, and are not needed.

    Raises:
        UserFileError: a file is not there or not of its kind, or none of its lines is a user.
    """
    users = Users()
    for path in paths:
        before = len(users.attributes), users.left_out
        for place, found in _records(path):
            if isinstance(found, User):
                users.attributes[found.user_id] = found.attributes
                continue
            users.left_out += 1
            if not users.first_problem:
                users.first_problem = f"{place}: {found}"
        if (len(users.attributes), users.left_out - before[1]) == (before[0], 0):
            raise UserFileError(
                f"{path}: no user; one JSON object a line is expected, with user_id"
            )
        if not users.attributes:
            raise UserFileError(
                f"{path}: none of {users.left_out} lines is a user: {users.first_problem}"
            )
    return users


def attribute_codes(attributes: Attributes) -> Iterator[int]:
    """Yield the code of each value of a user's attributes."""
    for name, value in sorted(attributes.items()):
        many = value if isinstance(value, list | tuple) else (value,)
        for one in many:
            yield attribute_code(name, str(one))


def attribute_rows(users: Sequence[Attributes], config: EncoderConfig) -> NDArray[np.int64]:
    """Return (B, A) rows of users' attributes, 0 for none; A is that of the user with most."""
    known = {code: row for row, code in enumerate(config.attributes, 1)}
    found = [[known[code] for code in attribute_codes(user) if code in known] for user in users]
    result = np.zeros((len(found), max((len(rows) for rows in found), default=0)), np.int64)
    for user, of_user in enumerate(found):
        result[user, : len(of_user)] = of_user
    return result


def known_attributes(users: Mapping[str, Attributes], config: EncoderConfig) -> UserAttributes:
    """Return the rows of all users of whom an attribute is known to an encoder."""
    rows = attribute_rows(list(users.values()), config).astype(np.int32)
    hashes = np.array([hash_id(user) for user in users], np.uint64)
    some = np.flatnonzero(rows.any(axis=1))
    order = some[np.argsort(hashes[some])]
    return UserAttributes(hashes[order], rows[order])


def _records(path: Path) -> Iterator[tuple[str, User | str]]:
    """Yield each record's place with its user, or with what is wrong with it."""
    if path.suffix.lower() in (".parquet", ".pq"):
        yield from _rows(path)
        return
    decoder = msgspec.json.Decoder(User)
    try:
        for line in read_lines([str(path)]):
            try:
                yield line.place, decoder.decode(line.value)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield line.place, str(error)
    except InputError as error:
        raise UserFileError(str(error)) from error


def _rows(path: Path) -> Iterator[tuple[str, User | str]]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield f"{path}, row {number}", msgspec.convert(_given(row), User)
                    except msgspec.ValidationError as error:
                        yield f"{path}, row {number}", str(error)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserFileError(f"{path}: not a Parquet file of users: {error}") from error


def _given(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row of Parquet says: its nulls mean nothing, its maps are lists of pairs."""
    fields = {name: value for name, value in row.items() if value is not None}
    given = fields.get("attributes")
    if given is not None:
        pairs = given.items() if isinstance(given, dict) else given
        fields["attributes"] = {name: value for name, value in pairs if value is not None}
    return fields
