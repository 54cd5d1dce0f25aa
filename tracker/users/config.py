"""Configuration of the states of users, a part of the manifest."""

import math

import msgspec


class InterestConfig(msgspec.Struct, frozen=True):
    """Layout and half-lives of a state, chosen at `indexer build` or `train`, kept in the manifest.

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
    slot_threshold: float = 0.25
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
        for name, (value, least, most) in bounds.items():
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; {least} to {most} is expected")
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
