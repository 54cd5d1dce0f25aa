"""Compilation of what only other kernels call: it becomes machine code as a part of these."""

from typing import Any

from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


@register_pass(mutates_CFG=True, analysis_only=False)
class PartLowering(NativeLowering):
    """Lowering of a part.

    numba optimises each function with all that it calls, makes machine code of it, and links it
    into its callers, where all this is done again: with kernels that call kernels, most of the time
    of compiling. A part is linked as it was lowered. Only sums that may be reordered are optimised
    before: then their order is the same in every kernel.
    """

    _name = "part_lowering"

    def run_pass(self, state: Any) -> bool:
        """Lower the function of a compilation."""
        library = state.targetctx.codegen().create_library(state.func_id.func_qualname)
        if not state.flags.fastmath:
            library._optimize_final_module = lambda: None
        library._finalize_final_module = lambda: _finish(library)
        state.library = library
        flags = state.flags
        state.flags = flags.copy()
        state.flags.no_compile = True
        super().run_pass(state)  # type: ignore[no-untyped-call]
        state.flags = flags
        library._ensure_finalized()
        result = state["cr"]
        # Callers find the library by a builtin function, which nobody calls: any that is unique.
        key = [library].copy
        state.targetctx.insert_user_function(key, result.fndesc, [library])
        state["cr"] = result._replace(cfunc=key)
        return True


def _finish(library: Any) -> None:
    """End the work on a library that is not loaded into the process."""
    library._finalize_dynamic_globals()
    library._verify_declare_only_symbols()
    library._finalized = True


class PartCompiler(CompilerBase):
    """numba's compiler with `PartLowering`."""

    def define_pipelines(self) -> list[Any]:
        """Return numba's pipeline, with another lowering."""
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state, "part")
        pipeline.passes = [
            (PartLowering if step is NativeLowering else step, description)
            for step, description in pipeline.passes
        ]
        pipeline._finalized = False
        pipeline.finalize()
        return [pipeline]
