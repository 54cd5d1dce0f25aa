"""The plots of docs/figures/, as SVG that can be read on a light page and on a dark one.

Matplotlib draws in the light colours. A style sheet inside the file replaces them if the reader's
system is dark. Each plot has its own background, so it can be read even if the page is otherwise.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PAPER, GRID = "#1f2328", "#fffffe", "#d0d7de"
OURS, SERVED, OTHERS, WORSE = "#1f6feb", "#79a8e8", "#8c959f", "#c2410c"

SHARES = ("#1f6feb", "#2da44e", "#bf8700", "#8250df", "#c2410c", "#0e7c86")
"""Colours of stacked shares, which are the same on a light and a dark page."""

DARK = {
    INK: "#e6edf3", PAPER: "#161b22", GRID: "#3d444d",
    OURS: "#58a6ff", SERVED: "#3d6fb5", OTHERS: "#768390", WORSE: "#f0883e",
}  # fmt: skip
"""The colour of each light one on a dark page."""

_SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "figures", "font.family": "sans-serif",
    "font.size": 10.0, "text.color": INK, "axes.edgecolor": GRID, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
    "legend.frameon": False, "axes.spines.top": False, "axes.spines.right": False,
    "legend.labelcolor": INK,
}  # fmt: skip


DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its interval: value, low and high."""

    name: str
    value: float
    low: float
    high: float
    colour: str = OTHERS


def digest(data: Any) -> str:
    """Return what tells whether a plot is of these data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def stamp(data: Any) -> str:
    """Return the comment at the end of a plot of these data."""
    return f"<!-- data {digest(data)} -->"


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot that is drawn when it is wanted: whether it is up to date, its data tell.

    Attributes:
        draw: draws it on a figure.
        size: width and height, in inches.
        data: all that it shows.
    """

    draw: Callable[["Figure"], None]
    size: tuple[float, float]
    data: Any

    def stamp(self) -> str:
        """Return the comment at the end of the picture, which names the data."""
        return stamp(self.data)

    def svg(self) -> str:
        """Return the picture."""
        import matplotlib as mpl  # a second, which only who draws pays
        from matplotlib.figure import Figure

        with mpl.rc_context(_SETTINGS):
            figure = Figure(figsize=self.size, layout="constrained")
            self.draw(figure)
            written = io.StringIO()
            figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
        text = written.getvalue()
        text = text[text.index("<svg") :]
        sheet = "".join(
            f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
            for light, dark in DARK.items()
            for part in ("fill", "stroke")
        )
        style = f"<style>@media (prefers-color-scheme: dark){{{sheet}}}</style>"
        begin = text.index(">") + 1
        text = f"{text[:begin]}\n{style}{text[begin:]}".rstrip()
        return "\n".join(line.rstrip() for line in text.splitlines()) + f"\n{self.stamp()}\n"


def bars(
    groups: Mapping[str, Sequence[Bar]], label: str, zero: bool = True, form: str = "{:.3f}"
) -> Plot:
    """Return horizontal bars with intervals, one part for each group.

    Args:
        groups: bars by the title of their part, drawn from the top.
        label: of the horizontal axis.
        zero: bars begin at zero; else only the points and intervals are drawn, with a line at zero.
        form: of the number beside a bar.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(1, len(groups), sharey=False, squeeze=False)[0]
        for one, (title, found) in zip(axes, groups.items(), strict=True):
            _bars(one, list(found), zero, form)
            one.set_title(title, color=INK, fontsize=10.0)
        figure.supxlabel(label, fontsize=10.0)

    longest = max(len(found) for found in groups.values())
    data = {name: [vars_of(one) for one in found] for name, found in groups.items()}
    return Plot(draw, (4.4 * len(groups) if len(groups) > 1 else 7.2, 0.9 + 0.32 * longest), data)


def curves(points: Mapping[str, Sequence[tuple[float, float]]], labels: tuple[str, str]) -> Plot:
    """Return lines through points in the unit square, and its diagonal.

    Args:
        points: (x, y) of each line, by its name; at most three.
        labels: of both axes.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        axes.plot([0.0, 1.0], [0.0, 1.0], color=GRID, linewidth=1.0)
        for (name, found), colour in zip(points.items(), (OURS, WORSE, OTHERS), strict=False):
            xs, ys = zip(*found, strict=True)
            axes.plot(xs, ys, marker="o", markersize=4, color=colour, label=name)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.legend(loc="upper left")

    return Plot(draw, (4.8, 4.2), {name: list(found) for name, found in points.items()})


