"""Elementwise functions: argument handling and promotion, then primitives."""

from __future__ import annotations

import builtins
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record, wrap
from ingot.tracer.dtypes import Dtype, promote
from ingot.tracer.graph import Literal
from ingot.tracer.ops.coerce import (
    Operand,
    as_array,
    as_operand,
    at_least_float,
    common_pair,
    convert,
    literal,
    require_array,
)
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as p
from ingot.tracer.primitives.elementwise import show_shape
from ingot.tracer.primitives.shape import BroadcastTo

Unary = Callable[..., array]
Binary = Callable[..., array]
ArrayLike = Any


def _named(fn: Callable, name: str, doc: str) -> Callable:
    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    return fn


def _inexact_unary(name: str, primitive: Primitive, doc: str) -> Unary:
    """A function of one array whose result is floating (or complex): integers become float32."""

    def op(a: ArrayLike, /, *, stream: Any = None) -> array:
        x = a._value if type(a) is array else as_operand(name, a)
        return record(primitive, x if x.aval.dtype.kind in "fc" else at_least_float(x))

    return _named(op, name, f"{doc}, elementwise. Integers and bools are taken as float32.")


def _rounding_unary(name: str, primitive: Primitive, doc: str) -> Unary:
    """A function of one array that leaves integers and bools as they are."""

    def op(a: ArrayLike, /, *, stream: Any = None) -> array:
        x = a._value if type(a) is array else as_operand(name, a)
        if x.aval.dtype.kind in "bui":
            return wrap(x)
        return record(primitive, x)

    return _named(op, name, f"{doc}, elementwise. Integers and bools stay as they are.")


def _binary(
    name: str, primitive: Primitive, doc: str, check: Callable[[str, Dtype], None] | None = None
) -> Binary:
    """A function of two arrays in their common dtype."""

    def op(a: ArrayLike, b: ArrayLike, stream: Any = None) -> array:
        if type(a) is array and type(b) is array:
            x, y = a._value, b._value
            if x.aval.dtype is not y.aval.dtype:
                x, y = common_pair(name, a, b)
        else:
            x, y = common_pair(name, a, b)
        if check is not None:
            check(name, x.aval.dtype)
        return record(primitive, x, y)

    return _named(op, name, f"{doc}, elementwise, with broadcasting and type promotion.")


def _inexact_binary(name: str, primitive: Primitive, doc: str) -> Binary:
    """A function of two arrays in their common floating dtype: integers become float32."""

    def op(a: ArrayLike, b: ArrayLike, stream: Any = None) -> array:
        if type(a) is array and type(b) is array and a._value.aval.dtype is b._value.aval.dtype:
            x, y = a._value, b._value
        else:
            x, y = common_pair(name, a, b)
        if x.aval.dtype.kind not in "fc":
            x, y = at_least_float(x), at_least_float(y)
        return record(primitive, x, y)

    return _named(
        op, name, f"{doc}, elementwise, with broadcasting. Integers and bools are taken as float32."
    )


def _bits(name: str, dtype: Dtype) -> None:
    if dtype.kind not in "bui":
        raise ValueError(f"[{name}] Only allowed on integer and bool types, got {dtype.name}.")


# -- arithmetic ----------------------------------------------------------------------------------------------

add = _binary("add", p.Add(), "Sum `a + b`")
subtract = _binary("subtract", p.Sub(), "Difference `a - b`")
multiply = _binary("multiply", p.Mul(), "Product `a * b`")
divide = _inexact_binary("divide", p.Div(), "Quotient `a / b`")


def _extremum(name: str, primitive: Primitive, order: Primitive, doc: str) -> Binary:
    """Complex numbers are compared by their real, then by their imaginary parts."""

    def op(a: ArrayLike, b: ArrayLike, stream: Any = None) -> array:
        x, y = common_pair(name, a, b)
        if x.aval.dtype.kind != "c":
            return record(primitive, x, y)
        first = logical_or(record(order, x, y), record(p.Ne(), x, x))
        return record(p.Select(), first._value, x, y)

    return _named(op, name, f"{doc}, elementwise, with broadcasting and type promotion.")


