"""Reductions, statistics and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record, wrap
from ingot.tracer.dims import Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.ops import math as _math
from ingot.tracer.ops.coerce import convert, extent_operand, normal_axes, normal_axis, require_array
from ingot.tracer.primitives import reduce as p

Axis = None | int | Sequence[int]

_SUM_DTYPES: dict[Dtype, Dtype] = {
    dtypes.bool_: dtypes.int32, dtypes.int8: dtypes.int32, dtypes.int16: dtypes.int32,
    dtypes.uint8: dtypes.uint32, dtypes.uint16: dtypes.uint32,
}  # fmt: skip


@lru_cache(maxsize=1024)
def _primitive(kind: type, axes: int | tuple[int, ...], keepdims: bool) -> Any:
    return kind(axes, keepdims)


def _reduced(kind: type[p.Reduce], x: Any, axes: tuple[int, ...], keepdims: bool) -> array:
    return record(_primitive(kind, axes, bool(keepdims)), x)


def _folded(name: str, primitive: type[p.Reduce], a: array, axis: Axis, keepdims: bool) -> array:
    x = require_array(name, a)._value
    axes = normal_axes(name, axis, x.aval.ndim)
    if not axes:
        return wrap(x)  # nothing to add up: MLX keeps the dtype too
    wide = _SUM_DTYPES.get(x.aval.dtype)
    return _reduced(primitive, x if wide is None else convert(x, wide), axes, keepdims)


def sum(a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Sum over `axis` (an int, several, or None for all). Small integers and bools are summed in 32 bits."""
    return _folded("sum", p.ReduceSum, a, axis, keepdims)


