"""LearnedModels: what a partition has learned from its stream, as lists are made with it."""

from dataclasses import dataclass

from tracker.encoder.online_attention import OnlineAttention
from tracker.scoring.calibration import Calibration
from tracker.scoring.online_ranker import OnlineRanker


@dataclass(frozen=True, slots=True)
class LearnedModels:
    """What takes the place of what the artifact has; None for that.

    `ranker` scores, `attention` is what is added to scene attention, and `calibration` is that of
    the probabilities.
    """

    ranker: OnlineRanker | None = None
    attention: OnlineAttention | None = None
    calibration: Calibration | None = None
