"""Renewed certificates and tokens are read, and what cannot be read is said in one line."""

import asyncio
import os
import ssl
from pathlib import Path

import pytest
import trustme

from tracker.kafka.cluster import client_arguments
from tracker.kafka.rights import ROLES, rights_of
from tracker.kafka.security import RenewedContext, TokenError, TokenFile
from tracker.settings import Settings, SettingsError, load_settings


def write(folder: Path, authority: trustme.CA, name: str = "client") -> tuple[Path, Path, Path]:
    ca, cert, key = (folder / file for file in ("ca.pem", "cert.pem", "key.pem"))
    issued = authority.issue_cert(f"{name}@example.org", common_name=name)
    authority.cert_pem.write_to_path(str(ca))
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    return ca, cert, key


def shake(client: ssl.SSLContext, server: ssl.SSLContext) -> str:
    """Shake hands in memory; return the common name of the client's certificate."""
    into_client, into_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(into_client, into_server, server_hostname="broker.example.org")
    other = server.wrap_bio(into_server, into_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (one, other):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    assert len(done) == 2
    subject = (other.getpeercert() or {})["subject"]
    return dict(pair[0] for pair in subject)["commonName"]  # type: ignore[misc]


def server_of(authority: trustme.CA) -> ssl.SSLContext:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("broker.example.org").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    return server


def test_next_connection_uses_a_renewed_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = server_of(authority)
    client = RenewedContext.of_files(*write(tmp_path, authority, "before"))
    assert shake(client, server) == "before"
    write(tmp_path, authority, "after")
    assert shake(client, server) == "after"


def test_files_that_do_not_fit_each_other_are_read_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = trustme.CA()
    server = server_of(authority)
    files = write(tmp_path, authority, "before")
    client = RenewedContext.of_files(*files)
    key = files[2].read_bytes()
    write(tmp_path, authority, "after")
    new_key = files[2].read_bytes()
    files[2].write_bytes(key)
    assert shake(client, server) == "before"
    assert "cannot be read yet" in caplog.text
    files[2].write_bytes(new_key)
    os.utime(files[2], ns=(1, 1))
    assert shake(client, server) == "after"


def test_a_broker_of_another_authority_is_refused(tmp_path: Path) -> None:
    client = RenewedContext.of_files(*write(tmp_path, trustme.CA()))
    with pytest.raises(ssl.SSLError):
        shake(client, server_of(trustme.CA()))


def test_token_is_read_each_time_and_a_file_without_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "token"
    provider = TokenFile(path)
    with pytest.raises(TokenError, match="TRACKER_SASL_TOKEN_FILE"):
        asyncio.run(provider.token())
    for text in ("first", "second"):
        path.write_text(f"{text}\n")
        assert asyncio.run(provider.token()) == text
    path.write_text("\n")
    with pytest.raises(TokenError, match="is empty; a token is expected"):
        asyncio.run(provider.token())


def sasl(**more: object) -> Settings:
    return load_settings({}, security_protocol="SASL_PLAINTEXT", sasl_username="me", **more)


def test_password_of_a_file_is_that_of_the_client_and_in_no_print(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("a secret \n")
    settings = sasl(sasl_password_file=path)
    assert client_arguments(settings)["sasl_plain_password"] == "a secret "
    assert "a secret" not in str(settings.public()) + repr(settings)
    path.write_text("")
    with pytest.raises(SettingsError, match=r"SASL_PASSWORD_FILE: .* is empty"):
        client_arguments(settings)
    with pytest.raises(SettingsError, match="both set; one is expected"):
        sasl(sasl_password_file=path, sasl_password="x")
    with pytest.raises(SettingsError, match="needs TRACKER_SASL_TOKEN_FILE"):
        sasl(sasl_mechanism="OAUTHBEARER")


@pytest.mark.parametrize("role", ROLES)
def test_rights_of_a_role_are_commands_that_allow_and_deny_nothing(role: str) -> None:
    settings = load_settings({}, name="shop")
    lines = [
        right.command("broker:9092", "User:a b")
        for right in rights_of(settings, role, of="shop-now")  # type: ignore[arg-type]
    ]
    assert len(lines) == len(set(lines)) > 0
    for line in lines:
        assert line.startswith("kafka-acls.sh --bootstrap-server broker:9092 --add ")
        assert "--allow-principal 'User:a b' --operation " in line
        assert " shop" in line
        assert "All" not in line
