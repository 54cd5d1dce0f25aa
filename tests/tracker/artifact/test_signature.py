"""Only artifacts that the key has signed are loaded, and links are refused."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from indexer.data.catalog import Catalog
from indexer.items.assemble import build_artifact
from indexer.items.options import BuildOptions
from indexer.items.publish import sign
from tests.shop import LetterEncoder, shop_items
from tracker.artifact.artifact import Artifact
from tracker.artifact.signature import SIGNATURE, SigningKey
from tracker.artifact.versions import ArtifactError
from tracker.settings import SettingsError, load_settings


def write_key(path: Path, key: Ed25519PrivateKey | None = None) -> Path:
    key = key or Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def build(root: Path, key: Path | None = None) -> str:
    catalog = Catalog(shop_items(60))
    options = BuildOptions(dim=16, signing_key=key, index="flat")
    return build_artifact(catalog, LetterEncoder(), root, options).version


def load(root: Path, public: str | None) -> Artifact:
    return Artifact.load(root, device="cpu", public_key=public)


def test_signed_version_is_loaded_and_one_of_another_key_or_none_is_not(tmp_path: Path) -> None:
    root, key = tmp_path / "artifacts", write_key(tmp_path / "key.pem")
    public = SigningKey(key).public
    version = build(root, key)
    assert load(root, public).manifest.version == version
    other = SigningKey(write_key(tmp_path / "other.pem")).public
    with pytest.raises(ArtifactError, match="not signed by the key of TRACKER_ARTIFACT_PUBLIC_KEY"):
        load(root, other)
    (root / version / SIGNATURE).unlink()
    with pytest.raises(ArtifactError, match="not signed by the key"):
        load(root, public)
    assert load(root, None).manifest.version == version
    assert sign(root, version, key) == public
    assert load(root, public).manifest.version == version


def test_an_altered_manifest_is_refused_before_it_is_read(tmp_path: Path) -> None:
    root, key = tmp_path / "artifacts", write_key(tmp_path / "key.pem")
    version = build(root, key)
    (root / version / "manifest.json").write_bytes(b"{")  # not even JSON
    with pytest.raises(ArtifactError, match="not signed by the key"):
        load(root, SigningKey(key).public)


def test_link_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    version = build(root)
    path = root / version / "items.json"
    path.rename(tmp_path / "items.json")
    path.symlink_to(tmp_path / "items.json")
    with pytest.raises(ArtifactError, match="a link; a file is expected"):
        load(root, None)


def test_keys_that_are_none_are_refused_in_one_line(tmp_path: Path) -> None:
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "ec.pem").write_bytes(pem)
    (tmp_path / "text.pem").write_text("secret")
    for name, why in (
        ("ec.pem", "Ed25519 is expected"),
        ("text.pem", "not a private key"),
        ("absent.pem", "cannot be read"),
    ):
        with pytest.raises(ArtifactError, match=why):
            SigningKey(tmp_path / name)
    with pytest.raises(SettingsError, match="expected 32 bytes in base64"):
        load_settings({}, artifact_public_key="secret")


def test_key_of_openssl_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no 'openssl' in PATH")
    public = SigningKey(path).public
    assert load_settings({}, artifact_public_key=public).artifact_public_key == public
