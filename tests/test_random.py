"""Random numbers: their bits and distributions, keys, the global state, and MLX for equal keys."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

import ingot as mx
from ingot import random
from ingot.tracer.primitives.random_bits import threefry

DRAWS = {
    "uniform": lambda r, m, **k: r.uniform(-2.3, 7, (1001,), **k),
    "normal": lambda r, m, **k: r.normal((1001,), **k),
    "normal, scaled": lambda r, m, **k: r.normal((1001,), scale=3.3, **k),
    "normal, arrays": lambda r, m, **k: r.normal(
        (2,), loc=m.array([1.0, 2.0]), scale=m.array([[1.0], [2.0]]), **k
    ),
    "truncated_normal": lambda r, m, **k: r.truncated_normal(-1, 1.5, (1001,), **k),
    "gumbel": lambda r, m, **k: r.gumbel((1001,), **k),
    "laplace": lambda r, m, **k: r.laplace((1001,), scale=2.0, **k),
    "randint": lambda r, m, **k: r.randint(-50, 100, (1001,), **k),
    "randint, bool": lambda r, m, **k: r.randint(0, 3, (1001,), m.bool_, **k),
    "randint, uint8": lambda r, m, **k: r.randint(0, 200, (1001,), m.uint8, **k),
    "randint, arrays": lambda r, m, **k: r.randint(m.array([0, 10]), m.array([5, 20]), (3, 2), **k),
    "bernoulli": lambda r, m, **k: r.bernoulli(0.3, (1001,), **k),
    "bernoulli, arrays": lambda r, m, **k: r.bernoulli(m.array([0.1, 0.9]), (100, 2), **k),
    "categorical": lambda r, m, **k: r.categorical(m.array(LOGITS), **k),
    "categorical, samples": lambda r, m, **k: r.categorical(m.array(LOGITS), 1, num_samples=7, **k),
    "categorical, shape": lambda r, m, **k: r.categorical(m.array(LOGITS), 1, shape=(2, 4, 6), **k),
    "split": lambda r, m, key, **k: r.split(key, 5),
}
LOGITS = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)


def test_known_answers_of_the_generator():
    """Test vectors of the authors' Random123 library."""
    full, pi = 0xFFFFFFFF, (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3)
    for (k0, k1, x, y), want in (
        ((0, 0, 0, 0), (0x6B200159, 0x99BA4EFE)),
        ((full, full, full, full), (0x1CB996FC, 0xBB002BE7)),
        (pi, (0xC4923A9C, 0x483DF7A0)),
    ):
        words = [np.array([w], np.uint32) for w in (k0, k1, x, y)]
        a, b = threefry((words[0], words[1]), (words[2], words[3]))
        assert (int(a[0]), int(b[0])) == want


def test_keys():
    assert random.key(5).tolist() == [0, 5]
    assert random.key((1 << 40) + 5).tolist() == [256, 5]
    assert random.key((1 << 64) - 1).dtype is mx.uint32
    for bad in (-1, 1 << 64, 1.5, "1"):
        with pytest.raises(TypeError, match="seed"):
            random.key(bad)
    keys = random.split(random.key(3), 4)
    assert keys.shape == (4, 2) and len({tuple(k) for k in keys.tolist()}) == 4


