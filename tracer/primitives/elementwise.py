"""Elementwise primitives. Operands agree in dtype and are broadcast against each other by NumPy's rules.

The family derives shape, vmap, jvp and vjp; a member gives its NumPy function and `partial`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import _convert, array, record, wrap
from ingot.tracer.aval import Aval, show
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree
from ingot.tracer.graph import Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import special

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]
Axes = Sequence[int | None]


# -- shapes --------------------------------------------------------------------------------------------------


def broadcast_shapes(*shapes: Sequence[Extent]) -> tuple[Extent, ...]:
    """Common shape by NumPy's rules: extents are equal, or one of them is the literal 1.

    Raises:
        ShapeError: when two shapes do not fit.
    """
    result = tuple(shapes[0])
    for shape in shapes[1:]:
        shape = tuple(shape)
        if shape != result if not _symbolic(shape, result) else not dims.same_shape(shape, result):
            result = _broadcast_pair(result, shape)
    return result


def _symbolic(*shapes: Sequence[Extent]) -> bool:
    return any(type(extent) is not int for shape in shapes for extent in shape)


def _broadcast_pair(a: tuple[Extent, ...], b: tuple[Extent, ...]) -> tuple[Extent, ...]:
    rank = max(len(a), len(b))
    out: list[Extent] = []
    padded = ((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b)
    for left, right in zip(*padded, strict=True):
        if _is_one(left):
            out.append(right)
        elif _is_one(right):
            out.append(left)
        elif agree(left, right):
            out.append(left if isinstance(left, int) else right)
        elif isinstance(left, Dim) and agree(left, 1):
            out.append(right)  # a sample of 1: the trace holds for 1 only
        elif isinstance(right, Dim) and agree(right, 1):
            out.append(left)
        else:
            raise ShapeError(
                f"[broadcast_shapes] Shapes {show_shape(a)} and {show_shape(b)} cannot be broadcast."
            )
    return tuple(out)


def _is_one(extent: Extent) -> bool:
    return isinstance(extent, int) and extent == 1


def show_shape(shape: Sequence[Extent]) -> str:
    """A shape as it stands in error messages: `(2,3)`."""
    return "(" + ",".join(map(str, shape)) + ")"


def sum_to(x: array, shape: Sequence[Extent]) -> array:
    """`x` summed over the axes along which an operand of `shape` was broadcast."""
    given, shape = x.shape, tuple(shape)
    if dims.same_shape(given, shape):
        return x
    extra = len(given) - len(shape)
    axes = list(range(extra))
    for axis, extent in enumerate(shape):
        if _is_one(extent) and not _is_one(given[axis + extra]):
            axes.append(axis + extra)
    if axes:
        x = x.sum(tuple(axes), keepdims=True)
    return x if dims.same_shape(x.shape, shape) else x.reshape(shape)


def spread_to(x: array, shape: Sequence[Extent]) -> array:
    """`x` broadcast to `shape`, unless it has that shape."""
    return x if dims.same_shape(x.shape, shape) else x.broadcast_to(tuple(shape))


def is_literal(x: array) -> bool:
    """True for an operand that is a constant scalar of the graph: it needs no cotangent."""
    return type(x._value) is Literal


def total(terms: MaybeHandles) -> array | None:
    """Sum of the terms that are not None."""
    result: array | None = None
    for term in terms:
        if term is not None:
            result = term if result is None else result + term
    return result


def in_front(x: array, axis: int | None, rank: int) -> array:
    """Batch axis moved to 0 and unit axes inserted after it, so that `x` lines up with operands of `rank`."""
    if axis is None:
        return x
    if axis:
        x = x.moveaxis(axis, 0)
    missing = rank - (x.ndim - 1)
    if missing:
        x = x.reshape((x.shape[0], *(1,) * missing, *x.shape[1:]))
    return x


# -- the family ----------------------------------------------------------------------------------------------

REAL = "buif"
ANY = "buifc"
FLOAT = "f"
INEXACT = "fc"
INTEGER = "bui"


class Elementwise(Primitive, abstract=True):
    """`fn` of the broadcast operands.

    kinds: the dtype kinds that operands may have; result: the dtype of the result when it is not theirs;
    linear: the derivative does not depend on the operands, so that it is right for complex numbers too.
    """

    arity: ClassVar[int] = 1
    linear: ClassVar[bool] = False
    kinds: ClassVar[str] = ANY
    result: ClassVar[Dtype | None] = None
    fn: ClassVar[Any] = None

    def infer(self, *avals: Aval) -> Aval:
        first = avals[0]
        if len(avals) != self.arity:
            raise ShapeError(f"[{self.name}] takes {self.arity} operands, got {len(avals)}.")
        if any(a.dtype is not first.dtype for a in avals):
            raise ShapeError(f"[{self.name}] operands must agree in dtype, got {show(avals)}.")
        if first.dtype.kind not in self.kinds:
            raise ValueError(f"[{self.name}] Not supported for {first.dtype.name}.")
        return Aval(broadcast_shapes(*[a.shape for a in avals]), self.result or first.dtype)

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        dtype = xs[0].dtype
        if dtype.char in "eE":  # float16 and bfloat16: computed in float32, rounded once
            out = self.fn(*[x.astype(np.float32) for x in xs])
            return out if self.result is not None else out.astype(dtype)
        return self.fn(*xs)

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        """`d` times the derivative of the result `y` by operand `i`, elementwise; None where that is zero."""
        raise NotImplementedError(f"[{self.name}] partial")

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        y = results[0]
        if not y.dtype.is_inexact:
            return [None]
        moved = total([None if t is None else self.partial(i, t, primals, y) for i, t in enumerate(tangents)])
        return [None if moved is None else spread_to(moved, y.shape)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        ct, y = cotangents[0], results[0]
        if ct is None or not y.dtype.is_inexact:
            return [None] * len(primals)
        # A cotangent is d/d(real part) + i d/d(imaginary part), as in MLX: a holomorphic function multiplies
        # it by the conjugate of its derivative.
        turned = y.dtype.is_complex and not self.linear
        ct = conjugate(ct) if turned else ct
        found: list[array | None] = []
        for i, x in enumerate(primals):
            part = None if is_literal(x) or not x.dtype.is_inexact else self.partial(i, ct, primals, y)
            part = conjugate(part) if turned and part is not None else part
            found.append(None if part is None else sum_to(part, x.shape))
        return found

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        rank = max(x.ndim - (axis is not None) for x, axis in zip(operands, axes, strict=True))
        moved = [in_front(x, axis, rank) for x, axis in zip(operands, axes, strict=True)]
        return [record(self, *[x._value for x in moved])], [0]


class Flat(Elementwise, abstract=True):
    """Elementwise with a derivative that is zero or undefined everywhere."""

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return None


def apply(primitive: Primitive, *operands: array) -> array:
    """Record `primitive` on handles."""
    return record(primitive, *[x._value for x in operands])


def choose(condition: array, x: array, y: array) -> array:
    """`x` where `condition` holds, else `y`; both of one dtype."""
    return record(Select(), condition._value, x._value, y._value)


def conjugate(x: array) -> array:
    """The complex conjugate; of real numbers the array itself."""
    return record(Conjugate(), x._value) if x.dtype.is_complex else x


def constant(value: bool | int | float, dtype: Dtype) -> array:
    """A scalar constant."""
    return wrap(Literal(value, dtype))


# -- arithmetic ----------------------------------------------------------------------------------------------


def _bool_or(of_bool: Callable[..., Any], otherwise: Callable[..., Any]) -> Any:
    """NumPy has no `-` for bool; arithmetic of bool is that of one bit."""

    def fn(*xs: np.ndarray) -> np.ndarray:
        return of_bool(*xs) if xs[0].dtype.kind == "b" else otherwise(*xs)

    return staticmethod(fn)


def _product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`x * y` of complex numbers with every product rounded; NumPy's bits depend on the processor."""
    out = np.empty(np.broadcast_shapes(x.shape, y.shape), x.dtype)
    a, b, c, d = np.real(x), np.imag(x), np.real(y), np.imag(y)
    out.real = a * c - b * d
    out.imag = a * d + b * c
    return out


