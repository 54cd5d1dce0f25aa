"""What an artifact says of itself, and how it is held to it."""

import json
from pathlib import Path
from typing import Any

import pytest

from indexer.items.assemble import build_artifact
from indexer.items.options import BuildOptions
from tests.catalogs import WordEncoder, catalog
from tracker.artifact.manifest import Manifest, read_manifest, verify
from tracker.artifact.versions import ArtifactError, latest_version


@pytest.fixture
def root(tmp_path: Path) -> Path:
    build_artifact(catalog(12), WordEncoder(), tmp_path, BuildOptions(dim=8))
    return tmp_path


def altered(root: Path, **changes: Any) -> str:
    version = latest_version(root)
    path = root / version / "manifest.json"
    fields = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(fields), encoding="utf-8")
    return version


def test_a_manifest_is_read_back_and_its_files_are_sound(root: Path) -> None:
    manifest = read_manifest(root, latest_version(root))
    assert isinstance(manifest, Manifest)
    assert manifest.created.endswith("Z")
    assert sorted(manifest.files) == [
        "basis.safetensors",
        "encodings.safetensors",
        "index.faiss",
        "items.json",
        "texts.json",
        "vectors.safetensors",
    ]
    assert verify(root, manifest) == root / manifest.version


@pytest.mark.parametrize("found", [0, 2, "1", None])
def test_an_unknown_format_is_refused_by_its_number(root: Path, found: object) -> None:
    version = altered(root, format=found)
    with pytest.raises(ArtifactError, match=f"format {found!r} found, 1 expected; build it again"):
        read_manifest(root, version)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 7}, "altered: version .* its content is that of"),
        ({"live": 3}, "altered"),
        ({"version": "000009-00000000"}, "altered: version 000009-00000000 found"),
        ({"added": 1}, "altered"),
        ({"dim": "8"}, r"Expected `int`, got `str` - at `\$.dim`"),
        ({"interest": {"dim": 0}}, "dim is 0"),
        ({"live": -5}, "live is -5; 1 to 12 is expected"),
        ({"items": 2**40, "live": 0}, "live is 0"),
        ({"without_text": 13}, "without_text is 13; 0 to 12 is expected"),
        ({"full_dim": 2**40}, "full_dim is"),
    ],
)
def test_an_altered_manifest_is_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    version = altered(root, **changes)
    with pytest.raises(ArtifactError, match=message):
        read_manifest(root, version)


def test_a_manifest_that_is_not_json_is_refused(root: Path) -> None:
    version = latest_version(root)
    path = root / version / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"manifest\.json: not JSON.*indexer rollback"):
        read_manifest(root, version)


def test_a_manifest_that_lists_a_file_elsewhere_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = altered(root, files={"../../secret": "0"})
    monkeypatch.setattr("tracker.artifact.manifest.version_name", lambda *_: version)
    with pytest.raises(ArtifactError, match=r"lists unknown files: \.\./\.\./secret"):
        read_manifest(root, version)
