"""Input of the demonstration: catalogue, events, and the user whose story is told."""

import importlib.resources
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from tracker.events.dialect import records_in
from tracker.events.entries import event_reading, read_lines
from tracker.events.lines import Line
from tracker.events.opening import InputError
from tracker.events.rating_scale import rating_scale
from tracker.events.times import seconds
from tracker.events.wire import RejectedEventError, User, decode_event, encode_event

STORY_EVENTS = 5
STORY_AFTER = 5
"""Events that a user has before the story, if there is such a user."""


class _Titled(msgspec.Struct):
    """The fields of an item that people read."""

    item_id: str
    title: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class DemoInput:
    """Events in file order, those of the story apart.

    `bulk` are all events but the story's; `story` are the last of `user_id`, one to five. `bad`
    lines are not events and are skipped. `titles` are names of items by id.
    """

    items: list[str]
    bulk: list[Line]
    story: list[Line]
    user_id: str
    attributes: dict[str, object]
    titles: dict[str, str]
    rating_scale: tuple[float, float]
    bad: list[str]

    @property
    def events(self) -> int:
        """The number of events."""
        return len(self.bulk) + len(self.story)

    def paced(self, count: int) -> Iterator[Line]:
        """Yield copies of the last events, again and again, as events of now.

        Copies have no `event_id`, or they would be recognised as repeats, and all the latest
        timestamp, or they would move no interest; retractions are left out.
        """
        events = (decode_event(line.value) for line in self.bulk[-count:])
        actions = [event for event in events if event.retracts is None]
        latest = max((seconds(event.timestamp or 0.0) for event in actions), default=0.0)
        for event in itertools.islice(itertools.cycle(actions), count):
            copy = msgspec.structs.replace(event, event_id=None, timestamp=latest)
            yield Line("paced pass", encode_event(copy))


def shipped(name: str) -> str:
    """Return the path of a file of the invented shop that comes with the package."""
    return str(importlib.resources.files("tracker") / "demo_data" / name)


def load_input(
    items: Sequence[str], events: Sequence[str], users: str | None, limit: int | None
) -> DemoInput:
    """Read the files of a demonstration.

    The story is that of the user of the last event who has enough events before it; held back are
    that user's last events, at most five and at most half.

    Args:
        items: catalogue files.
        events: files of events, in time order.
        users: a file of users, for their attributes.
        limit: maximum number of events.

    Raises:
        InputError: a file cannot be read, or there is no event in them.
    """
    lines: list[Line] = []
    owners: list[str] = []
    bad: list[str] = []
    ratings: list[float] = []
    for line in records_in(read_lines(events, event_reading())):
        if limit is not None and len(lines) >= limit:
            break
        try:
            event = decode_event(line.value)
        except RejectedEventError as error:
            bad.append(f"{line.place}: {error.reason}: {error}")
            continue
        if event.kind == "rate" and event.value is not None:
            ratings.append(event.value)
        lines.append(line)
        owners.append(event.user_id)
    if not lines:
        raise InputError(f"no event in {', '.join(events)}")
    user_id, story = _story(owners)
    of_story = set(story)
    return DemoInput(
        list(items),
        [line for number, line in enumerate(lines) if number not in of_story],
        [lines[number] for number in story],
        user_id,
        _attributes(users, user_id),
        _titles(items),
        rating_scale(np.array(ratings))[:2],
        bad,
    )


def _story(owners: list[str]) -> tuple[str, list[int]]:
    """Return the user, and the positions of the events held back for the story."""
    counts = Counter(owners)
    enough = min(STORY_AFTER + STORY_EVENTS, max(counts.values()))
    user_id = next(owner for owner in reversed(owners) if counts[owner] >= enough)
    places = [number for number, owner in enumerate(owners) if owner == user_id]
    return user_id, places[-max(1, min(STORY_EVENTS, len(places) // 2)) :]


def _titles(items: Sequence[str]) -> dict[str, str]:
    decoder = msgspec.json.Decoder(_Titled)
    titles: dict[str, str] = {}
    for line in read_lines(items):
        try:
            item = decoder.decode(line.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the indexer names it
            continue
        titles[item.item_id] = item.title or (item.text or "")[:60] or item.item_id
    return titles


def _attributes(users: str | None, user_id: str) -> dict[str, object]:
    if users is None:
        return {}
    decoder = msgspec.json.Decoder(User)
    for line in read_lines([users]):
        try:
            user = decoder.decode(line.value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{line.place}: {error}") from error
        if user.user_id == user_id:
            return dict(user.attributes)
    return {}
