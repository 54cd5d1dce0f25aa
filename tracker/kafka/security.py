"""Certificates and tokens from files, read again when they are renewed."""

import logging
import ssl
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider

from tracker.explained import Explained, first_line

log = logging.getLogger(__name__)

MOST_TOKEN_BYTES = 64 * 1024


class TokenError(Explained, OSError):
    """The file with the token cannot be read."""


class RenewedContext(ssl.SSLContext):
    """A TLS context that reads its files again before a connection if they have changed.

    Connections that are open stay as they are. A pair of files that do not fit each other, as
    they may be in the middle of a renewal, is read at the next connection.
    """

    _ca_file: Path | None
    _cert_file: Path | None
    _key_file: Path | None
    _times: tuple[int, ...]

    @classmethod
    def of_files(
        cls, ca_file: Path | None, cert_file: Path | None, key_file: Path | None
    ) -> "RenewedContext":
        """Return a context that checks the brokers' names.

        Args:
            ca_file: PEM file of the authority; by default the system's are trusted.
            cert_file: PEM file of the client certificate.
            key_file: PEM file of its key.

        Raises:
            OSError, ssl.SSLError: a file is missing, or is not what it should be.
        """
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context._ca_file, context._cert_file, context._key_file = ca_file, cert_file, key_file
        if ca_file is None:
            context.load_default_certs()
        context._times = context._modified()
        context._read()
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection, with renewed files if there are any."""
        self._renew()
        return super().wrap_bio(*args, **kwargs)

    def _renew(self) -> None:
        try:
            times = self._modified()
            if times == self._times:
                return
            self._read()
        except (OSError, ssl.SSLError) as error:
            log.warning("TLS files have changed and cannot be read yet: %s", first_line(error))
            return
        self._times = times
        log.info("TLS files have changed: new connections use them")

    def _read(self) -> None:
        if self._ca_file is not None:
            self.load_verify_locations(str(self._ca_file))
        if self._cert_file is not None:
            pair = str(self._cert_file), str(self._key_file)
            # Files that do not fit each other would leave this context without a certificate.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(*pair)
            self.load_cert_chain(*pair)

    def _modified(self) -> tuple[int, ...]:
        files = (self._ca_file, self._cert_file, self._key_file)
        return tuple(path.stat().st_mtime_ns for path in files if path is not None)


class TokenFile(AbstractTokenProvider):
    """Gives the token that a file holds now; whoever renews it replaces the file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def token(self) -> str:
        """Return the token.

        Raises:
            TokenError: the file cannot be read, or is empty.
        """
        try:
            with self._path.open("rb") as file:
                token = file.read(MOST_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(
                f"TRACKER_SASL_TOKEN_FILE: {self._path} cannot be read: {first_line(error)}"
            ) from error
        if not token:
            raise TokenError(f"TRACKER_SASL_TOKEN_FILE: {self._path} is empty; a token is expected")
        return token
