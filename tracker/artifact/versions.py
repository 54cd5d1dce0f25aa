"""The folder of artifacts: a directory a version, LATEST names the current one; local or a URL."""

import hashlib
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import fsspec.core

from tracker.explained import Explained, first_line, without_secrets
from tracker.files import sync_folder, write_whole

LATEST = "LATEST"

MANIFEST = "manifest.json"

Root = str | Path

_VERSION = re.compile(r"(\d{6,12})-[0-9a-f]{8}")

_CACHED_VERSIONS = 4

_PIECE_BYTES, _PIECES = 1 << 20, 16
"""Bytes that are copied at a time, and how many times until they are put on disk."""

_HALF_COPY_SECONDS = 86400.0
"""Age at which a copy that is not whole is nobody's: its process was killed."""

# What the drivers behind fsspec raise, besides OSError, when a store cannot be reached.
_DRIVER_ERRORS = {
    "aiohttp": "ClientError",
    "azure.core.exceptions": "AzureError",
    "botocore.exceptions": "BotoCoreError",
    "google.auth.exceptions": "GoogleAuthError",
}


class ArtifactError(Explained):
    """An artifact cannot be used; the message has place, found, expected, and the remedy.

    The place may be a URL with a password: it is masked.
    """

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


class MissingError(ArtifactError):
    """There is no file of that name."""


def version_name(sequence: int, digest: str) -> str:
    """Return a version's name: its number and the head of its manifest's SHA-256."""
    return f"{sequence:06d}-{digest[:8]}"


