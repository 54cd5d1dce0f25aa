"""Output of the commands: tables for people, JSON for programs."""

import datetime
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.columns import Columns
from rich.console import Console, Group
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from tracker.events.wire import Recommendation, RecommendedItem
from tracker.kafka.partitioner import ONE_RULE
from tracker.kafka.topics import TopicReport

if TYPE_CHECKING:
    from tracker.cli.doctor import Check  # brings torch and FAISS, which take seconds to load
    from tracker.lookup.forget import ForgetReport
    from tracker.lookup.top import Present

STATE_STYLES = {"ok": "green", "created": "green", "note": "yellow", "missing": "red"}

WIDTH = 120
"""Columns of what goes into a file or a pipe."""

_encoder = msgspec.json.Encoder()


def out() -> Console:
    """Return the console for results, stdout as it is now; wide if that is not a terminal."""
    width = None if sys.stdout.isatty() else WIDTH
    return Console(file=sys.stdout, width=width, highlight=False)


def err() -> Console:
    """Return the console for progress and logs, stderr as it is now."""
    return Console(file=sys.stderr, highlight=False)


def present_view(present: "Present") -> Group:
    """Return what `tracker top` shows."""
    line = Table.grid(padding=(0, 3))
    line.add_row(*(f"[bold]{text}[/] {name}" for name, text in present.figures.items()))
    lag = Table("partition", Column("waits", justify="right"), title="events that wait")
    for name, waiting in present.lag:
        lag.add_row(name, f"{waiting:,}")
    items = Table("item", Column("lately", justify="right"), title="trending items")
    for item, count in present.items:
        items.add_row(escape(item), f"{count:,.1f}")
    users = Table(
        "user",
        "interest that moved most",
        Column("share", justify="right"),
        Column("in a day", justify="right"),
        title="users seen just now",
    )
    for user, label, share, change in present.interests:
        style = "green" if change >= 0 else "red"
        users.add_row(
            escape(user), escape(label), f"{share:.0%}", f"[{style}]{change:+.0%}[/{style}]"
        )
    return Group(line, Columns([users, items, lag]))


def print_json(value: Any) -> None:
    """Print one line of JSON to stdout."""
    sys.stdout.write(_encoder.encode(value).decode() + "\n")
    sys.stdout.flush()


def progress(hidden: bool = False) -> Progress:
    """Return a progress display on stderr; it draws nothing if that is not a terminal."""
    console = err()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[what]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=hidden or not console.is_terminal,
    )


def print_topics(reports: Sequence[TopicReport]) -> None:
    """Print the topics as a table, with problems and notes below it."""
    table = Table("topic", "name", "partitions", "cleanup", "timestamps", "state")
    for report in reports:
        style = STATE_STYLES.get(report.state, "red")
        table.add_row(
            report.role,
            report.name,
            str(report.partitions or ""),
            report.cleanup,
            report.timestamps,
            f"[{style}]{report.state}[/]",
        )
    console = out()
    console.print(table)
    for report in reports:
        for text in report.problems:
            console.print(f"[red]wrong:[/] {report.name} {text}", soft_wrap=True)
        for text in report.notes:
            console.print(f"[yellow]note:[/] {report.name} {text}", soft_wrap=True)


def print_forget(report: "ForgetReport") -> None:
    """Print what has become of a request to forget a user, and what other places keep."""
    from tracker.lookup.forget import until

    console = out()
    if report.complete:
        console.print(
            f"forgotten in all {report.partitions} partitions: {report.events_taken_out} recent"
            f" events taken out of items, {report.events_left} older ones left in their counts"
            " without a name" if report.was_known else
            f"no state of this user in {report.partitions} partitions; late events are dropped",
            soft_wrap=True,
        )  # fmt: skip
    else:
        places = ", ".join(map(str, report.waiting))
        console.print(
            f"[yellow]not yet done[/] in partitions {places}: the request lies in the topic, and"
            " their workers apply it when they run",
            soft_wrap=True,
        )
    table = Table("place", "keeps", "how long")
    for remainder in report.remainders:
        table.add_row(remainder.place, remainder.what, until(remainder))
    console.print(table)
    console.print(f"request {report.request}: audit records carry this id, not the user's")


