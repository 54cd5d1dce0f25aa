"""The command `tracker replay` in a process that stands still in its middle, to be killed there.

`python -m tests.stalled_replay OFFSET --of NAME [--change-over]` applies and commits the events of
each partition that are before the offset. Then it says so, and does nothing more.
"""

import sys
from unittest.mock import patch

from tracker.cli.operate import replay
from tracker.stream.replay import Replay
from tracker.worker.replay_end import ReplayEnd

STALL = "all events before offset {} are committed"


def main(offset: int, arguments: list[str]) -> None:
    limit, is_level = Replay.limit, ReplayEnd.is_level
    said = False

    def least(self: Replay, partition: int) -> int:
        return min(limit(self, partition), offset)

    def never(self: ReplayEnd) -> bool:
        nonlocal said
        behind = any(part.store.is_behind for part in self._partitions.values())
        if not said and not behind and is_level(self):
            said = True
            sys.stdout.write(STALL.format(offset) + "\n")
            sys.stdout.flush()
        return False

    with patch.object(Replay, "limit", least), patch.object(ReplayEnd, "is_level", never):
        replay.main(arguments)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
