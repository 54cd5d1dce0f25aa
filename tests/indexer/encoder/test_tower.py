"""Training of encoder and attention: what serves, what is left out, what is resumed."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from indexer.data.catalog import Catalog, Item
from indexer.data.histories import EventLog
from indexer.encoder.options import TooFewError, TowerOptions
from indexer.encoder.tower import TowerFit, fit_tower, refit_tower, vectors_at
from indexer.encoder.tower_data import make_tower_data
from indexer.items.assemble import Assembled, assemble
from indexer.items.options import BuildOptions
from indexer.train.train import TRAINING
from tests.catalogs import WordEncoder
from tests.logs import group_events, read_events, write_events
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import LAYOUT
from tracker.events.wire import hash_id, scene_code

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]  # kernels may compile first

ITEMS = 40
OPTIONS = TowerOptions(dim=16, epochs=2, device="cpu", tries=1)


def shop() -> Catalog:
    return Catalog([Item(f"i{n}", title=f"w{n} group{n % 2}") for n in range(ITEMS)])


def made(folder: Path, events: list[dict[str, Any]]) -> tuple[Assembled, EventLog]:
    parts = assemble(shop(), WordEncoder(width=96), folder / "artifacts", BuildOptions())
    return parts, read_events(folder, events)


def events_of(users: int = 100, each: int = 16, **more: Any) -> list[dict[str, Any]]:
    return group_events(users=users, each=each, items=ITEMS, **more)


def fits(
    parts: Assembled, log: EventLog, options: TowerOptions = OPTIONS
) -> tuple[TowerFit, TowerFit]:
    data = make_tower_data(parts, log, {}, "gts", options)
    first = fit_tower(data)
    return first, refit_tower(data, first)


def test_a_fit_and_a_refit_serve_every_item(tmp_path: Path) -> None:
    parts, log = made(tmp_path, events_of())
    first, last = fits(parts, log)
    for tower in (first.tower, last.tower):
        assert tower.vectors.shape == (ITEMS, 20)
        assert tower.index.size == ITEMS
        assert tower.info.items == len(tower.id_hashes) == ITEMS
        assert tower.info.code
    assert first.tower.info.code != last.tower.info.code
    summary = last.summary
    assert (summary.epochs, summary.dim, summary.cell, summary.scenes) == (2, 16, "gru", 2)
    assert last.tower.info.fitted["epochs"] == 2.0
    assert set(last.curves) == {"encoder", "refit"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_gpu_trains_what_a_cpu_serves(tmp_path: Path) -> None:
    parts, log = made(tmp_path, events_of())
    options = msgspec.structs.replace(OPTIONS, device="cuda", tries=2)
    first, last = fits(parts, log, options)
    assert len(last.summary.tried) == 2
    for tower in (first.tower, last.tower):
        assert next(tower.model.parameters()).device.type == "cpu"
        assert np.isfinite(tower.vectors).all()


def test_the_column_of_a_ranker_is_what_a_user_likes_more_than_others_do(tmp_path: Path) -> None:
    parts, log = made(tmp_path, events_of())
    data = make_tower_data(parts, log, {}, "gts", OPTIONS)
    fit = fit_tower(data)
    tower = fit.tower
    mean = tower.model.get_buffer("mean_query").numpy()
    assert np.abs(mean).sum() > 0.0
    asked = np.concatenate([mean, [1.0]]).astype(np.float32)
    np.testing.assert_allclose(tower.personal[:, :17] @ asked, np.zeros(ITEMS), atol=1e-5)
    assert np.abs(tower.vectors[:, :17] @ asked).max() > 1e-3
    users, items = vectors_at(data, fit, np.arange(1500, 1510))
    assert users.shape == (10, 17)
    np.testing.assert_allclose(items, tower.personal[:, :17], atol=1e-5)


def test_what_the_protocol_leaves_out_changes_nothing(tmp_path: Path) -> None:
    events = events_of()
    codes = []
    for folder, turned in (("a", False), ("b", True)):
        (tmp_path / folder).mkdir()
        lines = [dict(line) for line in events]
        if turned:  # the last tenth chooses other items
            for line in lines[1440:]:
                line["item_id"] = "i1"
        parts, log = made(tmp_path / folder, lines)
        codes.append([fit.tower.info.code for fit in fits(parts, log)])
    assert codes[0] == codes[1]


def test_items_that_came_after_the_fit_are_known_to_the_refit(tmp_path: Path) -> None:
    events = events_of()
    for n, line in enumerate(events):
        if line["item_id"] in ("i3", "i7") and n < 1380:
            line["item_id"] = "i5"
    parts, log = made(tmp_path, events)
    data = make_tower_data(parts, log, {}, None, OPTIONS)
    fit = fit_tower(data)
    first, last = fit.tower, refit_tower(data, fit).tower
    assert last.info.items > first.info.items
    new = set(last.id_hashes.tolist()) - set(first.id_hashes.tolist())
    assert new <= {hash_id("i3"), hash_id("i7")}
    assert last.id_hashes[: first.info.items].tolist() == first.id_hashes.tolist()


def test_users_attributes_are_served_whether_they_have_events_or_not(tmp_path: Path) -> None:
    parts, log = made(tmp_path, events_of())
    users: Mapping[str, Any] = {f"u{n}": {"side": n % 2} for n in range(100)} | {
        "new": {"side": 1}, "other": {"side": "never met"}, "none": {},
    }  # fmt: skip
    tower = fit_tower(make_tower_data(parts, log, users, "gts", OPTIONS)).tower
    assert tower.info.users == 101
    asked = np.array([hash_id(name) for name in ("new", "u0", "other", "absent")], np.uint64)
    rows = tower.attributes.of(asked)
    assert (rows > 0).any(axis=1).tolist() == [True, True, False, False]
    assert rows[0] != rows[1]


def test_an_attribute_of_thousands_of_values_keeps_those_that_users_share(tmp_path: Path) -> None:
    parts, log = made(tmp_path, events_of())
    users: Mapping[str, Any] = {
        f"u{n}": {"postcode": str(n), "side": str(n % 2)} for n in range(6000)
    }
    data = make_tower_data(parts, log, users, "gts", OPTIONS)
    assert len(data.config.attributes) == 2


def test_too_few_events_for_an_encoder_are_said(tmp_path: Path) -> None:
    parts, log = made(tmp_path, events_of(users=20))
    with pytest.raises(TooFewError, match="256 events to learn an encoder from and 32 to judge"):
        make_tower_data(parts, log, {}, "gts", OPTIONS)


def scene_events() -> list[dict[str, Any]]:
    """In one scene everybody chooses even items, in the other odd ones, whatever they chose."""
    random = np.random.default_rng(3)
    return [
        {
            "user_id": f"u{n % 60}", "kind": "like", "timestamp": 1.7e9 + 60.0 * n,
            "scene": ("home", "search")[scene],
            "item_id": f"i{2 * int(random.integers(0, ITEMS // 2)) + scene}",
        }
        for n, scene in enumerate(random.integers(0, 2, 2400).tolist())
    ]  # fmt: skip


def test_scenes_that_differ_are_told_apart(tmp_path: Path) -> None:
    parts, log = made(tmp_path, scene_events())
    options = msgspec.structs.replace(OPTIONS, repeats=True, epochs=3)
    for tower in [fit.tower for fit in fits(parts, log, options)]:
        assert tower.attention is not None
        assert tower.info.scenes
        assert set(tower.attention.config.scenes) == {scene_code("home"), scene_code("search")}
        shifts = tower.attention.scene_shift.detach() @ torch.from_numpy(tower.vectors[:, :16]).T
        home, search = (shifts[tower.attention.config.scenes.index(scene_code(name)) + 1]
                        for name in ("home", "search"))  # fmt: skip
        even = torch.arange(ITEMS) % 2 == 0
        assert (home[even].mean() - home[~even].mean()) > (
            search[even].mean() - search[~even].mean()
        )


def test_a_single_scene_needs_no_attention(tmp_path: Path) -> None:
    events = [line | {"scene": "home"} for line in events_of()]
    parts, log = made(tmp_path, events)
    for fit in fits(parts, log):
        assert fit.attention is None
        assert fit.tower.attention is None


def test_a_killed_training_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    items, events = tmp_path / "items.jsonl", tmp_path / "events.jsonl"
    items.write_bytes(b"".join(msgspec.json.encode(i) + b"\n" for i in shop().items))
    write_events(events, events_of(users=80))

    def command(root: Path, *more: str) -> list[str]:
        files = [str(path) for path in (items, events, root)]
        return [sys.executable, "-m", "tests.interrupted", *files, *more]

    root = tmp_path / "killed"
    with subprocess.Popen(command(root, "wait"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "an epoch is done\n"
        process.send_signal(signal.SIGKILL)
    assert list((root / TRAINING).glob("*/encoder.safetensors"))
    assert not (root / "LATEST").exists()
    found = []
    for place in (root, tmp_path / "whole"):
        done = subprocess.run(command(place), check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)["encoder"]["epochs"] == 3
        manifest = Artifact.load(place).manifest
        found.append([manifest.files[name] for name in (LAYOUT.user_encoder, LAYOUT.ranker)])
        assert not (place / TRAINING).exists()
    assert found[0] == found[1]
