"""The commands `indexer train` and `indexer evaluate`, from files to what they print."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from indexer.cli.console import REFUSED
from indexer.cli.main import main
from indexer.data.catalog import Item
from tests.catalogs import WordEncoder
from tests.logs import group_events, likes, write_events
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import LAYOUT, read_manifest
from tracker.artifact.versions import latest_version
from tracker.items.view import ItemView
from tracker.recommend.options import RecommendOptions
from tracker.recommend.recommender import Recommender
from tracker.scoring.blend import Blend
from tracker.scoring.network import Network

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]  # kernels may compile first

ITEMS = 40

once = pytest.mark.xdist_group("one training")
"""Marks the tests that look at one training: in one process, it runs once."""


def fit_quickly(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("indexer.items.item_encoder.ItemEncoder", lambda *_: WordEncoder(width=96))
    patch.setattr("indexer.train.ranker.CUT_STEPS", 20)
    for name in ("TRACKER_ARTIFACTS", "TRACKER_KINDS_FILE"):
        patch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode without a model, and fit in few steps."""
    fit_quickly(monkeypatch)


def write_items(folder: Path, count: int = ITEMS) -> Path:
    items = [Item(f"i{n}", title=f"w{n} group{n % 2}") for n in range(count)]
    path = folder / "items.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in items))
    return path


class Shop:
    """Files of a catalogue and its events, and where versions live."""

    def __init__(self, folder: Path, events: list[dict[str, Any]]) -> None:
        self.items = write_items(folder)
        self.events = write_events(folder / "events.jsonl", events)
        self.root = folder / "artifacts"

    def run(self, command: str, *arguments: object, code: int = 0) -> Result:
        files = ["--items", self.items, "--events", self.events, "--out", self.root]
        words = [command, *map(str, [*files, *arguments])]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == code, result.output
        return result

    def train(self, *arguments: object) -> Any:
        return json.loads(self.run("train", *arguments, "--json").stdout)

    def evaluate(self, *arguments: object) -> Any:
        return json.loads(self.run("evaluate", *arguments, "--json", "-").stdout)

    def build(self, *arguments: object) -> Result:
        words = ["build", self.items, "--out", self.root, *arguments]
        return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, group_events(users=100, each=12))


@pytest.fixture
def small_shop(tmp_path: Path) -> Shop:
    """A shop with hardly more events than a training needs, and without an encoder."""
    return Shop(tmp_path, group_events(users=40, each=8))


class Training:
    """A shop with one training, made once; tests work on copies of it."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        with pytest.MonkeyPatch.context() as patch:
            fit_quickly(patch)
            shop = Shop(folder, group_events(users=100, each=12))
            self.result = shop.run("train", *arguments, "--json")
        self.printed = json.loads(self.result.stdout)

    def copy(self, folder: Path) -> Shop:
        """Return a shop in another folder, with the version that was trained."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Shop(folder, group_events(users=100, each=12))


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def gts_training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return Training(tmp_path_factory.mktemp("gts"), "--protocol", "gts")


@once
def test_a_training_publishes_one_version_that_serves_its_ranker(
    training: Training, tmp_path: Path
) -> None:
    done, shop = training.printed, training.copy(tmp_path)
    assert {"artifact", "seconds", "epochs", "validation"} <= set(done)
    assert set(done["validation"]) == {"loss", "hit_rate_at_10", "ndcg_at_10"}
    assert done["artifact"] == latest_version(shop.root)
    assert done["rating_scale"] == [1.0, 5.0]
    artifact = Artifact.load(shop.root)
    manifest = artifact.manifest
    assert manifest.sequence == 1
    assert LAYOUT.ranker in manifest.files
    assert artifact.models.ranker is not None
    assert manifest.ranker == artifact.models.ranker.info
    assert manifest.training is not None
    assert manifest.training.protocol is None
    assert manifest.training.left_out == 0
    serving = Recommender(artifact, ItemView(artifact.vectors), RecommendOptions(seen="keep"))
    assert isinstance(serving.ranker, Network)
    assert serving.options.seen == "keep"
    assert serving.options.neighbour_width == manifest.ranker.neighbour_width == 64
    other = Recommender(artifact, ItemView(artifact.vectors), ranker=Blend())
    assert other.options == RecommendOptions()


@once
def test_a_version_shows_what_ranks(shop: Shop, gts_training: Training, tmp_path: Path) -> None:
    shop.build()
    words = ["show", "--out", str(shop.root)]
    assert "the fixed blend, nothing was trained" in CliRunner().invoke(main, words).stdout
    words[-1] = str(gts_training.copy(tmp_path / "trained").root)
    shown = CliRunner().invoke(main, words).stdout
    assert "trained on 600 examples" in shown
    assert "120 targets of gts left out" in shown


