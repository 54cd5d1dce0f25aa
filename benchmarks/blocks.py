"""The generated parts of docs/figures/: each block is a function of stored results.

A block is Markdown: a table, a sentence with numbers, or both. Only here do numbers become text.
"""

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.corners import WORTH, best_baseline, missed, reached

Result = Mapping[str, Any]
Results = Mapping[str, Result]
"""What each file in benchmarks/results/ holds, by its name."""

Block = Callable[[Results], str]

NAMES = {
    "tracker": "**tracker**, every item ranked",
    "tracker_served": "**tracker**, the list as served",
    "tracker_online": "tracker that learns online",
    "tracker_without_scenes": "tracker, asked without scenes",
    "tracker_without_attributes": "tracker, asked without attributes",
    "trained_without_attributes": "tracker, trained without attributes",
    "decayed_popularity": "trend: popularity with a half-life of a day",
    "popularity": "popularity",
    "item_knn": "nearest neighbours of items",
    "ease": "EASE",
    "last_item": "items chosen with the last one",
    "best_trend": "trend of the best half-life",
    "transitions": "what follows what",
    "trend_and_transitions": "trend and what follows what",
    "recent_popularity": "popularity of the latest events",
    "own_recent": "the user's latest",
    "live_neighbours": "decayed neighbours",
    "content": "content alone",
    "own_frequent": "the user's own most frequent items",
    "item_mean": "the item's mean",
    "user_mean": "the user's mean",
}
"""What tables call a model of the evaluation."""

OURS = ("tracker", "tracker_served", "tracker_online")

LEAD = "every item ranked, less this"
"""Head of a column that compares the tracker, every item ranked, with the row."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], side: str = "---:") -> str:
    """Return a Markdown table: the first column is text, the others are figures, at the right."""
    lines = [list(head), ["---", *[side] * (len(head) - 1)], *[list(row) for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def source(*results: Result) -> str:
    """Return how to get the figures of a block: commands, commit, date and machine."""
    parts = []
    for one in results:
        machine = one["machine"]
        lines = "\n".join(one["commands"])
        commits = one["figures"].get("commits", {})
        place = "the commits above" if len(commits) > 1 else f"commit `{one['commit']}`"
        parts.append(
            f"Measured at {place} on {one['date']}, {machine['cores']} cores"
            f" ({machine['model']}), {machine['memory_gib']} GiB:\n\n```text\n{lines}\n```"
        )
    return "\n\n".join(parts)


def figure(
    head: Sequence[str], rows: Iterable[Sequence[str]], *results: Result, text: str = ""
) -> str:
    """Return a block: a sentence if there is one, a table, and how to get its figures."""
    return "\n\n".join([*([text] if text else []), table(head, rows), source(*results)])


def short_name(model: str) -> str:
    """Return the name of a model for a sentence or a plot."""
    return NAMES.get(model, model).replace("**", "").partition(":")[0]


def percent(value: float, places: int = 1) -> str:
    """Return a share in percent.

    >>> percent(0.2715)
    '27.2 %'
    """
    return f"{100.0 * value:.{places}f} %"


def share(value: float | None) -> str:
    """Return a metric with four places, or nothing."""
    return "" if value is None else f"{value:.4f}"


def with_interval(value: float, interval: Sequence[float]) -> str:
    """Return a value and its interval."""
    return f"{value:.4f}<br>{interval[0]:.4f} to {interval[1]:.4f}"


def gain(found: Sequence[float] | None) -> str:
    """Return a difference and its interval: mean, low, high."""
    if found is None:
        return ""
    mean, low, high = found
    return f"{mean:+.4f}<br>{low:+.4f} to {high:+.4f}"


def whole(value: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,.0f}"


def counted(number: int, noun: str) -> str:
    """Return a number and its noun.

    >>> counted(1, "seed"), counted(2, "seed")
    ('1 seed', '2 seeds')
    """
    return f"{whole(number)} {noun}{'' if number == 1 else 's'}"


def with_range(values: Iterable[float], form: str = "{:.1f}") -> str:
    """Return the median of runs and their range; of one run only its value.

    >>> with_range([3.0, 1.0, 2.0], "{:.0f}"), with_range([4.0])
    ('2<br>1 to 3', '4.0')
    """
    found = list(values)
    middle = form.format(statistics.median(found))
    if len(found) == 1:
        return middle
    return f"{middle}<br>{form.format(min(found))} to {form.format(max(found))}"


def rows_of(result: Result, part: str = "all") -> dict[str, dict[str, Any]]:
    """Return the rows of an evaluation for one slice of its targets, by model."""
    rows = result["figures"]["evaluation"]["rows"]
    return {row["model"]: row for row in rows if row["slice"] == part}


def ranked(rows: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that rank: first the tracker's, as in NAMES, then the others, best first."""
    found = [row for row in rows.values() if row["n"] and "ndcg_at_10" in row]
    order = list(NAMES)

    def key(row: dict[str, Any]) -> tuple[float, float]:
        is_ours = row["model"].startswith("tracker")
        return (order.index(row["model"]), 0.0) if is_ours else (len(order), -row["ndcg_at_10"])

    return sorted(found, key=key)


