"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import array, record
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.errors import AxisError, ShapeError
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.elementwise import ANY, REAL, choose, conjugate, constant, show_shape, spread_to
from ingot.tracer.primitives.shape import Concatenate, axis_slice

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]
Axes = Sequence[int | None]


class Reduce(Primitive, abstract=True):
    """Reduction of `x` over `axes` (sorted, from the front); with `keepdims` they stay with extent 1."""

    axes: tuple[int, ...]
    keepdims: bool

    kinds: ClassVar[str] = ANY
    ufunc: ClassVar[Any] = None

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        if x.dtype.kind not in self.kinds:
            raise ValueError(f"[{self.name}] Not supported for {x.dtype.name}.")
        _check_axes(self.name, self.axes, x)
        return Aval(self.reduced(x.shape, self.keepdims), x.dtype)

    def reduced(self, shape: Sequence[Extent], keepdims: bool) -> tuple[Extent, ...]:
        """Shape of the result for an operand of `shape`."""
        if keepdims:
            return tuple(1 if i in self.axes else extent for i, extent in enumerate(shape))
        return tuple(extent for i, extent in enumerate(shape) if i not in self.axes)

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        (x,) = xs
        if x.dtype.char in "eE":  # accumulated in float32, rounded once
            return self.ufunc.reduce(x.astype(np.float32), axis=self.axes, keepdims=self.keepdims).astype(
                x.dtype
            )
        return self.ufunc.reduce(x, axis=self.axes, dtype=x.dtype, keepdims=self.keepdims)

    def kept(self, y: array, x: array) -> array:
        """The result `y` (or its cotangent) with the reduced axes as extent 1, to broadcast against `x`."""
        return y if self.keepdims or not self.axes else y.reshape(self.reduced(x.shape, True))

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        (x,), (axis,) = operands, axes
        assert axis is not None
        moved = tuple(a + (a >= axis) for a in self.axes)
        out = axis if self.keepdims else axis - sum(a < axis for a in moved)
        return [record(type(self)(moved, self.keepdims), x._value)], [out]


def _check_axes(name: str, axes: Sequence[int], x: Aval) -> None:
    if any(not 0 <= a < x.ndim for a in axes):
        raise AxisError(f"[{name}] Invalid axes {tuple(axes)} for array with {x.ndim} dimensions.")
    if list(axes) != sorted(set(axes)):
        raise ShapeError(f"[{name}] axes must be sorted and different, got {tuple(axes)}.")


class ReduceSum(Reduce):
    """Sum; float16 and bfloat16 are accumulated in float32."""

    kinds = "uifc"
    ufunc = np.add

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,) = tangents
        return [None if t is None else record(self, t._value)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,), (x,) = cotangents, primals
        return [None if ct is None else spread_to(self.kept(ct, x), x.shape)]


class ReduceProd(Reduce):
    """Product; float16 and bfloat16 are accumulated in float32."""

    kinds = "uifc"
    ufunc = np.multiply

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,), (x,) = tangents, primals
        if t is None:
            return [None]
        return [record(ReduceSum(self.axes, self.keepdims), (t * _others(x, self.axes))._value)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,), (x,) = cotangents, primals
        return [None if ct is None else self.kept(ct, x) * conjugate(_others(x, self.axes))]


def _others(x: array, axes: tuple[int, ...]) -> array:
    """For every element the product of the others it is reduced with."""
    if all(isinstance(x.shape[a], int) for a in axes):
        return _others_by_scan(x, axes)
    # The extent is not known, so the scan below has no length. Exact, but for x = 0 only to first order.
    zero = x == 0
    one = constant(1, x.dtype)
    safe = choose(zero, one, x)
    product = record(ReduceProd(axes, True), safe._value)
    zeros = record(ReduceSum(axes, True), zero.astype(dtypes.int32)._value)
    nothing = constant(0, x.dtype)
    alone = choose(zero, product, nothing)
    return choose(zeros == 0, product / safe, choose(zeros == 1, alone, nothing))


def _others_by_scan(x: array, axes: tuple[int, ...]) -> array:
    """Products of all elements before and of all after, by doubling: right at zeros, to any order."""
    front = [i for i in range(x.ndim) if i not in axes]
    order = (*front, *axes)
    moved = x.transpose(order)
    rest = moved.shape[: len(front)]
    n = 1
    for a in axes:
        n *= int(x.shape[a])
    flat = moved.reshape((*rest, n))
    before, after = _shifted(flat, 1, n, rest, False), _shifted(flat, 1, n, rest, True)
    step = 1
    while step < n:
        before = before * _shifted(before, step, n, rest, False)
        after = after * _shifted(after, step, n, rest, True)
        step *= 2
    others = (before * after).reshape(moved.shape)
    inverse = tuple(order.index(i) for i in range(x.ndim))
    return others.transpose(inverse)


