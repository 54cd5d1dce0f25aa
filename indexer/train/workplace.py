"""The folder of a training under way, so that the same command goes on where it was interrupted."""

import hashlib
import shutil
from importlib.resources import files
from pathlib import Path

from indexer.data.histories import EventLog
from tracker.artifact.versions import Root, is_url, local_path

TRAINING = ".training"
"""The folder, below the root of the versions, that holds those of the trainings under way."""


def fingerprint(log: EventLog, items: bytes, told: bytes) -> str:
    """Return what stands for a training: its events, its items, its options and our own code.

    Args:
        log: the events it learns from.
        items: what stands for the items and their vectors.
        told: the options, and whatever else it was told.
    """
    digest = hashlib.sha256(items)
    digest.update(told)
    digest.update("\n".join(log.batch.users).encode(errors="replace"))
    batch = log.batch
    for column in (
        batch.items, batch.times, batch.weights, batch.values, batch.kinds, batch.scenes,
        batch.event_ids, batch.retracts,
    ):  # fmt: skip
        digest.update(column.tobytes())
    for package in ("tracker", "indexer"):
        folder = Path(str(files(package)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def open_workplace(root: Root, name: str) -> Path | None:
    """Return the folder of a training, made if it is not there; None below a remote root."""
    if is_url(root):
        return None
    folder = local_path(root) / TRAINING / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def close_workplace(folder: Path | None) -> None:
    """Remove the folder of a training that is done."""
    if folder is None:
        return
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
