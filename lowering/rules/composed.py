"""Elementwise primitives that are made of others: complex numbers and integer powers.

Sums, products and quotients of complex numbers are computed in float32, by the formulas of the reference
(quotients by Smith, "Algorithm 116: Complex division", 1962), bit for bit. Functions of complex numbers are
computed in float64 and rounded once, which leaves room for plain formulas: the parts of a float32 number have
24 digits and an exponent of 8 bits. Inverse functions follow Kahan, "Branch cuts for complex elementary
functions" (1987), signed zeros included. Where parts are infinite or NaN, the formulas decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ingot.lowering.points import Number, Pair, Point, Points
from ingot.lowering.rules.registry import composes
from ingot.tracer import dtypes
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.record import record


@record
class _Real:
    """A real point with operators."""

    points: Points
    point: Point

    def apply(self, primitive: Primitive, *others: _Real | int | float, dtype: str | None = None) -> _Real:
        args = [self.point, *(self.lifted(o).point for o in others)]
        return _Real(self.points, self.points.apply(primitive, args, dtype or self.point.dtype))

    def lifted(self, value: _Real | int | float) -> _Real:
        if isinstance(value, _Real):
            return value
        return _Real(self.points, self.points.number(value, self.point.dtype))

    def test(self, cls: type[Primitive], other: _Real | int | float) -> _Real:
        return self.apply(cls(), other, dtype="bool")

    def __add__(self, other: _Real | float) -> _Real:
        return self.apply(ew.Add(), other)

    def __sub__(self, other: _Real | float) -> _Real:
        return self.apply(ew.Sub(), other)

    def __rsub__(self, other: float) -> _Real:
        return self.lifted(other) - self

    def __mul__(self, other: _Real | float) -> _Real:
        return self.apply(ew.Mul(), other)

    def __truediv__(self, other: _Real | float) -> _Real:
        return self.apply(ew.Div(), other)

    def __rtruediv__(self, other: float) -> _Real:
        return self.lifted(other) / self

    def __neg__(self) -> _Real:
        return self.apply(ew.Neg())

    def __abs__(self) -> _Real:
        return self.apply(ew.Abs())

    def __lt__(self, other: _Real | float) -> _Real:
        return self.test(ew.Lt, other)

    def __le__(self, other: _Real | float) -> _Real:
        return self.test(ew.Le, other)

    def __gt__(self, other: _Real | float) -> _Real:
        return self.test(ew.Gt, other)

    def __ge__(self, other: _Real | float) -> _Real:
        return self.test(ew.Ge, other)

    def equals(self, other: _Real | int | float) -> _Real:
        return self.test(ew.Eq, other)

    def differs(self, other: _Real | int | float) -> _Real:
        return self.test(ew.Ne, other)

    def __and__(self, other: _Real | int) -> _Real:
        return self.apply(ew.BitwiseAnd(), other)

    def __or__(self, other: _Real | int) -> _Real:
        return self.apply(ew.BitwiseOr(), other)

    def __lshift__(self, count: int) -> _Real:
        return self.apply(ew.LeftShift(), count)

    def __rshift__(self, count: int) -> _Real:
        return self.apply(ew.RightShift(), count)

    def select(self, yes: _Real, no: _Real) -> _Real:
        """Of a condition: `yes` where it holds, else `no`."""
        return self.apply(ew.Select(), yes, no, dtype=yes.point.dtype)

    def sqrt(self) -> _Real:
        return self.apply(ew.Sqrt())

    def has_sign(self) -> _Real:
        """Whether a number is negative, -0 included."""
        return (self < 0.0) | (1.0 / self < 0.0)

    def signed_as(self, other: _Real) -> _Real:
        """A number that is not negative, with the sign of another one."""
        return other.has_sign().select(-self, self)

    def converted(self, dtype: str) -> _Real:
        if self.point.dtype == dtype:
            return self
        return self.apply(ew.ConvertElementType(dtypes.by_short[dtype]), dtype=dtype)

    def bits_as(self, dtype: str) -> _Real:
        if self.point.dtype == dtype:
            return self
        return self.apply(ew.Bitcast(dtypes.by_short[dtype]), dtype=dtype)


def _max(x: _Real, y: _Real | float) -> _Real:
    return x.apply(ew.Maximum(), y)


def _min(x: _Real, y: _Real | float) -> _Real:
    return x.apply(ew.Minimum(), y)


def _fn(cls: type[Primitive]) -> Callable[[_Real], _Real]:
    return lambda x: x.apply(cls())


_exp, _expm1, _log, _log1p = map(_fn, (ew.Exp, ew.Expm1, ew.Log, ew.Log1p))
_sin, _cos, _sinh, _cosh, _asinh = map(_fn, (ew.Sin, ew.Cos, ew.Sinh, ew.Cosh, ew.Asinh))

Parts = tuple[_Real, _Real]


def _parts(points: Points, z: Point) -> Parts:
    assert isinstance(z, Pair)
    return _Real(points, z.re), _Real(points, z.im)


def _joined(z: Parts) -> Point:
    """Real and imaginary part as a complex point, rounded to float32."""
    re, im = (part.converted("f32") for part in z)
    return re.points.pair(re.point, im.point)


def _atan2(y: _Real, x: _Real) -> _Real:
    return y.apply(ew.Atan2(), x)


# -- integer powers ---------------------------------------------------------------------------------


@composes(ew.Pow, "ui")
def _integer_power(p: Primitive, points: Points, base: Point, exponent: Point) -> Point:
    """By squaring, modulo 2^bits. The order of an odd number divides 2^(bits - 2), and an even one to the
    power of `bits` is 0, so that bits - 2 binary digits of the exponent are enough."""
    x, y = _Real(points, base), _Real(points, exponent)
    bits = 8 * dtypes.by_short[base.dtype].size
    digits = bits - 2
    if isinstance(exponent, Number) and 0 <= exponent.value < bits:
        digits = int(exponent.value).bit_length()
    one, zero = x.lifted(1), x.lifted(0)
    power, factor = one, x
    for i in range(digits):
        power = power * (y & (1 << i)).differs(0).select(factor, one)
        factor = factor * factor
    nothing = (x & 1).equals(0) & (y >= bits)
    if base.dtype.startswith("i"):
        nothing = nothing | (y < 0)
    return nothing.select(zero, power).point


# -- complex arithmetic -----------------------------------------------------------------------------


def _add(x: Parts, y: Parts) -> Parts:
    return x[0] + y[0], x[1] + y[1]


def _sub(x: Parts, y: Parts) -> Parts:
    return x[0] - y[0], x[1] - y[1]


def _mul(x: Parts, y: Parts) -> Parts:
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def _div(x: Parts, y: Parts) -> Parts:
    (a, b), (c, d) = x, y
    flat = abs(c) >= abs(d)
    ratio = flat.select(d, c) / flat.select(c, d)
    scale = 1.0 / flat.select(c + d * ratio, d + c * ratio)
    re = flat.select(a + b * ratio, a * ratio + b) * scale
    im = flat.select(b - a * ratio, b * ratio - a) * scale
    zero = abs(c).equals(0.0) & abs(d).equals(0.0)
    return zero.select(a / abs(c), re), zero.select(b / abs(c), im)


def _arithmetic(cls: type[Primitive], fn: Callable[[Parts, Parts], Parts]) -> None:
    @composes(cls, "c")
    def rule(p: Primitive, points: Points, x: Point, y: Point) -> Point:
        return _joined(fn(_parts(points, x), _parts(points, y)))


_arithmetic(ew.Add, _add)
_arithmetic(ew.Sub, _sub)
_arithmetic(ew.Mul, _mul)
_arithmetic(ew.Div, _div)


@composes(ew.Neg, "c")
def _neg(p: Primitive, points: Points, x: Point) -> Point:
    re, im = _parts(points, x)
    return _joined((-re, -im))


@composes(ew.Square, "c")
def _square(p: Primitive, points: Points, x: Point) -> Point:
    z = _parts(points, x)
    return _joined(_mul(z, z))


# -- comparisons and movement -----------------------------------------------------------------------


def _compare(cls: type[Primitive], fn: Callable[[Parts, Parts], _Real]) -> None:
    @composes(cls, "c")
    def rule(p: Primitive, points: Points, x: Point, y: Point) -> Point:
        return fn(_parts(points, x), _parts(points, y)).point


def _before(x: Parts, y: Parts, strict: type[Primitive], last: type[Primitive]) -> _Real:
    """NumPy's order: by real parts, then by imaginary parts; none when an imaginary part is NaN."""
    known = x[1].equals(x[1]) & y[1].equals(y[1])
    return (x[0].test(strict, y[0]) & known) | (x[0].equals(y[0]) & x[1].test(last, y[1]))


