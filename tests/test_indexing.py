"""Indexing against NumPy: reading, writing, `at`, take and put, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot as mx

SHAPES = [(), (1,), (5,), (0,), (3, 4), (4, 1), (2, 3, 4), (3, 0, 2), (2, 2, 3, 2)]


@st.composite
def slices(draw, n):
    bound = st.none() | st.integers(-n - 2, n + 2)
    return slice(draw(bound), draw(bound), draw(st.none() | st.sampled_from([1, 2, 3, -1, -2])))


@st.composite
def index_arrays(draw, n, shape):
    flat = draw(st.lists(st.integers(-n, n - 1), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    return np.array(flat, draw(st.sampled_from([np.int32, np.int64, np.int8]))).reshape(shape)


@st.composite
def indexed(draw, distinct=False):
    """A shape and an index expression for it, arrays as NumPy arrays."""
    shape = draw(st.sampled_from(SHAPES))
    used = draw(st.integers(0, len(shape)))
    left = draw(st.integers(0, used))
    common = draw(st.sampled_from([(), (1,), (3,), (2, 3), (0,)]))
    items = []

    def consume(n):
        kinds = ["slice"] + (["int", "array", "array"] if n else [])
        kind = draw(st.sampled_from(kinds))
        if kind == "slice":
            return draw(slices(n))
        if kind == "int":
            return draw(st.integers(-n, n - 1))
        return draw(index_arrays(n, draw(st.sampled_from([common, common[-1:]]))))

    axes = list(range(left)) + list(range(len(shape) - (used - left), len(shape)))
    for count, axis in enumerate(axes):
        if count == left:
            items.append(...)
        if draw(st.integers(0, 4)) == 0:
            items.append(None)
        items.append(consume(shape[axis]))
    if left == used and draw(st.booleans()):
        items.append(...)
    if len(items) == 1 and draw(st.booleans()):
        return shape, items[0]
    return shape, tuple(items)


def ours(index):
    """The index with its arrays as arrays of the package."""
    if isinstance(index, tuple):
        return tuple(map(ours, index))
    return mx.array(index) if isinstance(index, np.ndarray) else index


def counting(shape, dtype=np.float32):
    return np.arange(1, np.prod(shape, dtype=int) + 1, dtype=dtype).reshape(shape)


def f64(x):
    return mx.array(x, mx.float64)


@given(indexed())
@settings(max_examples=300, deadline=None)
def test_reading(case):
    shape, index = case
    x = counting(shape)
    want = x[index]
    got = mx.array(x)[ours(index)]
    assert got.shape == want.shape
    np.testing.assert_array_equal(np.array(got), want)


@given(indexed(), st.integers(0, 3), st.booleans())
@settings(max_examples=300, deadline=None)
def test_writing(case, cut, unit):
    shape, index = case
    x = counting(shape)
    window = x[index].shape
    update = -counting(window)[(0,) * min(cut, len(window)) if all(window) else ()]
    update = update[None] if unit else update
    expected, y = x.copy(), mx.array(x)
    same = y
    if update.ndim > len(window) and len(window) == 0:
        update = update.reshape(())
    expected[index] = update
    y[ours(index)] = mx.array(update)
    assert same is y
    np.testing.assert_array_equal(np.array(y), expected)


@given(indexed(), st.sampled_from(["add", "subtract", "multiply", "maximum", "minimum", "divide"]))
@settings(max_examples=200, deadline=None)
def test_at(case, name):
    shape, index = case
    x = counting(shape)
    update = (
        (np.arange(np.prod(x[index].shape, dtype=int)) % 3 + 0.5).astype(np.float32).reshape(x[index].shape)
    )
    expected = x.copy()
    np_name = {"add": "add", "subtract": "subtract", "multiply": "multiply", "divide": "divide"}.get(
        name, name
    )
    if shape == () and index in ((), ...):
        expected = getattr(np, np_name)(expected, update)
    else:
        getattr(np, np_name).at(expected, index, update)
    y = mx.array(x)
    got = getattr(y.at[ours(index)], name)(mx.array(update))
    np.testing.assert_allclose(np.array(got), expected, rtol=1e-5)
    np.testing.assert_array_equal(np.array(y), x)


@given(indexed())
@settings(max_examples=60, deadline=None)
def test_gradients_of_reading_and_writing(case):
    shape, index = case
    x = counting(shape, np.float64) / 7
    window = x[index]
    weights = np.cos(counting(window.shape, np.float64))
    got = mx.grad(lambda a: (a[ours(index)] * f64(weights)).sum())(f64(x))
    want = np.zeros(shape)
    if shape:
        np.add.at(want, index, weights)
    else:
        want = want + weights.sum()
    np.testing.assert_allclose(np.array(got), want, atol=1e-12)

    def written(a, u):
        b = a * 1
        b[ours(index)] = u
        return (b * f64(np.sin(counting(shape, np.float64)))).sum()

    da, du = mx.grad(written, argnums=(0, 1))(f64(x), f64(weights))
    outer = np.sin(counting(shape, np.float64))
    numbers = np.full(shape, -1)
    numbers[index] = np.arange(window.size).reshape(window.shape)
    np.testing.assert_allclose(np.array(da), np.where(numbers < 0, outer, 0))
    want_u = np.zeros(window.size)
    want_u[numbers[numbers >= 0]] = outer[numbers >= 0]
    np.testing.assert_allclose(np.array(du).ravel(), want_u)


@given(indexed())
@settings(max_examples=60, deadline=None)
def test_vmap_and_compile_of_reading(case):
    shape, index = case
    x = np.stack([counting(shape), -counting(shape), 3 * counting(shape)])
    want = np.stack([row[index] for row in x])
    np.testing.assert_array_equal(np.array(mx.vmap(lambda a: a[ours(index)])(mx.array(x))), want)
    np.testing.assert_array_equal(np.array(mx.compile(lambda a: a[ours(index)])(mx.array(x[0]))), want[0])


def test_all_references_see_a_write_but_copies_do_not():
    x = mx.array([1, 2, 3])
    same, copied, viewed = x, mx.array(x), x.reshape(3)
    x[0] = 9
    x += 1
    assert same.tolist() == [10, 3, 4]
    assert copied.tolist() == [1, 2, 3]
    assert viewed.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x.reshape(x.shape),
        lambda x: mx.transpose(x, (0, 1)),
        lambda x: mx.broadcast_to(x, x.shape),
        lambda x: x[...],
        lambda x: x[:],
        lambda x: x[()],
        lambda x: x.squeeze(),
        lambda x: mx.contiguous(x),
        lambda x: mx.concatenate([x]),
        lambda x: mx.atleast_1d(x),
        lambda x: mx.flip(x, ()),
        lambda x: mx.asarray(x),
        lambda x: x.flatten(0, 0),
    ],
)
def test_operations_that_change_nothing_give_a_new_handle(operation):
    x = mx.array([[1, 2], [3, 4]])
    y = operation(x)
    y[0] = 0
    assert x.tolist() == [[1, 2], [3, 4]]


def test_values_written_are_converted():
    x = mx.array([1, 2, 3])
    x[0] = 5.7
    x[1:] = mx.array([2.9, -1.5])
    assert x.dtype is mx.int32 and x.tolist() == [5, 2, -1]
    y = mx.zeros((2,), mx.bfloat16)
    y[0] = 1.5
    assert y.dtype is mx.bfloat16 and y.tolist() == [1.5, 0]
    y[:] = [1, 2]
    assert y.tolist() == [1, 2]


def test_masks():
    a = np.arange(6).reshape(2, 3)
    x = mx.array(a)
    mask = a > 2
    assert x[mx.array(mask)].tolist() == a[mask].tolist()
    assert x[[True, False]].tolist() == [[0, 1, 2]]
    x[x > 4] = -1
    assert x.tolist() == [[0, 1, 2], [3, 4, -1]]
    x[x < 2] = mx.array([7, 8, 9])
    assert x.tolist() == [[7, 8, 2], [3, 4, 9]]
    with pytest.raises(IndexError, match="mask of shape"):
        x[mx.array([True, False, True])]
    with pytest.raises(IndexError, match="mask of shape"):
        x[mx.array([True, False, True])] = 0
    # a write of one value needs no values of the mask, so it can be traced
    f = mx.compile(lambda x: _zeroed(x))
    assert f(mx.array([1.0, -1.0, 2.0])).tolist() == [1, 0, 2]


def _zeroed(x):
    x = x * 1
    x[x < 0] = 0
    return x


@pytest.mark.parametrize(
    ("index", "error", "words"),
    [
        (3, IndexError, r"index 3 is out of bounds for axis 0 of shape \(2,3\)"),
        (-3, IndexError, "out of bounds"),
        ((0, 7), IndexError, "index 7"),
        ((0, 0, 0), ValueError, "Too many indices"),
        ((0, 0, 0), IndexError, "Too many indices"),
        ((..., ...), ValueError, "single ellipsis"),
        ("x", ValueError, "str"),
        (1.5, ValueError, "float"),
        (True, ValueError, "bool"),
        (slice(None, None, 0), ValueError, "nonzero"),
        (slice("a", None), ValueError, "Slice indices"),
        (mx.array(1.0), ValueError, "integers"),
        (mx.array(True), ValueError, "bool"),
    ],
)
def test_bad_indices(index, error, words):
    x = mx.arange(6).reshape(2, 3)
    with pytest.raises(error, match=words):
        x[index]
    with pytest.raises(error, match=words):
        x[index] = 0


@pytest.mark.parametrize("bad", [-3, 2, 1 << 20])
def test_data_out_of_bounds_is_an_index_error(bad):
    x = mx.arange(6).reshape(2, 3)
    i = mx.array([0, bad])
    for operation in (
        lambda i: x[i],
        lambda i: mx.take(x, i, 0),
        lambda i: x.at[i].add(1),
        lambda i: mx.take_along_axis(x, i.reshape(2, 1), 0),
    ):
        with pytest.raises(IndexError, match=f"index {bad} is out of bounds for an axis of size 2"):
            mx.eval(operation(i))
        with pytest.raises(IndexError, match="out of bounds"):
            mx.eval(mx.compile(operation)(i))


def test_update_that_does_not_fit():
    x = mx.zeros((2, 3))
    with pytest.raises(ValueError, match=r"\(2\).*\(3\)"):
        x[0] = mx.array([1, 2])
    assert x.tolist() == [[0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="divide"):
        mx.array([1, 2]).at[0].divide(2)


def test_take_and_put():
    a = np.arange(24).reshape(2, 3, 4)
    x = mx.array(a)
    assert mx.take(x, 5).item() == 5
    assert mx.take(x, mx.array([[5, 0]])).tolist() == [[5, 0]]
    np.testing.assert_array_equal(np.array(mx.take(x, 1, axis=1)), a.take(1, 1))
    np.testing.assert_array_equal(
        np.array(mx.take(x, mx.array([[2, 0], [-1, 1]]), axis=-2)), a.take([[2, 0], [2, 1]], 1)
    )
    random = np.random.default_rng(0)
    for axis in range(3):
        shape = list(a.shape)
        shape[axis] = 5
        i = random.integers(-a.shape[axis], a.shape[axis], shape)
        np.testing.assert_array_equal(
            np.array(mx.take_along_axis(x, mx.array(i), axis)), np.take_along_axis(a, i, axis)
        )
        one = np.argmax(a % 5, axis, keepdims=True)
        put, want = mx.put_along_axis(x, mx.array(one), mx.array(-1), axis), a.copy()
        np.put_along_axis(want, one, -1, axis)
        np.testing.assert_array_equal(np.array(put), want)
    flat = mx.put_along_axis(x, mx.array([3, 20]), mx.array([-1, -2]), None)
    assert flat.shape == a.shape and flat.flatten()[3].item() == -1 and flat.flatten()[20].item() == -2
    assert mx.take_along_axis(x, mx.array([3, 20]), None).tolist() == [3, 20]
    # the other axes broadcast
    np.testing.assert_array_equal(np.array(mx.take_along_axis(x, mx.array([[[1]]]), 2)), a[:, :, 1:2])
    with pytest.raises(ValueError, match="dimension 1 does not match array of dimension 3"):
        mx.take_along_axis(x, mx.array([0]), 0)
    with pytest.raises(IndexError, match=r"\[take\]"):
        mx.take(x, mx.array([0]), 3)
    with pytest.raises(ValueError, match="integral"):
        mx.take(x, mx.array([0.5]))


def test_windows_at_data_positions():
    a = np.arange(12).reshape(3, 4)
    x = mx.array(a)
    assert mx.slice(x, mx.array([1, 2]), (0, 1), (2, 2)).tolist() == a[1:3, 2:4].tolist()
    assert mx.slice(x, mx.array(1), (1,), (3, 2)).tolist() == a[:, 1:3].tolist()
    assert mx.slice_update(x, mx.array([7.5]), mx.array([1]), [1]).tolist() == [
        [0, 7, 2, 3],
        [4, 7, 6, 7],
        [8, 7, 10, 11],
    ]
    for start in (-1, 3):
        with pytest.raises(IndexError, match=r"\[slice.*window.*out of bounds"):
            mx.eval(mx.slice(x, mx.array([start]), [1], (3, 2)))
        with pytest.raises(IndexError, match=r"\[slice.*window.*out of bounds"):
            mx.eval(mx.slice_update(x, mx.zeros((3, 2)), mx.array([start]), [1]))
        with pytest.raises(IndexError):
            mx.eval(mx.vmap(lambda i: mx.slice(x, i, [1], (3, 2)))(mx.array([[0], [start]])))
    for sizes in ((3,), (3, 5), (3, -1)):
        with pytest.raises(ValueError, match="Invalid slice size|Negative"):
            mx.slice(x, mx.array([0]), [1], sizes)
    with pytest.raises(ValueError, match="one per axis"):
        mx.slice(x, mx.array([0, 0]), [1], (1, 1))


def test_symbolic_extents():
    """Shapes follow for all sizes; where an answer depends on the size, the trace guards it."""

    def f(x):
        y = x[1:] - x[:-1]
        z = mx.concatenate([y, y[::-2], x[:, :2] @ mx.ones((2, 3))])
        return z[None, ..., -1], x[-1], x[:, 0].reshape(-1), x.at[:, 0].add(1)

    g = mx.compile(f, shapeless=True)
    for n in (3, 8, 2):
        x = np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)
        y = x[1:] - x[:-1]
        z = np.concatenate([y, y[::-2], x[:, :2] @ np.ones((2, 3), np.float32)])
        added = x.copy()
        added[:, 0] += 1
        for got, want in zip(g(mx.array(x)), (z[None, ..., -1], x[-1], x[:, 0], added), strict=True):
            np.testing.assert_allclose(np.array(got), want, rtol=1e-6)


def _rolled_in_place(x, u, i):
    z = mx.zeros((4,), x.dtype)
    z[1] = u.sum()
    z[i] = u
    z[::-2] += x[:2]
    x = x.at[i].multiply(u)
    x[z > 2] = -1
    return x + z


def test_writes_inside_transforms():
    random = np.random.default_rng(1)
    x, u = random.normal(size=(3, 4)).astype(np.float32), random.normal(size=(3, 2)).astype(np.float32)
    i = np.array([[0, 3], [2, 2], [-1, 1]], np.int32)
    operands = [mx.array(a) for a in (x, u, i)]
    rows = [_rolled_in_place(*[a[k] * 1 for a in operands]) for k in range(3)]
    want = np.array(mx.stack(rows))
    np.testing.assert_allclose(np.array(mx.vmap(_rolled_in_place)(*operands)), want, rtol=1e-6)
    for axes in ((0, None, None), (None, 0, None), (None, None, 0)):
        given = [a if axis == 0 else a[1] * 1 for a, axis in zip(operands, axes, strict=True)]
        loop = [
            _rolled_in_place(*[a[k] * 1 if axis == 0 else a * 1 for a, axis in zip(given, axes, strict=True)])
            for k in range(3)
        ]
        mapped = mx.vmap(_rolled_in_place, in_axes=axes)(*given)
        np.testing.assert_allclose(np.array(mapped), np.array(mx.stack(loop)), rtol=1e-6)
    assert np.array_equal(np.array(operands[0]), x), "the caller's arrays keep their values"
    compiled = mx.compile(mx.vmap(_rolled_in_place))(*operands)
    np.testing.assert_allclose(np.array(compiled), want, rtol=1e-6)

    def loss(x, u):
        return (mx.vmap(_rolled_in_place)(x, u, mx.array(i)) ** 2).sum()

    xs, us = (mx.array(a, mx.float64) for a in (x, u))
    dx, du = mx.grad(loss, argnums=(0, 1))(xs, us)
    tx, tu = (random.normal(size=a.shape) for a in (x, u))
    h = 1e-6
    up, down = (loss(xs + s * f64(tx), us + s * f64(tu)).item() for s in (h, -h))
    np.testing.assert_allclose(
        np.sum(np.array(dx) * tx) + np.sum(np.array(du) * tu), (up - down) / (2 * h), rtol=1e-4
    )


def test_a_captured_array_is_not_updated_while_tracing():
    outer = mx.zeros((3,))

    def f(x):
        outer[:1] = x
        return outer * 1

    for traced in (mx.compile(f), mx.vmap(f)):
        with pytest.raises(ValueError, match=r"\[setitem\].*test_indexing.py:\d+"):
            traced(mx.array([1.0]))
    assert outer.tolist() == [0, 0, 0]


@pytest.mark.peers
def test_against_mlx():
    mlx = pytest.importorskip("mlx.core")
    a = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    i, j = np.array([0, 1]), np.array([[0], [2]])
    indices = [
        (0, slice(None), i), (i, slice(None), 0), (slice(None), None, i), (i, None, i), (i, j), (..., i),
        (i, ..., j), (slice(None, None, -1), slice(None, None, 2)), None, (None, 0), slice(5, 1),
    ]  # fmt: skip
    for index in indices:
        theirs = mlx.array(a)[_as(mlx, index)]
        mine = mx.array(a)[ours(index)]
        assert mine.shape == tuple(theirs.shape)
        np.testing.assert_array_equal(np.array(mine), np.array(theirs))
        for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
            theirs = getattr(mlx.array(a).at[_as(mlx, index)], name)(mlx.array(2.5))
            mine = getattr(mx.array(a).at[ours(index)], name)(mx.array(2.5))
            np.testing.assert_allclose(np.array(mine), np.array(theirs), rtol=1e-6)


def _as(mlx, index):
    if isinstance(index, tuple):
        return tuple(_as(mlx, item) for item in index)
    return mlx.array(index) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("size", [1, 3])
def test_compiled_indices_are_checked_where_the_element_does_not_depend_on_them(size):
    wrong, right = mx.array([size]), mx.array([size - 1])
    row = mx.array([1.0, 2.0])
    for fun in (
        lambda i: mx.ones((size,))[i],
        lambda i: (mx.ones((size,)) * 2)[i] + 1,
        lambda i: mx.broadcast_to(row, (size, 2))[i, 1],
        lambda i: mx.broadcast_to(row.astype(mx.complex64), (size, 2))[i],
        lambda i: mx.slice(mx.broadcast_to(row, (size, 2)), i, axes=(0,), slice_size=(1, 2)),
        lambda i: (row[:1] if size == 1 else mx.arange(3.0))[i],
    ):
        assert mx.compile(fun)(right).tolist() == fun(right).tolist()
        for run in (fun, mx.compile(fun)):
            with pytest.raises(IndexError, match="out of bounds"):
                mx.eval(run(wrong))
