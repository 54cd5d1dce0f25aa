"""The pages of docs/figures/ are as the stored results say, and have no number of their own."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.all import commands
from benchmarks.blocks import RULES, WALKS, walks
from benchmarks.figures import BLOCKS, PAGES, PLOTS, render, stale
from benchmarks.plots import DARK, OURS, Bar, bars, stamp
from benchmarks.readme_table import readme_table
from benchmarks.results import (
    FOLDER,
    Stored,
    own_command,
    read_results,
    store,
    without_folders,
)

RESULTS = read_results()
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md"))}

NO_FIGURES = re.compile(
    r"<!-- figure: .*?<!-- end -->"  # made from results
    r"|```.*?```|`[^`]*`|\]\([^)]*\)"  # code and links
    r"|(?:HR|NDCG)@10|p50|p95|p99|95 %"  # names of metrics
    r"|\b20\d\d\b|84\.51°|CC0",  # years, a company, a licence
    re.DOTALL,
)


def test_pages_and_plots_are_up_to_date_or_make_pages_was_forgotten() -> None:
    assert [path.name for path in stale(RESULTS)] == []


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_every_number_of_a_page_comes_from_a_result(name: str) -> None:
    assert re.findall(r".*\d.*", NO_FIGURES.sub("", TEXTS[name])) == []


def test_every_block_is_on_a_page() -> None:
    text = "".join(TEXTS.values())
    assert {name for name in BLOCKS if f"<!-- figure: {name} -->" not in text} == set()


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_result_says_how_it_was_measured_and_names_no_folder(name: str) -> None:
    result = RESULTS[name]
    assert result["name"] == name
    assert name in commands(Path("data"), Path("work"))
    assert result["commands"]
    assert re.fullmatch(r"[0-9a-f]{7,12}( dirty)?", result["commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert {"cores", "model", "memory_gib"} <= set(result["machine"])
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert re.findall(r'(?<![\w./<])/(?:home|root|tmp|work|usr|Users)/[^"]*', text) == []


def numbers_of(found: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Yield all numbers of a result with their names."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from numbers_of(value, key)
    elif isinstance(found, list):
        for value in found:
            yield from numbers_of(value, name)
    elif isinstance(found, int | float):
        yield name, found


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_no_time_of_a_result_is_below_zero(name: str) -> None:
    named = [one for one in numbers_of(RESULTS[name]["figures"]) if "seconds" in one[0]]
    assert [one for one in named if one[1] < 0] == []


def test_the_same_draws_of_a_seed_count_once() -> None:
    walked = Stored(faults=RESULTS["faults"])
    count = walks(walked)
    assert count["actions"] == 1411
    assert count["draws"] == 1209
    assert count["walks"] - count["seeds"] == 3


def test_folders_are_cut_off_paths_and_ratios_are_not() -> None:
    assert without_folders("--items b/c/d.gz --out /x/y/z") == "--items b/c/d.gz --out z"
    assert without_folders("events/s at 1/2") == "events/s at 1/2"


def test_a_result_is_stored_with_command_and_rounded_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(results, "commit", lambda: "0123456")
    store(None, {"a": 1})
    assert not (tmp_path / "results").exists()
    store("one", {"share": 1 / 3, "count": 7, "file": "/data/films/items.jsonl.gz", "none": None})
    found = json.loads((tmp_path / "results" / "one.json").read_text())
    assert found["figures"] == {
        "share": 0.3333333, "count": 7, "file": "items.jsonl.gz", "none": None
    }  # fmt: skip
    assert found["commands"] == [without_folders(own_command())]
    assert found["commit"] == "0123456"


def test_what_is_not_measured_is_said_and_breaks_nothing() -> None:
    page = "<!-- figure: faults -->\nold\n<!-- end -->\n"
    assert "Not measured yet: `make figures ONLY=faults`." in render(page, Stored())


def test_other_tables_of_the_readme_are_left_alone() -> None:
    page = "<!-- table: kinds -->\nkept\n<!-- end -->\n"
    assert render(page, Stored()) == page


def test_a_plot_has_dark_colours_and_says_which_data_it_shows() -> None:
    groups = {"films": [Bar("ours", 0.3, 0.2, 0.4, OURS), Bar("theirs", 0.1, 0.1, 0.1)]}
    svg = bars(groups, "NDCG@10").svg()
    assert svg == bars(groups, "NDCG@10").svg()
    assert svg.count("<svg") == 1
    assert f'[style*="fill: {OURS}"]{{fill:{DARK[OURS]}!important}}' in svg
    assert svg.rstrip().splitlines()[-1] == bars(groups, "NDCG@10").stamp()
    other = {"films": [Bar("ours", 0.31, 0.2, 0.4, OURS), Bar("theirs", 0.1, 0.1, 0.1)]}
    assert svg.rstrip().splitlines()[-1] != bars(other, "NDCG@10").stamp()
    assert stamp(1) != stamp(2)


def evaluation() -> dict[str, Any]:
    models = ("tracker", "tracker_served", "decayed_popularity", "item_knn")
    ci = {name: [0.1, 0.3] for name in ("hit_rate_at_10", "ndcg_at_10", "auc", "user_auc")}
    metrics = {name: 0.2 for name in ci} | {"coverage": 0.5, "novelty": 9.0, "diversity": 0.9}
    metrics |= {"log_loss": 0.5, "ece": 0.02, "ece_noise_floor": 0.01, "hit_rate_at_20": 0.3}
    slices = ("all", "cold_items", "history:1-3", "history:31+")
    rows = [
        {"model": model, "slice": one, "n": 1234, "labelled": 99, "ci": ci, **metrics}
        for model in models
        for one in slices
    ]
    rows.append({"model": "item_mean", "slice": "all", "n": 0, "labelled": 99, "ci": ci, **metrics})
    lead = {"model": "tracker", "against": "item_knn", "metric": "ndcg_at_10", "mean": 0.01}
    told = {"targets": 1234, "users": 77, "items": 55, "seconds": 3.0, "events_per_second": 2000.0}
    bins = [{"size": 9, "probability": 0.2, "positives": 0.25}]
    lines = {"rows": rows, "differences": [lead | {"ci": [-0.01, 0.02]}], "calibration": bins}
    fit = {"encoder": {"dim": 64, "dropout": 0.2}, "half_lives": {"seconds": [600.0, 7200.0]}}
    return {
        "training": {"events": 900, "seconds": 60.0, **fit},
        "evaluation": told | lines,
    }


def speed() -> dict[str, Any]:
    """Return small results of the benchmarks of speed."""
    took = {"seconds": 2.0, "processor": 1.0}
    starts = ("imports", "none_compiled", "compiled")
    times = {"seconds": {"compiled": 1.5, "none_compiled": 9.0}, "processor": {"compiled": 1.0}}
    changed = {f"{part}_{q}": 5.0 for part in ("before", "during") for q in ("p50", "p95", "p99")}
    lost = {"users": 9, "rows": 9, "bytes": 9, "recovery": 2.0, "bare": 1.0}
    lost |= {"bare_by_recovery": 0.5, "memory_mib": 9.0}
    row = {"library": "tracker", "items": 9, "made_up": False, "at_least": 0.95, "recall": 0.96}
    row |= {"batch": 9.0, "single": 9.0, "setting": "flat"}
    one = {"workers": 1, "events_per_second": 9.0}
    ran = {"events": 9, "events_per_second": 9.0, "cpu_microseconds": 5.0}
    visit = dict.fromkeys(("first_screen", "first_paint", "first_list", "moved"), 0.5)
    page = {"address_seconds": 9.0, "first_visit": visit, "median": visit, "most": visit}
    step = {"done": "nothing", "seconds": 1.0, "attention": ["Nothing."], "alerts": {"A": "firing"}}
    drawn = {"panels": 2, "with_data": ["a"], "without_data": ["b"], "series": 3}
    case = {"history": 3, "trained": True, "chunk": 16, "searches_per_list": 1.5, "known": 0.9}
    case |= {"with": 9.0, "without": 18.0, "ratio": 0.5}
    return {
        "page": page | {"visits": 5},
        "operator-walk": {"rubbish": 9, "steps": [step], "dashboard": drawn},
        "start": {"runs": {name: [took, took] for name in starts}, "times_the_imports": times},
        "idle": {"runs": [{"rate": 0, "core": 0.02}, {"rate": 100, "core": 0.1}]},
        "swap": {
            "runs": [changed | {"seconds": 3.0, "memory_mib": 9.0, "with_check_mib": 11.0}],
            "items": 9,
            "rate": 5.0,
        },
        "recover": {"runs": [lost]},
        "search": {"rows": [row], "k": 10},
        "search-lists": {"rows": [row], "k": 40},
        "search-memory": {"items": 9, "users": 9, "cases": [case]},
        "encode": {"runs": {"tracker": [9.0]}, "least_cosine": 0.999},
        "step": {"microseconds": {"1": 9.0}},
        "trained": {"items": 9, "users": 9, "runs": {"trained": [ran], "untrained": [ran]}},
        "scale": {"runs": [one], "simulation": [one], "pause_ms": [9.0]},
        "pauses": {
            "plan": {
                "workers": 3,
                "partitions": 8,
                "standbys": 1,
                "rate": 200.0,
                "session_timeout": 6.0,
            },
            "actions": {
                "kill": [
                    {
                        "moved": [7000.0],
                        "stayed": [500.0, 400.0],
                        "phases": [{"release": 0.1, "join": 0.2}],
                    }
                ],
                "join": [{"moved": [600.0], "stayed": [], "phases": []}],
            },
            "events": 100,
            "without_list": 0,
            "usual_ms": 9.0,
        },
        "pauses-wiped": {
            "plan": {
                "workers": 3,
                "partitions": 8,
                "rate": 200.0,
                "session_timeout": 6.0,
                "users": 9,
                "events_before": 45,
            },
            "actions": {
                name: [{"moved": [7000.0], "stayed": [9.0], "phases": [], "recovery": 0.5}]
                for name in ("wipe", "wipe_alone")
            },
            "events": 100,
            "without_list": 0,
        },
    }


def made_up() -> Stored:
    """Return a small result of every name, to run every block on."""
    run = {"events_per_second": 1000.0, "cpu_microseconds": 70.0, "outputs": 5, "events": 10}
    systems = {
        name: [run, run] for name in ("tracker", "Bytewax", "Quix Streams", "textbook Faust")
    }
    swapped = {"after_swap": 0.2, "after_replay": 0.2, "difference": [0.0, -0.1, 0.1]}
    carried = {"targets": 9, "hit_rate_at_10": swapped, "ndcg_at_10": swapped}
    value = [0.2, 0.1, 0.3]
    parts = ("idle", "busy", "alone", "both")
    users = {"hit_rate_at_10": value, "ndcg_at_10": value, "tracker_minus_it_ndcg_at_10": value}
    numbers = dict.fromkeys(
        ("faults", "wrong_users", "wrong_items", "without_list", "hung", "died_by_themselves"), 0
    )
    plan = {"trained": True, "workers": 2, "events": 9, "kills": 1, "terms": 1, "freezes": 1}
    faults = {"plan": plan, "outcome": {"numbers": numbers, "users": 8, "items": 7}}
    counts = ("lost", "events", "rejected", "users", "items", "lists", "repeated")
    wrong = ("wrong_users", "wrong_items", "wrong_lists", "without_list", "wrong_rejections")
    pause = {"times": 3, "longest": 9.0, "clean": 1, "clean_median": 7.0, "clean_longest": 7.0}
    none = {"times": 1, "longest": 9.0, "clean": 0, "clean_median": None, "clean_longest": None}
    after = {"after_times": 3, "after_median": 1.0, "after_longest": 2.0}
    walk = {
        "seeds": [1, 2], "kafka": "4.1.0", "transaction_version": 2, "brokers": 1, "workers": 2,
        "session_timeout": 6.0, "faults": 9, "numbers": dict.fromkeys((*counts, *wrong), 0)
        | {"wrong_ends": 0}, "actions": {"kill": pause | after, "storm": none},
        "commits": {"0123456": [1], "6543210": [2]},
    }  # fmt: skip
    sizes = {"rows": 9, "mean": 8.0, "p50": 7.0, "p99": 6.0, "max": 5}
    most = {"state": 4000, "state_with_encoder": 4200, "seen": 4100}
    stored = {"most": most, "state": sizes, "seen": {"rows": 0}}
    stages = dict.fromkeys(("recommend", "search", "score", "encode"), 12.0)
    setups = ("blend", "network", "network and encoder", "network, encoder and attention")
    times = {"items": 20000, "microseconds": dict.fromkeys(setups, stages)}
    demo: dict[str, Any] = {
        "events": 9,
        "items": 8,
        "events_per_second": 7.0,
        "lost": 0,
        "paced_rate": 200.0,
    }
    demo |= {"users_without_recommendation": 0, "latency_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0}}
    bounded = {"lists": [{"strongest": 20, "overlap": 0.9, "strength": 0.99}]}
    rules = {rule: {"own_category": 0.8, "hit_rate_at_10": 0.1} for rule in RULES}
    full = {"name": "full model", "hit_rate_at_10": 0.2, "ndcg_at_10": 0.1}
    less = full | {"name": "no trend", "against": "full model", "difference": [-0.1, -0.2, -0.05]}
    models = {key: {"hit_rate_at_10": 0.2} for key in ("tracker", "tracker_served", "popularity")}
    best = {"hit_rate_at_10": 0.3, "hit_rate_at_10_drawn": 0.31}
    stream = {"models": models, "best": best}
    learned = {"learned": 0.2, "learned_drawn": 0.21, "best": 0.3, "best_drawn": 0.31}
    scores = {"hit_rate_at_10": 0.2, "ndcg_at_10": 0.1, "auc": 0.7}
    private = {
        "privacy": {"spent": 0.99, "noise_multiplier": 3.0},
        "models": dict.fromkeys(("tracker", "tracker_served", "decayed_popularity"), scores),
    }
    costs = {"plain": 2.0, "keyed": 3.0}
    attack = {
        "attack": "nobody",
        "share": 0.0,
        "sent": 0,
        "counted": 0,
        "place": 9,
        "in_lists": 0.0,
        "by_neighbours": 0.0,
    }
    flood = {"users": 1, "user_bytes": 9}
    flood |= dict.fromkeys(("users_changelog", "items_topic", "items_changelog"), 3)
    served = {"events_per_second": 9000.0, "p50": 9.0, "p99": 20.0}
    asked = served | {"flood": {"answers": {"200": 900.0, "429": 60.0}, "share": 0.5}}
    hour: dict[str, Any] = {
        "minutes": 30.0,
        "rate": 300.0,
        "users": 9,
        "items": 8,
        "events": 7,
        "sent": 7,
        "without_list": 0,
        "leave": 600.0,
        "back": 1200.0,
        "first_list_seconds": 2.0,
        "caught_up_seconds": 9.0,
        "step_seconds": 10.0,
        "ends": [{"seconds": 720.0, "code": 1, "line": "no broker"}],
        "samples": [{"seconds": 5.0, "memory_mib": 9.0, "files": 9.0, "waiting_bytes": 2e3}],
        "latency_ms": [{"seconds": 0.0, "p50": 1.0, "p99": 3.0}],
    }
    http_lists: dict[str, Any] = {
        "items": 9,
        "users": 9,
        "events": 2000.0,
        "requests": 200.0,
        "seconds": 5.0,
        "rounds": [{part: {"p50": 1.0, "p95": 2.0, "p99": 3.0} for part in parts}],
    }
    away_only = ("leave", "back", "first_list_seconds", "caught_up_seconds")
    took = {"train": {"processor": 9.0, "clock": 9.0, "memory_mib": 800.0}}
    figures: dict[str, Any] = {
        **dict.fromkeys(("films", "films-loo", "films-all", "groceries"), evaluation()),
        **dict.fromkeys(WALKS, walk),
        "outage": hour,
        "soak": {name: hour[name] for name in hour if name not in away_only}
        | {"ends": [], "full_rate": 600.0, "rejected": 0},
        **speed(),
        "faults-trained": faults,
        **dict.fromkeys(("bytes-films", "bytes-groceries"), stored),
        **dict.fromkeys(("recommend", "recommend-large"), times),
        **dict.fromkeys(("demo", "demo-films", "demo-films-kafka"), demo),
        **dict.fromkeys(("neighbours-films", "neighbours-groceries"), bounded),
        "whitening": {"catalogues": {"shop": [{"items": 300, "targets": 900, "rules": rules}]}},
        "ablation": {"targets": 9, "variants": [full, less]},
        "stream-parts": {
            "streams": {"plain": {"variants": [full, less]}, "taste": {"variants": [full]}}
        },
        "streams": {"corners": {"plain": stream}},
        "learnable": {"streams": {"plain": learned}},
        "train": {"points": [{"events": 9, "items": 8, "own": took, "other": None}]},
        "carry-over": {
            "with_a_refit": {"users": 9, "rebuilt": 9, "seconds": 1.0},
            "without_a_refit": {"users": 9, "rebuilt": 0, "seconds": 0.0, "lists_changed": 3},
            "right_after": carried,
            "all": carried,
        },
        "finetune": {
            "validation": {
                when: {
                    f"{which}{metric}": 0.05
                    for which in ("", "cold_")
                    for metric in ("hit_rate_at_10", "ndcg_at_10", "targets")
                }
                for when in ("before", "after")
            }
        },
        "privacy": {"without": private | {"privacy": None}, "1": private},
        "trend-attack": {"with": [attack], "without": [attack]},
        "neighbour-attack": {"with": [attack], "without": [attack]},
        "user-flood": {"rate": 1000, "runs": [flood | {"stream": "1 user"}]},
        "http-flood": {
            "connections": 64,
            "events": 2000.0,
            "rounds": [{"alone": served, "both": asked}],
        },
        "erasure": {"topics": [{"name": "forget", "files": 9, "bytes": 8, "before": 1}]},
        "fuzz": {
            "minutes": 1.0,
            "processor_minutes": 1.0,
            "indices_checked": False,
            "targets": [
                {"name": "a", "does": "Read a.", "inputs": 9, "most_bytes": 8, "failed": False}
            ],
        },
        "user-keys": {
            "size": 9,
            "users": 8,
            "row_bytes": 7.5,
            "event": costs,
            "event_times": 1.5,
            "row_written": costs,
            "row_read": costs,
            "key_read": 1.0,
        },
        "promises": {"one": {"promise": "it is so", "failed": ["a/b.py::test_c[1]"]}},
        "interests": {
            "user": "7",
            "moments": [
                {"time": 1e9, "interests": {"a": 1.0}},
                {"time": 2e9, "interests": {"a": 0.4, "b": 0.6}},
            ],
        },
        "late-events": {
            "microseconds": [
                {"events": 15, "fit": True, "with": "encoder", "in_order": 1.0, "late": 2.0},
                {"events": 40, "fit": False, "with": "no encoder", "in_order": 1.0, "late": 2.0},
            ]
        },
        **dict.fromkeys(("http-api", "http-api-slower"), http_lists),
        "latency": {
            "latency_ms": {"tracker": [{"rate": 200.0, "p50": 1.0, "p95": 2.0, "p99": 3.0}]}
        },
        "new-users": {
            "users": {"held_out": 2, "with_attributes": 9},
            "parts": [
                {
                    "targets": 9,
                    "models": [
                        {"model": n, **users} for n in ("tracker", "tracker_served", "popularity")
                    ],
                }
            ],
        },
        "scene-change": {"scenes": ["home", "cart"], "items": [["a", "b"]]},
        "pipeline": {"uniform": systems, "zipf": systems, "items": 9, "users": 8},
    }
    about: dict[str, Any] = {"commands": ["python -m x"], "commit": "0123456", "date": "2026-01-02"}
    about |= {"machine": {"cores": 2, "model": "a processor", "memory_gib": 8, "load_average": 1.5}}
    return Stored({name: {"name": name, "figures": one, **about} for name, one in figures.items()})


def test_there_is_a_made_up_result_for_every_figure() -> None:
    assert set(made_up()) == set(commands(Path("data"), Path("work")))


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_a_block_is_made_of_results(name: str) -> None:
    text = BLOCKS[name](made_up())
    assert text.strip() == text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")


@pytest.mark.parametrize("name", sorted(PLOTS))
def test_a_plot_is_drawn_of_results(name: str) -> None:
    plot = PLOTS[name][1](made_up())
    assert plot.svg().endswith(f"{plot.stamp()}\n")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_table_of_a_readme_has_at_most_ten_rows_and_links_to_pages(language: str) -> None:
    lines = readme_table(made_up(), language).splitlines()[2:]
    assert 5 <= len(lines) <= 10
    for line in lines:
        (page,) = re.findall(r"\(docs/figures/([\w.-]+)", line)
        assert page in TEXTS