_compare(ew.Eq, lambda x, y: x[0].equals(y[0]) & x[1].equals(y[1]))
_compare(ew.Ne, lambda x, y: x[0].differs(y[0]) | x[1].differs(y[1]))
_compare(ew.Lt, lambda x, y: _before(x, y, ew.Lt, ew.Lt))
_compare(ew.Le, lambda x, y: _before(x, y, ew.Lt, ew.Le))
_compare(ew.Gt, lambda x, y: _before(x, y, ew.Gt, ew.Gt))
_compare(ew.Ge, lambda x, y: _before(x, y, ew.Gt, ew.Ge))


def combined(points: Points, mode: str, x: Point, y: Point) -> Point:
    """What a scatter in `mode` makes of the complex element `x` and its update `y`. The lesser and the
    greater of two numbers are NaN when either is."""
    a, b = _parts(points, x), _parts(points, y)
    if mode == "set":
        return y
    if mode in ("add", "mul"):
        return _joined((_add if mode == "add" else _mul)(a, b))
    less = _before(a, b, ew.Lt, ew.Le) if mode == "min" else _before(a, b, ew.Gt, ew.Ge)
    first = less | a[0].differs(a[0]) | a[1].differs(a[1])
    return _joined((first.select(a[0], b[0]), first.select(a[1], b[1])))