def best_simple(result: Result) -> dict[str, Any]:
    """Return the row of the best method that is not the tracker."""
    rows = [row for row in ranked(rows_of(result)) if not row["model"].startswith("tracker")]
    return max(rows, key=lambda row: row["hit_rate_at_10"])


def difference(result: Result, against: str, metric: str) -> list[float] | None:
    """Return how far the tracker is ahead of a model: mean, low, high."""
    for one in result["figures"]["evaluation"]["differences"]:
        if (one["against"], one["metric"]) == (against, metric) and one["ci"]:
            return [one["mean"], *one["ci"]]
    return None


def quality_table(result: Result) -> str:
    """Return all models of an evaluation, and the tracker's lead over each."""
    lines = [
        [
            NAMES.get(row["model"], row["model"]),
            share(row["hit_rate_at_10"]),
            share(row["ndcg_at_10"]),
            gain(difference(result, row["model"], "hit_rate_at_10")),
            gain(difference(result, row["model"], "ndcg_at_10")),
        ]
        for row in ranked(rows_of(result))
    ]
    head = ["", "HR@10", "NDCG@10", *(f"{LEAD}: {metric}" for metric in ("HR@10", "NDCG@10"))]
    return table(head, lines)


def summary(result: Result) -> str:
    """Return what an evaluation says, in two sentences."""
    rows, best, told = rows_of(result), best_simple(result), result["figures"]["evaluation"]
    served = rows["tracker_served"]["hit_rate_at_10"]
    lead = served / best["hit_rate_at_10"] - 1.0
    name = short_name(best["model"])
    return (
        f"{whole(told['targets'])} targets of {whole(told['users'])} users, among"
        f" {whole(told['items'])} items. The served list of ten holds the next item for"
        f" **{percent(served)}** of the targets. The best simple method ({name}) finds"
        f" {percent(best['hit_rate_at_10'])}; the tracker finds {percent(abs(lead), 0)}"
        f" {'more' if lead >= 0 else 'fewer'}."
    )


def quality(name: str) -> Block:
    """Return the block of one case: summary, table, source."""

    def block(results: Results) -> str:
        result = results[name]
        return "\n\n".join([summary(result), quality_table(result), source(result)])

    return block


def training(*names: str) -> Block:
    """Return the block of what trainings chose, and how long they and the evaluations took."""

    def block(results: Results) -> str:
        lines = []
        for name in names:
            result = results[name]
            told, fit = result["figures"]["evaluation"], result["figures"]["training"]
            encoder, chosen = fit["encoder"], fit["half_lives"]
            lines.append(
                [
                    name,
                    whole(fit["events"]),
                    ", ".join(period(seconds) for seconds in chosen["seconds"]) if chosen else "",
                    f"{encoder['dim']}, {encoder['dropout']:g}" if encoder else "",
                    f"{fit['seconds']:.0f} s",
                    f"{told['seconds']:.0f} s",
                    f"{result['machine']['load_average']:.0f}",
                ]
            )
        head = [
            "", "events", "half-lives", "encoder: width, dropout", "training", "evaluation",
            "load average",
        ]  # fmt: skip
        return table(head, lines)

    return block


def period(seconds: float) -> str:
    """Return a time in its largest whole unit.

    >>> period(1800.0), period(86400.0)
    ('30 min', '1 d')
    """
    for unit, size in (("d", 86400.0), ("h", 3600.0)):
        if seconds >= size and seconds % size == 0.0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 60.0:.0f} min"


def cold(name: str) -> Block:
    """Return the block of targets whose item had no event before the cut."""

    def block(results: Results) -> str:
        rows = rows_of(results[name], "cold_items")
        if not rows:
            return "No target is of an item without an earlier event."
        found = ranked(rows)
        count = whole(found[0]["n"])
        served = rows["tracker_served"]["hit_rate_at_10"]
        simple = [row for row in found if not row["model"].startswith("tracker")]
        best = max(simple, key=lambda row: row["hit_rate_at_10"])
        lines = [
            [NAMES.get(row["model"], row["model"]), share(row["hit_rate_at_10"]),
             share(row.get("hit_rate_at_20")), share(row["ndcg_at_10"])]
            for row in found
        ]  # fmt: skip
        text = (
            f"{count} targets are of items that have no event before the cut. The served list finds"
            f" {percent(served)} of them, the best simple method"
            f" ({NAMES.get(best['model'], best['model'])}) {percent(best['hit_rate_at_10'])}."
        )
        return f"{text}\n\n{table(['', 'HR@10', 'HR@20', 'NDCG@10'], lines)}"

    return block


