"""Trigonometric functions and their inverses.

Arguments are reduced to x = (n + r) * pi / 2 with |r| <= 1/2 without loss for any x, after Payne and Hanek,
"Radian reduction for trigonometric functions" (1983): only those digits of 2 / pi are multiplied that do not
give whole turns.
"""

from __future__ import annotations

import math

from ingot.lowering.llvm.vecmath_format import (
    Format,
    fast_sum,
    hexes,
    in_wide,
    magnitude_of,
    number,
    polynomial,
    with_sign,
)
from ingot.lowering.loop import Bitcast, Convert, Expr, Unary, binary, compare, const, fma, select

# 203 bits of 2 / pi in pieces of 29, the first just behind the binary point
_PIECES = (0x145F306D, 0x19391054, 0x14FE13AB, 0x1D1F534D, 0x1B81B6C5, 0x05664F10, 0x1C820FF2)
# 1161 bits of 2 / pi, the first just behind the binary point, after 55 zeros: 19 words of 64 bits
_DIGITS = int(
    "145f306dc9c882a53f84eafa3ea69bb81b6c52b3278872083fca2c757bd778ac36e48dc74849ba5c00c925dd413a32439fc3bd6396"
    "2534e7dd1046bea5d768909d338e04d68befc827323ac7306a673e93908bf177bf250763ff12fffbc0b301fde5e2316b414da3eda6"
    "cfd9e4f96136e9e8c7ecd3cbfd45aea4f758fd7cbe2f67a0e73ef14a525d4d7f6bf623f1aba10ac",
    16,
)
_WORDS = tuple(_DIGITS >> 64 * (18 - i) & (1 << 64) - 1 for i in range(19))
_HALF_PI = hexes("0x1.921fb54442d18p+0 0x1.1a62633145c07p-54")
_HALF_PI_HIGH, _HALF_PI_REST = hexes("0x1.921fb54000000p+0 0x1.10b4611a62633p-30")
# (sin(y) / y - 1) / z and (cos(y) - 1 + z / 2) / z**2 in powers of z = y**2 for |y| <= pi / 4
_SIN = {
    "single": (-0.16666655242443085, 0.008332155644893646, -0.00019514608720783144),
    "wide": hexes("-0x1.5555554c5eeafp-3 0x1.1111085cc304ep-7 -0x1.a00f743b077d5p-13 0x1.6ccf57bb3fe7dp-19"),
    "double": hexes(
        "-0x1.5555555555548p-3 0x1.111111110f794p-7 -0x1.a01a019bf5f1cp-13 0x1.71de35608d2afp-19 "
        "-0x1.ae5e54a1a2788p-26 0x1.5d8e08cf5acb9p-33"
    ),
}
_COS = {
    "single": (0.04166664555668831, -0.0013887309469282627, 2.4432411009911448e-05),
    "wide": hexes("0x1.5555554ecb9c7p-5 -0x1.6c16b81b5af36p-10 0x1.a010d52e92670p-16 -0x1.241ca13d96db2p-22"),
    "double": hexes(
        "0x1.555555555554bp-5 -0x1.6c16c16c14f4cp-10 0x1.a01a019c7d5bep-16 -0x1.27e4f7e598115p-22 "
        "0x1.1ee9d416e0dc2p-29 -0x1.8fa2adb797f30p-37"
    ),
}
# (atan(t) / t - 1) / z in powers of z = t**2 for t <= tan(pi / 8)
_ATAN = {
    "single": (
        -0.33333316445350647,
        0.19998469948768616,
        -0.14243510365486145,
        0.10593642294406891,
        -0.060777697712183,
    ),
    "wide": hexes(
        "-0x1.555554c5f1505p-2 0x1.9999188fe5beep-3 -0x1.247ed83d4e6d1p-3 0x1.c463c4c44bd55p-4 "
        "-0x1.5b2ed6c9a0165p-4 0x1.849c4a790b0c7p-5"
    ),
    "double": hexes(
        "-0x1.555555555553dp-2 0x1.99999999957b7p-3 -0x1.24924922a9b1cp-3 0x1.c71c70e4cc05dp-4 "
        "-0x1.745cf8bb89c9cp-4 0x1.3b11170128868p-4 -0x1.10eba1eeb8749p-4 0x1.df0e18da3154ep-5 "
        "-0x1.9ccd9e9f625abp-5 0x1.37c9392b296c9p-5 -0x1.25503cc1a7b62p-6"
    ),
}
# (asin(x) / x - 1) / z in powers of z = x**2 for |x| <= 1 / 2
_ASIN = {
    "single": (
        0.16666752099990845,
        0.07495290040969849,
        0.045471515506505966,
        0.024173183366656303,
        0.042178139090538025,
    ),
    "double": hexes(
        "0x1.555555555538ep-3 0x1.333333336ec0fp-4 0x1.6db6db424da35p-5 0x1.f1c72c485adc6p-6 "
        "0x1.6e89f2ba0940ap-6 0x1.1c6bf9c6a9d0bp-6 0x1.c6fbd06e64df2p-7 0x1.8ed0394f2d389p-7 "
        "0x1.ab5902fe535aep-8 0x1.404813a032eeep-6 -0x1.0a599ffc99602p-6 0x1.059ca84cb170fp-5"
    ),
}


