"""Catalogue after catalogue into one folder of artifacts."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.data.catalog import Catalog, Item
from indexer.data.histories import read_event_log
from indexer.items.assemble import Built, RecallError, build_artifact
from indexer.items.carry import read_before
from indexer.items.options import BuildOptions, RefusedError
from indexer.items.publish import overview, rollback
from indexer.replay.replay import Replay
from tests.catalogs import WIDTH, WordEncoder, catalog, invented
from tracker.artifact.artifact import Artifact
from tracker.artifact.versions import ArtifactError, latest_version, list_versions
from tracker.events.kinds import Kinds
from tracker.items.item_map import map_places
from tracker.recommend.channels import CHANNELS

OPTIONS = BuildOptions(dim=8)


def build(root: Path | str, items: Catalog, options: BuildOptions = OPTIONS) -> Built:
    return build_artifact(items, WordEncoder(), root, options)


def test_what_was_built_is_loaded(tmp_path: Path) -> None:
    built = build(tmp_path, catalog(40), BuildOptions(dim=8, rating_scale=(0, 10), slots=4))
    artifact = Artifact.load(tmp_path)
    manifest = artifact.manifest
    assert manifest.version == built.version == latest_version(tmp_path)
    assert (manifest.sequence, manifest.items, manifest.live, manifest.dim) == (1, 40, 40, 8)
    assert (manifest.full_dim, manifest.fitted_on, manifest.recall_at_10) == (WIDTH, 40, 1.0)
    assert (manifest.interest.rating_min, manifest.interest.rating_max) == (0, 10)
    assert (manifest.interest.slots, manifest.interest.dim) == (4, 8)
    vectors = artifact.vectors
    assert vectors.ids == [f"item-{n}" for n in range(40)]
    np.testing.assert_allclose(np.linalg.norm(vectors.vectors, axis=1), 1.0, rtol=1e-5)
    rows, _ = artifact.index.search(vectors.vectors, 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(40))
    assert vectors.label(1) == "shoes"
    assert vectors.map_projection.shape == (9, 2)
    places = map_places(vectors.map_projection, vectors.vectors)
    assert (places.std(axis=0) > 0.1).all()
    same_department = np.mean(vectors.similar[:, :5] % 4 == np.arange(40)[:, None] % 4)
    assert same_department > 0.5


@pytest.mark.parametrize("items", [1, 2, 10])
def test_a_tiny_catalogue_is_built(tmp_path: Path, items: int) -> None:
    build(tmp_path, catalog(items))
    artifact = Artifact.load(tmp_path)
    assert artifact.index.size == items
    assert np.isfinite(artifact.vectors.full).all()


def test_a_second_build_encodes_only_new_texts_and_keeps_vectors_bit_by_bit(
    tmp_path: Path,
) -> None:
    build(tmp_path, catalog(50))
    before = Artifact.load(tmp_path)
    encoder = WordEncoder()
    changed = [*invented(45, first=10)[::-1], Item("item-3", text="quite another text")]
    built = build_artifact(Catalog(changed), encoder, tmp_path, OPTIONS)
    after = Artifact.load(tmp_path)
    assert sorted(encoder.texts) == sorted(
        ["quite another text", *(item.encoded_text() for item in invented(5, first=50))]
    )
    assert (built.encoded, built.reused, built.live, built.retired) == (6, 49, 46, 9)
    assert built.basis == before.manifest.basis
    assert not built.basis_changed
    assert built.sequence == 2
    for n in [*range(3), *range(4, 50)]:
        old, new = (a.vectors.row_of_id(f"item-{n}") for a in (before, after))
        np.testing.assert_array_equal(before.vectors.vectors[old], after.vectors.vectors[new])
        np.testing.assert_array_equal(before.vectors.full[old], after.vectors.full[new])
    assert not np.array_equal(
        after.vectors.vectors[after.vectors.row_of_id("item-3")], before.vectors.vectors[3]
    )


def test_retired_items_keep_their_rows_but_are_never_found(tmp_path: Path) -> None:
    build(tmp_path, catalog(20))
    build(tmp_path, catalog(8))
    artifact = Artifact.load(tmp_path)
    assert (artifact.manifest.live, artifact.manifest.items) == (8, 20)
    assert artifact.vectors.row_of_id("item-15") >= 8
    rows, _ = artifact.index.search(artifact.vectors.vectors, 8)
    assert rows.max() == 7
    assert artifact.vectors.similar.max() == 7


def test_an_item_that_returns_is_live_again_with_its_old_vector(tmp_path: Path) -> None:
    build(tmp_path, catalog(20))
    first = Artifact.load(tmp_path)
    build(tmp_path, catalog(8))
    encoder = WordEncoder()
    built = build_artifact(catalog(20), encoder, tmp_path, OPTIONS)
    again = Artifact.load(tmp_path)
    assert encoder.texts == []
    assert (built.live, built.retired) == (20, 0)
    np.testing.assert_array_equal(again.vectors.full, first.vectors.full)


def test_options_not_given_stay_as_they_are(tmp_path: Path) -> None:
    build(tmp_path, catalog(20), BuildOptions(dim=8, slots=3, half_lives_seconds=(60.0, 3600.0)))
    build(tmp_path, catalog(21), BuildOptions(slots=3))
    interest = Artifact.load(tmp_path).manifest.interest
    assert (interest.dim, interest.slots, interest.half_lives_seconds) == (8, 3, (60.0, 3600.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BuildOptions(dim=16), "dim 8 -> 16"),
        (BuildOptions(slots=2), "slots 8 -> 2"),
        (BuildOptions(half_lives_seconds=(60.0,)), r"half_lives_seconds .* -> \(60\.0,\)"),
        (BuildOptions(rating_scale=(0, 10)), r"rating_min 1\.0 -> 0; rating_max 5\.0 -> 10"),
    ],
)
def test_a_changed_basis_is_refused_without_refit(
    tmp_path: Path, options: BuildOptions, message: str
) -> None:
    first = build(tmp_path, catalog(20))
    with pytest.raises(RefusedError, match=message + r".*build with --refit"):
        build(tmp_path, catalog(20), options)
    assert latest_version(tmp_path) == first.version
    built = build(tmp_path, catalog(20), replace(options, refit=True))
    assert built.basis_changed
    assert built.encoded == 0  # encodings do not depend on it


def test_another_encoder_is_refused_without_refit_and_encodes_all_with_it(tmp_path: Path) -> None:
    build(tmp_path, catalog(20))
    build(tmp_path, catalog(15))
    other = WordEncoder("other words")
    with pytest.raises(RefusedError, match=r"encoder words \(words\) -> words \(other wo\)"):
        build_artifact(catalog(15), other, tmp_path, OPTIONS)
    built = build_artifact(catalog(15), other, tmp_path, BuildOptions(refit=True))
    assert (built.encoded, built.live, built.retired) == (20, 15, 5)
    assert built.basis_changed


def test_a_refit_on_the_same_items_keeps_the_basis(tmp_path: Path) -> None:
    first = build(tmp_path, catalog(20))
    again = build(tmp_path, catalog(20), BuildOptions(refit=True))
    assert again.basis == first.basis


def test_an_outgrown_whitening_is_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(tmp_path, catalog(10))
    build(tmp_path, catalog(100))
    assert "fitted on 10 items and there are 100 now" in caplog.text


def test_items_without_text_have_no_vector_and_are_never_found_by_content(tmp_path: Path) -> None:
    texts = invented(40)
    items = [Item("empty-0"), *texts[:20], Item("empty-1", title=" "), *texts[20:]]
    built = build(tmp_path, Catalog(items))
    assert (built.items, built.live, built.without_text, built.encoded) == (42, 42, 2, 40)
    artifact = Artifact.load(tmp_path)
    vectors = artifact.vectors
    assert vectors.ids == [item.item_id for item in texts] + ["empty-0", "empty-1"]
    assert (artifact.index.size, vectors.live, artifact.manifest.fitted_on) == (40, 42, 40)
    assert not vectors.full[40:].any()
    assert not vectors.vectors[40:].any()
    assert (vectors.similar[40:] == -1).all()
    assert vectors.similar[:40].max() < 40
    alone = tmp_path / "alone"
    build(alone, Catalog(texts))
    np.testing.assert_array_equal(Artifact.load(alone).vectors.full, vectors.full[:40])
    # Later one of them has a text, and another item has lost its own.
    changed = [Item("empty-0", text="a new text"), Item("item-3"), *items[2:4], *items[5:]]
    built = build(tmp_path, Catalog(changed))
    assert (built.live, built.retired, built.without_text, built.encoded) == (41, 1, 2, 1)
    again = Artifact.load(tmp_path).vectors
    assert again.full[again.row_of_id("empty-0")].any()
    assert not again.full[again.row_of_id("item-3")].any()
    row = again.row_of_id("item-7")
    np.testing.assert_array_equal(again.full[row], vectors.full[vectors.row_of_id("item-7")])


def test_a_catalogue_without_any_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="none of 2 items has a text"):
        build(tmp_path, Catalog([Item("a"), Item("b", title="")]))


def test_an_item_without_text_is_recommended_by_what_users_do_with_it(tmp_path: Path) -> None:
    build(tmp_path, Catalog([Item("empty"), *invented(40)]))
    log = tmp_path / "events.jsonl"
    liked = [
        ("ada", "empty"),
        ("ada", "item-1"),
        ("bo", "item-1"),
        ("bo", "empty"),
        ("cy", "empty"),
    ]
    log.write_text(
        "".join(
            json.dumps({"user_id": u, "item_id": i, "kind": "like", "timestamp": 1e9 + 60 * n})
            + "\n"
            for n, (u, i) in enumerate([*liked, ("di", "item-1")])
        )
    )
    events = read_event_log([log], Kinds.default(), 2e9)
    replay = Replay(Artifact.load(tmp_path, device="cpu"), events)
    replay.advance(len(events))
    states, names = replay.users.states, events.user_ids
    heads = states.head
    assert heads["n_slots"][: len(names)].tolist() == [1, 1, 0, 1]  # none of `empty`
    assert np.isfinite(states.sums[: len(names)]).all()
    assert not states.masses[names.index("cy")].any()
    everyone = replay.asked_of(np.arange(4), 1e9 + 600.0, np.zeros(4, np.uint32))
    lists = replay.recommender.recommend(everyone, 10)
    empty = replay.recommender.artifact.vectors.row_of_id("empty")
    for user in ("cy", "di"):
        rows = lists.rows[names.index(user)].tolist()
        assert len([row for row in rows if row >= 0]) == 10
    assert empty in lists.rows[names.index("di")]
    place = lists.rows[names.index("di")].tolist().index(empty)
    assert CHANNELS[lists.channels[names.index("di"), place]] in ("neighbours", "trend")
    assert np.isfinite(lists.scores[lists.rows >= 0]).all()


def test_a_text_that_comes_twice_is_encoded_once(tmp_path: Path) -> None:
    encoder = WordEncoder()
    items = [Item("a", text="same words"), Item("b", text="same words"), Item("c", text="other")]
    built = build_artifact(Catalog(items), encoder, tmp_path, OPTIONS)
    assert sorted(encoder.texts) == ["other", "same words"]
    assert built.encoded == 2
    full = Artifact.load(tmp_path).vectors.full
    np.testing.assert_array_equal(full[0], full[1])


def test_progress_is_told_how_many_texts_there_are(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    build_artifact(
        catalog(5),
        WordEncoder(),
        tmp_path,
        OPTIONS,
        lambda total: lambda done: told.append((total, done)),
    )
    assert told == [(5, 5)]


def test_a_recall_below_the_least_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.items.index.recall_at_10", lambda *_: 0.5)
    with pytest.raises(RecallError, match=r"0\.5000, at least 0\.95 expected.*--index flat"):
        build(tmp_path, catalog(20))
    assert list_versions(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (BuildOptions(dim=64), "dim 64 is more than the 32 of words"),
        (BuildOptions(dim=8, rating_scale=(5, 1)), "rating_min 5 is not below rating_max 1"),
        (BuildOptions(dim=8, index="pq_fastscan"), "needs 1000 items, 20 found"),
    ],
)
def test_an_option_that_cannot_be_met_is_refused(
    tmp_path: Path, options: BuildOptions, message: str
) -> None:
    with pytest.raises(RefusedError, match=message):
        build(tmp_path, catalog(20), options)


def test_a_first_build_that_was_killed_before_it_wrote_latest_is_carried_over(
    tmp_path: Path,
) -> None:
    first = build(tmp_path, catalog(10))
    (tmp_path / "LATEST").unlink()
    again = build(tmp_path, catalog(12))
    assert again.sequence == 2
    assert latest_version(tmp_path) == again.version
    before, after = (Artifact.load(tmp_path, one.version) for one in (first, again))
    assert after.manifest.basis == before.manifest.basis


def test_builds_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda n: build(tmp_path, catalog(10 + n)), range(4)))
    assert sorted(b.sequence for b in built) == [1, 2, 3, 4]
    assert latest_version(tmp_path) in {b.version for b in built}
    assert not list(tmp_path.glob(".building-*"))
    for version in list_versions(tmp_path):
        Artifact.load(tmp_path, version)


def test_a_damaged_current_version_is_only_left_behind_with_refit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    built = build(tmp_path, catalog(10))
    (tmp_path / built.version / "texts.json").unlink()
    with pytest.raises(ArtifactError, match=r"texts\.json: cannot be read.*--refit"):
        build(tmp_path, catalog(10))
    again = build(tmp_path, catalog(10), BuildOptions(dim=8, refit=True))
    assert again.sequence == 2
    assert "the current version is not taken over" in caplog.text
    assert read_before(tmp_path) is not None


def test_a_full_disk_leaves_the_current_version_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(tmp_path, catalog(10))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tracker.artifact.artifact.write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        build(tmp_path, catalog(12))
    assert latest_version(tmp_path) == first.version
    assert not list(tmp_path.glob(".building-*"))


def test_a_build_into_a_url_is_loaded_from_it(tmp_path: Path) -> None:
    root = f"memory://artifacts-{tmp_path.name}"
    build(root, catalog(10))
    build(root, catalog(12))
    artifact = Artifact.load(root, cache=tmp_path)
    assert (artifact.manifest.sequence, artifact.manifest.live) == (2, 12)
    assert rollback(root).sequence == 1
    assert [line.latest for line in overview(root)] == [True, False]