def prod(a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Product over `axis`. Small integers and bools are multiplied in 32 bits."""
    return _folded("prod", p.ReduceProd, a, axis, keepdims)


def _extremum(name: str, primitive: type[p.Reduce], a: array, axis: Axis, keepdims: bool) -> array:
    x = require_array(name, a)._value
    axes = normal_axes(name, axis, x.aval.ndim)
    for i in axes:
        if isinstance(x.aval.shape[i], int) and x.aval.shape[i] == 0:
            raise ValueError(f"[{name}] Cannot {name} reduce over axis {i} with size 0.")
    return _reduced(primitive, x, axes, keepdims)


def max(a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Largest element over `axis`; NaN when there is one."""
    return _extremum("max", p.ReduceMax, a, axis, keepdims)


def min(a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Smallest element over `axis`; NaN when there is one."""
    return _extremum("min", p.ReduceMin, a, axis, keepdims)


def minmax(
    a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None
) -> tuple[array, array]:
    """`(min(a), max(a))` over `axis`."""
    return min(a, axis, keepdims), max(a, axis, keepdims)


def count_nonzero(a: array, /, *, axis: Axis = None, keepdims: bool = False, stream: Any = None) -> array:
    """Number (int32) of elements over `axis` that are not zero."""
    x = require_array("count_nonzero", a)._value
    axes = normal_axes("count_nonzero", axis, x.aval.ndim)
    return _reduced(p.ReduceSum, convert(convert(x, dtypes.bool_), dtypes.int32), axes, keepdims)


def all(a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """True where all elements over `axis` are true or not zero."""
    x = require_array("all", a)._value
    axes = normal_axes("all", axis, x.aval.ndim)
    return _reduced(p.ReduceAll, convert(x, dtypes.bool_), axes, keepdims)


def any(a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """True where one element over `axis` is true or not zero."""
    x = require_array("any", a)._value
    axes = normal_axes("any", axis, x.aval.ndim)
    return _reduced(p.ReduceAny, convert(x, dtypes.bool_), axes, keepdims)


def _arg_reduce(name: str, primitive: type[p.ArgReduce], a: array, axis: int | None, keepdims: bool) -> array:
    x = require_array(name, a)
    if isinstance(x.size, int) and x.size == 0:
        raise ValueError(f"[{name}] Cannot {name} reduce zero size array.")
    if axis is None:
        found = record(_primitive(primitive, 0, False), x.reshape((x.size,))._value)
        return found.reshape((1,) * x.ndim) if keepdims else found
    return record(_primitive(primitive, normal_axis(name, axis, x.ndim), bool(keepdims)), x._value)


def argmax(a: array, /, axis: int | None = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Position (uint32) of the first largest element along `axis`, or in the flattened array."""
    return _arg_reduce("argmax", p.Argmax, a, axis, keepdims)


def argmin(a: array, /, axis: int | None = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Position (uint32) of the first smallest element along `axis`, or in the flattened array."""
    return _arg_reduce("argmin", p.Argmin, a, axis, keepdims)


# -- statistics ----------------------------------------------------------------------------------------------


def _wide(x: array) -> array:
    """Integers and half precision as float32, so that intermediate results do not overflow."""
    dtype = x.dtype
    if dtype.size == 2 or dtype.kind in "bui":
        return wrap(convert(x._value, dtypes.float32))
    return x


def _floating(dtype: Dtype) -> Dtype:
    return dtype if dtype.is_inexact else dtypes.float32


def _count(x: array, axes: tuple[int, ...]) -> Extent:
    return dims.product([x.shape[a] for a in axes])


def _mean(x: array, axes: tuple[int, ...], keepdims: bool) -> array:
    total = _reduced(p.ReduceSum, x._value, axes, keepdims)
    return _math.divide(total, wrap(extent_operand(_count(x, axes), x.dtype)))


def mean(a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """Arithmetic mean over `axis`; of integers in float32. NaN over nothing."""
    x = require_array("mean", a)
    axes = normal_axes("mean", axis, x.ndim)
    return wrap(convert(_mean(_wide(x), axes, keepdims)._value, _floating(x.dtype)))


def _variance(name: str, a: array, axis: Axis, keepdims: bool, ddof: int, correction: int | None) -> array:
    x = require_array(name, a)
    axes = normal_axes(name, axis, x.ndim)
    if x.dtype.is_complex:
        raise ValueError(f"[{name}] Complex type not supported.")
    wide = _wide(x)
    # in two passes: the difference of the mean square and the squared mean would cancel
    deviation = _math.square(_math.subtract(wide, _mean(wide, axes, True)))
    total = _reduced(p.ReduceSum, deviation._value, axes, keepdims)
    freedom = _count(x, axes) - (ddof if correction is None else correction)
    count = wrap(extent_operand(dims.maximum(freedom, 0), wide.dtype))
    return _math.divide(total, count)


def var(
    a: array, /, axis: Axis = None, keepdims: bool = False, ddof: int = 0, *, correction: int | None = None,
    stream: Any = None,
) -> array:  # fmt: skip
    """Variance over `axis`: mean squared deviation, with the number of elements less `ddof` as divisor.

    `correction` is another name of `ddof`.
    """
    dtype = _floating(require_array("var", a).dtype)
    return wrap(convert(_variance("var", a, axis, keepdims, ddof, correction)._value, dtype))


def std(
    a: array, /, axis: Axis = None, keepdims: bool = False, ddof: int = 0, *, correction: int | None = None,
    stream: Any = None,
) -> array:  # fmt: skip
    """Standard deviation over `axis`: the square root of `var`."""
    dtype = _floating(require_array("std", a).dtype)
    return wrap(convert(_math.sqrt(_variance("std", a, axis, keepdims, ddof, correction))._value, dtype))


# -- exponentials that do not overflow -----------------------------------------------------------------------


def _peak(x: array, axes: tuple[int, ...]) -> array:
    """The largest element, for subtraction: a constant for derivatives, whose choice does not matter."""
    return _math.stop_gradient(_reduced(p.ReduceMax, x._value, axes, True))


def logsumexp(a: array, /, axis: Axis = None, keepdims: bool = False, *, stream: Any = None) -> array:
    """`log(sum(exp(a)))` over `axis` without overflow."""
    x = require_array("logsumexp", a)
    axes = normal_axes("logsumexp", axis, x.ndim)
    if isinstance(x.size, int) and x.size == 0:
        raise ValueError("[logsumexp] Received empty array.")
    wide = _wide(x)
    peak = _peak(wide, axes)
    # an infinite peak cannot be subtracted from itself
    peak = _math.where(_math.isinf(peak), _math.literal_array(0, wide.dtype), peak)
    total = _reduced(p.ReduceSum, _math.exp(_math.subtract(wide, peak))._value, axes, True)
    out = _math.add(_math.log(total), peak)
    if not keepdims and axes:
        out = out.reshape(tuple(extent for i, extent in enumerate(x.shape) if i not in axes))
    return wrap(convert(out._value, _floating(x.dtype)))


def softmax(a: array, /, axis: Axis = None, *, precise: bool = False, stream: Any = None) -> array:
    """`exp(a) / sum(exp(a))` over `axis` without overflow. Half precision is computed in float32."""
    x = require_array("softmax", a)
    axes = normal_axes("softmax", axis, x.ndim)
    wide = _wide(x)
    e = _math.exp(_math.subtract(wide, _peak(wide, axes)))
    out = _math.divide(e, _reduced(p.ReduceSum, e._value, axes, True))
    return wrap(convert(out._value, _floating(x.dtype)))
