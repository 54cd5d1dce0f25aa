"""Click prediction: a labelled event from its item's text and those of its user's history."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from indexer.data.histories import EventLog
from indexer.data.labels import Labelled, label_events, label_rule
from indexer.evaluate.baselines import CONTENT_DECAY
from indexer.evaluate.metrics import auc, log_loss
from indexer.finetune.data import Flags, Integers, Parts, pasts, runs_of, shuffled_runs
from indexer.finetune.scores import Scores
from indexer.finetune.tasks import Space
from indexer.items.item_encoder import Encodings
from indexer.items.whitening import fit_whitening
from tracker.events.kinds import Kinds

HISTORY_EVENTS = 8
"""Maximum number of liked events before a labelled one, and of disliked ones."""

MAX_FITTED = 20_000
"""Maximum number of labelled events that the head is fitted on before and after: the latest."""

PENALTY = 30.0
"""L2 weight of the head against the sum of the losses, in standardised columns; not studied."""

_MORE = 4
"""Columns of the head other than the item's vector."""


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """L labelled events by the texts of their items and histories, in order of time.

    An event of a history is liked or disliked by its own label: no later event is read.

    Attributes:
        users: (L,) positions of users.
        items: (L,) texts of the items.
        liked: (L, 8) texts that the user liked before, latest first, -1 padded.
        disliked: (L, 8) texts that the user disliked before, latest first, -1 padded.
        positive: (L,) bool, the labels.
    """

    users: Integers
    items: Integers
    liked: Integers
    disliked: Integers
    positive: Flags

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.items)

    @classmethod
    def of(cls, log: EventLog, texts: Integers, labelled: Labelled, seen: Flags) -> "LabelledTexts":
        """Return the labelled events that have a text.

        Args:
            log: all events.
            texts: (E,) text of each event, -1 for none.
            labelled: the events and their labels.
            seen: (E,) bool, events that may stand in a history.
        """
        with_text = texts[labelled.events] >= 0
        events = labelled.events[with_text]
        batch = log.batch
        labels = labelled.rule.labels(batch.kinds, batch.values, batch.weights)
        liked, disliked = (
            _padded(pasts(log, texts, events, seen & (labels == side), HISTORY_EVENTS))
            for side in (1, 0)
        )
        return cls(log.users[events], texts[events], liked, disliked, labelled.positive[with_text])

    def take(self, places: Integers) -> "LabelledTexts":
        """Return the events at some positions."""
        return LabelledTexts(
            self.users[places], self.items[places], self.liked[places], self.disliked[places],
            self.positive[places],
        )  # fmt: skip

    def codes(self) -> Integers:
        """Return the distinct texts of items and histories, ascending."""
        codes = np.unique(np.concatenate([self.items, self.liked.ravel(), self.disliked.ravel()]))
        return codes[codes >= 0]

    def among(self, codes: Integers, count: int) -> "LabelledTexts":
        """Return the events that have no other texts than `codes`; texts become positions in it.

        Args:
            codes: texts, ascending.
            count: number of texts in the catalogue.
        """
        place = np.full(count + 1, -1, np.int64)  # the last is that of the padding
        place[codes] = np.arange(len(codes))
        moved = [place[part] for part in (self.items, self.liked, self.disliked)]
        complete = moved[0] >= 0
        for before, after in ((self.liked, moved[1]), (self.disliked, moved[2])):
            complete &= ((before < 0) | (after >= 0)).all(1)
        return replace(self, items=moved[0], liked=moved[1], disliked=moved[2]).take(
            np.flatnonzero(complete)
        )


def labelled_parts(log: EventLog, kinds: Kinds, parts: Parts) -> tuple[Labelled, Labelled]:
    """Return the labelled events of training and of validation.

    The rule is that of the trained probability, `label_rule`: impressions, if there are any; else
    ratings from the median of those in training, and all other events by the sign of their weight.
    """
    labelled = label_events(log, label_rule(log, kinds, parts.train), parts.seen)
    return labelled.among(parts.train), labelled.among(parts.seen & ~parts.train)


