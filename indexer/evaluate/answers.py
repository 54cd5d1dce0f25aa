"""Ask the tracker and the baselines at held-out events, all of one log."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog, Split
from indexer.evaluate.baselines import (
    Baseline,
    Content,
    DecayedPopularity,
    Ease,
    ItemKnn,
    OwnFrequent,
    Popularity,
)
from indexer.evaluate.live_baselines import OwnRecent, choose_ease, live_baselines
from indexer.evaluate.metrics import Floats, rank_and_list
from indexer.evaluate.targets import (
    WHOLE_LOG,
    Flags,
    Share,
    TargetBatch,
    Targets,
    target_batches,
)
from indexer.replay.replay import Replay, Rows
from tracker.scoring.blend import Ranker
from tracker.scoring.context import C_ENCODER, COLUMNS, MODELLED
from tracker.scoring.features import FEATURE
from tracker.scoring.network import Network, score_each

K = 10
"""Length of the lists behind coverage, novelty and diversity."""

SERVED = 20
"""Length of the lists of `tracker_served`."""

TRACKER, TRACKER_SERVED = "tracker", "tracker_served"

TRACKER_ONLINE = "tracker_online"
"""The tracker with the models that the replay's learner has learned before each target."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The tracker with less input: without the scene, or without the attributes."""

    name: str
    scenes: bool = True
    attributes: bool = True


WHOLE = Variant(TRACKER)
WITHOUT_SCENES = Variant("tracker_without_scenes", scenes=False)
WITHOUT_ATTRIBUTES = Variant("tracker_without_attributes", attributes=False)


@dataclass(frozen=True, slots=True)
class Answers:
    """One model's answers at Q targets: ranks (Q,) float64, and lists (Q, K) of rows, -1 padded.

    `candidates` and `cut` (Q,) bool, of the list as served alone: targets that the channels found,
    and those that the first cut left.
    """

    ranks: Floats
    lists: Rows
    candidates: Flags | None = None
    cut: Flags | None = None

    @classmethod
    def of_size(cls, targets: int) -> "Answers":
        """Return answers to be filled in."""
        return cls(np.full(targets, math.inf), np.full((targets, K), -1))

    def take(self, other: "Answers", which: Flags) -> None:
        """Take another's answers at some targets; mask (Q,) bool."""
        self.ranks[which], self.lists[which] = other.ranks[which], other.lists[which]
        for own, theirs in ((self.candidates, other.candidates), (self.cut, other.cut)):
            if own is not None and theirs is not None:
                own[which] = theirs[which]


def make_baselines(
    log: EventLog,
    rows: Rows,
    targets: Targets,
    full: NDArray[np.float32],
    memory_bytes: int,
    split: Split | None = None,
) -> tuple[list[Baseline], list[str]]:
    """Return the baselines, and notes: on each that cannot be fitted, and on what was chosen.

    Those whose half-lives are chosen on validation events are there if a split names these.
    """
    users, fitted = log.users[targets.fitted], rows[targets.fitted]
    count = len(full)
    baselines: list[Baseline] = [
        Popularity(fitted, count),
        DecayedPopularity(rows, log.batch.times, count),
        ItemKnn(users, fitted, count),
        Content(full, 1),
        Content(full),
    ]
    notes = []
    try:
        ease = Ease(users, fitted, count, memory_bytes)
        if split is not None:
            regularisation, decay, note = choose_ease(log, split, rows, targets, memory_bytes)
            ease = Ease(users, fitted, count, memory_bytes, regularisation, decay)
            notes += [note] if note else []
        baselines.insert(3, ease)
    except MemoryError as error:
        notes.append(f"ease is left out: {error}")
    if split is not None:
        live, chosen_notes = live_baselines(log, split, rows, targets)
        baselines += live
        notes += chosen_notes
    if targets.repeats:
        baselines += [OwnFrequent(count), OwnRecent(count)]
    return baselines, notes


def variants_of(replay: Replay, targets: Targets) -> list[Variant]:
    """Return the variants that can differ: the log has their input, and the artifact reads it."""
    variants = [WHOLE]
    tower, columns = replay.recommender.tower, replay.recommender.ranker.column_mask
    reads = columns[[FEATURE.scene_short, FEATURE.scene_long]].any() or (
        tower is not None and tower.attention is not None
    )
    if reads and (replay.log.batch.scenes[targets.events] != 0).any():
        variants.append(WITHOUT_SCENES)
    if users_with_attributes(replay)[replay.log.users[targets.events]].any():
        variants.append(WITHOUT_ATTRIBUTES)
    return variants


def users_with_attributes(replay: Replay) -> Flags:
    """Return (U,) bool, the users of the log with attributes in the artifact."""
    tower = replay.recommender.tower
    if tower is None:
        return np.zeros(len(replay.user_hashes), np.bool_)
    return np.asarray((tower.attributes.of(replay.user_hashes) > 0).any(axis=1))


