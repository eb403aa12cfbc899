"""The 8-bit floating format e4m3 (4 bits of exponent, 3 of fraction, no infinities) in uint8 arrays.

P. Micikevicius et al., "FP8 formats for deep learning" (2022).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ingot.tracer import dtypes
from ingot.tracer.array import array, leaf, wrap
from ingot.tracer.dtypes import Dtype
from ingot.tracer.ops import index
from ingot.tracer.ops import math as _math
from ingot.tracer.ops.coerce import require_array

_LARGEST = 126  # 448; 127 is NaN
_LEAST_EXPONENT = -6


def _values() -> np.ndarray:
    code = np.arange(128)
    exponent, fraction = code >> 3, code & 7
    size = np.where(exponent > 0, (8 + fraction) * 2.0 ** (exponent - 10), fraction * 2.0**-9)
    size[127] = np.nan
    return np.concatenate([size, -size]).astype(np.float32)


def to_fp8(x: array, *, stream: Any = None) -> array:
    """The nearest e4m3 numbers, ties to even, as uint8. What is larger than 448, and NaN, becomes 448.

    Raises:
        ValueError: for dtypes that are not floating.
    """
    a = require_array("to_fp8", x)
    if not a.dtype.is_floating:
        raise ValueError(f"[to_fp8] Only real floating types are supported but x.dtype() == {a.dtype.name}.")
    wide = _math.clip(a.astype(dtypes.float32), -448.0, 448.0)
    bits = _math.view(wide, dtypes.int32)
    exponent = ((bits >> 23) & 255) - 127
    exponent = _math.maximum(exponent, _LEAST_EXPONENT)
    # elements in units of their last place: 8 to 16 for normal numbers, below for the others
    scale = _math.view((127 + 3 - exponent) << 23, dtypes.float32)
    units = _math.round(_math.abs(wide) * scale)
    code = (exponent - _LEAST_EXPONENT) * 8 + _math.where(_math.isnan(units), 0, units).astype(dtypes.int32)
    code = _math.where(_math.isnan(wide), _LARGEST, code)
    return (code | ((bits >> 24) & 128)).astype(dtypes.uint8)


def from_fp8(x: array, dtype: Dtype = dtypes.bfloat16, *, stream: Any = None) -> array:
    """The numbers that uint8 elements stand for in e4m3, as `dtype`."""
    a = require_array("from_fp8", x)
    if a.dtype is not dtypes.uint8:
        raise ValueError(f"[from_fp8] Input must have type uint8 but x.dtype() == {a.dtype.name}.")
    return index.take(wrap(leaf(_values())), a).astype(dtype)
