"""The numbers in docs/concepts/ are those of the code."""

import re
from pathlib import Path

import pytest

from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.items.config import YEAR, ItemCounts
from tracker.items.counts import POSITION_DECAY
from tracker.items.layout import NEIGHBOURS, SCENES
from tracker.kernels.arithmetic import decay
from tracker.recommend.learner import MOST, MOST_LABELLED
from tracker.recommend.options import RecommendOptions
from tracker.scoring.context import CONTEXT
from tracker.scoring.features import FEATURES
from tracker.scoring.network import RankerInfo
from tracker.settings import load_settings
from tracker.users.config import InterestConfig

FOLDER = Path(__file__).parents[2] / "docs" / "concepts"
TEXTS = {path.stem: " ".join(path.read_text().split()) for path in FOLDER.glob("*.md")}
CONFIG, OPTIONS, TRAINED = InterestConfig(), RecommendOptions(), RankerInfo([], (32, 32))
UNITS = {"minutes": 60.0, "hours": 3600.0, "day": 86400.0, "days": 86400.0, "year": YEAR}
DAY = UNITS["day"]


def seconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * UNITS[unit]


def rounded(share: float) -> set[str]:
    """Return how a share may be written in percent."""
    return {f"{100 * share:.{places}f} %" for places in (0, 1)}


def rows(page: str) -> list[list[str]]:
    lines = (FOLDER / f"{page}.md").read_text().splitlines()
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line[:1] == "|"]


def test_the_table_of_decay_is_right() -> None:
    head = next(row for row in rows("state") if row[0] == "Weight left after")
    lines = [row for row in rows("state") if row[0].startswith("half-life ")]
    assert [seconds(row[0].removeprefix("half-life ")) for row in lines] == list(
        CONFIG.half_lives_seconds
    )
    for name, *cells in lines:
        half_life = seconds(name.removeprefix("half-life "))
        for age, cell in zip(head[1:], cells, strict=True):
            assert cell in rounded(decay(seconds(age), half_life)), (name, age)


def test_the_example_of_a_late_event_is_right() -> None:
    lines = {name: cells for name, *cells in rows("time") if name.startswith(("sum of", "long"))}
    assert len(lines) == 4
    for half_life, cell in lines.values():
        assert cell in rounded(decay(3 * DAY, seconds(half_life)))
    (interest,) = (row for row in rows("time") if row[0].startswith("interest that"))
    assert seconds(interest[1]) == CONFIG.slot_half_life_seconds
    assert interest[2] in rounded(decay(3 * DAY, CONFIG.slot_half_life_seconds))
    (trend,) = (row for row in rows("time") if row[0].startswith("trend"))
    for half_life, cell in zip(trend[1].split(" to "), trend[2].split(" to "), strict=True):
        assert seconds(half_life) in ItemCounts().seconds
        assert cell in rounded(decay(3 * DAY, seconds(half_life)))


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("state", f"up to {CONFIG.slots} **interests**"),
        ("state", f"half-life of {CONFIG.slot_half_life_seconds / DAY:.0f} days"),
        ("state", f"a half-life of {CONFIG.negative_half_life_seconds / DAY:.0f} days"),
        ("state", f"the latest events, at most {CONFIG.ring}"),
        ("state", f"at least the last {CONFIG.seen_capacity:,} ids"),
        ("state", f"the cosine is above {CONFIG.slot_threshold}"),
        ("state", f"the {NEIGHBOURS} items that users most often chose before it"),
        ("state", f"counts 1, the one before it {POSITION_DECAY}"),
        ("state", f"Up to {SCENES} scenes"),
        ("ranking", f"| not trained | {OPTIONS.candidates} | {OPTIONS.cut} |"),
        ("ranking", f"| trained, with few events | {TRAINED.candidates} | {TRAINED.cut} |"),
        ("ranking", f"computes up to {len(FEATURES)} features"),
        (
            "learning",
            f"At most {MOST} events of a chunk teach the ranking, and {MOST_LABELLED}",
        ),
        ("time", f"at most {MAX_FUTURE_SECONDS / 60:.0f} minutes ahead"),
        ("words", f"Up to {load_settings({}).chunk_events:,} events of one partition"),
        ("words", f"the last {CONFIG.ring - CONFIG.ring_evict + 1} to {CONFIG.ring} by default"),
    ],
)
def test_a_number_in_the_text_is_that_of_the_code(page: str, sentence: str) -> None:
    assert sentence in TEXTS[page]


def test_numbers_written_as_words_are_those_of_the_code() -> None:
    words = {2: "two", 4: "four", 6: "six", 7: "seven"}
    assert f"{words[len(CONFIG.half_lives_seconds)]} **sums**" in TEXTS["state"]
    assert f"its oldest {words[CONFIG.ring_evict]} events leave it" in TEXTS["state"]
    assert f"At most {words[OPTIONS.searches]} interests per list" in TEXTS["ranking"]
    assert f"Each channel keeps its best {words[OPTIONS.retrieval.reserve]}" in TEXTS["ranking"]
    assert f"also reads {words[len(CONTEXT)]} numbers about the moment" in TEXTS["ranking"]


def test_pictures_have_a_title_and_both_colour_schemes() -> None:
    pictures = sorted((FOLDER.parent / "images").glob("*.svg"))
    shown = set(re.findall(r"\.\./images/(\w+\.svg)", "".join(TEXTS.values())))
    assert shown <= {picture.name for picture in pictures}
    for picture in pictures:
        text = picture.read_text()
        assert "<title" in text
        if not picture.stem.endswith(("-light", "-dark")):  # a pair, chosen by the page
            assert "prefers-color-scheme:dark" in text
