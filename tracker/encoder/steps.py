"""UserEncoder over the rows of an arena: chunks of events in ordered waves, rebuilding, export."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tracker.encoder.user_encoder import (
    EncoderConfig,
    StepInputs,
    UserEncoder,
    code_rows,
    scale_values,
)
from tracker.events.batch import waves

BUCKETS = (1, 4, 16, 64, 256, 1024, 4096)
"""Batch sizes on CUDA: kernels and memory are chosen once for each, and larger waves are cut."""


@dataclass(frozen=True, slots=True)
class EncoderEvents:
    """Events for the encoder in the order they came, as columns of length N.

    `slots` are rows of the arena; `rows` those of the item table, -1 for an unknown item;
    `kinds` and `scenes` are codes, `values` are raw (NaN for none), `times` float seconds.
    """

    slots: NDArray[np.int64]
    rows: NDArray[np.int64]
    kinds: NDArray[np.uint16]
    scenes: NDArray[np.uint32]
    values: NDArray[np.float32]
    times: NDArray[np.float64]


class EncoderSteps:
    """A trained encoder with its item table on one device; every state is rounded to float16.

    It is only read and serves many threads at once. Users' states are an array (C, state_dim)
    float16 of the caller, zeros for a user without events.
    """

    def __init__(self, model: UserEncoder, vectors: Tensor, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.config: EncoderConfig = model.config
        self.state_dim = model.state_dim
        self.device = device
        # Row -1 is the last one: an unknown item.
        self._items = torch.cat([vectors, vectors.new_zeros(1, vectors.shape[1])]).to(device)

    @torch.inference_mode()
    def update(
        self, states: NDArray[np.float16], last_times: NDArray[np.float64], events: EncoderEvents
    ) -> int:
        """Run events into states, in the order of each user's events.

        Args:
            states: (C, state_dim), changed in place.
            last_times: (N,) time of the user's latest event before the chunk, NaN for none.
            events: the chunk; the same user may come several times.

        Returns:
            the number of waves: the most events of one user.
        """
        order = waves(events.slots)
        gaps = chunk_gaps(events.slots, events.times, last_times)
        kinds = code_rows(events.kinds, self.config.kinds)
        scenes = code_rows(events.scenes, self.config.scenes)
        values = scale_values(events.values, kinds, self.config)
        for wave in order:
            for part in self._parts(wave):
                slots = events.slots[part]
                before = self._tensor(states[slots].astype(np.float32))
                inputs = StepInputs(
                    self._items[self._tensor(events.rows[part])],
                    self._tensor(kinds[part]),
                    self._tensor(scenes[part]),
                    self._tensor(values[part]),
                    self._tensor(gaps[part]),
                )
                after = self.model.step(before, inputs)
                states[slots] = _half(after)[: len(part)]
        return len(order)

    @torch.inference_mode()
    def rebuild(
        self,
        rows: NDArray[np.int64],
        kinds: NDArray[np.uint16],
        scenes: NDArray[np.uint32],
        values: NDArray[np.float32],
        times: NDArray[np.float64],
        lengths: NDArray[np.int64],
    ) -> NDArray[np.float16]:
        """Return states (B, state_dim) from the events that rings still hold.

        For states of another encoder, after a retraction, and after a late event. What left the
        ring is not in them.

        Args:
            rows: (B, T) of the item table, in the order of time, padded at the end.
            kinds: (B, T) codes.
            scenes: (B, T) codes.
            values: (B, T) raw.
            times: (B, T) float seconds.
            lengths: (B,) events of each user, 0 to T.
        """
        if not rows.size:
            return np.zeros((len(rows), self.state_dim), np.float16)
        latest = np.maximum.accumulate(times, axis=1)
        gaps = np.full(rows.shape, -1.0, np.float32)
        gaps[:, 1:] = np.maximum(times[:, 1:] - latest[:, :-1], 0.0)
        kind_rows = code_rows(kinds, self.config.kinds)
        events = StepInputs(
            self._items[self._tensor(rows)],
            self._tensor(kind_rows),
            self._tensor(code_rows(scenes, self.config.scenes)),
            self._tensor(scale_values(values, kind_rows, self.config)),
            self._tensor(gaps),
        )
        starts = self.model.start(len(events.items))
        _, states = self.model(starts, events, self._tensor(lengths))
        return _half(states)[: len(rows)]

    @torch.inference_mode()
    def queries(
        self,
        states: NDArray[np.float16],
        idle: NDArray[np.float64],
        events: NDArray[np.int64],
        attributes: NDArray[np.int64] | None = None,
    ) -> NDArray[np.float32]:
        """Return queries for the item index (B, D + 1): the last column, 1, takes the items' bias.

        Args:
            states: (B, state_dim) of the users.
            idle: (B,) seconds since the last event; larger for a time in the future; NaN for none.
            events: (B,) number of events of each user.
            attributes: (B, A) rows of attributes, 0 for none.
        """
        vectors = self.model.query(
            self._tensor(states[:, -self.model.dim :].astype(np.float32)),
            self._tensor(np.where(np.isnan(idle), -1.0, idle).astype(np.float32)),
            self._tensor(events.astype(np.float32)),
            None if attributes is None else self._tensor(attributes),
        )
        return cast(
            "NDArray[np.float32]",
            torch.cat([vectors, vectors.new_ones(len(vectors), 1)], dim=1)[: len(states)]
            .cpu()
            .numpy(),
        )

    def _parts(self, wave: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        most = BUCKETS[-1]
        return [wave[begin : begin + most] for begin in range(0, len(wave), most)]

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        """Copy an array to the device; on CUDA its first axis is padded to a bucket."""
        if self.device.type == "cuda":
            size = next((size for size in BUCKETS if size >= len(array)), len(array))
            array = np.concatenate(
                [array, np.zeros((size - len(array), *array.shape[1:]), array.dtype)]
            )
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def chunk_gaps(
    slots: NDArray[np.int64], times: NDArray[np.float64], last_times: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return (N,) seconds since the latest event of the user before each, -1 for the first ever.

    A late event has a gap of 0.

    Args:
        slots: (N,) of the users.
        times: (N,) of the events, in the order they came.
        last_times: (N,) the user's latest time before the chunk, NaN for none.
    """
    latest: dict[int, float] = {}
    gaps = np.empty(len(slots), np.float32)
    for place, (slot, time) in enumerate(zip(slots.tolist(), times.tolist(), strict=True)):
        before = latest.get(slot)
        if before is None:
            before = float(last_times[place])
        has_before = before == before
        gaps[place] = max(time - before, 0.0) if has_before else -1.0
        latest[slot] = max(time, before) if has_before else time
    return gaps


