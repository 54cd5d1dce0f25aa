"""Blocks of docs/figures/ about what holds: the promises, and a worker over a long time."""

from typing import Any

from benchmarks.blocks import Results, source, table, whole


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


def _name_of(test: str) -> str:
    """Return a test as `file: name`, without the folders and the parameters."""
    if "::" not in test:
        return test.replace("tests/", "")
    file, name = test.split("::", 1)
    words = name.split("[", 1)[0].removeprefix("test_").replace("_", " ")
    return f"{file.rsplit('/', 1)[-1].removesuffix('.py')}: {words}"


def soak(results: Results) -> str:
    """Return memory, open files and latency at an even rate, the second half beside the first."""
    result = results["soak"]
    figures = result["figures"]
    halves = [figures["halves"][name] for name in ("first", "second")]
    rows = [
        [title, *(form.format(half[key]) for half in halves)]
        for title, key, form in (
            ("minutes", "minutes", "{:.1f}"),
            ("events a second", "events_a_second", "{:,.0f}"),
            ("memory, MiB, median", "memory_mib", "{:,.0f}"),
            ("its growth, MiB an hour", "memory_growth_mib_an_hour", "{:+,.0f}"),
            ("open files, median", "files", "{:,.0f}"),
            ("open files, most", "most_files", "{:,.0f}"),
            ("threads", "threads", "{:,.0f}"),
            ("latency p50, ms", "p50_ms", "{:,.0f}"),
            ("latency p99, ms", "p99_ms", "{:,.0f}"),
            ("share of a core", "core", "{:.2f}"),
            ("load of the machine", "load", "{:.1f}"),
        )
    ]
    text = (
        f"{figures['rate']:,.0f} events a second of {whole(figures['users'])} users for"
        f" {figures['minutes']:g} minutes, and {2 * 20} more by HTTP. Other programs ran on the"
        " machine, as its load says."
    )
    return "\n\n".join([text, table(["", "first half", "second half"], rows), source(result)])


def away(results: Results) -> str:
    """Return what a worker takes while its broker is away, and what became of the events."""
    result = results["soak"]
    figures = result["figures"]
    parts = figures["parts"]
    rows = [
        [
            title,
            whole(parts[name]["most_memory_mib"]),
            whole(parts[name]["most_files"]),
            whole(parts[name]["most_threads"]),
            whole(parts[name]["ends"]),
        ]
        for name, title in (("even", "before"), ("away", "broker away"), ("back", "broker back"))
    ]
    sender = figures["sender"]
    posts = ", ".join(f"{name} {count}" for name, count in sorted(figures["posts"].items()))
    text = (
        f"The broker is killed for {figures['away']:g} minutes. Of {whole(sender['sent'])} events"
        f" that a producer sent, {whole(sender.get('confirmed', 0))} were confirmed in the end; by"
        f" HTTP {whole(figures['stored_by_http'])} were stored, and"
        f" {whole(figures['unconfirmed_by_http'])} were refused or not confirmed. The topic has"
        f" {whole(figures['offsets'])} records, and the worker has committed"
        f" {whole(figures['committed'])}. The longest request took"
        f" {figures['longest_post_seconds']:.1f} s. Requests by part and answer: {posts}."
    )
    head = ["", "memory, MiB, most", "open files, most", "threads, most", "ends of the worker"]
    return "\n\n".join([text, table(head, rows)])


BLOCKS: dict[str, Any] = {"promises": promises, "soak": soak, "broker-away": away}
