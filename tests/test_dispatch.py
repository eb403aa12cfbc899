"""Calls that native code answers: the same results, errors and reference counts as Python's."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest

import ingot as mx
from ingot.runtime import dispatch, dispatch_native, threads, threads_native
from ingot.runtime.evaluator import Runtime
from ingot.tracer import evaluate
from ingot.tracer.evaluate import Dispatched


@pytest.fixture(autouse=True, scope="module")
def _started():
    """From the second call on, as far as native code takes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INGOT_DISPATCH", "native")
        before = evaluate.evaluator()
        evaluate.install(Runtime())
        assert mx.runtime_info()["dispatch"] == "native"
        yield
        evaluate.install(before)


def is_native(result) -> bool:
    """Values that native code makes have no number; others have one of their own."""
    return result._value.serial == 0


def warm(fun, *args, **kwargs):
    for _ in range(3):
        result = fun(*args, **kwargs)
    return result


def leaves(result):
    return mx.utils.tree_flatten(result)


def arr(*values, dtype=None):
    return mx.array(list(values), dtype)


# -- what is answered natively --------------------------------------------------------------------------


def test_one_array():
    f = mx.compile(lambda x: x + 1)
    x = arr(1.0, 2.0)
    first = f(x)
    assert not is_native(first)
    results = [f(x) for _ in range(10)]
    assert all(is_native(y) for y in results[2:])
    assert all(type(y) is mx.array and y.tolist() == [2.0, 3.0] for y in results)
    assert f.traces == 1 and f.__name__ == "<lambda>" and callable(f.__wrapped__) and len(f.graphs()) == 1


@pytest.mark.parametrize(
    "name", ["float32", "int32", "bool_", "float16", "bfloat16", "uint8", "int64", "complex64"]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (1, 2, 3, 4)])
def test_dtypes_and_shapes(name, shape):
    dtype = getattr(mx, name)
    f = mx.compile(lambda x, y: (mx.where(x == y, x, y), x))
    x = mx.array(np.ones(shape, np.float32), dtype)
    y = mx.array(np.zeros(shape, np.float32), dtype)
    expected = f(x, y)
    found = warm(f, x, y)
    assert is_native(found[0]) and is_native(found[1])
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()


def test_trees_of_arguments_and_results():
    def fun(tree, *rest, scale, flag=True, name="a"):
        a, (b, c) = tree["a"], tree["b"]
        out = {"sum": a + b, "list": [c * scale, None, 3, "text"], "pair": (a, ())}
        return out if flag else (rest[0] + 1,) if name == "a" else [a]

    f = mx.compile(fun)
    x, y, z = arr(1.0), arr(2.0), arr(3.0)
    tree = {"a": x, "b": [y, z]}
    for kwargs in (
        {"scale": 2},
        {"scale": 2.5},
        {"scale": -0.0},
        {"scale": 1 << 40},
        {"scale": arr(4.0)},
        {"scale": 3, "flag": False},
        {"scale": 3, "flag": False, "name": "b"},
        {"flag": False, "scale": 3, "name": "b"},
    ):
        expected = fun(tree, z, **kwargs)
        found = warm(f, tree, z, **kwargs)
        assert str(found) == str(expected) and type(found) is type(expected)
        arrays = [a for _, a in leaves(found) if isinstance(a, mx.array)]
        assert arrays and all(map(is_native, arrays))
    assert warm(f, tree, z, scale=2)["list"][3] == "text"
    assert f(tree, z, scale=0.0)["list"][0].item() == 0.0
    assert str(f(tree, z, scale=-0.0)["list"][0].item()) == "-0.0"


def test_other_structures_are_other_calls():
    f = mx.compile(
        lambda t: sum(mx.utils.tree_flatten(t)[i][1] for i in range(len(mx.utils.tree_flatten(t))))
    )
    x, y = arr(1.0), arr(10.0)
    trees = [[x, y], (x, y), {"a": x, "b": y}, {"b": x, "a": y}, [[x], y], [x, [y]], (x, (y,)), [x], [[[x]]]]
    for _ in range(4):
        for t in trees:
            expected = sum(a.item() for _, a in leaves(t))
            assert f(t).item() == expected
    assert f.traces == len(trees)


