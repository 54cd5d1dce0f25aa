"""Fit the ranker's network on examples: softmax over candidates, early stopping, one seed."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexer.encoder.choice import cores
from indexer.encoder.optimizer import AdamW
from indexer.evaluate.metrics import gains_at_k, hit_rate_at_k, ndcg_at_k
from indexer.replay.ranker_examples import HARD, Examples
from indexer.train.linear_fit import fit_linear
from indexer.train.ranker_net import Net, merged
from tracker.kernels.native import native
from tracker.scoring.context import COLUMNS, LATE
from tracker.scoring.features import OPTIONAL, TREND_KNEE
from tracker.scoring.network import Network

Array = NDArray[Any]

MIN_EXAMPLES = 100
"""Fewest targets that a ranker is fitted on: the fixed blend is better than their noise."""

CUT_COLUMNS = (
    ("content_60", "content_95"), ("trend_short",), ("neighbours_95",), ("negative",), ("repeats",),
    ("encoder",),
)  # fmt: skip
"""The features of the recommender's first cut, in the order of `Ranker.cut_weights`."""

WORTH = ("probability", "item_weights")
"""Late columns that a ranker reads only where they are worth their time."""

LATE_EXAMPLES = 8000
"""Number of the latest fresh targets that the weights of late columns are fitted on."""

THINNED, LEAST_THINNED = 3, 48
"""Of the candidates behind the hard ones, one of so many is used in a step, if there are enough."""

CUT_STEPS = 300
"""Optimiser steps of the weights of the first cut."""

LEAST_GAIN = 0.01
"""Nats that OPTIONAL columns must gain on held-out targets: less is not worth their time."""

ALONE_EXAMPLES = 4000
"""Number of the latest targets, of those fitted on, by which the best single column is chosen."""

ALONE_ERROR = 0.02
"""Largest standard error, as a share of NDCG@10, with which a single column may replace all."""

LINEAR_EXAMPLES, LINEAR_PENALTY = 8000, 1e-4
"""Number of the latest targets that the linear score is fitted on; its penalty on squared weights,
which keeps it finite where one column tells all."""


class RankerOptions(msgspec.Struct, frozen=True):
    """Hyperparameters of the ranker. The number of epochs follows from `steps`, within its bounds.

    `hidden` are the widths of each of the `members`: networks that differ by their seed. Their mean
    serves as one network of `members` times the widths.
    """

    hidden: tuple[int, int] = (32, 32)
    members: int = 2
    learning_rate: float = 8e-3
    weight_decay: float = 0.1
    batch_size: int = 64
    steps: int = 2700
    min_epochs: int = 4
    max_epochs: int = 30
    warmup_steps: int = 50
    validation_share: float = 0.12
    seed: int = 0


