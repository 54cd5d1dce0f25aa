"""What a text encoder is worth, against the baseline and by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.data.catalog import Item
from indexer.evaluate.baselines import Content
from indexer.evaluate.metrics import hit_rate_at_k, ndcg_at_k, rank_of
from indexer.evaluate.targets import TargetBatch
from indexer.finetune.click import Head, LabelledTexts, Labels, columns, fit_head
from indexer.finetune.data import Choices, Texts, part, rows_of
from indexer.finetune.scores import NextItems
from indexer.finetune.tasks import CoInterest, Space
from indexer.items.whitening import Whitening, fit_whitening
from tests.logs import group_events, read_events

ITEMS = 40


def next_items(folder: Path, *, repeats: bool) -> NextItems:
    log = read_events(folder, group_events(users=20, items=ITEMS, each=12))
    items = [Item(f"i{n}", text=f"t{n // 2}") for n in range(ITEMS)]  # two of each text
    rows = rows_of(log, items)
    random = np.random.default_rng(0)
    return NextItems.of(log, rows, part(log, "gts"), Texts.of(items), repeats, 1000, random)


def encodings(count: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, width)).astype(np.float16)


@pytest.mark.parametrize("repeats", [False, True])
def test_the_next_item_is_ranked_as_the_baseline_ranks_it(tmp_path: Path, repeats: bool) -> None:
    asked = next_items(tmp_path, repeats=repeats)
    found = asked.scores(encodings(ITEMS // 2))
    vectors = fit_whitening(encodings(ITEMS // 2)).apply(encodings(ITEMS // 2))[asked.items]
    past = np.concatenate(asked.past)
    starts = np.r_[0, np.cumsum([len(own) for own in asked.past])]
    content = Content(vectors).scores(TargetBatch(asked.targets, asked.targets, past, starts))
    ranks = np.array(
        [
            rank_of(scores, int(target), None if repeats else own)
            for scores, target, own in zip(content, asked.targets, asked.past, strict=True)
        ]
    )
    assert len(ranks) == found["targets"] == 24
    assert found["hit_rate_at_10"] == hit_rate_at_k(ranks, 10)
    assert found["ndcg_at_10"] == pytest.approx(ndcg_at_k(ranks, 10))
    cold = ranks[asked.cold]
    assert len(cold) == found["cold_targets"]


def test_a_sample_keeps_so_many_items_and_the_targets_among_them(tmp_path: Path) -> None:
    asked = next_items(tmp_path, repeats=False)
    few = asked.sample(30, np.random.default_rng(0))
    assert len(few.items) <= 30
    assert 0 < len(few.targets) <= len(asked.targets)
    assert max(few.targets) < len(few.items)
    assert all((past >= 0).all() and len(past) >= 1 for past in few.past)
    assert few.texts[few.items].max() < ITEMS // 2
    assert few.scores(encodings(len(few.texts)))["targets"] == len(few.targets)
    assert asked.sample(ITEMS, np.random.default_rng(0)) is asked


def plain_space(width: int) -> Space:
    return Space(Whitening(np.zeros(width, np.float32), np.eye(width, dtype=np.float32)), "cpu")


def test_the_loss_of_a_pair_is_a_softmax_against_what_its_user_did_not_choose() -> None:
    frequency = np.array([0.1, 0.2, 0.3, 0.4])
    choices = Choices(np.array([0, 0, 1]), np.array([0, 1, 2]), np.zeros(3), frequency)
    task = CoInterest(choices, plain_space(3), 3, 0.5)
    places = np.arange(3)
    assert task.texts(places).tolist() == [0, 1, 2]
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1]]))
    cosines = (vectors @ vectors.T).numpy() / 0.5
    inclusion = 1.0 - (1.0 - 0.3) ** 3  # of text 2, the only negative of both sides
    both = [
        np.log(np.exp(cosines[0, 1]) + np.exp(cosines[one, 2]) / inclusion) - cosines[0, 1]
        for one in (0, 1)
    ]
    assert float(task.loss(places, vectors)) == pytest.approx(np.mean(both), rel=1e-5)


def test_a_batch_without_pairs_or_of_one_user_teaches_nothing_and_breaks_nothing() -> None:
    frequency = np.full(3, 1 / 3)
    for users, texts in (([0, 1], [0, 1]), ([0, 0], [0, 1]), ([0, 0], [1, 1])):
        choices = Choices(np.array(users), np.array(texts), np.zeros(2), frequency)
        task = CoInterest(choices, plain_space(3), 2, 0.5)
        vectors = torch.eye(3)[: len(set(texts))].requires_grad_()
        loss = task.loss(np.arange(2), vectors)
        loss.backward()  # type: ignore[no-untyped-call]
        assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
        assert vectors.grad is not None
        assert vectors.grad.abs().max() < 1e-6


def labelled(count: int = 400, texts: int = 20) -> LabelledTexts:
    """Users like the texts of their own parity, as one item that they liked before tells."""
    random = np.random.default_rng(0)
    users = random.integers(30, size=count)
    items = random.integers(texts, size=count)
    liked = np.full((count, 8), -1)
    liked[:, 0] = users % 2
    disliked = np.full((count, 8), -1)
    return LabelledTexts(users, items, liked, disliked, items % 2 == users % 2)


@pytest.mark.xdist_group("slow to load")  # in one process only
def test_a_head_reads_the_item_and_what_was_liked() -> None:
    events = labelled()
    vectors = torch.zeros(20, 4)
    vectors[0::2, 0], vectors[1::2, 1] = 1.0, 1.0
    inputs = columns(vectors, events)
    assert inputs.shape == (400, 8)
    same = torch.from_numpy(events.positive)
    assert inputs[same, 4].tolist() == [4.0] * int(same.sum())
    assert inputs[~same, 4].abs().max() == 0.0
    assert (inputs[:, 5] == 0.0).all()  # nothing was disliked
    with torch.no_grad():
        logits = fit_head(vectors, events)(vectors, events)
    assert ((logits > 0) == same).all()


@pytest.mark.xdist_group("slow to load")
def test_labels_are_told_by_a_head_or_by_that_of_a_lesson() -> None:
    events = labelled()
    train, later = events.take(np.arange(300)), events.take(np.arange(300, 400))
    asked = Labels.of(train, later, 20, 50, 1000, np.random.default_rng(0))
    made = np.zeros((20, 4), np.float16)
    made[0::2, 0], made[1::2, 1] = 1.0, 1.0
    made += encodings(20, 4) * np.float16(0.01)
    found = asked.scores(made)
    assert found["events"] == 50
    assert found["auc"] > 0.9
    blind = asked.sample(10, plain_space(4), Head(4), np.random.default_rng(0))
    assert len(blind.texts) <= 10
    assert 0 < len(blind.later) < 50
    told = blind.scores(made[np.searchsorted(asked.texts, blind.texts)])
    assert told["auc"] == 0.5
    assert told["log_loss"] == pytest.approx(np.log(2.0))
    fewer = Labels.of(train, later, 20, 50, 12, np.random.default_rng(0))
    assert len(fewer.texts) == 12
    assert len(fewer.later) < 50
