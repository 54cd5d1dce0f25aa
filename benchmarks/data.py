"""Bring the two public data sets of docs/figures/ into the format of the indexer.

    python -m benchmarks.data films --from DOWNLOADED --to data
    python -m benchmarks.data groceries --from DOWNLOADED --to data

`films` reads `ratings.dat` and `movies.dat` of MovieTweetings, snapshot 100K. `groceries` reads the
tables of the R package completejourney as CSV: `transactions_sample.csv`, `products.csv` and
`demographics.csv`. docs/figures/reproduce.md has the commands.
"""

import argparse
import csv
import gzip
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.quality import FILES, FILMS, GROCERIES

Lines = Iterable[dict[str, Any]]


def films(folder: Path) -> dict[str, Lines]:
    """Return items, and ratings in order of time; equal times keep the order of the file."""
    items: list[dict[str, Any]] = []
    for line in (folder / "movies.dat").read_text(encoding="utf-8").splitlines():
        movie, title, genres = line.split("::")
        categories = [genre for genre in genres.split("|") if genre]
        items.append({"item_id": f"tt{movie}", "title": title, "categories": categories})
    events: list[dict[str, Any]] = []
    for line in (folder / "ratings.dat").read_text(encoding="utf-8").splitlines():
        user, movie, rating, time = line.split("::")
        events.append(
            {
                "user_id": user,
                "item_id": f"tt{movie}",
                "kind": "rate",
                "value": float(rating),
                "timestamp": int(time),
            }
        )
    events.sort(key=lambda event: event["timestamp"])
    return {"items": items, "events": events}


def groceries(folder: Path) -> dict[str, Lines]:
    """Return items, purchases in order of time, and households.

    An item is a product type of a department; items are numbered as they are first bought. What has
    no product type is left out.
    """
    products = {row["product_id"]: row for row in _table(folder / "products.csv")}
    items: dict[tuple[str, str], dict[str, Any]] = {}
    events: list[dict[str, Any]] = []
    rows = sorted(
        _table(folder / "transactions_sample.csv"),
        key=lambda row: (row["transaction_timestamp"], row["basket_id"]),
    )
    for row in rows:
        product = products.get(row["product_id"], {})
        kind, department = product.get("product_type", ""), product.get("department", "")
        if not kind:
            continue
        item = items.setdefault(
            (department, kind),
            {
                "item_id": f"p{len(items) + 1}",
                "title": kind.title(),
                "categories": [
                    name.title() for name in (department, product["product_category"]) if name
                ],
            },
        )
        time = datetime.fromisoformat(row["transaction_timestamp"]).replace(tzinfo=UTC)
        events.append(
            {
                "user_id": row["household_id"],
                "item_id": item["item_id"],
                "kind": "purchase",
                "value": float(row["quantity"]),
                "timestamp": int(time.timestamp()),
                "scene": f"store-{row['store_id']}",
            }
        )
    users = []
    for row in _table(folder / "demographics.csv"):
        user = row.pop("household_id")
        known = {name: value for name, value in row.items() if value}
        users.append({"user_id": user, "attributes": known})
    return {"items": items.values(), "events": events, "users": users}


def _table(path: Path) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file; NA, as R writes it, is nothing."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {name: "" if value == "NA" else value for name, value in row.items()}


READERS = {"films": (films, FILMS), "groceries": (groceries, GROCERIES)}


def write(tables: dict[str, Lines], folder: Path) -> None:
    """Write each table as JSON lines, gzipped."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in tables.items():
        with gzip.open(folder / FILES[name], "wt", encoding="utf-8") as file:
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def main() -> None:
    """Convert one data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("name", choices=sorted(READERS))
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    given = parser.parse_args()
    read, folder = READERS[given.name]
    write(read(given.source), given.to / folder)


if __name__ == "__main__":
    main()
