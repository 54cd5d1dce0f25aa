"""The console script `indexer`, as a user and as a program calls it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from indexer.cli.console import BAD_ITEMS, RECALL_TOO_LOW, REFUSED, encoding_bar
from indexer.cli.main import main
from tests.catalogs import WordEncoder, invented
from tracker.artifact.versions import latest_version
from tracker.settings import load_settings


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encode without a model."""
    monkeypatch.setattr("indexer.items.item_encoder.ItemEncoder", lambda *_: WordEncoder())
    monkeypatch.delenv("TRACKER_ARTIFACTS", raising=False)


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    write(path, 30)
    return path


def write(path: Path, count: int) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in invented(count)))


def run(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], env=env)
    assert result.exit_code == code, result.output
    return result


def answer(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def test_a_catalogue_is_built_listed_shown_and_rolled_back(items: Path, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    first = answer("build", items, "--out", root, "--dim", 16, "--rating-scale", 0, 10)
    assert first["live"] == first["encoded"] == 30
    assert (first["sequence"], first["index"], first["recall_at_10"]) == (1, "flat", 1.0)
    assert first["path"] == f"{root}/{first['version']}"
    write(items, 31)
    second = answer("build", items, "--out", root)
    assert (second["encoded"], second["reused"], second["basis_changed"]) == (1, 30, False)

    listed = answer("list", "--artifacts", root)["versions"]
    assert [line["version"] for line in listed] == [first["version"], second["version"]]
    assert [line["latest"] for line in listed] == [False, True]

    shown = answer("show", "--out", root)
    assert shown["version"] == second["version"]
    assert shown["interest"]["rating_max"] == 10.0
    assert answer("show", first["version"], "--out", root)["live"] == 30

    back = answer("rollback", "--out", root)
    assert back == {"before": second["version"], "latest": first["version"]}
    assert latest_version(root) == first["version"]
    answer("publish", second["version"], "--out", root)
    assert latest_version(root) == second["version"]
    assert answer("rollback", first["version"], "--out", root)["latest"] == first["version"]


def test_people_read_lines_and_tables(items: Path, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    empty = run("list", "--out", root)
    assert "no version; build one with" in empty.stdout
    built = run("build", items, "--out", root, "--dim", 16)
    assert "30 items (30 texts encoded, 0 known, 0 retired), flat index" in built.stdout
    assert "encoding 30 texts" in built.stderr
    listed = run("list", "--out", root).stdout
    assert "LATEST" in listed
    assert latest_version(root) in listed
    shown = run("show", "--out", root).stdout
    assert "recall@10" in shown
    assert "all as their SHA-256 says" in shown
    write(items, 5)
    run("build", items, "--out", root)
    assert "(was 000002-" in run("rollback", "--out", root).stdout


def test_a_damaged_version_is_listed_as_such(items: Path, tmp_path: Path) -> None:
    answer("build", items, "--out", tmp_path, "--dim", 16)
    (tmp_path / latest_version(tmp_path) / "manifest.json").write_text("{}", encoding="utf-8")
    assert "damaged:" in run("list", "--out", tmp_path).stdout
    (tmp_path / "LATEST").unlink()
    refused = run("show", "--out", tmp_path, code=REFUSED)
    assert "LATEST: not there" in refused.stderr
    version = answer("list", "--out", tmp_path)["versions"][0]["version"]
    assert "format None" in run("publish", version, "--out", tmp_path, code=REFUSED).stderr


def test_without_a_terminal_each_quarter_of_the_texts_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with encoding_bar() as start:
        told = start(200)
        for _ in range(10):
            told(20)
    assert capsys.readouterr().err.splitlines() == [
        "encoding 200 texts", "encoded 60 of 200", "encoded 100 of 200", "encoded 160 of 200",
        "encoded 200 of 200",
    ]  # fmt: skip


def test_the_root_comes_from_the_environment_too(items: Path, tmp_path: Path) -> None:
    env = {"TRACKER_ARTIFACTS": str(tmp_path / "a")}
    run("build", items, "--dim", "16", env=env)
    run("list", env=env)
    assert "TRACKER_ARTIFACTS" in run("list", "-h").stdout


def test_the_root_is_that_of_the_tracker_where_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "artifacts: no version; build one with" in run("list").stdout
    assert load_settings({}).artifacts == "artifacts"


def test_bad_items_have_an_exit_code_of_their_own(items: Path, tmp_path: Path) -> None:
    with items.open("a", encoding="utf-8") as file:
        file.write('{"item_id": "item-3", "text": "again"}\nnonsense\n')
    refused = run("build", items, "--out", tmp_path, code=BAD_ITEMS)
    assert "2 of 32 items cannot be used" in refused.stderr
    assert (
        f"{items}, line 31: item_id 'item-3' again; it is at {items}, line 4 already"
        in refused.stderr
    )
    assert f"{items}, line 32: not JSON" in refused.stderr
    built = run("build", items, "--out", tmp_path, "--dim", 16, "--skip-bad-items")
    assert "2 items left out" in built.stderr
    assert "30 items" in built.stdout


def test_items_without_text_are_named_and_built(items: Path, tmp_path: Path) -> None:
    with items.open("a", encoding="utf-8") as file:
        file.writelines(f'{{"item_id": "empty-{n}", "title": ""}}\n' for n in range(7))
    built = run("build", items, "--out", tmp_path, "--dim", 16, "--json")
    assert "7 of 37 items have no text" in built.stderr
    assert "they are: empty-0, empty-1, empty-2" in built.stderr
    assert '"live":37' in built.stdout
    assert '"without_text":7' in built.stdout
    assert '"skipped":0' in built.stdout


def test_an_absent_file_and_an_empty_catalogue_are_bad_items(tmp_path: Path) -> None:
    absent = run("build", tmp_path / "absent", "--out", tmp_path, code=BAD_ITEMS)
    assert "cannot be read: No such file" in absent.stderr
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert "no item" in run("build", empty, "--out", tmp_path, code=BAD_ITEMS).stderr


def test_a_recall_too_low_has_an_exit_code_of_its_own(
    items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.items.index.recall_at_10", lambda *_: 0.9)
    refused = run("build", items, "--out", tmp_path / "a", "--dim", 16, code=RECALL_TOO_LOW)
    assert "recall@10 of the flat index is 0.9000" in refused.stderr
    assert not (tmp_path / "a" / "LATEST").exists()


def test_a_change_of_basis_is_refused_or_announced(items: Path, tmp_path: Path) -> None:
    run("build", items, "--out", tmp_path, "--dim", 16)
    changed = ("build", items, "--out", tmp_path, "--half-life", 60, "--half-life", 3600)
    assert "build with --refit to do so" in run(*changed, code=REFUSED).stderr
    assert "the basis changed" in run(*changed, "--refit").stderr


def test_a_root_that_cannot_be_written_is_named(items: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run("build", items, "--out", tmp_path / "file", "--dim", 16, code=REFUSED)
    assert f"{tmp_path}/file: not a folder" in refused.stderr


def test_fields_that_are_not_used_are_mentioned(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"item_id": "a", "text": "axe", "price": 3}\n', encoding="utf-8")
    assert "fields not used: price" in run("build", path, "--out", tmp_path, "--dim", 16).stderr


def test_a_model_that_is_not_there_is_refused(
    items: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    refused = run("build", items, "--out", tmp_path, "--model", "./absent", code=REFUSED)
    assert "indexer: ./absent: no such folder" in refused.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("build", "--out", "x"),
        ("build", "x", "--out", "x", "--half-life", "0"),
        ("build", "x", "--out", "x", "--min-recall", "2"),
        ("build", "x", "--out", "x", "--dim", "many"),
        ("publish", "--out", "x"),
        ("nonsense",),
    ],
)
def test_wrong_use_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    run(*arguments, code=2)


@pytest.mark.parametrize("command", ["build", "list", "show", "rollback", "publish"])
def test_every_command_has_help_with_its_exit_codes(command: str) -> None:
    text = run(command, "--help").stdout
    assert "Exit codes: 0 success" in text
    assert "--json" in text


def test_it_runs_as_a_module_without_loading_torch() -> None:
    code = (
        "import sys; from indexer.cli.main import main; main(['list', '--out', 'absent'],"
        " standalone_mode=False); print(*{'torch', 'faiss', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.splitlines()[-1].split()
    assert subprocess.run([sys.executable, "-m", "indexer", "--help"], check=False).returncode == 0
