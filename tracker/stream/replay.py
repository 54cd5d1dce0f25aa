"""Replay: builds states again from the events that live workers have applied, without lists."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Replay:
    """Says how far states may be built beside those of live workers.

    An event that they have not committed stays unread: who applies it first makes its list.

    Attributes:
        of: name of the tracker whose events are replayed.
        limits: offset by partition of the events topic, up to which its workers have committed.
        is_final: whether the limits move no more.
        has_ended: whether they were reached.
    """

    of: str
    limits: dict[int, int] = field(default_factory=dict)
    is_final: bool = False
    has_ended: bool = False

    def limit(self, partition: int) -> int:
        """Return the offset before which events of a partition may be applied."""
        return self.limits.get(partition, 0)
