"""What an objective of fine-tuning makes of logged events: its lesson and its examinations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch

from indexer.data.histories import EventLog
from indexer.finetune.click import Click, LabelledTexts, Labels, fit_head, labelled_parts
from indexer.finetune.data import Choices, Integers, Parts, Texts
from indexer.finetune.lessons import CoInterest, Lesson, Space
from indexer.finetune.scores import Examination, NextItems
from indexer.items.item_encoder import Encodings
from tracker.events.kinds import Kinds
from tracker.explained import Explained

Objective = Literal["co-interest", "click"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

MIN_TARGETS = 20
"""With fewer targets validation says nothing."""

MAX_TARGETS = 6000
"""Validation targets that are asked for before and after, at most."""

MAX_TEXTS = 20_000
"""Texts that are encoded before and after, at most: a sample of the items is ranked if more."""

EPOCH_TEXTS = 1500
"""Texts that are encoded after each epoch, at most."""


class FinetuneError(Explained, ValueError):
    """The events cannot teach a text encoder; nothing was written, the message says why."""


@dataclass(frozen=True, slots=True)
class Course:
    """What is asked before and after, and what is learned and asked in between.

    `begin` is given the space before the training and the encodings of the texts of `full`.
    """

    full: Examination
    begin: Callable[[Space, Encodings], tuple[Lesson, Examination]]


@dataclass(frozen=True, slots=True)
class Logged:
    """Logged events with their items `rows` (E,) and `texts` (E,), -1 for none, and their parts."""

    log: EventLog
    rows: Integers
    texts: Integers
    catalog: Texts
    parts: Parts


def co_interest(
    logged: Logged, repeats: bool, batch: int, temperature: float, random: np.random.Generator
) -> Course:
    """Learn which items are chosen near each other; be asked for the next item.

    Args:
        logged: the events.
        repeats: whether items chosen before are ranked.
        batch: choices in a step.
        temperature: of the softmax over cosines.
        random: draws samples.

    Raises:
        FinetuneError: there are no pairs of two users, or too few targets.
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
    return Course(full, lambda space, _: (CoInterest(choices, space, batch, temperature), small))


def click(logged: Logged, kinds: Kinds, batch: int, random: np.random.Generator) -> Course:
    """Learn which labelled events are positive; be asked for the labels of later ones.

    Args:
        logged: the events.
        kinds: the weights in force.
        batch: labelled events in a step.
        random: draws samples.

    Raises:
        FinetuneError: one class is missing or too rare, before the cut or after it.
    """
    log, parts = logged.log, logged.parts
    count = len(logged.catalog.texts)
    found = []
    for labelled, name in zip(
        labelled_parts(log, kinds, parts), ("to learn from", "to validate by"), strict=True
    ):
        known = np.zeros(len(log), np.bool_)
        known[np.flatnonzero(logged.texts >= 0)] = True
        usable = labelled.among(known)
        if problem := usable.too_few():
            raise FinetuneError(f"{name}: {problem}, on items of the catalogue")
        found.append(LabelledTexts.of(log, logged.texts, usable, parts.seen))
    train, later = found
    full = Labels.of(train, later, count, MAX_TARGETS, MAX_TEXTS, random)

    def begin(space: Space, encodings: Encodings) -> tuple[Lesson, Examination]:
        with torch.no_grad():
            vectors = space(torch.from_numpy(encodings).to(space.mean))
        head = fit_head(vectors, full.fitted)
        return Click(train, space, head, batch), full.sample(EPOCH_TEXTS, space, head, random)

    return Course(full, begin)
