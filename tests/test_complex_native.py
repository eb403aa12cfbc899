"""Complex numbers in native code: pairs of real numbers, never a host call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import ingot as mx
from ingot.runtime import interpreter
from ingot.runtime.executable import executable
from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, leaf
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import Graph, GraphBuilder, Literal, Operand
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives import contract as ct
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives import index as ix
from ingot.tracer.primitives import reduce as rd
from ingot.tracer.primitives import shape as sh
from ingot.tracer.trace import trace

C64, F32, I32 = dtypes.complex64, dtypes.float32, dtypes.int32
N, M = Dim("N"), Dim("M")
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, 1e-40, -3e38, 3e38, np.inf, -np.inf, np.nan]

Steps = Sequence[tuple[Primitive, Sequence[Operand]]]


def graph_of(inputs: Sequence[Aval], steps: Steps) -> Graph:
    """All results of the steps, each an output."""
    b = GraphBuilder("complex", inputs)
    results = [r for primitive, operands in steps for r in b.add(primitive, operands)]
    return b.finish(results)


def numbers(shape: Sequence[int], dtype: dtypes.Dtype = C64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    if dtype.is_integer:
        return rng.integers(0, 3, shape).astype(dtype.numpy)
    z = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype.is_complex else 0)
    return np.asarray(z).astype(dtype.numpy)


def both(graph: Graph, inputs: Sequence[np.ndarray], **env: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Results of native code and of the reference; there must be no host calls."""
    made = executable(graph)
    assert not made.program.hosts, made.program.hosts
    avals = [Aval(x.shape, a.dtype) for x, a in zip(inputs, graph.inputs, strict=True)]
    got = made([leaf(x, aval=a) for x, a in zip(inputs, avals, strict=True)])
    with np.errstate(all="ignore"):
        want = interpreter.run(graph, inputs, env)
    return [(np.asarray(x.view), y) for x, y in zip(got, want, strict=True)]


def check(graph: Graph, *sizes: dict[str, int], tolerance: float = 0.0) -> None:
    """Equal to the reference within `tolerance` of the largest element; 0 asks for equal bits."""
    for env in sizes or ({},):
        inputs = [
            numbers([dims.evaluate(n, env) for n in a.shape], a.dtype, i) for i, a in enumerate(graph.inputs)
        ]
        for got, want in both(graph, inputs, **env):
            assert got.dtype == want.dtype and got.shape == want.shape
            if tolerance:
                scale = np.max(np.abs(want), initial=1e-30)
                assert np.max(np.abs(got - want), initial=0.0) <= tolerance * scale, (env, got, want)
            else:
                np.testing.assert_array_equal(got, want)


def edges() -> list[np.ndarray]:
    """All pairs of numbers whose parts are special."""
    z = [complex(a, b) for a, b in itertools.product(EDGES, repeat=2)]
    x, y = zip(*itertools.product(z, repeat=2), strict=True)
    return [np.array(x, np.complex64), np.array(y, np.complex64)]


@pytest.mark.parametrize("cls", [ew.Add, ew.Sub, ew.Mul, ew.Div, ew.Neg, ew.Square], ids=lambda c: c.__name__)
def test_arithmetic_is_bitwise_that_of_the_reference(cls: type[Primitive]) -> None:
    arity = 1 if cls in (ew.Neg, ew.Square) else 2
    operands = edges()[:arity]
    ((got, want),) = both(graph_of([Aval(x.shape, C64) for x in operands], [(cls(), range(arity))]), operands)
    for x, y in ((got.real, want.real), (got.imag, want.imag)):
        same = (x.view(np.uint32) == y.view(np.uint32)) if x.flags.c_contiguous else x == y
        same = same | (np.isnan(x) & np.isnan(y)) | ((x == y) & (np.signbit(x) == np.signbit(y)))
        assert same.all(), [z[~same][:3] for z in (*operands, got, want)]