@pytest.mark.parametrize("name", DRAWS)
def test_a_key_decides_the_numbers(name):
    draw = partial(DRAWS[name], random, mx)
    first, again, other = (np.array(draw(key=random.key(n))) for n in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    compiled = mx.compile(lambda k: draw(key=k))(random.key(1))
    np.testing.assert_allclose(np.array(compiled), first, rtol=1e-5, atol=1e-6)
    if "array" not in name:
        rows = mx.vmap(lambda k: draw(key=k))(mx.stack([random.key(1), random.key(2)]))
        np.testing.assert_allclose(np.array(rows), np.stack([first, other]), rtol=1e-6, atol=1e-6)


def moments(x):
    x = np.array(x).astype(np.float64)
    return x.mean(), x.var()


N = 200_000


@pytest.mark.parametrize(
    ("draw", "mean", "variance"),
    [
        (lambda k: random.uniform(2, 5, (N,), key=k), 3.5, 0.75),
        (lambda k: random.normal((N,), loc=1, scale=2, key=k), 1, 4),
        (lambda k: random.laplace((N,), loc=1, scale=2, key=k), 1, 8),
        (lambda k: random.gumbel((N,), key=k), 0.5772156649, math.pi**2 / 6),
        (lambda k: random.randint(0, 10, (N,), key=k), 4.5, 99 / 12),
        (lambda k: random.bernoulli(0.3, (N,), key=k), 0.3, 0.21),
        (lambda k: random.truncated_normal(-1, 1, (N,), key=k), 0, 0.29112509),
        (lambda k: random.normal((N,), mx.float64, key=k), 0, 1),
        (lambda k: random.uniform(shape=(N,), dtype=mx.bfloat16, key=k), 0.5, 1 / 12),
    ],
)
def test_moments(draw, mean, variance):
    x = draw(random.key(11))
    got_mean, got_variance = moments(x.astype(mx.float32) if x.dtype is mx.bfloat16 else x)
    error = math.sqrt(variance / N)
    assert abs(got_mean - mean) < 5 * error + 1e-3 * (x.dtype is mx.bfloat16)
    assert abs(got_variance / variance - 1) < 0.03


def test_frequencies_of_categorical():
    logits = mx.array(np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 1e-30]], np.float32)))
    x = np.array(random.categorical(logits, num_samples=20_000, key=random.key(0)))
    assert x.shape == (2, 20_000) and x.dtype == np.uint32
    for row, want in zip(x, ([0.1, 0.2, 0.7], [0.5, 0.5, 0]), strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / 20_000, want, atol=0.015)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_ranges_are_kept(dtype):
    dtype = getattr(mx, dtype)
    x = np.array(random.uniform(shape=(100_000,), dtype=dtype, key=random.key(1))).astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    x = np.array(random.truncated_normal(-0.5, 0.25, (10_000,), dtype, random.key(1))).astype(np.float64)
    assert x.min() >= -0.5 and x.max() <= 0.25
    assert np.isfinite(np.array(random.normal((100_000,), dtype, key=random.key(4))).astype(np.float64)).all()
    x = np.array(random.randint(3, 5, (1000,), key=random.key(1)))
    assert set(x.tolist()) == {3, 4}


def test_global_state():
    random.seed(7)
    first = [random.uniform(shape=(3,)).tolist() for _ in range(3)]
    random.seed(7)
    assert [random.uniform(shape=(3,)).tolist() for _ in range(3)] == first
    assert first[0] != first[1] != first[2]
    assert len(random.state) == 1 and random.state[0].shape == (2,)


def test_compile_captures_the_state():
    random.seed(3)
    plain = [random.normal((2,)).tolist() for _ in range(3)]
    random.seed(3)

    @partial(mx.compile, inputs=random.state, outputs=random.state)
    def draw():
        return random.normal((2,))

    compiled = [draw().tolist() for _ in range(3)]
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)


def test_transforms_leave_the_state_usable():
    random.seed(3)
    x = mx.ones((4,))
    assert mx.vmap(lambda v: v + random.uniform())(x).shape == (4,)
    mx.compile(lambda v: v + random.uniform(shape=(4,)))(x)
    mx.grad(lambda v: (v * random.uniform(shape=(4,))).sum())(x)
    assert 0 <= random.uniform().item() < 1


def test_gradients_reach_the_parameters():
    key = random.key(5)

    def f(loc, scale):
        return random.normal((1000,), mx.float64, loc=loc, scale=scale, key=key).sum()

    d_loc, d_scale = mx.grad(f, argnums=(0, 1))(mx.array(1.0, mx.float64), mx.array(2.0, mx.float64))
    assert d_loc.item() == 1000
    np.testing.assert_allclose(d_scale.item(), np.array(random.normal((1000,), mx.float64, key=key)).sum())


