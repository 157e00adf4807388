"""From traced aten operations to LLVM instructions on vectors of lanes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from torch import fx

__all__ = ["Block", "Float", "lower"]

Float = Literal["float", "double"]
"""LLVM's names of float32 and float64."""

# log2(1 + f) / f on [sqrt(1/2) - 1, sqrt(2) - 1] and 2^f on [-1/2, 1/2]: least-squares fits at Chebyshev nodes,
# relative errors 2e-8 and 5e-9, below the rounding of float32. See tests/kernels for the accuracy they give.


def _chebyshev_fit(
    function: Callable[[np.ndarray], np.ndarray], low: float, high: float, degree: int
) -> list[float]:
    nodes = np.cos(np.pi * (np.arange(400) + 0.5) / 400) * (high - low) / 2 + (high + low) / 2
    return [float(c) for c in np.polynomial.Polynomial.fit(nodes, function(nodes), degree).convert().coef]


_LOG2 = _chebyshev_fit(lambda f: np.log1p(f) / f / np.log(2), 2**-0.5 - 1, 2**0.5 - 1, 9)
_EXP2 = _chebyshev_fit(np.exp2, -0.5, 0.5, 6)
_EXP = _chebyshev_fit(np.exp, -0.5 * np.log(2), 0.5 * np.log(2), 6)
# (tanh(x)/x - 1)/x^2 as a function of x^2, up to |x| = TANH_BEND
TANH_BEND = 1.0
_TANH = _chebyshev_fit(lambda s: (np.tanh(np.sqrt(s)) / np.sqrt(s) - 1.0) / s, 1e-6, TANH_BEND**2, 7)
# ln(2) in two parts, the first with so few digits that a whole multiple of it is exact (Cody and Waite 1980)
_LN2_HIGH = 355.0 / 512.0
_LN2_LOW = float(np.log(2)) - _LN2_HIGH


