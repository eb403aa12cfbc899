"""Lazy evaluation: when things run, long chains, threads, memory, tiers."""

import gc
import os
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import ingot as mx
from ingot.runtime.evaluator import Runtime
from ingot.tracer.evaluate import evaluator


def pending(x):
    return x._value.storage is None


def test_nothing_runs_before_it_is_needed():
    a = mx.ones(3) + 1
    assert pending(a)
    b = a * 2
    mx.eval(b)
    assert not pending(b) and b._value.node is None
    assert not pending(a)  # it was computed on the way, and somebody holds it


@pytest.mark.parametrize(
    "use",
    [
        str,
        repr,
        lambda x: x.tolist(),
        np.array,
        memoryview,
        lambda x: mx.eval({"x": [x]}),
        np.from_dlpack,
        len,
    ],
    ids=["str", "repr", "tolist", "numpy", "memoryview", "eval", "dlpack", "len"],
)
def test_what_evaluates(use):
    x = mx.arange(3) + 1
    use(x)
    assert pending(x) == (use is len)


def test_control_flow_evaluates():
    x = mx.array(1.0) + 1
    assert x > 0
    assert pending(x) is False


def test_unused_results_are_never_computed():
    a = mx.ones(3)
    unused = mx.exp(a)
    used = a + 1
    mx.eval(used)
    assert pending(unused)


def test_eval_twice_is_a_no_op():
    x = mx.ones(3) + 1
    mx.eval(x)
    storage = x._value.storage
    mx.eval(x, [x])
    assert x._value.storage is storage


def test_chain_of_200_000_operations():
    x = mx.array(0.0)
    for _ in range(200_000):
        x = x + 1
    assert x.item() == 200_000
    y = mx.array(0.0)
    for _ in range(200_000):
        y = y + 1
    del y  # dropped without evaluation
    gc.collect()


def test_gradient_of_a_long_chain():
    def f(x):
        for _ in range(5_000):
            x = x * 1.0001
        return x

    assert mx.grad(f)(mx.array(1.0, dtype=mx.float64)).item() == pytest.approx(1.0001**5000)