class Epoch(msgspec.Struct, frozen=True):
    """One line of the training curve; losses in nats, NDCG over all items as estimated."""

    epoch: int
    loss: float
    validation_loss: float
    validation_hit_rate_at_10: float
    validation_ndcg_at_10: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted network, its curve, and the epoch whose weights were kept."""

    network: Network
    curve: list[Epoch]
    best: int


def fit_ranker(
    examples: Examples,
    options: RankerOptions,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> Fitted:
    """Fit a network to put each target above the other candidates.

    1. Leave out columns that never differ, and OPTIONAL ones that a linear score gains nothing
       by; standardise the others. LATE columns wait for step 5.
    2. Fit on all but the latest targets; the epoch of the least loss on these is the best.
    3. Fit a linear score beside it, and how much of each the held-out targets want: where choices
       follow one line of arithmetic, hidden layers learn noise, and get little.
    4. Fit the members on all targets, for as many epochs, at the same rates. They differ by their
       seed; the mean of their scores, and the linear score by its part, is the score.
    5. Fit the weights of LATE columns beside the score on fresh targets, and those of the features
       of the recommender's first cut. Leave the probability out if it adds nothing.

    Where held-out targets are ranked as well by one column alone, that column is the score, and
    steps 4 and 5 fit the first cut only: see `_column_alone`.

    The loss is softmax cross-entropy, a candidate that stands for several items counted as so
    many. The same seed gives the same weights on one machine.

    Args:
        examples: in time order; at least MIN_EXAMPLES.
        options: hyperparameters.
        report: called after each epoch of step 2.

    Raises:
        ValueError: there are fewer examples, or no column differs between candidates.
    """
    # 1. Leave out columns that say nothing. 2. Find the best epoch.
    first = _begin(examples, options, report)
    data, scale, epochs, curve = first.data, first.scale, first.epochs, first.curve
    fitted, validation = parted(examples, options)
    best = first.best.epoch
    with one_thread():
        # 3. Fit a linear score, and the parts of both.
        parts = _parts(data, first.net, _linear_weights(data, fitted), validation)
        every = np.arange(len(examples))
        alone = _column_alone(examples, first, options, parts)
        if alone is not None:
            cut = _cut_weights(examples, options)
            return Fitted(_network_alone(data, every, alone, cut), curve, best)
        nets = [_new_net(data, options, member) for member in range(options.members)]

        def fit(member: int) -> Net:
            return _fit(data, every, options, nets[member], member, best, epochs)

        with ThreadPoolExecutor(min(cores(), options.members)) as executor:
            members = list(executor.map(fit, range(options.members)))  # 4. Fit the members.
        linear = _linear_weights(data, every)
        for net in members:
            net.mix(linear, parts)
        modelled = np.flatnonzero((scale > 1e-4) & np.isin(COLUMNS, LATE))
        # 5. Fit the weights of late columns and of the first cut.
        scaled, added, modelled = _late_weights(
            data, members, examples, modelled, np.flatnonzero(examples.fresh)
        )
        cut = _cut_weights(examples, options)
    names = [COLUMNS[column] for column in [*data.columns.tolist(), *modelled.tolist()]]
    return Fitted(Network(names, merged(members, scaled, added, cut)), curve, best)


def best_epoch(examples: Examples, options: RankerOptions) -> Epoch:
    """Return what held-out targets say of the best epoch: steps 1 and 2 of `fit_ranker`."""
    return _begin(examples, options).best


class _FirstFit(NamedTuple):
    """The examples, scales (P,) of all columns, and the first fit, at its best epoch."""

    data: "RankerTensors"
    scale: NDArray[np.float32]
    epochs: int
    curve: list[Epoch]
    net: Net

    @property
    def best(self) -> Epoch:
        """The epoch of the least loss."""
        return min(self.curve, key=lambda line: line.validation_loss)


def _begin(
    examples: Examples,
    options: RankerOptions,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> _FirstFit:
    if len(examples) < MIN_EXAMPLES:
        raise ValueError(f"{len(examples)} examples; at least {MIN_EXAMPLES} are needed")
    sample = examples.features[:: max(1, len(examples) // 4000)].astype(np.float32)
    filled = np.isfinite(examples.offsets[:: max(1, len(examples) // 4000)])
    values = sample[filled]
    shift, scale = values.mean(axis=0), values.std(axis=0)
    late = np.isin(COLUMNS, LATE)
    columns = np.flatnonzero((scale > 1e-4) & ~late)
    if not len(columns):
        raise ValueError("no feature differs between candidates; the events say nothing")
    data = RankerTensors(
        torch.from_numpy(examples.features), torch.from_numpy(examples.offsets),
        torch.from_numpy(columns), torch.from_numpy(shift[columns]),
        torch.from_numpy(scale[columns]),
    )  # fmt: skip
    fitted, validation = parted(examples, options)
    optional = np.isin(columns, [COLUMNS.index(name) for name in OPTIONAL])
    if optional.any() and not optional.all():
        without = _with_columns(data, ~optional)
        with one_thread():
            gained = _gain(without, data, fitted, validation)
        data = data if gained > LEAST_GAIN else without
    wanted_epochs = math.ceil(options.steps * options.batch_size / len(fitted))
    epochs = min(options.max_epochs, max(options.min_epochs, wanted_epochs))
    curve: list[Epoch] = []
    best_net: list[Net] = []

    def measure(epoch: int, net: Net, loss: float) -> None:
        line = measure_epoch(epoch, net, data, validation, loss)
        if all(line.validation_loss < earlier.validation_loss for earlier in curve):
            best_net[:] = [deepcopy(net)]
        curve.append(line)
        report(line)

    with one_thread():
        _fit(data, fitted, options, _new_net(data, options, 0), 0, epochs, epochs, measure)
    return _FirstFit(data, scale, epochs, curve, best_net[0])


def _with_columns(data: "RankerTensors", which: NDArray[np.bool_]) -> "RankerTensors":
    """Return the examples with some of their columns (P,)."""
    places = torch.from_numpy(np.flatnonzero(which))
    return replace(
        data, columns=data.columns[places], shift=data.shift[places], scale=data.scale[places]
    )


def _gain(
    without: "RankerTensors",
    data: "RankerTensors",
    fitted: NDArray[np.int64],
    validation: NDArray[np.int64],
) -> float:
    """Return the nats that a linear score of more columns gains on targets not fitted on.

    No more than is beyond twice the standard error.
    """
    losses = []
    for some in (without, data):
        weights = _linear_weights(some, fitted)
        scores, offsets = _scores(some, validation, _linear(some, weights))
        losses.append(target_losses(scores + offsets).numpy())
    gains = losses[0] - losses[1]
    return float(gains.mean() - 2.0 * gains.std() / math.sqrt(len(gains)))


def _linear(data: "RankerTensors", weights: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the linear score of features with weights (P,) of standardised columns."""
    return lambda x: ((x - data.shift) / data.scale) @ weights


