"""Loops and branches as native control flow, against NumPy and Python's own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot as mx
from ingot.cli.kernels import steps as rows
from ingot.cli.kernels import summary
from ingot.lowering import memory
from ingot.lowering.program import Program, depths
from ingot.lowering.rules.registry import composed
from ingot.runtime import profile
from ingot.runtime.executable import Executable, executable
from ingot.runtime.interpreter import InterpretedGraph
from ingot.tracer import dtypes
from ingot.tracer.array import array, leaf
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim, Guard
from ingot.tracer.errors import GuardError
from ingot.tracer.graph import GraphBuilder
from ingot.tracer.primitives import elementwise as ew
from ingot.tracer.primitives.control import WhileLoop
from ingot.tracer.primitives.elementwise import Add
from ingot.tracer.trace import trace

F32, I32 = dtypes.float32, dtypes.int32
N = Dim("N", min=0, max=4096)


def made(fun: Callable[..., Sequence[array]], *avals: Aval) -> Executable:
    return executable(trace(fun, avals, name="f").graph)


def check(
    fun: Callable[..., Sequence[array]],
    avals: Sequence[Aval],
    *calls: Sequence[np.ndarray],
    hosts: int = 0,
    tolerance: float = 1e-6,
) -> Executable:
    """One program, run on the operands of every call, against the interpreter."""
    graph = trace(fun, avals, name="f").graph
    native = executable(graph)
    assert len(native.program.hosts) == hosts
    again = Program.from_data(msgpack.unpackb(msgpack.packb(native.program.to_data())))
    assert again == native.program
    for operands in calls:
        got = native([leaf(x) for x in operands])
        expected = InterpretedGraph(graph)([leaf(x) for x in operands])
        assert len(got) == len(expected)
        for g, e in zip(got, expected, strict=True):
            assert g.view.dtype == e.view.dtype and g.view.shape == e.view.shape
            np.testing.assert_allclose(g.view, e.view, rtol=2 * tolerance, atol=tolerance)
    return native


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).uniform(0.5, 4, shape).astype(np.float32)


def scalar(n: int) -> np.ndarray:
    return np.asarray(n, np.int32)


def marks(native: Executable) -> list[str]:
    return [step.mark for step in native.program.steps if step.mark]


# -- loops ---------------------------------------------------------------------------------------------------


def test_newton_iteration() -> None:
    def root(x: array) -> list[array]:
        def going(s):
            return (abs(s[0] * s[0] - x) > 1e-5 * x).any()

        return list(mx.while_loop(going, lambda s: (0.5 * (s[0] + x / s[0]), s[1] + 1), (x, mx.array(0))))

    native = check(
        root, [Aval((N,), F32)], [floats(5)], [floats(1000)], [floats(0)], [np.ones(3, np.float32)]
    )
    assert marks(native) == ["while", "do", "end"]
    found, count = native([leaf(floats(100))])
    np.testing.assert_allclose(found.view, np.sqrt(floats(100)), rtol=1e-5)
    assert 2 <= count.view <= 10


@settings(max_examples=40, deadline=None)
@given(st.integers(-3, 60), st.integers(-1000, 1000))
def test_counters(n: int, start: int) -> None:
    native = made(counted, Aval((), I32), Aval((), I32))
    i, total = native([leaf(scalar(n)), leaf(scalar(start))])
    assert i.view == max(n, 0) and total.view == start + sum(range(max(n, 0)))


def counted(n: array, start: array) -> list[array]:
    return list(mx.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] + s[0]), (mx.array(0), start)))


@pytest.mark.parametrize("turns", range(5))
def test_state_that_is_permuted(turns: int) -> None:
    def rotate(n, a, b, c):
        return list(
            mx.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[2], s[3], s[1]), (mx.array(0), a, b, c))
        )

    row = Aval((N,), F32)
    a, b, c = (floats(7) + k for k in range(3))
    native = check(rotate, [Aval((), I32), row, row, row], [scalar(turns), a, b, c])
    got = [v.view for v in native([leaf(x) for x in (scalar(turns), a, b, c)])[1:]]
    for g, e in zip(got, np.roll([a, b, c], -turns, axis=0), strict=True):
        np.testing.assert_array_equal(g, e)


def test_state_that_stays_is_not_copied() -> None:
    def f(n, x):
        _, y, z = mx.while_loop(
            lambda s: s[0] < n, lambda s: (s[0] + 1, s[1], s[2] + s[1]), (mx.array(0), x, x)
        )
        return [y * 2, z]

    native = check(f, [Aval((), I32), Aval((N,), F32)], [scalar(4), floats(9)], [scalar(0), floats(9)])
    (loop,) = [s for s in native.program.steps if s.mark == "while"]
    assert len(loop.buffers) == 4  # the counter and z, two buffers each


def test_results_that_are_passed_on_or_literal() -> None:
    def f(x):
        n, y, flag = mx.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1], True), (0, x, False))
        return [n, y, flag, y]

    check(f, [Aval((N,), F32)], [floats(4)])


def test_the_result_of_one_loop_feeds_the_next() -> None:
    def f(x, n):
        for k in range(1, 4):
            _, x = mx.while_loop(
                lambda s: s[0] < n, lambda s, k=k: (s[0] + 1, s[1] * 0.5 + k), (mx.array(0), x)
            )
        return [x, x.sum()]

    native = check(f, [Aval((N,), F32), Aval((), I32)], [floats(6), scalar(5)], [floats(600), scalar(2)])
    assert marks(native) == ["while", "do", "end"] * 3


def test_one_program_for_all_sizes() -> None:
    def power(x, n):
        return [
            mx.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] @ x), (mx.array(0), mx.eye(3)))[1]
        ]

    check(power, [Aval((3, 3), F32), Aval((), I32)], *([floats(3, 3), scalar(n)] for n in (0, 1, 5)))

    def smooth(x, n):
        def body(s):
            i, y = s
            return i + 1, (mx.concatenate([y[1:], y[:1]]) + y) / 2

        return [mx.while_loop(lambda s: s[0] < n, body, (mx.array(0), x))[1]]

    check(
        smooth, [Aval((Dim("M", min=1),), F32), Aval((), I32)], *([floats(m), scalar(4)] for m in (1, 2, 33))
    )


# -- branches ------------------------------------------------------------------------------------------------


def test_branches() -> None:
    def f(p, x, y):
        a, b, c = mx.cond(p > 0, lambda x, y: (x + y, x, y.sum()), lambda x, y: (x * y, y, x.max()), x, y)
        return [a, b, c, a + b]

    row = Aval((Dim("M", min=1),), F32)
    x, y = floats(5), floats(5) + 1
    native = check(f, [Aval((), I32), row, row], [scalar(1), x, y], [scalar(0), x, y])
    assert marks(native) == ["if", "else", "end"]


def test_only_the_chosen_branch_runs() -> None:
    def f(p, x, i):
        return [mx.cond(p > 0, lambda x, i: x[i], lambda x, i: x.sum(), x, i)]

    native = made(f, Aval((), I32), Aval((4,), F32), Aval((), I32))
    x = floats(4)
    assert native([leaf(scalar(1)), leaf(x), leaf(scalar(3))])[0].view == x[3]
    np.testing.assert_allclose(
        native([leaf(scalar(0)), leaf(x), leaf(scalar(9))])[0].view, x.sum(), rtol=1e-6
    )
    with pytest.raises(IndexError, match="index 9"):
        native([leaf(scalar(1)), leaf(x), leaf(scalar(9))])


def test_branches_that_are_known() -> None:
    def f(x):
        return [mx.cond(True, lambda x: x + 1, lambda x: x - 1, x), mx.cond(False, mx.exp, mx.sqrt, x)]

    check(f, [Aval((N,), F32)], [floats(3)])


# -- nesting -------------------------------------------------------------------------------------------------


def collatz(limit: array) -> list[array]:
    """The start below `limit` of the longest Collatz sequence, and its length."""

    def length(n: array) -> array:
        def step(s):
            n, k = s
            return mx.cond(n % 2 == 0, lambda n: n // 2, lambda n: 3 * n + 1, n), k + 1

        return mx.while_loop(lambda s: s[0] > 1, step, (n, mx.array(0)))[1]

    def body(s):
        n, best, most = s
        found = length(n)
        best, most = mx.cond(found > most, lambda: (n, found), lambda: (best, most))
        return n + 1, best, most

    _, best, most = mx.while_loop(lambda s: s[0] < limit, body, (mx.array(1), mx.array(1), mx.array(0)))
    return [best, most]


def test_loops_and_branches_nest() -> None:
    native = check(collatz, [Aval((), I32)], [scalar(30)], [scalar(0)])
    assert [v.view for v in native([leaf(scalar(1000))])] == [871, 178]
    assert max(depths(native.program.steps)) == 3


def test_a_loop_in_a_branch_and_a_branch_in_a_condition() -> None:
    def f(p, x, n):
        def many(x):
            def going(s):
                return mx.cond(s[0] < 3, lambda s: True, lambda s: (s[1] < 100).all(), s)

            return mx.while_loop(going, lambda s: (s[0] + 1, s[1] * 1.5), (n, x))

        return list(mx.cond(p > 0, many, lambda x: (n, x), x))

    calls = [[scalar(p), floats(6), scalar(n)] for p in (0, 1) for n in (0, 50)]
    check(f, [Aval((), I32), Aval((N,), F32), Aval((), I32)], *calls)


def test_a_permuting_loop_in_a_loop() -> None:
    def f(n, x, y):
        def outer(s):
            i, x, y = s
            _, x, y = mx.while_loop(
                lambda t: t[0] < i, lambda t: (t[0] + 1, t[2], t[1] + 1), (mx.array(0), x, y)
            )
            return i + 1, y, x * 0.5

        return list(mx.while_loop(lambda s: s[0] < n, outer, (mx.array(0), x, y)))

    row = Aval((N,), F32)
    check(f, [Aval((), I32), row, row], *([scalar(n), floats(5), floats(5) * 3] for n in range(6)))


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_bodies(random) -> None:  # type: ignore[no-untyped-def]
    """Random states, permuted, combined, passed on, and chosen."""
    width = random.randint(1, 4)

    def step(s, depth):
        new = []
        for k in range(width):
            a, b = random.randrange(width), random.randrange(width)
            kind = random.choice(["same", "swap", "add", "mean", "choose", "loop"][: 6 if depth else 4])
            if kind == "same":
                new.append(s[k])
            elif kind == "swap":
                new.append(s[a])
            elif kind == "add":
                new.append((s[a] + s[b] * 0.5) * 0.5)
            elif kind == "mean":
                new.append(s[a] - s[b].mean())
            elif kind == "choose":
                # not just `>`: sums of what has lost its mean are all about zero, which rounding decides
                far = s[a].sum() > s[b].sum() + 0.37
                new.append(mx.cond(far, lambda x, y: x * 0.5, lambda x, y: y, s[a], s[b]))
            else:
                inner = mx.while_loop(
                    lambda t: t[0] < 2, lambda t: (t[0] + 1, *step(t[1:], depth - 1)), (mx.array(0), *s)
                )
                new.append(inner[1 + a])
        return new

    def f(n, *xs):
        return list(
            mx.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, *step(s[1:], 1)), (mx.array(0), *xs))
        )

    xs = [floats(5) + k for k in range(width)]
    check(
        f,
        [Aval((), I32), *[Aval((Dim("M", min=1),), F32)] * width],
        *([scalar(n), *xs] for n in (0, 1, 2, 5)),
        tolerance=1e-4,  # differences of means cancel, again and again
    )


# -- host calls, errors, interrupts --------------------------------------------------------------------------


def test_host_calls_in_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(composed, (ew.Exp, "c"))

    def f(x, n):
        def body(s):
            z = mx.exp((s[1] * 0.1).astype(mx.complex64))
            return s[0] + 1, z.astype(mx.float32)

        return list(mx.while_loop(lambda s: s[0] < n, body, (mx.array(0), x)))

    graph = trace(f, [Aval((N,), F32), Aval((), I32)], name="f").graph
    native = executable(graph)
    assert native.program.hosts and marks(native) == ["while", "do", "end"]
    for n in (0, 1, 3):
        y = x = floats(4)
        for _ in range(n):
            y = np.exp(y * np.float32(0.1))
        np.testing.assert_allclose(native([leaf(x), leaf(scalar(n))])[1].view, y, rtol=1e-5)


def test_an_index_out_of_bounds_in_a_body() -> None:
    def f(x, n):
        return list(
            mx.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] + x[s[0]]), (mx.array(0), x[0]))
        )

    native = made(f, Aval((6,), F32), Aval((), I32))
    x = floats(6)
    np.testing.assert_allclose(native([leaf(x), leaf(scalar(6))])[1].view, x.sum() + x[0], rtol=1e-6)
    with pytest.raises(IndexError, match="index 6 is out of bounds for an axis of size 6"):
        native([leaf(x), leaf(scalar(7))])
    np.testing.assert_allclose(native([leaf(x), leaf(scalar(0))])[1].view, x[0])


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_an_endless_loop_can_be_interrupted() -> None:
    native = made(lambda x: [mx.while_loop(lambda s: s > -1, lambda s: (s + 1) % 1000, x)], Aval((), I32))
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        native([leaf(scalar(0))])
    assert time.monotonic() - start < 10
    timer.join()
    with pytest.raises(KeyboardInterrupt):  # and again, with the same frame
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        native([leaf(scalar(0))])
    timer.join()


# -- around --------------------------------------------------------------------------------------------------


def test_exported_and_imported(tmp_path: Path) -> None:
    def f(x, n):
        y = mx.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, mx.sin(s[1]) + x), (mx.array(0), x))[1]
        return mx.cond(n > 3, lambda y: y * 2, lambda y: -y, y)

    file = str(tmp_path / "f.ingot")
    mx.export_function(file, f, mx.zeros((4,)), mx.array(0), shapeless=True)
    g = mx.import_function(file)
    for n, size in ((0, 4), (3, 9), (7, 2)):
        x = floats(size)
        y = x
        for _ in range(n):
            y = np.sin(y) + x
        (got,) = g(mx.array(x), mx.array(n))
        np.testing.assert_allclose(np.array(got), y * 2 if n > 3 else -y, rtol=1e-5)


def test_derivatives_and_batches_of_loops_are_native_too() -> None:
    def f(x):
        return mx.while_loop(lambda s: (s * s).sum() < 50, lambda s: s * 1.25 + 0.5, x)

    def pushed(x):
        (y,), (t,) = mx.jvp(f, [x], [mx.ones(x.shape)])
        return [y, t]

    check(pushed, [Aval((5,), F32)], [floats(5)])
    check(lambda x: [mx.vmap(f)(x)], [Aval((3, 5), F32)], [floats(3, 5)])
    check(
        lambda x: [mx.grad(lambda x: mx.cond(x.sum() > 5, mx.sin, mx.exp, x).sum())(x)],
        [Aval((4,), F32)], [floats(4)], [floats(4) * 0.1],
    )  # fmt: skip


def test_the_table_shows_blocks_indented() -> None:
    program = made(collatz, Aval((), I32)).program
    infos = profile.steps(program)
    assert {i.name for i in infos if not i.loop} == {"while", "do", "if", "else", "end"}
    text = summary(rows(program))
    assert "\n  while" in text and "0 host calls" in text
    assert f"{len(program.kernels)} native kernels" in text


def test_threads_run_one_loop_at_the_same_time() -> None:
    def f(x: array, n: array) -> list[array]:
        return [mx.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] * 0.5 + 1), (mx.array(0), x))[1]]

    native = made(f, Aval((N,), F32), Aval((), I32))
    found: dict[int, list[np.ndarray]] = {k: [] for k in range(4)}

    def work(k: int) -> None:
        for _ in range(20):
            found[k].append(native([leaf(np.full(100 + k, k, np.float32)), leaf(scalar(3))])[0].view)

    threads = [threading.Thread(target=work, args=(k,)) for k in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, results in found.items():
        assert len(results) == 20
        for result in results:
            np.testing.assert_array_equal(result, np.full(100 + k, k / 8 + 1.75, np.float32))


def test_a_state_whose_shape_agrees_only_by_a_guard() -> None:
    m = Dim("M", min=0, max=4096)
    row = Aval((N,), F32)
    going = trace(lambda x: [x.sum() < 100], [row], name="going", close=True).graph
    body = trace(lambda x: [x * 2 + 1], [row], name="body", close=True).graph
    b = GraphBuilder("f", [row, Aval((m,), F32)], ["x", "y"], [Guard("eq", N, m)])
    (s,) = b.add(Add(), [0, 1])
    (looped,) = b.add(WhileLoop(going, body, 0, 0), [1])
    (total,) = b.add(Add(), [s, looped])
    native = executable(b.finish([looped, total]))
    x, y = floats(6), floats(6) + 1
    z = y
    while z.sum() < 100:
        z = z * 2 + 1
    got = native([leaf(x), leaf(y)])
    np.testing.assert_allclose(got[0].view, z, rtol=1e-6)
    np.testing.assert_allclose(got[1].view, x + y + z, rtol=1e-6)
    with pytest.raises(GuardError):
        native([leaf(x), leaf(y[:5])])


def test_a_loop_that_changes_nothing() -> None:
    def f(x: array, p: array) -> list[array]:
        return [mx.while_loop(lambda s: p > 0, lambda s: s, x)]

    check(f, [Aval((N,), F32), Aval((), I32)], [floats(5), scalar(0)])


def test_memory_of_the_outside_survives_every_iteration() -> None:
    """A value that only the first step of the body reads is still there in the next iteration."""
    avals = [Aval((8,), F32)] * 6
    steps = [
        ("", (0, 1)),
        ("while", (2, 3)),
        ("", (2, 4)),
        ("do", (4,)),
        ("", (1, 5)),
        ("", (5, 3)),
        ("end", ()),
    ]
    plan = memory.plan(avals, {0: ("input", 0)}, steps)
    place = {v: plan.buffers[n].index for v, n in plan.number.items() if v}
    assert len({place[v] for v in (1, 2, 3, 5)}) == 4


def test_a_complex_state() -> None:
    def f(x: array, n: array) -> list[array]:
        def body(s: tuple[array, ...]) -> tuple[array, ...]:
            return s[0] + 1, s[2], s[1] * s[2], s[3]

        z = x.astype(mx.complex64)
        return list(mx.while_loop(lambda s: s[0] < n, body, (mx.array(0), z * 1j, z, z)))

    graph = trace(f, [Aval((N,), F32), Aval((), I32)], name="f").graph
    native = executable(graph)
    assert marks(native) == ["while", "do", "end"] and not native.program.hosts
    for n in range(4):
        operands = [leaf(floats(5)), leaf(scalar(n))]
        for g, e in zip(native(operands), InterpretedGraph(graph)(operands), strict=True):
            np.testing.assert_allclose(g.view, e.view, rtol=1e-5)
