"""The array: construction, dtypes, printing, conversion, rebinding; beside the real MLX."""

import copy
import math
import pickle

import numpy as np
import pytest

import ingot as mx
from ingot.tracer import dtypes


@pytest.fixture(scope="module")
def mlx():
    core = pytest.importorskip("mlx.core")
    core.set_default_device(core.cpu)
    return core


CONSTRUCTED = [
    "array(1)", "array(True)", "array(1.5)", "array(1+2j)", "array(2**40)", "array([1, 2.5, True])",
    "array([True, 2])", "array([])", "array([[], []])", "array([[1, 2], [3, 4]])", "array((1, 2))",
    "array([1, 2], dtype=m.float16)", "array(3, dtype=m.float32)", "array([1.7, -1.7], dtype=m.int32)",
    "array([2**40])", "array([array(1.5), 2])", "array([array([1, 2]), array([3, 4])])",
    "array(np.arange(3))", "array(np.zeros(2))", "array(np.float64(1.5))",
    "array(np.arange(6).reshape(2, 3).T)", "array(np.array([1, 2], dtype=np.complex128))",
    "array(np.int8(3))", "array([0.1, 1/3, 1e10, 1e-8])",
    "array([float('nan'), float('inf'), -float('inf')])", "array([-0.0, 0.0])",
    "array([1e20, 123456789.0, 0.0001, 0.00001])", "array([[[1], [2]], [[3], [4]]])",
    "array(array([1, 2]), dtype=m.float32)", "array([1+2j, -1.5-0.25j])", "arange(2000)",
    "arange(2000).reshape(2, 1000)", "zeros((2, 0))", "zeros((0, 2))", "arange(1200).reshape(8, 10, 15)",
    "array([2.5], dtype=m.bfloat16)", "array([1, 200], dtype=m.uint8)",
]  # fmt: skip


@pytest.mark.peers
@pytest.mark.parametrize("text", CONSTRUCTED)
def test_constructed_and_printed_as_mlx_does(mlx, text):
    def run(m):
        return eval(
            text, {"m": m, "np": np, "array": m.array, "arange": m.arange, "zeros": m.zeros, "float": float}
        )

    ours, theirs = run(mx), run(mlx)
    assert tuple(ours.shape) == tuple(theirs.shape)
    assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[-1]
    assert repr(ours) == repr(theirs) and str(ours) == str(theirs)
    assert ours.size == theirs.size and ours.ndim == theirs.ndim and ours.nbytes == theirs.nbytes


@pytest.mark.peers
def test_promotion_table(mlx):
    names = [d.name if d is not dtypes.bool_ else "bool_" for d in dtypes.ALL]
    for a in names:
        for b in names:
            theirs = (mlx.array([1]).astype(getattr(mlx, a)) + mlx.array([1]).astype(getattr(mlx, b))).dtype
            ours = dtypes.promote(getattr(mx, a), getattr(mx, b))
            assert ours.name == str(theirs).split(".")[-1], (a, b)
        for scalar in (True, 1, 1.0, 1j):
            theirs = (mlx.array([1]).astype(getattr(mlx, a)) + scalar).dtype
            ours = (mx.array([1]).astype(getattr(mx, a)) + scalar).dtype
            assert ours.name == str(theirs).split(".")[-1], (a, scalar)


@pytest.mark.parametrize(
    "value, error, message",
    [
        ([[1, 2], [3]], ValueError, "non-uniform length"),
        ("a", ValueError, "Invalid type str"),
        (["a"], ValueError, "Invalid type str"),
        (None, ValueError, "Invalid type NoneType"),
        (object(), ValueError, "Invalid type object"),
        (np.array(["a"]), ValueError, "no Ingot dtype"),
        ([1, [2]], ValueError, "non-uniform length"),
    ],
)
def test_bad_input(value, error, message):
    with pytest.raises(error, match=message):
        mx.array(value)


