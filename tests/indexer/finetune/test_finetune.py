"""The text encoder fine-tuned: a tiny transformers model in a world whose answer is known."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from indexer.cli.console import BAD_ITEMS, NOT_IMPROVED, REFUSED
from indexer.cli.main import main
from indexer.data.catalog import Item
from indexer.data.histories import read_event_log, split
from indexer.data.holdout import SeenTargetsError, check_unseen
from indexer.finetune.fit import FitOptions, fit
from indexer.items.item_encoder import FINETUNED, EncoderError, ItemEncoder
from tests.logs import group_events, write_events
from tests.logs import likes as item_likes
from tests.tiny_bert import make_bert
from tracker.artifact.manifest import read_manifest
from tracker.artifact.versions import latest_version
from tracker.events.kinds import Kinds

pytestmark = pytest.mark.training

ITEMS = 30

likes = partial(item_likes, items=ITEMS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [f"w{n}" for n in range(ITEMS)]
    return make_bert(tmp_path_factory.mktemp("models") / "tiny", words, 32, layers=2, tokens=16)


def write_items(folder: Path, count: int = ITEMS) -> Path:
    path = folder / "items.jsonl"
    items = [Item(f"i{n}", text=f"w{n}") for n in range(count)]
    path.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in items))
    return path


class Shop:
    """Files of a catalogue and its events, a model, and where the new one goes."""

    def __init__(self, folder: Path, model: Path, events: list[dict[str, Any]]) -> None:
        self.items = write_items(folder)
        self.events = write_events(folder / "events.jsonl", events)
        self.model = model
        self.to = folder / "models" / "tuned"

    def run(self, *arguments: object, code: int = 0) -> Result:
        files = ["--items", self.items, "--events", self.events, "--to", self.to]
        words = ["finetune", *files, "--model", self.model, "--device", "cpu", *arguments]
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    def tune(self, *arguments: object) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


FAST = ("--steps", 48, "--batch-size", 64, "--learning-rate", "0.01")


@pytest.fixture
def shop(tmp_path: Path, model: Path) -> Shop:
    """Users choose within one of two groups, and nothing in the texts tells which."""
    return Shop(tmp_path, model, group_events(users=60, items=ITEMS, each=10))


@pytest.mark.parametrize("method", ["lora", "top", "whole"])
def test_items_chosen_together_are_found_by_their_texts_afterwards(shop: Shop, method: str) -> None:
    done = shop.tune("--method", method, *FAST)
    before, after = done["validation"]["before"], done["validation"]["after"]
    assert done["written"]
    assert done["measure"] == "ndcg_at_10"
    assert after["ndcg_at_10"] > before["ndcg_at_10"] + 0.05
    assert before["targets"] == after["targets"] == 60
    assert after["cold_hit_rate_at_10"] is None  # there is no cold item
    assert 0 < done["best_epoch"] <= done["epochs"] <= 8
    encoder = ItemEncoder(str(shop.to), "cpu")
    vectors = encoder.encode([f"w{n}" for n in range(ITEMS)]).astype(np.float32)
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near = vectors @ vectors.T
    group = np.arange(ITEMS) % 2
    same = group[:, None] == group
    assert near[same].mean() > near[~same].mean() + 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("method", ["lora", "whole"])
def test_a_gpu_tunes_as_the_cpu_does(shop: Shop, method: str) -> None:
    done = shop.tune("--method", method, *FAST, "--device", "cuda")
    before, after = done["validation"]["before"], done["validation"]["after"]
    assert after["ndcg_at_10"] > before["ndcg_at_10"] + 0.05
    assert ItemEncoder(str(shop.to), "cpu").encode(["w1"]).shape == (1, 32)


def test_the_folder_has_what_was_done_and_what_a_build_takes(shop: Shop, tmp_path: Path) -> None:
    printed = shop.run(*FAST).stdout
    assert f"indexer build ITEMS --model {shop.to} --refit" in printed
    assert "ndcg_at_10" in printed
    about = json.loads((shop.to / FINETUNED).read_bytes())
    assert about["objective"] == "co-interest"
    assert about["method"] == "lora"
    assert about["training"]["protocol"] == "gts"
    assert about["training"]["left_out"] == 60
    names = {path.name for path in shop.to.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert {"training.csv", "training.png"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    assert [path.name for path in shop.to.parent.iterdir()] == [shop.to.name]
    root = tmp_path / "artifacts"
    words = ["build", shop.items, "--out", root, "--model", shop.model, "--dim", 16]
    built = CliRunner().invoke(main, [str(word) for word in words])
    assert built.exit_code == 0, built.output
    words[5] = shop.to
    refused = CliRunner().invoke(main, [str(word) for word in words])
    assert refused.exit_code == REFUSED
    built = CliRunner().invoke(main, [str(word) for word in [*words, "--refit"]])
    assert built.exit_code == 0, built.output


def test_what_is_built_with_it_is_not_judged_by_what_it_has_seen(
    shop: Shop, tmp_path: Path
) -> None:
    shop.run(*FAST)
    root = tmp_path / "artifacts"
    words = ["build", shop.items, "--out", root, "--model", shop.to, "--dim", 16]
    assert CliRunner().invoke(main, [str(word) for word in words]).exit_code == 0
    manifest = read_manifest(root, latest_version(root))
    log = read_event_log([shop.events], Kinds.default(), 4e9)
    check_unseen(manifest, log, split(log, "gts"), 1)
    with pytest.raises(SeenTargetsError) as refused:
        check_unseen(manifest, log, split(log, "loo"), 1)
    said = str(refused.value)
    assert f"tuned, the text encoder of {manifest.version}, has seen the targets of" in said
    assert "fine-tuned with --protocol gts, which left 60 others out" in said
    assert "make one with `indexer finetune --protocol loo`" in said
    (shop.to / FINETUNED).write_text("{}")
    with pytest.raises(EncoderError, match=r"finetune\.json: Object missing required field"):
        ItemEncoder(str(shop.to), "cpu")


def test_the_same_seed_gives_the_same_weights(shop: Shop) -> None:
    prints = []
    for _ in range(2):
        shop.run("--seed", 3, "--force", *FAST[:3], 32)
        prints.append(ItemEncoder(str(shop.to), "cpu").info.fingerprint)
    assert prints[0] == prints[1]


def test_an_interrupted_training_goes_on_to_the_same_weights(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run(*FAST)
    whole = ItemEncoder(str(shop.to), "cpu").info.fingerprint
    shop.to = shop.to.with_name("second")
    from indexer.finetune import fit as finetune_fit

    real, calls = finetune_fit._step, []

    def interrupted(*arguments: Any) -> float:
        calls.append(1)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(finetune_fit, "_step", interrupted)
    shop.run(*FAST, code=1)
    checkpoint = shop.to.with_name("second.checkpoint.safetensors")
    assert checkpoint.exists()
    assert not shop.to.exists()
    refused = shop.run(*FAST, "--method", "top", code=REFUSED).stderr
    assert "a checkpoint of another training" in refused
    calls.clear()
    monkeypatch.setattr(finetune_fit, "_step", real)
    shop.run(*FAST)
    assert ItemEncoder(str(shop.to), "cpu").info.fingerprint == whole
    assert not checkpoint.exists()


def test_a_folder_that_is_there_is_replaced_by_force_only(shop: Shop) -> None:
    shop.to.mkdir(parents=True)
    (shop.to / "mine.txt").write_text("keep")
    assert "exists already" in shop.run(*FAST, code=REFUSED).stderr
    assert (shop.to / "mine.txt").exists()
    shop.run(*FAST, "--force")
    assert (shop.to / "model.safetensors").exists()
    assert not (shop.to / "mine.txt").exists()


def test_a_folder_that_cannot_be_replaced_stays(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.to.mkdir(parents=True)
    (shop.to / "mine.txt").write_text("keep")
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(28, "No space left on device")
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert "No space left on device" in shop.run(*FAST, "--force", code=REFUSED).stderr
    assert (shop.to / "mine.txt").read_text() == "keep"
    assert [path.name for path in shop.to.parent.iterdir() if path.is_dir()] == [shop.to.name]


def test_what_does_not_become_better_is_not_written(shop: Shop) -> None:
    refused = shop.run(*FAST[:4], "--learning-rate", "1e-12", code=NOT_IMPROVED)
    assert "did not rise: tiny stays as it is, and nothing was written" in refused.stderr
    assert list(shop.to.parent.iterdir()) == []


def test_no_event_after_the_cut_changes_anything(shop: Shop, tmp_path: Path) -> None:
    shop.run(*FAST)
    first = ItemEncoder(str(shop.to), "cpu").info.fingerprint
    lines = shop.events.read_text().splitlines()
    later = [json.loads(line) for line in lines[540:]]
    changed = [line | {"item_id": f"i{n % ITEMS}"} for n, line in enumerate(later)]
    shop.events.write_text("\n".join(lines[:540]) + "\n")
    write_events(tmp_path / "more.jsonl", changed)
    shop.to = shop.to.with_name("second")
    shop.run(*FAST, "--events", tmp_path / "more.jsonl")
    assert ItemEncoder(str(shop.to), "cpu").info.fingerprint == first


@pytest.mark.parametrize("protocol", ["loo", "all"])
def test_the_other_protocols_are_validated_by_events_of_their_own(
    shop: Shop, protocol: str
) -> None:
    done = shop.tune(*FAST, "--protocol", protocol)
    assert done["training"]["protocol"] == (protocol if protocol == "loo" else None)
    assert done["validation"]["before"]["targets"] == 60


def test_training_ends_when_validation_has_not_risen_and_keeps_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stub:
        def __init__(self) -> None:
            self.weights = [torch.nn.Parameter(torch.zeros(1))]

        def batches(self, random: np.random.Generator) -> Any:
            return iter([np.zeros(0, np.int64)] * 100)

    learner: Any = Stub()
    task: Any = Stub()
    values = iter([0.2, 0.6, 0.4, 0.5, 0.9])

    def step(*_: Any) -> float:
        with torch.no_grad():
            learner.weights[0] += 1.0
        return 0.5

    monkeypatch.setattr("indexer.finetune.fit._step", step)
    options = FitOptions(1e-3, steps=50, epochs=10, patience=2)
    told: list[tuple[int, float, float, float]] = []
    fitted = fit(
        learner, task, [], lambda: next(values), 0.5, options, report=lambda *e: told.append(e)
    )
    assert [line.validation for line in fitted.curve] == [0.2, 0.6, 0.4, 0.5]
    assert fitted.best_epoch == 2
    assert learner.weights[0].tolist() == [10.0]
    assert told[-1] == (4, 1.0, 0.5, 0.6)


def opinions(count: int, users: int = 40) -> list[dict[str, Any]]:
    """Return ratings: every user likes one group of items and dislikes the other."""
    random = np.random.default_rng(0)
    events = []
    for n in range(count):
        user, item = int(random.integers(users)), int(random.integers(ITEMS))
        events.append(
            {
                "user_id": f"u{user}", "item_id": f"i{item}", "kind": "rate",
                "value": 5.0 if (user + item) % 2 else 2.0, "timestamp": 1.7e9 + n * 60.0,
            }
        )  # fmt: skip
    return events


def test_what_users_take_to_is_told_better_afterwards(tmp_path: Path, model: Path) -> None:
    shop = Shop(tmp_path, model, opinions(1500))
    done = shop.tune("--objective", "click", "--method", "whole", *FAST[:4])
    before, after = done["validation"]["before"], done["validation"]["after"]
    assert done["measure"] == "auc"
    assert done["objective"] == "click"
    assert before["events"] == 150
    assert after["auc"] > before["auc"] + 0.02
    assert after["log_loss"] < before["log_loss"]


@pytest.mark.parametrize(
    ("events", "arguments", "message"),
    [
        (likes(50, item="other{n}"), (), "none of the 50 events is of an item of the catalogue"),
        (likes(400, user="one"), (), "of 1 users; pairs of at least 2 users are needed"),
        (likes(11, step=4e6), (), "0 pairs of items chosen near each other"),
        (likes(400, item="i0"), (), "0 pairs of items chosen near each other"),
        (likes(60), (), "6 events to validate by; at least 20 are needed"),
        (likes(50), ("--core", "50"), "no user and item has 50 events or more"),
        ([], (), "no event that can be used"),
    ],
)
def test_events_that_teach_nothing_are_refused_in_one_line(
    tmp_path: Path, model: Path, events: list[Any], arguments: tuple[str, ...], message: str
) -> None:
    shop = Shop(tmp_path, model, events)
    refused = shop.run(*arguments, code=REFUSED).stderr
    assert message in refused.splitlines()[-1]
    assert not shop.to.exists()


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (likes(400), "to learn from: 0 negative of 320 labelled events"),
        (opinions(400), "to validate by: "),
    ],
)
def test_labels_of_one_class_or_too_few_are_refused(
    tmp_path: Path, model: Path, events: list[Any], message: str
) -> None:
    shop = Shop(tmp_path, model, events)
    refused = shop.run("--objective", "click", code=REFUSED).stderr
    assert message in refused
    assert "at least 50 of each class are needed" in refused
    assert not shop.to.exists()


def test_a_catalogue_of_one_item_or_without_texts_is_refused(tmp_path: Path, model: Path) -> None:
    shop = Shop(tmp_path, model, likes(400))
    write_items(tmp_path, 1)
    assert "the catalogue has one text" in shop.run(code=REFUSED).stderr
    shop.items.write_text('{"item_id": "a", "text": " "}\n')
    assert "1 of 1 items have no text" in shop.run(code=BAD_ITEMS).stderr


def test_without_peft_the_extra_is_named(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    refused = shop.run("--method", "lora", code=REFUSED).stderr
    assert "install the extra `train`, or choose --method top" in refused


def test_a_model_that_is_not_there_is_named(shop: Shop) -> None:
    shop.model = Path("/no/such/model")
    assert "/no/such/model: no such folder" in shop.run(code=REFUSED).stderr
