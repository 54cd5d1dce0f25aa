"""The command `indexer train` with a user encoder: its options, and what it says of bad input."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.console import REFUSED
from indexer.cli.main import main
from indexer.data.histories import EventLog
from indexer.train.half_lives import HalfLives
from tests.indexer.cli.test_learning import Shop, small_shop, words
from tests.logs import group_events
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import LAYOUT
from tracker.scoring.retrieval import Retrieval
from tracker.users.config import InterestConfig

pytestmark = [pytest.mark.training, pytest.mark.timeout(600)]  # kernels may compile first

__all__ = ["small_shop", "words"]  # fixtures

SMALL = ("--dim", 8, "--epochs", 1, "--device", "cpu", "--tries", 1)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path, group_events(users=100, each=16))


def write_users(folder: Path, *lines: Any) -> Path:
    path = folder / "users.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def test_encoder_attributes_and_curves_are_published_with_the_ranker(
    shop: Shop, tmp_path: Path
) -> None:
    users = write_users(
        tmp_path, *({"user_id": f"u{n}", "attributes": {"side": n % 2}} for n in range(100)), 7
    )
    curves = tmp_path / "curves"
    done = shop.run(
        "train", "--users", users, "--curve", curves, "--cell", "linear", *SMALL, "--json"
    )
    found = json.loads(done.stdout)
    assert found["encoder"]["cell"] == "linear"
    assert found["encoder"]["attributes"] == 2
    assert set(found["validation"]) == {"loss", "hit_rate_at_10", "ndcg_at_10"}
    assert "users: 1 lines left out, the first: " in done.stderr
    names = {path.name for path in curves.iterdir()}
    assert {"encoder.csv", "encoder.png", "refit.csv", "ranker.png"} <= names
    artifact = Artifact.load(shop.root)
    tower = artifact.models.tower
    assert tower is not None
    assert (tower.info.cell, tower.info.dim, tower.info.users) == ("linear", 8, 100)
    assert tower.info.fitted["epochs"] == 1.0
    assert LAYOUT.user_encoder in artifact.manifest.files
    more = [{"user_id": f"u{n}", "attributes": {"side": n % 2}} for n in range(103)]
    later = write_users(tmp_path, *more)
    assert shop.build("--users", later).exit_code == 0
    built = Artifact.load(shop.root)
    assert built.models.tower is not None
    assert built.models.tower.info.users == 103
    assert built.models.tower.code == tower.code
    assert shop.build().exit_code == 0
    kept = Artifact.load(shop.root).models.tower
    assert kept is not None
    assert kept.info.users == 103


def test_settings_that_were_tried_are_told_and_all_curves_lie_beside_the_versions(
    shop: Shop, tmp_path: Path
) -> None:
    users = write_users(tmp_path, {"user_id": "else", "attributes": {"side": "left"}})
    run = shop.run("train", "--users", users, *SMALL, "--tries", 2, "--json")
    assert (
        "users: none of the 1 users is in the events; user_id must be the same in both"
        in run.stderr
    )
    done = json.loads(run.stdout)
    tried = done["encoder"]["tried"]
    assert [(one["dim"], one["dropout"]) for one in tried] == [(8, 0.2), (8, 0.1)]
    assert [one["chosen"] for one in tried].count(True) == 1
    curves = shop.root / "curves" / done["artifact"]
    assert (curves / "encoder-dim-8-dropout-0.1-rate-0.004.csv").exists()
    assert (curves / "encoder.csv").exists()
    assert not (shop.root / ".training").exists()


def test_a_training_of_a_few_seconds_says_what_was_left_out(shop: Shop) -> None:
    done = shop.train("--dim", 8, "--device", "cpu", "--tries", 1, "--minutes", 0.01)
    assert len(done["left_out"]) == 3
    assert "epochs of the encoder" in done["left_out"][1]
    assert done["left_out"][2] == "the encoder's refit on the latest events"
    assert done["examples"] <= 100
    assert Artifact.load(shop.root).models.tower is not None


def test_half_lives_are_chosen_before_a_version_is_trained_or_with_refit(
    small_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, ...]] = []

    def found(log: EventLog, rows: Any, vectors: Any, events: Any, in_force: Any) -> HalfLives:
        assert len(rows) == len(log)
        assert (rows[events] >= 0).all()
        asked.append(in_force)
        return HalfLives((600.0, *in_force[1:]), 3.0, 3.5, 0.1)

    monkeypatch.setattr("indexer.train.train.choose_half_lives", found)
    default = InterestConfig().half_lives_seconds
    run = small_shop.run("train", "--no-encoder", "--json")
    chosen = (600.0, *default[1:])
    assert "half-lives 10 min, 1 d, 7 d, 60 d instead of 30 min, 1 d, 7 d, 60 d: " in run.stderr
    assert json.loads(run.stdout)["half_lives"]["seconds"] == list(chosen)
    first = Artifact.load(small_shop.root).manifest
    assert first.interest.half_lives_seconds == chosen
    assert small_shop.train("--no-encoder")["half_lives"] is None
    second = Artifact.load(small_shop.root).manifest
    assert (second.interest, second.basis) == (first.interest, first.basis)
    assert asked == [default]
    small_shop.train("--no-encoder", "--refit")
    assert asked == [default, chosen]


def test_half_lives_of_a_version_that_was_only_built_may_change(
    small_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(log: EventLog, rows: Any, vectors: Any, events: Any, in_force: Any) -> HalfLives:
        return HalfLives((600.0, *in_force[1:]), 3.0, 3.5, 0.1)

    monkeypatch.setattr("indexer.train.train.choose_half_lives", found)
    assert small_shop.build().exit_code == 0
    done = small_shop.run("train", "--no-encoder", "--json")
    assert json.loads(done.stdout)["basis_changed"]
    assert "the basis changed: workers rebuild" in done.stderr


def test_the_ranker_can_be_trained_alone(small_shop: Shop) -> None:
    done = small_shop.train("--no-encoder")
    assert (done["encoder"], done["note"]) == (None, "")
    artifact = Artifact.load(small_shop.root)
    assert artifact.models.tower is None
    assert artifact.manifest.without("tower").endswith("`--no-encoder` was given to the training")


def test_a_private_training_says_and_publishes_what_it_spent_and_what_it_cost(shop: Shop) -> None:
    done = shop.run("train", "--epsilon", 8, "--delta", 1e-4)
    private, plain, _ = done.stdout.splitlines()
    assert private.startswith("private: epsilon 7.")  # no probability could be learned
    assert " of 8 spent at delta 0.0001; NDCG@10 " in private
    assert plain.startswith("not private: counts, trends and neighbours of items in the workers")
    assert "the scale of ratings (give --rating-scale)" in plain
    assert "no encoder: it cannot be trained under differential privacy" in done.stderr
    artifact = Artifact.load(shop.root)
    manifest = artifact.manifest
    assert manifest.training is not None
    privacy = manifest.training.privacy
    assert privacy is not None
    assert (privacy.epsilon, privacy.delta) == (8.0, 1e-4)
    assert 7.0 < privacy.spent <= 8.0
    assert privacy.line == private
    assert privacy.fits["ranker"].users == 100
    assert 0.0 < privacy.ndcg_at_10_without <= 1.0
    assert artifact.models.tower is None
    assert artifact.models.ranker is not None
    assert manifest.interest.half_lives_seconds == InterestConfig().half_lives_seconds
    assert manifest.ranker is not None
    assert manifest.ranker.retrieval == Retrieval()
    assert private in CliRunner().invoke(main, ["show", "--out", str(shop.root)]).stdout
    assert shop.build().exit_code == 0
    assert Artifact.load(shop.root).manifest.training == manifest.training


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (("--epsilon", 4), "--epsilon without --delta; a budget has both"),
        (("--delta", 1e-6), "--delta without --epsilon; a budget has both"),
        (("--epsilon", 4, "--delta", 1e-6, "--dim", 8), "--dim with --epsilon: then no user encod"),
        (("--epsilon", 4, "--delta", 1e-6, "--users", "u"), "--users with --epsilon: attributes"),
        (("--epsilon", 4, "--delta", 0.02), "delta 0.02 is too large for 100 users"),
        (("--epsilon", 1e-5, "--delta", 1e-6), "epsilon 1e-05 is too small: with delta 1e-06"),
    ],
)
def test_a_privacy_budget_that_cannot_be_kept_is_refused_in_a_line(
    shop: Shop, asked: tuple[object, ...], line: str
) -> None:
    done = shop.run("train", *asked, code=REFUSED)
    (said,) = [one for one in done.stderr.splitlines() if one.startswith("indexer: ")]
    assert said.startswith(f"indexer: {line}")
    assert not (shop.root / "LATEST").exists()


def test_a_training_chooses_the_candidates_and_a_later_build_keeps_them(shop: Shop) -> None:
    done = shop.run("train", "--no-encoder")
    assert done.exit_code == 0, done.stderr
    assert "candidates: by source, with the share of the targets" in done.stderr
    before = Artifact.load(shop.root).models.ranker
    assert before is not None
    recall = before.info.retrieval.recall
    assert recall is not None
    assert recall.served > 0.9
    shown = CliRunner().invoke(main, ["show", "--artifacts", str(shop.root)]).stdout
    assert "candidates" in shown
    assert "of what ranking all would show" in shown
    assert shop.build().exit_code == 0
    after = Artifact.load(shop.root).models.ranker
    assert after is not None
    assert after.info == before.info


def test_too_few_events_for_an_encoder_train_the_ranker_alone_and_say_so(tmp_path: Path) -> None:
    shop = Shop(tmp_path, group_events(users=40, each=8))
    done = shop.run("train", "--json")
    message = "no encoder, the ranker alone is trained: 256 events to learn an encoder from"
    assert message in done.stderr
    assert json.loads(done.stdout)["note"].startswith(message)


def test_a_file_of_users_that_has_none_is_refused_and_nothing_is_published(
    shop: Shop, tmp_path: Path
) -> None:
    users = write_users(tmp_path, "no", {"name": "ada"})
    said = shop.run("train", "--users", users, code=REFUSED).stderr
    assert "none of 2 lines is a user" in said
    assert not (shop.root / "LATEST").exists()


def test_a_training_that_is_interrupted_says_how_it_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("indexer.train.fit_models.fit_ranker", interrupt)
        said = shop.run("train", *SMALL, code=REFUSED).stderr
    assert "run the same command again to resume after the last complete epoch" in said
    assert list((shop.root / ".training").glob("*/examples.npz"))
    again = shop.run("train", *SMALL)
    assert "replaying for examples" not in again.stderr
    assert not (shop.root / ".training").exists()


def test_equal_timestamps_train_the_ranker_alone(tmp_path: Path) -> None:
    events = [line | {"timestamp": 1.7e9} for line in group_events(users=40, each=8)]
    done = Shop(tmp_path, events).train(*SMALL)
    assert done["encoder"] is None
    assert "0 events to learn an encoder from" in done["note"]


def test_one_user_has_an_encoder_too(tmp_path: Path) -> None:
    events = [
        {"user_id": "one", "item_id": f"i{n % 40}", "kind": "like", "timestamp": 1.7e9 + 60.0 * n}
        for n in range(1300)
    ]
    done = Shop(tmp_path, events).train("--repeats", *SMALL)
    assert done["encoder"]["epochs"] == 1


def test_events_on_one_item_of_many_are_taken(tmp_path: Path) -> None:
    events = [
        {"user_id": f"u{n % 50}", "item_id": "i3", "kind": "like", "timestamp": 1.7e9 + 60.0 * n}
        for n in range(1300)
    ]
    done = Shop(tmp_path, events).train("--repeats", *SMALL)
    assert done["items"] == 40