maximum = _extremum("maximum", p.Maximum(), p.Gt(), "The larger of `a` and `b` (NaN when either is)")
minimum = _extremum("minimum", p.Minimum(), p.Lt(), "The smaller of `a` and `b` (NaN when either is)")
arctan2 = _inexact_binary("arctan2", p.Atan2(), "Angle of the point (`b`, `a`) in radians")
logaddexp = _inexact_binary("logaddexp", p.Logaddexp(), "`log(exp(a) + exp(b))` without overflow")

atan2 = arctan2

_POW, _SQUARE, _REMAINDER, _INT_DIVIDE = p.Pow(), p.Square(), p.Remainder(), p.FloorDivide()
_DIV, _FLOOR = p.Div(), p.Floor()


def power(a: ArrayLike, b: ArrayLike, /, *, stream: Any = None) -> array:
    """`a` to the power of `b`, elementwise. An integer to a negative power is 0."""
    x, y = common_pair("power", a, b)
    return record(_POW, x, y)


pow = power


def floor_divide(a: ArrayLike, b: ArrayLike, stream: Any = None) -> array:
    """Quotient rounded down, elementwise. Integers: 0 where `b` is 0. Floats: `floor(a / b)`."""
    x, y = common_pair("floor_divide", a, b)
    kind = x.aval.dtype.kind
    if kind == "c":
        raise ValueError("[floor_divide] Complex type not supported.")
    if kind == "f":
        return record(_FLOOR, record(_DIV, x, y)._value)
    return record(_INT_DIVIDE, x, y)


def remainder(a: ArrayLike, b: ArrayLike, stream: Any = None) -> array:
    """Remainder of `a / b` with the sign of `b`, elementwise. Where `b` is 0: 0 for integers, else NaN."""
    x, y = common_pair("remainder", a, b)
    if x.aval.dtype.kind == "c":
        raise ValueError("[remainder] Complex type not supported.")
    return record(_REMAINDER, x, y)


def divmod(a: ArrayLike, b: ArrayLike, stream: Any = None) -> tuple[array, array]:
    """`(floor_divide(a, b), remainder(a, b))`."""
    return floor_divide(a, b), remainder(a, b)


def negative(a: ArrayLike, /, *, stream: Any = None) -> array:
    """`-a`, elementwise; unsigned integers wrap."""
    x = a._value if type(a) is array else as_operand("negative", a)
    if x.aval.dtype is dtypes.bool_:
        raise ValueError("[negative] Not supported for bool, use logical_not instead.")
    return record(_NEG, x)


def abs(a: ArrayLike, /, *, stream: Any = None) -> array:
    """Absolute value, elementwise."""
    x = a._value if type(a) is array else as_operand("abs", a)
    if x.aval.dtype.kind in "bu":
        return wrap(x)
    return record(_MODULUS if x.aval.dtype.kind == "c" else _ABS, x)


def real(a: ArrayLike, /, *, stream: Any = None) -> array:
    """Real part, elementwise; real arrays as they are."""
    x = as_operand("real", a)
    return wrap(convert(x, dtypes.float32) if x.aval.dtype.kind == "c" else x)


def imag(a: ArrayLike, /, *, stream: Any = None) -> array:
    """Imaginary part, elementwise; zeros for real arrays."""
    x = as_operand("imag", a)
    return record(_IMAG, x) if x.aval.dtype.kind == "c" else _zeros_like(x)


def conjugate(a: ArrayLike, *, stream: Any = None) -> array:
    """Complex conjugate, elementwise; real arrays as they are."""
    x = as_operand("conjugate", a)
    return record(_CONJUGATE, x) if x.aval.dtype.kind == "c" else wrap(x)


def conj(a: ArrayLike, *, stream: Any = None) -> array:
    """See `conjugate`."""
    return conjugate(a)


def _zeros_like(x: Operand) -> array:
    return record(BroadcastTo(x.aval.shape), Literal(0, x.aval.dtype))


def positive(a: array, /, *, stream: Any = None) -> array:
    """`+a`: the array under a handle of its own."""
    return wrap(require_array("positive", a)._value)


def sign(a: ArrayLike, /, *, stream: Any = None) -> array:
    """-1, 0 or 1 by the sign of `a`, elementwise; 0 for NaN. Of complex numbers `a / |a|`, or 0."""
    x = as_operand("sign", a)
    if x.aval.dtype.kind == "c":
        size = record(_MODULUS, x)
        nonzero = record(p.Select(), equal(size, 0)._value, Literal(1, dtypes.float32), size._value)
        return divide(wrap(x), nonzero)
    return record(_SIGN, x)


