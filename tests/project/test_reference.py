"""The numbers that docs/reference/ states by hand are those of the code."""

import re

import click
import pytest
from click.testing import CliRunner

from indexer.cli import console
from indexer.cli.main import main as indexer_cli
from tests.paths import ROOT
from tracker.api.messages import MOST_EXCLUDED, MOST_ITEMS, MOST_SCORED, MOST_SENT
from tracker.cli.main import cli as tracker_cli
from tracker.cli.shared import FAILED, STOPPED
from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.events.item_events import FORMATS as BLOCK_FORMATS
from tracker.events.kinds import DWELL_SATURATION_SECONDS, MAX_QUANTITY_FACTOR, Kind, Kinds
from tracker.events.wire import MAX_ID_BYTES
from tracker.items.config import ItemCounts
from tracker.items.layout import FORMAT as ITEM_FORMAT
from tracker.items.layout import NEIGHBOURS, SCENES
from tracker.kafka.outbox import MAX_BATCH_BYTES, MAX_REJECTED_BYTES
from tracker.kernels import row_bytes
from tracker.lookup.show import RECENT_EVENTS
from tracker.recommend.channels import CHANNELS
from tracker.recommend.learned_row import FORMAT as LEARNED_FORMAT
from tracker.store.partition_store import FORMAT as POSITION_FORMAT
from tracker.store.partition_store import NEWEST_FORMAT
from tracker.stream.metrics import LEARNING_MODELS, LEARNING_VALUES
from tracker.users.config import InterestConfig
from tracker.users.layout import FORMAT as USER_FORMAT
from tracker.users.seen import FORMAT as SEEN_FORMAT
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, RING_UNKNOWN

CONFIG = InterestConfig()


def page(name: str) -> str:
    return " ".join((ROOT / f"docs/reference/{name}.md").read_text().split())


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("events", f"have up to {MAX_ID_BYTES} bytes"),
        ("events", f"up to {MAX_FUTURE_SECONDS / 60:g} minutes ahead"),
        (
            "events",
            f"the latest {CONFIG.ring - CONFIG.ring_evict + 1} to {CONFIG.ring} events",
        ),
        ("events", f"up to {CONFIG.pending} per user wait"),
        ("kinds", f"1 - 2^(-seconds / {DWELL_SATURATION_SECONDS:g})"),
        ("kinds", f"1 + log2(quantity), up to {MAX_QUANTITY_FACTOR:g}"),
        ("kinds", f"({CONFIG.rating_min:g} to {CONFIG.rating_max:g} by default)"),
        ("rejections", f"A value above {MAX_REJECTED_BYTES // 1024} KiB"),
        ("topics", f"up to {MAX_BATCH_BYTES // 1024} KiB"),
        ("http", f"up to {MOST_SCORED:,} items"),
        ("http", f"number of items, up to {MOST_ITEMS}"),
        ("http", f"may come up to {MOST_EXCLUDED} times"),
        ("http", f"up to {MOST_SENT} [events]"),
        ("rows", f"of {CONFIG.seen_bits:,} bits and {CONFIG.seen_capacity:,} ids each"),
        ("rows", f"up to {SCENES} scenes and up to {NEIGHBOURS} neighbours"),
        *[("rows", f"| {version} | format (uint") for version in BLOCK_FORMATS],
        (
            "rows",
            f"{RING_IN_SUMS}, the item is in the sums; {RING_RETRACTED}, the event was retracted;"
            f" {RING_UNKNOWN}, the item was not",
        ),
    ],
)
def test_number_is_the_one_of_the_code(name: str, sentence: str) -> None:
    assert sentence in page(name)


def test_half_lives_of_counts_are_those_of_the_code() -> None:
    scales = ItemCounts()
    assert (scales.short_seconds, scales.long_seconds) == (86400.0, 864000.0)
    hours = [seconds / 3600 for seconds in scales.more_seconds]
    assert hours == [1 / 6, 1, 6, 72, 1440, 8766]
    assert "10 minutes, 1 hour, 6 hours, 3 days, 60 days, 1 year, and none" in page("rows")


def test_users_page_of_http_shows_the_recent_events_that_the_code_gives() -> None:
    assert RECENT_EVENTS == 10
    assert "the latest ten events" in page("http")


def test_curves_give_the_factors_that_the_page_names() -> None:
    table = {"a": Kind(1.0, "dwell"), "b": Kind(1.0, "rating"), "c": Kind(1.0, "quantity")}
    kinds = Kinds(table)
    assert [kinds.weight("a", seconds) for seconds in (60, 120)] == [0.5, 0.75]
    assert [kinds.weight("b", rating) for rating in (1, 3, 5)] == [-1, 0, 1]
    assert [kinds.weight("c", quantity) for quantity in (1, 2, 100)] == [1, 2, 4]


def test_keys_and_formats_of_rows_are_those_of_the_code() -> None:
    text = (ROOT / "docs/reference/rows.md").read_text()
    rows = re.findall(r"^\| `(\w)`.*\| (\w+(?:, \d+)*) \|$", text, re.MULTILINE)
    assert dict(rows) == {
        row_bytes.USER_PREFIX.decode(): str(USER_FORMAT),
        row_bytes.SEEN_PREFIX.decode(): str(SEEN_FORMAT),
        row_bytes.OWED_PREFIX.decode(): "none",
        row_bytes.FORGOTTEN_PREFIX.decode(): "none",
        row_bytes.ITEM_PREFIX.decode(): str(ITEM_FORMAT),
        row_bytes.POSITION_KEY.decode(): ", ".join(
            str(number) for number in range(POSITION_FORMAT, NEWEST_FORMAT + 1)
        ),
        row_bytes.LEARNED_KEY.decode(): str(LEARNED_FORMAT),
    }


def test_channels_are_those_of_the_code() -> None:
    text = (ROOT / "docs/reference/recommendations.md").read_text()
    section = text.split("\n## Channels\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(CHANNELS)


def test_exit_codes_are_those_of_the_code() -> None:
    assert (FAILED, STOPPED) == (1, 130)
    codes = (console.REFUSED, console.RECALL_TOO_LOW, console.BAD_ITEMS, console.NOT_IMPROVED)
    assert codes == (1, 3, 4, 5)
    text = (ROOT / "docs/reference/exit-codes.md").read_text()
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == ["0", "1", "2", "3", "4", "5", "130"]


def test_values_of_learning_are_those_of_the_code() -> None:
    text = page("metrics")
    for name in (*LEARNING_MODELS, *LEARNING_VALUES):
        assert f"`{name}`" in text


@pytest.mark.parametrize("command", [tracker_cli, indexer_cli])
def test_the_list_of_commands_says_of_each_in_one_whole_line_what_it_does(
    command: click.Command,
) -> None:
    told = CliRunner().invoke(command, ["--help"], terminal_width=80).output
    lines = told.split("Commands:\n")[1].splitlines()
    assert [line for line in lines if line.endswith("...")] == []
