"""Artifacts written, loaded, damaged, and of earlier formats."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from indexer.items.assemble import build_artifact
from indexer.items.carry import read_before
from indexer.items.options import BuildOptions
from tests.catalogs import WordEncoder, catalog
from tests.paths import GOLDEN
from tracker.artifact.artifact import Artifact, read_vectors
from tracker.artifact.manifest import LAYOUT, read_manifest
from tracker.artifact.models import Models, read_models
from tracker.artifact.versions import ArtifactError, latest_version
from tracker.items.index import ItemIndex
from tracker.items.vectors import ItemVectors, unit
from tracker.kernels.device import DeviceError
from tracker.scoring.network import RankerInfo
from tracker.users.config import InterestConfig

GOLDEN_ARTIFACT = GOLDEN / "artifact-1"
FILES = ("items.json", "texts.json", "basis", "encodings", "vectors", "index.faiss")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build_artifact(catalog(12), WordEncoder(), tmp_path, BuildOptions(dim=8))
    return tmp_path


def named(root: Path, start: str) -> Path:
    (path,) = (root / latest_version(root)).glob(f"{start}*")
    return path


def test_the_vectors_are_mapped_and_kernels_may_take_them(root: Path) -> None:
    vectors = Artifact.load(root).vectors
    assert vectors.vectors.flags["C_CONTIGUOUS"]
    assert vectors.vectors.flags["ALIGNED"]
    assert not vectors.vectors.flags["OWNDATA"]
    np.testing.assert_array_equal(vectors.row_of(vectors.hashes), np.arange(12))


@pytest.mark.parametrize("file", FILES)
def test_a_file_cut_short_is_refused(root: Path, file: str) -> None:
    path = named(root, file)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ArtifactError, match=f"{file}.*altered or cut short: SHA-256"):
        Artifact.load(root)


@pytest.mark.parametrize("file", FILES)
def test_a_file_with_one_byte_altered_is_refused(root: Path, file: str) -> None:
    path = named(root, file)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"altered or cut short.*indexer rollback"):
        Artifact.load(root)


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_there_is_refused(root: Path, file: str) -> None:
    named(root, file).unlink()
    with pytest.raises(ArtifactError, match=f"{file}.*cannot be read: No such file"):
        Artifact.load(root)


def test_a_version_can_be_asked_for_by_name(root: Path) -> None:
    first = latest_version(root)
    build_artifact(catalog(14), WordEncoder(), root, BuildOptions())
    assert Artifact.load(root).manifest.live == 14
    assert Artifact.load(root, first).manifest.live == 12


def test_an_artifact_of_another_dimension_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(root, latest_version(root))
    path = root / manifest.version
    other = msgspec.structs.replace(manifest, dim=9, interest=InterestConfig(dim=9))
    with pytest.raises(ArtifactError, match=r"vectors is F32 \[12, 8\], F32 \[12, 9\] expected"):
        read_vectors(path, other)
    with pytest.raises(ArtifactError, match=r"interest\.dim 64 found, 8 expected"):
        read_vectors(path, msgspec.structs.replace(manifest, interest=InterestConfig()))
    with pytest.raises(ArtifactError, match="ids 12 found, 13 expected"):
        read_vectors(path, msgspec.structs.replace(manifest, items=13))
    for index, message in (
        (ItemIndex.flat(np.eye(9, dtype=np.float32)), "dim 9 found, 8 expected"),
        (ItemIndex.flat(np.eye(8, dtype=np.float32)), "items 8 found, 12 expected"),
    ):
        index.save(path / LAYOUT.index)
        monkeypatch.setattr("tracker.artifact.artifact.verify", lambda *_: path)
        with pytest.raises(ArtifactError, match=rf"index\.faiss: {message}"):
            Artifact.load(root)


@pytest.mark.parametrize("content", [b"", b"short", struct.pack("<Q", 5) + b"{bad}"])
def test_a_file_that_is_no_safetensors_is_refused(root: Path, content: bytes) -> None:
    manifest = read_manifest(root, latest_version(root))
    path = root / manifest.version
    (path / LAYOUT.vectors).write_bytes(content)
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        read_vectors(path, manifest)


def test_tensors_that_reach_past_their_file_are_refused(root: Path) -> None:
    manifest = read_manifest(root, latest_version(root))
    path = root / manifest.version
    content = (path / LAYOUT.vectors).read_bytes()
    (path / LAYOUT.vectors).write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        read_vectors(path, manifest)


@pytest.mark.parametrize("name", ["vectors", "full", "encodings", "mean", "matrix"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused(
    root: Path, name: str, number: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / latest_version(root)
    monkeypatch.setattr("tracker.artifact.artifact.verify", lambda *_: path)
    monkeypatch.setattr("indexer.items.carry.verify", lambda *_: path)
    file = named(root, {"full": "vectors", "mean": "basis", "matrix": "basis"}.get(name, name))
    arrays = safetensors.numpy.load_file(file)
    arrays[name].reshape(-1)[-1] = number
    safetensors.numpy.save_file(arrays, file)
    message = rf"{file.name}: 1 of \d+ rows of {name} are not finite.*indexer rollback"
    if file.name.startswith("vectors"):
        with pytest.raises(ArtifactError, match=message):
            Artifact.load(root)
    with pytest.raises(ArtifactError, match=message):
        build_artifact(catalog(12), WordEncoder(), root, BuildOptions())


def test_items_of_another_shape_are_refused(root: Path) -> None:
    manifest = read_manifest(root, latest_version(root))
    path = root / manifest.version
    (path / LAYOUT.items).write_text('{"ids": [1], "labels": []}', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"json: ids: no JSON array of strings \(byte 1\); go"):
        read_vectors(path, manifest)


def test_a_ranker_that_is_not_what_the_manifest_says_is_refused(root: Path) -> None:
    manifest = read_manifest(root, latest_version(root))
    path = root / manifest.version
    assert read_models(path, manifest) == Models()
    described = msgspec.structs.replace(manifest, ranker=RankerInfo(["age"], (2, 2)))
    with pytest.raises(ArtifactError, match="describes a ranker, and lists no file of it"):
        read_models(path, described)
    listed = msgspec.structs.replace(described, files=manifest.files | {LAYOUT.ranker: ""})
    with pytest.raises(ArtifactError, match=r"ranker\.safetensors: cannot be read"):
        read_models(path, listed)


def test_a_file_that_is_no_index_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / latest_version(root)
    (path / LAYOUT.index).write_bytes(b"nothing")
    monkeypatch.setattr("tracker.artifact.artifact.verify", lambda *_: path)
    with pytest.raises(ArtifactError, match=r"not a FAISS index.*indexer rollback"):
        Artifact.load(root)


def test_cuda_without_a_gpu_is_the_settings_fault_and_not_the_artifacts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.items.index.gpu_count", lambda: 0)
    with pytest.raises(DeviceError, match="FAISS has no GPU"):
        Artifact.load(root, device="cuda")


def test_a_damaged_copy_of_a_remote_version_is_fetched_again(tmp_path: Path) -> None:
    root = f"memory://damaged-{tmp_path.parent.name}"
    build_artifact(catalog(12), WordEncoder(), root, BuildOptions(dim=8))
    artifact = Artifact.load(root, cache=tmp_path)
    (artifact.path / LAYOUT.texts).write_bytes(b"[]")
    with pytest.raises(ArtifactError, match="altered or cut short"):
        Artifact.load(root, cache=tmp_path)
    assert Artifact.load(root, cache=tmp_path).manifest == artifact.manifest


def test_a_version_that_another_process_has_checked_is_not_checked_again(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    first = Artifact.load(root, cache=cache)
    again = Artifact.load(root, cache=cache, checked=True)
    assert (again.path, again.manifest) == (first.path, first.manifest)
    assert again.vectors.ids == first.vectors.ids
    for name in ("vectors", "full", "similar", "nearest", "table_hash", "table_row"):
        np.testing.assert_array_equal(getattr(again.vectors, name), getattr(first.vectors, name))
    queries = first.vectors.vectors[:3]
    for one, other in zip(
        first.index.search(queries, 5), again.index.search(queries, 5), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    texts = first.path / LAYOUT.texts
    texts.write_bytes(texts.read_bytes() + b" ")
    Artifact.load(root, cache=cache, checked=True)
    with pytest.raises(ArtifactError, match="altered or cut short"):
        Artifact.load(root, cache=cache)


def test_a_copy_that_went_after_its_check_is_checked_when_it_is_made_again(
    root: Path, tmp_path: Path
) -> None:
    own = tmp_path / "artifacts"
    shutil.copytree(root, own)
    first = Artifact.load(own, cache=tmp_path / "cache")
    shutil.rmtree(first.path)
    texts = own / first.manifest.version / LAYOUT.texts
    texts.write_bytes(texts.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match="altered or cut short"):
        Artifact.load(own, cache=tmp_path / "cache", checked=True)


def test_an_artifact_without_files_serves_tests() -> None:
    full = unit(np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32))
    artifact = Artifact.in_memory(ItemVectors.make([str(n) for n in range(9)], full, 4, live=7))
    assert (artifact.manifest.items, artifact.manifest.live, artifact.index.size) == (9, 7, 7)
    assert artifact.manifest.interest == InterestConfig(dim=4)


def test_the_golden_artifact_of_format_1_is_read() -> None:
    artifact = Artifact.load(GOLDEN_ARTIFACT)
    expected = json.loads((GOLDEN_ARTIFACT / "expected.json").read_text(encoding="utf-8"))
    assert artifact.manifest.format == 1
    assert artifact.vectors.ids == expected["ids"]
    assert artifact.manifest.live == expected["live"]
    np.testing.assert_allclose(artifact.vectors.vectors, expected["vectors"], atol=1e-6)
    rows, _ = artifact.index.search(artifact.vectors.vectors[:1], 3)
    assert rows[0].tolist() == expected["nearest"]
    assert artifact.vectors.map_projection.shape == (0, 2)  # of before there were maps
    before = read_before(GOLDEN_ARTIFACT)
    assert before is not None
    assert before.sources.texts[0] == expected["text"]


def rewritten(
    root: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[Path, dict[str, Any]]:
    """Write the vectors' file with other arrays, and let its hash be right."""
    path = root / latest_version(root)
    monkeypatch.setattr("tracker.artifact.artifact.verify", lambda *_: path)
    file = path / LAYOUT.vectors
    arrays = dict(safetensors.numpy.load_file(file))
    for name, change in changes.items():
        arrays[name] = change(arrays[name].copy())
    safetensors.numpy.save_file(arrays, file)
    return file, arrays