def beyond_accuracy(name: str) -> Block:
    """Return the block of coverage, novelty and diversity."""

    def block(results: Results) -> str:
        lines = [
            [NAMES.get(row["model"], row["model"]), f"{percent(row['coverage'])}",
             f"{row['novelty']:.2f}", share(row["diversity"])]
            for row in ranked(rows_of(results[name]))
            if row.get("coverage") is not None and row.get("diversity") is not None
        ]  # fmt: skip
        return table(["", "coverage", "novelty (bits)", "diversity"], lines)

    return block


def probabilities(*names: str) -> Block:
    """Return the block of probabilities: a table for each case that has labels."""

    def block(results: Results) -> str:
        parts = []
        for name in names:
            rows = [row for row in rows_of(results[name]).values() if row.get("auc") is not None]
            if not rows:
                parts.append(f"`{name}`: no event is labelled, so no probability is learned.")
                continue
            lines = [
                [
                    "**tracker**" if row["model"] == "tracker" else NAMES[row["model"]],
                    with_interval(row["auc"], row["ci"]["auc"]),
                    with_interval(row["user_auc"], row["ci"]["user_auc"]),
                    share(row["log_loss"]),
                    f"{row['ece']:.4f} ({row['ece_noise_floor']:.4f})",
                ]
                for row in rows
            ]
            head = ["", "AUC", "AUC within users", "log loss", "ECE (floor)"]
            count = whole(rows[0]["labelled"])
            parts.append(f"`{name}`, {count} labelled events:\n\n{table(head, lines)}")
        return "\n\n".join(parts)

    return block


SYSTEMS = ("tracker", "Quix Streams", "Bytewax", "textbook Faust", "bare loop", "echo")
"""Programs in the order of the pages."""


def throughput(results: Results) -> str:
    """Return events per second and processor time of all systems, medians of the runs."""
    result = results["pipeline"]
    figures, lines = result["figures"], []
    laws = [law for law in ("uniform", "zipf") if law in figures]
    for system in (one for one in SYSTEMS if all(one in figures[law] for law in laws)):
        line = [f"**{system}**" if system == "tracker" else system]
        for law in laws:
            runs, ours = figures[law][system], median_rate(figures[law]["tracker"])
            line += [
                with_range((run["events_per_second"] for run in runs), "{:,.0f}"),
                "" if system == "tracker" else f"{ours / median_rate(runs):.2f}",
                f"{statistics.median(run['cpu_microseconds'] for run in runs):.0f} µs",
            ]
        lines.append(line)
    head = [""]
    for law in laws:
        head += [f"{law} users, events/s", "tracker / it", "processor time per event"]
    runs = figures[laws[0]]["tracker"]
    lists = " and ".join(
        f"{whole(statistics.median(run['outputs'] for run in figures[law]['tracker']))} ({law})"
        for law in laws
    )
    text = (
        f"{whole(figures['items'])} items, {whole(figures['users'])} users,"
        f" {whole(runs[0]['events'])} events, {len(runs)} runs of each, in turn. Medians, and the"
        f" range of the runs. The tracker sent {lists} lists: by default one list per user and"
        " chunk. The others answer each event."
    )
    return figure(head, lines, result, text=text)


def median_rate(runs: Sequence[Mapping[str, float]]) -> float:
    """Return the median of the runs' events per second."""
    return statistics.median(run["events_per_second"] for run in runs)


QUANTILE_TITLES = ("p50, ms", "p95, ms", "p99, ms")


def quantiles(runs: Sequence[Mapping[str, float]], form: str, before: str = "") -> list[str]:
    """Return the cells of QUANTILE_TITLES, each with the range of the runs.

    Args:
        runs: figures of each run.
        form: format of a number.
        before: what stands before `p50`, `p95` and `p99` in their names.
    """
    names = (f"{before}{name}" for name in ("p50", "p95", "p99"))
    return [with_range((run[name] for run in runs), form) for name in names]


def latency(results: Results) -> str:
    """Return quantiles of the latency at each rate, medians of the runs, of each program."""
    result = results["latency"]
    lines = []
    for system in SYSTEMS:
        for rate, runs in by_rate(result, system).items():
            line = [f"**{system}**" if system == "tracker" else system, whole(rate), str(len(runs))]
            lines.append(line + quantiles(runs, "{:.0f}"))
    head = ["", "events/s", "runs", *QUANTILE_TITLES]
    return figure(head, lines, result)


def http_api(results: Results) -> str:
    """Return quantiles of answers over HTTP and of lists on the topic, alone and together."""
    return _asked(results["http-api"])


def http_api_slower(results: Results) -> str:
    """Return the same of slower cores."""
    return _asked(results["http-api-slower"])


