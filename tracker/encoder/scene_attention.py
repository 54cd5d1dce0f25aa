"""SceneAttention: several interests of a user, weighed by the scene, to one user vector."""

import math

import msgspec
import torch
from torch import Tensor, nn

ENCODER = "encoder"
"""The name of the interest that is the user encoder's own vector."""


class SceneAttentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of a SceneAttention, saved with the weights and read back from them.

    `interests` names the interests in the order in which the model takes them, without the
    encoder's vector: decayed sums ("session", "day", ...) and "slot" once for each interest.
    `scenes` are the codes of scenes that have weights of their own; all others share one set.
    """

    dim: int = 64
    interest_dim: int = 64
    interests: tuple[str, ...] = ("session", "day", "week", "long", *("slot",) * 8)
    scenes: tuple[int, ...] = ()
    scene_dropout: float = 0.2


class SceneAttention(nn.Module):
    """Attention over a user's interests, with a query from the user vector and the scene.

    The result is `query + (1 + gain(scene)) * out(mixture)`. `out` starts at zero, so that an
    untrained model is the encoder alone; what belongs to a scene starts at zero too, so that it
    starts as the shared model. Row 0, for no scene and for one never seen, stays at zero: it is
    the shared model for good. In training scenes are left out at random, which teaches that one.
    """

    def __init__(self, config: SceneAttentionConfig) -> None:
        super().__init__()
        self.config = config
        names = sorted({ENCODER, *config.interests})
        rows = [names.index(name) for name in (*config.interests, ENCODER)]
        self.register_buffer("types", torch.tensor(rows), persistent=False)
        of_type = nn.functional.one_hot(torch.tensor(rows), len(names)).float().T
        self.register_buffer("of_type", of_type, persistent=False)  # (types, M + 1)
        dim = config.dim
        self.keys = nn.Linear(config.interest_dim, dim, bias=False)
        self.contents = nn.Linear(config.interest_dim, dim, bias=False)
        self.own_key = nn.Linear(dim, dim, bias=False)
        self.own_content = nn.Linear(dim, dim, bias=False)
        self.type_keys = nn.Parameter(torch.randn(len(names), dim) * 0.02)
        self.type_weight = nn.Parameter(torch.zeros(len(names)))
        self.mass_weight = nn.Parameter(torch.ones(len(names)))
        self.ask = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.out.weight)
        scenes = len(config.scenes)
        self.scene_ask = nn.Parameter(torch.zeros(scenes + 1, dim))
        self.scene_types = nn.Parameter(torch.zeros(scenes + 1, len(names)))
        self.scene_gain = nn.Parameter(torch.zeros(scenes + 1))
        self.scene_shift = nn.Parameter(torch.zeros(scenes + 1, dim))

    def forward(
        self, queries: Tensor, interests: Tensor, masses: Tensor, scenes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch of users' interests.

        Args:
            queries: (B, D) vectors of the user encoder.
            interests: (B, M, K) unit vectors in the order of the configuration.
            masses: (B, M) their decayed masses, 0 for none.
            scenes: (B,) int64 rows of scenes, 0 for none and for one never seen.

        Returns:
            user vectors (B, D), and the weights (B, M + 1) of the interests, the encoder's last.
        """
        vectors, weights, _, _ = self._mix(queries, interests, masses, scenes)
        return vectors, weights

    def by_type(
        self, queries: Tensor, interests: Tensor, masses: Tensor, scenes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mix like `forward`, and return the part of each type of interest; arguments as there.

        Returns:
            user vectors (B, D), and for each type (B, types, D) what would be added to them if its
            weight were 1 more, in the shares that its interests have of it; 0 for none.
        """
        vectors, weights, contents, gains = self._mix(queries, interests, masses, scenes)
        types = self.get_buffer("types")
        of_type = self.get_buffer("of_type")
        totals = (weights @ of_type.T)[:, types]  # (B, M + 1)
        shares = weights / totals.clamp_min(torch.finfo(totals.dtype).tiny)
        mixed = (of_type * shares.unsqueeze(1)) @ contents  # (B, types, D)
        return vectors, gains.unsqueeze(1) * self.out(mixed)

    def _mix(
        self, queries: Tensor, interests: Tensor, masses: Tensor, scenes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return vectors, weights, contents (B, M + 1, D) before `out`, and gains (B, 1)."""
        if self.training and self.config.scene_dropout:
            is_kept = torch.rand(scenes.shape, device=scenes.device) >= self.config.scene_dropout
            scenes = scenes * is_kept
        has_scene = (scenes > 0).to(queries.dtype).unsqueeze(-1)  # (B, 1)
        types = self.get_buffer("types")
        keys = torch.cat([self.keys(interests), self.own_key(queries).unsqueeze(1)], dim=1)
        keys = keys + self.type_keys[types]  # (B, M + 1, D)
        asks = self.ask(queries) + has_scene * self.scene_ask[scenes]  # (B, D)
        logits = (keys @ asks.unsqueeze(-1)).squeeze(-1) / math.sqrt(self.config.dim)
        type_weights = self.type_weight + has_scene * self.scene_types[scenes]  # (B, types)
        confidence = torch.log1p(torch.cat([masses, torch.ones_like(masses[:, :1])], dim=1))
        logits = logits + type_weights[:, types] + self.mass_weight[types] * confidence
        none = torch.cat([masses <= 0, torch.zeros_like(masses[:, :1], dtype=torch.bool)], dim=1)
        weights = torch.softmax(logits.masked_fill(none, -math.inf), dim=1)  # (B, M + 1)
        own = self.own_content(queries).unsqueeze(1)
        contents = torch.cat([self.contents(interests), own], dim=1)
        mixed = (weights.unsqueeze(1) @ contents).squeeze(1)  # (B, D)
        gain = 1.0 + has_scene * self.scene_gain[scenes].unsqueeze(-1)
        shift = has_scene * self.scene_shift[scenes]
        return queries + gain * self.out(mixed) + shift, weights, contents, gain