def test_the_same_seed_trains_the_same_ranker(small_shop: Shop) -> None:
    digests = []
    for _ in range(2):
        small_shop.train("--seed", 3)
        manifest = read_manifest(small_shop.root, latest_version(small_shop.root))
        digests.append(manifest.files[LAYOUT.ranker])
    assert digests[0] == digests[1]


@once
def test_a_build_takes_the_ranker_over_until_the_basis_changes(
    training: Training, tmp_path: Path
) -> None:
    shop = training.copy(tmp_path)
    before = read_manifest(shop.root, training.printed["artifact"])
    assert shop.build().exit_code == 0
    built = read_manifest(shop.root, latest_version(shop.root))
    assert built.version != before.version
    assert (built.ranker, built.training) == (before.ranker, before.training)
    assert built.files[LAYOUT.ranker] == before.files[LAYOUT.ranker]
    dropped = shop.build("--refit", "--slots", 4)
    assert dropped.exit_code == 0
    refitted = Artifact.load(shop.root)
    assert refitted.models.ranker is None
    assert refitted.manifest.training is None
    assert "of another basis and is left out" in dropped.stderr


def test_a_training_after_a_build_encodes_nothing_again(small_shop: Shop) -> None:
    small_shop.build()
    assert "encoding texts" not in small_shop.run("train").stderr


def test_ratings_above_five_choose_the_scale_of_ten(tmp_path: Path) -> None:
    events = [
        line | {"kind": "rate", "value": 4.0 + n % 7}
        for n, line in enumerate(group_events(users=40, each=8))
    ]
    shop = Shop(tmp_path, events)
    shop.build()
    done = shop.train()
    assert done["rating_scale"] == [1.0, 10.0]
    assert done["basis_changed"]
    interest = Artifact.load(shop.root).manifest.interest
    assert (interest.rating_min, interest.rating_max) == (1.0, 10.0)
    assert not shop.train()["basis_changed"]


def test_probabilities_are_learned_from_ratings_and_judged_beside_means(tmp_path: Path) -> None:
    events = [
        line | {"kind": "rate", "value": 1.0 + (3 * int(str(line["item_id"])[1:]) + n % 2) % 5}
        for n, line in enumerate(group_events(users=100, each=12))
    ]
    shop = Shop(tmp_path, events)
    done = shop.train("--protocol", "gts", "--positive-rating", 4)
    assert done["prediction"]["auc"] > 0.6
    assert "a rating positive from 4 on" in done["prediction_note"]
    prediction = Artifact.load(shop.root).models.prediction
    assert prediction is not None
    assert prediction.info.rule.positive_rating == 4.0
    rows = {(row["model"], row["slice"]): row for row in shop.evaluate()["rows"]}
    for model in ("tracker", "item_mean", "user_mean"):
        assert rows[model, "all"]["labelled"] == 120
        assert 0.0 <= rows[model, "all"]["ece"] <= 1.0
    assert rows["tracker", "all"]["auc"] > 0.6
    other = {row["model"]: row for row in shop.evaluate("--positive-rating", 1)["rows"]}
    assert other["tracker"]["auc"] is None  # all are positive


@once
def test_where_all_events_are_positive_no_probability_is_learned(
    gts_training: Training, tmp_path: Path
) -> None:
    shop = gts_training.copy(tmp_path)
    assert "no probability is learned: 0 negative of" in gts_training.result.stderr
    manifest = Artifact.load(shop.root).manifest
    assert manifest.prediction is None
    assert manifest.without("prediction").startswith(
        f"{manifest.version} has no trained prediction: 0 negative of "
    )
    assert " has no user encoder: 960 events to learn an encoder from" in manifest.without("tower")
    shown = CliRunner().invoke(main, ["show", "--out", str(shop.root)]).stdout
    assert "no prediction  0 negative of " in shown
    assert shop.build().exit_code == 0
    built = Artifact.load(shop.root).manifest
    assert built.version != manifest.version
    assert built.untrained == manifest.untrained
    judged = shop.evaluate()
    assert all(row["auc"] is None for row in judged["rows"])
    assert any("not measured" in note and "0 negative of" in note for note in judged["notes"])


@once
def test_an_evaluation_reports_every_model(gts_training: Training, tmp_path: Path) -> None:
    shop = gts_training.copy(tmp_path)
    page, figures = tmp_path / "page.html", tmp_path / "figures.json"
    printed = shop.run("evaluate", "--html", page, "--json", figures).stdout
    assert "tracker_served" in printed
    assert "each target streams into the states" in printed
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    found = json.loads(figures.read_bytes())
    assert found["artifact"] == latest_version(shop.root)
    rows = {(row["model"], row["slice"]): row for row in found["rows"]}
    assert rows["tracker", "all"]["n"] == found["targets"] == 120
    assert ("tracker", "scene:home") in rows
    assert rows["tracker", "all"]["hit_rate_at_10"] > rows["popularity", "all"]["hit_rate_at_10"]


