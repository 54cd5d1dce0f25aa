"""A RecommendedBatch to the Recommendations that go out, as objects and, faster, as JSON."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.wire import Interest, Recommendation, RecommendedItem
from tracker.items.vectors import ItemVectors
from tracker.kernels.native import inlined, native
from tracker.recommend.candidates import CHANNELS
from tracker.recommend.lists import RecommendedBatch

Array = NDArray[Any]

_ITEM_BYTES = 128
"""Most bytes of an item's JSON beside its ids: names, punctuation, numbers."""

_INTEREST_BYTES = 96

_RECORD_BYTES = 64

_NEWLINE = 10


class _Head(msgspec.Struct, frozen=True, gc=False):
    """The fields before the items in a Recommendation, in its order."""

    id: str
    user_id: str
    timestamp: float
    scene: str | None


class _Middle(msgspec.Struct, frozen=True, gc=False):
    """The fields between the items and the interests."""

    artifact: str
    latency_ms: float
    version: int


def to_recommendations(
    batch: RecommendedBatch,
    items: ItemVectors,
    artifact: str,
    record_ids: Sequence[str],
    users: Sequence[str],
    times: Sequence[float],
    scenes: Sequence[str | None],
    latencies_ms: Sequence[float],
    versions: Sequence[int],
) -> list[Recommendation]:
    """Return the Recommendation of each of the B users of a batch.

    Args:
        batch: made with the artifact whose `items` and version `artifact` are given.
        items: its ids and labels.
        artifact: its version.
        record_ids: B ids of recommendations.
        users: B user ids.
        times: B stream times, seconds.
        scenes: B names of scenes.
        latencies_ms: B latencies.
        versions: B versions of lists.
    """
    ids, names = items.ids, items.labels
    scores = _rounded(batch.scores)
    probabilities = _rounded(batch.probabilities)
    strengths, changes = _rounded(batch.strengths), _rounded(batch.changes)
    rows, channels, because = (
        batch.rows.tolist(),
        batch.channels.tolist(),
        batch.because_rows.tolist(),
    )
    labels = batch.labels.tolist()
    return [
        Recommendation(
            record_ids[b],
            users[b],
            times[b],
            scenes[b],
            [
                RecommendedItem(
                    ids[row],
                    score,
                    CHANNELS[c],
                    [ids[r] for r in past if r >= 0],
                    None if math.isnan(chance) else chance,
                )
                for row, score, c, past, chance in zip(
                    rows[b], scores[b], channels[b], because[b], probabilities[b], strict=True
                )
                if row >= 0
            ],
            artifact,
            latencies_ms[b],
            [
                Interest(names[label] if label >= 0 else "", strength, change)
                for label, strength, change in zip(labels[b], strengths[b], changes[b], strict=True)
                if strength > 0.0
            ],
            versions[b],
        )
        for b in range(len(batch))
    ]


def _rounded(values: NDArray[np.float32]) -> list[list[float]]:
    """Return numbers with the four decimals that `_number` writes."""
    rounded: list[list[float]] = (np.rint(values.astype(np.float64) * 1e4) / 1e4).tolist()
    return rounded


class ListEncoder:
    """Writes the JSON of recommendations in native code; made once for an artifact's items.

    It holds the ids and labels as JSON strings, one after the other: as much memory as their text.
    """

    def __init__(self, items: ItemVectors) -> None:
        self._ids = _fragments(items.ids)
        self._labels = _fragments([*items.labels, ""])
        channels = [f',"channel":"{name}","because":['.encode() for name in CHANNELS]
        self._channels = _joined(channels)
        self._encoder = msgspec.json.Encoder()

    def encode(
        self,
        batch: RecommendedBatch,
        artifact: str,
        record_ids: Sequence[str],
        users: Sequence[str],
        times: Sequence[float],
        scenes: Sequence[str | None],
        latencies_ms: Sequence[float],
        versions: Sequence[int],
    ) -> list[bytes]:
        """Return the JSON of each user's Recommendation; decoded, equal to `to_recommendations`."""
        lines = self._encoder.encode_lines
        heads = _split(
            lines([_Head(*head) for head in zip(record_ids, users, times, scenes, strict=True)]),
            len(batch),
        )
        middles = _split(
            lines(
                [
                    _Middle(artifact, latency, version)
                    for latency, version in zip(latencies_ms, versions, strict=True)
                ]
            ),
            len(batch),
        )
        rows, reasons = batch.rows, batch.because_rows
        bound = len(heads.text) + len(middles.text) + len(rows) * _RECORD_BYTES
        bound += reasons.size + rows.size * _ITEM_BYTES + batch.labels.size * _INTEREST_BYTES
        bound += _length(self._ids.starts, rows.ravel())
        bound += _length(self._ids.starts, reasons.ravel())
        bound += _length(self._labels.starts, batch.labels.ravel())
        buffer = np.empty(bound, np.uint8)
        ends = np.empty(len(rows), np.int64)
        lists = _Lists(
            rows, batch.scores, batch.probabilities, batch.channels, reasons,
            batch.labels, batch.strengths, batch.changes,
        )  # fmt: skip
        _write_records(lists, heads, middles, self._ids, self._labels, self._channels, buffer, ends)
        records = buffer.tobytes()
        edges = [0, *ends.tolist()]
        return [records[a:b] for a, b in pairwise(edges)]


class _Texts(NamedTuple):
    """Pieces of JSON, one after the other; piece i is text[starts[i] : starts[i + 1]]."""

    text: NDArray[np.uint8]
    starts: NDArray[np.int64]


class _Lists(NamedTuple):
    """The columns of a RecommendedBatch that are written; see there."""

    rows: Array
    scores: Array
    probabilities: Array
    channels: Array
    because_rows: Array
    labels: Array
    strengths: Array
    changes: Array


