"""The promises of the docs: how the protection of each is taken out, and the tests that hold it.

`python -m tests.promises` runs them. A test asks that each line of the guarantees and of
SECURITY.md that promises something has a row here, or stands in UNTESTED with the reason.
"""

import asyncio
from dataclasses import dataclass

from aiohttp import web

from tests.promises import ways
from tests.promises.ways import TakeOut, nothing, set_to

WITHOUT, NAMES, OUTCOMES = "WITHOUT_PROTECTION", "PROMISES", "PROMISE_OUTCOMES"
"""Environment variables: the promise whose protection is taken out, the promises whose tests run,
and the file that gets the outcomes."""


@dataclass(frozen=True)
class Promise:
    """A promise of the docs, how its protection is taken out, and the tests that hold it.

    A test is a file and, after `-k`, words of names. `said` are words of the lines of the
    guarantees, or of SECURITY.md, that make the promise; others are made elsewhere in the docs.
    """

    name: str
    promise: str
    take_out: TakeOut
    tests: tuple[str, ...]
    said: tuple[str, ...] = ()


def is_one_of(nodeid: str, tests: str) -> bool:
    """Return whether a test is one of `tests`: of the file, with the words after `-k` in its name.

    >>> is_one_of("a.py::test_that_it_holds[1]", "a.py -k it_holds or that_not")
    True
    """
    file, _, words = tests.partition(" -k ")
    if nodeid.partition("::")[0] != file:
        return False
    return any(
        all(word in nodeid for word in either.split(" and ")) for either in words.split(" or ")
    )


