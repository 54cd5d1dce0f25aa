"""Artifact: the directory the indexer publishes and the tracker loads; its reader and writer."""

import json
import mmap
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from tracker.artifact.manifest import (
    FORMAT,
    LAYOUT,
    REBUILD,
    EncoderInfo,
    IndexInfo,
    Manifest,
    read_manifest,
    sha256_of,
    verify,
)
from tracker.artifact.models import UNTRAINED, Models, read_models, write_models
from tracker.artifact.versions import (
    ArtifactError,
    Root,
    is_copied,
    latest_version,
    place_of_copy,
)
from tracker.encoder.tower_info import UserAttributes
from tracker.explained import first_line
from tracker.files import sync_folder, write_synced
from tracker.items.config import ItemCounts
from tracker.items.index import IndexFileError, ItemIndex
from tracker.items.texts import JsonStrings
from tracker.items.vectors import ItemVectors
from tracker.kernels.device import Device, DeviceError
from tracker.users.config import InterestConfig


@dataclass(frozen=True)
class Sources:
    """Inputs that the next build starts from, in the order of the vectors' rows.

    Attributes:
        mean: (W,) float32, subtracted from encodings.
        matrix: (W, F) float32, whitens them, in order of falling variance.
        encodings: (N, W) float16, the texts as encoded.
        text_hashes: (N, 2) uint64, XXH3-128 of the texts.
        texts: N texts.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]
    encodings: NDArray[np.float16]
    text_hashes: NDArray[np.uint64]
    texts: list[str]


class _Items(msgspec.Struct, forbid_unknown_fields=True):
    ids: msgspec.Raw
    labels: list[str]


@dataclass(frozen=True)
class Artifact:
    """One version of items, their vectors and their index, and of what was trained."""

    manifest: Manifest
    vectors: ItemVectors
    index: ItemIndex
    path: Path
    models: Models = UNTRAINED

    @classmethod
    def load(
        cls,
        root: Root,
        version: str | None = None,
        device: Device = "auto",
        *,
        cache: Path | None = None,
        float16: bool = False,
        encoder_device: Device = "cpu",
        public_key: str | None = None,
        checked: bool = False,
    ) -> "Artifact":
        """Read a version, and check all of it first.

        1. Read the manifest, and refuse a format we do not know.
        2. Download what is remote; compare the SHA-256 of every file.
        3. Map the vectors, load the index and the models; compare counts and widths, and look at
           every number.

        Args:
            root: a folder, or any URL fsspec knows.
            version: by default the one LATEST names.
            device: device of the index.
            cache: folder for copies of versions, so that nothing that is in use can be altered; by
                default remote ones are copied to the temporary folder, and local ones are not.
            float16: halve the index's memory on a GPU.
            encoder_device: device of a trained user encoder.
            public_key: key that must have signed the manifest; None if it need not be signed.
            checked: another process has just loaded the version with the same `cache`. Its files
                are not compared again, nor is each number of vectors and index looked at, unless
                the copy it made has gone.

        Raises:
            ArtifactError: it cannot be used; the message says what to do.
            DeviceError: a device is `cuda`, and there is no GPU.
        """
        version = latest_version(root) if version is None else version
        # 1. Read the manifest.
        manifest = read_manifest(root, version, public_key)
        copy = place_of_copy(root, version, cache)
        checked = checked and copy.is_dir()
        try:
            # 2. Compare the SHA-256 of every file.
            path = copy if checked else verify(root, manifest, cache)
            # 3. Load, compare counts and widths, look at every number.
            vectors = read_vectors(path, manifest, checked)
            index = _read_index(path, manifest, device, float16, checked)
            models = read_models(path, manifest, encoder_device)
        except DeviceError:
            raise
        except Exception as error:  # files are from outside: whatever they raise is a refusal
            if is_copied(root, cache):  # a damaged copy must not stay
                shutil.rmtree(copy, ignore_errors=True)
            if isinstance(error, ArtifactError):
                raise
            raise ArtifactError(
                f"{root}/{version}: cannot be used: {type(error).__name__}: {first_line(error)};"
                f" {REBUILD}"
            ) from error
        return cls(manifest, vectors, index, path, models)

    @classmethod
    def in_memory(
        cls,
        vectors: ItemVectors,
        *,
        interest: InterestConfig | None = None,
        item_counts: ItemCounts | None = None,
        index: ItemIndex | None = None,
        version: str = "000001-00000000",
        sequence: int = 1,
        basis: str = "test",
        models: Models = UNTRAINED,
    ) -> "Artifact":
        """Make an artifact without files, of vectors and by default an exact index of them."""
        manifest = Manifest(
            format=FORMAT,
            version=version,
            sequence=sequence,
            created="1970-01-01T00:00:00Z",
            basis=basis,
            dim=vectors.dim,
            full_dim=vectors.full_dim,
            items=len(vectors),
            live=vectors.live,
            fitted_on=vectors.live,
            encoder=EncoderInfo("none", "none", vectors.full_dim, 1),
            interest=InterestConfig(dim=vectors.dim) if interest is None else interest,
            index=IndexInfo("flat", {}, 1.0, 0, 0.0),
            files={},
            item_counts=ItemCounts() if item_counts is None else item_counts,
        )
        index = ItemIndex.flat(vectors.vectors[: vectors.live]) if index is None else index
        return cls(manifest, vectors, index, Path(), models)

    def with_attributes(self, attributes: UserAttributes) -> "Artifact":
        """Return the same artifact with other users' attributes; itself without an encoder."""
        tower = self.models.tower
        if tower is None:
            return self
        return replace(self, models=replace(self.models, tower=tower.with_attributes(attributes)))


