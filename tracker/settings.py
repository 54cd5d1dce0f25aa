"""Where the tracker runs: Settings, from TRACKER_* variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tracker.explained import Explained

PREFIX = "TRACKER_"

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Device = Literal["auto", "cpu", "cuda"]
Emit = Literal["event", "chunk", "changed"]
SeenPolicy = Literal["demote", "exclude", "keep"]
OnlineLearning = Literal["on", "freeze", "off"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


EXPECTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than_equal": "{le} or less",
    "string_too_short": "a text that is not empty",
    "string_pattern_mismatch": "a text of the pattern {pattern}",
}
"""What pydantic's kinds of errors say, in our words."""


class SettingsError(Explained, ValueError):
    """A setting is unknown or wrong; the message says which, what was found and expected."""


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


Optional = BeforeValidator(_empty_is_none)


class Settings(BaseSettings):
    """Where the tracker runs. The field `name` is the variable `TRACKER_NAME`, and so on.

    The defaults work on a laptop with a broker at localhost:9092. What shapes a state (half-lives,
    widths) is not here: it is chosen when an artifact is built, and kept in its manifest.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=False,
        populate_by_name=True,
    )

    name: str = Field(
        "tracker",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="prefix of the consumer group and of all topics",
    )
    brokers: str = Field("localhost:9092", min_length=1, description="HOST:PORT, comma-separated")
    security_protocol: Annotated[SecurityProtocol, BeforeValidator(_upper)] = Field(
        "PLAINTEXT", description="how to reach the brokers"
    )
    sasl_mechanism: Annotated[SaslMechanism, BeforeValidator(_upper)] = Field(
        "PLAIN", description="where the protocol is SASL_*"
    )
    sasl_username: Annotated[str | None, Optional] = Field(None, description="SASL user")
    sasl_password: Annotated[SecretStr | None, Optional] = Field(
        None, description="SASL password; never printed"
    )
    tls_ca_file: Annotated[Path | None, Optional] = Field(
        None, description="PEM file of the authority; the system's by default"
    )
    tls_cert_file: Annotated[Path | None, Optional] = Field(
        None, description="PEM file of our certificate"
    )
    tls_key_file: Annotated[Path | None, Optional] = Field(None, description="PEM file of its key")

    artifacts: str = Field(
        "artifacts", min_length=1, description="folder or fsspec URL that the indexer publishes to"
    )
    artifact_poll_seconds: float = Field(
        1.0, ge=0.1, le=2.0, description="how often a new LATEST is looked for"
    )
    data_dir: Path = Field(
        Path("tracker-data"), description="folder of this worker's state; each worker its own"
    )
    device: Device = Field("auto", description="where encoders run")
    index_device: Device = Field("auto", description="where the index is searched")
    kinds_file: Annotated[Path | None, Optional] = Field(
        None, description="TOML file of the weights of kinds; the built-in table by default"
    )
    unknown_kinds: Literal["reject"] | float = Field(
        "reject", description="reject, or the weight of kinds that the table lacks"
    )

    k: int = Field(10, ge=1, le=500, description="items in a recommendation")
    seen: SeenPolicy = Field("demote", description="what happens to items the user knows")
    diversity: float = Field(0.1, ge=0.0, le=1.0, description="weight of diversity; 0 is none")
    searches: int = Field(2, ge=1, le=8, description="index searches a user at most")
    online_learning: OnlineLearning = Field(
        "on",
        description="what was trained goes on learning; freeze: it keeps what it learned;"
        " off: back to what was published",
    )
    emit: Emit = Field(
        "chunk", description="a list for every event, once a user a chunk, or only when it changed"
    )
    emit_min_interval_seconds: float = Field(
        0.0, ge=0.0, description="never more often a user than this; the last list follows"
    )
    max_event_age_seconds: Annotated[float | None, Optional] = Field(
        None, gt=0.0, description="older events bring one list a user at the end of the backlog"
    )

    commit_interval_seconds: float = Field(
        1.0, ge=0.05, le=10.0, description="how often states and positions are committed"
    )
    chunk_events: int = Field(1000, ge=1, le=20_000, description="events processed at once")
    state_rows: int = Field(
        200_000, ge=1000, description="users kept in memory, about 8 KiB each; the rest is on disk"
    )
    item_state_rows: int = Field(
        200_000, ge=1000, description="items kept in memory by the owner of their partition"
    )
    state_idle_days: Annotated[float | None, Optional] = Field(
        None, gt=0.0, description="states without an event for so long are deleted; off by default"
    )
    transactional_recommendations: bool = Field(
        False, description="recommendations inside the state's transaction: exactly once, but late"
    )

    web_host: str = Field("127.0.0.1", description="address of health, metrics and lookups")
    web_port: int = Field(6066, ge=0, le=65535, description="its port; 0 for no web server")
    health_stall_seconds: float = Field(
        60.0, ge=5.0, description="/healthz fails with lag and no commit for so long"
    )

    event_partitions: int = Field(
        8, ge=1, le=1000, description="partitions that `tracker topics` gives to topics of users"
    )
    item_partitions: int = Field(
        4, ge=1, le=1000, description="partitions that `tracker topics` gives to topics of items"
    )
    replication_factor: int = Field(
        1, ge=1, le=10, description="copies that `tracker topics` asks for; 3 on a real cluster"
    )
    standbys: int = Field(
        0, ge=0, le=5, description="workers that keep a copy of each state ready, beside its owner"
    )
    session_timeout_seconds: float = Field(
        10.0, ge=6.0, le=300.0, description="a silent worker is replaced after this"
    )
    transaction_timeout_seconds: float = Field(
        10.0, ge=1.0, le=300.0, description="a silent worker's open transaction ends after this"
    )
    shutdown_seconds: float = Field(
        20.0, ge=1.0, le=600.0, description="a worker told to stop leaves by force after this"
    )
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = Field(
        "INFO", description="of the log on stderr"
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
        """Take what is given and nothing else: `load_settings` reads the environment, once."""
        return (init_settings,)

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.security_protocol.startswith("SASL") and (
            self.sasl_username is None or self.sasl_password is None
        ):
            raise ValueError(
                f"{PREFIX}SECURITY_PROTOCOL is {self.security_protocol}, which needs"
                f" {PREFIX}SASL_USERNAME and {PREFIX}SASL_PASSWORD"
            )
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError(f"{PREFIX}TLS_CERT_FILE and {PREFIX}TLS_KEY_FILE belong together")
        return self

    @property
    def bootstrap(self) -> list[str]:
        """The brokers' addresses."""
        return [address.strip() for address in self.brokers.split(",") if address.strip()]

    def public(self) -> dict[str, str]:
        """All values as text by variable, the password masked."""
        return {
            PREFIX + name.upper(): "" if value is None else str(value)
            for name, value in ((name, getattr(self, name)) for name in type(self).model_fields)
        }


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings from TRACKER_* variables.

    Args:
        environ: the environment, by default this process's.
        overrides: values by field that stand above the environment, as flags of a command do.

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
            raise SettingsError(f"{variable} is no setting; {_nearest(field)}")
        values[field] = value
    try:
        return Settings(**(values | overrides))
    except ValidationError as error:
        raise SettingsError(_explain(error)) from error


def _nearest(field: str) -> str:
    near = get_close_matches(field, Settings.model_fields, n=1)
    if near:
        return f"did you mean {PREFIX}{near[0].upper()}?"
    return "known are " + ", ".join(PREFIX + name.upper() for name in Settings.model_fields)


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        if not problem["loc"]:
            lines.append(str(problem["msg"]).removeprefix("Value error, "))
            continue
        field = str(problem["loc"][0])
        found = "***" if "password" in field else repr(problem["input"])
        lines.append(
            f"{PREFIX}{field.upper()} is {found}; expected {_expected(field, dict(problem))}"
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
        return "reject, or a number"
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
