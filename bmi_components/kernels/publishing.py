"""What surrounds a step: inputs gathered, totals of the flows, cumulative sums, published values in their units."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from bmi_components.kernels.jit import compile_function

__all__ = ["accumulate", "add_total", "gather", "publish", "total"]


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
    """Return ``run(count, source, values, gathered)`` on addresses.

    ``gathered [count]`` become the elements of ``values`` (float64) that ``source [count]`` (int64) names.
    """
    f = "float" if dtype == "float32" else "double"
    narrow = "fptrunc double %v to float" if dtype == "float32" else "fadd double %v, 0.0"
    ir = f"""
define void @gather(i64 %count, ptr %source, ptr %values, ptr %out) {{
entry:
  br label %one
one:
  %a = phi i64 [ 0, %entry ], [ %a1, %one ]
  %ip = getelementptr i64, ptr %source, i64 %a
  %i = load i64, ptr %ip
  %vp = getelementptr double, ptr %values, i64 %i
  %v = load double, ptr %vp
  %n = {narrow}
  %op = getelementptr {f}, ptr %out, i64 %a
  store {f} %n, ptr %op
  %a1 = add i64 %a, 1
  %more = icmp slt i64 %a1, %count
  br i1 %more, label %one, label %done
done:
  ret void
}}"""
    return compile_function(ir, "gather", [ctypes.c_int64, *[ctypes.c_void_p] * 3])


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
