"""OtherScores against what autograd makes of the same formula."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from indexer.encoder.learner import OtherScores

TARGETS, ITEMS, DIM = 7, 11, 4


def plain(
    queries: Tensor, vectors: Tensor, biases: Tensor, trend: Tensor | None, weights: Tensor,
    correction: Tensor | None, left_out: Tensor,
) -> Tensor:  # fmt: skip
    scores = queries @ vectors.T + biases
    if trend is not None:
        scores = scores + torch.tensordot(weights, trend, dims=1)
    if correction is not None:
        scores = scores + correction
    return torch.logsumexp(scores.masked_fill(left_out, -torch.inf), dim=1)


def draw(seed: int, **without: bool) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    given: dict[str, Any] = {
        "queries": some(TARGETS, DIM), "vectors": some(ITEMS, DIM), "biases": some(ITEMS),
        "trend": some(3, TARGETS, ITEMS), "weights": some(3), "correction": some(ITEMS),
        "left_out": some(TARGETS, ITEMS) > 0.5,
    }  # fmt: skip
    return given | {name: None for name, left_out in without.items() if left_out}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "without",
    [{}, {"trend": True}, {"correction": True}],
    ids=["all", "no trend", "no correction"],
)
def test_sums_and_gradients_are_those_of_autograd(seed: int, without: dict[str, bool]) -> None:
    found: list[tuple[np.ndarray, list[np.ndarray]]] = []
    for function in (plain, OtherScores.apply):
        given = draw(seed, **without)
        learned = [given[name].requires_grad_() for name in ("queries", "vectors", "biases")]
        if given["trend"] is not None:
            learned.append(given["weights"].requires_grad_())
        sums = function(*given.values())
        (sums * torch.arange(1.0, TARGETS + 1)).sum().backward()
        found.append((sums.detach().numpy(), [value.grad.numpy() for value in learned]))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    for expected, got in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_target_without_other_items_costs_and_teaches_nothing() -> None:
    given = draw(1)
    given["left_out"] = torch.full((TARGETS, ITEMS), True)
    queries = given["queries"].requires_grad_()
    sums = OtherScores.apply(*given.values())
    assert (sums == -torch.inf).all()
    loss = torch.nn.functional.softplus(sums - 1.0)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert loss.tolist() == [0.0] * TARGETS
    assert not queries.grad.any()
