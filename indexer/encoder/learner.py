"""The loss and the epochs of a UserEncoder's training: softmax over items, next to the trend."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexer.encoder.optimizer import AdamW
from indexer.encoder.scores import Items
from indexer.encoder.sequences import Batch, Sequences, Window, batches, inputs
from indexer.encoder.trend import TREND_HALF_LIVES, Trend
from tracker.encoder.user_encoder import UserEncoder


class OtherScores(torch.autograd.Function):
    """Log of the sum of exp(score) over a target's other items: (P,).

    Scores are `queries @ vectors.T + biases + trend + correction`. The gradient of the result with
    respect to them is a softmax, so the one table (P, C) that is kept is that, made in place;
    autograd would keep and copy the table at every step. `OtherScores.apply` takes:

    - `queries` (P, D), `vectors` (C, D) and `biases` (C,);
    - `trend` (H, P, C) and its `weights` (H,), or None and anything: no gradient goes to `trend`;
    - `correction` (C,), or None;
    - `left_out` (P, C) bool, the scores that do not count: the target's own among them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        vectors: Tensor,
        biases: Tensor,
        trend: Tensor | None,
        weights: Tensor,
        correction: Tensor | None,
        left_out: Tensor,
    ) -> Tensor:
        """Return the sums, -inf for a target without other items."""
        added = biases if correction is None else biases + correction
        table = torch.addmm(added, queries, vectors.T)
        if trend is not None:
            table.view(-1).addmv_(trend.view(len(weights), -1).T, weights)
        table.masked_fill_(left_out, -torch.inf)
        most = table.amax(dim=1, keepdim=True) if table.shape[1] else table.new_zeros(len(table), 1)
        most.masked_fill_(most == -torch.inf, 0.0)
        table.sub_(most).exp_()
        sums = table.sum(dim=1, keepdim=True)
        table.div_(sums.clamp(min=1e-30))
        ctx.save_for_backward(queries, vectors, table, trend)
        return (sums.log() + most).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, vectors, biases and the trend's weights."""
        queries, vectors, table, trend = ctx.saved_tensors
        scale = gradients[0].unsqueeze(1)
        to_vectors, to_biases = table.T @ (scale * queries), table.T @ gradients[0]
        to_queries = scale * (table @ vectors)
        to_weights = None
        if trend is not None:
            to_weights = torch.mv(trend.view(len(trend), -1), (table * scale).view(-1))
        return to_queries, to_vectors, to_biases, None, to_weights, None, None


class EncoderOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hyperparameters of an encoder's fit.

    Up to `full_up_to` items the softmax is over all of them; beyond, over the target and `sampled`
    others, half uniform and half by popularity, with the logQ correction: a step then takes the
    same time however many items there are. `only_born` leaves items out of the
    negatives of a target that was there before them. `item_dropout` is the share of events whose
    item is hidden, so that an unknown item is nothing new. An epoch takes `epoch_events` at most,
    drawn for each epoch. The learning rate falls from epoch to epoch like half a cosine. Training
    stops when validation NDCG@10 has not risen for `patience` epochs; popularity is learned first,
    and the first five epochs may show nothing else.
    """

    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    clip: float = 5.0
    epochs: int = 10
    patience: int = 5
    window: int = 200
    batch_events: int = 1024
    epoch_events: int = 400_000
    full_up_to: int = 2048
    sampled: int = 1024
    only_born: bool = True
    item_dropout: float = 0.02
    repeats: bool = False
    seed: int = 0


Report = Callable[[int, float, float, float], None]
"""Called after each batch with the epoch, its share done, its loss, and the NDCG@10 so far."""


class Trained(nn.Module):
    """An encoder in training, and the weight of the trend next to it.

    A score in training is that of the encoder plus the weighted trend of the item at the target's
    time, so that the encoder does not have to learn popularity. The encoder serves without it: the
    ranker has the trend in columns of its own.
    """

    def __init__(self, encoder: UserEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.trend_weights = nn.Parameter(torch.full((len(TREND_HALF_LIVES),), TREND_START))


TREND_START = 0.1
"""Initial weights of the trends, in nats per log2; learned ones are about as large."""


class Learner:
    """Training epochs over the same windows."""

    def __init__(
        self,
        trained: Trained,
        sequences: Sequences,
        items: Items,
        train: NDArray[np.bool_],
        options: EncoderOptions,
        device: torch.device,
        trend: Trend | None = None,
    ) -> None:
        self.trained, self.model = trained, trained.encoder
        self.sequences, self.options, self.device = sequences, options, device
        self.trend = trend
        rows = items.rows()
        self.rows = rows  # (I,) by id - 1
        self.texts = torch.from_numpy(items.texts[rows]).to(device)  # (I, F) by id - 1
        self.born = torch.from_numpy(items.born[rows]).to(device)
        self.ids = torch.arange(1, len(rows) + 1, device=device)
        seen = sequences.ids[train[sequences.positions]]
        counts = np.bincount(seen[seen > 0] - 1, minlength=len(rows)).astype(np.float64)
        share = 0.5 / max(len(rows), 1) + 0.5 * counts / max(counts.sum(), 1.0)
        self.share = torch.from_numpy(share).to(device, torch.float32)
        self.shares_below = torch.from_numpy(np.cumsum(share)).to(device, torch.float32)
        self._place = torch.zeros(len(rows) + 1, dtype=torch.int64, device=device)

    def epoch(
        self,
        epoch: int,
        segments: list[Window],
        optimizer: AdamW,
        best: float,
        report: Report | None,
    ) -> float:
        """Train on all windows once, and return the mean loss of a target."""
        trained, options = self.trained, self.options
        trained.train()
        # An epoch's draws depend on its number alone, so that a resumed training ends as one
        # without an interruption.
        generator = np.random.default_rng((options.seed, epoch))
        torch.manual_seed(options.seed * 1_000_003 + epoch)
        sample = self.part(segments, generator)
        padded = list(batches(self.sequences, sample, options.batch_events, generator))
        total, targets = 0.0, 0
        for number, batch in enumerate(padded, 1):
            count = int(batch.targets.sum())
            if not count:
                continue
            loss = self.loss(batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained.parameters(), options.clip)
            optimizer.step()
            total += float(loss.detach()) * count
            targets += count
            if report is not None:
                report(epoch, number / len(padded), total / targets, best)
        trained.eval()
        return total / max(targets, 1)

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean softmax cross-entropy of the batch's targets."""
        model, sequences, device = self.model, self.sequences, self.device
        ids = torch.from_numpy(sequences.ids[batch.places]).to(device)  # (B, T)
        columns, others, correction = self._columns(ids)
        projected = model.project(self.texts[columns])  # (U, D)
        place = self._place
        place[columns + 1] = torch.arange(len(columns), device=device)
        items = model.item_inputs(projected[place[ids]], ids) * (ids > 0).unsqueeze(-1)
        hide = torch.rand(ids.shape, device=device) < self.options.item_dropout
        items = items.masked_fill(hide.unsqueeze(-1), 0.0)
        events = inputs(sequences, batch.places, items, device)
        lengths = torch.from_numpy(batch.lengths).to(device)
        outputs, _ = model(model.start(len(lengths)), events, lengths)
        first = outputs.new_zeros(len(outputs), 1, outputs.shape[2])
        outputs = torch.cat([first, outputs[:, :-1]], dim=1)  # before each event
        attributes = torch.from_numpy(sequences.attributes[batch.users]).to(device)  # (B, A)
        queries = model.query(
            outputs,
            events.gaps,
            torch.from_numpy(batch.before).to(device, torch.float32),
            attributes.unsqueeze(1) if sequences.attributes.shape[1] else None,
        )
        is_target = torch.from_numpy(batch.targets).to(device)
        queries, own = queries[is_target], place[ids[is_target]]  # (P, D), (P,)
        times = sequences.times[batch.places[batch.targets]]  # (P,)
        vectors, biases = model.item_table(projected, columns + 1)
        positive = (queries * vectors[own]).sum(dim=1) + biases[own]
        left_out = others == own.unsqueeze(1)  # (P, C)
        trend = None
        weights = self.trained.trend_weights
        if self.trend is not None:
            rows = self.rows[columns.cpu().numpy()]
            popularity = self.trend.at(times, rows[others.cpu().numpy()])
            trend = torch.from_numpy(popularity).to(device)
            own_trend = torch.from_numpy(self.trend.of(times, rows[own.cpu().numpy()])).to(device)
            positive = positive + weights @ own_trend
        if self.options.only_born:
            moments = torch.from_numpy(times).to(device)
            left_out |= self.born[columns[others]] > moments.unsqueeze(1)
        if len(others) < len(columns):
            vectors, biases = vectors[others], biases[others]
        sums: Tensor = OtherScores.apply(
            queries, vectors, biases, trend, weights, correction, left_out
        )
        return nn.functional.softplus(sums - positive).mean()

    def trend_scores(self, times: NDArray[np.float64], rows: NDArray[np.int64]) -> Tensor:
        """Return the scores (P, C) that the trend adds for items (C,) at times (P,)."""
        if self.trend is None:
            return self.trained.trend_weights.new_zeros(())
        popularity = torch.from_numpy(self.trend.at(times, rows)).to(self.device)  # (H, P, C)
        added: Tensor = torch.tensordot(self.trained.trend_weights, popularity, dims=1)
        return added

    def part(self, segments: list[Window], generator: np.random.Generator) -> list[Window]:
        """Return a random sample of windows with as many events as an epoch may have."""
        events = sum(window.end - window.begin for window in segments)
        if events <= self.options.epoch_events:
            return segments
        share = self.options.epoch_events / events
        order = generator.permutation(len(segments))[: math.ceil(share * len(segments))]
        return [segments[place] for place in order.tolist()]

    def _columns(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the items of a batch, the others of the softmax, and a correction of their scores.

        Another item drawn c times of n with share q stands for c / (n q) items, so that the sum
        over those drawn has the sum over all as its mean.
        Source: Bengio & Senecal 2008, "Adaptive importance sampling"; the target itself is always
        there and is not corrected.

        Args:
            ids: (B, T) of the batch's events, 0 for none.

        Returns:
            items as id - 1 (U,), ascending: the batch's own and the others; places (C,) of the
            others among them; the correction (C,), None where the others are all items.
        """
        if len(self.ids) <= self.options.full_up_to:
            return self.ids - 1, self.ids - 1, None
        draws = torch.searchsorted(
            self.shares_below, torch.rand(self.options.sampled, device=self.device)
        ).clamp(max=len(self.ids) - 1)
        sample, counts = torch.unique(draws, return_counts=True)
        columns = torch.unique(torch.cat([sample, ids[ids > 0] - 1]))
        correction = torch.log(counts / (self.options.sampled * self.share[sample]))
        return columns, torch.searchsorted(columns, sample), correction
