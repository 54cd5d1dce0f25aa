"""Lists: made now from copies of states, with what speaks for their items."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from tracker.api.labels import Labels
from tracker.api.messages import (
    Explain,
    InterestShare,
    ListAnswer,
    ListItem,
    Parts,
    Reason,
)
from tracker.artifact.artifact import Artifact
from tracker.events.wire import hash_id, scene_code
from tracker.items.view import ItemView
from tracker.recommend.candidates import CHANNEL, CHANNELS
from tracker.recommend.inspection import Inspection, contributions
from tracker.recommend.lists import BECAUSE
from tracker.recommend.options import LearnedModels
from tracker.recommend.recommender import Recommender
from tracker.scoring.parts import attributions, grouped
from tracker.stream.serving import Serving
from tracker.users.readings import interest_strengths, interest_vectors, shares_of
from tracker.users.rows import RequestBatch, UserRows


@dataclass(frozen=True, slots=True)
class Wish:
    """A wish for a list: items wanted and left out, place, time, diversity, explanation."""

    k: int
    scene: str | None
    now: float
    exclude: Sequence[str]
    diversity: float | None
    explain: Explain


class ListMaker:
    """Makes lists beside the stream, with the recommender in use; in one thread at a time."""

    def __init__(self) -> None:
        self._view: ItemView | None = None
        self._labels: tuple[Artifact, Labels] | None = None

    def labels(self, artifact: Artifact) -> Labels:
        """Return what makes the labels of interests; made once for an artifact."""
        if self._labels is None or self._labels[0] is not artifact:
            self._labels = artifact, Labels(artifact)
        return self._labels[1]

    def recommender(self, serving: Serving, diversity: float | None) -> Recommender:
        """Return a recommender like that of the stream, with trends of its own."""
        self._view = serving.view.beside(self._view)
        options = serving.recommender.options
        if diversity is not None:
            options = replace(options, diversity=diversity)
        return Recommender(serving.artifact, self._view, options, serving.recommender.ranker)

    def make(
        self,
        serving: Serving,
        learned: LearnedModels,
        rows: UserRows,
        slot: int,
        user_id: str | None,
        wish: Wish,
    ) -> tuple[Recommender, RequestBatch, Inspection, Labels]:
        """Make a list of a user's row, and return it with what each step gave."""
        recommender = self.recommender(serving, wish.diversity)
        requests = RequestBatch(
            rows,
            np.array([slot], np.int64),
            np.array([wish.now]),
            np.array([scene_code(wish.scene)], np.uint32),
            np.array([0 if user_id is None else hash_id(user_id)], np.uint64),
        )
        items = serving.artifact.vectors
        excluded = np.array([items.row_of_id(item_id) for item_id in wish.exclude], np.int64)
        inspection = recommender.inspect(requests, wish.k, learned, excluded[excluded >= 0])
        return recommender, requests, inspection, self.labels(serving.artifact)


def list_answer(
    user_id: str | None,
    is_known: bool,
    offset: int,
    wish: Wish,
    recommender: Recommender,
    requests: RequestBatch,
    inspection: Inspection,
    labels: Labels,
) -> ListAnswer:
    """Return a list as it is sent."""
    artifact = recommender.artifact
    return ListAnswer(
        user_id,
        is_known,
        wish.now,
        wish.scene,
        offset,
        artifact.manifest.version,
        list_items(recommender, requests, inspection, labels, wish.explain),
        interest_shares(requests, labels),
    )


def interest_shares(requests: RequestBatch, labels: Labels) -> list[InterestShare]:
    """Return the interests of one user, strongest first."""
    names, shares, moves = interests_of(requests, labels)
    order = np.argsort(-shares, kind="stable")
    return [
        InterestShare(names[place], round(float(shares[place]), 6), round(float(moves[place]), 6))
        for place in order.tolist()
        if shares[place] > 0.0
    ]


def interests_of(requests: RequestBatch, labels: Labels) -> tuple[list[str], Any, Any]:
    """Return the labels, shares and changes of one user's interests, by their places."""
    states, slot = requests.states, int(requests.slots[0])
    if slot < 0:
        return [], np.zeros(0), np.zeros(0)
    count = int(states.head[slot]["n_slots"])
    strengths, changes = interest_strengths(states, requests.slots, requests.now)
    shares, moves = shares_of(strengths, changes)
    return labels.of(states, slot, strengths[0]), shares[0, :count], moves[0, :count]


