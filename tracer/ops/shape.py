"""Operations on the shape of arrays: reshaping, axes, joining, splitting, padding, repeating."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record, record_all, wrap
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import AxisError, ShapeError
from ingot.tracer.graph import Literal
from ingot.tracer.primitives.elementwise import Maximum, Minimum, Select, show_shape
from ingot.tracer.primitives.elementwise import broadcast_shapes as common_shape
from ingot.tracer.primitives.index import Gather
from ingot.tracer.primitives.shape import (
    BroadcastTo,
    Concatenate,
    Iota,
    OptimizationBarrier,
    Pad,
    Reshape,
    Reverse,
    Transpose,
    axis_slice,
)

Shape = tuple[Extent, ...]


# -- arguments -------------------------------------------------------------------------------------


def as_array(x: Any) -> array:
    """`x` itself when it is an array, else an array of it."""
    return x if isinstance(x, array) else array(x)


def as_extent(name: str, n: Any) -> Extent:
    """An extent given by the user: an int, something with `__index__`, or a symbolic extent."""
    if type(n) is int or isinstance(n, Dim):
        return n
    try:
        return int(operator.index(n))
    except TypeError:
        raise TypeError(f"[{name}] extents must be integers, got {type(n).__name__}.") from None


def as_shape(name: str, shape: Any) -> Shape:
    """A shape given by the user: an extent or a sequence of them. Raises ValueError for negative ones."""
    if isinstance(shape, list | tuple):
        found = tuple([n if type(n) is int else as_extent(name, n) for n in shape])
    else:
        found = (as_extent(name, shape),)
    for n in found:
        if (n < 0) if type(n) is int else dims.decide("lt", n, 0):
            raise ShapeError(f"[{name}] Negative dimensions not allowed, got {show_shape(found)}.")
    return found


def as_axis(name: str, axis: Any, ndim: int, word: str = "Axis {} is out of bounds for") -> int:
    """An axis counted from 0. Raises AxisError (an IndexError and a ValueError) when it is out of range."""
    number = axis if type(axis) is int else operator.index(axis)
    if not -ndim <= number < ndim:
        raise AxisError(f"[{name}] {word.format(number)} array with {ndim} dimensions.")
    return number + ndim if number < 0 else number


def _axes(axis: Any) -> Sequence[Any]:
    return axis if isinstance(axis, list | tuple) else (axis,)


# -- reshaping -------------------------------------------------------------------------------------


def reshape(a: Any, /, shape: Sequence[Extent], *, stream: Any = None) -> array:
    """The elements of `a` in row-major order in a new shape; one extent may be -1: what is left over."""
    a = as_array(a)
    wanted = tuple(shape) if isinstance(shape, list | tuple) else None
    if wanted is None:
        raise TypeError(f"[reshape] shape must be a sequence of extents, got {type(shape).__name__}.")
    for n in wanted:
        if type(n) is not int or n < 0:
            wanted = _inferred("reshape", a.size, wanted, f"array of size {a.size}")
            break
    if dims.same_shape(wanted, a.shape):
        return wrap(a._value)
    return record(Reshape(wanted), a._value)


def _inferred(name: str, size: Extent, shape: Sequence[Any], what: str) -> Shape:
    """`shape` with -1 replaced by what makes its product `size`."""
    found = [as_extent(name, n) for n in shape]
    unknown = [i for i, n in enumerate(found) if type(n) is int and n == -1]
    if len(unknown) > 1:
        raise ShapeError(f"[{name}] Reshape can only infer one dimension.")
    if any(type(n) is int and n < -1 for n in found):
        raise ShapeError(f"[{name}] Cannot reshape {what} into shape {show_shape(found)}.")
    if unknown:
        rest = dims.product(n for i, n in enumerate(found) if i != unknown[0])
        if type(rest) is int and rest == 0:
            raise ShapeError(f"[{name}] Cannot infer the shape of an empty array")
        exact = dims.divide_exactly(size, rest)
        found[unknown[0]] = size // rest if exact is None else exact
    return tuple(found)


def flatten(a: Any, /, start_axis: int = 0, end_axis: int = -1, *, stream: Any = None) -> array:
    """`a` with the axes from `start_axis` to `end_axis` (both included) merged into one."""
    a = as_array(a)
    ndim = a.ndim
    start = max(start_axis + ndim if start_axis < 0 else start_axis, 0)
    end = min(end_axis + ndim if end_axis < 0 else end_axis, ndim - 1)
    if ndim == 0:
        return record(Reshape((1,)), a._value)
    if end < start:
        raise ShapeError("[flatten] start_axis must be less than or equal to end_axis")
    if start == end:
        return wrap(a._value)
    shape = a.shape
    return reshape(a, (*shape[:start], dims.product(shape[start : end + 1]), *shape[end + 1 :]))


def unflatten(a: Any, /, axis: int, shape: Sequence[Extent], *, stream: Any = None) -> array:
    """`a` with one axis split into several; one extent of `shape` may be -1."""
    a = as_array(a)
    if not len(shape):
        raise ShapeError("[unflatten] Shape to unflatten to cannot be empty.")
    at = as_axis("unflatten", axis, a.ndim, "Invalid axes {} for")
    n = a.shape[at]
    found = _inferred("unflatten", n, shape, f"axis {axis} with size {n}")
    if dims.decide("ne", dims.product(found), n):
        raise ShapeError(
            f"[unflatten] Cannot unflatten axis {at} with size {n} into shape {show_shape(found)}."
        )
    return reshape(a, (*a.shape[:at], *found, *a.shape[at + 1 :]))


def squeeze(a: Any, /, axis: int | Sequence[int] | None = None, *, stream: Any = None) -> array:
    """`a` without axes of extent 1: all of them, or those given."""
    a = as_array(a)
    shape = a.shape
    if axis is None:
        dropped = {i for i, n in enumerate(shape) if dims.same(n, 1) or n == 1}
    else:
        given = [as_axis("squeeze", i, a.ndim) for i in _axes(axis)]
        dropped = set(given)
        if len(dropped) != len(given):
            raise ShapeError("[squeeze] Received duplicate axes.")
        for i in given:
            if not dims.same(shape[i], 1) and shape[i] != 1:
                raise ShapeError(
                    f"[squeeze] Cannot squeeze axis {i} with size {shape[i]} which is not equal to 1."
                )
    return reshape(a, tuple(n for i, n in enumerate(shape) if i not in dropped))


def expand_dims(a: Any, /, axis: int | Sequence[int], *, stream: Any = None) -> array:
    """`a` with new axes of extent 1 at the given positions of the result."""
    a = as_array(a)
    given = _axes(axis)
    ndim = a.ndim + len(given)
    places = [as_axis("expand_dims", i, ndim) for i in given]
    if len(set(places)) != len(places):
        raise ShapeError("[expand_dims] Received duplicate axes.")
    rest = iter(a.shape)
    return reshape(a, tuple([1 if i in places else next(rest) for i in range(ndim)]))


def atleast_1d(*arys: Any, stream: Any = None) -> array | list[array]:
    """Each array with at least one axis; a list when several are given."""
    return _each(arys, lambda a: reshape(a, (1,)) if a.ndim == 0 else wrap(a._value))


def atleast_2d(*arys: Any, stream: Any = None) -> array | list[array]:
    """Each array with at least two axes, new ones in front."""
    return _each(arys, lambda a: reshape(a, (1,) * (2 - a.ndim) + a.shape) if a.ndim < 2 else wrap(a._value))


def atleast_3d(*arys: Any, stream: Any = None) -> array | list[array]:
    """Each array with at least three axes: a vector becomes (1, n, 1), a matrix (m, n, 1)."""
    shapes = {0: lambda s: (1, 1, 1), 1: lambda s: (1, *s, 1), 2: lambda s: (*s, 1)}
    return _each(arys, lambda a: reshape(a, shapes[a.ndim](a.shape)) if a.ndim < 3 else wrap(a._value))


def _each(arys: Sequence[Any], make: Any) -> array | list[array]:
    found = [make(as_array(a)) for a in arys]
    return found[0] if len(found) == 1 else found


# -- axes ------------------------------------------------------------------------------------------


def transpose(a: Any, /, axes: Sequence[int] | None = None, *, stream: Any = None) -> array:
    """`a` with its axes reordered; without `axes` reversed."""
    a = as_array(a)
    ndim = a.ndim
    if axes is None:
        perm = tuple(range(ndim - 1, -1, -1))
    else:
        if len(axes) != ndim:
            raise ShapeError(f"[transpose] Received {len(axes)} axes for array with {ndim} dimensions.")
        perm = tuple([as_axis("transpose", axis, ndim, "Invalid axis ({}) for") for axis in axes])
        if len(set(perm)) != ndim:
            raise ShapeError("[transpose] Repeat axes not allowed.")
    return wrap(a._value) if perm == tuple(range(ndim)) else record(Transpose(perm), a._value)


permute_dims = transpose


def swapaxes(a: Any, /, axis1: int, axis2: int, *, stream: Any = None) -> array:
    """`a` with two axes exchanged."""
    a = as_array(a)
    first, second = (as_axis("swapaxes", axis, a.ndim, "Invalid axis {} for") for axis in (axis1, axis2))
    perm = list(range(a.ndim))
    perm[first], perm[second] = second, first
    return transpose(a, perm)


def moveaxis(a: Any, /, source: int, destination: int, *, stream: Any = None) -> array:
    """`a` with axis `source` moved to position `destination`."""
    a = as_array(a)
    at, to = (as_axis("moveaxis", axis, a.ndim, "Invalid axis {} for") for axis in (source, destination))
    perm = [axis for axis in range(a.ndim) if axis != at]
    perm.insert(to, at)
    return transpose(a, perm)


def matrix_transpose(a: Any, /, *, stream: Any = None) -> array:
    """`a` with its last two axes exchanged."""
    a = as_array(a)
    if a.ndim < 2:
        raise ShapeError("[matrix_transpose] Input array must have at least 2 dimensions.")
    return swapaxes(a, -1, -2)


def flip(a: Any, /, axis: int | Sequence[int] | None = None, *, stream: Any = None) -> array:
    """`a` with its elements in opposite order along the given axes, by default all."""
    a = as_array(a)
    axes = range(a.ndim) if axis is None else {as_axis("flip", i, a.ndim) for i in _axes(axis)}
    return record(Reverse(tuple(sorted(axes))), a._value) if axes else wrap(a._value)


# -- broadcasting ----------------------------------------------------------------------------------


def broadcast_shapes(*shapes: Sequence[Extent]) -> Shape:
    """The shape to which all shapes broadcast, by NumPy's rule."""
    if not shapes:
        raise ShapeError("[broadcast_shapes] Must provide at least one shape.")
    return common_shape(*shapes)


