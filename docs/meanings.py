"""Texts for names that the code has without a text; `docs/generate.py` puts them into tables."""

from typing import NamedTuple

# Settings, in the groups of docs/reference/settings.md; a test asks that each stands in one.
SETTING_GROUPS: dict[str, tuple[str, ...]] = {
    "kafka": (
        "name", "stream", "brokers", "security_protocol", "sasl_mechanism", "sasl_username",
        "sasl_password",
        "sasl_password_file", "sasl_token_file",
        "tls_ca_file", "tls_cert_file", "tls_key_file",
    ),
    "artifacts": (
        "artifacts", "artifact_public_key", "artifact_poll_seconds", "device", "index_device",
    ),
    "events": (
        "events_format", "partitioner", "hand_over", "kinds_file", "unknown_kinds",
        "unknown_fields", "timestamps",
    ),
    "lists": (
        "k", "seen", "diversity", "searches", "online_learning", "emit",
        "emit_min_interval_seconds", "max_event_age_seconds", "transactional_recommendations",
    ),
    "states": (
        "data_dir", "commit_interval_seconds", "linger_seconds", "chunk_events", "state_rows",
        "item_state_rows", "damaged_rows", "item_block_format",
    ),
    "personal": (
        "pseudonym_key_file", "pseudonym_former_key_file", "user_keys", "log_user_ids",
        "state_idle_days", "forget_hash_days", "erase_seconds",
    ),
    "topics": ("event_partitions", "item_partitions", "replication_factor"),
    "group": (
        "standbys", "session_timeout_seconds", "transaction_timeout_seconds", "send_seconds",
        "shutdown_seconds",
    ),
    "web": (
        "web_host", "web_port", "web_token", "web_token_file", "web_read_token",
        "web_read_token_file", "web_advertise", "web_forward", "web_rate", "explain",
        "health_stall_seconds", "log_level", "log_format", "tracing",
    ),
}  # fmt: skip

ALLOWED = {
    "name": "letters, digits, `.`, `_`, `-`; up to 100",
    "stream": "the same, or empty",
    "brokers": "`HOST:PORT,...`",
    "sasl_username": "text",
    "sasl_password": "text",
    "sasl_password_file": "path",
    "sasl_token_file": "path",
    "tls_ca_file": "path",
    "tls_cert_file": "path",
    "tls_key_file": "path",
    "artifacts": "path or URL",
    "artifact_public_key": "base64",
    "data_dir": "path",
    "pseudonym_key_file": "path",
    "pseudonym_former_key_file": "path",
    "events_format": "one of these, or a path that ends in `.toml`",
    "kinds_file": "path",
    "unknown_kinds": "`reject` or a number from -1000 to 1000",
    "web_host": "address",
    "web_token": "text of 16 characters or more",
    "web_token_file": "path",
    "web_read_token": "text of 16 characters or more",
    "web_read_token_file": "path",
    "web_advertise": "`http://HOST:PORT`",
}
"""Allowed values that are neither a choice nor a range."""

