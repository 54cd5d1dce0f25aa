"""UserEncoder: torch model of interest; forward() over histories, step() by one event."""

import json
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tracker.encoder.cells import CellName, make_cell
from tracker.events.wire import hash_id
from tracker.explained import first_line

GAP_BUCKETS = 28
"""Bucket b begins at a gap of 2^b - 1 seconds; the last one at four years."""

VALUE_LIMIT = 3.0
"""Values are cut at this number of standard deviations of their kind."""


class EncoderFileError(ValueError):
    """The weights cannot be used; the message names what was found and expected."""


class EncoderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of a UserEncoder, saved with the weights and read back from them.

    `text_dim` is the width of the whitened text vectors. `ids` counts items with a vector of their
    own. `kinds`, `scenes` and `attributes` are the codes that have one (`kind_code`, `scene_code`,
    `attribute_code`), in the order of their rows; all others share row 0. `values` are the mean
    and the standard deviation of the values of each kind. Dropouts act in training only.
    """

    format: int = 1
    cell: CellName = "gru"
    dim: int = 64
    text_dim: int = 384
    ids: int = 0
    kinds: tuple[int, ...] = ()
    values: tuple[tuple[float, float], ...] = ()
    scenes: tuple[int, ...] = ()
    attributes: tuple[int, ...] = ()
    dropout: float = 0.4
    id_dropout: float = 0.2


class StepInputs(NamedTuple):
    """Events as the model takes them, (B,) for a step and (B, T) for histories.

    `items` (..., D) float32 are item vectors (`item_inputs`, or a row of the item table; zeros for
    an item nobody knows). `kinds` and `scenes` int64 are rows (`kind_rows`, `scene_rows`), 0 for
    unknown ones. `values` (..., 2) float32 come from `scale_values`. `gaps` float32 are seconds
    since the user's event before, negative if there is none.
    """

    items: Tensor
    kinds: Tensor
    scenes: Tensor
    values: Tensor
    gaps: Tensor


class UserEncoder(nn.Module):
    """Events to user vectors, and items to vectors of the same space.

    The state of a user is (state_dim,): the cell's own state, then the output after the last event.
    A user without events has zeros. `query` reads the output, never writes, and depends on the
    time since the last event, so that interest moves on while nothing happens. The score of an
    item is `query @ vector + bias`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        _check_format(config)
        self.config = config
        dim = config.dim
        self.dim = dim
        self.id_vectors = nn.Parameter(torch.randn(config.ids + 1, dim) * 0.02)
        self.id_bias = nn.Parameter(torch.zeros(config.ids + 1))
        self.text = nn.Sequential(
            nn.Linear(config.text_dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        self.kind_vectors = nn.Parameter(torch.randn(len(config.kinds) + 1, dim) * 0.02)
        self.scene_vectors = nn.Parameter(torch.zeros(len(config.scenes) + 1, dim))
        self.attribute_vectors = nn.Parameter(torch.zeros(len(config.attributes) + 1, dim))
        self.gap_vectors = nn.Parameter(torch.randn(GAP_BUCKETS + 1, dim) * 0.02)
        self.idle_vectors = nn.Parameter(torch.randn(GAP_BUCKETS + 1, dim) * 0.02)
        self.values = nn.Linear(2, dim, bias=False)
        self.fade = nn.Parameter(torch.tensor(math.log(math.expm1(3.0))))
        self.enter = nn.LayerNorm(dim)
        self.cell = make_cell(config.cell, dim)
        self.state_dim = (self.cell.parts + 1) * dim
        self.mix = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        self.head = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.leave = nn.LayerNorm(dim)
        # The mean user vector of a training: what an item's score is for everybody.
        self.register_buffer("mean_query", torch.zeros(dim))
        self.drop = nn.Dropout(config.dropout)

    # Items

    def item_inputs(self, projected: Tensor, ids: Tensor) -> Tensor:
        """Return vectors of items in events, their id part left out at random in training.

        Args:
            projected: (..., D) float32 from `project`.
            ids: (...) int64 rows of ids, 0 for an unknown one.
        """
        return projected + self._id_weights(ids).unsqueeze(-1) * self.id_vectors[ids]

    def item_table(self, projected: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors (N, D) and biases (N,) by which items are scored.

        A cold item has the mean bias of the warm ones, and no id part. In training an item is cold
        at random, so that a vector from text alone meets positives too.
        """
        weights = self._id_weights(ids)  # (N,)
        vectors = projected + weights.unsqueeze(-1) * self.id_vectors[ids]
        mean = self.id_bias[1:].mean() if self.config.ids else self.id_bias[0]
        return vectors, torch.where(weights > 0, self.id_bias[ids], mean)

    def project(self, texts: Tensor) -> Tensor:
        """Return the part of item vectors that text alone gives: (..., F) to (..., D) float32.

        Texts are whitened and of unit length, zeros for none.
        """
        # Unit length of F components to components of size 1; no text stays nothing.
        some: Tensor = torch.linalg.vector_norm(texts, ord=1, dim=-1, keepdim=True) > 0
        factor = math.sqrt(self.config.text_dim)
        scaled = _dropped(texts, self.drop.p, factor) if self.training else texts * factor
        projected: Tensor = self.text(scaled)
        return projected * some

    def _id_weights(self, ids: Tensor) -> Tensor:
        weights = (ids > 0).to(self.id_vectors.dtype)
        if not self.training or self.config.id_dropout == 0:
            return weights
        return weights * (torch.rand_like(weights) >= self.config.id_dropout)

    # Events

    def start(self, users: int) -> Tensor:
        """Return the states of users without events, (users, state_dim)."""
        return self.id_vectors.new_zeros(users, self.state_dim)

    def forward(self, state: Tensor, events: StepInputs, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run over histories.

        Args:
            state: (B, state_dim) before the first event.
            events: their columns (B, T), padded at the end.
            lengths: (B,) int64 events of each user, 0 to T.

        Returns:
            outputs (B, T, D) after each event, meaningless past the end, and states (B, state_dim)
            at the end.
        """
        inputs = self._inputs(events)  # (B, T, D)
        some = lengths.clamp(min=1)
        hidden, inner = self.cell(self.enter(inputs), state[:, : -self.dim], some)
        outputs = self._mixed(inputs, hidden)  # (B, T, D)
        last = (some - 1).view(-1, 1, 1).expand(-1, 1, self.dim)
        after = torch.cat([inner, outputs.gather(1, last).squeeze(1)], dim=-1)
        return outputs, torch.where((lengths > 0).unsqueeze(-1), after, state)

    def step(self, state: Tensor, events: StepInputs) -> Tensor:
        """Run one event of each user: states (B, state_dim) before to states after."""
        inputs = self._inputs(events)  # (B, D)
        hidden, inner = self.cell.step(self.enter(inputs), state[:, : -self.dim])
        return torch.cat([inner, self._mixed(inputs, hidden)], dim=-1)

    def query(
        self, outputs: Tensor, idle: Tensor, events: Tensor, attributes: Tensor | None = None
    ) -> Tensor:
        """Return user vectors at a moment, now or in the future.

        Args:
            outputs: (..., D) after the last event: the last D columns of a state.
            idle: (...) float32 seconds since that event, negative if there is none. An hour
                more asks for the interest in an hour.
            events: (...) number of events of the user.
            attributes: (..., A) int64 rows of attributes, 0 for none.

        Returns:
            (..., D) float32. What attributes add weighs `m / (m + events)`, with m learned.
        """
        moment = _between(self.idle_vectors, idle)
        moved = outputs + self.head(torch.cat([outputs, moment], dim=-1))
        vectors: Tensor = self.leave(self.drop(moved))
        if attributes is not None:
            half = functional.softplus(self.fade)
            weight = (half / (half + events)).unsqueeze(-1)
            vectors = vectors + weight * self.attribute_part(attributes)
        return vectors

    def attribute_part(self, attributes: Tensor) -> Tensor:
        """Return the vectors of users' attributes: (..., A) rows, 0 for none, to (..., D)."""
        is_given = (attributes > 0).unsqueeze(-1)  # (..., A, 1)
        total = (self.attribute_vectors[attributes] * is_given).sum(dim=-2)
        return total / is_given.sum(dim=-2).clamp(min=1).sqrt()

    def _inputs(self, events: StepInputs) -> Tensor:
        inputs = events.items + self.kind_vectors[events.kinds] + self.scene_vectors[events.scenes]
        inputs = inputs + self.values(events.values) + _between(self.gap_vectors, events.gaps)
        dropped: Tensor = self.drop(inputs)
        return dropped

    def _mixed(self, inputs: Tensor, hidden: Tensor) -> Tensor:
        outputs = inputs + self.drop(hidden)
        mixed: Tensor = outputs + self.drop(self.mix(outputs))
        return mixed


def _dropped(values: Tensor, share: float, factor: float) -> Tensor:
    """Return values times a factor, a share of them 0 and the others the larger for it.

    As dropout, but by a random byte each, drawn eight at a time: a share of 256ths.
    """
    level = round(256.0 * share)
    words = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device)
    random_bytes = (
        words.random_(-(2**63), None).view(torch.uint8)[: values.numel()].view(values.shape)
    )
    return (values * (factor * 256.0 / (256.0 - level))).masked_fill_(random_bytes < level, 0.0)


def _between(vectors: Tensor, seconds: Tensor) -> Tensor:
    """Look up log2 buckets of time, linear between two of them; the last row is for no time."""
    place = torch.log2(1.0 + seconds.clamp(min=0.0)).clamp(max=GAP_BUCKETS - 1.001)
    low = place.floor()
    share = (place - low).unsqueeze(-1)
    row = low.long()
    factors = vectors[row] * (1.0 - share) + vectors[row + 1] * share
    return torch.where((seconds < 0).unsqueeze(-1), vectors[-1], factors)


# Codes to rows


def attribute_code(name: str, value: str) -> int:
    """Return the 63-bit code of one value of a user's attribute."""
    return hash_id(f"{name}\x1f{value}") >> 1


def code_rows(codes: NDArray[np.generic], table: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the row of each code, 1 on for those in `table` and 0 for any other.

    >>> code_rows(np.array([7, 5, 6]), (5, 7)).tolist()
    [2, 1, 0]
    """
    return _rows_among(codes.astype(np.int64), *_ordered(table))


def id_rows(hashes: NDArray[np.uint64], id_hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the row of the id vector of each item of a catalogue, 0 for none.

    Args:
        hashes: (N,) of the catalogue.
        id_hashes: (I,) of the items that have one, in the order of their rows 1 to I.
    """
    table = id_hashes.view(np.int64)
    order = np.argsort(table)
    return _rows_among(hashes.view(np.int64), table[order], order + 1)


@cache
def _ordered(table: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes of a table in order, and their rows, 1 on."""
    order = np.argsort(np.array(table, np.int64))
    return np.array(table, np.int64)[order], order + 1


def _rows_among(
    codes: NDArray[np.int64], table: NDArray[np.int64], table_rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the row of each code in an ordered table, 0 for none."""
    if not len(table):
        return np.zeros(codes.shape, np.int64)
    place = np.minimum(np.searchsorted(table, codes), len(table) - 1)
    rows: NDArray[np.int64] = np.where(table[place] == codes, table_rows[place], 0)
    return rows


def scale_values(
    values: NDArray[np.float32], kinds: NDArray[np.int64], config: EncoderConfig
) -> NDArray[np.float32]:
    """Return (..., 2) float32: whether an event has a value, and its deviation for its kind.

    Args:
        values: (...) raw, NaN for none.
        kinds: (...) rows of kinds.
        config: its `values` are the means and deviations; an unknown kind has (0, 1).
    """
    table = np.array([(0.0, 1.0), *config.values], np.float32)
    mean, deviation = table[kinds, 0], table[kinds, 1]
    is_given = np.isfinite(values)
    scaled = np.where(is_given, (np.where(is_given, values, 0.0) - mean) / deviation, 0.0)
    return np.stack([is_given, scaled.clip(-VALUE_LIMIT, VALUE_LIMIT)], axis=-1).astype(np.float32)


# The file


def save_encoder(model: UserEncoder, id_hashes: NDArray[np.uint64], path: Path) -> None:
    """Write weights, configuration and the hashes of the items with an id part as safetensors.

    Args:
        model: what to write.
        id_hashes: (I,) of the items with a row, in the order of the rows.
        path: the file.

    Raises:
        ValueError: `id_hashes` are not as many as the configuration's `ids`, or not all different.
    """
    different = len(np.unique(id_hashes))
    if len(id_hashes) != model.config.ids or different != len(id_hashes):
        raise ValueError(
            f"{len(id_hashes)} id hashes, {different} of them different, for"
            f" {model.config.ids} ids; expected one each"
        )
    tensors = {name: value.detach().cpu().contiguous() for name, value in _weights(model)}
    tensors["id_hashes"] = torch.from_numpy(id_hashes.view(np.int64).copy())
    save_file(tensors, path, {"config": msgspec.json.encode(model.config).decode()})


def load_encoder(path: Path) -> tuple[UserEncoder, NDArray[np.uint64]]:
    """Read what `save_encoder` wrote; the model is in evaluation mode on the CPU.

    Raises:
        EncoderFileError: the file is not one, its weights are not those of its configuration, or
            not all are finite.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = msgspec.json.decode(metadata.get("config", ""), type=EncoderConfig)
        hashes = tensors.pop("id_hashes")
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        _check_format(config)
        expected = _sizes(config)
        # A configuration asks for no more memory than its file has. Torch's own way to ask for
        # none, the device "meta", imports what compiles models: seconds at each start.
        model = None
        if expected.items() <= shapes.items():
            model = UserEncoder(config)
            expected = {name: tuple(value.shape) for name, value in _weights(model)}
    except (OSError, SafetensorError, msgspec.MsgspecError, KeyError, RuntimeError) as error:
        raise EncoderFileError(f"{path}: not a user encoder: {first_line(error)}") from error
    if (
        model is None
        or shapes != expected
        or len(hashes) != config.ids
        or hashes.dtype != torch.int64
    ):
        differing = sorted(set(shapes.items()) ^ set(expected.items()))
        raise EncoderFileError(
            f"{path}: weights are not those of its configuration {json.dumps(metadata)[:200]};"
            f" differing: {differing[:3]}; train again"
        )
    if bad := [name for name, value in tensors.items() if not torch.isfinite(value).all()]:
        raise EncoderFileError(f"{path}: weights {bad[0]!r}: not all are finite; train again")
    if bad_values := [pair for pair in config.values if not (math.isfinite(sum(pair)) and pair[1])]:
        raise EncoderFileError(
            f"{path}: values of a kind have mean and deviation {bad_values[0]}; finite numbers, the"
            " deviation not 0, are expected; train again"
        )
    model.load_state_dict(tensors)
    return model.eval(), hashes.numpy().view(np.uint64)


def _check_format(config: EncoderConfig) -> None:
    if config.format != 1:
        raise EncoderFileError(f"user encoder of format {config.format}; expected 1")


def _sizes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that have every number of a configuration in them."""
    dim = config.dim
    return {
        "id_vectors": (config.ids + 1, dim),
        "text.0.weight": (2 * dim, config.text_dim),
        "head.2.weight": (dim, dim),
    }


def _weights(model: UserEncoder) -> list[tuple[str, Tensor]]:
    return list(model.state_dict().items())
