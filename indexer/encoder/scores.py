"""Output of a UserEncoder on logged events: user vectors, item vectors, ranks, HR and NDCG."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer.encoder.sequences import Sequences, Window, batches, inputs
from indexer.evaluate.metrics import hit_rate_at_k, ndcg_at_k
from tracker.encoder.user_encoder import UserEncoder

TrendScores = Callable[[NDArray[np.float64], NDArray[np.int64]], Tensor]
"""Takes times (P,) and catalogue rows (C,), and returns the scores (P, C) that the trend adds."""

_SCORES = 1 << 23
"""Scores in memory at a time."""


@dataclass(frozen=True, slots=True)
class Items:
    """Catalogue as the encoder sees it: whitened texts (N, F) float32 and rows of ids (N,), 0 none.

    The items with an id are those of the softmax; `born` (N,) float64 is the time of the first
    event of each, infinity for none.
    """

    texts: NDArray[np.float32]
    ids: NDArray[np.int64]
    born: NDArray[np.float64]

    def rows(self) -> NDArray[np.int64]:
        """Return the catalogue row of each id, in order."""
        rows = np.flatnonzero(self.ids)
        return rows[np.argsort(self.ids[rows])]


def known_items(
    rows: NDArray[np.int64], times: NDArray[np.float64], items: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows of ids (N,), 0 for none, and the times of birth (N,) of catalogue rows.

    Args:
        rows: (E,) catalogue rows of the events to learn from, -1 for unknown items.
        times: (E,) of the events.
        items: N, of the catalogue.
    """
    ids, born = np.zeros(items, np.int64), np.full(items, np.inf)
    some = rows >= 0
    unique = np.unique(rows[some])
    ids[unique] = np.arange(1, len(unique) + 1)
    np.minimum.at(born, rows[some], times[some])
    return ids, born


@torch.no_grad()
def catalogue_table(model: UserEncoder, items: Items, chunk: int = 8192) -> tuple[Tensor, Tensor]:
    """Return vectors (N, D) and biases (N,) of the whole catalogue, on the model's device."""
    device = model.id_bias.device
    parts = []
    for begin in range(0, len(items.ids), chunk):
        texts = torch.from_numpy(items.texts[begin : begin + chunk]).to(device)
        ids = torch.from_numpy(items.ids[begin : begin + chunk]).to(device)
        parts.append(model.item_table(model.project(texts), ids))
    if not parts:
        return model.id_vectors.new_zeros(0, model.dim), model.id_bias.new_zeros(0)
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


@torch.no_grad()
def user_vectors(
    model: UserEncoder,
    sequences: Sequences,
    table: Tensor,
    places: NDArray[np.int64],
    events: int = 16384,
) -> NDArray[np.float32]:
    """Return the users' vectors (P, D) just before events.

    Args:
        model: in evaluation mode.
        sequences: all events.
        table: (N, D) item vectors by catalogue row.
        places: (P,) places of the events in the sequences.
        events: size of a batch, padding included.
    """
    device = table.device
    padded = torch.cat([table, table.new_zeros(1, table.shape[1])])  # row -1 is an unknown item
    result = np.zeros((len(places), model.dim), np.float32)
    where = np.full(len(sequences.rows), -1, np.int64)
    where[places] = np.arange(len(places))
    users = np.unique(np.searchsorted(sequences.starts, places, side="right") - 1)
    whole = [
        Window(u, int(sequences.starts[u]), int(sequences.starts[u + 1]), 0) for u in users.tolist()
    ]
    for batch in batches(sequences, whole, events, np.random.default_rng(0)):
        rows = torch.from_numpy(sequences.rows[batch.places]).to(device)
        steps = inputs(sequences, batch.places, padded[rows], device)
        lengths = torch.from_numpy(batch.lengths).to(device)
        outputs, _ = model(model.start(len(lengths)), steps, lengths)
        outputs = torch.cat([torch.zeros_like(outputs[:, :1]), outputs[:, :-1]], dim=1)
        inside = np.arange(batch.places.shape[1]) < batch.lengths[:, None]
        is_wanted = inside & (where[batch.places] >= 0)
        attributes = torch.from_numpy(sequences.attributes[batch.users]).to(device)
        attributes = attributes.unsqueeze(1).expand(-1, batch.places.shape[1], -1)
        selection = torch.from_numpy(is_wanted).to(device)
        queries = model.query(
            outputs[selection],
            steps.gaps[selection],
            torch.from_numpy(batch.before[is_wanted]).to(device, torch.float32),
            attributes[selection] if attributes.shape[2] else None,
        )
        result[where[batch.places[is_wanted]]] = queries.cpu().numpy()
    return result


@torch.no_grad()
def target_ranks(
    model: UserEncoder,
    sequences: Sequences,
    items: Items,
    places: NDArray[np.int64],
    repeats: bool,
    trend_scores: TrendScores | None = None,
) -> NDArray[np.float64]:
    """Return the rank (Q,) of targets among all items; ties count half, seen ones are out.

    `trend_scores` are added, if they are there.
    """
    chunk = max(1, min(512, _SCORES // max(len(items.ids), 1)))
    every = np.arange(len(items.ids))
    table, biases = catalogue_table(model, items)
    queries = torch.from_numpy(user_vectors(model, sequences, table, places)).to(table.device)
    starts = sequences.starts[np.searchsorted(sequences.starts, places, side="right") - 1]
    result = np.zeros(len(places))
    for begin in range(0, len(places), chunk):
        some = places[begin : begin + chunk]
        logits = queries[begin : begin + chunk] @ table.T + biases
        if trend_scores is not None:
            logits = logits + trend_scores(sequences.times[some], every)
        scores = logits.cpu().numpy()
        own = scores[np.arange(len(some)), sequences.rows[some]]
        if not repeats:
            for line, (place, start) in enumerate(
                zip(some.tolist(), starts[begin : begin + chunk].tolist(), strict=True)
            ):
                seen = sequences.rows[start:place]
                scores[line, seen[seen >= 0]] = -np.inf
        above = (scores > own[:, None]).sum(axis=1)
        level = (scores == own[:, None]).sum(axis=1)
        result[begin : begin + chunk] = 1.0 + above + np.maximum(level - 1, 0) / 2.0
    return result


def validate(
    model: UserEncoder,
    sequences: Sequences,
    items: Items,
    places: NDArray[np.int64],
    repeats: bool,
    trend_scores: TrendScores | None = None,
) -> tuple[float, float]:
    """Return HR@10 and NDCG@10 of targets by `target_ranks`, NaN without any."""
    if not len(places):
        return math.nan, math.nan
    ranks = target_ranks(model, sequences, items, places, repeats, trend_scores)
    return hit_rate_at_k(ranks, 10), ndcg_at_k(ranks, 10)
