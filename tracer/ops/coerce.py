"""From the arguments of public functions to operands: scalars are weak, dtypes are promoted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ingot.tracer import array as _array
from ingot.tracer import dtypes
from ingot.tracer.array import Value, array, record
from ingot.tracer.dims import Dim, Extent
from ingot.tracer.dtypes import Dtype, promote
from ingot.tracer.errors import AxisError
from ingot.tracer.graph import Literal
from ingot.tracer.primitives.elementwise import ConvertElementType

Operand = Value | Literal

_conversions: dict[Dtype, ConvertElementType] = {d: ConvertElementType(d) for d in dtypes.ALL}


def convert(x: Operand, dtype: Dtype) -> Operand:
    """`x` in `dtype`; a literal stays one when its value survives."""
    if x.aval.dtype is dtype:
        return x
    if type(x) is Literal and dtype.kind in "fc" and x.dtype.kind != "c":
        return Literal(float(x.numpy()), dtype)
    return record(_conversions[dtype], x)._value


def literal(value: Any, dtype: Dtype) -> Literal:
    """A Python scalar as an operand of `dtype`; raises ValueError for an integer that does not fit."""
    if value:  # zeros are not looked up: 0.0 equals -0.0
        key = (value, type(value), dtype)
        found = _literals.get(key)
        if found is not None:
            return found
        if len(_literals) >= 4096:
            _literals.clear()
        found = _literals[key] = _literal(value, dtype)
        return found
    return _literal(value, dtype)


_literals: dict[Any, Literal] = {}


def _literal(value: Any, dtype: Dtype) -> Literal:
    try:
        return Literal(value, dtype)
    except (ValueError, OverflowError):
        if dtype is dtypes.uint64 and isinstance(value, int) and -(1 << 63) <= value < 0:
            return Literal(value & (1 << 64) - 1, dtype)  # wraps, as in MLX
        raise ValueError(f"Converting {value} to {dtype.name} would result in overflow.") from None


def is_scalar(x: Any) -> bool:
    """True for Python and NumPy scalars and rank-0 NumPy arrays, which take their dtype from an array."""
    if isinstance(x, bool | int | float | complex | np.generic):
        return True
    return isinstance(x, np.ndarray) and x.ndim == 0


def _python(x: Any) -> bool | int | float | complex:
    return x.item() if isinstance(x, np.generic | np.ndarray) else x


def as_operand(name: str, x: Any) -> Operand:
    """Operand of one argument: an array, a scalar of its default dtype, a NumPy array or a symbolic extent.

    Raises:
        ValueError: for anything else, lists too (as MLX).
    """
    if isinstance(x, array):
        return x._value
    if is_scalar(x):
        value = _python(x)
        if isinstance(x, np.generic | np.ndarray) and not isinstance(value, bool | int | float | complex):
            raise ValueError(f"[{name}] no Ingot dtype for {x.dtype}.")
        return Literal(value, default_dtype(value))
    if isinstance(x, Dim):
        return _array.dim_to_array(x, dtypes.int32)._value
    if isinstance(x, list | tuple | str) or x is None:
        raise ValueError(f"[{name}] Invalid type {type(x).__name__} received in array initialization.")
    return array(x)._value


def default_dtype(value: bool | int | float | complex) -> Dtype:
    """Dtype of a Python scalar that meets no array."""
    if isinstance(value, bool):
        return dtypes.bool_
    if isinstance(value, int):
        return dtypes.int32 if -(1 << 31) <= value < 1 << 31 else dtypes.int64
    return dtypes.float32 if isinstance(value, float) else dtypes.complex64


def as_array(name: str, x: Any) -> array:
    """Handle of one argument (see `as_operand`)."""
    return x if isinstance(x, array) else _array.wrap(as_operand(name, x))


def common_pair(name: str, a: Any, b: Any) -> tuple[Operand, Operand]:
    """Operands of two arguments in their common dtype; scalars and NumPy arrays adapt to an array."""
    if isinstance(a, array):
        x: Operand = a._value
        y: Operand = b._value if isinstance(b, array) else _weak(name, b, x.aval.dtype)
    elif isinstance(b, array):
        y = b._value
        x = _weak(name, a, y.aval.dtype)
    else:
        x, y = as_operand(name, a), as_operand(name, b)
    p, q = x.aval.dtype, y.aval.dtype
    if p is q:
        return x, y
    dtype = promote(p, q)
    return convert(x, dtype), convert(y, dtype)


@lru_cache(maxsize=4096, typed=True)
def _weak_literal(value: Any, other: Dtype) -> Literal:
    return literal(value, dtypes.scalar_dtype(value, other))


def _weak(name: str, x: Any, other: Dtype) -> Operand:
    """Operand of a scalar, symbolic extent or NumPy array that meets an array of dtype `other`.

    It takes that dtype, unless its kind (bool, integer, floating, complex) is the higher one.
    """
    kind = type(x)
    if kind is int or (kind is float and x != 0.0):  # as keys 0.0 and -0.0 are equal
        return _weak_literal(x, other)
    if is_scalar(x):
        value = _python(x)
        return literal(value, dtypes.scalar_dtype(value, other))
    if isinstance(x, Dim):
        return _array.dim_to_array(x, dtypes.int32 if other is dtypes.bool_ else other)._value
    if isinstance(x, np.ndarray) and x.dtype.kind in "biufc":
        return array(x, dtypes.scalar_dtype(_ONE_OF_KIND[x.dtype.kind], other))._value
    return as_operand(name, x)


_ONE_OF_KIND: dict[str, bool | int | float | complex] = {"b": True, "i": 1, "u": 1, "f": 1.0, "c": 1j}


def extent_operand(extent: Extent, dtype: Dtype) -> Operand:
    """A number of elements as a scalar of `dtype`."""
    return _array.dim_to_array(extent, dtype)._value if isinstance(extent, Dim) else Literal(extent, dtype)


def at_least_float(x: Operand) -> Operand:
    """`x`, converted to float32 when it is bool or integer."""
    return x if x.aval.dtype.kind in "fc" else convert(x, dtypes.float32)


def require_array(name: str, x: Any) -> array:
    """`x` itself; raises TypeError when it is no array, for functions that take nothing else."""
    if isinstance(x, array):
        return x
    if isinstance(x, np.ndarray | np.generic):
        return array(x)
    raise TypeError(f"[{name}] expected an array, got {type(x).__name__}.")


def normal_axis(name: str, axis: int, ndim: int) -> int:
    """`axis` counted from the front; raises AxisError when out of range."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise TypeError(f"[{name}] axis must be an int, got {type(axis).__name__}.")
    axis = axis.__index__()
    if not -ndim <= axis < ndim:
        raise AxisError(f"[{name}] Invalid axis {axis} for array with {ndim} dimensions.")
    return axis + ndim if axis < 0 else axis


def normal_axes(name: str, axis: None | int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Sorted axes counted from the front; None means all. Raises on duplicates and out-of-range axes."""
    if axis is None:
        return tuple(range(ndim))
    if isinstance(axis, list | tuple):
        axes = sorted(normal_axis(name, a, ndim) for a in axis)
        if len(set(axes)) != len(axes):
            raise ValueError(f"[{name}] Duplicate axes detected in reduction: {tuple(axis)}.")
        return tuple(axes)
    return (normal_axis(name, axis, ndim),)  # type: ignore[arg-type]
