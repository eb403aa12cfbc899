"""Samples of sorting, searching and running totals, against Python's lists."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from primitive_samples import BF16, F16, F32, distinct, integers, sample, uniform

from ingot.tracer.primitives import cumulative as c
from ingot.tracer.primitives import sort as p


def rows(fn: Callable[[list[Any]], list[Any]], axis: int) -> Callable[[np.ndarray], np.ndarray]:
    """`fn` of the list of elements along `axis`, for every place of the other axes."""

    def oracle(x: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(x.astype(np.float64) if x.dtype.kind in "fV" else x, axis, -1)
        out = np.array([fn(row) for row in moved.reshape(-1, x.shape[axis]).tolist()])
        return np.moveaxis(out.reshape(moved.shape), -1, axis)

    return oracle


def key(x: Any) -> tuple[bool, Any]:
    return (x != x, x)


def positions(row: list[Any]) -> list[int]:
    return sorted(range(len(row)), key=lambda i: key(row[i]))


_special = np.array([3, np.nan, 1, -np.inf, 2, np.nan, 1, np.inf], F32)
for _x in (distinct((3, 4)), distinct((3, 4), F32), distinct((3, 4), F16), distinct((3, 4), BF16),
           integers(-5, 5, (3, 4)), integers(0, 9, (4, 3), np.uint8),
           np.array([[True, False, True]])):  # fmt: skip
    for _axis in range(2):
        sample(p.Sort(_axis), [_x], rows(lambda row: sorted(row), _axis))
        sample(p.Argsort(_axis), [_x], rows(positions, _axis))
sample(p.Argsort(0), [_special], positions(_special.tolist()), name="nan")
sample(p.Sort(0), [_special], [-np.inf, 1, 1, 2, 3, np.inf, np.nan, np.nan], name="nan")
sample(p.Sort(0), [np.array([2 + 1j, 1, 1 - 1j], np.complex64)], [1 - 1j, 1, 2 + 1j], name="complex")
sample(p.Sort(1), [np.zeros((2, 0))], np.zeros((2, 0)), name="empty")

_sorted = np.array([-2.0, 0.5, 0.5, 3.0])
for _right, _find in ((False, bisect.bisect_left), (True, bisect.bisect_right)):
    for _dtype in (np.float64, F32, BF16, np.int32):
        sample(
            p.Searchsorted(_right),
            [_sorted.astype(_dtype), np.array([[-3, 0.5, 1], [3, 9, -2]]).astype(_dtype)],
            lambda x, v, f=_find: [[f(x.astype(float).tolist(), e) for e in row] for row in v.astype(float)],
            symbolic=None,
        )
    sample(
        p.Searchsorted(_right),
        [np.stack([_sorted, _sorted + 1]), np.array([0.5, 1.5])],
        lambda x, v, f=_find: [f(row.tolist(), e) for row, e in zip(x, v, strict=True)],
        name="rows",
    )


def running(fn: Callable[[Any, Any], Any], reverse: bool) -> Callable[[list[Any]], list[Any]]:
    def fold(row: list[Any]) -> list[Any]:
        row = row[::-1] if reverse else row
        out = row[:1]
        for x in row[1:]:
            out.append(fn(out[-1], x))
        return out[::-1] if reverse else out

    return fold


_FOLDS: dict[type[c.Cumulative], Callable[[Any, Any], Any]] = {
    c.CumSum: lambda a, b: a + b, c.CumProd: lambda a, b: a * b, c.CumMax: max, c.CumMin: min,
    c.LogCumsumexp: lambda a, b: max(a, b) + math.log1p(math.exp(-abs(a - b))),
}  # fmt: skip
for _cls, _fn in _FOLDS.items():
    for _reverse in (False, True):
        for _axis in range(2):
            _x = distinct((3, 5)) / 8
            sample(
                _cls(_axis, _reverse),
                [_x],
                rows(running(_fn, _reverse), _axis),
                tolerance=1e-12,
                symbolic=None,
            )
    for _dtype in (F32, F16, BF16):
        sample(_cls(1, False), [uniform(0.5, 1.5, (3, 4), _dtype)], rows(running(_fn, False), 1))
    if _cls is not c.LogCumsumexp:
        sample(_cls(0, False), [integers(-4, 5, (5, 3))], rows(running(_fn, False), 0))
    sample(_cls(1, True), [np.zeros((2, 0))], np.zeros((2, 0)), symbolic=None, name="empty")
    sample(_cls(0, False), [np.array([2.0])], [2], symbolic=None, name="one")
sample(c.CumSum(0, False), [np.array([100, 100], np.int8)], [100, -56], name="wraps")
sample(c.CumProd(0, False), [np.array([2.0, 0, 3, 0, 5])], [2, 0, 0, 0, 0], symbolic=None, name="zeros")
sample(c.CumProd(0, False), [np.array([True, False, True])], [True, False, False])
sample(c.CumMax(0, False), [np.array([1, np.nan, 3], F32)], [1, np.nan, np.nan], name="nan")
sample(c.CumSum(0, True), [np.array([1 + 1j, 2], np.complex64)], [3 + 1j, 2], name="complex")
sample(c.LogCumsumexp(0, False), [np.array([-np.inf, 1000, 1000], F32)], [-np.inf, 1000, 1000 + math.log(2)],
       name="special")  # fmt: skip
