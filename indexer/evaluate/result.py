"""The result of an evaluation: the form of its JSON, which its reports read."""

import msgspec


class Row(msgspec.Struct, frozen=True):
    """Metrics of one model on one slice of the targets; None if a metric is not defined.

    Those of rankings are means over `n` targets; those of probabilities, from `auc` on, are over
    `labelled` events. `ci` has the 95 % interval of each, but of `coverage` and the noise floor.
    """

    model: str
    slice: str
    n: int
    hit_rate_at_10: float | None = None
    hit_rate_at_20: float | None = None
    ndcg_at_10: float | None = None
    ndcg_at_20: float | None = None
    mrr: float | None = None
    recall_at_10: float | None = None
    debiased_hit_rate_at_10: float | None = None
    coverage: float | None = None
    novelty: float | None = None
    diversity: float | None = None
    labelled: int = 0
    auc: float | None = None
    user_auc: float | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    log_loss: float | None = None
    ece: float | None = None
    ece_noise_floor: float | None = None
    ci: dict[str, tuple[float, float]] = {}


class Difference(msgspec.Struct, frozen=True):
    """The mean of `model - against` over the targets, and its 95 % interval over users."""

    model: str
    against: str
    metric: str
    mean: float
    ci: tuple[float, float] | None


class Served(msgspec.Struct, frozen=True):
    """The list as served beside the ranking of all items, on one slice of the targets.

    `value` and `whole` are means of `metric` over the `n` targets, of which the whole ranking hits
    `hits` in its first ten; `short` is the share of `whole` that `value` lacks, and `ci` its 95 %
    interval over users, target by target. `candidates` and `cut` are the shares of the targets
    that the channels find and that the first cut leaves; `hits_in_candidates` and `hits_in_cut` the
    same of the whole ranking's hits. `missed`: it lacks more than the bar allows.
    """

    slice: str
    metric: str
    n: int
    hits: int
    value: float
    whole: float
    short: float | None
    ci: tuple[float, float] | None
    candidates: float
    cut: float
    hits_in_candidates: float | None
    hits_in_cut: float | None
    missed: bool


class CalibrationBin(msgspec.Struct, frozen=True):
    """A tenth of the labelled events by probability: its mean, and the share of positives."""

    size: int
    probability: float
    positives: float


class Evaluation(msgspec.Struct, frozen=True):
    """The JSON of `indexer evaluate --json`; `notes` explain how it was measured."""

    protocol: str
    artifact: str
    items: int
    users: int
    targets: int
    seconds: float
    events_per_second: float
    notes: list[str]
    rows: list[Row]
    differences: list[Difference]
    calibration: list[CalibrationBin] = []
    served: list[Served] = []
