"""Answers about users: lists, interests, history, outlook, scores, and users seen just now."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from tracker.api.host import Host
from tracker.api.lists import ListMaker, ListRequest, interests_of, list_answer
from tracker.api.live_lists import LiveLists
from tracker.api.messages import (
    Explain,
    GuestBody,
    GuestEvent,
    HistoryAnswer,
    HistoryEvent,
    InterestAnswer,
    InterestsAnswer,
    ListAnswer,
    ListQuery,
    OutlookAnswer,
    OutlookTime,
    ScoreAnswer,
    SeenUser,
    SeenUsers,
    UserAnswer,
    WhatIfBody,
    WhyAnswer,
)
from tracker.api.problems import ProblemError
from tracker.api.reads import Copy, Reads
from tracker.api.server import Call
from tracker.api.why import why
from tracker.events.batch import EventBatch
from tracker.events.kinds import QuantityError, UnknownKindError
from tracker.events.wire import hash_id, kind_code, scene_code
from tracker.lookup.outlook import outlook
from tracker.lookup.score import score_items
from tracker.lookup.show import describe_user
from tracker.recommend.carry_over import carry_over
from tracker.stream.user_lookup import Moment
from tracker.stream.user_side import UserSide
from tracker.users.readings import read_histories
from tracker.users.rows import RequestBatch, UserRows
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, RING_UNKNOWN


class Users:
    """Answers about users, from copies of their states.

    Args:
        host: the worker.
        reads: makes the copies.
    """

    def __init__(self, host: Host, reads: Reads) -> None:
        self._host = host
        self._settings = host.context.settings
        self._reads = reads
        self.lists = ListMaker()
        self._live = LiveLists(self._settings)

    async def seen(self, call: Call) -> SeenUsers:
        """Return the users of the latest events."""
        answer: list[SeenUser] = []
        for number, partition in self._host.partitions().items():
            side = partition.side
            assert isinstance(side, UserSide)
            answer += [SeenUser(user, at, number) for user, at in side.lookup.latest()]
        answer.sort(key=lambda user: -user.time)
        return SeenUsers(answer[: call.query.k])

    async def user(self, call: Call) -> UserAnswer:
        """Describe a user."""
        copy, now = await self._known(call, everywhere=True), call.query.at

        def work() -> UserAnswer:
            answer = self._described(copy, copy.now if now is None else now)
            more: dict[str, Any] = {
                "partition": copy.partition,
                "also_in_partitions": list(copy.others),
                "expected_partition": copy.expected,
                "set_aside": copy.user.set_aside or copy.side.lookup.is_set_aside(copy.name),
            }
            return msgspec.convert(answer | more, UserAnswer)

        return await self._reads.run(work)

    async def interests(self, call: Call) -> InterestsAnswer:
        """Return a user's interests in full."""
        copy, now = await self._known(call), call.query.at

        def work() -> InterestsAnswer:
            at = copy.now if now is None else now
            answer = self._described(copy, at)
            interests = msgspec.convert(answer["interests"], list[InterestAnswer])
            return InterestsAnswer(copy.user_id, at, copy.moment.serving.version, interests)

        return await self._reads.run(work)

    async def history(self, call: Call) -> HistoryAnswer:
        """Return a user's ring."""
        copy = await self._known(call)
        return await self._reads.run(lambda: self._history(copy))

    async def outlook(self, call: Call) -> OutlookAnswer:
        """Return a user's interest later on."""
        copy, query = await self._known(call), call.query
        artifact = copy.moment.serving.artifact

        def work() -> OutlookAnswer:
            at = copy.now if query.at is None else query.at
            answer = outlook(
                copy.name, copy.user.rows.states, copy.user.slot, artifact, at, query.scene
            )
            note = "" if artifact.models.tower is not None else artifact.manifest.without("tower")
            return OutlookAnswer(
                copy.user_id, at, artifact.manifest.version,
                msgspec.convert(answer, list[OutlookTime]), note,
            )  # fmt: skip

        return await self._reads.run(work)

    async def recommendations(self, call: Call) -> ListAnswer:
        """Return a list of a user."""
        return await self.list_for(call.path["user_id"], call.query)

    async def list_for(self, user_id: str, query: ListQuery) -> ListAnswer:
        """Return the list of a user that a query asks for."""
        copy = await self._reads.copy(user_id)
        list_request = self.list_request(query, copy.now, query.explain)
        if query.at is None and self._live.takes(list_request):
            return await self._live.make(copy, list_request)
        return await self._reads.run(lambda: self._list_of(copy, list_request))

    def _list_of(self, copy: Copy, list_request: ListRequest) -> ListAnswer:
        """Make the list of a copy alone."""
        steps = self.lists.make(
            copy.moment.serving, copy.moment.learned, copy.user.rows, copy.user.slot,
            copy.name, list_request,
        )  # fmt: skip
        return list_answer(copy, list_request, *steps)

    async def guest(self, call: Call) -> ListAnswer:
        """Return a list for the events of somebody without an id."""
        body: GuestBody = call.body
        moment = await self._reads.moment()
        list_request = self.list_request(body, moment.now, body.explain)

        def work() -> ListAnswer:
            rows = self.rows_of_guest(moment, body.events, list_request.now)
            slot = 0 if body.events else -1
            steps = self.lists.make(moment.serving, moment.learned, rows, slot, None, list_request)
            return list_answer(None, list_request, *steps)

        return await self._reads.run(work)

    async def score(self, call: Call) -> ScoreAnswer:
        """Return the probabilities of items."""
        body = call.body
        copy = await self._reads.copy(body.user_id)

        def work() -> ScoreAnswer:
            answer = score_items(
                copy.moment.serving.recommender, copy.user.rows, copy.user.slot, body.user_id,
                body.items, copy.now if body.at is None else body.at, body.scene,
                copy.moment.learned.calibration,
            )  # fmt: skip
            return msgspec.convert(answer, ScoreAnswer)

        return await self._reads.run(work)

    def list_request(
        self, query: ListQuery | GuestBody | WhatIfBody, now: float, explain: Explain | None
    ) -> ListRequest:
        """Return a request for a list; what is left out of it is as in the settings.

        Args:
            query: the fields of the request.
            now: the time for which the list is made if the request has none, in seconds.
            explain: how much is explained; None for as much as the settings say.
        """
        return ListRequest(
            self._settings.k if query.k is None else query.k,
            query.scene,
            now if query.at is None else query.at,
            query.exclude,
            query.diversity,
            self._settings.explain if explain is None else explain,
        )

    async def why(self, call: Call) -> WhyAnswer:
        """Return the way of an item to a user's list."""
        copy = await self._reads.copy(call.path["user_id"])
        list_request = self.list_request(call.query, copy.now, "parts")

        def work() -> WhyAnswer:
            steps = self.lists.make(
                copy.moment.serving, copy.moment.learned, copy.user.rows, copy.user.slot,
                copy.name, list_request,
            )  # fmt: skip
            return why(copy, call.path["item_id"], list_request, *steps)

        return await self._reads.run(work)

    def rows_of_guest(self, moment: Moment, events: Sequence[GuestEvent], now: float) -> UserRows:
        """Return the row that a user of these events would have.

        Raises:
            ProblemError: a kind has no weight.
        """
        serving = moment.serving
        rows = UserRows(serving.config)
        rows.follow(serving.config, serving.artifact.models.hidden, moment.newest)
        rows.grow(1)
        if events:
            batch = self.batch(events, now)
            serving.recommender.update(rows, batch)
        return rows

    def batch(self, events: Sequence[GuestEvent], now: float) -> EventBatch:
        """Return events as the batch that a partition would make of them, for slot 0.

        Raises:
            ProblemError: a kind has no weight.
        """
        kinds = self._host.context.kinds
        weights, values, codes = [], [], []
        for number, event in enumerate(events):
            try:
                weights.append(kinds.weight(event.kind, event.value))
                name, value = kinds.effective(event.kind, event.value)
            except (UnknownKindError, QuantityError) as error:
                raise ProblemError(400, f"events[{number}]: {error}") from error
            codes.append(kind_code(name))
            values.append(np.nan if value is None else value)
        count = len(events)
        times = [now if event.timestamp is None else event.timestamp for event in events]
        batch = EventBatch(
            topic="", partition=0, users=[""] * count, slots=np.zeros(count, np.int64),
            items=np.array([hash_id(event.item_id) for event in events], np.uint64),
            rows=np.full(count, -1, np.int64), times=np.array(times, np.float64),
            appended=np.full(count, now), weights=np.array(weights, np.float32),
            values=np.array(values, np.float32), kinds=np.array(codes, np.uint16),
            scenes=np.array([scene_code(event.scene) for event in events], np.uint32),
            event_ids=np.zeros(count, np.uint64), retracts=np.zeros(count, np.uint64),
            offsets=np.arange(count, dtype=np.int64),
        )  # fmt: skip
        return batch.take(np.argsort(batch.times, kind="stable"))

    def _history(self, copy: Copy) -> HistoryAnswer:
        """Return the ring of a copy, the latest event first.

        Names of items, kinds and scenes come from the catalogue, the table of weights and the
        partition: the ring holds hashes. An item that the catalogue lacks is shown by its hash.
        """
        states, slot = copy.user.rows.states, copy.user.slot
        vectors = copy.moment.serving.artifact.vectors
        carry_over(states, np.array([slot]), copy.moment.serving.artifact)
        head = states.head[slot]
        kinds = {kind_code(name): name for name in self._host.context.kinds.table}
        count = int(head["n_ring"])
        entries = []
        for place in range(count):
            entry = states.ring[slot, count - 1 - place]
            flags, scene = int(entry["flags"]), int(entry["scene"])
            row = int(vectors.row_of(np.array([entry["item"]], np.uint64))[0])
            value = float(entry["value"])
            entries.append(
                HistoryEvent(
                    place=place,
                    item_id=vectors.ids[row] if row >= 0 else f"#{int(entry['item']):016x}",
                    label=vectors.label(row) if row >= 0 else "",
                    kind=kinds.get(int(entry["kind"])),
                    scene=copy.moment.scene_names.get(scene) if scene else None,
                    time=float(entry["time"]),
                    age_seconds=copy.now - float(entry["time"]),
                    weight=round(float(entry["weight"]), 6),
                    value=None if np.isnan(value) else value,
                    has_event_id=bool(entry["event_id"]),
                    in_sums=bool(flags & RING_IN_SUMS),
                    in_catalogue=not flags & RING_UNKNOWN and row >= 0,
                    retracted=bool(flags & RING_RETRACTED),
                )
            )
        return HistoryAnswer(
            copy.user_id, copy.now, int(head["events"]), int(head["retracted"]),
            int(head["evicted"]), entries,
        )  # fmt: skip

    async def _known(self, call: Call, everywhere: bool = False) -> Copy:
        """Return the copy of a user who is known; see `Reads.copy`.

        Raises:
            ProblemError: 404.
        """
        copy = await self._reads.copy(call.path["user_id"], everywhere)
        if not copy.known:
            raise ProblemError(
                404, "nothing is known of this user: no event has come, or its state was deleted",
                partition=copy.partition,
            )  # fmt: skip
        return copy

    def _described(self, copy: Copy, now: float) -> dict[str, Any]:
        """Describe a user, with labels of interests that are distinct."""
        states, slot, artifact = (
            copy.user.rows.states, copy.user.slot, copy.moment.serving.artifact,
        )  # fmt: skip
        answer = describe_user(copy.user_id, states, slot, artifact, now)
        requests = RequestBatch(
            copy.user.rows, np.array([slot]), np.array([now]), np.zeros(1, np.uint32), None
        )
        items, words = artifact.vectors, copy.moment.serving.encoder.words
        (names,) = interests_of(read_histories(requests, items), requests, words, items)
        interests: Any = answer["interests"]
        for name, interest in zip(names.values(), interests, strict=False):
            interest["label"] = name
        return answer
