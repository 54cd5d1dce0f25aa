"""Labels of events: positive, negative or neither."""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.wire import kind_code
from tracker.kernels.native import native


class LabelRule(msgspec.Struct, frozen=True):
    """Rule by which events get labels.

    - `source` "events": a rating (of one of `rating_kinds`, with a value) is positive from
      `positive_rating` on, else negative; any other event is positive or negative as its weight
      is, and has no label if that is 0.
    - `source` "impressions": events of kind `impression` alone are labelled: positive if the
      same user has an event that is positive by the rule above on the same item within
      `window_seconds` after it, else negative.
    """

    source: Literal["events", "impressions"] = "events"
    positive_rating: float | None = None
    rating_kinds: list[str] = []
    window_seconds: float = 1800.0

    @property
    def rating_codes(self) -> NDArray[np.uint16]:
        """Return the codes of the rating kinds; empty if ratings have no threshold."""
        names = self.rating_kinds if self.positive_rating is not None else []
        return np.array([kind_code(name) for name in names], np.uint16)

    @property
    def threshold(self) -> float:
        """Return the lowest positive rating; 0 if there is none, and no rating kind either."""
        return 0.0 if self.positive_rating is None else self.positive_rating

    def labels(
        self,
        kinds: NDArray[np.uint16],
        values: NDArray[np.float32],
        weights: NDArray[np.float32],
    ) -> NDArray[np.int8]:
        """Return what each event says by itself: 1 positive, 0 negative, -1 nothing.

        Args:
            kinds: (E,) codes.
            values: (E,) NaN for none.
            weights: (E,) signed, as applied.

        >>> rule = LabelRule(positive_rating=8.0, rating_kinds=["rate"])
        >>> kinds = np.array([kind_code("rate")] * 2 + [kind_code("view")] * 2, np.uint16)
        >>> values = np.array([7, 8, np.nan, np.nan], np.float32)
        >>> rule.labels(kinds, values, np.array([0.8, 1.2, 0.3, 0.0], np.float32)).tolist()
        [0, 1, 1, -1]
        """
        labels = np.where(weights > 0, 1, np.where(weights < 0, 0, -1)).astype(np.int8)
        rated = np.isin(kinds, self.rating_codes) & np.isfinite(values)
        labels[rated] = values[rated] >= np.float32(self.threshold)
        return labels


@native
def is_liked(
    kind: int,
    value: float,
    weight: float,
    rating_codes: NDArray[np.uint16],
    threshold: np.float32,
) -> bool:
    """Return whether an event is positive by `LabelRule.labels`, in native code."""
    if value == value:  # not NaN
        for code in rating_codes:
            if kind == code:
                return bool(value >= threshold)
    return bool(weight > 0.0)
