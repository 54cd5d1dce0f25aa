"""The current version: publish, roll back, list."""

import logging
from pathlib import Path

import msgspec

from tracker.artifact.manifest import Manifest, read_manifest, verify
from tracker.artifact.signature import SIGNATURE, SigningKey
from tracker.artifact.versions import (
    MANIFEST,
    ArtifactError,
    Root,
    latest_version,
    list_versions,
    read_bytes,
    sequence_of,
    set_latest,
    write_bytes,
)

logger = logging.getLogger(__name__)


class Version(msgspec.Struct, frozen=True):
    """One line of `indexer list`; `problem` is the reason if the manifest cannot be read."""

    version: str
    latest: bool
    created: str = ""
    live: int = 0
    retired: int = 0
    basis: str = ""
    index: str = ""
    recall_at_10: float = 0.0
    problem: str = ""


def publish(root: Root, version: str) -> Manifest:
    """Make a version current, after a check of all of its files.

    Raises:
        ArtifactError: it does not exist, or it is damaged.
    """
    manifest = read_manifest(root, version)
    verify(root, manifest)
    set_latest(root, version)
    return manifest


def sign(root: Root, version: str, signing_key: Path) -> str:
    """Sign a version, after a check of all of its files; return the public key.

    Raises:
        ArtifactError: it does not exist, it is damaged, or the key cannot be used.
    """
    key = SigningKey(signing_key)
    verify(root, read_manifest(root, version))
    content = read_bytes(root, f"{version}/{MANIFEST}")
    write_bytes(root, f"{version}/{SIGNATURE}", key.sign(content))
    return key.public


def rollback(root: Root, version: str | None = None) -> Manifest:
    """Make an earlier version current: the one before LATEST, or the one named.

    Raises:
        ArtifactError: there is no earlier version, or it is damaged.
    """
    if version is None:
        current = latest_version(root)
        earlier = [v for v in list_versions(root) if sequence_of(v) < sequence_of(current)]
        if not earlier:
            raise ArtifactError(f"{root}: no version before {current} to go back to")
        version = earlier[-1]
    return publish(root, version)


def overview(root: Root) -> list[Version]:
    """Return all versions, oldest first; a damaged one with its problem.

    Raises:
        ArtifactError: the root cannot be read.
    """
    versions = list_versions(root)
    try:
        latest = latest_version(root) if versions else ""
    except ArtifactError as error:
        logger.warning("%s", error)
        latest = ""
    return [_line(root, version, version == latest) for version in versions]


def _line(root: Root, version: str, latest: bool) -> Version:
    try:
        manifest = read_manifest(root, version)
    except ArtifactError as error:
        return Version(version, latest, problem=str(error))
    return Version(
        version=version,
        latest=latest,
        created=manifest.created,
        live=manifest.live,
        retired=manifest.items - manifest.live,
        basis=manifest.basis,
        index=manifest.index.kind,
        recall_at_10=manifest.recall_at_10,
    )