def _asked(result: Result) -> str:
    """Return quantiles of answers over HTTP and of lists on the topic, alone and together."""
    figures = result["figures"]
    rows = {
        "an answer, nothing streams": "idle",
        "an answer, events stream": "busy",
        "a list, nobody asks": "alone",
        "a list, clients ask": "both",
    }
    lines = []
    for title, part in rows.items():
        lines.append([title, *quantiles([one[part] for one in figures["rounds"]], "{:.1f}")])
    answers = [one["busy"]["p99"] / one["idle"]["p99"] for one in figures["rounds"]]
    lists = [one["both"]["p99"] / one["alone"]["p99"] for one in figures["rounds"]]
    text = (
        f"{figures['requests']:g} requests a second for lists, {whole(figures['events'])} events a"
        f" second, {whole(figures['items'])} items, {counted(len(answers), 'round')}."
        f" While events stream, the p99 of answers is {statistics.median(answers):.1f} times what"
        f" it is otherwise. While clients ask, that of lists on the topic is"
        f" {statistics.median(lists):.2f} times what it is otherwise."
    )
    return figure(["", *QUANTILE_TITLES], lines, result, text=text)


def by_rate(result: Result, system: str = "tracker") -> dict[float, list[dict[str, float]]]:
    """Return the runs of a program in the latency's file by their rate."""
    found: dict[float, list[dict[str, float]]] = {}
    for run in result["figures"]["latency_ms"].get(system, []):
        found.setdefault(run["rate"], []).append(run)
    return dict(sorted(found.items()))


def faults(results: Results) -> str:
    """Return what random walks with one broker left, and the pauses of each action."""
    return _walk(results["faults"])


def faults_three(results: Results) -> str:
    """Return the same of walks with three brokers."""
    return _walk(results["faults-three"])


def faults_again(results: Results) -> str:
    """Return the same of later walks with one broker."""
    return _walk(results["faults-again"])


def faults_more(results: Results) -> str:
    """Return the same of the newest walks with one broker."""
    return _walk(results["faults-more"])


def faults_three_again(results: Results) -> str:
    """Return the same of later walks with three brokers."""
    return _walk(results["faults-three-again"])


def broker_killed(results: Results) -> str:
    """Return the pauses of walks in which nothing happens but that the broker is killed."""
    return _walk(results["broker-killed"])


WALKS = ("faults", "faults-again", "faults-more", "faults-three", "faults-three-again",
         "faults-plain", "broker-killed")  # fmt: skip
"""Results of walks that a model judged."""


def draws(commands: Sequence[str]) -> int:
    """Return how many different actions walks drew: a seed draws the same ones again.

    >>> draws(["--seed 1 --actions 70", "--seed 1 --actions 80", "--seed 2 --actions 30"])
    110
    """
    longest: dict[str, int] = {}
    for seed, actions in re.findall(r"--seed (\d+) --actions (\d+)", "\n".join(commands)):
        longest[seed] = max(longest.get(seed, 0), int(actions))
    return sum(longest.values())


def walks(results: Results) -> dict[str, int]:
    """Return the sums over all walks: actions, seeds, users, items, and what was wrong.

    `actions` are those that were done, `draws` the different ones among them, `calm` those of
    walks in which no worker ended wrongly.
    """
    stored = [results[name] for name in WALKS if name in results]
    found = [one["figures"] for one in stored]
    names = ("users", "items", "lists", "lost", "wrong_users", "wrong_items", "wrong_lists",
             "without_list", "wrong_ends")  # fmt: skip
    return {
        "walks": sum(len(one["seeds"]) for one in found),
        "actions": sum(one["faults"] for one in found),
        "draws": sum(draws(one["commands"]) for one in stored),
        "calm": sum(one["faults"] for one in found if not one["numbers"]["wrong_ends"]),
        "seeds": sum(len(set(one["seeds"])) for one in found),
        **{name: sum(one["numbers"][name] for one in found) for name in names},
    }


def faults_total(results: Results) -> str:
    """Return what all walks found together."""
    first = results["faults"]
    all_of, version = walks(results), first["figures"]
    again = all_of["actions"] - all_of["draws"]
    text = (
        f"All walks together: {whole(all_of['draws'])} different actions by {all_of['seeds']}"
        f" seeds. {whole(again)} of them were done a second time, in a second walk of a seed."
        f" Compared in all {all_of['walks']} walks: {whole(all_of['users'])} users,"
        f" {whole(all_of['items'])} items and {whole(all_of['lists'])} lists. Lost:"
        f" {all_of['lost']}. Wrong users: {all_of['wrong_users']}, items:"
        f" {all_of['wrong_items']}, lists: {all_of['wrong_lists']}. Users without a list of their"
        f" last event: {all_of['without_list']}. Workers that hung or ended by a bug:"
        f" {all_of['wrong_ends']}"
    )
    if all_of["wrong_ends"]:
        text += (
            f", all in [the first walks](#one-broker), and mended before their last commit,"
            f" `{first['commit']}`. The walks of the other {whole(all_of['calm'])} actions have"
            " none"
        )
    kafka = (
        f"Apache Kafka {version['kafka']}, `transaction.version` {version['transaction_version']}."
        " The workers' client ends transactions by the protocol before KIP-890's second part."
    )
    return f"{text}.\n\n{kafka}"