def broadcast_to(a: Any, /, shape: Sequence[Extent], *, stream: Any = None) -> array:
    """`a` repeated to `shape`, by NumPy's rule."""
    a = as_array(a)
    wanted = as_shape("broadcast_to", shape)
    return wrap(a._value) if dims.same_shape(wanted, a.shape) else record(BroadcastTo(wanted), a._value)


def broadcast_arrays(*arrays: Any, stream: Any = None) -> tuple[array, ...]:
    """All arrays broadcast to their common shape."""
    found = [as_array(a) for a in arrays]
    shape = broadcast_shapes(*[a.shape for a in found])
    return tuple(broadcast_to(a, shape) for a in found)


def meshgrid(
    *arrays: Any, sparse: bool | None = False, indexing: str | None = "xy", stream: Any = None
) -> tuple[array, ...]:
    """Coordinate grids of vectors (other shapes are flattened).

    indexing: "ij" puts the first vector along axis 0; "xy" exchanges the first two axes. sparse: grids keep
    extent 1 along all axes but their own.
    """
    if indexing not in ("xy", "ij"):
        raise ValueError("[meshgrid] Invalid indexing value. Valid values are 'xy' and 'ij'.")
    n = len(arrays)
    grids = []
    for i, a in enumerate(arrays):
        axis = 1 - i if indexing == "xy" and n > 1 and i < 2 else i
        grids.append(reshape(a, tuple([-1 if j == axis else 1 for j in range(n)])))
    return tuple(grids) if sparse or n < 2 else broadcast_arrays(*grids)