def list_items(
    recommender: Recommender,
    requests: RequestBatch,
    inspection: Inspection,
    labels: Labels,
    explain: Explain,
) -> list[ListItem]:
    """Return the items of one user's list, with as much of what speaks for them as is wanted."""
    artifact, batch = recommender.artifact, inspection.batch
    vectors = artifact.vectors
    rows = batch.rows[0][batch.rows[0] >= 0]
    probabilities = batch.probabilities[0]
    plain = [
        ListItem(
            vectors.ids[row],
            vectors.label(row),
            round(float(batch.scores[0, place]), 6),
            CHANNELS[batch.channels[0, place]],
            None if np.isnan(probabilities[place]) else round(float(probabilities[place]), 6),
            demoted=bool(batch.channels[0, place] == CHANNEL.seen),
        )
        for place, row in enumerate(rows.tolist())
    ]
    if explain == "off" or not plain:
        return plain
    with_reasons = _with_reasons(plain, rows, recommender, requests, labels)
    if explain == "reasons":
        return with_reasons
    return _with_parts(with_reasons, recommender, inspection)


def _with_reasons(
    plain: list[ListItem],
    rows: Any,
    recommender: Recommender,
    requests: RequestBatch,
    labels: Labels,
) -> list[ListItem]:
    artifact, options = recommender.artifact, recommender.options
    vectors = artifact.vectors
    states, slot = requests.states, int(requests.slots[0])
    if slot < 0:
        return plain
    shares_of_events = contributions(requests, vectors, rows)
    ring = states.ring[slot]
    event_rows = vectors.row_of(np.ascontiguousarray(ring["item"][shares_of_events.places]))
    cosines = vectors.vectors[rows] @ vectors.vectors[event_rows].T  # (K, E)
    positive = np.maximum(shares_of_events.events, 0.0)
    older = np.maximum(shares_of_events.earlier, 0.0)
    whole = positive.sum(axis=1) + older
    names, strengths, _ = interests_of(requests, labels)
    means = interest_vectors(states, requests.slots)[0, : len(names)]
    near = vectors.vectors[rows] @ means.T if len(names) else np.zeros((len(rows), 0))
    near = np.where(np.asarray(strengths) > 0.0, near, -1.0) if len(names) else near
    items = []
    for place, item in enumerate(plain):
        interest = None
        if len(names):
            best = int(np.argmax(near[place]))
            if near[place, best] >= options.because_cosine:
                interest = names[best]
        if whole[place] <= 0.0:
            items.append(msgspec.structs.replace(item, interest=interest))
            continue
        shares = positive[place] / whole[place]
        named = np.argsort(-shares, kind="stable")[:BECAUSE]
        named = named[(cosines[place, named] >= options.because_cosine) & (shares[named] > 0.0)]
        because = [
            Reason(
                vectors.ids[int(event_rows[at])],
                vectors.label(int(event_rows[at])),
                float(ring["time"][shares_of_events.places[at]]),
                round(float(shares[at]), 6),
            )
            for at in named.tolist()
        ]
        earlier = round(float(older[place] / whole[place]), 6)
        others = round(max(0.0, 1.0 - earlier - sum(reason.share for reason in because)), 6)
        items.append(
            msgspec.structs.replace(
                item, interest=interest, because=because, others=others, earlier=earlier
            )
        )
    return items


def _with_parts(
    items: list[ListItem], recommender: Recommender, inspection: Inspection
) -> list[ListItem]:
    count = int(inspection.cut.n_rows[0])
    features = inspection.features[0, :count]
    picks = inspection.picks[0][inspection.picks[0] >= 0]
    base, parts = attributions(inspection.ranker, features[picks], features.mean(axis=0))
    groups = grouped(parts)
    losses = _diversity_losses(recommender, inspection, picks)
    return [
        msgspec.structs.replace(
            item,
            parts=Parts(
                base,
                {name: float(sums[place]) for name, sums in groups.items() if sums.any()},
                losses[place],
            ),
        )
        for place, item in enumerate(items)
    ]


def _diversity_losses(recommender: Recommender, inspection: Inspection, picks: Any) -> list[float]:
    """Return what each pick lost in the order by being like those above it, in units of scores."""
    diversity = recommender.options.diversity_weight
    if not 0.0 < diversity < 1.0:
        return [0.0] * len(picks)
    scores = inspection.scores[0, : int(inspection.cut.n_rows[0])]
    span = float(scores.max() - scores.min()) or 1.0
    vectors = recommender.artifact.vectors.vectors[inspection.cut.rows[0, picks]]
    cosines = vectors @ vectors.T
    losses = [0.0]
    for place in range(1, len(picks)):
        losses.append(-diversity / (1.0 - diversity) * span * float(cosines[place, :place].max()))
    return losses
