"""Running totals and differences along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import array, record, wrap
from ingot.tracer.dtypes import Dtype
from ingot.tracer.ops import math as _math
from ingot.tracer.ops.coerce import at_least_float, convert, normal_axis, require_array
from ingot.tracer.primitives import cumulative as p
from ingot.tracer.primitives.reduce import identity


def _cumulative(
    name: str,
    primitive: type[p.Cumulative],
    x: array,
    axis: int | None,
    reverse: bool,
    inclusive: bool,
    empty: float,
) -> array:
    """Along `axis`, or over all elements; exclusive results begin with `empty`, what nothing folds to."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = normal_axis(name, axis, x.ndim)
    out = record(primitive(axis, bool(reverse)), x._value)
    if inclusive:
        return out
    n = x.shape[axis]
    return p.shifted(out, axis, n if isinstance(n, int) and n < 1 else 1, empty, bool(reverse))


def cumsum(
    a: array,
    /,
    axis: int | None = None,
    *,
    reverse: bool = False,
    inclusive: bool = True,
    dtype: Dtype | None = None,
    stream: Any = None,
) -> array:
    """Running sum along `axis`, or over all elements in row-major order.

    Args:
        reverse: from the end.
        inclusive: with the element itself; otherwise of those before.
        dtype: of elements and result; by default that of `a`, int32 for bools.
    """
    x = require_array("cumsum", a)
    wanted = dtype or (dtypes.int32 if x.dtype is dtypes.bool_ else x.dtype)
    return _cumulative("cumsum", p.CumSum, x.astype(wanted), axis, reverse, inclusive, 0)


def cumprod(
    a: array,
    /,
    axis: int | None = None,
    *,
    reverse: bool = False,
    inclusive: bool = True,
    dtype: Dtype | None = None,
    stream: Any = None,
) -> array:
    """Running product along `axis`, or over all elements; see `cumsum`. Bools stay bools."""
    x = require_array("cumprod", a)
    return _cumulative("cumprod", p.CumProd, x.astype(dtype or x.dtype), axis, reverse, inclusive, 1)


cumulative_sum, cumulative_prod = cumsum, cumprod


def cummax(
    a: array,
    /,
    axis: int | None = None,
    *,
    reverse: bool = False,
    inclusive: bool = True,
    stream: Any = None,
) -> array:
    """Running maximum along `axis`, or over all elements; see `cumsum`. Of nothing it is the lower limit."""
    x = require_array("cummax", a)
    return _cumulative("cummax", p.CumMax, x, axis, reverse, inclusive, _limit(x, 0))


def cummin(
    a: array,
    /,
    axis: int | None = None,
    *,
    reverse: bool = False,
    inclusive: bool = True,
    stream: Any = None,
) -> array:
    """Running minimum along `axis`, or over all elements; see `cumsum`. Of nothing it is the upper limit."""
    x = require_array("cummin", a)
    return _cumulative("cummin", p.CumMin, x, axis, reverse, inclusive, _limit(x, 1))


def _limit(x: array, side: int) -> Any:
    kind = np.dtype(np.float32) if x.dtype.is_inexact else x.dtype.numpy
    return identity(kind, side)


def logcumsumexp(
    a: array,
    /,
    axis: int | None = None,
    *,
    reverse: bool = False,
    inclusive: bool = True,
    stream: Any = None,
) -> array:
    """Logarithm of the running sum of exponentials along `axis`, or over all elements; see `cumsum`."""
    x = wrap(at_least_float(require_array("logcumsumexp", a)._value))
    return _cumulative("logcumsumexp", p.LogCumsumexp, x, axis, reverse, inclusive, -np.inf)


def diff(a: array, /, n: int = 1, axis: int = -1, *, stream: Any = None) -> array:
    """Differences of neighbours along `axis`, taken `n` times; of bools whether they differ.

    Raises:
        ValueError: for a negative `n`.
    """
    x = require_array("diff", a)
    axis = normal_axis("diff", axis, x.ndim)
    if n < 0:
        raise ValueError("[diff] Order `n` must be non-negative.")
    before: list[Any] = [slice(None)] * x.ndim
    after = list(before)
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    subtract = _math.not_equal if x.dtype is dtypes.bool_ else _math.subtract
    for _ in range(n):
        x = subtract(x[tuple(after)], x[tuple(before)])
    return wrap(convert(x._value, x.dtype))