# -- joining and splitting -------------------------------------------------------------------------


def concatenate(arrays: Sequence[Any], axis: int | None = 0, *, stream: Any = None) -> array:
    """Arrays joined along an axis; their dtypes are promoted. `axis=None` flattens them first."""
    found = [as_array(a) for a in arrays]
    if not found:
        raise ShapeError("[concatenate] No arrays provided for concatenation")
    if axis is None:
        found, axis = [flatten(a) for a in found], 0
    first = found[0]
    at = as_axis("concatenate", axis, first.ndim)
    for a in found:
        if a.ndim != first.ndim:
            raise ShapeError(
                "[concatenate] All the input arrays must have the same number of dimensions. However, got "
                f"arrays with dimensions {first.ndim} and {a.ndim}."
            )
    for a in found[1:]:
        for i, (m, n) in enumerate(zip(a.shape, first.shape, strict=True)):
            if i != at and not dims.same(m, n) and m != n:
                shapes = ", ".join(show_shape(b.shape) for b in found)
                raise ShapeError(
                    "[concatenate] All the input array dimensions must match exactly except for the "
                    f"concatenation axis. However, the provided shapes are {shapes}, and the "
                    f"concatenation axis is {axis}."
                )
    found = _promoted(found)
    return wrap(found[0]._value) if len(found) == 1 else record(Concatenate(at), *[a._value for a in found])


