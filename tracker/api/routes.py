"""Routes of the HTTP API: paths, who may ask, and the messages of each."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from tracker.api import messages
from tracker.api.access import Scope

PREFIX = "/v1"


@dataclass(frozen=True, slots=True)
class Route:
    """A route: a method and a path below PREFIX.

    `owner` says where the user stands whose worker has to answer: in the path, in the body, or
    nowhere, so that any worker answers. `streams`: the answer is a stream of server-sent events,
    each with an `answer`.
    """

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    answer: type[msgspec.Struct]
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    scope: Scope = "read"
    status: int = 200
    owner: Literal["path", "body"] | None = None
    streams: bool = False


ROUTES = (
    Route(
        "users", "GET", "/users", "Users whose events came just now.",
        messages.SeenUsers, messages.PageQuery,
    ),
    Route(
        "user", "GET", "/users/{user_id}", "What is known of a user, in one answer.",
        messages.UserAnswer, messages.AtQuery, owner="path",
    ),
    Route(
        "recommendations", "GET", "/users/{user_id}/recommendations",
        "A list, made now from the user's state.",
        messages.ListAnswer, messages.ListQuery, owner="path",
    ),
    Route(
        "interests", "GET", "/users/{user_id}/interests", "The user's interests, strongest first.",
        messages.InterestsAnswer, messages.MomentQuery, owner="path",
    ),
    Route(
        "history", "GET", "/users/{user_id}/history",
        "The user's latest events, their weights, and what was taken back.",
        messages.HistoryAnswer, owner="path",
    ),
    Route(
        "outlook", "GET", "/users/{user_id}/outlook",
        "The user's interest later on, if no event comes until then.",
        messages.OutlookAnswer, messages.MomentQuery, owner="path",
    ),
    Route(
        "why", "GET", "/users/{user_id}/why/{item_id}",
        "The way of an item to the user's list, step by step.",
        messages.WhyAnswer, messages.ListQuery, owner="path",
    ),
    Route(
        "what_if", "POST", "/users/{user_id}/what-if",
        "The list with other weights, or with events more or less, beside the present one.",
        messages.WhatIfAnswer, body=messages.WhatIfBody, owner="path",
    ),
    Route(
        "stream", "GET", "/users/{user_id}/stream",
        "The user's list, again after each event of the user.",
        messages.ListAnswer, messages.ListQuery, owner="path", streams=True,
    ),
    Route(
        "export", "GET", "/users/{user_id}/export", "All that is kept of a user.",
        messages.ExportAnswer, scope="write",
    ),
    Route(
        "forget", "DELETE", "/users/{user_id}", "Ask all workers to forget a user.",
        messages.ForgetAnswer, scope="write", status=202,
    ),
    Route(
        "guest", "POST", "/recommendations", "A list for somebody without an id; nothing is kept.",
        messages.ListAnswer, body=messages.GuestBody,
    ),
    Route(
        "score", "POST", "/score", "The probability of a positive event of a user with items.",
        messages.ScoreAnswer, body=messages.ScoreBody, owner="body",
    ),
    Route(
        "events", "POST", "/events", "Send events to Kafka.",
        messages.SentAnswer, body=messages.EventsBody, scope="write", status=202,
    ),
    Route(
        "items", "GET", "/items", "Search the catalogue by id and label.",
        messages.SearchAnswer, messages.SearchQuery,
    ),
    Route(
        "map", "GET", "/map", "The catalogue in two dimensions.",
        messages.MapAnswer, messages.MapQuery,
    ),
    Route(
        "item", "GET", "/items/{item_id}", "What is known of an item of the catalogue.",
        messages.ItemAnswer, messages.AtQuery,
    ),
    Route(
        "trend", "GET", "/items/{item_id}/trend",
        "How often an item was chosen over the last day.",
        messages.TrendAnswer, messages.AtQuery,
    ),
    Route(
        "similar", "GET", "/items/{item_id}/similar",
        "The items nearest to an item by their texts.",
        messages.SimilarAnswer, messages.SimilarQuery,
    ),
    Route(
        "artifacts", "GET", "/artifacts", "The versions of the artifact.",
        messages.ArtifactsAnswer,
    ),
    Route(
        "publish", "POST", "/artifacts/{version}/publish",
        "Make a version the latest: all workers change over.",
        messages.PublishAnswer, scope="write",
    ),
    Route(
        "rollback", "POST", "/artifacts/rollback", "Make the version before the latest the latest.",
        messages.PublishAnswer, scope="write",
    ),
    Route(
        "workers", "GET", "/workers", "This worker's partitions, and who has which.",
        messages.WorkersAnswer,
    ),
    Route(
        "rejections", "GET", "/rejections", "Records that this worker did not take.",
        messages.RejectionsAnswer, messages.PageQuery,
    ),
)  # fmt: skip
"""The routes of the API; a test compares them with the documentation."""
