"""The polynomials of `lowering/llvm/vecmath_*.py`.

`python -m bench.minimax [name ...]` prints their coefficients, up to the last digits of the highest powers.
Needs mpmath. The fits are minimax, by the Remez exchange (Remez, 1934; see Muller, "Elementary functions",
2016, section 3.6), weighted so that what is kept small is the relative error of the whole function, and
rounded to the format afterwards.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath  # type: ignore[import-not-found,import-untyped,unused-ignore]
from mpmath import mp, mpf

Function = Callable[[Any], Any]


def fit(
    f: Function, weight: Function, low: Any, high: Any, terms: int, power: Function
) -> tuple[list[Any], Any]:
    """Coefficients of P, and the largest |weight(x) (P(power(x)) - f(x))| on [low, high]."""
    count = 12 * terms + 60
    xs = [(low + high) / 2 - (high - low) / 2 * mpmath.cos(mp.pi * i / (count - 1)) for i in range(count)]
    values, weights, powers = ([g(x) for x in xs] for g in (f, weight, power))
    chosen = [round(i * (count - 1) / terms) for i in range(terms + 1)]
    while True:
        system = mpmath.matrix(terms + 1, terms + 1)
        for row, i in enumerate(chosen):
            for k in range(terms):
                system[row, k] = powers[i] ** k
            system[row, terms] = (-1) ** row / weights[i]
        solved = mpmath.lu_solve(system, mpmath.matrix([values[i] for i in chosen]))
        coefficients, level = list(solved[:terms]), abs(solved[terms])
        errors = [
            w * (mpmath.polyval(coefficients[::-1], u) - v)
            for u, v, w in zip(powers, values, weights, strict=True)
        ]
        extremes = _extremes(errors)
        while len(extremes) > terms + 1:
            extremes.pop(0 if abs(errors[extremes[0]]) < abs(errors[extremes[-1]]) else -1)
        largest = max(map(abs, errors))
        if len(extremes) <= terms or extremes == chosen or largest < 1.001 * level:
            return coefficients, largest
        chosen = extremes


def _extremes(errors: list[Any]) -> list[int]:
    """The largest error of each run of one sign."""
    found = [0]
    for i in range(1, len(errors)):
        if (errors[i] > 0) != (errors[i - 1] > 0):
            found.append(i)
        elif abs(errors[i]) > abs(errors[found[-1]]):
            found[-1] = i
    return found


@dataclass(frozen=True)
class Table:
    """A function, its weight, the interval, how the polynomial's variable depends on x, and for each format
    the number of terms."""

    f: Function
    weight: Function
    low: Any
    high: Any
    terms: dict[str, int]
    power: Function = lambda x: x * x


def _odd_series(f: Function) -> tuple[Function, Function]:
    """(f(x) / x - 1) / x**2 and its weight."""
    return (lambda x: (f(x) / x - 1) / x**2), (lambda x: x**3 / f(x))


def _exp_rest(x: Any) -> Any:
    return (mpmath.expm1(x) - x) / x**2 if abs(x) > mpf("1e-9") else mpf(1) / 2 + x / 6


def _log_rest(d: Any) -> Any:
    return (mpmath.log1p(d) - d + d**2 / 2) / d**3 if abs(d) > mpf("1e-8") else mpf(1) / 3 - d / 4


def _inverse_error(w: Any) -> Any:
    """erfinv(x) / x for w = -log(1 - x**2), by Newton's method on log erfc."""
    x = mpmath.sqrt(-mpmath.expm1(-w))
    rest = mpmath.exp(-w) / (1 + x)  # 1 - x
    y = mpmath.sqrt(w) * mpf("0.95")
    for _ in range(60):
        tail = mpmath.erfc(y)
        step = (mpmath.log(tail) - mpmath.log(rest)) * tail * mpmath.sqrt(mp.pi) / 2 * mpmath.exp(y * y)
        y += step
        if abs(step) < mpf(10) ** -40 * y:
            break
    return y / x


