"""Arrays to and from other libraries and Python: construction, views, buffers, DLPack, dtypes."""

from __future__ import annotations

import array as pyarray
import copy
import gc
import hashlib
import io
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ingot as mx
from ingot.tracer import dtypes
from ingot.tracer.errors import TracerError

DTYPES = [d for d in dtypes.ALL if d is not mx.bfloat16]


# -- from other objects ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (True, mx.bool_, ()), (3, mx.int32, ()), (1 << 40, mx.int64, ()), (2.5, mx.float32, ()),
        (1j, mx.complex64, ()), ([], mx.float32, (0,)), ([[], []], mx.float32, (2, 0)),
        ([True, False], mx.bool_, (2,)), ([1, True], mx.int32, (2,)), ([1, 2.5], mx.float32, (2,)),
        ([1, 1j], mx.complex64, (2,)), ([1, 1 << 40], mx.int64, (2,)), (((1, 2), [3, 4]), mx.int32, (2, 2)),
        (np.float64(2), mx.float32, ()), (np.zeros((2, 3)), mx.float32, (2, 3)),
        (np.zeros(3, ">i4"), mx.int32, (3,)),
        (np.zeros(2, ml_dtypes.bfloat16), mx.bfloat16, (2,)),
        (np.zeros(2, np.complex128), mx.complex64, (2,)),
        (b"abc", mx.uint8, (3,)), (memoryview(b"ab"), mx.uint8, (2,)),
        (pyarray.array("d", [1, 2]), mx.float32, (2,)),
        ([np.float32(1), 2], mx.float32, (2,)), (range(0), None, None), ("ab", None, None),
        (None, None, None),
        ([1, [2]], None, None), ([[1, 2], [3]], None, None), ([1, None], None, None), (object(), None, None),
    ],
)  # fmt: skip
def test_construction(value, dtype, shape):
    if dtype is None:
        with pytest.raises(ValueError, match=r"\[array\]"):
            mx.array(value)
        return
    x = mx.array(value)
    assert (x.dtype, x.shape) == (dtype, shape)
    if not isinstance(value, bytes | memoryview):
        np.testing.assert_array_equal(np.array(x).astype(np.complex128), np.array(value, np.complex128))
    if not dtype.is_complex:
        assert mx.array(value, mx.float16).dtype is mx.float16


def test_construction_from_arrays():
    x = mx.array([1, 2])
    assert mx.array([x, x + 1]).tolist() == [[1, 2], [2, 3]]
    assert mx.array([[x[0], 5], [6, x[1]]]).tolist() == [[1, 5], [6, 2]]
    assert mx.array([mx.array(1), mx.array(2.5)]).dtype is mx.float32
    with pytest.raises(ValueError, match="non-uniform"):
        mx.array([x, mx.array([1])])
    y = mx.array(x)
    y[0] = 9
    assert x.tolist() == [1, 2]


def test_numpy_memory_is_copied():
    a = np.arange(4, dtype=np.int32)
    x, strided = mx.array(a), mx.array(a[::-2])
    a[:] = 0
    assert x.tolist() == [0, 1, 2, 3] and strided.tolist() == [3, 1]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_back_and_forth(dtype):
    a = np.arange(6).reshape(2, 3).astype(dtype.numpy)
    x = mx.array(a, dtype)
    for back in (np.array(x), np.asarray(x), np.array(x, copy=False), np.asarray(memoryview(x))):
        assert back.dtype == a.dtype and back.shape == a.shape
        np.testing.assert_array_equal(back, a)
    assert x.tolist() == a.tolist()
    assert pickle.loads(pickle.dumps(x)).tolist() == a.tolist()
    assert copy.copy(x).tolist() == copy.deepcopy(x).tolist() == a.tolist()
    assert hashlib.sha256(memoryview(x)).digest() == hashlib.sha256(a).digest()
    if dtype is not mx.bool_:
        np.testing.assert_array_equal(np.from_dlpack(x), a)
        np.testing.assert_array_equal(np.array(mx.array(np.from_dlpack(x), dtype)), a)


