"""Native code, compiled once for all tests: `python -m tests.compiled` before them.

Tests run in several processes, and so do the workers that they start. Where nothing is compiled
yet, all of them would compile the same at once, for minutes.
"""

import fcntl
import sys
import tempfile
from pathlib import Path
from typing import Any

from numba.core.dispatcher import Dispatcher


def take_turns() -> None:
    """Let this process wait for code that another one compiles, and load it then.

    A kernel that others call is compiled anew as a part of them, without a look into the cache
    (tracker/kernels/native.py). So nobody who compiles a kernel waits for another one.
    """
    dispatcher: Any = Dispatcher
    compile_now = dispatcher.compile

    def compile_in_turn(kernel: Any, signature: Any) -> Any:
        file = getattr(kernel._cache, "_cache_file", None)
        if file is None:
            return compile_now(kernel, signature)
        path = Path(f"{file._index_path}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return compile_now(kernel, signature)

    dispatcher.compile = compile_in_turn


def main() -> None:
    """Compile what a worker needs, in two processes."""
    from tests.shop import build_shop, shop_items
    from tracker.settings import load_settings
    from tracker.worker.compilation import compile_kernels

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "artifacts")
        build_shop(root, shop_items(60))
        settings = load_settings({}, artifacts=str(root), data_dir=Path(folder, "data"))
        seconds = compile_kernels(settings)
    sys.stdout.write(f"native code is ready after {seconds:.0f} s\n")


if __name__ == "__main__":
    main()
