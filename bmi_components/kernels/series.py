"""A model step as loops over catchments, components and time, and the adjoint of those loops.

A *lane* is one component of one catchment. Lanes fill the processor's vectors: several components of one catchment, or
several catchments when they have few components. Stores stay in registers while time passes.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from bmi_components.kernels.jit import compile_function
from bmi_components.kernels.lowering import Block, Float, lower
from bmi_components.kernels.tracing import trace, trace_pullback

__all__ = ["SeriesKernel", "SeriesSignature"]

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class SeriesSignature:
    """What a step takes and gives, by name.

    ``step(stores, parameters, forcing, site) -> (stores, fluxes)`` is elementwise; ``outputs`` are names of fluxes, or
    of stores after the step, to be averaged over the components of a catchment. With ``dynamic_bounds`` (lower bound
    and width of each) the dynamic parameters come as a network gives them: the value is lower + sigmoid(raw) width.
    """

    step: Callable[[Values, Values, Values, Values], tuple[dict[str, Tensor], dict[str, Tensor]]]
    stores: tuple[str, ...]
    static: tuple[str, ...]
    dynamic: tuple[str, ...]
    forcings: tuple[str, ...]
    sites: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic_bounds: tuple[tuple[float, float], ...] | None = None

    @property
    def arguments(self) -> int:
        """Number of scalars that one lane needs for a step."""
        return len(self.stores) + len(self.static) + len(self.dynamic) + len(self.forcings) + len(self.sites)

    def flat(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Take the step's arguments in order (stores, static, dynamic, forcings, sites); return stores, outputs."""
        remaining = iter(values)

        def take(names: tuple[str, ...]) -> dict[str, Tensor]:
            return {name: next(remaining) for name in names}

        stores = take(self.stores)
        parameters = {**take(self.static), **self._scaled(take(self.dynamic))}
        stores, fluxes = self.step(stores, parameters, take(self.forcings), take(self.sites))
        everything = {**fluxes, **stores}
        return (*(stores[name] for name in self.stores), *(everything[name] for name in self.outputs))

    def _scaled(self, dynamic: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.dynamic_bounds is None:
            return dynamic
        return {
            name: lower + torch.sigmoid(raw) * width
            for (name, raw), (lower, width) in zip(dynamic.items(), self.dynamic_bounds, strict=True)
        }


class SeriesKernel:
    """The compiled loops of one signature for a number of components per catchment and a float type.

    Arrays are C-contiguous in ``dtype``, given by address; T steps, N catchments, M components:

    * ``stores [store, N, M]`` (read, and left as they are at the end), ``static [parameter, N, M]``,
      ``dynamic [T, N, parameter, M]``, ``forcing [T, forcing, N]``, ``site [site, N]``, ``out [T, output, N]``;
    * ``simulate(T, N, stores, static, dynamic, forcing, site, out)``;
    * ``adjoint(T, N, initial stores, static, dynamic, forcing, site, gradient of out, gradient of final stores (left
      as that of the initial ones), gradient of static, gradient of dynamic, gradient of forcing [T, forcing, N],
      scratch)``, with ``scratch_size(T)`` elements of scratch.
    """

    def __init__(self, signature: SeriesSignature, components: int, dtype: str) -> None:
        self.signature, self.components, self.dtype = signature, components, np.dtype(dtype)
        self._float: Float = "float" if dtype == "float32" else "double"
        self._size = self.dtype.itemsize
        self._wide = 16 if dtype == "float32" else 4
        self._adjoint: Any = None
        pointers = [ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 6]
        graph = trace(signature.flat, signature.arguments)
        self.simulate = compile_function(self._module(graph, None), "run", pointers)

    @property
    def adjoint(self) -> Any:
        """The compiled adjoint, made on first use."""
        if self._adjoint is None:
            s = self.signature
            graph = trace(s.flat, s.arguments)
            pullback = trace_pullback(s.flat, s.arguments, len(s.stores) + len(s.outputs))
            pointers = [ctypes.c_int64, ctypes.c_int64, *[ctypes.c_void_p] * 11]
            self._adjoint = compile_function(self._module(graph, pullback), "run", pointers)
        return self._adjoint

    def scratch_size(self, steps: int) -> int:
        """Elements that ``adjoint`` needs to keep the stores of one vector of lanes through time."""
        return steps * len(self.signature.stores) * self._wide

    # Emission: one function with a loop over blocks of catchments, in it the components, in it time --------

    def _module(self, graph: fx.Graph, pullback: fx.Graph | None) -> str:
        wide, components = self._wide, self.components
        if components >= wide and components % wide == 0:
            width, together = wide, 1
        elif wide % components == 0:
            width, together = wide, wide // components
        else:
            width, together = components & -components, 1
        names = itertools.count()
        loops = [_Loop(self, graph, pullback, names, "wide", width, together)]
        if together > 1:
            loops.append(_Loop(self, graph, pullback, names, "rest", components, 1))
        arguments = (
            "ptr %stores, ptr %static, ptr %dynamic, ptr %forcing, ptr %site, ptr %out"
            if pullback is None
            else "ptr %stores, ptr %static, ptr %dynamic, ptr %forcing, ptr %site, ptr %gout, ptr %gstores, "
            "ptr %gstatic, ptr %gdynamic, ptr %gforcing, ptr %scratch"
        )
        text = [f"define void @run(i64 %steps, i64 %count, {arguments}) {{", "entry:"]
        text += [f"  %lanes = mul i64 %count, {components}", "  br label %wide"]
        for i, loop in enumerate(loops):
            start = "0, %entry" if i == 0 else "%c.wide, %wide"
            text += loop.text(start, "rest" if i + 1 < len(loops) else "done")
        return "\n".join([*text, "done:", "  ret void", "}"])


class _Loop:
    """The loop over blocks of ``together`` catchments, in vectors of ``width`` lanes."""

    def __init__(
        self,
        kernel: SeriesKernel,
        graph: fx.Graph,
        pullback: fx.Graph | None,
        names: Iterator[int],
        label: str,
        width: int,
        together: int,
    ) -> None:
        self.kernel, self.signature = kernel, kernel.signature
        self.graph, self.pullback, self.names = graph, pullback, names
        self.label, self.width, self.together = label, width, together
        self.chunks = max(1, kernel.components // width)

    def text(self, start: str, after: str) -> list[str]:
        label, together = self.label, self.together
        text = [
            f"{label}:",
            f"  %c.{label} = phi i64 [ {start} ], [ %next.{label}, %latch.{label} ]",
            f"  %next.{label} = add i64 %c.{label}, {together}",
            f"  %fits.{label} = icmp sle i64 %next.{label}, %count",
            f"  br i1 %fits.{label}, label %{label}.0, label %{after}",
        ]
        for chunk in range(self.chunks):
            following = f"{label}.{chunk + 1}" if chunk + 1 < self.chunks else f"latch.{label}"
            text += self._chunk(chunk, following)
        return [*text, f"latch.{label}:", f"  br label %{label}"]

    def _block(self) -> Block:
        return Block(self.kernel._float, self.width, self.names)

    def _address(self, block: Block, base: str, index: str) -> str:
        return block.emit(f"getelementptr {block.float_type}, ptr {base}, i64 {index}")

    def _load(self, block: Block, base: str, index: str) -> str:
        return block.emit(
            f"load {block.vector}, ptr {self._address(block, base, index)}, align {self.kernel._size}"
        )

    def _store(self, block: Block, value: str, base: str, index: str) -> None:
        pointer = self._address(block, base, index)
        block.do(f"store {block.vector} {value}, ptr {pointer}, align {self.kernel._size}")

    def _row(self, block: Block, row: str, stride: str, offset: str) -> str:
        product = block.emit(f"mul i64 {row}, {stride}")
        return block.emit(f"add i64 {product}, {offset}")

    def _time_row(self, block: Block, time: str, rows: int, row: int, stride: str, offset: str) -> str:
        first = block.emit(f"mul i64 {time}, {rows}")
        return self._row(block, block.emit(f"add i64 {first}, {row}"), stride, offset)

    def _spread(self, block: Block, base: str, index: str) -> str:
        """Load one value per catchment of the block and repeat it for the catchment's components."""
        n, f = self.together, block.float_type
        values = block.emit(
            f"load <{n} x {f}>, ptr {self._address(block, base, index)}, align {self.kernel._size}"
        )
        mask = ", ".join(f"i32 {lane * n // self.width}" for lane in range(self.width))
        return block.emit(
            f"shufflevector <{n} x {f}> {values}, <{n} x {f}> poison, <{self.width} x i32> <{mask}>"
        )

    def _mean(self, block: Block, value: str, base: str, index: str, add: bool) -> None:
        """Store (or add) the sum of ``value`` over each catchment's lanes, over the number of components."""
        self._total(
            block, block.binary("fmul", value, block.constant(1 / self.kernel.components)), base, index, add
        )

    def _total(self, block: Block, value: str, base: str, index: str, add: bool) -> None:
        f, width = block.float_type, self.width
        while width > self.together:
            half = width // 2
            # One catchment's lanes add up in any order, and halves are what registers are made of; several catchments'
            # lanes lie side by side, so neighbours are added.
            alone = self.together == 1
            lanes = [[i + odd * half if alone else 2 * i + odd for i in range(half)] for odd in (0, 1)]
            parts = [
                block.emit(
                    f"shufflevector <{width} x {f}> {value}, <{width} x {f}> poison, <{half} x i32> "
                    f"<{', '.join(f'i32 {i}' for i in half_lanes)}>"
                )
                for half_lanes in lanes
            ]
            value = block.emit(f"fadd <{half} x {f}> {parts[0]}, {parts[1]}")
            width = half
        pointer = self._address(block, base, index)
        if add:
            before = block.emit(f"load <{width} x {f}>, ptr {pointer}, align {self.kernel._size}")
            value = block.emit(f"fadd <{width} x {f}> {before}, {value}")
        block.do(f"store <{width} x {f}> {value}, ptr {pointer}, align {self.kernel._size}")

    def _dynamic_places(self, block: Block, time: str, catchment: str, chunk: int) -> list[list[str]]:
        """Where the lanes of each dynamic parameter start, for each catchment of the block."""
        count, m = len(self.signature.dynamic), self.kernel.components
        before = self._row(block, time, "%count", catchment)
        places = []
        for p in range(count):
            starts = []
            for k in range(self.together):
                row = block.emit(f"add i64 {before}, {k}")
                start = block.emit(f"mul i64 {row}, {count * m}")
                starts.append(block.emit(f"add i64 {start}, {p * m + chunk * self.width}"))
            places.append(starts)
        return places

    def _load_dynamic(self, block: Block, starts: list[str]) -> str:
        """Load the lanes of a parameter, catchment by catchment, into one vector."""
        f, width = block.float_type, self.width // self.together
        parts = [
            block.emit(
                f"load <{width} x {f}>, ptr {self._address(block, '%dynamic', start)}, align {self.kernel._size}"
            )
            for start in starts
        ]
        while len(parts) > 1:
            mask = ", ".join(f"i32 {i}" for i in range(2 * width))
            parts = [
                block.emit(
                    f"shufflevector <{width} x {f}> {a}, <{width} x {f}> {b}, <{2 * width} x i32> <{mask}>"
                )
                for a, b in zip(parts[::2], parts[1::2], strict=True)
            ]
            width *= 2
        return parts[0]

    def _store_dynamic(self, block: Block, value: str, base: str, starts: list[str]) -> None:
        f, width = block.float_type, self.width // self.together
        for k, start in enumerate(starts):
            mask = ", ".join(f"i32 {k * width + i}" for i in range(width))
            part = block.emit(
                f"shufflevector {block.vector} {value}, {block.vector} poison, <{width} x i32> <{mask}>"
            )
            pointer = self._address(block, base, start)
            block.do(f"store <{width} x {f}> {part}, ptr {pointer}, align {self.kernel._size}")

    def _inputs(
        self, block: Block, stores: list[str], time: str, lane: str, catchment: str, chunk: int
    ) -> list[str]:
        s = self.signature
        values = list(stores)
        values += [
            self._load(block, "%static", self._row(block, str(i), "%lanes", lane))
            for i in range(len(s.static))
        ]
        values += [
            self._load_dynamic(block, index) for index in self._dynamic_places(block, time, catchment, chunk)
        ]
        n = len(s.forcings)
        values += [
            self._spread(block, "%forcing", self._time_row(block, time, n, i, "%count", catchment))
            for i in range(n)
        ]
        values += [
            self._spread(block, "%site", self._row(block, str(i), "%count", catchment))
            for i in range(len(s.sites))
        ]
        return values

    def _chunk(self, chunk: int, following: str) -> list[str]:
        """Emit the time loop (and the reverse one) of one vector of lanes."""
        s, label, catchment = self.signature, f"{self.label}.{chunk}", f"%c.{self.label}"
        n = len(s.stores)
        head, body = self._block(), self._block()
        start = head.emit(f"mul i64 {catchment}, {self.kernel.components}")
        lane = head.emit(f"add i64 {start}, {chunk * self.width}")
        initial = [self._load(head, "%stores", self._row(head, str(i), "%lanes", lane)) for i in range(n)]

        time, stores = f"%t.{label}", [f"%s{i}.{label}" for i in range(n)]
        if self.pullback is not None:
            for i, store in enumerate(stores):
                kept = self._time_row(body, time, n, i, str(self.width), "0")
                self._store(body, store, "%scratch", kept)
        results = lower(self.graph, body, self._inputs(body, stores, time, lane, catchment, chunk))
        if self.pullback is None:
            for i, value in enumerate(results[n:]):
                index = self._time_row(body, time, len(s.outputs), i, "%count", catchment)
                self._mean(body, value, "%out", index, add=chunk > 0)

        text = [f"{label}:", *head.lines, f"  br label %test.{label}"]
        text += [f"test.{label}:", f"  {time} = phi i64 [ 0, %{label} ], [ %t1.{label}, %body.{label} ]"]
        text += [
            f"  {name} = phi {body.vector} [ {a}, %{label} ], [ {b}, %body.{label} ]"
            for name, a, b in zip(stores, initial, results[:n], strict=True)
        ]
        text += [
            f"  %more.{label} = icmp slt i64 {time}, %steps",
            f"  br i1 %more.{label}, label %body.{label}, label %end.{label}",
            f"body.{label}:",
            *body.lines,
            f"  %t1.{label} = add i64 {time}, 1",
            f"  br label %test.{label}",
            f"end.{label}:",
        ]
        if self.pullback is None:
            tail = self._block()
            for i, store in enumerate(stores):
                self._store(tail, store, "%stores", self._row(tail, str(i), "%lanes", lane))
            return [*text, *tail.lines, f"  br label %{following}"]
        return [*text, *self._reverse(chunk, lane, following)]

    def _reverse(self, chunk: int, lane: str, following: str) -> list[str]:
        assert self.pullback is not None
        s, label, catchment = self.signature, f"{self.label}.{chunk}", f"%c.{self.label}"
        n, statics, dynamics, forcings = len(s.stores), len(s.static), len(s.dynamic), len(s.forcings)
        head, body, tail = self._block(), self._block(), self._block()
        final = [self._load(head, "%gstores", self._row(head, str(i), "%lanes", lane)) for i in range(n)]

        time = f"%r1.{label}"
        carried = [f"%g{i}.{label}" for i in range(n + statics)]
        stores = [
            self._load(body, "%scratch", self._time_row(body, time, n, i, str(self.width), "0"))
            for i in range(n)
        ]
        arguments = self._inputs(body, stores, time, lane, catchment, chunk)
        share = body.constant(1 / self.kernel.components)
        cotangents = carried[:n]
        for i in range(len(s.outputs)):
            index = self._time_row(body, time, len(s.outputs), i, "%count", catchment)
            cotangents.append(body.binary("fmul", self._spread(body, "%gout", index), share))
        gradients = lower(self.pullback, body, [*arguments, *cotangents])
        updated = gradients[:n]
        updated += [body.binary("fadd", carried[n + i], gradients[n + i]) for i in range(statics)]
        for i, starts in enumerate(self._dynamic_places(body, time, catchment, chunk)):
            self._store_dynamic(body, gradients[n + statics + i], "%gdynamic", starts)
        for i in range(forcings):
            index = self._time_row(body, time, forcings, i, "%count", catchment)
            self._total(body, gradients[n + statics + dynamics + i], "%gforcing", index, add=chunk > 0)
        for i in range(n):
            self._store(tail, carried[i], "%gstores", self._row(tail, str(i), "%lanes", lane))
        for i in range(statics):
            self._store(tail, carried[n + i], "%gstatic", self._row(tail, str(i), "%lanes", lane))

        zeros = [head.constant(0.0)] * statics
        text = [*head.lines, f"  br label %rtest.{label}", f"rtest.{label}:"]
        text.append(f"  %r.{label} = phi i64 [ %steps, %end.{label} ], [ {time}, %rbody.{label} ]")
        text += [
            f"  {name} = phi {body.vector} [ {a}, %end.{label} ], [ {b}, %rbody.{label} ]"
            for name, a, b in zip(carried, [*final, *zeros], updated, strict=True)
        ]
        return [
            *text,
            f"  %rmore.{label} = icmp sgt i64 %r.{label}, 0",
            f"  br i1 %rmore.{label}, label %rbody.{label}, label %rend.{label}",
            f"rbody.{label}:",
            f"  {time} = sub i64 %r.{label}, 1",
            *body.lines,
            f"  br label %rtest.{label}",
            f"rend.{label}:",
            *tail.lines,
            f"  br label %{following}",
        ]
