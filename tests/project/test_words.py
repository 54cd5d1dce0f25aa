"""Names are nouns, docstrings begin with a noun or a verb, argument lists are short and described.

The counts may only fall. `python -m tests.project.test_words` lists what is left.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.xdist_group("words")  # the sources are parsed once

SOURCES = sorted(
    path for package in ("tracker", "indexer") for path in (ROOT / package).rglob("*.py")
)

OPENINGS = {
    "What",
    "Which",
    "How",
    "Where",
    "Whether",
    "Say",
    "Give",
    "Tell",
    "Bring",
    "Know",
    "Let",
}
"""First words that leave the reader to guess what the thing is."""
MOST_OPENINGS = 0

PARTICIPLES = {
    "asked", "attended", "begun", "chosen", "done", "drawn", "found", "given",
    "gone", "held", "judged", "kept", "known", "left", "made", "met",
    "owed", "read", "said", "shown", "taken", "told", "walked", "wanted",
}  # fmt: skip
"""Participles that stand alone as a name; as part of one they are fine (`trained_ranker`)."""
MOST_PARTICIPLES = 3

MOST_ARGUMENTS = 10
"""Things that travel together are a named tuple or a dataclass, not a longer list."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
NAMED = (
    ast.Module,
    ast.ClassDef,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.Name,
    ast.Attribute,
    ast.arg,
)


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Return every node of the sources that has a name or a docstring, with its place."""
    found: list[tuple[str, ast.AST]] = []
    for path in SOURCES:
        name = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, NAMED):
                found.append((f"{name}:{getattr(node, 'lineno', 1)}", node))
    return found


def docstrings() -> Iterator[tuple[str, str]]:
    for place, node in nodes():
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield place, text


def names() -> Iterator[tuple[str, str]]:
    """Yield the place and the name of every variable, argument, attribute and class."""
    for place, node in nodes():
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield place, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield place, node.attr
        elif isinstance(node, ast.arg):
            yield place, node.arg
        elif isinstance(node, ast.ClassDef):
            yield place, node.name


def riddling_openings() -> list[str]:
    return [
        f"{place} {text.splitlines()[0]}"
        for place, text in docstrings()
        if text.split()[0] in OPENINGS
    ]


def participles() -> list[str]:
    return [f"{place} {name}" for place, name in names() if name.strip("_").lower() in PARTICIPLES]


def parameters_of(function: Function) -> list[str]:
    """Return the names of the parameters, but for self and cls."""
    arguments = function.args
    named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    names = [argument.arg for argument in named if argument.arg not in ("self", "cls")]
    return names + [argument.arg for argument in (arguments.vararg, arguments.kwarg) if argument]


def args_that_differ() -> list[str]:
    """Return the functions and classes whose `Args:` name other parameters than they have."""
    differences = []
    for place, node in nodes():
        function: Function | None = None
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                if isinstance(item, Function) and item.name == "__init__":
                    function = item
        elif isinstance(node, Function):
            function = node
        else:
            continue
        text = ast.get_docstring(node)
        if function is None or not text or "Args:\n" not in text:
            continue
        block = text.split("Args:\n")[1].split("\n\n")[0]
        entries = re.findall(r"^ {4}\*{0,2}(\w+(?:, \w+)*):", block, re.MULTILINE)
        described = [name for entry in entries for name in entry.split(", ")]
        parameters = parameters_of(function)
        if described != parameters:
            differences.append(f"{place} {node.name}: {described} for {parameters}")
    return differences


def long_argument_lists() -> list[str]:
    return [
        f"{place} {node.name}: {len(parameters_of(node))}"
        for place, node in nodes()
        if isinstance(node, Function) and len(parameters_of(node)) > MOST_ARGUMENTS
    ]


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    assert len(riddling_openings()) <= MOST_OPENINGS


def test_participles_do_not_stand_alone_as_names() -> None:
    assert len(participles()) <= MOST_PARTICIPLES


def test_arguments_in_docstrings_are_those_of_the_signature() -> None:
    assert args_that_differ() == []


def test_argument_lists_are_short() -> None:
    assert long_argument_lists() == []


if __name__ == "__main__":
    for line in (
        *riddling_openings(), *participles(), *args_that_differ(), *long_argument_lists()
    ):  # fmt: skip
        sys.stdout.write(line + "\n")
