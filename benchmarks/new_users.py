"""What attributes are worth for new users: some held out whole, asked for their first events.

A share of the users who have attributes, chosen by a hash of their ids, is taken out of all that
is fitted. One artifact is trained on the events of the others with the attributes of users, and one
without. Then all events are replayed, and each of the first events of the held-out users is asked
for before it streams in, the very first one too.

    python -m benchmarks.new_users --items ITEMS --events EVENTS --users USERS --out FOLDER

What is fitted has seen later events of the other users, with attributes and without alike.
"""

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.results import add_option, store
from indexer.data.histories import EventLog, read_event_log
from indexer.data.users import read_users
from indexer.evaluate.answers import WHOLE, WITHOUT_ATTRIBUTES, Answers, ask_all, make_baselines
from indexer.evaluate.intervals import mean_interval, paired_interval
from indexer.evaluate.metrics import gains_at_k, hits_at_k
from indexer.evaluate.targets import Targets
from indexer.replay.replay import Replay
from tracker.artifact.artifact import Artifact
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id
from tracker.recommend.options import RecommendOptions

FIRST = 3
"""Events of a held-out user that are asked for."""

TRAINED_WITHOUT = "trained_without_attributes"


def is_held_out(user: str, share: float, seed: int) -> bool:
    """Tell whether a user is in a share of all, by a hash of the id.

    >>> 250 < sum(is_held_out(f"user-{n}", 0.3, 0) for n in range(1000)) < 350
    True
    """
    return hash_id(f"{seed}/{user}") / 2.0**64 < share


def write_others(paths: Sequence[Path], held_out: set[str], target: Path) -> int:
    """Write the events of users who are not held out into one file; return how many."""
    count = 0
    with target.open("wb") as out:
        for path in paths:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                for line in file:
                    if msgspec.json.decode(line)["user_id"] not in held_out:
                        out.write(line)
                        count += 1
    return count


def first_events(log: EventLog, rows: NDArray[np.int64], held_out: set[str]) -> NDArray[np.int64]:
    """Return the positions of the first events that can be targets, of each held-out user."""
    chosen = np.array([user in held_out for user in log.user_ids], np.bool_)
    places = np.flatnonzero(chosen[log.users] & log.positive)
    order = np.argsort(log.users[places], kind="stable")
    users = log.users[places[order]]
    starts = np.flatnonzero(np.r_[True, np.diff(users) != 0]) if len(users) else users
    rank = np.arange(len(users)) - np.repeat(starts, np.diff(np.r_[starts, len(users)]))
    return np.sort(places[order][rank < FIRST])


def ask(
    artifact: Artifact, log: EventLog, held_out: set[str], repeats: bool, beside: bool
) -> tuple[Targets, dict[str, Answers]]:
    """Ask an artifact for the first events; `beside`, without attributes and the baselines too."""
    serving = RecommendOptions(seen="keep" if repeats else "exclude")
    replay = Replay(artifact, log, serving)
    ranked = np.arange(len(artifact.vectors)) < artifact.vectors.live
    others = np.array([user not in held_out for user in log.user_ids], np.bool_)
    targets = Targets(
        first_events(log, replay.rows, held_out),
        ranked,
        others[log.users] & (replay.rows >= 0),
        repeats,
    )
    if not beside:
        return targets, ask_all(replay, targets, [])
    full = np.asarray(artifact.vectors.full)
    models, _ = make_baselines(log, replay.rows, targets, full, 1 << 30)
    return targets, ask_all(replay, targets, models, [WHOLE, WITHOUT_ATTRIBUTES])


def report_of(
    answers: dict[str, Answers], log: EventLog, events: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Return a line of each model, with the difference of the tracker from it."""
    users, lines = log.users[events], []
    for name, found in answers.items():
        line: dict[str, Any] = {"model": name}
        for metric, value in (("hit_rate_at_10", hits_at_k), ("ndcg_at_10", gains_at_k)):
            own, ours = value(found.ranks, 10), value(answers[WHOLE.name].ranks, 10)
            line[metric] = [own.mean(), *mean_interval(own, users, 0)]
            line[f"tracker_minus_it_{metric}"] = [
                (ours - own).mean(),
                *paired_interval(ours, own, users, 0),
            ]
        lines.append(line)
    return lines


def main() -> None:
    """Train and ask as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("--items", "--events", "--users"):
        parser.add_argument(name, type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder for what is made")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", action="store_true")
    add_option(parser)
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    with_attributes = read_users(told.users).attributes
    held_out = {user for user in with_attributes if is_held_out(user, told.share, told.seed)}
    others = told.out / "events.jsonl"
    count = write_others(told.events, held_out, others)
    print(f"{len(held_out)} of {len(with_attributes)} users held out, {count} events of the others")
    artifacts = {}
    for name, more in (("with", told.users), ("without", [])):
        root = told.out / name
        command = [sys.executable, "-m", "indexer", "train", "--events", str(others)]
        command += [word for path in told.items for word in ("--items", str(path))]
        command += [word for path in more for word in ("--users", str(path))]
        command += ["--out", str(root), "--seed", str(told.seed)]
        command += ["--repeats"] if told.repeats else []
        print(" ".join(command), flush=True)
        subprocess.run(command, check=True)
        artifacts[name] = Artifact.load(root, None, "cpu")
    scale = artifacts["with"].manifest.interest
    kinds = msgspec.structs.replace(
        Kinds.default(), rating_min=scale.rating_min, rating_max=scale.rating_max
    )
    log = read_event_log(told.events, kinds, time.time())
    targets, answers = ask(artifacts["with"], log, held_out, told.repeats, beside=True)
    _, plain = ask(artifacts["without"], log, held_out, told.repeats, beside=False)
    answers[TRAINED_WITHOUT] = plain[WHOLE.name]
    lengths = log.lengths()[targets.events]
    parts: list[dict[str, Any]] = []
    for title, which in [
        ("all", lengths >= 0),
        *((f"{n} events before", lengths == n) for n in range(FIRST)),
    ]:
        some = {
            name: Answers(found.ranks[which], found.lists[which]) for name, found in answers.items()
        }
        if which.any():
            lines = report_of(some, log, targets.events[which])
            parts.append({"part": title, "targets": int(which.sum()), "models": lines})
            print(json.dumps(parts[-1], indent=2))
    users = {"with_attributes": len(with_attributes), "held_out": len(held_out)}
    store(told.result, {"users": users, "parts": parts})


if __name__ == "__main__":
    main()
