"""Blocks of docs/figures/ about what holds: promises, erasure, pauses, and a long run."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.blocks import Results, figure, source, table, whole


def promises(results: Results) -> str:
    """Return which tests failed without the protection of each promise."""
    result = results["promises"]
    rows = [
        [
            one["promise"],
            "<br>".join(dict.fromkeys(_name_of(test) for test in one["failed"])),
        ]
        for one in result["figures"].values()
    ]
    head = ["Promise", "tests that fail without the protection"]
    return "\n\n".join(
        [
            f"{len(rows)} promises, each with its protection taken out once:",
            table(head, rows, "---"),
            source(result),
        ]
    )


def erasure(results: Results) -> str:
    """Return where the id of a forgotten user was looked for."""
    result = results["erasure"]
    rows = [
        [place["name"], whole(place["files"]), whole(place["bytes"]), whole(place["before"])]
        for places in result["figures"].values()
        for place in places
    ]
    head = ["Place", "files", "bytes read", "files with the id before"]
    count = sum(place["files"] for places in result["figures"].values() for place in places)
    text = f"Afterwards the id was in none of these {whole(count)} files."
    return "\n\n".join([text, table(head, rows), source(result)])


def fuzz(results: Results) -> str:
    """Return what was made up for all that is read from outside, and how much failed."""
    result = results["fuzz"]
    found = result["figures"]
    rows = [
        [one["does"].removesuffix("."), whole(one["inputs"]), f"{one['most_bytes'] / 2**20:.1f}"]
        for one in found["targets"]
    ]
    failed = ", ".join(one["name"] for one in found["targets"] if one["failed"]) or "none"
    inputs = sum(one["inputs"] for one in found["targets"])
    text = (
        f"{found['minutes']:.0f} minutes, {found['processor_minutes']:.0f} of processor time,"
        f" {whole(inputs)} inputs; failed: {failed}."
    )
    head = ["What is tried", "inputs", "MiB allocated for one input, at most"]
    return "\n\n".join([text, table(head, rows), source(result)])


def user_keys(results: Results) -> str:
    """Return what a key of each user costs."""
    result = results["user-keys"]
    found = result["figures"]
    rows = [
        [name, *(f"{found[field][mode]:.1f}" for mode in ("plain", "keyed"))]
        for name, field in (
            ("an event, with its part of a commit", "event"),
            ("of this, a row that is written", "row_written"),
            ("a row that is read from the disk", "row_read"),
        )
    ]
    rows.append(
        ["a key that is read, when a partition is taken over", "", f"{found['key_read']:.1f}"]
    )
    head = ["Microseconds of processor time", "plain", "with keys"]
    text = (
        f"Chunks of {found['size']} events of {whole(found['users'])} users, rows of"
        f" {whole(found['row_bytes'])} bytes. With keys an event costs {found['event_times']:.2f}"
        " times as much (median of the same chunks)."
    )
    return "\n\n".join([text, table(head, rows), source(result)])


def soak(results: Results) -> str:
    """Return what an hour's run held."""
    return _run(results["soak"])


def outage(results: Results) -> str:
    """Return what a run held whose broker was away for most of it."""
    return _run(results["outage"])


ACTIONS = {
    "kill": "a worker is killed (`kill -9`)",
    "respawn": "a worker is killed, and started again at once",
    "freeze": "a worker is frozen for longer than the session timeout",
    "term": "a worker is told to stop (SIGTERM)",
    "join": "a worker starts again on its disk, and joins",
}
"""What the page calls an action on a worker."""


