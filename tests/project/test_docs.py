"""What the README says is so: tables, examples, commands, schemas."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import msgspec
import pytest

from indexer.cli.main import main as indexer_cli
from indexer.data.catalog import Item
from indexer.data.schemas import FORMATS, render, schema_of
from tests.paths import ROOT
from tests.readme_tables import in_readme, tables
from tracker.cli.main import cli as tracker_cli
from tracker.events.kinds import Kinds
from tracker.events.wire import (
    REASONS,
    Recommendation,
    RejectedEventError,
    Rejection,
    User,
    decode_event,
)
from tracker.settings import settings_table
from tracker.stream.metrics import Metrics
from tracker.users.config import InterestConfig
from tracker.users.states import row_bytes_max

TEXT = (ROOT / "README.md").read_text()
COMMANDS = {"tracker": tracker_cli, "indexer": indexer_cli}
TYPES: dict[str, Any] = {
    "item": Item,
    "recommendation": Recommendation,
    "rejection": Rejection,
    "user": User,
}


def examples(name: str) -> list[str]:
    return re.findall(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", TEXT, re.DOTALL)


def shell_lines() -> Iterator[list[str]]:
    for block in re.findall(r"^ *```sh\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            for part in line.split("&&"):
                if words := shlex.split(part, comments=True):
                    yield words


def commands_shown() -> list[list[str]]:
    """Return every command of ours in a code block or a table's first column."""
    shown = [[Path(words[0]).name, *words[1:]] for words in shell_lines()]
    shown += [
        cell.split() for cell in re.findall(r"^\| `((?:tracker|indexer) .*?)` \|", TEXT, re.M)
    ]
    return [words for words in shown if words[0] in COMMANDS]


def schema_file(name: str) -> Path:
    return ROOT / "schemas" / f"{name}.schema.json"


@pytest.mark.parametrize("name", sorted(tables()))
def test_table_is_what_the_code_says_or_make_schemas_was_forgotten(name: str) -> None:
    assert in_readme(TEXT)[name] == tables()[name]


def test_every_setting_named_in_the_text_exists() -> None:
    known = {row.variable for row in settings_table()}
    named = set(re.findall(r"\bTRACKER_[A-Z_]*[A-Z]\b", TEXT))
    assert named <= known


def test_every_metric_named_in_the_text_exists() -> None:
    exposed = re.findall(r"^# HELP (\w+) ", Metrics().exposition().decode(), re.MULTILINE)
    named = set(re.findall(r"`(tracker_\w*[a-z])`", TEXT))
    assert named
    assert named <= set(exposed)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_schema_file_is_current_or_make_schemas_was_forgotten(name: str) -> None:
    assert schema_file(name).read_text() == render(name)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_schema_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema_of(name))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_has_an_example_that_its_schema_and_its_class_accept(name: str) -> None:
    assert examples(name)
    for text in examples(name):
        schema = json.loads(schema_file(name).read_text())
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
        if name == "event":
            event = decode_event(text.encode())
            if event.kind is not None:
                Kinds.default().weight(event.kind, event.value)
        else:
            msgspec.json.decode(text, type=TYPES[name])


@pytest.mark.parametrize(
    "event",
    [
        {"user_id": "ada"},
        {"user_id": "ada", "item_id": "tent"},
        {"user_id": "ada", "item_id": "tent", "kind": "view", "timestamp": None},
        {"user_id": "ada", "retracts": None},
        {"user_id": "", "retracts": "1"},
        {"user_id": "ada", "retracts": "1", "shop": "north"},
        {"user_id": 7, "retracts": "1"},
    ],
)
def test_schema_of_events_refuses_what_the_reader_refuses(event: dict[str, Any]) -> None:
    with pytest.raises(RejectedEventError):
        decode_event(json.dumps(event).encode())
    assert not jsonschema.Draft202012Validator(schema_of("event")).is_valid(event)


def test_shipped_data_follows_the_schemas() -> None:
    for name in ("item", "user", "event"):
        validator = jsonschema.Draft202012Validator(schema_of(name))
        for line in (ROOT / f"tracker/demo_data/{name}s.jsonl").read_text().splitlines():
            validator.validate(json.loads(line))


def test_example_of_weights_is_a_weights_file(tmp_path: Path) -> None:
    (text,) = examples("weights")
    path = tmp_path / "kinds.toml"
    path.write_text(text)
    kinds = Kinds.load(path)
    assert kinds.weight("wishlist", None) == tomllib.loads(text)["kinds"]["wishlist"]


def test_reasons_of_rejection_are_those_of_the_code() -> None:
    listed = re.findall(r"<!-- reasons -->(.*?)<!-- end -->", TEXT)[0]
    assert tuple(re.findall(r"`(\w+)`", listed)) == REASONS


def test_commands_in_the_text_exist_with_their_flags() -> None:
    assert len(commands_shown()) > 15
    for program, name, *rest in commands_shown():
        command = COMMANDS[program].commands.get(name)
        assert command is not None, f"{program} {name}"
        flags = {flag for p in command.params if isinstance(p, click.Option) for flag in p.opts}
        used = {word for word in rest if word.startswith("--")}
        assert used <= flags, f"{program} {name}: {used - flags}"


def test_every_command_is_in_the_table_of_commands() -> None:
    for program, group in COMMANDS.items():
        shown = {name for other, name, *_ in commands_shown() if other == program}
        assert set(group.commands) <= shown


def test_make_targets_in_the_text_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):", makefile, re.M))
    used = {words[1] for words in shell_lines() if words[0] == "make"}
    used |= set(re.findall(r"`make (\w+)`", TEXT))
    assert used <= targets


def test_files_linked_in_the_text_exist() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_size_of_a_row_is_the_one_stated() -> None:
    assert f"it has {row_bytes_max(InterestConfig()):,} bytes" in TEXT
    assert row_bytes_max(InterestConfig()) <= 4096
