"""The row of what was learned: what this version writes, and what it makes of older rows."""

import numpy as np

from tests.paths import GOLDEN
from tests.tracker.encoder.test_tower import fitted, world_with
from tracker.events.kinds import Kinds
from tracker.recommend.learned_row import FORMAT, Learned, decode_learned, encode_learned
from tracker.recommend.learner import Learner


def learned() -> dict[str, Learned]:
    attention = np.arange(6, dtype="<f4").tobytes() + np.array([11], "<u4").tobytes()
    return {
        "ranker": Learned(7, 3, 1.5, 0.25, np.arange(4, dtype="<f4").tobytes()),
        "attention": Learned(8, 2, 2.5, -0.5, attention),
        "calibration": Learned(9, 5, 0.5, 0.0, np.arange(2, dtype="<f8").tobytes()),
    }


def test_a_row_is_written_and_read_as_its_golden_file() -> None:
    row = (GOLDEN / f"learned_row_{FORMAT}.bin").read_bytes()
    assert encode_learned(learned()) == row
    assert decode_learned(row) == learned()


def test_of_a_row_of_format_1_what_scenes_learned_is_given_up_and_the_rest_is_kept() -> None:
    found = decode_learned((GOLDEN / "learned_row_1.bin").read_bytes())
    assert found.pop("attention") == Learned(0, 2)
    assert found == {name: one for name, one in learned().items() if name != "attention"}


def test_a_learner_says_that_what_scenes_learned_in_format_1_starts_again() -> None:
    models = world_with(fitted(scenes=True)).artifact.models
    learner = Learner(Kinds.default())
    learner.restore((GOLDEN / "learned_row_1.bin").read_bytes())
    assert learner.follow(models) == ["attention"]
    assert learner.progress["attention"].steps == 0
    assert set(decode_learned(learner.row())) == {"ranker", "calibration"}
