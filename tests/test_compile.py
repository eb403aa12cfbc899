"""compile: cache by signature, state, shapeless traces and guards, laziness of arguments, errors."""

import threading

import numpy as np
import pytest

import ingot as mx
from ingot.tracer.verify import verify


def counted(fun):
    """`fun`, and a list that grows by one whenever it is traced."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(1)
        return fun(*args, **kwargs)

    return wrapped, calls


def test_traced_once_per_signature():
    fun, calls = counted(lambda x, y: mx.exp(x) + y)
    compiled = mx.compile(fun)
    for _ in range(3):
        compiled(mx.zeros(3), mx.ones(3))
    assert len(calls) == 1
    compiled(mx.zeros(4), mx.ones(4))
    assert len(calls) == 2
    compiled(mx.zeros(4), mx.ones(4, dtype=mx.int32))
    assert len(calls) == 3


def test_static_arguments():
    fun, calls = counted(lambda x, n, flag=None: x * n if flag is None else x)
    compiled = mx.compile(fun)
    x = mx.ones(2)
    assert compiled(x, 2).tolist() == [2, 2]
    assert compiled(x, 3).tolist() == [3, 3]
    assert compiled(x, 1).tolist() == [1, 1]
    n = len(calls)
    compiled(x, True)  # equal to 1, but another type
    compiled(x, 1.0)
    assert len(calls) == n + 2
    compiled(x, 1, flag="a")
    compiled(x, 1, flag="a")
    assert len(calls) == n + 3


def test_trees_kwargs_and_outputs():
    @mx.compile
    def f(params, *, scale):
        a, (b,) = params["a"], params["b"]
        return {"sum": a + b, "list": [a * scale, None, 7], "same": a}

    out = f({"a": mx.array([1.0]), "b": (mx.array([2.0]),)}, scale=mx.array(3.0))
    assert out["sum"].tolist() == [3]
    assert out["list"][0].tolist() == [3] and out["list"][1:] == [None, 7]
    assert out["same"].tolist() == [1]


def test_results_are_evaluated_and_own():
    x = mx.array([1.0, 2.0])
    y, z = mx.compile(lambda x: (x, x))(x)
    np.array(y, copy=False)[0] = 9
    assert x.tolist() == [1, 2] and z.tolist() == [1, 2]


def test_lazy_arguments_record_one_call():
    compiled = mx.compile(lambda x: mx.exp(x) * 2)
    lazy = mx.ones(3) + 1
    out = compiled(lazy)
    assert out._value.node.primitive.name == "call"
    np.testing.assert_allclose(np.array(out), np.exp([2, 2, 2]) * 2, rtol=1e-6)


def test_numpy_arguments():
    compiled = mx.compile(lambda x: x + 1)
    out = compiled(np.arange(3, dtype=np.float32))
    assert isinstance(out, mx.array) and out.tolist() == [1, 2, 3]
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T[::2]
    np.testing.assert_array_equal(np.array(mx.compile(lambda x: x * 2)(strided)), strided * 2)


def test_captured_arrays_are_a_snapshot():
    w = mx.array([1.0, 2.0])
    compiled = mx.compile(lambda x: x * w)
    assert compiled(mx.ones(2)).tolist() == [1, 2]
    w[0] = 100.0
    assert compiled(mx.ones(2)).tolist() == [1, 2]
    view = np.array(w, copy=False)
    again = mx.compile(lambda x: x * w)
    assert again(mx.ones(2)).tolist() == [100, 2]
    view[1] = -1
    assert w.tolist() == [100, -1]
    assert again(mx.ones(2)).tolist() == [100, 2]


def test_state():
    state = {"n": mx.array(0.0), "w": mx.array([1.0, 1.0])}

    def step(x):
        state["n"] = state["n"] + 1
        state["w"] = state["w"] - 0.5 * x
        return (state["w"] * x).sum()

    compiled = mx.compile(step, inputs=state, outputs=state)
    for i in range(3):
        compiled(mx.array([1.0, 2.0]))
        assert state["n"].item() == i + 1
    assert state["w"].tolist() == [-0.5, -2]
    assert compiled.traces == 1


def test_state_updated_in_place():
    total = mx.zeros(2)

    def add(x):
        total[0] = total[0] + x
        return x

    compiled = mx.compile(add, inputs=[total], outputs=[total])
    compiled(mx.array(1.0))
    compiled(mx.array(2.0))
    assert total.tolist() == [3, 0]


def test_state_that_was_kept_elsewhere_is_not_overwritten():
    state = {"w": mx.array(1.0)}

    def step(x):
        state["w"] = state["w"] + x

    compiled = mx.compile(step, inputs=state, outputs=state)
    kept = [state["w"]]
    for _ in range(3):
        compiled(mx.array(1.0))
        kept.append(state["w"])
    assert [k.item() for k in kept] == [1, 2, 3, 4]


def test_one_array_in_two_places_of_the_state():
    shared = mx.array(1.0)
    state = {"w": shared, "v": shared}

    def step(x):
        state["w"] = state["w"] + x

    compiled = mx.compile(step, inputs=state, outputs=state)
    for _ in range(3):
        compiled(mx.array(3.0))
    assert (state["w"].item(), state["v"].item()) == (10, 1)


def test_state_that_changes_places():
    state = [mx.array(1.0), mx.array(2.0)]

    def swap():
        state[0], state[1] = state[1], state[0]

    compiled = mx.compile(swap, inputs=state, outputs=state)
    compiled()
    first = list(state)
    assert [x.item() for x in first] == [2, 1]
    compiled()
    assert [x.item() for x in state] == [1, 2] and [x.item() for x in first] == [2, 1]


def test_state_is_known_by_name_not_by_order():
    state = {"a": mx.array(1.0), "b": mx.array(10.0)}
    compiled = mx.compile(lambda: state["a"] - state["b"], inputs=state)
    assert compiled().item() == -9
    a, b = state.pop("a"), state.pop("b")
    state["b"], state["a"] = b, a
    assert compiled().item() == -9


def test_state_that_grows_and_is_reset():
    state = {"a": mx.array(1.0)}

    def step(x):
        if "b" not in state:
            state["b"] = mx.array(0.0)
        state["b"] = state["b"] + x * state["a"]

    compiled = mx.compile(step, inputs=state, outputs=state)
    for _ in range(3):
        compiled(mx.array(2.0))
    assert state["b"].item() == 6
    del state["b"]
    compiled(mx.array(2.0))
    assert state["b"].item() == 2 and compiled.traces == 2


def test_guide_outputs_appended_to_a_list():
    state = []

    def fun(x, y):
        z = x + y
        state.append(z)
        return mx.exp(z)

    compiled = mx.compile(fun, outputs=state)
    compiled(mx.array(1.0), mx.array(2.0))
    assert len(state) == 1 and state[0].item() == 3
    first = state[0]
    compiled(mx.array(2.0), mx.array(2.0))
    assert len(state) == 1 and state[0].item() == 4 and first.item() == 3


def test_constants_in_the_state_are_left_alone():
    state = {"w": mx.array(1.0), "rate": 0.5}

    def step():
        state["w"] = state["w"] * 2

    compiled = mx.compile(step, inputs=state, outputs=state)
    compiled()
    state["rate"] = 0.25
    compiled()
    assert state["rate"] == 0.25 and state["w"].item() == 4


def test_a_change_of_state_that_is_no_output_is_an_error():
    state = {"w": mx.array(1.0)}

    def replaces(x):
        state["w"] = state["w"] * x
        return state["w"]

    def in_place(x):
        state["w"] *= x
        return x

    for f in (replaces, in_place):
        with pytest.raises(ValueError, match=r"in `inputs=` that is not in `outputs=`"):
            mx.compile(f, inputs=state)(mx.array(2.0))
        assert state["w"].item() == 1


def test_captured_array_updated_in_place_is_an_error():
    total = mx.zeros(2)

    def f(x):
        total[0] = x
        return x

    with pytest.raises(ValueError, match=r"inputs=.*outputs="):
        mx.compile(f)(mx.array(1.0))
    assert total.tolist() == [0, 0]


def test_transforms_of_compiled_functions():
    compiled = mx.compile(lambda x: mx.tanh(x).sum())
    plain = lambda x: mx.tanh(x).sum()  # noqa: E731
    x = mx.array(np.linspace(-1, 1, 5), dtype=mx.float64)
    np.testing.assert_allclose(np.array(mx.grad(compiled)(x)), np.array(mx.grad(plain)(x)))
    np.testing.assert_allclose(
        np.array(mx.vmap(mx.grad(compiled))(x.reshape(5, 1))),
        np.array(mx.vmap(mx.grad(plain))(x.reshape(5, 1))),
    )
    np.testing.assert_allclose(
        np.array(mx.compile(mx.grad(compiled))(x)), np.array(mx.grad(plain)(x)), rtol=1e-12
    )
    # a gradient with respect to an array the compiled function captures
    w = mx.array(2.0)
    compiled_w = mx.compile(lambda x: x * w)
    compiled_w(mx.array(3.0))

    def loss(v):
        nonlocal w
        saved, w = w, v
        try:
            return compiled_w(mx.array(3.0))
        finally:
            w = saved

    assert mx.grad(loss)(mx.array(2.0)).item() == 3


def test_compiled_method():
    class Scale:
        def __init__(self, w):
            self.w = mx.array(w)

        @mx.compile
        def apply(self, x):
            return x * self.w

    two, three = Scale(2.0), Scale(3.0)
    assert (two.apply(mx.array(1.0)).item(), three.apply(mx.array(1.0)).item()) == (2, 3)


def test_state_updated_inside_checkpoint():
    state = {"n": mx.array(0.0)}

    def layer(x):
        state["n"] = state["n"] + x.sum()
        return x * 2

    compiled = mx.compile(lambda x: mx.checkpoint(layer)(x), inputs=state, outputs=state)
    for _ in range(2):
        assert compiled(mx.ones(2)).tolist() == [2, 2]
    assert state["n"].item() == 4


def test_values_inside_compile():
    with pytest.raises(ValueError, match=r"compile or vmap at .*test_compile\.py:\d+"):
        mx.compile(lambda x: x * (1 if x.sum() > 0 else 2))(mx.ones(2))


def test_errors_leave_state_alone():
    state = [mx.array(1.0)]

    def f(x):
        state[0] = state[0] + 1
        raise RuntimeError("no")

    def grows(x):
        state.append(x)
        return x.item()

    handle = state[0]
    with pytest.raises(RuntimeError, match="no"):
        mx.compile(f, inputs=state, outputs=state)(mx.array(1.0))
    assert handle.item() == 1 and state[0] is handle
    with pytest.raises(ValueError, match="not known"):
        mx.compile(grows, inputs=state, outputs=state)(mx.array(1.0))
    assert len(state) == 1 and state[0] is handle


def test_disable_compile():
    fun, calls = counted(lambda x: x + 1)
    compiled = mx.compile(fun)
    mx.disable_compile()
    try:
        compiled(mx.ones(2))
        compiled(mx.ones(2))
    finally:
        mx.enable_compile()
    assert len(calls) == 2


class TestShapeless:
    def test_one_trace_for_all_sizes(self):
        fun, calls = counted(lambda x, w: mx.tanh(x @ w).sum(axis=1) / x.shape[0])
        compiled = mx.compile(fun, shapeless=True)
        for n in (3, 1, 0, 17, 256):
            x, w = np.random.default_rng(n).normal(size=(n, 4)), np.full((4, 5), 0.1)
            got = compiled(mx.array(x, dtype=mx.float64), mx.array(w, dtype=mx.float64))
            np.testing.assert_allclose(np.array(got), np.tanh(x @ w).sum(1) / max(n, 1), rtol=1e-12)
        assert len(calls) == 1

    def test_guard_retraces(self):
        def f(x):
            if x.shape[0] > 4:
                return x * 2
            return x

        fun, calls = counted(f)
        compiled = mx.compile(fun, shapeless=True)
        assert compiled(mx.ones(3)).tolist() == [1] * 3
        assert compiled(mx.ones(2)).tolist() == [1] * 2
        assert len(calls) == 1
        assert compiled(mx.ones(6)).tolist() == [2] * 6
        assert compiled(mx.ones(7)).tolist() == [2] * 7
        assert len(calls) == 2

    def test_broadcasting_of_the_sample_becomes_a_guard(self):
        fun, calls = counted(lambda x, y: x + y)
        compiled = mx.compile(fun, shapeless=True)
        assert compiled(mx.ones((2, 3)), mx.ones((2, 3))).shape == (2, 3)
        assert compiled(mx.ones((5, 4)), mx.ones((5, 4))).shape == (5, 4)
        assert len(calls) == 1
        assert compiled(mx.ones((5, 4)), mx.ones((1, 4))).shape == (5, 4)
        assert len(calls) == 2
        with pytest.raises(ValueError, match="broadcast"):
            compiled(mx.ones((5, 4)), mx.ones((3, 4)))

    def test_reshape_and_mean(self):
        compiled = mx.compile(lambda x: x.reshape(-1).mean(), shapeless=True)
        for shape in ((2, 3), (4, 5), (1, 1)):
            assert compiled(mx.ones(shape)).item() == 1
        assert compiled.traces == 1

    def test_extents_that_agree_by_a_guard(self):
        def hessian(x, eye):
            gradient = mx.grad(lambda y: (mx.sin(y) * y).sum())
            return mx.vmap(lambda v: mx.jvp(gradient, [x.reshape(-1)], [v])[1][0])(eye)

        compiled = mx.compile(hessian, shapeless=True)
        for shape in ((3, 2), (2, 2)):
            x = np.linspace(0, 1, shape[0] * shape[1]).reshape(shape)
            got = compiled(mx.array(x, dtype=mx.float64), mx.eye(x.size, dtype=mx.float64))
            second = 2 * np.cos(x.reshape(-1)) - x.reshape(-1) * np.sin(x.reshape(-1))
            np.testing.assert_allclose(np.array(got), np.diag(second), rtol=1e-12, atol=1e-15)
        assert compiled.traces == 1

    @pytest.mark.parametrize(
        "fun",
        [
            lambda x: mx.vmap(mx.checkpoint(lambda z: mx.sin(z) * z.sum()))(x),
            lambda x: mx.vmap(mx.grad(lambda y: (mx.sin(y) * y).sum() / y.shape[0]))(x),
            lambda x: mx.grad(lambda z: mx.vmap(lambda y: (y[:-1] * y[1:]).sum())(z).sum())(x),
            lambda x: mx.vmap(lambda r: mx.cond(r.sum() > 0, lambda y: y * y, mx.sin, r))(x),
            lambda x: mx.vmap(lambda r: mx.while_loop(lambda s: (s * s).sum() < 50, lambda s: s * 2 + 1, r))(
                x
            ),
            lambda x: mx.jvp(lambda y: y @ y.T, [x], [x * 2])[1][0],
            lambda x: mx.while_loop(
                lambda s: s[1] < x.shape[1], lambda s: (s[0] + x[0] * x[-1], s[1] + 1), (x[0], 0)
            )[0],
            lambda x: mx.cond(x.sum() > 0, lambda: x[1:].sum(), lambda: x[0].sum()),
            lambda x: mx.grad(lambda y: mx.checkpoint(lambda z: mx.sin(z) * z.shape[0])(y).sum())(x),
        ],
        ids=[
            "vmap checkpoint",
            "vmap grad",
            "grad vmap",
            "vmap cond",
            "vmap while",
            "jvp",
            "while indexing",
            "cond slicing",
            "grad checkpoint",
        ],
    )
    def test_transforms_inside(self, fun):
        compiled = mx.compile(fun, shapeless=True)
        for shape in ((3, 4), (5, 2), (1, 3)):
            x = mx.array(np.random.default_rng(0).normal(size=shape), dtype=mx.float64)
            np.testing.assert_allclose(np.array(compiled(x)), np.array(fun(x)), rtol=1e-9, atol=1e-12)
        assert compiled.traces == 1
        verify(compiled.graphs()[0])  # graphs inside it take no more for granted than they say

    def test_an_extent_used_as_a_number_is_fixed_with_a_warning(self):
        compiled = mx.compile(lambda x: x * x.shape[-1] ** -0.5, shapeless=True)
        with pytest.warns(UserWarning, match=r"s1 was used as a number at .*test_compile\.py:\d+.*s1 == 4"):
            assert compiled(mx.ones((2, 4))).tolist() == [[0.5] * 4] * 2
        assert compiled(mx.ones((5, 4))).shape == (5, 4) and compiled.traces == 1
        with pytest.warns(UserWarning, match="s1 == 16"):
            assert compiled(mx.ones((2, 16)))[0, 0].item() == 0.25
        assert compiled.traces == 2


def test_threads_trace_a_signature_once():
    fun, calls = counted(lambda x: mx.tanh(x) * 2)
    compiled = mx.compile(fun)
    start = threading.Barrier(8)
    wrong = []

    def work(k):
        start.wait()
        for n in range(1, 6):
            x = np.full(n, 0.1 * k, np.float32)
            if not np.allclose(np.array(compiled(mx.array(x))), np.tanh(x) * 2, rtol=1e-5):
                wrong.append((k, n))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and len(calls) == 5