def pauses(results: Results) -> str:
    """Return how long no list came after each action, and how long the workers' phases were."""
    result = results["pauses"]
    figures, plan = result["figures"], result["figures"]["plan"]
    rows, phases = [], []
    for name, title in ACTIONS.items():
        runs = figures["actions"].get(name, [])
        if not runs:
            continue
        rows.append(
            [title, str(len(runs)), *_pauses_of(runs, "moved"), *_pauses_of(runs, "stayed")]
        )
        some = [one for run in runs for one in run["phases"]]
        names = dict.fromkeys(phase for one in some for phase in one)
        middles = {phase: statistics.median(one.get(phase, 0.0) for one in some) for phase in names}
        phases.append([title, *(f"{middles.get(phase, 0.0):.2f}" for phase in PHASES)])
    head = (
        "action", "times", "partitions that moved: median, s", "longest, s",
        "partitions that stayed: median, s", "longest, s",
    )  # fmt: skip
    text = (
        f"{plan['workers']} workers, {plan['partitions']} partitions, {plan['standbys']} standby of"
        f" each state, a session timeout of {plan['session_timeout']:g} s,"
        f" {whole(plan['rate'])} events/s. Without an action a list comes after"
        f" {whole(figures['usual_ms'])} ms (median). Of {whole(figures['events'])} events,"
        f" {whole(figures['without_list'])} got no list."
    )
    told = "Medians of the phases of a rebalance as the workers log them, in seconds:"
    return "\n\n".join(
        [text, table(head, rows), told, table(["", *PHASES], phases), source(result)]
    )


def pauses_wiped(results: Results) -> str:
    """Return the longest pause of each time that a disk was lost, and the parts of that."""
    result = results["pauses-wiped"]
    figures, plan = result["figures"], result["figures"]["plan"]
    session, rows = plan["session_timeout"], []
    for name, title in (("wipe", "a standby of each state"), ("wipe_alone", "no standby")):
        for run in figures["actions"][name]:
            pause, recovery = max(run["moved"] + run["stayed"]) / 1000, run["recovery"]
            parts = (pause, session, recovery, pause - session - recovery)
            rows.append([title, *(f"{part:.2f}" for part in parts)])
    text = (
        f"{plan['workers']} workers, {plan['partitions']} partitions, {whole(plan['users'])} users"
        f" with {whole(plan['events_before'])} events before, {whole(plan['rate'])} events/s."
        f" Of {whole(figures['events'])} events, {whole(figures['without_list'])} got no list."
    )
    head = ("", "longest pause, s", "= session timeout", "+ recovery", "+ the rest")
    return figure(head, rows, result, text=text)


PHASES = ("release", "join", "fence", "databases", "recovery", "opening", "seek")
"""Phases of a rebalance, as `RebalanceLog` names them."""


def _pauses_of(runs: Sequence[Mapping[str, Any]], part: str) -> list[str]:
    """Return median and maximum over all partitions of a part, in seconds."""
    some = [one / 1000 for run in runs for one in run[part]]
    return [f"{statistics.median(some):.2f}", f"{max(some):.2f}"] if some else ["", ""]


