"""Settings: read from TRACKER_* variables, refused by name."""

from pathlib import Path
from typing import Literal

import pytest

from tracker.settings import Settings, SettingsError, load_settings, settings_table

TokenName = Literal["web_token", "web_read_token"]


def test_defaults_work_without_any_variable() -> None:
    settings = load_settings({})
    assert settings.bootstrap == ["localhost:9092"]
    assert settings.emit == "chunk"
    assert settings.unknown_kinds == "reject"


def test_variables_are_read_and_other_programs_variables_are_left_alone() -> None:
    settings = load_settings(
        {
            "TRACKER_BROKERS": "a:1, b:2",
            "TRACKER_UNKNOWN_KINDS": "0.5",
            "TRACKER_DATA_DIR": "/x",
            "TRACKER_LOG_LEVEL": "debug",
            "TRACKER_MAX_EVENT_AGE_SECONDS": "",
            "PATH": "/bin",
        }
    )
    assert settings.bootstrap == ["a:1", "b:2"]
    assert settings.unknown_kinds == 0.5
    assert settings.data_dir == Path("/x")
    assert settings.log_level == "DEBUG"
    assert settings.max_event_age_seconds is None


def test_flags_stand_above_the_environment() -> None:
    assert load_settings({"TRACKER_K": "5"}, k=7).k == 7


def test_unknown_variable_is_refused_and_the_nearest_named() -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({"TRACKER_BROKER": "x"})
    assert str(error.value) == "TRACKER_BROKER is not a setting; did you mean TRACKER_BROKERS?"


def test_unknown_variable_that_is_like_none_is_refused_with_all_names() -> None:
    with pytest.raises(
        SettingsError, match=r"TRACKER_XYZZY is not a setting; the settings are .*TRACKER_K,"
    ):
        load_settings({"TRACKER_XYZZY": "x"})


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("TRACKER_K", "ten", "TRACKER_K is 'ten'; expected a whole number (items in a"),
        ("TRACKER_K", "2.5", "TRACKER_K is '2.5'; expected a whole number (items in a"),
        ("TRACKER_UNKNOWN_KINDS", "1e39", "is '1e39'; expected reject, or a number from -1000 to"),
        ("TRACKER_UNKNOWN_KINDS", "inf", "is 'inf'; expected reject, or a number from -1000 to"),
        ("TRACKER_UNKNOWN_KINDS", "nan", "is 'nan'; expected reject, or a number from -1000 to"),
        ("TRACKER_STATE_IDLE_DAYS", "inf", "is 'inf'; expected a finite number (delete states"),
        ("TRACKER_STATE_IDLE_DAYS", "nan", "is 'nan'; expected a finite number (delete states"),
        ("TRACKER_HEALTH_STALL_SECONDS", "inf", "is 'inf'; expected a finite number (/healthz"),
        ("TRACKER_K", "0", "TRACKER_K is '0'; expected 1 or more (items in a"),
        ("TRACKER_DIVERSITY", "much", "expected a number (weight of diversity"),
        ("TRACKER_MAX_EVENT_AGE_SECONDS", "0", "expected more than 0.0 (events older"),
        ("TRACKER_BROKERS", "", "TRACKER_BROKERS is ''; expected a text that is not empty"),
        ("TRACKER_TRANSACTIONAL_RECOMMENDATIONS", "si", "expected true or false ("),
        ("TRACKER_EMIT", "never", "expected one of event, chunk, changed"),
        ("TRACKER_UNKNOWN_KINDS", "ignore", "expected reject, or a number"),
        ("TRACKER_NAME", "a b", "TRACKER_NAME is 'a b'; expected a text of the pattern ^["),
        ("TRACKER_ARTIFACT_POLL_SECONDS", "60", "expected 2.0 or less"),
        ("TRACKER_SECURITY_PROTOCOL", "SASL_SSL", "needs TRACKER_SASL_USERNAME"),
        ("TRACKER_TLS_CERT_FILE", "/a.pem", "TRACKER_TLS_KEY_FILE belong together"),
        ("TRACKER_USER_KEYS", "on", "TRACKER_USER_KEYS is true, which needs TRACKER_PSEUDONYM_KEY"),
    ],
)
def test_wrong_value_is_refused_with_name_found_and_expected(
    variable: str, value: str, expected: str
) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings({variable: value})
    assert expected in str(error.value)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).k = 3