def faults_plain(results: Results) -> str:
    """Return the same of walks whose lists are compared with those of an undisturbed worker."""
    return _walk(results["faults-plain"])


def _walk(result: Result) -> str:
    figures = result["figures"]
    count, seeds = figures["numbers"], counted(len(set(figures["seeds"])), "seed")
    brokers = "one broker" if figures["brokers"] == 1 else f"{figures['brokers']} brokers"
    text = (
        f"Apache Kafka {figures['kafka']} (`transaction.version`"
        f" {figures['transaction_version']}), {brokers}, {figures['workers']} workers, a session"
        f" timeout of {figures['session_timeout']:g} s. {whole(figures['faults'])} actions by"
        f" {seeds}, {whole(count['events'])} events, {whole(count['rejected'])} records that"
        f" are not events. Compared: {whole(count['users'])} users, {whole(count['items'])} items,"
        f" {whole(count['lists'])} lists, of which {whole(count['repeated'])} repeated another with"
        " the same id."
    )
    if compared := count.get("compared_lists", 0):
        text += f" {whole(compared)} of them were compared with those of an undisturbed worker."
    if unsure := count.get("unsure_users", 0):
        text += (
            f" For {whole(unsure)} of the users more than one state would be right, because it is"
            " known only roughly when a worker changed to another index."
        )
    if len(commits := figures.get("commits", {})) > 1:
        by_commit = (
            f"`{one}`: {', '.join(map(str, of_it))}" for one, of_it in sorted(commits.items())
        )
        text += f" Seeds by commit: {'; '.join(by_commit)}."
    for action, row in figures["actions"].items():
        if "after_median" in row:
            text += (
                f" A part of the pause of *{action}* is the time until the broker listens again."
                f" From then to the last partition's first list it took"
                f" {row['after_median']:.1f} s in the median of {row['after_times']} that were"
                f" alone, {row['after_longest']:.1f} s at most."
            )
    names = (
        ("records that the broker had confirmed and lost", "lost"),
        ("wrong users", "wrong_users"),
        ("wrong items", "wrong_items"),
        ("wrong lists, or lists without an event", "wrong_lists"),
        ("users without a list of their last event", "without_list"),
        ("wrong rejections", "wrong_rejections"),
        ("workers that hung or ended by a bug", "wrong_ends"),
    )
    wrong = table(("", "number"), [(name, whole(count[key])) for name, key in names])
    pauses = table(
        ("action", "times", "longest pause, s", "alone", "median, s", "longest, s"),
        [
            (
                action, str(row["times"]), f"{row['longest']:.1f}", str(row["clean"]),
                *(
                    "" if row[key] is None else f"{row[key]:.1f}"
                    for key in ("clean_median", "clean_longest")
                ),
            )
            for action, row in figures["actions"].items()
        ],
    )  # fmt: skip
    return "\n\n".join([text, wrong, pauses, source(result)])


def faults_trained(results: Results) -> str:
    """Return what a run with trained models left, against an undisturbed run."""
    plan, outcome = (results["faults-trained"]["figures"][key] for key in ("plan", "outcome"))
    count = outcome["numbers"]
    lines = [
        [
            "trained, learning online" if plan["trained"] else "not trained",
            str(plan["workers"]),
            whole(plan["events"]),
            f"kills: {plan['kills']}, stops: {plan['terms']}, freezes: {plan['freezes']}",
            f"{count['wrong_users']} of {whole(outcome['users'])}",
            f"{count['wrong_items']} of {whole(outcome['items'])}",
            str(count["without_list"]),
            str(count["hung"] + count["died_by_themselves"]),
        ]
    ]
    head = [
        "", "workers", "events", "faults", "wrong users", "wrong items", "without a list",
        "workers that hung or died by themselves",
    ]  # fmt: skip
    return figure(head, lines, results["faults-trained"])


def ablation(results: Results) -> str:
    """Return each variant, and its difference from the full model."""
    result = results["ablation"]
    lines = []
    for one in result["figures"]["variants"]:
        against = one.get("against")
        name = f"**{one['name']}**" if against is None else one["name"]
        if against not in (None, "full model"):
            name += f" (against {against})"
        lines.append(
            [name, share(one["hit_rate_at_10"]), share(one["ndcg_at_10"]),
             gain(one.get("difference"))]
        )  # fmt: skip
    head = ["", "HR@10", "NDCG@10", "difference in NDCG@10"]
    count = f"{whole(result['figures']['targets'])} targets."
    return figure(head, lines, result, text=count)


def stream_parts(results: Results) -> str:
    """Return what each part is worth on each made-up stream: differences that are not chance."""
    result = results["stream-parts"]
    found = {
        name: {variant["name"]: variant for variant in one["variants"]}
        for name, one in result["figures"]["streams"].items()
    }
    names = list(dict.fromkeys(name for one in found.values() for name in one))
    lines = []
    for name in names:
        cells = []
        for one in found.values():
            variant = one.get(name)
            if variant is None:
                cells.append("")
            elif "difference" not in variant:
                cells.append(share(variant["ndcg_at_10"]))
            else:
                mean, low, high = variant["difference"]
                cells.append("chance" if low <= 0.0 <= high else f"{mean:+.4f}")
        lines.append([f"**{name}**" if name == names[0] else name, *cells])
    return figure(["NDCG@10", *found], lines, result)


