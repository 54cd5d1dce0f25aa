"""Make the figures of docs/figures/ and the README's table from benchmarks/results/.

    python -m benchmarks.figures            write pages and plots
    python -m benchmarks.figures --check    only say which are not up to date

A page is written by hand, but for what stands between `<!-- figure: NAME -->` and `<!-- end -->`:
that is replaced. Outside of these marks a page has no number of its own (tests see to it).
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import attack_blocks, blocks, safety_blocks, speed_blocks
from benchmarks.blocks import Results
from benchmarks.plots import (
    OTHERS,
    OURS,
    SERVED,
    WORSE,
    Bar,
    Panel,
    Plot,
    bars,
    curves,
    lines,
    panels,
    shares,
)
from benchmarks.readme_table import readme_table
from benchmarks.results import ROOT, NotMeasuredError, read_results

PAGES = ROOT / "docs" / "figures"
READMES = {ROOT / "README.md": "en", ROOT / "README.zh-CN.md": "zh"}
"""Languages of the READMEs."""


_MARKS = re.compile(r"(<!-- (?:figure|table): ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


BLOCKS: dict[str, blocks.Block] = {
    "throughput": blocks.throughput,
    "latency": blocks.latency,
    "http-api": blocks.http_api,
    "http-api-slower": blocks.http_api_slower,
    "recommend": blocks.recommend,
    "demonstration": blocks.demonstration,
    "faults": blocks.faults,
    "faults-three": blocks.faults_three,
    "faults-plain": blocks.faults_plain,
    "faults-again": blocks.faults_again,
    "faults-more": blocks.faults_more,
    "faults-three-again": blocks.faults_three_again,
    "broker-killed": blocks.broker_killed,
    "faults-total": blocks.faults_total,
    "faults-trained": blocks.faults_trained,
    "films": blocks.quality("films"),
    "films-loo": blocks.quality("films-loo"),
    "films-all": blocks.quality("films-all"),
    "films-all-cold": blocks.cold("films-all"),
    "films-lists": blocks.beyond_accuracy("films"),
    "groceries": blocks.quality("groceries"),
    "groceries-lists": blocks.beyond_accuracy("groceries"),
    "training": blocks.training("films", "films-loo", "films-all", "groceries"),
    "probabilities": blocks.probabilities("films", "films-all", "groceries"),
    "finetune": blocks.finetune,
    "ablation": blocks.ablation,
    "stream-parts": blocks.stream_parts,
    "streams": blocks.streams,
    "learnable": blocks.learnable,
    "stream-baselines": blocks.stream_baselines,
    "training-sizes": blocks.training_sizes,
    "carry-over": blocks.carry_over,
    "late-events": blocks.late_events,
    "neighbours": blocks.neighbours,
    "whitening-category": blocks.whitening("own_category"),
    "whitening-hits": blocks.whitening("hit_rate_at_10"),
    "new-users": blocks.new_users,
    "scene-change": blocks.scene_change,
    "bytes": blocks.bytes_per_user,
    "interests": blocks.interests,
    "privacy": blocks.privacy,
}
"""Blocks of the pages by the name in their marks."""


def _bar(name: str, row: dict[str, Any], metric: str) -> Bar:
    colour = {"tracker": OURS, "tracker_served": SERVED, "tracker_online": SERVED}
    title = blocks.short_name(name)
    low, high = row["ci"][metric]
    return Bar(title, row[metric], low, high, colour.get(name, OTHERS))


def plot_quality(**names: str) -> Callable[[Results], Plot]:
    """Return the plot of NDCG@10 by model, a part for each case; a title for each name."""

    def plot(results: Results) -> Plot:
        groups = {
            title: [
                _bar(row["model"], row, "ndcg_at_10")
                for row in blocks.ranked(blocks.rows_of(results[name.replace("_", "-")]))
            ]
            for name, title in names.items()
        }
        return bars(groups, "NDCG@10 with its 95 % interval")

    return plot


def plot_history(results: Results) -> Plot:
    """Return NDCG@10 over the length of the user's history."""
    result = results["films"]
    parts = [
        (name, blocks.rows_of(result, f"history:{name}"))
        for name in ("1-3", "4-10", "11-30", "31+")
    ]
    parts = [(name, rows) for name, rows in parts if rows]
    models = ("tracker", "tracker_served", "decayed_popularity", "item_knn")
    colours = dict(zip(models, (OURS, SERVED, OTHERS, WORSE), strict=True))
    points = {}
    for model in models:
        found = [_bar(model, rows[model], "ndcg_at_10") for _, rows in parts]
        points[found[0].name] = [
            Bar(one.name, one.value, one.low, one.high, colours[model]) for one in found
        ]
    return lines([name for name, _ in parts], points, ("events before the target", "NDCG@10"))


def plot_ablation(results: Results) -> Plot:
    """Return each variant's difference from its comparison."""
    found = [
        Bar(one["name"], mean, low, high, WORSE if high < 0 else OTHERS)
        for one in results["ablation"]["figures"]["variants"]
        if "difference" in one
        for mean, low, high in [one["difference"]]
    ]
    return bars({"": found}, "difference in NDCG@10 with its 95 % interval", zero=False)


def plot_calibration(results: Results) -> Plot:
    """Return the share of positive events over the probability."""
    points = {
        name: [(one["probability"], one["positives"]) for one in bins]
        for name in ("films", "films-all")
        if (bins := results[name]["figures"]["evaluation"]["calibration"])
    }
    return curves(points, ("mean probability of a tenth of the events", "share that was positive"))


