"""scan, map, fori_loop and switch against the same computation written out in Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ingot as mx
from ingot.runtime.executable import executable
from ingot.tracer import tree
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.trace import trace

rng = np.random.default_rng(7)


def cell(carry, x):
    h, count = carry
    h = mx.tanh(h * 0.5 + x["a"]) * x["b"]
    return (h, count + 1), {"y": h * 2, "n": count}


def operands(n: int = 7):
    carry = (mx.array(rng.standard_normal(3).astype("f4")), mx.array(0))
    xs = {
        "a": mx.array(rng.standard_normal((n, 3)).astype("f4")),
        "b": mx.array(rng.standard_normal((n, 1)).astype("f4")),
    }
    return carry, xs


def written_out(carry, xs, reverse=False):
    n = xs["a"].shape[0]
    ys = [None] * n
    for i in reversed(range(n)) if reverse else range(n):
        carry, ys[i] = cell(carry, {"a": xs["a"][i], "b": xs["b"][i]})
    return carry, {k: mx.stack([y[k] for y in ys]) for k in ("y", "n")}


def close(a, b):
    for p, q in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert p.dtype == q.dtype and p.shape == q.shape
        np.testing.assert_allclose(np.array(p), np.array(q), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("every", [None, 1, 3, 7, 20])
def test_scan_and_its_gradient(reverse, every):
    carry, xs = operands()

    def scanned(carry, xs):
        return mx.scan(cell, carry, xs, reverse=reverse, checkpoint_every=every)

    close(scanned(carry, xs), written_out(carry, xs, reverse))
    close(mx.compile(scanned)(carry, xs), written_out(carry, xs, reverse))

    def loss(run):
        def f(h, a, b):
            (h, _), ys = run((h, mx.array(0)), {"a": a, "b": b})
            return (h * h).sum() + (ys["y"] * mx.cos(ys["y"])).sum()

        return mx.grad(f, argnums=(0, 1, 2))

    arguments = (carry[0], xs["a"], xs["b"])
    expected = loss(lambda c, x: written_out(c, x, reverse))(*arguments)
    close(loss(scanned)(*arguments), expected)
    close(mx.compile(loss(scanned))(*arguments), expected)


def test_second_derivatives_and_what_is_captured():
    xs = mx.array(rng.standard_normal((5, 2)).astype("f4"))

    def loss(w, scan):
        def turn(h, x):
            h = mx.sin(h * w + x)
            return h, h

        if scan:
            return (mx.scan(turn, mx.zeros(2), xs)[1] ** 2).sum()
        h, total = mx.zeros(2), 0
        for i in range(5):
            h, y = turn(h, xs[i])
            total = total + (y**2).sum()
        return total

    def hessian(scan):
        return mx.grad(lambda w: mx.grad(lambda v: loss(v, scan))(w).sum())

    w = mx.array([0.3, -0.7])
    close(hessian(True)(w), hessian(False)(w))
    tangent = mx.array([1.0, 0.5])
    close(
        mx.jvp(mx.grad(lambda v: loss(v, True)), [w], [tangent])[1],
        mx.jvp(mx.grad(lambda v: loss(v, False)), [w], [tangent])[1],
    )


def test_vmap_over_carry_slices_and_captured():
    w = mx.array(rng.standard_normal((4, 2)).astype("f4"))
    h = mx.array(rng.standard_normal((2, 4)).astype("f4"))
    xs = mx.array(rng.standard_normal((6, 4, 2)).astype("f4"))

    def run(w, h, xs):
        return mx.scan(lambda c, x: (mx.tanh(c * w + x), c.sum()), h, xs)

    got = mx.vmap(run, in_axes=(0, 1, 1))(w, h, xs)
    expected = [run(w[i], h[:, i], xs[:, i]) for i in range(4)]
    close(got, tuple(mx.stack([e[k] for e in expected]) for k in range(2)))
    # only the slices are mapped: the carry becomes so by the body
    got = mx.vmap(run, in_axes=(None, None, 1))(w[0], h[:, 0], xs)
    expected = [run(w[0], h[:, 0], xs[:, i]) for i in range(4)]
    close(got, tuple(mx.stack([e[k] for e in expected]) for k in range(2)))


@pytest.mark.parametrize("n", [0, 1])
def test_short_scans(n):
    carry, ys = mx.scan(lambda c, x: (c + x, c * x), mx.array(1.0), mx.full((n,), 2.0))
    assert carry.item() == 1 + 2 * n and ys.tolist() == [2.0] * n
    compiled = mx.compile(lambda x: mx.scan(lambda c, x: (c + x, c * x), mx.array(1.0), x))
    carry, ys = compiled(mx.full((n,), 2.0))
    assert carry.item() == 1 + 2 * n and ys.tolist() == [2.0] * n


def test_one_native_program_for_all_lengths():
    n = Dim("N", min=0)
    graph = trace(
        lambda xs: list(mx.scan(lambda c, x: (c + x, c), mx.zeros(2), xs)),
        [Aval((n, 2), mx.float32)],
        name="sums",
    ).graph
    program = executable(graph)
    assert not program.program.hosts
    for length in (0, 1, 5):
        xs = mx.array(rng.standard_normal((length, 2)).astype("f4"))
        total, before = program([xs._value])
        np.testing.assert_allclose(total.view, np.array(xs).sum(0), rtol=1e-6)
        np.testing.assert_allclose(before.view, np.cumsum(np.array(xs), 0) - np.array(xs), atol=1e-6)


def test_lengths_without_slices():
    last, ys = mx.scan(lambda c, x: (c * 2, c), mx.array(1), length=5)
    assert last.item() == 32 and ys.tolist() == [1, 2, 4, 8, 16]
    assert mx.scan(lambda c, x: (c, x), mx.array(1), length=3)[1] is None


def test_map_is_a_loop_over_slices():
    xs = mx.array(rng.standard_normal((4, 3)).astype("f4"))
    close(mx.map(lambda x: {"s": x.sum(), "e": mx.exp(x)}, xs), {"s": xs.sum(1), "e": mx.exp(xs)})


def test_fori_loop():
    assert mx.fori_loop(2, 6, lambda i, s: s * i, mx.array(1)).item() == 120
    assert mx.fori_loop(6, 2, lambda i, s: s * i, mx.array(1)).item() == 1
    assert mx.fori_loop(mx.array(2), mx.array(6), lambda i, s: s * i, mx.array(1)).item() == 120
    assert mx.fori_loop(2, mx.array(6), lambda i, s: s + i, mx.array(0)).item() == 14
    power = mx.grad(lambda x: mx.fori_loop(0, 4, lambda i, s: s * x, mx.array(1.0)))
    assert power(mx.array(3.0)).item() == pytest.approx(4 * 27)
    with pytest.raises(ValueError, match="depends on data"):
        mx.grad(lambda x: mx.fori_loop(mx.array(0), 4, lambda i, s: s * x, mx.array(1.0)))(mx.array(3.0))
    with pytest.raises(ValueError, match="integer scalars"):
        mx.fori_loop(0.5, mx.array(3), lambda i, s: s, mx.array(1))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_switch(count):
    branches = [lambda x, k=k: x * (k + 1) for k in range(count)]
    for index in range(-1, count + 1):
        expected = min(max(index, 0), count - 1) + 1
        assert mx.switch(mx.array(index), branches, mx.array(2.0)).item() == 2 * expected
        compiled = mx.compile(lambda i, x: mx.switch(i, branches, x))
        assert compiled(mx.array(index), mx.array(2.0)).item() == 2 * expected
        slope = mx.grad(lambda x, i: mx.switch(i, branches, x))
        assert slope(mx.array(2.0), mx.array(index)).item() == expected
    mapped = mx.vmap(lambda i: mx.switch(i, branches, mx.array(1.0)))(mx.arange(count))
    assert mapped.tolist() == list(range(1, count + 1))


def test_errors_show_both_avals():
    with pytest.raises(ValueError, match=r"f32\[2\].*f32\[3\]"):
        mx.scan(lambda c, x: (mx.zeros(3), None), mx.zeros(2), mx.zeros(4))
    with pytest.raises(ValueError, match="first axis of 4, got an array of shape"):
        mx.scan(lambda c, x: (c, None), mx.zeros(2), (mx.zeros(4), mx.zeros((5, 2))))
    with pytest.raises(ValueError, match="is a scalar"):
        mx.scan(lambda c, x: (c, None), mx.zeros(2), mx.array(1.0))
    with pytest.raises(ValueError, match="length must be given"):
        mx.scan(lambda c, x: (c, None), mx.zeros(2))
    with pytest.raises(ValueError, match="a pair"):
        mx.scan(lambda c, x: c, mx.zeros(2), length=2)
    with pytest.raises(ValueError, match="checkpoint_every"):
        mx.scan(lambda c, x: (c, None), mx.zeros(2), length=2, checkpoint_every=0)
    with pytest.raises(ValueError, match="no branches"):
        mx.switch(mx.array(0), [])
    with pytest.raises(ValueError, match="integer scalar"):
        mx.switch(mx.array(0.5), [lambda: mx.array(1)])


def test_a_recurrent_network_is_exported_and_differentiated_elsewhere(tmp_path: Path):
    def rnn(w, xs):
        return mx.scan(lambda h, x: (mx.tanh(h @ w + x), h), mx.zeros(3), xs)[0]

    w = mx.array(rng.standard_normal((3, 3)).astype("f4"))
    xs = mx.array(rng.standard_normal((5, 3)).astype("f4"))
    mx.export_function(str(tmp_path / "rnn.ingot"), rnn, w, xs)
    value, slope = rnn(w, xs), mx.grad(lambda w: rnn(w, xs).sum())(w)
    held = {"w": w, "xs": xs, "value": value, "slope": slope}
    np.savez(tmp_path / "data.npz", **{k: np.array(v) for k, v in held.items()})
    code = """
import sys, numpy as np, ingot as mx
f = mx.import_function(sys.argv[1] + "/rnn.ingot")
d = np.load(sys.argv[1] + "/data.npz")
w, xs = mx.array(d["w"]), mx.array(d["xs"])
np.testing.assert_allclose(np.array(f(w, xs)[0]), d["value"], rtol=1e-5)
slope = mx.grad(lambda w: f(w, xs)[0].sum())(w)
np.testing.assert_allclose(np.array(slope), d["slope"], rtol=1e-4, atol=1e-6)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