def test_static_arguments_by_type_and_value():
    seen = []
    f = mx.compile(lambda x, s: (seen.append(s), x * s if isinstance(s, int | float) else x + len(str(s)))[1])
    x = arr(2.0)
    values = [1, True, 1.0, 0, False, 0.0, -0.0, 2**70, -(2**63), 3.5, "a", "b", "", None, float("inf")]
    for _ in range(4):
        for v in values:
            expected = 2.0 * float(np.float32(v)) if isinstance(v, int | float) else 2.0 + len(str(v))
            assert f(x, v).item() == expected, v
    assert len(seen) == len(values)
    nan = float("nan")
    assert np.isnan(warm(f, x, nan).item()) and is_native(f(x, nan))
    dynamic = "".join(["a", "b", "c"])
    assert warm(f, x, dynamic).item() == 5.0
    assert f(x, "".join(["a", "b", "c"])).item() == 5.0  # an equal string elsewhere


def test_numpy_arguments():
    f = mx.compile(lambda x, y: x + y)
    x, y = np.arange(3, dtype=np.float32), mx.array([1.0, 1.0, 1.0])
    assert is_native(warm(f, x, y))
    assert f(x, y).tolist() == [1.0, 2.0, 3.0]
    x += 1
    assert f(x, y).tolist() == [2.0, 3.0, 4.0]
    # the same signature, not answered natively, or another one
    assert f(np.arange(6, dtype=np.float32)[::2], y).tolist() == [1.0, 3.0, 5.0]
    assert f(np.arange(3, dtype=">f4"), y).tolist() == [1.0, 2.0, 3.0]
    assert f(np.arange(3.0), y).dtype == mx.float64
    unaligned = np.frombuffer(bytes(1) + x.tobytes(), np.uint8)[1:].view(np.float32)
    assert f(unaligned, y).tolist() == [2.0, 3.0, 4.0]
    with pytest.raises(Exception, match="shape"):
        f(np.arange(4, dtype=np.float32), y)

    class Sub(np.ndarray):
        pass

    assert f(x.view(Sub), y).tolist() == [2.0, 3.0, 4.0]
    doubles = warm(f, np.ones(3), np.ones(3))
    assert doubles.dtype == mx.float64 and is_native(doubles)


def test_methods_and_subclasses():
    class Model:
        @mx.compile
        def double(self, x):
            return x * 2

    model = Model()
    for _ in range(4):
        assert model.double(arr(2.0)).item() == 4.0

    class Named(mx.array):
        pass

    f = mx.compile(lambda x: x + 1)
    assert is_native(warm(f, arr(1.0)))
    assert f(Named([1.0])).tolist() == [2.0]


def test_copies_and_subclasses_of_functions():
    f = mx.compile(lambda x: x + 1)
    x = arr(1.0)
    assert is_native(warm(f, x))
    other = copy.copy(f)
    assert other._native_call == 0 and is_native(warm(other, x))
    f.clear()
    assert f(x).tolist() == other(x).tolist() == [2.0]

    class Doubled(type(f)):
        def __call__(self, x):
            return super().__call__(x) * 2

    g = Doubled(lambda x: x + 1, None, None, False)
    assert all(g(x).item() == 4.0 for _ in range(5))


def test_shapeless_functions_take_each_shape():
    f = mx.compile(lambda x: mx.softmax(x, axis=-1) + x.shape[0], shapeless=True)
    for _ in range(3):
        for n in range(1, 40):
            x = mx.array(np.zeros((n, 1), np.float32))
            y = f(x)
            assert y.shape == (n, 1) and y.tolist() == [[1.0 + n]] * n
    assert is_native(y) and f.traces == 1


def test_guards_choose_the_trace():
    f = mx.compile(lambda x: x + 1 if x.shape[0] > 3 else x - 1, shapeless=True)
    for _ in range(4):
        for n in (2, 5, 3, 4):
            x = mx.array(np.zeros(n, np.float32))
            assert f(x).tolist() == [1.0 if n > 3 else -1.0] * n
    assert f.traces == 2


