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
from indexer.finetune.lessons import Space
from indexer.finetune.scores import Scores
from indexer.items.item_encoder import Encodings
from indexer.items.whitening import fit_whitening
from tracker.events.kinds import Kinds

HISTORY_EVENTS = 8
"""Liked events that are looked at before a labelled one, at most, and as many disliked ones."""

MAX_FITTED = 20_000
"""Labelled events that the head is fitted on before and after, at most: the latest."""

PENALTY = 30.0
"""L2 weight of the head against the sum of the losses, in standardised columns."""

_MORE = 4
"""Columns of the head beside the item's vector."""


@dataclass(frozen=True, slots=True)
class LabelledTexts:
    """L labelled events by the texts of their items and histories, in order of time.

    `liked` and `disliked` (L, 8) are what the user took to before, or did not, latest first and -1
    padded. What an event says of itself makes it liked or disliked: no later event is looked at.
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
        """Take labelled events with a text.

        Args:
            log: all events.
            texts: (E,) each event's text, -1 for none.
            labelled: which events, and their labels.
            seen: (E,) which events may stand in a history.
        """
        known = texts[labelled.events] >= 0
        events = labelled.events[known]
        batch = log.batch
        said = labelled.rule.labels(batch.kinds, batch.values, batch.weights)
        liked, disliked = (
            _padded(pasts(log, texts, events, seen & (said == side), HISTORY_EVENTS))
            for side in (1, 0)
        )
        return cls(log.users[events], texts[events], liked, disliked, labelled.positive[known])

    def take(self, places: Integers) -> "LabelledTexts":
        """Return some of the events."""
        return LabelledTexts(
            self.users[places], self.items[places], self.liked[places], self.disliked[places],
            self.positive[places],
        )  # fmt: skip

    def codes(self) -> Integers:
        """Return the distinct texts of items and histories."""
        found = np.unique(np.concatenate([self.items, self.liked.ravel(), self.disliked.ravel()]))
        return found[found >= 0]

    def among(self, codes: Integers, count: int) -> "LabelledTexts":
        """Return the events all of whose texts are among some, their texts by position there."""
        place = np.full(count + 1, -1, np.int64)  # the last is that of the padding
        place[codes] = np.arange(len(codes))
        moved = [place[part] for part in (self.items, self.liked, self.disliked)]
        kept = moved[0] >= 0
        for before, after in ((self.liked, moved[1]), (self.disliked, moved[2])):
            kept &= ((before < 0) | (after >= 0)).all(1)
        return replace(self, items=moved[0], liked=moved[1], disliked=moved[2]).take(
            np.flatnonzero(kept)
        )


def labelled_parts(log: EventLog, kinds: Kinds, parts: Parts) -> tuple[Labelled, Labelled]:
    """Return the labelled events to learn from, and those of validation.

    The rule is that of the trained probability: where there are impressions they are labelled, else
    ratings from the median of those that may be learned from, and all else by its weight's sign.
    """
    labelled = label_events(log, label_rule(log, kinds, parts.train), parts.seen)
    return labelled.among(parts.train), labelled.among(parts.seen & ~parts.train)


class Head(nn.Module):
    """Logits from the vectors of an item, and of what its user liked and disliked.

    A linear layer over the item's vector, its cosine with the decayed mean of either history (.8 an
    event), and how much of either there is.
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
    """Return what the head is linear in, (L, F + 4), each column of about unit variance."""
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
    """Fit a head on vectors as they are, by L-BFGS to the end."""
    head = Head(vectors.shape[1]).to(vectors.device)
    inputs = columns(vectors, events)
    labels = torch.from_numpy(events.positive).to(inputs)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = head.linear(inputs).squeeze(1)
        squares = (head.linear.weight**2).sum()
        found = functional.binary_cross_entropy_with_logits(logits, labels)
        found = found + PENALTY * squares / (2 * len(events))
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return head


class Click:
    """Labelled events in batches: binary cross-entropy, the head trained with the encoder."""

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
        chosen = self._events.take(places)
        codes = chosen.codes()
        moved = chosen.among(codes, int(codes.max()) + 1)
        logits = self.head(self._space(encodings), moved)
        labels = torch.from_numpy(moved.positive).to(logits)
        return functional.binary_cross_entropy_with_logits(logits, labels)


@dataclass(frozen=True, slots=True)
class Labels:
    """How well a head tells the labels of later events, on vectors as they are.

    It is fitted on `fitted` first, or, where a lesson is given, is the lesson's, in its space: that
    is what is asked while the lesson goes on. Events name texts by position in `texts`.
    """

    texts: Integers
    fitted: LabelledTexts
    judged: LabelledTexts
    lesson: tuple[Space, Head] | None = None
    measure: str = "auc"

    @classmethod
    def of(
        cls, fitted: LabelledTexts, judged: LabelledTexts, count: int, most: int, texts: int,
        random: np.random.Generator,
    ) -> "Labels":  # fmt: skip
        """Take at most so many later events, and of those to fit on the latest.

        Args:
            fitted: what may be learned from.
            judged: the later ones.
            count: texts of the catalogue.
            most: of the later ones.
            texts: that may be encoded.
            random: draws them where there are more.
        """
        if len(judged) > most:
            judged = judged.take(np.sort(random.choice(len(judged), most, replace=False)))
        fitted = fitted.take(np.arange(max(0, len(fitted) - MAX_FITTED), len(fitted)))
        codes = np.union1d(fitted.codes(), judged.codes())
        if len(codes) > texts:
            codes = np.sort(random.choice(codes, texts, replace=False))
        return cls(codes, fitted.among(codes, count), judged.among(codes, count))

    def sample(self, most: int, space: Space, head: Head, random: np.random.Generator) -> "Labels":
        """Keep so many texts and the later events that have no others, for a lesson's head."""
        kept: set[int] = set()
        for number in random.permutation(len(self.judged)).tolist():
            needed = set(self.judged.take(np.array([number])).codes().tolist())
            if len(kept | needed) > most:
                break
            kept |= needed
        codes = np.array(sorted(kept), np.int64)
        judged = self.judged.among(codes, len(self.texts))
        nothing = self.fitted.take(np.zeros(0, np.int64))
        return Labels(self.texts[codes], nothing, judged, (space, head))

    def scores(self, encodings: Encodings) -> Scores:
        """Return AUC and log loss of the later events."""
        with torch.no_grad():
            if self.lesson is None:
                vectors = torch.from_numpy(fit_whitening(encodings).apply(encodings))
            else:
                space = self.lesson[0]
                vectors = space(torch.from_numpy(encodings).to(space.mean))
        head = fit_head(vectors, self.fitted) if self.lesson is None else self.lesson[1]
        with torch.no_grad():
            logits = head(vectors, self.judged).double().cpu().numpy()
        probabilities = 1.0 / (1.0 + np.exp(-logits))
        return {
            "auc": auc(self.judged.positive, logits),
            "log_loss": log_loss(self.judged.positive, probabilities),
            "events": float(len(self.judged)),
            "positive": float(self.judged.positive.mean()),
        }


def _padded(past: list[Integers]) -> Integers:
    found = np.full((len(past), HISTORY_EVENTS), -1, np.int64)
    for row, own in enumerate(past):
        found[row, : len(own)] = own
    return found