def with_last(value: int) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array.reshape(-1)[-1] = value
        return array

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similar": with_last(12)}, "similar has -1 to 12; -1 to 11 is expected"),
        ({"similar": with_last(-2)}, "similar has -2 to"),
        ({"label_codes": with_last(99)}, r"label_codes has 0 to 99; 0 to \d+ is expected"),
        ({"label_codes": with_last(-1)}, "label_codes has -1 to"),
        ({"table_hash": lambda a: np.where(a == 0, 5, a)}, "has 0 of 32 places empty; 20 are"),
        ({"table_hash": lambda a: a[:31]}, "31 hashes and 32 rows; the same power of two"),
        ({"table_row": lambda a: a[:16]}, "32 hashes and 16 rows"),
        ({"table_row": lambda a: a + 12}, "does not lead from each hash to its row"),
        ({"hashes": with_last(7)}, "does not lead from each hash to its row"),
    ],
)
def test_positions_that_reach_out_of_an_artifact_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    rewritten(root, monkeypatch, **changes)
    with pytest.raises(ArtifactError, match=rf"vectors\.safetensors: .*{message}.*rollback"):
        Artifact.load(root)


def test_hashes_of_other_ids_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / latest_version(root)
    monkeypatch.setattr("tracker.artifact.artifact.verify", lambda *_: path)
    items = json.loads((path / LAYOUT.items).read_text(encoding="utf-8"))
    items["ids"][3] = "another"
    (path / LAYOUT.items).write_text(json.dumps(items), encoding="utf-8")
    with pytest.raises(ArtifactError, match="the hash in row 3 is not that of its id 'another'"):
        Artifact.load(root)


