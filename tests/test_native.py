"""The decorator of kernels."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tests.paths import ROOT
from tracker.native import native, reordered


@native
def doubled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2.0 * values


@reordered
def total(values: NDArray[np.float64]) -> float:
    found = 0.0
    for value in values:
        found += value
    return found


def test_a_kernel_gives_what_its_plain_function_gives() -> None:
    values = np.arange(3.0)
    np.testing.assert_array_equal(doubled(values), [0.0, 2.0, 4.0])
    np.testing.assert_array_equal(cast(Any, doubled).py_func(values), [0.0, 2.0, 4.0])


def test_sums_may_be_reordered_and_nan_stays_nan() -> None:
    assert total(np.arange(100.0)) == 4950.0
    assert np.isnan(total(np.array([1.0, np.nan])))


def test_code_is_cached_under_a_digest_of_all_it_can_depend_on(tmp_path: Path) -> None:
    script = tmp_path / "asks.py"
    script.write_text(
        "from tracker.events import hash_id\n"
        "from tracker.native import _digest\n"
        "print(_digest('__main__'))\n"
    )

    def digest(root: Path) -> str:
        command = [sys.executable, str(script)]
        environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, cwd=tmp_path
        ).stdout

    copy = tmp_path / "copy" / "tracker"
    copy.mkdir(parents=True)
    for name in ("__init__.py", "events.py", "native.py", "kinds.py"):
        (copy / name).write_bytes((ROOT / "tracker" / name).read_bytes())
    before = digest(copy.parent)
    (copy / "kinds.py").write_text("# not imported")
    assert digest(copy.parent) == before
    (copy / "events.py").write_bytes((ROOT / "tracker" / "events.py").read_bytes() + b"\n")
    assert digest(copy.parent) != before


def test_a_kernel_keeps_its_name() -> None:
    assert cast(Any, doubled).__qualname__ == "doubled"
