"""Reading and writing elements at positions that are data."""

# mypy: disable-error-code="override"
# (rules name the operands that their primitive has)

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record
from ingot.tracer.aval import Aval, show
from ingot.tracer.dims import Extent
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree, holds, natural
from ingot.tracer.graph import Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.elementwise import Eq, Ne, Select, broadcast_shapes, in_front
from ingot.tracer.primitives.shape import BroadcastTo, Iota, Reshape, to_front, with_batch, zeros

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]
Axes = Sequence[int | None]


# -- positions -------------------------------------------------------------------------------------


def _window(name: str, x: Aval, axes: tuple[int, ...], position: int, indices: Sequence[Aval]) -> Aval:
    """Aval of the elements that `indices` into `axes` of `x` select, their axes put at `position`."""
    rest = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    fits = len(indices) == len(axes) == len(set(axes)) and len(axes) > 0 and 0 <= position <= len(rest)
    if (
        not fits
        or not all(0 <= axis < x.ndim for axis in axes)
        or not all(i.dtype.is_integer for i in indices)
    ):
        raise ShapeError(f"[{name}] indices ({show(indices)}) do not fit axes {axes} of {x!r}.")
    shape = broadcast_shapes(*[i.shape for i in indices])
    return Aval((*rest[:position], *shape, *rest[position:]), x.dtype)


def wrapped_indices(name: str, indices: Sequence[np.ndarray], extents: Sequence[int]) -> list[np.ndarray]:
    """Indices with negative ones counted from the end.

    Raises:
        IndexError: for an index outside [-n, n) of an axis of extent n.
    """
    found = []
    for index, n in zip(indices, extents, strict=True):
        index = np.asarray(index)
        if index.size:
            low, high = int(index.min()), int(index.max())
            if low < -n or high >= n:
                wrong = low if low < -n else high
                raise IndexError(f"[{name}] index {wrong} is out of bounds for an axis of size {n}.")
            index = index.astype(np.intp)
            if low < 0:
                index = np.where(index < 0, index + n, index)
        found.append(index.astype(np.intp))
    return found


def _batch_index(size: Extent, ndim: int) -> array:
    """0, 1, ... along a batch axis in front of `ndim` unit axes."""
    return record(Iota((size,) + (1,) * ndim, 0, dtypes.int32))


def _aligned_indices(indices: Handles, axes: Axes, size: Extent) -> tuple[list[array], int]:
    """Indices with batch axes in front and ranks aligned; also the rank they have without the batch."""
    rank = max(x.ndim - (axis is not None) for x, axis in zip(indices, axes, strict=True))
    return [in_front(x, axis, rank) for x, axis in zip(indices, axes, strict=True)], rank


def _values(handles: Handles) -> list:
    return [h._value for h in handles]


class Gather(Primitive):
    """Elements of the first operand where the others, integer arrays, index `axes` of it together.

    The indices broadcast to one shape, whose axes stand in the result at `position` among the axes of the
    operand that are not indexed: NumPy's advanced indexing. Negative indices count from the end; others out
    of bounds raise IndexError.
    """

    axes: tuple[int, ...]
    position: int

    def infer(self, x: Aval, *indices: Aval) -> Aval:
        return _window("gather", x, self.axes, self.position, indices)

    def evaluate(self, x: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        chosen = wrapped_indices("gather", indices, [x.shape[axis] for axis in self.axes])
        if len(self.axes) == 1 and self.position == self.axes[0]:
            return np.take(x, chosen[0], self.axes[0])
        rest = [i for i in range(x.ndim) if i not in self.axes]
        picked = np.asarray(np.transpose(x, (*self.axes, *rest))[tuple(chosen)])
        n = picked.ndim - len(rest)
        return np.moveaxis(picked, range(n), range(self.position, self.position + n))

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,) = cotangents
        assert ct is not None
        x, *indices = primals
        base = zeros(x.shape, ct.dtype)
        return [record(Scatter("add", *self._where()), *_values([base, ct, *indices]))] + [None] * len(
            indices
        )

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        t = tangents[0]
        return [None if t is None else record(self, *_values([t, *primals[1:]]))]

    def _where(self) -> tuple[tuple[int, ...], int]:
        return self.axes, self.position

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        x, *indices = operands
        shifted = tuple(axis + 1 for axis in self.axes)
        if all(axis is None for axis in axes[1:]):
            assert axes[0] is not None
            front = to_front(x, axes[0])
            return [record(Gather(shifted, self.position + 1), *_values([front, *indices]))], [0]
        aligned, rank = _aligned_indices(indices, axes[1:], size)
        if axes[0] is None:
            return [record(self, *_values([x, *aligned]))], [self.position]
        front = to_front(x, axes[0])
        together = Gather((0, *shifted), self.position)
        return [record(together, *_values([front, _batch_index(size, rank), *aligned]))], [self.position]


