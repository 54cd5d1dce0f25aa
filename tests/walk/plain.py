"""Workers whose lists depend on their user alone: no trend, no neighbours, no new items."""

from functools import partial
from typing import Any

import tracker.stream.serving
from tracker.recommend.options import RecommendOptions
from tracker.scoring.blend import BLEND, Blend
from tracker.scoring.retrieval import Retrieval

OF_OTHERS = ("trend", "neighbours")
"""Beginnings of the names of features that other users change."""


def without_others() -> None:
    """Let the workers of this process neither search nor score by what other users do."""
    weights = {name: one for name, one in BLEND.items() if not name.startswith(OF_OTHERS)}
    Blend.__init__.__defaults__ = (weights,)
    own = Retrieval(neighbours=0, scene=0, lists={})
    serving: Any = tracker.stream.serving
    serving.RecommendOptions = partial(RecommendOptions, retrieval=own)