def test_bfloat16():
    x = mx.array([1.5, -2.25], mx.bfloat16)
    assert np.array(x).dtype == ml_dtypes.bfloat16 and np.array(x, np.float32).tolist() == [1.5, -2.25]
    assert x.tolist() == [1.5, -2.25] and x[0].item() == 1.5
    assert pickle.loads(pickle.dumps(x)).tolist() == [1.5, -2.25]
    assert mx.array(np.array(x)).dtype is mx.bfloat16
    with pytest.raises((ValueError, BufferError)):  # the protocol has no letter for it
        memoryview(x)


def test_scalars():
    assert mx.array(3).item() == 3 and isinstance(mx.array([[2.5]]).item(), float)
    assert int(mx.array(3.7)) == 3 and float(mx.array(2)) == 2.0 and complex(mx.array(2)) == 2
    assert bool(mx.array([1])) and not mx.array(0.0)
    assert [10, 20, 30][mx.array(1)] == 20
    assert f"{mx.array(2.5):.2f}" == "2.50"
    for make in (lambda x: x.item(), bool, int, float):
        with pytest.raises(ValueError, match=r"length-1 arrays.*\(2\)"):
            make(mx.array([1, 2]))
    with pytest.raises(TypeError, match="integer"):
        [1, 2][mx.array(1.0)]


# -- views -----------------------------------------------------------------------------------------


def test_memoryview():
    x = mx.arange(6).reshape(2, 3)
    view = memoryview(x)
    assert (view.format, view.shape, view.strides, view.itemsize) == ("i", (2, 3), (12, 4), 4)
    assert not view.readonly and view.c_contiguous and view.nbytes == 24
    view[1, 2] = 77
    assert x.tolist() == [[0, 1, 2], [3, 4, 77]]
    transposed = memoryview(x.T)
    assert transposed.shape == (3, 2) and transposed.tolist() == [[0, 3], [1, 4], [2, 77]]
    assert memoryview(mx.array(2.5)).tolist() == 2.5
    assert memoryview(mx.zeros((0, 3))).shape == (0, 3)
    assert bytearray(memoryview(mx.array([1, 2], mx.uint8))) == b"\x01\x02"


def test_a_view_outlives_its_array():
    x = mx.arange(1000) + 1
    view, viewed = memoryview(x), np.array(x, copy=False)
    del x
    gc.collect()
    assert view[999] == 1000 and viewed.sum() == 500500


def test_views_do_not_leak():
    x = mx.arange(10)
    memoryview(x)  # the first view of lazy memory may give the array memory of its own
    before = sys.getrefcount(x), sys.getrefcount(x._value.view)
    for _ in range(1000):
        memoryview(x).release()
        np.array(x, copy=False)
    gc.collect()
    assert (sys.getrefcount(x), sys.getrefcount(x._value.view)) == before


def test_writes_through_views_are_seen_and_pin():
    x = mx.arange(4)
    mx.eval(x)
    assert not x._value.storage.pinned
    a = np.array(x, copy=False)
    assert x._value.storage.pinned
    a[0] = 50
    assert x.tolist() == [50, 1, 2, 3] and (x + 1).tolist() == [51, 2, 3, 4]
    b = np.from_dlpack(x)
    np.asarray(x)[1] = 60
    assert b.tolist() == a.tolist() == [50, 60, 2, 3]
    # a compiled function that captured the array keeps what it saw
    f = mx.compile(lambda y: y + x)
    assert f(mx.zeros((4,), mx.int32)).tolist() == [50, 60, 2, 3]
    a[2] = 70
    assert f(mx.zeros((4,), mx.int32)).tolist() == [50, 60, 2, 3]
    assert f(x).tolist() == [100, 120, 72, 6]