@composes(ew.Select, "c")
def _select(p: Primitive, points: Points, mask: Point, x: Point, y: Point) -> Point:
    condition = _Real(points, mask)
    (a, b), (c, d) = _parts(points, x), _parts(points, y)
    return _joined((condition.select(a, c), condition.select(b, d)))


@composes(ew.ConvertElementType, "c")
def _convert(p: ew.ConvertElementType, points: Points, x: Point) -> Point:
    """To a real dtype the real part counts, to bool both."""
    if not isinstance(x, Pair):
        re = _Real(points, x).converted("f32")
        return _joined((re, re.lifted(0.0)))
    if p.dtype.is_complex:
        return x
    re, im = _parts(points, x)
    return (re.differs(0.0) | im.differs(0.0) if p.dtype.kind == "b" else re.converted(p.dtype.short)).point


@composes(ew.Imag, "c")
def _imag(p: Primitive, points: Points, x: Point) -> Point:
    return _parts(points, x)[1].point


@composes(ew.Conjugate, "c")
def _conjugate(p: Primitive, points: Points, x: Point) -> Point:
    re, im = _parts(points, x)
    return _joined((re, -im))


@composes(ew.Modulus, "c")
def _modulus(p: Primitive, points: Points, x: Point) -> Point:
    """In float64, where squares of float32 do not overflow."""
    re, im = (part.converted("f64") for part in _parts(points, x))
    return (re * re + im * im).apply(ew.Sqrt()).converted("f32").point


