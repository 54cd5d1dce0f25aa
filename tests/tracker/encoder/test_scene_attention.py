"""SceneAttention starts as the encoder alone, and an unseen scene stays the shared model."""

import numpy as np
import pytest
import torch

from tracker.encoder.interests import unit_interests
from tracker.encoder.scene_attention import SceneAttention, SceneAttentionConfig

CONFIG = SceneAttentionConfig(
    dim=8, interest_dim=6, interests=("day", "week", "slot", "slot"), scenes=(5, 6)
)


def made(users: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    interests = torch.nn.functional.normalize(torch.randn(users, 4, 6, generator=generator), dim=-1)
    return torch.randn(users, 8, generator=generator), interests, torch.ones(users, 4)


def trained() -> SceneAttention:
    torch.manual_seed(1)
    model = SceneAttention(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def test_an_untrained_model_is_the_encoder_alone_in_every_scene() -> None:
    model = SceneAttention(CONFIG).eval()
    queries, interests, masses = made(3)
    with torch.no_grad():
        found, weights = model(queries, interests, masses, torch.tensor([0, 1, 2]))
    assert torch.equal(found, queries)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))


def test_an_unseen_scene_is_the_shared_model_whatever_was_learned_of_the_others() -> None:
    model = trained()
    queries, interests, masses = made(1)
    with torch.no_grad():
        shared, _ = model(queries, interests, masses, torch.tensor([0]))
        home, _ = model(queries, interests, masses, torch.tensor([1]))
        for name in ("scene_ask", "scene_types", "scene_gain", "scene_shift"):
            model.get_parameter(name).add_(3.0)
        again, _ = model(queries, interests, masses, torch.tensor([0]))
    assert torch.equal(shared, again)
    assert not torch.allclose(shared, home)


def test_scenes_move_the_weights_of_the_interests() -> None:
    model = trained()
    queries, interests, masses = made(1)
    with torch.no_grad():
        _, first = model(queries, interests, masses, torch.tensor([1]))
        _, second = model(queries, interests, masses, torch.tensor([2]))
    assert not torch.allclose(first, second, atol=1e-3)


def test_an_interest_without_mass_has_no_weight_and_a_user_without_any_has_the_encoder() -> None:
    model = trained()
    queries, interests, masses = made(2)
    masses[0, 1] = 0.0
    masses[1] = 0.0
    with torch.no_grad():
        found, weights = model(queries, interests, masses, torch.tensor([1, 1]))
    assert weights[0, 1] == 0.0
    assert weights[1].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert bool(torch.isfinite(found).all())


def test_a_type_given_more_weight_adds_its_interests_in_the_shares_that_they_have() -> None:
    model = trained()
    queries, interests, masses = made(2)
    masses[0, 1] = 0.0
    masses[1] = 0.0
    scenes = torch.tensor([1, 0])
    with torch.no_grad():
        found, weights = model(queries, interests, masses, scenes)
        again, by_type = model.by_type(queries, interests, masses, scenes)
        own = model.out(model.own_content(queries))
        slots = model.out(model.contents(interests))[0, 2:]
        gain = 1.0 + model.scene_gain[1]
    assert torch.equal(found, again)
    day, encoder, slot, week = by_type[0]  # in the order of the names
    torch.testing.assert_close(encoder, gain * own[0])
    share = weights[0, 2:4] / weights[0, 2:4].sum()
    torch.testing.assert_close(slot, gain * (share @ slots))
    assert not week.any()  # has no mass
    assert day.any()
    torch.testing.assert_close(by_type[1, 1], own[1])
    assert not by_type[1, [0, 2, 3]].any()


def test_the_order_of_interests_does_not_matter() -> None:
    model = trained()
    queries, interests, masses = made(1)
    masses = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    swap = [0, 1, 3, 2]
    with torch.no_grad():
        found, _ = model(queries, interests, masses, torch.tensor([1]))
        other, _ = model(queries, interests[:, swap], masses[:, swap], torch.tensor([1]))
    torch.testing.assert_close(found, other)


@pytest.mark.training
def test_a_scene_of_its_own_is_learned() -> None:
    torch.manual_seed(0)
    model = SceneAttention(CONFIG).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    queries, interests, masses = made(64)
    scenes = torch.arange(64) % 2 + 1
    target = torch.where((scenes == 1).unsqueeze(1), 1.0, -1.0)
    for _ in range(100):
        found, _ = model(queries, interests, masses, scenes)
        loss = ((found[:, :1] - queries[:, :1] - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found, _ = model(queries, interests, masses, scenes)
    assert bool((torch.sign(found[:, 0] - queries[:, 0]) == target[:, 0]).all())


def test_a_null_sum_is_no_interest() -> None:
    units, masses = unit_interests(
        np.array([[[3.0, 4.0], [0.0, 0.0]]], np.float32), np.array([[2.0, 2.0]], np.float32)
    )
    np.testing.assert_allclose(units, [[[0.6, 0.8], [0.0, 0.0]]])
    assert masses.tolist() == [[2.0, 0.0]]
