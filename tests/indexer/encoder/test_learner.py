"""TargetLoss against what autograd makes of the same formula."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from indexer.encoder.learner import TargetLoss

TARGETS, ITEMS, DIM = 7, 11, 4


def plain(
    queries: Tensor, vectors: Tensor, biases: Tensor, own: Tensor, trend: Tensor | None,
    weights: Tensor, correction: Tensor | None, born: Tensor | None, moments: Tensor | None,
) -> Tensor:  # fmt: skip
    scores = queries @ vectors.T + biases
    if trend is not None:
        scores = scores + torch.tensordot(weights, trend, dims=1)
    positive = scores.gather(1, own.unsqueeze(1))
    if correction is not None:
        scores = scores + correction
    if born is not None and moments is not None:
        scores = scores.masked_fill(born > moments.unsqueeze(1), -torch.inf)
    return functional.cross_entropy(scores.scatter(1, own.unsqueeze(1), positive), own)


def draw(seed: int, **without: bool) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    given: dict[str, Any] = {
        "queries": some(TARGETS, DIM), "vectors": some(ITEMS, DIM), "biases": some(ITEMS),
        "own": torch.randint(0, ITEMS, (TARGETS,), generator=random),
        "trend": some(3, TARGETS, ITEMS), "weights": some(3), "correction": some(ITEMS),
        "born": some(ITEMS), "moments": some(TARGETS),
    }  # fmt: skip
    return given | {name: None for name, left_out in without.items() if left_out}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "without",
    [{}, {"trend": True}, {"correction": True}, {"born": True, "moments": True}],
    ids=["all", "no trend", "no correction", "no births"],
)
def test_loss_and_gradients_are_those_of_autograd(seed: int, without: dict[str, bool]) -> None:
    found: list[tuple[float, list[np.ndarray]]] = []
    for function in (plain, TargetLoss.apply):
        given = draw(seed, **without)
        learned = [given[name].requires_grad_() for name in ("queries", "vectors", "biases")]
        if given["trend"] is not None:
            learned.append(given["weights"].requires_grad_())
        loss = 2.0 * function(*given.values())
        loss.backward()
        found.append((loss.item(), [value.grad.numpy() for value in learned]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for expected, got in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_target_counts_though_it_was_born_later_and_is_not_corrected() -> None:
    given = draw(1)
    given["born"] = torch.full((ITEMS,), 9.0)
    assert float(TargetLoss.apply(*given.values())) == pytest.approx(0.0, abs=1e-6)
