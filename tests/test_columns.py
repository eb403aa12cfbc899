"""Reductions along other axes than the last: one kernel, one pass, at all sizes and dtypes; against NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingot as mx
from ingot.lowering.llvm.target import named
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim

sys.path.insert(0, str(Path(__file__).parent))
from traced_programs import call, made  # noqa: E402

A, B, C, D = Dim("A"), Dim("B"), Dim("C"), Dim("D")
HEIGHTS = (1, 2, 7, 8, 9, 15, 16, 17, 61, 1003)
WIDTHS = (1, 3, 15, 16, 17, 33, 64, 1031)


def mean_variance(axis: Any) -> Callable:
    return lambda x: (mx.mean(x, axis=axis), mx.var(x, axis=axis))


def test_mean_and_variance_take_one_pass() -> None:
    for shape in ((B, C), (4096, 2048)):
        program = made(mean_variance(0), Aval(shape, mx.float32)).program
        (kernel,) = program.kernels
        assert not program.slots
        assert kernel.text.count("for k in") == 1, kernel.text
        assert kernel.text.count("total") and kernel.text.count("distance") >= 1


def test_few_columns_run_in_pieces() -> None:
    """Rows are cut where columns are too few to run in parallel, and the join is another kernel."""
    shapes = (((B, 8), 2), ((1_000_000, 64), 2), ((4096, 8), 1), ((B, 4096), 1), ((B, C), 1))
    for shape, kernels in shapes:
        program = made(mean_variance(0), Aval(shape, mx.float32)).program
        assert len(program.kernels) == kernels
        assert (program.kernels[0].parallel is None) == (shape == (4096, 8))


def several(x: Any) -> Any:
    sums = mx.mean(x, axis=0), mx.var(x, axis=0)
    return *sums, mx.max(x, axis=0), mx.argmin(x, axis=0), mx.all(x > 2, axis=0)


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 8192, 8193, 30_011, 200_003])
def test_pieces_of_rows(rows: int) -> None:
    rng = np.random.default_rng(rows)
    for columns in (1, 5, 16, 33):
        x = rng.normal(size=(rows, columns)).astype(np.float32) + 3
        wide = x.astype(np.float64)
        if rows == 0:
            functions: Callable = lambda a: (mx.sum(a, axis=0), mx.prod(a, axis=0))  # noqa: E731
            want: tuple = (np.zeros(columns), np.ones(columns))
        else:
            functions = several
            want = (wide.mean(0), wide.var(0), x.max(0), x.argmin(0), (x > 2).all(0))
        program = made(functions, Aval((B, columns), mx.float32))
        for got, expected in zip(call(program, x), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_pieces_join_the_same_with_any_number_of_threads() -> None:
    x = np.random.default_rng(0).normal(size=(300_000, 7)).astype(np.float32)
    program = made(several, Aval((B, 7), mx.float32))
    before, found = mx.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            mx.set_num_threads(threads)
            found.append([v.tobytes() for v in call(program, x)])
    finally:
        mx.set_num_threads(before)
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize("target", ["host", "x86-64-v2", "x86-64-v3"])
def test_columns_of_all_sizes(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    if not named("host").is_x86 or named(target).bits > named("host").bits:
        pytest.skip("this processor does not run it")
    monkeypatch.setenv("INGOT_TARGET", target)

    def several(x: Any) -> Any:
        d = x - 1.0
        return (
            mx.sum(d * d, axis=0), mx.max(x, axis=0), mx.prod(x, axis=0), mx.argmin(x, axis=0),
            mx.mean(x, axis=0), mx.var(x, axis=0, ddof=1),
        )  # fmt: skip

    program = made(several, Aval((B, C), mx.float32))
    rng = np.random.default_rng(0)
    for height in HEIGHTS:
        for width in WIDTHS:
            x = rng.normal(size=(height, width)).astype(np.float32)
            wide = x.astype(np.float64)
            with np.errstate(all="ignore"):
                variance = ((wide - wide.mean(0)) ** 2).sum(0) / max(height - 1, 0)
            squares, top, product, least, mean, var = call(program, x)
            np.testing.assert_allclose(squares, ((wide - 1) ** 2).sum(0), rtol=1e-6)
            np.testing.assert_array_equal(top, x.max(0))
            np.testing.assert_allclose(product, wide.prod(0), rtol=1e-4, atol=1e-40)
            np.testing.assert_array_equal(least, x.argmin(0))
            np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-6, atol=1e-7)
            if height > 1:
                np.testing.assert_allclose(var, variance, rtol=2e-6)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_empty(shape: tuple[int, int]) -> None:
    program = made(lambda x: (mx.sum(x, axis=0), mx.mean(x, axis=0)), Aval((B, C), mx.float32))
    total, mean = call(program, np.zeros(shape, np.float32))
    np.testing.assert_array_equal(total, np.zeros(shape[1]))
    np.testing.assert_array_equal(mean, np.full(shape[1], np.nan if shape[0] == 0 else 0.0))


@pytest.mark.parametrize(
    "axes", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2), (1, 3), (0, 2, 3), (0, 1, 3)], ids=str
)
def test_all_axes(axes: tuple[int, ...]) -> None:
    program = made(mean_variance(axes), Aval((A, B, C, D), mx.float32))
    assert len(program.program.kernels) == 1
    rng = np.random.default_rng(1)
    for shape in ((2, 3, 4, 5), (1, 1, 1, 1), (3, 17, 2, 40), (19, 2, 23, 1), (1, 70, 3, 33)):
        x = rng.normal(size=shape, loc=3.0).astype(np.float32)
        wide = x.astype(np.float64)
        mean, var = call(program, x)
        np.testing.assert_allclose(mean, wide.mean(axes), rtol=1e-6)
        np.testing.assert_allclose(var, wide.var(axes), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float64], ids=str)
def test_other_floats(dtype: Any) -> None:
    program = made(mean_variance(0), Aval((B, C), dtype))
    assert len(program.program.kernels) == 1
    rng = np.random.default_rng(2)
    for shape in ((1, 1), (17, 40), (300, 5)):
        x = rng.normal(size=shape).astype(dtype.numpy)
        wide = x.astype(np.float64)
        unit = {mx.float16: 2.0**-10, mx.bfloat16: 2.0**-7, mx.float64: 1e-14}[dtype]
        for got, want in zip(call(program, x), (wide.mean(0), wide.var(0)), strict=True):
            np.testing.assert_allclose(got.astype(np.float64), want, rtol=unit, atol=unit / 50)


def test_integers_and_booleans_and_complex() -> None:
    rng = np.random.default_rng(3)
    ints = rng.integers(-100, 100, (37, 50)).astype(np.int16)

    def functions(x: Any) -> Any:
        return mx.sum(x, axis=0), mx.max(x, axis=0), mx.argmax(x, axis=0)

    program = made(functions, Aval((B, C), mx.int16))
    for got, want in zip(call(program, ints), (ints.sum(0), ints.max(0), ints.argmax(0)), strict=True):
        np.testing.assert_array_equal(got, want)
    flags = rng.integers(0, 2, (37, 50)).astype(bool)
    program = made(lambda x: (mx.any(x, axis=0), mx.all(x, axis=0)), Aval((B, C), mx.bool_))
    for got, want in zip(call(program, flags), (flags.any(0), flags.all(0)), strict=True):
        np.testing.assert_array_equal(got, want)
    z = (rng.normal(size=(37, 50)) + 1j * rng.normal(size=(37, 50))).astype(np.complex64)
    program = made(lambda x: (mx.sum(x, axis=0), mx.prod(x[:20], axis=0)), Aval((37, C), mx.complex64))
    total, product = call(program, z)
    np.testing.assert_allclose(total, z.sum(0, dtype=np.complex128), rtol=1e-5)
    np.testing.assert_allclose(product, z[:20].astype(np.complex128).prod(0), rtol=1e-5)


def test_special_values_stay_in_their_columns() -> None:
    x = np.random.default_rng(4).normal(size=(100, 40)).astype(np.float32)
    x[50, 3], x[60, 7], x[70, 9], x[71, 9] = np.nan, np.inf, np.inf, -np.inf
    mean, var = call(made(mean_variance(0), Aval((B, C), mx.float32)), x)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=1e-5)


def test_variance_far_from_zero() -> None:
    """As good as two passes: no squares of the data itself, no cancellation."""
    rng = np.random.default_rng(5)
    x = (rng.normal(size=(4001, 33)) + 1e4).astype(np.float32)
    x[0] = 0  # and no distances from the first row
    mean, var = call(made(mean_variance(0), Aval((B, C), mx.float32)), x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-7)
    np.testing.assert_allclose(var, wide.var(0), rtol=1e-5)
    same = np.full((4096, 40), 123456.789, np.float32)
    mean, var = call(made(mean_variance(0), Aval((B, C), mx.float32)), same)
    np.testing.assert_allclose(mean, same[0], rtol=1e-7)
    np.testing.assert_allclose(var, np.zeros(40), atol=(123456.789 * 1e-7) ** 2)


def test_long_sums_keep_their_precision() -> None:
    x = np.full((1_000_003, 3), 0.1, np.float32)
    program = made(lambda x: mx.sum(x, axis=0), Aval((B, 3), mx.float32))
    np.testing.assert_allclose(call(program, x)[0], x.sum(0, dtype=np.float64), rtol=5e-7)


def test_a_mean_of_something_else_is_no_centre() -> None:
    """Sums of squares about the mean of other elements, or about a wrong mean, take two passes."""

    def other(x: Any, y: Any) -> Any:
        d = x - mx.sum(y, axis=0) / x.shape[0]
        return mx.sum(d * d, axis=0)

    def wrong(x: Any, y: Any) -> Any:
        d = x - mx.sum(x, axis=0) / 7.0
        return mx.sum(d * d, axis=0) + mx.sum(y, axis=0)

    rng = np.random.default_rng(6)
    x, y = (rng.normal(size=(50, 20)).astype(np.float32) for _ in range(2))
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    aval = Aval((50, 20), mx.float32)
    want = ((x64 - y64.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(call(made(other, aval, aval), x, y)[0], want, rtol=1e-5)
    want = ((x64 - x64.sum(0) / 7) ** 2).sum(0) + y64.sum(0)
    np.testing.assert_allclose(call(made(wrong, aval, aval), x, y)[0], want, rtol=1e-5)


@pytest.mark.parametrize("rows", [0, 3, 4096])
def test_no_columns(rows):
    x = mx.zeros((rows, 0))
    assert mx.compile(lambda x: mx.sum(x, axis=0))(x).shape == (0,)
    assert mx.compile(lambda x: mx.var(x + 1, axis=0))(x).shape == (0,)
