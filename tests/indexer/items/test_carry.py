"""What a build takes over: known texts, retired items."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.items import carry
from indexer.items.assemble import build_artifact
from indexer.items.carry import item_rows, read_before, same_encoder, text_hashes
from indexer.items.item_encoder import EncoderError, Progress
from indexer.items.options import BuildOptions
from tests.catalogs import WordEncoder, catalog, invented
from tracker.artifact.versions import latest_version


def test_nothing_is_taken_over_where_nothing_was_built(tmp_path: Path) -> None:
    assert read_before(tmp_path / "absent") is None
    rows = item_rows(invented(3), None)
    assert rows.live == 3
    np.testing.assert_array_equal(rows.before, [-1, -1, -1])


def test_items_that_left_the_catalogue_follow_it_with_their_texts(tmp_path: Path) -> None:
    build_artifact(catalog(6), WordEncoder(), tmp_path, BuildOptions(dim=8))
    before = read_before(tmp_path)
    rows = item_rows(invented(4, first=4), before)
    assert rows.ids == [f"item-{n}" for n in (4, 5, 6, 7, 0, 1, 2, 3)]
    assert rows.live == 4
    np.testing.assert_array_equal(rows.before, [4, 5, -1, -1, 0, 1, 2, 3])
    assert rows.texts[4] == "w0 v0 tools. tools"
    assert rows.labels[4:] == ["tools", "shoes", "tea", "books"]


def test_retired_items_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carry, "MIN_RETIRED", 3)
    build_artifact(catalog(10), WordEncoder(), tmp_path, BuildOptions(dim=8))
    rows = item_rows(invented(1, first=50), read_before(tmp_path))
    assert rows.ids == ["item-50", "item-0", "item-1", "item-2"]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_vectors_that_are_not_finite_in_float16_are_never_published(
    tmp_path: Path, number: float
) -> None:
    build_artifact(catalog(6), WordEncoder(), tmp_path, BuildOptions(dim=8))

    class Overflowing(WordEncoder):
        def encode(
            self, texts: Sequence[str], progress: Progress | None = None
        ) -> NDArray[np.float16]:
            encodings = super().encode(texts, progress)
            encodings[-1, 3] = number
            return encodings

    with pytest.raises(
        EncoderError, match=r"1 of 9 items are not finite.*'item-[678]'.*nothing was"
    ):
        build_artifact(catalog(9), Overflowing(), tmp_path, BuildOptions())
    assert latest_version(tmp_path).startswith("000001-")


def test_an_encoder_is_the_same_whatever_the_most_tokens_that_a_manifest_names(
    tmp_path: Path,
) -> None:
    build_artifact(catalog(6), WordEncoder(), tmp_path, BuildOptions(dim=8))
    before = read_before(tmp_path)
    assert before is not None
    info = WordEncoder().info
    assert same_encoder(before, msgspec.structs.replace(info, max_tokens=info.max_tokens - 2))
    assert not same_encoder(before, msgspec.structs.replace(info, fingerprint="another"))


def test_texts_are_told_apart_by_128_bits() -> None:
    hashes = text_hashes(["a", "b", "a", ""])
    assert hashes.shape == (4, 2)
    assert (hashes[0] == hashes[2]).all()
    assert len({tuple(pair) for pair in hashes.tolist()}) == 3
    assert text_hashes([]).shape == (0, 2)
