"""Settings of the tracker, read from TRACKER_* variables."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tracker.explained import Explained, without_secrets

PREFIX = "TRACKER_"

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
Device = Literal["auto", "cpu", "cuda"]
Emit = Literal["event", "chunk", "changed"]
SeenPolicy = Literal["demote", "exclude", "keep"]
OnlineLearning = Literal["on", "freeze", "off"]
Timestamps = Literal["auto", "seconds", "ms", "us", "ns"]
UnknownFields = Literal["ignore", "reject"]
Partitioner = Literal["murmur2", "crc32", "fnv1a", "given"]
DamagedRows = Literal["set-aside", "stop"]
HandOver = Literal["on", "off"]
Forward = Literal["proxy", "redirect"]
Explain = Literal["off", "reasons", "parts"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
LogFormat = Literal["text", "json"]


MIN_TOKEN = 16
"""Characters of a token at least."""

MIN_KEY = 32
"""Characters of the key of pseudonyms at least."""

EXPECTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "string_too_short": "a text that is not empty",
    "too_short": "{min_length} characters or more",
    "string_pattern_mismatch": "a text of the pattern {pattern}",
}
"""The expected value in plain words, by pydantic's type of error."""


class SettingsError(Explained, ValueError):
    """A setting is unknown or wrong; the message names it, its value and what is expected."""


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except ValueError:
        return False


def _secret_text(variable: str, path: Path, least: int, remedy: str = "") -> str:
    """Return the secret that a file holds.

    Raises:
        SettingsError: the file cannot be read, or holds too little.
    """
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{variable} is {path}: it cannot be read ({error})") from error
    if len(text) < least:
        raise SettingsError(
            f"{variable} is {path}, with {len(text)} characters; {least} or more are"
            f" expected{remedy}"
        )
    return text


Optional = BeforeValidator(_empty_is_none)


