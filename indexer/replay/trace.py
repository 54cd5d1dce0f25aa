"""One user's interests over time, as figures and as a picture."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from indexer.data.histories import EventLog, event_lines
from indexer.replay.replay import Replay
from tracker.artifact.artifact import Artifact
from tracker.events.batch import events_in
from tracker.events.entries import Reading
from tracker.events.wire import RejectedEventError, hash_id
from tracker.explained import Explained
from tracker.users.readings import interest_strengths
from tracker.users.states import UserStates

MAX_LABELS = 8
"""Labels that are drawn by name; the others share a line."""

OTHERS = "all others"


MARGIN = 0.08
"""Share of the time from the first event to the last that is drawn after the last."""


class TraceError(Explained, ValueError):
    """The user has no events to trace; the message names the user."""


class Moment(msgspec.Struct, frozen=True):
    """A user's interests after an event: shares by label, strongest first."""

    time: float
    item_id: str
    scene: str | None
    interests: dict[str, float]


def trace(
    artifact: Artifact, log: EventLog, user_id: str, names: Mapping[int, str] | None = None
) -> list[Moment]:
    """Replay one user's events through the recommender that serves; return a moment per event.

    An interest of the state is named by the label of its medoid; interests of one label are
    added up. Strengths are decayed to the event's time and add up to 1.

    Args:
        artifact: the artifact.
        log: all events; only the user's are replayed, for a state does not depend on others.
        user_id: the user.
        names: ids, by their hashes, of items that the artifact does not have.

    Raises:
        TraceError: the log has no event of the user.
    """
    names = {} if names is None else names
    if user_id not in log.user_ids:
        raise TraceError(f"no event of user {user_id!r} among the {len(log)} events")
    own = np.flatnonzero(log.users == log.user_ids.index(user_id))
    replay = Replay(artifact, log.take(own))
    moments = []
    for event in range(len(own)):
        replay.advance(event + 1)
        batch, row = replay.log.batch, int(replay.rows[event])
        if batch.retracts[event]:
            name = "a retraction"
        else:
            item = int(batch.items[event])
            name = artifact.vectors.ids[row] if row >= 0 else names.get(item, f"#{item:016x}")
        moments.append(
            Moment(
                time=float(batch.times[event]),
                item_id=name,
                scene=log.scene_names.get(int(batch.scenes[event])),
                interests=_interests(replay.users.states, artifact, float(batch.times[event])),
            )
        )
    return moments


def item_ids(
    paths: Sequence[Path], hashes: Collection[int], reading: Reading | None = None
) -> dict[int, str]:
    """Return the item ids of some hashes, from the lines of the files.

    Raises:
        EventFileError: a file is not there or not of its kind.
    """
    ids: dict[int, str] = {}
    for path in paths:
        for _, _, values in event_lines(path, reading):
            for value in values:
                try:
                    events = events_in(value, None if reading is None else reading.dialect)
                except RejectedEventError:
                    continue
                for event in events:
                    if event.item_id is not None and hash_id(event.item_id) in hashes:
                        ids[hash_id(event.item_id)] = event.item_id
    return ids


def _interests(states: UserStates, artifact: Artifact, now: float) -> dict[str, float]:
    now = max(now, float(states.head["last_time"][0]))
    strengths, _ = interest_strengths(states, np.zeros(1, np.int64), np.array([now]))
    rows = artifact.vectors.row_of(states.interest_heads["medoid"][0])
    shares: dict[str, float] = defaultdict(float)
    total = float(strengths.sum()) or 1.0
    for row, strength in zip(rows.tolist(), strengths[0].tolist(), strict=True):
        if strength > 0.0:
            label = artifact.vectors.label(row) if row >= 0 else ""
            shares[label] += strength / total
    return dict(sorted(shares.items(), key=lambda pair: (-pair[1], pair[0])))


def draw(moments: Sequence[Moment], path: Path, title: str) -> None:
    """Draw the shares over time, stacked, with a tick per event.

    Raises:
        OSError: the picture cannot be written.
    """
    from matplotlib.figure import Figure  # half a second, which only this command pays

    most: dict[str, float] = defaultdict(float)
    for moment in moments:
        for label, share in moment.interests.items():
            most[label] += share
    names = sorted(most, key=lambda label: (-most[label], label))[:MAX_LABELS]
    lines = np.array(
        [[moment.interests.get(name, 0.0) for moment in moments] for name in names]
    ).reshape(len(names), len(moments))
    rest = 1.0 - lines.sum(axis=0)
    rest[[not moment.interests for moment in moments]] = 0.0
    seconds = [moment.time for moment in moments]
    # Without this the shares after the last event would have no width.
    seconds.append(seconds[-1] + max(MARGIN * (seconds[-1] - seconds[0]), 1.0))
    lines, rest = np.hstack([lines, lines[:, -1:]]), np.append(rest, rest[-1])
    times = np.array(seconds).astype("datetime64[s]")
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    labels = [name or "no label" for name in names]
    if rest.max(initial=0.0) > 1e-6:
        lines, labels = np.vstack([lines, rest]), [*labels, OTHERS]
    axes.stackplot(times, lines, labels=labels, step="post")
    axes.plot(times[:-1], np.full(len(moments), 1.02), "|", color="black", markersize=6)
    axes.set_ylim(0.0, 1.05)
    axes.set_ylabel("share of interest")
    axes.set_title(title)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.autofmt_xdate()
    figure.savefig(path, dpi=110)
