"""The decay mathematics: forward-decayed sums and interest slots, as kernels over plain arrays.

Source: Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay", ICDE 2009. A sum keeps the time it is
valid for (`ref_time`, the latest event's); a late event adds what decay leaves of it, so that any
order of arrival gives the same sum. Reading never writes.
"""

import math
from typing import Any

import msgspec
import numba
import numpy as np
from numpy.typing import NDArray

from tracker.native import native

Array = NDArray[Any]

DAY_SECONDS = 86400.0

FIXED_ONE = 32767.0
"""What stands for 1.0 in a slot's int16 mean vector."""

_LN2 = math.log(2.0)

_GONE = 66.0
"""Half-lives after which nothing is left: 2^-66 = 1.4e-20, far below float32's rounding of a sum
that has anything in it, and far above the denormal numbers that make processors slow."""

SLOT = np.dtype(
    [
        ("ref_time", "<f8"),  # seconds: the latest event of the slot; `mass` is valid for it
        ("born", "<f8"),  # seconds: the earliest event of the slot
        ("medoid", "<u8"),  # hash of the item nearest to the mean, as far as known
        ("mass", "<f4"),  # sum of the decayed weights
        ("medoid_score", "<f4"),  # cosine of the medoid to the mean, as far as known
        ("events", "<u4"),  # events that went into it
        ("strength_before", "<f4"),  # the mass as it was when the UTC day of ref_time began
    ]
)
"""One interest slot, beside its mean vector (D) int16 in units of 1/FIXED_ONE."""

# Sums over a vector may be reordered, so that they run in the machine's wide registers. The order
# is fixed at compilation: the same numbers give the same sum, alone or in a batch.
_reordered = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})


class InterestConfig(msgspec.Struct, frozen=True):
    """What shapes a state: chosen at `indexer build`, kept in the manifest.

    `dim` is the width of the sums; `half_lives_seconds` has one entry a sum; `slots` interests are
    told apart by `slot_threshold` (cosine); `ring` recent events are kept, of which the oldest
    `ring_evict` move to the seen set when it is full; `hidden` is the width of an encoder's vector
    (float16); the seen set has two generations of `seen_bits` bits, each for `seen_capacity` ids;
    `pending` retractions wait for their events; ratings lie in `rating_min`..`rating_max`.

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
    hidden: int = 0
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
            "hidden": (self.hidden, 0, 4096),
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


@_reordered
def add_scaled(total: Array, vector: Array, scale: float) -> None:
    """Add scale * vector to a float32 vector, in place."""
    factor = np.float32(scale)
    for d in range(total.shape[0]):
        total[d] += factor * vector[d]


@_reordered
def scale_in_place(total: Array, left: float) -> None:
    """Multiply a float32 vector, in place."""
    keep = np.float32(left)
    for d in range(total.shape[0]):
        total[d] *= keep


@_reordered
def square(vector: Array) -> float:
    """Return the squared length of a float32 vector; NaN where it has one."""
    total = np.float32(0.0)
    for d in range(vector.shape[0]):
        total += vector[d] * vector[d]
    return total  # type: ignore[return-value]


@_reordered
def _mean_against(mean: Array, vector: Array) -> tuple[float, float]:
    """Return the inner product of a fixed-point mean with a vector, and the mean's square."""
    product = np.float32(0.0)
    length = np.float32(0.0)
    for d in range(mean.shape[0]):
        component = np.float32(mean[d])
        product += component * vector[d]
        length += component * component
    one = np.float32(FIXED_ONE)
    return product / one, length / (one * one)  # type: ignore[return-value]


@_reordered
def _dot(a: Array, b: Array) -> float:
    total = np.float32(0.0)
    for d in range(a.shape[0]):
        total += a[d] * b[d]
    return total  # type: ignore[return-value]


@_reordered
def unit_mean(mean: Array, out: Array) -> None:
    """Write a fixed-point mean (D,) as a float32 unit vector; zeros where it is null."""
    length = np.float32(0.0)
    for d in range(mean.shape[0]):
        component = np.float32(mean[d])
        length += component * component
    scale = np.float32(0.0)
    if length > np.float32(0.0):
        scale = np.float32(1.0) / np.sqrt(length)
    for d in range(mean.shape[0]):
        out[d] = np.float32(mean[d]) * scale


