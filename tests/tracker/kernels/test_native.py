"""The decorator of kernels."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any, cast

import numpy as np
import pytest
from numba.core import config, types
from numba.core.caching import CacheImpl, IndexDataCacheFile
from numpy.typing import NDArray

from tests.paths import ROOT
from tracker.kernels.native import (
    _one_at_a_time,
    _warn_of_no_folder,
    can_be_cached,
    copy_bytes,
    is_cached,
    native,
    reordered,
)


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


@native
def sum_of(number: int, more: int) -> int:
    return number + more


@native
def sum_of_several(number: int) -> int:
    return sum_of(number, 1) + sum_of(number, 2) + sum_of(number, number)


def test_what_a_kernel_calls_is_compiled_once_for_all_values_and_can_be_called_from_python() -> (
    None
):
    assert sum_of_several(5) == 6 + 7 + 10
    called: Any = sum_of
    for more in (types.literal(1), types.literal(2), types.int64):  # the caller may be cached
        called.get_call_template((types.int64, more), {})
    assert len(called.part().signatures) == 1
    assert not called.signatures
    assert sum_of(5, 1) == 6
    assert len(called.signatures) == 1


@native
def totals(rows: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    for i in range(len(rows)):
        out[i] = total(rows[i]) + 0.0


def test_a_reordered_sum_is_the_same_from_python_and_from_a_kernel() -> None:
    rows = np.random.default_rng(5).normal(size=(20, 1003))
    out = np.empty(20)
    totals(rows, out)
    assert out.tolist() == [total(row) for row in rows]


@native
def value_at(values: Any, place: int) -> float:
    return float(values[place])


@native
def value_after(values: Any, place: int) -> float:
    return value_at(values, place + 1)


def test_an_index_out_of_bounds_in_what_a_kernel_calls_is_an_error_if_bounds_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(config, "BOUNDSCHECK", 1)
    assert value_after(np.arange(3.0), 1) == 2.0
    with pytest.raises(IndexError):
        value_after(np.arange(3.0), 2)


def test_bytes_that_an_array_does_not_hold_are_refused_if_bounds_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @native
    def copy(target: Any, at: int, source: Any, start: int, count: int) -> None:
        copy_bytes(target, at, source, start, count)

    monkeypatch.setattr(config, "BOUNDSCHECK", 1)
    target, source = np.zeros(4, np.uint8), np.arange(1, 6, dtype=np.uint8)
    copy(target, 1, source, 2, 3)
    assert target.tolist() == [0, 3, 4, 5]
    for at, start, count in ((2, 0, 3), (0, 3, 3), (-1, 0, 2), (0, -1, 2), (0, 0, -1)):
        with pytest.raises(IndexError, match="bytes out of bounds"):
            copy(target, at, source, start, count)
    assert target.tolist() == [0, 3, 4, 5]


def test_kernels_work_where_no_folder_for_their_code_can_be_written(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    _warn_of_no_folder.cache_clear()

    def next_of(number: int) -> int:
        return number + 1

    assert [native(next_of)(1), reordered(next_of)(2)] == [2, 3]
    assert not can_be_cached(native(next_of))
    assert not is_cached(native(next_of))
    (line,) = caplog.messages
    assert line.endswith("no folder for it can be written; set NUMBA_CACHE_DIR to one that can")


def test_forms_of_a_kernel_that_two_processes_compile_at_once_get_numbers_of_their_own(
    tmp_path: Path,
) -> None:
    """The second process writes its entry while the first is between index and code."""
    files: Any = IndexDataCacheFile
    first, second = (files(str(tmp_path), "kernel", "stamp") for _ in range(2))
    saved: list[Thread] = []
    write = first._save_index

    def write_index_slowly(overloads: Any) -> None:
        other = Thread(target=_one_at_a_time(second.save, tmp_path), args=("of floats", b"floats"))
        other.start()
        other.join(0.2)
        saved.append(other)
        write(overloads)

    first._save_index = write_index_slowly
    _one_at_a_time(first.save, tmp_path)("of integers", b"integers")
    saved[0].join()
    assert first.load("of integers") == b"integers"
    assert first.load("of floats") == b"floats"


def test_code_is_cached_under_a_digest_of_all_it_can_depend_on(tmp_path: Path) -> None:
    """A kernel in one room depends on its own file, on what it imports of another, and no more."""
    package = tmp_path / "tracker"
    sources = {
        "__init__.py": "",
        "kernels/__init__.py": "",
        "kernels/native.py": (ROOT / "tracker" / "kernels" / "native.py").read_text(),
        "kernels/parts.py": (ROOT / "tracker" / "kernels" / "parts.py").read_text(),
        "kernels/arithmetic.py": "def halve(x): return x / 2\n",
        "items/__init__.py": "",
        "items/weights.py": "from tracker.kernels.arithmetic import halve\n",
        "users/__init__.py": "",
        "users/columns.py": "from tracker.items.weights import halve\n",
        "users/kernel.py": "from tracker.users.columns import halve\n",
        "users/unrelated.py": "",
    }
    for name, text in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    script = (
        "import sys\n"
        "from importlib import import_module, invalidate_caches\n"
        "from pathlib import Path\n"
        "for name in ('', *sys.argv[1:]):\n"
        "    for known in [one for one in sys.modules if one.partition('.')[0] == 'tracker']:\n"
        "        del sys.modules[known]\n"
        "    path = Path('tracker', name or '__init__.py')\n"
        "    text = path.read_text()\n"
        "    path.write_text(text + ('# changed\\n' if name else ''))\n"
        "    invalidate_caches()\n"
        "    import_module('tracker.users.kernel'), import_module('tracker.users.unrelated')\n"
        "    print(import_module('tracker.kernels.native')._digest('tracker.users.kernel'))\n"
        "    path.write_text(text)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    before, *after = subprocess.run(
        [sys.executable, "-c", script, *sources],
        env=environment, check=True, capture_output=True, text=True, cwd=tmp_path,
    ).stdout.split()  # fmt: skip
    changes = {name for name, digest in zip(sources, after, strict=True) if digest != before}
    assert changes == {
        "kernels/native.py",
        "kernels/parts.py",
        "kernels/arithmetic.py",
        "items/weights.py",
        "users/columns.py",
        "users/kernel.py",
    }


def test_a_kernel_keeps_its_name() -> None:
    assert cast(Any, doubled).__qualname__ == "doubled"


def test_a_kernel_is_cached_once_it_was_called(tmp_path: Path) -> None:
    source = tmp_path / "kernel_of_test.py"
    source.write_text(
        "from tracker.kernels.native import native\n\n\n"
        "@native\ndef twice(number: float) -> float:\n    return 2 * number\n"
    )
    spec = importlib.util.spec_from_file_location("kernel_of_test", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not is_cached(module.twice)
    assert can_be_cached(module.twice)
    assert module.twice(2.0) == 4.0
    assert is_cached(module.twice)
