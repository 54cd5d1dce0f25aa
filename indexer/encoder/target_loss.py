"""The softmax cross-entropy of targets over items, with few passes over the table of scores."""

from typing import Any

import torch
from torch import Tensor


class TargetLoss(torch.autograd.Function):
    """Mean cross-entropy of targets whose items' scores are `queries @ vectors.T + biases + trend`.

    The gradient with respect to the scores is the chances less one at the target (the derivative
    of a softmax's cross-entropy), so the one table (P, C) that is kept is that: scores become
    chances, and those the gradient, in place. Autograd would keep and copy the table at every
    step. `TargetLoss.apply` takes:

    - `queries` (P, D), `vectors` (C, D), `biases` (C,), and `own` (P,) int64, the column of each
      target;
    - `trend` (H, P, C) and its `weights` (H,), or None and anything: no gradient goes to `trend`;
    - `correction` (C,), added to the scores of all but the target, or None;
    - `born` (C,) and `moments` (P,): columns born after a moment, other than the target, are left
      out; or None twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        vectors: Tensor,
        biases: Tensor,
        own: Tensor,
        trend: Tensor | None,
        weights: Tensor,
        correction: Tensor | None,
        born: Tensor | None,
        moments: Tensor | None,
    ) -> Tensor:
        """Return the loss, in nats."""
        table = torch.addmm(biases, queries, vectors.T)
        if trend is not None:
            table.view(-1).addmv_(trend.view(len(weights), -1).T, weights)
        targets = own.unsqueeze(1)
        positive = table.gather(1, targets)
        if correction is not None:
            table += correction
        if born is not None and moments is not None:
            table.masked_fill_(born > moments.unsqueeze(1), -torch.inf)
        table.scatter_(1, targets, positive)
        totals = torch.logsumexp(table, dim=1, keepdim=True)
        table.sub_(totals).exp_()
        table.scatter_add_(1, targets, torch.full_like(positive, -1.0))
        ctx.save_for_backward(queries, vectors, table, trend)
        return (totals - positive).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, vectors, biases and the trend's weights."""
        queries, vectors, table, trend = ctx.saved_tensors
        scale = gradients[0] / len(table)
        to_weights = None
        if trend is not None:
            to_weights = scale * torch.mv(trend.view(len(trend), -1), table.view(-1))
        return (
            scale * (table @ vectors), scale * (table.T @ queries), scale * table.sum(dim=0),
            None, None, to_weights, None, None, None,
        )  # fmt: skip
