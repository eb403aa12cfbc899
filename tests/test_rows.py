"""Row kernels: what is one kernel with memory for one row, at all sizes and dtypes; against float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import ingot as mx
from ingot.lowering import pipeline
from ingot.lowering.llvm.target import current, named
from ingot.runtime.executable import Executable, executable
from ingot.runtime.interpreter import InterpretedGraph
from ingot.tracer import dims
from ingot.tracer.array import leaf
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.graph import Graph
from ingot.tracer.trace import trace

B, N = Dim("B"), Dim("N")
SIZES = (0, 1, 2, 3, 7, 15, 16, 17, 31, 61, 64, 100, 257, 1000)


def row(reduce: Callable, x: Any) -> Any:
    return reduce(x, axis=-1, keepdims=True)


def softmax(x: Any) -> Any:
    e = mx.exp(x - row(mx.max, x))
    return e / row(mx.sum, e)


def log_softmax(x: Any) -> Any:
    d = x - row(mx.max, x)
    return d - mx.log(row(mx.sum, mx.exp(d)))


def layer_norm(x: Any, residual: Any, weight: Any, bias: Any) -> Any:
    h = x + residual
    d = h - row(mx.sum, h) / h.shape[-1]
    return d * mx.rsqrt(row(mx.sum, d * d) / h.shape[-1] + 1e-5) * weight + bias


def rms_norm(x: Any, weight: Any) -> Any:
    return x * mx.rsqrt(row(mx.mean, mx.square(x)) + 1e-5) * weight


def cross_entropy(x: Any, labels: Any) -> Any:
    top = row(mx.max, x)
    total = mx.log(row(mx.sum, mx.exp(x - top))) + top
    return (total - mx.take_along_axis(x, labels[:, None], axis=-1))[:, 0]


def logsumexp(x: Any) -> Any:
    top = mx.max(x, axis=-1)
    return mx.log(mx.sum(mx.exp(x - top[:, None]), axis=-1)) + top


def l2_normalise(x: Any) -> Any:
    return x / mx.maximum(mx.sqrt(row(mx.sum, x * x)), 1e-12)


def standardise(x: Any) -> Any:
    d = x - row(mx.mean, x)
    return d / mx.sqrt(row(mx.mean, d * d) + 1e-6)


def classify(x: Any) -> Any:
    """Probabilities, the best class, and the entropy."""
    e = mx.exp(x - row(mx.max, x))
    p = e / row(mx.sum, e)
    return p, mx.argmax(x, axis=-1), -mx.sum(p * mx.log(p + 1e-9), axis=-1)


def entropy(x: Any) -> Any:
    """No output has room for the exponentials, nor for the probabilities."""
    p = softmax(x)
    return -mx.sum(p * mx.log(p + 1e-9), axis=-1)


def softmax_gradient(x: Any, cotangent: Any) -> Any:
    y = softmax(x)
    return y * (cotangent - row(mx.sum, y * cotangent))


def sharpened(x: Any) -> Any:
    """A softmax of a softmax: two values that only later stages read."""
    return softmax(3.0 * mx.sqrt(softmax(x)))


def range_scaled(x: Any) -> Any:
    low, high = row(mx.min, x), row(mx.max, x)
    return (mx.tanh(x) - mx.tanh(low)) / (high - low + 1.0)


MATRIX, VECTOR, LABELS = Aval((B, N), mx.float32), Aval((N,), mx.float32), Aval((B,), mx.int32)
COMPOSITIONS: dict[str, tuple[Callable, tuple[Aval, ...]]] = {
    "softmax": (softmax, (MATRIX,)),
    "log_softmax": (log_softmax, (MATRIX,)),
    "layer_norm": (layer_norm, (MATRIX, MATRIX, VECTOR, VECTOR)),
    "rms_norm": (rms_norm, (MATRIX, VECTOR)),
    "cross_entropy": (cross_entropy, (MATRIX, LABELS)),
    "logsumexp": (logsumexp, (MATRIX,)),
    "l2_normalise": (l2_normalise, (MATRIX,)),
    "standardise": (standardise, (MATRIX,)),
    "classify": (classify, (MATRIX,)),
    "entropy": (entropy, (MATRIX,)),
    "softmax_gradient": (softmax_gradient, (MATRIX, MATRIX)),
    "sharpened": (sharpened, (MATRIX,)),
    "range_scaled": (range_scaled, (MATRIX,)),
}


def traced(fun: Callable, avals: Sequence[Aval]) -> Graph:
    def listed(*arrays: Any) -> list[Any]:
        found = fun(*arrays)
        return list(found) if isinstance(found, tuple) else [found]

    return trace(listed, list(avals)).graph


def made(fun: Callable, avals: Sequence[Aval]) -> Executable:
    return executable(traced(fun, avals))


def call(program: Executable, *arrays: np.ndarray) -> list[np.ndarray]:
    inputs = zip(arrays, program.program.inputs, strict=True)
    return [v.view for v in program([leaf(x, aval=Aval(x.shape, a.dtype)) for x, a in inputs])]  # type: ignore[misc]


def filled(avals: Sequence[Aval], env: dict[str, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for aval in avals:
        shape = tuple(dims.evaluate(n, env) for n in aval.shape)
        if aval.dtype.is_floating:
            found.append(rng.normal(size=shape).astype(aval.dtype.numpy))
        else:
            found.append(rng.integers(0, max(env["N"], 1), size=shape).astype(aval.dtype.numpy))
    return found


def reference(fun: Callable, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The same function, evaluated in float64 by the interpreter."""
    wide = [x.astype(np.float64) if x.dtype.kind == "f" or x.dtype.itemsize == 2 else x for x in arrays]
    graph = traced(fun, [Aval(x.shape, mx.array(x).dtype) for x in wide])
    return [v.view for v in InterpretedGraph(graph)([leaf(x) for x in wide])]  # type: ignore[misc]


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_one_kernel_with_memory_for_a_row(name: str) -> None:
    fun, avals = COMPOSITIONS[name]
    program = pipeline.lower(traced(fun, avals), current())
    (kernel,) = program.kernels
    assert not program.slots and not program.hosts
    assert kernel.parallel is not None and dims.same(kernel.parallel, B)
    a_row = dims.evaluate(kernel.scratch, {"B": 1 << 20, "N": 1000})
    assert a_row <= 2 * 4096 and a_row == dims.evaluate(kernel.scratch, {"B": 1, "N": 1000})


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_rows_of_all_lengths(name: str) -> None:
    fun, avals = COMPOSITIONS[name]
    program = made(fun, avals)
    for n in SIZES:
        for rows in (0, 1, 5):
            if n == 0 and name not in ("standardise", "rms_norm", "layer_norm", "l2_normalise"):
                continue  # maxima of nothing, labels out of range
            if rows == 0 and name == "classify":
                continue  # the interpreter refuses positions in empty arrays
            arrays = filled(avals, {"B": rows, "N": n}, seed=n)
            for got, want in zip(call(program, *arrays), reference(fun, arrays), strict=True):
                assert got.shape == want.shape
                np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float64], ids=str)
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_rows_of_other_floats(name: str, dtype: Any) -> None:
    fun, avals = COMPOSITIONS[name]
    avals = tuple(Aval(a.shape, dtype if a.dtype.is_floating else a.dtype) for a in avals)
    program = made(fun, avals)
    assert len(program.program.kernels) == 1 and not program.program.slots
    for n in (1, 16, 61):
        arrays = filled(avals, {"B": 3, "N": n}, seed=n)
        tolerance = {mx.float16: 2e-2, mx.bfloat16: 0.15, mx.float64: 1e-10}[dtype]
        for got, want in zip(call(program, *arrays), reference(fun, arrays), strict=True):
            if got.dtype.kind == "u":  # the position of the largest
                np.testing.assert_array_equal(got, want)
            else:
                np.testing.assert_allclose(
                    got.astype(np.float64), want.astype(np.float64), rtol=tolerance, atol=tolerance
                )


