"""Running totals along an axis, from its end when `reverse`."""

# mypy: disable-error-code="override"
# (rules name the operands that their primitive has)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import array, record
from ingot.tracer.aval import Aval
from ingot.tracer.dims import Extent
from ingot.tracer.errors import ShapeError
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.elementwise import ANY, FLOAT, choose, conjugate, constant
from ingot.tracer.primitives.shape import Concatenate, Iota, axis_slice, to_front, zeros
from ingot.tracer.primitives.sort import along

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]
Axes = Sequence[int | None]


class Cumulative(Primitive, abstract=True):
    """Element i of the result folds the elements up to and with i. Half precision is folded in float32."""

    axis: int
    reverse: bool

    kinds: ClassVar[str] = ANY
    ufunc: ClassVar[Any] = None

    def infer(self, x: Aval) -> Aval:
        if x.dtype.kind not in self.kinds:
            raise ValueError(f"[{self.name}] Not supported for {x.dtype.name}.")
        if not 0 <= self.axis < x.ndim:
            raise ShapeError(f"[{self.name}] no axis {self.axis} in {x!r}.")
        return x

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        wide = x.astype(np.float32) if x.dtype.char in "eE" else x
        wide = np.flip(wide, self.axis) if self.reverse else wide
        out = self.ufunc.accumulate(wide, axis=self.axis, dtype=wide.dtype)
        return (np.flip(out, self.axis) if self.reverse else out).astype(x.dtype)

    def opposite(self, x: array) -> array:
        """`x` folded from the other end."""
        return record(type(self)(self.axis, not self.reverse), x._value)

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        assert axes[0] is not None
        return [record(type(self)(self.axis + 1, self.reverse), to_front(operands[0], axes[0])._value)], [0]


def shifted(x: array, axis: int, by: Extent, fill: float, backward: bool) -> array:
    """`x` moved `by` places along `axis`, towards its end or (`backward`) its front; `fill` comes in."""
    n = x.shape[axis]
    shape = (*x.shape[:axis], by, *x.shape[axis + 1 :])
    blank = constant(fill, x.dtype).broadcast_to(shape)
    start, stop = (by, n) if backward else (0, n - by)
    rest = record(axis_slice(x.shape, axis, start, stop), x._value)
    parts = (rest, blank) if backward else (blank, rest)
    return record(Concatenate(axis), *[p._value for p in parts])


def recurrence(name: str, a: array, b: array, axis: int, backward: bool) -> array:
    """`r[i] = b[i] + a[i] r[i - 1]` along `axis` (`backward`: `r[i + 1]`), by doubling: right for any
    factors.

    G. Blelloch, "Prefix sums and their applications" (1990), section 1.4.
    """
    n = a.shape[axis]
    if not isinstance(n, int):
        raise ValueError(f"[{name}] derivatives need a known extent, got {n} for axis {axis}.")
    step = 1
    while step < n:
        b = b + a * shifted(b, axis, step, 0, backward)
        a = a * shifted(a, axis, step, 1, backward)
        step *= 2
    return b


class CumSum(Cumulative):
    """Running sum."""

    kinds = "uifc"
    ufunc = np.add

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (t,) = tangents
        return [None if t is None else record(self, t._value)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,) = cotangents
        return [None if ct is None else self.opposite(ct)]


class CumProd(Cumulative):
    """Running product; of bools the running logical and."""

    ufunc = np.multiply

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        if x.dtype.kind == "b":
            return CumMin(self.axis, self.reverse).evaluate(x)
        return super().evaluate(x)

    def _before(self, y: array) -> array:
        return shifted(y, self.axis, min(1, _known(y, self.axis)), 1, self.reverse)

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (t,), (y,) = primals, tangents, results
        if t is None or not x.dtype.is_inexact:
            return [None]
        return [recurrence(self.name, x, self._before(y) * t, self.axis, self.reverse)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (ct,), (y,) = primals, cotangents, results
        if ct is None or not x.dtype.is_inexact:
            return [None]
        one = min(1, _known(x, self.axis))
        after = shifted(conjugate(x), self.axis, one, 1, not self.reverse)
        return [conjugate(self._before(y)) * recurrence(self.name, after, ct, self.axis, not self.reverse)]


def _known(x: array, axis: int) -> int:
    n = x.shape[axis]
    return n if isinstance(n, int) else 1


class CumExtremum(Cumulative, abstract=True):
    """Running extremum; the derivative goes to the last element that set it."""

    def _sources(self, x: array, y: array) -> array:
        """The position of the element that each result is."""
        axis, n = self.axis, x.shape[self.axis]
        shape = tuple(n if i == axis else 1 for i in range(x.ndim))
        place = record(Iota(shape, axis, dtypes.int32))
        last = place * 0 + n - 1
        if self.reverse:
            place = last - place
        nothing = zeros(x.shape, dtypes.int32)
        latest = choose(x == y, place.broadcast_to(x.shape), nothing)
        found = record(CumMax(axis, self.reverse), latest._value)
        return last - found if self.reverse else found

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (t,), (y,) = primals, tangents, results
        if t is None or not x.dtype.is_inexact:
            return [None]
        return [t[along(self.axis, self._sources(x, y))]]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (ct,), (y,) = primals, cotangents, results
        if ct is None or not x.dtype.is_inexact:
            return [None]
        return [zeros(x.shape, ct.dtype).at[along(self.axis, self._sources(x, y))].add(ct)]


class CumMax(CumExtremum):
    """Running maximum; NaN from the first one on."""

    ufunc = np.maximum


class CumMin(CumExtremum):
    """Running minimum; NaN from the first one on."""

    ufunc = np.minimum


class LogCumsumexp(Cumulative):
    """Logarithm of the running sum of exponentials, without overflow."""

    kinds = FLOAT
    ufunc = np.logaddexp

    def _weights(self, x: array, y: array) -> tuple[array, array]:
        """Parts of each result that are the element itself and the result before."""
        nothing = y == constant(-np.inf, y.dtype)
        low, safe = constant(-np.inf, y.dtype), choose(nothing, constant(0, y.dtype), y)
        before = shifted(y, self.axis, min(1, _known(y, self.axis)), -np.inf, self.reverse)
        return choose(nothing, low, x - safe).exp(), choose(nothing, low, before - safe).exp()

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (t,), (y,) = primals, tangents, results
        if t is None:
            return [None]
        new, old = self._weights(x, y)
        return [recurrence(self.name, old, new * t, self.axis, self.reverse)]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x,), (ct,), (y,) = primals, cotangents, results
        if ct is None:
            return [None]
        new, old = self._weights(x, y)
        after = shifted(old, self.axis, min(1, _known(x, self.axis)), 0, not self.reverse)
        return [new * recurrence(self.name, after, ct, self.axis, not self.reverse)]