class Block:
    """A growing list of LLVM instructions on ``<width x float type>`` values, with fresh names."""

    def __init__(self, float_type: Float, width: int, names: Iterator[int]) -> None:
        self.float_type: Float = float_type
        self.width = width
        self.lines: list[str] = []
        self.names = names
        self.vector = f"<{width} x {float_type}>"
        self.integers = f"<{width} x {'i32' if float_type == 'float' else 'i64'}>"
        self.mask = f"<{width} x i1>"

    def emit(self, instruction: str) -> str:
        """Append an instruction with a result and return the result's name."""
        name = f"%v{next(self.names)}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        """Append an instruction without a result."""
        self.lines.append(f"  {instruction}")

    def constant(self, value: float) -> str:
        """Write a number as a vector of equal lanes, rounded to the float type."""
        if self.float_type == "float":
            with np.errstate(over="ignore"):
                value = float(np.float32(value))
        bits = struct.unpack("<Q", struct.pack("<d", value))[0]
        return f"splat ({self.float_type} 0x{bits:016X})"

    def binary(self, operation: str, a: str, b: str) -> str:
        """Emit fadd, fsub, fmul or fdiv.

        In single precision LLVM may fuse a product and a sum. In double, where models are checked, it rounds as torch
        does: at a tie (a store exactly empty) the last bit decides which way a gradient goes.
        """
        fusing = "contract " if self.float_type == "float" else ""
        return self.emit(f"{operation} {fusing}{self.vector} {a}, {b}")

    def compare(self, condition: str, a: str, b: str) -> str:
        """Emit a mask of lanes where the condition (oge, olt, ...) holds."""
        return self.emit(f"fcmp {condition} {self.vector} {a}, {b}")

    def select(self, mask: str, a: str, b: str) -> str:
        """Emit ``a`` where the mask holds, else ``b``."""
        return self.emit(f"select {self.mask} {mask}, {self.vector} {a}, {self.vector} {b}")

    def intrinsic(self, name: str, *arguments: str) -> str:
        """Call an LLVM intrinsic of vectors, such as ``minimum`` (which keeps NaN, as torch does)."""
        suffix = f"v{self.width}{'f32' if self.float_type == 'float' else 'f64'}"
        typed = ", ".join(f"{self.vector} {a}" for a in arguments)
        return self.emit(f"call {self.vector} @llvm.{name}.{suffix}({typed})")

    def libm(self, name: str, *arguments: str) -> str:
        """Call the C library's double function lane by lane: exact, and slow enough to keep off hot paths."""
        result = "poison"
        for lane in range(self.width):
            scalars = []
            for argument in arguments:
                scalar = self.emit(f"extractelement {self.vector} {argument}, i32 {lane}")
                if self.float_type == "float":
                    scalar = self.emit(f"fpext float {scalar} to double")
                scalars.append(f"double {scalar}")
            value = self.emit(f"call double @{name}({', '.join(scalars)})")
            if self.float_type == "float":
                value = self.emit(f"fptrunc double {value} to float")
            result = self.emit(f"insertelement {self.vector} {result}, {self.float_type} {value}, i32 {lane}")
        return result

    def libm_unary(self, x: str, function: str) -> str:
        """Call a C function of one argument."""
        return self.libm(function, x)

    def polynomial(self, coefficients: Sequence[float], x: str) -> str:
        """Horner's scheme with fused multiply-adds."""
        result = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            result = self.intrinsic("fma", result, x, self.constant(coefficient))
        return result

    def log2(self, x: str) -> str:
        """Base-2 logarithm; -inf at 0, NaN below."""
        if self.float_type == "double":
            return self.libm("log2", x)
        # Split x = 2^e m with m in [sqrt(1/2), sqrt(2)), so that the polynomial sees a small argument of either sign.
        bits = self.emit(f"bitcast {self.vector} {x} to {self.integers}")
        above = self.emit(f"sub {self.integers} {bits}, splat (i32 {0x3F3504F3})")
        exponent = self.emit(f"ashr {self.integers} {above}, splat (i32 23)")
        shift = self.emit(f"shl {self.integers} {exponent}, splat (i32 23)")
        mantissa = self.emit(f"sub {self.integers} {bits}, {shift}")
        m = self.emit(f"bitcast {self.integers} {mantissa} to {self.vector}")
        f = self.binary("fsub", m, self.constant(1.0))
        e = self.emit(f"sitofp {self.integers} {exponent} to {self.vector}")
        value = self.intrinsic("fma", f, self.polynomial(_LOG2, f), e)
        zero = self.constant(0.0)
        value = self.select(self.compare("oeq", x, zero), self.constant(float("-inf")), value)
        return self.select(self.compare("oge", x, zero), value, self.constant(float("nan")))

    def exp2(self, x: str) -> str:
        """Two to the power of x; 0 below -126, inf from 128."""
        if self.float_type == "double":
            return self.libm("exp2", x)
        bounded = self._bounded(x, -126.0, 127.0)
        whole = self.intrinsic("rint", bounded)
        value = self._scaled(self.polynomial(_EXP2, self.binary("fsub", bounded, whole)), whole)
        return self._with_limits(x, value, -126.0, 128.0)

    def exp(self, x: str) -> str:
        """The exponential; 0 below -87.3, inf from 88.7."""
        if self.float_type == "double":
            return self.libm("exp", x)
        low, high = -126.0 * math.log(2.0), 128.0 * math.log(2.0)
        bounded = self._bounded(x, low, 127.0 * math.log(2.0))
        whole = self.intrinsic("rint", self.binary("fmul", bounded, self.constant(1.4426950408889634)))
        rest = bounded
        for part in (_LN2_HIGH, _LN2_LOW):
            rest = self.binary("fsub", rest, self.binary("fmul", whole, self.constant(part)))
        return self._with_limits(x, self._scaled(self.polynomial(_EXP, rest), whole), low, high)

    def _bounded(self, x: str, low: float, high: float) -> str:
        below = self.select(self.compare("olt", x, self.constant(low)), self.constant(low), x)
        return self.select(self.compare("ogt", below, self.constant(high)), self.constant(high), below)

    def _scaled(self, x: str, exponent: str) -> str:
        """Multiply by two to the power of a whole number."""
        n = self.emit(f"fptosi {self.vector} {exponent} to {self.integers}")
        shift = self.emit(f"shl {self.integers} {n}, splat (i32 23)")
        bits = self.emit(f"bitcast {self.vector} {x} to {self.integers}")
        scaled = self.emit(f"add {self.integers} {bits}, {shift}")
        return self.emit(f"bitcast {self.integers} {scaled} to {self.vector}")

    def _with_limits(self, x: str, value: str, zero_below: float, inf_from: float) -> str:
        value = self.select(self.compare("olt", x, self.constant(zero_below)), self.constant(0.0), value)
        value = self.select(
            self.compare("oge", x, self.constant(inf_from)), self.constant(float("inf")), value
        )
        return self.select(self.compare("uno", x, x), x, value)

    def power(self, x: str, y: str) -> str:
        """X to the power of y, for x >= 0."""
        if self.float_type == "double":
            return self.libm("pow", x, y)
        return self.exp2(self.binary("fmul", y, self.log2(x)))

    def log(self, x: str) -> str:
        """The natural logarithm."""
        if self.float_type == "double":
            return self.libm("log", x)
        return self.binary("fmul", self.log2(x), self.constant(0.6931471805599453))

    def sigmoid(self, x: str) -> str:
        """1 / (1 + exp(-x))."""
        one = self.constant(1.0)
        return self.binary(
            "fdiv", one, self.binary("fadd", one, self.exp(self.emit(f"fneg {self.vector} {x}")))
        )

    def tanh(self, x: str) -> str:
        """Hyperbolic tangent: 1 - 2 / (exp(2x) + 1), a polynomial where that cancels, and libm's in double."""
        if self.float_type == "double":
            return self.libm("tanh", x)
        one, two = self.constant(1.0), self.constant(2.0)
        size = self.intrinsic("fabs", x)
        rest = self.binary("fdiv", two, self.binary("fadd", self.exp(self.binary("fmul", two, size)), one))
        value = self.intrinsic("copysign", self.binary("fsub", one, rest), x)
        square = self.binary("fmul", x, x)
        bend = self.binary("fmul", self.binary("fmul", square, x), self.polynomial(_TANH, square))
        small = self.compare("olt", size, self.constant(TANH_BEND))
        return self.select(small, self.binary("fadd", x, bend), value)


