"""Read users: id and categorical attributes, and their rows in an encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.data.input import read_structs
from tracker.encoder.tower_info import UserAttributes
from tracker.encoder.user_encoder import EncoderConfig, attribute_code
from tracker.events.lines import InputError
from tracker.events.wire import User, hash_id
from tracker.explained import Explained

Attributes = Mapping[str, str | float | bool | Sequence[str]]


class UserFileError(Explained, ValueError):
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
    try:
        for path in paths:
            _add_users(users, path)
    except InputError as error:
        raise UserFileError(str(error)) from error
    return users


def _add_users(users: Users, path: Path) -> None:
    """Add the users of a file, and count its lines that are not a user."""
    count = 0
    for place, user in read_structs(path, User):
        count += 1
        if isinstance(user, User):
            users.attributes[user.user_id] = user.attributes
            continue
        users.left_out += 1
        if not users.first_problem:
            users.first_problem = f"{place}: {user}"
    if not count:
        raise UserFileError(f"{path}: no user; one JSON object per line is expected, with user_id")
    if not users.attributes:
        raise UserFileError(
            f"{path}: none of {users.left_out} lines is a user: {users.first_problem}"
        )


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