PROMISES = (
    Promise(
        "artifact-bounds",
        "an artifact whose positions reach out of it is refused",
        set_to("tracker.items.vectors.ItemVectors.problem", nothing),
        ("tests/tracker/artifact/test_artifact.py -k reach_out",),
        said=(
            "A damaged version is refused",
            "Every input is checked",
        ),
    ),
    Promise(
        "index-sizes",
        "an index whose sizes do not agree is refused before FAISS searches it",
        set_to("tracker.items.index._problem_of", nothing),
        ("tests/tracker/items/test_index.py -k no_item_or_two",),
        said=("Every input is checked",),
    ),
    Promise(
        "artifact-copy",
        "a published file that is cut does not end a worker",
        set_to("tracker.artifact.versions.is_copied", lambda root, cache: False),
        ("tests/tracker/artifact/test_artifact.py -k altered_or_removed",),
        said=("A damaged version is refused",),
    ),
    Promise(
        "fail-closed",
        "a moment's trouble is not taken for a broker without transactions",
        set_to("tracker.kafka.cluster._claims_transactions", ways.false),
        ("tests/tracker/kafka/test_cluster.py -k trouble",),
        said=(
            "**No transactions**: the broker has none",
            "**A frozen worker comes back**",
        ),
    ),
    Promise(
        "expired-owner",
        "an owner whose id has expired does not write over another's commits",
        set_to("tracker.worker.plane.is_at_end", ways.true),
        ("tests/tracker/store/test_committer.py -k frozen_owner",),
        said=("**A frozen worker comes back**",),
    ),
    Promise(
        "lists-first",
        "a commit waits for the lists of its events",
        set_to("tracker.kafka.outbox.Outbox.wait", ways.no_wait),
        ("tests/tracker/kafka/test_outbox.py -k failure_is_raised",),
        said=(
            "**A list for each user's last event**",
            "Lists are sent **before** the commit",
        ),
    ),
    Promise(
        "deleted-whole",
        "a user who comes back while the idle state is deleted begins again whole",
        set_to("tracker.store.partition_store.PartitionStore._get", ways.read_at_once),
        ("tests/tracker/store/test_idle.py -k deletion_is_committed",),
        said=("**An accepted event in its user's state**",),
    ),
    Promise(
        "no-return",
        "what was deleted while a database was away does not come back",
        set_to("tracker.worker.transport.empty_if_older", lambda database, time: False),
        ("tests/tracker/worker/test_transport.py -k was_away",),
        said=("A person can be forgotten",),
    ),
    Promise(
        "web-limits",
        "slow, idle and many connections do not hold the web server, and it names no version",
        set_to("tracker.worker.web_limits.LimitedRunner._make_server", web.AppRunner._make_server),
        ("tests/tracker/worker/test_web_limits.py",),
        said=("**The HTTP API** answers only",),
    ),
    Promise(
        "stuck-partition",
        "a partition that is stuck is not hidden by others",
        set_to("tracker.worker.web.Health.live", lambda health: []),
        ("tests/tracker/worker/test_web.py -k stuck_partition",),
    ),
    Promise(
        "topic-made-again",
        "a topic made again under a running worker ends it by name",
        set_to("tracker.worker.source_watch.SourceWatch._problem_of", lambda *_: (None, False)),
        ("tests/tracker/worker/test_source_watch.py",),
    ),
    Promise(
        "privacy-budget",
        "a private training spends no more than its budget",
        set_to("indexer.train.privacy.Spending.take", nothing),
        ("tests/indexer/train/test_privacy.py -k no_more_than_the_budget",),
    ),
    Promise(
        "privacy-clip",
        "a user moves a step of a private training by a bounded length",
        ways.unclipped,
        ("tests/indexer/train/test_privacy.py -k no_more_than_the_clip",),
    ),
    Promise(
        "masked-passwords",
        "a token in a file is as long as one in a variable, and a password in a URL is not shown",
        ways.careless_with_secrets,
        (
            "tests/tracker/test_settings.py -k password_in_a_url",
            "tests/tracker/test_settings.py -k too_short_is_refused_from_a_file",
        ),
        said=("**Secrets come as files**",),
    ),
    Promise(
        "cap-of-a-user",
        "one user who floods an item moves its counts only so far in an hour",
        ways.without_cap,
        ("tests/tracker/users/test_ring.py -k five_times_an_hour or forty_others",),
        said=("**Counts of items**", "**Neighbours**"),
    ),
    Promise(
        "waiting-items",
        "made-up item ids of few events do not become rows",
        set_to(
            "tracker.stream.waiting_items.WaitingItems.divide",
            lambda waiting, events, in_catalogue: (events, {}),
        ),
        ("tests/tracker/stream/test_waiting_items.py -k made_up_ids",),
        said=("**Made-up items**",),
    ),
    Promise(
        "caches-in-bytes",
        "texts in events do not fill the memory",
        set_to("tracker.events.text_caches.TextCaches._is_full", lambda *_: False),
        (
            "tests/tracker/events/test_text_caches.py",
            "tests/tracker/events/test_batch.py -k caches",
        ),
        said=("Every input is checked", "**What waits in a worker**"),
    ),
    Promise(
        "moved-states",
        "after partitions were added no worker starts before the states are moved",
        set_to("tracker.store.partition_store.check_place", nothing),
        ("tests/tracker/store/test_partition_store.py -k fewer_partitions",),
    ),
    Promise(
        "move-in-transactions",
        "states are moved only where a cut cannot lose or double them",
        set_to("tracker.lookup.move_states.supports_transactions", ways.true),
        ("tests/tracker/lookup/test_move_states.py -k could_get_lost",),
    ),
    Promise(
        "replay-roles",
        "a worker takes neither states that a replay builds nor those that it has replaced",
        set_to("tracker.store.partition_store.check_role", nothing),
        ("tests/tracker/store/test_partition_store.py -k serves_or_by_the_replay",),
    ),
    Promise(
        "replay-fences",
        "from the change-over on the former workers can commit nothing",
        set_to("tracker.lookup.replay.fenced_producer", ways.unfenced),
        ("tests/tracker/lookup/test_replay.py -k fences",),
    ),
    Promise(
        "recovered-first",
        "after two rebalances in a row no partition is opened before it is recovered",
        set_to("tracker.worker.transport.RecoveryEnd.wait", asyncio.Event.wait),
        ("tests/tracker/worker/test_transport.py -k has_ended_before",),
        said=("**A worker crashes**",),
    ),
    Promise(
        "rights-named",
        "a worker without one of its rights names it, and does not start",
        set_to("tracker.kafka.rights.missing_rights", ways.no_rights),
        ("tests/tracker/kafka/test_rights.py -k named",),
        said=("Give each role its",),
    ),
    Promise(
        "commands-ask-first",
        "a command that lacks a right names it, and has changed nothing",
        ways.without_asking,
        ("tests/tracker/cli/test_rights.py -k lacks",),
    ),
    Promise(
        "pseudonyms",
        "with a key no id of a user is in states, lists or the log",
        set_to("tracker.kafka.pseudonyms._name", lambda maker, user_id: user_id),
        (
            "tests/tracker/stream/test_pseudonyms.py -k no_record_of_a_state",
            "tests/tracker/stream/test_pseudonyms.py -k handed_on_has_no_id",
            "tests/tracker/stream/test_pseudonyms.py -k log_has_pseudonyms",
        ),
        said=("recommendations, changelogs, a worker's disk",),
    ),
    Promise(
        "key-of-states",
        "states of another key of pseudonyms are not served",
        set_to("tracker.store.partition_store.check_names", nothing),
        ("tests/tracker/stream/test_pseudonyms.py -k refuses_states_of_another_key",),
    ),
    Promise(
        "key-of-the-forgotten",
        "who was forgotten under a former key does not come back",
        set_to("tracker.stream.forgotten.check_forgotten", nothing),
        ("tests/tracker/stream/test_pseudonyms.py -k forgotten_under_other_names",),
        said=("the topic of forgettings",),
    ),
    Promise(
        "user-keys",
        "a backup of who was forgotten is not read with the keys that are left",
        set_to("tracker.kafka.user_keys.UserKeys.delete", nothing),
        ("tests/tracker/stream/test_user_keys.py -k backup_of_who or who_comes_back",),
        said=(
            "copies of changelogs and disks",
            "the topic of users' keys",
        ),
    ),
    Promise(
        "keys-with-rows",
        "the key of a row is committed with it, also after a commit that failed",
        set_to("tracker.kafka.user_keys.UserKeys.restore_changes", nothing),
        ("tests/tracker/stream/test_user_keys.py -k aborted",),
    ),
    Promise(
        "encrypted-rows",
        "a row that no worker has encrypted is not taken for one",
        set_to("tracker.store.row_cipher._no_row", lambda value: value),
        ("tests/tracker/stream/test_user_keys.py -k altered_is_set_aside",),
        said=("the topic of users' keys",),
    ),
    Promise(
        "all-or-nothing",
        "of a commit that fails nothing is left",
        ways.commit_whatever_failed,
        ("tests/tracker/store/test_committer.py -k transaction_that_fails",),
        said=(
            "**Default**, on Kafka",
            "**An accepted event in its user's state**",
            "The **position**",
        ),
    ),
    Promise(
        "fenced",
        "an owner that was replaced can commit nothing more",
        ways.own_ids,
        ("tests/tracker/store/test_committer.py -k owner_that_was_replaced",),
        said=(
            "**A frozen worker comes back**",
            "Each partition has its own producer",
        ),
    ),
    Promise(
        "position-last",
        "without transactions an event is not applied twice to a user",
        ways.all_fresh,
        ("tests/tracker/stream/test_user_side.py -k ahead_of_its_position",),
        said=("**An accepted event in its user's state**",),
    ),
    Promise(
        "counted-once",
        "an item counts an event once, however often its block comes",
        set_to("tracker.stream.item_side.ItemSide._past", lambda side, block, sources: block),
        ("tests/tracker/stream/test_item_side.py -k comes_twice",),
        said=(
            "**In its item's counts**",
            "The items' side skips",
        ),
    ),
    Promise(
        "same-id",
        "a list that is sent again has the same id",
        ways.new_list_ids,
        ("tests/tracker/stream/test_hand_over.py -k versions_of_a_users_lists",),
        said=("**What repeats then**",),
    ),
    Promise(
        "lists-in-transactions",
        "transactional lists wait for the commit",
        set_to("tracker.stream.user_side.UserSide._holds_lists", False),
        ("tests/tracker/stream/test_user_side.py -k lists_wait_for_the_commit",),
        said=(
            "**Transactional lists**, on Kafka",
            "**A list for each user's last event**",
        ),
    ),
    Promise(
        "handed-once",
        "an event that is handed on twice counts once",
        set_to("tracker.stream.hand_over.HandOver.taken", nothing),
        ("tests/tracker/stream/test_hand_over.py -k repeat_of_an_origin",),
        said=("**A handed-on event in its user's state**",),
    ),
    Promise(
        "newer-waits",
        "a state of a newer version waits until that version is loaded",
        ways.any_artifact,
        (
            "tests/tracker/users/test_states.py -k newer_artifact",
            "tests/tracker/stream/test_partition.py -k newer_artifact",
        ),
        said=("A worker with the old version does not read",),
    ),
    Promise(
        "rejected-records",
        "a record that cannot be taken goes to the rejected topic",
        set_to("tracker.stream.intake.Intake.count", lambda *_: []),
        ("tests/tracker/stream/test_user_side.py -k bad_records_are_rejected",),
        said=(
            "A record that cannot be taken goes to the rejected topic",
            "the events topic",
        ),
    ),
    Promise(
        "dropped-counted",
        "a list that the broker refuses is counted",
        set_to("tracker.kafka.outbox.Outbox._drop", nothing),
        ("tests/tracker/kafka/test_outbox.py -k dropped",),
        said=("because it is too large, is dropped",),
    ),
    Promise(
        "whole-batches",
        "a broken record takes no other with it",
        set_to("tracker.kafka.records.read_every_record", nothing),
        ("tests/tracker/kafka/test_records.py -k broken_value",),
        said=("the events topic",),
    ),
    Promise(
        "rows-of-users",
        "damaged rows of users are refused before native code reads them",
        set_to("tracker.users.states.UserStates._check", lambda *_: (-1, 0)),
        ("tests/tracker/users/test_states.py -k damaged_bytes",),
        said=(
            "| a changelog |",
            "Every input is checked",
        ),
    ),
    Promise(
        "rows-of-items",
        "damaged rows of items are refused before native code reads them",
        set_to("tracker.items.states.check_items", lambda *_: (-1, 0)),
        ("tests/tracker/items/test_states.py -k damaged_bytes",),
        said=(
            "| a changelog |",
            "Every input is checked",
        ),
    ),
    Promise(
        "blocks-of-items",
        "a damaged block is not applied to items",
        set_to(
            "tracker.events.item_events._checksum",
            lambda block: int.from_bytes(block[4:8], "little"),
        ),
        ("tests/tracker/events/test_item_events.py -k one_bit_altered",),
        said=(
            "the items topic",
            "Every input is checked",
        ),
    ),
    Promise(
        "made-up-offsets",
        "a block with a made-up offset hides no true event",
        set_to("tracker.stream.item_side.ItemSide._check_ends", nothing),
        ("tests/tracker/stream/test_item_side.py -k past_the_end_of_its_source",),
        said=("the items topic",),
    ),
    Promise(
        "made-up-origins",
        "a record of no worker is not taken as handed on",
        set_to("tracker.stream.hand_over.HandOver._problem_of", nothing),
        ("tests/tracker/stream/test_hand_over.py -k made_up_offset or no_worker_wrote",),
        said=("the hand-over topic",),
    ),
    Promise(
        "forgotten-stays",
        "an event from before a user was forgotten does not bring the user back",
        set_to("tracker.stream.forgotten.Forgotten.late", nothing),
        ("tests/tracker/stream/test_forget.py -k late_events",),
        said=(
            "the topic of forgettings",
            "A person can be forgotten",
        ),
    ),
    Promise(
        "erased-files",
        "no file of a database keeps the id of a forgotten user",
        set_to("tracker.worker.eraser.erase_deleted", nothing),
        ("tests/tracker/worker/test_eraser.py -k no_file",),
        said=("A person can be forgotten",),
    ),
    Promise(
        "hashes",
        "a file of an artifact that was altered is not parsed",
        ways.unchecked_files,
        ("tests/tracker/artifact/test_artifact.py -k one_byte_altered",),
        said=("| the artifacts | decide",),
    ),
    Promise(
        "signatures",
        "an artifact that another key, or nobody, has signed is not loaded",
        set_to("tracker.artifact.manifest.check_signature", nothing),
        ("tests/tracker/artifact/test_signature.py -k one_of_another_key",),
        said=("| the artifacts | decide",),
    ),
    Promise(
        "no-links",
        "a link in the place of a file is refused",
        set_to("pathlib.Path.is_symlink", lambda path: False),
        ("tests/tracker/artifact/test_signature.py -k link_in_the_place",),
        said=("| the artifacts | decide",),
    ),
    Promise(
        "damaged-disk",
        "a database with damaged files is read again from Kafka",
        set_to("tracker.store.database.CORRUPT", "(never)"),
        ("tests/tracker/store/test_database.py -k flipped_byte",),
        said=(
            "the data directory of a worker",
            "**A disk is lost**",
        ),
    ),
    Promise(
        "own-folder",
        "nobody else can read a data directory",
        ways.open_folders,
        ("tests/tracker/worker/test_data_dir.py -k nobody_else",),
        said=("the data directory of a worker",),
    ),
    Promise(
        "this-machine",
        "without a token only this machine is answered, and no page of another site",
        set_to("tracker.api.access.Access.check", nothing),
        ("tests/tracker/api/test_access.py -k other_machines or another_site or token",),
        said=(
            "**The HTTP API** answers only",
            "the HTTP API, with a token",
        ),
    ),
    Promise(
        "rate-of-a-client",
        "a client that asks too often waits, and others do not",
        set_to("tracker.api.access.Access.count", nothing),
        ("tests/tracker/api/test_access.py -k asks_too_often",),
        said=("times, and refuses tokens in a query",),
    ),
    Promise(
        "tokens-in-headers",
        "a token in a query is refused",
        set_to("tracker.api.server.TOKEN_NAMES", ()),
        ("tests/tracker/api/test_server.py -k wrong_request and token",),
        said=("times, and refuses tokens in a query",),
    ),
    Promise(
        "bounded-bodies",
        "a body of any size does not fill the memory",
        set_to("tracker.api.server.MOST_BODY_BYTES", 2**40),
        ("tests/tracker/api/test_server.py -k bounded_size",),
        said=("times, and refuses tokens in a query",),
    ),
    Promise(
        "bounded-questions",
        "questions that wait for a partition are bounded",
        set_to("tracker.stream.partition.MOST_QUERIES", ways.NeverReached(64)),
        ("tests/tracker/stream/test_partition.py -k too_many_are_refused",),
        said=("times, and refuses tokens in a query", "**What waits in a worker**"),
    ),
    Promise(
        "requests-in-turn",
        "while the stream is behind, requests take turns",
        set_to("tracker.api.turns.Turns.wait", ways.no_wait),
        ("tests/tracker/api/test_turns.py -k take_turns or waits_for_its_turn",),
        said=("times, and refuses tokens in a query",),
    ),
    Promise(
        "waiting-item-events",
        "item events that wait for a commit are bounded in bytes",
        set_to("tracker.stream.partition.Partition.room", lambda partition, topic: True),
        ("tests/tracker/stream/test_partition.py -k too_many_item_events_wait",),
        said=(
            "**No broker answers**",
            "**No broker answers at all**",
            "**What waits in a worker**",
        ),
    ),
    Promise(
        "patience-without-brokers",
        "the time in which no broker answers does not end a worker",
        set_to("tracker.kafka.patience.Patience.limit", lambda self: asyncio.timeout(self.seconds)),
        ("tests/tracker/kafka/test_patience.py -k no_time_passes",),
        said=("**No broker answers**", "**No broker answers at all**"),
    ),
    Promise(
        "transaction-after-a-silence",
        "a transaction that ended while no broker answered is tried again",
        set_to("tracker.kafka.patience.Patience.was_silent", lambda self, since: False),
        ("tests/tracker/store/test_committer.py -k ended_while_no_broker_answered",),
        said=("**No broker answers**", "**No broker answers at all**"),
    ),
    Promise(
        "waiting-posts",
        "events by HTTP that wait for Kafka are bounded in bytes",
        ways.unbounded_posts,
        ("tests/tracker/api/test_server.py -k wait_for_kafka",),
        said=("times, and refuses tokens in a query",),
    ),
    Promise(
        "send-deadline",
        "a broker that answers and takes no records has the time of TRACKER_SEND_SECONDS, no more",
        set_to("tracker.kafka.patience.Patience.limit", lambda self: asyncio.timeout(None)),
        ("tests/tracker/kafka/test_patience.py -k time_that_was_set",),
        said=("**A broker answers, but takes no records**",),
    ),
    Promise(
        "late-events",
        "a late event counts as if it had come in time",
        ways.without_order,
        ("tests/tracker/users/test_ring.py -k sorted_by_the_next_late_event",),
    ),
    Promise(
        "known-repeats",
        "a repeat with the id of an event in the ring counts once",
        ways.without_memory_of_ids,
        ("tests/tracker/users/test_apply.py -k repeated_event_id",),
    ),
    Promise(
        "never-empty",
        "a list is never empty",
        ways.without_catalogue,
        ("tests/tracker/recommend/test_recommender.py -k before_any_trend",),
    ),
    Promise(
        "clock-ahead",
        "an event more than five minutes ahead is rejected",
        set_to("tracker.events.arrivals.MAX_FUTURE_SECONDS", 1e12),
        ("tests/tracker/stream/test_far_ahead.py -k event_of_2100",),
    ),
    Promise(
        "bounded-records",
        "a record of more than 500 events is rejected",
        set_to("tracker.events.foreign.check_number", nothing),
        ("tests/tracker/events/test_foreign.py -k too_many_events",),
    ),
    Promise(
        "newer-rows",
        "a row of a newer version is never written over",
        ways.newer_as_damaged,
        (
            "tests/tracker/stream/test_damaged_rows.py -k user_row_of_a_newer_version",
            "tests/tracker/stream/test_item_side.py -k row_of_a_newer_version",
        ),
    ),
    Promise(
        "idle-users",
        "users without an event for the stated time are deleted",
        set_to("tracker.store.idle.IdleSweep.run", lambda sweep, clock: 0),
        ("tests/tracker/store/test_idle.py -k idle_for_too_long",),
    ),
    Promise(
        "compacted-changelogs",
        "a worker does not start on a changelog that deletes states with age",
        ways.any_cleanup,
        ("tests/tracker/kafka/test_topics.py -k deletes_rows_with_age",),
    ),
    Promise(
        "known-settings",
        "a variable that is no setting is refused",
        ways.any_variable,
        ("tests/tracker/test_settings.py -k unknown_variable",),
    ),
    Promise(
        "replay-behind",
        "a replay applies only what live workers have committed",
        set_to("tracker.stream.replay.Replay.limit", lambda replay, partition: 2**40),
        ("tests/tracker/stream/test_replay.py -k no_event_is_applied",),
    ),
    Promise(
        "pseudonyms-in-events",
        "an event that names a pseudonym is not one of the user behind it",
        ways.pseudonyms_as_ids,
        ("tests/tracker/stream/test_pseudonyms.py -k names_a_pseudonym",),
    ),
    Promise(
        "learned-ahead",
        "lists are ranked by what was learned only while it is ahead of what was published",
        set_to("tracker.recommend.learner._Part.is_ahead", True),
        ("tests/tracker/stream/test_partition_learning.py -k only_while",),
    ),
    Promise(
        "unseen-targets",
        "a version is not judged by events that it was trained on",
        set_to("indexer.data.holdout._unseen", lambda *_: True),
        ("tests/indexer/finetune/test_finetune.py -k judged_by_what_it_has_seen",),
    ),
    Promise(
        "bad-lines",
        "events of which more than a tenth cannot be used are refused",
        set_to("indexer.data.training_log.MAX_LEFT_OUT", 1.0),
        ("tests/indexer/data/test_training_log.py -k more_than_a_tenth",),
    ),
    Promise(
        "no-ids-in-logs",
        "no id of a user is in the log by default",
        ways.ids_in_logs,
        ("tests/tracker/stream/test_key_check.py -k no_id_is_in_the_log",),
        said=("a worker's log",),
    ),
)

UNTESTED = {
    "**What it costs**": "a cost: see the figures",
    "**Use it for**": "advice",
    "**Order**": "Kafka's own, of one partition",
    "**Order between two producers of one user**": "says that there is none",
    "If `LATEST`, or the version it names": "an ordinary test of the worker, without a patch",
    "| the recommendations topic |": "no worker reads it; the long test of rights gives it none to",
    "| the rejected topic |": "no worker reads it; the long test of rights gives it none to",
    "**Rows of users**": "a measured size; ordinary tests of the sweep delete idle rows",
    "**Other users wait**": "says that nothing but a quota bounds it",
    "events, rejected and handed-on records": "says who sees what",
    "the key of pseudonyms, and one of these": "says who sees what",
    "| the artifacts | items; hashes": "says who sees what",
    "`/metrics`, `/healthz`": "a test of pseudonyms reads all metrics; nothing to take out",
    "**Nothing in a record runs code.**": "nothing could be taken out: there is no such code",
    "**Containers**": "a long test runs it as a process without rights; the files are linted",
    "**What it is made of**": "commands; a test of the project reads what `make sbom` writes",
    "**Native code is run with every index checked**": "a command",
}
"""Words of lines that have no row, and why."""
