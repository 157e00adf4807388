"""One step of unit-hydrograph routing in place: what arrives now, and what is under way."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from bmi_components.kernels.jit import compile_function

__all__ = ["route_step"]


@cache
def route_step(dtype: str) -> Any:
    """Return ``run(length, parts, n, hydrograph, flow, under_way, routed)`` on addresses, compiled once.

    ``hydrograph [length, n]``, ``flow [parts, n]``, ``under_way [length - 1, parts, n]`` (advanced in place),
    ``routed [parts, n]``: ``routed = w_0 flow + under_way_0`` and ``under_way_k = under_way_{k+1} + w_{k+1} flow``.
    """
    f = "float" if dtype == "float32" else "double"
    ir = f"""
define void @route(i64 %length, i64 %parts, i64 %n, ptr %w, ptr %flow, ptr %u, ptr %routed) {{
entry:
  %row = mul i64 %parts, %n
  %rest = sub i64 %length, 1
  br label %part
part:
  %p = phi i64 [ 0, %entry ], [ %p1, %nextpart ]
  %po = mul i64 %p, %n
  br label %site
site:
  %i = phi i64 [ 0, %part ], [ %i1, %sitedone ]
  %at = add i64 %po, %i
  %fp = getelementptr {f}, ptr %flow, i64 %at
  %q = load {f}, ptr %fp
  %wp0 = getelementptr {f}, ptr %w, i64 %i
  %w0 = load {f}, ptr %wp0
  %now = fmul {f} %w0, %q
  %any = icmp sgt i64 %rest, 0
  br i1 %any, label %queue, label %single
single:
  %rp0 = getelementptr {f}, ptr %routed, i64 %at
  store {f} %now, ptr %rp0
  br label %sitedone
queue:
  %up0 = getelementptr {f}, ptr %u, i64 %at
  %u0 = load {f}, ptr %up0
  %sum = fadd {f} %u0, %now
  %rp = getelementptr {f}, ptr %routed, i64 %at
  store {f} %sum, ptr %rp
  br label %shift
shift:
  %k = phi i64 [ 0, %queue ], [ %k1, %stored ]
  %k1 = add i64 %k, 1
  %wo = mul i64 %k1, %n
  %wi = add i64 %wo, %i
  %wp = getelementptr {f}, ptr %w, i64 %wi
  %wk = load {f}, ptr %wp
  %add = fmul {f} %wk, %q
  %last = icmp sge i64 %k1, %rest
  br i1 %last, label %stored, label %more
more:
  %no = mul i64 %k1, %row
  %ni = add i64 %no, %at
  %np = getelementptr {f}, ptr %u, i64 %ni
  %nv = load {f}, ptr %np
  br label %stored
stored:
  %before = phi {f} [ 0.0, %shift ], [ %nv, %more ]
  %value = fadd {f} %before, %add
  %so = mul i64 %k, %row
  %si = add i64 %so, %at
  %sp = getelementptr {f}, ptr %u, i64 %si
  store {f} %value, ptr %sp
  %again = icmp slt i64 %k1, %rest
  br i1 %again, label %shift, label %sitedone
sitedone:
  %i1 = add i64 %i, 1
  %msite = icmp slt i64 %i1, %n
  br i1 %msite, label %site, label %nextpart
nextpart:
  %p1 = add i64 %p, 1
  %mpart = icmp slt i64 %p1, %parts
  br i1 %mpart, label %part, label %done
done:
  ret void
}}"""
    return compile_function(ir, "route", [*[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 4])
