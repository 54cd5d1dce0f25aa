"""Tower: the trained user encoder as it serves, over users' rows and the items of an artifact.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from tracker.encoder.interests import SceneQueries, read_interests
from tracker.encoder.scene_attention import SceneAttention
from tracker.encoder.steps import EncoderEvents, EncoderSteps
from tracker.encoder.tower_info import TowerInfo, UserAttributes
from tracker.encoder.user_encoder import UserEncoder, code_rows
from tracker.events.batch import EventBatch
from tracker.items.index import ItemIndex
from tracker.items.vectors import ItemVectors, RowTable, row_of_hash
from tracker.kernels.native import native
from tracker.kernels.row_bytes import Slots
from tracker.users.columns import APPLIED, RETRACTED
from tracker.users.ring import late_if_applied
from tracker.users.rows import RequestBatch
from tracker.users.states import RING_RETRACTED, UserStates

Array = NDArray[Any]

REBUILT = 1024
"""Users whose states are made from their rings at a time."""


class Tower:
    """A user encoder, scene attention on top of it, and the items in its space.

    It is only read and serves many threads at once. A user's state is in the row's `hidden`
    columns, rounded to float16 at every event; the row names the encoder it is of, and a row of
    another encoder is rebuilt from its ring.

    Args:
        model: the encoder.
        id_hashes: (I,) of the items with a vector of their own, in the order of its rows.
        vectors: (N, E) float32 of the artifact's items: D components, their bias, zeros (`padded`).
        index: of the live ones.
        attention: None if it was trained without scenes.
        attributes: of users.
        info: what goes into the manifest.
        device: device of encoder and attention, by default the CPU.
    """

    def __init__(
        self,
        model: UserEncoder,
        id_hashes: NDArray[np.uint64],
        vectors: NDArray[np.float32],
        index: ItemIndex,
        attention: SceneAttention | None,
        attributes: UserAttributes,
        info: TowerInfo,
        device: torch.device | None = None,
    ) -> None:
        place = torch.device("cpu") if device is None else device
        self.model = model
        self.id_hashes = id_hashes
        self.vectors = vectors
        self.index = index
        self.attention = None if attention is None else attention.to(place).eval()
        self.attributes = attributes
        self.info = info
        self.code = np.uint32(info.code)
        self.width = model.state_dim
        # As `vectors`, but in the bias's place what takes off the score of the mean user: how much
        # more this user than others will choose an item. Trends say the rest, and sooner.
        mean = model.get_buffer("mean_query").detach().cpu().numpy()
        self.personal = np.array(vectors, np.float32, order="C")
        self.personal[:, model.dim] = -(vectors[:, : model.dim] @ mean)
        items = torch.from_numpy(np.ascontiguousarray(vectors[:, : model.dim]))
        self.steps = EncoderSteps(model, items, place)

    def with_attributes(self, attributes: UserAttributes) -> "Tower":
        """Return the same tower with other users' attributes."""
        other = copy.copy(self)
        other.attributes = attributes
        return other

    @staticmethod
    def serve_on_one_thread() -> None:
        """Limit torch to one thread per call, in threads that have not called it yet.

        A chunk's products are small: threads that wait for each other cost more than they save,
        and partitions run concurrently anyway.
        """
        torch.set_num_threads(1)

    def carry_over(self, states: UserStates, slots: Slots, items: ItemVectors) -> int:
        """Rebuild the states of rows that are of another encoder from their rings.

        What has left the ring is not in them. Retracted events are left out.

        Args:
            states: the arena.
            slots: rows, -1 for none; may repeat.
            items: of the artifact.

        Returns:
            the number of these rows.
        """
        states.set_hidden(self.width)
        slots = slots[slots >= 0]
        is_foreign = states.head["encoder"][slots] != self.code
        if not is_foreign.any():
            return 0
        foreign = np.unique(slots[is_foreign])
        self.rebuild(states, foreign, items)
        return len(foreign)

    @staticmethod
    def stretches(states: UserStates, events: EventBatch) -> list[NDArray[np.int64]]:
        """Divide a chunk so that no user has an event after one that rebuilds, in one part.

        A retraction and a late event rebuild the state from the ring; the content of the ring
        must not depend on the division into chunks.

        Args:
            states: the arena, before the chunk.
            events: the chunk.
        """
        everything = np.arange(len(events))
        rebuilds = late_if_applied(states, events) | (events.retracts != 0)
        if not rebuilds.any():
            return [everything]
        cuts: list[int] = []
        rebuilt: set[int] = set()
        pairs = zip(events.slots.tolist(), rebuilds.tolist(), strict=True)
        for position, (slot, does_rebuild) in enumerate(pairs):
            if slot in rebuilt:
                cuts.append(position)
                rebuilt = set()
            if does_rebuild:
                rebuilt.add(slot)
        return np.split(everything, cuts)

    def update(
        self,
        states: UserStates,
        events: EventBatch,
        outcomes: NDArray[np.uint8],
        late: NDArray[np.bool_],
        last_times: NDArray[np.float64],
        items: ItemVectors,
    ) -> None:
        """Run a chunk that was applied to the rows into their states, in ordered waves.

        The states of users with a retraction or a late event among them are rebuilt from their
        rings.

        Args:
            states: the arena, after the chunk; `carry_over` was called before it.
            events: the chunk.
            outcomes: (N,) what became of each event.
            late: (N,) whether it was applied, and not the newest of its user.
            last_times: (N,) latest event of each one's user before the chunk, NaN for none.
            items: of the artifact.
        """
        again = np.unique(events.slots[late | (outcomes == RETRACTED)])
        applied = (outcomes == APPLIED) & ~np.isin(events.slots, again)
        if applied.any():
            self.steps.update(
                states.hidden,
                last_times[applied],
                EncoderEvents(
                    events.slots[applied], events.rows[applied], events.kinds[applied],
                    events.scenes[applied], events.values[applied], events.times[applied],
                ),
            )  # fmt: skip
        self.rebuild(states, again, items)

    def queries(self, requests: RequestBatch) -> NDArray[np.float32]:
        """Return queries for the index: where B users' interest is at a time, in a scene.

        Nothing is written, and the times may be in the future.

        Returns:
            (B, E) float32; column D, 1, takes the items' bias.
        """
        if not len(requests):
            return np.zeros((0, self.vectors.shape[1]), np.float32)
        vectors = self._encoder_queries(requests)
        if self.attention is None:
            return padded(vectors)
        with torch.inference_mode():
            fused, _ = self.attention(*self._attention_inputs(requests, vectors))
        return _with_ones(fused)

    @torch.inference_mode()
    def scene_queries(self, requests: RequestBatch) -> SceneQueries | None:
        """Return `queries`, and how each type of interest moves them, for B users, 1 or more.

        Without scene attention there are none.
        """
        if self.attention is None:
            return None
        inputs = self._attention_inputs(requests, self._encoder_queries(requests))
        vectors, by_type = self.attention.by_type(*inputs)
        return SceneQueries(_with_ones(vectors), by_type.cpu().numpy())

    def _encoder_queries(self, requests: RequestBatch) -> NDArray[np.float32]:
        """Return the queries of the encoder alone, (B, D + 1): column D is 1."""
        states, slots = requests.states, requests.slots
        states.set_hidden(self.width)
        slots_or_0 = np.maximum(slots, 0)
        head = states.head[slots_or_0]
        has_state = (slots >= 0) & (head["encoder"] == self.code) & (head["events"] > 0)
        hidden = np.where(has_state[:, None], states.hidden[slots_or_0], np.float16(0.0))
        idle = np.where(has_state, np.maximum(requests.now - head["last_time"], 0.0), np.nan)
        events = np.where(has_state, head["events"], 0).astype(np.int64)
        attributes = None
        if requests.hashes is not None and self.attributes.rows.shape[1]:
            attributes = self.attributes.of(requests.hashes)
        return self.steps.queries(hidden, idle, events, attributes)

    def _attention_inputs(
        self, requests: RequestBatch, queries: NDArray[np.float32]
    ) -> list[Tensor]:
        """Return the arguments of scene attention: queries, interests, masses and scene rows."""
        scene_codes = () if self.attention is None else self.attention.config.scenes
        arrays = (
            np.ascontiguousarray(queries[:, :-1]),
            *read_interests(requests.states, requests.slots, requests.now),
            code_rows(requests.scenes, scene_codes),
        )
        return [torch.from_numpy(array).to(self.steps.device) for array in arrays]

    def rebuild(self, states: UserStates, slots: Slots, items: ItemVectors) -> None:
        """Rebuild the states of rows from their rings; without events they are zeros."""
        states.hidden[slots] = 0.0
        states.head["encoder"][slots] = self.code
        slots = slots[states.head["n_ring"][slots] > 0]
        for start in range(0, len(slots), REBUILT):
            part = slots[start : start + REBUILT]
            states.hidden[part] = self.steps.rebuild(*_ring_events(states, part, items))


