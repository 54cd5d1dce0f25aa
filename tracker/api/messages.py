"""Messages of the HTTP API: the queries, bodies and answers of its routes."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tracker.events.wire import MAX_ID_BYTES, Parts

MOST_ITEMS = 500
"""Items of one list, and of one body that names items."""

MOST_SCORED = 1000
"""Items of one request for scores."""

MOST_EVENTS = 50
"""Events of a guest, and of a what-if."""

MOST_SENT = 500
"""Events of one request that sends events."""

MOST_EXCLUDED = 200

MOST_MAPPED = 3000
"""Items of a map."""

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]
Name = Annotated[str, Meta(max_length=MAX_ID_BYTES)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e11)]
Explain = Literal["off", "reasons", "parts"]


class ListQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request for a list; what is left out is as in the lists that the worker sends.

    `scene`: where it is shown. `k`: items. `exclude`: items that are not to be in it. `diversity`:
    0 (by score alone) to 1. `at`: the time, in seconds since the epoch; by default stream time plus
    the wall time since the last event. `explain`: `off`, `reasons`, or `parts` of scores as well.
    """

    scene: Name | None = None
    k: Annotated[int, Meta(ge=1, le=MOST_ITEMS)] | None = None
    exclude: Annotated[list[Id], Meta(max_length=MOST_EXCLUDED)] = []
    diversity: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    at: Seconds | None = None
    explain: Explain | None = None


class MomentQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At which time and in which scene; by default now, in none."""

    at: Seconds | None = None
    scene: Name | None = None


class AtQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At which time, in seconds since the epoch; by default now."""

    at: Seconds | None = None


class SearchQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items whose id or label has the text `q`; an empty text finds those that trend."""

    q: Name = ""
    k: Annotated[int, Meta(ge=1, le=MOST_ITEMS)] = 20


class SimilarQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number of similar items."""

    k: Annotated[int, Meta(ge=1, le=100)] = 10


class PageQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number of lines, at most."""

    k: Annotated[int, Meta(ge=1, le=MOST_ITEMS)] = 50


class GuestEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event of somebody who has no id here, or an event that a what-if adds.

    `timestamp` is in seconds since the epoch; without one the event is of now.
    """

    item_id: Id
    kind: Id = "view"
    timestamp: Seconds | None = None
    scene: Name | None = None
    value: Annotated[float, Meta(ge=-1e9, le=1e9)] | None = None


class GuestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The events of a guest, and how the list is made; see `ListQuery`."""

    events: Annotated[list[GuestEvent], Meta(max_length=MOST_EVENTS)] = []
    scene: Name | None = None
    k: Annotated[int, Meta(ge=1, le=MOST_ITEMS)] | None = None
    exclude: Annotated[list[Id], Meta(max_length=MOST_EXCLUDED)] = []
    diversity: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    at: Seconds | None = None
    explain: Explain | None = None


class WhatIfBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A change of the past.

    `weights`: other weights of kinds, for the events that the ring holds. `add`: events that did
    not happen. `drop`: places in the history, 0 the latest, of events that happened not. The rest
    is as in `ListQuery`.
    """

    weights: dict[Id, Annotated[float, Meta(ge=-100.0, le=100.0)]] = {}
    add: Annotated[list[GuestEvent], Meta(max_length=MOST_EVENTS)] = []
    drop: Annotated[list[Annotated[int, Meta(ge=0, le=255)]], Meta(max_length=256)] = []
    scene: Name | None = None
    k: Annotated[int, Meta(ge=1, le=MOST_ITEMS)] | None = None
    exclude: Annotated[list[Id], Meta(max_length=MOST_EXCLUDED)] = []
    diversity: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    at: Seconds | None = None


class ScoreBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of whom, and of which items, the probability is asked for."""

    user_id: Id
    items: Annotated[list[Id], Meta(min_length=1, max_length=MOST_SCORED)]
    scene: Name | None = None
    at: Seconds | None = None


class EventsBody(msgspec.Struct, frozen=True):
    """Events to send; each is an object as in the format of events."""

    events: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MOST_SENT)]


class Reason(msgspec.Struct, frozen=True):
    """An item of the user's own events that speak for an item, and their share of what does.

    `time` is that of the latest of these events.
    """

    item_id: str
    label: str
    time: float
    share: float


class ListItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An item of a list.

    `interest` is the label of the user's interest that it is nearest to. `because` are up to three
    items of own events of the ring, `others` the share of its other events, and `earlier` that
    of events that have left it: shares of what the user's events say for the item, by their
    decayed sum. `demoted`: the user knows the item, so it stands after all others.
    """

    item_id: str
    label: str
    score: float
    channel: str
    probability: float | None = None
    interest: str | None = None
    because: list[Reason] = []
    others: float | None = None
    earlier: float | None = None
    demoted: bool = False
    parts: Parts | None = None


class InterestShare(msgspec.Struct, frozen=True):
    """An interest: its share of all, 0 to 1, and the change of that since a day before."""

    label: str
    strength: float
    change: float


