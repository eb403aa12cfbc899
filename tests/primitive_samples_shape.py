"""Samples of the primitives that move, copy or make elements."""

from __future__ import annotations

import numpy as np
from primitive_samples import BF16, F32, distinct, integers, sample, uniform

from ingot.tracer import dtypes
from ingot.tracer.dims import Dim
from ingot.tracer.primitives import shape as s

B, C = Dim("B"), Dim("C", min=1)

sample(s.BroadcastTo((2, 3, 4)), [uniform(-1, 1, (3, 1))], lambda x: np.ones((2, 3, 4)) * x,
       symbolic=(s.BroadcastTo((2, B, C)), [(B, 1)], {"B": 3, "C": 4}))  # fmt: skip
sample(s.BroadcastTo((2, 3)), [np.float64(1.5)], np.full((2, 3), 1.5), name="scalar")
sample(s.BroadcastTo(()), [np.float32(1.5)], np.float32(1.5), name="nothing")
sample(s.BroadcastTo((0, 3)), [integers(0, 9, (1, 3))], np.zeros((0, 3)), symbolic=None, name="empty")

sample(s.Reshape((4, 3)), [uniform(-1, 1, (2, 6))], lambda x: x.ravel().reshape(4, 3),
       symbolic=(s.Reshape((2 * B, 3)), [(B, 6)], {"B": 2}))  # fmt: skip
sample(s.Reshape((1,)), [np.float32(2)], [2.0], name="scalar")
sample(s.Reshape((0, 5)), [np.zeros((3, 0), F32)], np.zeros((0, 5)), name="empty")
sample(s.Reshape((6,)), [uniform(-1, 1, (2, 3), BF16)], lambda x: x.flatten(),
       symbolic=(s.Reshape((B * C,)), [(B, C)], {"B": 2, "C": 3}))  # fmt: skip

sample(s.Transpose((2, 0, 1)), [uniform(-1, 1, (2, 3, 4))], lambda x: np.einsum("abc->cab", x))
sample(s.Transpose(()), [np.float32(2)], np.float32(2), name="scalar")

sample(s.Slice((1, 0), (4, 5), (1, 1)), [uniform(-1, 1, (5, 6))], lambda x: x[1:4, 0:5],
       symbolic=(s.Slice((1, 0), (B - 1, 5), (1, 1)), [(B, 6)], {"B": 5}))  # fmt: skip
sample(s.Slice((0, 5), (5, 0), (2, -3)), [uniform(-1, 1, (5, 6))], lambda x: x[::2, 5:0:-3],
       symbolic=(s.Slice((0, 5), (B, 0), (2, -3)), [(B, 6)], {"B": 5}))  # fmt: skip
sample(s.Slice((4,), (-1,), (-2,)), [uniform(-1, 1, (5,))], lambda x: x[::-1][::2], name="to the start",
       symbolic=(s.Slice((B - 1,), (-1,), (-2,)), [(B,)], {"B": 5}))  # fmt: skip
sample(
    s.Slice((2, 3), (2, 1), (1, 1)), [integers(0, 9, (4, 4))], np.zeros((0, 0)), symbolic=None, name="empty"
)
sample(s.Slice((-1,), (-1,), (-1,)), [np.zeros((0,), F32)], np.zeros((0,)), name="empty, backwards")


def _updated(x, update, key):
    out = x.copy()
    out[key] = update
    return out


_rows = (slice(1, 4), slice(0, 5, 2))
sample(s.SliceUpdate((1, 0), (1, 2)), [uniform(-1, 1, (5, 6)), uniform(-1, 1, (3, 3))],
       lambda x, u: _updated(x, u, _rows),
       symbolic=(s.SliceUpdate((1, 0), (1, 2)), [(Dim("B", min=4), 6), (3, 3)], {"B": 5}))  # fmt: skip
_back = (slice(4, None, -2),)
sample(s.SliceUpdate((4,), (-2,)), [uniform(-1, 1, (5,)), uniform(-1, 1, (3,))],
       lambda x, u: _updated(x, u, _back), symbolic=None, name="backwards")  # fmt: skip
sample(s.SliceUpdate((3, 0), (1, 1)), [integers(0, 9, (3, 2)), integers(0, 9, (0, 2))],
       lambda x, u: x, symbolic=None, name="empty")  # fmt: skip

sample(s.Concatenate(1), [uniform(-1, 1, (2, 3)), uniform(-1, 1, (2, 1)), uniform(-1, 1, (2, 4))],
       lambda x, y, z: np.hstack([x, y, z]))  # fmt: skip
sample(s.Concatenate(0), [integers(0, 9, (0, 3)), integers(0, 9, (2, 3))], lambda x, y: y)
sample(s.Concatenate(0), [uniform(-1, 1, (2,), BF16)] * 2, lambda x, y: np.append(x, y))

sample(s.Pad((1, 0), (2, 3)), [uniform(-1, 1, (2, 4)), np.float64(0.5)],
       lambda x, v: np.pad(x, ((1, 2), (0, 3)), constant_values=v),
       symbolic=(s.Pad((1, 0), (2, B)), [(2, B + 1), ()], {"B": 3}))  # fmt: skip
sample(s.Pad((0,), (0,)), [integers(0, 9, (3,)), np.int32(7)], lambda x, v: x)
sample(s.Pad((), ()), [np.float32(3), np.float32(7)], np.float32(3), name="scalar")

sample(s.Reverse((0, 2)), [uniform(-1, 1, (2, 3, 4))], lambda x: x[::-1, :, ::-1])
sample(s.Reverse((1,)), [distinct((2, 3), F32)], lambda x: x[:, ::-1])

sample(s.Iota((2, 3), 1, dtypes.int32), [], [[0, 1, 2], [0, 1, 2]],
       symbolic=(s.Iota((2, B), 1, dtypes.int32), [], {"B": 3}))  # fmt: skip
sample(s.Iota((3, 2), 0, dtypes.float64), [], [[0, 0], [1, 1], [2, 2]])
sample(s.Iota((300,), 0, dtypes.uint8), [], np.arange(300) % 256, name="wraps")
sample(s.Iota((4,), 0, dtypes.bfloat16), [], [0, 1, 2, 3])

sample(
    s.DimValue(7, dtypes.int32), [], np.int32(7), symbolic=(s.DimValue(B * 2 + 1, dtypes.int32), [], {"B": 3})
)
sample(
    s.DimValue(3, dtypes.float64), [], np.float64(3), symbolic=(s.DimValue(B, dtypes.float64), [], {"B": 3})
)

sample(s.OptimizationBarrier(), [uniform(-1, 1, (2, 3)), integers(0, 9, (4,)), np.float64(2)],
       lambda x, y, z: (x, y, z))  # fmt: skip
