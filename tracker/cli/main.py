"""The console script `tracker`: its commands by import.

A command parses its options, calls one function, prints the result and sets the exit code. Modules
that load torch, FAISS or numba are imported inside the commands that need them: it takes seconds.
"""

import sys

import click

from tracker.cli import look, operate
from tracker.cli.demo import demo
from tracker.cli.printing import err
from tracker.cli.send import send
from tracker.cli.shared import FAILED, OneLineErrors


@click.group(
    cls=OneLineErrors,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(package_name="interest-tracker", message="%(version)s")
def cli() -> None:
    """Turn behaviour events from Kafka into recommendations.

    Settings come from TRACKER_* variables; `tracker doctor` shows and checks them.
    """


for command in (
    send,
    demo,
    operate.broker,
    operate.topics,
    operate.worker,
    operate.compile_command,
    operate.doctor,
    operate.reset_state,
    operate.forget,
    operate.pseudonym_command,
    operate.acls,
    operate.reset_learning_command,
    operate.mend_times_command,
    operate.merge_states_command,
    operate.move_states_command,
    operate.replay,
    look.watch_command,
    look.top_command,
    look.show,
    look.score,
    look.why_command,
    look.export,
    look.export_user_command,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    try:
        cli.main(standalone_mode=True)
    except BrokenPipeError:
        err().print("stopped: the output was closed")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
