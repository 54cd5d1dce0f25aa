"""The plots of an evaluation, as SVG: few models, few bars, only slices with enough targets."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from indexer.evaluate.result import CalibrationBin, Evaluation, Row

MAX_SCENES, MIN_TARGETS = 8, 30
"""Scenes that are drawn, the most frequent; and the fewest targets of a slice that is drawn."""

_OF_TRACKER = ("tracker", "tracker_served")

_COLOURS = ("#1f5fbf", "#7aa6e0", "#b04a3a", "#e0903a")


def draw(evaluation: Evaluation, parts: dict[str, list[Row]], best: str | None) -> list[str]:
    """Return all plots, each an SVG element.

    All models are compared on all targets; by history and by scene only the tracker, its list as
    served, and the two best others.

    Args:
        evaluation: the result.
        parts: its rows by slice.
        best: the best of the simple models.
    """
    plots = [_models(parts["all"])] if "all" in parts else []
    few = _few(parts.get("all", []), best)
    enough = {
        name: rows
        for name, rows in parts.items()
        if rows[0].n >= MIN_TARGETS and {row.model for row in rows}.issuperset(few)
    }
    by_history = {n: rows for n, rows in enough.items() if n.startswith("history:")}
    if by_history:
        plots.append(_histories(by_history, few))
    by_scene = {n: rows for n, rows in enough.items() if n.startswith("scene:")}
    if by_scene:
        plots.append(_scenes(dict(list(by_scene.items())[:MAX_SCENES]), few))
    if evaluation.calibration:
        plots.append(_calibration(evaluation.calibration))
    return plots


def _few(rows: Sequence[Row], best: str | None) -> list[str]:
    ranked = sorted(rows, key=lambda row: row.ndcg_at_10 or 0.0, reverse=True)
    others = [row.model for row in ranked if not row.model.startswith("tracker") and _ranks(row)]
    there = {row.model for row in rows}
    simple = dict.fromkeys([*([best] if best else []), *others])
    return [*(model for model in _OF_TRACKER if model in there), *list(simple)[:2]]


def _models(rows: Sequence[Row]) -> str:
    """Return a bar with its interval for each model, best first."""
    ranking = sorted((row for row in rows if _ranks(row)), key=lambda row: row.ndcg_at_10 or 0.0)
    figure = Figure(figsize=(8.0, 1.2 + 0.3 * max(len(ranking), 1)), layout="constrained")
    axes = figure.add_subplot()
    colours = [_COLOURS[0] if row.model.startswith("tracker") else "#8a8a8a" for row in ranking]
    heights, errors = _points(ranking)
    axes.barh(
        range(len(ranking)), heights, 0.7, xerr=errors, color=colours, error_kw={"linewidth": 0.8}
    )
    axes.set_yticks(range(len(ranking)), [row.model for row in ranking], parse_math=False)
    axes.set_title(f"All {rows[0].n} targets")
    axes.set_xlim(left=0.0)
    axes.set_xlabel("NDCG@10, with the 95 % interval")
    return _svg(figure)


def _scenes(parts: dict[str, list[Row]], models: Sequence[str]) -> str:
    """Return horizontal bars, a group for each scene."""
    figure = Figure(figsize=(8.0, 1.2 + 0.75 * len(parts)), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / max(len(models), 1)
    for m, model in enumerate(models):
        heights, errors = _points(_rows(parts, model))
        places = [n + (m - (len(models) - 1) / 2) * width for n in range(len(parts))]
        axes.barh(
            places, heights, width, label=model, xerr=errors, color=_COLOURS[m],
            error_kw={"linewidth": 0.8},
        )  # fmt: skip
    labels = [f"{name.removeprefix('scene:')}\n{rows[0].n} targets" for name, rows in parts.items()]
    axes.set_yticks(range(len(parts)), labels, parse_math=False)
    axes.invert_yaxis()
    axes.set_title("By scene, the most frequent")
    axes.set_xlim(left=0.0)
    axes.set_xlabel("NDCG@10, with the 95 % interval")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return _svg(figure)


def _histories(parts: dict[str, list[Row]], models: Sequence[str]) -> str:
    """Return a curve with intervals over the lengths of the history for each model."""
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for m, model in enumerate(models):
        heights, errors = _points(_rows(parts, model))
        places = [n + 0.04 * (m - (len(models) - 1) / 2) for n in range(len(parts))]
        axes.errorbar(
            places, heights, yerr=errors, label=model, marker="o", markersize=4,
            linewidth=1.4, elinewidth=0.8, capsize=2, color=_COLOURS[m],
        )  # fmt: skip
    labels = [f"{name.split(':')[-1]}\n{rows[0].n} targets" for name, rows in parts.items()]
    axes.set_xticks(range(len(parts)), labels, parse_math=False)
    axes.set_xlim(-0.4, len(parts) - 0.6)
    axes.set_ylim(bottom=0.0)
    axes.set_title("By events before the target")
    axes.set_ylabel("NDCG@10")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return _svg(figure)


def _calibration(bins: Sequence[CalibrationBin]) -> str:
    """Return the share of positives against the probability; on the diagonal it is calibrated."""
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0.0, 1.0], [0.0, 1.0], color="#999", linewidth=0.8, label="calibrated")
    axes.plot(
        [part.probability for part in bins], [part.positives for part in bins],
        marker="o", label="tracker",
    )  # fmt: skip
    axes.set_title(f"Calibration: {sum(part.size for part in bins)} labelled events")
    axes.set_xlabel("mean probability of a tenth of the events")
    axes.set_ylabel("share of positive events")
    axes.legend(fontsize="x-small")
    return _svg(figure)


def _ranks(row: Row) -> bool:
    """Return whether a row has a ranking; others only have probabilities."""
    return bool(row.n or not row.labelled)


def _rows(parts: dict[str, list[Row]], model: str) -> list[Row]:
    return [next(row for row in rows if row.model == model) for rows in parts.values()]


def _points(rows: Sequence[Row]) -> tuple[list[float], list[list[float]]]:
    """Return the rows' values, and the lengths of the intervals below and above them."""
    heights = [row.ndcg_at_10 or 0.0 for row in rows]
    bounds = [row.ci.get("ndcg_at_10", (h, h)) for row, h in zip(rows, heights, strict=True)]
    below = [max(0.0, h - low) for h, (low, _) in zip(heights, bounds, strict=True)]
    above = [max(0.0, high - h) for h, (_, high) in zip(heights, bounds, strict=True)]
    return heights, [below, above]


def _svg(figure: Figure) -> str:
    written: Any = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None})
    return str(written.getvalue()[written.getvalue().index("<svg") :])