@_reordered
def _blend(mean: Array, keep: float, vector: Array, add: float) -> None:
    """Do mean = keep * mean + add * vector in fixed point, rounded and kept within bounds."""
    first = np.float32(keep)
    second = np.float32(add)
    one = np.float32(FIXED_ONE)
    for d in range(mean.shape[0]):
        component = first * np.float32(mean[d]) + second * vector[d]
        mean[d] = np.int16(np.rint(min(max(component, -one), one)))


@native
def day_start(time: float) -> float:
    """Return the beginning of the UTC day, in seconds."""
    return math.floor(time / DAY_SECONDS) * DAY_SECONDS


@native
def _before_at(slot: Any, time: float, half_life_seconds: float) -> float:
    """Return the slot's mass when the UTC day of `time` began; time is not before ref_time."""
    morning = day_start(time)
    if morning > slot["ref_time"]:
        return float(slot["mass"]) * decay(morning - slot["ref_time"], half_life_seconds)
    return float(slot["strength_before"])


@native
def _open_slot(
    slot: Any, mean: Array, item: np.uint64, time: float, weight: float, vector: Array, scale: float
) -> None:
    slot["ref_time"] = time
    slot["born"] = time
    slot["medoid"] = item
    slot["mass"] = weight
    slot["medoid_score"] = 1.0
    slot["events"] = 1
    slot["strength_before"] = 0.0
    mean[:] = 0
    _blend(mean, 0.0, vector, FIXED_ONE * scale)


@native
def _join_slot(
    slot: Any,
    mean: Array,
    item: np.uint64,
    time: float,
    weight: float,
    vector: Array,
    scale: float,
    product: float,
    length: float,
    half_life_seconds: float,
) -> None:
    """Add an event to a slot; product is mean . unit vector, length the mean's square."""
    mass = float(slot["mass"])
    if time >= slot["ref_time"]:
        slot["strength_before"] = _before_at(slot, time, half_life_seconds)
        mass *= decay(time - slot["ref_time"], half_life_seconds)
        slot["ref_time"] = time
    else:
        morning = day_start(slot["ref_time"])
        if time < morning:
            slot["strength_before"] += weight * decay(morning - time, half_life_seconds)
        weight *= decay(slot["ref_time"] - time, half_life_seconds)
    slot["born"] = min(slot["born"], time)
    slot["events"] += 1
    total = mass + weight
    if total <= 0.0:
        return
    keep = mass / total
    add = weight / total
    _blend(mean, keep, vector, add * FIXED_ONE * scale)
    slot["mass"] = total
    # The medoid's vector is not at hand: its cosine is carried along by how far the mean turned.
    new_length = math.sqrt(
        max(keep * keep * length + 2.0 * keep * add * product + add * add, 1e-12)
    )
    turned = (keep * length + add * product) / (math.sqrt(max(length, 1e-12)) * new_length)
    known = float(slot["medoid_score"]) * turned
    mine = (keep * product + add) / new_length
    if mine >= known:
        slot["medoid"] = item
        known = mine
    slot["medoid_score"] = min(known, 1.0)


@native
def _merge_slots(
    slots: Array,
    means: Array,
    into: int,
    gone: int,
    cosine: float,
    length: float,
    other_length: float,
    half_life_seconds: float,
) -> None:
    """Merge slot `gone` into `into`; lengths are those of the two means, cosine theirs."""
    slot = slots[into]
    other = slots[gone]
    latest = max(slot["ref_time"], other["ref_time"])
    before = _before_at(slot, latest, half_life_seconds) + _before_at(
        other, latest, half_life_seconds
    )
    mass = float(slot["mass"]) * decay(latest - slot["ref_time"], half_life_seconds)
    other_mass = float(other["mass"]) * decay(latest - other["ref_time"], half_life_seconds)
    total = mass + other_mass
    keep = 0.5
    add = 0.5
    if total > 0.0:
        keep = mass / total
        add = other_mass / total
    for d in range(means.shape[1]):
        means[into, d] = np.int16(
            np.rint(np.float64(means[into, d]) * keep + np.float64(means[gone, d]) * add)
        )
    a = keep * length
    b = add * other_length
    merged = math.sqrt(max(a * a + b * b + 2.0 * a * b * cosine, 1e-12))
    known = float(slot["medoid_score"]) * (a + b * cosine) / merged
    other_known = float(other["medoid_score"]) * (b + a * cosine) / merged
    if other_known > known:
        slot["medoid"] = other["medoid"]
        known = other_known
    slot["medoid_score"] = min(max(known, -1.0), 1.0)
    slot["ref_time"] = latest
    slot["born"] = min(slot["born"], other["born"])
    slot["events"] += other["events"]
    slot["mass"] = total
    slot["strength_before"] = before


