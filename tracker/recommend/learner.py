"""Learner: what one partition learns from its stream, model by model."""

import hashlib
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.artifact.models import UNTRAINED, Models
from tracker.encoder.online_attention import OnlineAttention
from tracker.events.batch import EventBatch, can_be_target
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id
from tracker.recommend.learned_row import Learned, decode_learned, encode_learned
from tracker.recommend.options import LearnedModels
from tracker.recommend.recommender import Recommender
from tracker.scoring.calibration import OnlineCalibration
from tracker.scoring.online_ranker import OnlineRanker
from tracker.users.rows import RequestBatch, UserRows
from tracker.users.states import UserStates

MOST = 4
"""Events of a chunk that rankings are learned from at most: what bounds the work."""

MOST_LABELLED = 16
"""Events of a chunk that the calibration is learned from at most: each costs less."""

HORIZON = 500
"""Examples that the mean losses look back on, about."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Events with a label: how many, how many positive, and the sum of what was predicted."""

    count: int = 0
    positive: int = 0
    predicted: float = 0.0


M = TypeVar("M", OnlineRanker, OnlineAttention, OnlineCalibration)


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a model: steps, distance from the published one, loss and gain."""

    steps: int
    distance: float
    loss: float
    gain: float


@dataclass(slots=True)
class _Part(Generic[M]):
    """A model that learns, with its progress."""

    model: M
    state: Learned

    def note(self, learned: float, published: float) -> None:
        """Write down the losses of an example, before it was learned from."""
        state = self.state
        state.steps += 1
        state.loss += (learned - state.loss) / min(state.steps, HORIZON)
        state.gain += (published - learned - state.gain) / HORIZON

    @property
    def is_ahead(self) -> bool:
        return self.state.gain >= 0.0

    def learned(self) -> Learned:
        return msgspec.structs.replace(self.state, values=self.model.to_bytes())


class Learner:
    """Learns from the events of one partition, before they are applied, in bounded steps.

    An event teaches where it is a positive one of a user known before, and its item stood among
    the unseen candidates that would have been ranked for the user at that moment, from the state
    before the chunk: it is the target, the other unseen candidates are the negatives. (Where seen
    items are ranked like others, they are among both.) An event whose item was no candidate teaches
    nothing: put among them for its sake, it would teach that what the channels do not find is good.
    Of each chunk at most MOST events are tried, those whose offsets have the smallest hashes.

    What learns is the `ranker` (`OnlineRanker`), and where there is one the scene `attention`
    (`OnlineAttention`), each by its own scores. The `calibration` (`OnlineCalibration`) learns from
    events that the prediction's rule labels, of users known before, MOST_LABELLED of a chunk; not
    where labels are of impressions, for an impression has none before its time is over. What was
    learned is served while it is ahead: while the mean loss of the latest examples, each taken
    before it was learned from, is no higher than by the published weights.

    Args:
        kinds: says which events are positive.
        learning: whether to learn; else what was learned before is served as it is.

    Attributes:
        models: those of the artifact that is followed.
    """

    def __init__(self, kinds: Kinds, learning: bool = True) -> None:
        self._kinds = kinds
        self._learning = learning
        self.models = UNTRAINED
        self._ranker: _Part[OnlineRanker] | None = None
        self._attention: _Part[OnlineAttention] | None = None
        self._calibration: _Part[OnlineCalibration] | None = None
        self._waiting: dict[str, Learned] = {}  # of models that are not in use
        self._labelled = Labelled()

    @property
    def served(self) -> LearnedModels:
        """The models to make lists with: those that are ahead of the published ones."""
        calibration = _ahead(self._calibration)
        return LearnedModels(
            _ahead(self._ranker),
            _ahead(self._attention),
            None if calibration is None else calibration.value,
        )

    @property
    def progress(self) -> dict[str, Progress]:
        """The progress of each model that can learn."""
        return {
            name: Progress(part.state.steps, part.model.distance, part.state.loss, part.state.gain)
            for name, part in self._parts.items()
        }

    @property
    def _parts(self) -> dict[str, Any]:
        """Return the models in use by their names in the row."""
        parts = {
            "ranker": self._ranker,
            "attention": self._attention,
            "calibration": self._calibration,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def restore(self, row: bytes | None) -> None:
        """Take what `row` gave back, for the models that `follow` names next.

        Raises:
            LearnedRowError: the row is damaged, or of a format that this version does not know.
        """
        self._drop()
        self._waiting = {}
        if row is not None:
            self._waiting = decode_learned(row)

    def follow(self, models: Models) -> list[str]:
        """Go on beside an artifact's models; return the names of those that start again.

        That is so where something was learned from other published weights.
        """
        if models is self.models:
            return []
        self._waiting |= {name: part.learned() for name, part in self._parts.items()}
        self._drop()
        self.models = models
        again: list[str] = []
        if models.ranker is not None:
            online = OnlineRanker(models.ranker)
            self._ranker = self._resume("ranker", online, models.ranker.code, again)
        tower = models.tower
        if tower is not None and tower.attention is not None:
            types = len(tower.attention.type_weight)
            attention = OnlineAttention(
                tower.attention.config.scenes, types, tower.vectors, tower.model.dim
            )
            code = int(tower.code) << 32 | _code(tower.attention)
            self._attention = self._resume("attention", attention, code, again)
        prediction = models.prediction
        if prediction is not None and prediction.info.rule.source == "events":
            calibration = OnlineCalibration(prediction.calibration)
            self._calibration = self._resume("calibration", calibration, prediction.code, again)
        return again

    def _drop(self) -> None:
        self.models = UNTRAINED
        self._ranker = self._attention = self._calibration = None

    def _resume(self, name: str, model: M, code: int, again: list[str]) -> _Part[M]:
        """Return a model with what was learned for it; add its name to `again` if that is lost."""
        state = self._waiting.pop(name, Learned(code))
        if state.code != code or not _restores(model, state.values):
            again += [name] * (state.steps > 0)
            state = Learned(code)
        return _Part(model, state)

    def learn(
        self,
        recommender: Recommender,
        users: UserRows,
        events: EventBatch,
        times: NDArray[np.float64],
        k: int,
    ) -> int:
        """Learn from a chunk that is not applied yet; return the steps taken.

        1. Choose events, none that the states have already.
        2. Find the candidates of each, and what the ranker reads of them.
        3. One step for each whose item is among the unseen ones, in the order of the events.

        Args:
            recommender: of the artifact that is followed.
            users: where their rows are; those of another artifact are carried over.
            events: N events, their slots filled.
            times: (N,) at which lists are made for them.
            k: items in a list.
        """
        if not self._parts or not self._learning:
            return 0
        learnable = users.states.head["events"][events.slots] > 0
        learnable &= recommender.artifact.vectors.row_of(events.items) >= 0
        learnable &= ~_met_before(users.states, events)
        steps = self._learn_labels(recommender, users, events, times, learnable)
        if self._ranker is None and self._attention is None:
            return steps
        items = recommender.artifact.vectors
        # 1. Choose events.
        targets = can_be_target(events, self._kinds) & learnable
        places = _some(targets, events.offsets, MOST)
        rows = items.row_of(events.items[places])
        live = rows < items.live
        places, rows = places[live], rows[live]
        if not len(places):
            return steps
        hashes = np.array([hash_id(events.users[place]) for place in places.tolist()], np.uint64)
        scenes = events.scenes[places]
        requests = RequestBatch(users, events.slots[places], times[places], scenes, hashes)
        # 2. Find the candidates, and what the ranker reads of them.
        examples = recommender.examples(requests, k, self.served.attention)
        # 3. One step for each whose item is among the unseen ones.
        for b, row in enumerate(rows.tolist()):
            unseen = int(examples.n_unseen[b])
            candidates = examples.rows[b, :unseen]
            matches = np.flatnonzero(candidates == row)
            if not len(matches) or unseen < 2:
                continue
            steps += 1
            target = int(matches[0])
            if self._ranker is not None:
                learn = self._ranker.model.learn
                self._ranker.note(*learn(examples.columns[b, :unseen], target))
            if self._attention is not None and examples.scene_queries is not None:
                user = examples.scene_queries.queries[b], examples.scene_queries.by_type[b]
                losses = self._attention.model.learn(int(scenes[b]), *user, candidates, target)
                if losses is not None:
                    self._attention.note(*losses)
        return steps

    def take_labelled(self) -> Labelled:
        """Return the labelled events since the last call, with what was predicted of them."""
        labelled, self._labelled = self._labelled, Labelled()
        return labelled

    def row(self) -> bytes:
        """Return what was learned, to be kept under LEARNED_KEY."""
        learned = self._waiting | {name: part.learned() for name, part in self._parts.items()}
        return encode_learned({name: one for name, one in learned.items() if one.steps})

    def _learn_labels(
        self,
        recommender: Recommender,
        users: UserRows,
        events: EventBatch,
        times: NDArray[np.float64],
        learnable: NDArray[np.bool_],
    ) -> int:
        """Learn the calibration from labelled events; return the steps taken."""
        part, prediction = self._calibration, self.models.prediction
        if part is None or prediction is None:
            return 0
        labels = prediction.info.rule.labels(events.kinds, events.values, events.weights)
        places = _some((labels >= 0) & learnable, events.offsets, MOST_LABELLED)
        if not len(places):
            return 0
        rows = recommender.artifact.vectors.row_of(events.items[places])
        requests = RequestBatch(users, events.slots[places], times[places], events.scenes[places])
        logits = recommender.logits(requests, rows[:, None])[:, 0]
        probability = (self.served.calibration or prediction.calibration).probability(logits)
        self._labelled = Labelled(
            self._labelled.count + len(places),
            self._labelled.positive + int((labels[places] == 1).sum()),
            self._labelled.predicted + float(probability.sum()),
        )
        for b in range(len(places)):
            one = slice(b, b + 1)
            part.note(*part.model.learn(logits[one], labels[places[one]] == 1))
        return len(places)


def _met_before(states: UserStates, events: EventBatch) -> NDArray[np.bool_]:
    """Return which events are in the states already: sent again, or replayed."""
    head, ids = states.head, states.ring["event_id"][events.slots]
    used = np.arange(ids.shape[1]) < head["n_ring"][events.slots, None]
    again = (used & (ids == events.event_ids[:, None])).any(axis=1)
    is_known: NDArray[np.bool_] = again & (events.event_ids != 0)
    if events.is_handed:  # last_offset is of another topic
        return is_known
    return is_known | (events.offsets <= head["last_offset"][events.slots])


def _some(which: NDArray[np.bool_], offsets: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return places of events, ascending; of too many, those whose offsets hash lowest."""
    can = np.flatnonzero(which)
    if len(can) > most:
        mixed = (offsets[can].astype(np.uint64) + np.uint64(1)) * _MIX
        mixed ^= mixed >> np.uint64(29)
        can = np.sort(can[np.argsort(mixed * _MIX, kind="stable")[:most]])
    return can


def _ahead(part: _Part[M] | None) -> M | None:
    return part.model if part is not None and part.is_ahead else None


def _code(model: Any) -> int:
    """Return a hash (32 bits) of the weights of a torch model."""
    digest = hashlib.blake2b(digest_size=4)
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return int.from_bytes(digest.digest(), "little")


def _restores(model: OnlineRanker | OnlineAttention | OnlineCalibration, values: bytes) -> bool:
    """Restore a model; return whether the values fit. If they do not, it stays as published."""
    try:
        if values:
            model.set_bytes(values)
    except ValueError:
        return False
    return True
