"""Learner: what one partition learns from its stream, and the row in which that is kept."""

import zlib
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.event_batch import EventBatch, can_be_target
from tracker.events import hash_id
from tracker.kinds import Kinds
from tracker.network import Network
from tracker.online import OnlineRanker
from tracker.recommender import Recommender
from tracker.seen import SeenSets
from tracker.state import UserStates

LEARNED_KEY = b"l"
"""The row's key, beside the states: what was learned and the position are committed together."""

FORMAT = 1

MOST = 4
"""Events of a chunk that are learned from at most: what bounds the work."""

HORIZON = 500
"""Examples that the mean losses look back on, about."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


class LearnedRowError(ValueError):
    """A row of what was learned cannot be read; the message says what was found."""


class Learned(msgspec.Struct, array_like=True):
    """What was learned by one model.

    `code` tells the published weights that it belongs to, `values` are float32, little-endian.
    `loss` is the mean loss of the latest examples before they were learned from, `gain` how much
    more it would have been by the published weights: nats.
    """

    code: int
    steps: int
    loss: float
    gain: float
    values: bytes


class LearnedRow(msgspec.Struct, array_like=True):
    """All that a partition has learned, by model."""

    format: int
    models: dict[str, Learned]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a learner is: steps, distance (0 to 2), mean loss and what learning saves of it."""

    steps: int
    distance: float
    loss: float
    gain: float


