"""Which width, dropout and learning rate an encoder is trained with: several are, one is kept."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_TRIES, USUAL_TRIES = 6, 3
"""Settings there are, and how many are tried at most where nobody says how many."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class Setting(msgspec.Struct, frozen=True):
    """What an encoder is fitted with, of what depends on the data."""

    dim: int
    dropout: float
    learning_rate: float

    @property
    def name(self) -> str:
        """Return what a file or a curve of it is called."""
        return f"dim-{self.dim}-dropout-{self.dropout:g}-rate-{self.learning_rate:g}"


class Tried(msgspec.Struct, frozen=True):
    """What came of a setting: validation NDCG@10 of its best epoch, and how it compares.

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
    microseconds, the quota `max` where there is none.
    """
    can = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(can, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or `max`
        return can


def settings_to_try(base: Setting, tries: int, keep_dim: bool) -> list[Setting]:
    """Return so many settings, the base first, then those that differ from it in one thing.

    Less dropout costs nothing more and comes first, then twice the width, and then what gained
    least on the data at hand: more dropout, a lower rate, half the width.

    Args:
        base: where nothing speaks against it.
        tries: how many, 1 to MAX_TRIES.
        keep_dim: the width was given, and is not to be chosen.
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
    """Return which setting is kept, and what came of each.

    The first of those that are within one standard error of the best: what looks better by chance
    does not make an encoder wider.
    Source: the one-standard-error rule of Breiman, Friedman, Olshen, Stone, "Classification and
    Regression Trees", 1984, section 3.4.3.

    Args:
        settings: in the order in which they are preferred.
        gains: (S, Q) the NDCG@10 of each target by each setting.
    """
    means = gains.mean(axis=1)
    apart = gains[int(np.argmax(means))] - gains  # (S, Q)
    behind = apart.mean(axis=1)
    errors = apart.std(axis=1) / np.sqrt(max(gains.shape[1], 1))
    kept = int(np.flatnonzero(behind <= errors)[0])
    return kept, [
        Tried(
            setting.dim, setting.dropout, setting.learning_rate, float(means[place]),
            float(behind[place]), float(errors[place]), place == kept,
        )
        for place, setting in enumerate(settings)
    ]  # fmt: skip