def _shifted(x: array, by: int, n: int, rest: tuple[Extent, ...], left: bool) -> array:
    """The last axis (of extent `n`) moved by `by` places, with ones coming in."""
    by = min(by, n)
    ones = constant(1, x.dtype).broadcast_to((*rest, by))
    axis = x.ndim - 1
    start, stop = (by, n) if left else (0, n - by)
    rest_of_x = record(axis_slice(x.shape, axis, start, stop), x._value)
    parts = (rest_of_x, ones) if left else (ones, rest_of_x)
    return record(Concatenate(axis), *[part._value for part in parts])


class Extremum(Reduce, abstract=True):
    """Largest or smallest element; equal ones share the derivative."""

    kinds = REAL
    limit: ClassVar[int] = 0  # 0: the identity is the lower limit of the type, 1: the upper

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        (x,) = xs
        if x.size:
            return self.ufunc.reduce(x, axis=self.axes, keepdims=self.keepdims)
        return np.full(self.reduced(x.shape, self.keepdims), identity(x.dtype, self.limit), x.dtype)

    def _share(self, x: array, y: array) -> array:
        """For every element its part in the derivative: they add up to 1 over `axes`."""
        mask = (x == self.kept(y, x)).astype(x.dtype)
        return mask / record(ReduceSum(self.axes, True), mask._value)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,), (x,), (y,) = tangents, primals, results
        if t is None or not y.dtype.is_inexact:
            return [None]
        return [record(ReduceSum(self.axes, self.keepdims), (t * self._share(x, y))._value)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,), (x,), (y,) = cotangents, primals, results
        if ct is None or not y.dtype.is_inexact:
            return [None]
        return [self.kept(ct, x) * self._share(x, y)]


def identity(dtype: np.dtype, limit: int) -> Any:
    """The element that changes no maximum (`limit` 0) or minimum (`limit` 1) of `dtype`."""
    if dtype.kind == "b":
        return bool(limit)
    if dtype.kind in "ui":
        info = np.iinfo(dtype)
        return info.max if limit else info.min
    return np.inf if limit else -np.inf


class ReduceMax(Extremum):
    """Largest element; NaN when there is one. Nothing at all gives the lower limit of the type."""

    ufunc = np.maximum


class ReduceMin(Extremum):
    """Smallest element; NaN when there is one. Nothing at all gives the upper limit of the type."""

    ufunc = np.minimum
    limit = 1


class ReduceLogical(Reduce, abstract=True):
    """Reduction of bools."""

    kinds = "b"

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]


class ReduceAll(ReduceLogical):
    """True when all are true."""

    ufunc = np.logical_and


class ReduceAny(ReduceLogical):
    """True when one is true."""

    ufunc = np.logical_or


class ArgReduce(Primitive, abstract=True):
    """Position (uint32) of the first extremum along `axis`; a NaN counts as the extremum."""

    axis: int
    keepdims: bool

    find: ClassVar[Any] = None

    def infer(self, *avals: Aval) -> Aval:
        (x,) = avals
        if x.dtype.is_complex:
            raise ValueError(f"[{self.name}] Not supported for {x.dtype.name}.")
        _check_axes(self.name, (self.axis,), x)
        if isinstance(x.shape[self.axis], int) and x.shape[self.axis] == 0:
            raise ShapeError(f"[{self.name}] Cannot reduce axis {self.axis} of shape {show_shape(x.shape)}.")
        kept = (1,) if self.keepdims else ()
        return Aval((*x.shape[: self.axis], *kept, *x.shape[self.axis + 1 :]), dtypes.uint32)

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        x = xs[0].astype(np.float32) if xs[0].dtype.char in "eE" else xs[0]
        return self.find(x, axis=self.axis, keepdims=self.keepdims).astype(np.uint32)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        return [None]

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        (x,), (axis,) = operands, axes
        assert axis is not None
        moved = self.axis + (self.axis >= axis)
        out = axis if self.keepdims else axis - (moved < axis)
        return [record(type(self)(moved, self.keepdims), x._value)], [out]


class Argmax(ArgReduce):
    """Position of the first largest element along `axis`."""

    find = staticmethod(np.argmax)


class Argmin(ArgReduce):
    """Position of the first smallest element along `axis`."""

    find = staticmethod(np.argmin)