@pytest.mark.parametrize("n", [1, 1000, 1024, 1025, 5000, 300_000, 3_000_000])
def test_results_of_all_sizes(n):
    f = mx.compile(lambda x: (x + 1, x * 2))
    x = mx.array(np.arange(n, dtype=np.float32))
    held = []
    for i in range(8):
        a, b = f(x)
        assert i < (2 if n < 100_000 else 7) or is_native(a)  # calls that took long are watched
        if i % 3 == 0:
            held.append((a, b))
        assert a[n - 1].item() == n and b[n - 1].item() == 2 * (n - 1)
    memory = [np.asarray(y).__array_interface__["data"][0] for pair in held for y in pair]
    assert len(set(memory)) == len(memory)
    for a, b in held:
        assert np.array_equal(np.asarray(a), np.arange(n, dtype=np.float32) + 1)
        assert np.array_equal(np.asarray(b), np.arange(n, dtype=np.float32) * 2)


def test_imported_functions(tmp_path):
    path = tmp_path / "f.ingot"
    x, y = arr(1.0, 2.0), arr(3.0, 4.0)
    mx.export_function(path, lambda x, y: (x + y, x * y), x, y=y)
    f = mx.import_function(path)
    found = warm(f, x, y=y)
    assert type(found) is tuple and [a.tolist() for a in found] == [[4.0, 6.0], [3.0, 8.0]]
    assert all(map(is_native, found))
    numpy = warm(f, np.array([1, 2], np.float32), y=np.array([3, 4], np.float32))
    assert [a.tolist() for a in numpy] == [[4.0, 6.0], [3.0, 8.0]] and all(map(is_native, numpy))
    # what is float64 elsewhere becomes float32 on the way
    assert f(np.array([1.0, 2.0]), y=y)[0].tolist() == [4.0, 6.0]
    with pytest.raises(ValueError) as given:
        f(arr(1.0), y=y)
    cold = mx.import_function(path)
    with pytest.raises(ValueError) as expected:
        cold(arr(1.0), y=y)
    assert str(given.value) == str(expected.value)
    assert mx.grad(lambda x: f(x, y=y)[0].sum())(x).tolist() == [1.0, 1.0]


def test_imported_functions_in_all_call_forms(tmp_path):
    path = tmp_path / "f.ingot"
    x, y = arr(1.0), arr(10.0)
    mx.export_function(path, lambda x, y, *, b, a: x - y + 2 * b - 3 * a, x, y, b=arr(100.0), a=arr(1000.0))
    f = mx.import_function(path)
    b, a = arr(100.0), arr(1000.0)
    for _ in range(4):
        for result in (
            f(x, y, b=b, a=a),
            f(x, y, a=a, b=b),
            f((x, y), {"b": b, "a": a}),
            f([x, y], {"a": a, "b": b}),
        ):
            assert result[0].item() == 1 - 10 + 200 - 3000


# -- what is left to Python ------------------------------------------------------------------------------


def test_lazy_arguments_are_recorded():
    f = mx.compile(lambda x: x + 1)
    x = arr(1.0)
    warm(f, x)
    y = f(x * 2)
    assert y._value.storage is None and y.tolist() == [3.0]
    assert f(x * 2 + f(x)).tolist() == [5.0]


def test_inside_transforms_python_answers():
    f = mx.compile(lambda x: (x * x).sum())
    x = arr(1.0, 2.0)
    warm(f, x)
    assert mx.grad(f)(x).tolist() == [2.0, 4.0]
    assert mx.grad(lambda x: f(x) + f(arr(3.0, 4.0)).item())(x).tolist() == [2.0, 4.0]
    assert mx.vmap(f)(arr([1.0, 2.0], [3.0, 4.0])).tolist() == [5.0, 25.0]
    outer = mx.compile(lambda x: f(x) + f(x * 2))
    assert warm(outer, x).item() == 25.0
    assert len(outer.graphs()[0].nodes) > 1
    assert is_native(f(x))