_COMPARISONS = {"ge": "oge", "gt": "ogt", "le": "ole", "lt": "olt", "eq": "oeq", "ne": "une"}
_ARITHMETIC = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_LIBM = ("sin", "cos", "tan", "asin", "acos", "atan")
_UNARY: dict[str, Callable[[Block, str], str]] = {
    "exp": Block.exp,
    "exp2": Block.exp2,
    "log": Block.log,
    "log2": Block.log2,
    "sigmoid": Block.sigmoid,
    "tanh": Block.tanh,
    "sqrt": lambda b, x: b.intrinsic("sqrt", x),
    "abs": lambda b, x: b.intrinsic("fabs", x),
    "neg": lambda b, x: b.emit(f"fneg {b.vector} {x}"),
    "reciprocal": lambda b, x: b.binary("fdiv", b.constant(1.0), x),
    "relu": lambda b, x: b.select(b.compare("olt", x, b.constant(0.0)), b.constant(0.0), x),
    **{name: partial(Block.libm_unary, function=name) for name in _LIBM},
}
_IDENTITY = ("detach", "alias", "clone", "view_of", "lift_fresh_copy")


def _operation(block: Block, name: str, a: list[Any]) -> str:
    """Emit one aten operation; numbers among the arguments are already vectors."""
    if name in _ARITHMETIC:
        return block.binary(_ARITHMETIC[name], a[0], a[1])
    if name in _COMPARISONS:
        return block.compare(_COMPARISONS[name], a[0], a[1])
    if name in _UNARY:
        return _UNARY[name](block, a[0])
    if name in _IDENTITY:
        return str(a[0])
    match name:
        case "rsub":
            return block.binary("fsub", a[1], a[0])
        case "sigmoid_backward":
            one_less = block.binary("fsub", block.constant(1.0), a[1])
            return block.binary("fmul", a[0], block.binary("fmul", one_less, a[1]))
        case "tanh_backward":
            square = block.binary("fmul", a[1], a[1])
            return block.binary("fmul", a[0], block.binary("fsub", block.constant(1.0), square))
        case "pow":
            return block.power(a[0], a[1])
        case "where":
            return block.select(a[0], a[1], a[2])
        case "masked_fill":
            return block.select(a[1], a[2], a[0])
        case "minimum" | "maximum":
            # The processor's own minimum gives the second operand if one is NaN; torch gives NaN.
            smaller = block.select(
                block.compare("olt" if name == "minimum" else "ogt", a[0], a[1]), a[0], a[1]
            )
            return block.select(block.compare("uno", a[0], a[0]), a[0], smaller)
        case "logical_and" | "bitwise_and":
            return block.emit(f"and {block.mask} {a[0]}, {a[1]}")
        case "logical_or" | "bitwise_or":
            return block.emit(f"or {block.mask} {a[0]}, {a[1]}")
        case "logical_not" | "bitwise_not":
            return block.emit(f"xor {block.mask} {a[0]}, splat (i1 true)")
        case "clamp" | "clamp_min" | "clamp_max":
            low, high = (None, a[1]) if name == "clamp_max" else (a[1], a[2] if len(a) > 2 else None)
            value = str(a[0])
            if low is not None:
                value = block.select(block.compare("olt", value, low), low, value)
            if high is not None:
                value = block.select(block.compare("ogt", value, high), high, value)
            return value
    raise NotImplementedError(f"the operation aten.{name} has no LLVM form; write the function without it")


def lower(graph: fx.Graph, block: Block, arguments: Sequence[str]) -> list[str]:
    """Emit the graph's operations on vectors and return the names of its results.

    Raises
    ------
    NotImplementedError
        If the function uses an operation that is not elementwise or not known here.
    """
    values: dict[fx.Node, str] = {}
    remaining = iter(arguments)

    def value(argument: Any) -> Any:
        if isinstance(argument, fx.Node):
            return values[argument]
        return block.constant(float(argument)) if isinstance(argument, (int, float)) else argument

    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = next(remaining)
        elif node.op == "output":
            return [value(result) for result in node.args[0]]
        else:
            name = str(node.target).split(".")[1]
            if name == "zeros_like":
                values[node] = block.constant(0.0)
            elif name == "ones_like":
                values[node] = block.constant(1.0)
            elif name == "full_like":
                values[node] = value(node.args[1])
            elif name == "scalar_tensor":
                values[node] = value(node.args[0])
            elif name in ("add", "sub", "rsub") and node.kwargs.get("alpha", 1) != 1:
                raise NotImplementedError(f"aten.{name} with alpha has no LLVM form; write the product out")
            else:
                values[node] = _operation(block, name, [value(a) for a in node.args])
    raise AssertionError("a traced graph ends with its output")
