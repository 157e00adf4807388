"""LLVM text to callable machine code of this processor, through llvmlite (which brings its own LLVM)."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import llvmlite.binding as llvm

__all__ = ["compile_function"]

_PRELUDE = "\n".join(
    [
        *(
            f"declare double @{name}(double)"
            for name in ("exp", "exp2", "log", "log2", "tanh", "sin", "cos", "tan", "asin", "acos", "atan")
        ),
        "declare double @pow(double, double)",
    ]
)


@cache
def _target() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # Position-independent code lets the small code model reach libm wherever the loader put it.
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
        jit=True,
    )


# An engine owns the memory of its functions: it lives as long as the process, like the functions that came from it.
_ENGINES: list[Any] = []


def compile_function(ir: str, name: str, arguments: list[Any]) -> Any:
    """Compile a module and return its function ``name`` as a ctypes callable of ``arguments`` (void result)."""
    module = llvm.parse_assembly(f'target triple = "{_target().triple}"\n{_PRELUDE}\n{ir}')
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = False
    options.slp_vectorization = False
    passes = llvm.create_pass_builder(_target(), options)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, _target_machine_for_engine())
    engine.finalize_object()
    _ENGINES.append(engine)
    return ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address(name))


def _target_machine_for_engine() -> llvm.TargetMachine:
    """MCJIT takes ownership of its target machine, so each engine gets one of its own."""
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
        jit=True,
    )
