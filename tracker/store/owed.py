"""PendingList: the row of a list that its user waits for."""

import msgspec


class PendingList(msgspec.Struct, array_like=True, gc=False):
    """A recommendation that was postponed; stored with the states, so that it survives a crash.

    Attributes:
        offset: offset of the event that it answers, in the events topic.
        appended: time at which the broker stored that event, in seconds.
        scene: scene of that event.
        backlog: whether it waits for the end of a backlog of old events.
        partition: partition of that event; -1 for the one that the states are of.
        version: version of the list.
    """

    offset: int
    appended: float
    scene: str | None
    backlog: bool
    partition: int = -1
    version: int = 0