def square(a: ArrayLike, /, *, stream: Any = None) -> array:
    """`a * a`, elementwise."""
    return record(_SQUARE, as_operand("square", a))


def reciprocal(a: ArrayLike, /, *, stream: Any = None) -> array:
    """`1 / a`, elementwise. Integers are taken as float32."""
    x = at_least_float(as_operand("reciprocal", a))
    return record(_DIV, Literal(1, x.aval.dtype), x)


_NEG, _ABS, _SIGN = p.Neg(), p.Abs(), p.Sign()
_IMAG, _CONJUGATE, _MODULUS = p.Imag(), p.Conjugate(), p.Modulus()

# -- rounding ------------------------------------------------------------------------------------------------

floor = _rounding_unary("floor", p.Floor(), "Largest integer not above `a`")
ceil = _rounding_unary("ceil", p.Ceil(), "Smallest integer not below `a`")
trunc = _rounding_unary("trunc", p.Trunc(), "Integer part of `a`")

_ROUND = p.Round()


def round(a: ArrayLike, /, decimals: int = 0, stream: Any = None) -> array:
    """`a` rounded to `decimals` places, halves to even, elementwise.

    With negative `decimals` integers are rounded too: to tens, hundreds and so on.
    """
    x = as_operand("round", a)
    dtype = x.aval.dtype
    if dtype.kind in "bui" and (decimals >= 0 or dtype.kind == "b"):
        return wrap(x)
    if decimals == 0:
        return record(_ROUND, x)
    scale = 10.0 ** builtins.abs(decimals)
    wide = wrap(at_least_float(x))
    if decimals > 0:
        rounded = divide(record(_ROUND, multiply(wide, scale)._value), scale)
    else:
        rounded = multiply(record(_ROUND, divide(wide, scale)._value), scale)
    return wrap(convert(rounded._value, dtype))


# -- roots, exponentials, logarithms, trigonometry -----------------------------------------------------------

sqrt = _inexact_unary("sqrt", p.Sqrt(), "Square root")
rsqrt = _inexact_unary("rsqrt", p.Rsqrt(), "`1 / sqrt(a)`")
exp = _inexact_unary("exp", p.Exp(), "`e ** a`")
expm1 = _inexact_unary("expm1", p.Expm1(), "`exp(a) - 1`, accurate near 0")
log = _inexact_unary("log", p.Log(), "Natural logarithm")
log1p = _inexact_unary("log1p", p.Log1p(), "`log(1 + a)`, accurate near 0")
log2 = _inexact_unary("log2", p.Log2(), "Logarithm to base 2")
log10 = _inexact_unary("log10", p.Log10(), "Logarithm to base 10")
sin = _inexact_unary("sin", p.Sin(), "Sine of an angle in radians")
cos = _inexact_unary("cos", p.Cos(), "Cosine of an angle in radians")
tan = _inexact_unary("tan", p.Tan(), "Tangent of an angle in radians")
arcsin = _inexact_unary("arcsin", p.Asin(), "Inverse sine in radians")
arccos = _inexact_unary("arccos", p.Acos(), "Inverse cosine in radians")
arctan = _inexact_unary("arctan", p.Atan(), "Inverse tangent in radians")
sinh = _inexact_unary("sinh", p.Sinh(), "Hyperbolic sine")
cosh = _inexact_unary("cosh", p.Cosh(), "Hyperbolic cosine")
tanh = _inexact_unary("tanh", p.Tanh(), "Hyperbolic tangent")
arcsinh = _inexact_unary("arcsinh", p.Asinh(), "Inverse hyperbolic sine")
arccosh = _inexact_unary("arccosh", p.Acosh(), "Inverse hyperbolic cosine")
arctanh = _inexact_unary("arctanh", p.Atanh(), "Inverse hyperbolic tangent")
asin, acos, atan = arcsin, arccos, arctan
asinh, acosh, atanh = arcsinh, arccosh, arctanh
sigmoid = _inexact_unary("sigmoid", p.Sigmoid(), "`1 / (1 + exp(-a))`")
erf = _inexact_unary("erf", p.Erf(), "Error function")
erfinv = _inexact_unary("erfinv", p.Erfinv(), "Inverse of the error function")