def ask_all(
    replay: Replay,
    targets: Targets,
    baselines: Sequence[Baseline],
    variants: Sequence[Variant] = (WHOLE,),
    between: Callable[[int], None] = lambda event: None,
) -> dict[str, Answers]:
    """Ask every model at every target, from the events before it.

    The baselines need no states of the tracker, and run in a second thread; two more threads read
    the states and score. The answers do not depend on it.

    Args:
        replay: at its start.
        targets: the targets.
        baselines: the baselines.
        variants: variants of the tracker.
        between: called with each target's position before the states are moved there; it may move
            them itself, but no farther.
    """
    with ThreadPoolExecutor(3) as executor:
        others = executor.submit(ask_baselines, replay.log, replay.rows, targets, baselines)
        answers = ask_tracker(replay, targets, variants, executor, between)
        return answers | others.result()


def ask_baselines(
    log: EventLog, rows: Rows, targets: Targets, baselines: Sequence[Baseline]
) -> dict[str, Answers]:
    """Ask each baseline at every target."""
    answers = {model.name: Answers.of_size(len(targets.events)) for model in baselines}
    start = 0
    for batch in target_batches(log, rows, targets, 4 * len(targets.ranked)):
        part = slice(start, start + len(batch))
        for model in baselines:
            _write(answers[model.name], part, model.scores(batch), batch, targets)
        start += len(batch)
    return answers


