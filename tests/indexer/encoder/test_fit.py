"""Training of the user encoder in a world whose next item is known."""

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from indexer.encoder.checkpoint import CheckpointError
from indexer.encoder.fit import Course, Fitted, fit_encoder, rate_of
from indexer.encoder.learner import EncoderOptions, Learner, Report, Trained
from indexer.encoder.scores import Items, catalogue_table, known_items, user_vectors, validate
from indexer.encoder.sequences import Sequences, batches, windows
from indexer.encoder.trend import Trend
from tracker.encoder.user_encoder import EncoderConfig, UserEncoder

pytestmark = pytest.mark.training

CPU = torch.device("cpu")
ITEMS = 12
OPTIONS = EncoderOptions(epochs=4, batch_events=64, learning_rate=1e-2, patience=4, repeats=True)
CONFIG = EncoderConfig(dim=16, text_dim=ITEMS, ids=ITEMS, dropout=0.0)


def world(users: int = 40, length: int = 12) -> tuple[Sequences, Items]:
    """Every user goes round the items from a start of their own; texts are one-hot."""
    rows = (np.arange(length) + np.arange(users)[:, None]).ravel() % ITEMS
    events = len(rows)
    gaps = np.full((users, length), 60.0, np.float32)
    gaps[:, 0] = -1.0
    times = (np.arange(length) * 60.0 + np.zeros((users, 1))).ravel()
    ids, born = known_items(rows, times, ITEMS)
    sequences = Sequences(
        starts=np.arange(users + 1) * length,
        rows=rows,
        ids=ids[rows],
        kinds=np.zeros(events, np.int64),
        scenes=np.zeros(events, np.int64),
        values=np.zeros((events, 2), np.float32),
        gaps=gaps.ravel(),
        times=times,
        positions=np.arange(events),
        targets=np.ones(events, bool),
        attributes=np.zeros((users, 0), np.int64),
    )
    return sequences, Items(np.eye(ITEMS, dtype=np.float32), ids, born)


