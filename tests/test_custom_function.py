"""custom_function: rules written by the user, in every transform and in files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ingot as mx
from ingot.tracer.primitives.custom import CustomFunction


def product():
    """sin(x) * y with derivatives that are wrong on purpose, to be told from the true ones."""

    @mx.custom_function
    def f(x, y):
        return mx.sin(x) * y

    @f.vjp
    def f_vjp(primals, cotangent, output):
        x, y = primals
        return 10 * cotangent * y, 10 * cotangent * output

    @f.jvp
    def f_jvp(primals, tangents):
        return tangents[0] * 100 + primals[1]

    return f


X, Y = mx.array([0.5, 1.0]), mx.array([2.0, 3.0])


def values(*arrays):
    return [np.array(a).tolist() for a in arrays]


def test_the_rules_are_used():
    f = product()
    np.testing.assert_allclose(np.array(f(X, Y)), np.sin(np.array(X)) * np.array(Y), rtol=1e-6)
    loss = lambda x, y: f(x, y).sum()  # noqa: E731
    dx, dy = mx.grad(loss, argnums=(0, 1))(X, Y)
    assert values(dx) == [[20, 30]]
    np.testing.assert_allclose(np.array(dy), 10 * np.sin(np.array(X)) * np.array(Y), rtol=1e-6)
    _, (tangent,) = mx.jvp(f, [X, Y], [mx.ones(2), mx.zeros(2)])
    assert values(tangent) == [[102, 103]]
    compiled = mx.compile(mx.grad(loss, argnums=(0, 1)))(X, Y)
    np.testing.assert_allclose(values(*compiled), values(dx, dy), rtol=1e-6)
    # the rules are differentiated in their turn: d/dy of 10 * ct * y
    assert values(mx.grad(lambda y: mx.grad(loss)(X, y).sum())(Y)) == [[10, 10]]


def test_mapped_functions_keep_their_rules():
    f = product()
    xs, ys = mx.stack([X, 2 * X, 3 * X]), mx.stack([Y, Y + 1, Y + 2])
    slope = mx.grad(lambda x, y: mx.vmap(f)(x, y).sum())(xs, ys)
    np.testing.assert_allclose(np.array(slope), 10 * np.array(ys), rtol=1e-6)
    slope = mx.grad(lambda x, y: mx.vmap(f, in_axes=(0, None))(x, y).sum(), argnums=1)(xs, Y)
    np.testing.assert_allclose(np.array(slope), (10 * np.sin(np.array(xs)) * np.array(Y)).sum(0), rtol=1e-5)
    per_example = mx.vmap(mx.grad(lambda x, y: f(x, y).sum()), in_axes=(0, 0))(xs, ys)
    np.testing.assert_allclose(np.array(per_example), 10 * np.array(ys), rtol=1e-6)
    _, (tangent,) = mx.jvp(mx.vmap(f), [xs, ys], [mx.ones((3, 2)), mx.zeros((3, 2))])
    np.testing.assert_allclose(np.array(tangent), 100 + np.array(ys))


def test_a_rule_for_vmap():
    seen = []

    @mx.custom_function
    def f(x, y):
        return mx.sin(x) * y, x

    @f.vmap
    def f_vmap(inputs, axes):
        seen.append(axes)
        x, y = inputs
        return (x * 7, y), axes

    a, b = mx.vmap(f, in_axes=(0, 1), out_axes=(0, 1))(mx.ones((3, 2)), mx.ones((2, 3)))
    assert seen == [(0, 1)] and a.shape == (3, 2) and b.shape == (2, 3) and (a == 7).all().item()


def test_trees_statics_and_missing_cotangents():
    @mx.custom_function
    def f(p, power, scale=1.0):
        return {"out": p["a"] ** power * scale, "n": power}

    @f.vjp
    def f_vjp(primals, cotangents, outputs, scale=1.0):
        p, power = primals
        assert power == 3 and set(cotangents) == {"out", "n"} and outputs["n"] == 3
        return {"a": cotangents["out"] * scale, "b": None}, None

    p = {"a": mx.array([1.0, 2.0]), "b": mx.array(1.0)}
    grads = mx.grad(lambda p: f(p, 3, scale=mx.array(5.0))["out"].sum())(p)
    assert values(grads["a"], grads["b"]) == [[5, 5], 0]
    # what has no rule is derived
    _, (tangent,) = mx.jvp(lambda a: f({"a": a, "b": p["b"]}, 3)["out"], [p["a"]], [mx.ones(2)])
    assert values(tangent) == [[3, 12]]

    @mx.custom_function
    def single(x):
        return x * x

    single.vjp(lambda x, ct, out: ct * x)
    assert mx.grad(single)(mx.array(3.0)).item() == 3


def test_rules_that_return_too_little():
    f = mx.custom_function(lambda x, y: x * y)
    f.vjp(lambda primals, ct, out: ct)
    with pytest.raises(ValueError, match="structure of its positional arguments"):
        mx.grad(f)(mx.array(1.0), mx.array(2.0))
    f = mx.custom_function(lambda x: (x, x))
    f.jvp(lambda x, t: t)
    with pytest.raises(ValueError, match="must return 2 tangents, got 1"):
        mx.jvp(lambda x: f(x)[0], [mx.array(1.0)], [mx.array(1.0)])
    with pytest.raises(TypeError, match="expected a function"):
        mx.custom_function(3)


def test_a_function_that_updates_its_argument_in_place():
    @mx.custom_function
    def f(x):
        x[0] = x[1] * 2
        x += 1
        return x.sum()

    f.jvp(lambda x, t: t.sum())
    x = mx.array([1.0, 2.0])
    assert mx.compile(f)(x).item() == 8 and mx.grad(f)(x).tolist() == [0, 3] and x.tolist() == [1, 2]


def test_no_growth_of_rules():
    f = product()
    for _ in range(50):
        mx.eval(mx.grad(lambda x: f(x, Y).sum())(X))
    assert len(f._known) == 1


def test_in_control_flow():
    f = product()

    def loss(x):
        return mx.scan(lambda c, y: (f(c, y), None), x, mx.stack([Y, Y]))[0].sum()

    def written_out(x):
        return f(f(x, Y), Y).sum()

    np.testing.assert_allclose(values(mx.grad(loss)(X)), values(mx.grad(written_out)(X)), rtol=1e-6)
    branch = mx.grad(lambda x: mx.cond(x.sum() > 0, lambda x: f(x, Y).sum(), lambda x: x.sum(), x))
    assert values(branch(X)) == [[20, 30]]


def test_files_hold_the_rules(tmp_path: Path):
    factor = mx.array([10.0, 20.0])

    @mx.custom_function
    def f(x, y):
        return mx.sin(x) * y

    f.vjp(lambda p, ct, out: (factor * ct * p[1], factor * ct * out))
    f.jvp(lambda p, t: t[0] * 100 + p[1])
    path = str(tmp_path / "f.ingot")
    mx.export_function(path, lambda x, y: f(x * 1, y) + 1, X, Y)
    code = """
