"""Interests of a user, told apart by the vectors of their items."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import decay, dot, square
from tracker.kernels.native import native, reordered

Array = NDArray[Any]

DAY_SECONDS = 86400.0

FIXED_ONE = 32767.0
"""The int16 number that stands for 1.0 in the mean vector of an interest."""

INTEREST = np.dtype(
    [
        ("ref_time", "<f8"),  # seconds: the latest event of the interest; `mass` is valid for it
        ("born", "<f8"),  # seconds: the earliest event of the interest
        ("medoid", "<u8"),  # hash of the item nearest to the mean, as far as known
        ("mass", "<f4"),  # sum of the decayed weights
        ("medoid_score", "<f4"),  # cosine of the medoid to the mean, as far as known
        ("events", "<u4"),  # events that went into it
        ("strength_before", "<f4"),  # the mass as it was when the UTC day of ref_time began
    ]
)
"""One interest; its mean vector (D,) int16, in units of 1/FIXED_ONE, is kept next to it."""


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
    """Write a fixed-point mean (D,) as a float32 unit vector; zeros if it is null."""
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
def _before_at(interest: Any, time: float, half_life_seconds: float) -> float:
    """Return the interest's mass when the UTC day of `time` began; time is not before ref_time."""
    morning = day_start(time)
    if morning > interest["ref_time"]:
        return float(interest["mass"]) * decay(morning - interest["ref_time"], half_life_seconds)
    return float(interest["strength_before"])


@native
def _open_interest(
    interest: Any,
    mean: Array,
    item: np.uint64,
    time: float,
    weight: float,
    vector: Array,
    scale: float,
) -> None:
    interest["ref_time"] = time
    interest["born"] = time
    interest["medoid"] = item
    interest["mass"] = weight
    interest["medoid_score"] = 1.0
    interest["events"] = 1
    interest["strength_before"] = 0.0
    mean[:] = 0
    _blend(mean, 0.0, vector, FIXED_ONE * scale)


