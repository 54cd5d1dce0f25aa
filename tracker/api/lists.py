"""Lists: made now from copies of states, with what speaks for their items."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from tracker.api.messages import (
    Explain,
    InterestShare,
    ListAnswer,
    ListItem,
    Reason,
)
from tracker.events.wire import Parts, hash_id, scene_code
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.recommend.channels import CHANNEL, CHANNELS
from tracker.recommend.inspection import Inspection
from tracker.recommend.labels import Words
from tracker.recommend.list_json import interest_names
from tracker.recommend.lists import Explanation, RecommendedBatch
from tracker.recommend.options import LearnedModels
from tracker.recommend.recommender import Recommender
from tracker.scoring.parts import GROUPS
from tracker.stream.serving import Serving
from tracker.users.readings import Histories, every_interest, read_histories, shares_of
from tracker.users.rows import RequestBatch, UserRows


@dataclass(frozen=True, slots=True)
class ListRequest:
    """A request for a list: items wanted and left out, scene, time, diversity, explanation."""

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

    def recommender(
        self, serving: Serving, diversity: float | None, explain: Explain
    ) -> Recommender:
        """Return a recommender like that of the stream, with trends of its own."""
        self._view = serving.view.beside(self._view)
        options = replace(serving.recommender.options, explain=explain)
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
        list_request: ListRequest,
    ) -> tuple[Recommender, RequestBatch, Inspection, Words]:
        """Make a list of a user's row, and return it with what each step gave."""
        recommender = self.recommender(serving, list_request.diversity, list_request.explain)
        requests = RequestBatch(
            rows,
            np.array([slot], np.int64),
            np.array([list_request.now]),
            np.array([scene_code(list_request.scene)], np.uint32),
            np.array([0 if user_id is None else hash_id(user_id)], np.uint64),
        )
        items = serving.artifact.vectors
        excluded = np.array(
            [items.row_of_id(item_id) for item_id in list_request.exclude], np.int64
        )
        inspection = recommender.inspect(requests, list_request.k, learned, excluded[excluded >= 0])
        return recommender, requests, inspection, serving.encoder.words


def list_answer(
    user_id: str | None,
    is_known: bool,
    offset: int,
    list_request: ListRequest,
    recommender: Recommender,
    requests: RequestBatch,
    inspection: Inspection,
    words: Words,
) -> ListAnswer:
    """Return a list as it is sent."""
    artifact = recommender.artifact
    return ListAnswer(
        user_id,
        is_known,
        list_request.now,
        list_request.scene,
        offset,
        artifact.manifest.version,
        list_items(recommender, requests, inspection, words),
        interest_shares(requests, words, artifact.vectors),
    )


def interest_shares(
    requests: RequestBatch, words: Words, items: ItemVectors
) -> list[InterestShare]:
    """Return the interests of one user, strongest first."""
    histories = read_histories(requests, items)
    names = interests_of(histories, requests, words, items)
    shares, moves = shares_of(histories.strengths, histories.changes)
    return [
        InterestShare(name, round(float(shares[0, place]), 6), round(float(moves[0, place]), 6))
        for place, name in names.items()
        if shares[0, place] > 0.0
    ]


def interests_of(
    histories: Histories, requests: RequestBatch, words: Words, items: ItemVectors
) -> dict[int, str]:
    """Return the names of one user's interests by their places, strongest first."""
    labels, medoids, places, births = every_interest(histories, requests, items)
    spans = words.spans(labels, medoids, births)
    return {
        place: words.name(label, *span)
        for place, label, span in zip(
            places[0].tolist(), labels[0].tolist(), spans[0].tolist(), strict=True
        )
        if place >= 0
    }


def list_items(
    recommender: Recommender, requests: RequestBatch, inspection: Inspection, words: Words
) -> list[ListItem]:
    """Return the items of one user's list, with what is fields of them."""
    vectors, batch = recommender.artifact.vectors, inspection.batch
    explanation = batch.explanation
    names = interest_names(batch, words)[0]
    probabilities = batch.probabilities[0]
    items = []
    for place, row in enumerate(batch.rows[0].tolist()):
        if row < 0:
            break
        item = ListItem(
            vectors.ids[row],
            vectors.label(row),
            round(float(batch.scores[0, place]), 6),
            CHANNELS[batch.channels[0, place]],
            None if np.isnan(probabilities[place]) else round(float(probabilities[place]), 6),
            demoted=bool(batch.channels[0, place] == CHANNEL.seen),
        )
        if explanation is not None:
            item = msgspec.structs.replace(
                item,
                **_reasons(explanation, place, batch, names, requests, vectors),
                parts=_parts(explanation, place),
            )
        items.append(item)
    return items


def _reasons(
    explanation: Explanation,
    place: int,
    batch: RecommendedBatch,
    names: Sequence[str],
    requests: RequestBatch,
    vectors: ItemVectors,
) -> dict[str, Any]:
    """Return interest and shares of an item, by field."""
    interest = int(explanation.interests[0, place])
    fields: dict[str, Any] = {"interest": names[interest] if interest >= 0 else None}
    shares = explanation.shares[0, place]
    if shares.sum() + explanation.others[0, place] + explanation.earlier[0, place] > 0.0:
        ring = requests.states.ring[int(requests.slots[0])]
        reasons = zip(
            batch.because[0, place], batch.because_rows[0, place].tolist(), shares, strict=True
        )
        fields["because"] = [
            Reason(
                vectors.ids[row],
                vectors.label(row),
                float(ring["time"][(ring["item"] == item) & (ring["weight"] > 0.0)].max()),
                round(float(share), 6),
            )
            for item, row, share in reasons
            if row >= 0
        ]
        fields["others"] = round(float(explanation.others[0, place]), 6)
        fields["earlier"] = round(float(explanation.earlier[0, place]), 6)
    return fields


def _parts(explanation: Explanation, place: int) -> Parts | None:
    """Return the parts of an item's score, of the groups that any item of the list has."""
    if explanation.parts is None:
        return None
    groups = explanation.parts.groups[0]
    return Parts(
        round(float(explanation.parts.bases[0]), 6),
        {
            name: round(float(groups[place, group]), 6)
            for group, name in enumerate(GROUPS)
            if groups[:, group].any()
        },
        round(float(explanation.parts.losses[0, place]), 6),
    )