def streams(results: Results) -> str:
    """Return what is served on each made-up stream, beside the best baseline and the best list."""
    result = results["streams"]
    lines = []
    for name, one in result["figures"]["corners"].items():
        models, best = one["models"], one["best"]
        baseline, of_baseline = best_baseline(one)
        part = reached(one)
        gap = f"{100.0 * part['of_gap']:.0f} %" if part["gap"] > WORTH else "small"
        lines.append(
            [name, share(models["tracker_served"]["hit_rate_at_10"]),
             share(models["tracker"]["hit_rate_at_10"]),
             f"{share(of_baseline)} ({short_name(baseline)})",
             share(best["hit_rate_at_10_drawn"]), share(best["hit_rate_at_10"]), gap,
             ", ".join(missed(one)) or "all met"]
        )  # fmt: skip
    head = ["HR@10", "as served", "every item ranked", "best simple method", "best possible",
            "the same in the mean", "share of the gap", "bars"]  # fmt: skip
    return figure(head, lines, result)


def learnable(results: Results) -> str:
    """Return how much of the gap on each made-up stream can be learned from its events."""
    result, corners = results["learnable"], results["streams"]["figures"]["corners"]
    lines = []
    for name, one in result["figures"]["streams"].items():
        if name not in corners:
            continue
        served = corners[name]["models"]["tracker_served"]["hit_rate_at_10"]
        _, baseline = best_baseline(corners[name])
        learned, best = one["learned_drawn"], one["best_drawn"]
        gap = best - baseline
        part = f"{100.0 * (learned - baseline) / gap:.0f} %" if gap > WORTH * baseline else "small"
        lines.append(
            [name, share(baseline), share(served), share(learned), share(best), part,
             share(one["learned"]), share(one["best"])]
        )  # fmt: skip
    head = ["HR@10", "best simple method", "as served", "the learner", "best possible",
            "share of the gap that the learner closes", "the learner in the mean",
            "best possible in the mean"]  # fmt: skip
    return figure(head, lines, result)


def stream_baselines(results: Results) -> str:
    """Return every model's HR@10 on each made-up stream."""
    corners = results["streams"]["figures"]["corners"]
    names = list(dict.fromkeys(model for one in corners.values() for model in one["models"]))
    lines = [
        [name, *(_of_model(one["models"].get(model)) for model in names)]
        for name, one in corners.items()
    ]
    return table(["HR@10", *(short_name(model) for model in names)], lines)


def _of_model(row: Mapping[str, float] | None) -> str:
    return "" if row is None else share(row["hit_rate_at_10"])


def training_sizes(results: Results) -> str:
    """Return time, memory and quality of trainings and evaluations, by events and items."""
    result, lines = results["train"], []
    for point in result["figures"]["points"]:
        found = point.get("own")
        if not found:
            continue
        size = f"{whole(point['events'])} events, {whole(point['items'])} items"
        line = [size if point["events"] else "all films"]
        for command in ("train", "evaluate"):
            took = found.get(command)
            line += (
                [""] * 3
                if took is None
                else [
                    f"{took['processor']:,.0f} s",
                    f"{took['clock']:,.0f} s",
                    f"{took['memory_mib']:,.0f} MiB",
                ]
            )
        rate, quality = found.get("events_per_second"), found.get("ndcg_at_10", {})
        line.append("" if rate is None else whole(rate))
        line.append(share(quality["tracker"]) if "tracker" in quality else "")
        lines.append(line)
    head = [""]
    for command in ("training", "evaluation"):
        head += [f"{command}: processor", "clock", "memory"]
    return figure([*head, "events/s", "NDCG@10"], lines, result)


def carry_over(results: Results) -> str:
    """Return what lists are worth after a swap of the artifact, beside a full replay."""
    result = results["carry-over"]
    figures, lines = result["figures"], []
    for part, name in (("right_after", "the first targets after the swap"), ("all", "all targets")):
        one = figures[part]
        line = [f"{name} ({whole(one['targets'])})"]
        for metric in ("hit_rate_at_10", "ndcg_at_10"):
            line += [
                share(one[metric]["after_swap"]),
                share(one[metric]["after_replay"]),
                gain(one[metric]["difference"]),
            ]
        lines.append(line)
    head = [""]
    for metric in ("HR@10", "NDCG@10"):
        head += [f"{metric} after the swap", "after a full replay", "difference"]
    swap, same = figures["with_a_refit"], figures["without_a_refit"]
    changed = same["lists_changed"]
    equal = f"changed {whole(changed)} lists" if changed else "every list stayed the same"
    text = (
        f"The states of {whole(swap['rebuilt'])} of {whole(swap['users'])} users were made again"
        f" from their rings, in {swap['seconds']:.1f} s. A swap without a refit rebuilt"
        f" {whole(same['rebuilt'])} states, and {equal}."
    )
    return figure(head, lines, result, text=text)


