"""Tower: the user encoder over rows and items, chunk by chunk as one event after another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.items.tower_items import FittedTower, make_tower, moved_tower
from tests.worlds import DAY, START, World, checkerboard, likes
from tracker.artifact.artifact import Artifact
from tracker.artifact.models import Models
from tracker.artifact.tower_files import TowerFileError, read_tower, write_tower
from tracker.encoder import tower as tower_module
from tracker.encoder.interests import interest_names, read_interests
from tracker.encoder.scene_attention import SceneAttention, SceneAttentionConfig
from tracker.encoder.tower import Tower
from tracker.encoder.tower_info import UserAttributes
from tracker.encoder.user_encoder import EncoderConfig, UserEncoder
from tracker.events.wire import hash_id, kind_code, scene_code
from tracker.items.vectors import ItemVectors
from tracker.recommend.recommender import Recommender
from tracker.scoring.context import C_ENCODER
from tracker.users.rows import RequestBatch

ITEMS = 40
HALF_LOSS = 0.02


def fitted(
    *,
    scenes: bool = False,
    attributes: bool = False,
    seed: int = 0,
    ring: int = 28,
    text_dim: int = 32,
) -> FittedTower:
    torch.manual_seed(seed)
    config = EncoderConfig(
        dim=8, text_dim=text_dim, ids=10, kinds=(kind_code("like"),), values=((0.0, 1.0),),
        scenes=(scene_code("home"),), attributes=(100, 200) if attributes else (),
    )  # fmt: skip
    model = UserEncoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    attention = None
    if scenes:
        names = interest_names(World(ITEMS).config)
        attention = SceneAttention(
            SceneAttentionConfig(8, 16, names, (scene_code("home"), scene_code("cart")))
        ).eval()
        with torch.no_grad():
            for parameter in attention.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.3)
    known = UserAttributes.none()
    if attributes:
        hashes = np.sort(np.array([hash_id("u0"), hash_id("u1")], np.uint64))
        known = UserAttributes(hashes, np.array([[1, 0], [2, 1]], np.int32))
    ids = np.array([hash_id(f"i{number}") for number in range(10)], np.uint64)
    return FittedTower(model, ids, attention, known, {"epochs": 3.0})


def world_with(found: FittedTower, **interest: Any) -> World:
    """A world whose artifact has the tower."""
    world = World(ITEMS, **interest)
    tower = make_tower(found, world.items)
    world.artifact = replace(world.artifact, models=Models(tower=tower))
    world.recommender = Recommender(world.artifact, world.view)
    return world


def tower_of(world: World) -> Tower:
    tower = world.artifact.models.tower
    assert tower is not None
    return tower


def wishes(world: World, user: int, *, now: float = START + 100.0, scene: str = "") -> Any:
    return tower_of(world).queries(named_request(world, user, now, scene))[0]


def named_request(world: World, user: int, now: float, scene: str = "") -> RequestBatch:
    """Return a request of a user with the hash of the name, under which attributes are found."""
    request = world.asked([user], now=now, scene=scene or None)
    return replace(request, hashes=np.array([hash_id(f"u{user}")], np.uint64))


@given(
    st.lists(st.integers(0, ITEMS + 1), min_size=1, max_size=24),
    st.integers(1, 9),
    st.lists(st.integers(0, 23), max_size=4),
    st.lists(st.integers(0, 23), max_size=4),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_a_chunk_is_one_event_after_another(
    items: list[int], size: int, retracted: list[int], late: list[int]
) -> None:
    found = fitted()
    one, many = (world_with(found, ring=5, ring_evict=2) for _ in range(2))
    events: list[dict[str, Any]] = []
    for n, item in enumerate(items):
        time = START + n - (7.5 if n in late else 0.0)
        events.append({"user": n % 3, "item": f"i{item}", "time": time, "id": f"e{n}"})
        if n in retracted:
            events.append({"user": n % 3, "retracts": f"e{n - 3}", "time": START + n})
    for event in events:
        one.send(event)
    for begin in range(0, len(events), size):
        many.send(*events[begin : begin + size])
    assert (one.states.hidden.astype(np.float32) == pytest.approx(
        many.states.hidden.astype(np.float32), abs=2e-3))  # fmt: skip
    assert (one.states.head["encoder"] == many.states.head["encoder"]).all()


def test_a_state_of_another_encoder_is_made_anew_from_the_ring() -> None:
    world = world_with(fitted())
    world.send(*likes(0, range(9)), *likes(1, [3, 4]))
    before = world.states.hidden.astype(np.float32)
    world.states.hidden[:] = 9.0
    world.states.head["encoder"] = 5
    slots = np.array([0, 1, 1, 2, -1])
    assert tower_of(world).carry_over(world.states, slots, world.items) == 3
    assert world.states.hidden[:3] == pytest.approx(before[:3], abs=HALF_LOSS)
    assert not world.states.hidden[2].any()
    assert (world.states.head["encoder"][:3] == tower_of(world).code).all()
    assert tower_of(world).carry_over(world.states, slots, world.items) == 0


def test_users_without_events_need_no_pass_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_with(fitted())
    world.send(*likes(0, range(3)))
    tower = tower_of(world)
    rebuild, sizes = tower.steps.rebuild, []

    def counting(rows: Any, *others: Any) -> Any:
        sizes.append(len(rows))
        return rebuild(rows, *others)

    monkeypatch.setattr(tower.steps, "rebuild", counting)
    world.states.hidden[:] = 9.0
    world.states.head["encoder"] = 5
    assert tower.carry_over(world.states, np.array([0, 1, 2]), world.items) == 3
    assert sizes == [1]
    assert not world.states.hidden[1:3].any()
    assert tower.carry_over(world.states, np.array([1, 2]), world.items) == 0
    assert sizes == [1]


def test_a_read_carries_over_and_what_is_current_stays_as_it_is() -> None:
    world = world_with(fitted())
    world.send(*likes(0, range(5)))
    kept = world.states.hidden.copy()
    world.recommend([0])
    assert (world.states.hidden == kept).all()
    world.artifact = replace(
        world.artifact, models=Models(tower=make_tower(fitted(seed=3), world.items))
    )
    world.recommender = Recommender(world.artifact, world.view)
    world.recommend([0])
    assert not (world.states.hidden[0] == kept[0]).all()
    assert world.states.head["encoder"][0] == tower_of(world).code


def test_a_retraction_leaves_the_state_as_if_the_event_had_not_come() -> None:
    one, other = world_with(fitted()), world_with(fitted())
    events = likes(0, range(4))
    one.send(events[0], {**events[1], "id": "x"}, *events[2:])
    one.send({"user": 0, "retracts": "x", "time": START + 9.0})
    other.send(events[0], *events[2:])
    assert one.states.hidden[0] == pytest.approx(other.states.hidden[0], abs=HALF_LOSS)


@given(st.permutations(range(9)), st.integers(1, 9))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_any_order_of_arrival_gives_the_same_state(order: list[int], size: int) -> None:
    found = fitted()
    in_order, shuffled = world_with(found), world_with(found)
    events = [{**like, "time": START + DAY * n} for n, like in enumerate(likes(0, range(9)))]
    in_order.send(*events)
    for begin in range(0, 9, size):
        shuffled.send(*(events[n] for n in order[begin : begin + size]))
    assert shuffled.states.hidden[0] == pytest.approx(in_order.states.hidden[0], abs=HALF_LOSS)
    assert wishes(shuffled, 0) == pytest.approx(wishes(in_order, 0), abs=5 * HALF_LOSS)


def test_an_artifact_without_an_encoder_drops_the_states() -> None:
    world = world_with(fitted())
    world.send(*likes(0, [1]))
    assert world.states.hidden.shape[1] == tower_of(world).width == 16
    world.artifact = replace(world.artifact, models=Models())
    world.recommender = Recommender(world.artifact, world.view)
    world.recommend([0])
    assert world.states.hidden.shape[1] == 0
    assert not world.states.head["encoder"].any()


def test_the_encoder_is_a_channel_of_candidates_and_a_column() -> None:
    found = fitted()
    mean = found.model.get_buffer("mean_query")
    mean.copy_(torch.randn(8))
    world = world_with(found)
    world.send(*likes(0, [1, 2]))
    tower = tower_of(world)
    scores = tower.vectors @ wishes(world, 0)
    columns = world.recommender.columns(world.asked([0], now=START + 100.0), np.arange(ITEMS)[None])
    everybodys = tower.vectors[:, :9] @ np.append(mean.numpy(), 1.0)
    assert columns[0, :, C_ENCODER] == pytest.approx(scores - everybodys, abs=1e-4)
    made = world.recommend([0], now=START + 100.0, k=ITEMS)
    from_encoder = set(made.rows[0][made.channels[0] == 6].tolist())
    best = [row for row in np.argsort(-scores, kind="stable").tolist() if row not in (1, 2)]
    assert from_encoder
    assert from_encoder <= set(best[:20])


def test_interest_moves_on_while_nothing_happens_and_nothing_is_written() -> None:
    world = world_with(fitted())
    world.send(*likes(0, [1, 2]))
    rows = world.states.pack(np.arange(2))
    hour, week = wishes(world, 0, now=START + 3600.0), wishes(world, 0, now=START + 7 * DAY)
    assert not np.allclose(hour, week)
    assert world.states.pack(np.arange(2)) == rows


def test_attributes_give_a_new_user_a_start_and_matter_less_as_events_come() -> None:
    world = world_with(fitted(attributes=True))
    tower = tower_of(world)

    def effect(user: int) -> float:
        request = named_request(world, user, START + 900.0)
        anonymous = replace(request, hashes=None)
        return float(np.abs(tower.queries(request) - tower.queries(anonymous)).sum())

    assert effect(5) == 0.0  # nothing is known of this one
    first = effect(0)
    assert first > 0.1
    world.send(*likes(0, range(12)))
    assert 0.0 < effect(0) < first / 2
    none = world.artifact.with_attributes(UserAttributes.none())
    assert len(none.models.tower.attributes.hashes) == 0  # type: ignore[union-attr]
    assert len(tower.attributes.hashes)  # the first artifact is as it was


def test_scenes_move_the_query_and_an_unseen_one_is_the_shared_one() -> None:
    world = world_with(fitted(scenes=True))
    world.send(*likes(0, [1, 2], scene="home"))
    shared, home, new = (wishes(world, 0, scene=name) for name in ("", "home", "attic"))
    assert not np.allclose(shared, home)
    assert np.array_equal(shared, new)
    interests, masses = read_interests(world.states, np.array([0, -1]), np.full(2, START + 5.0))
    assert interests.shape == (2, 12, 16)
    assert (masses[0] > 0).sum() > 4
    assert not masses[1].any()


def test_scene_queries_are_the_queries_and_there_are_none_without_attention() -> None:
    world = world_with(fitted(scenes=True))
    world.send(*likes(0, [1, 2], scene="home"))
    requests = world.asked([0, -1], now=START + 100.0, scene="home")
    made = tower_of(world).scene_queries(requests)
    assert made is not None
    assert np.array_equal(made.queries, tower_of(world).queries(requests))
    assert made.by_type.shape == (2, 6, 8)
    assert made.by_type[0].any(axis=1).all()
    assert made.by_type[1].any(axis=1).tolist() == [False] * 4 + [True, False]  # the encoder
    assert tower_of(world_with(fitted())).scene_queries(requests) is None


@pytest.mark.parametrize("rich", [False, True])
def test_a_tower_in_files_serves_as_before(rich: bool, tmp_path: Path) -> None:
    world = world_with(fitted(scenes=rich, attributes=rich))
    world.send(*likes(0, [1, 2]))
    tower = tower_of(world)
    write_tower(tmp_path, tower)
    again = read_tower(tmp_path, tower.info, ITEMS, ITEMS, 16, "auto")
    request = named_request(world, 0, START + 5.0, "home")
    assert np.array_equal(again.queries(request), tower.queries(request))
    assert np.array_equal(again.vectors, tower.vectors)
    assert again.code == tower.code


def test_files_that_are_not_what_the_manifest_says_are_refused(tmp_path: Path) -> None:
    tower = tower_of(world_with(fitted(scenes=True, attributes=True)))
    write_tower(tmp_path, tower)

    def read(**changes: Any) -> Tower:
        arguments = {"items": ITEMS, "live": ITEMS, "interest_dim": 16} | changes
        return read_tower(tmp_path, tower.info, device="cpu", **arguments)

    with pytest.raises(TowerFileError, match=r"vectors is float32 \(40, 12\).*\(41, -1\) expected"):
        read(items=41)
    with pytest.raises(TowerFileError, match="columns of its items, dim and size of its index"):
        read(live=39)
    with pytest.raises(TowerFileError, match="interests of dim 16; 9 expected"):
        read(interest_dim=9)
    for name in ("scene_attention", "user_attributes", "encoder_index", "user_encoder"):
        (path,) = tmp_path.glob(f"{name}*")
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(TowerFileError, match=name):
            read()
        path.write_bytes(content)
    assert tower.attention is not None
    weights: list[Any] = [tower.vectors]
    weights += [next(part.parameters()).data for part in (tower.model, tower.attention)]
    for tensor in weights:
        first = tensor.reshape(-1)[:1]
        value = float(first[0])
        first[0] = float("nan")
        write_tower(tmp_path, tower)
        with pytest.raises(TowerFileError, match="not all are finite; train again"):
            read()
        first[0] = value
    other = replace(tower.attributes, rows=tower.attributes.rows + 5)
    write_tower(tmp_path, tower.with_attributes(other))
    with pytest.raises(TowerFileError, match="beyond the 2 of the encoder"):
        read()


def test_a_new_catalogue_comes_into_the_same_space() -> None:
    tower = tower_of(world_with(fitted()))
    ids = [f"i{number}" for number in (3, 1, 99)]
    items = ItemVectors.make(ids, checkerboard(ITEMS)[[3, 1, 7]], 16)
    moved = moved_tower(tower, items)
    assert moved.vectors[:2] == pytest.approx(tower.vectors[[3, 1]], abs=1e-5)
    assert moved.code == tower.code
    assert moved.index.size == 3
    later = UserAttributes(np.array([hash_id("new")], np.uint64), np.array([[1]], np.int32))
    assert moved_tower(tower, items, 0.9, later).attributes is later
    assert moved_tower(tower, items, 0.9, later).info.users == 1
    assert np.abs(moved.vectors[2] - tower.vectors[7]).max() > 1e-3  # no id of its own
    with pytest.raises(ValueError, match="full width 8, an encoder of text width 32"):
        make_tower(fitted(), ItemVectors.make(["a"], np.ones((1, 8), np.float32), 4))


def test_compiled_and_plain_python_read_the_same_of_a_ring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = world_with(fitted(), ring=6, ring_evict=2)
    world.send(*likes(0, range(9)), {"user": 1, "item": "i3", "id": "x"})
    world.send({"user": 1, "retracts": "x"})
    slots = np.array([0, 1, 2])
    made = tower_module._ring_events(world.states, slots, world.items)
    assert made[5].tolist() == [5, 0, 0]
    plain = tower_module._read_rings.py_func  # type: ignore[attr-defined]
    monkeypatch.setattr(tower_module, "_read_rings", plain)
    monkeypatch.setattr(tower_module, "row_of_hash", lambda table, rows, item: int(
        world.items.row_of(np.array([item], np.uint64))[0]))  # fmt: skip
    for one, other in zip(made, tower_module._ring_events(world.states, slots, world.items),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)


def test_an_artifact_in_memory_takes_models() -> None:
    world = World(ITEMS)
    tower = make_tower(fitted(), world.items)
    artifact = Artifact.in_memory(world.items, interest=world.config, models=Models(tower=tower))
    assert artifact.models.tower is tower


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_gpu_gives_the_states_and_queries_of_the_cpu(tmp_path: Path) -> None:
    found = fitted(scenes=True, attributes=True)
    worlds = [world_with(found), World(ITEMS)]
    cpu = tower_of(worlds[0])
    write_tower(tmp_path, cpu)
    on_gpu = read_tower(tmp_path, cpu.info, ITEMS, ITEMS, 16, "cuda")
    worlds[1].artifact = replace(worlds[1].artifact, models=Models(tower=on_gpu))
    worlds[1].recommender = Recommender(worlds[1].artifact, worlds[1].view)
    for world in worlds:
        world.send(*likes(0, range(9)), *likes(1, [3]), *likes(2, range(5), scene="home"))
    one, other = (world.states.hidden.astype(np.float32) for world in worlds)
    assert other == pytest.approx(one, abs=HALF_LOSS)
    for user in range(3):
        assert wishes(worlds[1], user) == pytest.approx(wishes(worlds[0], user), abs=HALF_LOSS)