def sequence_of(version: str) -> int:
    """Return a version's number.

    Raises:
        ArtifactError: the text is not a version.

    >>> sequence_of("000012-9f31c2d4")
    12
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ArtifactError(
            f"{version[:80]!r} is not a version; one such as 000012-9f31c2d4 expected"
            " (`indexer list` names those there are)"
        )
    return int(match[1])


def is_url(root: Root) -> bool:
    """Return whether a root is reached through fsspec; `file://` counts as local."""
    return "://" in str(root) and not str(root).startswith("file://")


def is_copied(root: Root, cache: Path | None) -> bool:
    """Return whether `local_copy` makes a copy of its own, in `cache` or a temporary folder."""
    return is_url(root) or cache is not None


def local_path(root: Root) -> Path:
    """Return the path of a local root."""
    return Path(str(root).removeprefix("file://"))


def latest_version(root: Root) -> str:
    """Read which version is current; cheap enough to ask every second.

    Raises:
        ArtifactError: there is none yet, or it cannot be read.
    """
    text = read_bytes(root, LATEST).decode(errors="replace").strip()
    try:
        sequence_of(text)
    except ArtifactError as error:
        raise ArtifactError(f"{root}/{LATEST}: {error}") from error
    return text


def list_versions(root: Root) -> list[str]:
    """Return the versions that are there, oldest first; an absent root has none.

    Raises:
        ArtifactError: the root cannot be read.
    """
    try:
        if is_url(root):
            files, folder = _open(root)
            entries = files.ls(folder, detail=False) if files.exists(folder) else []
            names = [str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries]
        else:
            path = local_path(root)
            names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    except _store_errors() as error:
        raise ArtifactError(f"{root}: cannot be listed: {first_line(error)}") from error
    versions = [name for name in names if _VERSION.fullmatch(name)]
    return sorted(versions, key=lambda name: (sequence_of(name), name))


def read_bytes(root: Root, name: str) -> bytes:
    """Read a small file below a root.

    Raises:
        MissingError: it is not there.
        ArtifactError: it cannot be read.
    """
    try:
        if is_url(root):
            files, folder = _open(root)
            return bytes(files.cat_file(f"{folder}/{name}"))
        return (local_path(root) / name).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(
            f"{root}/{name}: not there; build one with `indexer build ITEMS --out {root}`, or name"
            " the folder that holds LATEST"
        ) from error
    except _store_errors() as error:
        raise ArtifactError(f"{root}/{name}: cannot be read: {first_line(error)}") from error


def write_bytes(root: Root, name: str, content: bytes) -> None:
    """Write a small file below a root, in one step.

    Raises:
        ArtifactError: it cannot be written.
    """
    try:
        if is_url(root):
            files, folder = _open(root)
            files.pipe_file(f"{folder}/{name}", content)
        else:
            write_whole(local_path(root) / name, content)
    except _store_errors() as error:
        raise ArtifactError(f"{root}/{name}: cannot be written: {first_line(error)}") from error


def set_latest(root: Root, version: str) -> None:
    """Make a version current: LATEST is replaced in one step.

    Raises:
        ArtifactError: the version is not there, or LATEST cannot be written.
    """
    if version not in list_versions(root):
        sequence_of(version)
        raise ArtifactError(f"{root}: no version {version}; `indexer list` names those there are")
    write_bytes(root, LATEST, f"{version}\n".encode())


def add_version(root: Root, staged: Path, name_it: Callable[[int], str]) -> str:
    """Move a finished directory into the root under the next number.

    Builds into one local root take turns here. A remote root has no lock: two builds at once may
    get the same number there, and still do not collide, for names end in a digest.

    Args:
        root: folder or URL of the versions.
        staged: the directory; for a local root on the same file system.
        name_it: called with the number, writes the manifest and returns the version.

    Raises:
        ArtifactError: a remote root cannot be written.
        OSError: a local one cannot.
    """
    if is_url(root):
        version = name_it(_next_sequence(root))
        try:
            files, folder = _open(root)
            files.makedirs(f"{folder}/{version}", exist_ok=True)
            names = sorted((p.name for p in staged.iterdir()), key=lambda name: name == MANIFEST)
            for name in names:
                files.put_file(str(staged / name), f"{folder}/{version}/{name}")
        except _store_errors() as error:
            raise ArtifactError(f"{root}: cannot be written: {first_line(error)}") from error
        return version
    folder_path = local_path(root)
    with _turn(folder_path):
        version = name_it(_next_sequence(root))
        sync_folder(staged)
        staged.rename(folder_path / version)
        sync_folder(folder_path)
    return version


@contextmanager
def staging(root: Root) -> Iterator[Path]:
    """Yield a new directory to write a version in; it is removed at the end if it still exists.

    Raises:
        OSError: it cannot be made.
    """
    if is_url(root):
        path = Path(tempfile.mkdtemp(prefix="artifact-"))
    else:
        folder = local_path(root)
        folder.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def place_of_copy(root: Root, version: str, cache: Path | None) -> Path:
    """Return the directory of a version on this machine, whether it is there or not.

    See `local_copy` for the arguments.
    """
    sequence_of(version)
    if not is_copied(root, cache):
        return local_path(root) / version
    cache = cache or _temporary()
    return cache / hashlib.sha256(str(root).encode()).hexdigest()[:16] / version


def local_copy(
    root: Root, version: str, names: list[str], cache: Path | None, slowly: bool = False
) -> Path:
    """Return the directory of a version on this machine; it is copied once.

    Args:
        root: folder or URL of the versions.
        version: which.
        names: its files.
        cache: folder of the copies; by default remote versions are copied to a folder of the
            user's own in the temporary folder, and local ones stay where they are.
        slowly: copy a local version at the pace of the disk. The system makes all who write wait
            when it has a gigabyte to put on disk, a database or broker beside us too.

    Raises:
        ArtifactError: it cannot be downloaded or copied.
    """
    copy = place_of_copy(root, version, cache)
    if not is_copied(root, cache) or copy.is_dir():
        return copy
    cache, home = cache or _temporary(), copy.parent
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if cache.stat().st_uid != os.getuid():
            raise ArtifactError(f"{cache}: belongs to another user; name another cache folder")
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=home))
        try:
            if is_url(root):
                files, folder = _open(root)
                for name in names:
                    files.get_file(f"{folder}/{version}/{name}", str(partial / name))
            else:
                copy_file = _copy_slowly if slowly else shutil.copyfile
                for name in names:
                    copy_file(local_path(root) / version / name, partial / name)
            if not copy.is_dir():
                partial.rename(copy)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except _store_errors() as error:
        raise ArtifactError(
            f"{root}/{version}: cannot be copied to {cache}: {_named(error)}"
        ) from error
    _forget_old(home, keep=version)
    return copy


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"tracker-artifacts-{os.getuid()}"


def _copy_slowly(source: Path, target: Path) -> None:
    """Copy a file in pieces, each of which is on disk before the next one."""
    with source.open("rb") as reader, target.open("wb") as writer:
        for number in itertools.count(1):
            piece = reader.read(_PIECE_BYTES)
            writer.write(piece)
            if not piece or number % _PIECES == 0:
                writer.flush()
                os.fdatasync(writer.fileno())
            if not piece:
                return


def _named(error: BaseException) -> str:
    """Return a line for an error, with the name of its file."""
    name = getattr(error, "filename", None)
    return first_line(error) if name is None else f"{name}: {first_line(error)}"


def _next_sequence(root: Root) -> int:
    versions = list_versions(root)
    return sequence_of(versions[-1]) + 1 if versions else 1


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def _forget_old(home: Path, keep: str) -> None:
    copies = [path for path in home.iterdir() if _VERSION.fullmatch(path.name)]
    copies.sort(key=lambda path: (path.name == keep, path.stat().st_mtime))
    for path in copies[:-_CACHED_VERSIONS]:
        shutil.rmtree(path, ignore_errors=True)
    now = (home / keep).stat().st_mtime
    for path in home.glob(".partial-*"):
        with suppress(FileNotFoundError):  # its process has just removed it
            if now - path.stat().st_mtime > _HALF_COPY_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _open(root: Root) -> tuple[Any, str]:
    files, folder = fsspec.core.url_to_fs(str(root))
    files.invalidate_cache()
    return files, str(folder).rstrip("/")


def _store_errors() -> tuple[type[BaseException], ...]:
    driver_errors = [
        getattr(sys.modules[module], name)
        for module, name in _DRIVER_ERRORS.items()
        if module in sys.modules
    ]
    return (OSError, ImportError, ValueError, *driver_errors)
