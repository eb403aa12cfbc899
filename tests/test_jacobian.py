"""Whole Jacobians against analytic ones and finite differences; linear maps against jvp."""

from __future__ import annotations

import numpy as np
import pytest

import ingot as mx

rng = np.random.default_rng(3)


def f64(*shape):
    return mx.array(rng.standard_normal(shape), mx.float64)


def differences(fun, x, step=1e-6):
    """Jacobian of shape result + argument by central differences."""
    x = np.array(x)
    columns = []
    for i in range(x.size):
        d = np.zeros(x.size)
        d[i] = step
        d = d.reshape(x.shape)
        up, down = (np.array(fun(mx.array(x + s * d, mx.float64))) for s in (1, -1))
        columns.append((up - down) / (2 * step))
    return np.stack(columns, -1).reshape(columns[0].shape + x.shape)


@pytest.mark.parametrize("jac", [mx.jacfwd, mx.jacrev])
def test_jacobian_of_a_function_between_matrices(jac):
    w, x = f64(3, 2), f64(4, 3)
    fun = lambda x: mx.tanh(x @ w)  # noqa: E731
    got = jac(fun)(x)
    assert got.shape == (4, 2, 4, 3)
    np.testing.assert_allclose(np.array(got), differences(fun, x), atol=1e-8)
    np.testing.assert_allclose(np.array(mx.compile(jac(fun))(x)), np.array(got), rtol=1e-12)


@pytest.mark.parametrize("jac", [mx.jacfwd, mx.jacrev])
def test_trees_of_arguments_and_results(jac):
    def fun(p, scale, q):
        return {"s": (p["a"] * q).sum(), "v": [p["a"] * p["b"] * scale]}

    p, q = {"a": f64(3), "b": f64()}, f64(3)
    got = jac(fun, argnums=(0, 2))(p, 2, q)
    assert got["s"][0]["a"].shape == (3,) and got["s"][0]["b"].shape == () and got["s"][1].shape == (3,)
    assert got["v"][0][0]["a"].shape == (3, 3) and got["v"][0][1].shape == (3, 3)
    np.testing.assert_allclose(np.array(got["v"][0][0]["a"]), np.eye(3) * np.array(p["b"]) * 2)
    np.testing.assert_allclose(np.array(got["v"][0][1]), np.zeros((3, 3)))
    np.testing.assert_allclose(np.array(got["s"][1]), np.array(p["a"]))
    np.testing.assert_allclose(np.array(jac(fun)(p, 2, q)["s"]["a"]), np.array(q))


def test_hessian():
    x = f64(4)
    a = f64(4, 4)
    fun = lambda x: (x @ a @ x) + mx.exp(x).sum()  # noqa: E731
    expected = np.array(a) + np.array(a).T + np.diag(np.exp(np.array(x)))
    np.testing.assert_allclose(np.array(mx.hessian(fun)(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(np.array(mx.jacrev(mx.jacrev(fun))(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(np.array(mx.jacrev(mx.jacfwd(fun))(x)), expected, rtol=1e-10)
    mapped = mx.vmap(mx.hessian(fun))(mx.stack([x, 2 * x]))
    np.testing.assert_allclose(np.array(mapped[1]), np.array(mx.hessian(fun)(2 * x)), rtol=1e-10)


def test_linearize_is_the_jvp_and_computes_the_function_once():
    x, y = f64(3), f64(3)
    runs = []

    def fun(p):
        runs.append(1)
        return mx.sin(p["x"]) * p["y"], p["x"].sum()

    (value, total), linear = mx.linearize(fun, {"x": x, "y": y})
    np.testing.assert_allclose(np.array(value), np.sin(np.array(x)) * np.array(y))
    for _ in range(2):
        tx, ty = f64(3), f64(3)
        got = linear({"x": tx, "y": ty})
        expected = mx.jvp(lambda a, b: fun({"x": a, "y": b}), [x, y], [tx, ty])[1]
        for g, e in zip(got, expected, strict=True):
            np.testing.assert_allclose(np.array(g), np.array(e), rtol=1e-12)
    assert len(runs) == 3
    rows = mx.vmap(lambda t: linear({"x": t, "y": mx.zeros(3, mx.float64)})[0])(mx.eye(3, dtype=mx.float64))
    np.testing.assert_allclose(np.array(rows), np.diag(np.cos(np.array(x)) * np.array(y)), rtol=1e-12)
    slope = mx.grad(lambda x: mx.linearize(mx.sin, x)[1](mx.ones(3, mx.float64)).sum())(x)
    np.testing.assert_allclose(np.array(slope), -np.sin(np.array(x)), rtol=1e-12)
    with pytest.raises(ValueError, match="expected tangents"):
        linear({"x": f64(2), "y": y})


def test_errors():
    with pytest.raises(ValueError, match="floating-point"):
        mx.jacrev(lambda x: x)(mx.array([1]))
    with pytest.raises(ValueError, match="holds a value of type float"):
        mx.jacfwd(lambda x: 1.0)(mx.array([1.0]))
    with pytest.raises(TypeError, match="argnums"):
        mx.jacfwd(lambda x: x, argnums="x")
