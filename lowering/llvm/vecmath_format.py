"""What the routines of vector math share: the formats they compute in and small building blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.lowering.loop import Bitcast, Convert, Expr, Type, compare, const, fma, select
from ingot.tracer.record import record


@record
class Format:
    """What the routines need to know of a floating-point format.

    `name` chooses among tables of coefficients: `single` and `double` are float32 and float64 throughout,
    `wide` is float64 arithmetic for results that are rounded to float32.
    """

    name: str
    dtype: str
    bits: str  # integer of the same size
    fraction: int  # stored bits of the significand
    bias: int
    ln2_high: float  # few enough bits for exact products with any exponent
    ln2_low: float
    exp_low: float  # below it exp is 0
    exp_high: float  # above it exp is infinite
    expm1_low: float  # below it expm1 rounds to -1
    tanh_one: float  # from here on tanh rounds to 1
    fused: bool = True  # whether `fma` rounds once

    @property
    def sign(self) -> int:
        return -1 << (31 if self.bits == "i32" else 63)


def hexes(text: str) -> tuple[float, ...]:
    """Numbers written by `float.hex`."""
    return tuple(float.fromhex(word) for word in text.split())


_LN2_HIGH, _LN2_LOW = hexes("0x1.62e42fefa3000p-1 0x1.3de6af278ece6p-42")


def formats(fused: bool) -> dict[str, Format]:
    """The formats by name, for targets with or without fused multiply-add."""
    single = Format(
        "single",
        "f32",
        "i32",
        23,
        127,
        0.693145751953125,
        1.428606765330187e-06,
        -104.0,
        89.0,
        -20.0,
        9.5,
        fused,
    )
    double, wide = (
        Format(name, "f64", "i64", 52, 1023, _LN2_HIGH, _LN2_LOW, -746.0, 710.0, -40.0, 19.5, fused)
        for name in ("double", "wide")
    )
    return {f.name: f for f in (single, double, wide)}


def in_wide(routine: Callable[..., Expr]) -> Callable[..., Expr]:
    """`routine`, which for float32 computes in float64."""

    def wrapped(*args: Expr | Format) -> Expr:
        *xs, f = args
        assert isinstance(f, Format)
        if f.name != "single":
            return routine(*xs, f)
        wide = routine(*(Convert(x, "f64") for x in xs if isinstance(x, Expr)), formats(f.fused)["wide"])
        return Convert(wide, "f32")

    return wrapped


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's scheme, lowest power first in `coefficients`."""
    result: Expr = const(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        result = fma(result, x, c)
    return result


def clamp(x: Expr, low: float, high: float) -> Expr:
    """NaN stays NaN, and each side is one instruction on x86."""
    return at_most(at_least(x, low), high)


def at_least(x: Expr, low: float) -> Expr:
    bound = const(low, x.type)
    return select(compare("gt", bound, x), bound, x)


def at_most(x: Expr, high: float) -> Expr:
    bound = const(high, x.type)
    return select(compare("lt", bound, x), bound, x)


def power_of_two(biased: Expr, f: Format) -> Expr:
    """2**n from the biased exponent."""
    return Bitcast(biased << f.fraction, f.dtype)


def magnitude_of(x: Expr, f: Format) -> Expr:
    return Bitcast(Bitcast(x, f.bits) & ~f.sign, f.dtype)


def with_sign(magnitude: Expr, x: Expr, f: Format) -> Expr:
    """`magnitude` (not negative) with the sign of `x`."""
    return Bitcast(Bitcast(magnitude, f.bits) | (Bitcast(x, f.bits) & f.sign), f.dtype)


def number(value: float, type: Type) -> Expr:
    return const(value, type)


def two_product(a: Expr, b: Expr, f: Format) -> tuple[Expr, Expr]:
    """a * b rounded, and what rounding lost: by one fused operation, or after Dekker, "A floating-point
    technique for extending the available precision" (1971), with halves cut off by masks (float64 only)."""
    p = a * b
    if f.fused:
        return p, fma(a, b, -p)
    a_high, b_high = _upper_half(a, f), _upper_half(b, f)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _upper_half(x: Expr, f: Format) -> Expr:
    return Bitcast(Bitcast(x, f.bits) & (-1 << (f.fraction + 2) // 2), f.dtype)


def fast_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """a + b rounded, and what rounding lost, for |a| >= |b| or a = 0 (Dekker, 1971)."""
    total = a + b
    return total, b - (total - a)