concat = concatenate


def _promoted(arrays: list[array]) -> list[array]:
    dtype = arrays[0].dtype
    for a in arrays:
        dtype = dtypes.promote(dtype, a.dtype)
    return [a if a.dtype is dtype else a.astype(dtype) for a in arrays]


def stack(arrays: Sequence[Any], axis: int | None = 0, *, stream: Any = None) -> array:
    """Arrays of one shape joined along a new axis."""
    found = [as_array(a) for a in arrays]
    if not found:
        raise ShapeError("[stack] No arrays provided for stacking")
    shape = found[0].shape
    for a in found[1:]:
        if len(a.shape) != len(shape) or not all(
            dims.same(m, n) or m == n for m, n in zip(a.shape, shape, strict=True)
        ):
            raise ShapeError("[stack] All arrays must have the same shape")
    at = as_axis("stack", axis or 0, len(shape) + 1)
    return concatenate([reshape(a, (*shape[:at], 1, *shape[at:])) for a in found], at)


def split(
    a: Any, /, indices_or_sections: int | Sequence[int], axis: int = 0, *, stream: Any = None
) -> list[array]:
    """`a` cut along an axis: into equal parts, or at indices (clipped like those of slices)."""
    a = as_array(a)
    at = as_axis("split", axis, a.ndim)
    n = a.shape[at]
    if isinstance(indices_or_sections, list | tuple):
        edges = [0, *(_clipped(as_extent("split", i), n) for i in indices_or_sections), n]
    else:
        parts = as_extent("split", indices_or_sections)
        if not isinstance(parts, int) or parts <= 0:
            raise ShapeError(f"[split] num_splits must be positive and non-zero but got {parts}.")
        each = dims.divide_exactly(n, parts)
        if each is None:
            if n % parts != 0:
                raise ShapeError(
                    "[split] Array split does not result in sub arrays with equal size: attempting "
                    f"{parts} splits along axis {axis} for shape {show_shape(a.shape)}."
                )
            each = n // parts
        edges = [each * i for i in range(parts)] + [n]
    return [
        record(axis_slice(a.shape, at, start, dims.maximum(start, stop)), a._value)
        for start, stop in zip(edges, edges[1:], strict=False)
    ]


def _clipped(index: Extent, n: Extent) -> Extent:
    """An index as a slice bound: negative ones count from the end, all are clipped to [0, n]."""
    if isinstance(index, int) and index < 0:
        return dims.maximum(n + index, 0)
    return dims.minimum(index, n)


def unstack(x: Any, /, *, axis: int = 0, stream: Any = None) -> tuple[array, ...]:
    """The parts of `x` along an axis, without that axis."""
    x = as_array(x)
    at = as_axis("unstack", axis, x.ndim)
    n = operator.index(x.shape[at])
    rest = (*x.shape[:at], *x.shape[at + 1 :])
    return tuple(reshape(record(axis_slice(x.shape, at, i, i + 1), x._value), rest) for i in range(n))


# -- repeating and rolling -------------------------------------------------------------------------


def repeat(array: Any, repeats: int, axis: int | None = None, *, stream: Any = None) -> Any:  # noqa: A002
    """Each element along an axis `repeats` times; `axis=None` flattens first."""
    a = as_array(array)
    if axis is None:
        a, axis = flatten(a), 0
    count = as_extent("repeat", repeats)
    at = as_axis("repeat", axis, a.ndim)
    if dims.decide("lt", count, 0):
        raise ShapeError(f"[repeat] Number of repeats cannot be negative, got {count}.")
    before, n, after = a.shape[:at], a.shape[at], a.shape[at + 1 :]
    spread = broadcast_to(reshape(a, (*before, n, 1, *after)), (*before, n, count, *after))
    return reshape(spread, (*before, n * count, *after))


