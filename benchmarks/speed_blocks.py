"""Blocks of the pages speed, sizing and walk: start, trickle, recovery, sizes, the page ..."""

import argparse
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.blocks import (
    QUANTILE_TITLES,
    Results,
    figure,
    percent,
    quantiles,
    source,
    table,
    whole,
    with_range,
)
from benchmarks.results import read_results

CORE_MICROSECONDS = 1e6
BUSY = 0.5
"""Share of a core that a worker should be busy at the peak, so that it catches up after a pause."""

VERSIONS = ("untrained", "trained")

SIZES = ((500, 100_000, 20_000), (5000, 1_000_000, 100_000), (50_000, 20_000_000, 1_000_000))
"""Events a second at the peak, users and items of the examples."""


WORKER_GB = 0.8
"""Memory of a worker without users and catalogue: libraries, and states of items. Assumed."""

ARENA_ROWS, ARENA_ROW_BYTES = 200_000, 8192
"""Users that a worker keeps in memory by default, and the most bytes of one."""

ITEM_BYTES = 5500
"""Memory of an item of the catalogue: vectors, index, counts, neighbours. Assumed."""

PARTITIONS = 12
"""Fewest partitions: the number of workers can grow, and 1, 2, 3, 4, 6 or 12 share them evenly."""

SPARE = 1.5
"""Disk beside the rows themselves, until RocksDB or Kafka has compacted. Assumed."""


def start(results: Results) -> str:
    """Return the seconds from the command to ready."""
    result = results["start"]
    figures, lines = result["figures"], []
    titles = {
        "imports": "importing torch, faiss and faust alone",
        "compiled": "worker, kernels in the cache",
        "none_compiled": "worker, no kernel in the cache",
    }
    for name, title in titles.items():
        runs = figures["runs"][name]
        times = [figures["times_the_imports"][unit].get(name) for unit in ("seconds", "processor")]
        lines.append(
            [
                title,
                with_range(run["seconds"] for run in runs),
                "" if times[0] is None else f"{times[0]:.1f}",
                with_range(run["processor"] for run in runs),
                "" if times[1] is None else f"{times[1]:.1f}",
            ]
        )
    head = ["", "seconds", "times the imports", "processor seconds", "times the imports"]
    return figure(head, lines, result)


def idle(results: Results) -> str:
    """Return the share of a core at each rate."""
    result = results["idle"]
    rates: dict[float, list[float]] = {}
    for run in result["figures"]["runs"]:
        rates.setdefault(run["rate"], []).append(100.0 * run["core"])
    lines = [[whole(rate), with_range(found, "{:.1f} %")] for rate, found in sorted(rates.items())]
    return figure(["events/s", "share of a core"], lines, result)


def swap(results: Results) -> str:
    """Return the latency before and during a change of the artifact."""
    result = results["swap"]
    figures, runs = result["figures"], result["figures"]["runs"]
    lines = [[part, *quantiles(runs, "{:.0f}", f"{part}_")] for part in ("before", "during")]
    text = (
        f"{whole(figures['items'])} items, {whole(figures['rate'])} events/s. The change took"
        f" {_in_line((run['seconds'] for run in runs), '{:.1f}', 's')}; the worker had"
        f" {whole(max(run['memory_mib'] for run in runs))} MiB at most,"
        f" {whole(max(run['with_check_mib'] for run in runs))} with the process that checks."
    )
    return figure(["", *QUANTILE_TITLES], lines, result, text=text)


def _in_line(values: Iterable[float], form: str, unit: str) -> str:
    """Return the median of runs with its unit, and their range behind it.

    >>> _in_line([3.0, 1.0, 2.0], "{:.0f}", "s"), _in_line([4.0], "{:.0f}", "s")
    ('2 s (1 to 3)', '4 s')
    """
    middle, _, ends = with_range(values, form).partition("<br>")
    return f"{middle} {unit} ({ends})" if ends else f"{middle} {unit}"


