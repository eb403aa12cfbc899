"""Indexing: `x[...]`, `x[...] = y`, `x.at[...]`, take, put and windows at data positions."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, leaf, record, wrap
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.errors import AxisError, ShapeError
from ingot.tracer.graph import Literal
from ingot.tracer.ops.shape import as_array, as_axis, as_extent, broadcast_shapes, flatten, reshape
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.elementwise import Maximum, Minimum, Select, show_shape
from ingot.tracer.primitives.index import DynamicSlice, DynamicUpdate, Gather, Scatter
from ingot.tracer.primitives.shape import BroadcastTo, Iota, Reshape, Slice, SliceUpdate, slice_length

Shape = tuple[Extent, ...]


# -- what an index means ---------------------------------------------------------------------------


@dataclass
class _Selection:
    """An index expression on an array of `shape`, taken apart.

    First a slice (`starts`, `stops`, `strides`, one entry per axis), then axes with an integer index are
    dropped, then `arrays` index the axes `axes` of what is left, their dims put at `position`; last, axes of
    extent 1 are inserted, which gives `result`.
    """

    shape: Shape
    starts: tuple[Extent, ...]
    stops: tuple[Extent, ...]
    strides: tuple[int, ...]
    arrays: list[array]
    axes: tuple[int, ...]
    position: int
    sliced: Shape  # after the slice
    kept: Shape  # after dropping
    picked: Shape  # after the arrays
    result: Shape
    reads: tuple[Primitive, ...] | None = None  # what reads a selection without arrays, once it was asked for

    @property
    def is_whole(self) -> bool:
        """True when the slice selects everything, in order."""
        return all(
            stride == 1 and dims.same(start, 0) and dims.same(stop, n)
            for start, stop, stride, n in zip(self.starts, self.stops, self.strides, self.shape, strict=True)
        )

    def slice(self) -> Slice:
        return Slice(self.starts, self.stops, self.strides)


def _items(index: Any, ndim: int) -> list[Any]:
    """The items of an index, with slices for its ellipsis and integer arrays for its masks."""
    given = list(index) if isinstance(index, tuple) else [index]
    given = [part for item in given for part in _normal_item(item)]
    if sum(item is Ellipsis for item in given) > 1:
        raise AxisError("[index] An index can only have a single ellipsis (...).")
    used = sum(item is not None and item is not Ellipsis for item in given)
    if used > ndim:
        raise AxisError(f"[index] Too many indices for array with {ndim} dimensions: got {used}.")
    # an ellipsis that stands for no axis stays: it still separates index arrays
    full: list[Any] = [builtins.slice(None)] * (ndim - used) or [Ellipsis]
    for at, item in enumerate(given):
        if item is Ellipsis:
            return given[:at] + full + given[at + 1 :]
    return given + full if used < ndim else given


def _normal_item(item: Any) -> list[Any]:
    """The item as None, Ellipsis, an int, a symbolic extent, a slice or integer arrays (see `_from_mask`)."""
    if item is None or item is Ellipsis or isinstance(item, builtins.slice | Dim):
        return [item]
    if isinstance(item, bool | np.bool_):
        raise ValueError("[index] Cannot index an array with a bool; a mask has one axis at least.")
    if isinstance(item, int | np.integer):
        return [int(item)]
    if isinstance(item, list | np.ndarray):
        item = array(item) if len(item) else array(item, dtypes.int32)
    if not isinstance(item, array):
        raise ValueError(f"[index] Cannot index an array with an object of type {type(item).__name__}.")
    if item.dtype is dtypes.bool_:
        return _from_mask(item)
    if not item.dtype.is_integer:
        raise ValueError(f"[index] Indices must be integers, got {item.dtype.name}.")
    return [item]


def _from_mask(mask: array) -> list[tuple[array, int]]:
    """For each axis of a mask the indices of its true elements, and the extent it must meet.

    The shape of the result depends on the values of the mask, so they must be known.
    """
    if not mask.ndim:
        raise ValueError("[index] Cannot index an array with a bool; a mask has one axis at least.")
    view = mask._view()
    return [(array(i.astype(np.int32)), n) for i, n in zip(np.nonzero(view), view.shape, strict=True)]


_MEMO_BOUND = 1 << 12
_selections: dict[tuple[Any, ...], _Selection] = {}


def _key(index: Any) -> Any:
    """A hashable form of an index of ints, slices of ints, `...` and None; False for any other."""
    kind = type(index)
    if kind is int or index is None or index is Ellipsis:
        return index
    if kind is builtins.slice:
        bounds = (index.start, index.stop, index.step)
        return (kind, *bounds) if all(b is None or type(b) is int for b in bounds) else False
    if kind is tuple:
        items = tuple([_key(item) for item in index])
        return False if any(item is False for item in items) else items
    return False


def _select(x: array, index: Any) -> _Selection:
    """The selection of an index; remembered where it depends on no data and on no symbolic extent."""
    aval = x._value.aval
    key = _key(index)
    if key is False or aval.is_symbolic:
        return _selection(aval.shape, index)
    found = _selections.get((aval.shape, key))
    if found is None:
        found = _selection(aval.shape, index)
        if len(_selections) >= _MEMO_BOUND:
            _selections.clear()
        _selections[aval.shape, key] = found
    return found


class _Part(NamedTuple):
    """What one item of an index selects: of an axis, `start:stop:stride`, `length` elements; else nothing."""

    item: Any  # None, Ellipsis, a slice, an integer array, or an int or symbolic extent
    start: Extent = 0
    stop: Extent = 0
    stride: int = 1
    length: Extent = 1

    @property
    def of_axis(self) -> bool:
        return self.item is not None and self.item is not Ellipsis

    @property
    def is_slice(self) -> bool:
        return isinstance(self.item, builtins.slice)

    @property
    def is_array(self) -> bool:
        return isinstance(self.item, array)


def _parts(shape: Shape, index: Any) -> list[_Part]:
    parts = []
    axis = 0
    for item in _items(index, len(shape)):
        if item is None or item is Ellipsis:
            parts.append(_Part(item))
            continue
        n = shape[axis]
        if isinstance(item, tuple):
            item, extent = item
            if not dims.same(extent, n) and extent != n:
                raise _misfit((extent,), (n,))
        start, stop, stride = _bounds(item, n, axis, shape)
        whole = stride == 1 and dims.same(start, 0) and dims.same(stop, n)
        parts.append(_Part(item, start, stop, stride, n if whole else slice_length(start, stop, stride)))
        axis += 1
    return parts


def _selection(shape: Shape, index: Any) -> _Selection:
    parts = _parts(shape, index)
    sliced = [p for p in parts if p.of_axis]
    kept = [p for p in sliced if p.is_slice or p.is_array]
    arrays = [p.item for p in kept if p.is_array]
    picked = broadcast_shapes(*[a.shape for a in arrays]) if arrays else ()
    before = _before_arrays(parts) if arrays else []
    after = [p for p in parts if p.item is None or p.is_slice][len(before) :]
    rest = [[p.length for p in side if p.is_slice] for side in (before, after)]
    shown = [[p.length for p in side] for side in (before, after)]
    return _Selection(
        shape,
        starts=tuple(p.start for p in sliced),
        stops=tuple(p.stop for p in sliced),
        strides=tuple(p.stride for p in sliced),
        arrays=arrays,
        axes=tuple(i for i, p in enumerate(kept) if p.is_array),
        position=len(rest[0]),
        sliced=tuple(p.length for p in sliced),
        kept=tuple(p.length for p in kept),
        picked=(*rest[0], *picked, *rest[1]),
        result=(*shown[0], *picked, *shown[1]),
    )


def _before_arrays(parts: list[_Part]) -> list[_Part]:
    """Slices and new axes whose axes precede those of the index arrays in the result.

    The axes of the arrays take the place of the arrays when those are adjacent (ints count as arrays); they
    come first when a slice, a new axis or an ellipsis stands between them.
    """
    places = [i for i, p in enumerate(parts) if p.of_axis and not p.is_slice]
    if places[-1] - places[0] != len(places) - 1:
        return []
    return [p for p in parts[: places[0]] if p.item is None or p.is_slice]


def _bounds(item: Any, n: Extent, axis: int, shape: Shape) -> tuple[Extent, Extent, int]:
    """start, stop and stride of what an item selects of an axis of extent `n`."""
    if isinstance(item, builtins.slice):
        return _slice_bounds(item, n)
    if isinstance(item, array):
        return 0, n, 1
    start = n + item if isinstance(item, int) and item < 0 else item
    # where ranges do not decide, the trace takes its sample's answer and guards it
    if start < 0 or start >= n:
        raise IndexError(
            f"[index] index {item} is out of bounds for axis {axis} of shape {show_shape(shape)}."
        )
    return start, start + 1, 1


def _slice_bounds(item: builtins.slice, n: Extent) -> tuple[Extent, Extent, int]:
    stride = 1 if item.step is None else _integer(item.step)
    if not isinstance(stride, int) or stride == 0:
        raise ValueError(f"[index] slice step must be a nonzero int, got {stride}.")
    if item.start is None and item.stop is None and stride == 1:
        return 0, n, 1
    low, high = (0, n) if stride > 0 else (-1, n - 1)
    if stride > 0 and isinstance(n, Dim) and isinstance(item.start, int) and item.start > 0:
        # not clipped to n: x[1:] and x[:-1] then both have max(n - 1, 0) elements
        return item.start, _slice_bounds(builtins.slice(None, item.stop, stride), n)[1], stride

    def clipped(bound: Any, default: Extent) -> Extent:
        if bound is None:
            return default
        bound = _integer(bound)
        if isinstance(bound, int) and bound < 0:
            return dims.maximum(n + bound, low)
        return dims.minimum(bound, high)

    start = clipped(item.start, low if stride > 0 else high)
    stop = clipped(item.stop, high if stride > 0 else low)
    if stride > 0:
        return start, dims.maximum(start, stop), stride
    return start, dims.minimum(start, stop), stride


def _integer(x: Any) -> Extent:
    if isinstance(x, int | Dim):
        return x
    try:
        return operator.index(x)
    except TypeError:
        raise ValueError(f"[index] Slice indices must be integers or None, got {type(x).__name__}.") from None


# -- reading ---------------------------------------------------------------------------------------


def getitem(x: array, index: Any) -> array:
    """`x[index]` as in NumPy: ints, slices, `...`, None, integer arrays, and masks of known values.

    Raises:
        IndexError: for an int out of bounds, or more indices than axes; of arrays of indices when evaluated.
    """
    if type(index) is array and index.dtype.is_integer and x.ndim:
        return record(Gather((0,), 0), x._value, index._value)
    chosen = _select(x, index)
    if chosen.arrays:
        picked = record(
            Gather(chosen.axes, chosen.position),
            _window(x, chosen)._value,
            *[a._value for a in chosen.arrays],
        )
        return picked if dims.same_shape(picked.shape, chosen.result) else reshape(picked, chosen.result)
    if chosen.reads is None:
        chosen.reads = _reads(chosen)
    out = wrap(x._value)
    for primitive in chosen.reads:
        out = record(primitive, out._value)
    return out


def _reads(chosen: _Selection) -> tuple[Primitive, ...]:
    """The primitives that read a selection without arrays."""
    steps: list[Primitive] = [] if chosen.is_whole else [chosen.slice()]
    if not dims.same_shape(chosen.sliced, chosen.result):
        steps.append(Reshape(chosen.result))
    return tuple(steps)


def _window(x: array, chosen: _Selection) -> array:
    """The slice of `x`, without the axes that integers index."""
    out = wrap(x._value) if chosen.is_whole else record(chosen.slice(), x._value)
    return out if len(chosen.kept) == len(chosen.sliced) else reshape(out, chosen.kept)


# -- writing ---------------------------------------------------------------------------------------


def setitem(x: array, index: Any, update: Any) -> None:
    """`x[index] = update`: every reference to `x` sees the result. Later updates of an element win."""
    mask = _whole_mask(x, index, update)
    if mask is not None:
        value = as_update(x, update)
        x._rebind(record(Select(), mask._value, value._value, x._value), "setitem")
        return
    x._rebind(_replaced(x, _select(x, index), as_update(x, update)), "setitem")


def _whole_mask(x: array, index: Any, update: Any) -> array | None:
    """The mask of `x[mask] = scalar`, with the rank of `x`: that write needs no knowledge of its values."""
    if isinstance(index, np.ndarray) and index.dtype == bool:
        index = array(index)
    if not isinstance(index, array) or index.dtype is not dtypes.bool_ or index.ndim == 0:
        return None
    if update.ndim if isinstance(update, array) else np.ndim(update):
        return None
    if index.ndim > x.ndim or not dims.same_shape(index.shape, x.shape[: index.ndim]):
        raise _misfit(index.shape, x.shape)
    return reshape(index, (*index.shape, *(1,) * (x.ndim - index.ndim)))


def _misfit(mask: Shape, shape: Shape) -> AxisError:
    shown = f"a mask of shape {show_shape(mask)} does not fit an array of shape {show_shape(shape)}"
    return AxisError(f"[index] {shown}.")


def as_update(x: array, update: Any) -> array:
    """What is written into `x`: converted to its dtype."""
    if isinstance(update, bool | int | float) and (x.dtype.is_inexact or isinstance(update, int)):
        return wrap(Literal(update, x.dtype))
    found = as_array(update)
    return found if found.dtype is x.dtype else found.astype(x.dtype)


def _fitted(update: array, shape: Shape) -> array:
    """`update` broadcast to `shape`; leading axes of extent 1 too many are dropped."""
    extra = update.ndim - len(shape)
    if extra > 0 and all(dims.same(n, 1) for n in update.shape[:extra]):
        update = reshape(update, update.shape[extra:])
    if dims.same_shape(update.shape, shape):
        return update
    return record(BroadcastTo(shape), update._value)


def _replaced(x: array, chosen: _Selection, update: array) -> array:
    """`x` with the chosen elements replaced."""
    update = reshape(_fitted(update, chosen.result), chosen.picked)
    if chosen.arrays:
        part = _window(x, chosen)
        operands = [a._value for a in (part, update, *chosen.arrays)]
        update = record(Scatter("set", chosen.axes, chosen.position), *operands)
    return _put_window(x, chosen, update)


def _put_window(x: array, chosen: _Selection, update: array) -> array:
    """`x` with its slice replaced; `update` lacks the axes that integers index."""
    update = reshape(update, chosen.sliced)
    if chosen.is_whole:
        return update
    return record(SliceUpdate(chosen.starts, chosen.strides), x._value, update._value)


def as_strided(
    a: array,
    /,
    shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    offset: int = 0,
    *,
    stream: Any = None,
) -> array:
    """Elements `offset + i * strides` of the row-major elements of `a`, for all indices i of `shape`.

    `shape` is by default that of `a`, `strides` those of a row-major array of `shape`.

    Raises:
        ValueError: when an element would lie outside `a` (MLX reads foreign memory).
    """
    x = as_array(a)
    extents = [int(n) for n in (x.shape if shape is None else shape)]
    steps = [math.prod(extents[i + 1 :]) for i in range(len(extents))] if strides is None else list(strides)
    if len(steps) != len(extents) or any(n < 0 for n in extents):
        raise ValueError(f"[as_strided] shape {extents} and strides {steps} do not fit each other.")
    if math.prod(extents):
        ends = [(n - 1) * step for n, step in zip(extents, steps, strict=True)]
        low, high = offset + sum(e for e in ends if e < 0), offset + sum(e for e in ends if e > 0)
        if low < 0 or high >= int(x.size):
            raise ValueError(f"[as_strided] elements {low} to {high} of an array of {x.size}.")
    places = np.asarray(offset, np.int64)
    for axis, (n, step) in enumerate(zip(extents, steps, strict=True)):
        column = (np.arange(n) * step).reshape([-1 if i == axis else 1 for i in range(len(extents))])
        places = places + column
    return x.reshape((-1,))[wrap(leaf(np.ascontiguousarray(np.broadcast_to(places, extents))))]


_NO_INDEX = object()


class ArrayAt:
    """`x.at`: updates of `x.at[index]` that count every occurrence of an index. They return a new array."""

    __slots__ = ("_array", "_index")

    def __init__(self, x: array, index: Any = _NO_INDEX) -> None:
        self._array, self._index = x, index

    def __getitem__(self, indices: Any) -> ArrayAt:
        return ArrayAt(self._array, indices)

    def _combined(self, mode: str, update: Any, combine: Callable[[array, array], array]) -> array:
        x = self._array
        if self._index is _NO_INDEX:
            raise ValueError("[at] Must give indices to array.at (e.g. `x.at[0].add(4)`).")
        chosen = _select(x, self._index)
        value = reshape(_fitted(as_update(x, update), chosen.result), chosen.picked)
        part = _window(x, chosen)
        if chosen.arrays:
            operands = [a._value for a in (part, value, *chosen.arrays)]
            return _put_window(x, chosen, record(Scatter(mode, chosen.axes, chosen.position), *operands))
        return _put_window(x, chosen, combine(part, value))

    def add(self, value: Any) -> array:
        return self._combined("add", value, lambda a, b: a + b)

    def subtract(self, value: Any) -> array:
        return self._combined("add", -as_update(self._array, value), lambda a, b: a + b)

    def multiply(self, value: Any) -> array:
        return self._combined("mul", value, lambda a, b: a * b)

    def divide(self, value: Any) -> array:
        x = self._array
        if not x.dtype.is_inexact:
            raise ValueError(f"[at] divide needs a floating-point array, got {x.dtype.name}.")
        return self._combined("mul", 1 / as_update(x, value), lambda a, b: a * b)

    def maximum(self, value: Any) -> array:
        return self._combined("max", value, _larger)

    def minimum(self, value: Any) -> array:
        return self._combined("min", value, _smaller)


def _larger(a: array, b: array) -> array:
    return record(Maximum(), a._value, b._value)


def _smaller(a: array, b: array) -> array:
    return record(Minimum(), a._value, b._value)


# -- functions -------------------------------------------------------------------------------------


def _integer_indices(name: str, indices: Any) -> array:
    found = as_array(indices)
    if not found.dtype.is_integer:
        raise ValueError(
            f"[{name}] Got indices with invalid dtype {found.dtype.name}. Indices must be integral."
        )
    return found


def take(a: Any, /, indices: Any, axis: int | None = None, *, stream: Any = None) -> array:
    """Elements of `a` along an axis (by default of the flattened `a`), which the axes of `indices` replace.

    Raises:
        IndexError: for an index out of bounds, when evaluated.
    """
    a = as_array(a)
    if axis is None:
        a, axis = flatten(a), 0
    at = as_axis("take", axis, a.ndim, "Received invalid axis {} for")
    if isinstance(indices, int):
        return getitem(a, (builtins.slice(None),) * at + (indices,))
    return record(Gather((at,), at), a._value, _integer_indices("take", indices)._value)


def _along(name: str, a: array, indices: Any, axis: int) -> tuple[int, array, list[array]]:
    """The axis, the broadcast indices, and indices for every axis of `a`."""
    found = _integer_indices(name, indices)
    at = as_axis(name, axis, a.ndim)
    if found.ndim != a.ndim:
        raise ShapeError(
            f"[{name}] Indices of dimension {found.ndim} does not match array of dimension {a.ndim}."
        )
    others = broadcast_shapes(*[(*s[:at], 1, *s[at + 1 :]) for s in (a.shape, found.shape)])
    shape = (*others[:at], found.shape[at], *others[at + 1 :])
    found = found if dims.same_shape(found.shape, shape) else record(BroadcastTo(shape), found._value)
    full = []
    for i, (n, m) in enumerate(zip(shape, a.shape, strict=True)):
        if i == at:
            full.append(found)
        elif dims.same(m, 1):
            full.append(wrap(Literal(0, dtypes.int32)))
        else:
            full.append(record(Iota((1,) * i + (n,) + (1,) * (a.ndim - i - 1), i, dtypes.int32)))
    return at, found, full


def take_along_axis(a: Any, /, indices: Any, axis: int | None = -1, *, stream: Any = None) -> array:
    """Elements `a[..., indices[..., j, ...], ...]` along an axis; the other axes of both broadcast.

    axis: None takes from the flattened `a` with flattened indices.
    """
    a = as_array(a)
    if axis is None:
        return take(flatten(a), flatten(indices), 0)
    at, found, full = _along("take_along_axis", a, indices, axis)
    if a.ndim == 1:
        return record(Gather((0,), 0), a._value, found._value)
    return record(Gather(tuple(range(a.ndim)), 0), a._value, *[i._value for i in full])


def put_along_axis(
    a: Any, /, indices: Any, values: Any, axis: int | None = None, *, stream: Any = None
) -> array:
    """`a` with the elements that `take_along_axis` would read replaced by `values`, which broadcast."""
    a = as_array(a)
    if axis is None:
        return reshape(put_along_axis(flatten(a), flatten(indices), values, 0), a.shape)
    at, found, full = _along("put_along_axis", a, indices, axis)
    update = _fitted(as_update(a, values), found.shape)
    return record(Scatter("set", tuple(range(a.ndim)), 0), *[x._value for x in (a, update, *full)])


def _start_vector(
    name: str, start_indices: Any, axes: Sequence[int], ndim: int
) -> tuple[array, tuple[int, ...]]:
    starts = _integer_indices(name, start_indices)
    if starts.ndim == 0:
        starts = reshape(starts, (1,))
    found = tuple(as_axis(name, axis, ndim) for axis in axes)
    if starts.ndim != 1 or not dims.same(starts.shape[0], len(found)) or len(set(found)) != len(found):
        raise ShapeError(
            f"[{name}] {show_shape(starts.shape)} start indices do not fit the axes {tuple(axes)}: "
            "one per axis is needed, and each axis once."
        )
    return starts, found


def slice(  # noqa: A001
    a: Any, start_indices: Any, axes: Sequence[int], slice_size: Sequence[Extent], *, stream: Any = None
) -> array:
    """A window of shape `slice_size` of `a` that starts at `start_indices` (data) along `axes`, else at 0.

    Raises:
        IndexError: for a window that does not lie within `a`, when evaluated.
    """
    a = as_array(a)
    starts, found = _start_vector("slice", start_indices, axes, a.ndim)
    sizes = tuple(as_extent("slice", n) for n in slice_size)
    if len(sizes) != a.ndim:
        raise ShapeError(f"[slice] Invalid slice size for array with {a.ndim} dimensions.")
    if any(dims.decide("lt", n, 0) or dims.decide("gt", n, m) for n, m in zip(sizes, a.shape, strict=True)):
        raise ShapeError(
            f"[slice] Invalid slice size {show_shape(sizes)} for array with shape {show_shape(a.shape)}."
        )
    return record(DynamicSlice(found, sizes), a._value, starts._value)


def slice_update(
    a: Any, update: Any, start_indices: Any, axes: Sequence[int], *, stream: Any = None
) -> array:
    """`a` with a window replaced by `update`, starting at `start_indices` (data) along `axes`, else at 0.

    `update` broadcasts along the other axes.
    """
    a = as_array(a)
    starts, found = _start_vector("slice_update", start_indices, axes, a.ndim)
    value = as_update(a, update)
    if value.ndim > a.ndim:
        raise ShapeError(
            f"[slice_update] an update of shape {show_shape(value.shape)} has more axes than the array."
        )
    padded = (1,) * (a.ndim - value.ndim) + value.shape
    wanted = tuple(m if i in found else n for i, (m, n) in enumerate(zip(padded, a.shape, strict=True)))
    return record(DynamicUpdate(found), a._value, _fitted(value, wanted)._value, starts._value)


array.__getitem__ = getitem  # type: ignore[method-assign]
array.__setitem__ = setitem  # type: ignore[method-assign]
array.at = property(ArrayAt, doc="Functional updates of indexed elements: `x.at[index].add(y)` and others.")  # type: ignore[attr-defined]
