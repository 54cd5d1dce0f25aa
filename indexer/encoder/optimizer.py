"""AdamW by torch's fused kernel, without the optimisers of torch."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

_BETAS, _EPSILON = (0.9, 0.999), 1e-8

STATE = ("step", "exp_avg", "exp_avg_sq")
"""Names of what is kept of each parameter: the number of steps, and two moving means."""


class AdamW:
    """AdamW over some parameters, one learning rate for all of them.

    The classes of `torch.optim` import the machinery of `torch.compile`, which costs 4 s of
    processor time in each process that trains, and is not used here.
    Source: Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization"; the constants are
    torch's.

    Args:
        parameters: what is fitted.
        learning_rate: may be changed between steps.
        weight_decay: share of a weight, times the rate, that a step takes off.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0
    ) -> None:
        self.learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._parameters = list(parameters)
        self._state = [
            (torch.zeros((), device=one.device), torch.zeros_like(one), torch.zeros_like(one))
            for one in self._parameters
        ]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change each parameter that has a gradient."""
        some = [
            (parameter, parameter.grad, *state)
            for parameter, state in zip(self._parameters, self._state, strict=True)
            if parameter.grad is not None
        ]
        if not some:
            return
        parameters, gradients, steps, means, squares = (
            list(column) for column in zip(*some, strict=True)
        )
        adamw(
            parameters, gradients, means, squares, [], steps,
            fused=True, amsgrad=False, beta1=_BETAS[0], beta2=_BETAS[1], lr=self.learning_rate,
            weight_decay=self._weight_decay, eps=_EPSILON, maximize=False,
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """Return what `load` takes: tensors by number of the parameter and name of STATE."""
        return {
            f"{number}.{name}": tensor
            for number, state in enumerate(self._state)
            for name, tensor in zip(STATE, state, strict=True)
        }

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the state of another optimizer of the same parameters."""
        for name, tensor in self.state().items():
            if name in state:
                tensor.copy_(state[name])