def recover(results: Results) -> str:
    """Return the seconds of a recovery beside the bare one."""
    result = results["recover"]
    lines = [
        [
            whole(run["users"]),
            whole(run["rows"]),
            f"{run['bytes'] / 1e6:.0f}",
            f"{run['recovery']:.1f}",
            f"{run['bare']:.1f}",
            f"{run['bare_by_recovery']:.2f}",
            whole(run["memory_mib"]),
        ]
        for run in result["figures"]["runs"]
    ]
    head = ["users", "rows", "MB", "recovery, s", "bare, s", "bare / recovery", "memory, MiB"]
    return figure(head, lines, result)


def search(name: str) -> Callable[[Results], str]:
    """Return the block of the time of a query by library, at equal recall."""

    def block(results: Results) -> str:
        result = results[name]
        rows = sorted(
            result["figures"]["rows"], key=lambda one: (one["items"], one["at_least"], one["batch"])
        )
        lines = [
            [
                f"**{row['library']}**" if row["library"] == "tracker" else row["library"],
                whole(row["items"]) + (", drawn" if row["made_up"] else ", real"),
                f"{row['at_least']:.2f}",
                f"{row['recall']:.3f}",
                f"{row['batch']:.0f}",
                f"{row['single']:.0f}",
                _setting(row["setting"]),
            ]
            for row in rows
        ]
        recall = f"recall@{result['figures']['k']}"
        head = ["", "items", f"{recall} ≥", recall, "batch, µs", "single, µs", "setting"]
        return figure(head, lines, result, text=_not_reached(rows))

    return block


def _setting(text: str) -> str:
    """Return a setting whose multiple of the wanted rows can be read as such.

    >>> _setting("flat, ranked 4 k"), _setting("40 ranked")
    ('flat, ranked 4 times k', '40 ranked')
    """
    return re.sub(r"ranked (\d+) k\b", r"ranked \1 times k", text)


