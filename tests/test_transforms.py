"""grad, vjp, jvp, vmap, checkpoint, control flow: the guides' examples, composition, errors."""

import math

import numpy as np
import pytest

import ingot as mx


def f64(x):
    return mx.array(np.asarray(x, np.float64), dtype=mx.float64)


def test_guide_grad_of_sin():
    dfdx = mx.grad(mx.sin)
    assert dfdx(mx.array(math.pi)).item() == pytest.approx(-1)
    d2fdx2 = mx.grad(mx.grad(mx.sin))
    assert d2fdx2(mx.array(math.pi / 2)).item() == pytest.approx(-1)


def loss_fn(w, x, y):
    return mx.mean(mx.square(w * x - y))


def test_guide_loss():
    w, x, y = mx.array(1.0), mx.array([0.5, -0.5]), mx.array([1.5, -1.5])
    assert mx.grad(loss_fn)(w, x, y).item() == -1
    assert mx.grad(loss_fn, argnums=1)(w, x, y).tolist() == [-1, 1]
    loss, gradient = mx.value_and_grad(loss_fn)(w, x, y)
    assert (loss.item(), gradient.item()) == (1, -1)
    both = mx.grad(loss_fn, argnums=[0, 1])(w, x, y)
    assert isinstance(both, tuple) and both[0].item() == -1 and both[1].tolist() == [-1, 1]


def test_guide_params_in_a_dict():
    def loss(params, x, y):
        return mx.mean(mx.square(params["weight"] * x + params["bias"] - y))

    params = {"weight": mx.array(1.0), "bias": mx.array(0.0)}
    grads = mx.grad(loss)(params, mx.array([0.5, -0.5]), mx.array([1.5, -1.5]))
    assert str(grads) == "{'weight': array(-1, dtype=float32), 'bias': array(0, dtype=float32)}"


def test_guide_in_place_update_has_the_right_gradient():
    def fun(x, idx):
        x[idx] = 2.0
        return x.sum()

    x = mx.array([1.0, 2.0, 3.0])
    assert mx.grad(fun)(x, mx.array([1])).tolist() == [1, 0, 1]
    assert x.tolist() == [1, 2, 3]  # the caller's array is unchanged


def test_guide_numpy_view_inside_grad():
    def f(x):
        view = np.array(x, copy=False)
        view[:] *= view
        return x.sum()

    x = mx.array([3.0])
    y, df = mx.value_and_grad(f)(x)
    assert y.item() == 9.0 and df.item() == 1.0


def test_guide_vmap():
    xs = mx.random.uniform(shape=(6, 5))
    ys = mx.random.uniform(shape=(5, 6))
    out = mx.vmap(lambda x, y: x + y, in_axes=(1, 0))(xs, ys)
    expected = np.stack([np.array(xs)[:, i] + np.array(ys)[i] for i in range(5)])
    np.testing.assert_array_equal(np.array(out), expected)
    out = mx.vmap(lambda x, y: x + y, in_axes=(1, 0), out_axes=1)(xs, ys)
    np.testing.assert_array_equal(np.array(out), expected.T)


def test_vmap_of_a_function_that_updates_its_arguments_in_place():
    def mapped(x, i):
        x[i] = 5.0
        x += 1
        return x

    def shared(x, y):
        y += x
        return y

    x = mx.zeros((2, 3))
    assert mx.vmap(mapped)(x, mx.array([0, 2])).tolist() == [[6, 1, 1], [1, 1, 6]]
    y = mx.ones(3)
    assert mx.vmap(shared, in_axes=(0, None))(x, y).tolist() == [[1] * 3] * 2
    assert x.tolist() == [[0] * 3] * 2 and y.tolist() == [1] * 3


def test_vmap_axes_of_a_single_dict():
    tree = {"a": mx.ones((2, 3)), "b": mx.arange(3)}
    for axes in ({"a": 0, "b": None}, ({"a": 0, "b": None},)):
        assert mx.vmap(lambda t: t["a"] + t["b"], in_axes=axes)(tree).tolist() == [[1, 2, 3]] * 2


