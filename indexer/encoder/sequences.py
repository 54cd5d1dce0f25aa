"""Histories for the user encoder's training: columns by user, windows, padded batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.data.users import Attributes, attribute_codes, attribute_rows
from tracker.encoder.user_encoder import EncoderConfig, StepInputs, code_rows, scale_values

MIN_CODE_EVENTS = 20
"""A kind or scene with fewer events shares the row of unknown ones."""

MAX_SCENES = 1024
"""The most frequent scenes that have a row of their own."""

MIN_ATTRIBUTE_USERS = 5
"""A value of an attribute that fewer users have is left out."""

MAX_ATTRIBUTES = 4096
"""The most frequent values of attributes that have a row of their own."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Actions of all users, a user's together and in time order, E in all.

    The columns that are not listed are those of StepInputs, (E,).

    Attributes:
        starts: (B + 1,) first place of each user.
        rows: (E,) catalogue rows, -1 unknown.
        ids: (E,) rows of id vectors, 0 unknown.
        times: (E,) float seconds.
        positions: (E,) positions in the EventLog.
        targets: (E,) bool, events that can be a target.
        attributes: (B, A) rows of the users' attributes, 0 for none.
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int64]
    ids: NDArray[np.int64]
    kinds: NDArray[np.int64]
    scenes: NDArray[np.int64]
    values: NDArray[np.float32]
    gaps: NDArray[np.float32]
    times: NDArray[np.float64]
    positions: NDArray[np.int64]
    targets: NDArray[np.bool_]
    attributes: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.starts) - 1


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of one user's events: [begin, end) of the columns, its first `skip` no targets."""

    user: int
    begin: int
    end: int
    skip: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows padded at the end: places (B, T) in the columns, 0 past the end, and their lengths.

    `before` (B, T) is how many events of the user come before each, whatever the window.
    """

    users: NDArray[np.int64]
    places: NDArray[np.int64]
    lengths: NDArray[np.int64]
    before: NDArray[np.int64]
    targets: NDArray[np.bool_]


def fit_config(
    histories: EventLog,
    train: NDArray[np.bool_],
    ids: int,
    attributes: Mapping[str, Attributes],
    base: EncoderConfig,
) -> EncoderConfig:
    """Return `base` with the codes and values found in the training part.

    Args:
        histories: all events.
        train: (E,) bool, the events that the configuration may depend on.
        ids: the number of items with a vector of their own.
        attributes: those of each user id.
        base: widths, cell and dropouts.
    """
    batch = histories.batch
    seen = train & (histories.items >= 0)
    kinds = _frequent(batch.kinds[seen].astype(np.int64), MIN_CODE_EVENTS, 65536)
    scenes = batch.scenes[seen].astype(np.int64)
    values = []
    for kind in kinds:
        of_kind = batch.values[seen & (batch.kinds == kind)].astype(np.float64)
        of_kind = of_kind[np.isfinite(of_kind)]
        deviation = float(of_kind.std()) if len(of_kind) else 0.0
        values.append((float(of_kind.mean()) if len(of_kind) else 0.0, deviation or 1.0))
    users = {histories.user_ids[user] for user in np.unique(histories.users[seen]).tolist()}
    codes = np.array(
        [
            code
            for user in sorted(users & attributes.keys())
            for code in attribute_codes(attributes[user])
        ],
        np.int64,
    )
    return EncoderConfig(
        cell=base.cell,
        dim=base.dim,
        text_dim=base.text_dim,
        ids=ids,
        kinds=kinds,
        values=tuple(values),
        scenes=_frequent(scenes[scenes != 0], MIN_CODE_EVENTS, MAX_SCENES),
        attributes=_frequent(codes, MIN_ATTRIBUTE_USERS, MAX_ATTRIBUTES),
        dropout=base.dropout,
        id_dropout=base.id_dropout,
    )


def make_sequences(
    histories: EventLog,
    rows: NDArray[np.int64],
    row_ids: NDArray[np.int64],
    attributes: Mapping[str, Attributes],
    config: EncoderConfig,
) -> Sequences:
    """Return the actions of histories as columns, by user.

    Args:
        histories: all events; retractions are left out.
        rows: (E,) catalogue row of each event, -1 unknown.
        row_ids: (N,) row of the id vector of each catalogue row, 0 for none.
        attributes: those of each user id.
        config: the codes that have rows.
    """
    order = np.argsort(histories.users, kind="stable")
    order = order[histories.items[order] >= 0]
    users, batch = histories.users[order], histories.batch
    starts = np.searchsorted(users, np.arange(len(histories.user_ids) + 1))
    times = batch.times[order]
    gaps = np.full(len(order), -1.0, np.float32)
    same = users[1:] == users[:-1]
    gaps[1:][same] = np.diff(times)[same]
    kinds = code_rows(batch.kinds[order], config.kinds)
    item_rows = rows[order]
    ids = np.zeros(len(order), np.int64)
    ids[item_rows >= 0] = row_ids[item_rows[item_rows >= 0]]
    return Sequences(
        starts=starts.astype(np.int64),
        rows=item_rows,
        ids=ids,
        kinds=kinds,
        scenes=code_rows(batch.scenes[order], config.scenes),
        values=scale_values(batch.values[order], kinds, config),
        gaps=gaps,
        times=times,
        positions=order.astype(np.int64),
        targets=histories.positive[order] & (item_rows >= 0),
        attributes=attribute_rows([attributes.get(u, {}) for u in histories.user_ids], config),
    )


def windows(sequences: Sequences, train: NDArray[np.bool_], length: int) -> list[Window]:
    """Cut each user's training events into windows which overlap by one event.

    Args:
        sequences: the columns.
        train: (E,) bool by event of the EventLog; of each user the events up to the first False.
        length: events of a window.
    """
    segments: list[Window] = []
    usable = train[sequences.positions]
    for user in range(len(sequences)):
        begin, end = int(sequences.starts[user]), int(sequences.starts[user + 1])
        left_out = np.flatnonzero(~usable[begin:end])
        end = begin + int(left_out[0]) if len(left_out) else end
        segments.extend(
            Window(user, max(start - 1, begin), min(start + length, end), int(start > begin))
            for start in range(begin, end, length)
        )
    return segments


def batches(
    sequences: Sequences, segments: Sequence[Window], events: int, generator: np.random.Generator
) -> Iterator[Batch]:
    """Yield the windows in batches of about equal lengths, in random order.

    Args:
        sequences: the columns.
        segments: the windows.
        events: size of a batch, padding included; a longer window is a batch of its own.
        generator: draws the order.
    """
    lengths = np.array([window.end - window.begin for window in segments], np.float64)
    order = np.argsort(lengths * generator.uniform(0.9, 1.1, len(lengths)), kind="stable")
    groups: list[list[Window]] = []
    group: list[Window] = []
    longest = 0
    for place in order.tolist():
        window = segments[place]
        longest = max(longest, window.end - window.begin)
        if group and longest * (len(group) + 1) > events:
            groups.append(group)
            group, longest = [], window.end - window.begin
        group.append(window)
    if group:
        groups.append(group)
    for number in generator.permutation(len(groups)).tolist():
        yield pad(sequences, groups[number])


def pad(sequences: Sequences, segments: Sequence[Window]) -> Batch:
    """Return windows as one batch."""
    users = np.array([window.user for window in segments], np.int64)
    begins = np.array([window.begin for window in segments], np.int64)
    lengths = np.array([window.end for window in segments], np.int64) - begins
    skips = np.array([window.skip for window in segments], np.int64)
    steps = np.arange(int(lengths.max(initial=1)))
    inside = steps < lengths[:, None]  # (B, T)
    places = np.where(inside, begins[:, None] + steps, 0)
    before = np.where(inside, places - sequences.starts[users][:, None], 0)
    targets = inside & (steps >= skips[:, None]) & sequences.targets[places]
    return Batch(users, places, lengths, before, targets)


def inputs(
    sequences: Sequences, places: NDArray[np.int64], items: torch.Tensor, device: torch.device
) -> StepInputs:
    """Return the columns of events at `places`, with their item vectors."""
    return StepInputs(
        items,
        torch.from_numpy(sequences.kinds[places]).to(device),
        torch.from_numpy(sequences.scenes[places]).to(device),
        torch.from_numpy(sequences.values[places]).to(device),
        torch.from_numpy(sequences.gaps[places]).to(device),
    )


def _frequent(codes: NDArray[np.int64], minimum: int, most: int) -> tuple[int, ...]:
    unique, counts = np.unique(codes, return_counts=True)
    enough = np.flatnonzero(counts >= minimum)
    best = enough[np.argsort(-counts[enough], kind="stable")[:most]]
    return tuple(unique[np.sort(best)].tolist())
