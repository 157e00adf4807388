"""What surrounds a step: inputs gathered, totals of the flows, cumulative sums, published values in their units."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from numpy.typing import NDArray

from bmi_components.kernels.jit import compile_function
from bmi_components.kernels.program import Call

__all__ = ["accumulate", "add_total", "copied", "gather", "publish", "total"]


@cache
def total(dtype: str) -> Any:
    """Return ``run(parts, n, flow, out)`` on addresses: ``out [n]`` is the sum of ``flow [parts, n]``."""
    return compile_function(_sum(dtype, onto=False), "total", [*[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 2])


@cache
def add_total(dtype: str) -> Any:
    """Return ``run(parts, n, flow, out, factor)`` on addresses: add ``factor [1]`` times the sum of ``flow``."""
    return compile_function(_sum(dtype, onto=True), "total", [*[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 3])


def _sum(dtype: str, onto: bool) -> str:
    """A loop over lanes of a loop over parts; the sum is stored or, scaled, added to what is there."""
    f = "float" if dtype == "float32" else "double"
    factor = ", ptr %factor" if onto else ""
    scaled = f"""
  %s = load {f}, ptr %factor
  %before = load {f}, ptr %op
  %scaled = fmul {f} %s, %new
  %result = fadd {f} %before, %scaled"""
    return f"""
define void @total(i64 %parts, i64 %n, ptr %flow, ptr %out{factor}) {{
entry:
  %any = icmp sgt i64 %parts, 0
  br i1 %any, label %site, label %done
site:
  %i = phi i64 [ 0, %entry ], [ %i1, %end ]
  br label %part
part:
  %p = phi i64 [ 0, %site ], [ %p1, %part ]
  %sum = phi {f} [ 0.0, %site ], [ %new, %part ]
  %row = mul i64 %p, %n
  %at = add i64 %row, %i
  %qp = getelementptr {f}, ptr %flow, i64 %at
  %q = load {f}, ptr %qp
  %new = fadd {f} %sum, %q
  %p1 = add i64 %p, 1
  %more = icmp slt i64 %p1, %parts
  br i1 %more, label %part, label %end
end:
  %op = getelementptr {f}, ptr %out, i64 %i{scaled if onto else ""}
  store {f} {"%result" if onto else "%new"}, ptr %op
  %i1 = add i64 %i, 1
  %next = icmp slt i64 %i1, %n
  br i1 %next, label %site, label %done
done:
  ret void
}}"""


@cache
def accumulate(dtype: str) -> Any:
    """Return ``run(count, values, cumulative)`` on addresses: add ``values [count]`` to ``cumulative`` (float64)."""
    f = "float" if dtype == "float32" else "double"
    ir = f"""
define void @accumulate(i64 %count, ptr %values, ptr %sum) {{
entry:
  br label %add
add:
  %a = phi i64 [ 0, %entry ], [ %a1, %add ]
  %vp = getelementptr {f}, ptr %values, i64 %a
  %v = load {f}, ptr %vp
  %d = {_widened("%v", dtype)}
  %sp = getelementptr double, ptr %sum, i64 %a
  %s = load double, ptr %sp
  %s1 = fadd double %s, %d
  store double %s1, ptr %sp
  %a1 = add i64 %a, 1
  %more = icmp slt i64 %a1, %count
  br i1 %more, label %add, label %done
done:
  ret void
}}"""
    return compile_function(ir, "accumulate", [ctypes.c_int64, *[ctypes.c_void_p] * 2])


@cache
def gather(dtype: str) -> Any:
    """Return ``run(count, n, source, values, gathered, row_step, step)`` on addresses, steps in elements.

    ``gathered [count, n]``, whose axes have any steps, become the rows of ``values [row, n]`` (float64) that
    ``source [count]`` (int64) names.
    """
    f = "float" if dtype == "float32" else "double"
    narrow = "fptrunc double %v to float" if dtype == "float32" else "fadd double %v, 0.0"
    ir = f"""