class Scatter(Primitive):
    """The first operand with its elements at indices combined with those of the second, the updates.

    mode: "set", "add", "mul", "min" or "max". axes and position as in `Gather`, whose result has the shape of
    the updates; the indices follow as operands. Of several updates of an element in mode "set" the last wins.
    """

    mode: str
    axes: tuple[int, ...]
    position: int

    def infer(self, x: Aval, updates: Aval, *indices: Aval) -> Aval:
        window = _window("scatter", x, self.axes, self.position, indices)
        fits = window.ndim == updates.ndim and x.dtype is updates.dtype
        if not fits or not all(map(agree, window.shape, updates.shape)):
            raise ShapeError(f"[scatter] updates must be {window!r}, got {updates!r}.")
        if self.mode not in ("set", "add", "mul", "min", "max"):
            raise ShapeError(f"[scatter] unknown mode {self.mode!r}.")
        return x

    def evaluate(self, x: np.ndarray, updates: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        return self.overwrite(np.array(x, order="C"), updates, *indices)

    def overwrite(self, x: np.ndarray, updates: np.ndarray, *indices: np.ndarray) -> np.ndarray:
        chosen = wrapped_indices("scatter", indices, [x.shape[axis] for axis in self.axes])
        rest = [i for i in range(x.ndim) if i not in self.axes]
        n = np.ndim(updates) - len(rest)
        values = np.moveaxis(updates, range(self.position, self.position + n), range(n))
        wide = x.dtype.itemsize == 2 and x.dtype.kind not in "iu" and self.mode in ("add", "mul")
        out = x.astype(np.float32) if wide else x  # half precision: sums of many updates are rounded once
        view, at = np.transpose(out, (*self.axes, *rest)), tuple(chosen)
        if self.mode == "set":
            view[at] = values
        elif out.dtype == bool:
            _BOOL_COMBINE[self.mode].at(view, at, values)
        else:
            _COMBINE[self.mode].at(view, at, values.astype(out.dtype))
        if wide:
            x[...] = out
        return x

    def _gathered(self, x: array, indices: Handles) -> array:
        return record(Gather(self.axes, self.position), *_values([x, *indices]))

    def _scattered(self, mode: str, x: array, updates: array, indices: Handles) -> array:
        return record(Scatter(mode, self.axes, self.position), *_values([x, updates, *indices]))

    def _last(self, updates: array, indices: Handles, shape: tuple[Extent, ...]) -> array | None:
        """Where an update is the last of its element; None when there is one update per element at most."""
        picked = broadcast_shapes(*[i.shape for i in indices])
        if all(dims.same(n, 1) for n in picked):
            return None
        count = record(Iota((dims.product(updates.shape),), 0, dtypes.int32))
        numbers = record(Reshape(updates.shape), count._value)
        held = self._scattered("set", zeros(shape, dtypes.int32), numbers, indices)
        return record(Eq(), self._gathered(held, indices)._value, numbers._value)

    def _ties(self, primals: Handles, result: array) -> tuple[array, array, array]:
        """For min and max: where operand and updates equal the result, and how many do per element."""
        x, updates, *indices = primals
        kept = _equal(x, result)
        taken = _equal(updates, self._gathered(result, indices))
        count = self._scattered("add", kept.astype(x.dtype), taken.astype(x.dtype), indices)
        return kept, taken, count

    def _others(self, primals: Handles) -> tuple[array, array]:
        """For mul: the product of the updates per element of `x`; per update that of the others."""
        x, updates, *indices = primals
        one = Literal(1, x.dtype)
        is_zero = record(Eq(), updates._value, Literal(0, x.dtype))
        safe = record(Select(), is_zero._value, one, updates._value)
        ones = record(BroadcastTo(x.shape), one)
        product = self._gathered(self._scattered("mul", ones, safe, indices), indices)
        number = self._scattered("add", zeros(x.shape, dtypes.int32), is_zero.astype(dtypes.int32), indices)
        other_zeros = self._gathered(number, indices) - is_zero.astype(dtypes.int32)
        none = record(Eq(), other_zeros._value, Literal(0, dtypes.int32))
        others = record(Select(), none._value, (product / safe)._value, Literal(0, x.dtype))
        return self._scattered("mul", ones, updates, indices), others

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,) = cotangents
        assert ct is not None
        x, updates, *indices = primals
        gathered = self._gathered(ct, indices)
        if self.mode == "add":
            back, forth = ct, gathered
        elif self.mode == "set":
            back = self._scattered("set", ct, zeros(updates.shape, ct.dtype), indices)
            last = self._last(updates, indices, x.shape)
            forth = gathered if last is None else _masked(last, gathered)
        elif self.mode == "mul":
            product, others = self._others(primals)
            back, forth = ct * product, self._gathered(ct * x, indices) * others
        else:
            kept, taken, count = self._ties(primals, results[0])
            share = _masked(record(Ne(), count._value, Literal(0, count.dtype)), ct / count)
            back, forth = _masked(kept, share), _masked(taken, self._gathered(share, indices))
        return [back, forth] + [None] * len(indices)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        x, updates, *indices = primals
        moving = [
            zeros(p.shape, p.dtype) if t is None else t
            for p, t in zip(primals[:2], tangents[:2], strict=True)
        ]
        if self.mode in ("add", "set"):
            return [record(self, *_values([*moving, *indices]))]
        if self.mode == "mul":
            product, others = self._others(primals)
            change = moving[1] * others * self._gathered(x, indices)
            return [self._scattered("add", moving[0] * product, change, indices)]
        kept, taken, count = self._ties(primals, results[0])
        summed = self._scattered("add", _masked(kept, moving[0]), _masked(taken, moving[1]), indices)
        return [summed / count]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        x, updates, *indices = operands
        x = with_batch(x, axes[0], size)
        shifted = tuple(axis + 1 for axis in self.axes)
        if all(axis is None for axis in axes[2:]):
            updates = with_batch(updates, axes[1], size)
            again = Scatter(self.mode, shifted, self.position + 1)
            return [record(again, *_values([x, updates, *indices]))], [0]
        aligned, rank = _aligned_indices(indices, axes[2:], size)
        updates = with_batch(updates, axes[1], size)
        updates = updates if self.position == 0 else updates.moveaxis(0, self.position)
        again = Scatter(self.mode, (0, *shifted), self.position)
        return [record(again, *_values([x, updates, _batch_index(size, rank), *aligned]))], [0]