def padded(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (M, D + 1) with zeros up to E columns, a multiple of 4, as indexes like it.

    >>> padded(np.ones((2, 5), np.float32)).shape
    (2, 8)
    """
    count, width = vectors.shape
    wider = np.zeros((count, -(-width // 4) * 4), np.float32)
    wider[:, :width] = vectors
    return wider


def _with_ones(vectors: Tensor) -> NDArray[np.float32]:
    """Return vectors (B, D) as queries (B, E)."""
    queries = vectors.cpu().numpy()
    return padded(np.concatenate([queries, np.ones_like(queries[:, :1])], axis=1))


def code_of(model: UserEncoder) -> int:
    """Return the code of an encoder: a hash of its weights, never 0."""
    digest = xxhash.xxh32()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.intdigest() or 1


class _RingEvents(NamedTuple):
    """The events of B rings, the oldest first, retracted ones left out.

    Catalogue `rows` int64 (-1: unknown), `kinds` uint16, `scenes` uint32, `values` float32 (NaN:
    none) and `times` float64, seconds, each (B, R); `lengths` (B,) int64, the events of each.
    """

    rows: Array
    kinds: Array
    scenes: Array
    values: Array
    times: Array
    lengths: Array


def _ring_events(states: UserStates, slots: Slots, items: ItemVectors) -> _RingEvents:
    """Return the events that rings hold, as `EncoderSteps.rebuild` takes them."""
    shape = (len(slots), states.ring.shape[1])
    events = _RingEvents(
        np.full(shape, -1, np.int64), np.zeros(shape, np.uint16), np.zeros(shape, np.uint32),
        np.full(shape, np.nan, np.float32), np.zeros(shape, np.float64),
        np.zeros(len(slots), np.int64),
    )  # fmt: skip
    _read_rings(states.ring, states.head, slots, items.table, events)
    longest = max(1, int(events.lengths.max(initial=0)))
    columns = [np.ascontiguousarray(column[:, :longest]) for column in events[:5]]
    return _RingEvents._make([*columns, events.lengths])


@native
def _read_rings(
    ring: Array, head: Array, slots: Slots, table: RowTable, events: _RingEvents
) -> None:
    rows, kinds, scenes, values, times, lengths = events
    for b in range(len(slots)):
        n = 0
        for r in range(int(head[slots[b]]["n_ring"])):
            entry = ring[slots[b], r]
            if entry["flags"] & RING_RETRACTED != 0:
                continue
            rows[b, n] = row_of_hash(table.hashes, table.rows, entry["item"])
            kinds[b, n] = entry["kind"]
            scenes[b, n] = entry["scene"]
            values[b, n] = entry["value"]
            times[b, n] = entry["time"]
            n += 1
        lengths[b] = n