def sin(x: Expr, f: Format) -> Expr:
    n, sine, cosine = _parts(x, f)
    value = _flipped(select(_is_odd(n), cosine, sine), n, x, f)
    return _finite(x, select(compare("eq", x, 0.0), x, value))


def cos(x: Expr, f: Format) -> Expr:
    n, sine, cosine = _parts(x, f)
    return _finite(x, _flipped(select(_is_odd(n), sine, cosine), n + 1, None, f))


@in_wide
def tan(x: Expr, f: Format) -> Expr:
    """sin / cos, or -cos / sin after an odd number of right angles."""
    n, sine, cosine = _parts(x, f)
    odd = _is_odd(n)
    value = select(odd, cosine, sine) / select(odd, sine, cosine)
    return _finite(x, select(compare("eq", x, 0.0), x, _flipped(value, n << 1, x, f)))


def _parts(x: Expr, f: Format) -> tuple[Expr, Expr, Expr]:
    """For the size of x: right angles n, and sine and cosine of the rest."""
    if f.name == "double":
        return _parts_of_double(*_turns_of_double(magnitude_of(x, f), f))
    n, y = _turns(Unary("abs", Convert(x, "f64") if f.name == "single" else x))
    if f.name == "single":
        n, y = Convert(n, "i32"), Convert(y, "f32")
    z = y * y
    sine = fma(y * z, polynomial(z, _SIN[f.name]), y)
    return n, sine, fma(z * z, polynomial(z, _COS[f.name]), fma(z, -0.5, 1.0))


def _parts_of_double(n: Expr, y: Expr, low: Expr) -> tuple[Expr, Expr, Expr]:
    """Sine and cosine of y + low; what 1 - z / 2 loses is added to the cosine."""
    z = y * y
    sine = y + fma(y * z, polynomial(z, _SIN["double"]), low)
    half = 0.5 * z
    near = 1.0 - half
    rest = (1.0 - near) - half
    return n, sine, near + (rest + fma(z * z, polynomial(z, _COS["double"]), -(y * low)))


def _is_odd(n: Expr) -> Expr:
    return compare("ne", n & 1, 0)


def _flipped(value: Expr, n: Expr, x: Expr | None, f: Format) -> Expr:
    """`value` with its sign flipped where bit 1 of n is set, and where x is negative."""
    sign = (n << (30 if f.bits == "i32" else 62)) & f.sign
    if x is not None:
        sign = sign ^ (Bitcast(x, f.bits) & f.sign)
    return Bitcast(Bitcast(value, f.bits) ^ sign, f.dtype)


def _finite(x: Expr, y: Expr) -> Expr:
    """NaN where x is not finite."""
    return select(compare("lt", Unary("abs", x), math.inf), y, x - x)


