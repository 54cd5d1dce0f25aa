"""The generated parts of README.md and docs/: `python -m docs.generate` writes them.

A page marks a part by `<!-- table: NAME -->` and `<!-- end -->`. The code gives what stands between
them; everything else is written by hand. Where the code has a name and no text for it, the text is
in `docs/meanings.py`, and a name without a text is a KeyError. The table of figures of the READMEs
is written by `benchmarks/figures.py`.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from docs import meanings
from indexer.cli.main import main as indexer_cli
from indexer.data.schemas import schema_of
from tracker.api.openapi import PROBLEMS
from tracker.api.routes import PREFIX as API
from tracker.api.routes import ROUTES
from tracker.cli.main import cli as tracker_cli
from tracker.events.item_events import ITEM_EVENT
from tracker.events.kinds import DEFAULT_KINDS
from tracker.events.wire import REASONS
from tracker.items.layout import COUNTED, ITEM_HEAD, NEIGHBOUR, SCENE
from tracker.kafka.rights import ROLES, rights_of
from tracker.kafka.topics import wanted_topics
from tracker.settings import PREFIX, Settings, load_settings
from tracker.store.owed import PendingList
from tracker.store.partition_store import HandOverPosition, Position
from tracker.stream.metrics import Metrics
from tracker.users.config import InterestConfig
from tracker.users.states import row_dtype
from tracker.worker.web import add_pages

ROOT = Path(__file__).parents[1]
PART = re.compile(r"(<!-- table: (?!figures )([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NUMBERS = {"V": "bytes", "f": "float", "i": "int", "u": "uint"}


# Text.


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    lines.insert(1, ["---"] * len(head))
    return "\n".join("|" + "|".join(f" {c} " if c else " " for c in line) + "|" for line in lines)


def plain(text: str) -> str:
    """Return a text of the code as Markdown that shows it as it is."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*<\[])", r"\\\1", part) for part in parts
    )


# Settings.


def settings(fields: tuple[str, ...]) -> str:
    """Return the table of some settings."""
    rows = []
    for name in fields:
        info = Settings.model_fields[name]
        default = "" if info.default in (None, "") else f"`{info.default}`"
        rows.append(
            [f"`{PREFIX}{name.upper()}`", plain(info.description or ""), default, allowed(name)]
        )
    return table(["Variable", "Meaning", "Default", "Allowed"], rows)