@composes(ew.Bitcast, "c")
def _bitcast(p: ew.Bitcast, points: Points, x: Point) -> Point:
    """The real part is the lower half (memory is little endian)."""
    if isinstance(x, Pair):
        if p.dtype.is_complex:
            return x
        low, high = (part.bits_as("u32").converted("u64") for part in _parts(points, x))
        return (low | (high << 32)).bits_as(p.dtype.short).point
    bits = _Real(points, x).bits_as("u64")
    return _joined((bits.converted("u32").bits_as("f32"), (bits >> 32).converted("u32").bits_as("f32")))


@composes(ew.Identity, "c")
@composes(ew.StopGradient, "c")
def _identity(p: Primitive, points: Points, x: Point) -> Point:
    return x


# -- complex functions, in float64 ------------------------------------------------------------------


def _function(cls: type[Primitive], fn: Callable[[Parts], Parts]) -> None:
    @composes(cls, "c")
    def rule(p: Primitive, points: Points, x: Point) -> Point:
        re, im = _parts(points, x)
        return _joined(fn((re.converted("f64"), im.converted("f64"))))


def _scaled(small: _Real, big: _Real) -> _Real:
    """A product that is 0 where its first factor is, though the second may be infinite."""
    return small.equals(0.0).select(small, small * big)


def _complex_exp(z: Parts) -> Parts:
    size = _exp(z[0])
    return size * _cos(z[1]), _scaled(_sin(z[1]), size)


def _complex_expm1(z: Parts) -> Parts:
    x, y = z
    half = _sin(y * 0.5)
    return _expm1(x) * _cos(y) - half * half * 2.0, _scaled(_sin(y), _exp(x))


def _log_modulus(square: _Real, above: _Real) -> _Real:
    """Half the logarithm of a squared modulus; `above` is how much it exceeds 1, exact near 1."""
    near = (square > 0.5) & (square < 2.0)
    return near.select(_log1p(above), _log(square)) * 0.5


def _complex_log(z: Parts) -> Parts:
    x, y = z
    large, small = _max(abs(x), abs(y)), _min(abs(x), abs(y))
    rest = small * small
    return _log_modulus(large * large + rest, (large - 1.0) * (large + 1.0) + rest), _atan2(y, x)


def _complex_log1p(z: Parts) -> Parts:
    x, y = z
    moved = x + 1.0
    return _log_modulus(moved * moved + y * y, x * (x + 2.0) + y * y), _atan2(y, moved)


def _log_to(base: float) -> Callable[[Parts], Parts]:
    def fn(z: Parts) -> Parts:
        re, im = _complex_log(z)
        return re * (1.0 / math.log(base)), im * (1.0 / math.log(base))

    return fn


def _complex_sqrt(z: Parts) -> Parts:
    x, y = z
    a, b = abs(x), abs(y)
    long = (((a * a + b * b).sqrt() + a) * 0.5).sqrt()
    same = long.equals(0.0) | b.equals(math.inf)
    short = same.select(b, b / (long * 2.0))
    right = x.has_sign()
    return right.select(short, long), right.select(long, short).signed_as(y)


def _complex_rsqrt(z: Parts) -> Parts:
    root = _complex_sqrt(z)
    return _div((root[0].lifted(1.0), root[0].lifted(0.0)), root)


def _complex_sin(z: Parts) -> Parts:
    x, y = z
    return _scaled(_sin(x), _cosh(y)), _scaled(_sinh(y), _cos(x))


def _complex_cos(z: Parts) -> Parts:
    x, y = z
    return _cos(x) * _cosh(y), -_scaled(_sin(x), _sinh(y))


def _complex_sinh(z: Parts) -> Parts:
    im, re = _complex_sin((z[1], z[0]))
    return re, im


def _complex_cosh(z: Parts) -> Parts:
    x, y = z
    return _cosh(x) * _cos(y), _scaled(_sin(y), _sinh(x))


def _complex_tan(z: Parts) -> Parts:
    x = z[0]
    y = _max(_min(z[1], 60.0), -60.0)  # from where on the result is 0 and 1
    s, c, h = _sin(x), _cos(x), _sinh(y)
    size = c * c + h * h
    return s * c / size, h * _cosh(y) / size


