"""The report of an evaluation: everything in one page, and nothing that was not measured."""

import io
import re

import msgspec
from rich.console import Console

from indexer.evaluate.report import against_best, as_html, as_tables
from indexer.evaluate.result import CalibrationBin, Difference, Evaluation, Row


def row(model: str, part: str, value: float | None, n: int = 70) -> Row:
    return Row(
        model=model, slice=part, n=n, hit_rate_at_10=value, hit_rate_at_20=value, ndcg_at_10=value,
        ndcg_at_20=value, mrr=value, recall_at_10=value, debiased_hit_rate_at_10=value,
        coverage=None, novelty=None, diversity=None,
        ci={} if value is None else {"ndcg_at_10": (value - 0.01, value + 0.01)},
    )  # fmt: skip


def evaluation(value: float | None = 0.25) -> Evaluation:
    parts = ("all", "history:1-3", "scene:<b>home</b> $1_$^")
    return Evaluation(
        protocol="gts", artifact="000001-abc", items=40, users=20, targets=7, seconds=1.5,
        events_per_second=99.0, notes=["ties of scores count half"],
        rows=[row(model, part, value) for part in parts for model in ("tracker", "popularity")],
        differences=[Difference("tracker", "popularity", "ndcg_at_10", 0.02, (0.01, 0.03))],
    )  # fmt: skip


def test_the_table_has_a_line_a_model_and_only_metrics_that_were_measured() -> None:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        for table in as_tables(evaluation()):
            console.print(table)
    text = captured.get()
    assert text.splitlines()[0].split() == [
        "model", "HR@10", "NDCG@10", "HR@20", "NDCG@20", "MRR", "debiased", "HR@10",
    ]  # fmt: skip
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["tracker", "popularity"]
    assert "0.2500" in text


def test_the_page_stands_alone_and_says_how_it_was_measured() -> None:
    page = as_html(evaluation())
    assert page.count("<svg") == 3  # all, by history, by scene
    assert "ties of scores count half" in page
    assert "+0.0100 to +0.0300" in page
    assert "0.2400 to" in page
    for reference in ('href="http', "src=", "url(http", "@import"):
        assert reference not in page


def test_names_from_the_data_are_escaped() -> None:
    tables = as_html(evaluation()).split('id="figures"', 1)[1]
    assert "<b>home</b>" not in tables
    assert "&lt;b&gt;home&lt;/b&gt; $1_$^" in tables


def test_the_same_evaluation_gives_the_same_tables() -> None:
    first, second = (as_html(evaluation()).split('id="figures"', 1)[1] for _ in range(2))
    assert first == second


def test_probabilities_have_a_calibration_plot_and_rows_without_rankings_no_bars() -> None:
    said = Row("item_mean", "all", 0, labelled=50, auc=0.6)
    bins = [CalibrationBin(25, 0.2, 0.25), CalibrationBin(25, 0.7, 0.6)]
    plain = evaluation()
    page = as_html(msgspec.structs.replace(plain, rows=[*plain.rows, said], calibration=bins))
    assert page.count("<svg") == 4
    assert "Calibration: 50 labelled events" in page
    assert page.count("item_mean") == 1  # in the table alone
    report = msgspec.structs.replace(plain, rows=[*plain.rows, said])
    ranked, labelled = as_tables(report)
    assert (ranked.row_count, labelled.row_count) == (2, 1)
    assert [column.header for column in labelled.columns] == ["model", "AUC"]


def test_slices_of_few_targets_and_all_but_eight_scenes_are_not_drawn() -> None:
    models, scenes = [f"model{n}" for n in range(10)], [f"scene:s{n}" for n in range(20)]
    names = ["tracker", *models]
    rows = [row(model, part, 0.2) for part in ("all", *scenes) for model in names]
    rows += [row(model, f"history:{part}", 0.2, n) for part, n in (("1-3", 29), ("4-10", 30))
             for model in names]  # fmt: skip
    drawn = as_html(msgspec.structs.replace(evaluation(), rows=rows)).split('id="figures"')[0]
    for name in ("4-10", "s0", "s7", "model0", "model9"):
        assert f"<!-- {name} -->" in drawn, name
    for name in ("1-3", "s8"):
        assert f"<!-- {name} -->" not in drawn, name
    assert drawn.count("<!-- model0 -->") == 3
    assert drawn.count("<!-- model9 -->") == 1  # of all targets; else only the two best others
    widths = [float(found) for found in re.findall(r'<svg [^>]*width="([\d.]+)pt"', drawn)]
    assert len(widths) == 3
    assert max(widths) <= 600.0


def test_of_equal_hit_rates_the_higher_ndcg_is_the_best_simple_one() -> None:
    plain = evaluation()
    better = msgspec.structs.replace(row("last_item", "all", 0.25), ndcg_at_10=0.3)
    found = against_best(msgspec.structs.replace(plain, rows=[*plain.rows, better]))
    assert found.startswith("tracker against last_item, the best of the simple ones: ")


def test_the_page_begins_with_its_contents_and_ends_with_its_terms() -> None:
    page = as_html(evaluation())
    places = re.findall(r'<a href="#(\w+)"', page)
    assert places == re.findall(r'id="(notes|plots|figures|differences|terms)"', page)
    assert page.count("<details open>") == 1
    assert "<dt>debiased HR@10</dt>" in page


def test_an_evaluation_without_targets_still_gives_a_page() -> None:
    page = as_html(evaluation(None))
    assert "<svg" in page
    assert "None" not in page


def test_the_tracker_is_held_against_the_best_of_the_simple_ones() -> None:
    plain = evaluation()
    weak = [row("ease", part, 0.1) for part in dict.fromkeys(r.slice for r in plain.rows)]
    report = msgspec.structs.replace(plain, rows=[*plain.rows, *weak])
    assert against_best(report) == (
        "tracker against popularity, the best of the simple ones: NDCG@10 +0.0200 (+8.0%)"
        " [+0.0100, +0.0300]"
    )
    assert against_best(report) in as_html(report)
    assert against_best(evaluation(None)) == ""