@once
def test_a_sample_of_the_targets_is_said(gts_training: Training, tmp_path: Path) -> None:
    shop = gts_training.copy(tmp_path)
    found = shop.evaluate("--targets", 30)
    assert found["targets"] == 30
    assert "30 of 120 targets, drawn with seed 0" in found["notes"]


def test_an_artifact_that_was_only_built_is_judged_by_its_blend(shop: Shop) -> None:
    shop.build()
    assert "nothing was trained: the tracker ranks by its fixed blend" in shop.evaluate()["notes"]


@once
def test_an_artifact_that_has_seen_the_targets_is_refused(
    training: Training, tmp_path: Path
) -> None:
    shop, everything = training.copy(tmp_path), training.printed["artifact"]
    refused = shop.run("evaluate", code=REFUSED).stderr
    assert f"{everything} has seen the targets of --protocol gts (120 from" in refused
    assert "trained on all events up to" in refused
    by_time = shop.train("--protocol", "gts")["artifact"]
    assert shop.evaluate()["artifact"] == by_time
    refused = shop.run("evaluate", "--protocol", "loo", code=REFUSED).stderr
    assert f"{by_time} has seen the targets of --protocol loo (100 from" in refused
    assert "trained with --protocol gts, which left 120 others out" in refused
    assert shop.run("evaluate", "--artifact", everything, code=REFUSED)


def test_leave_one_out_is_trained_and_judged_on_a_core(tmp_path: Path) -> None:
    lonely = [{"user_id": "once", "item_id": "i0", "kind": "like", "timestamp": 1.7e9}]
    shop = Shop(tmp_path, [*group_events(users=120, each=8), *lonely])
    done = shop.train("--protocol", "loo", "--core", 5)
    assert done["events"] == 960
    found = shop.evaluate("--protocol", "loo", "--core", 5)
    assert found["protocol"] == "loo"
    assert found["targets"] == found["users"] == 120
    training = read_manifest(shop.root, done["artifact"]).training
    assert training is not None
    assert (training.core, training.left_out, training.fitted_before) == (5, 120, None)


def test_with_repeats_the_users_own_items_may_be_asked_for(tmp_path: Path) -> None:
    events = [
        line | {"item_id": f"i{n % 8}"} for n, line in enumerate(group_events(users=40, each=8))
    ]
    shop = Shop(tmp_path, events)
    shop.train("--repeats", "--protocol", "gts")
    found = shop.evaluate("--repeats")
    assert "items seen before are ranked" in found["notes"]
    assert "own_frequent" in {row["model"] for row in found["rows"]}


@pytest.mark.parametrize(
    ("events", "arguments", "message"),
    [
        (likes(50, item="other{n}"), (), "none of the 50 events is of an item of the catalogue"),
        (likes(5, user="one"), (), "3 events to learn from; at least 100 are needed"),
        (likes(900, step=0.0), ("--protocol", "gts"), "0 events to learn from"),
        (likes(50), ("--core", "50"), "no user and item has 50 events or more"),
        ([], (), "no event that can be used"),
    ],
)
def test_events_that_teach_nothing_are_refused_and_nothing_is_published(
    tmp_path: Path, events: list[Any], arguments: tuple[str, ...], message: str
) -> None:
    shop = Shop(tmp_path, events)
    assert message in shop.run("train", *arguments, code=REFUSED).stderr
    assert not (shop.root / "LATEST").exists()


def test_too_few_events_are_refused_before_a_text_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = WordEncoder()
    monkeypatch.setattr("indexer.items.item_encoder.ItemEncoder", lambda *_: encoder)
    shop = Shop(tmp_path, likes(50))
    assert "at least 100 are needed" in shop.run("train", code=REFUSED).stderr
    assert encoder.texts == []


def test_what_was_read_is_said_before_it_is_learned_from(shop: Shop) -> None:
    others = [line | {"item_id": "other"} for line in likes(3)]
    write_events(shop.events, [*group_events(users=100, each=12), {"user_id": "u1"}, *others])
    line = f"{shop.events}: 1,203 events; 1 line left out; 3 events of 1 item that is not in "
    reason = (
        f"  missing_field (1):\n    {shop.events}, line 1201: item_id, kind, timestamp missing; an"
        " event carries user_id, item_id, kind and timestamp, a retraction user_id and retracts\n"
    )
    said = shop.run("train", "--protocol", "gts", "--no-encoder").stderr
    assert line + "the catalogue\n" + reason in said
    assert any(note.startswith(line + "000001-") for note in shop.evaluate()["notes"])