class Learner:
    """Learns from the events of one partition, before they are applied, in bounded steps.

    An event teaches where it is a positive one of a user known before, and its item stood among
    the unseen candidates that would have been ranked for the user at that moment, from the state
    before the chunk: it is the target, the other unseen candidates are the negatives. (Where seen
    items are ranked like others, they are among both.) An event whose item was no candidate teaches
    nothing: put among them for its sake, it would teach that what the channels do not find is good.
    Of each chunk at most MOST events are tried, those whose offsets have the smallest hashes.

    What was learned is served while it is ahead: while the mean loss of the latest examples, each
    taken before it was learned from, is no higher than by the published weights.

    Args:
        kinds: says which events are positive.
        learning: whether to learn; else what was learned before is served as it is.
    """

    def __init__(self, kinds: Kinds, learning: bool = True) -> None:
        self._kinds = kinds
        self._learning = learning
        self._published: Network | None = None
        self._ranker: OnlineRanker | None = None
        self._state = Learned(0, 0, 0.0, 0.0, b"")

    @property
    def ranker(self) -> OnlineRanker | None:
        """What is to score candidates; None for the published ranker."""
        return self._ranker if self._state.gain >= 0.0 else None

    @property
    def progress(self) -> Progress | None:
        """How far it is; None where there is nothing that could learn."""
        state = self._state
        if self._ranker is None:
            return None
        return Progress(state.steps, self._ranker.distance, state.loss, state.gain)

    def restore(self, row: bytes | None) -> None:
        """Take what `row` gave back, for the artifact that `follow` names next.

        Raises:
            LearnedRowError: the row is damaged, or of a format that this version does not know.
        """
        self._published = self._ranker = None
        self._state = Learned(0, 0, 0.0, 0.0, b"")
        if row is not None:
            self._state = _decode(row).models.get("ranker", self._state)

    def follow(self, published: Network | None) -> bool:
        """Go on beside an artifact's ranker; return whether something learned was given up.

        That is so where it belongs to other published weights: then learning starts again.
        """
        if published is self._published:
            return False
        kept = self._state = self._learned()
        self._published = published
        if published is None:
            self._ranker = None
            return False
        self._ranker = OnlineRanker(published)
        if kept.code == published.code and _take_over(self._ranker, kept.values):
            return False
        self._state = Learned(published.code, 0, 0.0, 0.0, b"")
        return kept.steps > 0

    def learn(
        self,
        recommender: Recommender,
        states: UserStates,
        seen: SeenSets,
        seen_slots: NDArray[np.int64],
        events: EventBatch,
        times: NDArray[np.float64],
        k: int,
    ) -> int:
        """Learn from a chunk that is not applied yet; return the steps taken.

        1. Choose events.
        2. Find the candidates of each, and what the ranker reads of them.
        3. One step for each whose item is among the unseen ones, in the order of the events.

        Args:
            recommender: of the artifact that is followed.
            states: the arena; rows of another basis are rebuilt.
            seen: what left the rings.
            seen_slots: (C,) row in `seen` of each arena row, -1 for none.
            events: N events, their slots filled.
            times: (N,) at which lists are made for them.
            k: items in a list.
        """
        if self._ranker is None or not self._learning:
            return 0
        items = recommender.artifact.vectors
        chosen = self._choose(states, events)  # 1
        rows = items.row_of(events.items[chosen])
        known = (rows >= 0) & (rows < items.live)
        chosen, rows = chosen[known], rows[known]
        if not len(chosen):
            return 0
        users = np.array([hash_id(events.users[at]) for at in chosen.tolist()], np.uint64)
        cut, columns = recommender.examples(  # 2
            states, seen, seen_slots, events.slots[chosen], times[chosen], events.scenes[chosen],
            k, users,
        )  # fmt: skip
        steps = 0
        for b, row in enumerate(rows.tolist()):  # 3
            unseen = int(cut.n_unseen[b])
            places = np.flatnonzero(cut.rows[b, :unseen] == row)
            if len(places) and unseen > 1:
                losses = self._ranker.learn(columns[b, :unseen], int(places[0]))
                self._note(*losses)
                steps += 1
        return steps

    def row(self) -> bytes:
        """Return what was learned, to be kept under LEARNED_KEY."""
        learned = self._learned()
        models = {"ranker": learned} if learned.steps else {}
        body = msgspec.msgpack.encode(LearnedRow(FORMAT, models))
        return zlib.crc32(body).to_bytes(4, "little") + body

    def _choose(self, states: UserStates, events: EventBatch) -> NDArray[np.int64]:
        known = states.head["events"][events.slots] > 0
        can = np.flatnonzero(can_be_target(events, self._kinds) & known)
        if len(can) > MOST:
            mixed = (events.offsets[can].astype(np.uint64) + np.uint64(1)) * _MIX
            mixed ^= mixed >> np.uint64(29)
            can = np.sort(can[np.argsort(mixed * _MIX, kind="stable")[:MOST]])
        return can

    def _note(self, learned: float, published: float) -> None:
        state = self._state
        state.steps += 1
        state.loss += (learned - state.loss) / min(state.steps, HORIZON)
        state.gain += (published - learned - state.gain) / HORIZON

    def _learned(self) -> Learned:
        """Return what was learned, with the weights as they are now."""
        if self._ranker is None:
            return self._state
        values = self._ranker.read_out().astype("<f4").tobytes()
        return msgspec.structs.replace(self._state, values=values)


def _take_over(ranker: OnlineRanker, values: bytes) -> bool:
    """Give a ranker what was learned; return whether it fits."""
    if not values:
        return True
    try:
        ranker.set_read_out(np.frombuffer(values, "<f4").astype(np.float32))
    except ValueError:
        return False
    return True


def _decode(row: bytes) -> LearnedRow:
    body = row[4:]
    if zlib.crc32(body).to_bytes(4, "little") != row[:4]:
        raise LearnedRowError(f"{len(row)} bytes that are damaged: the checksum does not fit")
    try:
        found = msgspec.msgpack.decode(body, type=tuple[int, msgspec.Raw])
        if found[0] != FORMAT:
            raise LearnedRowError(f"format {found[0]}; this version reads {FORMAT}")
        return msgspec.msgpack.decode(body, type=LearnedRow)
    except msgspec.DecodeError as error:
        raise LearnedRowError(f"{len(row)} bytes that are no row of this kind: {error}") from error