def tile(a: Any, reps: int | Sequence[int], /, *, stream: Any = None) -> array:
    """`a` repeated as a whole `reps` times along each axis, counted from the last."""
    a = as_array(a)
    counts = as_shape("tile", reps)
    shape = (1,) * (len(counts) - a.ndim) + a.shape
    counts = (1,) * (len(shape) - len(counts)) + counts
    columns = tuple(extent for n in shape for extent in (1, n))
    repeated = tuple(extent for m, n in zip(counts, shape, strict=True) for extent in (m, n))
    spread = broadcast_to(reshape(a, columns), repeated)
    return reshape(spread, tuple(m * n for m, n in zip(counts, shape, strict=True)))


def roll(
    a: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None, /, *, stream: Any = None
) -> array:
    """`a` shifted cyclically: the element at `i` goes to `i + shift`; by default in the flattened `a`."""
    a = as_array(a)
    shifts = [as_extent("roll", s) for s in _axes(shift)]
    if axis is None:
        total: Extent = 0
        for s in shifts:
            total = total + s
        return reshape(_rolled(flatten(a), total, 0), a.shape)
    axes = [as_axis("roll", i, a.ndim, "Invalid axis {} for") for i in _axes(axis)]
    if len(shifts) < len(axes):
        shifts = shifts * len(axes) if len(shifts) == 1 else shifts
        if len(shifts) < len(axes):
            raise ShapeError(f"[roll] At least one shift value per axis is required, got {len(shifts)}.")
    for s, at in zip(shifts, axes, strict=False):
        a = _rolled(a, s, at)
    return a


def _rolled(a: array, shift: Extent, axis: int) -> array:
    n = a.shape[axis]
    if dims.same(n, 0):
        return wrap(a._value)
    cut = n - shift % n
    tail = record(axis_slice(a.shape, axis, cut, n), a._value)
    head = record(axis_slice(a.shape, axis, 0, cut), a._value)
    return concatenate([tail, head], axis)


# -- padding ---------------------------------------------------------------------------------------


def pad(
    a: Any,
    pad_width: Any,
    mode: str = "constant",
    constant_values: Any = 0,
    *,
    stream: Any = None,
) -> array:
    """`a` with elements added before and after.

    pad_width: a number for all sides, a pair (before, after) for all axes, or a list of one pair per axis.
    mode: "constant" (`constant_values`, a scalar), "edge" (the nearest element), "reflect" (mirrored at the
    last element) or "symmetric" (mirrored behind it).
    """
    a = as_array(a)
    widths = _pad_widths(pad_width, a.ndim)
    if mode == "constant":
        low, high = tuple(w[0] for w in widths), tuple(w[1] for w in widths)
        return record(Pad(low, high), a._value, _pad_value(constant_values, a.dtype)._value)
    if mode not in ("edge", "reflect", "symmetric"):
        raise ValueError(f"[pad] Invalid padding mode ({mode}) passed to pad")
    for axis, (before, after) in enumerate(widths):
        if not (dims.same(before, 0) and dims.same(after, 0)):
            a = _pad_by_index(a, axis, before, after, mode)
    return wrap(a._value)


def _pad_widths(pad_width: Any, ndim: int) -> list[tuple[Extent, Extent]]:
    if isinstance(pad_width, list | tuple) and pad_width and isinstance(pad_width[0], list | tuple):
        pairs = [tuple(as_extent("pad", n) for n in pair) for pair in pad_width]
    else:
        pairs = [tuple(as_extent("pad", n) for n in _axes(pad_width))]
    pairs = [pair * 2 if len(pair) == 1 else pair for pair in pairs]
    if len(pairs) == 1:
        pairs = pairs * ndim
    if len(pairs) != ndim or any(len(pair) != 2 for pair in pairs):
        raise ShapeError(f"[pad] Invalid number of padding sizes passed to pad with axes of size {ndim}")
    for axis, pair in enumerate(pairs):
        for side, n in zip(("low", "high"), pair, strict=True):
            if dims.decide("lt", n, 0):
                raise ShapeError(
                    f"[pad] Invalid {side} padding size ({n}) passed to pad for axis {axis}. Padding sizes "
                    "must be non-negative"
                )
    return pairs  # type: ignore[return-value]


def _pad_value(value: Any, dtype: Dtype) -> array:
    if isinstance(value, bool | int | float) and dtype.is_inexact:
        return wrap(Literal(value, dtype))
    found = as_array(value)
    if found.ndim:
        raise ShapeError(f"[pad] constant_values must be a scalar, got shape {show_shape(found.shape)}.")
    return found if found.dtype is dtype else found.astype(dtype)


