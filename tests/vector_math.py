"""Sweeps of the vector math over all exponents against wider formats.

`python -m tests.vector_math` measures every function on every target that this machine can run and writes
`docs/numerics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ingot.lowering.llvm import codegen, target
from ingot.lowering.loop import MATH, math_call
from ingot.lowering.loop_builder import Builder
from ingot.runtime.kernel_call import call_kernel
from ingot.runtime.loader import load

HOST = target.host()
SHORT = {"float32": "f32", "float64": "f64"}
BOUNDS = {
    "exp": (2, 2), "expm1": (2, 2), "log": (2, 2), "log1p": (2, 2), "log2": (2, 2), "log10": (2, 2),
    "sigmoid": (2, 4), "tanh": (2, 4), "sinh": (2, 4), "cosh": (2, 4),
    "asinh": (2, 4), "acosh": (2, 4), "atanh": (2, 4),
    "sin": (2, 4), "cos": (2, 4), "tan": (2, 4),
    "asin": (2, 4), "acos": (2, 4), "atan": (2, 4), "atan2": (2, 4),
    "erf": (2, 4), "erfinv": (4, 4), "pow": (4, 4), "logaddexp": (2, 4),
}  # fmt: skip
"""Units in the last place that float32 and float64 results may be off."""


def targets_here() -> list[target.Target]:
    """With and without fused multiply-add where this machine can run both."""
    if not HOST.is_x86:
        return [HOST]
    return [t for t in target.TARGETS.values() if t.is_x86 and t.bits <= HOST.bits]


def evaluate(op: str, *args: np.ndarray, on: target.Target = HOST) -> np.ndarray:
    """`op` over arrays, in vectors, the rest in scalars."""
    short = SHORT[str(args[0].dtype)]
    lanes = on.lanes(short)
    b = Builder("f")
    xs = [b.buffer(f"x{i}", short) for i in range(len(args))]
    y, n = b.buffer("y", short, "write"), b.param("n")
    whole = b.let(n // lanes * lanes, "whole")
    for lo, hi, step in ((0, whole, lanes), (whole, n, 1)):
        with b.loop("i", lo, hi, step) as loop:
            b.store(y, loop.index, math_call(op, *(b.let(b.load(x, loop.index, step)) for x in xs)))
    loaded = load(codegen.compile_kernels([b.kernel()], on))
    out = np.empty_like(args[0])
    assert call_kernel(loaded.address("f"), [*args, out], [out.size])[0] == 0
    loaded.unload()
    return out


# -- samples -----------------------------------------------------------------------------------------


def samples(dtype: type) -> np.ndarray:
    """All exponents with many significands, both signs; and densely where the routines change their way."""
    rng = np.random.default_rng(0)
    if dtype == np.float32:
        bits = (np.arange(0, 1 << 32, 8191, dtype=np.uint64) + rng.integers(0, 8191)).astype(np.uint32)
        everywhere = bits.view(np.float32)
    else:
        everywhere = rng.integers(0, 1 << 64, 200_000, np.uint64).view(np.float64)
    ranges = [(-110, 110), (-2, 2), (0.6, 1.6), (-0.01, 0.01), (-750, 750), (-1, -0.5)]
    dense = [np.linspace(a, b, 40_001).astype(dtype) for a, b in ranges]
    return np.concatenate([everywhere, *dense])


def _near_right_angles(dtype: type) -> np.ndarray:
    """The floats next to multiples of pi / 2, and the hardest ones to reduce (Muller et al., "Handbook of
    floating-point arithmetic", 2018, section 10.5)."""
    near = (np.arange(1, 40_000) * (np.longdouble(np.pi) / 2)).astype(dtype)
    hardest = np.array([16367173 * 2.0**72 if dtype == np.float32 else 6381956970095103 * 2.0**797], dtype)
    return np.concatenate([near, hardest, -near])


def _towards_one(dtype: type) -> np.ndarray:
    digits = 15.9 if dtype == np.float64 else 7.2
    x = (1 - 10.0 ** -np.linspace(0.05, digits, 20_001)).astype(dtype)
    x = np.concatenate([x, np.linspace(-1, 1, 20_001).astype(dtype), samples(dtype)[::20]])
    return x[np.abs(x) < 1]


def _powers(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Results over the whole range, from bases of all sizes and from those near 1."""
    rng = np.random.default_rng(0)
    size = 103 if dtype == np.float32 else 740
    far = np.exp(rng.uniform(-0.8, 0.8, 60_000) * min(size, 709))
    x = np.concatenate([far, rng.uniform(0.5, 2, 60_000), rng.uniform(0.99, 1.01, 60_000)]).astype(dtype)
    logs = np.log(x.astype(np.float64))
    y = (rng.uniform(-size, size, x.size) / np.where(logs == 0, 1, logs)).astype(dtype)
    return x, y


def _pairs(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Operands that have nothing to do with each other, and operands of about one size."""
    rng = np.random.default_rng(0)
    x = samples(dtype)
    with np.errstate(all="ignore"):
        similar = (x * np.exp(rng.uniform(-3, 3, x.size))).astype(dtype)
    return np.concatenate([x, x]), np.concatenate([rng.permutation(x), similar])


def _summands(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Operands of all sizes whose result is not much smaller than they are, by cancellation."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, s, 40_001) for s in (0.01, 0.1, 1, 10, 1000)]).astype(dtype)
    y = (x + np.concatenate([rng.normal(0, s, 40_001) for s in (0.01, 1, 3, 10, 40)])).astype(dtype)
    kept = np.logaddexp(x, y) > np.maximum(np.abs(x), np.abs(y)) / 2
    return x[kept], y[kept]


def operands(op: str, dtype: type) -> tuple[np.ndarray, ...]:
    """What a function is measured on."""
    if op in ("sin", "cos", "tan"):
        return (np.concatenate([samples(dtype), _near_right_angles(dtype)]),)
    if op == "erfinv":
        return (_towards_one(dtype),)
    if op == "erf" and dtype == np.float64:  # the reference is slow
        x = samples(dtype)[::10]
        return (np.concatenate([x, np.linspace(-6.5, 6.5, 20_001)]),)
    of_two = {"pow": _powers, "atan2": _pairs, "logaddexp": _summands}
    return of_two[op](dtype) if op in of_two else (samples(dtype),)


# -- references --------------------------------------------------------------------------------------

_TWO_OVER_ROOT_PI = 2 / np.sqrt(np.longdouble("3.14159265358979323846264338327950288"))
_NUMPY = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "asinh": "arcsinh",
          "acosh": "arccosh", "atanh": "arctanh", "pow": "power"}  # fmt: skip


def _erf_and_rest(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """erf(x) and 1 - erf(x) in extended precision for 0 <= x < 30, each without cancellation: series and
    continued fraction of Abramowitz and Stegun, 7.1.6 and 7.1.14."""
    near = np.minimum(x, 2)
    total = np.ones_like(x)
    for n in range(60, 0, -1):
        total = 1 + total * 2 * near * near / (2 * n + 1)
    small = _TWO_OVER_ROOT_PI * near * total * np.exp(-near * near)
    far = np.maximum(x, 2)
    tail = far
    for n in range(200, 0, -1):
        tail = far + (np.longdouble(n) / 2) / tail
    rest = _TWO_OVER_ROOT_PI / 2 * np.exp(-far * far) / tail
    return np.where(x < 2, small, 1 - rest), np.where(x < 2, 1 - small, rest)


def _erf(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.longdouble)
    found = _erf_and_rest(np.minimum(np.where(np.isnan(x), 0, np.abs(x)), 29))[0]
    return np.where(np.isnan(x), x, np.copysign(found, x))


def _erfinv(x: np.ndarray) -> np.ndarray:
    """By Newton's method, from where the reference primitive ends."""
    from ingot.tracer.primitives import special

    size = np.abs(x).astype(np.longdouble)
    y = special.erfinv(np.abs(x).astype(np.float64)).astype(np.longdouble)
    for _ in range(2):
        inside, rest = _erf_and_rest(y)
        excess = np.where(size < 0.5, inside - size, (1 - size) - rest)
        y = y - excess / (_TWO_OVER_ROOT_PI * np.exp(-y * y))
    tiny = size < 1e-9
    return np.copysign(np.where(tiny, size / _TWO_OVER_ROOT_PI, y), x)


def reference(op: str, *xs: np.ndarray) -> np.ndarray:
    """In the next wider format."""
    with np.errstate(all="ignore"):
        wide = [x.astype(np.float64 if x.dtype == np.float32 else np.longdouble) for x in xs]
        if op == "erf":
            if wide[0].dtype == np.float64:
                return np.array([math.erf(v) for v in wide[0]])
            return _erf(wide[0])
        if op == "erfinv":
            return _erfinv(wide[0]).astype(wide[0].dtype)
        if op == "sigmoid":
            e = np.exp(-np.abs(wide[0]))
            return np.where(wide[0] < 0, e, 1 + e - e) / (1 + e)
        return getattr(np, _NUMPY.get(op, op))(*wide)


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units in the last place of the exact result; infinities and NaN must agree."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    np.testing.assert_array_equal(np.where(np.isinf(got), got, 0), np.where(np.isinf(rounded), rounded, 0))
    finite = np.isfinite(rounded)
    unit = np.spacing(np.abs(rounded[finite])).astype(exact.dtype)
    return float(np.max(np.abs(got[finite].astype(exact.dtype) - exact[finite]) / unit))


def measured(op: str, dtype: type, on: target.Target = HOST) -> float:
    """The largest error of `op` over its sweep."""
    xs = operands(op, dtype)
    return ulps(evaluate(op, *xs, on=on), reference(op, *xs))


# -- the page ----------------------------------------------------------------------------------------

_PAGE = """# Accuracy of elementary functions

Largest errors of compiled code in units in the last place, measured by `python -m tests.vector_math` over
all exponents, densely where a function changes its way, and for angles next to multiples of a right angle.
References are the next wider format: float64, and 80-bit floats. `tests/test_vecmath.py` holds the bounds.

`+ - * /`, `sqrt`, `remainder`, comparisons, rounding and conversions are exact or rounded once. `rsqrt` is
`1 / sqrt(x)`: two roundings, below 1.5 units. `logaddexp` is measured where the result is not smaller than
half of an operand: towards 0, the larger operand and what is added to it cancel. float16 and bfloat16 are
computed in float32 and rounded once. Zeros keep their sign, infinities and NaN give what IEEE 754 says.

"""


def page(progress: Callable[[str], None] = lambda line: None) -> str:
    """The text of `docs/numerics.md`."""
    columns = [(dtype, on) for dtype in (np.float32, np.float64) for on in targets_here()]
    names = [f"{SHORT[np.dtype(d).name]} {on.name}{'' if on.has_fma else ' (no FMA)'}" for d, on in columns]
    lines = ["| function | bound f32, f64 | " + " | ".join(names) + " |", "|---" * (len(columns) + 2) + "|"]
    for op in MATH:
        if op == "fma":
            continue
        bound = ", ".join(map(str, BOUNDS[op]))
        found = [f"{measured(op, dtype, on):.2f}" for dtype, on in columns]
        lines.append(f"| `{op}` | {bound} | " + " | ".join(found) + " |")
        progress(lines[-1])
    return _PAGE + "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).parents[1].joinpath("docs", "numerics.md").write_text(page(print))
