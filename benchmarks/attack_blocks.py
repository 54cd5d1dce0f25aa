"""Blocks of docs/figures/ about attacks: by made-up events, and by requests without a pause."""

import statistics
from typing import Any

from benchmarks.blocks import Results, figure, whole, with_range


def trend_attack(results: Results) -> str:
    """Return what attacks on a trend reach, with the cap on a user's share and without."""
    result = results["trend-attack"]
    figures = result["figures"]
    rows = [
        [
            with_cap["attack"],
            f"{100.0 * with_cap['share']:.1f} %",
            whole(with_cap["sent"]),
            *(
                text
                for one in (without, with_cap)
                for text in (
                    whole(one["counted"]), whole(one["place"]), f"{100.0 * one['in_lists']:.1f} %",
                )
            ),
        ]
        for with_cap, without in zip(figures["with"], figures["without"], strict=True)
    ]  # fmt: skip
    head = [
        "Attack by", "of all events", "likes sent", "counted, no cap", "place", "in lists",
        "**counted, with the cap**", "**place**", "**in lists**",
    ]  # fmt: skip
    return figure(head, rows, result)


def neighbour_attack(results: Results) -> str:
    """Return what attacks on neighbours reach, with the cap on a user's share and without."""
    result = results["neighbour-attack"]
    figures = result["figures"]
    rows = [
        [
            with_cap["attack"],
            f"{100.0 * with_cap['share']:.1f} %",
            whole(with_cap["sent"]),
            *(
                text
                for one in (without, with_cap)
                for text in (
                    whole(one["counted"]),
                    f"{100.0 * one['in_lists']:.1f} %",
                    f"{100.0 * one['by_neighbours']:.1f} %",
                )
            ),
        ]
        for with_cap, without in zip(figures["with"], figures["without"], strict=True)
    ]
    head = [
        "Attack by", "of all events", "likes of the item sent", "counted, no cap", "in lists",
        "by neighbours", "**counted, with the cap**", "**in lists**", "**by neighbours**",
    ]  # fmt: skip
    return figure(head, rows, result)


def user_flood(results: Results) -> str:
    """Return what events of one user add, beside those of honest users."""
    result = results["user-flood"]
    figures = result["figures"]
    rows = [
        [
            one["stream"], whole(one["users"]), whole(one["user_bytes"]),
            whole(one["users_changelog"]), whole(one["items_topic"]),
            whole(one["items_changelog"]),
        ]
        for one in figures["runs"]
    ]  # fmt: skip
    head = [
        f"{whole(figures['rate'])} events a second of", "rows of users", "their bytes",
        "bytes an event: changelog of users", "topic of item events", "changelog of items",
    ]  # fmt: skip
    return figure(head, rows, result)


def http_flood(results: Results) -> str:
    """Return what the stream does while connections ask without a pause, and without them."""
    result = results["http-flood"]
    figures = result["figures"]
    rounds = figures["rounds"]
    rows = []
    for title, part in (("nobody asks", "alone"), ("they ask", "both")):
        runs = [one[part] for one in rounds]
        rows.append(
            [
                title,
                with_range((run["events_per_second"] for run in runs), "{:,.0f}"),
                *(with_range((run[name] for run in runs), "{:.0f}") for name in ("p50", "p99")),
            ]
        )
    taken = [one["both"]["events_per_second"] / one["alone"]["events_per_second"] for one in rounds]
    floods = [one["both"]["flood"] for one in rounds]
    names = sorted({name for flood in floods for name in flood["answers"]})
    answers = ", ".join(
        f"{whole(statistics.median(flood['answers'].get(name, 0.0) for flood in floods))} with"
        f" {name}"
        for name in names
    )
    text = (
        f"{figures['connections']} connections, {len(rounds)} rounds. While they ask, the worker"
        f" takes {statistics.median(taken):.2f} times as many events a second ({min(taken):.2f} to"
        f" {max(taken):.2f}). Answers a second by status: {answers}. Who asks takes"
        f" {statistics.median(flood['share'] for flood in floods):.2f} of a core."
    )
    head = [
        "", "events a second, as many as it can",
        f"a list at {whole(figures['events'])} events/s: p50, ms", "p99, ms",
    ]  # fmt: skip
    return figure(head, rows, result, text=text)


BLOCKS: dict[str, Any] = {
    "trend-attack": trend_attack,
    "neighbour-attack": neighbour_attack,
    "user-flood": user_flood,
    "http-flood": http_flood,
}