def _not_reached(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return which libraries are missing at some number of items and recall."""
    libraries = list(dict.fromkeys(row["library"] for row in rows))
    reached: dict[tuple[int, float], set[str]] = {}
    for row in rows:
        reached.setdefault((row["items"], row["at_least"]), set()).add(row["library"])
    parts = [
        f"{at_least:.2f} among {whole(items)} items: {', '.join(missing)}"
        for (items, at_least), found in reached.items()
        if (missing := [name for name in libraries if name not in found])
    ]
    return f"Not reached: {'; '.join(parts)}." if parts else ""


def search_memory(results: Results) -> str:
    """Return the time of a list with and without the memory of searches."""
    result = results["search-memory"]
    figures = result["figures"]
    lines = [
        [
            whole(case["history"]),
            "yes" if case["trained"] else "no",
            whole(case["chunk"]),
            f"{case['searches_per_list']:.2f}",
            percent(case["known"], 0),
            f"{case['without']:.0f}",
            f"{case['with']:.0f}",
            f"{case['ratio']:.2f}",
        ]
        for case in figures["cases"]
    ]
    head = [
        "events of a user", "trained", "lists at once", "searches per list", "known", "without, µs",
        "with, µs", "with / without",
    ]  # fmt: skip
    text = f"{whole(figures['items'])} items, {whole(figures['users'])} users."
    return figure(head, lines, result, text=text)


def encode(results: Results) -> str:
    """Return the texts a second of both encoders."""
    result = results["encode"]
    figures = result["figures"]
    lines = [[name, with_range(found, "{:.0f}")] for name, found in figures["runs"].items()]
    text = f"The least cosine between both vectors of a text is {figures['least_cosine']:.4f}."
    return "\n\n".join([table(["", "texts/s"], lines), text, source(result)])


def scale(results: Results) -> str:
    """Return the throughput by workers, the pause of a rebalance, and the simulation."""
    result = results["scale"]
    figures = result["figures"]
    by_workers: dict[int, list[float]] = {}
    for run in figures["runs"]:
        by_workers.setdefault(run["workers"], []).append(run["events_per_second"])
    lines = [[f"{n}, measured", with_range(found, "{:,.0f}")] for n, found in by_workers.items()]
    lines += [
        [f"{one['workers']}, simulated", whole(one["events_per_second"])]
        for one in figures["simulation"]
    ]
    text = f"The pause of a rebalance: {_in_line(figures['pause_ms'], '{:,.0f}', 'ms')}."
    return "\n\n".join([table(["workers", "events/s"], lines), text, source(result)])


def trained(results: Results) -> str:
    """Return the throughput of a trained version beside the same items untrained."""
    result = results["trained"]
    figures, lines = result["figures"], []
    runs = figures["runs"]
    ratios = [
        one["events_per_second"] / other["events_per_second"]
        for one, other in zip(runs["trained"], runs["untrained"], strict=True)
    ]
    for version, found in runs.items():
        lines.append(
            [
                version,
                with_range((run["events_per_second"] for run in found), "{:,.0f}"),
                with_range(ratios, "{:.2f}") if version == "trained" else "",
                f"{statistics.median(run['cpu_microseconds'] for run in found):.0f} µs",
            ]
        )
    first = runs["trained"][0]
    text = (
        f"{whole(figures['items'])} items, {whole(figures['users'])} users,"
        f" {whole(first['events'])} events, {len(ratios)} runs of each, in turn."
    )
    head = ["", "events/s", "trained / untrained", "processor time per event"]
    return figure(head, lines, result, text=text)


def needs(rate: float, users: float, items: float, costs: Mapping[str, float]) -> dict[str, float]:
    """Return what a deployment needs.

    The partitions are 12, 24, 48 and so on: the first that are twice the workers or more. Items are
    in memory twice while a new version is loaded.

    Args:
        rate: events a second at the peak.
        users: with a state.
        items: of the catalogue.
        costs: `event` microseconds of processor, `user` bytes of rows.

    >>> found = needs(5000.0, 1e6, 1e5, {"event": 100.0, "user": 2000.0})
    >>> found["workers"], found["partitions"], round(found["disk_gb"], 1)
    (1, 12, 3.0)
    """
    workers = max(1, -(-int(rate * costs["event"]) // int(BUSY * CORE_MICROSECONDS)))
    share = users / workers
    partitions = PARTITIONS
    while partitions < 2 * workers:
        partitions *= 2
    return {
        "workers": workers,
        "partitions": partitions,
        "memory_gb": WORKER_GB
        + min(share, ARENA_ROWS) * ARENA_ROW_BYTES / 1e9
        + 2 * items * ITEM_BYTES / 1e9,
        "disk_gb": SPARE * share * costs["user"] / 1e9,
        "broker_gb": SPARE * users * costs["user"] / 1e9,
    }


def measured_costs(results: Results) -> dict[str, dict[str, float]]:
    """Return the processor time of an event and the bytes of a user, `untrained` and `trained`."""
    figures, stored = results["pipeline"]["figures"], results["bytes-films"]["figures"]
    event = statistics.median(run["cpu_microseconds"] for run in figures["uniform"]["tracker"])
    trained, untrained = (
        statistics.median(run["cpu_microseconds"] for run in runs)
        for runs in (results["trained"]["figures"]["runs"][name] for name in VERSIONS[::-1])
    )
    seen = stored["seen"]
    long = seen["rows"] / stored["state"]["rows"]
    user = stored["state"]["mean"] + long * seen.get("mean", 0.0)
    events = (event, event + trained - untrained)
    return {name: {"event": one, "user": user} for name, one in zip(VERSIONS, events, strict=True)}


def sizing(results: Results) -> str:
    """Return what deployments of some sizes need, from the measured costs."""
    costs, lines = measured_costs(results), []
    for rate, users, items in SIZES:
        for version in VERSIONS:
            one = needs(rate, users, items, costs[version])
            lines.append(
                [
                    whole(rate), whole(users), whole(items), version, whole(one["workers"]),
                    whole(one["partitions"]), f"{one['memory_gb']:.1f} GB",
                    f"{one['disk_gb']:.1f} GB", f"{one['broker_gb']:.1f} GB",
                ]
            )  # fmt: skip
    event, added = costs["untrained"]["event"], costs["trained"]["event"]
    text = (
        f"An event takes {event:.0f} µs of processor when many come at once, on an untrained"
        f" version. On a trained one it takes {added:.0f} µs: {added - event:.0f} µs more, as"
        f" measured on films. The rows of a user take {whole(costs['untrained']['user'])} bytes."
        f" A worker is busy for {100 * BUSY:.0f} % of a core at the peak. Assumed, not measured:"
        f" {WORKER_GB:g} GB for libraries and states of items, {ITEM_BYTES:,} bytes an item and"
        f" twice that while a new version is loaded, {SPARE:g} times the rows on disk."
    )
    head = [
        "events/s", "users", "items", "version", "workers", "partitions", "memory each",
        "disk each", "changelog",
    ]  # fmt: skip
    return figure(
        head, lines, results["pipeline"], results["trained"], results["bytes-films"], text=text
    )


def page(results: Results) -> str:
    """Return the seconds that somebody new waits for the page."""
    result = results["page"]
    figures, lines = result["figures"], []
    titles = {
        "first_screen": "from the address to the first screen",
        "first_paint": "from the address to the first thing drawn",
        "first_list": "from a user's address to the first list",
        "moved": "from the click to the list that has moved",
    }
    for name, title in titles.items():
        parts = (figures["first_visit"], figures["median"], figures["most"])
        lines.append([title, *(f"{part[name]:.2f}" for part in parts)])
    text = (
        f"The address of the page stood there {figures['address_seconds']:.0f} s after the command."
        f" {figures['visits']} visits, in seconds:"
    )
    head = ["", "first visit", "median", "most"]
    return figure(head, lines, result, text=text)


def operator_walk(results: Results) -> str:
    """Return each step of the operator's walk, and what the page said."""
    result = results["operator-walk"]
    figures, lines = result["figures"], []
    for number, step in enumerate(figures["steps"], 1):
        alerts = ", ".join(f"{name} ({state})" for name, state in sorted(step["alerts"].items()))
        said = "<br>".join(line.replace("|", "/") for line in step["attention"])
        lines.append([str(number), step["done"], f"{step['seconds']:.0f} s", said, alerts])
    text = f"The flood was of {whole(figures['rubbish'])} records."
    head = ["", "done", "the page says so after", "what it says", "alerts of Prometheus"]
    return "\n\n".join([text, table(head, lines, "---"), source(result)])


def dashboard(results: Results) -> str:
    """Return how much of the dashboard had data in the walk."""
    result = results["operator-walk"]
    drawn = result["figures"]["dashboard"]
    empty = ", ".join(drawn["without_data"])
    text = (
        f"{len(drawn['with_data'])} of {drawn['panels']} panels had data, {drawn['series']} series."
        + (
            f" Without data, as nothing of the kind happened or was trained: {empty}."
            if empty
            else ""
        )
    )
    return f"{text}\n\n{source(result)}"


BLOCKS: dict[str, Any] = {
    "page": page, "operator-walk": operator_walk, "dashboard": dashboard,
    "start": start, "idle": idle, "swap": swap, "recover": recover,
    "search": search("search"), "search-lists": search("search-lists"),
    "search-memory": search_memory,
    "encode": encode, "scale": scale, "sizing": sizing, "trained": trained,
}  # fmt: skip


def main() -> None:
    """Print what a deployment of the given size needs."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("events", "users", "items"):
        parser.add_argument(name, type=float)
    given = parser.parse_args()
    for version, costs in measured_costs(read_results()).items():
        print(version, needs(given.events, given.users, given.items, costs))


if __name__ == "__main__":
    main()
