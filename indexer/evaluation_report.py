"""An Evaluation for people: a table for the terminal, and one HTML page with its plots inside."""

import io
from collections.abc import Sequence

import jinja2
from matplotlib.figure import Figure
from rich.table import Table

from indexer.evaluation import Evaluation, Row

_COLUMNS = (
    ("hit_rate_at_10", "HR@10"), ("ndcg_at_10", "NDCG@10"), ("hit_rate_at_20", "HR@20"),
    ("ndcg_at_20", "NDCG@20"), ("mrr", "MRR"), ("debiased_hit_rate_at_10", "debiased HR@10"),
    ("coverage", "coverage"), ("novelty", "novelty"), ("diversity", "diversity"),
    ("auc", "AUC"), ("user_auc", "user AUC"), ("log_loss", "log loss"), ("ece", "ECE"),
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
<ul>{% for note in e.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% for plot in plots %}{{ plot | safe }}{% endfor %}
{% for name, rows in parts %}
<h2>{{ name }} <small>{{ rows[0].n }} targets</small></h2>
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


def as_table(evaluation: Evaluation) -> Table:
    """Return the rows of the whole as a table for the terminal; slices are in the page."""
    shown = [column for column in _COLUMNS if _defined(evaluation.rows, column[0])]
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    for _, title in shown:
        table.add_column(title, justify="right")
    for row in evaluation.rows:
        if row.slice == "all":
            table.add_row(row.model, *(_cell(row, metric) for metric, _ in shown))
    return table


def as_html(evaluation: Evaluation) -> str:
    """Return one page that needs nothing else: tables of every slice, plots as SVG."""
    parts: dict[str, list[Row]] = {}
    for row in evaluation.rows:
        parts.setdefault(row.slice, []).append(row)
    plots = [
        _bars(parts, [name for name in parts if name.startswith(prefix)], title)
        for prefix, title in (
            ("all", "All targets"),
            ("history:", "By events before the target"),
            ("scene:", "By scene"),
        )
        if any(name.startswith(prefix) for name in parts)
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(
        e=evaluation,
        parts=list(parts.items()),
        plots=plots,
        columns=[column for column in _COLUMNS if _defined(evaluation.rows, column[0])],
        cell=_cell,
    )


def _bars(parts: dict[str, list[Row]], names: Sequence[str], title: str) -> str:
    """Return grouped bars with intervals, one group a slice, one bar a model, as SVG."""
    models = [row.model for row in parts[names[0]]]
    figure = Figure(figsize=(max(6.0, 1.5 * len(names) + 3.0), 3.2), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(models)
    for m, model in enumerate(models):
        rows = [next(row for row in parts[name] if row.model == model) for name in names]
        heights = [getattr(row, _PLOTTED) or 0.0 for row in rows]
        bounds = [row.ci.get(_PLOTTED, (h, h)) for row, h in zip(rows, heights, strict=True)]
        axes.bar(
            [n + (m - (len(models) - 1) / 2) * width for n in range(len(names))],
            heights,
            width,
            label=model,
            yerr=[
                [max(0.0, h - low) for h, (low, _) in zip(heights, bounds, strict=True)],
                [max(0.0, high - h) for h, (_, high) in zip(heights, bounds, strict=True)],
            ],
            error_kw={"linewidth": 0.8},
        )
    labels = [f"{name.split(':')[-1]}\n{parts[name][0].n}" for name in names]
    axes.set_xticks(range(len(names)), labels, parse_math=False)
    axes.set_title(title)
    axes.set_ylabel("NDCG@10")
    axes.legend(fontsize="x-small", ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5))
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()[written.getvalue().index("<svg") :]


def _defined(rows: Sequence[Row], metric: str) -> bool:
    return any(getattr(row, metric) is not None for row in rows)


def _cell(row: Row, metric: str) -> str:
    value = getattr(row, metric)
    return "" if value is None else f"{value:.4f}"
