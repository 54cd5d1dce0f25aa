"""The commands parse, call, print to stdout what programs read, and exit with a code."""

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer
from click.testing import CliRunner, Result

from tests.api_world import ApiWorld, user_in, with_api
from tests.plane_world import like
from tests.shop import build_shop
from tests.worlds import World, likes
from tracker.cli.main import cli
from tracker.demo.processes import ChildProcess, free_port
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.settings import PREFIX, load_settings
from tracker.worker.data_dir import locked

ADA = user_in(0)
GOOD = '{"user_id":"u%d","item_id":"i1","kind":"click","timestamp":1000}'


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin, catch_exceptions=False)


def place(address: str, name: str) -> list[str]:
    return ["--brokers", address, "--name", name]


COMMANDS = [
    "broker",
    "topics",
    "worker",
    "compile",
    "send",
    "watch",
    "show",
    "score",
    "doctor",
    "reset-state",
    "reset-learning",
    "mend-times",
    "merge-states",
    "move-states",
    "replay",
    "export-user",
    "forget",
    "pseudonym",
    "acls",
    "demo",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
    if command == "demo":
        assert "[default: 200.0" in result.output


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("sned", "Error: No such command 'sned'. Did you mean 'send'?\n"),
        ("xyzzy", "Error: No such command 'xyzzy'.\n"),
    ],
)
def test_command_that_is_misspelt_is_refused_and_the_nearest_named(typed: str, told: str) -> None:
    result = run(typed)
    assert result.exit_code == 2
    assert result.stderr.endswith(told)


def test_help_comes_without_loading_what_takes_seconds() -> None:
    heavy = {"numba", "torch", "faiss", "faust"}
    code = f"import sys, tracker.cli.main; print({heavy} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_all_commands_are_listed() -> None:
    result = run("--help")
    assert all(command in result.output for command in COMMANDS)


def test_pseudonyms_of_arguments_and_of_lines_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run("pseudonym", "ada")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "TRACKER_PSEUDONYM_KEY_FILE is not set" in refused.stderr
    (tmp_path / "key").write_text("k" * 32)
    monkeypatch.setenv("TRACKER_PSEUDONYM_KEY_FILE", str(tmp_path / "key"))
    assert run("pseudonym", "ada").stdout == "~FxagMGLQLs3YITlZVQlxg9xq\n"
    lines = run("pseudonym", stdin="ada\nbob\n").stdout.splitlines()
    assert lines[0] == "~FxagMGLQLs3YITlZVQlxg9xq"
    assert len(lines) == 2


def test_topics_are_created_and_told_as_json_and_as_a_table(tansu: str, prefix: str) -> None:
    checked = run("topics", "--check", "--json", *place(tansu, prefix))
    assert checked.exit_code == 1
    assert {one["state"] for one in json.loads(checked.stdout)} == {"missing"}
    created = run("topics", "--json", *place(tansu, prefix))
    assert created.exit_code == 0
    assert {one["state"] for one in json.loads(created.stdout)} == {"created"}
    shown = run("topics", *place(tansu, prefix))
    assert shown.exit_code == 0
    assert "user changelog" in shown.stdout


def test_nothing_is_exported_of_an_unknown_user_but_the_records_of_one_who_sent(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    at = [*place(tansu, prefix), "--artifacts", str(tmp_path / "artifacts")]
    run("topics", *place(tansu, prefix))
    run("send", "-", *place(tansu, prefix), stdin=GOOD % 7)
    unknown = run("export-user", "u8", *at)
    assert (unknown.exit_code, unknown.stderr) == (1, "Error: nothing is kept of this user\n")
    person = json.loads(run("export-user", "u7", *at).stdout)
    (event,) = person["records"][f"{prefix}-events"]
    assert event["value"]["user_id"] == "u7"
    assert run("export-user", "u7", "--states-only", *at).exit_code == 1


def test_events_from_standard_input_are_sent_and_counted(tansu: str, prefix: str) -> None:
    run("topics", *place(tansu, prefix))
    lines = "\n".join(GOOD % number for number in range(20))
    result = run("send", "-", "--json", *place(tansu, prefix), stdin=lines)
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["sent"], found["confirmed"], found["bad"]) == (20, 20, 0)