def with_bias(vectors: Tensor, biases: Tensor) -> NDArray[np.float32]:
    """Return item vectors (N, D + 1) for the index: inner product with a query is the score."""
    return cast(
        "NDArray[np.float32]", torch.cat([vectors, biases.unsqueeze(1)], dim=1).cpu().numpy()
    )


def _half(states: Tensor) -> NDArray[np.float16]:
    limit = torch.finfo(torch.float16).max
    return cast("NDArray[np.float16]", states.clamp(-limit, limit).half().cpu().numpy())


class _Step(nn.Module):
    def __init__(self, model: UserEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        state: Tensor,
        items: Tensor,
        kinds: Tensor,
        scenes: Tensor,
        values: Tensor,
        gaps: Tensor,
    ) -> Tensor:
        return self.model.step(state, StepInputs(items, kinds, scenes, values, gaps))


def export_step(model: UserEncoder) -> torch.export.ExportedProgram:
    """Return the step as a torch.export program of (state, *StepInputs), for any batch size."""
    users = 2
    example = (
        model.start(users),
        model.id_vectors.new_zeros(users, model.dim),
        torch.zeros(users, dtype=torch.int64),
        torch.zeros(users, dtype=torch.int64),
        torch.zeros(users, 2),
        torch.zeros(users),
    )
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple({0: batch} for _ in example)
    return torch.export.export(_Step(model.eval()), example, dynamic_shapes=shapes)