_COMBINE = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
_BOOL_COMBINE = {"add": np.logical_or, "mul": np.logical_and, "min": np.logical_and, "max": np.logical_or}


def _equal(a: array, b: array) -> array:
    return record(Eq(), a._value, b._value)


def _masked(mask: array, x: array) -> array:
    return record(Select(), mask._value, x._value, Literal(0, x.dtype))


# -- windows at data positions ---------------------------------------------------------------------


def _checked_starts(
    name: str, starts: np.ndarray, shape: Sequence[int], axes: Sequence[int], sizes: Sequence[int]
) -> list[slice]:
    window = [slice(None)] * len(shape)
    for start, axis in zip(np.asarray(starts).reshape(-1).tolist(), axes, strict=True):
        if start < 0 or start + sizes[axis] > shape[axis]:
            raise IndexError(
                f"[{name}] a window of {sizes[axis]} from {start} is out of bounds for axis {axis} of size "
                f"{shape[axis]}."
            )
        window[axis] = slice(start, start + sizes[axis])
    return window


class DynamicSlice(Primitive):
    """A window of shape `sizes` of the first operand.

    The second operand, a vector of integers, says where it starts along `axes`; elsewhere it starts at 0. A
    window that does not lie within the operand raises IndexError.
    """

    axes: tuple[int, ...]
    sizes: tuple[Extent, ...]

    def infer(self, x: Aval, starts: Aval) -> Aval:
        _check_starts("dynamic_slice", x, starts, self.axes, self.sizes)
        return Aval(self.sizes, x.dtype)

    def evaluate(self, x: np.ndarray, starts: np.ndarray) -> np.ndarray:
        sizes = tuple(map(operator.index, self.sizes))
        window = _checked_starts("slice", starts, x.shape, self.axes, sizes)
        for axis, n in enumerate(sizes):
            if axis not in self.axes:
                window[axis] = slice(0, n)
        return x[tuple(window)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x, starts), (ct,) = primals, cotangents
        assert ct is not None
        base = zeros(x.shape, ct.dtype)
        return [record(DynamicUpdate(self.axes), base._value, ct._value, starts._value), None]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        t = tangents[0]
        return [None if t is None else record(self, t._value, primals[1]._value)]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        x, starts = operands
        if axes[1] is None:
            assert axes[0] is not None
            again = DynamicSlice(tuple(axis + 1 for axis in self.axes), (size, *self.sizes))
            return [record(again, to_front(x, axes[0])._value, starts._value)], [0]
        gather, indices = _window_indices(
            self.axes, self.sizes, to_front(starts, axes[1]), size, axes[0] is not None
        )
        x = x if axes[0] is None else to_front(x, axes[0])
        return [record(gather, *_values([x, *indices]))], [0]


