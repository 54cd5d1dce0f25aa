"""Decorators that compile kernels to native code, and the one instruction that numba lacks.

Compiled code is cached on disk and runs without the interpreter's lock. numba compares only the
kernel's own file with the cache, but the code also holds what it calls and the constants it uses
from other files. So a digest of all our sources that a kernel depends on is part of the name in the
cache, and an upgrade never runs old code. Old names stay in `__pycache__` and are never read.

Several processes may compile at once. numba numbers the forms of a kernel, one for each types of
arguments, and two processes may take the same number for different forms; then code for other types
would be run. So an entry of the cache is written under a lock.
"""

import fcntl
import hashlib
import logging
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import lower_builtin, type_callable
from numpy.typing import NDArray

from tracker.kernels.parts import PartCompiler

log = logging.getLogger(__name__)

P = ParamSpec("P")

R = TypeVar("R")

_IMPORTS = re.compile(r"^from ((?:tracker|indexer)\.[\w.]+) import", re.MULTILINE)


def native(kernel: Callable[P, R]) -> Callable[P, R]:
    """Compile `kernel` with numba: cached on disk, GIL released, IEEE arithmetic kept as written.

    What is done event by event costs about a microsecond this way, and a hundred in Python. The
    plain function stays reachable as `.py_func`.
    """
    return _compile(kernel, False)


def reordered(kernel: Callable[P, R]) -> Callable[P, R]:
    """Compile `kernel` like `native`, but let sums run in the machine's wide registers.

    Their order is fixed when the code is compiled: the same numbers give the same sum, alone or in
    a batch, but not the very sum of the plain function. NaN and infinity stay what they are.
    """
    return _compile(kernel, {"reassoc", "contract", "nsz"})


def inlined(kernel: Callable[P, R]) -> Callable[P, R]:
    """Compile `kernel` like `native`, but as a part of each kernel that calls it.

    For small kernels that are called for every candidate with rows of arrays: numba counts the
    references to an array that a call is given, and LLVM cannot drop that where it does not inline
    the call. It made the features of a ranker twice as slow.
    """
    return _compile(kernel, False, inline="always")


def is_cached(kernel: Callable[..., Any]) -> bool:
    """Return whether the cache has code of a kernel, for whatever types; False if none is kept."""
    compiled: Any = kernel
    file = getattr(compiled._cache, "_cache_file", None)
    return file is not None and Path(file._index_path).exists()


def can_be_cached(kernel: Callable[..., Any]) -> bool:
    """Return whether code of a kernel is kept on disk."""
    compiled: Any = kernel
    return hasattr(compiled._cache, "_cache_file")


def _compile(
    kernel: Callable[P, R], fastmath: bool | set[str], inline: Literal["never", "always"] = "never"
) -> Callable[P, R]:
    """Return a kernel to be called from Python; other kernels that call it get a part.

    No kernel is called from C, so it has no wrapper for that. A part has none for Python either:
    with many arrays to unpack, that is as much code as the kernel. numba has a form for each value
    of an argument that it knows, as in `f(x, 0)`; a part has one for all values.
    """
    options: dict[str, Any] = {
        "nogil": True, "fastmath": fastmath, "inline": inline, "no_cfunc_wrapper": True
    }  # fmt: skip
    compiled = _dispatcher(kernel, options)

    @cache
    def part() -> Any:
        others: dict[str, Any] = {"no_cpython_wrapper": True, "pipeline_class": PartCompiler}
        return numba.njit(**options, **others)(kernel)

    def call_template(arguments: Any, named: dict[str, Any]) -> Any:
        plain = {name: types.unliteral(kind) for name, kind in named.items()}
        return part().get_call_template(tuple(map(types.unliteral, arguments)), plain)

    compiled.part = part
    compiled.get_call_template = call_template
    compiled.get_overload = lambda signature: part().get_overload(signature)
    return cast(Callable[P, R], compiled)


def _dispatcher(kernel: Callable[P, R], options: dict[str, Any]) -> Any:
    """Return numba's dispatcher of a kernel, with its code in the cache."""
    function: Any = kernel
    name = function.__qualname__
    function.__qualname__ = f"{name}-{_digest(function.__module__)}"  # numba names its files so
    try:
        compiled: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # there is no folder for the code
        _warn_of_no_folder()
        function.__qualname__ = name
        return numba.njit(**options)(function)
    function.__qualname__ = compiled.__qualname__ = name
    file = compiled._cache._cache_file
    file.save = _one_at_a_time(file.save, Path(file._cache_path))
    return compiled