def _fragments(texts: Sequence[str]) -> _Texts:
    """Return the JSON strings of texts."""
    encode = msgspec.json.Encoder().encode
    return _joined([encode(text) for text in texts])


def _joined(parts: Sequence[bytes]) -> _Texts:
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=starts[1:])
    return _Texts(np.frombuffer(b"".join(parts), np.uint8), starts)


def _split(lines: bytes, count: int) -> _Texts:
    """Return so many lines, each with its newline."""
    text = np.frombuffer(lines, np.uint8)
    starts = np.zeros(count + 1, np.int64)
    _find_starts(text, starts)
    return _Texts(text, starts)


@native
def _find_starts(text: Array, starts: Array) -> None:
    """Write the place after each newline into `starts`, from its second place on."""
    line = 1
    for place in range(len(text)):
        if text[place] == _NEWLINE:
            starts[line] = place + 1
            line += 1


@native
def _length(starts: Array, rows: Array) -> int:
    """Return the bytes of all pieces of these numbers (N,), -1 for none."""
    total = 0
    for row in rows:
        if row >= 0:
            total += starts[row + 1] - starts[row]
    return total


def _text(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


_ITEMS = _text(',"items":[')
_ITEM = _text('{"item_id":')
_SCORE = _text(',"score":')
_PROBABILITY = _text(',"probability":')
_INTERESTS = _text(',"interests":[')
_LABEL = _text('{"label":')
_STRENGTH = _text(',"strength":')
_CHANGE = _text(',"change":')


@native
def _copy(buffer: Array, at: int, text: Array, start: int, end: int) -> int:
    for i in range(start, end):
        buffer[at] = text[i]
        at += 1
    return at


@inlined
def _name(buffer: Array, at: int, name: Array) -> int:
    return _copy(buffer, at, name, 0, len(name))


@inlined
def _piece(buffer: Array, at: int, text: Array, starts: Array, i: int) -> int:
    return _copy(buffer, at, text, starts[i], starts[i + 1])


@native
def _number(buffer: Array, at: int, value: float) -> int:
    """Write a number with up to four decimals, at least one, as JSON; at most 18 bytes."""
    scaled = np.int64(np.rint(min(max(float(value), -1e10), 1e10) * 10000.0))
    if scaled < 0:
        buffer[at] = 45  # -
        at += 1
        scaled = -scaled
    whole = scaled // 10000
    part = scaled % 10000
    digits = 1
    rest = whole // 10
    while rest > 0:
        rest //= 10
        digits += 1
    for place in range(at + digits - 1, at - 1, -1):
        buffer[place] = 48 + whole % 10
        whole //= 10
    at += digits
    buffer[at] = 46  # .
    digits = 4
    while digits > 1 and part % 10 == 0:
        part //= 10
        digits -= 1
    for place in range(at + digits, at, -1):
        buffer[place] = 48 + part % 10
        part //= 10
    return at + digits + 1


@native
def _write_records(
    lists: _Lists,
    heads: _Texts,
    middles: _Texts,
    ids: _Texts,
    labels: _Texts,
    channels: _Texts,
    buffer: Array,
    ends: Array,
) -> None:
    """Write each user's record; `ends` (B,) is filled with the end of each.

    A line of `heads` is an object, of which the last brace is left out; of one of `middles` the
    first brace becomes a comma, and the last one is left out.
    """
    rows, scores, probabilities, list_channels, because_rows, list_labels, strengths, changes = (
        lists
    )
    id_text, id_starts = ids
    label_text, label_starts = labels
    channel_text, channel_starts = channels
    at = 0
    for b in range(len(rows)):
        at = _copy(buffer, at, heads.text, heads.starts[b], heads.starts[b + 1] - 2)
        at = _name(buffer, at, _ITEMS)
        for i in range(rows.shape[1]):
            row = rows[b, i]
            if row < 0:
                break
            if i > 0:
                buffer[at] = 44  # ,
                at += 1
            at = _name(buffer, at, _ITEM)
            at = _piece(buffer, at, id_text, id_starts, row)
            at = _name(buffer, at, _SCORE)
            at = _number(buffer, at, scores[b, i])
            probability = probabilities[b, i]
            if probability == probability:  # not NaN
                at = _name(buffer, at, _PROBABILITY)
                at = _number(buffer, at, probability)
            at = _piece(buffer, at, channel_text, channel_starts, list_channels[b, i])
            for r in range(because_rows.shape[2]):
                reason = because_rows[b, i, r]
                if reason < 0:
                    break
                if r > 0:
                    buffer[at] = 44
                    at += 1
                at = _piece(buffer, at, id_text, id_starts, reason)
            buffer[at] = 93  # ]
            buffer[at + 1] = 125  # }
            at += 2
        buffer[at] = 93
        buffer[at + 1] = 44
        at += 2
        at = _copy(buffer, at, middles.text, middles.starts[b] + 1, middles.starts[b + 1] - 2)
        at = _name(buffer, at, _INTERESTS)
        for i in range(list_labels.shape[1]):
            if np.rint(strengths[b, i] * 10000.0) <= 0.0:
                break
            if i > 0:
                buffer[at] = 44
                at += 1
            label = list_labels[b, i] if list_labels[b, i] >= 0 else len(label_starts) - 2
            at = _name(buffer, at, _LABEL)
            at = _piece(buffer, at, label_text, label_starts, label)
            at = _name(buffer, at, _STRENGTH)
            at = _number(buffer, at, strengths[b, i])
            at = _name(buffer, at, _CHANGE)
            at = _number(buffer, at, changes[b, i])
            buffer[at] = 125
            at += 1
        buffer[at] = 93
        buffer[at + 1] = 125
        at += 2
        ends[b] = at