def test_quotients_are_those_of_numpy_and_products_round_four_times() -> None:
    x, y = numbers((1001,)), numbers((1001,), seed=1)
    (product, _), (quotient, _) = both(
        graph_of([Aval((1001,), C64)] * 2, [(ew.Mul(), (0, 1)), (ew.Div(), (0, 1))]), [x, y]
    )
    np.testing.assert_array_equal(quotient, x / y)
    np.testing.assert_array_equal(product.real, x.real * y.real - x.imag * y.imag)
    np.testing.assert_array_equal(product.imag, x.real * y.imag + x.imag * y.real)


@pytest.mark.parametrize("cls", [ew.Eq, ew.Ne, ew.Lt, ew.Le, ew.Gt, ew.Ge], ids=lambda c: c.__name__)
def test_comparisons(cls: type[Primitive]) -> None:
    operands = edges()
    ((got, want),) = both(graph_of([Aval(x.shape, C64) for x in operands], [(cls(), (0, 1))]), operands)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_conversions(dtype: dtypes.Dtype) -> None:
    z = edges()[0][:144:7]
    ((got, want),) = both(graph_of([Aval(z.shape, C64)], [(ew.ConvertElementType(dtype), (0,))]), [z])
    np.testing.assert_array_equal(got.astype(want.dtype), want)
    x = np.asarray(np.arange(-4 if dtype.is_signed else 0, 9)).astype(dtype.numpy)
    ((got, want),) = both(graph_of([Aval(x.shape, dtype)], [(ew.ConvertElementType(C64), (0,))]), [x])
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [dtypes.int64, dtypes.uint64, dtypes.float64], ids=str)
def test_bits(dtype: dtypes.Dtype) -> None:
    z = numbers((33,))
    steps: Steps = [(ew.Bitcast(dtype), (0,)), (ew.Bitcast(C64), (1,))]
    (bits, _), (again, _) = both(graph_of([Aval((33,), C64)], steps), [z])
    assert bits.tobytes() == again.tobytes() == z.tobytes()


# -- functions ---------------------------------------------------------------------------------------------

PARTS = [0.0, -0.0, 1e-30, -1e-9, 1e-4, 0.3, -0.5, 1.0, -1.0, 1.0000001, 1.5, -2.0, 3.0, -7.5, 20.0, -88.0]
FUNCTIONS: dict[type[Primitive], Callable[[np.ndarray], np.ndarray]] = {
    ew.Exp: np.exp, ew.Expm1: np.expm1, ew.Log: np.log, ew.Log1p: np.log1p, ew.Log2: np.log2,
    ew.Log10: np.log10, ew.Sqrt: np.sqrt, ew.Rsqrt: lambda z: 1 / np.sqrt(z), ew.Sin: np.sin, ew.Cos: np.cos,
    ew.Tan: np.tan, ew.Asin: np.arcsin, ew.Acos: np.arccos, ew.Atan: np.arctan, ew.Sinh: np.sinh,
    ew.Cosh: np.cosh, ew.Tanh: np.tanh, ew.Asinh: np.arcsinh, ew.Acosh: np.arccosh, ew.Atanh: np.arctanh,
    ew.Sigmoid: lambda z: 1 / (1 + np.exp(-z)),
}  # fmt: skip