def test_another_thread_in_a_transform():
    f = mx.compile(lambda x: x + 1)
    x = arr(1.0)
    warm(f, x)
    inside, leave = threading.Event(), threading.Event()

    def slow(x):
        inside.set()
        leave.wait(20)
        return (x * f(x)).sum()

    thread = threading.Thread(target=lambda: mx.grad(slow)(x))
    thread.start()
    inside.wait(20)
    assert not is_native(f(x)) and f(x).tolist() == [2.0]
    leave.set()
    thread.join()
    assert is_native(f(x))


def test_disabled_compilation():
    calls = []
    f = mx.compile(lambda x: (calls.append(1), x + 1)[1])
    x = arr(1.0)
    warm(f, x)
    mx.disable_compile()
    try:
        assert f(x).tolist() == [2.0] and len(calls) == 2
    finally:
        mx.enable_compile()
    assert is_native(f(x)) and len(calls) == 2


def test_state_is_left_to_python():
    state = [arr(0.0)]

    def step(x):
        state[0] = state[0] + x
        return state[0] * 2

    f = mx.compile(step, inputs=state, outputs=state)
    for i in range(1, 6):
        y = f(arr(1.0))
        assert y.item() == 2.0 * i and state[0].item() == i and not is_native(y)


def test_clear_forgets_native_calls():
    calls = []
    f = mx.compile(lambda x: (calls.append(1), x + 1)[1])
    x = arr(1.0)
    assert is_native(warm(f, x))
    f.clear()
    assert f.traces == 0
    assert not is_native(f(x)) and len(calls) == 2
    assert is_native(warm(f, x))


def test_errors_of_kernels():
    f = mx.compile(lambda x, i: x[i])
    x = arr(1.0, 2.0, 3.0)
    assert warm(f, x, arr(2)).tolist() == [3.0]
    assert is_native(f(x, arr(1)))
    with pytest.raises(IndexError) as native:
        f(x, arr(5))
    with pytest.raises(IndexError) as python:
        mx.compile(lambda x, i: x[i])(x, arr(5))
    assert (
        str(native.value) == str(python.value) == "[gather] index 5 is out of bounds for an axis of size 3."
    )
    assert f(x, arr(-1)).tolist() == [3.0]


def test_errors_of_arguments():
    f = mx.compile(lambda x: x + 1)
    warm(f, arr(1.0))
    with pytest.raises(TypeError, match="positional argument"):
        f(arr(1.0), arr(1.0))
    with pytest.raises(TypeError, match="unexpected keyword"):
        f(arr(1.0), y=1)
    with pytest.raises(TypeError, match="missing"):
        f()
    with pytest.raises(ValueError, match="hashable"):
        mx.compile(lambda x, y: x)(arr(1.0), {1, 2})


def test_memory_error():
    f = mx.compile(lambda x: mx.broadcast_to(x, (1 << 50,)) + 1)
    for _ in range(3):
        with pytest.raises(MemoryError):
            f(arr(1.0))


def test_recursion_ends_with_an_error():
    f = mx.compile(lambda x: x + 1)
    warm(f, arr(1.0))

    def deep(n):
        return f(object()) if n == 0 else deep(n - 1)

    with pytest.raises((TypeError, ValueError)):
        deep(100)

    def endless(x):
        return endless(f(mx.array(x)))

    g = mx.compile(lambda x: g(x))
    with pytest.raises(RecursionError):
        g(arr(1.0))


# -- what results are ------------------------------------------------------------------------------------


def test_values_are_used_again_only_when_nobody_has_them():
    f = mx.compile(lambda x: x + 1)
    x = arr(1.0)
    warm(f, x)
    view = np.asarray(f(x))  # the array is gone, its memory is seen
    buffer = memoryview(f(x))
    capsule = f(x).__dlpack__()
    lazy = f(x) * 3
    for _ in range(20):
        f(arr(7.0))
    assert view.tolist() == [2.0] and buffer.tolist() == [2.0] and lazy.tolist() == [6.0]
    assert (
        np.from_dlpack(
            type("D", (), {"__dlpack__": lambda s, **k: capsule, "__dlpack_device__": lambda s: (1, 0)})()
        )[0]
        == 2.0
    )
    view[0] = 50.0
    assert f(x).tolist() == [2.0]
    kept = f(x)
    np.asarray(kept)[0] = 9.0
    assert kept.tolist() == [9.0] and f(x).tolist() == [2.0]