def test_intermediate_results_are_freed_on_the_way():
    import tracemalloc

    n = 1 << 18
    tracemalloc.start()
    x = mx.zeros(n)
    for _ in range(50):
        x = x + 1
    mx.eval(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * n * 4


def test_a_value_kept_from_a_gradient_holds_no_graph():
    kept, seen = [], []

    def f(x):
        y = mx.sin(x)
        seen.append(weakref.ref(y._value))
        kept.append(mx.sin(y) * 3)
        mx.eval(kept)
        return (kept[0] * y).sum(), x

    (loss, x), gradient = mx.value_and_grad(f)(mx.ones(3) + 1)
    mx.eval(loss, gradient)
    assert kept[0]._value.node is None and x._value.node is None and seen[0]() is None


@pytest.mark.parametrize("tier", ["interpret", "compile"])
def test_training_holds_no_history(monkeypatch, tier):
    monkeypatch.setattr(evaluator(), "_tier", tier)
    w = mx.array([1.0, 2.0, 3.0])
    first = weakref.ref(w._value)
    for _ in range(3):
        loss, gradient = mx.value_and_grad(lambda w: (mx.sin(w) * w).sum())(w)
        w = w - 0.1 * gradient
        mx.eval(w, loss)
    assert w._value.node is None and first() is None


def test_threads_share_lazy_graphs():
    rng = np.random.default_rng(0)
    base = mx.array(rng.normal(size=(64, 64)).astype(np.float32))
    for _ in range(20):
        shared = [base]
        for i in range(20):
            shared.append(mx.tanh(shared[-1] + shared[i // 2]))
        expected = [np.array(base)]
        for i in range(20):
            expected.append(np.tanh(expected[-1] + expected[i // 2]))
        errors = []
        start = threading.Barrier(8)

        def work(k, shared=shared, expected=expected, start=start, errors=errors):
            start.wait()
            try:
                for j in range(len(shared)):
                    i = (j * 7 + k * 3) % len(shared)
                    np.testing.assert_allclose(np.array(shared[i]), expected[i], rtol=1e-4, atol=1e-5)
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not errors, errors[0]


def test_tracing_state_belongs_to_the_thread():
    inside, done = threading.Event(), threading.Event()
    found = []

    def f(x):
        inside.set()
        done.wait(10)
        return x * 2

    worker = threading.Thread(target=lambda: found.append(mx.vmap(f)(mx.ones(3)).tolist()))
    worker.start()
    inside.wait(10)
    x = mx.ones(2)
    x[0] = 5  # would be an error inside the other thread's trace
    assert (x + 1).tolist() == [6, 2]
    done.set()
    worker.join()
    assert found == [[2, 2, 2]]


def test_compiled_tier_gives_the_same():
    code = (
        "import ingot as mx, numpy as np\n"
        "x = mx.arange(12).reshape(3, 4).astype(mx.float32)\n"
        "y = mx.softmax(mx.exp(x / 12) @ x.T, axis=-1)\n"
        "x[0] = 1\n"
        "print(repr((y.sum() + x.sum()).item()))\n"
    )
    results = []
    for tier in ("interpret", "compile"):
        env = {**os.environ, "INGOT_EAGER": tier}
        out = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        results.append(float(out.stdout))
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_unknown_tier_is_an_error(monkeypatch):
    monkeypatch.setenv("INGOT_EAGER", "fast")
    with pytest.raises(ValueError, match="INGOT_EAGER='fast'.*interpret, compile"):
        Runtime().evaluate([(mx.ones(2) + 1)._value])


def test_evaluator_is_installed():
    assert type(evaluator()).__name__ == "Runtime"


class TestUpdatesInPlace:
    """Updates of an array that has one owner write into its memory; nobody else may ever see them."""

    @staticmethod
    def address(x):
        mx.eval(x)
        return x._value.storage.pointer

    @pytest.mark.parametrize(
        "update",
        [
            lambda x: x.__setitem__(0, 5),
            lambda x: x.__setitem__(slice(1, 3), mx.array([7.0, 8.0])),
            lambda x: x.__setitem__(mx.array([1, 2]), 9.0),
            lambda x: x._rebind(x.at[mx.array([1, 1])].add(1.0), "at"),
        ],
        ids=["item", "slice", "gathered", "at add"],
    )
    def test_memory_is_kept(self, monkeypatch, update):
        monkeypatch.setattr(evaluator(), "_tier", "interpret")
        x = mx.zeros(1000) + 1
        before, expected = self.address(x), mx.array(np.ones(1000, np.float32))
        kept = expected * 1
        mx.eval(expected, kept)
        update(x)
        assert self.address(x) == before
        other = mx.array(np.array(kept))
        update(other)
        np.testing.assert_array_equal(np.array(x), np.array(other))

    def test_not_while_another_array_shares_the_value(self):
        x = mx.zeros(10) + 1
        mx.eval(x)
        y = mx.array(x)
        doubled = x * 2  # lazy: reads the old value later
        reshaped = x.reshape(2, 5)
        mx.eval(reshaped)
        x[0] = 5
        mx.eval(x)
        assert y.tolist() == [1] * 10 and doubled.tolist() == [2] * 10
        assert reshaped.tolist() == [[1] * 5] * 2 and x[0].item() == 5

    def test_not_while_numpy_or_a_graph_sees_it(self):
        x = mx.zeros(10) + 1
        view = np.array(x, copy=False)
        x[0] = 5
        mx.eval(x)
        assert view[0] == 1
        z = mx.zeros(10) + 1
        compiled = mx.compile(lambda y: y + z)
        assert compiled(mx.zeros(10)).tolist() == [1] * 10
        z[0] = 5
        mx.eval(z)
        assert compiled(mx.zeros(10)).tolist() == [1] * 10

    def test_shifted_onto_itself(self):
        x = mx.arange(10)
        mx.eval(x)
        x[1:] = x[:-1]
        assert x.tolist() == [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]

    def test_in_gradients(self):
        def f(x):
            y = x * 1
            mx.eval(y)
            z = y * y
            y[0] = 10.0
            mx.eval(y)
            return (z + y).sum()

        assert mx.grad(f)(mx.array([1.0, 2.0])).tolist() == [2, 5]


def test_another_thread_may_evaluate_what_a_gradient_needs():
    def f(x):
        y = mx.exp(x)
        worker = threading.Thread(target=lambda: mx.eval(y))
        worker.start()
        worker.join()
        return (y * y).sum()

    got = mx.grad(f)(mx.array([0.1, 0.2]))
    np.testing.assert_allclose(np.array(got), 2 * np.exp([0.2, 0.4]), rtol=1e-5)
