"""Ed25519 signatures of manifests: who may publish what workers load.

A manifest has the SHA-256 of every file of its version, so its signature covers all of them.
"""

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from tracker.artifact.versions import ArtifactError

SIGNATURE = "manifest.sig"
"""Name of the file, beside the manifest: 64 bytes."""

KEY_BYTES = 32


class SigningKey:
    """The private key of a publisher.

    Args:
        path: PEM file of an Ed25519 key without a passphrase, as `openssl genpkey` writes it.

    Raises:
        ArtifactError: the file cannot be read, or has another key.
    """

    def __init__(self, path: Path) -> None:
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ArtifactError(f"{path}: not a private key without a passphrase: {error}") from (
                error
            )
        if not isinstance(key, Ed25519PrivateKey):
            raise ArtifactError(
                f"{path}: another kind of key; Ed25519 is expected:"
                " openssl genpkey -algorithm ed25519 -out key.pem"
            )
        self._key = key

    @property
    def public(self) -> str:
        """The public key, for TRACKER_ARTIFACT_PUBLIC_KEY."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def sign(self, manifest: bytes) -> bytes:
        """Return the signature of a manifest's bytes."""
        return self._key.sign(manifest)


def check_key(public_key: str) -> bytes:
    """Return the bytes of a public key.

    Raises:
        ValueError: the text is not 32 bytes in base64.
    """
    try:
        key = base64.b64decode(public_key, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from error
    if len(key) != KEY_BYTES:
        raise ValueError(f"{len(key)} bytes; {KEY_BYTES} are expected")
    return key


def check_signature(where: str, manifest: bytes, signature: bytes, public_key: str) -> None:
    """Check the signature of a manifest before anything of it is read.

    Raises:
        ArtifactError: another key, or nobody, has signed these bytes.
    """
    try:
        Ed25519PublicKey.from_public_bytes(check_key(public_key)).verify(signature, manifest)
    except (InvalidSignature, ValueError) as error:
        raise ArtifactError(
            f"{where}: not signed by the key of TRACKER_ARTIFACT_PUBLIC_KEY; build with"
            " --signing-key, or `indexer sign` it, if you trust who has written it"
        ) from error