K = random.key(0)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: random.uniform(shape=(2,), dtype=mx.int32, key=K), ValueError, r"\[uniform\].*floating"),
        (lambda: random.uniform(mx.zeros((2,)), 1, key=K), ValueError, r"\[uniform\].*shape \(\).*\(2\)"),
        (lambda: random.uniform(mx.zeros((2,)), 1, (3,), key=K), ValueError, r"\(3\) and \(2\)"),
        (lambda: random.uniform(shape=3, key=K), TypeError, "sequence"),
        (lambda: random.uniform(shape=(-3,), key=K), ValueError, "Negative"),
        (lambda: random.uniform(key=mx.array([1, 2])), ValueError, "type uint32 but received int32"),
        (lambda: random.uniform(key=mx.array([1], mx.uint32)), ValueError, r"shape \(2\) but received \(1\)"),
        (lambda: random.uniform(key=3), TypeError, "key must be an array"),
        (lambda: random.normal((2,), mx.int32, key=K), ValueError, r"\[normal\]"),
        (lambda: random.laplace((2,), mx.int32, key=K), ValueError, r"\[laplace\]"),
        (lambda: random.randint(0, 5, (2,), mx.float32, key=K), ValueError, r"\[randint\]"),
        (lambda: random.bernoulli(mx.array([0, 1]), key=K), ValueError, r"\[bernoulli\]"),
        (lambda: random.bernoulli(mx.array([0.5, 1]), (3,), key=K), ValueError, r"\(3\) and \(2\)"),
        (lambda: random.categorical(mx.zeros((2, 5)), shape=(2,), num_samples=2), ValueError, "At most one"),
        (lambda: random.categorical(mx.zeros((2, 5)), 3), IndexError, "Invalid axis 3"),
        (lambda: random.categorical(mx.zeros((2, 5)), shape=(3,)), ValueError, r"\(3\) and \(2\)"),
    ],
)
def test_errors(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


def _ulps(a, b):
    return np.abs(a.view(np.int32).astype(np.int64) - b.view(np.int32).astype(np.int64))


EXACT = ("uniform", "randint", "bernoulli", "categorical", "split")


@pytest.mark.peers
@pytest.mark.parametrize("name", DRAWS)
def test_against_mlx(name):
    mlx = pytest.importorskip("mlx.core")
    for seed in (0, 12345, (1 << 40) + 5):
        theirs = np.array(DRAWS[name](mlx.random, mlx, key=mlx.random.key(seed)))
        mine = np.array(DRAWS[name](random, mx, key=random.key(seed)))
        assert theirs.shape == mine.shape and theirs.dtype == mine.dtype
        if name.startswith(EXACT):
            np.testing.assert_array_equal(mine, theirs)
        elif name in ("normal", "normal, scaled"):
            assert _ulps(mine, theirs).max() <= 8
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.peers
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_against_mlx(dtype):
    mlx = pytest.importorskip("mlx.core")
    for draw in (
        lambda r, m, k: r.uniform(-2.3, 7, (999,), dtype=getattr(m, dtype), key=k),
        lambda r, m, k: r.normal((999,), dtype=getattr(m, dtype), loc=2, scale=3.3, key=k),
        lambda r, m, k: r.laplace((999,), dtype=getattr(m, dtype), loc=1, scale=2, key=k),
    ):
        theirs = np.array(draw(mlx.random, mlx, mlx.random.key(77)).astype(mlx.float32))
        mine = np.array(draw(random, mx, random.key(77)).astype(mx.float32))
        assert (mine != theirs).mean() < 0.005
        np.testing.assert_allclose(mine, theirs, rtol=1e-2, atol=1e-2)


@pytest.mark.peers
@pytest.mark.parametrize("n", range(1, 12))
def test_the_layout_of_bits_is_mlx_s(n):
    mlx = pytest.importorskip("mlx.core")
    for dtype in ("uint32", "int32"):
        theirs = mlx.random.randint(0, 1 << 30, (n,), getattr(mlx, dtype), key=mlx.random.key(9))
        mine = random.randint(0, 1 << 30, (n,), getattr(mx, dtype), key=random.key(9))
        assert mine.tolist() == theirs.tolist()
    mlx.random.seed(n)
    random.seed(n)
    for _ in range(3):
        assert random.uniform(shape=(n,)).tolist() == mlx.random.uniform(shape=(n,)).tolist()
