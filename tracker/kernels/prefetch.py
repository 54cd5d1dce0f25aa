"""Rows of an array on their way to the nearest cache before a kernel reads them."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import lower_builtin, type_callable
from numpy.typing import NDArray

_LINE_BYTES = 64


def prefetch(array: NDArray[Any], row: int) -> None:
    """Ask for array[row], which must exist. In a kernel only; in plain Python nothing is done.

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