# Formats.
FIELDS: dict[str, dict[str, str]] = {
    "event": {
        "user_id": "The user. The record's key is the same text.",
        "item_id": "The item. Needed for an action.",
        "kind": "What the user did: one of the [kinds](kinds.md). Needed for an action.",
        "timestamp": "When it happened: a number, or ISO 8601 text. See [Time](#time). Needed for"
        " an action.",
        "scene": "Where it happened, for example `home`, `search`, `cart`.",
        "value": "A quantity, a rating, or seconds of dwell time. The curve of the kind reads it.",
        "event_id": "Your id of this event. You retract the event by it, and a repeat is ignored.",
        "retracts": "Makes this event a retraction: the `event_id` to take back.",
        "takes_back": "Makes this event a retraction without an id: the user's latest event of this"
        " kind on `item_id` is taken back. See [Take back](events.md#take-an-event-back).",
        "was": "Joins two users: the state of this one goes into that of `user_id`. See [Join"
        " users](events.md#join-two-users).",
    },
    "item": {
        "item_id": "The item, as events name it.",
        "text": "What the text encoder reads.",
        "title": "Read if `text` is missing, followed by the categories.",
        "categories": "From general to special or in any order. The first one is the label of an"
        " interest in this item; without categories the title is.",
        "attributes": "Accepted and not used yet: neither vectors nor ranking read them.",
    },
    "user": {
        "user_id": "The user, as events name it.",
        "attributes": "What you know of the user: names and values.",
    },
    "recommendation": {
        "id": "`topic-partition-offset` of the user's last event in this list.",
        "user_id": "The user. The record's key is the same text.",
        "timestamp": "The stream time that the list was made for, in seconds.",
        "scene": "The scene of that event, or null.",
        "items": "The list, best first.",
        "artifact": "The version of the index that made it.",
        "latency_ms": "Milliseconds from the append of the event to the encoding of the list.",
        "interests": "The user's strongest three interests, strongest first.",
        "version": "Of two lists of a user, the one with the larger number is newer.",
    },
    "recommendeditem": {
        "item_id": "The item.",
        "score": "Higher is better. It has no unit: do not compare two lists by it.",
        "channel": "Where the item came from: see [Channels](#channels).",
        "because": "Up to three of the user's own items that speak for it.",
        "probability": "How likely a positive event of the user on this item is. Only with a"
        " trained artifact.",
        "interest": "The label of the user's interest that the item is nearest to.",
        "shares": "For each item of `because`, how much the events on it say for this item: a share"
        " of what all of the user's events say.",
        "earlier": "The share of events that are no longer in the ring.",
        "parts": "The [parts of the score](#what-speaks-for-an-item), with"
        " `TRACKER_EXPLAIN=parts`.",
    },
    "parts": {
        "base": "The score of the mean candidate of this list.",
        "groups": "What the item's features add to that, by group.",
        "diversity": "What the item lost in the order of the list, because it is like items above"
        " it. It is not part of the score.",
    },
    "interest": {
        "label": "First category of the interest's most typical item. If an older interest of the"
        " user has this label, a word of the item follows.",
        "strength": "Share of all interests, 0 to 1.",
        "change": "The share now minus the share a day before.",
    },
    "rejection": {
        "reason": "One of the [reasons](#reasons).",
        "message": "What was found and what is expected, for people. Up to 1,024 bytes.",
        "topic": "Where the record came from.",
        "partition": "Its partition.",
        "offset": "Its offset.",
        "events": "The number of its events that were not taken for this reason. A header only if"
        " the record has several: see [Several events](events.md#several-events-in-a-record).",
    },
}

REASONS = {
    "tombstone": "The record has no value.",
    "undecodable": "The record, or the batch it is in, cannot be decoded: its compression or its"
    " form is damaged. Of a batch there is one rejection, with its last offset.",
    "not_json": "The value is not JSON in UTF-8. The message names it if it is Confluent's wire"
    " format, UTF-16, CSV, or several lines.",
    "wrong_type": "A field has another type than the format says, an id is a float, or the value"
    " is no object.",
    "missing_field": "An action lacks `item_id`, `kind` or `timestamp`, or `user_id` is missing.",
    "unknown_field": "A field that looks like a misspelt `retracts`, `event_id` or"
    " `takes_back`; any unknown field with `TRACKER_UNKNOWN_FIELDS=reject`.",
    "bad_id": "An id, kind or scene is empty or longer than 256 bytes.",
    "bad_timestamp": "Neither a number nor ISO 8601, or before 1970: see [Time](events.md#time).",
    "future_timestamp": "More than 5 minutes after the broker appended the record, or after the"
    " worker's clock: see [Events from the future](../concepts/time.md#events-from-the-future).",
    "bad_value": "`value` is not a finite number.",
    "too_many_events": "The record has more than 500 events.",
    "unknown_kind": "The kind has no weight, or the format of the events does not know the word:"
    " see [Kinds](kinds.md#your-own-weights).",
    "no_origin": "A record of the topic of handed-on events that no worker wrote.",
    "handed_twice": "An event was handed on to a partition that it does not belong to: workers have"
    " different values of `TRACKER_PARTITIONER`.",
}


class Topic(NamedTuple):
    """What a topic holds, and how its records are keyed."""

    holds: str
    key: str