class Add(Elementwise):
    """`x + y`; for bool the logical or."""

    linear = True
    arity = 2
    fn = np.add

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d


class Sub(Elementwise):
    """`x - y`; for bool the exclusive or."""

    linear = True
    arity = 2
    fn = _bool_or(np.logical_xor, np.subtract)

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return -d if i else d


class Mul(Elementwise):
    """`x * y`; for bool the logical and."""

    arity = 2
    fn = staticmethod(lambda x, y: _product(x, y) if x.dtype.kind == "c" else np.multiply(x, y))

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * xs[1 - i]


class Div(Elementwise):
    """`x / y` of floating-point operands."""

    arity = 2
    kinds = INEXACT
    fn = np.divide

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return -(d * (y / xs[1])) if i else d / xs[1]


class Neg(Elementwise):
    """`-x`; unsigned integers wrap."""

    linear = True
    kinds = "uifc"
    fn = np.negative

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return -d


class Abs(Elementwise):
    """Absolute value; the most negative integer stays itself."""

    kinds = REAL
    fn = np.abs

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * apply(Sign(), xs[0])


class Sign(Flat):
    """-1, 0 or 1: `(x > 0) - (x < 0)`, so NaN gives 0."""

    kinds = REAL

    @staticmethod
    def fn(x: np.ndarray) -> np.ndarray:
        if x.dtype.kind == "b":
            return x
        positive = (x > 0).astype(x.dtype)
        return positive if x.dtype.kind == "u" else positive - (x < 0).astype(x.dtype)


