"""The dashboard of deploy/grafana, drawn without Grafana: each panel's queries over a real run.

A Prometheus (`prometheus` in PATH or named) scrapes workers and loads the alert rules; afterwards
it answers each query of the dashboard for the time of the run, and matplotlib draws the panels in
their places. `benchmarks/operator_walk.py` calls it.
"""

import asyncio
import json
import math
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.results import ROOT
from tracker.demo.processes import ChildProcess, free_port

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
SCRAPE_SECONDS = 1
INTERVAL = "15s"
"""In place of Grafana's $__rate_interval."""

STEP_SECONDS = 2.0
COLOURS = ("#1f5fbf", "#b3541e", "#1f7a5a", "#8a3b8f", "#7a6a00", "#a02b4d", "#3f6d7d", "#6b5137")
UNITS = {"percentunit": (100.0, " %"), "s": (1.0, " s"), "ops": (1.0, "/s")}

Series = list[tuple[float, float]]


@dataclass(frozen=True)
class Drawn:
    """Numbers of what was drawn: panels, those with data, series, and alerts by their state."""

    panels: int
    with_data: list[str]
    without_data: list[str]
    series: int
    alerts: dict[str, list[str]]


class Prometheus:
    """A Prometheus that scrapes workers of this machine once a second, with our alert rules."""

    def __init__(self, binary: str, folder: Path, port: int) -> None:
        """Start it.

        Args:
            binary: of Prometheus.
            folder: for its data, settings and log.
            port: of the worker's web server.
        """
        folder.mkdir(parents=True)
        self.address = f"http://127.0.0.1:{(own := free_port())}"
        settings = {
            "global": {
                "scrape_interval": f"{SCRAPE_SECONDS}s",
                "evaluation_interval": f"{SCRAPE_SECONDS}s",
            },
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": "tracker", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            ],
        }
        file = folder / "prometheus.yml"  # JSON is YAML
        file.write_text(json.dumps(settings), encoding="utf-8")
        self.process = ChildProcess(
            "Prometheus",
            [
                binary,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{own}",
            ],
            folder / "prometheus.log",
        )

    async def ask(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.address}/api/v1/{path}", params=parameters) as answer,
        ):
            found = await answer.json()
            assert found["status"] == "success", found
            return found["data"]

    async def alerts(self) -> dict[str, str]:
        """Return the alerts that are pending or firing, with their state."""
        data = await self.ask("alerts")
        return {one["labels"]["alertname"]: one["state"] for one in data["alerts"]}

    async def series(self, query: str, start: float, end: float) -> dict[str, Series]:
        """Return what a query of the dashboard gives over a time, by labels."""
        query = query.replace("$__rate_interval", INTERVAL).replace("$job", "tracker")
        data = await self.ask(
            "query_range", query=query, start=str(start), end=str(end), step=str(STEP_SECONDS)
        )
        return {
            ", ".join(f"{key}={value}" for key, value in sorted(one["metric"].items())): [
                (float(at), float(value)) for at, value in one["values"] if value != "NaN"
            ]
            for one in data["result"]
        }


@contextmanager
def prometheus(binary: str, folder: Path, port: int) -> Iterator[Prometheus]:
    """Run a Prometheus; `promtool check rules` is tried first if it lies beside it."""
    tool = Path(binary).with_name("promtool")
    if tool.exists():
        subprocess.run([str(tool), "check", "rules", str(RULES)], check=True)
    server = Prometheus(binary, folder, port)
    try:
        yield server
    finally:
        server.process.stop()


async def draw(
    server: Prometheus,
    start: float,
    end: float,
    marks: list[tuple[float, str]],
    path: Path,
    alerts: dict[str, list[str]],
) -> Drawn:
    """Draw all panels of the dashboard over a time, and return what they showed.

    Args:
        server: has scraped the workers.
        start: seconds since the epoch.
        end: the same.
        marks: moments with their names, drawn into each panel.
        path: picture to write.
        alerts: pending and firing alerts by the name of a step, for the numbers.
    """
    every = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    panels = [panel for panel in every if panel["type"] != "row"]
    rows = [panel for panel in every if panel["type"] == "row"]
    found = [
        [
            (target.get("legendFormat", ""), await server.series(target["expr"], start, end))
            for target in panel["targets"]
        ]
        for panel in panels
    ]
    return await asyncio.to_thread(_draw, panels, rows, found, start, marks, path, alerts)


