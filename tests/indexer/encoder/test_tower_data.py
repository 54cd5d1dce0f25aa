"""The data of an encoder's training: two parts, and items that only the later one has."""

from pathlib import Path

import msgspec
import numpy as np

from indexer.encoder.tower_data import make_tower_data
from tests.indexer.encoder.test_tower import OPTIONS, events_of, made


def test_the_refit_has_the_events_of_the_fit_and_later_ones(tmp_path: Path) -> None:
    catalogue, log = made(tmp_path, events_of())
    data = make_tower_data(catalogue, log, {}, "gts", OPTIONS)
    assert not (data.early.events & ~data.whole.events).any()
    assert data.early.events.sum() < data.whole.events.sum() < len(log)
    assert data.early.events[data.targets].all()
    assert not data.early.events[data.validation].any()
    assert data.whole.events[data.validation].all()
    assert make_tower_data(catalogue, log, {}, None, OPTIONS).whole.events.all()


def test_items_of_later_events_have_later_ids_and_the_others_keep_theirs(tmp_path: Path) -> None:
    events = events_of()
    for n, line in enumerate(events):
        if line["item_id"] == "i3" and n < 1380:
            line["item_id"] = "i5"
    catalogue, log = made(tmp_path, events)
    data = make_tower_data(catalogue, log, {}, None, OPTIONS)
    early, whole = data.early.items.ids, data.whole.items.ids
    later = np.flatnonzero((whole > 0) & (early == 0))
    assert [catalogue.items.ids[row] for row in later.tolist()] == ["i3"]
    assert whole[later].tolist() == [early.max() + 1]
    assert (whole[early > 0] == early[early > 0]).all()
    sequences = data.whole.sequences
    known = sequences.rows >= 0
    assert (sequences.ids[known] == whole[sequences.rows[known]]).all()


def test_without_the_trend_there_is_none(tmp_path: Path) -> None:
    catalogue, log = made(tmp_path, events_of())
    options = msgspec.structs.replace(OPTIONS, trend=False)
    assert make_tower_data(catalogue, log, {}, "gts", options).trend is None
