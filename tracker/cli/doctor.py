"""Checks of everything a worker needs, each with what to do if it fails."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tracker.artifact.artifact import Artifact
from tracker.artifact.versions import ArtifactError
from tracker.dialects.loading import load_dialect
from tracker.dialects.table import DialectError
from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.events.kinds import Kinds, KindsFileError
from tracker.kafka.client import EventChecker, HeldBack, Latest, latest_records
from tracker.kafka.clock import broker_clock
from tracker.kafka.cluster import BrokerError, TopicError, supports_transactions
from tracker.kafka.connect import admin_client
from tracker.kafka.key_sample import KeySample, sample_keys, sampled_of_each
from tracker.kafka.partitioner import ONE_RULE, remedy
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.records import CODECS, CodecError, check_codecs
from tracker.kafka.rights import RightsError, check_rights
from tracker.kafka.topics import TopicReport, TopicsError, ensure_topics
from tracker.kernels.device import DeviceError
from tracker.settings import Settings, SettingsError, load_settings, settings_table

LEAST_FREE_BYTES = 1 << 30

CLOCK_NOTE_SECONDS = 5.0
"""Difference of the clocks from which latencies and limits are visibly wrong."""


@dataclass(frozen=True)
class Check:
    """One line: `state` is ok, note (works, but know this) or fail."""

    name: str
    state: str
    text: str

    @property
    def failed(self) -> bool:
        """True if a worker could not start, or could not work."""
        return self.state == "fail"


async def check_all(
    environ: Mapping[str, str] | None = None,
    on_check: Callable[[Check], None] = lambda check: None,
    **overrides: object,
) -> list[Check]:
    """Run every check; one that fails does not keep the others from running.

    Args:
        environ: variables with the settings; by default this process's environment.
        on_check: called with each check as it is done.
        overrides: settings by field, as `load_settings` takes them.
    """
    checks: list[Check] = []

    def add(*results: Check) -> None:
        for check in results:
            checks.append(check)
            on_check(check)

    try:
        settings = load_settings(environ, **overrides)
    except SettingsError as error:
        add(Check("settings", "fail", str(error)))
        return checks
    add(check_settings(settings), check_kinds(settings), check_data_dir(settings), check_codec())
    add(check_pseudonyms(settings))
    dialect = check_format(settings)
    add(dialect, *check_artifact(settings))
    try:
        add(await check_broker(settings))
        rights = await check_doctor_rights(settings)
        add(rights)
    except BrokerError as error:
        add(Check("broker", "fail", str(error)))
        return checks
    try:
        transactions = await check_transactions(settings)
    except BrokerError as error:
        transactions = Check("transactions", "fail", str(error))
    add(transactions)
    try:
        reports = await ensure_topics(settings, create=False, configs=rights.state == "ok")
        add(*check_topics(reports))
        add(await check_clock(settings, reports, transactions.state == "ok"))
        if not dialect.failed:
            add(*await check_latest(settings, reports))
    except (BrokerError, TopicError, TopicsError) as error:
        add(Check("topics", "fail", str(error)))
    return checks


async def check_latest(settings: Settings, reports: list[TopicReport]) -> list[Check]:
    """Read the latest events, and check their keys, unfinished transactions, and the events.

    Raises:
        BrokerError, TopicError: the topic cannot be read.
    """
    events = next((report for report in reports if report.role == "events"), None)
    if events is None or events.state == "missing":
        return [Check("partitioner", "note", "there is no events topic to look at")]
    latest = await latest_records(settings, events.name, sampled_of_each)
    dialect = load_dialect(settings.events_format)
    sample = sample_keys(latest.records, events.partitions, settings.partitioner, dialect)
    return [
        judge_keys(sample, settings, any(_is_hand_over(report) for report in reports)),
        check_unfinished(latest.held_back, events.name, time.time()),
        check_events(settings, latest),
    ]


def check_events(settings: Settings, latest: Latest) -> Check:
    """Check the latest events as the worker does: what is rejected, and what looks misspelt."""
    try:
        kinds = Kinds.of_settings(settings.kinds_file, settings.unknown_kinds)
    except KindsFileError:
        kinds = Kinds.default()  # check_kinds says it
    checker = EventChecker(settings, kinds)
    reasons: Counter[str] = Counter()
    example = ""
    values = [record.value for record in latest.records]
    for value in values:
        if why := checker(value)[1]:
            reasons[why.split(":")[0]] += 1
            example = example or why
    text = f"the latest {len(values)} records: {len(values) - reasons.total()} are events"
    if not values:
        text = "no record yet"
    notes = checker.notes()
    others = len(checker.reader.unknown_fields)
    if others:
        notes.append(f"{others} unknown fields are ignored: {', '.join(checker.unused()[:10])}")
    if reasons:
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        notes.append(f"rejected: {counts}; for example {example}")
    state = "note" if reasons or any("looks like" in note for note in notes) else "ok"
    return Check("events", state, "; ".join([text, *notes]))


def check_unfinished(held_back: list[HeldBack], topic: str, now: float) -> Check:
    """Name the transactions that producers of events have not finished.

    Args:
        held_back: the records that wait for them.
        topic: the events topic.
        now: the clock, in seconds.
    """
    if not held_back:
        return Check("unfinished transactions", "ok", f"no record of {topic} waits for one")
    places = [
        f"{topic}-{one.partition} has {one.count} records from offset {one.first} on"
        + (f", the first of {max(0.0, now - one.since):.0f} s ago" if one.since else "")
        for one in held_back
    ]
    return Check(
        "unfinished transactions",
        "note",
        f"{'; '.join(places)}: they cannot be read before their producer commits or aborts. If"
        " they stay, stop that producer (kafka-transactions.sh find-hanging names it): the broker"
        " aborts after its transaction.timeout.ms",
    )


def _is_hand_over(report: TopicReport) -> bool:
    return report.role == "hand-over" and report.state in ("ok", "created")


def judge_keys(sample: KeySample, settings: Settings, has_topic: bool) -> Check:
    """Turn a sample of the events topic into a check.

    Args:
        sample: its latest records.
        settings: the partitioner, and whether events are handed on.
        has_topic: whether the topic of handed-on events exists.
    """
    partitioner = settings.partitioner
    if not sample.records:
        return Check("partitioner", "ok", f"{partitioner}; there are no events to look at yet")
    problems = []
    if sample.no_key:
        problems.append(f"{sample.no_key} have no key: set it to the user_id")
    if sample.other_key:
        problems.append(f"{sample.other_key} have a key that is not their user: set it to that")
    split = f"user {sample.split[0]} is in several partitions" if sample.split else ""
    if sample.away:
        fit = f"{sample.away_fit or 'no rule known here'} puts them there"
        problems.append(
            f"{sample.away} of {sample.keyed} that are keyed by their user are not where"
            f" {partitioner} puts them ({', '.join(filter(None, (fit, split)))}):"
            f" {remedy(partitioner, sample.away_fit)}"
        )
    elif split:
        problems.append(f"{split}: {ONE_RULE}")
    latest = f"the latest {sample.records} events"
    if problems:
        effect = "a user in two partitions has two states"
        if partitioner != "given" and settings.hand_over == "on" and has_topic:
            effect = (
                "events in the wrong partition are handed on, which takes up to a second more;"
                " `tracker merge-states` joins states that lie in two"
            )
        return Check("partitioner", "note", f"of {latest}, {'; '.join(problems)}; {effect}")
    if partitioner != "given":
        return Check("partitioner", "ok", f"{partitioner} puts {latest} where they are")
    fit = f"; {sample.fit} fits: set it, and look-ups are faster" if sample.fit else ""
    return Check("partitioner", "ok", f"given; {latest} are keyed by their user{fit}")


def check_settings(settings: Settings) -> Check:
    """Check the settings, and list those that differ from the default."""
    defaults = {row.variable: row.default for row in settings_table()}
    changed = [
        f"{variable}={value}"
        for variable, value in settings.public().items()
        if value != defaults[variable]
    ]
    return Check("settings", "ok", ", ".join(changed) or "all at their defaults")


def check_kinds(settings: Settings) -> Check:
    """Check the table of weights of kinds."""
    if settings.kinds_file is None:
        return Check("kinds", "ok", f"{len(Kinds.default().table)} kinds, the built-in table")
    try:
        kinds = Kinds.load(settings.kinds_file)
    except KindsFileError as error:
        return Check("kinds", "fail", f"{error}; TRACKER_KINDS_FILE names it")
    return Check("kinds", "ok", f"{len(kinds.table)} kinds from {settings.kinds_file}")


def check_pseudonyms(settings: Settings) -> Check:
    """Check that the keys of pseudonyms can be read, and tell them by their fingerprints."""
    try:
        pseudonyms = pseudonyms_of(settings)
    except SettingsError as error:
        return Check("pseudonyms", "fail", str(error))
    if not pseudonyms:
        return Check("pseudonyms", "ok", "none: states and lists have the ids of users")
    keys = ", and each user has a key" if settings.user_keys else ""
    return Check("pseudonyms", "ok", f"by the key {pseudonyms.fingerprint}{keys}")


def check_format(settings: Settings) -> Check:
    """Check the format of the events: that its name is known, or its file can be used."""
    try:
        load_dialect(settings.events_format)
    except DialectError as error:
        return Check("format", "fail", f"{error}; TRACKER_EVENTS_FORMAT names it")
    return Check("format", "ok", f"events are of the format {settings.events_format}")


def check_codec() -> Check:
    """Check that records of every codec can be read; a producer or a topic chooses it."""
    try:
        check_codecs()
    except CodecError as error:
        return Check("codecs", "fail", str(error))
    return Check("codecs", "ok", f"{', '.join(CODECS)} can be read")


def check_data_dir(settings: Settings) -> Check:
    """Check that the data directory can be written to, and its free space."""
    folder = settings.data_dir
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        return Check("data directory", "fail", f"{above} is not a folder; set TRACKER_DATA_DIR")
    if not os.access(above, os.W_OK | os.X_OK):
        return Check("data directory", "fail", f"{above} cannot be written; set TRACKER_DATA_DIR")
    free = shutil.disk_usage(above).free
    text = f"{folder}, {free / 1e9:.1f} GB free"
    if free < LEAST_FREE_BYTES:
        return Check("data directory", "note", f"{text}: the disk may soon be full")
    return Check("data directory", "ok", text)


def check_artifact(settings: Settings) -> list[Check]:
    """Load the current artifact like a worker, with every checksum."""
    try:
        artifact = Artifact.load(
            settings.artifacts,
            device=settings.index_device,
            public_key=settings.artifact_public_key,
        )
    except ArtifactError as error:
        return [Check("artifact", "fail", str(error)), check_device(settings)]
    except DeviceError as error:
        return [Check("device", "fail", f"{error}; set TRACKER_INDEX_DEVICE=cpu or auto")]
    manifest = artifact.manifest
    text = (
        f"version {manifest.version} at {settings.artifacts}: {manifest.live} items, "
        f"{manifest.dim} dimensions, recall@10 {manifest.index.recall_at_10:.3f}"
    )
    return [
        Check("artifact", "ok", text),
        check_device(settings, f"index {artifact.index.kind} on {artifact.index.device}; "),
    ]


def check_device(settings: Settings, index: str = "") -> Check:
    """Check that there is a GPU if the settings need one."""
    import torch

    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        return Check(
            "device", "fail", "TRACKER_DEVICE is cuda and torch finds no GPU; set it to auto or cpu"
        )
    name = torch.cuda.get_device_name(0) if cuda else "no GPU"
    used = "cuda" if cuda and settings.device != "cpu" else "cpu"
    return Check("device", "ok", f"{index}encoders on {used} ({name})")


async def check_broker(settings: Settings) -> Check:
    """Check that the brokers answer, and count them.

    Raises:
        BrokerError: none can be reached.
    """
    async with admin_client(settings) as admin:
        cluster = await admin.describe_cluster()
    count = len(cluster["brokers"])
    text = f"{settings.brokers}: {count} broker{'' if count == 1 else 's'}"
    if settings.replication_factor > count:
        return Check(
            "broker",
            "fail",
            f"{text}, fewer than TRACKER_REPLICATION_FACTOR={settings.replication_factor}",
        )
    if count >= 3 > settings.replication_factor:
        return Check(
            "broker",
            "note",
            f"{text}; TRACKER_REPLICATION_FACTOR={settings.replication_factor}: a broker that is "
            "lost takes states with it; 3 is usual",
        )
    return Check("broker", "ok", text)


async def check_doctor_rights(settings: Settings) -> Check:
    """Check that the brokers allow these credentials all that a worker needs, and that we need.

    Raises:
        BrokerError: no broker can be reached.
    """
    try:
        await check_rights(settings, "worker")
    except RightsError as error:
        return Check("rights", "fail", str(error))
    try:
        await check_rights(settings, "doctor")
    except RightsError as error:
        text = f"enough for a worker; cleanup and timestamps of topics are not checked: {error}"
        return Check("rights", "note", text)
    return Check("rights", "ok", "the brokers deny nothing that a worker needs")


async def check_transactions(settings: Settings) -> Check:
    """Check that the broker has transactions; without them some guarantees are lost.

    Raises:
        BrokerError: refused for a reason that can be put right.
    """
    if await supports_transactions(settings):
        return Check("transactions", "ok", "states and positions are committed together")
    if settings.user_keys:
        return Check(
            "transactions",
            "fail",
            "the broker has none, which TRACKER_USER_KEYS needs: a row could be there without its"
            " key",
        )
    return Check(
        "transactions",
        "note",
        "the broker has none: after a crash during a commit, or when a frozen worker comes back, "
        "a state can miss events or count them twice",
    )


async def check_clock(
    settings: Settings,
    reports: list[TopicReport],
    transactions: bool,
    clock: Callable[[], float] = time.time,
) -> Check:
    """Compare the clock of a broker with this machine's: both limit the times of events.

    Args:
        settings: where the brokers are.
        reports: of the topics.
        transactions: whether the brokers have transactions.
        clock: time of this machine, in seconds.
    """
    there = any(report.role == "rejected" and report.state != "missing" for report in reports)
    if not transactions or not there:
        why = "the rejected topic does not exist" if transactions else "it has no transactions"
        return Check("clock", "note", f"cannot be compared with the broker's: {why}")
    try:
        difference = await broker_clock(settings, clock)
    except BrokerError as error:
        return Check("clock", "note", f"cannot be compared with the broker's: {error}")
    if difference is None:
        text = "the rejected topic has message.timestamp.type=CreateTime"
        return Check("clock", "note", f"cannot be compared with the broker's: {text}")
    side = "ahead of" if difference.ahead > 0 else "behind"
    text = f"the broker's is {abs(difference.ahead):.3g} s {side} this machine's"
    if abs(difference.ahead) - difference.exact > MAX_FUTURE_SECONDS:
        return Check(
            "clock",
            "fail",
            f"{text}: events of now can be rejected as future_timestamp; let NTP set both clocks",
        )
    if abs(difference.ahead) - difference.exact > CLOCK_NOTE_SECONDS:
        return Check("clock", "note", f"{text}; let NTP set both clocks")
    return Check("clock", "ok", f"{text}, give or take {difference.exact:.1g} s")


def check_topics(reports: list[TopicReport]) -> list[Check]:
    """Turn the reports of the topics into checks."""
    checks = []
    for report in reports:
        text = f"{report.name}: {report.partitions} partitions"
        if report.problems:
            checks.append(
                Check(f"topic {report.role}", "fail", f"{report.name} {'; '.join(report.problems)}")
            )
        elif report.notes:
            checks.append(
                Check(f"topic {report.role}", "note", f"{text}; {'; '.join(report.notes)}")
            )
        else:
            checks.append(Check(f"topic {report.role}", "ok", text))
    return checks
