"""Samples of gather, scatter and windows at data positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from primitive_samples import BF16, F16, F32, distinct, integers, sample, uniform

from ingot.tracer.dims import Dim
from ingot.tracer.primitives import index as ix

B = Dim("B")
I32 = np.int32

_row = np.array([2, 0, -1, 2], I32)
_matrix = np.array([[1, -4], [0, 2]], I32)

sample(ix.Gather((0,), 0), [uniform(-1, 1, (3, 4)), _row], lambda x, i: x[i],
       symbolic=(ix.Gather((0,), 0), [(3, B), (B,)], {"B": 4}))  # fmt: skip
sample(ix.Gather((1,), 1), [uniform(-1, 1, (2, 4, 3)), _matrix], lambda x, i: x[:, i])
sample(ix.Gather((1,), 0), [uniform(-1, 1, (2, 4, 3), F32), _matrix], lambda x, i: np.moveaxis(x[:, i], 0, 2))
sample(ix.Gather((0, 2), 1),
       [uniform(-1, 1, (3, 5, 4)), np.array([[1], [2]], I32), np.array([3, 0, -1], I32)],
       lambda x, i, j: np.moveaxis(x[i, :, j], 2, 0), name="two")  # fmt: skip
sample(ix.Gather((0,), 0), [uniform(-1, 1, (3, 2)), np.int64(-2)], lambda x, i: x[1], name="scalar index")
sample(ix.Gather((1, 0), 0), [integers(0, 9, (3, 4), np.uint8), np.array([3, 1], np.uint8), np.array([0, 2])],
       lambda x, j, i: x[i, j], name="swapped axes")  # fmt: skip
sample(
    ix.Gather((0,), 0), [uniform(-1, 1, (3, 4), BF16), np.zeros((0,), I32)], np.zeros((0, 4)), name="empty"
)


def _looped(combine: Callable[[float, float], float], axis: int = 0) -> Callable[..., np.ndarray]:
    """Scatter along one axis, position equal to the axis, one update after the other."""

    def scatter(x: np.ndarray, updates: np.ndarray, index: np.ndarray) -> np.ndarray:
        out = np.moveaxis(x.copy(), axis, 0)
        rows = np.moveaxis(updates, range(axis, axis + index.ndim), range(index.ndim))
        for at in np.ndindex(index.shape):
            out[index[at]] = combine(out[index[at]], rows[at])
        return np.moveaxis(out, 0, axis)

    return scatter


MODES = {
    "set": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "min": np.minimum,
    "max": np.maximum,
}
for mode, combine in MODES.items():
    sample(ix.Scatter(mode, (0,), 0), [distinct((3, 2)), distinct((4, 2)) + 0.125, _row],
           _looped(combine), name=mode,
           symbolic=(ix.Scatter(mode, (0,), 0), [(3, B), (4, B), (4,)], {"B": 2}))  # fmt: skip
    sample(ix.Scatter(mode, (1,), 1), [distinct((2, 4), F32), distinct((2, 2, 2), F32), _matrix],
           _looped(combine, 1), name=f"{mode}, matrix")  # fmt: skip
    sample(ix.Scatter(mode, (0,), 0), [integers(1, 9, (3,), np.int64), integers(1, 9, (4,), np.int64), _row],
           _looped(combine), name=f"{mode}, integers")  # fmt: skip


def _pairs(x: np.ndarray, updates: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    out = x.copy()
    np.add.at(out, (slice(None), i, j), updates)
    return out


sample(ix.Scatter("add", (1, 2), 1),
       [uniform(-1, 1, (2, 3, 4)), uniform(-1, 1, (2, 3)), np.array([0, 2, 0]), np.array([1, 3, 1])],
       _pairs, name="two")  # fmt: skip
sample(ix.Scatter("mul", (0,), 0),
       [np.array([2.0, 3.0]), np.array([0.0, 4.0, 0.0, 5.0, 3.0]), np.array([0, 0, 1, 1, 1])],
       np.zeros(2), differentiable=False, name="zeros")  # fmt: skip
sample(ix.Scatter("add", (0,), 0), [np.zeros(2, F16), np.full(1000, 0.1, F16), np.zeros(1000, I32)],
       np.array([1000 * np.float32(F16(0.1)), 0]), tolerance=1e-3, name="sums of half precision")  # fmt: skip
for mode, want in (("add", [1, 1, 0]), ("mul", [0, 1, 0]), ("max", [1, 1, 0]), ("min", [0, 1, 0])):
    sample(ix.Scatter(mode, (0,), 0),
           [np.array([True, True, False]), np.array([False, True]), np.array([0, 1])],
           np.array(want, bool), name=f"{mode}, bool")  # fmt: skip
sample(ix.Scatter("set", (0,), 0), [uniform(-1, 1, (2,), F32), np.zeros((0,), F32), np.zeros((0,), I32)],
       lambda x, u, i: x, name="empty")  # fmt: skip

_starts = np.array([1, 1], I32)
sample(ix.DynamicSlice((0, 2), (2, 3, 2)), [uniform(-1, 1, (4, 3, 4)), np.array([2, 1], I32)],
       lambda x, i: x[2:4, :, 1:3] if i[0] == 2 else x[1:3, :, 2:4],
       symbolic=(ix.DynamicSlice((0, 2), (2, B, 2)), [(4, B, 4), (2,)], {"B": 3}))  # fmt: skip
sample(
    ix.DynamicSlice((1,), (2, 2)),
    [uniform(-1, 1, (3, 4), F32), np.array([2])],
    lambda x, i: x[:2, 2:],
    symbolic=(ix.DynamicSlice((1,), (2, 2)), [(3, Dim("B", min=2)), (1,)], {"B": 4}),
)


def _window_set(x: np.ndarray, update: np.ndarray, starts: np.ndarray) -> np.ndarray:
    out = x.copy()
    out[starts[0] : starts[0] + update.shape[0], : update.shape[1]] = update
    return out


sample(ix.DynamicUpdate((0,)), [uniform(-1, 1, (4, 3)), uniform(-1, 1, (2, 3)), np.array([1], I32)],
       _window_set, symbolic=(ix.DynamicUpdate((0,)), [(4, B), (2, B), (1,)], {"B": 3}))  # fmt: skip
sample(ix.DynamicUpdate((0,)),
       [uniform(-1, 1, (4, 3), F32), uniform(-1, 1, (2, 1), F32), np.array([2], np.uint8)],
       _window_set, name="narrow",
       symbolic=(ix.DynamicUpdate((0,)), [(4, Dim("B", min=1)), (2, 1), (1,)], {"B": 3}))  # fmt: skip