def allowed(name: str) -> str:
    """Return which values a setting takes."""
    info = Settings.model_fields[name]
    kinds = [kind for kind in get_args(info.annotation) or (info.annotation,) if kind is not None]
    choices = [kind for kind in kinds if isinstance(kind, str)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if name in meanings.ALLOWED:
        return meanings.ALLOWED[name]
    if info.annotation is bool:
        return "`true`, `false`"
    low = high = ""
    for bound in info.metadata:
        if (least := getattr(bound, "ge", None)) is not None:
            low = f"{least:,}" if isinstance(least, int) else f"{least:g}"
        if (most := getattr(bound, "le", None)) is not None:
            high = f"{most:,}" if isinstance(most, int) else f"{most:g}"
        if (below := getattr(bound, "gt", None)) is not None:
            low = f"more than {below:g}"
    if low and high:
        return f"{low} to {high}"
    return f"{low} or more" if low and not low.startswith("more") else low


# Formats.


def kinds() -> str:
    """Return the built-in table of weights."""
    rows = [
        [f"`{name}`", f"{kind.weight:g}", "" if kind.curve == "none" else f"`{kind.curve}`"]
        for name, kind in DEFAULT_KINDS.items()
    ]
    return table(["Kind", "Weight", "Curve of `value`"], rows)


def fields(schema: dict[str, Any], texts: dict[str, str]) -> str:
    """Return the table of an object's fields from its JSON schema."""
    required = set(schema.get("required", ()))
    rows = [
        [f"`{name}`", texts[name], json_type(part, name in required), _yes(name in required)]
        for name, part in schema["properties"].items()
    ]
    return table(["Field", "Meaning", "Type", "Required"], rows)


def _yes(true: bool) -> str:
    return "yes" if true else ""


def json_type(part: dict[str, Any], required: bool = True) -> str:
    """Return the type that a JSON schema asks for, in words; null only if the field is required.

    >>> json_type({"anyOf": [{"type": "string"}, {"type": "null"}]})
    'string or null'
    """
    if "anyOf" in part:
        names = dict.fromkeys(json_type(one) for one in part["anyOf"])
        return " or ".join(name for name in names if required or name != "null")
    if "enum" in part:
        return "string"
    if "$ref" in part:
        return "object"
    if part["type"] == "array":
        return f"list of {json_type(part['items'])}s"
    return str(part["type"])


def format_fields(name: str, definition: str = "") -> str:
    """Return the fields of one of the formats, or of a part of it."""
    schema = schema_of(name)
    if definition:
        schema = schema["$defs"][definition]
    return fields(schema, meanings.FIELDS[definition.lower() or name])


def struct_fields(kind: type[Any], texts: dict[str, str]) -> str:
    """Return the fields of a row that is kept as JSON."""
    rows = []
    for field in msgspec.structs.fields(kind):
        name = getattr(field.type, "__name__", str(field.type).rpartition(".")[2])
        rows.append([f"`{field.name}`", texts[field.name], meanings.PYTHON_TYPES[name]])
    return table(["Field", "Meaning", "Type"], rows)


def reasons() -> str:
    """Return the table of the reasons of rejection."""
    return table(["Reason", "Meaning"], [[f"`{name}`", meanings.REASONS[name]] for name in REASONS])


def rights() -> str:
    """Return the table of the rights of each role, by the settings' defaults and with all keys."""
    settings = load_settings({}).model_copy(update={"user_keys": True})
    rows = []
    for role in ROLES:
        mine, text = rights_of(settings, role, of="shop"), []
        if role in ("doctor", "replay"):
            own = settings.model_copy(update={"stream": "shop" if role == "replay" else ""})
            theirs = rights_of(own, "worker")
            mine, text = [right for right in mine if right not in theirs], ["as a worker"]
        by_name: dict[tuple[str, str], list[str]] = {}
        for right in mine:
            star = "*" * right.prefixed
            by_name.setdefault((right.resource, right.name + star), []).append(right.operation)
        by_operations: dict[tuple[str, str], list[str]] = {}
        for (resource, name), operations in by_name.items():
            words = ", ".join(f"`{word}`" for word in operations)
            by_operations.setdefault((resource, words), []).append(f"`{name}`")
        for (resource, words), names in by_operations.items():
            what = resource.replace("-id", " ids") if len(names) == 1 else f"{resource}s"
            text.append(f"{words} on the {what} {', '.join(names)}")
        rows.append([f"`{role}`", meanings.RIGHTS[role], "; ".join(text)])
    return table(["Role", "Who", "Needs"], rows)


def topics() -> str:
    """Return the table of the topics, by the settings' defaults."""
    rows = []
    for topic in wanted_topics(load_settings({}).model_copy(update={"user_keys": True})):
        policy, stamp = topic.config["cleanup.policy"], topic.config.get("message.timestamp.type")
        text = meanings.TOPICS[topic.role]
        rows.append(
            [
                f"`{topic.name}`",
                text.holds,
                text.key,
                str(topic.partitions),
                f"`{policy}`",
                f"`{stamp}`" if stamp else "as the broker has it",
            ]
        )
    head = ["Topic", "Holds", "Key", "Partitions", "`cleanup.policy`", "`message.timestamp.type`"]
    return table(head, rows)


# Commands.


def commands(group: click.Group, program: str) -> str:
    """Return the list of a program's commands, and each with its usage, help and options."""
    rows = [
        [f"[`{program} {name}`](#{program}-{name})", plain(first_sentence(command))]
        for name, command in group.commands.items()
    ]
    parts = [table(["Command", "What it does"], rows)]
    shown = group.context_settings.get("show_default")
    for name, command in group.commands.items():
        parent = click.Context(group, info_name=program, **group.context_settings)
        context = click.Context(command, parent, f"{program} {name}", show_default=shown)
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"## {program} {name}", f"```text\n{program} {name} {usage}\n```"]
        parts += paragraphs(command.help or "")
        options = [part for part in command.params if isinstance(part, click.Option)]
        parts.append(table(["Option", "Meaning"], [option_row(one, context) for one in options]))
    return "\n\n".join(parts)