def degrees(a: ArrayLike, /, *, stream: Any = None) -> array:
    """Radians to degrees, elementwise."""
    return multiply(wrap(at_least_float(as_operand("degrees", a))), 180.0 / math.pi)


def radians(a: ArrayLike, /, *, stream: Any = None) -> array:
    """Degrees to radians, elementwise."""
    return multiply(wrap(at_least_float(as_operand("radians", a))), math.pi / 180.0)


# -- comparisons ---------------------------------------------------------------------------------------------

equal = _binary("equal", p.Eq(), "`a == b`")
not_equal = _binary("not_equal", p.Ne(), "`a != b`")
less = _binary("less", p.Lt(), "`a < b`")
less_equal = _binary("less_equal", p.Le(), "`a <= b`")
greater = _binary("greater", p.Gt(), "`a > b`")
greater_equal = _binary("greater_equal", p.Ge(), "`a >= b`")


def isnan(a: ArrayLike, stream: Any = None) -> array:
    """True where `a` is NaN."""
    x = as_operand("isnan", a)
    return record(_NE, x, x)


def _is_infinite(name: str, a: ArrayLike, value: float) -> array:
    x = as_operand(name, a)
    kind = x.aval.dtype.kind
    if kind == "f":
        return record(_EQ, x, Literal(value, x.aval.dtype))
    if kind == "c":
        return record(_EQ, x, Literal(value, x.aval.dtype))
    return record(_NE, x, x)  # integers are finite


def isposinf(a: ArrayLike, stream: Any = None) -> array:
    """True where `a` is plus infinity."""
    return _is_infinite("isposinf", a, math.inf)


def isneginf(a: ArrayLike, stream: Any = None) -> array:
    """True where `a` is minus infinity."""
    return _is_infinite("isneginf", a, -math.inf)


def isinf(a: ArrayLike, stream: Any = None) -> array:
    """True where `a` is plus or minus infinity."""
    x = as_array("isinf", a)
    if x.dtype.is_complex:
        return logical_or(isinf(real(x)), isinf(imag(x)))
    return _is_infinite("isinf", abs(x) if x.dtype.is_floating else x, math.inf)


def isfinite(a: ArrayLike, stream: Any = None) -> array:
    """True where `a` is neither NaN nor infinite."""
    x = as_array("isfinite", a)
    if not x.dtype.is_floating:
        if x.dtype.is_complex:
            return logical_and(isfinite(real(x)), isfinite(imag(x)))
        return record(_EQ, x._value, x._value)
    return record(_LT, abs(x)._value, Literal(math.inf, x.dtype))


_EQ, _NE, _LT = p.Eq(), p.Ne(), p.Lt()


def isclose(
    a: ArrayLike, b: ArrayLike, /, rtol: float = 1e-05, atol: float = 1e-08, *, equal_nan: bool = False,
    stream: Any = None,
) -> array:  # fmt: skip
    """True where `abs(a - b) <= atol + rtol * abs(b)`, or both are one infinity, or both NaN if wanted."""
    u, v = (wrap(at_least_float(x)) for x in common_pair("isclose", a, b))
    near = less_equal(abs(subtract(u, v)), add(multiply(abs(v), rtol), atol))
    # an infinite bound would accept every finite value
    close = logical_or(logical_and(near, isfinite(v)), equal(u, v))
    return logical_or(close, logical_and(isnan(u), isnan(v))) if equal_nan else close


def allclose(
    a: ArrayLike, b: ArrayLike, /, rtol: float = 1e-05, atol: float = 1e-08, *, equal_nan: bool = False,
    stream: Any = None,
) -> array:  # fmt: skip
    """A bool scalar: `isclose` holds everywhere."""
    return isclose(a, b, rtol, atol, equal_nan=equal_nan).all()


def array_equal(a: ArrayLike, b: ArrayLike, equal_nan: bool = False, stream: Any = None) -> array:
    """A bool scalar: shapes are equal and so are all elements."""
    u, v = as_array("array_equal", a), as_array("array_equal", b)
    if u.ndim != v.ndim or not builtins.all(x == y for x, y in zip(u.shape, v.shape, strict=True)):
        return array(False)
    x, y = common_pair("array_equal", u, v)
    same = record(_EQ, x, y)
    if equal_nan and x.aval.dtype.is_inexact:
        same = logical_or(same, logical_and(record(_NE, x, x), record(_NE, y, y)))
    return same.all()