def print_check(check: "Check") -> None:
    """Print one check as a line."""
    word = {"ok": "[green]OK  [/]", "note": "[yellow]NOTE[/]"}.get(check.state, "[red]FAIL[/]")
    console = out()
    console.print(f"{word} [bold]{check.name}[/]: ", end="")
    console.print(check.text, markup=False, soft_wrap=True)


def print_recommendation(recommendation: Recommendation) -> None:
    """Print one list in a few lines."""
    console = out()
    console.print(
        f"[bold]{_safe(recommendation.user_id)}[/]  {_when(recommendation.timestamp)}  "
        f"{_safe(recommendation.scene or 'no scene')}  {recommendation.latency_ms:.1f} ms  "
        f"artifact {recommendation.artifact}  [dim]{_safe(recommendation.id)}[/]",
        soft_wrap=True,
    )
    for number, item in enumerate(recommendation.items, 1):
        because = f"  because of {_safe(_reasons_of(item))}" if item.because else ""
        console.print(
            f"  {number:2d}. {_safe(item.item_id)}  {item.score:.3f}  {item.channel}{because}",
            soft_wrap=True,
        )
    if recommendation.interests:
        text = ", ".join(
            f"{_safe(one.label or '?')} {one.strength:.0%} ({one.change:+.0%})"
            for one in recommendation.interests
        )
        console.print(f"  interests: {text}", soft_wrap=True)


def _reasons_of(item: RecommendedItem) -> str:
    """Return the reasons of an item, with their shares if it has them."""
    shares = [f" {share:.0%}" for share in item.shares] or [""] * len(item.because)
    texts = [f"{one}{share}" for one, share in zip(item.because, shares, strict=False)]
    if item.earlier:
        texts.append(f"earlier events {item.earlier:.0%}")
    return ", ".join(texts)


def print_scores(answer: Mapping[str, Any]) -> None:
    """Print the probabilities of positive events of a user on items, the highest first."""
    console = out()
    new = "" if answer["known"] else " (nothing is known of this user)"
    where = f" in {answer['scene']}" if answer["scene"] else ""
    console.print(
        f"[bold]{_safe(str(answer['user_id']))}[/]{new}, {_when(answer['time'])}{_safe(where)}",
        soft_wrap=True,
    )
    table = Table("item", "probability")
    for one in sorted(answer["items"], key=lambda one: -(one["probability"] or 0.0)):
        chance = one["probability"]
        text = "not in the catalogue" if chance is None else f"{chance:.1%}"
        table.add_row(_safe(one["item_id"]), text)
    console.print(table)


def _spread(user: Mapping[str, Any]) -> str:
    """Return the line that names the partitions over which a user's events are spread."""
    text = f"this state is of partition {user['partition']}"
    if "expected_partition" in user:
        text += f", but the user belongs to partition {user['expected_partition']}"
    if "also_in_partitions" in user:
        others = ", ".join(map(str, user["also_in_partitions"]))
        text += f", and partition {others} has another"
    return f"{text}: {ONE_RULE}"