def first_sentence(command: click.Command) -> str:
    """Return the first sentence of a command's help."""
    return re.split(r"(?<=\.) ", " ".join((command.help or "").split("\n\n")[0].split()))[0]


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a help text."""
    return [plain(" ".join(part.split())) for part in text.split("\n\n")]


def option_row(option: click.Option, context: click.Context) -> list[str]:
    """Return an option and its meaning."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    if not option.is_flag:
        names += f" `{metavar(option, context)}`"
    help_text = option.help or meanings.OPTIONS[option.opts[0]]
    text, _, default = help_text.partition("[default: ")
    notes = [f"Default: {plain(default.rstrip(']'))}."] if default else []
    shows = context.show_default if option.show_default is None else option.show_default
    value = option.get_default(context)
    if shows and value != "" and isinstance(value, int | float | str) and not option.is_flag:
        notes.append(
            f"Default: `{value:g}`." if isinstance(value, float) else f"Default: `{value}`."
        )
    if option.envvar and option.show_envvar:
        notes.append(f"Or set `{option.envvar}`.")
    if option.required:
        notes.append("Required.")
    if option.multiple and "repeat" not in text.lower():
        notes.append("May be repeated.")
    return [names, " ".join(filter(None, [plain(text.strip()), *notes]))]


def metavar(option: click.Option, context: click.Context) -> str:
    """Return what stands for an option's value; for a number the range that is allowed."""
    kind = option.type
    if option.metavar is None and isinstance(kind, click.IntRange | click.FloatRange):
        low = "" if kind.min is None else f"{'> ' if kind.min_open else ''}{kind.min:g}"
        if kind.max is None:
            return low if kind.min_open else f"{low} or more"
        return f"{low} to {kind.max:g}"
    return option.make_metavar(context)


# Operation.


def metrics() -> str:
    """Return the table of all metrics."""
    registry: CollectorRegistry = Metrics().registry
    labels = {f"tracker_{key}": value for key, value in meanings.METRIC_LABELS.items()}
    rows = []
    for family in registry.collect():
        shown = f"{family.name}_total" if family.type == "counter" else family.name
        text = f"{family.documentation[0].upper()}{plain(family.documentation[1:])}."
        more = meanings.METRICS.get(family.name, "")
        rows.append(
            [f"`{shown}`", f"{text} {more}".strip(), family.type, labels.get(family.name, "")]
        )
    return table(["Metric", "Meaning", "Type", "Labels"], rows)


def paths() -> str:
    """Return the table of the paths of a worker's web server."""
    found: list[str] = []

    class Recorder:
        def page(self, path: str) -> Callable[[Any], Any]:
            found.append(path)
            return lambda handler: handler

    recorder: Any = Recorder()
    nothing: Any = None
    add_pages(recorder, nothing, nothing, nothing)
    return table(["Path", "Answer"], [[f"`{path}`", meanings.PATHS[path]] for path in found])


def routes() -> str:
    """Return the table of the routes of the API."""
    rows = [[f"`{route.method} {API}{route.path}`", route.summary, route.scope] for route in ROUTES]
    return table(["Route", "Answer", "Token"], rows)


def problems() -> str:
    """Return the table of the statuses of problems."""
    rows = [[str(status), text] for status, text in PROBLEMS.items()]
    return table(["Status", "Meaning"], rows)


# Rows of states.


