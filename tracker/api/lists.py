"""Lists: made now from copies of states, with what speaks for their items."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from tracker.api.messages import (
    Explain,
    InterestShare,
    ListAnswer,
    ListItem,
    Reason,
)
from tracker.api.reads import Copy
from tracker.artifact.artifact import Artifact
from tracker.events.wire import Parts, hash_id, scene_code
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.recommend.channels import CHANNEL, CHANNELS
from tracker.recommend.inspection import Inspection
from tracker.recommend.labels import Words
from tracker.recommend.list_json import interest_names, rounded
from tracker.recommend.lists import Explanation, RecommendedBatch
from tracker.recommend.options import LearnedModels
from tracker.recommend.recommender import Recommender
from tracker.scoring.parts import GROUPS
from tracker.stream.serving import Serving
from tracker.users.readings import Histories, describe_interests, shares_of
from tracker.users.rows import RequestBatch, UserRows

PLACES = 6
"""Decimals of scores and shares."""


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
        # The view beside that of an artifact goes with it, and does not keep its memory.
        self._views: WeakKeyDictionary[ItemView, ItemView] = WeakKeyDictionary()

    def recommender(
        self, serving: Serving, diversity: float | None, explain: Explain
    ) -> Recommender:
        """Return a recommender like that of the stream, with trends of its own."""
        view = serving.view.beside(self._views.get(serving.view))
        self._views[serving.view] = view
        options = replace(serving.recommender.options, explain=explain)
        if diversity is not None:
            options = replace(options, diversity=diversity)
        return Recommender(serving.artifact, view, options, serving.recommender.ranker)

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
    copy: Copy | None,
    list_request: ListRequest,
    recommender: Recommender,
    requests: RequestBatch,
    inspection: Inspection,
    words: Words,
) -> ListAnswer:
    """Return a list as it is sent; `copy` is that of the user, None for a guest."""
    histories, batch = inspection.results.histories, inspection.batch
    return list_answers(
        [copy], [list_request], recommender.artifact, histories, batch, requests, words
    )[0]


def list_answers(
    copies: Sequence[Copy | None],
    list_requests: Sequence[ListRequest],
    artifact: Artifact,
    histories: Histories,
    batch: RecommendedBatch,
    requests: RequestBatch,
    words: Words,
) -> list[ListAnswer]:
    """Return the lists of B users as they are sent; `histories` are what they were made of."""
    vectors = artifact.vectors
    if batch.explanation is None:
        names = [list(some.values()) for some in interests_of(histories, requests, words, vectors)]
    else:
        names = interest_names(batch, words)
    lists = items_of_lists(batch, names, vectors)
    interests = interest_shares(histories, names)
    return [
        ListAnswer(
            None if copy is None else copy.user_id,
            copy is not None and copy.known,
            request.now,
            request.scene,
            -1 if copy is None else copy.moment.offset,
            artifact.manifest.version,
            items,
            some,
        )
        for copy, request, items, some in zip(copies, list_requests, lists, interests, strict=True)
    ]


def interest_shares(histories: Histories, names: list[list[str]]) -> list[list[InterestShare]]:
    """Return the interests of each of B users, strongest first; `names` are in that order."""
    shares, moves = shares_of(histories.strengths, histories.changes)
    strengths, changes = rounded(shares, PLACES), rounded(moves, PLACES)
    exists, order = (shares > 0.0).tolist(), histories.order.tolist()
    return [
        [
            InterestShare(name, strengths[user][place], changes[user][place])
            for place, name in zip(order[user], of_user, strict=False)
            if exists[user][place]
        ]
        for user, of_user in enumerate(names)
    ]


def interests_of(
    histories: Histories, requests: RequestBatch, words: Words, items: ItemVectors
) -> list[dict[int, str]]:
    """Return the names of the interests of each of B users by their places, strongest first."""
    (labels, medoids, places, births), _ = describe_interests(histories, requests, items)
    spans = words.spans(labels, medoids, births)
    return [
        {
            place: words.name(label, *span)
            for place, label, span in zip(*of_user, strict=True)
            if place >= 0
        }
        for of_user in zip(places.tolist(), labels.tolist(), spans.tolist(), strict=True)
    ]


def list_items(recommender: Recommender, inspection: Inspection, words: Words) -> list[ListItem]:
    """Return the items of one user's list, with what is fields of them."""
    vectors, batch = recommender.artifact.vectors, inspection.batch
    return items_of_lists(batch, interest_names(batch, words), vectors)[0]


