"""Options of list making: candidates, quotas, diversity, and the learned models in use."""

from dataclasses import dataclass, field, replace
from typing import Literal

from tracker.encoder.online_attention import OnlineAttention
from tracker.scoring.calibration import Calibration
from tracker.scoring.network import Network, RankerInfo
from tracker.scoring.online_ranker import OnlineRanker
from tracker.scoring.retrieval import Retrieval

Explain = Literal["off", "reasons", "parts"]
"""What a list says of its items: nothing; interests and own events; parts of the scores as well."""


@dataclass(frozen=True, slots=True)
class RecommendOptions:
    """Options of list making; the defaults suit a catalogue of any size.

    - `searches`: most searches of the index per user, one per interest. `per_search`: items that
      each finds, and the search by the user encoder where one was trained.
    - `candidates`: most rows merged per user; `retrieval` has the quotas of the channels, and what
      is left over goes to those with more rows (own items, where seen ones are kept). `cut`: rows
      kept for the costly features.
    - `seen`: items of earlier events come after all others ("demote"), never ("exclude"; but
      a list is not left empty for it), or like others ("keep").
    - `diversity`: of the re-ranking, 0 (by score alone) to 1; None for that of `retrieval`.
    - `recent_events`, `neighbour_events`, `content_events`: the number of latest positive events
      from which similar items, live neighbours (of each the `neighbour_width` strongest, before
      and after it) and full-width content are taken.
    - `because_cosine`: least cosine of a reason, `because_half_life_seconds` of its weight.
    - `explain`: what a list says of its items.

    Raises:
        ValueError: an option is out of its range.
    """

    searches: int = 2
    per_search: int = 40
    candidates: int = 88
    cut: int = 32
    seen: Literal["demote", "exclude", "keep"] = "demote"
    diversity: float | None = None
    recent_events: int = 5
    neighbour_events: int = 10
    neighbour_width: int = 24
    content_events: int = 8
    because_cosine: float = 0.25
    because_half_life_seconds: float = 604800.0
    explain: Explain = "reasons"
    retrieval: Retrieval = field(default_factory=Retrieval)

    def __post_init__(self) -> None:
        if self.retrieval.rows > self.candidates:
            raise ValueError(
                f"the channels' quotas sum to {self.retrieval.rows};"
                f" at most {self.candidates} candidates together are expected"
            )
        reserve = self.retrieval.reserve
        if not 5 * reserve <= self.cut <= self.candidates:
            raise ValueError(
                f"cut is {self.cut}; {5 * reserve} (5 * reserve) to {self.candidates}"
                " (candidates) is expected"
            )
        if self.seen not in ("demote", "exclude", "keep"):
            raise ValueError(f"seen is {self.seen!r}; demote, exclude or keep is expected")
        if not 0.0 <= self.diversity_weight <= 1.0:
            raise ValueError(f"diversity is {self.diversity_weight}; 0 to 1 is expected")
        if self.searches < 0 or self.per_search < 1:
            raise ValueError(
                f"searches is {self.searches} and per_search {self.per_search};"
                " at least 0 and 1 are expected"
            )

    @property
    def diversity_weight(self) -> float:
        """The diversity of the re-ranking: as set, or as in `retrieval`."""
        return self.retrieval.diversity if self.diversity is None else self.diversity


def trained_with(info: RankerInfo, options: RecommendOptions) -> RecommendOptions:
    """Return the options with those that a ranker was trained with."""
    return replace(
        options,
        neighbour_events=info.neighbour_events,
        neighbour_width=info.neighbour_width,
        content_events=info.content_events,
        candidates=info.candidates,
        cut=info.cut,
        retrieval=info.retrieval,
        per_search=info.retrieval.per_search,
    )


@dataclass(frozen=True, slots=True)
class LearnedModels:
    """Learned models that replace the artifact's; None to use the artifact's.

    `ranker` scores, `attention` corrects scene attention, and `calibration` is that of the
    probabilities.
    """

    ranker: OnlineRanker | Network | None = None
    attention: OnlineAttention | None = None
    calibration: Calibration | None = None

    def copy(self) -> "LearnedModels":
        """Return the models as they are now, which learn no more."""
        return LearnedModels(
            self.ranker.copy() if isinstance(self.ranker, OnlineRanker) else self.ranker,
            None if self.attention is None else self.attention.copy(),
            self.calibration,
        )