def _pad_by_index(a: array, axis: int, before: Extent, after: Extent, mode: str) -> array:
    n = a.shape[axis]
    if dims.same(n, 0):
        raise ShapeError(f"[pad] Cannot apply {mode} padding to axis {axis} of extent 0.")
    position = record(Iota((before + n + after,), 0, dtypes.int32)) - _scalar(before)
    last = _scalar(n - 1)
    if mode == "edge":
        index = _minimum(_maximum(position, _scalar(0)), last)
    else:
        period = dims.maximum(2 * (n - 1), 1) if mode == "reflect" else 2 * n
        index = position % _scalar(period)
        mirrored = _scalar(2 * (n - 1) if mode == "reflect" else 2 * n - 1) - index
        index = _minimum(index, _maximum(mirrored, _scalar(0)))
    return record(Gather((axis,), axis), a._value, index._value)


def _minimum(a: array, b: array) -> array:
    return record(Minimum(), a._value, b._value)


def _maximum(a: array, b: array) -> array:
    return record(Maximum(), a._value, b._value)


def _scalar(n: Extent) -> array:
    return array(n, dtypes.int32) if isinstance(n, Dim) else wrap(Literal(n, dtypes.int32))


# -- diagonals -------------------------------------------------------------------------------------


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, stream: Any = None) -> array:
    """The elements whose index along `axis2` is `offset` more than along `axis1`, as a new last axis."""
    a = as_array(a)
    if a.ndim < 2:
        raise ShapeError(f"[diagonal] Array must have at least two dimensions, but got {a.ndim} dimensions.")
    row = as_axis("diagonal", axis1, a.ndim, "Invalid axis1 {} for")
    column = as_axis("diagonal", axis2, a.ndim, "Invalid axis2 {} for")
    if row == column:
        raise ShapeError("[diagonal] axis1 and axis2 cannot be the same axis")
    down, right = max(-offset, 0), max(offset, 0)
    length = dims.maximum(dims.minimum(a.shape[row] - down, a.shape[column] - right), 0)
    count = record(Iota((length,), 0, dtypes.int32))
    rows, columns = (count + shift if shift else count for shift in (down, right))
    return record(Gather((row, column), a.ndim - 2), a._value, rows._value, columns._value)


def diag(a: Any, /, k: int = 0, *, stream: Any = None) -> array:
    """The `k`-th diagonal of a matrix, or the matrix whose `k`-th diagonal is a vector."""
    a = as_array(a)
    if a.ndim == 2:
        return diagonal(a, k)
    if a.ndim != 1:
        raise ShapeError(f"[diag] array must be 1-D or 2-D, got array with {a.ndim} dimensions.")
    extra = abs(k)
    n = a.shape[0] + extra
    row, column = (record(Iota((n, n), axis, dtypes.int32)) for axis in (0, 1))
    zero = Literal(0, a.dtype)
    values = record(Pad((0,), (extra,)), a._value, zero) if extra else a
    values = reshape(values, (n, 1) if k >= 0 else (1, n))
    return record(Select(), (column - row == k)._value, values._value, zero)


def trace(
    a: Any,
    /,
    offset: int = 0,
    axis1: int = 0,
    axis2: int = 1,
    dtype: Dtype | None = None,
    *,
    stream: Any = None,
) -> array:
    """Sum along a diagonal, in `dtype` when given."""
    a = as_array(a)
    if a.ndim < 2:
        raise ShapeError(f"[trace] Array must have at least two dimensions, but got {a.ndim} dimensions.")
    found = diagonal(a, offset, axis1, axis2)
    return (found if dtype is None else found.astype(dtype)).sum(-1)


# -- evaluation order and memory -------------------------------------------------------------------


def contiguous(a: Any, /, allow_col_major: bool = False, *, stream: Any = None) -> array:
    """`a`. Memory layout is the compiler's choice: arrays are row-contiguous where it matters."""
    return wrap(as_array(a)._value)


def depends(inputs: Any, dependencies: Any) -> Any:
    """`inputs` (an array or a list) in a form that is computed only after `dependencies`."""
    single = isinstance(inputs, array)
    first = [inputs] if single else [as_array(a) for a in inputs]
    others = [dependencies] if isinstance(dependencies, array) else [as_array(a) for a in dependencies]
    found = record_all(OptimizationBarrier(), *[a._value for a in (*first, *others)])
    return found[0] if single else list(found[: len(first)])