# -- logic and bits ------------------------------------------------------------------------------------------


def _truth(name: str, a: ArrayLike) -> Any:
    return convert(as_operand(name, a), dtypes.bool_)


def logical_not(a: ArrayLike, /, *, stream: Any = None) -> array:
    """True where `a` is zero or false."""
    return record(_NOT, _truth("logical_not", a))


def logical_and(a: ArrayLike, b: ArrayLike, /, *, stream: Any = None) -> array:
    """True where neither `a` nor `b` is zero or false."""
    return record(_AND, _truth("logical_and", a), _truth("logical_and", b))


def logical_or(a: ArrayLike, b: ArrayLike, /, *, stream: Any = None) -> array:
    """True where `a` or `b` is neither zero nor false."""
    return record(_OR, _truth("logical_or", a), _truth("logical_or", b))


def logical_xor(a: ArrayLike, b: ArrayLike, /, *, stream: Any = None) -> array:
    """True where exactly one of `a` and `b` is zero or false."""
    return record(_NE, _truth("logical_xor", a), _truth("logical_xor", b))


_NOT, _AND, _OR = p.LogicalNot(), p.LogicalAnd(), p.LogicalOr()

bitwise_and = _binary("bitwise_and", p.BitwiseAnd(), "Bits set in both `a` and `b`", _bits)
bitwise_or = _binary("bitwise_or", p.BitwiseOr(), "Bits set in `a` or `b`", _bits)
bitwise_xor = _binary("bitwise_xor", p.BitwiseXor(), "Bits set in exactly one of `a` and `b`", _bits)


def bitwise_invert(a: ArrayLike, stream: Any = None) -> array:
    """All bits of `a` flipped; for bool the negation."""
    x = as_operand("bitwise_invert", a)
    _bits("bitwise_invert", x.aval.dtype)
    return record(_INVERT, x)


def _shift(name: str, primitive: Primitive, a: ArrayLike, b: ArrayLike) -> array:
    x, y = common_pair(name, a, b)
    _bits(name, x.aval.dtype)
    if x.aval.dtype is dtypes.bool_:  # as MLX: bools shift as uint8
        x, y = convert(x, dtypes.uint8), convert(y, dtypes.uint8)
    return record(primitive, x, y)


def left_shift(a: ArrayLike, b: ArrayLike, stream: Any = None) -> array:
    """`a << b`, elementwise; 0 where `b` is not below the width of the type."""
    return _shift("left_shift", _LEFT, a, b)


def right_shift(a: ArrayLike, b: ArrayLike, stream: Any = None) -> array:
    """`a >> b`, elementwise; signed integers keep their sign."""
    return _shift("right_shift", _RIGHT, a, b)


bitwise_left_shift, bitwise_right_shift = left_shift, right_shift

_INVERT, _LEFT, _RIGHT = p.BitwiseNot(), p.LeftShift(), p.RightShift()


# -- selection -----------------------------------------------------------------------------------------------


def where(condition: ArrayLike, x: ArrayLike, y: ArrayLike, /, *, stream: Any = None) -> array:
    """`x` where `condition` is true (or not zero), else `y`, broadcast and promoted."""
    a, b = common_pair("where", x, y)
    return record(_SELECT, _truth("where", condition), a, b)


_SELECT = p.Select()


def clip(a: ArrayLike, /, a_min: ArrayLike | None, a_max: ArrayLike | None, *, stream: Any = None) -> array:
    """`a` limited to the interval from `a_min` to `a_max`; one of them may be None."""
    if a_min is None and a_max is None:
        raise ValueError("[clip] At most one of a_min and a_max may be None.")
    out = as_array("clip", a)
    if a_min is not None:
        out = maximum(out, a_min)
    return out if a_max is None else minimum(out, a_max)


def nan_to_num(
    a: ArrayLike,
    nan: float = 0,
    posinf: float | None = None,
    neginf: float | None = None,
    *,
    stream: Any = None,
) -> array:
    """`a` with NaN and infinities replaced by numbers (infinities by default by the largest finite ones)."""
    x = as_array("nan_to_num", a)
    if not x.dtype.is_floating:
        return wrap(x._value)
    largest = _largest(x.dtype)
    out = where(isnan(x), literal_array(nan, x.dtype), x)
    out = where(isposinf(x), literal_array(largest if posinf is None else posinf, x.dtype), out)
    return where(isneginf(x), literal_array(-largest if neginf is None else neginf, x.dtype), out)


