"""Differential privacy: the budget holds, a user's part is bounded, noise does what it should."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from indexer.evaluate.metrics import auc
from indexer.replay.labelled_examples import LabelledExamples
from indexer.train.privacy import (
    Groups,
    Plan,
    PrivacyError,
    PrivacyOptions,
    Spending,
    fit_privately,
    quiet_opacus,
    spent,
)
from indexer.train.private_fits import (
    PLANS,
    PREDICTION,
    RANKER,
    fit_head_privately,
    fit_ranker_privately,
    scales_of,
)
from indexer.train.private_models import PRIORS, begin_spending
from indexer.train.ranker import best_epoch
from tests.indexer.train.test_ranker import QUICK, examples_of
from tracker.events.label_rule import LabelRule
from tracker.scoring.blend import BLEND, Blend
from tracker.scoring.context import COLUMNS
from tracker.scoring.evidence import EVIDENCE

pytestmark = pytest.mark.training

CLIP = 0.5
NO_NOISE = PrivacyOptions(1e6, 1e-6)


class Line(nn.Module):
    """A network of one layer, without a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x).squeeze(-1)
        return found


def of_values(values: NDArray[np.float32]) -> Any:
    """Return the loss that asks a network for 1 at each of values (Q, 3)."""

    def loss_of(model: nn.Module, examples: Any, filled: Any) -> Tensor:
        missed = model(torch.from_numpy(values)[examples]) - 1.0  # (U, E)
        mask = torch.from_numpy(filled)
        each = torch.where(mask, missed**2, 0.0).sum(dim=1) / mask.sum(dim=1)
        return each.sum()

    return loss_of


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1.0, 1e-5), (8.0, 1e-7)])
def test_all_fits_together_spend_no_more_than_the_budget(epsilon: float, delta: float) -> None:
    spending = Spending(PrivacyOptions(epsilon, delta), PLANS)
    assert spending.epsilon == 0.0
    for name, plan in PLANS.items():
        for _ in range(plan.steps):
            spending.take(name)
    assert 0.95 * epsilon < spending.epsilon <= epsilon
    for name in PLANS:
        with pytest.raises(PrivacyError, match="has spent its part"):
            spending.take(name)
    assert spending.epsilon <= epsilon


def test_more_noise_and_fewer_steps_spend_less() -> None:
    assert spent([(2.0, 0.2, 100)], 1e-6) < spent([(1.0, 0.2, 100)], 1e-6)
    assert spent([(1.0, 0.2, 10)], 1e-6) < spent([(1.0, 0.2, 100)], 1e-6)
    # The mechanism without sampling, for which Gaussian noise of 4.84 gives 1 at 1e-5 by the
    # classical bound sqrt(2 ln(1.25 / delta)): that of Rényi is at most as large.
    assert 0.8 < spent([(4.84, 1.0, 1)], 1e-5) <= 1.0