class ListAnswer(msgspec.Struct, frozen=True):
    """A list, made now from the user's state; nothing was stored, counted or sent for it.

    `time` is what the list was made for, in seconds; `offset` the next event of the user's
    partition, so that all events before it are in the list; -1 for a guest.
    """

    user_id: str | None
    is_known: bool = msgspec.field(name="known")
    time: float
    scene: str | None
    offset: int
    artifact: str
    items: list[ListItem]
    interests: list[InterestShare]


class InterestAnswer(msgspec.Struct, frozen=True):
    """An interest in full: see `docs/reference/http.md`."""

    label: str
    strength: float
    change: float
    age_seconds: float
    events: int
    typical_item: str
    items: list[str]
    x: float | None
    y: float | None


class InterestsAnswer(msgspec.Struct, frozen=True):
    """The interests of a user, strongest first."""

    user_id: str
    time: float
    artifact: str
    interests: list[InterestAnswer]


class HistoryEvent(msgspec.Struct, frozen=True):
    """An event of the ring; `kind` and `scene` are null if their names are not known here."""

    place: int
    item_id: str
    label: str
    kind: str | None
    scene: str | None
    time: float
    age_seconds: float
    weight: float
    value: float | None
    has_event_id: bool
    in_sums: bool
    in_catalogue: bool
    retracted: bool


class HistoryAnswer(msgspec.Struct, frozen=True):
    """The ring of a user, latest first, and the counts of all events."""

    user_id: str
    time: float
    events: int
    retracted: int
    left_the_ring: int
    history: list[HistoryEvent]


class OutlookLabel(msgspec.Struct, frozen=True):
    """A label, and its share of what the user would look for."""

    label: str
    share: float


class OutlookTime(msgspec.Struct, frozen=True):
    """The interest of a user so many seconds from now, if no event comes until then."""

    seconds: float
    labels: list[OutlookLabel]
    items: list[str]


class OutlookAnswer(msgspec.Struct, frozen=True):
    """The interest of a user at later times; empty, with a note, without a trained encoder."""

    user_id: str
    time: float
    artifact: str
    outlook: list[OutlookTime]
    note: str


class Remains(msgspec.Struct, frozen=True):
    """A place that keeps something of a forgotten user; `seconds` is null if no time bounds it."""

    place: str
    what: str
    seconds: float | None


class ForgetAnswer(msgspec.Struct, frozen=True):
    """A request to forget a user, as far as it has come.

    `waiting` are partitions that have not applied it yet; they will, as soon as a worker has them.
    `events_taken_out` were taken out of items, `events_left` are older ones, without a name.
    """

    request: str
    complete: bool
    waiting: list[int]
    was_known: bool
    events_taken_out: int
    events_left: int
    remains: list[Remains]


class ExportAnswer(msgspec.Struct, frozen=True):
    """All that the topics keep of a user, as `tracker export-user` prints it."""

    user_id: str
    states: list[dict[str, Any]]
    records: dict[str, list[dict[str, Any]]]
    attributes: list[int]


class RecentEvent(msgspec.Struct, frozen=True):
    """One of the latest events of a user."""

    item_id: str
    time: float
    age_seconds: float
    weight: float
    retracted: bool


class UserAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a user; `set_aside` if a row of the user cannot be read."""

    user_id: str
    partition: int
    events: int
    positives: int
    negatives: int
    unknown: int
    retracted: int
    too_old: int
    duplicates: int
    first_event: float
    last_event: float
    last_event_age_seconds: float
    last_offset: int
    evicted: int
    artifact: str
    interests: list[InterestAnswer]
    recent: list[RecentEvent]
    outlook: list[OutlookTime] = []
    set_aside: bool = False
    expected_partition: int | None = None
    also_in_partitions: list[int] = []


class SeenUser(msgspec.Struct, frozen=True):
    """A user whose event came just now."""

    user_id: str
    time: float
    partition: int


class SeenUsers(msgspec.Struct, frozen=True):
    """The users whose events came last to this worker, latest first."""

    users: list[SeenUser]


class ItemScene(msgspec.Struct, frozen=True):
    """A scene in which an item was chosen, with counts by the short and the long half-life."""

    scene: str
    short: float
    long: float


class ItemNeighbour(msgspec.Struct, frozen=True):
    """An item that was chosen by the same users: how often together, and how often next."""

    item_id: str
    label: str
    together: float
    next: float


class ItemAnswer(msgspec.Struct, frozen=True):
    """The state of an item; counts are of positive events, decayed with several half-lives."""

    item_id: str
    label: str
    in_catalogue: bool
    positives: int
    negatives: int
    first_event: float | None
    last_event: float | None
    counts: dict[str, float]
    warming: list[str]
    scenes: list[ItemScene]
    chosen_together: list[ItemNeighbour]
    artifact: str


class TrendStep(msgspec.Struct, frozen=True):
    """Positive events an hour, a mean that weighs events by their age.

    The weights rise and fall with the age. Half of the weight lies from `from_seconds` to
    `to_seconds` ago, and a quarter on each side; half of it is later than `middle_seconds` ago.
    """

    from_seconds: float
    middle_seconds: float
    to_seconds: float
    events_per_hour: float


class TrendAnswer(msgspec.Struct, frozen=True):
    """The trend of an item over the last day, the oldest step first.

    Nothing is estimated: each step is a weighted mean that the item's decayed counts give exactly.
    """

    item_id: str
    label: str
    time: float
    artifact: str
    steps: list[TrendStep]


class SimilarItem(msgspec.Struct, frozen=True):
    """An item near to another one by its text."""

    item_id: str
    label: str
    cosine: float


class SimilarAnswer(msgspec.Struct, frozen=True):
    """The items nearest to an item by their texts, nearest first."""

    item_id: str
    artifact: str
    items: list[SimilarItem]


class FoundItem(msgspec.Struct, frozen=True):
    """An item of the catalogue, with its count by the short half-life."""

    item_id: str
    label: str
    count: float


class SearchAnswer(msgspec.Struct, frozen=True):
    """The items that a search found, those chosen most lately first."""

    artifact: str
    items: list[FoundItem]


class MapQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number of items, at most; of more, those chosen most lately."""

    k: Annotated[int, Meta(ge=1, le=MOST_MAPPED)] = MOST_MAPPED