@native
def _free_slot(
    slots: Array, means: Array, scratch: Array, half_life_seconds: float, threshold: float
) -> int:
    """Free one of the full slots: the two closest become one, or else the weakest goes."""
    n = slots.shape[0]
    for s in range(n):
        unit_mean(means[s], scratch[s])
    closest = threshold
    first = -1
    second = -1
    for i in range(n):
        for j in range(i + 1, n):
            cosine = _dot(scratch[i], scratch[j])
            if cosine > closest:
                closest = cosine
                first = i
                second = j
    if first >= 0:
        _, square_a = _mean_against(means[first], scratch[first])
        _, square_b = _mean_against(means[second], scratch[second])
        _merge_slots(
            slots,
            means,
            first,
            second,
            closest,
            math.sqrt(square_a),
            math.sqrt(square_b),
            half_life_seconds,
        )
        return second
    # One half-life for all: which is weakest does not depend on the time they are compared at.
    latest = slots[0]["ref_time"]
    for s in range(1, n):
        latest = max(latest, slots[s]["ref_time"])
    weakest = 0
    least = math.inf
    for s in range(n):
        # As a logarithm, so that slots too old to have a number left still have an order.
        strength = math.log2(max(float(slots[s]["mass"]), 1e-30)) - (
            (latest - slots[s]["ref_time"]) / half_life_seconds
        )
        if strength < least:
            least = strength
            weakest = s
    return weakest


@native
def add_to_slots(
    slots: Array,
    means: Array,
    n_slots: int,
    item: np.uint64,
    time: float,
    weight: float,
    vector: Array,
    scratch: Array,
    half_life_seconds: float,
    threshold: float,
) -> int:
    """Put one positive event into the interest slots of a user, in place.

    1. The slot whose mean is nearest by cosine takes it, if that exceeds the threshold;
    2. else an empty slot;
    3. else the two slots closest to each other are merged, if they exceed the threshold, and the
       place that is freed takes it;
    4. else the place of the weakest slot, by decayed mass.

    It depends on order, so it is done event by event, in the order of arrival.

    Args:
        slots: (S,) SLOT, the first `n_slots` in use.
        means: (S, D) int16, mean vectors in units of 1/FIXED_ONE.
        n_slots: slots in use.
        item: hash of the item.
        time: seconds.
        weight: positive.
        vector: (D,) float32, of unit length; a null vector, or one with NaN, is left out.
        scratch: (S, D) float32, written over.
        half_life_seconds: of the masses.
        threshold: cosine, between 0 and 1.

    Returns:
        The slots in use afterwards.
    """
    length = square(vector)
    if not (1e-6 < length < 1e6):
        return n_slots
    scale = 1.0 / math.sqrt(length)
    best = -1
    best_cosine = threshold
    best_product = 0.0
    best_square = 0.0
    for s in range(n_slots):
        product, mean_square = _mean_against(means[s], vector)
        if mean_square <= 0.0:
            continue
        cosine = product * scale / math.sqrt(mean_square)
        if cosine > best_cosine:
            best = s
            best_cosine = cosine
            best_product = product * scale
            best_square = mean_square
    if best >= 0:
        _join_slot(
            slots[best],
            means[best],
            item,
            time,
            weight,
            vector,
            scale,
            best_product,
            best_square,
            half_life_seconds,
        )
        return n_slots
    place = n_slots
    if n_slots == slots.shape[0]:
        place = _free_slot(slots, means, scratch, half_life_seconds, threshold)
    else:
        n_slots += 1
    _open_slot(slots[place], means[place], item, time, weight, vector, scale)
    return n_slots


@native
def slot_strength(slot: Any, now: float, half_life_seconds: float) -> tuple[float, float]:
    """Return a slot's mass as decayed at `now`, and its change since a day before.

    The day before is `now` - 1 d when the slot had no event since; else the last known state not
    after it, or, when there is none, the beginning of the UTC day of the slot's latest event.
    A `now` before the slot's latest event counts as that event's time.
    """
    now = max(now, slot["ref_time"])
    strength = float(slot["mass"]) * decay(now - slot["ref_time"], half_life_seconds)
    then = now - DAY_SECONDS
    if then >= slot["ref_time"]:
        before = float(slot["mass"]) * decay(then - slot["ref_time"], half_life_seconds)
    else:
        morning = day_start(slot["ref_time"])
        before = float(slot["strength_before"]) * decay(then - morning, half_life_seconds)
    return strength, strength - before


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
