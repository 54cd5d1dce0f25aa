"""An Evaluation for people: a table for the terminal, and one HTML page with its plots inside."""

from collections.abc import Sequence

from rich.table import Table

from indexer.evaluate.bar import bar_lines
from indexer.evaluate.result import Evaluation, Row

_COLUMNS = (
    ("hit_rate_at_10", "HR@10"), ("ndcg_at_10", "NDCG@10"), ("hit_rate_at_20", "HR@20"),
    ("ndcg_at_20", "NDCG@20"), ("mrr", "MRR"), ("debiased_hit_rate_at_10", "debiased HR@10"),
    ("coverage", "coverage"), ("novelty", "novelty"), ("diversity", "diversity"),
    ("auc", "AUC"), ("user_auc", "user AUC"), ("accuracy", "accuracy"),
    ("precision", "precision"), ("recall", "recall"), ("f1", "F1"), ("log_loss", "log loss"),
    ("ece", "ECE"), ("ece_noise_floor", "ECE floor"),
)  # fmt: skip

_TERMS = (
    ("HR@10", "share of the targets that are among the first ten of the list"),
    ("NDCG@10", "the same, but place r counts 1 / log2(r + 1)"),
    ("MRR", "mean of 1 / place"),
    ("debiased HR@10", "hit rate in which each item weighs the same, however often it is a target"),
    ("coverage", "share of the items that are in the first ten of any list"),
    ("novelty", "mean of -log2 of the share of events that the listed items had: rarer is higher"),
    ("diversity", "mean of 1 - cosine of the texts of two items of a list"),
    ("user AUC", "AUC within each user's own labelled events, averaged"),
    ("ECE", "mean gap between the probability said and the share that came true"),
)

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation of {{ e.artifact }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
small { color: #666 } dt { font-weight: 600 } nav a { margin-right: 1rem }
svg { max-width: 100%; height: auto }
</style></head><body>
<h1>Evaluation of {{ e.artifact }}</h1>
<nav><a href="#notes">How it was measured</a> <a href="#plots">Plots</a>
<a href="#figures">Figures</a>
{% if e.differences %}<a href="#differences">Differences</a>{% endif %}
<a href="#terms">Terms</a></nav>
<p>Protocol {{ e.protocol }}: {{ e.targets }} targets of {{ e.users }} users among {{ e.items }}
items; {{ e.seconds }} s, {{ e.events_per_second }} events/s.</p>
<p>{{ best }}</p>
{% for line in bar %}<p>{{ line }}</p>
{% endfor %}<h2 id="notes">How it was measured</h2>
<ul>{% for note in e.notes %}<li>{{ note }}</li>{% endfor %}</ul>
<h2 id="plots">Plots</h2>
{% for plot in plots %}{{ plot | safe }}{% endfor %}
<h2 id="figures">Figures <small>a part of the targets each; click one to open it</small></h2>
{% for name, rows in parts %}
<details{% if loop.first %} open{% endif %}><summary>{{ name }} <small>{{ rows[0].n }} targets
{%- if rows[0].labelled %}, {{ rows[0].labelled }} labelled events{% endif %}</small></summary>
<table><tr><th>model</th>{% for _, title in columns %}<th>{{ title }}</th>{% endfor %}</tr>
{% for row in rows %}<tr><td>{{ row.model }}</td>
{% for metric, _ in columns %}<td>{{ cell(row, metric) }}
{% if metric in row.ci %}<br><small>{{ "%.4f" | format(row.ci[metric][0]) }} to
{{ "%.4f" | format(row.ci[metric][1]) }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</table></details>{% endfor %}
{% if e.differences %}<h2 id="differences">Differences
<small>target by target, 95 % over users</small></h2>
<table><tr><th>model</th><th>against</th><th>metric</th><th>mean</th><th>interval</th></tr>
{% for d in e.differences %}<tr><td>{{ d.model }}</td><td>{{ d.against }}</td>
<td>{{ d.metric }}</td>
<td>{{ "%+.4f" | format(d.mean) }}</td>
<td>{% if d.ci %}{{ "%+.4f" | format(d.ci[0]) }} to {{ "%+.4f" | format(d.ci[1]) }}{% endif %}</td>
</tr>{% endfor %}</table>{% endif %}
<h2 id="terms">Terms</h2>
<dl>{% for name, text in terms %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
</body></html>
"""


def as_tables(evaluation: Evaluation) -> list[Table]:
    """Return the rows of the whole as tables for the terminal; slices are in the page.

    The first is of rankings; a second, of probabilities, if there are any.
    """
    rows = [row for row in evaluation.rows if row.slice == "all"]
    split = next(n for n, (metric, _) in enumerate(_COLUMNS) if metric == "auc")
    tables = [_table([row for row in rows if row.n or not row.labelled], _COLUMNS[:split])]
    if any(row.labelled for row in rows):
        tables.append(_table([row for row in rows if row.labelled], _COLUMNS[split:]))
    return tables


def _table(rows: Sequence[Row], columns: Sequence[tuple[str, str]]) -> Table:
    visible = [column for column in columns if _defined(rows, column[0])]
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for _, title in visible:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(row.model, *(_cell(row, metric) for metric, _ in visible))
    return table


def against_best(evaluation: Evaluation) -> str:
    """Return a line on the tracker against the best simple recommender; empty if there is none."""
    best = _best(evaluation)
    if best is None or not any(_is_of(row, "tracker") for row in evaluation.rows):
        return ""
    parts = []
    for difference in evaluation.differences:
        if (difference.model, difference.against) == ("tracker", best):
            base = getattr(_row(evaluation, best), difference.metric)
            share = f" ({difference.mean / base:+.1%})" if base else ""
            ci = (
                ""
                if difference.ci is None
                else f" [{difference.ci[0]:+.4f}, {difference.ci[1]:+.4f}]"
            )
            parts.append(f"{dict(_COLUMNS)[difference.metric]} {difference.mean:+.4f}{share}{ci}")
    return f"tracker against {best}, the best of the simple ones: {'; '.join(parts)}"


def _best(evaluation: Evaluation) -> str | None:
    """Return the best model that is no tracker, content too: by hit rate, then by NDCG."""
    simple = {
        row.model: (row.hit_rate_at_10, row.ndcg_at_10 or 0.0)
        for row in evaluation.rows
        if row.slice == "all"
        and row.hit_rate_at_10 is not None
        and not row.model.startswith("tracker")
    }
    return max(simple, key=simple.__getitem__, default=None)


def _is_of(row: Row, model: str) -> bool:
    return (row.model, row.slice) == (model, "all") and row.hit_rate_at_10 is not None


def _row(evaluation: Evaluation, model: str) -> Row:
    return next(row for row in evaluation.rows if (row.model, row.slice) == (model, "all"))


def as_html(evaluation: Evaluation) -> str:
    """Return one page that needs nothing else: tables of every slice, plots as SVG."""
    import jinja2  # of the extra `train`, as matplotlib, which draws

    from indexer.evaluate.plots import draw

    parts: dict[str, list[Row]] = {}
    for row in evaluation.rows:
        parts.setdefault(row.slice, []).append(row)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_PAGE).render(
        e=evaluation,
        best=against_best(evaluation),
        bar=bar_lines(evaluation.served),
        parts=list(parts.items()),
        plots=draw(evaluation, parts, _best(evaluation)),
        terms=_TERMS,
        columns=[column for column in _COLUMNS if _defined(evaluation.rows, column[0])],
        cell=_cell,
    )


def _defined(rows: Sequence[Row], metric: str) -> bool:
    return any(getattr(row, metric) is not None for row in rows)


def _cell(row: Row, metric: str) -> str:
    value = getattr(row, metric)
    return "" if value is None else f"{value:.4f}"
