"""Blocks of docs/figures/ about what holds: the promises."""

from typing import Any

from benchmarks.blocks import Results, source, table


def promises(results: Results) -> str:
    """Return which tests failed without the protection of each promise."""
    result = results["promises"]
    rows = [
        [
            one["promise"],
            "<br>".join(dict.fromkeys(_name_of(test) for test in one["failed"])),
        ]
        for one in result["figures"].values()
    ]
    head = ["Promise", "tests that fail without the protection"]
    return "\n\n".join(
        [
            f"{len(rows)} promises, each with its protection taken out once:",
            table(head, rows, "---"),
            source(result),
        ]
    )


def _name_of(test: str) -> str:
    """Return a test as `file: name`, without the folders and the parameters."""
    if "::" not in test:
        return test.replace("tests/", "")
    file, name = test.split("::", 1)
    words = name.split("[", 1)[0].removeprefix("test_").replace("_", " ")
    return f"{file.rsplit('/', 1)[-1].removesuffix('.py')}: {words}"


BLOCKS: dict[str, Any] = {"promises": promises}
