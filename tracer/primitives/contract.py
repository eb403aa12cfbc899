"""Contraction of two arrays: the one primitive behind matmul, tensordot, inner and the like."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ingot.tracer.array import array, record
from ingot.tracer.aval import Aval, show
from ingot.tracer.dims import Extent
from ingot.tracer.errors import ShapeError
from ingot.tracer.facts import agree
from ingot.tracer.primitive import Primitive
from ingot.tracer.primitives.elementwise import conjugate, is_literal, total

Handles = Sequence[array]
MaybeHandles = Sequence[array | None]
Axes = Sequence[int | None]
AxisPair = tuple[tuple[int, ...], tuple[int, ...]]


class DotGeneral(Primitive):
    """Sum of products over the `contract` axes, for each element of the `batch` axes.

    contract, batch: axes of the left and of the right operand, paired by position.
    The result has the batch axes, then the free axes of the left, then those of the right operand, in order.
    float16 and bfloat16 are multiplied and accumulated in float32 and rounded once.
    """

    contract: AxisPair
    batch: AxisPair = ((), ())

    def free(self, side: int, ndim: int) -> tuple[int, ...]:
        """Axes of operand `side` (0 left, 1 right) that are neither contracted nor batched."""
        bound = (*self.contract[side], *self.batch[side])
        return tuple(i for i in range(ndim) if i not in bound)

    def infer(self, *avals: Aval) -> Aval:
        left, right = avals
        if left.dtype is not right.dtype or left.dtype.kind == "b":
            raise ShapeError(f"[dot_general] expected two operands of one numeric dtype, got {show(avals)}.")
        for pair in (self.contract, self.batch):
            if len(pair[0]) != len(pair[1]):
                raise ShapeError(f"[dot_general] axes must be paired, got {pair}.")
            for a, b in zip(*pair, strict=True):
                if not (0 <= a < left.ndim and 0 <= b < right.ndim):
                    raise ShapeError(f"[dot_general] axes {pair} are out of range for {show(avals)}.")
                if not agree(left.shape[a], right.shape[b]):
                    raise ShapeError(f"[dot_general] extents of axes {a} and {b} differ: {show(avals)}.")
        for side, x in enumerate(avals):
            bound = (*self.contract[side], *self.batch[side])
            if len(set(bound)) != len(bound):
                raise ShapeError(f"[dot_general] axes {bound} of {x!r} are named twice.")
        shape = [left.shape[a] for a in self.batch[0]]
        shape += [left.shape[a] for a in self.free(0, left.ndim)]
        shape += [right.shape[a] for a in self.free(1, right.ndim)]
        return Aval(shape, left.dtype)

    def evaluate(self, *xs: np.ndarray) -> np.ndarray:
        left, right = xs
        free_left, free_right = self.free(0, left.ndim), self.free(1, right.ndim)
        shape = [left.shape[a] for a in self.batch[0]]
        shape += [left.shape[a] for a in free_left] + [right.shape[a] for a in free_right]
        a = left.transpose((*self.batch[0], *free_left, *self.contract[0]))
        b = right.transpose((*self.batch[1], *self.contract[1], *free_right))
        batch = a.shape[: len(self.batch[0])]
        k = math.prod(left.shape[i] for i in self.contract[0])
        a = a.reshape((*batch, math.prod(left.shape[i] for i in free_left), k))
        b = b.reshape((*batch, k, math.prod(right.shape[i] for i in free_right)))
        if left.dtype.char in "eE":
            return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(left.dtype).reshape(shape)
        return np.matmul(a, b).reshape(shape)

    # -- transforms ------------------------------------------------------------------------------------------

    def jvp(self, primals: Handles, tangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (x, y), (tx, ty) = primals, tangents
        return [
            total(
                [
                    None if tx is None else record(self, tx._value, y._value),
                    None if ty is None else record(self, x._value, ty._value),
                ]
            )
        ]

    def vjp(self, primals: Handles, cotangents: MaybeHandles, results: Handles) -> MaybeHandles:
        (ct,) = cotangents
        if ct is None or not ct.dtype.is_inexact:
            return [None, None]
        return [
            None if is_literal(x) else self._transposed(side, primals, ct) for side, x in enumerate(primals)
        ]

    def _transposed(self, side: int, primals: Handles, ct: array) -> array:
        """Cotangent of operand `side`: the cotangent contracted with the other operand over its free axes."""
        x, other = primals[side], conjugate(primals[1 - side])
        n_batch = len(self.batch[0])
        free_x, free_other = self.free(side, x.ndim), self.free(1 - side, other.ndim)
        start = n_batch + (0 if side else len(free_x))  # where the free axes of `other` stand in ct
        over = tuple(range(start, start + len(free_other)))
        batch = tuple(range(n_batch))
        # ct first: result axes are batch, free axes of x, then the contracted axes in the order of `other`
        dot = DotGeneral((over, free_other), (batch, self.batch[1 - side]))
        partial = record(dot, ct._value, other._value)
        mine = dict(zip(self.contract[1 - side], self.contract[side], strict=True))
        layout = (*self.batch[side], *free_x, *(mine[a] for a in sorted(self.contract[1 - side])))
        order = tuple(layout.index(i) for i in range(x.ndim))
        return partial if order == tuple(range(x.ndim)) else partial.transpose(order)

    def vmap(self, operands: Handles, axes: Axes, size: Extent) -> tuple[Handles, Axes]:
        moved = DotGeneral(
            (_after(self.contract[0], axes[0]), _after(self.contract[1], axes[1])),
            (_after(self.batch[0], axes[0]), _after(self.batch[1], axes[1])),
        )
        values = [x._value for x in operands]
        if axes[0] is not None and axes[1] is not None:
            batch = ((axes[0], *moved.batch[0]), (axes[1], *moved.batch[1]))
            return [record(DotGeneral(moved.contract, batch), *values)], [0]
        # only one side has the batch axis: it becomes one of its free axes
        side = 0 if axes[0] is not None else 1
        position = len(self.batch[0])
        if side:
            position += len(self.free(0, operands[0].ndim))
        position += moved.free(side, operands[side].ndim).index(axes[side])  # type: ignore[arg-type]
        return [record(moved, *values)], [position]


def _after(axes: tuple[int, ...], inserted: int | None) -> tuple[int, ...]:
    """`axes` renumbered for an operand with one more axis at `inserted`."""
    return axes if inserted is None else tuple(a + (a >= inserted) for a in axes)