def read_sources(path: Path, manifest: Manifest) -> Sources:
    """Read the sources of the next build, from a directory that `verify` has passed.

    Raises:
        ArtifactError: a file is not what the manifest says.
    """
    width = manifest.encoder.width
    basis = _tensors(
        path / LAYOUT.basis,
        {"mean": ("F32", (width,)), "matrix": ("F32", (width, manifest.full_dim))},
    )
    tensors = _tensors(
        path / LAYOUT.encodings,
        {"encodings": ("F16", (manifest.items, width)), "hashes": ("U64", (manifest.items, 2))},
    )
    texts = _json(path / LAYOUT.texts, list[str])
    _agree(path / LAYOUT.texts, "texts", len(texts), manifest.items)
    return Sources(
        mean=basis["mean"],
        matrix=basis["matrix"],
        encodings=tensors["encodings"],
        text_hashes=tensors["hashes"],
        texts=texts,
    )


def write_files(
    folder: Path,
    vectors: ItemVectors,
    index: ItemIndex,
    sources: Sources,
    models: Models,
) -> dict[str, str]:
    """Write all files but the manifest into a directory, and wait until they are on disk.

    Returns:
        the SHA-256 of each.

    Raises:
        OSError: they cannot be written.
    """
    items = {"ids": list(vectors.ids), "labels": vectors.labels}
    write_synced(folder / LAYOUT.items, msgspec.json.encode(items))
    write_synced(folder / LAYOUT.texts, msgspec.json.encode(sources.texts))
    tensors: dict[str, Mapping[str, NDArray[Any]]] = {
        LAYOUT.vectors: {name: getattr(vectors, name) for name in _VECTORS},
        LAYOUT.basis: {"mean": sources.mean, "matrix": sources.matrix},
        LAYOUT.encodings: {"encodings": sources.encodings, "hashes": sources.text_hashes},
    }
    for name, arrays in tensors.items():
        ready = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        write_synced(folder / name, safetensors.numpy.save(ready))
    index.save(folder / LAYOUT.index)
    write_models(folder, models)
    sync_folder(folder)
    return {p.name: sha256_of(p) for p in sorted(folder.iterdir())}


_VECTORS = {
    "hashes": "U64",
    "vectors": "F32",
    "full": "F32",
    "similar": "I32",
    "nearest": "I32",
    "label_codes": "I32",
    "table_hash": "U64",
    "table_row": "I32",
    "map_projection": "F32",
}

_LATER = frozenset({"nearest", "map_projection"})
"""Arrays that older indexers did not write."""

_ROWS = 8192

_DTYPES = {"F32": np.float32, "F16": np.float16, "U64": np.uint64, "I32": np.int32}


def read_texts(path: Path) -> Sequence[str]:
    """Read the texts of the items of an artifact's folder, to name interests by their words.

    Returns:
        the texts; none if they cannot be read, for lists are made without them too.
    """
    try:
        return JsonStrings((path / LAYOUT.texts).read_bytes())
    except (OSError, ValueError):
        return []