def test_results_die():
    f = mx.compile(lambda x: x + 1)
    x = arr(1.0)
    y = warm(f, x)
    died = []
    weakref.finalize(y, died.append, 1)
    del y
    assert died == [1]
    reference = weakref.ref(f(x)._value)
    for _ in range(10):
        f(x)
    assert reference() is None or reference().view.tolist() == [2.0]


def test_kept_results_are_given_back():
    f, g = (mx.compile(lambda x, k=k: x + k) for k in (1, 2))
    x = mx.array(np.ones(5000, np.float32))
    assert is_native(warm(f, x)) and is_native(warm(g, x))
    mx.clear_cache()
    before = mx.get_active_memory()
    results = [f(x), g(x)]
    assert mx.get_active_memory() > before
    del results
    mx.clear_cache()
    assert mx.get_active_memory() == before
    assert f(x).tolist() == [2.0] * 5000


@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 5), (7, 5), (9, 11), (40, 30), (100, 70)])
def test_results_are_in_row_order(shape):
    f = mx.compile(lambda x: (x * 2, mx.transpose(x)))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    held = [warm(f, mx.array(x)) for _ in range(6)]
    for double, turned in held:
        assert is_native(double) and np.array_equal(np.asarray(double), x * 2)
        assert np.array_equal(np.asarray(turned), x.T)


def test_results_are_aligned():
    f = mx.compile(lambda x: x + 1)
    for n in (65, 100, 1024, 1025, 9000):
        x = mx.array(np.zeros(n, np.float32))
        held = [f(x) for _ in range(12)]
        assert is_native(held[-1])
        assert all(np.asarray(y).__array_interface__["data"][0] % 64 == 0 for y in held)
        assert all(y.tolist() == [1.0] * n for y in held)


def test_many_shapes():
    f = mx.compile(lambda x: x + 1, shapeless=True)
    once = [mx.array(np.zeros(n, np.float32)) for n in range(1, 200)]
    for x in once:
        assert f(x).shape == x.shape
    table = f.__dict__["_dispatch"]
    assert len(table.entries) == dispatch._FEW
    for x in once:
        f(x)
    assert len(table.entries) == len(once)
    assert all(is_native(f(x)) and f(x).tolist() == [1.0] * x.size for x in once)


def test_tables_begin_anew_when_they_are_full(monkeypatch):
    monkeypatch.setattr(dispatch, "_MOST_ENTRIES", 8)
    f = mx.compile(lambda x: x + 1)
    for _ in range(3):
        for n in range(1, 30):
            assert f(np.zeros(n, np.float32)).tolist() == [1.0] * n
            assert len(f.__dict__["_dispatch"].entries) <= 8


def test_results_take_part_in_everything():
    f = mx.compile(lambda x: x + 1)
    x = arr(1.0, 2.0)
    y = warm(f, x)
    y += 1
    assert y.tolist() == [3.0, 4.0] and f(x).tolist() == [2.0, 3.0]
    z = f(x)
    z[0] = 10.0
    assert z.tolist() == [10.0, 3.0] and f(x).tolist() == [2.0, 3.0]
    captured = f(x)
    g = (lambda held: mx.compile(lambda v: v * held))(captured)
    for _ in range(4):
        assert g(x).tolist() == [2.0, 6.0]
    del captured
    for _ in range(10):
        f(arr(5.0, 5.0))
    assert g(x).tolist() == [2.0, 6.0]  # a constant of the graph
    with pytest.raises(ValueError, match="updated in place"):
        w = f(x)

        def change(v):
            w[0] = 1.0
            return v + w

        mx.compile(change)(x)
    assert mx.grad(lambda v: (v * f(x)).sum())(x).tolist() == [2.0, 3.0]


def test_constants_of_a_graph_survive():
    f = mx.compile(lambda x: x + 1)
    warm(f, arr(1.0))

    def graph_of():
        constant = f(arr(1.0, 2.0, 3.0))
        return mx.compile(lambda v: v + constant)

    warm(f, arr(1.0, 2.0, 3.0))
    g = graph_of()
    assert g(arr(0.0, 0.0, 0.0)).tolist() == [2.0, 3.0, 4.0]
    for _ in range(10):
        f(arr(8.0, 8.0, 8.0))
    assert g(arr(0.0, 0.0, 0.0)).tolist() == [2.0, 3.0, 4.0]


