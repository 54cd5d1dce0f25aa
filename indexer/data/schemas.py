"""JSON Schemas of the formats, made from the classes that read and write them.

python -m indexer.data.schemas schemas    # writes schemas/, as `make schemas` does
"""

import json
import sys
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from indexer.data.catalog import Item
from tracker.events.wire import REASONS, OtherEvent, Recommendation, Rejection, User

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FORMATS: dict[str, type] = {
    "event": OtherEvent,
    "recommendation": Recommendation,
    "rejection": Rejection,
    "item": Item,
    "user": User,
}


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one of FORMATS.

    Rules that are checked in code are added by hand: an event is an action, a retraction or
    a join, an item has a text or a title. The schema of a rejection describes its headers, whose
    values are text.

    Raises:
        KeyError: another name.
    """
    (reference,), definitions = msgspec.json.schema_components(
        [FORMATS[name]], ref_template="#/$defs/{name}"
    )
    schema: dict[str, Any] = dict(definitions.pop(reference["$ref"].rsplit("/", 1)[1]))
    if name == "event":
        schema["anyOf"] = [
            _given("item_id", "kind", "timestamp"),
            _given("retracts"),
            _given("item_id", "takes_back"),
            _given("was"),
        ]
        schema["title"] = "Event"
    if name == "item":
        schema["anyOf"] = [_given("text"), _given("title")]
    if name == "rejection":
        schema["properties"]["reason"] = {"enum": list(REASONS)}
    if definitions:
        schema["$defs"] = definitions
    for part in (schema, *definitions.values()):
        part["description"] = cleandoc(part["description"])
    return {"$schema": DIALECT, "$id": f"{name}.schema.json", **schema}


def _given(*fields: str) -> dict[str, Any]:
    """Return the part of a schema that requires fields, not null."""
    return {
        "required": list(fields),
        "properties": {field: {"not": {"type": "null"}} for field in fields},
    }


def render(name: str) -> str:
    """Return the content of the file of a schema."""
    return json.dumps(schema_of(name), indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """Write all schemas into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in FORMATS:
        path = folder / f"{name}.schema.json"
        path.write_text(render(name), encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
