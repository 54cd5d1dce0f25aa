"""What fails without its protection: `python -m tests.promises` takes each protection out once.

Each row names a promise, a patch that takes its protection out of the process of the tests, and
the tests that have to fail then. The command runs them and prints what failed; a promise whose
tests pass without its protection makes it end with status 1. `tests.promises NAME ...` runs some.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

VARIABLE = "WITHOUT_PROTECTION"


@dataclass(frozen=True)
class Promise:
    """A promise of the docs, how its protection is taken out, and the tests that hold it."""

    name: str
    promise: str
    take_out: Callable[[pytest.MonkeyPatch], object]
    tests: tuple[str, ...]


def _set(target: str, value: Any) -> Callable[[pytest.MonkeyPatch], object]:
    return lambda patch: patch.setattr(target, value)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


async def _no_wait(*args: Any, **kwargs: Any) -> None:
    return None


async def _true(*args: Any, **kwargs: Any) -> bool:
    return True


async def _false(*args: Any, **kwargs: Any) -> bool:
    return False


def _read(store: Any, keys: list[bytes]) -> Any:
    return store._database.get(keys)


def _without_cap(patch: pytest.MonkeyPatch) -> None:
    """Let a user tell an item of any number of events; in plain Python, which is not compiled."""
    from tracker.users import apply

    patch.setattr(apply, "_apply", apply._apply.py_func)  # type: ignore[attr-defined]
    patch.setattr(apply, "flag_of_item", lambda *_: 0)


async def _no_rights(*args: Any) -> list[Any]:
    return []


class _Unfenced:
    async def stop(self) -> None:
        pass


async def _unfenced(*args: Any) -> _Unfenced:
    return _Unfenced()


def _unclipped(patch: pytest.MonkeyPatch) -> None:
    from opacus.optimizers import DPOptimizer

    clip = DPOptimizer.clip_and_accumulate

    def keep_whole(optimizer: Any) -> None:
        most, optimizer.max_grad_norm = optimizer.max_grad_norm, 1e30
        clip(optimizer)
        optimizer.max_grad_norm = most

    patch.setattr(DPOptimizer, "clip_and_accumulate", keep_whole)


PROMISES = (
    Promise(
        "artifact-bounds",
        "an artifact whose positions reach out of it is refused",
        _set("tracker.items.vectors.ItemVectors.problem", _nothing),
        ("tests/tracker/artifact/test_artifact.py -k reach_out",),
    ),
    Promise(
        "index-sizes",
        "an index whose sizes do not agree is refused before FAISS searches it",
        _set("tracker.items.index._problem_of", _nothing),
        ("tests/tracker/items/test_index.py -k no_item_or_two",),
    ),
    Promise(
        "artifact-copy",
        "a published file that is cut does not end a worker",
        _set("tracker.artifact.versions.is_copied", lambda root, cache: False),
        ("tests/tracker/artifact/test_artifact.py -k altered_or_removed",),
    ),
    Promise(
        "fail-closed",
        "a moment's trouble is not taken for a broker without transactions",
        _set("tracker.kafka.cluster._claims_transactions", _false),
        ("tests/tracker/kafka/test_cluster.py -k trouble",),
    ),
    Promise(
        "expired-owner",
        "an owner whose id has expired does not write over another's commits",
        _set("tracker.worker.plane.is_at_end", _true),
        ("tests/tracker/store/test_committer.py -k frozen_owner",),
    ),
    Promise(
        "lists-first",
        "a commit waits for the lists of its events",
        _set("tracker.kafka.outbox.Outbox.wait", _no_wait),
        ("tests/tracker/kafka/test_outbox.py -k failure_is_raised",),
    ),
    Promise(
        "deleted-whole",
        "a user who comes back while the idle state is deleted begins again whole",
        _set("tracker.store.partition_store.PartitionStore._get", _read),
        ("tests/tracker/store/test_idle.py -k deletion_is_committed",),
    ),
    Promise(
        "no-return",
        "what was deleted while a database was away does not come back",
        _set("tracker.worker.transport.empty_if_older", lambda database, time: False),
        ("tests/tracker/worker/test_transport.py -k was_away",),
    ),
    Promise(
        "web-limits",
        "slow, idle and many connections do not hold the web server, and it names no version",
        _set("tracker.worker.web_limits.LimitedRunner._make_server", web.AppRunner._make_server),
        ("tests/tracker/worker/test_web_limits.py",),
    ),
    Promise(
        "stuck-partition",
        "a partition that is stuck is not hidden by others",
        _set("tracker.worker.web.Health.live", lambda health: []),
        ("tests/tracker/worker/test_web.py -k stuck_partition",),
    ),
    Promise(
        "topic-made-again",
        "a topic made again under a running worker ends it by name",
        _set("tracker.worker.source_watch.SourceWatch._problem_of", lambda *_: (None, False)),
        ("tests/tracker/worker/test_source_watch.py",),
    ),
    Promise(
        "privacy-budget",
        "a private training spends no more than its budget",
        _set("indexer.train.privacy.Spending.take", _nothing),
        ("tests/indexer/train/test_privacy.py -k no_more_than_the_budget",),
    ),
    Promise(
        "privacy-clip",
        "a user moves a step of a private training by a bounded length",
        _unclipped,
        ("tests/indexer/train/test_privacy.py -k no_more_than_the_clip",),
    ),
    Promise(
        "masked-passwords",
        "a password in a URL is not shown",
        _set("tracker.explained._SECRETS", re.compile("(?!)")),
        ("tests/tracker/test_settings.py -k password_in_a_url",),
    ),
    Promise(
        "cap-of-a-user",
        "one user moves the counts of an item only so far in an hour",
        _without_cap,
        ("tests/tracker/users/test_ring.py -k five_times_an_hour or forty_others",),
    ),
    Promise(
        "waiting-items",
        "item ids that nobody else knows do not become rows",
        _set(
            "tracker.stream.waiting_items.WaitingItems.divide",
            lambda waiting, events, in_catalogue: (events, {}),
        ),
        ("tests/tracker/stream/test_waiting_items.py -k made_up_ids",),
    ),
    Promise(
        "caches-in-bytes",
        "texts in events do not fill the memory",
        _set("tracker.events.text_caches.TextCaches._is_full", lambda *_: False),
        (
            "tests/tracker/events/test_text_caches.py",
            "tests/tracker/events/test_batch.py -k caches",
        ),
    ),
    Promise(
        "moved-states",
        "after partitions were added no worker starts before the states are moved",
        _set("tracker.store.partition_store.check_place", _nothing),
        ("tests/tracker/store/test_partition_store.py -k fewer_partitions",),
    ),
    Promise(
        "move-in-transactions",
        "states are moved only where a cut cannot lose or double them",
        _set("tracker.lookup.move_states.supports_transactions", _true),
        ("tests/tracker/lookup/test_move_states.py -k could_get_lost",),
    ),
    Promise(
        "replay-roles",
        "a worker takes neither states that a replay builds nor those that it has replaced",
        _set("tracker.store.partition_store.check_role", _nothing),
        ("tests/tracker/store/test_partition_store.py -k serves_or_by_the_replay",),
    ),
    Promise(
        "replay-fences",
        "from the change-over on the former workers can commit nothing",
        _set("tracker.lookup.replay.fenced_producer", _unfenced),
        ("tests/tracker/lookup/test_replay.py -k fences",),
    ),
    Promise(
        "recovered-first",
        "after two rebalances in a row no partition is opened before it is recovered",
        _set("tracker.worker.transport.RecoveryEnd.wait", asyncio.Event.wait),
        ("tests/tracker/worker/test_transport.py -k has_ended_before",),
    ),
    Promise(
        "rights-named",
        "a worker without one of its rights names it, and does not start",
        _set("tracker.kafka.rights.missing_rights", _no_rights),
        ("tests/tracker/kafka/test_rights.py -k named",),
    ),
    Promise(
        "pseudonyms",
        "with a key no id of a user is in states, lists or the log",
        _set("tracker.kafka.pseudonyms._name", lambda maker, user_id: user_id),
        (
            "tests/tracker/stream/test_pseudonyms.py -k no_record_of_a_state",
            "tests/tracker/stream/test_pseudonyms.py -k handed_on_has_no_id",
            "tests/tracker/stream/test_pseudonyms.py -k log_has_pseudonyms",
        ),
    ),
    Promise(
        "key-of-states",
        "states of another key of pseudonyms are not served",
        _set("tracker.store.partition_store.check_names", _nothing),
        ("tests/tracker/stream/test_pseudonyms.py -k refuses_states_of_another_key",),
    ),
    Promise(
        "key-of-the-forgotten",
        "who was forgotten under a former key does not come back",
        _set("tracker.stream.forgotten.check_forgotten", _nothing),
        ("tests/tracker/stream/test_pseudonyms.py -k forgotten_under_other_names",),
    ),
)


def pytest_configure(config: pytest.Config) -> None:
    """Take out the protection that the environment names, as a plug-in of pytest."""
    name = os.environ.get(VARIABLE, "")
    if name:
        patch = pytest.MonkeyPatch()
        next(row for row in PROMISES if row.name == name).take_out(patch)


def failures_without(row: Promise) -> list[str]:
    """Return the tests that fail without the protection of a promise."""
    failed = []
    for tests in row.tests:
        command = [sys.executable, "-m", "pytest", "-p", "tests.promises", "-q", "-n0", "--no-cov"]
        # What a failed test leaves open would end the run before it names the tests that failed.
        command += ["-p", "no:unraisableexception"]
        done = subprocess.run(
            [*command, "--tb=no", *tests.split(" ", 2)],
            env={**os.environ, VARIABLE: row.name},
            capture_output=True,
            text=True,
            check=False,
        )
        failed += re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if done.returncode < 0:  # the process was ended, by SIGBUS for example
            failed.append(f"{tests} ended by signal {-done.returncode}")
    return failed


def main() -> int:
    """Run the tests of each promise without its protection, and print what failed."""
    names = sys.argv[1:]
    held = True
    for row in PROMISES:
        if names and row.name not in names:
            continue
        failed = failures_without(row)
        held &= bool(failed)
        lines = [f"{'held' if failed else 'NOT HELD'}  {row.name}: {row.promise}"]
        lines += [f"    failed without it: {test}" for test in failed]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
