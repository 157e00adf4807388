"""Sliding weighted sums over time, the arithmetic of unit-hydrograph routing and of its gradients."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from bmi_components.kernels.jit import compile_function

__all__ = ["correlate"]


@cache
def correlate(dtype: str) -> Any:
    """Return ``run(steps, length, n, w, x, out)`` on addresses: ``out_j = sum over k of w_k x_{j + k}``, lane by lane.

    ``w [length, n]``, ``x [steps + length - 1, n]``, ``out [steps, n]``.
    """
    f, size = ("float", 4) if dtype == "float32" else ("double", 8)
    wide = 64 // size

    def loop(width: int, before: str, after: str) -> str:
        v = f"<{width} x {f}>"
        return f"""
lanes{width}:
  %i{width} = phi i64 [ {before} ], [ %ni{width}, %steps.end{width} ]
  %ni{width} = add i64 %i{width}, {width}
  %fits{width} = icmp sle i64 %ni{width}, %n
  br i1 %fits{width}, label %step{width}, label %{after}
step{width}:
  %j{width} = phi i64 [ 0, %lanes{width} ], [ %nj{width}, %sum.end{width} ]
  br label %sum{width}
sum{width}:
  %k{width} = phi i64 [ 0, %step{width} ], [ %nk{width}, %sum{width} ]
  %s{width} = phi {v} [ zeroinitializer, %step{width} ], [ %ns{width}, %sum{width} ]
  %wr{width} = mul i64 %k{width}, %n
  %wi{width} = add i64 %wr{width}, %i{width}
  %wp{width} = getelementptr {f}, ptr %w, i64 %wi{width}
  %wv{width} = load {v}, ptr %wp{width}, align {size}
  %jk{width} = add i64 %j{width}, %k{width}
  %xr{width} = mul i64 %jk{width}, %n
  %xi{width} = add i64 %xr{width}, %i{width}
  %xp{width} = getelementptr {f}, ptr %x, i64 %xi{width}
  %xv{width} = load {v}, ptr %xp{width}, align {size}
  %ns{width} = call {v} @llvm.fma.v{width}f{size * 8}({v} %wv{width}, {v} %xv{width}, {v} %s{width})
  %nk{width} = add i64 %k{width}, 1
  %mk{width} = icmp slt i64 %nk{width}, %length
  br i1 %mk{width}, label %sum{width}, label %sum.end{width}
sum.end{width}:
  %or{width} = mul i64 %j{width}, %n
  %oi{width} = add i64 %or{width}, %i{width}
  %op{width} = getelementptr {f}, ptr %out, i64 %oi{width}
  store {v} %ns{width}, ptr %op{width}, align {size}
  %nj{width} = add i64 %j{width}, 1
  %mj{width} = icmp slt i64 %nj{width}, %steps
  br i1 %mj{width}, label %step{width}, label %steps.end{width}
steps.end{width}:
  br label %lanes{width}"""

    ir = f"""
define void @correlate(i64 %steps, i64 %length, i64 %n, ptr %w, ptr %x, ptr %out) {{
entry:
  %some = icmp sgt i64 %steps, 0
  br i1 %some, label %lanes{wide}, label %done
{loop(wide, "0, %entry", "lanes1")}
{loop(1, f"%i{wide}, %lanes{wide}", "done")}
done:
  ret void
}}"""
    return compile_function(ir, "correlate", [*[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 3])
