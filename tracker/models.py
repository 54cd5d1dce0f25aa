"""Models: what training adds to an artifact, each in files of its own; their reader and writer."""

from dataclasses import dataclass
from pathlib import Path

from tracker.manifest import LAYOUT, REBUILD, Manifest
from tracker.network import Network, RankerFileError
from tracker.versions import ArtifactError, write_synced


@dataclass(frozen=True, slots=True)
class Models:
    """What was trained; None for what was not. Without any the tracker serves all the same.

    Attributes:
        ranker: scores candidates, where else the fixed blend does.
    """

    ranker: Network | None = None


UNTRAINED = Models()
"""Nothing was trained."""


def write_models(folder: Path, models: Models) -> None:
    """Write the models' files into a directory, and wait until they are on disk.

    Raises:
        OSError: they cannot be written.
    """
    if models.ranker is not None:
        write_synced(folder / LAYOUT.ranker, models.ranker.to_bytes())


def read_models(path: Path, manifest: Manifest) -> Models:
    """Read the models that a manifest describes, of a directory that `verify` has found sound.

    Raises:
        ArtifactError: a file is not what the manifest says, or not listed there.
    """
    return Models(ranker=_read_ranker(path, manifest))


def _read_ranker(path: Path, manifest: Manifest) -> Network | None:
    if manifest.ranker is None:
        return None
    _check_listed(path, manifest, LAYOUT.ranker, "a ranker")
    try:
        return Network.load(path / LAYOUT.ranker, manifest.ranker)
    except RankerFileError as error:
        raise ArtifactError(f"{error}; {REBUILD}") from error


def _check_listed(path: Path, manifest: Manifest, name: str, what: str) -> None:
    if name not in manifest.files:
        raise ArtifactError(
            f"{path / name}: the manifest describes {what}, and lists no file of it; {REBUILD}"
        )