class Settings(BaseSettings):
    """Settings of a worker and of the commands: the variable `TRACKER_NAME` sets `name`.

    The defaults work on a laptop with a broker at localhost:9092. Half-lives and widths are no
    settings: they are chosen when an artifact is built, and kept in its manifest.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=False,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    name: str = Field(
        "tracker",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="prefix of the names of the consumer group and of all topics",
    )
    stream: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$",
        description="prefix of the topics of events, lists and rejections, if it is not that of"
        " TRACKER_NAME: for states that `tracker replay` has built",
    )
    brokers: str = Field(
        "localhost:9092", min_length=1, description="Kafka brokers, HOST:PORT, separated by commas"
    )
    security_protocol: Annotated[SecurityProtocol, BeforeValidator(_upper)] = Field(
        "PLAINTEXT", description="security protocol of the brokers"
    )
    sasl_mechanism: Annotated[SaslMechanism, BeforeValidator(_upper)] = Field(
        "PLAIN", description="SASL mechanism, if the protocol is SASL_*"
    )
    sasl_username: Annotated[str | None, Optional] = Field(None, description="SASL user name")
    sasl_password: Annotated[SecretStr | None, Optional] = Field(
        None, description="SASL password; never printed"
    )
    sasl_password_file: Annotated[Path | None, Optional] = Field(
        None, description="file with the SASL password, instead of the password itself"
    )
    sasl_token_file: Annotated[Path | None, Optional] = Field(
        None,
        description="file with the token of OAUTHBEARER, read again for each connection",
    )
    tls_ca_file: Annotated[Path | None, Optional] = Field(
        None, description="PEM file of the certificate authority; by default the system's"
    )
    tls_cert_file: Annotated[Path | None, Optional] = Field(
        None, description="PEM file of the client certificate"
    )
    tls_key_file: Annotated[Path | None, Optional] = Field(
        None, description="PEM file of the key of the client certificate"
    )

    artifacts: str = Field(
        "artifacts", min_length=1, description="folder or fsspec URL to which the indexer publishes"
    )
    artifact_public_key: Annotated[str | None, Optional] = Field(
        None,
        description="Ed25519 public key, 32 bytes in base64: only artifacts that it has signed are"
        " loaded",
    )
    artifact_poll_seconds: float = Field(
        1.0, ge=0.1, le=2.0, description="interval between two checks for a new artifact"
    )
    data_dir: Path = Field(
        Path("tracker-data"),
        description="folder of this worker's state; every worker needs its own",
    )
    device: Device = Field(
        "auto", description="device of the encoders; auto: the GPU if there is one"
    )
    index_device: Device = Field(
        "auto", description="device of the index; auto: the GPU if there is one"
    )
    kinds_file: Annotated[Path | None, Optional] = Field(
        None, description="TOML file with the weight of each kind; by default the built-in table"
    )
    events_format: str = Field(
        "tracker",
        min_length=1,
        description="format of the records of the events topic: tracker, segment, snowplow, ubi,"
        " ga4, cloudevents, cloudevents:FORMAT, or a TOML file of paths",
    )
    partitioner: Partitioner = Field(
        "murmur2",
        description="rule by which your producers choose a user's partition: that of Java clients,"
        " of librdkafka, of Sarama, or given for a rule of your own",
    )
    hand_over: HandOver = Field(
        "on",
        description="events outside their user's partition: on (hand them to its owner, if the"
        " topic for it exists and the partitioner is known), or off (take them where they are)",
    )
    unknown_kinds: Literal["reject"] | Annotated[float, Field(ge=-1000.0, le=1000.0)] = Field(
        "reject",
        description="weight of a kind that is not in the table, or reject to refuse such events",
    )
    unknown_fields: UnknownFields = Field(
        "ignore",
        description="fields that an event does not have: ignore (they are counted by name), or"
        " reject the event",
    )
    timestamps: Timestamps = Field(
        "auto",
        description="unit of timestamps that are numbers: seconds, ms, us, ns; auto: by magnitude,"
        " below 1e11 seconds, 1e14 ms, 1e17 us, else ns",
    )

    k: int = Field(10, ge=1, le=500, description="items in a recommendation")
    seen: SeenPolicy = Field(
        "demote",
        description="items that the user knows: demote (put last), exclude, or keep in their place",
    )
    diversity: Annotated[float | None, Optional] = Field(
        None,
        ge=0.0,
        le=1.0,
        description="weight of diversity in a list, 0 turns it off; not set: as much as costs no"
        " hits, which a training measures, or 0.1 without one",
    )
    searches: int = Field(
        2, ge=1, le=8, description="maximum number of index searches per user and list"
    )
    online_learning: OnlineLearning = Field(
        "on",
        description="on: keep training the models from the stream; freeze: stop training;"
        " off: use the published models",
    )
    emit: Emit = Field(
        "chunk",
        description="when to send a list: per event, once per user and chunk, or only if it"
        " changed",
    )
    emit_min_interval_seconds: float = Field(
        0.0,
        ge=0.0,
        description="minimum time between two lists of one user; the latest is sent afterwards",
    )
    max_event_age_seconds: Annotated[float | None, Optional] = Field(
        None,
        gt=0.0,
        description="events older than this do not trigger a list each; one per user is sent after"
        " catching up",
    )

    commit_interval_seconds: float = Field(
        1.0, ge=0.05, le=10.0, description="interval between two commits of states and positions"
    )
    linger_seconds: Annotated[float | None, Optional] = Field(
        None,
        ge=0.0,
        le=1.0,
        description="minimum time between two fetches while few events come, so that their lists"
        " are made together; not set: so long that the event loop is idle for half of it, at most"
        " 0.014",
    )
    chunk_events: int = Field(
        1000,
        ge=1,
        le=20_000,
        description="maximum number of events in a chunk, which is processed at once",
    )
    state_rows: int = Field(
        200_000,
        ge=1000,
        description="users whose states the worker keeps in memory, about 8 KiB each; others are"
        " on disk",
    )
    item_state_rows: int = Field(
        200_000,
        ge=1000,
        description="items whose states the worker keeps in memory; others are on disk",
    )
    damaged_rows: DamagedRows = Field(
        "set-aside",
        description="rows of states that cannot be read: set-aside (keep each under another key,"
        " and begin a new one), or stop the worker",
    )
    state_idle_days: Annotated[float | None, Optional] = Field(
        None, gt=0.0, description="delete states that had no event for this time; off by default"
    )
    forget_hash_days: float = Field(
        30.0,
        ge=1.0,
        description="time for which the salted hash of a forgotten user is kept, so that late"
        " events from before the request are dropped; at least the retention of events",
    )
    erase_seconds: float = Field(
        600.0,
        ge=1.0,
        le=86_400.0,
        description="interval in which local databases lose the bytes of forgotten users, and"
        " databases of partitions that the worker no longer has are deleted",
    )
    transactional_recommendations: bool = Field(
        False,
        description="send lists in the transaction of the states: exactly once, but later",
    )

    web_host: str = Field(
        "127.0.0.1", description="address of the web server with health, metrics and lookups"
    )
    web_port: int = Field(
        6066, ge=0, le=65535, description="port of the web server; 0 turns it off"
    )
    web_token: Annotated[SecretStr | None, Optional] = Field(
        None,
        min_length=MIN_TOKEN,
        description="token of those who may ask and change things over HTTP; without one, only"
        " this machine is answered. Never printed",
    )
    web_token_file: Annotated[Path | None, Optional] = Field(
        None, description="file with that token, read at the start"
    )
    web_read_token: Annotated[SecretStr | None, Optional] = Field(
        None, min_length=MIN_TOKEN, description="token of those who may only ask; never printed"
    )
    web_read_token_file: Annotated[Path | None, Optional] = Field(
        None, description="file with that token, read at the start"
    )
    web_advertise: Annotated[str | None, Optional] = Field(
        None,
        pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+$",
        description="address at which the other workers reach this one, http://HOST:PORT; by"
        " default made of the address and port of the web server",
    )
    web_forward: Forward = Field(
        "proxy",
        description="requests for a user of another worker: proxy (ask that worker), or redirect"
        " (answer 307 with its address)",
    )
    web_rate: float = Field(
        1000.0, gt=0.0, le=1e6, description="requests per second that one client may send"
    )
    explain: Explain = Field(
        "reasons",
        description="what a list says of its items, on the topic and over HTTP: off, reasons (the"
        " interest and the user's own events, with their shares), or parts (of the score, as well)",
    )
    health_stall_seconds: float = Field(
        60.0,
        ge=5.0,
        description="/healthz fails if a partition has work and no commit for this time",
    )

    event_partitions: int = Field(
        8, ge=1, le=1000, description="partitions of user topics that `tracker topics` creates"
    )
    item_partitions: int = Field(
        4, ge=1, le=1000, description="partitions of item topics that `tracker topics` creates"
    )
    item_block_format: int = Field(
        1,
        ge=1,
        le=2,
        description="format of the blocks of item events that the worker writes; 2 has a checksum:"
        " set it once all workers run a version that reads it",
    )
    replication_factor: int = Field(
        1,
        ge=1,
        le=10,
        description="replicas of topics that `tracker topics` creates; use 3 in production",
    )
    standbys: int = Field(0, ge=0, le=5, description="number of standby replicas of each state")
    session_timeout_seconds: float = Field(
        10.0, ge=6.0, le=300.0, description="time after which a silent worker loses its partitions"
    )
    transaction_timeout_seconds: float = Field(
        10.0,
        ge=1.0,
        le=300.0,
        description="time after which the broker aborts a silent worker's transaction",
    )
    send_seconds: float = Field(
        120.0,
        ge=1.0,
        le=3600.0,
        description="time in which brokers that answer have to take lists, rejections or a commit;"
        " then the worker names the topic and stops",
    )
    shutdown_seconds: float = Field(
        20.0,
        ge=1.0,
        le=600.0,
        description="time to stop cleanly after SIGTERM; then the process is killed",
    )
    log_user_ids: bool = Field(
        False, description="name users by their ids in the log; otherwise they are hidden"
    )
    pseudonym_key_file: Annotated[Path | None, Optional] = Field(
        None,
        description="file with the key of pseudonyms, 32 characters or more: states, changelogs,"
        " lists and logs have keyed hashes in place of users' ids",
    )
    pseudonym_former_key_file: Annotated[Path | None, Optional] = Field(
        None,
        description="file with the former key, so that users who were forgotten under it stay"
        " forgotten",
    )
    user_keys: bool = Field(
        False,
        description="encrypt the rows of each user with a key of the user's own, which"
        " `tracker forget` deletes: after that no backup of them can be read; needs"
        " TRACKER_PSEUDONYM_KEY_FILE, and brokers with transactions",
    )
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = Field(
        "INFO", description="lowest level of messages in the log on stderr"
    )
    tracing: bool = Field(
        False, description="send a trace of each chunk by OpenTelemetry, as its own variables say"
    )
    log_format: LogFormat = Field(
        "text", description="form of the log: lines of text, or one JSON object per line"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the given values: `load_settings` reads the environment, once."""
        return (init_settings,)

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.artifact_public_key is not None and not _is_key(self.artifact_public_key):
            raise ValueError(
                f"{PREFIX}ARTIFACT_PUBLIC_KEY is {self.artifact_public_key!r}; expected 32 bytes in"
                " base64, as `indexer sign` prints them"
            )
        if self.sasl_password is not None and self.sasl_password_file is not None:
            raise ValueError(
                f"{PREFIX}SASL_PASSWORD and {PREFIX}SASL_PASSWORD_FILE are both set; one is"
                " expected"
            )
        is_sasl = self.security_protocol.startswith("SASL")
        if is_sasl and self.sasl_mechanism == "OAUTHBEARER":
            if self.sasl_token_file is None:
                raise ValueError(
                    f"{PREFIX}SASL_MECHANISM is OAUTHBEARER, which needs {PREFIX}SASL_TOKEN_FILE"
                )
        elif is_sasl and (
            self.sasl_username is None
            or (self.sasl_password is None and self.sasl_password_file is None)
        ):
            raise ValueError(
                f"{PREFIX}SECURITY_PROTOCOL is {self.security_protocol}, which needs"
                f" {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD (or {PREFIX}SASL_PASSWORD_FILE)"
            )
        for name in ("web_token", "web_read_token"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                variable = PREFIX + name.upper()
                raise ValueError(f"{variable} and {variable}_FILE are set; one is expected")
        if self.user_keys and self.pseudonym_key_file is None:
            raise ValueError(
                f"{PREFIX}USER_KEYS is true, which needs {PREFIX}PSEUDONYM_KEY_FILE: the keys of"
                " users are wrapped by a key that is made of it"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError(f"{PREFIX}TLS_CERT_FILE and {PREFIX}TLS_KEY_FILE belong together")
        return self

    @model_validator(mode="after")
    def _reaches_brokers_as_meant(self) -> Self:
        """Refuse credentials that the protocol does not use: they would protect nothing."""
        for prefix, uses in (("sasl_", "SASL"), ("tls_", "SSL")):
            if uses in self.security_protocol:
                continue
            unused = [
                PREFIX + name.upper()
                for name, field in type(self).model_fields.items()
                if name.startswith(prefix) and field.default is None and getattr(self, name)
            ]
            if unused:
                raise ValueError(
                    f"{', '.join(unused)} set, and {PREFIX}SECURITY_PROTOCOL is"
                    f" {self.security_protocol}, which does not use it; set SASL_SSL, SSL or"
                    " SASL_PLAINTEXT, or leave it out"
                )
        for address in self.bootstrap or [""]:
            _, colon, port = address.rpartition(":")
            if not address or (colon and not (port.isdecimal() and 0 < int(port) < 65536)):
                raise ValueError(
                    f"{PREFIX}BROKERS is {self.brokers!r}; expected HOST:PORT, separated by commas"
                )
        return self

    @property
    def bootstrap(self) -> list[str]:
        """The brokers' addresses."""
        return [address.strip() for address in self.brokers.split(",") if address.strip()]

    def token(self, name: Literal["web_token", "web_read_token"]) -> str | None:
        """Return a token: the variable, or what its file holds.

        Raises:
            SettingsError: the file cannot be read, or holds too little.
        """
        secret: SecretStr | None = getattr(self, name)
        path: Path | None = getattr(self, f"{name}_file")
        if secret is not None or path is None:
            return None if secret is None else secret.get_secret_value()
        return _secret_text(f"{PREFIX}{name.upper()}_FILE", path, MIN_TOKEN)

    def pseudonym_key(
        self, name: Literal["pseudonym_key_file", "pseudonym_former_key_file"]
    ) -> str | None:
        """Return the key of pseudonyms that a file holds; None if the variable is not set.

        Raises:
            SettingsError: the file cannot be read, or holds too little.
        """
        path: Path | None = getattr(self, name)
        if path is None:
            return None
        remedy = ": `openssl rand -base64 32` makes a key"
        return _secret_text(f"{PREFIX}{name.upper()}", path, MIN_KEY, remedy)

    def password(self) -> str:
        """Return the SASL password, from its file if that is set; empty if there is none.

        Raises:
            SettingsError: the file cannot be read, or is empty.
        """
        if self.sasl_password_file is None:
            return "" if self.sasl_password is None else self.sasl_password.get_secret_value()
        name = f"{PREFIX}SASL_PASSWORD_FILE"
        try:
            text = self.sasl_password_file.read_text().removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}: {self.sasl_password_file} cannot be read: {error}") from (
                error
            )
        if not text:
            raise SettingsError(
                f"{name}: {self.sasl_password_file} is empty; a password is expected"
            )
        return text

    def public(self) -> dict[str, str]:
        """All values as text by variable, passwords masked."""
        return {
            PREFIX + name.upper(): "" if value is None else without_secrets(str(value))
            for name, value in ((name, getattr(self, name)) for name in type(self).model_fields)
        }


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings from TRACKER_* variables.

    Args:
        environ: the environment, by default this process's.
        overrides: values by field, which take precedence over the environment.

    Raises:
        SettingsError: a name is unknown or a value wrong.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        field = variable.removeprefix(PREFIX).lower()
        if field not in Settings.model_fields or variable != PREFIX + field.upper():
            raise SettingsError(f"{variable} is not a setting; {_nearest(field)}")
        values[field] = value
    try:
        return Settings(**(values | overrides))
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def _nearest(field: str) -> str:
    near = get_close_matches(field, Settings.model_fields, n=1)
    if near:
        return f"did you mean {PREFIX}{near[0].upper()}?"
    return "the settings are " + ", ".join(PREFIX + name.upper() for name in Settings.model_fields)


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        if not problem["loc"]:
            lines.append(str(problem["msg"]).removeprefix("Value error, "))
            continue
        field = str(problem["loc"][0])
        secret = field.endswith(("password", "token"))
        value = "***" if secret else repr(problem["input"])
        lines.append(
            f"{PREFIX}{field.upper()} is {value}; expected {_expected(field, dict(problem))}"
        )
    return "; ".join(dict.fromkeys(lines))


def _expected(field: str, problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"])
    if problem["type"] in EXPECTED:
        message = EXPECTED[problem["type"]].format(**problem.get("ctx", {}))
    info = Settings.model_fields.get(field)
    if info is None:
        return message
    choices = [choice for choice in get_args(info.annotation) if isinstance(choice, str)]
    if choices:
        return "one of " + ", ".join(choices)
    if field == "unknown_kinds":
        return "reject, or a number from -1000 to 1000"
    return f"{message} ({info.description})"


@dataclass(frozen=True)
class SettingRow:
    """One line of the table of settings."""

    variable: str
    default: str
    meaning: str


def settings_table() -> list[SettingRow]:
    """List every setting with its default and meaning, for the README and `tracker doctor`."""
    return [
        SettingRow(
            PREFIX + name.upper(),
            "" if info.default is None else str(info.default),
            info.description or "",
        )
        for name, info in Settings.model_fields.items()
    ]