def test_argnames():
    def f(x, *, w):
        return (x * w).sum()

    x, w = mx.array([1.0, 2.0]), mx.array([3.0, 4.0])
    positional, named = mx.grad(f, argnums=0, argnames="w")(x, w=w)
    assert positional.tolist() == [3, 4] and named["w"].tolist() == [1, 2]
    positional, named = mx.grad(f, argnames=["w"])(x, w=w)
    assert positional is None and named["w"].tolist() == [1, 2]
    with pytest.raises(ValueError, match="argnames has 'v'"):
        mx.grad(f, argnames="v")(x, w=w)


def test_selected_arguments_as_mlx_does():
    def f(x, y):
        return (x * x * y).sum()

    x, y = mx.array([1.0, 2.0]), mx.array([3.0, 4.0])
    assert mx.grad(f, argnums=[1])(x, y).tolist() == [1, 4]  # one position: no tuple
    first, second = mx.grad(f, argnums=(1, 0))(x, y)  # ascending, whatever the order asked for
    assert first.tolist() == [6, 16] and second.tolist() == [1, 4]
    positional, named = mx.grad(f, argnums=[], argnames=["x", "y", "x"])(x=x, y=y)
    assert positional is None and list(named) == ["x", "y"]
    with pytest.raises(ValueError, match="name no argument"):
        mx.grad(f, argnums=[])(x, y)
    with pytest.raises(ValueError, match="named twice"):
        mx.grad(f, argnums=[0, -2])(x, y)
    for bad in (1.5, "x", [0.0], True):
        with pytest.raises(TypeError, match="argnums must be"):
            mx.grad(f, argnums=bad)
    with pytest.raises(TypeError, match="argnames must be"):
        mx.value_and_grad(f, argnames=1)


def test_values_are_concrete_inside_grad():
    def f(x):
        if x.sum().item() > 0:
            return (x * x).sum()
        return x.sum()

    assert mx.grad(f)(mx.array([1.0, 2.0])).tolist() == [2, 4]
    assert mx.grad(f)(mx.array([-1.0, -2.0])).tolist() == [1, 1]


def test_gradient_through_a_value_evaluated_on_the_way():
    def f(x):
        y = mx.exp(x)
        mx.eval(y)
        np.array(y)
        return (y * y).sum()

    got = mx.grad(f)(f64([0.1, 0.2]))
    np.testing.assert_allclose(np.array(got), 2 * np.exp([0.2, 0.4]), rtol=1e-12)


def test_vjp_and_jvp():
    f = lambda x, y: [x * y, mx.sin(x)]  # noqa: E731
    x, y = f64([1.0, 2.0]), f64([3.0, 4.0])
    outputs, found = mx.vjp(f, [x, y], [f64([1.0, 1.0]), f64([1.0, 0.0])])
    assert outputs[0].tolist() == [3, 8]
    np.testing.assert_allclose(np.array(found[0]), [3 + np.cos(1), 4])
    np.testing.assert_allclose(np.array(found[1]), [1, 2])
    outputs, pushed = mx.jvp(f, [x, y], [f64([1.0, 0.0]), f64([0.0, 1.0])])
    np.testing.assert_allclose(np.array(pushed[0]), [3, 2])
    np.testing.assert_allclose(np.array(pushed[1]), [np.cos(1), 0])


def test_hessian_by_forward_over_reverse_and_vmap():
    a = np.random.default_rng(0).normal(size=(3, 3))

    def f(x):
        return (mx.tanh(f64(a) @ x) * x).sum()

    x = f64([0.1, -0.2, 0.3])
    gradient = mx.grad(f)
    hessian = mx.vmap(lambda v: mx.jvp(gradient, [x], [v])[1][0])(f64(np.eye(3)))
    other = mx.vmap(lambda v: mx.grad(lambda z: (gradient(z) * v).sum())(x))(f64(np.eye(3)))
    eps = 1e-6
    steps = [f64(e * eps) for e in np.eye(3)]
    numeric = np.stack([np.array(gradient(x + e) - gradient(x - e)) / (2 * eps) for e in steps])
    np.testing.assert_allclose(np.array(hessian), numeric, atol=1e-8)
    np.testing.assert_allclose(np.array(other), np.array(hessian), atol=1e-12)


