"""What README and docs/ say is so: examples, commands, settings, metrics, generated parts."""

import ast
import importlib.util
import itertools
import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import jsonschema_rs
import msgspec
import pytest
import yaml
from prometheus_client import Metric

from docs import meanings
from docs.generate import PART, PARTS, pages, renew
from indexer.cli.main import main as indexer_cli
from indexer.data.catalog import Item
from indexer.data.schemas import FORMATS, render, schema_of
from tests.paths import ROOT
from tests.project.markdown import PAGES, Block, blocks, by_hand, links, name_of, prose
from tracker.cli.main import cli as tracker_cli
from tracker.events.kinds import Kinds
from tracker.events.wire import (
    Recommendation,
    RejectedEventError,
    Rejection,
    User,
    decode_event,
)
from tracker.settings import Settings, settings_table
from tracker.stream.metrics import OUTCOMES, Metrics
from tracker.users.config import InterestConfig
from tracker.users.states import row_bytes_max

TEXT = "\n".join(page.read_text() for page in PAGES)
COMMANDS = {"tracker": tracker_cli, "indexer": indexer_cli}
TYPES: dict[str, Any] = {
    "item": Item,
    "recommendation": Recommendation,
    "rejection": Rejection,
    "user": User,
}
LANGUAGES = {
    "ini", "java", "json", "python", "sh", "sql", "text", "toml", "yaml",
    "{image}", "{include}", "{toctree}",
}  # fmt: skip
PHRASES = (
    "anew", "ask for the", "asked of", "a user and chunk", "at most so many", "by turns",
    "for ever", "goes on", "made anew", "of no account", "owed", "so many",
    "take to", "takes to", "took to", "came of", "in vain", "stands at", "whence",
)  # fmt: skip
"""Riddles and idioms that have a plain word: rebuild, per, continue, forever, likes, result."""


def examples(name: str) -> list[str]:
    return [
        block.text for page in PAGES for block in blocks(page) if block.marker == f"example: {name}"
    ]


def shell_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page, "sh")]


def shell_lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each command, without what is assigned before it."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for is_operator, group in itertools.groupby(lexer, lambda word: set(word) <= set("&|;")):
            words = list(itertools.dropwhile(re.compile(r"\w+=").match, group))
            if words and not is_operator:
                yield words


def commands_shown() -> list[list[str]]:
    """Return every command of ours, in blocks of code and between backticks."""
    shown = [words for block in shell_blocks() for words in shell_lines(block.text)]
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            shown += [text.split() for text in re.findall(r"`([^`\n]+)`", prose(page))]
    named = [[Path(words[0]).name, *words[1:]] for words in shown if words]
    return [words for words in named if words[0] in COMMANDS and words[1:]]


def schema_file(name: str) -> Path:
    return ROOT / "schemas" / f"{name}.schema.json"


@pytest.mark.parametrize("page", list(pages()), ids=name_of)
def test_generated_parts_are_current_or_make_schemas_was_forgotten(page: Path) -> None:
    assert page.read_text() == renew(page.read_text())


def test_every_generated_part_is_on_a_page() -> None:
    shown = {name for page in pages() for _, name, _ in PART.findall(page.read_text())}
    assert shown == set(PARTS)