def print_user(user: Mapping[str, Any]) -> None:
    """Print the state of a user."""
    console = out()
    console.print(
        f"[bold]{_safe(str(user['user_id']))}[/]: {user['events']} events "
        f"({user['positives']} positive, {user['negatives']} negative, "
        f"{user['unknown']} of unknown items, {user['retracted']} retracted, "
        f"{user['duplicates']} repeated, {user['too_old']} too old to retract), "
        f"from {_when(user['first_event'])} to {_when(user['last_event'])}, "
        f"{_age(user['last_event_age_seconds'])} ago",
        soft_wrap=True,
    )
    if "expected_partition" in user or "also_in_partitions" in user:
        console.print(f"[bold]{_safe(_spread(user))}[/]", soft_wrap=True)
    if user.get("set_aside"):
        console.print(
            "A row of this user could not be read and was set aside: what it held is missing here."
        )
    table = Table("interest", "strength", "change", "age", "events", "items behind it")
    for one in user["interests"]:
        table.add_row(
            _safe(one["label"] or "?"),
            f"{one['strength']:.0%}",
            f"{one['change']:+.0%}",
            _age(one["age_seconds"]),
            str(one["events"]),
            _safe(", ".join(one["items"])),
        )
    console.print(table)
    if user.get("outlook"):
        ahead = Table("looks for", "labels", "items")
        for one in user["outlook"]:
            labels = ", ".join(f"{of['label'] or '?'} {of['share']:.0%}" for of in one["labels"])
            when = "now" if not one["seconds"] else f"in {_age(one['seconds'])}"
            ahead.add_row(when, _safe(labels), _safe(", ".join(one["items"])))
        console.print(ahead)
    recent = Table("recent item", "age", "weight")
    for one in user["recent"]:
        weight = f"{one['weight']:+.2f}" + (" retracted" if one["retracted"] else "")
        recent.add_row(_safe(one["item_id"]), _age(one["age_seconds"]), weight)
    console.print(recent)


def print_why(answer: Mapping[str, Any]) -> None:
    """Print the way of an item to a user's list."""
    console = out()
    place = answer["place"]
    where = "is not in the list" if place is None else f"is at place {place} of the list"
    console.print(
        f"[bold]{_safe(str(answer['item_id']))}[/] {_safe(answer['label'])} {where} of "
        f"[bold]{_safe(str(answer['user_id']))}[/]",
        soft_wrap=True,
    )
    table = Table("step", "", "")
    for one in answer["steps"]:
        table.add_row(one["step"], "passed" if one["passed"] else "stopped", _safe(one["detail"]))
    console.print(table)
    for reason in (answer["item"] or {}).get("because", ()):
        console.print(f"because of {_safe(reason['item_id'])}: {reason['share']:.0%}")
    parts = (answer["item"] or {}).get("parts")
    if parts is not None:
        scores = Table("part of the score", "")
        scores.add_row("the mean candidate", f"{parts['base']:.4f}")
        for name, value in parts["groups"].items():
            scores.add_row(name, f"{value:+.4f}")
        console.print(scores)
    if answer["remedy"]:
        console.print(f"What would bring it in: {_safe(answer['remedy'])}.", soft_wrap=True)


def print_item(item: Mapping[str, Any]) -> None:
    """Print the state of an item."""
    console = out()
    place = "in the catalogue" if item["in_catalogue"] else "not in the catalogue"
    console.print(
        f"[bold]{_safe(str(item['item_id']))}[/] {_safe(item['label'])} ({place}): "
        f"{item['positives']} positive and {item['negatives']} negative events, "
        f"from {_when(item['first_event'])} to {_when(item['last_event'])}",
        soft_wrap=True,
    )
    counts = Table(*(f"half-life {name}" for name in item["counts"]))
    counts.add_row(*(f"{value:.2f}" for value in item["counts"].values()))
    console.print(counts)
    if item["warming"]:
        console.print(f"still estimated, as the half-life is new: {', '.join(item['warming'])}")
    if item["scenes"]:
        scenes = Table("scene", "count (short)", "count (long)")
        for one in item["scenes"]:
            scenes.add_row(
                _safe(one["scene"] or "none"), f"{one['short']:.2f}", f"{one['long']:.2f}"
            )
        console.print(scenes)
    if item["chosen_together"]:
        near = Table("chosen together with", "together", "right after it")
        for one in item["chosen_together"]:
            near.add_row(_safe(one["item_id"]), f"{one['together']:.2f}", f"{one['next']:.2f}")
        console.print(near)


def _safe(text: str) -> str:
    """Escape markup in text that users sent."""
    return text.replace("[", "\\[")


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # past the year 9999
        return f"{seconds:.0f} s"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