def literal_array(value: bool | int | float, dtype: Dtype) -> array:
    """A scalar constant of `dtype`."""
    return wrap(literal(value, dtype))


def _largest(dtype: Dtype) -> float:
    if dtype is dtypes.bfloat16:
        return (2.0 - 2.0**-7) * 2.0**127
    return float(np.finfo(dtype.numpy).max)


# -- types ---------------------------------------------------------------------------------------------------


def astype(a: array, /, dtype: Dtype, stream: Any = None) -> array:
    """`a` in `dtype`. Floats saturate to integers and NaN gives 0; a copy when nothing changes."""
    x = require_array("astype", a)._value
    if not isinstance(dtype, Dtype):
        raise TypeError(f"[astype] dtype must be an ingot Dtype, not {type(dtype).__name__}.")
    return wrap(convert(x, dtype))


def view(a: ArrayLike, dtype: Dtype, stream: Any = None) -> array:
    """The bits of `a` read as `dtype`; the last axis grows or shrinks when sizes differ."""
    x = as_array("view", a)
    if not isinstance(dtype, Dtype):
        raise TypeError(f"[view] dtype must be an ingot Dtype, not {type(dtype).__name__}.")
    old, new = x.dtype.size, dtype.size
    if old == new:
        return wrap(x._value) if dtype is x.dtype else record(p.Bitcast(dtype), x._value)
    if not x.ndim:
        raise ValueError("[view] Changing the type of a scalar is only allowed for types with the same size.")
    if old < new:
        known = dims.decide("eq", (x.shape[-1] * old) % new, 0)
        if known is not True:
            raise ValueError(
                "[view] When viewing as a larger dtype, the size in bytes of the last axis must be a "
                f"multiple of the requested type size; got {x.dtype.name} of shape {show_shape(x.shape)} "
                f"for {dtype.name}."
            )
    return _resized_view(x, dtype)


def _resized_view(x: array, dtype: Dtype) -> array:
    """Through unsigned integers: pieces are shifted out of, or together into, the wider type."""
    old, new = x.dtype.size, dtype.size
    words = {1: dtypes.uint8, 2: dtypes.uint16, 4: dtypes.uint32, 8: dtypes.uint64}
    bits = x if x.dtype is words[old] else record(p.Bitcast(words[old]), x._value)
    ratio = builtins.max(old, new) // builtins.min(old, new)
    wide = words[builtins.max(old, new)]
    shifts = array([8 * builtins.min(old, new) * i for i in range(ratio)], wide)
    if old > new:
        pieces = right_shift(bits.reshape((*x.shape, 1)), shifts).astype(words[new])
        narrow = pieces.reshape((*x.shape[:-1], x.shape[-1] * ratio))
        return narrow if dtype is words[new] else record(p.Bitcast(dtype), narrow._value)
    grouped = bits.reshape((*x.shape[:-1], (x.shape[-1] * old) // new, ratio)).astype(wide)
    joined = left_shift(grouped, shifts).sum(-1).astype(wide)
    return joined if dtype is wide else record(p.Bitcast(dtype), joined._value)


def result_type(*arrays_and_dtypes: Any) -> Dtype:
    """The dtype that an operation on the arguments (arrays and dtypes) would have."""
    if not arrays_and_dtypes:
        raise ValueError("[result_type] at least one array or dtype is needed.")
    found = [d if isinstance(d, Dtype) else require_array("result_type", d).dtype for d in arrays_and_dtypes]
    return functools.reduce(promote, found)


def can_cast(from_: array | Dtype, to: Dtype) -> bool:
    """True when promoting `from_` together with `to` gives `to`."""
    source = from_ if isinstance(from_, Dtype) else require_array("can_cast", from_).dtype
    return promote(source, to) is to


def stop_gradient(a: array, /, *, stream: Any = None) -> array:
    """`a` as a constant: no derivative flows through the result."""
    return record(_STOP, require_array("stop_gradient", a)._value)


_STOP = p.StopGradient()