def _turns(x: Expr) -> tuple[Expr, Expr]:
    """x = n * pi / 2 + y for x >= 0 with 24 significant bits, all in float64. Products of x with 29-bit
    pieces of 1 / (2 pi) are exact; whole turns are dropped from each, and the leading sums are exact too, so
    that nothing is lost close to a multiple."""
    parts = []
    for i, piece in enumerate(_PIECES):
        product = x * (piece * 2.0 ** (-29 * (i + 1) - 2))
        parts.append(product - Unary("trunc", product) if 29 * i < 128 else product)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    magic = 1.5 * 2.0**52
    shifted = fma(total, 4.0, magic)
    r = fma(shifted - magic, -0.25, parts[0])
    for part in parts[1:]:
        r = r + part
    return Bitcast(shifted, "i64"), r * (4 * _HALF_PI[0])


def _turns_of_double(x: Expr, f: Format) -> tuple[Expr, Expr, Expr]:
    """float64 x = n * pi / 2 + y + low for x >= 0, in fixed point.

    x = m * 2**(e - 1075) with integer m; of 2 / pi the 192 bits whose product with m lies between 2 and
    2**-190 are multiplied. The result has two bits of whole right angles and 126 of the rest, which no
    float64 makes smaller than 2**-62.
    """
    bits = Bitcast(x, "u64")
    exponent = bits >> 52
    m = (bits & (1 << 52) - 1) | 1 << 52
    last = compare("eq", exponent, 2046)  # at half the exponent, so that 10 bits count the digits
    m = select(last, m << 1, m)
    start = select(last, const(1023, m.type), binary("max", exponent, 1022) - 1022)
    high, low = _product(m, _digits(start))
    n = (high + (1 << 61)) >> 62
    rest = (high << 2) | (low >> 62)
    leading = Convert(Bitcast(rest, "i64") & -2048, "f64") * 2.0**-64
    trailing = Convert(Bitcast(rest & 2047, "i64"), "f64") * 2.0**-64
    trailing = fma(Convert(Bitcast((low << 2) >> 11, "i64"), "f64"), 2.0**-117, trailing)
    r, r_low = fast_sum(leading, trailing)
    y, y_low = _right_angles(r, r_low, f)
    small = compare("lt", x, math.pi / 4)
    n = Bitcast(select(small, const(0, n.type), n), "i64")
    return n, select(small, x, y), select(small, number(0.0, x.type), y_low)


def _right_angles(r: Expr, r_low: Expr, f: Format) -> tuple[Expr, Expr]:
    """(r + r_low) * pi / 2 as a pair; the leading 26 bits of r times those of pi / 2 are exact."""
    r_high = Bitcast(Bitcast(r, "i64") & (-1 << 27), "f64")
    r_rest = (r - r_high) + r_low
    return fast_sum(r_high * _HALF_PI_HIGH, fma(r_high, _HALF_PI_REST, r_rest * _HALF_PI[0]))


def _digits(start: Expr) -> list[Expr]:
    """192 bits of 2 / pi from bit `start` < 1024 on, as three words: shifted by 8, 4, 2 and 1 words, then
    by bits."""
    words: list[Expr] = [const(word, start.type) for word in _WORDS]
    for log, count in ((9, 11), (8, 7), (7, 5), (6, 4)):
        moved = compare("ne", start & (1 << log), 0)
        by = 1 << log - 6
        words = [select(moved, words[i + by], words[i]) for i in range(count)]
    left = start & 63
    right = left ^ 63
    return [(a << left) | ((b >> 1) >> right) for a, b in zip(words[:3], words[1:], strict=True)]


def _product(m: Expr, words: list[Expr]) -> tuple[Expr, Expr]:
    """The leading 128 of the 192 bits of m times three words (modulo 2**192), from products of 32 bits."""
    top, middle, last = words
    half = (1 << 32) - 1
    m_low, m_high = m & half, m >> 32

    def by_parts(word: Expr) -> tuple[Expr, Expr, Expr]:
        low, high = word & half, word >> 32
        return m_high * low, m_low * high, m_high * high

    cross, other, high = by_parts(last)
    carry = high + (cross >> 32) + (other >> 32)
    cross, other, high = by_parts(middle)
    base = m_low * (middle & half)
    sum_ = (base >> 32) + (cross & half) + (other & half)
    low = (sum_ << 32) | (base & half)
    high = high + (cross >> 32) + (other >> 32) + (sum_ >> 32)
    total = low + carry
    high = high + select(compare("lt", total, carry), const(1, m.type), const(0, m.type))
    cross, other, _ = by_parts(top)
    return high + m_low * (top & half) + ((cross + other) << 32), total