def test_a_budget_that_nothing_can_keep_is_refused_in_a_line() -> None:
    with pytest.raises(PrivacyError) as refused:
        Spending(PrivacyOptions(1e-4, 1e-6), PLANS)
    assert str(refused.value).startswith("epsilon 0.0001 is too small: with delta 1e-06 no less")
    with pytest.raises(PrivacyError, match=r"delta 0\.01 is too large for 100 users: .* below"):
        begin_spending(PrivacyOptions(1.0, 0.01), 100)
    begin_spending(PrivacyOptions(1.0, 0.009), 100)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=60).map(
        lambda numbers: numbers[: len(numbers) // 3 * 3]
    ),
    st.sampled_from([1, 2, 256]),
)
def test_a_user_moves_the_sum_by_no_more_than_the_clip(own: list[float], at_once: int) -> None:
    others = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
    mine = np.array(own, np.float32).reshape(-1, 3)
    values = np.concatenate([others, mine])
    users = np.concatenate([np.arange(12) % 5, np.full(len(mine), 9)])
    found = []
    for count in (12, len(values)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("indexer.train.privacy.AT_ONCE", at_once)
            kept: list[Tensor] = []
            take_sums(patch, kept)
            plan = {"line": Plan(1.0, 1, CLIP, 0.1)}
            groups = Groups(users[:count], 100)
            fit_privately(Line(), groups, of_values(values), Spending(NO_NOISE, plan), "line")
            found += kept
    without, with_user = found
    assert float((with_user - without).norm()) <= CLIP * (1.0 + 1e-4)


def take_sums(patch: pytest.MonkeyPatch, kept: list[Tensor]) -> None:
    with quiet_opacus():
        from opacus.optimizers import DPOptimizer
    add_noise = DPOptimizer.add_noise

    def keep(self: Any) -> None:
        kept.append(torch.cat([one.summed_grad.flatten() for one in self.params]).clone())
        add_noise(self)

    patch.setattr(DPOptimizer, "add_noise", keep)


def test_a_step_takes_users_by_chance_and_adds_noise_though_it_takes_none() -> None:
    values = np.ones((200, 3), np.float32)
    users = np.arange(200)
    plans = {"some": Plan(0.25, 40, CLIP, 0.0), "none": Plan(1e-9, 3, CLIP, 0.1)}
    spending = Spending(PrivacyOptions(1.0, 1e-6), plans)
    sizes: list[int] = []
    loss = of_values(values)

    def counted(model: nn.Module, examples: Any, filled: Any) -> Tensor:
        sizes.append(len(examples))
        return loss(model, examples, filled)  # type: ignore[no-any-return]

    fit_privately(Line(), Groups(users, 1), counted, spending, "some")
    assert 45 < np.mean(sizes) < 55
    assert len(set(sizes)) > 5
    net = Line()
    fit_privately(net, Groups(users, 1), loss, spending, "none")
    assert float(net.linear.weight.detach().abs().max()) > 0.01


def test_noise_does_not_come_from_a_seed() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        net = Line()
        plan = {"line": Plan(0.5, 4, CLIP, 0.1)}
        values = np.ones((20, 3), np.float32)
        spending = Spending(PrivacyOptions(1.0, 1e-6), plan)
        fit_privately(net, Groups(np.arange(20), 1), of_values(values), spending, "line")
        found.append(net.linear.weight.detach().clone())
    assert not torch.equal(*found)


def test_a_user_has_a_few_examples_drawn_anew_and_no_other_user_s() -> None:
    users = np.array([7, 3, 7, 7, 7, 3, 8])
    groups = Groups(users, 2)
    assert len(groups) == 3
    seen: set[int] = set()
    for seed in range(20):
        examples, filled = groups.draw(np.array([0, 1, 2]), np.random.default_rng(seed))
        assert filled.tolist() == [[True, True], [True, True], [True, False]]
        assert sorted(examples[0].tolist()) == [1, 5]
        assert set(examples[1].tolist()) < {0, 2, 3, 4}
        assert examples[2, 0] == 6
        seen |= set(examples[1].tolist())
    assert seen == {0, 2, 3, 4}


def test_with_a_huge_budget_a_private_ranker_comes_near_to_an_ordinary_one() -> None:
    examples = examples_of("content_60", "trend_1", 1200)
    users = np.arange(len(examples)) % 300
    fitted, fit = fit_ranker_privately(examples, users, QUICK, Spending(NO_NOISE, PLANS))
    ordinary = best_epoch(examples, QUICK)
    assert fitted.curve[0].validation_ndcg_at_10 > ordinary.validation_ndcg_at_10 - 0.05
    assert (fit.users, fit.steps, fit.clip) == (300, PLANS[RANKER].steps, PLANS[RANKER].clip)
    drowned, _ = fit_ranker_privately(
        examples, users, QUICK, Spending(PrivacyOptions(0.02, 1e-6), PLANS)
    )
    # Noise comes from the system: by chance a drowned ranker may rank all of these as well.
    assert drowned.curve[0].validation_loss > 10.0 * fitted.curve[0].validation_loss


def test_a_private_ranker_begins_as_the_fixed_blend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.train.private_fits.fit_privately", lambda *given: None)
    examples = examples_of("content_60", "negative")
    fitted, _ = fit_ranker_privately(examples, examples.events, QUICK, Spending(NO_NOISE, PLANS))
    features = examples.features[:50].astype(np.float32)
    rows = np.full(50, features.shape[1])
    np.testing.assert_allclose(
        fitted.network.score(features, rows), Blend(BLEND).score(features[:, :, : 34], rows),
        atol=1e-4,
    )  # fmt: skip


def test_with_a_huge_budget_a_private_head_learns_and_is_calibrated() -> None:
    random = np.random.default_rng(3)
    count = 4000
    evidence = np.zeros((count, len(EVIDENCE)), np.float32)
    taste = random.normal(size=count).astype(np.float32)
    evidence[:, EVIDENCE.index("item_mean")] = taste
    positive = random.random(count) < 1.0 / (1.0 + np.exp(-2.0 * taste - 0.5))
    users = np.arange(count) % 400
    examples = LabelledExamples(evidence, positive, users)
    head, fit = fit_head_privately(
        examples, LabelRule(), PRIORS, 0.7, 0.25, Spending(NO_NOISE, PLANS)
    )
    best = auc(positive[-1000:], taste[-1000:].astype(np.float64))
    measured = head.info.validation
    assert measured["auc"] is not None
    assert measured["auc"] > best - 0.01
    assert measured["ece"] is not None
    assert measured["ece"] < 0.1
    assert (fit.users, fit.steps) == (400, PLANS[PREDICTION].steps)
    assert head.info.examples == 3000


def test_scales_are_constants_for_all_columns() -> None:
    for names in (COLUMNS, EVIDENCE):
        scales = scales_of(names)
        assert set(scales.tolist()) <= {np.float32(0.3).item(), 1.0, 4.0}
    assert scales_of(("content_60", "trend_short", "item_mean")).tolist() == pytest.approx(
        [0.3, 4.0, 1.0]
    )
