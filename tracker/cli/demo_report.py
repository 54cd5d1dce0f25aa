"""What the demonstration prints for people."""

from rich.table import Table

from tracker.cli.printing import out, recommendation_table
from tracker.demo.input import DemoInput
from tracker.demo.run import DemoResult, Story
from tracker.events.wire import Recommendation

ROWS_BEFORE_AND_AFTER = 10
ROWS_BETWEEN = 3


def print_story(story: Story, found: DemoInput) -> None:
    """Print one user's list before the events, what each changed, and the list after."""
    console = out()
    known = ", ".join(f"{name} {value}" for name, value in story.attributes.items())
    console.rule(f"{story.user_id}{f' ({known})' if known else ''}")
    if story.before is not None:
        console.print(
            recommendation_table(story.before, found.titles, "before", ROWS_BEFORE_AND_AFTER)
        )
    steps = Table("event", "list after (ms)", "first items of the list", "interests")
    for step in story.steps:
        title = found.titles.get(step.item_id, step.item_id)
        names = [found.titles.get(one.item_id, one.item_id) for one in step.list.items]
        steps.add_row(
            f"{step.kind} {title}",
            f"{step.latency_ms:.0f}",
            "\n".join(names[:ROWS_BETWEEN]),
            _interests(step.list),
        )
    console.print(steps)
    if story.steps:
        last = story.steps[-1]
        caption = f"after, {last.latency_ms:.0f} ms from the last event"
        console.print(recommendation_table(last.list, found.titles, caption, ROWS_BEFORE_AND_AFTER))


def _interests(found: Recommendation) -> str:
    """Sum the interests of one label: a label is a category, and a taste may have several."""
    shares: dict[str, float] = {}
    for one in found.interests:
        shares[one.label] = shares.get(one.label, 0.0) + one.strength
    return "\n".join(f"{label} {share:.0%}" for label, share in shares.items())


def print_demo(result: DemoResult) -> None:
    """Print throughput and latency of a run."""
    console = out()
    console.rule("the whole run")
    table = Table(show_header=False)
    table.add_row("events", f"{result.events:,} of {result.users:,} users, none lost")
    table.add_row("items", f"{result.items:,}, artifact {result.artifact}")
    table.add_row(
        "full speed", f"{result.events_per_second:,.0f} events/s ({result.seconds:.2f} s)"
    )
    latency = result.latency_ms
    table.add_row(
        "latency",
        f"p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms, p99 {latency['p99']:.0f} ms "
        f"at {result.paced_rate:g} events/s",
    )
    table.add_row(
        "recommendations", f"{result.recommendations:,}; every user's last event is in one"
    )
    table.add_row("rejected", f"{result.rejected:,}")
    table.add_row(
        "broker",
        f"{result.broker}; index built in {result.build_seconds:.1f} s, "
        f"worker ready in {result.start_seconds:.1f} s",
    )
    console.print(table)
