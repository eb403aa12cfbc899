"""Error bounds of the vector math: float32 against float64 over all exponents, float64 against extended
precision."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from ingot.lowering.llvm import codegen, target, vecmath
from ingot.lowering.loop import MATH, Math, Var, math_call, vector
from ingot.lowering.loop_builder import Builder

sys.path.insert(0, str(Path(__file__).parent))
sweeps = importlib.import_module("vector_math")
BOUNDS, HOST, evaluate, ulps = sweeps.BOUNDS, sweeps.HOST, sweeps.evaluate, sweeps.ulps
EXTENDED = np.finfo(np.longdouble).nmant >= 63
REFERENCES = {"pow": np.power, "atan2": np.arctan2, "logaddexp": np.logaddexp}
FUNCTIONS = sorted(set(MATH) - {"fma"})


def targets_here() -> list[target.Target]:
    return sweeps.targets_here()


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", FUNCTIONS)
def test_float32_error(op, on):
    assert sweeps.measured(op, np.float32, on) <= BOUNDS[op][0]


@pytest.mark.skipif(not EXTENDED, reason="long double is no wider than float64 here")
@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", FUNCTIONS)
def test_float64_error(op, on):
    assert sweeps.measured(op, np.float64, on) <= BOUNDS[op][1]


def test_the_page_of_errors_has_all_functions_within_their_bounds():
    page = Path(__file__).parents[1].joinpath("docs", "numerics.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert sorted(row[0].strip("`") for row in rows) == FUNCTIONS
    for name, bounds, *errors in rows:
        assert bounds == ", ".join(map(str, BOUNDS[name.strip("`")]))
        half = len(errors) // 2
        for bound, part in zip(BOUNDS[name.strip("`")], (errors[:half], errors[half:]), strict=True):
            assert max(map(float, part)) <= bound


@pytest.mark.parametrize("name", sorted(target.TARGETS))
def test_every_function_compiles_for_every_target_without_symbols(name):
    on = target.TARGETS[name]
    for op in FUNCTIONS:
        for short in ("f32", "f64"):
            b = Builder("f")
            xs = [b.buffer(f"x{i}", short) for i in range(MATH[op])]
            y = b.buffer("y", short, "write")
            b.store(y, 0, math_call(op, *(b.let(b.load(x, 0, on.lanes(short))) for x in xs)))
            assert codegen.compile_kernels([b.kernel()], on)  # refuses undefined symbols


EDGES = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (math.inf, math.inf), (-math.inf, 0.0)],
    "log": [
        (1.0, 0.0),
        (0.0, -math.inf),
        (-0.0, -math.inf),
        (math.inf, math.inf),
        (-1.0, math.nan),
        (-math.inf, math.nan),
    ],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.inf), (-math.inf, -1.0)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -math.inf), (-2.0, math.nan), (math.inf, math.inf)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (math.inf, 1.0), (-math.inf, -1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (math.inf, 1.0), (-math.inf, 0.0)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.nan), (-math.inf, math.nan)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (math.inf, math.nan)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (math.inf, 1.0), (-math.inf, -1.0)],
    "erfinv": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (1.0, math.inf),
        (-1.0, -math.inf),
        (1.5, math.nan),
        (-2.0, math.nan),
        (math.inf, math.nan),
    ],
    "log2": [(1.0, 0.0), (0.0, -math.inf), (-0.0, -math.inf), (math.inf, math.inf), (-1.0, math.nan)],
    "log10": [(1.0, 0.0), (0.0, -math.inf), (-0.0, -math.inf), (math.inf, math.inf), (-1.0, math.nan)],
    "tan": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.nan), (-math.inf, math.nan)],
    "asin": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (1.0, math.pi / 2),
        (-1.0, -math.pi / 2),
        (1.5, math.nan),
        (-math.inf, math.nan),
    ],
    "acos": [
        (1.0, 0.0),
        (-1.0, math.pi),
        (0.0, math.pi / 2),
        (-0.0, math.pi / 2),
        (-1.5, math.nan),
        (math.inf, math.nan),
    ],
    "atan": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.pi / 2), (-math.inf, -math.pi / 2)],
    "sinh": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.inf), (-math.inf, -math.inf)],
    "cosh": [(0.0, 1.0), (-0.0, 1.0), (math.inf, math.inf), (-math.inf, math.inf)],
    "asinh": [(0.0, 0.0), (-0.0, -0.0), (math.inf, math.inf), (-math.inf, -math.inf)],
    "acosh": [(1.0, 0.0), (math.inf, math.inf), (0.5, math.nan), (-3.0, math.nan), (-math.inf, math.nan)],
    "atanh": [
        (0.0, 0.0),
        (-0.0, -0.0),
        (1.0, math.inf),
        (-1.0, -math.inf),
        (1.5, math.nan),
        (-math.inf, math.nan),
    ],
}


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", sorted(EDGES))
def test_edges_are_exact(op, on):
    for dtype in (np.float32, np.float64):
        given = np.array([x for x, _ in EDGES[op]] + [math.nan], dtype)
        given = np.tile(given, 5)  # vectors and the scalar rest
        expected = np.tile(np.array([y for _, y in EDGES[op]] + [math.nan], dtype), 5)
        got = evaluate(op, given, on=on)
        np.testing.assert_array_equal(got, expected)
        some = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got[some]), np.signbit(expected[some]))


def test_extremes_of_exp_and_log():
    tiny = np.array([5e-324, 2.2e-308, 1e-310], np.float64)
    np.testing.assert_allclose(evaluate("log", tiny), np.log(tiny), rtol=1e-15)
    small = np.array([1e-45, 1e-40, 1.2e-38], np.float32)
    np.testing.assert_allclose(evaluate("log", small), np.log(small.astype(np.float64)), rtol=1e-7)
    down = np.linspace(-103.9, -87, 5001).astype(np.float32)
    assert ulps(evaluate("exp", down), np.exp(down.astype(np.float64))) <= 1.01
    np.testing.assert_array_equal(
        evaluate("exp", np.array([88.72283, 88.722845, 89, 1e30], np.float32)) == np.inf,
        [False, True, True, True],
    )


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["pow", "atan2", "logaddexp"])
def test_edges_of_two_operands(op, dtype, on):
    tiny, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    sizes = [0, 1, 2, 0.5, 3, math.inf, math.nan, 16777216, 1e30, 2.0**53, 2.0**53 - 1, tiny, most]
    edge = np.array([sign * x for x in sizes for sign in (1, -1)], dtype)
    a, b = (g.ravel().copy() for g in np.meshgrid(edge, edge))
    with np.errstate(all="ignore"):
        got, expected = evaluate(op, a, b, on=on), REFERENCES[op](a, b)
    np.testing.assert_allclose(got, expected, rtol=4 * np.finfo(dtype).eps)
    some = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[some]), np.signbit(expected[some]))


def test_powers_of_the_base_have_exact_logarithms():
    for dtype in (np.float32, np.float64):
        info = np.finfo(dtype)
        exponents = np.arange(info.minexp - info.nmant, info.maxexp)
        np.testing.assert_array_equal(evaluate("log2", np.exp2(exponents).astype(dtype)), exponents)
    tens = np.arange(0, 11)
    np.testing.assert_array_equal(evaluate("log10", (10.0**tens).astype(np.float32)), tens)


def test_sigmoid_and_tanh_are_symmetric_and_bounded():
    x = np.linspace(-30, 30, 20_001).astype(np.float32)
    t, s = evaluate("tanh", x), evaluate("sigmoid", x)
    np.testing.assert_array_equal(t, -evaluate("tanh", -x))
    assert np.abs(t).max() == 1 and s.min() > 0 and s.max() == 1


def test_what_is_not_there_is_said():
    assert set(vecmath.ROUTINES) == set(FUNCTIONS)
    for op in FUNCTIONS:
        args = tuple(Var(f"x{i}", vector("f16", 4)) for i in range(MATH[op]))
        assert vecmath.supports(op, "f32") and vecmath.supports(op, "f64") and not vecmath.supports(op, "f16")
        with pytest.raises(NotImplementedError, match=op):
            vecmath.expand(op, args, True)
        assert Math(op, args).type == vector("f16", 4)


def test_exp_is_short():
    """A reduction, a polynomial of degree 7 and the exact scaling at both ends."""
    if not HOST.has_fma:
        pytest.skip("counts fused operations")
    b = Builder("f")
    x, y = b.buffer("x", "f32"), b.buffer("y", "f32", "write")
    b.store(y, 0, math_call("exp", b.load(x, 0, HOST.lanes("f32"))))
    from ingot.lowering.llvm.emit import emit_module

    assembly = codegen.assembly_text(emit_module([b.kernel()], HOST), HOST)
    if HOST.is_x86:
        body = [line.split()[0] for line in assembly.splitlines() if line.startswith("\tv")]
        assert (
            len([op for op in body if not op.startswith(("vbroadcast", "vmov", "vpbroadcast", "vzero"))])
            <= 19
        )
