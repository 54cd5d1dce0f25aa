"""Fit SceneAttention on top of a frozen UserEncoder, on interests as they serve."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from indexer.encoder.optimizer import AdamW
from indexer.encoder.scores import TrendScores
from indexer.replay.groups import groups_of
from indexer.replay.replay import Replay
from tracker.encoder.interests import read_interests
from tracker.encoder.scene_attention import SceneAttention, SceneAttentionConfig
from tracker.encoder.user_encoder import code_rows

MIN_SCENE_EVENTS = 100
"""A scene with fewer targets shares the weights of all scenes; attention needs two such scenes."""

MAX_SCENES = 1024


class AttentionOptions(msgspec.Struct, frozen=True):
    """Hyperparameters of scene attention, fitted on up to `targets`, evenly spread."""

    targets: int = 20_000
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    batch_size: int = 256
    epochs: int = 6
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TargetInterests:
    """The interests of users just before Q targets.

    Attributes:
        events: (Q,) ascending positions of the targets in the log.
        vectors: (Q, M, K) float16 unit vectors of `read_interests`.
        masses: (Q, M) float32, their masses.
        scenes: (Q,) codes of the targets' scenes.
    """

    events: NDArray[np.int64]
    vectors: NDArray[np.float16]
    masses: NDArray[np.float32]
    scenes: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class FrozenEncoder:
    """The output of an encoder at the same targets.

    Attributes:
        queries: (Q, D) float32 user vectors.
        table: (N, D) item vectors.
        biases: (N,) of the items.
        rows: (Q,) catalogue rows of the targets.
        times: (Q,) float seconds of the targets.
        trend_scores: returns the scores that the trend adds.
    """

    queries: NDArray[np.float32]
    table: Tensor
    biases: Tensor
    rows: NDArray[np.int64]
    times: NDArray[np.float64]
    trend_scores: TrendScores


def known_scenes(scenes: NDArray[np.uint32]) -> tuple[int, ...]:
    """Return the scenes with enough targets for weights of their own, the most frequent ones."""
    codes, counts = np.unique(scenes[scenes != 0], return_counts=True)
    enough = np.flatnonzero(counts >= MIN_SCENE_EVENTS)
    best = enough[np.argsort(-counts[enough], kind="stable")[:MAX_SCENES]]
    return tuple(codes[np.sort(best)].tolist())


def collect_interests(
    replay: Replay,
    targets: NDArray[np.int64],
    progress: Callable[[int], None] = lambda count: None,
) -> TargetInterests:
    """Replay the log up to the last target, and return each user's interests just before it.

    Args:
        replay: at its start.
        targets: ascending positions in the log.
        progress: called with the number of targets done.
    """
    log = replay.log
    scenes = log.batch.scenes[targets]
    vectors: list[NDArray[np.float16]] = []
    masses: list[NDArray[np.float32]] = []
    for start, stop in groups_of(log, targets):
        group = targets[start:stop]
        replay.advance(int(group[0]))
        requests = replay.asked(group)
        units, weights = read_interests(requests.states, requests.slots, requests.now)
        vectors.append(units.astype(np.float16))
        masses.append(weights)
        progress(stop)
    return TargetInterests(targets, np.concatenate(vectors), np.concatenate(masses), scenes)


def fit_attention(
    interests: TargetInterests,
    frozen: FrozenEncoder,
    scenes: tuple[int, ...],
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    names: tuple[str, ...],
    options: AttentionOptions,
    start: SceneAttention | None = None,
) -> SceneAttention | None:
    """Train attention by softmax over all items, the encoder's weights frozen.

    Args:
        interests: the targets.
        frozen: the encoder's output at them.
        scenes: codes with weights of their own.
        train: positions in `interests` to learn from.
        validation: positions that validate: the best epoch is kept. Without any, all epochs are run
            (a refit).
        names: of the interests.
        options: hyperparameters.
        start: weights to continue from.

    Returns:
        None if no epoch is better than the encoder alone.
    """
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    config = SceneAttentionConfig(
        dim=frozen.queries.shape[1], interest_dim=interests.vectors.shape[2], interests=names,
        scenes=scenes,
    )  # fmt: skip
    device = frozen.table.device
    model = SceneAttention(config).to(device)
    if start is not None:
        model.load_state_dict(start.state_dict())
    losses = _Losses(model, interests, frozen, code_rows(interests.scenes, scenes), device)
    optimizer = AdamW(model.parameters(), options.learning_rate, options.weight_decay)
    least = losses.mean(validation)
    best: dict[str, Tensor] | None = None
    for _ in range(options.epochs):
        model.train()
        order = random.permutation(train)
        for begin in range(0, len(order), options.batch_size):
            loss = losses(order[begin : begin + options.batch_size]).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
        model.eval()
        validation_loss = losses.mean(validation)
        if validation_loss < least or not len(validation):
            least = validation_loss
            best = {name: value.clone() for name, value in model.state_dict().items()}
    if best is None:
        return None
    model.load_state_dict(best)
    return model.eval()


@torch.no_grad()
def mean_attended(
    attention: SceneAttention,
    interests: TargetInterests,
    places: NDArray[np.int64],
    queries: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the mean (D,) of the user vectors (P, D) of the encoder after attention."""
    device = attention.get_buffer("types").device
    total = np.zeros(queries.shape[1])
    scenes = code_rows(interests.scenes, attention.config.scenes)
    for begin in range(0, len(places), 4096):
        some = places[begin : begin + 4096]
        vectors, _ = attention(
            torch.from_numpy(queries[begin : begin + 4096]).to(device),
            torch.from_numpy(interests.vectors[some].astype(np.float32)).to(device),
            torch.from_numpy(interests.masses[some]).to(device),
            torch.from_numpy(scenes[some]).to(device),
        )
        total += vectors.sum(dim=0).double().cpu().numpy()
    return (total / max(len(places), 1)).astype(np.float32)


class _Losses:
    """Cross-entropy of targets among all items, given their scenes."""

    def __init__(
        self,
        model: SceneAttention,
        interests: TargetInterests,
        frozen: FrozenEncoder,
        scenes: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self.model, self.interests, self.frozen = model, interests, frozen
        self.scenes, self.device = scenes, device
        self.every = np.arange(len(frozen.biases))

    def __call__(self, some: NDArray[np.int64]) -> Tensor:
        interests, frozen, device = self.interests, self.frozen, self.device
        vectors, _ = self.model(
            torch.from_numpy(frozen.queries[some]).to(device),
            torch.from_numpy(interests.vectors[some].astype(np.float32)).to(device),
            torch.from_numpy(interests.masses[some]).to(device),
            torch.from_numpy(self.scenes[some]).to(device),
        )
        logits = (
            vectors @ frozen.table.T
            + frozen.biases
            + frozen.trend_scores(frozen.times[some], self.every)
        )
        rows = torch.from_numpy(frozen.rows[some]).to(device)
        return functional.cross_entropy(logits, rows, reduction="none")

    @torch.no_grad()
    def mean(self, places: NDArray[np.int64]) -> float:
        self.model.eval()
        if not len(places):
            return math.inf
        parts = [self(places[begin : begin + 512]) for begin in range(0, len(places), 512)]
        return float(torch.cat(parts).mean())