def comments(layout: str) -> dict[str, str]:
    """Return the comment beside each field of the numpy layout of that name."""
    start = f"\n{layout} = np.dtype(\n"
    sources = [path.read_text() for path in (ROOT / "tracker").rglob("*.py")]
    (source,) = [source for source in sources if start in source]
    block = source.split(start)[1].split("\n)\n")[0]
    found = re.findall(
        r'\(\s*"(\w+)",\s*"<?[fiu]\d",?\s*(?:\(\w+,\),?)?\s*\),\s+# (.*(?:\n\s+# .*)*)', block
    )
    return {name: re.sub(r"\s*\n\s+# ", " ", text) for name, text in found}


def number_type(dtype: np.dtype[Any]) -> str:
    """Return a field's type, such as `float32 x 4 x 64`."""
    base, shape = (dtype.base, dtype.shape)
    name = f"{NUMBERS[base.kind]}{base.itemsize * 8}" if base.kind in "fiu" else "record"
    return name + "".join(f" x {n}" for n in shape)


def layout(dtype: np.dtype[Any], texts: dict[str, str]) -> str:
    """Return the table of a layout, byte by byte."""
    assert dtype.fields is not None
    rows = [
        [f"`{name}`", texts.get(name, ""), number_type(field), str(offset), str(field.itemsize)]
        for name, (field, offset, *_) in dtype.fields.items()
    ]
    return table(["Field", "Meaning", "Type", "Offset", "Bytes"], rows)


def user_part(name: str, texts: dict[str, str]) -> str:
    """Return the table of one part of a user's row."""
    found = row_dtype(InterestConfig()).fields
    assert found is not None
    return layout(found[name][0].base, texts)


PARTS: dict[str, Callable[[], str]] = {
    **{
        f"settings-{group}": lambda names=names: settings(names)  # type: ignore[misc]
        for group, names in meanings.SETTING_GROUPS.items()
    },
    "kinds": kinds,
    "event": lambda: format_fields("event"),
    "item": lambda: format_fields("item"),
    "user": lambda: format_fields("user"),
    "recommendation": lambda: format_fields("recommendation"),
    "recommended-item": lambda: format_fields("recommendation", "RecommendedItem"),
    "recommended-parts": lambda: format_fields("recommendation", "Parts"),
    "recommended-interest": lambda: format_fields("recommendation", "Interest"),
    "rejection": lambda: format_fields("rejection"),
    "reasons": reasons,
    "topics": topics,
    "rights": rights,
    "tracker-commands": lambda: commands(tracker_cli, "tracker"),
    "indexer-commands": lambda: commands(indexer_cli, "indexer"),
    "metrics": metrics,
    "paths": paths,
    "routes": routes,
    "problems": problems,
    "row": lambda: layout(row_dtype(InterestConfig()), meanings.USER_ROW),
    "header": lambda: user_part("header", meanings.USER_HEADER),
    "head": lambda: user_part("head", comments("HEAD")),
    "interest": lambda: user_part("slots", comments("INTEREST")),
    "ring": lambda: user_part("ring", comments("RING")),
    "item-head": lambda: layout(ITEM_HEAD, comments("ITEM_HEAD")),
    "counted": lambda: layout(COUNTED, comments("COUNTED")),
    "scene": lambda: layout(SCENE, comments("SCENE")),
    "neighbour": lambda: layout(NEIGHBOUR, comments("NEIGHBOUR")),
    "item-event": lambda: layout(ITEM_EVENT, comments("ITEM_EVENT")),
    "position": lambda: struct_fields(Position, meanings.POSITION),
    "position-hand-over": lambda: struct_fields(HandOverPosition, meanings.HAND_OVER),
    "owed": lambda: struct_fields(PendingList, meanings.PENDING_LIST),
}
"""What makes each part."""


# Pages.


def pages() -> Iterator[Path]:
    """Yield README.md and every page of docs/."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def renew(text: str) -> str:
    """Return the text of a page with its marked parts as the code has them now."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}\n{part[3]}", text)


def main() -> None:
    """Write every page that has changed."""
    for page in pages():
        text = page.read_text()
        if (new := renew(text)) != text:
            page.write_text(new)


if __name__ == "__main__":
    main()