def _complex_tanh(z: Parts) -> Parts:
    im, re = _complex_tan((z[1], z[0]))
    return re, im


def _roots(z: Parts) -> tuple[Parts, Parts]:
    """Square roots of 1 - z and of 1 + z."""
    x, y = z
    return _complex_sqrt((1.0 - x, -y)), _complex_sqrt((x + 1.0, y))


def _complex_asin(z: Parts) -> Parts:
    (a, b), (c, d) = _roots(z)
    return _atan2(z[0], a * c - b * d), _asinh(a * d - b * c)


def _complex_acos(z: Parts) -> Parts:
    (a, b), (c, d) = _roots(z)
    return _atan2(a, c) * 2.0, _asinh(c * b - d * a)


def _complex_asinh(z: Parts) -> Parts:
    im, re = _complex_asin((-z[1], z[0]))
    return re, -im


def _complex_acosh(z: Parts) -> Parts:
    x, y = z
    (a, b), (c, d) = _complex_sqrt((x - 1.0, y)), _complex_sqrt((x + 1.0, y))
    return _asinh(a * c + b * d), _atan2(b, c) * 2.0


def _complex_atanh(z: Parts) -> Parts:
    x, y = abs(z[0]), z[1]
    away = 1.0 - x
    re = _log1p(x * 4.0 / (away * away + y * y)) * 0.25
    return re.signed_as(z[0]), _atan2(y * 2.0, away * (x + 1.0) - y * y) * 0.5


def _complex_atan(z: Parts) -> Parts:
    im, re = _complex_atanh((-z[1], z[0]))
    return re, -im


def _complex_sigmoid(z: Parts) -> Parts:
    e = _complex_exp((-_max(z[0], -700.0), -z[1]))  # finite: a quotient of infinities is NaN
    one = z[0].lifted(1.0)
    return _div((one, z[0].lifted(0.0)), (e[0] + one, e[1]))


for _cls, _fn_of in (
    (ew.Exp, _complex_exp), (ew.Expm1, _complex_expm1), (ew.Log, _complex_log), (ew.Log1p, _complex_log1p),
    (ew.Log2, _log_to(2.0)), (ew.Log10, _log_to(10.0)), (ew.Sqrt, _complex_sqrt), (ew.Rsqrt, _complex_rsqrt),
    (ew.Sin, _complex_sin), (ew.Cos, _complex_cos), (ew.Tan, _complex_tan), (ew.Asin, _complex_asin),
    (ew.Acos, _complex_acos), (ew.Atan, _complex_atan), (ew.Sinh, _complex_sinh), (ew.Cosh, _complex_cosh),
    (ew.Tanh, _complex_tanh), (ew.Asinh, _complex_asinh), (ew.Acosh, _complex_acosh),
    (ew.Atanh, _complex_atanh), (ew.Sigmoid, _complex_sigmoid),
):  # fmt: skip
    _function(_cls, _fn_of)


@composes(ew.Pow, "c")
def _complex_power(p: Primitive, points: Points, base: Point, exponent: Point) -> Point:
    """`exp(exponent * log(base))`; anything to the power of 0 is 1, and 0 to one with a positive real part
    is 0."""
    assert isinstance(exponent, Pair)
    x, y = ([part.converted("f64") for part in _parts(points, z)] for z in (base, exponent))
    re, im = _complex_exp(_mul((y[0], y[1]), _complex_log((x[0], x[1]))))
    one, zero, nan = (x[0].lifted(v) for v in (1.0, 0.0, math.nan))
    nothing = x[0].equals(0.0) & x[1].equals(0.0)
    of_zero = (y[0] > 0.0).select(zero, nan)
    re, im = nothing.select(of_zero, re), nothing.select(of_zero, im)
    whole = y[0].equals(0.0) & y[1].equals(0.0)
    return _joined((whole.select(one, re), whole.select(zero, im)))