def test_a_catalogue_of_one_item_teaches_nothing(tmp_path: Path) -> None:
    shop = Shop(tmp_path, likes(900, item="i0"))
    write_items(tmp_path, 1)
    refused = shop.run("train", "--repeats", code=REFUSED).stderr
    assert "one item: there is nothing to choose between" in refused


def test_one_user_with_a_long_history_is_enough(tmp_path: Path) -> None:
    shop = Shop(tmp_path, likes(1200, user="one"))
    assert shop.train("--repeats", "--protocol", "gts")["examples"] == 600


@pytest.mark.parametrize(
    ("events", "arguments", "message"),
    [
        (likes(50, item="other{n}"), (), "none of the 50 events is of an item of 000001-"),
        (likes(1), (), "no event can be asked for"),
        (likes(50, step=0.0), (), "no event is before the cut of gts"),
        (likes(50), ("--core", "50"), "no user and item has 50 events or more"),
        (likes(50), ("--artifact", "000009-00000000"), "000009-00000000"),
        ([], (), "no event that can be used"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    tmp_path: Path, events: list[Any], arguments: tuple[str, ...], message: str
) -> None:
    shop = Shop(tmp_path, events)
    shop.build()
    assert message in shop.run("evaluate", *arguments, code=REFUSED).stderr


def test_a_catalogue_the_artifact_does_not_know_is_refused(shop: Shop, tmp_path: Path) -> None:
    shop.build()
    shop.items.write_text('{"item_id": "x", "text": "other"}\n', encoding="utf-8")
    assert "has none of the 1 items" in shop.run("evaluate", code=REFUSED).stderr


@pytest.mark.parametrize("step", [0.0, 60.0])
def test_one_user_on_one_item_is_judged_without_figures_to_praise(
    tmp_path: Path, step: float
) -> None:
    shop = Shop(tmp_path, likes(20, user="one", item="i0", step=step))
    write_items(tmp_path, 1)
    shop.build("--dim", 1)
    found = shop.evaluate("--protocol", "loo")
    assert found["targets"] == 1
    assert {row["hit_rate_at_10"] for row in found["rows"]} == {0.0}


def test_a_file_of_weights_that_is_not_there_is_named(shop: Shop) -> None:
    refused = shop.run("train", "--kinds", "absent.toml", code=REFUSED).stderr
    assert "absent.toml: cannot be read" in refused


def test_without_the_extra_there_is_the_table_and_the_page_names_it(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.build()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "tracker_served" in shop.run("evaluate").stdout
    refused = shop.run("evaluate", "--html", tmp_path / "page.html", code=REFUSED).stderr
    assert refused == ("indexer: no module matplotlib: install the extra `train` for --html\n")


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_replayed(
    shop: Shop, tmp_path: Path
) -> None:
    absent = tmp_path / "absent" / "a"
    for option in ("--html", "--json"):
        refused = shop.run("evaluate", option, absent, code=REFUSED).stderr
        assert refused == f"indexer: {absent.parent}: no such folder; a is written into it\n"
    assert (
        "a folder; a file is expected"
        in shop.run("evaluate", "--html", tmp_path, code=REFUSED).stderr
    )


def test_versions_that_cannot_be_written_are_refused_before_a_text_is_encoded(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = WordEncoder()
    monkeypatch.setattr("indexer.items.item_encoder.ItemEncoder", lambda *_: encoder)
    shop.root = shop.items / "below"
    for refused in (shop.run("train", code=REFUSED), shop.build()):
        assert refused.exit_code == REFUSED
        assert f"{shop.items}: not a folder; versions are written into" in refused.stderr
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    shop.root = shop.events.parent / "artifacts"
    assert "cannot be written" in shop.run("train", code=REFUSED).stderr
    assert encoder.texts == []


def test_a_version_that_is_not_there_points_to_the_list(shop: Shop) -> None:
    shop.build()
    refused = shop.run("evaluate", "--artifact", "000009-aaaaaaaa", code=REFUSED).stderr
    assert f"`indexer list --artifacts {shop.root}` shows the versions" in refused


def test_a_file_of_events_that_is_not_there_is_named_in_plain_words(
    shop: Shop, tmp_path: Path
) -> None:
    shop.events = tmp_path / "absent.jsonl"
    refused = shop.run("train", code=REFUSED).stderr
    assert refused == (f"indexer: {shop.events}: cannot be read: No such file or directory\n")