def parted(
    examples: Examples, options: RankerOptions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the examples that are fitted on, and of the latest, held out."""
    late = max(1, round(len(examples) * options.validation_share))
    every = np.arange(len(examples))
    return every[:-late], every[-late:]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: the matrices are small, and the sums stay in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True, slots=True)
class RankerTensors:
    """The examples as tensors: features stay in half precision, a batch is brought up."""

    features: Tensor
    offsets: Tensor
    columns: Tensor
    shift: Tensor
    scale: Tensor

    def batch(self, events: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return features (B, C, P) and offsets (B, C) of some examples."""
        places = torch.from_numpy(events)
        features = self.features[places].index_select(2, self.columns).float()
        return features, self.offsets[places]

    def thinned(self, events: NDArray[np.int64], step: int) -> tuple[Tensor, Tensor]:
        """Return the same with one of THINNED of the last candidates, others at the next step.

        Those are of the uniform sample, of which each then stands for so many more: the sum over
        all items keeps its mean.
        """
        places = self._thinned_places(step)
        lines = torch.from_numpy(events).unsqueeze(1)
        features = self.features[lines, places].index_select(2, self.columns).float()
        return features, self._thinned_offsets(events, places)

    def standardised(self, events: NDArray[np.int64], step: int) -> tuple[Tensor, Tensor]:
        """Return what `thinned` does, (features - shift) / scale, in one pass over the features."""
        places = self._thinned_places(step)
        out = np.empty((len(events), len(places), len(self.columns)), np.float32)
        halves = self.features.numpy().view(np.uint16)
        columns, shift, scale = (one.numpy() for one in (self.columns, self.shift, self.scale))
        _standardise(halves, events, places.numpy(), columns, shift, scale, _SINGLE, out)
        return torch.from_numpy(out), self._thinned_offsets(events, places)

    def _thinned_places(self, step: int) -> Tensor:
        """Return the places of the candidates of a step; all of them if they are few."""
        count = self.offsets.shape[1]
        if count - 1 - HARD < LEAST_THINNED:
            return torch.arange(count)
        some = torch.arange(1 + HARD + step % THINNED, count, THINNED)
        return torch.cat([torch.arange(1 + HARD), some])

    def _thinned_offsets(self, events: NDArray[np.int64], places: Tensor) -> Tensor:
        offsets = self.offsets[torch.from_numpy(events).unsqueeze(1), places]
        if len(places) < self.offsets.shape[1]:
            offsets[:, 1 + HARD :] += math.log(THINNED)
        return offsets


_SINGLE = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
"""Every number of half precision, by its bits."""


@native
def _standardise(
    halves: Array, events: Array, places: Array, columns: Array, shift: Array, scale: Array,
    single: Array, out: Array,
) -> None:  # fmt: skip
    """Write (x - shift) / scale for some numbers x of half precision.

    Args:
        halves: (Q, C, F) uint16, the bits of the numbers.
        events: (B,) the first places of those that are wanted.
        places: (K,) their second places.
        columns: (P,) their third places.
        shift: (P,).
        scale: (P,).
        single: numbers by their bits.
        out: (B, K, P) float32, filled.
    """
    for b in range(len(events)):
        for k in range(len(places)):
            line = halves[events[b], places[k]]
            for i in range(len(columns)):
                out[b, k, i] = (single[line[columns[i]]] - shift[i]) / scale[i]


def _new_net(data: RankerTensors, options: RankerOptions, member: int) -> Net:
    """Return a member before its fit; its weights depend on the seed and its number."""
    random = np.random.default_rng((options.seed, member))
    torch.manual_seed(int(random.integers(1 << 62)))
    return Net(len(data.columns), options.hidden, data.shift, data.scale)


def _fit(
    data: RankerTensors,
    events: NDArray[np.int64],
    options: RankerOptions,
    net: Net,
    member: int,
    epochs: int,
    planned: int,
    after_epoch: Callable[[int, Net, float], None] = lambda epoch, net, loss: None,
) -> Net:
    random = np.random.default_rng((options.seed, member))
    random.integers(1 << 62)  # that of `_new_net`
    optimizer = AdamW(net.parameters(), options.learning_rate, options.weight_decay)
    steps = planned * math.ceil(len(events) / options.batch_size)
    step = 0
    for epoch in range(1, epochs + 1):
        net.train()
        total = 0.0
        order = random.permutation(events)
        for start in range(0, len(order), options.batch_size):
            step += 1
            warm = min(1.0, step / options.warmup_steps)
            fall = (1.0 + math.cos(math.pi * step / steps)) / 2.0
            optimizer.learning_rate = options.learning_rate * warm * fall
            x, offsets = data.standardised(order[start : start + options.batch_size], step)
            losses = target_losses(net.of_standardised(x) + offsets)
            optimizer.zero_grad()
            losses.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(losses.detach().sum())
        after_epoch(epoch, net, total / len(order))
    return net.eval()


def target_losses(logits: Tensor) -> Tensor:
    """Return the cross-entropy (B,) of the first candidate, the target."""
    return torch.logsumexp(logits, dim=1) - logits[:, 0]


@torch.no_grad()
def measure_epoch(
    epoch: int, net: Net, data: RankerTensors, events: NDArray[np.int64], loss: float
) -> Epoch:
    """Measure held-out targets; a better candidate that stands for several counts as so many."""
    net.eval()
    losses, ranks = [], []
    for start in range(0, len(events), 512):
        features, offsets = data.batch(events[start : start + 512])
        scores = net(features)
        losses.append(target_losses(scores + offsets))
        ranks.append(_ranks(scores, offsets))
    measured = np.concatenate(ranks)
    return Epoch(
        epoch,
        loss,
        float(torch.cat(losses).mean()),
        hit_rate_at_k(measured, 10),
        ndcg_at_k(measured, 10),
    )


def _linear_weights(data: RankerTensors, events: NDArray[np.int64]) -> Tensor:
    """Fit the weights (P,) of a linear score of standardised columns on the latest of `events`.

    A convex problem, so that it needs no rate, no seed and no early stop.
    """
    events = events[-LINEAR_EXAMPLES:]

    def candidates_of(part: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        features, offsets = data.batch(events[part])
        return features.sub_(data.shift).div_(data.scale).numpy(), offsets.numpy()

    weights = fit_linear(candidates_of, len(events), np.zeros(len(data.columns)), LINEAR_PENALTY)
    return torch.from_numpy(weights).float()


@torch.no_grad()
def _scores(
    data: RankerTensors, events: NDArray[np.int64], score: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return scores and offsets (Q, C) float64 of the candidates of some examples."""
    scores, offsets = [], []
    for start in range(0, len(events), 512):
        features, some = data.batch(events[start : start + 512])
        scores.append(score(features))
        offsets.append(some)
    return torch.cat(scores).double(), torch.cat(offsets).double()


def _parts(
    data: RankerTensors, net: Net, linear: Tensor, validation: NDArray[np.int64]
) -> tuple[float, float]:
    """Return the factors of a network's score and of a linear one that held-out targets want.

    Stacking, Wolpert 1992, with factors that sum to 1: the tenths of least loss on targets that
    neither score was fitted on.
    """
    of_net, offsets = _scores(data, validation, net)
    of_linear, _ = _scores(data, validation, _linear(data, linear))
    tried = np.linspace(0.0, 1.0, 11).tolist()
    losses = [
        float(target_losses(part * of_net + (1.0 - part) * of_linear + offsets).mean())
        for part in tried
    ]
    part = tried[int(np.argmin(losses))]
    return part, 1.0 - part


def _column_alone(
    examples: Examples, first: _FirstFit, options: RankerOptions, parts: tuple[float, float]
) -> int | None:
    """Return the place of the one column that ranks as well as all together; None if none does.

    The simplest score within one standard error is preferred, Breiman et al. 1984: where choices
    follow a single count, whatever else is weighed is noise. Compared is NDCG@10 of the best column
    with that of a network and its linear part: on the targets held out; then, which tells smaller
    differences, on the later half of the targets, with both fitted on the earlier half.
    """
    data, late = first.data, np.flatnonzero((first.scale > 1e-4) & np.isin(COLUMNS, LATE))
    fitted, validation = parted(examples, options)
    place = _best_column(data, fitted[-ALONE_EXAMPLES:])

    def gain_of_all(
        net: Net, early: NDArray[np.int64], later: NDArray[np.int64]
    ) -> tuple[float, float]:
        """Return the gain on later targets over the column alone, and its standard error."""
        net.mix(_linear_weights(data, early), parts)
        fresh = early[examples.fresh[early]]
        scaled, added, columns = _late_weights(data, [net], examples, late, fresh)
        scores, offsets = _scores(data, later, net)
        more = torch.from_numpy(examples.features[later][:, :, columns].astype(np.float64))
        ranks = _ranks(scaled * scores + more @ torch.from_numpy(added), offsets)
        alone, _ = _scores(data, later, lambda x: x[:, :, place])
        own = gains_at_k(_ranks(alone, offsets), 10)
        gains = (gains_at_k(ranks, 10) - own) / max(float(own.mean()), 1e-9)
        return float(gains.mean()), float(gains.std()) / math.sqrt(len(gains))

    gain, error = gain_of_all(deepcopy(first.net), fitted, validation)
    if gain > error:
        return None
    early, later = np.split(np.arange(len(examples)), [len(examples) // 2])
    net = _new_net(data, options, 0)
    net = _fit(data, early, options, net, 0, first.best.epoch, first.epochs)
    gain, error = gain_of_all(net, early, later)
    return place if gain <= error <= ALONE_ERROR else None


def _best_column(data: RankerTensors, events: NDArray[np.int64]) -> int:
    """Return the place, in `data.columns`, of the column of best NDCG@10 by itself."""
    gains = np.zeros(len(data.columns))
    for start in range(0, len(events), 256):
        features, offsets = data.batch(events[start : start + 256])
        for place in range(len(gains)):
            gains[place] += gains_at_k(_ranks(features[:, :, place], offsets), 10).sum()
    return int(gains.argmax())


def _network_alone(
    data: RankerTensors, events: NDArray[np.int64], place: int, cut: NDArray[np.float32]
) -> Network:
    """Return the network that reads one column; its weight makes scores of nats."""
    which = np.arange(len(data.columns)) == place
    one = _with_columns(data, which)
    net = Net(1, (1, 1), one.shift, one.scale)
    with torch.no_grad():
        for weights in net.parameters():
            weights.zero_()
        # A column that says something puts targets higher, so the weight is positive.
        net.skip.weight.copy_(_linear_weights(one, events).clamp(min=1e-3))
    return Network([COLUMNS[int(one.columns[0])]], merged([net], 1.0, np.zeros(0), cut))


def _ranks(scores: Tensor, offsets: Tensor) -> NDArray[np.float64]:
    """Return the ranks (Q,) of targets; a better candidate counts as the items it stands for."""
    above = scores[:, 1:] - scores[:, :1]
    better = (above > 0) * 1.0 + (above == 0) * 0.5
    ranks = 1.0 + (better * torch.exp(offsets[:, 1:])).sum(dim=1)
    return np.asarray(ranks.double().numpy())


def _late_weights(
    data: RankerTensors,
    members: list[Net],
    examples: Examples,
    late: NDArray[np.int64],
    fresh: NDArray[np.int64],
) -> tuple[float, NDArray[np.float64], NDArray[np.int64]]:
    """Fit what late columns (L,) add to the members' mean score, by the same loss on fresh targets.

    The latest of `fresh` (Q,) are used.

    Few numbers, a convex problem. The columns of WORTH are kept only if they are worth their
    computing time: fitted on the earlier half of the targets, the weight has to be positive, and
    has to lower the loss of the later half by more than twice the standard error of the difference.

    Returns:
        factor of the score, weights (M,), and the columns (M,) that are kept.
    """
    events = fresh[-LATE_EXAMPLES:]
    if not len(late) or not len(events):
        return 1.0, np.zeros(len(late)), late
    scores, offsets = _scores(
        data, events, lambda x: torch.stack([net(x) for net in members]).mean(dim=0)
    )
    values = torch.from_numpy(examples.features[events][:, :, late].astype(np.float64))
    inputs = torch.cat([scores.unsqueeze(2), values], dim=2)  # (Q, C, 1 + L)
    half = len(events) // 2
    for name in WORTH:
        optional = late == COLUMNS.index(name)
        if not optional.any():
            continue
        tried = np.append(True, ~optional), np.ones(1 + len(late), np.bool_)
        weights = [_weighed(inputs[:half], offsets[:half], which) for which in tried]
        without, gained = (
            target_losses(inputs[half:] @ weight + offsets[half:]).numpy() for weight in weights
        )
        error = (without - gained).std() / math.sqrt(max(len(gained), 1))
        counts = float(weights[1][1:][optional]) > 0.0
        if not counts or (without - gained).mean() <= 2.0 * error:
            inputs, late = inputs[:, :, tried[0]], late[~optional]
    solution = _weighed(inputs, offsets, np.ones(1 + len(late), np.bool_)).numpy()
    return float(solution[0]), solution[1:], late


def _weighed(inputs: Tensor, offsets: Tensor, which: NDArray[np.bool_]) -> Tensor:
    """Return the weights (W,) of least loss of a score and columns (Q, C, W); 0 for the others."""
    start = np.zeros(len(which))
    start[0] = 1.0
    some, added = inputs[:, :, which].numpy(), offsets.numpy()
    weights = np.zeros(len(which))
    weights[which] = fit_linear(lambda part: (some[part], added[part]), len(some), start[which])
    return torch.from_numpy(weights)


def _cut_weights(examples: Examples, options: RankerOptions) -> NDArray[np.float32]:
    """Fit the weighted sum of a few features that puts targets highest, by the same loss.

    On fresh targets only, since one of the features is late.
    """
    places = [[COLUMNS.index(name) for name in names] for names in CUT_COLUMNS]
    fresh = np.flatnonzero(examples.fresh)
    if not len(fresh):
        fresh = np.arange(len(examples))
    random = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    weights = nn.Parameter(torch.zeros(len(places)))
    optimizer = AdamW([weights], 0.05)
    for _ in range(CUT_STEPS):
        events = fresh[random.integers(0, len(fresh), 4 * options.batch_size)]
        some = examples.features[events]
        cheap = np.stack([some[:, :, place].mean(axis=2, dtype=np.float32) for place in places], 2)
        cheap[:, :, 1] = np.maximum(cheap[:, :, 1] - TREND_KNEE, 0.0)
        logits = torch.from_numpy(cheap) @ weights + torch.from_numpy(examples.offsets[events])
        loss = target_losses(logits).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return weights.detach().numpy()