class DynamicUpdate(Primitive):
    """The first operand with a window replaced by the second; the third says where, as in `DynamicSlice`."""

    axes: tuple[int, ...]

    def infer(self, x: Aval, update: Aval, starts: Aval) -> Aval:
        if x.dtype is not update.dtype:
            raise ShapeError(f"[dynamic_update] dtypes differ: {x!r}, {update!r}.")
        _check_starts("dynamic_update", x, starts, self.axes, update.shape)
        return x

    def evaluate(self, x: np.ndarray, update: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return self.overwrite(np.array(x, order="C"), update, starts)

    def overwrite(self, x: np.ndarray, update: np.ndarray, starts: np.ndarray) -> np.ndarray:
        window = _checked_starts("slice_update", starts, x.shape, self.axes, np.shape(update))
        for axis, n in enumerate(np.shape(update)):
            if axis not in self.axes:
                window[axis] = slice(0, n)
        x[tuple(window)] = update
        return x

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (_, update, starts), (ct,) = primals, cotangents
        assert ct is not None
        back = record(self, ct._value, zeros(update.shape, ct.dtype)._value, starts._value)
        return [back, record(DynamicSlice(self.axes, update.shape), ct._value, starts._value), None]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        x, update = [
            zeros(p.shape, p.dtype) if t is None else t
            for p, t in zip(primals[:2], tangents[:2], strict=True)
        ]
        return [record(self, x._value, update._value, primals[2]._value)]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        x, update = [with_batch(o, axis, size) for o, axis in zip(operands[:2], axes[:2], strict=True)]
        if axes[2] is None:
            again = DynamicUpdate(tuple(axis + 1 for axis in self.axes))
            return [record(again, x._value, update._value, operands[2]._value)], [0]
        starts = to_front(operands[2], axes[2])
        gather, indices = _window_indices(self.axes, update.shape[1:], starts, size, True)
        return [record(Scatter("set", gather.axes, gather.position), *_values([x, update, *indices]))], [0]


def _check_starts(name: str, x: Aval, starts: Aval, axes: tuple[int, ...], sizes: Sequence[Extent]) -> None:
    fits = len(sizes) == x.ndim and starts.dtype.is_integer and starts.ndim == 1
    fits = fits and agree(starts.shape[0], len(axes)) and len(set(axes)) == len(axes)
    if not fits or not all(0 <= axis < x.ndim for axis in axes):
        raise ShapeError(f"[{name}] starts {starts!r}, axes {axes} and sizes {sizes} do not fit {x!r}.")
    if not natural(sizes) or not all(holds("le", size, n) for size, n in zip(sizes, x.shape, strict=True)):
        raise ShapeError(f"[{name}] a window of {tuple(sizes)} does not fit into {x!r}.")


def _window_indices(
    axes: tuple[int, ...], sizes: Sequence[Extent], starts: array, size: Extent, batched: bool
) -> tuple[Gather, list[array]]:
    """The gather of one window per row of `starts`, and its indices; all axes are indexed.

    With `batched`, row `b` selects from element `b` of a leading axis.
    """
    ndim = len(sizes)
    # unsigned: a negative start shall be out of bounds, not counted from the end
    starts = starts.astype(dtypes.uint64 if starts.dtype.size == 8 else dtypes.uint32)
    indices = [_batch_index(size, ndim)] if batched else []
    for axis, n in enumerate(sizes):
        inside = record(Iota((1,) * (axis + 1) + (n,) + (1,) * (ndim - axis - 1), axis + 1, starts.dtype))
        if axis in axes:
            at = starts[:, axes.index(axis)]
            inside = inside + at.reshape((size,) + (1,) * ndim)
        indices.append(inside)
    return Gather(tuple(range(ndim + batched)), 0), indices
