"""Operations on shapes against NumPy, their errors, and symbolic extents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot as mx
from ingot.tracer.ops import shape as ops

A = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def same(got, want):
    assert got.shape == np.shape(want)
    np.testing.assert_array_equal(np.array(got), want)


UNARY = {
    "reshape": (lambda m, x: m.reshape(x, (4, -1)), None),
    "transpose": (lambda m, x: m.transpose(x), None),
    "transpose axes": (lambda m, x: m.transpose(x, (1, -1, 0)), None),
    "matrix_transpose": (lambda m, x: m.matrix_transpose(x), lambda x: np.swapaxes(x, -1, -2)),
    "swapaxes": (lambda m, x: m.swapaxes(x, 0, -1), None),
    "moveaxis": (lambda m, x: m.moveaxis(x, 0, 2), None),
    "squeeze": (lambda m, x: m.squeeze(x[:, :1]), None),
    "squeeze axis": (lambda m, x: m.squeeze(x[:1, :1], 1), None),
    "squeeze axes": (lambda m, x: m.squeeze(x[:1, :1], (0, -2)), None),
    "expand_dims": (lambda m, x: m.expand_dims(x, -2), None),
    "expand_dims axes": (lambda m, x: m.expand_dims(x, (0, -1)), None),
    "broadcast_to": (lambda m, x: m.broadcast_to(m.expand_dims(x, 1), (x.shape[0], 5, *x.shape[1:])), None),
    "flatten": (lambda m, x: m.flatten(x), lambda x: x.ravel()),
    "flatten axes": (lambda m, x: m.flatten(x, 1, -1), lambda x: x.reshape(2, 12)),
    "unflatten": (lambda m, x: m.unflatten(x, -1, (2, -1)), lambda x: x.reshape(2, 3, 2, 2)),
    "stack": (lambda m, x: m.stack([x, x + 1], 1), None),
    "concatenate": (lambda m, x: m.concatenate([x, x[:, :1]], 1), None),
    "concatenate flat": (lambda m, x: m.concatenate([x, x], axis=None), None),
    "repeat": (lambda m, x: m.repeat(x, 3, 1), None),
    "repeat flat": (lambda m, x: m.repeat(x, 2), None),
    "tile": (lambda m, x: m.tile(x, (2, 1, 3)), None),
    "tile more": (lambda m, x: m.tile(x, (2, 1, 1, 2)), None),
    "tile less": (lambda m, x: m.tile(x, 2), None),
    "roll": (lambda m, x: m.roll(x, 5), None),
    "roll axis": (lambda m, x: m.roll(x, -1, 1), None),
    "roll axes": (lambda m, x: m.roll(x, (1, 2), (0, 2)), None),
    "roll same shift": (lambda m, x: m.roll(x, 1, (0, 1)), None),
    "flip": (lambda m, x: m.flip(x), None),
    "flip axes": (lambda m, x: m.flip(x, (0, -1)), None),
    "diagonal": (lambda m, x: m.diagonal(x, 1, 2, 0), None),
    "diagonal empty": (lambda m, x: m.diagonal(x, -9), None),
    "diag of a matrix": (lambda m, x: m.diag(x[0], -1), None),
    "diag": (lambda m, x: m.diag(x[0, 0]), None),
    "diag above": (lambda m, x: m.diag(x[0, 0], 2), None),
    "diag below": (lambda m, x: m.diag(x[0, 0], -1), None),
    "trace": (lambda m, x: m.trace(x, 1, 1, 2), None),
    "atleast_3d": (lambda m, x: m.atleast_3d(x[0]), None),
    "atleast_2d": (lambda m, x: m.atleast_2d(x[0, 0]), None),
    "atleast_1d": (lambda m, x: m.atleast_1d(x[0, 0, 0]), None),
    "pad": (lambda m, x: m.pad(x, 1), None),
    "pad pair": (lambda m, x: m.pad(x, (1, 2), constant_values=3), None),
    "pad pairs": (lambda m, x: m.pad(x, [(0, 1), (2, 0), (0, 0)]), None),
    "pad edge": (lambda m, x: m.pad(x, [(2, 1), (0, 3), (1, 1)], mode="edge"), None),
    "pad reflect": (lambda m, x: m.pad(x, [(5, 3), (1, 0), (7, 9)], mode="reflect"), None),
    "pad symmetric": (lambda m, x: m.pad(x, [(5, 3), (1, 0), (7, 9)], mode="symmetric"), None),
    "pad reflect of one": (lambda m, x: m.pad(x[:1], [(2, 3), (0, 0), (0, 0)], mode="reflect"), None),
    "contiguous": (lambda m, x: m.contiguous(x.T), lambda x: x.T),
}


@pytest.mark.parametrize("name", UNARY)
def test_against_numpy(name):
    fn, oracle = UNARY[name]
    same(fn(mx, mx.array(A)), oracle(A) if oracle else fn(np, A))
    x = mx.array(A.astype(np.int8))
    got = fn(mx, x)
    assert got.dtype is (mx.int32 if name == "trace" else mx.int8)


@pytest.mark.parametrize("name", UNARY)
def test_the_gradient_is_the_transposed_map(name):
    """All of them are linear (affine for `pad` and `stack`): <f(x) - f(0), w> = <x, grad <f, w>>."""
    fn = UNARY[name][0]
    weights = np.cos(np.arange(np.prod(fn(mx, mx.array(A)).shape, dtype=int))).reshape(
        fn(mx, mx.array(A)).shape
    )
    w = mx.array(weights, mx.float64)
    x = mx.array(A, mx.float64)
    pulled = mx.grad(lambda x: (fn(mx, x) * w).sum())(x)
    at_x, at_zero = (np.array((fn(mx, v) * w).sum()) for v in (x, mx.zeros_like(x)))
    np.testing.assert_allclose(np.sum(np.array(pulled) * A), at_x - at_zero, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("name", UNARY)
def test_compiled_and_mapped(name):
    fn = UNARY[name][0]
    want = np.array(fn(mx, mx.array(A)))
    same(mx.compile(lambda x: fn(mx, x))(mx.array(A)), want)
    batch = mx.array(np.stack([A, -A], 1))
    rows = np.stack([want, np.array(fn(mx, mx.array(-A)))])
    same(mx.vmap(lambda x: fn(mx, x), in_axes=1)(batch), rows)


# Leading axis symbolic; the extents stay symbolic as far as these operations need.
SHAPELESS = [name for name in UNARY if name not in ("reshape",)]


@pytest.mark.parametrize("name", SHAPELESS)
def test_shapeless_traces_serve_other_sizes(name):
    fn = UNARY[name][0]
    traces = []

    @lambda f: mx.compile(f, shapeless=True)
    def traced(x):
        traces.append(x.shape)
        return fn(mx, x)

    for shape in ((2, 3, 4), (3, 4, 5), (4, 4, 2)):
        x = mx.array(np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
        try:
            want = np.array(fn(mx, x))
        except ValueError:
            with pytest.raises(ValueError):
                traced(x)
            continue
        same(traced(x), want)
    if not any(word in name for word in ("squeeze", "roll", "unflatten", "broadcast_to", "concatenate")):
        assert len(traces) <= 2, traces


def test_names_of_the_array_api():
    assert ops.permute_dims is ops.transpose and ops.concat is ops.concatenate


def test_split_and_unstack():
    x = mx.array(A)
    for arguments in ((2,), (3, 1), ([1, 3], 2), ([], 0), ([2, 1], 1), ([1, 9], -1), ([-1], 2)):
        for got, want in zip(mx.split(x, *arguments), np.split(A, *arguments), strict=True):
            same(got, want)
    for axis in (0, 1, -1):
        for got, want in zip(mx.unstack(x, axis=axis), np.moveaxis(A, axis, 0), strict=True):
            same(got, want)
    assert isinstance(x.split(2), list) and isinstance(mx.unstack(x), tuple)


def test_meshgrid():
    vectors = [np.arange(2), np.arange(3) * 2, np.arange(4) - 1]
    for indexing in ("xy", "ij"):
        for sparse in (False, True):
            for n in (0, 1, 2, 3):
                got = mx.meshgrid(*map(mx.array, vectors[:n]), indexing=indexing, sparse=sparse)
                want = np.meshgrid(*vectors[:n], indexing=indexing, sparse=sparse)
                assert isinstance(got, tuple)
                for g, w in zip(got, want, strict=True):
                    same(g, w)


def test_broadcasting():
    assert mx.broadcast_shapes((2, 1), (3,), (1, 1, 1)) == (1, 2, 3)
    a, b, c = mx.broadcast_arrays(mx.array(A), mx.array([[1], [2], [3]]), mx.array(1))
    assert a.shape == b.shape == c.shape == (2, 3, 4)
    same(mx.broadcast_to(1.5, (3,)), [1.5] * 3)
    same(mx.broadcast_to(mx.ones((1, 3)), (0, 3)), np.ones((0, 3)))


def test_joining_promotes():
    joined = mx.concatenate([mx.array([1], mx.int8), mx.array([2.5], mx.float16)])
    assert joined.dtype is mx.float16 and joined.tolist() == [1, 2.5]
    assert mx.stack([mx.array(True), mx.array(2)]).dtype is mx.int32
    assert mx.concatenate([mx.zeros((0, 2)), mx.ones((1, 2))]).tolist() == [[1, 1]]


def test_trace_dtypes():
    assert mx.trace(mx.ones((2, 2), mx.bool_)).item() == 2
    assert mx.trace(mx.ones((2, 2), mx.int32), dtype=mx.float16).dtype is mx.float16


X = mx.zeros((2, 3))
ERRORS = {
    "reshape": (lambda: mx.reshape(X, (4,)), ValueError, r"\[reshape\] .* size 6 into shape \(4\)"),
    "reshape rest": (lambda: mx.reshape(X, (4, -1)), ValueError, r"\[reshape\].*size 6"),
    "reshape two": (lambda: X.reshape(-1, -1), ValueError, "only infer one"),
    "reshape empty": (lambda: mx.zeros((0,)).reshape(0, -1), ValueError, "empty"),
    "reshape negative": (lambda: X.reshape(-2, 3), ValueError, r"\(-2,3\)"),
    "reshape int": (lambda: mx.reshape(X, 6), TypeError, "sequence"),
    "reshape float": (lambda: mx.reshape(X, (2.0, 3)), TypeError, "integers"),
    "transpose count": (lambda: X.transpose(0), ValueError, r"Received 1 axes for array with 2"),
    "transpose repeat": (lambda: X.transpose(0, 0), ValueError, "Repeat"),
    "transpose axis": (lambda: X.transpose(0, 2), IndexError, r"Invalid axis \(2\)"),
    "transpose axis v": (lambda: X.transpose(0, 2), ValueError, r"Invalid axis \(2\)"),
    "swapaxes": (lambda: X.swapaxes(0, 5), IndexError, r"\[swapaxes\] Invalid axis 5"),
    "moveaxis": (lambda: X.moveaxis(0, 5), IndexError, r"\[moveaxis\] Invalid axis 5"),
    "squeeze": (lambda: X.squeeze(0), ValueError, "axis 0 with size 2"),
    "squeeze axis": (lambda: X.squeeze(7), IndexError, "Axis 7"),
    "squeeze twice": (lambda: X[None].squeeze((0, 0)), ValueError, "duplicate"),
    "expand_dims": (lambda: mx.expand_dims(X, 9), IndexError, "Axis 9"),
    "expand_dims twice": (lambda: mx.expand_dims(X, (0, 0)), ValueError, "duplicate"),
    "broadcast_to": (lambda: mx.broadcast_to(X, (3, 3)), ValueError, r"\(2,3\).*\(3,3\)"),
    "broadcast_to rank": (lambda: mx.broadcast_to(X, (3,)), ValueError, r"\(2,3\).*\(3\)"),
    "broadcast_to negative": (lambda: mx.broadcast_to(X, (-1, 3)), ValueError, "Negative"),
    "broadcast_shapes": (lambda: mx.broadcast_shapes((2, 3), (2,)), ValueError, r"\(2,3\) and \(2\)"),
    "broadcast_shapes none": (lambda: mx.broadcast_shapes(), ValueError, "at least one"),
    "flatten": (lambda: X.flatten(1, 0), ValueError, "start_axis"),
    "unflatten": (lambda: mx.unflatten(X, 1, (2, 2)), ValueError, r"axis 1 with size 3 into shape \(2,2\)"),
    "unflatten empty": (lambda: mx.unflatten(X, 1, ()), ValueError, "empty"),
    "unflatten axis": (lambda: mx.unflatten(X, 5, (2, 2)), IndexError, "Invalid axes 5"),
    "concatenate": (lambda: mx.concatenate([X, X[:, :2]]), ValueError, r"\(2,3\), \(2,2\).*axis is 0"),
    "concatenate rank": (lambda: mx.concatenate([X, X[0]]), ValueError, "dimensions 2 and 1"),
    "concatenate axis": (lambda: mx.concatenate([X, X], 5), IndexError, "Axis 5"),
    "concatenate nothing": (lambda: mx.concatenate([]), ValueError, "No arrays"),
    "stack": (lambda: mx.stack([X, X[0]]), ValueError, "same shape"),
    "stack nothing": (lambda: mx.stack([]), ValueError, "No arrays"),
    "stack axis": (lambda: mx.stack([X, X], 7), IndexError, "Axis 7"),
    "split": (lambda: X.split(2, 1), ValueError, r"2 splits along axis 1 for shape \(2,3\)"),
    "split zero": (lambda: X.split(0), ValueError, "positive"),
    "split axis": (lambda: X.split(2, 7), IndexError, "Axis 7"),
    "pad count": (lambda: mx.pad(X, [(1, 1)] * 3), ValueError, "axes of size 2"),
    "pad negative": (lambda: mx.pad(X, -1), ValueError, r"low padding size \(-1\)"),
    "pad mode": (lambda: mx.pad(X, 1, mode="wrap"), ValueError, r"mode \(wrap\)"),
    "pad value": (lambda: mx.pad(X, 1, constant_values=mx.zeros((2,))), ValueError, "scalar"),
    "pad empty": (lambda: mx.pad(mx.zeros((0,)), 1, mode="edge"), ValueError, "extent 0"),
    "repeat": (lambda: mx.repeat(X, -1, 0), ValueError, "negative"),
    "repeat axis": (lambda: mx.repeat(X, 2, 4), IndexError, "Axis 4"),
    "tile": (lambda: mx.tile(X, (-1,)), ValueError, "Negative"),
    "roll axis": (lambda: mx.roll(X, 1, 5), IndexError, "Invalid axis 5"),
    "flip axis": (lambda: mx.flip(X, 4), IndexError, "Axis 4"),
    "diag": (lambda: mx.diag(X[None]), ValueError, "got array with 3"),
    "diagonal": (lambda: mx.diagonal(X[0]), ValueError, "at least two"),
    "diagonal axes": (lambda: mx.diagonal(X, 0, 0, 0), ValueError, "same axis"),
    "diagonal axis": (lambda: mx.diagonal(X, 0, 0, 5), IndexError, "axis2 5"),
    "trace": (lambda: mx.trace(X[0]), ValueError, "at least two"),
    "meshgrid": (lambda: mx.meshgrid(X, indexing="zz"), ValueError, "'xy' and 'ij'"),
    "matrix_transpose": (lambda: mx.matrix_transpose(X[0]), ValueError, "at least 2"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert str(caught.value).startswith("[")


@given(
    st.lists(st.integers(0, 4), max_size=4),
    st.sampled_from(["edge", "reflect", "symmetric"]),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_padding_modes(shape, mode, widths):
    shape = [n + 1 for n in shape]
    a = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    widths = widths[: len(shape)]
    same(
        mx.pad(mx.array(a), widths, mode=mode) if shape else mx.array(a),
        np.pad(a, widths, mode) if shape else a,
    )


@given(st.lists(st.integers(0, 3), max_size=4), st.data())
@settings(max_examples=100, deadline=None)
def test_chains_of_movements(shape, data):
    """Random chains of reshapes, transposes, slices and flips: what `may_alias` makes views of views of."""
    a = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    x = mx.array(a)
    for _ in range(data.draw(st.integers(1, 5))):
        kind = data.draw(st.sampled_from(["transpose", "flatten", "slice", "flip", "expand", "broadcast"]))
        if kind == "transpose":
            perm = data.draw(st.permutations(range(a.ndim)))
            a, x = a.transpose(perm), x.transpose(perm)
        elif kind == "flatten":
            a, x = a.reshape(-1), x.flatten()
        elif kind == "slice" and a.ndim:
            key = slice(
                *data.draw(st.tuples(*[st.none() | st.integers(-4, 4)] * 2)),
                data.draw(st.sampled_from([1, 2, -1])),
            )
            a, x = a[key], x[key]
        elif kind == "flip":
            a, x = np.flip(a), mx.flip(x)
        elif kind == "expand":
            a, x = a[None], mx.expand_dims(x, 0)
        else:
            a, x = np.broadcast_to(a, (2, *a.shape)), mx.broadcast_to(x, (2, *x.shape))
        if data.draw(st.booleans()):
            mx.eval(x)
    same(x, a)


@pytest.mark.peers
def test_against_mlx():
    mlx = pytest.importorskip("mlx.core")
    for name, (fn, _) in UNARY.items():
        if name in ("contiguous", "pad reflect", "pad symmetric", "pad reflect of one"):
            continue  # MLX pads at most once by reflection
        theirs = fn(mlx, mlx.array(A))
        mine = fn(mx, mx.array(A))
        assert mine.shape == tuple(theirs.shape) and mine.dtype.name == str(theirs.dtype).split(".")[-1], name
        np.testing.assert_array_equal(np.array(mine), np.array(theirs), err_msg=name)
