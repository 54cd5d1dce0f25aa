"""Users with categorical attributes, read from files, and their rows in an encoder."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.data.input import left_out_note, read_structs
from tracker.encoder.tower_info import UserAttributes
from tracker.encoder.user_encoder import EncoderConfig, attribute_code
from tracker.events.entries import Reading
from tracker.events.opening import InputError
from tracker.events.wire import User, hash_id
from tracker.explained import Explained

Attributes = Mapping[str, str | float | bool | Sequence[str]]


class UserFileError(Explained, ValueError):
    """A file of users cannot be used; the message names the file and the reason."""


@dataclass(slots=True)
class Users:
    """Attributes of users; of a user who comes twice the later line counts.

    Attributes:
        attributes: attributes by user id.
        left_out: number of lines that are not a user.
        first_problem: place and reason of the first of them, or "".
        attributes_left_out: number of attributes that cannot be kept, by name.
        reading: facts about the files.
    """

    attributes: dict[str, Attributes] = field(default_factory=dict)
    left_out: int = 0
    first_problem: str = ""
    attributes_left_out: Counter[str] = field(default_factory=Counter)
    reading: Reading = field(default_factory=Reading)

    def note(self, user_ids: set[str]) -> str:
        """Return a line about lines left out, and whether any user has events; or "".

        Args:
            user_ids: ids of the users in the events.
        """
        parts = []
        if self.left_out:
            parts.append(f"{self.left_out} lines left out, the first: {self.first_problem}")
        parts += self.reading.notes.lines(User.__struct_fields__)
        if self.attributes_left_out:
            parts.append(left_out_note(self.attributes_left_out))
        if self.attributes and not user_ids & self.attributes.keys():
            parts.append(
                f"none of the {len(self.attributes)} users is in the events; user_id must be the"
                " same in both"
            )
        return "; ".join(parts)


def read_users(paths: Sequence[Path]) -> Users:
    """Read files of users, of any format.

    A line that is not a user is left out and counted: attributes help, but are not required.

    Raises:
        UserFileError: a file does not exist or cannot be read, or none of its lines is a user.
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
    for place, user in read_structs(path, User, users.reading, users.attributes_left_out):
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
    """Yield the code of each value of a user's attributes, by name."""
    for name, value in sorted(attributes.items()):
        many = value if isinstance(value, list | tuple) else (value,)
        for one in many:
            yield attribute_code(name, str(one))


def attribute_rows(users: Sequence[Attributes], config: EncoderConfig) -> NDArray[np.int64]:
    """Return rows of users' attributes, (B, A) int64, 0 for none; A is the largest number per user.

    Attributes that the encoder does not know are left out.
    """
    row_of = {code: row for row, code in enumerate(config.attributes, 1)}
    lists = [[row_of[code] for code in attribute_codes(user) if code in row_of] for user in users]
    result = np.zeros((len(lists), max((len(rows) for rows in lists), default=0)), np.int64)
    for user, of_user in enumerate(lists):
        result[user, : len(of_user)] = of_user
    return result


def known_attributes(users: Mapping[str, Attributes], config: EncoderConfig) -> UserAttributes:
    """Return the attribute rows of all users who have an attribute that an encoder knows."""
    rows = attribute_rows(list(users.values()), config).astype(np.int32)
    hashes = np.array([hash_id(user) for user in users], np.uint64)
    some = np.flatnonzero(rows.any(axis=1))
    order = some[np.argsort(hashes[some])]
    return UserAttributes(hashes[order], rows[order])