def ask_tracker(
    replay: Replay,
    targets: Targets,
    variants: Sequence[Variant],
    executor: Executor,
    between: Callable[[int], None],
    share: Share = WHOLE_LOG,
) -> dict[str, Answers]:
    """Ask the tracker at every target of a share, from the states just before it.

    1. Apply the events before the target to the states.
    2. Compute the ranker's columns of the catalogue for each variant, most of it in `executor`.
    3. Recommend the list as served, for `tracker_served`.
    4. Score the catalogue of a batch of targets by the ranker, in `executor`.

    If the replay has a learner, its ranker answers too, for `tracker_online`. The states stop at
    each target, of the share or not, for what a learner learns depends on where they stop.
    """
    log, recommender = replay.log, replay.recommender
    names = [variant.name for variant in variants]
    if replay.learner is not None:
        names.append(TRACKER_ONLINE)
    whole = {name: Answers.of_size(len(targets.events)) for name in names}
    count = len(targets.events)
    in_candidates, in_cut = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    served = replace(Answers.of_size(count), candidates=in_candidates, cut=in_cut)
    ranked = np.flatnonzero(targets.ranked)
    scored: Future[None] | None = None
    start = 0
    width = batch_bytes(targets, variants)
    tables: list[NDArray[np.float32]] = []  # two by turns, for one is filled while one is scored
    for number, batch in enumerate(target_batches(log, replay.rows, targets, width)):
        if not share.has(number):
            for event in batch.events.tolist():
                between(event)
                replay.advance(event)
            start += len(batch)
            continue
        if not tables:
            shape = len(batch), len(variants), len(ranked), len(COLUMNS)
            tables = [np.zeros(shape, np.float32), np.zeros(shape, np.float32)]
        columns = tables[number // share.of % 2][: len(batch)]
        learned: list[tuple[Ranker, NDArray[np.float32]]] = []
        for b, event in enumerate(batch.events.tolist()):
            between(event)
            # 1. Apply the events before the target.
            replay.advance(event)
            _read(replay, event, ranked, variants, columns[b], executor)  # 2. Compute the columns.
            if replay.learner is not None:
                learned.append((replay.online_ranker(), replay.online_attention(event, ranked)))
            reached = recommender.reached(replay.asked(np.array([event])), SERVED)  # 3. Recommend.
            offered = _offered(batch, b, targets)
            served.lists[start + b] = reached.rows[0, :K]
            served.ranks[start + b] = _place(reached.rows[0], offered)
            in_candidates[start + b] = offered >= 0 and offered in reached.candidates
            in_cut[start + b] = offered >= 0 and offered in reached.cut
        replay.wait()
        if scored is not None:
            scored.result()  # no more than one waits: each takes memory
        part = slice(start, start + len(batch))
        answers = list(whole.values())
        scored = executor.submit(  # 4. Score.
            _score, recommender.ranker, learned, columns, answers, part, batch, targets
        )
        start += len(batch)
    if scored is not None:
        scored.result()
    return {TRACKER: whole.pop(TRACKER), TRACKER_SERVED: served} | whole


def batch_bytes(targets: Targets, variants: Sequence[Variant]) -> int:
    """Return the bytes of the columns of one target."""
    return 4 * int(targets.ranked.sum()) * len(COLUMNS) * len(variants)


_VARIED = np.isin(COLUMNS, ["scene_short", "scene_long", *MODELLED])
"""(F,) the columns that can differ between variants."""


def _read(
    replay: Replay,
    event: int,
    rows: Rows,
    variants: Sequence[Variant],
    out: NDArray[np.float32],
    executor: Executor,
) -> None:
    """Write the ranker's columns of rows (C,) at a coming event, for each of V variants.

    Args:
        replay: moved up to the event; all is written when it moves on or waits.
        event: its position in the log.
        rows: of the catalogue.
        variants: the first is the whole tracker.
        out: (V, C, F), zeros or what an earlier call wrote.
        executor: computes the columns that the variants have in common.
    """
    recommender, count = replay.recommender, len(variants)
    ranker_columns = np.zeros(len(COLUMNS), np.bool_)
    ranker_columns[: len(recommender.ranker.column_mask)] = recommender.ranker.column_mask
    scenes = np.array([variant.scenes for variant in variants])
    attributes = np.array([variant.attributes for variant in variants])
    requests = replay.asked(np.full(count, event), scenes, attributes)
    varied = _VARIED if count > 1 else np.zeros_like(_VARIED)
    if varied.any():
        recommender.columns(requests, np.tile(rows, (count, 1)), ranker_columns & varied, out)
    else:  # what changes or fills the memory of the reader is done in this thread
        recommender.reader.histories(requests)
        recommender.reader.encoder_queries(requests)

    def common() -> None:
        one = slice(0, 1)
        recommender.columns(requests.part(one), rows[None], ranker_columns & ~varied, out[one])
        np.copyto(out[1:], out[0], where=~varied)

    replay.read_beside(executor, common)


def _score(
    ranker: Ranker,
    learned: Sequence[tuple[Ranker, NDArray[np.float32]]],
    columns: NDArray[np.float32],
    answers: Sequence[Answers],
    part: slice,
    batch: TargetBatch,
    targets: Targets,
) -> None:
    """Score the ranked items of a batch for each variant, and write ranks and lists.

    Args:
        ranker: the published ranker.
        learned: the learned ranker at each target, and the scores that learned attention adds to
            the encoder's, for the last of the answers; empty without a learner.
        columns: (B, V, C, F).
        answers: of each variant, then of the learned ranker.
        part: places of the batch in the answers.
        batch: the targets of the batch.
        targets: all targets.
    """
    scores_of = [
        _scores(ranker, learned[b] if learned else None, columns[b]) for b in range(len(batch))
    ]
    scores = np.full((len(batch), len(targets.ranked)), -np.inf, np.float32)
    for own, values in zip(answers, np.stack(scores_of, axis=1), strict=True):
        scores[:, targets.ranked] = values
        _write(own, part, scores, batch, targets)


def _scores(
    ranker: Ranker,
    learned: tuple[Ranker, NDArray[np.float32]] | None,
    columns: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the scores (V, C) of columns (V, C, F), or (V + 1, C) with the learned ranker's last.

    A learned ranker differs from the published one in its read-out alone.
    """
    everyone = np.full(len(columns), columns.shape[1])
    if learned is None:
        return ranker.score(columns, everyone)
    online, added = learned
    whole, others = columns[:1], ranker.score(columns[1:], everyone[1:])
    if isinstance(ranker, Network) and isinstance(online, Network) and not added.any():
        published, own = score_each((ranker, online), whole, everyone[:1])
        return np.concatenate([published, others, own])
    published = ranker.score(whole, everyone[:1])
    whole[0, :, C_ENCODER] += added
    return np.concatenate([published, others, online.score(whole, everyone[:1])])


def _offered(batch: TargetBatch, b: int, targets: Targets) -> int:
    """Return the row of a target, -1 if it may not be in a list.

    A list of a user who has seen everything has seen items; they do not count here.
    """
    row = int(batch.rows[b])
    seen = not targets.repeats and row in batch.past[batch.starts[b] : batch.starts[b + 1]]
    return -1 if seen else row


def _place(rows: Rows, row: int) -> float:
    """Return the place of a row in a list, from 1; infinity if it is not there."""
    places = np.flatnonzero(rows == row) if row >= 0 else rows[:0]
    return 1.0 + int(places[0]) if len(places) else math.inf


def _write(
    answers: Answers, part: slice, scores: NDArray[np.float32], batch: TargetBatch, targets: Targets
) -> None:
    """Write the ranks and lists of a batch."""
    starts = np.zeros_like(batch.starts) if targets.repeats else batch.starts
    rank_and_list(
        scores, batch.rows, targets.ranked, batch.past, starts,
        answers.ranks[part], answers.lists[part],
    )  # fmt: skip
