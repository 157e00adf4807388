"""A fixed list of compiled calls as one call: what a step costs in Python is paid once, not per kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from bmi_components.kernels.jit import compile_function

__all__ = ["Call", "Program", "repeated"]

Call = tuple[Any, tuple[int, ...]]
"""A compiled function and its arguments: counts and addresses, nothing else."""

_ARGUMENTS = 13
"""As many as the function with the most takes; the others ignore what they are given beyond theirs."""


@cache
def _runner() -> Any:
    """Compile ``run(count, records)``: each record is a function's address and its arguments, all 64-bit.

    Every kernel takes integers and pointers only and returns nothing, so one signature serves all: in the calling
    conventions of x86-64 and ARM64 the caller owns the argument area, and surplus arguments do no harm.
    """
    loads = "\n".join(
        f"  %p{i} = getelementptr i64, ptr %record, i64 {i + 1}\n  %a{i} = load i64, ptr %p{i}"
        for i in range(_ARGUMENTS)
    )
    arguments = ", ".join(f"i64 %a{i}" for i in range(_ARGUMENTS))
    ir = f"""
define void @program(i64 %count, ptr %records) {{
entry:
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %call, label %done
call:
  %i = phi i64 [ 0, %entry ], [ %i1, %call ]
  %offset = mul i64 %i, {_ARGUMENTS + 1}
  %record = getelementptr i64, ptr %records, i64 %offset
  %function = load ptr, ptr %record
{loads}
  call void %function({arguments})
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %count
  br i1 %more, label %call, label %done
done:
  ret void
}}"""
    return compile_function(ir, "program", [ctypes.c_int64, ctypes.c_void_p])


@cache
def _repeater() -> Any:
    """Compile a loop over ``function(count, input, output)`` whose addresses move on by a step of bytes."""
    ir = """
define void @repeat(i64 %times, ptr %function, i64 %count, i64 %input, i64 %input_step, i64 %output, i64 %output_step) {
entry:
  br label %call
call:
  %i = phi i64 [ 0, %entry ], [ %i1, %call ]
  %in = phi i64 [ %input, %entry ], [ %in1, %call ]
  %out = phi i64 [ %output, %entry ], [ %out1, %call ]
  call void %function(i64 %count, i64 %in, i64 %out)
  %in1 = add i64 %in, %input_step
  %out1 = add i64 %out, %output_step
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %times
  br i1 %more, label %call, label %done
done:
  ret void
}"""
    return compile_function(ir, "repeat", [ctypes.c_int64] * 7)


def repeated(call: Call, times: int, step: int) -> Call:
    """Return a call of ``function(count, input, output)`` for rows of memory that lie ``step`` bytes apart."""
    if times == 1:
        return call
    function, (count, inputs, outputs) = call
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    return _repeater(), (times, address, count, inputs, step, outputs, step)


class Program:
    """Compiled calls with fixed arguments, run in order by ``run()``.

    The caller keeps the arrays behind the addresses alive and in place.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._functions = [function for function, _ in calls]
        self._records = np.zeros((len(calls), _ARGUMENTS + 1), np.int64)
        for record, (function, arguments) in zip(self._records, calls, strict=True):
            record[0] = ctypes.cast(function, ctypes.c_void_p).value or 0
            record[1 : 1 + len(arguments)] = arguments
        self._arguments = (len(calls), self._records.ctypes.data)
        self._runner = _runner()

    def change(self, call: int, argument: int, value: int) -> None:
        """Change one argument of one call (counted from 0, or from the end if negative)."""
        self._records[call, 1 + argument] = value

    def run(self) -> None:
        """Run the calls."""
        self._runner(*self._arguments)