def test_every_setting_is_in_one_group() -> None:
    grouped = [name for group in meanings.SETTING_GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", ["emit", "seen", "online_learning", "security_protocol"])
def test_every_value_of_a_choice_is_explained(name: str) -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    for value in Settings.model_fields[name].annotation.__args__:  # type: ignore[union-attr]
        assert f"\n| `{value}` |" in page


def test_every_setting_named_in_the_text_exists() -> None:
    known = {row.variable for row in settings_table()}
    assert set(re.findall(r"\bTRACKER_[A-Z_]*[A-Z]\b", TEXT)) <= known


def families() -> list[Metric]:
    return list(Metrics().registry.collect())


MODELS = {
    "tracker_served",
    "tracker_online",
    "tracker_without_scenes",
    "tracker_without_attributes",
}
"""Rows of an evaluation, whose names look like those of metrics."""


def test_every_metric_named_in_the_text_exists() -> None:
    exposed = set(re.findall(r"^# HELP (\w+) ", Metrics().exposition().decode(), re.MULTILINE))
    exposed |= {f"{name}_bucket" for name in exposed}
    named = set(re.findall(r"`(tracker_\w*[a-z])\b", TEXT))
    assert named
    assert named - {"tracker_"} - MODELS <= exposed


def test_labels_of_metrics_are_those_of_the_code() -> None:
    shown = {name: re.findall(r"`(\w+)`", text) for name, text in meanings.METRIC_LABELS.items()}
    labelled = {
        collector._name.removeprefix("tracker_"): list(collector._labelnames)
        for collector in vars(Metrics()).values()
        if getattr(collector, "_labelnames", ())
    }
    assert shown == labelled


def test_outcomes_are_those_of_the_code() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    section = page.split("\n## Outcomes\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \| [^T]", section, re.MULTILINE)) - {"outcome"} == {
        *OUTCOMES.values(),
        "handed_on",  # counted where a state goes to another partition
    }


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_schema_file_is_current_or_make_schemas_was_forgotten(name: str) -> None:
    assert schema_file(name).read_text() == render(name)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_schema_is_a_schema(name: str) -> None:
    jsonschema_rs.meta.validate(schema_of(name))


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_has_an_example_that_its_schema_and_its_class_accept(name: str) -> None:
    assert examples(name)
    for text in examples(name):
        schema = json.loads(schema_file(name).read_text())
        jsonschema_rs.Draft202012Validator(schema).validate(json.loads(text))
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
        {"user_id": "ada", "retracts": "1", "eventid": "2"},
        {"user_id": 7.5, "retracts": "1"},
    ],
)
def test_schema_of_events_refuses_what_the_reader_refuses(event: dict[str, Any]) -> None:
    with pytest.raises(RejectedEventError):
        decode_event(json.dumps(event).encode())
    assert not jsonschema_rs.Draft202012Validator(schema_of("event")).is_valid(event)


def test_shipped_data_follows_the_schemas() -> None:
    for name in ("item", "user", "event"):
        validator = jsonschema_rs.Draft202012Validator(schema_of(name))
        for line in (ROOT / f"tracker/demo_data/{name}s.jsonl").read_text().splitlines():
            validator.validate(json.loads(line))


def test_examples_of_weights_are_weights_files(tmp_path: Path) -> None:
    assert examples("weights")
    path = tmp_path / "kinds.toml"
    for text in examples("weights"):
        path.write_text(text)
        kinds = Kinds.load(path)
        for name, line in tomllib.loads(text).get("kinds", {}).items():
            weight = line["weight"] if isinstance(line, dict) else line
            assert kinds.weight(name, None) == weight


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_has_a_language_and_parses(page: Path) -> None:
    for block in blocks(page):
        assert block.language.split()[0] in LANGUAGES
        match block.language:
            case "json":
                json.loads(block.text)
            case "toml":
                tomllib.loads(block.text)
            case "yaml":
                list(yaml.safe_load_all(block.text))
            case "python":
                check_python(block)
            case "sh":
                subprocess.run(["bash", "-n", "-c", block.text], check=True)