define void @gather(i64 %count, i64 %n, ptr %source, ptr %values, ptr %out, i64 %row_step, i64 %step) {{
entry:
  br label %row
row:
  %a = phi i64 [ 0, %entry ], [ %a1, %row.end ]
  %ip = getelementptr i64, ptr %source, i64 %a
  %i = load i64, ptr %ip
  %from = mul i64 %i, %n
  %to = mul i64 %a, %row_step
  br label %site
site:
  %k = phi i64 [ 0, %row ], [ %k1, %site ]
  %fk = add i64 %from, %k
  %vp = getelementptr double, ptr %values, i64 %fk
  %v = load double, ptr %vp
  %n1 = {narrow}
  %ks = mul i64 %k, %step
  %tk = add i64 %to, %ks
  %op = getelementptr {f}, ptr %out, i64 %tk
  store {f} %n1, ptr %op
  %k1 = add i64 %k, 1
  %more = icmp slt i64 %k1, %n
  br i1 %more, label %site, label %row.end
row.end:
  %a1 = add i64 %a, 1
  %again = icmp slt i64 %a1, %count
  br i1 %again, label %row, label %done
done:
  ret void
}}"""
    return compile_function(
        ir, "gather", [*[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2]
    )


@cache
def _copier(dtype: str) -> Any:
    """Return ``run(rows, columns, source, row_step, step, target, row_step, step)`` on addresses, steps in elements."""
    f = "float" if dtype == "float32" else "double"
    ir = f"""
define void @copy(i64 %rows, i64 %columns, ptr %source, i64 %srow, i64 %sstep, ptr %target, i64 %trow, i64 %tstep) {{
entry:
  br label %row
row:
  %r = phi i64 [ 0, %entry ], [ %r1, %row.end ]
  %from = mul i64 %r, %srow
  %to = mul i64 %r, %trow
  br label %column
column:
  %c = phi i64 [ 0, %row ], [ %c1, %column ]
  %sc = mul i64 %c, %sstep
  %sf = add i64 %from, %sc
  %sp = getelementptr {f}, ptr %source, i64 %sf
  %v = load {f}, ptr %sp
  %tc = mul i64 %c, %tstep
  %tf = add i64 %to, %tc
  %tp = getelementptr {f}, ptr %target, i64 %tf
  store {f} %v, ptr %tp
  %c1 = add i64 %c, 1
  %more = icmp slt i64 %c1, %columns
  br i1 %more, label %column, label %row.end
row.end:
  %r1 = add i64 %r, 1
  %again = icmp slt i64 %r1, %rows
  br i1 %again, label %row, label %done
done:
  ret void
}}"""
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    return compile_function(ir, "copy", [count, count, pointer, count, count, pointer, count, count])


def copied(source: NDArray[Any], target: NDArray[Any]) -> Call:
    """Return the call that copies an array ``[row, column]``, not empty, to another of any layout."""
    if source.shape != target.shape or source.dtype != target.dtype or source.ndim != 2:
        raise ValueError(f"{source.dtype}{source.shape} cannot be copied to {target.dtype}{target.shape}")
    steps = [
        (array.ctypes.data, *(stride // array.itemsize for stride in array.strides))
        for array in (source, target)
    ]
    return _copier(str(source.dtype)), (*source.shape, *steps[0], *steps[1])


def _widened(value: str, dtype: str) -> str:
    return f"fpext float {value} to double" if dtype == "float32" else f"fadd double {value}, 0.0"


@cache
def publish(dtype: str) -> Any:
    """Return ``run(outputs, n, values, source, factor, published)`` on addresses.

    ``published [outputs, n]`` (float64) become ``factor [outputs, n]`` (float64) times the rows of
    ``values [row, n]`` that ``source [outputs]`` (int64) names.
    """
    f = "float" if dtype == "float32" else "double"
    ir = f"""
define void @publish(i64 %outs, i64 %n, ptr %values, ptr %source, ptr %factor, ptr %out) {{
entry:
  br label %out.test
out.test:
  %o = phi i64 [ 0, %entry ], [ %o1, %out.end ]
  %anyout = icmp slt i64 %o, %outs
  br i1 %anyout, label %out.row, label %done
out.row:
  %rp = getelementptr i64, ptr %source, i64 %o
  %r = load i64, ptr %rp
  %from = mul i64 %r, %n
  %to = mul i64 %o, %n
  br label %site
site:
  %i = phi i64 [ 0, %out.row ], [ %i1, %site ]
  %fi = add i64 %from, %i
  %ti = add i64 %to, %i
  %up = getelementptr {f}, ptr %values, i64 %fi
  %u = load {f}, ptr %up
  %ud = {_widened("%u", dtype)}
  %gp = getelementptr double, ptr %factor, i64 %ti
  %g = load double, ptr %gp
  %w = fmul double %ud, %g
  %wp = getelementptr double, ptr %out, i64 %ti
  store double %w, ptr %wp
  %i1 = add i64 %i, 1
  %msite = icmp slt i64 %i1, %n
  br i1 %msite, label %site, label %out.end
out.end:
  %o1 = add i64 %o, 1
  br label %out.test
done:
  ret void
}}"""
    return compile_function(ir, "publish", [*[ctypes.c_int64] * 2, *[ctypes.c_void_p] * 4])