@cache
def _warn_of_no_folder() -> None:
    log.warning(
        "native code is compiled at every start, for minutes: no folder for it can be written; set"
        " NUMBA_CACHE_DIR to one that can"
    )


def _one_at_a_time(save: Callable[[Any, Any], None], folder: Path) -> Callable[[Any, Any], None]:
    """Return `save` of a file of the cache, under a lock of its folder."""

    def locked(key: Any, data: Any) -> None:
        with (folder / "native.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            save(key, data)

    return locked


@cache
def _digest(module: str) -> str:
    """Return a digest of the sources of a module and of what it imports of ours, all the way."""
    sources: dict[str, bytes] = {}
    queue = [module, __name__]
    while queue:
        name = queue.pop()
        path = getattr(sys.modules.get(name), "__file__", None)
        if name in sources or path is None:
            continue
        sources[name] = Path(path).read_bytes()
        queue.extend(_IMPORTS.findall(sources[name].decode()))
    digest = hashlib.blake2b(digest_size=6)
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name] + b"\0")
    return digest.hexdigest()


_LINE_BYTES = 64


def prefetch(array: NDArray[Any], row: int) -> None:
    """Prefetch array[row], which must exist. Only in a kernel; in plain Python it is a no-op.

    The rows of candidates lie all over a catalogue. With the next one asked for while one is worked
    on, the processor waits for memory once, and not at each of them. Results are the same.
    """


@type_callable(prefetch)
def _typed(_context: Any) -> Callable[[Any, Any], Any]:
    return lambda array, row: types.none


@lower_builtin(prefetch, types.Array, types.Integer)
def _lowered(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Emit an `llvm.prefetch` (to read, into all caches, data) for each line of the row."""
    kind, integer = signature.args
    array = context.make_array(kind)(context, builder, arguments[0])
    stride = cgutils.unpack_tuple(builder, array.strides, kind.ndim)[0]
    place = context.cast(builder, arguments[1], integer, types.intp)
    data = builder.bitcast(array.data, cgutils.voidptr_t)
    start = builder.gep(data, [builder.mul(place, stride)])
    flag = ir.IntType(32)
    call = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, flag, flag, flag]),
        "llvm.prefetch.p0",
    )
    zero, line = (context.get_constant(types.intp, n) for n in (0, _LINE_BYTES))
    with cgutils.for_range_slice(builder, zero, stride, line) as (offset, _):
        builder.call(call, [builder.gep(start, [offset]), flag(0), flag(3), flag(1)])
    return context.get_dummy_value()


def copy_bytes(target: NDArray[Any], at: int, source: NDArray[Any], start: int, count: int) -> None:
    """Copy bytes from one uint8 array to another; both must hold them.

    That is checked only with NUMBA_BOUNDSCHECK=1, as indices are. A loop over bytes costs three
    times as much in a kernel, for it is compiled for arrays that may overlap.
    """
    target[at : at + count] = source[start : start + count]


@type_callable(copy_bytes)
def _typed_copy(_context: Any) -> Callable[[Any, Any, Any, Any, Any], Any]:
    return lambda target, at, source, start, count: types.none


@lower_builtin(copy_bytes, types.Array, types.Integer, types.Array, types.Integer, types.Integer)
def _lowered_copy(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Emit an `llvm.memcpy`."""
    count = context.cast(builder, arguments[4], signature.args[4], types.intp)
    places = []
    for position, place in ((0, 1), (2, 3)):
        kind = signature.args[position]
        array = context.make_array(kind)(context, builder, arguments[position])
        offset = context.cast(builder, arguments[place], signature.args[place], types.intp)
        if getattr(config, "BOUNDSCHECK", 0):
            _emit_check(context, builder, array, offset, count)
        data = builder.bitcast(array.data, cgutils.voidptr_t)
        places.append(builder.gep(data, [offset]))
    cgutils.raw_memcpy(builder, places[0], places[1], count, 1)
    return context.get_dummy_value()


def _emit_check(context: Any, builder: Any, array: Any, offset: Any, count: Any) -> None:
    """Emit an IndexError for bytes that a one-dimensional array does not hold."""
    (size,) = cgutils.unpack_tuple(builder, array.shape, 1)
    zero = context.get_constant(types.intp, 0)
    wrong = builder.or_(
        builder.icmp_signed("<", offset, zero),
        builder.or_(
            builder.icmp_signed("<", count, zero),
            builder.icmp_signed(">", builder.add(offset, count), size),
        ),
    )
    with builder.if_then(wrong, likely=False):
        context.call_conv.return_user_exc(builder, IndexError, ("bytes out of bounds",))
