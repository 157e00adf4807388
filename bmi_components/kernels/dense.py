"""A dense layer for one sample or four at a time, ``y = bias + W x``: the weights packed for a straight pass through.

Every sum runs over the inputs in the same order, whichever kernel does it, so one sample among many gets the very bits
that it gets alone.
"""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.kernels.jit import compile_function
from bmi_components.kernels.program import Call

__all__ = ["SAMPLES", "Dense", "aligned_zeros"]

SAMPLES = 4
"""Samples computed together, so that each weight is loaded once for them; more would not leave room in registers."""
_PANEL = 16
"""Rows that lie together: a column of them is one cache line of float32, and their sums stay in registers."""
_PANELS = 4
"""Panels computed together for one sample, whose sums are too few to keep the arithmetic busy otherwise."""
_CACHE_LINE = 64


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any] | str) -> NDArray[Any]:
    """Return zeros that begin at a cache line, so that no vector of them lies across two."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


@cache
def _kernel(dtype: str, panels: int, samples: int) -> Any:
    """Compile the product of blocks of ``panels`` with groups of ``samples``.

    ``run(blocks, groups, columns, weights, bias, bias_step, x, x_step, y, y_step)``: steps are from one sample to the
    next, in elements.
    """
    f, size = ("float", 4) if dtype == "float32" else ("double", 8)
    vector = f"<{_PANEL} x {f}>"
    fma = f"{vector} @llvm.fma.v{_PANEL}f{size * 8}"

    def over_panels(line: str) -> str:
        return "\n".join(line.format(p=p, offset=p * _PANEL) for p in range(panels))

    def over_samples(line: str) -> str:
        return "\n".join(line.format(s=s) for s in range(samples))

    def over_both(line: str) -> str:
        return "\n".join(
            line.format(s=s, p=p, offset=p * _PANEL) for s in range(samples) for p in range(panels)
        )

    ir = f"""