def read_vectors(path: Path, manifest: Manifest, checked: bool = False) -> ItemVectors:
    """Map the items' vectors into memory, from a directory that `verify` has passed.

    Args:
        path: the directory.
        manifest: of the version.
        checked: whether each number has been looked at before.

    Raises:
        ArtifactError: a file is not what the manifest says.
    """
    items = _json(path / LAYOUT.items, _Items)
    try:
        ids = JsonStrings(memoryview(items.ids))
    except ValueError as error:
        raise ArtifactError(f"{path / LAYOUT.items}: ids: {error}; {REBUILD}") from error
    count = manifest.items
    _agree(path / LAYOUT.items, "ids", len(ids), count)
    _agree(path / LAYOUT.manifest, "interest.dim", manifest.interest.dim, manifest.dim)
    shapes: dict[str, tuple[int, ...]] = {
        "vectors": (count, manifest.dim),
        "full": (count, manifest.full_dim),
        "similar": (count, -1),
        "nearest": (count, -1),
        "table_hash": (-1,),
        "table_row": (-1,),
        "map_projection": (manifest.dim + 1, 2),
    }
    arrays = _tensors(
        path / LAYOUT.vectors,
        {name: (dtype, shapes.get(name, (count,))) for name, dtype in _VECTORS.items()},
        _LATER,
        checked,
    )
    arrays.setdefault("nearest", np.zeros((count, 0), np.int32))
    arrays.setdefault("map_projection", np.zeros((0, 2), np.float32))
    vectors = ItemVectors(ids=ids, labels=items.labels, live=manifest.live, **arrays)
    problem = None if checked else vectors.problem()
    if problem is not None:
        raise ArtifactError(f"{path / LAYOUT.vectors}: {problem}; {REBUILD}")
    return vectors


def _read_index(
    path: Path, manifest: Manifest, device: Device, float16: bool, checked: bool
) -> ItemIndex:
    where = path / LAYOUT.index
    try:
        index = ItemIndex.load(where, device, float16=float16, checked=checked)
    except DeviceError:
        raise
    except IndexFileError as error:
        raise ArtifactError(f"{error}; {REBUILD}") from error
    _agree(where, "dim", index.dim, manifest.dim)
    _agree(where, "items", index.size, manifest.live - manifest.without_text)
    return index


def _tensors(
    path: Path,
    expected: dict[str, tuple[str, tuple[int, ...]]],
    later: frozenset[str] = frozenset(),
    checked: bool = False,
) -> dict[str, Any]:
    """Map a safetensors file into memory; check names, types, shapes (-1 is any) and numbers.

    Those of `later` may be missing. Numbers that are `checked` are not looked at again.

    Raises:
        ArtifactError: the file is not what was expected, or a number in it is not finite.
    """
    try:
        with safe_open(path, "np") as opened:  # header, shapes and places agree with the file
            names = set(opened.keys())
        with path.open("rb") as file:
            # Copy on write: kernels take one type of array, and nobody writes.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        (length,) = struct.unpack_from("<Q", mapped)
        header = json.loads(mapped[8 : 8 + length])
    except (struct.error, ValueError, SafetensorError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: not a safetensors file ({first_line(error)}); {REBUILD}"
        ) from error
    arrays: dict[str, Any] = {}
    for name, (dtype, shape) in expected.items():
        if name in later and name not in names:
            continue
        entry = header[name] if name in names else {}
        dims = entry.get("shape", [])
        fits = len(dims) == len(shape) and all(
            want in (-1, have) for want, have in zip(shape, dims, strict=True)
        )
        if entry.get("dtype") != dtype or not fits:
            raise ArtifactError(
                f"{path}: {name} is {entry.get('dtype')} {dims}, {dtype} {list(shape)} expected"
                f" by the manifest; {REBUILD}"
            )
        start = 8 + length + entry["data_offsets"][0]
        size = int(np.prod(dims, dtype=np.int64))
        array = np.frombuffer(mapped, _DTYPES[dtype], size, start).reshape(dims)
        arrays[name] = np.require(array, requirements="A")
        is_number = dtype in ("F16", "F32")
        if is_number and not checked and (bad := _not_finite(arrays[name])):
            raise ArtifactError(
                f"{path}: {bad} of {dims[0]} rows of {name} are not finite, numbers expected;"
                f" {REBUILD}"
            )
    return arrays


def _not_finite(array: NDArray[Any]) -> int:
    """Return the number of rows (N, ...) with a number that is not finite."""
    rows = array.reshape(len(array), -1)
    return sum(
        int((~np.isfinite(rows[start : start + _ROWS]).all(1)).sum())
        for start in range(0, len(rows), _ROWS)
    )


def _json(path: Path, shape: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: {error}; {REBUILD}") from error


def _agree(path: Path, name: str, count: int, expected: int) -> None:
    if count != expected:
        raise ArtifactError(
            f"{path}: {name} {count} found, {expected} expected by the manifest; {REBUILD}"
        )