def test_per_example_gradients():
    w = f64([1.0, -2.0])
    xs = f64(np.random.default_rng(1).normal(size=(5, 2)))

    def loss(w, x):
        return mx.exp((w * x).sum())

    got = mx.vmap(mx.grad(loss), in_axes=(None, 0))(w, xs)
    expected = np.stack([np.array(mx.grad(loss)(w, xs[i])) for i in range(5)])
    np.testing.assert_allclose(np.array(got), expected, rtol=1e-12)


def test_stop_gradient():
    assert mx.grad(lambda x: x * mx.stop_gradient(x))(mx.array(3.0)).item() == 3


def test_integer_arguments_are_allowed_in_grad():
    assert mx.grad(lambda x: x.astype(mx.float32).sum())(mx.array([1, 2])).tolist() == [0, 0]


def test_checkpoint_computes_the_same():
    w = f64([[0.5, 0.1], [0.2, -0.3]])

    def layer(x):
        return mx.tanh(w @ x)

    x = f64([1.0, 2.0])
    plain = mx.grad(lambda x: layer(layer(x)).sum())(x)
    again = mx.grad(lambda x: mx.checkpoint(layer)(mx.checkpoint(layer)(x)).sum())(x)
    np.testing.assert_allclose(np.array(again), np.array(plain), rtol=1e-14)

    # the enclosed weight is differentiated too
    def loss(w):
        return mx.checkpoint(lambda x: mx.tanh(w @ x))(x).sum()

    np.testing.assert_allclose(
        np.array(mx.grad(loss)(w)), np.array(mx.grad(lambda w: mx.tanh(w @ x).sum())(w)), rtol=1e-14
    )
    twice = mx.grad(lambda x: mx.grad(lambda y: mx.checkpoint(layer)(y).sum())(x).sum())(x)
    direct = mx.grad(lambda x: mx.grad(lambda y: layer(y).sum())(x).sum())(x)
    np.testing.assert_allclose(np.array(twice), np.array(direct), rtol=1e-13)
    mapped = mx.vmap(mx.checkpoint(layer))(f64(np.eye(2)))
    np.testing.assert_allclose(np.array(mapped), np.stack([np.array(layer(f64(e))) for e in np.eye(2)]))


def test_checkpoint_of_a_function_that_updates_its_argument_in_place():
    def f(x):
        x[0] = x[1] * 2
        x += 1
        return x.sum()

    x = f64([1.0, 2.0])
    assert mx.checkpoint(f)(x).item() == 8
    assert mx.grad(mx.checkpoint(f))(x).tolist() == [0, 3]
    assert x.tolist() == [1, 2]


