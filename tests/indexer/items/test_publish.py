"""LATEST pointed at versions, forward and back."""

from pathlib import Path

import pytest

from indexer.data.catalog import Catalog
from indexer.items.assemble import Built, build_artifact
from indexer.items.options import BuildOptions
from indexer.items.publish import overview, publish, rollback
from tests.catalogs import WordEncoder, catalog
from tracker.artifact.versions import ArtifactError, latest_version

OPTIONS = BuildOptions(dim=8)


def build(root: Path | str, items: Catalog, options: BuildOptions = OPTIONS) -> Built:
    return build_artifact(items, WordEncoder(), root, options)


def test_roll_back_goes_one_version_back_and_the_next_build_goes_on_from_there(
    tmp_path: Path,
) -> None:
    first, second, third = (build(tmp_path, catalog(n)) for n in (10, 12, 14))
    assert rollback(tmp_path).version == second.version
    assert latest_version(tmp_path) == second.version
    assert rollback(tmp_path).version == first.version
    with pytest.raises(ArtifactError, match=f"no version before {first.version}"):
        rollback(tmp_path)
    assert rollback(tmp_path, third.version).version == third.version
    assert publish(tmp_path, second.version).version == second.version
    fourth = build(tmp_path, catalog(5))
    assert fourth.sequence == 4
    assert fourth.retired == 7  # those of the second version, which was current


def test_a_version_that_is_not_there_or_damaged_is_not_published(tmp_path: Path) -> None:
    first, second = (build(tmp_path, catalog(n)) for n in (10, 12))
    with pytest.raises(ArtifactError, match="000009-00000000: not there; `indexer list"):
        publish(tmp_path, "000009-00000000")
    with pytest.raises(ArtifactError, match=r"'\.\./x' is not a version"):
        publish(tmp_path, "../x")
    (tmp_path / first.version / "items.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"items\.json: altered or cut short"):
        rollback(tmp_path)
    assert latest_version(tmp_path) == second.version


def test_the_overview_shows_damage_and_marks_the_current_version(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert overview(tmp_path / "absent") == []
    first, second = (build(tmp_path, catalog(n)) for n in (10, 12))
    (tmp_path / first.version / "manifest.json").write_text("{}", encoding="utf-8")
    damaged, good = overview(tmp_path)
    assert "format None found, 1 expected" in damaged.problem
    assert (good.version, good.latest, good.live) == (second.version, True, 12)
    (tmp_path / "LATEST").write_text("nonsense", encoding="utf-8")
    assert not any(line.latest for line in overview(tmp_path))
    assert "'nonsense' is not a version" in caplog.text
