"""Differentially private fits: the unit is a user, whose gradient is cut short and hidden by noise.

The accounting and the optimiser are those of Opacus. Source: Abadi et al. 2016, "Deep Learning with
Differential Privacy"; here all examples of a user are one unit (McMahan et al. 2018, "Learning
Differentially Private Recurrent Language Models").
"""

import logging
import math
import secrets
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tracker.explained import Explained

LEAST_NOISE, MOST_NOISE = 1e-3, 1e4
"""Noise multipliers that are tried."""

ORDERS = [1.0 + step / 4.0 for step in range(1, 40)] + [
    float(order) for order in (*range(11, 64), 64, 80, 96, 128, 192, 256, 384, 512)
]
"""Orders of the Rényi divergence; the bound is the least over all of them."""

AT_ONCE = 256
"""Users whose gradients are in memory together."""

Users = NDArray[np.int64]


class PrivacyError(Explained, ValueError):
    """A privacy budget cannot be kept; the message says why, and what can."""


class PrivacyOptions(msgspec.Struct, frozen=True):
    """The budget of a training: `epsilon` at `delta`, for all of its fits together."""

    epsilon: float
    delta: float


class Plan(NamedTuple):
    """A private fit as it is planned.

    Each of `steps` takes every user with the probability `sample_rate`; `clip` is the largest
    length of a user's gradient, and `learning_rate` falls to nothing along a cosine.
    """

    sample_rate: float
    steps: int
    clip: float
    learning_rate: float


class Groups:
    """The examples of each user, of whom a step takes a few.

    Args:
        users: (Q,) the user of each example, any numbers.
        most: examples of a user that a step uses at most.
    """

    def __init__(self, users: Users, most: int) -> None:
        self._order = np.argsort(users, kind="stable")
        _, starts = np.unique(users[self._order], return_index=True)
        self._starts = np.append(starts, len(users)).astype(np.int64)
        self._most = most

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self._starts) - 1

    def draw(self, units: Users, random: np.random.Generator) -> tuple[Users, NDArray[np.bool_]]:
        """Return examples (U, E) of users (U,), drawn anew for each, and which places are filled.

        A place that is not filled has the number 0.
        """
        sizes = np.diff(self._starts)[units]
        width = int(min(sizes.max(initial=1), self._most))
        examples = np.zeros((len(units), width), np.int64)
        filled = np.arange(width) < np.minimum(sizes, width)[:, None]
        for line, unit in enumerate(units.tolist()):
            own = self._order[self._starts[unit] : self._starts[unit + 1]]
            if len(own) > width:
                own = random.choice(own, width, replace=False)
            examples[line, : len(own)] = own
        return examples, filled


class Spending:
    """Budget of private fits: the noise that keeps them in it, and the part that they have used.

    Args:
        options: the budget.
        plans: the fits, by name; the noise is the least by which all of them stay in the budget.

    Raises:
        PrivacyError: no noise keeps them in it.
    """

    def __init__(self, options: PrivacyOptions, plans: Mapping[str, Plan]) -> None:
        self.options = options
        self.plans = plans
        self.noise = least_noise(options, plans)
        self._steps: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """Count a step of a fit, before its result is used.

        Raises:
            PrivacyError: all of its steps are taken.
        """
        if self._steps[name] >= self.plans[name].steps:
            raise PrivacyError(f"the fit {name!r} has spent its part of the privacy budget")
        self._steps[name] += 1

    def steps(self, name: str) -> int:
        """Return the number of steps that a fit has taken."""
        return self._steps[name]

    @property
    def epsilon(self) -> float:
        """The epsilon that is spent so far."""
        history = [
            (self.noise, self.plans[name].sample_rate, steps) for name, steps in self._steps.items()
        ]
        return spent(history, self.options.delta)


def spent(history: list[tuple[float, float, int]], delta: float) -> float:
    """Return the epsilon of steps, each with a noise multiplier, a sample rate and their number."""
    if not history:
        return 0.0
    with quiet_opacus():
        from opacus.accountants import RDPAccountant

        accountant = RDPAccountant()
        accountant.history = list(history)
        epsilon, _ = accountant.get_privacy_spent(delta=delta, alphas=ORDERS)
    return float(epsilon)