def test_views_of_memory_that_must_not_change_are_copies():
    """A broadcast, and a constant of a graph: the array gets memory of its own first."""
    x = mx.broadcast_to(mx.array([1, 2]), (3, 2))
    a = np.array(x, copy=False)
    a[0, 0] = 9
    assert x.tolist() == [[9, 2], [1, 2], [1, 2]]
    y = mx.array([1.0, 2.0])
    f = mx.compile(lambda z: z + y)
    assert f(mx.zeros((2,))).tolist() == [1, 2]
    np.array(y, copy=False)[0] = 5
    assert y.tolist() == [5, 2] and f(mx.zeros((2,))).tolist() == [1, 2]


def test_copies():
    x = mx.arange(3)
    a = np.array(x)
    a[0] = 9
    assert x.tolist() == [0, 1, 2]
    assert np.asarray(x, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy|view"):
        np.array(x, np.float64, copy=False)


def test_lazy_arrays_are_evaluated_by_views():
    x = mx.arange(3) * 2
    assert memoryview(x).tolist() == [0, 2, 4]
    assert np.array(mx.arange(3) * 3).tolist() == [0, 3, 6]


@pytest.mark.parametrize(
    "convert", [memoryview, np.array, np.asarray, np.from_dlpack, float, bool, hashlib.md5]
)
def test_values_are_not_known_while_tracing(convert):
    with pytest.raises(TracerError, match=r"test_conversion.py:\d+"):
        mx.compile(lambda x: convert(x + 1))(mx.array(1.0))
    with pytest.raises(TracerError):
        mx.vmap(lambda x: convert(x + 1))(mx.array([1.0]))


def test_errors_of_evaluation_pass_through_views():
    x = mx.arange(3)
    bad = mx.take(x, mx.array([5]))
    with pytest.raises(IndexError, match="out of bounds"):
        memoryview(bad)


def test_buffer_requests():
    """Consumers that ask for less than strides get contiguous memory or an error, never wrong bytes."""
    x = mx.arange(6, dtype=mx.uint8).reshape(2, 3)
    assert hashlib.md5(x).digest() == hashlib.md5(bytes(range(6))).digest()
    turned = x.T
    if np.array(turned, copy=False).flags.c_contiguous:  # compiled code gives no strides
        assert hashlib.md5(turned).digest() == hashlib.md5(bytes([0, 3, 1, 4, 2, 5])).digest()
    else:
        with pytest.raises((ValueError, BufferError)):
            hashlib.md5(turned)
    target = mx.zeros((4,), mx.uint8)
    mx.eval(target)
    assert io.BytesIO(b"abcd").readinto(target) == 4
    assert target.tolist() == [97, 98, 99, 100]


# -- between dtypes --------------------------------------------------------------------------------

LIMITS = {d: np.iinfo(d.numpy) for d in DTYPES if d.is_integer}


@given(st.floats(allow_nan=True, allow_infinity=True, width=32), st.sampled_from(list(LIMITS)))
@settings(max_examples=200, deadline=None)
def test_floats_saturate_to_integers(x, dtype):
    info = LIMITS[dtype]
    want = 0 if x != x else info.max if x >= info.max else info.min if x <= info.min else int(x)
    for source in (mx.float32, mx.float64):
        assert mx.array(x, source).astype(dtype).item() == want
    assert mx.array([x], dtype).tolist() == [want]


@pytest.mark.parametrize("source", DTYPES, ids=lambda d: d.name)
def test_integers_wrap_and_bools_compare(source):
    values = np.array([0, 1, 2, 100]).astype(source.numpy)
    x = mx.array(values, source)
    for target in DTYPES:
        if source.is_complex and not target.is_complex:
            continue
        got = x.astype(target)
        assert got.dtype is target
        want = values != 0 if target is mx.bool_ else values.astype(target.numpy)
        np.testing.assert_array_equal(np.array(got), want)
    if source is mx.int32:
        assert mx.array([300, -1], source).astype(mx.uint8).tolist() == [44, 255]
    if source.is_inexact:
        assert mx.array(0.25, source).astype(mx.bool_).item() is True


def test_conversion_gives_a_new_handle():
    x = mx.array([1, 2])
    y = x.astype(mx.int32)
    y[0] = 9
    assert x.tolist() == [1, 2]