def _run(result: Mapping[str, Any]) -> str:
    """Return what a run held in parts of it, and how it went."""
    figures = result["figures"]
    parts = _parts(figures)
    rows = []
    for name, (begin, until) in parts.items():
        samples = [one for one in figures["samples"] if begin <= one["seconds"] < until]
        lists = [one for one in figures["latency_ms"] if begin <= one["seconds"] < until]
        rows.append(
            [
                name,
                _range(samples, "memory_mib", 1.0),
                _range(samples, "files", 1.0),
                _range(samples, "waiting_bytes", 1 / 1024),
                _middle(lists, "p50"),
                _middle(lists, "p99"),
            ]
        )
    ends = [one["seconds"] for one in figures["ends"]]
    if ends:
        minutes = ", ".join(f"{one / 60:.0f}" for one in ends)
        ended = (
            f"The worker ended by itself {'once' if len(ends) == 1 else f'{len(ends)} times'} and"
            f" was started again (minute {minutes})."
        )
    else:
        ended = "The worker did not end."
    broker = "The broker was there the whole time."
    if "leave" in figures:
        leave, back = figures["leave"], figures["back"]
        broker = (
            f"The broker was killed after {leave / 60:.0f} minutes, and started again"
            f" {(back - leave) / 60:.0f} minutes later. The first list came"
            f" {figures['first_list_seconds']:.0f} s after the broker's start, and all that had"
            f" waited was answered {figures['caught_up_seconds']:.0f} s after it."
        )
    rejected = f", {whole(figures['rejected'])} rejected" if "rejected" in figures else ""
    share = ""
    if "full_rate" in figures:
        share = (
            f" Afterwards the worker took {whole(figures['full_rate'])} events/s that waited for"
            f" it: the run was at {figures['rate'] / figures['full_rate']:.2f} of its full rate."
        )
    text = (
        f"{figures['minutes']:g} minutes, {whole(figures['rate'])} events/s,"
        f" {whole(figures['users'])} users, {whole(figures['items'])} items."
        f" {broker} {ended}{share}"
        f" Of {whole(figures['events'])} events, {whole(figures['sent'] - figures['events'])}"
        f" were lost{rejected}; {whole(figures['without_list'])} users are without a list of their"
        " last one."
    )
    head = ("", "memory, MiB", "open files", "waits for the broker, KiB", "p50", "p99")
    return "\n\n".join([text, table(head, rows), source(result)])


def _parts(figures: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return begin and end of the parts that are shown of a run, in seconds, by their names."""
    end = 60.0 * figures["minutes"]
    if "leave" not in figures:
        begins = [quarter * end / 4 for quarter in range(4)] + [end - PART_SECONDS]
        return {
            f"minutes {begin / 60:.0f} to {(begin + PART_SECONDS) / 60:.0f}": (
                begin, begin + PART_SECONDS,
            )
            for begin in begins
        }  # fmt: skip
    leave, back = figures["leave"], figures["back"]
    if leave <= 2 * PART_SECONDS:
        return {"before": (0.0, leave), "broker away": (leave, back), "after": (back, end)}
    return {
        "first five minutes": (0.0, PART_SECONDS),
        "five minutes before": (leave - PART_SECONDS, leave),
        "broker away": (leave, back),
        "five minutes after": (back, back + PART_SECONDS),
        "last five minutes": (end - PART_SECONDS, end),
    }


LONG_MS = 10_000.0
"""Lateness from which it is shown in seconds."""

PART_SECONDS = 300.0
"""Length of the parts of a long run that its table shows."""


def _range(samples: Sequence[Mapping[str, float]], name: str, unit: float) -> str:
    """Return the least and the largest of a figure."""
    found = [one[name] * unit for one in samples if name in one]
    return f"{whole(min(found))} to {whole(max(found))}" if found else "-"


def _middle(lists: Sequence[Mapping[str, float]], name: str) -> str:
    """Return the median of the windows, and the largest."""
    found = [one[name] for one in lists]
    if not found:
        return "-"
    return f"{_lateness(statistics.median(found))}, at most {_lateness(max(found))}"


def _lateness(milliseconds: float) -> str:
    """Return a time in milliseconds, or in seconds if it is long.

    >>> _lateness(85.4), _lateness(147_978.0)
    ('85 ms', '148 s')
    """
    if milliseconds < LONG_MS:
        return f"{whole(milliseconds)} ms"
    return f"{whole(milliseconds / 1000.0)} s"


def _name_of(test: str) -> str:
    """Return a test as `file: name`, without the folders and the parameters."""
    if "::" not in test:
        return test.replace("tests/", "")
    file, name = test.split("::", 1)
    words = name.split("[", 1)[0].removeprefix("test_").replace("_", " ")
    return f"{file.rsplit('/', 1)[-1].removesuffix('.py')}: {words}"


BLOCKS: dict[str, Any] = {
    "pauses": pauses,
    "pauses-wiped": pauses_wiped,
    "promises": promises,
    "erasure": erasure,
    "fuzz": fuzz,
    "user-keys": user_keys,
    "soak": soak,
    "outage": outage,
}
