"""An Evaluation for people: a table for the terminal, and one HTML page with its plots inside."""

import io
from collections.abc import Sequence
from typing import Any

import jinja2
from matplotlib.figure import Figure
from rich.table import Table

from indexer.evaluation import CalibrationBin, Evaluation, Row

_COLUMNS = (
    ("hit_rate_at_10", "HR@10"), ("ndcg_at_10", "NDCG@10"), ("hit_rate_at_20", "HR@20"),
    ("ndcg_at_20", "NDCG@20"), ("mrr", "MRR"), ("debiased_hit_rate_at_10", "debiased HR@10"),
    ("coverage", "coverage"), ("novelty", "novelty"), ("diversity", "diversity"),
    ("auc", "AUC"), ("user_auc", "user AUC"), ("accuracy", "accuracy"),
    ("precision", "precision"), ("recall", "recall"), ("f1", "F1"), ("log_loss", "log loss"),
    ("ece", "ECE"), ("ece_noise_floor", "ECE floor"),
)  # fmt: skip

_PLOTTED = "ndcg_at_10"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation of {{ e.artifact }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
small { color: #666 } svg { max-width: 100%; height: auto }
</style></head><body>
<h1>Evaluation of {{ e.artifact }}</h1>
<p>Protocol {{ e.protocol }}: {{ e.targets }} targets of {{ e.users }} users among {{ e.items }}
items; {{ e.seconds }} s, {{ e.events_per_second }} events/s.</p>
<p>{{ best }}</p>
<ul>{% for note in e.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% for plot in plots %}{{ plot | safe }}{% endfor %}
{% for name, rows in parts %}
<h2>{{ name }} <small>{{ rows[0].n }} targets
{% if rows[0].labelled %}, {{ rows[0].labelled }} labelled events{% endif %}</small></h2>
<table><tr><th>model</th>{% for _, title in columns %}<th>{{ title }}</th>{% endfor %}</tr>
{% for row in rows %}<tr><td>{{ row.model }}</td>
{% for metric, _ in columns %}<td>{{ cell(row, metric) }}
{% if metric in row.ci %}<br><small>{{ "%.4f" | format(row.ci[metric][0]) }} to
{{ "%.4f" | format(row.ci[metric][1]) }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</table>{% endfor %}
{% if e.differences %}<h2>Differences <small>target by target, 95 % over users</small></h2>
<table><tr><th>model</th><th>against</th><th>metric</th><th>mean</th><th>interval</th></tr>
{% for d in e.differences %}<tr><td>{{ d.model }}</td><td>{{ d.against }}</td>
<td>{{ d.metric }}</td>
<td>{{ "%+.4f" | format(d.mean) }}</td>
<td>{% if d.ci %}{{ "%+.4f" | format(d.ci[0]) }} to {{ "%+.4f" | format(d.ci[1]) }}{% endif %}</td>
</tr>{% endfor %}</table>{% endif %}
</body></html>
"""


def as_tables(evaluation: Evaluation) -> list[Table]:
    """Return the rows of the whole as tables for the terminal; slices are in the page.

    The first is of rankings; a second, of probabilities, where any were asked for.
    """
    rows = [row for row in evaluation.rows if row.slice == "all"]
    split = next(n for n, (metric, _) in enumerate(_COLUMNS) if metric == "auc")
    tables = [_table([row for row in rows if row.n or not row.labelled], _COLUMNS[:split])]
    if any(row.labelled for row in rows):
        tables.append(_table([row for row in rows if row.labelled], _COLUMNS[split:]))
    return tables


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str]]) -> Table:
    shown = [column for column in columns if _defined(rows, column[0])]
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for _, title in shown:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(row.model, *(_cell(row, metric) for metric, _ in shown))
    return table


def against_best(evaluation: Evaluation) -> str:
    """Say how far the tracker is from the best simple recommender; empty where none was asked."""
    hits = {
        row.model: row.hit_rate_at_10
        for row in evaluation.rows
        if row.slice == "all" and row.hit_rate_at_10 is not None
    }
    simple = {name: hit for name, hit in hits.items() if not name.startswith("tracker")}
    if not simple or "tracker" not in hits:
        return ""
    best = max(simple, key=simple.__getitem__)
    parts = []
    for found in evaluation.differences:
        if (found.model, found.against) == ("tracker", best):
            base = getattr(_row(evaluation, best), found.metric)
            share = f" ({found.mean / base:+.1%})" if base else ""
            ci = "" if found.ci is None else f" [{found.ci[0]:+.4f}, {found.ci[1]:+.4f}]"
            parts.append(f"{dict(_COLUMNS)[found.metric]} {found.mean:+.4f}{share}{ci}")
    return f"tracker against {best}, the best of the simple ones: {'; '.join(parts)}"


def _row(evaluation: Evaluation, model: str) -> Row:
    return next(row for row in evaluation.rows if (row.model, row.slice) == (model, "all"))


def as_html(evaluation: Evaluation) -> str:
    """Return one page that needs nothing else: tables of every slice, plots as SVG."""
    parts: dict[str, list[Row]] = {}
    for row in evaluation.rows:
        parts.setdefault(row.slice, []).append(row)
    plots = [
        draw(parts, [name for name in parts if name.startswith(prefix)], title)
        for prefix, title, draw in (
            ("all", "All targets", _bars),
            ("history:", "By events before the target", _curves),
            ("scene:", "By scene", _bars),
        )
        if any(name.startswith(prefix) for name in parts)
    ]
    if evaluation.calibration:
        plots.append(_calibration(evaluation.calibration))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(
        e=evaluation,
        best=against_best(evaluation),
        parts=list(parts.items()),
        plots=plots,
        columns=[column for column in _COLUMNS if _defined(evaluation.rows, column[0])],
        cell=_cell,
    )


def _bars(parts: dict[str, list[Row]], names: Sequence[str], title: str) -> str:
    """Return grouped bars with intervals, one group a slice, one bar a model, as SVG."""
    figure, axes = _axes(parts, names, title)
    models = _ranked(parts, names)
    width = 0.8 / max(len(models), 1)
    for m, model in enumerate(models):
        heights, errors = _points(parts, names, model)
        places = [n + (m - (len(models) - 1) / 2) * width for n in range(len(names))]
        axes.bar(
            places, heights, width, label=model, yerr=errors, color=_COLOURS[m % len(_COLOURS)],
            error_kw={"linewidth": 0.8},
        )  # fmt: skip
    return _svg(figure, axes)


def _curves(parts: dict[str, list[Row]], names: Sequence[str], title: str) -> str:
    """Return a curve with intervals over the slices for each model, as SVG."""
    figure, axes = _axes(parts, names, title)
    for m, model in enumerate(_ranked(parts, names)):
        heights, errors = _points(parts, names, model)
        axes.errorbar(
            range(len(names)), heights, yerr=errors, label=model, marker="o", markersize=3,
            linewidth=1.2, elinewidth=0.6, capsize=2, color=_COLOURS[m % len(_COLOURS)],
        )  # fmt: skip
    axes.set_ylim(bottom=0.0)
    return _svg(figure, axes)


def _calibration(bins: Sequence[CalibrationBin]) -> str:
    """Return what came of events of like probability, against it; on the diagonal is right."""
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0.0, 1.0], [0.0, 1.0], color="#999", linewidth=0.8, label="calibrated")
    axes.plot(
        [found.probability for found in bins], [found.positives for found in bins],
        marker="o", label="tracker",
    )  # fmt: skip
    axes.set_title(f"Calibration: {sum(found.size for found in bins)} labelled events")
    axes.set_xlabel("mean probability of a tenth of the events")
    axes.set_ylabel("share of positive events")
    axes.legend(fontsize="x-small")
    return _written(figure)


_COLOURS = (
    "#1f5fbf", "#7aa6e0", "#b04a3a", "#e0903a", "#3f8f5f", "#8fbf6f", "#7a5aa6", "#b08fd0",
    "#8a8a8a", "#4a4a4a", "#c0a030", "#50a0a0",
)  # fmt: skip


def _axes(parts: dict[str, list[Row]], names: Sequence[str], title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(max(6.0, 1.5 * len(names) + 3.0), 3.2), layout="constrained")
    axes = figure.add_subplot()
    labels = [f"{name.split(':')[-1]}\n{parts[name][0].n}" for name in names]
    axes.set_xticks(range(len(names)), labels, parse_math=False)
    axes.set_title(title)
    axes.set_ylabel("NDCG@10")
    return figure, axes


def _ranked(parts: dict[str, list[Row]], names: Sequence[str]) -> list[str]:
    """Return the models that were asked to rank; others only give probabilities."""
    return [row.model for row in parts[names[0]] if row.n or not row.labelled]


def _points(
    parts: dict[str, list[Row]], names: Sequence[str], model: str
) -> tuple[list[float], list[list[float]]]:
    """Return a model's values on slices, and how far below and above them the intervals reach."""
    rows = [next(row for row in parts[name] if row.model == model) for name in names]
    heights = [getattr(row, _PLOTTED) or 0.0 for row in rows]
    bounds = [row.ci.get(_PLOTTED, (h, h)) for row, h in zip(rows, heights, strict=True)]
    below = [max(0.0, h - low) for h, (low, _) in zip(heights, bounds, strict=True)]
    above = [max(0.0, high - h) for h, (_, high) in zip(heights, bounds, strict=True)]
    return heights, [below, above]


def _svg(figure: Figure, axes: Any) -> str:
    axes.legend(fontsize="x-small", ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _written(figure)


def _written(figure: Figure) -> str:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()[written.getvalue().index("<svg") :]


def _defined(rows: Sequence[Row], metric: str) -> bool:
    return any(getattr(row, metric) is not None for row in rows)


def _cell(row: Row, metric: str) -> str:
    value = getattr(row, metric)
    return "" if value is None else f"{value:.4f}"