# Inverses


def atan(x: Expr, f: Format) -> Expr:
    size = magnitude_of(x, f)
    return with_sign(_atan_of_ratio(size, number(1.0, x.type), f), x, f)


@in_wide
def atan2(y: Expr, x: Expr, f: Format) -> Expr:
    """The angle in the first quadrant, mirrored; infinities count as 1, what is finite beside them as 0."""
    a, b = magnitude_of(y, f), magnitude_of(x, f)
    zero, one = number(0.0, x.type), number(1.0, x.type)
    if f.name == "double":  # sums of both must not overflow
        large = compare("gt", a, 2.0**1021) | compare("gt", b, 2.0**1021)
        scale = select(large, number(0.25, x.type), one)
        a, b = a * scale, b * scale
    infinite = compare("eq", a, math.inf) | compare("eq", b, math.inf)
    a_, b_ = (select(infinite, select(compare("eq", v, math.inf), one, zero), v) for v in (a, b))
    angle = _atan_of_ratio(a_, select(compare("eq", a_, 0.0), one, b_), f)
    behind = compare("lt", Bitcast(x, f.bits), 0)
    angle = select(behind, 2 * _HALF_PI[0] - (angle - 2 * _HALF_PI[1]), angle)
    some_nan = compare("ne", x, x) | compare("ne", y, y)
    return select(some_nan, x + y, with_sign(angle, y, f))


def _atan_of_ratio(a: Expr, b: Expr, f: Format) -> Expr:
    """atan(a / b) for a >= 0 and b >= 0, not both 0, by one division: from tan(3 pi / 8) on it is
    pi / 2 - atan(b / a), from tan(pi / 8) on pi / 4 + atan((a - b) / (a + b))."""
    high = compare("gt", a, b * (1 + math.sqrt(2.0)))
    middle = compare("gt", a, b * (math.sqrt(2.0) - 1))
    above = select(high, -b, select(middle, a - b, a))
    below = select(high, a, select(middle, a + b, b))
    t = above / below
    z = t * t
    half_pi, rest = _half_pi(f)
    zero = number(0.0, a.type)
    offset = select(high, number(half_pi, a.type), select(middle, number(half_pi / 2, a.type), zero))
    low = select(high, number(rest, a.type), select(middle, number(rest / 2, a.type), zero))
    return offset + (t + fma(t * z, polynomial(z, _ATAN[f.name]), low))


def _half_pi(f: Format) -> tuple[float, float]:
    return (1.5707963705062866, -4.371138828673793e-08) if f.name == "single" else (_HALF_PI[0], _HALF_PI[1])


def _asin_parts(x: Expr, f: Format) -> tuple[Expr, Expr, Expr]:
    """Whether |x| <= 1/2, and asin(v) as v + w for v = |x| or, beyond 1/2, v = sqrt((1 - |x|) / 2)."""
    size = magnitude_of(x, f)
    near = compare("le", size, 0.5)
    beyond = 0.5 - 0.5 * size
    z = select(near, size * size, beyond)
    v = select(near, size, Unary("sqrt", beyond))
    return near, v, v * z * polynomial(z, _ASIN[f.name])


def asin(x: Expr, f: Format) -> Expr:
    """asin |x| = pi / 2 - 2 asin(sqrt((1 - |x|) / 2)) beyond 1/2."""
    near, v, w = _asin_parts(x, f)
    half_pi, rest = _half_pi(f)
    far = half_pi - (2.0 * v + (2.0 * w - rest))
    return with_sign(select(near, v + w, far), x, f)


def acos(x: Expr, f: Format) -> Expr:
    """pi / 2 - asin(x), or beyond 1/2 twice the angle that `asin` leaves, or its supplement."""
    near, v, w = _asin_parts(x, f)
    half_pi, rest = _half_pi(f)
    negative = compare("lt", x, 0.0)
    inner = half_pi - (x - (rest - select(negative, -w, w)))
    twice = 2.0 * (v + w)
    far = select(negative, 2 * half_pi - (2.0 * v + (2.0 * w - 2 * rest)), twice)
    return select(near, inner, far)