def items_of_lists(
    batch: RecommendedBatch, names: list[list[str]], vectors: ItemVectors
) -> list[list[ListItem]]:
    """Return the items of the lists of B users, with what is fields of them.

    Args:
        batch: the lists.
        names: of the interests of each, strongest first.
        vectors: the catalogue.
    """
    columns = [
        batch.rows.tolist(),
        rounded(batch.scores, PLACES),
        batch.channels.tolist(),
        rounded(batch.probabilities, PLACES),
        _reasons(batch, names, vectors),
    ]
    return [
        [
            ListItem(
                vectors.ids[row],
                vectors.label(row),
                score,
                CHANNELS[channel],
                None if isnan(probability) else probability,
                reasons.interest,
                reasons.because,
                reasons.others,
                reasons.earlier,
                channel == CHANNEL.seen,
                reasons.parts,
            )
            for row, score, channel, probability, reasons in zip(*of_user, strict=True)
            if row >= 0
        ]
        for of_user in zip(*columns, strict=True)
    ]


class _Reasons(NamedTuple):
    """Fields of a `ListItem` that are of its explanation."""

    interest: str | None
    because: list[Reason]
    others: float | None
    earlier: float | None
    parts: Parts | None


_NO_REASONS = _Reasons(None, [], None, None, None)


def _reasons(
    batch: RecommendedBatch, names: list[list[str]], vectors: ItemVectors
) -> list[list[_Reasons]]:
    """Return what is told of the items of lists (B, K)."""
    explanation = batch.explanation
    if explanation is None:
        return [[_NO_REASONS] * batch.rows.shape[1]] * len(batch)
    sums = explanation.shares.sum(axis=2) + explanation.others + explanation.earlier
    columns = [
        explanation.interests.tolist(),
        (sums > 0.0).tolist(),
        batch.because_rows.tolist(),
        rounded(explanation.shares, PLACES),
        explanation.latest.tolist(),
        rounded(explanation.others, PLACES),
        rounded(explanation.earlier, PLACES),
    ]
    lists: list[list[_Reasons]] = []
    for user, columns_of_user in enumerate(zip(*columns, strict=True)):
        parts = _parts(explanation, user)
        items: list[_Reasons] = []
        for place, entry in enumerate(zip(*columns_of_user, strict=True)):
            interest, has_shares, rows, shares, latest, others, earlier = entry
            name = names[user][interest] if interest >= 0 else None
            part = None if parts is None else parts[place]
            if not has_shares:
                items.append(_Reasons(name, [], None, None, part))
                continue
            because = [
                Reason(vectors.ids[row], vectors.label(row), time, share)
                for row, time, share in zip(rows, latest, shares, strict=True)
                if row >= 0
            ]
            items.append(_Reasons(name, because, others, earlier, part))
        lists.append(items)
    return lists


def _parts(explanation: Explanation, user: int) -> list[Parts] | None:
    """Return the parts of items' scores, of the groups that any item of the list has."""
    parts = explanation.parts
    if parts is None:
        return None
    (base,) = rounded(parts.bases[user : user + 1], PLACES)
    groups, losses = rounded(parts.groups[user], PLACES), rounded(parts.losses[user], PLACES)
    used = [name for name in GROUPS if parts.groups[user][:, GROUPS.index(name)].any()]
    return [
        Parts(base, {name: values[GROUPS.index(name)] for name in used}, loss)
        for values, loss in zip(groups, losses, strict=True)
    ]