def tables() -> dict[str, Table]:
    """All tables by name."""
    tiny, ln2 = mpf("1e-8"), mpmath.log(2)
    atan, asin, sin = (_odd_series(f) for f in (mpmath.atan, mpmath.asin, mpmath.sin))
    turn, slope = mp.pi / 4 * mpf("1.001"), (3 - 2 * mpmath.sqrt(2)) * mpf("1.0001")

    def same(x: Any) -> Any:
        return x

    def inverse(low: Any, high: Any, terms: dict[str, int], center: Any, rooted: bool) -> Table:
        def f(v: Any) -> Any:
            return _inverse_error(v * v if rooted else v)

        return Table(f, lambda v: 1 / f(v), mpf(low), mpf(high), terms, lambda v: v - mpf(center))

    return {
        "exp": Table(_exp_rest, lambda x: x**2 / mpmath.exp(x), -ln2, ln2,
                     {"single": 6, "wide": 8, "double": 13}, same),
        "expm1": Table(_exp_rest, lambda x: x**2 / abs(mpmath.expm1(x)) if x else mpf(0), -ln2 / 2, ln2 / 2,
                       {"single": 5, "wide": 7, "double": 11}, same),
        "log": Table(lambda s: (2 * mpmath.atanh(s) / s - 2) / s**2, lambda s: s**3 / mpmath.atanh(s) / 2,
                     tiny, slope, {"wide": 4, "double": 7}),
        "log_single": Table(_log_rest, lambda d: d**3 / mpmath.log1p(d) if d else mpf(0),
                            mpmath.sqrt(0.5) - 1, mpmath.sqrt(2) - 1, {"single": 8}, same),
        "log_tail": Table(lambda s: (2 * mpmath.atanh(s) / s - 2 - s**2 * 2 / 3) / s**4,
                          lambda s: s**5 / mpmath.atanh(s) / 2, mpf("1e-4"), slope, {"double": 7}),
        "sin": Table(*sin, mpf("1e-4"), turn, {"single": 3, "wide": 4, "double": 6}),
        "cos": Table(lambda x: (mpmath.cos(x) - 1 + x**2 / 2) / x**4, lambda x: x**4 / mpmath.cos(x),
                     mpf("1e-4"), turn, {"single": 3, "wide": 4, "double": 6}),
        "atan": Table(*atan, tiny, mpmath.tan(mp.pi / 8) * mpf("1.0001"),
                      {"single": 5, "wide": 6, "double": 11}),
        "asin": Table(*asin, tiny, mpf("0.5001"), {"single": 5, "double": 12}),
        "erf_small": Table(lambda x: mpmath.erf(x) / x - 1, lambda x: x / mpmath.erf(x), mpf("1e-6"), mpf(1),
                           {"single": 7, "double": 12}),
        "erf_large": Table(lambda x: -mpmath.log(mpmath.erfc(x)), lambda x: mpmath.erfc(x) / mpmath.erf(x),
                           mpf(1), mpf(6), {"double": 18}, same),
        "erf_large_single": Table(lambda x: -mpmath.log(mpmath.erfc(x)),
                                  lambda x: mpmath.erfc(x) / mpmath.erf(x), mpf(1), mpf(4), {"single": 8},
                                  same),
        "erfinv_near_single": inverse(tiny, 5, {"single": 10}, "2.5", False),
        "erfinv_far_single": inverse("2.236", "4.05", {"single": 10}, 3, True),
        "erfinv_near_double": inverse(tiny, "6.25", {"double": 24}, "3.125", False),
        "erfinv_far_double": inverse("2.499", 4, {"double": 20}, "3.25", True),
        "erfinv_end_double": inverse("3.999", "6.02", {"double": 18}, 5, True),
    }  # fmt: skip


def shown(value: Any, format: str) -> str:
    """The nearest number of the format, as the tables write it."""
    if format == "single":
        return repr(struct.unpack("<f", struct.pack("<f", float(value)))[0])
    return float(value).hex()


def main(names: list[str]) -> None:
    mp.dps = 50
    known = tables()
    for name in names or known:
        table = known[name]
        for format, terms in table.terms.items():
            found, error = fit(table.f, table.weight, table.low, table.high, terms, table.power)
            print(f"{name}, {format}: 2**{float(mpmath.log(error, 2)):.1f}")
            print("   ", " ".join(shown(c, format) for c in found))


if __name__ == "__main__":
    main(sys.argv[1:])