class Head(nn.Module):
    """Logits from the vectors of an item, and of the items that its user liked and disliked.

    A linear layer over the item's vector, its cosines with the decayed mean of each history (.8 per
    event), and the share of each history.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width + _MORE, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, vectors: Tensor, events: LabelledTexts) -> Tensor:
        """Return logits (L,), from vectors (U, F) of the texts that the events name."""
        logits: Tensor = self.linear(columns(vectors, events)).squeeze(1)
        return logits


def columns(vectors: Tensor, events: LabelledTexts) -> Tensor:
    """Return the inputs of the head, (L, F + 4), each column of about unit variance."""
    device = vectors.device
    items = vectors[torch.from_numpy(events.items).to(device)]  # (L, F)
    decay = CONTENT_DECAY ** torch.arange(HISTORY_EVENTS, device=device)
    sides, masses = [], []
    for side in (events.liked, events.disliked):
        places = torch.from_numpy(side).to(device)
        weights = decay * (places >= 0)  # (L, 8)
        total = (weights.unsqueeze(2) * vectors[places.clamp(min=0)]).sum(1)  # (L, F)
        sides.append((functional.normalize(total, dim=1) * items).sum(1))
        masses.append(weights.sum(1))
    all_mass = 1.0 + masses[0] + masses[1]
    more = [4.0 * sides[0], 4.0 * sides[1], 4.0 * masses[0] / all_mass, 4.0 * masses[1] / all_mass]
    return torch.cat([items * vectors.shape[1] ** 0.5, torch.stack(more, 1)], 1)


def fit_head(vectors: Tensor, events: LabelledTexts) -> Head:
    """Fit a head on fixed vectors (U, F), by L-BFGS until it converges."""
    head = Head(vectors.shape[1]).to(vectors.device)
    inputs = columns(vectors, events)
    labels = torch.from_numpy(events.positive).to(inputs)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = head.linear(inputs).squeeze(1)
        squares = (head.linear.weight**2).sum()
        mean = functional.binary_cross_entropy_with_logits(logits, labels)
        total = mean + PENALTY * squares / (2 * len(events))
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return head


class Click:
    """Learns labels by binary cross-entropy; the head is trained together with the encoder."""

    def __init__(self, events: LabelledTexts, space: Space, head: Head, batch: int) -> None:
        self.head = head
        self.weights: list[nn.Parameter] = list(head.parameters())
        self._space = space
        self._batch = batch
        self._events = events.take(np.argsort(events.users, kind="stable"))

    def batches(self, random: np.random.Generator) -> Iterator[Integers]:
        """Yield runs of the events of users, whose histories share their texts."""
        while True:
            yield from shuffled_runs(runs_of(self._events.users, random, 1), self._batch, random)

    def texts(self, places: Integers) -> Integers:
        """Return the distinct texts of a batch."""
        return self._events.take(places).codes()

    def loss(self, places: Integers, encodings: Tensor) -> Tensor:
        """Return the mean cross-entropy of the events."""
        batch = self._events.take(places)
        codes = batch.codes()
        moved = batch.among(codes, int(codes.max()) + 1)
        logits = self.head(self._space(encodings), moved)
        labels = torch.from_numpy(moved.positive).to(logits)
        return functional.binary_cross_entropy_with_logits(logits, labels)


@dataclass(frozen=True, slots=True)
class Labels:
    """Predicts the labels of later events by a head, on fixed vectors.

    The head is fitted first, or it is that of a task, in the space of the task: so during training.

    Attributes:
        texts: (M,) the texts of all events; events name texts by position in it.
        fitted: events to fit the head on.
        later: events whose labels are predicted.
        task: space and head of a task, None to fit a head.
        measure: name of the score that decides.
    """

    texts: Integers
    fitted: LabelledTexts
    later: LabelledTexts
    task: tuple[Space, Head] | None = None
    measure: str = "auc"

    @classmethod
    def of(
        cls, fitted: LabelledTexts, later: LabelledTexts, count: int, most: int, texts: int,
        random: np.random.Generator,
    ) -> "Labels":  # fmt: skip
        """Return up to `most` later events, and the latest of those to fit on.

        Args:
            fitted: events to learn from.
            later: events after them.
            count: number of texts in the catalogue.
            most: maximum number of later events.
            texts: maximum number of texts to encode.
            random: draws samples if there are more.
        """
        if len(later) > most:
            later = later.take(np.sort(random.choice(len(later), most, replace=False)))
        fitted = fitted.take(np.arange(max(0, len(fitted) - MAX_FITTED), len(fitted)))
        codes = np.union1d(fitted.codes(), later.codes())
        if len(codes) > texts:
            codes = np.sort(random.choice(codes, texts, replace=False))
        return cls(codes, fitted.among(codes, count), later.among(codes, count))

    def sample(self, most: int, space: Space, head: Head, random: np.random.Generator) -> "Labels":
        """Return up to `most` texts, and the later events that have no others, for a task's head.

        Args:
            most: maximum number of texts.
            space: the space of the task.
            head: the head of the task.
            random: draws the events.
        """
        sampled: set[int] = set()
        for number in random.permutation(len(self.later)).tolist():
            needed = set(self.later.take(np.array([number])).codes().tolist())
            if len(sampled | needed) > most:
                break
            sampled |= needed
        codes = np.array(sorted(sampled), np.int64)
        later = self.later.among(codes, len(self.texts))
        nothing = self.fitted.take(np.zeros(0, np.int64))
        return Labels(self.texts[codes], nothing, later, (space, head))

    def scores(self, encodings: Encodings) -> Scores:
        """Return AUC and log loss of the later events."""
        with torch.no_grad():
            if self.task is None:
                vectors = torch.from_numpy(fit_whitening(encodings).apply(encodings))
            else:
                space = self.task[0]
                vectors = space(torch.from_numpy(encodings).to(space.mean))
        head = fit_head(vectors, self.fitted) if self.task is None else self.task[1]
        with torch.no_grad():
            logits = head(vectors, self.later).double().cpu().numpy()
        probabilities = 1.0 / (1.0 + np.exp(-logits))
        return {
            "auc": auc(self.later.positive, logits),
            "log_loss": log_loss(self.later.positive, probabilities),
            "events": float(len(self.later)),
            "positive": float(self.later.positive.mean()),
        }


def _padded(past: list[Integers]) -> Integers:
    padded = np.full((len(past), HISTORY_EVENTS), -1, np.int64)
    for n, own in enumerate(past):
        padded[n, : len(own)] = own
    return padded