def parts(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Everything but each user's last event, and those."""
    train = np.ones(len(sequences.rows), bool)
    train[sequences.starts[1:] - 1] = False
    return train, np.flatnonzero(~train)


@pytest.mark.parametrize("cell", ["gru", "lstm", "linear"])
def test_the_next_item_of_a_known_world_is_learned(cell: str) -> None:
    sequences, items = world()
    train, validation = parts(sequences)
    found = fit_encoder(
        sequences,
        items,
        msgspec.structs.replace(CONFIG, cell=cell),
        train,
        validation,
        OPTIONS,
        device=CPU,
    )
    table, biases = catalogue_table(found.model, items)
    queries = torch.from_numpy(user_vectors(found.model, sequences, table, validation))
    best = (queries @ table.T + biases).argmax(dim=1).numpy()
    assert np.mean(best == sequences.rows[validation]) > 0.9
    assert found.curve[-1].loss < found.curve[0].loss / 2


def test_a_seed_fixes_the_training() -> None:
    sequences, items = world(10)
    train, validation = parts(sequences)
    options = msgspec.structs.replace(OPTIONS, epochs=2)
    first, second, third = (
        fit_encoder(
            sequences,
            items,
            CONFIG,
            train,
            validation,
            msgspec.structs.replace(options, seed=seed),
            device=CPU,
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.model.id_vectors, second.model.id_vectors)
    assert not torch.equal(first.model.id_vectors, third.model.id_vectors)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    sequences, items = world(10)
    train, validation = parts(sequences)
    options = msgspec.structs.replace(OPTIONS, epochs=5)

    class PowerCutError(Exception):
        pass

    def cut(epoch: int, share: float, loss: float, ndcg: float) -> None:
        if epoch == 4:
            raise PowerCutError

    def fit(checkpoint: Path | None, report: Report | None = None) -> Fitted:
        return fit_encoder(
            sequences,
            items,
            CONFIG,
            train,
            validation,
            options,
            device=CPU,
            course=Course(checkpoint=checkpoint, report=report),
        )

    whole = fit(None)
    path = tmp_path / "training.safetensors"
    with pytest.raises(PowerCutError):
        fit(path, cut)
    resumed = fit(path)
    assert [line.epoch for line in resumed.curve] == [1, 2, 3, 4, 5]
    assert resumed.best_epoch == whole.best_epoch
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_the_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    sequences, items = world(4)
    train, validation = parts(sequences)
    path = tmp_path / "training.safetensors"

    def fit(options: EncoderOptions) -> None:
        course = Course(checkpoint=path)
        fit_encoder(sequences, items, CONFIG, train, validation, options, device=CPU, course=course)

    options = msgspec.structs.replace(OPTIONS, epochs=1)
    fit(options)
    with pytest.raises(CheckpointError, match=r"another training.*remove .*to start anew"):
        fit(msgspec.structs.replace(options, learning_rate=0.5))
    path.write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        fit(options)


def test_training_stops_when_validation_no_longer_rises() -> None:
    sequences, items = world(6)
    train, validation = parts(sequences)
    options = msgspec.structs.replace(OPTIONS, epochs=10, patience=2, learning_rate=0.0)
    found = fit_encoder(sequences, items, CONFIG, train, validation, options, device=CPU)
    assert (found.best_epoch, len(found.curve)) == (1, 3)


def test_a_refit_without_validation_runs_all_epochs() -> None:
    sequences, items = world(6)
    none = np.zeros(0, np.int64)
    every = np.ones(len(sequences.rows), bool)
    options = msgspec.structs.replace(OPTIONS, epochs=2)
    found = fit_encoder(sequences, items, CONFIG, every, none, options, device=CPU)
    assert (found.best_epoch, len(found.curve)) == (2, 2)
    assert math.isnan(found.curve[0].validation_ndcg_at_10)


def test_a_refit_goes_on_from_the_weights_of_the_fit_and_knows_more_items() -> None:
    sequences, items = world(6)
    none = np.zeros(0, np.int64)
    every = np.ones(len(sequences.rows), bool)
    known = msgspec.structs.replace(CONFIG, ids=ITEMS - 2)
    ids = np.where(items.ids <= ITEMS - 2, items.ids, 0)
    fewer = replace(sequences, ids=ids[sequences.rows])
    first = fit_encoder(fewer, replace(items, ids=ids), known, every, none, OPTIONS, device=CPU)
    still = msgspec.structs.replace(OPTIONS, epochs=1, learning_rate=0.0, weight_decay=0.0)
    course = Course(start=first.trained)
    again = fit_encoder(sequences, items, CONFIG, every, none, still, device=CPU, course=course)
    before, after = first.model.state_dict(), again.model.state_dict()
    assert torch.equal(after["id_vectors"][: ITEMS - 1], before["id_vectors"])
    assert torch.equal(after["fade"], before["fade"])
    assert torch.equal(after["id_bias"][-2:], before["id_bias"][1:].mean().expand(2))


def test_the_trend_beside_it_leaves_less_for_the_encoder_to_learn() -> None:
    sequences, items = world(20)
    train, validation = parts(sequences)
    trend = Trend(sequences.rows, sequences.times, ITEMS)
    found = fit_encoder(
        sequences, items, CONFIG, train, validation, OPTIONS, device=CPU, trend=trend
    )
    added = found.trend_scores(sequences.times[:2], np.arange(ITEMS))
    weights = found.trained.trend_weights.detach().numpy()
    expected = np.tensordot(weights, trend.at(sequences.times[:2], np.arange(ITEMS)), axes=1)
    np.testing.assert_allclose(added.detach().numpy(), expected, rtol=1e-5)
    assert max(line.validation_ndcg_at_10 for line in found.curve) > 0.9


def test_an_epoch_takes_a_bounded_number_of_events() -> None:
    sequences, items = world(40)
    every = np.ones(len(sequences.rows), bool)
    options = msgspec.structs.replace(OPTIONS, epoch_events=120)
    learner = Learner(Trained(UserEncoder(CONFIG)), sequences, items, every, options, CPU)
    chosen = windows(sequences, every, 200)
    drawn = [learner.part(chosen, np.random.default_rng(seed)) for seed in (0, 1)]
    assert [len(some) for some in drawn] == [10, 10]
    assert drawn[0] != drawn[1]


def test_the_learning_rate_falls_from_epoch_to_epoch() -> None:
    rates = [rate_of(epoch, OPTIONS) for epoch in range(1, OPTIONS.epochs + 1)]
    assert rates[0] == OPTIONS.learning_rate
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0.0


def test_nothing_to_learn_from_is_said() -> None:
    sequences, items = world(2)
    nothing = np.zeros(len(sequences.rows), bool)
    with pytest.raises(ValueError, match="no positive event of a known item"):
        fit_encoder(sequences, items, CONFIG, nothing, np.array([5]), OPTIONS, device=CPU)


def test_sampled_softmax_has_the_full_sum_as_its_mean() -> None:
    sequences, items = world(4)
    options = msgspec.structs.replace(OPTIONS, full_up_to=0, sampled=6)
    torch.manual_seed(0)
    model = Trained(UserEncoder(CONFIG))
    train = np.ones(len(sequences.rows), bool)
    learner = Learner(model, sequences, items, train, options, CPU)
    scores = torch.randn(ITEMS)
    total = torch.zeros(())
    draws = 4000
    for _ in range(draws):
        columns, others, correction = learner._columns(torch.tensor([[3, 1, 0]]))
        assert correction is not None
        assert {0, 2} <= set(columns.tolist())  # the events' own items are always there
        total += torch.exp(scores[columns[others]] + correction).sum()
    assert total.item() / draws == pytest.approx(torch.exp(scores).sum().item(), rel=0.05)


def test_sampled_softmax_learns_the_known_world_too() -> None:
    sequences, items = world()
    train, validation = parts(sequences)
    options = msgspec.structs.replace(OPTIONS, full_up_to=0, sampled=8)
    found = fit_encoder(sequences, items, CONFIG, train, validation, options, device=CPU)
    assert max(line.validation_ndcg_at_10 for line in found.curve) > 0.9  # .4 by chance


def test_a_step_of_the_sampled_softmax_does_not_grow_with_the_items() -> None:
    sequences, items = world(4)
    options = msgspec.structs.replace(OPTIONS, full_up_to=0, sampled=3)
    train = np.ones(len(sequences.rows), bool)
    learner = Learner(Trained(UserEncoder(CONFIG)), sequences, items, train, options, CPU)
    columns, others, _ = learner._columns(torch.tensor([[3, 1, 0]]))
    assert len(others) <= 3
    assert len(columns) <= 3 + 2


def test_user_vectors_come_from_what_was_before_the_event() -> None:
    sequences, items = world(3)
    model = UserEncoder(CONFIG).eval()
    table, _ = catalogue_table(model, items)
    places = np.array([30, 5, 12])
    before = user_vectors(model, sequences, table, places)
    sequences.rows[places] = 0  # neither the target nor what follows may be seen
    sequences.rows[-5:] = 1
    assert np.array_equal(user_vectors(model, sequences, table, places), before)
    split = np.concatenate(
        [user_vectors(model, sequences, table, places[i : i + 1]) for i in range(3)]
    )
    np.testing.assert_allclose(split, before, atol=1e-5)


def test_ties_count_half_and_seen_items_are_out() -> None:
    sequences, items = world(2)
    model = UserEncoder(CONFIG).eval()
    with torch.no_grad():  # all scores equal: the rank is the middle of what was not seen
        for parameter in model.parameters():
            parameter.zero_()
    places = np.array([1, 11])
    hit, ndcg = validate(model, sequences, items, places, repeats=False)
    ranks = np.array([1 + 10 / 2, 1.0])  # 11 candidates, then the last one left
    assert hit == 1.0
    assert ndcg == pytest.approx(np.mean(1 / np.log2(1 + ranks)))
    assert validate(model, sequences, items, places, repeats=True)[0] == 1.0
    assert all(math.isnan(x) for x in validate(model, sequences, items, places[:0], repeats=True))


def test_windows_overlap_by_one_event_and_every_event_is_a_target_once() -> None:
    sequences, _ = world(3, 11)
    train, _ = parts(sequences)
    found = windows(sequences, train, 4)
    assert [(w.begin, w.end, w.skip) for w in found[:3]] == [(0, 4, 0), (3, 8, 1), (7, 10, 1)]
    targets = [
        int(place)
        for batch in batches(sequences, found, 12, np.random.default_rng(0))
        for place in batch.places[batch.targets]
    ]
    assert sorted(targets) == np.flatnonzero(train).tolist()


def test_a_window_ends_before_the_first_event_that_is_left_out() -> None:
    sequences, _ = world(2, 6)
    train = np.ones(len(sequences.positions), np.bool_)
    train[sequences.positions[3]] = False  # as a validation target with a view after it
    assert [(w.user, w.begin, w.end) for w in windows(sequences, train, 10)] == [
        (0, 0, 3),
        (1, 6, 12),
    ]


def test_born_is_the_first_event_and_ids_are_those_met() -> None:
    ids, born = known_items(np.array([4, -1, 2, 4]), np.array([9.0, 1.0, 3.0, 7.0]), 5)
    assert ids.tolist() == [0, 0, 1, 0, 2]
    assert born.tolist() == [math.inf, math.inf, 3.0, math.inf, 7.0]
