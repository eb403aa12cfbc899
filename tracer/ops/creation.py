"""Operations that make arrays: constants, ranges, masks."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, leaf, record, wrap
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import ShapeError
from ingot.tracer.graph import Literal
from ingot.tracer.ops.shape import as_array, as_extent, as_shape, broadcast_to
from ingot.tracer.primitives.elementwise import Select
from ingot.tracer.primitives.shape import BroadcastTo, Iota

ShapeLike: TypeAlias = "Extent | Sequence[Extent]"


# -- constants -------------------------------------------------------------------------------------


def zeros(shape: ShapeLike, dtype: Dtype | None = dtypes.float32, *, stream: Any = None) -> array:
    """Zeros of `shape`."""
    return record(BroadcastTo(as_shape("full", shape)), Literal(0, dtype or dtypes.float32))


def ones(shape: ShapeLike, dtype: Dtype | None = dtypes.float32, *, stream: Any = None) -> array:
    """Ones of `shape`."""
    return record(BroadcastTo(as_shape("full", shape)), Literal(1, dtype or dtypes.float32))


def full(shape: ShapeLike, vals: Any, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """`vals`, a scalar or an array that broadcasts, repeated to `shape`; its dtype by default."""
    wanted = as_shape("full", shape)
    found = vals if isinstance(vals, array) else array(vals, dtype)
    return broadcast_to(found if dtype is None or found.dtype is dtype else found.astype(dtype), wanted)


def zeros_like(a: Any, /, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """Zeros of the shape of `a`, and of its dtype unless one is given."""
    a = as_array(a)
    return zeros(a.shape, dtype or a.dtype)


def ones_like(a: Any, /, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """Ones of the shape of `a`, and of its dtype unless one is given."""
    a = as_array(a)
    return ones(a.shape, dtype or a.dtype)


def full_like(a: Any, vals: Any, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """`vals` repeated to the shape of `a`, in its dtype unless one is given."""
    a = as_array(a)
    return full(a.shape, vals, dtype or a.dtype)


empty = zeros
empty_like = zeros_like


def asarray(a: Any, dtype: Dtype | None = None, *, copy: bool | None = None) -> array:
    """`a` as an array.

    copy: False shares memory (arrays, and NumPy arrays of the dtype) or raises ValueError.
    """
    if copy is False:
        if isinstance(a, array) and dtype in (None, a.dtype):
            return wrap(a._value)
        if isinstance(a, np.ndarray) and a.dtype.isnative and dtype in (None, dtypes.from_numpy(a.dtype)):
            value = leaf(a)
            assert value.storage is not None
            value.storage.pinned = True  # its owner may write to it
            return wrap(value)
        raise ValueError("[asarray] Unable to avoid copy while creating an array as requested.")
    return array(a, dtype)


# -- ranges ----------------------------------------------------------------------------------------


def arange(
    start: Any = None, stop: Any = None, step: Any = None, dtype: Dtype | None = None, *, stream: Any = None
) -> array:
    """`start, start + step, ...` up to, not including, `stop`; `arange(stop)` starts at 0.

    int32 (int64 where needed) for integers, float32 when an argument is a float. Element `i` is computed as
    `start + i * step`, rounded in the result's dtype.
    """
    if stop is None:
        start, stop = 0, start
    first, last = _number("arange", 0 if start is None else start), _number("arange", stop)
    by = _number("arange", 1 if step is None else step)
    given = (first, last, by)
    if dtype is None:
        wide = any(isinstance(n, int) and not -(1 << 31) <= n < 1 << 31 for n in given)
        floating = any(isinstance(n, float) for n in given)
        dtype = dtypes.float32 if floating else dtypes.int64 if wide else dtypes.int32
    if dtype is dtypes.bool_ or any(isinstance(n, bool) for n in given):
        raise ValueError("[arange] bool not supported for arange.")
    if not isinstance(by, Dim) and by == 0:
        raise ValueError("[arange] step must be nonzero.")
    count = _count(first, last, by)
    if isinstance(count, int) and count > (1 << 31) - 1:
        raise ValueError("[arange] Maximum size exceeded.")
    if dtype.is_integer and not isinstance(first, Dim) and not isinstance(by, Dim):
        second = math.trunc(first + by)
        first = math.trunc(first)
        by = second - first
    out = record(Iota((count,), 0, dtype))
    if isinstance(by, Dim) or by != 1:
        out = out * _in_dtype(by, dtype)
    if isinstance(first, Dim) or first != 0:
        out = out + _in_dtype(first, dtype)
    return out


def _number(name: str, x: Any) -> int | float | Dim:
    if isinstance(x, bool | int | float | Dim):
        return x
    found = x.item() if isinstance(x, array | np.generic | np.ndarray) and x.size == 1 else None
    if not isinstance(found, bool | int | float):
        raise TypeError(f"[{name}] expected a number, got {type(x).__name__}.")
    return found


def _count(start: Any, stop: Any, step: Any) -> Extent:
    """Number of elements of a range."""
    if isinstance(start, float) or isinstance(stop, float) or isinstance(step, float):
        length = (stop - start) / step
        if not math.isfinite(length):
            raise ValueError("[arange] Cannot compute length.")
        return max(math.ceil(length), 0)
    if isinstance(step, Dim) and not dims.decide("gt", step, 0):
        raise ValueError(f"[arange] a symbolic step must be positive, got {step}.")
    if isinstance(step, Dim) or step > 0:
        return dims.ceil_div(dims.maximum(stop - start, 0), step)
    return dims.ceil_div(dims.maximum(start - stop, 0), -step)


def _in_dtype(n: int | float | Dim, dtype: Dtype) -> array:
    """A number as a scalar array; integers wrap, so that a negative step works in unsigned dtypes."""
    if isinstance(n, Dim):
        return array(n, dtype)
    if dtype.is_integer:
        n = int(n) & (1 << 8 * dtype.size) - 1
        if dtype.kind == "i" and n >> (8 * dtype.size - 1):
            n -= 1 << 8 * dtype.size
    return wrap(Literal(n, dtype))


def linspace(
    start: Any,
    stop: Any,
    num: int | None = 50,
    endpoint: bool = True,
    dtype: Dtype | None = dtypes.float32,
    stream: Any = None,
) -> array:
    """`num` evenly spaced numbers from `start` to `stop`, which is the last of them if `endpoint`."""
    n = operator.index(50 if num is None else num)
    if n < 0:
        raise ValueError(f"[linspace] number of samples, {n}, must be non-negative.")
    dtype = dtype or dtypes.float32
    work = dtypes.float64 if dtype is dtypes.float64 else dtypes.float32
    low, high = (array(x, work) if not isinstance(x, array) else x.astype(work) for x in (start, stop))
    intervals = n - 1 if endpoint else n
    if n == 1:
        return low.reshape((1,)).astype(dtype)
    t = record(Iota((n,), 0, work)) / wrap(Literal(max(intervals, 1), work))
    return (low * (1 - t) + high * t).astype(dtype)


# -- masks -----------------------------------------------------------------------------------------


def _offsets(n: Extent, m: Extent) -> array:
    """Column minus row of each element of an n × m matrix."""
    row, column = (record(Iota((n, m), axis, dtypes.int32)) for axis in (0, 1))
    return column - row


def _matrix_shape(name: str, n: Any, m: Any) -> tuple[Extent, Extent]:
    rows = as_extent(name, n)
    columns = rows if m is None else as_extent(name, m)
    if dims.decide("lt", rows, 0) or dims.decide("lt", columns, 0):
        raise ShapeError(f"[{name}] N and M must be positive integers.")
    return rows, columns


def eye(
    n: int, m: int | None = None, k: int = 0, dtype: Dtype | None = dtypes.float32, *, stream: Any = None
) -> array:
    """An n × m matrix with ones on its `k`-th diagonal, zeros elsewhere."""
    return (_offsets(*_matrix_shape("eye", n, m)) == k).astype(dtype or dtypes.float32)


def identity(n: int, dtype: Dtype | None = dtypes.float32, *, stream: Any = None) -> array:
    """The n × n identity matrix."""
    return eye(n, dtype=dtype)


def tri(n: int, m: int | None = None, k: int = 0, dtype: Dtype | None = None, *, stream: Any = None) -> array:
    """An n × m matrix with ones on and below its `k`-th diagonal, zeros above."""
    return (_offsets(*_matrix_shape("tri", n, m)) <= k).astype(dtype or dtypes.float32)


def tril(x: Any, k: int = 0, *, stream: Any = None) -> array:
    """`x` with the elements above the `k`-th diagonal of its last two axes set to zero."""
    x = _matrices("tril", x)
    return _where(_offsets(*x.shape[-2:]) <= k, x)


def triu(x: Any, k: int = 0, *, stream: Any = None) -> array:
    """`x` with the elements below the `k`-th diagonal of its last two axes set to zero."""
    x = _matrices("triu", x)
    return _where(_offsets(*x.shape[-2:]) >= k, x)


def _matrices(name: str, x: Any) -> array:
    x = as_array(x)
    if x.ndim < 2:
        raise ShapeError(f"[{name}] array must be at least 2-D")
    return x


def _where(mask: array, x: array) -> array:
    return record(Select(), mask._value, x._value, Literal(0, x.dtype))
