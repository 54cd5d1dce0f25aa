"""A RecommendedBatch to the Recommendations that go out, as objects and, faster, as JSON.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.wire import Interest, Parts, Recommendation, RecommendedItem
from tracker.items.texts import JsonStrings, Texts, joined
from tracker.items.vectors import ItemVectors
from tracker.kernels.native import copy_bytes, inlined, native, prefetch
from tracker.recommend.channels import CHANNELS
from tracker.recommend.labels import MOST_BYTES, Words
from tracker.recommend.lists import Explanation, RecommendedBatch
from tracker.scoring.parts import GROUPS

Array = NDArray[Any]

_ITEM_BYTES = 128
"""Most bytes of an item's JSON beside its ids: names, punctuation, numbers."""

_INTEREST_BYTES = 96 + MOST_BYTES

_EXPLANATION_BYTES = 128 + MOST_BYTES
"""Most bytes of what an item's JSON says of interest and shares, beside the label."""

_GROUP_BYTES = 40
"""Most bytes of a part of a score."""

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
    words: Words,
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
        words: tells its interests apart.
        artifact: its version.
        record_ids: B ids of recommendations.
        users: B user ids.
        times: B stream times, seconds.
        scenes: B names of scenes.
        latencies_ms: B latencies.
        versions: B versions of lists.
    """
    names = interest_names(batch, words)
    strengths, changes = rounded(batch.strengths), rounded(batch.changes)
    return [
        Recommendation(
            record_ids[b],
            users[b],
            times[b],
            scenes[b],
            _items_of(batch, b, items, names[b]),
            artifact,
            latencies_ms[b],
            [
                Interest(names[b][i], strengths[b][i], changes[b][i])
                for i in range(batch.strengths.shape[1])
                if strengths[b][i] > 0.0
            ],
            versions[b],
        )
        for b in range(len(batch))
    ]


def interest_names(batch: RecommendedBatch, words: Words) -> list[list[str]]:
    """Return the names of the interests of each user, strongest first; as many as are known."""
    labels, spans = batch.labels, np.zeros((*batch.labels.shape, 2), np.int64)
    explanation = batch.explanation
    if explanation is not None:
        labels, spans = (
            explanation.labels,
            words.spans(explanation.labels, explanation.medoids, explanation.births),
        )
    return [
        [words.name(label, *span) for label, span in zip(row, pieces, strict=True)]
        for row, pieces in zip(labels.tolist(), spans.tolist(), strict=True)
    ]


def _items_of(
    batch: RecommendedBatch, b: int, items: ItemVectors, names: list[str]
) -> list[RecommendedItem]:
    scores, chances = rounded(batch.scores), rounded(batch.probabilities)
    return [
        RecommendedItem(
            items.ids[row],
            scores[b][i],
            CHANNELS[batch.channels[b, i]],
            [items.ids[reason] for reason in batch.because_rows[b, i].tolist() if reason >= 0],
            None if math.isnan(chances[b][i]) else chances[b][i],
            **(
                {}
                if batch.explanation is None
                else _explained_fields(batch.explanation, batch, b, i, names)
            ),
        )
        for i, row in enumerate(batch.rows[b].tolist())
        if row >= 0
    ]


def _explained_fields(
    explanation: Explanation, batch: RecommendedBatch, b: int, i: int, names: list[str]
) -> dict[str, Any]:
    """Return what an explanation says of an item, by field."""
    interest = int(explanation.interests[b, i])
    fields: dict[str, Any] = {"interest": names[interest] if interest >= 0 else None}
    if explanation.shares[b, i].sum() + explanation.others[b, i] + explanation.earlier[b, i] > 0.0:
        count = int((batch.because_rows[b, i] >= 0).sum())
        fields["shares"] = rounded(explanation.shares)[b][i][:count]
        fields["earlier"] = rounded(explanation.earlier)[b][i]
    if explanation.parts is not None:
        groups, parts = explanation.parts.groups[b], explanation.parts
        fields["parts"] = Parts(
            rounded(parts.bases[None], 6)[0][b],
            {
                name: rounded(groups, 6)[i][group]
                for group, name in enumerate(GROUPS)
                if groups[:, group].any()
            },
            rounded(parts.losses, 6)[b][i],
        )
    return fields


def rounded(values: NDArray[np.float32], places: int = 4) -> Any:
    """Return numbers with the four decimals that `_number` writes, or with more, as lists."""
    scale = 10.0**places
    return (np.rint(values.astype(np.float64) * scale) / scale).tolist()


class ListEncoder:
    """Writes the JSON of recommendations in native code; made once for an artifact's items.

    It holds the ids and labels as JSON strings, one after the other, and the texts: as much memory
    as their text.

    Args:
        items: of the artifact.
        texts: of the items, to tell interests apart; their ids by default.
    """

    def __init__(self, items: ItemVectors, texts: Sequence[str] = ()) -> None:
        self.words = Words(items.labels, texts if len(texts) == len(items.ids) else items.ids)
        self._ids = _fragments(items.ids)
        self._labels = _fragments([*items.labels, ""])
        self._widest = int(np.diff(self._labels.starts).max())
        channels = [f',"channel":"{name}","because":['.encode() for name in CHANNELS]
        self._channels = joined(channels)
        self._groups = joined([f'"{name}":'.encode() for name in GROUPS])
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
        bound += _lengths(self._ids.starts, self._labels.starts, rows, reasons, batch.labels)
        explanation = batch.explanation
        if explanation is not None:
            bound += rows.size * (_EXPLANATION_BYTES + self._widest)
            if explanation.parts is not None:
                bound += (explanation.parts.groups.size + 4 * rows.size) * _GROUP_BYTES
        buffer = np.empty(bound, np.uint8)
        ends = np.empty(len(rows), np.int64)
        lists = _Lists(
            rows, batch.scores, batch.probabilities, batch.channels, reasons,
            batch.labels, batch.strengths, batch.changes,
        )  # fmt: skip
        pieces = _Pieces(
            heads, middles, self._ids, self._labels, self._channels, self._groups, self.words.text
        )
        _write_records(lists, self._reasons(batch), pieces, buffer, ends)
        edges = [0, *ends.tolist()]
        records = buffer[: edges[-1]].tobytes()
        return [records[a:b] for a, b in pairwise(edges)]

    def _reasons(self, batch: RecommendedBatch) -> "_Reasons":
        """Return the columns of an explanation; empty ones for what there is none of."""
        explanation = batch.explanation
        if explanation is None:
            return _NOTHING
        spans = self.words.spans(explanation.labels, explanation.medoids, explanation.births)
        parts = explanation.parts
        return _Reasons(
            explanation.interests,
            explanation.shares,
            explanation.others,
            explanation.earlier,
            _NOTHING.bases if parts is None else parts.bases,
            _NOTHING.groups if parts is None else parts.groups,
            _NOTHING.losses if parts is None else parts.losses,
            explanation.labels,
            spans,
        )


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


class _Reasons(NamedTuple):
    """The columns of an Explanation that are written; see there. `spans` are those of `Words`."""

    interests: Array
    shares: Array
    others: Array
    earlier: Array
    bases: Array
    groups: Array
    losses: Array
    labels: Array
    spans: Array


_NONE = np.zeros(0, np.float32)

_NOTHING = _Reasons(
    np.zeros((0, 0), np.int64), _NONE.reshape(0, 0, 0), _NONE.reshape(0, 0), _NONE.reshape(0, 0),
    _NONE, _NONE.reshape(0, 0, 0), _NONE.reshape(0, 0),
    np.zeros((0, 0), np.int32), np.zeros((0, 0, 0), np.int64),
)  # fmt: skip


class _Pieces(NamedTuple):
    """Text that records are made of."""

    heads: Texts
    middles: Texts
    ids: Texts
    labels: Texts
    channels: Texts
    groups: Texts
    words: Array


def _fragments(texts: Sequence[str]) -> Texts:
    """Return the JSON strings of texts."""
    if isinstance(texts, JsonStrings):
        return texts.json()
    encode = msgspec.json.Encoder().encode
    return joined([encode(text) for text in texts])


def _split(lines: bytes, count: int) -> Texts:
    """Return so many lines, each with its newline."""
    text = np.frombuffer(lines, np.uint8)
    starts = np.zeros(count + 1, np.int64)
    _find_starts(text, starts)
    return Texts(text, starts)


@native
def _find_starts(text: Array, starts: Array) -> None:
    """Write the place after each newline into `starts`, from its second place on."""
    line = 1
    for place in range(len(text)):
        if text[place] == _NEWLINE:
            starts[line] = place + 1
            line += 1


@native
def _lengths(ids: Array, names: Array, rows: Array, reasons: Array, labels: Array) -> int:
    """Return the bytes of all ids of rows, and of all labels, where they are not -1.

    Args:
        ids: starts of the ids.
        names: starts of the labels.
        rows: (B, K).
        reasons: (B, K, R) rows.
        labels: (B, L).
    """
    total = 0
    for row in rows.flat:
        if row >= 0:
            total += ids[row + 1] - ids[row]
    for row in reasons.flat:
        if row >= 0:
            total += ids[row + 1] - ids[row]
    for label in labels.flat:
        if label >= 0:
            total += names[label + 1] - names[label]
    return total


def _text(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


_ITEMS = _text(',"items":[')
_ITEM = _text('{"item_id":')
_SCORE = _text(',"score":')
_PROBABILITY = _text(',"probability":')
_INTEREST = _text(',"interest":')
_SHARES = _text(',"shares":[')
_EARLIER = _text(',"earlier":')
_PARTS = _text(',"parts":{"base":')
_GROUPS = _text(',"groups":{')
_DIVERSITY = _text('},"diversity":')
_INTERESTS = _text(',"interests":[')
_LABEL = _text('{"label":')
_STRENGTH = _text(',"strength":')
_CHANGE = _text(',"change":')


@inlined
def _copy(buffer: Array, at: int, text: Array, start: int, end: int) -> int:
    copy_bytes(buffer, at, text, start, end - start)
    return at + end - start


@inlined
def _name(buffer: Array, at: int, name: Array) -> int:
    return _copy(buffer, at, name, 0, len(name))


@inlined
def _piece(buffer: Array, at: int, text: Array, starts: Array, i: int) -> int:
    return _copy(buffer, at, text, starts[i], starts[i + 1])


@inlined
def _decimal(buffer: Array, at: int, value: float, places: int, scale: int) -> int:
    """Write a number with so many decimals at most; `scale` is 10 to that, as a constant."""
    scaled = np.int64(np.rint(min(max(float(value), -1e10), 1e10) * scale))
    if scaled < 0:
        buffer[at] = 45  # -
        at += 1
        scaled = -scaled
    whole = scaled // scale
    part = scaled % scale
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
    digits = places
    while digits > 1 and part % 10 == 0:
        part //= 10
        digits -= 1
    for place in range(at + digits, at, -1):
        buffer[place] = 48 + part % 10
        part //= 10
    return at + digits + 1


@native
def _number(buffer: Array, at: int, value: float) -> int:
    """Write a number with up to four decimals, at least one, as JSON; at most 18 bytes."""
    return _decimal(buffer, at, value, 4, 10000)


@native
def _fine_number(buffer: Array, at: int, value: float) -> int:
    """Write a number with up to six decimals, at least one, as JSON; at most 20 bytes."""
    return _decimal(buffer, at, value, 6, 1000000)


@inlined
def _label(
    buffer: Array, at: int, labels: Texts, label: int, begin: int, end: int, words: Array
) -> int:
    """Write the label of an interest with its word, or its number; see `Words.spans`."""
    last = len(labels.starts) - 2  # the empty label
    if end == 0:
        return _piece(buffer, at, labels.text, labels.starts, label if label >= 0 else last)
    buffer[at] = 34  # "
    at += 1
    if label >= 0:
        at = _copy(buffer, at, labels.text, labels.starts[label] + 1, labels.starts[label + 1] - 1)
        if begin >= 0:
            buffer[at] = 58  # :
            at += 1
        buffer[at] = 32
        at += 1
    elif begin < 0:
        buffer[at] = 63  # ?
        buffer[at + 1] = 32
        at += 2
    if begin >= 0:
        at = _copy(buffer, at, words, begin, end)
    else:
        if end >= 10:
            buffer[at] = 48 + end // 10 % 10
            at += 1
        buffer[at] = 48 + end % 10
        at += 1
    buffer[at] = 34
    return at + 1


@inlined
def _write_reasons(
    buffer: Array,
    at: int,
    explanation: _Reasons,
    because_rows: Array,
    b: int,
    i: int,
    pieces: _Pieces,
) -> int:
    """Write interest and shares of an item."""
    interest = explanation.interests[b, i]
    if interest >= 0:
        at = _name(buffer, at, _INTEREST)
        begin, end = explanation.spans[b, interest]
        at = _label(
            buffer, at, pieces.labels, explanation.labels[b, interest], begin, end, pieces.words
        )
    total = explanation.others[b, i] + explanation.earlier[b, i]
    for r in range(because_rows.shape[2]):
        total += explanation.shares[b, i, r]
    if total > 0.0:
        if because_rows[b, i, 0] >= 0:
            at = _name(buffer, at, _SHARES)
            for r in range(because_rows.shape[2]):
                if because_rows[b, i, r] < 0:
                    break
                if r > 0:
                    buffer[at] = 44
                    at += 1
                at = _number(buffer, at, explanation.shares[b, i, r])
            buffer[at] = 93
            at += 1
        at = _name(buffer, at, _EARLIER)
        at = _number(buffer, at, explanation.earlier[b, i])
    return at


@inlined
def _write_parts(
    buffer: Array, at: int, explanation: _Reasons, b: int, i: int, is_used: Array, groups: Texts
) -> int:
    """Write the parts of an item's score; of groups that have a part in the list."""
    at = _name(buffer, at, _PARTS)
    at = _fine_number(buffer, at, explanation.bases[b])
    at = _name(buffer, at, _GROUPS)
    first = True
    for group in range(explanation.groups.shape[2]):
        if is_used[group]:
            if not first:
                buffer[at] = 44
                at += 1
            first = False
            at = _piece(buffer, at, groups.text, groups.starts, group)
            at = _fine_number(buffer, at, explanation.groups[b, i, group])
    at = _name(buffer, at, _DIVERSITY)
    at = _fine_number(buffer, at, explanation.losses[b, i])
    buffer[at] = 125
    return at + 1