def least_noise(options: PrivacyOptions, plans: Mapping[str, Plan]) -> float:
    """Return the least noise multiplier by which fits stay in a budget, to a thousandth.

    Raises:
        PrivacyError: no noise keeps them in it.
    """

    def needs(noise: float) -> float:
        history = [(noise, plan.sample_rate, plan.steps) for plan in plans.values()]
        return spent(history, options.delta)

    least = needs(MOST_NOISE)
    if least > options.epsilon:
        raise PrivacyError(
            f"epsilon {options.epsilon:g} is too small: with delta {options.delta:g} no less than"
            f" {math.ceil(least * 1e3) / 1e3:g} can be shown"
        )
    low, high = LEAST_NOISE, MOST_NOISE
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        epsilon = needs(middle)
        low, high = (low, middle) if epsilon <= options.epsilon else (middle, high)
    return high


LossOf = Callable[[nn.Module, Users, NDArray[np.bool_]], Tensor]
"""Takes a network and the examples (U, E) of some users, with the places that are filled; returns
the sum over these users of the mean loss of each."""


def fit_privately(
    net: nn.Module, groups: Groups, loss_of: LossOf, spending: Spending, name: str
) -> None:
    """Fit a network so that its weights tell next to nothing of any one user.

    1. Take each user with the probability of the plan (Poisson sampling).
    2. Compute the gradient of each user's mean loss, and cut it to the length `clip`.
    3. Add noise to their sum, and take a step of Adam.
    4. At the end, keep the mean of the weights over the second half of the steps.

    Users and noise are drawn from the system's randomness, never from the seed of a training: who
    knows a seed could take the noise away again. So two fits are never equal.

    Args:
        net: changed in place; its layers take inputs (U, ..., P) of users first.
        groups: examples of the users.
        loss_of: the loss.
        spending: counts the steps, and has the plan and the noise.
        name: of the plan.
    """
    plan = spending.plans[name]
    random = np.random.default_rng(secrets.randbits(128))
    noise = torch.Generator().manual_seed(secrets.randbits(63))
    mean: list[Tensor] = []
    parameters = list(net.parameters())
    with quiet_opacus():
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        # Not strict: the buffers of our networks are constants, which no example changes.
        model = GradSampleModule(net, loss_reduction="sum", strict=False)
        adam = torch.optim.Adam(parameters, plan.learning_rate)
        optimizer = DPOptimizer(
            adam, noise_multiplier=spending.noise, max_grad_norm=plan.clip,
            expected_batch_size=max(1, round(plan.sample_rate * len(groups))), generator=noise,
        )  # fmt: skip
        model.train()
        for step in range(plan.steps):
            spending.take(name)
            adam.param_groups[0]["lr"] = plan.learning_rate * (
                (1.0 + math.cos(math.pi * step / plan.steps)) / 2.0
            )
            # 1. Take users.
            units = np.flatnonzero(random.random(len(groups)) < plan.sample_rate)
            # 2. Compute and cut the gradients.
            for start in range(0, max(1, len(units)), AT_ONCE):
                some = units[start : start + AT_ONCE]
                optimizer.zero_grad()
                if len(some):
                    loss_of(model, *groups.draw(some, random)).backward()  # type: ignore[no-untyped-call]
                else:
                    _no_gradients(parameters)
                if start + AT_ONCE < len(units):
                    optimizer.signal_skip_step()
                    optimizer.step()
            optimizer.step()  # 3. Add noise, and take a step.
            optimizer.zero_grad()
            if step >= plan.steps // 2:
                count = step - plan.steps // 2
                now = [parameter.detach().clone() for parameter in parameters]
                before = mean or now
                mean = [
                    (was * count + one) / (count + 1) for was, one in zip(before, now, strict=True)
                ]
        model.remove_hooks()
    with torch.no_grad():  # 4. Keep the mean of the second half.
        for parameter, value in zip(parameters, mean, strict=True):
            parameter.copy_(value)
    net.eval()


def _no_gradients(parameters: list[nn.Parameter]) -> None:
    """Set the gradients of no user: a step without users still adds its noise."""
    for parameter in parameters:
        empty: Any = torch.zeros((0, *parameter.shape))
        parameter.grad_sample = empty  # type: ignore[attr-defined]


@contextmanager
def quiet_opacus() -> Iterator[None]:
    """Leave out what Opacus warns of while it is imported and used: orders, hooks, its randomness.

    Its generator is seeded by the system (see `fit_privately`), and ORDERS are wide enough.
    """
    logger = logging.getLogger("opacus")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
