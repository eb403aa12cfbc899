"""Random stacks of transforms over random functions, each level against a loop or finite differences.

A stack is checked level by level from the inside: level k is the transform of level k-1 as the library
computes it, compared with the same transform done numerically on level k-1.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot as mx

N = 3
MIX = np.array([[0.3, -0.2, 0.1], [0.05, 0.4, -0.3], [-0.1, 0.2, 0.25]])


def arr(x):
    return mx.array(np.asarray(x, np.float64), dtype=mx.float64)


def in_place(x):
    y = x * 1.0
    y[1:] = y[1:] * y[:2]
    return y


STEPS = {
    "tanh": mx.tanh,
    "sin": mx.sin,
    "sigmoid": mx.sigmoid,
    "exp": lambda x: mx.exp(x * 0.3),
    "mix": lambda x: arr(MIX) @ x,
    "square": lambda x: x * x,
    "softmax": lambda x: mx.softmax(x, axis=-1),
    "norm": lambda x: x / (1 + mx.sqrt((x * x).sum() + 1)),
    "reverse": lambda x: x[::-1] + x,
    "gather": lambda x: x[mx.array([2, 0, 0])] * x,
    "select": lambda x: mx.where(x > 0.1, x * 2, x * x),
    "outer": lambda x: (x[:, None] * x[None, :]).sum(axis=1),
    "pad": lambda x: mx.pad(x, (1, 0))[:N] * x,
    "concat": lambda x: mx.concatenate([x[1:], x[:1]]) + x,
    "logsumexp": lambda x: x - mx.logsumexp(x),
    "in place": in_place,
    "cond": lambda x: mx.cond(x[0] > 0.05, lambda z: z * z, lambda z: mx.sin(z), x),
    "mean": lambda x: x - x.mean() + x.max(),
}


def chain(names):
    def f(x):
        for name in names:
            x = STEPS[name](x)
        return x

    return f


TRANSFORMS = {
    "grad": lambda f: mx.grad(lambda x: f(x).sum()),
    "vjp": lambda f: lambda x: mx.vjp(f, [x], [x * 0.5 + 1])[1][0],
    "jvp": lambda f: lambda x: mx.jvp(f, [x], [mx.cos(x)])[1][0],
    "vmap": lambda f: lambda x: mx.vmap(f)(mx.stack([x, x * 0.5])).sum(axis=0),
    "vmap_out": lambda f: (
        lambda x: mx.vmap(f, in_axes=1, out_axes=1)(mx.stack([x, x * 0.5], axis=1)).sum(axis=1)
    ),
    "compile": mx.compile,
    "checkpoint": mx.checkpoint,
}


def jacobian(f, x):
    """Central differences of fourth order."""
    h = 1e-3
    columns = []
    for e in np.eye(N) * h:
        d = [f(x + k * e) for k in (-2, -1, 1, 2)]
        columns.append((d[0] - 8 * d[1] + 8 * d[2] - d[3]) / (12 * h))
    return np.stack(columns, axis=1)


def numerically(name, f, x):
    if name == "grad":
        return jacobian(f, x).sum(axis=0)
    if name == "vjp":
        return (x * 0.5 + 1) @ jacobian(f, x)
    if name == "jvp":
        return jacobian(f, x) @ np.cos(x)
    if name in ("vmap", "vmap_out"):
        return f(x) + f(x * 0.5)
    return f(x)


def near_a_kink(names, x):
    """Where a step of the function is not smooth, differences mean nothing."""
    z = arr(x)
    for name in names:
        values = np.array(z)
        if name == "select" and np.abs(values - 0.1).min() < 0.02:
            return True
        if name == "cond" and abs(values[0] - 0.05) < 0.02:
            return True
        if name == "mean" and np.diff(np.sort(values))[-1] < 0.02:
            return True
        z = STEPS[name](z)
    return False


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3),
    stack=st.lists(st.sampled_from(sorted(TRANSFORMS)), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_stacks(names, stack, seed):
    x = np.random.default_rng(seed).uniform(-1, 1, N)
    if near_a_kink(names, x) or near_a_kink(names, x * 0.5) or near_a_kink(names, x * 0.25):
        return
    f = chain(names)
    for name in stack:
        inner = f
        f = TRANSFORMS[name](inner)
        got = np.array(f(arr(x)))
        expected = numerically(name, lambda z, inner=inner: np.array(inner(arr(z))), x)
        scale = 1 + np.abs(expected).max()
        np.testing.assert_allclose(
            got / scale, expected / scale, atol=1e-6, err_msg=f"{names} {stack} at {name}"
        )


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_step_under_every_transform(name):
    x = np.array([0.31, -0.52, 0.77])
    f = chain([name])
    for transform in sorted(TRANSFORMS):
        got = np.array(TRANSFORMS[transform](f)(arr(x)))
        expected = numerically(transform, lambda z: np.array(f(arr(z))), x)
        np.testing.assert_allclose(got, expected, atol=1e-8, err_msg=transform)
