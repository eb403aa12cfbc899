"""Logarithms, inverse hyperbolic functions and powers.

x = m * 2**e with m in [sqrt(1/2), sqrt(2)); log x = e * ln 2 + log m. In float64 log m comes from
s = (m - 1) / (m + 1), whose series has half the terms.
"""

from __future__ import annotations

import math

from ingot.lowering.llvm.vecmath_exp import exp
from ingot.lowering.llvm.vecmath_format import (
    Format,
    fast_sum,
    formats,
    hexes,
    in_wide,
    magnitude_of,
    number,
    polynomial,
    power_of_two,
    two_product,
    with_sign,
)
from ingot.lowering.loop import Bitcast, Convert, Expr, Unary, binary, compare, fma, select

# (log(1 + f) - f + f**2 / 2) / f**3
_LOG_SINGLE = (
    0.3333333134651184,
    -0.2500081956386566,
    0.20001229643821716,
    -0.16623367369174957,
    0.1420169174671173,
    -0.1316002756357193,
    0.1276198774576187,
    -0.07635390013456345,
)
# (log((1 + s) / (1 - s)) / s - 2) / s**2 in powers of s**2
_LOG = {
    "wide": hexes("0x1.555554fddf506p-1 0x1.999a7a2db429ep-2 0x1.2438eac1ee8c8p-2 0x1.e2f3ff3e98d76p-3"),
    "double": hexes(
        "0x1.5555555555575p-1 0x1.9999999986bb8p-2 0x1.2492493d515e7p-2 0x1.c71c55019233ap-3 "
        "0x1.7465c118f8040p-3 0x1.39ac0e75e6b72p-3 0x1.2eb081ab3e7a3p-3"
    ),
}
# ((log((1 + s) / (1 - s)) - 2 s) / s**3 - 2 / 3) / s**2 in powers of s**2
_LOG_TAIL = hexes(
    "0x1.9999999999b2fp-2 0x1.2492492457f6cp-2 0x1.c71c722d3bad3p-3 0x1.745ce9f0f9393p-3 "
    "0x1.3b1ee9c02f8abp-3 0x1.0f801ba348d43p-3 0x1.0e40f88944312p-3"
)
_TWO_THIRDS = hexes("0x1.5555555555555p-1 0x1.5555555555555p-55")
# 1 / ln(base) in two parts, and ln(2) / ln(base) in two parts, the leading of which has 42 bits
_BASES = {
    "log2": hexes("0x1.71547652b82fep+0 0x1.777d0ffda0d24p-56 0x1p+0 0x0p+0"),
    "log10": hexes("0x1.bcb7b1526e50ep-2 0x1.95355baaafad3p-57 0x1.34413509f7000p-2 0x1.3fde623e2566bp-43"),
}


def log(x: Expr, f: Format) -> Expr:
    d, e = _reduced(x, f)
    return _edges(x, _log_sum(d, e, f))


def _reduced(x: Expr, f: Format) -> tuple[Expr, Expr]:
    """m - 1 and e as floats; float64 that comes from float32 has no subnormals."""
    if f.name == "wide":
        m, e = _split(x, f)
        return m - 1.0, Convert(e, f.dtype)
    subnormal = compare("lt", x, 2.0 ** (1 - f.bias))
    m, e = _split(select(subnormal, x * 2.0**f.fraction, x), f)
    shift = select(subnormal, number(float(f.fraction), x.type), number(0.0, x.type))
    return m - 1.0, Convert(e, f.dtype) - shift


def _split(x: Expr, f: Format) -> tuple[Expr, Expr]:
    """Significand in [sqrt(1/2), sqrt(2)) and integer exponent of a normal positive number."""
    root_half = (f.bias - 1 << f.fraction) + int((math.sqrt(0.5) * 2 - 1) * 2.0**f.fraction)
    bits = Bitcast(x, f.bits)
    e = (bits - root_half) >> f.fraction
    return Bitcast(bits - (e << f.fraction), f.dtype), e


def _log_rest(d: Expr, f: Format) -> tuple[Expr, Expr]:
    """d**2 / 2 and log(1 + d) - d + d**2 / 2."""
    half_square = 0.5 * d * d
    if f.name == "single":
        return half_square, d * d * d * polynomial(d, _LOG_SINGLE)
    s = d / (d + 2.0)
    z = s * s
    return half_square, s * (half_square + z * polynomial(z, _LOG[f.name]))


def _log_sum(d: Expr, e: Expr, f: Format) -> Expr:
    """log(1 + d) + e * ln 2; the largest exact terms are added last."""
    half_square, rest = _log_rest(d, f)
    return fma(e, f.ln2_high, d - (half_square - fma(e, f.ln2_low, rest)))


def _edges(x: Expr, y: Expr) -> Expr:
    """-inf at 0, NaN below, infinity and NaN as they are."""
    t = x.type
    y = select(compare("lt", x, math.inf), y, x)
    return select(
        compare("gt", x, 0.0), y, select(compare("eq", x, 0.0), number(-math.inf, t), number(math.nan, t) + x)
    )


def _log_to(base: str, x: Expr, f: Format) -> Expr:
    d, e = _reduced(x, f)
    half_square, rest = _log_rest(d, f)
    scale, scale_low, step, step_low = _BASES[base]
    small = fma(e, step_low, d * scale_low)
    return _edges(x, fma(e, step, fma(d, scale, fma(rest - half_square, scale, small))))


@in_wide
def log2(x: Expr, f: Format) -> Expr:
    return _log_to("log2", x, f)


@in_wide
def log10(x: Expr, f: Format) -> Expr:
    return _log_to("log10", x, f)


