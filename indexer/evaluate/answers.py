"""Ask the tracker and the baselines at held-out events, all of one log."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.evaluate.baselines import (
    Baseline,
    Content,
    DecayedPopularity,
    Ease,
    ItemKnn,
    OwnFrequent,
    Popularity,
)
from indexer.evaluate.metrics import Floats, rank_and_list
from indexer.evaluate.targets import Asked, Flags, Targets, asked_in_parts
from indexer.replay.replay import Replay, Rows
from tracker.scoring.blend import Ranker
from tracker.scoring.context import C_ENCODER, COLUMNS, MODELLED
from tracker.scoring.features import FEATURE
from tracker.scoring.network import Network, score_each

K = 10
"""Length of the lists of which coverage, novelty and diversity are taken."""

SERVED = 20
"""Length of the lists asked for as served."""

TRACKER, TRACKER_SERVED = "tracker", "tracker_served"

TRACKER_ONLINE = "tracker_online"
"""The tracker by what the replay's learner has learned before each target."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The tracker asked with less: without the scene of the moment, or without the attributes."""

    name: str
    scenes: bool = True
    attributes: bool = True


WHOLE = Variant(TRACKER)
WITHOUT_SCENES = Variant("tracker_without_scenes", scenes=False)
WITHOUT_ATTRIBUTES = Variant("tracker_without_attributes", attributes=False)


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model said at Q targets: ranks (Q,) float64 and its lists (Q, K) rows, -1 padded."""

    ranks: Floats
    lists: Rows

    @classmethod
    def of_size(cls, targets: int) -> "Answers":
        """Return answers that are yet to be filled in."""
        return cls(np.full(targets, math.inf), np.full((targets, K), -1))


def make_baselines(
    log: EventLog, rows: Rows, targets: Targets, full: NDArray[np.float32], memory_bytes: int
) -> tuple[list[Baseline], list[str]]:
    """Return the baselines, and a note for each that cannot be asked here."""
    users, fitted = log.users[targets.fitted], rows[targets.fitted]
    count = len(full)
    found: list[Baseline] = [
        Popularity(fitted, count),
        DecayedPopularity(rows, log.batch.times, count),
        ItemKnn(users, fitted, count),
        Content(full, 1),
        Content(full),
    ]
    notes = []
    try:
        found.insert(3, Ease(users, fitted, count, memory_bytes))
    except MemoryError as error:
        notes.append(f"ease is left out: {error}")
    if targets.repeats:
        found.append(OwnFrequent(count))
    return found, notes


def variants_of(replay: Replay, targets: Targets) -> list[Variant]:
    """Return the variants that can differ: what is left out is there, and the artifact reads it."""
    found = [WHOLE]
    tower, wanted = replay.recommender.tower, replay.recommender.ranker.wanted
    reads = wanted[[FEATURE.scene_1d, FEATURE.scene_10d]].any() or (
        tower is not None and tower.attention is not None
    )
    if reads and (replay.log.batch.scenes[targets.events] != 0).any():
        found.append(WITHOUT_SCENES)
    if users_with_attributes(replay)[replay.log.users[targets.events]].any():
        found.append(WITHOUT_ATTRIBUTES)
    return found


def users_with_attributes(replay: Replay) -> Flags:
    """Return (U,) of which users of the log the artifact knows attributes."""
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
    """Ask every model at every target, each from what came before it.

    The baselines need no states of the tracker, and are asked in a second thread meanwhile; in two
    more the states are read and what they gave is scored. What is answered does not depend on it.

    Args:
        replay: at its start.
        targets: what is asked.
        baselines: asked beside the tracker.
        variants: of the tracker.
        between: called with each target's position before the states are moved there; it may move
            them itself, no farther.
    """
    with ThreadPoolExecutor(3) as beside:
        others = beside.submit(ask_baselines, replay.log, replay.rows, targets, baselines)
        found = ask_tracker(replay, targets, variants, beside, between)
        return found | others.result()


def ask_baselines(
    log: EventLog, rows: Rows, targets: Targets, baselines: Sequence[Baseline]
) -> dict[str, Answers]:
    """Ask each baseline at every target."""
    found = {model.name: Answers.of_size(len(targets.events)) for model in baselines}
    done = 0
    for asked in asked_in_parts(log, rows, targets, 4 * len(targets.ranked)):
        part = slice(done, done + len(asked))
        for model in baselines:
            _write(found[model.name], part, model.scores(asked), asked, targets)
        done += len(asked)
    return found


def ask_tracker(
    replay: Replay,
    targets: Targets,
    variants: Sequence[Variant],
    beside: Executor,
    between: Callable[[int], None],
) -> dict[str, Answers]:
    """Ask the tracker at every target, from the states just before it.

    1. Events before the target go into the states.
    2. What the ranker reads of the catalogue is computed for each variant, most of it `beside`.
    3. The list as served is asked for, for `tracker_served`.
    4. The ranker scores some targets' catalogue, `beside`.

    With a learner in the replay its ranker is asked too, for `tracker_online`.
    """
    log, recommender = replay.log, replay.recommender
    names = [variant.name for variant in variants]
    if replay.learner is not None:
        names.append(TRACKER_ONLINE)
    whole = {name: Answers.of_size(len(targets.events)) for name in names}
    served = Answers.of_size(len(targets.events))
    ranked = np.flatnonzero(targets.ranked)
    scored: Future[None] | None = None
    done = 0
    width = 4 * len(ranked) * len(COLUMNS) * len(variants)
    for asked in asked_in_parts(log, replay.rows, targets, width):
        shape = len(asked), len(variants), len(ranked), len(COLUMNS)
        columns = np.zeros(shape, np.float32)
        learned: list[tuple[Ranker, NDArray[np.float32]]] = []
        for b, event in enumerate(asked.events.tolist()):
            between(event)
            replay.advance(event)  # 1
            _read(replay, event, ranked, variants, columns[b], beside)  # 2
            if replay.learner is not None:
                learned.append((replay.online_ranker(), replay.online_attention(event, ranked)))
            found = recommender.rows(replay.asked(np.array([event])), SERVED)[0]  # 3
            served.lists[done + b] = found[:K]
            served.ranks[done + b] = _place(found, _offered(asked, b, targets))
        replay.wait()
        if scored is not None:
            scored.result()  # no more than one waits: each takes memory
        part = slice(done, done + len(asked))
        answers = list(whole.values())
        scored = beside.submit(  # 4
            _score, recommender.ranker, learned, columns, answers, part, asked, targets
        )
        done += len(asked)
    if scored is not None:
        scored.result()
    return {TRACKER: whole.pop(TRACKER), TRACKER_SERVED: served} | whole


_VARIED = np.isin(COLUMNS, ["scene_1d", "scene_10d", *MODELLED])
"""(F,) the columns that can differ between variants."""


def _read(
    replay: Replay,
    event: int,
    rows: Rows,
    variants: Sequence[Variant],
    out: NDArray[np.float32],
    beside: Executor,
) -> None:
    """Write what the ranker reads of rows (C,) at a coming event, for each of V variants.

    Args:
        replay: moved up to the event; when it moves on, or was waited for, all is written.
        event: its position in the log.
        rows: of the catalogue.
        variants: the first is the whole tracker.
        out: (V, C, F) zeros.
        beside: where what the variants have in common is computed.
    """
    recommender, count = replay.recommender, len(variants)
    wanted = np.zeros(len(COLUMNS), np.bool_)
    wanted[: len(recommender.ranker.wanted)] = recommender.ranker.wanted
    scenes = np.array([variant.scenes for variant in variants])
    attributes = np.array([variant.attributes for variant in variants])
    asked = replay.asked(np.full(count, event), scenes, attributes)
    recommender.columns(asked, np.tile(rows, (count, 1)), wanted & _VARIED, out)

    def common() -> None:
        one = slice(0, 1)
        recommender.columns(asked.part(one), rows[None], wanted & ~_VARIED, out[one])
        np.copyto(out[1:], out[0], where=~_VARIED)

    replay.read_beside(beside, common)


def _score(
    ranker: Ranker,
    learned: Sequence[tuple[Ranker, NDArray[np.float32]]],
    columns: NDArray[np.float32],
    answers: Sequence[Answers],
    part: slice,
    asked: Asked,
    targets: Targets,
) -> None:
    """Score the ranked items of some targets for each variant, and write down what came of it.

    Args:
        ranker: as published.
        learned: rankers, one a target, and what learned attention adds to the encoder's scores;
            they are asked for the last of the answers.
        columns: (B, V, C, F).
        answers: of each variant, and of what was learned.
        part: where in the answers the targets are.
        asked: the targets.
        targets: all of them.
    """
    found = [
        _scores(ranker, learned[b] if learned else None, columns[b]) for b in range(len(asked))
    ]
    scores = np.full((len(asked), len(targets.ranked)), -np.inf, np.float32)
    for own, said in zip(answers, np.stack(found, axis=1), strict=True):
        scores[:, targets.ranked] = said
        _write(own, part, scores, asked, targets)


def _scores(
    ranker: Ranker,
    learned: tuple[Ranker, NDArray[np.float32]] | None,
    columns: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the scores (V, C) of columns (V, C, F), or (V + 1, C) with what was learned last.

    A learned ranker differs from the published one in its read-out alone.
    """
    everyone = np.full(len(columns), columns.shape[1])
    if learned is None:
        return ranker.score(columns, everyone)
    online, attended = learned
    whole, others = columns[:1], ranker.score(columns[1:], everyone[1:])
    if isinstance(ranker, Network) and isinstance(online, Network) and not attended.any():
        published, own = score_each((ranker, online), whole, everyone[:1])
        return np.concatenate([published, others, own])
    published = ranker.score(whole, everyone[:1])
    whole[0, :, C_ENCODER] += attended
    return np.concatenate([published, others, online.score(whole, everyone[:1])])


def _offered(asked: Asked, b: int, targets: Targets) -> int:
    """Return the row of a target, -1 where it may not be in a list.

    Where everything is seen a list has what was seen, which counts for nothing here.
    """
    row = int(asked.rows[b])
    seen = not targets.repeats and row in asked.past[asked.starts[b] : asked.starts[b + 1]]
    return -1 if seen else row


def _place(found: Rows, row: int) -> float:
    """Return the place of a row in a list, from 1; infinity where it is not there."""
    places = np.flatnonzero(found == row) if row >= 0 else found[:0]
    return 1.0 + int(places[0]) if len(places) else math.inf


def _write(
    answers: Answers, part: slice, scores: NDArray[np.float32], asked: Asked, targets: Targets
) -> None:
    """Write down the ranks of some targets, and the lists."""
    starts = np.zeros_like(asked.starts) if targets.repeats else asked.starts
    rank_and_list(
        scores, asked.rows, targets.ranked, asked.past, starts,
        answers.ranks[part], answers.lists[part],
    )  # fmt: skip
