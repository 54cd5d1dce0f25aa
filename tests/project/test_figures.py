"""The pages of docs/figures/ are as the stored results say, and have no number of their own."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.all import commands
from benchmarks.figures import (
    BLOCKS,
    PAGES,
    Stored,
    read_results,
    readme_table,
    render,
    stale,
)
from benchmarks.plots import DARK, OURS, Bar, bars, stamp
from benchmarks.results import FOLDER, own_command, store, without_folders

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
    svg = bars(groups, "NDCG@10")
    assert svg == bars(groups, "NDCG@10")
    assert svg.count("<svg") == 1
    assert f'[style*="fill: {OURS}"]{{fill:{DARK[OURS]}!important}}' in svg
    assert svg.rstrip().endswith("-->")
    other = {"films": [Bar("ours", 0.31, 0.2, 0.4, OURS), Bar("theirs", 0.1, 0.1, 0.1)]}
    assert svg.rstrip().splitlines()[-1] != bars(other, "NDCG@10").rstrip().splitlines()[-1]
    assert stamp(1) != stamp(2)


def test_the_readme_table_has_at_most_ten_rows() -> None:
    if {"throughput", "latency", "faults", "groceries", "new-users"} <= set(RESULTS):
        assert 5 <= len(readme_table(RESULTS).splitlines()) - 2 <= 10