@pytest.mark.parametrize("cls", FUNCTIONS, ids=lambda c: c.__name__)
def test_functions_round_once(cls: type[Primitive]) -> None:
    """Each part within one unit in the last place of complex128, on branch cuts too."""
    z = np.array([complex(a, b) for a, b in itertools.product(PARTS, repeat=2)], np.complex64)
    z = np.concatenate([z, numbers((1000,)), numbers((1000,), seed=1) * np.float32(9)])
    ((got, _),) = both(graph_of([Aval(z.shape, C64)], [(cls(), (0,))]), [z])
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[cls](z.astype(np.complex128))
        for x, y in ((got.real, exact.real), (got.imag, exact.imag)):
            ulp = np.maximum(np.spacing(np.abs(y).astype(np.float32)), np.float32(2.0**-149))
            slack = 1e-15 * np.abs(exact)
            if cls is ew.Log1p:  # NumPy adds 1 in float64, and what is below 1e-16 is lost
                slack = slack + 1e-15
            wrong = ~(np.abs(x - y) <= ulp + slack)
            wrong &= np.isfinite(y) & (np.abs(y) < 3e38) & np.isfinite(exact.real + exact.imag)
            assert not wrong.any(), [a[wrong][:4] for a in (z, got, exact)]
            signs = (y == 0) & (x == 0) & (np.signbit(x) != np.signbit(y))
            if cls in (ew.Sqrt, ew.Log, ew.Asin, ew.Acos, ew.Atan, ew.Asinh, ew.Acosh, ew.Atanh):
                assert not signs.any(), [a[signs][:4] for a in (z, got, exact)]


def test_powers() -> None:
    x, y = numbers((500,)), numbers((500,), seed=1) * np.float32(3)
    fixed = (0, 1, 2, -1, 0.5, 2 - 1j)
    steps: Steps = [(ew.Pow(), (0, 1)), *((ew.Pow(), (0, Literal(n, C64))) for n in fixed)]
    found = both(graph_of([Aval((500,), C64)] * 2, steps), [x, y])
    for (got, _), n in zip(found, [y, *fixed], strict=True):
        want = x.astype(np.complex128) ** n
        assert np.max(np.abs(got - want) / np.abs(want)) < 1e-6
    operands = [np.zeros(3, np.complex64), np.array([0, 2, -1], np.complex64)]
    ((got, want),) = both(graph_of([Aval((3,), C64)] * 2, [(ew.Pow(), (0, 1))]), operands)
    np.testing.assert_array_equal(got, want)


def test_infinite_parts() -> None:
    parts = [(-np.inf, 1), (np.inf, 0), (np.inf, -0.0), (-np.inf, 0)]
    z = np.array([complex(*part) for part in parts], np.complex64)
    steps: Steps = [(ew.Exp(), (0,)), (ew.Sqrt(), (0,)), (ew.Log(), (0,))]
    for got, want in both(graph_of([Aval(z.shape, C64)], steps), [z]):
        np.testing.assert_array_equal(got, want)


# -- everything else ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2), ()], ids=str)
def test_reductions(axes: tuple[int, ...]) -> None:
    inputs = [Aval((N, 3, M), C64)]
    sizes = [{"N": 5, "M": 33}, {"N": 1, "M": 1}, {"N": 0, "M": 4}, {"N": 2, "M": 700}]
    check(graph_of(inputs, [(rd.ReduceSum(axes, False), (0,))]), *sizes, tolerance=1e-6)
    product: Steps = [(ew.Mul(), (0, Literal(0.8, C64))), (rd.ReduceProd(axes, True), (1,))]
    check(graph_of(inputs, product), *sizes[:3], tolerance=2e-5)


def test_rows_with_reductions_in_between() -> None:
    rows = rd.ReduceSum((1,), True)
    total: Steps = [
        (rows, (0,)), (ew.Sub(), (0, 1)), (ew.Mul(), (2, 2)), (rows, (3,)), (ew.Div(), (2, 4))
    ]  # fmt: skip
    check(graph_of([Aval((N, 40), C64)], total), {"N": 7}, {"N": 0}, tolerance=2e-5)
    column: Steps = [(rd.ReduceSum((0,), False), (0,)), (ew.Add(), (0, 1))]
    check(graph_of([Aval((N, 5), C64)], column), {"N": 9}, {"N": 0}, tolerance=1e-6)


