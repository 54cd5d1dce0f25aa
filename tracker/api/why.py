"""The way of one item to a user's list: where it stood at each step, and what would bring it in."""

from typing import Any

import numpy as np

from tracker.api.lists import ListRequest, list_items
from tracker.api.messages import Step, WhyAnswer
from tracker.api.problems import ProblemError
from tracker.api.reads import Copy
from tracker.recommend.channels import CHANNELS
from tracker.recommend.inspection import Inspection
from tracker.recommend.labels import Words
from tracker.recommend.recommender import Recommender
from tracker.users.rows import RequestBatch

SHORTER = "ask for a longer list, or for less diversity"


def why(
    copy: Copy,
    item_id: str,
    list_request: ListRequest,
    recommender: Recommender,
    requests: RequestBatch,
    inspection: Inspection,
    words: Words,
) -> WhyAnswer:
    """Return where an item stood at each step of a user's list.

    Raises:
        ProblemError: 404; no catalogue of this artifact has or had the item.
    """
    items = recommender.artifact.vectors
    version = recommender.artifact.manifest.version
    row = items.row_of_id(item_id)
    if row < 0:
        raise ProblemError(404, f"the item is not in the catalogue of artifact {version}")
    steps, remedy = _steps(row, list_request, recommender, requests, inspection)
    places = np.flatnonzero(inspection.batch.rows[0] == row)
    place = int(places[0]) + 1 if len(places) else None
    item = None
    if place is not None:
        remedy = ""
        item = list_items(recommender, inspection, words)[place - 1]
    return WhyAnswer(
        copy.user_id,
        item_id,
        items.label(row),
        list_request.now,
        version,
        place,
        steps,
        remedy,
        item,
    )


def _steps(
    row: int,
    list_request: ListRequest,
    recommender: Recommender,
    requests: RequestBatch,
    inspection: Inspection,
) -> tuple[list[Step], str]:
    items, options = recommender.artifact.vectors, recommender.options
    steps = [Step("catalogue", row < items.live, _catalogue(row < items.live))]
    if row >= items.live:
        return steps, "put the item back into the catalogue, and build"
    is_seen = _is_seen(row, items, requests, inspection)
    steps.append(
        Step(
            "known",
            not is_seen or options.seen == "keep",
            "the user has had it" if is_seen else "the user has not had it",
        )
    )
    # 1. Was it a candidate?
    merged = inspection.merged
    rows = merged.rows[0, : int(merged.n_rows[0])]
    places = np.flatnonzero(rows == row)
    if not len(places):
        steps.append(Step("candidates", False, f"no channel brought it among {len(rows)}"))
        if is_seen and options.seen != "keep":
            return steps, "the user has had it: TRACKER_SEEN=keep ranks such items like others"
        return steps, (
            "an event of the user on an item like it, or more events of other users on it"
        )
    channel = CHANNELS[merged.channels[0, places[0]]]
    excluded = row in {items.row_of_id(item_id) for item_id in list_request.exclude}
    steps.append(Step("candidates", True, f"the channel {channel} brought it"))
    if excluded:
        steps.append(Step("exclude", False, "the request excluded it"))
        return steps, "ask without excluding it"
    # 2. Was it cut?
    cut = inspection.cut
    count = int(cut.n_rows[0])
    places = np.flatnonzero(cut.rows[0, :count] == row)
    if not len(places):
        steps.append(Step("cut", False, f"not among the best {count} by the cheap features"))
        return steps, "more of what the ranking reads of it: events of users like this one"
    steps.append(Step("cut", True, f"among the best {count} by the cheap features"))
    # 3. How was it ranked?
    at, unseen = int(places[0]), int(cut.n_unseen[0])
    scores = inspection.scores[0, :count]
    group = scores[:unseen] if at < unseen else scores[unseen:]
    rank = int((group > scores[at]).sum()) + 1
    whom = "" if at < unseen else " of those that the user has had"
    within = rank <= list_request.k and at < unseen
    last = float(np.sort(group)[::-1][min(list_request.k, len(group)) - 1])
    steps.append(
        Step(
            "ranking",
            within,
            f"ranked {rank} of {len(group)}{whom} with {scores[at]:.4f}; place"
            f" {min(list_request.k, len(group))} has {last:.4f}",
        )
    )
    # 4. Was it put down for being like others, or for being known?
    picks = inspection.picks[0]
    is_in = bool((picks == at).any())
    if at >= unseen:
        detail = "items that the user has had stand after all others"
        steps.append(Step("list", is_in, detail))
        return steps, f"{SHORTER}; TRACKER_SEEN=keep ranks such items like others"
    if is_in:
        steps.append(Step("list", True, f"place {int(np.flatnonzero(picks == at)[0]) + 1}"))
        return steps, ""
    detail = "too much like the items above it" if within else "others have higher scores"
    steps.append(Step("list", False, detail))
    return steps, SHORTER


def _catalogue(is_live: bool) -> str:
    if is_live:
        return "it is in the catalogue"
    return "it has left the catalogue, or has no text"


def _is_seen(row: int, items: Any, requests: RequestBatch, inspection: Inspection) -> bool:
    """Return whether the user has had an item, by the ring or by the seen set."""
    slot = int(requests.slots[0])
    if slot < 0:
        return False
    if (inspection.results.histories.ring_rows[0] == row).any():
        return True
    seen_slot = int(requests.users.seen_slots[slot])
    return requests.users.seen.contains(seen_slot, int(items.hashes[row]))
