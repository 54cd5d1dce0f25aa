"""The command `tracker move-states` in a process that stands still in its middle, to be killed.

`python -m tests.stalled_move PARTITION` says that a partition is moved, and does nothing more.
"""

import sys
import time
from typing import Any
from unittest.mock import patch

import click

from tracker.cli.operate import move_states_command

STALL_SECONDS = 600.0


def main(partition: int) -> None:
    echo = click.echo

    def stall(message: Any = None, **more: Any) -> None:
        echo(message, **more)
        if str(message).startswith(f"partition {partition}:"):
            time.sleep(STALL_SECONDS)

    with patch.object(click, "echo", stall):
        move_states_command.main(["--yes"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
