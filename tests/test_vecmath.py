"""Error bounds of the vector math: float32 against float64 over all exponents, float64 against extended
precision."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ingot.lowering.llvm import codegen, target, vecmath
from ingot.lowering.loop import MATH, Math, Var, math_call, vector
from ingot.lowering.loop_builder import Builder
from ingot.runtime.kernel_call import call_kernel
from ingot.runtime.loader import load

HOST = target.host()
EXTENDED = np.finfo(np.longdouble).nmant >= 63
BOUNDS = {
    "exp": (2, 2),
    "log": (2, 2),
    "expm1": (2, 2),
    "log1p": (2, 2),
    "tanh": (2, 4),
    "sigmoid": (2, 4),
    "erf": (2, None),
    "sin": (1, None),
    "cos": (1, None),
}


def targets_here() -> list[target.Target]:
    """With and without fused multiply-add where this machine can run both."""
    if not HOST.is_x86:
        return [HOST]
    return [t for t in target.TARGETS.values() if t.is_x86 and t.bits <= HOST.bits]


def evaluate(op: str, *args: np.ndarray, on: target.Target = HOST) -> np.ndarray:
    """`op` over arrays, in vectors, the rest in scalars."""
    short = {"float32": "f32", "float64": "f64"}[str(args[0].dtype)]
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


def reference(op: str, x: np.ndarray) -> np.ndarray:
    """In the next wider format."""
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
        if op == "erf":
            return np.array([math.erf(v) for v in wide])
        if op == "sigmoid":
            e = np.exp(-np.abs(wide))
            return np.where(wide < 0, e, 1 + e - e) / (1 + e)
        return getattr(np, op)(wide)


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units in the last place of the exact result; infinities and NaN must agree."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
    np.testing.assert_array_equal(np.where(np.isinf(got), got, 0), np.where(np.isinf(rounded), rounded, 0))
    finite = np.isfinite(rounded)
    unit = np.spacing(np.abs(rounded[finite])).astype(exact.dtype)
    return float(np.max(np.abs(got[finite].astype(exact.dtype) - exact[finite]) / unit))


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


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", sorted(BOUNDS))
def test_float32_error(op, on):
    x = samples(np.float32)
    assert ulps(evaluate(op, x, on=on), reference(op, x)) <= BOUNDS[op][0]


@pytest.mark.skipif(not EXTENDED, reason="long double is no wider than float64 here")
@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", sorted(op for op, (_, bound) in BOUNDS.items() if bound))
def test_float64_error(op, on):
    x = samples(np.float64)
    assert ulps(evaluate(op, x, on=on), reference(op, x)) <= BOUNDS[op][1]


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
}


@pytest.mark.parametrize("on", targets_here(), ids=lambda t: t.name)
@pytest.mark.parametrize("op", sorted(EDGES))
def test_edges_are_exact(op, on):
    for dtype in (np.float32, np.float64):
        if not vecmath.supports(op, "f32" if dtype == np.float32 else "f64"):
            continue
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
def test_pow(on):
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(-40, 40, 60_000)).astype(np.float32)
    y = (rng.uniform(-90, 90, x.size) / np.maximum(np.abs(np.log(x)), 1)).astype(np.float32)
    with np.errstate(all="ignore"):
        assert ulps(evaluate("pow", x, y, on=on), x.astype(np.float64) ** y.astype(np.float64)) <= 4
        near = rng.uniform(0.99, 1.01, 20_000).astype(np.float32)
        far = rng.uniform(-8000, 8000, 20_000).astype(np.float32)
        assert ulps(evaluate("pow", near, far, on=on), near.astype(np.float64) ** far.astype(np.float64)) <= 4
        edge = np.array(
            [0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, math.inf, -math.inf, math.nan, 16777216, 1e30],
            np.float32,
        )
        a, b = (g.ravel().copy() for g in np.meshgrid(edge, edge))
        got, expected = evaluate("pow", a, b, on=on), np.power(a, b)
    np.testing.assert_allclose(got, expected, rtol=3e-7)
    some = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[some]), np.signbit(expected[some]))


def test_sigmoid_and_tanh_are_symmetric_and_bounded():
    x = np.linspace(-30, 30, 20_001).astype(np.float32)
    t, s = evaluate("tanh", x), evaluate("sigmoid", x)
    np.testing.assert_array_equal(t, -evaluate("tanh", -x))
    assert np.abs(t).max() == 1 and s.min() > 0 and s.max() == 1


def test_what_is_not_there_is_said():
    for op in MATH:
        for dtype in ("f32", "f64"):
            if op != "fma" and not vecmath.supports(op, dtype):
                args = tuple(Var(f"x{i}", vector(dtype, 4)) for i in range(MATH[op]))
                with pytest.raises(NotImplementedError, match=op):
                    vecmath.expand(op, args, True)
                assert Math(op, args).type == vector(dtype, 4)


def test_exp_is_short():
    """About a dozen vector instructions and the exact scaling at both ends."""
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
            <= 24
        )
