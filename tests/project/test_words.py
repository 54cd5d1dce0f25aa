"""Names are nouns, docstrings begin with a noun or a verb of the field, `Args:` fits the signature.

The counts may only fall. `python -m tests.project.test_words` lists what is left.
"""

import ast
import re
import sys
from collections.abc import Iterator

from tests.paths import ROOT

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

Function = ast.FunctionDef | ast.AsyncFunctionDef


def docstrings() -> Iterator[tuple[str, str]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text:
                    line = getattr(node, "lineno", 1)
                    yield f"{path.relative_to(ROOT)}:{line}", text


def names() -> Iterator[tuple[str, str]]:
    """Yield the place and the name of every variable, argument, attribute and class."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
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


def args_that_differ() -> list[str]:
    """Return the functions and classes whose `Args:` name other parameters than they have."""
    differences = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
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
            arguments = function.args
            parameters = [
                a.arg
                for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
                if a.arg not in ("self", "cls")
            ]
            parameters += [a.arg for a in (arguments.vararg, arguments.kwarg) if a]
            if described != parameters:
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                differences.append(f"{place} {node.name}: {described} for {parameters}")
    return differences


def test_docstrings_begin_with_a_noun_or_a_verb() -> None:
    assert len(riddling_openings()) <= MOST_OPENINGS


def test_participles_do_not_stand_alone_as_names() -> None:
    assert len(participles()) <= MOST_PARTICIPLES


def test_arguments_in_docstrings_are_those_of_the_signature() -> None:
    assert args_that_differ() == []


if __name__ == "__main__":
    for line in (*riddling_openings(), *participles(), *args_that_differ()):
        sys.stdout.write(line + "\n")
