"""Elementwise functions: arguments, promotion, special values, gradients; against NumPy and MLX."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ingot as mx
from ingot.tracer import config, dtypes
from ingot.tracer.dims import Dim
from ingot.tracer.primitives import special
from ingot.tracer.trace import trace

FLOATS = [mx.float16, mx.bfloat16, mx.float32]


def numpy(x: mx.array) -> np.ndarray:
    return np.array(x.astype(mx.float32) if x.dtype is mx.bfloat16 else x)


# -- arguments and dtypes --


def test_scalars_are_weak() -> None:
    half, byte, flag = mx.array([1, 2], mx.float16), mx.array([1, 2], mx.uint8), mx.array([True])
    assert (half + 1).dtype is mx.float16
    assert (half * 2.5).dtype is mx.float16
    assert (2 / half).dtype is mx.float16
    assert (byte + 1).dtype is mx.uint8
    assert (byte + 1.5).dtype is mx.float32
    assert (flag + 1).dtype is mx.int32
    assert (flag + 1.0).dtype is mx.float32
    assert (flag & True).dtype is mx.bool_
    assert (byte == 1.5).tolist() == [False, False]
    assert (half + np.float32(1)).dtype is mx.float16
    assert (half + np.array(1.0)).dtype is mx.float16
    assert (1 + mx.array(2)).item() == 3 and (7 - mx.array(2)).item() == 5


def test_numpy_arrays_take_the_dtype_of_their_kind() -> None:
    x = mx.array([1, 2], mx.int8)
    assert (x + np.array([1, 2])).dtype is mx.int8
    assert (x + np.array([1.5, 2.5])).tolist() == [2.5, 4.5]
    assert (np.array([1.5, 2.5]) * mx.array([2.0, 2.0])).dtype is mx.float32
    assert (mx.array([1.0], mx.float16) - np.array([1e-3])).dtype is mx.float16
    double = mx.array([0.1], mx.float64)
    assert (double - np.array([0.1])).item() == 0.0


def test_python_scalars_alone() -> None:
    assert mx.add(1, 2).item() == 3 and mx.add(1, 2).dtype is mx.int32
    assert mx.add(1, 2.0).dtype is mx.float32
    assert mx.exp(1).item() == pytest.approx(math.e)
    assert mx.where(True, 1, 2.0).dtype is mx.float32
    assert mx.abs(-3).item() == 3


def test_a_scalar_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="Converting 300 to uint8 would result in overflow"):
        mx.array([1], mx.uint8) + 300
    with pytest.raises(ValueError, match="int32"):
        mx.less(mx.array([1]), 2**40)
    assert (mx.array([1], mx.uint64) + -1).item() == 0


@pytest.mark.parametrize("bad", [[1, 2], "a", None, {}])
def test_lists_and_strings_are_no_operands(bad: Any) -> None:
    x = mx.array([1, 2])
    with pytest.raises((ValueError, TypeError)):
        mx.add(x, bad)
    with pytest.raises((ValueError, TypeError)):
        x + bad
    assert (x == bad) is False
    assert (x != bad) is True


def test_shapes_that_do_not_broadcast() -> None:
    with pytest.raises(
        ValueError, match=r"\[broadcast_shapes\] Shapes \(2,3\) and \(4\) cannot be broadcast"
    ):
        mx.ones((2, 3)) + mx.ones((4,))


def test_every_pair_of_dtypes_promotes() -> None:
    for a in dtypes.ALL:
        for b in dtypes.ALL:
            assert mx.add(mx.zeros((1,), a), mx.zeros((1,), b)).dtype is dtypes.promote(a, b)


def test_integers_become_float_where_the_result_is() -> None:
    for fn in (mx.exp, mx.sqrt, mx.sin, mx.sigmoid, mx.erf, mx.reciprocal, mx.log1p, mx.degrees):
        assert fn(mx.array([1, 2])).dtype is mx.float32
        assert fn(mx.array([True])).dtype is mx.float32
    assert mx.divide(mx.array([1]), mx.array([2])).item() == 0.5
    for fn in (mx.floor, mx.ceil, mx.trunc, mx.round, mx.abs, mx.sign, mx.square):
        assert fn(mx.array([1, 2], mx.uint8)).dtype is mx.uint8


def test_in_place_operators_are_seen_by_all_references() -> None:
    a = mx.array([1, 2])
    b = a
    a += 1.5
    a *= 2
    assert b.tolist() == [5.0, 7.0] and b.dtype is mx.float32
    m = mx.array([[0.0, 1.0], [1.0, 0.0]])
    m @= mx.array([[1.0, 2.0], [3.0, 4.0]])
    assert m.tolist() == [[3, 4], [1, 2]]


def test_a_result_is_a_handle_of_its_own() -> None:
    x = mx.array([1, 2])
    for same in (x.astype(mx.int32), mx.floor(x), mx.nan_to_num(x), mx.view(x, mx.int32)):
        same += 1
        assert x.tolist() == [1, 2]


def test_operators_that_the_dtype_does_not_have() -> None:
    x = mx.array([1.0])
    for op in (lambda: x & x, lambda: x | 1, lambda: ~x, lambda: x << 1, lambda: x ^ x):
        with pytest.raises(ValueError, match=r"\[\w+\]"):
            op()
    with pytest.raises(ValueError, match=r"\[negative\] Not supported for bool"):
        -mx.array([True])
    with pytest.raises(ValueError, match="a_min"):
        mx.clip(x, None, None)


# -- values --


def test_division_by_zero_and_signs() -> None:
    x, y = mx.array([7, -7, 7, -7, 5]), mx.array([2, 2, -2, -2, 0])
    assert (x // y).tolist() == [3, -4, -4, 3, 0]
    assert (x % y).tolist() == [1, 1, -1, -1, 0]
    quotient, rest = divmod(x, 2)
    assert (quotient * 2 + rest).tolist() == x.tolist()
    assert (mx.array([7.5, -7.5]) // 0).tolist() == [math.inf, -math.inf]
    assert (mx.array([7.5, -7.5]) % mx.array([-2.0, 2.0])).tolist() == [-0.5, 0.5]


def test_conversion_saturates() -> None:
    x = mx.array([math.nan, math.inf, -math.inf, 300.7, -1.0, 2.9])
    assert x.astype(mx.uint8).tolist() == [0, 255, 0, 255, 0, 2]
    assert x.astype(mx.int32).tolist() == [0, 2**31 - 1, -(2**31), 300, -1, 2]
    assert x.astype(mx.bool_).tolist() == [True] * 6
    assert mx.array([1.5], mx.bfloat16).astype(mx.int64).item() == 1


def test_rounding() -> None:
    assert mx.round(mx.array([0.5, 1.5, 2.5, -0.5])).tolist() == [0, 2, 2, 0]
    assert mx.round(mx.array([15, 25, -35, 149]), -1).tolist() == [20, 20, -40, 150]
    assert mx.round(mx.array([1.25, 2.375]), 2).tolist() == pytest.approx([1.25, 2.38])
    assert mx.array([1.26]).round(1).item() == pytest.approx(1.3)


def test_predicates() -> None:
    x = mx.array([1.0, math.nan, math.inf, -math.inf])
    assert mx.isnan(x).tolist() == [False, True, False, False]
    assert mx.isinf(x).tolist() == [False, False, True, True]
    assert mx.isfinite(x).tolist() == [True, False, False, False]
    assert mx.isposinf(x).tolist() == [False, False, True, False]
    assert mx.isneginf(x).tolist() == [False, False, False, True]
    assert mx.isfinite(mx.array([1])).tolist() == [True]
    assert mx.isinf(mx.array([1])).tolist() == [False]
    assert mx.isclose(x, x).tolist() == [True, False, True, True]
    assert mx.isclose(x, x, equal_nan=True).tolist() == [True] * 4
    assert mx.isclose(mx.array([1.0]), mx.array([math.inf])).tolist() == [False]
    assert mx.isclose(mx.array([math.inf]), mx.array([-math.inf])).tolist() == [False]
    assert not mx.array_equal(x, x) and mx.array_equal(x, x, equal_nan=True)
    assert not mx.array_equal(x, x[:2]) and not mx.array_equal(mx.ones((2, 1)), mx.ones((1, 2)))
    assert mx.array_equal(mx.array([1]), mx.array([1.0]))
    assert mx.allclose(mx.array([1.0]), mx.array([1.0 + 1e-7]))


def test_nan_to_num_clip_where() -> None:
    x = mx.array([math.nan, math.inf, -math.inf, 1.0])
    largest = float(np.finfo(np.float32).max)
    assert mx.nan_to_num(x).tolist() == [0, largest, -largest, 1]
    assert mx.nan_to_num(x, 1, 2, 3).tolist() == [1, 2, 3, 1]
    for dtype in FLOATS:
        assert mx.isfinite(mx.nan_to_num(x.astype(dtype))).all().item()
    assert mx.clip(mx.array([1, 5, 9]), 2, 7.5).tolist() == [2, 5, 7.5]
    assert mx.clip(mx.array([1, 5]), None, 3).tolist() == [1, 3]
    assert mx.where(mx.array([0, 2]), mx.array([1, 2]), 7.5).tolist() == [7.5, 2]
    assert mx.logical_and(mx.array([0, 1]), mx.array([1.0, 2.0])).tolist() == [False, True]
    assert mx.logical_or(mx.array([0, 0]), mx.array([0.0, math.nan])).tolist() == [False, True]
    assert mx.logical_not(mx.array([0, 3])).tolist() == [True, False]


def test_view_as_other_sizes() -> None:
    rng = np.random.default_rng(1)
    data = rng.integers(0, 256, (3, 16), np.uint8)
    for source in (np.uint8, np.int16, np.float32, np.uint64, np.float16):
        x = data.view(source)
        for target in (mx.int8, mx.uint16, mx.int32, mx.int64, mx.float64, mx.uint8, mx.float32):
            got = np.array(mx.view(mx.array(x, dtypes.from_numpy(x.dtype)), target))
            assert got.tobytes() == x.view(target.numpy).tobytes()
    with pytest.raises(ValueError, match=r"\[view\]"):
        mx.view(mx.array([1.0, 2.0, 3.0]), mx.int64)
    with pytest.raises(ValueError, match="scalar"):
        mx.view(mx.array(1.0), mx.int16)
    assert mx.view(1.0, mx.int32).item() == 0x3F800000


def test_result_type() -> None:
    assert mx.result_type(mx.array([1]), mx.float16) is mx.float16
    assert mx.result_type(mx.uint8, mx.int8, mx.bool_) is mx.int16


SMALL = hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(-100, 100, width=32))


@settings(max_examples=60, deadline=None)
@given(SMALL, st.sampled_from(["floor", "ceil", "trunc", "sqrt", "exp", "sin", "tanh", "abs", "square"]))
def test_unary_as_numpy(x: np.ndarray, name: str) -> None:
    """Bit for bit; functions that compiled code computes itself (`INGOT_EAGER=compile`) within 3 units in the
    last place: their bound is 2, and NumPy rounds too."""
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x)
    got = np.array(getattr(mx, name)(mx.array(x)))
    if config.get("INGOT_EAGER") == "compile" and name in ("exp", "sin", "tanh"):
        np.testing.assert_array_max_ulp(got, want, 3)
    else:
        np.testing.assert_array_equal(got, want)


INTS = st.sampled_from([np.int8, np.uint8, np.int16, np.uint32, np.int64])


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_integer_division_as_python(data: st.DataObject) -> None:
    dtype = data.draw(INTS)
    info = np.iinfo(dtype)
    element = st.integers(int(info.min), int(info.max))
    a, b = data.draw(st.lists(element, min_size=1, max_size=9)), data.draw(element)
    kind = dtypes.from_numpy(np.dtype(dtype))
    x, y = mx.array(a, kind), mx.array(b, kind)
    if b == 0:
        assert (x // y).tolist() == (x % y).tolist() == [0] * len(a)
        return
    wrap = np.array([v // b for v in a], object) & int(np.iinfo(np.uint64).max >> (64 - 8 * kind.size))
    assert (x // y).tolist() == wrap.astype(np.uint64).astype(dtype).tolist()
    assert (x % y).tolist() == [v % b for v in a]


@settings(max_examples=40, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3))
def test_broadcasting_and_its_gradient(shapes: Any) -> None:
    (s, t), result = shapes.input_shapes, shapes.result_shape
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=s).astype(np.float32), rng.normal(size=t).astype(np.float32)
    np.testing.assert_array_equal(np.array(mx.multiply(mx.array(x), mx.array(y))), x * y)
    gx, gy = mx.grad(lambda a, b: (a * b).sum(), argnums=(0, 1))(mx.array(x), mx.array(y))
    assert gx.shape == s and gy.shape == t
    full = np.broadcast_to(y, result)
    axes = tuple(
        i for i in range(len(result)) if i < len(result) - len(s) or s[i - len(result) + len(s)] == 1
    )
    np.testing.assert_allclose(np.array(gx), full.sum(axes, keepdims=True).reshape(s), rtol=1e-5, atol=1e-5)


# -- erf --


def test_erf_reference() -> None:
    x = np.concatenate(
        [np.linspace(-7, 7, 20_001), np.logspace(-300, 2, 2_000), [0.0, -0.0, np.inf, -np.inf]]
    )
    want = np.array([math.erf(v) for v in x])
    got = special.erf(x)
    np.testing.assert_array_less(np.abs(got - want), 1e-15 * np.abs(want) + 1e-320)
    assert np.signbit(special.erf(np.array(-0.0)))
    assert np.isnan(special.erf(np.array(np.nan)))
    positive = x[(x >= 0) & (x < 26)]
    tail = np.array([math.erfc(v) for v in positive])
    np.testing.assert_allclose(special.erfc(positive), tail, rtol=3e-14)


def test_erfinv_inverts_erf() -> None:
    x = np.linspace(-5.5, 5.5, 4_001)
    y = np.array([math.erf(v) for v in x])
    # the slope of erf tells how far rounding of y moves x
    slack = 1.5e-16 / (2 / math.sqrt(math.pi) * np.exp(-x * x)) + 4e-15
    inside = np.abs(y) < 1
    assert (np.abs(special.erfinv(y) - x) <= slack)[inside].all()
    tiny = np.logspace(-300, -3, 500)
    np.testing.assert_allclose(special.erfinv(tiny), tiny * math.sqrt(math.pi) / 2, rtol=1e-6)
    assert special.erfinv(np.array([1.0, -1.0])).tolist() == [np.inf, -np.inf]
    assert np.isnan(special.erfinv(np.array([1.1, -2.0, np.nan]))).all()


# -- gradients with a convention --


def test_gradients_at_ties_and_corners() -> None:
    x = mx.array([1.0, 3.0, 4.0])
    grad = lambda f: mx.grad(lambda v: f(v).sum())(x).tolist()  # noqa: E731
    assert grad(lambda v: mx.maximum(v, 3)) == [0, 0, 1]
    assert grad(lambda v: mx.maximum(3, v)) == [0, 1, 1]
    assert grad(lambda v: mx.minimum(v, 3)) == [1, 0, 0]
    assert grad(lambda v: mx.abs(v - 1)) == [0, 1, 1]
    assert grad(lambda v: (v - 1) ** 0) == [0, 0, 0]
    assert grad(lambda v: (v - 1) ** mx.array([0.0, 1.0, 2.0])) == [0, 1, 6]
    assert grad(lambda v: (v - 1) ** 2) == [0, 4, 6]
    assert grad(lambda v: 0.0 ** (v - 1)) == [0, 0, 0]
    assert grad(lambda v: mx.stop_gradient(v) * v) == [1, 3, 4]
    assert grad(lambda v: mx.where(v > 2, v * v, 0.0)) == [0, 6, 8]
    assert grad(lambda v: v.astype(mx.int32) * v) == [1, 3, 4]
    assert grad(lambda v: mx.logaddexp(v * math.inf, v * math.inf) * 0 + v)[0] != 0


def test_gradient_dtype_follows_the_argument() -> None:
    for dtype in (*FLOATS, mx.float64):
        x = mx.array([1.0, 2.0], dtype)
        assert (
            mx.grad(lambda v: (mx.exp(v).astype(mx.float32) * mx.array([1.0, 2.0])).sum())(x).dtype is dtype
        )


# -- symbolic shapes --


def test_symbolic_broadcasting_keeps_one_symbol() -> None:
    batch = Dim("B")
    avals = [mx.zeros((1, 3))._value.aval, mx.zeros((3,))._value.aval]
    avals[0] = type(avals[0])((batch, 3), mx.float32)
    graph = trace(lambda x, y: [mx.exp(x + y) * x.shape[0] - mx.maximum(x, 0)], avals).graph
    assert graph.output_avals[0].shape == (batch, 3) and not graph.guards


def test_the_younger_names() -> None:
    x = mx.array([0.5, 0.25])
    for old, new in (("arcsin", "asin"), ("arctanh", "atanh"), ("arctan2", "atan2"), ("power", "pow")):
        assert getattr(mx, old) is getattr(mx, new)
    assert mx.logical_xor(mx.array([1, 0, 2]), mx.array([2.0, 3.0, 0.0])).tolist() == [False, True, True]
    assert mx.array_equal(mx.positive(x), x) and (+x) is not x
    assert mx.can_cast(mx.int8, mx.int32) and not mx.can_cast(mx.float32, mx.float16)


def test_cotangents_of_complex_numbers_are_conjugated() -> None:
    z = mx.array([1 + 2j])
    assert mx.vjp(lambda v: v * v, [z], [z])[1][0].item() == 2 * (1 - 2j) * (1 + 2j)
    assert mx.vjp(lambda v: v + v, [z], [z])[1][0].item() == 2 + 4j


# -- MLX --


UNARY = """abs sign floor ceil trunc round sqrt rsqrt exp expm1 log log1p log2 log10 sin cos tan arcsin arccos
    arctan sinh cosh tanh arcsinh arccosh arctanh sigmoid erf erfinv square reciprocal degrees radians isnan
    isinf isfinite isposinf isneginf logical_not nan_to_num negative""".split()
BINARY = """add subtract multiply divide floor_divide remainder power maximum minimum logaddexp arctan2 equal
    not_equal less less_equal greater greater_equal logical_and logical_or
    bitwise_and bitwise_or bitwise_xor""".split()
TYPES = ["bool_", "uint8", "int8", "int32", "uint32", "int64", "float16", "bfloat16", "float32"]


def _both(real: Any, values: list[float], kind: str) -> tuple[Any, Any]:
    return mx.array(values).astype(getattr(mx, kind)), real.array(values).astype(getattr(real, kind))


def _compare(ours: mx.array, theirs: Any, real: Any, what: str) -> None:
    assert ours.dtype.name == str(theirs.dtype).split(".")[-1], what
    wide = np.array(theirs.astype(real.float32))
    tolerance = {"float16": 4e-3, "bfloat16": 2e-2}.get(ours.dtype.name, 4e-6)
    np.testing.assert_allclose(
        numpy(ours).astype(np.float32), wide, rtol=tolerance, atol=tolerance, err_msg=what
    )


@pytest.mark.peers
def test_unary_as_mlx() -> None:
    real = pytest.importorskip("mlx.core")
    values = [0.0, 1.0, 2.0, 0.5, 3.25, 0.75]
    for kind in TYPES:
        a, b = _both(real, values, kind)
        for name in UNARY:
            if name == "negative" and kind == "bool_":
                continue
            _compare(getattr(mx, name)(a), getattr(real, name)(b), real, f"{name} {kind}")


@pytest.mark.peers
def test_binary_as_mlx() -> None:
    real = pytest.importorskip("mlx.core")
    left, right = [1.0, 2.0, 3.0, 5.0, 0.0], [2.0, 1.0, 3.0, 2.0, 1.0]
    for i, first in enumerate(TYPES):
        for second in TYPES[i:]:
            (a, b), (x, y) = _both(real, left, first), _both(real, right, second)
            for name in BINARY:
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        theirs = getattr(real, name)(b, y)
                except (ValueError, RuntimeError):
                    with pytest.raises(ValueError):
                        getattr(mx, name)(a, x)
                    continue
                _compare(getattr(mx, name)(a, x), theirs, real, f"{name} {first} {second}")