def late_events(results: Results) -> str:
    """Return what an event costs that comes in order, and one that comes late."""
    result = results["late-events"]
    lines = []
    for one in result["figures"]["microseconds"]:
        held = "all in the ring" if one["fit"] else "more than the ring holds"
        lines.append(
            [f"{one['events']}, {held}", "yes" if one["with"] == "encoder" else "no",
             f"{one['in_order']:.1f}", f"{one['late']:.1f}"]
        )  # fmt: skip
    head = ["events of the user", "user encoder", "in order, µs", "late, µs"]
    return figure(head, lines, result)


def neighbours(results: Results) -> str:
    """Return how much of an unbounded count the bounded lists hold."""
    lines = []
    names = ("neighbours-films", "neighbours-groceries")
    for name in names:
        for one in results[name]["figures"]["lists"]:
            lines.append(
                [name.partition("-")[2], str(one["strongest"]), f"{percent(one['overlap'])}",
                 f"{percent(one['strength'])}"]
            )  # fmt: skip
    head = ["", "strongest", "the same items", "of the strength"]
    return figure(head, lines, *(results[name] for name in names))


RULES = {
    "none": "raw",
    "mean": "mean taken off",
    "before": "whitened",
    "1000": "1000 / (1000 + N)",
    "5000": "**5000 / (5000 + N)**",
    "20000": "20000 / (20000 + N)",
}
"""Rules of whitening by their names in the results."""


FEWEST_TARGETS = 500
"""With fewer a hit rate is not shown."""


def whitening(measure: str) -> Block:
    """Return a table of one measure by catalogue, size and rule."""

    def block(results: Results) -> str:
        result = results["whitening"]
        lines = [
            [f"{name}, {one['items']:,}"] + [percent(one["rules"][rule][measure]) for rule in RULES]
            for name, sizes in result["figures"]["catalogues"].items()
            for one in sizes
            if measure in one["rules"]["mean"]
            and (measure == "own_category" or one["targets"] >= FEWEST_TARGETS)
        ]
        return figure(["", *RULES.values()], lines, result)

    return block


def new_users(results: Results) -> str:
    """Return the first events of users who were held out whole."""
    result = results["new-users"]
    found = result["figures"]["parts"][0]
    users = result["figures"]["users"]
    models = sorted(
        found["models"],
        key=lambda one: ("tracker" not in one["model"] and "trained" not in one["model"],
                         -one["ndcg_at_10"][0]),
    )  # fmt: skip
    lines = [
        [NAMES.get(one["model"], one["model"]), share(one["hit_rate_at_10"][0]),
         share(one["ndcg_at_10"][0]),
         "" if one["model"] == "tracker" else gain(one["tracker_minus_it_ndcg_at_10"])]
        for one in models
    ]  # fmt: skip
    text = (
        f"{whole(users['held_out'])} of {whole(users['with_attributes'])} households that have"
        f" attributes are held out of the training. Their first events are"
        f" {whole(found['targets'])} targets."
    )
    head = ["", "HR@10", "NDCG@10", f"{LEAD}: NDCG@10"]
    return figure(head, lines, result, text=text)


def scene_change(results: Results) -> str:
    """Return the list of one household in several scenes."""
    result = results["scene-change"]
    figures = result["figures"]
    lines = [[str(place), *cells] for place, cells in enumerate(figures["items"], 1)]
    return "\n\n".join([table(["", *figures["scenes"]], lines, "---"), source(result)])


STAGES = (
    ("recommend", "**everything**, ranking and reasons included"),
    ("search", "searches by content"),
    ("search by encoder", "search by the user encoder"),
    ("encoder's queries", "the encoder's queries"),
    ("find_candidates", "neighbours, merging of candidates"),
    ("cut_candidates", "first cut"),
    ("fill_features", "features"),
    ("score", "the ranker's network"),
    ("select", "the final list, made diverse"),
    ("encode", "JSON"),
)
"""Stages of a recommendation in a table, by the name that the benchmark gives them."""

SETUPS = {
    "blend": "not trained",
    "network": "trained ranker",
    "network and encoder": "and user encoder",
    "network, encoder and attention": "and scene attention",
}


def recommend(results: Results) -> str:
    """Return the time of one recommendation by stage."""
    parts = []
    for name in ("recommend", "recommend-large"):
        result = results[name]
        times = result["figures"]["microseconds"]
        lines = [
            [title, *(f"{times[one][stage]:.0f}" if stage in times[one] else "" for one in SETUPS)]
            for stage, title in STAGES
        ]
        title = f"{whole(result['figures']['items'])} items, µs per recommendation:"
        parts.append(f"{title}\n\n{table(['', *SETUPS.values()], lines)}\n\n{source(result)}")
    return "\n\n".join(parts)


