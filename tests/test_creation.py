"""Constants, ranges and masks against NumPy and MLX."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot as mx
from ingot.tracer.dims import Dim


def same(got, want, dtype=None):
    assert got.shape == np.shape(want)
    np.testing.assert_array_equal(np.array(got.astype(mx.float32) if got.dtype is mx.bfloat16 else got), want)
    assert dtype is None or got.dtype is dtype


def test_constants():
    same(mx.zeros(3), [0, 0, 0], mx.float32)
    same(mx.zeros((2, 0), mx.int8), np.zeros((2, 0)), mx.int8)
    same(mx.zeros((), None), 0.0, mx.float32)
    same(mx.ones([2, 2], mx.bool_), np.ones((2, 2), bool), mx.bool_)
    same(mx.full((2, 2), 3), np.full((2, 2), 3), mx.int32)
    same(mx.full(2, 3.5), [3.5, 3.5], mx.float32)
    same(mx.full((2,), True), [True, True], mx.bool_)
    same(mx.full((2,), 1 + 2j), [1 + 2j] * 2, mx.complex64)
    same(mx.full((2,), 1 << 40), [1 << 40] * 2, mx.int64)
    same(mx.full((2, 3), mx.array([1, 2, 3])), [[1, 2, 3]] * 2, mx.int32)
    same(mx.full((2,), 2.7, mx.int32), [2, 2], mx.int32)
    a = mx.array([[1, 2, 3]])
    same(mx.zeros_like(a), [[0, 0, 0]], mx.int32)
    same(mx.ones_like(a, mx.float16), [[1, 1, 1]], mx.float16)
    same(mx.full_like(a, 2.5), [[2, 2, 2]], mx.int32)
    same(mx.full_like(a, 2.5, mx.bfloat16), [[2.5] * 3], mx.bfloat16)


@pytest.mark.parametrize("make", [mx.zeros, mx.ones, lambda s: mx.full(s, 1)])
def test_bad_shapes(make):
    with pytest.raises(ValueError, match="Negative"):
        make((2, -1))
    with pytest.raises(TypeError, match="integers"):
        make((2.5,))


def test_full_that_does_not_broadcast():
    with pytest.raises(ValueError, match=r"\(2\).*\(2,3\)"):
        mx.full((2, 3), mx.array([1, 2]))


RANGES = [
    (3,), (3.0,), (1, 7, 2), (7, 1, -2), (0, 1, 0.25), (5, 1), (0, 2.5), (-1.5, 1.5, 0.5),
    (1 << 33, (1 << 33) + 2), ((1 << 31) - 2, (1 << 31) + 1), (0,), (-3,), (10, 0, -3), (0.5, 4),
]  # fmt: skip


@pytest.mark.parametrize("arguments", RANGES)
def test_arange(arguments):
    want = np.arange(*arguments)
    floating = any(isinstance(n, float) for n in arguments)
    wide = any(abs(n) >= 1 << 31 for n in arguments)
    same(mx.arange(*arguments), want, mx.float32 if floating else mx.int64 if wide else mx.int32)


def test_arange_dtypes():
    same(mx.arange(3, dtype=mx.float16), [0, 1, 2], mx.float16)
    same(mx.arange(0, 10, 3, mx.uint8), [0, 3, 6, 9], mx.uint8)
    same(mx.arange(5, 0, -2, mx.uint8), [5, 3, 1], mx.uint8)
    same(mx.arange(0.5, 3, dtype=mx.int32), [0, 1, 2], mx.int32)
    same(mx.arange(1, 4, 0.5, dtype=mx.int32), [1] * 6, mx.int32)
    same(mx.arange(300, dtype=mx.int8), np.arange(300).astype(np.int8), mx.int8)
    same(mx.arange(stop=4, step=2), [0, 2])
    same(mx.arange(1, stop=3), [1, 2])
    same(mx.arange(3, step=2), [0, 2])
    same(mx.arange(mx.array(3)), [0, 1, 2])


@given(st.floats(-50, 50), st.floats(0.01, 3), st.integers(1, 200))
@settings(max_examples=50, deadline=None)
def test_arange_is_accurate(start, step, n):
    x = np.array(mx.arange(start, start + step * (n - 0.5), step))
    want = start + step * np.arange(n)
    assert x.shape == want.shape
    assert np.all(np.abs(x - want) <= 2.0**-22 * (abs(start) + step * n))  # four roundings


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ((1, 2, 0), ValueError, "nonzero"),
        ((math.nan,), ValueError, "length"),
        ((1, math.inf, 1.0), ValueError, "length"),
        ((True,), ValueError, "bool"),
        ((3, None, None, mx.bool_), ValueError, "bool"),
        ((1 << 31,), ValueError, "Maximum size"),
        (("3",), TypeError, "number"),
        ((1j,), TypeError, "number"),
    ],
)
def test_bad_ranges(arguments, kind, words):
    with pytest.raises(kind, match=rf"\[arange\].*{words}"):
        mx.arange(*arguments)


def test_linspace():
    for arguments in ((0, 1, 5), (0.1, 7.3, 100), (1, 0, 4), (0, 1, 1), (0, 1, 0), (2, 2, 3)):
        got = mx.linspace(*arguments)
        np.testing.assert_allclose(np.array(got), np.linspace(*arguments), rtol=3e-7, atol=1e-7)
        assert got.dtype is mx.float32
        if arguments[2] > 1:
            assert got[0].item() == np.float32(arguments[0]) and got[-1].item() == np.float32(arguments[1])
    same(mx.linspace(0, 1, 4, endpoint=False), [0, 0.25, 0.5, 0.75])
    same(mx.linspace(0, 10, 4, dtype=mx.int32), [0, 3, 6, 10], mx.int32)
    same(mx.linspace(mx.array(0), mx.array(3.0), 4), [0, 1, 2, 3])
    assert mx.linspace(0, 1).shape == (50,)
    x = mx.linspace(0, 1, 11, dtype=mx.float64)
    np.testing.assert_allclose(np.array(x), np.linspace(0, 1, 11), rtol=1e-15)
    with pytest.raises(ValueError, match="non-negative"):
        mx.linspace(0, 1, -1)


def test_masks():
    for n, m, k in ((3, None, 0), (2, 3, 1), (3, 2, -1), (2, 3, 9), (0, None, 0), (4, 2, -9)):
        same(mx.eye(n, m, k), np.eye(n, m, k), mx.float32)
        same(mx.tri(n, m, k, mx.int32), np.tri(n, m, k), mx.int32)
    same(mx.identity(2, mx.int8), np.eye(2), mx.int8)
    assert mx.tri(2).dtype is mx.float32
    a = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    for k in (-5, -1, 0, 2, 7):
        same(mx.tril(mx.array(a), k), np.tril(a, k), mx.int32)
        same(mx.triu(mx.array(a), k), np.triu(a, k), mx.int32)
    same(mx.tril(mx.array([[math.nan, math.inf], [1, 2]])), [[math.nan, 0], [1, 2]])
    with pytest.raises(ValueError, match=r"\[tril\]"):
        mx.tril(mx.zeros((3,)))
    with pytest.raises(ValueError, match=r"\[eye\]"):
        mx.eye(-1)


def test_asarray():
    x = mx.array([1, 2])
    assert mx.asarray(x).tolist() == [1, 2] and mx.asarray(x, copy=False).tolist() == [1, 2]
    same(mx.asarray([1, 2.5]), [1, 2.5], mx.float32)
    own = np.arange(3, dtype=np.int32)
    shared = mx.asarray(own, copy=False)
    own[0] = 9
    assert shared.tolist() == [9, 1, 2]
    assert mx.asarray(own).tolist() == [9, 1, 2]
    for bad in ([1, 2], 1.5):
        with pytest.raises(ValueError, match="avoid copy"):
            mx.asarray(bad, copy=False)
    with pytest.raises(ValueError, match="avoid copy"):
        mx.asarray(x, mx.float32, copy=False)


def test_symbolic_sizes():
    """Constants, ranges and masks of the size of an argument, in one trace for all sizes."""
    traces = []

    @lambda f: mx.compile(f, shapeless=True)
    def f(x):
        traces.append(1)
        n = x.shape[0]
        ranges = mx.arange(n) + mx.arange(0, 2 * n, 2) + mx.arange(n, 2 * n)
        return (
            mx.zeros_like(x) + 1,
            ranges,
            mx.eye(n),
            mx.tril(x[:, None] * mx.ones((1, n))),
            mx.full((n, 2), 7),
        )

    for n in (3, 5, 1):
        x = np.arange(1, n + 1, dtype=np.float32)
        got = f(mx.array(x))
        i = np.arange(n)
        want = (
            np.ones(n),
            i + 2 * i + n + i,
            np.eye(n),
            np.tril(x[:, None] * np.ones((1, n))),
            np.full((n, 2), 7),
        )
        for g, w in zip(got, want, strict=True):
            same(g, w)
    assert len(traces) == 1


def test_a_symbolic_extent_is_a_scalar():
    f = mx.compile(lambda x: (x / x.shape[0], mx.array(x.shape[0]) + 1), shapeless=True)
    for n in (2, 5):
        mean, count = f(mx.ones((n,)))
        np.testing.assert_allclose(np.array(mean), np.full(n, 1 / n), rtol=1e-7)
        assert count.item() == n + 1 and count.dtype is mx.int32
    assert mx.zeros((Dim("B"), 2)).shape[1] == 2


@pytest.mark.peers
def test_against_mlx():
    mlx = pytest.importorskip("mlx.core")
    makers = [
        lambda m: m.arange(0.1, 5.0, 0.1), lambda m: m.arange(-3.5, 4), lambda m: m.linspace(0.1, 7.3, 100),
        lambda m: m.linspace(-2, 5, 17, dtype=m.float16), lambda m: m.tri(4, 5, -1), lambda m: m.eye(3, 5, 1),
        lambda m: m.full((2, 3), 2.5), lambda m: m.full_like(m.array([1, 2]), 2.9),
        lambda m: m.arange(7, 1, -2), lambda m: m.tril(m.ones((3, 4), m.bool_), 1),
        lambda m: m.linspace(0, 10, 4, dtype=m.int32),
    ]  # fmt: skip
    for i, make in enumerate(makers):
        mine, theirs = make(mx), make(mlx)
        assert mine.shape == tuple(theirs.shape) and mine.dtype.name == str(theirs.dtype).split(".")[-1], i
        np.testing.assert_allclose(np.array(mine), np.array(theirs), rtol=5e-7, atol=1e-7, err_msg=str(i))
