"""A user's interests over time: shares that rise with events and fall with what comes after."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from indexer.cli.main import main
from indexer.data.histories import EventLog, read_event_log
from indexer.replay.trace import TraceError, draw, item_ids, trace
from tests.catalogs import WordEncoder
from tests.logs import group_artifact, group_events, read_events, write_events
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return read_events(tmp_path, group_events())


def test_every_event_has_a_moment_whose_shares_are_the_whole(log: EventLog) -> None:
    artifact = group_artifact()
    user = log.user_ids[0]
    moments = trace(artifact, log, user)
    assert len(moments) == int((log.users == 0).sum())
    assert [moment.time for moment in moments] == sorted(moment.time for moment in moments)
    for moment in moments:
        assert sum(moment.interests.values()) == pytest.approx(1.0)
        shares = list(moment.interests.values())
        assert shares == sorted(shares, reverse=True)
    assert moments[0].item_id in artifact.vectors.ids
    assert len(moments[0].interests) == 1


def test_a_user_without_events_is_named(log: EventLog) -> None:
    with pytest.raises(TraceError, match="no event of user 'nobody' among the"):
        trace(group_artifact(), log, "nobody")


def test_the_command_tells_a_line_an_event_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.items.item_encoder.ItemEncoder", lambda *_: WordEncoder(width=96))
    items, events = tmp_path / "items.jsonl", write_events(tmp_path / "e.jsonl", group_events())
    items.write_text("".join(f'{{"item_id":"i{n}","title":"w{n}"}}\n' for n in range(40)))
    root, picture = tmp_path / "artifacts", tmp_path / "u0.png"

    def run(*words: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    assert run("build", items, "--out", root).exit_code == 0
    found = run("trace", "u0", "--events", events, "--out", root, "--png", picture)
    assert found.exit_code == 0, found.output
    assert len(found.stdout.splitlines()) == 12
    assert "(home): w" in found.stdout
    assert picture.exists()
    told = json.loads(run("trace", "u0", "--events", events, "--out", root, "--json").stdout)
    assert [moment["scene"] for moment in told] == ["home"] * 12
    assert (
        "no event of user 'nobody'"
        in run("trace", "nobody", "--events", events, "--out", root).stderr
    )
    exported = run("export", "items", tmp_path / "items.parquet", "--out", root)
    assert "40 items of 000001-" in exported.stdout
    refused = run("export", "step", tmp_path / "step.pt2", "--out", root)
    assert refused.exit_code == 1
    assert "has no user encoder; `indexer train` learns one" in refused.stderr


def test_items_that_the_artifact_does_not_have_are_named_as_the_file_names_them(
    tmp_path: Path,
) -> None:
    path = write_events(tmp_path / "e.jsonl", group_events(items=44))
    path.write_text(path.read_text() + "not json\n")
    log = read_event_log([path], Kinds.default(), 4e9)
    wanted = {hash_id(f"i{n}"): f"i{n}" for n in range(40, 44)}
    names = item_ids([path], wanted)
    assert names == wanted
    moments = [
        moment for user in log.user_ids for moment in trace(group_artifact(), log, user, names)
    ]
    assert {f"i{n}" for n in range(44)} == {moment.item_id for moment in moments}


def test_events_of_another_catalogue_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.items.item_encoder.ItemEncoder", lambda *_: WordEncoder(width=96))
    items, events = tmp_path / "items.jsonl", write_events(tmp_path / "e.jsonl", group_events())
    items.write_text("".join(f'{{"item_id":"j{n}","title":"w{n}"}}\n' for n in range(40)))
    root = str(tmp_path / "artifacts")
    assert CliRunner().invoke(main, ["build", str(items), "--out", root]).exit_code == 0
    refused = CliRunner().invoke(main, ["trace", "u0", "--events", str(events), "--out", root])
    assert refused.exit_code == 1
    assert "none of the 240 events is of an item of 000001-" in refused.stderr


def test_a_picture_that_cannot_be_drawn_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["trace", "u0", "--events", "e.jsonl", "--out", str(tmp_path), "--png"]
    absent = tmp_path / "absent" / "a.png"
    refused = CliRunner().invoke(main, [*words, str(absent)])
    assert f"{absent.parent}: no such folder" in refused.stderr
    exported = CliRunner().invoke(main, ["export", "items", str(absent), "--out", str(tmp_path)])
    assert f"{absent.parent}: no such folder" in exported.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused = CliRunner().invoke(main, [*words, str(tmp_path / "a.png")])
    assert refused.exit_code == 1
    assert refused.stderr == "indexer: no module matplotlib: install the extra `train` for --png\n"


def test_what_the_last_event_came_to_has_a_width_of_its_own(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "matplotlib.axes.Axes.stackplot", lambda _, *given, **__: drawn.append(given)
    )
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda *_, **__: None)
    moments = trace(group_artifact(), log, log.user_ids[0])
    draw(moments, tmp_path / "interests.png", "one user")
    ((times, shares),) = drawn
    seconds = times.astype(np.int64)
    assert len(seconds) == len(moments) + 1
    assert (seconds[-1] - seconds[-2]) / (seconds[-2] - seconds[0]) == pytest.approx(0.08, abs=0.01)
    np.testing.assert_array_equal(shares[:, -1], shares[:, -2])


def test_the_picture_is_one(log: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "interests.png"
    draw(trace(group_artifact(), log, log.user_ids[0]), path, "one user")
    assert path.read_bytes().startswith(b"\x89PNG")
