"""Prediction: the trained probability of a positive event on an item, in a scene at a time."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.label_rule import LabelRule
from tracker.items.view import ItemView
from tracker.kernels.native import reordered
from tracker.scoring.calibration import Calibration
from tracker.scoring.evidence import EVIDENCE, Priors, read_evidence
from tracker.scoring.weights import check_weights, read_weights, weights_to_bytes
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

Array = NDArray[Any]


class PredictionFileError(ValueError):
    """A prediction's file does not fit its description; the message says what was found."""


class PredictionInfo(msgspec.Struct, frozen=True):
    """Description of a trained prediction, in the manifest.

    `features` are what it reads of EVIDENCE, `hidden` the width of its layer, 0 for none (then it
    is a logistic regression). `rule` says what is positive, `base_rate` how often that was so in
    the `examples` that were learned from, `calibration` the scale and shift of its logits, and
    `priors` what its features are smoothed with. `validation` has `auc`, `user_auc`, `log_loss`
    and `ece` of the latest of the examples, before the head was fitted on all of them.
    """

    features: list[str]
    hidden: int
    rule: LabelRule
    base_rate: float
    priors: Priors
    calibration: tuple[float, float]
    examples: int
    validation: dict[str, float | None] = {}


@dataclass(frozen=True, slots=True)
class HeadWeights:
    """The numbers of a head over P features with a hidden layer of H (may be 0).

    `linear` (P,), `bias` (1,), `first` (P, H), `first_bias` (H,), `last` (H,), all float32: logit =
    bias + linear . x + last . relu(first x + first_bias). What standardises is folded in. `lowest`
    and `highest` (P,) bound x first: what was not met in training is no more than the most met.
    """

    linear: NDArray[np.float32]
    bias: NDArray[np.float32]
    first: NDArray[np.float32]
    first_bias: NDArray[np.float32]
    last: NDArray[np.float32]
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]


class _HeadArrays(NamedTuple):
    """The arrays of `HeadWeights`, as a kernel takes them."""

    linear: Array
    bias: Array
    first: Array
    first_bias: Array
    last: Array
    lowest: Array
    highest: Array


class Prediction:
    """A trained head with its calibration: only read, so many threads may use one.

    `code` is a hash of all of it.

    Args:
        info: what it is.
        weights: its numbers.

    Raises:
        PredictionFileError: a feature is unknown, or numbers are not what `info` says.
    """

    def __init__(self, info: PredictionInfo, weights: HeadWeights) -> None:
        unknown = sorted(set(info.features) - set(EVIDENCE))
        if unknown:
            raise PredictionFileError(
                f"the prediction reads feature {unknown[0]!r}, which this program does not compute;"
                " train again, or upgrade this program"
            )
        width, hidden = len(info.features), info.hidden
        expected = {
            "linear": (width,), "bias": (1,), "first": (width, hidden), "first_bias": (hidden,),
            "last": (hidden,), "lowest": (width,), "highest": (width,),
        }  # fmt: skip
        check_weights("prediction", weights, expected, PredictionFileError)
        try:
            self.calibration = Calibration.published(*info.calibration)
        except ValueError as error:
            raise PredictionFileError(f"{error}; train again") from error
        self.info = info
        self.weights = weights
        digest = hashlib.blake2b(repr((info.features, info.rule)).encode(), digest_size=8)
        digest.update(self.to_bytes() + self.calibration.to_bytes())
        self.code = int.from_bytes(digest.digest(), "little")
        self._arrays = _HeadArrays(*(getattr(weights, name) for name in _HeadArrays._fields))
        self._columns = np.array([EVIDENCE.index(name) for name in info.features], np.int64)

    def logits(
        self,
        histories: Histories,
        requests: RequestBatch,
        rows: NDArray[np.int64],
        view: ItemView,
        full: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return logits (B, C) of rows (B, C), not calibrated yet, NaN where the row is -1.

        The arguments are those of `read_evidence`.
        """
        evidence = read_evidence(
            histories, requests, rows, view, full, self.info.rule, self.info.priors
        )
        return self.logits_of(evidence, rows)

    def logits_of(
        self, evidence: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the logits of evidence (B, C, P) of rows (B, C), NaN where the row is -1."""
        logits = np.full(rows.shape, np.nan, np.float32)
        _forward(evidence, rows, self._columns, self._arrays, logits)
        return logits

    def to_bytes(self) -> bytes:
        """Return the weights as safetensors; `info` belongs into the manifest."""
        return weights_to_bytes(self.weights)

    @classmethod
    def load(cls, path: Path, info: PredictionInfo) -> "Prediction":
        """Read the weights of a prediction.

        Raises:
            PredictionFileError: the file is not there, cut short, or not what `info` says.
        """
        weights = read_weights(path, HeadWeights, PredictionFileError)
        try:
            return cls(info, weights)
        except PredictionFileError as error:
            raise PredictionFileError(f"{path}: {error}") from error


@reordered
def _forward(
    evidence: Array, rows: Array, columns: Array, head: _HeadArrays, logits: Array
) -> None:
    """Write the logits (B, C) of evidence (B, C, P) at `columns`, where rows are not -1."""
    linear, bias, first, first_bias, last, lowest, highest = head
    hidden = np.empty(len(first_bias), np.float32)
    for b in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            if rows[b, c] < 0:
                continue
            logit = bias[0]
            for h in range(len(hidden)):
                hidden[h] = first_bias[h]
            for i in range(len(columns)):
                x = min(max(evidence[b, c, columns[i]], lowest[i]), highest[i])
                logit += x * linear[i]
                for h in range(len(hidden)):
                    hidden[h] += x * first[i, h]
            for h in range(len(hidden)):
                logit += max(hidden[h], np.float32(0.0)) * last[h]
            logits[b, c] = logit