def log1p(x: Expr, f: Format) -> Expr:
    """log of 1 + x, whose rounding error is put back into the significand."""
    u = x + 1.0
    back = u - 1.0
    lost = (x - back) + (1.0 - (u - back))
    m, e = _split(u, f)
    d = fma(lost, power_of_two(binary("max", f.bias - e, 0), f), m - 1.0)
    y = _edges(u, _log_sum(d, Convert(e, f.dtype), f))
    return select(compare("eq", x, 0.0), x, y)


@in_wide
def logaddexp(x: Expr, y: Expr, f: Format) -> Expr:
    """The larger operand and log1p(exp(-|x - y|)); equal operands, infinities among them, have no usable
    difference: log(2) is added then."""
    gap = select(compare("eq", x, y), number(0.0, x.type), -Unary("abs", x - y))
    return binary("max", x, y) + log1p(exp(gap, f), f)


# Inverse hyperbolic functions: log1p of an argument that is small where the result is. From here on it is
# nearly 2 |x|, which would overflow; it is taken 2**10 times smaller and 10 ln 2 added.
_LARGE = 2.0**300


def _log1p_or_log(t: Expr, size: Expr, f: Format) -> Expr:
    large = compare("gt", size, _LARGE)
    y = log1p(select(large, size * 2.0**-9, t), f)
    return select(large, y + 10 * math.log(2.0), y)


@in_wide
def asinh(x: Expr, f: Format) -> Expr:
    """log1p(|x| + x**2 / (1 + sqrt(1 + x**2)))."""
    size = magnitude_of(x, f)
    square = size * size
    t = size + square / (Unary("sqrt", square + 1.0) + 1.0)
    return with_sign(_log1p_or_log(t, size, f), x, f)


@in_wide
def acosh(x: Expr, f: Format) -> Expr:
    """With t = x - 1: log1p(t + sqrt(t) sqrt(t + 2)); NaN below 1."""
    t = x - 1.0
    return _log1p_or_log(t + Unary("sqrt", t) * Unary("sqrt", t + 2.0), x, f)


@in_wide
def atanh(x: Expr, f: Format) -> Expr:
    """log1p(2 |x| / (1 - |x|)) / 2; NaN beyond 1."""
    size = magnitude_of(x, f)
    return with_sign(0.5 * log1p((size + size) / (1.0 - size), f), x, f)


# Powers


def power(x: Expr, y: Expr, f: Format) -> Expr:
    """exp(y log|x|), then the cases of IEEE 754 section 9.2.1. For float32 plain float64 is enough; for
    float64 the logarithm and the product are carried in pairs of numbers."""
    if f.name == "single":
        return _signed_power(x, y, _power_of_single(x, y, f))
    size = magnitude_of(x, f)
    product, low = _product_with_log(size, y, f)
    return _signed_power(x, y, exp(product, f, low))


def _power_of_single(x: Expr, y: Expr, f: Format) -> Expr:
    wide = formats(f.fused)["wide"]
    size = magnitude_of(Convert(x, "f64"), wide)
    return Convert(exp(Convert(y, "f64") * log(size, wide), wide), "f32")


def _product_with_log(size: Expr, y: Expr, f: Format) -> tuple[Expr, Expr]:
    """y * log(size) and what is missing from it, which is 0 where the product is beyond the range of exp."""
    log_high, log_low = _log_pair(size, f)
    log_high = _edges(size, log_high)
    product, low = two_product(y, log_high, f)
    low = fma(y, log_low, low)
    inside = compare("lt", magnitude_of(product, f), 1000.0)
    return product, select(inside, low, number(0.0, y.type))


def _log_pair(x: Expr, f: Format) -> tuple[Expr, Expr]:
    """log x as a sum of two numbers, with a relative error of about 2**-64: s = d / (2 + d) and
    2 s + (2 / 3) s**3 are pairs, the rest of the series is below 2**-12 of the result."""
    d, e = _reduced(x, f)
    den = d + 2.0
    den_low = d - (den - 2.0)
    s = d / den
    back, back_low = two_product(s, den, f)
    s_low = (((d - back) - back_low) - s * den_low) / den
    z, z_low = two_product(s, s, f)
    z_low = fma(s + s, s_low, z_low)
    cube, cube_low = two_product(s, z, f)
    cube_low = fma(s, z_low, fma(s_low, z, cube_low))
    third, third_low = two_product(cube, number(_TWO_THIRDS[0], x.type), f)
    third_low = fma(cube, _TWO_THIRDS[1], fma(cube_low, _TWO_THIRDS[0], third_low))
    tail = cube * z * polynomial(z, _LOG_TAIL)
    total, low = fast_sum(e * f.ln2_high, s + s)
    total, more = fast_sum(total, third)
    rest = fma(e, f.ln2_low, (tail + third_low) + (s_low + s_low))
    return fast_sum(total, rest + (low + more))


def _signed_power(x: Expr, y: Expr, magnitude: Expr) -> Expr:
    t = x.type
    size = Unary("abs", x)
    one = number(1.0, t)
    unit = compare("eq", size, 1.0) & compare("eq", y, y)
    magnitude = select(unit, one, magnitude)
    half = y * 0.5
    whole = compare("eq", Unary("trunc", y), y)
    odd = whole & compare("ne", Unary("trunc", half), half)
    negative = odd & _sign_bit_set(x)
    signed = select(negative, -magnitude, magnitude)
    invalid = compare("lt", x, 0.0) & compare("gt", x, -math.inf) & ~whole
    result = select(invalid, number(math.nan, t), signed)
    return select(compare("eq", y, 0.0) | compare("eq", x, 1.0), one, result)


def _sign_bit_set(x: Expr) -> Expr:
    return compare("lt", Bitcast(x, "i32" if x.type.dtype == "f32" else "i64"), 0)
