"""Lines of a file that are left out: how many by reason, and the first of them."""

from collections import Counter
from dataclasses import dataclass, field

MAX_NAMED = 10
"""Maximum number of lines named in a message."""

_MAX_LETTERS = 200


@dataclass
class BadLines:
    """Lines left out, counted by reason; the first ten of each reason with place and message.

    Attributes:
        counts: number of lines by reason.
        first: the first lines of each reason, as messages name them.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, place: str, message: str) -> None:
        """Count a line, and keep it if it is among the first of its reason."""
        self.counts[reason] += 1
        lines = self.first.setdefault(reason, [])
        if len(lines) < MAX_NAMED:
            more = "..." if len(message) > _MAX_LETTERS else ""
            lines.append(f"{place}: {message[:_MAX_LETTERS]}{more}")

    def __len__(self) -> int:
        """Return the number of lines left out."""
        return self.counts.total()

    def named(self) -> list[str]:
        """Return lines that name each reason with its count, and up to ten lines in all.

        Each reason gets as many lines as the others, as far as it has them.

        >>> bad = BadLines()
        >>> bad.add("not_json", "a.jsonl, line 3", "not JSON")
        >>> bad.named()
        ['not_json (1):', '  a.jsonl, line 3: not JSON']
        """
        reasons = [reason for reason, _ in self.counts.most_common()]
        shares = dict.fromkeys(reasons, 0)
        free = MAX_NAMED
        for turn in range(MAX_NAMED):
            for reason in reasons:
                if free and len(self.first[reason]) > turn:
                    shares[reason] += 1
                    free -= 1
        lines = []
        for reason in reasons:
            lines.append(f"{reason} ({self.counts[reason]:,}):")
            lines += [f"  {line}" for line in self.first[reason][: shares[reason]]]
        return lines

    def text(self) -> str:
        """Return the lines of `named`, indented, each after a line break; "" if there are none."""
        return "".join(f"\n  {line}" for line in self.named())