def test_values_out_of_range():
    with pytest.raises(ValueError, match="300 does not fit uint8"):
        mx.array(300, dtype=mx.uint8)
    with pytest.raises(ValueError, match="do not fit uint8"):
        mx.array([300], dtype=mx.uint8)
    with pytest.raises(ValueError, match="does not fit"):
        mx.array(2**70)


def test_float_to_integer_saturates():
    x = mx.array([1.7, -1.7, math.nan, math.inf, -math.inf, 3e9, -3e9])
    assert x.astype(mx.int32).tolist() == [1, -1, 0, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31)]
    assert x.astype(mx.uint8).tolist() == [1, 0, 0, 255, 0, 255, 0]
    assert x.astype(mx.int64).tolist()[:3] == [1, -1, 0] and x.astype(mx.int64)[3].item() == 2**63 - 1


def test_scalars():
    assert mx.array(3).item() == 3 and isinstance(mx.array(3).item(), int)
    assert isinstance(mx.array(True).item(), bool) and isinstance(mx.array(1.5).item(), float)
    assert isinstance(mx.array(2.5, dtype=mx.bfloat16).item(), float)
    assert int(mx.array([3])) == 3 and float(mx.array(2)) == 2.0 and [1, 2, 3][mx.array(1)] == 2
    assert bool(mx.array([0])) is False and f"{mx.array(1.25):.1f}" == "1.2"
    with pytest.raises(ValueError, match="length-1"):
        mx.array([1, 2]).item()
    with pytest.raises(TypeError):
        [1, 2][mx.array(1.0)]
    with pytest.raises(TypeError, match="0-dimensional"):
        len(mx.array(1))
    with pytest.raises(TypeError, match="0-dimensional"):
        iter(mx.array(1))


def test_hash_and_identity():
    a = mx.array([1, 2])
    assert {a: 1}[a] == 1
    assert [x.item() for x in a] == [1, 2]


def test_pickle_and_copy():
    x = mx.array([[1.5, 2.5]], dtype=mx.bfloat16) * 2
    y = pickle.loads(pickle.dumps(x))
    assert y.dtype is mx.bfloat16 and y.tolist() == [[3, 5]]
    z = copy.copy(x)
    z[0, 0] = 0
    assert x.tolist() == [[3, 5]] and z.tolist() == [[0, 5]]
    assert copy.deepcopy({"a": x})["a"].tolist() == [[3, 5]]


def test_guide_in_place_updates():
    a = mx.array([1, 2, 3])
    b = a
    b[2] = 0
    assert b.tolist() == [1, 2, 0] and a.tolist() == [1, 2, 0]


def test_recorded_nodes_keep_the_value_they_saw():
    a = mx.array([1, 2, 3])
    before = a * 2
    a[0] = 100
    assert before.tolist() == [2, 4, 6] and a.tolist() == [100, 2, 3]


def test_guide_numpy_view_writes_through():
    a = mx.arange(3)
    view = np.array(a, copy=False)
    assert view.flags.owndata is np.False_ or not view.flags.owndata
    view[0] = 1
    assert a[0].item() == 1
    assert np.array(a).base is None
    c = mx.array(np.array(a))
    view[0] = 7
    assert c[0].item() == 1


def test_a_pinned_array_is_not_updated_in_its_memory():
    a = mx.arange(3)
    view = np.array(a, copy=False)
    a[0] = 9
    mx.eval(a)
    assert view[0] == 0 and a[0].item() == 9


def test_float64_stays_where_asked():
    assert mx.array(np.zeros(2), dtype=mx.float64).dtype is mx.float64
    assert mx.array(1.5, dtype=mx.float64).dtype is mx.float64
    assert repr(mx.float32) == "ingot.float32" and mx.float32.size == 4


def test_issubdtype():
    assert mx.issubdtype(mx.float32, mx.floating) and mx.issubdtype(mx.floating, mx.inexact)
    assert not mx.issubdtype(mx.int32, mx.floating) and mx.issubdtype(mx.uint8, mx.integer)