RIGHTS = {
    "worker": "a worker",
    "producer": "you, as the producer; `tracker send`",
    "subscriber": "you, as the consumer; `tracker watch`, without the group",
    "doctor": "`tracker doctor`",
    "topics": "`tracker topics`",
    "forget": "`tracker forget`",
    "export": "`tracker export`, `tracker export-user --states-only`",
    "export-user": "`tracker export-user`",
    "reset-state": "`tracker reset-state --everything`",
    "reset-learning": "`tracker reset-learning`",
    "mend-times": "`tracker mend-times`",
    "merge-states": "`tracker merge-states`",
    "move-states": "`tracker move-states`",
    "replay": "`tracker replay --of shop`",
}
"""Who has a role of `tracker acls`."""

TOPICS = {
    "events": Topic("[events](events.md), written by you", "user id"),
    "recommendations": Topic("[lists](recommendations.md), read by you", "user id"),
    "rejected": Topic("[records that were not taken](rejections.md)", "as it came"),
    "items": Topic("[item events](rows.md#item-events), written by the workers", "none"),
    "user changelog": Topic("[states of users](rows.md), and positions", "prefix and user id"),
    "item changelog": Topic("[states of items](rows.md#items), and positions", "prefix and hash"),
    "hand-over": Topic(
        "[events that are handed on](partitioners.md#events-in-the-wrong-partition), written by the"
        " workers",
        "as it came",
    ),
    "requests to forget": Topic(
        "[requests to forget](../how-to/personal-data.md#forget-a-user), and what was done",
        "user id",
    ),
    "key changelog": Topic(
        "only with [`TRACKER_USER_KEYS`](../how-to/personal-data.md#a-key-of-each-user): [keys of"
        " users](rows.md#encrypted-rows)",
        "pseudonym",
    ),
}

OPTIONS = {
    "--seed": "Seed of everything random. The same seed gives the same result on the same machine.",
    "--device": "Where the encoders run; `auto` takes a GPU if there is one.",
}
"""Options that have no help text."""

# Operation.
METRICS = {
    "tracker_rejected": "See [Reasons](rejections.md#reasons). `item_block`: a record of the items"
    " topic that no worker wrote, or one that is damaged.",
    "tracker_unreadable_rows": "See"
    " [Rows that cannot be read](../how-to/find-what-is-wrong.md#rows-that-cannot-be-read).",
    "tracker_outcomes": "See [Outcomes](#outcomes).",
    "tracker_duplicates": "They are not counted again.",
    "tracker_too_old": "Nothing was taken back.",
    "tracker_unknown_fields": "At most 100 names a partition; the others count as `(others)`.",
    "tracker_ratings_beyond_scale": "If ratings have another scale, use `--rating-scale`.",
    "tracker_key_mismatch": "See [Partitioners](partitioners.md)."
    " `cause` is `no_key`, `other_key` or `other_partition`.",
    "tracker_handed_on": "See"
    " [Events in the wrong partition](partitioners.md#events-in-the-wrong-partition).",
    "tracker_passed_over": "At most 100 words a partition; the others count as `(others)`.",
    "tracker_joins_elsewhere": "It stays there, since nothing is handed on: see [Join"
    " users](events.md#join-two-users).",
    "tracker_dropped": "Most often a list is too large.",
    "tracker_not_of_items": "See [One user's share](../design/items.md#one-users-share).",
    "tracker_deleted_states": "The time is `TRACKER_STATE_IDLE_DAYS`.",
    "tracker_next_events": "`in_list` is `yes` or `no`. The share of `yes` is the live hit rate.",
    "tracker_recommended_items": "`seen` counts items that the user has had before.",
    "tracker_impersonal_lists": "Mostly lists of new users.",
    "tracker_interest_drift": "0: nothing moved; 1: all of it did.",
    "tracker_labelled_events": "`label` is `positive` or `negative`. Only with a trained"
    " prediction and online learning; up to 16 events of a chunk.",
    "tracker_predicted_probability": "Divided by the labelled events, it should be the share of"
    " positive ones.",
    "tracker_refused_artifacts": "The one before stays in use.",
    "tracker_waiting_bytes": "A partition with more than 32 MiB of them reads no more events.",
    "tracker_learning": "See [Online learning](#online-learning).",
}
"""What is to be said after the help text of the code."""