def test_a_wide_value_lies_in_scratch_when_the_output_is_narrow() -> None:
    def precise(x: Any) -> Any:
        return softmax(x.astype(mx.float32)).astype(mx.float16)

    avals = [Aval((B, N), mx.float16)]
    program = made(precise, avals)
    (kernel,) = program.program.kernels
    assert not program.program.slots and dims.evaluate(kernel.scratch, {"B": 9, "N": 1000}) == 4032
    for n in (1, 15, 100):
        (x,) = filled(avals, {"B": 4, "N": n})
        np.testing.assert_allclose(call(program, x)[0], reference(precise, [x])[0], rtol=1e-3)


def test_complex_rows() -> None:
    """A complex value in an output of its dtype, and in scratch."""

    def ratios(x: Any) -> Any:
        e = mx.exp(x)
        return e / mx.sum(e, axis=-1, keepdims=True)

    def squares(x: Any) -> Any:
        p = ratios(x)
        return mx.sum(p * p, axis=-1)

    rng = np.random.default_rng(0)
    for fun, size in ((ratios, 0), (squares, 8 * 104)):
        program = made(fun, [Aval((B, N), mx.complex64)])
        (kernel,) = program.program.kernels
        assert not program.program.slots and dims.evaluate(kernel.scratch, {"B": 9, "N": 100}) == size
        for n in (1, 5, 33):
            x = (rng.normal(size=(3, n)) + 1j * rng.normal(size=(3, n))).astype(np.complex64)
            e = np.exp(x.astype(np.complex128))
            want = e / e.sum(-1, keepdims=True)
            want = want if fun is ratios else (want * want).sum(-1)
            np.testing.assert_allclose(call(program, x)[0], want, rtol=1e-5)


