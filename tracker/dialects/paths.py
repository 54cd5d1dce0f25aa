"""Paths: where in a record of another system a field stands."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from tracker.events.dialect import Fields
from tracker.events.names import nearest

Paths = str | list[str]
"""One path, or several of which the first that leads to a value counts."""

Step = str | int | tuple[str, str]
_SEGMENT = re.compile(r'(?:"([^"]+)"|([^.\[\]"]+))((?:\[[^\]]*\])*)(?:\.|$)')


class FieldPath:
    """One path, taken apart: `a.b`, `a[0].b`, `a[key=x].b`, `"a.b".c`, `list[].b`, or `=text`.

    Attributes:
        text: as it was written.
        list_steps: steps to the list of items; None for a path without `[]`.

    Raises:
        ValueError: the text is no path.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.constant = text[1:] if text.startswith("=") else None
        self.list_steps: tuple[Step, ...] | None = None
        steps: list[Step] = []
        at = 0
        while self.constant is None and (at < len(text) or not steps):
            match = _SEGMENT.match(text, at)
            if match is None:
                raise ValueError(f"{text!r} is no path")
            steps.append(match[1] or match[2])
            for inner in re.findall(r"\[([^\]]*)\]", match[3]):
                key, sign, word = inner.partition("=")
                if not inner:
                    if self.list_steps is not None:
                        raise ValueError(f"{text!r} has [] twice; one list of items is expected")
                    self.list_steps, steps = tuple(steps), []
                elif sign:
                    steps.append((key, word))
                elif inner.isdigit():
                    steps.append(int(inner))
                else:
                    raise ValueError(f"{text!r}: [{inner}] is neither [], [NUMBER] nor [KEY=TEXT]")
            at = match.end()
        self._steps = tuple(steps)

    def find(self, record: Fields, item: Any) -> Any:
        """Return the value at the path; None if there is none, or an empty text.

        Args:
            record: the record, from which a path without `[]` leads.
            item: an element of the list, from which the part of a path after `[]` leads.
        """
        if self.constant is not None:
            return self.constant
        if self.list_steps is None:
            value = record.get(self.text)  # a table's column may have the path as its name
            if value is None:
                value = walk(record, self._steps)
        else:
            value = walk(item, self._steps)
        return None if value == "" else value

    def near(self, record: Fields, item: Any) -> str | None:
        """Return a name within two letters of the last one of the path, where that is expected.

        Names of fewer than six letters are too short to be told apart.
        """
        if not self._steps or not isinstance(last := self._steps[-1], str) or len(last) < 6:
            return None
        root = record if self.list_steps is None else item
        place = parsed_json(walk(root, self._steps[:-1]))
        if not isinstance(place, dict) or last in place:
            return None
        return next((name for name in place if nearest(name, (last,)) is not None), None)


def walk(value: Any, steps: Sequence[Step]) -> Any:
    """Return the value that steps lead to; None if one of them leads nowhere.

    A step is a key, a place in a list, or the key and text that an element of a list has to have.
    """
    for step in steps:
        value = parsed_json(value)
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        elif isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        elif isinstance(value, list):
            key, word = step
            value = next(
                (one for one in value if isinstance(one, dict) and one.get(key) == word), None
            )
        else:
            value = value.get(step[1]) if isinstance(value, dict) else None
        if value is None:
            return None
    return value


def parsed_json(value: Any) -> Any:
    """Return a value, parsed if it is JSON in a text, as columns of tables often are."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return value
    return value


def first_value(paths: Sequence[FieldPath], record: Fields, item: Any = None) -> Any:
    """Return the value of the first path that has one; None if none has."""
    for path in paths:
        value = path.find(record, item)
        if value is not None:
            return value
    return None


def with_list(value: Any, steps: Sequence[Step], places: Sequence[int]) -> Any:
    """Return a record with only some elements of its list, which is where the steps lead."""
    value = parsed_json(value)
    if not steps:
        return [value[place] for place in places] if isinstance(value, list) else value
    if isinstance(steps[0], str) and isinstance(value, dict):
        return value | {steps[0]: with_list(value.get(steps[0]), steps[1:], places)}
    return value
