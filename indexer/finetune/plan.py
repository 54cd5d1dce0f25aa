"""Plans of fine-tuning, one per objective: the training task and its validations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from indexer.data.histories import EventLog
from indexer.finetune.click import Click, LabelledTexts, Labels, fit_head, labelled_parts
from indexer.finetune.data import Choices, Integers, Parts, Texts
from indexer.finetune.scores import NextItems, Validation
from indexer.finetune.tasks import CoInterest, Space, TrainingTask
from indexer.items.item_encoder import Encodings
from tracker.events.kinds import Kinds
from tracker.explained import Explained

Objective = Literal["co-interest", "click"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

MIN_TARGETS = 20
"""With fewer targets a validation says nothing."""

MAX_TARGETS = 6000
"""Maximum number of validation targets before and after the training."""

MAX_TEXTS = 20_000
"""Maximum number of texts encoded before and after; of more items a sample is ranked."""

EPOCH_TEXTS = 1500
"""Maximum number of texts encoded after each epoch."""


class FinetuneError(Explained, ValueError):
    """The events cannot teach a text encoder; the message gives the reason, nothing was written."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The validation before and after a training, and how the training begins.

    Attributes:
        full: the validation before and after.
        begin: called with the space before the training and the encodings of the texts of `full`;
            returns the task to train on and the smaller validation after each epoch.
    """

    full: Validation
    begin: Callable[[Space, Encodings], tuple[TrainingTask, Validation]]


@dataclass(frozen=True, slots=True)
class LoggedEvents:
    """E logged events with their items, texts and parts.

    Attributes:
        log: the events.
        rows: (E,) positions of their items in the catalogue, -1 for none.
        texts: (E,) texts of their items by position in `catalog`, -1 for none.
        catalog: the texts.
        parts: the division by time.
    """

    log: EventLog
    rows: Integers
    texts: Integers
    catalog: Texts
    parts: Parts


def co_interest(
    logged: LoggedEvents, repeats: bool, batch: int, temperature: float, random: np.random.Generator
) -> Plan:
    """Plan to learn which items are chosen near each other, and to rank the next item.

    Args:
        logged: the events.
        repeats: whether items chosen before are ranked.
        batch: number of choices in a step.
        temperature: of the softmax over cosines.
        random: draws samples.

    Raises:
        FinetuneError: the pairs are not of two users, or there are too few targets.
    """
    log, parts, texts = logged.log, logged.parts, logged.catalog
    choices = Choices.of(log, logged.texts, len(texts.texts), parts.train)
    first, _, _ = choices.pairs(np.arange(len(choices.users)))
    users = len(np.unique(choices.users[first]))
    if users < 2:
        raise FinetuneError(
            f"{len(first)} pairs of items chosen near each other, of {users} users; pairs of at"
            " least 2 users are needed in the events that may be learned from: positive ones, of"
            " different texts, within 30 days"
        )
    full = NextItems.of(log, logged.rows, parts, texts, repeats, MAX_TARGETS, random)
    full = full.sample(MAX_TEXTS, random)
    if len(full.targets) < MIN_TARGETS:
        raise FinetuneError(
            f"{len(full.targets)} events to validate by; at least {MIN_TARGETS} are needed:"
            " positive ones after those that are learned from, of users with an event before, on"
            " items of the catalogue"
        )
    small = full.sample(EPOCH_TEXTS, random)
    return Plan(full, lambda space, _: (CoInterest(choices, space, batch, temperature), small))


def click(logged: LoggedEvents, kinds: Kinds, batch: int, random: np.random.Generator) -> Plan:
    """Plan to learn which labelled events are positive, and to predict the labels of later ones.

    Args:
        logged: the events.
        kinds: the weights in force.
        batch: number of labelled events in a step.
        random: draws samples.

    Raises:
        FinetuneError: one class is missing or too rare, before the cut or after it.
    """
    log, parts = logged.log, logged.parts
    count = len(logged.catalog.texts)
    sides = []
    for labelled, name in zip(
        labelled_parts(log, kinds, parts), ("to learn from", "to validate by"), strict=True
    ):
        usable = labelled.among(logged.texts >= 0)
        if problem := usable.too_few():
            raise FinetuneError(f"{name}: {problem}, on items of the catalogue")
        sides.append(LabelledTexts.of(log, logged.texts, usable, parts.seen))
    train, later = sides
    full = Labels.of(train, later, count, MAX_TARGETS, MAX_TEXTS, random)

    def begin(space: Space, encodings: Encodings) -> tuple[TrainingTask, Validation]:
        with torch.no_grad():
            vectors = space(torch.from_numpy(encodings).to(space.mean))
        head = fit_head(vectors, full.fitted)
        return Click(train, space, head, batch), full.sample(EPOCH_TEXTS, space, head, random)

    return Plan(full, begin)