def test_password_is_never_printed() -> None:
    settings = load_settings(
        {
            "TRACKER_SECURITY_PROTOCOL": "sasl_ssl",
            "TRACKER_SASL_USERNAME": "u",
            "TRACKER_SASL_PASSWORD": "hunter2",
        }
    )
    assert settings.sasl_password is not None
    assert settings.sasl_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings) + str(settings) + str(settings.public())
    with pytest.raises(SettingsError) as error:
        load_settings({}, sasl_password=["hunter2"])
    assert "hunter2" not in str(error.value)


TOKENS = ("web_token", "web_read_token")


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_comes_from_its_file_and_is_never_printed(name: TokenName, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a token of 20 marks.\n")
    settings = load_settings({f"TRACKER_{name.upper()}_FILE": str(path)})
    assert settings.token(name) == "a token of 20 marks."
    assert [settings.token(other) for other in TOKENS if other != name] == [None]  # type: ignore[arg-type]
    assert "a token" not in repr(settings) + str(settings.public())


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_that_is_too_short_is_refused_from_a_file_as_from_the_variable(
    name: TokenName, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    variable = f"TRACKER_{name.upper()}"
    path.write_text("x" * 15 + "  \n")
    with pytest.raises(SettingsError) as error:
        load_settings({}, **{f"{name}_file": path}).token(name)
    expected = f"{variable}_FILE is {path}, with 15 characters; 16 or more are expected"
    assert str(error.value) == expected
    with pytest.raises(
        SettingsError, match=rf"{variable} is \*\*\*; expected 16 characters or more"
    ):
        load_settings({variable: "x" * 15})
    path.write_text("x" * 16)
    assert load_settings({}, **{f"{name}_file": path}).token(name) == "x" * 16
    with pytest.raises(SettingsError, match=rf"{variable}_FILE is .*none: it cannot be read"):
        load_settings({}, **{f"{name}_file": tmp_path / "none"}).token(name)


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_and_its_file_are_not_taken_together(name: TokenName, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("x" * 16)
    variable = f"TRACKER_{name.upper()}"
    with pytest.raises(SettingsError) as error:
        load_settings({variable: "y" * 16, f"{variable}_FILE": str(path)})
    assert f"{variable} and {variable}_FILE are set; one is expected" in str(error.value)
    assert "y" * 16 not in str(error.value)


def test_table_has_a_meaning_for_every_setting() -> None:
    table = settings_table()
    assert len(table) == len(Settings.model_fields)
    assert all(row.meaning and row.variable.startswith("TRACKER_") for row in table)


@pytest.mark.parametrize(
    ("protocol", "values", "named"),
    [
        ("PLAINTEXT", {"sasl_username": "u", "sasl_password": "p"}, "TRACKER_SASL_USERNAME, "),
        ("PLAINTEXT", {"tls_ca_file": "ca.pem"}, "TRACKER_TLS_CA_FILE set"),
        ("SSL", {"sasl_username": "u"}, "TRACKER_SASL_USERNAME set"),
        (
            "SASL_PLAINTEXT",
            {"sasl_username": "u", "sasl_password": "p", "tls_ca_file": "ca.pem"},
            "TRACKER_TLS_CA_FILE set",
        ),
    ],
)
def test_credentials_that_the_protocol_does_not_use_are_refused(
    protocol: str, values: dict[str, str], named: str
) -> None:
    with pytest.raises(SettingsError, match=f"{named}.* is {protocol}, which does not use it"):
        load_settings({}, security_protocol=protocol, **values)


@pytest.mark.parametrize("brokers", [" , ", ",", "host:", "host:port", "a:9092,b:0", "a:99999"])
def test_brokers_that_name_none_are_refused(brokers: str) -> None:
    with pytest.raises(SettingsError, match="expected HOST:PORT, separated by commas"):
        load_settings({}, brokers=brokers)


def test_a_password_in_a_url_is_not_shown() -> None:
    settings = load_settings({}, artifacts="s3://id:secret@host/artifacts?token=secret")
    assert settings.public()["TRACKER_ARTIFACTS"] == "s3://***@host/artifacts?***"
