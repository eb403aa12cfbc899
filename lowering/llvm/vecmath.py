"""Vector math: elementary functions as branch-free loop IR expressions, inlined where they are used.

The routines take any number of lanes and work with and without fused multiply-add; they are exact at 0,
infinities and NaN. Polynomials are minimax fits by the Remez exchange, weighted with the relative error of
the whole function. Where float32 needs more than its own digits, it is computed in float64 with shorter
polynomials (`vecmath_format.in_wide`).

Errors stay within 2 units in the last place for float32 (4 for pow and erfinv) and within 4 for float64 (2
for exponentials and logarithms); docs/numerics.md has what is measured, tests/test_vecmath.py holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingot.lowering.llvm import vecmath_erf, vecmath_exp, vecmath_log, vecmath_trig
from ingot.lowering.llvm.vecmath_format import formats
from ingot.lowering.loop import Expr

ROUTINES: dict[str, Callable[..., Expr]] = {
    "exp": vecmath_exp.exp, "expm1": vecmath_exp.expm1, "sigmoid": vecmath_exp.sigmoid,
    "sinh": vecmath_exp.sinh, "cosh": vecmath_exp.cosh, "tanh": vecmath_exp.tanh,
    "log": vecmath_log.log, "log1p": vecmath_log.log1p, "log2": vecmath_log.log2, "log10": vecmath_log.log10,
    "asinh": vecmath_log.asinh, "acosh": vecmath_log.acosh, "atanh": vecmath_log.atanh,
    "logaddexp": vecmath_log.logaddexp, "pow": vecmath_log.power,
    "sin": vecmath_trig.sin, "cos": vecmath_trig.cos, "tan": vecmath_trig.tan,
    "asin": vecmath_trig.asin, "acos": vecmath_trig.acos, "atan": vecmath_trig.atan,
    "atan2": vecmath_trig.atan2,
    "erf": vecmath_erf.erf, "erfinv": vecmath_erf.erfinv,
}  # fmt: skip
_NAMES = {"f32": "single", "f64": "double"}


def expand(op: str, args: Sequence[Expr], has_fma: bool) -> Expr:
    """The routine `op` on `args` (variables of one type) as an expression of plain operations; parts used
    twice are one object. `has_fma` says whether `fma` rounds once. Raises NotImplementedError where
    `supports` says no."""
    dtype = args[0].type.dtype
    if op not in ROUTINES or dtype not in _NAMES:
        raise NotImplementedError(f"[vecmath] {op} has no vector routine for {dtype}.")
    return ROUTINES[op](*args, formats(has_fma)[_NAMES[dtype]])


def supports(op: str, dtype: str) -> bool:
    """Whether the `Math` operation can be compiled for a dtype."""
    return dtype in _NAMES and (op == "fma" or op in ROUTINES)
