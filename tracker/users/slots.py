"""Interest slots: the several interests of a user, told apart by the vectors of their items."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import decay, dot, square
from tracker.kernels.native import native, reordered

Array = NDArray[Any]

DAY_SECONDS = 86400.0

FIXED_ONE = 32767.0
"""What stands for 1.0 in a slot's int16 mean vector."""

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


@reordered
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


@reordered
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


@reordered
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
    closest = threshold
    first = -1
    second = -1
    # Slots of one event each have not moved since the later one was found to be new: only pairs
    # with a slot that took in more can have come close.
    moved = False
    for s in range(n):
        moved |= slots[s]["events"] > 1
    if moved:
        for s in range(n):
            unit_mean(means[s], scratch[s])
    for i in range(n):
        for j in range(i + 1, n):
            if slots[i]["events"] + slots[j]["events"] == 2:
                continue
            cosine = dot(scratch[i], scratch[j])
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