def test_movement() -> None:
    b = GraphBuilder("movement", [Aval((N, 6), C64)])
    (turned,) = b.add(sh.Transpose((1, 0)), [0])
    (update,) = b.add(sh.Slice((0, 0), (N, 3), (1, 1)), [0])
    (mask,) = b.add(ew.Lt(), [0, Literal(0.25, C64)])
    steps: Steps = [
        (sh.Reshape((N * 6,)), (turned,)),
        (sh.Slice((1, 5), (N, -1), (1, -2)), (0,)),
        (sh.Concatenate(0), (0, 0)),
        (sh.Pad((1, 0), (0, 2)), (0, Literal(2 - 1j, C64))),
        (sh.Reverse((0, 1)), (0,)),
        (sh.SliceUpdate((0, 1), (1, 2)), (0, update)),
        (sh.BroadcastTo((2, N, 6)), (0,)),
        (sh.Iota((4, 3), 0, C64), ()),
        (sh.DimValue(N, C64), ()),
        (ew.Select(), (mask, 0, Literal(1j, C64))),
        (sh.OptimizationBarrier(), (0,)),
    ]
    results = [b.add(primitive, operands)[0] for primitive, operands in steps]
    check(b.finish([turned, update, *results]), {"N": 1}, {"N": 2}, {"N": 17})


@pytest.mark.parametrize("mode", ["set", "add", "mul", "min", "max"])
def test_scatter_and_gather(mode: str) -> None:
    inputs = [Aval((3, N), C64), Aval((7, N), C64), Aval((7,), I32)]
    steps: Steps = [(ix.Scatter(mode, (0,), 0), (0, 1, 2)), (ix.Gather((0,), 0), (3, 2)), (ew.Mul(), (4, 4))]
    check(graph_of(inputs, steps), {"N": 1}, {"N": 33}, tolerance=0.0 if mode in ("set", "add") else 1e-6)


def test_windows_at_data_positions() -> None:
    inputs = [Aval((N, 9), C64), Aval((1,), I32)]
    steps: Steps = [
        (ix.DynamicSlice((1,), (N, 4)), (0, 1)),
        (ew.Neg(), (2,)),
        (ix.DynamicUpdate((1,)), (0, 3, 1)),
    ]
    check(graph_of(inputs, steps), {"N": 1}, {"N": 5})


@pytest.mark.parametrize(
    "contract, batch", [(((1,), (0,)), ((), ())), (((1,), (1,)), ((0,), (0,))), (((), ()), ((), ()))], ids=str
)
def test_contractions(contract: ct.AxisPair, batch: ct.AxisPair) -> None:
    shapes = [(N, 9), (9, M)] if not batch[0] else [(N, 9, 3), (N, 9, 4)]
    shapes = shapes if contract[0] else [(N,), (M, 2)]
    graph = graph_of(
        [Aval(s, C64) for s in shapes], [(ct.DotGeneral(contract, batch), (0, 1)), (ew.Neg(), (2,))]
    )
    check(graph, *({s.name: n for s in graph.dims} for n in (0, 1, 18)), tolerance=1e-6)


def test_loops_and_branches() -> None:
    def f(z: array, n: array) -> list[array]:
        def body(s: tuple[array, array]) -> tuple[array, array]:
            return s[0] + 1, s[1] * s[1] + z

        count, w = mx.while_loop(lambda s: s[0] < n, body, (mx.array(0), z))
        return [w, mx.cond(n > 2, lambda w: mx.exp(w), lambda w: w * 1j, w), count]

    graph = trace(f, [Aval((N,), C64), Aval((), I32)], name="f").graph
    for n in range(5):
        z = numbers((6,)) * np.float32(0.2)
        for got, want in both(graph, [z, np.array(n, np.int32)], N=6):
            np.testing.assert_allclose(got, want, rtol=1e-5)


def test_compiled_functions_take_and_give_complex_arrays() -> None:
    @mx.compile
    def f(x: array, y: array) -> array:
        return mx.exp(x @ y.T * 0.1).sum(axis=0)

    x, y = numbers((4, 5)), numbers((3, 5), seed=1)
    want = np.exp(x.astype(np.complex128) @ y.T * 0.1).sum(0)
    np.testing.assert_allclose(np.array(f(mx.array(x), mx.array(y))), want, rtol=1e-5)
