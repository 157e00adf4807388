"""An elementwise torch function as machine code on flat arrays, in place of a chain of small tensor operations."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bmi_components.kernels.jit import compile_function
from bmi_components.kernels.lowering import Block, Float, lower
from bmi_components.kernels.tracing import trace

__all__ = ["Elementwise"]


class Elementwise:
    """``function(*inputs) -> outputs`` compiled: rows of an input array to rows of an output array.

    ``run(count, inputs, outputs)`` takes addresses: ``inputs`` is ``[arguments, count]`` and ``outputs`` is
    ``[results, count]``, both C-contiguous in ``dtype``, and may be the same memory.
    """

    def __init__(
        self, function: Callable[..., Sequence[Tensor]], arguments: int, results: int, dtype: str
    ) -> None:
        float_type: Float = "float" if dtype == "float32" else "double"
        graph = trace(function, arguments)
        names = itertools.count()
        size = 4 if dtype == "float32" else 8

        def body(width: int) -> str:
            block = Block(float_type, width, names)

            def address(base: str, row: int) -> str:
                offset = block.emit(f"mul i64 {row}, %count")
                index = block.emit(f"add i64 {offset}, %i{width}")
                return block.emit(f"getelementptr {float_type}, ptr {base}, i64 {index}")

            loaded = [
                block.emit(f"load {block.vector}, ptr {address('%in', row)}, align {size}")
                for row in range(arguments)
            ]
            for row, value in enumerate(lower(graph, block, loaded)):
                block.do(f"store {block.vector} {value}, ptr {address('%out', row)}, align {size}")
            return "\n".join(block.lines)

        wide = 16 if dtype == "float32" else 4
        ir = f"""
define void @run(i64 %count, ptr %in, ptr %out) {{
entry:
  %whole = and i64 %count, {-wide}
  br label %test{wide}
test{wide}:
  %i{wide} = phi i64 [ 0, %entry ], [ %next{wide}, %body{wide} ]
  %more{wide} = icmp slt i64 %i{wide}, %whole
  br i1 %more{wide}, label %body{wide}, label %test1
body{wide}:
{body(wide)}
  %next{wide} = add i64 %i{wide}, {wide}
  br label %test{wide}
test1:
  %i1 = phi i64 [ %whole, %test{wide} ], [ %next1, %body1 ]
  %more1 = icmp slt i64 %i1, %count
  br i1 %more1, label %body1, label %done
body1:
{body(1)}
  %next1 = add i64 %i1, 1
  br label %test1
done:
  ret void
}}"""
        self.arguments, self.results, self.dtype = arguments, results, np.dtype(dtype)
        self.run = compile_function(ir, "run", [ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p])

    def __call__(self, inputs: NDArray[Any], outputs: NDArray[Any]) -> NDArray[Any]:
        """Apply to ``inputs [arguments, count]``, filling and returning ``outputs [results, count]``."""
        for array, rows in ((inputs, self.arguments), (outputs, self.results)):
            if array.shape[0] != rows or array.dtype != self.dtype or not array.flags.c_contiguous:
                raise ValueError(f"expected a C-contiguous {self.dtype} array of {rows} rows")
        self.run(inputs[0].size, inputs.ctypes.data, outputs.ctypes.data)
        return outputs
