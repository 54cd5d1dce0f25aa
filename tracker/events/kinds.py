"""Kinds of events: the signed weight of each, and the curve of its values."""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.names import nearest
from tracker.events.wire import kind_code
from tracker.explained import Explained

Curve = Literal["none", "rating", "dwell", "quantity"]

DWELL_SATURATION_SECONDS = 60.0
"""Dwell time at which half of a dwell event's weight is reached."""

MAX_WEIGHT = 1000.0
"""Largest weight, positive or negative: the sums of states are float32, and must stay finite."""

MAX_QUANTITY_FACTOR = 4.0
"""A large quantity counts at most this many times a single one."""


NOT_RATED = -1.0
"""The value of a rating that says "not rated", where the scale of ratings does not hold it."""

TAKES_BACK: Mapping[str, str] = {"purchase": "return", "cart": "remove_from_cart"}
"""The kind that a negative quantity of a kind is; `return` for others with the curve `quantity`."""


class QuantityError(ValueError):
    """A negative quantity, and no kind of a negative weight that it could be."""


class UnknownKindError(ValueError):
    """An event's kind is not in the table, and no default weight is set."""


class KindsFileError(Explained, ValueError):
    """The weights file cannot be used; the message names what was found and expected."""


class Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the table: the weight of an event, and the curve its value runs through."""

    weight: float
    curve: Curve = "none"


DEFAULT_KINDS: Mapping[str, Kind] = {
    "impression": Kind(0.0),
    "view": Kind(0.3),
    "click": Kind(0.5),
    "dwell": Kind(1.0, "dwell"),
    "play": Kind(1.0, "dwell"),
    "search": Kind(0.5),
    "like": Kind(2.0),
    "save": Kind(2.0),
    "follow": Kind(2.0),
    "share": Kind(2.0),
    "comment": Kind(1.0),
    "cart": Kind(2.0),
    "remove_from_cart": Kind(-0.5),
    "purchase": Kind(3.0, "quantity"),
    "return": Kind(-2.0),
    "rate": Kind(2.0, "rating"),
    "skip": Kind(-0.3),
    "unlike": Kind(-1.0),
    "dislike": Kind(-2.0),
    "hide": Kind(-2.0),
    "report": Kind(-3.0),
}
"""The documented default: an explicit choice weighs more than a glance, a refusal is negative."""


class _KindsFile(msgspec.Struct, forbid_unknown_fields=True):
    """The TOML file: `unknown` and one line a kind, a number or `{weight, curve}`."""

    unknown: float | Literal["reject"] = "reject"
    kinds: dict[str, float | Kind] = {}
    replace: bool = False


class Kinds(msgspec.Struct, frozen=True):
    """The signed weights in force.

    `rating_min` and `rating_max` are the scale chosen when the artifact was built: they come from
    its manifest, so that weights and states agree.
    """

    table: Mapping[str, Kind]
    unknown: float | None = None
    rating_min: float = 1.0
    rating_max: float = 5.0

    @classmethod
    def default(cls, rating_min: float = 1.0, rating_max: float = 5.0) -> "Kinds":
        """Return the built-in table; unknown kinds are rejected."""
        return cls(DEFAULT_KINDS, None, rating_min, rating_max)

    @classmethod
    def load(cls, path: Path, rating_min: float = 1.0, rating_max: float = 5.0) -> "Kinds":
        """Read a TOML file of weights over the built-in table.

        Args:
            path: the file; `replace = true` in it drops the built-in kinds first.
            rating_min: the lowest rating of the scale.
            rating_max: the highest rating of the scale.

        Raises:
            KindsFileError: the file is not there, not TOML, or has a field we do not know.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
            file = msgspec.convert(tomllib.loads(text), _KindsFile)
        except OSError as error:
            raise KindsFileError(f"{path}: cannot be read: {error.strerror}") from error
        except msgspec.ValidationError as error:
            raise KindsFileError(
                f"{path}: {error}; expected `unknown` (a weight or 'reject'), `replace`, and under"
                " [kinds] a number or {weight = number, curve = none|rating|dwell|quantity} a kind"
            ) from error
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
            raise KindsFileError(f"{path}: not TOML: {error}") from error
        table: dict[str, Kind] = {} if file.replace else dict(DEFAULT_KINDS)
        for name, line in file.kinds.items():
            kind = line if isinstance(line, Kind) else Kind(line, _default_curve(name))
            _check_weight(f"{path}: kinds.{name}", kind.weight)
            table[name] = kind
        unknown = None if file.unknown == "reject" else file.unknown
        if unknown is not None:
            _check_weight(f"{path}: unknown", unknown)
        return cls(table, unknown, rating_min, rating_max)

    @classmethod
    def of_settings(
        cls,
        path: Path | None,
        unknown: float | Literal["reject"],
        rating_min: float = 1.0,
        rating_max: float = 5.0,
    ) -> "Kinds":
        """Return the weights that a worker uses.

        Args:
            path: the file of weights; None for the built-in table.
            unknown: the weight of other kinds; if `reject`, the file decides.
            rating_min: the lowest rating of the scale.
            rating_max: the highest rating of the scale.

        Raises:
            KindsFileError: see `load`.
        """
        if path is None:
            kinds = cls.default(rating_min, rating_max)
        else:
            kinds = cls.load(path, rating_min, rating_max)
        return kinds if unknown == "reject" else msgspec.structs.replace(kinds, unknown=unknown)

    def effective(self, kind: str, value: float | None) -> tuple[str, float | None]:
        """Return the kind and the value as which an event counts.

        A negative quantity is a return: a purchase of -2 is a return of 2. A rating of -1 says "not
        rated", if the scale does not hold it: then it has no value.

        Raises:
            QuantityError: a negative quantity, and the kind that takes back has no weight below 0.

        >>> Kinds.default().effective("purchase", -2.0)
        ('return', 2.0)
        >>> Kinds.default().effective("rate", -1.0)
        ('rate', None)
        """
        if value is None or value >= 0.0 or (line := self.table.get(kind)) is None:
            return kind, value
        if line.curve == "rating":
            return kind, None if value == NOT_RATED < self.rating_min else value
        if line.curve != "quantity" and kind not in TAKES_BACK:
            return kind, value
        if line.weight <= 0.0:
            return kind, -value
        back = TAKES_BACK.get(kind, "return")
        other = self.table.get(back)
        if other is None or other.weight >= 0.0:
            raise QuantityError(
                f"{kind[:64]!r} with the quantity {value:g}: a negative quantity counts as"
                f" {back!r}, which has no weight below 0 in the weights file; give it one"
            )
        return back, -value

    def weight(self, kind: str, value: float | None) -> float:
        """Return the signed weight of an event of `kind` with `value`.

        Curves: `rating` maps the scale linearly to -1..1, its middle to 0 (beyond the scale it is
        cut); `dwell` is `1 - 2^(-seconds / 60)`; `quantity` is `1 + log2(quantity)`, at most 4.
        Without a value the weight stands as it is. For a negative quantity and for a rating of -1
        see `effective`; "not rated" weighs 0.

        Raises:
            QuantityError: see `effective`.
            UnknownKindError: the kind is not in the table and unknown kinds are rejected.

        >>> Kinds.default().weight("rate", 5.0)
        2.0
        >>> Kinds.default().weight("rate", 3.0)
        0.0
        >>> Kinds.default().weight("dwell", 60.0)
        0.5
        >>> Kinds.default().weight("purchase", 2.0)
        6.0
        """
        number = value
        kind, value = self.effective(kind, value)
        line = self.table.get(kind)
        if line is None:
            if self.unknown is None:
                meant = nearest(kind, self.table)
                ask = "" if meant is None else f"; did you mean {meant}?"
                raise UnknownKindError(
                    f"kind {kind[:64]!r} is not in the table of weights{ask or ';'} "
                    f"{'If not, add' if ask else 'add'} it to the weights file, or set a default"
                    " weight for unknown kinds"
                )
            return self.unknown
        if value is None:
            return line.weight if number is None else 0.0
        if line.curve == "none":
            return line.weight
        return line.weight * self._curve(line.curve, value)

    def beyond_scale(
        self, kinds: NDArray[np.uint16], values: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Return which events (E,) are ratings beyond the scale, by their codes and values."""
        outside: NDArray[np.bool_] = (values < self.rating_min) | (values > self.rating_max)
        if not np.count_nonzero(outside):  # nearly always
            return outside
        codes = [kind_code(name) for name, line in self.table.items() if line.curve == "rating"]
        beyond: NDArray[np.bool_] = outside & np.isin(kinds, np.array(codes, np.uint16))
        return beyond

    def _curve(self, curve: Curve, value: float) -> float:
        if curve == "rating":
            middle = (self.rating_min + self.rating_max) / 2
            half = (self.rating_max - self.rating_min) / 2
            return min(1.0, max(-1.0, (value - middle) / half))
        if curve == "dwell":
            return 1.0 - math.exp2(-max(0.0, value) / DWELL_SATURATION_SECONDS)
        if value <= 1.0:
            return max(0.0, value)
        return min(MAX_QUANTITY_FACTOR, 1.0 + math.log2(value))


def _check_weight(where: str, weight: float) -> None:
    """Refuse a weight that is not finite or too large; raises KindsFileError."""
    if not abs(weight) <= MAX_WEIGHT:  # false for nan
        raise KindsFileError(
            f"{where}: the weight is {weight:g}; a number from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g} is"
            " expected"
        )


def _default_curve(name: str) -> Curve:
    kind = DEFAULT_KINDS.get(name)
    return kind.curve if kind is not None else "none"