import sys, numpy as np, ingot as mx
g = mx.import_function(sys.argv[1])
x, y = mx.array([0.5, 1.0]), mx.array([2.0, 3.0])
np.testing.assert_allclose(np.array(g(x, y)[0]), np.sin(np.array(x)) * np.array(y) + 1, rtol=1e-6)
dx, dy = mx.grad(lambda x, y: g(x, y)[0].sum(), argnums=(0, 1))(x, y)
assert dx.tolist() == [20, 60], dx
np.testing.assert_allclose(np.array(dy), [10, 20] * np.sin(np.array(x)) * np.array(y), rtol=1e-6)
assert mx.jvp(lambda x: g(x, y)[0], [x], [mx.ones(2)])[1][0].tolist() == [102, 103]
slopes = mx.vmap(mx.grad(lambda x, y: g(x, y)[0].sum()), in_axes=(0, None))(mx.stack([x, x]), y)
assert slopes.tolist() == [[20, 60]] * 2
"""
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=120)


def test_graphs_of_wrong_types_are_refused():
    from ingot.tracer.aval import Aval
    from ingot.tracer.trace import trace

    one = Aval((2,), mx.float32)
    graph = trace(lambda x: [x * 2], [one], close=True).graph
    wrong = trace(lambda x: [x.sum()], [one], close=True).graph
    for custom in (
        CustomFunction(graph, "custom", 1, wrong, None, None),
        CustomFunction(graph, "custom", 1, None, wrong, None),
        CustomFunction(graph, "custom", 2, None, None, None),
    ):
        with pytest.raises(ValueError, match="custom_function"):
            custom.infer(one)