class FloorDivide(Flat):
    """Integer quotient rounded down; 0 where the divisor is 0. (For floats: `floor(x / y)`.)"""

    arity = 2
    kinds = INTEGER

    @staticmethod
    def fn(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.logical_and(x, y) if x.dtype.kind == "b" else np.floor_divide(x, y)


class Remainder(Elementwise):
    """Remainder with the sign of the divisor; for a divisor of 0 it is 0 (integers) or NaN (floats)."""

    arity = 2
    kinds = REAL
    fn = _bool_or(lambda x, y: np.logical_and(x, False) & y, np.remainder)

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return -(d * apply(Floor(), xs[0] / xs[1])) if i else d


class Pow(Elementwise):
    """`x ** y`. Integers: wraps, and a negative exponent gives 0."""

    arity = 2

    @staticmethod
    def fn(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if x.dtype.kind == "b":
            return np.logical_or(x, np.logical_not(y))
        if x.dtype.kind == "i":
            return np.where(y < 0, 0, np.power(x, np.maximum(y, 0))).astype(x.dtype)
        return np.power(x, y)

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        base, exponent = xs
        if i == 0:
            if is_literal(exponent):
                value = exponent._value.value
                if value == 0:
                    return None
                slope = base if value == 2 else apply(self, base, constant(value - 1, base.dtype))
                return d * (slope * exponent)
            # x^0 has slope 0 even at x = 0, where x^-1 is infinite
            one = constant(1, base.dtype)
            safe = choose(exponent == 0, one, exponent - 1)
            return d * (exponent * apply(self, base, safe))
        # 0^y is 0 around y > 0, where log(0) is not finite
        log = apply(Log(), choose(base == 0, constant(1, base.dtype), base))
        return d * (y * log)


class Maximum(Elementwise):
    """The larger operand; NaN when either is NaN. In a tie the second operand takes the derivative."""

    arity = 2
    kinds = REAL
    fn = np.maximum

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        mask = xs[0] <= xs[1] if i else xs[0] > xs[1]
        return choose(mask, d, constant(0, d.dtype))


class Minimum(Elementwise):
    """The smaller operand; NaN when either is NaN. In a tie the second operand takes the derivative."""

    arity = 2
    kinds = REAL
    fn = np.minimum

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        mask = xs[0] >= xs[1] if i else xs[0] < xs[1]
        return choose(mask, d, constant(0, d.dtype))


class Square(Elementwise):
    """`x * x`; for bool `x`."""

    fn = _bool_or(np.array, lambda x: _product(x, x) if x.dtype.kind == "c" else np.square(x))

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * (xs[0] * 2.0)


# -- rounding ------------------------------------------------------------------------------------------------


class Floor(Flat):
    """Largest integer not above `x`."""

    kinds = FLOAT
    fn = np.floor


class Ceil(Flat):
    """Smallest integer not below `x`."""

    kinds = FLOAT
    fn = np.ceil


class Round(Flat):
    """Nearest integer; halves go to the even one."""

    kinds = FLOAT
    fn = np.rint


class Trunc(Flat):
    """The integer part of `x`."""

    kinds = FLOAT
    fn = np.trunc


# -- roots, exponentials, logarithms -------------------------------------------------------------------------


class Sqrt(Elementwise):
    """Square root."""

    kinds = INEXACT
    fn = np.sqrt

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * 0.5 / y


class Rsqrt(Elementwise):
    """`1 / sqrt(x)`."""

    kinds = INEXACT

    @staticmethod
    def fn(x: np.ndarray) -> np.ndarray:
        return np.divide(x.dtype.type(1), np.sqrt(x))

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * -0.5 * (y * y * y)


class Exp(Elementwise):
    """`e ** x`."""

    kinds = INEXACT
    fn = np.exp

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * y


class Expm1(Elementwise):
    """`e ** x - 1`, accurate near 0."""

    kinds = INEXACT
    fn = np.expm1

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * (y + 1.0)


class Log(Elementwise):
    """Natural logarithm."""

    kinds = INEXACT
    fn = np.log

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d / xs[0]


class Log1p(Elementwise):
    """`log(1 + x)`, accurate near 0."""

    kinds = INEXACT
    fn = np.log1p

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d / (xs[0] + 1.0)


class Log2(Elementwise):
    """Logarithm to base 2."""

    kinds = INEXACT
    fn = np.log2

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d / (xs[0] * math.log(2.0))


class Log10(Elementwise):
    """Logarithm to base 10."""

    kinds = INEXACT
    fn = np.log10

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d / (xs[0] * math.log(10.0))


class Logaddexp(Elementwise):
    """`log(exp(x) + exp(y))` without overflow."""

    arity = 2
    kinds = FLOAT
    fn = np.logaddexp

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        difference = xs[1] - xs[0] if i else xs[0] - xs[1]
        # equal infinities have no difference
        zero = constant(0, d.dtype)
        return d * apply(Sigmoid(), choose(xs[0] == xs[1], zero, difference))


# -- trigonometry --------------------------------------------------------------------------------------------


class Sin(Elementwise):
    """Sine of an angle in radians."""

    kinds = INEXACT
    fn = np.sin

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * apply(Cos(), xs[0])


class Cos(Elementwise):
    """Cosine of an angle in radians."""

    kinds = INEXACT
    fn = np.cos

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return -(d * apply(Sin(), xs[0]))


class Tan(Elementwise):
    """Tangent of an angle in radians."""

    kinds = INEXACT
    fn = np.tan

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * (y * y + 1.0)


class Asin(Elementwise):
    """Inverse sine, in radians."""

    kinds = INEXACT
    fn = np.arcsin

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * apply(Rsqrt(), 1.0 - xs[0] * xs[0])


class Acos(Elementwise):
    """Inverse cosine, in radians."""

    kinds = INEXACT
    fn = np.arccos

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return -(d * apply(Rsqrt(), 1.0 - xs[0] * xs[0]))


class Atan(Elementwise):
    """Inverse tangent, in radians."""

    kinds = INEXACT
    fn = np.arctan

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d / (xs[0] * xs[0] + 1.0)


class Atan2(Elementwise):
    """Angle of the point (second operand, first operand), in radians from -pi to pi."""

    arity = 2
    kinds = FLOAT
    fn = np.arctan2

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        a, b = xs
        square = a * a + b * b
        return -(d * (a / square)) if i else d * (b / square)


class Sinh(Elementwise):
    """Hyperbolic sine."""

    kinds = INEXACT
    fn = np.sinh

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * apply(Cosh(), xs[0])


class Cosh(Elementwise):
    """Hyperbolic cosine."""

    kinds = INEXACT
    fn = np.cosh

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * apply(Sinh(), xs[0])


class Tanh(Elementwise):
    """Hyperbolic tangent."""

    kinds = INEXACT
    fn = np.tanh

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * (1.0 - y * y)


class Asinh(Elementwise):
    """Inverse hyperbolic sine."""

    kinds = INEXACT
    fn = np.arcsinh

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * apply(Rsqrt(), xs[0] * xs[0] + 1.0)


class Acosh(Elementwise):
    """Inverse hyperbolic cosine."""

    kinds = INEXACT
    fn = np.arccosh

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * apply(Rsqrt(), xs[0] * xs[0] - 1.0)


class Atanh(Elementwise):
    """Inverse hyperbolic tangent."""

    kinds = INEXACT
    fn = np.arctanh

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d / (1.0 - xs[0] * xs[0])


class Sigmoid(Elementwise):
    """`1 / (1 + exp(-x))`."""

    kinds = INEXACT

    @staticmethod
    def fn(x: np.ndarray) -> np.ndarray:
        if x.dtype.kind == "c":
            return 1 / (1 + np.exp(-x))
        e = np.exp(-np.abs(x))  # at most 1: both tails keep their digits
        return np.where(x < 0, e, x.dtype.type(1)) / (x.dtype.type(1) + e)

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * (y * (1.0 - y))


class Erf(Elementwise):
    """Error function `2/sqrt(pi) * integral of exp(-t*t) from 0 to x`."""

    kinds = FLOAT

    @staticmethod
    def fn(x: np.ndarray) -> np.ndarray:
        return special.erf(x).astype(x.dtype)

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * (apply(Exp(), -(xs[0] * xs[0])) * (2.0 / math.sqrt(math.pi)))


class Erfinv(Elementwise):
    """Inverse of `erf`; NaN outside [-1, 1]."""

    kinds = FLOAT

    @staticmethod
    def fn(x: np.ndarray) -> np.ndarray:
        return special.erfinv(x).astype(x.dtype)

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d * (apply(Exp(), y * y) * (math.sqrt(math.pi) / 2.0))


# -- comparisons and logic -----------------------------------------------------------------------------------


class Eq(Flat):
    """`x == y`; NaN equals nothing."""

    arity = 2
    result = dtypes.bool_
    fn = np.equal


class Ne(Flat):
    """`x != y`."""

    arity = 2
    result = dtypes.bool_
    fn = np.not_equal


class Lt(Flat):
    """`x < y`."""

    arity = 2
    result = dtypes.bool_
    fn = np.less


class Le(Flat):
    """`x <= y`."""

    arity = 2
    result = dtypes.bool_
    fn = np.less_equal


class Gt(Flat):
    """`x > y`."""

    arity = 2
    result = dtypes.bool_
    fn = np.greater


class Ge(Flat):
    """`x >= y`."""

    arity = 2
    result = dtypes.bool_
    fn = np.greater_equal


class LogicalNot(Flat):
    """Negation of bool."""

    kinds = "b"
    fn = np.logical_not


class LogicalAnd(Flat):
    """Conjunction of bools."""

    arity = 2
    kinds = "b"
    fn = np.logical_and


class LogicalOr(Flat):
    """Disjunction of bools."""

    arity = 2
    kinds = "b"
    fn = np.logical_or


class BitwiseNot(Flat):
    """All bits flipped; for bool the negation."""

    kinds = INTEGER
    fn = np.invert


class BitwiseAnd(Flat):
    """Bits set in both."""

    arity = 2
    kinds = INTEGER
    fn = np.bitwise_and


class BitwiseOr(Flat):
    """Bits set in either."""

    arity = 2
    kinds = INTEGER
    fn = np.bitwise_or


class BitwiseXor(Flat):
    """Bits set in exactly one."""

    arity = 2
    kinds = INTEGER
    fn = np.bitwise_xor


class LeftShift(Flat):
    """`x << y`; a count that is negative or not below the width gives 0."""

    arity = 2
    kinds = "ui"
    fn = np.left_shift


class RightShift(Flat):
    """`x >> y`, arithmetic for signed; a count that is negative or not below the width gives 0 or -1."""

    arity = 2
    kinds = "ui"
    fn = np.right_shift


class Select(Elementwise):
    """The second operand where the first (bool) is true, else the third."""

    linear = True
    arity = 3

    def infer(self, *avals: Aval) -> Aval:
        if len(avals) != 3 or avals[0].dtype is not dtypes.bool_ or avals[1].dtype is not avals[2].dtype:
            raise ShapeError(f"[select] expected a bool and two operands of one dtype, got {show(avals)}.")
        return Aval(broadcast_shapes(*[a.shape for a in avals]), avals[1].dtype)

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        return np.where(*xs)

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        zero = constant(0, d.dtype)
        if i == 0:
            return None
        return choose(xs[0], d, zero) if i == 1 else choose(xs[0], zero, d)


# -- parts of complex numbers --------------------------------------------------------------------------------
# The real part is the conversion to float32.


class Imag(Elementwise):
    """Imaginary part."""

    kinds = "c"
    result = dtypes.float32
    fn = staticmethod(lambda x: np.array(np.imag(x)))

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        if d.dtype.is_complex:  # a tangent
            return apply(self, d)
        return d.astype(dtypes.complex64) * wrap(Literal(1j, dtypes.complex64))


class Conjugate(Elementwise):
    """`x` with the sign of its imaginary part changed."""

    linear = True
    kinds = "c"
    fn = np.conjugate

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return apply(self, d)


class Modulus(Elementwise):
    """Absolute value of complex numbers, without overflow on the way."""

    kinds = "c"
    result = dtypes.float32
    fn = np.abs

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        (x,) = xs
        size = choose(y == 0, constant(1, y.dtype), y)
        direction = x / size.astype(dtypes.complex64)
        if d.dtype.is_complex:  # a tangent
            return (conjugate(direction) * d).astype(dtypes.float32)
        return d.astype(dtypes.complex64) * direction


# -- conversion ----------------------------------------------------------------------------------------------


class ConvertElementType(Elementwise):
    """`x` in `dtype`. Floats saturate to integers and NaN gives 0; bool is `x != 0`; integers wrap."""

    dtype: Dtype

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        return Aval(x.shape, self.dtype)

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        return _convert(xs[0], self.dtype)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,) = tangents
        return [apply(self, t) if t is not None and self.dtype.is_inexact else None]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,) = cotangents
        source = primals[0].dtype
        if ct is None or not source.is_inexact or not self.dtype.is_inexact:
            return [None]
        return [apply(ConvertElementType(source), ct)]


class Bitcast(Flat):
    """The bits of `x` read as `dtype`, which has the same size."""

    may_alias = True

    dtype: Dtype

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        if x.dtype.size != self.dtype.size:
            raise ShapeError(f"[bitcast] {x.dtype.name} and {self.dtype.name} differ in size.")
        return Aval(x.shape, self.dtype)

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        if self.dtype is dtypes.bool_:
            return xs[0].view(np.uint8) != 0  # other bytes than 0 and 1 are no bools
        return xs[0].view(self.dtype.numpy)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]


class Identity(Elementwise):
    """`x` as a value of its own, which transforms tell apart from `x`."""

    linear = True
    may_alias = True

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        return xs[0]

    def partial(self, i: int, d: array, xs: Handles, y: array) -> array | None:
        return d


class StopGradient(Flat):
    """`x` without derivatives."""

    may_alias = True

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        return xs[0]