def test_a_value_that_another_output_replaces() -> None:
    """Two outputs and two inner values of one dtype: none may be overwritten while it is read."""

    def both(x: Any) -> Any:
        e = mx.exp(x - row(mx.max, x))
        p = e / row(mx.sum, e)
        t = mx.tanh(p) * e
        return p + t / row(mx.sum, t), t

    program = made(both, [MATRIX])
    for n in (1, 33, 100):
        (x,) = filled([MATRIX], {"B": 3, "N": n})
        for got, want in zip(call(program, x), reference(both, [x]), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5)


@pytest.mark.parametrize("extent", [1, 5])
def test_reduced_axes_of_extent_one(extent: int) -> None:
    """Without a loop over the row, what a later stage reads is still read after it was written."""
    avals = [Aval((extent, 1), mx.float32)]
    (x,) = filled(avals, {"N": 1})
    np.testing.assert_array_equal(call(made(softmax, avals), x)[0], np.ones((extent, 1), np.float32))


@pytest.mark.parametrize("find", [mx.argmax, mx.argmin])
def test_positions_in_nothing_are_an_error(find: Callable) -> None:
    """As in NumPy: a row without elements has no largest one, also when there are no rows."""
    along = made(lambda x: find(x, axis=-1), [MATRIX])
    assert call(along, np.zeros((0, 5), np.float32))[0].shape == (0,)
    flat = made(lambda x: find(x), [MATRIX])
    looped = made(lambda x: mx.fori_loop(0, 2, lambda i, a: a + find(a), x), [VECTOR])
    for program, shape in ((along, (5, 0)), (along, (0, 0)), (flat, (0, 5)), (flat, (5, 0)), (looped, (0,))):
        with pytest.raises(ValueError, match=">= 1 does not hold"):
            call(program, np.zeros(shape, np.float32))
    compiled = mx.compile(lambda x: find(x, axis=-1), shapeless=True)
    assert compiled(mx.array([[1.0, 2.0]])).shape == (1,)
    with pytest.raises(ValueError):
        compiled(mx.zeros((3, 0)))


# -- quotients ----------------------------------------------------------------------------------------


def scaled(x: Any, by: Any) -> Any:
    """Row quotients: the divisor is the largest of each row of `by`."""
    return x / row(mx.max, by)


SPECIAL = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1e-39, 1.1754944e-38, 7e-31, 8e-31, 1.2e30, 1.3e30, 3.4e38, np.inf, -np.inf,
     np.nan, 1.0, -1.0, 3.0, 1 / 3, 16777215.0, 16777216.0, 33554432.0, 5.9604645e-08, 2.9e-8, 0.99999994],
    np.float32,
)  # fmt: skip


@pytest.mark.parametrize("target", ["host", "x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_quotients_are_divisions(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Bit for bit, also where multiplication by the reciprocal would underflow or overflow."""
    if not named("host").is_x86 or named(target).bits > named("host").bits:
        pytest.skip("this processor does not run it")
    monkeypatch.setenv("INGOT_TARGET", target)
    program = made(scaled, [Aval((B, N), mx.float32), Aval((B, 3), mx.float32)])
    rng = np.random.default_rng(0)
    magnitudes = rng.uniform(-45, 38, 2000)
    wide = (rng.choice([-1, 1], 2000) * 10.0**magnitudes).astype(np.float32)
    usual = rng.uniform(0, 1, 2000).astype(np.float32)
    whole = rng.integers(1, 1 << 24, 60).astype(np.float32)
    divisors = np.concatenate([SPECIAL, usual[:20], wide[:20], whole])
    for elements in (SPECIAL, usual, wide, np.concatenate([usual[:100], SPECIAL])):
        x = np.tile(elements, (len(divisors), 1))
        by = np.tile(divisors[:, None], (1, 3))
        with np.errstate(all="ignore"):
            want = x / divisors[:, None]
        (got,) = call(program, x, by)
        same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
        assert same.all(), (x[~same][:5], np.broadcast_to(divisors[:, None], x.shape)[~same][:5])


def test_the_hardest_quotients() -> None:
    """a / b next to the middle of two neighbours, for odd b: a 2**k = M b + d with M odd and d small."""
    program = made(scaled, [Aval((B, N), mx.float32), Aval((B, 1), mx.float32)])
    rng = np.random.default_rng(1)
    tried = 0
    for b in rng.integers(1 << 22, 1 << 23, 300) * 2 + 1:
        found = []
        for k in (24, 25):
            inverse = pow(int(b), -1, 1 << k)
            for d in range(-8, 9):
                m = (-d * inverse) % (1 << k)
                for M in (m, m + (1 << k)):
                    a = (M * int(b) + d) >> k
                    if d and M % 2 and (1 << 24) <= M < (1 << 25) and (1 << 23) <= a < (1 << 24):
                        found.append(a)
        x = np.array([found], np.float32)
        tried += len(found)
        (got,) = call(program, x, np.array([[b]], np.float32))
        np.testing.assert_array_equal(got, x / np.float32(b))
    assert tried > 1000