@inlined
def _prefetch_ids(ids: Texts, rows: Array, because_rows: Array, b: int) -> None:
    """Ask for the ids of the next list, and for the places of those of the list after it."""
    if b + 2 < len(rows):
        for i in range(rows.shape[1]):
            if rows[b + 2, i] >= 0:
                prefetch(ids.starts, rows[b + 2, i])
            if because_rows[b + 2, i, 0] >= 0:
                prefetch(ids.starts, because_rows[b + 2, i, 0])
    if b + 1 < len(rows):
        for i in range(rows.shape[1]):
            if rows[b + 1, i] >= 0:
                prefetch(ids.text, ids.starts[rows[b + 1, i]])
            if because_rows[b + 1, i, 0] >= 0:
                prefetch(ids.text, ids.starts[because_rows[b + 1, i, 0]])


@native
def _write_records(
    lists: _Lists, explanation: _Reasons, pieces: _Pieces, buffer: Array, ends: Array
) -> None:
    """Write each user's record; `ends` (B,) is filled with the end of each.

    A line of the heads is an object, of which the last brace is left out; of one of the middles the
    first brace becomes a comma, and the last one is left out.
    """
    rows, scores, probabilities, list_channels, because_rows, list_labels, strengths, changes = (
        lists
    )
    heads, middles, ids = pieces.heads, pieces.middles, pieces.ids
    channel_text, channel_starts = pieces.channels
    has_reasons, has_parts = len(explanation.interests) > 0, len(explanation.bases) > 0
    is_used = np.zeros(explanation.groups.shape[2], np.bool_)
    at = 0
    for b in range(len(rows)):
        _prefetch_ids(ids, rows, because_rows, b)
        if has_parts:
            for group in range(len(is_used)):
                is_used[group] = False
                for i in range(rows.shape[1]):
                    is_used[group] |= explanation.groups[b, i, group] != 0.0
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
            at = _piece(buffer, at, ids.text, ids.starts, row)
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
                at = _piece(buffer, at, ids.text, ids.starts, reason)
            buffer[at] = 93  # ]
            at += 1
            if has_reasons:
                at = _write_reasons(buffer, at, explanation, because_rows, b, i, pieces)
            if has_parts:
                at = _write_parts(buffer, at, explanation, b, i, is_used, pieces.groups)
            buffer[at] = 125  # }
            at += 1
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
            begin, end = (0, 0)
            if has_reasons:
                begin, end = explanation.spans[b, i]
            at = _name(buffer, at, _LABEL)
            at = _label(buffer, at, pieces.labels, list_labels[b, i], begin, end, pieces.words)
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