@pytest.mark.parametrize(
    "header",
    [
        [],
        {"vectors": 3},
        {"vectors": {"dtype": "F32", "shape": [12, 8]}},
        {"vectors": {"dtype": "F32", "shape": [12, 8], "data_offsets": [-8, 376]}},
        {"vectors": {"dtype": "F32", "shape": [-12, 8], "data_offsets": [0, 384]}},
        {"vectors": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 384]}},
    ],
)
def test_an_odd_header_of_a_file_is_refused_in_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, header: object
) -> None:
    path = root / latest_version(root)
    monkeypatch.setattr("tracker.artifact.artifact.verify", lambda *_: path)
    encoded = json.dumps(header).encode()
    content = struct.pack("<Q", len(encoded)) + encoded + bytes(384)
    (path / LAYOUT.vectors).write_bytes(content)
    with pytest.raises(ArtifactError, match="not a safetensors file"):
        Artifact.load(root)


def test_arrays_at_odd_places_of_a_file_are_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, arrays = rewritten(root, monkeypatch)
    content = file.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = content[8 : 8 + length] + b" "
    file.write_bytes(struct.pack("<Q", length + 1) + header + content[8 + length :])
    vectors = Artifact.load(root).vectors
    assert vectors.vectors.flags["ALIGNED"]
    np.testing.assert_array_equal(vectors.vectors, arrays["vectors"])


def test_whatever_an_artifact_raises_is_a_refusal_in_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("data_offsets")

    monkeypatch.setattr("tracker.artifact.artifact.read_vectors", fail)
    with pytest.raises(ArtifactError, match=r"cannot be used: KeyError: 'data_offsets'.*rollback"):
        Artifact.load(root)


def test_deep_json_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / latest_version(root)
    monkeypatch.setattr("tracker.artifact.artifact.verify", lambda *_: path)
    (path / LAYOUT.items).write_text('{"more": ' + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"items\.json.*rollback"):
        Artifact.load(root)
    (path / LAYOUT.manifest).write_text('{"more": ' + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json: not JSON"):
        Artifact.load(root)


def test_a_version_that_is_altered_or_removed_while_it_serves_does_no_harm(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    artifact = Artifact.load(root, cache=cache)
    before = artifact.vectors.full.copy()
    for path in (root / artifact.manifest.version).iterdir():
        os.truncate(path, 0)  # a mapped file that is cut would end the process by SIGBUS
    np.testing.assert_array_equal(artifact.vectors.full, before)
    assert cache in artifact.path.parents