class MapItem(msgspec.Struct, frozen=True):
    """An item and its place on the map, from 0 to 1."""

    item_id: str
    label: str
    x: float
    y: float


class MapAnswer(msgspec.Struct, frozen=True):
    """The catalogue in two dimensions: the two main directions of the items' vectors."""

    artifact: str
    items: list[MapItem]


class ScoredItem(msgspec.Struct, frozen=True):
    """An item with the probability of a positive event; null if it cannot be told."""

    item_id: str
    in_catalogue: bool
    probability: float | None


class ScoreAnswer(msgspec.Struct, frozen=True):
    """The probability of a positive event of a user, for each of some items."""

    user_id: str
    is_known: bool = msgspec.field(name="known")
    time: float
    scene: str | None
    items: list[ScoredItem]
    trained: bool
    note: str
    artifact: str


class Move(msgspec.Struct, frozen=True):
    """An item of either list: its places, 1 the first and null for none, and why it moved."""

    item_id: str
    before: int | None
    after: int | None
    why: str


class WhatIfAnswer(msgspec.Struct, frozen=True):
    """The present list and the other one, both from one copy of the state.

    `older` is the share of the user's decayed sum that is of events which left the ring: it is the
    same in both lists, and could not be changed.
    """

    user_id: str
    time: float
    offset: int
    artifact: str
    older: float
    before: list[ListItem]
    after: list[ListItem]
    moves: list[Move]


class SentEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one event: its place in Kafka, or the reason why it was not sent."""

    index: int
    partition: int | None = None
    offset: int | None = None
    reason: str | None = None
    message: str | None = None


class SentAnswer(msgspec.Struct, frozen=True):
    """The outcome of each event that was to be sent."""

    sent: int
    refused: int
    events: list[SentEvent]


class Version(msgspec.Struct, frozen=True):
    """A version of the artifact; `latest` is the one that workers use, or will use."""

    version: str
    latest: bool
    in_use: bool
    created: str | None = None
    items: int | None = None
    recall: float | None = None


class ArtifactsAnswer(msgspec.Struct, frozen=True):
    """The versions that are there, newest first.

    `problem` is the reason why this worker does not use the latest one; null if it does, or is
    still loading it.
    """

    in_use: str
    latest: str | None
    versions: list[Version]
    problem: str | None


class PublishAnswer(msgspec.Struct, frozen=True):
    """The version that is now the latest, and the one before."""

    version: str
    before: str | None


class WorkerPartition(msgspec.Struct, frozen=True):
    """A partition of this worker."""

    topic: str
    partition: int
    lag: int
    offset: int
    rows: int
    waits_for: str | None


class OtherWorker(msgspec.Struct, frozen=True):
    """A worker of the group, and the partitions of the events topic that it has."""

    address: str
    partitions: list[int]


class WorkersAnswer(msgspec.Struct, frozen=True):
    """This worker, and who has which partition.

    `weights` are those of kinds of events, and `diversity` that of lists: what a what-if changes.
    """

    address: str
    artifact: str
    ready: bool
    reasons: list[str]
    partitions: list[WorkerPartition]
    workers: list[OtherWorker]
    weights: dict[str, float]
    diversity: float


class RejectedRecord(msgspec.Struct, frozen=True):
    """A record that was not taken since the worker started."""

    reason: str
    message: str
    topic: str
    partition: int
    offset: int
    value: str


class RejectionsAnswer(msgspec.Struct, frozen=True):
    """The rejections of this worker by reason, and the last of them, latest first."""

    counts: dict[str, int]
    last: list[RejectedRecord]


class Step(msgspec.Struct, frozen=True):
    """A step of the way to a list, and what became of an item there."""

    step: str
    passed: bool
    detail: str


class WhyAnswer(msgspec.Struct, frozen=True):
    """The way of an item to a user's list: each step, and what would bring it in."""

    user_id: str
    item_id: str
    label: str
    time: float
    artifact: str
    place: int | None
    steps: list[Step]
    remedy: str
    item: ListItem | None