METRIC_LABELS = {
    "http_requests": "`route`, `status`",
    "http_seconds": "`route`",
    "unknown_fields": "`name`",
    "rejected": "`reason`",
    "key_mismatch": "`cause`",
    "outcomes": "`outcome`",
    "passed_over": "`word`",
    "dropped": "`topic`",
    "latency_seconds": "`partition`",
    "interest_drift": "`partition`",
    "next_events": "`in_list`",
    "recommended_items": "`channel`",
    "labelled_events": "`label`",
    "commits": "`table`",
    "unreadable_rows": "`table`, `problem`",
    "aborted_commits": "`table`",
    "deleted_states": "`table`",
    "commit_seconds": "`table`",
    "lag": "`topic`, `partition`",
    "rows": "`table`, `partition`",
    "dirty_rows": "`table`, `partition`",
    "owed_lists": "`partition`",
    "learning": "`model`, `value`, `partition`",
}
"""A test compares them with the labels of the code."""

PATHS = {
    "/healthz": "200 while the worker lives. 503 if it has to be restarted.",
    "/readyz": "200 if the worker serves. 503 while it does not yet.",
    "/metrics": "The [metrics](metrics.md), in Prometheus' text format.",
}

# Rows of states.
PYTHON_TYPES = {
    "int": "integer",
    "float": "number",
    "str": "string",
    "bool": "boolean",
    "str | None": "string or null",
    "dict": "object of integers",
    "HandOverPosition | None": "object or null",
}

USER_ROW = {
    "header": "format and sizes, below",
    "head": "scalars, below",
    "masses": "per half-life: sum of the decayed weights of positive events",
    "sums": "per half-life: sum of the decayed weighted vectors",
    "negative": "the same sum of negative events, with its own half-life",
    "hidden": "state of the user encoder, as wide as the artifact's encoder; empty without one",
    "pending": "ids of events whose retraction came first; only those in use are stored",
    "slots": "interests, below; only those in use are stored",
    "slot_means": "mean vector of each interest, in units of 1/32767; only those in use",
    "ring": "latest events, below; only those in use are stored",
}

USER_HEADER = {
    "format": "1",
    "dim": "width of a vector",
    "checksum": "of everything else in the row",
    "hidden": "width of the encoder's state",
    "n_sums": "number of half-lives",
    "n_pending": "entries of `pending` that follow",
    "n_slots": "interests that follow",
    "n_ring": "entries of the ring that follow",
}

POSITION = {
    "format": "1, 2 with a `hand_over`, 3 of a replay, 4 with `pseudonyms`, or 5 with `user_keys`.",
    "position": "Offset of the next record to apply.",
    "topic": "The source topic.",
    "topic_id": "Its id in Kafka; empty if the broker gives none.",
    "partitions": "Its number of partitions.",
    "stream_time": "Latest event time of the partition, seconds.",
    "sources": "Only for items: the last offset applied of each partition of the events topic. The"
    " topics of handed-on events and of requests to forget follow.",
    "clock": "Worker's clock, seconds. It decides which records before `clock_end` are of the"
    " future.",
    "clock_end": "Records before this offset are judged by `clock`, whenever they are read.",
    "forgotten": "Only for users: offset of the last request to forget a user that was applied.",
    "replays": "Only for users: name of the tracker from whose events `tracker replay` builds the"
    " states; empty if there is no replay.",
    "successor": "Name of the tracker whose states have replaced these by a replay; empty for"
    " none.",
    "pseudonyms": "Only for users: fingerprint of the key of their"
    " [pseudonyms](../how-to/personal-data.md#pseudonyms); empty for none.",
    "user_keys": "Only for users: id of the topic of [their keys](#encrypted-rows), empty if the"
    " broker gives none; null if rows are not encrypted.",
    "version": "Only for users: version of the latest list.",
    "transactions": "Whether the states were committed in transactions: no other worker may write.",
    "hand_over": "Position in the topic of handed-on events, below; null without that topic.",
}

HAND_OVER = {
    "position": "Offset of the next record of the topic of handed-on events.",
    "topic_id": "Its id in Kafka; empty if the broker gives none.",
    "clock": "As above, for these records.",
    "clock_end": "As above.",
    "origins": "Per partition of the events topic, the last offset that came from there.",
    "partitioner": "Rule by which the partition hands on; empty before it has begun to.",
}

PENDING_LIST = {
    "offset": "Offset of the event that the list answers.",
    "appended": "When the broker appended it, seconds.",
    "scene": "Its scene.",
    "backlog": "Whether the list waits for the end of a backlog.",
    "partition": "Partition of the event; -1 for that of the row.",
    "version": "Version of the list.",
}