def bytes_per_user(results: Results) -> str:
    """Return the most bytes of a user's rows, and those after real logs."""
    most = results["bytes-films"]["figures"]["most"]
    text = (
        f"The state has at most **{whole(most['state'])} bytes**, with a user encoder"
        f" {whole(most['state_with_encoder'])}. The second row, for users whose ring is full,"
        f" has at most {whole(most['seen'])}."
    )
    lines = []
    names = ("bytes-films", "bytes-groceries")
    for name in names:
        figures = results[name]["figures"]
        for row, title in (("state", "state"), ("seen", "second row")):
            one = figures[row]
            if one["rows"]:
                lines.append(
                    [f"{name.partition('-')[2]}, {title}", whole(one["rows"]), whole(one["mean"]),
                     whole(one["p50"]), whole(one["p99"]), whole(one["max"])]
                )  # fmt: skip
    head = ["", "rows", "mean", "median", "p99", "max"]
    return figure(head, lines, *(results[name] for name in names), text=text)


def interests(results: Results) -> str:
    """Return whose interests the picture shows, and its source."""
    result = results["interests"]
    figures = result["figures"]
    text = (
        f"User {figures['user']} of the films: {len(figures['moments'])} events, a tick for each."
    )
    return "\n\n".join([text, source(result)])


def finetune(results: Results) -> str:
    """Return what content alone finds, before and after the text encoder was fine-tuned."""
    result = results["finetune"]
    figures = result["figures"]
    before, after = (figures["validation"][name] for name in ("before", "after"))
    lines = [
        [f"{title} ({whole(before[count])})"]
        + [share(one[f"{prefix}{metric}"]) for metric in METRICS for one in (before, after)]
        for title, prefix, count in (
            ("all targets", "", "targets"),
            ("targets of items without an event in training", "cold_", "cold_targets"),
        )
    ]
    head = ["", "HR@10 before", "after", "NDCG@10 before", "after"]
    return figure(head, lines, result)


METRICS = ("hit_rate_at_10", "ndcg_at_10")

DEMOS = {
    "demo": "the shop that comes with it",
    "demo-films": "films, embedded broker",
    "demo-films-kafka": "films, Apache Kafka",
}


def demonstration(results: Results) -> str:
    """Return what the demonstration prints of itself."""
    lines = []
    for name, title in DEMOS.items():
        one = results[name]["figures"]
        times = one["latency_ms"]
        lines.append(
            [
                title,
                whole(one["events"]),
                whole(one["items"]),
                whole(one["events_per_second"]),
                f"{times['p50']:.0f}, {times['p95']:.0f}, {times['p99']:.0f} ms",
                str(one["lost"]),
                str(one["users_without_recommendation"]),
            ]
        )
    head = [
        "", "events", "items", "events/s", "latency p50, p95, p99", "lost",
        "users without a list",
    ]  # fmt: skip
    rate = f"{results['demo']['figures']['paced_rate']:.0f}"
    text = f"Latency at {rate} events/s; the other columns at full speed."
    return figure(head, lines, *(results[name] for name in DEMOS), text=text)


def privacy(results: Results) -> str:
    """Return what differential privacy costs at several budgets, and what it spent."""
    result = results["privacy"]
    rows = []
    for name, one in result["figures"].items():
        spent, models = one["privacy"], one["models"]
        title = "no privacy, no encoder" if spent is None else f"epsilon {name}"
        rows.append(
            [
                title,
                "-" if spent is None else f"{spent['spent']:.3f}",
                "-" if spent is None else f"{spent['noise_multiplier']:.2f}",
                *(f"{models[model]['ndcg_at_10']:.4f}" for model in ("tracker_served", "tracker")),
                f"{models['tracker_served']['hit_rate_at_10']:.4f}",
                "-" if models["tracker"]["auc"] is None else f"{models['tracker']['auc']:.3f}",
            ]
        )
    films = rows_of(results["films"])
    rows.append(
        [
            "no privacy, with the encoder", "-", "-",
            *(f"{films[model]['ndcg_at_10']:.4f}" for model in ("tracker_served", "tracker")),
            f"{films['tracker_served']['hit_rate_at_10']:.4f}",
            f"{films['tracker']['auc']:.3f}",
        ]
    )  # fmt: skip
    first = next(one["models"] for one in result["figures"].values())
    trend = first["decayed_popularity"]
    rows.append(
        [NAMES["decayed_popularity"], "-", "-", f"{trend['ndcg_at_10']:.4f}", "",
         f"{trend['hit_rate_at_10']:.4f}", ""]
    )  # fmt: skip
    head = [
        "", "epsilon spent", "noise", "NDCG@10 as served", "every item ranked",
        "HR@10 as served", "AUC of the probability",
    ]  # fmt: skip
    return figure(head, rows, result)