define void @dense(i64 %blocks, i64 %groups, i64 %columns, ptr %weights, ptr %bias, i64 %bias_step,
                   ptr %x, i64 %x_step, ptr %y, i64 %y_step) {{
entry:
  %panel = mul i64 %columns, {_PANEL}
  br label %block
block:
  %k = phi i64 [ 0, %entry ], [ %k1, %block.end ]
  %row = mul i64 %k, {_PANEL * panels}
  %base = mul i64 %row, %columns
{
        over_panels(f'''  %skip{{p}} = mul i64 %panel, {{p}}
  %at{{p}} = add i64 %base, %skip{{p}}
  %panel{{p}} = getelementptr {f}, ptr %weights, i64 %at{{p}}''')
    }
  br label %group
group:
  %g = phi i64 [ 0, %block ], [ %g1, %group.end ]
  %first = mul i64 %g, {samples}
{
        over_samples(f'''  %sample{{s}} = add i64 %first, {{s}}
  %xs{{s}} = mul i64 %sample{{s}}, %x_step
  %x{{s}} = getelementptr {f}, ptr %x, i64 %xs{{s}}
  %bs{{s}} = mul i64 %sample{{s}}, %bias_step
  %br{{s}} = add i64 %bs{{s}}, %row
  %bias{{s}} = getelementptr {f}, ptr %bias, i64 %br{{s}}
  %ys{{s}} = mul i64 %sample{{s}}, %y_step
  %yr{{s}} = add i64 %ys{{s}}, %row
  %y{{s}} = getelementptr {f}, ptr %y, i64 %yr{{s}}''')
    }
{
        over_both(f'''  %bp{{s}}.{{p}} = getelementptr {f}, ptr %bias{{s}}, i64 {{offset}}
  %start{{s}}.{{p}} = load {vector}, ptr %bp{{s}}.{{p}}, align {size}''')
    }
  br label %column
column:
  %j = phi i64 [ 0, %group ], [ %j1, %column ]
{over_both(f"  %sum{{s}}.{{p}} = phi {vector} [ %start{{s}}.{{p}}, %group ], [ %new{{s}}.{{p}}, %column ]")}
  %wj = mul i64 %j, {_PANEL}
{
        over_panels(f'''  %wp{{p}} = getelementptr {f}, ptr %panel{{p}}, i64 %wj
  %w{{p}} = load {vector}, ptr %wp{{p}}, align {size}''')
    }
{
        over_samples(f'''  %xp{{s}} = getelementptr {f}, ptr %x{{s}}, i64 %j
  %one{{s}} = load {f}, ptr %xp{{s}}, align {size}
  %in{{s}} = insertelement {vector} poison, {f} %one{{s}}, i32 0
  %all{{s}} = shufflevector {vector} %in{{s}}, {vector} poison, <{_PANEL} x i32> zeroinitializer''')
    }
{over_both(f"  %new{{s}}.{{p}} = call {fma}({vector} %w{{p}}, {vector} %all{{s}}, {vector} %sum{{s}}.{{p}})")}
  %j1 = add i64 %j, 1
  %more = icmp slt i64 %j1, %columns
  br i1 %more, label %column, label %group.end
group.end:
{
        over_both(f'''  %yp{{s}}.{{p}} = getelementptr {f}, ptr %y{{s}}, i64 {{offset}}
  store {vector} %new{{s}}.{{p}}, ptr %yp{{s}}.{{p}}, align {size}''')
    }
  %g1 = add i64 %g, 1
  %again = icmp slt i64 %g1, %groups
  br i1 %again, label %group, label %block.end
block.end:
  %k1 = add i64 %k, 1
  %next = icmp slt i64 %k1, %blocks
  br i1 %next, label %block, label %done
done:
  ret void
}}"""
    count, pointer = ctypes.c_int64, ctypes.c_void_p
    return compile_function(
        ir,
        "dense",
        [count, count, count, pointer, pointer, count, pointer, count, pointer, count],
    )


class Dense:
    """Weights ``[outputs, inputs]`` packed in panels of 16 rows (padded with zeros), and their product with vectors.

    Biases and results have ``rows`` elements a sample, the padded number of outputs.
    """

    def __init__(self, weights: NDArray[Any]) -> None:
        outputs, self.columns = weights.shape
        together = _PANELS if outputs > _PANEL else 1
        self._blocks = -(-outputs // (_PANEL * together))
        self._filled = -(-outputs // _PANEL)  # panels that hold more than padding
        self.rows: int = self._blocks * together * _PANEL
        padded = np.zeros((self.rows, self.columns), weights.dtype)
        padded[:outputs] = weights
        panels = self.rows // _PANEL
        self._weights = aligned_zeros((panels, self.columns, _PANEL), weights.dtype)
        self._weights[...] = padded.reshape(panels, _PANEL, self.columns).transpose(0, 2, 1)
        self._one = _kernel(str(weights.dtype), together, 1)
        self._several = _kernel(str(weights.dtype), 1, SAMPLES)

    def pad(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """Extend biases ``[..., output]`` to ``rows`` elements."""
        padded = np.zeros((*vectors.shape[:-1], self.rows), self._weights.dtype)
        padded[..., : vectors.shape[-1]] = vectors
        return padded

    def call(self, samples: int, bias: NDArray[Any], x: NDArray[Any], y: NDArray[Any]) -> Call:
        """Return the call for one sample or a multiple of `SAMPLES`.

        Parameters
        ----------
        samples
            How many rows of ``x`` and ``y`` count.
        bias
            ``[sample, row]``, or ``[1, row]`` for all.
        x, y
            ``[sample, input or row]``, of which the last axis is contiguous; ``y`` has room for ``rows``.
        """

        def step(array: NDArray[Any]) -> int:
            return array.strides[0] // array.itemsize if len(array) > 1 else 0

        arguments = (self.columns, self._weights.ctypes.data, bias.ctypes.data, step(bias))
        steps = (x.ctypes.data, step(x), y.ctypes.data, step(y))
        if samples == 1:
            return self._one, (self._blocks, 1, *arguments, *steps)
        if samples % SAMPLES:
            raise ValueError(f"one sample or a multiple of {SAMPLES} is needed, not {samples}")
        return self._several, (self._filled, samples // SAMPLES, *arguments, *steps)
