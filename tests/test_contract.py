"""Products of matrices and tensors: shapes, values, gradients, symbolic shapes; against NumPy and MLX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot as mx
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Dim
from ingot.tracer.primitives.contract import DotGeneral
from ingot.tracer.trace import trace

_random = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return _random.normal(size=shape).astype(np.float32)


@st.composite
def _matmul_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    m, k, n = (draw(st.integers(0, 4)) for _ in range(3))
    lead = draw(st.lists(st.integers(0, 3), max_size=3))
    left = [draw(st.sampled_from([d, 1])) for d in lead][draw(st.integers(0, len(lead))) :]
    right = [draw(st.sampled_from([d, 1])) for d in lead][draw(st.integers(0, len(lead))) :]
    first = (*left, m, k) if draw(st.booleans()) or left else (k,)
    second = (*right, k, n) if draw(st.booleans()) or right else (k,)
    return first, second


@settings(max_examples=150, deadline=None)
@given(_matmul_shapes())
def test_matmul_as_numpy(shapes: Any) -> None:
    a, b = (normal(*s) for s in shapes)
    want = a.astype(np.float64) @ b.astype(np.float64)
    got = mx.array(a) @ mx.array(b)
    assert got.shape == want.shape
    np.testing.assert_allclose(np.array(got), want, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(_matmul_shapes())
def test_matmul_gradient_by_another_route(shapes: Any) -> None:
    """The product as a broadcast sum of products has the same gradient."""
    a, b = (normal(*s) for s in shapes)

    def slow(x: mx.array, y: mx.array) -> mx.array:
        x = x.reshape((1, -1)) if x.ndim == 1 else x
        y = y.reshape((-1, 1)) if y.ndim == 1 else y
        return (x.reshape((*x.shape, 1)) * y.reshape((*y.shape[:-2], 1, *y.shape[-2:]))).sum(-2)

    if 0 in a.shape or 0 in b.shape:
        return
    weight = normal(*(a @ b).shape)

    def loss(f: Any) -> Any:
        return lambda x, y: (f(x, y).reshape(weight.shape) * mx.array(weight)).sum()

    operands = mx.array(a), mx.array(b)
    fast = mx.grad(loss(mx.matmul), argnums=(0, 1))(*operands)
    for got, want in zip(fast, mx.grad(loss(slow), argnums=(0, 1))(*operands), strict=True):
        np.testing.assert_allclose(np.array(got), np.array(want), rtol=1e-4, atol=1e-4)


def test_a_stack_times_a_matrix_is_one_product() -> None:
    """No batch axis, nothing broadcast: free axes on one side."""
    for shapes in (((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 1, 2, 3), (6, 3, 4))):
        graph = trace(lambda x, y: [x @ y], [Aval(s, mx.float32) for s in shapes]).graph
        dots = [n.primitive for n in graph.nodes if isinstance(n.primitive, DotGeneral)]
        assert len(dots) == 1 and dots[0].batch == ((), ())
        assert "broadcast_to" not in [n.primitive.name for n in graph.nodes]


def test_matmul_errors() -> None:
    with pytest.raises(
        ValueError, match=r"\[matmul\] Last dimension of first input with shape \(2,3\) must match"
    ):
        mx.ones((2, 3)) @ mx.ones((2, 3))
    with pytest.raises(ValueError, match=r"\[matmul\] Got 0 dimension input"):
        mx.array(1.0) @ mx.ones((2,))
    with pytest.raises(ValueError, match=r"\(2\) and \(3\) cannot be broadcast"):
        mx.ones((2, 2, 3)) @ mx.ones((3, 3, 4))
    with pytest.raises(ValueError, match=r"\[matmul\].*bool"):
        mx.ones((2, 2), mx.bool_) @ mx.ones((2, 2), mx.bool_)
    with pytest.raises(TypeError):
        mx.matmul([[1.0]], mx.ones((1, 1)))


def test_dtypes() -> None:
    half, brain, single, integer = (
        mx.ones((2, 2), d) for d in (mx.float16, mx.bfloat16, mx.float32, mx.int32)
    )
    assert (half @ half).dtype is mx.float16
    assert (half @ brain).dtype is mx.float32
    assert (integer @ half).dtype is mx.float16
    assert (integer @ integer).dtype is mx.int32
    assert (single @ mx.ones((2, 2), mx.float64)).dtype is mx.float64


def test_half_precision_accumulates_in_float32() -> None:
    x = mx.full((1, 10_000), 1, mx.bfloat16)
    assert (x @ x.T).item() == 9_984  # 10000, rounded once
    y = mx.full((1, 4_000), 0.5, mx.float16)
    assert (y @ y.T).item() == 1_000


def test_addmm() -> None:
    a, b, c = mx.array(normal(2, 3)), mx.array(normal(3, 4)), mx.array(normal(4))
    want = 2 * (np.array(a) @ np.array(b)) + 3 * np.array(c)
    np.testing.assert_allclose(np.array(mx.addmm(c, a, b, 2, 3)), want, rtol=1e-5, atol=1e-6)
    assert mx.addmm(mx.array(1.0), mx.ones((2, 3)), mx.ones((3, 2)), 2, 3).tolist() == [[9, 9], [9, 9]]
    with pytest.raises(ValueError, match=r"\(5\)"):
        mx.addmm(mx.ones((5,)), mx.ones((2, 4)), mx.ones((4, 3)))
    with pytest.raises(ValueError, match=r"\[addmm\]"):
        mx.addmm(mx.ones((7, 2, 3)), mx.ones((2, 4)), mx.ones((4, 3)))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_tensordot_as_numpy(data: st.DataObject) -> None:
    shared = data.draw(st.lists(st.integers(1, 3), max_size=3))
    free = [data.draw(st.lists(st.integers(1, 3), max_size=2)) for _ in range(2)]
    left = data.draw(
        st.permutations([(d, ("s", i)) for i, d in enumerate(shared)] + [(d, None) for d in free[0]])
    )
    right = data.draw(
        st.permutations([(d, ("s", i)) for i, d in enumerate(shared)] + [(d, None) for d in free[1]])
    )
    axes = [
        [next(j for j, (_, tag) in enumerate(side) if tag == ("s", i)) for i in range(len(shared))]
        for side in (left, right)
    ]
    a, b = normal(*[d for d, _ in left]), normal(*[d for d, _ in right])
    want = np.tensordot(a, b, axes)
    got = mx.tensordot(mx.array(a), mx.array(b), axes)
    assert got.shape == want.shape
    np.testing.assert_allclose(np.array(got), want, rtol=1e-4, atol=1e-5)


def test_tensordot_errors() -> None:
    x = mx.ones((2, 3))
    assert mx.tensordot(x, mx.ones((3, 4)), 1).shape == (2, 4)
    assert mx.tensordot(x, x, 0).shape == (2, 3, 2, 3)
    for axes in (1, 3, -1, [[0], [1]], [[0, 1], [0]], [[0]]):
        with pytest.raises(ValueError, match=r"\[tensordot\]"):
            mx.tensordot(x, x, axes)


def test_inner_outer_vecdot() -> None:
    a, b = normal(2, 3), normal(4, 3)
    np.testing.assert_allclose(
        np.array(mx.inner(mx.array(a), mx.array(b))), np.inner(a, b), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(np.array(mx.outer(mx.array(a), mx.array(b))), np.outer(a, b))
    np.testing.assert_allclose(np.array(mx.vecdot(mx.array(a), mx.array(a))), (a * a).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(
        np.array(mx.vecdot(mx.array(a), mx.array(a), axis=0)), (a * a).sum(0), rtol=1e-5
    )
    assert mx.inner(mx.array(2.0), mx.array([1.0, 2.0])).tolist() == [2, 4]
    with pytest.raises(ValueError, match=r"\[inner\] a and b must have the same last dimension"):
        mx.inner(mx.ones((2, 3)), mx.ones((2,)))
    with pytest.raises((ValueError, IndexError), match=r"\[vecdot\]"):
        mx.vecdot(mx.ones((2, 3)), mx.ones((2, 3)), axis=2)


def test_symbolic_products() -> None:
    batch, width = Dim("B"), Dim("W")
    shapes = [((batch, 3), (3, 4), (batch, 4)), ((batch, 2, 3), (batch, 3, 4), (batch, 2, 4)),
              ((batch, width), (width, 2), (batch, 2)), ((5, batch, 3), (3,), (5, batch))]  # fmt: skip
    for left, right, out in shapes:
        graph = trace(lambda x, y: [x @ y], [Aval(left, mx.float32), Aval(right, mx.float32)]).graph
        assert graph.output_avals[0].shape == out and not graph.guards
    with pytest.raises(ValueError, match=r"\[matmul\]"):
        trace(lambda x, y: [x @ y], [Aval((2, Dim("W", 4)), mx.float32), Aval((3, 2), mx.float32)])


def test_kron_as_numpy() -> None:
    for left, right in (((2, 3), (4, 2)), ((3,), (2,)), ((2,), (3, 2)), ((), (2,)), ((2, 1, 2), (3, 2))):
        a, b = normal(*left), normal(*right)
        np.testing.assert_array_equal(np.array(mx.kron(mx.array(a), mx.array(b))), np.kron(a, b))


@pytest.mark.peers
def test_products_as_mlx() -> None:
    real = pytest.importorskip("mlx.core")
    for left, right in (
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((4, 1, 2, 3), (5, 3, 2)),
        ((2, 0), (0, 2)),
    ):
        a, b = normal(*left), normal(*right)
        for kind in ("float32", "float16", "bfloat16"):
            x, y = (mx.array(v).astype(getattr(mx, kind)) for v in (a, b))
            u, v = (real.array(w).astype(getattr(real, kind)) for w in (a, b))
            got, want = x @ y, u @ v
            assert got.dtype.name == str(want.dtype).split(".")[-1] and got.shape == want.shape
            tolerance = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}[kind]
            np.testing.assert_allclose(
                np.array(got.astype(mx.float32)),
                np.array(want.astype(real.float32)),
                rtol=tolerance,
                atol=tolerance,
            )