def lines(
    places: Sequence[str], points: Mapping[str, Sequence[Bar]], labels: tuple[str, str]
) -> Plot:
    """Return a line with intervals over named places for each model.

    Args:
        places: names along the horizontal axis.
        points: a value with its interval for each place, by the name of the line.
        labels: of both axes.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for shift, (name, found) in enumerate(points.items()):
            at = [n + 0.05 * (shift - (len(points) - 1) / 2) for n in range(len(places))]
            values, errors = _errors(found)
            axes.errorbar(
                at, values, yerr=errors, label=name, marker="o", markersize=4, capsize=2,
                linewidth=1.4, elinewidth=0.8, color=found[0].colour,
            )  # fmt: skip
        axes.set_xticks(range(len(places)), list(places))
        axes.set_ylim(bottom=0.0)
        axes.grid(axis="y", color=GRID, linewidth=0.6)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    data = {name: [vars_of(one) for one in found] for name, found in points.items()}
    return Plot(draw, (7.2, 3.4), {"places": list(places), **data})


@dataclass(frozen=True, slots=True)
class Panel:
    """One curve over time: its title, and minutes and values; None where nothing is known."""

    title: str
    minutes: Sequence[float]
    values: Sequence[float | None]
    log: bool = False


def panels(found: Sequence[Panel], away: tuple[float, float] | None) -> Plot:
    """Return curves over the same minutes, one below the other.

    Args:
        found: the curves.
        away: minutes between which the broker was away, shaded; None for no such time.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
        for one, panel in zip(axes, found, strict=True):
            values = [float("nan") if value is None else value for value in panel.values]
            one.plot(panel.minutes, values, color=OURS, linewidth=1.2)
            one.set_title(panel.title, color=INK, fontsize=10.0, loc="left")
            if panel.log:
                one.set_yscale("log")
            else:
                one.set_ylim(bottom=0.0)
            one.grid(axis="y", color=GRID, linewidth=0.6)
            if away is not None:
                one.axvspan(*away, color=GRID, alpha=0.5, linewidth=0.0)
        axes[-1].set_xlabel(
            "minutes" if away is None else "minutes; the broker is away in the grey part"
        )

    data = [[one.title, list(one.minutes), list(one.values)] for one in found]
    return Plot(draw, (7.2, 0.7 + 1.5 * len(found)), [data, away])


def shares(moments: Sequence[tuple[float, Mapping[str, float]]]) -> Plot:
    """Return stacked shares over time, with a tick for each moment.

    Args:
        moments: seconds, and the shares by name; the names with most are shown, the rest as one.
    """
    from matplotlib.dates import ConciseDateFormatter

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        most: dict[str, float] = {}
        for _, found in moments:
            for name, one in found.items():
                most[name] = most.get(name, 0.0) + one
        names = sorted(most, key=lambda name: -most[name])[: len(SHARES)]
        parts = [[found.get(name, 0.0) for _, found in moments] for name in names]
        rest = [sum(found.values()) - sum(found.get(n, 0.0) for n in names) for _, found in moments]
        times = [time / DAY_SECONDS for time, _ in moments]  # as matplotlib counts dates
        axes.stackplot(
            times, *parts, rest, labels=[*names, "others"], colors=[*SHARES, OTHERS], step="post"
        )
        axes.plot(times, [1.03] * len(times), "|", color=INK, markersize=6)
        axes.set_ylim(0.0, 1.07)
        axes.set_xlim(times[0], times[-1])
        axes.set_ylabel("share of all interests")
        axes.xaxis_date("UTC")
        axes.xaxis.set_major_formatter(
            ConciseDateFormatter(axes.xaxis.get_major_locator())  # type: ignore[no-untyped-call]
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

    return Plot(draw, (7.2, 3.4), [[time, dict(found)] for time, found in moments])


def vars_of(bar: Bar) -> list[Any]:
    """Return a bar as data."""
    return [bar.name, bar.value, bar.low, bar.high, bar.colour]


def _bars(axes: "Axes", found: list[Bar], zero: bool, form: str) -> None:
    places = range(len(found) - 1, -1, -1)
    values, errors = _errors(found)
    colours = [one.colour for one in found]
    if zero:
        axes.barh(
            list(places), values, 0.62, xerr=errors, color=colours,
            error_kw={"linewidth": 0.9, "ecolor": INK},
        )  # fmt: skip
        axes.set_xlim(0.0, 1.25 * max(one.high for one in found))
        for place, one in zip(places, found, strict=True):
            axes.annotate(
                form.format(one.value), (one.high, place), (6, 0), textcoords="offset points",
                va="center", color=INK, fontsize=9.0,
            )  # fmt: skip
    else:
        axes.axvline(0.0, color=GRID, linewidth=1.0)
        for place, one, low, high in zip(places, found, *errors, strict=True):
            axes.errorbar(
                one.value, place, xerr=[[low], [high]], marker="o", markersize=5, capsize=2,
                color=one.colour, linewidth=1.4,
            )  # fmt: skip
    axes.set_yticks(list(places), [one.name for one in found], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _errors(found: Sequence[Bar]) -> tuple[list[float], list[list[float]]]:
    """Return the values, and how far below and above them the intervals reach."""
    below = [max(0.0, one.value - one.low) for one in found]
    return [one.value for one in found], [below, [max(0.0, one.high - one.value) for one in found]]
