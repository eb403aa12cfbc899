"""Reductions of everything: in pieces, the same on any number of threads; against float64."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingot as mx
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim

sys.path.insert(0, str(Path(__file__).parent))
from traced_programs import call, made  # noqa: E402

B, C = Dim("B"), Dim("C")
SIZES = (1, 2, 15, 16, 17, 65535, 65536, 65537, 131072, 300_007)


def statistics(x: Any) -> Any:
    return mx.sum(x), mx.mean(x), mx.var(x), mx.max(x), mx.argmin(x), mx.logsumexp(x)


def expected(x: np.ndarray) -> tuple[Any, ...]:
    w = x.astype(np.float64)
    return w.sum(), w.mean(), w.var(), w.max(), w.argmin(), np.log(np.exp(w - w.max()).sum()) + w.max()


def test_large_ones_run_in_pieces() -> None:
    """Small ones of known size are one kernel; large ones have a parallel loop, whatever their rank."""
    shapes: tuple[tuple[Any, ...], ...] = ((1000,), (64, 64), (1 << 20,), (512, 512), (B,), (B, 8))
    for shape, kernels in zip(shapes, (1, 1, 2, 2, 2, 2), strict=True):
        program = made(mx.sum, Aval(shape, mx.float32)).program
        assert len(program.kernels) == kernels
        assert (program.kernels[0].parallel is not None) == (kernels == 2)


@pytest.mark.parametrize("size", SIZES)
def test_statistics(size: int) -> None:
    x = np.random.default_rng(size).normal(size=size).astype(np.float32)
    for aval in (Aval((B,), mx.float32), Aval((size,), mx.float32)):
        for got, want in zip(call(made(statistics, aval), x), expected(x), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-4)


def test_nothing() -> None:
    total, product, mean = call(
        made(lambda x: (mx.sum(x), mx.prod(x), mx.mean(x)), Aval((B,), mx.float32)), np.zeros(0, np.float32)
    )
    assert total == 0 and product == 1 and np.isnan(mean)


@pytest.mark.parametrize("shape", [(1, 1), (3, 70_000), (70_000, 3), (601, 401)])
def test_softmax_of_everything(shape: tuple[int, int]) -> None:
    """Three stages with stores of the whole array in pieces, and broadcasts along either axis."""

    def softmax(x: Any, rows: Any, columns: Any) -> Any:
        y = x * rows[:, None] + columns
        e = mx.exp(y - mx.max(y))
        return e / mx.sum(e), mx.sum(y)

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype(np.float32) for s in (shape, shape[:1], shape[1:])]
    program = made(softmax, Aval((B, C), mx.float32), Aval((B,), mx.float32), Aval((C,), mx.float32))
    x, rows, columns = (a.astype(np.float64) for a in arrays)
    y = x * rows[:, None] + columns
    e = np.exp(y - y.max())
    got, total = call(program, *arrays)
    np.testing.assert_allclose(got, e / e.sum(), rtol=2e-5)
    np.testing.assert_allclose(total, y.sum(), rtol=1e-5, atol=1e-2)


DTYPES = (mx.float16, mx.bfloat16, mx.float64, mx.int32, mx.uint8, mx.bool_)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_other_dtypes(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    x = (rng.uniform(size=200_003) < 0.2).astype(dtype.numpy)
    x[150_000] = 1 if dtype is mx.bool_ else 3
    functions = (mx.sum, mx.max, mx.argmax, mx.any, mx.all)
    program = made(lambda a: tuple(f(a) for f in functions), Aval((B,), dtype))
    w = x.astype(np.float64)
    wanted = (w.sum(), w.max(), w.argmax(), True, False)
    for got, want in zip(call(program, x), wanted, strict=True):
        np.testing.assert_allclose(got.astype(np.float64), want, rtol=2.0**-7)


def test_checked_indices() -> None:
    """What can fail stands within the pieces, also a divisor of all elements."""
    program = made(
        lambda x, t, i: (mx.sum(x / t[i]), mx.max(x / t[i] + t[i + 1])),
        Aval((B,), mx.float32), Aval((3,), mx.float32), Aval((1,), mx.int32),
    )  # fmt: skip
    x = np.random.default_rng(5).uniform(1, 2, 200_001).astype(np.float32)
    table = np.array([1, 3, 7], np.float32)
    total, top = call(program, x, table, np.array([1], np.int32))
    np.testing.assert_allclose(total, x.sum(dtype=np.float64) / 3, rtol=1e-6)
    np.testing.assert_allclose(top, x.max() / np.float32(3) + 7, rtol=1e-6)
    with pytest.raises(IndexError):
        call(program, x, table, np.array([2], np.int32))


def test_complex() -> None:
    rng = np.random.default_rng(2)
    z = np.exp(1j * rng.uniform(0, 7, 150_001)).astype(np.complex64)
    total, product = call(made(lambda x: (mx.sum(x), mx.prod(x)), Aval((B,), mx.complex64)), z)
    np.testing.assert_allclose(total, z.sum(dtype=np.complex128), rtol=1e-5)
    np.testing.assert_allclose(product, z.astype(np.complex128).prod(), rtol=1e-2)


def test_nan_and_infinity() -> None:
    program = made(lambda x: (mx.sum(x), mx.max(x), mx.argmax(x)), Aval((B,), mx.float32))
    x = np.ones(200_000, np.float32)
    x[70_000] = np.inf
    total, top, at = call(program, x)
    assert total == np.inf and top == np.inf and at == 70_000
    x[150_000] = x[190_000] = np.nan
    total, top, at = call(program, x)
    assert np.isnan(total) and np.isnan(top) and at == 150_000


def test_precision_of_a_long_sum() -> None:
    x = np.full(1 << 24, 0.1, np.float32)
    (total,) = call(made(mx.sum, Aval((B,), mx.float32)), x)
    np.testing.assert_allclose(total, x.sum(dtype=np.float64), rtol=1e-6)


def test_the_first_of_equals_wins_across_pieces() -> None:
    x = np.zeros(400_000, np.float32)
    x[[99_999, 250_000, 399_999]] = 5
    program = made(lambda a: (mx.argmax(a), mx.argmin(a)), Aval((B,), mx.float32))
    assert [int(v) for v in call(program, x)] == [99_999, 0]


def test_bits_do_not_depend_on_threads() -> None:
    x = np.random.default_rng(3).normal(size=1_000_003).astype(np.float32)
    program = made(statistics, Aval((B,), mx.float32))
    found = []
    before = mx.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            mx.set_num_threads(threads)
            found.append([v.tobytes() for v in call(program, x)])
    finally:
        mx.set_num_threads(before)
    assert all(f == found[0] for f in found)


def test_in_a_loop() -> None:
    """Buffers that the kernels share belong to each graph of a program."""

    def halved(x: Any) -> Any:
        return mx.fori_loop(0, 3, lambda i, a: a / mx.sum(mx.abs(a)) + mx.max(a), x) * mx.sum(x)

    x = np.random.default_rng(4).normal(size=140_000).astype(np.float32)
    (got,) = call(made(halved, Aval((B,), mx.float32)), x)
    want = x.astype(np.float64)
    for _ in range(3):
        want = want / np.abs(want).sum() + want.max()
    np.testing.assert_allclose(got, want * x.sum(dtype=np.float64), rtol=1e-4)
