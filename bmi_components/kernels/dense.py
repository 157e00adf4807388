"""A dense layer for one sample, ``y = bias + W x``: the weights packed for one straight pass through memory."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.kernels.jit import compile_function

__all__ = ["Dense"]

_ROWS = 64
"""Rows computed together: their sums stay in registers while the weights stream by."""


@cache
def _kernel(dtype: str) -> Any:
    float_type = "float" if dtype == "float32" else "double"
    width, size = 16, 4 if dtype == "float32" else 8
    vector = f"<{width} x {float_type}>"
    parts = range(_ROWS // width)
    loads, phis, updates, stores = [], [], [], []
    for i in parts:
        loads.append(
            f"  %b{i} = getelementptr {float_type}, ptr %bias, i64 %row{i}\n"
            f"  %start{i} = load {vector}, ptr %b{i}, align {size}"
        )
        phis.append(f"  %sum{i} = phi {vector} [ %start{i}, %block ], [ %new{i}, %column ]")
        updates.append(
            f"  %at{i} = add i64 %w, {i * width}\n"
            f"  %p{i} = getelementptr {float_type}, ptr %weights, i64 %at{i}\n"
            f"  %w{i} = load {vector}, ptr %p{i}, align {size}\n"
            f"  %new{i} = call {vector} @llvm.fma.v{width}f{size * 8}"
            f"({vector} %w{i}, {vector} %x, {vector} %sum{i})"
        )
        stores.append(
            f"  %o{i} = getelementptr {float_type}, ptr %y, i64 %row{i}\n"
            f"  store {vector} %new{i}, ptr %o{i}, align {size}"
        )
    newline = "\n"
    ir = f"""
define void @dense(i64 %blocks, i64 %columns, ptr %weights, ptr %bias, ptr %input, ptr %y) {{
entry:
  br label %block
block:
  %k = phi i64 [ 0, %entry ], [ %k1, %end ]
  %row = mul i64 %k, {_ROWS}
{newline.join(f"  %row{i} = add i64 %row, {i * width}" for i in parts)}
{newline.join(loads)}
  %base = mul i64 %row, %columns
  br label %column
column:
  %j = phi i64 [ 0, %block ], [ %j1, %column ]
{newline.join(phis)}
  %xp = getelementptr {float_type}, ptr %input, i64 %j
  %xs = load {float_type}, ptr %xp, align {size}
  %xv = insertelement {vector} poison, {float_type} %xs, i32 0
  %x = shufflevector {vector} %xv, {vector} poison, <{width} x i32> zeroinitializer
  %off = mul i64 %j, {_ROWS}
  %w = add i64 %base, %off
{newline.join(updates)}
  %j1 = add i64 %j, 1
  %more = icmp slt i64 %j1, %columns
  br i1 %more, label %column, label %end
end:
{newline.join(stores)}
  %k1 = add i64 %k, 1
  %again = icmp slt i64 %k1, %blocks
  br i1 %again, label %block, label %done
done:
  ret void
}}"""
    pointer = ctypes.c_void_p
    return compile_function(ir, "dense", [ctypes.c_int64, ctypes.c_int64, pointer, pointer, pointer, pointer])


class Dense:
    """Weights ``[outputs, inputs]`` packed in blocks of 64 rows (padded with zeros), and their product with a vector.

    ``run(blocks, columns, weights, bias, x, y)`` takes addresses; ``bias`` and ``y`` have ``rows`` elements, the
    padded number of outputs.
    """

    def __init__(self, weights: NDArray[Any]) -> None:
        outputs, self.columns = weights.shape
        self.blocks = -(-outputs // _ROWS)
        self.rows: int = self.blocks * _ROWS
        padded = np.zeros((self.rows, self.columns), weights.dtype)
        padded[:outputs] = weights
        self.weights = np.ascontiguousarray(
            padded.reshape(self.blocks, _ROWS, self.columns).transpose(0, 2, 1)
        )
        self.run = _kernel(str(weights.dtype))

    def pad(self, vector: NDArray[Any]) -> NDArray[Any]:
        """Extend a bias to ``rows`` elements."""
        padded = np.zeros(self.rows, self.weights.dtype)
        padded[: vector.size] = vector
        return padded
