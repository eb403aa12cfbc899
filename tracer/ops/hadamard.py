"""The Walsh-Hadamard transform."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ingot.tracer.array import array, leaf, wrap
from ingot.tracer.ops import math as _math
from ingot.tracer.ops import shape
from ingot.tracer.ops.coerce import at_least_float, require_array
from ingot.tracer.ops.contract import matmul

# Columns of Hadamard matrices from N. Sloane's library, as MLX has them; a bit that is set stands for 1.
_COLUMNS = {
    12: "bff 2aa ec3 896 fb0 a25 cec 989 c3b 962 f0e a58",
    20: "83cc9 45c74 26e2a 17705 0f992 842c6 42163 212b1 10b58 085ac ca610 e5108 72884 39442 9c821 b65f0 "
    "5f2e8 0abb64 d1fa2 6cfc1",
    28: "80796b3 403eb59 211d5ec 118eab6 09c751b 05e1acd 02f2d66 c30262d e081356 70409ab 38224d5 1c1326a "
    "0e09935 8604cda a4ce061 5365070 a9b0838 54d841c 2a6c20e 9534107 4b980c3 9948f40 4ca47a0 2752390 92ab188 "
    "c857884 652bc02 3295e01",
}


def _matrix(m: int) -> np.ndarray:
    """Columns as rows."""
    bits = [[int(column, 16) >> i & 1 for i in range(m - 1, -1, -1)] for column in _COLUMNS[m].split()]
    return np.where(np.array(bits, bool), 1, -1)


def hadamard_transform(a: array, scale: float | None = None, stream: Any = None) -> array:
    """`scale` times a Hadamard matrix times the vectors in the last axis, of m 2^k elements with m in 1,
    12, 20, 28.

    scale: by default one over the square root of the extent, which makes the matrix orthonormal.
    """
    x = wrap(at_least_float(require_array("hadamard_transform", a)._value))
    n = x.shape[-1] if x.ndim else 1
    if not isinstance(n, int):
        raise ValueError("[hadamard] the extent of the last axis must be known.")
    m = next((m for m in (1, 12, 20, 28) if n % m == 0 and (n // m).bit_count() == 1), None)
    if m is None:
        raise ValueError("[hadamard] Only supports n = m*2^k where m in (1, 12, 20, 28).")
    lead, out, step = x.shape[:-1], x, 1
    while step < n // m:
        pairs = out.reshape((*lead, n // (2 * step), 2, step))
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        out = shape.stack([_math.add(first, second), _math.subtract(first, second)], axis=-2)
        step *= 2
    if m > 1:
        rows = shape.swapaxes(out.reshape((*lead, m, n // m)), -1, -2)
        matrix = wrap(leaf(_matrix(m).astype(np.float32))).astype(x.dtype)
        out = shape.swapaxes(matmul(rows, matrix), -1, -2)
    factor = 1 / math.sqrt(n) if scale is None else scale
    return _math.multiply(out.reshape(x.shape), factor).astype(x.dtype)
