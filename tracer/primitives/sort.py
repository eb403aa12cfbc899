"""Sorting and searching along an axis. NaN comes last; equal elements keep their order."""

# mypy: disable-error-code="override"
# (rules name the operands that their primitive has)

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import array, record
from ingot.tracer.aval import Aval, show
from ingot.tracer.dims import Extent
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree_shapes
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.shape import Iota, to_front, with_batch

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]
Axes = Sequence[int | None]


def _single(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.char in "eE" else x


def along(axis: int, indices: array) -> tuple[array, ...]:
    """Indices of all axes that pick `indices` along one and their own place along the others."""
    picks = []
    for i, extent in enumerate(indices.shape):
        shape = tuple(extent if k == i else 1 for k in range(indices.ndim))
        picks.append(indices if i == axis else record(Iota(shape, i, dtypes.int32)))
    return tuple(picks)


class AxisOrder(Primitive, abstract=True):
    """A primitive on the order of elements along `axis`."""

    axis: int

    def infer(self, x: Aval) -> Aval:
        if not 0 <= self.axis < x.ndim:
            raise ShapeError(f"[{self.name}] no axis {self.axis} in {x!r}.")
        return Aval(x.shape, self.result(x))

    def result(self, x: Aval) -> dtypes.Dtype:
        """Dtype of the result."""
        return x.dtype

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        assert axes[0] is not None
        return [record(type(self)(self.axis + 1), to_front(operands[0], axes[0])._value)], [0]


class Argsort(AxisOrder):
    """Positions (uint32) of the elements in ascending order."""

    def result(self, x: Aval) -> dtypes.Dtype:
        return dtypes.uint32

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.argsort(_single(x), axis=self.axis, kind="stable").astype(np.uint32)

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]


class Sort(AxisOrder):
    """The elements in ascending order."""

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        return np.sort(_single(x), axis=self.axis, kind="stable").astype(x.dtype)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (t,) = primals, tangents
        if t is None or not x.dtype.is_inexact:
            return [None]
        return [t[along(self.axis, record(Argsort(self.axis), x._value))]]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (ct,) = primals, cotangents
        if ct is None or not x.dtype.is_inexact:
            return [None]
        order = record(Argsort(self.axis), x._value)
        places = record(Argsort(self.axis), order._value)  # the inverse permutation
        return [ct[along(self.axis, places)]]


class Searchsorted(Primitive):
    """Positions (uint32) in ascending sequences before which values keep them ascending; with `right`,
    behind equal elements. The last axis of the first operand is the sequence; its other axes lead the
    values too."""

    right: bool

    def infer(self, x: Aval, values: Aval) -> Aval:
        lead = x.ndim - 1
        fits = 0 <= lead <= values.ndim and x.dtype is values.dtype
        if not fits or not agree_shapes(x.shape[:-1], values.shape[:lead]):
            raise ShapeError(f"[searchsorted] operands do not fit: {show((x, values))}.")
        return Aval(values.shape, dtypes.uint32)

    def evaluate(self, x: np.ndarray, values: np.ndarray) -> np.ndarray:
        out = np.empty(values.shape, np.uint32)
        side = "right" if self.right else "left"
        x, values = _single(x), _single(values)
        for index in np.ndindex(*x.shape[:-1]):
            out[index] = np.searchsorted(x[index], values[index], side)  # type: ignore[call-overload]
        return out

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None, None]

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        x, values = [with_batch(o, axis, size) for o, axis in zip(operands, axes, strict=True)]
        return [record(self, x._value, values._value)], [0]