def test_vmap_of_a_graph_whose_result_has_its_batch_axis_behind():
    w = f64(np.arange(9).reshape(3, 3))
    rows = f64([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    expected = np.array(rows) @ np.array(w).T
    for inner in (
        mx.checkpoint(lambda x: w @ x),
        lambda x: mx.cond(x[0] > -1, lambda: w @ x, lambda: x),
        lambda x: mx.while_loop(lambda s: s[1] < 1, lambda s: (w @ s[0], s[1] + 1), (x, 0))[0],
    ):
        np.testing.assert_array_equal(np.array(mx.vmap(inner)(rows)), expected)


def test_vmap_of_checkpoint_over_no_elements():
    assert mx.vmap(mx.checkpoint(lambda z: mx.sin(z) * z.sum()))(mx.zeros((0, 3))).shape == (0, 3)


def test_checkpoint_allows_control_flow_on_values():
    def f(x):
        return x * x if x.sum().item() > 0 else x

    assert mx.grad(lambda x: mx.checkpoint(f)(x).sum())(mx.array([3.0])).tolist() == [6]


def test_while_loop_newton():
    def sqrt(a):
        def going(s):
            return mx.abs(s[0] * s[0] - a) > 1e-12

        return mx.while_loop(going, lambda s: ((s[0] + a / s[0]) * 0.5,), (a,))[0]

    assert sqrt(f64(2.0)).item() == pytest.approx(math.sqrt(2))
    mapped = mx.vmap(sqrt)(f64([1.0, 2.0, 9.0]))
    np.testing.assert_allclose(np.array(mapped), np.sqrt([1.0, 2.0, 9.0]))
    _, (tangent,) = mx.jvp(sqrt, [f64(2.0)], [f64(1.0)])
    assert tangent.item() == pytest.approx(0.5 / math.sqrt(2))
    compiled = mx.compile(sqrt)
    assert compiled(f64(5.0)).item() == pytest.approx(math.sqrt(5))
    with pytest.raises(ValueError, match="number of iterations"):
        mx.grad(sqrt)(f64(2.0))
    with pytest.raises(ValueError, match=r"f32\[2\].*f32\[4\]"):
        mx.while_loop(lambda s: s[0] < 1, lambda s: mx.concatenate([s, s]), mx.zeros(2))


def test_cond():
    scale = f64(3.0)

    def f(x):
        return mx.cond(x.sum() > 0, lambda x: x * scale, lambda x: -x * x, x)

    assert f(f64([1.0, 2.0])).tolist() == [3, 6]
    assert f(f64([-1.0, -2.0])).tolist() == [-1, -4]
    assert mx.grad(lambda x: f(x).sum())(f64([1.0, 2.0])).tolist() == [3, 3]
    assert mx.grad(lambda x: f(x).sum())(f64([-1.0, -2.0])).tolist() == [2, 4]
    rows = f64([[1.0, 2.0], [-1.0, -2.0]])
    assert mx.vmap(f)(rows).tolist() == [[3, 6], [-1, -4]]
    assert mx.vmap(mx.grad(lambda x: f(x).sum()))(rows).tolist() == [[3, 3], [2, 4]]
    assert mx.compile(f)(f64([-1.0, -2.0])).tolist() == [-1, -4]
    _, (tangent,) = mx.jvp(f, [f64([-1.0, -2.0])], [f64([1.0, 1.0])])
    assert tangent.tolist() == [2, 4]
    with pytest.raises(ValueError, match="branches must return"):
        mx.cond(mx.array(True), lambda x: x, lambda x: x.astype(mx.int32), mx.zeros(2))


class TestErrors:
    def test_grad_of_a_vector(self):
        with pytest.raises(ValueError, match="scalar"):
            mx.grad(lambda x: x)(mx.array([1.0, 2.0]))

    def test_argnums_out_of_range(self):
        with pytest.raises(ValueError, match="argnums has 2"):
            mx.grad(lambda x: x, argnums=2)(mx.array(1.0))

    def test_argument_that_is_no_array(self):
        with pytest.raises(ValueError, match="argument 0 must be an array"):
            mx.grad(lambda x: x)(1.0)

    def test_result_that_is_no_array(self):
        with pytest.raises(ValueError, match="scalar array"):
            mx.grad(lambda x: 1.0)(mx.array(1.0))

    def test_vmap_sizes(self):
        with pytest.raises(ValueError, match="Inconsistent axis sizes: 2 and 3"):
            mx.vmap(lambda x, y: x + y)(mx.zeros((2,)), mx.zeros((3,)))

    def test_vmap_axis(self):
        with pytest.raises(IndexError, match="axis 2"):
            mx.vmap(lambda x: x, in_axes=2)(mx.zeros((2, 2)))

    def test_value_inside_vmap_names_the_line(self):
        with pytest.raises(ValueError, match=r"test_transforms\.py:\d+"):
            mx.vmap(lambda x: x.item())(mx.array([1.0]))

    def test_leaked_tracer(self):
        kept = []
        mx.vmap(lambda x: kept.append(x) or x)(mx.zeros(3))
        with pytest.raises(ValueError, match="compile or vmap"):
            kept[0].item()

    def test_captured_array_updated_in_place(self):
        total = mx.zeros(2)

        def f(x):
            total[0] = x[0]
            return x

        with pytest.raises(ValueError, match=r"updated in place.*test_transforms\.py:\d+"):
            mx.vmap(f)(mx.zeros((3, 2)))
        assert total.tolist() == [0, 0]
