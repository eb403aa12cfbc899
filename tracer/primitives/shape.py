"""Primitives that move, copy or make elements without computing on them."""

# mypy: disable-error-code="override"
# (rules name the operands that their primitive has)

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from ingot.tracer import dims, dtypes
from ingot.tracer.array import array, record, record_all
from ingot.tracer.aval import Aval, show
from ingot.tracer.dims import Extent
from ingot.tracer.dtypes import Dtype
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree, holds, natural
from ingot.tracer.graph import Literal
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.elementwise import show_shape, sum_to

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]
Axes = Sequence[int | None]
Shape = tuple[Extent, ...]


def zeros(shape: Shape, dtype: Dtype) -> array:
    """Zeros as a node, never as memory."""
    return record(BroadcastTo(shape), Literal(0, dtype))


def to_front(x: array, axis: int) -> array:
    """`x` with `axis` moved to the front."""
    if axis == 0:
        return x
    return record(Transpose((axis, *(i for i in range(x.ndim) if i != axis))), x._value)


def with_batch(x: array, axis: int | None, size: Extent) -> array:
    """`x` with its batch axis in front; repeated along a new one when it has none."""
    if axis is not None:
        return to_front(x, axis)
    return record(BroadcastTo((size, *x.shape)), x._value)


class Movement(Primitive, abstract=True):
    """A linear map of one operand that only moves elements: the tangent moves as the value does."""

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        assert tangents[0] is not None
        return [record(self, tangents[0]._value)]

    def batched(self, x: Aval, size: Extent) -> Primitive:
        """The primitive for operands with a batch axis of extent `size` in front; `x` is without it."""
        raise NotImplementedError(f"[{self.name}] batched")

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        assert axes[0] is not None
        x = to_front(operands[0], axes[0])
        inner = Aval(x.shape[1:], x.dtype)
        return [record(self.batched(inner, size), x._value)], [0]


class BroadcastTo(Primitive):
    """The operand repeated along new leading axes and axes of extent 1, as in NumPy."""

    shape: Shape
    may_alias = True

    def infer(self, x: Aval) -> Aval:
        extra = len(self.shape) - x.ndim
        fits = extra >= 0 and all(
            (isinstance(n, int) and n == 1) or agree(n, wanted)
            for n, wanted in zip(x.shape, self.shape[extra:], strict=True)
        )
        if not fits or not natural(self.shape):
            raise ShapeError(
                f"[broadcast_to] Cannot broadcast array of shape {show_shape(x.shape)} to "
                f"{show_shape(self.shape)}."
            )
        return Aval(self.shape, x.dtype)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, self.shape)  # type: ignore[arg-type]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        assert cotangents[0] is not None
        return [sum_to(cotangents[0], primals[0].shape)]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        assert tangents[0] is not None
        return [record(self, tangents[0]._value)]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        assert axes[0] is not None
        x = to_front(operands[0], axes[0])
        missing = len(self.shape) + 1 - x.ndim
        if missing:
            x = record(Reshape((size, *(1,) * missing, *x.shape[1:])), x._value)
        return [record(BroadcastTo((size, *self.shape)), x._value)], [0]


class Reshape(Movement):
    """The elements in row-major order, in another shape of the same size."""

    shape: Shape
    may_alias = True

    def infer(self, x: Aval) -> Aval:
        if not agree(x.size, dims.product(self.shape)) or not natural(self.shape):
            raise ShapeError(
                f"[reshape] Cannot reshape array of size {x.size} into shape {show_shape(self.shape)}."
            )
        return Aval(self.shape, x.dtype)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.reshape(x, self.shape)  # type: ignore[arg-type]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        assert cotangents[0] is not None
        return [record(Reshape(primals[0].shape), cotangents[0]._value)]

    def batched(self, x: Aval, size: Extent) -> Primitive:
        return Reshape((size, *self.shape))


