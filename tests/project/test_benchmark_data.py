"""The public data sets of docs/figures/ in the format of the indexer, on a few lines of each."""

import time
from pathlib import Path

import pytest

from benchmarks.data import READERS, films, groceries, write
from benchmarks.quality import FILES, FILMS
from indexer.data.catalog import read_items
from indexer.data.histories import read_event_log
from indexer.data.users import read_users
from tracker.events.kinds import Kinds

RATINGS = "1::0000002::7::1365029107\n1::0000001::8::1365029000\n2::0000002::9::1365029107\n"
MOVIES = "0000001::One (1915)::Drama|War\n0000002::Two (1916)::\n"
BOUGHT = """household_id,store_id,basket_id,product_id,quantity,transaction_timestamp
9,3,b2,11,2.0,2017-01-01 12:30:27
8,3,b1,10,1.0,2017-01-01 12:30:27
8,3,b0,12,1.0,2017-01-01 10:00:00
7,4,b3,10,1.0,2017-01-02 10:00:00
"""
PRODUCTS = """product_id,department,product_category,product_type
10,GROCERY,NA,TUNA
11,GROCERY,SNACKS,CHEESE SNACKS
12,GROCERY,NA,NA
"""
HOUSEHOLDS = "household_id,age,income\n8,65+,\n9,NA,35-49K\n"


def test_films_are_in_order_of_time_and_the_indexer_reads_them(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(RATINGS)
    (tmp_path / "movies.dat").write_text(MOVIES)
    write(films(tmp_path), tmp_path / FILMS)
    items = read_items([tmp_path / FILMS / FILES["items"]]).items
    assert [(item.item_id, item.title, item.categories) for item in items] == [
        ("tt0000001", "One (1915)", ["Drama", "War"]),
        ("tt0000002", "Two (1916)", []),
    ]
    log = read_event_log([tmp_path / FILMS / FILES["events"]], Kinds.default(0, 10), time.time())
    assert log.batch.times.tolist() == [1365029000.0, 1365029107.0, 1365029107.0]
    assert [log.user_ids[user] for user in log.users] == ["1", "1", "2"]
    assert log.batch.values.tolist() == [8.0, 7.0, 9.0]


def test_groceries_are_product_types_numbered_as_they_are_first_bought(tmp_path: Path) -> None:
    (tmp_path / "transactions_sample.csv").write_text(BOUGHT)
    (tmp_path / "products.csv").write_text(PRODUCTS)
    (tmp_path / "demographics.csv").write_text(HOUSEHOLDS)
    write(groceries(tmp_path), tmp_path)
    items = read_items([tmp_path / FILES["items"]]).items
    assert [(item.item_id, item.title, item.categories) for item in items] == [
        ("p1", "Tuna", ["Grocery"]),
        ("p2", "Cheese Snacks", ["Grocery", "Snacks"]),
    ]
    log = read_event_log([tmp_path / FILES["events"]], Kinds.default(), time.time())
    assert [log.user_ids[user] for user in log.users] == ["8", "9", "7"]
    assert log.batch.times[0] == 1483273827.0
    assert set(log.scene_names.values()) == {"store-3", "store-4"}
    users = read_users([tmp_path / FILES["users"]]).attributes
    assert users == {"8": {"age": "65+"}, "9": {"income": "35-49K"}}


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_data_set_goes_where_the_benchmarks_look(name: str) -> None:
    assert READERS[name][1] in {"movietweetings", "completejourney"}
