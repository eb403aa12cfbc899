"""Exponential and hyperbolic functions.

The argument is reduced by multiples of ln 2 in two parts, after Cody and Waite, "Software Manual for the
Elementary Functions" (1980): products with the leading part are exact without fused operations.
"""

from __future__ import annotations

import math

from ingot.lowering.llvm.vecmath_format import (
    Format,
    at_most,
    clamp,
    hexes,
    in_wide,
    magnitude_of,
    number,
    polynomial,
    power_of_two,
    with_sign,
)
from ingot.lowering.loop import Bitcast, Expr, compare, fma, select

# (exp(r) - 1 - r) / r**2 for |r| <= ln 2
_EXP = {
    "single": (
        0.5000003576278687,
        0.1666661500930786,
        0.04166127368807793,
        0.008336097933351994,
        0.0014104328583925962,
        0.00019611860625445843,
    ),
    "wide": hexes(
        "0x1.fffffff4815d6p-2 0x1.5555558912498p-3 0x1.55555e428d4cep-5 0x1.1110f00d1d8a2p-7 "
        "0x1.6c0eeea55d268p-10 0x1.a031d22a855aap-13 0x1.a549a0132941dp-16 0x1.6e2a56f128496p-19"
    ),
    "double": hexes(
        "0x1.0000000000000p-1 0x1.5555555555550p-3 0x1.55555555555abp-5 0x1.1111111111b38p-7 "
        "0x1.6c16c16c0d3f4p-10 0x1.a01a019e34d41p-13 0x1.a01a01af0662ap-16 0x1.71de3d082f06ep-19 "
        "0x1.27e4f004b3e9ep-22 0x1.ae605e6cb79f5p-26 0x1.1ef5a66f56c8fp-29 0x1.640d9a2e7f335p-33 "
        "0x1.90541c7dce5d6p-37"
    ),
}
# the same for |r| <= ln 2 / 2, weighted with the relative error of expm1
_EXPM1 = {
    "single": (
        0.4999999701976776,
        0.1666654348373413,
        0.04166719689965248,
        0.008366516791284084,
        0.001388265867717564,
    ),
    "wide": hexes(
        "0x1.00000000176c1p-1 0x1.5555557379ddcp-3 0x1.555554f23b055p-5 0x1.1110b1ca6ff23p-7 "
        "0x1.6c1768dc4c9a0p-10 0x1.a170013f22848p-13 0x1.a001cf7a8aa52p-16"
    ),
    "double": hexes(
        "0x1.0000000000000p-1 0x1.5555555555558p-3 0x1.5555555555555p-5 0x1.111111110fd03p-7 "
        "0x1.6c16c16c16a25p-10 0x1.a01a01ad24284p-13 0x1.a01a01b25ceb4p-16 0x1.71ddff2096befp-19 "
        "0x1.27e4a317cf3fcp-22 0x1.af53d01accd06p-26 0x1.1fef847410f94p-29"
    ),
}
_HYPERBOLIC_END = 710.6  # sinh and cosh are infinite from here on, a quarter of them is not


def exp(x: Expr, f: Format, low: Expr | None = None, careful: bool = False) -> Expr:
    """exp(x), or exp(x + low) for a small `low`; `careful` keeps what rounding 1 + r loses.

    x = 2 k ln 2 + r, so that the result is exp(r) times 2**k twice: neither factor leaves the range where
    the result does not. Adding 1.5 * 2**fraction + bias rounds to the nearest integer and leaves the biased
    exponent in the low bits.
    """
    x = clamp(x, f.exp_low, f.exp_high)
    magic = 1.5 * 2.0**f.fraction + f.bias
    shifted = fma(x, 0.5 / math.log(2.0), magic)
    k = shifted - magic
    r = fma(k, -2.0 * f.ln2_low, fma(k, -2.0 * f.ln2_high, x))
    if low is not None:
        r = r + low
    start, rest = (1.0 + r, r - ((1.0 + r) - 1.0)) if careful else (number(1.0, x.type), r)
    y = start + fma(r * r, polynomial(r, _EXP[f.name]), rest)
    scale = power_of_two(Bitcast(shifted, f.bits), f)
    return y * scale * scale


def sigmoid(x: Expr, f: Format) -> Expr:
    """With e = exp(-|x|), which cannot overflow, and q = e / (1 + e): 1 - q, or e - e q for negative x."""
    e = exp(-magnitude_of(x, f), f, careful=True)
    q = e / (e + 1.0)
    a = select(compare("lt", x, 0.0), e, number(1.0, x.type))
    return fma(-a, q, a)


def tanh(x: Expr, f: Format) -> Expr:
    """With h = expm1(2|x|) / 2 and q = h / (h + 1): q itself, or h - h q while h is small, where rounding
    h + 1 would show. The sign is put back, so that -0 keeps it."""
    size = at_most(magnitude_of(x, f), f.tanh_one)
    h = _half_expm1(size + size, f)
    q = h / (h + 1.0)
    return with_sign(select(compare("lt", h, 0.5), fma(-h, q, h), q), x, f)


def _half_expm1(x: Expr, f: Format) -> Expr:
    """expm1(x) / 2 for tanh. As x is small, one fused step gives an r with all digits, and what its rounding
    loses is below half a unit of h."""
    if not f.fused:
        return expm1_scaled(x, f, -1)
    shifted = fma(x, 1.0 / math.log(2.0), 1.5 * 2.0**f.fraction + (f.bias - 1))
    r = fma(shifted - (1.5 * 2.0**f.fraction + (f.bias - 1)), -math.log(2.0), x)
    s = power_of_two(Bitcast(shifted, f.bits), f)
    return fma(s, fma(r * r, polynomial(r, _EXPM1[f.name]), r), s - 0.5)


def expm1(x: Expr, f: Format) -> Expr:
    """At half the size, so that 2**128 does not occur on the way."""
    y = expm1_scaled(clamp(x, f.expm1_low, f.exp_high), f, -1)
    return select(compare("eq", x, 0.0), x, y + y)


def expm1_scaled(x: Expr, f: Format, power: int) -> Expr:
    """expm1(x) * 2**power as s (r + e) + (s - 2**power) with s = 2**(n + power), |r| <= ln 2 / 2 and
    e = r**2 q(r); what rounding r lost is added to e."""
    magic = 1.5 * 2.0**f.fraction + (f.bias + power)
    shifted = fma(x, 1.0 / math.log(2.0), magic)
    n = shifted - magic
    coarse = fma(n, -f.ln2_high, x)
    r = fma(n, -f.ln2_low, coarse)
    lost = fma(n, -f.ln2_low, coarse - r)
    e = fma(r * r, polynomial(r, _EXPM1[f.name]), lost)
    s = power_of_two(Bitcast(shifted, f.bits), f)
    return fma(s, r, s - 2.0**power) + s * e


@in_wide
def sinh(x: Expr, f: Format) -> Expr:
    """With v = expm1(|x|) / 4, which is finite wherever sinh is: 2 (v + v / (4 v + 1))."""
    v = expm1_scaled(at_most(magnitude_of(x, f), _HYPERBOLIC_END), f, -2)
    half = v + v / fma(v, 4.0, 1.0)
    return with_sign(half + half, x, f)


@in_wide
def cosh(x: Expr, f: Format) -> Expr:
    """With w = exp(|x|) / 4: 2 (w + 1 / (16 w))."""
    w = expm1_scaled(at_most(magnitude_of(x, f), _HYPERBOLIC_END), f, -2) + 0.25
    half = w + 0.0625 / w
    return half + half