class Transpose(Movement):
    """Axis `i` of the result is axis `perm[i]` of the operand."""

    perm: tuple[int, ...]
    may_alias = True

    def infer(self, x: Aval) -> Aval:
        if sorted(self.perm) != list(range(x.ndim)):
            raise ShapeError(f"[transpose] {self.perm} is no permutation of the axes of {x!r}.")
        return Aval(tuple([x.shape[axis] for axis in self.perm]), x.dtype)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.transpose(x, self.perm)

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        assert cotangents[0] is not None
        inverse = sorted(range(len(self.perm)), key=self.perm.__getitem__)
        return [record(Transpose(tuple(inverse)), cotangents[0]._value)]

    def batched(self, x: Aval, size: Extent) -> Primitive:
        return Transpose((0, *(axis + 1 for axis in self.perm)))


def slice_length(start: Extent, stop: Extent, stride: int) -> Extent:
    """Number of elements from `start` by `stride` to before `stop`."""
    span = stop - start if stride > 0 else start - stop
    return dims.ceil_div(dims.maximum(span, 0), abs(stride))


class Slice(Movement):
    """Elements `starts + i * strides` up to, not including, `stops`; one entry per axis.

    0 <= starts and stops <= extent; nothing is selected where `starts` is not before `stops`. A negative
    stride walks down from `starts`, which is below the extent; -1 is then the stop that includes element 0. A
    stride is never 0.
    """

    starts: tuple[Extent, ...]
    stops: tuple[Extent, ...]
    strides: tuple[int, ...]
    may_alias = True

    def infer(self, x: Aval) -> Aval:
        if not len(self.starts) == len(self.stops) == len(self.strides) == x.ndim:
            raise ShapeError(f"[slice] {self!r} does not have the rank of {x!r}.")
        shape = []
        for n, start, stop, stride in zip(x.shape, self.starts, self.stops, self.strides, strict=True):
            last, top = (stop, n) if stride > 0 else (start, n - 1)
            inside = stride != 0 and holds("ge", start, 0 if stride > 0 else -1)
            if not inside or not holds("ge", stop, -1) or not holds("le", last, top):
                raise ShapeError(f"[slice] {start}:{stop}:{stride} is out of range for extent {n} of {x!r}.")
            shape.append(slice_length(start, stop, stride))
        return Aval(tuple(shape), x.dtype)

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return x[_numpy_slices(self.starts, self.stops, self.strides)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (ct,) = primals, cotangents
        assert ct is not None
        if all(stride == 1 for stride in self.strides):
            low = tuple(dims.minimum(start, n) for n, start in zip(x.shape, self.starts, strict=True))
            high = tuple(n - a - m for n, a, m in zip(x.shape, low, results[0].shape, strict=True))
            return [record(Pad(low, high), ct._value, Literal(0, ct.dtype))]
        return [record(SliceUpdate(self.starts, self.strides), zeros(x.shape, ct.dtype)._value, ct._value)]

    def batched(self, x: Aval, size: Extent) -> Primitive:
        return Slice((0, *self.starts), (size, *self.stops), (1, *self.strides))


def _numpy_slices(
    starts: Sequence[Extent], stops: Sequence[Extent], strides: Sequence[int]
) -> tuple[slice, ...]:
    # stop -1 counts from the end in Python
    return tuple(
        slice(0, 0)
        if start == -1
        else slice(start, stop if stop != -1 else None if stride < 0 else 0, stride)
        for start, stop, stride in zip(starts, stops, strides, strict=True)
    )


class SliceUpdate(Primitive):
    """`x` with the elements `starts + i * strides` replaced by those of `update`."""

    starts: tuple[Extent, ...]
    strides: tuple[int, ...]

    def infer(self, x: Aval, update: Aval) -> Aval:
        fits = len(self.starts) == len(self.strides) == x.ndim == update.ndim and x.dtype is update.dtype
        for n, m, start, stride in zip(x.shape, update.shape, self.starts, self.strides, strict=False):
            last = start + (m - 1) * stride
            low, high = (start, last) if stride > 0 else (last, start)
            inside = dims.decide("le", m, 0) or (holds("ge", low, 0) and holds("lt", high, n))
            fits = fits and stride != 0 and inside
        if not fits:
            raise ShapeError(f"[slice_update] cannot write {show((update,))} into {x!r} as {self!r}.")
        return x

    def _view(self, out: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if 0 in shape:
            return out[tuple(slice(0, n) for n in shape)]
        stops = [
            start + m * stride for start, m, stride in zip(self.starts, shape, self.strides, strict=True)
        ]
        return out[_numpy_slices(self.starts, [max(s, -1) for s in stops], self.strides)]

    def evaluate(self, x: np.ndarray, update: np.ndarray) -> np.ndarray:
        return self.overwrite(np.array(x, order="C"), update)

    def overwrite(self, x: np.ndarray, update: np.ndarray) -> np.ndarray:
        self._view(x, np.shape(update))[...] = update
        return x

    def _read(self, shape: Shape) -> Slice:
        """The slice that reads what an update of `shape` writes."""
        stops = []
        for start, m, stride in zip(self.starts, shape, self.strides, strict=True):
            end = start + m * stride
            # past the last element read; clipped so that it stays a valid stop
            stops.append(start + (m - 1) * stride + 1 if stride > 0 else dims.maximum(end, -1))
        stops = [
            dims.maximum(stop, start) if stride > 0 else stop
            for start, stop, stride in zip(self.starts, stops, self.strides, strict=True)
        ]
        return Slice(self.starts, tuple(stops), self.strides)

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        _, update = primals
        (ct,) = cotangents
        assert ct is not None
        below = record(self, ct._value, zeros(update.shape, ct.dtype)._value)
        return [below, record(self._read(update.shape), ct._value)]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        x, update = [
            zeros(p.shape, p.dtype) if t is None else t for p, t in zip(primals, tangents, strict=True)
        ]
        return [record(self, x._value, update._value)]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        x, update = [with_batch(o, axis, size) for o, axis in zip(operands, axes, strict=True)]
        return [record(SliceUpdate((0, *self.starts), (1, *self.strides)), x._value, update._value)], [0]


class Concatenate(Primitive):
    """The operands one after the other along `axis`."""

    axis: int

    def infer(self, *xs: Aval) -> Aval:
        first = xs[0] if xs else None
        fits = first is not None and 0 <= self.axis < first.ndim
        if first is not None and fits:
            fits = all(
                x.ndim == first.ndim
                and x.dtype is first.dtype
                and all(i == self.axis or agree(a, b) for i, (a, b) in enumerate(zip(x.shape, first.shape)))  # noqa: B905
                for x in xs[1:]
            )
        if first is None or not fits:
            raise ShapeError(
                "[concatenate] All the input array dimensions must match exactly except for the concatenation"
                f" axis {self.axis}; got ({show(xs)})."
            )
        total: Extent = 0
        for x in xs:
            total = total + x.shape[self.axis]
        return Aval((*first.shape[: self.axis], total, *first.shape[self.axis + 1 :]), first.dtype)

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        return np.concatenate(xs, self.axis)

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,) = cotangents
        assert ct is not None
        parts: list[array | None] = []
        offset: Extent = 0
        for x in primals:
            end = offset + x.shape[self.axis]
            parts.append(record(axis_slice(ct.shape, self.axis, offset, end), ct._value))
            offset = end
        return parts

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        dense = [zeros(p.shape, p.dtype) if t is None else t for p, t in zip(primals, tangents, strict=True)]
        return [record(self, *[t._value for t in dense])]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        moved = [with_batch(x, axis, size) for x, axis in zip(operands, axes, strict=True)]
        return [record(Concatenate(self.axis + 1), *[x._value for x in moved])], [0]


def axis_slice(shape: Shape, axis: int, start: Extent, stop: Extent) -> Slice:
    """`start:stop` along one axis, all of the others."""
    starts: list[Extent] = [0] * len(shape)
    stops = list(shape)
    starts[axis], stops[axis] = start, stop
    return Slice(tuple(starts), tuple(stops), (1,) * len(shape))


class Pad(Primitive):
    """`x` with `low` and `high` elements of the scalar `value` before and after, per axis."""

    low: tuple[Extent, ...]
    high: tuple[Extent, ...]

    def infer(self, x: Aval, value: Aval) -> Aval:
        fits = len(self.low) == len(self.high) == x.ndim and value.ndim == 0 and value.dtype is x.dtype
        if not fits or not natural((*self.low, *self.high)):
            raise ShapeError(f"[pad] cannot pad {x!r} with {value!r}: low {self.low}, high {self.high}.")
        shape = tuple(low + n + high for low, n, high in zip(self.low, x.shape, self.high, strict=True))
        return Aval(shape, x.dtype)

    def evaluate(self, x: np.ndarray, value: np.ndarray) -> np.ndarray:
        shape = [low + n + high for low, n, high in zip(self.low, x.shape, self.high, strict=True)]
        out = np.full(shape, value, x.dtype)  # type: ignore[arg-type]
        out[self._inner(x.shape)] = x
        return out

    def _inner(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(low, low + n) for low, n in zip(self.low, shape, strict=True))

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        x, _ = primals
        (ct,) = cotangents
        assert ct is not None
        stops = tuple(low + n for low, n in zip(self.low, x.shape, strict=True))
        inside = record(Slice(self.low, stops, (1,) * x.ndim), ct._value)
        # summed over the border alone: a difference of two large sums would lose digits
        border = record(SliceUpdate(self.low, (1,) * x.ndim), ct._value, zeros(x.shape, ct.dtype)._value)
        return [inside, border.sum()]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        x, value = [
            zeros(p.shape, p.dtype) if t is None else t for p, t in zip(primals, tangents, strict=True)
        ]
        return [record(self, x._value, value._value)]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        x, value = operands
        x = with_batch(x, axes[0], size)
        if axes[1] is None:
            return [record(Pad((0, *self.low), (0, *self.high)), x._value, value._value)], [0]
        shape = (size, *(a + n + b for a, n, b in zip(self.low, x.shape[1:], self.high, strict=True)))
        value = record(Reshape((size,) + (1,) * len(self.low)), value._value)
        filled = record(BroadcastTo(shape), value._value)
        return [record(SliceUpdate((0, *self.low), (1,) * len(shape)), filled._value, x._value)], [0]


class Reverse(Movement):
    """The operand with its elements in opposite order along `axes`."""

    axes: tuple[int, ...]
    may_alias = True

    def infer(self, x: Aval) -> Aval:
        if len(set(self.axes)) != len(self.axes) or not all(0 <= axis < x.ndim for axis in self.axes):
            raise ShapeError(f"[reverse] axes {self.axes} do not fit {x!r}.")
        return x

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.flip(x, self.axes)

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        assert cotangents[0] is not None
        return [record(self, cotangents[0]._value)]

    def batched(self, x: Aval, size: Extent) -> Primitive:
        return Reverse(tuple(axis + 1 for axis in self.axes))


class Source(Primitive, abstract=True):
    """A primitive without operands: no derivative, nothing to batch."""

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return []

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        return [record(self)], [None]


class Iota(Source):
    """The position along `axis`, counted from 0."""

    shape: Shape
    axis: int
    dtype: Dtype

    def infer(self) -> Aval:
        fits = 0 <= self.axis < len(self.shape) and self.dtype is not dtypes.bool_
        if not fits or not natural(self.shape):
            raise ShapeError(f"[iota] no axis {self.axis} of numbers in {Aval(self.shape, self.dtype)!r}.")
        return Aval(self.shape, self.dtype)

    def evaluate(self) -> np.ndarray:
        count = np.arange(operator.index(self.shape[self.axis])).astype(self.dtype.numpy)
        column = count.reshape([-1 if i == self.axis else 1 for i in range(len(self.shape))])
        return np.broadcast_to(column, self.shape)  # type: ignore[arg-type]


class DimValue(Source):
    """A (symbolic) extent as a scalar; integers wrap as in C."""

    extent: Extent
    dtype: Dtype

    def infer(self) -> Aval:
        return Aval((), self.dtype)

    def evaluate(self) -> np.ndarray:
        return np.asarray(np.int64(self.extent)).astype(self.dtype.numpy)  # type: ignore[arg-type]


class OptimizationBarrier(Primitive):
    """The operands, unchanged; no pass may merge or move what stands on its two sides."""

    may_alias = True

    def infer(self, *xs: Aval) -> tuple[Aval, ...]:
        return xs

    def evaluate(self, *xs: np.ndarray) -> tuple[np.ndarray, ...]:
        return xs

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return _together(cotangents)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return _together(tangents)

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        return record_all(self, *[x._value for x in operands]), axes


def _together(handles: MaybeHandles) -> MaybeHandles:
    found = iter(record_all(OptimizationBarrier(), *[h._value for h in handles if h is not None]))
    return [None if h is None else next(found) for h in handles]
