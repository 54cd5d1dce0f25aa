"""UserEncoder: one event at a time is the whole history, and what is unknown is safe."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from tracker.encoder.cells import CellName, linear_scan, make_cell
from tracker.encoder.user_encoder import (
    EncoderConfig,
    EncoderFileError,
    StepInputs,
    UserEncoder,
    attribute_code,
    code_rows,
    id_rows,
    load_encoder,
    save_encoder,
    scale_values,
)

CELLS: tuple[CellName, ...] = ("gru", "lstm", "linear")
HALF_LOSS = 0.02
"""Stated: how far an output (components of size 1) strays when each step rounds to float16."""


def config(cell: CellName = "gru") -> EncoderConfig:
    return EncoderConfig(
        cell=cell,
        dim=16,
        text_dim=12,
        ids=5,
        kinds=(11, 22),
        values=((3.0, 1.0), (0.0, 2.0)),
        scenes=(7, 8, 9),
        attributes=(100, 200),
    )


def encoder(cell: CellName = "gru", seed: int = 0) -> UserEncoder:
    torch.manual_seed(seed)
    model = UserEncoder(config(cell)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # nothing may hide behind a start at zero
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def events(model: UserEncoder, users: int, length: int, seed: int = 0) -> StepInputs:
    generator = torch.Generator().manual_seed(seed)
    shape = (users, length)
    gaps = torch.exp(torch.rand(shape, generator=generator) * 18.0)
    gaps[:, 0] = -1.0
    return StepInputs(
        torch.randn(*shape, model.dim, generator=generator),
        torch.randint(0, 3, shape, generator=generator),
        torch.randint(0, 4, shape, generator=generator),
        torch.randn(*shape, 2, generator=generator),
        gaps,
    )


def at(found: StepInputs, step: int) -> StepInputs:
    return StepInputs(*(column[:, step] for column in found))


@pytest.mark.parametrize("cell", CELLS)
@given(
    length=st.integers(1, 40),
    users=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None)
def test_step_by_step_is_the_whole_history(
    cell: CellName, length: int, users: int, seed: int
) -> None:
    model = encoder(cell, seed)
    found = events(model, users, length, seed)
    lengths = torch.from_numpy(np.random.default_rng(seed).integers(0, length + 1, users))
    with torch.no_grad():
        outputs, ends = model(model.start(users), found, lengths)
        state = model.start(users)
        for step in range(length):
            after = model.step(state, at(found, step))
            inside = (step < lengths).unsqueeze(1)
            error = (after[:, -model.dim :] - outputs[:, step])[inside.expand(-1, model.dim)]
            assert error.abs().max().item() < 1e-5 if len(error) else True
            state = torch.where(inside, after, state)
    torch.testing.assert_close(state, ends, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_a_history_cut_anywhere_goes_on_from_its_state(cell: CellName) -> None:
    model = encoder(cell)
    found = events(model, 3, 20)
    lengths = torch.tensor([20, 20, 20])
    with torch.no_grad():
        _, whole = model(model.start(3), found, lengths)
        for cut in (1, 7, 19):
            first = StepInputs(*(column[:, :cut] for column in found))
            rest = StepInputs(*(column[:, cut:] for column in found))
            _, state = model(model.start(3), first, torch.full((3,), cut))
            _, state = model(state, rest, lengths - cut)
            torch.testing.assert_close(state, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_states_rounded_to_float16_at_every_step_stay_within_the_stated_loss(
    cell: CellName,
) -> None:
    model = encoder(cell)
    found = events(model, 8, 300)
    with torch.no_grad():
        outputs, _ = model(model.start(8), found, torch.full((8,), 300))
        state = model.start(8)
        worst = 0.0
        for step in range(300):
            state = model.step(state.half().float(), at(found, step))
            error = state[:, -model.dim :].half().float() - outputs[:, step]
            worst = max(worst, error.abs().max().item())
    assert 0.0 < worst < HALF_LOSS


@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_is_its_users_one_by_one(cell: CellName) -> None:
    model = encoder(cell)
    found = events(model, 6, 9)
    lengths = torch.tensor([9, 1, 0, 4, 9, 2])
    with torch.no_grad():
        _, together = model(model.start(6), found, lengths)
        for user in range(6):
            one = StepInputs(*(column[user : user + 1] for column in found))
            _, alone = model(model.start(1), one, lengths[user : user + 1])
            torch.testing.assert_close(together[user : user + 1], alone, atol=1e-5, rtol=1e-5)


def test_a_user_without_events_keeps_the_start_and_has_a_query() -> None:
    model = encoder()
    with torch.no_grad():
        _, state = model(model.start(1), events(model, 1, 4), torch.tensor([0]))
        query = model.query(state[:, -model.dim :], torch.tensor([-1.0]), torch.tensor([0.0]))
    assert torch.equal(state, model.start(1))
    assert bool(torch.isfinite(query).all())


def test_interest_moves_on_while_nothing_happens() -> None:
    model = encoder()
    with torch.no_grad():
        outputs, _ = model(model.start(1), events(model, 1, 4), torch.tensor([4]))
        now, hour, week = (
            model.query(outputs[:, -1], torch.tensor([idle]), torch.tensor([4.0]))
            for idle in (0.0, 3600.0, 604800.0)
        )
        nearly = model.query(outputs[:, -1], torch.tensor([3601.0]), torch.tensor([4.0]))
    assert not torch.allclose(now, hour, atol=1e-3)
    assert not torch.allclose(hour, week, atol=1e-3)
    torch.testing.assert_close(hour, nearly, atol=1e-3, rtol=0)  # without steps between buckets


def test_attributes_give_a_new_user_a_start_and_fade_with_events() -> None:
    model = encoder()
    outputs = torch.randn(1, model.dim)
    attributes = torch.tensor([[1, 2, 0]])
    idle = torch.tensor([60.0])
    added = []
    with torch.no_grad():
        for count in (0.0, 5.0, 500.0):
            events_before = torch.tensor([count])
            with_them = model.query(outputs, idle, events_before, attributes)
            without = model.query(outputs, idle, events_before)
            added.append((with_them - without).norm().item())
        nothing_known = model.query(outputs, idle, torch.tensor([0.0]), torch.tensor([[0, 0, 0]]))
        without = model.query(outputs, idle, torch.tensor([0.0]))
    assert added[0] > added[1] > added[2] > 0.0
    assert added[2] < 0.05 * added[0]
    assert torch.equal(nothing_known, without)


def test_an_unknown_item_has_the_vector_of_its_text_and_the_mean_bias() -> None:
    model = encoder()
    texts = torch.nn.functional.normalize(torch.randn(3, 12), dim=-1)
    texts[2] = 0.0
    with torch.no_grad():
        projected = model.project(texts)
        vectors, biases = model.item_table(projected, torch.tensor([1, 0, 0]))
    torch.testing.assert_close(vectors[0], projected[0] + model.id_vectors[1])
    assert torch.equal(vectors[1], projected[1])
    assert torch.equal(vectors[2], torch.zeros(16))  # neither text nor id
    torch.testing.assert_close(biases[1], model.id_bias[1:].mean())


def test_an_encoder_that_knows_no_item_still_has_a_table() -> None:
    model = UserEncoder(EncoderConfig(dim=8, text_dim=4)).eval()
    vectors, biases = model.item_table(model.project(torch.randn(2, 4)), torch.tensor([0, 0]))
    assert bool(torch.isfinite(vectors).all())
    assert bool(torch.isfinite(biases).all())


def test_unknown_codes_share_row_0() -> None:
    assert code_rows(np.array([[22, 5], [11, 0]], np.uint16), (11, 22)).tolist() == [[2, 0], [1, 0]]
    assert code_rows(np.array([2**32 - 1], np.uint32), (2**32 - 1,)).tolist() == [1]
    assert code_rows(np.array([3]), ()).tolist() == [0]
    assert attribute_code("age", "1") != attribute_code("ag", "e1")


def test_items_find_their_id_rows_by_hash_in_any_catalogue() -> None:
    known = np.array([2**64 - 1, 5, 2**63], np.uint64)
    catalogue = np.array([5, 6, 2**63, 2**64 - 1, 1], np.uint64)
    assert id_rows(catalogue, known).tolist() == [2, 0, 3, 1, 0]
    assert id_rows(catalogue, known[:0]).tolist() == [0] * 5


def test_values_are_deviations_of_their_kind_and_cut() -> None:
    values = np.array([4.0, np.nan, 1000.0, 1.0, np.inf], np.float32)
    scaled = scale_values(values, np.array([1, 1, 2, 0, 1]), config())
    assert scaled.tolist() == [[1, 1], [0, 0], [1, 3], [1, 1], [0, 0]]


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_the_parallel_scan_is_the_loop(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    keep = torch.rand(2, length, 3, generator=generator, dtype=torch.float64)
    add = torch.randn(2, length, 3, generator=generator, dtype=torch.float64)
    state = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    found = linear_scan(keep, add, state)
    for step in range(length):
        state = keep[:, step] * state + add[:, step]
        torch.testing.assert_close(found[:, step], state, atol=1e-12, rtol=1e-12)


def test_a_cell_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'tree'; expected gru, lstm or linear"):
        make_cell("tree", 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", CELLS)
def test_the_file_gives_back_the_same_encoder(cell: CellName, tmp_path: Path) -> None:
    model = encoder(cell)
    hashes = np.array([9, 2, 3, 2**63 + 5, 2**64 - 1], np.uint64)
    save_encoder(model, hashes, tmp_path / "encoder.safetensors")
    again, found = load_encoder(tmp_path / "encoder.safetensors")
    assert again.config == model.config
    assert found.tolist() == hashes.tolist()
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(EncoderFileError, match=r"encoder\.safetensors: not a user encoder"):
        load_encoder(path)
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00not json")
    with pytest.raises(EncoderFileError, match="not a user encoder"):
        load_encoder(path)
    save_file({"weight": torch.zeros(2)}, path, {"config": "{}"})
    with pytest.raises(EncoderFileError, match="not a user encoder: 'id_hashes'"):
        load_encoder(path)
    save_file({"id_hashes": torch.zeros(0, dtype=torch.int64)}, path, {"config": "{}"})
    with pytest.raises(EncoderFileError, match="weights are not those of its configuration"):
        load_encoder(path)
    with pytest.raises(EncoderFileError, match="format 2; expected 1"):
        UserEncoder(EncoderConfig(format=2))
    for field in ("ids", "dim", "text_dim"):  # of an encoder that no memory holds
        save_encoder(encoder(), np.arange(5, dtype=np.uint64), path)
        with safe_open(path, "pt") as file:
            asking = msgspec.json.decode(file.metadata()["config"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        asking[field] = 10**12
        save_file(tensors, path, {"config": msgspec.json.encode(asking).decode()})
        with pytest.raises(EncoderFileError, match="weights are not those of its configuration"):
            load_encoder(path)


def test_hashes_that_do_not_fit_the_encoder_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 id hashes, 1 of them different, for 5 ids"):
        save_encoder(encoder(), np.array([3], np.uint64), tmp_path / "x")
    with pytest.raises(ValueError, match="4 of them different"):
        save_encoder(encoder(), np.array([3, 2, 1, 5, 5], np.uint64), tmp_path / "x")
