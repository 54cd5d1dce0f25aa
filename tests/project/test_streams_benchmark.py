"""Made-up streams: their truth, their knobs, and what they must not lean on."""

import ast
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import blocks, corners, learnable, train
from benchmarks.corners import missed, verdict
from benchmarks.results import Stored
from benchmarks.streams import CORNERS, Choice, Stream, make, with_settings, write
from tests.paths import ROOT

SMALL = Stream(events=3000, items=500, days=6.0)

MEASURED = {
    "commands": ["python -m benchmarks.train"], "commit": "1234567", "date": "2026-01-01",
    "machine": {"cores": 2, "model": "a", "memory_gib": 8, "load_average": 0.0},
}  # fmt: skip


def test_there_are_at_least_24_corners_of_a_size_that_an_hour_allows() -> None:
    assert len(CORNERS) >= 24
    assert all(one.events <= 30_000 and one.items <= 2000 for one in CORNERS.values())


def test_the_generator_imports_nothing_of_the_product() -> None:
    tree = ast.parse((ROOT / "benchmarks" / "streams.py").read_text())
    modules = [
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    assert {name.partition(".")[0] for name in modules} <= {*sys.stdlib_module_names, "numpy"}


def test_one_seed_gives_one_stream_and_another_seed_another() -> None:
    first, again, other = (make(replace(SMALL, seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first.events != other.events


@pytest.mark.parametrize("name", ["plain", "repetition", "everything", "news"])
def test_the_best_lists_hold_as_many_events_as_the_probabilities_say(name: str) -> None:
    truth = make(replace(CORNERS[name], events=6000, items=400)).truth
    share, drawn = truth["hit_rate_at_10"], truth["hit_rate_at_10_drawn"]
    error = np.sqrt(share * (1.0 - share) / truth["targets"])
    assert abs(share - drawn) < 4.0 * error
    assert 0.0 < truth["ndcg_at_10"] < share < 1.0


def test_a_user_chooses_an_item_twice_only_where_choices_repeat() -> None:
    def repeats(stream: Stream) -> int:
        pairs = [(event["user_id"], event["item_id"]) for event in make(stream).events]
        return len(pairs) - len(set(pairs))

    assert repeats(SMALL) == 0
    assert repeats(replace(SMALL, repetition=1.0)) > 1000


@pytest.mark.parametrize(
    "knobs",
    [
        {"trend": 1.0, "trend_minutes": 10.0},
        {"taste": 1.0},
        {"sequence": 1.0},
        {"repetition": 1.0},
        {"scene": 1.0},
        {"life": 0.8},
        {"bursts": 1.0},
    ],
)
def test_each_knob_that_drives_a_choice_makes_more_of_it_predictable(
    knobs: dict[str, float],
) -> None:
    plain = make(SMALL).truth["hit_rate_at_10"]
    assert (
        make(with_settings(SMALL, [f"{name}={value}" for name, value in knobs.items()])).truth[
            "hit_rate_at_10"
        ]
        > 1.1 * plain
    )


def test_text_tells_the_subject_as_often_as_the_knob_says() -> None:
    told, untold = (make(replace(SMALL, taste=1.0, text=text)) for text in (1.0, 0.0))
    assert told.events == untold.events
    assert [one["categories"] for one in told.items] != [one["categories"] for one in untold.items]


def test_a_stream_is_written_with_its_knobs_and_its_truth(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.streams", "plain", "--to", str(tmp_path)]
    command += ["--events", "500", "--items", "50", "--set", "taste=0.5"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth["stream"]["taste"] == 0.5
    events = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len(events) == 500
    times = [json.loads(line)["timestamp"] for line in events]
    assert times == sorted(times)


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no setting 'tsate'; there are events, items"):
        with_settings(Stream(), ["tsate=1"])


def test_ratings_tell_the_taste_unless_they_are_noise() -> None:
    def spread(noise: float) -> float:
        stream = replace(SMALL, taste=0.3, ratings=True, rating_noise=noise)
        return float(np.mean([event["value"] == 2 for event in make(stream).events]))

    assert spread(0.0) > 0.3 > spread(1.0)


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    made = make(replace(SMALL, events=50, items=20))
    write(made, tmp_path)
    lines = (tmp_path / "items.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == made.items


def evaluated(served: float, whole: float, baseline: float, best: float) -> dict[str, Any]:
    """Figures of a stream with one baseline that is better than another."""
    shares = {"tracker_served": served, "tracker": whole, "trend": baseline, "content": 0.01}
    models = {name: {"hit_rate_at_10": share} for name, share in shares.items()}
    mean = best + 0.1  # of the probabilities; the hits of the best list on these targets decide
    return {"models": models, "best": {"hit_rate_at_10": mean, "hit_rate_at_10_drawn": best}}


@pytest.mark.parametrize(
    ("figures", "bars"),
    [
        (evaluated(0.31, 0.31, 0.20, 0.40), []),
        (evaluated(0.29, 0.29, 0.20, 0.40), ["less than half of the gap"]),
        (evaluated(0.20, 0.20, 0.20, 0.2099), []),
        (evaluated(0.19, 0.20, 0.20, 0.20), ["below the best baseline", "below the whole ranking"]),
    ],
)
def test_a_stream_misses_the_bars_that_it_does_not_reach(
    figures: dict[str, Any], bars: list[str]
) -> None:
    assert missed(figures) == bars
    assert verdict(figures).endswith(", ".join(bars) or "all bars met")


def test_a_stream_that_was_measured_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def fake(words: Sequence[str]) -> dict[str, float]:
        ran.append(words[0])
        if words[0] == "evaluate":
            rows = [
                {"slice": "all", "model": name, "hit_rate_at_10": 0.5, "ndcg_at_10": 0.2}
                for name in ("tracker", "tracker_served", "popularity")
            ]
            report = {"rows": rows, "targets": 9}
            Path(words[words.index("--json") + 1]).write_text(json.dumps(report))
        return {"clock": 1.0, "processor": 2.0}

    monkeypatch.setattr(corners, "run", fake)
    stream = replace(SMALL, events=300, repetition=0.5)
    first = corners.measure("one", stream, tmp_path)
    assert ran == ["build", "train", "evaluate"]
    assert corners.measure("one", stream, tmp_path) == json.loads(json.dumps(first))
    assert len(ran) == 3
    corners.measure("one", replace(stream, seed=1), tmp_path)
    assert len(ran) == 6


def test_sizes_are_two_curves_or_those_that_are_given_and_films(tmp_path: Path) -> None:
    usual = [(one.events, one.items) for one in train.points(tmp_path, [], [])]
    assert len(usual) == len(set(usual)) == len(train.EVENTS) + len(train.ITEMS)
    own = list(train.points(tmp_path, [100, 200], [50]))
    assert [(one.events, one.items) for one in own] == [(100, 50), (200, 50)]
    assert own[0].stream.events == 100
    own[0].prepare()
    assert len(own[0].event_file.read_text().splitlines()) == 100
    films = train.Point.of_films(tmp_path)
    films.prepare()  # nothing to make
    assert films.item_file == tmp_path / "movietweetings" / "items.jsonl.gz"


def test_the_figure_of_sizes_shows_this_version_and_what_was_not_run() -> None:
    took = {"processor": 90.0, "clock": 60.0, "memory_mib": 800.0}
    own = {
        "train": took, "evaluate": took, "events_per_second": 700.0, "ndcg_at_10": {"tracker": 0.3},
    }  # fmt: skip
    points = [
        {"events": 1000, "items": 50, "own": own, "other": {"train": took}},
        {"events": 0, "items": 0, "own": {"train": took}, "other": None},
        {"events": 2000, "items": 50, "own": None, "other": None},
    ]
    result = {**MEASURED, "figures": {"points": points}}
    lines = blocks.training_sizes(Stored(train=result)).splitlines()
    rows = [line for line in lines if line.startswith("| ") and "processor" not in line][1:]
    figures = "90 s | 60 s | 800 MiB"
    assert rows == [
        f"| 1,000 events, 50 items | {figures} | {figures} | 700 | 0.3000 |",
        f"| all films | {figures} |  |  |  |  |  |",
    ]


def test_who_watches_a_stream_sees_each_event_once_and_changes_none() -> None:
    seen: list[Choice] = []
    made = make(SMALL, seen.append)
    assert made == make(SMALL)
    assert [f"i{one.item}" for one in seen] == [event["item_id"] for event in made.events]
    odds = [one.odds for one in seen if one.odds is not None]
    assert len(odds) == made.truth["targets"]
    assert np.allclose([one.sum() for one in odds], 1.0)


@pytest.mark.parametrize(
    ("knob", "least", "most"),
    [
        ("trend", 0.97, 1.0),
        ("repetition", 0.9, 1.0),
        ("sequence", 0.2, 0.9),
        ("taste", 0.2, 0.9),
    ],
)
def test_a_learner_that_knows_the_rules_finds_what_events_can_tell(
    knob: str, least: float, most: float
) -> None:
    stream = with_settings(SMALL, [f"{knob}=1"])
    found = learnable.measure(stream)
    assert least * found["best"] < found["learned"] <= most * found["best"] + 1e-9
    error = np.sqrt(found["learned"] * (1.0 - found["learned"]) / found["targets"])
    assert abs(found["learned"] - found["learned_drawn"]) < 4.0 * error


def test_a_learner_leaves_out_the_streams_whose_rules_it_does_not_know() -> None:
    kept = {name: CORNERS[name] for name in learnable.names()}
    assert {"sequence", "taste", "scene", "cold-trend"} <= kept.keys()
    assert not kept.keys() & {
        "news",
        "life-hours",
        "bursts",
        "taste-drift",
        "taste-text-says-nothing",
    }


def test_what_can_be_learned_is_shown_as_a_share_of_the_gap() -> None:
    models = {
        name: {"hit_rate_at_10": rate} for name, rate in (("tracker_served", 0.25), ("trend", 0.2))
    }
    learned = {"learned": 0.31, "learned_drawn": 0.3, "best": 0.41, "best_drawn": 0.4}
    results = Stored(
        streams={"figures": {"corners": {"sequence": {"models": models}}}},
        learnable={"figures": {"streams": {"sequence": learned, "plain": learned}}, **MEASURED},
    )
    page = blocks.learnable(results)
    assert "| sequence | 0.2000 | 0.2500 | 0.3000 | 0.4000 | 50 % | 0.3100 | 0.4100 |" in page
    assert "plain" not in page
