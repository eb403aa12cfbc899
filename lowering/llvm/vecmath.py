"""Vector math: elementary functions as branch-free loop IR expressions, inlined where they are used.

The routines take any number of lanes and work with and without fused multiply-add; they are exact at 0,
infinities and NaN. Polynomials are minimax fits by the Remez exchange, weighted with the relative error of
the whole function and computed with 64-bit significands. Argument reductions follow Cody and Waite, "Software
Manual for the Elementary Functions" (1980): constants are split so that products with the leading part are
exact without fused operations.

Bounds of the errors in units in the last place, over all float32 exponents and dense samples of float64
(tests/test_vecmath.py):

    exp, log, expm1, log1p    2              measured: 0.9, 0.9, 1.3, 1.4; exp without fused operations 1.2
    tanh, sigmoid             2; float64: 4  measured: 1.6, 1.8; float64 2.2, 1.9
    erf (float32 alone)       2              measured: 1.2
    sin, cos (float32 alone)  1              computed in float64
    pow (float32 alone)       1              computed in float64
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingot.lowering.loop import Bitcast, Convert, Expr, Type, Unary, binary, compare, const, fma, select


@dataclass(frozen=True, slots=True)
class _Format:
    """What the routines need to know of a floating-point format."""

    bits: str                       # integer of the same size
    fraction: int                   # stored bits of the significand
    bias: int
    ln2_high: float                 # few enough bits for exact products with any exponent
    ln2_low: float
    exp_range: tuple[float, float]  # beyond it the result is 0 or infinity
    exp: tuple[float, ...]          # (exp(r) - 1 - r) / r**2, for exp
    expm1: tuple[float, ...]        # the same, for expm1
    expm1_low: float                # below it expm1 rounds to -1
    tanh_one: float                 # from here on the result rounds to 1


def _hex(text: str) -> tuple[float, ...]:
    return tuple(float.fromhex(word) for word in text.split())


_F32 = _Format(
    bits="i32", fraction=23, bias=127, ln2_high=0.693145751953125, ln2_low=1.428606765330187e-06,
    exp_range=(-104.0, 89.0), expm1_low=-20.0, tanh_one=9.5,
    exp=(0.4999999403953552, 0.16666509211063385, 0.041668009012937546, 0.008369989693164825,
         0.0013847033260390162),
    expm1=(0.5, 0.1666666716337204, 0.04166634380817413, 0.008333270438015461, 0.0013942045625299215,
           0.00019915623124688864))
_F64 = _Format(
    bits="i64", fraction=52, bias=1023,
    ln2_high=float.fromhex("0x1.62e42fefa3000p-1"), ln2_low=float.fromhex("0x1.3de6af278ece6p-42"),
    exp_range=(-746.0, 710.0), expm1_low=-40.0, tanh_one=19.5,
    exp=_hex("0x1.0000000000008p-1 0x1.55555555554dap-3 0x1.5555555550bf2p-5 0x1.1111111130aacp-7 "
             "0x1.6c16c1841620cp-10 0x1.a01a00f6cdeacp-13 0x1.a019992451616p-16 0x1.71df9a8569484p-19 "
             "0x1.28aef8b2cddd4p-22 0x1.acc8f413e6036p-26"),
    expm1=_hex("0x1.0000000000000p-1 0x1.5555555555558p-3 0x1.5555555555555p-5 0x1.111111110fd03p-7 "
               "0x1.6c16c16c16a25p-10 0x1.a01a01ad24284p-13 0x1.a01a01b25ceb4p-16 0x1.71ddff2096befp-19 "
               "0x1.27e4a317cf3fcp-22 0x1.af53d01accd06p-26 0x1.1fef847410f94p-29"))
_FORMATS = {"f32": _F32, "f64": _F64}

# (log(1 + f) - f + f**2 / 2) / f**3 in float32
_LOG_F32 = (0.33333316445350647, -0.2500084340572357, 0.20002323389053345, -0.1662330329418182,
            0.1417967826128006, -0.131405308842659, 0.12896229326725006, -0.0784304216504097)
# (log((1 + s) / (1 - s)) / s - 2) / s**2 in powers of s**2, in float64
_LOG_F64 = _hex("0x1.5555555555575p-1 0x1.9999999986bb8p-2 0x1.2492493d515e7p-2 0x1.c71c55019233ap-3 "
                "0x1.7465c118f8040p-3 0x1.39ac0e75e6b72p-3 0x1.2eb081ab3e7a3p-3")
# erf(x) / x - 1 in powers of x**2 below 1, and -log(1 - erf(x)) from there to 4, in float32
_ERF_SMALL = (0.12837916612625122, -0.3761262595653534, 0.1128358542919159, -0.026853810995817184,
              0.005188327748328447, -0.0008010193705558777, 7.853860734030604e-05)
_ERF_LARGE = (0.0001712018420221284, 1.1280266046524048, 0.6360017657279968, 0.1057397797703743,
              -0.023712800815701485, 0.003720441134646535, -0.0003570759727153927, 1.5591784176649526e-05)
# 192 bits of 2 / pi in pieces of 24, the first just behind the binary point
_TWO_OVER_PI = (0xA2F983, 0x6E4E44, 0x1529FC, 0x2757D1, 0xF534DD, 0xC0DB62, 0x95993C, 0x439041)


def expand(op: str, args: Sequence[Expr], has_fma: bool) -> Expr:
    """The routine `op` on `args` (variables of one type) as an expression of plain operations; parts used
    twice are one object. `has_fma` says whether `fma` rounds once. Raises NotImplementedError where
    `supports` says no."""
    dtype = args[0].type.dtype
    if not supports(op, dtype):
        raise NotImplementedError(f"[vecmath] {op} has no vector routine for {dtype} yet.")
    return _ROUTINES[op](*args)


def supports(op: str, dtype: str) -> bool:
    """Whether the `Math` operation can be compiled for a dtype."""
    return op == "fma" or op in _ROUTINES and (dtype == "f32" or dtype == "f64" and op not in _ONLY_F32)


def _polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's scheme, lowest power first in `coefficients`."""
    result: Expr = const(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        result = fma(result, x, c)
    return result


def _clamp(x: Expr, low: float, high: float) -> Expr:
    """NaN stays NaN, and each side is one instruction on x86."""
    low_, high_ = const(low, x.type), const(high, x.type)
    x = select(compare("gt", low_, x), low_, x)
    return select(compare("lt", high_, x), high_, x)


def _reduce_exp(x: Expr, f: _Format) -> tuple[Expr, Expr, Expr]:
    """x = n * ln 2 + r with |r| <= ln 2 / 2: returns n, r, and the integer whose low bits are those of n.
    Adding 1.5 * 2**fraction rounds to the nearest integer and leaves it in the low bits of the
    significand."""
    magic = const(1.5 * 2.0 ** f.fraction, x.type)
    shifted = fma(x, 1.0 / math.log(2.0), magic)
    n = shifted - magic
    r = fma(n, -f.ln2_high, x)
    return n, fma(n, -f.ln2_low, r), Bitcast(shifted, f.bits)


def _power_of_two(n: Expr, f: _Format, type: Type) -> Expr:
    """2**n from the biased exponent `n`."""
    return Bitcast(n << f.fraction, type.dtype)


def _magic_bits(f: _Format) -> int:
    """The bits of 1.5 * 2**fraction."""
    return (f.bias + f.fraction) << f.fraction | 1 << (f.fraction - 1)


def _scale(y: Expr, shifted: Expr, f: _Format) -> Expr:
    """y * 2**n in two multiplications, so that neither factor leaves the range where the result does not."""
    n = shifted - (_magic_bits(f) - 2 * f.bias)
    first = n >> 1
    return y * _power_of_two(first, f, y.type) * _power_of_two(n - first, f, y.type)


def _exp(x: Expr) -> Expr:
    f = _FORMATS[x.type.dtype]
    _, r, shifted = _reduce_exp(_clamp(x, *f.exp_range), f)
    y = fma(fma(_polynomial(r, f.exp), r, 1.0), r, 1.0)
    return _scale(y, shifted, f)


def _sigmoid(x: Expr) -> Expr:
    """With e = exp(-|x|), which cannot overflow, and q = e / (1 + e): 1 - q, or e - e q for negative x."""
    e = _exp(-_abs(x))
    q = e / (e + 1.0)
    a = select(compare("lt", x, 0.0), e, const(1.0, x.type))
    return fma(-a, q, a)


def _tanh(x: Expr) -> Expr:
    """With t = expm1(2|x|) and q = t / (t + 2): q itself, or t/2 - q t/2 while t is small, where rounding
    t + 2 would show. The sign is put back, so that -0 keeps it."""
    f = _FORMATS[x.type.dtype]
    magnitude = _clamp(_abs(x), 0.0, f.tanh_one)
    t = _expm1_scaled(magnitude + magnitude, f, 0)
    q = t / (t + 2.0)
    half = t * 0.5
    return _with_sign(select(compare("lt", t, 1.0), fma(-half, q, half), q), x)


def _expm1(x: Expr) -> Expr:
    """At half the size, so that 2**128 does not occur on the way."""
    f = _FORMATS[x.type.dtype]
    y = _expm1_scaled(_clamp(x, f.expm1_low, f.exp_range[1]), f, -1)
    return select(compare("eq", x, 0.0), x, y + y)


def _expm1_scaled(x: Expr, f: _Format, power: int) -> Expr:
    """expm1(x) * 2**power as s (r + e) + (s - 2**power) with s = 2**(n + power) and e = r**2 q(r); what
    rounding r lost is added to e."""
    n, r, shifted = _reduce_exp(x, f)
    lost = fma(n, -f.ln2_low, fma(n, -f.ln2_high, x) - r)
    e = fma(r * r, _polynomial(r, f.expm1), lost)
    s = _power_of_two(shifted - (_magic_bits(f) - f.bias - power), f, x.type)
    return fma(s, r, s - 2.0 ** power) + s * e


def _log(x: Expr) -> Expr:
    """x = m * 2**e with m in [sqrt(1/2), sqrt(2)); log x = e * ln 2 + log m."""
    f = _FORMATS[x.type.dtype]
    subnormal = compare("lt", x, 2.0 ** (1 - f.bias))
    scaled = select(subnormal, x * 2.0 ** f.fraction, x)
    m, e = _split(scaled, f)
    e = Convert(e, x.type.dtype) - select(subnormal, const(float(f.fraction), x.type), const(0.0, x.type))
    return _log_edges(x, _log_sum(m - 1.0, e, f))


def _split(x: Expr, f: _Format) -> tuple[Expr, Expr]:
    """Significand in [sqrt(1/2), sqrt(2)) and integer exponent of a normal positive number."""
    root_half = (f.bias - 1 << f.fraction) + int((math.sqrt(0.5) * 2 - 1) * 2.0 ** f.fraction)
    bits = Bitcast(x, f.bits)
    e = (bits - root_half) >> f.fraction
    return Bitcast(bits - (e << f.fraction), x.type.dtype), e


def _log_sum(d: Expr, e: Expr, f: _Format) -> Expr:
    """log(1 + d) + e * ln 2; the largest exact terms are added last."""
    half_square = 0.5 * d * d
    if d.type.dtype == "f32":
        rest = d * d * d * _polynomial(d, _LOG_F32)
        return fma(e, f.ln2_high, d - (half_square - fma(e, f.ln2_low, rest)))
    s = d / (d + 2.0)
    z = s * s
    rest = s * (half_square + z * _polynomial(z, _LOG_F64))
    return fma(e, f.ln2_high, d - (half_square - fma(e, f.ln2_low, rest)))


def _log_edges(x: Expr, y: Expr) -> Expr:
    """-inf at 0, NaN below, infinity and NaN as they are."""
    t = x.type
    y = select(compare("lt", x, math.inf), y, x)
    return select(compare("gt", x, 0.0), y, select(compare("eq", x, 0.0), const(-math.inf, t),
                                                   const(math.nan, t) + x))


def _log1p(x: Expr) -> Expr:
    """log of 1 + x, whose rounding error is put back into the significand."""
    f = _FORMATS[x.type.dtype]
    u = x + 1.0
    back = u - 1.0
    lost = (x - back) + (1.0 - (u - back))
    m, e = _split(u, f)
    d = fma(lost, _power_of_two(binary("max", f.bias - e, 0), f, x.type), m - 1.0)
    y = _log_edges(u, _log_sum(d, Convert(e, x.type.dtype), f))
    return select(compare("eq", x, 0.0), x, y)


def _erf(x: Expr) -> Expr:
    """x P(x**2) near 0, 1 - exp(-g(|x|)) up to 4, where the result rounds to 1."""
    z = x * x
    small = fma(x, _polynomial(z, _ERF_SMALL), x)
    magnitude = _clamp(_abs(x), 0.0, 4.0)
    large = 1.0 - _exp(-_polynomial(magnitude, _ERF_LARGE))
    return select(compare("lt", magnitude, 1.0), small, _with_sign(large, x))


def _pow(x: Expr, y: Expr) -> Expr:
    """exp(y log|x|) in float64, then the cases of IEEE 754 section 9.2.1."""
    t = x.type
    wide_y, size = Convert(y, "f64"), _abs(Convert(x, "f64"))
    unit = compare("eq", size, 1.0) & compare("eq", wide_y, wide_y)
    power = select(unit, const(0.0, size.type), wide_y * _log(size))
    magnitude = Convert(_exp(power), "f32")
    half = y * 0.5
    whole = compare("eq", Unary("trunc", y), y)
    odd = whole & compare("ne", Unary("trunc", half), half)
    signed = select(odd, _with_sign(magnitude, x), magnitude)
    invalid = compare("lt", x, 0.0) & compare("gt", x, -math.inf) & ~whole
    result = select(invalid, const(math.nan, t), signed)
    return select(compare("eq", y, 0.0) | compare("eq", x, 1.0), const(1.0, t), result)


def _turns(x: Expr) -> tuple[Expr, Expr]:
    """float32 x = (n + r) * pi / 2 with |r| <= 1/2, both in float64, for any x (after Payne and Hanek,
    "Radian reduction for trigonometric functions", 1983). Products with 24-bit pieces of 2 / pi are exact;
    whole turns are dropped from each, and the leading sums are exact too, so that nothing is lost close to
    a multiple."""
    wide = Convert(x, "f64")
    parts = []
    for i, piece in enumerate(_TWO_OVER_PI):
        product = wide * (piece * 2.0 ** (-24 * (i + 1)))
        parts.append(product - 4.0 * Unary("trunc", product * 0.25))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    n = Unary("round", total)
    r = parts[0] - n
    for part in parts[1:]:
        r = r + part
    return n, r


def _sin_or_cos(x: Expr, quarter: int) -> Expr:
    """Taylor polynomials in float64 (13th and 14th powers are below 2**-36) on the reduced argument."""
    n, r = _turns(x)
    y = r * (math.pi / 2)
    z = y * y
    sine = fma(y * z, _polynomial(z, [-((-1) ** k) / math.factorial(2 * k + 3) for k in range(5)]), y)
    cosine = _polynomial(z, [(-1) ** k / math.factorial(2 * k) for k in range(7)])
    number = Bitcast(n + 1.5 * 2.0 ** 52, "i64") + quarter
    value = select(compare("ne", number & 1, 0), cosine, sine)
    sign = (number & 2) << 62
    return Convert(Bitcast(Bitcast(value, "i64") ^ sign, "f64"), "f32")


def _sin(x: Expr) -> Expr:
    return select(compare("eq", x, 0.0), x, _sin_or_cos(x, 0))


def _cos(x: Expr) -> Expr:
    return _sin_or_cos(x, 1)


def _abs(x: Expr) -> Expr:
    f = _FORMATS[x.type.dtype]
    return Bitcast(Bitcast(x, f.bits) & ~_sign_bit(f), x.type.dtype)


def _with_sign(magnitude: Expr, x: Expr) -> Expr:
    """`magnitude` (not negative) with the sign of `x`."""
    f = _FORMATS[x.type.dtype]
    return Bitcast(Bitcast(magnitude, f.bits) | (Bitcast(x, f.bits) & _sign_bit(f)), x.type.dtype)


def _sign_bit(f: _Format) -> int:
    return -1 << (31 if f.bits == "i32" else 63)


_ROUTINES: dict[str, Callable[..., Expr]] = {
    "exp": _exp, "log": _log, "expm1": _expm1, "log1p": _log1p, "tanh": _tanh, "sigmoid": _sigmoid,
    "erf": _erf, "sin": _sin, "cos": _cos, "pow": _pow}
_ONLY_F32 = frozenset({"erf", "sin", "cos", "pow"})
