"""Choice of an encoder's width, dropout and learning rate: several are fitted, one is kept."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_TRIES, USUAL_TRIES = 6, 3
"""Number of settings there are, and of those that are tried by default."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Setting(msgspec.Struct, frozen=True):
    """The hyperparameters of an encoder that depend on the data."""

    dim: int
    dropout: float
    learning_rate: float

    @property
    def name(self) -> str:
        """The name of its files and of its curve."""
        return f"dim-{self.dim}-dropout-{self.dropout:g}-rate-{self.learning_rate:g}"


class Tried(msgspec.Struct, frozen=True):
    """The result of a setting: validation NDCG@10 of its best epoch, and the comparison.

    `behind` is the difference to the best setting's NDCG@10, `error` the standard error of that
    difference, target by target; both are 0 for the best.
    """

    dim: int
    dropout: float
    learning_rate: float
    ndcg_at_10: float
    behind: float
    error: float
    chosen: bool


def cores() -> int:
    """Return how many cores this process may use, at least 1: a container's quota counts too.

    Source: the interface file cpu.max of Linux's control groups, version 2: quota and period in
    microseconds, the quota `max` if there is none.
    """
    can = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(can, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or `max`
        return can


def settings_to_try(base: Setting, tries: int, keep_dim: bool) -> list[Setting]:
    """Return up to `tries` settings, the base first, then those that differ from it in one thing.

    Less dropout costs nothing and comes first, then twice the width, then the settings that gained
    least on the data at hand: more dropout, a lower rate, half the width.

    Args:
        base: the usual setting.
        tries: number of settings, 1 to MAX_TRIES.
        keep_dim: keep the width of the base.
    """
    others = [
        msgspec.structs.replace(base, dropout=base.dropout / 2.0),
        msgspec.structs.replace(base, dim=base.dim * 2),
        msgspec.structs.replace(base, dropout=min(base.dropout + 0.15, 0.9)),
        msgspec.structs.replace(base, learning_rate=base.learning_rate / 2.0),
        msgspec.structs.replace(base, dim=max(base.dim // 2, 4)),
    ]
    some = [other for other in others if other.dim == base.dim or not keep_dim]
    return [base, *some][:tries]


def choose(settings: Sequence[Setting], gains: Array) -> tuple[int, list[Tried]]:
    """Return the place of the setting that is kept, and the result of each.

    Kept is the first setting within one standard error of the best, so that chance does not make an
    encoder wider.
    Source: the one-standard-error rule of Breiman, Friedman, Olshen, Stone, "Classification and
    Regression Trees", 1984, section 3.4.3.

    Args:
        settings: in order of preference.
        gains: (S, Q) the NDCG@10 of each target by each setting.
    """
    means = gains.mean(axis=1)
    apart = gains[int(np.argmax(means))] - gains  # (S, Q)
    behind = apart.mean(axis=1)
    errors = apart.std(axis=1) / np.sqrt(max(gains.shape[1], 1))
    best = int(np.flatnonzero(behind <= errors)[0])
    return best, [
        Tried(
            setting.dim, setting.dropout, setting.learning_rate, float(means[place]),
            float(behind[place]), float(errors[place]), place == best,
        )
        for place, setting in enumerate(settings)
    ]  # fmt: skip