def check_python(block: Block) -> None:
    """Compile a block, and find the modules that it imports and what it takes from them."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            assert all(importlib.util.find_spec(name) for name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_commands_in_the_text_exist_with_their_options() -> None:
    assert len(commands_shown()) > 15
    for program, name, *rest in commands_shown():
        if name.startswith("-"):
            continue
        command = COMMANDS[program].commands.get(name)
        assert command is not None, f"{program} {name}"
        flags = {flag for p in command.params if isinstance(p, click.Option) for flag in p.opts}
        used = {word for word in rest if word.startswith("--")} - {"--help"}
        assert used <= flags, f"{program} {name}: {used - flags}"


def test_modules_that_are_run_in_the_text_exist_with_their_options() -> None:
    texts = [line for block in shell_blocks() for line in shell_lines(block.text)]
    texts += [text.split() for text in re.findall(r"`([^`\n]*python -m [^`\n]+)`", TEXT)]
    for words in texts:
        if "-m" not in words or words[0] == "kubectl":
            continue
        name = words[words.index("-m") + 1]
        if name.split(".")[0] not in ("tests", "benchmarks", "docs", "tracker", "indexer"):
            continue
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        assert spec.origin is not None
        source = Path(spec.origin).read_text()
        for word in words:
            if word.startswith("--"):
                written = f'"{word}"' in source
                made = 'f"--{' in source and re.search(rf"\b{word[2:]}\b", source)
                assert written or made, f"{name} {word}"


def test_make_targets_in_the_text_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):", makefile, re.M))
    used = {
        words[1]
        for block in shell_blocks()
        for words in shell_lines(block.text)
        if words[0] == "make" and not words[1].startswith("-")
    }
    used |= set(re.findall(r"`make (\w+)[^`]*`", TEXT))
    assert used <= targets


def test_files_named_in_the_text_exist() -> None:
    """A path between backticks that begins with a folder of ours; NAME stands for any name."""
    named = set()
    for page in PAGES:
        if page.name != "CHANGELOG.md":
            named |= set(
                re.findall(
                    r"`((?:tracker|indexer|tests|benchmarks|deploy|schemas|docs)/[\w./-]*)`",
                    prose(page),
                )
            )
    named = {path for path in named if "NAME" not in path}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


WRITTEN = [*PAGES, ROOT / "docs/meanings.py"]


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_plain_words(page: Path) -> None:
    text = " ".join(by_hand(page).lower().split())
    assert [phrase for phrase in PHRASES if re.search(rf"\b{phrase}\b", text)] == []


MOST_IN_HELP = 1
"""Such phrases in help texts and comments, as the reference shows them; may only fall."""


def test_plain_words_in_help_texts() -> None:
    texts = [" ".join(make().lower().split()) for make in PARTS.values()]
    found = [p for text in texts for p in PHRASES for _ in re.findall(rf"\b{p}\b", text)]
    assert len(found) <= MOST_IN_HELP, found


def test_size_of_a_row_is_the_one_stated() -> None:
    page = (ROOT / "docs/reference/rows.md").read_text()
    assert f"has {row_bytes_max(InterestConfig()):,} bytes" in page
    assert row_bytes_max(InterestConfig()) <= 4096


def test_lookups_answer_with_the_fields_that_the_page_names() -> None:
    page = (ROOT / "docs/reference/http.md").read_text()
    for path, function in (
        ("tracker/lookup/show.py", "describe_user"),
        ("tracker/lookup/score.py", "score_items"),
        ("tracker/lookup/outlook.py", "outlook"),
    ):
        tree = ast.parse((ROOT / path).read_text())
        (body,) = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name == function
        ]
        for node in ast.walk(body):
            if isinstance(node, ast.Dict):
                for key in node.keys:
                    if isinstance(key, ast.Constant):
                        name = str(key.value)
                        assert f"`{name}`" in page, f"{function}: {name}"


def walked_functions() -> list[tuple[str, str]]:
    """Return (path, function) of each "`function` in `path`" on the page of both paths."""
    page = " ".join((ROOT / "docs/design/one-event-one-commit.md").read_text().split())
    found = []
    for names, path in re.findall(r"((?:`[\w.]+`(?:, )?)+) in `([\w/]+\.py)`", page):
        found += [(path, name) for name in re.findall(r"`([\w.]+)`", names)]
    return found


@cache
def statements(path: str) -> list[ast.stmt]:
    return ast.parse((ROOT / path).read_text()).body


@pytest.mark.parametrize(("path", "name"), walked_functions())
def test_functions_on_the_page_of_one_event_exist(path: str, name: str) -> None:
    body = statements(path)
    for part in name.split("."):
        (found,) = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == part
        ]
        body = found.body


def test_every_function_on_that_page_has_its_path() -> None:
    page = (ROOT / "docs/design/one-event-one-commit.md").read_text()
    named = set(re.findall(r"`((?:[A-Z]\w+|\w+)\.\w+|[a-z]+_\w+)`", page)) - {"ram"}
    assert {name for name in named if "/" not in name} <= {name for _, name in walked_functions()}
    assert len(walked_functions()) > 30


@pytest.mark.parametrize("path", sorted({path for path, _ in walked_functions()}))
def test_each_module_on_that_page_links_to_it(path: str) -> None:
    assert "docs/design/one-event-one-commit.md" in (
        ast.get_docstring(ast.parse((ROOT / path).read_text())) or ""
    )


def test_both_readmes_have_the_same_commands_and_link_to_the_same_pages() -> None:
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    others = {english.name, chinese.name}
    assert sorted(set(links(english)) - others) == sorted(set(links(chinese)) - others)
    bare = [
        [re.sub(r" *#.*", "", block.text) for block in blocks(page, "sh", "python")]
        for page in (english, chinese)
    ]
    assert bare[0] == bare[1]