def _draw(
    panels: list[dict[str, Any]],
    titles: list[dict[str, Any]],
    found: list[list[tuple[str, dict[str, Series]]]],
    start: float,
    marks: list[tuple[float, str]],
    path: Path,
    alerts: dict[str, list[str]],
) -> Drawn:
    """Draw the panels in their places: 24 columns, and rows of a fixed height."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    cell_wide, cell_high = 14.0 / 24.0, 0.33
    width, height = 14.0, rows * cell_high
    with mpl.rc_context({"font.size": 7.0, "axes.titlesize": 8.5, "axes.titleweight": "bold"}):
        figure = Figure(figsize=(width, height), facecolor="white")
        for row in titles:
            up = 1.0 - (row["gridPos"]["y"] + 0.8) * cell_high / height
            figure.text(0.01, up, row["title"], fontsize=10, fontweight="bold", color="#1f5fbf")
        full: list[str] = []
        empty: list[str] = []
        count = 0
        for panel, targets in zip(panels, found, strict=True):
            at = panel["gridPos"]
            bottom = height - (at["y"] + at["h"]) * cell_high
            place = (
                (at["x"] * cell_wide + 0.55) / width,
                (bottom + 0.32) / height,
                (at["w"] * cell_wide - 0.75) / width,
                (at["h"] * cell_high - 0.62) / height,
            )
            axes = figure.add_axes(place)
            axes.set_title(panel["title"], loc="left", fontsize=7.5 if at["w"] < 8 else 8.5)
            unit = panel["fieldConfig"]["defaults"].get("unit", "")
            factor, sign = UNITS.get(unit, (1.0, ""))
            lines = [(name, values) for _, one in targets for name, values in one.items() if values]
            count += len(lines)
            (full if lines else empty).append(panel["title"])
            if panel["type"] == "stat":
                axes.axis("off")
                last = _short(lines[0][1][-1][1] * factor) + sign if lines else "no data"
                axes.text(0.0, 0.35, last, fontsize=16, transform=axes.transAxes)
                continue
            for number, (name, values) in enumerate(lines):
                legend = name
                for form, one in targets:
                    if name in one and values is one[name]:
                        legend = _legend(form, name)
                times, numbers = _with_gaps(values)
                axes.plot(
                    [at - start for at in times],
                    [value * factor for value in numbers],
                    color=COLOURS[number % len(COLOURS)],
                    linewidth=1.1,
                    label=legend,
                )
            for number, (moment, _) in enumerate(marks, 1):
                axes.axvline(moment - start, color="#a3341f", linewidth=0.7, linestyle=":")
                axes.text(
                    moment - start, 1.0, str(number), fontsize=5, color="#a3341f",
                    transform=axes.get_xaxis_transform(),
                )  # fmt: skip
            axes.grid(color="#e3e7ec", linewidth=0.6)
            axes.set_ylim(bottom=0.0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.yaxis.set_major_formatter(f"{{x:,.4g}}{sign}")
            if len(lines) > 1 or (lines and lines[0][0]):
                axes.legend(fontsize=5.5, frameon=False, ncols=2, loc="upper right")
            if not lines:
                axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")
        figure.savefig(path, dpi=100)
    return Drawn(len(panels), full, empty, count, alerts)


def _with_gaps(values: Series) -> tuple[list[float], list[float]]:
    """Return times and numbers, with no line over moments without a number."""
    times: list[float] = []
    numbers: list[float] = []
    before: float | None = None
    for at, value in values:
        if before is not None and at - before > 2.5 * STEP_SECONDS:
            times.append(before + STEP_SECONDS)
            numbers.append(math.nan)
        times.append(at)
        numbers.append(value)
        before = at
    return times, numbers


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100.0 else f"{value:,.3g}"


def _legend(form: str, labels: str) -> str:
    """Return a series' name by Grafana's `legendFormat`, such as `{{reason}}`."""
    for label in filter(None, labels.split(", ")):
        key, _, value = label.partition("=")
        form = form.replace(f"{{{{{key}}}}}", value)
    return form or labels
