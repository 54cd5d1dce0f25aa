"""Walks by their seeds, and the table of what they found."""

import argparse
import asyncio
import json
import logging
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.results import add_option, commit, store
from tests.faults import SESSION_SECONDS
from tests.walk.brokers import Brokers
from tests.walk.calm import calm_lists
from tests.walk.judge import judge
from tests.walk.walk import Plan, Walk

NAMED = 5
"""Wrong things of a kind that are printed."""

Result = dict[str, Any]


def walk(plan: Plan, folder: Path) -> Result:
    """Walk once and judge it; return the result as JSON can hold it."""
    brokers = Brokers(folder / "kafka", plan.brokers)

    async def go() -> Result:
        one = Walk(folder, plan, brokers)
        rows = await one.run()
        verdict = await judge(one, rows, await calm_lists(one) if plan.plain else None)
        lists = {
            name: value[:NAMED]
            for name, value in asdict(verdict).items()
            if isinstance(value, list)
        }
        numbers = {
            name: len(value) if isinstance(value, list) else value
            for name, value in asdict(verdict).items()
            if name != "pauses"
        }
        return {
            "plan": asdict(plan),
            "commit": commit(),
            "actions": len(one.journal.done),
            "numbers": numbers,
            "named": {name: found for name, found in lists.items() if found},
            "pauses": verdict.pauses,
            "ends": sum(not end["wrong"] for end in one.journal.ends),
            "clean": not verdict.problems,
            "kafka": brokers.all[0].version,
            "transaction_version": brokers.all[0].features().get("transaction.version", 0),
        }

    with brokers.running():
        return asyncio.run(go())


def merged(results: Sequence[Result]) -> Result:
    """Return the results of several seeds as one."""
    pauses: dict[str, list[Mapping[str, float]]] = {}
    for one in results:
        for action, found in one["pauses"].items():
            pauses.setdefault(action, []).extend(found)
    table = {}
    for action, found in sorted(pauses.items()):
        clean = [one["seconds"] for one in found if one["clean"]]
        table[action] = {
            "times": len(found),
            "longest": max(one["seconds"] for one in found),
            "clean": len(clean),
            "clean_median": statistics.median(clean) if clean else None,
            "clean_longest": max(clean) if clean else None,
        }
        after = [one["after"] for one in found if "after" in one]
        if after:
            table[action] |= {
                "after_times": len(after),
                "after_median": statistics.median(after),
                "after_longest": max(after),
            }
    names = results[0]["numbers"]
    numbers = {name: sum(one["numbers"][name] for one in results) for name in names}
    numbers["most_states"] = max(one["numbers"]["most_states"] for one in results)
    commits: dict[str, list[int]] = {}
    for one in results:
        commits.setdefault(one["commit"], []).append(one["plan"]["seed"])
    return {
        "commits": commits,
        "seeds": [one["plan"]["seed"] for one in results],
        "kafka": results[0]["kafka"],
        "transaction_version": results[0]["transaction_version"],
        "brokers": results[0]["plan"]["brokers"],
        "workers": results[0]["plan"]["workers"],
        "session_timeout": SESSION_SECONDS,
        "faults": sum(one["actions"] for one in results),
        "ends": sum(one["ends"] for one in results),
        "numbers": numbers,
        "actions": table,
        "clean": all(one["clean"] for one in results),
    }


def command_of(result: Result) -> str:
    """Return the command that walks so again."""
    plan = result["plan"]
    told = f" --brokers {plan['brokers']}" if plan["brokers"] > 1 else ""
    told += " --plain" if plan.get("plain") else ""
    if plan.get("only"):
        told += " --only " + " ".join(f'"{name}"' for name in plan["only"])
    return f"python -m tests.faults{told} --seed {plan['seed']} --actions {result['actions']}"


def table(result: Result) -> str:
    """Return a table for people."""
    numbers = result["numbers"]
    lines = [
        f"Apache Kafka {result['kafka']}, transaction.version {result['transaction_version']}"
        f" (clients end transactions by the protocol before KIP-890's second part),"
        f" {result['brokers']} broker(s), {result['workers']} workers,"
        f" session timeout {result['session_timeout']:g} s",
        f"seeds {', '.join(map(str, result['seeds']))}: {result['faults']} actions,"
        f" {numbers['events']} events, {numbers['users']} users and {numbers['items']} items"
        f" compared, {numbers['lists']} lists, of which {numbers['repeated']} repeats by id and"
        f" {numbers['compared_lists']} compared with those of an undisturbed worker",
        f"lost {numbers['lost']}, wrong users {numbers['wrong_users']}, wrong items"
        f" {numbers['wrong_items']}, wrong lists {numbers['wrong_lists']}, users without their list"
        f" {numbers['without_list']}, wrong rejections {numbers['wrong_rejections']}, wrong ends"
        f" {numbers['wrong_ends']}",
        f"{'action':16} {'times':>5} {'longest':>8} {'clean':>5} {'median':>7} {'longest':>7}",
    ]
    for action, row in result["actions"].items():
        told = [
            f"{row[name]:.1f}" if row[name] is not None else "-"
            for name in ("clean_median", "clean_longest")
        ]
        lines.append(
            f"{action:16} {row['times']:5d} {row['longest']:7.1f}s {row['clean']:5d}"
            f" {told[0]:>7} {told[1]:>7}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Walk, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    defaults = Plan()
    parser.add_argument("--seed", type=int, nargs="+", default=[defaults.seed])
    for name in ("actions", "workers", "brokers", "users"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    parser.add_argument("--minutes", type=float, default=0.0, help="no action begins after that")
    parser.add_argument(
        "--plain", action="store_true",
        help="without trend, neighbours and new indexes: lists are those of an undisturbed worker",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="ACTION",
        help="draw from these alone, and wait before each until all workers are ready",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="keep all here; go on with what is there")
    add_option(parser)
    options = parser.parse_args(arguments)
    every = Plan(brokers=options.brokers, plain=options.plain).table
    if unknown := set(options.only) - set(every):
        parser.error(f"no action is called {', '.join(sorted(unknown))}: {', '.join(every)}")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    results: list[Result] = []
    for seed in options.seed:
        folder = (options.folder or Path(tempfile.mkdtemp(prefix="tracker-walk-"))) / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "result.json"
        if kept.exists():
            result = json.loads(kept.read_text())
        else:
            plan = Plan(
                seed, options.actions, options.workers, options.brokers,
                users=options.users, minutes=options.minutes, plain=options.plain,
                only=tuple(options.only),
            )  # fmt: skip
            result = walk(plan, folder)
            kept.write_text(json.dumps(result))
            if result["clean"]:
                for name in ("kafka", "workers", "artifacts"):
                    shutil.rmtree(folder / name, ignore_errors=True)
        results.append(result)
        if result["named"]:
            sys.stdout.write(json.dumps(result["named"], indent=1) + "\n")
        sys.stdout.write(table(merged([result])) + "\n")
        sys.stdout.flush()
        if options.folder is None and result["clean"]:
            shutil.rmtree(folder.parent, ignore_errors=True)
    found = merged(results)
    if len(results) > 1:
        sys.stdout.write(table(found) + "\n")
    commands = [command_of(one) for one in results]
    store(options.result, found, commands)
    return 0 if found["clean"] else 1
