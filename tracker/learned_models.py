"""LearnedModels: what a partition has learned from its stream, as lists are made with it."""

from dataclasses import dataclass

from tracker.calibration import Calibration
from tracker.online import OnlineRanker
from tracker.scene_shifts import SceneShifts


@dataclass(frozen=True, slots=True)
class LearnedModels:
    """What takes the place of what the artifact has; None for that.

    `ranker` scores, `shifts` are what scenes add to what the user encoder looks for, and
    `calibration` is that of the probabilities.
    """

    ranker: OnlineRanker | None = None
    shifts: SceneShifts | None = None
    calibration: Calibration | None = None