def test_a_file_with_bad_lines_is_sent_only_if_they_are_to_be_skipped(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    run("topics", *place(tansu, prefix))
    path = tmp_path / "events.jsonl"
    path.write_text(GOOD % 1 + "\n" + "oops\n" * 12)
    refused = run("send", str(path), *place(tansu, prefix))
    assert refused.exit_code == 1
    assert f"{path}, line 2: not_json" in refused.stderr
    assert "and 2 more invalid lines" in refused.stderr
    assert "nothing was sent: 12 of 13 lines are invalid" in refused.stderr
    assert refused.stdout == ""
    result = run("send", str(path), "--skip-invalid", *place(tansu, prefix))
    assert result.exit_code == 1
    assert result.stderr.count("line 2: not_json") == 1
    assert "1 of 1 events confirmed" in result.stdout
    assert "12 invalid lines" in result.stdout


def test_bad_lines_of_standard_input_are_named_and_the_others_are_sent(
    tansu: str, prefix: str
) -> None:
    run("topics", *place(tansu, prefix))
    result = run("send", "-", *place(tansu, prefix), stdin=f"{GOOD % 1}\noops\n{GOOD % 2}\n")
    assert result.exit_code == 1
    assert "standard input, line 2: not_json" in result.stderr
    assert "2 of 2 events confirmed" in result.stdout


def test_a_dry_run_checks_as_the_worker_does_without_a_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, weights = tmp_path / "events.jsonl", tmp_path / "weights.toml"
    event = json.loads(GOOD % 1)
    ahead = event | {"timestamp": 4_000_000_000}
    extra = event | {"kind": "teleport", "timestamp": 1_600_000_000_000, "scen": "home"}
    path.write_text("".join(json.dumps(one) + "\n" for one in (event, ahead, extra)))
    weights.write_text("[kinds]\nteleport = 1.0\n")
    nowhere = ("--brokers", "127.0.0.1:1")
    result = run("send", str(path), "--dry-run", *nowhere)
    assert result.exit_code == 1
    assert "line 2: future_timestamp" in result.stderr
    assert "line 3: unknown_kind" in result.stderr
    assert "checked with the weights of the built-in table" in result.stderr
    assert result.stdout == "1 of 3 lines are events; --dry-run sends none\n"
    monkeypatch.setenv("TRACKER_KINDS_FILE", str(weights))
    result = run("send", str(path), "--dry-run", *nowhere)
    assert "unknown_kind" not in result.stderr
    assert f"checked with the weights of {weights}" in result.stderr
    assert "`scen` looks like `scene`" in result.stderr
    assert "timestamps are taken as ms" in result.stderr
    assert result.stdout == "2 of 3 lines are events; --dry-run sends none\n"


def test_file_that_is_not_there_is_one_line(tansu: str, prefix: str) -> None:
    run("topics", *place(tansu, prefix))
    result = run("send", "nowhere.jsonl", *place(tansu, prefix))
    assert result.exit_code == 1
    assert result.stderr == "Error: nowhere.jsonl: cannot be read: No such file or directory\n"


RECOMMENDATION = (
    '{"id":"t-0-%d","user_id":"%s","timestamp":1000.0,"scene":"home","items":[{"item_id":"i1",'
    '"score":0.5,"channel":"content","because":["i2"]}],"artifact":"1","latency_ms":4.0,'
    '"interests":[{"label":"[red]shoes","strength":0.6,"change":0.1}]}'
)


def write_recommendations(address: str, name: str, users: Sequence[str]) -> None:
    async def write() -> None:
        settings = load_settings({}, brokers=address, name=name)
        topic = topics_of(settings).recommendations
        async with producer(settings) as client:
            for offset, user in enumerate(users):
                value = (RECOMMENDATION % (offset, user)).encode()
                await client.send_and_wait(topic, value, user.encode(), 0)

    asyncio.run(write())


def test_recommendations_are_watched_as_sent_and_for_people(tansu: str, prefix: str) -> None:
    run("topics", *place(tansu, prefix))
    write_recommendations(tansu, prefix, ["ann", "bob", "ann"])
    options = ["--from-beginning", *place(tansu, prefix)]
    raw = run("watch", "--json", "--count", "3", *options)
    assert raw.exit_code == 0
    assert [json.loads(line)["user_id"] for line in raw.stdout.splitlines()] == [
        "ann",
        "bob",
        "ann",
    ]
    shown = run("watch", "--user", "ann", "--count", "2", *options)
    assert shown.stdout.count("ann") == 2
    assert "because of i2" in shown.stdout
    assert "[red]shoes 60%" in shown.stdout  # what users send is text, never markup


def test_users_items_and_probabilities_are_those_that_a_worker_answers(tmp_path: Path) -> None:
    def commands(url: str) -> None:
        options = ["--url", url]
        told = run("show", ADA, "--json", *options)
        assert json.loads(told.stdout)["events"] == 2
        assert "group 0" in run("show", ADA, *options).stdout
        item = run("show", "--item", "i0", *options)
        assert "0 positive" in item.stdout
        nobody = run("show", "nobody else", *options)
        assert nobody.exit_code == 1
        assert "nothing is known of this user" in nobody.stderr
        refused = run("score", ADA, "i2", *options)
        assert refused.exit_code == 1
        assert "has no trained prediction; `indexer train` learns one" in refused.stderr

    async def work(world: ApiWorld) -> None:
        world.open |= dict.fromkeys(range(4), world.running.partition)
        world.running.accept(0, world.worker.records(like(ADA, 0), like(ADA, 2)))
        await world.running.applied(2)
        url = world.client.make_url("").with_path("/")
        await asyncio.to_thread(commands, str(url))

    with_api(tmp_path, work)


def test_a_worker_that_is_not_there_is_named_with_what_to_do() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for command in (["show", "ada"], ["score", "ada", "i1"]):
        missing = run(*command, "--url", url)
        assert missing.exit_code == 1
        assert missing.stderr.startswith(f"Error: no worker answers at {url} (")
        assert "start one, or name another with --url" in missing.stderr


def test_times_of_the_future_are_mended_after_a_yes_and_told(
    tansu: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(users=1)
    world.send(*likes(0, [0]), *likes(0, [2], time=4_102_444_800.0))
    monkeypatch.setattr("tracker.artifact.artifact.Artifact.load", lambda *_, **__: world.artifact)
    missing = run("mend-times", "--yes", *place(tansu, prefix))
    assert missing.exit_code == 1
    assert "run 'tracker topics'" in missing.stderr
    run("topics", *place(tansu, prefix))
    settings = load_settings({}, brokers=tansu, name=prefix)

    async def write() -> None:
        (row,) = world.states.pack(np.zeros(1, np.int64))
        async with producer(settings) as client:
            await client.send_and_wait(topics_of(settings).users_changelog, row, b"uu0", 0)

    asyncio.run(write())
    assert run("mend-times", *place(tansu, prefix), stdin="n\n").exit_code == 1
    told = run("mend-times", *place(tansu, prefix), stdin="y\n")
    assert told.exit_code == 0
    assert told.stdout.splitlines()[-2:] == [
        "users: 1 rows and 0 positions mended",
        "items: 0 rows and 0 positions mended",
    ]


def test_states_of_other_partitions_are_moved_after_a_yes_and_told(
    tansu: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(users=1)
    monkeypatch.setattr("tracker.artifact.artifact.Artifact.load", lambda *_, **__: world.artifact)
    missing = run("merge-states", "--yes", *place(tansu, prefix))
    assert missing.exit_code == 1
    assert "run 'tracker topics'" in missing.stderr
    run("topics", *place(tansu, prefix))
    assert run("merge-states", *place(tansu, prefix), stdin="n\n").exit_code == 1
    told = run("merge-states", *place(tansu, prefix), stdin="y\n")
    assert told.exit_code == 0
    line = told.stdout.splitlines()[-1]
    assert line.startswith("0 states are moved to their users' partitions; 0 of these users")


def test_show_wants_a_user_or_an_item() -> None:
    assert run("show").exit_code == 2
    assert run("show", "u", "--item", "i").exit_code == 2


def test_doctor_tells_lines_or_json_and_fails_where_a_worker_would(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    root = str(tmp_path / "artifacts")
    build_shop(Path(root))
    options = ["--artifacts", root, *place(tansu, prefix)]
    ill = run("doctor", *options)
    assert ill.exit_code == 1
    assert "FAIL topic events" in ill.stdout
    run("topics", *place(tansu, prefix))
    well = run("doctor", "--json", *options)
    assert well.exit_code == 0
    assert {one["state"] for one in json.loads(well.stdout)} <= {"ok", "note"}


def test_state_is_reset_only_after_a_yes(tansu: str, prefix: str, tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "state").write_bytes(b"x" * 10)
    options = ["--data-dir", str(tmp_path), *place(tansu, prefix)]
    assert run("reset-state", *options, stdin="n\n").exit_code == 1
    assert (tmp_path / "state").exists()
    assert run("reset-state", *options, stdin="y\n").exit_code == 0
    assert not (tmp_path / "state").exists()
    assert "no state here" in run("reset-state", "--yes", *options).stdout


def test_state_in_use_is_not_reset(tmp_path: Path) -> None:
    with locked(tmp_path):
        result = run("reset-state", "--yes", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert "in use by process" in result.stderr


def test_what_was_learned_is_deleted_in_every_partition(tansu: str, prefix: str) -> None:
    assert "run 'tracker topics'" in run("reset-learning", "--yes", *place(tansu, prefix)).stderr
    made = run("topics", *place(tansu, prefix))
    assert made.exit_code == 0, made.stderr  # else the broker makes topics of another size
    settings = load_settings({}, brokers=tansu, name=prefix)
    topic = topics_of(settings).users_changelog

    async def write() -> None:
        async with producer(settings) as client:
            for key in (b"l", b"uu1"):
                await client.send_and_wait(topic, b"row", key, 0)

    async def last() -> dict[tuple[int, bytes | None], bytes | None]:
        records = [record async for record in read_topic(settings, topic)]
        return {(record.partition, record.key): record.value for record in records}

    asyncio.run(write())
    assert run("reset-learning", *place(tansu, prefix), stdin="n\n").exit_code == 1
    result = run("reset-learning", *place(tansu, prefix), stdin="y\n")
    assert result.exit_code == 0
    assert f"learned online in {settings.event_partitions} partitions" in result.stdout
    found = asyncio.run(last())
    assert found.pop((0, b"uu1")) == b"row"
    assert found == {(n, b"l"): None for n in range(settings.event_partitions)}


def test_everything_is_reset_at_the_broker_too(tansu: str, prefix: str, tmp_path: Path) -> None:
    run("topics", *place(tansu, prefix))
    run("send", "-", *place(tansu, prefix), stdin=GOOD % 1)
    settings = load_settings({}, brokers=tansu, name=prefix)
    names = topics_of(settings)

    async def write() -> None:
        async with producer(settings) as client:
            await client.send_and_wait(names.users_changelog, b"row", b"uu1", 0)

    async def count(topic: str) -> int:
        return len([record async for record in read_topic(settings, topic)])

    asyncio.run(write())
    result = run(
        "reset-state", "--yes", "--everything", "--data-dir", str(tmp_path), *place(tansu, prefix)
    )
    assert result.exit_code == 0, result.output
    assert f"{names.users_changelog}: deleted" in result.stdout
    assert f"{names.users_changelog}: created" in result.stdout
    assert asyncio.run(count(names.users_changelog)) == 0
    assert asyncio.run(count(names.events)) == 1


def test_nothing_is_reset_while_a_worker_runs(tansu: str, prefix: str, tmp_path: Path) -> None:
    run("topics", *place(tansu, prefix))
    with locked(tmp_path):
        (tmp_path / "state").write_bytes(b"x")
    options = ["--yes", "--everything", "--data-dir", str(tmp_path), *place(tansu, prefix)]

    async def go() -> bytes:
        topic = topics_of(load_settings({}, name=prefix)).events
        member = AIOKafkaConsumer(topic, bootstrap_servers=tansu, group_id=prefix)
        await member.start()
        try:
            command = [sys.executable, "-m", "tracker", "reset-state", *options]
            process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
            _, told = await process.communicate()
        finally:
            await member.stop()
        return told

    told = asyncio.run(go()).decode()
    assert told == f"Error: 1 worker of group {prefix} runs: stop it first\n"
    assert (tmp_path / "state").exists()


@pytest.mark.parametrize(
    "arguments", [["topics"], ["send", "-"], ["watch"], ["topics", "--check", "--json"]]
)
@pytest.mark.usefixtures("no_settling")
def test_broker_that_is_away_is_one_line_and_code_one(
    arguments: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    address = f"127.0.0.1:{free_port()}"
    result = run(*arguments, *place(address, "away"), stdin=GOOD % 1)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: no answer from the Kafka brokers at {address} over PLAINTEXT: Connection refused;"
        " start one, or check TRACKER_BROKERS and TRACKER_SECURITY_PROTOCOL\n"
    )
    assert "Unable connect" not in caplog.text
    assert result.stdout == ""
    assert time.monotonic() - started < 15


def test_export_into_a_folder_that_does_not_exist_is_one_line_before_anything_is_read(
    tmp_path: Path,
) -> None:
    result = run("export", str(tmp_path / "none" / "users.parquet"))
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / 'none'}: no such folder\n"


def test_export_to_a_disk_that_is_full_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def all_is_allowed(*arguments: object) -> None:
        pass

    monkeypatch.setattr("tracker.cli.shared.check_rights", all_is_allowed)
    monkeypatch.setattr("tracker.artifact.artifact.Artifact.load", lambda *_, **__: None)
    monkeypatch.setattr("tracker.lookup.export.export_users", full)
    path = tmp_path / "users.parquet"
    result = run("export", str(path))
    assert result.exit_code == 1
    assert result.stderr == f"Error: {path}: No space left on device\n"


def test_wrong_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKER_K", "many")
    result = run("topics")
    assert result.exit_code == 1
    assert "TRACKER_K is 'many'" in result.stderr


def test_items_without_events_are_no_demonstration(tmp_path: Path) -> None:
    result = run("demo", "--items", str(tmp_path / "items.jsonl"))
    assert result.exit_code == 2
    assert "belong together" in result.stderr


def test_native_code_is_compiled_for_the_artifact_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.worker.compilation.warm_up", lambda *_, **__: None)
    monkeypatch.setattr("tracker.worker.compilation.is_cached", lambda _: True)
    result = run("compile", "--artifacts", str(tmp_path))
    assert result.exit_code == 1
    assert f"{tmp_path}" in result.stderr
    build_shop(tmp_path)
    result = run("compile", "--artifacts", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout.startswith("native code is ready after ")


@pytest.mark.broker
def test_embedded_broker_runs_until_it_is_told_to_stop_and_then_nothing_listens(
    prefix: str,
) -> None:
    port = free_port()
    command = [sys.executable, "-m", "tracker", "broker", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        assert f"listens on 127.0.0.1:{port}" in told
        assert "has no transactions" in told
        address = f"127.0.0.1:{port}"
        assert run("topics", *place(address, prefix)).exit_code == 0
        second = run("broker", "--port", str(port))
        assert second.exit_code == 1
        assert second.stderr.startswith(
            f"Error: the embedded broker does not start: port {port} of 127.0.0.1 cannot be had"
        )
        process.terminate()  # a shell that runs tests in the background has them ignore SIGINT
        assert process.wait(30) == 130
        assert process.stderr.read() == "stopped\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_embedded_broker_that_dies_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(folder: Path, port: int) -> ChildProcess:
        code = "raise SystemExit('no luck')"
        child = ChildProcess("the embedded broker", [sys.executable, "-c", code], folder / "log")
        child.wait(20)
        return child

    monkeypatch.setattr("tracker.cli.operate.start_broker", start)
    result = run("broker")
    assert result.exit_code == 1
    assert "Error: the embedded broker ended with code 1; it wrote:\nno luck" in result.stderr


def test_sigterm_ends_a_command_with_everything_closed(tansu: str, prefix: str) -> None:
    run("topics", *place(tansu, prefix))
    command = [sys.executable, "-m", "tracker", "watch", *place(tansu, prefix)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"waiting for recommendations" in process.stderr.readline()
        process.terminate()
        assert process.wait(30) == 130
        assert process.stderr.read() == b"stopped\n"