def plot_throughput(results: Results) -> Plot:
    """Return events per second of the systems, with the range of the runs."""
    figures, groups = results["pipeline"]["figures"], {}
    colours = {"tracker": OURS}
    for law in ("uniform", "zipf"):
        found = []
        for system in blocks.SYSTEMS:
            if system not in figures[law]:
                continue
            rates = [run["events_per_second"] for run in figures[law][system]]
            middle = blocks.median_rate(figures[law][system])
            found.append(Bar(system, middle, min(rates), max(rates), colours.get(system, OTHERS)))
        groups[f"{law} users"] = found
    return bars(groups, "events per second, median and range of the runs", form="{:,.0f}")


FILMS = {"films": "the last tenth of the time", "films_loo": "the last film of each user"}


def plot_interests(results: Results) -> Plot:
    """Return how one user's interests rose and fell."""
    moments = results["interests"]["figures"]["moments"]
    return shares([(one["time"], one["interests"]) for one in moments])


def plot_soak(results: Results) -> Plot:
    """Return the curves of an hour's run."""
    return _curves_of_run(results["soak"]["figures"])


def plot_outage(results: Results) -> Plot:
    """Return the curves of a run whose broker was away."""
    return _curves_of_run(results["outage"]["figures"])


def _curves_of_run(figures: Mapping[str, Any]) -> Plot:
    """Return memory, files, what waits, and how late lists are, over time."""
    samples, late = figures["samples"], figures["latency_ms"]

    def curve(title: str, name: str, unit: float = 1.0) -> Panel:
        values = [unit * one[name] if name in one else None for one in samples]
        return Panel(title, [one["seconds"] / 60 for one in samples], values)

    def lateness(title: str, name: str) -> Panel:
        known = {round(one["seconds"]): one[name] for one in late}
        last = round(max(known))
        every = range(0, last + 1, round(figures["step_seconds"]))
        return Panel(title, [at / 60 for at in every], [known.get(at) for at in every], log=True)

    return panels(
        [
            curve("memory, MiB", "memory_mib"),
            curve("open files", "files"),
            curve("what waits for the broker, KiB", "waiting_bytes", 1 / 1024),
            lateness("how late lists are, 99 of 100, ms", "p99"),
        ],
        (figures["leave"] / 60, figures["back"] / 60) if "back" in figures else None,
    )


PLOTS: dict[str, tuple[str, Callable[[Results], Plot]]] = {
    "films": (
        "NDCG@10 of all models on films",
        plot_quality(**FILMS),
    ),
    "history": ("NDCG@10 by the length of the history", plot_history),
    "groceries": ("NDCG@10 of all models on groceries", plot_quality(groceries="")),
    "ablation": ("Difference in NDCG@10 of each variant", plot_ablation),
    "calibration": ("Share of positive events by probability", plot_calibration),
    "interests": ("Shares of one user's interests over time, by genre", plot_interests),
    "soak": ("Memory, open files, what waits, and how late lists are, over an hour", plot_soak),
    "outage": ("The same while the broker is away, and afterwards", plot_outage),
    "throughput": ("Events per second of the programs", plot_throughput),
}
"""Plots by the name of their file in docs/figures/, without .svg: description, and its maker."""


def _image(name: str) -> blocks.Block:
    """Return the block that shows a plot."""

    def block(results: Results) -> str:
        description, plot_of = PLOTS[name]
        plot_of(results)  # raises what is not measured
        return f"![{description}]({name}.svg)"

    return block


BLOCKS |= speed_blocks.BLOCKS
BLOCKS |= safety_blocks.BLOCKS
BLOCKS |= attack_blocks.BLOCKS
BLOCKS |= {f"plot-{name}": _image(name) for name in PLOTS}


def render(page: str, results: Results, language: str = "en") -> str:
    """Return a page with its blocks made again; the language is that of a README's table."""

    def block(found: re.Match[str]) -> str:
        begin, name, old, end = found.groups()
        if begin.startswith("<!-- table") and name != "figures":
            return f"{begin}{old}{end}"
        try:
            text = readme_table(results, language) if name == "figures" else BLOCKS[name](results)
        except NotMeasuredError as missing:
            text = f"Not measured yet: `make figures ONLY={missing.args[0]}`."
        return f"{begin}{text}\n{end}"

    return _MARKS.sub(block, page)


def stale(results: Results) -> dict[Path, str]:
    """Return the files that are not as the results say, and what each should hold."""
    found: dict[Path, str] = {}
    for path in [*READMES, *sorted(PAGES.glob("*.md"))]:
        if not path.exists():
            continue
        text = path.read_text(encoding="utf-8")
        if (made := render(text, results, READMES.get(path, "en"))) != text:
            found[path] = made
    for name, (_, plot_of) in PLOTS.items():
        path = PAGES / f"{name}.svg"
        try:
            plot = plot_of(results)
        except NotMeasuredError:
            continue
        # Another release of matplotlib draws the same data otherwise; that is not stale.
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.rstrip().rpartition("\n")[2] != plot.stamp():
            found[path] = plot.svg()
    return found


def main() -> int:
    """Write or check; return 1 if a check finds something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args()
    found = stale(read_results())
    for path, text in found.items():
        if not given.check:
            path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)} {'is not up to date' if given.check else 'written'}")
    return 1 if given.check and found else 0


if __name__ == "__main__":
    sys.exit(main())