@native
def _join_interest(
    interest: Any,
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
    """Add an event to an interest; product is mean . unit vector, length the mean's square."""
    mass = float(interest["mass"])
    if time >= interest["ref_time"]:
        interest["strength_before"] = _before_at(interest, time, half_life_seconds)
        mass *= decay(time - interest["ref_time"], half_life_seconds)
        interest["ref_time"] = time
    else:
        morning = day_start(interest["ref_time"])
        if time < morning:
            interest["strength_before"] += weight * decay(morning - time, half_life_seconds)
        weight *= decay(interest["ref_time"] - time, half_life_seconds)
    interest["born"] = min(interest["born"], time)
    interest["events"] += 1
    total = mass + weight
    if total <= 0.0:
        return
    keep = mass / total
    add = weight / total
    _blend(mean, keep, vector, add * FIXED_ONE * scale)
    interest["mass"] = total
    # The medoid's vector is not at hand: its cosine is carried along by how far the mean turned.
    new_length = math.sqrt(
        max(keep * keep * length + 2.0 * keep * add * product + add * add, 1e-12)
    )
    turned = (keep * length + add * product) / (math.sqrt(max(length, 1e-12)) * new_length)
    medoid_score = float(interest["medoid_score"]) * turned
    item_score = (keep * product + add) / new_length
    if item_score >= medoid_score:
        interest["medoid"] = item
        medoid_score = item_score
    interest["medoid_score"] = min(medoid_score, 1.0)


@native
def _merge_interests(
    interests: Array,
    means: Array,
    into: int,
    dropped: int,
    cosine: float,
    length: float,
    other_length: float,
    half_life_seconds: float,
) -> None:
    """Merge interest `dropped` into `into`; lengths are those of the two means, cosine theirs."""
    interest = interests[into]
    other = interests[dropped]
    latest = max(interest["ref_time"], other["ref_time"])
    before = _before_at(interest, latest, half_life_seconds) + _before_at(
        other, latest, half_life_seconds
    )
    mass = float(interest["mass"]) * decay(latest - interest["ref_time"], half_life_seconds)
    other_mass = float(other["mass"]) * decay(latest - other["ref_time"], half_life_seconds)
    total = mass + other_mass
    keep = 0.5
    add = 0.5
    if total > 0.0:
        keep = mass / total
        add = other_mass / total
    for d in range(means.shape[1]):
        means[into, d] = np.int16(
            np.rint(np.float64(means[into, d]) * keep + np.float64(means[dropped, d]) * add)
        )
    a = keep * length
    b = add * other_length
    merged = math.sqrt(max(a * a + b * b + 2.0 * a * b * cosine, 1e-12))
    medoid_score = float(interest["medoid_score"]) * (a + b * cosine) / merged
    other_score = float(other["medoid_score"]) * (b + a * cosine) / merged
    if other_score > medoid_score:
        interest["medoid"] = other["medoid"]
        medoid_score = other_score
    interest["medoid_score"] = min(max(medoid_score, -1.0), 1.0)
    interest["ref_time"] = latest
    interest["born"] = min(interest["born"], other["born"])
    interest["events"] += other["events"]
    interest["mass"] = total
    interest["strength_before"] = before


@native
def _free_place(
    interests: Array, means: Array, scratch: Array, half_life_seconds: float, threshold: float
) -> int:
    """Free a place among interests that are all in use, and return it.

    The two nearest interests become one; if none are near enough, the weakest is dropped.
    """
    n = interests.shape[0]
    closest = threshold
    first = -1
    second = -1
    # Two interests of one event each have not moved since the second was found to be new. So only
    # pairs with an interest of several events can have come close.
    moved = False
    for s in range(n):
        moved |= interests[s]["events"] > 1
    if moved:
        for s in range(n):
            unit_mean(means[s], scratch[s])
    for i in range(n):
        for j in range(i + 1, n):
            if interests[i]["events"] + interests[j]["events"] == 2:
                continue
            cosine = dot(scratch[i], scratch[j])
            if cosine > closest:
                closest = cosine
                first = i
                second = j
    if first >= 0:
        _, square_a = _mean_against(means[first], scratch[first])
        _, square_b = _mean_against(means[second], scratch[second])
        _merge_interests(
            interests,
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
    latest = interests[0]["ref_time"]
    for s in range(1, n):
        latest = max(latest, interests[s]["ref_time"])
    weakest = 0
    least = math.inf
    for s in range(n):
        # As a logarithm, so that interests too old to have a number left still have an order.
        strength = math.log2(max(float(interests[s]["mass"]), 1e-30)) - (
            (latest - interests[s]["ref_time"]) / half_life_seconds
        )
        if strength < least:
            least = strength
            weakest = s
    return weakest


@native
def add_to_interests(
    interests: Array,
    means: Array,
    n_interests: int,
    item: np.uint64,
    time: float,
    weight: float,
    vector: Array,
    scratch: Array,
    half_life_seconds: float,
    threshold: float,
) -> int:
    """Add one positive event to the interests of a user, in place.

    1. The event joins the interest whose mean is nearest by cosine, if that exceeds the threshold.
    2. Else it opens an interest in an empty place.
    3. Else the two interests nearest to each other are merged, if their cosine exceeds the
       threshold, and the event opens an interest in the place that is freed.
    4. Else it opens one in the place of the weakest interest, by decayed mass.

    The result depends on the order, so events are added one by one, in the order of arrival.

    Args:
        interests: (S,) INTEREST, the first `n_interests` in use.
        means: (S, D) int16, mean vectors in units of 1/FIXED_ONE.
        n_interests: interests in use.
        item: hash of the item.
        time: seconds.
        weight: positive.
        vector: (D,) float32, of unit length; a null vector, or one with NaN, is left out.
        scratch: (S, D) float32, written over.
        half_life_seconds: of the masses.
        threshold: cosine, between 0 and 1.

    Returns:
        The interests in use afterwards.
    """
    length = square(vector)
    if not (1e-6 < length < 1e6):
        return n_interests
    scale = 1.0 / math.sqrt(length)
    best = -1
    best_cosine = threshold
    best_product = 0.0
    best_square = 0.0
    for s in range(n_interests):
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
        _join_interest(
            interests[best],
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
        return n_interests
    place = n_interests
    if n_interests == interests.shape[0]:
        place = _free_place(interests, means, scratch, half_life_seconds, threshold)
    else:
        n_interests += 1
    _open_interest(interests[place], means[place], item, time, weight, vector, scale)
    return n_interests


@native
def interest_strength(interest: Any, now: float, half_life_seconds: float) -> tuple[float, float]:
    """Return an interest's mass as decayed at `now`, and its change since a day before.

    The day before is `now` - 1 d if the interest had no event since; else the last known state not
    after it, or, if there is none, the beginning of the UTC day of the interest's latest event.
    A `now` before the interest's latest event counts as that event's time.
    """
    now = max(now, interest["ref_time"])
    strength = float(interest["mass"]) * decay(now - interest["ref_time"], half_life_seconds)
    then = now - DAY_SECONDS
    if then >= interest["ref_time"]:
        before = float(interest["mass"]) * decay(then - interest["ref_time"], half_life_seconds)
    else:
        morning = day_start(interest["ref_time"])
        before = float(interest["strength_before"]) * decay(then - morning, half_life_seconds)
    return strength, strength - before
