"""The folder of artifacts, local and at a URL."""

import os
import sys
import types
from pathlib import Path

import fsspec
import pytest

from tracker.artifact import versions
from tracker.artifact.versions import (
    ArtifactError,
    add_version,
    is_url,
    latest_version,
    list_versions,
    local_copy,
    local_path,
    read_bytes,
    set_latest,
    staging,
)


def put(root: str | Path, text: str = "x") -> str:
    """Add a version of one file."""
    with staging(root) as staged:
        (staged / "manifest.json").write_text(text, encoding="utf-8")
        return add_version(root, staged, lambda sequence: f"{sequence:06d}-00000000")


@pytest.fixture(params=["local", "file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an empty root of each sort."""
    if request.param == "memory":
        return f"memory://{request.node.name}-{tmp_path.parent.name}"
    return f"file://{tmp_path}" if request.param == "file" else str(tmp_path)


def test_versions_are_numbered_and_latest_names_the_current_one(root: str) -> None:
    assert list_versions(root) == []
    with pytest.raises(ArtifactError, match="LATEST: not there; build one with `indexer build"):
        latest_version(root)
    first, second = put(root), put(root)
    assert [first, second] == list_versions(root) == ["000001-00000000", "000002-00000000"]
    for version in (first, second, first):
        set_latest(root, version)
        assert latest_version(root) == version
    with pytest.raises(ArtifactError, match="no version 000003-00000000"):
        set_latest(root, "000003-00000000")
    with pytest.raises(ArtifactError, match="'junk' is not a version"):
        set_latest(root, "junk")


def test_what_is_in_latest_must_be_a_version(root: str, tmp_path: Path) -> None:
    put(root)
    with fsspec.open(f"{root}/LATEST", "w") as file:
        file.write("../../etc\n")
    with pytest.raises(ArtifactError, match=r"LATEST: '\.\./\.\./etc' is not a version"):
        latest_version(root)


def test_a_local_root_is_a_path_and_a_url_is_not(tmp_path: Path) -> None:
    assert not is_url(tmp_path)
    assert not is_url("file:///data")
    assert is_url("s3://bucket/artifacts")
    assert local_path("file:///data") == Path("/data")


def test_a_remote_version_is_downloaded_once_and_old_copies_go(tmp_path: Path) -> None:
    root = f"memory://copies-{tmp_path.parent.name}"
    copies = [local_copy(root, put(root, str(n)), ["manifest.json"], tmp_path) for n in range(6)]
    assert [copy.exists() for copy in copies] == [False, False, True, True, True, True]
    kept = copies[5] / "manifest.json"
    kept.write_text("touched", encoding="utf-8")
    again = local_copy(root, copies[5].name, ["manifest.json"], tmp_path)
    assert (again / "manifest.json").read_text(encoding="utf-8") == "touched"


def test_a_copy_that_its_killed_process_left_half_is_removed_a_day_later(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in (1, 2):
        (root / f"00000{number}-00000000").mkdir(parents=True)
    cache = tmp_path / "cache"
    home = local_copy(root, "000001-00000000", [], cache).parent
    young, old = home / ".partial-young", home / ".partial-old"
    for path in (young, old):
        path.mkdir()
        (path / "vectors.safetensors").touch()
    os.utime(old, (1.0, 1.0))
    local_copy(root, "000002-00000000", [], cache)
    assert sorted(path.name for path in home.iterdir()) == [
        ".partial-young", "000001-00000000", "000002-00000000",
    ]  # fmt: skip


def test_a_slow_copy_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_PIECE_BYTES", 1000)
    folder = tmp_path / "root" / "000001-00000000"
    folder.mkdir(parents=True)
    contents = {"none": b"", "one": bytes(range(250)) * 4, "many": bytes(range(251)) * 123}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    copy = local_copy(folder.parent, folder.name, list(contents), tmp_path / "cache", slowly=True)
    assert copy != folder
    assert {name: (copy / name).read_bytes() for name in contents} == contents


def test_the_default_cache_is_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = f"memory://cache-{tmp_path.parent.name}"
    copy = local_copy(root, put(root), ["manifest.json"], None)
    assert copy.is_relative_to(tmp_path)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(ArtifactError, match="belongs to another user"):
        local_copy(root, put(root), ["manifest.json"], tmp_path / "other")


def test_a_download_that_fails_leaves_nothing(tmp_path: Path) -> None:
    root = f"memory://partial-{tmp_path.parent.name}"
    version = put(root)
    with pytest.raises(ArtifactError, match=r"cannot be copied to .*absent"):
        local_copy(root, version, ["manifest.json", "absent"], tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("root", ["nosuch://bucket/x", "memory://"])
def test_a_store_that_cannot_be_reached_is_named(root: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=root):
        latest_version(root)
    if root.startswith("nosuch"):
        with pytest.raises(ArtifactError, match="cannot be listed"):
            list_versions(root)


def test_errors_of_a_stores_driver_are_reported_as_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class BotoCoreError(Exception):
        pass

    driver = types.ModuleType("botocore.exceptions")
    driver.BotoCoreError = BotoCoreError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "botocore.exceptions", driver)

    def down(*_: object) -> None:
        raise BotoCoreError("no connection")

    monkeypatch.setattr(versions, "_open", down)
    for call in (
        lambda: list_versions("s3://b/a"),
        lambda: read_bytes("s3://b/a", "LATEST"),
        lambda: local_copy("s3://b/a", "000001-00000000", [], tmp_path),
    ):
        with pytest.raises(ArtifactError, match="no connection"):
            call()


def test_latest_is_replaced_and_never_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put(tmp_path), put(tmp_path)
    set_latest(tmp_path, first)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tracker.files.sync_file", full)
    with pytest.raises(ArtifactError, match=r"LATEST: cannot be written.*No space left"):
        set_latest(tmp_path, second)
    assert latest_version(tmp_path) == first
    assert not list(tmp_path.glob(".LATEST*"))


def test_a_password_in_the_root_is_not_in_a_message() -> None:
    with pytest.raises(ArtifactError) as error:
        latest_version("memory://id:secret@nowhere")
    assert "memory://***@nowhere/LATEST: not there" in str(error.value)
    assert "secret" not in str(error.value)
