"""Sorting, searching and what follows from sorted elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record, wrap
from ingot.tracer.ops import creation
from ingot.tracer.ops import math as _math
from ingot.tracer.ops.coerce import common_pair, normal_axes, normal_axis, require_array
from ingot.tracer.ops.cumulative import cumsum
from ingot.tracer.ops.shape import concatenate, transpose
from ingot.tracer.primitives import sort as p
from ingot.tracer.primitives.elementwise import show_shape


def _placed(name: str, a: array, axis: int | None) -> tuple[array, int]:
    """The array and its axis; all elements in a row for None."""
    x = require_array(name, a)
    if axis is None:
        return x.reshape(-1), 0
    return x, normal_axis(name, axis, x.ndim)


def sort(a: array, /, axis: int | None = -1, *, stream: Any = None) -> array:
    """The elements in ascending order along `axis` (None: all in a row). NaN comes last."""
    x, axis = _placed("sort", a, axis)
    return record(p.Sort(axis), x._value)


def argsort(a: array, /, axis: int | None = -1, *, stream: Any = None) -> array:
    """Positions (uint32) of the elements in ascending order along `axis`; equal elements keep their order."""
    x, axis = _placed("argsort", a, axis)
    return record(p.Argsort(axis), x._value)


def _check_kth(name: str, kth: int, x: array, axis: int) -> None:
    n = x.shape[axis]
    if isinstance(n, int) and not -n <= kth < n:
        raise ValueError(
            f"[{name}] Received invalid kth {kth} along axis {axis} for array with shape: "
            f"{show_shape(x.shape)}"
        )


def partition(a: array, /, kth: int, axis: int | None = -1, *, stream: Any = None) -> array:
    """Element `kth` in its sorted place along `axis`, none larger before it and none smaller behind it."""
    x, axis = _placed("partition", a, axis)
    _check_kth("partition", kth, x, axis)
    return record(p.Sort(axis), x._value)


def argpartition(a: array, /, kth: int, axis: int | None = -1, *, stream: Any = None) -> array:
    """Positions (uint32) of the elements in the order of `partition`."""
    x, axis = _placed("argpartition", a, axis)
    _check_kth("argpartition", kth, x, axis)
    return record(p.Argsort(axis), x._value)


def topk(a: array, /, k: int, axis: int | None = -1, *, stream: Any = None) -> array:
    """The `k` largest elements along `axis`, in ascending order; for all of them `a` as it is."""
    x, axis = _placed("topk", a, axis)
    n = x.shape[axis]
    if k < 0 or (isinstance(n, int) and k > n):
        raise ValueError(
            f"[topk] Received invalid k={k} along axis {axis} for array with shape: {show_shape(x.shape)}"
        )
    if dims.same(n, k):
        return wrap(x._value)
    picks: list[Any] = [slice(None)] * x.ndim
    picks[axis] = slice(n - k, n)
    return record(p.Sort(axis), x._value)[tuple(picks)]


def median(
    a: array, /, axis: None | int | Sequence[int] = None, keepdims: bool = False, *, stream: Any = None
) -> array:
    """Middle element over `axis` (None: all), or the mean of the two in the middle; NaN when there is one.

    Integers and bools give float32.
    """
    x = require_array("median", a)
    axes = normal_axes("median", axis, x.ndim)
    dtype = x.dtype if x.dtype.is_inexact else dtypes.float32
    kept = [i for i in range(x.ndim) if i not in axes]
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    rest = tuple(x.shape[i] for i in kept)
    n = dims.product(tuple(x.shape[i] for i in axes))
    if isinstance(n, int) and n == 0:
        raise ValueError("[median] Cannot take median along empty axis.")
    flat = record(p.Sort(len(rest)), transpose(x, [*kept, *axes]).reshape((*rest, n))._value).astype(dtype)
    low, high, last = flat[..., (n - 1) // 2], flat[..., n // 2], flat[..., n - 1]
    middle = low if isinstance(n, int) and n % 2 else _math.multiply(_math.add(low, high), 0.5)
    middle = _math.where(_math.isnan(last), last, middle)
    return middle.reshape(shape) if keepdims else middle


def searchsorted(
    sorted_sequence: array, values: array, /, side: str = "left", *, stream: Any = None
) -> array:
    """Positions (uint32) in an ascending vector before which `values` keep it ascending: before ("left") or
    behind ("right") equal elements.

    Raises:
        ValueError: for other ranks than 1, and another `side`.
    """
    x, v = require_array("searchsorted", sorted_sequence), require_array("searchsorted", values)
    if side not in ("left", "right"):
        raise ValueError(f"[searchsorted] Invalid side '{side}'. Expected 'left' or 'right'.")
    if x.ndim != 1:
        raise ValueError(f"[searchsorted] The sorted sequence must be 1-D but has {x.ndim} dimensions.")
    both = common_pair("searchsorted", x, v)
    return record(p.Searchsorted(side == "right"), *both)


def unique(
    a: array,
    /,
    size: int,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    fill_value: Any = None,
    *,
    stream: Any = None,
) -> Any:
    """The `size` smallest different elements in ascending order; filled up with `fill_value` (by default the
    smallest) where there are fewer.

    Returns:
        The elements, then as asked for: the position of the first of each in the flattened array (uint32);
        for every element of `a` the place of its value (uint32, the last place for values left out); how
        often each occurs (int32).
    """
    x = require_array("unique", a)
    flat = x.reshape(-1)
    if isinstance(flat.size, int) and not flat.size:
        if size and fill_value is None:
            raise ValueError("[unique] A fill value is required for an empty input with a non-zero size.")
        filled = creation.full((size,), 0 if fill_value is None else fill_value, x.dtype)
        none = creation.zeros((size,), dtypes.uint32)
        parts = [filled, none, creation.zeros(x.shape, dtypes.uint32), none.astype(dtypes.int32)]
    else:
        parts = _unique(x, flat, size, fill_value)
    wanted = (True, return_index, return_inverse, return_counts)
    chosen = tuple(part for part, said in zip(parts, wanted, strict=True) if said)
    return chosen if len(chosen) > 1 else chosen[0]


def _unique(x: array, flat: array, size: int, fill_value: Any) -> list[array]:
    order = record(p.Argsort(0), flat._value)
    ordered = flat[order]
    before, after = ordered[:-1], ordered[1:]
    differs = _math.not_equal(before, after)
    if x.dtype.is_inexact:  # NaN equals NaN here
        both = _math.logical_and(_math.isnan(before), _math.isnan(after))
        differs = _math.logical_and(differs, _math.logical_not(both))
    first = creation.zeros((1,), dtypes.int32)
    group = cumsum(concatenate([first, differs.astype(dtypes.int32)]))
    slot = _math.minimum(group, size)  # values left out share a place behind the others
    counts = creation.zeros((size + 1,), dtypes.int32).at[slot].add(1)[:size]  # type: ignore[attr-defined]
    limit = creation.full((size + 1,), 0xFFFFFFFF, dtypes.uint32)
    positions = limit.at[slot].minimum(order)[:size]  # type: ignore[attr-defined]
    used = _math.greater(counts, 0)
    positions = _math.where(used, positions, order[0])
    values = flat[positions]
    if fill_value is not None:
        values = _math.where(used, values, fill_value).astype(x.dtype)
    places = creation.zeros(flat.shape, dtypes.int32)
    places[order] = _math.minimum(group, size - 1)
    return [values, positions, places.reshape(x.shape).astype(dtypes.uint32), counts]