def test_no_references_leak():
    f = mx.compile(lambda x, t, s=None: {"a": x + t[0], "b": [t[1] * 2, None, "text"]})
    x, y = arr(1.0), arr(2.0)
    n = np.ones(1, np.float32)
    warm(f, x, (y, n), s=3)
    warm(f, x, (y, n))
    kept = f(x, (y, n))["a"]
    i = mx.compile(lambda x, i: x[i])
    pair, low, high = arr(1.0, 2.0), arr(0), arr(9)
    warm(i, pair, low)
    objects = [
        x, y, n, x._value, x._value.view, x._value.storage, kept._value.aval, n.dtype, mx.array,
        type(x._value), type(x._value.storage), f, None, True, 0, "text", "s", low, high, high._value.view,
    ]  # fmt: skip

    def calls(n_calls):
        for _ in range(n_calls):
            f(x, (y, n), s=3)
            f(x, (y, n))
        for _ in range(n_calls // 1000):
            with pytest.raises(IndexError):
                i(pair, high)

    calls(2000)
    gc.collect()
    before, resident = [sys.getrefcount(o) for o in objects], _resident()
    calls(500_000)
    gc.collect()
    after = [sys.getrefcount(o) for o in objects]
    slack = [abs(a - b) for a, b in zip(after, before, strict=True)]
    assert max(slack) < 50, list(zip(before, after, strict=True))
    assert slack[:8] == [0] * 8
    assert _resident() - resident < 4 << 20


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_functions_die_with_their_tables():
    def make():
        f = mx.compile(lambda x: x + 1)
        for n in range(1, 20):
            warm(f, mx.array([1.0] * n) if n % 2 else np.zeros(n, np.float32))
        return weakref.ref(f), weakref.ref(f.__dict__["_dispatch"])

    function, table = make()
    gc.collect()
    assert function() is None and table() is None


# -- threads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 100_000])
def test_concurrent_calls(n):
    f = mx.compile(lambda x, y: mx.softmax(x + y, axis=0) * x)
    y = mx.array(np.ones(n, np.float32))
    inputs = [mx.array(np.full(n, k, np.float32)) for k in range(1, 5)]
    assert is_native(warm(f, inputs[0], y))
    expected = [
        np.asarray(mx.compile(lambda x, y: mx.softmax(x + y, axis=0) * x)(x, y)).copy() for x in inputs
    ]
    wrong, failed = [], []

    def work(k):
        try:
            for _ in range(3000 if n == 1 else 60):
                if not np.array_equal(np.asarray(f(inputs[k % 4], y)), expected[k % 4]):
                    wrong.append(k)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert not wrong and not failed


def test_the_number_of_threads_may_change():
    before = mx.get_num_threads()
    x = mx.random.normal((512, 1024))
    mx.eval(x)
    f = mx.compile(lambda x: mx.exp(x) * mx.sin(x) + mx.tanh(x))
    expected = np.asarray(f(x)).copy()
    try:
        for count in (1, 2, 3, 1, 2):
            mx.set_num_threads(count)
            for _ in range(4):
                y = f(x)
                assert np.array_equal(np.asarray(y), expected)
            assert is_native(y)
    finally:
        mx.set_num_threads(before)


def test_least_work_of_two_threads():
    assert threads.LEAST == 2 * threads_native.GRAIN


# -- the process -----------------------------------------------------------------------------------------


def test_structures_are_those_of_the_native_code():
    n = dispatch_native
    for names, struct in (
        (dispatch.API, n.Api), (dispatch.TABLE, n.Table), (dispatch.ENTRY, n.Entry),
        (dispatch.OUTPUT, n.Output),
    ):  # fmt: skip
        assert {name: 8 * i for i, name in enumerate(names)} == {
            k: at for k, (at, _) in struct.layout().items()
        }
    renamed = {"_value": "value", "_nbytes": "nbytes", "_pointer": "pointer"}
    renamed |= {"_native_call": "call", "_native_table": "table"}
    for slots, struct in zip(dispatch.SLOTS.values(), (n.Function, n.Array, n.Value, n.Storage), strict=True):
        found = {k: at for k, (at, _) in struct.layout().items() if k not in ("references", "type")}
        assert found == {renamed.get(name, name): at for name, at in slots.items()}
    for name in ("WORDS", "LEAVES", "OUTPUTS", "COUNT", "TUPLE", "LIST", "DICT", "LEAF", "STATIC"):
        assert getattr(n, name) == getattr(dispatch, name)


def test_slots_hold_no_objects_and_cannot_be_set():
    f = mx.compile(lambda x: x + 1)
    warm(f, arr(1.0))
    assert isinstance(f._native_call, int) and f._native_call
    with pytest.raises(AttributeError):
        f._native_call = 1
    assert mx.compile(lambda x: x)._native_call == 0
    assert "_dispatch" not in f.__getstate__()
    assert issubclass(type(f), Dispatched)


SETUP = """
import sys
import ingot as mx
assert "ingot.runtime.dispatch" not in sys.modules
f = mx.compile(lambda x: x + 1)
x = mx.array([1.0])
for _ in range(40):
    y = f(x)
assert y.tolist() == [2.0]
"""


def run(code, **environment):
    found = subprocess.run(
        [sys.executable, "-c", SETUP + textwrap.dedent(code)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "INGOT_DISPATCH": "auto", **environment},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_native_code_comes_from_the_cache_without_a_compiler():
    run("f(x)", INGOT_DISPATCH="native")
    out = run("print(y._value.serial, 'llvmlite' in sys.modules, mx.runtime_info()['dispatch'])")
    assert out.split() == ["0", "False", "native"]


def test_few_calls_start_nothing():
    code = """
    import subprocess
    few = "import sys, ingot as mx; f = mx.compile(lambda x: x + 1); [f(mx.array([1.0])) for _ in range(10)]"
    few += "; print('ingot.runtime.dispatch' in sys.modules)"
    print(subprocess.run([sys.executable, "-c", few], capture_output=True, text=True, check=True).stdout)
    """
    assert run(code).split() == ["False"]


def test_python_can_be_asked_for():
    out = run("print(y._value.serial > 0, mx.runtime_info()['dispatch'])", INGOT_DISPATCH="python")
    assert out.split() == ["True", "python:", "INGOT_DISPATCH=python"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("d.SLOTS[d.Value]['view'] = 72", "Value.view is at 64"),
        ("sys.version_info = (3, 99, 0)", "not made for Python 3.99"),
        ("sys.abiflags = 't'", "not made for builds of Python"),
        ("d._CAPSULES = ()", "NumPy's table of functions"),
        ("d.SLOTS[d.Dispatched]['_native_call'] = 24", "Dispatched._native_call is at 16"),
        ("d._KEPT = 1", ""),
    ],
)
def test_surprises_leave_calls_to_python(change, reason):
    code = f"""
    import ingot.runtime.dispatch as d
    d._native = None
    sys.modules["ingot.runtime.evaluator"]
    import ingot.tracer.evaluate as e
    {change}
    print(d.start(compile=True), d.status())
    g = mx.compile(lambda x: x + 2)
    for _ in range(40):
        y = g(x)
    assert y.tolist() == [3.0]
    print(y._value.serial > 0)
    """
    out = run(code, INGOT_DISPATCH="python")
    if reason:
        assert out.startswith("False python") or "python" in out
        assert out.split()[-1] == "True"


def test_interpreters_start_and_end():
    code = """
    import atexit
    class Late:
        def __del__(self):
            assert f(x).tolist() == [2.0]
    late = Late()
    sys.late = Late()
    atexit.register(lambda: f(x))
    """
    for _ in range(30):
        run(code)


def test_after_a_fork():
    f = mx.compile(lambda x: x + 1)
    x = arr(1.0)
    warm(f, x)
    child = os.fork()
    if child == 0:
        ok = f(x).tolist() == [2.0] and is_native(f(x))
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
