"""All pairs of points, reduced: one kernel, and nothing of the size of the pairs in memory."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ingot as mx
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim

sys.path.insert(0, str(Path(__file__).parent))
from traced_programs import call, made  # noqa: E402

M, N = Dim("M"), Dim("N")


def squared(x: Any, y: Any) -> Any:
    d = x[:, None, :] - y[None, :, :]
    return (d * d).sum(-1)


def inverse_distances(xp: Any, axis: int) -> Callable:
    return lambda x, y: (1 / xp.sqrt(squared(x, y) + 0.01)).sum(axis)


def nearest(x: Any, y: Any) -> Any:
    return squared(x, y).min(1)


def chebyshev(xp: Any) -> Callable:
    return lambda x, y: xp.exp(-xp.abs(x[:, None, :] - y[None, :, :]).max(-1)).sum(1)


CASES: dict[str, tuple[Callable, Callable]] = {
    "over_the_second": (inverse_distances(mx, 1), inverse_distances(np, 1)),
    "over_the_first": (inverse_distances(mx, 0), inverse_distances(np, 0)),
    "nearest": (nearest, nearest),
    "chebyshev": (chebyshev(mx), chebyshev(np)),
}


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("name", CASES)
def test_one_kernel_without_the_pairs(name: str, size: int) -> None:
    fun, reference = CASES[name]
    program = made(fun, Aval((M, size), mx.float32), Aval((N, size), mx.float32))
    assert len(program.program.kernels) == 1 and not program.program.slots
    rng = np.random.default_rng(size)
    for m, n in ((1, 1), (15, 17), (16, 31), (33, 2), (61, 300), (0, 3)):
        x, y = (rng.normal(size=(k, size)).astype(np.float32) for k in (m, n))
        want = reference(x.astype(np.float64), y.astype(np.float64))
        np.testing.assert_allclose(call(program, x, y)[0], want, rtol=1e-5, atol=1e-6)


def test_the_pairs_themselves() -> None:
    """As an output, alone and beside a reduction of it, and with more than a few coordinates."""
    rng = np.random.default_rng(0)
    for size in (3, 9):
        x, y = rng.normal(size=(33, size)).astype(np.float32), rng.normal(size=(20, size)).astype(np.float32)
        want = squared(x.astype(np.float64), y.astype(np.float64))
        avals = Aval((M, size), mx.float32), Aval((N, size), mx.float32)
        np.testing.assert_allclose(call(made(squared, *avals), x, y)[0], want, rtol=1e-5)
        both = made(lambda a, b: (squared(a, b), mx.sqrt(squared(a, b)).sum(0)), *avals)
        for got, expected in zip(call(both, x, y), (want, np.sqrt(want).sum(0)), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float64, mx.int32], ids=str)
def test_other_dtypes(dtype: Any) -> None:
    program = made(lambda x, y: squared(x, y).max(1), Aval((M, 3), dtype), Aval((N, 3), dtype))
    assert len(program.program.kernels) == 1
    rng = np.random.default_rng(1)
    x, y = (rng.integers(-5, 6, size=(n, 3)).astype(dtype.numpy) for n in (20, 37))
    want = squared(x.astype(np.float64), y.astype(np.float64)).max(1)
    np.testing.assert_allclose(call(program, x, y)[0].astype(np.float64), want, rtol=0.02)


def test_narrow_sums_round_once() -> None:
    """2048 + 1 + 1 is 2050 in float32 and 2048 when each sum is rounded to float16."""
    x = np.zeros((1, 3), np.float16)
    y = np.array([[45.25, 1, 1]], np.float16)
    program = made(lambda a, b: squared(a, b).max(1), Aval((M, 3), mx.float16), Aval((N, 3), mx.float16))
    first = np.float16(np.float32(45.25) ** 2)
    want = np.float16(np.float32(first) + 2)
    np.testing.assert_array_equal(call(program, x, y)[0], want)


def test_any_and_all_of_coordinates() -> None:
    fun = lambda x, y: ((x[:, None] < y[None]).all(-1).sum(1), (x[:, None] < y[None]).any(-1).sum(1))  # noqa: E731
    program = made(fun, Aval((M, 3), mx.float32), Aval((N, 3), mx.float32))
    assert not program.program.slots
    rng = np.random.default_rng(2)
    x, y = (rng.normal(size=(n, 3)).astype(np.float32) for n in (30, 50))
    x[3, 1] = np.nan
    for got, want in zip(call(program, x, y), fun(x, y), strict=True):
        np.testing.assert_array_equal(got, want)


def test_small_rows_are_not_computed_anew_for_every_element() -> None:
    """The largest of four is needed by four: it stays a reduction."""
    program = made(lambda x: mx.softmax(x, axis=-1), Aval((N, 4), mx.float32))
    (kernel,) = program.program.kernels
    assert kernel.text.count("exp(") == 1
