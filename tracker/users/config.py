"""The decay mathematics: forward-decayed sums, as kernels over plain arrays.

Source: Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay", ICDE 2009. A sum keeps the time it is
valid for (`ref_time`, the latest event's); a late event adds what decay leaves of it, so that any
order of arrival gives the same sum. Reading never writes.
"""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native

Array = NDArray[Any]

_LN2 = math.log(2.0)

_GONE = 66.0
"""Half-lives after which nothing is left: 2^-66 = 1.4e-20, far below float32's rounding of a sum
that has anything in it, and far above the denormal numbers that make processors slow."""


class InterestConfig(msgspec.Struct, frozen=True):
    """What shapes a state: chosen at `indexer build` or `train`, kept in the manifest.

    `dim` is the width of the sums; `half_lives_seconds` has one entry a sum; `slots` interests are
    told apart by `slot_threshold` (cosine); `ring` recent events are kept, of which the oldest
    `ring_evict` move to the seen set when it is full; the seen set has two generations of
    `seen_bits` bits, each for `seen_capacity` ids; `pending` retractions wait for their events;
    ratings lie in `rating_min`..`rating_max`.

    Raises:
        ValueError: a value with which no state can be laid out; found and expected are named.
    """

    dim: int = 64
    half_lives_seconds: tuple[float, ...] = (1800.0, 86400.0, 604800.0, 5184000.0)
    negative_half_life_seconds: float = 5184000.0
    slots: int = 8
    slot_half_life_seconds: float = 1209600.0
    slot_threshold: float = 0.5
    ring: int = 28
    ring_evict: int = 4
    seen_bits: int = 16384
    seen_capacity: int = 1500
    rating_min: float = 1.0
    rating_max: float = 5.0
    pending: int = 4

    def __post_init__(self) -> None:
        """Check every value."""
        bounds = {
            "dim": (self.dim, 1, 4096),
            "half_lives_seconds (how many)": (len(self.half_lives_seconds), 1, 16),
            "slots": (self.slots, 1, 64),
            "ring": (self.ring, 2, 200),
            "ring_evict": (self.ring_evict, 1, self.ring - 1),
            "seen_bits": (self.seen_bits, 64, 65536),
            "seen_capacity": (self.seen_capacity, 1, self.seen_bits),
            "pending": (self.pending, 1, 64),
        }
        for name, (found, least, most) in bounds.items():
            if not least <= found <= most:
                raise ValueError(f"{name} is {found}; {least} to {most} is expected")
        for name, seconds in [
            *(("half_lives_seconds", seconds) for seconds in self.half_lives_seconds),
            ("negative_half_life_seconds", self.negative_half_life_seconds),
            ("slot_half_life_seconds", self.slot_half_life_seconds),
        ]:
            if not (math.isfinite(seconds) and seconds > 0):
                raise ValueError(f"{name} has {seconds}; positive, finite seconds are expected")
        if not 0 < self.slot_threshold < 1:
            raise ValueError(f"slot_threshold is {self.slot_threshold}; between 0 and 1 expected")
        if self.seen_bits % 64:
            raise ValueError(f"seen_bits is {self.seen_bits}; a multiple of 64 is expected")
        if not self.rating_min < self.rating_max:
            raise ValueError(
                f"rating_min {self.rating_min} is not below rating_max {self.rating_max}"
            )


@native
def whole(value: Any) -> int:
    """Return a small unsigned number as int64; numba makes floats of uint64 mixed with int64."""
    return np.int64(value)  # type: ignore[return-value]


@native
def decay(age_seconds: float, half_life_seconds: float) -> float:
    """Return 2^(-age / half-life): 1 for no age or less, exactly 0 after 66 half-lives."""
    halvings = age_seconds / half_life_seconds
    if halvings <= 0.0:
        return 1.0
    if halvings >= _GONE:
        return 0.0
    return math.exp(-_LN2 * halvings)


@native
def forward_decay_add(
    total: Array,
    mass: float,
    ref_time: float,
    time: float,
    weight: float,
    vector: Array,
    half_life_seconds: float,
) -> tuple[float, float]:
    """Add one event to a decayed sum, in place; the reference for the stored float32 sums.

    A negative weight takes the same event out again.

    Args:
        total: (D,) the sum, valid for `ref_time`; of any float width.
        mass: the sum of the decayed weights.
        ref_time: seconds; any number while nothing has been added.
        time: seconds, of the event.
        weight: what the vector is multiplied with.
        vector: (D,)
        half_life_seconds: of this sum.

    Returns:
        The new mass and ref_time, which is the later of `ref_time` and `time`.
    """
    if time >= ref_time:
        left = decay(time - ref_time, half_life_seconds)
        added = weight
        ref_time = time
    else:
        left = 1.0
        added = weight * decay(ref_time - time, half_life_seconds)
    for d in range(total.shape[0]):
        total[d] = total[d] * left + added * vector[d]
    return mass * left + added, ref_time


@native
def forward_decay_merge(
    total: Array,
    mass: float,
    ref_time: float,
    other_total: Array,
    other_mass: float,
    other_ref_time: float,
    half_life_seconds: float,
) -> tuple[float, float]:
    """Add another sum to `total` in place, both brought to the later time; mass and time."""
    latest = max(ref_time, other_ref_time)
    left = decay(latest - ref_time, half_life_seconds)
    other_left = decay(latest - other_ref_time, half_life_seconds)
    for d in range(total.shape[0]):
        total[d] = total[d] * left + other_total[d] * other_left
    return mass * left + other_mass * other_left, latest


def confidence(mass: Array, half_mass: float) -> Array:
    """Return M / (M + m0): how much a sum of this mass is worth; 0 for none, 1/2 at m0.

    >>> confidence(np.array([0.0, 2.0, 6.0]), 2.0).tolist()
    [0.0, 0.5, 0.75]
    """
    return mass / (mass + half_mass)


def drift(short: Array, long: Array) -> Array:
    """Return 1 - cosine of the short and the long interest (B, D); 0 where one of them is null.

    >>> drift(np.eye(2), np.ones((2, 2))).round(3).tolist()
    [0.293, 0.293]
    """
    lengths = np.linalg.norm(short, axis=-1) * np.linalg.norm(long, axis=-1)
    products = (short * long).sum(axis=-1)
    return np.where(lengths > 0, 1.0 - products / np.where(lengths > 0, lengths, 1.0), 0.0)
